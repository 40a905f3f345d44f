#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "ring/check/support.h"

static struct wvm_shard *shard;

/* Every way a kernel may make us set up the ring; the tests below run under each. */
static const unsigned setups[] = {
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL,
};
#define SETUPS ((int)(sizeof(setups) / sizeof(setups[0])))

static struct wvm_shard *make_with(unsigned setup, struct wvm_shard_opts opts)
{
	struct wvm_kernel kernel;
	char why[256];

	ck_assert_int_eq(wvm_kernel_probe(&kernel, why, sizeof(why)), 0);
	ck_assert_uint_eq(kernel.setup_flags, setups[0]);
	kernel.setup_flags = setups[setup];
	opts.kernel = &kernel;
	return make_shard(&opts);
}

/* An idle shard. */

static void *idle_second(void *arg)
{
	uint64_t *enters = arg;

	usleep(200000);
	enters[0] = COUNTER(shard, enters);
	sleep(1);
	enters[1] = COUNTER(shard, enters);
	wvm_shard_stop(shard);
	return NULL;
}

START_TEST(an_idle_shard_makes_no_system_calls)
{
	uint64_t enters[2];
	pthread_t t;

	shard = make_with(_i % SETUPS,
			  (struct wvm_shard_opts){.poll_ns = _i >= SETUPS ? 1000000 : 0});
	ck_assert_int_eq(pthread_create(&t, NULL, idle_second, enters), 0);
	ck_assert_int_eq(wvm_shard_run(shard), 0);
	pthread_join(t, NULL);
	ck_assert_uint_gt(enters[0], 0);
	ck_assert_uint_eq(enters[0], enters[1]);
	wvm_shard_destroy(shard);
}
END_TEST

/* Timers. */

struct counted_timer {
	struct wvm_timer timer;
	uint64_t armed_ns, delay_ns;
	unsigned left;
};

static unsigned timers_running;

static void counted_fire(struct wvm_timer *t, uint64_t now_ns)
{
	struct counted_timer *c = (struct counted_timer *)t;

	ck_assert_uint_ge(wvm_now_ns(), c->armed_ns + c->delay_ns);
	ck_assert_uint_ge(now_ns, c->armed_ns + c->delay_ns);
	if (--c->left) {
		c->armed_ns = now_ns;
		wvm_shard_arm(shard, t, c->delay_ns);
	} else if (!--timers_running) {
		wvm_shard_stop(shard);
	}
}

START_TEST(timers_fire_never_early_and_all_of_them)
{
	struct counted_timer timers[64];

	shard = make_with(_i % SETUPS,
			  (struct wvm_shard_opts){.poll_ns = _i >= SETUPS ? 20000 : 0});
	timers_running = 64;
	for (unsigned i = 0; i < 64; i++) {
		timers[i] = (struct counted_timer){
			.timer.fire = counted_fire,
			.armed_ns = shard->now_ns,
			.delay_ns = i * 50000,
			.left = 20,
		};
		wvm_shard_arm(shard, &timers[i].timer, timers[i].delay_ns);
	}
	run_to_stop(shard);
	ck_assert_uint_eq(shard->stats.timers_fired, 64 * 20);
	wvm_shard_destroy(shard);
}
END_TEST

/* The submission queue. */

struct nop {
	struct wvm_io io;
	unsigned completed;
};

#define NOPS 5000
static struct nop nops[NOPS];
static unsigned nops_done;
static struct wvm_hook nop_hook;

static void nop_done(struct wvm_io *io, int res, uint32_t flags)
{
	ck_assert_int_eq(res, 0);
	((struct nop *)io)->completed++;
	if (++nops_done == NOPS)
		wvm_shard_stop(shard);
}

static bool submit_all_nops(struct wvm_hook *h, uint64_t now_ns)
{
	static unsigned next;

	while (next < NOPS) {
		struct io_uring_sqe *sqe = wvm_shard_sqe(shard);

		if (!sqe)
			return true;
		io_uring_prep_nop(sqe);
		nops[next].io.done = nop_done;
		wvm_sqe_to(sqe, &nops[next].io);
		next++;
	}
	return false;
}

static const struct {
	unsigned sq, cq, batch;
} queue_sizes[] = {{8, 16384, 256}, {8, 8, 256}, {256, 256, 7}, {1, 1, 1}};

START_TEST(full_queues_lose_and_repeat_nothing)
{
	shard = make_with(_i % SETUPS, (struct wvm_shard_opts){
					       .sq_entries = queue_sizes[_i / SETUPS].sq,
					       .cq_entries = queue_sizes[_i / SETUPS].cq,
					       .cqe_batch = queue_sizes[_i / SETUPS].batch,
				       });
	nop_hook.turn = submit_all_nops;
	wvm_shard_hook(shard, WVM_HOOK_ROLE, &nop_hook);
	run_to_stop(shard);
	for (unsigned i = 0; i < NOPS; i++)
		ck_assert_uint_eq(nops[i].completed, 1);
	ck_assert_uint_gt(shard->stats.sq_full, 0);
	if (queue_sizes[_i / SETUPS].cq < 16384)
		ck_assert_uint_gt(shard->stats.cq_overflow, 0);
	ck_assert_uint_le(shard->stats.cqes,
			  shard->stats.turns * queue_sizes[_i / SETUPS].batch + 16);
	wvm_shard_destroy(shard);
}
END_TEST

/*
 * Operations that skip their completion: every second one fails (a write to a
 * closed slot). When the shard calls one settled, its failure must have been seen.
 */

struct silent {
	struct wvm_io io;
	uint32_t issue;
	bool bad, failed, settled;
};

#define SILENT 4000
static struct silent silent[SILENT];
static unsigned silent_issued, silent_settled;
static struct wvm_hook silent_hook;

static void silent_failed(struct wvm_io *io, int res, uint32_t flags)
{
	struct silent *o = (struct silent *)io;

	ck_assert_int_lt(res, 0);
	ck_assert(o->bad && !o->failed);
	ck_assert_msg(!o->settled, "failed after it was called settled");
	o->failed = true;
}

static bool issue_silent(struct wvm_hook *h, uint64_t now_ns)
{
	for (; silent_settled < silent_issued; silent_settled++) {
		struct silent *o = &silent[silent_settled];

		if (!wvm_shard_settled(shard, o->issue))
			break;
		o->settled = true;
		ck_assert_msg(o->failed == o->bad, "settled with its failure unseen");
	}
	for (unsigned i = 0; i < 20 && silent_issued < SILENT; i++) {
		struct silent *o = &silent[silent_issued];
		struct io_uring_sqe *sqe = wvm_shard_sqe(shard);

		if (!sqe)
			break;
		o->bad = silent_issued & 1;
		o->io.done = silent_failed;
		if (o->bad)
			io_uring_prep_poll_remove(sqe, 0xdead);
		else
			io_uring_prep_nop(sqe);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		wvm_sqe_to(sqe, &o->io);
		o->issue = wvm_shard_issue(shard);
		silent_issued++;
	}
	if (silent_settled == SILENT)
		wvm_shard_stop(shard);
	return true;
}

START_TEST(settled_means_that_the_failure_was_reported)
{
	/* Small queues, so that failures are held back by an overflow again and again. */
	shard = make_with(_i % SETUPS, (struct wvm_shard_opts){
					       .sq_entries = 16,
					       .cq_entries = _i < SETUPS ? 16 : 1024,
					       .cqe_batch = 5,
				       });
	silent_hook.turn = issue_silent;
	wvm_shard_hook(shard, WVM_HOOK_ROLE, &silent_hook);
	run_to_stop(shard);
	ck_assert_uint_eq(silent_settled, SILENT);
	wvm_shard_destroy(shard);
}
END_TEST

/* Stopping. */

static int cancelled_res;

static void cancelled_done(struct wvm_io *io, int res, uint32_t flags)
{
	cancelled_res = res;
}

static void *stop_later(void *arg)
{
	usleep(20000);
	wvm_shard_stop(shard);
	wvm_shard_stop(shard);
	return NULL;
}

START_TEST(stopping_cancels_what_is_in_flight_and_says_so)
{
	struct wvm_io io = {.done = cancelled_done};
	int fd = eventfd(0, 0);
	struct io_uring_sqe *sqe;
	pthread_t t;

	shard = make_with(_i, (struct wvm_shard_opts){0});
	sqe = wvm_shard_sqe(shard);
	io_uring_prep_poll_add(sqe, fd, POLLIN);
	wvm_sqe_to(sqe, &io);
	ck_assert_int_eq(pthread_create(&t, NULL, stop_later, NULL), 0);
	ck_assert_int_eq(wvm_shard_run(shard), 0);
	pthread_join(t, NULL);
	ck_assert_int_eq(cancelled_res, -ECANCELED);
	wvm_shard_destroy(shard);
	close(fd);
}
END_TEST

START_TEST(a_shard_that_was_stopped_before_it_started_ends_at_once)
{
	shard = make_shard(NULL);
	wvm_shard_stop(shard);
	ck_assert_int_eq(wvm_shard_start(shard), 0);
	ck_assert_int_eq(wvm_shard_join(shard), 0);
	wvm_shard_destroy(shard);
}
END_TEST

START_TEST(a_shard_that_never_ran_can_be_destroyed)
{
	shard = make_shard(&(struct wvm_shard_opts){.fixed_block = 4096, .fixed_count = 4});
	wvm_shard_destroy(shard);
	wvm_shard_destroy(NULL);
}
END_TEST

/* A loop that the kernel ends. */

static struct death {
	uint32_t count;
	bool ran;
	struct wvm_shard *of;
} death;

static void note_death(struct wvm_shard *s, void *ctx, bool ran)
{
	struct death *d = ctx;

	d->of = s;
	d->ran = ran;
	__atomic_fetch_add(&d->count, 1, __ATOMIC_RELEASE);
}

/* The ring's descriptor means another ring, or none, from the next enter on. */
static bool lose_ring(struct wvm_hook *h, uint64_t now_ns)
{
	shard->ring.enter_ring_fd = 1 << 20;
	shard->enter_flags = 0;
	return false;
}

START_TEST(a_loop_that_the_kernel_ends_says_so_at_once)
{
	struct wvm_hook hook = {.turn = lose_ring};

	shard = make_with(_i % SETUPS, (struct wvm_shard_opts){.index = 3,
							       .poll_ns = _i >= SETUPS ? 20000 : 0,
							       .died = note_death,
							       .died_ctx = &death});
	wvm_shard_hook(shard, WVM_HOOK_ROLE, &hook);
	ck_assert_int_eq(wvm_shard_start(shard), 0);
	ck_assert(wait_for(&death.count));
	ck_assert_int_eq(wvm_shard_join(shard), -EBADF);
	ck_assert_uint_eq(death.count, 1);
	ck_assert(death.ran && death.of == shard);
	ck_assert_ptr_nonnull(strstr(shard->dead, "shard 3: io_uring_enter: Bad file descriptor"));
	wvm_shard_destroy(shard);
}
END_TEST

START_TEST(a_loop_that_cannot_begin_says_so_too)
{
	struct wvm_shard_opts opts = {.pin = true,
				      .place = {.pu = 1 << 14, .node = -1, .real = true},
				      .died = note_death,
				      .died_ctx = &death};

	shard = make_shard(&opts);
	ck_assert_int_eq(wvm_shard_start(shard), 0);
	ck_assert(wait_for(&death.count));
	ck_assert_int_lt(wvm_shard_join(shard), 0);
	ck_assert(!death.ran);
	ck_assert_ptr_nonnull(strstr(shard->dead, "cannot pin"));
	wvm_shard_destroy(shard);
}
END_TEST

START_TEST(a_loop_that_is_stopped_did_not_die)
{
	shard = make_shard(&(struct wvm_shard_opts){.died = note_death, .died_ctx = &death});
	ck_assert_int_eq(wvm_shard_start(shard), 0);
	wvm_shard_stop(shard);
	ck_assert_int_eq(wvm_shard_join(shard), 0);
	ck_assert_uint_eq(death.count, 0);
	wvm_shard_destroy(shard);
}
END_TEST

/* Hooks. */

struct watched_hook {
	struct wvm_hook hook;
	uint32_t work; /* written by another thread without any wake */
	bool asked_to_sleep;
	unsigned turns;
};

static struct watched_hook watched;

static bool watched_turn(struct wvm_hook *h, uint64_t now_ns)
{
	watched.turns++;
	if (__atomic_load_n(&watched.work, __ATOMIC_ACQUIRE))
		wvm_shard_stop(shard);
	return false;
}

static bool watched_ready(struct wvm_hook *h, bool about_to_sleep)
{
	watched.asked_to_sleep |= about_to_sleep;
	/* The work turns up at the last moment, as from a client that saw no sleep flag. */
	if (about_to_sleep && watched.turns == 1)
		__atomic_store_n(&watched.work, 1, __ATOMIC_RELEASE);
	return __atomic_load_n(&watched.work, __ATOMIC_ACQUIRE);
}

START_TEST(work_seen_right_before_the_sleep_cancels_it)
{
	shard = make_with(_i, (struct wvm_shard_opts){0});
	watched.hook.turn = watched_turn;
	watched.hook.ready = watched_ready;
	wvm_shard_hook(shard, WVM_HOOK_ROLE, &watched.hook);
	run_to_stop(shard);
	ck_assert(watched.asked_to_sleep);
	ck_assert_uint_eq(watched.turns, 2);
	wvm_shard_destroy(shard);
}
END_TEST

static char order[8];

static bool note_a(struct wvm_hook *h, uint64_t now_ns)
{
	strcat(order, "a");
	return false;
}

static bool note_b(struct wvm_hook *h, uint64_t now_ns)
{
	strcat(order, "b");
	return false;
}

static bool note_flush(struct wvm_hook *h, uint64_t now_ns)
{
	strcat(order, "f");
	wvm_shard_stop(shard);
	return false;
}

START_TEST(flushing_hooks_run_after_the_roles)
{
	struct wvm_hook f = {.turn = note_flush}, a = {.turn = note_a}, b = {.turn = note_b};

	shard = make_shard(NULL);
	wvm_shard_hook(shard, WVM_HOOK_FLUSH, &f);
	wvm_shard_hook(shard, WVM_HOOK_ROLE, &a);
	wvm_shard_hook(shard, WVM_HOOK_ROLE, &b);
	run_to_stop(shard);
	ck_assert_str_eq(order, "abf");
	wvm_shard_destroy(shard);
}
END_TEST

/* Files, buffers, options. */

START_TEST(file_slots_and_buffers_run_out_and_come_back)
{
	int slots[4], fd = eventfd(0, 0);
	void *blocks[3];

	shard = make_shard(
		&(struct wvm_shard_opts){.files = 4, .fixed_block = 8192, .fixed_count = 3});
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_ge(slots[i] = wvm_shard_file_add(shard, fd), 0);
	ck_assert_int_eq(wvm_shard_file_add(shard, fd), -ENFILE);
	wvm_shard_file_del(shard, slots[2]);
	ck_assert_int_eq(wvm_shard_file_add(shard, -5), -EBADF);
	ck_assert_int_eq(wvm_shard_file_add(shard, fd), slots[2]);
	for (unsigned i = 0; i < 3; i++) {
		blocks[i] = wvm_shard_fixed_get(shard);
		ck_assert_ptr_nonnull(blocks[i]);
		ck_assert_uint_eq((uintptr_t)blocks[i] % 4096, 0);
	}
	ck_assert_ptr_null(wvm_shard_fixed_get(shard));
	wvm_shard_fixed_put(shard, blocks[1]);
	ck_assert_ptr_eq(wvm_shard_fixed_get(shard), blocks[1]);
	wvm_shard_destroy(shard);
	close(fd);
}
END_TEST

static const struct {
	struct wvm_shard_opts opts;
	const char *name;
} bad_opts[] = {
	{{.sq_entries = 3}, "sq_entries"},
	{{.sq_entries = 65536}, "sq_entries"},
	{{.cq_entries = 100}, "cq_entries"},
	{{.sq_entries = 256, .cq_entries = 128}, "cq_entries"},
	{{.inbox_slots = 3}, "inbox_slots"},
	{{.inbox_bytes = 63}, "inbox_bytes"},
	{{.inbox_bytes = 65537}, "inbox_bytes"},
	{{.fixed_count = 1}, "fixed_block"},
	{{.fixed_count = 1, .fixed_block = 100}, "fixed_block"},
	{{.uffd_bufs = 5}, "uffd_bufs"},
	{{.files = 1 << 20}, "files"},
};

START_TEST(an_option_out_of_range_is_named)
{
	char why[256] = "";

	ck_assert_int_eq(wvm_shard_create(&shard, &bad_opts[_i].opts, why, sizeof(why)), -EINVAL);
	ck_assert_ptr_null(shard);
	ck_assert_ptr_nonnull(strstr(why, bad_opts[_i].name));
}
END_TEST

/* Polling. */

static void *post_nothing(void *arg)
{
	usleep(100000);
	wvm_shard_stop(shard);
	return NULL;
}

START_TEST(polling_gives_up_and_sleeps)
{
	pthread_t t;

	shard = make_with(_i, (struct wvm_shard_opts){.poll_ns = 50000});
	ck_assert_int_eq(pthread_create(&t, NULL, post_nothing, NULL), 0);
	ck_assert_int_eq(wvm_shard_run(shard), 0);
	pthread_join(t, NULL);
	ck_assert_uint_ge(shard->stats.sleeps, 1);
	ck_assert_uint_le(shard->stats.sleeps, 8);
	wvm_shard_destroy(shard);
}
END_TEST

START_TEST(sent_ns_is_kept_only_on_request)
{
	for (int on = 0; on < 2; on++) {
		shard = make_shard(&(struct wvm_shard_opts){.timestamps = on});
		run_for(shard, 1000000);
		ck_assert_int_eq(shard->sent_ns != 0, on);
		wvm_shard_destroy(shard);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/shard");
	TCase *c = tcase_create("shard");

	tcase_set_timeout(c, 60);
	tcase_add_loop_test(c, an_idle_shard_makes_no_system_calls, 0, 2 * SETUPS);
	tcase_add_loop_test(c, timers_fire_never_early_and_all_of_them, 0, 2 * SETUPS);
	tcase_add_loop_test(c, full_queues_lose_and_repeat_nothing, 0, 4 * SETUPS);
	tcase_add_loop_test(c, settled_means_that_the_failure_was_reported, 0, 2 * SETUPS);
	tcase_add_loop_test(c, stopping_cancels_what_is_in_flight_and_says_so, 0, SETUPS);
	tcase_add_loop_test(c, a_loop_that_the_kernel_ends_says_so_at_once, 0, 2 * SETUPS);
	tcase_add_test(c, a_loop_that_cannot_begin_says_so_too);
	tcase_add_test(c, a_loop_that_is_stopped_did_not_die);
	tcase_add_test(c, a_shard_that_was_stopped_before_it_started_ends_at_once);
	tcase_add_test(c, a_shard_that_never_ran_can_be_destroyed);
	tcase_add_loop_test(c, work_seen_right_before_the_sleep_cancels_it, 0, SETUPS);
	tcase_add_test(c, flushing_hooks_run_after_the_roles);
	tcase_add_test(c, file_slots_and_buffers_run_out_and_come_back);
	tcase_add_loop_test(c, an_option_out_of_range_is_named, 0,
			    sizeof(bad_opts) / sizeof(bad_opts[0]));
	tcase_add_loop_test(c, polling_gives_up_and_sleeps, 0, SETUPS);
	tcase_add_test(c, sent_ns_is_kept_only_on_request);
	suite_add_tcase(s, c);
	return run_suite(s);
}

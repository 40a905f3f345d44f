#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "ring/check/support.h"
#include "ring/doorbell.h"

static struct wvm_shard *shard;
static struct wvm_doorbell in, out;
static uint32_t rings, closed;

static void on_closed(struct wvm_doorbell *d)
{
	closed++;
	memset(d, 0xee, sizeof(*d));
}

static void stop_now(struct wvm_timer *t, uint64_t now_ns)
{
	wvm_shard_stop(shard);
}

/* A ball between the shard and another process that only knows two eventfds. */

#define ROUNDS 5000

static void return_ball(struct wvm_doorbell *d)
{
	if (++rings == ROUNDS)
		wvm_shard_stop(shard);
	wvm_doorbell_ring(&out);
	/* In the same turn it is one ring. */
	wvm_doorbell_ring(&out);
}

static void other_process(int to_shard, int from_shard)
{
	uint64_t n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (wvm_doorbell_ring_fd(to_shard))
			_exit(1);
		if (read(from_shard, &n, sizeof(n)) != sizeof(n) || n != 1)
			_exit(2);
	}
	_exit(0);
}

START_TEST(every_ring_between_two_processes_arrives)
{
	int to_shard = eventfd(0, EFD_NONBLOCK), from_shard = eventfd(0, 0);
	int status;
	pid_t pid;

	shard = make_shard(NULL);
	in.ring = return_ball;
	ck_assert_int_eq(wvm_doorbell_open(&in, shard, to_shard, true), 0);
	ck_assert_int_eq(wvm_doorbell_open(&out, shard, dup(from_shard), false), 0);
	pid = fork();
	if (!pid)
		other_process(to_shard, from_shard);
	run_to_stop(shard);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(shard->stats.doorbells_in, ROUNDS);
	ck_assert_uint_eq(shard->stats.doorbells_out, ROUNDS);
	wvm_shard_destroy(shard);
}
END_TEST

/* Rings before the shard listens, and many at once. */

static void count(struct wvm_doorbell *d)
{
	rings++;
}

START_TEST(a_ring_before_the_shard_listens_is_not_lost)
{
	struct wvm_timer end = {.fire = stop_now};
	int fd = eventfd(0, EFD_NONBLOCK);

	shard = make_shard(NULL);
	in.ring = count;
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(wvm_doorbell_ring_fd(fd), 0);
	ck_assert_int_eq(wvm_doorbell_open(&in, shard, fd, true), 0);
	wvm_shard_arm_at(shard, &end, wvm_now_ns() + 20000000);
	run_to_stop(shard);
	ck_assert_uint_ge(rings, 1);
	ck_assert_uint_le(rings, 5);
	wvm_shard_destroy(shard);
}
END_TEST

/* A peer that never reads: the counter is full, and nobody blocks. */
START_TEST(a_full_counter_blocks_neither_way_of_ringing)
{
	struct wvm_timer end = {.fire = stop_now};
	const uint64_t full = UINT64_MAX - 1;
	int fd = eventfd(0, EFD_NONBLOCK);

	shard = make_shard(NULL);
	ck_assert_int_eq(write(fd, &full, sizeof(full)), sizeof(full));
	ck_assert_int_eq(wvm_doorbell_ring_fd(fd), 0);
	ck_assert_int_eq(wvm_doorbell_open(&out, shard, fd, false), 0);
	if (_i)
		ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
	wvm_doorbell_ring(&out);
	wvm_shard_arm_at(shard, &end, wvm_now_ns() + 20000000);
	run_to_stop(shard);
	ck_assert_uint_eq(shard->stats.doorbells_out, 1);
	wvm_shard_destroy(shard);
}
END_TEST

/* Closing. */

static void close_and_reuse(struct wvm_timer *t, uint64_t now_ns)
{
	wvm_doorbell_ring(&out);
	wvm_doorbell_close(&in);
	wvm_doorbell_close(&in);
	wvm_doorbell_close(&out);
}

START_TEST(a_closed_doorbell_rings_no_more_and_gives_its_slot_back)
{
	struct wvm_timer close_timer = {.fire = close_and_reuse}, end = {.fire = stop_now};
	int fd = eventfd(0, EFD_NONBLOCK);
	unsigned slots;

	shard = make_shard(NULL);
	slots = shard->free_file_count;
	in.ring = count;
	in.closed = out.closed = on_closed;
	ck_assert_int_eq(wvm_doorbell_open(&in, shard, dup(fd), true), 0);
	ck_assert_int_eq(wvm_doorbell_open(&out, shard, eventfd(0, EFD_NONBLOCK), false), 0);
	wvm_shard_arm_at(shard, &close_timer, wvm_now_ns() + 5000000);
	wvm_shard_arm_at(shard, &end, wvm_now_ns() + 30000000);
	run_to_stop(shard);
	ck_assert_uint_eq(closed, 2);
	ck_assert_uint_eq(rings, 0);
	ck_assert_uint_eq(shard->free_file_count, slots);
	wvm_doorbell_ring_fd(fd);
	wvm_shard_destroy(shard);
	close(fd);
}
END_TEST

/* Any pollable descriptor will do. */

static void read_signals(struct wvm_doorbell *d)
{
	struct signalfd_siginfo info;

	while (read(d->fd, &info, sizeof(info)) == sizeof(info)) {
		ck_assert_uint_eq(info.ssi_signo, SIGTERM);
		rings++;
		wvm_shard_stop(shard);
	}
	ck_assert_int_eq(errno, EAGAIN);
}

static void raise_sigterm(struct wvm_timer *t, uint64_t now_ns)
{
	kill(getpid(), SIGTERM);
}

START_TEST(a_signalfd_is_a_doorbell_too)
{
	struct wvm_timer t = {.fire = raise_sigterm};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	shard = make_shard(NULL);
	in.ring = read_signals;
	ck_assert_int_eq(
		wvm_doorbell_open(&in, shard, signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), true),
		0);
	wvm_shard_arm_at(shard, &t, wvm_now_ns() + 1000000);
	run_to_stop(shard);
	ck_assert_uint_eq(rings, 1);
	wvm_shard_destroy(shard);
}
END_TEST

START_TEST(without_a_file_slot_the_descriptor_stays_the_callers)
{
	int fd = eventfd(0, EFD_NONBLOCK);

	shard = make_shard(&(struct wvm_shard_opts){.files = 1});
	ck_assert_int_ge(wvm_shard_file_add(shard, fd), 0);
	in.ring = count;
	ck_assert_int_eq(wvm_doorbell_open(&in, shard, fd, true), -ENFILE);
	ck_assert_int_eq(close(fd), 0);
	wvm_shard_destroy(shard);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/doorbell");
	TCase *c = tcase_create("doorbell");

	tcase_set_timeout(c, 60);
	tcase_add_test(c, every_ring_between_two_processes_arrives);
	tcase_add_test(c, a_ring_before_the_shard_listens_is_not_lost);
	tcase_add_loop_test(c, a_full_counter_blocks_neither_way_of_ringing, 0, 2);
	tcase_add_test(c, a_closed_doorbell_rings_no_more_and_gives_its_slot_back);
	tcase_add_test(c, a_signalfd_is_a_doorbell_too);
	tcase_add_test(c, without_a_file_slot_the_descriptor_stays_the_callers);
	suite_add_tcase(s, c);
	return run_suite(s);
}

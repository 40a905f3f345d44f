#include "ring/shard.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "ring/post.h"
#include "ring/standing.h"
#include "ring/urgent.h"

#define SUBMIT_TRIES 4
#define DRAIN_ROUNDS 3000 /* of DRAIN_NS: at most 30 s for writes in flight */
#define DRAIN_NS     10000000ULL

/* Longer than a turn of anybody who shares the work; one that computes has the core for 3 ms. */
#define SPIN_LOST_NS  1000000ULL
#define SPIN_AGAIN_NS 100000000ULL /* so that what is lost by trying again is a few per cent */

uint64_t wvm_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

/* Submission. */

static bool overflown(const struct wvm_shard *s)
{
	return __atomic_load_n(s->ring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_CQ_OVERFLOW;
}

/*
 * Every failure of what was submitted so far is in the completion queue now: remember up to
 * where. Only with nothing held back by an overflow, and only after the mark before this has
 * settled, so that marks settle even when the queue never runs empty.
 */
static void mark_entered(struct wvm_shard *s)
{
	if (s->settling || overflown(s))
		return;
	s->sq_entered = __atomic_load_n(s->ring.sq.khead, __ATOMIC_ACQUIRE);
	s->cq_horizon = __atomic_load_n(s->ring.cq.ktail, __ATOMIC_ACQUIRE);
	s->settling = true;
}

static unsigned to_submit(const struct wvm_shard *s)
{
	return s->ring.sq.sqe_tail - __atomic_load_n(s->ring.sq.khead, __ATOMIC_ACQUIRE);
}

/*
 * The one system call. Submits all, waits for `wait` completions or until timeout_ns from now
 * (WVM_NEVER: for ever). Returns 0 or -errno; a timeout, a signal and a busy queue are no errors.
 */
static int enter(struct wvm_shard *s, unsigned wait, unsigned flags, uint64_t timeout_ns)
{
	struct io_uring_sq *sq = &s->ring.sq;
	struct __kernel_timespec ts;
	struct io_uring_getevents_arg arg = {.sigmask_sz = _NSIG / 8};
	void *extra = NULL;
	size_t extra_len = 0;
	int ret;

	sq->sqe_head = sq->sqe_tail;
	__atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
	if (wait && timeout_ns != WVM_NEVER) {
		ts.tv_sec = (long long)(timeout_ns / 1000000000);
		ts.tv_nsec = (long long)(timeout_ns % 1000000000);
		arg.ts = (uint64_t)(uintptr_t)&ts;
		extra = &arg;
		extra_len = sizeof(arg);
		flags |= IORING_ENTER_EXT_ARG;
	}
	if (s->opts.timestamps)
		s->sent_ns = wvm_now_ns();
	WVM_COUNT(s, enters, 1);
	wvm_count_call(WVM_CALL_enter);
	ret = io_uring_enter2((unsigned)s->ring.enter_ring_fd, to_submit(s), wait,
			      flags | s->enter_flags, extra, extra_len);
	if (ret > 0)
		WVM_COUNT(s, sqes, ret);
	mark_entered(s);
	if (ret >= 0 || ret == -ETIME || ret == -EINTR || ret == -EBUSY || ret == -EAGAIN)
		return 0;
	return ret;
}

int wvm_shard_room(struct wvm_shard *s, unsigned n)
{
	unsigned entries = s->ring.sq.ring_entries;

	if (entries - to_submit(s) >= n)
		return 0;
	WVM_COUNT(s, sq_full, 1);
	for (int i = 0; s->entered && i < SUBMIT_TRIES; i++) {
		if (enter(s, 0, 0, WVM_NEVER))
			break;
		if (entries - to_submit(s) >= n)
			return 0;
	}
	WVM_COUNT(s, sq_refused, 1);
	return -EAGAIN;
}

struct io_uring_sqe *wvm_shard_sqe(struct wvm_shard *s)
{
	struct io_uring_sqe *sqe;

	if (wvm_shard_room(s, 1))
		return NULL;
	sqe = io_uring_get_sqe(&s->ring);
	assert(sqe);
	sqe->user_data = 0;
	return sqe;
}

int wvm_shard_cancel(struct wvm_shard *s, struct wvm_io *io, struct wvm_io *report)
{
	struct io_uring_sqe *sqe = wvm_shard_sqe(s);

	if (!sqe)
		return -EAGAIN;
	io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)io, 0);
	wvm_sqe_to(sqe, report);
	return 0;
}

/* The loop's steps. */

static unsigned reap(struct wvm_shard *s)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe (&s->ring, head, cqe) {
		struct wvm_io *io = (struct wvm_io *)(uintptr_t)cqe->user_data;

		if (n == s->opts.cqe_batch)
			break;
		n++;
		if (io)
			io->done(io, cqe->res, cqe->flags);
	}
	io_uring_cq_advance(&s->ring, n);
	if (n)
		WVM_COUNT(s, cqes, n);
	if (s->settling && (int32_t)(*s->ring.cq.khead - s->cq_horizon) >= 0) {
		s->sq_settled = s->sq_entered;
		s->settling = false;
	}
	return n;
}

/* Runs the tasks queued so far; those that they queue run in the next turn. */
static void run_tasks(struct wvm_shard *s)
{
	struct wvm_task *t = s->task_first;
	unsigned n = 0;

	s->task_first = NULL;
	s->task_last = &s->task_first;
	while (t) {
		struct wvm_task *next = t->next;

		t->queued = false;
		t->run(t);
		t = next;
		n++;
	}
	if (n)
		WVM_COUNT(s, tasks, n);
}

static bool run_hooks(struct wvm_shard *s)
{
	bool more = false;

	for (unsigned stage = 0; stage < 2; stage++)
		for (struct wvm_hook *h = s->hooks[stage]; h; h = h->next)
			more |= h->turn(h, s->now_ns);
	return more;
}

/* Returns whether work was left behind. */
static bool turn(struct wvm_shard *s)
{
	unsigned fired;
	bool more = false;

	s->now_ns = wvm_now_ns();
	WVM_COUNT(s, turns, 1);
	if (overflown(s))
		WVM_COUNT(s, cq_overflow, 1);
	reap(s);
	if (s->task_first)
		run_tasks(s);
	more |= wvm_inbox_run(s, s->opts.post_batch) == s->opts.post_batch;
	if (s->wheel.armed) {
		fired = wvm_wheel_advance(&s->wheel, s->now_ns, s->opts.timer_batch);
		if (fired)
			WVM_COUNT(s, timers_fired, fired);
	}
	more |= run_hooks(s);
	return more;
}

static bool hooks_ready(struct wvm_shard *s, bool about_to_sleep)
{
	bool ready = false;

	for (unsigned stage = 0; stage < 2; stage++)
		for (struct wvm_hook *h = s->hooks[stage]; h; h = h->next)
			ready |= h->ready && h->ready(h, about_to_sleep);
	return ready;
}

static bool stopping(const struct wvm_shard *s)
{
	return __atomic_load_n(&s->stop, __ATOMIC_RELAXED);
}

/* Announces the sleep; false when work came in before it could be seen. */
static bool go_to_sleep(struct wvm_shard *s)
{
	/* Pairs with the exchange in post.c, wake(). */
	__atomic_exchange_n(&s->asleep, 1, __ATOMIC_ACQ_REL);
	if (!wvm_inbox_ready(s->inbox) && !stopping(s) && !hooks_ready(s, true))
		return true;
	__atomic_store_n(&s->asleep, 0, __ATOMIC_RELAXED);
	return false;
}

/*
 * Submits and spins for work; returns 1 when there is some, 0 when it may sleep, or -errno.
 *
 * Each look gives the core away, since whoever is to bring the work may need it: a client, a slave,
 * the next daemon. One that computes keeps it for milliseconds, and what comes meanwhile does not
 * preempt it, as it would for one that sleeps: then sleeping is better for a while.
 */
static int spin(struct wvm_shard *s)
{
	uint64_t now, until;
	int err = 0;

	/* GETEVENTS: completions that come while submitting must not keep task work waiting. */
	if (to_submit(s))
		err = enter(s, 0, IORING_ENTER_GETEVENTS, WVM_NEVER);
	now = wvm_now_ns();
	until = wvm_wheel_next(&s->wheel);
	if (until > now + s->poll_ns)
		until = now + s->poll_ns;
	while (!err) {
		if (io_uring_cq_ready(&s->ring) || wvm_inbox_ready(s->inbox) ||
		    hooks_ready(s, false) || stopping(s)) {
			WVM_COUNT(s, spins, 1);
			return 1;
		}
		if (now >= until)
			break;
		if (__atomic_load_n(s->ring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) {
			err = enter(s, 0, IORING_ENTER_GETEVENTS, WVM_NEVER);
			now = wvm_now_ns();
		} else {
			uint64_t before = now;

			wvm_count_call(WVM_CALL_yield);
			sched_yield();
			now = wvm_now_ns();
			if (now - before > SPIN_LOST_NS) {
				s->spin_from_ns = now + SPIN_AGAIN_NS;
				break;
			}
		}
	}
	return err;
}

/* Submits, and waits unless there is work left. */
static int submit_and_wait(struct wvm_shard *s, bool more)
{
	uint64_t next, timeout = WVM_NEVER;
	bool busy = more || s->task_first || io_uring_cq_ready(&s->ring);
	int err;

	if (!busy && s->poll_ns && s->now_ns >= s->spin_from_ns) {
		err = spin(s);
		if (err)
			return err < 0 ? err : 0;
	}
	next = busy ? WVM_NEVER : wvm_wheel_next(&s->wheel);
	if (next != WVM_NEVER) {
		uint64_t now = wvm_now_ns();

		timeout = next > now ? next - now : 0;
	}
	if (!busy && timeout && go_to_sleep(s)) {
		WVM_COUNT(s, sleeps, 1);
		err = enter(s, 1, IORING_ENTER_GETEVENTS, timeout);
		__atomic_store_n(&s->asleep, 0, __ATOMIC_RELAXED);
		return err;
	}
	if (!to_submit(s) && !overflown(s) && io_uring_cq_ready(&s->ring))
		return 0;
	return enter(s, 0, IORING_ENTER_GETEVENTS, WVM_NEVER);
}

/* After the stop: cancel what is in flight and let its owners know. */
static void drain(struct wvm_shard *s)
{
	struct io_uring_sqe *sqe;
	unsigned quiet = 0;

	s->ending = true;
	sqe = wvm_shard_sqe(s);
	if (sqe) {
		io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY);
		wvm_sqe_to(sqe, NULL);
	}
	for (unsigned i = 0; i < DRAIN_ROUNDS && (quiet < 2 || s->must_finish); i++) {
		if (enter(s, 1, IORING_ENTER_GETEVENTS, DRAIN_NS))
			return;
		s->now_ns = wvm_now_ns();
		quiet = reap(s) ? 0 : quiet + 1;
		run_tasks(s);
	}
}

static int begin(struct wvm_shard *s)
{
	int err;

	wvm_calls_here = &s->calls;
	err = s->opts.pin ? wvm_place_apply(&s->opts.place) : 0;
	if (err) {
		snprintf(s->dead, sizeof(s->dead), "shard %u: cannot pin to cpu %d: %s", s->index,
			 s->opts.place.pu, strerror(-err));
		return err;
	}
	/* The default slack of 50 µs would be added to every timer. */
	prctl(PR_SET_TIMERSLACK, 1UL);
	if (s->ring.flags & IORING_SETUP_R_DISABLED) {
		/* io_uring_enable_rings() is missing from the library of liburing 2.3. */
		wvm_count_call(WVM_CALL_uring_register);
		err = io_uring_register((unsigned)s->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
					NULL, 0);
		if (err < 0) {
			snprintf(s->dead, sizeof(s->dead), "shard %u: io_uring_enable_rings: %s",
				 s->index, strerror(-err));
			return err;
		}
	}
	wvm_count_call(WVM_CALL_uring_register);
	if (io_uring_register_ring_fd(&s->ring) == 1)
		s->enter_flags = IORING_ENTER_REGISTERED_RING;
	s->entered = s->ran = true;
	return 0;
}

int wvm_shard_run(struct wvm_shard *s)
{
	int err = begin(s);

	if (err)
		return err;
	while (!stopping(s)) {
		err = submit_and_wait(s, turn(s));
		if (err) {
			snprintf(s->dead, sizeof(s->dead), "shard %u: io_uring_enter: %s", s->index,
				 strerror(-err));
			break;
		}
	}
	drain(s);
	s->entered = false;
	if (s->enter_flags) {
		wvm_count_call(WVM_CALL_uring_register);
		io_uring_unregister_ring_fd(&s->ring);
		s->enter_flags = 0;
	}
	wvm_calls_here = NULL;
	return err;
}

static void *thread_main(void *arg)
{
	struct wvm_shard *s = arg;
	char name[16];

	snprintf(name, sizeof(name), "%.11s-%u", s->opts.name, s->index % 1000);
	pthread_setname_np(pthread_self(), name);
	wvm_urgent(); /* without it slower, not wrong */
	s->result = wvm_shard_run(s);
	if (s->result && s->opts.died)
		s->opts.died(s, s->opts.died_ctx, s->ran);
	return NULL;
}

int wvm_shard_start(struct wvm_shard *s)
{
	int err = -pthread_create(&s->thread, NULL, thread_main, s);

	s->threaded = !err;
	return err;
}

int wvm_shard_join(struct wvm_shard *s)
{
	if (s->threaded)
		pthread_join(s->thread, NULL);
	s->threaded = false;
	return s->result;
}

void wvm_shard_ring_eventfd(struct wvm_shard *s)
{
	const uint64_t one = 1;
	int saved = errno;
	ssize_t n;

	wvm_count_call(WVM_CALL_write);
	/* A full counter (EAGAIN) means that it is signalled already. */
	n = write(s->wake_fd, &one, sizeof(one));

	(void)n;
	errno = saved;
}

void wvm_shard_wake(struct wvm_shard *s)
{
	if (__atomic_exchange_n(&s->asleep, 0, __ATOMIC_ACQ_REL))
		wvm_shard_ring_eventfd(s);
}

void wvm_shard_stop(struct wvm_shard *s)
{
	__atomic_store_n(&s->stop, 1, __ATOMIC_RELAXED);
	wvm_shard_wake(s);
}

/* What a shard offers its users. */

int wvm_shard_file_add(struct wvm_shard *s, int fd)
{
	int slot, ret;

	if (!s->free_file_count)
		return -ENFILE;
	slot = s->free_files[s->free_file_count - 1];
	wvm_count_call(WVM_CALL_uring_register);
	ret = io_uring_register_files_update(&s->ring, (unsigned)slot, &fd, 1);
	if (ret < 0)
		return ret;
	s->free_file_count--;
	return slot;
}

void wvm_shard_file_del(struct wvm_shard *s, int slot)
{
	int none = -1;

	assert(slot >= 0 && (unsigned)slot < s->opts.files);
	assert(s->free_file_count < s->opts.files);
	wvm_count_call(WVM_CALL_uring_register);
	io_uring_register_files_update(&s->ring, (unsigned)slot, &none, 1);
	s->free_files[s->free_file_count++] = slot;
}

void *wvm_shard_fixed_get(struct wvm_shard *s)
{
	return s->free_fixed_count ? s->free_fixed[--s->free_fixed_count] : NULL;
}

void wvm_shard_fixed_put(struct wvm_shard *s, void *block)
{
	assert(s->free_fixed_count < s->opts.fixed_count);
	assert((uint8_t *)block >= s->fixed);
	assert((size_t)((uint8_t *)block - s->fixed) % s->opts.fixed_block == 0);
	s->free_fixed[s->free_fixed_count++] = block;
}

void wvm_shard_defer(struct wvm_shard *s, struct wvm_task *t)
{
	assert(t->run);
	if (t->queued)
		return;
	t->queued = true;
	t->next = NULL;
	*s->task_last = t;
	s->task_last = &t->next;
}

void wvm_shard_hook(struct wvm_shard *s, enum wvm_hook_stage stage, struct wvm_hook *h)
{
	struct wvm_hook **at = &s->hooks[stage];

	assert(h->turn && !s->entered);
	while (*at)
		at = &(*at)->next;
	h->next = NULL;
	*at = h;
}

void wvm_shard_arm(struct wvm_shard *s, struct wvm_timer *t, uint64_t delay_ns)
{
	wvm_shard_arm_at(s, t, s->now_ns + delay_ns);
}

void wvm_shard_arm_at(struct wvm_shard *s, struct wvm_timer *t, uint64_t expires_ns)
{
	WVM_COUNT(s, timers_armed, 1);
	wvm_wheel_arm(&s->wheel, t, expires_ns);
}

bool wvm_shard_disarm(struct wvm_shard *s, struct wvm_timer *t)
{
	return wvm_wheel_cancel(&s->wheel, t);
}

void wvm_shard_set_poll(struct wvm_shard *s, uint64_t poll_ns)
{
	s->poll_ns = poll_ns;
}

unsigned wvm_shard_group(struct wvm_shard *s)
{
	assert(s->next_group < UINT16_MAX);
	return s->next_group++;
}

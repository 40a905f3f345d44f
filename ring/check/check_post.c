#include <errno.h>
#include <stdio.h>

#include "ring/check/support.h"

static struct wvm_shard *a, *b;

static void make_pair(bool msg_ring, unsigned slots)
{
	struct wvm_kernel kernel;
	char why[256];

	ck_assert_int_eq(wvm_kernel_probe(&kernel, why, sizeof(why)), 0);
	ck_assert(kernel.msg_ring);
	kernel.msg_ring = msg_ring;
	a = make_shard(
		&(struct wvm_shard_opts){.index = 0, .kernel = &kernel, .inbox_slots = slots});
	b = make_shard(
		&(struct wvm_shard_opts){.index = 1, .kernel = &kernel, .inbox_slots = slots});
}

static void run_pair(void)
{
	ck_assert_int_eq(wvm_shard_start(b), 0);
	run_to_stop(a);
	wvm_shard_stop(b);
	ck_assert_int_eq(wvm_shard_join(b), 0);
}

static void destroy_pair(void)
{
	wvm_shard_destroy(a);
	wvm_shard_destroy(b);
}

/* Ping-pong: each message waits for the one before, so each must wake a sleeper. */

#define ROUNDS 20000

static void pong(struct wvm_shard *self, void *ctx, const void *data, size_t len);

static void ping(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	uint64_t n;

	ck_assert_ptr_eq(self, b);
	ck_assert_uint_eq(len, sizeof(n));
	memcpy(&n, data, sizeof(n));
	n++;
	ck_assert_int_eq(wvm_post(b, a, pong, ctx, &n, sizeof(n)), 0);
}

static void pong(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	uint64_t n;

	ck_assert_ptr_eq(self, a);
	ck_assert_ptr_eq(ctx, &a);
	memcpy(&n, data, sizeof(n));
	if (n == ROUNDS) {
		wvm_shard_stop(a);
		return;
	}
	ck_assert_int_eq(wvm_post(a, b, ping, ctx, &n, sizeof(n)), 0);
}

START_TEST(no_wakeup_is_lost_between_two_shards)
{
	const uint64_t zero = 0;

	make_pair(_i == 0, 8);
	/* Posted before either runs: messages need no wake to be found at the start. */
	ck_assert_int_eq(wvm_post(a, b, ping, &a, &zero, sizeof(zero)), 0);
	run_pair();
	ck_assert_uint_eq(a->stats.posts_in, ROUNDS);
	ck_assert_uint_eq(b->stats.posts_in, ROUNDS);
	if (_i == 0) {
		ck_assert_uint_gt(a->stats.wakes_ring + b->stats.wakes_ring, 0);
		ck_assert_uint_eq(a->stats.wakes_eventfd + b->stats.wakes_eventfd, 0);
	} else {
		ck_assert_uint_eq(a->stats.wakes_ring + b->stats.wakes_ring, 0);
		ck_assert_uint_gt(a->stats.wakes_eventfd, 0);
	}
	destroy_pair();
}
END_TEST

/* Many writers: threads without a ring and a shard, all to one shard. */

#define WRITERS  4
#define MESSAGES 20000

struct numbered {
	uint32_t writer, number;
	uint8_t fill[200]; /* of the number, so that a torn message shows */
};

static uint32_t expected[WRITERS + 1];
static unsigned writers_done;

static void fill(struct numbered *m, uint32_t writer, uint32_t number)
{
	m->writer = writer;
	m->number = number;
	memset(m->fill, (int)(number ^ writer), sizeof(m->fill));
}

static void take(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	const struct numbered *m = data;
	struct numbered want;

	/* No ck_assert here: each writes to libcheck's pipe. */
	if (len != sizeof(*m) || (uintptr_t)data % 16 || m->writer > WRITERS)
		ck_abort_msg("a message of %zu bytes at %p", len, data);
	if (m->number != expected[m->writer])
		ck_abort_msg("writer %u: %u came instead of %u", m->writer, m->number,
			     expected[m->writer]);
	fill(&want, m->writer, m->number);
	if (memcmp(m, &want, sizeof(want)))
		ck_abort_msg("writer %u: message %u is torn", m->writer, m->number);
	if (++expected[m->writer] == MESSAGES && ++writers_done == WRITERS + 1)
		wvm_shard_stop(a);
}

static void *write_all(void *arg)
{
	struct numbered m;

	for (uint32_t i = 0; i < MESSAGES;) {
		fill(&m, (uint32_t)(uintptr_t)arg, i);
		if (wvm_post_outside(a, take, NULL, &m, sizeof(m)) == 0)
			i++;
		else
			sched_yield();
	}
	return NULL;
}

static bool write_from_b(struct wvm_hook *h, uint64_t now_ns)
{
	static uint32_t next;
	struct numbered m;

	for (unsigned i = 0; i < 50 && next < MESSAGES; i++) {
		fill(&m, WRITERS, next);
		if (wvm_post(b, a, take, NULL, &m, sizeof(m)))
			break;
		next++;
	}
	return next < MESSAGES;
}

START_TEST(messages_of_each_of_many_writers_arrive_once_whole_and_in_order)
{
	struct wvm_hook hook = {.turn = write_from_b};
	pthread_t t[WRITERS];

	make_pair(_i == 0, 16);
	wvm_shard_hook(b, WVM_HOOK_ROLE, &hook);
	for (uintptr_t i = 0; i < WRITERS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, write_all, (void *)i), 0);
	run_pair();
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(t[i], NULL);
	for (unsigned i = 0; i <= WRITERS; i++)
		ck_assert_uint_eq(expected[i], MESSAGES);
	ck_assert_uint_eq(a->stats.posts_in, (WRITERS + 1) * MESSAGES);
	destroy_pair();
}
END_TEST

/* Bounds. */

static unsigned taken;

static void count(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	taken++;
	if (taken == 8)
		wvm_shard_stop(self);
}

START_TEST(a_full_inbox_refuses_and_counts_and_loses_nothing_else)
{
	make_pair(true, 8);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(wvm_post(b, a, count, NULL, NULL, 0), 0);
	ck_assert_int_eq(wvm_post(b, a, count, NULL, NULL, 0), -EAGAIN);
	ck_assert_int_eq(wvm_post_outside(a, count, NULL, NULL, 0), -EAGAIN);
	ck_assert_uint_eq(b->stats.posts_full, 1);
	run_to_stop(a);
	ck_assert_uint_eq(taken, 8);
	ck_assert_int_eq(wvm_post(b, a, count, NULL, NULL, 0), 0);
	destroy_pair();
}
END_TEST

static void largest(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	ck_assert_uint_eq(len, 1600);
	for (size_t i = 0; i < len; i++)
		ck_assert_uint_eq(((const uint8_t *)data)[i], (uint8_t)i);
	wvm_shard_stop(self);
}

START_TEST(the_largest_message_fits_and_one_byte_more_does_not)
{
	uint8_t data[1601];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	make_pair(true, 8);
	ck_assert_int_eq(wvm_post(b, a, largest, NULL, data, 1601), -EMSGSIZE);
	ck_assert_int_eq(wvm_post_pair(b, a, largest, NULL, data, 1600, data, 1), -EMSGSIZE);
	ck_assert_int_eq(wvm_post_pair(b, a, largest, NULL, data, 700, data + 700, 900), 0);
	run_to_stop(a);
	destroy_pair();
}
END_TEST

/* A shard may post to itself, and from within a message. */

static void chain(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	unsigned *left = ctx;

	if (--*left)
		ck_assert_int_eq(wvm_post(self, self, chain, ctx, NULL, 0), 0);
	else
		wvm_shard_stop(self);
}

START_TEST(a_shard_can_post_to_itself)
{
	unsigned left = 1000;

	make_pair(true, 8);
	ck_assert_int_eq(wvm_post(a, a, chain, &left, NULL, 0), 0);
	run_to_stop(a);
	ck_assert_uint_eq(left, 0);
	ck_assert_uint_eq(a->stats.wakes_ring, 0);
	destroy_pair();
}
END_TEST

/* A refused MSG_RING must not lose its wake. */

static void stop_self(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	wvm_shard_stop(self);
}

/* b as its posters see it, but with a descriptor that is no ring. */
static struct wvm_shard ringless_b;

static void post_to_sleeping_b(struct wvm_timer *t, uint64_t now_ns)
{
	ringless_b.asleep = 1;
	ck_assert_int_eq(wvm_post(a, &ringless_b, stop_self, NULL, NULL, 0), 0);
}

static void stop_a(struct wvm_timer *t, uint64_t now_ns)
{
	wvm_shard_stop(a);
}

START_TEST(a_wake_that_the_ring_refuses_goes_by_eventfd)
{
	struct wvm_timer post = {.fire = post_to_sleeping_b}, end = {.fire = stop_a};

	make_pair(true, 8);
	memcpy(&ringless_b, b, sizeof(ringless_b));
	ringless_b.ring.ring_fd = b->wake_fd;
	ck_assert_int_eq(wvm_shard_start(b), 0);
	while (!COUNTER(b, sleeps))
		usleep(1000);
	usleep(20000);
	wvm_shard_arm_at(a, &post, wvm_now_ns() + 1000000);
	wvm_shard_arm_at(a, &end, wvm_now_ns() + 100000000);
	run_to_stop(a);
	ck_assert_int_eq(wvm_shard_join(b), 0);
	ck_assert_uint_eq(b->stats.posts_in, 1);
	ck_assert_uint_eq(ringless_b.no_msg_ring, 1);
	destroy_pair();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/post");
	TCase *c = tcase_create("post");

	tcase_set_timeout(c, 120);
	tcase_add_loop_test(c, no_wakeup_is_lost_between_two_shards, 0, 2);
	tcase_add_loop_test(c, messages_of_each_of_many_writers_arrive_once_whole_and_in_order, 0,
			    2);
	tcase_add_test(c, a_full_inbox_refuses_and_counts_and_loses_nothing_else);
	tcase_add_test(c, the_largest_message_fits_and_one_byte_more_does_not);
	tcase_add_test(c, a_shard_can_post_to_itself);
	tcase_add_test(c, a_wake_that_the_ring_refuses_goes_by_eventfd);
	suite_add_tcase(s, c);
	return run_suite(s);
}

/* The SPSC ring: order and content across processes and threads, and a peer that lies. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/spsc.h"

#define CAP 256u

static struct wvm_spsc_mem *ring;
static struct wvm_spsc_tx tx;
static struct wvm_spsc_rx rx;

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Exactly as large as the ring, so that ASan sees a byte beyond. */
static void setup(void)
{
	ring = aligned_alloc(64, wvm_spsc_bytes(CAP));
	ck_assert_ptr_nonnull(ring);
	ck_assert_int_eq(wvm_spsc_init(ring, CAP), 0);
	ck_assert_int_eq(wvm_spsc_open_tx(&tx, ring, CAP), 0);
	ck_assert_int_eq(wvm_spsc_open_rx(&rx, ring, CAP), 0);
}

static void teardown(void)
{
	free(ring);
}

START_TEST(geometry_is_checked)
{
	static const uint32_t bad[] = {0, 1, 32, 63, 65, 100, 3u << 20, 1u << 31};
	uint8_t *odd = (uint8_t *)ring + 8;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_uint_eq(wvm_spsc_bytes(bad[i]), 0);
		ck_assert_int_eq(wvm_spsc_init(ring, bad[i]), -EINVAL);
		ck_assert_int_eq(wvm_spsc_open_tx(&tx, ring, bad[i]), -EINVAL);
		ck_assert_int_eq(wvm_spsc_open_rx(&rx, ring, bad[i]), -EINVAL);
	}
	ck_assert_int_eq(wvm_spsc_init(odd, CAP), -EINVAL);
	ck_assert_int_eq(wvm_spsc_open_tx(&tx, odd, CAP), -EINVAL);
	ck_assert_int_eq(wvm_spsc_open_rx(&rx, odd, CAP), -EINVAL);
	ck_assert_uint_eq(wvm_spsc_bytes(CAP), sizeof(struct wvm_spsc_mem) + CAP);
}
END_TEST

START_TEST(empty_ring_gives_eagain)
{
	uint32_t type;
	char buf[8];

	ck_assert_int_eq(wvm_spsc_pop(&rx, &type, buf, sizeof(buf)), -EAGAIN);
	ck_assert_uint_eq(wvm_spsc_room(&tx), CAP);
}
END_TEST

START_TEST(record_comes_out_as_it_went_in)
{
	char buf[32];
	uint32_t type;

	ck_assert_int_eq(wvm_spsc_push2(&tx, 7, "abc", 3, "defg", 4), 0);
	ck_assert_int_eq(wvm_spsc_push(&tx, 8, NULL, 0), 0);
	ck_assert_uint_eq(wvm_spsc_room(&tx), CAP - 16 - 8);
	ck_assert_int_eq(wvm_spsc_pop(&rx, &type, buf, sizeof(buf)), 7);
	ck_assert_uint_eq(type, 7);
	ck_assert_mem_eq(buf, "abcdefg", 7);
	ck_assert_int_eq(wvm_spsc_pop(&rx, &type, buf, sizeof(buf)), 0);
	ck_assert_uint_eq(type, 8);
	ck_assert_int_eq(wvm_spsc_pop(&rx, &type, buf, sizeof(buf)), -EAGAIN);
	ck_assert_uint_eq(wvm_spsc_room(&tx), CAP);
}
END_TEST

START_TEST(longest_body_fits_at_every_position)
{
	uint32_t max = wvm_spsc_body_max(CAP), type;
	uint8_t body[CAP], buf[CAP];

	memset(body, 0x5a, sizeof(body));
	ck_assert_int_eq(wvm_spsc_push(&tx, 1, body, max + 1), -EMSGSIZE);
	ck_assert_int_eq(wvm_spsc_push2(&tx, 1, body, max, body, 1), -EMSGSIZE);
	ck_assert_int_eq(wvm_spsc_push2(&tx, 1, body, 8, body, UINT32_MAX), -EMSGSIZE);
	for (unsigned i = 0; i < 4 * CAP / 8; i++) {
		ck_assert_int_eq(wvm_spsc_push(&tx, 1, NULL, 0), 0);
		ck_assert_int_eq(wvm_spsc_pop(&rx, &type, buf, sizeof(buf)), 0);
		ck_assert_int_eq(wvm_spsc_push(&tx, 2, body, max), 0);
		ck_assert_int_eq(wvm_spsc_pop(&rx, &type, buf, sizeof(buf)), (int)max);
		ck_assert_uint_eq(type, 2);
		ck_assert_mem_eq(buf, body, max);
	}
}
END_TEST

START_TEST(full_ring_refuses_and_loses_nothing)
{
	uint32_t pushed = 0, popped = 0, type, got;

	while (!wvm_spsc_push(&tx, 1, &pushed, sizeof(pushed)))
		pushed++;
	ck_assert_uint_eq(pushed, CAP / 16);
	ck_assert_int_eq(wvm_spsc_push(&tx, 1, &pushed, sizeof(pushed)), -EAGAIN);
	for (; popped < pushed; popped++) {
		ck_assert_int_eq(wvm_spsc_pop(&rx, &type, &got, sizeof(got)), 4);
		ck_assert_uint_eq(got, popped);
	}
	ck_assert_int_eq(wvm_spsc_push(&tx, 1, &pushed, sizeof(pushed)), 0);
}
END_TEST

START_TEST(body_longer_than_the_buffer_is_consumed)
{
	uint64_t guard[2] = {0, 0x1122334455667788ull};
	uint32_t type;

	ck_assert_int_eq(wvm_spsc_push(&tx, 1, "0123456789abcdef", 16), 0);
	ck_assert_int_eq(wvm_spsc_push(&tx, 2, "x", 1), 0);
	ck_assert_int_eq(wvm_spsc_pop(&rx, &type, guard, 8), -EMSGSIZE);
	ck_assert_uint_eq(guard[1], 0x1122334455667788ull);
	ck_assert_int_eq(wvm_spsc_pop(&rx, &type, guard, 8), 1);
	ck_assert_uint_eq(type, 2);
}
END_TEST

/* A model of what is in the ring; random pushes and pops. */
START_TEST(random_mix_equals_a_queue)
{
	struct {
		uint32_t type, len;
		uint8_t body[CAP];
	} queue[64];
	unsigned head = 0, tail = 0;
	uint64_t r = 88172645463325252ull;

	for (unsigned i = 0; i < 200000; i++) {
		uint32_t len = (uint32_t)(next_random(&r) % (wvm_spsc_body_max(CAP) + 1));
		uint8_t body[CAP];
		uint32_t type;
		int ret;

		if (next_random(&r) & 1) {
			memset(body, (int)i, sizeof(body));
			ret = wvm_spsc_push(&tx, i & 0xffff, body, len);
			ck_assert(ret == 0 || ret == -EAGAIN);
			if (ret == -EAGAIN)
				continue;
			queue[tail % 64].type = i & 0xffff;
			queue[tail % 64].len = len;
			memcpy(queue[tail++ % 64].body, body, len);
			ck_assert_uint_le(tail - head, 64);
			continue;
		}
		ret = wvm_spsc_pop(&rx, &type, body, sizeof(body));
		if (head == tail) {
			ck_assert_int_eq(ret, -EAGAIN);
			continue;
		}
		ck_assert_int_eq(ret, (int)queue[head % 64].len);
		ck_assert_uint_eq(type, queue[head % 64].type);
		ck_assert_mem_eq(body, queue[head % 64].body, (size_t)ret);
		head++;
	}
}
END_TEST

START_TEST(both_ends_can_be_taken_up_again)
{
	uint32_t type, got, value = 0, expect = 0;

	for (unsigned i = 0; i < 1000; i++) {
		ck_assert_int_eq(wvm_spsc_open_tx(&tx, ring, CAP), 0);
		while (!wvm_spsc_push(&tx, 1, &value, sizeof(value)))
			value++;
		ck_assert_int_eq(wvm_spsc_open_rx(&rx, ring, CAP), 0);
		for (unsigned n = i % 16; n; n--, expect++) {
			ck_assert_int_eq(wvm_spsc_pop(&rx, &type, &got, sizeof(got)), 4);
			ck_assert_uint_eq(got, expect);
		}
	}
}
END_TEST

/* Killed after the length was committed, before tail was: the record stands. */
START_TEST(producer_that_died_half_way_loses_no_record)
{
	uint32_t type, value;

	for (value = 0; value < 3; value++)
		ck_assert_int_eq(wvm_spsc_push(&tx, 1, &value, sizeof(value)), 0);
	ring->tail -= 16;
	ck_assert_int_eq(wvm_spsc_open_tx(&tx, ring, CAP), 0);
	ck_assert_int_eq(wvm_spsc_push(&tx, 1, &value, sizeof(value)), 0);
	for (uint32_t i = 0; i < 4; i++) {
		ck_assert_int_eq(wvm_spsc_pop(&rx, &type, &value, sizeof(value)), 4);
		ck_assert_uint_eq(value, i);
	}
}
END_TEST

static void poke(uint32_t at, uint32_t length, uint32_t type)
{
	memcpy(ring->data + at, &length, 4);
	memcpy(ring->data + at + 4, &type, 4);
}

START_TEST(lying_lengths_are_refused)
{
	static const struct {
		uint32_t at, length, type;
	} cases[] = {
		{0, 1, 1}, /* shorter than its header */
		{0, 7, 1},
		{0, CAP / 2 + 1, 1}, /* longer than any record */
		{0, CAP, 1},
		{0, 0x7fffffff, 1},
		{0, 0x80000000, 1}, /* negative */
		{0, 0xffffffff, 1},
		{CAP - 8, 9, 1}, /* beyond the end */
		{CAP - 16, 24, 1},
		{0, CAP, WVM_SPSC_PAD}, /* padding where none is needed */
		{0, 8, WVM_SPSC_PAD},
		{CAP - 16, 8, WVM_SPSC_PAD}, /* not up to the end */
		{CAP - 16, 24, WVM_SPSC_PAD},
	};
	uint8_t buf[CAP];
	uint32_t type;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		wvm_spsc_init(ring, CAP);
		ring->head = ring->tail = cases[i].at;
		ck_assert_int_eq(wvm_spsc_open_rx(&rx, ring, CAP), 0);
		poke(cases[i].at, cases[i].length, cases[i].type);
		ck_assert_msg(wvm_spsc_pop(&rx, &type, buf, sizeof(buf)) == -EPROTO, "case %zu", i);
		ck_assert_int_eq(wvm_spsc_open_tx(&tx, ring, CAP), -EPROTO);
	}
}
END_TEST

START_TEST(two_paddings_in_a_row_are_refused)
{
	uint8_t buf[CAP];
	uint32_t type;

	ring->head = ring->tail = CAP - 16;
	ck_assert_int_eq(wvm_spsc_open_rx(&rx, ring, CAP), 0);
	poke(CAP - 16, 16, WVM_SPSC_PAD);
	poke(0, CAP, WVM_SPSC_PAD);
	ck_assert_int_eq(wvm_spsc_pop(&rx, &type, buf, sizeof(buf)), -EPROTO);
}
END_TEST

START_TEST(lying_heads_are_refused)
{
	static const uint64_t heads[] = {17, 1u << 20, ~0ull, ~7ull};
	uint32_t body[10] = {0};

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		wvm_spsc_init(ring, CAP);
		ck_assert_int_eq(wvm_spsc_open_tx(&tx, ring, CAP), 0);
		ring->head = heads[i];
		ck_assert_uint_eq(wvm_spsc_room(&tx), 0);
		for (unsigned n = 0; n < 5; n++)
			wvm_spsc_push(&tx, 1, body, sizeof(body));
		ck_assert_int_eq(wvm_spsc_push(&tx, 1, body, sizeof(body)), -EPROTO);
		ck_assert_int_eq(wvm_spsc_open_tx(&tx, ring, CAP), -EPROTO);
	}
	wvm_spsc_init(ring, CAP);
	ck_assert_int_eq(wvm_spsc_open_tx(&tx, ring, CAP), 0);
	ring->head = 8; /* beyond tail */
	ck_assert_uint_eq(wvm_spsc_room(&tx), 0);
	/* Going back would free room that still holds records. */
	wvm_spsc_init(ring, CAP);
	ck_assert_int_eq(wvm_spsc_open_tx(&tx, ring, CAP), 0);
	ck_assert_int_eq(wvm_spsc_open_rx(&rx, ring, CAP), 0);
	for (unsigned n = 0; n < 5; n++) {
		uint32_t type;

		ck_assert_int_eq(wvm_spsc_push(&tx, 1, body, sizeof(body)), 0);
		ck_assert_int_eq(wvm_spsc_pop(&rx, &type, body, sizeof(body)), sizeof(body));
		ck_assert_uint_gt(wvm_spsc_room(&tx), 0);
	}
	ring->head = 0;
	ck_assert_uint_eq(wvm_spsc_room(&tx), 0);
}
END_TEST

/* Whatever the shared bytes are: no byte outside is touched (ASan), and every call ends. */
START_TEST(random_bytes_do_no_harm)
{
	uint64_t r = 0x9e3779b97f4a7c15ull;

	for (unsigned round = 0; round < 20000; round++) {
		uint8_t buf[64];
		uint32_t type;

		for (size_t i = 0; i < wvm_spsc_bytes(CAP); i++)
			((uint8_t *)ring)[i] = (uint8_t)(next_random(&r) & next_random(&r));
		if (round & 1) {
			ring->head = next_random(&r) % (4 * CAP) & ~7ull;
			ring->tail = ring->head + (next_random(&r) % CAP & ~7ull);
		}
		if (!wvm_spsc_open_rx(&rx, ring, CAP))
			for (unsigned n = 0; n < 40; n++)
				wvm_spsc_pop(&rx, &type, buf, sizeof(buf));
		if (!wvm_spsc_open_tx(&tx, ring, CAP))
			for (unsigned n = 0; n < 40; n++)
				wvm_spsc_push(&tx, 1, buf, n);
	}
}
END_TEST

/* --- across processes ---------------------------------------------------- */

#define CROSS_RECORDS 1000000u
#define CROSS_CAP     4096u

static uint32_t cross_length(uint64_t *r)
{
	return (uint32_t)(next_random(r) % 200);
}

/* Pushes the record of that number; -EAGAIN: full. */
static int cross_push(struct wvm_spsc_tx *t, uint32_t i, uint32_t len)
{
	uint8_t body[200];

	memset(body, (int)(i * 31), len);
	return wvm_spsc_push(t, i & 0x7fffffff, body, len);
}

/* Takes the next record, which has that number. False: empty. (An assertion writes to a file.) */
static bool cross_pop(struct wvm_spsc_rx *from, uint32_t i, uint32_t len)
{
	uint8_t body[256], expect[256];
	uint32_t type;
	int got = wvm_spsc_pop(from, &type, body, sizeof(body));

	if (got == -EAGAIN)
		return false;
	memset(expect, (int)(i * 31), len);
	if (got != (int)len || type != i || memcmp(body, expect, len))
		ck_abort_msg("record %u of %u bytes came as %u, %d", i, len, type, got);
	return true;
}

static void produce(void *mem)
{
	struct wvm_spsc_tx t;
	uint64_t r = 42;

	if (wvm_spsc_open_tx(&t, mem, CROSS_CAP))
		_exit(1);
	for (uint32_t i = 0; i < CROSS_RECORDS; i++) {
		uint32_t len = cross_length(&r);
		int ret;

		while ((ret = cross_push(&t, i, len)) == -EAGAIN)
			sched_yield();
		if (ret)
			_exit(2);
	}
	_exit(0);
}

START_TEST(a_million_records_cross_to_another_process_in_order)
{
	void *mem = mmap(NULL, wvm_spsc_bytes(CROSS_CAP), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct wvm_spsc_rx from;
	uint64_t r = 42;
	int status;
	pid_t pid;

	ck_assert(mem != MAP_FAILED);
	ck_assert_int_eq(wvm_spsc_init(mem, CROSS_CAP), 0);
	ck_assert_int_eq(wvm_spsc_open_rx(&from, mem, CROSS_CAP), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		produce(mem);
	}
	for (uint32_t i = 0; i < CROSS_RECORDS; i++) {
		uint32_t len = cross_length(&r);

		while (!cross_pop(&from, i, len))
			sched_yield();
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	munmap(mem, wvm_spsc_bytes(CROSS_CAP));
}
END_TEST

/*
 * The same between threads, which is what TSan sees. Only the ring may order what they do, so the
 * counters are relaxed: each end waits once until the other has found the ring full, or empty. A
 * larger ring, since on a busy machine whoever yields is away for long.
 */
#define THREAD_CAP 65536u

static struct {
	void *mem;
	uint32_t full, empty; /* how often it was found so */
	int err;
} threads;

static uint32_t times(const uint32_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void count(uint32_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
	sched_yield();
}

static void *produce_in_thread(void *unused)
{
	struct wvm_spsc_tx t;
	uint64_t r = 42;

	threads.err = wvm_spsc_open_tx(&t, threads.mem, THREAD_CAP);
	for (uint32_t i = 0; i < CROSS_RECORDS && !threads.err; i++) {
		uint32_t len = cross_length(&r), before = times(&threads.empty);

		while ((threads.err = cross_push(&t, i, len)) == -EAGAIN)
			count(&threads.full);
		while (i == CROSS_RECORDS / 2 && times(&threads.empty) == before)
			sched_yield();
	}
	return NULL;
}

START_TEST(a_million_records_cross_to_another_thread_in_order)
{
	struct wvm_spsc_rx from;
	pthread_t producer;
	uint64_t r = 42;

	threads.mem = aligned_alloc(WVM_SPSC_LINE, wvm_spsc_bytes(THREAD_CAP));
	ck_assert_int_eq(wvm_spsc_init(threads.mem, THREAD_CAP), 0);
	ck_assert_int_eq(wvm_spsc_open_rx(&from, threads.mem, THREAD_CAP), 0);
	ck_assert_int_eq(pthread_create(&producer, NULL, produce_in_thread, NULL), 0);
	while (!times(&threads.full))
		sched_yield();
	for (uint32_t i = 0; i < CROSS_RECORDS; i++) {
		uint32_t len = cross_length(&r);

		while (!cross_pop(&from, i, len))
			count(&threads.empty);
	}
	ck_assert_int_eq(pthread_join(producer, NULL), 0);
	ck_assert_int_eq(threads.err, 0);
	ck_assert_uint_gt(threads.full, 0);
	ck_assert_uint_gt(threads.empty, 0);
	free(threads.mem);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("spsc");
	TCase *tc = tcase_create("ring"), *cross = tcase_create("processes");
	TCase *in_threads = tcase_create("threads");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, geometry_is_checked);
	tcase_add_test(tc, empty_ring_gives_eagain);
	tcase_add_test(tc, record_comes_out_as_it_went_in);
	tcase_add_test(tc, longest_body_fits_at_every_position);
	tcase_add_test(tc, full_ring_refuses_and_loses_nothing);
	tcase_add_test(tc, body_longer_than_the_buffer_is_consumed);
	tcase_add_test(tc, random_mix_equals_a_queue);
	tcase_add_test(tc, both_ends_can_be_taken_up_again);
	tcase_add_test(tc, producer_that_died_half_way_loses_no_record);
	tcase_add_test(tc, lying_lengths_are_refused);
	tcase_add_test(tc, two_paddings_in_a_row_are_refused);
	tcase_add_test(tc, lying_heads_are_refused);
	tcase_add_test(tc, random_bytes_do_no_harm);
	tcase_set_timeout(tc, 60);
	tcase_set_timeout(cross, 120);
	tcase_add_test(cross, a_million_records_cross_to_another_process_in_order);
	suite_add_tcase(s, tc);
	tcase_set_timeout(in_threads, 120);
	tcase_add_test(in_threads, a_million_records_cross_to_another_thread_in_order);
	suite_add_tcase(s, cross);
	suite_add_tcase(s, in_threads);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}

/*
 * Bounded runs of the simulated cluster, over fixed seeds and fresh ones. Every
 * load is checked against the one true value; a failure names its seed and step.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "shared/core/sim/cluster.h"

#define MS     UINT64_C(1000000)
#define SECOND (1000 * MS)
#define FRESH  2 /* of a test's loop, the last ones have seeds that were never run before */

/* Sanitizers slow the core tenfold; their runs are shorter, not other ones. */
#ifdef __has_feature /* clang */
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define EFFORT 10
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EFFORT 10
#endif
#ifndef EFFORT
#define EFFORT 1
#endif

static uint64_t fresh_seed; /* WVM_SEED, or the time */

static void choose_seed(void)
{
	const char *given = getenv("WVM_SEED");

	fresh_seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	printf("fresh seeds from WVM_SEED=%llu\n", (unsigned long long)fresh_seed);
}

static uint64_t seed_of(int i, int count)
{
	return i < count - FRESH ? (uint64_t)i + 1 : fresh_seed * FRESH + (uint64_t)(count - 1 - i);
}

static struct sim_report report_of(const struct sim *sim)
{
	struct sim_report r;

	sim_report(sim, &r);
	if (r.failure)
		ck_abort_msg("%s", r.failure);
	return r;
}

/* Runs for that many inputs to cores, lets everything end, and looks at every thread. */
static struct sim_report run(const struct sim_config *c, uint64_t steps)
{
	struct sim *sim = sim_create(c);
	struct sim_report r;

	do {
		sim_run(sim, 500);
		r = report_of(sim);
	} while (r.steps < steps / EFFORT);
	sim_settle(sim, 20 * SECOND);
	r = report_of(sim);
	if (r.waiting)
		ck_abort_msg("seed %llu: %u threads wait for ever", (unsigned long long)c->seed,
			     r.waiting);
	sim_destroy(sim);
	return r;
}

#define MILD 6
START_TEST(mild_disorder_costs_nobody_an_access)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, MILD));
	r = run(&c, 1000000);
	ck_assert_uint_eq(r.failed_faults, 0);
	ck_assert_uint_gt(r.lost, 1000 / EFFORT);
	ck_assert_uint_gt(r.doubled, 1000 / EFFORT);
	ck_assert_uint_gt(r.accesses_min, 3000 / EFFORT);
	ck_assert_uint_lt(r.wait_ns_max, c.times.deadline_ns);
}
END_TEST

#define HEAVY 6
START_TEST(heavy_loss_duplication_and_reordering_never_show_a_wrong_value)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, HEAVY));
	c.loss_ppm = 200000;
	c.duplicate_ppm = 200000;
	c.reorder_ppm = 400000;
	c.reorder_ns = 30 * MS;
	r = run(&c, 1000000);
	ck_assert_uint_gt(r.lost, 20000 / EFFORT);
	ck_assert_uint_lt(r.failed_faults * 100, r.faults);
}
END_TEST

#define TINY 6
START_TEST(tiny_pools_never_show_a_wrong_value)
{
	struct sim_config c;

	sim_default(&c, seed_of(_i, TINY));
	c.nodes = 5;
	c.limits = (struct wvm_core_limits){.requests = 2,
					    .txns = 1,
					    .waiting = 1,
					    .demands = 1,
					    .partials = 1,
					    .holder_blocks = 1,
					    .peer_shards = 1};
	run(&c, 1000000);
}
END_TEST

/* Deadlines within the range of hold times and retries: whatever is given up meets its answer. */
#define HASTY 8
START_TEST(deadlines_that_strike_all_the_time_never_show_a_wrong_value)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, HASTY));
	c.nodes = 4;
	c.pages = 4;
	c.loss_ppm = 100000;
	c.reorder_ppm = 200000;
	c.reorder_ns = 60 * MS;
	c.times.deadline_ns = 40 * MS;
	c.times.rto_initial_ns = 4 * MS;
	c.times.rto_min_ns = 2 * MS;
	r = run(&c, 1000000);
	ck_assert_uint_gt(r.failed_faults, 1000 / EFFORT);
}
END_TEST

#define READERS 3
START_TEST(many_readers_and_one_writer)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, READERS));
	c.nodes = 8;
	c.pages = 2;
	c.write_ppm = 30000;
	r = run(&c, 500000);
	ck_assert_uint_eq(r.failed_faults, 0);
	ck_assert_uint_gt(r.accesses_min, 100 / EFFORT);
}
END_TEST

/* The hardest case for progress: every thread of every node stores to one page, all the time. */
#define CONTENDED 6
START_TEST(every_thread_progresses_when_all_want_one_page)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, CONTENDED));
	c.nodes = 2 + (uint32_t)_i % 5;
	c.pages = 1;
	c.write_ppm = 900000;
	c.think_ns = 20000;
	c.pin_ppm = 0;
	r = run(&c, 100000);
	ck_assert_uint_eq(r.failed_faults, 0);
	ck_assert_uint_gt(r.accesses_min, 0);
	ck_assert_uint_ge(r.accesses_min * 50, r.accesses_max);
	/* A turn is at most 10 ms of hold and a few retries, and there are six nodes at most. */
	ck_assert_uint_lt(r.wait_ns_max, 2 * SECOND);
}
END_TEST

#define PARTITIONS 4
START_TEST(a_partition_that_heals_leaves_no_wrong_value)
{
	struct sim_config c;
	struct sim_report r;
	struct sim *sim;
	uint64_t failed = 0;

	sim_default(&c, seed_of(_i, PARTITIONS));
	c.nodes = 4;
	sim = sim_create(&c);
	for (uint32_t round = 0; round < 12; round++) {
		uint32_t node = round % c.nodes;

		sim_run(sim, 2000);
		sim_partition(sim, node, true);
		/* Short ones pass unnoticed, long ones end requests and transactions. */
		if (round % 3)
			sim_settle(sim, round % 3 == 1 ? 30 * MS : 7 * SECOND);
		else
			sim_run(sim, 300);
		report_of(sim);
		sim_partition(sim, node, false);
	}
	sim_settle(sim, 20 * SECOND);
	r = report_of(sim);
	ck_assert_uint_eq(r.waiting, 0);
	failed = r.failed_faults;
	/* All is as before: nothing that began after the last of them fails. */
	sim_run(sim, 10000);
	sim_settle(sim, 20 * SECOND);
	r = report_of(sim);
	ck_assert_uint_eq(r.failed_faults, failed);
	ck_assert_uint_eq(r.waiting, 0);
	sim_destroy(sim);
}
END_TEST

/* More sharers than fit inline, and blocks for a part of the pages only. */
#define BLOCKS 4
START_TEST(more_sharers_than_records)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, BLOCKS));
	c.nodes = 10;
	c.write_ppm = 60000;
	c.limits.holder_blocks = _i % 2 ? 3 : 100;
	r = run(&c, 500000);
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

/* Half of the accesses pin: what is asked for waits, and is done in the end. */
#define PINS 3
START_TEST(pins_defer_and_release)
{
	struct sim_config c;

	sim_default(&c, seed_of(_i, PINS));
	c.pin_ppm = 500000;
	c.write_ppm = 700000;
	c.pages = 6;
	run(&c, 500000);
}
END_TEST

START_TEST(a_seed_replays_exactly)
{
	struct sim_report first, second;
	struct sim_config c;

	sim_default(&c, seed_of(_i, 3));
	first = run(&c, 50000);
	second = run(&c, 50000);
	ck_assert_uint_eq(first.steps, second.steps);
	ck_assert_uint_eq(first.now_ns, second.now_ns);
	ck_assert_uint_eq(first.messages, second.messages);
	ck_assert_uint_eq(first.faults, second.faults);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sim");
	TCase *tc = tcase_create("sim");
	SRunner *runner = srunner_create(suite);
	int failed;

	choose_seed();
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, mild_disorder_costs_nobody_an_access, 0, MILD);
	tcase_add_loop_test(tc, heavy_loss_duplication_and_reordering_never_show_a_wrong_value, 0,
			    HEAVY);
	tcase_add_loop_test(tc, tiny_pools_never_show_a_wrong_value, 0, TINY);
	tcase_add_loop_test(tc, deadlines_that_strike_all_the_time_never_show_a_wrong_value, 0,
			    HASTY);
	tcase_add_loop_test(tc, many_readers_and_one_writer, 0, READERS);
	tcase_add_loop_test(tc, every_thread_progresses_when_all_want_one_page, 0, CONTENDED);
	tcase_add_loop_test(tc, a_partition_that_heals_leaves_no_wrong_value, 0, PARTITIONS);
	tcase_add_loop_test(tc, more_sharers_than_records, 0, BLOCKS);
	tcase_add_loop_test(tc, pins_defer_and_release, 0, PINS);
	tcase_add_loop_test(tc, a_seed_replays_exactly, 0, 3);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

/*
 * What tests that run the simulator have in common: seeds, and what a failure says of itself, up to
 * how its last messages are drawn as a chart.
 */
#ifndef WVM_CORE_CHECK_SIMULATED_H
#define WVM_CORE_CHECK_SIMULATED_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/core/sim/sim.h"

#define MS     UINT64_C(1000000)
#define SECOND (1000 * MS)
#define FRESH  2 /* of a test's loop, the last ones have seeds that were never run before */

#define REPLAY_TEXT (SIM_TEXT + 400)

static uint64_t fresh_seed;      /* WVM_SEED, or the time */
static const char *test_program; /* as it was called */

static bool replay_said;

/* Of an assertion that says nothing of it itself. */
static inline void say_last_seed(void)
{
	if (replay_said)
		return;
	replay_said = true;
	fprintf(stderr, "replay: ");
	if (sim_last_seed())
		fprintf(stderr, "WVM_SIM_TRACE=%llu ", (unsigned long long)sim_last_seed());
	fprintf(stderr, "WVM_SEED=%llu CK_RUN_CASE=%s %s\n", (unsigned long long)fresh_seed,
		tcase_name(), test_program);
}

/* What all of check.h's macros come to. */
#define _ck_assert_failed(...) (say_last_seed(), (_ck_assert_failed)(__VA_ARGS__))

/* First of all, so that what is wrong with the environment is said once. */
static inline void simulated_begin(const char *name)
{
	const char *given = getenv("WVM_SEED");

	test_program = name;
	sim_trace_check();
	fresh_seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	printf("fresh seeds from WVM_SEED=%llu\n", (unsigned long long)fresh_seed);
}

static inline uint64_t seed_of(int i, int count)
{
	return i < count - FRESH ? (uint64_t)i + 1 : fresh_seed * FRESH + (uint64_t)(count - 1 - i);
}

/* A case of its own, by which it can be run alone. */
static inline void add_simulated(Suite *suite, const TTest *test, int loops, double timeout)
{
	TCase *tc = tcase_create(test->name);

	tcase_set_timeout(tc, timeout);
	tcase_add_loop_test(tc, test, 0, loops);
	suite_add_tcase(suite, tc);
}

/*
 * With the command that runs the same test again, and draws the last messages of this seed: other
 * tests run clusters of that seed as well.
 */
static inline void say_replay(char text[REPLAY_TEXT], const char *failure)
{
	const char *seed = strstr(failure, "seed "), *step = strstr(failure, "step ");
	uint64_t at = step ? strtoull(step + 5, NULL, 10) : 0;

	snprintf(text, REPLAY_TEXT,
		 "%s\nreplay: WVM_SIM_TRACE=%llu:%llu-%llu WVM_SEED=%llu CK_RUN_CASE=%s %s",
		 failure, seed ? strtoull(seed + 5, NULL, 10) : 0,
		 (unsigned long long)(at > SIM_TRACE_STEPS ? at - SIM_TRACE_STEPS : 1),
		 (unsigned long long)at, (unsigned long long)fresh_seed, tcase_name(),
		 test_program);
}

__attribute__((noreturn)) static inline void fail_replayably(const char *failure)
{
	char text[REPLAY_TEXT];

	say_replay(text, failure);
	replay_said = true;
	ck_abort_msg("%s", text);
	abort();
}

static inline struct sim_report report_of(const struct sim *sim)
{
	struct sim_report r;

	sim_report(sim, &r);
	if (r.failure)
		fail_replayably(r.failure);
	return r;
}

/* All has come to rest, and been looked at. */
static inline struct sim_report report_at_rest(struct sim *sim)
{
	struct sim_report r = report_of(sim);

	if (r.waiting)
		sim_failed(sim, "%u threads wait for ever", r.waiting);
	return report_of(sim);
}

#endif

/*
 * Bounded runs of the exhaustive check. Each reaches its fixed point, within
 * bounds small enough for every day; `make explore` goes further.
 */
#include <check.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "shared/core/explore/explore.h"

/* Sanitizers slow it down tenfold: they see the first states of each run. */
#ifdef __has_feature /* clang */
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
#define SANITIZED_STATES 40000

/* The states that there are: as many and no fewer, or something was not explored. */
struct bounds {
	const char *name;
	struct explore_config c;
	uint64_t states_min;
};

#define BOUNDS(...)                                                                  \
	{                                                                            \
		__VA_ARGS__, .states_max = 1u << 26, .memory_max = UINT64_C(1) << 30 \
	}

static const struct bounds runs[] = {
	{"2 nodes, any order", BOUNDS(.nodes = 2, .programs = 1, .outstanding = 2, .under_way = 4),
	 60000},
	{"2 nodes, two programs each",
	 BOUNDS(.nodes = 2, .programs = 2, .outstanding = 4, .under_way = 2, .losses = 1), 100000},
	{"2 nodes, loss, copy, early retry",
	 BOUNDS(.nodes = 2, .programs = 1, .outstanding = 2, .under_way = 2, .losses = 1,
		.duplicates = 1, .retries = 1),
	 600000},
	{"2 nodes, loss, copy, early retry, deadline",
	 BOUNDS(.nodes = 2, .programs = 1, .outstanding = 2, .under_way = 1, .losses = 1,
		.duplicates = 1, .retries = 1, .deadlines = 1),
	 400000},
	{"2 nodes, loss, copy, early retry, pages given up unasked",
	 BOUNDS(.nodes = 2, .programs = 1, .outstanding = 2, .under_way = 1, .losses = 1,
		.duplicates = 1, .retries = 1, .evictions = 1),
	 100000},
	{"3 nodes, 3 accesses, pages given up unasked",
	 BOUNDS(.nodes = 3, .programs = 1, .outstanding = 2, .accesses = 3, .under_way = 8,
		.losses = 1, .evictions = 2),
	 20000},
	{"3 nodes, any order", BOUNDS(.nodes = 3, .programs = 1, .outstanding = 3, .under_way = 1),
	 200000},
	{"3 nodes, 3 accesses, loss, copy, early retry",
	 BOUNDS(.nodes = 3, .programs = 1, .outstanding = 3, .accesses = 3, .under_way = 8,
		.losses = 1, .duplicates = 1, .retries = 1),
	 100000},
	{"2 nodes, whole units, any order",
	 BOUNDS(.nodes = 2, .programs = 1, .outstanding = 2, .under_way = 3, .units = true), 20000},
	{"2 nodes, whole units, loss, early retry, deadline",
	 BOUNDS(.nodes = 2, .programs = 1, .outstanding = 2, .under_way = 1, .losses = 1,
		.retries = 1, .deadlines = 1, .units = true),
	 100000},
	{"3 nodes, whole units, 3 accesses, loss, copy",
	 BOUNDS(.nodes = 3, .programs = 1, .outstanding = 3, .accesses = 3, .under_way = 8,
		.losses = 1, .duplicates = 1, .units = true),
	 100000},
	{"2 nodes, whole units, loss, evictions",
	 BOUNDS(.nodes = 2, .programs = 1, .outstanding = 2, .under_way = 1, .losses = 1,
		.evictions = 2, .units = true),
	 20000},
	{"2 nodes, whole units, merged again, loss",
	 BOUNDS(.nodes = 2, .programs = 1, .outstanding = 2, .under_way = 1, .losses = 1,
		.units = true, .merge = true),
	 20000},
	{"2 nodes, whole units, merged again, 3 accesses, copy, deadline",
	 BOUNDS(.nodes = 2, .programs = 1, .outstanding = 2, .accesses = 3, .under_way = 1,
		.duplicates = 1, .deadlines = 1, .units = true, .merge = true),
	 20000},
	{"3 nodes, whole units, merged again, 3 accesses",
	 BOUNDS(.nodes = 3, .programs = 1, .outstanding = 3, .accesses = 3, .under_way = 8,
		.units = true, .merge = true),
	 20000},
};
#define RUNS (int)(sizeof(runs) / sizeof(*runs))

START_TEST(every_reachable_state_is_sound_and_leads_to_an_end)
{
	const struct bounds *b = &runs[_i];
	struct explore_config c = b->c;
	struct explore_report r;

	c.trace = stdout;
	if (SANITIZED)
		c.states_max = SANITIZED_STATES;
	ck_assert_int_eq(explore(&c, &r), 0);
	if (r.violations)
		ck_abort_msg("%s: %s", b->name, r.violation);
	if (SANITIZED) {
		ck_assert_uint_ge(r.states, SANITIZED_STATES);
		return;
	}
	ck_assert(r.fixed_point);
	ck_assert_uint_eq(r.traps, 0);
	ck_assert_uint_gt(r.complete, 0);
	printf("proof: states explored: %s: %llu states, %llu transitions, depth %u, fixed point, "
	       "0 violations, %.1f s\n",
	       b->name, (unsigned long long)r.states, (unsigned long long)r.transitions, r.depth,
	       r.seconds);
	ck_assert_uint_ge(r.states, b->states_min);
}
END_TEST

/* What the states leave out, and what is renamed in them, decides nothing. */
START_TEST(renamed_states_behave_like_the_cores_own)
{
	uint64_t seed = _i < 4 ? (uint64_t)_i + 1 : (uint64_t)time(NULL), made;
	const uint64_t steps = SANITIZED ? 10000 : 100000;
	struct explore_config c;
	struct explore_report r;

	explore_default(&c);
	c.nodes = 2 + (uint32_t)_i % 2;
	c.programs = 1 + (uint32_t)_i / 2 % 2;
	c.outstanding = c.nodes * c.programs;
	c.deadlines = 1;
	c.under_way = 6;
	c.units = _i % 3 == 0;
	c.merge = _i == 3;
	made = explore_compare(&c, seed, steps, &r);
	if (made != steps)
		ck_abort_msg("seed %llu step %llu: %s", (unsigned long long)seed,
			     (unsigned long long)made, r.violation);
}
END_TEST

START_TEST(an_exploration_that_does_not_end_says_so)
{
	struct explore_config c = runs[0].c;
	struct explore_report r;

	c.states_max = 1000;
	ck_assert_int_eq(explore(&c, &r), 0);
	ck_assert(!r.fixed_point);
	ck_assert_uint_eq(r.violations, 0);
	ck_assert_uint_ge(r.states, 1000);
	c.nodes = 4;
	ck_assert_int_lt(explore(&c, &r), 0);
}
END_TEST

/* Beside this program's folder: build/check/shared/core/ and build/bin/. */
static char program[PATH_MAX];

#define SMALL                                                                            \
	"--nodes 2 --programs 1 --operations 2 --under-way 1 --losses 0 --duplicates 0 " \
	"--retries 0"

/* Runs the program with the small bounds and what is added to them; its exit status. */
static int run_program(const char *added, char *out, size_t room)
{
	char command[PATH_MAX + 200];
	FILE *f;
	size_t n;
	int status;

	snprintf(command, sizeof(command), "%s " SMALL "%s", program, added);
	f = popen(command, "r");
	ck_assert_ptr_nonnull(f);
	n = fread(out, 1, room - 1, f);
	out[n] = 0;
	status = pclose(f);
	ck_assert_msg(WIFEXITED(status), "status %#x: %s", status, out);
	return WEXITSTATUS(status);
}

/* What it says of the states, beginning with their number; as the library counts them. */
static void expect_line(const char *out, const struct explore_report *r, const char *how)
{
	char counted[200];
	const char *line;

	snprintf(counted, sizeof(counted),
		 "  %llu states, %llu transitions, depth %u, 0 violations, %llu at rest, ",
		 (unsigned long long)r->states, (unsigned long long)r->transitions, r->depth,
		 (unsigned long long)r->complete);
	line = strstr(out, counted);
	ck_assert_msg(line && strstr(line, how), "not \"%s\" and \"%s\": %s", counted, how, out);
}

START_TEST(the_program_prints_states_depth_and_violations_and_its_status_says_it)
{
	struct explore_config c = {.nodes = 2,
				   .programs = 1,
				   .outstanding = 2,
				   .under_way = 1,
				   .states_max = 1u << 20,
				   .memory_max = UINT64_C(1) << 30};
	struct explore_report r;
	char out[4096];

	ck_assert_int_eq(explore(&c, &r), 0);
	ck_assert(r.fixed_point && !r.violations && r.depth && r.states > 1000);
	ck_assert_msg(!run_program("", out, sizeof(out)), "%s", out);
	expect_line(out, &r, ": fixed point; from every state all can end\n");
	c.states_max = 1000;
	ck_assert_int_eq(explore(&c, &r), 0);
	ck_assert(!r.fixed_point && !r.violations && r.states >= 1000);
	ck_assert_msg(run_program(" --states 1000", out, sizeof(out)) == 1, "%s", out);
	expect_line(out, &r, ": NOT COMPLETE: ");
}
END_TEST

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	Suite *suite = suite_create("explore");
	TCase *tc = tcase_create("explore"), *of_program = tcase_create("program");
	SRunner *runner = srunner_create(suite);
	int failed;

	(void)argc;
	snprintf(program, sizeof(program), "%.*s/../../../bin/wvm_explore",
		 slash ? (int)(slash - argv[0]) : 1, slash ? argv[0] : ".");
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, every_reachable_state_is_sound_and_leads_to_an_end, 0, RUNS);
	tcase_add_loop_test(tc, renamed_states_behave_like_the_cores_own, 0, 6);
	tcase_add_test(tc, an_exploration_that_does_not_end_says_so);
	tcase_add_test(of_program,
		       the_program_prints_states_depth_and_violations_and_its_status_says_it);
	suite_add_tcase(suite, tc);
	suite_add_tcase(suite, of_program);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

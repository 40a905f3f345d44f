/*
 * The explorer's own test: cores with one rule left out (broken.h), each of
 * which it has to catch, and soon.
 */
#include <check.h>
#include <stdio.h>

#include "shared/core/check/broken.h"
#include "shared/core/explore/explore.h"

#define SECONDS 60 /* the most that catching one may take */

static struct explore_report run(const struct explore_config *c)
{
	struct explore_report r;

	ck_assert_int_eq(explore(c, &r), 0);
	return r;
}

/* Bounds within which a fault shows. */
static struct explore_config bounds(enum broken_fault fault)
{
	struct explore_config c;

	explore_default(&c);
	c.nodes = 2;
	c.losses = c.duplicates = c.retries = 1;
	c.memory_max = UINT64_C(1) << 30;
	if (fault == BROKEN_ONE_ACK)
		c.nodes = 3;
	if (fault == BROKEN_SECOND_PROGRAM || fault == BROKEN_DOWNGRADE)
		c.programs = 2;
	c.units = fault >= BROKEN_UNIT_TWICE;
	if (fault < BROKEN_MERGE_ASKED)
		return c;
	/* That somebody waits for ever shows when all states are there. */
	c.merge = true;
	c.accesses = 4;
	c.outstanding = 2;
	c.under_way = 1;
	c.losses = c.retries = 0;
	c.duplicates = fault == BROKEN_MERGE_BLIND;
	c.evictions = fault == BROKEN_MERGE_EVICT;
	return c;
}

START_TEST(the_explorer_catches_a_core_with_a_rule_left_out)
{
	struct explore_config c = bounds((enum broken_fault)_i);
	struct explore_report r, seen;

	broken_fault = (enum broken_fault)_i;
	printf("%s:\n", broken_name(broken_fault));
	c.trace = stdout;
	c.bytes_only = true;
	seen = run(&c);
	ck_assert_uint_eq(seen.violations, 1);
	ck_assert(seen.seconds < SECONDS);
	c.trace = NULL;
	c.bytes_only = false;
	r = run(&c);
	ck_assert_uint_eq(r.violations, 1);
	ck_assert_uint_le(r.states, seen.states);
	printf("proof: broken core, explorer: %s: caught in %.2f s after %llu states, %u steps from "
	       "the start; by its bytes alone in %.2f s after %llu, %u steps\n",
	       broken_name(broken_fault), r.seconds, (unsigned long long)r.states, r.depth + 1,
	       seen.seconds, (unsigned long long)seen.states, seen.depth + 1);
}
END_TEST

/*
 * "Ignores the invalidated version", taken literally: the comparison of a
 * grant's version with the highest one given up is left out. That core is as
 * good as the real one within these bounds, and this test says why: of all
 * grants in all reachable states there is none that the comparison would have
 * refused and the request id had not refused already. A holder that answers an
 * INVALIDATE, DOWNGRADE or FETCH for a grant under way retires the id in the
 * same step. The fault that this rule stands for is BROKEN_REFUSED_GRANT: to
 * answer, and then to take that grant all the same.
 */
static const struct explore_config compared[] = {
	{.nodes = 2,
	 .programs = 1,
	 .outstanding = 2,
	 .under_way = 1,
	 .losses = 1,
	 .duplicates = 1,
	 .retries = 1,
	 .deadlines = 1},
	{.nodes = 3, .programs = 1, .outstanding = 3, .under_way = 1},
};

START_TEST(the_request_id_refuses_all_that_the_invalidated_version_would)
{
	struct explore_config c = compared[_i];
	struct explore_report r;

	c.states_max = 1u << 26;
	c.memory_max = UINT64_C(1) << 30;
	broken_fault = BROKEN_INVALIDATED_IGNORED;
	r = run(&c);
	ck_assert(r.fixed_point);
	ck_assert_uint_eq(r.violations, 0);
	ck_assert_uint_eq(broken_ignored, 0);
	printf("proof: broken core, explorer: %s, %u nodes: same as the sound one in all %llu "
	       "transitions\n",
	       broken_name(broken_fault), c.nodes, (unsigned long long)r.transitions);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("explore_teeth");
	TCase *tc = tcase_create("explore_teeth");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, the_explorer_catches_a_core_with_a_rule_left_out, BROKEN_NOT + 1,
			    BROKEN_HANDOVER_BLIND);
	tcase_add_loop_test(tc, the_request_id_refuses_all_that_the_invalidated_version_would, 0,
			    2);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

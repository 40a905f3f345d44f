/*
 * The agreement on epochs, all that can happen within the bounds below (epoch_explore.h).
 * EPOCHS="NODES VOTERS PROPOSERS RECORDS ROUNDS ENDS" for others.
 */
#include <check.h>
#include <stdlib.h>

#include "shared/core/check/epoch_explore.h"

static const struct epoch_explore_config bounds[] = {
	/* one record, three voters, two of which propose */
	{.nodes = 3, .voters = 3, .proposers = 2, .records = 1, .rounds = 2, .ends = 1},
	{.nodes = 3, .voters = 3, .proposers = 2, .records = 1, .rounds = 3, .ends = 0},
	/* two records; the first one's proposer decides who votes on the second: all but one */
	{.nodes = 3, .voters = 3, .proposers = 2, .records = 2, .rounds = 1, .ends = 1},
	{.nodes = 4, .voters = 3, .proposers = 2, .records = 2, .rounds = 1, .ends = 0},
	/* four nodes, of which three vote; the one that does not proposes, too */
	{.nodes = 4, .voters = 3, .proposers = 2, .records = 1, .rounds = 1, .ends = 1},
};

static struct epoch_explore_report explore(struct epoch_explore_config c)
{
	struct epoch_explore_report r;

	if (!c.states_max)
		c.states_max = 1u << 21;
	c.trace = stdout;
	epoch_explore(&c, &r);
	ck_assert_msg(!r.violation, "%s", r.violation);
	ck_assert(r.fixed_point);
	ck_assert_uint_gt(r.ends, 0);
	printf("proof: epochs explored: %u nodes, %u voters, %u proposers, %u records, %u rounds, %u ends%s: %llu "
	       "states, %llu transitions, depth %u, fixed point, 0 violations, %.1f s\n",
	       c.nodes, c.voters, c.proposers, c.records, c.rounds, c.ends,
	       c.reduce ? "" : ", nothing left out", (unsigned long long)r.states,
	       (unsigned long long)r.transitions, r.depth, r.seconds);
	return r;
}

START_TEST(no_order_of_events_decides_two_records_for_one_epoch)
{
	struct epoch_explore_config c = bounds[_i];

	c.reduce = true;
	explore(c);
}
END_TEST

START_TEST(messages_that_are_forgotten_make_no_difference)
{
	struct epoch_explore_config c = {
		.nodes = 3, .voters = 3, .proposers = 2, .records = 1, .rounds = 1, .ends = 1};
	struct epoch_explore_report all = explore(c), fewer;

	c.reduce = true;
	fewer = explore(c);
	/* The same nodes come about, and say the same. */
	ck_assert_uint_eq(all.locals, fewer.locals);
	ck_assert_uint_gt(all.states, fewer.states);
}
END_TEST

START_TEST(bounds_of_the_environment)
{
	struct epoch_explore_config c = {.reduce = true, .states_max = 1u << 24};

	ck_assert_int_eq(sscanf(getenv("EPOCHS"), "%u %u %u %u %u %u", &c.nodes, &c.voters,
				&c.proposers, &c.records, &c.rounds, &c.ends),
			 6);
	explore(c);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epoch_explore");
	TCase *tc = tcase_create("epoch_explore");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	if (getenv("EPOCHS")) {
		tcase_add_test(tc, bounds_of_the_environment);
	} else {
		tcase_add_loop_test(tc, no_order_of_events_decides_two_records_for_one_epoch, 0,
				    (int)(sizeof(bounds) / sizeof(bounds[0])));
		tcase_add_test(tc, messages_that_are_forgotten_make_no_difference);
	}
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

/* The explorer's and the simulator's own test: each catches epochs with one rule broken, and soon.
 */
#include <check.h>
#include <time.h>

#include "shared/core/check/epoch_broken.h"
#include "shared/core/check/epoch_explore.h"
#include "shared/core/check/epoch_sim.h"

#define SECONDS 60 /* the most that catching one may take */

/*
 * Bounds within which a fault shows. Messages that a sound machine may forget are kept, but for
 * the fault that takes three ballots to show, and has no part in what forgetting stands on.
 */
static struct epoch_explore_config bounds(enum epoch_fault fault)
{
	struct epoch_explore_config c = {.nodes = 3,
					 .voters = 3,
					 .proposers = 2,
					 .records = 1,
					 .rounds = 1,
					 .states_max = 1u << 22,
					 .trace = stdout};

	if (fault == EPOCH_SAVES_LATE || fault == EPOCH_SAVES_NOTHING)
		c.ends = 1;
	if (fault == EPOCH_LAST_TOLD) {
		c.proposers = 3;
		c.rounds = 2;
		c.reduce = true;
	}
	return c;
}

START_TEST(the_explorer_catches_a_broken_rule)
{
	struct epoch_explore_config c = bounds((enum epoch_fault)_i);
	struct epoch_explore_report r;

	epoch_fault = (enum epoch_fault)_i;
	printf("%s:\n", epoch_fault_name(epoch_fault));
	epoch_explore(&c, &r);
	ck_assert_ptr_nonnull(r.violation);
	ck_assert(r.seconds < SECONDS);
	printf("proof: broken epochs, explorer: %s: caught in %.2f s after %llu states, %u steps from "
	       "the start\n",
	       epoch_fault_name(epoch_fault), r.seconds, (unsigned long long)r.states, r.depth + 1);
}
END_TEST

START_TEST(the_simulator_catches_a_broken_rule)
{
	struct epoch_sim_report r = {0};
	time_t start = time(NULL);
	unsigned seed = 0;

	epoch_fault = (enum epoch_fault)_i;
	while (!r.violation && time(NULL) - start < SECONDS)
		epoch_sim(++seed, &r);
	ck_assert_ptr_nonnull(r.violation);
	printf("proof: broken epochs, simulator: %s: caught in %u s by seed %u: %s\n",
	       epoch_fault_name(epoch_fault), (unsigned)(time(NULL) - start), seed, r.violation);
}
END_TEST

START_TEST(the_sound_one_of_this_build_is_not_caught)
{
	struct epoch_explore_config c = bounds(EPOCH_SAVES_LATE);
	struct epoch_explore_report r;

	epoch_explore(&c, &r);
	ck_assert_ptr_null(r.violation);
	ck_assert(r.fixed_point);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epoch_teeth");
	TCase *tc = tcase_create("epoch_teeth");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, the_explorer_catches_a_broken_rule, EPOCH_SOUND + 1, EPOCH_FAULTS);
	tcase_add_loop_test(tc, the_simulator_catches_a_broken_rule, EPOCH_SOUND + 1, EPOCH_FAULTS);
	tcase_add_test(tc, the_sound_one_of_this_build_is_not_caught);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

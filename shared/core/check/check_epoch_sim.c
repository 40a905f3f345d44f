/* The agreement on epochs in simulated clusters (epoch_sim.h). SEED=N for that one alone. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/core/check/epoch_sim.h"

#ifdef EFFORT /* per cent */
#define RUNS (5000 * EFFORT / 100)
#else
#define RUNS 5000
#endif

static struct epoch_sim_report all;

static void run(uint64_t seed)
{
	struct epoch_sim_report r;

	epoch_sim(seed, &r);
	ck_assert_msg(!r.violation, "SEED=%llu: %s", (unsigned long long)seed, r.violation);
	ck_assert_uint_ge(r.records, 3);
	all.records += r.records;
	all.won += r.won;
	all.lost += r.lost;
	all.ends += r.ends;
	all.cut += r.cut;
	all.views += r.views;
	all.splits += r.splits;
	all.messages += r.messages;
	all.losses += r.losses;
	all.repeats += r.repeats;
	if (r.settled_ns > all.settled_ns)
		all.settled_ns = r.settled_ns;
}

START_TEST(all_agree_whatever_happens_and_go_on_when_it_is_over)
{
	const char *one = getenv("SEED");

	if (one) {
		run(strtoull(one, NULL, 0));
		return;
	}
	for (uint64_t seed = 1; seed <= RUNS; seed++)
		run(seed);
	/* What was to happen has happened. */
	ck_assert(all.won && all.lost && all.cut && all.ends > all.cut && all.views && all.splits &&
		  all.losses && all.repeats);
	printf("proof: epochs simulated: %u clusters: %u records, %u wishes won, %u lost, %u ends of "
	       "nodes (%u within an input), %u views, %u splits, %u messages, %u lost, %u repeated; "
	       "settled within %.1f s; 0 violations\n",
	       RUNS, all.records, all.won, all.lost, all.ends, all.cut, all.views, all.splits,
	       all.messages, all.losses, all.repeats, (double)all.settled_ns * 1e-9);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epoch_sim");
	TCase *tc = tcase_create("epoch_sim");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, all_agree_whatever_happens_and_go_on_when_it_is_over);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

/*
 * The simulator's own test: cores with one rule left out (broken.h), each of
 * which it has to catch, and soon.
 */
#include <check.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "shared/core/assert.h"
#include "shared/core/check/broken.h"
#include "shared/core/sim/cluster.h"

#define SEEDS     50
#define SECONDS   60 /* the most that catching one may take */
#define SETTLE_NS UINT64_C(20000000000)

static jmp_buf caught;
static char failure[200];

/* An assertion of the core that fails catches the fault as well. */
void wvm_core_panic(const char *what, const char *file, int line)
{
	snprintf(failure, sizeof(failure), "assertion in the core: %s, %s:%d", what, file, line);
	longjmp(caught, 1);
}

/* Units come together at one node, stay there for as long as it takes, and go again. */
static void merge_much(struct sim_config *c)
{
	c->nodes = 2;
	c->pages = 6;
	c->write_ppm = 800000;
	c->think_ns = 5000000;
	c->times.hold_max_ns = 500000;
	c->evict_ppm = 50000;
	c->duplicate_ppm = c->reorder_ppm = 300000;
	broken_every = 1;
}

/* A cluster in which that fault shows. */
static void configure(struct sim_config *c, enum broken_fault fault, uint64_t seed)
{
	sim_default(c, seed);
	c->pages = 8;
	c->loss_ppm = c->duplicate_ppm = 20000;
	c->reorder_ppm = 100000;
	c->reorder_ns = 40000000; /* beyond the retries */
	c->units = fault >= BROKEN_UNIT_TWICE;
	if (fault >= BROKEN_MERGE_ASKED && fault < BROKEN_HANDOVER_BLIND)
		merge_much(c);
	if (fault >= BROKEN_HANDOVER_BLIND) {
		c->units = false;
		c->move_gap_ns = 20000000;
		c->evict_ppm = 20000;
		broken_every = 1;
	}
	if (fault >= BROKEN_BACKUP_EARLY) {
		c->backup = true;
		if (fault < BROKEN_BACKUP_SKIPS)
			c->move_gap_ns = 0;
	}
	if (fault >= BROKEN_REBUILD_UNTOLD) {
		c->move_gap_ns = 0;
		c->nodes = 6;
		c->pages = 30;
		c->deaths = 3;
		c->deaths_meet = fault == BROKEN_REBUILD_ZEROS;
		c->death_gap_ns = 10000000;
		c->death_known_ns = 5000000;
		c->learn_ns = 50000000;
	}
	if (fault >= BROKEN_RENEWED_SECOND) {
		c->nodes = 7;
		c->pages = 90;
		c->deaths = 2;
		c->deaths_meet = true;
		c->death_gap_ns = 100000000;
		c->death_known_ns = 20000000;
		c->reboots = 4;
		c->reboot_gap_ns = 50000000;
	}
	if (fault == BROKEN_HANDOVER_FORGETS) {
		c->renew = true;
		c->nodes = 2;
		c->think_ns = 20000000; /* so that nobody takes anything anew for a while */
	}
	if (fault == BROKEN_HANDOVER_COUNTED) {
		c->troubles = SIM_KILL;
		c->pages = 60;
		c->trouble_gap_ns = 2000000;
		c->trouble_ns = 500000;
		c->learn_ns = 2000000;
	}
}

/* Whether the seed shows a failure there; adds the steps that it took. */
static bool fails(enum broken_fault where, uint64_t seed, uint64_t accesses, uint64_t *steps)
{
	struct sim_config c;
	struct sim_report r;
	struct sim *sim;

	configure(&c, where, seed);
	sim = sim_create(&c);
	if (setjmp(caught)) {
		sim_report(sim, &r);
		*steps += r.steps;
		return true; /* the core cannot be used any more: its memory stays */
	}
	/* All that is to happen to nodes has happened by then. */
	sim_run(sim, where >= BROKEN_RENEWED_SECOND ? accesses / 4 : accesses);
	sim_settle(sim, SETTLE_NS);
	sim_report(sim, &r);
	*steps += r.steps;
	if (r.failure)
		snprintf(failure, sizeof(failure), "%s", r.failure);
	sim_destroy(sim);
	return r.failure;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

START_TEST(the_simulator_catches_a_core_with_a_rule_left_out)
{
	double began = seconds(), took;
	uint64_t steps = 0;
	uint32_t seed = 1;

	broken_fault = (enum broken_fault)_i;
	broken_every = 8;
	while (seed <= SEEDS && !fails(broken_fault, seed, 20000, &steps))
		seed++;
	took = seconds() - began;
	if (broken_fault == BROKEN_NOT) {
		ck_assert_uint_eq(seed, SEEDS + 1);
		return;
	}
	ck_assert_uint_le(seed, SEEDS);
	ck_assert(took < SECONDS);
	printf("  (%s)\n", failure);
	printf("proof: broken core, simulator: %s: caught in %.2f s after %llu steps\n",
	       broken_name(broken_fault), took, (unsigned long long)steps);
}
END_TEST

/*
 * The fault that is none (broken.h), in clusters that the explorer's bounds leave out: of all
 * grants that come there is none that only the comparison of versions would have refused.
 */
static const enum broken_fault others[] = {BROKEN_NOT, BROKEN_UNIT_TWICE, BROKEN_MERGE_ASKED,
					   BROKEN_HANDOVER_BLIND, BROKEN_RENEWED_SECOND};

START_TEST(grants_that_only_the_version_would_refuse_do_not_come)
{
	uint64_t steps = 0;
	uint32_t seed;

	broken_fault = BROKEN_INVALIDATED_IGNORED;
	broken_every = 1;
	for (seed = 1; seed <= SEEDS / 5; seed++) {
		bool failed = fails(others[_i], seed, 20000, &steps);

		ck_assert_msg(!broken_ignored, "seed %u: %llu grants", seed,
			      (unsigned long long)broken_ignored);
		ck_assert_msg(!failed, "seed %u: %s", seed, failure);
	}
	printf("proof: broken core, simulator: %s, clusters for \"%s\": no failure and no grant that it "
	       "alone would refuse in %llu steps\n",
	       broken_name(broken_fault), broken_name(others[_i]), (unsigned long long)steps);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("teeth");
	TCase *tc = tcase_create("teeth"), *literal = tcase_create("literal");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_set_timeout(literal, 300);
	tcase_add_loop_test(tc, the_simulator_catches_a_core_with_a_rule_left_out, 0,
			    BROKEN_FAULTS);
	tcase_add_loop_test(literal, grants_that_only_the_version_would_refuse_do_not_come, 0, 5);
	suite_add_tcase(suite, literal);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

/*
 * The simulator with nodes that die for good: those that run no programs take nothing with them,
 * whoever else is killed, slow or cut off meanwhile, and whatever the network does.
 */
#include "shared/core/check/simulated.h"

/* An assertion in a core that fails is a test that fails, and says where. */
__attribute__((noreturn)) void wvm_core_panic(const char *what, const char *file, int line)
{
	char text[SIM_TEXT];
	uint64_t seed, step;

	sim_where(&seed, &step);
	snprintf(text, sizeof(text), "seed %llu step %llu: assertion %s, %s:%d",
		 (unsigned long long)seed, (unsigned long long)step, what, file, line);
	fail_replayably(text);
}

/* Everything ends, and every thread is looked at. */
static struct sim_report settle(struct sim *sim)
{
	sim_settle(sim, 60 * SECOND);
	sim_check_history(sim);
	return report_at_rest(sim);
}

/* Until all have died and the steps are made. */
static struct sim *live(const struct sim_config *c, uint64_t steps)
{
	struct sim *sim = sim_create(c);
	struct sim_report r;

	do {
		sim_run(sim, 500);
		r = report_of(sim);
	} while (r.steps < steps ||
		 ((r.deaths < c->deaths || r.reboots < c->reboots) && r.steps < 20 * steps));
	ck_assert_uint_eq(r.deaths, c->deaths);
	return sim;
}

static void end(struct sim *sim, const struct sim_report *r)
{
	if (getenv("WVM_SHOW"))
		sim_report_print(r, stdout);
	sim_destroy(sim);
}

static struct sim_report run(const struct sim_config *c, uint64_t steps)
{
	struct sim *sim = live(c, steps);
	struct sim_report r = settle(sim);

	end(sim, &r);
	return r;
}

/* Nodes that home memory and run nothing, and others. */
static void mortal(struct sim_config *c, int i, uint64_t seed)
{
	sim_default(c, seed);
	c->nodes = 4 + (uint32_t)i % 4;
	c->deaths = 2;
	c->death_gap_ns = 100 * MS;
	c->death_known_ns = 20 * MS;
	c->pages = 30;
	c->units = i % 2;
	c->mortal_only = i / 2 % 2;
	c->pin_ppm = i % 3 ? 0 : 10000;
	c->evict_ppm = i % 3 ? 20000 : 0;
	c->learn_ns = 50 * MS;
}

#define CALM 8
START_TEST(a_node_that_only_homes_memory_dies_and_nobody_notices)
{
	struct sim_config c;
	struct sim_report r;

	mortal(&c, _i, seed_of(_i, CALM));
	r = run(&c, 60000);
	ck_assert_uint_gt(r.rebuilt, 0);
	ck_assert_uint_eq(r.failed_faults, 0);
	ck_assert_uint_eq(r.lost_pages, 0);
}
END_TEST

/* With masters that are killed, stopped, slow or cut off meanwhile, and much loss. */
#define ROUGH 8
START_TEST(a_node_dies_in_the_middle_of_all_kinds_of_trouble)
{
	struct sim_config c;
	struct sim_report r;

	mortal(&c, _i, seed_of(_i, ROUGH));
	c.loss_ppm = c.duplicate_ppm = 50000;
	c.reorder_ppm = 200000;
	c.reorder_ns = 20 * MS;
	c.troubles = _i % 2 ? SIM_KILL : SIM_TROUBLES;
	c.trouble_gap_ns = 20 * MS;
	c.trouble_ns = 5 * MS;
	r = run(&c, 60000);
	ck_assert_uint_gt(r.kills, 0);
	ck_assert_uint_gt(r.rebuilt, 0);
	ck_assert_uint_eq(r.lost_pages, 0);
}
END_TEST

/* Between deaths others join and drain. */
#define MOVED 8
START_TEST(a_node_dies_after_others_have_joined_and_drained_and_they_go_on)
{
	struct sim_config c;
	struct sim_report r;

	mortal(&c, _i, seed_of(_i, MOVED));
	c.move_gap_ns = 30 * MS;
	if (_i % 2) {
		c.troubles = SIM_KILL;
		c.trouble_gap_ns = 50 * MS;
		c.trouble_ns = 5 * MS;
	}
	r = run(&c, 60000);
	ck_assert_uint_gt(r.joins + r.drains, 2);
	ck_assert_uint_eq(r.failed_faults, 0);
	ck_assert_uint_eq(r.lost_pages, 0);
}
END_TEST

/* What it was given goes back to those who gave it. */
#define JOINING 12
START_TEST(a_node_that_dies_while_it_joins_takes_nothing_with_it)
{
	struct sim_config c;
	struct sim_report r;

	mortal(&c, _i, JOINING);
	c.nodes = 5 + (uint32_t)_i % 2;
	c.deaths = 1 + (uint32_t)_i % 2;
	c.deaths_joining = true;
	c.death_gap_ns = 5 * MS;
	c.move_gap_ns = 10 * MS;
	if (_i % 4 > 1) {
		c.troubles = SIM_KILL;
		c.trouble_gap_ns = 20 * MS;
		c.trouble_ns = 5 * MS;
		c.loss_ppm = c.duplicate_ppm = 20000;
	}
	r = run(&c, 60000);
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

/* At any time, in the middle of moves and of each other: errors, and nothing wrong. */
static void met(int i, uint64_t seed)
{
	struct sim_config c;

	mortal(&c, i, seed);
	c.nodes = 6;
	c.deaths = 3;
	c.deaths_meet = true;
	c.death_gap_ns = 10 * MS;
	c.death_known_ns = 5 * MS;
	c.move_gap_ns = i % 2 ? 10 * MS : 0;
	if (i % 4 > 1) {
		c.troubles = SIM_KILL;
		c.trouble_gap_ns = 20 * MS;
		c.trouble_ns = 5 * MS;
	}
	run(&c, 60000);
}

#define MET 8
START_TEST(nodes_that_die_at_any_time_cost_errors_and_never_show_a_wrong_value)
{
	met(_i, seed_of(_i, MET));
}
END_TEST

/*
 * Seeds that found something, by which loop of the test above and its seed:
 *   7, 4  a write-back that was not acknowledged is not the last one where the copies of a later
 *         one have died with both homes
 */
#define FOUND_MET 1
START_TEST(nodes_that_die_at_any_time_as_in_seeds_that_failed)
{
	static const struct {
		int loop;
		uint64_t seed;
	} found[FOUND_MET] = {{7, 4}};

	met(found[_i].loop, found[_i].seed);
}
END_TEST

/*
 * Seeds of random configurations that found something:
 *   1001701  a page that is lost with its owner waits for bytes no more, and can be handed over
 */
#define FOUND_RANDOM 1
START_TEST(random_configurations_as_in_seeds_that_failed)
{
	static const struct {
		uint64_t seed, steps;
	} found[FOUND_RANDOM] = {{1001701, 30000}};
	char text[SIM_TEXT];
	struct sim_config c;
	struct sim_report r;

	sim_random(&c, found[_i].seed);
	sim_exercise(&c, found[_i].steps, &r, text);
	if (r.failure)
		fail_replayably(text);
	ck_assert_uint_gt(r.deaths, 0);
}
END_TEST

/* Nodes that have stored to pages of all homes die with them. */
#define STOLEN 8
START_TEST(nodes_that_die_with_their_programs_never_leave_an_older_copy)
{
	struct sim_report r, later;
	struct sim_config c;
	struct sim *sim;

	mortal(&c, _i, seed_of(_i, STOLEN));
	c.deaths_all = true;
	c.mortal_only = false;
	c.deaths_meet = _i % 2;
	sim = live(&c, 60000);
	r = settle(sim);
	/* All pages are asked for once more. Those that are lost are errors, and no others are. */
	sim_run(sim, 20000);
	later = settle(sim);
	ck_assert_uint_eq(later.lost_pages, r.lost_pages);
	ck_assert_uint_eq(later.failed_faults > r.failed_faults, r.lost_pages > 0);
	end(sim, &later);
}
END_TEST

/* Before most units have been split: what is left of them is told as a whole. */
#define YOUNG 60
START_TEST(nodes_that_die_while_most_of_the_memory_is_new_lose_nothing_unless_they_meet)
{
	struct sim_report r;
	struct sim_config c;

	mortal(&c, _i, seed_of(_i, YOUNG));
	c.nodes = 6;
	c.deaths = 3;
	c.units = true;
	c.loss_ppm = c.duplicate_ppm = 20000;
	c.reorder_ppm = 100000;
	c.reorder_ns = 40 * MS;
	c.death_gap_ns = 10 * MS;
	c.death_known_ns = 5 * MS;
	c.deaths_meet = _i % 2;
	r = run(&c, 5000);
	ck_assert(c.deaths_meet || !r.lost_pages);
}
END_TEST

/* Hosts that are rebooted, with what their programs have stored to. */
static void rebooting(struct sim_config *c, int i, int count)
{
	mortal(c, i, count);
	c->nodes = 7;
	c->pages = 90;
	c->mortal_only = false;
	c->reboots = 4;
	c->reboot_gap_ns = 50 * MS;
	c->loss_ppm = i % 3 ? 0 : 50000;
	c->ancient_ppm = i % 3 ? 0 : 5000;
	c->ancient_ns = 100 * MS;
}

/* Others die for good meanwhile. */
#define REBOOTED 32
START_TEST(hosts_that_are_rebooted_cost_errors_and_no_death_brings_an_older_copy_back)
{
	struct sim_config c;
	struct sim_report r;

	rebooting(&c, _i, REBOOTED);
	c.deaths_meet = true;
	if (_i % 5 == 4) {
		c.troubles = SIM_KILL;
		c.trouble_gap_ns = 10 * MS;
		c.trouble_ns = 3 * MS;
	}
	r = run(&c, 20000);
	ck_assert_uint_eq(r.reboots, c.reboots);
}
END_TEST

/* All the others live: what was not stored to at those hosts is copied again. */
#define ALIVE 8
START_TEST(hosts_that_are_rebooted_leave_slices_that_are_copied_again)
{
	struct sim_config c;
	struct sim_report r;

	rebooting(&c, _i, ALIVE);
	c.deaths = 0;
	r = run(&c, 20000);
	ck_assert_uint_eq(r.reboots, c.reboots);
	ck_assert_uint_gt(r.backup_checked, 0);
}
END_TEST

#define TIMEOUT 120

int main(int argc, char **argv)
{
	Suite *suite = suite_create("death");
	SRunner *runner = srunner_create(suite);
	int failed;

	(void)argc;
	simulated_begin(argv[0]);
	add_simulated(suite, a_node_that_only_homes_memory_dies_and_nobody_notices, CALM, TIMEOUT);
	add_simulated(suite, a_node_dies_in_the_middle_of_all_kinds_of_trouble, ROUGH, TIMEOUT);
	add_simulated(suite, a_node_dies_after_others_have_joined_and_drained_and_they_go_on, MOVED,
		      TIMEOUT);
	add_simulated(suite, a_node_that_dies_while_it_joins_takes_nothing_with_it, JOINING,
		      TIMEOUT);
	add_simulated(suite, nodes_that_die_at_any_time_cost_errors_and_never_show_a_wrong_value,
		      MET, TIMEOUT);
	add_simulated(suite, nodes_that_die_at_any_time_as_in_seeds_that_failed, FOUND_MET,
		      TIMEOUT);
	add_simulated(suite, random_configurations_as_in_seeds_that_failed, FOUND_RANDOM, TIMEOUT);
	add_simulated(suite, nodes_that_die_with_their_programs_never_leave_an_older_copy, STOLEN,
		      TIMEOUT);
	add_simulated(suite,
		      nodes_that_die_while_most_of_the_memory_is_new_lose_nothing_unless_they_meet,
		      YOUNG, TIMEOUT);
	add_simulated(suite,
		      hosts_that_are_rebooted_cost_errors_and_no_death_brings_an_older_copy_back,
		      REBOOTED, TIMEOUT);
	add_simulated(suite, hosts_that_are_rebooted_leave_slices_that_are_copied_again, ALIVE,
		      TIMEOUT);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

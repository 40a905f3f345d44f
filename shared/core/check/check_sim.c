/*
 * Bounded runs of the simulated cluster, over fixed seeds and fresh ones. Every
 * load is checked against the one true value; a failure names its seed and step.
 */
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/core/check/simulated.h"

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

#define WORKERS 2 /* processes of the longest test */

/* Shared by all processes: libcheck runs each test in one of its own. */
static struct total {
	atomic_ullong steps, seeds, refused, history, kills;
	/* Of random configurations alone. */
	atomic_ullong random_kills, cuts, stops, slowed, let_go;
	char failure[WORKERS][SIM_TEXT];
} * total;

static char *failure_of_worker; /* in a worker: where to say what is wrong */

/* An assertion in a core that fails is a test that fails, and says where. */
__attribute__((noreturn)) void wvm_core_panic(const char *what, const char *file, int line)
{
	char text[SIM_TEXT];
	uint64_t seed, step;

	sim_where(&seed, &step);
	snprintf(text, sizeof(text), "seed %llu step %llu: assertion %s, %s:%d",
		 (unsigned long long)seed, (unsigned long long)step, what, file, line);
	if (failure_of_worker) {
		memcpy(failure_of_worker, text, SIM_TEXT);
		_exit(1);
	}
	fail_replayably(text);
}

static void count(const struct sim_report *r)
{
	atomic_fetch_add(&total->steps, r->steps);
	atomic_fetch_add(&total->seeds, 1);
	atomic_fetch_add(&total->refused, r->corrupted_caught);
	atomic_fetch_add(&total->history, r->history);
	atomic_fetch_add(&total->kills, r->kills);
}

/* Lets everything end, and looks at every thread. */
static struct sim_report end(struct sim *sim)
{
	struct sim_report r;

	sim_settle(sim, 20 * SECOND);
	sim_check_history(sim);
	r = report_at_rest(sim);
	count(&r);
	sim_destroy(sim);
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
	return end(sim);
}

/*
 * The same, and on until what the test is about has happened often enough: how soon that is depends
 * on the seed. Gives up after ten times the steps.
 */
static struct sim_report run_until(const struct sim_config *c, uint64_t steps,
				   uint64_t (*happened)(const struct sim_report *r),
				   uint64_t enough)
{
	struct sim *sim = sim_create(c);
	struct sim_report r;

	do {
		sim_run(sim, 500);
		r = report_of(sim);
	} while (r.steps < steps / EFFORT ||
		 (happened(&r) < enough && r.steps < 10 * steps / EFFORT));
	ck_assert_uint_ge(happened(&r), enough);
	return end(sim);
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
	r = end(sim);
	ck_assert_uint_eq(r.failed_faults, failed);
}
END_TEST

/* Nothing from one node to one other: requests arrive and answers do not, or the other way round.
 */
#define WAYS 3
START_TEST(a_wire_that_fails_one_way_leaves_no_wrong_value)
{
	struct sim_config c;
	struct sim_report r;
	struct sim *sim;
	uint64_t failed;

	sim_default(&c, seed_of(_i, WAYS));
	sim = sim_create(&c);
	for (uint32_t round = 0; round < 12; round++) {
		uint32_t from = round % c.nodes, to = (from + 1 + round / 6) % c.nodes;

		sim_run(sim, 2000);
		sim_cut(sim, from, to, true);
		sim_settle(sim, round % 2 ? 40 * MS : 8 * SECOND);
		sim_run(sim, 300);
		sim_cut(sim, from, to, false);
		report_of(sim);
	}
	sim_settle(sim, 20 * SECOND);
	r = report_of(sim);
	ck_assert_uint_gt(r.failed_faults, 0);
	failed = r.failed_faults;
	sim_run(sim, 10000);
	r = end(sim);
	ck_assert_uint_eq(r.failed_faults, failed);
}
END_TEST

/* Its programs wait, and those of others that need its pages get errors; all go on afterwards. */
#define STOPPED 4
START_TEST(a_master_that_stopped_for_ten_seconds_goes_on)
{
	struct sim_config c;
	struct sim_report r;
	struct sim *sim;
	uint64_t failed;

	sim_default(&c, seed_of(_i, STOPPED));
	c.socket_bytes = _i % 2 ? 212992 : 8192;
	c.think_ns = MS; /* ten seconds are long */
	sim = sim_create(&c);
	for (uint32_t round = 0; round < 6; round++) {
		sim_run(sim, 2000);
		sim_stop(sim, round % c.nodes, true);
		sim_run(sim, 200);
		r = report_of(sim);
		do
			sim_run(sim, 10);
		while (report_of(sim).now_ns < r.now_ns + 10 * SECOND);
		sim_stop(sim, round % c.nodes, false);
	}
	sim_settle(sim, 20 * SECOND);
	r = report_of(sim);
	ck_assert_uint_gt(r.failed_faults, 0);
	ck_assert(_i % 2 || r.overflowed);
	failed = r.failed_faults;
	sim_run(sim, 10000);
	r = end(sim);
	ck_assert_uint_eq(r.failed_faults, failed);
}
END_TEST

#define DAMAGED 4
START_TEST(every_damaged_datagram_is_refused_and_costs_nobody_an_access)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, DAMAGED));
	c.corrupt_ppm = 50000;
	r = run(&c, 1000000);
	ck_assert_uint_gt(r.corrupted, 20000 / EFFORT);
	ck_assert_uint_eq(r.corrupted, r.corrupted_caught + r.corrupted_hops);
	ck_assert_uint_lt(r.corrupted_hops * 100, r.corrupted);
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

/* A program maps while pages are installed, pinned, taken away; and goes while it waits. */
#define VISITS 4
START_TEST(programs_that_come_and_go_see_no_wrong_value)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, VISITS));
	c.clients = 3;
	c.pages = 6;
	c.pin_ppm = 50000;
	c.program_gap_ns = 3 * MS;
	c.program_away_ns = MS / 2;
	r = run(&c, 500000);
	ck_assert_uint_gt(r.left, 1000 / EFFORT);
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

/* Killed in the middle of inputs and between actions, also while they take over. */
#define KILLED 6
START_TEST(masters_that_are_killed_and_taken_over_lose_nothing)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, KILLED));
	c.nodes = 2 + (uint32_t)_i % 4;
	c.pages = 8;
	c.pin_ppm = 20000;
	c.troubles = SIM_KILL;
	c.trouble_gap_ns = 5 * MS;
	c.trouble_ns = 5 * MS;
	r = run(&c, 500000);
	ck_assert_uint_gt(r.kills, 300 / EFFORT);
	ck_assert_uint_gt(r.kills_undone, 30 / EFFORT);
	/* Short ones pass unnoticed: whoever needs the node waits, and goes on. */
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

/* Pages go unasked, whatever is under way, also of masters that are killed meanwhile. */
START_TEST(pages_given_up_for_lack_of_memory_lose_nothing)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, KILLED));
	c.nodes = 2 + (uint32_t)_i % 4;
	c.pages = 8;
	c.pin_ppm = 20000;
	c.evict_ppm = 200000;
	if (_i % 2) {
		c.troubles = SIM_KILL;
		c.trouble_gap_ns = 5 * MS;
		c.trouble_ns = 5 * MS;
	}
	r = run(&c, 500000);
	ck_assert_uint_gt(r.evicted, 3000 / EFFORT);
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

START_TEST(installs_without_room_lose_nothing)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, 3));
	c.full_ppm = 20000;
	c.pin_ppm = 100000;
	r = run(&c, 500000);
	ck_assert_uint_gt(r.installs_failed, 500 / EFFORT);
}
END_TEST

static uint64_t merges(const struct sim_report *r)
{
	return r->merges;
}

/* All pages come together at one node, are one grant, and are split again. */
#define MERGED 6
START_TEST(units_that_are_put_together_again_lose_nothing)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, MERGED));
	c.nodes = 2 + (uint32_t)_i % 3;
	c.units = true;
	c.pages = 9;
	c.write_ppm = 800000;
	c.think_ns = 20 * MS; /* so that a unit is left alone for as long as it takes */
	c.pin_ppm = 5000;
	c.evict_ppm = _i % 2 ? 20000 : 0;
	c.times.hold_max_ns = MS;
	if (_i % 3) {
		c.troubles = SIM_KILL;
		c.trouble_gap_ns = 200 * MS;
		c.trouble_ns = 5 * MS;
	}
	r = run_until(&c, 300000, merges, 30 / EFFORT);
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

/*
 * A page that is held without being in the RAM file, for lack of room, has no marker in the page
 * tables of a program that maps later: none is needed until it gets there. Units are granted whole
 * but once, so it takes many short lives.
 */
#define ROOMLESS 6
START_TEST(programs_that_come_while_there_is_no_room_see_no_wrong_value)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, ROOMLESS));
	c.units = true;
	c.pages = 300;
	c.clients = 2;
	c.write_ppm = 100000;
	c.full_ppm = 600000;
	c.program_gap_ns = 2 * MS;
	c.program_away_ns = MS / 2;
	r = run(&c, 10000 * EFFORT);
	ck_assert_uint_gt(r.left, 10);
	ck_assert_uint_gt(r.installs_failed, 10);
}
END_TEST

/* A node that does not protect a second program's mapping before a page is there. */
START_TEST(a_second_program_that_is_let_in_unprotected_is_caught)
{
	struct sim_report r = {0};
	struct sim_config c;
	char text[SIM_TEXT];

	for (uint64_t seed = 1; seed <= 10 && !r.failure; seed++) {
		sim_default(&c, seed);
		c.unprotected = true;
		sim_exercise(&c, 100000, &r, text);
	}
	ck_assert_ptr_nonnull(r.failure);
}
END_TEST

/* Nodes join and drain all the time, each learning of it at its own; masters are killed meanwhile.
 */
static void moving(struct sim_config *c, uint64_t seed, int i)
{
	sim_default(c, seed);
	c->nodes = 2 + (uint32_t)i % 4;
	c->pages = 24;
	c->units = i % 2;
	c->move_gap_ns = 50 * MS;
	if (i % 3) {
		c->troubles = SIM_KILL;
		c->trouble_gap_ns = 50 * MS;
		c->trouble_ns = 5 * MS;
	}
}

static uint64_t unmoved_between(const struct sim_report *r)
{
	return r->unmoved_between;
}

#define MOVED 6
START_TEST(pages_whose_home_moves_lose_nothing)
{
	struct sim_config c;
	struct sim_report r;

	moving(&c, seed_of(_i, MOVED), _i);
	c.evict_ppm = 20000;
	r = run_until(&c, 500000, unmoved_between, 1);
	ck_assert_uint_gt(r.joins, 5 / EFFORT);
	ck_assert_uint_gt(r.units_moved, 5 / EFFORT);
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

static uint64_t renewed(const struct sim_report *r)
{
	return r->renewed;
}

/* Whoever is no home any more, and is empty as a holder, loses its files; and becomes a home again.
 */
#define RENEWED 6
START_TEST(nodes_that_come_back_without_their_files_lose_nothing)
{
	struct sim_config c;
	struct sim_report r;

	moving(&c, seed_of(_i, RENEWED), _i);
	c.renew = true;
	r = run_until(&c, 500000, renewed, 1);
	ck_assert_uint_gt(r.units_moved, 5 / EFFORT);
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

/*
 * A home is killed right after the answer that leaves it nothing to hand over, which it has told
 * of: the others are in the next epoch by then, and hear no question of this one.
 */
START_TEST(a_home_killed_after_its_last_answer_takes_the_next_epoch)
{
	struct sim_config c;
	struct sim_report r;

	moving(&c, UINT64_C(3591534352), 5);
	c.renew = true;
	r = run(&c, 200000 * EFFORT);
	ck_assert_uint_eq(r.failed_faults, 0);
}
END_TEST

/* The network is well, and so are all nodes; what is told of a move is heard in 2 ms. */
static void all_well(struct sim_config *c, uint64_t seed, bool large)
{
	sim_default(c, seed);
	c->loss_ppm = c->duplicate_ppm = c->reorder_ppm = 0;
	c->nodes = large ? 14 : 2 + (uint32_t)seed % 4;
	c->clients = large ? 1 : 2;
	c->pages = large ? 300 : 60;
	c->delay_ns = large ? MS / 2 : c->delay_ns;
	c->think_ns = large ? MS : MS / 5;
	c->pin_ppm = 0;
	c->evict_ppm = 20000;
	c->learn_ns = 2 * MS;
}

static uint64_t asked_on_their_way(const struct sim *sim)
{
	uint64_t asked = 0;

	for (uint32_t i = 0; i < sim->config.nodes; i++)
		asked += sim_stats(sim, i)->handover_asked;
	return asked;
}

/* The same cluster, first with homes that stay, then with some that move. */
#define WELL       8
#define WAIT_MOST  (100 * MS)
#define WELL_STEPS (100000 / EFFORT)
START_TEST(nobody_waits_long_for_a_page_whose_home_moves)
{
	for (uint32_t moves = 0; moves < 2; moves++) {
		struct sim_config c;
		struct sim_report r;
		struct sim *sim;

		all_well(&c, seed_of(_i, WELL), _i % 2);
		c.move_gap_ns = moves ? 50 * MS : 0;
		c.backup = _i / 2 % 2;
		sim = sim_create(&c);
		do {
			sim_run(sim, 500);
			r = report_of(sim);
		} while (r.steps < WELL_STEPS || (moves && asked_on_their_way(sim) < 10));
		r = end(sim);
		ck_assert(moves || !r.units_moved);
		ck_assert_uint_eq(r.failed_faults, 0);
		ck_assert_uint_lt(r.wait_ns_max, WAIT_MOST);
	}
}
END_TEST

/* By the present lives alone: a master that was killed a moment ago has copied nothing. */
static uint64_t copied(const struct sim_report *r)
{
	return r->backup_copied;
}

/* Whatever happens to nodes and wires, and whoever is home: looked for after every step. */
#define BACKED_UP 6
START_TEST(second_homes_have_whatever_is_acknowledged)
{
	struct sim_config c;
	struct sim_report r;

	sim_default(&c, seed_of(_i, BACKED_UP));
	c.nodes = 2 + (uint32_t)_i % 4;
	c.pages = 24;
	c.backup = true;
	c.units = _i % 2;
	c.evict_ppm = 20000;
	c.move_gap_ns = _i % 3 ? 100 * MS : 0;
	c.troubles = SIM_KILL | (_i % 2 ? SIM_CUT_PAIR | SIM_STOP : 0);
	c.trouble_gap_ns = 50 * MS;
	c.trouble_ns = 5 * MS;
	r = run_until(&c, 500000, copied, 1 + 20 / EFFORT);
	ck_assert_uint_gt(r.kills, 10 / EFFORT);
	ck_assert_uint_gt(r.backup_checked, 10000 / EFFORT);
}
END_TEST

/* A copy and its answer are one message each, the page's three segments counted. */
START_TEST(a_backup_costs_four_datagrams_for_each_page_that_is_written_back)
{
	double messages[2], faults[2], waits[2];
	struct sim_report r;
	uint64_t written = 0;
	uint32_t nodes = 0;

	for (uint32_t on = 0; on < 2; on++) {
		struct sim_config c;
		struct sim *sim;

		all_well(&c, 5, false);
		c.backup = on;
		c.evict_ppm = 0;
		nodes = c.nodes;
		sim = sim_create(&c);
		do {
			sim_run(sim, 500);
			r = report_of(sim);
		} while (r.accesses < 200000 / EFFORT);
		for (uint32_t i = 0; i < c.nodes; i++)
			written += on ? sim_stats(sim, i)->write_backs : 0;
		messages[on] = (double)r.messages / (double)r.faults;
		faults[on] = (double)r.faults;
		waits[on] = (double)r.wait_ns_max / 1e6;
		end(sim);
	}
	ck_assert(messages[1] > messages[0]);
	ck_assert(messages[1] - messages[0] < 4.2 * (double)written / faults[1]);
	printf("proof: backups, %u nodes: %.2f datagrams for a fault, %.2f without; %.2f of a page "
	       "written back; longest wait %.1f ms, %.1f without\n",
	       nodes, messages[1], messages[0],
	       (messages[1] - messages[0]) * faults[1] / (double)written, waits[1], waits[0]);
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

/* The same seed draws the same chart, to the byte; and drawing changes nothing. */
START_TEST(a_seed_replays_exactly)
{
	uint64_t steps = 20000, seed = seed_of(_i, 6);
	struct sim_report r[3];
	char *chart[2], text[SIM_TEXT];
	size_t size[2];

	for (uint32_t i = 0; i < 3; i++) {
		struct sim_config c;

		sim_random(&c, seed);
		c.trace = i < 2 ? open_memstream(&chart[i], &size[i]) : NULL;
		sim_exercise(&c, steps, &r[i], text);
		ck_assert_msg(!r[i].failure, "%s", r[i].failure);
		count(&r[i]);
		if (c.trace)
			fclose(c.trace);
	}
	ck_assert_uint_gt(size[0], 100000);
	ck_assert_uint_eq(size[0], size[1]);
	ck_assert(!memcmp(chart[0], chart[1], size[0]));
	ck_assert_uint_eq(r[0].now_ns, r[2].now_ns);
	ck_assert_uint_eq(r[0].steps, r[2].steps);
	ck_assert_uint_eq(r[0].messages, r[2].messages);
	free(chart[0]);
	free(chart[1]);
}
END_TEST

/* ---- many configurations --------------------------------------------------------------- */

#define STEPS_ALL  (UINT64_C(100000000) / EFFORT) /* of the whole program */
#define SEEDS_MOST 2000u                          /* of a worker */

static void count_troubles(const struct sim_report *r)
{
	atomic_fetch_add(&total->random_kills, r->kills);
	atomic_fetch_add(&total->cuts, r->cuts);
	atomic_fetch_add(&total->stops, r->stops);
	atomic_fetch_add(&total->slowed, r->slowed);
	atomic_fetch_add(&total->let_go, r->let_go);
}

/* Every second seed is one that was never run before. */
__attribute__((noreturn)) static void work(uint32_t worker)
{
	struct sim_report r;
	struct sim_config c;

	failure_of_worker = total->failure[worker];
	for (uint32_t i = 0; i < SEEDS_MOST && atomic_load(&total->steps) < STEPS_ALL; i++) {
		uint64_t n = i * WORKERS + worker;

		sim_random(&c, i % 2 ? fresh_seed * 100000 + n : n);
		sim_exercise(&c, SIM_SEED_STEPS / EFFORT, &r, failure_of_worker);
		count(&r);
		count_troubles(&r);
		if (r.failure)
			_exit(1);
	}
	_exit(0);
}

/* A failure is replayed by make sim SEED=… TRACE=1 (STEPS=40000 under sanitizers). */
START_TEST(no_random_configuration_shows_a_wrong_value)
{
	pid_t pids[WORKERS];

	fflush(stdout);
	for (uint32_t i = 0; i < WORKERS; i++) {
		pids[i] = fork();
		ck_assert_int_ge(pids[i], 0);
		if (!pids[i])
			work(i);
	}
	for (uint32_t i = 0; i < WORKERS; i++) {
		int status;

		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		ck_assert_msg(!total->failure[i][0], "%s", total->failure[i]);
		ck_assert_msg(!status, "worker %u: wait status %#x", i, status);
	}
	ck_assert_uint_ge(atomic_load(&total->steps), STEPS_ALL);
	/* No kind of trouble is missing. */
	ck_assert_uint_gt(atomic_load(&total->random_kills), 0);
	ck_assert_uint_gt(atomic_load(&total->cuts), 0);
	ck_assert_uint_gt(atomic_load(&total->stops), 0);
	ck_assert_uint_gt(atomic_load(&total->slowed), 0);
	ck_assert_uint_gt(atomic_load(&total->let_go), 0);
}
END_TEST

#define TIMEOUT 300

int main(int argc, char **argv)
{
	Suite *suite = suite_create("sim");
	SRunner *runner = srunner_create(suite);
	int failed;

	total = mmap(NULL, sizeof(*total), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (total == MAP_FAILED)
		return 2;
	(void)argc;
	simulated_begin(argv[0]);
	add_simulated(suite, mild_disorder_costs_nobody_an_access, MILD, TIMEOUT);
	add_simulated(suite, heavy_loss_duplication_and_reordering_never_show_a_wrong_value, HEAVY,
		      TIMEOUT);
	add_simulated(suite, tiny_pools_never_show_a_wrong_value, TINY, TIMEOUT);
	add_simulated(suite, deadlines_that_strike_all_the_time_never_show_a_wrong_value, HASTY,
		      TIMEOUT);
	add_simulated(suite, many_readers_and_one_writer, READERS, TIMEOUT);
	add_simulated(suite, every_thread_progresses_when_all_want_one_page, CONTENDED, TIMEOUT);
	add_simulated(suite, a_partition_that_heals_leaves_no_wrong_value, PARTITIONS, TIMEOUT);
	add_simulated(suite, more_sharers_than_records, BLOCKS, TIMEOUT);
	add_simulated(suite, pins_defer_and_release, PINS, TIMEOUT);
	add_simulated(suite, a_wire_that_fails_one_way_leaves_no_wrong_value, WAYS, TIMEOUT);
	add_simulated(suite, a_master_that_stopped_for_ten_seconds_goes_on, STOPPED, TIMEOUT);
	add_simulated(suite, every_damaged_datagram_is_refused_and_costs_nobody_an_access, DAMAGED,
		      TIMEOUT);
	add_simulated(suite, programs_that_come_and_go_see_no_wrong_value, VISITS, TIMEOUT);
	add_simulated(suite, masters_that_are_killed_and_taken_over_lose_nothing, KILLED, TIMEOUT);
	add_simulated(suite, pages_given_up_for_lack_of_memory_lose_nothing, KILLED, TIMEOUT);
	add_simulated(suite, installs_without_room_lose_nothing, 3, TIMEOUT);
	add_simulated(suite, units_that_are_put_together_again_lose_nothing, MERGED, TIMEOUT);
	add_simulated(suite, programs_that_come_while_there_is_no_room_see_no_wrong_value, ROOMLESS,
		      TIMEOUT);
	add_simulated(suite, pages_whose_home_moves_lose_nothing, MOVED, TIMEOUT);
	add_simulated(suite, nodes_that_come_back_without_their_files_lose_nothing, RENEWED,
		      TIMEOUT);
	add_simulated(suite, a_home_killed_after_its_last_answer_takes_the_next_epoch, 1, TIMEOUT);
	add_simulated(suite, nobody_waits_long_for_a_page_whose_home_moves, WELL, TIMEOUT);
	add_simulated(suite, second_homes_have_whatever_is_acknowledged, BACKED_UP, TIMEOUT);
	add_simulated(suite, a_backup_costs_four_datagrams_for_each_page_that_is_written_back, 1,
		      TIMEOUT);
	add_simulated(suite, a_second_program_that_is_let_in_unprotected_is_caught, 1, TIMEOUT);
	add_simulated(suite, a_seed_replays_exactly, 6, TIMEOUT);
	/* The last, since it goes on until there are steps enough in all: about a minute on two
	 * processors that are free. */
	add_simulated(suite, no_random_configuration_shows_a_wrong_value, 1, 1100);
	srunner_run_all(runner, CK_ENV);
	printf("proof: core steps simulated: %llu (%llu runs, invariants checked after each step, "
	       "%llu accesses in linearizable histories, %llu damaged datagrams refused, %llu masters "
	       "killed and taken over)\n",
	       (unsigned long long)atomic_load(&total->steps),
	       (unsigned long long)atomic_load(&total->seeds),
	       (unsigned long long)atomic_load(&total->history),
	       (unsigned long long)atomic_load(&total->refused),
	       (unsigned long long)atomic_load(&total->kills));
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

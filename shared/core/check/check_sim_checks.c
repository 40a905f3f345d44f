/*
 * The simulator's checks can fail: histories that are and are not linearizable,
 * and runs in which one thing was spoilt that a check looks at.
 */
#include <check.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "shared/core/sim/sim.h"

#define SECOND UINT64_C(1000000000)

/* Accesses of two words by {begun, done, word, read, wrote}; no read: NONE. */
#define NONE UINT64_MAX
static const struct {
	const char *name;
	bool linearizable;
	struct {
		uint64_t begun, done;
		uint32_t word;
		uint64_t read, wrote;
	} list[6];
} histories[] = {
	{"first values are zero", true, {{1, 2, 0, 0, 0}, {1, 3, 1, 0, 0}}},
	{"a read after a write", true, {{1, 2, 0, NONE, 1}, {3, 4, 0, 1, 0}}},
	{"an old value after a write", false, {{1, 2, 0, NONE, 1}, {3, 4, 0, 0, 0}}},
	{"an old value during a write", true, {{3, 4, 0, 0, 0}, {1, 5, 0, NONE, 1}}},
	{"a new value during a write", true, {{2, 3, 0, 1, 0}, {1, 4, 0, NONE, 1}}},
	{"an old value after a new one, during a write",
	 false,
	 {{2, 3, 0, 1, 0}, {4, 5, 0, 0, 0}, {1, 6, 0, NONE, 1}}},
	{"read before it is written", false, {{1, 2, 0, 1, 0}, {3, 4, 0, NONE, 1}}},
	{"never written", false, {{1, 2, 0, 3, 0}, {3, 4, 0, NONE, 1}}},
	{"written to the other word", false, {{1, 2, 1, NONE, 1}, {3, 4, 0, 1, 0}}},
	{"back to the value before",
	 false,
	 {{1, 2, 0, NONE, 1}, {3, 4, 0, NONE, 2}, {5, 6, 0, 1, 0}}},
	{"two writes at once, read in one order",
	 true,
	 {{1, 5, 0, NONE, 1}, {1, 6, 0, NONE, 2}, {7, 8, 0, 1, 0}, {7, 9, 0, 1, 0}}},
	{"two writes at once, read in both orders",
	 false,
	 {{1, 5, 0, NONE, 1}, {1, 6, 0, NONE, 2}, {7, 8, 0, 1, 0}, {9, 10, 0, 2, 0}}},
	{"a change of a change", true, {{1, 2, 0, 0, 1}, {3, 4, 0, 1, 2}, {5, 6, 0, 2, 0}}},
	{"one of two changes is lost", false, {{1, 3, 0, 0, 1}, {1, 4, 0, 0, 2}}},
};

START_TEST(a_history_is_judged)
{
	struct sim_report r;
	struct sim_config c;
	struct sim *sim;

	sim_default(&c, 1);
	sim = sim_create(&c);
	sim->value = 2;
	for (uint32_t i = 0; i < 6 && histories[_i].list[i].done; i++) {
		struct sim_thread t = {.since_ns = histories[_i].list[i].begun,
				       .word = histories[_i].list[i].word,
				       .write = histories[_i].list[i].wrote,
				       .modify = histories[_i].list[i].read != NONE,
				       .value = histories[_i].list[i].wrote};

		sim->report.now_ns = histories[_i].list[i].done;
		sim_history_add(sim, &t, histories[_i].list[i].read);
	}
	sim_check_history(sim);
	sim_report(sim, &r);
	ck_assert_msg(!r.failure == histories[_i].linearizable, "%s: %s", histories[_i].name,
		      r.failure ? r.failure : "taken for linearizable");
	sim_destroy(sim);
}
END_TEST

/* A page at some node in that state, or no page. */
static bool find(struct sim *s, enum wvm_held_state state, uint32_t *node, uint64_t *page)
{
	for (*node = 0; *node < s->config.nodes; ++*node)
		for (*page = 0; *page < s->config.pages; ++*page)
			if (s->nodes[*node].held[sim_core_page(*page)].state == state)
				return true;
	return false;
}

static struct wvm_home_page *entry(struct sim *s, uint64_t page)
{
	return &s->nodes[sim_home_of(s, page)].home[sim_core_page(page)];
}

enum sabotage {
	NOTHING,
	STORED_BYTE,
	STORED_VERSION,
	RECORD,
	RECORD_TWICE,
	GRANT,
	HOME_STATE,
	OWNER_RECORD,
	SECOND_OWNER,
	COPY_BYTE,
	COPY_ABSENT,
	COPY_WRITABLE,
	FREE_REQUEST,
	FREE_DEMAND,
	FREE_TXN,
	FREE_WAITING,
	FREE_BLOCK,
	WINDOW,
	TIMER,
	SABOTAGES,
};

static void sabotage(struct sim *s, enum sabotage what)
{
	uint32_t node, owner;
	uint64_t page, owned;
	struct wvm_held_page *h;
	struct wvm_home_page *e;
	struct wvm_core *core;

	ck_assert(find(s, WVM_HELD_MODIFIED, &owner, &owned));
	ck_assert(find(s, WVM_HELD_SHARED, &node, &page));
	h = &s->nodes[node].held[sim_core_page(page)];
	e = entry(s, page);
	core = s->nodes[node].core;
	switch (what) {
	case NOTHING: return;
	case STORED_BYTE:
		s->nodes[sim_home_of(s, page)].store[sim_core_page(page) << 12] ^= 1;
		return;
	case STORED_VERSION: e->version++; return;
	case RECORD: wvm_holders_clear(core, e); return;
	case RECORD_TWICE: wvm_holders_add(core, e, e->member[0], e->grant[0]); return;
	case GRANT: e->grant[wvm_holders_find(core, e, node)]--; return;
	case HOME_STATE: e->state = WVM_HOME_HOME; return;
	case OWNER_RECORD: entry(s, owned)->grant[0]++; return;
	case SECOND_OWNER: h->state = WVM_HELD_MODIFIED; return;
	case COPY_BYTE: sim_ram(&s->nodes[node], page)[sim_word_offset(2)] ^= 1; return;
	case COPY_ABSENT: s->nodes[node].present[page] = false; return;
	case COPY_WRITABLE: s->nodes[node].untrapped[page] |= 1; return;
	case FREE_REQUEST: core->free_request = core->requests[core->free_request - 1].next; return;
	case FREE_DEMAND: core->free_demand = core->demands[core->free_demand - 1].next; return;
	case FREE_TXN: core->free_txn = core->txns[core->free_txn - 1].next; return;
	case FREE_WAITING: core->free_waiting = core->waiting[core->free_waiting - 1].next; return;
	case FREE_BLOCK: core->free_block = core->blocks[core->free_block - 1].next; return;
	case WINDOW: core->peers[(node + 1) % s->config.nodes].in_flight++; return;
	case TIMER:
		core->requests[0].timer.kind = WVM_TIMER_REQUEST;
		wvm_core_timer_arm(&core->timers, &core->requests[0].timer, UINT64_MAX - 1);
		return;
	case SABOTAGES: return;
	}
}

START_TEST(every_check_of_all_pages_can_fail)
{
	struct sim_report r;
	struct sim_config c;
	struct sim *sim;

	sim_default(&c, 1);
	c.write_ppm = 100000;
	sim = sim_create(&c);
	sim_run(sim, 5000);
	sim_settle(sim, SECOND);
	sim_report(sim, &r);
	ck_assert_msg(!r.failure, "%s", r.failure);
	sabotage(sim, (enum sabotage)_i);
	sim_check_all(sim);
	sim_report(sim, &r);
	ck_assert_msg(!r.failure == (_i == NOTHING), "%s", r.failure ? r.failure : "not noticed");
	sim_destroy(sim);
}
END_TEST

/* The same, at the next input: any, of whatever node and page. */
START_TEST(every_check_of_all_pages_is_made_after_each_step)
{
	struct sim_report before, after;
	struct sim_config c;
	struct sim *sim;

	sim_default(&c, 1);
	c.write_ppm = 100000;
	sim = sim_create(&c);
	sim_run(sim, 5000);
	sim_settle(sim, SECOND);
	sim_report(sim, &before);
	ck_assert_msg(!before.failure, "%s", before.failure);
	sim->config.sweep = 1;
	sabotage(sim, (enum sabotage)_i);
	do {
		sim_run(sim, 1);
		sim_report(sim, &after);
	} while (!after.failure && after.steps == before.steps);
	ck_assert_msg(!after.failure == (_i == NOTHING), "%s",
		      after.failure ? after.failure : "not noticed");
	ck_assert(_i == NOTHING || after.steps <= before.steps + after.joined - before.joined + 1);
	sim_destroy(sim);
}
END_TEST

/*
 * The defaults have pools of thousands of slots, which take longer to look through than all the
 * rest; enough for all threads is less.
 */
static void swept(struct sim_config *c, uint64_t seed)
{
	sim_random(c, seed);
	c->sweep = 1;
	if (c->limits.requests > 64)
		c->limits = (struct wvm_core_limits){.requests = 64,
						     .txns = 64,
						     .waiting = 256,
						     .demands = 64,
						     .partials = 64,
						     .holder_blocks = 64 + 3 * c->pages,
						     .peer_shards = 2};
}

/* Masters that are killed, deaths, moves, files that are lost, merges and backups are in these. */
static const uint64_t sweep_seeds[] = {9, 11, 18, 22};
#define SWEPT       (sizeof(sweep_seeds) / sizeof(sweep_seeds[0]))
#define SWEPT_STEPS 20000
START_TEST(all_pages_pools_and_windows_hold_after_every_single_step)
{
	const char *given = getenv("WVM_SEED");
	uint64_t fresh = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	struct sim_report sum = {0};

	for (uint32_t i = 0; i < SWEPT + 2; i++) {
		char text[SIM_TEXT] = "";
		struct sim_config c;
		struct sim_report r;

		if (i == SWEPT) {
			ck_assert_uint_ge(sum.sweeps, SWEPT * SWEPT_STEPS * 9 / 10);
			ck_assert(sum.kills && sum.deaths && sum.units_moved && sum.renewed &&
				  sum.merges && sum.backup_checked);
		}
		swept(&c, i < SWEPT ? sweep_seeds[i] : 2 * fresh + i);
		sim_exercise(&c, SWEPT_STEPS, &r, text);
		ck_assert_msg(!r.failure, "WVM_SEED=%llu: %s", (unsigned long long)fresh, text);
		/* Between a core's inputs to itself not all is carried out. */
		ck_assert_uint_ge(r.sweeps + r.joined, r.steps);
		sim_report_add(&sum, &r);
	}
}
END_TEST

/* A thread whose request forgets it, and one that nothing wakes. */
START_TEST(a_forgotten_thread_is_noticed)
{
	struct sim_report r;
	struct sim_config c;
	struct sim *sim;

	sim_default(&c, 1);
	sim = sim_create(&c);
	do
		sim_run(sim, 1);
	while (sim->threads[0].state != SIM_TH_WAIT);
	if (_i)
		sim->threads[0].fault_ns -= c.times.deadline_ns + SIM_MARGIN_NS;
	else
		wvm_core_client_gone(sim->nodes[0].core, 0);
	sim->report.now_ns += 1;
	sim_check_all(sim);
	sim_report(sim, &r);
	ck_assert_ptr_nonnull(r.failure);
	ck_assert_msg(strstr(r.failure, _i ? "waits for page" : "is forgotten"), "%s", r.failure);
	sim_destroy(sim);
}
END_TEST

/* Beside this program's folder: build/check/shared/core/ and build/bin/. */
static char program[PATH_MAX];

static int run(const char *arguments, char *out, size_t room)
{
	char command[PATH_MAX + 200];
	FILE *f;
	size_t n;

	snprintf(command, sizeof(command), "%s %s", program, arguments);
	f = popen(command, "r");
	ck_assert_ptr_nonnull(f);
	n = fread(out, 1, room - 1, f);
	out[n] = 0;
	return pclose(f);
}

/* Whichever of the processes it is; and what it prints brings the same failure back. */
START_TEST(the_program_fails_when_a_process_of_it_does)
{
	char first[4096], again[4096], arguments[100], *failure, *seed;
	int status = run("--broken --jobs=3 --seconds=60 --steps=20000", first, sizeof(first));

	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %#x: %s", status,
		      first);
	failure = strstr(first, "FAILED");
	seed = strstr(first, "SEED=");
	ck_assert_msg(failure && seed, "%s", first);
	*strchr(failure, '\n') = 0;
	snprintf(arguments, sizeof(arguments), "--broken --steps=20000 --seed=%llu",
		 strtoull(seed + 5, NULL, 10));
	status = run(arguments, again, sizeof(again));
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	ck_assert_msg(strstr(again, failure), "%s and then %s", failure, again);
	status = run("--jobs=3 --seconds=1 --steps=5000", again, sizeof(again));
	ck_assert_msg(!status, "%s", again);
}
END_TEST

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	Suite *suite = suite_create("sim_checks");
	TCase *tc = tcase_create("sim_checks"), *each = tcase_create("each_step");
	SRunner *runner = srunner_create(suite);
	int failed;

	(void)argc;
	snprintf(program, sizeof(program), "%.*s/../../../bin/wvm_sim",
		 slash ? (int)(slash - argv[0]) : 1, slash ? argv[0] : ".");
	tcase_set_timeout(tc, 240);
	tcase_add_loop_test(tc, a_history_is_judged, 0, sizeof(histories) / sizeof(histories[0]));
	tcase_add_loop_test(tc, every_check_of_all_pages_can_fail, 0, SABOTAGES);
	tcase_set_timeout(each, 240);
	tcase_add_loop_test(each, every_check_of_all_pages_is_made_after_each_step, 0, SABOTAGES);
	tcase_add_test(each, all_pages_pools_and_windows_hold_after_every_single_step);
	tcase_add_loop_test(tc, a_forgotten_thread_is_noticed, 0, 2);
	tcase_add_loop_test(tc, the_program_fails_when_a_process_of_it_does, 0, 5);
	suite_add_tcase(suite, tc);
	suite_add_tcase(suite, each);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

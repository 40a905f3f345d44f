/*
 * The simulator's checks can fail: histories that are and are not linearizable,
 * and runs in which one thing was spoilt that a check looks at.
 */
#include <limits.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/core/check/simulated.h"

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

/* One that has run, and come to rest. */
static struct sim *at_rest(struct sim_report *r)
{
	struct sim_config c;
	struct sim *sim;

	sim_default(&c, 1);
	c.write_ppm = 100000;
	sim = sim_create(&c);
	sim_run(sim, 5000);
	sim_settle(sim, SECOND);
	sim_report(sim, r);
	ck_assert_msg(!r->failure, "%s", r->failure);
	return sim;
}

START_TEST(every_check_of_all_pages_can_fail)
{
	struct sim_report r;
	struct sim *sim = at_rest(&r);

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
	struct sim *sim = at_rest(&before);

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
	struct sim_report sum = {0};

	for (uint32_t i = 0; i < SWEPT + FRESH; i++) {
		char text[SIM_TEXT] = "";
		struct sim_config c;
		struct sim_report r;

		if (i == SWEPT) {
			ck_assert_uint_ge(sum.sweeps, SWEPT * SWEPT_STEPS * 9 / 10);
			ck_assert(sum.kills && sum.deaths && sum.units_moved && sum.renewed &&
				  sum.merges && sum.backup_checked);
		}
		swept(&c, i < SWEPT ? sweep_seeds[i] : seed_of((int)i, SWEPT + FRESH));
		sim_exercise(&c, SWEPT_STEPS, &r, text);
		if (r.failure)
			fail_replayably(text);
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

/* Runs one that is broken until it fails; what the test that does so says is in text. */
static void fail_once(char text[REPLAY_TEXT])
{
	struct sim_report r;
	struct sim_config c;
	struct sim *sim;

	sim_default(&c, 3);
	c.unprotected = true;
	sim = sim_create(&c);
	sim_run(sim, 100000);
	sim_report(sim, &r);
	ck_assert_ptr_nonnull(r.failure);
	say_replay(text, r.failure);
	sim_destroy(sim);
}

/* What fail_once() draws, with what the failure says: the chart, and the step of its last line. */
static char *draw(const char *failure, uint64_t *last)
{
	char trace[100], text[REPLAY_TEXT], *chart, *line;
	FILE *f = tmpfile();
	int out = dup(1);
	long size;

	ck_assert_int_eq(sscanf(failure, "%*[^\n]\nreplay: WVM_SIM_TRACE=%99s ", trace), 1);
	ck_assert(f && out >= 0 && !fflush(stdout) && dup2(fileno(f), 1) == 1);
	setenv("WVM_SIM_TRACE", trace, 1);
	fail_once(text);
	unsetenv("WVM_SIM_TRACE");
	ck_assert(!fflush(stdout) && dup2(out, 1) == 1 && !close(out));
	ck_assert_str_eq(text, failure);
	size = ftell(f);
	ck_assert_int_gt(size, 10000);
	rewind(f);
	chart = calloc(1, (size_t)size + 1);
	ck_assert_uint_eq(fread(chart, 1, (size_t)size, f), (size_t)size);
	fclose(f);
	ck_assert_int_eq(chart[size - 1], '\n');
	chart[size - 1] = 0;
	line = strrchr(chart, '\n');
	ck_assert_int_eq(sscanf(line, "%*u %lu", last), 1);
	return chart;
}

START_TEST(a_directed_run_is_drawn_again)
{
	char failure[REPLAY_TEXT], own[200], *chart[2];
	uint64_t step, last;

	fail_once(failure);
	ck_assert_int_eq(sscanf(failure, "seed 3 step %lu ", &step), 1);
	ck_assert_uint_gt(step, SIM_TRACE_STEPS / 10);
	snprintf(own, sizeof(own), " WVM_SEED=%llu CK_RUN_CASE=a_directed_run_is_drawn_again ",
		 (unsigned long long)fresh_seed);
	ck_assert_msg(strstr(failure, own), "%s", failure);
	for (uint32_t i = 0; i < 2; i++) {
		chart[i] = draw(failure, &last);
		ck_assert_uint_eq(last, step);
	}
	ck_assert_str_eq(chart[0], chart[1]);
	free(chart[0]);
	free(chart[1]);
}
END_TEST

START_TEST(a_trace_is_that_of_its_seed_and_steps)
{
	struct sim_config c;

	setenv("WVM_SIM_TRACE", "4", 1);
	sim_default(&c, 3);
	sim_trace_seed(&c);
	ck_assert_ptr_null(c.trace);
	c.seed = 4;
	sim_trace_seed(&c);
	ck_assert(c.trace == stdout && !c.trace_from && !c.trace_to);
	setenv("WVM_SIM_TRACE", "3:7-9", 1);
	sim_default(&c, 3);
	sim_trace_seed(&c);
	ck_assert(c.trace == stdout && c.trace_from == 7 && c.trace_to == 9);
}
END_TEST

static const char *const no_trace[] = {
	"", "x", "-3", "3x", "3:", "3:5", "3:5-", "3:5-4", "3:-5", "3:1-2x"};
START_TEST(a_trace_that_is_none_is_refused)
{
	setenv("WVM_SIM_TRACE", no_trace[_i], 1);
	ck_assert_ptr_nonnull(freopen("/dev/null", "w", stderr));
	sim_trace_check();
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

#define TIMEOUT 240

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	Suite *suite = suite_create("sim_checks");
	TCase *refused = tcase_create("refused");
	SRunner *runner = srunner_create(suite);
	int failed;

	(void)argc;
	simulated_begin(argv[0]);
	snprintf(program, sizeof(program), "%.*s/../../../bin/wvm_sim",
		 slash ? (int)(slash - argv[0]) : 1, slash ? argv[0] : ".");
	add_simulated(suite, a_history_is_judged, sizeof(histories) / sizeof(histories[0]),
		      TIMEOUT);
	add_simulated(suite, every_check_of_all_pages_can_fail, SABOTAGES, TIMEOUT);
	add_simulated(suite, every_check_of_all_pages_is_made_after_each_step, SABOTAGES, TIMEOUT);
	add_simulated(suite, all_pages_pools_and_windows_hold_after_every_single_step, 1, TIMEOUT);
	add_simulated(suite, a_forgotten_thread_is_noticed, 2, TIMEOUT);
	add_simulated(suite, a_directed_run_is_drawn_again, 1, TIMEOUT);
	add_simulated(suite, a_trace_is_that_of_its_seed_and_steps, 1, TIMEOUT);
	tcase_add_loop_exit_test(refused, a_trace_that_is_none_is_refused, 2, 0,
				 sizeof(no_trace) / sizeof(no_trace[0]));
	suite_add_tcase(suite, refused);
	add_simulated(suite, the_program_fails_when_a_process_of_it_does, 5, TIMEOUT);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

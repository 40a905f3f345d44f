/*
 * The litmus tests: that their model of x86-TSO is the known one, that the
 * counting would see each forbidden outcome, and that WaveVM shows none.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "roles/check/cluster.h"
#include "roles/check/litmus/campaign.h"

#define RUNS   3000u /* of each line, against 100,000 of `make litmus` */
#define HANG_S 60u
#define SEEDS  10u /* of a test that is to go wrong */

static bool allows_asked(const struct litmus_test *t, const struct litmus_set *s)
{
	for (unsigned o = 0; o < LITMUS_OUTCOMES; o++)
		if (litmus_has(s, o) && (o & t->asked_mask) == t->asked)
			return true;
	return false;
}

static bool is_subset(const struct litmus_set *a, const struct litmus_set *b)
{
	for (unsigned i = 0; i < LITMUS_OUTCOMES / 64; i++)
		if (a->bits[i] & ~b->bits[i])
			return false;
	return true;
}

/* ---- the model --------------------------------------------------------------------------- */

/* Herding cats, table of x86 tests; sequential and serial outcomes counted by hand. */
static const struct known {
	const char *name, *asked;
	bool allowed;
	unsigned tso, sequential, serial;
} known[] = {
	{"SB", "r0=0 r1=0", true, 4, 3, 2},
	{"SB+mfences", "r0=0 r1=0", false, 3, 3, 2},
	{"MP", "r0=1 r1=0", false, 3, 3, 2},
	{"MP+mfences", "r0=1 r1=0", false, 3, 3, 2},
	{"LB", "r0=1 r1=1", false, 3, 3, 2},
	{"R", "r0=0 y=2", true, 4, 3, 2},
	{"S", "r0=1 x=2", false, 3, 3, 2},
	{"2+2W", "x=1 y=1", false, 3, 3, 2},
	{"CoRR", "r0=1 r1=0", false, 3, 3, 2},
	{"CoWW", "x=1", false, 1, 1, 1},
	{"IRIW", "r0=1 r1=0 r2=1 r3=0", false, 15, 15, 14},
	{"WRC", "r0=1 r1=1 r2=0", false, 7, 7, 6},
	{"ISA2", "r0=1 r1=1 r2=0", false, 7, 7, 6},
};
#define KNOWN (sizeof(known) / sizeof(known[0]))

START_TEST(the_model_allows_what_the_literature_says_of_each_test)
{
	ck_assert_uint_eq(litmus_count, KNOWN);
	for (unsigned i = 0; i < KNOWN; i++) {
		const struct litmus_test *t = litmus_find(known[i].name);
		struct litmus_set tso, sequential, serial;
		char text[LITMUS_OUTCOME_TEXT];

		ck_assert_ptr_nonnull(t);
		litmus_model(t, LITMUS_TSO, &tso);
		litmus_model(t, LITMUS_SEQUENTIAL, &sequential);
		litmus_model(t, LITMUS_SERIAL, &serial);
		ck_assert_str_eq(litmus_asked(t, text), known[i].asked);
		ck_assert_msg(allows_asked(t, &tso) == known[i].allowed, "%s", t->name);
		ck_assert_msg(!allows_asked(t, &sequential), "%s", t->name);
		ck_assert(is_subset(&serial, &sequential) && is_subset(&sequential, &tso));
		ck_assert_msg(litmus_set_size(&tso) == known[i].tso &&
				      litmus_set_size(&sequential) == known[i].sequential &&
				      litmus_set_size(&serial) == known[i].serial,
			      "%s: %u, %u, %u outcomes", t->name, litmus_set_size(&tso),
			      litmus_set_size(&sequential), litmus_set_size(&serial));
	}
}
END_TEST

START_TEST(a_value_that_nobody_wrote_is_allowed_nowhere)
{
	for (unsigned i = 0; i < litmus_count; i++) {
		const struct litmus_test *t = &litmus_tests[i];
		struct litmus_set tso;

		litmus_model(t, LITMUS_TSO, &tso);
		for (unsigned o = 0; o < LITMUS_OUTCOMES; o++)
			for (unsigned k = 0; k < LITMUS_REGS + LITMUS_VARS; k++)
				if ((o >> (2 * k) & 3) == LITMUS_FOREIGN)
					ck_assert(!litmus_has(&tso, o));
	}
}
END_TEST

/* ---- the same counting, on memory that is known ------------------------------------------ */

/* The threads dealt over two nodes, in all ways. */
static void run_local(const struct litmus_test *t, enum litmus_memory memory, unsigned bystanders,
		      uint64_t runs, uint64_t seed, struct litmus_result *r)
{
	struct litmus_cell c = {.test = t,
				.placement = LITMUS_HOMES,
				.memory = memory,
				.pool.homes = 3,
				.workers = t->threads + bystanders,
				.shuffle = true,
				.delay_us = 20,
				.runs = runs,
				.seed = seed,
				.hang_s = HANG_S};
	char err[512] = "";
	int rc;

	for (unsigned i = 0; i < 3 * LITMUS_POOL; i++)
		c.pool.page[i / LITMUS_POOL][i % LITMUS_POOL] = i;
	for (unsigned i = 0; i < c.workers; i++)
		c.node[i] = (uint8_t)(i % 2);
	rc = litmus_run(&c, r, err, sizeof(err));
	ck_assert_msg(rc == 0, "%s", err);
	ck_assert_uint_ge(r->runs, runs);
}

/* Runs a test until its asked outcome was counted as forbidden; what else was counted is added up.
 */
static uint64_t provoke(const struct litmus_test *t, enum litmus_memory memory, unsigned bystanders)
{
	static struct litmus_result r;
	char text[LITMUS_OUTCOME_TEXT];

	for (uint64_t seed = 1; seed <= 40; seed++) {
		run_local(t, memory, bystanders, 2500, seed, &r);
		if (!r.asked)
			continue;
		printf("%-11s %s: %s %llu times in %llu runs\n", t->name,
		       memory == LITMUS_LAZY ? "lazy memory" : "disordered threads",
		       litmus_asked(t, text), (unsigned long long)r.asked,
		       (unsigned long long)(seed * r.runs));
		ck_assert_uint_ge(r.forbidden, r.asked);
		ck_assert_uint_ge(r.notes, 1);
		return r.asked;
	}
	return 0;
}

START_TEST(threads_that_keep_no_order_are_caught_by_every_test_that_forbids_something)
{
	for (unsigned i = 0; i < KNOWN; i++)
		if (!known[i].allowed)
			ck_assert_msg(provoke(litmus_find(known[i].name), LITMUS_DISORDERED, 0),
				      "%s never showed %s", known[i].name, known[i].asked);
}
END_TEST

/* Not LB: nobody reads what is not written yet. CoRR and CoWW: no copy goes back. */
START_TEST(memory_that_reaches_other_nodes_late_and_in_any_order_is_caught)
{
	static const char *const caught[] = {"SB+mfences", "MP",   "MP+mfences", "S",
					     "2+2W",       "IRIW", "WRC",        "ISA2"};

	for (unsigned i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
		ck_assert_msg(provoke(litmus_find(caught[i]), LITMUS_LAZY, 1), "%s", caught[i]);
}
END_TEST

START_TEST(this_machines_own_memory_shows_nothing_forbidden)
{
	static struct litmus_result r;

	for (unsigned i = 0; i < litmus_count; i++) {
		run_local(&litmus_tests[i], LITMUS_PLAIN, 0, 20000, 1, &r);
		ck_assert_msg(r.forbidden == 0, "%s: %s", litmus_tests[i].name, r.note[0]);
	}
}
END_TEST

/* ---- WaveVM ------------------------------------------------------------------------------ */

static unsigned cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

static const struct litmus_tally *tally(const struct litmus_totals *totals, const char *name)
{
	return &totals->test[litmus_find(name) - litmus_tests];
}

static uint64_t relaxed_of(const struct litmus_tally *t)
{
	return t->relaxed;
}

static uint64_t raced_of(const struct litmus_tally *t)
{
	return t->raced;
}

/* What is rare may need more runs than the table had; never to see it means that nothing was
 * tested. */
static void look_for(const char *name, uint64_t (*figure)(const struct litmus_tally *t),
		     const char *what, const struct litmus_totals *so_far)
{
	static struct litmus_totals more;
	bool seen = figure(tally(so_far, name)) > 0;

	for (unsigned i = 1; i <= 20 && !seen; i++) {
		struct litmus_campaign o = {.runs = 5000,
					    .seed = 100000 * i,
					    .test = name,
					    .clean = true,
					    .hang_s = HANG_S};

		litmus_campaign(&o, &more);
		ck_assert_uint_eq(more.forbidden, 0);
		seen = figure(tally(&more, name)) > 0;
	}
	ck_assert_msg(seen, "%s: %s never seen", name, what);
}

START_TEST(no_outcome_is_seen_that_x86_tso_forbids_on_clean_and_bad_networks)
{
	static struct litmus_totals totals;
	struct litmus_campaign o = {.runs = RUNS,
				    .seed = cluster_now_ms(),
				    .clean = true,
				    .impaired = true,
				    .hang_s = HANG_S};

	printf("litmus: seed %llu\n", (unsigned long long)o.seed);
	litmus_campaign(&o, &totals);
	litmus_print_relaxed(&totals);
	litmus_print_proof(&totals);
	ck_assert_uint_eq(totals.forbidden, 0);
	/* 13 tests: on two nodes (nine of them in two layouts) and on three, three placements,
	 * twice. */
	ck_assert_uint_eq(totals.lines, (13 + 9 + 13) * 3 * 2);
	ck_assert_uint_ge(totals.runs, totals.lines * RUNS);
	/* Pages moved, and threads met while they did, or nothing was tested. */
	ck_assert_uint_ge(totals.pages, totals.lines * 8);
	for (unsigned i = 0; i < litmus_count; i++)
		if (litmus_tests[i].threads == 2)
			look_for(litmus_tests[i].name, raced_of, "races", &totals);
	if (cpus() > 1) {
		look_for("SB", relaxed_of, "store buffers", &totals);
		look_for("R", relaxed_of, "store buffers", &totals);
	} else {
		printf("SKIPPED: store buffers are not seen on one processor\n");
	}
}
END_TEST

/* The masters of this test are broken on purpose (preload/forget.c). */
START_TEST(masters_that_forget_a_protection_now_and_then_are_caught)
{
	static const char *const tests[] = {"MP", "S", "2+2W", "CoRR", "CoWW", "IRIW"};
	static struct litmus_totals totals;
	static struct cluster_result r;
	const char *cc = getenv("CC");
	char library[160];

	snprintf(library, sizeof(library), "%s/forget.so", cluster_dir());
	cluster_run(&r,
		    (const char *const[]){"/usr/bin/env", cc && *cc ? cc : "cc", "-shared", "-fPIC",
					  "-D_GNU_SOURCE", "-O2", "-o", library,
					  "roles/check/preload/forget.c", NULL},
		    NULL, NULL);
	ck_assert_msg(r.status == 0, "%s", r.err);
	for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		/* Threads have to meet just then, and a busy machine keeps them apart. */
		for (unsigned seed = 1; seed <= SEEDS && !totals.forbidden; seed++) {
			struct litmus_campaign o = {.runs = 1000,
						    .seed = seed,
						    .test = tests[i],
						    .clean = true,
						    .hang_s = HANG_S,
						    .preload = library};

			litmus_campaign(&o, &totals);
		}
		ck_assert_msg(totals.forbidden > 0, "%s", tests[i]);
		totals.forbidden = 0;
	}
}
END_TEST

START_TEST(a_batch_that_hangs_is_an_error_that_says_where)
{
	static struct litmus_result r;
	static struct cluster c;
	struct litmus_cell cell = {.test = litmus_find("MP"),
				   .memory = LITMUS_WAVEVM,
				   .vm_id = CLUSTER_VM,
				   .vm_bytes = 64 * 1024 * 1024,
				   .pool.homes = 1,
				   .workers = 2,
				   .node = {0, 1},
				   .runs = 1000,
				   .hang_s = 2};
	char err[512] = "";

	cluster_start(&c, &(struct cluster_opts){.nodes = 2, .vm = "1:64M"});
	for (unsigned i = 0; i < LITMUS_POOL; i++)
		cell.pool.page[0][i] = i;
	for (unsigned i = 0; i < c.nodes; i++)
		cell.ring[i] = c.node[i].ring;
	ck_assert_int_eq(kill(c.node[1].pid, SIGSTOP), 0);
	ck_assert_int_eq(litmus_run(&cell, &r, err, sizeof(err)), -ETIMEDOUT);
	ck_assert_msg(strstr(err, "MP, one page: hangs") && strstr(err, "node 1 P1: attaching"),
		      "%s", err);
	ck_assert_int_eq(kill(c.node[1].pid, SIGCONT), 0);
	/* Its programs are gone: the same can be run now. */
	cell.hang_s = HANG_S;
	ck_assert_msg(litmus_run(&cell, &r, err, sizeof(err)) == 0, "%s", err);
	ck_assert_uint_eq(r.forbidden, 0);
	cluster_stop(&c);
}
END_TEST

static Suite *litmus_suite(void)
{
	Suite *s = suite_create("litmus");
	TCase *model = cluster_tcase(s, "model", 10);
	TCase *counting = cluster_tcase(s, "counting", 240);
	TCase *wavevm = cluster_tcase(s, "on WaveVM", 550);

	tcase_add_test(model, the_model_allows_what_the_literature_says_of_each_test);
	tcase_add_test(model, a_value_that_nobody_wrote_is_allowed_nowhere);
	tcase_add_test(counting,
		       threads_that_keep_no_order_are_caught_by_every_test_that_forbids_something);
	tcase_add_test(counting, memory_that_reaches_other_nodes_late_and_in_any_order_is_caught);
	tcase_add_test(counting, this_machines_own_memory_shows_nothing_forbidden);
	tcase_add_test(wavevm, masters_that_forget_a_protection_now_and_then_are_caught);
	tcase_add_test(wavevm, a_batch_that_hangs_is_an_error_that_says_where);
	tcase_add_test(wavevm, no_outcome_is_seen_that_x86_tso_forbids_on_clean_and_bad_networks);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {litmus_suite};

	return cluster_main(argv, suites, 1);
}

#include "roles/check/litmus/campaign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/check/cluster.h"
#include "roles/check/litmus/plan.h"
#include "shared/wavevm.h"

#define VM_MIB            64u /* 32 units, so that every node is home to some */
#define VM_BYTES          ((uint64_t)VM_MIB << 20)
#define UNIT              (UINT64_C(2) << 20)
/* So that pages change hands several times in a batch, and a line ends in time: */
#define DELAY_US          20u
#define IMPAIRED_DELAY_US 8u
#define UNITS             (VM_BYTES / UNIT)

#define STALL_MS 1000u
#define REPEATS  3u

/* Which nodes the threads are on. */
enum layout {
	APART,  /* dealt over all nodes, in turn */
	PAIRED, /* the two threads on one node, a bystander on the other */
	LAYOUTS
};

/* A cluster on one of the networks, and where the run stands. */
struct session {
	const struct litmus_campaign *o;
	struct litmus_totals *totals;
	struct cluster cluster;
	struct litmus_pool pool;
	bool impaired;
	uint64_t grants, faults, pages; /* so far */
};

/* ---- where pages live -------------------------------------------------------------------- */

/* The first two units that a node is home to. */
static unsigned find_units(const int *home, unsigned node, uint64_t unit[2])
{
	unsigned n = 0;

	for (unsigned i = 0; i < UNITS && n < 2; i++)
		if (home[i] == (int)node)
			unit[n++] = i;
	return n;
}

/* Pages scattered over two units of each home, or one where it has no other. */
static void make_pool(struct session *s)
{
	uint64_t unit[2], random = s->o->seed;
	int home[UNITS];
	struct wvm *w;

	ck_assert_msg(!wvm_attach(&w, s->cluster.node[0].ring), "%s", wvm_attach_error());
	for (unsigned i = 0; i < UNITS; i++)
		home[i] = wvm_where(w, CLUSTER_VM, i * UNIT);
	wvm_detach(w);
	s->pool.homes = s->cluster.nodes;
	for (unsigned n = 0; n < s->cluster.nodes; n++) {
		unsigned units = find_units(home, n, unit);

		ck_assert_msg(units > 0, "node %u is home to nothing in %u MiB", n, VM_MIB);
		for (unsigned i = 0; i < LITMUS_POOL; i++) {
			uint64_t page = i * 32 + litmus_random(&random) % 32;

			s->pool.page[n][i] =
				(uint32_t)(unit[i % units] * (UNIT / WVM_PAGE_SIZE) + page);
		}
	}
}

/* ---- figures ----------------------------------------------------------------------------- */

static uint64_t figure(const json_t *o, const char *section, const char *name)
{
	const json_t *value = json_object_get(json_object_get(o, section), name);

	ck_assert_msg(json_is_integer(value), "no figure '%s'", name);
	return (uint64_t)json_integer_value(value);
}

static void read_figures(struct session *s)
{
	s->grants = s->faults = s->pages = 0;
	for (unsigned i = 0; i < s->cluster.nodes; i++) {
		json_t *o = cluster_json(&s->cluster, i, "stats");

		s->grants += figure(o, "core", "grants_shared") +
			     figure(o, "core", "grants_modified");
		s->faults += figure(o, "core", "faults_read") + figure(o, "core", "faults_write");
		s->pages += figure(o, "node", "pages_sent");
		json_decref(o);
	}
}

static void add(struct session *s, const struct litmus_cell *c, const struct litmus_result *r)
{
	struct litmus_totals *all = s->totals;
	struct litmus_tally *t = &all->test[c->test - litmus_tests];

	all->lines++;
	all->runs += r->runs;
	all->forbidden += r->forbidden;
	all->relaxed += r->relaxed;
	all->raced += r->raced;
	t->runs += r->runs;
	t->forbidden += r->forbidden;
	t->relaxed += r->relaxed;
	t->raced += r->raced;
	t->asked += r->asked;
	t->allowed = r->allowed;
	t->sequential = r->sequential;
	for (unsigned o = 0; o < LITMUS_OUTCOMES; o++)
		if (r->count[o])
			t->seen.bits[o / 64] |= UINT64_C(1) << (o % 64);
}

/* ---- the table --------------------------------------------------------------------------- */

static void print_head(const struct session *s)
{
	printf("\n%u nodes on %s%s%s\n", s->cluster.nodes,
	       s->impaired ? "an impaired wire: " : "a clean network",
	       s->impaired ? s->cluster.opts.chaos : "",
	       s->o->preload ? "; their masters are broken on purpose" : "");
	printf("%-11s %-9s %-8s %-4s %8s %8s %8s %12s %10s %9s %9s %9s %6s\n", "test", "variables",
	       "threads", "by-", "runs", "outcomes", "races", "relaxed", "forbidden", "faults",
	       "grants", "pages on", "s");
	printf("%-11s %-9s %-8s %-4s %8s %8s %8s %12s %10s %9s %9s %9s\n", "", "on", "on nodes",
	       "st.", "", "seen/of", "seen", "seen", "seen", "", "", "the wire");
}

/* "0,1" and the bystanders' "2". */
static void print_nodes(const struct litmus_cell *c)
{
	char threads[32] = "", bystanders[32] = "";

	for (unsigned i = 0; i < c->workers; i++) {
		char *to = i < c->test->threads ? threads : bystanders;
		size_t len = strlen(to);

		snprintf(to + len, sizeof(threads) - len, "%s%u", len ? "," : "", c->node[i]);
	}
	printf(" %-8s %-4s", threads, bystanders);
}

static void print_line(const struct session *s, const struct litmus_cell *c,
		       const struct litmus_result *r, const uint64_t before[3], uint64_t ms)
{
	unsigned allowed = litmus_set_size(&r->allowed);
	char relaxed[32] = "none allowed";

	if (allowed > litmus_set_size(&r->sequential))
		snprintf(relaxed, sizeof(relaxed), r->relaxed ? "%llu" : "not seen",
			 (unsigned long long)r->relaxed);
	printf("%-11s %-9s", c->test->name, litmus_placement_name(c->placement));
	print_nodes(c);
	printf(" %8llu %5u/%-2u %8llu %12s %10llu %9llu %9llu %9llu %6.1f\n",
	       (unsigned long long)r->runs, r->seen, allowed, (unsigned long long)r->raced, relaxed,
	       (unsigned long long)r->forbidden, (unsigned long long)(s->faults - before[0]),
	       (unsigned long long)(s->grants - before[1]),
	       (unsigned long long)(s->pages - before[2]), (double)ms / 1000);
	for (unsigned i = 0; i < r->notes; i++)
		printf("  FORBIDDEN %s\n", r->note[i]);
	fflush(stdout);
}

/* ---- lines ------------------------------------------------------------------------------- */

static void lay_out(struct litmus_cell *c, enum layout layout, unsigned nodes)
{
	c->shuffle = layout == APART;
	for (unsigned i = 0; i < c->test->threads; i++)
		c->node[c->workers++] = (uint8_t)(layout == APART ? i % nodes : 0);
	for (unsigned i = layout == APART ? c->workers : 1; i < nodes; i++)
		c->node[c->workers++] = (uint8_t)i;
}

/* What the masters know, when a line did not end. */
static void print_evidence(const struct session *s)
{
	static struct cluster_result r;

	for (unsigned i = 0; i < s->cluster.nodes; i++) {
		cluster_ctl(&s->cluster, i, &r, (const char *const[]){"stats", NULL});
		printf("node %u:\n%s%s", i, r.out, r.err);
	}
	fflush(stdout);
}

static void set_up(const struct session *s, const struct litmus_test *test, enum litmus_placement p,
		   enum layout layout, struct litmus_cell *c)
{
	*c = (struct litmus_cell){.test = test,
				  .placement = p,
				  .memory = LITMUS_WAVEVM,
				  .vm_id = CLUSTER_VM,
				  .vm_bytes = VM_BYTES,
				  .pool = s->pool,
				  .delay_us = s->impaired ? IMPAIRED_DELAY_US : DELAY_US,
				  .runs = s->o->runs,
				  .seed = s->o->seed + s->totals->lines,
				  .hang_s = s->o->hang_s};
	for (unsigned i = 0; i < s->cluster.nodes; i++)
		c->ring[i] = s->cluster.node[i].ring;
	lay_out(c, layout, s->cluster.nodes);
}

/*
 * A machine that stands still for seconds makes requests miss their deadline,
 * which is an error as promised, and no news about the memory model: such a
 * line is made again. What it counted until then is not excused.
 */
static void run_cell(const struct session *s, const struct litmus_cell *c, struct litmus_result *r)
{
	char err[512] = "";
	int rc = litmus_run(c, r, err, sizeof(err));

	for (unsigned i = 0; rc && i < REPEATS && r->late_ms >= STALL_MS && !r->forbidden; i++) {
		printf("again, since the machine stood still for %u ms: %s\n", r->late_ms, err);
		rc = litmus_run(c, r, err, sizeof(err));
	}
	for (unsigned i = 0; rc && i < r->notes; i++)
		printf("  FORBIDDEN %s\n", r->note[i]);
	if (rc)
		print_evidence(s);
	ck_assert_msg(rc == 0, "litmus: %u nodes, %s: %s (longest standstill: %u ms)",
		      s->cluster.nodes, s->impaired ? s->cluster.opts.chaos : "clean network", err,
		      r->late_ms);
}

static void run_line(struct session *s, const struct litmus_test *test, enum litmus_placement p,
		     enum layout layout)
{
	static struct litmus_result r;
	struct litmus_cell c;
	uint64_t before[3] = {s->faults, s->grants, s->pages}, start = cluster_now_ms(), batches;

	set_up(s, test, p, layout, &c);
	run_cell(s, &c, &r);
	batches = (s->o->runs + plan_instances(&c) - 1) / plan_instances(&c);
	ck_assert_uint_eq(r.runs, batches * plan_instances(&c));
	read_figures(s);
	print_line(s, &c, &r, before, cluster_now_ms() - start);
	s->totals->grants += s->grants - before[1];
	s->totals->pages += s->pages - before[2];
	add(s, &c, &r);
}

static void run_lines(struct session *s)
{
	for (unsigned i = 0; i < litmus_count; i++) {
		const struct litmus_test *t = &litmus_tests[i];
		bool paired = t->threads == 2 && s->cluster.nodes == 2;

		if (s->o->test && strcmp(s->o->test, t->name))
			continue;
		for (unsigned p = 0; p < LITMUS_PLACEMENTS; p++)
			for (unsigned layout = 0; layout < (paired ? LAYOUTS : 1u); layout++)
				run_line(s, t, p, layout);
	}
}

static void run_cluster(const struct litmus_campaign *o, struct litmus_totals *totals,
			unsigned nodes, bool impaired)
{
	static struct session s;
	struct cluster_opts opts = {
		.nodes = nodes, .vm = "1:64M", .net = CLUSTER_VETH, .preload = o->preload};

	if (impaired) {
		opts.net = CLUSTER_WIRE;
		opts.chaos = o->chaos ? o->chaos : LITMUS_CHAOS;
	}
	s = (struct session){.o = o, .totals = totals, .impaired = impaired};
	cluster_start(&s.cluster, &opts);
	make_pool(&s);
	print_head(&s);
	read_figures(&s);
	run_lines(&s);
	cluster_stop(&s.cluster);
}

void litmus_campaign(const struct litmus_campaign *o, struct litmus_totals *totals)
{
	*totals = (struct litmus_totals){0};
	for (unsigned impaired = 0; impaired < 2; impaired++)
		for (unsigned nodes = 2; nodes <= 3; nodes++)
			if (impaired ? o->impaired : o->clean)
				run_cluster(o, totals, nodes, impaired);
}

/* ---- the sum ----------------------------------------------------------------------------- */

void litmus_print_relaxed(const struct litmus_totals *totals)
{
	char text[LITMUS_OUTCOME_TEXT];

	printf("\noutcomes that only store buffers explain\n");
	for (unsigned i = 0; i < litmus_count; i++) {
		const struct litmus_tally *t = &totals->test[i];

		for (unsigned o = 0; o < LITMUS_OUTCOMES; o++)
			if (litmus_has(&t->allowed, o) && !litmus_has(&t->sequential, o))
				printf("%-11s %s: %s\n", litmus_tests[i].name,
				       litmus_outcome(&litmus_tests[i], o, text),
				       litmus_has(&t->seen, o) ? "seen" : "not seen");
	}
}

void litmus_print_proof(const struct litmus_totals *totals)
{
	unsigned tests = 0;
	const char *comma = "";

	for (unsigned i = 0; i < litmus_count; i++)
		tests += totals->test[i].runs > 0;
	printf("proof: litmus: %llu runs, %u tests, %llu tests x placements x nodes x networks, "
	       "%llu grants of pages, %llu forbidden; relaxed and seen:",
	       (unsigned long long)totals->runs, tests, (unsigned long long)totals->lines,
	       (unsigned long long)totals->grants, (unsigned long long)totals->forbidden);
	for (unsigned i = 0; i < litmus_count; i++)
		if (totals->test[i].relaxed) {
			printf("%s %s %llu times", comma, litmus_tests[i].name,
			       (unsigned long long)totals->test[i].relaxed);
			comma = ",";
		}
	printf("%s\n", *comma ? "" : " none");
	fflush(stdout);
}

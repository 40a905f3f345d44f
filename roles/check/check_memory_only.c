/*
 * A node with 0 cores in the topology lends memory and takes no program, in no life: so it never
 * has a page as a client, and others may rely on that. Whoever tries is told so in one line. All
 * nodes agree on which these are, or do not serve.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/owner.h"
#include "roles/check/program.h"

#define LENDER 2u
#define PAGES  64u /* in each unit */
#define UNITS  96u /* enough that the hash gives some to the lender */
#define STEP   (2 * MIB)

#define WHAT  "node 2 lends memory only (0 cores in its NODE line of the topology)"
#define FIXES "it cores in the topology of all nodes"

static struct cluster cluster;

static const struct cluster_opts opts[] = {
	{.memory_only = 1u << LENDER},
	{.memory_only = 1u << LENDER, .shards = "2"},
};

static void begin(unsigned i)
{
	cluster_start(&cluster, &opts[i]);
}

/* ---- who is refused ------------------------------------------------------------------------ */

static void refuses_attach(void)
{
	struct wvm *w = NULL;

	ck_assert_int_eq(wvm_attach(&w, cluster.node[LENDER].ring), -EREMOTE);
	ck_assert_ptr_null(w);
	ck_assert_str_eq(wvm_attach_error(),
			 WHAT ": start the program on a node with cores, or give " FIXES);
}

/* It ends by itself with status 1, and one line of its own says why. */
static void refuses(const char *const args[], const char *text)
{
	static struct cluster_result r;

	cluster_run(&r, args, NULL, NULL);
	ck_assert_msg(WIFEXITED(r.status) && WEXITSTATUS(r.status) == 1, "status %x: %s%s",
		      (unsigned)r.status, r.out, r.err);
	ck_assert_msg(strstr(r.err, text) != NULL, "'%s' is not in: %s", text, r.err);
	ck_assert_ptr_eq(strchr(r.err, '\n'), r.err + strlen(r.err) - 1);
}

static void refuses_slave(void)
{
	const struct cluster_node *n = &cluster.node[LENDER];
	char program[4128], port[8], ctrl[8];

	snprintf(program, sizeof(program), "%s/wavevm_node_slave", cluster_bin());
	snprintf(port, sizeof(port), "%u", n->slave_port);
	snprintf(ctrl, sizeof(ctrl), "%u", n->ctrl_port);
	refuses((const char *const[]){program, port, "1", "1024", "2", ctrl, "--ring-path", n->ring,
				      NULL},
		WHAT ": start no slave here, or give " FIXES);
}

static void refuses_bench(void)
{
	char program[4128];

	snprintf(program, sizeof(program), "%s/wvmbench", cluster_bin());
	refuses((const char *const[]){program, "touch", "--ring", cluster.node[LENDER].ring, NULL},
		WHAT ": start the program on a node with cores, or give " FIXES);
}

static unsigned said(unsigned node, const char *text)
{
	static char log[CLUSTER_OUT_BYTES];
	unsigned count = 0;

	cluster_read(cluster.node[node].log, log, sizeof(log));
	for (const char *at = log; (at = strstr(at, text)) != NULL; at++)
		count++;
	return count;
}

static void has_no_program_nor_page(void)
{
	ck_assert_uint_eq(cluster_status(&cluster, LENDER, "clients"), 0);
	ck_assert_uint_eq(cluster_stat(&cluster, LENDER, "core", "pages_shared"), 0);
	ck_assert_uint_eq(cluster_stat(&cluster, LENDER, "core", "pages_modified"), 0);
	ck_assert_uint_eq(cluster_stat(&cluster, LENDER, "core", "pages_untouched"), 0);
}

static void store_all(struct program *p)
{
	unsigned at_lender = 0;

	for (unsigned i = p->index; i < UNITS; i += p->count) {
		uint64_t *base = program_map(p, i * STEP, PAGES * PAGE);

		at_lender += wvm_where(p->wvm, CLUSTER_VM, i * STEP) == (int)LENDER;
		for (unsigned k = 0; k < PAGES; k++)
			pattern_fill(base + k * PAGE_WORDS, i * PAGES + k, 1);
		NEED(p, !wvm_unmap(p->wvm, base, PAGES * PAGE), "unit %u", i);
	}
	NEED(p, at_lender, "nothing has its home at the node that only lends");
}

static void verify_all(struct program *p)
{
	for (unsigned i = 0; i < UNITS; i++) {
		uint64_t *base = program_map(p, i * STEP, PAGES * PAGE);

		for (unsigned k = 0; k < PAGES; k++)
			NEED(p, pattern_differs(base + k * PAGE_WORDS, i * PAGES + k, 1) < 0,
			     "page %u of unit %u", k, i);
		NEED(p, !wvm_unmap(p->wvm, base, PAGES * PAGE), "unit %u", i);
	}
}

START_TEST(it_lends_memory_and_takes_no_program)
{
	struct arena *a = arena_new(0);

	begin(_i);
	refuses_attach();
	programs_run(&cluster, a, (const unsigned[]){0, 1}, 2, store_all, NULL);
	refuses_slave();
	refuses_bench();
	refuses_attach();
	programs_run(&cluster, a, (const unsigned[]){1, 0}, 2, verify_all, NULL);
	has_no_program_nor_page();
	/* The operator of that node reads it, too; a slave has seen it before it asked. */
	ck_assert_uint_eq(said(LENDER, "refused: this node (2) lends memory only, with 0 cores"),
			  3);
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

/* Its next life takes over what it lends, and no more programs than the one before. */
START_TEST(its_next_life_takes_none_either)
{
	struct arena *a = arena_new(0);

	begin(_i);
	programs_run(&cluster, a, (const unsigned[]){0, 1}, 2, store_all, NULL);
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, LENDER, SIGKILL)));
	cluster_node_start(&cluster, LENDER, NULL);
	cluster_node_await(&cluster, LENDER);
	refuses_attach();
	programs_run(&cluster, a, (const unsigned[]){1, 0}, 2, verify_all, NULL);
	has_no_program_nor_page();
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

/* ---- the topology -------------------------------------------------------------------------- */

/* The same nodes, the last with so many cores, as a file of its own or as everybody's. */
static void write_topology(const char *path, unsigned cores)
{
	FILE *f = fopen(path, "we");

	ck_assert_ptr_nonnull(f);
	for (unsigned i = 0; i < cluster.nodes; i++)
		fprintf(f, "NODE %u %s %u %u 4 %u\n", i, cluster.node[i].ip, cluster.node[i].port,
			i == LENDER ? cores : 1, cluster.node[i].ctrl_port);
	ck_assert_int_eq(fclose(f), 0);
}

/* Runs the last master over such a topology: it ends by itself, and says `text`. */
static void ends_with(unsigned cores, const char *const more[], const char *text)
{
	static struct cluster_result r;
	const char *args[CLUSTER_ARGS_MAX];
	struct cluster other = cluster;

	snprintf(other.topology, sizeof(other.topology), "%s/other", cluster.dir);
	write_topology(other.topology, cores);
	cluster_node_args(&other, LENDER, more, args);
	cluster_run(&r, args, NULL, NULL);
	ck_assert_msg(WIFEXITED(r.status) && WEXITSTATUS(r.status) == 1, "status %x: %s",
		      (unsigned)r.status, r.err);
	ck_assert_msg(strstr(r.err, text) != NULL, "'%s' is not in: %s", text, r.err);
}

START_TEST(a_node_that_others_take_for_one_with_cores_does_not_serve)
{
	static const char *const fresh[] = {"--fresh", NULL};

	cluster_start(&cluster, NULL);
	ck_assert_int_eq(cluster_node_end(&cluster, LENDER, SIGTERM), 0);
	ends_with(0, fresh, "has other NODE lines in its topology than");
	ck_assert_uint_ge(said(0, "node 2 has other NODE lines in its topology than"), 1);
	for (unsigned i = 0; i < LENDER; i++) /* they go on */
		ck_assert_int_eq(cluster_node_end(&cluster, i, SIGTERM), 0);
}
END_TEST

START_TEST(how_many_cores_a_node_with_some_has_is_its_own_affair)
{
	struct cluster other;

	cluster_prepare(&cluster, NULL);
	other = cluster;
	snprintf(other.topology, sizeof(other.topology), "%s/other", cluster.dir);
	write_topology(other.topology, 4);
	cluster_node_start(&cluster, 0, NULL);
	cluster_node_start(&cluster, 1, NULL);
	cluster_node_start(&other, LENDER, NULL);
	cluster.node[LENDER].pid = other.node[LENDER].pid;
	for (unsigned i = 0; i < cluster.nodes; i++)
		cluster_node_await(&cluster, i);
	cluster_stop(&cluster);
}
END_TEST

static void store_and_stay(struct program *p)
{
	store(program_map(p, 0, 2 * MIB), 1);
	atomic_store(&p->arena->word[0], 1);
	for (;;)
		pause();
}

/* A program of the former life that still has pages is nothing that a new topology can deny. */
START_TEST(a_life_that_had_programs_is_not_taken_over_without_cores)
{
	struct arena *a = arena_new(0);
	struct program p = {.cluster = &cluster, .arena = a, .node = LENDER, .count = 1};

	cluster_start(&cluster, NULL);
	program_start(&p, store_and_stay);
	while (!atomic_load(&a->word[0]))
		cluster_sleep_ms(5);
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, LENDER, SIGKILL)));
	ends_with(0, NULL, "as a node of another topology");
	program_kill(&p);
	cluster_kill(&cluster);
	arena_free(a);
}
END_TEST

/* ---- processors ---------------------------------------------------------------------------- */

START_TEST(no_processor_goes_there)
{
	static struct cluster_result r;
	struct wvm_vcpu_met met = {.node = LENDER};
	struct wvm_vcpu_hello hello;
	struct wvm_vcpu_link *l;
	uint64_t life, from;
	struct wvm *w;

	begin(_i);
	w = owner_attach(&cluster, 0);
	l = owner_open(w, 1);
	from = cluster_now_ms();
	ck_assert_int_eq(wvm_vcpu_hello(l, LENDER, &life, &hello), -EREMOTE);
	ck_assert_str_eq(wvm_vcpu_error(), WHAT ": name a node with cores, or give " FIXES);
	ck_assert_int_eq(wvm_vcpu_meet_slaves(l, &met, 1), 0);
	ck_assert_uint_lt(cluster_now_ms() - from, 1000); /* it is not waited for */
	cluster_ctl(&cluster, 0, &r, (const char *const[]){"vcpu", "move", "1", "2", NULL});
	ck_assert_msg(WIFEXITED(r.status) && WEXITSTATUS(r.status) == 1, "status %x",
		      (unsigned)r.status);
	ck_assert_str_eq(r.out, "");
	ck_assert_msg(strstr(r.err, WHAT ": name a node with cores, or give " FIXES) != NULL, "%s",
		      r.err);
	wvm_vcpu_close(l);
	wvm_detach(w);
	cluster_stop(&cluster);
}
END_TEST

static Suite *memory_only_suite(void)
{
	Suite *s = suite_create("memory_only");
	TCase *t = cluster_tcase(s, "memory_only", CLUSTER_SANITIZED ? 300 : 90);
	int count = sizeof(opts) / sizeof(opts[0]);

	tcase_add_loop_test(t, it_lends_memory_and_takes_no_program, 0, count);
	tcase_add_loop_test(t, its_next_life_takes_none_either, 0, count);
	tcase_add_test(t, a_node_that_others_take_for_one_with_cores_does_not_serve);
	tcase_add_test(t, how_many_cores_a_node_with_some_has_is_its_own_affair);
	tcase_add_test(t, a_life_that_had_programs_is_not_taken_over_without_cores);
	tcase_add_test(t, no_processor_goes_there);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {memory_only_suite};

	return cluster_main(argv, suites, 1);
}

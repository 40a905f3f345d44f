/*
 * Memory that the topology places: all nodes have the same ranges or do not
 * serve, and what a node's programs use of their own range stays off the wire.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/program.h"

/* Of VM 1 and its 3 GiB: a NUMA node of the guest for each node. */
#define PLACED                  \
	"PLACE 1 0 1024 0\n"    \
	"PLACE 1 1024 1024 1\n" \
	"PLACE 1 2048 1024 2 # the last one\n"

static struct cluster cluster;

/* The same nodes with other PLACE lines, in a file of its own. */
static void other_topology(struct cluster *c, const char *place)
{
	static char text[4096];
	FILE *f;

	cluster_read(c->topology, text, sizeof(text));
	*strstr(text, "PLACE") = 0;
	snprintf(c->topology, sizeof(c->topology), "%s/other", c->dir);
	f = fopen(c->topology, "we");
	ck_assert_ptr_nonnull(f);
	fprintf(f, "%s%s", text, place);
	ck_assert_int_eq(fclose(f), 0);
}

/* Runs master i over other PLACE lines: it ends by itself, and says `text`. */
static void refused(unsigned i, const char *place, const char *const more[], const char *text)
{
	static struct cluster_result r;
	const char *args[CLUSTER_ARGS_MAX];
	struct cluster other = cluster;

	other_topology(&other, place);
	cluster_node_args(&other, i, more, args);
	cluster_run(&r, args, NULL, NULL);
	ck_assert_msg(WIFEXITED(r.status) && WEXITSTATUS(r.status) == 1, "status %x: %s", r.status,
		      r.err);
	ck_assert_msg(strstr(r.err, text) != NULL, "'%s' is not in: %s", text, r.err);
}

static void expect_log(unsigned node, const char *text)
{
	static char log[CLUSTER_OUT_BYTES];

	cluster_read(cluster.node[node].log, log, sizeof(log));
	ck_assert_msg(strstr(log, text) != NULL, "'%s' is not in: %s", text, log);
}

/* Others may have been told of the odd one by its answer, just before it ended: they end, too. */
static void start_if_ended(unsigned i)
{
	siginfo_t info = {0};

	if (waitid(P_PID, (id_t)cluster.node[i].pid, &info, WEXITED | WNOHANG | WNOWAIT) ||
	    !info.si_pid)
		return;
	ck_assert_int_eq(WEXITSTATUS(cluster_node_end(&cluster, i, 0)), 1);
	cluster_node_start(&cluster, i, NULL);
}

static void use_own(struct program *p)
{
	uint64_t *base = program_map(p, p->node * GIB, 64 * PAGE);

	for (unsigned i = 0; i < 64; i++)
		pattern_fill(base + i * PAGE_WORDS, i, p->node + 1);
}

static void expect_all(struct program *p)
{
	for (unsigned node = 0; node < p->cluster->nodes; node++) {
		const uint64_t *base = program_map(p, node * GIB, 64 * PAGE);

		for (unsigned i = 0; i < 64; i++)
			NEED(p, pattern_differs(base + i * PAGE_WORDS, i, node + 1) < 0,
			     "page %u of node %u", i, node);
	}
}

START_TEST(a_node_with_other_ranges_is_refused_and_one_with_the_same_is_not)
{
	struct arena *a = arena_new(0);

	cluster_prepare(&cluster, &(struct cluster_opts){.place = PLACED});
	cluster_node_start(&cluster, 0, NULL);
	cluster_node_start(&cluster, 1, NULL);
	cluster_sleep_ms(300); /* both ask, and would answer */
	refused(2, "PLACE 1 0 2048 0\nPLACE 1 2048 1024 2\n", NULL,
		"has other PLACE lines in its topology than");
	expect_log(0, "node 2 has other PLACE lines in its topology than");
	refused(2, "", NULL, "has other PLACE lines in its topology than");
	refused(2, PLACED "NODE 3 127.0.77.9 1 1 1\n", NULL,
		"has other NODE lines in its topology than");
	start_if_ended(0);
	start_if_ended(1);
	cluster_node_start(&cluster, 2, NULL);
	for (unsigned i = 0; i < 3; i++)
		cluster_node_await(&cluster, i);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, use_own, NULL);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, expect_all, NULL);
	cluster_stop(&cluster);
}
END_TEST

/* Entries and stored copies lie where the ranges put them. */
START_TEST(what_a_killed_master_left_is_for_one_with_the_same_ranges)
{
	static const char *const fresh[] = {"--fresh", NULL};
	struct arena *a = arena_new(0);

	cluster_start(&cluster, &(struct cluster_opts){.place = PLACED});
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, use_own, NULL);
	cluster_node_end(&cluster, 1, SIGKILL);
	refused(1, "PLACE 1 0 3072 1\n", NULL, "it ran with other PLACE lines in its topology");
	/* Comments and the order of lines are no other cluster. */
	other_topology(&cluster, "#\nPLACE 1 2048 1024 2\nPLACE 1 1024 1024 1\nPLACE 1 0 1024 0\n");
	cluster_node_start(&cluster, 1, NULL);
	cluster_node_await(&cluster, 1);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, expect_all, NULL);
	/* Those that serve go on when one comes that is not of their cluster. */
	cluster_node_end(&cluster, 1, SIGKILL);
	refused(1, "PLACE 1 0 3072 1\n", fresh, "has other PLACE lines in its topology than");
	for (unsigned i = 0; i < 3; i += 2)
		ck_assert_int_eq(cluster_node_end(&cluster, i, SIGTERM), 0);
}
END_TEST

/* Ends of the three ranges, and what is behind them: line 4 is the first behind three nodes. */
static const struct {
	uint64_t gpa;
	uint64_t node, line; /* line 0: by hash, anywhere */
} homes[] = {
	{0, 2, 4},   {512 * MIB - 1, 2, 4},     {512 * MIB, 9, 0},     {GIB - 1, 9, 0},
	{GIB, 0, 5}, {GIB + 2 * MIB - 1, 0, 5}, {GIB + 2 * MIB, 1, 6}, {3 * GIB - 1, 1, 6},
};
#define HOMES (sizeof(homes) / sizeof(homes[0]))

static void ask_where(struct program *p)
{
	for (unsigned i = 0; i < HOMES; i++)
		p->arena->model[p->node * HOMES + i] = (uint64_t)wvm_where(p->wvm, CLUSTER_VM,
									   homes[i].gpa);
}

static void where(unsigned node, uint64_t gpa, struct cluster_result *r, bool json)
{
	char text[32];

	snprintf(text, sizeof(text), "0x%lx", gpa);
	cluster_ctl(
		&cluster, node, r,
		(const char *const[]){"--vm", "1", "where", text, json ? "--json" : NULL, NULL});
	ck_assert_msg(r->status == 0, "%s", r->err);
}

static void check_where(const struct arena *a, unsigned node, unsigned i)
{
	static struct cluster_result r;
	char text[64] = ", by hash\n";
	json_t *o, *line;
	uint64_t home;

	where(node, homes[i].gpa, &r, true);
	o = json_loads(r.out, 0, NULL);
	home = (uint64_t)json_integer_value(json_object_get(o, "home_node"));
	line = json_object_get(o, "placed_by_line");
	ck_assert_uint_eq(a->model[node * HOMES + i], home);
	ck_assert_uint_eq(a->model[i], home);
	ck_assert(!line == !homes[i].line);
	if (line) {
		ck_assert_uint_eq(home, homes[i].node);
		ck_assert_int_eq(json_integer_value(line), homes[i].line);
		snprintf(text, sizeof(text), ", placed by line %lu of the topology\n",
			 homes[i].line);
	}
	json_decref(o);
	where(node, homes[i].gpa, &r, false);
	ck_assert_msg(strstr(r.out, text) != NULL, "'%s' is not in: %s", text, r.out);
}

START_TEST(all_nodes_say_where_memory_lives_and_why)
{
	struct arena *a = arena_new(3 * HOMES);
	json_t *status, *members;

	cluster_start(&cluster, &(struct cluster_opts){.place = "PLACE 1 0 512 2\n"
								"PLACE 1 1024 2 0\n"
								"PLACE 1 1026 2046 1\n"
								"PLACE 9 0 4096 0\n"});
	expect_log(0, "topology:7: PLACE is for VM 9, which this master does not have");
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, ask_where, NULL);
	for (unsigned node = 0; node < 3; node++)
		for (unsigned i = 0; i < HOMES; i++)
			check_where(a, node, i);
	status = cluster_json(&cluster, 1, "status");
	members = json_object_get(status, "members");
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(json_integer_value(
					 json_object_get(json_array_get(members, i), "placed_mib")),
				 ((int[]){4098, 2046, 512})[i]);
	json_decref(status);
	cluster_stop(&cluster);
}
END_TEST

START_TEST(a_range_beyond_its_vm_is_refused_by_file_and_line)
{
	cluster_prepare(&cluster, &(struct cluster_opts){.place = PLACED});
	refused(0, "PLACE 1 2048 1026 0\n", NULL,
		"other:4: the range ends at 3074 MiB, but VM 1 has 3072 MiB: make mib smaller");
	refused(0, "PLACE 1 0 4 0\nPLACE 1 2 2 1\n", NULL,
		"other:5: first_mib '2': MiB 2 of VM 1 is placed by line 4 already");
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
}
END_TEST

static Suite *layout_suite(void)
{
	Suite *s = suite_create("layout");
	TCase *t = cluster_tcase(s, "agreement", 120);

	tcase_add_test(t, a_node_with_other_ranges_is_refused_and_one_with_the_same_is_not);
	tcase_add_test(t, what_a_killed_master_left_is_for_one_with_the_same_ranges);
	tcase_add_test(t, all_nodes_say_where_memory_lives_and_why);
	tcase_add_test(t, a_range_beyond_its_vm_is_refused_by_file_and_line);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {layout_suite};

	return cluster_main(argv, suites, 1);
}

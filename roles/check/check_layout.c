/*
 * Memory that the topology places: all nodes have the same ranges or do not
 * serve, and what a node's programs use of their own range stays off the wire.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/harm.h"

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

/* The first nodes ask, and would answer. */
static void others_ask(unsigned count)
{
	cluster_sleep_ms(300);
	for (unsigned i = 0; i < count; i++)
		start_if_ended(i);
	cluster_sleep_ms(300);
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
	others_ask(2);
	refused(2, "PLACE 1 0 2048 0\nPLACE 1 2048 1024 2\n", NULL,
		"has other PLACE or SPARE lines in its topology than");
	harm_await_log(&cluster, 0, "node 2 has other PLACE or SPARE lines in its topology than");
	others_ask(2);
	refused(2, "", NULL, "has other PLACE or SPARE lines in its topology than");
	others_ask(2);
	refused(2, PLACED "NODE 3 127.0.77.9 1 1 1\n", NULL,
		"has other NODE lines in its topology than");
	others_ask(2);
	cluster_node_start(&cluster, 2, NULL);
	for (unsigned i = 0; i < 3; i++)
		cluster_node_await(&cluster, i);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, use_own, NULL);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, expect_all, NULL);
	cluster_stop(&cluster);
}
END_TEST

/* A node that takes others for spare than the rest do would look for pages at other homes. */
START_TEST(a_node_with_other_spares_is_refused)
{
	cluster_prepare(&cluster, &(struct cluster_opts){.place = "PLACE 1 0 1024 0\nSPARE 2\n"});
	cluster_node_start(&cluster, 0, NULL);
	others_ask(1);
	refused(1, "PLACE 1 0 1024 0\n", NULL,
		"has other PLACE or SPARE lines in its topology than");
	harm_await_log(&cluster, 0, "node 1 has other PLACE or SPARE lines in its topology than");
	others_ask(1);
	refused(1, "PLACE 1 0 1024 0\nSPARE 1\n", NULL,
		"has other PLACE or SPARE lines in its topology than");
	refused(1, "PLACE 1 0 1024 0\nSPARE 0\n", NULL,
		"other:4: phys_id '0' is spare by line 5, and homes nothing at first");
	others_ask(1);
	ck_assert_int_eq(cluster_node_end(&cluster, 0, SIGTERM), 0);
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
	refused(1, "PLACE 1 0 3072 1\n", NULL,
		"it ran with other PLACE or SPARE lines in its topology");
	/* Comments and the order of lines are no other cluster. */
	other_topology(&cluster, "#\nPLACE 1 2048 1024 2\nPLACE 1 1024 1024 1\nPLACE 1 0 1024 0\n");
	cluster_node_start(&cluster, 1, NULL);
	cluster_node_await(&cluster, 1);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, expect_all, NULL);
	/* Those that serve go on when one comes that is not of their cluster. */
	cluster_node_end(&cluster, 1, SIGKILL);
	refused(1, "PLACE 1 0 3072 1\n", fresh,
		"has other PLACE or SPARE lines in its topology than");
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

/* ---- what a node uses of its own range ------------------------------------------------------ */

#define USED   32u /* MiB of each node */
#define PAGES  (USED * (unsigned)(MIB / PAGE))
#define ROUNDS 3u

/* Words of the arena: of the programs, and when the test lets them go on. */
enum { TOUCHED = 10, GO_ON, ROUNDS_DONE, END };

static void use_range(struct program *p)
{
	uint64_t *base = program_map(p, p->node * GIB, PAGES * PAGE);

	for (unsigned i = 0; i < PAGES; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 1);
	harm_tell(p, TOUCHED);
	program_await_word(p, GO_ON, 1);
	for (unsigned g = 1; g <= ROUNDS; g++)
		for (unsigned i = 0; i < PAGES; i++) {
			NEED(p, pattern_differs(base + i * PAGE_WORDS, i, g) < 0, "page %u", i);
			pattern_fill(base + i * PAGE_WORDS, i, g + 1);
		}
	harm_tell(p, ROUNDS_DONE);
	program_await_word(p, END, 1);
}

struct traffic {
	uint64_t messages;  /* that came from the wire, at all nodes */
	uint64_t requests;  /* for pages, to homes here and elsewhere */
	uint64_t evictions; /* of node 0 */
};

static struct traffic traffic(void)
{
	struct traffic t = {.evictions = cluster_stat(&cluster, 0, "core", "evicted_modified")};

	for (unsigned i = 0; i < cluster.nodes; i++) {
		t.messages += cluster_stat(&cluster, i, "node", "messages_received");
		t.requests += cluster_stat(&cluster, i, "core", "requests_sent");
	}
	return t;
}

static struct traffic since(struct traffic *before)
{
	struct traffic now = traffic(), was = *before;

	*before = now;
	return (struct traffic){now.messages - was.messages, now.requests - was.requests,
				now.evictions - was.evictions};
}

/* A program on each node uses the range of that number, all of it, again and again. */
static void play(const struct cluster_opts *opts, struct traffic *first, struct traffic *steady)
{
	struct program programs[3], *list[3];
	struct arena *a = arena_new(0);
	struct traffic at;

	cluster_start(&cluster, opts);
	cluster_sleep_ms(100); /* the last answers of joining */
	at = traffic();
	for (unsigned i = 0; i < 3; i++) {
		programs[i] = (struct program){
			.cluster = &cluster, .arena = a, .node = i, .index = i, .count = 3};
		list[i] = &programs[i];
		program_start(list[i], use_range);
	}
	harm_await(a, TOUCHED, 3);
	*first = since(&at);
	a->word[GO_ON] = 1;
	harm_await(a, ROUNDS_DONE, 3);
	*steady = since(&at);
	a->word[END] = 1;
	programs_await(list, 3);
	cluster_stop(&cluster);
	printf("proof: %s%s%s: first touch of %u MiB on each of 3 nodes %lu requests, %lu messages on "
	       "the wire; %u rounds over it %lu and %lu, %lu pages given up\n",
	       opts->place ? "ranges placed on their nodes" : "the same memory by hash",
	       opts->shards && *opts->shards == '2' ? ", two shards" : "",
	       opts->ram_mb ? ", node 0 with less memory than it uses" : "", USED, first->requests,
	       first->messages, ROUNDS, steady->requests, steady->messages, steady->evictions);
	fflush(stdout);
}

START_TEST(memory_placed_where_it_is_used_asks_no_other_node)
{
	struct traffic first, steady;

	play(&(struct cluster_opts){.place = PLACED, .shards = _i ? "2" : "1"}, &first, &steady);
	ck_assert_uint_eq(first.requests, 3 * USED / 2);
	ck_assert_uint_eq(first.messages, 0);
	ck_assert_uint_eq(steady.requests, 0);
	ck_assert_uint_eq(steady.messages, 0);
}
END_TEST

START_TEST(memory_placed_by_hash_asks_other_nodes)
{
	struct traffic first, steady;

	play(&(struct cluster_opts){.place = NULL}, &first, &steady);
	/* Two of three units are homed elsewhere: question and answer. */
	ck_assert_uint_ge(first.messages, 3 * USED / 2);
}
END_TEST

/* What does not fit goes home, and home is here. */
START_TEST(more_than_fits_stays_off_the_wire_where_it_is_placed)
{
	struct traffic first, steady;

	play(&(struct cluster_opts){.place = PLACED, .ram_mb = "16"}, &first, &steady);
	ck_assert_uint_gt(steady.evictions, PAGES / 2);
	ck_assert_uint_gt(steady.requests, PAGES / 2);
	ck_assert_uint_eq(first.messages + steady.messages, 0);
}
END_TEST

START_TEST(more_than_fits_goes_over_the_wire_where_it_is_not)
{
	struct traffic first, steady;

	play(&(struct cluster_opts){.ram_mb = "16"}, &first, &steady);
	ck_assert_uint_gt(steady.evictions, PAGES / 2);
	ck_assert_uint_gt(steady.messages, PAGES / 2);
}
END_TEST

static Suite *layout_suite(void)
{
	Suite *s = suite_create("layout");
	TCase *t = cluster_tcase(s, "agreement", 120);

	tcase_add_test(t, a_node_with_other_ranges_is_refused_and_one_with_the_same_is_not);
	tcase_add_test(t, a_node_with_other_spares_is_refused);
	tcase_add_test(t, what_a_killed_master_left_is_for_one_with_the_same_ranges);
	tcase_add_test(t, all_nodes_say_where_memory_lives_and_why);
	tcase_add_test(t, a_range_beyond_its_vm_is_refused_by_file_and_line);
	t = cluster_tcase(s, "locality", 120);
	tcase_add_loop_test(t, memory_placed_where_it_is_used_asks_no_other_node, 0, 2);
	tcase_add_test(t, memory_placed_by_hash_asks_other_nodes);
	tcase_add_test(t, more_than_fits_stays_off_the_wire_where_it_is_placed);
	tcase_add_test(t, more_than_fits_goes_over_the_wire_where_it_is_not);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {layout_suite};

	return cluster_main(argv, suites, 1);
}

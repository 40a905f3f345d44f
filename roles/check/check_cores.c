/*
 * Cores of masters: how many shards a master has and where they run, what masters that are
 * started beside each other make of one machine, and that two shards share the work.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/claim.h"
#include "roles/check/program.h"

#define SHARDS_MAX 16u

static struct cluster cluster;

static unsigned cpus(void)
{
	cpu_set_t set;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	return (unsigned)CPU_COUNT(&set);
}

/* ---- where shards are ---------------------------------------------------------------------- */

/* The CPUs of node i's shards as `status` tells them; their number. */
static unsigned placed(unsigned i, int cpu[SHARDS_MAX], bool shared[SHARDS_MAX])
{
	json_t *o = cluster_json(&cluster, i, "status"), *list = json_object_get(o, "shards");
	unsigned n = (unsigned)json_array_size(list);

	ck_assert_uint_ge(n, 1);
	ck_assert_uint_le(n, SHARDS_MAX);
	for (unsigned k = 0; k < n; k++) {
		const char *text = json_string_value(json_array_get(list, k));

		ck_assert_ptr_nonnull(text);
		ck_assert_msg(sscanf(text, "cpu %d,", &cpu[k]) == 1, "%s", text);
		shared[k] = strstr(text, ", shared") != NULL;
	}
	json_decref(o);
	return n;
}

/* The thread of a shard, by its name. */
static pid_t shard_thread(pid_t master, unsigned shard)
{
	char path[300], name[32], want[32];
	struct dirent *entry;
	pid_t found = 0;
	DIR *d;

	snprintf(want, sizeof(want), "wvm-shard-%u\n", shard);
	snprintf(path, sizeof(path), "/proc/%d/task", (int)master);
	d = opendir(path);
	ck_assert_ptr_nonnull(d);
	while (!found && (entry = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", (int)master, entry->d_name);
		if (atoi(entry->d_name) <= 0 || access(path, R_OK))
			continue;
		cluster_read(path, name, sizeof(name));
		if (!strcmp(name, want))
			found = (pid_t)atoi(entry->d_name);
	}
	closedir(d);
	ck_assert_msg(found > 0, "master %d has no shard %u", (int)master, shard);
	return found;
}

/* What the kernel says is what `status` says: each shard's thread may run on that CPU alone. */
static unsigned expect_pinned(unsigned i)
{
	int cpu[SHARDS_MAX];
	bool shared[SHARDS_MAX];
	unsigned n = placed(i, cpu, shared);

	for (unsigned k = 0; k < n; k++) {
		cpu_set_t set;
		pid_t thread = shard_thread(cluster.node[i].pid, k);

		ck_assert_int_eq(sched_getaffinity(thread, sizeof(set), &set), 0);
		ck_assert_int_eq(CPU_COUNT(&set), 1);
		ck_assert_msg(CPU_ISSET((size_t)cpu[k], &set), "shard %u is not on cpu %d", k,
			      cpu[k]);
	}
	return n;
}

static const struct {
	const char *option, *value; /* NULL: not given */
	const char *override;       /* WVM_CORE_OVERRIDE */
	unsigned shards;            /* 0: as many as there are CPUs */
} counts[] = {
	{NULL, NULL, NULL, 1},        {NULL, NULL, "", 1},
	{NULL, NULL, "3", 3},         {NULL, NULL, "auto", 0},
	{"--cores", "2", "3", 2},     {"--cores", "auto", "3", 3},
	{"--cores", "auto", NULL, 0}, {"--shards", "auto", "auto", 0},
	{"--cores", "16", NULL, 16},
};

START_TEST(a_master_has_as_many_shards_as_it_is_given_cores)
{
	const char *const more[] = {counts[_i].option, counts[_i].value, NULL};

	if (counts[_i].override)
		setenv("WVM_CORE_OVERRIDE", counts[_i].override, 1);
	cluster_prepare(&cluster, &(struct cluster_opts){.nodes = 1, .shards = ""});
	cluster_node_start(&cluster, 0, more);
	cluster_node_await(&cluster, 0);
	/* A quota of the cgroup may cut what auto takes, so there may be fewer than CPUs. */
	if (counts[_i].shards)
		ck_assert_uint_eq(expect_pinned(0), counts[_i].shards);
	else
		ck_assert_uint_le(expect_pinned(0), cpus());
	cluster_stop(&cluster);
}
END_TEST

START_TEST(a_bad_override_is_refused_by_name)
{
	static struct cluster_result r;
	const char *args[CLUSTER_ARGS_MAX];

	setenv("WVM_CORE_OVERRIDE", "17", 1);
	cluster_prepare(&cluster, &(struct cluster_opts){.nodes = 1, .shards = ""});
	cluster_node_args(&cluster, 0, NULL, args);
	cluster_run(&r, args, NULL, NULL);
	ck_assert(WIFEXITED(r.status) && WEXITSTATUS(r.status) == 1);
	ck_assert_msg(strstr(r.err, "WVM_CORE_OVERRIDE '17'") != NULL, "%s", r.err);
}
END_TEST

/* ---- beside each other --------------------------------------------------------------------- */

/* Whether some process holds a claim: then it is not known what is left for ours. */
static bool others_run(void)
{
	struct flock any = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open(WVM_CLAIM_FILE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return false;
	ck_assert_int_eq(fcntl(fd, F_OFD_GETLK, &any), 0);
	close(fd);
	return any.l_type != F_UNLCK;
}

START_TEST(masters_of_one_host_are_on_cpus_of_their_own)
{
	unsigned on[CPU_SETSIZE] = {0}, nodes = cpus() < 3 ? 3 : 2;
	bool shared[SHARDS_MAX];
	int cpu[SHARDS_MAX];

	if (others_run()) {
		printf("skip: masters_of_one_host_are_on_cpus_of_their_own: other masters run\n");
		return;
	}
	cluster_prepare(&cluster, &(struct cluster_opts){.nodes = nodes});
	for (unsigned round = 0; round < 2; round++) {
		unsigned most = 0, firsts = 0;

		memset(on, 0, sizeof(on));
		for (unsigned i = 0; i < nodes; i++)
			cluster_node_start(&cluster, i, NULL);
		for (unsigned i = 0; i < nodes; i++)
			cluster_node_await(&cluster, i);
		for (unsigned i = 0; i < nodes; i++) {
			ck_assert_uint_eq(placed(i, cpu, shared), 1);
			ck_assert_uint_eq(expect_pinned(i), 1);
			on[cpu[0]]++;
			firsts += !shared[0];
		}
		ck_assert_uint_eq(firsts, nodes < cpus() ? nodes : cpus());
		for (unsigned k = 0; k < CPU_SETSIZE; k++)
			most = on[k] > most ? on[k] : most;
		ck_assert_uint_eq(most, (nodes + cpus() - 1) / cpus());
		/* Killed, they leave nothing that is in the way of those that come next. */
		cluster_kill(&cluster);
	}
}
END_TEST

/* ---- work ---------------------------------------------------------------------------------- */

#define UNITS  20u /* in each range of 1 GiB: slices of both nodes, and of both shards of each */
#define ROUNDS 20u

/* Pages of each of its units that are used: of range 1 three times as many. */
static const unsigned used[] = {15, 45};

static uint64_t *page_at(uint64_t *base, unsigned range, unsigned unit, unsigned i)
{
	return base + (range * GIB + unit * 2 * MIB + i * PAGE) / sizeof(*base);
}

typedef void page_fn(struct program *p, uint64_t *page, uint64_t number);

static void each_page(struct program *p, uint64_t *base, page_fn *fn)
{
	for (unsigned range = 0; range < 2; range++)
		for (unsigned unit = 0; unit < UNITS; unit++)
			for (unsigned i = 0; i < used[range]; i++) {
				uint64_t *page = page_at(base, range, unit, i);

				fn(p, page, (uint64_t)(page - base) / PAGE_WORDS);
			}
}

static void fill_1(struct program *p, uint64_t *page, uint64_t number)
{
	pattern_fill(page, number, 1);
}

static void expect_1(struct program *p, uint64_t *page, uint64_t number)
{
	NEED(p, pattern_differs(page, number, 1) < 0, "page %lu", number);
}

static void fill_2(struct program *p, uint64_t *page, uint64_t number)
{
	pattern_fill(page, number, 2);
}

static void expect_2(struct program *p, uint64_t *page, uint64_t number)
{
	NEED(p, pattern_differs(page, number, 2) < 0, "page %lu", number);
}

static uint64_t *map_both(struct program *p)
{
	return program_map(p, 0, GIB + UNITS * 2 * MIB);
}

static void write_first(struct program *p)
{
	each_page(p, map_both(p), fill_1);
}

/* Every page is a read fault, then a write fault. */
static void read_and_write(struct program *p)
{
	uint64_t *base = map_both(p);

	each_page(p, base, expect_1);
	each_page(p, base, fill_2);
}

static void read_again(struct program *p)
{
	each_page(p, map_both(p), expect_2);
}

static uint64_t shard_figure(unsigned node, unsigned shard, const char *name)
{
	json_t *o = cluster_json(&cluster, node, "stats");
	const json_t *one = json_array_get(json_object_get(o, "shards"), shard);
	uint64_t value;

	ck_assert_msg(json_is_integer(json_object_get(one, name)), "shard %u: no '%s'", shard,
		      name);
	value = (uint64_t)json_integer_value(json_object_get(one, name));
	json_decref(o);
	return value;
}

/* Processor time of a shard's thread so far, in ns, and the CPU that it ran on last. */
static uint64_t time_of(unsigned node, unsigned shard, int *cpu)
{
	pid_t master = cluster.node[node].pid, thread = shard_thread(master, shard);
	char path[64], text[1024], *at;
	unsigned long long ns;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", (int)master, (int)thread);
	cluster_read(path, text, sizeof(text));
	ck_assert_msg(sscanf(text, "%llu", &ns) == 1, "%s", text);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)master, (int)thread);
	cluster_read(path, text, sizeof(text));
	at = strrchr(text, ')');
	ck_assert_ptr_nonnull(at);
	/* Field 39; the one behind the name is the third. */
	for (unsigned field = 2; field < 39 && at; field++)
		at = strchr(at + 1, ' ');
	ck_assert_msg(at && sscanf(at, " %d", cpu) == 1, "%s", text);
	return ns;
}

START_TEST(two_shards_serve_their_ranges_on_cpus_of_their_own)
{
	static const char *const no_ahead[] = {"--read-ahead", "0", NULL};
	struct arena *a = arena_new(0);
	uint64_t before[2];
	int cpu[SHARDS_MAX], ran[2];
	bool shared[SHARDS_MAX];

	if (cpus() < 2) {
		printf("skip: two_shards_serve_their_ranges_on_cpus_of_their_own: one CPU\n");
		return;
	}
	cluster_prepare(&cluster, &(struct cluster_opts){.nodes = 2, .shards = "2"});
	for (unsigned i = 0; i < 2; i++)
		cluster_node_start(&cluster, i, no_ahead);
	for (unsigned i = 0; i < 2; i++)
		cluster_node_await(&cluster, i);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_uint_eq(expect_pinned(i), 2);
	ck_assert_uint_eq(placed(0, cpu, shared), 2);
	ck_assert_int_ne(cpu[0], cpu[1]);
	programs_run(&cluster, a, (const unsigned[]){1}, 1, write_first, NULL);
	for (unsigned k = 0; k < 2; k++)
		before[k] = time_of(0, k, &ran[k]);
	programs_run(&cluster, a, (const unsigned[]){0}, 1, read_and_write, NULL);
	programs_run(&cluster, a, (const unsigned[]){1, 0}, 2, read_again, NULL);
	for (unsigned k = 0; k < 2; k++) {
		uint64_t ns = time_of(0, k, &ran[k]) - before[k], pages = UNITS * used[k];
		uint64_t faults = shard_figure(0, k, "faults");

		ck_assert_int_eq(ran[k], cpu[k]);
		ck_assert_uint_eq(shard_figure(0, k, "cpu"), (uint64_t)cpu[k]);
		ck_assert_uint_ge(faults, 2 * pages);
		ck_assert_uint_lt(faults, 3 * pages);
		ck_assert_uint_ge(shard_figure(1, k, "faults"), pages);
		for (unsigned i = 0; i < 2; i++) {
			ck_assert_uint_gt(shard_figure(i, k, "requests_served"), 0);
			ck_assert_uint_gt(shard_figure(i, k, "messages_received"), 0);
		}
		/* A microsecond of it for each fault is less than any machine needs. */
		ck_assert_uint_gt(ns, faults * 1000);
		printf("proof: shard %u of 2: %lu faults at %lu pages on cpu %d, %lu us of it\n", k,
		       faults, pages, ran[k], ns / 1000);
	}
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

/* Every program adds to a word of its own in each page, all at once and each in its own order. */
static void add_to_own_word(struct program *p)
{
	uint64_t *base = map_both(p);

	program_meet(p);
	for (uint64_t round = 1; round <= ROUNDS; round++)
		for (unsigned n = 0; n < 2 * UNITS; n++) {
			unsigned at = (n * 7 + p->index * 11) % (2 * UNITS);
			uint64_t *word = page_at(base, at % 2, at / 2, 0) + p->index;

			NEED(p, load(word) == round - 1, "range %u unit %u: %lu in round %lu",
			     at % 2, at / 2, load(word), round);
			store(word, round);
		}
	program_meet(p);
	for (unsigned at = 0; at < 2 * UNITS; at++)
		for (unsigned k = 0; k < p->count; k++)
			NEED(p, load(page_at(base, at % 2, at / 2, 0) + k) == ROUNDS,
			     "range %u unit %u word %u", at % 2, at / 2, k);
}

START_TEST(no_store_is_lost_between_two_shards_and_between_two_nodes_of_them)
{
	struct arena *a = arena_new(0);

	cluster_start(&cluster, &(struct cluster_opts){.nodes = 2, .shards = "2"});
	programs_run(&cluster, a, (const unsigned[]){0, 1, 0, 1}, 4, add_to_own_word, NULL);
	for (unsigned i = 0; i < 2; i++)
		for (unsigned k = 0; k < 2; k++)
			ck_assert_uint_gt(shard_figure(i, k, "faults"), UNITS);
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

static Suite *cores_suite(void)
{
	Suite *s = suite_create("cores");
	TCase *t = cluster_tcase(s, "placement", 60), *work = cluster_tcase(s, "work", 60);

	tcase_add_loop_test(t, a_master_has_as_many_shards_as_it_is_given_cores, 0,
			    sizeof(counts) / sizeof(counts[0]));
	tcase_add_test(t, a_bad_override_is_refused_by_name);
	tcase_add_test(t, masters_of_one_host_are_on_cpus_of_their_own);
	tcase_add_test(work, two_shards_serve_their_ranges_on_cpus_of_their_own);
	tcase_add_test(work, no_store_is_lost_between_two_shards_and_between_two_nodes_of_them);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {cores_suite};

	return cluster_main(argv, suites, 1);
}

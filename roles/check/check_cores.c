/*
 * Cores of masters: how many shards a master has and where they run, and what
 * masters that are started beside each other make of one machine.
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

static Suite *cores_suite(void)
{
	Suite *s = suite_create("cores");
	TCase *t = cluster_tcase(s, "placement", 60);

	tcase_add_loop_test(t, a_master_has_as_many_shards_as_it_is_given_cores, 0,
			    sizeof(counts) / sizeof(counts[0]));
	tcase_add_test(t, a_bad_override_is_refused_by_name);
	tcase_add_test(t, masters_of_one_host_are_on_cpus_of_their_own);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {cores_suite};

	return cluster_main(argv, suites, 1);
}

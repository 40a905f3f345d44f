/* What a master costs: no processor time when nothing happens, little memory in any case. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "roles/check/program.h"

#define NODES     3u
#define IDLE_MS   10000u
#define IDLE_NS   (UINT64_C(1000000) * IDLE_MS / 200) /* 0.5 % of a core */
/*
 * io_uring_enter calls meanwhile. In each period of 500 ms of gossip a node probes another one, is
 * answered, and answers: 60; the timer wheel moves its timer down a level on the way: 20 to 40; the
 * view is pulled, and wvm_ctl asks.
 */
#define IDLE_TURN 200u

/* Words of the arena. */
enum { READY = 10, LEAVE };

static struct cluster cluster;

/* What the programs of a test touch. */
struct use {
	uint64_t bytes;  /* mapped: all of the VM */
	uint64_t stride; /* one page in so many bytes */
};

/* Every page in turn by one node for writing; by another, a little later, for reading. */
static void use(struct program *p)
{
	const struct use *u = p->arg;
	uint64_t *base = program_map(p, 0, u->bytes);
	uint64_t pages = u->bytes / u->stride;

	for (uint64_t i = p->index; i < pages; i += NODES)
		store(base + i * u->stride / sizeof(*base), i + 1);
	program_meet(p);
	for (uint64_t i = (p->index + 1) % NODES; i < pages; i += NODES)
		NEED(p, load(base + i * u->stride / sizeof(*base)) == i + 1, "page %lu", i);
	atomic_fetch_add(&p->arena->word[READY], 1);
	while (!atomic_load(&p->arena->word[LEAVE]))
		cluster_sleep_ms(500);
}

/* Processor time of all threads of a process, by its schedstat. */
static uint64_t cpu_ns(pid_t pid)
{
	char path[300], text[128];
	uint64_t sum = 0;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	ck_assert_ptr_nonnull(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.16s/schedstat", (int)pid, e->d_name);
		cluster_read(path, text, sizeof(text));
		ck_assert_msg(*text, "%s", path);
		sum += strtoull(text, NULL, 10);
	}
	closedir(d);
	return sum;
}

static uint64_t anonymous_bytes(pid_t pid)
{
	static char text[8192];
	const char *line;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	cluster_read(path, text, sizeof(text));
	line = strstr(text, "RssAnon:");
	ck_assert_ptr_nonnull(line);
	return strtoull(line + strlen("RssAnon:"), NULL, 10) * 1024;
}

static void expect_memory_below(uint64_t limit)
{
	if (CLUSTER_SANITIZED) {
		printf("SKIPPED: a sanitizer takes memory of its own\n");
		return;
	}
	for (unsigned i = 0; i < NODES; i++) {
		uint64_t bytes = anonymous_bytes(cluster.node[i].pid);
		struct stat st;

		ck_assert_int_eq(stat(cluster.node[i].ring, &st), 0);
		bytes += (uint64_t)st.st_size;
		ck_assert_msg(bytes < limit, "node %u: %lu KiB", i, bytes >> 10);
		/* Or it was not the real process. */
		ck_assert_msg(bytes > 64 << 10, "node %u: %lu KiB", i, bytes >> 10);
	}
}

/* Starts masters and programs, and returns when the programs only wait. */
static struct arena *begin(struct program programs[NODES], const struct use *u, const char *vm)
{
	struct arena *a = arena_new(0);

	cluster_start(&cluster, &(struct cluster_opts){.vm = vm});
	for (unsigned i = 0; i < NODES; i++) {
		programs[i] = (struct program){.cluster = &cluster,
					       .arena = a,
					       .node = i,
					       .index = i,
					       .count = NODES,
					       .arg = u};
		program_start(&programs[i], use);
	}
	while (a->word[READY] < NODES && !a->failed)
		cluster_sleep_ms(1);
	ck_assert_msg(!a->failed, "%s", a->text);
	return a;
}

static void end(struct program programs[NODES], struct arena *a)
{
	a->word[LEAVE] = 1;
	programs_await((struct program *const[]){&programs[0], &programs[1], &programs[2]}, NODES);
	cluster_stop(&cluster);
	arena_free(a);
}

START_TEST(a_node_with_a_gib_in_use_takes_less_than_32_mib_beside_the_guests_pages)
{
	static const struct use gib = {GIB, 64 << 10};
	struct program programs[NODES];
	struct arena *a = begin(programs, &gib, "1:1G");

	expect_memory_below(32 * MIB);
	end(programs, a);
}
END_TEST

/* The programs sleep: a process's share of its threads is the library's helper. */
static void expect_idle(struct program programs[NODES])
{
	uint64_t masters[NODES], helpers[NODES], enters[NODES];

	for (unsigned i = 0; i < NODES; i++)
		enters[i] = cluster_stat(&cluster, i, "runtime", "enters");
	for (unsigned i = 0; i < NODES; i++) {
		masters[i] = cpu_ns(cluster.node[i].pid);
		helpers[i] = cpu_ns(programs[i].pid);
	}
	cluster_sleep_ms(IDLE_MS);
	for (unsigned i = 0; i < NODES; i++) {
		masters[i] = cpu_ns(cluster.node[i].pid) - masters[i];
		helpers[i] = cpu_ns(programs[i].pid) - helpers[i];
	}
	for (unsigned i = 0; i < NODES; i++) {
		ck_assert_msg(masters[i] < IDLE_NS, "node %u: %lu us in %u ms", i,
			      masters[i] / 1000, IDLE_MS);
		ck_assert_msg(helpers[i] < IDLE_NS, "program %u: %lu us in %u ms", i,
			      helpers[i] / 1000, IDLE_MS);
		enters[i] = cluster_stat(&cluster, i, "runtime", "enters") - enters[i];
		printf("proof: node %u in %u ms: %lu us of processor time, %lu io_uring_enter; "
		       "program %lu us\n",
		       i, IDLE_MS, masters[i] / 1000, enters[i], helpers[i] / 1000);
		ck_assert_msg(enters[i] < IDLE_TURN, "node %u entered %lu times", i, enters[i]);
	}
}

START_TEST(a_node_of_a_136_gib_vm_takes_less_than_64_mib_and_costs_nothing_when_idle)
{
	static const struct use large = {136 * GIB, 32 * MIB};
	struct program programs[NODES];
	struct arena *a = begin(programs, &large, "1:136G");

	expect_memory_below(64 * MIB);
	expect_idle(programs);
	end(programs, a);
}
END_TEST

static Suite *idle_suite(void)
{
	Suite *s = suite_create("idle");
	TCase *t = cluster_tcase(s, "idle", 60);

	tcase_add_test(t, a_node_with_a_gib_in_use_takes_less_than_32_mib_beside_the_guests_pages);
	tcase_add_test(t,
		       a_node_of_a_136_gib_vm_takes_less_than_64_mib_and_costs_nothing_when_idle);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {idle_suite};

	return cluster_main(argv, suites, 1);
}

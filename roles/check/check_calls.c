/*
 * The system calls that a master says its shards made are those that strace sees
 * them make: of every kind, in every shard, none more and none less.
 */
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "roles/check/program.h"

#define NODES      3u
#define PAGES      1024u /* of each program, half below a gigabyte and half above: for both shards */
#define KINDS_MAX  32u
#define SHARDS_MAX 2u
#define ATTACH_MS  10000u

/* Words of the arena. */
enum { MAPPED = 10, GO, DONE, LEAVE };

static struct cluster cluster;

/* ---- strace ---------------------------------------------------------------------------- */

struct tracer {
	pid_t pid;
	char log[160], said[160];
};

static bool is_there(const char *program)
{
	char path[256], *list = strdup(getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin"), *rest;
	bool found = false;

	for (char *dir = strtok_r(list, ":", &rest); dir && !found;
	     dir = strtok_r(NULL, ":", &rest)) {
		snprintf(path, sizeof(path), "%s/%s", dir, program);
		found = !access(path, X_OK);
	}
	free(list);
	return found;
}

/* False, with a line that says so, where this machine lets nobody trace. */
static bool trace(struct tracer *t, pid_t pid)
{
	static char text[4096];
	uint64_t end = cluster_now_ms() + ATTACH_MS;
	char number[16];

	snprintf(t->log, sizeof(t->log), "%s/strace", cluster.dir);
	snprintf(t->said, sizeof(t->said), "%s/strace.said", cluster.dir);
	snprintf(number, sizeof(number), "%d", (int)pid);
	t->pid = fork();
	ck_assert_int_ge(t->pid, 0);
	if (!t->pid) {
		int said = open(t->said, O_CREAT | O_TRUNC | O_WRONLY, 0600);

		dup2(said, 2);
		execlp("strace", "strace", "-f", "-ttt", "-o", t->log, "-p", number, NULL);
		_exit(127);
	}
	do {
		cluster_read(t->said, text, sizeof(text));
		if (strstr(text, "attached"))
			return true;
		if (waitpid(t->pid, NULL, WNOHANG) == t->pid) {
			ck_assert_msg(strstr(text, "not permitted") != NULL, "strace: %s", text);
			printf("SKIPPED: strace may not attach here: %s", text);
			return false;
		}
		cluster_sleep_ms(10);
	} while (cluster_now_ms() < end);
	ck_abort_msg("strace does not attach: %s", text);
	return false;
}

static void trace_end(const struct tracer *t)
{
	kill(t->pid, SIGINT);
	ck_assert_int_eq(waitpid(t->pid, NULL, 0), t->pid);
}

/* ---- what the master says -------------------------------------------------------------- */

struct counts {
	double at_s; /* of the clock that strace prints */
	unsigned kinds, shards;
	char name[KINDS_MAX][24];
	uint64_t made[SHARDS_MAX][KINDS_MAX];
};

static double real_minus_monotonic_s(void)
{
	struct timespec mono, real;

	clock_gettime(CLOCK_MONOTONIC, &mono);
	clock_gettime(CLOCK_REALTIME, &real);
	return (double)(real.tv_sec - mono.tv_sec) + (double)(real.tv_nsec - mono.tv_nsec) / 1e9;
}

static void ask(struct counts *c)
{
	json_t *o = cluster_json(&cluster, 0, "stats"), *value;
	const json_t *list = json_object_get(o, "syscalls_by_shard");
	const char *name;

	memset(c, 0, sizeof(*c));
	c->at_s = (double)json_integer_value(json_object_get(o, "monotonic_ns")) / 1e9 +
		  real_minus_monotonic_s();
	c->shards = (unsigned)json_array_size(list);
	ck_assert_uint_le(c->shards, SHARDS_MAX);
	for (unsigned i = 0; i < c->shards; i++) {
		c->kinds = 0;
		json_object_foreach(json_array_get(list, i), name, value)
		{
			ck_assert_uint_lt(c->kinds, KINDS_MAX);
			snprintf(c->name[c->kinds], sizeof(c->name[0]), "%s", name);
			c->made[i][c->kinds++] = (uint64_t)json_integer_value(value);
		}
	}
	json_decref(o);
}

/* ---- what strace saw ------------------------------------------------------------------- */

/* The master's name for a call in a line of strace. */
static void kind_of(const char *call, char name[32])
{
	static const char *const ioctls[][2] = {{"UFFDIO_COPY", "uffd_copy"},
						{"UFFDIO_WRITEPROTECT", "uffd_writeprotect"},
						{"UFFDIO_WAKE", "uffd_wake"},
						{"UFFDIO_CONTINUE", "uffd_continue"}};

	snprintf(name, 32, "%.*s", (int)strcspn(call, "("), call);
	for (size_t i = 0; !strcmp(name, "ioctl") && i < sizeof(ioctls) / sizeof(ioctls[0]); i++)
		if (strstr(call, ioctls[i][0]))
			snprintf(name, 32, "%s", ioctls[i][1]);
	/* malloc gives back what an answer to the operator took. */
	if (!strcmp(name, "madvise") && strstr(call, "MADV_DONTNEED"))
		snprintf(name, 32, "mprotect");
}

/* The shard of a thread, or -1. */
static int shard_of(int tid)
{
	char path[64], text[32];
	int shard;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", (int)cluster.node[0].pid, tid);
	cluster_read(path, text, sizeof(text));
	return sscanf(text, "wvm-shard-%d", &shard) == 1 ? shard : -1;
}

/*
 * Adds the calls that began between two answers. A thread is stopped while strace
 * takes the time of its call, so what the shard had counted by then is what came before.
 */
static void read_log(const struct tracer *t, const struct counts *from, const struct counts *to,
		     struct counts *seen)
{
	FILE *f = fopen(t->log, "re");
	char line[1024], name[32];
	int tid, at, last = 0, shard = -1;
	double s;

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned k = 0;

		if (sscanf(line, "%d %lf %n", &tid, &s, &at) < 2 || !isalpha(line[at]) ||
		    s <= from->at_s || s >= to->at_s)
			continue; /* the second half of a call, a signal, or outside */
		if (tid != last)
			shard = shard_of(tid);
		last = tid;
		if (shard < 0)
			continue;
		kind_of(line + at, name);
		while (k < seen->kinds && strcmp(seen->name[k], name))
			k++;
		if (k < seen->kinds)
			seen->made[shard][k]++;
		else
			/* Of an answer to the operator, made by malloc; nothing else is left out.
			 */
			ck_assert_msg(!strcmp(name, "brk") || !strcmp(name, "mmap") ||
					      !strcmp(name, "munmap") || !strcmp(name, "mprotect"),
				      "not counted: %s", line);
	}
	fclose(f);
}

/* ---- the work -------------------------------------------------------------------------- */

/* Far apart at first; in order the second time, which is read ahead. */
static unsigned place(unsigned i, bool in_order)
{
	return in_order ? i : i * 389u % PAGES;
}

/* Everybody writes its own pages, reads those of the others, and writes into some of them. */
static void work(struct program *p)
{
	uint64_t *base = program_map(p, GIB - NODES * PAGES / 2 * PAGE, NODES * PAGES * PAGE);

	store(base, 1);
	atomic_fetch_add(&p->arena->word[MAPPED], 1);
	program_await_word(p, GO, 1);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < PAGES; i++)
			store(base + (i * NODES + p->index) * PAGE_WORDS, i + round + 1);
		program_meet(p);
		for (unsigned i = 0; i < PAGES; i++) {
			unsigned at = place(i, round), other = (p->index + 1 + round) % NODES;

			NEED(p, load(base + (at * NODES + other) * PAGE_WORDS) == at + round + 1,
			     "page %u", at);
		}
		program_meet(p);
	}
	atomic_fetch_add(&p->arena->word[DONE], 1);
	program_await_word(p, LEAVE, 1);
}

static void await(struct arena *a, unsigned word)
{
	while (a->word[word] < NODES && !a->failed)
		cluster_sleep_ms(1);
	ck_assert_msg(!a->failed, "%s", a->text);
}

static void expect_equal(const struct counts *before, const struct counts *after,
			 const struct counts *seen)
{
	static const char *const must[] = {"io_uring_enter", "uffd_copy", "uffd_writeprotect",
					   "pread64",        "fallocate", "lseek",
					   "madvise",        "statfs"};
	uint64_t sum = 0;

	for (unsigned i = 0; i < after->shards; i++)
		for (unsigned k = 0; k < after->kinds; k++) {
			uint64_t said = after->made[i][k] - before->made[i][k];

			ck_assert_msg(said == seen->made[i][k],
				      "shard %u: %s: the master says %lu, strace %lu", i,
				      after->name[k], said, seen->made[i][k]);
			sum += said;
		}
	for (unsigned m = 0; m < sizeof(must) / sizeof(must[0]); m++)
		for (unsigned k = 0; k < after->kinds; k++)
			ck_assert_msg(strcmp(after->name[k], must[m]) ||
					      seen->made[0][k] + seen->made[1][k],
				      "the work makes no %s", must[m]);
	printf("proof: counted system calls: %lu of %u shards, each kind as strace counts it\n",
	       sum, after->shards);
}

static void compare_with_strace(const char *shards)
{
	struct arena *a = arena_new(0);
	struct program programs[NODES], *list[NODES];
	static struct counts before, after, seen;
	struct tracer t;
	bool traced;

	/* A budget that the pages do not fit into: some are given up meanwhile. */
	cluster_start(&cluster, &(struct cluster_opts){.shards = shards, .ram_mb = "8"});
	for (unsigned i = 0; i < NODES; i++) {
		programs[i] = (struct program){
			.cluster = &cluster, .arena = a, .node = i, .index = i, .count = NODES};
		list[i] = &programs[i];
		program_start(list[i], work);
	}
	await(a, MAPPED);
	traced = trace(&t, cluster.node[0].pid);
	ask(&before);
	a->word[GO] = 1;
	await(a, DONE);
	cluster_sleep_ms(200); /* what is under way: other shards' counters stand still then */
	ask(&after);
	if (traced) {
		trace_end(&t);
		seen = after;
		memset(seen.made, 0, sizeof(seen.made));
		read_log(&t, &before, &after, &seen);
		expect_equal(&before, &after, &seen);
	}
	a->word[LEAVE] = 1;
	programs_await(list, NODES);
	cluster_stop(&cluster);
	arena_free(a);
}

START_TEST(every_kind_of_system_call_is_counted_as_strace_counts_it)
{
	if (!is_there("strace"))
		printf("SKIPPED: there is no strace\n");
	else
		compare_with_strace(_i ? "2" : "1");
}
END_TEST

static Suite *calls_suite(void)
{
	Suite *s = suite_create("calls");
	TCase *t = cluster_tcase(s, "calls", 120);

	tcase_add_loop_test(t, every_kind_of_system_call_is_counted_as_strace_counts_it, 0, 2);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {calls_suite};

	return cluster_main(argv, suites, 1);
}

/* A master allocates nothing while it serves: counted by a library preloaded into it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "roles/check/program.h"

#define NODES  3u
#define PAGES  8192u
#define ROUNDS 3u
/*
 * Of all nodes: per page and round a write fault and two others' read faults, less the first
 * round's write faults, of units that are granted whole.
 */
#define FAULTS 50000u

/* Words of the arena. */
enum { MAPPED = 10, GO, DONE, LEAVE, FAULTED };

static struct cluster cluster;
static uint64_t *counts[NODES];
static char library[160];

/* A file of one counter for each master. */
static void start(const char *shards)
{
	cluster_preload(library, sizeof(library), "count");
	cluster_prepare(&cluster, &(struct cluster_opts){.shards = shards, .preload = library});
	for (unsigned i = 0; i < NODES; i++) {
		char path[160];
		int fd;

		snprintf(path, sizeof(path), "%s/count.%u", cluster.dir, i);
		fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
		ck_assert_int_eq(ftruncate(fd, PAGE), 0);
		counts[i] = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
		ck_assert_ptr_ne(counts[i], MAP_FAILED);
		close(fd);
		setenv("WVM_COUNT_FILE", path, 1);
		cluster_node_start(&cluster, i, NULL);
	}
	for (unsigned i = 0; i < NODES; i++)
		cluster_node_await(&cluster, i);
}

/* All pages, each once, so far apart that nobody asks for the next ones ahead. */
static unsigned out_of_order(unsigned i)
{
	return i * 6101u % PAGES; /* odd: PAGES is a power of two */
}

/* Nodes write all pages in turn, and read what the others wrote. */
static void fault(struct program *p)
{
	uint64_t *base = program_map(p, GIB - PAGES / 2 * PAGE, PAGES * PAGE);
	struct wvm_stats stats;

	atomic_fetch_add(&p->arena->word[MAPPED], 1);
	program_await_word(p, GO, 1);
	for (unsigned r = 0; r < ROUNDS; r++) {
		for (unsigned i = 0; p->index == r && i < PAGES; i++)
			store(base + out_of_order(i) * PAGE_WORDS, r + i);
		program_meet(p);
		for (unsigned i = 0; p->index != r && i < PAGES; i++)
			NEED(p, load(base + out_of_order(i) * PAGE_WORDS) == r + i, "page %u", i);
		program_meet(p);
	}
	atomic_fetch_add(&p->arena->word[DONE], 1);
	program_await_word(p, LEAVE, 1);
	NEED(p, !wvm_stats(p->wvm, &stats), "stats");
	atomic_fetch_add(&p->arena->word[FAULTED], stats.faults_read + stats.faults_write);
}

static void await(struct arena *a, unsigned word)
{
	while (a->word[word] < NODES && !a->failed)
		cluster_sleep_ms(1);
}

static void count_allocations(const char *shards)
{
	struct arena *a = arena_new(0);
	struct program programs[NODES], *list[NODES];
	uint64_t before[NODES], after[NODES];

	start(shards);
	for (unsigned i = 0; i < NODES; i++) {
		programs[i] = (struct program){
			.cluster = &cluster, .arena = a, .node = i, .index = i, .count = NODES};
		list[i] = &programs[i];
		program_start(list[i], fault);
	}
	await(a, MAPPED);
	for (unsigned i = 0; i < NODES; i++)
		before[i] = __atomic_load_n(counts[i], __ATOMIC_RELAXED);
	a->word[GO] = 1;
	await(a, DONE);
	for (unsigned i = 0; i < NODES; i++)
		after[i] = __atomic_load_n(counts[i], __ATOMIC_RELAXED);
	a->word[LEAVE] = 1;
	programs_await(list, NODES);
	ck_assert_uint_ge(a->word[FAULTED], FAULTS * 9 / 10);
	for (unsigned i = 0; i < NODES; i++) {
		ck_assert_uint_gt(before[i], 10); /* it does count */
		ck_assert_msg(after[i] == before[i], "node %u: %lu allocations in %llu faults", i,
			      after[i] - before[i], a->word[FAULTED]);
	}
	cluster_stop(&cluster);
}

START_TEST(a_hundred_thousand_faults_allocate_nothing)
{
	if (CLUSTER_SANITIZED)
		printf("SKIPPED: a sanitizer has its own allocator\n");
	else
		count_allocations(_i ? "2" : "1");
}
END_TEST

static Suite *alloc_suite(void)
{
	Suite *s = suite_create("alloc");
	TCase *t = cluster_tcase(s, "alloc", 60);

	tcase_add_loop_test(t, a_hundred_thousand_faults_allocate_nothing, 0, 2);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {alloc_suite};

	return cluster_main(argv, suites, 1);
}

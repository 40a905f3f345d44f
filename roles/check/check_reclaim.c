/*
 * A node whose programs use four times the memory that it may have: every byte
 * is what was stored, the budget is kept at every look, and pages really went.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "roles/check/harm.h"

#define NODE        0u /* the one with the budget */
#define OTHER       1u
#define BUDGET_MB   64u
#define BUDGET      (BUDGET_MB * 256u) /* pages */
#define PAGES       (4 * BUDGET)
#define BASE        (64 * MIB)
#define THREADS     4u
#define SHARED      2048u /* of the first pages: loaded by the other node, too */
#define MOST        (BUDGET + BUDGET / 20)
#define GENERATIONS 2u

/* Words of the arena. */
enum { WRITTEN = 10, ENDED };

static struct cluster cluster;

static bool mine(const struct program *p, uint64_t page)
{
	return page % THREADS == p->index;
}

/* A page whose bytes were torn, lost or older would differ in some word. */
static void check_page(struct program *p, const uint64_t *base, uint64_t page, uint64_t generation)
{
	int at = pattern_differs(base + page * PAGE_WORDS, page, generation);

	NEED(p, at < 0, "page %lu word %d, generation %lu", page, at, generation);
}

static void fill_and_verify(struct program *p)
{
	uint64_t *base = program_map(p, BASE, PAGES * PAGE);

	for (uint64_t g = 1; g <= GENERATIONS; g++) {
		for (uint64_t i = 0; i < PAGES; i++) {
			if (!mine(p, i))
				continue;
			if (g > 1)
				check_page(p, base, i, g - 1);
			pattern_fill(base + i * PAGE_WORDS, i, g);
		}
		harm_tell(p, WRITTEN);
	}
	program_await_word(p, WRITTEN, THREADS * GENERATIONS);
	/* What another one stored. */
	for (uint64_t i = (p->index + 1) % THREADS; i < PAGES; i += THREADS)
		check_page(p, base, i, GENERATIONS);
	harm_tell(p, ENDED);
}

/* The first word of a page only grows in generations: what it takes away and gives back. */
static void look_on(struct program *p)
{
	uint64_t *base = program_map(p, BASE, PAGES * PAGE);

	while (atomic_load(&p->arena->word[ENDED]) < THREADS) {
		uint64_t page = program_random(p) % SHARED, g = 0;
		uint64_t is = load(base + page * PAGE_WORDS);

		while (g <= GENERATIONS && is != (g ? pattern(page, 0, g) : 0))
			g++;
		NEED(p, g <= GENERATIONS, "page %lu: %lx was never stored", page, is);
		NEED(p, g >= p->arena->model[page], "page %lu went back to %lu", page, g);
		p->arena->model[page] = g;
	}
	for (uint64_t i = 0; i < PAGES; i++)
		check_page(p, base, i, GENERATIONS);
}

static void either(struct program *p)
{
	(p->node == NODE ? fill_and_verify : look_on)(p);
}

/* Pages that the RAM file occupies, as the kernel counts them. */
static uint64_t file_pages(void)
{
	char path[200];
	struct stat st;

	snprintf(path, sizeof(path), "%s.%u", cluster.node[NODE].shm, CLUSTER_VM);
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512 / PAGE;
}

static uint64_t look(uint64_t most)
{
	uint64_t pages = file_pages();

	ck_assert_msg(pages <= MOST, "%lu pages in the RAM file, of %u", pages, BUDGET);
	return pages > most ? pages : most;
}

static uint64_t watch_until(struct arena *a, unsigned word, uint64_t value, uint64_t most)
{
	for (unsigned i = 0; atomic_load(&a->word[word]) < value; i++) {
		ck_assert_msg(!a->failed, "%s", a->text);
		most = look(most);
		if (i % 64 == 0) {
			uint64_t held = cluster_status(&cluster, NODE, "pages_shared") +
					cluster_status(&cluster, NODE, "pages_modified");

			ck_assert_msg(held <= MOST, "status: %lu pages of %u", held, BUDGET);
		}
		cluster_sleep_ms(2);
	}
	return most;
}

static void four_times_the_budget(const char *shards, bool kill)
{
	struct arena *a = arena_new(SHARED);
	struct program programs[THREADS + 1], *list[THREADS + 1];
	uint64_t most = 0;

	cluster_start(&cluster, &(struct cluster_opts){.shards = shards, .ram_mb = "64"});
	for (unsigned i = 0; i <= THREADS; i++) {
		programs[i] = (struct program){.cluster = &cluster,
					       .arena = a,
					       .node = i < THREADS ? NODE : OTHER,
					       .index = i,
					       .count = THREADS + 1};
		list[i] = &programs[i];
		program_start(list[i], either);
	}
	if (kill) {
		most = watch_until(a, WRITTEN, 1, most);
		ck_assert_uint_gt(cluster_status(&cluster, NODE, "evicted_modified"), BUDGET / 4);
		cluster_node_end(&cluster, NODE, SIGKILL);
		cluster_node_start(&cluster, NODE, NULL);
		cluster_node_await(&cluster, NODE);
	}
	most = watch_until(a, ENDED, THREADS, most);
	programs_await(list, THREADS + 1);
	ck_assert_uint_gt(most, BUDGET * 9 / 10);
	ck_assert_uint_gt(cluster_status(&cluster, NODE, "evicted_modified"), BUDGET);
	ck_assert_uint_gt(cluster_status(&cluster, NODE, "evicted_shared"), BUDGET);
	ck_assert_uint_eq(cluster_status(&cluster, NODE, "reclaim_failed"), 0);
	printf("proof: budget of %u pages%s: at most %lu in the RAM file, %lu Shared and %lu "
	       "Modified given up, %lu faults waited\n",
	       BUDGET, kill ? ", killed in the middle" : "", most,
	       cluster_status(&cluster, NODE, "evicted_shared"),
	       cluster_status(&cluster, NODE, "evicted_modified"),
	       cluster_status(&cluster, NODE, "reclaim_waits"));
	cluster_stop(&cluster);
	arena_free(a);
}

START_TEST(four_times_the_budget_is_used_and_the_budget_is_kept)
{
	four_times_the_budget("1", false);
}
END_TEST

START_TEST(also_by_a_master_that_is_killed_in_the_middle)
{
	four_times_the_budget("1", true);
}
END_TEST

static Suite *reclaim_suite(void)
{
	Suite *s = suite_create("reclaim");
	TCase *t = cluster_tcase(s, "reclaim", 180);

	tcase_add_test(t, four_times_the_budget_is_used_and_the_budget_is_kept);
	tcase_add_test(t, also_by_a_master_that_is_killed_in_the_middle);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {reclaim_suite};

	return cluster_main(argv, suites, 1);
}

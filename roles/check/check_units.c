/*
 * Units granted whole, on real masters: memory that nobody shares costs one
 * request per 2 MiB, and whoever comes later gets every byte.
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "roles/check/harm.h"

#define UNITS 16u
#define PAGES (UNITS * (unsigned)(2 * MIB / PAGE))
#define BASE  (64 * MIB)

static struct cluster cluster;

static uint64_t *map(struct program *p)
{
	return program_map(p, BASE, PAGES * PAGE);
}

static void write_all(struct program *p)
{
	uint64_t *base = map(p);

	for (unsigned i = 0; i < PAGES; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 1);
}

/* Of every 7th page; the rest stays where it is. */
static void read_some(struct program *p)
{
	uint64_t *base = map(p);

	for (unsigned i = 0; i < PAGES; i += 7)
		NEED(p, pattern_differs(base + i * PAGE_WORDS, i, 1) < 0, "page %u", i);
}

static void write_some(struct program *p)
{
	uint64_t *base = map(p);

	for (unsigned i = 0; i < PAGES; i += 5)
		pattern_fill(base + i * PAGE_WORDS, i, 2);
}

static void verify_all(struct program *p)
{
	uint64_t *base = map(p);

	for (unsigned i = 0; i < PAGES; i++)
		NEED(p, pattern_differs(base + i * PAGE_WORDS, i, i % 5 ? 1 : 2) < 0, "page %u", i);
}

static uint64_t sum(const char *name)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < cluster.nodes; i++)
		total += cluster_stat(&cluster, i, "core", name);
	return total;
}

START_TEST(first_touch_asks_once_for_a_unit_and_every_byte_can_be_had_later)
{
	struct arena *a = arena_new(0);
	uint64_t tracked;

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, (const unsigned[]){1}, 1, write_all, NULL);
	ck_assert_uint_eq(cluster_stat(&cluster, 1, "core", "requests_sent"), UNITS);
	ck_assert_uint_eq(sum("home_units"), UNITS);
	ck_assert_uint_eq(sum("pages_homed"), 0);
	ck_assert_uint_eq(cluster_status(&cluster, 1, "pages_modified"), PAGES);
	/* What others want is split off, page by page and no more. */
	programs_run(&cluster, a, (const unsigned[]){2}, 1, read_some, NULL);
	tracked = (PAGES + 6) / 7;
	ck_assert_uint_eq(sum("pages_homed"), tracked);
	ck_assert_uint_eq(cluster_stat(&cluster, 1, "core", "unit_pages_split"), tracked);
	programs_run(&cluster, a, (const unsigned[]){0}, 1, write_some, NULL);
	/* All is there on every node, also when the owner of most is a new process. */
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, 1, SIGKILL)));
	cluster_node_start(&cluster, 1, NULL);
	cluster_node_await(&cluster, 1);
	programs_run(&cluster, a, (const unsigned[]){1, 2, 0}, 3, verify_all, NULL);
	cluster_stop(&cluster);
}
END_TEST

/* Threads of all nodes store to a word of their own in each page of the same untouched units. */
static void store_own_word(struct program *p)
{
	uint64_t *base = map(p);

	program_meet(p);
	for (unsigned i = 0; i < 1024; i++)
		store(base + (i * 8 % PAGES) * PAGE_WORDS + p->index, p->index + 1);
	program_meet(p);
	for (unsigned i = 0; i < 1024; i++)
		for (unsigned k = 0; k < p->count; k++)
			NEED(p, load(base + (i * 8 % PAGES) * PAGE_WORDS + k) == k + 1,
			     "page %u word %u", i * 8 % PAGES, k);
}

START_TEST(nodes_that_touch_the_same_units_first_lose_no_store)
{
	static const unsigned nodes[] = {0, 1, 2, 0, 1, 2};
	struct arena *a = arena_new(0);

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, nodes, 6, store_own_word, NULL);
	ck_assert_uint_gt(sum("home_units"), 0);
	cluster_stop(&cluster);
}
END_TEST

static void rewrite_all(struct program *p)
{
	uint64_t *base = map(p);

	for (unsigned i = 0; i < PAGES; i++)
		pattern_fill(base + i * PAGE_WORDS, i, i % 5 ? 1 : 2);
}

/* Also while masters are killed that have just asked for it, or just granted it. */
START_TEST(a_unit_is_put_together_again_when_one_node_has_all_of_it)
{
	struct arena *a = arena_new(0);

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, (const unsigned[]){1}, 1, write_all, NULL);
	programs_run(&cluster, a, (const unsigned[]){2, 0}, 2, read_some, NULL);
	ck_assert_uint_gt(sum("pages_homed"), 0);
	programs_run(&cluster, a, (const unsigned[]){1}, 1, rewrite_all, NULL);
	for (unsigned i = 0; i < 100 && sum("units_merged") < UNITS; i++)
		cluster_sleep_ms(100);
	ck_assert_uint_eq(sum("units_merged"), UNITS);
	ck_assert_uint_eq(sum("home_merges"), UNITS);
	ck_assert_uint_eq(sum("pages_homed"), 0);
	ck_assert_uint_eq(cluster_status(&cluster, 1, "pages_modified"), PAGES);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert(WIFSIGNALED(cluster_node_end(&cluster, i, SIGKILL)));
		cluster_node_start(&cluster, i, NULL);
		cluster_node_await(&cluster, i);
	}
	ck_assert_uint_eq(sum("pages_homed"), 0);
	programs_run(&cluster, a, (const unsigned[]){1, 2, 0}, 3, verify_all, NULL);
	cluster_stop(&cluster);
}
END_TEST

static Suite *units_suite(void)
{
	Suite *s = suite_create("units");
	TCase *t = cluster_tcase(s, "units", 120);

	tcase_add_test(t, first_touch_asks_once_for_a_unit_and_every_byte_can_be_had_later);
	tcase_add_test(t, nodes_that_touch_the_same_units_first_lose_no_store);
	tcase_add_test(t, a_unit_is_put_together_again_when_one_node_has_all_of_it);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {units_suite};

	return harm_main(argv, suites, 1);
}

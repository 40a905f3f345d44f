/*
 * Reading ahead between real masters: who reads in order finds most pages there
 * before it asks, every byte is right while another node writes, and
 * who does not read in order asks for nothing more.
 */
#include <stdio.h>
#include <string.h>

#include "roles/check/program.h"

#define READ_GPA   (64 * MIB)
#define READ_PAGES (32 * MIB / PAGE)
#define WRITE_STEP 3u /* one page in so many is written meanwhile */

static const unsigned one_each[] = {0, 1, 2};
static struct cluster cluster;

static void fill(struct program *p, uint64_t *base)
{
	for (uint64_t i = 0; i < READ_PAGES; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 1);
}

/*
 * From the last word to the first, as the writer goes from the first to the
 * last: once a word is new, all that are read after it must be. What the model
 * says is new must be so from the beginning. True: the page is new.
 */
static bool verify(struct program *p, const uint64_t *page, uint64_t number)
{
	bool fresh = __atomic_load_n(&p->arena->model[number], __ATOMIC_ACQUIRE);

	for (unsigned k = PAGE_WORDS; k-- > 0;) {
		uint64_t is = load(page + k);

		fresh |= is == pattern(number, k, 2);
		NEED(p, is == pattern(number, k, fresh ? 2 : 1), "page %lu word %u: %lx, %s",
		     number, k, is, fresh ? "though the page is new" : "which nobody wrote");
	}
	return fresh;
}

/* In order, but from the middle on: it is met by the reader, and behind it. */
static void write_some(struct program *p, uint64_t *base)
{
	for (uint64_t i = 0; i < READ_PAGES; i += WRITE_STEP) {
		uint64_t at = (i + READ_PAGES / 2) % READ_PAGES;
		uint64_t *page = base + at * PAGE_WORDS;

		for (unsigned k = 0; k < PAGE_WORDS; k++)
			store(page + k, pattern(at, k, 2));
		__atomic_store_n(&p->arena->model[at], 1, __ATOMIC_RELEASE);
	}
}

static void read_in_order(struct program *p)
{
	uint64_t *base = program_map(p, READ_GPA, READ_PAGES * PAGE), fresh = 0;

	if (p->index == 0)
		fill(p, base);
	program_meet(p);
	if (p->index == 2)
		write_some(p, base);
	for (uint64_t i = 0; p->index == 1 && i < READ_PAGES; i++)
		verify(p, base + i * PAGE_WORDS, i);
	program_meet(p);
	for (uint64_t i = 0; p->index != 2 && i < READ_PAGES; i++)
		fresh += verify(p, base + i * PAGE_WORDS, i);
	NEED(p, p->index == 2 || fresh == (READ_PAGES + WRITE_STEP - 1) / WRITE_STEP,
	     "%lu pages are new", fresh);
}

START_TEST(a_reader_in_order_is_ahead_of_its_faults_and_sees_every_byte)
{
	struct arena *a = arena_new(READ_PAGES);
	uint64_t asked, passed, faults;

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, one_each, 3, read_in_order, NULL);
	asked = cluster_status(&cluster, 1, "ahead_asked");
	passed = cluster_status(&cluster, 1, "ahead_passed");
	faults = cluster_stat(&cluster, 1, "core", "faults_read");
	printf("%lu pages: %lu asked for ahead, %lu passed without a fault, %lu read faults\n",
	       READ_PAGES, asked, passed, faults);
	ck_assert_uint_gt(asked, READ_PAGES / 2);
	ck_assert_uint_gt(passed, READ_PAGES / 4);
	ck_assert_uint_lt(faults, READ_PAGES / 2);
	ck_assert_uint_eq(cluster_stat(&cluster, 1, "core", "faults_failed"), 0);
	/* What the reader installs and what its owner gives goes many pages at a time. */
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_gt(cluster_stat(&cluster, i, "memory", "run_pages"), READ_PAGES / 4);
		ck_assert_uint_gt(cluster_stat(&cluster, i, "memory", "run_pages"),
				  4 * cluster_stat(&cluster, i, "memory", "runs"));
	}
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

static void read_out_of_order(struct program *p)
{
	uint64_t *base = program_map(p, READ_GPA, READ_PAGES * PAGE);

	if (p->index == 0)
		fill(p, base);
	program_meet(p);
	for (uint64_t i = 0, at = 0; p->index == 1 && i < READ_PAGES; i++) {
		at = (at * 1229 + 3571) % READ_PAGES; /* every page once, without order */
		verify(p, base + at * PAGE_WORDS, at);
	}
}

START_TEST(a_reader_without_order_asks_for_next_to_nothing_ahead)
{
	struct arena *a = arena_new(READ_PAGES);

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, one_each, 3, read_out_of_order, NULL);
	ck_assert_uint_ge(cluster_stat(&cluster, 1, "core", "faults_read"), READ_PAGES * 9 / 10);
	ck_assert_uint_lt(cluster_status(&cluster, 1, "ahead_asked"), READ_PAGES / 20);
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

START_TEST(a_master_reads_nothing_ahead_when_told_so)
{
	static const char *const none[] = {"--read-ahead", "0", NULL};
	struct arena *a = arena_new(READ_PAGES);

	cluster_prepare(&cluster, NULL);
	for (unsigned i = 0; i < 3; i++)
		cluster_node_start(&cluster, i, none);
	for (unsigned i = 0; i < 3; i++)
		cluster_node_await(&cluster, i);
	programs_run(&cluster, a, one_each, 3, read_in_order, NULL);
	ck_assert_uint_eq(cluster_status(&cluster, 1, "ahead_asked"), 0);
	ck_assert_uint_ge(cluster_stat(&cluster, 1, "core", "faults_read"), READ_PAGES);
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

static Suite *ahead_suite(void)
{
	Suite *s = suite_create("ahead");
	TCase *tc = cluster_tcase(s, "ahead", 120);

	tcase_add_test(tc, a_reader_in_order_is_ahead_of_its_faults_and_sees_every_byte);
	tcase_add_test(tc, a_reader_without_order_asks_for_next_to_nothing_ahead);
	tcase_add_test(tc, a_master_reads_nothing_ahead_when_told_so);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {ahead_suite};

	return cluster_main(argv, suites, 1);
}

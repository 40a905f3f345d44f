/*
 * A node whose programs use many times the memory that it may have: every byte
 * is what was stored, the budget is kept at every look, and pages really went.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "roles/check/harm.h"

#define NODE         0u /* the one with the budget */
#define OTHER        1u
#define PAGES_PER_MB 256u
#define BASE         (64 * MIB)
#define THREADS      4u
#define SHARED       1024u /* of the first pages: loaded by the other node, too */
#define GENERATIONS  2u

/* Words of the arena. */
enum { WRITTEN = 10, ENDED, PINNED, FAILED, FAULTING, LOADED, LET_GO };

static struct cluster cluster;
static uint64_t budget, pages_used; /* pages; before the programs are forked */

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
	uint64_t *base = program_map(p, BASE, pages_used * PAGE);

	for (uint64_t g = 1; g <= GENERATIONS; g++) {
		for (uint64_t i = 0; i < pages_used; i++) {
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
	for (uint64_t i = (p->index + 1) % THREADS; i < pages_used; i += THREADS)
		check_page(p, base, i, GENERATIONS);
	harm_tell(p, ENDED);
}

/* The first word of a page only grows in generations: what it takes away and gives back. */
static void look_on(struct program *p)
{
	uint64_t *base = program_map(p, BASE, pages_used * PAGE);

	while (atomic_load(&p->arena->word[ENDED]) < THREADS) {
		uint64_t page = program_random(p) % SHARED, g = 0;
		uint64_t is = load(base + page * PAGE_WORDS);

		while (g <= GENERATIONS && is != (g ? pattern(page, 0, g) : 0))
			g++;
		NEED(p, g <= GENERATIONS, "page %lu: %lx was never stored", page, is);
		NEED(p, g >= p->arena->model[page], "page %lu went back to %lu", page, g);
		p->arena->model[page] = g;
	}
	for (uint64_t i = 0; i < pages_used; i++)
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

static uint64_t most_allowed(void)
{
	return budget + budget / 20;
}

static uint64_t look(uint64_t most)
{
	uint64_t pages = file_pages();

	ck_assert_msg(pages <= most_allowed(), "%lu pages in the RAM file, of %lu", pages, budget);
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

			ck_assert_msg(held <= most_allowed(), "status: %lu pages of %lu", held,
				      budget);
		}
		cluster_sleep_ms(2);
	}
	return most;
}

struct run {
	const char *ram_mb, *shards;
	unsigned times; /* the budget that is used */
	bool kill;
};

static const struct run runs[] = {
	{"64", "1", 4, false},
	{"64", "1", 4, true},
	{"1", "1", 16, false},
	{"2", "2", 8, true},
};

static void check_figures(const struct run *r, uint64_t most)
{
	uint64_t shared = cluster_status(&cluster, NODE, "evicted_shared");
	uint64_t modified = cluster_status(&cluster, NODE, "evicted_modified");
	uint64_t waits = cluster_status(&cluster, NODE, "reclaim_waits");

	ck_assert_uint_gt(most, budget * 8 / 10);
	ck_assert_uint_gt(modified, budget);
	ck_assert_uint_gt(shared, budget);
	ck_assert_uint_eq(cluster_status(&cluster, NODE, "reclaim_failed"), 0);
	printf("proof: budget of %lu pages, shards %s%s: at most %lu in the RAM file, %lu Shared "
	       "and %lu Modified given up, %lu faults waited\n",
	       budget, r->shards, r->kill ? ", killed in the middle" : "", most, shared, modified,
	       waits);
}

static void start_programs(struct arena *a, struct program *programs, struct program **list)
{
	for (unsigned i = 0; i <= THREADS; i++) {
		programs[i] = (struct program){.cluster = &cluster,
					       .arena = a,
					       .node = i < THREADS ? NODE : OTHER,
					       .index = i,
					       .count = THREADS + 1};
		list[i] = &programs[i];
		program_start(list[i], either);
	}
}

START_TEST(more_than_the_budget_is_used_and_the_budget_is_kept)
{
	const struct run *r = &runs[_i];
	struct arena *a = arena_new(SHARED);
	struct program programs[THREADS + 1], *list[THREADS + 1];
	uint64_t most = 0;

	budget = strtoul(r->ram_mb, NULL, 10) * PAGES_PER_MB;
	pages_used = budget * r->times;
	cluster_start(&cluster, &(struct cluster_opts){.shards = r->shards, .ram_mb = r->ram_mb});
	start_programs(a, programs, list);
	if (r->kill) {
		most = watch_until(a, WRITTEN, 1, most);
		ck_assert_uint_gt(cluster_status(&cluster, NODE, "evicted_modified"), budget / 4);
		cluster_node_end(&cluster, NODE, SIGKILL);
		cluster_node_start(&cluster, NODE, NULL);
		cluster_node_await(&cluster, NODE);
	}
	most = watch_until(a, ENDED, THREADS, most);
	programs_await(list, THREADS + 1);
	check_figures(r, most);
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

/* ---- nothing can go --------------------------------------------------------------------- */

#define PINNED_BYTES (PAGES_PER_MB * PAGE)
#define FREE_BASE    (BASE + PINNED_BYTES) /* what the other program wants */

static void pin_all(struct program *p)
{
	uint64_t *base = program_map(p, BASE, PINNED_BYTES);

	NEED(p, !wvm_pin(p->wvm, base, PINNED_BYTES), "pin");
	for (uint64_t i = 0; i < PAGES_PER_MB; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 1);
	harm_tell(p, PINNED);
	program_await_word(p, LET_GO, 1);
	NEED(p, !wvm_unpin(p->wvm, base, PINNED_BYTES), "unpin");
	program_await_word(p, LOADED, 1);
	for (uint64_t i = 0; i < PAGES_PER_MB; i++)
		check_page(p, base, i, 1);
}

/* Whoever waits for room too long is told; whoever still waits when pages may go gets it. */
static void want_more(struct program *p)
{
	uint64_t *base = program_map(p, FREE_BASE, MIB), value = 1;

	harm_catch_bus();
	program_await_word(p, PINNED, 1);
	NEED(p, harm_fails(p, base, false), "there was room");
	harm_tell(p, FAILED);
	base = harm_remap(p, base, FREE_BASE, MIB);
	program_await_word(p, FAULTING, 1);
	NEED(p, harm_load(p, base + PAGE_WORDS, &value) && !value, "%lu", value);
	harm_tell(p, LOADED);
}

static void pin_or_want(struct program *p)
{
	(p->index ? want_more : pin_all)(p);
}

static void await_waits(const struct arena *a, uint64_t more_than)
{
	for (unsigned i = 0; cluster_status(&cluster, NODE, "reclaim_waits") <= more_than; i++) {
		ck_assert_msg(!a->failed, "%s", a->text);
		ck_assert_msg(i < 2000, "no fault waits");
		cluster_sleep_ms(5);
	}
}

START_TEST(faults_wait_at_the_budget_and_get_room_or_an_error)
{
	struct arena *a = arena_new(0);
	struct program programs[2], *list[2];
	uint64_t waits;

	budget = PAGES_PER_MB;
	cluster_start(&cluster, &(struct cluster_opts){.shards = "1", .ram_mb = "1"});
	for (unsigned i = 0; i < 2; i++) {
		programs[i] = (struct program){
			.cluster = &cluster, .arena = a, .node = NODE, .index = i, .count = 2};
		list[i] = &programs[i];
		program_start(list[i], pin_or_want);
	}
	harm_await(a, FAILED, 1);
	ck_assert_uint_gt(cluster_status(&cluster, NODE, "reclaim_failed"), 0);
	waits = cluster_status(&cluster, NODE, "reclaim_waits");
	ck_assert_uint_gt(waits, 0);
	/* The next one waits anew: the error was for those before it. */
	cluster_sleep_ms(300);
	atomic_store(&a->word[FAULTING], 1);
	await_waits(a, waits);
	cluster_sleep_ms(200);
	ck_assert_uint_eq(atomic_load(&a->word[LOADED]), 0);
	ck_assert_uint_le(file_pages(), budget);
	atomic_store(&a->word[LET_GO], 1);
	programs_await(list, 2);
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

/* ---- shards that share it ---------------------------------------------------------------- */

#define IDLE_PAGES 480u /* of 512: in the first GiB, which is one shard's */
#define USED_PAGES 128u /* in the second, which is the other's */
#define ROUNDS_MAX 40u
#define ROUNDS     5u /* without a fault, one after the other */

static uint64_t faults_so_far(void)
{
	return cluster_stat(&cluster, NODE, "core", "faults_read") +
	       cluster_stat(&cluster, NODE, "core", "faults_write");
}

static void leave_idle_and_use(struct program *p)
{
	uint64_t *idle = program_map(p, BASE, IDLE_PAGES * PAGE);
	uint64_t *used = program_map(p, GIB + BASE, USED_PAGES * PAGE);

	for (uint64_t i = 0; i < IDLE_PAGES; i++)
		pattern_fill(idle + i * PAGE_WORDS, i, 1);
	for (uint64_t round = 1; !atomic_load(&p->arena->word[LET_GO]); round++) {
		for (uint64_t i = 0; i < USED_PAGES; i++)
			pattern_fill(used + i * PAGE_WORDS, i, round);
		harm_tell(p, LOADED);
		program_await_word(p, FAULTING, round);
	}
	for (uint64_t i = 0; i < IDLE_PAGES; i++)
		check_page(p, idle, i, 1);
}

/* What is used stays, however much another shard has that nobody touches any more. */
START_TEST(pages_that_are_idle_make_room_for_those_of_another_shard)
{
	struct arena *a = arena_new(0);
	struct program p = {.cluster = &cluster, .arena = a, .node = NODE, .count = 1};
	unsigned quiet = 0, round;
	uint64_t before, all;

	budget = 2 * PAGES_PER_MB;
	cluster_start(&cluster, &(struct cluster_opts){.shards = "2", .ram_mb = "2"});
	program_start(&p, leave_idle_and_use);
	harm_await(a, LOADED, 1);
	all = faults_so_far();
	for (round = 2; quiet < ROUNDS; round++) {
		ck_assert_msg(round < ROUNDS_MAX, "%lu faults in %u rounds over %u pages of %lu",
			      faults_so_far() - all, round - 2, USED_PAGES, budget);
		before = faults_so_far();
		atomic_store(&a->word[FAULTING], round - 1);
		harm_await(a, LOADED, round);
		quiet = faults_so_far() == before ? quiet + 1 : 0;
	}
	ck_assert_uint_gt(cluster_status(&cluster, NODE, "evicted_modified"), 0);
	atomic_store(&a->word[LET_GO], 1);
	atomic_store(&a->word[FAULTING], round);
	programs_await((struct program *const[]){&p}, 1);
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

static Suite *reclaim_suite(void)
{
	Suite *s = suite_create("reclaim");
	TCase *t = cluster_tcase(s, "reclaim", 180);

	tcase_add_loop_test(t, more_than_the_budget_is_used_and_the_budget_is_kept, 0,
			    sizeof(runs) / sizeof(runs[0]));
	t = cluster_tcase(s, "full", 60);
	tcase_add_test(t, faults_wait_at_the_budget_and_get_room_or_an_error);
	tcase_add_test(t, pages_that_are_idle_make_room_for_those_of_another_shard);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {reclaim_suite};

	return cluster_main(argv, suites, 1);
}

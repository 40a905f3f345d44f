/* wvm_code_watch(): who has translated from a page knows before a store to it is done. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/program.h"

#define CODE_GPA   (GIB - 8 * MIB) /* the border between two shards is in the middle of it */
#define CODE_LEN   (16 * MIB)
#define CODE_PAGES (CODE_LEN / PAGE)
#define RING       1024u /* more entries than that are an overrun */
#define ROUNDS     300u
#define ANSWER_MS  2000u /* a client that does not answer for so long is ended */

/* Words of the arena. */
enum { MARKED = 10, WRITTEN, CALLS, HANG, BACK, TOOK /* of writer 1, of writer 2 */ };

static struct cluster cluster;

static void start(void)
{
	cluster_start(&cluster, &(struct cluster_opts){.nodes = 2, .shards = "2"});
}

static void stop(void)
{
	cluster_stop(&cluster);
}

static uint64_t word(struct program *p, unsigned i)
{
	return atomic_load(&p->arena->word[i]);
}

static void set(struct program *p, unsigned i, uint64_t value)
{
	atomic_store(&p->arena->word[i], value);
}

/* The callback: takes its time, counts, and hangs when it is told to. */
static void changed(void *opaque)
{
	struct program *p = opaque;

	usleep(200);
	atomic_fetch_add(&p->arena->word[CALLS], 1);
	while (word(p, HANG))
		usleep(1000);
}

static uint8_t *watch(struct program *p)
{
	uint8_t *base = program_map(p, CODE_GPA, CODE_LEN);
	int ret = wvm_code_watch(p->wvm, changed, p);

	NEED(p, !ret, "watch: %s", strerror(-ret));
	return base;
}

static void mark(struct program *p, const void *at)
{
	int ret = wvm_code_mark(p->wvm, at);

	NEED(p, !ret, "mark: %s", strerror(-ret));
}

/* Exactly this page is in the ring. */
static void expect_one(struct program *p, uint64_t *cursor, const void *page, unsigned round)
{
	void *pages[8];
	int n = wvm_code_drain(p->wvm, cursor, pages, 8);

	NEED(p, n == 1 && pages[0] == page, "round %u: %d entries, the first %p instead of %p",
	     round, n, n > 0 ? pages[0] : NULL, page);
}

static void expect_none(struct program *p, uint64_t *cursor)
{
	void *pages[8];
	int n = wvm_code_drain(p->wvm, cursor, pages, 8);

	NEED(p, n == 0, "%d entries", n);
}

/* ---- what is seen when ----------------------------------------------------------------- */

static uint64_t *at_round(uint8_t *base, unsigned round)
{
	/* Neighbours of the border, a few of them again and again. */
	return (uint64_t *)(base + CODE_LEN / 2 + (round % 7) * PAGE - 3 * PAGE);
}

static void write_marked(struct program *p, uint8_t *base)
{
	for (unsigned i = 1; i <= ROUNDS; i++) {
		program_await_word(p, MARKED, i);
		store(at_round(base, i), i);
		set(p, WRITTEN, i);
	}
}

/* Watches for the store itself, or for the word that follows it, in turn. */
static void mark_and_look(struct program *p)
{
	uint8_t *base = p->index ? program_map(p, CODE_GPA, CODE_LEN) : watch(p);
	uint64_t cursor = 0;

	program_meet(p);
	if (p->index) {
		write_marked(p, base);
		return;
	}
	for (unsigned i = 1; i <= ROUNDS; i++) {
		uint64_t *page = at_round(base, i), calls = word(p, CALLS);

		mark(p, page);
		NEED(p, load(page) != i, "written before it was asked for");
		set(p, MARKED, i);
		if (i % 2)
			program_await_word(p, WRITTEN, i);
		while (load(page) != i)
			;
		NEED(p, word(p, CALLS) > calls, "round %u: nobody was told", i);
		expect_one(p, &cursor, page, i);
		program_await_word(p, WRITTEN, i);
	}
}

/* The second cursor gets one entry at a time, too. */
static void mark_and_look_twice(struct program *p)
{
	uint8_t *base = p->index ? program_map(p, CODE_GPA, CODE_LEN) : watch(p);
	uint64_t first = 0, second = 0, *page = (uint64_t *)(base + 2 * MIB);
	void *pages[1];

	program_meet(p);
	if (p->index) {
		program_await_word(p, MARKED, 1);
		store(page, 1);
		store(page + PAGE_WORDS, 1);
		set(p, WRITTEN, 1);
		return;
	}
	mark(p, page);
	mark(p, page + PAGE_WORDS);
	(void)(load(page) + load(page + PAGE_WORDS));
	set(p, MARKED, 1);
	program_await_word(p, WRITTEN, 1);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t *cursor = i ? &second : &first;

		NEED(p, wvm_code_drain(p->wvm, cursor, pages, 1) == 1 && pages[0] == page, "first");
		NEED(p,
		     wvm_code_drain(p->wvm, cursor, pages, 1) == 1 && pages[0] == page + PAGE_WORDS,
		     "second");
		NEED(p, wvm_code_drain(p->wvm, cursor, pages, 1) == 0, "third");
	}
}

static void run(const unsigned *nodes, unsigned count, program_fn *fn)
{
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, count, fn, NULL);
	arena_free(a);
}

START_TEST(a_store_of_another_node_is_not_seen_before_its_page_is_in_the_ring)
{
	static const unsigned nodes[] = {0, 1};

	run(nodes, 2, mark_and_look);
}
END_TEST

START_TEST(a_store_of_another_program_of_the_node_is_not_seen_before_its_page_is_in_the_ring)
{
	static const unsigned nodes[] = {0, 0};

	run(nodes, 2, mark_and_look);
}
END_TEST

START_TEST(each_cursor_gets_every_entry)
{
	static const unsigned nodes[] = {0, 1};

	run(nodes, 2, mark_and_look_twice);
}
END_TEST

static void mark_none(struct program *p)
{
	uint8_t *base = p->index ? program_map(p, CODE_GPA, CODE_LEN) : watch(p);
	uint64_t cursor = 0, calls;

	program_meet(p);
	if (p->index) {
		for (unsigned i = 0; i < 64; i++)
			store((uint64_t *)(base + i * PAGE), 2);
		set(p, WRITTEN, 1);
		program_await_word(p, MARKED, 1);
		store((uint64_t *)base, 3);
		set(p, WRITTEN, 2);
		return;
	}
	for (unsigned i = 0; i < 64; i++)
		(void)load((uint64_t *)(base + i * PAGE));
	program_await_word(p, WRITTEN, 1);
	expect_none(p, &cursor);
	NEED(p, !word(p, CALLS), "called for nothing");
	/* Marked once is told once. */
	mark(p, base);
	(void)load((uint64_t *)base);
	set(p, MARKED, 1);
	program_await_word(p, WRITTEN, 2);
	expect_one(p, &cursor, base, 0);
	calls = word(p, CALLS);
	for (unsigned i = 0; i < 64; i++)
		store((uint64_t *)(base + i * PAGE), 4);
	expect_none(p, &cursor);
	NEED(p, word(p, CALLS) == calls, "called for nothing");
}

START_TEST(pages_that_are_not_marked_and_own_stores_cause_nothing)
{
	static const unsigned nodes[] = {0, 1};

	run(nodes, 2, mark_none);
}
END_TEST

/* ---- many at once ------------------------------------------------------------------------ */

static void mark_too_many(struct program *p)
{
	uint8_t *base = p->index ? program_map(p, CODE_GPA, CODE_LEN) : watch(p);
	uint64_t slow = 0, quick = 0, seen = 0;
	unsigned count = RING + 100;
	void *pages[64];
	int n;

	program_meet(p);
	if (p->index) {
		program_await_word(p, MARKED, 1);
		for (unsigned i = 0; i < count; i++) {
			store((uint64_t *)(base + i * PAGE), 1);
			set(p, WRITTEN, i + 1);
		}
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		mark(p, base + i * PAGE);
		(void)load((uint64_t *)(base + i * PAGE));
	}
	set(p, MARKED, 1);
	while (seen < count) {
		uint64_t written = word(p, WRITTEN);

		n = wvm_code_drain(p->wvm, &quick, pages, 64);
		NEED(p, n >= 0, "overrun at %lu", seen);
		for (int i = 0; i < n; i++, seen++)
			NEED(p, pages[i] == base + seen * PAGE, "entry %lu", seen);
		NEED(p, n == 64 || seen >= written, "%lu entries of %lu pages", seen, written);
	}
	n = wvm_code_drain(p->wvm, &slow, pages, 64);
	NEED(p, n == -EOVERFLOW, "%d after %u entries", n, count);
	expect_none(p, &slow);
	expect_none(p, &quick);
}

START_TEST(a_cursor_that_is_too_far_behind_is_told_so)
{
	static const unsigned nodes[] = {0, 1};

	run(nodes, 2, mark_too_many);
}
END_TEST

/* The other program is given room for a run of pages at once. */
static void mark_a_run(struct program *p)
{
	uint8_t *base = p->index ? program_map(p, CODE_GPA, CODE_LEN) : watch(p);
	uint64_t cursor = 0, calls;
	void *pages[16];
	int n;

	program_meet(p);
	if (p->index) {
		program_await_word(p, MARKED, 1);
		store((uint64_t *)base, 1);
		set(p, WRITTEN, 1);
		return;
	}
	for (unsigned i = 0; i < 8; i++) {
		mark(p, base + i * PAGE);
		(void)load((uint64_t *)(base + i * PAGE));
	}
	calls = word(p, CALLS);
	set(p, MARKED, 1);
	program_await_word(p, WRITTEN, 1);
	n = wvm_code_drain(p->wvm, &cursor, pages, 16);
	NEED(p, n == 8, "%d entries", n);
	NEED(p, word(p, CALLS) == calls + 1, "%lu calls", word(p, CALLS) - calls);
}

START_TEST(a_run_of_pages_costs_one_answer)
{
	/* A cluster of its own: its unit is untouched. */
	static const unsigned nodes[] = {0, 0};

	run(nodes, 2, mark_a_run);
}
END_TEST

/* ---- all at once ------------------------------------------------------------------------ */

#define BUSY_PAGES 4u /* on each side of the border two that are opened together, or one by one */
#define BUSY_MS    3000u
#define BUSY_LEAST 100u

/* Words of the arena from here on: by page, the lock of its writers and what they have stored. */
enum { LOCKED = 20, STORED = LOCKED + BUSY_PAGES };

static void store_on(struct program *p, uint8_t *base, uint64_t end, uint64_t *count)
{
	while (cluster_now_ms() < end) {
		unsigned i = (unsigned)(program_random(p) % BUSY_PAGES);
		unsigned long long free_one = 0;
		uint64_t n;

		if (!atomic_compare_exchange_strong(&p->arena->word[LOCKED + i], &free_one, 1))
			continue;
		n = word(p, STORED + i) + 1;
		store((uint64_t *)(base + i * PAGE), n);
		set(p, STORED + i, n);
		set(p, LOCKED + i, 0);
		++*count;
	}
}

/* Does with the pages' first words what a translator does with code: keeps them until told. */
static void keep_copies(struct program *p, uint8_t *base, uint64_t end, uint64_t *count)
{
	uint64_t copy[BUSY_PAGES], cursor = 0, kept = 0;
	void *pages[4];
	int n;

	while (cluster_now_ms() < end) {
		unsigned i = (unsigned)(program_random(p) % BUSY_PAGES);
		uint64_t stored = word(p, STORED + i);

		do {
			n = wvm_code_drain(p->wvm, &cursor, pages, 4);
			if (n == -EOVERFLOW)
				kept = 0;
			for (int k = 0; k < n; k++)
				kept &= ~(1ull << ((uint8_t *)pages[k] - base) / PAGE);
		} while (n == 4);
		if (!(kept >> i & 1)) {
			mark(p, base + i * PAGE);
			copy[i] = load((uint64_t *)(base + i * PAGE));
			kept |= 1ull << i;
			++*count;
		}
		NEED(p, copy[i] >= stored, "page %u: %lu is kept, %lu was stored", i, copy[i],
		     stored);
	}
}

static void busy(struct program *p)
{
	bool keeps = p->index % 2;
	uint8_t *base = keeps ? watch(p) : program_map(p, CODE_GPA, CODE_LEN);
	uint64_t end, count = 0;

	base += CODE_LEN / 2 - 2 * PAGE;
	program_meet(p);
	for (unsigned i = 0; !p->index && i < BUSY_PAGES; i++)
		store((uint64_t *)(base + i * PAGE), 0);
	program_meet(p);
	end = cluster_now_ms() + BUSY_MS;
	if (keeps)
		keep_copies(p, base, end, &count);
	else
		store_on(p, base, end, &count);
	NEED(p, count >= BUSY_LEAST, "%lu in %u ms", count, BUSY_MS);
}

START_TEST(what_is_kept_is_never_older_than_what_was_stored_whoever_stores)
{
	/* On node 0 two of each, on node 1 one. */
	static const unsigned nodes[] = {0, 0, 0, 0, 1, 1};

	run(nodes, 6, busy);
}
END_TEST

/* ---- who does not answer ----------------------------------------------------------------- */

static void hang_or_write(struct program *p)
{
	uint8_t *base = p->index ? program_map(p, CODE_GPA, CODE_LEN) : watch(p);
	uint64_t *page = (uint64_t *)(base + 100 * PAGE), before;

	program_meet(p);
	if (!p->index) {
		mark(p, page);
		(void)load(page);
		set(p, MARKED, 1);
		for (;;)
			pause();
	}
	program_await_word(p, MARKED, 1);
	if (p->index == 2)
		program_await_word(p, CALLS, 1); /* the other one waits already */
	before = cluster_now_ms();
	store(page, before);
	set(p, TOOK + p->index - 1, cluster_now_ms() - before);
	set(p, WRITTEN, 1);
}

/* One that hangs in its callback, and two that write on node `writer`. */
static struct arena *hang(struct program three[3], unsigned writer)
{
	struct arena *a = arena_new(0);

	atomic_store(&a->word[HANG], 1);
	for (unsigned i = 0; i < 3; i++) {
		three[i] = (struct program){.cluster = &cluster,
					    .arena = a,
					    .node = i ? writer : 0,
					    .index = i,
					    .count = 3};
		program_start(&three[i], hang_or_write);
	}
	while (!atomic_load(&a->word[CALLS]))
		cluster_sleep_ms(1);
	return a;
}

START_TEST(a_client_that_does_not_answer_is_ended_and_its_pages_given_away_then)
{
	struct program three[3], *writers[] = {&three[1], &three[2]};
	struct arena *a = hang(three, _i ? 0 : 1);
	char log[65536];
	int status;

	ck_assert_int_eq(waitpid(three[0].pid, &status, 0), three[0].pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	programs_await(writers, 2);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_ge(a->word[TOOK + i], ANSWER_MS - 100);
		ck_assert_uint_lt(a->word[TOOK + i], ANSWER_MS + 2000);
	}
	cluster_read(cluster.node[0].log, log, sizeof(log));
	ck_assert(strstr(log, "does not answer that code which it has translated is changed"));
	arena_free(a);
	/* And the node goes on. */
	run((const unsigned[]){0, 1}, 2, mark_and_look_twice);
}
END_TEST

START_TEST(a_client_that_is_killed_before_it_has_answered_is_not_waited_for)
{
	struct program three[3], *writers[] = {&three[1], &three[2]};
	struct arena *a = hang(three, _i ? 0 : 1);

	cluster_sleep_ms(100);
	ck_assert_uint_eq(a->word[WRITTEN], 0);
	program_kill(&three[0]);
	programs_await(writers, 2);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_ge(a->word[TOOK + i], 80);
		ck_assert_uint_lt(a->word[TOOK + i], ANSWER_MS - 200);
	}
	arena_free(a);
	run((const unsigned[]){0, 1}, 2, mark_and_look_twice);
}
END_TEST

/* ---- the next life of the master ---------------------------------------------------------- */

static void mark_over_lives(struct program *p)
{
	uint8_t *base = p->index ? program_map(p, CODE_GPA, CODE_LEN) : watch(p);
	uint64_t *page = at_round(base, 3), cursor = 0;
	void *pages[8];

	program_meet(p);
	if (p->index) {
		for (unsigned i = 1; i <= 2; i++) {
			program_await_word(p, MARKED, i);
			store(page, 10 + i);
			set(p, WRITTEN, i);
		}
		return;
	}
	mark(p, page);
	NEED(p, load(page) < 10, "written");
	set(p, BACK, 1);
	program_await_word(p, BACK, 2);
	set(p, MARKED, 1);
	program_await_word(p, WRITTEN, 1);
	NEED(p, wvm_code_drain(p->wvm, &cursor, pages, 8) == -EOVERFLOW, "no overrun");
	expect_none(p, &cursor);
	mark(p, page);
	NEED(p, load(page) == 11, "not written");
	set(p, MARKED, 2);
	program_await_word(p, WRITTEN, 2);
	expect_one(p, &cursor, page, 2);
}

START_TEST(what_was_marked_in_a_former_life_of_the_master_is_told_as_an_overrun)
{
	struct program two[2], *list[2] = {&two[0], &two[1]};
	struct arena *a = arena_new(0);

	start();
	for (unsigned i = 0; i < 2; i++) {
		two[i] = (struct program){
			.cluster = &cluster, .arena = a, .node = i, .index = i, .count = 2};
		program_start(&two[i], mark_over_lives);
	}
	while (atomic_load(&a->word[BACK]) != 1)
		cluster_sleep_ms(1);
	cluster_node_end(&cluster, 0, SIGKILL);
	cluster_node_start(&cluster, 0, NULL);
	cluster_node_await(&cluster, 0);
	atomic_store(&a->word[BACK], 2);
	programs_await(list, 2);
	arena_free(a);
	stop();
}
END_TEST

static void bad_calls(struct program *p)
{
	uint64_t cursor = 0;
	void *pages[1];
	int local;
	char *base = program_map(p, CODE_GPA, CODE_LEN);

	NEED(p, wvm_code_mark(p->wvm, base) == -EINVAL, "mark without watch");
	NEED(p, wvm_code_drain(p->wvm, &cursor, pages, 1) == -EINVAL, "drain without watch");
	NEED(p, !wvm_code_watch(p->wvm, changed, p), "watch");
	NEED(p, wvm_code_watch(p->wvm, changed, p) == -EALREADY, "watch twice");
	NEED(p, wvm_code_mark(p->wvm, &local) == -EINVAL, "mark of other memory");
	NEED(p, wvm_code_mark(p->wvm, base + CODE_LEN) == -EINVAL, "mark beyond");
	NEED(p, !wvm_code_mark(p->wvm, base + CODE_LEN - 1), "mark of the last");
	NEED(p, !wvm_unmap(p->wvm, base, CODE_LEN), "unmap");
	NEED(p, wvm_code_mark(p->wvm, base) == -EINVAL, "mark of what is unmapped");
}

START_TEST(marks_of_other_memory_are_refused)
{
	run((const unsigned[]){1}, 1, bad_calls);
}
END_TEST

static Suite *code_suite(void)
{
	Suite *s = suite_create("code");
	TCase *t = cluster_tcase(s, "code", 60);
	TCase *lives = cluster_tcase(s, "lives", 60);
	TCase *fresh = cluster_tcase(s, "fresh", 60);

	tcase_add_unchecked_fixture(t, start, stop);
	tcase_add_test(t, a_store_of_another_node_is_not_seen_before_its_page_is_in_the_ring);
	tcase_add_test(
		t,
		a_store_of_another_program_of_the_node_is_not_seen_before_its_page_is_in_the_ring);
	tcase_add_test(t, each_cursor_gets_every_entry);
	tcase_add_test(t, pages_that_are_not_marked_and_own_stores_cause_nothing);
	tcase_add_test(t, a_cursor_that_is_too_far_behind_is_told_so);
	tcase_add_test(t, what_is_kept_is_never_older_than_what_was_stored_whoever_stores);
	tcase_add_loop_test(t, a_client_that_does_not_answer_is_ended_and_its_pages_given_away_then,
			    0, 2);
	tcase_add_loop_test(t, a_client_that_is_killed_before_it_has_answered_is_not_waited_for, 0,
			    2);
	tcase_add_test(lives, what_was_marked_in_a_former_life_of_the_master_is_told_as_an_overrun);
	tcase_add_test(t, marks_of_other_memory_are_refused);
	tcase_add_unchecked_fixture(fresh, start, stop);
	tcase_add_test(fresh, a_run_of_pages_costs_one_answer);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {code_suite};

	return cluster_main(argv, suites, 1);
}

#include "roles/check/coherence.h"

#include <sched.h>
#include <string.h>
#include <unistd.h>

/*
 * The tests use 16 MiB around the border between two ranges of 1 GiB, so that
 * with two shards both serve faults; slices deal the homes among all nodes.
 */
#define AREA_BYTES (16 * MIB)
#define AREA_GPA   (GIB - AREA_BYTES / 2)
#define AREA_PAGES (AREA_BYTES / PAGE)

struct cluster coherence_cluster;
unsigned coherence_percent = 100;

static const unsigned two_each[] = {0, 1, 2, 0, 1, 2};
#define TWO_EACH 6u

static unsigned scaled(unsigned n)
{
	return n * coherence_percent / 100;
}

/* Pages of a test's own: its number decides where. */
static uint64_t *area(struct program *p)
{
	return program_map(p, AREA_GPA, AREA_BYTES);
}

static uint64_t *page_at(uint64_t *base, unsigned page)
{
	return base + page % AREA_PAGES * PAGE_WORDS;
}

#define BURST 50u

/* After each burst others get the page, whatever the number of CPUs. */
static void now_and_then(struct program *p, unsigned i)
{
	if (i % BURST == BURST - 1)
		usleep((unsigned)(program_random(p) % 300));
}

/* ---- counters -------------------------------------------------------------------------- */

#define HOT_PAGE 2047u /* the last below the border */

static void increment_one_page(struct program *p)
{
	uint64_t *word = page_at(area(p), HOT_PAGE);
	unsigned n = scaled(20000);
	struct wvm_stats stats;

	program_meet(p);
	for (unsigned i = 0; i < n; i++) {
		__atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
		now_and_then(p, i);
	}
	program_meet(p);
	NEED(p, load(word) == (uint64_t)n * p->count, "%lu instead of %u x %u", load(word), n,
	     p->count);
	NEED(p, !wvm_stats(p->wvm, &stats), "stats");
	atomic_fetch_add(&p->arena->word[0], stats.faults_write);
}

START_TEST(increments_of_one_page_by_six_programs_give_the_exact_total)
{
	struct arena *a = arena_new(0);

	programs_run(&coherence_cluster, a, two_each, TWO_EACH, increment_one_page, NULL);
	/* The page moved, or the test has tested nothing. */
	ck_assert_uint_ge(a->word[0], 2 * TWO_EACH);
	arena_free(a);
}
END_TEST

#define COUNTERS_FIRST 1920u /* 256 pages on both sides of the border */
#define COUNTERS       256u

static void increment_many_pages(struct program *p)
{
	uint64_t *base = area(p);
	unsigned n = scaled(5000);

	program_meet(p);
	for (unsigned i = 0; i < n; i++) {
		unsigned k = (unsigned)(program_random(p) % COUNTERS);

		__atomic_fetch_add(page_at(base, COUNTERS_FIRST + k) + k, 1, __ATOMIC_SEQ_CST);
		atomic_fetch_add((atomic_ullong *)&p->arena->model[k], 1);
	}
	program_meet(p);
	for (unsigned k = 0; k < COUNTERS; k++) {
		uint64_t is = load(page_at(base, COUNTERS_FIRST + k) + k);

		NEED(p, is == p->arena->model[k], "page %u: %lu instead of %lu", k, is,
		     p->arena->model[k]);
	}
}

START_TEST(a_counter_on_each_of_many_pages_has_its_exact_total_on_every_node)
{
	struct arena *a = arena_new(COUNTERS);

	programs_run(&coherence_cluster, a, two_each, TWO_EACH, increment_many_pages, NULL);
	arena_free(a);
}
END_TEST

/* ---- a random mix against a model ------------------------------------------------------ */

#define MIX_PAGES 48u
#define MIX_WORDS 16u /* of each page: one per 256 bytes, in every segment of a transfer */
#define MIX_FIRST 512u
#define MIX_LOCKS (MIX_FIRST + MIX_PAGES)     /* eight locks in each page from here */
#define MIX_SUMS  (MIX_LOCKS + MIX_PAGES / 8) /* word k: read-modify-writes of page k */

struct mix {
	uint64_t *base;
	uint64_t last[MIX_PAGES * MIX_WORDS]; /* newest value that this program saw */
	uint64_t added[MIX_PAGES];
};

static uint64_t *mix_word(struct mix *m, unsigned page, unsigned i)
{
	return page_at(m->base, MIX_FIRST + page) + i * (PAGE_WORDS / MIX_WORDS);
}

static uint64_t *mix_lock_word(struct mix *m, unsigned page)
{
	return page_at(m->base, MIX_LOCKS + page / 8) + page % 8 * 8;
}

/* The word after the first: nothing else of the page is there. */
static uint64_t *mix_sum(struct mix *m, unsigned page)
{
	return mix_word(m, page, 0) + 1;
}

static void mix_lock(struct program *p, struct mix *m, unsigned page)
{
	uint64_t *lock = mix_lock_word(m, page), free_lock = 0;

	for (unsigned i = 0; !__atomic_compare_exchange_n(lock, &free_lock, p->index + 1, false,
							  __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
	     i++) {
		NEED(p, free_lock <= p->count, "lock %u holds %lx", page, free_lock);
		while (load(lock))
			usleep(50);
		free_lock = 0;
	}
}

static void mix_unlock(struct mix *m, unsigned page)
{
	__atomic_store_n(mix_lock_word(m, page), 0, __ATOMIC_RELEASE);
}

/* Values are unique: a number that grows with time, then which word they belong to. */
static uint64_t mix_value(struct program *p, unsigned which)
{
	return (atomic_fetch_add(&p->arena->word[1], 1) + 1) << 16 | which;
}

/* What is in a word was written to this word, and nothing older than seen before. */
static void mix_look(struct program *p, struct mix *m, unsigned page, unsigned i, uint64_t value)
{
	unsigned which = page * MIX_WORDS + i;

	NEED(p, !value || (value & 0xffff) == which, "page %u word %u holds %lx", page, i, value);
	NEED(p, value >= m->last[which], "page %u word %u went back from %lx to %lx", page, i,
	     m->last[which], value);
	m->last[which] = value;
}

static void mix_locked(struct program *p, struct mix *m, unsigned page)
{
	uint64_t *model = &p->arena->model[page * MIX_WORDS];

	mix_lock(p, m, page);
	for (unsigned i = 0; i < MIX_WORDS; i++) {
		uint64_t is = load(mix_word(m, page, i));

		NEED(p, is == model[i], "page %u word %u: %lx, the model has %lx", page, i, is,
		     model[i]);
		mix_look(p, m, page, i, is);
	}
	for (unsigned n = program_random(p) % 4; n; n--) {
		unsigned i = (unsigned)(program_random(p) % MIX_WORDS);

		model[i] = mix_value(p, page * MIX_WORDS + i);
		store(mix_word(m, page, i), model[i]);
	}
	mix_unlock(m, page);
}

static void mix_finish(struct program *p, struct mix *m)
{
	for (unsigned page = 0; page < MIX_PAGES; page++)
		atomic_fetch_add((atomic_ullong *)&p->arena->model[MIX_PAGES * MIX_WORDS + page],
				 m->added[page]);
	program_meet(p);
	for (unsigned page = 0; page < MIX_PAGES; page++) {
		uint64_t sum = p->arena->model[MIX_PAGES * MIX_WORDS + page];

		for (unsigned i = 0; i < MIX_WORDS; i++)
			NEED(p, load(mix_word(m, page, i)) == p->arena->model[page * MIX_WORDS + i],
			     "page %u word %u at the end", page, i);
		NEED(p, load(mix_sum(m, page)) == sum, "page %u: sum %lu instead of %lu", page,
		     load(mix_sum(m, page)), sum);
	}
}

static void random_mix(struct program *p)
{
	static struct mix m;
	unsigned n = scaled(20000);

	m.base = area(p);
	program_meet(p);
	for (unsigned k = 0; k < n; k++) {
		unsigned page = (unsigned)(program_random(p) % MIX_PAGES);
		unsigned i = (unsigned)(program_random(p) % MIX_WORDS);

		switch (program_random(p) % 8) {
		case 0 ... 2: mix_locked(p, &m, page); break;
		case 3 ... 5: mix_look(p, &m, page, i, load(mix_word(&m, page, i))); break;
		default:
			__atomic_fetch_add(mix_sum(&m, page), 1, __ATOMIC_SEQ_CST);
			m.added[page]++;
		}
	}
	program_meet(p);
	mix_finish(p, &m);
}

START_TEST(a_random_mix_of_reads_writes_and_locks_agrees_with_the_model)
{
	struct arena *a = arena_new(MIX_PAGES * MIX_WORDS + MIX_PAGES);

	programs_run(&coherence_cluster, a, two_each, TWO_EACH, random_mix, NULL);
	arena_free(a);
}
END_TEST

/* ---- litmus tests ---------------------------------------------------------------------- */

#define MP_X      100u
#define MP_FLAG   3000u /* another range, most likely another home */
#define MP_WINDOW 64u   /* rounds that the writer may be ahead of the slowest reader */

/* Word of the arena in which reader `index` tells how far it is. */
static unsigned mp_seen(unsigned index)
{
	return 8 + index;
}

static void mp_write(struct program *p, uint64_t *x, uint64_t *flag, unsigned rounds)
{
	for (uint64_t r = 1; r <= rounds; r++) {
		store(x, r);
		store(flag, r);
		for (unsigned i = 1; r > MP_WINDOW && i < p->count; i++)
			program_await_word(p, mp_seen(i), r - MP_WINDOW);
	}
}

static void message_passing(struct program *p)
{
	uint64_t *base = area(p), rounds = scaled(2000), f, v;
	uint64_t *x = page_at(base, MP_X), *flag = page_at(base, MP_FLAG);

	program_meet(p);
	if (!p->index) {
		mp_write(p, x, flag, (unsigned)rounds);
		return;
	}
	do {
		f = load(flag);
		v = load(x);
		NEED(p, v >= f, "saw flag %lu, then x %lu", f, v);
		atomic_store(&p->arena->word[mp_seen(p->index)], f);
		sched_yield();
	} while (f < rounds);
}

START_TEST(message_passing_over_two_pages_never_shows_the_flag_before_the_data)
{
	static const unsigned nodes[] = {0, 1, 2};
	struct arena *a = arena_new(0);

	programs_run(&coherence_cluster, a, nodes, 3, message_passing, NULL);
	arena_free(a);
}
END_TEST

#define SB_X 200u
#define SB_Y 3100u

/* With a fence between store and load, both loads of a round never miss both stores. */
static void store_buffering(struct program *p)
{
	uint64_t *base = area(p);
	uint64_t *mine = page_at(base, p->index ? SB_Y : SB_X);
	uint64_t *others = page_at(base, p->index ? SB_X : SB_Y);
	uint64_t *saw = p->arena->model;

	for (uint64_t r = 1; r <= scaled(400); r++) {
		program_meet(p);
		store(mine, r);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		saw[p->index] = load(others);
		program_meet(p);
		NEED(p, saw[0] >= r || saw[1] >= r, "round %lu: saw %lu and %lu", r, saw[0],
		     saw[1]);
	}
}

START_TEST(store_buffering_with_fences_never_shows_both_old_values)
{
	static const unsigned nodes[] = {1, 2};
	struct arena *a = arena_new(2);

	programs_run(&coherence_cluster, a, nodes, 2, store_buffering, NULL);
	arena_free(a);
}
END_TEST

#define IRIW_X    300u
#define IRIW_Y    3200u
#define IRIW_LOOK 600u /* pairs that each reader notes down */

/* Two writers count up; reader 2 reads x then y, reader 3 reads y then x. */
static void independent_writes(struct program *p)
{
	uint64_t *base = area(p);
	uint64_t *x = page_at(base, IRIW_X), *y = page_at(base, IRIW_Y);
	uint64_t *notes = p->arena->model + (p->index - 2) * 2 * IRIW_LOOK;
	unsigned looks = scaled(IRIW_LOOK);

	program_meet(p);
	if (p->index < 2) {
		for (uint64_t r = 1; atomic_load(&p->arena->word[2]) < 2; r++) {
			store(p->index ? y : x, r);
			sched_yield();
		}
		return;
	}
	/* Whoever had the pages first would be done before a store from elsewhere comes through. */
	while (!load(x) || !load(y))
		sched_yield();
	for (unsigned i = 0; i < looks; i++) {
		notes[2 * i] = load(p->index == 2 ? x : y);
		notes[2 * i + 1] = load(p->index == 2 ? y : x);
		sched_yield();
	}
	atomic_fetch_add(&p->arena->word[2], 1);
}

START_TEST(independent_writes_are_seen_in_one_order_by_all)
{
	static const unsigned nodes[] = {0, 1, 2, 0};
	struct arena *a = arena_new(4 * IRIW_LOOK);
	const uint64_t *xy = a->model, *yx = a->model + 2 * IRIW_LOOK;
	unsigned looks = scaled(IRIW_LOOK);

	programs_run(&coherence_cluster, a, nodes, 4, independent_writes, NULL);
	ck_assert_uint_gt(xy[2 * looks - 2], 0);
	for (unsigned i = 0; i < looks; i++)
		for (unsigned k = 0; k < looks; k++)
			/* One saw x without y, the other y without x. */
			ck_assert(!(yx[2 * k + 1] < xy[2 * i] && xy[2 * i + 1] < yx[2 * k]));
	arena_free(a);
}
END_TEST

/* ---- false sharing --------------------------------------------------------------------- */

#define FALSE_PAGE 2048u /* the first above the border */

/* Each program has a word of one page to itself, and sees the others' only grow. */
static void own_word(struct program *p)
{
	volatile uint64_t *words = page_at(area(p), FALSE_PAGE);
	uint64_t last[PROGRAMS_MAX] = {0};
	unsigned n = scaled(20000);

	program_meet(p);
	for (unsigned i = 0; i < n; i++) {
		unsigned other = i % p->count;
		uint64_t is = words[other];

		NEED(p, is >= last[other], "word %u went back from %lu to %lu", other, last[other],
		     is);
		last[other] = is;
		words[p->index]++; /* not atomic: nobody else stores to it */
		now_and_then(p, i);
	}
	program_meet(p);
	for (unsigned i = 0; i < p->count; i++)
		NEED(p, words[i] == n, "word %u: %lu instead of %u", i, words[i], n);
}

START_TEST(words_of_one_page_that_belong_to_six_programs_do_not_disturb_each_other)
{
	struct arena *a = arena_new(0);

	programs_run(&coherence_cluster, a, two_each, TWO_EACH, own_word, NULL);
	arena_free(a);
}
END_TEST

void coherence_tests(TCase *t)
{
	tcase_add_test(t, increments_of_one_page_by_six_programs_give_the_exact_total);
	tcase_add_test(t, a_counter_on_each_of_many_pages_has_its_exact_total_on_every_node);
	tcase_add_test(t, a_random_mix_of_reads_writes_and_locks_agrees_with_the_model);
	tcase_add_test(t, message_passing_over_two_pages_never_shows_the_flag_before_the_data);
	tcase_add_test(t, store_buffering_with_fences_never_shows_both_old_values);
	tcase_add_test(t, independent_writes_are_seen_in_one_order_by_all);
	tcase_add_test(t, words_of_one_page_that_belong_to_six_programs_do_not_disturb_each_other);
}

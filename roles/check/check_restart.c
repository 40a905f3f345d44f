/*
 * Masters that are killed and started again: programs wait, then go on with
 * every byte that they had written, on this node and on the others.
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/harm.h"

static struct cluster cluster;

/* 64 pages on both sides of the border between two ranges: with two shards both have some. */
#define PAGES 64u
#define BASE  (GIB - PAGES / 2 * PAGE)

/* Words of the arena. */
enum { STOP, STARTED, STEP, DONE };

static const unsigned two_each[] = {0, 1, 2, 0, 1, 2};
#define TWO_EACH 6u

static uint64_t *page_at(uint64_t *base, unsigned page)
{
	return base + page * PAGE_WORDS;
}

static void restart(unsigned i)
{
	cluster_node_start(&cluster, i, NULL);
	cluster_node_await(&cluster, i);
}

static void kill_and_restart(unsigned i)
{
	int status = cluster_node_end(&cluster, i, SIGKILL);

	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
	restart(i);
}

/* ---- under load ------------------------------------------------------------------------ */

/*
 * On each page: word 0 is counted up by all, word 1 + index by one program only.
 * The model has the totals; no word ever goes back.
 */
static void count_up(struct program *p)
{
	uint64_t *base = program_map(p, BASE, PAGES * PAGE);
	static uint64_t last[PAGES][1 + PROGRAMS_MAX], own[PAGES];

	program_meet(p);
	atomic_fetch_add(&p->arena->word[STARTED], 1);
	while (!atomic_load(&p->arena->word[STOP])) {
		unsigned page = (unsigned)(program_random(p) % PAGES);
		unsigned word = (unsigned)(program_random(p) % (p->count + 1));
		uint64_t *at = page_at(base, page), is;

		if (word == 0) {
			__atomic_fetch_add(at, 1, __ATOMIC_SEQ_CST);
			atomic_fetch_add((atomic_ullong *)&p->arena->model[page], 1);
		} else if (word == p->index + 1) {
			NEED(p, load(at + word) == own[page], "page %u: own word is %lu, not %lu",
			     page, load(at + word), own[page]);
			store(at + word, ++own[page]);
		}
		is = load(at + word);
		NEED(p, is >= last[page][word], "page %u word %u went back from %lu to %lu", page,
		     word, last[page][word], is);
		last[page][word] = is;
		atomic_fetch_add(&p->arena->word[8 + p->index], 1);
		if (program_random(p) % 16 == 0)
			usleep((unsigned)(program_random(p) % 200));
	}
	program_meet(p);
	for (unsigned page = 0; page < PAGES; page++) {
		uint64_t *at = page_at(base, page);

		NEED(p, load(at) == p->arena->model[page], "page %u: %lu counted, %lu there", page,
		     p->arena->model[page], load(at));
		NEED(p, load(at + 1 + p->index) == own[page], "page %u: own word at the end", page);
	}
	program_meet(p);
}

static struct program users[TWO_EACH];

static struct arena *start_users(program_fn *fn, size_t model)
{
	struct arena *a = arena_new(model);

	for (unsigned i = 0; i < TWO_EACH; i++) {
		users[i] = (struct program){.cluster = &cluster,
					    .arena = a,
					    .node = two_each[i],
					    .index = i,
					    .count = TWO_EACH,
					    .seed = i + 1};
		program_start(&users[i], fn);
	}
	while (atomic_load(&a->word[STARTED]) < TWO_EACH && !atomic_load(&a->failed))
		cluster_sleep_ms(1);
	return a;
}

static void end_users(struct arena *a)
{
	struct program *list[TWO_EACH];

	atomic_store(&a->word[STOP], 1);
	for (unsigned i = 0; i < TWO_EACH; i++)
		list[i] = &users[i];
	programs_await(list, TWO_EACH);
	arena_free(a);
}

/* Every program makes some more accesses. */
static void await_progress(struct arena *a)
{
	for (unsigned i = 0; i < TWO_EACH; i++) {
		uint64_t until = atomic_load(&a->word[8 + i]) + 20;

		while (atomic_load(&a->word[8 + i]) < until && !atomic_load(&a->failed))
			cluster_sleep_ms(1);
	}
}

static uint64_t stat_of(unsigned i, const char *name)
{
	return cluster_stat(&cluster, i, "core", name);
}

#define KILLS 12u

static const char *const shards_of[] = {"1", "2"};

START_TEST(programs_go_on_through_kills_of_every_master_in_turn)
{
	uint64_t adopted = 0, written = 0;
	struct arena *a;

	cluster_start(&cluster, &(struct cluster_opts){.shards = shards_of[_i]});
	a = start_users(count_up, PAGES);
	for (unsigned k = 0; k < KILLS; k++) {
		cluster_sleep_ms(7 * k % 40);
		kill_and_restart(k % 3);
		adopted += stat_of(k % 3, "adopted_held");
		written += stat_of(k % 3, "adopted_written_back");
		await_progress(a);
	}
	end_users(a);
	/* There was something to take over, or the test has tested nothing. */
	ck_assert_uint_gt(adopted, KILLS);
	printf("  (%lu pages and %lu write-backs taken over)\n", adopted, written);
	cluster_stop(&cluster);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(cluster_node_files(&cluster, i), 0);
	if (!_i)
		harm_rehearsed("masters killed in turn under load");
}
END_TEST

/*
 * Streams: each program writes pages of its own from front to back, again and again, and reads
 * those of the others so. Neighbours are read ahead, and downgraded and installed in runs.
 */
#define AREA 200u /* pages of each; no multiple of a run or a unit */

static uint64_t stamp(unsigned area, unsigned page, unsigned word, uint64_t generation)
{
	return generation << 32 | area << 24 | page << 12 | word;
}

static void write_area(uint64_t *base, unsigned area, uint64_t generation)
{
	for (unsigned i = 0; i < AREA; i++)
		for (unsigned k = 0; k < PAGE_WORDS; k++)
			store(page_at(base, area * AREA + i) + k, stamp(area, i, k, generation));
}

/* Of each word the newest generation that this program has seen. */
typedef uint32_t seen_area[AREA][PAGE_WORDS];

/*
 * From the last word of each page to the first, as its writer goes from the first to the last:
 * none is older than the one after it in this pass, nor than itself in an earlier one. A word
 * may well be older than those before it: its writer is on its way to it.
 */
static void read_area(struct program *p, uint64_t *base, unsigned area, seen_area seen)
{
	for (unsigned i = 0; i < AREA; i++) {
		const uint64_t *page = page_at(base, area * AREA + i);
		uint32_t newest = 0;

		for (unsigned k = PAGE_WORDS; k-- > 0;) {
			uint64_t is = load(page + k), generation = is >> 32;

			if (newest < seen[i][k])
				newest = seen[i][k];
			NEED(p, is == (generation ? stamp(area, i, k, generation) : 0),
			     "area %u page %u word %u: %lx", area, i, k, is);
			NEED(p, generation >= newest,
			     "area %u page %u word %u: generation %lu after %u", area, i, k,
			     generation, newest);
			seen[i][k] = newest = (uint32_t)generation;
		}
	}
}

static void see_all_at(seen_area seen, uint64_t generation)
{
	for (unsigned i = 0; i < AREA; i++)
		for (unsigned k = 0; k < PAGE_WORDS; k++)
			seen[i][k] = (uint32_t)generation;
}

static void stream(struct program *p)
{
	uint64_t *base = program_map(p, BASE, TWO_EACH * AREA * PAGE);
	static seen_area seen[TWO_EACH];
	uint64_t generation = 0;

	program_meet(p);
	atomic_fetch_add(&p->arena->word[STARTED], 1);
	while (!atomic_load(&p->arena->word[STOP])) {
		unsigned area = (unsigned)(program_random(p) % TWO_EACH);

		if (program_random(p) % 3 == 0)
			write_area(base, p->index, ++generation);
		read_area(p, base, area, seen[area]);
		atomic_fetch_add(&p->arena->word[8 + p->index], 1);
	}
	p->arena->model[p->index] = generation;
	program_meet(p);
	for (unsigned area = 0; area < TWO_EACH; area++) {
		see_all_at(seen[area], p->arena->model[area]);
		read_area(p, base, area, seen[area]);
	}
	program_meet(p);
}

#define STREAM_KILLS 6u

START_TEST(streams_go_on_through_kills_of_every_master)
{
	uint64_t runs = 0;
	struct arena *a;

	cluster_start(&cluster, &(struct cluster_opts){.shards = shards_of[_i]});
	a = start_users(stream, TWO_EACH);
	for (unsigned k = 0; k < STREAM_KILLS; k++) {
		cluster_sleep_ms(100 + 37 * k % 90);
		for (unsigned i = 0; i < 3; i++)
			runs += cluster_stat(&cluster, i, "memory", "runs");
		kill_and_restart(k % 3);
		for (unsigned i = 0; i < TWO_EACH; i++) {
			uint64_t until = atomic_load(&a->word[8 + i]) + 1;

			while (atomic_load(&a->word[8 + i]) < until && !atomic_load(&a->failed))
				cluster_sleep_ms(1);
		}
	}
	end_users(a);
	/* There were runs to be cut short, or the test has tested nothing. */
	ck_assert_uint_gt(runs, 100);
	cluster_stop(&cluster);
	if (!_i)
		harm_rehearsed("masters killed in turn while programs stream");
}
END_TEST

START_TEST(programs_go_on_when_all_masters_are_killed_at_once)
{
	struct arena *a;

	cluster_start(&cluster, &(struct cluster_opts){.shards = shards_of[_i]});
	a = start_users(count_up, PAGES);
	for (unsigned k = 0; k < 3; k++) {
		cluster_sleep_ms(20 + k);
		cluster_kill(&cluster);
		for (unsigned i = 0; i < 3; i++)
			cluster_node_start(&cluster, i, NULL);
		for (unsigned i = 0; i < 3; i++)
			cluster_node_await(&cluster, i);
		await_progress(a);
	}
	end_users(a);
	cluster_stop(&cluster);
	if (!_i)
		harm_rehearsed("all masters killed at once");
}
END_TEST

/* Killed again while it takes over, at growing times after its start. */
START_TEST(a_life_that_is_killed_while_it_takes_over_leaves_all_to_the_next)
{
	struct arena *a;

	cluster_start(&cluster, &(struct cluster_opts){.shards = shards_of[_i]});
	a = start_users(count_up, PAGES);
	cluster_sleep_ms(20);
	cluster_node_end(&cluster, 0, SIGKILL);
	for (unsigned ms = 0; ms < 40; ms += 3) {
		cluster_node_start(&cluster, 0, NULL);
		cluster_sleep_ms(ms);
		cluster_node_end(&cluster, 0, SIGKILL);
	}
	restart(0);
	await_progress(a);
	end_users(a);
	cluster_stop(&cluster);
	if (!_i)
		harm_rehearsed("a master killed while it takes over");
}
END_TEST

/* ---- what is taken over ---------------------------------------------------------------- */

static void step(struct program *p, uint64_t n)
{
	atomic_fetch_add(&p->arena->word[DONE], 1);
	program_await_word(p, STEP, n);
}

static void await_step(struct arena *a, uint64_t n, unsigned programs)
{
	while (atomic_load(&a->word[DONE]) < n * programs && !atomic_load(&a->failed))
		cluster_sleep_ms(1);
}

static void let_go_on(struct arena *a, uint64_t n)
{
	atomic_store(&a->word[STEP], n);
}

static struct program *start_one(struct arena *a, unsigned index, unsigned node, program_fn *fn,
				 const void *arg)
{
	static struct program some[PROGRAMS_MAX];

	some[index] = (struct program){.cluster = &cluster,
				       .arena = a,
				       .node = node,
				       .index = index,
				       .count = 1,
				       .arg = arg};
	program_start(&some[index], fn);
	return &some[index];
}

/* Stores while there is no master are to what the node holds Modified; they count like any. */
static void store_without_a_master(struct program *p)
{
	uint64_t *base = program_map(p, BASE, PAGES * PAGE);

	for (unsigned i = 0; i < PAGES; i++)
		store(page_at(base, i), 100 + i);
	step(p, 1); /* the master is killed */
	for (unsigned i = 0; i < PAGES; i++)
		store(page_at(base, i) + PAGE_WORDS - 1, 200 + i);
	step(p, 2); /* the next one is there; another node reads */
	for (unsigned i = 0; i < PAGES; i++)
		store(page_at(base, i), 300 + i);
	step(p, 3);
}

static void expect_words(struct program *p)
{
	uint64_t *base = program_map(p, BASE, PAGES * PAGE), first = *(const uint64_t *)p->arg;

	for (unsigned i = 0; i < PAGES; i++) {
		NEED(p, load(page_at(base, i)) == first + i, "page %u: %lu", i,
		     load(page_at(base, i)));
		NEED(p, load(page_at(base, i) + PAGE_WORDS - 1) == 200 + i,
		     "page %u: last word %lu", i, load(page_at(base, i) + PAGE_WORDS - 1));
	}
}

START_TEST(stores_made_while_there_is_no_master_are_seen_everywhere)
{
	static const uint64_t first = 100, second = 300;
	struct arena *a = arena_new(0);
	struct program *writer;

	cluster_start(&cluster, &(struct cluster_opts){.shards = shards_of[_i]});
	writer = start_one(a, 0, 0, store_without_a_master, NULL);
	await_step(a, 1, 1);
	cluster_node_end(&cluster, 0, SIGKILL);
	let_go_on(a, 1);
	await_step(a, 2, 1);
	restart(0);
	programs_run(&cluster, a, (const unsigned[]){1, 2}, 2, expect_words, &first);
	let_go_on(a, 2);
	await_step(a, 3, 1);
	programs_run(&cluster, a, (const unsigned[]){2, 1, 0}, 3, expect_words, &second);
	let_go_on(a, 3);
	programs_await((struct program *const[]){writer}, 1);
	cluster_stop(&cluster);
	arena_free(a);
	if (!_i)
		harm_rehearsed("stores while there is no master");
}
END_TEST

static void hold_pinned(struct program *p)
{
	uint64_t *base = program_map(p, BASE, PAGES * PAGE);

	NEED(p, !wvm_pin(p->wvm, base, PAGES * PAGE), "pin");
	NEED(p, !wvm_pin(p->wvm, base, PAGES * PAGE), "the same again");
	store(base, 1);
	step(p, 1); /* a master's end and beginning; somebody wants the page */
	for (unsigned i = 0; i < 500; i++) {
		store(base, 2 + i);
		usleep(1000);
	}
	NEED(p, !wvm_unpin(p->wvm, base, PAGES * PAGE), "unpin");
	usleep(20000);
	store(base, 1000);
	NEED(p, !wvm_unpin(p->wvm, base, PAGES * PAGE), "unpin again");
	step(p, 2);
}

/* Pinned is pinned: nobody else gets the page before its last unpin. */
static void read_pinned(struct program *p)
{
	uint64_t *base = program_map(p, BASE, PAGES * PAGE);

	atomic_store(&p->arena->word[STEP], 1);
	NEED(p, load(base) == 1000, "%lu", load(base));
}

START_TEST(pins_outlive_their_master)
{
	struct arena *a = arena_new(0);
	struct program *holder, *reader;

	cluster_start(&cluster, &(struct cluster_opts){.shards = shards_of[_i]});
	holder = start_one(a, 0, 0, hold_pinned, NULL);
	await_step(a, 1, 1);
	kill_and_restart(0);
	reader = start_one(a, 1, 1, read_pinned, NULL);
	programs_await((struct program *const[]){reader}, 1);
	let_go_on(a, 2);
	programs_await((struct program *const[]){holder}, 1);
	cluster_stop(&cluster);
	arena_free(a);
	if (!_i)
		harm_rehearsed("pins that outlive their master");
}
END_TEST

static void own_some(struct program *p)
{
	uint64_t *base = program_map(p, BASE, PAGES * PAGE);

	for (unsigned i = 0; i < PAGES; i++) {
		store(page_at(base, i), 100 + i);
		store(page_at(base, i) + PAGE_WORDS - 1, 200 + i);
	}
	step(p, 1);
	step(p, 2);
}

static bool logged(unsigned i, const char *text)
{
	static char log[CLUSTER_OUT_BYTES];

	cluster_read(cluster.node[i].log, log, sizeof(log));
	return strstr(log, text) != NULL;
}

/*
 * A program that stands still may store as soon as it goes on, so nobody gets
 * its node's pages before; the operator is told which one it is. Its home
 * serves meanwhile.
 */
static void read_late(struct program *p)
{
	atomic_store(&p->arena->word[STARTED], 1);
	expect_words(p);
	NEED(p, atomic_load(&p->arena->word[STOP]), "served before all programs were back");
}

START_TEST(a_program_that_stands_still_is_waited_for_and_named)
{
	static const uint64_t first = 100;
	struct arena *a = arena_new(0);
	struct program *owner, *reader;
	char text[32];

	cluster_start(&cluster, NULL);
	owner = start_one(a, 0, 0, own_some, NULL);
	await_step(a, 1, 1);
	ck_assert_int_eq(kill(owner->pid, SIGSTOP), 0);
	cluster_node_end(&cluster, 0, SIGKILL);
	cluster_node_start(&cluster, 0, NULL);
	reader = start_one(a, 1, 1, read_late, &first);
	snprintf(text, sizeof(text), "one is pid %d", (int)owner->pid);
	for (unsigned ms = 0; !logged(0, text) && ms < 20000; ms += 10)
		cluster_sleep_ms(10);
	ck_assert(logged(0, text));
	atomic_store(&a->word[STOP], 1);
	ck_assert_int_eq(kill(owner->pid, SIGCONT), 0);
	cluster_node_await(&cluster, 0);
	programs_await((struct program *const[]){reader}, 1);
	let_go_on(a, 2);
	programs_await((struct program *const[]){owner}, 1);
	cluster_stop(&cluster);
	arena_free(a);
	if (!_i)
		harm_rehearsed("a program that stands still while its master is replaced");
}
END_TEST

START_TEST(a_program_that_dies_without_its_master_leaves_its_pages_to_the_next)
{
	static const uint64_t first = 100;
	struct arena *a = arena_new(0);
	struct program *owner;

	cluster_start(&cluster, NULL);
	owner = start_one(a, 0, 0, own_some, NULL);
	await_step(a, 1, 1);
	cluster_node_end(&cluster, 0, SIGKILL);
	program_kill(owner);
	restart(0);
	programs_run(&cluster, a, (const unsigned[]){1, 2, 0}, 3, expect_words, &first);
	cluster_stop(&cluster);
	arena_free(a);
	if (!_i)
		harm_rehearsed("a program that dies without its master");
}
END_TEST

/* The operator ends it before it has taken all over: the next one finds all there was. */
START_TEST(a_life_that_is_ended_before_it_has_taken_over_removes_nothing)
{
	static const uint64_t first = 100;
	struct arena *a = arena_new(0);
	struct program *owner;
	int status;

	cluster_start(&cluster, NULL);
	owner = start_one(a, 0, 0, own_some, NULL);
	await_step(a, 1, 1);
	ck_assert_int_eq(kill(owner->pid, SIGSTOP), 0);
	cluster_node_end(&cluster, 0, SIGKILL);
	cluster_node_start(&cluster, 0, NULL);
	cluster_sleep_ms(300);
	status = cluster_node_end(&cluster, 0, SIGTERM);
	ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status), "status %x", status);
	ck_assert_int_eq(kill(owner->pid, SIGCONT), 0);
	restart(0);
	let_go_on(a, 1);
	programs_run(&cluster, a, (const unsigned[]){1, 2}, 2, expect_words, &first);
	let_go_on(a, 2);
	programs_await((struct program *const[]){owner}, 1);
	cluster_stop(&cluster);
	arena_free(a);
	if (!_i)
		harm_rehearsed("a master ended before it has taken over");
}
END_TEST

static Suite *restart_suite(void)
{
	Suite *s = suite_create("restart");
	TCase *t = cluster_tcase(s, "under load", 120);

	tcase_add_loop_test(t, programs_go_on_through_kills_of_every_master_in_turn, 0, 2);
	tcase_add_loop_test(t, streams_go_on_through_kills_of_every_master, 0, 2);
	tcase_add_loop_test(t, programs_go_on_when_all_masters_are_killed_at_once, 0, 2);
	tcase_add_loop_test(t, a_life_that_is_killed_while_it_takes_over_leaves_all_to_the_next, 0,
			    2);
	t = cluster_tcase(s, "what is taken over", 60);
	tcase_add_loop_test(t, stores_made_while_there_is_no_master_are_seen_everywhere, 0, 2);
	tcase_add_loop_test(t, pins_outlive_their_master, 0, 2);
	tcase_add_test(t, a_program_that_stands_still_is_waited_for_and_named);
	tcase_add_test(t, a_program_that_dies_without_its_master_leaves_its_pages_to_the_next);
	tcase_add_test(t, a_life_that_is_ended_before_it_has_taken_over_removes_nothing);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {restart_suite};

	return harm_main(argv, suites, 1);
}

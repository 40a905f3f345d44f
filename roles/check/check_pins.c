/* wvm_pin(): a range that other nodes have to wait for. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/program.h"

#define PIN_GPA (GIB - 4 * MIB) /* the border between two shards is in the middle of it */
#define PIN_LEN (8 * MIB)
#define WAIT_MS 300u /* what a writer that is not held back needs a thousandth of */

/* Words of the arena. */
enum { PINNED = 10, WRITING, WRITTEN, RELEASED, FAULTED };

static struct cluster cluster;

static void start(void)
{
	cluster_start(&cluster, &(struct cluster_opts){.shards = "2"});
}

static void stop(void)
{
	cluster_stop(&cluster);
}

static void tell(struct program *p, unsigned word)
{
	atomic_store(&p->arena->word[word], 1);
}

static bool told(struct program *p, unsigned word)
{
	return atomic_load(&p->arena->word[word]);
}

/* The writer is stopped in its store, and the pinned page holds what was put there. */
static void expect_held(struct program *p, const uint64_t *word, uint64_t value)
{
	cluster_sleep_ms(WAIT_MS);
	NEED(p, !told(p, WRITTEN), "the writer did not wait");
	NEED(p, load(word) == value, "%lu in a pinned page", load(word));
}

/* Waits for the pin, stores 2, tells. */
static void write_other(struct program *p, uint64_t *word)
{
	program_await_word(p, PINNED, 1);
	tell(p, WRITING);
	store(word, 2);
	tell(p, WRITTEN);
}

/* ---- holding --------------------------------------------------------------------------- */

static void pin_and_write(struct program *p)
{
	uint64_t *base = program_map(p, PIN_GPA, PIN_LEN);

	if (p->index) {
		write_other(p, base);
		return;
	}
	NEED(p, !wvm_pin(p->wvm, base, PAGE), "pin");
	tell(p, PINNED);
	program_await_word(p, WRITING, 1);
	store(base, 1);
	expect_held(p, base, 1);
	/* Nested: the inner unpin does not end it. */
	NEED(p, !wvm_pin(p->wvm, base, PAGE) && !wvm_pin(p->wvm, base, PAGE), "nested pin");
	NEED(p, !wvm_unpin(p->wvm, base, PAGE), "unpin");
	NEED(p, !wvm_unpin(p->wvm, base, PAGE), "unpin");
	expect_held(p, base, 1);
	NEED(p, !wvm_unpin(p->wvm, base, PAGE), "unpin");
	program_await_word(p, WRITTEN, 1);
	NEED(p, load(base) == 2, "%lu after the pin", load(base));
	NEED(p, wvm_unpin(p->wvm, base, PAGE) == -EINVAL, "once too often");
}

START_TEST(another_nodes_writer_waits_until_the_last_nested_pin_ends)
{
	static const unsigned nodes[] = {0, 1};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 2, pin_and_write, NULL);
	arena_free(a);
}
END_TEST

/* Two pins of different programs of one node that overlap in the second page. */
static void pin_overlapping(struct program *p)
{
	uint64_t *base = program_map(p, PIN_GPA + MIB, MIB);
	uint64_t *second = base + PAGE_WORDS;

	if (p->index == 2) {
		program_await_word(p, PINNED, 2);
		store(second, 2);
		tell(p, WRITTEN);
		return;
	}
	NEED(p, !wvm_pin(p->wvm, base + p->index * PAGE_WORDS, 2 * PAGE), "pin");
	atomic_fetch_add(&p->arena->word[PINNED], 1);
	program_await_word(p, PINNED, 2);
	if (p->index) {
		cluster_sleep_ms(WAIT_MS);
		NEED(p, !wvm_unpin(p->wvm, second, 2 * PAGE), "unpin");
		tell(p, RELEASED);
		return;
	}
	program_await_word(p, RELEASED, 1);
	expect_held(p, second, 0);
	NEED(p, !wvm_unpin(p->wvm, base, 2 * PAGE), "unpin");
	program_await_word(p, WRITTEN, 1);
}

START_TEST(a_page_in_the_pins_of_two_programs_is_held_until_both_end)
{
	static const unsigned nodes[] = {0, 0, 2};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 3, pin_overlapping, NULL);
	arena_free(a);
}
END_TEST

/* ---- what a pin covers ----------------------------------------------------------------- */

/* Four pages, two on each side of gpa `border`; node 1 wants the outermost ones. */
static void pin_across(struct program *p)
{
	uint64_t *base = program_map(p, *(const uint64_t *)p->arg - 2 * PAGE, 4 * PAGE);

	if (p->index) {
		write_other(p, base + (p->index - 1) * 3 * PAGE_WORDS);
		atomic_fetch_add(&p->arena->word[RELEASED], 1);
		return;
	}
	/* Unaligned: all pages that it touches count. */
	NEED(p, !wvm_pin(p->wvm, (char *)base + 100, 4 * PAGE - 200), "pin");
	for (unsigned i = 0; i < 4; i++)
		store(base + i * PAGE_WORDS, 1);
	tell(p, PINNED);
	program_await_word(p, WRITING, 1);
	cluster_sleep_ms(WAIT_MS);
	for (unsigned i = 0; i < 4; i++)
		NEED(p, load(base + i * PAGE_WORDS) == 1, "page %u", i);
	NEED(p, !told(p, RELEASED), "a writer did not wait");
	NEED(p, !wvm_unpin(p->wvm, (char *)base + 100, 4 * PAGE - 200), "unpin");
	program_await_word(p, RELEASED, 2);
	NEED(p, load(base) == 2 && load(base + 3 * PAGE_WORDS) == 2, "after the pin");
}

START_TEST(a_pin_may_overlap_two_units_and_the_ranges_of_two_shards)
{
	static const unsigned nodes[] = {0, 1, 2};
	static const uint64_t borders[] = {GIB - 2 * MIB, GIB};

	for (unsigned i = 0; i < 2; i++) {
		struct arena *a = arena_new(0);

		programs_run(&cluster, a, nodes, 3, pin_across, &borders[i]);
		arena_free(a);
	}
}
END_TEST

/* A device would do this: O_DIRECT from and to memory that other nodes use. */
static void pin_for_dma(struct program *p)
{
	uint64_t *base = program_map(p, PIN_GPA + 2 * MIB, MIB);
	size_t len = 64 * PAGE;
	char path[256];
	int fd;

	for (unsigned i = 0; p->index && i < 64; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 3);
	program_meet(p);
	if (!p->index) {
		snprintf(path, sizeof(path), "/var/tmp/wvm-system-%d.dma", (int)getpid());
		fd = open(path, O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
		NEED(p, fd >= 0, "%s: %s", path, strerror(errno));
		unlink(path);
		NEED(p, !wvm_pin(p->wvm, base, 2 * len), "pin");
		NEED(p, pwrite(fd, base, len, 0) == (ssize_t)len, "%s", strerror(errno));
		NEED(p, pread(fd, base + len / 8, len, 0) == (ssize_t)len, "%s", strerror(errno));
		NEED(p, !wvm_unpin(p->wvm, base, 2 * len), "unpin");
		close(fd);
	}
	program_meet(p);
	for (unsigned i = 0; i < 64; i++)
		NEED(p, pattern_differs(base + len / 8 + i * PAGE_WORDS, i, 3) < 0, "page %u", i);
}

START_TEST(pinned_memory_takes_direct_io_that_other_nodes_then_see)
{
	static const unsigned nodes[] = {0, 1, 2};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 3, pin_for_dma, NULL);
	arena_free(a);
}
END_TEST

static void pin_under_load(struct program *p)
{
	uint64_t *base = program_map(p, PIN_GPA + 3 * MIB, 16 * PAGE);
	unsigned n = 150;

	program_meet(p);
	for (unsigned i = 0; i < n; i++) {
		uint64_t *word = base + program_random(p) % 16 * PAGE_WORDS;

		NEED(p, !wvm_pin(p->wvm, word, 8), "pin %u", i);
		/* Nobody else can be between load and store. */
		store(word + 1 + p->node, load(word + 1 + p->node) + 1);
		__atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
		NEED(p, !wvm_unpin(p->wvm, word, 8), "unpin %u", i);
	}
	program_meet(p);
	for (unsigned k = 1; k < 16; k++) {
		base[0] += p->index ? 0 : load(base + k * PAGE_WORDS);
		base[1 + p->node] += load(base + k * PAGE_WORDS + 1 + p->node);
	}
	program_meet(p);
	NEED(p, load(base) == n * p->count, "%lu", load(base));
	NEED(p, load(base + 1 + p->node) == n, "%lu", load(base + 1 + p->node));
}

START_TEST(pins_of_many_programs_for_the_same_pages_all_succeed_in_turn)
{
	static const unsigned nodes[] = {0, 1, 2};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 3, pin_under_load, NULL);
	arena_free(a);
}
END_TEST

/* ---- ends and errors ------------------------------------------------------------------- */

static void pin_for_ever(struct program *p)
{
	uint64_t *base = program_map(p, PIN_GPA + 5 * MIB, PIN_LEN / 8);

	NEED(p, !wvm_pin(p->wvm, base, 3 * PAGE), "pin");
	store(base + PAGE_WORDS, 1);
	tell(p, PINNED);
	for (;;)
		pause();
}

static void write_behind_pin(struct program *p)
{
	uint64_t *base = program_map(p, PIN_GPA + 5 * MIB, PIN_LEN / 8);

	program_await_word(p, PINNED, 1);
	tell(p, WRITING);
	__atomic_fetch_add(base + PAGE_WORDS, 10, __ATOMIC_SEQ_CST);
	tell(p, WRITTEN);
	NEED(p, load(base + PAGE_WORDS) == 11, "%lu", load(base + PAGE_WORDS));
}

START_TEST(the_pin_of_a_program_that_is_killed_ends_with_it)
{
	struct arena *a = arena_new(0);
	struct program holder = {.cluster = &cluster, .arena = a, .count = 1};
	struct program writer = {.cluster = &cluster, .arena = a, .node = 1, .index = 1};

	program_start(&holder, pin_for_ever);
	program_start(&writer, write_behind_pin);
	while (!a->word[WRITING] && !a->failed)
		cluster_sleep_ms(1);
	cluster_sleep_ms(WAIT_MS);
	ck_assert_uint_eq(a->word[WRITTEN], 0);
	program_kill(&holder);
	programs_await((struct program *const[]){&writer}, 1);
	arena_free(a);
}
END_TEST

static struct program *faulting;

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	tell(faulting, FAULTED);
	_exit(0);
}

/* More than 5 s: an error for the reader, and the pinned page does not change. */
static void pin_too_long(struct program *p)
{
	uint64_t *base = program_map(p, PIN_GPA + 7 * MIB, MIB);
	struct sigaction bus = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

	if (p->index) {
		faulting = p;
		sigaction(SIGBUS, &bus, NULL);
		program_await_word(p, PINNED, 1);
		NEED(p, false, "read %lu from a pinned page", load(base));
	}
	NEED(p, !wvm_pin(p->wvm, base, PAGE), "pin");
	store(base, 5);
	tell(p, PINNED);
	program_await_word(p, FAULTED, 1);
	NEED(p, load(base) == 5, "%lu", load(base));
	NEED(p, !wvm_unpin(p->wvm, base, PAGE), "unpin");
}

START_TEST(a_page_pinned_beyond_the_deadline_is_an_error_for_who_waits)
{
	static const unsigned nodes[] = {0, 1};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 2, pin_too_long, NULL);
	ck_assert_uint_eq(a->word[FAULTED], 1);
	arena_free(a);
}
END_TEST

static void bad_pins(struct program *p)
{
	char *a = program_map(p, PIN_GPA + 4 * MIB, 4 * PAGE);
	char local[64];

	NEED(p, wvm_pin(p->wvm, a, 0) == -EINVAL, "nothing");
	NEED(p, wvm_pin(p->wvm, local, 8) == -EINVAL, "not cluster memory");
	NEED(p, wvm_pin(p->wvm, a, 4 * PAGE + 1) == -EINVAL, "beyond the mapping");
	NEED(p, wvm_pin(p->wvm, a - 1, 2) == -EINVAL, "before the mapping");
	NEED(p, wvm_pin(p->wvm, a, SIZE_MAX) == -EINVAL, "everything");
	NEED(p, wvm_unpin(p->wvm, a, PAGE) == -EINVAL, "not pinned");
	NEED(p, !wvm_pin(p->wvm, a, 2 * PAGE), "pin");
	NEED(p, wvm_unpin(p->wvm, a, PAGE) == -EINVAL, "half of a pin");
	NEED(p, !wvm_unpin(p->wvm, a, 2 * PAGE), "unpin");
	NEED(p, !wvm_pin(p->wvm, a, PAGE), "pin");
	NEED(p, !wvm_unmap(p->wvm, a, 4 * PAGE), "unmap what is pinned");
}

START_TEST(pins_outside_of_a_mapping_and_ends_without_beginning_are_refused)
{
	static const unsigned nodes[] = {2};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 1, bad_pins, NULL);
	arena_free(a);
}
END_TEST

static Suite *pins_suite(void)
{
	Suite *s = suite_create("pins");
	TCase *t = cluster_tcase(s, "pins", 60);

	tcase_add_unchecked_fixture(t, start, stop);
	tcase_add_test(t, another_nodes_writer_waits_until_the_last_nested_pin_ends);
	tcase_add_test(t, a_page_in_the_pins_of_two_programs_is_held_until_both_end);
	tcase_add_test(t, a_pin_may_overlap_two_units_and_the_ranges_of_two_shards);
	tcase_add_test(t, pinned_memory_takes_direct_io_that_other_nodes_then_see);
	tcase_add_test(t, pins_of_many_programs_for_the_same_pages_all_succeed_in_turn);
	tcase_add_test(t, the_pin_of_a_program_that_is_killed_ends_with_it);
	tcase_add_test(t, a_page_pinned_beyond_the_deadline_is_an_error_for_who_waits);
	tcase_add_test(t, pins_outside_of_a_mapping_and_ends_without_beginning_are_refused);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {pins_suite};

	return cluster_main(argv, suites, 1);
}

/*
 * Nodes without room: the tmpfs of their files is full, for a while or again and
 * again. Whoever needs room gets an error or waits, every byte that was written
 * stays, the master lives, and when there is room everything goes on.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/churn.h"

#define TMPFS_KIB    6144u  /* the outbox of 2 MiB, tables, and something for pages */
#define UNITS_KIB    10240u /* the same, and 8 pages of each unit, which its first touch fills */
#define CHURN_KIB    65536u /* every unit of the churn whole, as holder and as home, and those */
#define ERROR_MS_MAX 6000u  /* the request deadline is 5 s */

/* Of the home or holder without room. One page of tables has the entries of as many. */
#define PAGES 64u

/* Words of the arena. */
enum { READY = 10, FULL, SEEN, RESTORED, DONE };

static struct cluster cluster;

static void start_with_small(unsigned node, unsigned kib)
{
	cluster_prepare(&cluster, NULL);
	harm_small_tmpfs(&cluster, node, kib);
	for (unsigned i = 0; i < cluster.nodes; i++)
		cluster_node_start(&cluster, i, NULL);
	for (unsigned i = 0; i < cluster.nodes; i++)
		cluster_node_await(&cluster, i);
}

static void verify(struct program *p, const uint64_t *base, unsigned first, unsigned count,
		   uint64_t generation)
{
	for (unsigned i = first; i < first + count; i++) {
		int at = pattern_differs(base + i * PAGE_WORDS, i, generation);

		NEED(p, at < 0, "page %u word %d", i, at);
	}
}

/* ---- a home without room for what is written back ------------------------------------------ */

#define HOME    2u
#define READERS 4u

/* Program 0 has the only copies. They must outlive every write-back that is refused. */
static void own_pages(struct program *p)
{
	uint64_t *base = program_map(p, harm_gpa(p, HOME, 0), PAGES * PAGE);

	for (unsigned i = 0; i < PAGES; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 1);
	harm_tell(p, READY);
	program_await_word(p, SEEN, READERS);
	verify(p, base, 0, PAGES, 1);
	program_await_word(p, DONE, READERS);
	verify(p, base, 0, PAGES, 1);
}

static void read_without_room(struct program *p)
{
	uint64_t gpa = harm_gpa(p, HOME, 0) + p->index * PAGE, before;
	uint64_t *page = program_map(p, gpa, PAGE), *base;

	harm_catch_bus();
	harm_tell(p, READY);
	program_await_word(p, FULL, 1);
	before = cluster_now_ms();
	NEED(p, harm_fails(p, page, false), "read %lx, which the home cannot have stored",
	     load(page));
	NEED(p, cluster_now_ms() - before <= ERROR_MS_MAX, "after %lu ms",
	     cluster_now_ms() - before);
	harm_tell(p, SEEN);
	program_await_word(p, RESTORED, 1);
	page = harm_remap(p, page, gpa, PAGE);
	verify(p, page - p->index * PAGE_WORDS, p->index, 1, 1);
	NEED(p, !wvm_unmap(p->wvm, page, PAGE), "unmap");
	base = program_map(p, harm_gpa(p, HOME, 0), PAGES * PAGE);
	verify(p, base, 0, PAGES, 1);
	harm_tell(p, DONE);
}

static void own_or_read(struct program *p)
{
	(p->index < READERS ? read_without_room : own_pages)(p);
}

START_TEST(a_home_without_room_acknowledges_no_write_back_and_no_byte_is_lost)
{
	struct arena *a = arena_new(0);
	struct program programs[READERS + 1], *list[READERS + 1];

	start_with_small(HOME, UNITS_KIB);
	harm_touch_units(&cluster, a, HOME, HARM_ANY);
	for (unsigned i = 0; i <= READERS; i++) {
		programs[i] = (struct program){.cluster = &cluster,
					       .arena = a,
					       .node = i < READERS,
					       .index = i,
					       .count = READERS + 1};
		list[i] = &programs[i];
		program_start(list[i], own_or_read);
	}
	harm_await(a, READY, READERS + 1);
	harm_fill(&cluster, HOME, 0);
	a->word[FULL] = 1;
	harm_await(a, SEEN, READERS);
	harm_await_log(&cluster, HOME, "no room on the tmpfs");
	ck_assert_uint_gt(cluster_stat(&cluster, HOME, "node", "no_room"), 0);
	ck_assert_uint_gt(cluster_stat(&cluster, HOME, "drops", "room"), 0);
	harm_empty(&cluster, HOME);
	a->word[RESTORED] = 1;
	programs_await(list, READERS + 1);
	ck_assert_uint_gt(cluster_stat(&cluster, HOME, "core", "pages_homed"), 0);
	cluster_stop(&cluster);
	harm_rehearsed("home store without room (ENOSPC)");
}
END_TEST

/* ---- a holder without room in the RAM file or its table -------------------------------------- */

#define HELD     32u
#define FAR_UNIT 20u /* its table entries are on other pages */

static void hold_without_room(struct program *p)
{
	uint64_t *base = program_map(p, 0, HELD * PAGE);
	uint64_t *more = program_map(p, HELD * PAGE, PAGE);
	uint64_t *far = program_map(p, FAR_UNIT * 2 * MIB, PAGE);
	uint64_t *pinned = program_map(p, FAR_UNIT * 2 * MIB + PAGE, PAGE);

	for (unsigned i = 0; i < HELD; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 1);
	harm_catch_bus();
	harm_tell(p, READY);
	program_await_word(p, FULL, 1);
	NEED(p, harm_fails(p, more, true), "a store without room for its page");
	NEED(p, harm_fails(p, far, false), "a load without room for its table entry");
	NEED(p, wvm_pin(p->wvm, pinned, PAGE) == -ENOSPC, "pin");
	verify(p, base, 0, HELD, 1);
	harm_tell(p, SEEN);
	program_await_word(p, RESTORED, 1);
	more = harm_remap(p, more, HELD * PAGE, PAGE);
	far = harm_remap(p, far, FAR_UNIT * 2 * MIB, PAGE);
	NEED(p, load(more) == 0 && load(far) == 0, "%lu and %lu", load(more), load(far));
	pattern_fill(more, HELD, 1);
	pattern_fill(far, HELD + 1, 1);
	NEED(p, !wvm_pin(p->wvm, pinned, PAGE), "pin");
	NEED(p, !wvm_unpin(p->wvm, pinned, PAGE), "unpin");
}

static void verify_held(struct program *p)
{
	verify(p, program_map(p, 0, HELD * PAGE), 0, HELD, 1);
	NEED(p, pattern_differs(program_map(p, HELD * PAGE, PAGE), HELD, 1) < 0, "more");
	NEED(p, pattern_differs(program_map(p, FAR_UNIT * 2 * MIB, PAGE), HELD + 1, 1) < 0, "far");
}

START_TEST(a_holder_without_room_fails_the_access_and_keeps_what_it_has)
{
	struct arena *a = arena_new(0);
	struct program holder = {.cluster = &cluster, .arena = a, .count = 1};

	start_with_small(0, TMPFS_KIB);
	harm_touch_units(&cluster, a, 1, HARM_ANY);
	program_start(&holder, hold_without_room);
	harm_await(a, READY, 1);
	harm_fill(&cluster, 0, 0);
	a->word[FULL] = 1;
	harm_await(a, SEEN, 1);
	harm_await_log(&cluster, 0, "No space left on device");
	harm_await_log(&cluster, 0, "no room on the tmpfs");
	harm_empty(&cluster, 0);
	a->word[RESTORED] = 1;
	programs_await((struct program *const[]){&holder}, 1);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, verify_held, NULL);
	cluster_stop(&cluster);
	harm_rehearsed("RAM file and tables without room (ENOSPC)");
}
END_TEST

START_TEST(a_master_without_room_to_start_says_so_and_leaves_nothing)
{
	char log[CLUSTER_OUT_BYTES];
	int status;

	cluster_prepare(&cluster, &(struct cluster_opts){.nodes = 1});
	harm_small_tmpfs(&cluster, 0, 1024);
	cluster_node_start(&cluster, 0, NULL);
	status = cluster_node_end(&cluster, 0, 0);
	cluster_read(cluster.node[0].log, log, sizeof(log));
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x: %s", status, log);
	ck_assert_msg(strstr(log, "no room for 2048 KiB") != NULL, "%s", log);
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
}
END_TEST

/* ---- room that comes and goes under load ------------------------------------------------------
 */

#define ROUNDS 4u

START_TEST(room_that_comes_and_goes_under_load_costs_no_byte)
{
	static const unsigned nodes[] = {0, 1, 2, 0, 1, 2};
	static const struct churn_plan plan = {.homes = 7, .ranges = 12, .may_fail = true};
	static struct churn w;

	start_with_small(1, CHURN_KIB);
	/* First before anything is stored: each table's first time comes when there is no room. */
	harm_fill(&cluster, 1, 0);
	churn_begin(&w, &cluster, &plan, nodes, 6);
	for (unsigned round = 0; round < ROUNDS && !w.arena->failed; round++) {
		if (round)
			harm_fill(&cluster, 1, round * 64);
		cluster_sleep_ms(700);
		harm_empty(&cluster, 1);
		cluster_sleep_ms(300);
	}
	ck_assert(churn_goes_on(&w, 100));
	churn_stop(&w);
	churn_verify(&w);
	ck_assert_uint_gt(cluster_stat(&cluster, 1, "node", "no_room"), 0);
	ck_assert_uint_gt(churn_errors(&w), 0);
	printf("room that comes and goes: %lu rounds, %lu accesses failed\n", churn_rounds(&w),
	       churn_errors(&w));
	cluster_stop(&cluster);
	harm_rehearsed("room that comes and goes under load");
}
END_TEST

static Suite *room_suite(void)
{
	Suite *s = suite_create("room");
	TCase *t = cluster_tcase(s, "room", 180);

	tcase_add_test(t, a_home_without_room_acknowledges_no_write_back_and_no_byte_is_lost);
	tcase_add_test(t, a_holder_without_room_fails_the_access_and_keeps_what_it_has);
	tcase_add_test(t, a_master_without_room_to_start_says_so_and_leaves_nothing);
	tcase_add_test(t, room_that_comes_and_goes_under_load_costs_no_byte);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {room_suite};

	return harm_main(argv, suites, 1);
}

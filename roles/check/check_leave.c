/*
 * A node that leaves gives back every page that it holds, and can then be switched off: other
 * nodes find every byte that its programs stored, and zeros where nobody stored anything.
 * All memory has its home on the other nodes, whose records are what is tested.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/harm.h"

#define LEAVER     0u
#define NEAR       1u /* home of the first region */
#define FAR        2u /* and of the second, which is another shard's where there are two */
#define REGIONS    2u
#define UNIT_PAGES 512u
#define WRITTEN    (4 * UNIT_PAGES)  /* pages: all of them stored to */
#define SPARSE     (8 * UNIT_PAGES)  /* up to here: one page of each unit */
#define SHARED     (9 * UNIT_PAGES)  /* up to here: stored by another node, loaded by the leaver */
#define PAGES      (10 * UNIT_PAGES) /* up to here: one page loaded, before anybody stored */
#define SPARSE_AT  7u
#define PINNED_AT \
	(WRITTEN + 320) /* their entries fill a page of the table, which no other shares */
#define PINNED   64u
#define FOREIGN  9u  /* generation of what the other node stored */
#define BUDGET   "2" /* MiB: an eighth of what is written */
#define AWAIT_MS (CLUSTER_SANITIZED ? 120000u : 20000u)

#define PLACED                  \
	"PLACE 1 0 1024 1\n"    \
	"PLACE 1 1024 1024 2\n" \
	"PLACE 1 2048 1024 2\n"

/* Words of the arena. */
enum { INSIDE = 10, GO_ON };

static struct cluster cluster;

static const struct cluster_opts one_shard = {
	.place = PLACED, .ram_mb = BUDGET, .shards = "1", .master = "wvm_leaving_master"};
static const struct cluster_opts two_shards = {
	.place = PLACED, .ram_mb = BUDGET, .shards = "2", .master = "wvm_leaving_master"};

/* ---- programs ---------------------------------------------------------------------------- */

static uint64_t *map_region(struct program *p, unsigned region)
{
	return program_map(p, region * GIB + 64 * MIB, PAGES * PAGE);
}

static uint64_t number_of(unsigned region, unsigned page)
{
	return region * 100000u + page;
}

/* What generation a page has once all that was written is `written`; 0: zeros. */
static uint64_t expected(unsigned page, uint64_t written)
{
	if (page < WRITTEN)
		return written;
	if (page < SPARSE)
		return page % UNIT_PAGES == SPARSE_AT ? 1 : 0;
	return page < SHARED ? FOREIGN : 0;
}

static void need_page(struct program *p, const uint64_t *at, unsigned region, unsigned page,
		      uint64_t written)
{
	uint64_t generation = expected(page, written);
	int word = -1;

	if (generation)
		word = pattern_differs(at, number_of(region, page), generation);
	for (unsigned i = 0; !generation && i < PAGE_WORDS; i++)
		if (load(at + i))
			word = (int)i;
	NEED(p, word < 0, "region %u page %u word %d: %lx", region, page, word, at[word]);
}

static uint64_t written_by(const struct program *p)
{
	return *(const uint64_t *)p->arg;
}

static void verify(struct program *p)
{
	for (unsigned r = 0; r < REGIONS; r++) {
		const uint64_t *base = map_region(p, r);

		for (unsigned i = 0; i < PAGES; i++)
			need_page(p, base + i * PAGE_WORDS, r, i, written_by(p));
	}
}

static void write_generation(unsigned region, uint64_t *base, uint64_t generation)
{
	for (unsigned i = 0; i < WRITTEN; i++)
		pattern_fill(base + i * PAGE_WORDS, number_of(region, i), generation);
}

static void store_foreign(struct program *p)
{
	for (unsigned r = 0; r < REGIONS; r++) {
		uint64_t *base = map_region(p, r);

		for (unsigned i = SPARSE; i < SHARED; i++)
			pattern_fill(base + i * PAGE_WORDS, number_of(r, i), FOREIGN);
	}
}

/* Ends with pins on pages that it never touched. */
static void use_all(struct program *p)
{
	for (unsigned r = 0; r < REGIONS; r++) {
		uint64_t *base = map_region(p, r);

		write_generation(r, base, 1);
		for (unsigned i = WRITTEN + SPARSE_AT; i < SPARSE; i += UNIT_PAGES)
			pattern_fill(base + i * PAGE_WORDS, number_of(r, i), 1);
		NEED(p, !load(base + (SHARED + 5) * PAGE_WORDS), "not zeros");
		NEED(p, !wvm_pin(p->wvm, base + PINNED_AT * PAGE_WORDS, PINNED * PAGE), "pin");
		for (unsigned i = SPARSE; i < SHARED; i++)
			need_page(p, base + i * PAGE_WORDS, r, i, 1);
	}
}

/*
 * All that the last one wrote is there; writes the next. The second region, whose home may be
 * silent, not before it is told to.
 */
static void verify_and_write(struct program *p)
{
	for (unsigned r = 0; r < REGIONS; r++) {
		uint64_t *base = map_region(p, r);

		for (unsigned i = 0; i < WRITTEN; i++)
			need_page(p, base + i * PAGE_WORDS, r, i, written_by(p));
		write_generation(r, base, written_by(p) + 1);
		for (unsigned i = 0; i < WRITTEN; i++)
			need_page(p, base + i * PAGE_WORDS, r, i, written_by(p) + 1);
		harm_tell(p, INSIDE);
		program_await_word(p, GO_ON, 1);
	}
}

/* ---- the test's side --------------------------------------------------------------------- */

static void run_on(struct arena *a, unsigned node, program_fn *fn, uint64_t written)
{
	programs_run(&cluster, a, &node, 1, fn, &written);
}

static void start(const struct cluster_opts *opts, struct arena *a)
{
	cluster_start(&cluster, opts);
	run_on(a, NEAR, store_foreign, 0);
	run_on(a, LEAVER, use_all, 0);
}

static void tell(bool leaving)
{
	ck_assert_int_eq(kill(cluster.node[LEAVER].pid, leaving ? SIGUSR1 : SIGUSR2), 0);
}

static bool says(const char *name)
{
	json_t *o = cluster_json(&cluster, LEAVER, "status");
	const json_t *value = json_object_get(o, name);
	bool yes = json_is_true(value);

	ck_assert_msg(json_is_boolean(value), "no '%s'", name);
	json_decref(o);
	return yes;
}

static uint64_t core(const char *name)
{
	return cluster_stat(&cluster, LEAVER, "core", name);
}

static uint64_t pages_left(void)
{
	return cluster_status(&cluster, LEAVER, "pages_left");
}

static void await(const char *name, bool is)
{
	uint64_t end = cluster_now_ms() + AWAIT_MS;

	while (says(name) != is) {
		ck_assert_msg(cluster_now_ms() < end, "not %s%s: %lu pages left", is ? "" : "un",
			      name, pages_left());
		cluster_sleep_ms(5);
	}
}

/* No more pages go for as long as it is. */
static uint64_t await_standstill(void)
{
	uint64_t end = cluster_now_ms() + AWAIT_MS, last = 0, now = pages_left();

	do {
		ck_assert_msg(cluster_now_ms() < end, "pages still go");
		last = now;
		cluster_sleep_ms(200);
		now = pages_left();
	} while (now != last);
	return now;
}

/* As the kernel counts them. */
static uint64_t ram_file_pages(void)
{
	char path[200];
	struct stat st;

	snprintf(path, sizeof(path), "%s.%u", cluster.node[LEAVER].shm, CLUSTER_VM);
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512 / PAGE;
}

static void check_line(const char *line)
{
	static struct cluster_result r;

	cluster_ctl(&cluster, LEAVER, &r, (const char *const[]){"status", NULL});
	ck_assert_msg(strstr(r.out, line) != NULL, "no '%s': %s", line, r.out);
}

static void check_empty(void)
{
	await("emptied", true);
	ck_assert_uint_eq(pages_left(), 0);
	ck_assert_uint_eq(core("pages_shared") + core("pages_modified") + core("pages_untouched") +
				  core("requests_now") + core("writebacks_now"),
			  0);
	ck_assert_uint_eq(ram_file_pages(), 0);
	check_line("leaving  no page is held here any more");
}

static void tell_gone(unsigned home)
{
	ck_assert_int_eq(kill(cluster.node[home].pid, SIGRTMIN), 0);
	harm_await_log(&cluster, home, "knows that node 0 is gone");
}

/* It is switched off; others find all. They can store to it, once homes know that it is gone. */
static void check_without_it(struct arena *a, uint64_t written)
{
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, LEAVER, SIGKILL)));
	run_on(a, NEAR, verify, written);
	run_on(a, FAR, verify, written);
	tell_gone(NEAR);
	tell_gone(FAR);
	atomic_store(&a->word[GO_ON], 1);
	run_on(a, FAR, store_foreign, 0); /* the leaver shared it */
	run_on(a, FAR, verify_and_write, written);
	run_on(a, NEAR, verify, written + 1);
	cluster_stop(&cluster);
}

struct run {
	const struct cluster_opts *opts;
	const char *text;
};

static const struct run runs[] = {{&one_shard, "1 shard"}, {&two_shards, "2 shards"}};

START_TEST(a_node_that_left_can_be_switched_off)
{
	struct arena *a = arena_new(0);
	uint64_t left, untouched, began;

	start(runs[_i].opts, a);
	ck_assert(!says("leaving") && !says("emptied"));
	untouched = core("pages_untouched");
	ck_assert_uint_gt(untouched, 3000);
	ck_assert_uint_gt(core("pages_shared"), 0);
	ck_assert_uint_gt(core("pages_modified"), 0);
	ck_assert_uint_gt(core("evicted_modified"), 0);
	left = pages_left();
	began = cluster_now_ms();
	tell(true);
	await("emptied", true);
	printf("proof: %s: %lu pages (%lu of them never used) given back in %lu ms\n",
	       runs[_i].text, left, untouched, cluster_now_ms() - began);
	check_empty();
	ck_assert(says("leaving"));
	check_without_it(a, 1);
	arena_free(a);
}
END_TEST

/* ---- much memory, little used ------------------------------------------------------------- */

#define MUCH_UNITS 500u /* 2 MiB each, nearly all of the first home's range */

static void touch_units(struct program *p)
{
	uint64_t *base = program_map(p, 0, MUCH_UNITS * 2 * MIB);

	for (unsigned i = 0; i < MUCH_UNITS; i++)
		store(base + ((uint64_t)i * UNIT_PAGES + i) * PAGE_WORDS, i + 1);
}

/* A few words of each page: what it costs to be read is not what is asked here. */
static void find_units(struct program *p)
{
	uint64_t *base = program_map(p, 0, MUCH_UNITS * 2 * MIB);

	for (uint64_t i = 0; i < (uint64_t)MUCH_UNITS * UNIT_PAGES; i += 37) {
		uint64_t unit = i / UNIT_PAGES, own = i % UNIT_PAGES == unit ? unit + 1 : 0;

		NEED(p, load(base + i * PAGE_WORDS) == own, "page %lu", i);
	}
	for (uint64_t i = 0; i < MUCH_UNITS; i++)
		NEED(p, load(base + (i * UNIT_PAGES + i) * PAGE_WORDS) == i + 1, "unit %lu", i);
}

/* A home counts on the node for each page of the units that it was granted whole. */
START_TEST(memory_that_was_hardly_used_goes_in_seconds)
{
	struct arena *a = arena_new(0);
	uint64_t left, began;

	cluster_start(&cluster, runs[_i].opts);
	run_on(a, LEAVER, touch_units, 0);
	left = pages_left();
	ck_assert_uint_ge(left, MUCH_UNITS * UNIT_PAGES * 9 / 10);
	began = cluster_now_ms();
	tell(true);
	check_empty();
	printf("proof: %s: %lu pages of 1 GiB that was hardly used given back in %lu ms\n",
	       runs[_i].text, left, cluster_now_ms() - began);
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, LEAVER, SIGKILL)));
	run_on(a, FAR, find_units, 0);
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

/* ---- in the middle ------------------------------------------------------------------------ */

/* Processor time of the leaver so far. */
static uint64_t ticks(void)
{
	unsigned long user = 0, system = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)cluster.node[LEAVER].pid);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fscanf(f,
				"%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
				&user, &system),
			 2);
	fclose(f);
	return user + system;
}

/* While a home is silent its pages stay, and the node sleeps. */
static uint64_t stall(void)
{
	uint64_t left = pages_left(), stays, began;

	harm_freeze(&cluster, FAR);
	tell(true);
	stays = await_standstill();
	ck_assert_uint_lt(stays, left);
	ck_assert_uint_gt(stays, UNIT_PAGES);
	ck_assert(!says("emptied"));
	check_line("leaving  pages still held ");
	began = ticks();
	cluster_sleep_ms(1000);
	if (!CLUSTER_SANITIZED)
		ck_assert_uint_lt(ticks() - began, (uint64_t)sysconf(_SC_CLK_TCK) / 5);
	return stays;
}

static void start_program(struct program *p, struct arena *a, const uint64_t *written)
{
	*p = (struct program){
		.cluster = &cluster, .arena = a, .node = LEAVER, .count = 1, .arg = written};
	program_start(p, verify_and_write);
	harm_await(a, INSIDE, 1);
}

START_TEST(a_program_that_comes_is_served_and_pages_go_after_it)
{
	struct arena *a = arena_new(0);
	struct program p, *list[] = {&p};
	uint64_t written = 1;

	start(runs[_i].opts, a);
	stall();
	start_program(&p, a, &written);
	harm_thaw(&cluster, FAR);
	/* Emptying pauses: what the program has stays, whatever its home could take. */
	ck_assert_uint_gt(await_standstill(), UNIT_PAGES / 2);
	ck_assert(!says("emptied") && says("leaving"));
	check_line("waits for 1 programs to end");
	atomic_store(&a->word[GO_ON], 1);
	programs_await(list, 1);
	check_empty();
	/* One more, when all had gone already. */
	run_on(a, LEAVER, verify, 2);
	check_empty();
	check_without_it(a, 2);
	arena_free(a);
}
END_TEST

START_TEST(a_node_that_stays_after_all_goes_on_as_ever)
{
	struct arena *a = arena_new(0);
	uint64_t left;

	start(runs[_i].opts, a);
	stall();
	tell(false);
	await("leaving", false);
	harm_thaw(&cluster, FAR);
	left = await_standstill();
	ck_assert_uint_gt(left, UNIT_PAGES);
	ck_assert(!says("emptied"));
	atomic_store(&a->word[GO_ON], 1);
	run_on(a, LEAVER, verify_and_write, 1);
	run_on(a, NEAR, verify, 2);
	run_on(a, LEAVER, verify_and_write, 2);
	/* From empty as well, and it can leave again. */
	tell(true);
	check_empty();
	tell(false);
	await("emptied", false);
	run_on(a, LEAVER, verify_and_write, 3);
	ck_assert_uint_gt(await_standstill(), UNIT_PAGES / 2);
	run_on(a, FAR, verify, 4);
	tell(true);
	check_empty();
	check_without_it(a, 4);
	arena_free(a);
}
END_TEST

static void kill_and_restart(void)
{
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, LEAVER, SIGKILL)));
	cluster_node_start(&cluster, LEAVER, NULL);
	cluster_node_await(&cluster, LEAVER);
}

/* ---- what is under way -------------------------------------------------------------------- */

#define FEW 50u

/* The whole unit goes to another node first: then pages of it are granted one by one. */
static void touch_one(struct program *p)
{
	store(program_map(p, GIB + 512 * MIB, 2 * MIB), 1);
}

static void store_few(struct program *p)
{
	uint64_t *base = program_map(p, GIB + 512 * MIB, 2 * MIB);

	for (unsigned i = 1; i <= FEW; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 5);
}

static void verify_few(struct program *p)
{
	uint64_t *base = program_map(p, GIB + 512 * MIB, 2 * MIB);

	for (unsigned i = 1; i <= FEW; i++)
		NEED(p, pattern_differs(base + i * PAGE_WORDS, i, 5) < 0, "page %u", i);
}

/* With the bytes on the way, and no page held, it is not empty; killed there, the next life goes
 * on.
 */
START_TEST(what_is_being_written_back_counts_also_in_the_next_life)
{
	struct arena *a = arena_new(0);
	uint64_t end;

	cluster_start(&cluster, runs[_i].opts);
	run_on(a, FAR, touch_one, 0);
	run_on(a, LEAVER, store_few, 0);
	harm_freeze(&cluster, FAR);
	tell(true);
	end = cluster_now_ms() + AWAIT_MS;
	while (core("pages_modified")) {
		ck_assert_msg(cluster_now_ms() < end, "%lu are held", core("pages_modified"));
		cluster_sleep_ms(5);
	}
	await_standstill();
	ck_assert_uint_eq(core("writebacks_now"), FEW);
	ck_assert_uint_eq(pages_left(), FEW);
	ck_assert(!says("emptied"));
	kill_and_restart();
	tell(true);
	await("leaving", true);
	cluster_sleep_ms(200);
	ck_assert_uint_eq(core("writebacks_now"), FEW);
	ck_assert(!says("emptied"));
	harm_thaw(&cluster, FAR);
	check_empty();
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, LEAVER, SIGKILL)));
	run_on(a, FAR, verify_few, 0);
	run_on(a, NEAR, verify_few, 0);
	cluster_stop(&cluster);
	arena_free(a);
}
END_TEST

/* Killed before as well, when its tables alone told of pages that were pinned and never stored to.
 */
START_TEST(a_node_killed_as_it_gives_back_goes_on_in_its_next_life)
{
	struct arena *a = arena_new(0);

	start(runs[_i].opts, a);
	kill_and_restart();
	stall();
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, LEAVER, SIGKILL)));
	harm_thaw(&cluster, FAR);
	cluster_node_start(&cluster, LEAVER, NULL);
	cluster_node_await(&cluster, LEAVER);
	ck_assert_uint_gt(core("pages_untouched"), UNIT_PAGES);
	tell(true);
	check_empty();
	check_without_it(a, 1);
	arena_free(a);
}
END_TEST

static Suite *leave_suite(void)
{
	Suite *s = suite_create("leave");
	TCase *t = cluster_tcase(s, "leave", CLUSTER_SANITIZED ? 600 : 120);
	int count = sizeof(runs) / sizeof(runs[0]);

	tcase_add_loop_test(t, a_node_that_left_can_be_switched_off, 0, count);
	tcase_add_loop_test(t, memory_that_was_hardly_used_goes_in_seconds, 0, count);
	tcase_add_loop_test(t, a_program_that_comes_is_served_and_pages_go_after_it, 0, count);
	tcase_add_loop_test(t, a_node_that_stays_after_all_goes_on_as_ever, 0, count);
	tcase_add_loop_test(t, what_is_being_written_back_counts_also_in_the_next_life, 0, count);
	tcase_add_loop_test(t, a_node_killed_as_it_gives_back_goes_on_in_its_next_life, 0, count);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {leave_suite};

	return cluster_main(argv, suites, 1);
}

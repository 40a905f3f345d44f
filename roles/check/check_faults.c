/* What programs see when a master or another program stops or dies: errors, never wrong bytes. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/harm.h"

/* The request deadline is 5 s; these bounds only tell "waited" from "hangs". */
#define ERROR_MS_MIN 4000u
#define ERROR_MS_MAX 15000u

/* Words of the arena. */
enum { READY = 10, BROKEN, RESTORED, DONE, COUNTED, CALLED };

static struct cluster cluster;

static void expect_late_error(struct program *p, uint64_t *at, bool write)
{
	uint64_t before = cluster_now_ms(), took;

	NEED(p, harm_fails(p, at, write), "read %lu", load(at));
	took = cluster_now_ms() - before;
	NEED(p, took >= ERROR_MS_MIN && took <= ERROR_MS_MAX, "after %lu ms", took);
}

/* ---- a home that is gone --------------------------------------------------------------- */

#define DEAD 2u

/* Program 0 reads, 1 writes, 2 upgrades what it holds Shared; each once the home is dead. */
static void use_dead_home(struct program *p)
{
	uint64_t *page = program_map(p, harm_gpa(p, DEAD, p->index), PAGE);
	int fds[2];

	if (p->index == 2)
		NEED(p, load(page) == 0, "%lu", load(page));
	harm_catch_bus();
	harm_tell(p, READY);
	program_await_word(p, BROKEN, 1);
	if (p->index == 2)
		NEED(p, load(page) == 0, "what is held stays readable");
	expect_late_error(p, page, p->index != 0);
	NEED(p, harm_fails(p, page, true), "the second time");
	NEED(p, !pipe(fds), "pipe");
	NEED(p, write(fds[1], page, 8) < 0 && errno == EFAULT, "the kernel's read: errno %d",
	     errno);
	harm_tell(p, DONE);
}

/* Counts in pages of the living homes until the others have their errors. */
static void use_living_homes(struct program *p)
{
	uint64_t *page[2], n = 0;

	for (unsigned i = 0; i < 2; i++)
		page[i] = program_map(p, harm_gpa(p, i, 0), PAGE);
	harm_tell(p, READY);
	program_await_word(p, BROKEN, 1);
	while (atomic_load(&p->arena->word[DONE]) < 3) {
		for (unsigned i = 0; i < 2; i++)
			__atomic_fetch_add(page[i], 1, __ATOMIC_SEQ_CST);
		n++;
		usleep(500);
	}
	atomic_fetch_add(&p->arena->word[COUNTED], n);
	harm_tell(p, DONE);
	program_await_word(p, DONE, 5);
	for (unsigned i = 0; i < 2; i++)
		NEED(p, load(page[i]) == p->arena->word[COUNTED], "page %u: %lu of %llu", i,
		     load(page[i]), p->arena->word[COUNTED]);
	NEED(p, n > 100, "only %lu rounds", n);
}

static void with_dead_home(struct program *p)
{
	(p->index < 3 ? use_dead_home : use_living_homes)(p);
}

static void on_error(void *opaque, void *at, const char *text)
{
	struct program *p = opaque;

	if (at && strstr(text, "its home did not answer in time"))
		atomic_store(&p->arena->word[CALLED], (uintptr_t)at);
}

static void *touch(void *opaque)
{
	struct program *p = opaque;

	store((uint64_t *)p->arg, 1);
	harm_tell(p, RESTORED); /* nobody comes here */
	return NULL;
}

/* WVM_ERROR_PARK: a callback, and the thread stays where it is. */
static void park(struct program *p)
{
	pthread_t thread;

	p->arg = wvm_map(p->wvm, CLUSTER_VM, harm_gpa(p, DEAD, 3), PAGE,
			 WVM_STRICT | WVM_ERROR_PARK);
	NEED(p, p->arg, "%s", wvm_attach_error());
	wvm_on_error(p->wvm, on_error, p);
	harm_tell(p, READY);
	program_await_word(p, BROKEN, 1);
	NEED(p, !pthread_create(&thread, NULL, touch, p), "thread");
	program_await_word(p, CALLED, 1);
	NEED(p, p->arena->word[CALLED] == (uintptr_t)p->arg, "address %llx",
	     p->arena->word[CALLED]);
	cluster_sleep_ms(300);
	NEED(p, !p->arena->word[RESTORED], "the thread went on");
	_exit(0); /* with a thread parked */
}

START_TEST(a_dead_homes_pages_are_errors_after_a_wait_and_other_pages_go_on_working)
{
	static const unsigned nodes[] = {0, 0, 1, 0, 1, 1};
	struct arena *a = arena_new(0);
	struct program programs[6], *list[6];

	cluster_start(&cluster, NULL);
	harm_touch_units(&cluster, a, DEAD, DEAD);
	for (unsigned i = 0; i < 6; i++) {
		programs[i] = (struct program){
			.cluster = &cluster, .arena = a, .node = nodes[i], .index = i, .count = 6};
		list[i] = &programs[i];
		program_start(list[i], i < 5 ? with_dead_home : park);
	}
	harm_await(a, READY, 6);
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, DEAD, SIGKILL)));
	a->word[BROKEN] = 1;
	programs_await(list, 6);
	ck_assert_uint_ge(cluster_stat(&cluster, 0, "core", "faults_failed"), 2);
	cluster_stop(&cluster);
}
END_TEST

/* ---- a home that sleeps ---------------------------------------------------------------- */

static void count_on(struct program *p)
{
	uint64_t *page[3], n = 0;

	for (unsigned i = 0; i < 3; i++)
		page[i] = program_map(p, harm_gpa(p, i, 1), PAGE);
	harm_tell(p, READY);
	while (!atomic_load(&p->arena->word[RESTORED])) {
		for (unsigned i = 0; i < 3; i++)
			__atomic_fetch_add(page[i], 1, __ATOMIC_SEQ_CST);
		n++;
		usleep(500);
	}
	atomic_fetch_add(&p->arena->word[COUNTED], n);
	program_meet(p);
	for (unsigned i = 0; i < 3; i++)
		NEED(p, load(page[i]) == p->arena->word[COUNTED], "home %u: %lu of %llu", i,
		     load(page[i]), p->arena->word[COUNTED]);
}

static void stop_and_continue(unsigned node, unsigned ms)
{
	harm_freeze(&cluster, node);
	cluster_sleep_ms(ms);
	harm_thaw(&cluster, node);
}

START_TEST(a_master_that_stands_still_for_two_seconds_loses_nothing)
{
	struct arena *a = arena_new(0);
	struct program programs[6], *list[6];

	cluster_start(&cluster, NULL);
	harm_touch_units(&cluster, a, DEAD, DEAD);
	for (unsigned i = 0; i < 6; i++) {
		programs[i] = (struct program){
			.cluster = &cluster, .arena = a, .node = i / 2, .index = i, .count = 6};
		list[i] = &programs[i];
		program_start(list[i], count_on);
	}
	harm_await(a, READY, 6);
	cluster_sleep_ms(100);
	stop_and_continue(1, 2000);
	cluster_sleep_ms(200);
	a->word[RESTORED] = 1;
	programs_await(list, 6);
	cluster_stop(&cluster);
}
END_TEST

static void fill_asleep(struct program *p)
{
	uint64_t *page = program_map(p, harm_gpa(p, 1, 0), PAGE);

	store(page, 42);
}

static void read_asleep(struct program *p)
{
	uint64_t gpa = harm_gpa(p, 1, 0);
	uint64_t *page = program_map(p, gpa, PAGE);

	harm_catch_bus();
	harm_tell(p, READY);
	program_await_word(p, BROKEN, 1);
	expect_late_error(p, page, false);
	harm_tell(p, DONE);
	program_await_word(p, RESTORED, 1);
	NEED(p, !wvm_unmap(p->wvm, page, PAGE), "unmap");
	page = program_map(p, gpa, PAGE);
	NEED(p, load(page) == 42, "%lu after a new mapping", load(page));
	store(page, 43);
}

static void read_again(struct program *p)
{
	uint64_t *page = program_map(p, harm_gpa(p, 1, 0), PAGE);

	NEED(p, load(page) == 43, "%lu", load(page));
}

START_TEST(a_home_that_comes_back_after_the_deadline_still_has_every_byte)
{
	struct arena *a = arena_new(0);
	struct program reader = {.cluster = &cluster, .arena = a, .count = 1};

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, (const unsigned[]){2}, 1, fill_asleep, NULL);
	program_start(&reader, read_asleep);
	harm_await(a, READY, 1);
	harm_freeze(&cluster, 1);
	a->word[BROKEN] = 1;
	harm_await(a, DONE, 1);
	harm_thaw(&cluster, 1);
	a->word[RESTORED] = 1;
	programs_await((struct program *const[]){&reader}, 1);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, read_again, NULL);
	cluster_stop(&cluster);
}
END_TEST

/* ---- programs that die ----------------------------------------------------------------- */

#define HELD_PAGES 256u

static void hold_and_sleep(struct program *p)
{
	uint64_t *base = program_map(p, 0, HELD_PAGES * PAGE);

	for (unsigned i = 0; i < HELD_PAGES; i++)
		pattern_fill(base + i * PAGE_WORDS, i, p->arg ? 2 : 1);
	harm_tell(p, READY);
	for (;;)
		pause();
}

static void verify_held(struct program *p)
{
	uint64_t *base = program_map(p, 0, HELD_PAGES * PAGE);

	for (unsigned i = 0; i < HELD_PAGES; i++) {
		int at = pattern_differs(base + i * PAGE_WORDS, i, 1);

		NEED(p, at < 0, "page %u word %d", i, at);
	}
}

START_TEST(what_a_killed_program_had_written_stays_with_its_node)
{
	struct arena *a = arena_new(0);
	struct program holder = {.cluster = &cluster, .arena = a, .count = 1};

	cluster_start(&cluster, NULL);
	program_start(&holder, hold_and_sleep);
	harm_await(a, READY, 1);
	program_kill(&holder);
	programs_run(&cluster, a, (const unsigned[]){1, 0, 2}, 3, verify_held, NULL);
	ck_assert_uint_eq(cluster_status(&cluster, 0, "clients"), 0);
	cluster_stop(&cluster);
}
END_TEST

static void fault_asleep(struct program *p)
{
	uint64_t *page = program_map(p, harm_gpa(p, 1, 0) + p->index * PAGE, PAGE);

	harm_tell(p, READY);
	program_await_word(p, BROKEN, 1);
	store(page, 1);
	NEED(p, false, "the store went through");
}

static void use_after(struct program *p)
{
	uint64_t *base = program_map(p, harm_gpa(p, 1, 0), 8 * PAGE);

	for (unsigned i = 0; i < 8; i++) {
		/* The home may have executed a dead program's request, but not its store. */
		NEED(p, load(base + i * PAGE_WORDS + p->node) == 0, "page %u", i);
		store(base + i * PAGE_WORDS + p->node, 1);
	}
}

START_TEST(programs_that_are_killed_in_a_fault_leave_pages_that_work)
{
	struct arena *a = arena_new(0);
	struct program programs[4];

	cluster_start(&cluster, NULL);
	for (unsigned i = 0; i < 4; i++) {
		programs[i] = (struct program){
			.cluster = &cluster, .arena = a, .node = i % 2 * 2, .index = i, .count = 4};
		program_start(&programs[i], fault_asleep);
	}
	harm_await(a, READY, 4);
	harm_freeze(&cluster, 1);
	a->word[BROKEN] = 1;
	cluster_sleep_ms(300);
	for (unsigned i = 0; i < 4; i++)
		program_kill(&programs[i]);
	harm_thaw(&cluster, 1);
	ck_assert_int_eq(a->failed, 0);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, use_after, NULL);
	cluster_stop(&cluster);
}
END_TEST

/* ---- masters that are restarted alone -------------------------------------------------- */

static void use_home_0(struct program *p)
{
	uint64_t *page = program_map(p, harm_gpa(p, 0, 0) + p->index * PAGE, PAGE);

	store(page, 7);
}

/* The page may have been written back or not: 7 or an error, and nothing else. */
static void expect_error_of_home_0(struct program *p)
{
	uint64_t gpa = harm_gpa(p, 0, 0);
	uint64_t *others = program_map(p, gpa + !p->index * PAGE, PAGE);

	harm_catch_bus();
	NEED(p, harm_fails(p, others, false), "node %u read %lu", p->node, load(others));
}

START_TEST(a_master_restarted_alone_refuses_to_serve_and_nobody_reads_zeros)
{
	static const unsigned nodes[] = {1, 2};
	struct arena *a = arena_new(0);
	char log[CLUSTER_OUT_BYTES];
	int status;

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, nodes, 2, use_home_0, NULL);
	cluster_node_end(&cluster, 0, SIGKILL);
	cluster_node_start(&cluster, 0, (const char *const[]){"--fresh", NULL});
	status = cluster_node_end(&cluster, 0, 0);
	cluster_read(cluster.node[0].log, log, sizeof(log));
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x: %s", status, log);
	ck_assert_msg(strstr(log, "used memory of an earlier life of this node") != NULL, "%s",
		      log);
	ck_assert_ptr_null(strstr(log, "ready"));
	programs_run(&cluster, a, nodes, 2, expect_error_of_home_0, NULL);
	cluster_stop(&cluster);
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
}
END_TEST

/* Pages of home 1; of these node 0 has the only copy when it dies. */
#define LOST_PAGES 3u

static void write_of_home_1(struct program *p)
{
	uint64_t *base = program_map(p, harm_gpa(p, 1, 0), (LOST_PAGES + 1) * PAGE);

	for (unsigned i = 0; i < LOST_PAGES; i++)
		store(base + i * PAGE_WORDS, *(const uint64_t *)p->arg);
	(void)load(base + LOST_PAGES * PAGE_WORDS);
}

static void read_of_home_1(struct program *p)
{
	uint64_t *base = program_map(p, harm_gpa(p, 1, 0), (LOST_PAGES + 1) * PAGE);

	for (unsigned i = 0; i < LOST_PAGES; i++)
		NEED(p, load(base + i * PAGE_WORDS) == *(const uint64_t *)p->arg, "page %u: %lu", i,
		     load(base + i * PAGE_WORDS));
}

static void expect_lost_page(struct program *p, uint64_t *base, unsigned i)
{
	NEED(p, harm_fails(p, base + i * PAGE_WORDS, false), "node %u read %lu from page %u",
	     p->node, load(base + i * PAGE_WORDS), i);
	NEED(p, harm_fails(p, base + i * PAGE_WORDS, true), "node %u wrote page %u", p->node, i);
}

/* Page i is first asked for by program i: the home, another node, the dead one's next life. */
static void expect_lost(struct program *p)
{
	uint64_t *base = program_map(p, harm_gpa(p, 1, 0), (LOST_PAGES + 1) * PAGE);

	harm_catch_bus();
	expect_lost_page(p, base, p->index);
	program_meet(p);
	for (unsigned i = 0; i < LOST_PAGES; i++)
		expect_lost_page(p, base, i);
	/* What was only shared is not lost. */
	NEED(p, load(base + LOST_PAGES * PAGE_WORDS) == 0, "the shared page");
}

START_TEST(a_page_whose_only_copy_died_with_its_owner_is_an_error_and_never_an_old_copy)
{
	static const uint64_t first = 1, second = 2;
	struct arena *a = arena_new(0);

	cluster_start(&cluster, NULL);
	harm_touch_units(&cluster, a, 1, 1);
	/* The home has a stored copy with 1; then node 0 makes it 2 and dies. */
	programs_run(&cluster, a, (const unsigned[]){0}, 1, write_of_home_1, &first);
	programs_run(&cluster, a, (const unsigned[]){2}, 1, read_of_home_1, &first);
	programs_run(&cluster, a, (const unsigned[]){0}, 1, write_of_home_1, &second);
	cluster_node_end(&cluster, 0, SIGKILL);
	cluster_node_start(&cluster, 0, (const char *const[]){"--fresh", NULL});
	cluster_node_await(&cluster, 0);
	programs_run(&cluster, a, (const unsigned[]){1, 2, 0}, LOST_PAGES, expect_lost, NULL);
	ck_assert_uint_eq(cluster_stat(&cluster, 1, "core", "home_lost"), LOST_PAGES);
	cluster_stop(&cluster);
}
END_TEST

/* ---- the own master -------------------------------------------------------------------- */

static void on_gone(void *opaque, void *at, const char *text)
{
	struct program *p = opaque;

	if (!at && strstr(text, "gone"))
		harm_tell(p, CALLED);
}

static void outlive_master(struct program *p)
{
	uint64_t *base = program_map(p, 0, 2 * PAGE);
	pthread_t thread;

	wvm_on_error(p->wvm, on_gone, p);
	store(base, 5);
	harm_tell(p, READY);
	program_await_word(p, CALLED, 1);
	NEED(p, load(base) == 5, "%lu", load(base));
	p->arg = base + PAGE_WORDS;
	NEED(p, !pthread_create(&thread, NULL, touch, p), "thread");
	cluster_sleep_ms(500);
	NEED(p, !p->arena->word[RESTORED], "a store went through without a master");
	_exit(0);
}

START_TEST(without_its_master_a_program_waits_and_is_told)
{
	struct arena *a = arena_new(0);
	struct program user = {.cluster = &cluster, .arena = a, .count = 1};

	cluster_start(&cluster, NULL);
	harm_touch_units(&cluster, a, 1, HARM_ANY);
	program_start(&user, outlive_master);
	harm_await(a, READY, 1);
	cluster_node_end(&cluster, 0, SIGKILL);
	programs_await((struct program *const[]){&user}, 1);
	cluster_stop(&cluster);
}
END_TEST

static Suite *faults_suite(void)
{
	Suite *s = suite_create("faults");
	TCase *t = cluster_tcase(s, "homes", 60);

	tcase_add_test(t, a_dead_homes_pages_are_errors_after_a_wait_and_other_pages_go_on_working);
	tcase_add_test(t, a_master_that_stands_still_for_two_seconds_loses_nothing);
	tcase_add_test(t, a_home_that_comes_back_after_the_deadline_still_has_every_byte);
	t = cluster_tcase(s, "programs", 60);
	tcase_add_test(t, what_a_killed_program_had_written_stays_with_its_node);
	tcase_add_test(t, programs_that_are_killed_in_a_fault_leave_pages_that_work);
	t = cluster_tcase(s, "restarts", 60);
	tcase_add_test(t, a_master_restarted_alone_refuses_to_serve_and_nobody_reads_zeros);
	tcase_add_test(
		t, a_page_whose_only_copy_died_with_its_owner_is_an_error_and_never_an_old_copy);
	tcase_add_test(t, without_its_master_a_program_waits_and_is_told);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {faults_suite};

	return cluster_main(argv, suites, 1);
}

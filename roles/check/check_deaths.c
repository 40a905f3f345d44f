/*
 * Deaths: a master that is gone for good, one that stands still for longer than any
 * deadline, one that loses a part of itself, programs that are killed while they
 * store. Whoever needs what is gone gets an error in time, all others never
 * notice, and no byte is ever wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/churn.h"

/* The request deadline is 5 s: errors come then, and not much later. */
#define ERROR_MS_MIN 4000u
#define ERROR_MS_MAX 6000u
#define PAUSE_MS_MAX 4000u /* of who does not need the dead: less than any deadline */

#define DEAD 2u
#define UNIT_OTHERS                                                                  \
	128u /* units from here on belong to programs that never meet the dead one's \
	      */

/* Words of the arena. */
enum { READY = 10, BROKEN, SLOWEST, FASTEST, RESTORED, DONE, GO, STORED };

static struct cluster cluster;

/* On the two other nodes, with pages whose homes are those two. */
static const unsigned survivors[] = {0, 1, 0, 1};
#define SURVIVORS 4u
static const struct churn_plan survivors_plan = {
	.homes = 3, .first = UNIT_OTHERS, .ranges = 6, .may_fail = false};

static void note_error(struct program *p, uint64_t took)
{
	unsigned long long is = atomic_load(&p->arena->word[SLOWEST]);

	NEED(p, took >= ERROR_MS_MIN && took <= ERROR_MS_MAX, "an error after %lu ms", took);
	while (is < took && !atomic_compare_exchange_weak(&p->arena->word[SLOWEST], &is, took))
		;
}

/* ---- gone for good ----------------------------------------------------------------------- */

enum need {
	READ_ITS_HOME,     /* a page of the dead home */
	WRITE_ITS_HOME,    /* likewise */
	UPGRADE_ITS_HOME,  /* one that is held Shared */
	READ_WHAT_IT_OWNS, /* of a living home, Modified at the dead node */
	WRITE_WHAT_IT_OWNS,
	WRITE_WHAT_IT_SHARES, /* of a living home, Shared at the dead node */
	PIN_ITS_HOME,
	NEEDS,
};
#define NEEDY (2 * NEEDS) /* programs: one of each kind on either node */

static uint64_t gpa_of_need(struct program *p, enum need need)
{
	bool its_home = need <= UPGRADE_ITS_HOME || need == PIN_ITS_HOME;

	return harm_gpa(p, its_home ? DEAD : 1, 0) + (need * NEEDY + p->index) * PAGE;
}

/* On the node that is to die: owns and shares what it takes along. */
static void take_along(struct program *p)
{
	uint64_t *base = program_map(p, harm_gpa(p, 1, 0), NEEDS * NEEDY * PAGE);
	uint64_t *its_home = program_map(p, harm_gpa(p, DEAD, 0) + 2 * MIB - PAGE, PAGE);

	/* Its first touch: the others will have to ask for each page of that unit, too. */
	NEED(p, load(its_home) == 0, "%lu", load(its_home));
	for (unsigned need = 0; need < NEEDS; need++)
		for (unsigned i = 0; i < NEEDY; i++) {
			uint64_t *at = base + (need * NEEDY + i) * PAGE_WORDS;

			if (need == READ_WHAT_IT_OWNS || need == WRITE_WHAT_IT_OWNS)
				store(at, 1);
			else if (need == WRITE_WHAT_IT_SHARES)
				NEED(p, load(at) == 0, "%lu", load(at));
		}
}

/* Program i wants what need number i says, on one node or the other. */
static void need_the_dead(struct program *p)
{
	enum need need = p->index % NEEDS;
	uint64_t *page = program_map(p, gpa_of_need(p, need), PAGE), before;
	int r = -EIO;

	if (need == UPGRADE_ITS_HOME)
		NEED(p, load(page) == 0, "%lu", load(page));
	harm_catch_bus();
	harm_tell(p, READY);
	program_await_word(p, BROKEN, 1);
	before = cluster_now_ms();
	if (need == PIN_ITS_HOME)
		r = wvm_pin(p->wvm, page, PAGE);
	else
		NEED(p, harm_fails(p, page, need != READ_ITS_HOME && need != READ_WHAT_IT_OWNS),
		     "need %u: the access got through", need);
	NEED(p, r == -EIO, "need %u: %d", need, r);
	note_error(p, cluster_now_ms() - before);
	harm_tell(p, DONE);
}

static void start_needy(struct arena *a, struct program programs[NEEDY],
			struct program *list[NEEDY])
{
	for (unsigned i = 0; i < NEEDY; i++) {
		programs[i] = (struct program){.cluster = &cluster,
					       .arena = a,
					       .node = i / NEEDS,
					       .index = i,
					       .count = NEEDY};
		list[i] = &programs[i];
		program_start(list[i], need_the_dead);
	}
	harm_await(a, READY, NEEDY);
}

START_TEST(who_needs_a_node_that_is_gone_gets_an_error_in_time_and_others_never_notice)
{
	struct arena *a = arena_new(0);
	static struct program programs[NEEDY], *list[NEEDY];
	static struct churn others;
	uint64_t pause;

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, (const unsigned[]){DEAD}, 1, take_along, NULL);
	churn_start(&others, &cluster, &survivors_plan, survivors, SURVIVORS);
	start_needy(a, programs, list);
	others.arena->word[CHURN_PAUSE_MS_MAX] = 0;
	ck_assert(churn_goes_on(&others, 500));
	pause = others.arena->word[CHURN_PAUSE_MS_MAX];
	others.arena->word[CHURN_PAUSE_MS_MAX] = 0;
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, DEAD, SIGKILL)));
	a->word[BROKEN] = 1;
	while (a->word[DONE] < NEEDY && !a->failed)
		ck_assert(churn_goes_on(&others, 20));
	programs_await(list, NEEDY);
	ck_assert(churn_goes_on(&others, 500));
	churn_stop(&others);
	churn_verify(&others);
	printf("gone for good: errors after at most %llu ms; others paused %lu ms at most before "
	       "it, %llu ms after it, %lu rounds\n",
	       a->word[SLOWEST], pause, others.arena->word[CHURN_PAUSE_MS_MAX],
	       churn_rounds(&others));
	ck_assert_uint_lt(others.arena->word[CHURN_PAUSE_MS_MAX], PAUSE_MS_MAX);
	cluster_stop(&cluster);
	harm_rehearsed("a node gone for good");
}
END_TEST

/* ---- stands still for ten seconds ---------------------------------------------------------- */

START_TEST(a_master_that_stands_still_for_ten_seconds_under_load_loses_nothing)
{
	static const unsigned all[] = {0, 1, 2, 0, 1, 2};
	static const struct churn_plan plan = {.homes = 7, .ranges = 6, .may_fail = true};
	static struct churn others, users;
	uint64_t begin;

	cluster_start(&cluster, NULL);
	churn_start(&others, &cluster, &survivors_plan, survivors, SURVIVORS);
	churn_start(&users, &cluster, &plan, all, 6);
	others.arena->word[CHURN_PAUSE_MS_MAX] = 0;
	users.arena->word[CHURN_PAUSE_MS_MAX] = 0;
	harm_freeze(&cluster, DEAD);
	for (begin = cluster_now_ms(); cluster_now_ms() - begin < 10000;)
		ck_assert(churn_goes_on(&others, 20));
	harm_thaw(&cluster, DEAD);
	ck_assert(churn_goes_on(&users, 200));
	ck_assert(churn_goes_on(&others, 200));
	churn_stop(&users);
	churn_stop(&others);
	churn_verify(&users);
	churn_verify(&others);
	printf("stopped for 10 s: %lu accesses failed, on other nodes each within %lu and %lu ms; "
	       "others paused %llu ms at most\n",
	       churn_errors(&users), churn_error_ms_max(&users, 0), churn_error_ms_max(&users, 1),
	       others.arena->word[CHURN_PAUSE_MS_MAX]);
	/* On its own node programs wait for it to go on. */
	for (unsigned i = 0; i < DEAD; i++) {
		ck_assert_uint_ge(churn_error_ms_max(&users, i), ERROR_MS_MIN);
		ck_assert_uint_le(churn_error_ms_max(&users, i), ERROR_MS_MAX);
	}
	ck_assert_uint_lt(others.arena->word[CHURN_PAUSE_MS_MAX], PAUSE_MS_MAX);
	cluster_stop(&cluster);
	harm_rehearsed("a master stopped for 10 s");
}
END_TEST

/* ---- programs that are killed while they store --------------------------------------------- */

#define VICTIMS      3u
#define VICTIM_PAGES 96u
#define KILLS        8u

/* Says which store is complete, after each of them. */
static void store_until_killed(struct program *p)
{
	uint64_t *base = program_map(p, 0, VICTIM_PAGES * PAGE);
	uint64_t n = *(const uint64_t *)p->arg;

	for (;;) {
		unsigned i = (unsigned)(program_random(p) % VICTIM_PAGES);

		if (i % VICTIMS != p->index)
			continue;
		store(base + i * PAGE_WORDS, ++n);
		atomic_store((atomic_ullong *)&p->arena->model[i], n);
		atomic_fetch_add(&p->arena->word[STORED], 1);
	}
}

/* What was stored last before the death, or the store that nobody could tell of any more. */
static void find_stores(struct program *p)
{
	uint64_t *base = program_map(p, 0, VICTIM_PAGES * PAGE);

	for (unsigned k = 0; k < VICTIM_PAGES; k++) {
		unsigned i = (k + p->index * 31) % VICTIM_PAGES;
		uint64_t is = load(base + i * PAGE_WORDS), said = p->arena->model[i];
		uint64_t *seen = &p->arena->model[VICTIM_PAGES + i], first = 0;

		NEED(p, is == said || is > said, "page %u: %lu, but %lu was stored", i, is, said);
		/* And all agree on it. */
		NEED(p,
		     __atomic_compare_exchange_n(seen, &first, is + 1, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST) ||
			     first == is + 1,
		     "page %u: %lu here, %lu elsewhere", i, is, first - 1);
	}
	program_meet(p);
	for (unsigned i = p->index; i < VICTIM_PAGES; i += p->count) {
		p->arena->model[i] = load(base + i * PAGE_WORDS);
		p->arena->model[VICTIM_PAGES + i] = 0;
	}
}

START_TEST(a_killed_programs_stores_are_found_on_every_node)
{
	struct arena *a = arena_new(2 * VICTIM_PAGES);
	uint64_t first = 0;

	cluster_start(&cluster, NULL);
	for (unsigned round = 0; round < KILLS; round++) {
		struct program victims[VICTIMS];

		first = (round + 1) * UINT64_C(1000000);
		for (unsigned i = 0; i < VICTIMS; i++) {
			victims[i] = (struct program){.cluster = &cluster,
						      .arena = a,
						      .node = round % 3,
						      .index = i,
						      .count = VICTIMS,
						      .arg = &first};
			program_start(&victims[i], store_until_killed);
		}
		harm_await(a, STORED, a->word[STORED] + 300 * (round + 1));
		ck_assert_int_eq(a->failed, 0);
		for (unsigned i = 0; i < VICTIMS; i++)
			program_kill(&victims[i]);
		programs_run(&cluster, a, (const unsigned[]){round % 3, 1, 0, 2}, 4, find_stores,
			     NULL);
	}
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(cluster_status(&cluster, i, "clients"), 0);
	cluster_stop(&cluster);
	harm_rehearsed("programs killed while they store");
}
END_TEST

/* ---- a master that loses a shard ------------------------------------------------------------- */

START_TEST(a_master_whose_shard_ends_ends_with_a_clear_error_and_leaves_its_files)
{
	char library[160], path[160], log[CLUSTER_OUT_BYTES];
	struct program user = {
		.cluster = &cluster, .arena = arena_new(0), .node = DEAD, .count = 1};
	unsigned files;
	int fd, status;

	cluster_preload(library, sizeof(library), "break");
	cluster_prepare(&cluster, &(struct cluster_opts){.shards = "2", .preload = library});
	snprintf(path, sizeof(path), "%s/break", cluster.dir);
	for (unsigned i = 0; i < cluster.nodes; i++) {
		if (i == 1)
			setenv("WVM_BREAK_FILE", path, 1);
		else
			unsetenv("WVM_BREAK_FILE");
		cluster_node_start(&cluster, i, NULL);
	}
	for (unsigned i = 0; i < cluster.nodes; i++)
		cluster_node_await(&cluster, i);
	files = cluster_node_files(&cluster, 1);
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	/* It sleeps until something comes to it. */
	program_start(&user, take_along);
	status = cluster_node_end(&cluster, 1, 0);
	program_kill(&user);
	cluster_read(cluster.node[1].log, log, sizeof(log));
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x: %s", status, log);
	ck_assert_msg(strstr(log, "stopped: shard 1: io_uring_enter: Bad file descriptor") != NULL,
		      "%s", log);
	ck_assert_uint_eq(cluster_node_files(&cluster, 1), files);
	cluster_stop(&cluster);
	harm_rehearsed("a shard whose ring fails");
}
END_TEST

static Suite *deaths_suite(void)
{
	Suite *s = suite_create("deaths");
	TCase *t = cluster_tcase(s, "deaths", 180);

	tcase_add_test(t,
		       who_needs_a_node_that_is_gone_gets_an_error_in_time_and_others_never_notice);
	tcase_add_test(t, a_master_that_stands_still_for_ten_seconds_under_load_loses_nothing);
	tcase_add_test(t, a_killed_programs_stores_are_found_on_every_node);
	tcase_add_test(t, a_master_whose_shard_ends_ends_with_a_clear_error_and_leaves_its_files);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {deaths_suite};

	return harm_main(argv, suites, 1);
}

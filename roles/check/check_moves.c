/*
 * Nodes that join and drain while programs use all of the memory: nothing is lost, the share of
 * each is what its vnodes are worth, and what is in the way of an order is said.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "roles/check/harm.h"
#include "roles/check/orders.h"
#include "roles/check/users.h"

#define NODES 4u
#define SPARE 3u
#define PAGES USERS_PAGES

static struct cluster cluster;

static void begin(const char *shards)
{
	cluster_start(&cluster, &(struct cluster_opts){.nodes = NODES,
						       .vm = "1:512M",
						       .shards = shards,
						       .place = "SPARE 3\n"});
	for (unsigned i = 0; i < NODES; i++)
		await_alive(&cluster, i);
}

/* ---- tests ----------------------------------------------------------------------------- */

static void joins_and_drains(const char *shards)
{
	static const unsigned nodes[] = {0, 1, 0, 1};
	unsigned long long slowest_us;
	struct arena *a;
	uint64_t moved;

	begin(shards);
	shares(&cluster, 0, 7);
	is_member(&cluster, 0, SPARE, "SHADOW");
	is_member(&cluster, SPARE, SPARE, "SHADOW");
	a = start_users(&cluster, nodes, 4);
	await_steps(a, 20 * PAGES);
	slowest_us = atomic_exchange(&a->word[USERS_SLOWEST_US], 0);
	order(&cluster, 0, "join", "3");
	shares(&cluster, 0, 15);
	is_member(&cluster, 0, SPARE, "ACTIVE");
	moved = cluster_stat(&cluster, 3, "core", "handover_pages");
	ck_assert_uint_gt(moved, PAGES / 8);
	await_steps(a, 4 * PAGES);
	order(&cluster, 1, "drain", "2");
	shares(&cluster, 3, 11);
	is_member(&cluster, 1, 2, "OFFLINE");
	ck_assert_uint_eq(cluster_status(&cluster, 2, "pages_homed"), 0);
	await_steps(a, 4 * PAGES);
	printf("proof: %lu pages moved to a node that joined under load; the slowest access took "
	       "%llu us before, %llu us in all this\n",
	       moved, slowest_us, atomic_load(&a->word[USERS_SLOWEST_US]));
	ck_assert_uint_eq(cluster_status(&cluster, 2, "pages_left"), 0);
	/* It has nothing that anybody would miss. */
	ck_assert_int_eq(cluster_node_end(&cluster, 2, SIGTERM), 0);
	harm_await_log(&cluster, 0, "has ended, as it said itself, and has no pages of anybody");
	await_steps(a, 4 * PAGES);
	end_users(a);
	look_from(&cluster, a, 3);
	arena_free(a);
	cluster_node_start(&cluster, 2, NULL);
	cluster_node_await(&cluster, 2);
	cluster_stop(&cluster);
}

START_TEST(memory_moves_to_a_node_that_joins_and_from_one_that_drains)
{
	joins_and_drains(_i ? "2" : "1");
}
END_TEST

/* New home, former home and a third one end without warning, each while memory moves. */
START_TEST(masters_killed_while_memory_moves_go_on_where_they_were)
{
	static const unsigned nodes[] = {0, 1, 0, 1};
	struct arena *a;
	pid_t waits;

	begin(_i ? "2" : "1");
	a = start_users(&cluster, nodes, 4);
	await_steps(a, 10 * PAGES);
	order_meanwhile(&cluster, &waits, 0, "join", "3");
	for (unsigned i = 0; i < 2 * NODES; i++) {
		await_steps(a, 200);
		(void)cluster_node_end(&cluster, (3 + i) % NODES, SIGKILL);
		cluster_node_start(&cluster, (3 + i) % NODES, NULL);
		cluster_node_await(&cluster, (3 + i) % NODES);
	}
	await_order(waits);
	for (unsigned i = 0; i < NODES; i++)
		await_alive(&cluster, i);
	order(&cluster, 2, "drain", "2");
	for (unsigned i = 0; i < NODES; i++)
		await_epoch(&cluster, i, 5);
	shares(&cluster, 0, 11);
	await_steps(a, PAGES);
	end_users(a);
	look_from(&cluster, a, 3);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

static void map_refused(struct program *p)
{
	NEED(p, !wvm_map(p->wvm, CLUSTER_VM, 0, MIB, WVM_STRICT) && errno == ESHUTDOWN, "%s",
	     wvm_attach_error());
	NEED(p, strstr(wvm_attach_error(), "wvm_ctl join"), "%s", wvm_attach_error());
}

START_TEST(what_is_in_the_way_of_an_order_is_said)
{
	struct arena *a;

	begin("1");
	a = arena_new(USERS_MODEL);
	programs_run(&cluster, a, (const unsigned[]){SPARE}, 1, map_refused, NULL);
	arena_free(a);
	refused(&cluster, 0, "drain", "7", "has no node 7");
	order(&cluster, 0, "drain", "3"); /* it homes nothing: done */
	order(&cluster, 0, "join", "0");  /* it does: done */
	ck_assert_uint_eq(epoch_of(&cluster, 0), 1);
	(void)cluster_node_end(&cluster, 2, SIGKILL);
	await_status(&cluster, 0, 2, "DEAD");
	refused(&cluster, 0, "drain", "1", "node 2 does not answer");
	refused(&cluster, 0, "join", "3", "node 2 does not answer");
	cluster_node_start(&cluster, 2, NULL);
	cluster_node_await(&cluster, 2);
	await_status(&cluster, 0, 2, "ALIVE");
	order(&cluster, 0, "drain", "1");
	order(&cluster, 0, "drain", "2");
	refused(&cluster, 0, "drain", "0", "the last one");
	ck_assert_uint_eq(epoch_of(&cluster, 0), 5);
	shares(&cluster, 0, 1);
	cluster_stop(&cluster);
}
END_TEST

/* Who gave an order does not have to give it again as its master is started again. */
START_TEST(an_order_outlives_the_master_that_it_was_given_to)
{
	static const unsigned nodes[] = {0};
	struct arena *a;
	pid_t waits;

	begin("1");
	a = start_users(&cluster, nodes, 1);
	order_meanwhile(&cluster, &waits, 0, "drain", "0");
	await_epoch(&cluster, 0, 2);
	(void)cluster_node_end(&cluster, 0, SIGKILL);
	cluster_sleep_ms(1000); /* in which it is asked in vain */
	cluster_node_start(&cluster, 0, NULL);
	cluster_node_await(&cluster, 0);
	await_steps(a, PAGES);
	ck_assert_int_eq(waitpid(waits, NULL, WNOHANG), 0);
	end_users(a);
	await_order(waits);
	arena_free(a);
	shares(&cluster, 1, 6);
	cluster_stop(&cluster);
}
END_TEST

/* It may be there again at once: only one that is DEAD is in the way. */
START_TEST(an_order_waits_while_a_node_is_suspected)
{
	pid_t waits;

	begin("1");
	ck_assert_int_eq(kill(cluster.node[2].pid, SIGSTOP), 0);
	await_status(&cluster, 0, 2, "SUSPECT");
	order_meanwhile(&cluster, &waits, 0, "drain", "1");
	cluster_sleep_ms(200);
	ck_assert_int_eq(kill(cluster.node[2].pid, SIGCONT), 0);
	await_order(waits);
	shares(&cluster, 0, 5);
	cluster_stop(&cluster);
}
END_TEST

/* All are stopped, and begin again without the one that was drained; it may come back later. */
START_TEST(who_was_drained_is_not_needed_for_a_new_start_and_may_come_back)
{
	begin("1");
	order(&cluster, 1, "drain", "0");
	for (unsigned i = 1; i < NODES; i++)
		await_epoch(&cluster, i, 3);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(cluster_node_end(&cluster, i, SIGTERM), 0);
	for (unsigned i = 1; i < SPARE; i++)
		cluster_node_start(&cluster, i, NULL);
	for (unsigned i = 1; i < SPARE; i++)
		cluster_node_await(&cluster, i);
	ck_assert_uint_eq(epoch_of(&cluster, 1), 3);
	shares(&cluster, 1, 6);
	for (unsigned i = 0; i < NODES; i += SPARE)
		cluster_node_start(&cluster, i, NULL);
	for (unsigned i = 0; i < NODES; i += SPARE)
		cluster_node_await(&cluster, i);
	await_alive(&cluster, 1);
	order(&cluster, 0, "join", "0");
	shares(&cluster, 2, 7);
	cluster_stop(&cluster);
}
END_TEST

/* ---- nodes that come back --------------------------------------------------------------- */

/* It has nothing; a master that begins anew waits for it all the same. */
static void attach_only(struct program *p)
{
	atomic_store(&p->arena->word[USERS_OWN], 1);
	program_await_word(p, USERS_STOP, 1);
}

/* Its shards cannot take an epoch yet, while others move slices: once, and so often that all
 * tables have been used again. */
START_TEST(a_node_that_could_not_follow_moves_takes_its_slices_from_who_has_them)
{
	struct program idle = {.cluster = &cluster, .node = SPARE, .count = 1};
	struct arena *a = arena_new(USERS_MODEL);
	pid_t waits;

	begin(_i % 2 ? "2" : "1");
	fill_from(&cluster, a, 0);
	idle.arena = a;
	program_start(&idle, attach_only);
	while (!atomic_load(&a->word[USERS_OWN]))
		cluster_sleep_ms(5);
	ck_assert_int_eq(kill(idle.pid, SIGSTOP), 0);
	(void)cluster_node_end(&cluster, SPARE, SIGKILL);
	cluster_node_start(&cluster, SPARE, NULL);
	await_alive(&cluster, 0);
	order(&cluster, 0, "drain", "2");
	if (_i / 2)
		order(&cluster, 0, "join", "2");
	order_meanwhile(&cluster, &waits, 0, "join", "3");
	await_epoch(&cluster, SPARE, _i / 2 ? 6 : 4);
	program_kill(&idle);
	await_order(waits);
	shares(&cluster, 0, _i / 2 ? 15 : 11);
	look_from(&cluster, a, 1);
	look_from(&cluster, a, SPARE);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

/* Nobody who is left has ever used it: it is the drained one that knows. */
START_TEST(a_home_that_only_a_drained_node_used_does_not_serve_without_its_files)
{
	struct arena *a = arena_new(USERS_MODEL);
	static char log[1 << 16];
	int status;

	begin("1");
	fill_from(&cluster, a, 1);
	order(&cluster, 0, "drain", "1");
	for (unsigned i = 0; i < NODES; i++)
		await_epoch(&cluster, i, 3);
	(void)cluster_node_end(&cluster, 0, SIGKILL);
	cluster_node_start(&cluster, 0, (const char *const[]){"--fresh", NULL});
	status = cluster_node_end(&cluster, 0, 0);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x", status);
	cluster_read(cluster.node[0].log, log, sizeof(log));
	ck_assert_msg(strstr(log, "used memory of an earlier life"), "%s", log);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

static void restart(unsigned node)
{
	(void)cluster_node_end(&cluster, node, SIGKILL);
	cluster_node_start(&cluster, node, NULL);
	cluster_node_await(&cluster, node);
}

/* Those who learnt the records have begun anew since, and still know them. */
START_TEST(a_node_that_was_away_learns_from_lives_that_came_later)
{
	begin("1");
	(void)cluster_node_end(&cluster, SPARE, SIGKILL);
	order(&cluster, 0, "drain", "2");
	order(&cluster, 0, "join", "2");
	for (unsigned i = 0; i < SPARE; i++)
		await_epoch(&cluster, i, 5);
	for (unsigned i = 0; i < SPARE; i++)
		restart(i);
	cluster_node_start(&cluster, SPARE, NULL);
	cluster_node_await(&cluster, SPARE);
	await_epoch(&cluster, SPARE, 5);
	await_alive(&cluster, 0);
	order(&cluster, 0, "join", "3");
	shares(&cluster, 0, 15);
	cluster_stop(&cluster);
}
END_TEST

/* It could never take its part, so it does not get one, and others can still come and go. */
START_TEST(a_node_that_was_away_for_too_many_records_is_not_let_in)
{
	static char log[1 << 16];
	static struct cluster_result r;
	pid_t waits;

	begin("1");
	(void)cluster_node_end(&cluster, SPARE, SIGKILL);
	for (unsigned i = 0; i < 5; i++) {
		order(&cluster, 0, "drain", "2");
		order(&cluster, 0, "join", "2");
	}
	cluster_node_start(&cluster, SPARE, NULL);
	await_alive(&cluster, 0);
	waits = fork();
	if (!waits) {
		ctl(&cluster, 0, &r, "join", "3"); /* it waits, or is refused */
		_exit(r.status == 0);
	}
	cluster_sleep_ms(2000);
	ck_assert_uint_eq(epoch_of(&cluster, 0), 21);
	ck_assert_int_eq(kill(waits, SIGKILL), 0);
	ck_assert_int_eq(waitpid(waits, NULL, 0), waits);
	cluster_read(cluster.node[SPARE].log, log, sizeof(log));
	ck_assert_msg(strstr(log, "too far ahead"), "%s", log);
	order(&cluster, 0, "drain", "1");
	cluster_stop(&cluster);
}
END_TEST

/* Its former life has given a part: nobody asks for that again. */
START_TEST(a_home_that_nobody_used_may_begin_anew_while_slices_move)
{
	uint64_t given = 0, before;
	pid_t waits;

	begin("1");
	ck_assert_int_eq(kill(cluster.node[1].pid, SIGSTOP), 0); /* its part is not done */
	order_meanwhile(&cluster, &waits, 2, "join", "3");
	await_epoch(&cluster, SPARE, 2);
	await_epoch(&cluster, 0, 2);
	do {
		before = given;
		cluster_sleep_ms(300);
		given = cluster_stat(&cluster, 0, "core", "handover_given");
	} while (!given || given != before);
	ck_assert_int_eq(cluster_node_end(&cluster, 0, SIGTERM), 0);
	cluster_node_start(&cluster, 0, NULL);
	ck_assert_int_eq(kill(cluster.node[1].pid, SIGCONT), 0);
	cluster_node_await(&cluster, 0);
	await_order(waits);
	shares(&cluster, 0, 15);
	cluster_stop(&cluster);
}
END_TEST

/* Alone it cannot tell whether others have learnt of its end, and would never do without it. */
START_TEST(a_drained_node_is_not_done_while_nobody_else_knows)
{
	struct cluster_result r = {.status = -1};
	pid_t waits;

	begin("1");
	order(&cluster, 0, "drain", "2");
	for (unsigned i = 0; i < NODES; i++)
		await_epoch(&cluster, i, 3);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(cluster_node_end(&cluster, i, SIGTERM), 0);
	cluster_node_start(&cluster, 2, NULL);
	for (; r.status; cluster_sleep_ms(50))
		ctl(&cluster, 2, &r, "status", NULL);
	order_meanwhile(&cluster, &waits, 2, "drain", "2");
	cluster_sleep_ms(1500);
	ck_assert_int_eq(waitpid(waits, NULL, WNOHANG), 0);
	for (unsigned i = 0; i < 2; i++)
		cluster_node_start(&cluster, i, NULL);
	await_order(waits);
	for (unsigned i = 0; i < SPARE; i++)
		cluster_node_await(&cluster, i);
	cluster_stop(&cluster);
}
END_TEST

static Suite *make(void)
{
	Suite *s = suite_create("moves");
	TCase *t = cluster_tcase(s, "moves", 300);

	tcase_add_loop_test(t, memory_moves_to_a_node_that_joins_and_from_one_that_drains, 0, 2);
	tcase_add_loop_test(t, masters_killed_while_memory_moves_go_on_where_they_were, 0, 2);
	tcase_add_test(t, who_was_drained_is_not_needed_for_a_new_start_and_may_come_back);
	tcase_add_test(t, what_is_in_the_way_of_an_order_is_said);
	tcase_add_test(t, an_order_outlives_the_master_that_it_was_given_to);
	tcase_add_test(t, an_order_waits_while_a_node_is_suspected);

	t = cluster_tcase(s, "nodes that come back", 240);
	tcase_add_loop_test(
		t, a_node_that_could_not_follow_moves_takes_its_slices_from_who_has_them, 0, 4);
	tcase_add_test(t, a_node_that_was_away_learns_from_lives_that_came_later);
	tcase_add_test(t, a_node_that_was_away_for_too_many_records_is_not_let_in);
	tcase_add_test(t, a_home_that_nobody_used_may_begin_anew_while_slices_move);
	tcase_add_test(t, a_drained_node_is_not_done_while_nobody_else_knows);
	tcase_add_test(t, a_home_that_only_a_drained_node_used_does_not_serve_without_its_files);
	return s;
}

int main(int argc, char **argv)
{
	(void)argc;
	return cluster_main(argv, (Suite * (*const[])(void)){make}, 1);
}

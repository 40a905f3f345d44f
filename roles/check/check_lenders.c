/*
 * Nodes that lend memory only, and are gone for good: others take their place, and programs that
 * use all of the memory go on, with every byte that they have written.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/orders.h"
#include "roles/check/users.h"
#include "shared/core/slices.h"

#define NODES   5u
#define SPARE   4u /* it lends memory, too, when it has joined */
#define LENDERS 0x1cu
#define WAIT_MS 120000u /* a hang, not a measure */

static struct cluster cluster;
static const unsigned two[] = {0, 1, 0, 1};

static void begin(const char *shards)
{
	cluster_start(&cluster, &(struct cluster_opts){.nodes = NODES,
						       .vm = "1:512M",
						       .shards = shards,
						       .memory_only = LENDERS,
						       .place = "SPARE 4\n"});
	for (unsigned i = 0; i < NODES; i++)
		await_alive(&cluster, i);
}

/* What the node homes is at its second homes, too. */
static void await_copied(unsigned node)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;

	while (cluster_stat(&cluster, node, "core", "backup_missing")) {
		ck_assert_msg(cluster_now_ms() < end, "node %u: %lu slices are not copied", node,
			      cluster_stat(&cluster, node, "core", "backup_missing"));
		cluster_sleep_ms(50);
	}
}

static void await_member(unsigned at, unsigned of, const char *state)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;
	bool is = false;

	while (!is) {
		json_t *o = cluster_json(&cluster, at, "members");
		const json_t *m = json_array_get(json_object_get(o, "members"), of);

		is = !strcmp(json_string_value(json_object_get(m, "member")), state);
		json_decref(o);
		ck_assert_msg(is || cluster_now_ms() < end, "node %u does not say %s of node %u",
			      at, state, of);
		cluster_sleep_ms(20);
	}
}

static void await_out(unsigned at, unsigned of)
{
	await_member(at, of, "OFFLINE");
	ck_assert_uint_eq(slices_of(&cluster, at, of), 0);
}

static unsigned long long slowest_us(struct arena *a)
{
	return atomic_exchange(&a->word[USERS_SLOWEST_US], 0);
}

/* Over the files of a life that others think dead it does not go on. */
static void ends_at_once(unsigned node)
{
	int status;

	cluster_node_start(&cluster, node, NULL);
	status = cluster_node_end(&cluster, node, 0);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x", status);
}

/* Its next life has nothing of the one before, and homes memory when it is told to. */
static void comes_back(struct arena *a, unsigned node)
{
	char name[8];

	cluster_node_start(&cluster, node, NULL);
	cluster_node_await(&cluster, node);
	ck_assert_uint_eq(cluster_status(&cluster, node, "pages_homed"), 0);
	await_status(&cluster, 0, node, "ALIVE");
	await_steps(a, USERS_PAGES);
	snprintf(name, sizeof(name), "%u", node);
	order(&cluster, 0, "join", name);
	ck_assert_uint_gt(slices_of(&cluster, 0, node), 0);
	await_steps(a, USERS_PAGES);
}

/* ---- one after the other ----------------------------------------------------------------- */

/* Both lenders are killed: the second one when what the first had is copied again. */
START_TEST(nodes_that_lend_memory_are_killed_and_programs_go_on)
{
	unsigned long long slowest[3];
	struct arena *a;

	begin(_i ? "2" : "1");
	a = start_users(&cluster, two, 4);
	await_steps(a, 10 * USERS_PAGES);
	await_copied(2);
	slowest[0] = slowest_us(a);
	(void)cluster_node_end(&cluster, 2, SIGKILL);
	await_out(0, 2);
	await_steps(a, 4 * USERS_PAGES);
	slowest[1] = slowest_us(a);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_uint_gt(cluster_stat(&cluster, i, "core", "told_units"), 0);
	await_copied(3);
	(void)cluster_node_end(&cluster, 3, SIGKILL);
	await_out(1, 3);
	await_steps(a, 4 * USERS_PAGES);
	slowest[2] = slowest_us(a);
	ck_assert_uint_eq(slices_of(&cluster, 0, 0) + slices_of(&cluster, 0, 1), WVM_SLICES);
	ends_at_once(2);
	comes_back(a, 2);
	end_users(a);
	look_from(&cluster, a, 1);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_uint_eq(cluster_stat(&cluster, i, "core", "home_lost"), 0);
	printf("proof: two nodes that lent memory were killed under load: the slowest access took "
	       "%llu ms, then %llu ms, %llu ms before\n",
	       slowest[1] / 1000, slowest[2] / 1000, slowest[0] / 1000);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

/* It is not dead, but nobody can know. When it goes on, others have its place. */
START_TEST(a_node_that_stood_still_for_too_long_ends_and_begins_empty)
{
	static char log[1 << 16];
	struct arena *a;
	int status;

	begin(_i ? "2" : "1");
	a = start_users(&cluster, two, 4);
	await_steps(a, 10 * USERS_PAGES);
	await_copied(2);
	ck_assert_int_eq(kill(cluster.node[2].pid, SIGSTOP), 0);
	await_out(0, 2);
	await_steps(a, USERS_PAGES);
	ck_assert_int_eq(kill(cluster.node[2].pid, SIGCONT), 0);
	status = cluster_node_end(&cluster, 2, 0);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x", status);
	cluster_read(cluster.node[2].log, log, sizeof(log));
	ck_assert_msg(strstr(log, "this node was taken out"), "%s", log);
	await_steps(a, USERS_PAGES);
	comes_back(a, 2);
	end_users(a);
	look_from(&cluster, a, 0);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

/* Killed, and started again over the files of the life that others think dead. */
START_TEST(a_killed_node_that_comes_back_too_late_does_not_go_on_with_its_files)
{
	struct arena *a;

	begin("1");
	a = start_users(&cluster, two, 4);
	await_steps(a, 10 * USERS_PAGES);
	await_copied(2);
	(void)cluster_node_end(&cluster, 2, SIGKILL);
	await_out(0, 2);
	ends_at_once(2);
	comes_back(a, 2);
	end_users(a);
	look_from(&cluster, a, 1);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

START_TEST(a_killed_node_that_is_back_at_once_goes_on)
{
	struct arena *a;

	begin("1");
	a = start_users(&cluster, two, 4);
	await_steps(a, 10 * USERS_PAGES);
	for (unsigned i = 0; i < 3; i++) {
		(void)cluster_node_end(&cluster, 2, SIGKILL);
		cluster_node_start(&cluster, 2, NULL);
		cluster_node_await(&cluster, 2);
		await_steps(a, USERS_PAGES);
	}
	ck_assert_uint_eq(epoch_of(&cluster, 0), 1);
	end_users(a);
	look_from(&cluster, a, 0);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

/* ---- in the middle of something ---------------------------------------------------------- */

/* The one that joins, or the one that gives slices to it, dies while memory moves. */
START_TEST(a_node_dies_while_memory_moves_and_the_move_ends)
{
	static const unsigned who[] = {SPARE, 2};
	struct arena *a;
	pid_t waits;

	begin(_i / 2 ? "2" : "1");
	a = start_users(&cluster, two, 4);
	await_steps(a, 10 * USERS_PAGES);
	await_copied(2);
	await_copied(3);
	ck_assert_int_eq(kill(cluster.node[3].pid, SIGSTOP), 0); /* its part is not done */
	waits = fork();
	if (!waits) {
		static struct cluster_result r;

		ctl(&cluster, 0, &r, "join", "4");
		_exit(0);
	}
	await_epoch(&cluster, 0, 2);
	cluster_sleep_ms(500);
	(void)cluster_node_end(&cluster, who[_i % 2], SIGKILL);
	ck_assert_int_eq(kill(cluster.node[3].pid, SIGCONT), 0);
	await_out(0, who[_i % 2]);
	await_order(waits);
	await_member(1, _i % 2 ? SPARE : 3, "ACTIVE");
	await_steps(a, USERS_PAGES);
	end_users(a);
	look_from(&cluster, a, 0);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

/* Masters of programs are killed, too, while they are to tell what they hold. */
START_TEST(masters_that_are_killed_meanwhile_tell_in_their_next_life)
{
	struct arena *a;

	begin(_i ? "2" : "1");
	a = start_users(&cluster, two, 4);
	await_steps(a, 10 * USERS_PAGES);
	await_copied(2);
	(void)cluster_node_end(&cluster, 2, SIGKILL);
	await_epoch(&cluster, 0, 2);
	for (unsigned i = 0; i < 2; i++) {
		(void)cluster_node_end(&cluster, i, SIGKILL);
		cluster_node_start(&cluster, i, NULL);
		cluster_node_await(&cluster, i);
	}
	await_out(0, 2);
	await_steps(a, USERS_PAGES);
	end_users(a);
	look_from(&cluster, a, 1);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

static Suite *make(void)
{
	Suite *s = suite_create("lenders");
	TCase *t = cluster_tcase(s, "one after the other", 300);

	tcase_add_loop_test(t, nodes_that_lend_memory_are_killed_and_programs_go_on, 0, 2);
	tcase_add_loop_test(t, a_node_that_stood_still_for_too_long_ends_and_begins_empty, 0, 2);
	tcase_add_test(t, a_killed_node_that_comes_back_too_late_does_not_go_on_with_its_files);
	tcase_add_test(t, a_killed_node_that_is_back_at_once_goes_on);

	t = cluster_tcase(s, "in the middle", 300);
	tcase_add_loop_test(t, a_node_dies_while_memory_moves_and_the_move_ends, 0, 4);
	tcase_add_loop_test(t, masters_that_are_killed_meanwhile_tell_in_their_next_life, 0, 2);
	return s;
}

int main(int argc, char **argv)
{
	(void)argc;
	return cluster_main(argv, (Suite * (*const[])(void)){make}, 1);
}

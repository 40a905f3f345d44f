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

#include "roles/check/program.h"

#define NODES   4u
#define SPARE   3u
#define UNITS   256u /* of a VM of 512 MiB */
#define EACH    4u   /* pages used of a unit */
#define PAGES   (UNITS * EACH)
#define WAIT_MS 120000u /* a hang, not a measure */

/* Words of the arena; of the model: of each page the generation begun, and the one written. */
enum { STOP, STEPS, SLOWEST_US, ATTACHED };

static struct cluster cluster;

/* ---- what nodes say -------------------------------------------------------------------- */

static void ctl(unsigned node, struct cluster_result *r, const char *command, const char *arg)
{
	cluster_ctl(&cluster, node, r, (const char *const[]){command, arg, NULL});
}

static void order(unsigned node, const char *command, const char *arg)
{
	struct cluster_result r;

	ctl(node, &r, command, arg);
	ck_assert_msg(r.status == 0, "%s %s at node %u: status %x\n%s%s", command, arg, node,
		      r.status, r.out, r.err);
}

static void order_meanwhile(pid_t *waits, unsigned node, const char *command, const char *arg)
{
	*waits = fork();
	if (*waits)
		return;
	order(node, command, arg);
	_exit(0);
}

static void await_order(pid_t waits)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;

	int status = 0;

	for (; waitpid(waits, &status, WNOHANG) != waits; cluster_sleep_ms(20))
		ck_assert_msg(cluster_now_ms() < end, "an order does not end");
	ck_assert_int_eq(status, 0);
}

static void refused(unsigned node, const char *command, const char *arg, const char *why)
{
	struct cluster_result r;

	ctl(node, &r, command, arg);
	ck_assert_int_ne(r.status, 0);
	ck_assert_msg(strstr(r.err, why), "%s %s: '%s' does not say '%s'", command, arg, r.err,
		      why);
}

static uint64_t slices_of(unsigned at, unsigned of)
{
	json_t *o = cluster_json(&cluster, at, "status"), *list = json_object_get(o, "members");
	uint64_t n =
		(uint64_t)json_integer_value(json_object_get(json_array_get(list, of), "slices"));

	json_decref(o);
	return n;
}

/* All alike: each has its part of the slices, to one. homes: a bit for each node. */
static void shares(unsigned at, unsigned homes)
{
	unsigned count = (unsigned)__builtin_popcount(homes);

	for (unsigned i = 0; i < NODES; i++) {
		uint64_t n = slices_of(at, i);

		if (homes >> i & 1)
			ck_assert_msg(n >= 4096 / count && n <= 4096 / count + 1,
				      "node %u has %lu slices", i, n);
		else
			ck_assert_uint_eq(n, 0);
	}
}

static void await_status(unsigned at, unsigned of, const char *status)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;
	bool is = false;

	while (!is) {
		json_t *o = cluster_json(&cluster, at, "members");
		const json_t *m = json_array_get(json_object_get(o, "members"), of);

		is = !strcmp(json_string_value(json_object_get(m, "status")), status);
		json_decref(o);
		ck_assert_msg(is || cluster_now_ms() < end, "node %u does not say %s of node %u",
			      at, status, of);
		cluster_sleep_ms(50);
	}
}

/* What members shows is the same that records have made of it. */
static void is_member(unsigned at, unsigned of, const char *state)
{
	json_t *o = cluster_json(&cluster, at, "members");
	const json_t *m = json_array_get(json_object_get(o, "members"), of);

	ck_assert_str_eq(json_string_value(json_object_get(m, "member")), state);
	json_decref(o);
}

static bool all_alive(unsigned at)
{
	json_t *o = cluster_json(&cluster, at, "members"), *item;
	bool all = true;
	size_t i;

	json_array_foreach(json_object_get(o, "members"), i, item)
		all = all && !strcmp(json_string_value(json_object_get(item, "status")), "ALIVE") &&
		      json_is_true(json_object_get(item, "heard"));
	json_decref(o);
	return all;
}

static void await_alive(unsigned at)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;

	while (!all_alive(at)) {
		ck_assert_msg(cluster_now_ms() < end, "node %u has not heard of all", at);
		cluster_sleep_ms(50);
	}
}

static uint64_t epoch_of(unsigned node)
{
	return cluster_status(&cluster, node, "epoch");
}

static void await_epoch(unsigned node, uint64_t epoch)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;

	while (epoch_of(node) < epoch) {
		ck_assert_msg(cluster_now_ms() < end, "node %u is in epoch %lu", node,
			      epoch_of(node));
		cluster_sleep_ms(20);
	}
}

static void begin(const char *shards)
{
	cluster_start(&cluster, &(struct cluster_opts){.nodes = NODES,
						       .vm = "1:512M",
						       .shards = shards,
						       .place = "SPARE 3\n"});
	for (unsigned i = 0; i < NODES; i++)
		await_alive(i);
}

/* ---- programs -------------------------------------------------------------------------- */

static volatile uint64_t *page_at(uint64_t *base, unsigned n)
{
	uint64_t page = (uint64_t)(n % UNITS) * 512 + n / UNITS * 131;

	return base + page * PAGE_WORDS;
}

static atomic_ullong *begun(struct program *p, unsigned n)
{
	return (atomic_ullong *)&p->arena->model[2 * n];
}

static atomic_ullong *written(struct program *p, unsigned n)
{
	return (atomic_ullong *)&p->arena->model[2 * n + 1];
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void slowest(struct program *p, uint64_t took_us)
{
	unsigned long long is = atomic_load(&p->arena->word[SLOWEST_US]);

	while (took_us > is &&
	       !atomic_compare_exchange_weak(&p->arena->word[SLOWEST_US], &is, took_us))
		;
}

/* Of its own pages: one more generation. */
static void write_page(struct program *p, uint64_t *base, unsigned n)
{
	uint64_t next = atomic_load(written(p, n)) + 1;

	atomic_store(begun(p, n), next);
	pattern_fill((uint64_t *)page_at(base, n), n, next);
	atomic_store(written(p, n), next);
}

/* One word of anybody's: of a generation that was there at some time since we began to look. */
static void read_page(struct program *p, uint64_t *base, unsigned n)
{
	unsigned word = (unsigned)(program_random(p) % PAGE_WORDS);
	uint64_t from = atomic_load(written(p, n)), is = load(page_at(base, n) + word), to, g;

	to = atomic_load(begun(p, n));
	for (g = from; g <= to && is != (g ? pattern(n, word, g) : 0); g++)
		;
	NEED(p, g <= to, "page %u word %u is %lx, which no generation from %lu to %lu wrote", n,
	     word, is, from, to);
}

static void check_all(struct program *p, uint64_t *base)
{
	for (unsigned n = 0; n < PAGES; n++) {
		uint64_t g = atomic_load(written(p, n));
		int word = g ? pattern_differs((uint64_t *)page_at(base, n), n, g) : -1;

		NEED(p, g || !load(page_at(base, n)), "page %u, never written, is not zero", n);
		NEED(p, word < 0, "page %u word %d is not of generation %lu", n, word, g);
	}
}

/* Rounds end when the test says so: then all look at all pages. */
static void use_memory(struct program *p)
{
	uint64_t *base = program_map(p, 0, UNITS * 2 * MIB);

	program_meet(p);
	while (!atomic_load(&p->arena->word[STOP])) {
		unsigned n = (unsigned)(program_random(p) % PAGES);
		uint64_t began = now_us();

		if (program_random(p) % 2)
			read_page(p, base, n);
		else
			write_page(p, base,
				   n - n % p->count + p->index < PAGES ? n - n % p->count + p->index
								       : p->index);
		slowest(p, now_us() - began);
		atomic_fetch_add(&p->arena->word[STEPS], 1);
	}
	program_meet(p);
	check_all(p, base);
	program_meet(p);
}

#define USERS_MAX 6u
static struct program users[USERS_MAX];
static unsigned user_count;

static struct arena *start_users(const unsigned *nodes, unsigned count)
{
	struct arena *a = arena_new(2 * PAGES);

	user_count = count;
	for (unsigned i = 0; i < count; i++) {
		users[i] = (struct program){.cluster = &cluster,
					    .arena = a,
					    .node = nodes[i],
					    .index = i,
					    .count = count,
					    .seed = i + 1};
		program_start(&users[i], use_memory);
	}
	return a;
}

static void await_steps(struct arena *a, unsigned long long more)
{
	unsigned long long from = atomic_load(&a->word[STEPS]);
	uint64_t end = cluster_now_ms() + WAIT_MS;

	while (atomic_load(&a->word[STEPS]) < from + more && !atomic_load(&a->failed)) {
		ck_assert_msg(cluster_now_ms() < end, "programs stand still");
		cluster_sleep_ms(5);
	}
}

static void end_users(struct arena *a)
{
	struct program *list[USERS_MAX];

	atomic_store(&a->word[STOP], 1);
	for (unsigned i = 0; i < user_count; i++)
		list[i] = &users[i];
	programs_await(list, user_count);
}

/* Looks at all pages from a node, when nobody writes. */
static void look(struct program *p)
{
	check_all(p, program_map(p, 0, UNITS * 2 * MIB));
}

static void look_from(struct arena *a, unsigned node)
{
	programs_run(&cluster, a, &node, 1, look, NULL);
}

/* ---- tests ----------------------------------------------------------------------------- */

static void joins_and_drains(const char *shards)
{
	static const unsigned nodes[] = {0, 1, 0, 1};
	unsigned long long slowest_us;
	struct arena *a;
	uint64_t moved;

	begin(shards);
	shares(0, 7);
	is_member(0, SPARE, "SHADOW");
	is_member(SPARE, SPARE, "SHADOW");
	a = start_users(nodes, 4);
	await_steps(a, 20 * PAGES);
	slowest_us = atomic_exchange(&a->word[SLOWEST_US], 0);
	order(0, "join", "3");
	shares(0, 15);
	is_member(0, SPARE, "ACTIVE");
	moved = cluster_stat(&cluster, 3, "core", "handover_pages");
	ck_assert_uint_gt(moved, PAGES / 8);
	await_steps(a, 4 * PAGES);
	order(1, "drain", "2");
	shares(3, 11);
	is_member(1, 2, "OFFLINE");
	ck_assert_uint_eq(cluster_status(&cluster, 2, "pages_homed"), 0);
	await_steps(a, 4 * PAGES);
	printf("proof: %lu pages moved to a node that joined under load; the slowest access took "
	       "%llu us before, %llu us in all this\n",
	       moved, slowest_us, atomic_load(&a->word[SLOWEST_US]));
	ck_assert_uint_eq(cluster_status(&cluster, 2, "pages_left"), 0);
	/* It has nothing that anybody would miss. */
	ck_assert_int_eq(cluster_node_end(&cluster, 2, SIGTERM), 0);
	await_steps(a, 4 * PAGES);
	end_users(a);
	look_from(a, 3);
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
	a = start_users(nodes, 4);
	await_steps(a, 10 * PAGES);
	order_meanwhile(&waits, 0, "join", "3");
	for (unsigned i = 0; i < 2 * NODES; i++) {
		await_steps(a, 200);
		(void)cluster_node_end(&cluster, (3 + i) % NODES, SIGKILL);
		cluster_node_start(&cluster, (3 + i) % NODES, NULL);
		cluster_node_await(&cluster, (3 + i) % NODES);
	}
	await_order(waits);
	for (unsigned i = 0; i < NODES; i++)
		await_alive(i);
	order(2, "drain", "2");
	for (unsigned i = 0; i < NODES; i++)
		await_epoch(i, 5);
	shares(0, 11);
	await_steps(a, PAGES);
	end_users(a);
	look_from(a, 3);
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
	a = arena_new(2 * PAGES);
	programs_run(&cluster, a, (const unsigned[]){SPARE}, 1, map_refused, NULL);
	arena_free(a);
	refused(0, "drain", "7", "has no node 7");
	order(0, "drain", "3"); /* it homes nothing: done */
	order(0, "join", "0");  /* it does: done */
	ck_assert_uint_eq(epoch_of(0), 1);
	(void)cluster_node_end(&cluster, 2, SIGKILL);
	await_status(0, 2, "DEAD");
	refused(0, "drain", "1", "node 2 does not answer");
	refused(0, "join", "3", "node 2 does not answer");
	cluster_node_start(&cluster, 2, NULL);
	cluster_node_await(&cluster, 2);
	await_status(0, 2, "ALIVE");
	order(0, "drain", "1");
	order(0, "drain", "2");
	refused(0, "drain", "0", "the last one");
	ck_assert_uint_eq(epoch_of(0), 5);
	shares(0, 1);
	cluster_stop(&cluster);
}
END_TEST

/* All are stopped, and begin again without the one that was drained; it may come back later. */
START_TEST(who_was_drained_is_not_needed_for_a_new_start_and_may_come_back)
{
	begin("1");
	order(1, "drain", "0");
	for (unsigned i = 1; i < NODES; i++)
		await_epoch(i, 3);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(cluster_node_end(&cluster, i, SIGTERM), 0);
	for (unsigned i = 1; i < SPARE; i++)
		cluster_node_start(&cluster, i, NULL);
	for (unsigned i = 1; i < SPARE; i++)
		cluster_node_await(&cluster, i);
	ck_assert_uint_eq(epoch_of(1), 3);
	shares(1, 6);
	for (unsigned i = 0; i < NODES; i += SPARE)
		cluster_node_start(&cluster, i, NULL);
	for (unsigned i = 0; i < NODES; i += SPARE)
		cluster_node_await(&cluster, i);
	await_alive(1);
	order(0, "join", "0");
	shares(2, 7);
	cluster_stop(&cluster);
}
END_TEST

/* ---- nodes that come back --------------------------------------------------------------- */

/* One generation of all pages. */
static void fill(struct program *p)
{
	uint64_t *base = program_map(p, 0, UNITS * 2 * MIB);

	for (unsigned n = 0; n < PAGES; n++)
		write_page(p, base, n);
}

static void fill_from(struct arena *a, unsigned node)
{
	programs_run(&cluster, a, &node, 1, fill, NULL);
}

/* It has nothing; a master that begins anew waits for it all the same. */
static void attach_only(struct program *p)
{
	atomic_store(&p->arena->word[ATTACHED], 1);
	program_await_word(p, STOP, 1);
}

/* Its shards cannot take an epoch yet, while others move slices: once, and so often that all
 * tables have been used again. */
START_TEST(a_node_that_could_not_follow_moves_takes_its_slices_from_who_has_them)
{
	struct program idle = {.cluster = &cluster, .node = SPARE, .count = 1};
	struct arena *a = arena_new(2 * PAGES);
	pid_t waits;

	begin(_i % 2 ? "2" : "1");
	fill_from(a, 0);
	idle.arena = a;
	program_start(&idle, attach_only);
	while (!atomic_load(&a->word[ATTACHED]))
		cluster_sleep_ms(5);
	ck_assert_int_eq(kill(idle.pid, SIGSTOP), 0);
	(void)cluster_node_end(&cluster, SPARE, SIGKILL);
	cluster_node_start(&cluster, SPARE, NULL);
	await_alive(0);
	order(0, "drain", "2");
	if (_i / 2)
		order(0, "join", "2");
	order_meanwhile(&waits, 0, "join", "3");
	await_epoch(SPARE, _i / 2 ? 6 : 4);
	program_kill(&idle);
	await_order(waits);
	shares(0, _i / 2 ? 15 : 11);
	look_from(a, 1);
	look_from(a, SPARE);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

/* Nobody who is left has ever used it: it is the drained one that knows. */
START_TEST(a_home_that_only_a_drained_node_used_does_not_serve_without_its_files)
{
	struct arena *a = arena_new(2 * PAGES);
	static char log[1 << 16];
	int status;

	begin("1");
	fill_from(a, 1);
	order(0, "drain", "1");
	for (unsigned i = 0; i < NODES; i++)
		await_epoch(i, 3);
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
	order(0, "drain", "2");
	order(0, "join", "2");
	for (unsigned i = 0; i < SPARE; i++)
		await_epoch(i, 5);
	for (unsigned i = 0; i < SPARE; i++)
		restart(i);
	cluster_node_start(&cluster, SPARE, NULL);
	cluster_node_await(&cluster, SPARE);
	await_epoch(SPARE, 5);
	await_alive(0);
	order(0, "join", "3");
	shares(0, 15);
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
		order(0, "drain", "2");
		order(0, "join", "2");
	}
	cluster_node_start(&cluster, SPARE, NULL);
	await_alive(0);
	waits = fork();
	if (!waits) {
		ctl(0, &r, "join", "3"); /* it waits, or is refused */
		_exit(r.status == 0);
	}
	cluster_sleep_ms(2000);
	ck_assert_uint_eq(epoch_of(0), 21);
	ck_assert_int_eq(kill(waits, SIGKILL), 0);
	ck_assert_int_eq(waitpid(waits, NULL, 0), waits);
	cluster_read(cluster.node[SPARE].log, log, sizeof(log));
	ck_assert_msg(strstr(log, "too far ahead"), "%s", log);
	order(0, "drain", "1");
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
	order_meanwhile(&waits, 2, "join", "3");
	await_epoch(SPARE, 2);
	await_epoch(0, 2);
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
	shares(0, 15);
	cluster_stop(&cluster);
}
END_TEST

/* Alone it cannot tell whether others have learnt of its end, and would never do without it. */
START_TEST(a_drained_node_is_not_done_while_nobody_else_knows)
{
	struct cluster_result r = {.status = -1};
	pid_t waits;

	begin("1");
	order(0, "drain", "2");
	for (unsigned i = 0; i < NODES; i++)
		await_epoch(i, 3);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(cluster_node_end(&cluster, i, SIGTERM), 0);
	cluster_node_start(&cluster, 2, NULL);
	for (; r.status; cluster_sleep_ms(50))
		ctl(2, &r, "status", NULL);
	order_meanwhile(&waits, 2, "drain", "2");
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

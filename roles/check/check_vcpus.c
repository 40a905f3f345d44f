/*
 * Runs of remote processors through real masters: from a program by libwavevm to its master, to
 * another node's, to a slave that echoes; and back. They come back right and are executed once,
 * also over a bad wire and through the death of either master.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/owner.h"

#define OWNER 0u
#define SLAVE 1u
#define LIFE  UINT64_C(0x5110e0001)

#define RUNS       10000u /* in all, on each kind of network */
#define UNDER_FIRE 4u     /* processors that run while masters die */

static struct cluster cluster;
static struct echo slave;

/* ---- runs ------------------------------------------------------------------------------- */

START_TEST(runs_of_any_size_come_back_right_and_are_executed_once)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct owner o;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	owner_begin(&o, w, &slave, 3, RUNS, WVM_RUN_MAX);
	ck_assert_uint_eq(owner_end(&o), RUNS);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

START_TEST(many_processors_run_side_by_side)
{
	static struct owner o[ECHO_VCPUS];
	struct wvm *w = owner_attach(&cluster, OWNER);

	echo_start(&slave, &cluster, SLAVE, LIFE);
	for (unsigned i = 0; i < ECHO_VCPUS; i++)
		owner_begin(&o[i], w, &slave, i, RUNS / ECHO_VCPUS, WVM_RUN_MAX / 4);
	for (unsigned i = 0; i < ECHO_VCPUS; i++) {
		ck_assert_uint_eq(owner_end(&o[i]), RUNS / ECHO_VCPUS);
	}
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

/* One that fits into a datagram or two, as most do; and for a shorter time as long as any. */
START_TEST(a_bad_wire_changes_nothing_but_the_time)
{
	static struct owner o[ECHO_VCPUS];
	struct wvm_vcpu_counters counters;
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l;
	uint64_t life;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	for (unsigned i = 0; i < ECHO_VCPUS; i++)
		owner_begin(&o[i], w, &slave, i, RUNS / ECHO_VCPUS, 8192);
	for (unsigned i = 0; i < ECHO_VCPUS; i++) {
		ck_assert_uint_eq(owner_end(&o[i]), RUNS / ECHO_VCPUS);
	}
	l = owner_open(w, 0);
	life = owner_learn(l, SLAVE);
	for (unsigned i = 0; i < 50; i++) {
		static uint8_t data[WVM_RUN_MAX];
		struct wvm_vcpu_answer a;

		memset(data, (int)i, sizeof(data));
		ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, data, sizeof(data), &a), 0);
		ck_assert(owner_is_echo(data, sizeof(data), &a));
	}
	wvm_vcpu_counters(l, &counters);
	ck_assert_uint_eq(counters.runs, 50);
	ck_assert_uint_gt(counters.retries, 10); /* the wire was bad */
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

START_TEST(owner_and_slave_may_be_on_one_node)
{
	struct wvm *w = owner_attach(&cluster, SLAVE);
	struct owner o;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	owner_begin(&o, w, &slave, 1, 1000, WVM_RUN_MAX);
	ck_assert_uint_eq(owner_end(&o), 1000);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

/* ---- kicks and refusals -------------------------------------------------------------------- */

static struct wvm_vcpu_link *to_kick;

static void *kick_soon(void *arg)
{
	cluster_sleep_ms(50);
	wvm_vcpu_kick(to_kick);
	return NULL;
}

static void on_alarm(int sig)
{
	wvm_vcpu_kick(to_kick);
}

START_TEST(a_kick_ends_a_long_run)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = to_kick = owner_open(w, 0);
	struct wvm_vcpu_answer a;
	uint64_t life;
	pthread_t thread;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	life = owner_learn(l, SLAVE);
	atomic_store(&slave.delay_ns, UINT64_C(60000000000));
	ck_assert_int_eq(pthread_create(&thread, NULL, kick_soon, NULL), 0);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "a", 1, &a), 0);
	pthread_join(thread, NULL);
	ck_assert(owner_is_echo("a", 1, &a));
	ck_assert_uint_ge(a.took_ns, 50000000);
	ck_assert_uint_lt(a.took_ns, 5000000000);
	/* By a signal handler of the processor's own thread. */
	signal(SIGALRM, on_alarm);
	ualarm(50000, 0);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "b", 1, &a), 0);
	ck_assert(owner_is_echo("b", 1, &a));
	ck_assert_uint_lt(a.took_ns, 5000000000);
	/* Without a run: the next one ends at its beginning, and only that. */
	wvm_vcpu_kick(l);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "c", 1, &a), 0);
	ck_assert(owner_is_echo("c", 1, &a));
	ck_assert_uint_lt(a.took_ns, 5000000000);
	atomic_store(&slave.delay_ns, 300000000);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "d", 1, &a), 0);
	ck_assert_uint_ge(a.took_ns, 300000000);
	for (unsigned seq = 1; seq <= 4; seq++)
		ck_assert_uint_eq(slave.vcpu[0].executed[seq], 1);
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

/* Longer than any silence may last: the slave shows that it lives. */
START_TEST(a_run_may_last_longer_than_the_deadline)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 0);
	struct wvm_vcpu_answer a;
	uint64_t life;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	life = owner_learn(l, SLAVE);
	atomic_store(&slave.delay_ns, WVM_RUN_DEADLINE_NS + WVM_RUN_DEADLINE_NS / 4);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "a", 1, &a), 0);
	ck_assert_msg(owner_is_echo("a", 1, &a), "%s", wvm_vcpu_error());
	ck_assert_uint_eq(slave.vcpu[0].executed[1], 1);
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

START_TEST(a_refusal_says_why)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 0);
	struct wvm_vcpu_answer a;
	uint64_t life;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	life = owner_learn(l, SLAVE);
	ck_assert_uint_eq(life, LIFE);
	atomic_store(&slave.refuse, WVM_RUN_SETUP);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "a", 1, &a), 0);
	ck_assert_int_eq(a.outcome, WVM_VCPU_REFUSED);
	ck_assert_uint_eq(a.reason, WVM_RUN_SETUP);
	ck_assert_ptr_nonnull(strstr(wvm_vcpu_error(), "does not know the machine"));
	atomic_store(&slave.refuse, 0);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "a", 1, &a), 0);
	ck_assert(owner_is_echo("a", 1, &a));
	ck_assert_uint_eq(a.seq, 2);
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

/* ---- slaves and nodes that are not there ------------------------------------------------ */

static void *replace_slave(void *arg)
{
	cluster_sleep_ms(100);
	echo_stop(&slave);
	echo_start(&slave, &cluster, SLAVE, LIFE + 1);
	return NULL;
}

START_TEST(a_run_of_a_slave_that_was_started_again_is_lost)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 0);
	struct wvm_vcpu_answer a;
	pthread_t thread;
	uint64_t life;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	life = owner_learn(l, SLAVE);
	atomic_store(&slave.delay_ns, UINT64_C(60000000000));
	ck_assert_int_eq(pthread_create(&thread, NULL, replace_slave, NULL), 0);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "a", 1, &a), 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(a.outcome, WVM_VCPU_LOST);
	ck_assert_ptr_nonnull(strstr(wvm_vcpu_error(), "started again"));
	ck_assert_uint_eq(slave.vcpu[0].executed[1], 0); /* by the new one */
	life = owner_learn(l, SLAVE);
	ck_assert_uint_eq(life, LIFE + 1);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "b", 1, &a), 0);
	ck_assert(owner_is_echo("b", 1, &a));
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

START_TEST(who_is_not_there_is_an_error_in_time)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 0);
	struct wvm_vcpu_hello h;
	struct wvm_vcpu_answer a;
	uint64_t life, from = cluster_now_ms();

	ck_assert_int_eq(wvm_vcpu_hello(l, SLAVE, &life, &h), -ETIMEDOUT);
	ck_assert_uint_ge(cluster_now_ms() - from, 1900);
	ck_assert_ptr_nonnull(strstr(wvm_vcpu_error(), "does not answer"));
	ck_assert_int_eq(wvm_vcpu_hello(l, 17, &life, &h), -ENXIO);
	ck_assert_ptr_nonnull(strstr(wvm_vcpu_error(), "no node 17"));
	from = cluster_now_ms();
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, LIFE, "a", 1, &a), 0);
	ck_assert_int_eq(a.outcome, WVM_VCPU_LOST);
	ck_assert_uint_ge(cluster_now_ms() - from, WVM_RUN_DEADLINE_NS / 1000000 - 100);
	ck_assert_ptr_nonnull(strstr(wvm_vcpu_error(), "nothing was heard of node 1"));
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, LIFE, "a", 0, &a), -EINVAL);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, LIFE, "a", WVM_RUN_MAX + 1, &a), -EINVAL);
	wvm_vcpu_close(l);
	wvm_detach(w);
}
END_TEST

START_TEST(nodes_and_their_slaves_are_known_at_once)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 0);
	struct wvm_vcpu_met met[] = {{.node = OWNER, .life = 1}, {.node = SLAVE}, {.node = 17}};
	unsigned n = cluster.nodes;
	struct wvm_node_info node[CLUSTER_NODES_MAX + 1] = {0};
	uint64_t from;

	ck_assert_int_eq(wvm_nodes(w, node, 1), (int)n);
	ck_assert_uint_eq(node[0].id, SLAVE);
	ck_assert_uint_eq(node[1].id + node[1].cores, 0);
	ck_assert_int_eq(wvm_nodes(w, node, CLUSTER_NODES_MAX), (int)n);
	for (unsigned i = 0; i < n; i++) {
		ck_assert_uint_eq(node[i].id, (OWNER + 1 + i) % n);
		ck_assert_uint_eq(node[i].cores, 1);
	}
	echo_start(&slave, &cluster, SLAVE, LIFE);
	from = cluster_now_ms();
	ck_assert_int_eq(wvm_vcpu_meet_slaves(l, &met[1], 1), 1);
	ck_assert_uint_lt(cluster_now_ms() - from, 1900);
	ck_assert_uint_eq(met[1].life, LIFE);
	met[1] = (struct wvm_vcpu_met){.node = SLAVE};
	ck_assert_int_eq(wvm_vcpu_meet_slaves(l, met, 3), 1);
	ck_assert_uint_eq(met[0].life, 0);
	ck_assert_uint_eq(met[1].life, LIFE);
	ck_assert_uint_eq(met[1].hello.cores, ECHO_CORES);
	ck_assert_uint_eq(met[2].life, 0);
	ck_assert_int_eq(wvm_vcpu_meet_slaves(l, met, 0), 0);
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

START_TEST(an_answer_is_acknowledged_when_no_run_follows)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 0);
	struct wvm_vcpu_answer a;
	uint64_t life, before;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	life = owner_learn(l, SLAVE);
	before = cluster_stat(&cluster, OWNER, "vcpus", "to_owner");
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "a", 1, &a), 0);
	cluster_sleep_ms(300);
	/* An answer that was not acknowledged would have come four times by now. */
	ck_assert_uint_le(cluster_stat(&cluster, OWNER, "vcpus", "to_owner") - before, 3);
	ck_assert_int_eq(slave.vcpu[0].run.state, WVM_RUN_FREE);
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

/* ---- masters that die -------------------------------------------------------------------- */

static void kill_and_restart(unsigned node)
{
	int status = cluster_node_end(&cluster, node, SIGKILL);

	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
	cluster_node_start(&cluster, node, NULL);
	cluster_node_await(&cluster, node);
}

static void await_runs(struct owner *o, unsigned more)
{
	uint64_t end = cluster_now_ms() + 20000;

	for (unsigned i = 0; i < UNDER_FIRE; i++) {
		unsigned until = atomic_load(&o[i].done) + more;

		while (atomic_load(&o[i].done) < until && !o[i].failed[0] && cluster_now_ms() < end)
			cluster_sleep_ms(1);
	}
}

START_TEST(runs_go_on_through_kills_of_either_master)
{
	static struct owner o[UNDER_FIRE];
	struct wvm *w;

	cluster_start(&cluster, &(struct cluster_opts){.nodes = 2});
	w = owner_attach(&cluster, OWNER);
	echo_start(&slave, &cluster, SLAVE, LIFE);
	atomic_store(&slave.delay_ns, 500000);
	for (unsigned i = 0; i < UNDER_FIRE; i++)
		owner_begin(&o[i], w, &slave, i, ECHO_RUNS, 16384);
	for (unsigned k = 0; k < 6; k++) {
		await_runs(o, 100);
		kill_and_restart(k % 2 ? SLAVE : OWNER);
	}
	await_runs(o, 100);
	for (unsigned i = 0; i < UNDER_FIRE; i++)
		atomic_store(&o[i].stop, true);
	for (unsigned i = 0; i < UNDER_FIRE; i++) {
		ck_assert_uint_ge(owner_end(&o[i]), 700);
	}
	wvm_detach(w);
	echo_stop(&slave);
	cluster_stop(&cluster);
}
END_TEST

/* The master is away as a run begins, and comes back. */
START_TEST(a_run_waits_for_its_own_master)
{
	struct wvm_vcpu_link *l;
	struct wvm_vcpu_answer a;
	struct wvm *w;
	uint64_t life;
	pid_t child;

	cluster_start(&cluster, &(struct cluster_opts){.nodes = 2});
	w = owner_attach(&cluster, OWNER);
	l = owner_open(w, 0);
	echo_start(&slave, &cluster, SLAVE, LIFE);
	life = owner_learn(l, SLAVE);
	cluster_node_end(&cluster, OWNER, SIGKILL);
	cluster_node_start(&cluster, OWNER, NULL);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "a", 1, &a), 0);
	ck_assert_msg(owner_is_echo("a", 1, &a), "%s", wvm_vcpu_error());
	cluster_node_await(&cluster, OWNER);
	/* For good: an error, and nothing was executed. */
	cluster_node_end(&cluster, OWNER, SIGKILL);
	cluster_sleep_ms(100);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "b", 1, &a), -ECONNREFUSED);
	ck_assert_uint_eq(slave.vcpu[0].executed[2], 0);
	wvm_vcpu_close(l);
	/* A child has no link. */
	child = fork();
	if (!child)
		_exit(wvm_vcpu_open(&l, w, CLUSTER_VM, 1) == -ECONNREFUSED ? 0 : 1);
	ck_assert_int_eq(waitpid(child, (int *)&life, 0), child);
	ck_assert_int_eq((int)life, 0);
	wvm_detach(w);
	echo_stop(&slave);
	cluster_kill(&cluster);
}
END_TEST

/* ---- who owns a processor ---------------------------------------------------------------- */

static pid_t other_owner(int *said, unsigned vcpu)
{
	int fds[2];
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		struct wvm_vcpu_link *l;
		struct wvm *w;
		int ret = wvm_attach(&w, cluster.node[OWNER].ring);

		ret = ret ? ret : wvm_vcpu_open(&l, w, CLUSTER_VM, vcpu);
		if (write(fds[1], &ret, sizeof(ret)) != sizeof(ret))
			_exit(1);
		pause();
		_exit(0);
	}
	close(fds[1]);
	ck_assert_int_eq(read(fds[0], said, sizeof(*said)), sizeof(*said));
	close(fds[0]);
	return pid;
}

static void end_other(pid_t pid)
{
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

START_TEST(a_processor_has_one_owner)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l, *again;
	uint64_t end = cluster_now_ms() + 5000;
	unsigned before = (unsigned)cluster_stat(&cluster, OWNER, "vcpus", "channels");
	pid_t pid;
	int said;

	pid = other_owner(&said, 7);
	ck_assert_int_eq(said, 0);
	ck_assert_uint_eq(cluster_stat(&cluster, OWNER, "vcpus", "channels"), before + 1);
	ck_assert_int_eq(wvm_vcpu_open(&l, w, CLUSTER_VM, 7), -EBUSY);
	ck_assert_ptr_nonnull(strstr(wvm_vcpu_error(), "another program"));
	/* It dies, and another one opens. */
	end_other(pid);
	do
		said = wvm_vcpu_open(&l, w, CLUSTER_VM, 7);
	while (said == -EBUSY && cluster_now_ms() < end);
	ck_assert_int_eq(said, 0);
	ck_assert_int_eq(wvm_vcpu_open(&again, w, CLUSTER_VM, 7), -EBUSY);
	end_other(other_owner(&said, 7));
	ck_assert_int_eq(said, -EBUSY);
	wvm_vcpu_close(l);
	end_other(other_owner(&said, 7));
	ck_assert_int_eq(said, 0);
	ck_assert_int_eq(wvm_vcpu_open(&l, w, CLUSTER_VM + 1, 0), -ENXIO);
	ck_assert_int_eq(wvm_vcpu_open(&l, w, CLUSTER_VM, WVM_VCPU_MAX), -EINVAL);
	wvm_detach(w);
}
END_TEST

START_TEST(every_processor_of_a_large_vm_has_room)
{
	static struct wvm_vcpu_link *l[WVM_VCPU_MAX];
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_answer a;
	uint64_t end = cluster_now_ms() + 5000;
	uint64_t life;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < WVM_VCPU_MAX; i++) {
			int ret;

			do /* one of the former test may still be there */
				ret = wvm_vcpu_open(&l[i], w, CLUSTER_VM, i);
			while (ret && cluster_now_ms() < end);
			ck_assert_msg(!ret, "processor %u: %s", i, wvm_vcpu_error());
		}
		ck_assert_uint_eq(cluster_stat(&cluster, OWNER, "vcpus", "channels"), WVM_VCPU_MAX);
		life = owner_learn(l[5], SLAVE);
		ck_assert_int_eq(wvm_vcpu_run(l[5], SLAVE, life, "a", 1, &a), 0);
		ck_assert(owner_is_echo("a", 1, &a));
		for (unsigned i = 0; i < WVM_VCPU_MAX; i++)
			wvm_vcpu_close(l[i]);
	}
	ck_assert_uint_eq(cluster_stat(&cluster, OWNER, "vcpus", "channels"), 0);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

/* ---- suites ------------------------------------------------------------------------------- */

static void on_loopback(void)
{
	cluster_start(&cluster, &(struct cluster_opts){.nodes = 2});
}

static void with_two_shards_on_veth(void)
{
	cluster_start(&cluster,
		      &(struct cluster_opts){.nodes = 2, .shards = "2", .net = CLUSTER_VETH});
}

static void on_a_bad_wire(void)
{
	cluster_start(&cluster,
		      &(struct cluster_opts){.nodes = 2,
					     .net = CLUSTER_WIRE,
					     .chaos = "loss 5% duplicate 5% reorder 10%"});
}

static void stop(void)
{
	cluster_stop(&cluster);
}

static TCase *add(Suite *s, const char *name, void (*start)(void), int timeout_s)
{
	TCase *t = cluster_tcase(s, name, timeout_s);

	if (start)
		tcase_add_unchecked_fixture(t, start, stop);
	return t;
}

static Suite *vcpus_suite(void)
{
	Suite *s = suite_create("vcpus");
	TCase *t = add(s, "on loopback", on_loopback, 120);

	tcase_add_test(t, runs_of_any_size_come_back_right_and_are_executed_once);
	tcase_add_test(t, many_processors_run_side_by_side);
	tcase_add_test(t, owner_and_slave_may_be_on_one_node);
	tcase_add_test(t, a_kick_ends_a_long_run);
	tcase_add_test(t, a_run_may_last_longer_than_the_deadline);
	tcase_add_test(t, a_refusal_says_why);
	tcase_add_test(t, a_run_of_a_slave_that_was_started_again_is_lost);
	tcase_add_test(t, who_is_not_there_is_an_error_in_time);
	tcase_add_test(t, nodes_and_their_slaves_are_known_at_once);
	tcase_add_test(t, an_answer_is_acknowledged_when_no_run_follows);
	tcase_add_test(t, a_processor_has_one_owner);
	tcase_add_test(t, every_processor_of_a_large_vm_has_room);
	t = add(s, "with two shards on veth", with_two_shards_on_veth, 120);
	tcase_add_test(t, runs_of_any_size_come_back_right_and_are_executed_once);
	tcase_add_test(t, many_processors_run_side_by_side);
	tcase_add_test(t, owner_and_slave_may_be_on_one_node);
	t = add(s, "on a wire that loses, doubles and reorders", on_a_bad_wire, 300);
	tcase_add_test(t, a_bad_wire_changes_nothing_but_the_time);
	t = add(s, "with masters that die", NULL, 120);
	tcase_add_test(t, runs_go_on_through_kills_of_either_master);
	tcase_add_test(t, a_run_waits_for_its_own_master);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {vcpus_suite};

	return cluster_main(argv, suites, 1);
}

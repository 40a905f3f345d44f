/*
 * wvm_ctl vcpu and wvm_ctl vcpu move, over real masters, with owners that are threads of the test
 * and slaves that echo: what an owner says is shown, whatever it says; an order comes to the
 * owner of the processor, also within a long run, and the operator hears what became of it.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "roles/check/owner.h"
#include "shared/client_vcpu_priv.h"

#define OWNER 0u
#define LIFE  UINT64_C(0x5110e0001)
#define NODES 3u
#define MOVES 20u

static struct cluster cluster;
static struct echo slave[NODES]; /* 1 and 2 */

static void ctl(struct cluster_result *r, const char *vm, const char *vcpu, const char *node)
{
	cluster_ctl(&cluster, OWNER, r,
		    (const char *const[]){"--vm", vm, "vcpu", "move", vcpu, node, NULL});
}

static void expect_error(const struct cluster_result *r, const char *text)
{
	ck_assert_msg(WIFEXITED(r->status) && WEXITSTATUS(r->status) == 1, "status %x: %s%s",
		      (unsigned)r->status, r->out, r->err);
	ck_assert_str_eq(r->out, "");
	ck_assert_msg(strstr(r->err, text) != NULL, "'%s' is not in: %s", text, r->err);
	ck_assert_ptr_eq(strchr(r->err, '\n'), r->err + strlen(r->err) - 1);
}

/* ---- an owner that takes orders ------------------------------------------------------------- */

struct mover {
	struct wvm_vcpu_link *l;
	pthread_t thread;
	atomic_bool stop;
	struct wvm_vcpu_where where;
	/* What it says of each order; NOT_YET: it does as it is told, and answers nothing at
	 * all with `mute`. */
	_Atomic enum wvm_vcpu_moved outcome;
	atomic_bool mute;
	unsigned runs;
	char failed[256];
};

static void obey(struct mover *m, unsigned node)
{
	enum wvm_vcpu_moved outcome = atomic_load(&m->outcome);

	if (outcome == WVM_VCPU_MOVED_NOT_YET) {
		m->where.node = node;
		m->where.moves++;
		outcome = WVM_VCPU_MOVED;
	}
	wvm_vcpu_report(m->l, &m->where);
	wvm_vcpu_obeyed(m->l, outcome, WVM_RUN_FULL, 1500000);
}

static void *run_and_move(void *arg)
{
	struct mover *m = arg;
	uint64_t life[NODES] = {0};

	for (unsigned i = 1; i < NODES; i++)
		life[i] = owner_learn(m->l, i);
	while (!atomic_load(&m->stop)) {
		struct wvm_vcpu_answer a;
		unsigned node;

		if (wvm_vcpu_run(m->l, m->where.node, life[m->where.node], "a", 1, &a) ||
		    !owner_is_echo("a", 1, &a)) {
			snprintf(m->failed, sizeof(m->failed), "%s", wvm_vcpu_error());
			break;
		}
		m->runs++;
		m->where.exits[WVM_VCPU_EXIT_KICKED]++;
		wvm_vcpu_report(m->l, &m->where);
		if (!atomic_load(&m->mute) && wvm_vcpu_wanted(m->l, &node))
			obey(m, node);
	}
	return NULL;
}

static void begin(struct mover *m, struct wvm *w, unsigned vcpu)
{
	*m = (struct mover){
		.l = owner_open(w, vcpu),
		.where = {.is = WVM_VCPU_IS_RUNNING, .node = 1, .first = 1, .vcpus = 3}};
	wvm_vcpu_report(m->l, &m->where);
	ck_assert_int_eq(pthread_create(&m->thread, NULL, run_and_move, m), 0);
}

static void end(struct mover *m)
{
	atomic_store(&m->stop, true);
	for (unsigned i = 1; i < NODES; i++)
		atomic_store(&slave[i].delay_ns, 0);
	wvm_vcpu_kick(m->l);
	pthread_join(m->thread, NULL);
	ck_assert_msg(!m->failed[0], "after %u runs: %s", m->runs, m->failed);
	wvm_vcpu_close(m->l);
}

static void start_slaves(uint64_t delay_ns)
{
	for (unsigned i = 1; i < NODES; i++) {
		echo_start(&slave[i], &cluster, i, LIFE + i);
		atomic_store(&slave[i].delay_ns, delay_ns);
	}
}

static void stop_slaves(void)
{
	for (unsigned i = 1; i < NODES; i++)
		echo_stop(&slave[i]);
}

/* ---- tests ---------------------------------------------------------------------------------- */

START_TEST(what_an_owner_says_is_shown)
{
	static struct cluster_result r;
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_where where = {
		.is = WVM_VCPU_IS_HALTED, .node = 1, .moves = 3, .refused = 4};
	struct wvm_vcpu_link *l = owner_open(w, 2);
	struct wvm_vcpu_answer a;
	json_t *o, *v;
	uint64_t life;

	start_slaves(0);
	cluster_ctl(&cluster, OWNER, &r, (const char *const[]){"vcpu", NULL});
	ck_assert_ptr_nonnull(strstr(r.out, "unknown"));
	life = owner_learn(l, 1);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_int_eq(wvm_vcpu_run(l, 1, life, "abc", 3, &a), 0);
	where.exits[WVM_VCPU_EXIT_HLT] = 7;
	where.exits[WVM_VCPU_EXIT_MMIO] = 8;
	wvm_vcpu_report(l, &where);
	o = cluster_json(&cluster, OWNER, "vcpu");
	ck_assert_uint_eq(json_array_size(json_object_get(o, "vcpus")), 1);
	v = json_array_get(json_object_get(o, "vcpus"), 0);
	ck_assert_int_eq(json_integer_value(json_object_get(v, "vm")), CLUSTER_VM);
	ck_assert_int_eq(json_integer_value(json_object_get(v, "vcpu")), 2);
	ck_assert_int_eq(json_integer_value(json_object_get(v, "node")), 1);
	ck_assert_str_eq(json_string_value(json_object_get(v, "state")), "halted");
	ck_assert_int_eq(json_integer_value(json_object_get(v, "runs")), 10);
	ck_assert_int_ge(json_integer_value(json_object_get(v, "bytes_sent")), 30);
	ck_assert_int_ge(json_integer_value(json_object_get(v, "bytes_received")), 30);
	ck_assert_int_eq(json_integer_value(json_object_get(v, "moves")), 3);
	ck_assert_int_eq(json_integer_value(json_object_get(v, "refused")), 4);
	v = json_object_get(v, "exits");
	ck_assert_uint_eq(json_object_size(v), 2);
	ck_assert_int_eq(json_integer_value(json_object_get(v, "HLT")), 7);
	json_decref(o);
	cluster_ctl(&cluster, OWNER, &r, (const char *const[]){"vcpu", NULL});
	ck_assert_int_eq(r.status, 0);
	ck_assert_ptr_nonnull(strstr(r.out, "halted"));
	ck_assert_ptr_nonnull(strstr(r.out, "MMIO 8"));
	wvm_vcpu_close(l);
	cluster_ctl(&cluster, OWNER, &r, (const char *const[]){"vcpu", NULL});
	ck_assert_ptr_nonnull(strstr(r.out, "no program of this node"));
	wvm_detach(w);
	stop_slaves();
}
END_TEST

/* Runs that would last a minute: the order itself ends them. */
START_TEST(a_processor_goes_where_it_is_ordered_and_each_run_is_executed_once)
{
	static struct cluster_result r;
	static struct mover m;
	struct wvm *w = owner_attach(&cluster, OWNER);
	unsigned on[NODES] = {0};

	start_slaves(UINT64_C(60000000000));
	begin(&m, w, 1);
	for (unsigned i = 0; i < MOVES; i++) {
		ctl(&r, "1", "1", i % 2 ? "1" : "2");
		ck_assert_msg(r.status == 0, "move %u: %s", i, r.err);
		ck_assert_ptr_nonnull(strstr(r.out, i % 2 ? "runs on node 1, moved in 1.5 ms"
							  : "runs on node 2, moved in 1.5 ms"));
	}
	end(&m);
	ck_assert_uint_ge(m.runs, MOVES);
	for (unsigned seq = 1; seq <= m.runs; seq++) {
		unsigned first = atomic_load(&slave[1].vcpu[1].executed[seq]);
		unsigned second = atomic_load(&slave[2].vcpu[1].executed[seq]);

		ck_assert_msg(first + second == 1, "run %u: %u and %u times", seq, first, second);
		on[1] += first;
		on[2] += second;
	}
	ck_assert_uint_ge(on[1], MOVES / 2);
	ck_assert_uint_ge(on[2], MOVES / 2);
	ck_assert_uint_eq(m.where.moves, MOVES);
	wvm_detach(w);
	stop_slaves();
}
END_TEST

/* One that runs nothing (the guest has halted) sleeps until the descriptor says that there is an
 * order. */
START_TEST(an_order_wakes_an_owner_that_runs_nothing)
{
	static struct cluster_result r;
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 1);
	struct pollfd p = {.fd = wvm_vcpu_order_fd(l), .events = POLLIN};
	unsigned node = 99;
	pid_t operator;

	ck_assert(!wvm_vcpu_wanted(l, &node));
	ck_assert_int_eq(poll(&p, 1, 0), 0);
	operator= fork();
	if (!operator) {
		ctl(&r, "1", "1", "2");
		_exit(r.status == 0 && strstr(r.out, "already") ? 0 : 1);
	}
	ck_assert_int_eq(poll(&p, 1, 20000), 1);
	ck_assert(wvm_vcpu_wanted(l, &node));
	ck_assert_uint_eq(node, 2);
	wvm_vcpu_obeyed(l, WVM_VCPU_MOVED_NOWHERE, 0, 0);
	ck_assert(!wvm_vcpu_wanted(l, &node));
	ck_assert_int_eq(waitpid(operator, & r.status, 0), operator);
	ck_assert_int_eq(r.status, 0);
	wvm_vcpu_close(l);
	wvm_detach(w);
}
END_TEST

START_TEST(why_a_processor_does_not_move_is_one_line)
{
	static const struct {
		const char *vm, *vcpu, *node, *text;
	} refused[] = {{"9", "1", "2", "no VM 9"},
		       {"1", "2", "2", "VM 1 has no vCPU 2 on this node"},
		       {"1", "7", "2", "VM 1 has no vCPU 7 on this node"},
		       {"1", "0", "2", "vCPU 0 of VM 1 runs in its QEMU itself"},
		       {"1", "1", "7", "the topology has no node 7"},
		       {"1", "x", "2", "vCPU 'x' is not a number up to 255"},
		       {"1", "256", "2", "vCPU '256' is not a number"},
		       {"1", "1", "-1", "NODE '-1' is not a number"}};
	static const struct {
		enum wvm_vcpu_moved outcome;
		const char *text;
	} became[] = {{WVM_VCPU_MOVED_SILENT, "no slave answers there"},
		      {WVM_VCPU_MOVED_ENGINE, "has no TCG"},
		      {WVM_VCPU_MOVED_REFUSED, "no room for one more processor"},
		      {WVM_VCPU_MOVED_LOST, "it is lost"},
		      {WVM_VCPU_MOVED_FAILED, "standard error"},
		      {WVM_VCPU_OUTCOMES + 7, "standard error"}};
	static struct cluster_result r;
	static struct mover m;
	struct wvm *w = owner_attach(&cluster, OWNER);

	start_slaves(1000000);
	begin(&m, w, 1);
	for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		cluster_ctl(&cluster, OWNER, &r,
			    (const char *const[]){"--vm", refused[i].vm, "--", "vcpu", "move",
						  refused[i].vcpu, refused[i].node, NULL});
		expect_error(&r, refused[i].text);
	}
	for (unsigned i = 0; i < sizeof(became) / sizeof(became[0]); i++) {
		atomic_store(&m.outcome, became[i].outcome);
		ctl(&r, "1", "1", "2");
		expect_error(&r, became[i].text);
	}
	atomic_store(&m.mute, true);
	ctl(&r, "1", "1", "2");
	expect_error(&r, "has not answered for 15 s");
	end(&m);
	wvm_detach(w);
	stop_slaves();
}
END_TEST

/* Random words, and those that are at a bound, while the master reads. */
START_TEST(an_owner_may_say_anything)
{
	static struct cluster_result r;
	struct wvm *w = owner_attach(&cluster, OWNER), *bad = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 1), *liar = owner_open(bad, 2);
	uint64_t *words = (uint64_t *)(void *)(liar->mem + 2 * WVM_VCPU_RING_BYTES), life;
	struct wvm_vcpu_answer a;
	unsigned node;

	start_slaves(0);
	for (unsigned round = 0; round < 40; round++) {
		json_t *o;

		for (unsigned i = 0; i < WVM_VCPU_REPORT_BYTES / 8; i++)
			words[i] = round == 0   ? UINT64_MAX
				   : round == 1 ? INT64_MAX
				   : round == 2
					   ? UINT64_C(1) << 63
					   : (uint64_t)rand() << 33 ^ (uint64_t)rand() << (i & 31);
		o = cluster_json(&cluster, OWNER, "vcpu");
		ck_assert_uint_eq(json_array_size(json_object_get(o, "vcpus")), 2);
		json_decref(o);
		cluster_ctl(&cluster, OWNER, &r, (const char *const[]){"vcpu", NULL});
		ck_assert_int_eq(r.status, 0);
	}
	/* Its word for a processor that is nobody's is no order, nor is its own order one. */
	ctl(&r, "1", "3", "2");
	ck_assert_int_ne(r.status, 0);
	ck_assert(!wvm_vcpu_wanted(l, &node));
	life = owner_learn(l, 1);
	ck_assert_int_eq(wvm_vcpu_run(l, 1, life, "a", 1, &a), 0);
	ck_assert(owner_is_echo("a", 1, &a));
	wvm_vcpu_close(liar);
	wvm_vcpu_close(l);
	wvm_detach(bad);
	wvm_detach(w);
	stop_slaves();
}
END_TEST

/* The next one has a page of its own: it is told at once, and its orders are taken. */
START_TEST(a_next_master_is_told_and_obeyed)
{
	static struct cluster_result r;
	static struct mover m;
	uint64_t until = cluster_now_ms() + 20000;
	struct wvm *w;

	cluster_start(&cluster, &(struct cluster_opts){.nodes = NODES});
	w = owner_attach(&cluster, OWNER);
	start_slaves(UINT64_C(60000000000));
	begin(&m, w, 1);
	ctl(&r, "1", "1", "2");
	ck_assert_msg(r.status == 0, "%s", r.err);
	cluster_node_end(&cluster, OWNER, SIGKILL);
	cluster_node_start(&cluster, OWNER, NULL);
	cluster_node_await(&cluster, OWNER);
	do
		cluster_ctl(&cluster, OWNER, &r, (const char *const[]){"vcpu", NULL});
	while (!strstr(r.out, "running") && cluster_now_ms() < until);
	ck_assert_msg(strstr(r.out, "1     1     2      running") != NULL, "%s", r.out);
	ctl(&r, "1", "1", "1");
	ck_assert_msg(r.status == 0, "%s", r.err);
	ck_assert_ptr_nonnull(strstr(r.out, "runs on node 1, moved"));
	end(&m);
	ck_assert_uint_eq(m.where.moves, 2);
	wvm_detach(w);
	stop_slaves();
	cluster_stop(&cluster);
}
END_TEST

static void on_loopback(void)
{
	cluster_start(&cluster, &(struct cluster_opts){.nodes = NODES});
}

static void stop(void)
{
	cluster_stop(&cluster);
}

static Suite *orders_suite(void)
{
	Suite *s = suite_create("vcpu_orders");
	TCase *t = cluster_tcase(s, "on loopback", 120);

	tcase_add_unchecked_fixture(t, on_loopback, stop);
	tcase_add_test(t, what_an_owner_says_is_shown);
	tcase_add_test(t, a_processor_goes_where_it_is_ordered_and_each_run_is_executed_once);
	tcase_add_test(t, an_order_wakes_an_owner_that_runs_nothing);
	tcase_add_test(t, why_a_processor_does_not_move_is_one_line);
	tcase_add_test(t, an_owner_may_say_anything);
	t = cluster_tcase(s, "with a master that dies", 120);
	tcase_add_test(t, a_next_master_is_told_and_obeyed);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {orders_suite};

	return cluster_main(argv, suites, 1);
}

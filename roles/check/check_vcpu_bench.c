/*
 * `wvmbench vcpu` on a cluster with slaves: its runs are executed where it says, and its figures
 * fit together. How fast they are is no matter here.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/remote.h"

#define RUNS 60u
#define WARM 200u /* of wvmbench's own */

static struct cluster cluster;
static pid_t slaves[3];

/* Node 0, the owner's, has none; node 2's spins before it sleeps. */
static void setup(void)
{
	static const struct cluster_opts opts = {.nodes = 3, .vm = "1:64M"};

	cluster_start(&cluster, &opts);
	for (unsigned i = 1; i < 3; i++)
		slaves[i] = slave_start(&cluster, i, i == 2 ? "--poll" : NULL);
}

static void teardown(void)
{
	for (unsigned i = 1; i < 3; i++)
		ck_assert_int_eq(slave_end(slaves[i], SIGTERM), 0);
	cluster_stop(&cluster);
}

/* With further arguments, NULL-terminated. */
static struct cluster_result *bench(const char *const more[])
{
	static struct cluster_result r;
	char program[4200], runs[8];
	const char *args[24] = {program,  "vcpu", "--ring", cluster.node[0].ring,
				"--vm",   "1",    "--runs", runs,
				"--json", "-"};
	unsigned n = 10;

	snprintf(program, sizeof(program), "%s/wvmbench", cluster_bin());
	snprintf(runs, sizeof(runs), "%u", RUNS);
	while (*more)
		args[n++] = *more++;
	cluster_run(&r, args, NULL, NULL);
	return &r;
}

static json_t *figures(const char *const more[])
{
	const struct cluster_result *r = bench(more);
	json_t *root;

	ck_assert_msg(WIFEXITED(r->status) && !WEXITSTATUS(r->status), "status %#x: %s",
		      (unsigned)r->status, r->err);
	root = json_loads(r->out, 0, NULL);
	ck_assert_msg(root != NULL, "not JSON: %s", r->out);
	return root;
}

static double counted(const json_t *root, const char *name, const char *what)
{
	char key[64];
	const json_t *v;

	snprintf(key, sizeof(key), "%s%s%s", name, *name ? ": " : "", what);
	v = json_object_get(json_object_get(root, "counts"), key);
	ck_assert_msg(json_is_number(v), "there is no '%s'", key);
	return json_number_value(v);
}

static double value(const json_t *root, unsigned series, const char *key, unsigned round)
{
	const json_t *s = json_array_get(json_object_get(root, "series"), series);

	return json_number_value(json_array_get(json_object_get(s, key), round));
}

static const char *const names[] = {"vcpu-empty", "vcpu-pio", "vcpu-mmio", "vcpu-state",
				    "vcpu-move"};
#define MOVE 4u

/* One round: what is printed of all of them is that one's. */
static void check_thing(const json_t *root, unsigned i)
{
	const char *name = names[i];
	double p50 = counted(root, name, "p50, us"), p90 = counted(root, name, "p90, us"),
	       sent = counted(root, name, "bytes sent"),
	       received = counted(root, name, "bytes received");
	double exit = counted(root, i >= 3 ? names[0] : name, "KVM's exit p50, us"),
	       floor = counted(root, name, "floor p50, us");

	ck_assert(exit > 0 && floor > 0 && p50 > exit);
	ck_assert(p50 <= p90 && p90 <= counted(root, name, "p99, us"));
	ck_assert_double_eq_tol(value(root, i, "ours", 0), p50, 0.01);
	ck_assert_double_eq_tol(value(root, i, "base", 0), 1.5 * floor + exit, 0.01);
	ck_assert_msg(sent >= WVM_VCPU_RUN_HEAD && received >= WVM_VCPU_EXIT_HEAD,
		      "%s: %f bytes and %f", name, sent, received);
	if (i < MOVE) /* it stays: a difference, or nothing */
		ck_assert_msg(sent < 600 && received < 600, "%s: %f bytes and %f", name, sent,
			      received);
	else /* whole */
		ck_assert_msg(sent > counted(root, names[0], "bytes sent") + 100, "%f bytes", sent);
}

START_TEST(figures_of_one_round_fit_together)
{
	static const char *const more[] = {"--node", "1",        "--move-to", "2", "--rounds",
					   "1",      "--layout", "test",      NULL};
	uint64_t before[3], after[3];
	json_t *root;

	for (unsigned i = 0; i < 3; i++)
		before[i] = cluster_stat(&cluster, i, "vcpus", "to_slave");
	root = figures(more);
	for (unsigned i = 0; i < 3; i++)
		after[i] = cluster_stat(&cluster, i, "vcpus", "to_slave");
	ck_assert_str_eq(json_string_value(json_object_get(root, "program")), "wvmbench vcpu");
	ck_assert_str_eq(json_string_value(json_object_get(root, "layout")), "test");
	ck_assert_uint_eq(json_array_size(json_object_get(root, "series")), MOVE + 1);
	for (unsigned i = 0; i <= MOVE; i++) {
		const json_t *s = json_array_get(json_object_get(root, "series"), i);

		ck_assert_str_eq(json_string_value(json_object_get(s, "name")), names[i]);
		check_thing(root, i);
	}
	ck_assert_double_eq(counted(root, "", "runs of each kind in a round"), RUNS);
	/* Four loops and half of the moves at node 1, the others at node 2. */
	ck_assert_uint_eq(after[0], before[0]);
	ck_assert_uint_ge(after[1] - before[1], (RUNS + WARM) * 9 / 2);
	ck_assert_uint_ge(after[2] - before[2], (RUNS + WARM) / 2);
	json_decref(root);
}
END_TEST

START_TEST(every_round_is_kept_and_moves_are_made_only_when_asked_for)
{
	static const char *const more[] = {"--node", "2", "--rounds", "3", NULL};
	json_t *root = figures(more), *series = json_object_get(root, "series");

	ck_assert_uint_eq(json_array_size(series), MOVE);
	for (unsigned i = 0; i < MOVE; i++) {
		const json_t *s = json_array_get(series, i);

		ck_assert_uint_eq(json_array_size(json_object_get(s, "ours")), 3);
		ck_assert_uint_eq(json_array_size(json_object_get(s, "base")), 3);
		for (unsigned k = 0; k < 3; k++)
			ck_assert(value(root, i, "ours", k) > 0 && value(root, i, "base", k) > 0);
	}
	json_decref(root);
}
END_TEST

static const struct {
	const char *more[5], *text;
	bool usage;
} refusals[] = {
	{{"--node", "7", NULL}, "the cluster has no node 7", false},
	{{"--node", "0", NULL}, "the slave of node 0 does not answer", false},
	{{"--node", "1", "--move-to", "1", NULL}, "--move-to is the node that --node is", true},
	{{"--runs", "0", NULL}, "--runs: '0' is not from 1", true},
	{{"--floor-program", "/nowhere/wvm_floor", NULL}, "/nowhere/wvm_floor", true},
};

START_TEST(what_cannot_be_measured_is_said)
{
	const struct cluster_result *r = bench(refusals[_i].more);

	ck_assert(WIFEXITED(r->status) && WEXITSTATUS(r->status));
	ck_assert_msg(strstr(r->err, refusals[_i].text) != NULL, "%s", r->err);
	ck_assert_str_eq(r->out, "");
	if (!refusals[_i].usage)
		ck_assert_ptr_eq(strchr(r->err, '\n'), r->err + strlen(r->err) - 1);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("wvmbench vcpu");
	TCase *t = cluster_tcase(s, "wvmbench vcpu", 120);

	tcase_add_unchecked_fixture(t, setup, teardown);
	tcase_add_test(t, figures_of_one_round_fit_together);
	tcase_add_test(t, every_round_is_kept_and_moves_are_made_only_when_asked_for);
	tcase_add_loop_test(t, what_cannot_be_measured_is_said, 0,
			    sizeof(refusals) / sizeof(refusals[0]));
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const make[])(void) = {suite};

	(void)argc;
	if (access("/dev/kvm", R_OK | W_OK)) {
		printf("SKIPPED: check_vcpu_bench: needs /dev/kvm\n");
		return 0;
	}
	return cluster_main(argv, make, 1);
}

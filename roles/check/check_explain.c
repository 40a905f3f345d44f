/*
 * `wvmbench fault --explain` on a cluster: every part of a fault is found, the parts
 * and what none explains are the measured time, and both sides made system calls.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "roles/check/cluster.h"

#define PAGES "600" /* more than one batch of the traces */

static struct cluster cluster;
static struct cluster_result result;
static char svg[160];

/* Runs it at node 0 with peers on the first `peers` others. control: NULL: the right ports. */
static void explain(unsigned peers, const char *control, const char *file)
{
	char program[4128], ports[64], option[176];
	const char *args[32] = {
		program,   "fault",  "--vm",     "1", "--ring",    cluster.node[0].ring,
		"--pages", PAGES,    "--rounds", "1", "--control", control ? control : ports,
		option,    "--json", "-"};
	unsigned n = 15;

	snprintf(program, sizeof(program), "%s/wvmbench", cluster_bin());
	snprintf(ports, sizeof(ports), "%u,%u,%u", cluster.node[0].ctrl_port,
		 cluster.node[1].ctrl_port, cluster.node[2].ctrl_port);
	snprintf(option, sizeof(option), "--explain=%s", file);
	for (unsigned i = 1; i <= peers; i++) {
		args[n++] = "--peer-ring";
		args[n++] = cluster.node[i].ring;
	}
	args[n] = NULL;
	cluster_run(&result, args, NULL, NULL);
}

static double number(const json_t *o, const char *name)
{
	const json_t *value = json_object_get(o, name);

	ck_assert_msg(json_is_number(value), "no figure '%s' in %s", name, result.out);
	return json_number_value(value);
}

static void expect_parts(const json_t *fault, bool owner)
{
	static const char *const always[] = {"fault delivery",          "queue",
					     "wire and home's receive", "home",
					     "wire back and receive",   "copy and map"};
	static const char *const of_owner[] = {"wire and owner's receive", "owner",
					       "wire back to home"};
	json_t *parts = json_object_get(fault, "parts_us"), *value;
	double p50 = number(fault, "p50_us"), sum = 0;
	const char *name;

	json_object_foreach(parts, name, value) sum += json_number_value(value);
	/* Each of the 12 figures is rounded to a thousandth. */
	ck_assert_msg(fabs(sum - p50) < 0.01, "parts are %.3f us, the fault is %.3f us", sum, p50);
	for (unsigned i = 0; i < 6; i++)
		ck_assert_msg(number(parts, always[i]) > 0, "no %s: %s", always[i], result.out);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_msg((number(parts, of_owner[i]) > 0) == owner, "%s: %s", of_owner[i],
			      result.out);
	/* Not hidden, but not most of it either. */
	ck_assert_msg(fabs(number(parts, "not explained")) < p50 / 2, "%s", result.out);
	ck_assert(number(parts, "wake") >= 0);
}

static void expect_calls(const json_t *fault, const char *home, const char *owner)
{
	const json_t *calls = json_object_get(fault, "syscalls_per_fault");
	const json_t *mine = json_object_get(calls, "requester");

	/* A fault ends by one UFFDIO_COPY, but for those that were asked for ahead. */
	ck_assert_msg(fabs(number(mine, "uffd_copy") - 1) < 0.2, "%s", result.out);
	/* And the request leaves by one. Under load several faults' worth may be one. */
	ck_assert_msg(number(mine, "io_uring_enter") > 0.5, "%s", result.out);
	ck_assert_msg(number(mine, "in all") >= 1.5, "%s", result.out);
	ck_assert_msg(number(json_object_get(calls, home), "io_uring_enter") > 0.5, "%s",
		      result.out);
	ck_assert_msg(number(json_object_get(calls, home), "uffd_copy") == 0, "%s", result.out);
	ck_assert_msg(number(json_object_get(calls, home), "in all") > 0.5, "%s", result.out);
	if (owner) /* it reads the page out of the RAM file, once */
		ck_assert_msg(fabs(number(json_object_get(calls, owner), "pread64") - 1) < 0.2,
			      "%s", result.out);
}

static void expect_fault(const json_t *list, size_t i, const char *name, const char *home,
			 const char *owner)
{
	const json_t *fault = json_array_get(list, i);
	double faults = number(fault, "faults");

	ck_assert_str_eq(json_string_value(json_object_get(fault, "name")), name);
	ck_assert_msg(faults > 400, "%s", result.out);
	ck_assert_msg(faults + number(fault, "without_fault") == 600, "%s", result.out);
	ck_assert_msg(number(fault, "explained") > faults / 2, "%s", result.out);
	ck_assert_msg(number(fault, "explained") + number(fault, "asked_again") +
				      number(fault, "asked_ahead") +
				      number(fault, "without_all_stamps") ==
			      faults,
		      "%s", result.out);
	expect_parts(fault, owner != NULL);
	expect_calls(fault, home, owner);
}

static json_t *run_well(unsigned peers)
{
	json_error_t why;
	json_t *o;

	explain(peers, NULL, svg);
	ck_assert_msg(result.status == 0, "%s", result.err);
	o = json_loads(result.out, 0, &why);
	ck_assert_msg(o != NULL, "%s: %s", why.text, result.out);
	return o;
}

static void expect_svg(unsigned bars)
{
	static char text[CLUSTER_OUT_BYTES];
	unsigned found = 0;

	cluster_read(svg, text, sizeof(text));
	ck_assert(!strncmp(text, "<svg ", 5) && strstr(text, "\n</svg>\n"));
	for (const char *at = text; (at = strstr(at, ": p50 ")); at++)
		found++;
	ck_assert_uint_eq(found, bars);
}

START_TEST(parts_add_up_and_calls_are_counted_with_an_owner_on_a_third_node)
{
	json_t *o = run_well(2), *list = json_object_get(o, "faults");

	ck_assert_uint_eq(json_array_size(list), 2);
	expect_fault(list, 0, "remote-read", "home", NULL);
	expect_fault(list, 1, "remote-read-modified", "home", "owner");
	expect_svg(2);
	json_decref(o);
}
END_TEST

START_TEST(an_owner_on_the_homes_node_is_explained_from_one_trace)
{
	json_t *o = run_well(1), *list = json_object_get(o, "faults");
	const json_t *parts;

	ck_assert_uint_eq(json_array_size(list), 1);
	parts = json_object_get(json_array_get(list, 0), "parts_us");
	/* The page does not travel: the owner's work is there, the wire of its own is not. */
	ck_assert_msg(number(parts, "owner") > 0, "%s", result.out);
	ck_assert_msg(number(parts, "wire and owner's receive") < number(parts, "owner"), "%s",
		      result.out);
	expect_svg(1);
	json_decref(o);
}
END_TEST

/* Status 1 and one line that has all of this in it. */
static void expect_refusal(const char *const text[])
{
	const char *end = strchr(result.err, '\n');

	ck_assert_msg(WIFEXITED(result.status) && WEXITSTATUS(result.status) == 1, "%x",
		      result.status);
	for (; *text; text++)
		ck_assert_msg(strstr(result.err, *text) != NULL, "no '%s' in: %s", *text,
			      result.err);
	ck_assert_msg(end && !end[1], "more than a line: %s", result.err);
	ck_assert_str_eq(result.out, "");
}

START_TEST(what_is_asked_for_wrongly_gets_one_line)
{
	char ports[64];

	explain(2, NULL, "/nowhere/x.svg");
	expect_refusal((const char *const[]){"/nowhere/x.svg", "No such file", NULL});
	explain(2, "1,2", svg);
	expect_refusal((const char *const[]){"--control", NULL});
	snprintf(ports, sizeof(ports), "%u,%u,%u", cluster.node[0].ctrl_port,
		 cluster.node[2].ctrl_port, cluster.node[1].ctrl_port);
	explain(2, ports, svg);
	expect_refusal((const char *const[]){"is node 2", "not node 1", "--control", NULL});
	snprintf(ports, sizeof(ports), "%u,1,1", cluster.node[0].ctrl_port);
	explain(2, ports, svg);
	expect_refusal((const char *const[]){"no master answers", "127.0.0.1:1", NULL});
}
END_TEST

static void start(const char *shards)
{
	cluster_start(&cluster, &(struct cluster_opts){.shards = shards});
	snprintf(svg, sizeof(svg), "%s/bars.svg", cluster.dir);
}

static void start_one(void)
{
	start("1");
}

/* Then the home's shard is not the one that the faults of its own programs come to. */
static void start_two(void)
{
	start("2");
}

static void stop(void)
{
	cluster_stop(&cluster);
}

static Suite *explain_suite(void)
{
	Suite *s = suite_create("explain");
	TCase *t = cluster_tcase(s, "explain", 120), *two = cluster_tcase(s, "two shards", 120);

	tcase_add_unchecked_fixture(t, start_one, stop);
	tcase_add_test(t, parts_add_up_and_calls_are_counted_with_an_owner_on_a_third_node);
	tcase_add_test(t, an_owner_on_the_homes_node_is_explained_from_one_trace);
	tcase_add_test(t, what_is_asked_for_wrongly_gets_one_line);
	tcase_add_unchecked_fixture(two, start_two, stop);
	tcase_add_test(two, parts_add_up_and_calls_are_counted_with_an_owner_on_a_third_node);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {explain_suite};

	return cluster_main(argv, suites, 1);
}

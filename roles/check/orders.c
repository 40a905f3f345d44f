#include "roles/check/orders.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 120000u /* a hang, not a measure */

void ctl(const struct cluster *c, unsigned node, struct cluster_result *r, const char *command,
	 const char *arg)
{
	cluster_ctl(c, node, r, (const char *const[]){command, arg, NULL});
}

void order(const struct cluster *c, unsigned node, const char *command, const char *arg)
{
	struct cluster_result r;

	ctl(c, node, &r, command, arg);
	ck_assert_msg(r.status == 0, "%s %s at node %u: status %x\n%s%s", command, arg, node,
		      r.status, r.out, r.err);
}

void order_meanwhile(const struct cluster *c, pid_t *waits, unsigned node, const char *command,
		     const char *arg)
{
	*waits = fork();
	if (*waits)
		return;
	order(c, node, command, arg);
	_exit(0);
}

void await_order(pid_t waits)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;

	int status = 0;

	for (; waitpid(waits, &status, WNOHANG) != waits; cluster_sleep_ms(20))
		ck_assert_msg(cluster_now_ms() < end, "an order does not end");
	ck_assert_int_eq(status, 0);
}

void refused(const struct cluster *c, unsigned node, const char *command, const char *arg,
	     const char *why)
{
	struct cluster_result r;

	ctl(c, node, &r, command, arg);
	ck_assert_int_ne(r.status, 0);
	ck_assert_msg(strstr(r.err, why), "%s %s: '%s' does not say '%s'", command, arg, r.err,
		      why);
}

uint64_t slices_of(const struct cluster *c, unsigned at, unsigned of)
{
	json_t *o = cluster_json(c, at, "status"), *list = json_object_get(o, "members");
	uint64_t n =
		(uint64_t)json_integer_value(json_object_get(json_array_get(list, of), "slices"));

	json_decref(o);
	return n;
}

/* All alike: each has its part of the slices, to one. homes: a bit for each node. */
void shares(const struct cluster *c, unsigned at, unsigned homes)
{
	unsigned count = (unsigned)__builtin_popcount(homes);

	for (unsigned i = 0; i < c->nodes; i++) {
		uint64_t n = slices_of(c, at, i);

		if (homes >> i & 1)
			ck_assert_msg(n >= 4096 / count && n <= 4096 / count + 1,
				      "node %u has %lu slices", i, n);
		else
			ck_assert_uint_eq(n, 0);
	}
}

void await_status(const struct cluster *c, unsigned at, unsigned of, const char *status)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;
	bool is = false;

	while (!is) {
		json_t *o = cluster_json(c, at, "members");
		const json_t *m = json_array_get(json_object_get(o, "members"), of);

		is = !strcmp(json_string_value(json_object_get(m, "status")), status);
		json_decref(o);
		ck_assert_msg(is || cluster_now_ms() < end, "node %u does not say %s of node %u",
			      at, status, of);
		cluster_sleep_ms(50);
	}
}

/* What members shows is the same that records have made of it. */
void is_member(const struct cluster *c, unsigned at, unsigned of, const char *state)
{
	json_t *o = cluster_json(c, at, "members");
	const json_t *m = json_array_get(json_object_get(o, "members"), of);

	ck_assert_str_eq(json_string_value(json_object_get(m, "member")), state);
	json_decref(o);
}

static bool all_alive(const struct cluster *c, unsigned at)
{
	json_t *o = cluster_json(c, at, "members"), *item;
	bool all = true;
	size_t i;

	json_array_foreach(json_object_get(o, "members"), i, item)
		all = all && !strcmp(json_string_value(json_object_get(item, "status")), "ALIVE") &&
		      json_is_true(json_object_get(item, "heard"));
	json_decref(o);
	return all;
}

void await_alive(const struct cluster *c, unsigned at)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;

	while (!all_alive(c, at)) {
		ck_assert_msg(cluster_now_ms() < end, "node %u has not heard of all", at);
		cluster_sleep_ms(50);
	}
}

uint64_t epoch_of(const struct cluster *c, unsigned node)
{
	return cluster_status(c, node, "epoch");
}

void await_epoch(const struct cluster *c, unsigned node, uint64_t epoch)
{
	uint64_t end = cluster_now_ms() + WAIT_MS;

	while (epoch_of(c, node) < epoch) {
		ck_assert_msg(cluster_now_ms() < end, "node %u is in epoch %lu", node,
			      epoch_of(c, node));
		cluster_sleep_ms(20);
	}
}

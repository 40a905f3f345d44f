#include "roles/ctl/life.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AGAIN_NS  300000000L
#define SILENCE_S 60 /* a master that is started again is there within seconds */

static const char *text_of(const json_t *answer, const char *key)
{
	const char *text = json_string_value(json_object_get(answer, key));

	return text ? text : "";
}

/* "node 3 is DRAINING, epoch 5: memory still moves at node 1, 2" */
static void describe(const json_t *answer, char *out, size_t len)
{
	const json_t *busy = json_object_get(answer, "busy"), *one;
	size_t i, at;
	int n = snprintf(out, len, "node %lld is %s, epoch %lld",
			 (long long)json_integer_value(json_object_get(answer, "node")),
			 text_of(answer, "life"),
			 (long long)json_integer_value(json_object_get(answer, "epoch")));

	at = n < 0 || (size_t)n >= len ? len - 1 : (size_t)n;
	json_array_foreach(busy, i, one)
	{
		if (at >= len - 16)
			break;
		at += (size_t)snprintf(out + at, len - at,
				       i ? ", %lld" : ": memory still moves at node %lld",
				       (long long)json_integer_value(one));
	}
	if (*text_of(answer, "waits"))
		snprintf(out + at, len - at, ": %s", text_of(answer, "waits"));
}

static time_t now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* The master has the order already, and may come back: it was busy, or is started again. */
static bool may_come_back(int ret)
{
	return ret == -ETIMEDOUT || ret == -ECONNREFUSED || ret == -EBUSY;
}

static void tell(bool quiet, const char *now, char said[512])
{
	if (quiet || !strcmp(now, said))
		return;
	puts(now);
	fflush(stdout);
	strcpy(said, now);
}

/* An error after the order was taken is not its end: others may carry it out. */
static int lost_sight(bool join, uint32_t node, char *err, size_t err_len, int ret)
{
	size_t at = strlen(err);

	snprintf(err + at, err_len - at,
		 " The order that node %u %s was taken before: wvm_ctl members, at any node, says "
		 "what became of it",
		 node, join ? "joins" : "drains");
	return ret;
}

int wvm_life(const struct wvm_ask *ask, bool join, uint32_t node, bool quiet, json_t **answer,
	     char *err, size_t err_len)
{
	struct wvm_ask order = *ask;
	char said[512] = "", now[512];
	time_t heard_s = 0;

	*answer = NULL;
	order.op = join ? WVM_CONTROL_JOIN : WVM_CONTROL_DRAIN;
	order.operand = node;
	for (;;) {
		int r = wvm_ask_json(&order, answer, err, err_len);

		if (!r && *text_of(*answer, "error")) {
			snprintf(err, err_len, "%s", text_of(*answer, "error"));
			return -EBUSY;
		}
		if (!r) {
			describe(*answer, now, sizeof(now));
			tell(quiet, now, said);
			if (json_is_true(json_object_get(*answer, "done")))
				return 0;
			heard_s = now_s();
		} else if (!*answer) {
			return r;
		} else if (!may_come_back(r) || now_s() - heard_s > SILENCE_S) {
			return lost_sight(join, node, err, err_len, r);
		} else {
			tell(quiet, "the master does not answer: waiting until it does", said);
		}
		nanosleep(&(struct timespec){.tv_nsec = AGAIN_NS}, NULL);
	}
}

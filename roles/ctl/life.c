#include "roles/ctl/life.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AGAIN_NS 300000000L

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

int wvm_life(const struct wvm_ask *ask, bool join, uint32_t node, bool quiet, json_t **answer,
	     char *err, size_t err_len)
{
	struct wvm_ask order = *ask;
	char said[512] = "", now[512];

	*answer = NULL;
	order.op = join ? WVM_CONTROL_JOIN : WVM_CONTROL_DRAIN;
	order.operand = node;
	for (;;) {
		int r = wvm_ask_json(&order, answer, err, err_len);

		if (r)
			return r;
		if (*text_of(*answer, "error")) {
			snprintf(err, err_len, "%s", text_of(*answer, "error"));
			return -EBUSY;
		}
		describe(*answer, now, sizeof(now));
		if (!quiet && strcmp(now, said)) {
			puts(now);
			fflush(stdout);
			strcpy(said, now);
		}
		if (json_is_true(json_object_get(*answer, "done")))
			return 0;
		nanosleep(&(struct timespec){.tv_nsec = AGAIN_NS}, NULL);
	}
}

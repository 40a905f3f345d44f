#include "bench/wvmbench/tracer.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "roles/ctl/ask.h"

#define TRACE_MS 60000u /* for one batch of faults; it is switched off behind each */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static int bad_answer(const struct tracer *t)
{
	fprintf(stderr, "wvmbench: the master at control port %u answers what was not asked\n",
		t->port);
	return -EBADMSG;
}

static int ask(const struct tracer *t, enum wvm_control_op op, uint64_t operand, char **text)
{
	const struct wvm_ask a = {.port = t->port, .op = op, .vm_id = t->vm_id, .operand = operand};
	char err[256];
	int rc = wvm_ask(&a, text, err, sizeof(err));

	if (rc < 0)
		fprintf(stderr, "wvmbench: %s\n", err);
	return rc;
}

/* Switches it on or off: the answer, or NULL with *rc. */
static json_t *switch_to(const struct tracer *t, uint64_t ms, int *rc)
{
	char *text = NULL;
	json_t *o;

	*rc = ask(t, WVM_CONTROL_TRACE, ms, &text);
	if (*rc < 0)
		return NULL;
	o = json_loads(text, 0, NULL);
	free(text);
	if (!o)
		*rc = bad_answer(t);
	return o;
}

static int read_calls(const struct tracer *t, const json_t *o, struct call_counts *calls)
{
	const char *name;
	json_t *value;

	memset(calls, 0, sizeof(*calls));
	json_object_foreach(json_object_get(o, "syscalls"), name, value)
	{
		if (calls->n == BAR_CALLS)
			break;
		snprintf(calls->name[calls->n], sizeof(calls->name[0]), "%s", name);
		calls->made[calls->n++] = (uint64_t)json_integer_value(value);
	}
	return calls->n ? 0 : bad_answer(t);
}

/* The same file, by whatever path. */
static bool same_ring(const char *a, const char *b)
{
	struct stat x, y;

	return a && b && !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

static int check_master(const struct tracer *t, const json_t *o, int node, const char *ring,
			const uint64_t asked_ns[2])
{
	const char *theirs = json_string_value(json_object_get(o, "ring"));
	uint64_t clock = (uint64_t)json_integer_value(json_object_get(o, "monotonic_ns"));
	int id = (int)json_integer_value(json_object_get(o, "node"));

	if (id != node || (ring && !same_ring(ring, theirs))) {
		fprintf(stderr,
			"wvmbench: the master at control port %u is node %d with ring %s, not node "
			"%d with ring %s; name the control ports of this node and of each "
			"--peer-ring by --control\n",
			t->port, id, theirs ? theirs : "?", node, ring ? ring : "of its own");
		return -EINVAL;
	}
	if (clock < asked_ns[0] || clock > asked_ns[1]) {
		fprintf(stderr,
			"wvmbench: the master at control port %u has another clock than this "
			"program (another host, or another time namespace): its times cannot be "
			"compared\n",
			t->port);
		return -EINVAL;
	}
	return 0;
}

int tracer_open(struct tracer *t, uint16_t port, uint16_t vm_id, int node, const char *ring)
{
	uint64_t asked_ns[2];
	json_t *o;
	int rc;

	memset(t, 0, sizeof(*t));
	t->port = port;
	t->vm_id = vm_id;
	asked_ns[0] = now_ns();
	o = switch_to(t, 0, &rc);
	asked_ns[1] = now_ns();
	if (!o)
		return rc;
	rc = check_master(t, o, node, ring, asked_ns);
	json_decref(o);
	return rc;
}

void tracer_close(struct tracer *t)
{
	free(t->trace.at);
	memset(t, 0, sizeof(*t));
}

int tracer_begin(struct tracer *t, struct call_counts *calls)
{
	const json_t *made;
	int rc;
	json_t *o = switch_to(t, TRACE_MS, &rc);

	if (!o)
		return rc;
	made = json_object_get(o, "made");
	t->shards = (unsigned)json_array_size(made);
	if (!t->shards || t->shards > TRACER_SHARDS)
		rc = bad_answer(t);
	for (unsigned i = 0; rc == 0 && i < t->shards; i++)
		t->from[i] = (uint64_t)json_integer_value(json_array_get(made, i));
	if (rc == 0)
		rc = read_calls(t, o, calls);
	json_decref(o);
	return rc;
}

int tracer_end(struct tracer *t, struct call_counts *calls)
{
	int rc;
	json_t *o = switch_to(t, 0, &rc);

	if (!o)
		return rc;
	rc = read_calls(t, o, calls);
	json_decref(o);
	return rc;
}

/* ---- stamps ---------------------------------------------------------------------------- */

static uint8_t kind_of(const char *name)
{
	static const char *const names[STAMP_KINDS] = {"fault", "send", "submit", "receive",
						       "done"};
	uint8_t i = 0;

	while (i < STAMP_KINDS && strcmp(name, names[i]) != 0)
		i++;
	return i;
}

static uint8_t what_of(const char *name)
{
	static const struct {
		const char *name;
		uint8_t what;
	} messages[] = {{"MEM_READ", STAMP_ASK},
			{"MEM_ACQUIRE", STAMP_ASK},
			{"MEM_ACK", STAMP_ANSWER},
			{"DOWNGRADE", STAMP_DEMAND},
			{"FETCH_AND_INVALIDATE", STAMP_DEMAND},
			{"WRITE_BACK", STAMP_GIVE}};

	for (size_t i = 0; name && i < sizeof(messages) / sizeof(messages[0]); i++)
		if (!strcmp(name, messages[i].name))
			return messages[i].what;
	return STAMP_OTHER;
}

static int grow(struct trace *t)
{
	size_t room = t->room ? 2 * t->room : 4096;
	struct stamp *at = realloc(t->at, room * sizeof(*at));

	if (!at)
		return -ENOMEM;
	t->at = at;
	t->room = room;
	return 0;
}

/* [ns, kind, what, vm, page, request] */
static int add_stamp(struct trace *out, const json_t *list, uint16_t shard, uint16_t vm_id)
{
	const char *kind = json_string_value(json_array_get(list, 1));
	struct stamp s = {
		.ns = (uint64_t)json_integer_value(json_array_get(list, 0)),
		.page = (uint64_t)json_integer_value(json_array_get(list, 4)),
		.request = (uint64_t)json_integer_value(json_array_get(list, 5)),
		.shard = shard,
		.kind = kind ? kind_of(kind) : STAMP_KINDS,
		.what = what_of(json_string_value(json_array_get(list, 2))),
	};

	if (json_array_size(list) != 6 || !s.ns || s.kind == STAMP_KINDS)
		return -EBADMSG;
	/* SUBMIT is about no VM. */
	if (s.kind != STAMP_SUBMIT && json_integer_value(json_array_get(list, 3)) != vm_id)
		return 0;
	if (out->n == out->room && grow(out) < 0)
		return -ENOMEM;
	out->at[out->n++] = s;
	return 0;
}

int tracer_parse(struct trace *out, const char *json, uint16_t shard, uint16_t vm_id,
		 uint64_t *first, uint64_t *next)
{
	json_t *o = json_loads(json, 0, NULL), *list = json_object_get(o, "stamps"), *item;
	int rc = json_is_array(list) && json_is_integer(json_object_get(o, "first")) ? 0 : -EBADMSG;
	size_t i;

	*first = (uint64_t)json_integer_value(json_object_get(o, "first"));
	*next = *first + json_array_size(list);
	json_array_foreach(list, i, item) if (rc == 0) rc = add_stamp(out, item, shard, vm_id);
	json_decref(o);
	return rc;
}

static int collect_shard(struct tracer *t, unsigned shard)
{
	uint64_t at = t->from[shard], first, next;

	/* The trace is off: it comes to an end. */
	do {
		char *text = NULL;
		int rc = ask(t, WVM_CONTROL_STAMPS, (uint64_t)shard << WVM_CONTROL_SHARD_SHIFT | at,
			     &text);

		if (rc < 0)
			return rc;
		rc = tracer_parse(&t->trace, text, (uint16_t)shard, t->vm_id, &first, &next);
		free(text);
		if (rc < 0)
			return rc == -EBADMSG ? bad_answer(t) : rc;
		t->lost |= first != at;
		at = next;
	} while (next > first);
	return 0;
}

int tracer_collect(struct tracer *t)
{
	int rc = 0;

	t->trace.n = 0;
	for (unsigned i = 0; i < t->shards && rc == 0; i++)
		rc = collect_shard(t, i);
	join_sort(&t->trace);
	return rc;
}

#include "roles/ctl/top_sample.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES 4096u
#define DROPS_MAX  256u /* reasons in one answer */

/* ---- answers ----------------------------------------------------------------------------- */

static uint64_t number(const json_t *o, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(o, key));

	return value > 0 ? (uint64_t)value : 0;
}

/* Figures of strangers are added up: above the most there is no more. */
static uint64_t add(uint64_t a, uint64_t b)
{
	return b > INT64_MAX - a ? INT64_MAX : a + b;
}

static uint64_t pages(const json_t *o, const char *key)
{
	uint64_t count = number(o, key);

	return count > INT64_MAX / PAGE_BYTES ? INT64_MAX : count * PAGE_BYTES;
}

void wvm_top_clean(char *out, size_t size, const char *text)
{
	size_t i = 0;

	text = text ? text : "?";
	for (; i + 1 < size && text[i]; i++)
		out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	out[i] = 0;
}

static void clean(char *out, size_t size, const json_t *o, const char *key)
{
	wvm_top_clean(out, size, json_string_value(json_object_get(o, key)));
}

int wvm_top_read_status(struct wvm_top_sample *s, const json_t *o)
{
	const char *role = json_string_value(json_object_get(o, "role"));

	memset(s, 0, sizeof(*s));
	s->gateway = role && !strcmp(role, "gateway");
	if (!json_is_integer(json_object_get(o, s->gateway ? "port" : "node")))
		return -EPROTO;
	s->uptime_s = number(o, "uptime_s");
	if (s->gateway) {
		wvm_top_clean(s->state, sizeof(s->state), "serving"); /* or it would not answer */
		s->waiting = number(o, "waiting");
		s->buffers = number(o, "buffers");
		return 0;
	}
	s->node = number(o, "node");
	s->boot = number(o, "boot");
	clean(s->state, sizeof(s->state), o, "state");
	s->held_bytes = add(pages(o, "pages_shared"), pages(o, "pages_modified"));
	s->homed_bytes = pages(o, "pages_homed");
	return 0;
}

static void read_buckets(struct wvm_top_buckets *b, const json_t *list)
{
	size_t count = json_array_size(list);

	b->count = count < WVM_TOP_BUCKETS_MAX ? (unsigned)count : WVM_TOP_BUCKETS_MAX;
	for (unsigned i = 0; i < b->count; i++) {
		json_int_t value = json_integer_value(json_array_get(list, i));

		b->n[i] = value > 0 ? (uint64_t)value : 0;
	}
}

static uint64_t sum_drops(const json_t *drops)
{
	uint64_t sum = 0;
	unsigned count = 0;
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)drops, key, value)
	{
		if (count++ < DROPS_MAX && json_integer_value(value) > 0)
			sum = add(sum, (uint64_t)json_integer_value(value));
	}
	return sum;
}

static void read_gateway_stats(struct wvm_top_sample *s, const json_t *g)
{
	static const char *const dropped[] = {"no_route", "loops", "hops_used_up", "too_long",
					      "lost"};

	for (size_t i = 0; i < sizeof(dropped) / sizeof(dropped[0]); i++)
		s->counter[WVM_TOP_DROPS] = add(s->counter[WVM_TOP_DROPS], number(g, dropped[i]));
	s->counter[WVM_TOP_FORWARDED] = number(g, "forwarded");
	s->counter[WVM_TOP_DATAGRAMS] = number(g, "datagrams_out");
	s->counter[WVM_TOP_PUSHED_BACK] = number(g, "pushed_back");
}

int wvm_top_read_stats(struct wvm_top_sample *s, const json_t *o)
{
	const json_t *section = json_object_get(o, s->gateway ? "gateway" : "core");

	s->monotonic_ns = number(o, "monotonic_ns");
	if (!json_is_object(section) || !s->monotonic_ns)
		return -EPROTO;
	s->counter[WVM_TOP_DROPS] = sum_drops(json_object_get(o, "drops"));
	if (s->gateway) {
		read_gateway_stats(s, section);
		return 0;
	}
	s->counter[WVM_TOP_FAULTS_READ] = number(section, "faults_read");
	s->counter[WVM_TOP_FAULTS_WRITE] = number(section, "faults_write");
	s->requests = number(section, "requests_now");
	read_buckets(&s->read, json_object_get(o, "latency_read"));
	read_buckets(&s->write, json_object_get(o, "latency_write"));
	return 0;
}

static void read_member(struct wvm_top_member *m, const json_t *o)
{
	m->node = number(o, "node");
	m->since_ms = number(o, "since_ms");
	m->heard = json_is_true(json_object_get(o, "heard"));
	clean(m->address, sizeof(m->address), o, "address");
	clean(m->member, sizeof(m->member), o, "member");
	clean(m->life, sizeof(m->life), o, "life");
	clean(m->status, sizeof(m->status), o, "status");
}

int wvm_top_read_members(struct wvm_top_sample *s, const json_t *o)
{
	const json_t *list = json_object_get(o, "members");
	size_t count = json_array_size(list);

	if (!json_is_boolean(json_object_get(o, "watching")))
		return -EPROTO;
	s->has_members = true;
	s->watching = json_is_true(json_object_get(o, "watching"));
	clean(s->why_not, sizeof(s->why_not), o, "why_not");
	s->member_count = count < WVM_TOP_MEMBERS_MAX ? (unsigned)count : WVM_TOP_MEMBERS_MAX;
	s->members_left_off = add(count - s->member_count, number(o, "left_off"));
	for (unsigned i = 0; i < s->member_count; i++)
		read_member(&s->member[i], json_array_get(list, i));
	return 0;
}

int wvm_top_read_vcpus(struct wvm_top_sample *s, const json_t *o)
{
	const json_t *list = json_object_get(o, "vcpus");
	size_t count = json_array_size(list);

	if (!json_is_array(list))
		return -EPROTO;
	s->has_vcpus = true;
	s->vcpus = count;
	s->vcpus_running = 0;
	for (size_t i = 0; i < count; i++) {
		const json_t *item = json_array_get(list, i);
		const char *state = json_string_value(json_object_get(item, "state"));

		s->vcpus_running += state && !strcmp(state, "running");
	}
	return 0;
}

/* ---- rates ------------------------------------------------------------------------------- */

/* The time in µs that a bucket begins at. */
static double lower(unsigned bucket)
{
	return bucket ? ldexp(1, (int)bucket - 1) : 0;
}

double wvm_top_percentile(const struct wvm_top_buckets *b, double part)
{
	double total = 0, below = 0;
	unsigned last = 0;

	for (unsigned i = 0; i < b->count; i++)
		total += (double)b->n[i];
	for (unsigned i = 0; i < b->count; i++) {
		double in = (double)b->n[i];

		if (!b->n[i])
			continue;
		last = i;
		if (below + in >= part * total) {
			if (i + 1 == b->count)
				break;
			return lower(i) + (lower(i + 1) - lower(i)) * (part * total - below) / in;
		}
		below += in;
	}
	return lower(last);
}

/* false: something was more before. */
static bool grown(const struct wvm_top_buckets *before, const struct wvm_top_buckets *now,
		  struct wvm_top_buckets *more)
{
	more->count = now->count;
	if (before->count != now->count)
		return false;
	for (unsigned i = 0; i < now->count; i++) {
		if (now->n[i] < before->n[i])
			return false;
		more->n[i] = now->n[i] - before->n[i];
	}
	return true;
}

static void latency(const struct wvm_top_buckets *b, struct wvm_top_latency *l)
{
	*l = (struct wvm_top_latency){0, wvm_top_percentile(b, 0.5), wvm_top_percentile(b, 0.99)};
	for (unsigned i = 0; i < b->count; i++)
		l->count = add(l->count, b->n[i]);
}

static bool same_life(const struct wvm_top_sample *before, const struct wvm_top_sample *now)
{
	if (before->gateway != now->gateway || before->node != now->node ||
	    before->boot != now->boot || before->uptime_s > now->uptime_s ||
	    before->monotonic_ns > now->monotonic_ns)
		return false;
	for (unsigned i = 0; i < WVM_TOP_COUNTERS; i++)
		if (before->counter[i] > now->counter[i])
			return false;
	return true;
}

void wvm_top_rates(const struct wvm_top_sample *before, const struct wvm_top_sample *now,
		   struct wvm_top_rates *r)
{
	struct wvm_top_buckets read, write, all;

	*r = (struct wvm_top_rates){0};
	if (!same_life(before, now) || !grown(&before->read, &now->read, &read) ||
	    !grown(&before->write, &now->write, &write)) {
		r->restarted = true;
		return;
	}
	if (before->monotonic_ns == now->monotonic_ns)
		return;
	r->known = true;
	r->interval_s = (double)(now->monotonic_ns - before->monotonic_ns) / 1e9;
	for (unsigned i = 0; i < WVM_TOP_COUNTERS; i++)
		r->per_s[i] = (double)(now->counter[i] - before->counter[i]) / r->interval_s;
	latency(&read, &r->read);
	latency(&write, &r->write);
	all = read.count > write.count ? read : write;
	for (unsigned i = 0; i < read.count && i < write.count; i++)
		all.n[i] = add(read.n[i], write.n[i]);
	latency(&all, &r->all);
}

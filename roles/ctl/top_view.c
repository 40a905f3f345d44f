#include "roles/ctl/top_view.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <string.h>

/* ---- figures ------------------------------------------------------------------------------ */

/* At most 4 digits or digits and a point, and the unit. */
static void scaled(char out[8], double value, double step, const char *units)
{
	size_t unit = 0;

	if (!(value >= 0)) {
		strcpy(out, "-");
		return;
	}
	/* 999.5 would be printed as 1000, and 9.995 as 10.00. */
	while (value >= 999.5 && units[unit + 1]) {
		value /= step;
		unit++;
	}
	if (value >= 999.5)
		snprintf(out, 8, ">999%c", units[unit]);
	else if (units[unit] == ' ')
		snprintf(out, 8,
			 value == 0      ? "0"
			 : value < 9.995 ? "%.2f"
			 : value < 99.95 ? "%.1f"
					 : "%.0f",
			 value);
	else
		snprintf(out, 8, value < 99.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

void wvm_top_figure(char out[8], double value)
{
	if (value >= 1 && value < 999.5 && value == floor(value))
		snprintf(out, 8, "%.0f", value);
	else
		scaled(out, value, 1000, " kMGTPE");
}

void wvm_top_bytes(char out[8], double bytes)
{
	if (bytes == 0)
		strcpy(out, "0");
	else
		scaled(out, bytes / 1024, 1024, "KMGTPE");
}

void wvm_top_time(char out[8], double us)
{
	scaled(out, us, 1000, "ums");
}

void wvm_top_span(char out[8], double s)
{
	static const struct {
		double below, unit;
		char name;
	} units[] = {
		{60, 1, 's'}, {3600, 60, 'm'}, {48 * 3600, 3600, 'h'}, {864e5 * 100, 86400, 'd'}};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (s >= 0 && s < units[i].below) {
			snprintf(out, 8, "%d%c", (int)(s / units[i].unit), units[i].name);
			return;
		}
	strcpy(out, s >= 0 ? ">100d" : "-");
}

/* ---- order -------------------------------------------------------------------------------- */

static const char *const sort_names[] = {"order given", "node", "faults/s", "p99", "drops/s"};

/* Those that say nothing come last. */
static double weight(const struct wvm_top_view *v, const struct wvm_top_target *t)
{
	const struct wvm_top_rates *r = &t->rates;

	switch (v->sort) {
	case WVM_TOP_BY_NODE: return t->now ? -(double)t->now->node : -INFINITY;
	case WVM_TOP_BY_FAULTS:
		return r->per_s[WVM_TOP_FAULTS_READ] + r->per_s[WVM_TOP_FAULTS_WRITE];
	case WVM_TOP_BY_P99: return r->all.p99_us;
	case WVM_TOP_BY_DROPS: return r->per_s[WVM_TOP_DROPS];
	default: return 0;
	}
}

static void put_in_order(const struct wvm_top_view *v, unsigned order[WVM_TOP_TARGETS_MAX])
{
	for (unsigned i = 0; i < v->count; i++) {
		unsigned at = i;

		while (at && weight(v, &v->targets[order[at - 1]]) < weight(v, &v->targets[i])) {
			order[at] = order[at - 1];
			at--;
		}
		order[at] = i;
	}
}

/* ---- text --------------------------------------------------------------------------------- */

/* Of this host the port is enough. */
static void name(char *out, size_t size, const struct wvm_top_target *t)
{
	if (t->ip == INADDR_LOOPBACK)
		snprintf(out, size, "%u", t->port);
	else
		snprintf(out, size, "%u.%u.%u.%u:%u", t->ip >> 24, t->ip >> 16 & 255,
			 t->ip >> 8 & 255, t->ip & 255, t->port);
}

static double silent_s(const struct wvm_top_target *t, uint64_t now_ns)
{
	return now_ns > t->heard_ns ? (double)(now_ns - t->heard_ns) / 1e9 : 0;
}

static const char *why(int failed)
{
	switch (-failed) {
	case ECONNREFUSED: return "nobody listens there";
	case ETIMEDOUT: return "no answer";
	case EPROTO: return "what comes is no answer of a master or gateway";
	default: return strerror(-failed);
	}
}

static bool is_gateway(const struct wvm_top_target *t)
{
	return t->now && t->now->gateway;
}

static const char *silence(const struct wvm_top_target *t)
{
	return t->failed == -EPROTO ? "garbled" : "silent";
}

static void node_id(char *out, size_t size, const struct wvm_top_target *t)
{
	if (!t->now || t->now->gateway)
		snprintf(out, size, "%s", t->now ? "-" : "?");
	else
		snprintf(out, size, "%llu", (unsigned long long)t->now->node);
}

static void print_silent(const struct wvm_top_target *t, int width, uint64_t now_ns, FILE *out)
{
	char address[24], node[24], since[8];

	name(address, sizeof(address), t);
	node_id(node, sizeof(node), t);
	wvm_top_span(since, silent_s(t, now_ns));
	if (!t->failed)
		fprintf(out, "%-*s %4s asking\n", width, address, node);
	else
		fprintf(out, "%-*s %4s %-8s for %s%s: %s\n", width, address, node, silence(t),
			since, t->now ? "" : ", since the start", why(t->failed));
}

static void rate(char out[8], const struct wvm_top_rates *r, enum wvm_top_counter counter)
{
	wvm_top_figure(out, r->known ? r->per_s[counter] : NAN);
}

static void print_master(const struct wvm_top_target *t, int width, FILE *out)
{
	const struct wvm_top_sample *s = t->now;
	const struct wvm_top_latency *l = &t->rates.all;
	char address[24], node[24], up[8], reads[8], writes[8], p50[8], p99[8], held[8], homed[8],
		requests[8], drops[8], running[8], vcpus[24];

	name(address, sizeof(address), t);
	node_id(node, sizeof(node), t);
	wvm_top_span(up, (double)s->uptime_s);
	rate(reads, &t->rates, WVM_TOP_FAULTS_READ);
	rate(writes, &t->rates, WVM_TOP_FAULTS_WRITE);
	rate(drops, &t->rates, WVM_TOP_DROPS);
	wvm_top_time(p50, l->count ? l->p50_us : NAN);
	wvm_top_time(p99, l->count ? l->p99_us : NAN);
	wvm_top_bytes(held, (double)s->held_bytes);
	wvm_top_bytes(homed, (double)s->homed_bytes);
	wvm_top_figure(requests, (double)s->requests);
	wvm_top_figure(running, (double)s->vcpus_running);
	wvm_top_figure(vcpus, (double)s->vcpus);
	fprintf(out, "%-*s %4s %-8.8s %5s %5s %5s %5s %5s %5s %5s %5s %5s ", width, address, node,
		s->state, up, reads, writes, p50, p99, held, homed, requests, drops);
	if (s->has_vcpus)
		fprintf(out, "%s/%s\n", running, vcpus);
	else
		fprintf(out, "-\n");
}

static void print_gateway(const struct wvm_top_target *t, int width, FILE *out)
{
	const struct wvm_top_sample *s = t->now;
	char address[24], up[8], forwarded[8], datagrams[8], waiting[8], pushed[8], drops[8];

	name(address, sizeof(address), t);
	wvm_top_span(up, (double)s->uptime_s);
	rate(forwarded, &t->rates, WVM_TOP_FORWARDED);
	rate(datagrams, &t->rates, WVM_TOP_DATAGRAMS);
	rate(pushed, &t->rates, WVM_TOP_PUSHED_BACK);
	rate(drops, &t->rates, WVM_TOP_DROPS);
	wvm_top_figure(waiting, (double)s->waiting);
	fprintf(out, "%-*s %4s %-8.8s %5s %8s %8s %6s %8s %5s\n", width, address, "-", s->state, up,
		forwarded, datagrams, waiting, pushed, drops);
}

static void print_heading(bool gateways, int width, FILE *out)
{
	if (gateways)
		fprintf(out, "%-*s %4s %-8s %5s %8s %8s %6s %8s %5s\n", width, "GATEWAY", "",
			"STATE", "UP", "FORW/S", "DGRAMS/S", "QUEUED", "PUSHED/S", "DRP/S");
	else
		fprintf(out, "%-*s %4s %-8s %5s %5s %5s %5s %5s %5s %5s %5s %5s %s\n", width,
			"MASTER", "NODE", "STATE", "UP", "RD/S", "WR/S", "P50", "P99", "HELD",
			"HOMED", "REQS", "DRP/S", "VCPU");
}

static void print_table(const struct wvm_top_view *v, bool gateways, int width, uint64_t now_ns,
			FILE *out)
{
	unsigned order[WVM_TOP_TARGETS_MAX], rows = 0;

	put_in_order(v, order);
	for (unsigned i = 0; i < v->count; i++) {
		const struct wvm_top_target *t = &v->targets[order[i]];

		if (is_gateway(t) != gateways)
			continue;
		if (!rows++)
			print_heading(gateways, width, out);
		if (t->failed || !t->now)
			print_silent(t, width, now_ns, out);
		else if (gateways)
			print_gateway(t, width, out);
		else
			print_master(t, width, out);
	}
}

static void print_members(const struct wvm_top_target *t, FILE *out)
{
	const struct wvm_top_sample *s = t->now;
	char address[24], since[8];

	name(address, sizeof(address), t);
	fprintf(out, "\nmembers as node %llu (%s) sees them", (unsigned long long)s->node, address);
	if (!s->watching) {
		fprintf(out, ": it does not watch, %s\n", s->why_not);
		return;
	}
	fprintf(out, "\n%5s %-8s %-8s %-8s %5s %s\n", "NODE", "MEMBER", "LIFE", "STATUS", "SINCE",
		"ADDRESS");
	for (unsigned i = 0; i < s->member_count; i++) {
		const struct wvm_top_member *m = &s->member[i];

		wvm_top_span(since, (double)m->since_ms / 1000);
		fprintf(out, "%5llu %-8s %-8s %-8s %5s %s%s\n", (unsigned long long)m->node,
			m->member, m->heard ? m->life : "?", m->status, since, m->address,
			m->heard ? "" : "  not heard of yet");
	}
	if (s->members_left_off)
		fprintf(out, "and %llu more\n", (unsigned long long)s->members_left_off);
}

void wvm_top_text(const struct wvm_top_view *v, uint64_t now_ns, FILE *out)
{
	unsigned silent = 0;
	int width = 7;

	for (unsigned i = 0; i < v->count; i++) {
		char address[24];

		name(address, sizeof(address), &v->targets[i]);
		width = (int)strlen(address) > width ? (int)strlen(address) : width;
		silent += v->targets[i].failed != 0;
	}
	fprintf(out, "wvm_ctl top: %u asked, %u silent, every %g s, by %s%s\n", v->count, silent,
		v->interval_s, sort_names[v->sort], v->paused ? ", PAUSED" : "");
	print_table(v, false, width, now_ns, out);
	print_table(v, true, width, now_ns, out);
	for (unsigned i = 0; i < v->count; i++) {
		const struct wvm_top_target *t = &v->targets[i];

		if (!t->failed && t->now && t->now->has_members)
			print_members(t, out);
	}
}

/* ---- JSON --------------------------------------------------------------------------------- */

static void set(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

static void set_text(json_t *o, const char *key, const char *value)
{
	json_object_set_new(o, key, json_string(value));
}

static json_t *latency_json(const struct wvm_top_latency *l)
{
	json_t *o = json_object();

	set(o, "count", l->count);
	json_object_set_new(o, "p50", l->count ? json_real(l->p50_us) : json_null());
	json_object_set_new(o, "p99", l->count ? json_real(l->p99_us) : json_null());
	return o;
}

static void set_rates(json_t *o, const struct wvm_top_target *t)
{
	static const char *const names[] = {"faults_read_per_s", "faults_write_per_s",
					    "drops_per_s",       "forwarded_per_s",
					    "datagrams_per_s",   "pushed_back_per_s"};
	const struct wvm_top_rates *r = &t->rates;
	bool gateway = is_gateway(t);
	json_t *latency;

	_Static_assert(sizeof(names) / sizeof(names[0]) == WVM_TOP_COUNTERS, "a name for each");
	for (unsigned i = 0; i < WVM_TOP_COUNTERS; i++) {
		if (i != WVM_TOP_DROPS && gateway != (i >= WVM_TOP_FORWARDED))
			continue;
		json_object_set_new(o, names[i], r->known ? json_real(r->per_s[i]) : json_null());
	}
	json_object_set_new(o, "interval_s", r->known ? json_real(r->interval_s) : json_null());
	json_object_set_new(o, "restarted", json_boolean(r->restarted));
	if (gateway)
		return;
	latency = json_object();
	json_object_set_new(latency, "read", latency_json(&r->read));
	json_object_set_new(latency, "write", latency_json(&r->write));
	json_object_set_new(latency, "all", latency_json(&r->all));
	json_object_set_new(o, "latency_us", latency);
}

static json_t *members_json(const struct wvm_top_sample *s)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < s->member_count; i++) {
		const struct wvm_top_member *m = &s->member[i];
		json_t *one = json_object();

		set(one, "node", m->node);
		set_text(one, "address", m->address);
		set_text(one, "member", m->member);
		set_text(one, "life", m->life);
		set_text(one, "status", m->status);
		json_object_set_new(one, "heard", json_boolean(m->heard));
		set(one, "since_ms", m->since_ms);
		json_array_append_new(list, one);
	}
	return list;
}

static void set_master(json_t *o, const struct wvm_top_sample *s)
{
	set(o, "node", s->node);
	set(o, "boot", s->boot);
	set(o, "held_bytes", s->held_bytes);
	set(o, "homed_bytes", s->homed_bytes);
	set(o, "requests", s->requests);
	if (s->has_vcpus) {
		set(o, "vcpus", s->vcpus);
		set(o, "vcpus_running", s->vcpus_running);
	}
	if (!s->has_members)
		return;
	json_object_set_new(o, "watching", json_boolean(s->watching));
	if (!s->watching)
		set_text(o, "why_not", s->why_not);
	json_object_set_new(o, "members", members_json(s));
	set(o, "members_left_off", s->members_left_off);
}

static json_t *target_json(const struct wvm_top_target *t, uint64_t now_ns)
{
	const struct wvm_top_sample *s = t->now;
	json_t *o = json_object();
	char address[24];

	snprintf(address, sizeof(address), "%u.%u.%u.%u:%u", t->ip >> 24, t->ip >> 16 & 255,
		 t->ip >> 8 & 255, t->ip & 255, t->port);
	set_text(o, "address", address);
	json_object_set_new(o, "answers", json_boolean(!t->failed && s));
	if (s)
		set_text(o, "role", s->gateway ? "gateway" : "master");
	if (t->failed || !s) {
		json_object_set_new(o, "silent_s", json_real(silent_s(t, now_ns)));
		set_text(o, "why", t->failed ? why(t->failed) : "no answer yet");
		if (s && !s->gateway)
			set(o, "node", s->node);
		return o;
	}
	set_text(o, "state", s->state);
	set(o, "uptime_s", s->uptime_s);
	if (s->gateway) {
		set(o, "waiting", s->waiting);
		set(o, "buffers", s->buffers);
	} else {
		set_master(o, s);
	}
	set_rates(o, t);
	return o;
}

json_t *wvm_top_json(const struct wvm_top_view *v, uint64_t now_ns)
{
	json_t *o = json_object(), *list = json_array();

	for (unsigned i = 0; i < v->count; i++)
		json_array_append_new(list, target_json(&v->targets[i], now_ns));
	json_object_set_new(o, "daemons", list);
	return o;
}

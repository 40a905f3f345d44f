/* What the control port says: JSON. The tables may be long, so they are written as they are walked.
 */
#include <arpa/inet.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "roles/gateway/gateway.h"

#define DUMP_MAX 65536u /* routes in one answer; the rest is a number */

static void set(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

static void set_hop(json_t *o, const char *key, struct wvm_hop hop)
{
	char ip[INET_ADDRSTRLEN], text[INET_ADDRSTRLEN + 8];
	struct in_addr in = {htonl(hop.ip)};

	if (!hop.ip)
		return;
	inet_ntop(AF_INET, &in, ip, sizeof(ip));
	snprintf(text, sizeof(text), "%s:%u", ip, hop.port);
	json_object_set_new(o, key, json_string(text));
}

static char *text_of(json_t *o)
{
	char *text = json_dumps(o, JSON_INDENT(1));

	json_decref(o);
	return text;
}

char *wvm_gateway_status(const struct wvm_gateway *g)
{
	json_t *o = json_object(), *routes = json_object(), *rooms = json_object();
	const struct wvm_forward_counters *c = &g->forward.counters;
	unsigned room = wvm_udp_free(g->udp, WVM_LANE_CONTROL);
	char line[128];

	json_object_set_new(o, "role", json_string("gateway"));
	json_object_set_new(o, "version", json_string(WVM_VERSION));
	set(o, "protocol", 31);
	set(o, "uptime_s", (wvm_now_ns() - g->started_ns) / 1000000000);
	set(o, "port", g->options->port);
	set(o, "mtu", g->mtu);
	set(o, "buffers", g->options->buffers);
	set(o, "waiting", room < g->options->buffers ? g->options->buffers - room : 0);
	set_hop(o, "default", g->routes.fallback);
	set_hop(o, "upstream", g->routes.upstream);
	for (unsigned i = 0; i < WVM_ROUTE_CLASSES; i++) {
		set(routes, wvm_route_class_name(i), g->routes.list[i].count);
		set(rooms, wvm_route_class_name(i), g->routes.list[i].room);
	}
	json_object_set_new(o, "routes", routes);
	json_object_set_new(o, "routes_at_most", rooms);
	set(o, "forwarded", c->forwarded);
	set(o, "datagrams_in", c->datagrams_in);
	set(o, "datagrams_out", c->datagrams_out);
	set(o, "pushed_back", c->pushed_back);
	set(o, "strangers", c->strangers);
	wvm_place_print(&g->place, 1, line, sizeof(line));
	for (char *end = line; *end; end++)
		*end = *end == '\n' ? 0 : *end;
	json_object_set_new(o, "shard", json_string(line));
	return text_of(o);
}

char *wvm_gateway_stats(const struct wvm_gateway *g)
{
	json_t *o = json_object(), *f = json_object(), *d = json_object(), *r = json_object();
	json_t *calls = json_object(), *control = json_object();
	const struct wvm_forward_counters *c = &g->forward.counters;
	struct wvm_ring_stats sum = {0};

	set(o, "monotonic_ns", wvm_now_ns());
#define SET(name, text) set(f, #name, c->name);
	WVM_FORWARD_COUNTERS(SET)
#undef SET
	set(f, "learned_full", g->routes.learned_full);
	json_object_set_new(o, "gateway", f);
	for (unsigned i = 1; i < WVM_DROP_REASONS; i++)
		set(d, wvm_drop_name(i), c->drops[i]);
	json_object_set_new(o, "drops", d);
	set(control, "answered", g->control_answered);
	set(control, "unanswered", g->control_unanswered);
	set(control, "bad_magic", g->control_foreign);
	json_object_set_new(o, "control", control);
	wvm_ring_stats_add(&sum, &g->shard->stats);
	for (size_t i = 0; i < wvm_ring_stats_count(); i++)
		set(r, wvm_ring_stats_name(i), wvm_ring_stats_get(&sum, i));
	json_object_set_new(o, "runtime", r);
	for (unsigned i = 0; i < WVM_CALL_KINDS; i++)
		set(calls, wvm_call_name(i), wvm_calls_made(&g->shard->calls, i));
	json_object_set_new(o, "syscalls", calls);
	return text_of(o);
}

static void print_route(FILE *f, bool first, const char *class, const struct wvm_route_range *r)
{
	fprintf(f,
		"%s\n {\"class\": \"%s\", \"first\": %u, \"count\": %u, \"hop\": \"%u.%u.%u.%u:%u\"}",
		first ? "" : ",", class, r->first, r->count, r->hop.ip >> 24, r->hop.ip >> 16 & 255,
		r->hop.ip >> 8 & 255, r->hop.ip & 255, r->hop.port);
}

/* In the order in which they are asked. */
char *wvm_gateway_dump(const struct wvm_gateway *g)
{
	const struct wvm_route_range all[] = {{0, 0, g->routes.fallback},
					      {0, 0, g->routes.upstream}};
	uint32_t listed = 0, left_off = 0;
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fputs("{\"routes\": [", f);
	for (unsigned c = 0; c < WVM_ROUTE_CLASSES; c++) {
		const struct wvm_route_list *l = &g->routes.list[c];

		for (uint32_t i = 0; i < l->count; i++) {
			if (listed == DUMP_MAX)
				left_off++;
			else
				print_route(f, !listed++, wvm_route_class_name(c), &l->at[i]);
		}
	}
	for (unsigned i = 0; i < 2; i++)
		if (all[i].hop.ip)
			print_route(f, !listed++, wvm_route_class_name(WVM_ROUTE_DEFAULT + i),
				    &all[i]);
	fprintf(f, "\n],\n\"left_off\": %u}", left_off);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

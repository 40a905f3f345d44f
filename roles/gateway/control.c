/*
 * The control port of a gateway: orders about routes (shared/control_route.h), answered at once;
 * and questions (shared/control.h), whose answers are texts fetched in parts. Whatever has our
 * magic is answered, what is not known or not possible with a status; the rest is dropped and
 * counted.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/gateway/gateway.h"
#include "shared/control_route.h"

#define ASKERS_MAX 8u /* at the same time; one more, and the oldest one begins anew */

/* A text that an asker gets in parts. */
struct snapshot {
	struct sockaddr_in asker;
	char *text;
	size_t len;
	uint32_t number; /* 0: none */
};

struct wvm_gateway_control {
	struct wvm_gateway *gateway;
	struct wvm_udp *udp;
	struct snapshot snapshots[ASKERS_MAX];
	uint32_t last;
};

static void answer(struct wvm_gateway_control *c, const struct sockaddr_in *to, const void *data,
		   size_t len)
{
	if (wvm_udp_send(c->udp, WVM_LANE_CONTROL, to, 0, data, len))
		c->gateway->control_unanswered++;
	else
		c->gateway->control_answered++;
}

/* ---- orders ---------------------------------------------------------------------------- */

static bool is_self(const struct wvm_gateway_options *o, struct wvm_hop hop)
{
	bool here = o->bind_ip ? hop.ip == o->bind_ip : hop.ip >> 24 == 127;

	return here && hop.port == o->port;
}

/* The vnodes of an order that have an operator's route to somewhere else than it says. */
static uint32_t routed_elsewhere(const struct wvm_routes_table *t, const struct wvm_route_order *o)
{
	const struct wvm_route_list *l = &t->list[WVM_ROUTE_OPERATOR];
	uint32_t end = o->first + o->count, sum = 0;

	for (uint32_t i = 0; i < l->count && l->at[i].first < end; i++) {
		const struct wvm_route_range *r = &l->at[i];
		uint32_t low = r->first > o->first ? r->first : o->first;
		uint32_t high = r->first + r->count < end ? r->first + r->count : end;

		if (low < high && !wvm_hop_same(r->hop, o->hop))
			sum += high - low;
	}
	return sum;
}

static enum wvm_control_status add(struct wvm_gateway *g, const struct wvm_route_order *o,
				   uint32_t *vnodes)
{
	*vnodes = 0;
	if (is_self(g->options, o->hop))
		return WVM_CONTROL_BAD_HOP;
	*vnodes = routed_elsewhere(&g->routes, o);
	if (wvm_route_set(&g->routes, WVM_ROUTE_OPERATOR, o->first, o->count, o->hop))
		return WVM_CONTROL_OK;
	*vnodes = 0;
	return WVM_CONTROL_FULL;
}

static enum wvm_control_status del(struct wvm_gateway *g, const struct wvm_route_order *o,
				   uint32_t *vnodes)
{
	if (!wvm_route_clear(&g->routes, WVM_ROUTE_OPERATOR, o->first, o->count, vnodes)) {
		*vnodes = 0;
		return WVM_CONTROL_FULL;
	}
	return *vnodes ? WVM_CONTROL_OK : WVM_CONTROL_NO_ROUTE;
}

/* Another host speaks for itself only, and only when it is a neighbour already. */
static enum wvm_control_status announce(struct wvm_gateway *g, const struct sockaddr_in *from,
					struct wvm_route_order *o)
{
	uint32_t sender = ntohl(from->sin_addr.s_addr);

	if (!o->hop.ip)
		o->hop.ip = sender;
	if (is_self(g->options, o->hop))
		return WVM_CONTROL_BAD_HOP;
	if (sender >> 24 != 127 && (o->hop.ip != sender || !wvm_route_trusts(&g->routes, o->hop)))
		return WVM_CONTROL_FORBIDDEN;
	return wvm_route_set(&g->routes, WVM_ROUTE_ANNOUNCED, o->first, o->count, o->hop)
		       ? WVM_CONTROL_OK
		       : WVM_CONTROL_FULL;
}

static void take_order(struct wvm_gateway_control *c, const struct sockaddr_in *from,
		       const uint8_t *data, size_t len)
{
	uint8_t out[WVM_ROUTE_ANSWER_BYTES];
	struct wvm_route_order o;
	struct wvm_route_answer a = {.status = (uint16_t)wvm_route_order_decode(data, len, &o)};

	if (!a.status && o.op == WVM_CONTROL_ROUTE_ADD)
		a.status = (uint16_t)add(c->gateway, &o, &a.vnodes);
	else if (!a.status && o.op == WVM_CONTROL_ROUTE_DEL)
		a.status = (uint16_t)del(c->gateway, &o, &a.vnodes);
	else if (!a.status)
		a.status = (uint16_t)announce(c->gateway, from, &o);
	wvm_forward_routes_changed(&c->gateway->forward);
	a.op = o.op;
	a.first = o.first;
	wvm_route_answer_encode(out, &a);
	answer(c, from, out, sizeof(out));
}

/* ---- questions ------------------------------------------------------------------------- */

/* The asker's own, else the oldest. */
static struct snapshot *place_for(struct wvm_gateway_control *c, const struct sockaddr_in *asker)
{
	struct snapshot *oldest = &c->snapshots[0];

	for (unsigned i = 0; i < ASKERS_MAX; i++) {
		struct snapshot *at = &c->snapshots[i];

		if (at->number && at->asker.sin_addr.s_addr == asker->sin_addr.s_addr &&
		    at->asker.sin_port == asker->sin_port)
			return at;
		if (oldest->number &&
		    (!at->number || c->last - at->number > c->last - oldest->number))
			oldest = at;
	}
	return oldest;
}

static const struct snapshot *find(const struct wvm_gateway_control *c, uint32_t number)
{
	for (unsigned i = 0; number && i < ASKERS_MAX; i++)
		if (c->snapshots[i].number == number)
			return &c->snapshots[i];
	return NULL;
}

static uint16_t take_snapshot(struct wvm_gateway_control *c, const struct sockaddr_in *asker,
			      uint16_t op, const struct snapshot **out)
{
	struct snapshot *at = place_for(c, asker);
	char *text;

	switch (op) {
	case WVM_CONTROL_STATUS: text = wvm_gateway_status(c->gateway); break;
	case WVM_CONTROL_STATS: text = wvm_gateway_stats(c->gateway); break;
	case WVM_CONTROL_ROUTE_DUMP: text = wvm_gateway_dump(c->gateway); break;
	case WVM_CONTROL_DRAIN:
	case WVM_CONTROL_JOIN: return WVM_CONTROL_NOT_YET;
	default: return WVM_CONTROL_UNKNOWN;
	}
	c->last += c->last == UINT32_MAX ? 2 : 1;
	free(at->text);
	*at = (struct snapshot){
		.asker = *asker, .text = text, .len = text ? strlen(text) : 0, .number = c->last};
	*out = at;
	return text ? WVM_CONTROL_OK : WVM_CONTROL_FULL;
}

struct question {
	uint16_t op, part;
	uint32_t snapshot;
};

static struct question decode(const uint8_t *data, size_t len)
{
	uint8_t whole[WVM_CONTROL_REQUEST_BYTES] = {0};
	uint32_t snapshot;
	uint16_t op, part;

	memcpy(whole, data, len < sizeof(whole) ? len : sizeof(whole));
	memcpy(&op, whole + 4, 2);
	memcpy(&part, whole + 6, 2);
	memcpy(&snapshot, whole + 8, 4);
	return (struct question){be16toh(op), be16toh(part), be32toh(snapshot)};
}

static void take_question(struct wvm_gateway_control *c, const struct sockaddr_in *from,
			  const uint8_t *data, size_t len)
{
	static const struct snapshot none;
	uint8_t out[WVM_CONTROL_HEADER_BYTES + WVM_CONTROL_PART];
	struct question q = decode(data, len);
	const struct snapshot *is = &none;
	uint16_t status = WVM_CONTROL_OK;
	size_t at = (size_t)q.part * WVM_CONTROL_PART, part = 0;

	if (len != WVM_CONTROL_REQUEST_BYTES)
		status = WVM_CONTROL_BAD_LENGTH;
	else if (!q.part)
		status = take_snapshot(c, from, q.op, &is);
	else if (find(c, q.snapshot))
		is = find(c, q.snapshot);
	else
		status = WVM_CONTROL_EXPIRED;
	if (!status && at < is->len)
		part = is->len - at < WVM_CONTROL_PART ? is->len - at : WVM_CONTROL_PART;
	memcpy(out, &(uint32_t){htobe32(WVM_CONTROL_MAGIC)}, 4);
	memcpy(out + 4, &(uint16_t){htobe16(q.op | WVM_CONTROL_ANSWER)}, 2);
	memcpy(out + 6, &(uint16_t){htobe16(q.part)}, 2);
	memcpy(out + 8, &(uint32_t){htobe32(is->number)}, 4);
	memcpy(out + 12, &(uint16_t){htobe16(status)}, 2);
	memcpy(out + 14,
	       &(uint16_t){
		       htobe16((uint16_t)((is->len + WVM_CONTROL_PART - 1) / WVM_CONTROL_PART))},
	       2);
	if (part)
		memcpy(out + WVM_CONTROL_HEADER_BYTES, is->text + at, part);
	answer(c, from, out, WVM_CONTROL_HEADER_BYTES + part);
}

static void on_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	struct wvm_gateway_control *c = ctx;
	uint32_t magic = 0;

	if (len >= 6)
		memcpy(&magic, data, sizeof(magic));
	/* An answer is not answered: two ports would go on for ever. */
	if (be32toh(magic) != WVM_CONTROL_MAGIC || data[4] & 0x80)
		c->gateway->control_foreign++;
	else if (wvm_route_order_is(data, len))
		take_order(c, from, data, len);
	else
		take_question(c, from, data, len);
}

int wvm_gateway_control_open(struct wvm_gateway_control **out, struct wvm_gateway *g, char *err,
			     size_t err_len)
{
	struct wvm_gateway_control *c = calloc(1, sizeof(*c));
	struct wvm_udp_opts o = {.bind = {.sin_family = AF_INET,
					  .sin_addr.s_addr = htonl(g->options->ctrl_ip),
					  .sin_port = htons(g->options->ctrl_port)},
				 .datagram = on_datagram,
				 .rx_buffers = 8,
				 .tx_buffers = 64,
				 .socket_bytes = 1 << 18};
	void *ctx = c;
	int r;

	if (!c) {
		snprintf(err, err_len, "no memory for the control port");
		return -ENOMEM;
	}
	c->gateway = g;
	*err = 0;
	r = wvm_udp_open(&c->udp, &g->shard, &ctx, 1, &o, err, err_len);
	if (r) {
		free(c);
		return r;
	}
	*out = c;
	return 0;
}

void wvm_gateway_control_close(struct wvm_gateway_control *c)
{
	if (!c)
		return;
	wvm_udp_close(c->udp);
	for (unsigned i = 0; i < ASKERS_MAX; i++)
		free(c->snapshots[i].text);
	free(c);
}

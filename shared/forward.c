#include "shared/forward.h"

#include <string.h>

#include "shared/core/assert.h"
#include "shared/wire.h"

void wvm_forward_init(struct wvm_forward *f, struct wvm_routes_table *routes, uint32_t mtu)
{
	WVM_ASSERT(mtu >= WVM_MTU_MIN && mtu <= WVM_DATAGRAM_MAX);
	*f = (struct wvm_forward){.routes = routes, .mtu = mtu};
	wvm_forward_routes_changed(f);
}

void wvm_forward_routes_changed(struct wvm_forward *f)
{
	f->last_from = (struct wvm_hop){0};
	f->last_trusted = false;
	f->last_src = UINT32_MAX;
}

/* ---- buffers --------------------------------------------------------------------------- */

bool wvm_forward_wants(const struct wvm_forward *f, enum wvm_forward_lane lane)
{
	return !f->lane[lane].spare;
}

void wvm_forward_supply(struct wvm_forward *f, enum wvm_forward_lane lane, uint8_t *buf)
{
	WVM_ASSERT(buf && !f->lane[lane].spare);
	f->lane[lane].spare = buf;
}

static struct wvm_forward_out take_open(struct wvm_forward_queue *q, uint32_t i)
{
	struct wvm_forward_out o = q->open[i];

	q->count--;
	memmove(&q->open[i], &q->open[i + 1], (q->count - i) * sizeof(o));
	return o;
}

static void close_open(struct wvm_forward *f, struct wvm_forward_queue *q, uint32_t i)
{
	WVM_ASSERT(f->out_count < WVM_FORWARD_OUT);
	f->out[f->out_count++] = take_open(q, i);
}

static struct wvm_forward_out *find_open(struct wvm_forward_queue *q, struct wvm_hop hop)
{
	/* The newest is the likeliest: messages to one hop come one after the other. */
	for (uint32_t i = q->count; i-- > 0;)
		if (wvm_hop_same(q->open[i].hop, hop))
			return &q->open[i];
	return NULL;
}

/* Room for len bytes to hop; NULL: the lane is full. */
static uint8_t *place(struct wvm_forward *f, enum wvm_forward_lane lane, struct wvm_hop hop,
		      uint16_t steer, uint32_t len)
{
	struct wvm_forward_queue *q = &f->lane[lane];
	struct wvm_forward_out *o = find_open(q, hop);

	if (!o || o->len + len > f->mtu) {
		if (!q->spare)
			return NULL;
		if (o)
			close_open(f, q, (uint32_t)(o - q->open));
		else if (q->count == WVM_FORWARD_OPEN)
			close_open(f, q, 0);
		o = &q->open[q->count++];
		*o = (struct wvm_forward_out){
			.hop = hop, .buf = q->spare, .steer = steer, .lane = (uint8_t)lane};
		q->spare = NULL;
	}
	o->len += len;
	return o->buf + o->len - len;
}

static void count_out(struct wvm_forward *f, const struct wvm_forward_out *out)
{
	f->counters.datagrams_out++;
	f->counters.bytes_out += out->len;
}

bool wvm_forward_next(struct wvm_forward *f, struct wvm_forward_out *out)
{
	if (!f->out_count)
		return false;
	*out = f->out[0];
	memmove(f->out, f->out + 1, --f->out_count * sizeof(*out));
	count_out(f, out);
	return true;
}

bool wvm_forward_flush(struct wvm_forward *f, struct wvm_forward_out *out)
{
	static const enum wvm_forward_lane order[] = {WVM_FORWARD_PUSH, WVM_FORWARD_CONTROL,
						      WVM_FORWARD_BULK};

	if (wvm_forward_next(f, out))
		return true;
	for (unsigned i = 0; i < WVM_FORWARD_LANES; i++) {
		struct wvm_forward_queue *q = &f->lane[order[i]];

		if (!q->count)
			continue;
		*out = take_open(q, 0);
		count_out(f, out);
		return true;
	}
	return false;
}

/* ---- segments -------------------------------------------------------------------------- */

bool wvm_forward_begin(struct wvm_forward *f, struct wvm_hop from)
{
	if (!wvm_hop_same(f->last_from, from)) {
		f->last_from = from;
		f->last_trusted = wvm_route_trusts(f->routes, from);
		f->last_src = UINT32_MAX;
	}
	if (f->last_trusted)
		f->counters.datagrams_in++;
	else
		f->counters.strangers++;
	return f->last_trusted;
}

/* No room: back to where it came from goes word of it. */
static void push_back(struct wvm_forward *f, struct wvm_hop from, const struct wvm_wire_hop *h,
		      const uint8_t *segment)
{
	uint8_t *at = NULL;
	size_t len;

	if (h->type != WVM_MSG_PUSH_BACK)
		at = place(f, WVM_FORWARD_PUSH, from, 0, WVM_HEADER_BYTES);
	if (!at) {
		f->counters.lost++;
		return;
	}
	len = wvm_wire_push_back(at, segment);
	WVM_ASSERT(len == WVM_HEADER_BYTES);
	f->counters.pushed_back++;
}

static void pass_on(struct wvm_forward *f, struct wvm_hop from, const struct wvm_wire_hop *h,
		    const uint8_t *segment, uint32_t len)
{
	enum wvm_forward_lane lane = h->qos == WVM_QOS_BULK ? WVM_FORWARD_BULK
							    : WVM_FORWARD_CONTROL;
	const struct wvm_hop *hop = wvm_route_find(f->routes, h->dst, NULL);
	uint8_t *at;

	if (!hop) {
		f->counters.no_route++;
	} else if (wvm_hop_same(*hop, from)) {
		f->counters.loops++;
	} else if (!h->hops) {
		f->counters.hops_used_up++;
	} else if (len > f->mtu) {
		f->counters.too_long++;
	} else if ((at = place(f, lane, *hop, h->steer, len)) == NULL) {
		push_back(f, from, h, segment);
	} else {
		memcpy(at, segment, len);
		at[WVM_WIRE_HOPS_OFFSET]--;
		f->counters.forwarded++;
	}
}

/*
 * The checksum is the receiver's to look at, and most segments have nothing new to say. But a way
 * that is learned from a damaged one would lead others astray. False: it is damaged.
 */
static bool learn(struct wvm_forward *f, struct wvm_hop from, uint32_t src, const uint8_t *segment)
{
	if (wvm_route_is_news(f->routes, src, from)) {
		if (!wvm_wire_intact(segment))
			return false;
		f->counters.learned += wvm_route_learn(f->routes, src, from);
	}
	f->last_src = src;
	return true;
}

size_t wvm_forward_segment(struct wvm_forward *f, struct wvm_hop from, const uint8_t *data,
			   size_t len)
{
	struct wvm_wire_hop h;
	size_t segment, consumed;
	enum wvm_drop reason = wvm_wire_peek(data, len, &h, &segment, &consumed);

	WVM_ASSERT(f->last_trusted && wvm_hop_same(f->last_from, from));
	WVM_ASSERT(!f->out_count);
	f->counters.segments++;
	if (reason) {
		f->counters.drops[reason]++;
		return consumed;
	}
	if (h.src != f->last_src && !learn(f, from, h.src, data)) {
		f->counters.drops[WVM_DROP_CRC]++;
		return consumed;
	}
	pass_on(f, from, &h, data, (uint32_t)segment);
	return consumed;
}

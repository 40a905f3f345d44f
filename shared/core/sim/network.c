/*
 * The network. Every message passes the real codec, so that a datagram that
 * was damaged on its way meets the real checksum.
 */
#include <string.h>

#include "shared/core/sim/sim.h"
#include "shared/wire.h"

/* ---- on the way ------------------------------------------------------------------------ */

static void flip(struct sim_event *e, uint64_t bit)
{
	e->datagram[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/*
 * Damage that a CRC-32C finds in every case, for these lengths: an odd number
 * of bits, two bits, what lies within four bytes, and lengths (which the header
 * states). What is wilder passes once in 2^32, and says nothing about the code.
 */
static void damage(struct sim *s, struct sim_event *e)
{
	uint64_t bits = e->bytes * 8u, at;

	switch (sim_rnd(s) % 5) {
	case 0: flip(e, sim_rnd(s) % bits); return;
	case 1:
		at = sim_rnd(s) % bits;
		flip(e, at);
		flip(e, (at + 1 + sim_rnd(s) % (bits - 1)) % bits);
		return;
	case 2:
		for (uint32_t i = 0; i < 3; i++)
			flip(e, sim_rnd(s) % bits);
		return;
	case 3:
		at = sim_rnd(s) % (e->bytes / 4) * 4;
		for (uint32_t i = 0; i < 4; i++)
			e->datagram[at + i] ^= (uint8_t)sim_rnd(s);
		return;
	default: e->bytes = (uint32_t)(sim_rnd(s) % e->bytes); return;
	}
}

static struct sim_event *copy_of(struct sim *s, const struct sim_event *from)
{
	struct sim_event *e = sim_event_new(s, SIM_EV_MESSAGE, from->large);

	e->node = from->node;
	e->bytes = from->bytes;
	e->index = from->index;
	e->grants = from->grants;
	e->number = from->number;
	memcpy(e->datagram, from->datagram, from->bytes);
	return e;
}

/* Takes e. */
static void deliver_later(struct sim *s, struct sim_event *e, uint32_t from,
			  const struct wvm_msg *msg, const char *fate)
{
	uint64_t delay = s->config.delay_ns + sim_rnd(s) % (s->config.delay_ns / 4 + 1);

	if (sim_chance(s, s->config.reorder_ppm)) {
		s->report.overtaken++;
		delay += sim_rnd(s) % (s->config.reorder_ns + 1);
		fate = *fate ? fate : "late";
	}
	if (sim_chance(s, s->config.corrupt_ppm)) {
		s->report.corrupted++;
		e->original = copy_of(s, e);
		damage(s, e);
		fate = "CORRUPTED";
	}
	if (s->config.trace)
		sim_chart_send(s, e->number, from, e->node, msg, fate);
	sim_event_post(s, e, s->report.now_ns + delay);
}

static bool is_cut(const struct sim *s, uint32_t from, uint32_t to)
{
	return s->nodes[from].cut || s->nodes[to].cut || s->nodes[from].cut_to[to] ||
	       s->cuts[from][to];
}

static void transmit(struct sim *s, uint32_t from, uint32_t to, const struct wvm_msg *msg,
		     const uint8_t *payload)
{
	bool cut = is_cut(s, from, to);
	struct sim_event *e;

	s->report.messages++;
	s->message++;
	if (cut || sim_chance(s, s->config.loss_ppm)) {
		s->report.lost++;
		if (s->config.trace)
			sim_chart_send(s, s->message, from, to, msg, cut ? "CUT" : "LOST");
		return;
	}
	e = sim_event_new(s, SIM_EV_MESSAGE, msg->payload_len > 0);
	e->node = to;
	e->index = from;
	e->grants = msg->type == WVM_MSG_MEM_READ || msg->type == WVM_MSG_MEM_ACQUIRE ||
		    msg->type == WVM_MSG_MEM_ACK;
	e->number = s->message;
	e->bytes = (uint32_t)wvm_wire_encode(e->datagram, e->large ? SIM_LARGE : SIM_SMALL, msg,
					     payload);
	if (!e->bytes) {
		sim_failed(s, "node %u sent a %s that is no message: %s", from,
			   wvm_msg_name(msg->type), wvm_drop_name(wvm_wire_check(msg)));
		sim_event_free(s, e);
		return;
	}
	if (sim_chance(s, s->config.duplicate_ppm)) {
		s->report.doubled++;
		deliver_later(s, copy_of(s, e), from, msg, "copy");
	}
	if (sim_chance(s, s->config.ancient_ppm)) {
		struct sim_event *old = copy_of(s, e);

		s->report.doubled++;
		sim_event_post(s, old, s->report.now_ns + sim_rnd(s) % (s->config.ancient_ns + 1));
		if (s->config.trace)
			sim_chart_send(s, e->number, from, to, msg, "ancient copy");
	}
	deliver_later(s, e, from, msg, "");
}

/* Sends msg, with a page in as many segments as it needs, or none (page NULL). */
void sim_send(struct sim *s, uint32_t from, uint32_t to, struct wvm_msg *msg, const uint8_t *page)
{
	if (!page) {
		transmit(s, from, to, msg, NULL);
		return;
	}
	msg->seg_total = WVM_PAGE_BYTES;
	for (uint32_t at = 0; at < WVM_PAGE_BYTES; at += SIM_SEGMENT) {
		uint32_t left = WVM_PAGE_BYTES - at;

		msg->seg_offset = at;
		msg->payload_len = (uint16_t)(left < SIM_SEGMENT ? left : SIM_SEGMENT);
		transmit(s, from, to, msg, page + at);
	}
}

/* What is no page, in one segment. */
void sim_send_bytes(struct sim *s, uint32_t from, uint32_t to, const struct wvm_msg *msg,
		    const uint8_t *bytes)
{
	transmit(s, from, to, msg, bytes);
}

/* ---- arrival --------------------------------------------------------------------------- */

static bool same_fields(const struct wvm_msg *a, const struct wvm_msg *b)
{
	return a->type == b->type && a->flags == b->flags && a->qos == b->qos &&
	       a->node_state == b->node_state && a->vm_id == b->vm_id &&
	       a->payload_len == b->payload_len && a->steer == b->steer &&
	       a->reply_steer == b->reply_steer && a->epoch == b->epoch && a->src == b->src &&
	       a->dst == b->dst && a->seg_offset == b->seg_offset && a->seg_total == b->seg_total &&
	       a->request == b->request && a->gpa == b->gpa && a->version == b->version &&
	       a->grant == b->grant;
}

/*
 * A damaged datagram that was taken all the same. Only the hops that are left
 * may differ: they are outside the checksum, since every hop changes them.
 */
static void check_taken(struct sim *s, const struct sim_event *e, const struct wvm_msg *msg,
			const uint8_t *payload)
{
	const struct sim_event *o = e->original;
	const uint8_t *sent_payload;
	struct wvm_msg sent = {0};
	size_t used;

	if (wvm_wire_decode(o->datagram, o->bytes, &sent, &sent_payload, &used) ||
	    !same_fields(msg, &sent) || memcmp(payload, sent_payload, msg->payload_len))
		sim_failed(s, "message %llu, a %s, was damaged on its way and taken",
			   (unsigned long long)e->number, wvm_msg_name(sent.type));
	s->report.corrupted_hops++;
}

/* As roles/master does it: segment by segment, and nothing behind a bad one. */
void sim_receive(struct sim *s, uint32_t node, struct sim_event *e)
{
	const uint8_t *at = e->datagram, *end = at + e->bytes, *payload;
	enum wvm_drop drop = WVM_DROP_SHORT;
	struct wvm_msg msg;
	size_t used;

	for (; at < end; at += used) {
		drop = wvm_wire_decode(at, (size_t)(end - at), &msg, &payload, &used);
		if (drop)
			break;
		if (e->original)
			check_taken(s, e, &msg, payload);
		s->report.steps++;
		sim_touch(s, sim_page_of(msg.gpa >> WVM_PAGE_SHIFT));
		if (msg.type == WVM_MSG_WRITE_BACK_ACK)
			sim_check_acknowledged(s, node, &msg);
		if (msg.type == WVM_MSG_WRITE_BACK)
			sim_backup_written_back(s, node, &msg);
		drop = wvm_core_message(s->nodes[node].core, s->report.now_ns, &msg, payload);
		sim_note(s, node, sim_page_of(msg.gpa >> WVM_PAGE_SHIFT), "#%llu %s%s",
			 (unsigned long long)e->number, drop ? "dropped: " : "arrives",
			 drop ? wvm_drop_name(drop) : "");
		drop = WVM_DROP_NONE;
	}
	if (!drop)
		return;
	if (!e->original)
		sim_failed(s, "message %llu arrived as it was sent and is refused: %s",
			   (unsigned long long)e->number, wvm_drop_name(drop));
	s->report.corrupted_caught++;
	sim_note(s, node, SIM_NO_PAGE, "#%llu refused: %s", (unsigned long long)e->number,
		 wvm_drop_name(drop));
}

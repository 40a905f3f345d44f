#include "shared/membership.h"

#include <errno.h>

#include "shared/core/assert.h"
#include "shared/wire.h"

void wvm_membership_init(struct wvm_membership *m, const struct wvm_membership_ops *ops, void *ctx,
			 void *memory, uint32_t room, uint32_t mtu,
			 const struct wvm_gossip_self *self,
			 const struct wvm_epoch_durable *durable, uint64_t seed, uint64_t now_ns)
{
	struct wvm_gossip_self all = *self;

	*m = (struct wvm_membership){
		.ops = ops, .ctx = ctx, .self = self->node, .told = durable->current.epoch};
	wvm_gossip_defaults(&m->config);
	if (mtu < m->config.mtu)
		m->config.mtu = mtu;
	all.first = 0;
	all.count = WVM_NODE_MAX;
	all.tier = all.top = 0;
	all.life = WVM_NODE_SHADOW;
	all.epoch = durable->current.epoch;
	m->gossip = wvm_gossip_init(memory, room, &m->config, &all, seed, now_ns);
	wvm_epoch_init(&m->epoch, self->node, seed, durable);
}

bool wvm_membership_add(struct wvm_membership *m, uint32_t node, uint64_t now_ns)
{
	struct wvm_hop at;
	struct wvm_gossip_entry e = {.node = node,
				     .incarnation = 1,
				     .status = WVM_GOSSIP_ALIVE,
				     .life = WVM_NODE_SHADOW};

	if (!m->ops->where(m->ctx, node, &at))
		return false;
	e.ip = at.ip;
	e.port = at.port;
	return wvm_gossip_add(m->gossip, &e, now_ns);
}

void wvm_membership_keep(struct wvm_membership *m, const struct wvm_epoch_record *records,
			 uint32_t count)
{
	wvm_epoch_keep(&m->epoch, records, count);
}

/* ---- sending --------------------------------------------------------------------------- */

/* The payload lies behind the room for the header. */
static bool send(struct wvm_membership *m, uint32_t node, uint8_t type, uint8_t flags,
		 uint8_t bytes[WVM_MEMBERSHIP_DATAGRAM], size_t payload)
{
	struct wvm_msg msg = {.type = type,
			      .flags = flags,
			      .qos = WVM_QOS_CONTROL,
			      .node_state = m->gossip->self.life,
			      .hops = WVM_HOPS_MAX,
			      .payload_len = (uint16_t)payload,
			      .epoch = m->gossip->self.epoch,
			      .src = m->self,
			      .dst = node,
			      .seg_total = wvm_wire_total((uint32_t)payload)};
	struct wvm_hop to;
	size_t len;

	if (!m->ops->where(m->ctx, node, &to)) {
		m->counters.unsent++;
		return false;
	}
	len = wvm_wire_encode(bytes, WVM_MEMBERSHIP_DATAGRAM, &msg, bytes + WVM_HEADER_BYTES);
	WVM_ASSERT(len == WVM_HEADER_BYTES + payload);
	if (m->ops->send(m->ctx, node, &to, bytes, len))
		return true;
	m->counters.unsent++;
	return false;
}

static bool is_answer(uint8_t kind)
{
	return kind == WVM_GOSSIP_ACK || kind == WVM_GOSSIP_NACK;
}

static void send_gossip(struct wvm_membership *m, const struct wvm_gossip_action *a)
{
	uint8_t bytes[WVM_MEMBERSHIP_DATAGRAM];
	size_t len = wvm_gossip_encode(bytes + WVM_HEADER_BYTES, &a->msg);

	m->counters.gossip_sent += send(m, a->node, (uint8_t)wvm_gossip_type(a->msg.kind),
					is_answer(a->msg.kind) ? WVM_MSG_ANSWER : 0, bytes, len);
}

static void send_ballot(struct wvm_membership *m, const struct wvm_epoch_action *a)
{
	uint8_t bytes[WVM_MEMBERSHIP_DATAGRAM];

	wvm_epoch_encode(bytes + WVM_HEADER_BYTES, &a->msg);
	m->counters.ballots_sent += send(m, a->node, WVM_MSG_BALLOT, 0, bytes, WVM_EPOCH_MSG_BYTES);
}

/* ---- actions --------------------------------------------------------------------------- */

/* Up to the next SAVE: what follows it waits until that is done. */
static void drain_epoch(struct wvm_membership *m)
{
	struct wvm_epoch_action a;

	while (!m->saving && wvm_epoch_next(&m->epoch, &a)) {
		switch (a.act) {
		case WVM_EPOCH_SAVE:
			m->saving = true;
			m->ops->save(m->ctx, &m->epoch.d);
			break;
		case WVM_EPOCH_LEARNT:
			m->told = a.record.epoch;
			m->ops->learnt(m->ctx, &a.record, a.verdict);
			break;
		case WVM_EPOCH_BEHIND: m->ops->behind(m->ctx, a.node, a.epoch); break;
		case WVM_EPOCH_SEND: send_ballot(m, &a); break;
		}
	}
}

static void drain_gossip(struct wvm_membership *m, uint64_t now_ns)
{
	struct wvm_gossip_action a;

	while (wvm_gossip_next(m->gossip, &a)) {
		switch (a.act) {
		case WVM_GOSSIP_NOTE: m->ops->note(m->ctx, &a, now_ns); break;
		case WVM_GOSSIP_EPOCH:
			m->heard = a.epoch;
			m->heard_of = a.node;
			break;
		case WVM_GOSSIP_SEND: send_gossip(m, &a); break;
		}
	}
}

/* What one machine learns is an input of the other. Each epoch goes each way once, so it ends. */
static void drain(struct wvm_membership *m, uint64_t now_ns)
{
	for (;;) {
		drain_epoch(m);
		drain_gossip(m, now_ns);
		if (m->told > m->gossip->self.epoch) {
			wvm_gossip_epoch(m->gossip, m->told, now_ns);
		} else if (m->heard && !m->saving) {
			wvm_epoch_heard(&m->epoch, m->heard_of, m->heard, now_ns);
			m->heard = 0;
		} else {
			return;
		}
	}
}

void wvm_membership_life(struct wvm_membership *m, enum wvm_node_state life, uint64_t now_ns)
{
	wvm_gossip_announce(m->gossip, life, now_ns);
	drain(m, now_ns);
}

void wvm_membership_busy(struct wvm_membership *m, bool busy)
{
	wvm_gossip_busy(m->gossip, busy);
}

void wvm_membership_saved(struct wvm_membership *m, uint64_t now_ns)
{
	WVM_ASSERT(m->saving);
	m->saving = false;
	m->counters.saves++;
	drain(m, now_ns);
}

int wvm_membership_wish(struct wvm_membership *m, const struct wvm_epoch_record *record,
			uint64_t now_ns)
{
	int r;

	if (m->saving || m->epoch.wish.epoch)
		return -EBUSY;
	r = wvm_epoch_wish(&m->epoch, record, now_ns) ? 0 : -EINVAL;
	drain(m, now_ns);
	return r;
}

int wvm_membership_install(struct wvm_membership *m, const struct wvm_epoch_record *record,
			   uint64_t now_ns)
{
	int r;

	if (m->saving)
		return -EBUSY;
	r = wvm_epoch_install(&m->epoch, record, now_ns) ? 0 : -EINVAL;
	drain(m, now_ns);
	return r;
}

/* ---- what comes ------------------------------------------------------------------------ */

bool wvm_membership_takes(uint8_t type)
{
	return type >= WVM_MSG_HEARTBEAT && type <= WVM_MSG_BALLOT;
}

/* Why what is said of a node's address is not believed. */
static enum wvm_drop misplaced(const struct wvm_membership *m, uint32_t node,
			       const struct wvm_hop *said)
{
	struct wvm_hop at;

	if (!m->ops->where(m->ctx, node, &at))
		return WVM_DROP_NODE;
	return wvm_hop_same(at, *said) ? WVM_DROP_NONE : WVM_DROP_SOURCE;
}

static enum wvm_drop check_gossip(const struct wvm_membership *m, const struct wvm_msg *msg,
				  const struct wvm_gossip_msg *g)
{
	enum wvm_drop reason = misplaced(m, msg->src,
					 &(struct wvm_hop){.ip = g->ip, .port = g->port});

	if (msg->type != wvm_gossip_type(g->kind))
		return WVM_DROP_TYPE;
	if (msg->flags != (is_answer(g->kind) ? WVM_MSG_ANSWER : 0))
		return WVM_DROP_FLAGS;
	for (uint16_t i = 0; i < g->count && !reason; i++)
		reason = misplaced(
			m, g->entry[i].node,
			&(struct wvm_hop){.ip = g->entry[i].ip, .port = g->entry[i].port});
	return reason;
}

static enum wvm_drop take_gossip(struct wvm_membership *m, const struct wvm_msg *msg,
				 const uint8_t *payload, uint64_t now_ns)
{
	struct wvm_gossip_msg g;
	enum wvm_drop reason;

	if (!wvm_gossip_decode(&g, payload, msg->payload_len))
		return WVM_DROP_SEGMENT;
	reason = check_gossip(m, msg, &g);
	if (reason)
		return reason;
	reason = wvm_gossip_message(m->gossip, msg->src, &g, now_ns);
	m->counters.gossip += !reason;
	return reason;
}

static enum wvm_drop take_ballot(struct wvm_membership *m, const struct wvm_msg *msg,
				 const uint8_t *payload, uint64_t now_ns)
{
	struct wvm_epoch_msg e;
	enum wvm_drop reason;

	if (msg->flags)
		return WVM_DROP_FLAGS;
	if (!wvm_epoch_decode(&e, payload, msg->payload_len))
		return WVM_DROP_SEGMENT;
	if (m->saving) {
		m->counters.busy++;
		return WVM_DROP_ROOM;
	}
	reason = wvm_epoch_message(&m->epoch, msg->src, &e, now_ns);
	m->counters.ballots += !reason;
	return reason;
}

static enum wvm_drop take(struct wvm_membership *m, const struct wvm_hop *from,
			  const struct wvm_msg *msg, const uint8_t *payload, uint64_t now_ns)
{
	enum wvm_drop reason;

	if (!wvm_membership_takes(msg->type))
		return WVM_DROP_TYPE;
	if (msg->dst != m->self || msg->src == m->self)
		return WVM_DROP_NODE;
	reason = misplaced(m, msg->src, from);
	if (reason)
		return reason;
	if (msg->seg_total != wvm_wire_total(msg->payload_len))
		return WVM_DROP_SEGMENT;
	if (msg->type == WVM_MSG_BALLOT)
		return take_ballot(m, msg, payload, now_ns);
	return take_gossip(m, msg, payload, now_ns);
}

enum wvm_drop wvm_membership_segment(struct wvm_membership *m, const struct wvm_hop *from,
				     const struct wvm_msg *msg, const uint8_t *payload,
				     uint64_t now_ns)
{
	enum wvm_drop reason = take(m, from, msg, payload, now_ns);

	m->counters.received++;
	m->counters.drops[reason] += reason != WVM_DROP_NONE;
	drain(m, now_ns);
	return reason;
}

enum wvm_drop wvm_membership_datagram(struct wvm_membership *m, const struct wvm_hop *from,
				      const uint8_t *data, size_t len, uint64_t now_ns)
{
	const uint8_t *payload;
	struct wvm_msg msg;
	size_t consumed;
	enum wvm_drop reason = wvm_wire_decode(data, len, &msg, &payload, &consumed);

	if (!reason && consumed == len)
		return wvm_membership_segment(m, from, &msg, payload, now_ns);
	reason = reason ? reason : WVM_DROP_LENGTH;
	m->counters.received++;
	m->counters.drops[reason]++;
	return reason;
}

/* ---- time ------------------------------------------------------------------------------ */

uint64_t wvm_membership_deadline(const struct wvm_membership *m)
{
	uint64_t gossip = wvm_gossip_deadline(m->gossip);
	uint64_t epoch = m->saving ? UINT64_MAX : wvm_epoch_deadline(&m->epoch);

	return gossip < epoch ? gossip : epoch;
}

void wvm_membership_tick(struct wvm_membership *m, uint64_t now_ns)
{
	if (wvm_gossip_deadline(m->gossip) <= now_ns)
		wvm_gossip_tick(m->gossip, now_ns);
	if (!m->saving && wvm_epoch_deadline(&m->epoch) <= now_ns)
		wvm_epoch_tick(&m->epoch, now_ns);
	drain(m, now_ns);
}

/* ---- names ----------------------------------------------------------------------------- */

static const char *name_of(const char *const *names, unsigned count, unsigned i)
{
	return i < count && names[i] ? names[i] : "unknown";
}

const char *wvm_gossip_status_name(uint8_t status)
{
	static const char *const names[WVM_GOSSIP_STATUSES] = {[WVM_GOSSIP_ALIVE] = "ALIVE",
							       [WVM_GOSSIP_SUSPECT] = "SUSPECT",
							       [WVM_GOSSIP_DEAD] = "DEAD"};

	return name_of(names, WVM_GOSSIP_STATUSES, status);
}

const char *wvm_node_state_name(uint8_t state)
{
	static const char *const names[WVM_NODE_STATES] = {
		[WVM_NODE_SHADOW] = "SHADOW",   [WVM_NODE_WARMING] = "WARMING",
		[WVM_NODE_ACTIVE] = "ACTIVE",   [WVM_NODE_DRAINING] = "DRAINING",
		[WVM_NODE_OFFLINE] = "OFFLINE", [WVM_NODE_LOST] = "LOST"};

	return name_of(names, WVM_NODE_STATES, state);
}

const char *wvm_epoch_phase_name(uint8_t phase)
{
	static const char *const names[] = {[WVM_EPOCH_IDLE] = "idle",
					    [WVM_EPOCH_PREPARING] = "preparing",
					    [WVM_EPOCH_ACCEPTING] = "accepting",
					    [WVM_EPOCH_BACKING_OFF] = "backing off"};

	return name_of(names, sizeof(names) / sizeof(names[0]), phase);
}

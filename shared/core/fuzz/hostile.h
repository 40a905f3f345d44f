/*
 * One core among hostile members: what they say, with ids and versions that mean something, and
 * what time does.
 */
#ifndef WVM_FUZZ_HOSTILE_H
#define WVM_FUZZ_HOSTILE_H

#include "shared/core/bytes.h"
#include "shared/core/fuzz/node.h"

#define SELF 1u
#define POOL 16u

static struct node node;

/* Numbers that were on the wire lately: what a hostile member knows. */
static struct pool {
	uint64_t value[POOL];
	unsigned next;
} ids, grants, versions;
static uint64_t counter; /* of the hostile members' own request ids */

static void learn(struct pool *p, uint64_t value)
{
	p->value[p->next++ % POOL] = value;
}

static void node_send(struct node *n, uint32_t member, const struct wvm_msg *msg,
		      const uint8_t *page)
{
	learn(&ids, msg->request);
	learn(msg->grant ? &grants : &ids, msg->grant ? msg->grant : msg->request);
	learn(&versions, msg->version);
}

static uint64_t pick(struct fuzz_in *in, const struct pool *p)
{
	uint8_t how = fuzz_u8(in);
	uint64_t known = p->value[(p->next - 1 - how % POOL) % POOL];

	switch (how / POOL) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
	case 5:
	case 6:
	case 7:
	case 8: return known;
	case 9: return known + 1;
	case 10: return known - 1;
	case 11: return (uint64_t)EPOCH << 32 | how % POOL;
	case 12: return how % POOL;
	case 13: return UINT64_MAX - how % POOL;
	case 14: return fuzz_u64(in);
	default: return wvm_request_id((uint16_t)(how % 4), how >> 2 & 1, fuzz_u16(in));
	}
}

/* Of a request of theirs: mostly the next one, as the window of ids wants it. */
static uint64_t pick_request(struct fuzz_in *in)
{
	uint8_t how = fuzz_u8(in);

	if (how < 160)
		return wvm_request_id(3, 0, counter += 1 + how % 4);
	if (how < 180)
		return wvm_request_id(3, 0, counter - how % 8);
	if (how < 200)
		return wvm_request_id((uint16_t)(how % 4), how % 3, counter += 5000);
	return pick(in, &ids);
}

static bool from_requester(uint8_t type)
{
	return type == WVM_MSG_MEM_READ || type == WVM_MSG_MEM_ACQUIRE;
}

/* A whole page, one of its segments at several sizes, or instead a flag. */
static void pick_payload(struct fuzz_in *in, struct wvm_msg *m)
{
	static const uint16_t sizes[] = {4096, 1408, 1024, 512};
	uint8_t how = fuzz_u8(in);
	uint16_t size = sizes[how & 3];

	m->flags = how >> 3 & 1 ? fuzz_u8(in) : 0;
	if (how >> 2 & 1) {
		m->flags |= how & 1 ? WVM_MSG_ZERO : WVM_MSG_HELD;
		return;
	}
	m->seg_total = WVM_PAGE_BYTES;
	m->seg_offset = (how >> 4) * (uint32_t)size;
	if (m->seg_offset >= WVM_PAGE_BYTES)
		m->seg_offset = 0;
	m->payload_len = (uint16_t)(WVM_PAGE_BYTES - m->seg_offset < size
					    ? WVM_PAGE_BYTES - m->seg_offset
					    : size);
}

/* What is held of pages of a unit: mostly as a holder says it. */
static void pick_holding(struct fuzz_in *in, struct wvm_msg *m, uint8_t *at)
{
	uint8_t how = fuzz_u8(in), mine;
	uint32_t len = 0, count = how % 4, index = 0;

	if (how >> 4 == 15)
		count = 16 + how % 4;
	if (how & 8) {
		mine = fuzz_u8(in);
		for (uint32_t i = 0; i < WVM_UNIT_WORDS; i++, len += 8)
			wvm_store64(at + len, i ? (mine & 8 ? UINT64_MAX : 0) : mine & ~8u);
	}
	for (uint32_t i = 0; i < count; i++) {
		uint8_t page = fuzz_u8(in);

		index += page >> 4 == 15 ? fuzz_u16(in) : page >> 4 & 3;
		wvm_store16(at + len, (uint16_t)index++);
		wvm_store16(at + len + 2, page & 7);
		wvm_store64(at + len + 4, pick(in, &versions));
		wvm_store64(at + len + 12, pick(in, page & 8 ? &ids : &grants));
		len += WVM_HOLDING_PAGE;
	}
	if (how >> 4 == 14)
		len -= len ? fuzz_u8(in) % len : 0;
	m->payload_len = (uint16_t)len;
	m->seg_total = (len + WVM_SEGMENT_UNIT - 1) & ~(WVM_SEGMENT_UNIT - 1);
	m->grant = how & 8;
}

static bool has_page(uint8_t type)
{
	return type == WVM_MSG_MEM_ACK || type == WVM_MSG_WRITE_BACK || type == WVM_MSG_BACKUP;
}

/* One of these types. */
static void message(struct fuzz_in *in, const uint8_t *types, size_t count)
{
	static uint8_t holding[WVM_HOLDING_BYTES + 2 * WVM_HOLDING_PAGE];
	uint8_t who = fuzz_u8(in), what = fuzz_u8(in);
	uint32_t member = who % (MEMBERS - 1), page = what / 16 % 8;
	struct wvm_msg m = {.type = types[what % count],
			    .hops = 1,
			    .vm_id = VM_ID,
			    .epoch = node.core->params.epoch,
			    .dst = member_list[SELF].first_vnode + (who >> 5) % 2,
			    .steer = 3,
			    .reply_steer = fuzz_u8(in)};
	uint8_t *payload;

	member += member >= SELF;
	m.src = member_list[member].first_vnode + (who >> 6) % member_list[member].vnodes;
	m.gpa = (page < PAGES ? core_page(page) : VM_PAGES - 7 + page) << WVM_PAGE_SHIFT;
	m.request = from_requester(m.type) ? pick_request(in) : pick(in, &ids);
	if (has_page(m.type))
		pick_payload(in, &m);
	else
		m.flags = who >> 7 ? fuzz_u8(in) : 0;
	/* The one answer among these has no page. */
	if (m.type == WVM_MSG_BACKUP && m.flags & WVM_MSG_ANSWER) {
		m.flags &= (uint8_t)~WVM_MSG_ZERO;
		m.payload_len = 0;
		m.seg_total = m.seg_offset = 0;
	}
	if (m.type == WVM_MSG_HOLDING && !(m.flags & WVM_MSG_ANSWER))
		pick_holding(in, &m, holding);
	m.version = pick(in, &versions);
	if (m.type == WVM_MSG_HOLDING ? m.grant != 0 : !from_requester(m.type))
		m.grant = pick(in, what & 0x80 ? &ids : &grants);
	if (wvm_wire_check(&m))
		return;
	payload = malloc(m.payload_len);
	memset(payload, fuzz_u8(in), m.payload_len);
	if (m.type == WVM_MSG_HOLDING)
		memcpy(payload, holding, m.payload_len);
	/* A demand of theirs is in the same window as their requests. */
	if (!from_requester(m.type))
		learn(&ids, m.request);
	learn(&grants, m.request);
	wvm_core_message(node.core, node.now_ns, &m, m.payload_len ? payload : NULL);
	node_drain(&node);
	free(payload);
}

static void pass_by(uint8_t how)
{
	static const uint64_t steps[] = {0,      1000,    50000,    100000,
					 6 * MS, 50 * MS, 500 * MS, 2600 * MS};

	node_tick(&node, node.now_ns + steps[how % 8]);
}

/* All are silent now: everybody who waits gets an answer, be it the deadline's. */
static void settle(void)
{
	uint64_t end = node.now_ns + 2 * node.params.times.deadline_ns + 1000 * MS;

	while (wvm_core_deadline(node.core) <= end)
		node_tick(&node, wvm_core_deadline(node.core) > node.now_ns
					 ? wvm_core_deadline(node.core)
					 : node.now_ns);
	for (uint32_t i = 0; i < PAGES; i++)
		FUZZ_CHECK(!(node.wait_read[i] | node.wait_write[i] | node.asked[i]) &&
				   !node.held[core_page(i)].request,
			   "page %u is waited for without end", i);
}

static const struct wvm_core_limits tight = {.requests = 3,
					     .txns = 2,
					     .waiting = 2,
					     .demands = 2,
					     .partials = 2,
					     .holder_blocks = 1,
					     .peer_shards = 2};
static const struct wvm_core_limits roomy = {.requests = 8,
					     .txns = 8,
					     .waiting = 16,
					     .demands = 8,
					     .partials = 8,
					     .holder_blocks = 4,
					     .peer_shards = 2};

#endif

/* The codec: explicit loads and stores, and the rules that a message obeys by its type. */
#include "shared/wire.h"

#include <stdbool.h>
#include <string.h>

#include "shared/core/bytes.h"
#include "shared/crc32c.h"

#define MAGIC UINT32_C(0x57564d58) /* "WVMX" */

/* Eight words of eight bytes; what is packed into each stands in wire.h. */
enum offset {
	AT_MAGIC = 0,
	AT_VERSION = AT_MAGIC + 4,
	AT_TYPE = AT_VERSION + 1,
	AT_FLAGS = AT_TYPE + 1,
	AT_QOS_STATE = AT_FLAGS + 1,
	AT_VM = AT_QOS_STATE + 1,
	AT_PAYLOAD_LEN = AT_VM + 2,
	AT_STEER = AT_PAYLOAD_LEN + 2,
	AT_REPLY_STEER = AT_STEER + 2,
	AT_NODES_SEGMENT = AT_REPLY_STEER + 2,
	AT_EPOCH = AT_NODES_SEGMENT + 8,
	AT_CRC = AT_EPOCH + 4,
	AT_REQUEST = AT_CRC + 4,
	AT_PAGE_VERSION = AT_REQUEST + 8,
	AT_GRANT = AT_PAGE_VERSION + 8,
	AT_OPERAND_HOPS = AT_GRANT + 8,
	AT_HOPS = AT_OPERAND_HOPS + 7,
	AT_END = AT_HOPS + 1,
};
_Static_assert(AT_END == WVM_HEADER_BYTES, "the header is 64 bytes");
_Static_assert(AT_STEER == WVM_WIRE_STEER_OFFSET, "the socket filter finds the steer");
_Static_assert(AT_HOPS == WVM_WIRE_HOPS_OFFSET, "a forwarder finds the hops");
_Static_assert(AT_NODES_SEGMENT % 8 == 0 && AT_EPOCH % 8 == 0 && AT_REQUEST % 8 == 0 &&
		       AT_OPERAND_HOPS % 8 == 0,
	       "words are aligned");

/* Widths inside AT_NODES_SEGMENT and AT_OPERAND_HOPS. */
#define NODE_BITS    WVM_NODE_ID_BITS
#define SEGMENT_BITS 12
#define NODE_MASK    (WVM_NODE_MAX - 1)
#define SEGMENT_MASK ((1u << SEGMENT_BITS) - 1)
#define HOPS_BITS    8
_Static_assert(2 * NODE_BITS + 2 * SEGMENT_BITS == 64, "nodes and segment fill their word");
_Static_assert(WVM_SEGMENT_TOTAL_MAX == SEGMENT_MASK * WVM_SEGMENT_UNIT, "totals fit");
_Static_assert(WVM_OPERAND_BITS + HOPS_BITS == 64, "operand and hops fill their word");
_Static_assert(WVM_PAGE_BYTES <= WVM_SEGMENT_TOTAL_MAX, "a page is one message");

/* What a message may carry. */
enum payload_rule {
	NOTHING,
	PAGE,  /* a page, or instead of it one of the flags ZERO, ERROR, HELD, ANSWER */
	BYTES, /* anything, also nothing */
	SOME,  /* anything but nothing, unless it is an ERROR or an ANSWER */
};

enum need {
	REQUEST = 1, /* a request id */
	GRANT = 2,   /* a grant id */
	GPA = 4,     /* the operand is the address of a page */
	KNOWN = 8,   /* the type exists */
};

struct rule {
	const char *name;
	uint8_t flags;   /* that may be set, AUTH apart */
	uint8_t payload; /* enum payload_rule */
	uint8_t needs;   /* enum need, or'ed */
};

#define RULE(type, flags, payload, needs) \
	[WVM_MSG_##type] = {#type, flags, payload, KNOWN | (needs)}
#define ZERO   WVM_MSG_ZERO
#define ERROR  WVM_MSG_ERROR
#define MORE   WVM_MSG_MORE
#define KEEP   WVM_MSG_KEEP
#define HELD   WVM_MSG_HELD
#define ANSWER WVM_MSG_ANSWER
#define UNIT   WVM_MSG_UNIT

static const struct rule rules[WVM_MSG_TYPES] = {
	RULE(PING, ANSWER, NOTHING, REQUEST),
	RULE(MEM_READ, HELD | UNIT, NOTHING, REQUEST | GPA),
	RULE(MEM_ACK, ZERO | ERROR | HELD | UNIT, PAGE, REQUEST | GPA),
	RULE(MEM_ACQUIRE, HELD | UNIT, NOTHING, REQUEST | GPA),
	RULE(VCPU_RUN, 0, SOME, REQUEST | GRANT),
	RULE(VCPU_EXIT, ERROR, SOME, REQUEST | GRANT),
	RULE(VFIO_IRQ, ANSWER | ERROR, BYTES, 0),
	RULE(VCPU_KICK, 0, NOTHING, REQUEST | GRANT),
	RULE(MEMMAP, MORE | ANSWER | ERROR, SOME, REQUEST),
	RULE(INVALIDATE, 0, NOTHING, REQUEST | GRANT | GPA),
	RULE(DOWNGRADE, 0, NOTHING, REQUEST | GRANT | GPA),
	RULE(FETCH_AND_INVALIDATE, 0, NOTHING, REQUEST | GRANT | GPA),
	RULE(WRITE_BACK, ZERO | KEEP, PAGE, REQUEST | GRANT | GPA),
	RULE(INVALIDATE_ACK, 0, NOTHING, REQUEST | GRANT | GPA),
	RULE(NOT_HELD, 0, NOTHING, REQUEST | GRANT | GPA),
	RULE(WRITE_BACK_ACK, ERROR, NOTHING, REQUEST | GRANT | GPA),
	RULE(WRONG_HOME, 0, NOTHING, REQUEST | GPA),
	RULE(LOST, 0, NOTHING, REQUEST | GRANT | GPA),
	RULE(VCPU_TAKEN, 0, NOTHING, REQUEST | GRANT),
	RULE(VCPU_DONE, 0, NOTHING, REQUEST | GRANT),
	RULE(VCPU_HELLO, ANSWER, BYTES, REQUEST),
	RULE(DECLARE_INTEREST, ANSWER | ERROR, NOTHING, REQUEST | GPA),
	RULE(PAGE_PUSH_FULL, ZERO, PAGE, GPA),
	RULE(PAGE_PUSH_DIFF, 0, SOME, GPA),
	RULE(COMMIT_DIFF, ANSWER | ERROR, SOME, REQUEST | GPA),
	RULE(FORCE_SYNC, ZERO, PAGE, REQUEST | GPA),
	RULE(RPC_BATCH_MEMSET, MORE | ANSWER | ERROR, SOME, REQUEST),
	RULE(HEARTBEAT, ANSWER, BYTES, 0),
	RULE(VIEW_PULL, MORE, BYTES, 0),
	RULE(VIEW_ACK, MORE, BYTES, 0),
	RULE(NODE_ANNOUNCE, MORE, BYTES, 0),
	RULE(BALLOT, MORE | ANSWER | ERROR, BYTES, 0),
	RULE(REPORT, MORE | ANSWER | ERROR, BYTES, REQUEST),
	RULE(HANDOVER, MORE | ANSWER | ERROR, BYTES, REQUEST),
	RULE(PUSH_BACK, 0, NOTHING, 0),
	RULE(HANDOVER_PAGE, ZERO, PAGE, REQUEST | GPA),
	RULE(HANDOVER_DONE, ANSWER, NOTHING, REQUEST | GPA),
	RULE(BLOCK_READ, 0, BYTES, REQUEST),
	RULE(BLOCK_WRITE, MORE, SOME, REQUEST),
	RULE(BLOCK_ACK, ZERO | MORE | ERROR, BYTES, REQUEST),
	RULE(BLOCK_FLUSH, 0, BYTES, REQUEST),
	RULE(BLOCK_DISCARD, 0, BYTES, REQUEST),
	RULE(BLOCK_ZERO, 0, BYTES, REQUEST),
	RULE(BACKUP, ZERO | ERROR | ANSWER, PAGE, REQUEST | GPA),
	RULE(BACKUP_DONE, ANSWER | ERROR, NOTHING, REQUEST | GPA),
	RULE(HOLDING, ANSWER | ERROR, SOME, REQUEST | GPA),
	RULE(HOLDING_DONE, ANSWER, NOTHING, REQUEST | GPA),
};

static const char *const drop_names[WVM_DROP_REASONS] = {
	[WVM_DROP_NONE] = "none",
	[WVM_DROP_SHORT] = "short",
	[WVM_DROP_LONG] = "long",
	[WVM_DROP_MAGIC] = "magic",
	[WVM_DROP_VERSION] = "version",
	[WVM_DROP_LENGTH] = "length",
	[WVM_DROP_CRC] = "crc",
	[WVM_DROP_TYPE] = "type",
	[WVM_DROP_AUTH] = "auth",
	[WVM_DROP_FLAGS] = "flags",
	[WVM_DROP_QOS] = "qos",
	[WVM_DROP_STATE] = "state",
	[WVM_DROP_HOPS] = "hops",
	[WVM_DROP_SEGMENT] = "segment",
	[WVM_DROP_REQUEST] = "request",
	[WVM_DROP_GPA] = "gpa",
	[WVM_DROP_GRANT] = "grant",
	[WVM_DROP_VM] = "vm",
	[WVM_DROP_NODE] = "node",
	[WVM_DROP_EPOCH] = "epoch",
	[WVM_DROP_SOURCE] = "source",
	[WVM_DROP_STALE] = "stale",
	[WVM_DROP_DUPLICATE] = "duplicate",
	[WVM_DROP_ROOM] = "room",
};

const char *wvm_drop_name(enum wvm_drop reason)
{
	return (unsigned)reason < WVM_DROP_REASONS ? drop_names[reason] : "unknown";
}

const char *wvm_msg_name(uint8_t type)
{
	return type < WVM_MSG_TYPES ? rules[type].name : NULL;
}

uint32_t wvm_wire_segment(uint32_t mtu)
{
	if (mtu < WVM_MTU_MIN)
		return 0;
	mtu = mtu < WVM_DATAGRAM_MAX ? mtu : WVM_DATAGRAM_MAX;
	return (mtu - WVM_HEADER_BYTES) & ~(WVM_SEGMENT_UNIT - 1);
}

uint32_t wvm_wire_page_segment(uint32_t mtu)
{
	uint32_t most = wvm_wire_segment(mtu);
	uint32_t count;

	if (!most)
		return 0;
	count = (WVM_PAGE_BYTES + most - 1) / most;
	return wvm_wire_total((WVM_PAGE_BYTES + count - 1) / count);
}

/*
 * A message is cut into equal segments and a last one that may be shorter. No
 * segment but the last is smaller than the least mtu makes it, which bounds
 * the number of pieces that a receiver has to put together.
 */
static bool segment_fits(const struct wvm_msg *m)
{
	const uint32_t least = WVM_MTU_MIN - WVM_HEADER_BYTES;
	uint32_t end = m->seg_offset + m->payload_len;

	if (m->seg_offset % WVM_SEGMENT_UNIT || m->seg_total % WVM_SEGMENT_UNIT)
		return false;
	if (m->seg_offset > WVM_SEGMENT_TOTAL_MAX || m->seg_total > WVM_SEGMENT_TOTAL_MAX)
		return false;
	if (!m->payload_len)
		return !m->seg_offset && !m->seg_total;
	if (end > m->seg_total)
		return false;
	if (wvm_wire_total(end) == m->seg_total) /* the last one */
		return !m->seg_offset ||
		       (m->seg_offset >= least && m->seg_offset >= m->payload_len);
	return m->payload_len >= least && m->payload_len % WVM_SEGMENT_UNIT == 0 &&
	       m->seg_offset % m->payload_len == 0;
}

static enum wvm_drop check_payload(const struct wvm_msg *m, const struct rule *rule)
{
	bool instead = m->flags & (ZERO | ERROR);

	if (!segment_fits(m))
		return WVM_DROP_SEGMENT;
	if (instead && (m->payload_len || (m->flags & (ZERO | ERROR)) == (ZERO | ERROR)))
		return WVM_DROP_FLAGS;
	switch ((enum payload_rule)rule->payload) {
	case NOTHING: return m->payload_len ? WVM_DROP_SEGMENT : WVM_DROP_NONE;
	case BYTES: return WVM_DROP_NONE;
	case SOME:
		instead |= !!(m->flags & ANSWER);
		return m->payload_len || instead ? WVM_DROP_NONE : WVM_DROP_SEGMENT;
	case PAGE: break;
	}
	/* A whole unit is granted as zeros: nobody has stored to it; or to who has it all: HELD. */
	if (m->flags & UNIT && !(m->flags & (ZERO | HELD | ERROR)))
		return WVM_DROP_FLAGS;
	if (m->flags & (HELD | ANSWER)) {
		if (instead || m->payload_len)
			return WVM_DROP_FLAGS;
		instead = true;
	}
	if (instead)
		return WVM_DROP_NONE;
	return m->seg_total == WVM_PAGE_BYTES && m->payload_len % WVM_SEGMENT_UNIT == 0
		       ? WVM_DROP_NONE
		       : WVM_DROP_SEGMENT;
}

static enum wvm_drop check_operands(const struct wvm_msg *m, const struct rule *rule)
{
	if ((rule->needs & REQUEST) && !m->request)
		return WVM_DROP_REQUEST;
	if (m->gpa >= WVM_OPERAND_MAX)
		return WVM_DROP_GPA;
	if ((rule->needs & GPA) && (m->gpa % WVM_PAGE_BYTES || m->gpa >= WVM_GPA_MAX))
		return WVM_DROP_GPA;
	if ((rule->needs & GRANT) && !m->grant)
		return WVM_DROP_GRANT;
	return WVM_DROP_NONE;
}

enum wvm_drop wvm_wire_check(const struct wvm_msg *m)
{
	const struct rule *rule;
	enum wvm_drop drop;

	if (m->type >= WVM_MSG_TYPES || !(rules[m->type].needs & KNOWN))
		return WVM_DROP_TYPE;
	rule = &rules[m->type];
	if (m->flags & WVM_MSG_AUTH)
		return WVM_DROP_AUTH;
	if (m->flags & ~rule->flags)
		return WVM_DROP_FLAGS;
	if (m->qos >= WVM_QOS_COUNT)
		return WVM_DROP_QOS;
	if (m->node_state >= WVM_NODE_LIVES)
		return WVM_DROP_STATE;
	if (m->hops > WVM_HOPS_MAX)
		return WVM_DROP_HOPS;
	if (m->src >= WVM_NODE_MAX || m->dst >= WVM_NODE_MAX)
		return WVM_DROP_NODE;
	drop = check_payload(m, rule);
	return drop ? drop : check_operands(m, rule);
}

/* The header with crc and hops as 0, which is what the checksum covers. */
static void put_header(uint8_t *p, const struct wvm_msg *m)
{
	wvm_store32(p + AT_MAGIC, MAGIC);
	p[AT_VERSION] = WVM_PROTOCOL_VERSION;
	p[AT_TYPE] = m->type;
	p[AT_FLAGS] = m->flags;
	p[AT_QOS_STATE] = (uint8_t)(m->qos << 4 | m->node_state);
	wvm_store16(p + AT_VM, m->vm_id);
	wvm_store16(p + AT_PAYLOAD_LEN, m->payload_len);
	wvm_store16(p + AT_STEER, m->steer);
	wvm_store16(p + AT_REPLY_STEER, m->reply_steer);
	wvm_store64(p + AT_NODES_SEGMENT, (uint64_t)m->src << (NODE_BITS + 2 * SEGMENT_BITS) |
						  (uint64_t)m->dst << (2 * SEGMENT_BITS) |
						  m->seg_offset / WVM_SEGMENT_UNIT << SEGMENT_BITS |
						  m->seg_total / WVM_SEGMENT_UNIT);
	wvm_store32(p + AT_EPOCH, m->epoch);
	wvm_store32(p + AT_CRC, 0);
	wvm_store64(p + AT_REQUEST, m->request);
	wvm_store64(p + AT_PAGE_VERSION, m->version);
	wvm_store64(p + AT_GRANT, m->grant);
	wvm_store64(p + AT_OPERAND_HOPS, m->gpa << HOPS_BITS);
}

static void get_header(const uint8_t *p, struct wvm_msg *m)
{
	uint64_t nodes = wvm_load64(p + AT_NODES_SEGMENT);

	*m = (struct wvm_msg){
		.type = p[AT_TYPE],
		.flags = p[AT_FLAGS],
		.qos = p[AT_QOS_STATE] >> 4,
		.node_state = p[AT_QOS_STATE] & 0xf,
		.hops = p[AT_HOPS],
		.vm_id = wvm_load16(p + AT_VM),
		.payload_len = wvm_load16(p + AT_PAYLOAD_LEN),
		.steer = wvm_load16(p + AT_STEER),
		.reply_steer = wvm_load16(p + AT_REPLY_STEER),
		.epoch = wvm_load32(p + AT_EPOCH),
		.src = (uint32_t)(nodes >> (NODE_BITS + 2 * SEGMENT_BITS)),
		.dst = (uint32_t)(nodes >> (2 * SEGMENT_BITS)) & NODE_MASK,
		.seg_offset = ((uint32_t)nodes >> SEGMENT_BITS & SEGMENT_MASK) * WVM_SEGMENT_UNIT,
		.seg_total = ((uint32_t)nodes & SEGMENT_MASK) * WVM_SEGMENT_UNIT,
		.request = wvm_load64(p + AT_REQUEST),
		.gpa = wvm_load64(p + AT_OPERAND_HOPS) >> HOPS_BITS,
		.version = wvm_load64(p + AT_PAGE_VERSION),
		.grant = wvm_load64(p + AT_GRANT),
	};
}

size_t wvm_wire_encode(uint8_t *out, size_t room, const struct wvm_msg *m, const void *payload)
{
	uint8_t *behind = out + WVM_HEADER_BYTES;
	uint32_t crc;

	if (room < WVM_HEADER_BYTES + (size_t)m->payload_len || wvm_wire_check(m))
		return 0;
	put_header(out, m);
	crc = wvm_crc32c(0, out, WVM_HEADER_BYTES);
	crc = payload == behind ? wvm_crc32c(crc, behind, m->payload_len)
				: wvm_crc32c_copy(crc, behind, payload, m->payload_len);
	wvm_store32(out + AT_CRC, crc);
	out[AT_HOPS] = m->hops;
	return WVM_HEADER_BYTES + (size_t)m->payload_len;
}

size_t wvm_wire_encode_header(uint8_t out[WVM_HEADER_BYTES], const struct wvm_msg *m,
			      const void *payload)
{
	if (wvm_wire_check(m))
		return 0;
	put_header(out, m);
	wvm_store32(out + AT_CRC,
		    wvm_crc32c(wvm_crc32c(0, out, WVM_HEADER_BYTES), payload, m->payload_len));
	out[AT_HOPS] = m->hops;
	return WVM_HEADER_BYTES;
}

/* The checksum that a received or mutated segment ought to carry. */
static uint32_t checksum(const uint8_t *segment, size_t len)
{
	uint8_t header[WVM_HEADER_BYTES];

	memcpy(header, segment, sizeof(header));
	wvm_store32(header + AT_CRC, 0);
	header[AT_HOPS] = 0;
	return wvm_crc32c(wvm_crc32c(0, header, sizeof(header)), segment + WVM_HEADER_BYTES,
			  len - WVM_HEADER_BYTES);
}

void wvm_wire_seal(uint8_t *segment, size_t len)
{
	wvm_store32(segment + AT_CRC, checksum(segment, len));
}

static bool all_zero(const uint8_t *data, size_t len)
{
	return !len || (!data[0] && !memcmp(data, data + 1, len - 1));
}

/* The first segment of a datagram: its bytes without the tag behind it, which has `tag` of them. */
static enum wvm_drop find_segment(const uint8_t *data, size_t len, size_t *bytes, size_t *tag)
{
	if (len > WVM_DATAGRAM_MAX)
		return WVM_DROP_LONG;
	if (len < WVM_HEADER_BYTES)
		return WVM_DROP_SHORT;
	if (wvm_load32(data + AT_MAGIC) != MAGIC)
		return WVM_DROP_MAGIC;
	if (data[AT_VERSION] != WVM_PROTOCOL_VERSION)
		return WVM_DROP_VERSION;
	*bytes = WVM_HEADER_BYTES + (size_t)wvm_load16(data + AT_PAYLOAD_LEN);
	*tag = data[AT_FLAGS] & WVM_MSG_AUTH ? WVM_TAG_BYTES : 0;
	return *bytes + *tag > len ? WVM_DROP_LENGTH : WVM_DROP_NONE;
}

enum wvm_drop wvm_wire_decode(const uint8_t *data, size_t len, struct wvm_msg *m,
			      const uint8_t **payload, size_t *consumed)
{
	size_t bytes, tag;
	enum wvm_drop drop = find_segment(data, len, &bytes, &tag);

	*consumed = len;
	if (drop)
		return drop;
	if (wvm_load32(data + AT_CRC) != checksum(data, bytes))
		return WVM_DROP_CRC;
	*consumed = all_zero(data + bytes + tag, len - bytes - tag) ? len : bytes + tag;
	get_header(data, m);
	*payload = data + WVM_HEADER_BYTES;
	return wvm_wire_check(m);
}

enum wvm_drop wvm_wire_peek(const uint8_t *data, size_t len, struct wvm_wire_hop *h,
			    size_t *segment, size_t *consumed)
{
	uint64_t nodes;
	size_t bytes, tag;
	enum wvm_drop drop = find_segment(data, len, &bytes, &tag);

	*segment = 0;
	*consumed = len;
	if (drop)
		return drop;
	bytes += tag;
	*segment = bytes;
	*consumed = all_zero(data + bytes, len - bytes) ? len : bytes;
	if (data[AT_HOPS] > WVM_HOPS_MAX)
		return WVM_DROP_HOPS;
	if (data[AT_QOS_STATE] >> 4 >= WVM_QOS_COUNT)
		return WVM_DROP_QOS;
	nodes = wvm_load64(data + AT_NODES_SEGMENT);
	*h = (struct wvm_wire_hop){
		.src = (uint32_t)(nodes >> (NODE_BITS + 2 * SEGMENT_BITS)),
		.dst = (uint32_t)(nodes >> (2 * SEGMENT_BITS)) & NODE_MASK,
		.steer = wvm_load16(data + AT_STEER),
		.type = data[AT_TYPE],
		.qos = data[AT_QOS_STATE] >> 4,
		.hops = data[AT_HOPS],
	};
	return WVM_DROP_NONE;
}

bool wvm_wire_intact(const uint8_t *segment)
{
	size_t bytes = WVM_HEADER_BYTES + (size_t)wvm_load16(segment + AT_PAYLOAD_LEN);

	return wvm_load32(segment + AT_CRC) == checksum(segment, bytes);
}

size_t wvm_wire_push_back(uint8_t out[WVM_HEADER_BYTES], const uint8_t *refused)
{
	struct wvm_msg was, m;

	get_header(refused, &was);
	m = (struct wvm_msg){
		.type = WVM_MSG_PUSH_BACK,
		.qos = WVM_QOS_CONTROL,
		.node_state = WVM_NODE_ACTIVE,
		.hops = WVM_HOPS_MAX,
		.vm_id = was.vm_id,
		.steer = was.reply_steer,
		.reply_steer = was.steer,
		.epoch = was.epoch,
		.src = was.dst,
		.dst = was.src,
		.request = was.request,
		.gpa = was.type,
	};
	return wvm_wire_encode(out, WVM_HEADER_BYTES, &m, NULL);
}

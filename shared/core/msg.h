/*
 * The decoded message: what the protocol core, the codec, the roles and the
 * kernel module agree on. Freestanding; how these fields lie on the wire is
 * known to shared/wire.c alone. Meaning: shared/PROTOCOL.md, Messages.
 */
#ifndef WVM_CORE_MSG_H
#define WVM_CORE_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WVM_PROTOCOL_VERSION 31u

/* Sizes of memory: coherence, directory and placement, fault sharding. */
#define WVM_PAGE_SHIFT  12
#define WVM_PAGE_BYTES  4096u
#define WVM_UNIT_SHIFT  21
#define WVM_UNIT_BYTES  (1u << WVM_UNIT_SHIFT)
#define WVM_UNIT_PAGES  (WVM_UNIT_BYTES / WVM_PAGE_BYTES)
#define WVM_RANGE_SHIFT 30

/* Virtual nodes of 4 GiB; a VM's RAM file can be no larger than all of them. */
#define WVM_NODE_ID_BITS 20
#define WVM_NODE_MAX     (1u << WVM_NODE_ID_BITS)
#define WVM_VNODE_SHIFT  32
#define WVM_GPA_BITS     (WVM_NODE_ID_BITS + WVM_VNODE_SHIFT)
#define WVM_GPA_MAX      (UINT64_C(1) << WVM_GPA_BITS)
#define WVM_OPERAND_BITS 56 /* of gpa where it is an operand of another kind */
#define WVM_OPERAND_MAX  (UINT64_C(1) << WVM_OPERAND_BITS)

#define WVM_HEADER_BYTES 64u
#define WVM_TAG_BYTES    16u   /* reserved behind a message with WVM_MSG_AUTH */
#define WVM_MTU_MIN      576u  /* UDP payload bytes; RFC 791: what every IPv4 host takes */
#define WVM_MTU_DEFAULT  1472u /* Ethernet's 1500 less the headers of IPv4 and UDP */
#define WVM_DATAGRAM_MAX 65507u

/* Segments: offsets and totals travel in units of 64 bytes, 12 bits each. */
#define WVM_SEGMENT_UNIT      64u
#define WVM_SEGMENT_TOTAL_MAX (4095u * WVM_SEGMENT_UNIT) /* bytes of one message */
#define WVM_PAGE_SEGMENTS_MAX 8u                         /* a page at WVM_MTU_MIN */

#define WVM_HOPS_MAX 32u /* twice the longest path: four tiers up, four down, sidecars */

/* The numbers are the system's own and never change their meaning; 2 is retired. */
enum wvm_msg_type {
	WVM_MSG_PING = 0,
	WVM_MSG_MEM_READ = 1,
	WVM_MSG_MEM_ACK = 3,
	WVM_MSG_MEM_ACQUIRE = 4,
	WVM_MSG_VCPU_RUN = 5,
	WVM_MSG_VCPU_EXIT = 6,
	WVM_MSG_VFIO_IRQ = 7,
	WVM_MSG_VCPU_KICK = 8,
	WVM_MSG_MEMMAP = 9,
	WVM_MSG_INVALIDATE = 10,
	WVM_MSG_DOWNGRADE = 11,
	WVM_MSG_FETCH_AND_INVALIDATE = 12,
	WVM_MSG_WRITE_BACK = 13,
	WVM_MSG_INVALIDATE_ACK = 14,
	WVM_MSG_NOT_HELD = 15,
	WVM_MSG_WRITE_BACK_ACK = 16,
	WVM_MSG_WRONG_HOME = 17,
	WVM_MSG_LOST = 18,
	WVM_MSG_VCPU_TAKEN = 19,
	WVM_MSG_VCPU_DONE = 20,
	WVM_MSG_VCPU_HELLO = 21,
	WVM_MSG_DECLARE_INTEREST = 25,
	WVM_MSG_PAGE_PUSH_FULL = 26,
	WVM_MSG_PAGE_PUSH_DIFF = 27,
	WVM_MSG_COMMIT_DIFF = 28,
	WVM_MSG_FORCE_SYNC = 29,
	WVM_MSG_RPC_BATCH_MEMSET = 31,
	WVM_MSG_HEARTBEAT = 40,
	WVM_MSG_VIEW_PULL = 41,
	WVM_MSG_VIEW_ACK = 42,
	WVM_MSG_NODE_ANNOUNCE = 43,
	WVM_MSG_BALLOT = 44,
	WVM_MSG_REPORT = 45,
	WVM_MSG_HANDOVER = 46,
	WVM_MSG_PUSH_BACK = 47,
	WVM_MSG_HANDOVER_PAGE = 48,
	WVM_MSG_HANDOVER_DONE = 49,
	WVM_MSG_BLOCK_READ = 50,
	WVM_MSG_BLOCK_WRITE = 51,
	WVM_MSG_BLOCK_ACK = 52,
	WVM_MSG_BLOCK_FLUSH = 53,
	WVM_MSG_BLOCK_DISCARD = 54,
	WVM_MSG_BLOCK_ZERO = 55,
	WVM_MSG_BACKUP = 56,
	WVM_MSG_BACKUP_DONE = 57,
	WVM_MSG_HOLDING = 58,
	WVM_MSG_HOLDING_DONE = 59,
	WVM_MSG_TYPES = 60, /* one above the highest */
};

/* Which type takes which flag: the table of rules in shared/wire.c. */
enum wvm_msg_flag {
	WVM_MSG_ZERO = 0x01,   /* the page is all zeros; no payload */
	WVM_MSG_ERROR = 0x02,  /* the request failed; no payload */
	WVM_MSG_MORE = 0x04,   /* further messages of this answer follow */
	WVM_MSG_KEEP = 0x08,   /* WRITE_BACK: the sender keeps a Shared copy */
	WVM_MSG_HELD = 0x10,   /* MEM_READ, MEM_ACQUIRE: the sender holds `version`;
				* MEM_ACK: that copy is the granted one, no payload */
	WVM_MSG_ANSWER = 0x20, /* this PING, REPORT, … answers the one with this request id */
	WVM_MSG_UNIT = 0x40, /* MEM_READ, MEM_ACQUIRE: the sender has nothing of the unit, and would
			      * take all of it; MEM_ACK: all of it is granted, Modified. With
			      * HELD: wvm_msg_asks_merge(), and its answer (or ERROR) */
	WVM_MSG_AUTH = 0x80, /* a tag follows the payload (reserved: dropped so far) */
};

/* Two lanes: control and small messages always leave before bulk. */
enum wvm_qos {
	WVM_QOS_CONTROL = 0,
	WVM_QOS_BULK = 1,
	WVM_QOS_COUNT,
};

/* The life of a node (shared/PROTOCOL.md, Membership). */
enum wvm_node_state {
	WVM_NODE_SHADOW = 0,
	WVM_NODE_WARMING = 1,
	WVM_NODE_ACTIVE = 2,
	WVM_NODE_DRAINING = 3,
	WVM_NODE_OFFLINE = 4,
	WVM_NODE_LOST = 5, /* dead for good: others decide it by a record, no node says it itself */
	WVM_NODE_STATES,
};

/* What a node may say of itself, in headers and gossip, is below this. */
#define WVM_NODE_LIVES WVM_NODE_LOST

/*
 * One segment of a message. The payload is passed beside it. 72 bytes; written
 * by whoever builds the message (the core, or wvm_wire_decode()), then read only.
 *
 * A message without payload has seg_offset, seg_total and payload_len 0. Page
 * payloads have seg_total WVM_PAGE_BYTES. Other payloads may end anywhere:
 * seg_total is then rounded up to a multiple of WVM_SEGMENT_UNIT, and the
 * exact length is seg_offset + payload_len of the last segment, which is the
 * one for which that sum exceeds seg_total - WVM_SEGMENT_UNIT.
 */
struct wvm_msg {
	uint8_t type;       /* enum wvm_msg_type */
	uint8_t flags;      /* enum wvm_msg_flag, or'ed */
	uint8_t qos;        /* enum wvm_qos */
	uint8_t node_state; /* enum wvm_node_state, of the sender */
	uint8_t hops;       /* forwards left, at most WVM_HOPS_MAX; outside the checksum */
	uint16_t vm_id;
	uint16_t payload_len; /* bytes of this segment */
	uint16_t steer;       /* key of the receiver's shard: the slice towards a home,
			       * gpa >> WVM_RANGE_SHIFT towards a holder */
	uint16_t reply_steer; /* the steer that an answer is to carry */
	uint32_t epoch;
	uint32_t src; /* vnode ids, below WVM_NODE_MAX */
	uint32_t dst;
	uint32_t seg_offset; /* bytes, a multiple of WVM_SEGMENT_UNIT */
	uint32_t seg_total;  /* bytes, a multiple of WVM_SEGMENT_UNIT, or 0 */
	uint64_t request;    /* request id; of messages begun by a home and of their
			      * answers the home's transaction id */
	uint64_t gpa;        /* offset in the VM's RAM file, or another operand */
	uint64_t version;
	uint64_t grant; /* request id of the grant that the message means, or 0 */
};
_Static_assert(sizeof(struct wvm_msg) == 72, "the size stated above");

/* A MEM_ACQUIRE or MEM_ACK that is about a merge: `grant` is its id. */
static inline bool wvm_msg_of_merge(const struct wvm_msg *m)
{
	return m->flags & WVM_MSG_UNIT && m->flags & (WVM_MSG_HELD | WVM_MSG_ERROR);
}

/* The sender has all pages of the unit Modified, and asks for one grant of them all. */
static inline bool wvm_msg_asks_merge(const struct wvm_msg *m)
{
	return m->type == WVM_MSG_MEM_ACQUIRE && wvm_msg_of_merge(m);
}

/*
 * Request ids: boot (16 bits, a durable counter of the requester), shard (8),
 * counter (40). No valid id is 0, since boots are counted from 1.
 */
#define WVM_REQUEST_COUNTER_BITS 40
#define WVM_REQUEST_COUNTER_MAX  ((UINT64_C(1) << WVM_REQUEST_COUNTER_BITS) - 1)

static inline uint64_t wvm_request_id(uint16_t boot, uint8_t shard, uint64_t counter)
{
	return (uint64_t)boot << 48 | (uint64_t)shard << 40 | (counter & WVM_REQUEST_COUNTER_MAX);
}

static inline uint16_t wvm_request_boot(uint64_t request)
{
	return (uint16_t)(request >> 48);
}

static inline uint8_t wvm_request_shard(uint64_t request)
{
	return (uint8_t)(request >> 40);
}

static inline uint64_t wvm_request_counter(uint64_t request)
{
	return request & WVM_REQUEST_COUNTER_MAX;
}

/*
 * Why a message was dropped: the index of a counter. Those up to
 * WVM_DROP_GRANT are found by wvm_wire_decode() alone (GPA also by the roles);
 * the others need context and are found by the role or the core.
 */
enum wvm_drop {
	WVM_DROP_NONE = 0,
	WVM_DROP_SHORT,   /* less than a header */
	WVM_DROP_LONG,    /* more than a datagram can be */
	WVM_DROP_MAGIC,   /* not ours */
	WVM_DROP_VERSION, /* another protocol version */
	WVM_DROP_LENGTH,  /* the payload runs beyond the datagram */
	WVM_DROP_CRC,
	WVM_DROP_TYPE,  /* no such message, or none for this receiver */
	WVM_DROP_AUTH,  /* carries a tag, and there are no keys */
	WVM_DROP_FLAGS, /* unknown, or not with this type or payload */
	WVM_DROP_QOS,
	WVM_DROP_STATE,     /* no such node state */
	WVM_DROP_HOPS,      /* more hops left than any path has, or none to go on with */
	WVM_DROP_SEGMENT,   /* offset, total and length do not fit each other or the type */
	WVM_DROP_REQUEST,   /* a request id of 0 where one is due */
	WVM_DROP_GPA,       /* unaligned, or beyond the guest */
	WVM_DROP_GRANT,     /* a grant id of 0 where one is due */
	WVM_DROP_VM,        /* a VM that is not known here */
	WVM_DROP_NODE,      /* src not a member, or dst not this node */
	WVM_DROP_EPOCH,     /* of another epoch */
	WVM_DROP_SOURCE,    /* the address is not that of src */
	WVM_DROP_STALE,     /* an older boot, an id below the window, an answer nobody waits for */
	WVM_DROP_DUPLICATE, /* seen before */
	WVM_DROP_ROOM,      /* a bounded queue or table is full; the sender will retry */
	WVM_DROP_REASONS,
};

/* A short lower-case name ("crc") for counters and logs; "unknown" out of range. Any thread. */
const char *wvm_drop_name(enum wvm_drop reason);

/* The name of a message type ("MEM_READ"), or NULL if there is none. Any thread. */
const char *wvm_msg_name(uint8_t type);

#endif

/*
 * The wire format, version 31: one 64-byte header per message segment, then
 * its payload, then (flag AUTH) a 16-byte tag. A datagram holds one or more
 * segments back to back, and may end in zero bytes. Big-endian; wire.c is the
 * only place that knows it.
 *
 *   byte  bits  field
 *      0    32  magic "WVMX"
 *      4     8  protocol version
 *      5     8  type
 *      6     8  flags
 *      7     4  qos
 *            4  node_state
 *      8    16  vm_id
 *     10    16  payload bytes of this segment
 *     12    16  steer: a socket filter reads it here (WVM_WIRE_STEER_OFFSET)
 *     14    16  reply_steer
 *     16    20  src vnode
 *            20  dst vnode
 *            12  segment offset, in units of 64 bytes
 *            12  total payload of the message, in units of 64 bytes, rounded up
 *     24    32  epoch
 *     28    32  crc32c over the header, with crc and hops as 0, and the payload
 *     32    64  request id
 *     40    64  page version
 *     48    64  grant: the request id of the grant that is meant
 *     56    56  gpa, or another operand
 *     63     8  hops left: outside the checksum, a forwarder need not renew it
 *
 * No bit is spare. Every message has room for a grant id beside the request
 * id, which is what packs the vnode ids into the 20 bits that they have, and
 * the header stays at 64 bytes, so that a page travels as three segments of
 * at most 1408 bytes in Ethernet's 1472.
 *
 * All functions are pure and may be called from any thread.
 */
#ifndef WVM_WIRE_H
#define WVM_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "shared/core/msg.h"

#define WVM_WIRE_STEER_OFFSET 12u /* of two bytes, from the start of the UDP payload */
#define WVM_WIRE_HOPS_OFFSET  63u /* of one byte, in each segment */

/*
 * Writes the header and the payload (m->payload_len bytes) of one segment to
 * out, checksummed. payload does not overlap out, except that it may be out +
 * WVM_HEADER_BYTES: it is then in place already. Returns the bytes written, or
 * 0 if room is too small or m is a message that wvm_wire_decode() would drop
 * for its fields (a mistake of the caller; wvm_wire_check() tells which).
 */
size_t wvm_wire_encode(uint8_t *out, size_t room, const struct wvm_msg *m, const void *payload);

/*
 * Writes the header alone, for a payload that is sent from where it lies.
 * Returns WVM_HEADER_BYTES, or 0 as wvm_wire_encode() does. The payload must
 * not change before it is sent.
 */
size_t wvm_wire_encode_header(uint8_t out[WVM_HEADER_BYTES], const struct wvm_msg *m,
			      const void *payload);

/*
 * Takes the first segment of a datagram (or of what is left of it): any bytes
 * whatever are allowed. On WVM_DROP_NONE *m is filled and *payload points to
 * its m->payload_len bytes within data. *consumed says in any case where the
 * next segment begins: behind this one if its length and checksum are good,
 * else at the end, since nothing after it can be trusted. It is at least 1 for
 * len > 0. When a segment is dropped, *m and *payload are undefined. A GRO
 * batch is to be cut into its datagrams first.
 */
enum wvm_drop wvm_wire_decode(const uint8_t *data, size_t len, struct wvm_msg *m,
			      const uint8_t **payload, size_t *consumed);

/* The checks of wvm_wire_decode() on decoded fields: why m would be dropped, or WVM_DROP_NONE. */
enum wvm_drop wvm_wire_check(const struct wvm_msg *m);

/* What a forwarder reads of a segment. */
struct wvm_wire_hop {
	uint32_t src, dst; /* vnode ids */
	uint16_t steer;
	uint8_t type; /* any: also those that this version does not know */
	uint8_t qos;  /* enum wvm_qos */
	uint8_t hops; /* left, at most WVM_HOPS_MAX */
};

/*
 * The first segment of a datagram for one who passes it on: header, payload and tag are its
 * first *segment bytes, and the next segment begins at *consumed, as with wvm_wire_decode(). Total
 * as that is, but the checksum is for the receiver, and the rules of the type too. On a drop *h
 * is undefined; *segment is 0 where the length is not known, and then *consumed is len.
 */
enum wvm_drop wvm_wire_peek(const uint8_t *data, size_t len, struct wvm_wire_hop *h,
			    size_t *segment, size_t *consumed);
/* Whether the checksum of a segment that wvm_wire_peek() has taken is right. */
bool wvm_wire_intact(const uint8_t *segment);

/*
 * Writes the PUSH_BACK that tells the sender of a segment, which wvm_wire_peek() has taken,
 * that there was no room for it on its way. Returns WVM_HEADER_BYTES.
 */
size_t wvm_wire_push_back(uint8_t out[WVM_HEADER_BYTES], const uint8_t *refused);

/*
 * Puts the checksum of an encoded segment right, whatever its fields say.
 * len is at least WVM_HEADER_BYTES; all of it is covered, so it holds this
 * segment alone, without a tag. For tests that mutate what they captured.
 */
void wvm_wire_seal(uint8_t *segment, size_t len);

/*
 * Payload bytes of each segment but the last when a page travels in datagrams
 * of at most mtu bytes (mtu: UDP payload, at least WVM_MTU_MIN): the fewest
 * equal segments, a multiple of WVM_SEGMENT_UNIT. 1408 for 1472, 1024 for
 * 1280, 512 for 576, 4096 from 4160 up. 0 for an mtu that is too small.
 */
uint32_t wvm_wire_page_segment(uint32_t mtu);

/* The same for payloads of other kinds: as much as fits. */
uint32_t wvm_wire_segment(uint32_t mtu);

/* seg_total of a message with bytes of payload: rounded up to WVM_SEGMENT_UNIT. */
static inline uint32_t wvm_wire_total(uint32_t bytes)
{
	return (bytes + WVM_SEGMENT_UNIT - 1) & ~(WVM_SEGMENT_UNIT - 1);
}

#endif

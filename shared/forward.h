/*
 * A gateway's forwarder: takes datagrams as they come, cuts them into segments, and puts those for
 * one next hop together into datagrams of at most the mtu. No I/O, no clock, no allocation.
 *
 *   datagram from a neighbour           data structures
 *     | wvm_wire_peek()                   per lane: at most WVM_FORWARD_OPEN open datagrams, one
 *     | routes (shared/core/route.h)        per next hop, and one spare buffer for the next
 *     v
 *   open datagram of (lane, next hop) -- full, or its place is needed --> out queue
 *     `---------------- wvm_forward_flush(): the end of the batch -----> out queue
 *
 * An open datagram lives until the caller flushes, which it does when it has taken all that
 * came together: a lone message leaves as soon as it would have without, and nothing waits for time
 * to pass (so there is no time here). Per next hop and lane the order stays.
 *
 * Buffers are the caller's: before a segment it sees to it that the lane has a spare one
 * (wvm_forward_wants(), wvm_forward_supply()). Where it has none to give, the lane is full: the
 * segment is refused, and its sender is told by a PUSH_BACK towards the neighbour that it came
 * from, in a lane of its own whose buffers nothing else takes. Where that has none either,
 * or for a PUSH_BACK itself, it is lost, and counted as that.
 *
 * Life of a segment: refused (drops, by reason) | pushed back | lost | copied, then out.
 *
 * Belongs to one thread.
 */
#ifndef WVM_FORWARD_H
#define WVM_FORWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/msg.h"
#include "shared/core/route.h"

enum wvm_forward_lane {
	WVM_FORWARD_CONTROL, /* leaves before BULK */
	WVM_FORWARD_BULK,
	WVM_FORWARD_PUSH, /* PUSH_BACKs made here */
	WVM_FORWARD_LANES,
};

#define WVM_FORWARD_OPEN 32u /* next hops with an open datagram, per lane */
#define WVM_FORWARD_OUT  4u  /* datagrams that one segment can close, and some */

/* A datagram that is to leave; buf is the caller's again. */
struct wvm_forward_out {
	struct wvm_hop hop;
	uint8_t *buf;
	uint32_t len;
	uint16_t steer; /* of its first segment */
	uint8_t lane;
};

#define WVM_FORWARD_COUNTERS(X)                                                      \
	X(datagrams_in, "from neighbours")                                           \
	X(strangers, "datagrams whose sender is no neighbour")                       \
	X(segments, "of all datagrams from neighbours")                              \
	X(forwarded, "segments put into a datagram")                                 \
	X(datagrams_out, "")                                                         \
	X(bytes_out, "")                                                             \
	X(no_route, "segments for a vnode that no route leads to")                   \
	X(loops, "segments whose next hop is where they came from")                  \
	X(hops_used_up, "segments without hops left")                                \
	X(too_long, "segments above the mtu")                                        \
	X(pushed_back, "segments refused for lack of room, whose sender was told")   \
	X(lost, "segments refused for lack of room, whose sender could not be told") \
	X(learned, "vnodes whose way was learned from a neighbour's message")

struct wvm_forward_counters {
#define WVM_FORWARD_FIELD(name, text) uint64_t name;
	WVM_FORWARD_COUNTERS(WVM_FORWARD_FIELD)
#undef WVM_FORWARD_FIELD
	uint64_t drops[WVM_DROP_REASONS]; /* malformed segments, by reason */
};

struct wvm_forward_queue {
	struct wvm_forward_out open[WVM_FORWARD_OPEN]; /* in the order of their opening */
	uint32_t count;
	uint8_t *spare;
};

struct wvm_forward {
	struct wvm_routes_table *routes;
	uint32_t mtu;
	struct wvm_forward_queue lane[WVM_FORWARD_LANES];
	struct wvm_forward_out out[WVM_FORWARD_OUT];
	uint32_t out_count;
	struct wvm_hop last_from; /* the neighbour asked about last */
	bool last_trusted;
	uint32_t last_src; /* learned from it, or known */
	struct wvm_forward_counters counters;
};

/* mtu: 576 to 65,507 bytes, the size of all buffers. routes stay the caller's. */
void wvm_forward_init(struct wvm_forward *f, struct wvm_routes_table *routes, uint32_t mtu);

/* After a change of the routes by others than this. */
void wvm_forward_routes_changed(struct wvm_forward *f);

/* Whether the lane has no spare buffer, and the buffer that it gets. */
bool wvm_forward_wants(const struct wvm_forward *f, enum wvm_forward_lane lane);
void wvm_forward_supply(struct wvm_forward *f, enum wvm_forward_lane lane, uint8_t *buf);

/* Whether datagrams of this sender are taken; counts one. */
bool wvm_forward_begin(struct wvm_forward *f, struct wvm_hop from);

/*
 * Takes the first segment of what is left of a datagram of `from`, after wvm_forward_begin().
 * Returns the bytes that are done with, at least 1 for len > 0. Then wvm_forward_next() until
 * false.
 */
size_t wvm_forward_segment(struct wvm_forward *f, struct wvm_hop from, const uint8_t *data,
			   size_t len);

/* The next datagram that is to leave. False: there is none. */
bool wvm_forward_next(struct wvm_forward *f, struct wvm_forward_out *out);

/* The end of a batch: the next one of all that are open, CONTROL first. False: there is none. */
bool wvm_forward_flush(struct wvm_forward *f, struct wvm_forward_out *out);

#endif

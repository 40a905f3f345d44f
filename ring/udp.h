/*
 * UDP (IPv4) of a shard: receiving in batches, sending in batches.
 *
 * In: one multishot recvmsg into a ring of provided buffers, UDP_GRO on. A
 * batch that the kernel merged is handed over datagram by datagram. When the
 * buffers run out the receive is armed again at the next turn, counted.
 * Out: messages are encoded straight into transmit buffers; consecutive ones
 * of one size to one peer leave as one sendmsg with UDP_SEGMENT. Everything
 * committed in a turn leaves at its end.
 *
 * Several shards share a port: a group of sockets with SO_REUSEPORT, and a
 * classic-BPF program that picks socket `steer % shards`, steer being a
 * big-endian 16-bit field at a fixed place in every datagram. The kernel applies
 * it to the first datagram of a merged batch only, so the receiver must check
 * each one: wvm_udp_owner(), wvm_udp_forward().
 *
 * The socket never fragments (DF set). UDP loses, duplicates and reorders; so
 * does this layer's first batch to a peer whose path turns out to refuse GSO.
 */
#ifndef WVM_RING_UDP_H
#define WVM_RING_UDP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/shard.h"

struct wvm_udp; /* one shard's socket */

/* CONTROL always leaves before BULK; BULK leaves by quota, opts.bulk_quota datagrams a turn. */
enum wvm_lane { WVM_LANE_CONTROL, WVM_LANE_BULK, WVM_LANES };

/* Segments per sendmsg: UDP_MAX_SEGMENTS of the oldest kernels, and what fits an IP datagram. */
#define WVM_GSO_SEGMENTS 64
#define WVM_GSO_BYTES    65000

/*
 * One received datagram. from and data are valid during the call only; data has
 * no alignment. Called in the shard's thread.
 */
typedef void (*wvm_datagram_fn)(void *ctx, const struct sockaddr_in *from, const uint8_t *data,
				size_t len);

/* Zero means the default in the comment. */
struct wvm_udp_opts {
	struct sockaddr_in bind;  /* address and port; port 0: the kernel's choice */
	wvm_datagram_fn datagram; /* required */
	/*
	 * May be NULL. After a reserve failed: called once when buffers are free again. What it
	 * commits leaves in the same turn.
	 */
	void (*room)(void *ctx);
	unsigned steer_offset; /* of the 16-bit steering field in the payload; with shards > 1 */
	unsigned datagram_max; /* largest datagram sent, 64 to 65000: 1472 */
	unsigned rx_buffers;   /* receive buffers of 64 KiB per shard, power of two: 64 */
	unsigned tx_buffers;   /* datagrams waiting to leave, per shard: 512 */
	unsigned tx_control;   /* of those kept for CONTROL: an eighth */
	unsigned bulk_quota;   /* BULK datagrams per turn: 256 */
	/*
	 * So many zero bytes at most are put behind a datagram when that lets longer ones share
	 * its sendmsg, for protocols that ignore them: none.
	 */
	unsigned pad_max;
	int socket_bytes; /* SO_RCVBUF and SO_SNDBUF: 8 MiB */
};

/*
 * Opens one socket per shard on the same address, out[i] belonging to shards[i]
 * with ctx[i] for its callbacks (ctx NULL: all NULL), n from 1 to 1024. All
 * shards in the thread that created them, before they start; shards[i]->index
 * need not be i. Memory is taken here, none later. Returns 0, or -errno with one
 * line in why, nothing left open:
 *   -EADDRINUSE     somebody else has the port (another group too: none can join it)
 *                   and did not let go of it within a second; waits so long, since the kernel
 *                   closes the sockets of a dead process's io_uring a moment after its end
 *   -EADDRNOTAVAIL  the address is not this host's
 *   -ENOTSUP        the kernel has no multishot recvmsg
 *   -EINVAL         an option out of range
 * A non-empty why on success is a hint for the log (receive buffer cut by
 * net.core.rmem_max).
 */
int wvm_udp_open(struct wvm_udp **out, struct wvm_shard *const *shards, void *const *ctx,
		 unsigned n, const struct wvm_udp_opts *opts, char *why, size_t why_len);

/*
 * Frees one socket; no shard of the group may run, and its own must not be destroyed yet (the
 * kernel keeps the port until it is). NULL is allowed.
 */
void wvm_udp_close(struct wvm_udp *u);

/* The descriptor, for getsockname and socket options; the address it is bound to. */
int wvm_udp_fd(const struct wvm_udp *u);
struct sockaddr_in wvm_udp_address(const struct wvm_udp *u);

/*
 * Which socket of the group (0 .. n - 1) a datagram belongs to, as the BPF program
 * decides it: steer % n, and 0 for one that is too short to have the field.
 */
unsigned wvm_udp_owner(const struct wvm_udp *u, const uint8_t *data, size_t len);
/* This socket's own number in the group. */
unsigned wvm_udp_index(const struct wvm_udp *u);

/*
 * Hands a datagram to socket `owner` of the group by cross-shard message; its
 * datagram function gets a copy. Counted in rx_foreign; when its inbox is full the
 * datagram is lost like any other, counted in rx_foreign_lost. The inbox's
 * opts.inbox_bytes must be at least datagram_max + 16. Returns 0, -EAGAIN, -EMSGSIZE.
 */
int wvm_udp_forward(struct wvm_udp *u, unsigned owner, const struct sockaddr_in *from,
		    const uint8_t *data, size_t len);

/*
 * Takes a transmit buffer of opts.datagram_max bytes, 64-byte aligned, not
 * cleared. NULL when none is free for this lane (counted in tx_pool_empty): the caller keeps
 * its message until opts.room(). Give it back with commit or cancel.
 * Any number may be reserved at a time.
 */
uint8_t *wvm_udp_reserve(struct wvm_udp *u, enum wvm_lane lane);

/* How many buffers a lane could reserve now. */
unsigned wvm_udp_free(struct wvm_udp *u, enum wvm_lane lane);

/*
 * Sends the len bytes (1 .. datagram_max) of a reserved buffer to peer at the end
 * of this turn, in the order of commits within a lane per peer. steer: datagrams with
 * different values never share a sendmsg. A datagram that cannot be sent is dropped and
 * counted by reason; nothing here is fatal and nothing is reported back. The lane
 * must be that of the reserve.
 */
void wvm_udp_commit(struct wvm_udp *u, enum wvm_lane lane, const struct sockaddr_in *peer,
		    uint16_t steer, uint8_t *buf, size_t len);

/* Returns a reserved buffer unsent. */
void wvm_udp_cancel(struct wvm_udp *u, enum wvm_lane lane, uint8_t *buf);

/* Reserve, copy, commit. 0, or -EAGAIN when no buffer is free, -EMSGSIZE above datagram_max. */
int wvm_udp_send(struct wvm_udp *u, enum wvm_lane lane, const struct sockaddr_in *peer,
		 uint16_t steer, const void *data, size_t len);

/* Whether nothing of this socket waits to be sent or is being sent. */
bool wvm_udp_idle(struct wvm_udp *u);

#endif

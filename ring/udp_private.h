/*
 * What udp.c (sockets, receiving) and udp_tx.c (sending) share.
 */
#ifndef WVM_RING_UDP_PRIVATE_H
#define WVM_RING_UDP_PRIVATE_H

#include <sys/socket.h>

#include "ring/bufring.h"
#include "ring/standing.h"
#include "ring/udp.h"

#define WVM_UDP_RECENT 8  /* batches looked at for one to append to */
#define WVM_UDP_NO_GSO 64 /* peers remembered as refusing UDP_SEGMENT, power of two */
#define WVM_UDP_ALIGN  64 /* of transmit buffers */

enum wvm_batch_state {
	WVM_BATCH_OPEN,    /* in a lane's queue */
	WVM_BATCH_ISSUED,  /* handed to the kernel, over at once; or next in the blocked queue */
	WVM_BATCH_BLOCKED, /* first of the blocked queue: the kernel waits for the socket buffer */
	WVM_BATCH_SINGLE,  /* being sent datagram by datagram */
};

/* One sendmsg: up to WVM_GSO_SEGMENTS datagrams of one size (the last may be shorter). */
struct wvm_batch {
	struct wvm_link link; /* lane queue, issued, blocked */
	struct wvm_io io;
	struct wvm_udp *udp;
	struct sockaddr_in peer;
	uint32_t issue;       /* wvm_shard_issue() */
	uint16_t count, size; /* datagrams, bytes of the first */
	uint16_t steer;
	uint16_t next; /* WVM_BATCH_SINGLE: the one in flight */
	uint8_t state;
	uint8_t lane;
	bool single_ok; /* WVM_BATCH_SINGLE: one of them got through */
	struct msghdr msg;
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(uint16_t))];
	struct iovec iov[WVM_GSO_SEGMENTS];
};

struct wvm_lane_queue {
	struct wvm_link head;
	unsigned datagrams;
	unsigned reserved;                        /* buffers out of wvm_udp_reserve() */
	struct wvm_batch *recent[WVM_UDP_RECENT]; /* newest first, all in the queue */
	unsigned recent_count;
};

/* All fields written by the shard's thread once it runs. */
struct wvm_udp {
	struct wvm_shard *shard;
	void *ctx;
	struct wvm_udp_opts opts;
	int fd, slot;
	unsigned index;       /* in the group */
	unsigned group_count; /* sockets of the group */
	struct wvm_udp **group;
	struct sockaddr_in address;
	struct wvm_hook hook;

	struct wvm_standing rx;
	struct wvm_bufring rx_bufs;
	struct msghdr rx_msg;

	uint8_t *tx_mem;
	size_t tx_stride;
	uint8_t **tx_free; /* stack */
	unsigned tx_free_count;
	struct wvm_batch *batches;
	struct wvm_batch **batch_free; /* stack */
	unsigned batch_free_count;
	struct wvm_lane_queue lanes[WVM_LANES];
	struct wvm_link issued;  /* in order of issue */
	struct wvm_link blocked; /* sent one after the other, the first is in flight */
	bool starved;            /* a reserve failed since room() */
	unsigned singles;        /* batches in WVM_BATCH_SINGLE */
	struct in_addr no_gso[WVM_UDP_NO_GSO];
};

/* udp_tx.c, for udp.c. 0 or -ENOMEM. */
int wvm_udp_tx_open(struct wvm_udp *u);
void wvm_udp_tx_close(struct wvm_udp *u);
/* The flushing hook: recycles what is over, issues what was committed. */
bool wvm_udp_tx_flush(struct wvm_hook *h, uint64_t now_ns);

#endif

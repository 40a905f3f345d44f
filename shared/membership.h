/*
 * Live membership of one node: a gossip object and an epoch machine (shared/core/), driven
 * together. Datagrams of types 40 to 44 go in, and come out; what the machines find out goes to
 * the user's functions. shared/PROTOCOL.md, Gossip and Epochs.
 *
 * Nobody is believed who is not known: a message's source address, the address that it names for
 * itself, and those of all nodes that it tells about must be what where() says.
 *
 * SAVE comes before SEND: while a store is under way the epoch machine stands still. Ballots that
 * come meanwhile are dropped, as the network may drop them; gossip goes on.
 *
 * No I/O, no clock, no allocation. One object belongs to one thread. Times are nanoseconds of one
 * monotonic clock. After every call, wvm_membership_tick() is due at wvm_membership_deadline().
 */
#ifndef WVM_MEMBERSHIP_H
#define WVM_MEMBERSHIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/epoch.h"
#include "shared/core/gossip.h"
#include "shared/core/route.h"

#define WVM_MEMBERSHIP_DATAGRAM (WVM_HEADER_BYTES + WVM_GOSSIP_BYTES_MAX)

/* None may call back into the object, but for wvm_membership_busy(). */
struct wvm_membership_ops {
	/* Where a node takes these messages; false: there is no such node. For itself, too. */
	bool (*where)(void *ctx, uint32_t node, struct wvm_hop *out);
	/* A datagram of at most WVM_MEMBERSHIP_DATAGRAM bytes. False: it could not be sent. */
	bool (*send)(void *ctx, uint32_t node, const struct wvm_hop *to, const uint8_t *bytes,
		     size_t len);
	/*
	 * Begins to store *d (valid for this call) durably; when that is done, and not before,
	 * wvm_membership_saved() is called, after this has returned. If it fails it is tried until
	 * it succeeds: until then this node has no part in any vote.
	 */
	void (*save)(void *ctx, const struct wvm_epoch_durable *d);
	/* Gossip says of a peer: node, status, life, incarnation. */
	void (*note)(void *ctx, const struct wvm_gossip_action *note, uint64_t now_ns);
	/*
	 * The record is decided and stored, and comes after the one before: the view changes by it.
	 * Once after each start for the record that is the present one already. No peer has been
	 * told yet that this node is in that epoch: if its part of a hand-over there is not done,
	 * it says so here (wvm_membership_busy()).
	 */
	void (*learnt)(void *ctx, const struct wvm_epoch_record *record,
		       enum wvm_epoch_verdict verdict);
	/* That node is in `epoch`, which is too far ahead for records one by one. */
	void (*behind)(void *ctx, uint32_t node, uint32_t epoch);
};

/* Since the start. received = gossip + ballots + the sum of drops. */
struct wvm_membership_counters {
	uint64_t received, gossip, ballots;
	uint64_t gossip_sent, ballots_sent;
	uint64_t unsent; /* no buffer, or nobody knows where to */
	uint64_t busy;   /* ballots dropped during a store; in drops[WVM_DROP_ROOM], too */
	uint64_t saves;
	uint64_t drops[WVM_DROP_REASONS];
};

/* Written by the functions below alone, read by its user. */
struct wvm_membership {
	const struct wvm_membership_ops *ops;
	void *ctx;
	struct wvm_gossip_config config;
	struct wvm_gossip *gossip;
	struct wvm_epoch epoch;
	uint32_t self;
	uint32_t told;  /* the epoch that gossip is to know of */
	uint32_t heard; /* a later one that a node is in; 0: none */
	uint32_t heard_of;
	bool saving;
	struct wvm_membership_counters counters;
};

/*
 * self: node, ip, port, incarnation, busy; the rest is set here (one group of tier 0 with all ids).
 * memory: wvm_gossip_bytes(room), aligned for 8 bytes, the caller's. durable passes its check.
 * mtu: of datagrams, WVM_MTU_MIN or more. where() must know self. It says nothing yet.
 */
void wvm_membership_init(struct wvm_membership *m, const struct wvm_membership_ops *ops, void *ctx,
			 void *memory, uint32_t room, uint32_t mtu,
			 const struct wvm_gossip_self *self,
			 const struct wvm_epoch_durable *durable, uint64_t seed, uint64_t now_ns);

/* A node of the first view. Before wvm_membership_life(). False: not known, or no room. */
bool wvm_membership_add(struct wvm_membership *m, uint32_t node, uint64_t now_ns);

/* Records before the present one, for others, as wvm_epoch_keep(). Before wvm_membership_life(). */
void wvm_membership_keep(struct wvm_membership *m, const struct wvm_epoch_record *records,
			 uint32_t count);

/* Begins, or this node's life has changed; OFFLINE: its farewell, after which it ends. */
void wvm_membership_life(struct wvm_membership *m, enum wvm_node_state life, uint64_t now_ns);

/*
 * Whether this node's part of a hand-over in its epoch is not done, as wvm_gossip_busy(). May be
 * called from all functions of ops; its deadline does not change.
 */
void wvm_membership_busy(struct wvm_membership *m, bool busy);

/* Whether a type of message is one for this. */
bool wvm_membership_takes(uint8_t type);

/* Any bytes from any address. Why it was dropped (and counted), or NONE. */
enum wvm_drop wvm_membership_datagram(struct wvm_membership *m, const struct wvm_hop *from,
				      const uint8_t *data, size_t len, uint64_t now_ns);
/* The same for one that wvm_wire_decode() has taken. */
enum wvm_drop wvm_membership_segment(struct wvm_membership *m, const struct wvm_hop *from,
				     const struct wvm_msg *msg, const uint8_t *payload,
				     uint64_t now_ns);

/* What was given to save() is stored. */
void wvm_membership_saved(struct wvm_membership *m, uint64_t now_ns);

/*
 * Wishes for a change, as wvm_epoch_wish(). 0; -EBUSY: a wish or a store is under way; -EINVAL: the
 * record does not follow the present one.
 */
int wvm_membership_wish(struct wvm_membership *m, const struct wvm_epoch_record *record,
			uint64_t now_ns);

/*
 * The record that a whole view ends with, as wvm_epoch_install(): what behind() asks for. 0;
 * -EBUSY: a store is under way; -EINVAL: it is not later than the present one.
 */
int wvm_membership_install(struct wvm_membership *m, const struct wvm_epoch_record *record,
			   uint64_t now_ns);

void wvm_membership_tick(struct wvm_membership *m, uint64_t now_ns);
uint64_t wvm_membership_deadline(const struct wvm_membership *m); /* UINT64_MAX: none */

const char *wvm_gossip_status_name(uint8_t status); /* "ALIVE" */
const char *wvm_node_state_name(uint8_t state);     /* "ACTIVE" */
const char *wvm_epoch_phase_name(uint8_t phase);    /* "idle" */

#endif

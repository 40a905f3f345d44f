/*
 * Before a home serves: the other members are asked what they ever took from
 * this node (REPORT). All that may have taken something must have answered: nothing else
 * makes "never written" a fact. Members that are OFFLINE or SHADOW have nothing of anybody,
 * and need not be asked (others answer for what they took: wvm_core_left()): who is to be asked
 * is the user's to say. A member that has taken pages
 * from an earlier life of this node makes it refuse to serve, since its
 * directory and stored copies are gone: better no answer than zeros. (What was taken from
 * one that has handed all over since does not count: wvm_core_handed_over(). Copies that a second
 * home took do.) So does
 * one with other members or placed ranges, which would look for pages elsewhere.
 *
 * Nodes may be in different epochs meanwhile. An answer from an earlier one counts: what was taken
 * of this node was taken. One from a later one does not: slices may have left this node there, and
 * it must not serve them, so it has to learn that epoch first (wvm_join_epoch()), and asks again
 * until then. Questions are answered whatever their epoch.
 *
 * One machine per node, driven by one shard. Sans I/O like the core.
 */
#ifndef WVM_CORE_JOIN_H
#define WVM_CORE_JOIN_H

#include "shared/core/msg.h"
#include "shared/core/slices.h"

enum wvm_join_state {
	WVM_JOIN_ASKING,
	WVM_JOIN_SERVING,
	WVM_JOIN_REFUSED, /* `refuser` has taken pages from an earlier life of this node */
	WVM_JOIN_DIFFERS, /* `refuser` has another idea of the cluster: its `refuser_identity` */
};

/* Of a member, in wvm_join.answered. */
enum {
	WVM_JOIN_WAITED_FOR, /* asked, and has not answered */
	WVM_JOIN_ANSWERED,   /* or it is this node */
	WVM_JOIN_NOT_ASKED,
};

#define WVM_JOIN_RETRY_NS UINT64_C(200000000)

struct wvm_join {
	const struct wvm_members *members;
	uint8_t *answered; /* one per member, the caller's: WVM_JOIN_WAITED_FOR … */
	uint32_t self;
	uint32_t missing; /* members that are waited for, while ASKING */
	uint32_t refuser;
	uint32_t epoch; /* the latest that this node has learnt */
	uint16_t boot;
	uint64_t refuser_grants;
	uint64_t refuser_identity;
	uint64_t identity; /* a hash of all that must be the same everywhere */
	uint64_t next_ns;  /* when the unanswered are asked again */
	uint32_t cursor;   /* of wvm_join_poll() within a round */
	enum wvm_join_state state;
};

/*
 * answered: members->count bytes, which stay the caller's and in use. asked: one byte for each
 * member, read by this call alone: whether it is asked; NULL: all are; that of self is not
 * looked at. identity: of what decides who is home of what. Nobody to ask: SERVING.
 */
void wvm_join_init(struct wvm_join *j, const struct wvm_members *members, uint8_t *answered,
		   uint32_t self, uint32_t epoch, uint16_t boot, uint64_t identity,
		   const uint8_t *asked);

/*
 * This node has learnt that epoch, which is not before its present one, and from now on these are
 * to be asked (as in wvm_join_init()). Who has answered has; who is asked anew is so in the next
 * round; who is not asked any more is not waited for, so the state may become SERVING. A node
 * that is not ASKING asks nobody: only its answers name the epoch.
 */
void wvm_join_epoch(struct wvm_join *j, uint32_t epoch, const uint8_t *asked);

/* Asks nobody: a former life has, and its directory and stored copies are here. */
void wvm_join_resume(struct wvm_join *j);

/* The next REPORT to send at now_ns: fills msg and returns its member, or UINT32_MAX for none. */
uint32_t wvm_join_poll(struct wvm_join *j, uint64_t now_ns, struct wvm_msg *msg);

/* When wvm_join_poll() has something again, or UINT64_MAX. */
uint64_t wvm_join_deadline(const struct wvm_join *j);

/*
 * A REPORT from `member`. One that asks is answered: `taken` is how many
 * grants this node took from that member, all shards together; true means that *reply
 * is to be sent back, also to one with another identity: it is told, and is to end. It
 * answers nobody any more then, lest others who still ask end, too.
 * One that answers moves the state on, unless it is in a later epoch than this node. Another
 * identity counts from any epoch: it is that of the topology.
 */
bool wvm_join_message(struct wvm_join *j, uint32_t member, const struct wvm_msg *msg,
		      uint64_t taken, struct wvm_msg *reply);

#endif

/*
 * Before a home serves: every other member is asked what it ever took from
 * this node (REPORT). With static membership all members must have answered;
 * nothing else makes "never written" a fact. A member that has taken pages
 * from an earlier life of this node makes it refuse to serve, since its
 * directory and stored copies are gone: better no answer than zeros. (What was taken from
 * one that has handed all over since does not count: wvm_core_handed_over().) So does
 * one with other members or placed ranges, which would look for pages elsewhere.
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

#define WVM_JOIN_RETRY_NS UINT64_C(200000000)

struct wvm_join {
	const struct wvm_members *members;
	uint8_t *answered; /* one per member, the caller's */
	uint32_t self;
	uint32_t missing; /* members that have not answered */
	uint32_t refuser;
	uint32_t epoch;
	uint16_t boot;
	uint64_t refuser_grants;
	uint64_t refuser_identity;
	uint64_t identity; /* a hash of all that must be the same everywhere */
	uint64_t next_ns;  /* when the unanswered are asked again */
	uint32_t cursor;   /* of wvm_join_poll() within a round */
	enum wvm_join_state state;
};

/* answered: members->count bytes. identity: of what decides who is home of what. */
void wvm_join_init(struct wvm_join *j, const struct wvm_members *members, uint8_t *answered,
		   uint32_t self, uint32_t epoch, uint16_t boot, uint64_t identity);

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
 * One that answers moves the state on.
 */
bool wvm_join_message(struct wvm_join *j, uint32_t member, const struct wvm_msg *msg,
		      uint64_t taken, struct wvm_msg *reply);

#endif

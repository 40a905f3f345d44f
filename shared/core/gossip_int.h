/* Between the files of gossip: gossip.c (inputs, news), gossip_probe.c, gossip_view.c (the view).
 */
#ifndef WVM_CORE_GOSSIP_INT_H
#define WVM_CORE_GOSSIP_INT_H

#include "shared/core/assert.h"
#include "shared/core/gossip.h"
#include "shared/core/random.h"

#define WVM_GOSSIP_NEVER UINT64_MAX
#define WVM_GOSSIP_NIL   UINT32_MAX

/* Where an entry comes from. */
enum wvm_gossip_how {
	WVM_GOSSIP_ADDED,  /* the user: no note, and nobody is told */
	WVM_GOSSIP_WORD,   /* the node itself */
	WVM_GOSSIP_TOLD,   /* news */
	WVM_GOSSIP_VIEWED, /* another's view, which may be old: a verdict in it is a suspicion */
};

/* ---- gossip_view.c ---- */

/* By an id; WVM_GOSSIP_NIL: not in the view. */
uint32_t wvm_gossip_index(const struct wvm_gossip *g, uint32_t node);
/* Of the group; else it is one of the others. */
bool wvm_gossip_member(const struct wvm_gossip *g, const struct wvm_gossip_peer *p);
/* Of a higher tier, and of the group. */
bool wvm_gossip_parent(const struct wvm_gossip *g, const struct wvm_gossip_peer *p);

/* Takes an entry about another node over where it is later than what is known. */
bool wvm_gossip_apply(struct wvm_gossip *g, const struct wvm_gossip_entry *e,
		      enum wvm_gossip_how how, uint64_t now_ns);
/* Own verdicts: p->incarnation is `status` from now on. */
void wvm_gossip_judge(struct wvm_gossip *g, uint32_t index, enum wvm_gossip_status status,
		      uint64_t now_ns);
void wvm_gossip_forget(struct wvm_gossip *g, uint32_t index);

/* The next `room` entries of news, to m behind what it has; each is told once less. */
void wvm_gossip_tell(struct wvm_gossip *g, struct wvm_gossip_msg *m, uint32_t room);
/* Those with ids from m->target on, ascending; sets target to where to go on. */
void wvm_gossip_list(const struct wvm_gossip *g, struct wvm_gossip_msg *m, uint32_t room);
void wvm_gossip_entry_of(struct wvm_gossip_entry *e, const struct wvm_gossip_peer *p);

/* ---- gossip.c ---- */

/* A message to be sent; counted and lost if there are too many of this input. */
void wvm_gossip_put(struct wvm_gossip *g, const struct wvm_gossip_out *o);
void wvm_gossip_send(struct wvm_gossip *g, const struct wvm_gossip_peer *p, uint8_t kind,
		     uint32_t seq, uint32_t target);
/* To whoever has sent m. */
void wvm_gossip_answer(struct wvm_gossip *g, uint32_t from, const struct wvm_gossip_msg *m,
		       uint8_t kind, uint32_t target);

/* ---- gossip_probe.c ---- */

enum wvm_gossip_whom {
	WVM_GOSSIP_A_MEMBER, /* not dead */
	WVM_GOSSIP_A_PARENT, /* not dead */
	WVM_GOSSIP_A_DEAD,   /* that has not said so itself */
	WVM_GOSSIP_A_OTHER,
	WVM_GOSSIP_A_ANYBODY, /* not dead */
};

/* Up to n peers more, at random, but not that node: their indexes to have[*at] on. */
void wvm_gossip_choose(struct wvm_gossip *g, enum wvm_gossip_whom whom, uint32_t except,
		       uint32_t *have, uint32_t *at, uint32_t n);
uint32_t wvm_gossip_new_seq(struct wvm_gossip *g);

bool wvm_gossip_slow(const struct wvm_gossip *g);
/* The score gets worse by that much. */
void wvm_gossip_unwell(struct wvm_gossip *g, uint64_t by);

/* What tick does at period_at, direct_at, expiry_at and relay_at. */
void wvm_gossip_period(struct wvm_gossip *g, uint64_t now_ns);
void wvm_gossip_ask_others(struct wvm_gossip *g);
void wvm_gossip_convict(struct wvm_gossip *g, uint64_t now_ns);
void wvm_gossip_relays_end(struct wvm_gossip *g, uint64_t now_ns);
void wvm_gossip_no_probe(struct wvm_gossip *g);

enum wvm_drop wvm_gossip_probe_for(struct wvm_gossip *g, uint32_t from,
				   const struct wvm_gossip_msg *m, uint64_t now_ns);
/* An ACK or NACK. */
enum wvm_drop wvm_gossip_acked(struct wvm_gossip *g, uint32_t from, const struct wvm_gossip_msg *m,
			       uint64_t now_ns);

static inline uint64_t wvm_gossip_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How often a node tells what it has learnt. */
static inline uint8_t wvm_gossip_sends(const struct wvm_gossip *g)
{
	uint32_t n = g->members + 1, digits = 0;

	for (; n; n /= 10)
		digits++;
	return (uint8_t)(g->config->lambda * digits);
}

/* A wait of a node that may be slow itself (Lifeguard: local health multiplier). */
static inline uint64_t wvm_gossip_wait(const struct wvm_gossip *g, uint64_t ns)
{
	return ns * (g->health + 1u);
}

#endif

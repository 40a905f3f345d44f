/*
 * Gossip: who of a group of nodes answers, and which epoch others are in (shared/PROTOCOL.md,
 * Gossip). It detects and never decides: it hands notes (that node is alive, suspect, dead) and the
 * epochs that it hears of to its user, and only an epoch record changes who is a member.
 *
 * SWIM (Das, Gupta, Motivala 2002): in each period a node probes one member of its group, all
 * in a shuffled round; a member that is silent is probed through others; silent again, it is
 * SUSPECT, which it may refute by a higher incarnation; after a while it is DEAD. Shortly
 * before that whoever holds it for SUSPECT probes it: its refutation may have passed this node
 * by, and the probe tells it of the suspicion. What a node learns rides on its messages, to
 * each of which it adds what it told least often. From Lifeguard (Dadgar, Phillips, Currey
 * 2018) come the answer NACK of one who probed for another in vain, the telling of a suspicion
 * to the suspect first, and self-health: a score that rises when this node is the likely cause
 * of a silence. All waits of a node grow with it, and above WVM_GOSSIP_SLOW it accuses nobody.
 * A node that was called late knows that by its own deadlines: all open waits move on by as
 * much, so a stuck thread condemns none.
 *
 * Groups and tiers. Nodes form a tree of gateways. An object stands for its node in one group: the
 * nodes whose id is in [first, first + count) and whose top tier is at least the group's tier. So
 * all hosts of a pod are a group of tier 0, the gateways of pods that lie in one zone a group of
 * tier 1, and so on; a gateway of tier t runs an object for each tier up to t, and its user
 * carries epochs between these (wvm_gossip_epoch()). In its view an object keeps, in this order:
 *
 *	parents  members of its group whose top tier is higher: the way to other groups
 *	members  the rest of the group
 *	others   of the same tier outside of the group: a sample that is uniform over all that it
 *		 ever heard of, whoever is named how often (the lowest of a salted hash)
 *
 * A full view takes somebody who comes before the last one in this order (among the DEAD first,
 *then others, members, parents, by that hash), and else does not: counted in `full`. Parents and
 *members are probed, accused and told about; others are asked for their view now and then, told of
 *a new epoch, and forgotten when silent.
 *
 * No I/O, no clock, no allocation. One object belongs to one thread. Times are nanoseconds of one
 * monotonic clock. After every input take actions by wvm_gossip_next() until there is none;
 * call wvm_gossip_tick() at wvm_gossip_deadline().
 */
#ifndef WVM_CORE_GOSSIP_H
#define WVM_CORE_GOSSIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/msg.h"

#define WVM_GOSSIP_ROOM     1024u  /* peers in a view, unless the user says otherwise: design.md */
#define WVM_GOSSIP_ROOM_MAX 32767u /* indexes of 16 bits, two slots of the hash table for each */
#define WVM_GOSSIP_ENTRIES  68u    /* of one message: what fits into WVM_MTU_DEFAULT */
#define WVM_GOSSIP_OUT      24u    /* messages of one input; what is above is lost, and counted */
#define WVM_GOSSIP_NOTES    72u /* of one input: an entry each, the sender's, one's own suspect */
#define WVM_GOSSIP_RELAYS   8u  /* probes for others at a time; more are dropped, as if lost */
#define WVM_GOSSIP_ASKED    4u  /* helpers of one probe, at most */
#define WVM_GOSSIP_TIERS    4u  /* leaf, pod, zone, core: design.md */
#define WVM_GOSSIP_HEALTH   8u  /* the worst; Lifeguard's S. 0 is well */
#define WVM_GOSSIP_SLOW     3u  /* from here on it accuses nobody */

/* Of one's own; a node that has come to the last one can refute no more. */
#define WVM_GOSSIP_INCARNATION_MAX (UINT32_C(1) << 31)

/* The first incarnation of a life: above all of the lives before, whose boots were lower. */
static inline uint32_t wvm_gossip_incarnation(uint16_t boot)
{
	return ((uint32_t)boot & 0x7fff) << 16 | 1;
}

/* The life that an incarnation is of. */
static inline uint32_t wvm_gossip_boot(uint32_t incarnation)
{
	return incarnation >> 16;
}

enum wvm_gossip_status {
	WVM_GOSSIP_ALIVE = 1,
	WVM_GOSSIP_SUSPECT,
	WVM_GOSSIP_DEAD, /* or, with life OFFLINE, gone as it said itself */
	WVM_GOSSIP_STATUSES,
};

enum wvm_gossip_kind {
	WVM_GOSSIP_PROBE = 1, /* are you there? ACK with its seq */
	WVM_GOSSIP_ACK,       /* target is there */
	WVM_GOSSIP_PROBE_FOR, /* probe target for me: ACK with its seq, or NACK */
	WVM_GOSSIP_NACK,      /* target did not answer me either, but I do */
	WVM_GOSSIP_NEWS,      /* entries, and the sender's epoch */
	WVM_GOSSIP_ANNOUNCE,  /* here is a node or gateway, in that state, epoch and health */
	WVM_GOSSIP_PULL,      /* what do you know of ids from target on? VIEW with its seq */
	WVM_GOSSIP_VIEW,      /* entries by ascending id; target: where to go on, or WVM_NODE_MAX */
	WVM_GOSSIP_KINDS,
};

/* What one node says of another. 20 bytes without padding. */
struct wvm_gossip_entry {
	uint32_t node; /* below WVM_NODE_MAX */
	uint32_t incarnation;
	uint32_t ip; /* of its control port, host order */
	uint16_t port;
	uint8_t status;  /* enum wvm_gossip_status */
	uint8_t life;    /* enum wvm_node_state */
	uint8_t top;     /* the highest tier that it is a gateway of; 0: it is none */
	uint8_t zero[3]; /* 0 */
};
_Static_assert(sizeof(struct wvm_gossip_entry) == 20, "the size stated above");

/* A message; the sender's id travels in the header around it. Entries behind `count` are unused. */
struct wvm_gossip_msg {
	uint8_t kind; /* enum wvm_gossip_kind */
	uint8_t tier; /* of the group that the sender speaks in */
	uint8_t top;  /* the sender's: top, life, health, address, epoch, incarnation */
	uint8_t life;
	uint8_t health;
	uint8_t busy; /* 1: the sender's part of a hand-over in its epoch is not done; else 0 */
	uint16_t count;
	uint16_t port;
	uint16_t zero2;
	uint32_t ip;
	uint32_t epoch; /* that it is in; 0: in none yet */
	uint32_t incarnation;
	uint32_t seq;    /* PROBE to NACK, PULL, VIEW: not 0; else 0 */
	uint32_t target; /* as said at the kinds; else 0 */
	struct wvm_gossip_entry entry[WVM_GOSSIP_ENTRIES];
};

/*
 * Bytes, big-endian: kind 1, tier 1, top 1, life 1, health 1, busy 1, count 2, port 2, 0 2, ip 4,
 * epoch 4, incarnation 4, seq 4, target 4; then of each entry node 4, incarnation 4, ip 4, port 2,
 * status 1, life 1, top 1, 0 3.
 */
#define WVM_GOSSIP_HEAD_BYTES  32u
#define WVM_GOSSIP_ENTRY_BYTES 20u
#define WVM_GOSSIP_BYTES_MAX   (WVM_GOSSIP_HEAD_BYTES + WVM_GOSSIP_ENTRIES * WVM_GOSSIP_ENTRY_BYTES)
_Static_assert(WVM_HEADER_BYTES + WVM_GOSSIP_BYTES_MAX <= WVM_MTU_DEFAULT, "one datagram");

/* Whether its fields are in their ranges, and life OFFLINE goes with DEAD alone. */
bool wvm_gossip_entry_check(const struct wvm_gossip_entry *e);
/* Whether a message has the fields of its kind, in their ranges, and no others. */
bool wvm_gossip_msg_check(const struct wvm_gossip_msg *m);
/* m must pass wvm_gossip_msg_check(). Returns the bytes written, at most WVM_GOSSIP_BYTES_MAX. */
size_t wvm_gossip_encode(uint8_t out[WVM_GOSSIP_BYTES_MAX], const struct wvm_gossip_msg *m);
/* False, and *m is not to be used, unless these are the bytes of a message that passes the check.
 */
bool wvm_gossip_decode(struct wvm_gossip_msg *m, const uint8_t *bytes, size_t len);
/* The type of the message around it: HEARTBEAT, NODE_ANNOUNCE, VIEW_PULL or VIEW_ACK. */
enum wvm_msg_type wvm_gossip_type(uint8_t kind);

/* Numbers that a cluster shares. Stays as it is while objects use it. */
struct wvm_gossip_config {
	uint64_t period_ns;  /* one probe in each */
	uint64_t direct_ns;  /* without an answer for so long, others are asked; below period_ns */
	uint64_t suspect_ns; /* from SUSPECT to DEAD */
	uint64_t news_ns;    /* between two rounds of NEWS, of which there are none without news */
	uint64_t pull_ns;    /* between two PULLs, in a group of 32; grows with log2(size) */
	uint32_t mtu;        /* WVM_MTU_MIN to WVM_MTU_DEFAULT; UDP payload */
	uint8_t fanout;      /* whom a round of NEWS goes to; 1 to 8 */
	uint8_t helpers;     /* through whom a silent member is probed; 0 to WVM_GOSSIP_ASKED */
	uint8_t lambda; /* news is told lambda * ceil(log10(size + 1)) times by each; 1 to 16 */
};

/*
 * Period 500 ms, fan-out 3, 5 s: design.md §8. direct: 200 ms, a little less than half of a period
 * as in memberlist (500 ms of 1 s), so that the way through others fits into the rest. Helpers 3,
 * lambda 4, 30 s: memberlist's defaults for a LAN, which name SWIM's k and lambda.
 */
void wvm_gossip_defaults(struct wvm_gossip_config *c);
/* Whether all is in its range. */
bool wvm_gossip_config_check(const struct wvm_gossip_config *c);

/* The node itself, in one group. */
struct wvm_gossip_self {
	uint32_t node;         /* within the group */
	uint32_t first, count; /* ids of the group; count at least 1 */
	uint32_t ip;
	uint16_t port;
	uint8_t tier, top;    /* of the group; of the node, at least that */
	uint32_t incarnation; /* wvm_gossip_incarnation() of its boot; rises */
	uint32_t epoch;       /* that it is in; 0: none */
	uint8_t life;         /* enum wvm_node_state */
	bool busy;            /* its part of a hand-over in that epoch is not done */
};

/* A peer as the view has it. 32 bytes; read by the user. */
struct wvm_gossip_peer {
	uint32_t node, incarnation, ip;
	/* epoch, busy and health are its own word, by the last message of its present life; until
	 * that has come all are 0. What others say of it never changes them, but for a new life. */
	uint32_t epoch; /* 0: not heard */
	uint16_t port;
	uint8_t status, life, top;
	uint8_t health;
	uint8_t sends;     /* how often its news is still to be told */
	uint8_t noted : 1; /* a note of it waits */
	uint8_t busy : 1;  /* in that epoch: what wvm_gossip_busy() was told there */
	uint8_t asked : 2; /* how often, as a SUSPECT, for a last word */
	uint64_t since_ns; /* when it became what status says */
};
_Static_assert(sizeof(struct wvm_gossip_peer) == 32, "the size stated above");

enum wvm_gossip_act {
	WVM_GOSSIP_NOTE,  /* peer is `status` with `incarnation`, in that life; new, or changed */
	WVM_GOSSIP_EPOCH, /* peer `node` says that it is in `epoch`, later than ours: pull */
	WVM_GOSSIP_SEND,  /* msg to node at ip, port */
};

struct wvm_gossip_action {
	enum wvm_gossip_act act;
	uint32_t node, epoch, incarnation;
	uint8_t status, life;
	uint16_t port;
	uint32_t ip;
	struct wvm_gossip_msg msg;
};

/* Since the start. */
struct wvm_gossip_counters {
	uint32_t probes, failed;  /* failed: unanswered, also through others */
	uint32_t suspected, dead; /* verdicts that this node came to itself */
	uint32_t refuted;         /* of what was said of this node */
	uint32_t held;            /* suspicions not raised or carried out, as this node was slow */
	uint32_t late;            /* times that it was called later than it asked for */
	uint32_t full;            /* peers not taken, or given up for others, for lack of room */
	uint32_t out_full;        /* messages lost: WVM_GOSSIP_OUT */
	uint32_t relays_full;
	uint32_t conflicts; /* another node claims this one's id: two clusters, or a mistake */
};

struct wvm_gossip_out {
	uint32_t to, ip;
	uint16_t port;
	uint8_t kind, zero;
	uint32_t seq, target;
};

/* A probe for `asker`. until_ns 0: none. */
struct wvm_gossip_relay {
	uint32_t asker, ip, asker_seq, seq, target;
	uint16_t port, zero;
	uint64_t until_ns;
};

/* Written by the functions below alone. With its arrays wvm_gossip_bytes(). */
struct wvm_gossip {
	const struct wvm_gossip_config *config;
	struct wvm_gossip_self self;
	struct wvm_gossip_peer *peer; /* count of them, in no order */
	uint16_t *order; /* of the round: indexes of peers; cursor: the next to probe */
	uint16_t *news;  /* a ring: indexes of peers with sends, least told first */
	uint16_t *slot;  /* hash table of ids: index + 1; 0: free */
	uint32_t room, mask;
	uint32_t count, cursor, news_at_slot, news_count;
	uint32_t members, dead, suspects, others; /* members: of the group, with the dead */
	uint64_t last_place; /* of who is given up first when room is needed, */
	uint32_t last;       /* if last_known: no peer has changed since it was looked for */
	uint32_t seq;
	bool last_known;
	uint8_t health, self_sends, epoch_sends;
	/* The probe of this period; target WVM_NODE_MAX: none, or answered. */
	uint8_t asked_count, nacks; /* nacks: a bit for each of asked */
	uint32_t target, target_seq;
	uint32_t asked[WVM_GOSSIP_ASKED];
	uint64_t direct_at, period_at, news_at, expiry_at, relay_at, pull_at; /* UINT64_MAX: not */
	/* The view that is being asked for; pull_node WVM_NODE_MAX: none. */
	uint32_t pull_node, pull_seq, pull_cursor, pull_tries;
	uint64_t pull_until;
	uint64_t random, salt;
	uint32_t epoch_heard, epoch_node; /* to be said; 0: nothing */
	uint8_t out_count, out_at, note_count, note_at;
	uint16_t note[WVM_GOSSIP_NOTES];
	struct wvm_gossip_out out[WVM_GOSSIP_OUT];
	struct wvm_gossip_relay relay[WVM_GOSSIP_RELAYS];
	struct wvm_gossip_counters counters;
};

/* Bytes of an object with a view of `room` peers: 1 to WVM_GOSSIP_ROOM_MAX. */
size_t wvm_gossip_bytes(uint32_t room);

/*
 * An object in memory of wvm_gossip_bytes(room), aligned for 8 bytes, which stays the caller's;
 * config must pass its check. seed: any, another for each node. It knows nobody and says nothing
 * until wvm_gossip_add() has named some and wvm_gossip_announce() begins.
 */
struct wvm_gossip *wvm_gossip_init(void *memory, uint32_t room,
				   const struct wvm_gossip_config *config,
				   const struct wvm_gossip_self *self, uint64_t seed,
				   uint64_t now_ns);

/*
 * A node that the user knows of, by topology, seeds or an epoch record: taken as news is.
 * False: it is not well-formed, not of this tier, this node itself, or there is no room. No
 * action follows, and actions that wait stay.
 */
bool wvm_gossip_add(struct wvm_gossip *g, const struct wvm_gossip_entry *e, uint64_t now_ns);

/* An epoch record has taken it out. It may come again by news of whoever has not seen that. */
void wvm_gossip_remove(struct wvm_gossip *g, uint32_t node);

/*
 * This node's life has changed; at first, and again whenever it changes. Told to its parents, to
 * some others, and by these on. At first it also pulls a view. OFFLINE: it leaves, refutes no
 * more, and the user sends what there is and ends.
 */
void wvm_gossip_announce(struct wvm_gossip *g, enum wvm_node_state life, uint64_t now_ns);

/* The user has learnt that epoch. If it is later than the one before, it is told on. */
void wvm_gossip_epoch(struct wvm_gossip *g, uint32_t epoch, uint64_t now_ns);

/*
 * Whether this node's part of a hand-over in its epoch is not done: told with every message from
 * now on, and by none of its own. Who learns an epoch that hands over says so before
 * wvm_gossip_epoch(), or else is heard to be done there. May be called between actions.
 */
void wvm_gossip_busy(struct wvm_gossip *g, bool busy);

/*
 * A message that passes wvm_gossip_msg_check(), for this node, from one whose address has been
 * checked. Returns why it was dropped: SOURCE (this node's own id), NODE (of another tier, or a
 * question from outside of the group that only members may ask), STALE (an answer nobody waits
 * for), ROOM (too many probes for others), or NONE.
 */
enum wvm_drop wvm_gossip_message(struct wvm_gossip *g, uint32_t from,
				 const struct wvm_gossip_msg *m, uint64_t now_ns);

void wvm_gossip_tick(struct wvm_gossip *g, uint64_t now_ns);
uint64_t wvm_gossip_deadline(const struct wvm_gossip *g); /* UINT64_MAX: none */

/* The next action; false: none. msg is written for SEND alone. */
bool wvm_gossip_next(struct wvm_gossip *g, struct wvm_gossip_action *a);

/* What the view has of a node, valid until the next input; NULL: nothing. */
const struct wvm_gossip_peer *wvm_gossip_find(const struct wvm_gossip *g, uint32_t node);

#endif

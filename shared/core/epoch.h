/*
 * Epochs: who votes, and how one change of membership after the other is agreed
 * (shared/PROTOCOL.md, Epochs).
 *
 * An epoch record holds one change: a node, its new life state, and who votes on the next record.
 * Record e + 1 is one decree of Paxos among the voters that record e names, so a change of voters
 * takes effect with the record after it, and each record has exactly one electorate. A majority of
 * voters decides; a minority waits. One machine per node, with three parts:
 *
 *	voter     promises ballots and accepts records, for the record after its own epoch alone.
 *		  What it promised and accepted is durable, so that it cannot vote twice.
 *	proposer  IDLE -wish-> PREPARING -majority of promises-> ACCEPTING -majority accepts-> IDLE
 *		  PREPARING, ACCEPTING -refused-> BACKING_OFF -random time-> PREPARING, higher
 *		  any -a record is decided-> IDLE (the wish is WON or LOST)
 *		  It proposes the accepted record of the highest ballot that the promises tell of,
 *		  and its wish only where they tell of none. Any node may propose, voter or not:
 *		  the ballot that it uses is durable as well.
 *	learner   takes records in order: from whoever counted the votes (DECIDED), or, when it
 * hears of a later epoch, one by one from who told (PULL). Each node keeps the last WVM_EPOCH_LOG
 * records for others, since its start or longer (wvm_epoch_keep()); who is further behind is told
 *so (FAR) and needs the whole view, which comes by another way: wvm_epoch_install().
 *
 * No I/O, no clock, no allocation. One object belongs to one thread. Times are nanoseconds of one
 * monotonic clock. To be driven so: after every input (init, wish, message, heard, install, tick)
 * take actions by wvm_epoch_next() until there is none, each carried out before the next is
 * taken; call wvm_epoch_tick() at wvm_epoch_deadline(). A process may end anywhere in between. An
 * input that comes while a SAVE is under way has to wait, or is dropped as the network drops it.
 *
 * A node whose saved state is gone is another node: under its old id it could vote twice. It
 * comes back after a record has taken that id out of the voters.
 */
#ifndef WVM_CORE_EPOCH_H
#define WVM_CORE_EPOCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/msg.h"

#define WVM_EPOCH_VOTERS_MAX 7u
#define WVM_EPOCH_LOG        16u /* records before the present one that are kept for others */
#define WVM_EPOCH_OUT        16u /* messages of one input: to 7 + 7 voters, a changed node, a PULL */

#define WVM_EPOCH_RETRY_NS     UINT64_C(100000000)  /* of a proposal; doubled each time */
#define WVM_EPOCH_RETRY_MAX_NS UINT64_C(1000000000) /* and of a back-off */
#define WVM_EPOCH_BACK_OFF_NS  UINT64_C(20000000)   /* the first one's mean; +- 50 % */
#define WVM_EPOCH_PULL_NS      UINT64_C(200000000)
#define WVM_EPOCH_PULLS        5u /* unanswered; then the next sign of a later epoch begins anew */

/*
 * Ballots: round (from 1) above the proposer's node id; 0 is none. A proposer that has come to the
 * last round waits (2^30 refusals are years), so that no message can make a number wrap.
 */
#define WVM_EPOCH_ROUND_MAX (1u << 30)

static inline uint64_t wvm_epoch_ballot(uint32_t round, uint32_t node)
{
	return (uint64_t)round << 32 | node;
}

static inline uint32_t wvm_epoch_round(uint64_t ballot)
{
	return (uint32_t)(ballot >> 32);
}

static inline uint32_t wvm_epoch_proposer(uint64_t ballot)
{
	return (uint32_t)ballot;
}

/* One change. 40 bytes without padding; two are the same if all bytes are. */
struct wvm_epoch_record {
	uint32_t epoch;    /* its number, from 1; 0: no record, and all else is 0 */
	uint32_t node;     /* whose life changes; ids as in messages, below WVM_NODE_MAX */
	uint8_t state;     /* to this: enum wvm_node_state */
	uint8_t voters;    /* on record epoch + 1: 1 to WVM_EPOCH_VOTERS_MAX */
	uint16_t reserved; /* 0 */
	uint32_t voter[WVM_EPOCH_VOTERS_MAX]; /* ascending, then 0 */
};
_Static_assert(sizeof(struct wvm_epoch_record) == 40, "the size stated above");

/* Whether all is as stated above, and a node that becomes OFFLINE or LOST does not vote. */
bool wvm_epoch_record_check(const struct wvm_epoch_record *r);
bool wvm_epoch_record_same(const struct wvm_epoch_record *a, const struct wvm_epoch_record *b);
/* Its place among the voters, or -1. */
int wvm_epoch_voter(const struct wvm_epoch_record *r, uint32_t node);

/*
 * What outlives the process and the host. 96 bytes without padding. The caller stores it whole
 * (write, fdatasync, rename; or both halves of a pair) and returns the last that was stored.
 */
struct wvm_epoch_durable {
	struct wvm_epoch_record current; /* the last record that this node knows to be decided */
	/* Of the record after it: */
	struct wvm_epoch_record value; /* accepted last */
	uint64_t accepted;             /* at this ballot; 0: nothing */
	uint64_t promised;             /* no lower ballot will be accepted; 0: none yet */
};
_Static_assert(sizeof(struct wvm_epoch_durable) == 96, "the size stated above");

/* A node's first state: that of all nodes after the same first record (epoch 1: the topology). */
void wvm_epoch_first(struct wvm_epoch_durable *d, const struct wvm_epoch_record *first);
/* Whether what was read back can have been saved here. */
bool wvm_epoch_durable_check(const struct wvm_epoch_durable *d);

enum wvm_epoch_kind {
	WVM_EPOCH_PREPARE = 1, /* proposer to voter: ballot */
	WVM_EPOCH_PROMISE, /* the answer: nothing below ballot any more; record accepted at other */
	WVM_EPOCH_ACCEPT,  /* proposer to voter: ballot, record */
	WVM_EPOCH_ACCEPTED, /* the answer: ballot */
	WVM_EPOCH_REFUSED,  /* to PREPARE or ACCEPT of ballot: other is promised, and higher */
	WVM_EPOCH_DECIDED,  /* record, to anybody */
	WVM_EPOCH_PULL,     /* to a node of a later epoch: let me have record `epoch` */
	WVM_EPOCH_FAR,      /* the answer, if that is not kept any more: I am in `epoch` */
	WVM_EPOCH_KINDS,
};

struct wvm_epoch_msg {
	uint8_t kind; /* enum wvm_epoch_kind */
	uint8_t reserved[3];
	uint32_t epoch;  /* of the record that it is about */
	uint64_t ballot; /* PREPARE to REFUSED */
	uint64_t other;  /* PROMISE: of its record, 0 without; REFUSED: the one in the way */
	struct wvm_epoch_record record; /* PROMISE with other; ACCEPT, DECIDED */
};
_Static_assert(sizeof(struct wvm_epoch_msg) == 64, "without padding");

/*
 * 64 bytes, big-endian: kind (1), 0 (3), epoch (4), ballot (8), other (8); of the record epoch (4),
 * node (4), state (1), voters (1), 0 (2), voter (7 * 4). What a kind has not is 0. The payload of
 * BALLOT, whose header tells the sender.
 */
#define WVM_EPOCH_MSG_BYTES    64u
#define WVM_EPOCH_RECORD_BYTES 40u

/* A record as it is in messages. Any bytes are one: wvm_epoch_record_check() says if it is right.
 */
void wvm_epoch_record_encode(uint8_t out[WVM_EPOCH_RECORD_BYTES], const struct wvm_epoch_record *r);
struct wvm_epoch_record wvm_epoch_record_decode(const uint8_t bytes[WVM_EPOCH_RECORD_BYTES]);

/* Whether a message has the fields of its kind, in their ranges, and no others. */
bool wvm_epoch_msg_check(const struct wvm_epoch_msg *m);
/* m must pass wvm_epoch_msg_check(). */
void wvm_epoch_encode(uint8_t out[WVM_EPOCH_MSG_BYTES], const struct wvm_epoch_msg *m);
/* False, and *m is not to be used, unless these are the bytes of a message that passes the check.
 */
bool wvm_epoch_decode(struct wvm_epoch_msg *m, const uint8_t *bytes, size_t len);

enum wvm_epoch_phase {
	WVM_EPOCH_IDLE,
	WVM_EPOCH_PREPARING,
	WVM_EPOCH_ACCEPTING,
	WVM_EPOCH_BACKING_OFF,
};

/* What became of a wish. */
enum wvm_epoch_verdict {
	WVM_EPOCH_NO_WISH,
	WVM_EPOCH_WON,
	WVM_EPOCH_LOST, /* another change came first; wish again on the new view, if it still fits
			 */
};

enum wvm_epoch_act {
	WVM_EPOCH_SAVE,   /* wvm_epoch.d, before anything that follows */
	WVM_EPOCH_LEARNT, /* record is decided, and d.current; verdict; again after each start */
	WVM_EPOCH_BEHIND, /* node is in `epoch`, too far ahead: get its view, then _install() */
	WVM_EPOCH_SEND,   /* msg to node */
};

struct wvm_epoch_action {
	enum wvm_epoch_act act;
	enum wvm_epoch_verdict verdict;
	uint32_t node;
	uint32_t epoch;
	struct wvm_epoch_record record;
	struct wvm_epoch_msg msg;
};

struct wvm_epoch_out {
	uint32_t to;
	uint32_t reserved;
	struct wvm_epoch_msg msg;
};

/* About 2 KiB; written by the functions below alone, read by all. */
struct wvm_epoch {
	struct wvm_epoch_durable d;
	uint32_t self;
	uint8_t phase;    /* enum wvm_epoch_phase */
	uint8_t votes;    /* a bit for each of d.current.voter[] that promised, or accepted */
	uint8_t refusals; /* of this wish in a row, at most 255 */
	uint8_t pulls;    /* without an answer */
	struct wvm_epoch_record wish; /* epoch 0: none */
	struct wvm_epoch_record
		value;               /* what is proposed, while ACCEPTING; before: learnt so far */
	uint64_t learnt;             /* the ballot at which value was accepted; 0: by nobody */
	uint64_t ballot;             /* of the present attempt */
	uint64_t seen;               /* the highest heard of */
	uint64_t retry_at, retry_ns; /* of the proposer; UINT64_MAX: not */
	uint64_t pull_at;            /* UINT64_MAX: not behind, as far as is known */
	uint32_t ahead;              /* the latest epoch heard of, while pull_at is set */
	uint32_t ahead_node;         /* from there */
	uint64_t random;
	uint64_t conflicts; /* messages that contradict what is decided or accepted here: two
			     * clusters under one address, or a defect; dropped, to be reported */
	/* Actions to be taken. */
	uint32_t behind, behind_node; /* 0: none */
	uint8_t save, say_learnt, verdict;
	uint8_t out_count, out_at;
	uint8_t log_count;
	uint8_t reserved[2];
	struct wvm_epoch_record log[WVM_EPOCH_LOG]; /* record i is log[i % WVM_EPOCH_LOG] */
	struct wvm_epoch_out out[WVM_EPOCH_OUT];
};

/*
 * After every start, with what was saved last, which must pass wvm_epoch_durable_check(). LEARNT
 * comes first, since the process before may have ended between SAVE and LEARNT: a caller whose view
 * has that record already lets it pass. seed: any, another for each node.
 */
void wvm_epoch_init(struct wvm_epoch *e, uint32_t self, uint64_t seed,
		    const struct wvm_epoch_durable *d);

/*
 * After wvm_epoch_init(): the records before the present one, as kept before, oldest first, so
 * that others can be told of them by this life, too. Those of the present epoch and later ones are
 * left out, and what does not lead up to it in steps of one.
 */
void wvm_epoch_keep(struct wvm_epoch *e, const struct wvm_epoch_record *records, uint32_t count);

/*
 * Proposes a record until one is decided: LEARNT says which. It does not outlive the process: what
 * became of it then shows in the records that follow. False, and nothing happens, if there
 * is a wish already, or the record does not follow d.current (the caller's view is old), or is
 * not well-formed.
 */
bool wvm_epoch_wish(struct wvm_epoch *e, const struct wvm_epoch_record *record, uint64_t now_ns);

/* Proposes it no more. It may still be decided: what voters have accepted others go on with. */
void wvm_epoch_withdraw(struct wvm_epoch *e);

/*
 * A message that passes wvm_epoch_msg_check(), from a node whose address has been checked. Returns
 * why it was dropped: NODE (no voter, or this node is none), SOURCE (another's ballot), STALE,
 * EPOCH (of a later epoch; its record is asked for), GRANT (counted in conflicts), or NONE.
 */
enum wvm_drop wvm_epoch_message(struct wvm_epoch *e, uint32_t from, const struct wvm_epoch_msg *m,
				uint64_t now_ns);

/* A node has shown that it is in that epoch, by any message's header or by gossip. */
void wvm_epoch_heard(struct wvm_epoch *e, uint32_t from, uint32_t epoch, uint64_t now_ns);

/*
 * The record that a whole view ends with, decided in the view's node. The caller has stored that
 * view before, and does this again if after a start it has a later view; LEARNT follows as after
 * a start. False if it is not later than d.current. A wish is
 * LOST thereby, also one that is part of the view: the caller looks there.
 */
bool wvm_epoch_install(struct wvm_epoch *e, const struct wvm_epoch_record *record, uint64_t now_ns);

void wvm_epoch_tick(struct wvm_epoch *e, uint64_t now_ns);
uint64_t wvm_epoch_deadline(const struct wvm_epoch *e); /* UINT64_MAX: none */

/* The next action; false: none. */
bool wvm_epoch_next(struct wvm_epoch *e, struct wvm_epoch_action *a);

#endif

/*
 * The budget of cached guest pages, RAM_MB: near it a shard gives pages up, at it
 * faults that need one more wait until there is room.
 *
 * Counted is what the RAM files have, that is all pages held Shared or Modified
 * by all shards. The home's store, tables and outbox are not: status reports them.
 *
 * The clock goes round the pages of the RAM files. A page that it passes is marked,
 * and a Modified one protected, so that the next store is seen; a fault takes the
 * mark away. One that has kept its mark for a round goes if it is Shared, after
 * one more round if it is Modified: clean pages cost no message. Loads of a page
 * that is mapped are not seen. Each shard goes round its own pages, once in a turn at most. One
 * that is at work has the others go down to the low mark with it, as the budget is one for all.
 *
 * A node that leaves the cluster gives back everything, whatever the budget and the
 * marks say: Shared copies are dropped, Modified pages written back until their homes have
 * them, those of units held whole that nobody used as well, page by page (64 bytes each way: a
 * home counts on this node for every one of them). So it can be switched off without
 * losing a page. Only while no program is attached: one that comes is served as ever, and the rest
 * goes when it has ended. Meanwhile nothing is read ahead and no units are put together. What
 * cannot go just now (hold times, a silent home) is tried again after a rest.
 */
#ifndef WVM_MASTER_RECLAIM_H
#define WVM_MASTER_RECLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/wheel.h"
#include "roles/master/options.h"

struct wvm_node;
struct wvm_node_shard;

/* One shard's part. Its thread's; counters are read by others. */
struct wvm_reclaim {
	uint8_t *marks[WVM_MASTER_VMS_MAX]; /* by page, sparse: rounds without a fault */
	uint64_t mark_bytes[WVM_MASTER_VMS_MAX];
	uint32_t vm; /* where the hand is */
	uint64_t page;
	uint64_t passed;        /* VMs to whose end it came so far */
	bool active;            /* from the high mark down to the low one */
	bool stalled;           /* some faults wait */
	uint64_t stalled_ns;    /* since when no page went, with faults that wait */
	uint64_t asked_ns;      /* when other shards were asked to help */
	struct wvm_timer timer; /* nothing could go just now */
	struct wvm_node_shard *shard;
	bool leaving;                   /* what the core knows of */
	uint64_t empty_round;           /* atomic: nothing was left in this wvm_leave.round */
	uint64_t rest_until_ns;         /* nothing could go */
	uint64_t rest_ns;               /* and how long it was waited the last time */
	uint64_t untouched;             /* pages of whole units taken back, that nobody had used */
	uint64_t rounds, waits, failed; /* turns at work, faults that waited, that got an error */
};

/* Of the node. Shard 0's; what is atomic is read by others. */
struct wvm_leave {
	bool leaving;      /* atomic */
	uint64_t round;    /* atomic: shards are to give everything back; 0: not, or not now */
	uint64_t rounds;   /* begun so far */
	uint64_t attached; /* programs that had been attached until this round */
};

/* 0 or -ENOMEM. Before the shard runs; the VMs are open. */
int wvm_reclaim_init(struct wvm_node_shard *s);
void wvm_reclaim_free(struct wvm_node_shard *s);

/* Pages of the budget, and those held or asked for by all shards. Any thread. */
uint64_t wvm_reclaim_budget(const struct wvm_node *node);
uint64_t wvm_reclaim_held(const struct wvm_node *node);
/* Whether pages would have to go if so many more came, or are to go in any case: only what is
 * wanted now is brought in then.
 */
bool wvm_reclaim_short(const struct wvm_node *node, uint64_t more);

/*
 * A fault came. False: it needs a page for which there is no room; its thread waits and
 * is woken when there is, or has been told that there is none.
 */
bool wvm_reclaim_fault(struct wvm_node_shard *s, uint32_t vm, uint64_t page, unsigned client);

/* The shard's turn: a bounded part of the work. True: there is more. */
bool wvm_reclaim_turn(struct wvm_node_shard *s);

/* Every other shard has a turn, also one that sleeps. */
void wvm_reclaim_wake_others(struct wvm_node_shard *s);

/* ---- leave.c ---------------------------------------------------------------------------- */

/* The node leaves, or stays after all: see above. On shard 0, when all shards run. */
void wvm_reclaim_leave(struct wvm_node *node, bool leaving);
bool wvm_reclaim_leaving(const struct wvm_node *node); /* any thread */
/*
 * Whether nothing is left that exists only here: no page is held or asked for, no write-back
 * unacknowledged, and no program attached that could change that. It stays so until one
 * attaches. False while the node does not leave. On shard 0.
 */
bool wvm_reclaim_empty(const struct wvm_node *node);
/* Pages held, asked for or being written back, those of whole units that were never used as well.
 * A figure to show: any thread, slightly old. */
uint64_t wvm_reclaim_left(const struct wvm_node *node);

/* For wvm_reclaim_turn(): whether the shard is to give everything back now, and its turn of it. */
bool wvm_leave_begins(struct wvm_node_shard *s);
bool wvm_leave_turn(struct wvm_node_shard *s);

#endif

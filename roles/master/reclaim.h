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
 * that is mapped are not seen.
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
	bool active;            /* from the high mark down to the low one */
	bool stalled;           /* some faults wait */
	uint64_t stalled_ns;    /* since when no page went, with faults that wait */
	uint64_t asked_ns;      /* when other shards were asked to help */
	struct wvm_timer timer; /* nothing could go just now */
	struct wvm_node_shard *shard;
	uint64_t untouched;             /* pages of whole units taken back, that nobody had used */
	uint64_t rounds, waits, failed; /* turns at work, faults that waited, that got an error */
};

/* 0 or -ENOMEM. Before the shard runs; the VMs are open. */
int wvm_reclaim_init(struct wvm_node_shard *s);
void wvm_reclaim_free(struct wvm_node_shard *s);

/* Pages of the budget, and those held or asked for by all shards. Any thread. */
uint64_t wvm_reclaim_budget(const struct wvm_node *node);
uint64_t wvm_reclaim_held(const struct wvm_node *node);
/* Whether pages would have to go if so many more came: only what is wanted now is brought in then.
 */
bool wvm_reclaim_short(const struct wvm_node *node, uint64_t more);

/*
 * A fault came. False: it needs a page for which there is no room; its thread waits and
 * is woken when there is, or has been told that there is none.
 */
bool wvm_reclaim_fault(struct wvm_node_shard *s, uint32_t vm, uint64_t page, unsigned client);

/* The shard's turn: a bounded part of the work. True: there is more. */
bool wvm_reclaim_turn(struct wvm_node_shard *s);

#endif

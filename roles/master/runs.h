/*
 * Runs of pages. A program that reads memory of another node from front to back
 * makes streams of messages about neighbours, and a system call for each page
 * costs more than its bytes. So two kinds of actions are put off until a run is
 * full or ends, at the latest to the end of the shard's turn:
 *
 *	coming   INSTALL of what was read ahead: nobody waits for it
 *	leaving  PROTECT (and SETTLE), then SEND of the page from the RAM file, as a DOWNGRADE
 *	         wants it: until then stores of this node's programs still count
 *
 * To the core they are carried out. So before it is told anything new about a page of
 * a run, or anything from a program, a timer or this node's housekeeping, the
 * runs end: wvm_runs_before(), wvm_runs_end(). A life that dies in between has done as
 * much as one that dies between two actions.
 *
 * All functions: the shard's thread.
 */
#ifndef WVM_MASTER_RUNS_H
#define WVM_MASTER_RUNS_H

#include "shared/core/core.h"

struct wvm_node_shard;

#define WVM_RUN_PAGES 32u /* 128 KiB of buffer; 64 saves nothing more that could be measured */

struct wvm_leaving {
	struct wvm_msg msg;
	uint32_t member;
	bool settle, hole; /* as the actions said */
};

/* Neighbours of one unit. */
struct wvm_run {
	uint32_t vm;
	unsigned count;
	uint64_t first;
};

struct wvm_runs {
	struct wvm_run coming, leaving;
	/* A PROTECT whose page may turn out to leave: the next actions tell. */
	struct {
		uint32_t vm;
		uint64_t page;
		bool valid, settle;
	} closing;
	struct wvm_leaving left[WVM_RUN_PAGES];
	uint64_t ends, pages; /* runs of more than a page, and their pages */
	_Alignas(64) uint8_t data[WVM_RUN_PAGES][WVM_PAGE_BYTES];   /* of what comes */
	_Alignas(64) uint8_t buffer[WVM_RUN_PAGES][WVM_PAGE_BYTES]; /* for what leaves */
};

/* Whether the action is put off; else whatever has to come before it has been carried out. */
bool wvm_runs_take(struct wvm_node_shard *s, const struct wvm_action *a);

/* After the last action of an input. */
void wvm_runs_drained(struct wvm_node_shard *s);

/* Before the core gets a message: the runs end if it is to the holder of one of their pages. */
void wvm_runs_before(struct wvm_node_shard *s, const struct wvm_msg *msg);

/* Carries out what was put off. Actions may follow, which are drained. */
void wvm_runs_end(struct wvm_node_shard *s);

#endif

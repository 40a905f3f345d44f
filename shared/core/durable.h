/*
 * What of a core outlives its process, so that the next one of the same node
 * can go on with the same pages after kill -9 at any instruction.
 *
 *	the VMs' arrays    home, units, store, held, held_units: struct wvm_core_vm
 *	the durable block  below: the undo log, write-backs under way, grants taken, holder blocks
 *	the outbox         bytes of write-backs under way
 *
 * An input changes all of its entries or none. Before an entry is changed its
 * old bytes go into the undo log; the log is emptied when the first action of
 * the input is asked for, be there one or not, or the next input comes. So nothing
 * has left the node before the entries say it, neither in a message nor in what its
 * user goes by (wvm_core_handover()), and an input that was cut short never happened:
 * to its sender it is a message that was lost.
 *
 * Actions that were not carried out are found by looking at the RAM file
 * (adopt.c). For that an entry says whether its page is still to be installed.
 *
 * Not undone: versions of units (they only grow), bytes of the store (while the
 * entry says Modified nobody reads them), requests, transactions, held demands
 * and windows (whoever waits asks again).
 */
#ifndef WVM_CORE_DURABLE_H
#define WVM_CORE_DURABLE_H

#include <stddef.h>
#include <stdint.h>

struct wvm_core;

enum wvm_undo_kind {
	WVM_UNDO_HOME, /* index: page */
	WVM_UNDO_HELD, /* index: page */
	WVM_UNDO_BLOCK,
	WVM_UNDO_KEPT,
	WVM_UNDO_UNIT,      /* at the home; index: unit */
	WVM_UNDO_HELD_UNIT, /* at the holder, its first half */
	WVM_UNDO_MINE,      /* and its second */
};

#define WVM_UNDO_BYTES 64u /* of every kind of entry */

/* The bytes of an entry before this input. 80 bytes. */
struct wvm_undo {
	uint64_t index;
	uint32_t vm;
	uint32_t kind; /* enum wvm_undo_kind */
	uint8_t image[WVM_UNDO_BYTES];
};

/*
 * An input changes one page: its two entries, its units' three parts, its
 * write-back, and of its holder blocks at most one old one for each of the 64
 * queued requests that it answers. The grant of a unit changes the unit's parts
 * and the entries of those of 64 requests that wait for pins.
 */
#define WVM_UNDO_MAX 80u

/* A write-back that is not acknowledged: what it takes to send it again. 64 bytes. */
struct wvm_kept {
	uint64_t page;
	uint64_t grant;
	uint64_t version;
	uint64_t txn;
	uint16_t vm_id;
	uint16_t steer; /* of the answer */
	uint8_t used;
	uint8_t keep;  /* a Shared copy stays, and the bytes are in the RAM file; else in the outbox
			*/
	uint8_t saved; /* WVM_ACT_SAVE is carried out */
	uint8_t reserved[25];
};
_Static_assert(sizeof(struct wvm_kept) == WVM_UNDO_BYTES, "undo image");

/* The head of the durable block. */
struct wvm_durable {
	uint32_t undos; /* entries of undo[] that count */
	uint32_t reserved[15];
	struct wvm_undo undo[WVM_UNDO_MAX];
};

/* The bytes that a record is about: WVM_UNDO_BYTES. enum wvm_undo_kind. */
void *wvm_undo_entry(struct wvm_core *core, uint32_t kind, uint32_t vm, uint64_t index);
/* Before an entry is changed. More than once for the same one costs little and does no harm. */
void wvm_undo_note(struct wvm_core *core, enum wvm_undo_kind kind, uint32_t vm, uint64_t index);
/* What was changed is final. */
void wvm_undo_commit(struct wvm_core *core);
/* Puts back what an input that was cut short had changed. */
void wvm_undo_roll_back(struct wvm_core *core);

#endif

/*
 * A trace of what a shard does for faults: stamps of CLOCK_MONOTONIC in a ring that
 * overwrites the oldest, for whoever wants to know where the time of a fault
 * goes (wvmbench fault --explain). Off, until the control port switches it on for
 * a while; off, a stamp costs one branch.
 */
#ifndef WVM_MASTER_TRACE_H
#define WVM_MASTER_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/shard.h"

#define WVM_TRACE_STAMPS 16384u /* of a shard, a power of two: 512 KiB, touched when it is used */
#define WVM_TRACE_MS_MAX 60000u /* on for so long, at most */

enum wvm_stamp_kind {
	WVM_STAMP_FAULT,   /* a fault was read from the userfaultfd; what: 1 for a write */
	WVM_STAMP_SEND,    /* a message was given to the socket's batch; what: enum wvm_msg_type */
	WVM_STAMP_SUBMIT,  /* what was given to it so far goes to the kernel now; no page */
	WVM_STAMP_RECEIVE, /* a message came, or a segment of one; what: its type */
	WVM_STAMP_DONE,    /* the waiters of a page were woken; what: enum wvm_action_kind */
	WVM_STAMP_KINDS,
};

/* 32 bytes. */
struct wvm_stamp {
	uint64_t ns;
	uint64_t page;
	uint64_t request; /* of a message: its request id; else 0 */
	uint16_t vm_id;
	uint8_t kind; /* enum wvm_stamp_kind */
	uint8_t what;
	uint32_t unused;
};
_Static_assert(sizeof(struct wvm_stamp) == 32, "the size stated above");

/* Written by the shard's thread, until_ns by any. */
struct wvm_trace {
	uint64_t until_ns; /* atomic; 0: off */
	uint64_t made;     /* atomic; stamps in all: number i is in slot i % WVM_TRACE_STAMPS */
	bool waiting;      /* something was given to the socket's batch since the last SUBMIT */
	struct wvm_hook hook;
	struct wvm_stamp *ring;
};

/*
 * The ring, and the hook that stamps SUBMIT: after those of the sockets, so call it
 * when they are open. Before the shard starts. 0 or -ENOMEM.
 */
int wvm_trace_open(struct wvm_trace *t, struct wvm_shard *s);
void wvm_trace_close(struct wvm_trace *t);

/* Stamps are made from now on until until_ns; 0: no more. Any thread. */
void wvm_trace_until(struct wvm_trace *t, uint64_t until_ns);

/* The slow half of wvm_trace(). */
void wvm_trace_stamp(struct wvm_trace *t, enum wvm_stamp_kind kind, uint8_t what, uint16_t vm_id,
		     uint64_t page, uint64_t request);

/* Stamps, if it is on. The shard's thread. */
static inline void wvm_trace(struct wvm_trace *t, enum wvm_stamp_kind kind, uint8_t what,
			     uint16_t vm_id, uint64_t page, uint64_t request)
{
	if (__builtin_expect(__atomic_load_n(&t->until_ns, __ATOMIC_RELAXED) != 0, 0))
		wvm_trace_stamp(t, kind, what, vm_id, page, request);
}

/*
 * Copies stamps from number *first on, at most max, and returns how many. *first becomes the
 * number of the one that was copied first: higher than asked for when those in between
 * have been overwritten. Any thread, also while stamps are made.
 */
size_t wvm_trace_read(const struct wvm_trace *t, uint64_t *first, struct wvm_stamp *out,
		      size_t max);

/* "fault", "send" and so on; NULL out of range. Any thread. */
const char *wvm_stamp_name(uint8_t kind);

#endif

/*
 * A standing operation: one that is armed once, completes again and again
 * (multishot), is armed anew when the kernel ends it, and goes away safely.
 * What udp, uffd, doorbell and pidwatch have in common.
 */
#ifndef WVM_RING_STANDING_H
#define WVM_RING_STANDING_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/shard.h"

/* What to do when the kernel has ended the operation. */
enum wvm_standing_next {
	WVM_STANDING_AGAIN, /* arm it again in this turn */
	WVM_STANDING_LATER, /* after 10 ms: an error that would make it spin */
	WVM_STANDING_OVER,  /* leave it, until wvm_standing_close() */
};

/* Embedded by its user; fields written by the shard's thread. Zero-initialise. */
struct wvm_standing {
	struct wvm_shard *shard;
	/* Fills the SQE (io_uring_prep_*, flags); its completion is directed afterwards. */
	void (*prepare)(struct wvm_standing *o, struct io_uring_sqe *sqe);
	/* A completion. The answer matters only without IORING_CQE_F_MORE. Not called once closing.
	 */
	enum wvm_standing_next (*event)(struct wvm_standing *o, int res, uint32_t flags);
	/* May be NULL. Gives back what a completion holds when event cannot be called any more. */
	void (*discard)(struct wvm_standing *o, int res, uint32_t flags);
	/*
	 * After close: the kernel refers to nothing of o any more. May free it, or, when something
	 * else of the owner is still queued, defer o->task to be called again. May be NULL.
	 */
	void (*gone)(struct wvm_standing *o);

	struct wvm_io io;        /* of the operation */
	struct wvm_io cancel_io; /* of its cancellation */
	struct wvm_task task;
	struct wvm_timer timer;
	bool armed, cancelling, closing;
};

/* Arms it; prepare and event must be set. Happens with the next turn. */
void wvm_standing_start(struct wvm_standing *o, struct wvm_shard *s);

/* Prepares it without arming, for the sake of wvm_standing_close() alone. */
void wvm_standing_idle(struct wvm_standing *o, struct wvm_shard *s);

/* Ends it: no event() from now on; gone() comes from the loop in a later turn. Idempotent. */
void wvm_standing_close(struct wvm_standing *o);

#endif

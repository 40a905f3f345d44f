/*
 * Reading ahead: who reads page after page from the network gets the next ones
 * asked for before the fault comes. Streams are found by their faults alone,
 * since an access to a page that is there is not seen: a fault just past what
 * was asked for says that all of it was used.
 */
#ifndef WVM_CORE_AHEAD_H
#define WVM_CORE_AHEAD_H

#include <stdint.h>

#define WVM_AHEAD_STREAMS 16u /* then the one that was used longest ago gives way */
#define WVM_AHEAD_FIRST   4u  /* pages asked for when a stream is found; doubled while it goes on */
#define WVM_AHEAD_MOST    64u /* of wvm_core_params.read_ahead */
#define WVM_AHEAD_STRIDE  16  /* pages between two faults that may be of one stream */

/* One program that goes through memory. 40 bytes. */
struct wvm_stream {
	uint64_t last;   /* the page that faulted last */
	uint64_t next;   /* the page after those asked for: a fault there is a hit */
	uint64_t used;   /* when, by wvm_ahead.clock; 0: a free slot */
	int64_t stride;  /* pages, either way; 0: one fault only */
	uint32_t vm;     /* index */
	uint32_t window; /* pages to have asked for; 0: not a stream yet */
};

/* The streams of one core. They are guesses: nothing of them outlives the process. */
struct wvm_ahead {
	struct wvm_stream stream[WVM_AHEAD_STREAMS];
	uint64_t clock;
};

#endif

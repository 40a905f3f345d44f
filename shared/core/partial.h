/*
 * Pages that have arrived in part. Keyed by sender, type, request, grant and
 * version, so that segments of two versions never make one page.
 */
#ifndef WVM_CORE_PARTIAL_H
#define WVM_CORE_PARTIAL_H

#include "shared/core/msg.h"

/* One page being put together. Its 4096 bytes lie in the table's page array. */
struct wvm_partial {
	uint64_t request, grant, version, gpa;
	uint64_t missing; /* units of WVM_SEGMENT_UNIT not there yet, one bit each; 0: free */
	uint32_t src;
	uint16_t vm_id;
	uint8_t type;
	uint32_t newer, older; /* age list; index + 1 */
	uint32_t chain;        /* next in the bucket or the free list; index + 1 */
};

struct wvm_partials {
	struct wvm_partial *slots;
	uint8_t *pages;
	uint32_t *buckets; /* count of them = slots, a power of two */
	uint32_t count;
	uint32_t free;
	uint32_t newest, oldest;
	uint64_t evicted;
};

/* All arrays are the caller's; count is a power of two. */
void wvm_partials_init(struct wvm_partials *p, struct wvm_partial *slots, uint8_t *pages,
		       uint32_t *buckets, uint32_t count);

/*
 * Adds a segment whose bounds have been checked (wire.c: multiples of 64,
 * within WVM_PAGE_BYTES). Returns the whole page when this was the last
 * missing part, else NULL. The page stays valid until the next call.
 */
const uint8_t *wvm_partials_add(struct wvm_partials *p, const struct wvm_msg *msg,
				const uint8_t *payload);

#endif

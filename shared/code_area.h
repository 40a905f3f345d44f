/*
 * What a client that translates guest code shares with its master (PROTOCOL.md,
 * Clients: Translated code): which pages it has translated from, and which of them
 * somebody else is about to write.
 *
 * One memfd per client, made by it, sealed against any change of size:
 *
 *	header   a page and more: where the ring is, and the ring of stale pages
 *	bitmaps  for each VM of the ring file, in its order: `marked`, then `closed`,
 *	         a bit per page of the VM, each of them beginning on a page
 *
 * Both sides compute the places from the ring file's header, so none is ever read
 * from the area. It is sparse: what nobody has looked at takes no memory.
 *
 *	marked   set by the client before it reads a page's bytes, cleared by the master
 *	         when it puts the page into the ring
 *	closed   set by the master: since the page was marked no other program of this node
 *	         can store to it without the master's knowledge. Of use where there
 *	         are other programs (`others`)
 *
 * The master is the only producer of the ring and overwrites the oldest entry. Each of
 * the client's threads reads it with a cursor of its own; one that is further behind than
 * the ring is long has to drop all that it has translated.
 *
 * All of it is accessed with __atomic operations; what is said below about an order
 * means the one order of all sequentially consistent ones.
 */
#ifndef WVM_SHARED_CODE_AREA_H
#define WVM_SHARED_CODE_AREA_H

#include <stdint.h>

#include "shared/client_ring.h"

#define WVM_CODE_RING       1024u /* entries, a power of two */
#define WVM_CODE_VM_SHIFT   56    /* in `what` */
#define WVM_CODE_AREA_BYTES 20480u

struct wvm_code_entry {
	uint64_t serial; /* its number + 1; 0: it is being written */
	uint64_t what;   /* index of the VM in the ring file << 56 | page */
};

struct wvm_code_area {
	/* the master's */
	uint64_t head;   /* entries so far: those with lower numbers are complete */
	uint64_t others; /* not 0: other programs of this node may map what this one does */
	uint64_t reserved0[6];
	/* the client's */
	uint64_t told; /* every thread of it was told to look at the entries below this number */
	uint64_t reserved1[7];
	struct wvm_code_entry ring[WVM_CODE_RING];
};
_Static_assert(sizeof(struct wvm_code_area) <= WVM_CODE_AREA_BYTES, "header of the code area");

/* Where the bitmaps are. */
struct wvm_code_layout {
	uint64_t marked[WVM_RING_VMS_MAX], closed[WVM_RING_VMS_MAX]; /* offsets */
	uint64_t bytes;                                              /* of the whole */
};

static inline void wvm_code_place(const struct wvm_ring_header *h, struct wvm_code_layout *out)
{
	const uint64_t page = WVM_PAGE_SIZE;

	out->bytes = WVM_CODE_AREA_BYTES;
	for (unsigned i = 0; i < WVM_RING_VMS_MAX && i < h->vm_count; i++) {
		/* A page of bits is for 128 MiB. */
		uint64_t len = (h->vms[i].size / page + page * 8 - 1) / (page * 8) * page;

		out->marked[i] = out->bytes;
		out->closed[i] = out->bytes + len;
		out->bytes += 2 * len;
	}
}

#endif

/*
 * Room behind the state files. They are sparse, on a tmpfs, and mapped: what
 * the core touches for the first time takes memory at that moment, and on a
 * tmpfs that is full the kernel ends the process (SIGBUS). So the driver asks
 * here before it hands the core an input, and drops the input while there is
 * no room: for a message that is a loss, and its sender asks again. A write-back
 * above all stays with its owner until the home has room for the bytes.
 *
 * What has room once keeps it, until the core has no use for it any more.
 */
#ifndef WVM_MASTER_BACKING_H
#define WVM_MASTER_BACKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/core.h"

/*
 * One VM's arrays, one byte for each 4 KiB of them: 1 = it has room. Any shard's
 * thread; of what may be forgotten (home, held, stored) only the one whose entries they are.
 */
struct wvm_backing {
	struct wvm_core_vm vm;
	uint8_t *home, *units, *held, *held_units, *stored;
	size_t bytes; /* of all together */
};

/* The arrays of vm are mapped, and stay so until close. 0, -ENOMEM. */
int wvm_backing_open(struct wvm_backing *b, const struct wvm_core_vm *vm);
/* A zeroed one is allowed. */
void wvm_backing_close(struct wvm_backing *b);

/* Whether the core may touch the holder's entry of a page (below vm->pages) and that of its unit.
 */
bool wvm_backing_held(struct wvm_backing *b, uint64_t page);
bool wvm_backing_held_unit(struct wvm_backing *b, uint64_t page); /* of the unit alone */
/* The next page from `page` on, below end, whose unit's entry has room; or end. */
uint64_t wvm_backing_next_held_unit(const struct wvm_backing *b, uint64_t page, uint64_t end);
/* Whether the entry of the page has room already: without, it says nothing. */
bool wvm_backing_has_held(const struct wvm_backing *b, uint64_t page);
/* Of all units: what a hand-over of slices writes into. */
bool wvm_backing_all_units(struct wvm_backing *b);
/* The holder's entries of all pages of those units that were ever touched. */
bool wvm_backing_all_touched(struct wvm_backing *b);
/* Whether it may touch the directory entry of a page and that of its unit. */
bool wvm_backing_home(struct wvm_backing *b, uint64_t page);
bool wvm_backing_unit(struct wvm_backing *b, uint64_t page); /* of the unit alone */
/* Of all pages of the unit. */
bool wvm_backing_home_unit(struct wvm_backing *b, uint64_t page);
/* After wvm_backing_home(), on the home's shard: whether it may write the stored copy. */
bool wvm_backing_store(struct wvm_backing *b, uint64_t page);

/*
 * WVM_ACT_FORGET, on the shard whose entries they are: those of the unit's pages
 * become zeros and their room is free again, as far as the kernel takes it; with `home` that
 * of the stored copies, too.
 */
void wvm_backing_forget(struct wvm_backing *b, uint64_t page, bool home);

/* Room for all of a mapping, now. 0, -ENOSPC, -ENOMEM, or another errno of madvise(2). */
int wvm_backing_fill(void *at, size_t len);

#endif

/*
 * A client's code area (shared/code_area.h) as the master has it mapped: which pages
 * the client has translated code from, and the ring by which it learns that they are
 * taken away. Nothing that it reads there decides anything but what this client is
 * told and waited for; places and counts are the master's own.
 *
 * Threads: any shard, of the pages that it owns; what all shards write has a lock,
 * which is held for a few stores.
 */
#ifndef WVM_MASTER_CODE_H
#define WVM_MASTER_CODE_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/client_ring.h"

struct wvm_code;

/*
 * Maps the area of a client whose ring file's header is h. fd stays the caller's.
 * 0, -EPROTO (not a memfd of that size that nobody can shrink), -ENOMEM.
 */
int wvm_area_map(struct wvm_code **out, int fd, const struct wvm_ring_header *h);
void wvm_area_unmap(struct wvm_code *code); /* NULL is allowed */

/* Whether there are other programs on this node that may map the same memory. */
void wvm_area_others(struct wvm_code *code, bool others);

/* Whether one of the pages is marked. vm: its index in the ring file. */
bool wvm_area_marked(const struct wvm_code *code, unsigned vm, uint64_t first, uint64_t count);

/*
 * Puts the marked ones of these pages into the ring, unmarked. Returns how many; then
 * the client has been told of them when wvm_area_told() says so of *target.
 */
uint64_t wvm_area_raise(struct wvm_code *code, unsigned vm, uint64_t first, uint64_t count,
			uint64_t *target);
bool wvm_area_told(const struct wvm_code *code, uint64_t target);
/* Whether it has been told of all there is. */
bool wvm_area_told_all(const struct wvm_code *code);

/* No other program can store to the page without wvm_area_marked() being asked: it is marked. */
void wvm_area_close(struct wvm_code *code, unsigned vm, uint64_t page);

#endif

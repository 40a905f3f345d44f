/*
 * The files of a master that are not guest RAM: the durable boot counter in
 * the state directory, and under /dev/shm the home's stored copies and
 * directory, the holder's table, and per shard the core's durable block and the
 * outbox. All are sparse; they are sized for the whole VM and hold what is
 * used. A clean end removes them; what a killed master left the next one takes
 * over (adopt.h), unless it is to begin afresh.
 */
#ifndef WVM_MASTER_STATE_H
#define WVM_MASTER_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "roles/master/options.h"
#include "shared/client_ring.h"
#include "shared/core/core.h"

#define WVM_STATE_MAPS_MAX 64u

#define WVM_LIFE_MAGIC  UINT64_C(0x4546494c4d5657) /* "WVMLIFE" */
#define WVM_LIFE_LAYOUT 5u /* changes with every struct that these files hold */

/* What the files depend on: the next life must be the same in all of it. */
struct wvm_life_shape {
	uint32_t layout;
	uint32_t shards;
	uint64_t members; /* a hash over who they are, and which of them this node is */
	uint64_t durable_bytes;
	uint32_t vm_count;
	uint32_t placed; /* a hash over what is placed where */
	struct {
		uint64_t size;
		uint64_t id;
	} vms[WVM_MASTER_VMS_MAX];
};

/* <prefix>.state: what one life tells the next. One page. */
struct wvm_life {
	uint64_t magic; /* written last: all files are there */
	struct wvm_life_shape shape;
	uint16_t boot_first; /* of the lives that took each other over, down to this one */
	uint8_t served;      /* whether any of them has served as home */
	uint8_t reserved;
	uint32_t epoch; /* the latest that a core of it may have been told; atomic */
	/*
	 * Ring boot ids of lives whose programs may come back: the last one that had
	 * all of them, and those since that ended before. ids[current] counts.
	 */
	uint64_t current;
	uint64_t ids[2][WVM_RING_ADOPTS_MAX]; /* 0 ends the list */
};
_Static_assert(sizeof(struct wvm_life) <= 4096, "one page");

struct wvm_state {
	char prefix[200]; /* empty: not opened */
	int lock_fd;      /* of <prefix>.state, locked as long as the master lives */
	struct wvm_life *life;
	bool adopting; /* the files are those of a killed master, and are kept */
	unsigned count;
	struct {
		char path[256];
		void *at;
		size_t len;
	} maps[WVM_STATE_MAPS_MAX];
};

/*
 * Begins with the files <prefix>.*. What a killed master left is taken over
 * (s->adopting), or removed when `fresh`, or when that one had not come so far as
 * to make them all. 0, or -errno with one line in err: -EBUSY when a living
 * master has them, -EEXIST when a killed one's have another shape.
 */
int wvm_state_open(struct wvm_state *s, const char *prefix, bool fresh,
		   const struct wvm_life_shape *shape, char *err, size_t err_len);

/* All files are mapped: from now on they are worth taking over. */
void wvm_state_publish(struct wvm_state *s, const struct wvm_life_shape *shape, uint16_t boot_first,
		       uint32_t epoch);

/* This life's id joins the list, or becomes the whole of it. A kill leaves the old or the new. */
void wvm_life_begin(struct wvm_life *life, uint64_t boot_id, bool adopting);
void wvm_life_complete(struct wvm_life *life, uint64_t boot_id);

/* Calls fn for every run of entries, `entry` bytes each, that the file mapped at `at` may have. */
typedef void wvm_state_run_fn(void *ctx, uint64_t first, uint64_t end);
int wvm_state_scan(const struct wvm_state *s, const void *at, size_t entry, wvm_state_run_fn *fn,
		   void *ctx);

/* Maps the arrays of one VM into vm (id and pages are given). 0 or -errno with a line in err. */
int wvm_state_vm(struct wvm_state *s, struct wvm_core_vm *vm, char *err, size_t err_len);

/* Maps a file <prefix>.<name> of len bytes, zeroed or as it was left. 0 or -errno with a line in
 * err. */
int wvm_state_map(struct wvm_state *s, const char *name, size_t len, void **out, char *err,
		  size_t err_len);

/* Bytes of memory that all files together occupy, and of those the home store's. */
uint64_t wvm_state_bytes(const struct wvm_state *s, uint64_t *store_bytes);

/* Unmaps; removes the files when `remove`. */
void wvm_state_close(struct wvm_state *s, bool remove);

/*
 * The next boot number of node phys_id: 1 to 65,535, one more than last time,
 * durable before this returns. 0 or -errno with a line in err.
 */
int wvm_state_boot(const char *dir, uint32_t phys_id, uint16_t *boot, char *err, size_t err_len);

#endif

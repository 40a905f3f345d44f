/*
 * The files of a master that are not guest RAM: the durable boot counter in
 * the state directory, and under /dev/shm the home's stored copies and
 * directory, the holder's table and the outbox. All are sparse; they are
 * sized for the whole VM and hold what is used. A clean end removes them; what
 * a killed master left is recognised by the next one.
 */
#ifndef WVM_MASTER_STATE_H
#define WVM_MASTER_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/core.h"

#define WVM_STATE_MAPS_MAX 64u

struct wvm_state {
	char prefix[200]; /* empty: not opened */
	int lock_fd;      /* of <prefix>.state, locked as long as the master lives */
	unsigned count;
	struct {
		char path[256];
		void *at;
		size_t len;
	} maps[WVM_STATE_MAPS_MAX];
};

/*
 * Begins with the files <prefix>.*. 0, or -errno with one line in err: -EEXIST
 * when a killed master left such files and fresh is not set, -EBUSY when a
 * living one has them.
 */
int wvm_state_open(struct wvm_state *s, const char *prefix, bool fresh, char *err, size_t err_len);

/* Maps the arrays of one VM into vm (id and pages are given). 0 or -errno with a line in err. */
int wvm_state_vm(struct wvm_state *s, struct wvm_core_vm *vm, char *err, size_t err_len);

/* Maps a file <prefix>.<name> of len bytes, zeroed. 0 or -errno with a line in err. */
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

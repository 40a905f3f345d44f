/*
 * Reading the userfaultfd of another process through the shard's ring, and
 * the ioctls that answer it. The handshake (UFFDIO_API) and the registration of
 * ranges happen in the process that owns the memory.
 *
 * The death of that process is not seen here (a userfaultfd that we hold stays
 * open and falls silent): watch its pidfd, pidwatch.h.
 */
#ifndef WVM_RING_UFFD_H
#define WVM_RING_UFFD_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/standing.h"

#define WVM_UFFD_BATCH 16 /* messages per buffer */

struct wvm_uffd;

struct wvm_uffd_ops {
	/* n >= 1 messages in the order of the kernel, valid during the call. */
	void (*events)(struct wvm_uffd *u, const struct uffd_msg *msgs, unsigned n);
	/* No more events will come because of err (negative); the owner should close. May be NULL.
	 */
	void (*failed)(struct wvm_uffd *u, int err);
	/* After wvm_uffd_close(): nothing refers to u any more, it may be freed. May be NULL. */
	void (*closed)(struct wvm_uffd *u);
};

/* Embedded by its user; fields written by the shard's thread, read only for others. */
struct wvm_uffd {
	struct wvm_standing op;
	const struct wvm_uffd_ops *ops;
	void *ctx;             /* the user's */
	int fd;                /* ours, closed by wvm_uffd_close() */
	int slot;              /* registered file */
	bool multishot;        /* READ_MULTISHOT, else POLL and read(2) */
	struct wvm_task again; /* reading goes on in the next turn */
};

/*
 * Begins to read fd (from pidfd_getfd), which then belongs to u; O_NONBLOCK is set
 * on it. In the shard's thread, at any time. Returns 0, -ENFILE without a free file
 * slot, -errno of fcntl or registration; fd stays the caller's on error.
 */
int wvm_uffd_open(struct wvm_uffd *u, struct wvm_shard *s, int fd, const struct wvm_uffd_ops *ops,
		  void *ctx);

/*
 * Ends it. No events after this call returns; u must live until ops->closed, which
 * comes from the loop, in a later turn. Closes fd. A second call does nothing.
 */
void wvm_uffd_close(struct wvm_uffd *u);

/*
 * The ioctls. addresses and lengths are of the other process, page aligned. In the
 * shard's thread. Counted in uffd_ioctls. -EAGAIN of the kernel (the address space is being
 * changed by fork, mremap, madvise) is repeated a bounded number of times, each time
 * going on behind what was done. Common results beside 0:
 *   -EAGAIN  still changing: try again in a later turn
 *   -ESRCH   the process is gone
 *   -ENOENT  the range is not registered (any more) in that process
 *   -EINVAL  not aligned, or a mode the registration lacks
 */

#define WVM_UFFD_WP       1u /* install write-protected */
#define WVM_UFFD_DONTWAKE 2u /* leave the waiters asleep */

/*
 * UFFDIO_COPY: installs len bytes of src (our memory) at dst. *done (may be NULL) is what was
 * installed before the error. -EEXIST: a page is already there, the caller wakes.
 * -ENOSPC: the file's filesystem is full or beyond its end.
 */
int wvm_uffd_copy(struct wvm_uffd *u, uint64_t dst, const void *src, size_t len, unsigned flags,
		  size_t *done);

/*
 * UFFDIO_CONTINUE: maps pages that are already in the page cache (minor faults). flags as
 * above; -EEXIST: mapped already. -EFAULT: no page there.
 */
int wvm_uffd_continue(struct wvm_uffd *u, uint64_t dst, size_t len, unsigned flags, size_t *done);

/* UFFDIO_WRITEPROTECT on (protect) or off. Off wakes the waiters unless WVM_UFFD_DONTWAKE. */
int wvm_uffd_protect(struct wvm_uffd *u, uint64_t addr, size_t len, bool protect, unsigned flags);

/* UFFDIO_WAKE: waiters in the range look at their page again. */
int wvm_uffd_wake(struct wvm_uffd *u, uint64_t addr, size_t len);

/*
 * UFFDIO_POISON: accesses get SIGBUS from now on, waiters too. -ENOTSUP when the kernel lacks it
 * (the client library then uses a PROT_NONE page). -EEXIST: a page is there.
 */
int wvm_uffd_poison(struct wvm_uffd *u, uint64_t addr, size_t len);

#endif

/*
 * Notices the death of another process by its pidfd.
 */
#ifndef WVM_RING_PIDWATCH_H
#define WVM_RING_PIDWATCH_H

#include <sys/types.h>

#include "ring/standing.h"

/* Embedded by its user; fields written by the shard's thread. Zero-initialise. */
struct wvm_pidwatch {
	struct wvm_standing op;
	void *ctx;
	void (*died)(struct wvm_pidwatch *w);   /* once, then nothing more will come but closed */
	void (*closed)(struct wvm_pidwatch *w); /* may be NULL; w may be freed in it */
	int pidfd;                              /* owned; closed by wvm_pidwatch_close() */
};

/* pidfd_open(2); pid may be a zombie's. Returns a descriptor (close-on-exec) or -errno (-ESRCH). */
int wvm_pidfd_open(pid_t pid);

/* pidfd_getfd(2): a copy of the process's descriptor, or -errno (-EPERM: ptrace permission). */
int wvm_pidfd_getfd(int pidfd, int fd);

/*
 * Begins to watch; the caller has set died, closed, ctx. pidfd then belongs to w. A process
 * that is dead already is reported too, from the loop. Returns 0.
 */
int wvm_pidwatch_open(struct wvm_pidwatch *w, struct wvm_shard *s, int pidfd);

/* No died() after this; w lives until closed(), which comes in a later turn. */
void wvm_pidwatch_close(struct wvm_pidwatch *w);

#endif

/*
 * Eventfd doorbells between a shard and another process or thread.
 *
 * In: a multishot poll; ring() is called once for one or more rings. The count
 * is not read: it costs a system call and nobody needs it. Out: a write of 1.
 * Both ends should create eventfds with EFD_NONBLOCK: a write to a blocking
 * one through the ring is handed to a kernel worker (36 µs instead of 4).
 *
 * It works on any pollable descriptor (signalfd, timerfd, inotify, a pipe):
 * ring() then reads until EAGAIN.
 */
#ifndef WVM_RING_DOORBELL_H
#define WVM_RING_DOORBELL_H

#include <stdbool.h>

#include "ring/standing.h"

/* Embedded by its user; fields written by the shard's thread. Zero-initialise. */
struct wvm_doorbell {
	struct wvm_standing op;
	struct wvm_shard *shard;
	void *ctx;
	void (*ring)(struct wvm_doorbell *d);
	void (*closed)(struct wvm_doorbell *d); /* may be NULL; d may be freed in it */
	int fd;                                 /* owned; closed by wvm_doorbell_close() */
	int slot;                               /* registered file */
	struct wvm_task again;                  /* a ring that found no submission slot */
	uint64_t rung_turn;                     /* stats.turns of the last ring out, plus 1 */
};

/*
 * Takes over fd. With listen, d->ring is called for rings of the other side; d->ring,
 * d->closed, d->ctx are set by the caller before. In the shard's thread, at any time.
 * Returns 0, -ENFILE, or -errno of the registration; then fd stays the caller's.
 */
int wvm_doorbell_open(struct wvm_doorbell *d, struct wvm_shard *s, int fd, bool listen);

/* No ring() after this; d lives until closed(), which comes in a later turn. */
void wvm_doorbell_close(struct wvm_doorbell *d);

/*
 * Rings the other side at the end of this turn, with the enter that is due anyway; for the
 * same turn more than once is once. Cannot block, whatever the peer does to the eventfd.
 */
void wvm_doorbell_ring(struct wvm_doorbell *d);

/*
 * Rings at once by write(2). Any thread. Only for an eventfd that is certainly nonblocking.
 * 0 or -errno; a full counter is success, since the reader has not looked yet.
 */
int wvm_doorbell_ring_fd(int fd);

#endif

/*
 * A ring of provided buffers (io_uring_register_buf_ring): the kernel takes
 * buffers of one size from it as completions need them.
 */
#ifndef WVM_RING_BUFRING_H
#define WVM_RING_BUFRING_H

#include <stddef.h>
#include <stdint.h>

#include "ring/shard.h"

/* Fields written by wvm_bufring_open(), then read only. */
struct wvm_bufring {
	struct io_uring_buf_ring *ring;
	uint8_t *mem;   /* count buffers of size bytes */
	size_t size;    /* bytes of one, multiple of 64 */
	unsigned count; /* power of two, at most 32768 */
	unsigned group; /* for sqe->buf_group */
};

/* Allocates on the shard's node, registers, fills. 0, -ENOMEM or -errno of the registration. */
int wvm_bufring_open(struct wvm_bufring *b, struct wvm_shard *s, unsigned count, size_t size);

/* Frees the memory. The shard must not run. */
void wvm_bufring_close(struct wvm_bufring *b);

/* The buffer that a completion with IORING_CQE_F_BUFFER names. */
static inline uint8_t *wvm_bufring_at(const struct wvm_bufring *b, uint32_t cqe_flags)
{
	return b->mem + (size_t)(cqe_flags >> IORING_CQE_BUFFER_SHIFT) * b->size;
}

/* Gives it back to the kernel. */
static inline void wvm_bufring_put(struct wvm_bufring *b, uint32_t cqe_flags)
{
	unsigned short id = (unsigned short)(cqe_flags >> IORING_CQE_BUFFER_SHIFT);

	io_uring_buf_ring_add(b->ring, b->mem + id * b->size, (unsigned)b->size, id,
			      (int)b->count - 1, 0);
	io_uring_buf_ring_advance(b->ring, 1);
}

#endif

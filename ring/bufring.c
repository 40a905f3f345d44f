#include "ring/bufring.h"

#include <assert.h>
#include <errno.h>

static size_t ring_bytes(const struct wvm_bufring *b)
{
	return b->count * sizeof(struct io_uring_buf);
}

int wvm_bufring_open(struct wvm_bufring *b, struct wvm_shard *s, unsigned count, size_t size)
{
	struct io_uring_buf_reg reg = {0};
	int err = -ENOMEM;

	assert(count && count <= 32768 && !(count & (count - 1)) && size % 64 == 0);
	b->count = count;
	b->size = size;
	b->group = wvm_shard_group(s);
	b->mem = wvm_shard_memory(s, count * size);
	if (!b->mem)
		return -ENOMEM;
	b->ring = wvm_shard_memory(s, ring_bytes(b));
	if (!b->ring)
		goto free_mem;
	reg.ring_addr = (uint64_t)(uintptr_t)b->ring;
	reg.ring_entries = count;
	reg.bgid = (uint16_t)b->group;
	err = io_uring_register_buf_ring(&s->ring, &reg, 0);
	if (err < 0)
		goto free_ring;
	for (unsigned i = 0; i < count; i++)
		io_uring_buf_ring_add(b->ring, b->mem + i * size, (unsigned)size, (uint16_t)i,
				      (int)count - 1, (int)i);
	io_uring_buf_ring_advance(b->ring, (int)count);
	return 0;
free_ring:
	wvm_shard_memory_free(b->ring, ring_bytes(b));
	b->ring = NULL;
free_mem:
	wvm_shard_memory_free(b->mem, count * size);
	b->mem = NULL;
	return err;
}

void wvm_bufring_close(struct wvm_bufring *b)
{
	if (b->ring)
		wvm_shard_memory_free(b->ring, ring_bytes(b));
	if (b->mem)
		wvm_shard_memory_free(b->mem, b->count * b->size);
	b->ring = NULL;
	b->mem = NULL;
}

#include "ring/post.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/*
 * Vyukov's bounded queue. Slot i is free for the writer of round r when its seq is
 * r * slots + i, and ready for the reader when it is one more.
 */
struct slot {
	uint32_t seq;
	uint32_t len;
	wvm_post_fn fn;
	void *ctx;
	uint64_t pad;
	uint8_t data[];
};

_Static_assert(offsetof(struct slot, data) == 32, "messages are 16-byte aligned");

struct wvm_inbox {
	uint8_t *mem;
	size_t mem_len, stride;
	uint32_t mask, bytes;
	_Alignas(64) uint32_t tail; /* next to write, all writers */
	_Alignas(64) uint32_t head; /* next to read, the owner */
};

static struct slot *slot_at(const struct wvm_inbox *q, uint32_t i)
{
	return (struct slot *)(q->mem + (size_t)(i & q->mask) * q->stride);
}

/* MSG_RING failed (runs in the sender's thread, io is the receiver's): wake it by eventfd. */
static void msg_ring_refused(struct wvm_io *io, int res, uint32_t flags)
{
	struct wvm_shard *to =
		(struct wvm_shard *)((char *)io - offsetof(struct wvm_shard, refused_io));

	__atomic_store_n(&to->no_msg_ring, 1, __ATOMIC_RELAXED);
	wvm_shard_ring_eventfd(to);
}

struct wvm_inbox *wvm_inbox_create(struct wvm_shard *s, unsigned slots, unsigned bytes)
{
	struct wvm_inbox *q = wvm_shard_memory(s, sizeof(*q));

	if (!q)
		return NULL;
	s->refused_io.done = msg_ring_refused;
	q->mask = slots - 1;
	q->bytes = bytes;
	q->stride = (sizeof(struct slot) + bytes + 63) & ~(size_t)63;
	q->mem_len = q->stride * slots;
	q->mem = wvm_shard_memory(s, q->mem_len);
	if (!q->mem) {
		wvm_shard_memory_free(q, sizeof(*q));
		return NULL;
	}
	for (uint32_t i = 0; i < slots; i++)
		slot_at(q, i)->seq = i;
	return q;
}

void wvm_inbox_destroy(struct wvm_inbox *q)
{
	if (!q)
		return;
	wvm_shard_memory_free(q->mem, q->mem_len);
	wvm_shard_memory_free(q, sizeof(*q));
}

/* Claims the slot for the next message; NULL when the queue is full. */
static struct slot *claim(struct wvm_inbox *q, uint32_t *at)
{
	uint32_t tail = __atomic_load_n(&q->tail, __ATOMIC_RELAXED);

	for (;;) {
		struct slot *m = slot_at(q, tail);
		int32_t ahead = (int32_t)(__atomic_load_n(&m->seq, __ATOMIC_ACQUIRE) - tail);

		if (ahead < 0)
			return NULL;
		if (ahead > 0) {
			tail = __atomic_load_n(&q->tail, __ATOMIC_RELAXED);
			continue;
		}
		if (__atomic_compare_exchange_n(&q->tail, &tail, tail + 1, true, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED)) {
			*at = tail;
			return m;
		}
	}
}

static int put(struct wvm_inbox *q, wvm_post_fn fn, void *ctx, const void *head, size_t head_len,
	       const void *tail, size_t tail_len)
{
	struct slot *m;
	uint32_t at;

	assert(fn);
	if (head_len > q->bytes || tail_len > q->bytes - head_len)
		return -EMSGSIZE;
	m = claim(q, &at);
	if (!m)
		return -EAGAIN;
	m->fn = fn;
	m->ctx = ctx;
	m->len = (uint32_t)(head_len + tail_len);
	if (head_len)
		memcpy(m->data, head, head_len);
	if (tail_len)
		memcpy(m->data + head_len, tail, tail_len);
	__atomic_store_n(&m->seq, at + 1, __ATOMIC_RELEASE);
	return 0;
}

static void wake(struct wvm_shard *from, struct wvm_shard *to)
{
	struct io_uring_sqe *sqe = NULL;

	/*
	 * The exchange pairs with the one in go_to_sleep(): either it sees the receiver asleep,
	 * or the receiver's sees the message.
	 */
	if (!__atomic_exchange_n(&to->asleep, 0, __ATOMIC_ACQ_REL))
		return;
	if (from->kernel.msg_ring && !__atomic_load_n(&to->no_msg_ring, __ATOMIC_RELAXED))
		sqe = wvm_shard_sqe(from);
	if (!sqe) {
		wvm_shard_ring_eventfd(to);
		WVM_COUNT(from, wakes_eventfd, 1);
		return;
	}
	io_uring_prep_msg_ring(sqe, to->ring.ring_fd, 0, (uint64_t)(uintptr_t)&to->wake_io, 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	wvm_sqe_to(sqe, &to->refused_io);
	WVM_COUNT(from, wakes_ring, 1);
}

int wvm_post_pair(struct wvm_shard *from, struct wvm_shard *to, wvm_post_fn fn, void *ctx,
		  const void *head, size_t head_len, const void *tail, size_t tail_len)
{
	int err = put(to->inbox, fn, ctx, head, head_len, tail, tail_len);

	if (err) {
		if (err == -EAGAIN)
			WVM_COUNT(from, posts_full, 1);
		return err;
	}
	WVM_COUNT(from, posts_out, 1);
	if (from != to)
		wake(from, to);
	return 0;
}

int wvm_post(struct wvm_shard *from, struct wvm_shard *to, wvm_post_fn fn, void *ctx,
	     const void *data, size_t len)
{
	return wvm_post_pair(from, to, fn, ctx, data, len, NULL, 0);
}

int wvm_post_outside(struct wvm_shard *to, wvm_post_fn fn, void *ctx, const void *data, size_t len)
{
	int err = put(to->inbox, fn, ctx, data, len, NULL, 0);

	if (!err)
		wvm_shard_wake(to);
	return err;
}

bool wvm_inbox_ready(const struct wvm_inbox *q)
{
	return __atomic_load_n(&slot_at(q, q->head)->seq, __ATOMIC_ACQUIRE) == q->head + 1;
}

unsigned wvm_inbox_run(struct wvm_shard *s, unsigned max)
{
	struct wvm_inbox *q = s->inbox;
	unsigned n = 0;

	while (n < max && wvm_inbox_ready(q)) {
		struct slot *m = slot_at(q, q->head);

		m->fn(s, m->ctx, m->data, m->len);
		__atomic_store_n(&m->seq, q->head + q->mask + 1, __ATOMIC_RELEASE);
		q->head++;
		n++;
	}
	if (n)
		WVM_COUNT(s, posts_in, n);
	return n;
}

/*
 * Messages between shards: a bounded queue per receiver, many writers, one
 * reader, no lock. A message is a function and a copy of some bytes; it runs
 * in the receiver's thread in step 3 of its turn. Messages of one sender
 * arrive in order. A sleeping receiver is woken by MSG_RING, which leaves with
 * the sender's next io_uring_enter; by eventfd where the kernel lacks that,
 * or where the sender has no ring.
 */
#ifndef WVM_RING_POST_H
#define WVM_RING_POST_H

#include <stddef.h>
#include <stdint.h>

#include "ring/shard.h"

/* data: a copy of what was posted, 16-byte aligned, valid during the call. self: the receiver. */
typedef void (*wvm_post_fn)(struct wvm_shard *self, void *ctx, const void *data, size_t len);

/*
 * Posts to shard to (may be the sender itself), which must not be destroyed yet; what
 * arrives after its loop has ended does not run. From the thread of shard from.
 * data may be NULL when len is 0; ctx is passed through and must stay valid until the
 * message has run. Returns 0, -EAGAIN when the inbox is full (counted in posts_full; the
 * caller decides), -EMSGSIZE above to's opts.inbox_bytes.
 */
int wvm_post(struct wvm_shard *from, struct wvm_shard *to, wvm_post_fn fn, void *ctx,
	     const void *data, size_t len);

/* The same with two pieces, which arrive as one. */
int wvm_post_pair(struct wvm_shard *from, struct wvm_shard *to, wvm_post_fn fn, void *ctx,
		  const void *head, size_t head_len, const void *tail, size_t tail_len);

/* The same as wvm_post() from a thread that is no shard. A write(2) when the receiver sleeps. */
int wvm_post_outside(struct wvm_shard *to, wvm_post_fn fn, void *ctx, const void *data, size_t len);

/*
 * For shard.c: the queue itself. slots is a power of two, bytes the largest message.
 */
struct wvm_inbox *wvm_inbox_create(struct wvm_shard *s, unsigned slots, unsigned bytes);
void wvm_inbox_destroy(struct wvm_inbox *q);
/* Runs at most max messages; returns how many. The shard's thread. */
unsigned wvm_inbox_run(struct wvm_shard *s, unsigned max);
/* Whether a message can be taken. The shard's thread. */
bool wvm_inbox_ready(const struct wvm_inbox *q);

#endif

#include <assert.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

#include "ring/udp_private.h"

/*
 * A batch is sent with MSG_DONTWAIT and skips its completion on success: a UDP sendmsg copies
 * the data while it is issued, so the batch is over when io_uring_enter returns, unless it
 * failed, which is reported (wvm_shard_settled()). Completions would end the sleep of the very
 * enter that submitted them. What finds the socket buffer full is sent again, waiting, with
 * a completion; until then nothing new is issued, so the caller runs out of buffers and
 * feels the pressure.
 */

#define batch_of(ptr, member) \
	((struct wvm_batch *)((char *)(ptr)-offsetof(struct wvm_batch, member)))

static void list_init(struct wvm_link *head)
{
	head->next = head->prev = head;
}

static bool list_empty(const struct wvm_link *head)
{
	return head->next == head;
}

static void list_append(struct wvm_link *head, struct wvm_link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

static void list_remove(struct wvm_link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	l->next = l->prev = NULL;
}

int wvm_udp_tx_open(struct wvm_udp *u)
{
	unsigned n = u->opts.tx_buffers;

	list_init(&u->issued);
	list_init(&u->blocked);
	for (unsigned i = 0; i < WVM_LANES; i++)
		list_init(&u->lanes[i].head);
	u->tx_stride = (u->opts.datagram_max + WVM_UDP_ALIGN - 1) / WVM_UDP_ALIGN * WVM_UDP_ALIGN;
	u->tx_mem = wvm_shard_memory(u->shard, n * u->tx_stride);
	u->batches = wvm_shard_memory(u->shard, n * sizeof(*u->batches));
	u->tx_free = calloc(n, sizeof(*u->tx_free));
	u->batch_free = calloc(n, sizeof(*u->batch_free));
	if (!u->tx_mem || !u->batches || !u->tx_free || !u->batch_free)
		return -ENOMEM;
	/* The lowest ends on top of the stack: a quiet socket touches few pages. */
	for (unsigned i = n; i-- > 0;) {
		u->tx_free[u->tx_free_count++] = u->tx_mem + i * u->tx_stride;
		u->batch_free[u->batch_free_count++] = &u->batches[i];
	}
	return 0;
}

void wvm_udp_tx_close(struct wvm_udp *u)
{
	if (u->tx_mem)
		wvm_shard_memory_free(u->tx_mem, u->opts.tx_buffers * u->tx_stride);
	if (u->batches)
		wvm_shard_memory_free(u->batches, u->opts.tx_buffers * sizeof(*u->batches));
	free(u->tx_free);
	free(u->batch_free);
}

/* Peers whose path refuses UDP_SEGMENT, by address. A collision forgets one: costs a retry. */

static struct in_addr *no_gso_slot(struct wvm_udp *u, struct in_addr peer)
{
	return &u->no_gso[(peer.s_addr * 2654435761U) >> 26];
}

_Static_assert(WVM_UDP_NO_GSO == 1 << (32 - 26), "the hash has as many bits as the table");

static bool gso_refused(struct wvm_udp *u, const struct sockaddr_in *peer)
{
	return peer->sin_addr.s_addr &&
	       no_gso_slot(u, peer->sin_addr)->s_addr == peer->sin_addr.s_addr;
}

/* Buffers. */

static void put_buffer(struct wvm_udp *u, void *buf)
{
	assert(u->tx_free_count < u->opts.tx_buffers);
	u->tx_free[u->tx_free_count++] = buf;
}

static void free_batch(struct wvm_batch *b)
{
	struct wvm_udp *u = b->udp;

	for (unsigned i = 0; i < b->count; i++)
		put_buffer(u, b->iov[i].iov_base);
	assert(u->batch_free_count < u->opts.tx_buffers);
	u->batch_free[u->batch_free_count++] = b;
}

static void recycle(struct wvm_udp *u)
{
	while (!list_empty(&u->issued)) {
		struct wvm_batch *b = batch_of(u->issued.next, link);

		if (!wvm_shard_settled(u->shard, b->issue))
			return;
		list_remove(&b->link);
		free_batch(b);
	}
}

static unsigned count_free(const struct wvm_udp *u, enum wvm_lane lane)
{
	unsigned kept = lane == WVM_LANE_BULK ? u->opts.tx_control : 0;

	return u->tx_free_count > kept ? u->tx_free_count - kept : 0;
}

unsigned wvm_udp_free(struct wvm_udp *u, enum wvm_lane lane)
{
	recycle(u);
	return count_free(u, lane);
}

uint8_t *wvm_udp_reserve(struct wvm_udp *u, enum wvm_lane lane)
{
	if (!count_free(u, lane) && !wvm_udp_free(u, lane)) {
		u->starved = true;
		WVM_COUNT(u->shard, tx_pool_empty, 1);
		return NULL;
	}
	u->lanes[lane].reserved++;
	return u->tx_free[--u->tx_free_count];
}

static void unreserve(struct wvm_udp *u, enum wvm_lane lane, const uint8_t *buf)
{
	assert(buf >= u->tx_mem && (size_t)(buf - u->tx_mem) % u->tx_stride == 0);
	assert(buf < u->tx_mem + u->opts.tx_buffers * u->tx_stride);
	assert(u->lanes[lane].reserved);
	u->lanes[lane].reserved--;
}

void wvm_udp_cancel(struct wvm_udp *u, enum wvm_lane lane, uint8_t *buf)
{
	unreserve(u, lane, buf);
	put_buffer(u, buf);
}

/* Committing. */

static bool same_peer(const struct wvm_batch *b, const struct sockaddr_in *peer)
{
	return b->peer.sin_addr.s_addr == peer->sin_addr.s_addr &&
	       b->peer.sin_port == peer->sin_port;
}

/*
 * Segmentation wants datagrams of one size, the last one apart. One that is a little shorter
 * than its batch's is made as long when others follow. False: it is not a little.
 */
static bool pad(const struct wvm_udp *u, struct iovec *v, size_t size)
{
	if (v->iov_len >= size)
		return true;
	if (size - v->iov_len > u->opts.pad_max)
		return false;
	memset((uint8_t *)v->iov_base + v->iov_len, 0, size - v->iov_len);
	v->iov_len = size;
	return true;
}

/* The newest waiting batch to this peer. */
static struct wvm_batch *find_recent(struct wvm_lane_queue *q, const struct sockaddr_in *peer)
{
	for (unsigned i = 0; i < q->recent_count; i++)
		if (same_peer(q->recent[i], peer))
			return q->recent[i];
	return NULL;
}

/* Whether the batch can take one more, of any length. */
static bool has_place(struct wvm_udp *u, const struct wvm_batch *b, uint16_t steer)
{
	return b->steer == steer && b->count < WVM_GSO_SEGMENTS &&
	       (b->count + 1u) * b->size <= WVM_GSO_BYTES && !gso_refused(u, &b->peer);
}

static bool append(struct wvm_udp *u, struct wvm_batch *b, uint16_t steer, struct iovec v)
{
	if (v.iov_len > b->size || !has_place(u, b, steer) ||
	    !pad(u, &b->iov[b->count - 1], b->size))
		return false;
	b->iov[b->count++] = v;
	return true;
}

static void sent(struct wvm_io *io, int res, uint32_t flags);

static struct wvm_batch *new_batch(struct wvm_udp *u, enum wvm_lane lane,
				   const struct sockaddr_in *peer, uint16_t steer, size_t len)
{
	struct wvm_lane_queue *q = &u->lanes[lane];
	struct wvm_batch *b;

	/* One batch per buffer, so there is one for every committed buffer. */
	assert(u->batch_free_count);
	b = u->batch_free[--u->batch_free_count];
	b->io.done = sent;
	b->udp = u;
	b->peer = *peer;
	b->peer.sin_family = AF_INET;
	b->count = 0;
	b->size = (uint16_t)len;
	b->steer = steer;
	b->state = WVM_BATCH_OPEN;
	b->lane = (uint8_t)lane;
	b->single_ok = false;
	list_append(&q->head, &b->link);
	if (q->recent_count < WVM_UDP_RECENT)
		q->recent_count++;
	memmove(&q->recent[1], &q->recent[0], (q->recent_count - 1) * sizeof(q->recent[0]));
	q->recent[0] = b;
	return b;
}

void wvm_udp_commit(struct wvm_udp *u, enum wvm_lane lane, const struct sockaddr_in *peer,
		    uint16_t steer, uint8_t *buf, size_t len)
{
	struct wvm_lane_queue *q = &u->lanes[lane];
	struct iovec v = {buf, len};
	struct wvm_batch *b;

	assert(len && len <= u->opts.datagram_max);
	unreserve(u, lane, buf);
	q->datagrams++;
	b = find_recent(q, peer);
	if (b && append(u, b, steer, v))
		return;
	/* The rest of a page that the full batch has begun: its successors are as long again. */
	if (b && b->count > 1 && b->steer == steer)
		pad(u, &v, b->size);
	b = new_batch(u, lane, peer, steer, v.iov_len);
	b->iov[b->count++] = v;
}

int wvm_udp_send(struct wvm_udp *u, enum wvm_lane lane, const struct sockaddr_in *peer,
		 uint16_t steer, const void *data, size_t len)
{
	uint8_t *buf;

	if (!len || len > u->opts.datagram_max)
		return -EMSGSIZE;
	buf = wvm_udp_reserve(u, lane);
	if (!buf)
		return -EAGAIN;
	memcpy(buf, data, len);
	wvm_udp_commit(u, lane, peer, steer, buf, len);
	return 0;
}

/* Sending. */

static void fill_message(struct wvm_batch *b, unsigned first, unsigned count)
{
	struct cmsghdr *c;

	b->msg = (struct msghdr){
		.msg_name = &b->peer,
		.msg_namelen = sizeof(b->peer),
		.msg_iov = &b->iov[first],
		.msg_iovlen = count,
	};
	if (count == 1)
		return;
	b->msg.msg_control = b->control;
	b->msg.msg_controllen = sizeof(b->control);
	c = CMSG_FIRSTHDR(&b->msg);
	c->cmsg_level = SOL_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
	memcpy(CMSG_DATA(c), &b->size, sizeof(uint16_t));
}

/* 0, or -EAGAIN without a submission slot. wait: complete, and only when there was room. */
static int submit(struct wvm_batch *b, bool wait)
{
	struct wvm_udp *u = b->udp;
	struct io_uring_sqe *sqe = wvm_shard_sqe(u->shard);

	if (!sqe)
		return -EAGAIN;
	io_uring_prep_sendmsg(sqe, u->slot, &b->msg, wait ? 0 : MSG_DONTWAIT);
	sqe->flags |= IOSQE_FIXED_FILE | (wait ? 0 : IOSQE_CQE_SKIP_SUCCESS);
	wvm_sqe_to(sqe, &b->io);
	b->issue = wvm_shard_issue(u->shard);
	return 0;
}

static void count_drop(struct wvm_udp *u, int err, unsigned n)
{
	switch (err) {
	case -EMSGSIZE: WVM_COUNT(u->shard, tx_too_long, n); break;
	case -ECONNREFUSED:
	case -EPERM:
	case -EACCES:
	case -ENETUNREACH:
	case -EHOSTUNREACH:
	case -ENETDOWN:
	case -EHOSTDOWN: WVM_COUNT(u->shard, tx_refused, n); break;
	default: WVM_COUNT(u->shard, tx_errors, n);
	}
}

static bool would_block(int err)
{
	return err == -EAGAIN || err == -EINTR;
}

static void submit_single(struct wvm_batch *b)
{
	fill_message(b, b->next, 1);
	if (!submit(b, true))
		return;
	count_drop(b->udp, -EAGAIN, b->count - b->next);
	b->udp->singles--;
	free_batch(b);
}

static void single_done(struct wvm_batch *b, int res)
{
	struct wvm_udp *u = b->udp;

	if (res == -EINTR) {
		submit_single(b);
		return;
	}
	if (res < 0) {
		count_drop(u, res, 1);
	} else if (!b->single_ok) {
		/* Alone it gets through: it is the segmentation that this path refuses. */
		b->single_ok = true;
		*no_gso_slot(u, b->peer.sin_addr) = b->peer.sin_addr;
	}
	if (++b->next < b->count) {
		submit_single(b);
		return;
	}
	u->singles--;
	free_batch(b);
}

/* Starts the first of the blocked queue. False without a submission slot: the flush tries again. */
static bool submit_blocked(struct wvm_udp *u)
{
	struct wvm_batch *b;

	if (list_empty(&u->blocked))
		return true;
	b = batch_of(u->blocked.next, link);
	if (b->state == WVM_BATCH_BLOCKED)
		return true;
	if (submit(b, true))
		return false;
	b->state = WVM_BATCH_BLOCKED;
	return true;
}

static void failed(struct wvm_batch *b, int err)
{
	struct wvm_udp *u = b->udp;

	if (b->count > 1 && (err == -EIO || err == -EINVAL)) {
		WVM_COUNT(u->shard, tx_gso_fallback, 1);
		b->state = WVM_BATCH_SINGLE;
		b->next = 0;
		u->singles++;
		submit_single(b);
		return;
	}
	count_drop(u, err, b->count);
	free_batch(b);
}

/* A completion: a failure of an issued batch, or the end of a waiting one. */
static void sent(struct wvm_io *io, int res, uint32_t flags)
{
	struct wvm_batch *b = batch_of(io, io);
	struct wvm_udp *u = b->udp;

	if (b->state == WVM_BATCH_SINGLE) {
		single_done(b, res);
		return;
	}
	if (b->state == WVM_BATCH_ISSUED && would_block(res)) {
		WVM_COUNT(u->shard, tx_blocked, 1);
		list_remove(&b->link);
		list_append(&u->blocked, &b->link);
		submit_blocked(u);
		return;
	}
	if (b->state == WVM_BATCH_BLOCKED && would_block(res)) {
		b->state = WVM_BATCH_ISSUED;
		submit_blocked(u);
		return;
	}
	list_remove(&b->link);
	if (res < 0)
		failed(b, res);
	else
		free_batch(b);
	submit_blocked(u);
}

static size_t bytes_of(const struct wvm_batch *b)
{
	return (b->count - 1u) * (size_t)b->size + b->iov[b->count - 1].iov_len;
}

/* Issues up to quota datagrams of a lane; false when something is left. */
static bool issue(struct wvm_udp *u, struct wvm_lane_queue *q, unsigned quota)
{
	struct wvm_shard *s = u->shard;

	q->recent_count = 0;
	while (!list_empty(&q->head) && quota) {
		struct wvm_batch *b = batch_of(q->head.next, link);

		fill_message(b, 0, b->count);
		if (submit(b, false))
			return false;
		b->state = WVM_BATCH_ISSUED;
		list_remove(&b->link);
		list_append(&u->issued, &b->link);
		q->datagrams -= b->count;
		quota -= b->count < quota ? b->count : quota;
		WVM_COUNT(s, tx_batches, 1);
		WVM_COUNT(s, tx_datagrams, b->count);
		WVM_COUNT(s, tx_bytes, bytes_of(b));
		if (b->count > 1)
			WVM_COUNT(s, tx_gso_batches, 1);
	}
	return list_empty(&q->head);
}

bool wvm_udp_tx_flush(struct wvm_hook *h, uint64_t now_ns)
{
	struct wvm_udp *u = (struct wvm_udp *)((char *)h - offsetof(struct wvm_udp, hook));
	bool all;

	recycle(u);
	if (u->starved && wvm_udp_free(u, WVM_LANE_BULK)) {
		u->starved = false;
		if (u->opts.room)
			u->opts.room(u->ctx);
	}
	if (!submit_blocked(u))
		return true;
	if (!list_empty(&u->blocked))
		return false;
	all = issue(u, &u->lanes[WVM_LANE_CONTROL], UINT32_MAX);
	all = all && issue(u, &u->lanes[WVM_LANE_BULK], u->opts.bulk_quota);
	/* What was issued is free in the next turn: who waits for it must not sleep. */
	return !all || (u->starved && !list_empty(&u->issued));
}

bool wvm_udp_idle(struct wvm_udp *u)
{
	recycle(u);
	for (unsigned i = 0; i < WVM_LANES; i++)
		if (!list_empty(&u->lanes[i].head))
			return false;
	return list_empty(&u->issued) && list_empty(&u->blocked) && !u->singles;
}

#include "ring/doorbell.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#define container(ptr, member) \
	((struct wvm_doorbell *)((char *)(ptr)-offsetof(struct wvm_doorbell, member)))

static const uint64_t one = 1;

static void prepare(struct wvm_standing *o, struct io_uring_sqe *sqe)
{
	io_uring_prep_poll_multishot(sqe, container(o, op)->slot, POLLIN);
	sqe->flags |= IOSQE_FIXED_FILE;
}

static enum wvm_standing_next event(struct wvm_standing *o, int res, uint32_t flags)
{
	struct wvm_doorbell *d = container(o, op);

	if (res < 0)
		return WVM_STANDING_LATER;
	WVM_COUNT(o->shard, doorbells_in, 1);
	d->ring(d);
	return WVM_STANDING_AGAIN;
}

static void gone(struct wvm_standing *o)
{
	struct wvm_doorbell *d = container(o, op);

	if (d->again.queued) {
		wvm_shard_defer(o->shard, &o->task);
		return;
	}
	wvm_shard_file_del(o->shard, d->slot);
	close(d->fd);
	if (d->closed)
		d->closed(d);
}

static void ring_again(struct wvm_task *t)
{
	wvm_doorbell_ring(container(t, again));
}

int wvm_doorbell_open(struct wvm_doorbell *d, struct wvm_shard *s, int fd, bool listen)
{
	assert(!listen || d->ring);
	d->op = (struct wvm_standing){.prepare = prepare, .event = event, .gone = gone};
	d->again = (struct wvm_task){.run = ring_again};
	d->shard = s;
	d->fd = fd;
	d->rung_turn = 0;
	d->slot = wvm_shard_file_add(s, fd);
	if (d->slot < 0)
		return d->slot;
	if (listen)
		wvm_standing_start(&d->op, s);
	else
		wvm_standing_idle(&d->op, s);
	return 0;
}

void wvm_doorbell_close(struct wvm_doorbell *d)
{
	wvm_standing_close(&d->op);
}

void wvm_doorbell_ring(struct wvm_doorbell *d)
{
	struct wvm_shard *s = d->shard;
	struct io_uring_sqe *sqe;

	if (d->op.closing || d->rung_turn == s->stats.turns + 1)
		return;
	sqe = wvm_shard_sqe(s);
	if (!sqe) {
		wvm_shard_defer(s, &d->again);
		return;
	}
	/*
	 * No completion: success is skipped, EAGAIN means a full counter and so a reader that is
	 * signalled already, and a worker stuck in a blocking eventfd may outlive d.
	 */
	io_uring_prep_write(sqe, d->slot, &one, sizeof(one), 0);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	wvm_sqe_to(sqe, NULL);
	d->rung_turn = s->stats.turns + 1;
	WVM_COUNT(s, doorbells_out, 1);
}

int wvm_doorbell_ring_fd(int fd)
{
	wvm_count_call(WVM_CALL_write);
	if (write(fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN)
		return 0;
	return -errno;
}

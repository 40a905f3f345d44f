#include "ring/standing.h"

#include <assert.h>

#define LATER_NS 10000000ULL

#define container(ptr, member) \
	((struct wvm_standing *)((char *)(ptr)-offsetof(struct wvm_standing, member)))

static void cancelled(struct wvm_io *io, int res, uint32_t flags)
{
	struct wvm_standing *o = container(io, cancel_io);

	o->cancelling = false;
	wvm_shard_defer(o->shard, &o->task);
}

/* Closing: cancel what is armed, as often as it takes, then report. */
static void step_close(struct wvm_standing *o)
{
	if (o->armed && !o->cancelling) {
		if (wvm_shard_cancel(o->shard, &o->io, &o->cancel_io))
			wvm_shard_defer(o->shard, &o->task);
		else
			o->cancelling = true;
	}
	if (o->armed || o->cancelling)
		return;
	wvm_shard_disarm(o->shard, &o->timer);
	if (o->gone)
		o->gone(o);
}

static void step(struct wvm_task *t)
{
	struct wvm_standing *o = container(t, task);
	struct io_uring_sqe *sqe;

	if (o->closing) {
		step_close(o);
		return;
	}
	if (o->armed || o->shard->ending)
		return;
	sqe = wvm_shard_sqe(o->shard);
	if (!sqe) {
		wvm_shard_defer(o->shard, &o->task);
		return;
	}
	o->prepare(o, sqe);
	wvm_sqe_to(sqe, &o->io);
	o->armed = true;
}

static void later(struct wvm_timer *t, uint64_t now_ns)
{
	struct wvm_standing *o = container(t, timer);

	wvm_shard_defer(o->shard, &o->task);
}

static void done(struct wvm_io *io, int res, uint32_t flags)
{
	struct wvm_standing *o = container(io, io);
	enum wvm_standing_next next = WVM_STANDING_OVER;

	o->armed = flags & IORING_CQE_F_MORE;
	if (!o->closing && !o->shard->ending)
		next = o->event(o, res, flags);
	else if (o->discard)
		o->discard(o, res, flags);
	if (o->armed)
		return;
	if (o->closing || next == WVM_STANDING_AGAIN)
		wvm_shard_defer(o->shard, &o->task);
	else if (next == WVM_STANDING_LATER)
		wvm_shard_arm(o->shard, &o->timer, LATER_NS);
}

void wvm_standing_idle(struct wvm_standing *o, struct wvm_shard *s)
{
	assert(o->prepare && o->event && !o->armed);
	o->shard = s;
	o->closing = o->cancelling = false;
	o->io.done = done;
	o->cancel_io.done = cancelled;
	o->task.run = step;
	o->timer.fire = later;
}

void wvm_standing_start(struct wvm_standing *o, struct wvm_shard *s)
{
	wvm_standing_idle(o, s);
	wvm_shard_defer(s, &o->task);
}

void wvm_standing_close(struct wvm_standing *o)
{
	if (o->closing)
		return;
	o->closing = true;
	wvm_shard_defer(o->shard, &o->task);
}

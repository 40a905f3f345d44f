/*
 * Reading ahead, by MEM_READ requests that nobody waits for. They are ordinary
 * requests to their home, and a fault may join them; alone they have no
 * deadline, no retry and no hold time, and end without a word.
 */
#include "shared/core/ahead.h"

#include "shared/core/core_int.h"

/* page = from + n * stride with n > 0: n, else 0. */
static uint64_t steps(uint64_t from, uint64_t page, int64_t stride)
{
	int64_t way = (int64_t)(page - from);

	if (!stride || way % stride || way / stride <= 0)
		return 0;
	return (uint64_t)(way / stride);
}

/* Whether the fault lies on what was asked for, or just past it. */
static bool on_run(const struct wvm_stream *st, uint64_t page)
{
	uint64_t n = steps(st->last, page, st->stride);

	return st->window && n && n <= steps(st->last, st->next, st->stride);
}

static bool is_near(const struct wvm_stream *st, uint64_t page)
{
	int64_t way = (int64_t)(page - st->last);

	return way >= -WVM_AHEAD_STRIDE && way <= WVM_AHEAD_STRIDE;
}

/* The stream that the fault belongs to: one that goes on, else one close by, else a new one. */
static struct wvm_stream *find(struct wvm_ahead *ahead, uint32_t vm, uint64_t page)
{
	struct wvm_stream *near = NULL, *oldest = &ahead->stream[0];

	for (uint32_t i = 0; i < WVM_AHEAD_STREAMS; i++) {
		struct wvm_stream *st = &ahead->stream[i];

		if (st->used < oldest->used)
			oldest = st;
		if (!st->used || st->vm != vm)
			continue;
		if (on_run(st, page))
			return st;
		if (is_near(st, page) && (!near || near->used < st->used))
			near = st;
	}
	if (near)
		return near;
	*oldest = (struct wvm_stream){.last = page, .vm = vm};
	return oldest;
}

/*
 * How the fault changes the stream. Two neighbours are a stream: that is how
 * most programs read. Any other stride has to show twice.
 */
static void learn(struct wvm_core *core, struct wvm_stream *st, uint64_t page)
{
	int64_t stride = (int64_t)(page - st->last);
	uint32_t most = core->params.read_ahead;

	if (on_run(st, page)) {
		core->stats.ahead_passed += steps(st->last, page, st->stride) - 1;
		st->window = st->window * 2 < most ? st->window * 2 : most;
	} else if (stride) {
		st->window = stride == 1 || stride == st->stride ? WVM_AHEAD_FIRST : 0;
		if (st->window > most)
			st->window = most;
		st->stride = stride;
		st->next = page + (uint64_t)stride;
	}
	if (st->next == page)
		st->next = page + (uint64_t)st->stride;
	st->last = page;
}

/* Whether one more request that nobody waits for leaves enough room to those that follow. */
static bool has_room(const struct wvm_core *core, const struct wvm_peer *peer)
{
	return core->requests_free > core->params.limits.requests / 2 && !peer->queue_head &&
	       2 * peer->in_flight * WVM_WINDOW_ONE < peer->window;
}

bool wvm_ahead_page(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	const struct wvm_held_page *h = wvm_held_of(core, vm, page);

	/* What is asked for first may bring all of the unit, and is alone on its way. */
	if (core->params.units && !u->touched)
		return false;
	if (wvm_unit_mine(u, page) || h->state != WVM_HELD_INVALID || h->request || h->demand)
		return true;
	if (!has_room(core, &core->peers[wvm_core_home_of(core, vm, page, NULL)]))
		return false;
	wvm_request_ahead(core, vm, page);
	return true;
}

static void ask(struct wvm_core *core, struct wvm_stream *st)
{
	uint64_t pages = core->vms[st->vm].pages, unit = st->last / WVM_UNIT_PAGES;
	uint64_t end = st->last + (uint64_t)st->stride * (st->window + 1u);

	for (; st->next != end; st->next += (uint64_t)st->stride) {
		/* Below page 0 is a large number. */
		if (st->next >= pages || st->next / WVM_UNIT_PAGES != unit)
			return;
		if (!wvm_ahead_page(core, st->vm, st->next))
			return;
	}
}

void wvm_core_ahead(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page)
{
	struct wvm_ahead *ahead = &core->ahead;
	struct wvm_stream *st;

	WVM_ASSERT(page < core->vms[vm].pages && !core->adopting);
	if (!core->params.read_ahead)
		return;
	core->now_ns = now_ns;
	wvm_undo_commit(core);
	st = find(ahead, vm, page);
	learn(core, st, page);
	st->used = ++ahead->clock;
	if (st->window)
		ask(core, st);
}

#include "shared/core/timers.h"

#include "shared/core/assert.h"

static void put(struct wvm_core_timers *timers, uint32_t i, struct wvm_core_timer *t)
{
	timers->heap[i] = t;
	t->place = i + 1;
}

static void sift_up(struct wvm_core_timers *timers, uint32_t i, struct wvm_core_timer *t)
{
	while (i > 0) {
		uint32_t parent = (i - 1) / 2;

		if (timers->heap[parent]->due_ns <= t->due_ns)
			break;
		put(timers, i, timers->heap[parent]);
		i = parent;
	}
	put(timers, i, t);
}

static void sift_down(struct wvm_core_timers *timers, uint32_t i, struct wvm_core_timer *t)
{
	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child >= timers->count)
			break;
		if (child + 1 < timers->count &&
		    timers->heap[child + 1]->due_ns < timers->heap[child]->due_ns)
			child++;
		if (t->due_ns <= timers->heap[child]->due_ns)
			break;
		put(timers, i, timers->heap[child]);
		i = child;
	}
	put(timers, i, t);
}

void wvm_core_timer_arm(struct wvm_core_timers *timers, struct wvm_core_timer *t, uint64_t due_ns)
{
	wvm_core_timer_cancel(timers, t);
	WVM_ASSERT(timers->count < timers->capacity);
	t->due_ns = due_ns;
	sift_up(timers, timers->count++, t);
}

void wvm_core_timer_cancel(struct wvm_core_timers *timers, struct wvm_core_timer *t)
{
	struct wvm_core_timer *last;
	uint32_t i;

	if (!t->place)
		return;
	i = t->place - 1;
	WVM_ASSERT(i < timers->count && timers->heap[i] == t);
	last = timers->heap[--timers->count];
	t->place = 0;
	if (last == t)
		return;
	/* The moved one may belong above or below the gap. */
	sift_up(timers, i, last);
	sift_down(timers, last->place - 1, last);
}

struct wvm_core_timer *wvm_core_timer_expired(struct wvm_core_timers *timers, uint64_t now_ns)
{
	struct wvm_core_timer *t;

	if (!timers->count || timers->heap[0]->due_ns > now_ns)
		return NULL;
	t = timers->heap[0];
	wvm_core_timer_cancel(timers, t);
	return t;
}

uint64_t wvm_core_timer_next(const struct wvm_core_timers *timers)
{
	return timers->count ? timers->heap[0]->due_ns : WVM_CORE_NEVER;
}

#include "ring/wheel.h"

#include <assert.h>

/*
 * A timer hangs at the level of the highest 6-bit digit in which its tick
 * differs from the wheel's, in the slot of its own digit there. So the slots in use
 * at a level always lie ahead of the wheel's digit and never wrap, and the
 * lowest level in use has the earliest timer.
 */

#define DIGIT     6
#define DUE_LEVEL 0xff /* the timer hangs in no slot but in a list of due ones */

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

/* Moves all of from, in order, to the front of head. */
static void list_splice_front(struct wvm_link *head, struct wvm_link *from)
{
	if (list_empty(from))
		return;
	from->prev->next = head->next;
	head->next->prev = from->prev;
	head->next = from->next;
	from->next->prev = head;
	list_init(from);
}

void wvm_wheel_init(struct wvm_wheel *w, uint64_t now_ns)
{
	w->tick = now_ns >> WVM_TICK_SHIFT;
	w->armed = 0;
	list_init(&w->due);
	for (unsigned level = 0; level < WVM_WHEEL_LEVELS; level++) {
		w->occupied[level] = 0;
		for (unsigned s = 0; s < WVM_WHEEL_SLOTS; s++)
			list_init(&w->slot[level][s]);
	}
}

static void hang(struct wvm_wheel *w, struct wvm_timer *t)
{
	unsigned level, slot;

	if (t->tick <= w->tick) {
		t->level = DUE_LEVEL;
		list_append(&w->due, &t->link);
		return;
	}
	level = (63 - (unsigned)__builtin_clzll(t->tick ^ w->tick)) / DIGIT;
	assert(level < WVM_WHEEL_LEVELS);
	slot = (t->tick >> (level * DIGIT)) % WVM_WHEEL_SLOTS;
	t->level = (uint8_t)level;
	t->slot = (uint8_t)slot;
	w->occupied[level] |= 1ULL << slot;
	list_append(&w->slot[level][slot], &t->link);
}

void wvm_wheel_arm(struct wvm_wheel *w, struct wvm_timer *t, uint64_t expires_ns)
{
	assert(t->fire);
	wvm_wheel_cancel(w, t);
	t->tick = expires_ns >> WVM_TICK_SHIFT;
	if (expires_ns & (WVM_TICK_NS - 1))
		t->tick++;
	w->armed++;
	hang(w, t);
}

bool wvm_wheel_cancel(struct wvm_wheel *w, struct wvm_timer *t)
{
	if (!wvm_timer_armed(t))
		return false;
	list_remove(&t->link);
	if (t->level != DUE_LEVEL && list_empty(&w->slot[t->level][t->slot]))
		w->occupied[t->level] &= ~(1ULL << t->slot);
	assert(w->armed);
	w->armed--;
	return true;
}

/* Finds the slot with the earliest timers; returns false when all are empty. */
static bool earliest(const struct wvm_wheel *w, unsigned *level, unsigned *slot, uint64_t *start)
{
	for (unsigned l = 0; l < WVM_WHEEL_LEVELS; l++) {
		unsigned above = (l + 1) * DIGIT;

		if (!w->occupied[l])
			continue;
		*level = l;
		*slot = (unsigned)__builtin_ctzll(w->occupied[l]);
		*start = w->tick >> above << above | (uint64_t)*slot << (l * DIGIT);
		return true;
	}
	return false;
}

/* Advances the clock to tick; what is due by then goes to the due list, the rest comes down. */
static void collect(struct wvm_wheel *w, uint64_t tick)
{
	unsigned level, slot;
	uint64_t start;

	while (earliest(w, &level, &slot, &start) && start <= tick) {
		struct wvm_link *head = &w->slot[level][slot];

		assert(start > w->tick);
		w->tick = start;
		w->occupied[level] &= ~(1ULL << slot);
		while (!list_empty(head)) {
			struct wvm_timer *t = (struct wvm_timer *)head->next;

			list_remove(&t->link);
			hang(w, t);
		}
	}
	w->tick = tick;
}

unsigned wvm_wheel_advance(struct wvm_wheel *w, uint64_t now_ns, unsigned max)
{
	uint64_t tick = now_ns >> WVM_TICK_SHIFT;
	struct wvm_link batch;
	unsigned fired = 0;

	if (tick > w->tick)
		collect(w, tick);
	/* A list of its own, so that what the fire functions arm waits for the next call. */
	list_init(&batch);
	list_splice_front(&batch, &w->due);
	while (fired < max && !list_empty(&batch)) {
		struct wvm_timer *t = (struct wvm_timer *)batch.next;

		list_remove(&t->link);
		w->armed--;
		fired++;
		t->fire(t, now_ns);
	}
	list_splice_front(&w->due, &batch);
	return fired;
}

uint64_t wvm_wheel_next(const struct wvm_wheel *w)
{
	unsigned level, slot;
	uint64_t start;

	if (!list_empty(&w->due))
		return w->tick << WVM_TICK_SHIFT;
	if (!earliest(w, &level, &slot, &start))
		return WVM_NEVER;
	return start << WVM_TICK_SHIFT;
}

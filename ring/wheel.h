/*
 * Hierarchical timer wheel: intrusive nodes, O(1) arm and cancel, no system
 * call and no allocation. A pure data structure: the caller says what time it
 * is. Not thread safe; a shard has one of its own.
 *
 * A tick is 2^15 ns = 32.8 µs. A timer never fires early and at most one tick
 * late against the time the caller gives. 8 levels of 64 slots hold 2^48 ticks
 * (292 years); a timer costs at most one move per level it comes down, so
 * eight moves in its life.
 */
#ifndef WVM_RING_WHEEL_H
#define WVM_RING_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WVM_TICK_SHIFT   15
#define WVM_TICK_NS      (1ULL << WVM_TICK_SHIFT)
#define WVM_WHEEL_LEVELS 8
#define WVM_WHEEL_SLOTS  64
#define WVM_NEVER        UINT64_MAX /* no time: nothing is armed, wait for ever */

struct wvm_link {
	struct wvm_link *next, *prev;
};

/*
 * One timer, embedded in its user's struct. fire runs in the thread that
 * drives the wheel, once per arm, with now_ns as given to wvm_wheel_advance();
 * the timer is unarmed by then and may be armed again, or freed, inside it.
 * fire may arm and cancel any other timer. Zero-initialise, set fire.
 */
struct wvm_timer {
	struct wvm_link link; /* link.next is NULL while unarmed */
	uint64_t tick;        /* due tick, 0 while unarmed */
	uint8_t level, slot;  /* where it hangs */
	void (*fire)(struct wvm_timer *t, uint64_t now_ns);
};

struct wvm_wheel {
	uint64_t tick;                       /* everything before this tick has been taken off */
	uint64_t armed;                      /* number of armed timers, the due list included */
	uint64_t occupied[WVM_WHEEL_LEVELS]; /* bit s: slot s is not empty */
	struct wvm_link slot[WVM_WHEEL_LEVELS][WVM_WHEEL_SLOTS];
	struct wvm_link due; /* taken off, not yet fired */
};

/* Empties the wheel and sets its clock (any monotonic nanosecond clock). */
void wvm_wheel_init(struct wvm_wheel *w, uint64_t now_ns);

/*
 * Arms t to fire at the first advance with now_ns >= expires_ns, rounded up to
 * a tick. A time in the past fires at the next advance. An armed timer is moved
 * (no need to cancel first).
 */
void wvm_wheel_arm(struct wvm_wheel *w, struct wvm_timer *t, uint64_t expires_ns);

/* Disarms t. Returns whether it was armed; false also when it fired already. */
bool wvm_wheel_cancel(struct wvm_wheel *w, struct wvm_timer *t);

static inline bool wvm_timer_armed(const struct wvm_timer *t)
{
	return t->link.next != NULL;
}

/*
 * Fires what is due at now_ns in order of ticks (same tick: in order of
 * arming, unless they were armed across levels), at most max timers. Returns
 * the number fired; when it equals max there may be more, call again. now_ns
 * below an earlier one counts as that. Timers armed by a fire function for the
 * past or present fire in the next call, so a call always ends.
 */
unsigned wvm_wheel_advance(struct wvm_wheel *w, uint64_t now_ns, unsigned max);

/*
 * When wvm_wheel_advance() has work next, in ns: never later than the first
 * due timer, and possibly earlier, when timers must come down a level.
 * WVM_NEVER when nothing is armed.
 */
uint64_t wvm_wheel_next(const struct wvm_wheel *w);

#endif

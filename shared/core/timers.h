/*
 * The core's own timers: an indexed binary heap over nodes that live in the
 * slots they time. The core has no clock: the driver asks for the next
 * deadline, and calls back with the time when it has come. A heap and not a
 * wheel, since the simulator jumps in time and replays must be exact.
 */
#ifndef WVM_CORE_TIMERS_H
#define WVM_CORE_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WVM_CORE_NEVER UINT64_MAX

/* Embedded in a slot. 16 bytes. */
struct wvm_core_timer {
	uint64_t due_ns;
	uint32_t place; /* index in the heap + 1; 0: not armed */
	uint32_t kind;  /* the owner's: which slot type this node lies in */
};

struct wvm_core_timers {
	struct wvm_core_timer **heap; /* capacity entries, given by the owner */
	uint32_t count;
	uint32_t capacity;
};

/* Arms t, or moves it when it is armed. O(log n). The heap has room for every slot there is. */
void wvm_core_timer_arm(struct wvm_core_timers *timers, struct wvm_core_timer *t, uint64_t due_ns);

/* Does nothing when t is not armed. */
void wvm_core_timer_cancel(struct wvm_core_timers *timers, struct wvm_core_timer *t);

/* Takes the earliest timer that is due at now_ns, or NULL. */
struct wvm_core_timer *wvm_core_timer_expired(struct wvm_core_timers *timers, uint64_t now_ns);

/* When the earliest is due, or WVM_CORE_NEVER. */
uint64_t wvm_core_timer_next(const struct wvm_core_timers *timers);

#endif

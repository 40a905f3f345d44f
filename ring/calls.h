/*
 * System calls that shards make, counted by kind where they are made: each call
 * has a wvm_count_call() beside it. That is what faults, messages, timers and memory
 * running short cause; not what happens once per program that attaches or
 * leaves, per line of log, or within malloc for an operator's answer.
 *
 * The counters belong to the thread that makes the call, so code that knows no
 * shard counts, too. A thread that runs no shard counts nothing.
 */
#ifndef WVM_RING_CALLS_H
#define WVM_RING_CALLS_H

#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <stdint.h>

/* X(field, name): ioctls of a userfaultfd by request, all others by the kernel's name. */
#define WVM_CALLS(X)                           \
	X(enter, "io_uring_enter")             \
	X(uring_register, "io_uring_register") \
	X(read, "read")                        \
	X(write, "write")                      \
	X(uffd_copy, "uffd_copy")              \
	X(uffd_continue, "uffd_continue")      \
	X(uffd_protect, "uffd_writeprotect")   \
	X(uffd_wake, "uffd_wake")              \
	X(uffd_poison, "uffd_poison")          \
	X(uffd_other, "uffd_other")            \
	X(pread, "pread64")                    \
	X(pwrite, "pwrite64")                  \
	X(fallocate, "fallocate")              \
	X(lseek, "lseek")                      \
	X(madvise, "madvise")                  \
	X(statfs, "statfs")                    \
	X(yield, "sched_yield")

enum wvm_call {
#define X(field, name) WVM_CALL_##field,
	WVM_CALLS(X)
#undef X
		WVM_CALL_KINDS
};

/* Written by the shard's thread only, read by anyone. */
struct wvm_calls {
	uint64_t made[WVM_CALL_KINDS];
};

/* Where this thread counts: a shard's table while its loop runs, else NULL. */
extern __thread struct wvm_calls *wvm_calls_here;

/* Counts a call that is about to be made. */
static inline void wvm_count_call(enum wvm_call kind)
{
	struct wvm_calls *c = wvm_calls_here;

	if (c)
		__atomic_store_n(&c->made[kind], c->made[kind] + 1, __ATOMIC_RELAXED);
}

/* The kind of an ioctl of a userfaultfd. UFFDIO_POISON by number: headers before 6.6 lack it. */
static inline enum wvm_call wvm_call_of_uffd(unsigned long request)
{
	switch (_IOC_NR(request)) {
	case _UFFDIO_COPY: return WVM_CALL_uffd_copy;
	case _UFFDIO_CONTINUE: return WVM_CALL_uffd_continue;
	case _UFFDIO_WRITEPROTECT: return WVM_CALL_uffd_protect;
	case _UFFDIO_WAKE: return WVM_CALL_uffd_wake;
	case 0x08: return WVM_CALL_uffd_poison;
	default: return WVM_CALL_uffd_other;
	}
}

/* The name of a kind, NULL out of range. Any thread. */
const char *wvm_call_name(unsigned kind);

/* The calls of a kind so far. Any thread. kind is below WVM_CALL_KINDS. */
uint64_t wvm_calls_made(const struct wvm_calls *calls, unsigned kind);

#endif

/*
 * A shard: one thread with one io_uring. Nothing in it blocks, nothing is
 * allocated once it runs, every queue and every loop has a bound.
 *
 * One turn of its loop:
 *   1. completions, at most cqe_batch     -> wvm_io.done
 *   2. deferred tasks                     -> wvm_task.run
 *   3. messages of other shards, bounded  -> wvm_post_fn (post.h)
 *   4. due timers, bounded                -> wvm_timer.fire
 *   5. hooks: the role's, then the flushing ones (udp.h sends here)
 *   6. ONE io_uring_enter that submits and, when nothing is left to do, sleeps
 *      until a completion, a message, or the next timer.
 * So whatever a turn causes leaves with one system call, and an idle shard
 * makes none: there is no tick.
 *
 * Life: wvm_shard_create() in any thread; set up sockets, files, hooks,
 * timers in that same thread; wvm_shard_start() (own thread) or
 * wvm_shard_run() (caller's thread). From then on everything of the shard
 * belongs to its thread; others only wvm_post_outside(), wvm_shard_stop() and
 * read the stats. wvm_shard_join(), wvm_shard_destroy().
 */
#ifndef WVM_RING_SHARD_H
#define WVM_RING_SHARD_H

#include <liburing.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "ring/calls.h"
#include "ring/kernel.h"
#include "ring/place.h"
#include "ring/stats.h"
#include "ring/wheel.h"

struct wvm_shard;
struct wvm_bufring;
struct wvm_inbox;
struct wvm_standing;

/*
 * One operation in flight, embedded by whoever submits it; user_data of its
 * SQE points here (wvm_sqe_to). done runs in the shard's thread for
 * every completion: once for a plain operation, repeatedly for a multishot one
 * while cqe_flags has IORING_CQE_F_MORE. The wvm_io must live until the last.
 */
struct wvm_io {
	void (*done)(struct wvm_io *io, int res, uint32_t cqe_flags);
};

/* A function to run in a later step of this or the next turn, once per wvm_shard_defer(). */
struct wvm_task {
	void (*run)(struct wvm_task *t);
	struct wvm_task *next;
	bool queued;
};

/*
 * A hook runs at the end of every turn, after everything that happened in it.
 * The role's hooks come first, in the order they were added, the flushing
 * hooks (WVM_HOOK_FLUSH) after them.
 */
enum wvm_hook_stage { WVM_HOOK_ROLE, WVM_HOOK_FLUSH };

struct wvm_hook {
	/* Returns true when it left work for another turn: the shard then does not sleep. */
	bool (*turn)(struct wvm_hook *h, uint64_t now_ns);
	/*
	 * May be NULL. For work that arrives without a completion (a shared-memory
	 * ring): returns whether there is some. Asked while polling with about_to_sleep
	 * false. Asked with true right before the shard sleeps: first publish "I sleep,
	 * ring the doorbell", then a full fence, then look; true cancels the sleep.
	 * The next turn() takes the flag back.
	 */
	bool (*ready)(struct wvm_hook *h, bool about_to_sleep);
	struct wvm_hook *next;
};

/* What a shard is made of. Zero means the default in the comment; all are fixed after create. */
struct wvm_shard_opts {
	unsigned index;                  /* its number, 0 .. shards - 1 */
	const char *name;                /* thread name, at most 15 bytes are used; "shard" */
	struct wvm_place place;          /* only when pin is set */
	bool pin;                        /* apply place in the shard's thread */
	const struct wvm_kernel *kernel; /* NULL: probed by create */
	unsigned sq_entries;             /* submission queue, power of two: 256 */
	unsigned cq_entries;             /* completion queue, power of two: 2048 */
	unsigned files;                  /* registered file slots: 64 */
	unsigned inbox_slots;            /* messages waiting for this shard, power of two: 256 */
	unsigned inbox_bytes;            /* largest message, 64 to 65536: 1600 */
	unsigned fixed_block;            /* bytes of one registered I/O buffer, multiple of 4096 */
	unsigned fixed_count;            /* number of them; 0: none (file.h needs them) */
	unsigned uffd_bufs;              /* event buffers of 16 messages, power of two: 16 */
	unsigned cqe_batch;              /* completions per turn: 256 */
	unsigned post_batch;             /* inbox messages per turn: 64 */
	unsigned timer_batch;            /* timers per turn: 256 */
	uint64_t poll_ns; /* spin so long before sleeping: 0. See wvm_shard_set_poll() */
	bool timestamps;  /* keep sent_ns (one more clock read per turn) */
	/*
	 * May be NULL. The loop of wvm_shard_start()'s thread ended by itself, the text is in
	 * s->dead: called last in that thread. ran: it had begun, and what was in flight may be
	 * lost.
	 */
	void (*died)(struct wvm_shard *s, void *ctx, bool ran);
	void *died_ctx;
};

/*
 * Public for the sake of inlining. Outside of ring/ read only: index, stats, calls,
 * now_ns, sent_ns, opts. Written by the shard's thread unless said otherwise.
 */
struct wvm_shard {
	struct io_uring ring;
	uint64_t now_ns;  /* CLOCK_MONOTONIC as this turn began (the ring had returned) */
	uint64_t sent_ns; /* as the last io_uring_enter began; with opts.timestamps, else 0 */
	unsigned index;
	struct wvm_kernel kernel;
	struct wvm_shard_opts opts;
	struct wvm_wheel wheel;
	struct wvm_ring_stats stats;
	struct wvm_calls calls; /* system calls of its thread since its loop began */

	unsigned enter_flags;           /* IORING_ENTER_REGISTERED_RING where accepted */
	bool settling;                  /* sq_entered and cq_horizon wait to become sq_settled */
	uint32_t sq_entered;            /* submission queue head after an enter, wraps */
	uint32_t cq_horizon;            /* completion queue tail after the same enter */
	uint32_t sq_settled;            /* see wvm_shard_settled() */
	uint64_t poll_ns, spin_from_ns; /* not before that, for want of a core */
	struct wvm_task *task_first, **task_last;
	struct wvm_hook *hooks[2];
	struct wvm_inbox *inbox;
	int wake_fd;                /* nonblocking eventfd, for wakers without a ring */
	struct wvm_standing *waker; /* polls wake_fd */
	struct wvm_io wake_io;      /* what a MSG_RING completes to */
	unsigned must_finish; /* file operations in flight: the loop does not end before them */
	int *free_files;      /* stack of free file slots */
	unsigned free_file_count;
	uint8_t *fixed;    /* registered buffer 0: fixed_count blocks */
	void **free_fixed; /* stack of free blocks */
	unsigned free_fixed_count;
	struct wvm_bufring *uffd_bufs; /* for READ_MULTISHOT, all userfaultfds of the shard */
	unsigned next_group;           /* next free buffer group id */
	bool entered, ending;          /* the loop runs; it is cancelling what is in flight */
	bool ran;                      /* the loop was entered at some time */
	bool threaded;                 /* wvm_shard_start() made a thread */
	pthread_t thread;
	int result;     /* of the loop, for wvm_shard_join() */
	char dead[256]; /* why the loop ended by itself */

	/* Written by any thread. */
	_Alignas(64) uint32_t asleep; /* 1: a poster must wake it */
	uint32_t stop;
	uint32_t no_msg_ring;     /* its ring refused a MSG_RING once */
	struct wvm_io refused_io; /* a MSG_RING to this shard failed; completes at the sender */
};

/*
 * Creates a shard; *out is owned by the caller until wvm_shard_destroy(). Memory
 * is taken from opts->place's node. Returns 0, or -errno with one line in why:
 * those of wvm_kernel_probe(), -EINVAL for an option out of range, -ENOMEM for
 * memory or locked memory, -EMFILE for descriptors. why may be left untouched on success.
 */
int wvm_shard_create(struct wvm_shard **out, const struct wvm_shard_opts *opts, char *why,
		     size_t why_len);

/* Starts the shard's thread. 0 or -errno of pthread_create. */
int wvm_shard_start(struct wvm_shard *s);

/*
 * Runs the loop in the calling thread until wvm_shard_stop(). Returns 0, or -errno
 * when the kernel ended it (text in s->dead).
 */
int wvm_shard_run(struct wvm_shard *s);

/*
 * Asks the loop to end after its present turn; everything in flight is then
 * cancelled and reported to its done functions (-ECANCELED) before the loop
 * returns. Any thread, async-signal-safe, any number of times.
 */
void wvm_shard_stop(struct wvm_shard *s);

/* Waits for the thread of wvm_shard_start(). Returns what the loop returned. */
int wvm_shard_join(struct wvm_shard *s);

/* Frees a shard that is not running (never started, or joined). NULL is allowed. */
void wvm_shard_destroy(struct wvm_shard *s);

/*
 * Below: the shard's thread only (before the start: the creating thread).
 */

/*
 * Returns an empty SQE. Fill it with io_uring_prep_*(), then direct its completion with
 * wvm_sqe_to() (prep may clear user_data; without it, the completion is ignored).
 * When the queue is full what is in it is submitted first, counted in sq_full. NULL
 * when the kernel does not take any (counted in sq_refused): try again in a later
 * turn, wvm_shard_defer() helps.
 * Never set IOSQE_IO_DRAIN: it would break wvm_shard_settled().
 */
struct io_uring_sqe *wvm_shard_sqe(struct wvm_shard *s);

/* Makes room for n SQEs in one submission (links may not be torn apart). 0 or -EAGAIN. */
int wvm_shard_room(struct wvm_shard *s, unsigned n);

/* Directs an SQE's completion. After io_uring_prep_*(). */
static inline void wvm_sqe_to(struct io_uring_sqe *sqe, struct wvm_io *io)
{
	sqe->user_data = (uint64_t)(uintptr_t)io;
}

/*
 * For operations that complete while they are submitted, or fail at once (a send
 * with MSG_DONTWAIT), and that skip their completion on success: note
 * wvm_shard_issue() after preparing the SQE; when wvm_shard_settled() of that
 * note is true the operation is over and, had it failed, done has been called.
 * Only then may its memory be used again.
 */
static inline uint32_t wvm_shard_issue(const struct wvm_shard *s)
{
	return s->ring.sq.sqe_tail;
}
static inline bool wvm_shard_settled(const struct wvm_shard *s, uint32_t issue)
{
	return (int32_t)(s->sq_settled - issue) >= 0;
}

/*
 * Cancels the operation that completes to io; it still completes once more, the result of
 * the cancellation goes to report (NULL: ignored). 0, or -EAGAIN without a submission slot.
 */
int wvm_shard_cancel(struct wvm_shard *s, struct wvm_io *io, struct wvm_io *report);

/*
 * Registers fd: returns its slot for IOSQE_FIXED_FILE, -ENFILE when all are taken,
 * or -errno. fd stays the caller's and may be closed after wvm_shard_file_del().
 * A system call each; not for the hot path.
 */
int wvm_shard_file_add(struct wvm_shard *s, int fd);
void wvm_shard_file_del(struct wvm_shard *s, int slot);

/* Takes and returns one registered buffer of opts.fixed_block bytes; NULL when none is free. */
void *wvm_shard_fixed_get(struct wvm_shard *s);
void wvm_shard_fixed_put(struct wvm_shard *s, void *block);

/* Runs t once, in the next step 2. No effect while it is queued. */
void wvm_shard_defer(struct wvm_shard *s, struct wvm_task *t);

/* Adds a hook; it stays until the shard is destroyed. Before the start only. */
void wvm_shard_hook(struct wvm_shard *s, enum wvm_hook_stage stage, struct wvm_hook *h);

/* Timers: wheel.h, against the shard's clock. delay_ns counts from s->now_ns. */
void wvm_shard_arm(struct wvm_shard *s, struct wvm_timer *t, uint64_t delay_ns);
void wvm_shard_arm_at(struct wvm_shard *s, struct wvm_timer *t, uint64_t expires_ns);
bool wvm_shard_disarm(struct wvm_shard *s, struct wvm_timer *t);

/*
 * Sets how long the shard spins for work before it sleeps, 0 to not spin at all. Spinning, it gives
 * its core away at each look, so that those who bring the work may share it; where one that
 * computes shares it, it sleeps. It never rests, though: on a core of its own it is at its best.
 */
void wvm_shard_set_poll(struct wvm_shard *s, uint64_t poll_ns);

/* Wakes s if it sleeps; any thread, async-signal-safe. wvm_post_outside() does it for you. */
void wvm_shard_wake(struct wvm_shard *s);

/* Writes to its eventfd whether it sleeps or not. Any thread, async-signal-safe. */
void wvm_shard_ring_eventfd(struct wvm_shard *s);

/* A free provided-buffer group id of this ring. */
unsigned wvm_shard_group(struct wvm_shard *s);

/* CLOCK_MONOTONIC now, in ns. Any thread. s->now_ns is free, this costs some 20 ns. */
uint64_t wvm_now_ns(void);

/* Maps len bytes (rounded up to pages) of zeroed memory on the shard's node; NULL: no memory. */
void *wvm_shard_memory(struct wvm_shard *s, size_t len);
void wvm_shard_memory_free(void *mem, size_t len);

#endif

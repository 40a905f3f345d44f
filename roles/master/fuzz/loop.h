/*
 * The runtime of ring/ without io_uring: inboxes, tasks and watched descriptors
 * as lists that the fuzz target runs one entry at a time, in any order. It
 * replaces the objects of the library by defining their functions. What it
 * promises is what their headers promise, no more.
 */
#ifndef WVM_FUZZ_LOOP_H
#define WVM_FUZZ_LOOP_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "ring/doorbell.h"
#include "ring/pidwatch.h"
#include "ring/post.h"
#include "ring/shard.h"
#include "ring/uffd.h"
#include "shared/fuzz/fuzz.h"

#define SHARDS    2u
#define INBOX_MAX 64u
#define BELLS_MAX 160u

/* An inbox entry. The first of a shard runs first; between shards there is no order. */
struct letter {
	wvm_post_fn fn;
	void *ctx;
	size_t len;
	_Alignas(16) uint8_t data[256];
};

static struct loop {
	struct wvm_shard shard[SHARDS];
	struct letter inbox[SHARDS][INBOX_MAX];
	unsigned first[SHARDS], end[SHARDS];
	struct wvm_task *tasks[16];
	unsigned task_count;
	struct bell {
		struct wvm_doorbell *d; /* one of the three */
		struct wvm_pidwatch *w;
		struct wvm_uffd *u;
		bool listen, closing, over;
	} bells[BELLS_MAX];
	unsigned bell_count;
	unsigned refuse_posts, refuse_files; /* so many next ones find no room */
} loop;

static unsigned shard_index(const struct wvm_shard *s)
{
	FUZZ_CHECK(s >= loop.shard && s < loop.shard + SHARDS, "shard");
	return (unsigned)(s - loop.shard);
}

/* ---- what the master calls ----------------------------------------------------------------- */

int wvm_post(struct wvm_shard *from, struct wvm_shard *to, wvm_post_fn fn, void *ctx,
	     const void *data, size_t len)
{
	unsigned k = shard_index(to);
	struct letter *l = &loop.inbox[k][loop.end[k] % INBOX_MAX];

	FUZZ_CHECK(len <= sizeof(l->data), "a message of %zu bytes", len);
	if (loop.end[k] - loop.first[k] == INBOX_MAX || loop.refuse_posts) {
		loop.refuse_posts -= !!loop.refuse_posts;
		return -EAGAIN;
	}
	l->fn = fn;
	l->ctx = ctx;
	l->len = len;
	(memcpy)(l->data, data, len);
	loop.end[k]++;
	return 0;
}

void wvm_shard_defer(struct wvm_shard *s, struct wvm_task *t)
{
	if (t->queued)
		return;
	FUZZ_CHECK(loop.task_count < sizeof(loop.tasks) / sizeof(loop.tasks[0]), "tasks");
	t->queued = true;
	loop.tasks[loop.task_count++] = t;
}

struct io_uring_sqe *wvm_shard_sqe(struct wvm_shard *s)
{
	return NULL; /* the kernel takes none: a close happens at once */
}

static int add_bell(struct bell b)
{
	if (loop.refuse_files) {
		loop.refuse_files--;
		return -ENFILE;
	}
	for (unsigned i = 0; i < loop.bell_count; i++)
		FUZZ_CHECK(loop.bells[i].over || ((!b.d || loop.bells[i].d != b.d) &&
						  (!b.w || loop.bells[i].w != b.w) &&
						  (!b.u || loop.bells[i].u != b.u)),
			   "opened twice");
	FUZZ_CHECK(loop.bell_count < BELLS_MAX, "descriptors");
	loop.bells[loop.bell_count++] = b;
	return 0;
}

static void close_bell(const void *which)
{
	for (unsigned i = 0; i < loop.bell_count; i++) {
		struct bell *b = &loop.bells[i];

		if (!b->over && (b->d == which || b->w == which || b->u == which))
			b->closing = true;
	}
}

int wvm_doorbell_open(struct wvm_doorbell *d, struct wvm_shard *s, int fd, bool listen)
{
	FUZZ_CHECK(fd >= 0 && (!listen || d->ring), "doorbell");
	d->shard = s;
	d->fd = fd;
	return add_bell((struct bell){.d = d, .listen = listen});
}

void wvm_doorbell_close(struct wvm_doorbell *d)
{
	close_bell(d);
}

void wvm_doorbell_ring(struct wvm_doorbell *d)
{
	FUZZ_CHECK(fcntl(d->fd, F_GETFD) >= 0, "a doorbell that is closed");
}

int wvm_pidwatch_open(struct wvm_pidwatch *w, struct wvm_shard *s, int pidfd)
{
	w->pidfd = pidfd;
	return add_bell((struct bell){.w = w, .listen = true});
}

void wvm_pidwatch_close(struct wvm_pidwatch *w)
{
	close_bell(w);
}

int wvm_uffd_open(struct wvm_uffd *u, struct wvm_shard *s, int fd, const struct wvm_uffd_ops *ops,
		  void *ctx)
{
	u->ops = ops;
	u->ctx = ctx;
	u->fd = fd;
	return add_bell((struct bell){.u = u, .listen = true});
}

void wvm_uffd_close(struct wvm_uffd *u)
{
	close_bell(u);
}

/* ---- what the target runs ------------------------------------------------------------------ */

static bool run_letter(unsigned k)
{
	struct letter l;

	if (loop.first[k] == loop.end[k])
		return false;
	l = loop.inbox[k][loop.first[k]++ % INBOX_MAX];
	l.fn(&loop.shard[k], l.ctx, l.data, l.len);
	return true;
}

static bool run_tasks(void)
{
	struct wvm_task *now[16];
	unsigned n = loop.task_count;

	(memcpy)(now, loop.tasks, sizeof(now));
	loop.task_count = 0;
	for (unsigned i = 0; i < n; i++) {
		now[i]->queued = false;
		now[i]->run(now[i]);
	}
	return n > 0;
}

static bool run_closed(struct bell *b)
{
	if (!b->closing || b->over)
		return false;
	b->over = true;
	if (b->d) {
		close(b->d->fd);
		if (b->d->closed)
			b->d->closed(b->d);
	} else if (b->w) {
		close(b->w->pidfd);
		if (b->w->closed)
			b->w->closed(b->w);
	} else {
		close(b->u->fd);
		if (b->u->ops->closed)
			b->u->ops->closed(b->u);
	}
	return true;
}

/* Those that are over make room. */
static void sweep_bells(void)
{
	unsigned left = 0;

	for (unsigned i = 0; i < loop.bell_count; i++)
		if (!loop.bells[i].over)
			loop.bells[left++] = loop.bells[i];
	loop.bell_count = left;
}

/* An event on the i-th descriptor, if it is one that is listened to. */
static struct bell *live_bell(unsigned i)
{
	struct bell *b = loop.bell_count ? &loop.bells[i % loop.bell_count] : NULL;

	return b && b->listen && !b->closing ? b : NULL;
}

#endif

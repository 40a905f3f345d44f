#include "ring/pidwatch.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#define container(ptr, member) \
	((struct wvm_pidwatch *)((char *)(ptr)-offsetof(struct wvm_pidwatch, member)))

int wvm_pidfd_open(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

int wvm_pidfd_getfd(int pidfd, int fd)
{
	int copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

	return copy < 0 ? -errno : copy;
}

static void prepare(struct wvm_standing *o, struct io_uring_sqe *sqe)
{
	io_uring_prep_poll_add(sqe, container(o, op)->pidfd, POLLIN);
}

static enum wvm_standing_next event(struct wvm_standing *o, int res, uint32_t flags)
{
	struct wvm_pidwatch *w = container(o, op);

	if (res < 0)
		return WVM_STANDING_LATER;
	WVM_COUNT(o->shard, deaths, 1);
	w->died(w);
	return WVM_STANDING_OVER;
}

static void gone(struct wvm_standing *o)
{
	struct wvm_pidwatch *w = container(o, op);

	close(w->pidfd);
	if (w->closed)
		w->closed(w);
}

int wvm_pidwatch_open(struct wvm_pidwatch *w, struct wvm_shard *s, int pidfd)
{
	assert(w->died);
	w->op = (struct wvm_standing){.prepare = prepare, .event = event, .gone = gone};
	w->pidfd = pidfd;
	wvm_standing_start(&w->op, s);
	return 0;
}

void wvm_pidwatch_close(struct wvm_pidwatch *w)
{
	wvm_standing_close(&w->op);
}

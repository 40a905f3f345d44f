#include "ring/uffd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ring/bufring.h"

#define READS_PER_TURN 16
#define IOCTL_TRIES    64

#define container(ptr, member) \
	((struct wvm_uffd *)((char *)(ptr)-offsetof(struct wvm_uffd, member)))

static void prepare(struct wvm_standing *o, struct io_uring_sqe *sqe)
{
	struct wvm_uffd *u = container(o, op);

	if (u->multishot) {
		io_uring_prep_rw(WVM_OP_READ_MULTISHOT, sqe, u->slot, NULL, 0, 0);
		sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
		sqe->buf_group = (uint16_t)o->shard->uffd_bufs->group;
		return;
	}
	io_uring_prep_poll_multishot(sqe, u->slot, POLLIN);
	sqe->flags |= IOSQE_FIXED_FILE;
}

static void deliver(struct wvm_uffd *u, const void *data, int bytes)
{
	unsigned n = (unsigned)bytes / sizeof(struct uffd_msg);

	WVM_COUNT(u->op.shard, uffd_reads, 1);
	if (!n)
		return;
	WVM_COUNT(u->op.shard, uffd_events, n);
	u->ops->events(u, data, n);
}

static enum wvm_standing_next fail(struct wvm_uffd *u, int err)
{
	if (u->ops->failed)
		u->ops->failed(u, err);
	return WVM_STANDING_OVER;
}

/* Takes the buffer's contents off before the call, so that events() may close u. */
static enum wvm_standing_next read_event(struct wvm_uffd *u, int res, uint32_t flags)
{
	struct wvm_shard *s = u->op.shard;

	if (flags & IORING_CQE_F_BUFFER) {
		if (res > 0)
			deliver(u, wvm_bufring_at(s->uffd_bufs, flags), res);
		wvm_bufring_put(s->uffd_bufs, flags);
	}
	if (res == -ENOBUFS) {
		WVM_COUNT(s, uffd_enobufs, 1);
		return WVM_STANDING_AGAIN;
	}
	/* Linux before 6.10 does not wait for a nonblocking userfaultfd: poll it. */
	if (res == -EAGAIN || res == -EBADFD || res == -EINVAL || res == -EOPNOTSUPP) {
		u->multishot = false;
		return WVM_STANDING_AGAIN;
	}
	if (res == 0)
		return fail(u, -ESRCH);
	return res < 0 && res != -EINTR ? fail(u, res) : WVM_STANDING_AGAIN;
}

static enum wvm_standing_next read_by_hand(struct wvm_uffd *u)
{
	struct uffd_msg msgs[WVM_UFFD_BATCH];

	for (unsigned i = 0; i < READS_PER_TURN && !u->op.closing; i++) {
		ssize_t n;

		wvm_count_call(WVM_CALL_read);
		n = read(u->fd, msgs, sizeof(msgs));
		if (n < 0 && errno == EAGAIN)
			return WVM_STANDING_AGAIN;
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail(u, n < 0 ? -errno : -ESRCH);
		deliver(u, msgs, (int)n);
	}
	if (!u->op.closing)
		wvm_shard_defer(u->op.shard, &u->again);
	return WVM_STANDING_AGAIN;
}

static void read_again(struct wvm_task *t)
{
	struct wvm_uffd *u = container(t, again);

	if (!u->op.closing)
		read_by_hand(u);
}

static enum wvm_standing_next event(struct wvm_standing *o, int res, uint32_t flags)
{
	struct wvm_uffd *u = container(o, op);

	if (u->multishot)
		return read_event(u, res, flags);
	if (res < 0)
		return fail(u, res);
	return read_by_hand(u);
}

/* A read that came in while closing: the buffer goes back, the faulters are not ours any more. */
static void discard(struct wvm_standing *o, int res, uint32_t flags)
{
	if (flags & IORING_CQE_F_BUFFER)
		wvm_bufring_put(o->shard->uffd_bufs, flags);
}

static void gone(struct wvm_standing *o)
{
	struct wvm_uffd *u = container(o, op);

	if (u->again.queued) {
		/* Still in the task list: come back behind it. */
		wvm_shard_defer(o->shard, &o->task);
		return;
	}
	wvm_shard_file_del(o->shard, u->slot);
	close(u->fd);
	if (u->ops->closed)
		u->ops->closed(u);
}

int wvm_uffd_open(struct wvm_uffd *u, struct wvm_shard *s, int fd, const struct wvm_uffd_ops *ops,
		  void *ctx)
{
	int flags = fcntl(fd, F_GETFL);

	assert(ops->events);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	*u = (struct wvm_uffd){
		.op = {.prepare = prepare, .event = event, .discard = discard, .gone = gone},
		.ops = ops,
		.ctx = ctx,
		.fd = fd,
		.multishot = s->kernel.read_multishot,
		.again = {.run = read_again},
	};
	u->slot = wvm_shard_file_add(s, fd);
	if (u->slot < 0)
		return u->slot;
	wvm_standing_start(&u->op, s);
	return 0;
}

void wvm_uffd_close(struct wvm_uffd *u)
{
	wvm_standing_close(&u->op);
}

static int control(struct wvm_uffd *u, unsigned long request, void *arg)
{
	WVM_COUNT(u->op.shard, uffd_ioctls, 1);
	wvm_count_call(wvm_call_of_uffd(request));
	return ioctl(u->fd, request, arg) ? -errno : 0;
}

/*
 * One installing ioctl over a range, going on behind what the kernel did. step()
 * returns the ioctl's result and in *done what was installed (its out field may hold -errno).
 */
static int install(struct wvm_uffd *u, uint64_t dst, size_t len, size_t *done,
		   int (*step)(struct wvm_uffd *u, uint64_t dst, size_t at, size_t len,
			       const void *arg, int64_t *did),
		   const void *arg)
{
	size_t at = 0;
	int err = 0;

	for (unsigned i = 0; i < IOCTL_TRIES && at < len; i++) {
		int64_t did = 0;

		err = step(u, dst, at, len - at, arg, &did);
		at += did > 0 ? (size_t)did : !err ? len - at : 0;
		if (err != -EAGAIN)
			break;
		WVM_COUNT(u->op.shard, uffd_retries, 1);
	}
	if (done)
		*done = at;
	return at < len ? err : 0;
}

struct copy_arg {
	const uint8_t *src;
	uint64_t mode;
};

static int step_copy(struct wvm_uffd *u, uint64_t dst, size_t at, size_t len, const void *arg,
		     int64_t *did)
{
	const struct copy_arg *a = arg;
	struct uffdio_copy c = {
		.dst = dst + at,
		.src = (uint64_t)(uintptr_t)(a->src + at),
		.len = len,
		.mode = a->mode,
	};
	int err = control(u, UFFDIO_COPY, &c);

	*did = c.copy;
	return err;
}

int wvm_uffd_copy(struct wvm_uffd *u, uint64_t dst, const void *src, size_t len, unsigned flags,
		  size_t *done)
{
	struct copy_arg a = {.src = src};

	if (flags & WVM_UFFD_WP)
		a.mode |= UFFDIO_COPY_MODE_WP;
	if (flags & WVM_UFFD_DONTWAKE)
		a.mode |= UFFDIO_COPY_MODE_DONTWAKE;
	return install(u, dst, len, done, step_copy, &a);
}

/* UFFDIO_CONTINUE_MODE_WP, Linux 6.4 */
#define CONTINUE_MODE_WP (1ULL << 1)

static int step_continue(struct wvm_uffd *u, uint64_t dst, size_t at, size_t len, const void *arg,
			 int64_t *did)
{
	struct uffdio_continue c = {
		.range = {dst + at, len},
		.mode = *(const uint64_t *)arg,
	};
	int err = control(u, UFFDIO_CONTINUE, &c);

	*did = c.mapped;
	return err;
}

int wvm_uffd_continue(struct wvm_uffd *u, uint64_t dst, size_t len, unsigned flags, size_t *done)
{
	uint64_t mode = 0;

	if (flags & WVM_UFFD_WP)
		mode |= CONTINUE_MODE_WP;
	if (flags & WVM_UFFD_DONTWAKE)
		mode |= UFFDIO_CONTINUE_MODE_DONTWAKE;
	return install(u, dst, len, done, step_continue, &mode);
}

int wvm_uffd_protect(struct wvm_uffd *u, uint64_t addr, size_t len, bool protect, unsigned flags)
{
	struct uffdio_writeprotect wp = {.range = {addr, len}};
	int err = -EAGAIN;

	if (protect)
		wp.mode = UFFDIO_WRITEPROTECT_MODE_WP;
	else if (flags & WVM_UFFD_DONTWAKE)
		wp.mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
	for (unsigned i = 0; i < IOCTL_TRIES && err == -EAGAIN; i++) {
		if (i)
			WVM_COUNT(u->op.shard, uffd_retries, 1);
		err = control(u, UFFDIO_WRITEPROTECT, &wp);
	}
	return err;
}

int wvm_uffd_wake(struct wvm_uffd *u, uint64_t addr, size_t len)
{
	struct uffdio_range r = {addr, len};

	return control(u, UFFDIO_WAKE, &r);
}

static int step_poison(struct wvm_uffd *u, uint64_t dst, size_t at, size_t len, const void *arg,
		       int64_t *did)
{
	struct wvm_uffdio_poison p = {.range = {dst + at, len}};
	int err = control(u, WVM_UFFDIO_POISON, &p);

	*did = p.updated;
	return err;
}

int wvm_uffd_poison(struct wvm_uffd *u, uint64_t addr, size_t len)
{
	if (!(u->op.shard->kernel.uffd_features & WVM_UFFD_FEATURE_POISON))
		return -ENOTSUP;
	return install(u, addr, len, NULL, step_poison, NULL);
}

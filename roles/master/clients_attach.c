#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "roles/master/clients_priv.h"

/* fs/userfaultfd.c marks a context whose handshake is done; fdinfo shows it. */
#define FEATURE_INITIALIZED (1u << 31)

pid_t wvm_slot_owner(struct wvm_clients *all, unsigned slot)
{
	struct flock lock = {.l_type = F_WRLCK,
			     .l_whence = SEEK_SET,
			     .l_start = wvm_ring_slot_offset(slot),
			     .l_len = WVM_RING_SLOT_BYTES};

	if (fcntl(all->fd, F_GETLK, &lock) || lock.l_type == F_UNLCK || lock.l_pid <= 0)
		return 0;
	return lock.l_pid;
}

/* The lowest address a program may map, and none does: ENOENT from a living mm. */
bool wvm_mm_alive(int uffd)
{
	struct uffdio_writeprotect p = {.range = {.start = 1u << 16, .len = WVM_PAGE_SIZE},
					.mode = UFFDIO_WRITEPROTECT_MODE_WP};

	return !ioctl(uffd, UFFDIO_WRITEPROTECT, &p) || errno != ESRCH;
}

/* What kind of anonymous inode a descriptor is. */
static bool is_anon(int fd, const char *kind)
{
	char name[64], target[64];
	ssize_t n;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	n = readlink(name, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	return !strcmp(target, kind);
}

/* The features of a uffd as the kernel tells, 0 if it is none. */
static uint32_t uffd_features(int fd)
{
	char name[64], line[128];
	unsigned api = 0, features = 0;
	FILE *f;

	if (!is_anon(fd, "anon_inode:[userfaultfd]"))
		return 0;
	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	f = fopen(name, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "API: %x:%x:", &api, &features) == 2)
			break;
	fclose(f);
	return api == UFFD_API ? features : 0;
}

/* More features could hide faults from us or hold our ioctls up (EVENT_FORK, SIGBUS, WP_ASYNC). */
static bool uffd_ok(int fd)
{
	uint32_t features = uffd_features(fd);

	if (!(features & FEATURE_INITIALIZED))
		return false;
	features &= ~(FEATURE_INITIALIZED | (uint32_t)UFFD_FEATURE_POISON);
	return features == WVM_UFFD_FEATURES;
}

bool wvm_fd_is_eventfd(int fd)
{
	return is_anon(fd, "anon_inode:[eventfd]");
}

/* A memfd of exactly this size that nobody can shrink under us, of small pages. */
static bool channel_ok(int fd, size_t bytes)
{
	struct statfs fs;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && seals & F_SEAL_SHRINK && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
	       st.st_size == (off_t)bytes && !fstatfs(fd, &fs) &&
	       (unsigned long)fs.f_type == TMPFS_MAGIC;
}

int wvm_channel_map(int fd, const struct channel_shape *shape, uint8_t **mem,
		    struct wvm_spsc_rx *rx, struct wvm_spsc_tx *tx)
{
	size_t bytes = 2 * shape->ring_bytes + shape->more_bytes;
	uint8_t *at;

	if (!channel_ok(fd, bytes))
		return -EPROTO;
	at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return errno == ENOMEM ? -ENOMEM : -EPROTO; /* ours, or the client's doing */
	*mem = at;
	if (wvm_spsc_open_rx(rx, at, shape->capacity) ||
	    wvm_spsc_open_tx(tx, at + shape->ring_bytes, shape->capacity))
		return -EPROTO;
	return 0;
}

/* Everything taken from the client; the order is that of taking. */
struct taken {
	int pidfd, channel, in, out;
};

int wvm_client_take_fd(struct client *cl, int pidfd, int theirs, int *fd)
{
	int ret = theirs < 0 ? -EBADF : wvm_pidfd_getfd(pidfd, theirs);

	if (ret == -EPERM)
		wvm_clients_log(cl->all,
				"client pid %d: not permitted to take its descriptors: run it as "
				"the master's user, or give the master CAP_SYS_PTRACE; with Yama, "
				"kernel.yama.ptrace_scope must be 0 or 1",
				(int)cl->pid);
	*fd = ret < 0 ? -1 : ret;
	return ret < 0 ? ret : 0;
}

static int take_uffds(struct client *cl, int pidfd, const struct wvm_ring_claim *claim)
{
	for (unsigned k = 0; k < cl->all->shards; k++) {
		int ret = wvm_client_take_fd(cl, pidfd, claim->uffd_fd[k], &cl->uffd[k]);

		if (ret)
			return ret;
		if (!uffd_ok(cl->uffd[k]))
			return -EPROTO;
		cl->keep[k] = fcntl(cl->uffd[k], F_DUPFD_CLOEXEC, 0);
		if (cl->keep[k] < 0)
			return -errno;
	}
	return 0;
}

static int take_all(struct client *cl, const struct wvm_ring_claim *claim, struct taken *t)
{
	static const struct channel_shape shape = {WVM_CHANNEL_RING_BYTES, WVM_CHANNEL_CAPACITY, 0};
	int ret;

	if (claim->shard_count != cl->all->shards)
		return -EPROTO;
	t->pidfd = wvm_pidfd_open(cl->pid);
	if (t->pidfd < 0)
		return t->pidfd;
	/* Still the owner: so the pidfd is not that of a later process with this pid. */
	if (wvm_slot_owner(cl->all, cl->index) != cl->pid)
		return -ESRCH;
	ret = wvm_client_take_fd(cl, t->pidfd, claim->channel_fd, &t->channel);
	if (!ret)
		ret = wvm_client_take_fd(cl, t->pidfd, claim->to_master_fd, &t->in);
	if (!ret)
		ret = wvm_client_take_fd(cl, t->pidfd, claim->to_client_fd, &t->out);
	if (!ret)
		ret = take_uffds(cl, t->pidfd, claim);
	if (ret)
		return ret;
	if (!wvm_fd_is_eventfd(t->in) || !wvm_fd_is_eventfd(t->out))
		return -EPROTO;
	return wvm_channel_map(t->channel, &shape, &cl->channel, &cl->rx, &cl->tx);
}

static void on_died(struct wvm_pidwatch *w)
{
	wvm_client_leave(w->ctx);
}

static void on_bell(struct wvm_doorbell *d)
{
	wvm_client_code_bell(d->ctx);
	wvm_client_serve(d->ctx);
}

static void watch_closed(struct wvm_pidwatch *w)
{
	struct client *cl = w->ctx;

	cl->watch_open = false;
	wvm_client_settle(cl);
}

static void in_closed(struct wvm_doorbell *d)
{
	struct client *cl = d->ctx;

	cl->in_open = false;
	wvm_client_settle(cl);
}

static void out_closed(struct wvm_doorbell *d)
{
	struct client *cl = d->ctx;

	cl->out_open = false;
	wvm_client_settle(cl);
}

/* Each object owns its descriptor from here on. */
static int open_objects(struct client *cl, struct taken *t)
{
	struct wvm_shard *s = cl->all->shard0;
	int ret;

	cl->watch = (struct wvm_pidwatch){.ctx = cl, .died = on_died, .closed = watch_closed};
	cl->in = (struct wvm_doorbell){.ctx = cl, .ring = on_bell, .closed = in_closed};
	cl->out = (struct wvm_doorbell){.ctx = cl, .closed = out_closed};
	ret = wvm_pidwatch_open(&cl->watch, s, t->pidfd);
	if (ret)
		return ret;
	cl->watch_open = true;
	t->pidfd = -1;
	ret = wvm_doorbell_open(&cl->in, s, t->in, true);
	if (ret)
		return ret;
	cl->in_open = true;
	t->in = -1;
	ret = wvm_doorbell_open(&cl->out, s, t->out, false);
	if (ret)
		return ret;
	cl->out_open = true;
	t->out = -1;
	return 0;
}

/*
 * Closes what may be any kind of file: through the ring, which hands a close that
 * can block (a flush to the client's own FUSE server) to a kernel worker.
 */
void wvm_client_discard(struct client *cl, int *fd)
{
	struct io_uring_sqe *sqe = *fd >= 0 ? wvm_shard_sqe(cl->all->shard0) : NULL;

	if (sqe) {
		io_uring_prep_close(sqe, *fd);
		wvm_sqe_to(sqe, NULL);
	} else if (*fd >= 0) {
		close(*fd);
	}
	*fd = -1;
}

int wvm_client_take(struct client *cl, const struct wvm_ring_claim *claim)
{
	struct taken t = {.pidfd = -1, .channel = -1, .in = -1, .out = -1};
	int ret;

	ret = take_all(cl, claim, &t);
	if (!ret)
		ret = open_objects(cl, &t);
	wvm_client_discard(cl, &t.pidfd);
	wvm_client_discard(cl, &t.channel);
	wvm_client_discard(cl, &t.in);
	wvm_client_discard(cl, &t.out);
	if (!ret)
		return 0;
	for (unsigned k = 0; k < cl->all->shards; k++) {
		wvm_client_discard(cl, &cl->uffd[k]);
		wvm_client_discard(cl, &cl->keep[k]);
	}
	return ret;
}

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shared/client_priv.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* linux 6.1 */
#endif
#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER 0x59616d61
#endif

#define ANSWER_POLL_MS 5

static int new_uffd(void)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = -1;

	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, flags);
		close(dev);
	}
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, flags);
	if (fd >= 0)
		return fd;
	if (errno == EPERM)
		return wvm_client_fail(
			-EPERM, "userfaultfd is not permitted: set the sysctl "
				"vm.unprivileged_userfaultfd to 1, or give this program access "
				"to /dev/userfaultfd");
	return wvm_client_fail(-errno, "cannot make a userfaultfd: %s", strerror(errno));
}

static int open_uffd(struct wvm *w, unsigned k)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = WVM_UFFD_FEATURES | UFFD_FEATURE_POISON};
	int fd = new_uffd();

	if (fd < 0)
		return fd;
	w->uffd[k] = fd;
	w->poison = !ioctl(fd, UFFDIO_API, &api);
	if (w->poison)
		return 0;
	api = (struct uffdio_api){.api = UFFD_API, .features = WVM_UFFD_FEATURES};
	if (!ioctl(fd, UFFDIO_API, &api))
		return 0;
	return wvm_client_fail(
		-ENOTSUP, "this kernel cannot write-protect shared memory by userfaultfd: Linux "
			  "5.19 or later is needed");
}

static int open_channel(struct wvm *w)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

	w->channel_fd = memfd_create("wvm-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	w->empty_fd = memfd_create("wvm-empty", MFD_CLOEXEC);
	w->to_master_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->to_client_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->channel_fd < 0 || w->empty_fd < 0 || w->to_master_fd < 0 || w->to_client_fd < 0 ||
	    w->stop_fd < 0 || ftruncate(w->channel_fd, WVM_CHANNEL_BYTES) ||
	    fcntl(w->channel_fd, F_ADD_SEALS, seals))
		return -errno;
	w->channel = mmap(NULL, WVM_CHANNEL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			  w->channel_fd, 0);
	if (w->channel == MAP_FAILED) {
		w->channel = NULL;
		return -errno;
	}
	return 0;
}

int wvm_link_open(struct wvm *w, unsigned shards)
{
	int ret;

	w->shards = shards;
	for (unsigned k = 0; k < shards; k++) {
		ret = open_uffd(w, k);
		if (ret)
			return ret;
	}
	ret = open_channel(w);
	return ret ? wvm_client_fail(ret, "cannot make the channel to the master: %s",
				     strerror(-ret))
		   : 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void wvm_link_close(struct wvm *w)
{
	if (w->channel)
		munmap(w->channel, WVM_CHANNEL_BYTES);
	w->channel = NULL;
	close_fd(&w->channel_fd);
	close_fd(&w->empty_fd);
	close_fd(&w->to_master_fd);
	close_fd(&w->to_client_fd);
	close_fd(&w->stop_fd);
	close_fd(&w->master_pidfd);
	for (unsigned k = 0; k < WVM_RING_SHARDS_MAX; k++)
		close_fd(&w->uffd[k]);
}

/* A pidfd of the process that holds the master's lock, and its pid. */
static int find_master(struct wvm *w, pid_t *pid)
{
	int pidfd;

	*pid = wvm_ring_file_master(w->file);
	if (!*pid)
		return -ECONNREFUSED;
	pidfd = (int)syscall(SYS_pidfd_open, *pid, 0);
	if (pidfd < 0)
		return -ECONNREFUSED;
	/* Still the owner: so the pidfd is the owner's and not of a later process of that pid. */
	if (wvm_ring_file_master(w->file) != *pid) {
		close(pidfd);
		return -ECONNREFUSED;
	}
	return pidfd;
}

static int reset_rings(struct wvm *w)
{
	uint8_t *up = w->channel, *down = w->channel + WVM_CHANNEL_RING_BYTES;
	int ret;

	ret = wvm_spsc_init(up, WVM_CHANNEL_CAPACITY);
	if (!ret)
		ret = wvm_spsc_init(down, WVM_CHANNEL_CAPACITY);
	if (!ret)
		ret = wvm_spsc_open_tx(&w->tx, up, WVM_CHANNEL_CAPACITY);
	if (!ret)
		ret = wvm_spsc_open_rx(&w->rx, down, WVM_CHANNEL_CAPACITY);
	return ret;
}

static int write_all(int fd, const void *buf, size_t len, int64_t at)
{
	ssize_t n = pwrite(fd, buf, len, at);

	if (n == (ssize_t)len)
		return 0;
	return n < 0 ? -errno : -EIO;
}

/* The body first, the claim by itself: whoever sees the claim sees the body. */
static int write_claim(struct wvm *w, uint64_t claim)
{
	struct wvm_ring_claim c = {.boot_id = w->boot_id,
				   .shard_count = w->shards,
				   .channel_fd = w->channel_fd,
				   .to_master_fd = w->to_master_fd,
				   .to_client_fd = w->to_client_fd};
	int64_t at = wvm_ring_slot_offset(w->slot);
	int ret;

	for (unsigned k = 0; k < WVM_RING_SHARDS_MAX; k++)
		c.uffd_fd[k] = k < w->shards ? w->uffd[k] : -1;
	ret = write_all(w->file->fd, &c, sizeof(c), at);
	return ret ? ret : write_all(w->file->fd, &claim, sizeof(claim), at);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int refused(const struct wvm *w, int err, pid_t master)
{
	switch (err) {
	case -WVM_RING_MEMORY_ONLY:
		return wvm_client_fail(
			err,
			"node %u lends memory only (0 cores in its NODE line of the topology): "
			"start the program on a node with cores, or give it cores in the topology "
			"of all nodes",
			w->node_id);
	case -EPERM:
		return wvm_client_fail(
			-EPERM,
			"the master (pid %d) may not take this program's descriptors: run both as the "
			"same user, or give the master CAP_SYS_PTRACE; with Yama, "
			"kernel.yama.ptrace_scope must be 0 or 1",
			(int)master);
	case -ECONNREFUSED:
		return wvm_client_fail(err, "the master that made the ring file is gone: start it "
					    "again");
	case -ETIMEDOUT:
		return wvm_client_fail(err, "the master (pid %d) did not answer within %d ms",
				       (int)master, WVM_ATTACH_MS);
	default:
		return wvm_client_fail(err, "the master (pid %d) refused this client: %s",
				       (int)master, strerror(-err));
	}
}

/* The doorbell says that there is an answer; a refusal may come without. */
static int await_answer(struct wvm *w, uint64_t claim)
{
	int64_t at = wvm_ring_slot_offset(w->slot) +
		     (int64_t)offsetof(struct wvm_ring_slot, master);
	int64_t deadline = now_ms() + WVM_ATTACH_MS;
	struct pollfd fds[] = {{.fd = w->to_client_fd, .events = POLLIN},
			       {.fd = w->master_pidfd, .events = POLLIN},
			       {.fd = w->stop_fd, .events = POLLIN}};

	do {
		struct wvm_ring_answer a;

		if (pread(w->file->fd, &a, sizeof(a), at) == (ssize_t)sizeof(a) &&
		    a.answered == claim)
			return a.result > 0 ? -EPROTO : a.result;
		poll(fds, 3, ANSWER_POLL_MS);
		if (fds[1].revents || fds[2].revents)
			return -ECONNREFUSED;
	} while (now_ms() < deadline);
	return -ETIMEDOUT;
}

int wvm_link_meet(struct wvm *w, const struct wvm_ring_header *h)
{
	uint64_t claim = 0;
	pid_t pid;
	int ret;

	while (!claim)
		if (getrandom(&claim, sizeof(claim), 0) < 0)
			return wvm_client_fail(-errno, "getrandom: %s", strerror(errno));
	ret = find_master(w, &pid);
	if (ret < 0)
		return refused(w, ret, pid);
	close_fd(&w->master_pidfd);
	w->master_pidfd = ret;
	w->boot_id = h->boot_id;
	w->node_id = h->node_id;
	/* Without Yama this is EINVAL and nothing is needed. */
	(void)prctl(PR_SET_PTRACER, (unsigned long)pid, 0, 0, 0);
	ret = reset_rings(w);
	if (!ret)
		ret = write_claim(w, claim);
	if (!ret)
		ret = await_answer(w, claim);
	return ret ? refused(w, ret, pid) : 0;
}

#include "ring/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * SUBMIT_ALL: one bad SQE must not hold back those behind it. TASKRUN_FLAG: a polling
 * shard sees in memory whether the kernel has completions for it.
 */
static const unsigned setups[] = {
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL,
};

static int disabled_level(void)
{
	FILE *f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
	int level = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%d", &level) != 1)
		level = 0;
	fclose(f);
	return level;
}

static void explain_eperm(const char *what, char *why, size_t why_len)
{
	int level = disabled_level();

	if (level)
		snprintf(why, why_len,
			 "%s: io_uring is forbidden here (kernel.io_uring_disabled = %d); set it "
			 "to 0 with sysctl%s",
			 what, level,
			 level == 1 ? ", or add the user to kernel.io_uring_group" : "");
	else
		snprintf(
			why, why_len,
			"%s: io_uring is forbidden here, by a seccomp filter or a security module; "
			"allow io_uring_setup, io_uring_enter and io_uring_register for this "
			"service",
			what);
}

static void explain_enomem(const char *what, char *why, size_t why_len)
{
	struct rlimit lim = {0};

	getrlimit(RLIMIT_MEMLOCK, &lim);
	if (lim.rlim_cur == RLIM_INFINITY)
		snprintf(why, why_len, "%s: out of memory", what);
	else
		snprintf(
			why, why_len,
			"%s: too little memory, or too little that may be locked (RLIMIT_MEMLOCK is "
			"%llu KiB); raise it with ulimit -l or LimitMEMLOCK=",
			what, (unsigned long long)lim.rlim_cur / 1024);
}

int wvm_kernel_explain(int err, const char *what, char *why, size_t why_len)
{
	switch (err) {
	case -ENOSYS:
		snprintf(why, why_len,
			 "%s: this kernel has no io_uring, or a container's seccomp filter hides "
			 "it; Linux 6.0 or newer with CONFIG_IO_URING is needed",
			 what);
		break;
	case -EPERM: explain_eperm(what, why, why_len); break;
	case -ENOMEM: explain_enomem(what, why, why_len); break;
	case -ENOTSUP:
		snprintf(why, why_len, "%s: this kernel is too old, Linux 6.0 or newer is needed",
			 what);
		break;
	case -EMFILE:
	case -ENFILE:
		snprintf(why, why_len,
			 "%s: too many open files; raise the limit with ulimit -n or LimitNOFILE=",
			 what);
		break;
	default: snprintf(why, why_len, "%s: %s", what, strerror(-err));
	}
	return err;
}

static int open_best(struct io_uring *ring, unsigned *flags)
{
	int err = -EINVAL;

	for (size_t i = 0; err == -EINVAL && i < sizeof(setups) / sizeof(setups[0]); i++) {
		*flags = setups[i];
		err = io_uring_queue_init(8, ring, setups[i]);
	}
	return err;
}

static bool has_op(const struct io_uring_probe *p, unsigned op)
{
	return op <= p->last_op && op < p->ops_len && p->ops[op].flags & IO_URING_OP_SUPPORTED;
}

/* SEND_ZC came with 6.0, as did multishot recvmsg, which has no operation of its own. */
static int probe_ops(struct io_uring *ring, struct wvm_kernel *out)
{
	const unsigned ops = 256;
	struct io_uring_probe *p;
	int err;

	p = calloc(1, sizeof(*p) + ops * sizeof(p->ops[0]));
	if (!p)
		return -ENOMEM;
	err = io_uring_register_probe(ring, p, ops);
	if (err < 0)
		goto out;
	out->read_multishot = has_op(p, WVM_OP_READ_MULTISHOT);
	out->msg_ring = has_op(p, IORING_OP_MSG_RING);
	err = has_op(p, IORING_OP_SEND_ZC) ? 0 : -ENOTSUP;
out:
	free(p);
	return err;
}

static int open_uffd(void)
{
	int dev, fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		return fd;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -1;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	close(dev);
	return fd;
}

static void probe_uffd(struct wvm_kernel *out)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = open_uffd();

	if (fd < 0)
		return;
	if (ioctl(fd, UFFDIO_API, &api) == 0) {
		out->uffd = true;
		out->uffd_features = api.features;
	}
	close(fd);
}

int wvm_kernel_probe(struct wvm_kernel *out, char *why, size_t why_len)
{
	struct io_uring ring;
	int err;

	memset(out, 0, sizeof(*out));
	err = open_best(&ring, &out->setup_flags);
	if (err < 0)
		return wvm_kernel_explain(err, "io_uring_setup", why, why_len);
	err = probe_ops(&ring, out);
	io_uring_queue_exit(&ring);
	if (err < 0)
		return wvm_kernel_explain(err, "io_uring_register_probe", why, why_len);
	probe_uffd(out);
	return 0;
}

__attribute__((format(printf, 4, 5))) static void add(char *text, size_t len, size_t *at,
						      const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text + *at, len - *at, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	*at = *at + (size_t)n < len ? *at + (size_t)n : len - 1;
}

size_t wvm_kernel_describe(const struct wvm_kernel *k, char *text, size_t len)
{
	size_t at = 0;

	if (!len)
		return 0;
	text[0] = 0;
	if (!(k->setup_flags & IORING_SETUP_DEFER_TASKRUN))
		add(text, len, &at,
		    "io_uring: no DEFER_TASKRUN (Linux 6.1), using %s, slower wakeups\n",
		    k->setup_flags & IORING_SETUP_COOP_TASKRUN ? "COOP_TASKRUN" : "interrupts");
	if (!k->read_multishot)
		add(text, len, &at,
		    "io_uring: no READ_MULTISHOT (Linux 6.7), using POLL and read for faults\n");
	if (!k->msg_ring)
		add(text, len, &at, "io_uring: no MSG_RING, using eventfd between shards\n");
	if (!k->uffd)
		add(text, len, &at,
		    "userfaultfd: not permitted to this process (root, CAP_SYS_PTRACE, access to "
		    "/dev/userfaultfd, or vm.unprivileged_userfaultfd = 1)\n");
	else if (!(k->uffd_features & WVM_UFFD_FEATURE_POISON))
		add(text, len, &at,
		    "userfaultfd: no POISON (Linux 6.6), using a PROT_NONE page for errors\n");
	if (!at)
		add(text, len, &at, "io_uring and userfaultfd: all in use\n");
	return at;
}

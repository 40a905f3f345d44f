/*
 * What the running kernel offers. liburing 2.3 (Debian 12) knows less than
 * current kernels do, so newer operations and flags are given here by number,
 * and wvm_kernel_probe() finds out at start which of them may be used.
 *
 * Least kernel: 6.0 (multishot recvmsg, provided-buffer rings). Debian 12's
 * own 6.1 has everything but READ_MULTISHOT (6.7) and UFFDIO_POISON (6.6).
 */
#ifndef WVM_RING_KERNEL_H
#define WVM_RING_KERNEL_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* io_uring operations, include/uapi/linux/io_uring.h */
#define WVM_OP_READ_MULTISHOT 49 /* Linux 6.7 */

/* io_uring_enter: the wait time is absolute (Linux 6.12). */
#define WVM_ENTER_ABS_TIMER (1U << 5)

/* userfaultfd, include/uapi/linux/userfaultfd.h */
#define WVM_UFFD_FEATURE_POISON (1ULL << 14) /* Linux 6.6 */
struct wvm_uffdio_poison {
	struct uffdio_range range;
	uint64_t mode; /* WVM_UFFDIO_POISON_MODE_* */
	int64_t updated;
};
#define WVM_UFFDIO_POISON_MODE_DONTWAKE 1ULL
#define WVM_UFFDIO_POISON               _IOWR(UFFDIO, 0x08, struct wvm_uffdio_poison)

/*
 * Result of the probe. A caller (a test, an operator's option) may clear a
 * field before handing it to wvm_shard_create() to force the fallback.
 */
struct wvm_kernel {
	unsigned setup_flags;   /* best io_uring_setup flags that were accepted */
	bool read_multishot;    /* else: POLL multishot and read(2) */
	bool msg_ring;          /* else: wakes between shards go by eventfd */
	bool uffd;              /* userfaultfd may be created by this process */
	uint64_t uffd_features; /* UFFD_FEATURE_*, 0 when uffd is false */
};

/*
 * Probes the kernel; writes no state. Returns 0, or -errno with one line in
 * why (what happened and what to do) when io_uring cannot be used at all:
 *   -ENOSYS   no io_uring (built without, or blocked by a container's seccomp filter)
 *   -EPERM    forbidden (kernel.io_uring_disabled)
 *   -ENOMEM   RLIMIT_MEMLOCK too low
 *   -ENOTSUP  kernel older than 6.0
 * A missing userfaultfd is no error here, see the field. Any thread, at start.
 */
int wvm_kernel_probe(struct wvm_kernel *out, char *why, size_t why_len);

/*
 * Describes the probe's result for the log: one line per facility that is
 * missing, naming the fallback in use; "io_uring and userfaultfd: all in use"
 * when nothing is. Always terminates text. Returns its length without the
 * terminator, cut to len - 1.
 */
size_t wvm_kernel_describe(const struct wvm_kernel *k, char *text, size_t len);

/*
 * Explains an error of io_uring_setup or of a registration: writes one line
 * into why and returns err (negative) unchanged. what names the step.
 */
int wvm_kernel_explain(int err, const char *what, char *why, size_t why_len);

#endif

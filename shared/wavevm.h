/*
 * libwavevm: map cluster memory into a program.
 *
 * A program on any node of a WaveVM cluster attaches to the master that runs
 * there and maps ranges of a VM's memory. Loads and stores are then coherent
 * across all nodes (mode WVM_STRICT: sequentially consistent per page, x86-TSO
 * as a whole; shared/PROTOCOL.md, Memory model). QEMU is one such program.
 *
 * Threads: every function may be called from any thread, none from a signal
 * handler. wvm_attach() starts one helper thread, which touches no mapped
 * memory and takes no lock of the program.
 *
 * fork(): mappings are not inherited (MADV_DONTFORK); a child that wants
 * memory attaches by itself.
 *
 * Kernel I/O straight from or to mapped memory (O_DIRECT, io_uring fixed
 * buffers, vhost, VFIO) bypasses the protocol unless the range is held with
 * wvm_pin().
 */
#ifndef WAVEVM_H
#define WAVEVM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct wvm; /* an attachment to the local master; opaque */

#define WVM_PAGE_SIZE 4096u

/*
 * Modes of wvm_map(). A mode is WVM_STRICT, or'ed with at most one of the
 * error policies: what happens to a thread that touches a page which cannot
 * be had (its home did not answer in time, its last copy is lost). Such a page
 * stays an error in this mapping; unmapping and mapping anew tries again.
 */
#define WVM_STRICT       0u
#define WVM_ERROR_SIGBUS 0u     /* the thread gets SIGBUS with the address (default) */
#define WVM_ERROR_PARK   0x100u /* the thread stays stopped in its access; wvm_on_error() tells */

struct wvm_stats {
	uint64_t pages_shared;   /* pages this node holds Shared, all clients together */
	uint64_t pages_modified; /* pages this node holds Modified */
	uint64_t pages_homed;    /* pages whose stored copy lives on this node */
	uint64_t faults_read;    /* faults of this client, by what was asked for */
	uint64_t faults_write;
	uint64_t faults_local;   /* of those: answered without asking a home */
	uint64_t faults_failed;  /* of those: ended with an error */
	uint64_t bytes_received; /* page bytes received by this node */
	uint64_t bytes_sent;     /* page bytes sent by this node */
};

/*
 * Attaches to the master whose ring file is ring_path (NULL: the value of
 * WVM_RING_PATH, else of WVM_ENV_SOCK_PATH). On success *out owns the
 * attachment until wvm_detach(). Returns 0 or
 *   -EINVAL   no path given and none in the environment
 *   -ENOENT, -EACCES, …   the ring file cannot be opened
 *   -EPROTO   not a ring file, or one of another version
 *   -ECONNREFUSED  the master that made it is gone
 *   -EUSERS   all client slots are taken
 *   -EPERM    userfaultfd, or the master's access to this process, is not permitted
 *   -ETIMEDOUT  the master did not answer
 *   -EREMOTE  this node lends memory only: it has 0 cores in the topology
 * wvm_attach_error() holds the same as one line for the operator.
 */
int wvm_attach(struct wvm **out, const char *ring_path);

/* One line about the last failed wvm_attach() or wvm_map() of this thread; never NULL. */
const char *wvm_attach_error(void);

/* Unmaps everything, lets the master forget this client, frees w. NULL is allowed. */
void wvm_detach(struct wvm *w);

/*
 * Maps len bytes of VM vm_id from offset gpa. gpa and len are multiples of
 * WVM_PAGE_SIZE and within the VM. Returns the address, or NULL with errno:
 * EINVAL (alignment, mode), ENXIO (no such VM here), ERANGE (beyond the VM),
 * EEXIST (this client maps part of the range already), ENOSPC (too many
 * ranges), ECONNREFUSED (the master is gone), ETIMEDOUT, ENOMEM.
 */
void *wvm_map(struct wvm *w, uint16_t vm_id, uint64_t gpa, size_t len, unsigned mode);

/*
 * Ends a mapping made by wvm_map() with exactly this addr and len. 0, -EINVAL,
 * -ETIMEDOUT. Never munmap(), mremap() or remap such memory by other means.
 */
int wvm_unmap(struct wvm *w, void *addr, size_t len);

/*
 * Holds [addr, addr + len) as Modified until wvm_unpin(): other nodes wait.
 * Keep pins short: a page that stays pinned beyond the request deadline (5 s)
 * is an error for whoever waits for it. Ranges grow to whole pages. Pins nest
 * (at most 65,535 times); each wvm_unpin() ends one wvm_pin() of the same
 * pages. A client may hold 256 different ranges.
 * 0, -EINVAL (not inside one mapping, or no such pin), -EIO (a page could not
 * be had; nothing stays pinned), -ENOSPC or -ENOMEM (this node has no room for
 * one; nothing stays pinned), -EOVERFLOW (too many pins), -EAGAIN (too many are
 * being granted right now), -ECONNREFUSED, -ETIMEDOUT.
 */
int wvm_pin(struct wvm *w, void *addr, size_t len);
int wvm_unpin(struct wvm *w, void *addr, size_t len);

/*
 * For a program that translates machine code of mapped memory and keeps the result
 * (QEMU's TCG): which pages others have changed since. fn is called from the helper
 * thread when there are some; the store of whoever changes such a page does not
 * complete before fn has returned. fn tells every thread that executes translated
 * code to call wvm_code_drain() before it begins its next block, and waits for none
 * of them: they may be waiting for memory themselves. It obeys what wvm_on_error()
 * says of its fn. One that does not return within 2 s ends the program (SIGKILL), since
 * nothing else would keep it from running code that is not there any more.
 * Once per attachment. 0, -EALREADY, -ECONNREFUSED, -ETIMEDOUT, -ENOMEM, -EPROTO.
 */
typedef void wvm_code_fn(void *opaque);
int wvm_code_watch(struct wvm *w, wvm_code_fn *fn, void *opaque);

/*
 * To be called before bytes are read that will be translated: from now on the page
 * around addr is watched, until wvm_code_drain() names it, or everything. Some ns; where
 * other programs of this node are attached too, the first time for each page
 * a round trip to the master, for which the thread may wait as in a page fault.
 * 0, -EINVAL (not mapped memory, or no wvm_code_watch()).
 */
int wvm_code_mark(struct wvm *w, const void *addr);

/*
 * Pages that were marked and may have changed since this cursor was used last: their
 * addresses, max at most. Each thread has a cursor of its own, 0 at first. Returns
 * their number (max: call again), or -EOVERFLOW: there were more than are kept;
 * whatever was translated before this call is to be dropped. -EINVAL without wvm_code_watch().
 */
int wvm_code_drain(struct wvm *w, uint64_t *cursor, void *pages[], unsigned max);

/* 0 or -ECONNREFUSED (the figures are then the last known ones). */
int wvm_stats(struct wvm *w, struct wvm_stats *out);

/* Bytes of VM vm_id, or -ENXIO, -ECONNREFUSED, -ETIMEDOUT. */
int64_t wvm_vm_size(struct wvm *w, uint16_t vm_id);

/*
 * The id of the node that is home to offset gpa of VM vm_id: 0 or more, or
 * -EINVAL, -ENXIO, -ERANGE, -ECONNREFUSED, -ETIMEDOUT.
 */
int wvm_where(struct wvm *w, uint16_t vm_id, uint64_t gpa);

/* The id of the node that this client is on. */
int wvm_node_id(struct wvm *w);

/* A node of the cluster, as the topology has it. */
struct wvm_node_info {
	uint32_t id;
	uint32_t cores; /* 0: it gives memory only */
};

/*
 * The nodes of the cluster: in ascending order of ids from this client's own on, which comes
 * last, after the highest id the lowest. Writes max of them at most, and returns how many there
 * are, or -ENOTSUP (the master is of an older version, which does not tell), -ECONNREFUSED,
 * -ETIMEDOUT. A request to the master for each.
 */
int wvm_nodes(struct wvm *w, struct wvm_node_info *nodes, unsigned max);

/*
 * Calls fn from the helper thread when a page of this client cannot be had
 * (text: one line for the operator) and when the master is gone (addr NULL).
 * fn must not touch mapped memory, nor take a lock whose holder might, nor
 * call any of these functions.
 */
typedef void wvm_error_fn(void *opaque, void *addr, const char *text);
void wvm_on_error(struct wvm *w, wvm_error_fn *fn, void *opaque);

#ifdef __cplusplus
}
#endif
#endif

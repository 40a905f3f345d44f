/*
 * A VM's memory on this node: its RAM file and every client mapping of it.
 * The holder state machine decides, this file executes, with one system call
 * per client mm and step; it knows no protocol and allocates nothing after
 * wvm_memory_new() and wvm_mem_open().
 *
 * The RAM file holds only what this node's holder has. What is not in it makes
 * a client's access an event (MISSING); what is in it is write-protected in
 * every client mm unless the holder is Modified and that mm asked to write
 * (WP). The rule that carries the rest: before a page enters the file it is
 * write-protected in every mm, mapped there or not (a marker stays in the
 * page table), else a second program finds it in the page cache and its store
 * lands without an event.
 *
 * Threads: shard k owns the pages with (gpa >> 30) % shards == k and its own
 * table of clients and mappings. Functions that take a page are called on its
 * owner's thread, functions that take a shard on that shard's thread.
 *
 * Pages are numbers: gpa / WVM_PAGE_SIZE, gpa being the offset in the RAM file.
 * Waiters are a 64-bit mask of client indexes; bits of clients that do not map
 * the page (any more) are ignored.
 *
 * A client that is dying: an ioctl on the uffd of an mm that is gone (ESRCH)
 * removes that client from this shard's table and calls ops->dying once per
 * shard; the function goes on with the other clients and its result does not
 * tell. A page that its program unmapped by itself (ENOENT) is skipped: what is
 * not mapped needs no protection. EAGAIN (the mm's layout is changing) is tried
 * again a bounded number of times, then counts as -EBUSY.
 */
#ifndef WVM_MASTER_MEM_H
#define WVM_MASTER_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/client_ring.h"
#include "shared/wavevm.h"

#define WVM_MEM_MAPS_MAX WVM_RING_MAPS_MAX

struct wvm_memory; /* the node's clients and VMs */
struct wvm_mem;    /* one VM */

struct wvm_mem_ops {
	/* Client's mm is gone (its process died, or called exec). On the shard's thread, once. */
	void (*dying)(void *ctx, unsigned shard, unsigned client);
	/*
	 * wvm_mem_fail() asks the client's helper thread to act. On the shard's
	 * thread; err lives on the caller's stack.
	 */
	void (*failed)(void *ctx, unsigned shard, unsigned client,
		       const struct wvm_ring_error *err);
};

/* One range of one client. */
struct wvm_mem_map {
	uint64_t base; /* address in the client */
	uint64_t gpa;
	uint64_t len;  /* bytes */
	uint32_t mode; /* of wvm_map() */
	uint16_t vm_index;
	uint16_t vm_id;
};

struct wvm_mem_counters {
	uint64_t installs; /* pages that entered the file */
	uint64_t ioctls;   /* uffd ioctls made */
	uint64_t skipped;  /* ENOENT: not mapped there any more */
	uint64_t already;  /* installs that found the page there */
	uint64_t dying;    /* clients found gone by an ioctl */
	uint64_t failed;   /* pages failed towards a client */
	uint64_t punches;
	uint64_t punch_retries;
};

/*
 * The node's memory for 1 to 64 shards. ops must outlive it; NULL members are
 * not called. 0, -EINVAL, -ENOMEM.
 */
int wvm_memory_new(struct wvm_memory **out, unsigned shards, const struct wvm_mem_ops *ops,
		   void *ctx);
/* Closes every VM; uffds belong to whoever added them. No shard may be running. */
void wvm_memory_free(struct wvm_memory *node);
unsigned wvm_memory_shards(const struct wvm_memory *node);
/* Counters of one shard; a racing read from another thread sees slightly old numbers. */
void wvm_memory_counters(const struct wvm_memory *node, unsigned shard,
			 struct wvm_mem_counters *out);

/* Behaves as on a kernel without UFFDIO_POISON (before 6.6), where the client's helper acts. */
void wvm_memory_disable_poison(struct wvm_memory *node);

/* How to treat pages that the RAM file holds already. */
enum wvm_mem_open_how {
	WVM_MEM_EMPTY, /* punch them: a former master's cache is worth nothing without its table */
	WVM_MEM_ADOPT, /* keep them: the caller has the table */
};

/*
 * Creates or opens the RAM file of VM vm_id: size bytes, sparse, on a tmpfs
 * without huge pages; mode 0600. Before any shard runs. 0 or -errno with one
 * line for the operator in err: -EINVAL (size), -EEXIST (a file of another
 * size), -EBUSY (another master has it), -EMEDIUMTYPE (not a tmpfs, or one
 * with huge pages), -ENOSPC (too many VMs), or open's errno.
 */
int wvm_mem_open(struct wvm_memory *node, struct wvm_mem **out, uint16_t vm_id, const char *path,
		 uint64_t size, enum wvm_mem_open_how how, char *err, size_t err_len);
/* Removes the file's name: at a clean end, when no client is to find it again. */
int wvm_mem_unlink(struct wvm_mem *vm);

struct wvm_mem *wvm_memory_vm(struct wvm_memory *node, uint16_t vm_id);    /* NULL: unknown */
struct wvm_mem *wvm_memory_vm_at(struct wvm_memory *node, unsigned index); /* NULL: beyond */
uint16_t wvm_mem_vm_id(const struct wvm_mem *vm);
uint64_t wvm_mem_size(const struct wvm_mem *vm);
const char *wvm_mem_path(const struct wvm_mem *vm);
/* Which shard owns the page. */
unsigned wvm_mem_shard(const struct wvm_mem *vm, uint64_t page);

/* --- the tables of one shard (clients.c) ------------------------------- */

/* The uffd of this shard for a client; not owned. 0, -EEXIST, -EINVAL. */
int wvm_mem_client_add(struct wvm_memory *node, unsigned shard, unsigned client, int uffd);
/* Forgets the client and its ranges. The uffd is not used after this returns. */
void wvm_mem_client_del(struct wvm_memory *node, unsigned shard, unsigned client);

/*
 * Adds a range. It must lie in the VM, be page-aligned and meet none of this
 * client's ranges, neither in addresses nor in memory. 0, -ENOENT (no such
 * client), -ENXIO (vm_id), -ERANGE, -EINVAL, -EEXIST, -ENOSPC. Wakes threads
 * that touched the range too early, so that their faults come again.
 */
int wvm_mem_map_add(struct wvm_memory *node, unsigned shard, unsigned client,
		    const struct wvm_mem_map *map);
/* Drops exactly this range (gpa, len, vm_id) and wakes who waits in it. 0, -ENOENT. */
int wvm_mem_map_del(struct wvm_memory *node, unsigned shard, unsigned client, uint16_t vm_id,
		    uint64_t gpa, uint64_t len);
/* What a fault address of a client means. 0, -ENOENT (not in a range of this client). */
int wvm_mem_find(struct wvm_memory *node, unsigned shard, unsigned client, uint64_t addr,
		 struct wvm_mem **vm, uint64_t *page);
/* Wakes every thread that waits anywhere in this shard's ranges: its fault comes again. */
void wvm_mem_wake_all(struct wvm_memory *node, unsigned shard);
/* The first page from `page` on that the RAM file has, UINT64_MAX: none. */
uint64_t wvm_mem_next_present(struct wvm_mem *vm, uint64_t page);
/* Clients that map the page. */
uint64_t wvm_mem_mappers(struct wvm_mem *vm, uint64_t page);

/* --- pages (the holder's glue) ----------------------------------------- */

/*
 * A page enters the RAM file: data (4096 bytes; NULL: zeros), then the waiters
 * are released, able to write if writable. waiters 0 (a pin, or its client
 * died) puts it into the file without mapping it anywhere.
 *
 * 0; -EEXIST: the page was there already, its bytes were kept and data was not
 * used; the waiters were lifted or woken as asked. -ENOMEM, -ENOSPC (the tmpfs
 * is full), -EBUSY, -EIO: the page is not in the file and nobody was woken.
 */
int wvm_mem_install(struct wvm_mem *vm, uint64_t page, const void *data, bool writable,
		    uint64_t waiters);

/*
 * `count` neighbours of one unit, whose bytes lie one behind the other, enter the
 * RAM file as by wvm_mem_install() without waiters that are not to write. Returns
 * how many of them did; the rest, if the file has one of them or has no room, is for
 * wvm_mem_install() to tell why.
 */
unsigned wvm_mem_install_run(struct wvm_mem *vm, uint64_t page, unsigned count, const void *data);

/* The page is Modified now: the waiters may write and are woken. 0, -EBUSY, -ENOMEM. */
int wvm_mem_lift(struct wvm_mem *vm, uint64_t page, uint64_t waiters);

/* The waiters' accesses are tried again. 0. */
int wvm_mem_wake(struct wvm_mem *vm, uint64_t page, uint64_t waiters);

/*
 * No store lands in the page any more without an event, in any mm. 0; -EBUSY
 * or -ENOMEM: some mm may still write (the caller must not go on to read).
 */
int wvm_mem_protect(struct wvm_mem *vm, uint64_t page);

/* The same in all mms but that of one client. */
int wvm_mem_protect_others(struct wvm_mem *vm, uint64_t page, unsigned client);

/* The same for `count` neighbours of one unit. */
int wvm_mem_protect_run(struct wvm_mem *vm, uint64_t page, unsigned count);

/*
 * Room for `count` pages of one unit from `page` on, where the waiters are, and `below` before it,
 * zeros where the file has nothing; what it has stays. The waiters may write all of it and are
 * woken; the memory of other programs is left as it is, which is for pages that are Modified. Until
 * a program touches it, such a page counts as absent for the functions here: the kernel has yet to
 * zero it. 0; -ENOSPC, -ENOMEM: nobody was woken, part of it may be there.
 */
int wvm_mem_fill(struct wvm_mem *vm, uint64_t page, unsigned below, unsigned count,
		 uint64_t waiters);

/*
 * The page, protected before, is written as zeros if the file has nothing, so that
 * it counts as present; the waiters are woken. 0; -ENOSPC, -ENOMEM, -EIO.
 */
int wvm_mem_settle(struct wvm_mem *vm, uint64_t page, uint64_t waiters);

/* The page's bytes as they are in the file. 0; -ENODATA: it is not there, buf is zeros; -EIO. */
int wvm_mem_read(struct wvm_mem *vm, uint64_t page, void *buf);

/* Of `count` neighbours of one unit; what is not there is zeros. 0; -EIO. */
int wvm_mem_read_run(struct wvm_mem *vm, uint64_t page, unsigned count, void *buf);

/* Whether the file has the page. */
bool wvm_mem_present(struct wvm_mem *vm, uint64_t page);

/*
 * The page leaves the file; the caller protected it first. 0; -EIO: it is still
 * there after all retries: the master must stop, a stale page may not stay.
 */
int wvm_mem_punch(struct wvm_mem *vm, uint64_t page);

/*
 * The page cannot be had (reason: a positive errno). Each waiter is treated by
 * its mapping's policy: WVM_ERROR_SIGBUS poisons the page in that mm for as long
 * as this mapping stands (the kernel has no way back but to map it anew),
 * WVM_ERROR_PARK leaves the thread where it is. Both send a WVM_RING_ERROR by
 * ops->failed. The page must not be in the file (-EBUSY, nothing done): a page
 * that cannot be upgraded is protected and punched first. 0.
 */
int wvm_mem_fail(struct wvm_mem *vm, uint64_t page, uint64_t waiters, int reason);

#endif

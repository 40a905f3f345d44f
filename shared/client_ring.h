/*
 * What the master and its clients agree on without a socket: the ring file
 * (WVM_RING_PATH), the channel between the master and one client, and the
 * messages on it (shared/PROTOCOL.md, Clients). Host byte order: it never
 * leaves the host.
 *
 * The ring file: one header page written by the master, then 64 slots. It is
 * read and written with pread and pwrite only, never mapped, so that nobody
 * can take another process down by truncating it.
 *  - The master holds an fcntl write lock on the header's first bytes as long
 *    as it lives: that lock says whether a file's master is alive, and which
 *    process it is (F_GETLK).
 *  - A client holds an fcntl write lock on its slot's bytes. The master takes
 *    the client's pid from that lock, never from the file.
 * Such locks are the process's and fall when it closes any descriptor of the
 * file, so each process opens the file once (client_file.c sees to that).
 *
 * Attaching: lock a slot; write its client half with claim 0, then claim, a
 * random number. The master watches the file with inotify, so that write wakes
 * it and an idle file costs nothing. It opens a pidfd, takes the descriptors
 * with pidfd_getfd, checks that each is what the slot says, and writes its half
 * of the slot: answered = claim, and 0 or the reason. Neither writes the
 * other's half, so an answer to a former owner of a slot harms nobody.
 *
 * The channel: a memfd made by the client, sealed against shrinking, with one
 * SPSC ring each way; two eventfds are the doorbells. A client's rings are in
 * its own memfd, out of reach of other clients.
 */
#ifndef WVM_SHARED_CLIENT_RING_H
#define WVM_SHARED_CLIENT_RING_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/userfaultfd.h>

#include "shared/spsc.h"
#include "shared/vcpu_report.h"
#include "shared/wavevm.h"

#define WVM_RING_MAGIC  0x474e49524d565657ull /* "WVVMRING" */
/* Changes with any change of this file that a side which does not know it would misread. */
#define WVM_RING_LAYOUT 3u

#define WVM_CLIENTS_MAX     64u
#define WVM_RING_SHARDS_MAX 64u
#define WVM_RING_VMS_MAX    8u
#define WVM_RING_MAPS_MAX   16u  /* ranges that one client may map */
#define WVM_RING_PINS_MAX   256u /* different ranges that one client may hold pinned */
#define WVM_RING_CALLS_MAX  32u  /* requests of one client without an answer */
#define WVM_RING_ADOPTS_MAX 8u
#define WVM_RING_RAM_PATH   232u

#define WVM_RING_HDR_BYTES  4096u
#define WVM_RING_SLOT_BYTES 512u
#define WVM_RING_LOCK_BYTES 64u /* of the header: the master's lock */

/* 256 bytes. A VM whose memory this node serves. */
struct wvm_ring_vm {
	uint64_t size; /* bytes, a multiple of WVM_PAGE_SIZE */
	uint16_t vm_id;
	uint16_t reserved[7];
	char ram_path[WVM_RING_RAM_PATH]; /* NUL-terminated; opened by clients, made by the master
					   */
};
_Static_assert(sizeof(struct wvm_ring_vm) == 256, "vm entry");

/* At offset 0; written by the master before magic, magic last. */
struct wvm_ring_header {
	uint64_t magic;
	uint32_t layout;
	uint32_t slot_count;
	uint64_t boot_id; /* of this life of the master; 0 is none */
	uint32_t shard_count;
	uint32_t node_id;
	uint32_t vm_count;
	uint32_t reserved0;
	uint64_t adopts[WVM_RING_ADOPTS_MAX]; /* clients of these lives may come back as they are */
	/* For a slave, which talks to the master by UDP: its datagrams come from here and go there.
	 */
	uint32_t udp_ip; /* host order */
	uint16_t udp_port;
	uint16_t slave_port; /* at 127.0.0.1: where the master expects a slave */
	uint32_t vnode;      /* this node's first: what src and dst of messages say */
	uint32_t segment;    /* payload bytes of a message at most */
	/* 1: the node lends memory only, and attaches nobody (WVM_RING_MEMORY_ONLY). */
	uint32_t memory_only;
	uint8_t reserved1[132];
	struct wvm_ring_vm vms[WVM_RING_VMS_MAX];
};
_Static_assert(offsetof(struct wvm_ring_header, vms) == 256, "vm table");
_Static_assert(sizeof(struct wvm_ring_header) <= WVM_RING_HDR_BYTES, "header page");

/* What the client writes into its slot. */
struct wvm_ring_claim {
	uint64_t claim;   /* random, not 0; written last, alone. 0: nobody */
	uint64_t boot_id; /* the master's life that is meant */
	uint32_t shard_count;
	int32_t channel_fd;                   /* the memfd */
	int32_t to_master_fd;                 /* eventfd */
	int32_t to_client_fd;                 /* eventfd */
	int32_t uffd_fd[WVM_RING_SHARDS_MAX]; /* [k]: wvm_ring_shard(gpa) == k */
};

/*
 * The answer to every claim at a node with 0 cores, negative: no other refusal has this number.
 * Others may make that node's pages anew when it has died, since no program ever had one there.
 */
#define WVM_RING_MEMORY_ONLY EREMOTE

/* What the master answers. */
struct wvm_ring_answer {
	uint64_t answered; /* the claim that this is about */
	int32_t result;    /* 0: attached; -errno: refused */
	uint32_t reserved;
};

struct wvm_ring_slot {
	struct wvm_ring_claim client;
	uint8_t reserved0[448 - sizeof(struct wvm_ring_claim)];
	struct wvm_ring_answer master;
	uint8_t reserved1[64 - sizeof(struct wvm_ring_answer)];
};
_Static_assert(sizeof(struct wvm_ring_slot) == WVM_RING_SLOT_BYTES, "slot");

static inline int64_t wvm_ring_slot_offset(unsigned slot)
{
	return (int64_t)WVM_RING_HDR_BYTES + (int64_t)slot * WVM_RING_SLOT_BYTES;
}

#define WVM_RING_FILE_BYTES (WVM_RING_HDR_BYTES + WVM_CLIENTS_MAX * WVM_RING_SLOT_BYTES)

/* Which shard serves a page. */
static inline unsigned wvm_ring_shard(uint64_t gpa, unsigned shards)
{
	return (unsigned)((gpa >> 30) % shards);
}

/* The channel memfd: to the master first, then to the client, page-aligned each. */
#define WVM_CHANNEL_CAPACITY   8192u /* data bytes of each ring */
#define WVM_CHANNEL_RING_BYTES 12288u
#define WVM_CHANNEL_BYTES      (2 * WVM_CHANNEL_RING_BYTES)
_Static_assert(sizeof(struct wvm_spsc_mem) + WVM_CHANNEL_CAPACITY <= WVM_CHANNEL_RING_BYTES,
	       "ring fits");

/*
 * Messages. A body shorter than its struct is a fault of the sender; bytes
 * beyond it are of a later version and ignored.
 */
enum wvm_ring_msg {
	/* client to master: struct wvm_ring_req, each answered by one WVM_RING_REPLY */
	WVM_RING_MAP = 1,
	WVM_RING_UNMAP = 2,
	WVM_RING_PIN = 3,
	WVM_RING_UNPIN = 4,
	WVM_RING_STATS = 5, /* reply data: struct wvm_stats */
	WVM_RING_WHERE = 6, /* reply result: node id */
	WVM_RING_DETACH = 7,
	/*
	 * To a master that took a former life over: every MAP and PIN that held
	 * then has been said again. Not answered.
	 */
	WVM_RING_BACK = 8,
	/*
	 * The channel of a processor that may run on other nodes: as the client's own, but with
	 * rings of WVM_VCPU_CAPACITY, and the page of vcpu_report.h behind them. mode: the
	 * processor; gpa, len, addr: numbers of the descriptors of its memfd, of the eventfd
	 * towards the master and of the other one. Reply data: struct wvm_ring_vcpu.
	 */
	WVM_RING_VCPU_OPEN = 9,
	WVM_RING_VCPU_CLOSE = 10, /* mode: the processor */
	/*
	 * mode: a node id. Reply result: its first vnode, or -ENXIO; data: struct wvm_ring_node,
	 * which masters of older versions leave out.
	 */
	WVM_RING_NODE = 11,
	/* on a processor's channel, both ways: struct wvm_msg, then its payload */
	WVM_RING_DATAGRAM = 32,
	WVM_RING_CODE = 12,      /* code_area.h; addr: the memfd's number in the client */
	WVM_RING_CODE_MARK = 13, /* answered when no other program can store to page gpa unseen */
	/* master to client */
	WVM_RING_REPLY = 64, /* struct wvm_ring_reply, then data */
	WVM_RING_ERROR = 65, /* struct wvm_ring_error */
	WVM_RING_ORDER = 66, /* struct wvm_ring_order */
};

/* 40 bytes. */
struct wvm_ring_req {
	uint64_t token; /* comes back in the reply */
	uint16_t vm_id;
	uint16_t reserved;
	uint32_t mode; /* MAP: as wvm_map() */
	uint64_t gpa;  /* WHERE, MAP, UNMAP, PIN, UNPIN, CODE_MARK; multiple of a page */
	uint64_t len;  /* MAP, UNMAP, PIN, UNPIN; bytes, likewise */
	uint64_t addr; /* MAP: where the client mapped it; CODE: descriptor */
};
_Static_assert(sizeof(struct wvm_ring_req) == 40, "request");

/* 16 bytes, then data_len bytes up to the record's end. */
struct wvm_ring_reply {
	uint64_t token;
	int64_t result; /* 0, a value, or -errno */
};

/* 16 bytes: what the owner's side of the run protocol needs to know (shared/core/run.h). */
struct wvm_ring_vcpu {
	uint32_t vnode;   /* this node's, as src and dst of messages name it */
	uint32_t segment; /* payload bytes of a message at most */
	uint64_t reserved;
};

/* 16 bytes: a node as the topology has it. */
struct wvm_ring_node {
	uint32_t nodes; /* of the cluster */
	uint32_t next;  /* the id after its own, ascending; the last one's is the lowest */
	uint32_t cores;
	uint32_t reserved;
};
_Static_assert(sizeof(struct wvm_ring_node) == 16, "node");

/*
 * A processor's rings: room for a run or an answer in its segments, again as a retry, and
 * padding. What comes when a ring is full is dropped: the run protocol sends it again.
 */
#define WVM_VCPU_CAPACITY      262144u
#define WVM_VCPU_RING_BYTES    (WVM_VCPU_CAPACITY + 4096u)
#define WVM_VCPU_CHANNEL_BYTES (2 * WVM_VCPU_RING_BYTES + WVM_VCPU_REPORT_BYTES)

/* 8 bytes: there is an order for a processor, in its channel (vcpu_report.h). */
struct wvm_ring_order {
	uint16_t vm_id;
	uint16_t vcpu;
	uint32_t reserved;
};
_Static_assert(sizeof(struct wvm_ring_order) == 8, "order");

enum wvm_ring_error_how {
	WVM_ERROR_HOW_POISONED = 0, /* the access gets SIGBUS */
	WVM_ERROR_HOW_PARKED = 1,   /* the thread stays stopped */
	WVM_ERROR_HOW_REPLACE = 2,  /* no UFFDIO_POISON here: the helper maps a page of an empty
				       file over it and wakes the thread, which gets SIGBUS */
};

/* 32 bytes. A page of this client cannot be had. */
struct wvm_ring_error {
	uint64_t addr; /* in the client */
	uint64_t gpa;
	uint16_t vm_id;
	uint16_t how;
	int32_t reason; /* errno: ETIMEDOUT (home silent), EIO (last copy lost), … */
	uint64_t reserved;
};
_Static_assert(sizeof(struct wvm_ring_error) == 32, "error");

/* The features of every uffd of a client, exactly: anything more could hide or hold back faults. */
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14) /* linux 6.6 */
#endif
#define WVM_UFFD_FEATURES                                              \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM) /* and UFFD_FEATURE_POISON where the kernel has it */

#endif

/*
 * The master's side of its clients: the ring file, attaching by pidfd, the
 * channels, the fault events (shared/client_ring.h, shared/PROTOCOL.md,
 * Clients). It feeds the shards' tables in mem.h and calls the node's glue.
 *
 * All that a client says, in its slot, on its channel, by its descriptors, is
 * copied once and checked. A client that breaks the rules is no longer heard:
 * its requests are ignored, its faults wait, and its pages stay protected until
 * its process ends. The master and the other clients go on.
 *
 * Threads: the control work (attach, requests, replies) is done on shard 0, a
 * client's faults on the shard that owns the page.
 */
#ifndef WVM_MASTER_CLIENTS_H
#define WVM_MASTER_CLIENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "roles/master/mem.h"
#include "shared/core/msg.h"
#include "shared/vcpu_report.h"
#include "shared/wavevm.h"

struct wvm_clients;
struct wvm_ring_node; /* client_ring.h */
struct wvm_code;      /* code.h */
struct wvm_shard;     /* ring/shard.h */

/* Calls into the node's glue. None may block; all but log may be given as NULL in tests. */
struct wvm_clients_ops {
	/*
	 * A thread of client waits for the page, to write it or not. On the
	 * page's shard. It stays stopped until wvm_mem_install(), _lift() or
	 * _wake() names the client; the same thread may come again, and a fault
	 * may be spurious (the page was served since).
	 */
	void (*fault)(void *ctx, unsigned shard, struct wvm_mem *vm, uint64_t page, bool write,
		      unsigned client);
	/*
	 * Hold (release) count pages from first as Modified for the client. On
	 * shard 0. Answered by wvm_clients_reply() with token; token 0 wants no
	 * answer (unpin of a client that died). Every unpin names a range whose
	 * pin was answered with 0.
	 */
	void (*pin)(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t first, uint64_t count,
		    uint64_t token);
	void (*unpin)(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t first,
		      uint64_t count, uint64_t token);
	/*
	 * The client left or died; its index is out of this shard's tables and
	 * may name another client as soon as every shard was told. Take it out
	 * of every mask of waiters. On each shard's thread.
	 */
	void (*client_gone)(void *ctx, unsigned shard, unsigned client);
	/*
	 * The client translates code (code.h): `code` is valid until client_gone() on
	 * this shard. On each shard's thread.
	 */
	void (*code)(void *ctx, unsigned shard, unsigned client, struct wvm_code *code);
	/* It has been told of pages in it that this shard has raised: all, or some. */
	void (*code_told)(void *ctx, unsigned shard, unsigned client);
	/*
	 * It translates from the page: no other program may store to it any more
	 * unseen. On shard 0; answered by wvm_clients_reply() with token.
	 */
	void (*code_mark)(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t page,
			  uint64_t token);
	/* Fill in what the node knows; faults_read, _write and _failed are filled. On shard 0. */
	void (*stats)(void *ctx, unsigned client, struct wvm_stats *inout);
	/* Whether programs may map memory that were not there before; NULL: yes. On shard 0. */
	bool (*admits)(void *ctx);
	/* The node id of the home of an offset, or -errno. On shard 0. */
	int (*where)(void *ctx, struct wvm_mem *vm, uint64_t gpa);
	/* The first vnode of a node and what else there is to know of it, or -ENXIO. On shard 0. */
	int (*node)(void *ctx, uint32_t node_id, struct wvm_ring_node *out);
	/*
	 * What the owner of a processor has put on its channel: any bytes (len 0: not even that).
	 * On shard 0, and only after vcpu_room() said that there is room to send one on.
	 */
	void (*vcpu_record)(void *ctx, uint16_t vm_id, unsigned vcpu, const uint8_t *data,
			    size_t len);
	bool (*vcpu_room)(void *ctx);
	/* One line for the operator. On any shard. */
	void (*log)(void *ctx, const char *line);
};

/*
 * Channels of processors that are open at a time, of all clients and VMs: all of one large VM.
 * One more for each of a few that are closing, so that one may take another's place.
 */
#define WVM_CLIENTS_VCPUS         256u
#define WVM_CLIENTS_VCPUS_CLOSING 16u

/* What runs of remote processors need to know of this node. */
struct wvm_clients_relay {
	uint32_t ip; /* host order; where its slave gets datagrams from, and sends them to */
	uint16_t port, slave_port;
	uint32_t vnode;   /* its first */
	uint32_t segment; /* payload bytes of a message at most */
};

/*
 * Every shard needs WVM_CLIENTS_MAX file slots (wvm_shard_opts.files) for this,
 * shard 0 WVM_CLIENTS_FILES.
 */
#define WVM_CLIENTS_FILES \
	(3 * WVM_CLIENTS_MAX + 1 + 2 * (WVM_CLIENTS_VCPUS + WVM_CLIENTS_VCPUS_CLOSING))
struct wvm_clients_conf {
	const char *path; /* of the ring file */
	uint32_t node_id;
	bool memory_only; /* every claim is answered with -WVM_RING_MEMORY_ONLY */
	uint64_t boot_id; /* not 0, differs from every former life's */
	/*
	 * Former lives whose pages this one has taken over with its table (WVM_MEM_ADOPT):
	 * their clients come back by themselves, with what they had mapped. 0 ends the list.
	 * A life that ended before all those clients were back (wvm_clients_awaited()) must
	 * not have changed a page; then the lives before it belong into the list too.
	 */
	uint64_t adopts[WVM_RING_ADOPTS_MAX];
	struct wvm_memory *memory;       /* with every VM opened */
	struct wvm_shard *const *shards; /* wvm_memory_shards() of them; read by open only */
	struct wvm_clients_relay relay;
	const struct wvm_clients_ops *ops;
	void *ctx;
};

/* What wvm_memory_new() gets; its ctx is a struct wvm_clients **, filled by wvm_clients_open(). */
extern const struct wvm_mem_ops wvm_clients_mem_ops;

/*
 * Creates the ring file, or takes over that of a dead master. Before the
 * shards run. 0 or -errno with one line in err: -EADDRINUSE (a living master
 * has it), -EPROTO (the file is something else, or of another layout),
 * -ENOMEM, or open's errno.
 */
int wvm_clients_open(struct wvm_clients **out, const struct wvm_clients_conf *conf, char *err,
		     size_t err_len);

/* Begins to serve; called on shard 0 when every shard runs. 0 or -errno. */
int wvm_clients_start(struct wvm_clients *c);

/* Answers the request of that token; from any shard's thread. result: 0 or -errno. */
void wvm_clients_reply(struct wvm_clients *c, unsigned shard, unsigned client, uint64_t token,
		       int64_t result);

/*
 * A message for the owner of a processor of this node. On shard 0. WVM_DROP_NONE, or why it did
 * not get there: WVM_DROP_VM (nobody here has that processor), WVM_DROP_ROOM (it does not read).
 */
enum wvm_drop wvm_clients_vcpu_push(struct wvm_clients *c, const struct wvm_msg *m,
				    const uint8_t *payload);
/* Channels of processors that are open now. On shard 0. */
unsigned wvm_clients_vcpu_count(const struct wvm_clients *c);
/* What the owner of each of them says of it: any numbers. On shard 0. */
typedef void wvm_clients_vcpu_fn(void *ctx, uint16_t vm_id, unsigned vcpu,
				 const struct wvm_vcpu_report *report);
void wvm_clients_vcpu_each(const struct wvm_clients *c, wvm_clients_vcpu_fn *fn, void *ctx);
/*
 * Gives an order, TOKEN << 32 | node (shared/vcpu_report.h), unless that one is answered already.
 * *out says. False: nobody here has that processor. On shard 0.
 */
bool wvm_clients_vcpu_order(struct wvm_clients *c, uint16_t vm_id, unsigned vcpu, uint64_t wanted,
			    struct wvm_vcpu_report *out);
/* This shard has raised pages in the client's code area: it is told. On that shard. */
void wvm_clients_code_raised(struct wvm_clients *c, unsigned shard, unsigned client);
/*
 * It has not answered in time: it is ended, and client_gone() follows. Once per
 * shard and client. On that shard.
 */
void wvm_clients_code_late(struct wvm_clients *c, unsigned shard, unsigned client);

/* Clients attached now. On shard 0. */
unsigned wvm_clients_count(const struct wvm_clients *c);

/* Whether no program is attached, nor on its way in or out on any shard. On shard 0. */
bool wvm_clients_none(const struct wvm_clients *c);

/*
 * Processes that live, hold a slot of a former life, and have not come back with
 * all that they had mapped and pinned. A master that has adopted pages acts on
 * none of them until this is 0: it would miss an address space. *pid (may be
 * NULL) is one of them. On shard 0; 64 system calls.
 */
unsigned wvm_clients_awaited(struct wvm_clients *c, int *pid);

/*
 * Ranges pinned by those who came back, for whoever takes pages over; while
 * nothing else changes them: after awaited is 0, before wvm_clients_adopted().
 */
typedef void wvm_clients_pin_fn(void *ctx, struct wvm_mem *vm, uint64_t first, uint64_t count);
void wvm_clients_each_pin(struct wvm_clients *c, wvm_clients_pin_fn *fn, void *ctx);

/* The pages are taken over: requests are served, and other programs may attach. On shard 0. */
void wvm_clients_adopted(struct wvm_clients *c);

/* The process of a client index, 0 when nobody has it. On shard 0. */
int wvm_clients_pid(const struct wvm_clients *c, unsigned client);

struct wvm_clients_counters {
	uint64_t attached;    /* since the start */
	uint64_t refused;     /* claims that were refused */
	uint64_t broken;      /* clients that broke the rules */
	uint64_t gone;        /* clients that left or died */
	uint64_t faults_read; /* of all clients */
	uint64_t faults_write;
	uint64_t faults_unknown; /* at addresses in none of the client's ranges */
	uint64_t errors_lost;    /* failed pages whose client could not be told */
};

/* Sums over all shards, slightly old. Any thread. */
void wvm_clients_counters(const struct wvm_clients *c, struct wvm_clients_counters *out);

/*
 * Closes every descriptor; unlinks the ring file if asked. After the shards
 * have stopped. Clients keep waiting in their faults; their helper threads
 * notice.
 */
void wvm_clients_close(struct wvm_clients *c, bool unlink_file);

#endif

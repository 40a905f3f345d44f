/*
 * A node: shards of the runtime, each with a protocol core, a socket and its
 * part of the node's memory; the clients; the state files. node.c builds and
 * ends it, glue.c carries messages, faults and actions between the parts.
 */
#ifndef WVM_MASTER_NODE_H
#define WVM_MASTER_NODE_H

#include <netinet/in.h>

#include "ring/daemon.h"
#include "ring/shard.h"
#include "ring/udp.h"
#include "roles/master/adopt.h"
#include "roles/master/backing.h"
#include "roles/master/clients.h"
#include "roles/master/mem.h"
#include "roles/master/membership.h"
#include "roles/master/options.h"
#include "roles/master/pins.h"
#include "roles/master/reclaim.h"
#include "roles/master/runs.h"
#include "roles/master/stale.h"
#include "roles/master/state.h"
#include "roles/master/trace.h"
#include "roles/master/vcpus.h"
#include "roles/master/view.h"
#include "shared/conf.h"
#include "shared/core/core.h"
#include "shared/core/join.h"

#define WVM_NODE_SHARDS_MAX WVM_MASTER_SHARDS_MAX
#define WVM_STATIC_EPOCH    1u /* of messages that are not about homes: runs of vCPUs */

struct wvm_node;
struct wvm_control;

/* One shard's part. Everything in it belongs to the shard's thread; counters are read by others. */
struct wvm_node_shard {
	struct wvm_node *node;
	struct wvm_shard *shard;
	struct wvm_udp *udp;
	struct wvm_core *core;
	void *core_memory;
	uint8_t *outbox;
	unsigned index;
	bool adopting; /* atomic; the former life's pages are not taken over yet: see adopt.h */
	struct wvm_hook hook;
	struct wvm_timer timer; /* the core's next deadline */
	uint64_t armed_ns;      /* what the timer is armed for; WVM_NEVER: not */
	struct wvm_pins pins;
	struct wvm_reclaim reclaim;
	struct wvm_node_epoch next;
	bool serving; /* its core has been told that it may */
	bool moving;  /* something of its slices is still to be moved, in or out */
	struct wvm_runs *runs;
	struct wvm_stale *stale;
	struct wvm_stale_counters code;
	struct wvm_trace trace;
	uint64_t drops[WVM_DROP_REASONS]; /* found before the core saw the message */
	uint64_t received; /* messages from the wire: accepted, or in a drop counter */
	uint64_t accepted;
	uint64_t own_dropped; /* messages to this node itself that its core dropped, and counted */
	uint64_t pages_sent, pages_received, zero_sent;
	uint64_t no_buffer;    /* segments dropped since the transmit pool was empty */
	uint64_t pushed_back;  /* messages that a gateway had no room for, and said so */
	uint64_t post_refused; /* own messages dropped since another shard's inbox was full */
	uint64_t install_failed;
	uint64_t no_room; /* inputs dropped since the tmpfs had no room for what they touch */
	uint64_t ahead_until_ns; /* what ahead_room says holds so long */
	bool ahead_room;
	uint64_t no_room_said_ns;
	_Alignas(64) uint8_t page[WVM_PAGE_BYTES]; /* of the RAM file, on its way out */
};

struct wvm_node {
	const struct wvm_master_options *options;
	struct wvm_topology topology;
	struct wvm_member *member_list;
	struct sockaddr_in *addresses; /* by member */
	struct wvm_members members;
	struct wvm_layout layout; /* of the topology */
	uint32_t self;
	uint16_t boot;
	uint64_t boot_id; /* of the ring file */
	unsigned mtu;
	unsigned segment; /* page bytes per datagram */
	struct wvm_kernel kernel;
	struct wvm_place places[WVM_NODE_SHARDS_MAX];
	int claim_fd; /* our CPUs, as long as it is open */
	unsigned shard_count;
	struct wvm_node_shard shards[WVM_NODE_SHARDS_MAX];
	struct wvm_state state;
	struct wvm_memory *memory;
	struct wvm_mem *vms[WVM_MASTER_VMS_MAX]; /* by the core's VM index */
	struct wvm_backing backing[WVM_MASTER_VMS_MAX];
	unsigned vm_count;
	struct wvm_clients *clients;
	struct wvm_vcpus vcpus; /* shard 0 */
	struct wvm_join join;   /* shard 0 */
	uint8_t *join_answered;
	uint32_t stranger; /* the member, + 1, that asked last with another topology */
	struct wvm_timer join_timer;
	struct wvm_adoption adoption;
	struct wvm_leave leave;
	bool serving;    /* as home; atomic: each shard's core is told on its thread */
	bool ready;      /* announced: holder and home serve */
	bool keep_files; /* they are a former life's, and not taken over yet */
	struct wvm_control *control;
	struct wvm_node_membership *membership; /* shard 0 */
	struct wvm_node_view *view;             /* shard 0 */
	uint64_t started_ns;
	int exit_status;
};

/*
 * Builds a node from its options and starts its shards. 0, or -errno with one
 * line in err, nothing left behind. `node` is zeroed memory of the caller.
 */
int wvm_node_start(struct wvm_node *node, const struct wvm_master_options *options, char *err,
		   size_t err_len);

/*
 * Stops the shards, says goodbye to the clients, removes the files; not those of
 * a former life that it had not taken over yet.
 */
void wvm_node_stop(struct wvm_node *node);

/* glue.c */
extern const struct wvm_clients_ops wvm_node_clients_ops;
void wvm_node_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len);
bool wvm_node_turn(struct wvm_hook *hook, uint64_t now_ns);
void wvm_node_core_timer(struct wvm_timer *timer, uint64_t now_ns);
void wvm_node_join_timer(struct wvm_timer *timer, uint64_t now_ns);
/* Takes the core's actions and carries them out. After every input to the core. */
void wvm_node_drain(struct wvm_node_shard *s);
/* Two actions, for runs.c: a message to a member, its page NULL or as it is now; and INSTALL. */
void wvm_node_send(struct wvm_node_shard *s, uint32_t member, const struct wvm_msg *msg,
		   const uint8_t *page);
void wvm_node_install(struct wvm_node_shard *s, const struct wvm_action *a);
bool wvm_node_all_zero(const uint8_t *page);
/* Whether messages to and from a member go through this host's gateway. */
bool wvm_node_by_sidecar(const struct wvm_node *node, uint32_t member);
/* Whether a message is from a page's holder to its home. */
bool wvm_node_is_to_home(const struct wvm_msg *msg);
/* A later epoch: whom this node has to ask before it serves, one byte per member. On shard 0. */
void wvm_node_join_epoch(struct wvm_node *node, uint32_t epoch, const uint8_t *asked);
/* ahead.c: after a read fault and its actions */
void wvm_node_read_ahead(struct wvm_node_shard *s, uint32_t vm, uint64_t page);
/* Says that this node serves, once all of it does. On shard 0. */
void wvm_node_ready(struct wvm_node *node);
/* The shard that is the holder of a page. */
unsigned wvm_holder_shard(const struct wvm_node *node, uint64_t page);
/*
 * Whether the holder's entry of a page may be touched; else the operator is
 * told, and the fault or pin ends with ENOSPC.
 */
bool wvm_node_holder_room(struct wvm_node_shard *s, uint32_t vm, uint64_t page);
/* Whether the core may touch the page's own entry, whatever the unit's says. */
bool wvm_node_holder_entry(struct wvm_node_shard *s, uint32_t vm, uint64_t page);
/* The index that the core knows a VM by. */
uint32_t wvm_node_vm_index(const struct wvm_node *node, const struct wvm_mem *vm);

uint64_t wvm_node_vm_size(const struct wvm_node *node, const struct wvm_master_vm *vm);

/* layout.c: what all nodes must have alike, so that they look for a page at the same home */
/* PLACE lines against the VMs of this master. 0 or -EINVAL with one line in err. */
int wvm_layout_check(const struct wvm_node *node, char *err, size_t err_len);
/* Of the members and of the placed ranges (0: none); equal on equal nodes of any byte order. */
uint32_t wvm_members_hash(const struct wvm_node *node);
uint32_t wvm_layout_hash(const struct wvm_node *node);
/* Both: of the cluster that the topology describes. */
uint64_t wvm_node_identity(const struct wvm_node *node);
/* A REPORT from a member whose topology says something else than ours: tells the operator. */
void wvm_layout_stranger(struct wvm_node *node, uint32_t member, uint64_t identity);

/* control.c: the control port of shard 0 */
int wvm_control_open(struct wvm_control **out, struct wvm_node *node, char *err, size_t err_len);
void wvm_control_close(struct wvm_control *control);
/* Its socket; what comes there and is no request goes to the membership. */
struct wvm_udp *wvm_control_udp(struct wvm_control *control);

/* What came to the control port. */
struct wvm_control_counters {
	uint64_t requests;   /* answered, be it with an error */
	uint64_t bad_length; /* not as long as a request: dropped */
	uint64_t bad_magic;  /* likewise */
	uint64_t unanswered; /* no buffer for the answer */
};

#endif

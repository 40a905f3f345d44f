/*
 * Live membership (shared/membership.h) in a master: on shard 0, by the control ports of the
 * topology's nodes or, where NODE lines name gateways, by these. It finds out who answers, in
 * which epoch they are, and drives the records (roles/master/view.h).
 */
#ifndef WVM_MASTER_MEMBERSHIP_H
#define WVM_MASTER_MEMBERSHIP_H

#include <netinet/in.h>
#include <semaphore.h>

#include "ring/shard.h"
#include "roles/master/saver.h"
#include "shared/ballots.h"
#include "shared/membership.h"

struct wvm_node;
struct wvm_udp;

/* What is kept of a peer beside the view. */
struct wvm_node_peer {
	struct wvm_hop at;
	uint64_t silent_ns; /* it has been SUSPECT since then; 0: it is not */
	bool dead;          /* as was said to the operator */
};

/* Of shard 0's thread as soon as that runs. */
struct wvm_node_membership {
	struct wvm_node *node;
	struct wvm_udp *udp; /* NULL: by gateways, or as `shared` says */
	bool shared;         /* the socket of the control port is for this, too */
	bool open;           /* else who answers is not known here, and `off` says why */
	char off[256];
	uint64_t started_ns;
	struct wvm_membership m;
	void *gossip_memory;
	struct wvm_node_peer *peers; /* by member */
	struct wvm_timer timer;
	uint64_t armed_ns;
	struct wvm_ballots ballots;
	bool made, in_memory; /* the file of ballots: at this start; on a tmpfs */
	uint32_t behind;      /* the epoch that was said to be too far ahead; 0: none */
	bool told;            /* what there is to say at a start is said */
	struct wvm_saver saver;
	sem_t left; /* the farewell is said */
};

/*
 * Reads the ballots and opens the socket; after the control port, before the shards start. A
 * topology in which two nodes have one control address is no error: *out is not `open`. 0, or
 * -errno with one line in err.
 */
int wvm_node_membership_open(struct wvm_node_membership **out, struct wvm_node *node, char *err,
			     size_t err_len);
/* Shards have ended, and exist. NULL is allowed. */
void wvm_node_membership_close(struct wvm_node_membership *n);

/* On shard 0: begins to speak; this node's life is another one. */
void wvm_node_membership_life(struct wvm_node_membership *n, enum wvm_node_state life);

/* From a thread that is no shard, before shards stop: says goodbye. Waits a second at most. */
void wvm_node_membership_leave(struct wvm_node_membership *n);

/* A datagram to the control port that shares its socket; on shard 0. */
void wvm_node_membership_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data,
				  size_t len);
/* A message that came through this host's gateway, to this shard; why it was dropped. */
enum wvm_drop wvm_node_membership_relayed(struct wvm_node *node, unsigned shard,
					  const struct sockaddr_in *from, const struct wvm_msg *msg,
					  const uint8_t *payload);

/* On shard 0, for view.c: what gossip knows of a member, valid until the next input, or NULL. */
const struct wvm_gossip_peer *wvm_node_membership_peer(const struct wvm_node_membership *n,
						       uint32_t member);
/* Whether this node's part of a hand-over is not done; from learnt(), too. */
void wvm_node_membership_busy(struct wvm_node_membership *n, bool busy);
/* As wvm_membership_wish(); -ENOTCONN: who answers is not watched. */
int wvm_node_membership_wish(struct wvm_node_membership *n, const struct wvm_epoch_record *record);
/* At the start: the view's record, which may be later than what was voted. */
void wvm_node_membership_install(struct wvm_node_membership *n,
				 const struct wvm_epoch_record *record);

#endif

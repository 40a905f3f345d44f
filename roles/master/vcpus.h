/*
 * The relay of runs of remote processors (shared/PROTOCOL.md, Processors): datagrams between
 * the channels of this node's owners, its slave, and the other nodes. Each goes on by itself;
 * nothing of a run is kept, so a master that dies takes none with it. What is not for here, or
 * finds no room, is dropped and counted: the ends of the protocol try again.
 *
 * All of it is on shard 0, where the channels are. Messages of these types carry steer 0, which
 * is shard 0 of any node; one that comes to another socket is handed over.
 */
#ifndef WVM_MASTER_VCPUS_H
#define WVM_MASTER_VCPUS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/msg.h"

struct wvm_node;
struct wvm_node_shard;

/* Written by shard 0. */
struct wvm_vcpus {
	struct sockaddr_in slave; /* 127.0.0.1 and SLAVE_PORT */
	uint64_t from_owner;      /* datagrams of this node's owners that went on */
	uint64_t to_owner;        /* that came to their channels */
	uint64_t to_slave;
	uint64_t from_slave;
	uint64_t drops[WVM_DROP_REASONS]; /* by owners and on the way; the latter also in the
					   * shard's */
};

void wvm_vcpus_init(struct wvm_node *node);

/* Whether a message is of a run. */
bool wvm_vcpus_takes(const struct wvm_msg *msg);

/* One that came from the wire; the payload lies in its segment. On shard 0. */
enum wvm_drop wvm_vcpus_message(struct wvm_node_shard *s, const struct sockaddr_in *from,
				struct wvm_msg *msg, const uint8_t *payload);

/* For wvm_clients_ops: a record of an owner's channel; whether one can be sent on. */
void wvm_vcpus_record(void *ctx, uint16_t vm_id, unsigned vcpu, const uint8_t *data, size_t len);
bool wvm_vcpus_room(void *ctx);

#endif

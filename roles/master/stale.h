/*
 * Translated code of pages that others write (code.h, shared/code_area.h). A client
 * that has marked a page must know that it has changed before whoever changes it
 * gets to see his store done. So, on the page's shard:
 *
 *	A page that has left the RAM file is raised in the area of each client that has
 *	marked it. Until these have answered, what this holder says of the page to its home
 *	waits: no INVALIDATE_ACK, no WRITE_BACK, and no request either, which the home
 *	could take for an acknowledgement. To the core it is sent, and on a slow wire.
 *
 *	A program that is to be able to store to a page which another program of this node
 *	has marked does not get that now: its thread goes on waiting, and its fault
 *	is put into the core again when the others have answered.
 *
 * All that a turn of the shard raises costs a client one ring and one answer. What has no
 * room is dropped like a message that was lost: it is asked for again. A client that does
 * not answer in time is ended (clients_code.c), and what waits for it goes on then.
 *
 * The page leaves first, then the bit is looked at, for the reason given in
 * shared/client_code.c. A page that leaves for lack of memory counts like any other:
 * nobody says so when others write it later.
 *
 * All functions: the shard's thread. Without a client that translates each costs a load.
 */
#ifndef WVM_MASTER_STALE_H
#define WVM_MASTER_STALE_H

#include "ring/shard.h"
#include "shared/core/core.h"

struct wvm_code;
struct wvm_node;
struct wvm_node_shard;
struct wvm_stale;

/* Of a shard. */
struct wvm_stale_counters {
	uint64_t raised;  /* pages that a client was told of */
	uint64_t answers; /* times that one was waited for, and answered */
	uint64_t waited;  /* messages that waited for it */
	uint64_t dropped; /* of those, for lack of room */
	uint64_t writers; /* programs that waited until others had been told */
	uint64_t marks;   /* pages closed to other programs */
};

int wvm_stale_init(struct wvm_node_shard *s); /* 0 or -ENOMEM; before the start */
void wvm_stale_free(struct wvm_node_shard *s);

/* The page is out of the RAM file now. */
void wvm_stale_left(struct wvm_node_shard *s, uint32_t vm, uint64_t page);
/* Whether the message waits; else it is to be sent now. It has its page by then. */
bool wvm_stale_hold(struct wvm_node_shard *s, const struct wvm_action *a, const uint8_t *page);
/* Whether the action's waiters can be made able to store now; else they wait. */
bool wvm_stale_grant(struct wvm_node_shard *s, const struct wvm_action *a);
/*
 * Whether a FILL is to be of its page alone: its waiters have waited for that one until all were
 * told, and meanwhile a neighbour may have been marked, and closed, anew.
 */
bool wvm_stale_narrows(const struct wvm_node_shard *s, const struct wvm_action *a);
/* As wvm_stale_grant(), of a page that comes: if not, they get it protected and fault again. */
bool wvm_stale_install(struct wvm_node_shard *s, const struct wvm_action *a);

/* At the end of a turn: rings. */
void wvm_stale_turn(struct wvm_node_shard *s);

/* wvm_clients_ops. */
void wvm_stale_client(struct wvm_node_shard *s, unsigned client, struct wvm_code *code);
void wvm_stale_client_gone(struct wvm_node_shard *s, unsigned client);
void wvm_stale_told(struct wvm_node_shard *s, unsigned client);
/* On shard 0. */
void wvm_stale_mark(struct wvm_node *node, unsigned client, uint32_t vm, uint64_t page,
		    uint64_t token);

#endif

/*
 * Taking over what a killed master left (shared/PROTOCOL.md, Restart).
 *
 *	build      files as they are, cores undo what was cut short, the home's part
 *	           is taken over and serves
 *	clients    programs of the former life come back and say what they have
 *	           mapped and pinned; faults are left alone, others may not attach
 *	pages      every shard takes its part of the holder over, then wakes all who
 *	           wait: their faults come again
 *
 * Until all programs that live are back nothing is done to a page, since it
 * would have to be done in their memory, too. Whoever ends this life in
 * between leaves the files to the next one.
 */
#ifndef WVM_MASTER_ADOPT_H
#define WVM_MASTER_ADOPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/shard.h"

struct wvm_node;
struct wvm_node_shard;

/* A range that a program holds pinned. */
struct wvm_adopt_pin {
	uint64_t first, count;
	uint32_t vm;
};

struct wvm_adoption {
	bool active;            /* until all is taken over; shard 0's */
	bool told;              /* who is awaited */
	bool go;                /* atomic: clients are back, pins are collected, shards may begin */
	struct wvm_timer timer; /* looks whether they are, on shard 0 */
	uint64_t began_ns;
	unsigned pin_count;
	struct wvm_adopt_pin *pins; /* room for all that all clients may hold */
};

/* The home's part, before the shards run. 0 or -errno with a line in err. */
int wvm_adopt_home(struct wvm_node *node, char *err, size_t err_len);
/* Begins to wait for the clients. On shard 0. */
void wvm_adopt_begin(struct wvm_node *node, uint64_t now_ns);
/* Takes this shard's part over when its time has come. On the shard, before anything about pins. */
void wvm_adopt_turn(struct wvm_node_shard *s);
void wvm_adopt_free(struct wvm_node *node);

#endif

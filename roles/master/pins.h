/*
 * Pins that clients asked for: a range becomes Modified page by page, in order,
 * each page held from then on. One table per shard, for its part of the range;
 * the client's answer waits for all parts. A failed pin releases what it has.
 */
#ifndef WVM_MASTER_PINS_H
#define WVM_MASTER_PINS_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/shard.h"

#define WVM_PINS_MAX 64u /* requests under way at once; more are answered with -EAGAIN */

struct wvm_node_shard;

/* A request as shard 0 knows it, all parts together. */
struct wvm_pin_request {
	uint64_t token; /* with client: whom to answer */
	uint64_t first, count;
	uint64_t done; /* shards whose part is pinned, one bit each */
	uint32_t vm;
	unsigned client;
	unsigned left; /* shards that have not reported */
	int error;
	bool used;
};

/* One shard's part of a request; same index as the request on shard 0. */
struct wvm_pin_part {
	uint64_t first, end; /* pages of the whole range */
	uint64_t next;       /* the page that is pinned next */
	uint32_t vm;
	unsigned client;
	bool used;
	bool asked;     /* the core was asked for `next`: PINNED or FAIL follows */
	bool abandoned; /* its client is gone */
};

/*
 * Messages to other shards that wait for room: what all clients' pins can cause
 * when they die at once (64 clients, 256 ranges each), and as much again. New
 * requests are refused with -EAGAIN while more than a quarter is taken.
 */
#define WVM_PIN_LETTERS 32768u

struct wvm_pin_letter;

struct wvm_pins {
	struct wvm_pin_request requests[WVM_PINS_MAX]; /* of shard 0 */
	struct wvm_pin_part parts[WVM_PINS_MAX];
	struct wvm_timer retry; /* the core had no request slot */
	struct wvm_node_shard *shard;
	struct wvm_pin_letter *letters; /* WVM_PIN_LETTERS; NULL with one shard */
	uint32_t letters_first, letters_end;
};

/* 0 or -ENOMEM. Before the shard runs; the shard count is known. */
int wvm_pins_init(struct wvm_node_shard *s);
void wvm_pins_free(struct wvm_node_shard *s);
/* At the end of a turn: sends what waited. True while something still waits. */
bool wvm_pins_turn(struct wvm_node_shard *s);
/* Whether new requests are to be refused. */
bool wvm_pins_none(const struct wvm_node_shard *s); /* no request is under way; on shard 0 */
bool wvm_pins_busy(const struct wvm_node_shard *s);
/* A client asks for a range. On shard 0; answered by wvm_clients_reply(). */
void wvm_pins_begin(struct wvm_node_shard *shard0, unsigned client, uint32_t vm, uint64_t first,
		    uint64_t count, uint64_t token);
/* Releases a range that is pinned whole, on all shards that have a part of it. On shard 0. */
void wvm_pins_end(struct wvm_node_shard *shard0, uint32_t vm, uint64_t first, uint64_t count);
/* The core reported PINNED (error 0) or FAIL for a page. While its actions are carried out. */
void wvm_pins_page(struct wvm_node_shard *s, uint32_t vm, uint64_t page, int error);
/* A client is gone: what it asked for and did not get yet is released. */
void wvm_pins_client_gone(struct wvm_node_shard *s, unsigned client);

#endif

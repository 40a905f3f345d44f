/*
 * What the master's client files share: clients.c (the ring file, life of a
 * client), clients_lock.c (the master's lock), clients_attach.c (taking a
 * client's descriptors), clients_serve.c (its requests), clients_vcpu.c (the
 * channels of its processors), clients_code.c (those that translate code),
 * clients_shard.c (what every shard does for it).
 */
#ifndef WVM_MASTER_CLIENTS_PRIV_H
#define WVM_MASTER_CLIENTS_PRIV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ring/doorbell.h"
#include "ring/pidwatch.h"
#include "ring/post.h"
#include "ring/shard.h"
#include "ring/uffd.h"
#include "roles/master/clients.h"
#include "roles/master/code.h"
#include "shared/client_ring.h"
#include "shared/spsc.h"
#include "shared/vcpu.h"

#define PINS_MAX WVM_RING_PINS_MAX /* ranges that one client holds or asks for */

/* Notes of a shard that wait for room in shard 0's inbox. */
#define OUTBOX_MAX        4096u
/* Of those, at most so many may be about failed pages; the others are bounded by themselves. */
#define OUTBOX_ERRORS_MAX 1024u

enum client_state {
	CLIENT_FREE,
	CLIENT_JOINING, /* the shards are told of it */
	CLIENT_LIVE,
	CLIENT_MUTE,    /* it broke the rules: not heard, but its memory stays protected */
	CLIENT_LEAVING, /* the shards forget it */
};

/* What shard 0 tells every shard about a client; one at a time per client. */
enum order_kind {
	ORDER_NONE,
	ORDER_JOIN,
	ORDER_MAP,
	ORDER_UNMAP,
	ORDER_CODE,
	ORDER_MUTE,
	ORDER_LEAVE
};

struct order {
	enum order_kind kind;
	unsigned client;
	int uffd; /* JOIN: both are the shard's from here on */
	int keep;
	struct wvm_mem_map map; /* MAP, UNMAP */
	struct wvm_code *code;  /* CODE: valid until LEAVE is acknowledged */
};

/* What a shard tells shard 0. */
enum note_kind {
	NOTE_ACK,
	NOTE_DYING,
	NOTE_BROKEN,
	NOTE_REPLY,
	NOTE_ERROR,
	NOTE_CODE,
	NOTE_CODE_LATE
};

struct note {
	enum note_kind kind;
	unsigned client;
	uint64_t token; /* REPLY */
	int64_t result; /* ACK, REPLY */
	struct wvm_ring_error error;
};

/* An order in progress. */
struct order_run {
	struct order order;
	uint64_t unposted, unacked; /* masks of shards */
	int64_t result;             /* the first failure */
	uint64_t token;             /* the request to answer, 0: none */
};

/* A request whose answer the node's glue owes. */
struct owed {
	uint64_t token; /* ours: serial << 8 | index + 1; 0: free */
	uint64_t theirs;
	struct pin *pin; /* PIN: the entry it makes */
};

enum pin_state { PIN_FREE, PIN_ASKED, PIN_CANCELLED, PIN_HELD };

struct pin {
	enum pin_state state;
	uint16_t vm_index;
	uint16_t nested; /* HELD: times beyond the first */
	uint64_t first, count;
};

/* Written by shard 0's thread only. */
struct client {
	struct wvm_clients *all;
	unsigned index;
	enum client_state state;
	uint64_t claim; /* the last claim of this slot that was looked at */
	pid_t pid;
	pid_t awaited; /* the process that had the slot when we began, until it is back or gone */
	bool back;     /* it has said all that it had mapped and pinned */
	bool attached, want_leave, muted;
	struct wvm_pidwatch watch;
	struct wvm_doorbell in, out;
	bool watch_open, in_open, out_open;
	uint8_t *channel; /* the client's memfd */
	struct wvm_spsc_rx rx;
	struct wvm_spsc_tx tx;
	struct order_run run;
	int uffd[WVM_RING_SHARDS_MAX]; /* JOIN: taken, on their way to the shards; -1 after */
	int keep[WVM_RING_SHARDS_MAX];
	struct wvm_code *code; /* NULL: it translates none */
	uint64_t code_waits;   /* shards that are to look when it answers */
	bool code_late;
	unsigned owed_count;
	struct owed owed[WVM_RING_CALLS_MAX];
	struct pin pins[PINS_MAX];
};

enum vcpu_state { VCPU_FREE, VCPU_OPEN, VCPU_CLOSING };

/*
 * The channel of a processor that runs elsewhere. All of them are on shard 0, where their
 * clients come and go: so nothing has to be handed over, and a datagram costs it a few us.
 */
struct vcpu_channel {
	struct wvm_clients *all;
	enum vcpu_state state;
	unsigned client;
	uint16_t vm_index, vm_id, vcpu;
	struct wvm_doorbell in, out;
	bool in_open, out_open;
	uint8_t *mem; /* the memfd */
	struct wvm_spsc_rx rx;
	struct wvm_spsc_tx tx;
};

#define VCPU_CHANNELS (WVM_CLIENTS_VCPUS + WVM_CLIENTS_VCPUS_CLOSING)

struct vcpu_channels {
	struct vcpu_channel list[VCPU_CHANNELS];
	uint16_t at[WVM_RING_VMS_MAX][WVM_VCPU_MAX]; /* index in the list + 1; 0: closed */
	unsigned open;
	struct wvm_task task; /* those that were not read to their end */
	uint64_t again[(VCPU_CHANNELS + 63) / 64];
	unsigned first;                                            /* of them, in the next turn */
	uint8_t record[sizeof(struct wvm_msg) + WVM_DATAGRAM_MAX]; /* being taken */
};

/* One shard's part; written by its thread only. */
struct side {
	struct wvm_clients *all;
	struct wvm_shard *shard;
	unsigned index;
	uint64_t joined;     /* clients in this shard's table */
	uint64_t reading;    /* of whose uffd events may come or its close is awaited */
	uint64_t leaving;    /* acknowledge when reading ends */
	uint64_t broken;     /* reported */
	uint64_t code_noted; /* NOTE_CODE is in the outbox */
	struct wvm_uffd uffd[WVM_CLIENTS_MAX];
	int keep[WVM_CLIENTS_MAX]; /* a second descriptor: mem.c's, as long as the mm may live */
	struct wvm_task task;      /* sends the outbox */
	uint32_t head, tail, errors;
	uint64_t faults_read[WVM_CLIENTS_MAX], faults_write[WVM_CLIENTS_MAX];
	uint64_t faults_failed[WVM_CLIENTS_MAX];
	struct wvm_clients_counters counters;
	struct note outbox[OUTBOX_MAX];
};

struct wvm_clients {
	struct wvm_clients_conf conf;
	char path[4096];
	int fd; /* the ring file */
	struct header_lock *lock;
	unsigned shards;
	struct wvm_shard *shard0;
	struct wvm_ring_header header; /* our copy; the file's is never read back */
	struct wvm_doorbell knock;     /* inotify on the ring file */
	bool knock_open;
	struct wvm_task task; /* work that is to be looked at again */
	uint64_t retry_orders, retry_serve, retry_code;
	bool retry_scan;
	bool adopting; /* only clients of former lives are heard, until all of them are back */
	uint64_t serial;
	uint8_t body[WVM_CHANNEL_CAPACITY / 2];      /* a message being taken */
	struct wvm_ring_slot slots[WVM_CLIENTS_MAX]; /* a copy, while scanning */
	struct client client[WVM_CLIENTS_MAX];
	struct vcpu_channels vcpus;
	struct side *side[WVM_RING_SHARDS_MAX];
};

/* clients.c */
void wvm_clients_log(struct wvm_clients *all, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void wvm_client_answer(struct client *cl, int result);
void wvm_client_leave(struct client *cl);
void wvm_client_break(struct client *cl, const char *why);
void wvm_client_order(struct client *cl, enum order_kind kind, const struct wvm_mem_map *map,
		      uint64_t token);
void wvm_client_settle(struct client *cl); /* frees it when nothing is owed any more */
void wvm_client_serve_later(struct client *cl);
void wvm_clients_note(struct wvm_clients *all, unsigned shard, const struct note *n);

/* clients_lock.c: the master's lock on the ring file, which says that it lives */
struct header_lock;
/* 0; -EADDRINUSE and *owner: the process that has it; -errno. */
int wvm_header_lock(struct header_lock **out, int fd, pid_t *owner);
void wvm_header_unlock(struct header_lock *l);

/* clients_attach.c: takes and checks what the claim names; 0 or -errno, logged. */
int wvm_client_take(struct client *cl, const struct wvm_ring_claim *claim);
/* A descriptor of the client's, or -errno. */
int wvm_client_take_fd(struct client *cl, int pidfd, int theirs, int *fd);
/* Closes one that turned out to be of no use; *fd becomes -1, which is allowed. */
void wvm_client_discard(struct client *cl, int *fd);
bool wvm_fd_is_eventfd(int fd);
/* Maps a memfd with two rings, the one to the master first. 0 or -errno. */
struct channel_shape {
	size_t ring_bytes;
	uint32_t capacity;
	size_t more_bytes; /* behind the rings */
};
int wvm_channel_map(int fd, const struct channel_shape *shape, uint8_t **mem,
		    struct wvm_spsc_rx *rx, struct wvm_spsc_tx *tx);
/* The process that holds the slot's lock, 0 if none. */
pid_t wvm_slot_owner(struct wvm_clients *all, unsigned slot);
/* Whether a uffd's address space still has users. */
bool wvm_mm_alive(int uffd);

/* clients_serve.c */
void wvm_client_serve(struct client *cl);
void wvm_client_reply(struct client *cl, uint64_t token, int64_t result, const void *data,
		      uint32_t len);
void wvm_client_glue_replied(struct client *cl, uint64_t token, int64_t result);
void wvm_client_send_error(struct client *cl, const struct wvm_ring_error *e);
/* What finds no room is lost: who has given it asks what became of it, and it is sent again. */
void wvm_client_send_order(struct client *cl, const struct wvm_ring_order *o);
void wvm_client_drop_pins(struct client *cl);

/* clients_vcpu.c: the channels of processors */
void wvm_clients_vcpus_init(struct wvm_clients *all);
void wvm_clients_vcpus_free(struct wvm_clients *all);
/* 0, and then *info for the reply; or -errno. */
int wvm_client_vcpu_open(struct client *cl, const struct wvm_ring_req *r,
			 struct wvm_ring_vcpu *info);
int wvm_client_vcpu_close(struct client *cl, const struct wvm_ring_req *r);
/* All that the client has. */
void wvm_client_vcpus_close(struct client *cl);
/* clients_code.c */
void wvm_client_code(struct client *cl, const struct wvm_ring_req *r);
void wvm_client_code_drop(struct client *cl);
void wvm_client_code_bell(struct client *cl);
void wvm_client_code_raised(struct client *cl, unsigned shard);
void wvm_client_code_late(struct client *cl);
/* A client has come or gone. */
void wvm_clients_others(struct wvm_clients *all);

/* clients_shard.c */
int wvm_side_new(struct wvm_clients *all, unsigned index);
void wvm_side_free(struct side *s);
int wvm_side_post(struct client *cl, unsigned shard);
void wvm_side_note(struct side *s, const struct note *n);

#endif

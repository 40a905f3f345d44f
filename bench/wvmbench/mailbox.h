/*
 * How the measuring program tells its peers on other nodes what to do: through
 * the cluster memory that it measures. The last pages of the VM are the mailbox,
 * so the same peer works on this machine and on any other host of the cluster,
 * and nothing else has to connect them.
 *
 *   page 0        the command: written by the measuring program
 *   page 1        how far each node's memory is used up: written by the same
 *   page 1 + k    the answers of peer k, 1 .. MAILBOX_PEERS
 *
 * A record is complete when its sequence number, stored last, has changed;
 * the memory model (x86-TSO across nodes) does the rest.
 */
#ifndef WVMBENCH_MAILBOX_H
#define WVMBENCH_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAILBOX_PAGES 16u
#define MAILBOX_PEERS 14u
#define MAILBOX_SPANS 240u
#define MAILBOX_NODES 64u /* nodes whose memory a VM's benchmarks may use up */

enum mailbox_op {
	MAILBOX_HELLO = 1, /* answer with the node's id */
	MAILBOX_WRITE,     /* fill the spans with the pattern of a generation */
	MAILBOX_READ,      /* read the spans and count the words that are not that pattern */
	MAILBOX_QUIT,
};

struct mailbox_span {
	uint64_t first; /* page number in the VM */
	uint64_t pages;
};

struct mailbox_command {
	uint64_t session, seq; /* seq: stored last */
	uint32_t op, slot;     /* slot: the peer that is meant */
	uint64_t generation;
	uint32_t n_spans, unused;
	struct mailbox_span span[MAILBOX_SPANS];
};

struct mailbox_reply {
	uint64_t session, seq; /* of the command that is answered; seq: stored last */
	uint64_t errors;       /* words that were wrong */
	int64_t node;          /* the peer's node id */
};

/* Page 1. Zero: an entry not in use. */
struct mailbox_use {
	struct {
		uint64_t node_plus_1;
		uint64_t next_unit; /* units below this one are used up */
	} entry[MAILBOX_NODES];
};

struct mailbox {
	struct mailbox_command *command;
	struct mailbox_use *use;
	struct mailbox_reply *reply[MAILBOX_PEERS + 1]; /* from 1 */
	uint64_t session, seq; /* measuring side: of the last command; peer: of the last handled */
};

/* mem: MAILBOX_PAGES pages. Reads no page yet. */
void mailbox_init(struct mailbox *m, void *mem);

/* Measuring side: begins a session, whose number is random and not 0. */
void mailbox_begin(struct mailbox *m, uint64_t session);

/*
 * Gives a command to peer slot and waits for the answer. 0 with *reply, -EINVAL (slot,
 * number of spans), -ETIMEDOUT.
 */
int mailbox_call(struct mailbox *m, unsigned slot, enum mailbox_op op, uint64_t generation,
		 const struct mailbox_span *span, unsigned n_spans, unsigned timeout_ms,
		 struct mailbox_reply *reply);

/* Where the units of a node that are not used up begin; NULL: too many nodes. */
uint64_t *mailbox_next_unit(struct mailbox *m, unsigned node);

/*
 * Takes n units in a row of which none is used up, whatever their homes are, and all that lie
 * before them. 0 with *first, -ENOSPC (there are no n below limit, or too many nodes).
 */
int mailbox_take_units(struct mailbox *m, uint64_t n, uint64_t limit, uint64_t *first);

/* Peer: takes what is there now as handled; without this an old command would be carried out. */
void mailbox_join(struct mailbox *m);

/* Peer: whether there is a new command for slot; if so it is copied to *command. */
bool mailbox_take(struct mailbox *m, unsigned slot, struct mailbox_command *command);

/* Peer: answers the command taken last. */
void mailbox_answer(struct mailbox *m, unsigned slot, int node, uint64_t errors);

#endif

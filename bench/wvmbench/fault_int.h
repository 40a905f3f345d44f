/* What fault.c and explain.c share: the cluster that is measured, and its peers. */
#ifndef WVMBENCH_FAULT_INT_H
#define WVMBENCH_FAULT_INT_H

#include <sys/types.h>

#include "bench/wvmbench/attach.h"
#include "bench/wvmbench/fault.h"
#include "bench/wvmbench/plan.h"
#include "bench/wvmbench/result.h"

struct bench {
	const struct fault_options *o;
	struct attached a;
	pid_t child[MAILBOX_PEERS + 1];
	int peer_node[MAILBOX_PEERS + 1];
	unsigned third; /* slot of a peer on a node other than that of peer 1; 0: none */
	uint64_t generation;
	struct results ours, floor;
};

/* Has a peer write or read the pages of a set. 0, or -errno with a line. */
int fault_call(struct bench *b, unsigned slot, enum mailbox_op op, struct plan_set *set);

/* Takes o->pages fresh pages whose home is a node. 0, or -errno with a line. */
int fault_take(struct bench *b, struct plan_set *set, int node);

#endif

/* `wvmbench fault`: latency and rate of page faults on a running cluster. */
#ifndef WVMBENCH_FAULT_H
#define WVMBENCH_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/wvmbench/mailbox.h"
#include "shared/wavevm.h"

#define FAULT_LISTS 64u

struct fault_options {
	const char *ring;
	uint16_t vm_id;
	const char *peer_ring[MAILBOX_PEERS]; /* peers to start here, slots from 1 */
	unsigned n_peer_rings;
	unsigned peers;        /* peers in all: those and ones that run elsewhere */
	int core[FAULT_LISTS]; /* of the touching threads, dealt in turn */
	unsigned n_cores;
	int peer_core[FAULT_LISTS];
	unsigned n_peer_cores;
	unsigned threads[FAULT_LISTS]; /* numbers of threads to measure with */
	unsigned n_threads;
	uint64_t pages; /* per phase and round, all threads together */
	unsigned rounds;
	bool floor;                /* measure wvm_floor in turn */
	const char *floor_program; /* NULL: beside this program */
	const char *floor_arguments;
	const char *layout; /* its name in the report */
	const char *json;   /* write JSON there; "-": standard output, and nothing else */
	bool histogram;
	bool explain;             /* instead of all else: where the time of remote reads goes */
	const char *explain_svg;  /* and as SVG there; NULL: not */
	int control[FAULT_LISTS]; /* control ports: this node's, then the peers' */
	unsigned n_control;       /* 0: 9001, 9011, 9021 and so on */
};

/*
 * Whether a phase measured what its name says: of its accesses at least 90 % were faults of that
 * kind that asked a home (read-ahead may have been there before a few). 0, or -EBADMSG with a line.
 */
int fault_expect_asked(const char *name, bool write, uint64_t pages, const struct wvm_stats *from,
		       const struct wvm_stats *to);

/* Returns the exit status. */
int fault_main(const struct fault_options *o);

#endif

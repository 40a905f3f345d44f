/*
 * The exhaustive check: every order in which the real core's inputs can come,
 * for one page on two or three nodes, breadth first, until no new state turns
 * up. What the simulator samples is complete here, within the bounds below.
 *
 * A step is one input to one node's core: a program's access, the delivery of
 * any message under way (in any order, so reordering is free), a timer. Time
 * itself is left out: any armed timer may strike next, and a hold time that is
 * looked at is over or is not, both ways. States are the core's own structs,
 * with request ids and versions renamed by order: the core compares them, and
 * never counts with them, so the endless runs of a cluster are finitely many
 * states.
 */
#ifndef WVM_EXPLORE_H
#define WVM_EXPLORE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define EX_NODES_MAX    3u
#define EX_PROGRAMS_MAX 2u

struct explore_config {
	uint32_t nodes;       /* 2 or 3; node 0 is the page's home */
	uint32_t programs;    /* per node, 1 or 2, of one thread each */
	uint32_t outstanding; /* accesses that wait at the same time, at most */
	uint32_t accesses;    /* that miss, in all; 0: any number */
	/*
	 * No access begins while so many messages are under way or more: else late
	 * copies could pile up for ever behind nodes that go on.
	 */
	uint32_t under_way;
	uint32_t losses;     /* messages lost, in all */
	uint32_t duplicates; /* messages delivered twice, in all */
	/*
	 * Retries by timer while any message is under way, in all. Once nothing is
	 * under way every timer strikes as often as it likes.
	 */
	uint32_t retries;
	uint32_t deadlines;  /* requests or transactions given up at their deadline, in all */
	bool units;          /* nodes ask for the whole unit, of which the page is all there is */
	bool merge;          /* and put it together again */
	uint32_t evictions;  /* pages given up for lack of memory, in all */
	bool bytes_only;     /* check only what programs notice: wrong bytes, waiting for ever */
	uint64_t states_max; /* then it ends without having reached the fixed point */
	uint64_t memory_max; /* bytes; likewise */
	FILE *trace;         /* where the path to a violation is written, or NULL */
};

struct explore_report {
	uint64_t states, transitions;
	uint64_t bytes; /* of memory for the states */
	uint32_t depth;
	bool fixed_point;    /* all reachable states were seen */
	uint64_t violations; /* 0 or 1: it ends at the first */
	uint64_t complete;   /* states in which nothing is left to be done */
	uint64_t traps;      /* states from which no such state is reachable any more */
	double seconds;
	char violation[256];
};

/* 3 nodes of one program, 3 accesses outstanding, one loss, duplicate and early retry. */
void explore_default(struct explore_config *config);

/*
 * Explores. Returns 0, or -EINVAL for a configuration out of range, -ENOMEM.
 * One thread at a time; it defines wvm_core_panic(), so that an assertion of
 * the core is a violation like any other.
 */
int explore(const struct explore_config *config, struct explore_report *report);

/*
 * The test of the renaming and leaving out: one random run of `steps` inputs to
 * cores that keep all they know, beside the same inputs to cores that are
 * restored from the renamed state before every step. Returns the steps made;
 * fewer than asked for: the two came apart (or a violation), report->violation says how.
 */
uint64_t explore_compare(const struct explore_config *config, uint64_t seed, uint64_t steps,
			 struct explore_report *report);

#endif

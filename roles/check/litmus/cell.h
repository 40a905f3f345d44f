/*
 * One line of the litmus table: a test, with its variables placed in one way
 * and its threads on certain nodes, run many times.
 *
 * Each thread is a program of its own that is attached to its node's master.
 * Runs are made in batches as litmus7 does it: many instances of the variables
 * lie in the same few pages, all threads walk through the instances between
 * two meetings, with delays that let the pages move between nodes meanwhile.
 * Programs meet through ordinary memory, never through that under test. A
 * batch is reset, and its outcomes are collected, by one of the programs, each
 * time another.
 */
#ifndef WVM_LITMUS_CELL_H
#define WVM_LITMUS_CELL_H

#include "roles/check/litmus/litmus.h"

#define LITMUS_NODES   4u
#define LITMUS_WORKERS 6u
#define LITMUS_POOL    16u /* pages per home that the variables move about in */
#define LITMUS_NOTES   4u

enum litmus_placement {
	LITMUS_ONE_PAGE,
	LITMUS_ONE_HOME, /* each variable on its own page, all of one home */
	LITMUS_HOMES,    /* each on a page of another home */
	LITMUS_PLACEMENTS
};

/* What is under test; all but the first are here to see whether a fault would be noticed. */
enum litmus_memory {
	LITMUS_WAVEVM,
	LITMUS_PLAIN,      /* memory of this machine: the processors' own TSO */
	LITMUS_DISORDERED, /* the same, by threads that keep no order: no test's promises hold */
	LITMUS_LAZY,       /* a copy per node; another program carries stores over, in any order */
};

struct litmus_pool {
	unsigned homes;
	uint32_t page[LITMUS_NODES][LITMUS_POOL];
};

struct litmus_cell {
	const struct litmus_test *test;
	enum litmus_placement placement;
	enum litmus_memory memory;
	const char *ring[LITMUS_NODES]; /* LITMUS_WAVEVM: of the masters */
	uint16_t vm_id;
	uint64_t vm_bytes;
	struct litmus_pool pool;
	/* The first `threads` of them run the test, the others only make pages move. */
	unsigned workers;
	uint8_t node[LITMUS_WORKERS];
	bool shuffle;      /* ... or each batch deals the parts anew */
	uint64_t delay_us; /* the longest between two instances or accesses */
	uint64_t runs, seed;
	unsigned hang_s; /* a batch that takes longer is an error */
};

struct litmus_result {
	uint64_t runs; /* what was asked for, rounded up to whole batches */
	uint64_t batches;
	uint64_t count[LITMUS_OUTCOMES];
	struct litmus_set allowed, sequential, serial;
	uint64_t forbidden; /* runs whose outcome is not allowed */
	uint64_t relaxed;   /* runs whose outcome is allowed, but not sequentially consistent */
	uint64_t raced;     /* runs whose outcome shows that the threads met in the middle */
	uint64_t asked;     /* runs whose outcome is the one that the literature asks about */
	unsigned seen;      /* different outcomes, allowed ones */
	unsigned late_ms;   /* the longest that a program was not given a processor, as far as it
			       noticed */
	unsigned notes;
	char note[LITMUS_NOTES][256]; /* the first forbidden runs, with all there is to know */
};

const char *litmus_placement_name(enum litmus_placement p);

/*
 * Runs a cell. 0, or -errno with one line in err: a program failed, or a batch
 * hung; the result then holds what was counted until then. Programs that it
 * started are gone when it returns.
 */
int litmus_run(const struct litmus_cell *c, struct litmus_result *r, char *err, size_t err_len);

#endif

/* The programs of a cell, and the ordinary memory that they share with the one that started them.
 */
#ifndef WVM_LITMUS_WORKER_H
#define WVM_LITMUS_WORKER_H

#include <stdatomic.h>
#include <sys/types.h>

#include "roles/check/litmus/cell.h"
#include "roles/check/litmus/plan.h"

#define WORKER_PAGE 4096u

enum worker_phase {
	WORKER_STARTS,
	WORKER_KEEPS,
	WORKER_MEETS,
	WORKER_RUNS,
	WORKER_ENDS,
};

struct worker_place {
	atomic_uint phase, visited; /* instances of this batch */
} __attribute__((aligned(64)));

struct board {
	const struct litmus_cell *cell;
	struct litmus_set allowed;
	uint64_t batches;

	atomic_int failed;
	char text[256];             /* the first failure */
	atomic_uint arrived, turns; /* of the meetings */
	atomic_uint late_ms;        /* the longest that a short sleep took */
	atomic_uint done;           /* threads of this batch that are through */
	atomic_ullong batch, start_tsc;
	struct worker_place place[LITMUS_WORKERS];

	uint64_t reg[PLAN_WORDS][LITMUS_REGS]; /* as loaded, of this batch */
	uint64_t count[LITMUS_OUTCOMES];
	unsigned notes;
	char note[LITMUS_NOTES][256];

	/* Memory that is not WaveVM's: a copy for each node, or only the first. */
	uint64_t shadow[LITMUS_NODES * LITMUS_POOL][WORKER_PAGE / 8];
	uint64_t copy[LITMUS_NODES][LITMUS_NODES * LITMUS_POOL][WORKER_PAGE / 8];
};

/* The whole life of program `self`, which does not outlive its parent; does not return. */
__attribute__((noreturn)) void worker_main(struct board *b, unsigned self, pid_t parent);

#endif

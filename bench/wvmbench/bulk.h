/*
 * The benchmarks of memory in bulk: one option set, one way to alternate with what
 * each is compared with, one form of result.
 */
#ifndef WVMBENCH_BULK_H
#define WVMBENCH_BULK_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/wvmbench/attach.h"
#include "bench/wvmbench/series.h"
#include "bench/wvmbench/usage.h"

#define BULK_NODES 16u
#define BULK_CORES 64u

struct bulk_options {
	const char *ring;
	uint16_t vm_id;
	uint64_t mib; /* of memory in a round */
	unsigned rounds;
	unsigned seconds;      /* a round may take about so long: less memory then; 0: as long as it
				  takes */
	int core;              /* of the measuring thread; -1: not pinned */
	unsigned threads;      /* that touch, where there are several */
	int cores[BULK_CORES]; /* of these, dealt in turn */
	unsigned n_cores;      /* 0: not pinned */
	const char *peer_ring; /* another node's master, where a peer is started */
	int peer_core;         /* -1: not pinned */
	const char *floor_program; /* NULL: beside this program */
	const char *floor_arguments;
	struct usage_node node[BULK_NODES]; /* masters of this machine, that of ring first */
	unsigned n_nodes;
	const char *layout; /* its name in the report */
	const char *json;   /* write JSON there; "-": standard output, and nothing else */
};

struct bulk;
const struct bulk *bulk_find(const char *name);

/* Parses the command line, whose argv[0] is the command, and runs it. Returns the exit status. */
int bulk_command(const struct bulk *b, int argc, char **argv);

/* The commands. *out: to be filled and reported by the caller. 0 or -errno, having said why. */
int first_run(const struct bulk_options *o, struct attached *a, struct series_set *out);
int stream_run(const struct bulk_options *o, struct attached *a, struct series_set *out);
int local_run(const struct bulk_options *o, struct attached *a, struct series_set *out);
int rate_run(const struct bulk_options *o, struct attached *a, struct series_set *out);
int capacity_run(const struct bulk_options *o, struct attached *a, struct series_set *out);

/*
 * Takes n units in a row, before the mailbox, that no run has used yet. 0 with *first, or
 * -ENOSPC with a line that says what to do.
 */
int bulk_take_units(struct attached *a, uint64_t n, uint64_t *first);

/*
 * How many MiB a round may use when `copies` times as much has to fit what is available of this
 * machine's memory: wanted or less, which is then said. 0: not even a unit.
 */
uint64_t bulk_fit(uint64_t wanted_mib, unsigned copies);

/*
 * The same for o->seconds, where warm_mib took warm_ns: everything that is done for a round, with
 * what is not measured.
 */
uint64_t bulk_fit_time(const struct bulk_options *o, uint64_t mib, uint64_t warm_mib,
		       uint64_t warm_ns);

/* A private RAM file of that size, mapped as WaveVM maps its own; NULL with a line. */
uint64_t *bulk_plain_map(uint64_t bytes);

/* Makes the compiler compute a value that nobody looks at. */
static inline void bulk_use(uint64_t value)
{
	__asm__ volatile("" : : "r"(value) : "memory");
}

/*
 * Prints a command's figures, and writes them as JSON where `json` says (NULL: not; "-": to
 * standard output, and nothing else). 0 or -EIO with a line.
 */
int bulk_write(const char *name, const char *layout, const char *json,
	       const struct series_set *set);

/* CLOCK_MONOTONIC, ns. */
uint64_t bulk_now(void);

#endif

/* A master's trace of faults and its counts of system calls, by its control port on this host. */
#ifndef WVMBENCH_TRACER_H
#define WVMBENCH_TRACER_H

#include "bench/wvmbench/bars.h"
#include "bench/wvmbench/join.h"

#define TRACER_SHARDS 64u

struct tracer {
	uint16_t port, vm_id;
	unsigned shards;
	uint64_t from[TRACER_SHARDS]; /* number of the first stamp that is ours */
	struct trace trace;
	bool lost; /* stamps had been overwritten before they were collected */
};

/*
 * The master at a control port, which must be that of node `node` with this ring file (NULL:
 * whatever it has), and have this program's clock. 0, or -errno with one line on standard error.
 */
int tracer_open(struct tracer *t, uint16_t port, uint16_t vm_id, int node, const char *ring);
void tracer_close(struct tracer *t);

/* Switches the trace on, and off again, each with the calls made so far. The same results. */
int tracer_begin(struct tracer *t, struct call_counts *calls);
int tracer_end(struct tracer *t, struct call_counts *calls);

/* Fills t->trace with the stamps made since tracer_begin(), in order. */
int tracer_collect(struct tracer *t);

/* What tracer_collect() adds of one answer: stamps of a VM. 0, -EBADMSG, -ENOMEM. */
int tracer_parse(struct trace *out, const char *json, uint16_t shard, uint16_t vm_id,
		 uint64_t *first, uint64_t *next);

#endif

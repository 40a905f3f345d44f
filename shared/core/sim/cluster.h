/*
 * A cluster in one thread: N nodes of the real core, virtual time, a network
 * that loses, doubles, reorders and delays, programs that read and write. One
 * seed decides everything, so a failure is replayed by its seed.
 *
 * The memory of a node is modelled as the kernel keeps it: pages that are in
 * the RAM file, and for each program whether a store to the page traps. There
 * is one true value per word, written by every store at its instant; a load
 * that returns anything else is a failure. That is per-page linearizability,
 * and stronger than what the guest is promised.
 */
#ifndef WVM_SIM_CLUSTER_H
#define WVM_SIM_CLUSTER_H

#include <stdio.h>

#include "shared/core/core.h"

#define SIM_NODES_MAX   16u
#define SIM_CLIENTS_MAX 4u
#define SIM_THREADS_MAX 64u
#define SIM_PAGES_MAX   1024u
#define SIM_WORDS       4u /* of a page that programs use, one in each segment of it */

struct sim_config {
	uint64_t seed;
	uint32_t nodes;
	uint32_t clients; /* programs per node */
	uint32_t threads; /* per program */
	uint32_t pages;
	uint32_t loss_ppm, duplicate_ppm, reorder_ppm;
	uint64_t delay_ns;   /* of every message, at least */
	uint64_t reorder_ns; /* more for those that are overtaken */
	uint64_t think_ns;   /* mean time between two accesses of a thread */
	uint32_t write_ppm;  /* accesses that store; half of them read first */
	uint32_t pin_ppm;    /* accesses that pin the page for a while */
	uint32_t pages_hot;  /* most accesses go to this many pages; 0: all alike */
	struct wvm_core_limits limits;
	struct wvm_core_times times;
	FILE *trace; /* a line per event, or NULL */
};

struct sim;

/* A configuration that works, with mild disorder. */
void sim_default(struct sim_config *config, uint64_t seed);

struct sim *sim_create(const struct sim_config *config);
void sim_destroy(struct sim *sim);

/* Runs until `accesses` were made or the first failure. Returns the core inputs made. */
uint64_t sim_run(struct sim *sim, uint64_t accesses);

/* Lets all threads finish what they wait for, without new accesses, for up to ns of virtual time.
 */
void sim_settle(struct sim *sim, uint64_t ns);

/* Cuts or restores all traffic of a node. */
void sim_partition(struct sim *sim, uint32_t node, bool cut);

struct sim_report {
	const char *failure; /* NULL: none; else one line */
	uint64_t now_ns;
	uint64_t steps; /* inputs to cores */
	uint64_t accesses, faults, failed_faults;
	uint64_t messages, lost, doubled, overtaken;
	uint64_t accesses_min, accesses_max; /* of any one thread */
	uint64_t wait_ns_max;                /* the longest that a thread waited for a page */
	uint32_t waiting;                    /* threads that wait now */
};
void sim_report(const struct sim *sim, struct sim_report *report);

const struct wvm_core_stats *sim_stats(const struct sim *sim, uint32_t node);

#endif

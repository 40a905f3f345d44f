/*
 * Placement: which processing unit (PU) each shard is pinned to, and which
 * NUMA node its memory comes from. Computed with hwloc, applied with
 * sched_setaffinity and libnuma, so no daemon needs numactl around it.
 *
 * Only PUs that the process may use count (affinity mask and cgroup cpuset).
 * With HWLOC_SYNTHETIC or HWLOC_XMLFILE in the environment the placement is
 * computed for that topology and not applied.
 */
#ifndef WVM_RING_PLACE_H
#define WVM_RING_PLACE_H

#include <stdbool.h>
#include <stddef.h>

#define WVM_PLACE_MAX 1024 /* PUs considered */

struct wvm_place {
	int pu;       /* OS index of the PU, -1: not pinned */
	int core;     /* hwloc logical index of its core */
	int node;     /* OS index of its NUMA node, -1: unknown */
	bool crowded; /* another shard, or (wvm_claim()) process, was on its PU before */
	bool real;    /* the topology is this machine's, so it can be applied */
};

/*
 * Places n shards (1 to WVM_PLACE_MAX). list is an explicit list of PU numbers
 * as taskset(1) takes it ("0,2-3"), shard i gets the i-th, beginning again when
 * there are fewer; NULL or "" lets hwloc choose: spread over NUMA nodes in
 * proportion to their PUs, one PU per core before second hardware threads,
 * begun again when n exceeds the PUs. Deterministic for a given topology.
 * Returns 0, or -errno with one line in why:
 *   -EINVAL   list malformed, n out of range
 *   -ENODEV   a PU of the list does not exist or may not be used
 *   -EIO      hwloc cannot read the topology
 */
int wvm_place_compute(struct wvm_place *out, unsigned n, const char *list, char *why,
		      size_t why_len);

/*
 * Writes one line per shard, "shard 0: cpu 2, core 1, NUMA node 0\n", with
 * ", shared" or ", not applied" appended where so. Always terminates buf;
 * returns the length without the terminator, cut to len - 1.
 */
size_t wvm_place_print(const struct wvm_place *p, unsigned n, char *buf, size_t len);

/*
 * Pins the calling thread and prefers its node for memory it touches from now
 * on. Preferred, not strict: a full node gives slower memory, not the OOM
 * killer. Does nothing for pu -1 and for a topology that is not this machine's.
 * Returns 0 or -errno.
 */
int wvm_place_apply(const struct wvm_place *p);

/* Prefers p's node for [addr, addr + len), page aligned, before its first touch. 0 or -errno. */
int wvm_place_memory(const struct wvm_place *p, void *addr, size_t len);

/* Whether two placements would run on one PU: then neither may spin for the other. */
bool wvm_place_same_pu(const struct wvm_place *a, const struct wvm_place *b);

/* PUs that the process may use. At least 1. */
unsigned wvm_place_pus(void);

/*
 * Number of PUs worth using: those the process may use, cut by the cgroup's
 * cpu.max quota (rounded up, all ancestors considered). At least 1.
 */
unsigned wvm_place_cores(void);

#endif

#include "ring/place.h"

#include <ctype.h>
#include <errno.h>
#include <hwloc.h>
#include <limits.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The machine's topology cut to what this process may use. */
static int load_topology(hwloc_topology_t *out)
{
	hwloc_topology_t topo;
	hwloc_bitmap_t mine;
	int err = -EIO;

	if (hwloc_topology_init(&topo))
		return -EIO;
	if (hwloc_topology_load(topo))
		goto destroy;
	mine = hwloc_bitmap_alloc();
	if (!mine)
		goto destroy;
	if (hwloc_topology_is_thissystem(topo) &&
	    (hwloc_get_cpubind(topo, mine, HWLOC_CPUBIND_THREAD) ||
	     hwloc_topology_restrict(topo, mine, 0)))
		goto free_bitmap;
	hwloc_bitmap_free(mine);
	*out = topo;
	return 0;
free_bitmap:
	hwloc_bitmap_free(mine);
destroy:
	hwloc_topology_destroy(topo);
	return err;
}

/* Parses "0,2-3" into pus; returns their number or -EINVAL. */
static int parse_list(const char *list, unsigned *pus, unsigned max)
{
	unsigned n = 0;
	const char *p = list;

	for (;;) {
		unsigned long first, last;
		char *end;

		if (!isdigit((unsigned char)*p))
			return -EINVAL;
		first = last = strtoul(p, &end, 10);
		if (*end == '-') {
			if (!isdigit((unsigned char)end[1]))
				return -EINVAL;
			last = strtoul(end + 1, &end, 10);
		}
		if (last < first || last > INT_MAX || last - first >= max - n)
			return -EINVAL;
		for (; first <= last; first++)
			pus[n++] = (unsigned)first;
		if (!*end)
			return (int)n;
		if (*end != ',')
			return -EINVAL;
		p = end + 1;
	}
}

static void fill(struct wvm_place *p, hwloc_topology_t topo, hwloc_obj_t pu)
{
	hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(topo, HWLOC_OBJ_CORE, pu);
	hwloc_obj_t node = NULL;

	p->pu = (int)pu->os_index;
	p->core = (int)(core ? core->logical_index : pu->logical_index);
	p->node = -1;
	while ((node = hwloc_get_next_obj_by_type(topo, HWLOC_OBJ_NUMANODE, node)))
		if (hwloc_bitmap_isincluded(pu->cpuset, node->cpuset)) {
			p->node = (int)node->os_index;
			break;
		}
	p->real = hwloc_topology_is_thissystem(topo) != 0;
}

static int place_listed(struct wvm_place *out, unsigned n, const char *list, hwloc_topology_t topo,
			char *why, size_t why_len)
{
	unsigned pus[WVM_PLACE_MAX];
	int count = parse_list(list, pus, WVM_PLACE_MAX);

	if (count < 0) {
		snprintf(why, why_len, "cpu list \"%s\": expected numbers and ranges, as 0,2-3",
			 list);
		return -EINVAL;
	}
	for (unsigned i = 0; i < n; i++) {
		hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(topo, pus[i % (unsigned)count]);

		if (!pu) {
			snprintf(why, why_len,
				 "cpu list \"%s\": cpu %u does not exist or may not be used here "
				 "(affinity mask, cgroup cpuset)",
				 list, pus[i % (unsigned)count]);
			return -ENODEV;
		}
		fill(&out[i], topo, pu);
	}
	return 0;
}

static int place_spread(struct wvm_place *out, unsigned n, hwloc_topology_t topo)
{
	hwloc_obj_t root = hwloc_get_root_obj(topo);
	hwloc_cpuset_t *sets = calloc(n, sizeof(*sets));
	int err = 0;

	if (!sets)
		return -ENOMEM;
	if (hwloc_distrib(topo, &root, 1, sets, n, INT_MAX, 0))
		err = -EIO;
	for (unsigned i = 0; i < n; i++) {
		hwloc_obj_t pu = NULL;

		if (sets[i])
			pu = hwloc_get_next_obj_inside_cpuset_by_type(topo, sets[i], HWLOC_OBJ_PU,
								      NULL);
		if (pu)
			fill(&out[i], topo, pu);
		else
			err = -EIO;
		hwloc_bitmap_free(sets[i]);
	}
	free(sets);
	return err;
}

static void mark_crowded(struct wvm_place *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned j = 0; j < i; j++)
			if (p[i].pu == p[j].pu)
				p[i].crowded = p[j].crowded = true;
}

int wvm_place_compute(struct wvm_place *out, unsigned n, const char *list, char *why,
		      size_t why_len)
{
	hwloc_topology_t topo;
	int err;

	if (n < 1 || n > WVM_PLACE_MAX) {
		snprintf(why, why_len, "%u shards: must be 1 to %d", n, WVM_PLACE_MAX);
		return -EINVAL;
	}
	memset(out, 0, n * sizeof(*out));
	err = load_topology(&topo);
	if (err) {
		snprintf(why, why_len, "hwloc cannot read this machine's topology");
		return err;
	}
	if (list && *list) {
		err = place_listed(out, n, list, topo, why, why_len);
	} else {
		err = place_spread(out, n, topo);
		if (err)
			snprintf(why, why_len, "hwloc cannot spread %u shards", n);
	}
	if (!err)
		mark_crowded(out, n);
	hwloc_topology_destroy(topo);
	return err;
}

size_t wvm_place_print(const struct wvm_place *p, unsigned n, char *buf, size_t len)
{
	size_t at = 0;

	if (!len)
		return 0;
	buf[0] = 0;
	for (unsigned i = 0; i < n; i++) {
		int k;

		if (p[i].pu < 0)
			k = snprintf(buf + at, len - at, "shard %u: not pinned\n", i);
		else
			k = snprintf(buf + at, len - at,
				     "shard %u: cpu %d, core %d, NUMA node %d%s%s\n", i, p[i].pu,
				     p[i].core, p[i].node, p[i].crowded ? ", shared" : "",
				     p[i].real ? "" : ", not applied");
		if (k < 0)
			break;
		if (at + (size_t)k >= len)
			return len - 1;
		at += (size_t)k;
	}
	return at;
}

int wvm_place_apply(const struct wvm_place *p)
{
	cpu_set_t *set;
	size_t size;
	int err = 0;

	if (p->pu < 0 || !p->real)
		return 0;
	set = CPU_ALLOC((size_t)p->pu + 1);
	if (!set)
		return -ENOMEM;
	size = CPU_ALLOC_SIZE((size_t)p->pu + 1);
	CPU_ZERO_S(size, set);
	CPU_SET_S((size_t)p->pu, size, set);
	if (sched_setaffinity(0, size, set))
		err = -errno;
	CPU_FREE(set);
	if (!err && p->node >= 0 && numa_available() >= 0)
		numa_set_preferred(p->node);
	return err;
}

int wvm_place_memory(const struct wvm_place *p, void *addr, size_t len)
{
	struct bitmask *mask;
	int err = 0;

	if (p->pu < 0 || !p->real || p->node < 0 || numa_available() < 0)
		return 0;
	mask = numa_allocate_nodemask();
	if (!mask)
		return -ENOMEM;
	numa_bitmask_setbit(mask, (unsigned)p->node);
	if (mbind(addr, len, MPOL_PREFERRED, mask->maskp, mask->size + 1, 0))
		err = -errno;
	numa_bitmask_free(mask);
	return err;
}

bool wvm_place_same_pu(const struct wvm_place *a, const struct wvm_place *b)
{
	return a->pu >= 0 && a->pu == b->pu;
}

/* The cgroup v2 path of this process under its mount, or false. */
static bool own_cgroup(char *path, size_t len)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		if (!strncmp(line, "0::/", 4)) {
			line[strcspn(line, "\n")] = 0;
			found = (size_t)snprintf(path, len, "/sys/fs/cgroup%s", line + 3) < len;
		}
	fclose(f);
	return found;
}

/* The quota in whole cores, rounded up, of one cgroup directory; 0 when there is none. */
static unsigned quota(const char *dir)
{
	char path[PATH_MAX];
	unsigned long long max, period;
	unsigned cores = 0;
	FILE *f;

	if ((size_t)snprintf(path, sizeof(path), "%s/cpu.max", dir) >= sizeof(path))
		return 0;
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%llu %llu", &max, &period) == 2 && period)
		cores = (unsigned)((max + period - 1) / period);
	fclose(f);
	return cores;
}

unsigned wvm_place_pus(void)
{
	hwloc_topology_t topo;
	int pus;

	if (load_topology(&topo))
		return 1;
	pus = hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_PU);
	hwloc_topology_destroy(topo);
	return pus > 1 ? (unsigned)pus : 1;
}

unsigned wvm_place_cores(void)
{
	char dir[PATH_MAX];
	unsigned cores = wvm_place_pus();

	if (!own_cgroup(dir, sizeof(dir)))
		return cores;
	while (strlen(dir) >= strlen("/sys/fs/cgroup")) {
		unsigned limit = quota(dir);

		if (limit && limit < cores)
			cores = limit;
		*strrchr(dir, '/') = 0;
	}
	return cores;
}

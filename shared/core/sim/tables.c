/*
 * Tables of who is home. A run makes the same few sets of nodes homes again and again, and building
 * their tables anew took more than half of its time: they are kept, for all runs of a process.
 */
#include <stdlib.h>

#include "shared/core/sim/sim.h"

/* By set of homes, a bit for each node. */
static struct wvm_slices *kept[1u << SIM_NODES_MAX];
static uint32_t kept_count;
#define KEPT_MOST 1024u /* 16 MiB; between runs they are let go when there are more */

void sim_tables_begin(void)
{
	if (kept_count < KEPT_MOST)
		return;
	for (uint32_t i = 0; i < 1u << SIM_NODES_MAX; i++) {
		free(kept[i]);
		kept[i] = NULL;
	}
	kept_count = 0;
}

static uint32_t set_of(const struct sim *s, uint32_t without)
{
	uint32_t homes = 0;

	for (uint32_t i = 0; i < s->config.nodes; i++)
		homes |= (uint32_t)(s->active[i] && i != without) << i;
	return homes;
}

/* Node i is vnode i, so a table depends on who is a home and on nothing else. */
static const struct wvm_slices *table_of(const struct sim *s, uint32_t homes)
{
	struct wvm_slices_scratch *scratch;
	uint8_t active[SIM_NODES_MAX];

	if (kept[homes])
		return kept[homes];
	for (uint32_t i = 0; i < s->config.nodes; i++)
		active[i] = homes >> i & 1;
	scratch = sim_zeroed(sizeof(*scratch));
	kept[homes] = sim_zeroed(sizeof(*kept[homes]));
	kept_count++;
	wvm_slices_build_active(kept[homes], &s->list, active, scratch);
	free(scratch);
	return kept[homes];
}

const struct wvm_slices *sim_slices(const struct sim *s)
{
	return table_of(s, set_of(s, SIM_NOBODY));
}

/* As wvm_slices_build_backup() is defined; check_slices compares that with its definition. */
uint32_t sim_second(const struct sim *s, uint32_t slice, uint32_t home)
{
	uint32_t homes = set_of(s, home);

	return homes ? table_of(s, homes)->home_vnode[slice] : WVM_SLICE_NIL;
}

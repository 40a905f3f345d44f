/*
 * Placed memory: ranges of a VM whose home is a node that the topology names
 * (PLACE lines), instead of the one that the hash ring gives. So a guest's
 * NUMA node can live where its threads run. All nodes have the same ranges.
 */
#ifndef WVM_CORE_LAYOUT_H
#define WVM_CORE_LAYOUT_H

#include "shared/core/msg.h"
#include "shared/core/slices.h"

#define WVM_LAYOUT_MAX 4096u /* ranges: 96 KiB, 12 steps to find one */

/* Some units of one VM. 24 bytes. */
struct wvm_layout_range {
	uint64_t first; /* wvm_layout_key() of the first one */
	uint64_t units; /* at least 1, all of the same VM */
	uint32_t member;
	uint32_t line; /* of the topology file, for people */
};
_Static_assert(sizeof(struct wvm_layout_range) == 24, "the size stated above");

/* In ascending order of first, none overlapping another. */
struct wvm_layout {
	const struct wvm_layout_range *list;
	uint32_t count; /* at most WVM_LAYOUT_MAX */
};

/* One number for VM and unit, in the order of both. */
static inline uint64_t wvm_layout_key(uint16_t vm_id, uint64_t gpa)
{
	_Static_assert(WVM_GPA_BITS - WVM_UNIT_SHIFT < 32, "units of a VM lie below its id");
	return (uint64_t)vm_id << 32 | gpa >> WVM_UNIT_SHIFT;
}

/* The range that the page at gpa is in, or NULL: the hash ring says. O(log n). Any thread. */
const struct wvm_layout_range *wvm_layout_find(const struct wvm_layout *layout, uint16_t vm_id,
					       uint64_t gpa);

/* The home of a page in it: the units of a range are dealt to its node's vnodes in turn. */
uint32_t wvm_layout_vnode(const struct wvm_layout_range *range, const struct wvm_members *members,
			  uint16_t vm_id, uint64_t gpa);

#endif

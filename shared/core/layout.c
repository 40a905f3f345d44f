#include "shared/core/layout.h"

#include "shared/core/assert.h"

const struct wvm_layout_range *wvm_layout_find(const struct wvm_layout *layout, uint16_t vm_id,
					       uint64_t gpa)
{
	uint64_t key = wvm_layout_key(vm_id, gpa);
	const struct wvm_layout_range *at = layout->list;

	if (!layout->count)
		return NULL;
	/* The last one that begins at or before key. No jump to guess: a fault waits for this. */
	for (uint32_t n = layout->count; n > 1; n -= n / 2)
		at += at[n / 2].first <= key ? n / 2 : 0;
	return key - at->first < at->units ? at : NULL;
}

uint32_t wvm_layout_vnode(const struct wvm_layout_range *range, const struct wvm_members *members,
			  uint16_t vm_id, uint64_t gpa)
{
	const struct wvm_member *m = &members->list[range->member];
	uint64_t unit = wvm_layout_key(vm_id, gpa) - range->first;

	WVM_ASSERT(range->member < members->count && unit < range->units);
	return m->first_vnode + (uint32_t)(unit % m->vnodes);
}

/* One view of up to nine members, for its tests; each test program has its own. */
#ifndef WVM_VIEW_RIG_H
#define WVM_VIEW_RIG_H

#include <check.h>

#include "shared/view.h"

#define COUNT 9u

static const struct wvm_member list[COUNT] = {{10, 1}, {11, 1}, {12, 2}, {14, 1}, {15, 1},
					      {16, 1}, {17, 1}, {18, 1}, {19, 1}};
static struct wvm_members members = {list, COUNT}; /* fewer in most random walks */
static struct wvm_view view;
static struct wvm_slices_scratch scratch;

/* The view of a topology in which the members of these bits are spare. */
static inline void first(uint32_t spares)
{
	struct wvm_epoch_record r = {.epoch = 1, .state = WVM_NODE_ACTIVE};
	uint8_t spare[COUNT];

	for (uint32_t i = 0; i < members.count; i++) {
		spare[i] = spares >> i & 1;
		if (!spare[i] && r.voters < WVM_EPOCH_VOTERS_MAX)
			r.voter[r.voters++] = list[i].first_vnode;
	}
	r.node = r.voter[0];
	wvm_view_first(&view, &r, &members, spare, &scratch);
}

static inline uint32_t home_in(const struct wvm_slices *table, uint32_t slice)
{
	return wvm_member_of(&members, table->home_vnode[slice]);
}

/* The next record, which is allowed. */
static inline bool go(uint32_t member, enum wvm_node_state state)
{
	struct wvm_epoch_record r;

	ck_assert(wvm_view_record(&view, &members, member, state, &r));
	ck_assert(wvm_epoch_record_check(&r));
	ck_assert_uint_eq(r.epoch, view.record.epoch + 1);
	return wvm_view_apply(&view, &members, &r, &scratch);
}

#endif

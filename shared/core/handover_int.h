/* What the parts of a hand-over share: which units have moved, from whom, and how far they are. */
#ifndef WVM_CORE_HANDOVER_INT_H
#define WVM_CORE_HANDOVER_INT_H

#include "shared/core/core_int.h"

/* The home before the last table; the present one where it has not moved. */
static inline uint32_t wvm_moved_former(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint16_t slice = wvm_slice_of(core->vms[vm].id, page << WVM_PAGE_SHIFT);

	if (!core->params.before || wvm_core_placed(core, vm, page))
		return wvm_core_home_of(core, vm, page, NULL);
	return wvm_member_of(core->params.members, core->params.before->home_vnode[slice]);
}

static inline bool wvm_moved_in(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return wvm_core_home_of(core, vm, page, NULL) == core->params.self &&
	       wvm_moved_former(core, vm, page) != core->params.self;
}

/* What it is to serve comes from others, by a hand-over or since its home has died. */
static inline bool wvm_moved_comes(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return wvm_moved_in(core, vm, page) || wvm_rebuild_here(core, vm, page);
}

static inline bool wvm_moved_out(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return wvm_core_home_of(core, vm, page, NULL) != core->params.self &&
	       wvm_moved_former(core, vm, page) == core->params.self;
}

static inline bool wvm_moved_own(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return core->params.shards < 2 ||
	       wvm_slice_of(core->vms[vm].id, page << WVM_PAGE_SHIFT) % core->params.shards ==
		       core->params.shard;
}

static inline enum wvm_moved_phase wvm_moved_phase_of(const struct wvm_core *core, uint32_t vm,
						      uint64_t page)
{
	const struct wvm_home_unit *u = &core->vms[vm].units[wvm_unit_index(page)];

	return u->moved == core->params.moved ? (enum wvm_moved_phase)u->phase : WVM_MOVED_UNKNOWN;
}

/* handover.c */
void wvm_handover_walk_soon(struct wvm_core *core);
/* All questions are taken back, and whoever waits for one asks again. */
void wvm_handover_end_pulls(struct wvm_core *core);

#endif

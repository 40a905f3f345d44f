/* What the two sides of backups have in common: backup.c, the home; backup_second.c, the second
 * one. */
#ifndef WVM_CORE_BACKUP_INT_H
#define WVM_CORE_BACKUP_INT_H

#include "shared/core/backup.h"
#include "shared/core/handover_int.h"

static inline uint16_t wvm_backup_slice(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return wvm_slice_of(core->vms[vm].id, page << WVM_PAGE_SHIFT);
}

static inline uint32_t wvm_backup_member_in(const struct wvm_core *core,
					    const struct wvm_slices *table, uint32_t slice)
{
	return wvm_member_of(core->params.members, table->home_vnode[slice]);
}

static inline bool wvm_backup_is_home(const struct wvm_core *core, uint32_t slice)
{
	return wvm_backup_member_in(core, core->params.slices, slice) == core->params.self;
}

static inline bool wvm_backup_is_second(const struct wvm_core *core, uint32_t slice)
{
	return wvm_backup_member_in(core, core->params.backup, slice) == core->params.self;
}

static inline bool wvm_backup_is_own(const struct wvm_core *core, uint32_t slice)
{
	return core->params.shards < 2 || slice % core->params.shards == core->params.shard;
}

static inline const struct wvm_second *wvm_backup_pair(const struct wvm_core *core, uint32_t vm,
						       uint64_t page)
{
	return &core->seconds->slice[wvm_backup_slice(core, vm, page)];
}

/* Of both ends of BACKUP_DONE: whose life, in the low bits, and something that its sender knows. */
#define WVM_BACKUP_LIFE_BITS 16

enum wvm_drop wvm_backup_to_second(struct wvm_core *core, uint32_t vm, uint64_t page,
				   uint32_t member, const struct wvm_msg *msg, const uint8_t *data);

#endif

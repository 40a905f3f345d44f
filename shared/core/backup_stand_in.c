/* STAND-IN, to be replaced by backup.c: whoever copies says so in the unit's entry (the simulator).
 */
#include "shared/core/core_int.h"

bool wvm_backup_complete(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return core->vms[vm].units[wvm_unit_index(page)].reserved[0] == 1;
}

bool wvm_backup_counts(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return core->vms[vm].home[page].flags & WVM_HOME_BACKUP;
}

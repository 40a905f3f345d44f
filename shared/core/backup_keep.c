/*
 * What of a home can be copied to its second one, and what a home that has given a unit away keeps
 * of it as the second one itself (handover.c, rebuild.c).
 */
#include "shared/core/handover_int.h"

/* Of a unit that was merged the owner has all pages, whatever came before. */
bool wvm_backup_stored(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return wvm_home_tracks(core, vm, page) &&
	       !(core->vms[vm].home[page].flags & WVM_HOME_UNSTORED) &&
	       !(wvm_home_unit_of(core, vm, page)->merged && wvm_unit_owns(core, vm, page));
}

bool wvm_backup_ready(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return !core->params.before || !wvm_moved_comes(core, vm, page) ||
	       wvm_moved_phase_of(core, vm, page) == WVM_MOVED_DONE;
}

/*
 * Without bytes it is no copy: who has the page tells of it. So does who merged the unit, of all
 * pages that have had no entry since; if not, they are lost, and not what they were before.
 */
static struct wvm_home_page copy_of(const struct wvm_home_unit *u, const struct wvm_home_page *e)
{
	if (u->merged && (!e->version || wvm_merge_outdated(u, e)))
		return (struct wvm_home_page){.version = u->granted - 1,
					      .flags = WVM_HOME_BACKUP | WVM_HOME_LOST};
	if (!e->version || e->flags & WVM_HOME_UNSTORED)
		return (struct wvm_home_page){0};
	return (struct wvm_home_page){.version = e->version,
				      .flags = WVM_HOME_BACKUP |
					       (e->flags & (WVM_HOME_WRITTEN | WVM_HOME_LOST))};
}

void wvm_backup_keep_unit(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	uint64_t end = page - page % WVM_UNIT_PAGES + WVM_UNIT_PAGES;

	page -= page % WVM_UNIT_PAGES;
	if (end > core->vms[vm].pages)
		end = core->vms[vm].pages;
	for (; page < end; page++) {
		struct wvm_home_page *e = wvm_home_of(core, vm, page), copy = copy_of(u, e);

		if (e->flags & WVM_HOME_BACKUP)
			continue;
		core->stats.pages_homed -= wvm_home_tracks(core, vm, page);
		wvm_note_home(core, vm, page);
		wvm_holders_clear(core, e);
		*e = copy;
		wvm_undo_commit(core);
	}
}

/*
 * What of a home can be copied to its second one, and what a home that has given a unit away keeps
 * of it as the second one itself (handover.c, rebuild.c), or keeps no longer.
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

bool wvm_backup_waits(const struct wvm_core *core, uint32_t *at, uint32_t *vm, uint64_t *page)
{
	if (!core->seconds || !core->backup->used[1])
		return false;
	while (*at < WVM_COPIES - WVM_COPIES_WALK) {
		const struct wvm_copy *c = &core->backup->copies[WVM_COPIES_WALK + (*at)++];

		if (c->state != WVM_COPY_WRITTEN || c->id)
			continue;
		*vm = c->vm;
		*page = c->page;
		return true;
	}
	return false;
}

void wvm_backup_drop(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_page *e;

	/* Of others there may be no room for the page's entry. */
	if (!wvm_home_unit_of(core, vm, page)->era)
		return;
	e = wvm_home_of(core, vm, page);
	if (!(e->flags & WVM_HOME_BACKUP))
		return;
	wvm_note_home(core, vm, page);
	*e = (struct wvm_home_page){0};
	wvm_undo_commit(core);
}

void wvm_backup_clear_unit(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	uint64_t end = wvm_unit_end(core, vm, page);

	if (!u->era)
		return;
	for (uint64_t at = wvm_unit_first(page); at < end; at++)
		wvm_backup_drop(core, vm, at);
	wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
	u->era = 0;
	u->lost &= ~WVM_UNIT_KEPT;
	wvm_undo_commit(core);
}

/* Their room is given back, too, where there are no entries in their place. */
void wvm_backup_drop_unit(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	if (!wvm_home_unit_of(core, vm, page)->era)
		return;
	wvm_backup_clear_unit(core, vm, page);
	wvm_core_emit(core, WVM_ACT_FORGET, vm, wvm_unit_first(page))->home = true;
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
	uint64_t end = wvm_unit_end(core, vm, page);

	for (page = wvm_unit_first(page); page < end; page++) {
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

/*
 * Hand-overs as a whole: how one begins, with a change of epoch or in a later life, and what is so
 * when it is complete. Unit by unit: handover.c.
 */
#include "shared/core/handover_int.h"

bool wvm_handover_moved(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return wvm_rebuild_of(core, vm, page) ||
	       wvm_moved_former(core, vm, page) != wvm_core_home_of(core, vm, page, NULL);
}

/* ---- its end --------------------------------------------------------------------------- */

static bool homes_any(const struct wvm_core *core, uint32_t member)
{
	const struct wvm_member *m = &core->params.members->list[member];
	const struct wvm_layout *layout = core->params.layout;

	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (core->params.slices->home_vnode[i] - m->first_vnode < m->vnodes)
			return true;
	for (uint32_t i = 0; layout && i < layout->count; i++)
		if (layout->list[i].member == member)
			return true;
	return false;
}

/* All has been handed over everywhere: whoever homes nothing has nothing that could be lost. */
static void forget_taken(struct wvm_core *core)
{
	for (uint32_t i = 0; i < core->params.members->count; i++)
		if (core->taken[i] && !homes_any(core, i))
			__atomic_store_n(&core->taken[i], 0, __ATOMIC_RELAXED);
}

void wvm_core_left(struct wvm_core *core)
{
	for (uint32_t i = 0; i < core->params.members->count; i++)
		if (i != core->params.self && !core->taken[i] && homes_any(core, i))
			__atomic_store_n(&core->taken[i], 1, __ATOMIC_RELAXED);
}

/*
 * A life that does not serve yet is that of a new home which lost its files after it had been
 * handed all: nobody has anything of that (join.h), and nobody has anything more for it.
 */
static void came_to_former_life(struct wvm_core *core, uint32_t vm)
{
	for (uint64_t page = 0; page < core->vms[vm].pages; page += WVM_UNIT_PAGES) {
		struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);

		if (!wvm_moved_own(core, vm, page) || !wvm_moved_comes(core, vm, page) ||
		    wvm_moved_phase_of(core, vm, page) == WVM_MOVED_DONE || u->version)
			continue;
		wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
		u->moved = core->params.moved;
		u->phase = WVM_MOVED_DONE;
		wvm_undo_commit(core);
		WVM_ASSERT(core->left.in);
		core->left.in--;
	}
}

bool wvm_core_handed_over(struct wvm_core *core, uint32_t epoch)
{
	WVM_ASSERT(core->action_head == core->action_tail);
	wvm_undo_commit(core);
	if (core->params.before && epoch != core->params.moved)
		return false;
	for (uint32_t vm = 0; core->left.in && !core->serving && vm < core->vm_count; vm++)
		came_to_former_life(core, vm);
	if (core->left.in || core->left.out)
		return false;
	forget_taken(core);
	return true;
}

/* ---- its begin ------------------------------------------------------------------------- */

/* Before the life is worth taking over. What it may have had it is asked about elsewhere (join.h):
 * it serves when nobody has anything of it. */
void wvm_handover_without_files(struct wvm_core *core, uint32_t vm)
{
	for (uint64_t page = 0; core->params.before && page < core->vms[vm].pages;
	     page += WVM_UNIT_PAGES) {
		struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);

		if (!wvm_moved_own(core, vm, page) || !wvm_moved_out(core, vm, page))
			continue;
		u->moved = core->params.moved;
		u->phase = WVM_MOVED_NOTHING;
	}
}

void wvm_handover_add_vm(struct wvm_core *core, uint32_t vm)
{
	for (uint64_t page = 0; core->params.before && page < core->vms[vm].pages;
	     page += WVM_UNIT_PAGES) {
		enum wvm_moved_phase phase;

		if (!wvm_moved_own(core, vm, page))
			continue;
		phase = wvm_moved_phase_of(core, vm, page);
		core->left.in += wvm_moved_comes(core, vm, page) && phase != WVM_MOVED_DONE;
		core->left.out += wvm_moved_out(core, vm, page) && phase < WVM_MOVED_GIVEN;
	}
}

/*
 * Who has taken pages from the former home of a slice counts as one who has taken some from the
 * new one: a later life of that one, which had lost them, must not serve zeros (join.h).
 */
static void pass_on_taken(struct wvm_core *core, const struct wvm_slices *from)
{
	const struct wvm_members *m = core->params.members;

	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t was = wvm_member_of(m, from->home_vnode[i]);
		uint32_t is = wvm_member_of(m, core->params.slices->home_vnode[i]);

		if (was != is && core->taken[was] && !core->taken[is])
			core->taken[is] = 1;
	}
}

/* The hand-over of the present epoch begins here, or goes on in another life. */
void wvm_handover_begin(struct wvm_core *core)
{
	if (!core->params.before)
		return;
	pass_on_taken(core, core->params.before);
	wvm_rebuild_begin(core);
	wvm_tell_begin(core);
	/* Until it serves it hears no answers. */
	if (core->serving)
		wvm_handover_walk_soon(core);
}

bool wvm_handover_adopt(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	/* What was being forgotten, and parts of what had not come. Not copies of the new home's.
	 */
	if (!e->version || (!(e->flags & WVM_HOME_BACKUP) && core->params.before &&
			    wvm_moved_phase_of(core, vm, page) == WVM_MOVED_GIVEN &&
			    wvm_moved_out(core, vm, page))) {
		*e = (struct wvm_home_page){0};
		return true;
	}
	return false;
}

/* From params.before, which is set, to these; of a move that is under way, anew. */
static void move(struct wvm_core *core, const struct wvm_slices *slices)
{
	/* Of the last one: what was asked twice has one answer still to come. */
	wvm_handover_end_pulls(core);
	core->params.slices = slices;
	core->walk_vm = 0;
	core->walk_unit = 0;
	/* At the end of the last one it was far off, since there was nothing to ask for. */
	wvm_core_timer_cancel(&core->timers, &core->walk);
	core->left = (struct wvm_handover_left){0, 0};
	for (uint32_t vm = 0; vm < core->vm_count; vm++)
		wvm_handover_add_vm(core, vm);
	wvm_home_rehome(core);
	wvm_holder_rehome(core);
	wvm_request_rehome(core);
	wvm_merge_rehome(core);
	wvm_backup_rehome(core);
	wvm_handover_begin(core);
}

enum wvm_epoch_taken wvm_core_epoch(struct wvm_core *core, uint64_t now_ns, uint32_t epoch,
				    const struct wvm_slices *slices)
{
	bool moves = __builtin_memcmp(slices, core->params.slices, sizeof(*slices)) != 0;

	WVM_ASSERT(core->action_head == core->action_tail && !core->adopting);
	core->now_ns = now_ns;
	wvm_undo_commit(core);
	if (epoch <= core->params.epoch)
		return WVM_EPOCH_OLD;
	/* It was decided when the last one was complete. */
	if (moves && core->params.before && !wvm_core_handed_over(core, core->params.moved))
		return WVM_EPOCH_BUSY;
	core->params.epoch = epoch;
	if (core->epoch_seen < epoch)
		core->epoch_seen = epoch;
	if (!moves) {
		if (core->seconds && core->backup->next)
			wvm_backup_rehome(core);
		return WVM_EPOCH_TAKEN;
	}
	core->params.before = core->params.slices;
	core->params.moved = epoch;
	core->params.lost = NULL;
	move(core, slices);
	return WVM_EPOCH_TAKEN;
}

/* Whether it moves what was the dead member's alone: what is on its way from others stays so. */
static bool moves_lost_only(const struct wvm_core *core, const struct wvm_slices *slices,
			    const struct wvm_core_lost *lost)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (slices->home_vnode[i] != core->params.slices->home_vnode[i] &&
		    !(lost->slices[i / 64] >> i % 64 & 1))
			return false;
	return true;
}

enum wvm_epoch_taken wvm_core_epoch_lost(struct wvm_core *core, uint64_t now_ns, uint32_t epoch,
					 const struct wvm_slices *slices,
					 const struct wvm_core_lost *lost)
{
	bool joins = core->params.before && core->params.moved == lost->moved;
	const struct wvm_slices *was;

	WVM_ASSERT(core->action_head == core->action_tail && !core->adopting);
	WVM_ASSERT(lost->epoch == epoch && lost->member[core->params.self] == WVM_LOST_NOT);
	core->now_ns = now_ns;
	wvm_undo_commit(core);
	if (epoch <= core->params.epoch)
		return WVM_EPOCH_OLD;
	if (joins ? !moves_lost_only(core, slices, lost)
		  : core->params.before && !wvm_core_handed_over(core, core->params.moved))
		return WVM_EPOCH_BUSY;
	core->params.epoch = epoch;
	if (core->epoch_seen < epoch)
		core->epoch_seen = epoch;
	if (!joins)
		core->params.before = core->params.slices;
	core->params.moved = lost->moved;
	core->params.lost = lost;
	wvm_rebuild_lost(core);
	was = core->params.slices;
	move(core, slices);
	pass_on_taken(core, was); /* which may be none of before */
	return WVM_EPOCH_TAKEN;
}

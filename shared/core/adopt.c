/*
 * Taking a former life over. The entries say what was decided, the RAM file
 * what had been carried out of it when the process ended:
 *
 *	entry          RAM file   what it means
 *	Invalid        nothing    agreed
 *	Invalid        page       its removal was not carried out: it is now. A FETCH before that
 *	                          saves the bytes again: what programs stored since is in them
 *	Shared, Mod.   page       agreed; where a DOWNGRADE is not acknowledged the protection
 *	                          may be missing, and is made up for
 *	Shared, Mod.   nothing    granted, never installed: no program saw it, it was never taken;
 *	                          of a unit granted whole: agreed, it is zeros
 *	... and coming page       the same, and the page is an older copy whose removal was to come
 *
 * A page of a unit that was granted whole may be in the RAM file and look as if it
 * were not: room for it, that no program has touched. What is not Modified any
 * more must not stay there, or programs would find it without asking.
 */
#include "shared/core/core_int.h"

static struct wvm_demand *written_back(struct wvm_core *core, uint32_t slot)
{
	struct wvm_demand *d = slot ? &core->demands[slot - 1] : NULL;

	return d && d->state == WVM_DEMAND_WRITE_BACK ? d : NULL;
}

static void take_over(struct wvm_core *core, uint32_t index)
{
	const struct wvm_kept *k = &core->kept[index];
	struct wvm_demand *d = &core->demands[index];
	uint32_t vm = 0;

	while (vm < core->vm_count && core->vms[vm].id != k->vm_id)
		vm++;
	WVM_ASSERT(vm < core->vm_count && k->page < core->vms[vm].pages);
	*d = (struct wvm_demand){
		.timer.kind = WVM_TIMER_DEMAND,
		.page = k->page,
		.txn = k->txn,
		.grant = k->grant,
		.version = k->version,
		.vm = vm,
		.steer = k->steer,
		.type = k->keep ? WVM_MSG_DOWNGRADE : WVM_MSG_FETCH_AND_INVALIDATE,
		.state = WVM_DEMAND_WRITE_BACK,
		.keep = k->keep,
		.used = true,
	};
	d->member = wvm_core_home_of(core, vm, k->page, &d->home_vnode);
	wvm_held_of(core, vm, k->page)->demand = index + 1;
	core->demands_free--;
	core->peers[d->member].demands++;
	core->stats.writebacks_now++;
	core->stats.adopted_written_back++;
}

void wvm_core_adopt(struct wvm_core *core)
{
	WVM_ASSERT(core->adopting && !core->serving);
	wvm_undo_roll_back(core);
	/* Not before: what the last input said to have come may not have. */
	for (uint32_t vm = 0; vm < core->vm_count; vm++)
		wvm_handover_add_vm(core, vm);
	core->free_demand = 0;
	for (uint32_t i = core->params.limits.demands; i-- > 0;) {
		if (core->kept[i].used) {
			take_over(core, i);
			continue;
		}
		core->demands[i].next = core->free_demand;
		core->free_demand = i + 1;
	}
	__builtin_memset(core->block_used, 0,
			 (core->params.limits.holder_blocks + 63) / 64 * sizeof(*core->block_used));
}

void wvm_core_adopt_home(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	WVM_ASSERT(core->adopting && !core->serving && page < core->vms[vm].pages);
	e->txn = 0;
	if (wvm_handover_adopt(core, vm, page))
		return;
	/* A copy has no holders, but where its home has died, and they have told. */
	if (!(e->flags & WVM_HOME_BACKUP)) {
		wvm_backup_adopt(core, vm, page);
		if (wvm_merge_outdated(wvm_home_unit_of(core, vm, page), e))
			*e = (struct wvm_home_page){0};
		if (!e->version)
			return;
		core->stats.pages_homed++;
		core->stats.adopted_homed++;
	}
	for (uint32_t slot = e->more; slot; slot = core->blocks[slot - 1].next) {
		uint64_t *word = &core->block_used[(slot - 1) / 64];
		uint64_t bit = UINT64_C(1) << (slot - 1) % 64;

		WVM_ASSERT(slot <= core->params.limits.holder_blocks && !(*word & bit));
		*word |= bit;
	}
}

void wvm_core_adopt_home_end(struct wvm_core *core)
{
	WVM_ASSERT(core->adopting && !core->free_block);
	for (uint32_t i = core->params.limits.holder_blocks; i-- > 0;) {
		if (core->block_used[i / 64] >> i % 64 & 1)
			continue;
		core->blocks[i].next = core->free_block;
		core->free_block = i + 1;
	}
}

/*
 * Its removal may not have been carried out. Without `present` that can only be
 * seen where the bytes are to be kept: they were saved before it.
 */
static void remove_again(struct wvm_core *core, uint32_t vm, uint64_t page,
			 const struct wvm_demand *d, bool present)
{
	const struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_action *a;

	if (!present && !h->hole)
		return;
	wvm_core_emit(core, WVM_ACT_PROTECT, vm, page);
	if (d && (present || !core->kept[h->demand - 1].saved)) {
		a = wvm_core_emit(core, WVM_ACT_SAVE, vm, page);
		a->slot = h->demand - 1;
		a->hole = h->hole;
	}
	wvm_core_emit(core, WVM_ACT_PUNCH, vm, page);
}

/* It was granted and never came. */
static void forget(struct wvm_core *core, struct wvm_held_page *h)
{
	h->state = WVM_HELD_INVALID;
	h->coming = 0;
	core->stats.adopted_dropped++;
}

void wvm_core_adopt_unit(struct wvm_core *core, uint32_t vm, uint64_t unit)
{
	struct wvm_held_unit *u = &core->vms[vm].held_units[unit];

	WVM_ASSERT(core->adopting && unit <= wvm_unit_index(core->vms[vm].pages - 1));
	u->requests = u->first = 0;
	u->hold_until_ns = 0;
	wvm_merge_adopt(core, vm, unit);
	for (uint32_t i = 0; i < WVM_UNIT_WORDS; i++) {
		core->stats.pages_untouched += (uint64_t)__builtin_popcountll(u->mine[i] &
									      ~u->filled[i]);
		for (uint64_t left = u->mine[i] & u->filled[i]; left; left &= left - 1) {
			core->stats.pages_modified++;
			core->stats.adopted_held++;
		}
	}
}

void wvm_core_adopt_held(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page,
			 bool present)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	struct wvm_demand *d = written_back(core, h->demand);

	WVM_ASSERT(core->adopting && page < core->vms[vm].pages);
	core->now_ns = now_ns;
	if (d && (d->vm != vm || d->page != page))
		d = NULL;
	h->demand = d ? h->demand : 0;
	h->request = 0;
	h->hold_until_ns = h->lost_ns = 0;
	h->pins = 0;
	h->hold_shift = 0;
	h->read_first = h->wrote = h->trusted = 0;
	if (wvm_unit_mine(u, page)) {
		WVM_ASSERT(!d);
		return;
	}
	if (h->state != WVM_HELD_INVALID && (h->coming || (!present && !h->hole))) {
		WVM_ASSERT(!d);
		forget(core, h);
	}
	if (h->state == WVM_HELD_INVALID) {
		WVM_ASSERT(!d || !d->keep);
		remove_again(core, vm, page, d, present);
		return;
	}
	WVM_ASSERT(!d || (d->keep && h->state == WVM_HELD_SHARED));
	if (d || (h->hole && h->state == WVM_HELD_SHARED))
		wvm_core_emit(core, WVM_ACT_PROTECT, vm, page);
	if (h->hole && h->state == WVM_HELD_SHARED)
		wvm_core_emit(core, WVM_ACT_SETTLE, vm, page);
	core->stats.adopted_held++;
	u->modified += h->state == WVM_HELD_MODIFIED;
	u->shared += h->state == WVM_HELD_SHARED;
	(*(h->state == WVM_HELD_SHARED ? &core->stats.pages_shared
				       : &core->stats.pages_modified))++;
}

bool wvm_core_adopt_pin(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);

	WVM_ASSERT(core->adopting && page < core->vms[vm].pages);
	if (wvm_unit_mine(wvm_held_unit_of(core, vm, page), page))
		wvm_unit_split(core, vm, page);
	if (h->state != WVM_HELD_MODIFIED || h->pins == UINT16_MAX)
		return false;
	h->pins++;
	return true;
}

/* Every page has its actions carried out, so the bytes of write-backs can be sent again. */
void wvm_core_adopt_held_end(struct wvm_core *core, uint64_t now_ns)
{
	WVM_ASSERT(core->adopting && core->action_head == core->action_tail);
	core->adopting = false;
	core->now_ns = now_ns;
	wvm_merge_adopted(core, now_ns);
	wvm_tell_begin(core);
	for (uint32_t i = 0; i < core->params.limits.demands; i++)
		if (written_back(core, i + 1))
			wvm_core_timer_arm(&core->timers, &core->demands[i].timer, now_ns);
}

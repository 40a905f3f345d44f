#include "shared/core/core_int.h"

void *wvm_undo_entry(struct wvm_core *core, uint32_t kind, uint32_t vm, uint64_t index)
{
	switch ((enum wvm_undo_kind)kind) {
	case WVM_UNDO_HOME: return wvm_home_of(core, vm, index);
	case WVM_UNDO_HELD: return wvm_held_of(core, vm, index);
	case WVM_UNDO_BLOCK: return &core->blocks[index];
	case WVM_UNDO_KEPT: return &core->kept[index];
	case WVM_UNDO_UNIT: return &core->vms[vm].units[index];
	case WVM_UNDO_HELD_UNIT: return &core->vms[vm].held_units[index];
	case WVM_UNDO_MINE: return &core->vms[vm].held_units[index].mine;
	}
	WVM_ASSERT(!"an entry of a known kind");
	return NULL;
}

/*
 * The image first, then the count that says it is there, then the change. A
 * killed process leaves its stores in program order, so the compiler alone
 * has to keep it.
 */
void wvm_undo_note(struct wvm_core *core, enum wvm_undo_kind kind, uint32_t vm, uint64_t index)
{
	struct wvm_durable *d = core->durable;
	struct wvm_undo *u;

	for (uint32_t i = 0; i < d->undos; i++)
		if (d->undo[i].index == index && d->undo[i].kind == kind && d->undo[i].vm == vm)
			return;
	WVM_ASSERT(d->undos < WVM_UNDO_MAX);
	u = &d->undo[d->undos];
	u->index = index;
	u->vm = vm;
	u->kind = kind;
	__builtin_memcpy(u->image, wvm_undo_entry(core, kind, vm, index), WVM_UNDO_BYTES);
	__atomic_store_n(&d->undos, d->undos + 1, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void wvm_undo_commit(struct wvm_core *core)
{
	if (!core->durable->undos)
		return;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&core->durable->undos, 0, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static bool valid(const struct wvm_core *core, const struct wvm_undo *u)
{
	switch (u->kind) {
	case WVM_UNDO_HOME:
	case WVM_UNDO_HELD: return u->vm < core->vm_count && u->index < core->vms[u->vm].pages;
	case WVM_UNDO_BLOCK: return u->index < core->params.limits.holder_blocks;
	case WVM_UNDO_KEPT: return u->index < core->params.limits.demands;
	case WVM_UNDO_UNIT:
	case WVM_UNDO_HELD_UNIT:
	case WVM_UNDO_MINE:
		return u->vm < core->vm_count &&
		       u->index <= wvm_unit_index(core->vms[u->vm].pages - 1);
	default: return false;
	}
}

/* Images stay until all are back: to be killed here as well does no harm. */
void wvm_undo_roll_back(struct wvm_core *core)
{
	struct wvm_durable *d = core->durable;

	WVM_ASSERT(d->undos <= WVM_UNDO_MAX);
	for (uint32_t i = 0; i < d->undos; i++) {
		const struct wvm_undo *u = &d->undo[i];

		WVM_ASSERT(valid(core, u));
		__builtin_memcpy(wvm_undo_entry(core, u->kind, u->vm, u->index), u->image,
				 WVM_UNDO_BYTES);
	}
	wvm_undo_commit(core);
}

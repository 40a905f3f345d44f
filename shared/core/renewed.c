/* Members that have lost their files: see renewed.h. */
#include "shared/core/handover_int.h"

/* The lives of `member` before `boot`. */
struct gone {
	struct wvm_core *core;
	uint32_t member, vm;
	uint16_t boot;
};

static bool is_its(const struct gone *g, uint32_t member, uint64_t grant)
{
	return member == g->member && wvm_request_boot(grant) < g->boot;
}

/* ---- one page -------------------------------------------------------------------------- */

/* Whoever waits for it is told so by the timer: many may wait, and each has an answer. */
static void lose(const struct gone *g, uint64_t page, bool telling)
{
	struct wvm_core *core = g->core;
	struct wvm_home_page *e = wvm_home_of(core, g->vm, page);

	wvm_note_home(core, g->vm, page);
	/* What others tell of it is of before. */
	if (telling)
		e->version = e->granted;
	wvm_holders_clear(core, e);
	e->state = WVM_HOME_HOME;
	e->granted = 0;
	e->flags = (uint8_t)((e->flags & WVM_HOME_WRITTEN) | WVM_HOME_LOST);
	core->stats.home_lost++;
	if (e->txn && core->txns[e->txn - 1].state != WVM_TXN_DRAIN)
		wvm_core_timer_arm(&core->timers, &core->txns[e->txn - 1].timer, core->now_ns);
	wvm_undo_commit(core);
}

/* Its copy is gone with it, so nobody need be asked. A former home's records are its successor's.
 */
static void strike(const struct gone *g, uint64_t page)
{
	struct wvm_core *core = g->core;
	struct wvm_home_page *e = wvm_home_of(core, g->vm, page);
	uint32_t record = wvm_holders_find(core, e, g->member);

	if (e->txn || record == WVM_NIL || wvm_moved_out(core, g->vm, page) ||
	    !is_its(g, g->member, *wvm_holders_at(core, e, record).grant))
		return;
	wvm_note_home(core, g->vm, page);
	wvm_holders_remove(core, e, record);
	if (!e->holders)
		e->state = WVM_HOME_HOME;
	wvm_undo_commit(core);
}

/* Whether a page is LOST by it. */
static bool look_at_page(const struct gone *g, uint64_t page, bool telling)
{
	struct wvm_core *core = g->core;
	struct wvm_home_page *e = wvm_home_of(core, g->vm, page);

	if (!e->version || wvm_merge_outdated(wvm_home_unit_of(core, g->vm, page), e))
		return false;
	if (e->state == WVM_HOME_MODIFIED) {
		struct wvm_holder owner = wvm_holders_at(core, e, 0);

		if (!is_its(g, *owner.member, *owner.grant))
			return false;
		lose(g, page, telling);
		return true;
	}
	if (wvm_rebuild_in_vain(core, g->vm, page, g->member, telling))
		return true;
	if (e->state == WVM_HOME_SHARED)
		strike(g, page);
	return false;
}

/* ---- one unit -------------------------------------------------------------------------- */

static bool has_rest(const struct gone *g, uint64_t first)
{
	const struct wvm_core_vm *vm = &g->core->vms[g->vm];
	uint64_t end = wvm_unit_end(g->core, g->vm, first);

	if (!vm->units[wvm_unit_index(first)].entries)
		return true; /* nor need there be room for any */
	for (uint64_t page = first; page < end; page++)
		if (!wvm_home_tracks(g->core, g->vm, page))
			return true;
	return false;
}

static void forget_grant(struct wvm_home_unit *u, uint32_t lost)
{
	u->granted = u->grant = 0;
	u->owner = u->merged = 0;
	u->lost |= lost;
}

void wvm_renewed_unit(const struct wvm_core *core, struct wvm_home_unit *u)
{
	if (u->granted && wvm_renewed_before(core, u->owner, u->grant))
		forget_grant(u, WVM_UNIT_UNKNOWN | WVM_UNIT_REBUILT);
}

/* What is left of a grant of the whole. */
static bool lose_rest(const struct gone *g, uint64_t first, bool telling)
{
	struct wvm_core *core = g->core;
	struct wvm_home_unit *u = wvm_home_unit_of(core, g->vm, first);
	uint64_t end = wvm_unit_end(core, g->vm, first);
	uint32_t lost = telling ? WVM_UNIT_STOLEN : WVM_UNIT_UNKNOWN | WVM_UNIT_REBUILT;

	if (!u->granted || !is_its(g, u->owner, u->grant))
		return false;
	/* Entries of before a merge are void only as long as it is known. */
	for (uint64_t page = first; u->entries && page < end; page++) {
		wvm_merge_renew(core, g->vm, page);
		wvm_undo_commit(core);
	}
	wvm_undo_note(core, WVM_UNDO_UNIT, g->vm, wvm_unit_index(first));
	forget_grant(u, has_rest(g, first) ? lost : 0);
	wvm_undo_commit(core);
	return true;
}

/* What its new home has granted since is not known here: what is kept may not be the last. */
static void doubt(const struct gone *g, uint64_t first)
{
	enum wvm_moved_phase phase = wvm_moved_phase_of(g->core, g->vm, first);
	struct wvm_home_unit *u = wvm_home_unit_of(g->core, g->vm, first);

	if (phase != WVM_MOVED_ASKED && phase != WVM_MOVED_GIVEN)
		return;
	wvm_undo_note(g->core, WVM_UNDO_UNIT, g->vm, wvm_unit_index(first));
	u->lost = (u->lost & ~(uint32_t)WVM_UNIT_KEPT) | WVM_UNIT_DOUBTED;
	wvm_undo_commit(g->core);
}

static void look_at_unit(const struct gone *g, uint64_t first)
{
	struct wvm_core *core = g->core;
	struct wvm_home_unit *u = wvm_home_unit_of(core, g->vm, first);
	bool telling = wvm_moved_phase_of(core, g->vm, first) == WVM_MOVED_TELLING, lost = false;
	uint64_t end = wvm_unit_end(core, g->vm, first);

	if (telling) {
		wvm_undo_note(core, WVM_UNDO_UNIT, g->vm, wvm_unit_index(first));
		u->lost |= WVM_UNIT_STOLEN;
		wvm_undo_commit(core);
	}
	doubt(g, first);
	/* Without any there may be no room to look at them. */
	for (uint64_t page = first; u->entries && page < end; page++)
		lost |= look_at_page(g, page, telling);
	lost |= lose_rest(g, first, telling);
	if (lost && core->seconds)
		wvm_backup_again(core, wvm_slice_of(core->vms[g->vm].id, first << WVM_PAGE_SHIFT));
}

/* ---- all ------------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t item)
{
	item = (item ^ item >> 31) * UINT64_C(0x7fb5d329728ea185);
	item = (item ^ item >> 27) * UINT64_C(0x81dadef4bc2dd44d);
	return item ^ item >> 33;
}

static uint64_t item_of(const struct wvm_core *core, uint32_t member)
{
	return core->renewed[member] ? (uint64_t)member << 16 | core->renewed[member] : 0;
}

void wvm_renewed_init(struct wvm_core *core)
{
	if (!core->params.adopt)
		__builtin_memset(core->renewed, 0,
				 sizeof(*core->renewed) * core->params.members->count);
	core->renewed_sum = 0;
	for (uint32_t i = 0; i < core->params.members->count; i++)
		if (core->renewed[i])
			core->renewed_sum += mixed(item_of(core, i));
}

uint64_t wvm_renewed_item(struct wvm_core *core)
{
	uint32_t count = core->params.members->count;

	for (uint32_t n = 0; core->renewed_sum && n < count; n++) {
		uint32_t member = core->renewed_next;

		core->renewed_next = (member + 1) % count;
		if (core->renewed[member])
			return item_of(core, member);
	}
	return 0;
}

static void set(struct wvm_core *core, uint32_t member, uint16_t boot)
{
	if (core->renewed[member])
		core->renewed_sum -= mixed(item_of(core, member));
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&core->renewed[member], boot, __ATOMIC_RELEASE);
	core->renewed_sum += mixed(item_of(core, member));
	core->renewed_next = member;
}

void wvm_core_renewed(struct wvm_core *core, uint32_t member, uint16_t boot)
{
	struct gone g = {.core = core, .member = member, .boot = boot};

	WVM_ASSERT(member < core->params.members->count && core->action_head == core->action_tail);
	wvm_undo_commit(core);
	if (boot <= 1 || boot <= core->renewed[member])
		return;
	if (core->seconds)
		wvm_backup_renewed(core, member);
	for (; g.vm < core->vm_count; g.vm++)
		for (uint64_t page = 0; page < core->vms[g.vm].pages; page += WVM_UNIT_PAGES)
			if (wvm_moved_own(core, g.vm, page))
				look_at_unit(&g, page);
	set(core, member, boot);
	wvm_request_renewed(core, member);
	wvm_backup_look(core);
}

bool wvm_renewed_learn(struct wvm_core *core, uint64_t item)
{
	uint64_t member = item >> 16;
	uint16_t boot = item & 0xffff;

	if (member >= core->params.members->count || boot <= core->renewed[member] ||
	    core->action_head != core->action_tail)
		return false;
	wvm_core_renewed(core, (uint32_t)member, boot);
	return true;
}

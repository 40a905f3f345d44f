/*
 * Giving up pages that nobody asked for, since the node has no room for them.
 *
 * A Shared copy just goes. Its home still counts on it, which it may: records
 * may name too many. An INVALIDATE finds no such copy and is acknowledged, and the
 * next request of this node has a newer id, which takes the record's place.
 *
 * A Modified page goes as if its home had sent a FETCH: the bytes are kept in
 * the outbox and written back until they are acknowledged, in the next life too.
 * A home takes them from the owner that it knows, whether it asked or not.
 */
#include "shared/core/core_int.h"

/* What one eviction may emit: PROTECT, SAVE, PUNCH, SEND, and its answer on the home itself. */
#define ACTIONS_MAX 64u

/*
 * Half of the slots are for what homes ask for. One home may have half of the
 * others: while it is silent, pages of other homes still go.
 */
static bool may_leave(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint32_t slots = core->params.limits.demands, most = slots / 4;
	uint32_t home = wvm_core_home_of(core, vm, page, NULL);

	return core->demands_free > slots / 2 && core->peers[home].demands < (most ? most : 1);
}

enum wvm_evict wvm_core_evict(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page)
{
	const struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	bool modified;

	WVM_ASSERT(page < core->vms[vm].pages && !core->adopting);
	core->now_ns = now_ns;
	wvm_undo_commit(core);
	if (wvm_unit_mine(u, page)) {
		if (now_ns < u->hold_until_ns || u->merging)
			return WVM_EVICT_BUSY;
		if (!may_leave(core, vm, page))
			return WVM_EVICT_ROOM;
		wvm_unit_split(core, vm, page);
	}
	modified = h->state == WVM_HELD_MODIFIED;
	/* No page of a unit goes unasked while the home may be granting it whole. */
	if (modified && u->merging)
		return WVM_EVICT_BUSY;
	if (h->state == WVM_HELD_INVALID || h->request || h->demand || h->coming ||
	    (modified && h->pins) || now_ns < h->hold_until_ns)
		return WVM_EVICT_BUSY;
	if (core->action_tail - core->action_head > WVM_ACTIONS - ACTIONS_MAX)
		return WVM_EVICT_ROOM;
	if (!modified)
		wvm_holder_drop_shared(core, vm, page);
	else if (!may_leave(core, vm, page) || !wvm_holder_leave(core, vm, page))
		return WVM_EVICT_ROOM;
	/* Nobody fought for it: that it comes back soon does not lengthen its hold time. */
	h->lost_ns = 0;
	(*(modified ? &core->stats.evicted_modified : &core->stats.evicted_shared))++;
	return WVM_EVICT_DONE;
}

/*
 * What a home asks of a holder: INVALIDATE, DOWNGRADE, FETCH_AND_INVALIDATE.
 * The holder acts only on the copy that the message names by grant and
 * version, keeps it for the hold time, and keeps data that has left until it
 * is acknowledged.
 */
#include "shared/core/core_int.h"
#include "shared/core/wander.h"

void wvm_holder_set(struct wvm_core *core, uint32_t vm, uint64_t page, enum wvm_held_state state)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);

	u->modified -= h->state == WVM_HELD_MODIFIED;
	u->modified += state == WVM_HELD_MODIFIED;
	u->shared -= h->state == WVM_HELD_SHARED;
	u->shared += state == WVM_HELD_SHARED;
	core->stats.pages_shared -= h->state == WVM_HELD_SHARED;
	core->stats.pages_modified -= h->state == WVM_HELD_MODIFIED;
	h->state = state;
	core->stats.pages_shared += state == WVM_HELD_SHARED;
	core->stats.pages_modified += state == WVM_HELD_MODIFIED;
}

static uint32_t slot_of(const struct wvm_core *core, const struct wvm_demand *d)
{
	return (uint32_t)(d - core->demands) + 1;
}

/*
 * The slots are for all homes, and a home that is silent gives none of its own
 * back. So a home may have as many as are left: one such home leaves half of
 * them to the others, two leave a third, and there is always one for a home that
 * has none, unless all homes together want more than there are.
 */
static bool may_begin(const struct wvm_core *core, uint32_t member)
{
	return core->peers[member].demands < core->demands_free;
}

static struct wvm_demand *begin(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg)
{
	uint32_t slot = core->free_demand;
	struct wvm_demand *d;

	if (!may_begin(core, member))
		return NULL;
	WVM_ASSERT(slot);
	d = &core->demands[slot - 1];
	core->free_demand = d->next;
	core->demands_free--;
	core->peers[member].demands++;
	*d = (struct wvm_demand){.timer.kind = WVM_TIMER_DEMAND,
				 .page = page,
				 .txn = msg->request,
				 .grant = msg->grant,
				 .version = msg->version,
				 .vm = vm,
				 .member = member,
				 .home_vnode = msg->src,
				 .steer = msg->reply_steer,
				 .type = msg->type,
				 .used = true};
	wvm_held_of(core, vm, page)->demand = slot;
	return d;
}

static void set_kept(struct wvm_core *core, const struct wvm_demand *d, bool used)
{
	uint32_t index = slot_of(core, d) - 1;

	wvm_undo_note(core, WVM_UNDO_KEPT, 0, index);
	core->kept[index] = (struct wvm_kept){.page = d->page,
					      .grant = d->grant,
					      .version = d->version,
					      .txn = d->txn,
					      .vm_id = core->vms[d->vm].id,
					      .steer = d->steer,
					      .used = used,
					      .keep = d->keep};
}

/* Done with it. A request of this node for the page may go out now. */
static void finish(struct wvm_core *core, struct wvm_demand *d)
{
	struct wvm_held_page *h = wvm_held_of(core, d->vm, d->page);

	WVM_ASSERT(h->demand == slot_of(core, d));
	WVM_ASSERT(core->peers[d->member].demands);
	if (d->state == WVM_DEMAND_WRITE_BACK) {
		set_kept(core, d, false);
		core->stats.writebacks_now--;
	}
	h->demand = 0;
	d->used = false;
	wvm_core_timer_cancel(&core->timers, &d->timer);
	core->demands_parked -= d->parked;
	core->demands_free++;
	core->peers[d->member].demands--;
	d->next = core->free_demand;
	core->free_demand = slot_of(core, d);
	if (h->request)
		wvm_request_unblock(core, h->request);
}

static void answer(struct wvm_core *core, const struct wvm_demand *d, uint8_t type)
{
	struct wvm_action *a = wvm_core_send(core, type, d->vm, d->page, d->member, d->home_vnode);

	a->msg.request = d->txn;
	a->msg.grant = d->grant;
	a->msg.version = d->version;
	a->msg.steer = d->steer;
	a->msg.reply_steer = wvm_holder_steer(d->page);
	if (type != WVM_MSG_WRITE_BACK)
		return;
	a->msg.qos = WVM_QOS_BULK;
	a->msg.flags = d->keep ? WVM_MSG_KEEP : 0;
	a->source = d->keep ? WVM_DATA_RAM : WVM_DATA_OUTBOX;
	a->hole = d->keep && wvm_held_of(core, d->vm, d->page)->hole;
	a->slot = slot_of(core, d) - 1;
}

/* ---- giving up ------------------------------------------------------------------------- */

static void give_up(struct wvm_core *core, uint32_t vm, uint64_t page, struct wvm_held_page *h)
{
	wvm_note_held(core, vm, page);
	wvm_core_emit(core, WVM_ACT_PUNCH, vm, page);
	if (h->invalidated < h->version)
		h->invalidated = h->version;
	h->lost_ns = core->now_ns;
	wvm_wander_lost(&core->params, h);
	wvm_holder_set(core, vm, page, WVM_HELD_INVALID);
}

static void drop_shared(struct wvm_core *core, uint32_t vm, uint64_t page, struct wvm_held_page *h)
{
	wvm_core_emit(core, WVM_ACT_PROTECT, vm, page);
	give_up(core, vm, page, h);
}

/* The bytes move to the outbox: no thread of this node may read them once others may write. */
static void save_and_drop(struct wvm_core *core, struct wvm_demand *d, struct wvm_held_page *h)
{
	struct wvm_action *a = wvm_core_emit(core, WVM_ACT_SAVE, d->vm, d->page);

	a->slot = slot_of(core, d) - 1;
	a->hole = h->hole;
	give_up(core, d->vm, d->page, h);
	d->keep = false;
	set_kept(core, d, true);
}

/* The page is about to be removed: its bytes are in the outbox, if they are to be kept. */
void wvm_holder_saved(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint32_t slot = wvm_held_of(core, vm, page)->demand;

	if (slot && core->demands[slot - 1].state == WVM_DEMAND_WRITE_BACK)
		core->kept[slot - 1].saved = 1;
}

/*
 * A Shared copy whose upgrade failed goes: a page that is there cannot be made
 * an error for whoever touches it. Unacknowledged bytes are kept in the outbox.
 */
void wvm_holder_drop_shared(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_demand *d = h->demand ? &core->demands[h->demand - 1] : NULL;

	WVM_ASSERT(h->state == WVM_HELD_SHARED);
	if (d && d->state == WVM_DEMAND_WRITE_BACK) {
		save_and_drop(core, d, h);
		return;
	}
	drop_shared(core, vm, page, h);
	if (d) {
		answer(core, d, WVM_MSG_INVALIDATE_ACK);
		finish(core, d);
	}
}

void wvm_core_not_installed(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);

	WVM_ASSERT(h->state != WVM_HELD_INVALID);
	wvm_undo_commit(core);
	wvm_note_held(core, vm, page);
	/* Asked for before it came: what waits for the hold time is answered now. */
	if (h->demand) {
		struct wvm_demand *d = &core->demands[h->demand - 1];

		WVM_ASSERT(d->state == WVM_DEMAND_HELD);
		answer(core, d,
		       d->type == WVM_MSG_INVALIDATE ? WVM_MSG_INVALIDATE_ACK : WVM_MSG_NOT_HELD);
		finish(core, d);
	}
	wvm_holder_set(core, vm, page, WVM_HELD_INVALID);
	h->pins = 0;
	core->stats.grants_undone++;
}

/*
 * A Modified grant ends what was asked of the Shared copy before it: the home
 * has given that up (a transaction at its deadline), or it would not have granted.
 */
void wvm_holder_superseded(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_held_page *h = wvm_held_of(core, vm, page);

	if (!h->demand)
		return;
	WVM_ASSERT(core->demands[h->demand - 1].state == WVM_DEMAND_HELD);
	finish(core, &core->demands[h->demand - 1]);
}

static void write_back(struct wvm_core *core, struct wvm_demand *d)
{
	answer(core, d, WVM_MSG_WRITE_BACK);
	wvm_core_timer_arm(&core->timers, &d->timer,
			   core->now_ns + wvm_core_backoff(core, d->member, d->tries));
}

/* Carries d out: the hold time is over and the page is not pinned. */
static void obey(struct wvm_core *core, struct wvm_demand *d)
{
	struct wvm_held_page *h = wvm_held_of(core, d->vm, d->page);

	WVM_ASSERT(h->grant == d->grant && h->version == d->version);
	if (d->type == WVM_MSG_INVALIDATE) {
		WVM_ASSERT(h->state == WVM_HELD_SHARED);
		drop_shared(core, d->vm, d->page, h);
		answer(core, d, WVM_MSG_INVALIDATE_ACK);
		finish(core, d);
		return;
	}
	WVM_ASSERT(h->state == WVM_HELD_MODIFIED);
	wvm_core_emit(core, WVM_ACT_PROTECT, d->vm, d->page);
	d->state = WVM_DEMAND_WRITE_BACK;
	core->stats.writebacks_now++;
	d->tries = 0;
	if (d->type == WVM_MSG_DOWNGRADE) {
		/* A program that maps later protects itself from what it finds in the file. */
		if (h->hole)
			wvm_core_emit(core, WVM_ACT_SETTLE, d->vm, d->page);
		wvm_note_held(core, d->vm, d->page);
		wvm_holder_set(core, d->vm, d->page, WVM_HELD_SHARED);
		d->keep = true;
		set_kept(core, d, true);
	} else {
		save_and_drop(core, d, h);
	}
	core->stats.write_backs++;
	write_back(core, d);
}

/*
 * A Modified page leaves unasked, as by a FETCH. That has no transaction of the
 * home to name: the grant's id stands for it. False: no slot.
 */
bool wvm_holder_leave(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_msg fetch = {
		.type = WVM_MSG_FETCH_AND_INVALIDATE,
		.request = h->grant,
		.grant = h->grant,
		.version = h->version,
		.reply_steer = wvm_slice_of(core->vms[vm].id, page << WVM_PAGE_SHIFT)};
	uint32_t member = wvm_core_home_of(core, vm, page, &fetch.src);
	struct wvm_demand *d = begin(core, vm, page, member, &fetch);

	if (d)
		obey(core, d);
	return d != NULL;
}

#define PARKED_PART 8u /* of the slots, for pinned pages: their programs may keep them long */

/*
 * The page is pinned: wvm_core_unpin() goes on. False: too many wait like this,
 * and the demand is dropped as if it had been lost; the home asks again.
 */
static bool park(struct wvm_core *core, struct wvm_demand *d)
{
	uint32_t most = core->params.limits.demands / PARKED_PART;

	if (core->demands_parked >= (most ? most : 1)) {
		finish(core, d);
		return false;
	}
	wvm_core_timer_cancel(&core->timers, &d->timer);
	core->demands_parked++;
	d->parked = true;
	return true;
}

/* Obeys now, or when the page may go. False: d is dropped. */
static bool obey_when_due(struct wvm_core *core, struct wvm_demand *d)
{
	const struct wvm_held_page *h = wvm_held_of(core, d->vm, d->page);
	bool pinned = h->state == WVM_HELD_MODIFIED && h->pins;

	d->state = WVM_DEMAND_HELD;
	if (!pinned && core->now_ns >= h->hold_until_ns) {
		obey(core, d);
		return true;
	}
	core->stats.demands_held++;
	if (pinned)
		return park(core, d);
	wvm_core_timer_arm(&core->timers, &d->timer, h->hold_until_ns);
	return true;
}

void wvm_holder_timer(struct wvm_core *core, struct wvm_demand *d)
{
	if (d->state == WVM_DEMAND_HELD) {
		obey_when_due(core, d);
		return;
	}
	/* The only copy of these bytes: it is sent until the home has it, however long that is. */
	if (d->tries < UINT16_MAX)
		d->tries++;
	core->stats.write_backs_retried++;
	write_back(core, d);
}

/*
 * What a former home asked for and is not done is forgotten: the new one asks anew. What was
 * written back to it, and it did not say that it has it, goes to the new one.
 */
void wvm_holder_rehome(struct wvm_core *core)
{
	for (uint32_t i = 0; i < core->params.limits.demands; i++) {
		struct wvm_demand *d = &core->demands[i];

		if (!d->used || !wvm_handover_moved(core, d->vm, d->page))
			continue;
		if (d->state == WVM_DEMAND_HELD) {
			finish(core, d);
			continue;
		}
		core->peers[d->member].demands--;
		d->member = wvm_core_home_of(core, d->vm, d->page, &d->home_vnode);
		core->peers[d->member].demands++;
		d->tries = 0;
		wvm_core_timer_arm(&core->timers, &d->timer, core->now_ns);
	}
}

void wvm_core_unpin(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_demand *d;

	core->now_ns = now_ns;
	wvm_undo_commit(core);
	WVM_ASSERT(h->pins > 0);
	if (--h->pins || !h->demand)
		return;
	d = &core->demands[h->demand - 1];
	if (!d->parked)
		return; /* written back, or the hold time runs */
	d->parked = false;
	core->demands_parked--;
	/* By the timer: many pages may be unpinned at once, and the room for actions is bounded. */
	wvm_core_timer_arm(&core->timers, &d->timer,
			   now_ns > h->hold_until_ns ? now_ns : h->hold_until_ns);
}

/* ---- the home's messages --------------------------------------------------------------- */

/* The home repeats what is answered and not acknowledged, or asks for more of the same copy. */
static void repeat(struct wvm_core *core, struct wvm_demand *d, const struct wvm_msg *msg)
{
	struct wvm_held_page *h = wvm_held_of(core, d->vm, d->page);

	d->txn = msg->request;
	d->steer = msg->reply_steer;
	if (msg->type == WVM_MSG_INVALIDATE) {
		/*
		 * Asked of sharers only: the home has the bytes, its acknowledgement was lost.
		 * Where there are second homes, or theirs has them not yet: then they are kept on.
		 */
		if (d->keep && core->params.backup)
			save_and_drop(core, d, h);
		else if (d->keep)
			drop_shared(core, d->vm, d->page, h);
		answer(core, d, WVM_MSG_INVALIDATE_ACK);
		if (!core->params.backup)
			finish(core, d);
		return;
	}
	if (msg->type == WVM_MSG_FETCH_AND_INVALIDATE && d->keep)
		save_and_drop(core, d, h);
	answer(core, d, WVM_MSG_WRITE_BACK);
}

static enum wvm_drop named_copy(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	bool of_sharer = msg->type == WVM_MSG_INVALIDATE;
	struct wvm_demand *d;

	/* An owner is never asked to INVALIDATE, nor a sharer to write back: late, or forged. */
	if (of_sharer != (h->state == WVM_HELD_SHARED))
		return WVM_DROP_STALE;
	if (h->demand) {
		d = &core->demands[h->demand - 1];
		WVM_ASSERT(d->state == WVM_DEMAND_HELD);
		d->type = msg->type;
		d->txn = msg->request;
		return WVM_DROP_NONE;
	}
	d = begin(core, vm, page, member, msg);
	if (!d)
		return WVM_DROP_ROOM;
	return obey_when_due(core, d) ? WVM_DROP_NONE : WVM_DROP_ROOM;
}

/* As in repeat(), what was written back of it and is not acknowledged. */
static void drop_older(struct wvm_core *core, uint32_t vm, uint64_t page, struct wvm_held_page *h)
{
	struct wvm_demand *d = h->demand ? &core->demands[h->demand - 1] : NULL;

	if (d && d->state == WVM_DEMAND_WRITE_BACK && core->params.backup) {
		save_and_drop(core, d, h);
		return;
	}
	drop_shared(core, vm, page, h);
	if (d)
		finish(core, d);
}

/*
 * The message means a grant that this node does not have: it never came, and
 * now never will be taken; or it is long over.
 */
static enum wvm_drop other_copy(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_request *r = wvm_unit_asked(core, vm, page, msg->grant);
	uint16_t boot = wvm_request_boot(msg->grant);
	struct wvm_demand d = {.page = page,
			       .txn = msg->request,
			       .grant = msg->grant,
			       .version = msg->version,
			       .vm = vm,
			       .member = member,
			       .home_vnode = msg->src,
			       .steer = msg->reply_steer};
	uint8_t type = WVM_MSG_INVALIDATE_ACK;

	if (r && wvm_request_early(core, r, msg))
		return WVM_DROP_NONE;
	if (boot > core->params.boot)
		return WVM_DROP_STALE; /* nobody was granted anything in a boot to come */
	if (h->state == WVM_HELD_MODIFIED && msg->version > h->version)
		return WVM_DROP_STALE; /* no home grants past an owner */
	/* The home counts on a newer grant here: an older Shared copy is not in its records. */
	if (h->state == WVM_HELD_SHARED && msg->version > h->version)
		drop_older(core, vm, page, h);
	if (msg->type != WVM_MSG_INVALIDATE)
		type = boot >= core->params.boot_first ? WVM_MSG_NOT_HELD : WVM_MSG_LOST;
	answer(core, &d, type);
	/*
	 * The id alone ends the grant. Its version is not given up: that of a Modified
	 * grant never was, and the home goes back to the one before.
	 */
	if (r)
		wvm_request_renew(core, r);
	return WVM_DROP_NONE;
}

enum wvm_drop wvm_holder_demand(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_demand *d = h->demand ? &core->demands[h->demand - 1] : NULL;

	wvm_merge_demanded(core, vm, page, msg);
	if (wvm_unit_mine(wvm_held_unit_of(core, vm, page), page))
		wvm_unit_split(core, vm, page);
	if (d && d->state == WVM_DEMAND_WRITE_BACK && d->grant == msg->grant &&
	    d->version == msg->version) {
		repeat(core, d, msg);
		return WVM_DROP_NONE;
	}
	if (h->state != WVM_HELD_INVALID && h->grant == msg->grant && h->version == msg->version)
		return named_copy(core, vm, page, member, msg);
	return other_copy(core, vm, page, member, msg);
}

enum wvm_drop wvm_holder_acknowledged(struct wvm_core *core, uint32_t vm, uint64_t page,
				      uint32_t member, const struct wvm_msg *msg)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_demand *d = h->demand ? &core->demands[h->demand - 1] : NULL;

	if (!d || d->state != WVM_DEMAND_WRITE_BACK || d->grant != msg->grant ||
	    d->version != msg->version || d->member != member)
		return WVM_DROP_STALE;
	finish(core, d);
	return WVM_DROP_NONE;
}

/*
 * The home: the directory entry of every page of its slices, one transaction
 * per page at a time, later requests queued in order. A request is always
 * carried out against the present state, also when it is a retry: no grant is
 * replayed from a cache.
 */
#include "shared/core/core_int.h"

static uint32_t slot_of(const struct wvm_core *core, const struct wvm_txn *t)
{
	return (uint32_t)(t - core->txns) + 1;
}

/* ---- grants ---------------------------------------------------------------------------- */

/* One counter per unit, so that a page forgotten by one entry never goes back in time. */
uint64_t wvm_home_version(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	uint64_t floor = (uint64_t)core->params.epoch << 32;

	if (u->version < floor)
		u->version = floor;
	return ++u->version;
}

struct wvm_action *wvm_home_reply(struct wvm_core *core, uint32_t vm, uint64_t page,
				  const struct wvm_asked *q)
{
	struct wvm_action *a = wvm_core_send(core, WVM_MSG_MEM_ACK, vm, page, q->member, q->vnode);

	a->msg.request = q->id;
	a->msg.steer = q->reply_steer;
	a->msg.reply_steer = wvm_slice_of(core->vms[vm].id, page << WVM_PAGE_SHIFT);
	return a;
}

/* Answers with `version`, sending the stored copy unless the requester holds it already. */
static void grant(struct wvm_core *core, uint32_t vm, uint64_t page, const struct wvm_asked *q,
		  uint64_t version)
{
	const struct wvm_home_page *e = wvm_home_of(core, vm, page);
	struct wvm_action *a = wvm_home_reply(core, vm, page, q);
	bool holds = q->type == WVM_MSG_MEM_ACQUIRE && q->flags & WVM_MSG_HELD &&
		     q->version == e->version;

	a->msg.version = version;
	if (holds) {
		a->msg.flags = WVM_MSG_HELD;
	} else if (!(e->flags & WVM_HOME_WRITTEN)) {
		a->msg.flags = WVM_MSG_ZERO;
	} else {
		a->source = WVM_DATA_STORE;
		a->msg.qos = WVM_QOS_BULK;
	}
}

static void grant_modified(struct wvm_core *core, uint32_t vm, uint64_t page,
			   const struct wvm_asked *q)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	wvm_holders_clear(core, e);
	e->state = WVM_HOME_MODIFIED;
	e->granted = wvm_home_version(core, vm, page);
	wvm_holders_add(core, e, q->member, q->id);
	grant(core, vm, page, q, e->granted);
}

/*
 * Takes one sharer that is gone out of the records: no more, since each may change three blocks
 * that the undo log must have. Others are found by the retry of the transaction.
 */
static bool strike_gone(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	if (!core->peers_gone || e->state != WVM_HOME_SHARED)
		return false;
	for (uint32_t i = 0; i < e->holders; i++) {
		if (!core->peers[*wvm_holders_at(core, e, i).member].gone)
			continue;
		wvm_note_home(core, vm, page);
		wvm_holders_remove(core, e, i);
		if (!e->holders)
			e->state = WVM_HOME_HOME;
		return true;
	}
	return false;
}

/* From now on the page is an error: never an older copy. The caller has noted the entry. */
static void lose(struct wvm_core *core, struct wvm_home_page *e)
{
	wvm_holders_clear(core, e);
	e->state = WVM_HOME_HOME;
	if (e->flags & WVM_HOME_UNSTORED)
		e->granted = 0; /* or it would name who is to write it back */
	e->flags &= (uint8_t) ~(WVM_HOME_ASKED | WVM_HOME_UNSTORED);
	e->flags |= WVM_HOME_LOST;
	core->stats.home_lost++;
}

static bool owner_dead(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	return e->state == WVM_HOME_MODIFIED &&
	       core->peers[*wvm_holders_at(core, e, 0).member].lost;
}

/* Its owner is dead, and its bytes with it. False: that cannot be passed on yet. */
static bool lose_dead(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	if (!wvm_backup_lose(core, vm, page))
		return false;
	wvm_note_home(core, vm, page);
	lose(core, e);
	return true;
}

/* The owner never took its grant: the stored copy is current, if there is one. */
static void fall_back(struct wvm_core *core, struct wvm_home_page *e)
{
	if (e->flags & WVM_HOME_UNSTORED) {
		lose(core, e);
		return;
	}
	wvm_holders_clear(core, e);
	e->state = WVM_HOME_HOME;
	e->flags &= (uint8_t)~WVM_HOME_ASKED;
	core->stats.home_not_held++;
}

/* ---- transactions ---------------------------------------------------------------------- */

uint32_t wvm_home_take_waiting(struct wvm_core *core, const struct wvm_asked *q)
{
	uint32_t slot = core->free_waiting;

	if (!slot)
		return 0;
	core->free_waiting = core->waiting[slot - 1].next;
	core->waiting[slot - 1] = *q;
	core->waiting[slot - 1].next = 0;
	return slot;
}

void wvm_home_drop_waiting(struct wvm_core *core, uint32_t slot)
{
	core->waiting[slot - 1].next = core->free_waiting;
	core->free_waiting = slot;
}

/* Queues q behind t. Of one requester only the newest id counts. */
static enum wvm_drop queue(struct wvm_core *core, struct wvm_txn *t, const struct wvm_asked *q)
{
	uint32_t slot;

	if (t->state != WVM_TXN_DRAIN && t->asked.member == q->member) {
		if (q->id < t->asked.id)
			return WVM_DROP_STALE;
		t->asked = *q;
		return WVM_DROP_NONE;
	}
	for (slot = t->queue_head; slot; slot = core->waiting[slot - 1].next) {
		struct wvm_asked *w = &core->waiting[slot - 1];
		uint32_t next = w->next;

		if (w->member != q->member)
			continue;
		if (q->id < w->id)
			return WVM_DROP_STALE;
		*w = *q;
		w->next = next;
		return WVM_DROP_NONE;
	}
	slot = wvm_home_take_waiting(core, q);
	if (!slot)
		return WVM_DROP_ROOM;
	*(t->queue_head ? &core->waiting[t->queue_tail - 1].next : &t->queue_head) = slot;
	t->queue_tail = slot;
	return WVM_DROP_NONE;
}

static void demand(struct wvm_core *core, const struct wvm_txn *t, uint8_t type,
		   struct wvm_holder h, uint64_t version)
{
	uint32_t vnode = core->params.members->list[*h.member].first_vnode;
	struct wvm_action *a = wvm_core_send(core, type, t->vm, t->page, *h.member, vnode);

	a->msg.request = t->id;
	a->msg.grant = *h.grant;
	a->msg.version = version;
	a->msg.steer = wvm_holder_steer(t->page);
	a->msg.reply_steer = wvm_slice_of(core->vms[t->vm].id, t->page << WVM_PAGE_SHIFT);
}

/* One round of INVALIDATEs, at most WVM_TXN_BATCH at a time. True when the round is done. */
static bool invalidate_some(struct wvm_core *core, struct wvm_txn *t, struct wvm_home_page *e)
{
	uint32_t sent = 0;

	for (; t->cursor < e->holders; t->cursor++) {
		struct wvm_holder h = wvm_holders_at(core, e, t->cursor);

		if (*h.member == t->asked.member && t->asked.type == WVM_MSG_MEM_ACQUIRE)
			continue;
		if (sent++ == WVM_TXN_BATCH)
			return false;
		demand(core, t, WVM_MSG_INVALIDATE, h, e->version);
	}
	t->cursor = 0;
	return true;
}

/* Sends what the transaction waits for, and arms the retry. */
static void pursue(struct wvm_core *core, struct wvm_txn *t)
{
	struct wvm_home_page *e = wvm_home_of(core, t->vm, t->page);
	uint32_t slowest = core->params.self;
	uint64_t due = core->now_ns;

	if (wvm_core_id_old(core, t->id))
		t->id = wvm_core_next_id(core);
	if (t->state == WVM_TXN_INVALIDATE) {
		if (!invalidate_some(core, t, e)) {
			wvm_core_timer_arm(&core->timers, &t->timer, due);
			return;
		}
		slowest = *wvm_holders_at(core, e, 0).member;
	} else {
		struct wvm_holder owner = wvm_holders_at(core, e, 0);

		demand(core, t,
		       t->state == WVM_TXN_DOWNGRADE ? WVM_MSG_DOWNGRADE
						     : WVM_MSG_FETCH_AND_INVALIDATE,
		       owner, e->granted);
		slowest = *owner.member;
	}
	due += wvm_core_backoff(core, slowest, t->tries);
	wvm_core_timer_arm(&core->timers, &t->timer, due);
}

static enum wvm_drop begin(struct wvm_core *core, uint32_t vm, uint64_t page,
			   const struct wvm_asked *q, enum wvm_txn_state state)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	uint32_t slot = core->free_txn;
	struct wvm_txn *t;

	if (!slot)
		return WVM_DROP_ROOM;
	t = &core->txns[slot - 1];
	core->free_txn = t->next;
	*t = (struct wvm_txn){.timer.kind = WVM_TIMER_TXN,
			      .asked = *q,
			      .id = wvm_core_next_id(core),
			      .page = page,
			      .started_ns = core->now_ns,
			      .vm = vm,
			      .state = state};
	e->txn = slot;
	if (e->state == WVM_HOME_MODIFIED)
		e->flags |= WVM_HOME_ASKED;
	core->stats.home_txns++;
	pursue(core, t);
	return WVM_DROP_NONE;
}

static void release(struct wvm_core *core, struct wvm_txn *t)
{
	wvm_home_of(core, t->vm, t->page)->txn = 0;
	wvm_core_timer_cancel(&core->timers, &t->timer);
	t->next = core->free_txn;
	core->free_txn = slot_of(core, t);
}

static enum wvm_drop start(struct wvm_core *core, uint32_t vm, uint64_t page,
			   const struct wvm_asked *q);

/*
 * The transaction has what it waited for: its request is answered, then the
 * queued ones in order, until one of them needs a transaction of its own,
 * which takes over the rest of the queue.
 */
static void go_on(struct wvm_core *core, struct wvm_txn *t)
{
	struct wvm_home_page *e = wvm_home_of(core, t->vm, t->page);
	uint32_t vm = t->vm, head = t->queue_head, tail = t->queue_tail, batch = 0;
	uint64_t page = t->page;
	struct wvm_asked q = t->asked;
	bool drained = t->state == WVM_TXN_DRAIN;

	release(core, t);
	if (!drained)
		start(core, vm, page, &q);
	while (head && !e->txn && batch++ < WVM_TXN_BATCH) {
		uint32_t slot = head;

		q = core->waiting[slot - 1];
		head = q.next;
		wvm_home_drop_waiting(core, slot);
		start(core, vm, page, &q);
	}
	if (!head)
		return;
	if (!e->txn) {
		/* The slot that was just released is free. */
		t = &core->txns[core->free_txn - 1];
		core->free_txn = t->next;
		*t = (struct wvm_txn){.timer.kind = WVM_TIMER_TXN,
				      .page = page,
				      .started_ns = core->now_ns,
				      .vm = vm,
				      .state = WVM_TXN_DRAIN};
		e->txn = slot_of(core, t);
		wvm_core_timer_arm(&core->timers, &t->timer, core->now_ns);
	}
	t = &core->txns[e->txn - 1];
	WVM_ASSERT(!t->queue_head);
	t->queue_head = head;
	t->queue_tail = tail;
}

/* Whether all holders but an acquiring requester are gone. */
static bool invalidated(struct wvm_core *core, const struct wvm_txn *t, struct wvm_home_page *e)
{
	if (t->asked.type != WVM_MSG_MEM_ACQUIRE)
		return !e->holders;
	return !e->holders ||
	       (e->holders == 1 && *wvm_holders_at(core, e, 0).member == t->asked.member);
}

static void abandon(struct wvm_core *core, struct wvm_txn *t)
{
	while (t->queue_head) {
		uint32_t slot = t->queue_head;

		t->queue_head = core->waiting[slot - 1].next;
		wvm_home_drop_waiting(core, slot);
	}
	release(core, t);
}

/* Nothing of the pages that are homed elsewhere now is changed here any more. */
void wvm_home_rehome(struct wvm_core *core)
{
	for (uint32_t i = 0; i < core->params.limits.txns; i++) {
		struct wvm_txn *t = &core->txns[i];

		if (t->timer.place && wvm_handover_moved(core, t->vm, t->page))
			abandon(core, t);
	}
}

void wvm_core_gone(struct wvm_core *core, uint32_t member, bool gone)
{
	WVM_ASSERT(member < core->params.members->count && member != core->params.self);
	core->peers_gone -= core->peers[member].gone;
	core->peers[member].gone = gone;
	core->peers_gone += gone;
}

void wvm_home_timer(struct wvm_core *core, struct wvm_txn *t)
{
	if (t->state == WVM_TXN_DRAIN) {
		go_on(core, t);
		return;
	}
	if (core->now_ns - t->started_ns >= core->params.times.deadline_ns) {
		/* Whoever waits has its own deadline, and asks again until then. */
		core->stats.home_txn_aborted++;
		abandon(core, t);
		return;
	}
	/* LOST meanwhile (renewed.h), or by this. */
	if ((t->state != WVM_TXN_INVALIDATE &&
	     wvm_home_of(core, t->vm, t->page)->state != WVM_HOME_MODIFIED) ||
	    (owner_dead(core, t->vm, t->page) && lose_dead(core, t->vm, t->page))) {
		go_on(core, t);
		return;
	}
	if (t->state == WVM_TXN_INVALIDATE && strike_gone(core, t->vm, t->page)) {
		t->cursor = 0; /* as in wvm_home_invalidated() */
		if (invalidated(core, t, wvm_home_of(core, t->vm, t->page))) {
			go_on(core, t);
			return;
		}
	}
	if (!t->cursor) {
		core->stats.home_txn_retries++;
		if (t->tries < UINT16_MAX)
			t->tries++;
	}
	pursue(core, t);
}

/* ---- requests -------------------------------------------------------------------------- */

static enum wvm_drop start_read(struct wvm_core *core, uint32_t vm, uint64_t page,
				const struct wvm_asked *q)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	uint32_t record = wvm_holders_find(core, e, q->member);

	if (e->state == WVM_HOME_MODIFIED)
		return begin(core, vm, page, q, WVM_TXN_DOWNGRADE);
	if (record != WVM_NIL) {
		wvm_holders_set(core, e, record, q->id);
	} else if (!wvm_holders_add(core, e, q->member, q->id)) {
		/* No room for one more sharer: all others give way. */
		core->stats.home_evicted++;
		return begin(core, vm, page, q, WVM_TXN_INVALIDATE);
	}
	e->state = WVM_HOME_SHARED;
	grant(core, vm, page, q, e->version);
	return WVM_DROP_NONE;
}

static enum wvm_drop start_acquire(struct wvm_core *core, uint32_t vm, uint64_t page,
				   const struct wvm_asked *q)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	if (e->state == WVM_HOME_MODIFIED)
		return begin(core, vm, page, q, WVM_TXN_FETCH);
	if (e->holders > 1 || (e->holders == 1 && *wvm_holders_at(core, e, 0).member != q->member))
		return begin(core, vm, page, q, WVM_TXN_INVALIDATE);
	grant_modified(core, vm, page, q);
	return WVM_DROP_NONE;
}

static void say_lost(struct wvm_core *core, uint32_t vm, uint64_t page, const struct wvm_asked *q)
{
	wvm_home_reply(core, vm, page, q)->msg.flags = WVM_MSG_ERROR;
}

/*
 * What the home knows of the requester decides first. A smaller id than the
 * recorded one is a late copy. The recorded one again is a retry: the grant is
 * repeated; unless it asked for M and is Shared by now, then it is over. A
 * newer id from the owner says that the owner never took its grant, since it
 * asks for nothing while it is Modified or its write-back is on the way. From
 * a later life of the owner it says nothing of the kind: the former one may
 * have stored, and only the owner knows whether its bytes were taken over. It is
 * asked, like any owner. So is one who was granted the whole unit: the request may
 * have been on its way when that grant came.
 */
static enum wvm_drop check_record(struct wvm_core *core, uint32_t vm, uint64_t page,
				  const struct wvm_asked *q, bool *done)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	uint32_t record = wvm_holders_find(core, e, q->member);
	uint64_t known = record == WVM_NIL ? 0 : *wvm_holders_at(core, e, record).grant;

	*done = true;
	if (q->id < known)
		return WVM_DROP_STALE;
	if (e->state == WVM_HOME_MODIFIED && record != WVM_NIL) {
		if (q->id == known) {
			if (q->type != WVM_MSG_MEM_ACQUIRE)
				return WVM_DROP_STALE;
			grant(core, vm, page, q, e->granted);
			return WVM_DROP_NONE;
		}
		if (wvm_request_boot(q->id) != wvm_request_boot(known) ||
		    wvm_unit_owns(core, vm, page))
			return begin(core, vm, page, q, WVM_TXN_FETCH);
		if (e->flags & WVM_HOME_UNSTORED && !wvm_backup_lose(core, vm, page))
			return WVM_DROP_ROOM;
		fall_back(core, e);
		if (e->flags & WVM_HOME_LOST) {
			say_lost(core, vm, page, q);
			return WVM_DROP_NONE;
		}
	} else if (record != WVM_NIL && q->id == known && q->type == WVM_MSG_MEM_ACQUIRE) {
		return WVM_DROP_STALE;
	}
	*done = false;
	return WVM_DROP_NONE;
}

static enum wvm_drop start(struct wvm_core *core, uint32_t vm, uint64_t page,
			   const struct wvm_asked *q)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	enum wvm_drop drop;
	bool done;

	WVM_ASSERT(!e->txn);
	if (core->peers[q->member].lost || wvm_renewed_before(core, q->member, q->id))
		return WVM_DROP_STALE; /* it asked before it died */
	wvm_note_home(core, vm, page);
	wvm_unit_track(core, vm, page);
	if (owner_dead(core, vm, page) && !lose_dead(core, vm, page))
		return WVM_DROP_ROOM;
	if (e->flags & WVM_HOME_LOST) {
		say_lost(core, vm, page, q);
		return WVM_DROP_NONE;
	}
	strike_gone(core, vm, page);
	drop = check_record(core, vm, page, q, &done);
	if (done)
		return drop;
	return q->type == WVM_MSG_MEM_READ ? start_read(core, vm, page, q)
					   : start_acquire(core, vm, page, q);
}

enum wvm_drop wvm_home_asked(struct wvm_core *core, uint32_t vm, uint64_t page,
			     const struct wvm_asked *q)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	enum wvm_drop drop;
	struct wvm_txn *t;

	if (wvm_renewed_before(core, q->member, q->id))
		return WVM_DROP_STALE;
	if (wvm_unit_grant(core, vm, page, q))
		return WVM_DROP_NONE;
	if (!e->txn)
		return start(core, vm, page, q);
	t = &core->txns[e->txn - 1];
	drop = queue(core, t, q);
	/* A requester that acquires now may keep its record, which it could not as a reader. */
	if (!drop && t->state == WVM_TXN_INVALIDATE && invalidated(core, t, e))
		go_on(core, t);
	return drop;
}

enum wvm_drop wvm_home_request(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			       const struct wvm_msg *msg)
{
	struct wvm_asked q = wvm_asked_by(member, msg);

	if (wvm_renewed_before(core, member, msg->request))
		return WVM_DROP_STALE;
	if (wvm_msg_asks_merge(msg))
		return wvm_merge_request(core, vm, page, member, msg);
	(*(q.type == WVM_MSG_MEM_READ ? &core->stats.home_reads : &core->stats.home_acquires))++;
	return wvm_home_asked(core, vm, page, &q);
}

/* ---- answers of holders ---------------------------------------------------------------- */

enum wvm_drop wvm_home_invalidated(struct wvm_core *core, uint32_t vm, uint64_t page,
				   uint32_t member, const struct wvm_msg *msg)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	struct wvm_txn *t = e->txn ? &core->txns[e->txn - 1] : NULL;
	uint32_t record = wvm_holders_find(core, e, member);

	if (!t || t->state != WVM_TXN_INVALIDATE || record == WVM_NIL ||
	    *wvm_holders_at(core, e, record).grant != msg->grant || e->version != msg->version)
		return WVM_DROP_STALE;
	wvm_note_home(core, vm, page);
	wvm_holders_remove(core, e, record);
	t->cursor = 0; /* records have moved; a holder asked twice answers twice */
	if (!e->holders)
		e->state = WVM_HOME_HOME;
	if (invalidated(core, t, e))
		go_on(core, t);
	return WVM_DROP_NONE;
}

/* The copy that the entry calls Modified, and this message means. */
static bool is_owner(struct wvm_core *core, struct wvm_home_page *e, uint32_t member,
		     const struct wvm_msg *msg)
{
	if (e->state != WVM_HOME_MODIFIED)
		return false;
	WVM_ASSERT(e->holders == 1);
	return *wvm_holders_at(core, e, 0).member == member &&
	       *wvm_holders_at(core, e, 0).grant == msg->grant && e->granted == msg->version;
}

/* NOT_HELD or LOST: what this transaction asks the owner for is not there. */
enum wvm_drop wvm_home_refused(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			       const struct wvm_msg *msg)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	struct wvm_txn *t = e->txn ? &core->txns[e->txn - 1] : NULL;

	if (!t || (t->state != WVM_TXN_DOWNGRADE && t->state != WVM_TXN_FETCH) ||
	    !is_owner(core, e, member, msg))
		return WVM_DROP_STALE;
	/* Of a merge there is no such answer: its owner has the pages, by one grant or the other.
	 */
	if (msg->type == WVM_MSG_NOT_HELD && wvm_home_unit_of(core, vm, page)->merged &&
	    wvm_unit_owns(core, vm, page))
		return WVM_DROP_STALE;
	if ((msg->type == WVM_MSG_LOST || e->flags & WVM_HOME_UNSTORED) &&
	    !wvm_backup_lose(core, vm, page))
		return WVM_DROP_ROOM; /* it is asked again */
	wvm_note_home(core, vm, page);
	if (msg->type == WVM_MSG_NOT_HELD && wvm_unit_owns(core, vm, page))
		wvm_unit_refused(core, vm, page);
	if (msg->type == WVM_MSG_LOST)
		lose(core, e);
	else
		fall_back(core, e);
	go_on(core, t);
	return WVM_DROP_NONE;
}

bool wvm_home_wants(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
		    const struct wvm_msg *msg)
{
	wvm_merge_renew(core, vm, page);
	wvm_unit_written(core, vm, page, member, msg);
	return is_owner(core, wvm_home_of(core, vm, page), member, msg) ||
	       wvm_rebuild_awaits(wvm_home_of(core, vm, page), member, msg);
}

void wvm_home_acknowledge(struct wvm_core *core, uint32_t vm, uint64_t page,
			  const struct wvm_written *w)
{
	struct wvm_action *a = wvm_core_send(core, WVM_MSG_WRITE_BACK_ACK, vm, page, w->member,
					     w->vnode);

	a->msg.request = w->request;
	a->msg.grant = w->grant;
	a->msg.version = w->version;
	a->msg.steer = w->reply_steer;
	a->msg.reply_steer = w->steer;
}

/* Stored here; acknowledged as soon as the second home has it, too. */
static void acknowledge(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			const struct wvm_msg *msg)
{
	struct wvm_written w = {.request = msg->request,
				.grant = msg->grant,
				.version = msg->version,
				.member = member,
				.vnode = msg->src,
				.steer = msg->steer,
				.reply_steer = msg->reply_steer};

	if (!wvm_backup_written(core, vm, page, &w))
		wvm_home_acknowledge(core, vm, page, &w);
}

/* The bytes first, then the entry that says they are there. */
static void store(struct wvm_core *core, uint32_t vm, uint64_t page, const struct wvm_msg *msg,
		  const uint8_t *data)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	wvm_note_home(core, vm, page);
	if (msg->flags & WVM_MSG_ZERO) {
		e->flags &= ~WVM_HOME_WRITTEN;
	} else {
		__builtin_memcpy(core->vms[vm].store + (page << WVM_PAGE_SHIFT), data,
				 WVM_PAGE_BYTES);
		e->flags |= WVM_HOME_WRITTEN;
	}
	e->flags &= (uint8_t)~WVM_HOME_UNSTORED;
}

static void keep_data(struct wvm_core *core, uint32_t vm, uint64_t page, const struct wvm_msg *msg,
		      const uint8_t *data)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	store(core, vm, page, msg, data);
	e->version = e->granted;
	e->flags &= (uint8_t)~WVM_HOME_ASKED;
	if (msg->flags & WVM_MSG_KEEP) {
		e->state = WVM_HOME_SHARED;
	} else {
		wvm_holders_clear(core, e);
		e->state = WVM_HOME_HOME;
	}
}

enum wvm_drop wvm_home_write_back(struct wvm_core *core, uint32_t vm, uint64_t page,
				  uint32_t member, const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	struct wvm_txn *t = e->txn ? &core->txns[e->txn - 1] : NULL;
	const struct wvm_home_unit *unit = wvm_home_unit_of(core, vm, page);

	wvm_unit_written(core, vm, page, member, msg);
	if (wvm_rebuild_awaits(e, member, msg)) {
		if (!data && !(msg->flags & WVM_MSG_ZERO))
			return WVM_DROP_SEGMENT;
		store(core, vm, page, msg, data);
		e->granted = 0;
		wvm_rebuild_stored(core, vm, page);
		acknowledge(core, vm, page, member, msg);
		return WVM_DROP_NONE;
	}
	if (!is_owner(core, e, member, msg)) {
		/*
		 * An owner's record ends only with its write-back, or when the owner
		 * said that it never took the grant: these bytes are stored already.
		 */
		if (msg->version > e->version && msg->version > e->granted &&
		    !(unit->merged && msg->version < unit->granted))
			return WVM_DROP_STALE; /* never granted */
		acknowledge(core, vm, page, member, msg);
		return WVM_DROP_NONE;
	}
	/* Asked to leave, it once answered that it stays: its answer to the FETCH will come. */
	if (t && t->state == WVM_TXN_FETCH && msg->flags & WVM_MSG_KEEP)
		return WVM_DROP_STALE;
	if (!data && !(msg->flags & WVM_MSG_ZERO))
		return WVM_DROP_SEGMENT;
	keep_data(core, vm, page, msg, data);
	acknowledge(core, vm, page, member, msg);
	if (t)
		go_on(core, t);
	return WVM_DROP_NONE;
}

/*
 * Own requests: one per page, from the first fault to the grant, the error or
 * the deadline. The requester owns the retry.
 */
#include "shared/core/core_int.h"
#include "shared/core/wander.h"

static uint32_t slot_of(const struct wvm_core *core, const struct wvm_request *r)
{
	return (uint32_t)(r - core->requests) + 1;
}

/* A home that is being replaced, or that would be, is worth waiting for. */
static uint64_t deadline_of(const struct wvm_core *core, const struct wvm_request *r)
{
	bool replaced = wvm_backup_member(core, r->vm, r->page) != WVM_SLICE_NIL ||
			wvm_rebuild_of(core, r->vm, r->page);

	return r->started_ns +
	       (replaced ? core->params.times.deadline_lost_ns : core->params.times.deadline_ns);
}

static bool to_self(const struct wvm_core *core, const struct wvm_request *r)
{
	return r->member == core->params.self;
}

/* ---- sending --------------------------------------------------------------------------- */

static void transmit(struct wvm_core *core, struct wvm_request *r)
{
	const struct wvm_held_page *h = wvm_held_of(core, r->vm, r->page);
	uint64_t due = core->now_ns + wvm_core_backoff(core, r->member, r->tries);
	struct wvm_action *a;

	if (!r->id || wvm_core_id_old(core, r->id)) {
		if (r->id)
			core->stats.requests_renewed++;
		r->id = wvm_core_next_id(core);
		r->early.type = 0;
	}
	a = wvm_core_send(core, r->type, r->vm, r->page, r->member, r->home_vnode);
	a->msg.request = r->id;
	a->msg.steer = wvm_slice_of(core->vms[r->vm].id, r->page << WVM_PAGE_SHIFT);
	a->msg.reply_steer = wvm_holder_steer(r->page);
	if (h->state == WVM_HELD_SHARED) {
		a->msg.flags = WVM_MSG_HELD;
		a->msg.version = h->version;
	} else if (wvm_unit_asks(core, r)) {
		a->msg.flags = WVM_MSG_UNIT;
	}
	r->sent_ns = core->now_ns;
	if (due > deadline_of(core, r))
		due = deadline_of(core, r);
	wvm_core_timer_arm(&core->timers, &r->timer, due);
}

static void start_sending(struct wvm_core *core, struct wvm_request *r)
{
	r->state = WVM_REQUEST_SENT;
	r->tries = 0;
	core->stats.requests_sent++;
	transmit(core, r);
}

/* Sends r, or queues it until the peer's window has room. */
void wvm_request_submit(struct wvm_core *core, struct wvm_request *r)
{
	struct wvm_peer *peer = &core->peers[r->member];
	uint32_t slot = slot_of(core, r);

	if (to_self(core, r)) {
		start_sending(core, r);
		return;
	}
	if (!peer->queue_head && wvm_peer_open(peer)) {
		peer->in_flight++;
		r->in_window = true;
		start_sending(core, r);
		return;
	}
	r->state = WVM_REQUEST_WINDOW;
	r->next = 0;
	*(peer->queue_head ? &core->requests[peer->queue_tail - 1].next : &peer->queue_head) = slot;
	peer->queue_tail = slot;
	wvm_core_timer_arm(&core->timers, &r->timer, deadline_of(core, r));
}

/* Only at the deadline, so the walk along the queue is rare. */
static void leave_queue(struct wvm_core *core, struct wvm_request *r)
{
	struct wvm_peer *peer = &core->peers[r->member];
	uint32_t *link = &peer->queue_head, slot = slot_of(core, r), previous = 0;

	while (*link != slot) {
		WVM_ASSERT(*link);
		previous = *link;
		link = &core->requests[*link - 1].next;
	}
	*link = r->next;
	if (peer->queue_tail == slot)
		peer->queue_tail = previous;
}

/* r is not on its way any more: others may be. */
static void leave_window(struct wvm_core *core, struct wvm_request *r)
{
	struct wvm_peer *peer = &core->peers[r->member];

	if (to_self(core, r))
		return;
	if (r->state == WVM_REQUEST_WINDOW) {
		leave_queue(core, r);
	} else if (r->in_window) {
		WVM_ASSERT(peer->in_flight > 0);
		peer->in_flight--;
		r->in_window = false;
	}
	while (peer->queue_head && wvm_peer_open(peer)) {
		struct wvm_request *q = &core->requests[peer->queue_head - 1];

		peer->queue_head = q->next;
		peer->in_flight++;
		q->in_window = true;
		start_sending(core, q);
	}
}

/*
 * Those whose home is another one now, or is asked under `renewed`, are asked again, under new ids:
 * whatever was granted and did not come never will be taken. One after the other, by their
 * timers, since the room for actions is bounded; so are those that wait for a window that may open
 * by it.
 */
static void ask_anew(struct wvm_core *core, uint32_t renewed)
{
	for (uint32_t i = 0; i < core->params.limits.requests; i++) {
		struct wvm_request *r = &core->requests[i];
		bool queued = r->state == WVM_REQUEST_WINDOW, moved;
		uint64_t due;

		if (!r->timer.place)
			continue; /* free */
		if (renewed == WVM_NIL)
			moved = wvm_handover_moved(core, r->vm, r->page);
		else
			moved = r->state == WVM_REQUEST_SENT && r->member == renewed;
		if (!moved && !queued)
			continue;
		if (queued) {
			leave_queue(core, r);
		} else if (r->in_window) {
			core->peers[r->member].in_flight--;
			r->in_window = false;
		}
		r->member = wvm_core_home_of(core, r->vm, r->page, &r->home_vnode);
		if (r->state == WVM_REQUEST_UNIT || r->state == WVM_REQUEST_BLOCKED)
			continue;
		if (moved) {
			r->id = 0;
			r->early.type = 0;
		}
		r->state = WVM_REQUEST_MOVED;
		due = deadline_of(core, r); /* may be over: then it ends, and is not asked again */
		wvm_core_timer_arm(&core->timers, &r->timer,
				   core->now_ns < due ? core->now_ns : due);
	}
}

void wvm_request_rehome(struct wvm_core *core)
{
	ask_anew(core, WVM_NIL);
}

void wvm_request_renewed(struct wvm_core *core, uint32_t member)
{
	ask_anew(core, member);
}

/* ---- beginning and end ----------------------------------------------------------------- */

static struct wvm_request *begin(struct wvm_core *core, uint32_t vm, uint64_t page, uint8_t type)
{
	uint32_t slot = core->free_request;
	struct wvm_request *r;

	if (!slot || !wvm_unit_room(core, vm, page))
		return NULL;
	r = &core->requests[slot - 1];
	core->free_request = r->next;
	core->requests_free--;
	core->stats.requests_now++;
	*r = (struct wvm_request){.timer.kind = WVM_TIMER_REQUEST,
				  .page = page,
				  .vm = vm,
				  .type = type,
				  .started_ns = core->now_ns};
	r->member = wvm_core_home_of(core, vm, page, &r->home_vnode);
	wvm_held_of(core, vm, page)->request = slot;
	wvm_unit_begin(core, r);
	return r;
}

void wvm_request_finish(struct wvm_core *core, struct wvm_request *r)
{
	uint32_t slot = slot_of(core, r);
	struct wvm_held_page *h = wvm_held_of(core, r->vm, r->page);

	WVM_ASSERT(h->request == slot);
	h->request = 0;
	wvm_unit_forget(core, r);
	wvm_core_timer_cancel(&core->timers, &r->timer);
	r->waiters_read = r->waiters_write = 0;
	leave_window(core, r);
	r->id = 0;
	core->requests_free++;
	core->stats.requests_now--;
	r->next = core->free_request;
	core->free_request = slot;
}

/* Nobody waits, so nobody is told; the id will never be taken. */
static void give_up_ahead(struct wvm_core *core, struct wvm_request *r)
{
	core->stats.ahead_given_up++;
	wvm_request_finish(core, r);
}

static void fail(struct wvm_core *core, struct wvm_request *r, enum wvm_fail_reason reason)
{
	struct wvm_action *a;

	if (r->ahead) {
		give_up_ahead(core, r);
		return;
	}
	if (wvm_held_of(core, r->vm, r->page)->state == WVM_HELD_SHARED)
		wvm_holder_drop_shared(core, r->vm, r->page);
	a = wvm_core_emit(core, WVM_ACT_FAIL, r->vm, r->page);
	a->waiters = r->waiters_read | r->waiters_write;
	a->reason = reason;
	core->stats.faults_failed++;
	/* Not Modified, so every pin on it was one that waited for this request. */
	if (r->pin)
		wvm_held_of(core, r->vm, r->page)->pins = 0;
	wvm_request_finish(core, r);
}

static void submit_or_block(struct wvm_core *core, struct wvm_request *r)
{
	const struct wvm_held_page *h = wvm_held_of(core, r->vm, r->page);

	if (h->demand && core->demands[h->demand - 1].state == WVM_DEMAND_WRITE_BACK) {
		core->stats.requests_blocked++;
		r->state = WVM_REQUEST_BLOCKED;
		wvm_core_timer_arm(&core->timers, &r->timer, deadline_of(core, r));
		return;
	}
	if (wvm_unit_waits(core, r)) {
		uint64_t due = core->now_ns + core->params.times.rto_initial_ns;

		core->stats.unit_waits++;
		r->state = WVM_REQUEST_UNIT;
		wvm_core_timer_arm(&core->timers, &r->timer,
				   due < deadline_of(core, r) ? due : deadline_of(core, r));
		return;
	}
	wvm_request_submit(core, r);
}

void wvm_request_unblock(struct wvm_core *core, uint32_t slot)
{
	struct wvm_request *r = &core->requests[slot - 1];

	if (r->state == WVM_REQUEST_BLOCKED)
		wvm_request_submit(core, r);
}

#define REFUSALS_MAX 4u /* that double the wait; rto_max_ns bounds it, too */

/*
 * The home asks for a grant that has not come yet. True: it is kept until the
 * grant comes. False: it asks again, and the grant has had the time of a retry;
 * it is taken for lost. The home's second message alone says nothing: it may be
 * a copy, and pages may be slower than retries for as long as a lane is full.
 */
bool wvm_request_early(struct wvm_core *core, struct wvm_request *r, const struct wvm_msg *msg)
{
	bool again = r->early.type && r->early.version >= msg->version;

	if (again && core->now_ns >= r->early_until_ns) {
		r->refusals += r->refusals < REFUSALS_MAX;
		return false;
	}
	if (!again) {
		r->early_until_ns = core->now_ns + wvm_core_backoff(core, r->member, r->refusals);
		core->stats.demands_early++;
	}
	if (!again || r->early.version == msg->version)
		r->early = *msg;
	return true;
}

/* Asks again under a new id: the old one will never be taken. */
void wvm_request_renew(struct wvm_core *core, struct wvm_request *r)
{
	WVM_ASSERT(r->state == WVM_REQUEST_SENT);
	if (r->ahead) {
		give_up_ahead(core, r);
		return;
	}
	core->stats.requests_renewed++;
	r->id = 0;
	r->early.type = 0;
	transmit(core, r);
}

void wvm_request_timer(struct wvm_core *core, struct wvm_request *r)
{
	if (core->now_ns >= deadline_of(core, r)) {
		fail(core, r, WVM_FAIL_DEADLINE);
		return;
	}
	if (r->state == WVM_REQUEST_MOVED) {
		wvm_request_submit(core, r);
		return;
	}
	if (r->state == WVM_REQUEST_UNIT) {
		wvm_unit_give_up(core, r);
		return;
	}
	if (r->state != WVM_REQUEST_SENT) {
		/* It waited for its deadline alone, which is later now: the home is being replaced.
		 */
		wvm_core_timer_arm(&core->timers, &r->timer, deadline_of(core, r));
		return;
	}
	wvm_peer_timed_out(&core->peers[r->member], core->now_ns);
	if (r->ahead) {
		give_up_ahead(core, r); /* not worth a retry */
		return;
	}
	if (r->tries < UINT16_MAX)
		r->tries++;
	core->stats.requests_retried++;
	transmit(core, r);
	/*
	 * It is lost, or waits at its home for somebody else: either way it is not on the
	 * path any more. Were it counted on, a few that wait for a node that is gone would
	 * keep all others from a home that is well.
	 */
	if (r->in_window)
		leave_window(core, r);
}

/* ---- faults and pins ------------------------------------------------------------------- */

/* A guess at what is read next: the caller has found the page free and the window open. */
void wvm_request_ahead(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_request *r = begin(core, vm, page, WVM_MSG_MEM_READ);

	WVM_ASSERT(r);
	r->ahead = true;
	core->stats.ahead_asked++;
	wvm_request_submit(core, r);
	WVM_ASSERT(r->state == WVM_REQUEST_SENT);
}

/* Somebody waits for it now, and from now on: it is like any other. */
static void join_ahead(struct wvm_core *core, struct wvm_request *r)
{
	r->ahead = false;
	r->started_ns = core->now_ns;
	/* Queued since its home moved: nothing but its deadline, which is later now, is to come. */
	if (r->state == WVM_REQUEST_WINDOW)
		wvm_core_timer_arm(&core->timers, &r->timer, deadline_of(core, r));
	core->stats.ahead_joined++;
}

bool wvm_request_fault(struct wvm_core *core, uint32_t vm, uint64_t page, bool write,
		       uint64_t waiters, bool pin)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_request *r;
	uint32_t slot = h->request;

	if (slot)
		r = &core->requests[slot - 1];
	else
		r = begin(core, vm, page, write ? WVM_MSG_MEM_ACQUIRE : WVM_MSG_MEM_READ);
	if (!r)
		return false;
	if (!slot && !write && wvm_wander_asks(&core->params, h)) {
		r->type = WVM_MSG_MEM_ACQUIRE;
		core->stats.wander_asked++;
	}
	if (r->ahead)
		join_ahead(core, r);
	if (write && !r->waiters_write && !r->pin)
		r->write_ns = core->now_ns;
	*(write ? &r->waiters_write : &r->waiters_read) |= waiters;
	r->pin |= pin;
	if (write && !r->id)
		r->type = WVM_MSG_MEM_ACQUIRE;
	if (!slot)
		submit_or_block(core, r);
	return true;
}

/*
 * A page of a unit that was granted whole may be there without being in the RAM
 * file. True: it is there, in a state that is enough.
 */
static bool fault_in_hole(struct wvm_core *core, uint32_t vm, uint64_t page, bool write,
			  uint64_t waiters)
{
	const struct wvm_held_page *h;
	struct wvm_action *a;

	if (wvm_unit_mine(wvm_held_unit_of(core, vm, page), page)) {
		core->stats.faults_local++;
		wvm_unit_fill(core, vm, page, waiters);
		return true;
	}
	h = wvm_held_of(core, vm, page);
	if (!h->hole || !(h->state == WVM_HELD_MODIFIED || (h->state == WVM_HELD_SHARED && !write)))
		return false;
	core->stats.faults_local++;
	if (h->state == WVM_HELD_SHARED)
		wvm_core_emit(core, WVM_ACT_PROTECT, vm, page);
	a = wvm_core_emit(core, h->state == WVM_HELD_MODIFIED ? WVM_ACT_FILL : WVM_ACT_SETTLE, vm,
			  page);
	a->waiters = waiters;
	return true;
}

bool wvm_core_fault(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page, bool write,
		    unsigned int client)
{
	const struct wvm_held_page *h = wvm_held_of(core, vm, page);
	uint64_t bit = UINT64_C(1) << client;

	WVM_ASSERT(client < WVM_CLIENTS_MAX && page < core->vms[vm].pages && !core->adopting);
	core->now_ns = now_ns;
	wvm_undo_commit(core);
	(*(write ? &core->stats.faults_write : &core->stats.faults_read))++;
	if (fault_in_hole(core, vm, page, write, bit))
		return true;
	if (h->state == WVM_HELD_MODIFIED || (h->state == WVM_HELD_SHARED && !write)) {
		core->stats.faults_local++;
		wvm_core_emit(core, h->state == WVM_HELD_MODIFIED ? WVM_ACT_LIFT : WVM_ACT_WAKE, vm,
			      page)
			->waiters = bit;
		return true;
	}
	if (wvm_request_fault(core, vm, page, write, bit, false))
		return true;
	core->stats.faults_refused++;
	return false;
}

enum wvm_pin_result wvm_core_pin(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);

	WVM_ASSERT(page < core->vms[vm].pages && !core->adopting);
	core->now_ns = now_ns;
	wvm_undo_commit(core);
	if (wvm_unit_mine(wvm_held_unit_of(core, vm, page), page))
		wvm_unit_split(core, vm, page);
	if (h->pins == UINT16_MAX)
		return WVM_PIN_MANY;
	if (h->state == WVM_HELD_MODIFIED) {
		h->pins++;
		return WVM_PIN_HELD;
	}
	if (!wvm_request_fault(core, vm, page, true, 0, true))
		return WVM_PIN_ROOM;
	h->pins++;
	return WVM_PIN_ASKED;
}

/* ---- grants ---------------------------------------------------------------------------- */

/*
 * The faulter is to make progress before the page goes; the more so where it
 * is fought over. One loss counts once: an upgrade only starts the time anew.
 */
static void start_hold(struct wvm_core *core, struct wvm_held_page *h, const struct wvm_request *r)
{
	const struct wvm_core_times *t = &core->params.times;
	uint64_t hold;

	if (h->lost_ns) {
		if (r->started_ns >= h->lost_ns + t->refault_ns)
			h->hold_shift = 0;
		else if (t->hold_min_ns << h->hold_shift < t->hold_max_ns)
			h->hold_shift++;
		h->lost_ns = 0;
	}
	hold = t->hold_min_ns << h->hold_shift;
	h->hold_until_ns = core->now_ns + (hold < t->hold_max_ns ? hold : t->hold_max_ns);
}

void wvm_request_latency(struct wvm_core *core, const struct wvm_request *r)
{
	uint64_t us = (core->now_ns - r->started_ns) / 1000;
	unsigned int bucket = us ? 64 - (unsigned int)__builtin_clzll(us) : 0;

	if (bucket >= WVM_LATENCY_BUCKETS)
		bucket = WVM_LATENCY_BUCKETS - 1;
	(r->type == WVM_MSG_MEM_READ ? core->stats.latency_read
				     : core->stats.latency_write)[bucket]++;
}

static void take_shared(struct wvm_core *core, struct wvm_held_page *h, struct wvm_request *r,
			const uint8_t *data)
{
	struct wvm_action *a = wvm_core_emit(core, WVM_ACT_INSTALL, r->vm, r->page);

	a->data = data;
	a->waiters = r->waiters_read;
	r->waiters_read = 0;
	h->coming = 1;
	if (!r->ahead)
		wvm_wander_read(&core->params, h);
	core->stats.grants_shared++;
	wvm_holder_set(core, r->vm, r->page, WVM_HELD_SHARED);
}

static void take_modified(struct wvm_core *core, struct wvm_held_page *h, struct wvm_request *r,
			  const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_action *a;

	core->stats.grants_modified++;
	wvm_holder_superseded(core, r->vm, r->page);
	wvm_wander_wrote(&core->params, h, msg->flags & WVM_MSG_HELD);
	if (msg->flags & WVM_MSG_HELD) {
		core->stats.grants_upgrade++;
		a = wvm_core_emit(core, WVM_ACT_LIFT, r->vm, r->page);
	} else {
		/* A Shared copy that the home no longer counts on gives way to the granted one. */
		if (h->state == WVM_HELD_SHARED) {
			wvm_core_emit(core, WVM_ACT_PROTECT, r->vm, r->page);
			wvm_core_emit(core, WVM_ACT_PUNCH, r->vm, r->page);
		}
		a = wvm_core_emit(core, WVM_ACT_INSTALL, r->vm, r->page);
		a->data = data;
		a->writable = 1;
		h->coming = 1;
	}
	a->waiters = r->waiters_read | r->waiters_write;
	if (r->pin)
		wvm_core_emit(core, WVM_ACT_PINNED, r->vm, r->page);
	wvm_holder_set(core, r->vm, r->page, WVM_HELD_MODIFIED);
}

/*
 * Whether the grant may be taken: shared/PROTOCOL.md, Holder. A read may bring
 * back the very version that was given up: the home may have invalidated it
 * for nothing (room, a transaction given up), and an id that was outstanding
 * then has been retired. A Modified grant is always a new version.
 */
static bool acceptable(const struct wvm_held_page *h, const struct wvm_request *r,
		       const struct wvm_msg *msg)
{
	if (r->type == WVM_MSG_MEM_READ)
		return msg->version >= h->invalidated && !(msg->flags & WVM_MSG_HELD);
	if (msg->version <= h->invalidated)
		return false;
	return !(msg->flags & WVM_MSG_HELD) || h->state == WVM_HELD_SHARED;
}

/* What the home asked of the grant before it came; of a unit it may be another page. */
static void obey_early(struct wvm_core *core, uint32_t vm, uint32_t member,
		       const struct wvm_msg *msg, const struct wvm_msg *early)
{
	if (early->type && early->version == msg->version)
		wvm_holder_demand(core, vm, early->gpa >> WVM_PAGE_SHIFT, member, early);
}

enum wvm_drop wvm_request_grant(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_request *r = h->request ? &core->requests[h->request - 1] : NULL;
	struct wvm_msg early;

	if (wvm_msg_of_merge(msg))
		return wvm_merge_answer(core, vm, page, member, msg);
	if (!r || r->id != msg->request || r->state != WVM_REQUEST_SENT) {
		core->stats.grants_dropped++;
		return WVM_DROP_STALE;
	}
	if (msg->flags & WVM_MSG_ERROR) {
		fail(core, r, WVM_FAIL_LOST);
		return WVM_DROP_NONE;
	}
	if (!data && !(msg->flags & (WVM_MSG_ZERO | WVM_MSG_HELD)))
		return WVM_DROP_SEGMENT;
	if (msg->flags & WVM_MSG_UNIT ? !wvm_unit_asks(core, r) : !acceptable(h, r, msg)) {
		core->stats.grants_dropped++;
		wvm_request_renew(core, r);
		return WVM_DROP_STALE;
	}
	if (!to_self(core, r)) {
		if (!r->tries)
			wvm_peer_sample(&core->peers[member], core->now_ns - r->sent_ns);
		wvm_peer_answered(&core->peers[member]);
	}
	core->stats.grants_zero += !!(msg->flags & WVM_MSG_ZERO);
	core->taken[member]++;
	early = r->early;
	r->early.type = 0;
	if (msg->flags & WVM_MSG_UNIT) {
		wvm_unit_take(core, r, msg);
		obey_early(core, vm, member, msg, &early);
		return WVM_DROP_NONE;
	}
	wvm_note_held(core, vm, page);
	if (r->type == WVM_MSG_MEM_READ)
		take_shared(core, h, r, data);
	else
		take_modified(core, h, r, msg, data);
	h->version = msg->version;
	h->grant = r->id;
	if (r->ahead) {
		/* Nobody makes progress by it. Not before this input's actions: see
		 * obey_when_due(). */
		h->hold_until_ns = core->now_ns + 1;
	} else {
		wvm_request_latency(core, r);
		start_hold(core, h, r);
	}
	wvm_unit_touched(core, vm, page);
	if (h->state == WVM_HELD_MODIFIED)
		wvm_merge_look(core, vm, page);
	if (r->type == WVM_MSG_MEM_READ && (r->waiters_write || r->pin)) {
		/*
		 * Writers that came while the read was under way: the upgrade has its own
		 * id, and their deadline is that of the first of them.
		 */
		leave_window(core, r);
		r->type = WVM_MSG_MEM_ACQUIRE;
		r->id = 0;
		r->started_ns = r->write_ns;
		wvm_request_submit(core, r);
	} else {
		wvm_request_finish(core, r);
	}
	obey_early(core, vm, member, msg, &early);
	return WVM_DROP_NONE;
}

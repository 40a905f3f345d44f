/*
 * Slices that move to another home when the members change.
 *
 *	former home   serves -> frozen, from its change of epoch on -> forgotten, unit by unit
 *	new home      UNKNOWN -> COMING -> CAME -> (HANDOVER_DONE, answered) DONE
 *
 * The new home asks (HANDOVER), the former one only answers: nobody else changes what is frozen,
 * so a question that is lost, repeated or asked again by a later life gets the same answer. A page
 * that somebody wants is asked for at once; a walk fetches the rest, WVM_PULLS_WALK units at a
 * time, each from `next` on: the first page that has an entry, until there is none.
 *
 * What has come is in the durable arrays: a page has an entry with a version, or its unit is
 * CAME. An entry whose holders come in several parts has version 0 until the last. The former home
 * forgets a unit when the new one says that all of it is there, which it says after it is durable.
 *
 * Nodes of different epochs do not hear each other, so between any two of them there is one home
 * of a page at a time: the former one answers the new one only when it has ceased to serve.
 */
#include "shared/core/handover_int.h"

/* ---- what is here ---------------------------------------------------------------------- */

/* Not what it had as a second home. */
static bool entry_here(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_page *e = &core->vms[vm].home[page];

	return e->version && !(e->flags & WVM_HOME_BACKUP);
}

static bool page_here(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	enum wvm_moved_phase phase = wvm_moved_phase_of(core, vm, page);

	if (phase == WVM_MOVED_COMING)
		return entry_here(core, vm, page);
	return phase == WVM_MOVED_CAME || phase == WVM_MOVED_DONE;
}

/* To put a unit together again all of its pages are looked at. */
bool wvm_handover_ready(const struct wvm_core *core, uint32_t vm, uint64_t page,
			const struct wvm_msg *msg)
{
	if (!core->params.before || !wvm_moved_comes(core, vm, page))
		return true;
	if (wvm_msg_asks_merge(msg))
		return wvm_moved_phase_of(core, vm, page) == WVM_MOVED_CAME ||
		       wvm_moved_phase_of(core, vm, page) == WVM_MOVED_DONE;
	return page_here(core, vm, page);
}

bool wvm_core_homes(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return wvm_core_home_of(core, vm, page, NULL) == core->params.self &&
	       (!core->params.before || !wvm_moved_comes(core, vm, page) ||
		page_here(core, vm, page));
}

struct wvm_handover_left wvm_core_handover(const struct wvm_core *core)
{
	return core->left;
}

uint32_t wvm_core_epoch_seen(const struct wvm_core *core)
{
	return core->epoch_seen;
}

/* ---- the former home ------------------------------------------------------------------- */

static struct wvm_action *reply(struct wvm_core *core, uint8_t type, uint32_t vm, uint64_t page,
				uint32_t member, const struct wvm_msg *msg)
{
	struct wvm_action *a = wvm_core_send(core, type, vm, page, member, msg->src);

	a->msg.request = msg->request;
	a->msg.steer = msg->reply_steer;
	a->msg.reply_steer = msg->steer;
	return a;
}

static void ship(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
		 const struct wvm_msg *msg, bool found)
{
	struct wvm_shipped s = {.unit = *wvm_home_unit_of(core, vm, page)};
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	struct wvm_action *a;

	if (found) {
		s.version = e->version;
		s.granted = e->state == WVM_HOME_MODIFIED ? e->granted : 0;
		s.state = e->state;
		s.flags = e->flags;
		s.total = e->holders;
		s.first = msg->version < e->holders ? (uint16_t)msg->version : 0;
		for (uint32_t i = s.first; i < s.total && s.count < WVM_SHIP_HOLDERS; i++) {
			struct wvm_holder h = wvm_holders_at(core, e, i);

			s.grant[s.count] = *h.grant;
			s.member[s.count++] = *h.member;
		}
	}
	a = reply(core, WVM_MSG_HANDOVER, vm, page, member, msg);
	a->msg.flags = WVM_MSG_ANSWER;
	a->msg.payload_len = (uint16_t)wvm_shipped_encode(core->ship, &s);
	a->msg.seg_total = (a->msg.payload_len + WVM_SEGMENT_UNIT - 1) & ~(WVM_SEGMENT_UNIT - 1);
	a->source = WVM_DATA_BYTES;
	a->data = core->ship;
	if (!found || !(e->flags & WVM_HOME_WRITTEN) || s.first)
		return;
	a = reply(core, WVM_MSG_HANDOVER_PAGE, vm, page, member, msg);
	a->msg.qos = WVM_QOS_BULK;
	a->source = WVM_DATA_STORE;
}

/* Each step leaves entry and blocks agreeing, so it may be final by itself. */
static void forget_pages(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint64_t end = wvm_unit_end(core, vm, page);

	for (page = wvm_unit_first(page); page < end; page++) {
		struct wvm_home_page *e = wvm_home_of(core, vm, page);

		if (!e->version && !e->flags && !e->more)
			continue;
		core->stats.pages_homed -= wvm_home_tracks(core, vm, page);
		wvm_note_home(core, vm, page);
		wvm_holders_clear(core, e);
		*e = (struct wvm_home_page){0};
		wvm_undo_commit(core);
	}
}

static void give(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	uint32_t era = wvm_unit_rest_lost(u) ? 0 : wvm_backup_era(core, vm, page);

	/* From now on the new home has something of this node: a later life of it must know. */
	core->taken[member]++;
	wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
	u->moved = core->params.moved;
	u->phase = WVM_MOVED_GIVEN;
	u->era = era;
	wvm_undo_commit(core);
	if (era)
		wvm_backup_keep_unit(core, vm, page);
	else
		forget_pages(core, vm, page);
	wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
	*u = (struct wvm_home_unit){.moved = core->params.moved,
				    .phase = WVM_MOVED_GIVEN,
				    .era = era,
				    .lost = era ? WVM_UNIT_KEPT : 0};
	WVM_ASSERT(core->left.out);
	core->left.out--;
	core->stats.handover_given++;
}

static enum wvm_drop to_former(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			       const struct wvm_msg *msg)
{
	enum wvm_moved_phase phase = wvm_moved_phase_of(core, vm, page);
	bool found;
	uint64_t end = wvm_unit_end(core, vm, page);

	if (!wvm_moved_out(core, vm, page) || wvm_core_home_of(core, vm, page, NULL) != member ||
	    !wvm_moved_own(core, vm, page))
		return WVM_DROP_NODE;
	if (msg->type == WVM_MSG_HANDOVER_DONE) {
		if (phase < WVM_MOVED_GIVEN)
			give(core, vm, page, member);
		/* A life that ended in between may have left the stored copies behind. */
		if (!(wvm_home_unit_of(core, vm, page)->lost & WVM_UNIT_KEPT))
			wvm_core_emit(core, WVM_ACT_FORGET, vm, wvm_unit_first(page))->home = true;
		reply(core, WVM_MSG_HANDOVER_DONE, vm, page, member, msg)->msg.flags =
			WVM_MSG_ANSWER;
		return WVM_DROP_NONE;
	}
	if (phase == WVM_MOVED_GIVEN)
		return WVM_DROP_STALE; /* a late copy: it has all */
	if (phase == WVM_MOVED_UNKNOWN) {
		/* If the new home dies: from now on it may have served something of the unit. */
		wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
		wvm_home_unit_of(core, vm, page)->moved = core->params.moved;
		wvm_home_unit_of(core, vm, page)->phase = WVM_MOVED_ASKED;
	}
	found = wvm_home_tracks(core, vm, page);
	for (; msg->flags & WVM_MSG_MORE && !found && page + 1 < end;)
		found = wvm_home_tracks(core, vm, ++page);
	ship(core, vm, page, member, msg, found);
	return WVM_DROP_NONE;
}

/* ---- the new home: what has come ------------------------------------------------------- */

static void ask(struct wvm_core *core, struct wvm_pull *p, bool anew)
{
	uint64_t deadline = p->started_ns + core->params.times.deadline_ns, due;
	uint32_t vnode = core->params.members->list[p->member].first_vnode;
	uint8_t type = p->state == WVM_PULL_DONE ? WVM_MSG_HANDOVER_DONE : WVM_MSG_HANDOVER;
	struct wvm_action *a = wvm_core_send(core, type, p->vm, p->page, p->member, vnode);

	if (anew) {
		p->id = wvm_core_next_id(core);
		p->tries = 0;
		p->found = 0;
	}
	p->asked_ns = core->now_ns;
	a->msg.request = p->id;
	a->msg.flags = p->state == WVM_PULL_WALK ? WVM_MSG_MORE : 0;
	a->msg.steer = a->msg.reply_steer = wvm_slice_of(core->vms[p->vm].id,
							 p->page << WVM_PAGE_SHIFT);
	/* The part of the holders that is wanted. */
	if (p->state != WVM_PULL_DONE &&
	    wvm_moved_phase_of(core, p->vm, p->page) == WVM_MOVED_COMING)
		a->msg.version = wvm_home_of(core, p->vm, p->page)->holders;
	due = core->now_ns + wvm_core_backoff(core, p->member, p->tries);
	wvm_core_timer_arm(&core->timers, &p->timer,
			   p->state == WVM_PULL_PAGE && due > deadline ? deadline : due);
}

static void walk_now(struct wvm_core *core)
{
	if (!core->left.in)
		return;
	core->walk.kind = WVM_TIMER_WALK;
	wvm_core_timer_arm(&core->timers, &core->walk, core->now_ns);
}

void wvm_handover_walk_soon(struct wvm_core *core)
{
	if (!core->walk.place)
		walk_now(core);
}

static void end(struct wvm_core *core, struct wvm_pull *p)
{
	while (p->queue_head) {
		uint32_t slot = p->queue_head;

		p->queue_head = core->waiting[slot - 1].next;
		wvm_home_drop_waiting(core, slot);
	}
	wvm_core_timer_cancel(&core->timers, &p->timer);
	if (p->state == WVM_PULL_PAGE) {
		core->peers[p->member].pulls--;
		core->pulls_page--;
	}
	if (p->silent) {
		core->peers[p->member].silent = false;
		core->pulls_silent--;
	}
	p->state = WVM_PULL_FREE;
	wvm_handover_walk_soon(core);
}

/* Those who wait for the page are answered, as if they had come now. */
static void answer_waiting(struct wvm_core *core, struct wvm_pull *p)
{
	wvm_undo_commit(core);
	wvm_merge_renew(core, p->vm, p->page); /* it may have been merged since it came */
	while (p->queue_head) {
		uint32_t slot = p->queue_head;
		struct wvm_asked q = core->waiting[slot - 1];

		p->queue_head = q.next;
		wvm_home_drop_waiting(core, slot);
		(void)wvm_home_asked(core, p->vm, p->page, &q);
	}
}

static void take_unit(struct wvm_core *core, uint32_t vm, uint64_t page,
		      const struct wvm_home_unit *shipped)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	uint32_t era;

	if (wvm_moved_phase_of(core, vm, page) != WVM_MOVED_UNKNOWN)
		return;
	/* A later life of the former home that has lost it is found out by this: see join.h. */
	if (shipped->version)
		core->taken[wvm_moved_former(core, vm, page)]++;
	if (!shipped->version)
		wvm_backup_drop_unit(core, vm, page);
	wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
	era = u->era;
	*u = *shipped;
	u->moved = core->params.moved;
	u->era = era;
	u->next = 0;
	u->phase = shipped->version ? WVM_MOVED_COMING : WVM_MOVED_CAME;
	wvm_renewed_unit(core, u);
}

/* Whether there are blocks for so many more holders, at worst. */
static bool has_blocks(const struct wvm_core *core, uint32_t holders)
{
	uint32_t left = (holders + WVM_BLOCK_HOLDERS - 1) / WVM_BLOCK_HOLDERS;

	for (uint32_t slot = core->free_block; slot && left; slot = core->blocks[slot - 1].next)
		left--;
	return !left;
}

/* The entry, or the next part of its holders. False: no room for these, for now. */
static bool take_page(struct wvm_core *core, uint32_t vm, uint64_t page,
		      const struct wvm_shipped *s)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	if (e->version || e->holders != s->first)
		return true;
	if (s->total > WVM_HOLDERS_INLINE && !has_blocks(core, s->count))
		return false;
	for (uint32_t i = 0; i < s->count; i++)
		if (wvm_holders_find(core, e, s->member[i]) != WVM_NIL)
			return false; /* no home says so */
	wvm_home_unit_has_entries(core, vm, page);
	wvm_note_home(core, vm, page);
	for (uint32_t i = 0; i < s->count; i++)
		WVM_ASSERT(wvm_holders_add(core, e, s->member[i], s->grant[i]));
	if (e->holders < s->total)
		return true;
	e->state = s->state;
	e->flags = s->flags;
	e->granted = s->granted;
	e->version = s->version;
	if (e->state == WVM_HOME_MODIFIED && wvm_renewed_before(core, s->member[0], s->grant[0])) {
		wvm_holders_clear(core, e);
		e->state = WVM_HOME_HOME;
		e->flags = WVM_HOME_LOST;
		e->granted = 0;
		core->stats.home_lost++;
	}
	core->stats.pages_homed++;
	core->stats.handover_pages++;
	return true;
}

static void set_next(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t next)
{
	wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
	wvm_home_unit_of(core, vm, page)->next = (uint16_t)next;
}

static void all_here(struct wvm_core *core, struct wvm_pull *p)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, p->vm, p->page);

	wvm_backup_drop_unit(core, p->vm, p->page);
	wvm_undo_note(core, WVM_UNDO_UNIT, p->vm, wvm_unit_index(p->page));
	u->phase = WVM_MOVED_CAME;
	u->next = 0; /* none is waited for: rebuild.c */
	p->state = WVM_PULL_DONE;
	ask(core, p, true);
}

/* One more of the unit has come, or there is no more. */
static void walked(struct wvm_core *core, struct wvm_pull *p, uint64_t page)
{
	uint64_t end = wvm_unit_end(core, p->vm, p->page);

	if (wvm_moved_phase_of(core, p->vm, p->page) != WVM_MOVED_COMING || !p->entry.version ||
	    page + 1 == end) {
		all_here(core, p);
		return;
	}
	p->page = page + 1;
	set_next(core, p->vm, page, (uint32_t)(p->page % WVM_UNIT_PAGES));
	ask(core, p, true);
}

/* Entry and bytes are both here. */
static void take(struct wvm_core *core, struct wvm_pull *p)
{
	const struct wvm_shipped *s = &p->entry;
	uint64_t page = p->found - 1;
	bool coming, complete;

	if (s->flags & WVM_HOME_WRITTEN && !s->first && p->data != p->found &&
	    !entry_here(core, p->vm, page))
		return;
	take_unit(core, p->vm, page, &s->unit);
	wvm_backup_drop(core, p->vm, page);
	/* A late answer: what was here by then may have been merged, and has no entry any more. */
	coming = wvm_moved_phase_of(core, p->vm, page) == WVM_MOVED_COMING;
	if (coming && s->version && !take_page(core, p->vm, page, s))
		return; /* asked again when the timer says so */
	complete = !coming || !s->version || entry_here(core, p->vm, page);
	if (!complete) {
		if (p->state == WVM_PULL_WALK)
			p->page = page;
		ask(core, p, true);
		return;
	}
	if (p->state == WVM_PULL_WALK) {
		walked(core, p, page);
		return;
	}
	if (coming)
		wvm_unit_track(core, p->vm, page); /* has none: as its unit says */
	core->stats.handover_asked++;
	answer_waiting(core, p);
	end(core, p);
}

static struct wvm_pull *by_id(struct wvm_core *core, uint64_t id)
{
	for (uint32_t i = 0; i < WVM_PULLS; i++)
		if (core->pulls[i].state != WVM_PULL_FREE && core->pulls[i].id == id)
			return &core->pulls[i];
	return NULL;
}

bool wvm_handover_wants(const struct wvm_core *core, const struct wvm_msg *msg)
{
	for (uint32_t i = 0; i < WVM_PULLS; i++)
		if (core->pulls[i].state != WVM_PULL_FREE && core->pulls[i].id == msg->request)
			return true;
	return false;
}

static void unit_done(struct wvm_core *core, struct wvm_pull *p)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, p->vm, p->page);

	if (u->phase != WVM_MOVED_DONE) {
		wvm_undo_note(core, WVM_UNDO_UNIT, p->vm, wvm_unit_index(p->page));
		u->phase = WVM_MOVED_DONE;
		WVM_ASSERT(core->left.in);
		core->left.in--;
		core->stats.handover_units++;
		wvm_backup_unit_came(core, p->vm, p->page);
		if (!core->left.in)
			wvm_backup_look(core);
	}
	end(core, p);
}

/* Bytes of a page that has come already may be older than the stored ones. */
static enum wvm_drop page_bytes(struct wvm_core *core, struct wvm_pull *p, uint64_t page,
				const struct wvm_msg *msg, const uint8_t *data)
{
	uint8_t *store = core->vms[p->vm].store + (page << WVM_PAGE_SHIFT);

	if (p->state == WVM_PULL_DONE || page_here(core, p->vm, page))
		return WVM_DROP_STALE;
	if (!data && !(msg->flags & WVM_MSG_ZERO))
		return WVM_DROP_SEGMENT;
	if (wvm_moved_phase_of(core, p->vm, page) == WVM_MOVED_UNKNOWN &&
	    wvm_backup_counts(core, p->vm, page)) {
		/* A copy that is taken from a unit of which nothing has come would be missed. */
		if (p->found != page + 1)
			return WVM_DROP_ROOM;
		take_unit(core, p->vm, page, &p->entry.unit);
	}
	wvm_backup_drop(core, p->vm, page);
	if (data)
		__builtin_memcpy(store, data, WVM_PAGE_BYTES);
	else
		__builtin_memset(store, 0, WVM_PAGE_BYTES);
	p->data = page + 1;
	if (p->found == p->data)
		take(core, p);
	return WVM_DROP_NONE;
}

/* A former home that was silent is there: what waits for it goes on at once. */
static void heard(struct wvm_core *core, uint32_t member)
{
	if (!core->peers[member].silent)
		return;
	core->peers[member].silent = false;
	for (uint32_t i = 0; i < WVM_PULLS_WALK; i++) {
		struct wvm_pull *p = &core->pulls[i];

		if (p->state == WVM_PULL_FREE || !p->silent || p->member != member)
			continue;
		p->silent = false;
		p->unheard = p->tries = 0;
		core->pulls_silent--;
		wvm_core_timer_arm(&core->timers, &p->timer, core->now_ns);
	}
	walk_now(core);
}

static enum wvm_drop to_new(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			    const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_pull *p = by_id(core, msg->request);
	struct wvm_shipped s;

	if (!wvm_moved_in(core, vm, page) || wvm_moved_former(core, vm, page) != member)
		return WVM_DROP_NODE;
	if (!p || p->vm != vm || wvm_unit_first(p->page) != wvm_unit_first(page) ||
	    page < p->page || (p->state == WVM_PULL_PAGE && page != p->page) ||
	    (msg->type == WVM_MSG_HANDOVER_DONE) != (p->state == WVM_PULL_DONE))
		return WVM_DROP_STALE;
	p->unheard = 0;
	heard(core, member);
	if (!p->tries)
		wvm_peer_sample(&core->peers[member], core->now_ns - p->asked_ns);
	if (msg->type == WVM_MSG_HANDOVER_DONE) {
		unit_done(core, p);
		return WVM_DROP_NONE;
	}
	if (msg->type == WVM_MSG_HANDOVER_PAGE)
		return page_bytes(core, p, page, msg, data);
	if (!data || !wvm_shipped_decode(core, data, msg->payload_len, &s))
		return WVM_DROP_SEGMENT;
	if (!s.unit.version && wvm_moved_phase_of(core, vm, page) == WVM_MOVED_COMING)
		return WVM_DROP_SEGMENT; /* it had something before, and has lost it */
	p->entry = s;
	p->found = page + 1;
	take(core, p);
	return WVM_DROP_NONE;
}

enum wvm_drop wvm_handover_message(struct wvm_core *core, uint32_t vm, uint64_t page,
				   uint32_t member, const struct wvm_msg *msg, const uint8_t *data)
{
	bool answer = msg->type == WVM_MSG_HANDOVER_PAGE || msg->flags & WVM_MSG_ANSWER;

	if (!core->params.before)
		return WVM_DROP_NODE;
	return answer ? to_new(core, vm, page, member, msg, data)
		      : to_former(core, vm, page, member, msg);
}

/* ---- the new home: what is asked for --------------------------------------------------- */

/* The walk has slots of its own. */
static struct wvm_pull *free_slot(struct wvm_core *core, uint8_t state)
{
	uint32_t i = state == WVM_PULL_PAGE ? WVM_PULLS_WALK : 0;
	uint32_t end = state == WVM_PULL_PAGE ? WVM_PULLS : WVM_PULLS_WALK;

	for (; i < end; i++)
		if (core->pulls[i].state == WVM_PULL_FREE)
			return &core->pulls[i];
	return NULL;
}

static void begin(struct wvm_core *core, struct wvm_pull *p, uint32_t vm, uint64_t page,
		  uint8_t state)
{
	*p = (struct wvm_pull){.timer.kind = WVM_TIMER_PULL,
			       .vm = vm,
			       .page = page,
			       .member = wvm_moved_former(core, vm, page),
			       .started_ns = core->now_ns,
			       .state = state};
	ask(core, p, true);
}

/* One former home has at most as many slots as it leaves to the others: it may be gone. */
static struct wvm_pull *begin_page(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_peer *peer = &core->peers[wvm_moved_former(core, vm, page)];
	struct wvm_pull *p = free_slot(core, WVM_PULL_PAGE);

	if (!p || peer->pulls >= WVM_PULLS_PAGE - core->pulls_page)
		return NULL;
	peer->pulls++;
	core->pulls_page++;
	begin(core, p, vm, page, WVM_PULL_PAGE);
	return p;
}

static enum wvm_drop wait(struct wvm_core *core, struct wvm_pull *p, uint32_t member,
			  const struct wvm_msg *msg)
{
	struct wvm_asked q = wvm_asked_by(member, msg);
	uint32_t slot;

	for (slot = p->queue_head; slot; slot = core->waiting[slot - 1].next) {
		struct wvm_asked *w = &core->waiting[slot - 1];

		if (w->member != member)
			continue;
		if (q.id < w->id)
			return WVM_DROP_STALE;
		q.next = w->next;
		*w = q;
		return WVM_DROP_NONE;
	}
	slot = p->queued < WVM_PULL_QUEUE ? wvm_home_take_waiting(core, &q) : 0;
	if (!slot)
		return WVM_DROP_ROOM;
	p->queued++;
	*(p->queue_head ? &core->waiting[p->queue_tail - 1].next : &p->queue_head) = slot;
	p->queue_tail = slot;
	return WVM_DROP_NONE;
}

/*
 * A message for a page that is not here yet. What needs the page asks for it, unless it is asked
 * for already; a request waits, a write-back is dropped: its sender repeats it. To answers there
 * was no question of this home. A merge needs all of the unit, which the walk is for.
 */
enum wvm_drop wvm_handover_want(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg)
{
	bool request = msg->type == WVM_MSG_MEM_READ || msg->type == WVM_MSG_MEM_ACQUIRE;
	struct wvm_pull *p = NULL;

	if (!request && msg->type != WVM_MSG_WRITE_BACK)
		return WVM_DROP_STALE;
	if (wvm_msg_asks_merge(msg))
		return WVM_DROP_ROOM;
	for (uint32_t i = WVM_PULLS_WALK; i < WVM_PULLS && !p; i++)
		if (core->pulls[i].state == WVM_PULL_PAGE && core->pulls[i].vm == vm &&
		    core->pulls[i].page == page)
			p = &core->pulls[i];
	if (!p)
		p = begin_page(core, vm, page);
	return p && request ? wait(core, p, member, msg) : WVM_DROP_ROOM;
}

/*
 * The walk passes by the units of a former home that is silent, but for one question that asks on.
 * Those questions have half of the slots; of further homes that are silent the units come up again
 * and again. False: the slot is given back.
 */
static bool asks_on(struct wvm_core *core, struct wvm_pull *p)
{
	if (p->silent || ++p->unheard < WVM_PULL_UNHEARD)
		return true;
	if (core->peers[p->member].silent || core->pulls_silent == WVM_PULLS_WALK / 2) {
		end(core, p);
		return false;
	}
	p->silent = core->peers[p->member].silent = true;
	core->pulls_silent++;
	return true;
}

void wvm_handover_timer(struct wvm_core *core, struct wvm_pull *p)
{
	if (p->state == WVM_PULL_PAGE && page_here(core, p->vm, p->page)) {
		answer_waiting(core, p);
		end(core, p);
		return;
	}
	if (p->state == WVM_PULL_PAGE &&
	    core->now_ns - p->started_ns >= core->params.times.deadline_ns) {
		end(core, p); /* those who want it still ask again */
		return;
	}
	if (p->state != WVM_PULL_PAGE && !asks_on(core, p))
		return;
	p->tries += p->tries < UINT16_MAX;
	ask(core, p, wvm_core_id_old(core, p->id));
}

static bool under_way(const struct wvm_core *core, uint32_t vm, uint64_t unit)
{
	for (uint32_t i = 0; i < WVM_PULLS_WALK; i++)
		if (core->pulls[i].state != WVM_PULL_FREE && core->pulls[i].vm == vm &&
		    wvm_unit_index(core->pulls[i].page) == unit)
			return true;
	return false;
}

/* In the order of what it costs to know; another shard's units are not looked at. */
static bool to_fetch(const struct wvm_core *core, uint32_t vm, uint64_t unit)
{
	uint64_t page = unit * WVM_UNIT_PAGES;

	enum wvm_moved_phase phase;

	if (!wvm_moved_own(core, vm, page))
		return false;
	phase = wvm_moved_phase_of(core, vm, page);
	return phase != WVM_MOVED_DONE && phase != WVM_MOVED_TELLING &&
	       !(wvm_rebuild_here(core, vm, page) && core->vms[vm].units[unit].next) &&
	       wvm_moved_in(core, vm, page) &&
	       !core->peers[wvm_moved_former(core, vm, page)].silent && !under_way(core, vm, unit);
}

static void fetch(struct wvm_core *core, struct wvm_pull *p, uint32_t vm, uint64_t unit)
{
	enum wvm_moved_phase phase = wvm_moved_phase_of(core, vm, unit * WVM_UNIT_PAGES);
	uint64_t page = unit * WVM_UNIT_PAGES;

	if (phase == WVM_MOVED_COMING)
		page += core->vms[vm].units[unit].next;
	begin(core, p, vm, page, phase == WVM_MOVED_CAME ? WVM_PULL_DONE : WVM_PULL_WALK);
	core->walk_began = true;
}

/* From the first unit again. If nothing was to be done, all is under way, or silent. */
static void walk_again(struct wvm_core *core)
{
	const struct wvm_core_times *t = &core->params.times;

	core->walk_vm = 0;
	core->walk_unit = 0;
	wvm_core_timer_arm(&core->timers, &core->walk,
			   core->now_ns + (core->walk_began ? t->rto_initial_ns : t->rto_max_ns));
	core->walk_began = false;
}

/*
 * What owners wait for comes first: of a large move the last units are far off. After each round of
 * them it is the others' turn: these may be of a former home that is silent, and come up again and
 * again.
 */
static struct wvm_pull *walk_wanted(struct wvm_core *core)
{
	struct wvm_pull *p = free_slot(core, WVM_PULL_WALK);
	uint64_t page;
	uint32_t vm;

	while (p && wvm_backup_waits(core, &core->walk_waits, &vm, &page)) {
		if (!to_fetch(core, vm, wvm_unit_index(page)))
			continue;
		fetch(core, p, vm, wvm_unit_index(page));
		p = free_slot(core, WVM_PULL_WALK);
	}
	if (p)
		core->walk_waits = 0;
	return p;
}

/* The next unit that is not here; those before it are, or are on their way, or silent. */
void wvm_handover_walk(struct wvm_core *core)
{
	struct wvm_pull *p = walk_wanted(core);

	/* Without a free slot the end of one goes on. */
	for (uint32_t n = 0; n < WVM_WALK_BATCH && core->left.in && p; n++) {
		uint32_t vm = core->walk_vm;
		uint64_t unit = core->walk_unit++;

		if (vm >= core->vm_count) {
			walk_again(core);
			return;
		}
		if (unit * WVM_UNIT_PAGES >= core->vms[vm].pages) {
			core->walk_vm++;
			core->walk_unit = 0;
		} else if (to_fetch(core, vm, unit)) {
			fetch(core, p, vm, unit);
			p = free_slot(core, WVM_PULL_WALK);
		}
	}
	if (p)
		wvm_handover_walk_soon(core);
}

void wvm_handover_end_pulls(struct wvm_core *core)
{
	for (uint32_t i = 0; i < WVM_PULLS; i++)
		if (core->pulls[i].state != WVM_PULL_FREE)
			end(core, &core->pulls[i]);
}

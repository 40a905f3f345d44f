/*
 * Units that are granted whole. Whoever asks first for a page of a unit that
 * nobody has touched gets all of it in one round trip, Modified, and fills its
 * pages with zeros without asking again. What somebody else asks for is split
 * off: it gets an entry of its own, at the home and at the holder, and is a
 * page like any other from then on; the rest stays with the owner.
 *
 *	home    units[]        untouched -> whole -> (refused) -> page by page
 *	holder  held_units[]   untouched: one request asks for the whole, others wait for it a
 *	                       while; granted whole: mine[]; or touched: page by page
 *
 * Why it is safe that the home has one record for 512 grants:
 *	- one request at a time is out for an untouched unit, and the grant is taken for its id
 *	  alone: whatever else of this node is still on its way is older, and has a lower id
 *	- a newer request of the owner does not tell which grant it has not: the home asks it
 *	- NOT_HELD for one page means that the grant was not taken and never will be: the whole.
 *	  (Not of a merge: merge.c)
 */
#include "shared/core/core_int.h"

/* ---- the home -------------------------------------------------------------------------- */

/* Answers q with the whole unit, when it is untouched or was granted to this very request. */
bool wvm_unit_grant(struct wvm_core *core, uint32_t vm, uint64_t page, const struct wvm_asked *q)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	struct wvm_action *a;

	if (!(q->flags & WVM_MSG_UNIT))
		return false;
	if (!u->version) {
		wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
		wvm_home_version(core, vm, page); /* of what is stored: zeros */
		u->granted = wvm_home_version(core, vm, page);
		u->grant = q->id;
		u->owner = q->member;
		core->stats.home_units++;
	} else if (!u->granted || u->grant != q->id || u->owner != q->member) {
		return false;
	}
	a = wvm_home_reply(core, vm, page, q);
	a->msg.version = u->granted;
	a->msg.flags = WVM_MSG_ZERO | WVM_MSG_UNIT;
	return true;
}

/* The page gets its entry, which says what the unit's said of it. */
void wvm_unit_track(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	if (e->version)
		return;
	wvm_home_unit_has_entries(core, vm, page);
	wvm_note_home(core, vm, page);
	core->stats.pages_homed++;
	if (u->granted) {
		*e = wvm_core_homed(&core->vms[vm], page);
	} else {
		e->version = wvm_home_version(core, vm, page);
		e->flags = wvm_unit_rest_lost(u) ? WVM_HOME_LOST : 0;
	}
}

struct wvm_home_page wvm_core_homed(const struct wvm_core_vm *vm, uint64_t page)
{
	return wvm_core_homed_in(&vm->units[wvm_unit_index(page)], &vm->home[page]);
}

struct wvm_home_page wvm_core_homed_in(const struct wvm_home_unit *u,
				       const struct wvm_home_page *entry)
{
	struct wvm_home_page e = *entry;

	if (wvm_merge_outdated(u, &e))
		e = (struct wvm_home_page){0};
	if (!e.version && !u->granted && wvm_unit_rest_lost(u)) {
		e.version = u->version;
		e.flags = WVM_HOME_LOST;
	}
	if (e.version || !u->granted)
		return e;
	e.version = u->granted - 1; /* the one before: of zeros, or nobody falls back to it */
	e.granted = u->granted;
	e.state = WVM_HOME_MODIFIED;
	e.holders = 1;
	e.member[0] = u->owner;
	e.grant[0] = u->grant;
	return e;
}

/* A write-back that nobody asked for: the entry of its page is that of the unit so far. */
void wvm_unit_written(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
		      const struct wvm_msg *msg)
{
	const struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);

	if (u->granted && u->granted == msg->version && u->grant == msg->grant &&
	    u->owner == member)
		wvm_unit_track(core, vm, page);
}

/* Whether the entry is Modified by the grant of the whole unit. */
bool wvm_unit_owns(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	return u->granted && e->state == WVM_HOME_MODIFIED && e->granted == u->granted &&
	       *wvm_holders_at(core, e, 0).grant == u->grant;
}

/* The owner says that it never took the grant, and never will. */
void wvm_unit_refused(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
	wvm_home_unit_of(core, vm, page)->granted = 0;
	core->stats.home_units_refused++;
}

bool wvm_core_needs_home(const struct wvm_core *core, uint32_t vm, uint64_t page,
			 const struct wvm_msg *msg)
{
	const struct wvm_home_unit *u = &core->vms[vm].units[wvm_unit_index(page)];

	if (wvm_msg_asks_merge(msg))
		return wvm_merge_looks(core, vm, page, msg);
	if ((msg->type != WVM_MSG_MEM_READ && msg->type != WVM_MSG_MEM_ACQUIRE) ||
	    !(msg->flags & WVM_MSG_UNIT))
		return true;
	return u->version && !(u->granted && u->grant == msg->request &&
			       u->owner == wvm_member_of(core->params.members, msg->src));
}

/* ---- the holder: who asks for the whole ------------------------------------------------ */

/* Requests of one untouched unit: all of them end in one step. See WVM_UNDO_MAX, too. */
#define LISTED_MAX 64u

/* Whether one more request for a page of the unit may begin; a refused fault comes again. */
bool wvm_unit_room(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	uint32_t n = 0;

	if (u->touched || !core->params.units)
		return true;
	for (uint32_t slot = u->requests; slot; slot = core->requests[slot - 1].unit_next)
		n++;
	return n < LISTED_MAX;
}

static uint32_t slot_of(const struct wvm_core *core, const struct wvm_request *r)
{
	return (uint32_t)(r - core->requests) + 1;
}

void wvm_unit_begin(struct wvm_core *core, struct wvm_request *r)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, r->vm, r->page);

	if (u->touched || !core->params.units)
		return;
	r->listed = true;
	r->unit_next = u->requests;
	u->requests = slot_of(core, r);
	if (!u->first)
		u->first = slot_of(core, r);
}

/* Whether r asks for the whole unit: the grant of it is taken for no other request. */
bool wvm_unit_asks(const struct wvm_core *core, const struct wvm_request *r)
{
	return r->listed && wvm_held_unit_of(core, r->vm, r->page)->first == slot_of(core, r);
}

/* Whether r had better wait for the one that asks for the whole. */
bool wvm_unit_waits(const struct wvm_core *core, const struct wvm_request *r)
{
	return r->listed && !wvm_unit_asks(core, r);
}

/* r is over. */
void wvm_unit_forget(struct wvm_core *core, struct wvm_request *r)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, r->vm, r->page);
	uint32_t slot = slot_of(core, r), *link = &u->requests;

	if (!r->listed)
		return;
	while (*link != slot)
		link = &core->requests[*link - 1].unit_next;
	*link = r->unit_next;
	r->listed = false;
	if (u->first != slot)
		return;
	/* Another one asks in its place. */
	u->first = u->requests;
	if (u->first)
		wvm_request_submit(core, &core->requests[u->first - 1]);
}

/* A page of the unit was granted alone: from now on it goes page by page. */
void wvm_unit_touched(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	uint32_t slot, next;

	if (u->touched)
		return;
	wvm_undo_note(core, WVM_UNDO_HELD_UNIT, vm, wvm_unit_index(page));
	u->touched = 1;
	slot = u->requests;
	u->requests = u->first = 0;
	for (; slot; slot = next) {
		struct wvm_request *r = &core->requests[slot - 1];

		next = r->unit_next;
		r->listed = false;
		if (r->state == WVM_REQUEST_UNIT)
			wvm_request_submit(core, r);
	}
}

/*
 * r has waited for the grant of the whole long enough: the page that it was asked
 * with may be one that somebody keeps. Nothing is asked for whole here any more.
 */
void wvm_unit_give_up(struct wvm_core *core, const struct wvm_request *r)
{
	uint32_t first = wvm_held_unit_of(core, r->vm, r->page)->first;

	wvm_unit_touched(core, r->vm, r->page);
	if (first && core->requests[first - 1].state == WVM_REQUEST_SENT)
		wvm_request_renew(core, &core->requests[first - 1]);
}

/*
 * The request of this node that a demand for the page may mean by `id`: the
 * page's own, or the one that was to get the whole unit. NULL: none is out.
 */
struct wvm_request *wvm_unit_asked(struct wvm_core *core, uint32_t vm, uint64_t page, uint64_t id)
{
	uint32_t slots[2] = {wvm_held_of(core, vm, page)->request,
			     wvm_held_unit_of(core, vm, page)->first};

	for (uint32_t i = 0; i < 2; i++)
		if (slots[i] && core->requests[slots[i] - 1].id == id)
			return &core->requests[slots[i] - 1];
	return NULL;
}

/* ---- the holder: what is granted whole ------------------------------------------------- */

static void take_pages(struct wvm_core *core, uint32_t vm, uint64_t page, struct wvm_held_unit *u)
{
	uint64_t first = page - page % WVM_UNIT_PAGES, pages = core->vms[vm].pages - first;

	for (uint32_t i = 0; i < WVM_UNIT_WORDS; i++, pages -= pages < 64 ? pages : 64) {
		u->mine[i] = pages >= 64 ? UINT64_MAX : (UINT64_C(1) << pages) - 1;
		u->filled[i] = 0;
		core->stats.pages_untouched += pages < 64 ? pages : 64;
	}
}

static void satisfy(struct wvm_core *core, struct wvm_request *r)
{
	uint64_t waiters = r->waiters_read | r->waiters_write;

	wvm_request_latency(core, r);
	if (waiters)
		wvm_unit_fill(core, r->vm, r->page, waiters);
	if (r->pin) {
		wvm_unit_split(core, r->vm, r->page);
		wvm_core_emit(core, WVM_ACT_PINNED, r->vm, r->page);
	}
}

/* The grant of the whole. Every request for a page of the unit has what it wants. */
void wvm_unit_take(struct wvm_core *core, struct wvm_request *r, const struct wvm_msg *msg)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, r->vm, r->page);
	uint32_t vm = r->vm, slot, next;
	uint64_t unit = wvm_unit_index(r->page);

	wvm_undo_note(core, WVM_UNDO_HELD_UNIT, vm, unit);
	wvm_undo_note(core, WVM_UNDO_MINE, vm, unit);
	u->version = msg->version;
	u->grant = r->id;
	u->touched = 1;
	WVM_ASSERT(!u->modified);
	u->hold_until_ns = core->now_ns + core->params.times.hold_min_ns;
	take_pages(core, vm, r->page, u);
	core->stats.units_taken++;
	slot = u->requests;
	u->requests = u->first = 0;
	for (; slot; slot = next) {
		struct wvm_request *q = &core->requests[slot - 1];

		next = q->unit_next;
		q->listed = false;
		satisfy(core, q);
		wvm_request_finish(core, q);
	}
}

#define FILL_FIRST 8u /* pages: what scattered accesses cost of memory, and a start */

/* The run that the page goes on, upwards or downwards; else a new one. */
static struct wvm_fill *fill_run(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_fill *f;

	for (uint32_t i = 0; i < WVM_FILLS; i++) {
		f = &core->fills[i];
		if (f->count && f->vm == vm && (f->next == page || f->first == page + 1))
			return f;
	}
	f = &core->fills[core->fill_next++ % WVM_FILLS];
	*f = (struct wvm_fill){.vm = vm};
	return f;
}

/* A page that is mine is used. Whether it had not been. */
static bool note_filled(struct wvm_core *core, struct wvm_held_unit *u, uint64_t page)
{
	uint64_t *word = &u->filled[page % WVM_UNIT_PAGES / 64], bit = UINT64_C(1) << page % 64;
	bool first = !(*word & bit);

	*word |= bit;
	core->stats.pages_untouched -= first;
	return first;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* How many pages from `page` on, upwards or downwards, are mine; at most `most` in its unit. */
static uint32_t mine_from(const struct wvm_held_unit *u, uint64_t page, int way, uint32_t most)
{
	uint64_t at = page % WVM_UNIT_PAGES;
	uint32_t left = (uint32_t)(way > 0 ? WVM_UNIT_PAGES - at : at + 1), n = 1;

	most = smaller(most, left);
	while (n < most && wvm_unit_mine(u, way > 0 ? page + n : page - n))
		n++;
	return n;
}

/*
 * Zeros for a page that is mine, and for those beside it that will be wanted
 * next. At first those of its block: nothing tells which way the program goes, and
 * guest kernels hand memory out from the top. Then, where one run follows the other,
 * on that side twice as many as the last time, up to the whole unit.
 */
void wvm_unit_fill(struct wvm_core *core, uint32_t vm, uint64_t page, uint64_t waiters)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	struct wvm_fill *f = fill_run(core, vm, page);
	uint32_t most = smaller(f->count ? smaller(f->count * 2, WVM_UNIT_PAGES) : FILL_FIRST,
				core->fill_most);
	uint32_t up = most, down = 1, place = (uint32_t)(page % FILL_FIRST);
	struct wvm_action *a = wvm_core_emit(core, WVM_ACT_FILL, vm, page);

	if (!f->count && most == FILL_FIRST) {
		up = FILL_FIRST - place;
		down = place + 1;
	} else if (f->count && f->first == page + 1) {
		up = 1;
		down = most;
	}
	a->count = mine_from(u, page, 1, up);
	a->below = mine_from(u, page, -1, down) - 1;
	a->waiters = waiters;
	f->first = page - a->below;
	f->next = page + a->count;
	f->count = most;
	core->stats.unit_fills++;
	for (uint64_t at = f->first; at < f->next; at++)
		core->stats.pages_modified += note_filled(core, u, at);
}

void wvm_core_fill_most(struct wvm_core *core, uint32_t pages)
{
	WVM_ASSERT(pages && pages <= WVM_UNIT_PAGES);
	core->fill_most = pages;
}

uint64_t wvm_core_next_filled(const struct wvm_core_vm *vm, uint64_t page, uint64_t end)
{
	while (page < end) {
		const struct wvm_held_unit *u = &vm->held_units[wvm_unit_index(page)];
		uint64_t at = page % WVM_UNIT_PAGES / 64;
		uint64_t word = (u->mine[at] & u->filled[at]) >> page % 64;

		if (word) {
			page += (uint64_t)__builtin_ctzll(word);
			return page < end ? page : end;
		}
		page = (page | 63) + 1;
	}
	return end;
}

void wvm_core_unfilled(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	uint64_t *word = &u->filled[page % WVM_UNIT_PAGES / 64], bit = UINT64_C(1) << page % 64;

	WVM_ASSERT(wvm_unit_mine(u, page) && *word & bit);
	*word &= ~bit;
	core->stats.pages_modified--;
	core->stats.pages_untouched++;
}

/* The page gets an entry of its own, before anything is said about it. */
void wvm_unit_split(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	struct wvm_held_page *h = wvm_held_of(core, vm, page);

	WVM_ASSERT(!h->demand);
	wvm_undo_note(core, WVM_UNDO_MINE, vm, wvm_unit_index(page));
	wvm_note_held(core, vm, page);
	h->state = WVM_HELD_INVALID; /* what it may say is of before a merge; pins count on */
	u->mine[page % WVM_UNIT_PAGES / 64] &= ~(UINT64_C(1) << page % 64);
	core->stats.pages_modified -= !note_filled(core, u, page);
	h->version = u->version;
	h->grant = u->grant;
	h->hole = 1;
	h->hold_until_ns = u->hold_until_ns;
	h->lost_ns = 0;
	wvm_holder_set(core, vm, page, WVM_HELD_MODIFIED);
	core->stats.unit_pages_split++;
}

struct wvm_held_page wvm_core_held(const struct wvm_core_vm *vm, uint64_t page)
{
	return wvm_core_held_in(&vm->held_units[wvm_unit_index(page)], &vm->held[page], page);
}

struct wvm_held_page wvm_core_held_in(const struct wvm_held_unit *u,
				      const struct wvm_held_page *entry, uint64_t page)
{
	struct wvm_held_page h = {0};

	if (!wvm_unit_mine(u, page))
		return *entry;
	h.state = WVM_HELD_MODIFIED;
	h.version = u->version;
	h.grant = u->grant;
	h.hole = 1;
	return h;
}

bool wvm_core_unit_held(const struct wvm_core_vm *vm, uint64_t page)
{
	const struct wvm_held_unit *u = &vm->held_units[wvm_unit_index(page)];
	uint64_t any = u->modified | u->shared;

	for (uint32_t i = 0; i < WVM_UNIT_WORDS; i++)
		any |= u->mine[i];
	return any;
}

bool wvm_core_needs_held(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return !wvm_unit_mine(wvm_held_unit_of(core, vm, page), page);
}

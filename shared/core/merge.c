/*
 * Units put together again. A unit that was split goes page by page for as long
 * as several nodes use it. Once one of them has all of its pages Modified it asks
 * the home to make one grant of them all: afterwards the unit is as it was when it
 * was first touched, 64 bytes at the home and a bit a page at the holder.
 *
 *	holder  -          -> waits     its last page came; others may want one back at once
 *	        waits      -> asks      all are here still: an id for the merge, kept in `merging`
 *	        asks       -> -         the home grants: all pages are `mine`
 *	                   -> waits     the home refuses, and says which version it wants to see
 *	home    MEM_ACQUIRE with UNIT and HELD, the merge's id as the grant, under a new request id
 *	        each time: MEM_ACK with UNIT, and HELD (granted) or ERROR (refused)
 *
 * Why no page is lost between the two:
 *	- the home grants only what names the unit's highest version, so nothing was granted to
 *	  anybody since the holder looked; and a refusal raises that version. All messages of one
 *	  merge name the same one, in whichever life: once refused it is never granted
 *	- it grants only while it has asked the owner for none of the pages, ever since the owner
 *	  got it (WVM_HOME_ASKED): what it asks, also what it asked in a former life, may be
 *	  obeyed at any time
 *	- the holder gives none of its pages up unasked before it has an answer, and asks until
 *	  it has one, in its next life too. (Its home alone could take them.)
 *	- whoever is asked for a page by the merge's id knows that the merge was granted
 */
#include "shared/core/core_int.h"

/* Hold times: a unit that is fought over is left in its pages. */
#define SETTLE_HOLDS 10u
/* Looks at a unit, in vain or refused; then the next page that is granted begins anew. */
#define ATTEMPTS     4u

static uint32_t pages_of(const struct wvm_core *core, uint32_t vm, uint64_t first)
{
	uint64_t pages = core->vms[vm].pages - first;

	return pages < WVM_UNIT_PAGES ? (uint32_t)pages : WVM_UNIT_PAGES;
}

/* ---- the holder ------------------------------------------------------------------------ */

static uint32_t mine_of(const struct wvm_held_unit *u)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < WVM_UNIT_WORDS; i++)
		n += (uint32_t)__builtin_popcountll(u->mine[i]);
	return n;
}

/* Whether every page is Modified here, and not all of them by one grant already. */
static bool all_here(const struct wvm_core *core, uint32_t vm, uint64_t first)
{
	const struct wvm_held_unit *u = wvm_held_unit_of(core, vm, first);

	return u->modified && u->modified + mine_of(u) == pages_of(core, vm, first);
}

/* Whether all are here, and nothing is asked of any. Their highest version; and whether one is
 * pinned.
 */
static bool at_rest(struct wvm_core *core, uint32_t vm, uint64_t first, uint64_t *version,
		    bool *pinned)
{
	const struct wvm_held_unit *u = wvm_held_unit_of(core, vm, first);
	uint32_t pages = pages_of(core, vm, first);

	if (!all_here(core, vm, first))
		return false;
	*version = mine_of(u) ? u->version : 0;
	*pinned = false;
	for (uint64_t page = first; page < first + pages; page++) {
		const struct wvm_held_page *h = wvm_held_of(core, vm, page);

		if (wvm_unit_mine(u, page))
			continue;
		WVM_ASSERT(h->state == WVM_HELD_MODIFIED);
		if (h->coming || h->demand)
			return false;
		*pinned |= h->pins != 0;
		if (*version < h->version)
			*version = h->version;
	}
	return true;
}

static void end(struct wvm_core *core, struct wvm_merge *m)
{
	wvm_core_timer_cancel(&core->timers, &m->timer);
	wvm_held_unit_of(core, m->vm, m->first)->merge = 0;
	m->used = false;
}

static void wait(struct wvm_core *core, struct wvm_merge *m)
{
	wvm_core_timer_arm(&core->timers, &m->timer,
			   core->now_ns + SETTLE_HOLDS * core->params.times.hold_max_ns);
}

static struct wvm_merge *begin(struct wvm_core *core, uint32_t vm, uint64_t first)
{
	for (uint8_t i = 0; i < WVM_MERGES; i++) {
		struct wvm_merge *m = &core->merges[i];

		if (m->used)
			continue;
		*m = (struct wvm_merge){
			.timer.kind = WVM_TIMER_MERGE, .first = first, .vm = vm, .used = true};
		wvm_held_unit_of(core, vm, first)->merge = i + 1;
		return m;
	}
	return NULL;
}

/*
 * The page was granted Modified. With all slots taken, or where a life ended while it
 * waited, the unit stays as it is until its next grant.
 */
void wvm_merge_look(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint64_t first = wvm_unit_first(page);
	struct wvm_merge *m;

	if (!core->params.merge || wvm_held_unit_of(core, vm, first)->merge ||
	    !all_here(core, vm, first))
		return;
	m = begin(core, vm, first);
	if (m)
		wait(core, m);
}

static void ask(struct wvm_core *core, struct wvm_merge *m)
{
	uint32_t vnode, member = wvm_core_home_of(core, m->vm, m->first, &vnode);
	struct wvm_action *a = wvm_core_send(core, WVM_MSG_MEM_ACQUIRE, m->vm, m->first, member,
					     vnode);

	a->msg.request = wvm_core_next_id(core);
	a->msg.grant = wvm_held_unit_of(core, m->vm, m->first)->merging;
	a->msg.version = wvm_held_unit_of(core, m->vm, m->first)->named;
	a->msg.flags = WVM_MSG_UNIT | WVM_MSG_HELD;
	a->msg.steer = wvm_slice_of(core->vms[m->vm].id, m->first << WVM_PAGE_SHIFT);
	a->msg.reply_steer = wvm_holder_steer(m->first);
	wvm_core_timer_arm(&core->timers, &m->timer,
			   core->now_ns + wvm_core_backoff(core, member, m->tries));
}

void wvm_core_merge(struct wvm_core *core, bool merge)
{
	core->params.merge = merge;
}

void wvm_merge_timer(struct wvm_core *core, struct wvm_merge *m)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, m->vm, m->first);
	uint64_t version;
	bool pinned;

	if (u->merging) {
		m->tries += m->tries < UINT16_MAX;
		ask(core, m);
		return;
	}
	if (!core->params.merge || !all_here(core, m->vm, m->first) || m->attempts++ >= ATTEMPTS) {
		end(core, m);
		return;
	}
	/* Pinned ones are about to be asked for, or kept for long. */
	if (!at_rest(core, m->vm, m->first, &version, &pinned) || pinned) {
		wait(core, m);
		return;
	}
	m->tries = 0;
	wvm_undo_note(core, WVM_UNDO_HELD_UNIT, m->vm, wvm_unit_index(m->first));
	u->merging = wvm_core_next_id(core);
	u->named = version < u->told ? u->told : version;
	ask(core, m);
}

/*
 * The home has granted it. The pages' own entries stay as they are, and nobody
 * looks at them while the pages are `mine`, but for the pins that came meanwhile.
 */
static bool take(struct wvm_core *core, uint32_t vm, uint64_t first, uint64_t version)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, first);
	uint64_t unit = wvm_unit_index(first), highest;
	uint32_t pages = pages_of(core, vm, first);
	bool pinned;

	if (!at_rest(core, vm, first, &highest, &pinned) || version <= highest)
		return false; /* no home does that */
	wvm_undo_note(core, WVM_UNDO_HELD_UNIT, vm, unit);
	wvm_undo_note(core, WVM_UNDO_MINE, vm, unit);
	for (uint64_t page = first; page < first + pages; page++) {
		uint64_t bit = UINT64_C(1) << page % 64;

		if (!wvm_unit_mine(u, page)) {
			u->mine[page % WVM_UNIT_PAGES / 64] |= bit;
			u->filled[page % WVM_UNIT_PAGES / 64] |= bit;
		}
	}
	u->version = version;
	u->grant = u->merging;
	u->merging = 0;
	u->modified = 0;
	u->hold_until_ns = core->now_ns;
	core->stats.units_merged++;
	if (u->merge)
		end(core, &core->merges[u->merge - 1]);
	if (!pinned)
		wvm_core_emit(core, WVM_ACT_FORGET, vm, first);
	return true;
}

enum wvm_drop wvm_merge_answer(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			       const struct wvm_msg *msg)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	struct wvm_merge *m = u->merge ? &core->merges[u->merge - 1] : NULL;

	if (page != wvm_unit_first(page) || !u->merging || u->merging != msg->grant)
		return WVM_DROP_STALE;
	if (!(msg->flags & WVM_MSG_ERROR)) {
		if (!take(core, vm, page, msg->version))
			return WVM_DROP_STALE;
		core->taken[member]++;
		return WVM_DROP_NONE;
	}
	WVM_ASSERT(m);
	wvm_undo_note(core, WVM_UNDO_HELD_UNIT, vm, wvm_unit_index(page));
	u->merging = 0;
	if (u->told < msg->version)
		u->told = msg->version;
	core->stats.merges_refused++;
	wait(core, m);
	return WVM_DROP_NONE;
}

void wvm_merge_demanded(struct wvm_core *core, uint32_t vm, uint64_t page,
			const struct wvm_msg *msg)
{
	const struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);

	if (u->merging && u->merging == msg->grant)
		(void)take(core, vm, wvm_unit_first(page), msg->version);
}

/* What was asked for, and not answered, is asked of the new home. */
void wvm_merge_rehome(struct wvm_core *core)
{
	for (uint32_t i = 0; i < WVM_MERGES; i++) {
		struct wvm_merge *m = &core->merges[i];

		if (!m->used || !wvm_handover_moved(core, m->vm, m->first) ||
		    !wvm_held_unit_of(core, m->vm, m->first)->merging)
			continue;
		m->tries = 0;
		wvm_core_timer_arm(&core->timers, &m->timer, core->now_ns);
	}
}

/* After kill -9: what was asked for is asked for again, as soon as timers run. */
void wvm_merge_adopt(struct wvm_core *core, uint32_t vm, uint64_t unit)
{
	struct wvm_held_unit *u = &core->vms[vm].held_units[unit];

	u->merge = 0;
	u->modified = u->shared = 0;
	if (u->merging)
		WVM_ASSERT(begin(core, vm, unit * WVM_UNIT_PAGES)); /* they had slots there */
}

void wvm_merge_adopted(struct wvm_core *core, uint64_t now_ns)
{
	for (uint32_t i = 0; i < WVM_MERGES; i++) {
		struct wvm_merge *m = &core->merges[i];

		if (m->used)
			wvm_core_timer_arm(&core->timers, &m->timer, now_ns);
	}
}

/* ---- the home -------------------------------------------------------------------------- */

/* Of before the merge: what it says does not count. */
bool wvm_merge_outdated(const struct wvm_home_unit *u, const struct wvm_home_page *e)
{
	return u->merged && u->granted && e->version && e->version + 1 < u->granted;
}

void wvm_merge_renew(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	struct wvm_home_page *e;

	if (!u->merged)
		return; /* there may be no room for the page's entry */
	e = wvm_home_of(core, vm, page);
	if (!wvm_merge_outdated(u, e))
		return;
	wvm_note_home(core, vm, page);
	*e = (struct wvm_home_page){0};
}

static bool may_merge(struct wvm_core *core, uint32_t vm, uint64_t first, uint32_t member,
		      uint32_t *tracked)
{
	const struct wvm_home_unit *u = wvm_home_unit_of(core, vm, first);
	uint32_t pages = pages_of(core, vm, first);

	*tracked = 0;
	for (uint64_t page = first; page < first + pages; page++) {
		const struct wvm_home_page *e = wvm_home_of(core, vm, page);

		if (!e->version || wvm_merge_outdated(u, e)) {
			if (!u->granted || u->owner != member)
				return false;
			continue;
		}
		if (e->state != WVM_HOME_MODIFIED || e->member[0] != member || e->txn ||
		    e->flags & (WVM_HOME_LOST | WVM_HOME_ASKED))
			return false;
		(*tracked)++;
	}
	return true;
}

static void grant(struct wvm_core *core, uint32_t vm, uint64_t first, uint32_t member,
		  const struct wvm_msg *msg, uint32_t tracked)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, first);

	wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(first));
	u->granted = wvm_home_version(core, vm, first);
	u->grant = msg->grant;
	u->owner = member;
	u->merged = 1;
	u->entries = 0;
	core->stats.pages_homed -= tracked;
	core->stats.home_merges++;
	wvm_core_emit(core, WVM_ACT_FORGET, vm, first)->home = true;
}

static bool granted_already(const struct wvm_home_unit *u, uint32_t member,
			    const struct wvm_msg *msg)
{
	return u->granted && u->grant == msg->grant && u->owner == member;
}

bool wvm_merge_looks(const struct wvm_core *core, uint32_t vm, uint64_t page,
		     const struct wvm_msg *msg)
{
	const struct wvm_home_unit *u = &core->vms[vm].units[wvm_unit_index(page)];

	return u->version && msg->version == u->version &&
	       !granted_already(u, wvm_member_of(core->params.members, msg->src), msg);
}

enum wvm_drop wvm_merge_request(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	struct wvm_asked q = {.id = msg->request,
			      .member = member,
			      .vnode = msg->src,
			      .reply_steer = msg->reply_steer};
	uint8_t flag = WVM_MSG_HELD;
	struct wvm_action *a;
	uint32_t tracked;

	if (page != wvm_unit_first(page) || !u->version || !msg->grant)
		return WVM_DROP_STALE;
	if (!granted_already(u, member, msg)) {
		if (msg->version != u->version) {
			flag = WVM_MSG_ERROR;
		} else if (may_merge(core, vm, page, member, &tracked)) {
			grant(core, vm, page, member, msg, tracked);
		} else {
			(void)wvm_home_version(core, vm, page);
			flag = WVM_MSG_ERROR;
		}
	}
	a = wvm_home_reply(core, vm, page, &q);
	a->msg.grant = msg->grant;
	a->msg.flags = WVM_MSG_UNIT | flag;
	a->msg.version = flag == WVM_MSG_HELD ? u->granted : u->version;
	return WVM_DROP_NONE;
}

/* A page may have got an entry since, by a message of this node to itself or in the same input. */
bool wvm_merge_forgotten(const struct wvm_core *core, const struct wvm_action *a)
{
	const struct wvm_core_vm *vm = &core->vms[a->vm];
	const struct wvm_home_unit *u = &vm->units[wvm_unit_index(a->page)];
	uint32_t pages = pages_of(core, a->vm, a->page);

	if (!a->home)
		return mine_of(wvm_held_unit_of(core, a->vm, a->page)) == pages;
	for (uint64_t page = a->page; page < a->page + pages; page++)
		if (vm->home[page].version && !wvm_merge_outdated(u, &vm->home[page]))
			return false;
	return true;
}

/*
 * A home has died: its slices have other homes, which know of them what they have as second homes
 * (WVM_HOME_BACKUP), and what the holders tell (rebuild_tell.c).
 *
 *	unit of such a slice, at its new home
 *	   TELLING   what is told goes into the pages' entries; nothing is served
 *	   -> CAME   all members have told all: the pages are settled, and served, but for those
 *	             whose bytes are still on their way (UNSTORED: a write-back that the dead home
 *	             had not acknowledged, while others read the same version)
 *	   -> DONE   and those have come. (Where the slice was being handed over by a member that
 *	             lives, that one is told to forget the unit first.)
 *
 *	what is known of a page, when all have told        it becomes
 *	   held Modified                                    Modified
 *	   else written back, in a version above the copy   the bytes are waited for
 *	   else held Shared, in the version of the copy     Shared; in that of zeros where there
 *	                                                    never was a copy
 *	   else a copy                                      Home
 *	   else nothing                                     untouched: zeros
 *	LOST are: all but the Modified and Shared ones where the copies are not complete
 *	(WVM_UNIT_UNKNOWN) or a dead member may have had the page Modified (WVM_UNIT_STOLEN), and
 *	what is held Shared in a version of which no bytes are anywhere else.
 *
 * Why it is never an older copy: the dead home acknowledged no write-back before the second home
 * had it, so the last bytes are in the copy, or kept by their writer, which tells. (Without the
 * copies what a writer keeps may be older: who wrote after it may have been told.) A Shared copy
 * proves that nobody was granted the page since. A version names the content, and what this home
 * gives out is above all of before (epoch << 32). Nobody takes a grant of the dead home any more,
 * since nodes of different epochs do not hear each other: so what is told stays true.
 *
 * While TELLING, WVM_HOME_BACKUP in an entry says that the bytes stored are those of `version`.
 * Each page is final by itself; a message is acknowledged when all of it is, and may come again.
 */
#include "shared/core/handover_int.h"

#define ASKED_AT_ONCE 64u /* members, in one tick */
#define ROUNDS_MAX    5u  /* that double the time to the next */

bool wvm_rebuild_of(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint16_t slice;

	if (!core->params.lost || wvm_core_placed(core, vm, page))
		return false;
	slice = wvm_slice_of(core->vms[vm].id, page << WVM_PAGE_SHIFT);
	return core->params.lost->slices[slice / 64] >> slice % 64 & 1;
}

bool wvm_rebuild_here(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return wvm_rebuild_of(core, vm, page) &&
	       wvm_core_home_of(core, vm, page, NULL) == core->params.self;
}

/* A copy of an earlier time is none. */
static bool is_void(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_page *e = &core->vms[vm].home[page];

	return wvm_merge_outdated(&core->vms[vm].units[wvm_unit_index(page)], e) ||
	       (e->flags & WVM_HOME_BACKUP && !wvm_backup_counts(core, vm, page));
}

static void note_unit(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
}

static bool is_awaited(const struct wvm_home_page *e)
{
	return e->flags & WVM_HOME_UNSTORED && e->state != WVM_HOME_MODIFIED;
}

/* The entry of a page that cannot be had any more. */
static void lose(struct wvm_core *core, struct wvm_home_page *e)
{
	wvm_holders_clear(core, e);
	e->state = WVM_HOME_HOME;
	e->granted = 0;
	e->flags = WVM_HOME_LOST;
	core->stats.home_lost++;
}

/* ---- what is told ---------------------------------------------------------------------- */

static void count_version(struct wvm_home_unit *u, uint64_t version)
{
	if (u->version < version)
		u->version = version;
}

/*
 * A version above all that is known of the page. Without an entry it is that of zeros, which
 * nobody has ever written to; unless the copies may not be complete.
 */
static void raise_version(struct wvm_core *core, struct wvm_home_page *e, uint64_t version,
			  bool unstored)
{
	wvm_holders_clear(core, e);
	e->state = WVM_HOME_HOME;
	e->version = version;
	e->granted = 0;
	e->flags = unstored ? WVM_HOME_UNSTORED : 0;
}

static void take_modified(struct wvm_core *core, struct wvm_home_page *e, uint32_t member,
			  const struct wvm_holding *h)
{
	wvm_holders_clear(core, e);
	/* Whatever was written back before is void, and may be nowhere: nobody falls back to it. */
	e->version = h->version - 1;
	e->flags = WVM_HOME_UNSTORED;
	e->state = WVM_HOME_MODIFIED;
	e->granted = h->version;
	WVM_ASSERT(wvm_holders_add(core, e, member, h->grant));
}

/* False: no room for one more sharer. */
static bool add_sharer(struct wvm_core *core, struct wvm_home_page *e, uint32_t member,
		       const struct wvm_holding *h)
{
	uint32_t record = wvm_holders_find(core, e, member);

	if (record != WVM_NIL)
		wvm_holders_set(core, e, record, h->grant);
	else if (!wvm_holders_add(core, e, member, h->grant))
		return false;
	e->state = WVM_HOME_SHARED;
	return true;
}

/* One page that a member holds. False: no room for the record of it. */
static bool take_page(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
		      const struct wvm_holding *h)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	bool written = h->kind == WVM_HOLDING_WRITTEN || h->kind == WVM_HOLDING_WRITTEN_KEPT;

	wvm_home_unit_has_entries(core, vm, page);
	wvm_note_home(core, vm, page);
	count_version(u, h->version);
	core->stats.rebuilt_held++;
	if (is_void(core, vm, page)) {
		wvm_holders_clear(core, e);
		*e = (struct wvm_home_page){0};
	}
	if (h->version < e->version || (e->state == WVM_HOME_MODIFIED && h->version <= e->granted))
		return true; /* of before what others have told */
	core->stats.pages_homed += !e->version;
	if (h->kind == WVM_HOLDING_MODIFIED) {
		if (h->version > e->version)
			take_modified(core, e, member, h);
		return true;
	}
	if (h->version > e->version || e->state == WVM_HOME_MODIFIED)
		raise_version(core, e, h->version, written || e->version || u->lost);
	/* Where copies may be missing, what is not UNSTORED has come in a hand-over. */
	if (written && !(e->flags & WVM_HOME_BACKUP) &&
	    (e->flags & WVM_HOME_UNSTORED || !u->lost)) {
		e->flags |= WVM_HOME_UNSTORED;
		e->granted = member + 1;
	}
	return h->kind == WVM_HOLDING_WRITTEN || add_sharer(core, e, member, h);
}

/*
 * A member has what is left of a unit that was granted whole: pages that have no entry. All others
 * of the unit have been somebody's since, so they are told by somebody, or were written back; until
 * then they are nobody's, and LOST.
 */
static void take_unit(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
		      const struct wvm_msg *msg, const uint64_t *mine)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	uint64_t end = wvm_unit_end(core, vm, page);

	if (msg->version < u->granted)
		return;
	note_unit(core, vm, page);
	count_version(u, msg->version);
	u->granted = msg->version;
	u->grant = msg->grant;
	u->owner = member;
	u->merged = 1; /* entries of before do not count */
	wvm_undo_commit(core);
	wvm_home_unit_has_entries(core, vm, page);
	for (page = wvm_unit_first(page); page < end; page++) {
		struct wvm_home_page *e = wvm_home_of(core, vm, page);
		uint64_t at = page % WVM_UNIT_PAGES;
		bool its = mine[at / 64] >> at % 64 & 1;

		/* A copy of what it is made of when it is split off says nothing, either. */
		if (its ? !e->version || e->version >= msg->version
			: e->version && !is_void(core, vm, page))
			continue;
		wvm_note_home(core, vm, page);
		wvm_holders_clear(core, e);
		core->stats.pages_homed += !its;
		*e = (struct wvm_home_page){0};
		if (!its) {
			e->version = msg->version - 1;
			e->flags = WVM_HOME_LOST;
		}
		wvm_undo_commit(core);
	}
}

static void acknowledge(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			const struct wvm_msg *msg, bool room)
{
	struct wvm_action *a = wvm_core_send(core, WVM_MSG_HOLDING, vm, page, member, msg->src);

	a->msg.request = msg->request;
	a->msg.flags = room ? WVM_MSG_ANSWER : WVM_MSG_ANSWER | WVM_MSG_ERROR;
	a->msg.steer = msg->reply_steer;
	a->msg.reply_steer = msg->steer;
}

enum wvm_drop wvm_rebuild_holding(struct wvm_core *core, uint32_t vm, uint64_t page,
				  uint32_t member, const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_holding list[WVM_HOLDING_PAGES];
	uint64_t mine[WVM_UNIT_WORDS], pages = wvm_unit_end(core, vm, page) - wvm_unit_first(page);
	uint32_t count;
	bool room = true;

	if (!wvm_rebuild_here(core, vm, page) || !wvm_moved_own(core, vm, page))
		return WVM_DROP_NODE;
	if (wvm_renewed_before(core, member, msg->request))
		return WVM_DROP_STALE;
	if (!data || msg->seg_offset ||
	    !wvm_holding_decode(data, msg->payload_len, msg->grant != 0, mine, list, &count) ||
	    (msg->grant && msg->version < 2) || (count && list[count - 1].index >= pages))
		return WVM_DROP_SEGMENT;
	if (wvm_moved_phase_of(core, vm, page) == WVM_MOVED_TELLING) {
		if (msg->grant)
			take_unit(core, vm, page, member, msg, mine);
		for (uint32_t i = 0; i < count; i++) {
			room &= take_page(core, vm, wvm_unit_first(page) + list[i].index, member,
					  &list[i]);
			wvm_undo_commit(core);
		}
	}
	acknowledge(core, vm, page, member, msg, room);
	return WVM_DROP_NONE;
}

/* ---- what becomes of it ---------------------------------------------------------------- */

/* Whether its bytes will not come any more. */
static bool in_vain(const struct wvm_core *core, const struct wvm_home_page *e)
{
	return is_awaited(e) && (!e->granted || core->peers[e->granted - 1].lost);
}

static void settle_page(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint32_t lost = wvm_home_unit_of(core, vm, page)->lost;
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	bool copy = e->flags & WVM_HOME_BACKUP;

	wvm_note_home(core, vm, page);
	core->stats.pages_homed += copy;
	e->flags &= (uint8_t) ~(WVM_HOME_BACKUP | WVM_HOME_ASKED);
	if (e->flags & WVM_HOME_LOST) {
		lose(core, e);
		return;
	}
	if (e->state == WVM_HOME_MODIFIED)
		return;
	if (in_vain(core, e) ||
	    (e->state == WVM_HOME_HOME && lost & (WVM_UNIT_STOLEN | WVM_UNIT_UNKNOWN)))
		lose(core, e);
}

/* All of it is served, and it has come from nowhere, or from one who does not wait for word. */
static void end_unit(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	uint32_t former = wvm_moved_former(core, vm, page);

	if (u->next || u->phase != WVM_MOVED_CAME)
		return;
	if (former != core->params.self && !core->peers[former].lost) {
		wvm_handover_walk_soon(core);
		return;
	}
	note_unit(core, vm, page);
	u->phase = WVM_MOVED_DONE;
	WVM_ASSERT(core->left.in);
	core->left.in--;
	wvm_backup_unit_came(core, vm, page);
	if (!core->left.in)
		wvm_backup_look(core);
}

/* Whether the entries of its pages are worth looking at: of others there may be no room for them.
 */
static bool has_entries(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_unit *u = &core->vms[vm].units[wvm_unit_index(page)];

	return u->entries || u->era;
}

/* All have told. Each page may be final by itself, so this may be done twice. */
static void settle(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	uint64_t highest = u->version, end = wvm_unit_end(core, vm, page);
	bool known = u->granted || u->lost;
	uint16_t awaited = 0;

	for (uint64_t p = wvm_unit_first(page); p < end && has_entries(core, vm, page); p++) {
		struct wvm_home_page *e = wvm_home_of(core, vm, p);

		if (!e->version)
			continue;
		if (is_void(core, vm, p)) {
			wvm_note_home(core, vm, p);
			wvm_holders_clear(core, e);
			*e = (struct wvm_home_page){0};
		} else {
			settle_page(core, vm, p);
			known = true;
			awaited += is_awaited(e);
			highest = highest < e->version ? e->version : highest;
		}
		wvm_undo_commit(core);
	}
	note_unit(core, vm, page);
	if (known && highest < (uint64_t)core->params.epoch << 32)
		highest = (uint64_t)core->params.epoch << 32;
	u->version = highest;
	u->next = awaited;
	u->lost |= WVM_UNIT_REBUILT;
	u->phase = WVM_MOVED_CAME;
	u->entries |= u->era != 0; /* what were copies are entries now */
	u->era = 0;
	core->stats.rebuilt_units++;
	end_unit(core, vm, page);
	wvm_undo_commit(core);
}

bool wvm_rebuild_awaits(const struct wvm_home_page *e, uint32_t member, const struct wvm_msg *msg)
{
	return is_awaited(e) && e->granted == member + 1 && e->version == msg->version;
}

/* The page is not UNSTORED any more. Entry and unit change in one input. */
void wvm_rebuild_stored(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);

	note_unit(core, vm, page);
	WVM_ASSERT(u->next);
	u->next--;
	end_unit(core, vm, page);
}

/* Who was to write it back is dead, too. */
static void give_up(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	if (!in_vain(core, e))
		return;
	wvm_note_home(core, vm, page);
	lose(core, e);
	wvm_rebuild_stored(core, vm, page);
	wvm_undo_commit(core);
}

bool wvm_rebuild_in_vain(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			 bool telling)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	if (!is_awaited(e) || e->granted != member + 1)
		return false;
	wvm_note_home(core, vm, page);
	e->granted = 0;
	if (!telling)
		give_up(core, vm, page);
	wvm_undo_commit(core);
	return !telling;
}

enum wvm_drop wvm_rebuild_ready(struct wvm_core *core, uint32_t vm, uint64_t page,
				const struct wvm_msg *msg)
{
	if (!wvm_rebuild_here(core, vm, page))
		return WVM_DROP_NONE;
	if (wvm_moved_phase_of(core, vm, page) == WVM_MOVED_TELLING) {
		if (core->untold)
			return WVM_DROP_ROOM; /* it comes again */
		settle(core, vm, page);
	}
	if (!wvm_home_unit_of(core, vm, page)->next || msg->type == WVM_MSG_WRITE_BACK)
		return WVM_DROP_NONE;
	if (wvm_msg_asks_merge(msg))
		return WVM_DROP_ROOM;
	give_up(core, vm, page);
	return is_awaited(wvm_home_of(core, vm, page)) ? WVM_DROP_ROOM : WVM_DROP_NONE;
}

/* ---- who has told ---------------------------------------------------------------------- */

static bool has_told(const struct wvm_core *core, uint32_t member)
{
	const struct wvm_peer *p = &core->peers[member];

	return core->params.lost->member[member] != WVM_LOST_NOT ||
	       (p->shards && p->told == p->shards);
}

static void ask(struct wvm_core *core, uint32_t member)
{
	uint32_t vnode = core->params.members->list[member].first_vnode;
	struct wvm_action *a = wvm_core_send(core, WVM_MSG_HOLDING_DONE, 0, 0, member, vnode);

	a->msg.request = wvm_core_next_id(core);
	a->msg.steer = core->peers[member].told;
	a->msg.reply_steer = core->params.shard;
}

enum wvm_drop wvm_rebuild_done(struct wvm_core *core, uint32_t member, const struct wvm_msg *msg)
{
	struct wvm_peer *p = &core->peers[member];
	uint64_t shards = msg->grant >> 16, shard = msg->grant & 0xffff;

	if (!core->params.lost || wvm_request_boot(msg->request) != core->params.boot ||
	    has_told(core, member) || !shards || shards > 256 || shard != p->told ||
	    shard >= shards)
		return WVM_DROP_STALE;
	p->shards = (uint16_t)shards;
	p->told++;
	core->rounds = 0;
	if (!has_told(core, member)) {
		ask(core, member);
		return WVM_DROP_NONE;
	}
	WVM_ASSERT(core->untold);
	if (!--core->untold)
		wvm_core_timer_arm(&core->timers, &core->rebuild, core->now_ns);
	return WVM_DROP_NONE;
}

static void ask_some(struct wvm_core *core)
{
	const struct wvm_core_times *t = &core->params.times;
	uint64_t wait = t->rto_initial_ns << core->rounds;
	uint32_t asked = 0;

	while (core->ask_member < core->params.members->count) {
		uint32_t member = core->ask_member++;

		if (has_told(core, member))
			continue;
		ask(core, member);
		if (++asked < ASKED_AT_ONCE)
			continue;
		wvm_core_timer_arm(&core->timers, &core->rebuild, core->now_ns);
		return;
	}
	core->ask_member = 0;
	core->rounds += core->rounds < ROUNDS_MAX;
	wait = wvm_core_jitter(core, wait < t->rto_max_ns ? wait : t->rto_max_ns);
	wvm_core_timer_arm(&core->timers, &core->rebuild, core->now_ns + wait);
}

/* One unit of which something is to be done. False: there is nothing to do in this one. */
static bool settle_next(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_unit *u = &core->vms[vm].units[wvm_unit_index(page)];
	enum wvm_moved_phase phase = wvm_moved_phase_of(core, vm, page);

	if ((phase != WVM_MOVED_TELLING && !(phase == WVM_MOVED_CAME && u->next)) ||
	    !wvm_rebuild_here(core, vm, page) || !wvm_moved_own(core, vm, page))
		return false;
	if (phase == WVM_MOVED_TELLING)
		settle(core, vm, page);
	else
		for (uint64_t p = page; p < wvm_unit_end(core, vm, page); p++)
			give_up(core, vm, p);
	return true;
}

void wvm_rebuild_timer(struct wvm_core *core)
{
	if (core->untold) {
		ask_some(core);
		return;
	}
	for (uint32_t n = 0; n < WVM_WALK_BATCH; n++) {
		uint32_t vm = core->rebuild_vm;
		uint64_t page = core->rebuild_unit * WVM_UNIT_PAGES;

		if (vm >= core->vm_count)
			return;
		if (page >= core->vms[vm].pages) {
			core->rebuild_vm++;
			core->rebuild_unit = 0;
			continue;
		}
		core->rebuild_unit++;
		if (settle_next(core, vm, page))
			break;
	}
	wvm_core_timer_arm(&core->timers, &core->rebuild, core->now_ns);
}

/* ---- its begin ------------------------------------------------------------------------- */

/*
 * Entries that others than the dead home have made do not count, nor parts of such. Those of before
 * a merge need not be zeros yet, and nothing will tell any more that they are older.
 */
static void clear_pages(struct wvm_core *core, uint32_t vm, uint64_t page, bool all)
{
	uint64_t end = wvm_unit_end(core, vm, page);

	if (wvm_home_unit_of(core, vm, page)->merged)
		wvm_home_unit_has_entries(core, vm, page);
	for (page = wvm_unit_first(page); page < end && has_entries(core, vm, page); page++) {
		struct wvm_home_page *e = wvm_home_of(core, vm, page);

		if (e->flags & WVM_HOME_BACKUP || (e->version && !all) ||
		    (!e->version && !e->flags && !e->more))
			continue;
		wvm_note_home(core, vm, page);
		wvm_holders_clear(core, e);
		*e = (struct wvm_home_page){0};
		wvm_undo_commit(core);
	}
}

/* Whether a dead member may have had pages Modified of which it told nobody. */
static uint32_t stolen(const struct wvm_core *core)
{
	for (uint32_t i = 0; i < core->params.members->count; i++)
		if (core->params.lost->member[i] == WVM_LOST_HOLDER)
			return WVM_UNIT_STOLEN;
	return 0;
}

/* Who may have written the version that others hold Shared will not tell: it need not be zeros. */
static void doubt_zeros(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint64_t end = wvm_unit_end(core, vm, page);

	for (page = wvm_unit_first(page); page < end && has_entries(core, vm, page); page++) {
		struct wvm_home_page *e = wvm_home_of(core, vm, page);

		if (!e->version || e->state != WVM_HOME_SHARED || e->flags)
			continue;
		wvm_note_home(core, vm, page);
		e->flags = WVM_HOME_UNSTORED;
		wvm_undo_commit(core);
	}
}

static void tell_anew(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t lost)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);

	note_unit(core, vm, page);
	u->granted = u->grant = 0;
	u->owner = u->merged = 0;
	u->next = 0;
	u->lost = lost;
	u->moved = core->params.moved;
	u->phase = WVM_MOVED_TELLING;
}

static void serve_as_before(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);

	note_unit(core, vm, page);
	u->moved = core->params.moved;
	u->phase = WVM_MOVED_CAME;
	u->next = 0;
	u->lost |= WVM_UNIT_REBUILT;
	end_unit(core, vm, page);
}

/*
 * The dead home had begun to serve it, and the second home is this one, which had it before: no
 * write-back was acknowledged since, so what is here are copies of all that nobody else has.
 */
static void take_back(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t unknown)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	bool doubted = wvm_unit_rest_lost(u) || u->lost & WVM_UNIT_DOUBTED;
	uint32_t era = doubted ? 0 : wvm_backup_era(core, vm, page);

	if (era) {
		note_unit(core, vm, page);
		u->era = era;
		wvm_undo_commit(core);
		wvm_backup_keep_unit(core, vm, page);
		unknown = 0;
	}
	clear_pages(core, vm, page, true);
	tell_anew(core, vm, page, unknown | stolen(core));
}

/*
 * What is to be done with a unit, as this home finds it: of a death that is new, of one before, or
 * in a later life. Of a hand-over that was under way it has all (CAME), a part (COMING), or
 * nothing; or it was the former home itself, and the dead one has asked for it, or had it already.
 */
static void open_unit(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	bool back = wvm_moved_former(core, vm, page) == core->params.self;
	uint32_t unknown = wvm_backup_complete(core, vm, page) ? 0 : WVM_UNIT_UNKNOWN;

	switch (wvm_moved_phase_of(core, vm, page)) {
	case WVM_MOVED_DONE: return;
	case WVM_MOVED_TELLING:
		if (stolen(core) && !u->lost)
			doubt_zeros(core, vm, page);
		note_unit(core, vm, page);
		u->lost |= stolen(core);
		break;
	case WVM_MOVED_CAME: end_unit(core, vm, page); break;
	case WVM_MOVED_UNKNOWN:
		if (back)
			serve_as_before(core, vm, page);
		else
			tell_anew(core, vm, page, unknown | stolen(core));
		break;
	case WVM_MOVED_COMING:
		clear_pages(core, vm, page, false);
		tell_anew(core, vm, page, WVM_UNIT_UNKNOWN | stolen(core));
		break;
	case WVM_MOVED_ASKED: take_back(core, vm, page, unknown); break;
	case WVM_MOVED_GIVEN:
		if (u->lost & WVM_UNIT_KEPT && u->era == wvm_backup_era(core, vm, page))
			unknown = 0;
		clear_pages(core, vm, page, true);
		tell_anew(core, vm, page, unknown | stolen(core));
		break;
	case WVM_MOVED_NOTHING:
		clear_pages(core, vm, page, true);
		tell_anew(core, vm, page, unknown | stolen(core));
		break;
	}
	wvm_undo_commit(core);
}

/*
 * Another one makes a unit anew that has moved away from here, and asks for nothing before it
 * serves it. If that one dies, too, what is here is an older state.
 */
static void note_heir(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);

	if (!wvm_rebuild_of(core, vm, page) || !wvm_moved_out(core, vm, page) ||
	    wvm_moved_phase_of(core, vm, page) != WVM_MOVED_UNKNOWN)
		return;
	note_unit(core, vm, page);
	u->moved = core->params.moved;
	u->phase = WVM_MOVED_ASKED;
	wvm_undo_commit(core);
}

void wvm_rebuild_begin(struct wvm_core *core)
{
	bool any = false;

	wvm_core_timer_cancel(&core->timers, &core->rebuild);
	core->untold = core->ask_member = core->rounds = 0;
	core->rebuild_vm = 0;
	core->rebuild_unit = 0;
	for (uint32_t i = 0; i < core->params.members->count; i++)
		core->peers[i].told = core->peers[i].shards = 0;
	if (!core->params.lost)
		return;
	for (uint32_t vm = 0; vm < core->vm_count; vm++)
		for (uint64_t page = 0; page < core->vms[vm].pages; page += WVM_UNIT_PAGES) {
			if (!wvm_moved_own(core, vm, page))
				continue;
			if (!wvm_rebuild_here(core, vm, page)) {
				note_heir(core, vm, page);
				continue;
			}
			open_unit(core, vm, page);
			any |= wvm_moved_phase_of(core, vm, page) != WVM_MOVED_DONE;
		}
	for (uint32_t i = 0; i < core->params.members->count; i++)
		core->untold += !has_told(core, i);
	core->rebuild.kind = WVM_TIMER_REBUILD;
	if (any && core->serving)
		wvm_core_timer_arm(&core->timers, &core->rebuild, core->now_ns);
}

void wvm_core_lost_slices(struct wvm_core_lost *lost, const struct wvm_members *members,
			  const struct wvm_slices *slices, const struct wvm_slices *before,
			  uint32_t member)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (wvm_member_of(members, slices->home_vnode[i]) == member ||
		    (before && wvm_member_of(members, before->home_vnode[i]) == member))
			lost->slices[i / 64] |= UINT64_C(1) << i % 64;
}

void wvm_core_lost(struct wvm_core *core, uint32_t member, bool lost)
{
	core->peers[member].lost = lost;
	wvm_core_gone(core, member, lost);
}

void wvm_rebuild_lost(struct wvm_core *core)
{
	const struct wvm_core_lost *lost = core->params.lost;

	for (uint32_t i = 0; lost && i < core->params.members->count; i++)
		if (lost->member[i] == WVM_LOST_EMPTY || lost->member[i] == WVM_LOST_HOLDER)
			wvm_core_lost(core, i, true);
}

/*
 * The home of a page has died: each holder tells the new one what it holds of it (HOLDING), and,
 * asked for it, that it has told all (HOLDING_DONE). The other side, and what becomes of it:
 * rebuild.c.
 *
 *	-> telling: a walk over all units, WVM_TELLS of them at a time, each page by page
 *	   -> told: all is acknowledged, and durable at the new homes
 *
 * What is told stays true until the new home serves the page, for nobody grants anything of it
 * before that. Only less becomes of it: a Shared copy may go, a Modified page be written back. So
 * a message that is lost is made again from what is held then, and one that comes late does no
 * harm. Nothing of this is durable: a later life tells all again.
 */
#include "shared/core/bytes.h"
#include "shared/core/core_int.h"

/* ---- the payload ----------------------------------------------------------------------- */

static uint32_t put_page(uint8_t *at, uint64_t page, const struct wvm_holding *h)
{
	wvm_store16(at, (uint16_t)(page % WVM_UNIT_PAGES));
	wvm_store16(at + 2, h->kind);
	wvm_store64(at + 4, h->version);
	wvm_store64(at + 12, h->grant);
	return WVM_HOLDING_PAGE;
}

bool wvm_holding_decode(const uint8_t *at, uint32_t len, bool unit, uint64_t *mine,
			struct wvm_holding *list, uint32_t *count)
{
	uint32_t bits = unit ? 8u * WVM_UNIT_WORDS : 0;
	int last = -1;

	if (len < bits || (len - bits) % WVM_HOLDING_PAGE)
		return false;
	*count = (len - bits) / WVM_HOLDING_PAGE;
	if (*count > WVM_HOLDING_PAGES || (!unit && !*count))
		return false;
	for (uint32_t i = 0; i < WVM_UNIT_WORDS; i++)
		mine[i] = unit ? wvm_load64(at + 8 * i) : 0;
	for (uint32_t i = 0; i < *count; i++) {
		const uint8_t *p = at + bits + WVM_HOLDING_PAGE * i;
		struct wvm_holding *h = &list[i];
		uint16_t kind = wvm_load16(p + 2);

		*h = (struct wvm_holding){.version = wvm_load64(p + 4),
					  .grant = wvm_load64(p + 12),
					  .index = wvm_load16(p),
					  .kind = (uint8_t)kind};
		if (!kind || kind >= WVM_HOLDING_KINDS || h->index >= WVM_UNIT_PAGES ||
		    h->index <= last || h->version < 2 || !h->grant ||
		    mine[h->index / 64] >> h->index % 64 & 1)
			return false;
		last = h->index;
	}
	return true;
}

/* ---- one unit -------------------------------------------------------------------------- */

/* What is to be told of a page that has an entry of its own. False: nothing. */
static bool holds(const struct wvm_core *core, uint32_t vm, uint64_t page, struct wvm_holding *to)
{
	const struct wvm_held_page *h = &core->vms[vm].held[page];
	const struct wvm_demand *d = h->demand ? &core->demands[h->demand - 1] : NULL;

	if (d && d->state == WVM_DEMAND_WRITE_BACK) {
		to->kind = d->keep ? WVM_HOLDING_WRITTEN_KEPT : WVM_HOLDING_WRITTEN;
		to->version = d->version;
		to->grant = d->grant;
		return true;
	}
	to->kind = h->state == WVM_HELD_MODIFIED ? WVM_HOLDING_MODIFIED : WVM_HOLDING_SHARED;
	to->version = h->version;
	to->grant = h->grant;
	return h->state != WVM_HELD_INVALID;
}

static bool any_mine(const struct wvm_held_unit *u)
{
	uint64_t any = 0;

	for (uint32_t i = 0; i < WVM_UNIT_WORDS; i++)
		any |= u->mine[i];
	return any != 0;
}

/*
 * The payload about the pages of t, and t->end, where it is not known yet: as far as one
 * message goes. Bytes; 0: nothing is held of them. Entries of pages that are `mine` are not
 * looked at: there may be no room for them.
 */
static uint32_t compose(struct wvm_core *core, struct wvm_tell *t, bool *unit)
{
	const struct wvm_held_unit *u = wvm_held_unit_of(core, t->vm, t->page);
	uint64_t end = t->end ? t->end : wvm_unit_end(core, t->vm, t->page), page;
	uint32_t len = 0, count = 0;
	struct wvm_holding h;

	*unit = t->page % WVM_UNIT_PAGES == 0 && any_mine(u);
	for (uint32_t i = 0; *unit && i < WVM_UNIT_WORDS; i++, len += 8)
		wvm_store64(core->holding + len, u->mine[i]);
	for (page = t->page; page < end && count < WVM_HOLDING_PAGES; page++) {
		if (wvm_unit_mine(u, page) || !holds(core, t->vm, page, &h))
			continue;
		len += put_page(core->holding + len, page, &h);
		count++;
	}
	t->end = page;
	return len;
}

static void send(struct wvm_core *core, struct wvm_tell *t, uint32_t len, bool unit)
{
	const struct wvm_held_unit *u = wvm_held_unit_of(core, t->vm, t->page);
	struct wvm_action *a;
	uint32_t vnode;

	t->member = wvm_core_home_of(core, t->vm, t->page, &vnode);
	t->id = wvm_core_next_id(core);
	t->asked_ns = core->now_ns;
	a = wvm_core_send(core, WVM_MSG_HOLDING, t->vm, t->page, t->member, vnode);
	a->msg.request = t->id;
	a->msg.steer = wvm_slice_of(core->vms[t->vm].id, t->page << WVM_PAGE_SHIFT);
	a->msg.reply_steer = wvm_holder_steer(t->page);
	if (unit) {
		a->msg.version = u->version;
		a->msg.grant = u->grant;
	}
	a->msg.payload_len = (uint16_t)len;
	a->msg.seg_total = (len + WVM_SEGMENT_UNIT - 1) & ~(WVM_SEGMENT_UNIT - 1);
	a->source = WVM_DATA_BYTES;
	a->data = core->holding;
	wvm_core_timer_arm(&core->timers, &t->timer,
			   core->now_ns + wvm_core_backoff(core, t->member, t->tries));
}

static void end(struct wvm_core *core, struct wvm_tell *t)
{
	wvm_core_timer_cancel(&core->timers, &t->timer);
	t->used = false;
	core->tells_used--;
}

/* Says the next part that there is. False: there is none. One message uses core->holding. */
static bool go_on(struct wvm_core *core, struct wvm_tell *t)
{
	uint64_t unit_end = wvm_unit_end(core, t->vm, t->page);
	uint32_t len;
	bool unit;

	while (t->page < unit_end) {
		len = compose(core, t, &unit);
		if (len) {
			send(core, t, len, unit);
			return true;
		}
		t->page = t->end;
		t->end = 0;
	}
	return false;
}

void wvm_tell_timer(struct wvm_core *core, struct wvm_tell *t)
{
	t->tries += t->tries < UINT16_MAX;
	if (go_on(core, t))
		return;
	end(core, t);
	wvm_core_timer_arm(&core->timers, &core->tell, core->now_ns);
}

/* ---- the walk -------------------------------------------------------------------------- */

static bool own_range(const struct wvm_core *core, uint64_t page)
{
	return core->params.shards < 2 ||
	       wvm_holder_steer(page) % core->params.shards == core->params.shard;
}

static bool to_tell(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_held_unit *u = &core->vms[vm].held_units[wvm_unit_index(page)];

	return own_range(core, page) && wvm_rebuild_of(core, vm, page) && u->touched;
}

/* True: something was said of the unit. */
static bool tell(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_tell *t = core->tells;

	while (t->used)
		t++;
	*t = (struct wvm_tell){.timer.kind = WVM_TIMER_TELLS, .vm = vm, .page = page, .used = true};
	core->tells_used++;
	if (go_on(core, t)) {
		core->stats.told_units++;
		return true;
	}
	end(core, t);
	return false;
}

/* One message at a time: the next follows by the timer, as core->holding is one. */
void wvm_tell_walk(struct wvm_core *core)
{
	for (uint32_t n = 0; n < WVM_WALK_BATCH; n++) {
		uint32_t vm = core->tell_vm;
		uint64_t page = core->tell_unit * WVM_UNIT_PAGES;

		if (core->tells_used == WVM_TELLS)
			return; /* the end of one goes on */
		if (vm >= core->vm_count) {
			core->telling = false;
			core->told = !core->tells_used;
			return;
		}
		if (page >= core->vms[vm].pages) {
			core->tell_vm++;
			core->tell_unit = 0;
			continue;
		}
		core->tell_unit++;
		if (to_tell(core, vm, page) && tell(core, vm, page))
			break;
	}
	wvm_core_timer_arm(&core->timers, &core->tell, core->now_ns);
}

void wvm_tell_begin(struct wvm_core *core)
{
	for (uint32_t i = 0; i < WVM_TELLS; i++)
		if (core->tells[i].used)
			end(core, &core->tells[i]);
	wvm_core_timer_cancel(&core->timers, &core->tell);
	core->telling = core->told = false;
	if (!core->params.lost || core->adopting)
		return;
	core->telling = true;
	core->tell_vm = 0;
	core->tell_unit = 0;
	core->tell.kind = WVM_TIMER_TELL;
	wvm_core_timer_arm(&core->timers, &core->tell, core->now_ns);
}

/* ---- what the new home says ------------------------------------------------------------ */

/* It has no room for so many sharers: their copies go, which needs no word. */
static void drop_shared(struct wvm_core *core, const struct wvm_tell *t)
{
	const struct wvm_held_unit *u = wvm_held_unit_of(core, t->vm, t->page);

	for (uint64_t page = t->page; page < t->end; page++) {
		if (wvm_unit_mine(u, page) ||
		    wvm_held_of(core, t->vm, page)->state != WVM_HELD_SHARED)
			continue;
		wvm_holder_drop_shared(core, t->vm, page);
		wvm_undo_commit(core);
	}
}

enum wvm_drop wvm_tell_answer(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			      const struct wvm_msg *msg)
{
	struct wvm_tell *t = core->tells;

	while (t < core->tells + WVM_TELLS && !(t->used && t->id == msg->request))
		t++;
	if (t == core->tells + WVM_TELLS || t->vm != vm || t->page != page || t->member != member)
		return WVM_DROP_STALE;
	if (!t->tries)
		wvm_peer_sample(&core->peers[member], core->now_ns - t->asked_ns);
	t->tries = 0;
	if (msg->flags & WVM_MSG_ERROR) {
		drop_shared(core, t);
	} else {
		t->page = t->end;
		t->end = 0;
	}
	if (t->page < wvm_unit_end(core, vm, page) && go_on(core, t))
		return WVM_DROP_NONE;
	end(core, t);
	if (core->telling)
		wvm_core_timer_arm(&core->timers, &core->tell, core->now_ns);
	else
		core->told = !core->tells_used;
	return WVM_DROP_NONE;
}

enum wvm_drop wvm_tell_done(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			    const struct wvm_msg *msg)
{
	uint32_t shards = core->params.shards ? core->params.shards : 1;
	struct wvm_action *a;

	if (!core->told)
		return WVM_DROP_ROOM;
	a = wvm_core_send(core, WVM_MSG_HOLDING_DONE, vm, page, member, msg->src);
	a->msg.request = msg->request;
	a->msg.flags = WVM_MSG_ANSWER;
	a->msg.steer = msg->reply_steer;
	a->msg.reply_steer = msg->steer;
	a->msg.grant = (uint64_t)shards << 16 | core->params.shard;
	return WVM_DROP_NONE;
}

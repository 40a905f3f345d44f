/* Backups, at the home: see backup.h. */
#include "shared/core/backup_int.h"

static bool is_complete(const struct wvm_second *s)
{
	return s->complete == s->era;
}

uint32_t wvm_backup_member(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	if (!core->params.backup || wvm_core_placed(core, vm, page))
		return WVM_SLICE_NIL;
	return wvm_backup_member_in(core, core->params.backup, wvm_backup_slice(core, vm, page));
}

/* ---- which slices ---------------------------------------------------------------------- */

/* A slice that this home has to see to. */
static bool is_to_make(const struct wvm_core *core, uint32_t slice)
{
	return !is_complete(&core->seconds->slice[slice]) && wvm_backup_is_own(core, slice) &&
	       wvm_backup_is_home(core, slice) &&
	       wvm_backup_member_in(core, core->params.backup, slice) != WVM_SLICE_NIL;
}

static bool is_hopeless(const struct wvm_core *core, uint32_t slice)
{
	return core->backup->hopeless[slice / 8] >> slice % 8 & 1;
}

static bool can_be_made(const struct wvm_core *core, uint32_t slice)
{
	return is_to_make(core, slice) && !is_hopeless(core, slice);
}

static struct wvm_pair pair_of(const struct wvm_core *core, uint32_t slice)
{
	uint32_t home = wvm_backup_member_in(core, core->params.slices, slice);
	uint32_t second = wvm_backup_member_in(core, core->params.backup, slice);

	WVM_ASSERT(home < WVM_SLICES && (second < WVM_SLICES || second == WVM_SLICE_NIL));
	return (struct wvm_pair){(uint16_t)home,
				 second == WVM_SLICE_NIL ? WVM_PAIR_NIL : (uint16_t)second};
}

/* Cut short by the process' end, it is done once more: nothing that it looks at is lost before. */
static void follow_table(struct wvm_core *core, uint32_t slice)
{
	struct wvm_second *s = &core->seconds->slice[slice];
	struct wvm_pair is = pair_of(core, slice);
	uint32_t self = core->params.self;

	if (s->era && s->pair.home == is.home && s->pair.second == is.second)
		return;
	/* What a home has from its time as a second home is needed until it has the unit. */
	if (s->era != core->params.epoch && !(s->pair.home == self && is.home == self && s->era)) {
		s->from = s->pair.second == self && is.home == self ? s->era : 0;
		s->from_complete = s->complete;
	}
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&s->era, core->params.epoch, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store(&s->pair, &is, __ATOMIC_RELEASE);
}

static void follow_tables(struct wvm_core *core)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		follow_table(core, i);
}

void wvm_backup_init(struct wvm_core *core)
{
	if (!core->seconds)
		return;
	__builtin_memset(core->backup, 0, sizeof(*core->backup));
	if (!core->params.adopt)
		__builtin_memset(core->seconds, 0, sizeof(*core->seconds));
	follow_tables(core);
}

void wvm_core_backup_next(struct wvm_core *core, const struct wvm_slices *backup)
{
	WVM_ASSERT(core->params.backup);
	core->backup->next = backup;
}

bool wvm_backup_degraded(const struct wvm_core *core, uint32_t slice)
{
	return is_to_make(core, slice) && (!core->backup->looked || core->backup->unit_of[slice]);
}

uint32_t wvm_core_degraded(const struct wvm_core *core)
{
	uint32_t count = 0;

	for (uint32_t i = 0; core->seconds && i < WVM_SLICES; i++)
		count += wvm_backup_degraded(core, i);
	return count;
}

static void note_degraded(struct wvm_core *core)
{
	core->stats.backup_missing = wvm_core_degraded(core);
}

/* ---- the copies ------------------------------------------------------------------------ */

bool wvm_backup_complete(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_second *s;

	if (!core->params.backup || wvm_core_placed(core, vm, page))
		return false;
	s = wvm_backup_pair(core, vm, page);
	if (wvm_backup_is_second(core, wvm_backup_slice(core, vm, page)))
		return is_complete(s);
	return wvm_backup_is_home(core, wvm_backup_slice(core, vm, page)) && s->from &&
	       s->from_complete == s->from;
}

static bool unit_counts(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_unit *u = &core->vms[vm].units[wvm_unit_index(page)];
	const struct wvm_second *s;

	if (!core->seconds || !u->era)
		return false;
	s = wvm_backup_pair(core, vm, page);
	return wvm_backup_is_second(core, wvm_backup_slice(core, vm, page)) ? u->era == s->era
									    : u->era == s->from;
}

bool wvm_backup_counts(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return core->vms[vm].home[page].flags & WVM_HOME_BACKUP && unit_counts(core, vm, page);
}

uint32_t wvm_backup_era(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint16_t slice = wvm_backup_slice(core, vm, page);

	if (!core->seconds || wvm_core_placed(core, vm, page))
		return 0;
	if (wvm_backup_is_second(core, slice))
		return core->seconds->slice[slice].era;
	return wvm_backup_is_home(core, slice) ? core->seconds->slice[slice].from : 0;
}

/* ---- the home: messages that are under way --------------------------------------------- */

static bool waited_for(uint8_t state)
{
	return state == WVM_COPY_WRITTEN || state == WVM_COPY_LOST;
}

static void end(struct wvm_core *core, struct wvm_copy *c)
{
	uint32_t class = waited_for(c->state);

	wvm_core_timer_cancel(&core->timers, &c->timer);
	core->backup->used[class]--;
	core->peers[c->member].copies[class]--;
	c->state = WVM_COPY_FREE;
}

/* One second home has at most as many slots as it leaves to the others: it may be silent. */
static struct wvm_copy *begin(struct wvm_core *core, uint8_t state, uint32_t vm, uint64_t page,
			      uint32_t member)
{
	uint32_t class = waited_for(state);
	uint32_t i = class ? WVM_COPIES_WALK : 0, last = class ? WVM_COPIES : WVM_COPIES_WALK;

	if (core->peers[member].copies[class] >= last - i - core->backup->used[class])
		return NULL;
	while (core->backup->copies[i].state != WVM_COPY_FREE)
		i++;
	WVM_ASSERT(i < last);
	core->peers[member].copies[class]++;
	core->backup->used[class]++;
	core->backup->copies[i] = (struct wvm_copy){.timer.kind = WVM_TIMER_COPY,
						    .page = page,
						    .started_ns = core->now_ns,
						    .vm = vm,
						    .member = member,
						    .slice = wvm_backup_slice(core, vm, page),
						    .state = state};
	return &core->backup->copies[i];
}

static void send(struct wvm_core *core, struct wvm_copy *c)
{
	uint32_t vnode = core->params.backup->home_vnode[c->slice];
	bool done = c->state == WVM_COPY_DONE;
	struct wvm_action *a = wvm_core_send(core, done ? WVM_MSG_BACKUP_DONE : WVM_MSG_BACKUP,
					     c->vm, c->page, c->member, vnode);

	if (!c->id || wvm_core_id_old(core, c->id))
		c->id = wvm_core_next_id(core);
	c->sent_ns = core->now_ns;
	a->msg.request = c->id;
	a->msg.steer = a->msg.reply_steer = c->slice;
	wvm_core_timer_arm(&core->timers, &c->timer,
			   core->now_ns + wvm_core_backoff(core, c->member, c->tries));
	if (done) {
		a->msg.version = core->renewed_sum;
		a->msg.grant = wvm_renewed_item(core) << WVM_BACKUP_LIFE_BITS |
			       core->peers[c->member].life;
		return;
	}
	if (c->state == WVM_COPY_LOST || wvm_home_of(core, c->vm, c->page)->flags & WVM_HOME_LOST) {
		a->msg.flags = WVM_MSG_ERROR;
	} else if (!(wvm_home_of(core, c->vm, c->page)->flags & WVM_HOME_WRITTEN)) {
		a->msg.flags = WVM_MSG_ZERO;
	} else {
		a->source = WVM_DATA_STORE;
		a->msg.qos = WVM_QOS_BULK;
	}
	c->version = a->msg.version = wvm_home_of(core, c->vm, c->page)->version;
}

static void written_done(struct wvm_core *core, struct wvm_copy *c)
{
	struct wvm_copy was = *c;

	end(core, c);
	if (was.state == WVM_COPY_WRITTEN)
		wvm_home_acknowledge(core, was.vm, was.page, &was.written);
}

/* The next page of the unit that has an entry; or it is done with. */
static void walk_on(struct wvm_core *core, struct wvm_copy *c)
{
	uint64_t last = wvm_unit_end(core, c->vm, c->page);

	while (c->page < last && !wvm_backup_stored(core, c->vm, c->page))
		c->page++;
	if (c->page == last) {
		end(core, c);
		wvm_backup_look(core);
		return;
	}
	c->id = 0;
	c->tries = 0;
	c->started_ns = core->now_ns;
	send(core, c);
}

/* Nothing is counted on that is copied, or said to be complete, from now on. */
static void miss(struct wvm_core *core, uint32_t slice)
{
	core->backup->missed[slice / 8] |= (uint8_t)(1u << slice % 8);
}

static bool is_missed(const struct wvm_core *core, uint32_t slice)
{
	return core->backup->missed[slice / 8] >> slice % 8 & 1;
}

static void set_complete(struct wvm_second *s, uint32_t era)
{
	__atomic_store_n(&s->complete, era, __ATOMIC_RELEASE);
}

static bool is_whole(const struct wvm_core *core, uint32_t slice)
{
	return core->backup->whole[slice / 8] >> slice % 8 & 1;
}

static void make_again(struct wvm_core *core, uint32_t slice)
{
	set_complete(&core->seconds->slice[slice], 0);
	core->backup->whole[slice / 8] &= (uint8_t) ~(1u << slice % 8);
	miss(core, slice);
}

void wvm_backup_again(struct wvm_core *core, uint32_t slice)
{
	if (wvm_backup_is_home(core, slice))
		make_again(core, slice);
}

/* The second home has lost all. */
static void make_all_again(struct wvm_core *core, uint32_t member)
{
	core->peers[member].life = 0;
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (wvm_backup_is_own(core, i) && wvm_backup_is_home(core, i) &&
		    wvm_backup_member_in(core, core->params.backup, i) == member)
			make_again(core, i);
	wvm_backup_look(core);
}

/* What it has is not in doubt. As a former second home it will not be told so any more. */
static void doubt_home(struct wvm_core *core, uint32_t slice)
{
	struct wvm_second *s = &core->seconds->slice[slice];

	__atomic_store_n(&s->from_complete, 0, __ATOMIC_RELEASE);
	if (!is_complete(s) ||
	    wvm_backup_member_in(core, core->params.backup, slice) == WVM_SLICE_NIL)
		return;
	set_complete(s, 0);
	core->backup->whole[slice / 8] |= (uint8_t)(1u << slice % 8);
}

void wvm_backup_renewed(struct wvm_core *core, uint32_t member)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		if (!wvm_backup_is_own(core, i))
			continue;
		if (wvm_backup_is_home(core, i))
			doubt_home(core, i);
		else if (wvm_backup_is_second(core, i))
			set_complete(&core->seconds->slice[i], 0);
	}
	make_all_again(core, member);
}

/* A life that has not taken the files of the one before over has no copies. */
static bool heard(struct wvm_core *core, uint32_t member, uint64_t life)
{
	struct wvm_peer *peer = &core->peers[member];

	if (!life || life > UINT16_MAX || life < peer->life || life < core->renewed[member])
		return false; /* what it had is gone */
	if (peer->life && life > peer->life)
		make_all_again(core, member);
	peer->life = (uint16_t)life;
	return true;
}

static struct wvm_copy *by_id(struct wvm_core *core, uint64_t id)
{
	for (uint32_t i = 0; id && i < WVM_COPIES; i++)
		if (core->backup->copies[i].state != WVM_COPY_FREE &&
		    core->backup->copies[i].id == id)
			return &core->backup->copies[i];
	return NULL;
}

static void give_up(struct wvm_core *core, struct wvm_copy *c)
{
	bool walks = !waited_for(c->state);

	end(core, c);
	if (!walks)
		return;
	miss(core, c->slice);
	wvm_backup_look(core);
}

static enum wvm_drop said_complete(struct wvm_core *core, struct wvm_copy *c,
				   const struct wvm_msg *msg)
{
	struct wvm_second *s = &core->seconds->slice[c->slice];

	(void)wvm_renewed_learn(core, msg->grant >> WVM_BACKUP_LIFE_BITS);
	if (!is_missed(core, c->slice) &&
	    (msg->flags & WVM_MSG_ERROR || msg->version != core->renewed_sum)) {
		c->id = 0; /* now its life is known, and more of what it knows */
		if (core->now_ns - c->started_ns >= core->params.times.deadline_ns)
			give_up(core, c);
		else
			send(core, c);
		return WVM_DROP_NONE;
	}
	if (!is_missed(core, c->slice)) {
		set_complete(s, s->era);
		core->backup->whole[c->slice / 8] &= (uint8_t) ~(1u << c->slice % 8);
		core->stats.backup_slices++;
		note_degraded(core);
	}
	end(core, c);
	wvm_backup_look(core);
	return WVM_DROP_NONE;
}

static enum wvm_drop from_second(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg)
{
	struct wvm_copy *c = by_id(core, msg->request);

	if (!c || c->vm != vm || c->page != page || c->member != member ||
	    (c->state == WVM_COPY_DONE) != (msg->type == WVM_MSG_BACKUP_DONE) ||
	    !heard(core, member, c->state == WVM_COPY_DONE ? (uint16_t)msg->grant : msg->grant))
		return WVM_DROP_STALE;
	if (!c->tries)
		wvm_peer_sample(&core->peers[member], core->now_ns - c->sent_ns);
	if (c->state == WVM_COPY_DONE)
		return said_complete(core, c, msg);
	if (msg->version < c->version)
		return WVM_DROP_STALE; /* of before it was written back once more */
	core->stats.backup_copied++;
	core->stats.backup_waited += c->state == WVM_COPY_WRITTEN;
	if (c->state == WVM_COPY_WALK) {
		c->page++;
		walk_on(core, c);
	} else {
		written_done(core, c);
	}
	return WVM_DROP_NONE;
}

enum wvm_drop wvm_backup_message(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg, const uint8_t *data)
{
	if (msg->flags & WVM_MSG_ANSWER)
		return from_second(core, vm, page, member, msg);
	return wvm_backup_to_second(core, vm, page, member, msg, data);
}

void wvm_backup_timer(struct wvm_core *core, struct wvm_copy *c)
{
	bool page = c->state != WVM_COPY_DONE;

	/* Its owner or a later pass repeats it, and another one may need the slot. */
	if (c->state != WVM_COPY_LOST &&
	    core->now_ns - c->started_ns >= core->params.times.deadline_ns) {
		give_up(core, c);
		return;
	}
	/* What was to be said does not hold any more. */
	if (!page && is_missed(core, c->slice)) {
		end(core, c);
		wvm_backup_look(core);
		return;
	}
	/* The unit was merged: who has all of it had the page from here. */
	if (page && !wvm_backup_stored(core, c->vm, c->page)) {
		if (c->state == WVM_COPY_WALK)
			walk_on(core, c);
		else
			written_done(core, c);
		return;
	}
	c->tries += c->tries < UINT16_MAX;
	if (c->tries == WVM_COPY_UNHEARD && !waited_for(c->state))
		wvm_backup_look(core);
	send(core, c);
}

/* ---- the home: what is stored ---------------------------------------------------------- */

bool wvm_backup_made(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return wvm_backup_member(core, vm, page) != WVM_SLICE_NIL &&
	       wvm_backup_is_home(core, wvm_backup_slice(core, vm, page)) &&
	       is_complete(wvm_backup_pair(core, vm, page));
}

static struct wvm_copy *under_way(struct wvm_core *core, uint32_t vm, uint64_t page,
				  const struct wvm_written *w)
{
	for (uint32_t i = WVM_COPIES_WALK; i < WVM_COPIES; i++) {
		struct wvm_copy *c = &core->backup->copies[i];

		if (c->state == WVM_COPY_WRITTEN && c->vm == vm && c->page == page &&
		    c->written.member == w->member && c->written.grant == w->grant)
			return c;
	}
	return NULL;
}

/*
 * A slot for what can be sent is taken from a write-back that cannot: its owner repeats it. One of
 * this member, or of anybody where all slots are in use.
 */
static struct wvm_copy *begin_ready(struct wvm_core *core, uint8_t state, uint32_t vm,
				    uint64_t page, uint32_t member)
{
	bool full = core->backup->used[1] == WVM_COPIES - WVM_COPIES_WALK;
	struct wvm_copy *c = begin(core, state, vm, page, member);

	for (uint32_t i = WVM_COPIES_WALK; !c && i < WVM_COPIES; i++) {
		struct wvm_copy *w = &core->backup->copies[i];

		if (w->state != WVM_COPY_WRITTEN || w->id || (w->member != member && !full))
			continue;
		end(core, w);
		c = begin(core, state, vm, page, member);
	}
	return c;
}

/* wvm_backup_unit_came() ends the wait; the timer only what nobody waits for any more. */
static struct wvm_copy *begin_waiting(struct wvm_core *core, uint32_t vm, uint64_t page,
				      uint32_t member)
{
	uint32_t at = 0, waiting = 0, other_vm;
	struct wvm_copy *c;
	uint64_t other;

	while (wvm_backup_waits(core, &at, &other_vm, &other))
		waiting++;
	c = waiting < WVM_COPIES_WAIT ? begin(core, WVM_COPY_WRITTEN, vm, page, member) : NULL;
	if (c)
		wvm_core_timer_arm(&core->timers, &c->timer,
				   core->now_ns + core->params.times.deadline_ns);
	return c;
}

bool wvm_backup_written(struct wvm_core *core, uint32_t vm, uint64_t page,
			const struct wvm_written *w)
{
	uint32_t second = wvm_backup_member(core, vm, page);
	bool ready = wvm_backup_ready(core, vm, page);
	struct wvm_copy *c;

	if (second == WVM_SLICE_NIL || !wvm_backup_stored(core, vm, page))
		return false;
	c = under_way(core, vm, page, w);
	if (c && c->id)
		return true;
	if (!c)
		c = ready ? begin_ready(core, WVM_COPY_WRITTEN, vm, page, second)
			  : begin_waiting(core, vm, page, second);
	if (!c) {
		core->stats.backup_room++;
		return true;
	}
	c->written = *w;
	if (ready)
		send(core, c);
	return true;
}

void wvm_backup_unit_came(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	for (uint32_t i = WVM_COPIES_WALK; core->seconds && i < WVM_COPIES; i++) {
		struct wvm_copy *c = &core->backup->copies[i];

		if (c->state != WVM_COPY_WRITTEN || c->id || c->vm != vm ||
		    wvm_unit_index(c->page) != wvm_unit_index(page))
			continue;
		c->started_ns = core->now_ns;
		if (wvm_backup_stored(core, vm, c->page))
			send(core, c);
		else
			written_done(core, c); /* who merged the unit has it */
	}
}

bool wvm_backup_lose(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint32_t second = wvm_backup_member(core, vm, page);
	struct wvm_copy *c;

	if (second == WVM_SLICE_NIL)
		return true;
	if (!wvm_backup_ready(core, vm, page))
		return false;
	c = begin_ready(core, WVM_COPY_LOST, vm, page, second);
	if (c)
		send(core, c);
	return c;
}

void wvm_backup_adopt(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint16_t slice = wvm_backup_slice(core, vm, page);

	/* That it is lost may not have been said, and nobody repeats it. */
	if (core->seconds && wvm_home_of(core, vm, page)->flags & WVM_HOME_LOST &&
	    wvm_backup_is_home(core, slice))
		make_again(core, slice);
}

/* ---- the pass -------------------------------------------------------------------------- */

enum step { GO_ON, WAIT };

#define WALK_ACTIONS 64u /* of one step */

void wvm_backup_look(struct wvm_core *core)
{
	if (!core->seconds || !core->serving)
		return;
	core->backup->timer.kind = WVM_TIMER_BACKUP;
	wvm_core_timer_arm(&core->timers, &core->backup->timer, core->now_ns);
}

void wvm_backup_add_vm(struct wvm_core *core)
{
	if (core->backup) {
		core->backup->looked = false;
		note_degraded(core);
	}
	wvm_backup_look(core);
}

static void begin_pass(struct wvm_core *core)
{
	struct wvm_backup *b = core->backup;

	note_degraded(core);
	b->vm = b->slice = 0;
	b->unit = 0;
	b->marking = false;
	__builtin_memset(b->missed, 0, sizeof(b->missed));
	/* What the last one began counts for none. */
	for (uint32_t i = 0; i < WVM_COPIES_WALK; i++)
		if (b->copies[i].state != WVM_COPY_FREE)
			miss(core, b->copies[i].slice);
}

/* Whether a second home that answers has not answered all yet. */
static bool is_busy(const struct wvm_core *core)
{
	for (uint32_t i = 0; i < WVM_COPIES_WALK; i++)
		if (core->backup->copies[i].state != WVM_COPY_FREE &&
		    core->backup->copies[i].tries < WVM_COPY_UNHEARD)
			return true;
	return false;
}

/*
 * Copies that are nobody's: of an earlier pair, of which this node is none any more. Not while the
 * unit comes: bytes may be stored whose entry has not come, and they would be forgotten, too.
 */
static void forget_unit(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	bool coming = !wvm_backup_ready(core, vm, page) &&
		      wvm_moved_phase_of(core, vm, page) != WVM_MOVED_TELLING;

	if (u->era && !coming && !unit_counts(core, vm, page))
		wvm_backup_drop_unit(core, vm, page);
}

static enum step look_at_unit(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint16_t slice = wvm_backup_slice(core, vm, page);
	struct wvm_copy *c;

	if (!wvm_backup_is_own(core, slice) || wvm_core_placed(core, vm, page))
		return GO_ON;
	core->backup->unit_of[slice] = (uint64_t)(vm + 1) << 40 | wvm_unit_index(page);
	forget_unit(core, vm, page);
	if (wvm_backup_is_home(core, slice) && wvm_unit_rest_lost(wvm_home_unit_of(core, vm, page)))
		core->backup->hopeless[slice / 8] |= (uint8_t)(1u << slice % 8);
	if (!can_be_made(core, slice) || is_missed(core, slice))
		return GO_ON;
	if (!wvm_backup_ready(core, vm, page)) {
		miss(core, slice);
		return GO_ON;
	}
	if (!wvm_home_unit_of(core, vm, page)->entries || is_whole(core, slice))
		return GO_ON; /* nothing, or all of it by one grant */
	if (core->backup->used[0] == WVM_COPIES_WALK)
		return WAIT;
	c = begin(core, WVM_COPY_WALK, vm, page,
		  wvm_backup_member_in(core, core->params.backup, slice));
	if (c)
		walk_on(core, c);
	else if (is_busy(core))
		return WAIT;
	else
		miss(core, slice);
	return GO_ON;
}

static enum step step_units(struct wvm_core *core)
{
	struct wvm_backup *b = core->backup;
	uint64_t page = b->unit * WVM_UNIT_PAGES;

	if (b->vm == core->vm_count) {
		if (is_busy(core))
			return WAIT;
		/* What is under way still is with those who do not answer. */
		for (uint32_t i = 0; i < WVM_COPIES_WALK; i++)
			if (b->copies[i].state != WVM_COPY_FREE)
				miss(core, b->copies[i].slice);
		b->marking = b->looked = true;
		note_degraded(core);
	} else if (page >= core->vms[b->vm].pages) {
		b->vm++;
		b->unit = 0;
	} else if (look_at_unit(core, b->vm, page) == WAIT) {
		return WAIT;
	} else {
		b->unit++;
	}
	return GO_ON;
}

static enum step step_slices(struct wvm_core *core)
{
	struct wvm_backup *b = core->backup;
	uint64_t at = b->unit_of[b->slice];
	struct wvm_copy *c;

	if (at && !is_missed(core, b->slice) && can_be_made(core, b->slice)) {
		if (b->used[0] == WVM_COPIES_WALK)
			return WAIT;
		c = begin(core, WVM_COPY_DONE, (uint32_t)(at >> 40) - 1,
			  (at & ((UINT64_C(1) << 40) - 1)) * WVM_UNIT_PAGES,
			  wvm_backup_member_in(core, core->params.backup, b->slice));
		if (c)
			send(core, c);
		else if (is_busy(core))
			return WAIT;
	}
	b->slice++;
	return GO_ON;
}

static bool any_to_make(const struct wvm_core *core)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (core->backup->unit_of[i] && can_be_made(core, i))
			return true;
	return false;
}

void wvm_backup_walk(struct wvm_core *core)
{
	struct wvm_backup *b = core->backup;

	for (uint32_t n = 0; n < WVM_WALK_BATCH && b->slice < WVM_SLICES &&
			     core->action_tail - core->action_head < WALK_ACTIONS;
	     n++) {
		/* The end of a slot goes on, or one that turns out to be silent. */
		if ((b->marking ? step_slices(core) : step_units(core)) == WAIT)
			return;
	}
	if (b->slice < WVM_SLICES) {
		wvm_backup_look(core);
		return;
	}
	if (is_busy(core))
		return;
	begin_pass(core);
	if (any_to_make(core))
		wvm_core_timer_arm(&core->timers, &b->timer,
				   core->now_ns + core->params.times.rto_max_ns);
}

void wvm_backup_rehome(struct wvm_core *core)
{
	struct wvm_core_params *p = &core->params;

	if (!core->seconds)
		return;
	WVM_ASSERT(core->backup->next);
	p->backup = core->backup->next;
	core->backup->next = NULL;
	__builtin_memset(core->backup->hopeless, 0, sizeof(core->backup->hopeless));
	__builtin_memset(core->backup->whole, 0, sizeof(core->backup->whole));
	follow_tables(core);
	/* Owners repeat theirs, and a pass begins. That a page is lost is said by it, too. */
	for (uint32_t i = 0; i < WVM_COPIES; i++) {
		struct wvm_copy *c = &core->backup->copies[i];

		if (c->state != WVM_COPY_FREE &&
		    (!waited_for(c->state) || core->seconds->slice[c->slice].era == p->epoch))
			end(core, c);
	}
	begin_pass(core);
	wvm_backup_look(core);
}

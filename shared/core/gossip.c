/* Gossip: probes, verdicts, news and views. The view: gossip_view.c, bytes: gossip_msg.c. */
#include "shared/core/gossip.h"

#include "shared/core/gossip_int.h"

#define NEVER  WVM_GOSSIP_NEVER
#define NIL    WVM_GOSSIP_NIL
#define NOBODY WVM_NODE_MAX
#define FANOUT 8u /* at most */
#define PULLS  3u /* of one part, unanswered */

void wvm_gossip_defaults(struct wvm_gossip_config *c)
{
	*c = (struct wvm_gossip_config){
		.period_ns = UINT64_C(500000000),
		.direct_ns = UINT64_C(200000000),
		.suspect_ns = UINT64_C(5000000000),
		.news_ns = UINT64_C(500000000),
		.pull_ns = UINT64_C(30000000000),
		.mtu = WVM_MTU_DEFAULT,
		.fanout = 3,
		.helpers = 3,
		.lambda = 4,
	};
}

static bool within(uint64_t v, uint64_t min, uint64_t max)
{
	return v >= min && v <= max;
}

/* Up to an hour, so that nine times as long and a late call are far from a wrap. */
bool wvm_gossip_config_check(const struct wvm_gossip_config *c)
{
	const uint64_t ms = 1000000, hour = 3600000 * ms;

	return within(c->period_ns, ms, hour) && within(c->direct_ns, 1, c->period_ns - 1) &&
	       within(c->suspect_ns, c->period_ns, hour) && within(c->news_ns, ms, hour) &&
	       within(c->pull_ns, ms, hour) && within(c->mtu, WVM_MTU_MIN, WVM_MTU_DEFAULT) &&
	       within(c->fanout, 1, FANOUT) && c->helpers <= WVM_GOSSIP_ASKED &&
	       within(c->lambda, 1, 16);
}

/* ---- the object ------------------------------------------------------------------------- */

static uint32_t slots(uint32_t room)
{
	uint32_t n = 4;

	while (n < 2 * room)
		n *= 2;
	return n;
}

static size_t align8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

size_t wvm_gossip_bytes(uint32_t room)
{
	WVM_ASSERT(room >= 1 && room <= WVM_GOSSIP_ROOM_MAX);
	return align8(sizeof(struct wvm_gossip) + room * sizeof(struct wvm_gossip_peer) +
		      (2 * (size_t)room + slots(room)) * sizeof(uint16_t));
}

static bool self_check(const struct wvm_gossip_self *s)
{
	return s->node < WVM_NODE_MAX && s->count && s->first < WVM_NODE_MAX &&
	       s->node - s->first < s->count && s->count <= WVM_NODE_MAX - s->first &&
	       s->tier <= s->top && s->top < WVM_GOSSIP_TIERS && s->incarnation &&
	       s->incarnation <= WVM_GOSSIP_INCARNATION_MAX && s->life < WVM_NODE_LIVES;
}

struct wvm_gossip *wvm_gossip_init(void *memory, uint32_t room,
				   const struct wvm_gossip_config *config,
				   const struct wvm_gossip_self *self, uint64_t seed,
				   uint64_t now_ns)
{
	struct wvm_gossip *g = memory;
	uint64_t random = wvm_random_mix(seed ^ (uint64_t)self->node << 32) | 1;

	WVM_ASSERT(wvm_gossip_config_check(config) && self_check(self));
	__builtin_memset(memory, 0, wvm_gossip_bytes(room));
	g->config = config;
	g->self = *self;
	g->peer = (struct wvm_gossip_peer *)(g + 1);
	g->order = (uint16_t *)(g->peer + room);
	g->news = g->order + room;
	g->slot = g->news + room;
	g->room = room;
	g->mask = slots(room) - 1;
	g->random = random;
	g->salt = wvm_random_mix(random);
	g->seq = (uint32_t)wvm_random_below(&g->random, UINT32_MAX);
	g->target = g->pull_node = NOBODY;
	g->direct_at = g->period_at = g->news_at = g->expiry_at = g->relay_at = NEVER;
	g->pull_at = g->pull_until = NEVER;
	return g;
}

uint64_t wvm_gossip_deadline(const struct wvm_gossip *g)
{
	uint64_t at = wvm_gossip_min(wvm_gossip_min(g->direct_at, g->period_at),
				     wvm_gossip_min(g->expiry_at, g->relay_at));

	return wvm_gossip_min(
		at, wvm_gossip_min(g->news_at, wvm_gossip_min(g->pull_at, g->pull_until)));
}

static void move_on(uint64_t *at, uint64_t by)
{
	if (*at != NEVER)
		*at += by;
}

/*
 * It slept, or its host did. What it waited for may lie unread, so all waits go on by the time that
 * it slept, and one for an answer.
 */
static void late(struct wvm_gossip *g, uint64_t by, uint64_t now_ns)
{
	g->counters.late++;
	wvm_gossip_unwell(g, 1 + by / g->config->period_ns);
	by += g->config->direct_ns;
	move_on(&g->direct_at, by);
	move_on(&g->period_at, by);
	move_on(&g->expiry_at, by);
	move_on(&g->relay_at, by);
	move_on(&g->pull_until, by);
	/* These wait for nobody; now they are due, and not late again at the next input. */
	g->news_at = g->news_at < now_ns ? now_ns : g->news_at;
	g->pull_at = g->pull_at < now_ns ? now_ns : g->pull_at;
	for (uint32_t i = 0; i < WVM_GOSSIP_RELAYS; i++)
		g->relay[i].until_ns += g->relay[i].until_ns ? by : 0;
	for (uint32_t i = 0; g->suspects && i < g->count; i++) {
		if (g->peer[i].status == WVM_GOSSIP_SUSPECT)
			g->peer[i].since_ns += by;
	}
}

/* Actions of one input are taken before the next, so those of one fit. */
static void input(struct wvm_gossip *g, uint64_t now_ns)
{
	uint64_t due = wvm_gossip_deadline(g);

	WVM_ASSERT(g->out_at == g->out_count && g->note_at == g->note_count && !g->epoch_heard);
	g->out_at = g->out_count = g->note_at = g->note_count = 0;
	if (due != NEVER && now_ns > due && now_ns - due > g->config->direct_ns / 2)
		late(g, now_ns - due, now_ns);
}

/* ---- actions ---------------------------------------------------------------------------- */

void wvm_gossip_put(struct wvm_gossip *g, const struct wvm_gossip_out *o)
{
	if (g->out_count == WVM_GOSSIP_OUT) {
		g->counters.out_full++;
		return;
	}
	g->out[g->out_count++] = *o;
}

void wvm_gossip_send(struct wvm_gossip *g, const struct wvm_gossip_peer *p, uint8_t kind,
		     uint32_t seq, uint32_t target)
{
	wvm_gossip_put(g, &(struct wvm_gossip_out){p->node, p->ip, p->port, kind, 0, seq, target});
}

/* To whoever has sent m. */
void wvm_gossip_answer(struct wvm_gossip *g, uint32_t from, const struct wvm_gossip_msg *m,
		       uint8_t kind, uint32_t target)
{
	wvm_gossip_put(g, &(struct wvm_gossip_out){from, m->ip, m->port, kind, 0,
						   kind == WVM_GOSSIP_NEWS ? 0 : m->seq, target});
}

static uint32_t entries(const struct wvm_gossip *g)
{
	uint32_t fit = (g->config->mtu - WVM_HEADER_BYTES - WVM_GOSSIP_HEAD_BYTES) /
		       WVM_GOSSIP_ENTRY_BYTES;

	return fit < WVM_GOSSIP_ENTRIES ? fit : WVM_GOSSIP_ENTRIES;
}

/* Who is accused hears that first, from whoever talks to it (Lifeguard: buddy system). */
static void fill(struct wvm_gossip *g, const struct wvm_gossip_out *o, struct wvm_gossip_msg *m)
{
	const struct wvm_gossip_peer *p = wvm_gossip_find(g, o->to);

	if (o->kind == WVM_GOSSIP_VIEW) {
		wvm_gossip_list(g, m, entries(g));
		return;
	}
	if (o->kind == WVM_GOSSIP_ANNOUNCE)
		return;
	/* Where it is: the helper's view may be too full to have it. */
	if (o->kind == WVM_GOSSIP_PROBE_FOR && wvm_gossip_find(g, o->target))
		wvm_gossip_entry_of(&m->entry[m->count++], wvm_gossip_find(g, o->target));
	if (p && p->status != WVM_GOSSIP_ALIVE)
		wvm_gossip_entry_of(&m->entry[m->count++], p);
	if (p && wvm_gossip_member(g, p))
		wvm_gossip_tell(g, m, entries(g));
}

static void compose(struct wvm_gossip *g, const struct wvm_gossip_out *o, struct wvm_gossip_msg *m)
{
	m->kind = o->kind;
	m->tier = g->self.tier;
	m->top = g->self.top;
	m->life = g->self.life;
	m->health = g->health;
	m->busy = g->self.busy;
	m->count = 0;
	m->port = g->self.port;
	m->zero2 = 0;
	m->ip = g->self.ip;
	m->epoch = g->self.epoch;
	m->incarnation = g->self.incarnation;
	m->seq = o->seq;
	m->target = o->target;
	fill(g, o, m);
}

static void next_note(struct wvm_gossip *g, struct wvm_gossip_action *a)
{
	struct wvm_gossip_peer *p = &g->peer[g->note[g->note_at++]];

	p->noted = 0;
	a->act = WVM_GOSSIP_NOTE;
	a->node = p->node;
	a->incarnation = p->incarnation;
	a->status = p->status;
	a->life = p->life;
	a->ip = p->ip;
	a->port = p->port;
	a->epoch = p->epoch;
}

bool wvm_gossip_next(struct wvm_gossip *g, struct wvm_gossip_action *a)
{
	if (g->note_at < g->note_count) {
		next_note(g, a);
		return true;
	}
	if (g->epoch_heard) {
		a->act = WVM_GOSSIP_EPOCH;
		a->node = g->epoch_node;
		a->epoch = g->epoch_heard;
		g->epoch_heard = g->epoch_node = 0;
		return true;
	}
	if (g->out_at < g->out_count) {
		const struct wvm_gossip_out *o = &g->out[g->out_at++];

		a->act = WVM_GOSSIP_SEND;
		a->node = o->to;
		a->ip = o->ip;
		a->port = o->port;
		compose(g, o, &a->msg);
		return true;
	}
	g->out_at = g->out_count = g->note_at = g->note_count = 0;
	return false;
}

/* ---- news ------------------------------------------------------------------------------- */

/* A round of NEWS as soon as the one before is news_ns old. */
static void tell_soon(struct wvm_gossip *g, uint64_t now_ns)
{
	if (g->news_at == NEVER)
		g->news_at = now_ns;
}

/* Others hear of epochs, and members of everything. */
static void spread(struct wvm_gossip *g, uint64_t now_ns)
{
	uint32_t have[FANOUT], n = 0;

	if (!g->news_count && !g->self_sends && !g->epoch_sends) {
		g->news_at = NEVER;
		return;
	}
	g->news_at = now_ns + g->config->news_ns;
	wvm_gossip_choose(g, g->epoch_sends ? WVM_GOSSIP_A_ANYBODY : WVM_GOSSIP_A_MEMBER, NOBODY,
			  have, &n, g->config->fanout);
	for (uint32_t i = 0; i < n; i++)
		wvm_gossip_send(g, &g->peer[have[i]], WVM_GOSSIP_NEWS, 0, 0);
	g->self_sends -= g->self_sends < n ? g->self_sends : (uint8_t)n;
	g->epoch_sends -= g->epoch_sends < n ? g->epoch_sends : (uint8_t)n;
	if (!n) /* there is nobody to be told */
		g->self_sends = g->epoch_sends = 0;
}

void wvm_gossip_epoch(struct wvm_gossip *g, uint32_t epoch, uint64_t now_ns)
{
	input(g, now_ns);
	if (epoch <= g->self.epoch)
		return;
	g->self.epoch = epoch;
	g->epoch_sends = wvm_gossip_sends(g);
	g->news_at = now_ns; /* at once, also where rounds of other news never end */
}

void wvm_gossip_busy(struct wvm_gossip *g, bool busy)
{
	g->self.busy = busy;
}

static void renew(struct wvm_gossip *g, uint32_t above, uint64_t now_ns)
{
	if (above >= WVM_GOSSIP_INCARNATION_MAX)
		return;
	g->self.incarnation = above + 1;
	g->self_sends = wvm_gossip_sends(g);
	tell_soon(g, now_ns);
}

/* What others say of this node: it knows better. */
static void about_self(struct wvm_gossip *g, const struct wvm_gossip_entry *e, uint64_t now_ns)
{
	bool alive = e->status == WVM_GOSSIP_ALIVE;

	if (alive && (e->ip != g->self.ip || e->port != g->self.port) &&
	    e->incarnation >= g->self.incarnation)
		g->counters.conflicts++;
	if (g->self.life == WVM_NODE_OFFLINE || e->incarnation < g->self.incarnation ||
	    (alive && e->incarnation == g->self.incarnation))
		return;
	if (!alive) {
		g->counters.refuted++;
		wvm_gossip_unwell(g, 1); /* it was not heard in time */
	}
	renew(g, e->incarnation, now_ns);
}

static void apply(struct wvm_gossip *g, const struct wvm_gossip_entry *e, enum wvm_gossip_how how,
		  uint64_t now_ns)
{
	if (e->node == g->self.node)
		about_self(g, e, now_ns);
	else
		wvm_gossip_apply(g, e, how, now_ns);
}

void wvm_gossip_announce(struct wvm_gossip *g, enum wvm_node_state life, uint64_t now_ns)
{
	uint32_t have[FANOUT], n = 0;
	bool first = g->period_at == NEVER;

	input(g, now_ns);
	g->self.life = (uint8_t)life;
	if (first) {
		g->period_at = now_ns + wvm_random_below(&g->random, g->config->period_ns);
		g->pull_at = now_ns;
	} else {
		renew(g, g->self.incarnation, now_ns);
	}
	wvm_gossip_choose(g, WVM_GOSSIP_A_PARENT, NOBODY, have, &n, g->config->fanout);
	wvm_gossip_choose(g, WVM_GOSSIP_A_MEMBER, NOBODY, have, &n, g->config->fanout - n);
	for (uint32_t i = 0; i < n; i++)
		wvm_gossip_send(g, &g->peer[have[i]], WVM_GOSSIP_ANNOUNCE, 0, 0);
}

/* ---- views ------------------------------------------------------------------------------ */

static void ask_part(struct wvm_gossip *g, const struct wvm_gossip_peer *p, uint64_t now_ns)
{
	g->pull_node = p->node;
	g->pull_seq = wvm_gossip_new_seq(g);
	g->pull_until = now_ns + wvm_gossip_wait(g, g->config->period_ns);
	wvm_gossip_send(g, p, WVM_GOSSIP_PULL, g->pull_seq, g->pull_cursor);
}

static void pull_ends(struct wvm_gossip *g)
{
	g->pull_node = NOBODY;
	g->pull_until = NEVER;
}

/* memberlist's pushPullScale: more members, each less often. Not all at once. */
static uint64_t pull_pause(struct wvm_gossip *g)
{
	uint64_t ns = g->config->pull_ns;

	for (uint32_t n = 32; n < g->members; n *= 2)
		ns += g->config->pull_ns;
	return ns / 2 + wvm_random_below(&g->random, ns >> 10) * 1024;
}

/*
 * Mostly a member; the dead, too, since after a split each side has the other for dead, and nobody
 * else would ask them again (as Serf does); and others, whose view leads beyond the group.
 */
static void pull(struct wvm_gossip *g, uint64_t now_ns)
{
	uint32_t have[1], n = 0, what = (uint32_t)wvm_random_below(&g->random, 4);

	g->pull_at = now_ns + pull_pause(g);
	if (what == 0)
		wvm_gossip_choose(g, WVM_GOSSIP_A_DEAD, NOBODY, have, &n, 1);
	if (what == 1 && !n)
		wvm_gossip_choose(g, WVM_GOSSIP_A_OTHER, NOBODY, have, &n, 1);
	if (!n)
		wvm_gossip_choose(g, WVM_GOSSIP_A_ANYBODY, NOBODY, have, &n, 1);
	if (!n)
		return;
	g->pull_cursor = 0;
	g->pull_tries = 0;
	ask_part(g, &g->peer[have[0]], now_ns);
}

static void pull_again(struct wvm_gossip *g, uint64_t now_ns)
{
	uint32_t index = wvm_gossip_index(g, g->pull_node);

	if (index != NIL && ++g->pull_tries < PULLS) {
		ask_part(g, &g->peer[index], now_ns);
		return;
	}
	if (index != NIL && !wvm_gossip_member(g, &g->peer[index]) && !wvm_gossip_slow(g))
		wvm_gossip_forget(g, index);
	pull_ends(g);
}

static enum wvm_drop viewed(struct wvm_gossip *g, uint32_t from, const struct wvm_gossip_msg *m,
			    uint64_t now_ns)
{
	uint32_t index;

	if (from != g->pull_node || m->seq != g->pull_seq)
		return WVM_DROP_STALE;
	for (uint32_t i = 0; i < m->count; i++)
		apply(g, &m->entry[i], WVM_GOSSIP_VIEWED, now_ns);
	index = wvm_gossip_index(g, from); /* it may have had to make room */
	if (m->target <= g->pull_cursor || m->target == WVM_NODE_MAX || index == NIL) {
		pull_ends(g);
		return WVM_DROP_NONE;
	}
	g->pull_cursor = m->target;
	g->pull_tries = 0;
	ask_part(g, &g->peer[index], now_ns);
	return WVM_DROP_NONE;
}

/* ---- inputs ----------------------------------------------------------------------------- */

bool wvm_gossip_add(struct wvm_gossip *g, const struct wvm_gossip_entry *e, uint64_t now_ns)
{
	return wvm_gossip_entry_check(e) && e->node != g->self.node &&
	       wvm_gossip_apply(g, e, WVM_GOSSIP_ADDED, now_ns);
}

void wvm_gossip_remove(struct wvm_gossip *g, uint32_t node)
{
	uint32_t index = wvm_gossip_index(g, node);

	if (node == g->target)
		wvm_gossip_no_probe(g);
	if (node == g->pull_node)
		pull_ends(g);
	if (index != NIL)
		wvm_gossip_forget(g, index);
}

/* The sender's word of itself. Who was dead and talks again may know of many more: ask it. */
static void word(struct wvm_gossip *g, uint32_t from, const struct wvm_gossip_msg *m,
		 uint64_t now_ns)
{
	struct wvm_gossip_entry e = {
		.node = from,
		.incarnation = m->incarnation,
		.ip = m->ip,
		.port = m->port,
		.status = m->life == WVM_NODE_OFFLINE ? WVM_GOSSIP_DEAD : WVM_GOSSIP_ALIVE,
		.life = m->life,
		.top = m->top,
	};
	uint32_t index = wvm_gossip_index(g, from);
	bool was_dead = index != NIL && g->peer[index].status == WVM_GOSSIP_DEAD;

	wvm_gossip_apply(g, &e, WVM_GOSSIP_WORD, now_ns);
	index = wvm_gossip_index(g, from);
	if (index == NIL)
		return;
	if (wvm_gossip_boot(m->incarnation) == wvm_gossip_boot(g->peer[index].incarnation)) {
		g->peer[index].epoch = m->epoch;
		g->peer[index].busy = m->busy & 1;
		g->peer[index].health = m->health;
	} /* else it is late: of a life before */
	if (g->peer[index].status == WVM_GOSSIP_ALIVE) {
		if (was_dead && g->pull_at != NEVER)
			g->pull_at = wvm_gossip_min(
				g->pull_at,
				now_ns + wvm_random_below(&g->random, g->config->period_ns));
	} else if (m->kind != WVM_GOSSIP_PROBE && e.status == WVM_GOSSIP_ALIVE) {
		wvm_gossip_answer(g, from, m, WVM_GOSSIP_NEWS,
				  0); /* which tells it so; an ACK does as well */
	}
}

static enum wvm_drop of_member(struct wvm_gossip *g, uint32_t from, const struct wvm_gossip_msg *m,
			       uint64_t now_ns)
{
	if (m->kind == WVM_GOSSIP_VIEW)
		return viewed(g, from, m, now_ns);
	for (uint32_t i = 0; i < m->count; i++)
		apply(g, &m->entry[i], WVM_GOSSIP_TOLD, now_ns);
	switch (m->kind) {
	case WVM_GOSSIP_PROBE:
		wvm_gossip_answer(g, from, m, WVM_GOSSIP_ACK, g->self.node);
		return WVM_DROP_NONE;
	case WVM_GOSSIP_ACK:
	case WVM_GOSSIP_NACK: return wvm_gossip_acked(g, from, m, now_ns);
	case WVM_GOSSIP_PROBE_FOR: return wvm_gossip_probe_for(g, from, m, now_ns);
	case WVM_GOSSIP_PULL:
		wvm_gossip_answer(g, from, m, WVM_GOSSIP_VIEW, m->target);
		return WVM_DROP_NONE;
	default: return WVM_DROP_NONE;
	}
}

/* From outside of the group: what it says of members is hearsay. */
static enum wvm_drop of_other(struct wvm_gossip *g, uint32_t from, const struct wvm_gossip_msg *m,
			      uint64_t now_ns)
{
	switch (m->kind) {
	case WVM_GOSSIP_VIEW: return viewed(g, from, m, now_ns);
	case WVM_GOSSIP_PULL:
		wvm_gossip_answer(g, from, m, WVM_GOSSIP_VIEW, m->target);
		return WVM_DROP_NONE;
	case WVM_GOSSIP_NEWS:
	case WVM_GOSSIP_ANNOUNCE: return WVM_DROP_NONE;
	default: return WVM_DROP_NODE;
	}
}

enum wvm_drop wvm_gossip_message(struct wvm_gossip *g, uint32_t from,
				 const struct wvm_gossip_msg *m, uint64_t now_ns)
{
	enum wvm_drop drop;

	input(g, now_ns);
	if (from == g->self.node) {
		g->counters.conflicts++;
		return WVM_DROP_SOURCE;
	}
	if (from >= WVM_NODE_MAX || m->tier != g->self.tier)
		return WVM_DROP_NODE;
	word(g, from, m, now_ns);
	if (m->epoch > g->self.epoch) {
		g->epoch_heard = m->epoch;
		g->epoch_node = from;
	}
	drop = from - g->self.first < g->self.count ? of_member(g, from, m, now_ns)
						    : of_other(g, from, m, now_ns);
	if (g->news_count)
		tell_soon(g, now_ns);
	return drop;
}

void wvm_gossip_tick(struct wvm_gossip *g, uint64_t now_ns)
{
	input(g, now_ns);
	if (now_ns >= g->relay_at)
		wvm_gossip_relays_end(g, now_ns);
	if (now_ns >= g->direct_at)
		wvm_gossip_ask_others(g);
	if (now_ns >= g->expiry_at)
		wvm_gossip_convict(g, now_ns);
	if (now_ns >= g->period_at)
		wvm_gossip_period(g, now_ns);
	if (now_ns >= g->pull_until)
		pull_again(g, now_ns);
	if (now_ns >= g->pull_at)
		pull(g, now_ns);
	if (g->news_count)
		tell_soon(g, now_ns);
	if (now_ns >= g->news_at)
		spread(g, now_ns);
}

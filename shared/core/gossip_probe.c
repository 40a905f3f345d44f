/* Gossip: whom to ask, probes, verdicts, and probes for others. */
#include "shared/core/gossip_int.h"

#define NEVER    WVM_GOSSIP_NEVER
#define NIL      WVM_GOSSIP_NIL
#define NOBODY   WVM_NODE_MAX
#define CONVICTS 64u /* in one input; the rest in the next */

/* Suspects are asked again in as many periods before the verdict; each so often. */
#define LAST_PERIODS 3u
#define LAST_WORDS   2u

/* ---- self-health ------------------------------------------------------------------------ */

bool wvm_gossip_slow(const struct wvm_gossip *g)
{
	return g->health >= WVM_GOSSIP_SLOW;
}

/* A wait that is running grows or shrinks with the next look at it. */
void wvm_gossip_unwell(struct wvm_gossip *g, uint64_t by)
{
	g->health = by < WVM_GOSSIP_HEALTH - g->health ? (uint8_t)(g->health + by)
						       : WVM_GOSSIP_HEALTH;
}

static void better(struct wvm_gossip *g, uint64_t now_ns)
{
	if (!g->health)
		return;
	g->health--;
	if (g->suspects)
		g->expiry_at = now_ns;
}

/* ---- whom to choose --------------------------------------------------------------------- */

static bool fits(const struct wvm_gossip *g, const struct wvm_gossip_peer *p,
		 enum wvm_gossip_whom whom)
{
	bool dead = p->status == WVM_GOSSIP_DEAD;

	switch (whom) {
	case WVM_GOSSIP_A_MEMBER: return !dead && wvm_gossip_member(g, p);
	case WVM_GOSSIP_A_PARENT: return !dead && wvm_gossip_parent(g, p);
	case WVM_GOSSIP_A_DEAD: return dead && p->life != WVM_NODE_OFFLINE;
	case WVM_GOSSIP_A_OTHER: return !wvm_gossip_member(g, p);
	default: return !dead;
	}
}

static bool chosen(const uint32_t *have, uint32_t n, uint32_t index)
{
	while (n--) {
		if (have[n] == index)
			return true;
	}
	return false;
}

/* Up to n peers more, to have[*at] on; random, and where few fit the next ones from there. */
void wvm_gossip_choose(struct wvm_gossip *g, enum wvm_gossip_whom whom, uint32_t except,
		       uint32_t *have, uint32_t *at, uint32_t n)
{
	uint32_t tries = 4 * n, start, i;

	if (!g->count)
		return;
	while (n && tries--) {
		i = (uint32_t)wvm_random_below(&g->random, g->count);
		if (g->peer[i].node == except || !fits(g, &g->peer[i], whom) ||
		    chosen(have, *at, i))
			continue;
		have[(*at)++] = i;
		n--;
	}
	start = (uint32_t)wvm_random_below(&g->random, g->count);
	for (uint32_t k = 0; n && k < g->count; k++) {
		i = start + k < g->count ? start + k : start + k - g->count;
		if (g->peer[i].node == except || !fits(g, &g->peer[i], whom) ||
		    chosen(have, *at, i))
			continue;
		have[(*at)++] = i;
		n--;
	}
}

/* ---- probes ----------------------------------------------------------------------------- */

uint32_t wvm_gossip_new_seq(struct wvm_gossip *g)
{
	return ++g->seq ? g->seq : ++g->seq;
}

void wvm_gossip_no_probe(struct wvm_gossip *g)
{
	g->target = NOBODY;
	g->direct_at = NEVER;
	g->asked_count = g->nacks = 0;
}

static void shuffle(struct wvm_gossip *g)
{
	for (uint32_t n = g->count; n > 1; n--) {
		uint32_t at = (uint32_t)wvm_random_below(&g->random, n);
		uint16_t index = g->order[at];

		g->order[at] = g->order[n - 1];
		g->order[n - 1] = index;
	}
	g->cursor = 0;
}

/* The next of this round; NIL: nobody lives. */
static uint32_t next_member(struct wvm_gossip *g)
{
	for (uint32_t i = 0; i < 2 * g->count; i++) {
		uint32_t index;

		if (g->cursor >= g->count)
			shuffle(g);
		index = g->order[g->cursor++];
		if (fits(g, &g->peer[index], WVM_GOSSIP_A_MEMBER))
			return index;
	}
	return NIL;
}

static bool is_before(const struct wvm_gossip_peer *a, const struct wvm_gossip_peer *b)
{
	return a->asked != b->asked ? a->asked < b->asked : a->since_ns < b->since_ns;
}

/* Of the suspects whose time is over soon one that was asked least; NIL: none that is to be. */
static uint32_t next_last_word(struct wvm_gossip *g, uint64_t now_ns)
{
	uint64_t wait = wvm_gossip_wait(g, g->config->suspect_ns);
	uint64_t soon = now_ns + LAST_PERIODS * wvm_gossip_wait(g, g->config->period_ns);
	uint32_t first = NIL;

	for (uint32_t i = 0; g->suspects && i < g->count; i++) {
		const struct wvm_gossip_peer *p = &g->peer[i];

		if (p->status == WVM_GOSSIP_SUSPECT && p->asked < LAST_WORDS &&
		    wvm_gossip_member(g, p) && p->since_ns + wait <= soon &&
		    (first == NIL || is_before(p, &g->peer[first])))
			first = i;
	}
	if (first != NIL)
		g->peer[first].asked++;
	return first;
}

static void probe(struct wvm_gossip *g, uint64_t now_ns)
{
	uint32_t index = next_last_word(g, now_ns);

	if (index == NIL && g->members > g->dead)
		index = next_member(g);
	g->period_at = now_ns + wvm_gossip_wait(g, g->config->period_ns);
	if (index == NIL)
		return;
	g->counters.probes++;
	g->target = g->peer[index].node;
	g->target_seq = wvm_gossip_new_seq(g);
	g->direct_at = now_ns + wvm_gossip_wait(g, g->config->direct_ns);
	wvm_gossip_send(g, &g->peer[index], WVM_GOSSIP_PROBE, g->target_seq, 0);
}

void wvm_gossip_ask_others(struct wvm_gossip *g)
{
	const struct wvm_gossip_peer *target = wvm_gossip_find(g, g->target);
	uint32_t have[WVM_GOSSIP_ASKED], n = 0;

	g->direct_at = NEVER;
	/* Of a last word they know nothing more than when they were asked by who accused. */
	if (target && target->asked)
		return;
	wvm_gossip_choose(g, WVM_GOSSIP_A_MEMBER, g->target, have, &n, g->config->helpers);
	for (uint32_t i = 0; i < n; i++) {
		g->asked[i] = g->peer[have[i]].node;
		wvm_gossip_send(g, &g->peer[have[i]], WVM_GOSSIP_PROBE_FOR, g->target_seq,
				g->target);
	}
	g->asked_count = (uint8_t)n;
}

/*
 * Silent, also through others. If these were silent as well, it is this node that is not heard, or
 * does not hear. Where there was nobody to ask, nobody knows.
 */
static void failed(struct wvm_gossip *g, uint64_t now_ns)
{
	uint32_t index = wvm_gossip_index(g, g->target);
	uint32_t nacks = (uint32_t)__builtin_popcount(g->nacks);

	g->counters.failed++;
	if (2 * nacks < g->asked_count)
		wvm_gossip_unwell(g, 1);
	wvm_gossip_no_probe(g);
	if (index == NIL || g->peer[index].status != WVM_GOSSIP_ALIVE)
		return;
	if (wvm_gossip_slow(g)) {
		g->counters.held++;
		return;
	}
	g->counters.suspected++;
	wvm_gossip_judge(g, index, WVM_GOSSIP_SUSPECT, now_ns);
}

void wvm_gossip_period(struct wvm_gossip *g, uint64_t now_ns)
{
	if (g->target != NOBODY)
		failed(g, now_ns);
	probe(g, now_ns);
}

static void answered(struct wvm_gossip *g, uint64_t now_ns)
{
	wvm_gossip_no_probe(g);
	better(g, now_ns);
}

/* Suspects whose time is over; a slow node waits until it is well. */
void wvm_gossip_convict(struct wvm_gossip *g, uint64_t now_ns)
{
	uint64_t wait = wvm_gossip_wait(g, g->config->suspect_ns), next = NEVER;
	uint32_t left = CONVICTS;

	if (wvm_gossip_slow(g)) {
		g->counters.held += g->suspects;
		g->expiry_at = g->suspects ? now_ns + g->config->period_ns : NEVER;
		return;
	}
	for (uint32_t i = 0; g->suspects && i < g->count; i++) {
		struct wvm_gossip_peer *p = &g->peer[i];

		if (p->status != WVM_GOSSIP_SUSPECT)
			continue;
		if (p->since_ns + wait > now_ns) {
			next = wvm_gossip_min(next, p->since_ns + wait);
		} else if (left) {
			left--;
			g->counters.dead++;
			wvm_gossip_judge(g, i, WVM_GOSSIP_DEAD, now_ns);
		} else {
			next = now_ns;
		}
	}
	g->expiry_at = next;
}

/* ---- probes for others ------------------------------------------------------------------ */

/* Where a node is, by this view or else by what m tells; false: nobody knows. */
static bool where(const struct wvm_gossip *g, const struct wvm_gossip_msg *m, uint32_t node,
		  uint32_t *ip, uint16_t *port)
{
	const struct wvm_gossip_peer *p = wvm_gossip_find(g, node);

	if (p) {
		*ip = p->ip;
		*port = p->port;
		return true;
	}
	for (uint32_t i = 0; i < m->count; i++) {
		if (m->entry[i].node != node)
			continue;
		*ip = m->entry[i].ip;
		*port = m->entry[i].port;
		return true;
	}
	return false;
}

enum wvm_drop wvm_gossip_probe_for(struct wvm_gossip *g, uint32_t from,
				   const struct wvm_gossip_msg *m, uint64_t now_ns)
{
	struct wvm_gossip_out probe_it = {.to = m->target, .kind = WVM_GOSSIP_PROBE};
	uint32_t i = 0;

	if (m->target == g->self.node) {
		wvm_gossip_answer(g, from, m, WVM_GOSSIP_ACK, m->target);
		return WVM_DROP_NONE;
	}
	if (m->target - g->self.first >= g->self.count ||
	    !where(g, m, m->target, &probe_it.ip, &probe_it.port))
		return WVM_DROP_NODE;
	while (i < WVM_GOSSIP_RELAYS && g->relay[i].until_ns)
		i++;
	if (i == WVM_GOSSIP_RELAYS) {
		g->counters.relays_full++;
		return WVM_DROP_ROOM;
	}
	/* A little less than the asker waited, so that the NACK comes within its period. */
	g->relay[i] = (struct wvm_gossip_relay){
		.asker = from,
		.ip = m->ip,
		.port = m->port,
		.asker_seq = m->seq,
		.seq = wvm_gossip_new_seq(g),
		.target = m->target,
		.until_ns = now_ns + g->config->direct_ns * 4 / 5,
	};
	g->relay_at = wvm_gossip_min(g->relay_at, g->relay[i].until_ns);
	probe_it.seq = g->relay[i].seq;
	wvm_gossip_put(g, &probe_it);
	return WVM_DROP_NONE;
}

static void relay_answer(struct wvm_gossip *g, struct wvm_gossip_relay *r, uint8_t kind)
{
	wvm_gossip_put(g, &(struct wvm_gossip_out){r->asker, r->ip, r->port, kind, 0, r->asker_seq,
						   r->target});
	r->until_ns = 0;
}

void wvm_gossip_relays_end(struct wvm_gossip *g, uint64_t now_ns)
{
	g->relay_at = NEVER;
	for (uint32_t i = 0; i < WVM_GOSSIP_RELAYS; i++) {
		struct wvm_gossip_relay *r = &g->relay[i];

		if (r->until_ns && r->until_ns <= now_ns)
			relay_answer(g, r, WVM_GOSSIP_NACK);
		else if (r->until_ns)
			g->relay_at = wvm_gossip_min(g->relay_at, r->until_ns);
	}
}

static bool relay_acked(struct wvm_gossip *g, uint32_t from, const struct wvm_gossip_msg *m)
{
	for (uint32_t i = 0; i < WVM_GOSSIP_RELAYS; i++) {
		struct wvm_gossip_relay *r = &g->relay[i];

		if (r->until_ns && r->target == from && m->target == from && r->seq == m->seq) {
			relay_answer(g, r, WVM_GOSSIP_ACK);
			return true;
		}
	}
	return false;
}

enum wvm_drop wvm_gossip_acked(struct wvm_gossip *g, uint32_t from, const struct wvm_gossip_msg *m,
			       uint64_t now_ns)
{
	bool mine = m->target == g->target && m->seq == g->target_seq;
	uint32_t i = 0;

	while (i < g->asked_count && g->asked[i] != from)
		i++;
	if (mine && m->kind == WVM_GOSSIP_NACK && i < g->asked_count)
		g->nacks |= (uint8_t)(1u << i);
	else if (mine && m->kind == WVM_GOSSIP_ACK && (from == g->target || i < g->asked_count))
		answered(g, now_ns);
	else if (m->kind == WVM_GOSSIP_NACK || !relay_acked(g, from, m))
		return WVM_DROP_STALE;
	return WVM_DROP_NONE;
}

/* Gossip: the view. Who is in it, what is known of each, and what of that is still to be told. */
#include "shared/core/gossip_int.h"

/* ---- by id ------------------------------------------------------------------------------ */

static uint32_t home(const struct wvm_gossip *g, uint32_t node)
{
	return (uint32_t)wvm_random_mix(node) & g->mask;
}

static uint32_t slot_of(const struct wvm_gossip *g, uint32_t node)
{
	uint32_t s = home(g, node);

	while (g->slot[s] && g->peer[g->slot[s] - 1].node != node)
		s = (s + 1) & g->mask;
	return s;
}

uint32_t wvm_gossip_index(const struct wvm_gossip *g, uint32_t node)
{
	uint32_t s = slot_of(g, node);

	return g->slot[s] ? g->slot[s] - 1u : WVM_GOSSIP_NIL;
}

const struct wvm_gossip_peer *wvm_gossip_find(const struct wvm_gossip *g, uint32_t node)
{
	uint32_t i = wvm_gossip_index(g, node);

	return i == WVM_GOSSIP_NIL ? NULL : &g->peer[i];
}

/* Those behind a slot that is freed move up, so that none is cut off from where it belongs. */
static void free_slot(struct wvm_gossip *g, uint32_t hole)
{
	for (uint32_t s = (hole + 1) & g->mask; g->slot[s]; s = (s + 1) & g->mask) {
		uint32_t at = home(g, g->peer[g->slot[s] - 1].node);

		if (((s - at) & g->mask) < ((s - hole) & g->mask))
			continue;
		g->slot[hole] = g->slot[s];
		hole = s;
	}
	g->slot[hole] = 0;
}

/* ---- news ------------------------------------------------------------------------------- */

static uint16_t *news(const struct wvm_gossip *g, uint32_t i)
{
	uint32_t at = g->news_at_slot + i;

	return &g->news[at < g->room ? at : at - g->room];
}

static void news_drop(struct wvm_gossip *g, uint32_t index)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < g->news_count; i++) {
		if (*news(g, i) != index)
			*news(g, kept++) = *news(g, i);
	}
	g->news_count = kept;
}

/* To the front: nobody was told yet. */
static void news_add(struct wvm_gossip *g, uint32_t index)
{
	struct wvm_gossip_peer *p = &g->peer[index];

	if (p->sends)
		news_drop(g, index);
	p->sends = wvm_gossip_sends(g);
	g->news_at_slot = g->news_at_slot ? g->news_at_slot - 1 : g->room - 1;
	WVM_ASSERT(g->news_count < g->room);
	g->news_count++;
	*news(g, 0) = (uint16_t)index;
}

void wvm_gossip_entry_of(struct wvm_gossip_entry *e, const struct wvm_gossip_peer *p)
{
	*e = (struct wvm_gossip_entry){
		.node = p->node,
		.incarnation = p->incarnation,
		.ip = p->ip,
		.port = p->port,
		.status = p->status,
		.life = p->life,
		.top = p->top,
	};
}

void wvm_gossip_tell(struct wvm_gossip *g, struct wvm_gossip_msg *m, uint32_t room)
{
	uint32_t n = g->news_count;

	while (n-- && m->count < room) {
		uint16_t index = *news(g, 0);
		struct wvm_gossip_peer *p = &g->peer[index];

		WVM_ASSERT(p->sends);
		wvm_gossip_entry_of(&m->entry[m->count++], p);
		g->news_at_slot = g->news_at_slot + 1 < g->room ? g->news_at_slot + 1 : 0;
		g->news_count--;
		if (--p->sends)
			*news(g, g->news_count++) = index;
	}
}

void wvm_gossip_list(const struct wvm_gossip *g, struct wvm_gossip_msg *m, uint32_t room)
{
	uint32_t from = m->target;

	m->target = WVM_NODE_MAX;
	for (uint32_t i = 0; i < g->count; i++) {
		const struct wvm_gossip_peer *p = &g->peer[i];
		uint32_t at = m->count;

		if (p->node < from || p->node >= m->target)
			continue;
		if (at == room) { /* the last one makes room, and the next part begins with it */
			m->target = m->entry[--at].node;
			if (p->node > m->target) {
				m->target = p->node;
				continue;
			}
		} else {
			m->count++;
		}
		for (; at && m->entry[at - 1].node > p->node; at--)
			m->entry[at] = m->entry[at - 1];
		wvm_gossip_entry_of(&m->entry[at], p);
	}
}

/* ---- notes ------------------------------------------------------------------------------ */

static void note(struct wvm_gossip *g, uint32_t index)
{
	if (g->peer[index].noted)
		return;
	WVM_ASSERT(g->note_count < WVM_GOSSIP_NOTES);
	g->peer[index].noted = 1;
	g->note[g->note_count++] = (uint16_t)index;
}

static void note_drop(struct wvm_gossip *g, uint32_t index)
{
	uint8_t kept = g->note_at;

	for (uint8_t i = g->note_at; i < g->note_count; i++) {
		if (g->note[i] != index)
			g->note[kept++] = g->note[i];
	}
	g->note_count = kept;
}

/* ---- peers ------------------------------------------------------------------------------ */

static bool in_group(const struct wvm_gossip *g, uint32_t node)
{
	return node - g->self.first < g->self.count;
}

bool wvm_gossip_member(const struct wvm_gossip *g, const struct wvm_gossip_peer *p)
{
	return in_group(g, p->node);
}

bool wvm_gossip_parent(const struct wvm_gossip *g, const struct wvm_gossip_peer *p)
{
	return in_group(g, p->node) && p->top > g->self.tier;
}

/* A peer comes (1), goes (UINT32_MAX), or does both as it changes. */
static void count(struct wvm_gossip *g, const struct wvm_gossip_peer *p, uint32_t by)
{
	g->last_known = false;
	if (!wvm_gossip_member(g, p)) {
		g->others += by;
		return;
	}
	g->members += by;
	if (p->status == WVM_GOSSIP_DEAD)
		g->dead += by;
	if (p->status == WVM_GOSSIP_SUSPECT)
		g->suspects += by;
}

/* Out of the round, keeping what is behind the cursor behind it. */
static void order_drop(struct wvm_gossip *g, uint32_t index, uint32_t last)
{
	uint32_t at = 0;

	while (g->order[at] != index)
		at++;
	if (at < g->cursor) {
		g->order[at] = g->order[--g->cursor];
		at = g->cursor;
	}
	g->order[at] = g->order[last];
	for (at = 0; at < last; at++) {
		if (g->order[at] == last)
			g->order[at] = (uint16_t)index;
	}
}

static void renumber(uint16_t *list, uint32_t n, uint32_t from, uint32_t to)
{
	for (uint32_t i = 0; i < n; i++) {
		if (list[i] == from)
			list[i] = (uint16_t)to;
	}
}

void wvm_gossip_forget(struct wvm_gossip *g, uint32_t index)
{
	uint32_t last = g->count - 1;
	struct wvm_gossip_peer *p = &g->peer[index];

	count(g, p, UINT32_MAX);
	if (p->sends)
		news_drop(g, index);
	if (p->noted)
		note_drop(g, index);
	free_slot(g, slot_of(g, p->node));
	order_drop(g, index, last);
	g->count--;
	if (index == last)
		return;
	g->slot[slot_of(g, g->peer[last].node)] = (uint16_t)(index + 1);
	*p = g->peer[last];
	if (p->noted)
		renumber(g->note, g->note_count, last, index);
	for (uint32_t i = 0; p->sends && i < g->news_count; i++) {
		if (*news(g, i) == last)
			*news(g, i) = (uint16_t)index;
	}
}

/*
 * The lower, the rather it is kept: the living, parents, members, others, by a hash that nobody
 * outside knows, so that others are a uniform sample (min-wise, as in Brahms).
 */
static uint64_t place(const struct wvm_gossip *g, uint32_t node, uint8_t status, uint8_t top)
{
	uint64_t rank = !in_group(g, node) ? 2 : top > g->self.tier ? 0 : 1;

	if (status == WVM_GOSSIP_DEAD)
		rank = 3;
	return rank << 62 | wvm_random_mix(node ^ g->salt) >> 2;
}

/* Who would have to go; looked for again only after a change. */
static void find_last(struct wvm_gossip *g)
{
	g->last_place = 0;
	for (uint32_t i = 0; i < g->count; i++) {
		const struct wvm_gossip_peer *p = &g->peer[i];
		uint64_t its = place(g, p->node, p->status, p->top);

		if (its < g->last_place)
			continue;
		g->last_place = its;
		g->last = i;
	}
	g->last_known = true;
}

static bool make_room(struct wvm_gossip *g, const struct wvm_gossip_entry *e)
{
	if (g->count < g->room)
		return true;
	g->counters.full++;
	if (!g->last_known)
		find_last(g);
	if (g->last_place <= place(g, e->node, e->status, e->top))
		return false;
	wvm_gossip_forget(g, g->last);
	return true;
}

/* At a random place in what is left of this round, so that it is probed within that (SWIM). */
static uint32_t insert(struct wvm_gossip *g, uint32_t node)
{
	uint32_t index = g->count++;
	uint32_t at = g->cursor +
		      (uint32_t)wvm_random_below(&g->random, index - g->cursor + UINT64_C(1));

	g->peer[index] = (struct wvm_gossip_peer){.node = node};
	g->slot[slot_of(g, node)] = (uint16_t)(index + 1);
	g->order[index] = g->order[at];
	g->order[at] = (uint16_t)index;
	return index;
}

/* What has changed is noted, and told in the group: nobody asks for news of others. */
static void changed(struct wvm_gossip *g, uint32_t index, enum wvm_gossip_how how, uint64_t now_ns)
{
	struct wvm_gossip_peer *p = &g->peer[index];
	uint64_t due = now_ns + wvm_gossip_wait(g, g->config->suspect_ns);

	p->since_ns = now_ns;
	p->asked = 0;
	if (p->status == WVM_GOSSIP_SUSPECT && due < g->expiry_at)
		g->expiry_at = due;
	if (how == WVM_GOSSIP_ADDED)
		return;
	note(g, index);
	if (wvm_gossip_member(g, p))
		news_add(g, index);
}

static void take(struct wvm_gossip *g, uint32_t index, const struct wvm_gossip_entry *e)
{
	struct wvm_gossip_peer *p = &g->peer[index];

	if (wvm_gossip_boot(p->incarnation) != wvm_gossip_boot(e->incarnation)) {
		p->epoch = 0; /* what it said in the life before is not its word in this one */
		p->busy = 0;
		p->health = 0;
	}
	p->incarnation = e->incarnation;
	p->status = e->status;
	p->life = e->life;
	p->top = e->top;
	p->ip = e->ip;
	p->port = e->port;
	count(g, p, 1);
}

/* Somebody new. The dead are not: who holds them tells them, and they are taken out by an epoch. */
static bool admit(struct wvm_gossip *g, const struct wvm_gossip_entry *e, enum wvm_gossip_how how,
		  uint64_t now_ns)
{
	uint32_t index;

	if (e->status == WVM_GOSSIP_DEAD || e->top < g->self.tier ||
	    (e->status == WVM_GOSSIP_SUSPECT && !in_group(g, e->node)) || !make_room(g, e))
		return false;
	index = insert(g, e->node);
	take(g, index, e);
	changed(g, index, how, now_ns);
	return true;
}

/* Whether an entry is later than what is known; SWIM's order, and DEAD ends with its incarnation.
 */
static bool later(const struct wvm_gossip_peer *p, const struct wvm_gossip_entry *e)
{
	if (e->status > p->status)
		return e->incarnation >= p->incarnation;
	return e->incarnation > p->incarnation;
}

/*
 * A verdict of others is for this node at first a suspicion, so that whoever it is
 * about gets to refute it; and it is carried out when a suspicion here is some periods old.
 */
static bool verdict_holds(const struct wvm_gossip *g, const struct wvm_gossip_peer *p,
			  enum wvm_gossip_how how, uint64_t now_ns)
{
	return p->status == WVM_GOSSIP_SUSPECT && how == WVM_GOSSIP_TOLD &&
	       now_ns >= p->since_ns + 2 * g->config->period_ns;
}

bool wvm_gossip_apply(struct wvm_gossip *g, const struct wvm_gossip_entry *e,
		      enum wvm_gossip_how how, uint64_t now_ns)
{
	uint32_t index = wvm_gossip_index(g, e->node);
	struct wvm_gossip_entry as = *e;
	struct wvm_gossip_peer *p;

	WVM_ASSERT(e->node != g->self.node);
	if (index == WVM_GOSSIP_NIL)
		return admit(g, e, how, now_ns);
	p = &g->peer[index];
	if (!later(p, e))
		return false;
	if (!wvm_gossip_member(g, p) && e->status != WVM_GOSSIP_ALIVE) {
		if (e->status == WVM_GOSSIP_DEAD && how != WVM_GOSSIP_TOLD)
			wvm_gossip_forget(g, index);
		return false;
	}
	if (e->top < g->self.tier) { /* it is a gateway of this tier no more */
		wvm_gossip_forget(g, index);
		return false;
	}
	if (e->status == WVM_GOSSIP_DEAD && e->life != WVM_NODE_OFFLINE &&
	    !verdict_holds(g, p, how, now_ns)) {
		as.status = WVM_GOSSIP_SUSPECT;
		if (!later(p, &as))
			return false;
	}
	count(g, p, UINT32_MAX);
	take(g, index, &as);
	changed(g, index, how, now_ns);
	return true;
}

void wvm_gossip_judge(struct wvm_gossip *g, uint32_t index, enum wvm_gossip_status status,
		      uint64_t now_ns)
{
	struct wvm_gossip_peer *p = &g->peer[index];

	count(g, p, UINT32_MAX);
	p->status = (uint8_t)status;
	count(g, p, 1);
	changed(g, index, WVM_GOSSIP_WORD, now_ns);
}

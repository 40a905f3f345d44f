/* Hosts, their objects, and what passes between them. */
#include <stdlib.h>
#include <string.h>

#include "shared/core/random.h"
#include "shared/core/scale/scale.h"

#define MS    UINT64_C(1000000)
#define SLOTS (1u << 16)
#define IP    UINT32_C(0x0a000000)
#define PORT  9001u

enum kind {
	TIMER,   /* of an agent */
	LEARNER, /* of a host */
	MESSAGE, /* to an agent */
	EPOCH,   /* to a host */
};

struct scale_event {
	struct scale_event *next;
	uint32_t at_ms, from, to; /* from: a host; to: an agent or a host */
	uint8_t kind;
	uint16_t len;
	uint8_t bytes[];
};

struct scale_learner {
	struct wvm_epoch e;
};

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

uint32_t scale_below(struct scale *s, uint32_t n)
{
	return (uint32_t)wvm_random_below(&s->random, n);
}

struct wvm_gossip *scale_object(struct scale *s, uint32_t host, uint32_t tier)
{
	return s->agent[scale_agent_of(&s->c, host, tier)].g;
}

uint8_t scale_opinion(struct scale *s, uint32_t host, uint32_t tier, uint32_t of)
{
	const struct wvm_gossip_peer *p = wvm_gossip_find(scale_object(s, host, tier), of);

	return p ? p->status : 0;
}

/* ---- events ----------------------------------------------------------------------------- */

/* In the order in which they were put, so that a seed says everything. */
static void put(struct scale *s, struct scale_event *e, uint32_t at_ms)
{
	uint32_t slot = least(at_ms, s->now_ms + SLOTS - 1) % SLOTS;

	e->at_ms = at_ms;
	e->next = NULL;
	if (s->slot[slot])
		s->slot_end[slot]->next = e;
	else
		s->slot[slot] = e;
	s->slot_end[slot] = e;
}

static struct scale_event *event(enum kind kind, uint32_t from, uint32_t to, size_t len)
{
	struct scale_event *e = malloc(sizeof(*e) + len);

	if (!e)
		abort();
	e->kind = (uint8_t)kind;
	e->from = from;
	e->to = to;
	e->len = (uint16_t)len;
	return e;
}

static uint64_t now_ns(const struct scale *s)
{
	return s->now_ms * MS;
}

static uint32_t ms_of(uint64_t ns)
{
	return ns == UINT64_MAX ? SCALE_NEVER : (uint32_t)((ns + MS - 1) / MS);
}

static void arm(struct scale *s, uint32_t agent)
{
	struct scale_agent *a = &s->agent[agent];
	uint32_t at = ms_of(wvm_gossip_deadline(a->g));

	if (at == SCALE_NEVER || at >= a->armed_ms)
		return;
	a->armed_ms = at > s->now_ms ? at : s->now_ms + 1;
	put(s, event(TIMER, 0, agent, 0), a->armed_ms);
}

static void send(struct scale *s, struct scale_event *e, uint32_t to_host)
{
	uint32_t spread = s->c.delay_max_ms - s->c.delay_min_ms + 1;
	uint32_t delay = s->c.delay_min_ms + scale_below(s, spread);

	s->n.messages++;
	s->n.bytes += e->len + WVM_HEADER_BYTES + SCALE_FRAME;
	if (to_host >= s->hosts || s->host[e->from].side != s->host[to_host].side ||
	    scale_below(s, 1000000) < s->c.loss_ppm) {
		s->n.lost++;
		free(e);
		return;
	}
	put(s, e, s->now_ms + delay);
}

/* ---- epochs ----------------------------------------------------------------------------- */

static void drain(struct scale *s, uint32_t agent);

static void durable(struct wvm_epoch_durable *d, uint32_t epoch)
{
	struct wvm_epoch_record r = {
		.epoch = epoch, .node = 0, .state = WVM_NODE_ACTIVE, .voters = 1};

	wvm_epoch_first(d, &r);
}

static void start_learner(struct wvm_epoch *e, const struct scale *s, uint32_t host)
{
	struct wvm_epoch_durable d;
	struct wvm_epoch_action a;

	durable(&d, s->host[host].epoch);
	wvm_epoch_init(e, host, host + 1, &d);
	while (wvm_epoch_next(e, &a))
		;
}

static void enter(struct scale *s, uint32_t host, uint32_t epoch)
{
	struct scale_host *h = &s->host[host];

	if (epoch <= h->epoch)
		return;
	h->epoch = epoch;
	h->learnt_ms = s->now_ms;
	for (uint32_t tier = 0; tier <= scale_top(&s->c, host); tier++) {
		uint32_t agent = scale_agent_of(&s->c, host, tier);

		if (!s->agent[agent].g)
			continue;
		wvm_gossip_epoch(s->agent[agent].g, epoch, now_ns(s));
		drain(s, agent);
	}
}

static void drain_learner(struct scale *s, struct wvm_epoch *e, uint32_t host)
{
	struct wvm_epoch_action a;
	uint32_t learnt = 0;

	while (wvm_epoch_next(e, &a)) {
		struct scale_event *m;

		if (a.act == WVM_EPOCH_LEARNT)
			learnt = a.record.epoch;
		if (a.act != WVM_EPOCH_SEND)
			continue;
		m = event(EPOCH, host, a.node, WVM_EPOCH_MSG_BYTES);
		wvm_epoch_encode(m->bytes, &a.msg);
		send(s, m, a.node);
	}
	enter(s, host, learnt);
}

/* It is not needed any more, or waits. */
static void learner_done(struct scale *s, uint32_t host)
{
	struct scale_host *h = &s->host[host];
	uint32_t at = h->learner ? ms_of(wvm_epoch_deadline(&h->learner->e)) : 0;

	if (h->learner && at == SCALE_NEVER) {
		free(h->learner);
		h->learner = NULL;
	} else if (h->learner) {
		put(s, event(LEARNER, 0, host, 0), at > s->now_ms ? at : s->now_ms + 1);
	}
}

static void heard(struct scale *s, uint32_t host, uint32_t from, uint32_t epoch)
{
	struct scale_host *h = &s->host[host];
	bool fresh = !h->learner;

	if (epoch <= h->epoch)
		return;
	if (fresh) {
		h->learner = malloc(sizeof(*h->learner));
		if (!h->learner)
			abort();
		start_learner(&h->learner->e, s, host);
	}
	wvm_epoch_heard(&h->learner->e, from, epoch, now_ns(s));
	drain_learner(s, &h->learner->e, host);
	if (fresh)
		learner_done(s, host);
}

static void epoch_timer(struct scale *s, uint32_t host)
{
	struct scale_host *h = &s->host[host];

	if (!h->learner)
		return;
	if (ms_of(wvm_epoch_deadline(&h->learner->e)) <= s->now_ms) {
		wvm_epoch_tick(&h->learner->e, now_ns(s));
		drain_learner(s, &h->learner->e, host);
	}
	learner_done(s, host);
}

static void epoch_message(struct scale *s, const struct scale_event *e)
{
	struct scale_host *h = &s->host[e->to];
	struct wvm_epoch_msg m;
	struct wvm_epoch idle;

	if (!wvm_epoch_decode(&m, e->bytes, e->len))
		abort();
	if (!h->learner) {
		start_learner(&idle, s, e->to);
		wvm_epoch_message(&idle, e->from, &m, now_ns(s));
		drain_learner(s, &idle, e->to);
		return;
	}
	wvm_epoch_message(&h->learner->e, e->from, &m, now_ns(s));
	drain_learner(s, &h->learner->e, e->to);
}

void scale_epoch(struct scale *s, uint32_t host)
{
	enter(s, host, s->host[host].epoch + 1);
}

/* ---- gossip ----------------------------------------------------------------------------- */

static void note_death(struct scale *s, uint32_t node)
{
	s->n.true_dead++;
	for (uint32_t i = 0; i < s->deaths; i++) {
		struct scale_death *d = &s->death[i];

		if (d->host != node)
			continue;
		if (!d->told++)
			d->first_ms = s->now_ms - d->at_ms;
		d->last_ms = s->now_ms - d->at_ms;
		if (s->told < s->told_room)
			s->told_ms[s->told++] = d->last_ms;
	}
}

static void note(struct scale *s, uint32_t agent, const struct wvm_gossip_action *a)
{
	bool up = a->node < s->hosts && s->host[a->node].up;

	if (a->status == WVM_GOSSIP_DEAD && !up)
		note_death(s, a->node);
	s->n.false_dead += a->status == WVM_GOSSIP_DEAD && up;
	s->n.suspected += a->status == WVM_GOSSIP_SUSPECT && up;
	if (s->on_note)
		s->on_note(s, &s->agent[agent], a);
}

static void send_gossip(struct scale *s, uint32_t agent, const struct wvm_gossip_action *a)
{
	uint8_t bytes[WVM_GOSSIP_BYTES_MAX];
	size_t len = wvm_gossip_encode(bytes, &a->msg);
	struct scale_event *m = event(MESSAGE, s->agent[agent].host,
				      scale_agent_of(&s->c, a->node, s->agent[agent].tier), len);

	memcpy(m->bytes, bytes, len);
	send(s, m, a->ip == IP + a->node && a->port == PORT ? a->node : SCALE_NEVER);
}

static void drain(struct scale *s, uint32_t agent)
{
	struct wvm_gossip_action a;
	uint32_t epoch = 0, from = 0;

	while (wvm_gossip_next(s->agent[agent].g, &a)) {
		switch (a.act) {
		case WVM_GOSSIP_NOTE: note(s, agent, &a); break;
		case WVM_GOSSIP_EPOCH:
			epoch = a.epoch;
			from = a.node;
			break;
		case WVM_GOSSIP_SEND: send_gossip(s, agent, &a); break;
		}
	}
	arm(s, agent);
	if (epoch)
		heard(s, s->agent[agent].host, from, epoch);
}

static void gossip_message(struct scale *s, const struct scale_event *e)
{
	struct wvm_gossip_msg m;
	enum wvm_drop drop;

	if (!wvm_gossip_decode(&m, e->bytes, e->len))
		abort();
	drop = wvm_gossip_message(s->agent[e->to].g, e->from, &m, now_ns(s));
	s->n.refused += drop == WVM_DROP_NODE || drop == WVM_DROP_SOURCE;
	drain(s, e->to);
}

static void gossip_timer(struct scale *s, uint32_t agent)
{
	s->agent[agent].armed_ms = SCALE_NEVER;
	wvm_gossip_tick(s->agent[agent].g, now_ns(s));
	drain(s, agent);
}

/* ---- hosts ------------------------------------------------------------------------------ */

static void add(struct scale *s, struct wvm_gossip *g, uint32_t node)
{
	struct wvm_gossip_entry e = {
		.node = node,
		.incarnation = wvm_gossip_incarnation(s->host[node].boot),
		.ip = IP + node,
		.port = PORT,
		.status = WVM_GOSSIP_ALIVE,
		.life = WVM_NODE_ACTIVE,
		.top = (uint8_t)scale_top(&s->c, node),
	};

	wvm_gossip_add(g, &e, now_ns(s));
}

/* All of its group, or the first few, and with what room is left some from beyond. */
static void populate(struct scale *s, struct wvm_gossip *g)
{
	uint32_t first = g->self.first, count = g->self.count, tier = g->self.tier, known = 0;
	uint32_t seeds = s->c.seeds ? s->c.seeds : UINT32_MAX;

	for (uint32_t node = first; node < first + count && known < seeds; node++) {
		if (tier && node % s->c.pod >= SCALE_GATEWAYS) {
			node += s->c.pod - SCALE_GATEWAYS - 1;
			continue;
		}
		if (scale_top(&s->c, node) < tier || node == g->self.node)
			continue;
		add(s, g, node);
		known++;
	}
	for (uint32_t tries = 0;
	     count < s->hosts && !s->c.seeds && tries < 2 * g->room && g->count < g->room;
	     tries++) {
		uint32_t node = scale_below(s, s->hosts);

		if (tier)
			node -= node % s->c.pod;
		if (node - first >= count && scale_top(&s->c, node) >= tier)
			add(s, g, node);
	}
}

/* What it had before, if it starts again. */
static void *object_memory(struct scale *s, uint32_t agent, uint32_t tier)
{
	void *memory = s->agent[agent].g;

	if (!memory) {
		memory = s->objects + s->objects_used;
		s->objects_used += scale_object_bytes(&s->c, tier);
	}
	return memory;
}

static void start_agent(struct scale *s, uint32_t host, uint32_t tier)
{
	uint32_t agent = scale_agent_of(&s->c, host, tier);
	struct scale_agent *a = &s->agent[agent];
	struct wvm_gossip_self self = {
		.node = host,
		.ip = IP + host,
		.port = PORT,
		.tier = (uint8_t)tier,
		.top = (uint8_t)scale_top(&s->c, host),
		.incarnation = wvm_gossip_incarnation(s->host[host].boot),
		.epoch = s->host[host].epoch,
		.life = WVM_NODE_WARMING,
	};

	scale_group_of(&s->c, host, tier, &self.first, &self.count);
	a->host = host;
	a->tier = (uint8_t)tier;
	a->armed_ms = SCALE_NEVER;
	a->g = wvm_gossip_init(object_memory(s, agent, tier), scale_room(&s->c, tier), &s->c.gossip,
			       &self, s->c.seed ^ (uint64_t)agent << 20, now_ns(s));
	populate(s, a->g);
	wvm_gossip_announce(a->g, WVM_NODE_ACTIVE, now_ns(s));
	drain(s, agent);
}

static void start(struct scale *s, uint32_t host)
{
	for (uint32_t tier = 0; tier <= scale_top(&s->c, host); tier++) {
		if (scale_part_has(&s->c, &s->part, host, tier))
			start_agent(s, host, tier);
	}
}

void scale_start(struct scale *s, uint32_t host)
{
	s->host[host].up = true;
	s->host[host].boot++;
	start(s, host);
}

void scale_announce(struct scale *s, uint32_t host, enum wvm_node_state life)
{
	for (uint32_t tier = 0; tier <= scale_top(&s->c, host); tier++) {
		if (!scale_object(s, host, tier))
			continue;
		wvm_gossip_announce(scale_object(s, host, tier), life, now_ns(s));
		drain(s, scale_agent_of(&s->c, host, tier));
	}
}

/* How many objects of a host are in a group of another. */
static uint32_t shared_groups(struct scale *s, uint32_t host, uint32_t other)
{
	uint32_t n = 0, top = scale_top(&s->c, other);

	for (uint32_t tier = 0; tier <= scale_top(&s->c, host) && tier <= top; tier++) {
		const struct wvm_gossip *g = scale_object(s, host, tier);

		n += g && other - g->self.first < g->self.count;
	}
	return n;
}

void scale_kill(struct scale *s, uint32_t host)
{
	struct scale_death *d = &s->death[s->deaths];

	s->host[host].up = false;
	free(s->host[host].learner);
	s->host[host].learner = NULL;
	for (uint32_t i = 0; i < s->deaths; i++)
		s->death[i].group -= shared_groups(s, host, s->death[i].host);
	if (s->deaths == SCALE_DEATHS)
		return;
	s->deaths++;
	*d = (struct scale_death){.host = host, .at_ms = s->now_ms};
	for (uint32_t i = 0; i < scale_part_hosts(&s->c, &s->part); i++) {
		uint32_t other = scale_part_host(&s->c, &s->part, i);

		d->group += s->host[other].up ? shared_groups(s, other, host) : 0;
	}
}

/* The whole world's is its seed alone. */
static uint64_t seed_of(const struct scale_config *c, const struct scale_part *p)
{
	uint64_t part = p->kind == SCALE_WHOLE ? 0 : (uint64_t)p->kind << 32 | (p->pod + 1);

	return wvm_random_mix(c->seed ^ wvm_random_mix(part) * (part > 0)) | 1;
}

bool scale_init_part(struct scale *s, const struct scale_config *c, const struct scale_part *p)
{
	uint32_t agents = scale_agents(c), hosts = scale_hosts(c), here = scale_part_hosts(c, p);
	uint64_t low = p->kind == SCALE_WHOLE ? hosts : c->pod;
	uint64_t up = p->kind == SCALE_POD ? 0 : agents - hosts;

	*s = (struct scale){.c = *c, .part = *p, .hosts = hosts, .agents = agents};
	s->random = seed_of(c, p);
	s->host = calloc(hosts, sizeof(*s->host));
	s->agent = calloc(agents, sizeof(*s->agent));
	s->objects = malloc(low * scale_object_bytes(c, 0) + up * scale_object_bytes(c, 1));
	s->slot = calloc(SLOTS, sizeof(struct scale_event *));
	s->slot_end = calloc(SLOTS, sizeof(struct scale_event *));
	s->told_room = SCALE_DEATHS * least(agents, 20000);
	s->told_ms = malloc(s->told_room * sizeof(*s->told_ms));
	if (!s->host || !s->agent || !s->objects || !s->slot || !s->slot_end || !s->told_ms) {
		scale_free(s);
		return false;
	}
	for (uint32_t i = 0; i < here; i++)
		s->host[scale_part_host(c, p, i)] =
			(struct scale_host){.epoch = 1, .boot = 1, .up = true};
	for (uint32_t i = 0; i < here; i++)
		start(s, scale_part_host(c, p, i));
	return true;
}

bool scale_init(struct scale *s, const struct scale_config *c)
{
	return scale_init_part(s, c, &(struct scale_part){.kind = SCALE_WHOLE});
}

void scale_free(struct scale *s)
{
	for (uint32_t i = 0; s->slot && i < SLOTS; i++) {
		struct scale_event *e = s->slot[i], *next;

		for (; e; e = next) {
			next = e->next;
			free(e);
		}
	}
	for (uint32_t i = 0; s->host && i < scale_part_hosts(&s->c, &s->part); i++)
		free(s->host[scale_part_host(&s->c, &s->part, i)].learner);
	free(s->host);
	free(s->agent);
	free(s->objects);
	free(s->slot);
	free(s->slot_end);
	free(s->told_ms);
	*s = (struct scale){0};
}

/* ---- time ------------------------------------------------------------------------------- */

/* When a host that stands still goes on; what comes to it meanwhile waits. */
static uint32_t awake(const struct scale *s, const struct scale_host *h)
{
	uint32_t phase = h->every_ms ? s->now_ms % h->every_ms : UINT32_MAX;

	return phase < h->stall_ms ? s->now_ms + h->stall_ms - phase : s->now_ms;
}

static void happen(struct scale *s, struct scale_event *e)
{
	bool of_agent = e->kind == TIMER || e->kind == MESSAGE;
	struct scale_host *h = &s->host[of_agent ? s->agent[e->to].host : e->to];
	uint32_t at = e->at_ms > s->now_ms ? e->at_ms : awake(s, h);

	/* Nothing leaves a part: else what it lacks would count as silent. */
	if (!h->boot || (of_agent && !s->agent[e->to].g))
		abort();
	if (at > s->now_ms && h->up) {
		if (e->kind == TIMER && s->agent[e->to].armed_ms == e->at_ms)
			s->agent[e->to].armed_ms = at;
		put(s, e, at);
		return;
	}
	if (h->up) {
		switch (e->kind) {
		case TIMER:
			if (s->agent[e->to].armed_ms == e->at_ms)
				gossip_timer(s, e->to);
			break;
		case LEARNER: epoch_timer(s, e->to); break;
		case MESSAGE: gossip_message(s, e); break;
		default: epoch_message(s, e); break;
		}
	}
	free(e);
}

void scale_run(struct scale *s, uint32_t until_ms)
{
	while (s->now_ms < until_ms) {
		struct scale_event *e, *next;
		uint32_t slot = ++s->now_ms % SLOTS;

		e = s->slot[slot];
		s->slot[slot] = NULL;
		for (; e; e = next) {
			next = e->next;
			happen(s, e);
		}
	}
}

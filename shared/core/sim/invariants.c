/*
 * What must hold after every input to a core: shared/PROTOCOL.md, Home and
 * Holder, looked at from above, where all nodes can be seen at once.
 *
 *   one Modified holder and no other copy, or no Modified holder
 *   every copy has the bytes that were stored last, and the version that its home names
 *   the home's records cover every holder
 *   where no copy is Modified or on its way home, the home's stored bytes are the last ones
 *   what is acknowledged as written back is stored; every repetition has the same bytes
 *   whoever waits has a request under way, whose timer is armed, and no longer than the deadline
 *   every slot of a pool is in use or free, and timers are armed for what waits
 *   a unit's counter is not below a version of one of its pages, wherever it has come from
 *   what was acknowledged to its writer is at the second home, too (backups.c)
 *   once nobody wants anything any more, nothing is under way: no slot of any pool is in use
 *
 * Between a master that was killed and the next one's taking over, what its entries
 * say may not be carried out yet: only what other nodes rely on must hold.
 */
#include <string.h>

#include "shared/core/sim/sim.h"

/* Where the configuration says nothing else. */
#define SWEEP 4096u  /* steps between two full checks of all pages */
#define POOLS 65536u /* and of all pools, where these are large */

static unsigned long long ll(uint64_t v)
{
	return v;
}

static bool in_between(const struct sim_node *n)
{
	return n->down || n->core->adopting;
}

static bool is_truth(const struct sim *s, uint64_t page, const uint8_t *bytes)
{
	for (uint32_t w = 0; w < SIM_WORDS; w++)
		if (memcmp(bytes + sim_word_offset(w), &s->truth[page][w], 8))
			return false;
	return true;
}

/* What a node says of a page, as holder and as home. */
static struct wvm_held_page sim_held(const struct sim_node *n, uint64_t page)
{
	return wvm_core_held(&n->core->vms[0], sim_core_page(page));
}

static struct wvm_home_page sim_home(const struct sim_node *n, uint64_t page)
{
	return wvm_core_homed(&n->core->vms[0], sim_core_page(page));
}

/* A page of zeros is stored as a flag; its bytes are older ones. */
static bool stored_is_truth(const struct sim *s, struct sim_node *home, uint64_t page)
{
	const struct wvm_home_page v = sim_home(home, page), *e = &v;
	static const uint8_t zeros[WVM_PAGE_BYTES];

	return is_truth(s, page,
			e->flags & WVM_HOME_WRITTEN
				? home->store + (sim_core_page(page) << WVM_PAGE_SHIFT)
				: zeros);
}

/* ---- one holder of a page -------------------------------------------------------------- */

/* How the home knows that node holds the page: the grant on record, or 0. */
static uint64_t recorded(struct sim_node *home, struct wvm_home_page *e, uint32_t node)
{
	uint32_t record = wvm_holders_find(home->core, e, node);

	return record == WVM_NIL ? 0 : *wvm_holders_at(home->core, e, record).grant;
}

static const struct wvm_demand *demand_of(const struct sim_node *n, const struct wvm_held_page *h)
{
	return h->demand ? &n->core->demands[h->demand - 1] : NULL;
}

static void check_shared(struct sim *s, uint64_t page, uint32_t node, struct sim_node *home)
{
	struct sim_node *n = &s->nodes[node];
	const struct wvm_held_page held = sim_held(n, page), *h = &held;
	struct wvm_home_page entry = sim_home(home, page), *e = &entry;
	const struct wvm_demand *d = demand_of(n, h);
	uint64_t grant = recorded(home, e, node);

	/* What is kept of a page that is lost is what was stored last. */
	if (e->flags & WVM_HOME_LOST)
		return;
	/* Written back, and the home has not got it yet. */
	if (d && d->state == WVM_DEMAND_WRITE_BACK && e->state == WVM_HOME_MODIFIED &&
	    grant == h->grant && e->granted == h->version)
		return;
	/* A newer grant on record: an upgrade that has not arrived, and may never. */
	if (grant < h->grant)
		sim_failed(s, "node %u: page %llu Shared, on record %llx and not %llx", node,
			   ll(page), ll(grant), ll(h->grant));
	if (e->state == WVM_HOME_SHARED && grant != h->grant)
		sim_failed(s, "node %u: page %llu Shared by %llx, the home says %llx", node,
			   ll(page), ll(h->grant), ll(grant));
	if (e->version != h->version)
		sim_failed(s, "node %u: page %llu Shared in version %llx, stored %llx", node,
			   ll(page), ll(h->version), ll(e->version));
}

static void check_holder(struct sim *s, uint64_t page, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	const struct wvm_held_page held = sim_held(n, page), *h = &held;
	struct wvm_home_page entry, *e = &entry;
	uint32_t home_node = sim_home_of(s, page);
	struct sim_node *home = home_node == SIM_NOBODY ? NULL : &s->nodes[home_node];

	/* One that was granted and is about to come is none, though it may have been one before. */
	bool hole = h->hole && !h->coming && h->state != WVM_HELD_INVALID && !n->present[page];
	uint64_t unit = wvm_unit_index(sim_core_page(page));
	static const uint8_t zeros[WVM_PAGE_BYTES];

	if (!in_between(n) && !hole && n->present[page] != (h->state != WVM_HELD_INVALID))
		sim_failed(s, "node %u: page %llu in RAM %d, held %d", node, ll(page),
			   n->present[page], h->state);
	if (h->state == WVM_HELD_INVALID)
		return;
	/* Where the file has nothing, a store is trapped for that. */
	if (!in_between(n) && h->state != WVM_HELD_MODIFIED && n->present[page] &&
	    n->untrapped[page] & n->usable & ~n->unmapped[page])
		sim_failed(s, "node %u: page %llu writable, held %d", node, ll(page), h->state);
	if ((n->present[page] || hole) && !is_truth(s, page, hole ? zeros : sim_ram(n, page)))
		sim_failed(s, "node %u: page %llu stale in state %d", node, ll(page), h->state);
	if (!home)
		return;
	entry = sim_home(home, page);
	if (h->state == WVM_HELD_SHARED)
		check_shared(s, page, node, home);
	else if (wvm_merge_granted(&home->units[unit], &n->held_units[unit], node))
		return;
	else if (e->state != WVM_HOME_MODIFIED || e->granted != h->version ||
		 recorded(home, e, node) != h->grant)
		sim_failed(s, "node %u: page %llu Modified by %llx in version %llx, not on record",
			   node, ll(page), ll(h->grant), ll(h->version));
}

/* Slots and pages name each other, and whatever waits has a timer. */
static void check_slots(struct sim *s, uint64_t page, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	const struct wvm_held_page held = sim_held(n, page), *h = &held;
	const struct wvm_demand *d = demand_of(n, h);

	if (in_between(n))
		return;
	if (h->request) {
		const struct wvm_request *r = &n->core->requests[h->request - 1];

		if (r->page != sim_core_page(page) || !r->timer.place ||
		    r->timer.due_ns > r->started_ns + sim_deadline_ns(s))
			sim_failed(s, "node %u: page %llu has a request that nothing will end",
				   node, ll(page));
	}
	if (!d)
		return;
	if (d->page != sim_core_page(page) ||
	    (!d->timer.place && !(d->state == WVM_DEMAND_HELD && h->pins)))
		sim_failed(s, "node %u: page %llu has a demand that nothing will end", node,
			   ll(page));
	if (d->state == WVM_DEMAND_HELD && (h->grant != d->grant || h->version != d->version))
		sim_failed(s, "node %u: page %llu is asked for and not what is held", node,
			   ll(page));
	if (d->state == WVM_DEMAND_WRITE_BACK &&
	    (d->keep ? h->state != WVM_HELD_SHARED : h->state != WVM_HELD_INVALID))
		sim_failed(s, "node %u: page %llu written back in state %d", node, ll(page),
			   h->state);
}

/* ---- the home -------------------------------------------------------------------------- */

/* Versions that the counter gives out later are new ones; and the next home takes the entry. */
static void check_counter(struct sim *s, uint64_t page, const struct sim_node *home,
			  const struct wvm_home_page *e)
{
	uint64_t counter = home->units[wvm_unit_index(sim_core_page(page))].version;

	if (e->version > counter || (e->state == WVM_HOME_MODIFIED && e->granted > counter))
		sim_failed(s, "home of page %llu: version %llx, granted %llx, the unit counts %llx",
			   ll(page), ll(e->version), ll(e->granted), ll(counter));
}

static void check_records(struct sim *s, uint64_t page)
{
	struct sim_node *home = &s->nodes[sim_home_of(s, page)];
	struct wvm_home_page entry = sim_home(home, page), *e = &entry;
	uint32_t seen = 0;

	check_counter(s, page, home, e);
	for (uint32_t i = 0; i < e->holders; i++) {
		uint32_t member = *wvm_holders_at(home->core, e, i).member;

		if (member >= s->config.nodes || seen >> member & 1)
			sim_failed(s, "home of page %llu: node %u is on record twice, or is none",
				   ll(page), member);
		seen |= 1u << member;
	}
	if (e->state == WVM_HOME_HOME     ? e->holders != 0
	    : e->state == WVM_HOME_SHARED ? e->holders == 0
					  : e->holders != 1)
		sim_failed(s, "home of page %llu: %u holders in state %u", ll(page), e->holders,
			   e->state);
	if (e->state == WVM_HOME_MODIFIED && e->granted <= e->version)
		sim_failed(s, "home of page %llu: granted %llx over %llx", ll(page), ll(e->granted),
			   ll(e->version));
	if (e->txn && !in_between(home)) {
		const struct wvm_txn *t = &home->core->txns[e->txn - 1];

		if (t->page != sim_core_page(page) || !t->timer.place)
			sim_failed(s, "home of page %llu: a transaction that nothing will end",
				   ll(page));
	}
}

/* Whether some node has, or keeps until they are acknowledged, the bytes that the home granted. */
static bool granted_is_out(const struct sim *s, uint64_t page, const struct wvm_home_page *e)
{
	const struct sim_node *owner = &s->nodes[e->member[0]];
	const struct wvm_held_page held = sim_held(owner, page), *h = &held;
	const struct wvm_demand *d = demand_of(owner, h);

	if (owner->dead)
		return s->config.deaths_all; /* it is lost, as soon as somebody asks */
	/* All are told before it serves. */
	if (owner->empty && s->config.reboots)
		return true;
	if (h->state == WVM_HELD_MODIFIED)
		return true;
	return d && d->state == WVM_DEMAND_WRITE_BACK && d->version == e->granted;
}

/* Whether the bytes that a home waits for are on their way, and the last ones. */
static void check_awaited(struct sim *s, uint64_t page, const struct wvm_home_page *e)
{
	const struct sim_node *from = e->granted ? &s->nodes[e->granted - 1] : NULL;

	for (uint32_t i = 0; from && i < s->config.limits.demands; i++) {
		const struct wvm_kept *k = &from->core->kept[i];

		if (k->used && k->page == sim_core_page(page) && k->version == e->version)
			return;
	}
	if (!from || !(from->dead || from->empty) || !sim_may_lose(s))
		sim_failed(s, "home of page %llu: waits in vain for version %llx", ll(page),
			   ll(e->version));
}

static void check_home(struct sim *s, uint64_t page)
{
	struct sim_node *home = &s->nodes[sim_home_of(s, page)];
	struct wvm_home_page entry = sim_home(home, page), *e = &entry;

	check_records(s, page);
	if (e->flags & WVM_HOME_LOST && sim_may_lose(s))
		return;
	if (e->flags & WVM_HOME_LOST)
		sim_failed(s, "home of page %llu: lost", ll(page));
	if (e->flags & WVM_HOME_UNSTORED && e->state != WVM_HOME_MODIFIED) {
		check_awaited(s, page, e);
		return;
	}
	if (e->state == WVM_HOME_MODIFIED && granted_is_out(s, page, e))
		return;
	if (!stored_is_truth(s, home, page))
		sim_failed(s, "home %u of page %llu: version %llx stored, and not the last bytes",
			   sim_home_of(s, page), ll(page), ll(e->version));
}

static void check_page(struct sim *s, uint64_t page)
{
	uint32_t modified = 0, present = 0;

	for (uint32_t i = 0; i < s->config.nodes; i++) {
		const struct sim_node *n = &s->nodes[i];

		modified += sim_held(n, page).state == WVM_HELD_MODIFIED;
		present += n->present[page];
		check_holder(s, page, i);
	}
	if (modified > 1 || (modified && present > 1))
		sim_failed(s, "page %llu: %u owners, %u copies", ll(page), modified, present);
	if (sim_home_of(s, page) == SIM_NOBODY)
		return;
	check_home(s, page);
	sim_check_backup(s, page);
}

/* ---- write-backs ----------------------------------------------------------------------- */

/* A node sends bytes home: now the last ones, and the same in every repetition. */
void sim_check_written_back(struct sim *s, uint32_t node, uint64_t page, uint64_t version,
			    const uint8_t *data)
{
	struct sim_version *v, *oldest = &s->versions[page][0];

	for (uint32_t i = 0; i < SIM_VERSIONS; i++) {
		v = &s->versions[page][i];
		if (v->version < oldest->version)
			oldest = v;
		if (v->version != version)
			continue;
		for (uint32_t w = 0; w < SIM_WORDS; w++)
			if (memcmp(data + sim_word_offset(w), &v->words[w], 8))
				sim_failed(s, "node %u: page %llu version %llx has other bytes now",
					   node, ll(page), ll(version));
		return;
	}
	if (version < oldest->version)
		return; /* a repetition of long ago */
	oldest->version = version;
	memcpy(oldest->words, s->truth[page], sizeof(oldest->words));
	if (!is_truth(s, page, data))
		sim_failed(s, "node %u: page %llu version %llx is not what was stored last", node,
			   ll(page), ll(version));
}

static void check_acknowledged(struct sim *s, uint32_t node, const struct wvm_msg *msg)
{
	uint64_t page = sim_page_of(msg->gpa >> WVM_PAGE_SHIFT);
	const struct sim_node *n = &s->nodes[node];
	const struct wvm_demand *d = demand_of(n, &n->held[sim_core_page(page)]);
	uint32_t home = sim_home_of(s, page);
	struct wvm_home_page entry, *e = &entry;

	if (home == SIM_NOBODY)
		return;
	entry = sim_home(&s->nodes[home], page);
	if (d && d->state == WVM_DEMAND_WRITE_BACK && d->grant == msg->grant &&
	    d->version == msg->version && e->version < d->version)
		sim_failed(s, "node %u: page %llu version %llx acknowledged, %llx is stored", node,
			   ll(page), ll(d->version), ll(e->version));
}

/* Before a core hears that its write-back is stored. */
void sim_check_acknowledged(struct sim *s, uint32_t node, const struct wvm_msg *msg)
{
	sim_look_undone(s);
	check_acknowledged(s, node, msg);
	sim_look_undone(s);
}

/* ---- waiting --------------------------------------------------------------------------- */

/* A thread waits, or waited until now: no longer than the deadline, its master's pauses apart. */
void sim_check_wait(struct sim *s, const struct sim_thread *t)
{
	uint64_t excused = sim_stalled(s, &s->nodes[t->node]) - t->stalled_ns;
	uint64_t most = sim_deadline_ns(s) + SIM_MARGIN_NS;

	if (s->report.now_ns - t->fault_ns > most + excused)
		sim_failed(s, "node %u: a thread waits for page %llu since %llu us", t->node,
			   ll(t->page), ll((s->report.now_ns - t->fault_ns) / 1000));
}

static void check_threads(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	if (in_between(n))
		return;
	for (uint32_t i = node * s->node_threads; i < (node + 1) * s->node_threads; i++) {
		const struct sim_thread *t = &s->threads[i];
		bool waits = t->state == SIM_TH_WAIT, pin = t->state == SIM_TH_WAIT_PIN;
		const struct wvm_request *r;
		uint32_t slot;

		if ((!waits && !pin) || t->queued)
			continue;
		slot = n->held[sim_core_page(t->page)].request;
		r = slot ? &n->core->requests[slot - 1] : NULL;
		if (!r || (pin && !r->pin) ||
		    (waits && !((t->write ? r->waiters_write : r->waiters_read) >> t->client & 1)))
			sim_failed(s, "node %u: a thread waits for page %llu and is forgotten",
				   node, ll(t->page));
	}
	if (n->looks && !n->stops && wvm_core_deadline(n->core) != WVM_CORE_NEVER && !n->tick_ns)
		sim_failed(s, "node %u: a timer that nobody waits for", node);
}

/* ---- pools ----------------------------------------------------------------------------- */

/* Length of a free list, or more than `most` when it has a loop. */
#define FREE_SLOTS(core, pool, head, most)                           \
	({                                                           \
		uint32_t n_ = 0;                                     \
		for (uint32_t i_ = (core)->head; i_ && n_ <= (most); \
		     i_ = (core)->pool[i_ - 1].next)                 \
			n_++;                                        \
		n_;                                                  \
	})

struct used {
	uint32_t requests, demands, txns, waiting, blocks;
};

static void count_home(struct sim_node *n, const struct wvm_home_page *e, struct used *u)
{
	const struct wvm_core_limits *l = &n->core->params.limits;

	for (uint32_t b = e->more; b && u->blocks <= l->holder_blocks;
	     b = n->core->blocks[b - 1].next)
		u->blocks++;
	if (!e->txn)
		return;
	u->txns++;
	for (uint32_t w = n->core->txns[e->txn - 1].queue_head; w && u->waiting <= l->waiting;
	     w = n->core->waiting[w - 1].next)
		u->waiting++;
}

static void check_pools(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	const struct wvm_core *c = n->core;
	const struct wvm_core_limits *l = &c->params.limits;
	struct used u = {0};
	uint32_t armed = 0, merges = 0, pulls = c->walk.place != 0, copies = 0;

	pulls += c->tells_used + (c->tell.place != 0) + (c->rebuild.place != 0);
	for (uint32_t i = 0; i < WVM_MERGES; i++)
		merges += c->merges[i].used;
	for (uint32_t i = 0; i < WVM_PULLS; i++) {
		pulls += c->pulls[i].state != WVM_PULL_FREE;
		for (uint32_t w = c->pulls[i].state ? c->pulls[i].queue_head : 0;
		     w && u.waiting <= l->waiting; w = c->waiting[w - 1].next)
			u.waiting++;
	}
	for (uint32_t i = 0; c->backup && i < WVM_COPIES; i++)
		copies += c->backup->copies[i].state != WVM_COPY_FREE;
	copies += c->backup && c->backup->timer.place;
	for (uint64_t p = 0; p < s->config.pages; p++) {
		u.requests += n->held[sim_core_page(p)].request != 0;
		u.demands += n->held[sim_core_page(p)].demand != 0;
		count_home(n, &n->home[sim_core_page(p)], &u);
	}
	if (u.requests + FREE_SLOTS(c, requests, free_request, l->requests) != l->requests ||
	    u.demands + FREE_SLOTS(c, demands, free_demand, l->demands) != l->demands ||
	    u.txns + FREE_SLOTS(c, txns, free_txn, l->txns) != l->txns ||
	    u.waiting + FREE_SLOTS(c, waiting, free_waiting, l->waiting) != l->waiting ||
	    u.blocks + FREE_SLOTS(c, blocks, free_block, l->holder_blocks) != l->holder_blocks)
		sim_failed(s, "node %u: slots are lost, or in use twice", node);
	for (uint32_t i = 0; i < c->timers.count && i < c->timers.capacity; i++)
		armed += c->timers.heap[i]->place == i + 1;
	if (c->timers.count > u.requests + u.demands + u.txns + merges + pulls + copies ||
	    armed != c->timers.count)
		sim_failed(s, "node %u: %u timers for %u slots", node, c->timers.count,
			   u.requests + u.demands + u.txns + merges + pulls + copies);
}

/*
 * Whoever waits has an end by its deadline, so what is left over long after that is kept by
 * nobody but itself: bytes that no home takes, questions that nobody answers.
 */
static void check_rest(struct sim *s, uint32_t node)
{
	const struct wvm_core *c = s->nodes[node].core;
	const struct wvm_core_limits *l = &c->params.limits;
	uint32_t requests = l->requests - c->requests_free, demands = l->demands - c->demands_free;
	uint32_t txns = l->txns - FREE_SLOTS(c, txns, free_txn, l->txns);
	uint32_t waiting = l->waiting - FREE_SLOTS(c, waiting, free_waiting, l->waiting);
	uint32_t merges = 0, pulls = 0;

	for (uint32_t i = 0; i < WVM_MERGES; i++)
		merges += c->merges[i].used;
	for (uint32_t i = 0; i < WVM_PULLS; i++)
		pulls += c->pulls[i].state != WVM_PULL_FREE;
	pulls += c->tells_used + c->telling;
	if (requests || demands || txns || waiting || merges || pulls)
		sim_failed(s,
			   "node %u: never ends: %u requests, %u demands, %u transactions, %u in "
			   "queues, %u merges, %u pulls",
			   node, requests, demands, txns, waiting, merges, pulls);
	for (uint32_t i = 0; c->backup && i < WVM_COPIES; i++)
		if (c->backup->copies[i].state != WVM_COPY_FREE)
			sim_failed(s, "node %u: a copy for node %u never comes to an end", node,
				   c->backup->copies[i].member);
}

void sim_check_rest(struct sim *s)
{
	for (uint32_t i = 0; i < s->config.nodes; i++)
		if (!in_between(&s->nodes[i]))
			check_rest(s, i);
	sim_check_degraded(s);
}

/* Requests that were sent to a peer and not tried again yet are what its window counts. */
static void check_windows(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	uint32_t flying[SIM_NODES_MAX] = {0};

	for (uint64_t p = 0; p < s->config.pages; p++) {
		uint32_t slot = n->held[sim_core_page(p)].request;
		const struct wvm_request *r = slot ? &n->core->requests[slot - 1] : NULL;

		if (!r || !r->in_window)
			continue;
		flying[r->member]++;
		if (r->state != WVM_REQUEST_SENT || r->tries || r->member == node)
			sim_failed(s,
				   "node %u: page %llu is in a window in state %u, tried %u times",
				   node, ll(p), r->state, r->tries);
	}
	for (uint32_t i = 0; i < s->config.nodes; i++)
		if (n->core->peers[i].in_flight != flying[i])
			sim_failed(s, "node %u: %u requests to node %u, the window counts %u", node,
				   flying[i], i, n->core->peers[i].in_flight);
}

/* ---- when ------------------------------------------------------------------------------ */

static void check_all(struct sim *s)
{
	bool large = s->config.limits.holder_blocks > 1000 || s->config.limits.requests > 100;
	bool pools = !large || s->quiet || s->config.sweep ||
		     s->report.steps / POOLS != s->swept / POOLS;

	s->swept = s->report.steps;
	s->report.sweeps++;
	for (uint64_t p = 0; p < s->config.pages; p++) {
		check_page(s, p);
		for (uint32_t i = 0; i < s->config.nodes; i++)
			check_slots(s, p, i);
	}
	for (uint32_t i = 0; i < s->config.nodes; i++) {
		if (in_between(&s->nodes[i]))
			continue;
		check_threads(s, i);
		check_windows(s, i);
		if (pools)
			check_pools(s, i);
	}
	for (uint32_t i = 0; i < s->thread_count; i++)
		if (s->threads[i].state == SIM_TH_WAIT || s->threads[i].state == SIM_TH_WAIT_PIN)
			sim_check_wait(s, &s->threads[i]);
}

void sim_check_all(struct sim *s)
{
	sim_look_undone(s);
	check_all(s);
	sim_look_undone(s);
}

/* After an input to node's core: the pages that it touched; now and then everything. */
void sim_check_touched(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	if (s->report.steps > s->rested)
		s->report.joined += s->report.steps - s->rested - 1;
	s->rested = s->report.steps;
	sim_look_undone(s);
	for (uint32_t i = 0; i < s->touched_count; i++) {
		uint64_t page = sim_core_page(s->touched[i]);

		n->stored[s->touched[i]] |= (n->home[page].flags &
					     (WVM_HOME_WRITTEN | WVM_HOME_BACKUP)) ==
					    WVM_HOME_WRITTEN;
		check_page(s, s->touched[i]);
		check_slots(s, s->touched[i], node);
	}
	s->touched_count = 0;
	check_threads(s, node);
	if (s->report.steps - s->swept >= (s->config.sweep ? s->config.sweep : SWEEP))
		check_all(s);
	sim_look_undone(s);
}

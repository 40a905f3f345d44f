/*
 * Giving everything back, so that the node can be switched off: reclaim.h.
 *
 * Shard 0 begins a round when no program is attached. A shard that finds, in that round and on
 * its own thread, that it has nothing says so by the round's number. Since no program is there
 * nothing can come any more: what all shards have said of a round holds until it is over.
 * It is over when a program attaches, though it may have ended again by now.
 */
#include "roles/master/node.h"

#define EVICTIONS   64u /* of one turn */
#define VISITS      256u
#define PAGES       8192u            /* looked at in one turn, of units that have some */
#define RANGES      65536u           /* steps from one unit or range to the next, likewise */
#define REST_MIN_NS UINT64_C(500000) /* hold times are shorter, mostly */
#define REST_MAX_NS UINT64_C(50000000)

/* ---- who may stay ---------------------------------------------------------------------- */

bool wvm_reclaim_leaving(const struct wvm_node *n)
{
	return __atomic_load_n(&n->leave.leaving, __ATOMIC_RELAXED);
}

static uint64_t attached_so_far(const struct wvm_node *n)
{
	struct wvm_clients_counters c;

	wvm_clients_counters(n->clients, &c);
	return c.attached;
}

/* A pin that is under way may still ask for pages when its program is gone. */
static bool in_use(const struct wvm_node *n)
{
	return n->adoption.active || !wvm_clients_none(n->clients) || !wvm_pins_none(&n->shards[0]);
}

/* On shard 0, in each of its turns: a round begins or is over. */
static void look(struct wvm_node *n)
{
	struct wvm_leave *l = &n->leave;
	bool go = wvm_reclaim_leaving(n) && !in_use(n);

	if (!go && !l->round)
		return;
	if (go && l->round && l->attached == attached_so_far(n))
		return;
	l->attached = attached_so_far(n);
	__atomic_store_n(&l->round, go ? ++l->rounds : 0, __ATOMIC_RELEASE);
	wvm_reclaim_wake_others(&n->shards[0]);
}

void wvm_reclaim_leave(struct wvm_node *n, bool leaving)
{
	__atomic_store_n(&n->leave.leaving, leaving, __ATOMIC_RELAXED);
	look(n);
	wvm_reclaim_wake_others(&n->shards[0]);
}

bool wvm_reclaim_empty(const struct wvm_node *n)
{
	const struct wvm_leave *l = &n->leave;

	if (!l->round || in_use(n) || l->attached != attached_so_far(n))
		return false;
	for (unsigned i = 0; i < n->shard_count; i++)
		if (__atomic_load_n(&n->shards[i].reclaim.empty_round, __ATOMIC_ACQUIRE) !=
		    l->round)
			return false;
	return true;
}

static uint64_t held_at(const struct wvm_node_shard *s)
{
	const struct wvm_core_stats *c = wvm_core_stats(s->core);

	return __atomic_load_n(&c->pages_shared, __ATOMIC_RELAXED) +
	       __atomic_load_n(&c->pages_modified, __ATOMIC_RELAXED) +
	       __atomic_load_n(&c->pages_untouched, __ATOMIC_RELAXED);
}

static uint64_t left_at(const struct wvm_node_shard *s)
{
	const struct wvm_core_stats *c = wvm_core_stats(s->core);

	return held_at(s) + __atomic_load_n(&c->requests_now, __ATOMIC_RELAXED) +
	       __atomic_load_n(&c->writebacks_now, __ATOMIC_RELAXED);
}

uint64_t wvm_reclaim_left(const struct wvm_node *n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n->shard_count; i++)
		sum += left_at(&n->shards[i]);
	return sum;
}

/* ---- the hand -------------------------------------------------------------------------- */

static uint64_t unit_end(uint64_t page)
{
	return (page | (WVM_UNIT_PAGES - 1)) + 1;
}

/* What one turn may still do. */
struct turn {
	unsigned evictions, visits, pages, ranges;
};

static bool has_time(const struct turn *t)
{
	return t->evictions && t->visits && t->pages && t->ranges;
}

/* An entry without room is that of a page that was never asked for alone. */
static bool is_held(const struct wvm_node_shard *s, uint32_t vm, uint64_t page)
{
	const struct wvm_backing *b = &s->node->backing[vm];

	return !wvm_core_needs_held(s->core, vm, page) ||
	       (wvm_backing_has_held(b, page) && b->vm.held[page].state != WVM_HELD_INVALID);
}

/* The next unit of this shard in which something is held. False: the turn or the VM ends. */
static bool next_unit(struct wvm_node_shard *s, struct turn *t)
{
	struct wvm_reclaim *r = &s->reclaim;
	const struct wvm_backing *b = &s->node->backing[r->vm];
	uint64_t range = UINT64_C(1) << (WVM_RANGE_SHIFT - WVM_PAGE_SHIFT);

	for (; t->ranges; t->ranges--) {
		r->page = wvm_backing_next_held_unit(b, r->page, b->vm.pages);
		if (r->page >= b->vm.pages)
			return false;
		if (wvm_holder_shard(s->node, r->page) != s->index)
			r->page = (r->page / range + 1) * range;
		else if (wvm_core_unit_held(&b->vm, r->page))
			return true;
		else
			r->page = unit_end(r->page);
	}
	return false;
}

/* The page under the hand goes, or the hand passes it. */
static void visit(struct wvm_node_shard *s, struct turn *t)
{
	struct wvm_reclaim *r = &s->reclaim;
	enum wvm_evict said = WVM_EVICT_ROOM;

	t->visits--;
	if (wvm_node_holder_entry(s, r->vm, r->page)) {
		said = wvm_core_evict(s->core, s->shard->now_ns, r->vm, r->page);
		wvm_node_drain(s);
	}
	t->evictions -= said == WVM_EVICT_DONE;
	/* The others of the unit have the same home, and their entries need the same room. */
	r->page = said == WVM_EVICT_ROOM ? unit_end(r->page) : r->page + 1;
}

static void visit_unit(struct wvm_node_shard *s, struct turn *t)
{
	struct wvm_reclaim *r = &s->reclaim;
	uint64_t end = unit_end(r->page), pages = s->node->backing[r->vm].vm.pages;

	if (end > pages)
		end = pages;
	while (r->page < end && has_time(t)) {
		t->pages--;
		if (is_held(s, r->vm, r->page))
			visit(s, t);
		else
			r->page++;
	}
}

static void sweep(struct wvm_node_shard *s, struct turn *t)
{
	struct wvm_reclaim *r = &s->reclaim;

	while (has_time(t)) {
		if (next_unit(s, t)) {
			visit_unit(s, t);
		} else if (t->ranges) {
			t->ranges--; /* not for ever where nothing is held any more */
			r->page = 0;
			r->vm = (r->vm + 1) % s->node->vm_count;
		}
	}
}

/* ---- the turn -------------------------------------------------------------------------- */

bool wvm_leave_begins(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;
	bool leaving = wvm_reclaim_leaving(s->node);

	if (!leaving && !r->leaving)
		return false;
	if (!s->index)
		look(s->node);
	if (leaving != r->leaving) {
		r->leaving = leaving;
		wvm_core_merge(s->core, !leaving);
	}
	return !s->adopting && __atomic_load_n(&s->node->leave.round, __ATOMIC_ACQUIRE);
}

/* Nothing could go: hold times and answers are waited for, longer each time. */
static void rest(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;

	r->rest_ns = r->rest_ns < REST_MIN_NS       ? REST_MIN_NS
		     : r->rest_ns * 2 < REST_MAX_NS ? r->rest_ns * 2
						    : REST_MAX_NS;
	r->rest_until_ns = s->shard->now_ns + r->rest_ns;
	wvm_shard_arm(s->shard, &r->timer, r->rest_ns);
}

bool wvm_leave_turn(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;
	uint64_t round = __atomic_load_n(&s->node->leave.round, __ATOMIC_ACQUIRE);
	struct turn t = {EVICTIONS, VISITS, PAGES, RANGES};

	r->active = false;
	if (!left_at(s)) {
		r->rest_ns = 0;
		__atomic_store_n(&r->empty_round, round, __ATOMIC_RELEASE);
		return false;
	}
	/* What is on its way out, or in, needs no visit: an answer wakes the shard. */
	if (!held_at(s) || s->shard->now_ns < r->rest_until_ns)
		return false;
	sweep(s, &t);
	if (t.evictions < EVICTIONS) {
		r->rest_ns = 0;
	} else if (t.visits < VISITS) {
		rest(s);
		return false;
	}
	return true;
}

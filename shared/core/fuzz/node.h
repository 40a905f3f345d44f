/*
 * One real core and a model of its node, for the core's fuzz targets: which
 * pages are in the RAM file, whether stores land, who waits. It carries the
 * core's actions out and checks each against that model, as the master would
 * have to stop where one does not fit.
 */
#ifndef WVM_FUZZ_NODE_H
#define WVM_FUZZ_NODE_H

#include "shared/core/core_int.h"
#include "shared/fuzz/fuzz.h"
#include "shared/wire.h"

#define MEMBERS  6u
#define UNITS    3u
#define PAGES    (2u * UNITS)                        /* that are used */
#define VM_PAGES ((UNITS - 1) * WVM_UNIT_PAGES + 2u) /* and nothing behind the last */
#define VM_ID    7u
#define EPOCH    1u
#define CLIENTS  3u
#define MS       UINT64_C(1000000)

struct node {
	uint32_t self;
	struct wvm_core *core;
	void *memory;
	uint8_t *outbox;
	struct wvm_home_page *home;
	struct wvm_home_unit *units;
	struct wvm_held_unit *held_units;
	struct wvm_held_page *held;
	uint8_t *store;
	struct wvm_core_params params;
	uint8_t ram[PAGES][WVM_PAGE_BYTES];
	bool present[PAGES], stores[PAGES]; /* in the RAM file; a store does not trap */
	uint64_t wait_read[PAGES], wait_write[PAGES];
	uint32_t asked[PAGES], pinned[PAGES]; /* pins not answered, and answered */
	bool saved[16];                       /* outbox buffers that were written */
	uint32_t fail_installs;               /* so many next ones find no room */
	uint64_t failed[PAGES];               /* FAIL actions */
	uint64_t now_ns;
};

/* The target's: takes a message to another node. page: its payload, or NULL. */
static void node_send(struct node *n, uint32_t member, const struct wvm_msg *msg,
		      const uint8_t *page);

static struct wvm_member member_list[MEMBERS];
static const struct wvm_members members = {member_list, MEMBERS};
static struct wvm_slices slices;

FUZZ_UNWATCHED_BEGIN

static uint64_t core_page(uint32_t i)
{
	return i / 2 * WVM_UNIT_PAGES + i % 2;
}

static uint32_t model_page(uint64_t page)
{
	uint64_t in_unit = page % WVM_UNIT_PAGES;

	FUZZ_CHECK(page < VM_PAGES && in_unit < 2, "page %lu", (unsigned long)page);
	return (uint32_t)(page / WVM_UNIT_PAGES * 2 + in_unit);
}

/* Unit u is homed at member u; the last by its second vnode. */
static void cluster_init(void)
{
	for (uint32_t i = 0; i < MEMBERS; i++)
		member_list[i] = (struct wvm_member){.first_vnode = 3 * i, .vnodes = 1 + i % 3};
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		slices.home_vnode[i] = member_list[MEMBERS - 1].first_vnode;
	for (uint32_t u = 0; u < UNITS; u++) {
		uint32_t *home =
			&slices.home_vnode[wvm_slice_of(VM_ID, (uint64_t)u << WVM_UNIT_SHIFT)];

		FUZZ_CHECK(*home == member_list[MEMBERS - 1].first_vnode, "two units, one slice");
		*home = member_list[u].first_vnode + member_list[u].vnodes - 1;
	}
}

static void *node_memory(size_t bytes)
{
	void *p;

	FUZZ_CHECK(!posix_memalign(&p, 64, bytes), "memory");
	return p;
}

/* What was used by the input before is zeroed; the rest never changes. */
static void clear_arrays(struct node *n)
{
	if (!n->home) {
		n->home = calloc(VM_PAGES, sizeof(*n->home));
		n->held = calloc(VM_PAGES, sizeof(*n->held));
		n->units = calloc(UNITS, sizeof(*n->units));
		n->store = calloc(VM_PAGES, WVM_PAGE_BYTES);
		n->held_units = calloc(UNITS, sizeof(*n->held_units));
		FUZZ_CHECK(n->home && n->held && n->units && n->held_units && n->store, "memory");
	}
	for (uint32_t i = 0; i < PAGES; i++) {
		memset(&n->home[core_page(i)], 0, sizeof(*n->home));
		memset(&n->held[core_page(i)], 0, sizeof(*n->held));
		memset(n->store + core_page(i) * WVM_PAGE_BYTES, 0xdb, WVM_PAGE_BYTES);
	}
	memset(n->units, 0, UNITS * sizeof(*n->units));
	memset(n->held_units, 0, UNITS * sizeof(*n->held_units));
}

/* second: the second homes, or NULL. What a dead home had is told of whole units: all is zeroed. */
static void node_open_backed(struct node *n, uint32_t self, const struct wvm_core_limits *limits,
			     uint64_t seed, const struct wvm_slices *second)
{
	struct wvm_home_page *home = n->home;
	struct wvm_home_unit *units = n->units;
	struct wvm_held_unit *held_units = n->held_units;
	struct wvm_held_page *held = n->held;
	uint8_t *store = n->store;
	struct wvm_core_vm vm = {.id = VM_ID, .pages = VM_PAGES};
	size_t bytes;

	memset(n, 0, sizeof(*n));
	n->home = home;
	n->units = units;
	n->held_units = held_units;
	n->held = held;
	n->store = store;
	clear_arrays(n);
	if (second)
		memset(n->home, 0, VM_PAGES * sizeof(*n->home));
	n->self = self;
	n->now_ns = 1000 * MS;
	n->params = (struct wvm_core_params){.members = &members,
					     .slices = &slices,
					     .backup = second,
					     .self = self,
					     .epoch = EPOCH,
					     .boot = 2,
					     .seed = seed,
					     .limits = *limits,
					     .units = seed & 1,
					     .merge = seed & 1};
	wvm_core_default_times(&n->params.times);
	n->params.outbox = n->outbox = node_memory((size_t)limits->demands * WVM_PAGE_BYTES);
	FUZZ_CHECK(limits->demands <= sizeof(n->saved), "demands");
	bytes = wvm_core_bytes(&n->params);
	FUZZ_CHECK(bytes, "limits");
	n->memory = node_memory(bytes);
	memset(n->memory, 0xa5, bytes);
	n->core = wvm_core_init(n->memory, &n->params);
	vm.home = n->home;
	vm.units = n->units;
	vm.held_units = n->held_units;
	vm.held = n->held;
	vm.store = n->store;
	FUZZ_CHECK(wvm_core_add_vm(n->core, &vm) == 0, "the VM");
	wvm_core_serve(n->core, true);
}

static inline void node_open(struct node *n, uint32_t self, const struct wvm_core_limits *limits,
			     uint64_t seed)
{
	node_open_backed(n, self, limits, seed, NULL);
}

static void node_close(struct node *n)
{
	free(n->memory);
	free(n->outbox);
}

/* ---- actions ----------------------------------------------------------------------------- */

static void check_msg(const struct node *n, const struct wvm_action *a)
{
	const struct wvm_msg *m = &a->msg;

	FUZZ_CHECK(a->member < MEMBERS && wvm_member_of(&members, m->dst) == a->member,
		   "to member %u, vnode %u", a->member, m->dst);
	FUZZ_CHECK(m->src == member_list[n->self].first_vnode && m->vm_id == VM_ID &&
			   m->epoch == n->core->params.epoch && m->gpa == a->page << WVM_PAGE_SHIFT,
		   "header");
	FUZZ_CHECK((a->source == WVM_DATA_BYTES) == (m->payload_len > 0) &&
			   (m->payload_len + WVM_SEGMENT_UNIT - 1) / WVM_SEGMENT_UNIT ==
				   m->seg_total / WVM_SEGMENT_UNIT &&
			   !m->seg_offset,
		   "payload");
}

static const uint8_t no_bytes[WVM_PAGE_BYTES];

/* Of a unit that was granted whole: it need not be in the RAM file. */
static bool may_be_hole(const struct node *n, uint64_t page)
{
	return n->held[page].hole;
}

static const uint8_t *payload_of(const struct node *n, const struct wvm_action *a)
{
	uint32_t i;

	switch ((enum wvm_data_source)a->source) {
	case WVM_DATA_NONE:
	case WVM_DATA_BYTES: return NULL; /* no page */
	case WVM_DATA_STORE:
		FUZZ_CHECK(n->home[a->page].flags & WVM_HOME_WRITTEN &&
				   wvm_core_home_of(n->core, 0, a->page, NULL) == n->self,
			   "stored copy of page %lu", (unsigned long)a->page);
		return n->store + a->page * WVM_PAGE_BYTES;
	case WVM_DATA_RAM:
		i = model_page(a->page);
		FUZZ_CHECK((n->present[i] || a->hole) && !n->stores[i],
			   "page %u leaves the RAM file", i);
		return n->present[i] ? n->ram[i] : no_bytes;
	case WVM_DATA_OUTBOX:
		FUZZ_CHECK(a->slot < n->params.limits.demands && n->saved[a->slot], "outbox %u",
			   a->slot);
		return n->outbox + (size_t)a->slot * WVM_PAGE_BYTES;
	}
	FUZZ_CHECK(false, "source %u", a->source);
	return NULL;
}

static bool all_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, WVM_PAGE_BYTES - 1);
}

/* As the master sends it: what it may not encode would stop it. */
static void act_send(struct node *n, const struct wvm_action *a)
{
	const uint8_t *page = payload_of(n, a), *bytes = page;
	struct wvm_msg m = a->msg;

	check_msg(n, a);
	if (page && all_zero(page)) {
		page = NULL;
		m.flags |= WVM_MSG_ZERO;
		m.qos = WVM_QOS_CONTROL;
	}
	if (page)
		m.payload_len = m.seg_total = WVM_PAGE_BYTES;
	bytes = a->source == WVM_DATA_BYTES ? a->data : page;
	FUZZ_CHECK(!wvm_wire_check(&m), "%s is sent that %s drops", wvm_msg_name(m.type),
		   wvm_drop_name(wvm_wire_check(&m)));
	if (a->member == n->self)
		wvm_core_message(n->core, n->now_ns, &m, bytes);
	else
		node_send(n, a->member, &m, page);
}

/* Only who waits is woken; a Shared page does not help a writer. */
static void release(struct node *n, uint32_t i, uint64_t waiters, bool writers)
{
	uint64_t all = n->wait_read[i] | (writers ? n->wait_write[i] : 0);

	FUZZ_CHECK(!(waiters & ~all), "page %u: %lx are woken, %lx wait", i, (unsigned long)waiters,
		   (unsigned long)all);
	n->wait_read[i] &= ~waiters;
	if (writers)
		n->wait_write[i] &= ~waiters;
}

static void act_install(struct node *n, const struct wvm_action *a, uint32_t i)
{
	FUZZ_CHECK(!n->present[i], "page %u is there", i);
	release(n, i, a->waiters, a->writable);
	if (n->fail_installs) {
		n->fail_installs--;
		wvm_core_not_installed(n->core, a->vm, a->page);
		FUZZ_CHECK(!n->pinned[i], "page %u was pinned", i);
		n->asked[i] = 0;
		return;
	}
	n->present[i] = true;
	n->stores[i] = a->writable;
	if (a->data)
		memcpy(n->ram[i], a->data, WVM_PAGE_BYTES);
	else
		memset(n->ram[i], 0, WVM_PAGE_BYTES);
}

static void fill(struct node *n, uint32_t i, bool stores)
{
	FUZZ_CHECK(!stores || wvm_core_held(wvm_core_vm_at(n->core, 0), core_page(i)).state ==
				      WVM_HELD_MODIFIED,
		   "page %u is filled", i);
	if (!n->present[i])
		memset(n->ram[i], 0, WVM_PAGE_BYTES);
	n->present[i] = true;
	n->stores[i] = stores;
}

static void forget(struct node *n, const struct wvm_action *a)
{
	for (uint64_t at = a->page; at < a->page + WVM_UNIT_PAGES && at < VM_PAGES; at++)
		if (a->home)
			memset(&n->home[at], 0, sizeof(n->home[at]));
		else
			memset(&n->held[at], 0, sizeof(n->held[at]));
}

static void act(struct node *n, const struct wvm_action *a)
{
	bool of_unit = a->kind == WVM_ACT_SEND || a->kind == WVM_ACT_FORGET;
	uint32_t i = of_unit ? 0 : model_page(a->page);

	FUZZ_CHECK(a->vm == 0 && a->page < VM_PAGES, "vm %u", a->vm);
	switch ((enum wvm_action_kind)a->kind) {
	case WVM_ACT_SEND: act_send(n, a); return;
	case WVM_ACT_INSTALL: act_install(n, a, i); return;
	case WVM_ACT_LIFT:
		FUZZ_CHECK((n->present[i] || may_be_hole(n, a->page)) &&
				   n->held[a->page].state == WVM_HELD_MODIFIED,
			   "page %u", i);
		release(n, i, a->waiters, true);
		n->stores[i] = true;
		return;
	case WVM_ACT_WAKE:
		FUZZ_CHECK(n->present[i], "page %u", i);
		release(n, i, a->waiters, false);
		return;
	case WVM_ACT_PROTECT:
		FUZZ_CHECK(n->present[i] || may_be_hole(n, a->page), "page %u", i);
		n->stores[i] = false;
		return;
	case WVM_ACT_SAVE:
		FUZZ_CHECK((n->present[i] || a->hole) && !n->stores[i] &&
				   a->slot < n->params.limits.demands,
			   "page %u, outbox %u", i, a->slot);
		memcpy(n->outbox + (size_t)a->slot * WVM_PAGE_BYTES,
		       n->present[i] ? n->ram[i] : no_bytes, WVM_PAGE_BYTES);
		n->saved[a->slot] = true;
		return;
	case WVM_ACT_PUNCH:
		FUZZ_CHECK((n->present[i] || may_be_hole(n, a->page)) && !n->stores[i], "page %u",
			   i);
		n->present[i] = false;
		return;
	case WVM_ACT_FAIL:
		FUZZ_CHECK(!n->present[i] && !n->pinned[i], "page %u", i);
		release(n, i, a->waiters, true);
		n->asked[i] = 0;
		n->failed[i]++;
		return;
	case WVM_ACT_FILL:
		for (uint64_t at = a->page; at < a->page + a->count; at++)
			if (at % WVM_UNIT_PAGES < 2)
				fill(n, model_page(at), true);
		release(n, i, a->waiters, true);
		return;
	case WVM_ACT_SETTLE:
		FUZZ_CHECK(!n->stores[i] && n->held[a->page].state == WVM_HELD_SHARED, "page %u",
			   i);
		fill(n, i, false);
		release(n, i, a->waiters, false);
		return;
	case WVM_ACT_FORGET: forget(n, a); return;
	case WVM_ACT_PINNED:
		n->pinned[i] += n->asked[i];
		n->asked[i] = 0;
		return;
	}
	FUZZ_CHECK(false, "kind %u", a->kind);
}

/* ---- invariants -------------------------------------------------------------------------- */

static void check_held(const struct node *n, uint32_t i, uint32_t *requests, uint32_t *demands)
{
	const struct wvm_held_page held = wvm_core_held(wvm_core_vm_at(n->core, 0), core_page(i));
	const struct wvm_held_page *h = &held;

	FUZZ_CHECK(h->state <= WVM_HELD_MODIFIED &&
			   (n->present[i] == (h->state != WVM_HELD_INVALID) ||
			    (h->hole && h->state != WVM_HELD_INVALID)),
		   "page %u: state %u, present %d", i, h->state, n->present[i]);
	FUZZ_CHECK(!n->present[i] || !n->stores[i] || h->state == WVM_HELD_MODIFIED,
		   "page %u takes stores in state %u", i, h->state);
	FUZZ_CHECK(n->held[core_page(i)].pins == n->asked[i] + n->pinned[i],
		   "page %u: %u pins, not %u + %u", i, n->held[core_page(i)].pins, n->asked[i],
		   n->pinned[i]);
	FUZZ_CHECK(!n->pinned[i] || h->state == WVM_HELD_MODIFIED, "page %u is pinned", i);
	FUZZ_CHECK(!(n->wait_read[i] | n->wait_write[i] | n->asked[i]) || h->request,
		   "page %u: waited for, not asked for", i);
	if (h->request) {
		FUZZ_CHECK(h->request <= n->params.limits.requests &&
				   n->core->requests[h->request - 1].page == core_page(i),
			   "request %u", h->request);
		++*requests;
	}
	if (h->demand) {
		FUZZ_CHECK(h->demand <= n->params.limits.demands &&
				   n->core->demands[h->demand - 1].page == core_page(i),
			   "demand %u", h->demand);
		++*demands;
	}
}

static void check_home(const struct node *n, uint32_t i, uint32_t *txns, uint32_t *queued)
{
	const struct wvm_home_page *e = &n->home[core_page(i)];
	const struct wvm_txn *t;

	FUZZ_CHECK(e->state <= WVM_HOME_MODIFIED && (e->state == WVM_HOME_HOME) == !e->holders &&
			   (e->state != WVM_HOME_MODIFIED || e->holders == 1),
		   "page %u: state %u, %u holders", i, e->state, e->holders);
	for (uint32_t k = 0; k < e->holders && k < WVM_HOLDERS_INLINE; k++)
		FUZZ_CHECK(e->member[k] < MEMBERS, "holder %u", e->member[k]);
	/* While its holders tell of it that is not decided. */
	FUZZ_CHECK(!(e->flags & WVM_HOME_LOST) || !e->holders ||
			   n->units[i / 2].phase == WVM_MOVED_TELLING,
		   "page %u is lost and held", i);
	if (!e->txn)
		return;
	FUZZ_CHECK(e->txn <= n->params.limits.txns, "transaction %u", e->txn);
	t = &n->core->txns[e->txn - 1];
	FUZZ_CHECK(t->page == core_page(i) && t->timer.place, "transaction %u", e->txn);
	++*txns;
	for (uint32_t slot = t->queue_head; slot; slot = n->core->waiting[slot - 1].next)
		FUZZ_CHECK(++*queued <= n->params.limits.waiting, "queue");
}

#define FREE_OF(n, pool, head, most)                                                       \
	({                                                                                 \
		uint32_t free_ = 0;                                                        \
		for (uint32_t s_ = (n)->core->head; s_; s_ = (n)->core->pool[s_ - 1].next) \
			FUZZ_CHECK(++free_ <= (most), #pool);                              \
		free_;                                                                     \
	})

/* Every slot of every pool is free or in use, none twice and none forgotten. */
static void check_pools(const struct node *n, uint32_t requests, uint32_t demands, uint32_t txns,
			uint32_t queued)
{
	const struct wvm_core_limits *l = &n->params.limits;
	const struct wvm_core_timers *t = &n->core->timers;
	uint32_t others = WVM_MERGES + n->core->tells_used + 4u; /* the walks */

	FUZZ_CHECK(FREE_OF(n, requests, free_request, l->requests) + requests == l->requests,
		   "%u requests", requests);
	FUZZ_CHECK(FREE_OF(n, demands, free_demand, l->demands) + demands == l->demands,
		   "%u demands", demands);
	FUZZ_CHECK(FREE_OF(n, txns, free_txn, l->txns) + txns == l->txns, "%u transactions", txns);
	FUZZ_CHECK(FREE_OF(n, waiting, free_waiting, l->waiting) + queued == l->waiting,
		   "%u queued", queued);
	if (n->core->backup)
		others += n->core->backup->used[0] + n->core->backup->used[1];
	FUZZ_CHECK(t->count <= requests + demands + txns + others, "%u timers", t->count);
	for (uint32_t i = 0; i < t->count; i++)
		FUZZ_CHECK(t->heap[i]->place == i + 1 &&
				   (!i || t->heap[(i - 1) / 2]->due_ns <= t->heap[i]->due_ns),
			   "timer %u", i);
}

/* What the entry of a unit counts of its pages. */
static void check_unit(const struct node *n, uint64_t first)
{
	const struct wvm_held_unit *u = &n->held_units[first / WVM_UNIT_PAGES];
	uint32_t shared = 0, modified = 0, held = 0;

	for (uint32_t i = 0; i < PAGES; i++) {
		const struct wvm_held_page *h = &n->held[core_page(i)];

		if (core_page(i) / WVM_UNIT_PAGES != first / WVM_UNIT_PAGES)
			continue;
		held += wvm_core_held(wvm_core_vm_at(n->core, 0), core_page(i)).state !=
			WVM_HELD_INVALID;
		if (wvm_unit_mine(u, core_page(i)))
			continue;
		shared += h->state == WVM_HELD_SHARED;
		modified += h->state == WVM_HELD_MODIFIED;
	}
	FUZZ_CHECK(u->shared == shared && u->modified == modified, "unit of %llx: %u %u",
		   (unsigned long long)first, u->shared, u->modified);
	FUZZ_CHECK(!held || wvm_core_unit_held(wvm_core_vm_at(n->core, 0), first), "nothing held");
}

static void node_check(const struct node *n)
{
	const struct wvm_core_stats *s = wvm_core_stats(n->core);
	uint32_t requests = 0, demands = 0, txns = 0, queued = 0;
	uint64_t shared = 0, modified = 0, untouched = 0, back = 0;

	for (uint32_t i = 0; i < PAGES; i++) {
		check_held(n, i, &requests, &demands);
		check_home(n, i, &txns, &queued);
		shared += n->held[core_page(i)].state == WVM_HELD_SHARED;
		modified += n->held[core_page(i)].state == WVM_HELD_MODIFIED;
	}
	for (uint32_t i = 0; i < UNITS * WVM_UNIT_WORDS; i++) {
		const struct wvm_held_unit *u = &n->held_units[i / WVM_UNIT_WORDS];
		uint64_t mine = u->mine[i % WVM_UNIT_WORDS], filled = u->filled[i % WVM_UNIT_WORDS];

		modified += (uint64_t)__builtin_popcountll(mine & filled);
		untouched += (uint64_t)__builtin_popcountll(mine & ~filled);
	}
	for (uint32_t i = 0; i < n->params.limits.demands; i++)
		back += n->core->demands[i].used &&
			n->core->demands[i].state == WVM_DEMAND_WRITE_BACK;
	FUZZ_CHECK(s->pages_shared == shared && s->pages_modified == modified &&
			   s->pages_untouched == untouched && s->writebacks_now == back,
		   "figures");
	for (uint32_t i = 0; i < UNITS; i++)
		check_unit(n, i * WVM_UNIT_PAGES);
	check_pools(n, requests, demands, txns, queued);
}

/* ---- inputs ------------------------------------------------------------------------------ */

static void node_drain(struct node *n)
{
	const struct wvm_action *a;

	while ((a = wvm_core_action(n->core)))
		act(n, a);
	node_check(n);
}

static void node_fault(struct node *n, uint32_t i, bool write, unsigned client)
{
	uint64_t bit = UINT64_C(1) << client;

	*(write ? &n->wait_write[i] : &n->wait_read[i]) |= bit;
	if (!wvm_core_fault(n->core, n->now_ns, 0, core_page(i), write, client))
		*(write ? &n->wait_write[i] : &n->wait_read[i]) &= ~bit;
	node_drain(n);
}

static void node_pin(struct node *n, uint32_t i)
{
	switch (wvm_core_pin(n->core, n->now_ns, 0, core_page(i))) {
	case WVM_PIN_HELD: n->pinned[i]++; break;
	case WVM_PIN_ASKED: n->asked[i]++; break;
	case WVM_PIN_ROOM:
	case WVM_PIN_MANY: break;
	}
	node_drain(n);
}

static void node_unpin(struct node *n, uint32_t i)
{
	if (!n->pinned[i])
		return;
	n->pinned[i]--;
	wvm_core_unpin(n->core, n->now_ns, 0, core_page(i));
	node_drain(n);
}

static void node_gone(struct node *n, unsigned client)
{
	for (uint32_t i = 0; i < PAGES; i++) {
		n->wait_read[i] &= ~(UINT64_C(1) << client);
		n->wait_write[i] &= ~(UINT64_C(1) << client);
	}
	wvm_core_client_gone(n->core, client);
}

#define TICKS_AT_ONCE 1000u /* due at one instant: more would be a loop without end */

static void node_tick(struct node *n, uint64_t now_ns)
{
	unsigned ticks = 0;

	n->now_ns = now_ns;
	while (wvm_core_deadline(n->core) <= now_ns) {
		FUZZ_CHECK(ticks++ < TICKS_AT_ONCE, "timers without end");
		wvm_core_tick(n->core, now_ns);
		node_drain(n);
	}
}

FUZZ_UNWATCHED_END

#endif

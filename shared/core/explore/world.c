/*
 * The cluster and its steps. A step restores one node's core from the state,
 * puts one input in, carries the actions out and takes the core's structs back.
 */
#include "shared/core/explore/world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Any instant late enough that "long ago" is representable. */
#define NOW UINT64_C(1000000000000)
#define FAR (NOW + NOW)

#define ACTIONS 256u /* of one step, the node's messages to itself included; a dozen at most */

static struct ex_rig *running;
static jmp_buf stopped;

/* An assertion of the core: the step does not return, its message is the violation. */
void wvm_core_panic(const char *what, const char *file, int line)
{
	if (!running)
		abort();
	ex_failed(running, "assertion of the core: %s, %s:%d", what, file, line);
	longjmp(stopped, 1);
}

void ex_failed(struct ex_rig *rig, const char *format, ...)
{
	va_list ap;

	if (rig->failure[0])
		return;
	va_start(ap, format);
	vsnprintf(rig->failure, sizeof(rig->failure), format, ap);
	va_end(ap);
}

/* ---- making it ------------------------------------------------------------------------- */

static int make_core(struct ex_rig *rig, uint32_t node)
{
	struct wvm_core_params p = {
		.members = &rig->list,
		.slices = &rig->slices,
		.self = node,
		.epoch = EX_EPOCH,
		.boot = 1,
		.seed = 1,
		/* One page: more of each is never used, and the core would say so. */
		.limits = {.requests = 1,
			   .txns = 1,
			   .waiting = EX_NODES_MAX,
			   .demands = 1,
			   .partials = 1,
			   .holder_blocks = 1,
			   .peer_shards = 1},
		.outbox = rig->outbox,
		.units = rig->config.units,
		.merge = rig->config.merge,
	};
	struct wvm_core_vm vm = {.id = rig->vm_id, .pages = 1, .store = rig->store};

	wvm_core_default_times(&p.times);
	rig->memory[node] = aligned_alloc(64, (wvm_core_bytes(&p) + 63) & ~(size_t)63);
	if (!rig->memory[node])
		return -ENOMEM;
	rig->core[node] = wvm_core_init(rig->memory[node], &p);
	wvm_core_add_vm(rig->core[node], &vm);
	wvm_core_serve(rig->core[node], true);
	return 0;
}

int ex_rig_init(struct ex_rig *rig, const struct explore_config *c)
{
	struct wvm_slices_scratch *scratch = malloc(sizeof(*scratch));
	int err = scratch ? 0 : -ENOMEM;

	memset(rig, 0, sizeof(*rig));
	rig->config = *c;
	for (uint32_t i = 0; i < c->nodes; i++)
		rig->members[i] = (struct wvm_member){.first_vnode = i, .vnodes = 1};
	rig->list = (struct wvm_members){rig->members, c->nodes};
	if (!err)
		wvm_slices_build(&rig->slices, &rig->list, scratch);
	free(scratch);
	/* A VM whose first page node 0 is home of. */
	while (!err && rig->slices.home_vnode[wvm_slice_of(rig->vm_id, 0)] != EX_HOME)
		rig->vm_id++;
	for (uint32_t i = 0; i < c->nodes && !err; i++)
		err = make_core(rig, i);
	for (uint8_t v = 0; v < 3; v++)
		rig->page[v][0] = v;
	return err;
}

void ex_rig_done(struct ex_rig *rig)
{
	for (uint32_t i = 0; i < EX_NODES_MAX; i++)
		free(rig->memory[i]);
}

void ex_first(const struct ex_rig *rig, struct ex_world *w)
{
	memset(w, 0, sizeof(*w));
	w->accesses = (uint8_t)rig->config.accesses;
	w->losses = (uint8_t)rig->config.losses;
	w->duplicates = (uint8_t)rig->config.duplicates;
	w->retries = (uint8_t)rig->config.retries;
	w->deadlines = (uint8_t)rig->config.deadlines;
	w->evictions = (uint8_t)rig->config.evictions;
}

/* ---- what may happen next -------------------------------------------------------------- */

static struct ex_event *put(struct ex_event *list, uint32_t *n, enum ex_kind kind, uint32_t node,
			    uint32_t index)
{
	WVM_ASSERT(*n < EX_EVENTS);
	list[*n] = (struct ex_event){
		.kind = (uint8_t)kind, .node = (uint8_t)node, .index = (uint8_t)index};
	return &list[(*n)++];
}

/*
 * Once in time and once late, where that can make a difference: where a demand
 * may meet a copy or a grant that another demand waits for. The home's demands
 * on its own node arrive in the step that makes them, whatever that is. A copy
 * that comes in the step itself has its hold time before it.
 */
static void put_both(const struct ex_world *w, struct ex_event *list, uint32_t *n,
		     enum ex_kind kind, uint32_t node, uint32_t index, bool demand)
{
	const struct ex_node *at = &w->node[node];

	put(list, n, kind, node, index);
	if ((demand || node == EX_HOME) &&
	    (ex_held(at).state != WVM_HELD_INVALID || (at->held.request && at->request.early.type)))
		put(list, n, kind, node, index)->late = true;
}

static bool is_demand(const struct wvm_msg *m)
{
	return m->type == WVM_MSG_INVALIDATE || m->type == WVM_MSG_DOWNGRADE ||
	       m->type == WVM_MSG_FETCH_AND_INVALIDATE;
}

static bool same_message(const struct ex_msg *a, const struct ex_msg *b)
{
	return a->value == b->value && a->paged == b->paged && a->msg.type == b->msg.type &&
	       a->msg.flags == b->msg.flags && a->msg.src == b->msg.src &&
	       a->msg.dst == b->msg.dst && a->msg.request == b->msg.request &&
	       a->msg.version == b->msg.version && a->msg.grant == b->msg.grant;
}

static void message_events(const struct ex_world *w, struct ex_event *list, uint32_t *n)
{
	for (uint32_t i = 0; i < w->messages; i++) {
		const struct wvm_msg *m = &w->msg[i].msg;

		/* Sorted when unpacked: of equal ones one is enough. */
		if (i && same_message(&w->msg[i], &w->msg[i - 1]))
			continue;
		put_both(w, list, n, EX_DELIVER, m->dst, i, is_demand(m));
		if (w->duplicates)
			put_both(w, list, n, EX_COPY, m->dst, i, is_demand(m));
		if (w->losses)
			put(list, n, EX_LOSE, m->src, i);
	}
}

/*
 * A thread that was woken is idle: whether it goes on at once is the choice
 * between its events. It may then find the page gone and fault again.
 */
static void access_events(const struct ex_rig *rig, const struct ex_world *w, struct ex_event *list,
			  uint32_t *n)
{
	uint32_t waiting = 0, begun;

	for (uint32_t i = 0; i < rig->config.nodes; i++)
		for (uint32_t c = 0; c < rig->config.programs; c++)
			waiting += w->node[i].thread[c] != EX_IDLE;
	if (waiting >= rig->config.outstanding || w->messages >= rig->config.under_way ||
	    (rig->config.accesses && !w->accesses))
		return;
	for (uint32_t i = 0; i < rig->config.nodes; i++)
		for (uint32_t c = 0; c < rig->config.programs; c++) {
			const struct ex_node *node = &w->node[i];

			if (node->thread[c] != EX_IDLE)
				continue;
			/* A load that hits changes nothing; ex_check() compares what it returns. */
			if (!node->present)
				put_both(w, list, n, EX_ACCESS, i, c, false);
			begun = *n;
			put_both(w, list, n, EX_ACCESS, i, c, false);
			for (; begun < *n; begun++)
				list[begun].write = true;
		}
}

static void timer_events(const struct ex_rig *rig, const struct ex_world *w, struct ex_event *list,
			 uint32_t *n)
{
	bool retry = !w->messages || w->retries;

	for (uint32_t i = 0; i < rig->config.nodes; i++) {
		const struct ex_node *node = &w->node[i];
		const struct wvm_request *r = node->held.request ? &node->request : NULL;
		const struct wvm_demand *d = node->held.demand ? &node->demand : NULL;

		if (r && r->timer.place && r->state == WVM_REQUEST_SENT && retry)
			put_both(w, list, n, EX_TIMER, i, WVM_TIMER_REQUEST, false);
		if (r && r->timer.place && w->deadlines)
			put_both(w, list, n, EX_DEADLINE, i, WVM_TIMER_REQUEST, false);
		if (d && d->timer.place && (d->state == WVM_DEMAND_HELD || retry))
			put(list, n, EX_TIMER, i, WVM_TIMER_DEMAND)->late = true;
		if (node->unit.merge && (!node->unit.merging || retry))
			put(list, n, EX_TIMER, i, WVM_TIMER_MERGE);
		/* Late: it has been refused too often. */
		if (node->unit.merge && !node->unit.merging)
			put(list, n, EX_TIMER, i, WVM_TIMER_MERGE)->late = true;
	}
	if (!w->home.txn || !w->txn.timer.place)
		return;
	if (retry)
		put_both(w, list, n, EX_TIMER, EX_HOME, WVM_TIMER_TXN, false);
	if (w->deadlines)
		put_both(w, list, n, EX_DEADLINE, EX_HOME, WVM_TIMER_TXN, false);
}

/* Only of what could go: the others are refused and change nothing. */
static void evict_events(const struct ex_rig *rig, const struct ex_world *w, struct ex_event *list,
			 uint32_t *n)
{
	for (uint32_t i = 0; w->evictions && i < rig->config.nodes; i++) {
		const struct wvm_held_page held = ex_held(&w->node[i]), *h = &held;

		if (h->state != WVM_HELD_INVALID && !h->request && !h->demand)
			put(list, n, EX_EVICT, i, 0)->late = true;
	}
}

uint32_t ex_events(const struct ex_rig *rig, const struct ex_world *w, struct ex_event *list)
{
	uint32_t n = 0;

	message_events(w, list, &n);
	timer_events(rig, w, list, &n);
	access_events(rig, w, list, &n);
	evict_events(rig, w, list, &n);
	return n;
}

/* ---- a core and the state -------------------------------------------------------------- */

/*
 * Left out, and the same in every state: round-trip estimates, jitter, tries
 * and refusals, hold times and when they began (all of them only say when a
 * timer strikes), the windows of seen ids and of requests under way (never
 * full here), statistics. explore_compare() tests that this changes nothing.
 */
static void restore(struct ex_rig *rig, const struct ex_world *w, uint32_t n)
{
	struct wvm_core *core = rig->core[n];
	const struct ex_node *node = &w->node[n];
	struct wvm_peer *peer = &core->peers[EX_HOME];

	core->counter = node->counter;
	core->timers.count = 0;
	core->action_head = core->action_tail = 0;
	for (uint32_t i = 0; i < rig->config.nodes; i++)
		core->seen[i].boot = 0;
	wvm_peer_init(peer);
	core->requests[0] = node->request;
	core->free_request = !node->held.request;
	core->requests[0].in_window = false;
	core->demands[0] = node->demand;
	core->free_demand = core->demands_free = !node->held.demand;
	core->demands_parked = 0; /* no pins here */
	peer->demands = node->held.demand != 0;
	core->merges[0] = node->merge;
	core->merges[0].used = node->unit.merge != 0;
	core->durable->undos = 0;
	core->requests[0].next = core->demands[0].next = 0;
	if (n != EX_HOME)
		return;
	core->txns[0] = w->txn;
	core->free_txn = !w->home.txn;
	for (uint32_t i = 0; i < EX_NODES_MAX; i++) {
		core->waiting[i] = w->waiting[i];
		core->waiting[i].next = i + 1 == w->waiting_count || i + 1 == EX_NODES_MAX ? 0
											   : i + 2;
	}
	core->free_waiting = w->waiting_count < EX_NODES_MAX ? w->waiting_count + 1u : 0;
	core->txns[0].next = 0;
	core->txns[0].queue_head = w->waiting_count ? 1 : 0;
	core->txns[0].queue_tail = w->waiting_count;
}

static void take_back(struct ex_rig *rig, struct ex_world *w, uint32_t n)
{
	struct wvm_core *core = rig->core[n];
	struct ex_node *node = &w->node[n];
	uint32_t slot;

	node->counter = core->counter;
	if (node->held.request)
		node->request = core->requests[0];
	if (node->held.demand)
		node->demand = core->demands[0];
	if (node->unit.merge)
		node->merge = core->merges[0];
	if (n != EX_HOME)
		return;
	w->waiting_count = 0;
	if (!w->home.txn)
		return;
	w->txn = core->txns[0];
	for (slot = w->txn.queue_head; slot; slot = core->waiting[slot - 1].next)
		w->waiting[w->waiting_count++] = core->waiting[slot - 1];
	if (w->txn.cursor || w->txn.state == WVM_TXN_DRAIN)
		ex_failed(rig, "a transaction does in parts what one step has room for");
}

/* The chosen timer is due, no other is; and what e says of the times that the core looks at. */
static void set_times(struct ex_rig *rig, struct ex_world *w, const struct ex_event *e)
{
	struct wvm_core *core = rig->core[e->node];
	struct ex_node *node = &w->node[e->node];
	bool fires = e->kind == EX_TIMER || e->kind == EX_DEADLINE;
	struct wvm_core_timer *timers[] = {
		[WVM_TIMER_REQUEST] = node->held.request ? &core->requests[0].timer : NULL,
		[WVM_TIMER_DEMAND] = node->held.demand ? &core->demands[0].timer : NULL,
		[WVM_TIMER_MERGE] = node->unit.merge ? &core->merges[0].timer : NULL,
		[WVM_TIMER_TXN] = e->node == EX_HOME && w->home.txn ? &core->txns[0].timer : NULL,
	};

	for (uint8_t k = 0; k <= WVM_TIMER_MERGE; k++) {
		if (!timers[k] || !timers[k]->place)
			continue;
		if (!rig->live)
			timers[k]->place = 0;
		wvm_core_timer_arm(&core->timers, timers[k], fires && k == e->index ? NOW : FAR);
	}
	node->held.hold_until_ns = e->late ? NOW : NOW + 1;
	node->held.lost_ns = 0;
	node->unit.hold_until_ns = node->held.hold_until_ns;
	core->requests[0].early_until_ns = e->late ? NOW : NOW + 1;
	core->merges[0].attempts = e->late ? UINT8_MAX : 0;
	core->requests[0].started_ns = core->txns[0].started_ns = NOW;
	if (e->kind == EX_DEADLINE && e->index == WVM_TIMER_REQUEST)
		core->requests[0].started_ns = NOW - core->params.times.deadline_ns;
	if (e->kind == EX_DEADLINE && e->index == WVM_TIMER_TXN)
		core->txns[0].started_ns = NOW - core->params.times.deadline_ns;
	core->vms[0].held = &node->held;
	core->vms[0].held_units = &node->unit;
	core->vms[0].home = e->node == EX_HOME ? &w->home : &rig->no_home;
	core->vms[0].units = e->node == EX_HOME ? &w->unit : &rig->no_unit;
	if (e->node == EX_HOME)
		rig->store[0] = w->store;
}

/* ---- actions --------------------------------------------------------------------------- */

static void wake(struct ex_node *node, uint64_t clients)
{
	for (uint32_t c = 0; c < EX_PROGRAMS_MAX; c++)
		if (clients >> c & 1)
			node->thread[c] = EX_IDLE;
}

static void lift(struct ex_node *node, uint64_t clients)
{
	for (uint32_t c = 0; c < EX_PROGRAMS_MAX; c++)
		if (clients >> c & 1)
			node->stores[c] = true;
}

static void post(struct ex_rig *rig, struct ex_world *w, const struct ex_msg *m)
{
	if (w->messages == EX_MESSAGES) {
		ex_failed(rig, "more than %u messages are under way", EX_MESSAGES);
		return;
	}
	w->msg[w->messages++] = *m;
}

/* Nothing in the RAM file is zeros, where the core says that it may be so. */
static uint8_t in_ram(struct ex_rig *rig, uint32_t n, const struct ex_node *node,
		      const struct wvm_action *a)
{
	if (node->present)
		return node->ram;
	if (!a->hole)
		ex_failed(rig, "node %u: an absent page read", n);
	return EX_ZERO;
}

static void send(struct ex_rig *rig, struct ex_world *w, uint32_t n, const struct wvm_action *a)
{
	const struct ex_node *node = &w->node[n];
	struct ex_msg m = {.msg = a->msg};

	m.paged = a->source != WVM_DATA_NONE;
	if (a->source == WVM_DATA_STORE)
		m.value = rig->store[0];
	else if (a->source == WVM_DATA_RAM)
		m.value = in_ram(rig, n, node, a);
	else if (a->source == WVM_DATA_OUTBOX)
		m.value = node->outbox;
	if (m.paged && m.value == EX_ZERO) {
		m.msg.flags |= WVM_MSG_ZERO;
		m.paged = false;
	}
	if (m.paged)
		m.msg.payload_len = m.msg.seg_total = WVM_PAGE_BYTES;
	/* A node's messages to itself go in at once, as in the master and the simulator. */
	if (a->member == n)
		wvm_core_message(rig->core[n], NOW, &m.msg, m.paged ? rig->page[m.value] : NULL);
	else
		post(rig, w, &m);
}

static void install(struct ex_rig *rig, struct ex_world *w, uint32_t n, const struct wvm_action *a)
{
	struct ex_node *node = &w->node[n];

	if (node->present)
		ex_failed(rig, "node %u: installed over a page that is there", n);
	memset(node->stores, 0, sizeof(node->stores));
	node->present = true;
	node->ram = a->data ? a->data[0] : EX_ZERO;
	if (a->writable)
		lift(node, a->waiters);
	wake(node, a->waiters);
}

static void carry_out(struct ex_rig *rig, struct ex_world *w, uint32_t n,
		      const struct wvm_action *a, bool deadline)
{
	struct ex_node *node = &w->node[n];

	switch ((enum wvm_action_kind)a->kind) {
	case WVM_ACT_SEND: send(rig, w, n, a); return;
	case WVM_ACT_INSTALL: install(rig, w, n, a); return;
	case WVM_ACT_LIFT:
		if (!node->present && !node->held.hole)
			ex_failed(rig, "node %u: protection lifted from an absent page", n);
		lift(node, a->waiters);
		wake(node, a->waiters);
		return;
	case WVM_ACT_WAKE: wake(node, a->waiters); return;
	case WVM_ACT_PROTECT: memset(node->stores, 0, sizeof(node->stores)); return;
	case WVM_ACT_SAVE: node->outbox = in_ram(rig, n, node, a); return;
	case WVM_ACT_PUNCH:
		if (!node->present && !node->held.hole)
			ex_failed(rig, "node %u: an absent page removed", n);
		node->present = false;
		return;
	case WVM_ACT_FAIL:
		if (!deadline)
			ex_failed(rig, "node %u: an access failed, reason %u", n, a->reason);
		wake(node, a->waiters);
		return;
	case WVM_ACT_FILL:
	case WVM_ACT_SETTLE:
		if (!node->present)
			node->ram = EX_ZERO;
		node->present = true;
		if (a->kind == WVM_ACT_FILL)
			lift(node, a->waiters);
		wake(node, a->waiters);
		return;
	case WVM_ACT_FORGET:
		if (a->home)
			w->home = (struct wvm_home_page){0};
		else
			node->held = (struct wvm_held_page){0};
		return;
	case WVM_ACT_PINNED: ex_failed(rig, "node %u: pinned, and nobody asked", n); return;
	}
}

/* ---- steps ----------------------------------------------------------------------------- */

static void overwrite(uint8_t *value)
{
	if (*value == EX_CURRENT)
		*value = EX_STALE;
}

/* The store of a program to which it does not trap: from now on nothing else is current. */
static void store(struct ex_world *w, struct ex_node *node)
{
	for (uint32_t i = 0; i < EX_NODES_MAX; i++) {
		overwrite(&w->node[i].ram);
		overwrite(&w->node[i].outbox);
	}
	for (uint32_t i = 0; i < w->messages; i++)
		overwrite(&w->msg[i].value);
	overwrite(&w->store);
	node->ram = EX_CURRENT;
	w->truth = EX_CURRENT;
}

static void access(struct ex_rig *rig, struct ex_world *w, const struct ex_event *e)
{
	struct ex_node *node = &w->node[e->node];

	if (node->present && (!e->write || node->stores[e->index])) {
		if (e->write)
			store(w, node);
		return;
	}
	if (rig->config.accesses)
		w->accesses--;
	node->thread[e->index] = e->write ? EX_WRITES : EX_READS;
	if (!wvm_core_fault(rig->core[e->node], NOW, 0, 0, e->write, e->index))
		ex_failed(rig, "node %u: no room for its only request", e->node);
}

/* Not what only waits for its time. */
static bool is_retry(const struct ex_node *node, uint8_t timer)
{
	if (timer == WVM_TIMER_DEMAND)
		return node->demand.state != WVM_DEMAND_HELD;
	return timer != WVM_TIMER_MERGE || node->unit.merging;
}

static void input(struct ex_rig *rig, struct ex_world *w, const struct ex_event *e)
{
	struct ex_msg m;

	switch ((enum ex_kind)e->kind) {
	case EX_ACCESS: access(rig, w, e); return;
	case EX_DELIVER:
	case EX_COPY:
		m = w->msg[e->index];
		if (e->kind == EX_COPY)
			w->duplicates--;
		else
			w->msg[e->index] = w->msg[--w->messages];
		wvm_core_message(rig->core[e->node], NOW, &m.msg,
				 m.paged ? rig->page[m.value] : NULL);
		return;
	case EX_LOSE:
		w->losses--;
		w->msg[e->index] = w->msg[--w->messages];
		return;
	case EX_EVICT:
		w->evictions--;
		if (wvm_core_evict(rig->core[e->node], NOW, 0, 0) != WVM_EVICT_DONE)
			ex_failed(rig, "node %u: a page that nobody wants does not go", e->node);
		return;
	case EX_DEADLINE: w->deadlines--; break;
	case EX_TIMER:
		if (w->messages && is_retry(&w->node[e->node], e->index))
			w->retries--;
		break;
	}
	wvm_core_tick(rig->core[e->node], NOW);
}

static void make_step(struct ex_rig *rig, struct ex_world *w, const struct ex_event *e)
{
	struct wvm_core *core = rig->core[e->node];
	const struct wvm_action *a;
	uint32_t actions = 0;

	if (!rig->live)
		restore(rig, w, e->node);
	set_times(rig, w, e);
	input(rig, w, e);
	while ((a = wvm_core_action(core)) && actions++ < ACTIONS)
		carry_out(rig, w, e->node, a, e->kind == EX_DEADLINE);
	if (a)
		ex_failed(rig, "node %u: its messages to itself have no end", e->node);
	if (e->node == EX_HOME)
		w->store = rig->store[0];
	take_back(rig, w, e->node);
}

bool ex_step(struct ex_rig *rig, struct ex_world *w, const struct ex_event *e)
{
	struct wvm_core *core = rig->core[e->node];

	rig->failure[0] = 0;
	running = rig;
	if (!setjmp(stopped))
		make_step(rig, w, e);
	running = NULL;
	core->action_head = core->action_tail;
	return !rig->failure[0];
}

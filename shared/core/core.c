#include "shared/core/core_int.h"
#include "shared/core/wander.h"

/* shared/PROTOCOL.md, Times, gives the reason for each. */
#define MS UINT64_C(1000000)

void wvm_core_default_times(struct wvm_core_times *times)
{
	*times = (struct wvm_core_times){
		.deadline_ns = 5000 * MS,
		.deadline_lost_ns = 12000 * MS,
		.hold_min_ns = MS / 10,
		.hold_max_ns = 10 * MS,
		.refault_ns = MS,
		.rto_min_ns = 6 * MS,
		.rto_initial_ns = 20 * MS,
		.rto_base_max_ns = 50 * MS,
		.rto_max_ns = 500 * MS,
	};
}

void wvm_core_default_limits(struct wvm_core_limits *limits)
{
	*limits = (struct wvm_core_limits){
		.requests = 1024,
		.txns = 1024,
		.waiting = 4096,
		.demands = 512,
		.partials = 256,
		.holder_blocks = 16384,
		.peer_shards = 16,
	};
}

/* Hands out parts of one block of memory; with base NULL it only measures. */
struct carver {
	uint8_t *base;
	size_t used;
};

static void *carve(struct carver *c, size_t size, size_t count)
{
	void *part = c->base ? c->base + c->used : NULL;

	c->used += (size * count + 63) & ~(size_t)63;
	return part;
}

static bool limits_valid(const struct wvm_core_params *p)
{
	const struct wvm_core_limits *l = &p->limits;
	const uint32_t most = 1u << 20;

	return l->requests && l->requests <= most && l->txns && l->txns <= most && l->waiting &&
	       l->waiting <= most && l->demands && l->demands <= most && l->partials &&
	       l->partials <= most && !(l->partials & (l->partials - 1)) && l->holder_blocks &&
	       l->holder_blocks <= 1u << 28 && l->peer_shards && l->peer_shards <= 256 &&
	       p->members->count && p->self < p->members->count && p->boot &&
	       p->boot_first <= p->boot && p->times.hold_min_ns &&
	       p->read_ahead <= WVM_AHEAD_MOST && p->wander <= WVM_WANDER_MOST;
}

static void lay_out_durable(struct carver *c, const struct wvm_core_params *p, struct wvm_core *to)
{
	to->durable = carve(c, sizeof(*to->durable), 1);
	to->taken = carve(c, sizeof(*to->taken), p->members->count);
	to->kept = carve(c, sizeof(*to->kept), p->limits.demands);
	to->blocks = carve(c, sizeof(*to->blocks), p->limits.holder_blocks);
	to->seconds = p->backup ? carve(c, sizeof(*to->seconds), 1) : NULL;
	to->renewed = carve(c, sizeof(*to->renewed), p->members->count);
}

static struct wvm_core *lay_out(struct carver *c, const struct wvm_core_params *p)
{
	const struct wvm_core_limits *l = &p->limits;
	struct wvm_core *core = carve(c, sizeof(*core), 1);
	struct wvm_core scratch, *to = core ? core : &scratch;
	uint32_t slots = l->requests + l->txns + l->demands + WVM_MERGES + WVM_PULLS + WVM_TELLS +
			 3 + (p->backup ? WVM_COPIES + 1 : 0);
	struct wvm_partial *partials;
	uint32_t *buckets;
	uint8_t *pages;

	if (core)
		__builtin_memset(core, 0, sizeof(*core));
	to->peers = carve(c, sizeof(*to->peers), p->members->count);
	to->seen = carve(c, sizeof(*to->seen), (size_t)p->members->count * l->peer_shards);
	to->requests = carve(c, sizeof(*to->requests), l->requests);
	to->demands = carve(c, sizeof(*to->demands), l->demands);
	to->txns = carve(c, sizeof(*to->txns), l->txns);
	to->waiting = carve(c, sizeof(*to->waiting), l->waiting);
	to->block_used = carve(c, sizeof(*to->block_used), (l->holder_blocks + 63) / 64);
	if (p->durable)
		lay_out_durable(&(struct carver){p->durable, 0}, p, to);
	else
		lay_out_durable(c, p, to);
	to->backup = p->backup ? carve(c, sizeof(*to->backup), 1) : NULL;
	to->actions = carve(c, sizeof(*to->actions), WVM_ACTIONS);
	to->timers.heap = carve(c, sizeof(*to->timers.heap), slots);
	partials = carve(c, sizeof(*partials), l->partials);
	buckets = carve(c, sizeof(*buckets), l->partials);
	pages = carve(c, WVM_PAGE_BYTES, l->partials);
	if (!core)
		return NULL;
	core->timers.capacity = slots;
	wvm_partials_init(&core->partials, partials, pages, buckets, l->partials);
	return core;
}

size_t wvm_core_bytes(const struct wvm_core_params *params)
{
	struct carver c = {NULL, 0};

	if (!limits_valid(params))
		return 0;
	lay_out(&c, params);
	return c.used;
}

size_t wvm_core_durable_bytes(const struct wvm_core_params *params)
{
	struct carver c = {NULL, 0};
	struct wvm_core scratch;

	if (!limits_valid(params))
		return 0;
	lay_out_durable(&c, params, &scratch);
	return c.used;
}

/* Threads a pool's slots into its free list. */
#define FREE_LIST(core, pool, head, n)                                     \
	do {                                                               \
		for (uint32_t i_ = 0; i_ < (n); i_++)                      \
			(core)->pool[i_].next = i_ + 1 < (n) ? i_ + 2 : 0; \
		(core)->head = 1;                                          \
	} while (0)

struct wvm_core *wvm_core_init(void *memory, const struct wvm_core_params *params)
{
	const struct wvm_core_limits *l = &params->limits;
	struct carver c = {memory, 0};
	struct wvm_core *core;

	WVM_ASSERT(limits_valid(params));
	core = lay_out(&c, params);
	core->params = *params;
	core->adopting = params->adopt;
	core->fill_most = WVM_UNIT_PAGES;
	if (!params->boot_first)
		core->params.boot_first = params->boot;
	core->random = params->seed ? params->seed : UINT64_C(0x9e3779b97f4a7c15);
	for (uint32_t i = 0; i < params->members->count; i++)
		wvm_peer_init(&core->peers[i]);
	wvm_rebuild_lost(core);
	__builtin_memset(core->seen, 0,
			 sizeof(*core->seen) * params->members->count * l->peer_shards);
	if (!params->adopt) {
		core->durable->undos = 0;
		__builtin_memset(core->taken, 0, sizeof(*core->taken) * params->members->count);
		__builtin_memset(core->kept, 0, sizeof(*core->kept) * l->demands);
	}
	__builtin_memset(core->requests, 0, sizeof(*core->requests) * l->requests);
	__builtin_memset(core->demands, 0, sizeof(*core->demands) * l->demands);
	__builtin_memset(core->txns, 0, sizeof(*core->txns) * l->txns);
	FREE_LIST(core, requests, free_request, l->requests);
	core->requests_free = l->requests;
	FREE_LIST(core, demands, free_demand, l->demands);
	core->demands_free = l->demands;
	FREE_LIST(core, txns, free_txn, l->txns);
	FREE_LIST(core, waiting, free_waiting, l->waiting);
	if (!params->adopt)
		FREE_LIST(core, blocks, free_block, l->holder_blocks);
	wvm_renewed_init(core);
	wvm_backup_init(core);
	return core;
}

static uint32_t find_vm(const struct wvm_core *core, uint16_t id)
{
	for (uint32_t i = 0; i < core->vm_count; i++)
		if (core->vms[i].id == id)
			return i;
	return WVM_NIL;
}

uint32_t wvm_core_add_vm(struct wvm_core *core, const struct wvm_core_vm *vm)
{
	if (core->vm_count == WVM_CORE_VMS_MAX || find_vm(core, vm->id) != WVM_NIL)
		return WVM_NIL;
	core->vms[core->vm_count] = *vm;
	if (!core->adopting) {
		wvm_handover_without_files(core, core->vm_count);
		wvm_handover_add_vm(core, core->vm_count);
	}
	core->vm_count++;
	if (core->serving)
		wvm_handover_begin(core);
	wvm_backup_add_vm(core);
	return core->vm_count - 1;
}

const struct wvm_core_vm *wvm_core_vm_at(const struct wvm_core *core, uint32_t vm)
{
	WVM_ASSERT(vm < core->vm_count);
	return &core->vms[vm];
}

void wvm_core_serve(struct wvm_core *core, bool serving)
{
	core->serving = serving;
	if (serving)
		wvm_handover_begin(core);
	wvm_backup_look(core);
}

const struct wvm_core_stats *wvm_core_stats(const struct wvm_core *core)
{
	return &core->stats;
}

uint32_t wvm_core_requests(const struct wvm_core *core)
{
	return core->params.limits.requests - core->requests_free;
}

const struct wvm_layout_range *wvm_core_placed(const struct wvm_core *core, uint32_t vm,
					       uint64_t page)
{
	const struct wvm_layout *layout = core->params.layout;

	return layout ? wvm_layout_find(layout, core->vms[vm].id, page << WVM_PAGE_SHIFT) : NULL;
}

uint32_t wvm_core_home_of(const struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t *vnode)
{
	const struct wvm_layout_range *range = wvm_core_placed(core, vm, page);
	uint64_t gpa = page << WVM_PAGE_SHIFT;
	uint16_t id = core->vms[vm].id;
	uint32_t home;

	if (range)
		home = wvm_layout_vnode(range, core->params.members, id, gpa);
	else
		home = core->params.slices->home_vnode[wvm_slice_of(id, gpa)];
	if (vnode)
		*vnode = home;
	return range ? range->member : wvm_member_of(core->params.members, home);
}

uint64_t wvm_core_taken(const struct wvm_core *core, uint32_t home)
{
	return __atomic_load_n(&core->taken[home], __ATOMIC_RELAXED);
}

uint64_t wvm_core_next_id(struct wvm_core *core)
{
	return wvm_request_id(core->params.boot, core->params.shard, ++core->counter);
}

/* Old enough that the responder's window might pass it by soon. */
bool wvm_core_id_old(const struct wvm_core *core, uint64_t id)
{
	return core->counter - wvm_request_counter(id) > WVM_SEEN_BITS / 2;
}

/* ns, give or take 30 %, so that retries of many do not meet again. */
uint64_t wvm_core_jitter(struct wvm_core *core, uint64_t ns)
{
	uint64_t x = core->random; /* xorshift64*, Marsaglia and Vigna */

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	core->random = x;
	x *= UINT64_C(0x2545f4914f6cdd1d);
	return ns - ns * 3 / 10 + ns * 6 / 10 * (x >> 44) / (1u << 20);
}

/* The time until the next retry towards member after `tries` of them. */
uint64_t wvm_core_backoff(struct wvm_core *core, uint32_t member, unsigned int tries)
{
	const struct wvm_core_times *t = &core->params.times;
	uint64_t rto = wvm_peer_rto(&core->peers[member], t->rto_min_ns, t->rto_initial_ns,
				    t->rto_base_max_ns);

	while (tries-- && rto < t->rto_max_ns)
		rto *= 2;
	return wvm_core_jitter(core, rto < t->rto_max_ns ? rto : t->rto_max_ns);
}

struct wvm_action *wvm_core_emit(struct wvm_core *core, enum wvm_action_kind kind, uint32_t vm,
				 uint64_t page)
{
	struct wvm_action *a = &core->actions[core->action_tail % WVM_ACTIONS];

	WVM_ASSERT(core->action_tail - core->action_head < WVM_ACTIONS);
	core->action_tail++;
	a->kind = kind;
	a->source = WVM_DATA_NONE;
	a->writable = 0;
	a->hole = false;
	a->home = false;
	a->slot = 0;
	a->count = 1;
	a->below = 0;
	a->vm = vm;
	a->page = page;
	a->waiters = 0;
	a->data = NULL;
	return a;
}

struct wvm_action *wvm_core_send(struct wvm_core *core, uint8_t type, uint32_t vm, uint64_t page,
				 uint32_t member, uint32_t vnode)
{
	struct wvm_action *a = wvm_core_emit(core, WVM_ACT_SEND, vm, page);

	a->member = member;
	a->msg = (struct wvm_msg){
		.type = type,
		.node_state = WVM_NODE_ACTIVE,
		.hops = WVM_HOPS_MAX,
		.vm_id = core->vms[vm].id,
		.epoch = core->params.epoch,
		.src = core->params.members->list[core->params.self].first_vnode,
		.dst = vnode,
		.gpa = page << WVM_PAGE_SHIFT,
	};
	return a;
}

const struct wvm_action *wvm_core_action(struct wvm_core *core)
{
	const struct wvm_action *a;

	do {
		/* Without an action, too: its user goes by what it can see (wvm_core_handover()).
		 */
		wvm_undo_commit(core);
		if (core->action_head == core->action_tail)
			return NULL;
		a = &core->actions[core->action_head++ % WVM_ACTIONS];
	} while (a->kind == WVM_ACT_FORGET && !wvm_merge_forgotten(core, a));
	/* All before it are done: removing an older copy of the page, saving its bytes. */
	if (a->kind == WVM_ACT_INSTALL) {
		wvm_held_of(core, a->vm, a->page)->coming = 0;
		wvm_held_of(core, a->vm, a->page)->hole = 0;
	} else if (a->kind == WVM_ACT_PUNCH) {
		wvm_holder_saved(core, a->vm, a->page);
	}
	return a;
}

uint64_t wvm_core_deadline(const struct wvm_core *core)
{
	return wvm_core_timer_next(&core->timers);
}

void wvm_core_pushed_back(struct wvm_core *core, uint64_t now_ns, uint32_t member)
{
	WVM_ASSERT(member < core->params.members->count && member != core->params.self);
	wvm_peer_timed_out(&core->peers[member], now_ns);
}

void wvm_core_tick(struct wvm_core *core, uint64_t now_ns)
{
	struct wvm_core_timer *t;

	WVM_ASSERT(core->action_head == core->action_tail);
	core->now_ns = now_ns;
	wvm_undo_commit(core);
	t = wvm_core_timer_expired(&core->timers, now_ns);
	if (!t)
		return;
	/* The timer is the first member of each slot type. */
	switch ((enum wvm_core_timer_kind)t->kind) {
	case WVM_TIMER_REQUEST: wvm_request_timer(core, (struct wvm_request *)t); break;
	case WVM_TIMER_DEMAND: wvm_holder_timer(core, (struct wvm_demand *)t); break;
	case WVM_TIMER_TXN: wvm_home_timer(core, (struct wvm_txn *)t); break;
	case WVM_TIMER_MERGE: wvm_merge_timer(core, (struct wvm_merge *)t); break;
	case WVM_TIMER_PULL: wvm_handover_timer(core, (struct wvm_pull *)t); break;
	case WVM_TIMER_WALK: wvm_handover_walk(core); break;
	case WVM_TIMER_COPY: wvm_backup_timer(core, (struct wvm_copy *)t); break;
	case WVM_TIMER_BACKUP: wvm_backup_walk(core); break;
	case WVM_TIMER_REBUILD: wvm_rebuild_timer(core); break;
	case WVM_TIMER_TELL: wvm_tell_walk(core); break;
	case WVM_TIMER_TELLS: wvm_tell_timer(core, (struct wvm_tell *)t); break;
	}
}

void wvm_core_client_gone(struct wvm_core *core, unsigned int client)
{
	uint64_t keep = ~(UINT64_C(1) << client);

	for (uint32_t i = 0; i < core->params.limits.requests; i++) {
		core->requests[i].waiters_read &= keep;
		core->requests[i].waiters_write &= keep;
	}
}

/* ---- messages -------------------------------------------------------------------------- */

/* Where a message's page and sender are, once checked. */
struct place {
	uint32_t member, vm;
	uint64_t page;
};

/* No more than so far ahead: whoever is behind hears of the rest when it has learnt these. */
static void hear_of_epoch(struct wvm_core *core, uint32_t epoch)
{
	uint32_t own = core->params.epoch;

	if (epoch > own && epoch - own > WVM_EPOCH_AHEAD)
		epoch = own + WVM_EPOCH_AHEAD;
	if (core->epoch_seen < epoch)
		core->epoch_seen = epoch;
}

static enum wvm_drop locate(struct wvm_core *core, const struct wvm_msg *msg, struct place *at)
{
	at->member = wvm_member_of(core->params.members, msg->src);
	if (at->member == WVM_SLICE_NIL ||
	    wvm_member_of(core->params.members, msg->dst) != core->params.self)
		return WVM_DROP_NODE;
	hear_of_epoch(core, msg->epoch);
	core->stats.epochs_ahead += msg->epoch > core->params.epoch;
	at->vm = find_vm(core, msg->vm_id);
	if (at->vm == WVM_NIL)
		return WVM_DROP_VM;
	at->page = msg->gpa >> WVM_PAGE_SHIFT;
	if (msg->gpa % WVM_PAGE_BYTES || at->page >= core->vms[at->vm].pages)
		return WVM_DROP_GPA;
	return WVM_DROP_NONE;
}

static enum wvm_drop wrong_home(struct wvm_core *core, const struct place *at,
				const struct wvm_msg *msg)
{
	struct wvm_action *a = wvm_core_send(core, WVM_MSG_WRONG_HOME, at->vm, at->page, at->member,
					     msg->src);

	a->msg.request = msg->request;
	a->msg.steer = msg->reply_steer;
	return WVM_DROP_NODE;
}

/* What a holder says to a home. */
static enum wvm_drop to_home(struct wvm_core *core, const struct place *at,
			     const struct wvm_msg *msg, const uint8_t *data)
{
	bool request = msg->type == WVM_MSG_MEM_READ || msg->type == WVM_MSG_MEM_ACQUIRE;
	enum wvm_drop drop;

	if (wvm_core_home_of(core, at->vm, at->page, NULL) != core->params.self)
		return request ? wrong_home(core, at, msg) : WVM_DROP_NODE;
	if (!core->serving)
		return WVM_DROP_ROOM;
	drop = wvm_rebuild_ready(core, at->vm, at->page, msg);
	if (drop)
		return drop;
	if (!wvm_handover_ready(core, at->vm, at->page, msg))
		return wvm_handover_want(core, at->vm, at->page, at->member, msg);
	if (!wvm_msg_asks_merge(msg))
		wvm_merge_renew(core, at->vm, at->page);
	switch (msg->type) {
	case WVM_MSG_MEM_READ:
	case WVM_MSG_MEM_ACQUIRE: return wvm_home_request(core, at->vm, at->page, at->member, msg);
	case WVM_MSG_INVALIDATE_ACK:
		return wvm_home_invalidated(core, at->vm, at->page, at->member, msg);
	case WVM_MSG_WRITE_BACK:
		return wvm_home_write_back(core, at->vm, at->page, at->member, msg, data);
	default: return wvm_home_refused(core, at->vm, at->page, at->member, msg);
	}
}

/* What a home says to a holder: only the page's home may. */
static enum wvm_drop to_holder(struct wvm_core *core, const struct place *at,
			       const struct wvm_msg *msg, const uint8_t *data)
{
	if (wvm_core_home_of(core, at->vm, at->page, NULL) != at->member)
		return WVM_DROP_NODE;
	if (core->adopting)
		return WVM_DROP_ROOM;
	switch (msg->type) {
	case WVM_MSG_MEM_ACK:
		return wvm_request_grant(core, at->vm, at->page, at->member, msg, data);
	case WVM_MSG_WRITE_BACK_ACK:
		return wvm_holder_acknowledged(core, at->vm, at->page, at->member, msg);
	default: return wvm_holder_demand(core, at->vm, at->page, at->member, msg);
	}
}

static bool wanted(struct wvm_core *core, const struct place *at, const struct wvm_msg *msg)
{
	uint32_t slot;

	if (msg->type == WVM_MSG_HANDOVER_PAGE)
		return wvm_handover_wants(core, msg);
	if (msg->type == WVM_MSG_BACKUP)
		return wvm_backup_wants(core, at->vm, at->page, msg);
	if (msg->type == WVM_MSG_WRITE_BACK)
		return wvm_core_homes(core, at->vm, at->page) &&
		       wvm_home_wants(core, at->vm, at->page, at->member, msg);
	slot = wvm_held_of(core, at->vm, at->page)->request;
	return slot && core->requests[slot - 1].id == msg->request;
}

/*
 * Segments become a page before anybody acts on them. Those of a page that
 * nobody waits for take no room; the last of them goes on alone, since a
 * write-back that was stored already must be acknowledged again.
 */
static bool assemble(struct wvm_core *core, const struct place *at, const struct wvm_msg *msg,
		     const uint8_t *payload, const uint8_t **data)
{
	if (!msg->payload_len || msg->payload_len == msg->seg_total ||
	    msg->type == WVM_MSG_HANDOVER || msg->type == WVM_MSG_HOLDING) {
		*data = msg->payload_len ? payload : NULL;
		return true;
	}
	*data = NULL;
	if (!wanted(core, at, msg))
		return msg->seg_offset + msg->payload_len == msg->seg_total;
	*data = wvm_partials_add(&core->partials, msg, payload);
	core->stats.partials_evicted = core->partials.evicted;
	return *data != NULL;
}

/* Of what is held of a home that died. Answers are for a holder, HOLDING, or a home, _DONE. */
static enum wvm_drop of_holdings(struct wvm_core *core, const struct place *at,
				 const struct wvm_msg *msg, const uint8_t *data)
{
	bool to_home = (msg->type == WVM_MSG_HOLDING) == !(msg->flags & WVM_MSG_ANSWER);

	if (to_home ? !core->serving : core->adopting)
		return WVM_DROP_ROOM;
	if (msg->type == WVM_MSG_HOLDING)
		return to_home ? wvm_rebuild_holding(core, at->vm, at->page, at->member, msg, data)
			       : wvm_tell_answer(core, at->vm, at->page, at->member, msg);
	return to_home ? wvm_rebuild_done(core, at->member, msg)
		       : wvm_tell_done(core, at->vm, at->page, at->member, msg);
}

/* Types whose request id is the sender's own, counted by its window. */
static bool windowed(uint8_t type)
{
	return type == WVM_MSG_MEM_READ || type == WVM_MSG_MEM_ACQUIRE ||
	       type == WVM_MSG_INVALIDATE || type == WVM_MSG_DOWNGRADE ||
	       type == WVM_MSG_FETCH_AND_INVALIDATE;
}

static enum wvm_drop dispatch(struct wvm_core *core, const struct place *at,
			      const struct wvm_msg *msg, const uint8_t *payload)
{
	const uint8_t *data;

	switch (msg->type) {
	case WVM_MSG_MEM_READ:
	case WVM_MSG_MEM_ACQUIRE:
	case WVM_MSG_INVALIDATE_ACK:
	case WVM_MSG_WRITE_BACK:
	case WVM_MSG_NOT_HELD:
	case WVM_MSG_LOST:
		if (!assemble(core, at, msg, payload, &data))
			return WVM_DROP_NONE;
		return to_home(core, at, msg, data);
	case WVM_MSG_MEM_ACK:
	case WVM_MSG_INVALIDATE:
	case WVM_MSG_DOWNGRADE:
	case WVM_MSG_FETCH_AND_INVALIDATE:
	case WVM_MSG_WRITE_BACK_ACK:
		if (!assemble(core, at, msg, payload, &data))
			return WVM_DROP_NONE;
		return to_holder(core, at, msg, data);
	case WVM_MSG_HANDOVER:
	case WVM_MSG_HANDOVER_PAGE:
	case WVM_MSG_HANDOVER_DONE:
		if (!assemble(core, at, msg, payload, &data))
			return WVM_DROP_NONE;
		if (!core->serving)
			return WVM_DROP_ROOM;
		return wvm_handover_message(core, at->vm, at->page, at->member, msg, data);
	case WVM_MSG_BACKUP:
	case WVM_MSG_BACKUP_DONE:
		if (!assemble(core, at, msg, payload, &data))
			return WVM_DROP_NONE;
		if (!core->params.backup || !core->serving)
			return core->params.backup ? WVM_DROP_ROOM : WVM_DROP_NODE;
		return wvm_backup_message(core, at->vm, at->page, at->member, msg, data);
	case WVM_MSG_HOLDING:
	case WVM_MSG_HOLDING_DONE:
		if (!assemble(core, at, msg, payload, &data))
			return WVM_DROP_NONE;
		return of_holdings(core, at, msg, data);
	case WVM_MSG_WRONG_HOME: return WVM_DROP_EPOCH;
	default: return WVM_DROP_TYPE;
	}
}

static enum wvm_drop receive(struct wvm_core *core, const struct wvm_msg *msg,
			     const uint8_t *payload)
{
	struct wvm_seen *seen = NULL;
	enum wvm_drop drop;
	struct place at;

	drop = locate(core, msg, &at);
	if (drop)
		return msg->epoch == core->params.epoch ? drop : WVM_DROP_EPOCH;
	if (msg->epoch != core->params.epoch) {
		if (msg->epoch < core->params.epoch && at.member != core->params.self &&
		    (msg->type == WVM_MSG_MEM_READ || msg->type == WVM_MSG_MEM_ACQUIRE))
			(void)wrong_home(core, &at, msg); /* so that it learns ours */
		return WVM_DROP_EPOCH;
	}
	if (core->peers[at.member].lost)
		return WVM_DROP_NODE;
	if (windowed(msg->type) && at.member != core->params.self) {
		uint8_t shard = wvm_request_shard(msg->request);

		if (shard >= core->params.limits.peer_shards || !wvm_request_boot(msg->request))
			return WVM_DROP_REQUEST;
		seen = &core->seen[at.member * core->params.limits.peer_shards + shard];
		drop = wvm_seen_check(seen, msg->request);
		if (drop)
			return drop;
	}
	drop = dispatch(core, &at, msg, payload);
	/* What was dropped for lack of room must be able to come again. */
	if (seen && !drop)
		wvm_seen_note(seen, msg->request);
	return drop;
}

enum wvm_drop wvm_core_message(struct wvm_core *core, uint64_t now_ns, const struct wvm_msg *msg,
			       const uint8_t *payload)
{
	enum wvm_drop drop;

	core->now_ns = now_ns;
	wvm_undo_commit(core);
	drop = receive(core, msg, payload);
	if (drop)
		core->stats.drops[drop]++;
	return drop;
}

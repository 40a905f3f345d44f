/*
 * The canonical form of a state: a few dozen bytes in which equal states are
 * equal. One walk over the state serves three purposes: to collect the numbers
 * in use, to write, and to read.
 *
 * Numbers. Request ids of one node are compared with ids of the same node only,
 * for equality and order, and a new one is above all; versions of the page are
 * compared with each other, likewise, and with 0. So each is written as its
 * rank among those in use, and the counters are the highest rank. Ids of
 * transactions are echoed and never compared: they are left out.
 *
 * Symmetry. Nodes other than the home differ by their numbers, and programs of
 * a node by their bit. The core uses a member's number to address messages, to
 * find its record and to tell itself and the home from others: it asks for
 * equality and nothing else (records have no order; of the order in which
 * INVALIDATEs are sent nothing is left, since any message may come next). So a
 * renaming of these nodes or programs turns steps into steps and keeps every
 * checked property, and of all renamings the least bytes stand for the state.
 */
#include <string.h>

#include "shared/core/explore/world.h"

#define NUMBERS   64u /* different ids of one node, or versions, in one state */
#define RANK_BITS 5

struct numbers {
	uint64_t list[NUMBERS]; /* ascending */
	uint32_t count;
};

enum mode { COLLECT, WRITE, READ };

struct walk {
	enum mode mode;
	uint32_t nodes, programs;
	bool merge;
	struct numbers ids[EX_NODES_MAX]; /* by original node */
	struct numbers versions;
	uint64_t top[EX_NODES_MAX]; /* reading: the highest rank, which is the node's counter */
	uint8_t from[EX_NODES_MAX], to[EX_NODES_MAX]; /* packed -> original, original -> packed */
	struct ex_names *names;
	uint8_t *out;
	const uint8_t *in;
	uint64_t bits;
	uint32_t held, used; /* bits not yet in bytes; bytes */
};

/* ---- bits and numbers ------------------------------------------------------------------ */

/* Bits gather in a word and move in fours of bytes; `in` may be read that far beyond its end. */
static inline __attribute__((always_inline)) uint64_t item(struct walk *k, uint64_t value,
							   uint32_t bits)
{
	uint32_t four = 0;

	if (k->mode == WRITE) {
		WVM_ASSERT(value < UINT64_C(1) << bits);
		k->bits |= value << k->held;
		k->held += bits;
		if (k->held < 32)
			return value;
		WVM_ASSERT(k->used + 8 <= EX_PACKED);
		four = (uint32_t)k->bits;
		memcpy(k->out + k->used, &four, 4);
		k->used += 4;
		k->bits >>= 32;
		k->held -= 32;
	} else if (k->mode == READ) {
		if (k->held < bits) {
			memcpy(&four, k->in + k->used, 4);
			k->bits |= (uint64_t)four << k->held;
			k->used += 4;
			k->held += 32;
		}
		value = k->bits & ((UINT64_C(1) << bits) - 1);
		k->bits >>= bits;
		k->held -= bits;
	}
	return value;
}

static void note(struct numbers *n, uint64_t value)
{
	uint32_t i = n->count;

	while (i && n->list[i - 1] > value)
		i--;
	if (i && n->list[i - 1] == value)
		return;
	WVM_ASSERT(n->count < NUMBERS);
	memmove(&n->list[i + 1], &n->list[i], (n->count - i) * sizeof(*n->list));
	n->list[i] = value;
	n->count++;
}

static uint64_t rank_of(const struct numbers *n, uint64_t value)
{
	uint32_t i = 0;

	while (n->list[i] != value) {
		i++;
		WVM_ASSERT(i < n->count);
	}
	WVM_ASSERT(i + 1 < 1u << RANK_BITS);
	return i + 1;
}

/* A request id of `owner`, or 0. */
static uint64_t id_rank(struct walk *k, uint32_t owner, uint64_t id)
{
	if (!id)
		return 0;
	if (k->mode == COLLECT) {
		note(&k->ids[owner], id);
		return 0;
	}
	return rank_of(&k->ids[owner], id);
}

static uint64_t version_rank(struct walk *k, uint64_t version)
{
	if (!version)
		return 0;
	if (k->mode == COLLECT) {
		note(&k->versions, version);
		return 0;
	}
	return rank_of(&k->versions, version);
}

static uint64_t id_named(struct walk *k, uint32_t owner, uint64_t rank)
{
	if (rank > k->top[owner])
		k->top[owner] = rank;
	return rank ? wvm_request_id(1, 0, rank) : 0;
}

static uint64_t version_named(uint64_t rank)
{
	return rank ? ((uint64_t)EX_EPOCH << 32) + rank : 0;
}

static void id_item(struct walk *k, uint32_t owner, uint64_t *id)
{
	if (k->mode == READ)
		*id = id_named(k, owner, item(k, 0, RANK_BITS));
	else
		item(k, id_rank(k, owner, *id), RANK_BITS);
}

static void version_item(struct walk *k, uint64_t *version)
{
	if (k->mode == READ)
		*version = version_named(item(k, 0, RANK_BITS));
	else
		item(k, version_rank(k, *version), RANK_BITS);
}

static void member_item(struct walk *k, uint32_t *member)
{
	if (k->mode == READ)
		*member = (uint32_t)item(k, 0, 2);
	else
		item(k, k->to[*member], 2);
}

#define ITEM(k, field, bits) ((field) = (__typeof__(field))item(k, (uint64_t)(field), bits))

static void timer_item(struct walk *k, struct wvm_core_timer *t, uint32_t kind)
{
	bool armed = t->place;

	ITEM(k, armed, 1);
	if (k->mode != READ)
		return;
	t->place = armed;
	t->kind = kind;
}

/* ---- a node ---------------------------------------------------------------------------- */

/* What a program's bit and thread say. */
struct program {
	uint8_t thread, stores, waits_read, waits_write;
};

static uint32_t weight(const struct program *p)
{
	return p->thread << 3 | p->stores << 2 | p->waits_read << 1 | p->waits_write;
}

static void programs(struct walk *k, struct ex_node *node, uint32_t original)
{
	struct program p[EX_PROGRAMS_MAX];
	uint32_t first = 0;

	for (uint32_t c = 0; c < k->programs; c++)
		p[c] = (struct program){
			.thread = node->thread[c],
			.stores = node->stores[c],
			.waits_read = node->held.request && node->request.waiters_read >> c & 1,
			.waits_write = node->held.request && node->request.waiters_write >> c & 1};
	if (k->mode == WRITE && k->programs == 2 && weight(&p[0]) > weight(&p[1]))
		first = 1;
	for (uint32_t c = 0; c < k->programs; c++) {
		struct program *q = &p[c ^ first];

		ITEM(k, q->thread, 2);
		ITEM(k, q->stores, 1);
		ITEM(k, q->waits_read, 1);
		ITEM(k, q->waits_write, 1);
		if (k->names)
			k->names->program[original][c ^ first] = (uint8_t)c;
		if (k->mode != READ)
			continue;
		node->thread[c] = q->thread;
		node->stores[c] = q->stores;
		node->request.waiters_read |= (uint64_t)q->waits_read << c;
		node->request.waiters_write |= (uint64_t)q->waits_write << c;
	}
}

/* The bits of pages that were filled only count; one page is its unit's first. */
static void unit(struct walk *k, struct wvm_held_unit *u, uint32_t original)
{
	ITEM(k, u->touched, 1);
	ITEM(k, u->mine[0], 1);
	if (!u->mine[0])
		return;
	version_item(k, &u->version);
	id_item(k, original, &u->grant);
}

static void merge(struct walk *k, struct ex_node *n, uint32_t original)
{
	struct wvm_held_unit *u = &n->unit;

	version_item(k, &u->told);
	ITEM(k, u->merge, 1);
	if (!u->merge)
		return;
	timer_item(k, &n->merge.timer, WVM_TIMER_MERGE);
	id_item(k, original, &u->merging);
	if (u->merging)
		version_item(k, &u->named);
}

static void request(struct walk *k, struct wvm_request *r, uint32_t owner)
{
	bool early = r->early.type;

	timer_item(k, &r->timer, WVM_TIMER_REQUEST);
	id_item(k, owner, &r->id);
	ITEM(k, r->state, 2);
	ITEM(k, r->type, 3);
	ITEM(k, r->pin, 1);
	ITEM(k, r->listed, 1);
	ITEM(k, early, 1);
	if (early) {
		ITEM(k, r->early.type, 5);
		id_item(k, owner, &r->early.grant);
		version_item(k, &r->early.version);
	}
}

static void demand(struct walk *k, struct wvm_demand *d, uint32_t owner)
{
	timer_item(k, &d->timer, WVM_TIMER_DEMAND);
	id_item(k, owner, &d->grant);
	version_item(k, &d->version);
	ITEM(k, d->type, 5);
	ITEM(k, d->state, 1);
	ITEM(k, d->keep, 1);
}

/* What nobody looks at is not written: the bytes of a page that is not there, of an outbox not in
 * use. */
static void node(struct walk *k, struct ex_node *n, uint32_t original)
{
	struct wvm_held_page *h = &n->held;

	ITEM(k, h->state, 2);
	version_item(k, &h->invalidated);
	if (h->state != WVM_HELD_INVALID) {
		version_item(k, &h->version);
		id_item(k, original, &h->grant);
	}
	ITEM(k, h->hole, 1);
	unit(k, &n->unit, original);
	if (k->merge)
		merge(k, n, original);
	ITEM(k, n->present, 1);
	if (n->present)
		ITEM(k, n->ram, 2);
	ITEM(k, h->request, 1);
	if (h->request)
		request(k, &n->request, original);
	ITEM(k, h->demand, 1);
	if (h->demand)
		demand(k, &n->demand, original);
	if (h->demand && n->demand.state == WVM_DEMAND_WRITE_BACK && !n->demand.keep)
		ITEM(k, n->outbox, 2);
	programs(k, n, original);
}

/* ---- the home -------------------------------------------------------------------------- */

/* Those that occur here: ZERO to HELD, and UNIT. */
static uint32_t flags_packed(uint8_t flags)
{
	return (flags & 0x1fu) | (flags & WVM_MSG_UNIT ? 0x20u : 0);
}

static uint8_t flags_unpacked(uint32_t packed)
{
	return (uint8_t)((packed & 0x1f) | (packed & 0x20 ? WVM_MSG_UNIT : 0));
}

static void asked(struct walk *k, struct wvm_asked *q)
{
	uint32_t flags;

	/* The order matters to reading: whose id it is must be known. */
	member_item(k, &q->member);
	id_item(k, q->member, &q->id);
	version_item(k, &q->version);
	ITEM(k, q->type, 3);
	flags = flags_packed(q->flags);
	ITEM(k, flags, 6);
	q->flags = flags_unpacked(flags);
}

/* Records in order of their packed member. */
static void records(struct walk *k, struct wvm_home_page *e)
{
	if (k->mode == READ) {
		for (uint32_t i = 0; i < e->holders; i++) {
			member_item(k, &e->member[i]);
			id_item(k, e->member[i], &e->grant[i]);
		}
		return;
	}
	for (uint32_t m = 0; m < k->nodes; m++)
		for (uint32_t i = 0; i < e->holders; i++) {
			if (e->member[i] != k->from[m])
				continue;
			member_item(k, &e->member[i]);
			id_item(k, e->member[i], &e->grant[i]);
		}
}

static void home(struct walk *k, struct ex_world *w)
{
	struct wvm_home_page *e = &w->home;

	ITEM(k, e->state, 2);
	ITEM(k, e->flags, 3);
	version_item(k, &e->version);
	version_item(k, &e->granted);
	version_item(k, &w->unit.version);
	version_item(k, &w->unit.granted);
	if (w->unit.granted) {
		member_item(k, &w->unit.owner);
		id_item(k, w->unit.owner, &w->unit.grant);
	}
	ITEM(k, w->unit.merged, 1);
	/* A page without an entry is of the version before. */
	if (w->unit.merged) {
		uint64_t before = w->unit.granted - 1;

		version_item(k, &before);
	}
	ITEM(k, e->holders, 2);
	records(k, e);
	ITEM(k, w->truth, 1);
	if (e->flags & WVM_HOME_WRITTEN)
		ITEM(k, w->store, 2);
	ITEM(k, e->txn, 1);
	if (!e->txn)
		return;
	timer_item(k, &w->txn.timer, WVM_TIMER_TXN);
	ITEM(k, w->txn.state, 2);
	asked(k, &w->txn.asked);
	ITEM(k, w->waiting_count, 2);
	for (uint32_t i = 0; i < w->waiting_count; i++)
		asked(k, &w->waiting[i]);
}

/* ---- messages -------------------------------------------------------------------------- */

/* The id that a message is about, and whose it is; another one is the home's transaction. */
static uint64_t *id_of(struct wvm_msg *m, uint32_t *owner)
{
	bool whole = wvm_msg_of_merge(m);

	switch (m->type) {
	case WVM_MSG_MEM_READ:
	case WVM_MSG_MEM_ACQUIRE: *owner = m->src; return whole ? &m->grant : &m->request;
	case WVM_MSG_MEM_ACK: *owner = m->dst; return whole ? &m->grant : &m->request;
	case WVM_MSG_INVALIDATE:
	case WVM_MSG_DOWNGRADE:
	case WVM_MSG_FETCH_AND_INVALIDATE:
	case WVM_MSG_WRITE_BACK_ACK: *owner = m->dst; return &m->grant;
	default: *owner = m->src; return &m->grant;
	}
}

#define MESSAGE_BITS 29

static uint32_t message_key(struct walk *k, struct ex_msg *m)
{
	uint64_t key = m->msg.type;
	uint32_t owner;
	uint64_t *id = id_of(&m->msg, &owner);

	key = key << 6 | flags_packed(m->msg.flags);
	key = key << 2 | k->to[m->msg.src];
	key = key << 2 | k->to[m->msg.dst];
	key = key << 2 | m->value;
	key = key << 1 | m->paged;
	key = key << RANK_BITS | id_rank(k, owner, *id);
	key = key << RANK_BITS | version_rank(k, m->msg.version);
	return (uint32_t)key;
}
_Static_assert(5 + 6 + 2 + 2 + 2 + 1 + 2 * RANK_BITS <= MESSAGE_BITS, "a key holds a message");

static void message_named(struct walk *k, const struct ex_rig *rig, struct ex_msg *m, uint32_t key)
{
	const uint32_t ranks = (1u << RANK_BITS) - 1;
	uint32_t owner;
	uint64_t *id;

	memset(m, 0, sizeof(*m));
	m->msg.version = version_named(key & ranks);
	m->paged = key >> 2 * RANK_BITS & 1;
	m->value = key >> (2 * RANK_BITS + 1) & 3;
	m->msg.dst = key >> (2 * RANK_BITS + 3) & 3;
	m->msg.src = key >> (2 * RANK_BITS + 5) & 3;
	m->msg.flags = flags_unpacked(key >> (2 * RANK_BITS + 7) & 0x3f);
	m->msg.type = (uint8_t)(key >> (2 * RANK_BITS + 13));
	m->msg.request = wvm_request_id(1, 0, 0);
	id = id_of(&m->msg, &owner);
	*id = id_named(k, owner, key >> RANK_BITS & ranks);
	m->msg.node_state = WVM_NODE_ACTIVE;
	m->msg.hops = WVM_HOPS_MAX;
	m->msg.vm_id = rig->vm_id;
	m->msg.epoch = EX_EPOCH;
	m->msg.steer = m->msg.dst == EX_HOME ? wvm_slice_of(rig->vm_id, 0) : wvm_holder_steer(0);
	m->msg.reply_steer = m->msg.src == EX_HOME ? wvm_slice_of(rig->vm_id, 0)
						   : wvm_holder_steer(0);
	if (m->paged)
		m->msg.payload_len = m->msg.seg_total = WVM_PAGE_BYTES;
}

static void messages(struct walk *k, const struct ex_rig *rig, struct ex_world *w)
{
	uint32_t key[EX_MESSAGES];
	uint8_t index[EX_MESSAGES];

	ITEM(k, w->messages, 5);
	for (uint32_t i = 0; i < w->messages; i++) {
		uint32_t made = k->mode == READ ? (uint32_t)item(k, 0, MESSAGE_BITS)
						: message_key(k, &w->msg[i]);
		uint32_t at = i;

		if (k->mode == READ)
			message_named(k, rig, &w->msg[i], made);
		for (; at && key[at - 1] > made; at--) {
			key[at] = key[at - 1];
			index[at] = index[at - 1];
		}
		key[at] = made;
		index[at] = (uint8_t)i;
	}
	if (k->mode != WRITE)
		return;
	for (uint32_t i = 0; i < w->messages; i++) {
		item(k, key[i], MESSAGE_BITS);
		k->names->message[index[i]] = (uint8_t)i;
	}
}

/* ---- the whole ------------------------------------------------------------------------- */

static void walk(struct walk *k, const struct ex_rig *rig, struct ex_world *w)
{
	ITEM(k, w->accesses, 5);
	ITEM(k, w->losses, 3);
	ITEM(k, w->duplicates, 3);
	ITEM(k, w->retries, 3);
	ITEM(k, w->deadlines, 3);
	ITEM(k, w->evictions, 3);
	for (uint32_t i = 0; i < k->nodes; i++)
		node(k, &w->node[k->from[i]], k->from[i]);
	home(k, w);
	messages(k, rig, w);
	if (k->mode != WRITE)
		return;
	memcpy(k->out + k->used, &k->bits, 4);
	k->used += (k->held + 7) / 8;
}

static void rename_nodes(struct walk *k, bool swapped)
{
	for (uint8_t i = 0; i < EX_NODES_MAX; i++)
		k->from[i] = i;
	if (swapped) {
		k->from[1] = 2;
		k->from[2] = 1;
	}
	for (uint8_t i = 0; i < EX_NODES_MAX; i++)
		k->to[k->from[i]] = i;
}

static uint32_t write_named(struct walk *k, const struct ex_rig *rig, struct ex_world *w,
			    bool swapped, uint8_t *bytes, struct ex_names *names)
{
	rename_nodes(k, swapped);
	k->mode = WRITE;
	k->out = bytes;
	k->names = names;
	k->bits = 0;
	k->held = k->used = 0;
	walk(k, rig, w);
	memcpy(names->node, k->to, sizeof(names->node));
	return k->used;
}

uint32_t ex_pack(const struct ex_rig *rig, const struct ex_world *w, uint8_t *bytes,
		 struct ex_names *names)
{
	struct walk k = {.mode = COLLECT,
			 .nodes = rig->config.nodes,
			 .programs = rig->config.programs,
			 .merge = rig->config.merge};
	/* Collecting and writing change nothing: every field is assigned its own value. */
	struct ex_world *same = (struct ex_world *)w;
	uint8_t other[EX_PACKED];
	struct ex_names names_other = *names;
	uint32_t size, size_other;

	rename_nodes(&k, false);
	walk(&k, rig, same);
	size = write_named(&k, rig, same, false, bytes, names);
	if (rig->config.nodes < 3)
		return size;
	size_other = write_named(&k, rig, same, true, other, &names_other);
	if (size_other > size || (size_other == size && memcmp(bytes, other, size) <= 0))
		return size;
	memcpy(bytes, other, size_other);
	*names = names_other;
	return size_other;
}

static void fill_request(const struct ex_rig *rig, struct wvm_request *r)
{
	r->member = EX_HOME;
	r->home_vnode = rig->slices.home_vnode[wvm_slice_of(rig->vm_id, 0)];
	if (!r->early.type)
		return;
	r->early.request = wvm_request_id(1, 0, 0);
	r->early.src = r->home_vnode;
	r->early.vm_id = rig->vm_id;
	r->early.epoch = EX_EPOCH;
}

void ex_unpack(const struct ex_rig *rig, struct ex_world *w, const uint8_t *bytes, uint32_t size)
{
	struct walk k = {.mode = READ,
			 .nodes = rig->config.nodes,
			 .programs = rig->config.programs,
			 .merge = rig->config.merge,
			 .in = bytes};

	memset(w, 0, sizeof(*w));
	rename_nodes(&k, false);
	walk(&k, rig, w);
	WVM_ASSERT(k.used - k.held / 8 == size);
	for (uint32_t i = 0; i < k.nodes; i++) {
		struct ex_node *n = &w->node[i];

		n->counter = k.top[i];
		n->demand.member = EX_HOME;
		n->demand.home_vnode = rig->slices.home_vnode[wvm_slice_of(rig->vm_id, 0)];
		n->demand.txn = wvm_request_id(1, 0, 0);
		fill_request(rig, &n->request);
		n->unit.modified = !n->unit.mine[0] && n->held.state == WVM_HELD_MODIFIED;
		n->unit.shared = !n->unit.mine[0] && n->held.state == WVM_HELD_SHARED;
		n->unit.first = n->unit.requests = n->held.request && n->request.listed;
	}
	w->txn.id = wvm_request_id(1, 0, 0);
	w->txn.asked.vnode = w->txn.asked.member;
	for (uint32_t i = 0; i < w->waiting_count; i++)
		w->waiting[i].vnode = w->waiting[i].member;
}

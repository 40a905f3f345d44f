/*
 * One core that takes a dead home's place, or holds pages of it, with the test in the place of all
 * others: they tell what they hold and ask for pages, and what the core sends is kept for it.
 */
#ifndef WVM_CORE_CHECK_DEAD_H
#define WVM_CORE_CHECK_DEAD_H

#include "shared/core/bytes.h"
#include "shared/core/check/moved.h"

#define HOME     RIG_ELSEWHERE /* of everything, until it dies */
#define A        9u            /* these, and RIG_SELF, take part; all others are absent */
#define B        10u
#define C        11u
#define LIVE     4u /* members that take part */
#define EPOCHS   4u
#define SENT_MAX 256u
#define MS       UINT64_C(1000000)
#define A_WHILE  (2000 * MS)

struct sent {
	struct wvm_msg msg;
	uint32_t member;
	uint8_t fill; /* of a stored page */
	uint8_t bytes[WVM_HOLDING_BYTES];
};

struct house {
	struct rig r;
	/* Tables and deaths by epoch, counted from RIG_EPOCH. */
	struct wvm_slices slices[EPOCHS], second[EPOCHS];
	struct wvm_core_lost lost[EPOCHS];
	uint8_t member[EPOCHS][RIG_MEMBERS];
	struct sent sent[SENT_MAX];
	uint32_t sent_count;
	uint8_t shards[RIG_MEMBERS]; /* that each member says it has */
	bool silent[RIG_MEMBERS];    /* it does not say that it has told all */
};

static inline void all_slices(struct wvm_slices *table, uint32_t member)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		table->home_vnode[i] = member == WVM_SLICE_NIL ? WVM_SLICE_NIL : RIG_VNODE(member);
}

/* The second home of all slices is `second`. */
static inline void house_open(struct house *h, const struct wvm_core_limits *limits,
			      uint32_t second, uint8_t shards)
{
	struct rig *r = &h->r;
	struct wvm_core_vm vm;

	memset(h, 0, sizeof(*h));
	rig_open(r, HOME, limits);
	vm = *wvm_core_vm_at(r->core, 0);
	all_slices(&h->slices[0], HOME);
	all_slices(&h->second[0], second);
	memset(h->shards, 1, sizeof(h->shards));
	r->params.slices = &h->slices[0];
	r->params.backup = &h->second[0];
	r->params.shards = shards;
	r->params.shard = shards > 1 ? RIG_SHARD : 0;
	h->shards[RIG_SELF] = shards > 1 ? shards : 1;
	free(r->durable);
	free(r->memory);
	r->durable = r->params.durable = rig_memory(wvm_core_durable_bytes(&r->params));
	r->memory = rig_memory(wvm_core_bytes(&r->params));
	r->core = wvm_core_init(r->memory, &r->params);
	ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
	wvm_core_serve(r->core, true);
}

static inline void house_close(struct house *h)
{
	rig_close(&h->r);
}

/* ---- what comes and goes --------------------------------------------------------------- */

static inline void keep_sent(struct house *h, const struct wvm_action *a)
{
	struct sent *s = &h->sent[h->sent_count];

	ck_assert_uint_lt(h->sent_count++, SENT_MAX);
	s->msg = a->msg;
	s->member = a->member;
	s->fill = a->source == WVM_DATA_STORE ? h->r.store[a->page << WVM_PAGE_SHIFT] : 0;
	if (a->source == WVM_DATA_BYTES)
		memcpy(s->bytes, a->data, a->msg.payload_len);
}

/* What the core sends to itself, and not to another shard of its node, comes at once. */
static inline void drain(struct house *h)
{
	struct rig *r = &h->r;
	const struct wvm_action *a;

	while ((a = wvm_core_action(r->core))) {
		struct wvm_msg m = a->msg;

		if (a->kind == WVM_ACT_FORGET && a->home) {
			memset(r->home + a->page, 0, WVM_UNIT_PAGES * sizeof(*r->home));
			continue;
		}
		if (a->kind != WVM_ACT_SEND)
			continue;
		if (a->member != RIG_SELF ||
		    (m.type == WVM_MSG_HOLDING_DONE && m.steer != r->params.shard)) {
			keep_sent(h, a);
			continue;
		}
		ck_assert_int_ne(a->source, WVM_DATA_STORE);
		(void)wvm_core_message(r->core, r->now_ns, &m,
				       a->source == WVM_DATA_BYTES ? a->data : NULL);
	}
}

static inline enum wvm_drop say(struct house *h, struct wvm_msg m, const void *bytes)
{
	enum wvm_drop drop = wvm_core_message(&h->r.core[0], h->r.now_ns, &m, bytes);

	drain(h);
	return drop;
}

/* About a page, of the present epoch. fill: its bytes. */
static inline enum wvm_drop say_page(struct house *h, uint8_t type, uint32_t member, uint64_t page,
				     struct wvm_msg with, uint8_t fill)
{
	static uint8_t bytes[WVM_PAGE_BYTES];
	struct wvm_msg m = message(type, member, h->r.core->params.epoch, with.request);

	m.gpa = page << WVM_PAGE_SHIFT;
	m.version = with.version;
	m.grant = with.grant;
	m.flags = with.flags;
	m.payload_len = with.payload_len;
	memset(bytes, fill, sizeof(bytes));
	if (fill)
		m.payload_len = m.seg_total = WVM_PAGE_BYTES;
	return say(h, m, fill ? bytes : NULL);
}
#define SAY(h, type, member, page, ...) \
	say_page(h, WVM_MSG_##type, member, page, (struct wvm_msg){__VA_ARGS__}, 0)
#define SAY_BYTES(h, type, member, page, fill, ...) \
	say_page(h, WVM_MSG_##type, member, page, (struct wvm_msg){__VA_ARGS__}, fill)

static inline const struct sent *only_sent(const struct house *h, uint8_t type, uint32_t member)
{
	ck_assert_uint_eq(h->sent_count, 1);
	ck_assert_str_eq(wvm_msg_name(h->sent[0].msg.type), wvm_msg_name(type));
	ck_assert_uint_eq(h->sent[0].member, member);
	return &h->sent[0];
}

static inline struct wvm_msg told_all(const struct sent *question, uint8_t shards)
{
	struct wvm_msg m = message(WVM_MSG_HOLDING_DONE, question->member, question->msg.epoch,
				   question->msg.request);

	m.flags = WVM_MSG_ANSWER;
	m.grant = (uint64_t)shards << 16 | question->msg.steer;
	return m;
}

/* Answers questions whether all is told; other messages are forgotten. */
static inline void answer_questions(struct house *h)
{
	for (uint32_t i = 0; i < h->sent_count; i++) {
		struct sent s = h->sent[i];

		if (s.msg.type == WVM_MSG_HOLDING_DONE && !(s.msg.flags & WVM_MSG_ANSWER) &&
		    !h->silent[s.member])
			(void)say(h, told_all(&s, h->shards[s.member]), NULL);
	}
	h->sent_count = 0;
}

static inline void pass_time(struct house *h, uint64_t ns, bool answered)
{
	uint64_t until = h->r.now_ns + ns;

	for (uint32_t n = 0; wvm_core_deadline(h->r.core) <= until; n++) {
		ck_assert_uint_lt(n, 20000);
		if (h->r.now_ns < wvm_core_deadline(h->r.core))
			h->r.now_ns = wvm_core_deadline(h->r.core);
		wvm_core_tick(h->r.core, h->r.now_ns);
		drain(h);
		if (answered)
			answer_questions(h);
	}
	h->r.now_ns = until;
}

/* All that are not silent say that they have told all, and what then is to be done is done. */
static inline void all_tell(struct house *h)
{
	pass_time(h, A_WHILE, true);
}

/* ---- deaths ---------------------------------------------------------------------------- */

/*
 * Epoch RIG_EPOCH + n, in which members have died as `kind` says, joins the move of epoch `moved`
 * (0: its own): what they had is homed at `to`.
 */
static inline struct wvm_core_lost *plan_death(struct house *h, uint32_t n, uint32_t moved,
					       uint32_t dead, uint8_t kind, uint32_t to)
{
	struct wvm_core_lost *lost = &h->lost[n];
	static const uint32_t live[LIVE] = {RIG_SELF, A, B, C};

	if (moved) {
		*lost = h->lost[n - 1];
		memcpy(h->member[n], h->member[n - 1], RIG_MEMBERS);
	}
	if (!moved || !h->lost[n - 1].member) {
		memset(lost, 0, sizeof(*lost));
		memset(h->member[n], WVM_LOST_ABSENT, RIG_MEMBERS);
		for (uint32_t i = 0; i < LIVE; i++)
			h->member[n][live[i]] = WVM_LOST_NOT;
	}
	h->member[n][dead] = kind;
	lost->epoch = RIG_EPOCH + n;
	lost->moved = moved ? moved : lost->epoch;
	lost->member = h->member[n];
	h->slices[n] = h->slices[n - 1];
	wvm_core_lost_slices(lost, &h->r.members, &h->slices[n - 1],
			     moved && n > 1 ? &h->slices[n - 2] : NULL, dead);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (h->slices[n].home_vnode[i] == RIG_VNODE(dead))
			h->slices[n].home_vnode[i] = RIG_VNODE(to);
	all_slices(&h->second[n], WVM_SLICE_NIL);
	return lost;
}

static inline enum wvm_epoch_taken learn_death(struct house *h, uint32_t n)
{
	struct wvm_core_params *p = &h->r.params;
	enum wvm_epoch_taken taken;

	wvm_core_backup_next(h->r.core, &h->second[n]);
	taken = wvm_core_epoch_lost(h->r.core, h->r.now_ns, RIG_EPOCH + n, &h->slices[n],
				    &h->lost[n]);
	if (taken == WVM_EPOCH_TAKEN) {
		*p = (struct wvm_core_params)h->r.core->params;
		p->adopt = false;
	}
	drain(h);
	return taken;
}

/* HOME is dead, and its second home in its place. */
static inline void die(struct house *h, uint8_t kind, uint32_t to)
{
	plan_death(h, 1, 0, HOME, kind, to);
	ck_assert_int_eq(learn_death(h, 1), WVM_EPOCH_TAKEN);
}

/* The process ends, and the next one of this node goes on. present: pages in the RAM file. */
static inline void kill_house(struct house *h, const bool *present)
{
	struct rig *r = &h->r;

	rig_kill(r);
	for (uint64_t page = 0; page < RIG_PAGES; page++) {
		wvm_core_adopt_held(r->core, r->now_ns, 0, page, present && present[page]);
		drain(h);
	}
	wvm_core_adopt_held_end(r->core, r->now_ns);
	drain(h);
}

/* ---- what is told ---------------------------------------------------------------------- */

struct told {
	uint32_t member;
	uint8_t kind;
	uint64_t version, grant;
};

static inline uint32_t put_told(uint8_t *at, uint16_t index, uint16_t kind, uint64_t version,
				uint64_t grant)
{
	wvm_store16(at, index);
	wvm_store16(at + 2, kind);
	wvm_store64(at + 4, version);
	wvm_store64(at + 12, grant);
	return WVM_HOLDING_PAGE;
}

static inline enum wvm_drop say_holding(struct house *h, uint32_t member, uint64_t page,
					uint64_t version, uint64_t grant, const uint8_t *bytes,
					uint32_t len)
{
	struct wvm_msg m = message(WVM_MSG_HOLDING, member, h->r.core->params.epoch, ID(900));

	m.gpa = page << WVM_PAGE_SHIFT;
	m.version = version;
	m.grant = grant;
	m.payload_len = (uint16_t)len;
	m.seg_total = (len + WVM_SEGMENT_UNIT - 1) & ~(WVM_SEGMENT_UNIT - 1);
	return say(h, m, len ? bytes : NULL);
}

static inline enum wvm_drop tell_page(struct house *h, uint64_t page, const struct told *t)
{
	uint8_t bytes[WVM_HOLDING_PAGE];
	uint32_t len = put_told(bytes, (uint16_t)(page % WVM_UNIT_PAGES), t->kind, t->version,
				t->grant);

	return say_holding(h, t->member, page, 0, 0, bytes, len);
}

/* Pages [from, to) of unit 0 are left of what was granted whole. */
static inline enum wvm_drop tell_unit(struct house *h, uint32_t member, uint64_t version,
				      uint64_t grant, uint64_t from, uint64_t to)
{
	uint8_t bytes[8 * WVM_UNIT_WORDS];
	uint64_t mine[WVM_UNIT_WORDS] = {0};

	for (uint64_t i = from; i < to; i++)
		mine[i / 64] |= UINT64_C(1) << i % 64;
	for (uint32_t i = 0; i < WVM_UNIT_WORDS; i++)
		wvm_store64(bytes + 8 * i, mine[i]);
	return say_holding(h, member, 0, version, grant, bytes, sizeof(bytes));
}

/* ---- what it has as a second home, and as the home ------------------------------------- */

/* What the second home has been given before the death. */
static inline void give_copy(struct house *h, uint64_t page, uint64_t version, uint8_t fill,
			     uint8_t flags)
{
	ck_assert_int_eq(SAY_BYTES(h, BACKUP, HOME, page, fill, .request = ID(1),
				   .version = version, .flags = flags),
			 WVM_DROP_NONE);
	ck_assert_int_eq(only_sent(h, WVM_MSG_BACKUP, HOME)->msg.flags, WVM_MSG_ANSWER);
	h->sent_count = 0;
}

static inline void say_complete(struct house *h, uint64_t page)
{
	ck_assert_int_eq(SAY(h, BACKUP_DONE, HOME, page, .request = ID(2), .grant = RIG_BOOT),
			 WVM_DROP_NONE);
	ck_assert_int_eq(only_sent(h, WVM_MSG_BACKUP_DONE, HOME)->msg.flags, WVM_MSG_ANSWER);
	h->sent_count = 0;
}

/* Whoever reads the page gets it from `owner`; 0: it is lost. */
static inline void check_page(struct house *h, uint64_t page, uint32_t owner, uint64_t id)
{
	h->sent_count = 0;
	ck_assert_int_eq(SAY(h, MEM_READ, C, page, .request = ID(id)), WVM_DROP_NONE);
	if (owner)
		only_sent(h, WVM_MSG_DOWNGRADE, owner);
	else
		ck_assert_uint_eq(only_sent(h, WVM_MSG_MEM_ACK, C)->msg.flags & WVM_MSG_ERROR,
				  WVM_MSG_ERROR);
}

#endif

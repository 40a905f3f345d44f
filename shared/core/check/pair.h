/*
 * Two cores, a home and the one that takes its place, with the test in the place of all others, of
 * the wires between the two, and of what kills them.
 */
#ifndef WVM_CORE_CHECK_PAIR_H
#define WVM_CORE_CHECK_PAIR_H

#include "shared/core/check/moved.h"

static struct wvm_slices table;               /* of the next epoch */
static struct wvm_slices backup, backup_next; /* second homes now and then */

#define FORMER     0
#define NEW        1
#define SENT_MAX   128u
#define PASSED_MAX 1000u /* more come to no end */

/* What left for one of those that the test plays. */
struct sent {
	struct wvm_msg msg;
	uint32_t member;
	uint8_t fill; /* of a stored page */
};

struct pair {
	struct rig homes[2]; /* members RIG_ELSEWHERE and RIG_SELF */
	struct sent sent[SENT_MAX];
	uint32_t sent_count;
	uint32_t passed; /* messages from one to the other, up to now */
	uint32_t lost;   /* all after so many; 0: none */
	uint32_t cut;    /* the one after which its receiver is killed; 0: none */
	bool acted;      /* in the middle of its actions, and not of the input */
};

static const uint32_t member_of[2] = {RIG_ELSEWHERE, RIG_SELF};

/*
 * Unit 0 is homed at FORMER, unit 1 at NEW; after `table` both are at NEW. backed: each is the
 * other's second home.
 */
static inline void pair_open_all(struct pair *p, const struct wvm_core_limits *limits, bool backed)
{
	memset(p, 0, sizeof(*p));
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		backup.home_vnode[i] = backup_next.home_vnode[i] = RIG_VNODE(RIG_SELF);
	backup.home_vnode[wvm_slice_of(RIG_VM, RIG_OTHER << WVM_PAGE_SHIFT)] =
		RIG_VNODE(RIG_ELSEWHERE);
	backup_next.home_vnode[wvm_slice_of(RIG_VM, RIG_OTHER << WVM_PAGE_SHIFT)] =
		backup_next.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(RIG_ELSEWHERE);
	for (uint32_t i = 0; i < 2; i++) {
		struct rig *r = &p->homes[i];
		struct wvm_core_vm vm;

		rig_open(r, RIG_ELSEWHERE, i == NEW ? limits : NULL);
		r->slices.home_vnode[wvm_slice_of(RIG_VM, RIG_OTHER << WVM_PAGE_SHIFT)] =
			RIG_VNODE(RIG_SELF);
		vm = *wvm_core_vm_at(r->core, 0);
		r->params.self = member_of[i];
		if (backed) {
			r->params.backup = &backup;
			free(r->durable);
			free(r->memory);
			r->durable = r->params.durable =
				rig_memory(wvm_core_durable_bytes(&r->params));
			r->memory = rig_memory(wvm_core_bytes(&r->params));
		}
		r->core = wvm_core_init(r->memory, &r->params);
		ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
		wvm_core_serve(r->core, true);
	}
	table = p->homes[NEW].slices;
	table.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(RIG_SELF);
}

static inline void pair_open(struct pair *p, const struct wvm_core_limits *limits)
{
	pair_open_all(p, limits, false);
}

static inline void pair_close(struct pair *p)
{
	rig_close(&p->homes[FORMER]);
	rig_close(&p->homes[NEW]);
}

/* The whole message, as its receiver's transport would have put it together. */
static inline enum wvm_drop deliver(struct rig *r, struct wvm_msg m, const struct wvm_action *a,
				    const uint8_t *store)
{
	const uint8_t *data = NULL;

	if (a->source == WVM_DATA_BYTES)
		data = a->data;
	if (a->source == WVM_DATA_STORE) {
		data = store + (a->page << WVM_PAGE_SHIFT);
		m.payload_len = m.seg_total = WVM_PAGE_BYTES;
	}
	return wvm_core_message(r->core, r->now_ns, &m, data);
}

static inline void kill_home(struct pair *p, uint32_t home)
{
	struct rig *r = &p->homes[home];

	rig_kill(r);
	for (uint64_t page = 0; page < RIG_PAGES; page++)
		wvm_core_adopt_held(r->core, r->now_ns, 0, page, false);
	wvm_core_adopt_held_end(r->core, r->now_ns);
}

/* To the other home. Its receiver may be killed before what it makes of it is final, or after. */
static inline void pass(struct pair *p, uint32_t to, const struct wvm_action *a)
{
	struct rig *r = &p->homes[to];
	struct wvm_handover_left was, is;

	p->passed++;
	ck_assert_uint_lt(p->passed, PASSED_MAX);
	if (p->lost && p->passed > p->lost)
		return;
	(void)deliver(r, a->msg, a, p->homes[!to].store);
	if (p->passed != p->cut)
		return;
	if (p->acted)
		(void)wvm_core_action(r->core);
	was = wvm_core_handover(r->core);
	kill_home(p, to);
	is = wvm_core_handover(r->core);
	/* What was counted as handed over stays so: others may have gone on by that. */
	if (p->acted)
		ck_assert(is.in <= was.in && is.out <= was.out);
}

static inline void carry_out(struct pair *p, uint32_t home, const struct wvm_action *a)
{
	struct rig *r = &p->homes[home];
	struct sent *s = &p->sent[p->sent_count];

	if (a->kind == WVM_ACT_FORGET) {
		ck_assert(a->home);
		memset(r->home, 0, WVM_UNIT_PAGES * sizeof(*r->home));
		memset(r->store, 0, WVM_UNIT_PAGES * WVM_PAGE_BYTES);
		return;
	}
	ck_assert_int_eq(a->kind, WVM_ACT_SEND);
	if (a->member == member_of[!home]) {
		pass(p, !home, a);
		return;
	}
	ck_assert_uint_lt(p->sent_count++, SENT_MAX);
	s->msg = a->msg;
	s->member = a->member;
	s->fill = a->source == WVM_DATA_STORE ? r->store[a->page << WVM_PAGE_SHIFT] : 0;
}

/* Both do what they have to do now. */
static inline void settle(struct pair *p)
{
	const struct wvm_action *a;

	for (uint32_t i = 0, idle = 0; idle < 2; i = !i) {
		idle++;
		while ((a = wvm_core_action(p->homes[i].core))) {
			idle = 0;
			carry_out(p, i, a);
		}
	}
}

static inline void run_for(struct pair *p, uint64_t ns)
{
	uint64_t until = p->homes[0].now_ns + ns;

	settle(p);
	for (;;) {
		uint64_t due[2] = {wvm_core_deadline(p->homes[0].core),
				   wvm_core_deadline(p->homes[1].core)};
		uint32_t first = due[1] < due[0];
		uint64_t now = due[first] < until ? due[first] : until;

		if (now > p->homes[0].now_ns)
			p->homes[0].now_ns = p->homes[1].now_ns = now;
		if (due[first] >= until)
			return;
		wvm_core_tick(p->homes[first].core, p->homes[first].now_ns);
		settle(p);
	}
}

/* A message of one of the others to a home. */
static inline enum wvm_drop tell(struct pair *p, uint32_t home, struct wvm_msg m, uint64_t page,
				 uint8_t fill)
{
	static uint8_t bytes[WVM_PAGE_BYTES];
	struct rig *r = &p->homes[home];
	enum wvm_drop drop;

	m.dst = RIG_VNODE(member_of[home]);
	m.gpa = page << WVM_PAGE_SHIFT;
	if (fill) {
		memset(bytes, fill, sizeof(bytes));
		m.payload_len = m.seg_total = WVM_PAGE_BYTES;
	}
	drop = wvm_core_message(r->core, r->now_ns, &m, fill ? bytes : NULL);
	settle(p);
	return drop;
}

static inline const struct sent *last_sent(const struct pair *p, uint8_t type, uint32_t member)
{
	const struct sent *s = &p->sent[p->sent_count - 1];

	ck_assert_uint_gt(p->sent_count, 0);
	ck_assert_str_eq(wvm_msg_name(s->msg.type), wvm_msg_name(type));
	ck_assert_uint_eq(s->member, member);
	return s;
}

static inline void switch_to(struct pair *p, uint32_t home, uint32_t epoch,
			     const struct wvm_slices *to)
{
	struct rig *r = &p->homes[home];

	if (r->params.backup)
		wvm_core_backup_next(r->core, &backup_next);
	ck_assert_int_eq(wvm_core_epoch(r->core, r->now_ns, epoch, to), WVM_EPOCH_TAKEN);
	r->params.backup = r->params.backup ? &backup_next : NULL;
	r->params.epoch = r->params.moved = epoch;
	r->params.before = r->params.slices;
	r->params.slices = to;
	settle(p);
}

static inline void switch_over(struct pair *p, uint32_t home)
{
	switch_to(p, home, NEXT, &table);
}

static inline void check_handed_over(struct pair *p)
{
	for (uint32_t i = 0; i < 2; i++) {
		struct wvm_handover_left left = wvm_core_handover(p->homes[i].core);

		ck_assert_uint_eq(left.in, 0);
		ck_assert_uint_eq(left.out, 0);
	}
	for (uint64_t page = 0; page < WVM_UNIT_PAGES; page++) {
		static const struct wvm_home_page never;
		const struct rig *r = &p->homes[FORMER];

		ck_assert(!memcmp(&r->home[page], &never, sizeof(never)));
		ck_assert_uint_eq(r->store[page << WVM_PAGE_SHIFT], 0);
	}
	ck_assert_uint_eq(wvm_core_deadline(p->homes[FORMER].core), WVM_CORE_NEVER);
}

#define A_WHILE UINT64_C(2000000000)

#endif

/*
 * Two cores, a former home and a new one, with the test in the place of all others, of the wires
 * between the two, and of what kills them.
 */
#include "shared/core/check/moved.h"

static struct wvm_slices table; /* of the next epoch */

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

static void pair_open(struct pair *p, const struct wvm_core_limits *limits)
{
	memset(p, 0, sizeof(*p));
	for (uint32_t i = 0; i < 2; i++) {
		struct rig *r = &p->homes[i];
		struct wvm_core_vm vm;

		rig_open(r, RIG_ELSEWHERE, i == NEW ? limits : NULL);
		r->slices.home_vnode[wvm_slice_of(RIG_VM, RIG_OTHER << WVM_PAGE_SHIFT)] =
			RIG_VNODE(RIG_SELF);
		vm = *wvm_core_vm_at(r->core, 0);
		r->params.self = member_of[i];
		r->core = wvm_core_init(r->memory, &r->params);
		ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
		wvm_core_serve(r->core, true);
	}
	table = p->homes[NEW].slices;
	table.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(RIG_SELF);
}

static void pair_close(struct pair *p)
{
	rig_close(&p->homes[FORMER]);
	rig_close(&p->homes[NEW]);
}

/* The whole message, as its receiver's transport would have put it together. */
static enum wvm_drop deliver(struct rig *r, struct wvm_msg m, const struct wvm_action *a,
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

static void kill_home(struct pair *p, uint32_t home)
{
	struct rig *r = &p->homes[home];

	rig_kill(r);
	for (uint64_t page = 0; page < RIG_PAGES; page++)
		wvm_core_adopt_held(r->core, r->now_ns, 0, page, false);
	wvm_core_adopt_held_end(r->core, r->now_ns);
}

/* To the other home. Its receiver may be killed before what it makes of it is final, or after. */
static void pass(struct pair *p, uint32_t to, const struct wvm_action *a)
{
	struct rig *r = &p->homes[to];

	p->passed++;
	ck_assert_uint_lt(p->passed, PASSED_MAX);
	if (p->lost && p->passed > p->lost)
		return;
	(void)deliver(r, a->msg, a, p->homes[!to].store);
	if (p->passed != p->cut)
		return;
	if (p->acted)
		(void)wvm_core_action(r->core);
	kill_home(p, to);
}

static void carry_out(struct pair *p, uint32_t home, const struct wvm_action *a)
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
static void settle(struct pair *p)
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

static void run_for(struct pair *p, uint64_t ns)
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
static enum wvm_drop tell(struct pair *p, uint32_t home, struct wvm_msg m, uint64_t page,
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

static const struct sent *last_sent(const struct pair *p, uint8_t type, uint32_t member)
{
	const struct sent *s = &p->sent[p->sent_count - 1];

	ck_assert_uint_gt(p->sent_count, 0);
	ck_assert_str_eq(wvm_msg_name(s->msg.type), wvm_msg_name(type));
	ck_assert_uint_eq(s->member, member);
	return s;
}

static void switch_over(struct pair *p, uint32_t home)
{
	struct rig *r = &p->homes[home];

	ck_assert_int_eq(wvm_core_epoch(r->core, r->now_ns, NEXT, &table), WVM_EPOCH_TAKEN);
	r->params.epoch = r->params.moved = NEXT;
	r->params.before = &r->slices;
	r->params.slices = &table;
	settle(p);
}

static void check_handed_over(struct pair *p)
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

/* Three inline, the others in seven blocks and more, of which the new home has eight. */
#define CROWD  40u
#define BLOCKS 8u
#define OTHERS 13u /* they have two of these */

static void crowd(struct pair *p, uint32_t home, uint32_t count, uint64_t page)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t epoch = p->homes[home].params.epoch, member = 10 + i;

		ck_assert_int_eq(tell(p, home,
				      message(WVM_MSG_MEM_READ, member, epoch, ID(100 + i)), page,
				      0),
				 WVM_DROP_NONE);
		last_sent(p, WVM_MSG_MEM_ACK, member);
	}
	p->sent_count = 0;
}

START_TEST(a_page_with_many_holders_comes_when_there_is_room_for_them_all)
{
	struct wvm_core_limits limits;
	struct wvm_home_page *e;
	struct rig *r;
	struct pair p;

	wvm_core_default_limits(&limits);
	limits.holder_blocks = BLOCKS;
	pair_open(&p, &limits);
	r = &p.homes[NEW];
	e = &r->home[0];
	crowd(&p, NEW, OTHERS, RIG_OTHER);
	crowd(&p, FORMER, CROWD, 0);
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	ck_assert_int_eq(tell(&p, NEW, message(WVM_MSG_MEM_READ, 9, NEXT, ID(1)), 0, 0),
			 WVM_DROP_NONE);
	run_for(&p, A_WHILE);
	/* Nothing is taken in part, nobody is served, and the former home has it still. */
	ck_assert_uint_eq(e->version + e->holders, 0);
	ck_assert_uint_eq(p.sent_count, 0);
	ck_assert_uint_eq(wvm_core_handover(r->core).in, 1);
	ck_assert_uint_eq(p.homes[FORMER].home[0].holders, CROWD);
	/* The other page's sharers go: there is room. */
	ck_assert_int_eq(tell(&p, NEW, message(WVM_MSG_MEM_ACQUIRE, 9, NEXT, ID(2)), RIG_OTHER, 0),
			 WVM_DROP_NONE);
	ck_assert_uint_eq(p.sent_count, OTHERS);
	for (uint32_t i = 0; i < OTHERS; i++) {
		struct sent s = p.sent[i];
		struct wvm_msg m = message(WVM_MSG_INVALIDATE_ACK, s.member, NEXT, s.msg.request);

		m.grant = s.msg.grant;
		m.version = s.msg.version;
		ck_assert_int_eq(tell(&p, NEW, m, RIG_OTHER, 0), WVM_DROP_NONE);
	}
	last_sent(&p, WVM_MSG_MEM_ACK, 9);
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, 9)->msg.request, ID(1));
	ck_assert_uint_eq(e->holders, CROWD + 1);
	for (uint32_t i = 0; i < CROWD; i++) {
		uint32_t record = wvm_holders_find(r->core, e, 10 + i);

		ck_assert_uint_ne(record, WVM_NIL);
		ck_assert_uint_eq(*wvm_holders_at(r->core, e, record).grant, ID(100 + i));
	}
	check_handed_over(&p);
	pair_close(&p);
}
END_TEST

/* Page 0: written, and many have it; 1: one has it Modified; 511: zeros, Shared by one. */
#define LAST     (WVM_UNIT_PAGES - 1)
#define MESSAGES 11u /* from one home to the other, if nothing happens */

static void fill_unit(struct pair *p)
{
	struct wvm_msg m = message(WVM_MSG_WRITE_BACK, 9, RIG_EPOCH, ID(1));

	ck_assert_int_eq(tell(p, FORMER, message(WVM_MSG_MEM_ACQUIRE, 9, RIG_EPOCH, ID(1)), 0, 0),
			 WVM_DROP_NONE);
	m.grant = ID(1);
	m.version = last_sent(p, WVM_MSG_MEM_ACK, 9)->msg.version;
	ck_assert_int_eq(tell(p, FORMER, m, 0, 0x55), WVM_DROP_NONE);
	crowd(p, FORMER, CROWD, 0);
	ck_assert_int_eq(tell(p, FORMER, message(WVM_MSG_MEM_ACQUIRE, 9, RIG_EPOCH, ID(2)), 1, 0),
			 WVM_DROP_NONE);
	ck_assert_int_eq(tell(p, FORMER, message(WVM_MSG_MEM_READ, 9, RIG_EPOCH, ID(3)), LAST, 0),
			 WVM_DROP_NONE);
	p->sent_count = 0;
}

/* An entry, without what may differ: which blocks have its further holders, and old grants. */
static struct wvm_home_page told_of(const struct rig *r, uint64_t page)
{
	struct wvm_home_page e = r->home[page];

	e.more = 0;
	if (e.state != WVM_HOME_MODIFIED)
		e.granted = 0;
	return e;
}

static void check_same_holders(struct rig *r, uint64_t page)
{
	struct wvm_home_page *e = &r->home[page];

	for (uint32_t i = 0; i < e->holders; i++) {
		struct wvm_holder h = wvm_holders_at(r->core, e, i);

		ck_assert_uint_eq(*h.member, page ? 9 : 10 + i);
		ck_assert_uint_eq(*h.grant, page ? ID(page == 1 ? 2 : 3) : ID(100 + i));
	}
}

/* The receiver of each message in turn: the new home of the odd ones, mostly, or the former one. */
START_TEST(either_home_may_be_killed_at_any_message)
{
	static const uint64_t pages[] = {0, 1, LAST};
	struct wvm_home_page before[3];
	uint64_t counter;
	struct pair p;

	pair_open(&p, NULL);
	fill_unit(&p);
	for (uint32_t i = 0; i < 3; i++)
		before[i] = told_of(&p.homes[FORMER], pages[i]);
	counter = p.homes[FORMER].units[0].version;
	ck_assert_uint_eq(before[0].holders, CROWD);
	ck_assert_int_eq(before[1].state, WVM_HOME_MODIFIED);
	p.cut = (uint32_t)_i / 2;
	p.acted = _i % 2;
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	run_for(&p, A_WHILE);
	ck_assert(p.cut ? p.passed > p.cut : p.passed == MESSAGES);
	check_handed_over(&p);
	for (uint32_t i = 0; i < 3; i++) {
		struct wvm_home_page e = told_of(&p.homes[NEW], pages[i]);

		ck_assert(!memcmp(&e, &before[i], sizeof(e)));
		check_same_holders(&p.homes[NEW], pages[i]);
	}
	ck_assert_uint_eq(p.homes[NEW].units[0].version, counter);
	for (uint32_t i = 0; i < WVM_PAGE_BYTES; i++)
		ck_assert_uint_eq(p.homes[NEW].store[i], 0x55);
	pair_close(&p);
}
END_TEST

/* Page 0, granted Modified by ID(1); its bytes are on their way home, or there already. */
START_TEST(bytes_on_their_way_are_stored_by_the_new_home_once)
{
	bool stored = _i;
	struct wvm_msg m = message(WVM_MSG_WRITE_BACK, 9, RIG_EPOCH, ID(1));
	const uint8_t *store;
	struct pair p;

	pair_open(&p, NULL);
	store = p.homes[NEW].store;
	ck_assert_int_eq(tell(&p, FORMER, message(WVM_MSG_MEM_ACQUIRE, 9, RIG_EPOCH, ID(1)), 0, 0),
			 WVM_DROP_NONE);
	m.grant = ID(1);
	m.version = last_sent(&p, WVM_MSG_MEM_ACK, 9)->msg.version;
	if (stored)
		ck_assert_int_eq(tell(&p, FORMER, m, 0, 0x55), WVM_DROP_NONE);
	switch_over(&p, FORMER);
	p.sent_count = 0;
	ck_assert_int_eq(tell(&p, FORMER, m, 0, 0x66), WVM_DROP_EPOCH);
	ck_assert_uint_eq(p.homes[FORMER].store[0], stored ? 0x55 : 0);
	m.epoch = NEXT;
	ck_assert_int_eq(tell(&p, FORMER, m, 0, 0x66), WVM_DROP_NODE);
	switch_over(&p, NEW);
	/* Of what has not come nothing is known, so it is dropped and asked for; and then repeated.
	 */
	ck_assert_int_eq(tell(&p, NEW, m, 0, 0x66), WVM_DROP_ROOM);
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(p.sent_count, 0);
	for (uint32_t i = 0; i < 2; i++) {
		ck_assert_int_eq(tell(&p, NEW, m, 0, i ? 0x77 : 0x66), WVM_DROP_NONE);
		ck_assert_uint_eq(last_sent(&p, WVM_MSG_WRITE_BACK_ACK, 9)->msg.version, m.version);
		ck_assert_uint_eq(store[0], stored ? 0x55 : 0x66);
		ck_assert_int_eq(p.homes[NEW].home[0].state, WVM_HOME_HOME);
	}
	check_handed_over(&p);
	pair_close(&p);
}
END_TEST

/* The holder has not heard that it is one grant now. It asks the new home, by the merge's id. */
START_TEST(a_merge_whose_answer_was_lost_is_granted_again_by_the_new_home)
{
	struct wvm_msg m = message(WVM_MSG_MEM_ACQUIRE, 10, RIG_EPOCH, ID(1));
	const struct sent *s;
	uint64_t merged;
	struct pair p;

	pair_open(&p, NULL);
	m.flags = WVM_MSG_UNIT;
	ck_assert_int_eq(tell(&p, FORMER, m, 5, 0), WVM_DROP_NONE);
	s = last_sent(&p, WVM_MSG_MEM_ACK, 10);
	m.request = ID(2);
	m.grant = ID(3);
	m.version = s->msg.version;
	m.flags = WVM_MSG_UNIT | WVM_MSG_HELD;
	ck_assert_int_eq(tell(&p, FORMER, m, 0, 0), WVM_DROP_NONE);
	s = last_sent(&p, WVM_MSG_MEM_ACK, 10);
	ck_assert_uint_eq(s->msg.flags, WVM_MSG_UNIT | WVM_MSG_HELD);
	merged = s->msg.version;
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	m.epoch = NEXT;
	m.request = ID(4);
	ck_assert_int_eq(tell(&p, NEW, m, 0, 0), WVM_DROP_ROOM); /* not before all of it is here */
	run_for(&p, A_WHILE);
	check_handed_over(&p);
	for (uint32_t i = 0; i < 2; i++) {
		p.sent_count = 0;
		m.request = ID(5 + i);
		/* Killed in between, too: it is of the unit's entry, which is durable. */
		if (i)
			kill_home(&p, NEW);
		ck_assert_int_eq(tell(&p, NEW, m, 0, 0), WVM_DROP_NONE);
		s = last_sent(&p, WVM_MSG_MEM_ACK, 10);
		ck_assert_uint_eq(s->msg.flags, WVM_MSG_UNIT | WVM_MSG_HELD);
		ck_assert_uint_eq(s->msg.grant, ID(3));
		ck_assert_uint_eq(s->msg.version, merged);
	}
	/* And whoever wants a page of it makes the new home ask for that grant. */
	ck_assert_int_eq(tell(&p, NEW, message(WVM_MSG_MEM_READ, 9, NEXT, ID(1)), 7, 0),
			 WVM_DROP_NONE);
	s = last_sent(&p, WVM_MSG_DOWNGRADE, 10);
	ck_assert(s->msg.grant == ID(3) && s->msg.version == merged);
	pair_close(&p);
}
END_TEST

/* A home looks at all entries of the unit to grant it, and a refusal raises its counter. */
START_TEST(a_merge_waits_for_all_of_the_unit)
{
	struct wvm_msg m = message(WVM_MSG_MEM_ACQUIRE, 9, NEXT, ID(5));
	const struct sent *s;
	uint64_t counter;
	struct pair p;

	pair_open(&p, NULL);
	fill_unit(&p);
	counter = p.homes[FORMER].units[0].version;
	switch_over(&p, FORMER);
	p.lost = 5; /* two questions about page 0, its two answers, and its bytes */
	switch_over(&p, NEW);
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(p.homes[NEW].home[0].holders, CROWD);
	ck_assert_uint_eq(p.homes[NEW].home[LAST].version, 0);
	m.grant = ID(4);
	m.version = counter;
	m.flags = WVM_MSG_UNIT | WVM_MSG_HELD;
	ck_assert_int_eq(tell(&p, NEW, m, 0, 0), WVM_DROP_ROOM);
	ck_assert_uint_eq(p.homes[NEW].units[0].version, counter);
	p.lost = 0;
	run_for(&p, A_WHILE);
	check_handed_over(&p);
	ck_assert_int_eq(tell(&p, NEW, m, 0, 0), WVM_DROP_NONE);
	s = last_sent(&p, WVM_MSG_MEM_ACK, 9);
	ck_assert_uint_eq(s->msg.flags, WVM_MSG_UNIT | WVM_MSG_ERROR);
	ck_assert_uint_gt(s->msg.version, counter);
	pair_close(&p);
}
END_TEST

/* Both nodes have two shards; the test is the other one of each. */
START_TEST(a_shard_hands_over_what_is_its_own)
{
	bool own = wvm_slice_of(RIG_VM, 0) % 2 == (uint32_t)_i;
	struct wvm_msg m = message(WVM_MSG_HANDOVER, RIG_SELF, NEXT, ID(5));
	struct pair p;

	pair_open(&p, NULL);
	for (uint32_t i = 0; i < 2; i++) {
		p.homes[i].core->params.shards = 2;
		p.homes[i].core->params.shard = (uint8_t)_i;
	}
	switch_over(&p, FORMER);
	ck_assert_uint_eq(wvm_core_handover(p.homes[FORMER].core).out, own);
	ck_assert_uint_eq(wvm_core_handover(p.homes[FORMER].core).in, 0);
	ck_assert_int_eq(tell(&p, FORMER, m, 0, 0), own ? WVM_DROP_NONE : WVM_DROP_NODE);
	m.type = WVM_MSG_HANDOVER_DONE;
	if (!own)
		ck_assert_int_eq(tell(&p, FORMER, m, 0, 0), WVM_DROP_NODE);
	p.passed = 0;
	switch_over(&p, NEW);
	ck_assert_uint_eq(wvm_core_handover(p.homes[NEW].core).in, own);
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(p.passed,
			  own ? 4 : 0); /* what is there, nothing; forget it, it is done */
	ck_assert_uint_eq(wvm_core_stats(p.homes[FORMER].core)->handover_given, own);
	check_handed_over(&p);
	pair_close(&p);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, a_page_with_many_holders_comes_when_there_is_room_for_them_all);
	tcase_add_loop_test(tc, either_home_may_be_killed_at_any_message, 0, 2 * (MESSAGES + 1));
	tcase_add_loop_test(tc, bytes_on_their_way_are_stored_by_the_new_home_once, 0, 2);
	tcase_add_test(tc, a_merge_whose_answer_was_lost_is_granted_again_by_the_new_home);
	tcase_add_test(tc, a_merge_waits_for_all_of_the_unit);
	tcase_add_loop_test(tc, a_shard_hands_over_what_is_its_own, 0, 2);
}

int main(void)
{
	return rig_main("handover pair", add);
}

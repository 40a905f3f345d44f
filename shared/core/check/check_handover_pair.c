/*
 * Two cores, a former home and a new one, with the test in the place of all others, of the wires
 * between the two, and of what kills them.
 */
#include "shared/core/check/pair.h"

static struct wvm_slices back; /* of the epoch after the next one */

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
	/* The last one leaves nothing to ask for, if it has come. */
	ck_assert(p.cut && (p.cut < MESSAGES || !p.acted) ? p.passed > p.cut
							  : p.passed == MESSAGES);
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

/*
 * The new home is killed right after the last message. It has counted nothing left by then, so the
 * others go on: the former home is in the next epoch before the new one can ask it anything.
 */
START_TEST(a_home_that_is_killed_when_nothing_is_left_takes_the_next_epoch)
{
	struct wvm_home_page before;
	struct pair p;

	pair_open(&p, NULL);
	back = p.homes[FORMER].slices;
	fill_unit(&p);
	before = told_of(&p.homes[FORMER], 0);
	p.cut = p.lost = MESSAGES;
	p.acted = true;
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	run_for(&p, A_WHILE);
	p.lost = 0;
	switch_to(&p, FORMER, NEXT + 1, &back);
	run_for(&p, A_WHILE);
	switch_to(&p, NEW, NEXT + 1, &back);
	run_for(&p, A_WHILE);
	for (uint32_t i = 0; i < 2; i++) {
		struct wvm_handover_left left = wvm_core_handover(p.homes[i].core);

		ck_assert_uint_eq(left.in + left.out, 0);
	}
	ck_assert_uint_eq(p.homes[NEW].home[0].version, 0);
	ck_assert_uint_eq(p.homes[FORMER].home[0].version, before.version);
	ck_assert_uint_eq(p.homes[FORMER].home[0].holders, CROWD);
	check_same_holders(&p.homes[FORMER], 0);
	ck_assert_uint_eq(p.homes[FORMER].store[0], 0x55);
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
	tcase_add_loop_test(tc, a_home_that_is_killed_when_nothing_is_left_takes_the_next_epoch, 0,
			    2);
	tcase_add_loop_test(tc, bytes_on_their_way_are_stored_by_the_new_home_once, 0, 2);
	tcase_add_test(tc, a_merge_whose_answer_was_lost_is_granted_again_by_the_new_home);
	tcase_add_test(tc, a_merge_waits_for_all_of_the_unit);
	tcase_add_loop_test(tc, a_shard_hands_over_what_is_its_own, 0, 2);
}

int main(void)
{
	return rig_main("handover pair", add);
}

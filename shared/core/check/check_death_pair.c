/* Deaths in the middle of hand-overs and of other deaths, message by message. */
#include "shared/core/bytes.h"
#include "shared/core/check/pair.h"
#include "shared/core/handover_int.h"

#define OWNER      9u
#define READER     10u
#define FIRST_HEIR 20u
#define JOINS      NEXT       /* the move that a death becomes a part of */
#define DEATH      (NEXT + 1) /* its epoch */

/* Of the epochs that take a member out: the first is JOINS + 1. */
struct burial {
	uint8_t members[RIG_MEMBERS];
	struct wvm_core_lost lost;
	struct wvm_slices slices, second;
};
static struct burial burials[3];

/*
 * `dead` dies, and `heir` has its slices. Members are at first the two homes, OWNER and READER; all
 * others are away.
 */
static void bury(struct pair *p, uint32_t home, uint32_t dead, uint32_t heir)
{
	struct rig *r = &p->homes[home];
	uint32_t epoch = r->params.epoch + 1;
	struct burial *b = &burials[epoch - DEATH];

	memset(b, 0, sizeof(*b));
	memset(b->members, WVM_LOST_ABSENT, sizeof(b->members));
	b->members[RIG_SELF] = b->members[RIG_ELSEWHERE] = b->members[OWNER] = b->members[READER] =
		WVM_LOST_NOT;
	if (r->params.lost) {
		b->lost = *r->params.lost;
		memcpy(b->members, b->lost.member, sizeof(b->members));
	}
	b->members[dead] = dead == OWNER ? WVM_LOST_HOLDER : WVM_LOST_EMPTY;
	b->lost.epoch = epoch;
	b->lost.moved = JOINS;
	b->lost.member = b->members;
	wvm_core_lost_slices(&b->lost, &r->members, r->params.slices, r->params.before, dead);
	b->slices = *r->params.slices;
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		if (b->slices.home_vnode[i] == RIG_VNODE(dead))
			b->slices.home_vnode[i] = RIG_VNODE(heir);
		b->second.home_vnode[i] = WVM_SLICE_NIL;
	}
	wvm_core_backup_next(r->core, &b->second);
	ck_assert_int_eq(wvm_core_epoch_lost(r->core, r->now_ns, epoch, &b->slices, &b->lost),
			 WVM_EPOCH_TAKEN);
	r->params.epoch = epoch;
	r->params.slices = &b->slices;
	r->params.backup = &b->second;
	r->params.lost = &b->lost;
	settle(p);
	p->sent_count = 0;
}

/* The member holds nothing of what the dead one homed. */
static void has_told(struct pair *p, uint32_t home, uint32_t member)
{
	struct rig *r = &p->homes[home];
	struct wvm_msg m = message(WVM_MSG_HOLDING_DONE, member, r->params.epoch,
				   RIG_ID(r->params.boot, RIG_SHARD, 1));

	m.flags = WVM_MSG_ANSWER;
	m.grant = 1u << 16;
	ck_assert_int_eq(tell(p, home, m, 0, 0), WVM_DROP_NONE);
	p->sent_count = 0;
}

static struct wvm_msg acquire(struct pair *p, uint32_t home, uint64_t page, uint64_t id)
{
	uint32_t epoch = p->homes[home].params.epoch;
	struct wvm_msg m = message(WVM_MSG_WRITE_BACK, OWNER, epoch, id);

	ck_assert_int_eq(tell(p, home, message(WVM_MSG_MEM_ACQUIRE, OWNER, epoch, id), page, 0),
			 WVM_DROP_NONE);
	m.grant = id;
	m.version = last_sent(p, WVM_MSG_MEM_ACK, OWNER)->msg.version;
	p->sent_count = 0;
	return m;
}

/* Bytes have overtaken the entry that they belong to, or that one is lost. */
START_TEST(bytes_of_a_page_whose_entry_has_not_come_leave_its_copy_as_it_is)
{
	struct pair p;
	struct rig *r = &p.homes[NEW];

	pair_open_all(&p, NULL, true);
	ck_assert_int_eq(tell(&p, FORMER, acquire(&p, FORMER, 0, ID(1)), 0, 0x55), WVM_DROP_NONE);
	run_for(&p, 2 * A_WHILE);
	ck_assert(wvm_backup_counts(r->core, 0, 0) && wvm_backup_complete(r->core, 0, 0));
	switch_over(&p, FORMER);
	p.lost = p.passed;
	switch_over(&p, NEW);
	ck_assert_int_eq(tell(&p, NEW, message(WVM_MSG_MEM_READ, OWNER, NEXT, ID(7)), 0, 0),
			 WVM_DROP_NONE);
	for (uint32_t i = 0; i < WVM_PULLS; i++)
		if (r->core->pulls[i].state != WVM_PULL_FREE)
			(void)tell(&p, NEW,
				   message(WVM_MSG_HANDOVER_PAGE, RIG_ELSEWHERE, NEXT,
					   r->core->pulls[i].id),
				   0, 0x55);
	p.sent_count = 0;
	bury(&p, NEW, RIG_ELSEWHERE, RIG_SELF);
	has_told(&p, NEW, RIG_SELF);
	has_told(&p, NEW, OWNER);
	has_told(&p, NEW, READER);
	ck_assert_int_eq(tell(&p, NEW, message(WVM_MSG_MEM_READ, OWNER, DEATH, ID(9)), 0, 0),
			 WVM_DROP_NONE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, OWNER)->fill, 0x55);
	pair_close(&p);
}
END_TEST

/* It was to be told that it may forget the unit, which came from nowhere. */
START_TEST(a_unit_made_anew_is_done_when_its_former_home_dies_too)
{
	struct pair p;
	struct rig *r = &p.homes[NEW];

	pair_open_all(&p, NULL, true);
	table.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(FIRST_HEIR);
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	bury(&p, NEW, FIRST_HEIR, RIG_SELF);
	p.lost = p.passed;
	has_told(&p, NEW, RIG_SELF);
	has_told(&p, NEW, RIG_ELSEWHERE);
	has_told(&p, NEW, OWNER);
	has_told(&p, NEW, READER);
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(wvm_core_handover(r->core).in, 1);
	bury(&p, NEW, RIG_ELSEWHERE, RIG_SELF);
	if (_i)
		kill_home(&p, NEW);
	has_told(&p, NEW, RIG_SELF);
	has_told(&p, NEW, OWNER);
	has_told(&p, NEW, READER);
	run_for(&p, 2 * A_WHILE);
	ck_assert_uint_eq(wvm_core_handover(r->core).in, 0);
	pair_close(&p);
}
END_TEST

/*
 * It was never asked for the unit: the first heir died before. The second one has served it since,
 * without asking for anything.
 */
START_TEST(a_former_home_has_nothing_to_go_on_with_when_others_made_its_unit_anew)
{
	struct wvm_msg m, read = message(WVM_MSG_MEM_READ, OWNER, DEATH + 1, ID(9));
	struct pair p;
	struct rig *r = &p.homes[FORMER];

	pair_open_all(&p, NULL, true);
	table.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(FIRST_HEIR);
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	bury(&p, FORMER, FIRST_HEIR, RIG_SELF);
	bury(&p, NEW, FIRST_HEIR, RIG_SELF);
	p.lost = p.passed;
	has_told(&p, NEW, RIG_SELF);
	has_told(&p, NEW, RIG_ELSEWHERE);
	has_told(&p, NEW, OWNER);
	has_told(&p, NEW, READER);
	m = acquire(&p, NEW, 0, ID(1));
	ck_assert_int_eq(tell(&p, NEW, m, 0, 0x66), WVM_DROP_NONE);
	last_sent(&p, WVM_MSG_WRITE_BACK_ACK, OWNER);
	bury(&p, FORMER, RIG_SELF, RIG_ELSEWHERE);
	if (_i)
		kill_home(&p, FORMER);
	/* Not before all have told. */
	ck_assert_int_eq(tell(&p, FORMER, read, 0, 0), WVM_DROP_ROOM);
	has_told(&p, FORMER, RIG_ELSEWHERE);
	has_told(&p, FORMER, OWNER);
	has_told(&p, FORMER, READER);
	ck_assert_int_eq(tell(&p, FORMER, read, 0, 0), WVM_DROP_NONE);
	ck_assert(last_sent(&p, WVM_MSG_MEM_ACK, OWNER)->msg.flags & WVM_MSG_ERROR);
	ck_assert_uint_eq(r->home[0].flags & WVM_HOME_LOST, WVM_HOME_LOST);
	pair_close(&p);
}
END_TEST

/* Bytes that have come before their entry; and copies of a pair of long ago, not forgotten yet. */
START_TEST(old_copies_are_not_forgotten_with_the_bytes_of_a_page_that_is_coming)
{
	uint32_t i = 0;
	uint64_t id;
	struct pair p;
	struct rig *r = &p.homes[NEW];

	pair_open_all(&p, NULL, true);
	ck_assert_int_eq(tell(&p, FORMER, acquire(&p, FORMER, 0, ID(1)), 0, 0x55), WVM_DROP_NONE);
	run_for(&p, 2 * A_WHILE);
	for (uint64_t page = 0; page < WVM_UNIT_PAGES; page++)
		r->home[page] = (struct wvm_home_page){0};
	r->home[9] = (struct wvm_home_page){.version = V(1), .flags = WVM_HOME_BACKUP};
	r->units[0].era = NEXT + 9;
	switch_over(&p, FORMER);
	p.lost = p.passed;
	switch_over(&p, NEW);
	p.sent_count = 0;
	ck_assert_int_eq(tell(&p, NEW, message(WVM_MSG_MEM_READ, OWNER, NEXT, ID(7)), 0, 0),
			 WVM_DROP_NONE);
	while (r->core->pulls[i].state != WVM_PULL_PAGE)
		i++;
	id = r->core->pulls[i].id;
	(void)tell(&p, NEW, message(WVM_MSG_HANDOVER_PAGE, RIG_ELSEWHERE, NEXT, id), 0, 0x55);
	run_for(&p, 1000000);
	p.lost = p.passed + 1;
	(void)tell(&p, FORMER, message(WVM_MSG_HANDOVER, RIG_SELF, NEXT, id), 0, 0);
	p.lost = 0;
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, OWNER)->fill, 0x55);
	pair_close(&p);
}
END_TEST

/* READER has it Shared: zeros, as long as nobody could have written other bytes. */
START_TEST(a_shared_page_without_a_copy_is_no_zeros_once_its_writer_may_have_died)
{
	uint8_t payload[WVM_HOLDING_PAGE];
	struct wvm_msg m;
	struct pair p;
	struct rig *r = &p.homes[NEW];

	pair_open_all(&p, NULL, true);
	run_for(&p, 2 * A_WHILE);
	switch_over(&p, FORMER);
	p.lost = p.passed;
	switch_over(&p, NEW);
	bury(&p, NEW, RIG_ELSEWHERE, RIG_SELF);
	wvm_store16(payload, 5);
	wvm_store16(payload + 2, WVM_HOLDING_SHARED);
	wvm_store64(payload + 4, V(8));
	wvm_store64(payload + 12, ID(3));
	for (uint32_t i = 0; i < 2; i++) {
		m = message(WVM_MSG_HOLDING, READER, r->params.epoch, ID(20 + i));
		m.payload_len = sizeof(payload);
		m.seg_total = (sizeof(payload) + WVM_SEGMENT_UNIT - 1) & ~(WVM_SEGMENT_UNIT - 1);
		ck_assert_int_eq(in(r, m, payload), WVM_DROP_NONE);
		settle(&p);
		if (!i)
			bury(&p, NEW, OWNER, RIG_SELF);
	}
	has_told(&p, NEW, RIG_SELF);
	has_told(&p, NEW, READER);
	m = message(WVM_MSG_MEM_READ, 11, r->params.epoch, ID(30));
	ck_assert_int_eq(tell(&p, NEW, m, 5, 0), WVM_DROP_NONE);
	ck_assert(last_sent(&p, WVM_MSG_MEM_ACK, 11)->msg.flags & WVM_MSG_ERROR);
	pair_close(&p);
}
END_TEST

/*
 * The new home dies right after all has come, or has only begun to: who gave it away has it still,
 * unless somebody without files may have had pages Modified since.
 */
START_TEST(what_was_given_to_a_home_that_died_comes_back_unless_a_member_lost_its_files)
{
	struct pair p;
	struct rig *r = &p.homes[FORMER];
	struct wvm_msg read = message(WVM_MSG_MEM_READ, READER, DEATH, ID(9));
	bool asked = _i / 2, renewed = _i % 2;

	pair_open_all(&p, NULL, true);
	ck_assert_int_eq(tell(&p, FORMER, acquire(&p, FORMER, 3, ID(1)), 3, 0x55), WVM_DROP_NONE);
	switch_over(&p, FORMER);
	if (asked)
		ck_assert_int_eq(
			tell(&p, FORMER, message(WVM_MSG_HANDOVER, RIG_SELF, NEXT, ID(3)), 0, 0),
			WVM_DROP_NONE);
	else
		switch_over(&p, NEW);
	for (uint32_t i = 0; i < 1000 && !asked && wvm_core_handover(r->core).out; i++)
		run_for(&p, A_WHILE / 1000);
	p.lost = p.passed;
	ck_assert_int_eq(wvm_moved_phase_of(r->core, 0, 0),
			 asked ? WVM_MOVED_ASKED : WVM_MOVED_GIVEN);
	ck_assert(!wvm_backup_complete(r->core, 0, 3));
	if (renewed)
		wvm_core_renewed(r->core, OWNER, 0xfff0);
	bury(&p, FORMER, RIG_SELF, RIG_ELSEWHERE);
	has_told(&p, FORMER, RIG_ELSEWHERE);
	has_told(&p, FORMER, OWNER);
	has_told(&p, FORMER, READER);
	ck_assert_int_eq(tell(&p, FORMER, read, 3, 0), WVM_DROP_NONE);
	if (renewed)
		ck_assert(last_sent(&p, WVM_MSG_MEM_ACK, READER)->msg.flags & WVM_MSG_ERROR);
	else
		ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, READER)->fill, 0x55);
	pair_close(&p);
}
END_TEST

/*
 * It is the second home of what it gave away, and its entries are the copies: others have been told
 * that all is there, and nobody sends it again.
 */
START_TEST(a_former_home_that_restarts_keeps_its_copies_for_the_new_one)
{
	struct pair p;
	struct rig *r = &p.homes[FORMER];
	struct wvm_msg read = message(WVM_MSG_MEM_READ, READER, DEATH, ID(9));
	struct wvm_home_page copy;

	pair_open_all(&p, NULL, true);
	ck_assert_int_eq(tell(&p, FORMER, acquire(&p, FORMER, 3, ID(1)), 3, 0x55), WVM_DROP_NONE);
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	run_for(&p, 2 * A_WHILE);
	ck_assert_int_eq(wvm_moved_phase_of(r->core, 0, 3), WVM_MOVED_GIVEN);
	ck_assert(wvm_backup_counts(r->core, 0, 3) && wvm_backup_complete(r->core, 0, 3));
	copy = r->home[3];
	ck_assert_uint_eq(copy.flags, WVM_HOME_BACKUP | WVM_HOME_WRITTEN);
	p.lost = p.passed;
	kill_home(&p, FORMER);
	ck_assert(wvm_backup_complete(r->core, 0, 3));
	ck_assert(!memcmp(&r->home[3], &copy, sizeof(copy)));
	/* What they are for. */
	bury(&p, FORMER, RIG_SELF, RIG_ELSEWHERE);
	has_told(&p, FORMER, RIG_ELSEWHERE);
	has_told(&p, FORMER, OWNER);
	has_told(&p, FORMER, READER);
	ck_assert_int_eq(tell(&p, FORMER, read, 3, 0), WVM_DROP_NONE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, READER)->fill, 0x55);
	pair_close(&p);
}
END_TEST

/* What it took of a home that died, and was none before the move, its heir has now. */
START_TEST(who_took_pages_of_a_dead_home_speaks_against_an_heir_without_files)
{
	struct pair p;
	struct rig *r = &p.homes[NEW];

	pair_open_all(&p, NULL, true);
	table.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(FIRST_HEIR);
	switch_over(&p, NEW);
	r->core->taken[FIRST_HEIR] = 1;
	ck_assert_uint_eq(wvm_core_taken(r->core, RIG_ELSEWHERE), 0);
	bury(&p, NEW, FIRST_HEIR, RIG_ELSEWHERE);
	ck_assert_uint_gt(wvm_core_taken(r->core, RIG_ELSEWHERE), 0);
	pair_close(&p);
}
END_TEST

/* All of it has come, with the word that what is left is lost; and the former home dies. */
START_TEST(a_unit_with_a_lost_rest_is_done_when_its_former_home_has_died)
{
	struct pair p;
	struct rig *r = &p.homes[NEW];
	struct wvm_msg read = message(WVM_MSG_MEM_READ, OWNER, DEATH, ID(9));

	pair_open_all(&p, NULL, true);
	p.lost = 1;
	ck_assert_int_eq(tell(&p, FORMER, acquire(&p, FORMER, 3, ID(1)), 3, 0x55), WVM_DROP_NONE);
	p.homes[FORMER].units[0].lost = WVM_UNIT_UNKNOWN | WVM_UNIT_REBUILT;
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	p.lost = 0;
	for (uint32_t i = 0; i < 100 && wvm_moved_phase_of(r->core, 0, 0) != WVM_MOVED_CAME; i++) {
		p.lost = p.passed + 2 + i % 3; /* a question and its answers */
		run_for(&p, A_WHILE / 100);
	}
	p.lost = p.passed;
	ck_assert_uint_eq(wvm_moved_phase_of(r->core, 0, 0), WVM_MOVED_CAME);
	bury(&p, NEW, RIG_ELSEWHERE, RIG_SELF);
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(wvm_core_handover(r->core).in, 0);
	ck_assert_int_eq(tell(&p, NEW, read, 3, 0), WVM_DROP_NONE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, OWNER)->fill, 0x55);
	read.request++;
	ck_assert_int_eq(tell(&p, NEW, read, 4, 0), WVM_DROP_NONE);
	ck_assert(last_sent(&p, WVM_MSG_MEM_ACK, OWNER)->msg.flags & WVM_MSG_ERROR);
	pair_close(&p);
}
END_TEST

/*
 * Entries of before a merge need not be zeros yet. The unit comes back to the home that merged it,
 * and nobody holds anything of it: the pages were written back to the one that is dead.
 */
START_TEST(entries_of_before_a_merge_do_not_count_again_when_the_unit_comes_back)
{
	struct wvm_msg read = message(WVM_MSG_MEM_READ, OWNER, DEATH, ID(9));
	struct pair p;
	struct rig *r = &p.homes[FORMER];

	pair_open_all(&p, NULL, true);
	table.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(FIRST_HEIR);
	p.lost = 1;
	ck_assert_int_eq(tell(&p, FORMER, acquire(&p, FORMER, 0, ID(1)), 0, 0x55), WVM_DROP_NONE);
	r->units[0].granted = ++r->units[0].version;
	r->units[0].granted = ++r->units[0].version;
	r->units[0].grant = ID(2);
	r->units[0].owner = OWNER;
	r->units[0].merged = 1;
	r->units[0].entries = 0;
	switch_over(&p, FORMER);
	ck_assert_int_eq(tell(&p, FORMER, message(WVM_MSG_HANDOVER, FIRST_HEIR, NEXT, ID(3)), 0, 0),
			 WVM_DROP_NONE);
	bury(&p, FORMER, FIRST_HEIR, RIG_ELSEWHERE);
	has_told(&p, FORMER, RIG_SELF);
	has_told(&p, FORMER, RIG_ELSEWHERE);
	has_told(&p, FORMER, OWNER);
	has_told(&p, FORMER, READER);
	ck_assert_int_eq(tell(&p, FORMER, read, 0, 0), WVM_DROP_NONE);
	ck_assert(last_sent(&p, WVM_MSG_MEM_ACK, OWNER)->msg.flags & WVM_MSG_ERROR);
	pair_close(&p);
}
END_TEST

/* Another one may have written it since, and been told that it is stored: by the dead home. */
START_TEST(a_late_write_back_is_not_the_last_one_where_copies_are_missing)
{
	uint8_t payload[WVM_HOLDING_PAGE];
	struct wvm_msg m;
	struct pair p;
	struct rig *r = &p.homes[NEW];
	bool kept = _i;

	pair_open_all(&p, NULL, true);
	table.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(FIRST_HEIR);
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	bury(&p, NEW, FIRST_HEIR, RIG_SELF);
	wvm_store16(payload, 5);
	wvm_store16(payload + 2, kept ? WVM_HOLDING_WRITTEN_KEPT : WVM_HOLDING_WRITTEN);
	wvm_store64(payload + 4, V(6));
	wvm_store64(payload + 12, ID(3));
	m = message(WVM_MSG_HOLDING, READER, DEATH, ID(20));
	m.payload_len = sizeof(payload);
	m.seg_total = (sizeof(payload) + WVM_SEGMENT_UNIT - 1) & ~(WVM_SEGMENT_UNIT - 1);
	ck_assert_int_eq(in(r, m, payload), WVM_DROP_NONE);
	settle(&p);
	has_told(&p, NEW, RIG_SELF);
	has_told(&p, NEW, RIG_ELSEWHERE);
	has_told(&p, NEW, OWNER);
	has_told(&p, NEW, READER);
	m = message(WVM_MSG_WRITE_BACK, READER, DEATH, ID(21));
	m.grant = ID(3);
	m.version = V(6);
	m.flags = kept ? WVM_MSG_KEEP : 0;
	ck_assert_int_eq(tell(&p, NEW, m, 5, 0x66), WVM_DROP_NONE);
	m = message(WVM_MSG_MEM_READ, OWNER, DEATH, ID(30));
	ck_assert_int_eq(tell(&p, NEW, m, 5, 0), WVM_DROP_NONE);
	m = last_sent(&p, WVM_MSG_MEM_ACK, OWNER)->msg;
	ck_assert_uint_eq(!(m.flags & WVM_MSG_ERROR), kept);
	ck_assert_uint_eq(p.sent[p.sent_count - 1].fill, kept ? 0x66 : 0);
	pair_close(&p);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("death, a pair");
	TCase *tc = tcase_create("death");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(
		tc, what_was_given_to_a_home_that_died_comes_back_unless_a_member_lost_its_files, 0,
		4);
	tcase_add_test(tc, bytes_of_a_page_whose_entry_has_not_come_leave_its_copy_as_it_is);
	tcase_add_loop_test(tc, a_unit_made_anew_is_done_when_its_former_home_dies_too, 0, 2);
	tcase_add_loop_test(
		tc, a_former_home_has_nothing_to_go_on_with_when_others_made_its_unit_anew, 0, 2);
	tcase_add_test(tc, old_copies_are_not_forgotten_with_the_bytes_of_a_page_that_is_coming);
	tcase_add_test(tc, a_shared_page_without_a_copy_is_no_zeros_once_its_writer_may_have_died);
	tcase_add_test(tc, a_former_home_that_restarts_keeps_its_copies_for_the_new_one);
	tcase_add_test(tc, who_took_pages_of_a_dead_home_speaks_against_an_heir_without_files);
	tcase_add_test(tc, a_unit_with_a_lost_rest_is_done_when_its_former_home_has_died);
	tcase_add_test(tc, entries_of_before_a_merge_do_not_count_again_when_the_unit_comes_back);
	tcase_add_loop_test(tc, a_late_write_back_is_not_the_last_one_where_copies_are_missing, 0,
			    2);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

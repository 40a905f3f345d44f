/*
 * Members that begin without the files of an earlier life: what that one had Modified is LOST at
 * every home, and no second home takes an older copy for it.
 */
#include "shared/core/check/pair.h"

#include "shared/core/bytes.h"

#define FIRST  FORMER /* home of unit 0, which NEW is the second home of */
#define SECOND NEW
#define OWNER  9u
#define READER 10u
#define NOW    10u /* the life of OWNER after that of ID(): that of LATER() */
#define STORED 3u  /* written back, and granted once more */
#define CLEAN  4u  /* written back */

static struct wvm_msg ask(const struct pair *p, uint32_t home, uint8_t type, uint32_t member,
			  uint64_t id)
{
	return message(type, member, p->homes[home].params.epoch, id);
}

/* The answer to a request of the member. */
static const struct sent *get(struct pair *p, uint32_t home, uint8_t type, uint32_t member,
			      uint64_t page, uint64_t id)
{
	p->sent_count = 0;
	ck_assert_int_eq(tell(p, home, ask(p, home, type, member, id), page, 0), WVM_DROP_NONE);
	return last_sent(p, WVM_MSG_MEM_ACK, member);
}

static void write_back(struct pair *p, uint64_t page, uint64_t id, uint8_t fill)
{
	struct wvm_msg m = ask(p, FIRST, WVM_MSG_WRITE_BACK, OWNER, id);

	m.grant = id;
	m.version = get(p, FIRST, WVM_MSG_MEM_ACQUIRE, OWNER, page, id)->msg.version;
	ck_assert_int_eq(tell(p, FIRST, m, page, fill), WVM_DROP_NONE);
}

/* OWNER has stored to STORED what nobody else has; all else is at both homes. */
static void open_stored(struct pair *p, bool backed)
{
	pair_open_all(p, NULL, backed);
	write_back(p, STORED, ID(1), 0x33);
	write_back(p, CLEAN, ID(2), 0x44);
	get(p, FIRST, WVM_MSG_MEM_ACQUIRE, OWNER, STORED, ID(3));
	run_for(p, 2 * A_WHILE);
	p->sent_count = 0;
}

static void renew(struct pair *p, uint32_t home)
{
	wvm_core_renewed(p->homes[home].core, OWNER, NOW);
}

static bool is_lost(const struct pair *p, uint32_t home, uint64_t page)
{
	struct wvm_home_page e = wvm_core_homed(wvm_core_vm_at(p->homes[home].core, 0), page);

	return e.flags & WVM_HOME_LOST && e.state == WVM_HOME_HOME && !e.holders;
}

static bool is_complete(const struct pair *p)
{
	return wvm_backup_complete(p->homes[SECOND].core, 0, 0);
}

/* Both say so, and the copy of what is lost is. */
static void check_agreed(struct pair *p)
{
	ck_assert_uint_eq(wvm_core_degraded(p->homes[FIRST].core), 0);
	ck_assert(is_complete(p));
	ck_assert(is_lost(p, FIRST, STORED));
	ck_assert(!is_lost(p, FIRST, CLEAN));
	ck_assert_uint_eq(p->homes[SECOND].home[STORED].flags, WVM_HOME_BACKUP | WVM_HOME_LOST);
	ck_assert_uint_eq(p->homes[SECOND].home[CLEAN].flags, WVM_HOME_BACKUP | WVM_HOME_WRITTEN);
}

/* ---- the home -------------------------------------------------------------------------- */

START_TEST(whoever_waits_for_what_is_gone_gets_an_error_at_once)
{
	struct pair p;

	open_stored(&p, true);
	ck_assert_int_eq(
		tell(&p, FIRST, ask(&p, FIRST, WVM_MSG_MEM_READ, READER, ID(20)), STORED, 0),
		WVM_DROP_NONE);
	last_sent(&p, WVM_MSG_DOWNGRADE, OWNER);
	p.sent_count = 0;
	renew(&p, FIRST);
	ck_assert(is_lost(&p, FIRST, STORED));
	run_for(&p, 1000);
	ck_assert_uint_eq(p.sent_count, 1);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, READER)->msg.flags, WVM_MSG_ERROR);
	ck_assert_uint_eq(get(&p, FIRST, WVM_MSG_MEM_READ, READER, CLEAN, ID(21))->fill, 0x44);
	pair_close(&p);
}
END_TEST

/* Its late messages are not heard, and what its present life was granted stays, told again. */
START_TEST(the_present_life_keeps_what_it_has)
{
	struct wvm_home_page e;
	struct wvm_msg late;
	struct pair p;

	open_stored(&p, true);
	get(&p, FIRST, WVM_MSG_MEM_READ, OWNER, CLEAN, ID(4));
	renew(&p, FIRST);
	ck_assert_uint_eq(p.homes[FIRST].home[CLEAN].holders, 0);
	late = ask(&p, FIRST, WVM_MSG_MEM_ACQUIRE, OWNER, ID(5));
	p.sent_count = 0;
	ck_assert_int_eq(tell(&p, FIRST, late, CLEAN, 0), WVM_DROP_STALE);
	late.flags = WVM_MSG_UNIT;
	ck_assert_int_eq(tell(&p, FIRST, late, CLEAN, 0), WVM_DROP_STALE);
	ck_assert_uint_eq(p.sent_count, 0);
	get(&p, FIRST, WVM_MSG_MEM_ACQUIRE, OWNER, CLEAN, LATER(1));
	renew(&p, FIRST);
	run_for(&p, 2 * A_WHILE);
	e = p.homes[FIRST].home[CLEAN];
	ck_assert_uint_eq(e.state, WVM_HOME_MODIFIED);
	ck_assert_uint_eq(e.grant[0], LATER(1));
	pair_close(&p);
}
END_TEST

/* Pages that have no entry, nor need there be room for one. And some have. */
START_TEST(what_is_left_of_a_unit_granted_whole_is_lost)
{
	struct wvm_msg m;
	struct pair p;

	pair_open_all(&p, NULL, true);
	m = ask(&p, FIRST, WVM_MSG_MEM_ACQUIRE, OWNER, ID(1));
	m.flags = WVM_MSG_UNIT;
	ck_assert_int_eq(tell(&p, FIRST, m, 7, 0), WVM_DROP_NONE);
	m = ask(&p, FIRST, WVM_MSG_WRITE_BACK, OWNER, ID(1));
	m.grant = ID(1);
	m.version = last_sent(&p, WVM_MSG_MEM_ACK, OWNER)->msg.version;
	if (_i)
		ck_assert_int_eq(tell(&p, FIRST, m, CLEAN, 0x44), WVM_DROP_NONE);
	run_for(&p, 2 * A_WHILE);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), 0);
	renew(&p, FIRST);
	renew(&p, SECOND);
	ck_assert(!p.homes[FIRST].home[7].version);
	ck_assert(is_lost(&p, FIRST, 7));
	kill_home(&p, FIRST);
	ck_assert(is_lost(&p, FIRST, 7));
	ck_assert_uint_eq(get(&p, FIRST, WVM_MSG_MEM_READ, READER, 7, ID(20))->msg.flags,
			  WVM_MSG_ERROR);
	if (_i)
		ck_assert_uint_eq(get(&p, FIRST, WVM_MSG_MEM_READ, READER, CLEAN, ID(21))->fill,
				  0x44);
	/* Which pages there were is not known, so it is never called copied. */
	run_for(&p, 2 * A_WHILE);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), 1);
	ck_assert(!is_complete(&p));
	pair_close(&p);
}
END_TEST

/* ---- home and second home -------------------------------------------------------------- */

/* Bits: the second home is told first; it is killed right after; the other one is told as well. */
START_TEST(nothing_counts_as_complete_until_both_know_the_same)
{
	uint32_t first = _i & 1 ? SECOND : FIRST;
	bool killed = _i & 2, both = _i & 4;
	struct wvm_msg done;
	struct pair p;

	open_stored(&p, true);
	ck_assert(is_complete(&p));
	done = ask(&p, SECOND, WVM_MSG_BACKUP_DONE, RIG_ELSEWHERE, ID(60));
	done.grant = RIG_BOOT;
	renew(&p, first);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), first == FIRST);
	ck_assert(is_complete(&p) == (first == FIRST));
	if (killed)
		kill_home(&p, first);
	if (both)
		renew(&p, !first);
	/* What the home has said before it knew comes late. */
	if (first == SECOND || both) {
		p.lost = p.passed;
		ck_assert_int_eq(tell(&p, SECOND, done, 0, 0), WVM_DROP_NONE);
		p.lost = 0;
		ck_assert(!is_complete(&p));
	}
	/* The other one learns it by that (each is a home of something). Told again it has nothing
	 * to do. */
	run_for(&p, 4 * A_WHILE);
	check_agreed(&p);
	renew(&p, SECOND);
	renew(&p, FIRST);
	check_agreed(&p);
	pair_close(&p);
}
END_TEST

/* Nothing was lost: the word alone is said again. */
START_TEST(copies_that_are_not_in_doubt_are_not_sent_again)
{
	struct pair p;
	uint64_t copied;

	open_stored(&p, true);
	wvm_core_renewed(p.homes[FIRST].core, READER, NOW);
	wvm_core_renewed(p.homes[SECOND].core, READER, NOW);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), 1);
	ck_assert(!is_complete(&p));
	copied = wvm_core_stats(p.homes[FIRST].core)->backup_copied;
	run_for(&p, 2 * A_WHILE);
	ck_assert_uint_eq(wvm_core_stats(p.homes[FIRST].core)->backup_copied, copied);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), 0);
	ck_assert(is_complete(&p));
	pair_close(&p);
}
END_TEST

/* Each knows of members that the other has not heard of. */
START_TEST(both_learn_all_that_the_other_knows)
{
	struct pair p;

	open_stored(&p, true);
	for (uint32_t i = 0; i < 20; i++)
		wvm_core_renewed(p.homes[i % 2].core, 20 + i, (uint16_t)(2 + i));
	renew(&p, SECOND);
	renew(&p, FIRST);
	run_for(&p, 4 * A_WHILE);
	check_agreed(&p);
	for (uint32_t i = 0; i < 20; i++)
		for (uint32_t home = 0; home < 2; home++)
			ck_assert_uint_eq(p.homes[home].core->renewed[20 + i], 2 + i);
	pair_close(&p);
}
END_TEST

/* ---- a home that dies ------------------------------------------------------------------ */

static struct wvm_core_lost lost;
static uint8_t fate[RIG_MEMBERS];

/* SECOND takes the place of FIRST, which is heard no more. */
static void bury(struct pair *p)
{
	struct rig *r = &p->homes[SECOND];

	memset(&lost, 0, sizeof(lost));
	memset(fate, WVM_LOST_ABSENT, sizeof(fate));
	fate[RIG_SELF] = fate[OWNER] = WVM_LOST_NOT;
	fate[RIG_ELSEWHERE] = WVM_LOST_EMPTY;
	lost.epoch = lost.moved = NEXT;
	lost.member = fate;
	wvm_core_lost_slices(&lost, r->params.members, &r->slices, NULL, RIG_ELSEWHERE);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		backup_next.home_vnode[i] = WVM_SLICE_NIL;
	p->lost = p->passed;
	wvm_core_backup_next(r->core, &backup_next);
	ck_assert_int_eq(wvm_core_epoch_lost(r->core, r->now_ns, NEXT, &table, &lost),
			 WVM_EPOCH_TAKEN);
	r->params.epoch = NEXT;
}

/* Its own holder and OWNER are asked whether they have told all. */
static void all_told(struct pair *p)
{
	struct rig *r = &p->homes[SECOND];

	run_for(p, A_WHILE / 8);
	for (uint32_t i = 0; i < p->sent_count; i++) {
		struct wvm_msg m = message(WVM_MSG_HOLDING_DONE, p->sent[i].member, NEXT,
					   p->sent[i].msg.request);

		if (p->sent[i].msg.type != WVM_MSG_HOLDING_DONE)
			continue;
		m.flags = WVM_MSG_ANSWER;
		m.grant = 1 << 16; /* it has one shard, and this is it */
		(void)wvm_core_message(r->core, r->now_ns, &m, NULL);
		settle(p);
	}
	run_for(p, A_WHILE / 8);
	p->sent_count = 0;
}

/* What its former life holds Modified, told by that one. */
static enum wvm_drop tell_modified(struct pair *p, uint64_t version)
{
	struct wvm_msg m = message(WVM_MSG_HOLDING, OWNER, NEXT, ID(70));
	uint8_t page[WVM_HOLDING_PAGE];

	wvm_store16(page, STORED);
	wvm_store16(page + 2, WVM_HOLDING_MODIFIED);
	wvm_store64(page + 4, version);
	wvm_store64(page + 12, ID(3));
	m.payload_len = sizeof(page);
	m.seg_total = 32;
	return wvm_core_message(p->homes[SECOND].core, p->homes[SECOND].now_ns, &m, page);
}

enum when { NEVER, BEFORE, TELLING, TOLD, AFTER };

/*
 * OWNER tells that it holds nothing, as its new life does, but for TOLD and AFTER. Not told of it
 * (NEVER) the second home has to take its copy for the last bytes.
 */
START_TEST(a_second_home_that_takes_over_does_not_serve_the_older_copy)
{
	enum when when = (enum when)_i;
	uint64_t granted;
	struct pair p;

	open_stored(&p, true);
	granted = p.homes[FIRST].home[STORED].granted;
	if (when == BEFORE)
		renew(&p, SECOND);
	bury(&p);
	run_for(&p, A_WHILE / 8);
	if (when == TOLD || when == AFTER) {
		ck_assert_int_eq(tell_modified(&p, granted), WVM_DROP_NONE);
		settle(&p);
	}
	if (when == TELLING || when == TOLD) {
		renew(&p, SECOND);
		ck_assert_int_eq(tell_modified(&p, granted), WVM_DROP_STALE);
	}
	all_told(&p);
	if (when == AFTER) {
		ck_assert(!is_lost(&p, SECOND, STORED));
		renew(&p, SECOND);
	}
	ck_assert(is_lost(&p, SECOND, STORED) == (when != NEVER));
	if (when == NEVER)
		ck_assert_uint_eq(get(&p, SECOND, WVM_MSG_MEM_READ, READER, STORED, ID(20))->fill,
				  0x33);
	else
		ck_assert_uint_eq(
			get(&p, SECOND, WVM_MSG_MEM_READ, READER, STORED, ID(20))->msg.flags,
			WVM_MSG_ERROR);
	pair_close(&p);
}
END_TEST

/* ---- hand-overs ------------------------------------------------------------------------ */

/* Bits: who is told before the page comes; none of them: after that. */
START_TEST(what_is_handed_over_is_lost_at_the_new_home)
{
	bool whole = _i & 4;
	struct wvm_msg m;
	struct pair p;

	if (whole) {
		pair_open(&p, NULL);
		m = ask(&p, FORMER, WVM_MSG_MEM_ACQUIRE, OWNER, ID(1));
		m.flags = WVM_MSG_UNIT;
		ck_assert_int_eq(tell(&p, FORMER, m, STORED, 0), WVM_DROP_NONE);
	} else {
		open_stored(&p, false);
	}
	if (_i & 1)
		renew(&p, FORMER);
	if (_i & 2)
		renew(&p, NEW);
	switch_over(&p, FORMER);
	switch_over(&p, NEW);
	run_for(&p, A_WHILE);
	if (!(_i & 3)) {
		ck_assert(!is_lost(&p, NEW, STORED));
		renew(&p, NEW);
	}
	ck_assert(is_lost(&p, NEW, STORED));
	ck_assert_uint_eq(get(&p, NEW, WVM_MSG_MEM_READ, READER, STORED, ID(20))->msg.flags,
			  WVM_MSG_ERROR);
	if (!whole)
		ck_assert_uint_eq(get(&p, NEW, WVM_MSG_MEM_READ, READER, CLEAN, ID(21))->fill,
				  0x44);
	pair_close(&p);
}
END_TEST

/* ---- who waits for a page of the member ------------------------------------------------ */

static struct wvm_msg asked_for(struct rig *r)
{
	const struct wvm_action *a = wvm_core_action(r->core);

	ck_assert_ptr_nonnull(a);
	ck_assert_int_eq(a->kind, WVM_ACT_SEND);
	ck_assert_uint_eq(a->msg.type, WVM_MSG_MEM_READ);
	ck_assert_uint_eq(a->member, RIG_ELSEWHERE);
	return a->msg;
}

/* The home begins without its files, and would know of no page that its earlier life granted. */
START_TEST(a_grant_of_a_life_that_is_gone_is_not_taken)
{
	struct wvm_msg granted = message(WVM_MSG_MEM_ACK, RIG_ELSEWHERE, RIG_EPOCH, 0), again;
	struct rig r;

	rig_open(&r, RIG_ELSEWHERE, NULL);
	ck_assert(wvm_core_fault(r.core, r.now_ns, 0, 3, false, 0));
	granted.request = asked_for(&r).request;
	granted.gpa = UINT64_C(3) << WVM_PAGE_SHIFT;
	granted.version = V(1);
	granted.flags = WVM_MSG_ZERO;
	ck_assert_ptr_null(wvm_core_action(r.core));
	wvm_core_renewed(r.core, _i ? RIG_ELSEWHERE : 5, 7);
	if (_i) {
		ck_assert_int_eq(in(&r, granted, NULL), WVM_DROP_STALE);
		ck_assert_uint_eq(wvm_core_taken(r.core, RIG_ELSEWHERE), 0);
		wvm_core_tick(r.core, r.now_ns);
		again = asked_for(&r);
		ck_assert_uint_gt(again.request, granted.request);
		granted.request = again.request;
	}
	ck_assert_int_eq(in(&r, granted, NULL), WVM_DROP_NONE);
	ck_assert_int_eq(r.held[3].state, WVM_HELD_SHARED);
	ck_assert_uint_eq(wvm_core_taken(r.core, RIG_ELSEWHERE), 1);
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, whoever_waits_for_what_is_gone_gets_an_error_at_once);
	tcase_add_test(tc, the_present_life_keeps_what_it_has);
	tcase_add_loop_test(tc, what_is_left_of_a_unit_granted_whole_is_lost, 0, 2);
	tcase_add_loop_test(tc, nothing_counts_as_complete_until_both_know_the_same, 0, 8);
	tcase_add_test(tc, copies_that_are_not_in_doubt_are_not_sent_again);
	tcase_add_test(tc, both_learn_all_that_the_other_knows);
	tcase_add_loop_test(tc, a_second_home_that_takes_over_does_not_serve_the_older_copy, NEVER,
			    AFTER + 1);
	tcase_add_loop_test(tc, what_is_handed_over_is_lost_at_the_new_home, 0, 8);
	tcase_add_loop_test(tc, a_grant_of_a_life_that_is_gone_is_not_taken, 0, 2);
}

int main(void)
{
	return rig_main("renewed", add);
}

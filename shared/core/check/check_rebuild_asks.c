/*
 * A home in the place of one that has died: whom it waits for, and for how long; what more deaths
 * make of it, and epochs that come late.
 */
#include "shared/core/check/dead.h"

#define PAGE 3u
#define SHD  WVM_HOLDING_SHARED
#define MOD  WVM_HOLDING_MODIFIED
#define WRI  WVM_HOLDING_WRITTEN

/* ---- who has told ---------------------------------------------------------------------- */

static const struct sent *question_to(struct house *h, uint32_t member)
{
	for (uint32_t i = 0; i < h->sent_count; i++)
		if (h->sent[i].msg.type == WVM_MSG_HOLDING_DONE && h->sent[i].member == member)
			return &h->sent[i];
	ck_abort_msg("member %u is not asked", member);
	return NULL;
}

static bool is_served(struct house *h)
{
	static uint64_t id = 1000;
	bool served = SAY(h, MEM_READ, C, PAGE, .request = ID(++id)) == WVM_DROP_NONE;

	h->sent_count = 0;
	return served;
}

/* A says that it has three shards; each is asked, in order, and others' words are not taken. */
START_TEST(each_shard_of_each_member_is_asked)
{
	struct house *h = calloc(1, sizeof(*h));
	struct sent s;
	struct wvm_msg m;

	house_open(h, NULL, RIG_SELF, 0);
	give_copy(h, PAGE, V(5), 0x55, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	h->silent[A] = true;
	all_tell(h);
	pass_time(h, A_WHILE, false);
	for (uint16_t shard = 0; shard < 3; shard++) {
		ck_assert(!is_served(h));
		pass_time(h, A_WHILE, false);
		s = *question_to(h, A);
		h->sent_count = 0;
		ck_assert_uint_eq(s.msg.steer, shard);
		ck_assert_uint_eq(s.msg.gpa, 0);
		/* The answer of another shard, of none, of too many, of an earlier life. */
		m = told_all(&s, 3);
		m.grant = (uint64_t)3 << 16 | (shard + 1);
		ck_assert_int_eq(say(h, m, NULL), WVM_DROP_STALE);
		m.grant = (uint64_t)3 << 16 | ((shard + 2) % 3);
		ck_assert_int_eq(say(h, m, NULL), WVM_DROP_STALE);
		m.grant = shard;
		ck_assert_int_eq(say(h, m, NULL), WVM_DROP_STALE);
		m.grant = (uint64_t)257 << 16 | shard;
		ck_assert_int_eq(say(h, m, NULL), WVM_DROP_STALE);
		m.grant = UINT64_C(1) << 40 | shard;
		ck_assert_int_eq(say(h, m, NULL), WVM_DROP_STALE);
		m = told_all(&s, 3);
		m.request = RIG_ID(RIG_BOOT - 1, RIG_SHARD, 5);
		ck_assert_int_eq(say(h, m, NULL), WVM_DROP_STALE);
		/* From others, who have told all. */
		m = told_all(&s, 3);
		m.src = RIG_VNODE(B);
		ck_assert_int_eq(say(h, m, NULL), WVM_DROP_STALE);
		m.src = RIG_VNODE(50);
		ck_assert_int_eq(say(h, m, NULL), WVM_DROP_STALE);
		ck_assert_uint_eq(h->sent_count, 0);
		ck_assert_int_eq(say(h, told_all(&s, 3), NULL), WVM_DROP_NONE);
		/* The next one is asked at once. */
		ck_assert_uint_eq(h->sent_count, shard < 2);
		if (shard < 2)
			ck_assert_uint_eq(question_to(h, A)->msg.steer, shard + 1);
		h->sent_count = 0;
		/* Once more it is no news. */
		ck_assert_int_eq(say(h, told_all(&s, 3), NULL), WVM_DROP_STALE);
	}
	ck_assert(is_served(h));
	house_close(h);
	free(h);
}
END_TEST

/* It has begun anew meanwhile, with fewer shards: then it has told all by the last of those. */
START_TEST(a_member_that_says_other_counts_is_done_when_it_says_so)
{
	struct house *h = calloc(1, sizeof(*h));
	struct sent s;

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	h->silent[A] = true;
	all_tell(h);
	pass_time(h, A_WHILE, false);
	s = *question_to(h, A);
	ck_assert_int_eq(say(h, told_all(&s, 4), NULL), WVM_DROP_NONE);
	h->sent_count = 0;
	pass_time(h, A_WHILE, false);
	s = *question_to(h, A);
	ck_assert_uint_eq(s.msg.steer, 1);
	ck_assert(!is_served(h));
	ck_assert_int_eq(say(h, told_all(&s, 2), NULL), WVM_DROP_NONE);
	ck_assert_uint_eq(h->sent_count, 0);
	ck_assert(is_served(h));
	house_close(h);
	free(h);
}
END_TEST

/* Nobody answers: each is asked again and again, at times that grow to half a second. */
START_TEST(the_silent_are_asked_again_ever_more_seldom)
{
	struct house *h = calloc(1, sizeof(*h));
	uint32_t before, after;

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	pass_time(h, 100 * MS, false);
	before = h->sent_count;
	ck_assert_uint_ge(before, 3 * 2); /* A, B, C */
	h->sent_count = 0;
	pass_time(h, 3000 * MS, false);
	h->sent_count = 0;
	pass_time(h, 3000 * MS, false);
	after = h->sent_count;
	ck_assert_uint_ge(after, 3 * 4);
	ck_assert_uint_le(after, 3 * 9);
	for (uint32_t i = 0; i < after; i++) {
		ck_assert_int_eq(h->sent[i].msg.type, WVM_MSG_HOLDING_DONE);
		ck_assert(h->sent[i].member == A || h->sent[i].member == B ||
			  h->sent[i].member == C);
	}
	house_close(h);
	free(h);
}
END_TEST

/* Many members are asked some at a time, and each of them is waited for. */
START_TEST(hundreds_of_members_are_asked_some_at_a_time)
{
	struct house *h = calloc(1, sizeof(*h));
	bool asked[RIG_MEMBERS] = {0};
	uint32_t most = 0;

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	plan_death(h, 1, 0, HOME, WVM_LOST_EMPTY, RIG_SELF);
	for (uint32_t i = 0; i < RIG_MEMBERS; i++)
		if (i != HOME)
			h->member[1][i] = WVM_LOST_NOT;
	ck_assert_int_eq(learn_death(h, 1), WVM_EPOCH_TAKEN);
	h->silent[RIG_MEMBERS - 1] = true;
	for (uint32_t n = 0; n < 200; n++) {
		if (h->r.now_ns < wvm_core_deadline(h->r.core))
			h->r.now_ns = wvm_core_deadline(h->r.core);
		wvm_core_tick(h->r.core, h->r.now_ns);
		drain(h);
		most = most < h->sent_count ? h->sent_count : most;
		for (uint32_t i = 0; i < h->sent_count; i++)
			asked[h->sent[i].member] |= h->sent[i].msg.type == WVM_MSG_HOLDING_DONE;
		answer_questions(h);
	}
	ck_assert_uint_le(most, 64);
	for (uint32_t i = 0; i < RIG_MEMBERS; i++)
		ck_assert_int_eq(asked[i], i != HOME && i != RIG_SELF);
	ck_assert(!is_served(h));
	h->silent[RIG_MEMBERS - 1] = false;
	all_tell(h);
	ck_assert(is_served(h));
	house_close(h);
	free(h);
}
END_TEST

/* Of a node with two shards each has its own slices. */
START_TEST(a_shard_takes_what_is_told_of_its_own_slices)
{
	struct house *h = calloc(1, sizeof(*h));
	const struct told t = {A, MOD, V(8), ID(3)};
	uint32_t own = 0;

	house_open(h, NULL, RIG_SELF, 2);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	for (uint64_t page = 0; page < RIG_PAGES; page += WVM_UNIT_PAGES) {
		bool mine = wvm_slice_of(RIG_VM, page << WVM_PAGE_SHIFT) % 2 == RIG_SHARD;

		own += mine;
		ck_assert_int_eq(tell_page(h, page, &t), mine ? WVM_DROP_NONE : WVM_DROP_NODE);
		ck_assert_uint_eq(h->r.home[page].version != 0, mine);
	}
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, own);
	house_close(h);
	free(h);
}
END_TEST

/* ---- more sharers than there is room for ----------------------------------------------- */

/* Whoever is told so drops its copies, and tells again without them. */
START_TEST(without_room_for_a_sharer_its_holder_is_told_so)
{
	struct wvm_core_limits limits;
	struct house *h = calloc(1, sizeof(*h));
	uint32_t refused = 0;

	wvm_core_default_limits(&limits);
	limits.holder_blocks = 1;
	house_open(h, &limits, RIG_SELF, 0);
	give_copy(h, PAGE, V(5), 0x55, 0);
	give_copy(h, PAGE + 1, V(5), 0x55, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	for (uint32_t i = 0; i < 10; i++) {
		struct told t = {20 + i, SHD, V(5), ID(200 + i)};
		uint8_t flags;

		ck_assert_int_eq(tell_page(h, PAGE, &t), WVM_DROP_NONE);
		flags = only_sent(h, WVM_MSG_HOLDING, t.member)->msg.flags;
		h->sent_count = 0;
		if (flags == (WVM_MSG_ANSWER | WVM_MSG_ERROR))
			refused++;
		else
			ck_assert_uint_eq(flags, WVM_MSG_ANSWER);
	}
	ck_assert_uint_eq(h->r.home[PAGE].holders, WVM_HOLDERS_INLINE + WVM_BLOCK_HOLDERS);
	ck_assert_uint_eq(refused, 10 - h->r.home[PAGE].holders);
	/* What replaces them gives their room back; so do copies that turn out to be old. */
	ck_assert_int_eq(tell_page(h, PAGE, &(struct told){A, MOD, V(9), ID(7)}), WVM_DROP_NONE);
	ck_assert_uint_ne(h->r.core->free_block, 0);
	if (_i)
		kill_house(h, NULL);
	h->sent_count = 0;
	all_tell(h);
	ck_assert_int_eq(SAY(h, MEM_READ, C, PAGE, .request = ID(50)), WVM_DROP_NONE);
	only_sent(h, WVM_MSG_DOWNGRADE, A);
	house_close(h);
	free(h);
}
END_TEST

/* ---- more deaths ----------------------------------------------------------------------- */

/* Its bytes were waited for: when the writer dies, too, they are lost, and nobody waits for ever.
 */
START_TEST(a_page_is_lost_when_its_writer_dies_before_its_bytes_have_come)
{
	bool asked = _i % 2, before = _i / 2;
	const struct told t = {A, WRI, V(8), ID(3)};
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(tell_page(h, PAGE, &t), WVM_DROP_NONE);
	h->sent_count = 0;
	if (!before)
		all_tell(h);
	plan_death(h, 2, NEXT, A, WVM_LOST_HOLDER, RIG_SELF);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	ck_assert_int_eq(tell_page(h, PAGE, &t), WVM_DROP_NODE);
	if (!asked)
		all_tell(h);
	for (uint32_t n = 0; !is_served(h); n++) {
		ck_assert_uint_lt(n, 5);
		all_tell(h);
	}
	ck_assert_int_eq(SAY(h, MEM_READ, B, PAGE, .request = ID(50)), WVM_DROP_NONE);
	ck_assert_uint_eq(only_sent(h, WVM_MSG_MEM_ACK, B)->msg.flags & WVM_MSG_ERROR,
			  WVM_MSG_ERROR);
	/* The rest of the unit, which was settled before, is as it was; else it may be stolen. */
	h->sent_count = 0;
	ck_assert_int_eq(SAY(h, MEM_READ, B, PAGE + 1, .request = ID(51)), WVM_DROP_NONE);
	ck_assert_uint_eq(only_sent(h, WVM_MSG_MEM_ACK, B)->msg.flags & WVM_MSG_ERROR,
			  before ? WVM_MSG_ERROR : 0);
	all_tell(h);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	house_close(h);
	free(h);
}
END_TEST

/* All tell anew; what was told before stays true, and nobody waits for the dead one's word. */
START_TEST(a_second_death_while_all_tell_waits_for_nobody_dead)
{
	const struct told t = {B, MOD, V(8), ID(3)}, dead = {A, SHD, V(5), ID(4)};
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	give_copy(h, PAGE + 1, V(5), 0x55, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(tell_page(h, PAGE, &t), WVM_DROP_NONE);
	ck_assert_int_eq(tell_page(h, PAGE + 1, &dead), WVM_DROP_NONE);
	h->silent[A] = true;
	h->sent_count = 0;
	all_tell(h);
	ck_assert(!is_served(h));
	plan_death(h, 2, NEXT, A, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	ck_assert(!is_served(h)); /* those who had told have to say so in this epoch */
	if (_i)
		kill_house(h, NULL);
	all_tell(h);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	check_page(h, PAGE, B, 50);
	/* Who is dead needs not give its copy up. */
	h->sent_count = 0;
	ck_assert_int_eq(SAY(h, MEM_ACQUIRE, C, PAGE + 1, .request = ID(51)), WVM_DROP_NONE);
	ck_assert_uint_eq(only_sent(h, WVM_MSG_MEM_ACK, C)->fill, 0x55);
	house_close(h);
	free(h);
}
END_TEST

/* What a dead member had Modified, settled or not: LOST for whoever asks. */
START_TEST(what_a_dead_member_had_modified_is_lost)
{
	const struct told t = {A, MOD, V(8), ID(3)};
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(tell_page(h, PAGE, &t), WVM_DROP_NONE);
	h->sent_count = 0;
	if (_i)
		all_tell(h);
	plan_death(h, 2, NEXT, A, WVM_LOST_HOLDER, RIG_SELF);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	all_tell(h);
	check_page(h, PAGE, 0, 50);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	house_close(h);
	free(h);
}
END_TEST

/* Settled as Modified it was not stored. Lost, it waits for nobody, and others' bytes still come.
 */
START_TEST(a_page_that_is_lost_with_its_owner_ends_no_other_pages_wait)
{
	const struct told owned = {A, MOD, V(8), ID(3)}, written = {B, WRI, V(6), ID(4)};
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(tell_page(h, PAGE, &owned), WVM_DROP_NONE);
	ck_assert_int_eq(tell_page(h, PAGE + 1, &written), WVM_DROP_NONE);
	h->sent_count = 0;
	all_tell(h);
	plan_death(h, 2, NEXT, A, WVM_LOST_HOLDER, RIG_SELF);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	all_tell(h);
	for (uint32_t i = 0; i < 3; i++) {
		check_page(h, PAGE, 0, 50 + i);
		if (_i)
			kill_house(h, NULL);
		all_tell(h);
		ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 1);
		ck_assert_int_eq(SAY(h, MEM_READ, C, PAGE + 1, .request = ID(60 + i)),
				 WVM_DROP_ROOM);
	}
	h->sent_count = 0;
	ck_assert_int_eq(SAY_BYTES(h, WRITE_BACK, B, PAGE + 1, 0x22, .request = ID(4),
				   .grant = ID(4), .version = V(6)),
			 WVM_DROP_NONE);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	house_close(h);
	free(h);
}
END_TEST

/* ---- epochs ---------------------------------------------------------------------------- */

START_TEST(an_epoch_that_is_not_later_is_old)
{
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(learn_death(h, 1), WVM_EPOCH_OLD);
	ck_assert_uint_eq(h->r.core->params.epoch, NEXT);
	house_close(h);
	free(h);
}
END_TEST

/* A move of its own comes when the one before is done here; a part of that move at any time. */
START_TEST(a_death_that_begins_a_move_waits_for_the_last_one)
{
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	plan_death(h, 2, 0, A, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_BUSY);
	ck_assert_uint_eq(h->r.core->params.epoch, NEXT);
	all_tell(h);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	ck_assert_uint_eq(h->r.core->params.moved, NEXT + 1);
	/* Nothing of it was the dead one's: there is nothing to tell. */
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	ck_assert(is_served(h));
	house_close(h);
	free(h);
}
END_TEST

/* It would take slices from members that live: that is another epoch's. */
START_TEST(a_death_that_joins_a_move_moves_what_was_the_dead_ones)
{
	struct house *h = calloc(1, sizeof(*h));
	uint32_t i = wvm_slice_of(RIG_VM, 0);

	house_open(h, NULL, RIG_SELF, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	plan_death(h, 2, NEXT, A, WVM_LOST_EMPTY, RIG_SELF);
	/* All of HOME's may go elsewhere again. Then none of it is made anew. */
	h->slices[2].home_vnode[i] = RIG_VNODE(B);
	h->lost[2].slices[i / 64] &= ~(UINT64_C(1) << i % 64);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_BUSY);
	ck_assert_uint_eq(h->r.core->params.epoch, NEXT);
	h->lost[2].slices[i / 64] |= UINT64_C(1) << i % 64;
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	ck_assert_uint_eq(h->r.core->params.moved, NEXT);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 1); /* the other unit */
	house_close(h);
	free(h);
}
END_TEST

/*
 * It slept over the first death, and learns of it with the second, which is a part of the same
 * move: that began in an epoch that it never was in.
 */
START_TEST(a_shard_that_slept_over_the_first_death_takes_both_with_the_second)
{
	const struct told t = {B, MOD, V(8), ID(3)};
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	give_copy(h, PAGE + 1, V(5), 0x55, 0);
	say_complete(h, 0);
	plan_death(h, 1, 0, HOME, WVM_LOST_EMPTY, RIG_SELF);
	plan_death(h, 2, NEXT, A, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	ck_assert_uint_eq(h->r.core->params.moved, NEXT);
	if (_i)
		kill_house(h, NULL);
	ck_assert_int_eq(learn_death(h, 1), WVM_EPOCH_OLD);
	ck_assert_int_eq(tell_page(h, PAGE, &t), WVM_DROP_NONE);
	h->sent_count = 0;
	all_tell(h);
	check_page(h, PAGE, B, 50);
	h->sent_count = 0;
	ck_assert_int_eq(SAY(h, MEM_READ, C, PAGE + 1, .request = ID(51)), WVM_DROP_NONE);
	ck_assert_uint_eq(only_sent(h, WVM_MSG_MEM_ACK, C)->fill, 0x55);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	/* Dead are both. */
	ck_assert_int_eq(SAY(h, MEM_READ, A, PAGE, .request = ID(52)), WVM_DROP_NODE);
	ck_assert_int_eq(SAY(h, MEM_READ, HOME, PAGE, .request = ID(52)), WVM_DROP_NODE);
	house_close(h);
	free(h);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, each_shard_of_each_member_is_asked);
	tcase_add_test(tc, a_member_that_says_other_counts_is_done_when_it_says_so);
	tcase_add_test(tc, the_silent_are_asked_again_ever_more_seldom);
	tcase_add_test(tc, hundreds_of_members_are_asked_some_at_a_time);
	tcase_add_test(tc, a_shard_takes_what_is_told_of_its_own_slices);
	tcase_add_loop_test(tc, without_room_for_a_sharer_its_holder_is_told_so, 0, 2);
	tcase_add_loop_test(tc, a_page_is_lost_when_its_writer_dies_before_its_bytes_have_come, 0,
			    4);
	tcase_add_loop_test(tc, a_second_death_while_all_tell_waits_for_nobody_dead, 0, 2);
	tcase_add_loop_test(tc, what_a_dead_member_had_modified_is_lost, 0, 2);
	tcase_add_loop_test(tc, a_page_that_is_lost_with_its_owner_ends_no_other_pages_wait, 0, 2);
	tcase_add_test(tc, an_epoch_that_is_not_later_is_old);
	tcase_add_test(tc, a_death_that_begins_a_move_waits_for_the_last_one);
	tcase_add_test(tc, a_death_that_joins_a_move_moves_what_was_the_dead_ones);
	tcase_add_loop_test(tc, a_shard_that_slept_over_the_first_death_takes_both_with_the_second,
			    0, 2);
}

int main(void)
{
	return rig_main("rebuild_asks", add);
}

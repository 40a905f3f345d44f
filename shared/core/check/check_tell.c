/*
 * A holder of pages whose home has died: it tells the new one of all that it holds, until all is
 * acknowledged, and only then says so.
 */
#include "shared/core/check/dead.h"

#define NEW_HOME A
#define KEEP     WVM_MSG_KEEP

static bool present[RIG_PAGES];

/* ---- what it holds --------------------------------------------------------------------- */

/* The page is asked for and granted. unit: and with it the whole unit. */
static void get(struct house *h, uint64_t page, bool write, uint64_t version, bool unit)
{
	struct sent s;

	ck_assert(wvm_core_fault(h->r.core, h->r.now_ns, 0, page, write, 0));
	drain(h);
	s = *only_sent(h, write ? WVM_MSG_MEM_ACQUIRE : WVM_MSG_MEM_READ, HOME);
	h->sent_count = 0;
	ck_assert_int_eq(SAY(h, MEM_ACK, HOME, page, .request = s.msg.request, .version = version,
			     .flags = WVM_MSG_ZERO | (unit ? WVM_MSG_UNIT : 0)),
			 WVM_DROP_NONE);
	h->sent_count = 0;
	present[page] = true;
	h->r.now_ns += 10 * MS; /* it may be given up */
}

/* Its home has it written back, and does not acknowledge it. */
static void write_back(struct house *h, uint64_t page, bool keep)
{
	const struct wvm_held_page held = h->r.held[page];

	if (keep)
		ck_assert_int_eq(SAY(h, DOWNGRADE, HOME, page, .request = ID(700 + page),
				     .grant = held.grant, .version = held.version),
				 WVM_DROP_NONE);
	else
		ck_assert_int_eq(SAY(h, FETCH_AND_INVALIDATE, HOME, page, .request = ID(700 + page),
				     .grant = held.grant, .version = held.version),
				 WVM_DROP_NONE);
	only_sent(h, WVM_MSG_WRITE_BACK, HOME);
	h->sent_count = 0;
	present[page] = keep;
}

/* ---- what it tells --------------------------------------------------------------------- */

struct telling {
	uint64_t page, version, grant; /* of the unit */
	uint64_t request;
	uint32_t count;
	struct wvm_holding list[WVM_HOLDING_PAGES];
	uint64_t mine[WVM_UNIT_WORDS];
};

/* The next message that tells something, as the new home reads it. False: there is none. */
static bool next_telling(struct house *h, struct telling *t)
{
	const struct wvm_msg *m;

	for (uint32_t n = 0;
	     !h->sent_count || h->sent[h->sent_count - 1].msg.type != WVM_MSG_HOLDING; n++) {
		if (n == 50 || wvm_core_deadline(h->r.core) == WVM_CORE_NEVER)
			return false;
		h->sent_count = 0;
		if (h->r.now_ns < wvm_core_deadline(h->r.core))
			h->r.now_ns = wvm_core_deadline(h->r.core);
		wvm_core_tick(h->r.core, h->r.now_ns);
		drain(h);
	}
	m = &h->sent[h->sent_count - 1].msg;
	ck_assert_uint_eq(h->sent[h->sent_count - 1].member, NEW_HOME);
	ck_assert_uint_eq(m->epoch, h->r.core->params.epoch);
	ck_assert_uint_le(m->payload_len, m->seg_total);
	ck_assert_uint_eq(m->seg_total % WVM_SEGMENT_UNIT, 0);
	*t = (struct telling){.page = m->gpa >> WVM_PAGE_SHIFT,
			      .version = m->version,
			      .grant = m->grant,
			      .request = m->request};
	ck_assert(wvm_holding_decode(h->sent[h->sent_count - 1].bytes, m->payload_len,
				     m->grant != 0, t->mine, t->list, &t->count));
	h->sent_count = 0;
	return true;
}

static enum wvm_drop acknowledge(struct house *h, const struct telling *t, uint8_t flags)
{
	return SAY(h, HOLDING, NEW_HOME, t->page, .request = t->request,
		   .flags = WVM_MSG_ANSWER | flags);
}

static bool says_done(struct house *h)
{
	enum wvm_drop drop = SAY(h, HOLDING_DONE, NEW_HOME, 0, .request = ID(800));

	ck_assert(drop == WVM_DROP_NONE || drop == WVM_DROP_ROOM);
	if (drop)
		return false;
	for (uint32_t i = 0; i < h->sent_count; i++)
		if (h->sent[i].msg.type == WVM_MSG_HOLDING_DONE) {
			ck_assert_uint_eq(h->sent[i].msg.flags, WVM_MSG_ANSWER);
			ck_assert_uint_eq(h->sent[i].msg.request, ID(800));
			h->sent_count = 0;
			return true;
		}
	ck_abort_msg("no answer");
	return false;
}

/* When it has looked at all that there is, and nothing is under way. */
static bool comes_to_an_end(struct house *h)
{
	pass_time(h, MS, false);
	h->sent_count = 0;
	return says_done(h);
}

static void open_holder(struct house *h, uint8_t shards)
{
	memset(present, 0, sizeof(present));
	house_open(h, NULL, B, shards);
}

static void check_told(const struct telling *t, uint32_t i, uint64_t page, uint8_t kind,
		       uint64_t version)
{
	ck_assert_uint_lt(i, t->count);
	ck_assert_uint_eq(t->list[i].index, page % WVM_UNIT_PAGES);
	ck_assert_uint_eq(t->list[i].kind, kind);
	ck_assert_uint_eq(t->list[i].version, version);
	ck_assert_uint_ne(t->list[i].grant, 0);
}

/* ---- tests ----------------------------------------------------------------------------- */

/* In the first life, and in a later one, which tells all again. */
START_TEST(all_that_is_held_is_told_and_then_that_it_was_all)
{
	struct house *h = calloc(1, sizeof(*h));
	struct telling t;

	open_holder(h, 0);
	get(h, 1, false, V(11), false);
	get(h, 2, true, V(12), false);
	get(h, 3, true, V(13), false);
	get(h, 4, true, V(14), false);
	get(h, 5, false, V(15), false);
	get(h, RIG_OTHER, false, V(16), false);
	write_back(h, 3, false);
	write_back(h, 4, true);
	/* One that was given up is none. */
	ck_assert_int_eq(SAY(h, INVALIDATE, HOME, 5, .request = ID(4), .grant = h->r.held[5].grant,
			     .version = V(15)),
			 WVM_DROP_NONE);
	present[5] = false;
	h->sent_count = 0;
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	for (int life = 0; life < 2; life++) {
		ck_assert(!says_done(h));
		ck_assert(next_telling(h, &t));
		ck_assert_uint_eq(t.page, 0);
		ck_assert_uint_eq(t.grant, 0);
		ck_assert_uint_eq(t.count, 4);
		check_told(&t, 0, 1, WVM_HOLDING_SHARED, V(11));
		check_told(&t, 1, 2, WVM_HOLDING_MODIFIED, V(12));
		check_told(&t, 2, 3, WVM_HOLDING_WRITTEN, V(13));
		check_told(&t, 3, 4, WVM_HOLDING_WRITTEN_KEPT, V(14));
		ck_assert(!says_done(h));
		ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
		ck_assert(!says_done(h));
		ck_assert(next_telling(h, &t));
		ck_assert_uint_eq(t.page, RIG_OTHER);
		ck_assert_uint_eq(t.count, 1);
		check_told(&t, 0, RIG_OTHER, WVM_HOLDING_SHARED, V(16));
		ck_assert(!says_done(h));
		ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
		ck_assert(comes_to_an_end(h));
		if (!life)
			kill_house(h, present);
		h->sent_count = 0;
	}
	house_close(h);
	free(h);
}
END_TEST

START_TEST(more_pages_than_one_message_has_room_for_follow_in_others)
{
	struct house *h = calloc(1, sizeof(*h));
	uint32_t total = 0, messages = 0;
	struct telling t;

	open_holder(h, 0);
	for (uint64_t page = 0; page < 40; page++)
		get(h, page * 12, false, V(20 + page), false);
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	while (next_telling(h, &t)) {
		for (uint32_t i = 0; i < t.count; i++, total++)
			check_told(&t, i, total * 12, WVM_HOLDING_SHARED, V(20 + total));
		messages++;
		ck_assert(!says_done(h));
		/* Lost, it is said again, by another name and the same. */
		if (_i) {
			struct telling again;

			ck_assert(next_telling(h, &again));
			ck_assert_uint_ne(again.request, t.request);
			ck_assert_uint_eq(again.page, t.page);
			ck_assert_uint_eq(again.count, t.count);
			ck_assert(!memcmp(again.list, t.list, t.count * sizeof(t.list[0])));
			ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_STALE);
			t = again;
		}
		ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
		ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_STALE);
	}
	ck_assert_uint_eq(total, 40);
	ck_assert_uint_eq(messages, 3);
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(h);
}
END_TEST

/* What nobody asked for, or somebody else says, is no answer. */
START_TEST(only_the_new_homes_answer_to_this_message_counts)
{
	struct house *h = calloc(1, sizeof(*h));
	struct telling t;

	open_holder(h, 0);
	get(h, 1, false, V(11), false);
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	ck_assert(next_telling(h, &t));
	ck_assert_int_eq(SAY(h, HOLDING, B, t.page, .request = t.request, .flags = WVM_MSG_ANSWER),
			 WVM_DROP_STALE);
	ck_assert_int_eq(SAY(h, HOLDING, NEW_HOME, t.page, .request = t.request + 1,
			     .flags = WVM_MSG_ANSWER),
			 WVM_DROP_STALE);
	ck_assert_int_eq(SAY(h, HOLDING, NEW_HOME, t.page + 1, .request = t.request,
			     .flags = WVM_MSG_ANSWER),
			 WVM_DROP_STALE);
	ck_assert_int_eq(
		SAY(h, HOLDING, HOME, t.page, .request = t.request, .flags = WVM_MSG_ANSWER),
		WVM_DROP_NODE);
	ck_assert(!says_done(h));
	ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(h);
}
END_TEST

/* Unanswered it is said more and more seldom, but for ever. */
START_TEST(it_is_said_until_it_is_answered)
{
	struct house *h = calloc(1, sizeof(*h));
	uint64_t last_ns, gap_ns = 0;
	struct telling t;

	open_holder(h, 0);
	get(h, 1, false, V(11), false);
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	ck_assert(next_telling(h, &t));
	last_ns = h->r.now_ns;
	for (uint32_t i = 0; i < 30; i++) {
		ck_assert(next_telling(h, &t));
		gap_ns = h->r.now_ns - last_ns;
		ck_assert_uint_le(gap_ns, h->r.params.times.rto_max_ns * 13 / 10);
		last_ns = h->r.now_ns;
	}
	ck_assert_uint_ge(gap_ns, h->r.params.times.rto_max_ns * 7 / 10);
	ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(h);
}
END_TEST

/* Nothing is held any more when its turn comes again: there is nothing to say. */
START_TEST(what_is_given_up_meanwhile_is_not_told_again)
{
	struct house *h = calloc(1, sizeof(*h));
	struct telling t;

	open_holder(h, 0);
	get(h, 1, false, V(11), false);
	get(h, 2, false, V(12), false);
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	ck_assert(next_telling(h, &t));
	ck_assert_uint_eq(t.count, 2);
	for (uint64_t page = 1; page < 3; page++) {
		ck_assert_int_eq(wvm_core_evict(h->r.core, h->r.now_ns, 0, page), WVM_EVICT_DONE);
		drain(h);
		if (page > 1)
			break;
		ck_assert(next_telling(h, &t));
		ck_assert_uint_eq(t.count, 1);
		check_told(&t, 0, 2, WVM_HOLDING_SHARED, V(12));
	}
	ck_assert(!next_telling(h, &t));
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(h);
}
END_TEST

/* The new home has no room for so many sharers: the copies go, what is Modified stays. */
START_TEST(where_there_is_no_room_shared_copies_go_and_the_rest_is_told_again)
{
	struct house *h = calloc(1, sizeof(*h));
	struct telling t;

	open_holder(h, 0);
	get(h, 1, false, V(11), false);
	get(h, 2, true, V(12), false);
	get(h, 3, true, V(13), false);
	get(h, 40, false, V(14), false);
	write_back(h, 3, true);
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	ck_assert(next_telling(h, &t));
	ck_assert_uint_eq(t.count, 4);
	ck_assert_int_eq(acknowledge(h, &t, WVM_MSG_ERROR), WVM_DROP_NONE);
	ck_assert_int_eq(h->r.held[1].state, WVM_HELD_INVALID);
	ck_assert_int_eq(h->r.held[2].state, WVM_HELD_MODIFIED);
	ck_assert_int_eq(h->r.held[3].state, WVM_HELD_INVALID);
	ck_assert_int_eq(h->r.held[40].state, WVM_HELD_INVALID);
	ck_assert(next_telling(h, &t));
	ck_assert_uint_eq(t.count, 2);
	check_told(&t, 0, 2, WVM_HOLDING_MODIFIED, V(12));
	/* Its bytes are kept until somebody has them. */
	check_told(&t, 1, 3, WVM_HOLDING_WRITTEN, V(13));
	ck_assert(!says_done(h));
	ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(h);
}
END_TEST

/* All that there was to tell goes: that is said without another message. */
START_TEST(where_nothing_but_shared_copies_was_told_all_is_told_without_them)
{
	struct house *h = calloc(1, sizeof(*h));
	struct telling t;

	open_holder(h, 0);
	get(h, 1, false, V(11), false);
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	ck_assert(next_telling(h, &t));
	ck_assert_int_eq(acknowledge(h, &t, WVM_MSG_ERROR), WVM_DROP_NONE);
	ck_assert_int_eq(h->r.held[1].state, WVM_HELD_INVALID);
	ck_assert(!next_telling(h, &t));
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(h);
}
END_TEST

/* The pages that are left are bits; those that have an entry of their own are told by themselves.
 */
START_TEST(what_is_left_of_a_whole_unit_is_told_as_a_whole)
{
	struct house *h = calloc(1, sizeof(*h));
	struct telling t;

	open_holder(h, 0);
	h->r.core->params.units = h->r.params.units = true;
	get(h, 7, true, V(11), true);
	ck_assert(wvm_unit_mine(&h->r.held_units[0], 9));
	/* Somebody else wants one, and another one is only looked at. */
	ck_assert_int_eq(SAY(h, FETCH_AND_INVALIDATE, HOME, 8, .request = ID(30),
			     .grant = h->r.held_units[0].grant, .version = V(11)),
			 WVM_DROP_NONE);
	h->sent_count = 0;
	ck_assert_int_eq(SAY(h, DOWNGRADE, HOME, 300, .request = ID(31),
			     .grant = h->r.held_units[0].grant, .version = V(11)),
			 WVM_DROP_NONE);
	h->sent_count = 0;
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	for (int life = 0; life < 2; life++) {
		ck_assert(next_telling(h, &t));
		ck_assert_uint_eq(t.page, 0);
		ck_assert_uint_eq(t.version, V(11));
		ck_assert_uint_eq(t.grant, h->r.held_units[0].grant);
		ck_assert_uint_eq(t.count, 2);
		check_told(&t, 0, 8, WVM_HOLDING_WRITTEN, V(11));
		check_told(&t, 1, 300, WVM_HOLDING_WRITTEN_KEPT, V(11));
		for (uint64_t page = 0; page < WVM_UNIT_PAGES; page++)
			ck_assert_int_eq(t.mine[page / 64] >> page % 64 & 1,
					 page != 8 && page != 300);
		/* The new home's lack of room is not about them. */
		if (life) {
			ck_assert_int_eq(acknowledge(h, &t, WVM_MSG_ERROR), WVM_DROP_NONE);
			ck_assert(next_telling(h, &t));
			check_told(&t, 1, 300, WVM_HOLDING_WRITTEN, V(11));
			ck_assert(wvm_unit_mine(&h->r.held_units[0], 9));
		}
		ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
		ck_assert(comes_to_an_end(h));
		present[7] = present[300] = true;
		if (!life)
			kill_house(h, present);
		h->sent_count = 0;
	}
	house_close(h);
	free(h);
}
END_TEST

/* Each shard tells of its own ranges, and says which one it is. */
START_TEST(each_shard_tells_of_its_own_ranges)
{
	struct house *h = calloc(1, sizeof(*h));
	struct telling t;
	uint64_t other = WVM_RANGE_SHIFT > WVM_UNIT_SHIFT ? 0 : RIG_OTHER;

	open_holder(h, 2);
	for (uint64_t page = 0; page < RIG_PAGES; page += RIG_OTHER)
		if (wvm_holder_steer(page) % 2 != RIG_SHARD)
			other = page;
	/* Another shard's: of the same arrays. */
	h->r.held_units[other / WVM_UNIT_PAGES].touched = 1;
	h->r.held[other + 1] =
		(struct wvm_held_page){.state = WVM_HELD_SHARED, .version = V(5), .grant = ID(1)};
	if (wvm_holder_steer(RIG_OTHER - other) % 2 == RIG_SHARD)
		get(h, RIG_OTHER - other, false, V(11), false);
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	while (next_telling(h, &t)) {
		ck_assert_uint_ne(t.page / WVM_UNIT_PAGES, other / WVM_UNIT_PAGES);
		ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
	}
	ck_assert_int_eq(SAY(h, HOLDING_DONE, NEW_HOME, 0, .request = ID(800)), WVM_DROP_NONE);
	ck_assert_uint_eq(h->sent[h->sent_count - 1].msg.grant, UINT64_C(2) << 16 | RIG_SHARD);
	house_close(h);
	free(h);
}
END_TEST

/* What it holds of others' slices is nobody's business. */
START_TEST(only_what_the_dead_member_homed_is_told)
{
	struct house *h = calloc(1, sizeof(*h));
	uint16_t slice = wvm_slice_of(RIG_VM, 0);
	struct telling t;

	open_holder(h, 0);
	h->slices[0].home_vnode[slice] = RIG_VNODE(B);
	get(h, RIG_OTHER, false, V(12), false);
	ck_assert(wvm_core_fault(h->r.core, h->r.now_ns, 0, 1, false, 0));
	drain(h);
	ck_assert_int_eq(SAY(h, MEM_ACK, B, 1,
			     .request = only_sent(h, WVM_MSG_MEM_READ, B)->msg.request,
			     .version = V(9), .flags = WVM_MSG_ZERO),
			 WVM_DROP_NONE);
	h->sent_count = 0;
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	ck_assert(next_telling(h, &t));
	ck_assert_uint_eq(t.page, RIG_OTHER);
	ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
	ck_assert(!next_telling(h, &t));
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(h);
}
END_TEST

/* The new home dies, too: all is told anew, to whoever takes its place. */
START_TEST(with_another_death_all_is_told_anew)
{
	struct house *h = calloc(1, sizeof(*h));
	struct telling t, first;

	open_holder(h, 0);
	get(h, 1, false, V(11), false);
	plan_death(h, 1, 0, HOME, WVM_LOST_EMPTY, B);
	ck_assert_int_eq(learn_death(h, 1), WVM_EPOCH_TAKEN);
	pass_time(h, 10 * MS, false);
	ck_assert_uint_gt(h->sent_count, 0);
	ck_assert_uint_eq(h->sent[0].member, B);
	first.page = 0;
	first.request = h->sent[0].msg.request;
	if (_i) {
		ck_assert_int_eq(SAY(h, HOLDING, B, 0,
				     .request = h->sent[h->sent_count - 1].msg.request,
				     .flags = WVM_MSG_ANSWER),
				 WVM_DROP_NONE);
		ck_assert_int_eq(SAY(h, HOLDING_DONE, B, 0, .request = ID(800)), WVM_DROP_NONE);
	}
	h->sent_count = 0;
	plan_death(h, 2, NEXT, B, WVM_LOST_EMPTY, NEW_HOME);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	ck_assert(!says_done(h));
	ck_assert_int_eq(acknowledge(h, &first, 0), WVM_DROP_STALE);
	ck_assert(next_telling(h, &t));
	check_told(&t, 0, 1, WVM_HOLDING_SHARED, V(11));
	ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(h);
}
END_TEST

/* Until its programs are known a later life says nothing, nor that there is nothing. */
START_TEST(a_life_that_takes_over_says_nothing_before_it_has)
{
	struct house *h = calloc(1, sizeof(*h));
	struct telling t;

	open_holder(h, 0);
	get(h, 1, false, V(11), false);
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	ck_assert(next_telling(h, &t));
	rig_kill(&h->r);
	ck_assert(!says_done(h));
	ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_ROOM);
	pass_time(h, 10 * MS, false);
	for (uint32_t i = 0; i < h->sent_count; i++)
		ck_assert_int_ne(h->sent[i].msg.type, WVM_MSG_HOLDING);
	for (uint64_t page = 0; page < RIG_PAGES; page++) {
		wvm_core_adopt_held(h->r.core, h->r.now_ns, 0, page, present[page]);
		drain(h);
	}
	wvm_core_adopt_held_end(h->r.core, h->r.now_ns);
	/* The former life's name is not this one's. */
	ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_STALE);
	h->sent_count = 0;
	ck_assert(next_telling(h, &t));
	check_told(&t, 0, 1, WVM_HOLDING_SHARED, V(11));
	ck_assert_int_eq(acknowledge(h, &t, 0), WVM_DROP_NONE);
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(h);
}
END_TEST

/* Of no more than so many units is something under way; the others wait for the end of one. */
#define UNITS 40u
START_TEST(many_units_are_told_some_at_a_time)
{
	struct house *h = calloc(1, sizeof(*h));
	struct wvm_core_vm vm = {.id = 12, .pages = UNITS * WVM_UNIT_PAGES};
	uint64_t request[UNITS], gpa[UNITS];
	uint32_t told = 0, under_way = 0;

	open_holder(h, 0);
	vm.home = calloc(vm.pages, sizeof(*vm.home));
	vm.units = calloc(UNITS, sizeof(*vm.units));
	vm.held = calloc(vm.pages, sizeof(*vm.held));
	vm.held_units = calloc(UNITS, sizeof(*vm.held_units));
	vm.store = calloc(vm.pages, 1); /* it homes nothing */
	for (uint64_t u = 0; u < UNITS; u++) {
		vm.held_units[u].touched = 1;
		vm.held_units[u].shared = 1;
		vm.held[u * WVM_UNIT_PAGES] = (struct wvm_held_page){
			.state = WVM_HELD_SHARED, .version = V(5), .grant = ID(1 + u)};
	}
	ck_assert_uint_eq(wvm_core_add_vm(h->r.core, &vm), 1);
	die(h, WVM_LOST_EMPTY, NEW_HOME);
	while (told < UNITS) {
		pass_time(h, MS / 2, false); /* short of a retry */
		for (uint32_t i = 0; i < h->sent_count; i++)
			if (h->sent[i].msg.type == WVM_MSG_HOLDING) {
				ck_assert_uint_lt(under_way, WVM_TELLS);
				request[under_way] = h->sent[i].msg.request;
				gpa[under_way++] = h->sent[i].msg.gpa;
			}
		ck_assert_uint_gt(under_way, 0);
		ck_assert(under_way == WVM_TELLS || told + under_way == UNITS);
		h->sent_count = 0;
		ck_assert(!says_done(h));
		for (; under_way; told++) {
			struct wvm_msg m = message(WVM_MSG_HOLDING, NEW_HOME, NEXT,
						   request[--under_way]);

			m.vm_id = vm.id;
			m.gpa = gpa[under_way];
			m.flags = WVM_MSG_ANSWER;
			ck_assert_int_eq(wvm_core_message(h->r.core, h->r.now_ns, &m, NULL),
					 WVM_DROP_NONE);
			drain(h);
		}
	}
	ck_assert_uint_eq(wvm_core_stats(h->r.core)->told_units, UNITS);
	ck_assert(comes_to_an_end(h));
	house_close(h);
	free(vm.home);
	free(vm.units);
	free(vm.held);
	free(vm.held_units);
	free(vm.store);
	free(h);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, all_that_is_held_is_told_and_then_that_it_was_all);
	tcase_add_loop_test(tc, more_pages_than_one_message_has_room_for_follow_in_others, 0, 2);
	tcase_add_test(tc, only_the_new_homes_answer_to_this_message_counts);
	tcase_add_test(tc, it_is_said_until_it_is_answered);
	tcase_add_test(tc, what_is_given_up_meanwhile_is_not_told_again);
	tcase_add_test(tc, where_there_is_no_room_shared_copies_go_and_the_rest_is_told_again);
	tcase_add_test(tc, where_nothing_but_shared_copies_was_told_all_is_told_without_them);
	tcase_add_test(tc, what_is_left_of_a_whole_unit_is_told_as_a_whole);
	tcase_add_test(tc, each_shard_tells_of_its_own_ranges);
	tcase_add_test(tc, only_what_the_dead_member_homed_is_told);
	tcase_add_loop_test(tc, with_another_death_all_is_told_anew, 0, 2);
	tcase_add_test(tc, a_life_that_takes_over_says_nothing_before_it_has);
	tcase_add_test(tc, many_units_are_told_some_at_a_time);
}

int main(void)
{
	return rig_main("tell", add);
}

/* The view: what each record makes of it, its tables, deaths, who votes, and its bytes. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/assert.h"
#include "shared/core/random.h"
#include "shared/view.h"

#define COUNT 9u

static const struct wvm_member list[COUNT] = {{10, 1}, {11, 1}, {12, 2}, {14, 1}, {15, 1},
					      {16, 1}, {17, 1}, {18, 1}, {19, 1}};
static const struct wvm_members members = {list, COUNT};
static struct wvm_view view;
static struct wvm_slices_scratch scratch;

void wvm_core_panic(const char *what, const char *file, int line)
{
	ck_abort_msg("%s:%d: %s", file, line, what);
	abort();
}

static void first(uint32_t spares)
{
	struct wvm_epoch_record r = {.epoch = 1, .state = WVM_NODE_ACTIVE};
	uint8_t spare[COUNT];

	for (uint32_t i = 0; i < COUNT; i++) {
		spare[i] = spares >> i & 1;
		if (!spare[i] && r.voters < WVM_EPOCH_VOTERS_MAX)
			r.voter[r.voters++] = list[i].first_vnode;
	}
	r.node = r.voter[0];
	wvm_view_first(&view, &r, &members, spare, &scratch);
}

static uint32_t home_in(const struct wvm_slices *table, uint32_t slice)
{
	return wvm_member_of(&members, table->home_vnode[slice]);
}

/* Who has slices in a table: a bit each. */
static uint32_t homes_in(const struct wvm_slices *table)
{
	uint32_t bits = 0;

	for (uint32_t i = 0; i < WVM_SLICES; i++)
		bits |= 1u << home_in(table, i);
	return bits;
}

static uint32_t homes(bool before)
{
	return homes_in(before ? &view.before : &view.slices);
}

static bool same(const struct wvm_slices *a, const struct wvm_slices *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static bool is_home(uint8_t state)
{
	return state == WVM_NODE_WARMING || state == WVM_NODE_ACTIVE;
}

/* What the homes would have by weight. */
static struct wvm_slices level(const struct wvm_view *v)
{
	static struct wvm_slices table;
	uint8_t active[COUNT];

	for (uint32_t i = 0; i < COUNT; i++)
		active[i] = is_home(v->state[i]);
	wvm_slices_build_active(&table, &members, active, &scratch);
	return table;
}

static bool lost(const struct wvm_view *v, uint32_t slice)
{
	return v->lost[slice / 64] >> slice % 64 & 1;
}

static bool go(uint32_t member, enum wvm_node_state state)
{
	struct wvm_epoch_record r;

	ck_assert(wvm_view_record(&view, &members, member, state, &r));
	ck_assert(wvm_epoch_record_check(&r));
	ck_assert_uint_eq(r.epoch, view.record.epoch + 1);
	return wvm_view_apply(&view, &members, &r, &scratch);
}

static void drained(uint32_t member)
{
	ck_assert(go(member, WVM_NODE_DRAINING));
	ck_assert(!go(member, WVM_NODE_OFFLINE));
}

START_TEST(a_member_joins_and_drains_in_two_steps_each)
{
	first(1u << 8);
	ck_assert_uint_eq(homes(false), 0xff);
	ck_assert(go(8, WVM_NODE_WARMING));
	ck_assert_uint_eq(view.moved, 2);
	ck_assert_uint_eq(view.moving, 8);
	ck_assert_uint_eq(homes(true), 0xff);
	ck_assert_uint_eq(homes(false), 0x1ff);
	ck_assert(!go(8, WVM_NODE_ACTIVE));
	ck_assert_uint_eq(view.moved, 0);
	ck_assert_uint_eq(homes(true), 0x1ff);
	ck_assert(go(0, WVM_NODE_DRAINING));
	ck_assert_uint_eq(homes(true), 0x1ff);
	ck_assert_uint_eq(homes(false), 0x1fe);
	ck_assert(wvm_view_takes_part(&view, 0) && !wvm_view_open(&view, 0));
	ck_assert(!go(0, WVM_NODE_OFFLINE));
	ck_assert(!wvm_view_takes_part(&view, 0) && !wvm_view_open(&view, 0));
	ck_assert(go(0, WVM_NODE_WARMING));
	ck_assert(wvm_view_takes_part(&view, 0) && wvm_view_open(&view, 0));
}
END_TEST

START_TEST(one_member_at_a_time_is_on_its_way_and_the_last_home_stays)
{
	first(0);
	ck_assert_int_eq(wvm_view_allows(&view, 1, WVM_NODE_WARMING), WVM_VIEW_IS_SO);
	ck_assert_int_eq(wvm_view_allows(&view, 1, WVM_NODE_OFFLINE), WVM_VIEW_NO_WAY);
	ck_assert_int_eq(wvm_view_allows(&view, 1, WVM_NODE_SHADOW), WVM_VIEW_NO_WAY);
	ck_assert_int_eq(wvm_view_allows(&view, COUNT, WVM_NODE_DRAINING), WVM_VIEW_NO_WAY);
	ck_assert(go(1, WVM_NODE_DRAINING));
	ck_assert_int_eq(wvm_view_allows(&view, 1, WVM_NODE_DRAINING), WVM_VIEW_IS_SO);
	ck_assert_int_eq(wvm_view_allows(&view, 1, WVM_NODE_WARMING), WVM_VIEW_MOVING);
	ck_assert_int_eq(wvm_view_allows(&view, 2, WVM_NODE_DRAINING), WVM_VIEW_MOVING);
	ck_assert(!go(1, WVM_NODE_OFFLINE));
	for (uint32_t i = 2; i < COUNT; i++)
		drained(i);
	ck_assert_int_eq(wvm_view_allows(&view, 0, WVM_NODE_DRAINING), WVM_VIEW_LAST);
	ck_assert_uint_eq(view.record.voters, 1);
	ck_assert_uint_eq(view.record.voter[0], 10);
}
END_TEST

/* Whoever is decided by others, without the rules of this version: all make the same of it. */
START_TEST(a_record_that_is_not_allowed_changes_no_state)
{
	struct wvm_epoch_record r;
	struct wvm_view before;

	first(0);
	ck_assert(go(1, WVM_NODE_DRAINING));
	before = view;
	for (unsigned i = 0; i < 6; i++) {
		r = view.record;
		r.epoch++;
		/* 13 and 99: no member's first vnode */
		r.node = (uint32_t[]){12, 13, 99, 10, 13, 99}[i];
		r.state = i < 3 ? WVM_NODE_DRAINING : i == 3 ? WVM_NODE_SHADOW : WVM_NODE_LOST;
		ck_assert(!wvm_view_apply(&view, &members, &r, &scratch));
		ck_assert_uint_eq(view.record.epoch, before.record.epoch + i + 1);
		ck_assert_mem_eq(view.state, before.state, sizeof(view.state));
		ck_assert_uint_eq(view.moved, before.moved);
		ck_assert(same(&view.slices, &before.slices) && same(&view.before, &before.before));
	}
}
END_TEST

static int voter(uint32_t vnode)
{
	return wvm_epoch_voter(&view.record, vnode);
}

START_TEST(who_leaves_is_replaced_as_a_voter_and_who_comes_fills_a_gap)
{
	first(1u << 8);
	ck_assert_uint_eq(view.record.voters, 7);
	ck_assert_int_lt(voter(18), 0);
	ck_assert(go(0, WVM_NODE_DRAINING));
	ck_assert_int_ge(voter(10), 0); /* until it is out */
	ck_assert(!go(0, WVM_NODE_OFFLINE));
	ck_assert_int_lt(voter(10), 0);
	ck_assert_int_ge(voter(18), 0);
	ck_assert_uint_eq(view.record.voters, 7);
	drained(1);
	ck_assert_uint_eq(view.record.voters, 6);
	ck_assert(go(8, WVM_NODE_WARMING));
	ck_assert_int_lt(voter(19), 0);
	ck_assert(!go(8, WVM_NODE_ACTIVE));
	ck_assert_int_ge(voter(19), 0);
	ck_assert(go(0, WVM_NODE_WARMING));
	ck_assert(!go(0, WVM_NODE_ACTIVE));
	ck_assert_uint_eq(view.record.voters, 7 + 0);
	ck_assert_int_lt(voter(10), 0); /* seven are enough */
}
END_TEST

/* As many as the machine of epochs keeps for others, and the latest. */
START_TEST(the_records_before_are_kept)
{
	first(1u << 8);
	ck_assert_uint_eq(view.kept_count, 0);
	for (uint32_t i = 0; i < WVM_EPOCH_LOG; i++) {
		struct wvm_epoch_record last = view.record;
		uint32_t count = 2 * i + 2 < WVM_EPOCH_LOG ? 2 * i + 2 : WVM_EPOCH_LOG;

		ck_assert_int_eq(go(8, i % 2 ? WVM_NODE_DRAINING : WVM_NODE_WARMING), 1);
		ck_assert(wvm_epoch_record_same(&view.kept[view.kept_count - 1], &last));
		last = view.record;
		ck_assert_int_eq(go(8, i % 2 ? WVM_NODE_OFFLINE : WVM_NODE_ACTIVE), 0);
		ck_assert_uint_eq(view.kept_count, count);
		ck_assert(wvm_epoch_record_same(&view.kept[count - 1], &last));
		for (uint32_t at = 0; at < count; at++)
			ck_assert_uint_eq(view.kept[at].epoch, view.record.epoch - count + at);
	}
}
END_TEST

/* ---- deaths ---------------------------------------------------------------------------- */

static uint32_t completer(void)
{
	return wvm_view_completer(&view);
}

/* Makes the record by itself, and all of the dead are out. */
static void complete(uint32_t member, enum wvm_node_state state)
{
	struct wvm_epoch_record r;

	ck_assert(wvm_view_completing(&view, &members, &r));
	ck_assert_uint_eq(r.node, list[member].first_vnode);
	ck_assert_uint_eq(r.state, state);
	ck_assert(!wvm_view_apply(&view, &members, &r, &scratch));
	ck_assert_uint_eq(view.moved, 0);
	ck_assert_uint_eq(view.moving, 0);
	ck_assert_uint_eq(view.lost_epoch, 0);
	ck_assert(same(&view.slices, &view.before));
	for (uint32_t i = 0; i < COUNT; i++)
		ck_assert_uint_ne(view.state[i], WVM_NODE_LOST);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		ck_assert(!lost(&view, i));
	ck_assert_uint_eq(completer(), WVM_SLICE_NIL);
	ck_assert(!wvm_view_completing(&view, &members, &r));
}

/* What a death may change of the tables, and what it has to. */
static void death_is_right(const struct wvm_view *was, const struct wvm_view *is, uint32_t dead)
{
	struct wvm_slices without = level(is);

	ck_assert(!(homes_in(&is->slices) >> dead & 1));
	ck_assert(same(&is->before, was->moved ? &was->before : &was->slices));
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		bool his = home_in(&was->slices, i) == dead;
		bool was_his = was->moved && home_in(&was->before, i) == dead;

		ck_assert_uint_eq(is->slices.home_vnode[i],
				  his ? without.home_vnode[i] : was->slices.home_vnode[i]);
		ck_assert_int_eq(lost(is, i), lost(was, i) || his || was_his);
	}
	ck_assert_uint_eq(is->lost_epoch, is->record.epoch);
	ck_assert_uint_eq(is->moved, was->moved ? was->moved : is->record.epoch);
	ck_assert_uint_eq(is->moving,
			  was->moved && was->moving != dead ? was->moving : WVM_VIEW_NOBODY);
	ck_assert_uint_eq(wvm_view_stirred(is), is->record.epoch);
}

static void dies(uint32_t member)
{
	static struct wvm_view was;

	was = view;
	ck_assert(go(member, WVM_NODE_LOST));
	ck_assert_uint_eq(view.state[member], WVM_NODE_LOST);
	death_is_right(&was, &view, member);
}

START_TEST(only_slices_of_the_dead_get_another_home)
{
	for (uint32_t i = 0; i < COUNT; i++) {
		first(0);
		dies(i);
		ck_assert_uint_eq(view.moved, 2);
		ck_assert_uint_eq(homes(true), 0x1ff);
		ck_assert_uint_eq(homes(false), 0x1ff & ~(1u << i));
		ck_assert(!wvm_view_takes_part(&view, i) && !wvm_view_open(&view, i));
		ck_assert_uint_eq(completer(), i == 0);
		complete(i, WVM_NODE_OFFLINE);
		ck_assert(!wvm_view_takes_part(&view, i) && !wvm_view_open(&view, i));
	}
}
END_TEST

/* The second one before the first is completed: one move, with what both leave. */
START_TEST(deaths_in_a_row_are_one_move)
{
	struct wvm_slices whole;

	first(0);
	whole = view.slices;
	dies(3);
	dies(0);
	dies(7);
	ck_assert_uint_eq(view.moved, 2);
	ck_assert_uint_eq(view.lost_epoch, 4);
	ck_assert(same(&view.before, &whole));
	ck_assert_uint_eq(completer(), 1);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		ck_assert_int_eq(lost(&view, i), 0x89 >> home_in(&whole, i) & 1);
	for (uint32_t i = 0; i < 3; i++) /* any of them completes it for all */
		ck_assert_int_eq(wvm_view_allows(&view, (uint32_t[]){3, 0, 7}[i], WVM_NODE_OFFLINE),
				 WVM_VIEW_ALLOWED);
	complete(0, WVM_NODE_OFFLINE);
	ck_assert_uint_eq(homes(false), 0x1ff & ~0x89u);
}
END_TEST

START_TEST(a_death_becomes_a_part_of_a_join)
{
	first(1u << 8);
	ck_assert(go(8, WVM_NODE_WARMING));
	dies(2);
	ck_assert_uint_eq(view.moved, 2);
	ck_assert_uint_eq(view.moving, 8);
	ck_assert_uint_eq(homes(true), 0xff);
	ck_assert_uint_eq(completer(), 8);
	ck_assert_int_eq(wvm_view_allows(&view, 2, WVM_NODE_OFFLINE), WVM_VIEW_MOVING);
	complete(8, WVM_NODE_ACTIVE);
	ck_assert_uint_eq(view.state[2], WVM_NODE_OFFLINE);
	ck_assert_uint_eq(homes(false), 0x1fb);
}
END_TEST

START_TEST(one_that_dies_as_it_joins_leaves_its_slices)
{
	first(1u << 8 | 1);
	ck_assert(go(8, WVM_NODE_WARMING));
	dies(8);
	ck_assert_uint_eq(homes(false), 0xfe);
	ck_assert_uint_eq(completer(), 1);
	dies(4);
	complete(4, WVM_NODE_OFFLINE);
	ck_assert_uint_eq(view.state[8], WVM_NODE_OFFLINE);
}
END_TEST

/* All that it had is on its way to others: they wait for what does not come any more. */
START_TEST(one_that_dies_as_it_is_drained_leaves_what_it_had)
{
	struct wvm_slices table;

	first(0);
	ck_assert(go(5, WVM_NODE_DRAINING));
	table = view.slices;
	dies(5);
	ck_assert(same(&view.slices, &table));
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		ck_assert_int_eq(lost(&view, i), home_in(&view.before, i) == 5);
	complete(5, WVM_NODE_OFFLINE);

	first(0);
	ck_assert(go(5, WVM_NODE_DRAINING));
	dies(6);
	ck_assert_uint_eq(completer(), 5);
	ck_assert(wvm_view_takes_part(&view, 5));
	complete(5, WVM_NODE_OFFLINE);
	ck_assert_uint_eq(view.state[6], WVM_NODE_OFFLINE);
}
END_TEST

START_TEST(none_joins_or_drains_until_the_dead_are_out_and_then_all_is_level)
{
	struct wvm_slices want;

	first(1u << 8);
	dies(2);
	ck_assert_int_eq(wvm_view_allows(&view, 8, WVM_NODE_WARMING), WVM_VIEW_MOVING);
	ck_assert_int_eq(wvm_view_allows(&view, 2, WVM_NODE_WARMING), WVM_VIEW_MOVING);
	ck_assert_int_eq(wvm_view_allows(&view, 3, WVM_NODE_DRAINING), WVM_VIEW_MOVING);
	ck_assert_int_eq(wvm_view_allows(&view, 2, WVM_NODE_DRAINING), WVM_VIEW_MOVING);
	ck_assert_int_eq(wvm_view_allows(&view, 3, WVM_NODE_OFFLINE), WVM_VIEW_NO_WAY);
	ck_assert_int_eq(wvm_view_allows(&view, 2, WVM_NODE_ACTIVE), WVM_VIEW_NO_WAY);
	ck_assert_int_eq(wvm_view_allows(&view, 2, WVM_NODE_LOST), WVM_VIEW_IS_SO);
	complete(2, WVM_NODE_OFFLINE);
	ck_assert_int_eq(wvm_view_allows(&view, 2, WVM_NODE_LOST), WVM_VIEW_IS_SO);
	ck_assert_int_eq(wvm_view_allows(&view, 8, WVM_NODE_LOST), WVM_VIEW_IS_SO);
	want = level(&view);
	ck_assert(!same(&view.slices, &want)); /* it is worth levelling */
	ck_assert(go(2, WVM_NODE_WARMING));
	want = level(&view);
	ck_assert(same(&view.slices, &want));
	ck_assert_uint_eq(homes(false), 0xff);
	complete(2, WVM_NODE_ACTIVE);
	ck_assert(wvm_view_takes_part(&view, 2) && wvm_view_open(&view, 2));
}
END_TEST

START_TEST(the_last_home_does_not_die)
{
	first(0);
	for (uint32_t i = 0; i < COUNT - 1; i++)
		dies(i);
	ck_assert_int_eq(wvm_view_allows(&view, COUNT - 1, WVM_NODE_LOST), WVM_VIEW_LAST);
	ck_assert_uint_eq(homes(false), 1u << (COUNT - 1));
	ck_assert_uint_eq(view.record.voters, 1);
	ck_assert_uint_eq(view.record.voter[0], 19);
	complete(0, WVM_NODE_OFFLINE);
	ck_assert_int_eq(wvm_view_allows(&view, COUNT - 1, WVM_NODE_LOST), WVM_VIEW_LAST);

	/* One that is drained is a home no more, and the one that comes is one already. */
	first(0x1fc);
	ck_assert(go(0, WVM_NODE_DRAINING));
	ck_assert_int_eq(wvm_view_allows(&view, 1, WVM_NODE_LOST), WVM_VIEW_LAST);
	dies(0);
	complete(0, WVM_NODE_OFFLINE);
	ck_assert(go(5, WVM_NODE_WARMING));
	dies(1);
	ck_assert_int_eq(wvm_view_allows(&view, 5, WVM_NODE_LOST), WVM_VIEW_LAST);
	ck_assert_uint_eq(homes(false), 1u << 5);
	complete(5, WVM_NODE_ACTIVE);
}
END_TEST

START_TEST(the_dead_do_not_vote)
{
	first(1u << 7);
	ck_assert_int_ge(voter(10), 0);
	ck_assert_int_lt(voter(19), 0);
	dies(0);
	ck_assert_int_lt(voter(10), 0);
	ck_assert_int_ge(voter(19), 0);
	ck_assert_uint_eq(view.record.voters, 7);
	dies(8); /* nobody is left to take its place: a spare one does not vote */
	ck_assert_uint_eq(view.record.voters, 6);
	ck_assert_int_lt(voter(19), 0);
	complete(0, WVM_NODE_OFFLINE);
	ck_assert_uint_eq(view.record.voters, 6);
	ck_assert(go(0, WVM_NODE_WARMING));
	ck_assert(!go(0, WVM_NODE_ACTIVE));
	ck_assert_int_ge(voter(10), 0);
}
END_TEST

/* ---- any order of records -------------------------------------------------------------- */

#define WALKS 8u
#define STEPS 60u

/* No table names anybody but homes; nothing is lost and nobody dead but in a move. */
static void invariants(const struct wvm_view *v)
{
	uint32_t state[WVM_NODE_STATES] = {0};

	for (uint32_t i = 0; i < COUNT; i++)
		state[v->state[i]]++;
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t now = home_in(&v->slices, i), was = home_in(&v->before, i);

		ck_assert(is_home(v->state[now]));
		ck_assert_uint_eq(v->slices.home_vnode[i], wvm_slice_vnode(i, &list[now]));
		if (v->state[was] == WVM_NODE_LOST)
			ck_assert(lost(v, i));
		if (!v->lost_epoch)
			ck_assert(!lost(v, i));
	}
	ck_assert_int_eq(v->lost_epoch != 0, state[WVM_NODE_LOST] != 0);
	ck_assert_int_eq(v->moved && v->moving != WVM_VIEW_NOBODY,
			 state[WVM_NODE_WARMING] + state[WVM_NODE_DRAINING]);
	if (!v->moved)
		ck_assert(same(&v->slices, &v->before) && !v->lost_epoch);
	for (uint32_t i = 0; i < v->record.voters; i++) {
		uint32_t m = wvm_member_of(&members, v->record.voter[i]);

		ck_assert(is_home(v->state[m]) || v->state[m] == WVM_NODE_DRAINING);
	}
}

/* Each home has its share by weight, to one slice. */
static void shares(const struct wvm_view *v)
{
	uint32_t count[COUNT] = {0}, weight = 0;

	for (uint32_t i = 0; i < WVM_SLICES; i++)
		count[home_in(&v->slices, i)]++;
	for (uint32_t i = 0; i < COUNT; i++)
		weight += is_home(v->state[i]) ? list[i].vnodes : 0;
	for (uint32_t i = 0; i < COUNT; i++) {
		uint32_t share = is_home(v->state[i]) ? WVM_SLICES * list[i].vnodes / weight : 0;

		ck_assert(count[i] == share || (share && count[i] == share + 1));
	}
}

static void step_is_right(const struct wvm_view *was, const struct wvm_view *is, uint32_t member,
			  enum wvm_node_state state)
{
	struct wvm_slices want;

	invariants(is);
	switch (state) {
	case WVM_NODE_LOST: death_is_right(was, is, member); break;
	case WVM_NODE_WARMING:
	case WVM_NODE_DRAINING:
		want = level(is);
		ck_assert(same(&is->slices, &want) && same(&is->before, &was->slices));
		ck_assert_uint_eq(is->moved, is->record.epoch);
		ck_assert_uint_eq(is->moving, member);
		shares(is);
		break;
	default: /* what completes a move moves nothing */
		ck_assert_uint_eq(is->moved, 0);
		ck_assert(same(&is->slices, &was->slices));
	}
}

static void refused_is_right(const struct wvm_view *was, const struct wvm_view *is)
{
	ck_assert(same(&is->slices, &was->slices) && same(&is->before, &was->before));
	ck_assert_mem_eq(is->state, was->state, sizeof(is->state));
	ck_assert_mem_eq(is->lost, was->lost, sizeof(is->lost));
	ck_assert_uint_eq(is->moved, was->moved);
	ck_assert_uint_eq(is->moving, was->moving);
	ck_assert_uint_eq(is->lost_epoch, was->lost_epoch);
}

static void store_and_read(struct wvm_view *v)
{
	static uint8_t bytes[WVM_VIEW_BYTES_MAX];
	size_t len = wvm_view_encode(bytes, v, &members, 10, 77);

	memset(v, 0xee, sizeof(*v));
	ck_assert_int_eq(wvm_view_decode(v, bytes, len, &members, 10, 77), 0);
}

/* The second node starts again after each record, with what it has stored. */
START_TEST(all_make_the_same_of_any_records)
{
	static struct wvm_view was, other;
	uint32_t seen[WVM_NODE_STATES] = {0}, dead_in_moves = 0;
	uint64_t random = 4711 + (uint64_t)_i;

	first((uint32_t)wvm_random_below(&random, 0xff));
	other = view;
	for (uint32_t i = 0; i < STEPS;) {
		uint32_t member = wvm_random_below(&random, COUNT);
		enum wvm_node_state state = wvm_random_below(&random, WVM_NODE_STATES);
		bool allowed = wvm_view_allows(&view, member, state) == WVM_VIEW_ALLOWED;
		struct wvm_epoch_record r = view.record;

		/* Deaths are rare, so that there are some to die. */
		if (wvm_random_below(&random, !allowed ? 8 : state == WVM_NODE_LOST ? 3 : 1))
			continue;
		r.epoch++;
		r.node = list[member].first_vnode;
		r.state = (uint8_t)state;
		ck_assert_int_eq(wvm_view_record(&view, &members, member, state, &r), allowed);
		if (!allowed && !wvm_epoch_record_check(&r))
			continue; /* nobody votes for it */
		was = view;
		ck_assert_int_eq(wvm_view_apply(&view, &members, &r, &scratch),
				 wvm_view_apply(&other, &members, &r, &scratch));
		store_and_read(&other);
		ck_assert_mem_eq(&other, &view, sizeof(view));
		if (!allowed) {
			refused_is_right(&was, &view);
			continue;
		}
		step_is_right(&was, &view, member, state);
		dead_in_moves += state == WVM_NODE_LOST && was.moved;
		seen[state]++;
		i++;
	}
	ck_assert(seen[WVM_NODE_WARMING] && seen[WVM_NODE_DRAINING] && seen[WVM_NODE_LOST]);
	ck_assert(seen[WVM_NODE_OFFLINE] && dead_in_moves);
}
END_TEST

/* ---- bytes ----------------------------------------------------------------------------- */

/* Before, in and after moves, with deaths and without. */
static void make(unsigned which)
{
	first(4);
	if (which & 1)
		ck_assert(go(1, WVM_NODE_DRAINING));
	if (which & 2)
		dies(0);
	if (which & 4)
		dies(3);
	if (which & 8)
		dies(view.state[1] == WVM_NODE_DRAINING ? 1 : 8);
}

START_TEST(what_is_stored_is_read_and_nothing_else_is)
{
	static uint8_t bytes[WVM_VIEW_BYTES_MAX];
	static struct wvm_view back;
	struct wvm_members fewer = {list, COUNT - 1};
	size_t len;

	make((unsigned)_i);
	len = wvm_view_encode(bytes, &view, &members, 10, 77);
	memset(&back, 0xee, sizeof(back));
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, &members, 10, 77), 0);
	ck_assert_mem_eq(&back, &view, sizeof(view));
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, &members, 11, 77), -EEXIST);
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, &members, 10, 78), -EEXIST);
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, &fewer, 10, 77), -EEXIST);
	for (size_t i = 0; i < len; i++)
		ck_assert_int_eq(wvm_view_decode(&back, bytes, i, &members, 10, 77), -EINVAL);
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len + 1, &members, 10, 77), -EINVAL);
	for (size_t i = 0; i < len; i++) {
		uint8_t right = bytes[i];

		bytes[i] ^= (uint8_t)(1 + (i * 89 + 13) % 255);
		ck_assert_int_eq(wvm_view_decode(&back, bytes, len, &members, 10, 77), -EINVAL);
		bytes[i] = right;
	}
}
END_TEST

static void refused(const struct wvm_view *v, const char *what)
{
	static uint8_t bytes[WVM_VIEW_BYTES_MAX];
	static struct wvm_view back;
	size_t len = wvm_view_encode(bytes, v, &members, 10, 77);

	ck_assert_msg(wvm_view_decode(&back, bytes, len, &members, 10, 77) == -EINVAL, "%s", what);
}

#define BAD(change)                     \
	do {                            \
		bad = view;             \
		change;                 \
		refused(&bad, #change); \
	} while (0)

/* A good checksum over what no sequence of records makes. */
START_TEST(a_view_that_cannot_be_is_refused)
{
	static struct wvm_view bad;
	uint32_t slice = 0;

	first(0);
	BAD(bad.moving = 1);
	BAD(bad.moving = WVM_VIEW_NOBODY);
	BAD(bad.moved = 1);
	BAD(bad.lost_epoch = 1);
	BAD(bad.lost[5] = 1);
	BAD(bad.state[home_in(&view.slices, 0)] = WVM_NODE_LOST);
	BAD(bad.state[home_in(&view.slices, 0)] = WVM_NODE_OFFLINE);
	while (home_in(&view.slices, slice) == 0)
		slice++;
	BAD(bad.before.home_vnode[slice] = 10);

	ck_assert(go(1, WVM_NODE_DRAINING));
	BAD(bad.moved = bad.moving = 0);
	BAD(bad.moving = 2);
	BAD(bad.moving = COUNT);
	BAD(bad.moving = WVM_VIEW_NOBODY);
	BAD(bad.moved = view.record.epoch + 1);
	BAD(bad.lost[WVM_SLICES / 64 - 1] = UINT64_C(1) << 63);
	BAD(bad.lost_epoch = bad.moved);
	BAD(bad.state[3] = WVM_NODE_WARMING);
	BAD(bad.state[4] = WVM_NODE_STATES);
	BAD(for (uint32_t i = 0; i < COUNT; i++) bad.state[i] = i == 1 ? WVM_NODE_DRAINING
								       : WVM_NODE_OFFLINE);
	BAD(bad.kept_count = WVM_EPOCH_LOG + 1);
	BAD(bad.kept[0].epoch++);
	BAD(bad.kept[0].voters = 0);
	BAD(bad.record.voters = 0);
	BAD(bad.slices.home_vnode[7] = 11); /* it is being drained */
	BAD(bad.slices.home_vnode[7] = 20); /* nobody's */
	BAD(bad.before.home_vnode[7] = 9);
}
END_TEST

START_TEST(a_death_that_cannot_be_is_refused)
{
	static struct wvm_view bad;
	uint32_t slice = 0;

	first(1u << 8);
	dies(3);
	BAD(bad.moved = 0);
	BAD(bad.moved = bad.moving = 0);
	BAD(bad.moving = 3);
	BAD(bad.lost_epoch = 0);
	BAD(bad.lost_epoch = view.record.epoch + 1);
	BAD(bad.state[3] = WVM_NODE_OFFLINE);
	BAD(bad.state[4] = WVM_NODE_LOST); /* and has slices */
	BAD(bad.slices = bad.before);
	while (home_in(&view.before, slice) != 3)
		slice++;
	BAD(bad.lost[slice / 64] = 0);
	BAD(bad.before.home_vnode[7] = 19); /* it was spare */
	dies(4);
	BAD(bad.lost_epoch = bad.moved - 1);
	complete(3, WVM_NODE_OFFLINE);
	ck_assert(go(3, WVM_NODE_WARMING));
	BAD(bad.before.home_vnode[7] = 14); /* it comes only now */
}
END_TEST

START_TEST(another_format_is_refused)
{
	static uint8_t bytes[WVM_VIEW_BYTES_MAX];
	static struct wvm_view back;
	size_t len;

	first(0);
	len = wvm_view_encode(bytes, &view, &members, 10, 77);
	ck_assert_mem_eq(bytes, "WVMVIEW2", 8);
	bytes[7] = '1';
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, &members, 10, 77), -EINVAL);
}
END_TEST

/* As many as there can be, and more: these are homes of nothing, whatever is decided of them. */
START_TEST(members_beyond_the_largest_number_are_of_no_account)
{
	static struct wvm_member many[WVM_VIEW_MEMBERS + 2];
	static uint8_t bytes[WVM_VIEW_BYTES_MAX], spare[WVM_VIEW_MEMBERS + 2];
	static struct wvm_view back;
	struct wvm_epoch_record r = {.epoch = 1, .state = WVM_NODE_ACTIVE, .voters = 1};
	struct wvm_members all = {many, WVM_VIEW_MEMBERS + 2};
	uint32_t vnode = 0;
	size_t len;

	for (uint32_t i = 0; i < all.count; i++) {
		spare[i] = i % 2048 && i != WVM_VIEW_MEMBERS - 1;
		many[i] = (struct wvm_member){vnode, spare[i] ? 1 : 200000};
		vnode += many[i].vnodes;
	}
	wvm_view_first(&view, &r, &all, spare, &scratch);
	ck_assert(wvm_view_takes_part(&view, WVM_VIEW_MEMBERS + 1));
	ck_assert_int_eq(wvm_view_allows(&view, WVM_VIEW_MEMBERS + 1, WVM_NODE_LOST),
			 WVM_VIEW_NO_WAY);
	ck_assert(wvm_view_record(&view, &all, WVM_VIEW_MEMBERS - 1, WVM_NODE_LOST, &r));
	ck_assert(wvm_view_apply(&view, &all, &r, &scratch));
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		ck_assert_uint_eq(wvm_member_of(&all, view.slices.home_vnode[i]) % 2048, 0);
	len = wvm_view_encode(bytes, &view, &all, 0, 77);
	ck_assert_uint_eq(len, WVM_VIEW_BYTES_MAX);
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, &all, 0, 77), 0);
	ck_assert_mem_eq(&back, &view, sizeof(view));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("view");
	TCase *t = tcase_create("view");
	SRunner *r;
	int failed;

	tcase_add_test(t, a_member_joins_and_drains_in_two_steps_each);
	tcase_add_test(t, one_member_at_a_time_is_on_its_way_and_the_last_home_stays);
	tcase_add_test(t, a_record_that_is_not_allowed_changes_no_state);
	tcase_add_test(t, who_leaves_is_replaced_as_a_voter_and_who_comes_fills_a_gap);
	tcase_add_test(t, the_records_before_are_kept);
	tcase_add_test(t, only_slices_of_the_dead_get_another_home);
	tcase_add_test(t, deaths_in_a_row_are_one_move);
	tcase_add_test(t, a_death_becomes_a_part_of_a_join);
	tcase_add_test(t, one_that_dies_as_it_joins_leaves_its_slices);
	tcase_add_test(t, one_that_dies_as_it_is_drained_leaves_what_it_had);
	tcase_add_test(t, none_joins_or_drains_until_the_dead_are_out_and_then_all_is_level);
	tcase_add_test(t, the_last_home_does_not_die);
	tcase_add_test(t, the_dead_do_not_vote);
	tcase_add_loop_test(t, all_make_the_same_of_any_records, 0, WALKS);
	tcase_add_loop_test(t, what_is_stored_is_read_and_nothing_else_is, 0, 16);
	tcase_add_test(t, a_view_that_cannot_be_is_refused);
	tcase_add_test(t, a_death_that_cannot_be_is_refused);
	tcase_add_test(t, another_format_is_refused);
	tcase_add_test(t, members_beyond_the_largest_number_are_of_no_account);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

/* The view: what each record makes of it, its tables, second homes, deaths, and who votes. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/check/view_rig.h"
#include "shared/core/assert.h"
#include "shared/core/random.h"

void wvm_core_panic(const char *what, const char *file, int line)
{
	ck_abort_msg("%s:%d: %s", file, line, what);
	abort();
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

/* What these members would have by weight, a bit each; made once for each. */
static const struct wvm_slices *by_weight(uint32_t homes)
{
	static struct wvm_slices *tables[1u << COUNT];
	uint8_t active[COUNT];

	if (!tables[homes]) {
		for (uint32_t i = 0; i < COUNT; i++)
			active[i] = homes >> i & 1;
		tables[homes] = malloc(sizeof(*tables[homes]));
		ck_assert_ptr_nonnull(tables[homes]);
		wvm_slices_build_active(tables[homes], &members, active, &scratch);
	}
	return tables[homes];
}

static uint32_t homes_of(const struct wvm_view *v)
{
	uint32_t homes = 0;

	for (uint32_t i = 0; i < members.count; i++)
		homes |= (uint32_t)is_home(v->state[i]) << i;
	return homes;
}

static struct wvm_slices level(const struct wvm_view *v)
{
	return *by_weight(homes_of(v));
}

/* The second home where nothing else says it: the home by weight, if the home were none. */
static uint32_t computed(const struct wvm_view *v, uint32_t slice)
{
	uint32_t others = homes_of(v) & ~(1u << home_in(&v->slices, slice));

	return others ? by_weight(others)->home_vnode[slice] : WVM_SLICE_NIL;
}

static bool homes_vnode(const struct wvm_view *v, uint32_t vnode)
{
	return vnode != WVM_SLICE_NIL && is_home(v->state[wvm_member_of(&members, vnode)]);
}

static bool lost(const struct wvm_view *v, uint32_t slice)
{
	return v->lost[slice / 64] >> slice % 64 & 1;
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
		ck_assert(same(&view.seconds, &before.seconds));
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
	struct wvm_slices slices = view.slices, seconds = view.seconds;
	struct wvm_epoch_record r;

	ck_assert(wvm_view_completing(&view, &members, &r));
	ck_assert_uint_eq(r.node, list[member].first_vnode);
	ck_assert_uint_eq(r.state, state);
	ck_assert(!wvm_view_apply(&view, &members, &r, &scratch));
	ck_assert_uint_eq(view.moved, 0);
	ck_assert_uint_eq(view.moving, 0);
	ck_assert_uint_eq(view.lost_epoch, 0);
	ck_assert(same(&view.slices, &slices) && same(&view.before, &slices));
	ck_assert(same(&view.seconds, &seconds));
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
	ck_assert(!(homes_in(&is->slices) >> dead & 1));
	ck_assert(same(&is->before, was->moved ? &was->before : &was->slices));
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		bool his = home_in(&was->slices, i) == dead;
		bool was_his = was->moved && home_in(&was->before, i) == dead;

		bool second = home_in(&was->seconds, i) == dead;

		ck_assert_uint_eq(is->slices.home_vnode[i],
				  (his ? was->seconds : was->slices).home_vnode[i]);
		ck_assert_uint_eq(is->seconds.home_vnode[i],
				  his || second ? computed(is, i) : was->seconds.home_vnode[i]);
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

/* ---- second homes ---------------------------------------------------------------------- */

/* Of slices that moved: the former homes, if they still are; pairs that can stay do. */
static void seconds_are_right(const struct wvm_view *was, const struct wvm_view *is)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		bool moved = is->slices.home_vnode[i] != was->slices.home_vnode[i];
		uint32_t want = (moved ? was->slices : was->seconds).home_vnode[i];

		ck_assert_uint_eq(is->seconds.home_vnode[i],
				  homes_vnode(is, want) ? want : computed(is, i));
	}
}

START_TEST(the_first_second_homes_are_the_homes_without_the_first)
{
	struct wvm_slices want;
	uint8_t active[COUNT];

	first(1u << 8 | 1u << 3);
	wvm_view_homes(&view, COUNT, active);
	wvm_slices_build_backup(&want, &view.slices, &members, active, NULL, &scratch);
	ck_assert(same(&view.seconds, &want));
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		ck_assert_uint_eq(view.seconds.home_vnode[i], computed(&view, i));
}
END_TEST

/* Nothing is copied for it, not even of slices that stay, and nothing is left of it. */
START_TEST(a_join_makes_no_copies_and_its_slices_go_back_if_it_dies)
{
	uint32_t kept = 0, moved = 0;
	struct wvm_view was;

	first(1u << 8);
	was = view;
	ck_assert(go(8, WVM_NODE_WARMING));
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		bool stays = view.slices.home_vnode[i] == was.slices.home_vnode[i];

		ck_assert_uint_eq(view.seconds.home_vnode[i],
				  (stays ? was.seconds : was.slices).home_vnode[i]);
		moved += !stays;
		kept += stays && view.seconds.home_vnode[i] != computed(&view, i);
	}
	ck_assert_uint_gt(moved, 0);
	ck_assert_uint_gt(kept, 0); /* by history alone */
	dies(8);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (lost(&view, i))
			ck_assert_uint_eq(view.slices.home_vnode[i], was.slices.home_vnode[i]);
}
END_TEST

START_TEST(who_is_drained_is_nobodys_second_home)
{
	struct wvm_view was;

	first(0);
	was = view;
	ck_assert(go(3, WVM_NODE_DRAINING));
	seconds_are_right(&was, &view);
	ck_assert_uint_eq(homes_in(&view.seconds), 0x1f7);
	was = view;
	complete(3, WVM_NODE_OFFLINE);
	dies(5); /* of the second homes of the new pairs */
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (home_in(&was.slices, i) == 5)
			ck_assert_uint_eq(view.slices.home_vnode[i], was.seconds.home_vnode[i]);
	ck_assert_uint_eq(homes_in(&view.seconds), 0x1d7);
}
END_TEST

START_TEST(the_only_home_has_no_second_one_until_another_one_joins)
{
	static struct wvm_slices none;

	memset(&none, 0xff, sizeof(none));
	first(0x1fe);
	ck_assert(same(&view.seconds, &none));
	ck_assert(go(4, WVM_NODE_WARMING));
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		ck_assert_uint_eq(home_in(&view.seconds, i), 4 - home_in(&view.slices, i));
	complete(4, WVM_NODE_ACTIVE);
	ck_assert(go(0, WVM_NODE_DRAINING));
	ck_assert(same(&view.seconds, &none));
	complete(0, WVM_NODE_OFFLINE);
	ck_assert(go(0, WVM_NODE_WARMING));
	dies(4);
	ck_assert(same(&view.seconds, &none));
}
END_TEST

/* ---- any order of records -------------------------------------------------------------- */

#define WALKS 8u
#define STEPS 60u
#define FEW   5u

/* One that would have the slice at once if the home died, wherever there is anybody. */
static void second_is_plausible(const struct wvm_view *v, uint32_t slice)
{
	uint32_t vnode = v->seconds.home_vnode[slice], second = home_in(&v->seconds, slice);

	if (homes_of(v) == 1u << home_in(&v->slices, slice)) {
		ck_assert_uint_eq(vnode, WVM_SLICE_NIL);
		return;
	}
	ck_assert_uint_lt(second, members.count);
	ck_assert(is_home(v->state[second]) && second != home_in(&v->slices, slice));
	ck_assert_uint_eq(vnode, wvm_slice_vnode(slice, &list[second]));
}

/* No table names anybody but homes; nothing is lost and nobody dead but in a move. */
static void invariants(const struct wvm_view *v)
{
	uint32_t state[WVM_NODE_STATES] = {0};

	for (uint32_t i = 0; i < members.count; i++)
		state[v->state[i]]++;
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t now = home_in(&v->slices, i), was = home_in(&v->before, i);

		ck_assert(is_home(v->state[now]));
		ck_assert_uint_eq(v->slices.home_vnode[i], wvm_slice_vnode(i, &list[now]));
		second_is_plausible(v, i);
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
	for (uint32_t i = 0; i < members.count; i++)
		weight += is_home(v->state[i]) ? list[i].vnodes : 0;
	for (uint32_t i = 0; i < members.count; i++) {
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
		seconds_are_right(was, is);
		shares(is);
		break;
	default: /* what completes a move moves nothing */
		ck_assert_uint_eq(is->moved, 0);
		ck_assert(same(&is->slices, &was->slices) && same(&is->seconds, &was->seconds));
	}
}

static void refused_is_right(const struct wvm_view *was, const struct wvm_view *is)
{
	ck_assert(same(&is->slices, &was->slices) && same(&is->before, &was->before));
	ck_assert(same(&is->seconds, &was->seconds));
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

	members.count = _i ? FEW : COUNT;
	first((uint32_t)wvm_random_below(&random, (1u << (members.count - 1)) - 1));
	other = view;
	for (uint32_t i = 0; i < STEPS;) {
		uint32_t member = wvm_random_below(&random, members.count);
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
	tcase_add_test(t, the_first_second_homes_are_the_homes_without_the_first);
	tcase_add_test(t, a_join_makes_no_copies_and_its_slices_go_back_if_it_dies);
	tcase_add_test(t, who_is_drained_is_nobodys_second_home);
	tcase_add_test(t, the_only_home_has_no_second_one_until_another_one_joins);
	tcase_add_loop_test(t, all_make_the_same_of_any_records, 0, WALKS);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

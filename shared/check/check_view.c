/* The view: what each record makes of it, who votes, and its bytes. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/assert.h"
#include "shared/view.h"

#define COUNT 9u

static const struct wvm_member list[COUNT] = {{10, 1}, {11, 1}, {12, 2}, {14, 1}, {15, 1},
					      {16, 1}, {17, 1}, {18, 1}, {19, 1}};
static const struct wvm_members members = {list, COUNT};
static struct wvm_view view;

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
	wvm_view_first(&view, &r, COUNT, spare);
}

/* Of the homes, before or after the move: a bit each. */
static uint32_t homes(bool before)
{
	uint8_t is[COUNT];
	uint32_t bits = 0;

	wvm_view_homes(&view, COUNT, before, is);
	for (uint32_t i = 0; i < COUNT; i++)
		bits |= (uint32_t)is[i] << i;
	return bits;
}

static bool go(uint32_t member, enum wvm_node_state state)
{
	struct wvm_epoch_record r;

	ck_assert(wvm_view_record(&view, &members, member, state, &r));
	ck_assert(wvm_epoch_record_check(&r));
	ck_assert_uint_eq(r.epoch, view.record.epoch + 1);
	return wvm_view_apply(&view, &members, &r);
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
	for (unsigned i = 0; i < 4; i++) {
		r = view.record;
		r.epoch++;
		r.node = (uint32_t[]){12, 13, 99, 10}[i]; /* 13 and 99: no member's first vnode */
		r.state = i < 3 ? WVM_NODE_DRAINING : WVM_NODE_SHADOW;
		ck_assert(!wvm_view_apply(&view, &members, &r));
		ck_assert_uint_eq(view.record.epoch, before.record.epoch + i + 1);
		ck_assert_mem_eq(view.state, before.state, sizeof(view.state));
		ck_assert_uint_eq(view.moved, before.moved);
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

START_TEST(what_is_stored_is_read_and_nothing_else_is)
{
	uint8_t bytes[WVM_VIEW_BYTES_MAX], other[WVM_VIEW_BYTES_MAX];
	struct wvm_view back;
	size_t len;

	first(4);
	ck_assert(go(1, WVM_NODE_DRAINING));
	len = wvm_view_encode(bytes, &view, 10, 77);
	memset(&back, 0xee, sizeof(back));
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, 10, 77, COUNT), 0);
	ck_assert_mem_eq(&back, &view, sizeof(view));
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, 11, 77, COUNT), -EEXIST);
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, 10, 78, COUNT), -EEXIST);
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, 10, 77, COUNT + 1), -EEXIST);
	for (size_t i = 0; i < len; i++)
		ck_assert_int_eq(wvm_view_decode(&back, bytes, i, 10, 77, COUNT), -EINVAL);
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len + 1, 10, 77, COUNT), -EINVAL);
	for (size_t i = 0; i < len * 8; i++) {
		memcpy(other, bytes, len);
		other[i / 8] ^= (uint8_t)(1u << i % 8);
		ck_assert_int_eq(wvm_view_decode(&back, other, len, 10, 77, COUNT), -EINVAL);
	}
}
END_TEST

/* A good checksum over what no sequence of records makes. */
START_TEST(a_view_that_cannot_be_is_refused)
{
	uint8_t bytes[WVM_VIEW_BYTES_MAX];
	struct wvm_view back, bad[9];

	first(0);
	ck_assert(go(1, WVM_NODE_DRAINING));
	for (unsigned i = 0; i < 9; i++)
		bad[i] = view;
	bad[0].moved = 0;
	bad[0].moving = 0;
	bad[1].moving = 2;
	bad[2].moved = view.record.epoch + 1;
	bad[3].state[3] = WVM_NODE_WARMING;
	bad[4].state[4] = WVM_NODE_STATES;
	for (uint32_t i = 0; i < COUNT; i++)
		bad[5].state[i] = i == 1 ? WVM_NODE_DRAINING : WVM_NODE_OFFLINE;
	bad[6].kept_count = WVM_EPOCH_LOG + 1;
	bad[7].kept[0].epoch++;
	bad[8].kept[0].voters = 0;
	for (unsigned i = 0; i < 9; i++) {
		size_t len = wvm_view_encode(bytes, &bad[i], 10, 77);

		ck_assert_msg(wvm_view_decode(&back, bytes, len, 10, 77, COUNT) == -EINVAL, "%u",
			      i);
	}
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
	tcase_add_test(t, what_is_stored_is_read_and_nothing_else_is);
	tcase_add_test(t, a_view_that_cannot_be_is_refused);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

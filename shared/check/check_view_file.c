/* The bytes of a view: what is stored is read, and what cannot be is refused. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/check/view_rig.h"
#include "shared/core/assert.h"

void wvm_core_panic(const char *what, const char *file, int line)
{
	ck_abort_msg("%s:%d: %s", file, line, what);
	abort();
}

static void dies(uint32_t member)
{
	ck_assert(go(member, WVM_NODE_LOST));
}

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

#define TABLES    (3 * 2 * WVM_SLICES)
#define TABLES_AT (WVM_VIEW_BYTES_MAX - WVM_VIEW_MEMBERS - 8 - TABLES)

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
	/* Of the tables every sixteenth byte; with all states that is each. */
	for (size_t i = 0; i < len; i++) {
		uint8_t right = bytes[i];

		if (i >= TABLES_AT && i < TABLES_AT + TABLES && i % 16 != (size_t)_i)
			continue;

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
	BAD(bad.seconds.home_vnode[7] = bad.slices.home_vnode[7]);
	BAD(bad.seconds.home_vnode[7] = 11);
	BAD(bad.seconds.home_vnode[7] = 20);
	BAD(bad.seconds.home_vnode[7] = WVM_SLICE_NIL);

	first(0x1fe);
	BAD(bad.seconds.home_vnode[7] = 10);
	BAD(bad.seconds.home_vnode[7] = 11);
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
	BAD(bad.seconds.home_vnode[7] = 19);
	BAD(bad.seconds.home_vnode[7] = 14); /* it is dead */
	dies(4);
	BAD(bad.lost_epoch = bad.moved - 1);
	ck_assert(!go(3, WVM_NODE_OFFLINE));
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
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t home = wvm_member_of(&all, view.slices.home_vnode[i]);

		ck_assert_uint_eq(home % 2048, 0);
		ck_assert_uint_eq(wvm_member_of(&all, view.seconds.home_vnode[i]), 2048 - home);
	}
	len = wvm_view_encode(bytes, &view, &all, 0, 77);
	ck_assert_uint_eq(len, WVM_VIEW_BYTES_MAX);
	ck_assert_int_eq(wvm_view_decode(&back, bytes, len, &all, 0, 77), 0);
	ck_assert_mem_eq(&back, &view, sizeof(view));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("view_file");
	TCase *t = tcase_create("view_file");
	SRunner *r;
	int failed;

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

/* Placed ranges: what is found is what is there, for any table of them. */
#include <check.h>
#include <string.h>

#include "shared/core/layout.h"

#define UNIT(n) ((uint64_t)(n) << WVM_UNIT_SHIFT)

static struct wvm_layout_range list[WVM_LAYOUT_MAX];

static uint64_t random64(void)
{
	static uint64_t x = UINT64_C(88172645463325252);

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

START_TEST(nothing_is_found_where_nothing_is_placed)
{
	const struct wvm_layout none = {NULL, 0};

	ck_assert_ptr_null(wvm_layout_find(&none, 0, 0));
	ck_assert_ptr_null(wvm_layout_find(&none, UINT16_MAX, WVM_GPA_MAX - 1));
}
END_TEST

START_TEST(a_range_ends_with_its_last_byte_and_its_vm)
{
	const struct wvm_layout_range one = {.first = wvm_layout_key(7, UNIT(3)), .units = 2};
	const struct wvm_layout layout = {&one, 1};

	ck_assert_ptr_null(wvm_layout_find(&layout, 7, UNIT(3) - 1));
	ck_assert_ptr_eq(wvm_layout_find(&layout, 7, UNIT(3)), &one);
	ck_assert_ptr_eq(wvm_layout_find(&layout, 7, UNIT(5) - 1), &one);
	ck_assert_ptr_null(wvm_layout_find(&layout, 7, UNIT(5)));
	ck_assert_ptr_null(wvm_layout_find(&layout, 6, UNIT(3)));
	ck_assert_ptr_null(wvm_layout_find(&layout, 8, UNIT(3)));
}
END_TEST

START_TEST(a_whole_vm_may_be_placed_and_the_next_one_is_not)
{
	const struct wvm_layout_range one = {.first = wvm_layout_key(UINT16_MAX - 1, 0),
					     .units = WVM_GPA_MAX >> WVM_UNIT_SHIFT};
	const struct wvm_layout layout = {&one, 1};

	ck_assert_ptr_eq(wvm_layout_find(&layout, UINT16_MAX - 1, 0), &one);
	ck_assert_ptr_eq(wvm_layout_find(&layout, UINT16_MAX - 1, WVM_GPA_MAX - 1), &one);
	ck_assert_ptr_null(wvm_layout_find(&layout, UINT16_MAX, 0));
	ck_assert_ptr_null(wvm_layout_find(&layout, UINT16_MAX - 2, WVM_GPA_MAX - 1));
}
END_TEST

/* Ranges with and without gaps, over three VMs. */
static uint32_t make_ranges(uint32_t count)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (i == count / 3 || i == 2 * count / 3)
			at = ((at >> 32) + 1) << 32;
		at += random64() % 3;
		list[i] = (struct wvm_layout_range){
			.first = at, .units = 1 + random64() % 4, .line = i + 1};
		at += list[i].units;
	}
	return count;
}

static const struct wvm_layout_range *by_hand(uint32_t count, uint64_t key)
{
	for (uint32_t i = 0; i < count; i++)
		if (key >= list[i].first && key < list[i].first + list[i].units)
			return &list[i];
	return NULL;
}

START_TEST(every_unit_of_any_table_is_found_as_by_looking_at_all)
{
	static const uint32_t counts[] = {1, 2, 3, 5, 16, 63, 200, WVM_LAYOUT_MAX};
	uint32_t found = 0, n = make_ranges(counts[_i]);
	const struct wvm_layout layout = {list, n};

	for (uint16_t vm = 0; vm < 4; vm++)
		for (uint64_t unit = 0; unit < 2 * n + 16; unit++) {
			const struct wvm_layout_range *r = wvm_layout_find(&layout, vm, UNIT(unit));

			ck_assert_ptr_eq(r, by_hand(n, wvm_layout_key(vm, UNIT(unit))));
			found += r != NULL;
		}
	ck_assert_uint_ge(found, n);
}
END_TEST

START_TEST(units_are_dealt_to_the_vnodes_of_their_node)
{
	static const struct wvm_member members[] = {{0, 2}, {5, 3}, {8, 1}};
	const struct wvm_members all = {members, 3};
	const struct wvm_layout_range r = {
		.first = wvm_layout_key(1, UNIT(10)), .units = 600, .member = 1};
	uint32_t seen[3] = {0};

	for (uint64_t unit = 10; unit < 610; unit++) {
		uint32_t vnode = wvm_layout_vnode(&r, &all, 1, UNIT(unit) + 4096);

		ck_assert_uint_eq(wvm_member_of(&all, vnode), 1);
		seen[vnode - 5]++;
	}
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(seen[i], 200);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("layout");
	TCase *tc = tcase_create("layout");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, nothing_is_found_where_nothing_is_placed);
	tcase_add_test(tc, a_range_ends_with_its_last_byte_and_its_vm);
	tcase_add_test(tc, a_whole_vm_may_be_placed_and_the_next_one_is_not);
	tcase_add_loop_test(tc, every_unit_of_any_table_is_found_as_by_looking_at_all, 0, 8);
	tcase_add_test(tc, units_are_dealt_to_the_vnodes_of_their_node);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

/* The hash ring: balance, stability, and that every page has a home. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/msg.h"
#include "shared/core/slices.h"

#define MEMBERS_MAX   200u
#define MOVED_PERCENT 6u /* of all slices, beyond those that have to; 3 but for the heaviest */

static struct wvm_member list[MEMBERS_MAX];
static struct wvm_slices_scratch scratch;

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

enum weights { EQUAL, RANDOM, ONE_LARGE, ONE_SMALL, DOUBLING };
#define WEIGHTS 5

static uint32_t weight_of(enum weights weights, uint32_t i, uint64_t *random)
{
	switch (weights) {
	case EQUAL: return 1;
	case RANDOM: return 1 + next_random(random) % 64;
	case ONE_LARGE: return i ? 1 : 64;
	case ONE_SMALL: return i ? 64 : 1;
	case DOUBLING: break;
	}
	return 1u << i % 7;
}

/* Members with gaps between their vnodes, as after nodes have left. */
static struct wvm_members make_members(uint32_t count, enum weights weights, uint64_t seed)
{
	uint64_t random = seed * 2654435761u + 88172645463325252u;
	uint32_t vnode = next_random(&random) % 5;

	for (uint32_t i = 0; i < count; i++) {
		list[i] = (struct wvm_member){vnode, weight_of(weights, i, &random)};
		vnode += list[i].vnodes + next_random(&random) % 3;
	}
	return (struct wvm_members){list, count};
}

static void count_slices(const struct wvm_slices *table, const struct wvm_members *members,
			 uint32_t *counts)
{
	memset(counts, 0, members->count * sizeof(*counts));
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t m = wvm_member_of(members, table->home_vnode[i]);

		ck_assert_uint_lt(m, members->count);
		counts[m]++;
	}
}

static const uint32_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 16, 31, 50, 100, 200};
#define SIZES (int)(sizeof(sizes) / sizeof(sizes[0]))

/* Every slice has a home among the members, and each member its weighted share, to one slice. */
START_TEST(every_member_gets_its_share_to_one_slice)
{
	uint32_t size = sizes[_i / WEIGHTS], counts[MEMBERS_MAX];
	uint32_t rounds = _i % WEIGHTS == RANDOM ? 5 : 1;

	for (uint32_t seed = 0; seed < rounds; seed++) {
		struct wvm_members members = make_members(size, _i % WEIGHTS, seed);
		struct wvm_slices table;
		uint64_t weight = 0;

		wvm_slices_build(&table, &members, &scratch);
		count_slices(&table, &members, counts);
		for (uint32_t i = 0; i < size; i++)
			weight += list[i].vnodes;
		for (uint32_t i = 0; i < size; i++) {
			uint64_t ideal = (uint64_t)WVM_SLICES * list[i].vnodes;

			/* |count - ideal / weight| < 1, without dividing. */
			ck_assert_uint_lt(ideal, (counts[i] + 1u) * weight);
			ck_assert_uint_gt(ideal + weight, counts[i] * weight);
		}
	}
}
END_TEST

START_TEST(equal_inputs_make_equal_tables)
{
	static struct wvm_slices first, second;
	struct wvm_members members = make_members(23, RANDOM, 4);

	memset(&first, 0x11, sizeof(first));
	memset(&second, 0x22, sizeof(second));
	memset(&scratch, 0x33, sizeof(scratch));
	wvm_slices_build(&first, &members, &scratch);
	wvm_slices_build(&second, &members, &scratch);
	ck_assert_mem_eq(&first, &second, sizeof(first));
}
END_TEST

/* What all nodes of all versions agree on: a table computed otherwise breaks a cluster. */
START_TEST(the_table_is_the_same_in_every_build)
{
	static struct wvm_slices table;
	struct wvm_member three[] = {{0, 1}, {1, 2}, {3, 4}};
	struct wvm_members members = {three, 3};
	uint64_t sum = 14695981039346656037u; /* FNV-1a */

	wvm_slices_build(&table, &members, &scratch);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		sum = (sum ^ table.home_vnode[i]) * 1099511628211u;
	ck_assert_uint_eq(sum, UINT64_C(2474827317486294504));
	ck_assert_uint_eq(wvm_slice_of(0, 0), 0);
	ck_assert_uint_eq(wvm_slice_of(7, 0x12345678000), 3912);
}
END_TEST

/* Slices whose home differs, by node and not by vnode. */
static uint32_t moved(const struct wvm_slices *a, const struct wvm_members *of_a,
		      const struct wvm_slices *b, const struct wvm_members *of_b)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t x = wvm_member_of(of_a, a->home_vnode[i]);
		uint32_t y = wvm_member_of(of_b, b->home_vnode[i]);

		n += of_a->list[x].first_vnode != of_b->list[y].first_vnode;
	}
	return n;
}

/* A member comes (or, read the other way, goes): its share moves, and a few percent besides. */
START_TEST(a_member_that_joins_or_leaves_moves_little_more_than_its_share)
{
	static struct wvm_slices before, after;
	static struct wvm_member fewer[MEMBERS_MAX];
	uint32_t size = sizes[_i / WEIGHTS];
	struct wvm_members all = make_members(size, _i % WEIGHTS, 9), most;
	uint32_t places[] = {0, size - 1}, counts[MEMBERS_MAX];

	if (size < 2 || (size > 50 && _i % WEIGHTS != ONE_LARGE && _i % WEIGHTS != RANDOM))
		return;
	wvm_slices_build(&after, &all, &scratch);
	count_slices(&after, &all, counts);
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t left_out = places[i];

		memcpy(fewer, list, left_out * sizeof(*list));
		memcpy(fewer + left_out, list + left_out + 1,
		       (size - left_out - 1) * sizeof(*list));
		most = (struct wvm_members){fewer, size - 1};
		wvm_slices_build(&before, &most, &scratch);
		ck_assert_uint_ge(moved(&before, &most, &after, &all), counts[left_out]);
		ck_assert_uint_le(moved(&before, &most, &after, &all),
				  counts[left_out] + WVM_SLICES * MOVED_PERCENT / 100);
	}
}
END_TEST

START_TEST(every_vnode_of_a_member_is_a_home_in_its_turn)
{
	static struct wvm_slices table;
	struct wvm_members members = make_members(3, EQUAL, 1);
	uint32_t seen[64] = {0};

	list[1].vnodes = 64;
	list[2].first_vnode += 64;
	wvm_slices_build(&table, &members, &scratch);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (wvm_member_of(&members, table.home_vnode[i]) == 1)
			seen[table.home_vnode[i] - list[1].first_vnode]++;
	for (uint32_t i = 0; i < 64; i++) /* 62 expected */
		ck_assert(seen[i] > 25 && seen[i] < 110);
}
END_TEST

START_TEST(a_vnode_belongs_to_the_member_whose_range_has_it)
{
	struct wvm_members members = make_members(sizes[_i], RANDOM, 5);
	uint32_t member = 0, last = list[members.count - 1].first_vnode;

	for (uint32_t vnode = 0; vnode < last + 200; vnode++) {
		bool inside;

		while (member < members.count &&
		       vnode >= list[member].first_vnode + list[member].vnodes)
			member++;
		inside = member < members.count && vnode >= list[member].first_vnode;
		ck_assert_uint_eq(wvm_member_of(&members, vnode), inside ? member : WVM_SLICE_NIL);
	}
	ck_assert_uint_eq(wvm_member_of(&members, UINT32_MAX), WVM_SLICE_NIL);
	ck_assert_uint_eq(wvm_member_of(&(struct wvm_members){list, 0}, 0), WVM_SLICE_NIL);
}
END_TEST

/* Every third member is not active, unless that leaves nobody, or `all` are. */
static void build_both(const struct wvm_members *members, bool all, uint8_t *active,
		       struct wvm_slices *table, struct wvm_slices *backup)
{
	for (uint32_t i = 0; i < members->count; i++)
		active[i] = all || members->count < 3 || i % 3 != 1;
	memset(backup, 0x55, sizeof(*backup));
	wvm_slices_build_active(table, members, active, &scratch);
	wvm_slices_build_backup(backup, table, members, all ? NULL : active, NULL, &scratch);
}

#define BACKED_UP                                                                                \
	9 /* sizes, some with more members than choices are listed; a table each is built, twice \
	   */
START_TEST(the_second_home_of_a_slice_is_its_home_without_the_first)
{
	static struct wvm_slices table, backup, without;
	uint8_t active[MEMBERS_MAX];
	struct wvm_members members = make_members(sizes[_i / WEIGHTS % BACKED_UP], _i % WEIGHTS, 3);

	build_both(&members, _i >= BACKED_UP * WEIGHTS, active, &table, &backup);
	for (uint32_t home = 0; home < members.count; home++) {
		if (!active[home] || members.count == 1)
			continue;
		active[home] = 0;
		wvm_slices_build_active(&without, &members, active, &scratch);
		active[home] = 1;
		for (uint32_t i = 0; i < WVM_SLICES; i++)
			if (wvm_member_of(&members, table.home_vnode[i]) == home)
				ck_assert_uint_eq(backup.home_vnode[i], without.home_vnode[i]);
	}
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t second = wvm_member_of(&members, backup.home_vnode[i]);

		ck_assert_uint_ne(second, wvm_member_of(&members, table.home_vnode[i]));
		if (members.count > 1)
			ck_assert(second < members.count && active[second]);
	}
}
END_TEST

START_TEST(slices_of_members_that_are_not_mortal_have_no_second_home)
{
	static struct wvm_slices table, all, backup;
	static const uint8_t mortal[5] = {0, 1, 0, 1, 1};
	struct wvm_members members = make_members(5, RANDOM, 1);

	wvm_slices_build(&table, &members, &scratch);
	wvm_slices_build_backup(&all, &table, &members, NULL, NULL, &scratch);
	wvm_slices_build_backup(&backup, &table, &members, NULL, mortal, &scratch);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		ck_assert_uint_eq(backup.home_vnode[i],
				  mortal[wvm_member_of(&members, table.home_vnode[i])]
					  ? all.home_vnode[i]
					  : WVM_SLICE_NIL);
}
END_TEST

START_TEST(the_only_home_has_no_second_one)
{
	static struct wvm_slices table, backup;
	static const uint8_t active[5] = {0, 0, 1, 0, 0};
	struct wvm_members members = make_members(_i ? 1 : 5, RANDOM, 1);

	memset(&backup, 0, sizeof(backup));
	wvm_slices_build_active(&table, &members, _i ? NULL : active, &scratch);
	wvm_slices_build_backup(&backup, &table, &members, _i ? NULL : active, NULL, &scratch);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		ck_assert_uint_eq(backup.home_vnode[i], WVM_SLICE_NIL);
}
END_TEST

/* Chi-square of 4096 slices over consecutive units: 4095 ± 5 standard deviations (90). */
START_TEST(consecutive_units_spread_evenly)
{
	static uint32_t counts[WVM_SLICES];
	const uint32_t units = WVM_SLICES * 50;
	static const uint64_t starts[] = {0, UINT64_C(1) << 40, UINT64_C(1) << 51, 12345};
	static const uint64_t strides[] = {1, 512, 2048, 3};
	double chi = 0;

	memset(counts, 0, sizeof(counts));
	for (uint64_t i = 0; i < units; i++) {
		uint64_t unit = (starts[_i % 4] >> WVM_UNIT_SHIFT) + i * strides[_i / 4];

		counts[wvm_slice_of(7, unit << WVM_UNIT_SHIFT)]++;
	}
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		chi += (counts[i] - 50.0) * (counts[i] - 50.0) / 50.0;
	ck_assert(chi > 4095 - 5 * 90.5 && chi < 4095 + 5 * 90.5);
}
END_TEST

START_TEST(all_pages_of_a_unit_share_a_slice)
{
	for (uint64_t unit = 0; unit < 1000; unit++)
		for (uint64_t at = 0; at < WVM_UNIT_BYTES; at += WVM_UNIT_BYTES / 8)
			ck_assert_uint_eq(wvm_slice_of(3, unit * WVM_UNIT_BYTES + at),
					  wvm_slice_of(3, unit * WVM_UNIT_BYTES));
}
END_TEST

/* Two VMs' equal addresses meet in one slice by chance only: one in 4096. */
START_TEST(another_vm_has_other_slices)
{
	static const uint16_t pairs[][2] = {{0, 1}, {1, 2}, {7, 0x700}, {0, 0xffff}};
	uint32_t same = 0;

	for (uint64_t unit = 0; unit < 100000; unit++)
		same += wvm_slice_of(pairs[_i][0], unit << WVM_UNIT_SHIFT) ==
			wvm_slice_of(pairs[_i][1], unit << WVM_UNIT_SHIFT);
	ck_assert(same > 2 && same < 60); /* 24 expected */
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("slices");
	TCase *tc = tcase_create("slices");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, every_member_gets_its_share_to_one_slice, 0, SIZES * WEIGHTS);
	tcase_add_test(tc, equal_inputs_make_equal_tables);
	tcase_add_test(tc, the_table_is_the_same_in_every_build);
	tcase_add_loop_test(tc, a_member_that_joins_or_leaves_moves_little_more_than_its_share, 0,
			    SIZES * WEIGHTS);
	tcase_add_loop_test(tc, the_second_home_of_a_slice_is_its_home_without_the_first, 0,
			    2 * BACKED_UP * WEIGHTS);
	tcase_add_test(tc, slices_of_members_that_are_not_mortal_have_no_second_home);
	tcase_add_loop_test(tc, the_only_home_has_no_second_one, 0, 2);
	tcase_add_test(tc, every_vnode_of_a_member_is_a_home_in_its_turn);
	tcase_add_loop_test(tc, a_vnode_belongs_to_the_member_whose_range_has_it, 0, SIZES);
	tcase_add_loop_test(tc, consecutive_units_spread_evenly, 0, 16);
	tcase_add_test(tc, all_pages_of_a_unit_share_a_slice);
	tcase_add_loop_test(tc, another_vm_has_other_slices, 0, 4);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

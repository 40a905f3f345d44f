/* Which node runs which processor. */
#include <check.h>

#include "shared/deal.h"

#define NODES_MAX 4u
#define VCPUS_MAX 16u

/* Nodes 1, 2, ... of so many cores; the processors that they have; where the next ones go. */
static const struct {
	const char *what;
	uint32_t cores[NODES_MAX], before[NODES_MAX], vcpus, to[VCPUS_MAX];
} deals[] = {
	{"one node gets all", {4}, {0}, 3, {1, 1, 1}},
	{"one node, more than it has cores", {1}, {0}, 4, {1, 1, 1, 1}},
	{"equal nodes in turn", {2, 2, 2}, {0}, 7, {1, 2, 3, 1, 2, 3, 1}},
	{"in turn beyond their cores, too", {1, 1}, {0}, 5, {1, 2, 1, 2, 1}},
	{"by weight", {4, 2}, {0}, 6, {1, 2, 1, 1, 2, 1}},
	{"by weight, the smaller one first in the list", {2, 4}, {0}, 6, {2, 1, 2, 2, 1, 2}},
	{"by weight beyond their cores", {2, 1}, {0}, 6, {1, 2, 1, 1, 2, 1}},
	{"no cores, none", {0, 3}, {0}, 3, {2, 2, 2}},
	{"what one has counts", {2, 2}, {0, 1}, 4, {1, 1, 2, 1}},
	{"who has too many gets none", {4, 4}, {0, 9}, 5, {1, 1, 1, 1, 1}},
	{"a large one that keeps one", {2, 2, 16}, {0, 0, 1}, 6, {3, 3, 3, 3, 3, 3}},
	{"nobody's idle core is passed over", {8, 1, 1}, {0}, 10, {1, 1, 1, 1, 1, 1, 1, 2, 3, 1}},
	{"none to deal", {2}, {0}, 0, {0}},
};
#define DEALS ((int)(sizeof(deals) / sizeof(deals[0])))

START_TEST(each_goes_where_the_cores_are)
{
	struct wvm_deal_node nodes[NODES_MAX];
	uint32_t to[VCPUS_MAX + 1] = {0}, dealt[NODES_MAX + 1] = {0}, vcpus = deals[_i].vcpus;

	to[vcpus] = 99;
	for (uint32_t i = 0; i < NODES_MAX; i++)
		nodes[i] = (struct wvm_deal_node){i + 1, deals[_i].cores[i], deals[_i].before[i]};
	ck_assert_uint_eq(wvm_deal(nodes, NODES_MAX, to, vcpus), vcpus);
	for (uint32_t k = 0; k < vcpus; k++) {
		ck_assert_msg(to[k] == deals[_i].to[k], "%s: processor %u goes to node %u, not %u",
			      deals[_i].what, k, to[k], deals[_i].to[k]);
		dealt[to[k]]++;
	}
	for (uint32_t i = 0; i < NODES_MAX; i++)
		ck_assert_uint_eq(nodes[i].vcpus, deals[_i].before[i] + dealt[i + 1]);
	ck_assert_uint_eq(to[vcpus], 99);
}
END_TEST

START_TEST(without_cores_nothing_is_dealt)
{
	struct wvm_deal_node nodes[] = {{1, 0, 0}, {2, 0, 3}};
	uint32_t to[2];

	ck_assert_uint_eq(wvm_deal(nodes, 2, to, 2), 0);
	ck_assert_uint_eq(wvm_deal(nodes, 0, to, 2), 0);
}
END_TEST

/* 64 processors over nodes of 1 to 32 cores: after each one, as the header says it is. */
START_TEST(sixty_four_processors)
{
	static const uint32_t cores[] = {16, 1, 32, 5, 0, 8};
	struct wvm_deal_node nodes[6];
	uint32_t to[64], again[64];

	for (uint32_t vcpus = 1; vcpus <= 64; vcpus++) {
		for (uint32_t i = 0; i < 6; i++)
			nodes[i] = (struct wvm_deal_node){10 + i, cores[i], 0};
		ck_assert_uint_eq(wvm_deal(nodes, 6, to, vcpus), vcpus);
		/* The first ones do not depend on how many follow. */
		for (uint32_t k = 0; k + 1 < vcpus; k++)
			ck_assert_uint_eq(to[k], again[k]);
		again[vcpus - 1] = to[vcpus - 1];
		for (uint32_t a = 0; a < 6; a++)
			for (uint32_t b = 0; b < 6; b++)
				if (nodes[a].vcpus > cores[a])
					ck_assert_uint_ge(nodes[b].vcpus, cores[b]);
		ck_assert_uint_eq(nodes[4].vcpus, 0);
	}
	/* 62 cores: all are taken, and the two that are left go where they weigh least. */
	ck_assert_uint_eq(nodes[0].vcpus, 17);
	ck_assert_uint_eq(nodes[1].vcpus, 1);
	ck_assert_uint_eq(nodes[2].vcpus, 33);
	ck_assert_uint_eq(nodes[3].vcpus, 5);
	ck_assert_uint_eq(nodes[5].vcpus, 8);
}
END_TEST

START_TEST(the_largest_numbers_do_not_overflow)
{
	struct wvm_deal_node nodes[] = {{1, UINT32_MAX, UINT32_MAX - 4}, {2, UINT32_MAX, 0}};
	uint32_t to[2];

	ck_assert_uint_eq(wvm_deal(nodes, 2, to, 2), 2);
	ck_assert_uint_eq(to[0], 2);
	ck_assert_uint_eq(to[1], 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("deal");
	TCase *tc = tcase_create("deal");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tc, each_goes_where_the_cores_are, 0, DEALS);
	tcase_add_test(tc, without_cores_nothing_is_dealt);
	tcase_add_test(tc, sixty_four_processors);
	tcase_add_test(tc, the_largest_numbers_do_not_overflow);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

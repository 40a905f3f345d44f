#include <errno.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>

#include "ring/check/support.h"
#include "ring/place.h"

static char why[256];

static void synthetic(const char *topology)
{
	ck_assert_int_eq(setenv("HWLOC_SYNTHETIC", topology, 1), 0);
}

static unsigned count_distinct(const struct wvm_place *p, unsigned n, bool cores)
{
	unsigned distinct = 0;

	for (unsigned i = 0; i < n; i++) {
		bool seen = false;

		for (unsigned j = 0; j < i; j++)
			seen |= cores ? p[i].core == p[j].core : p[i].pu == p[j].pu;
		distinct += !seen;
	}
	return distinct;
}

static unsigned on_node(const struct wvm_place *p, unsigned n, int node)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++)
		count += p[i].node == node;
	return count;
}

static const struct spread_case {
	const char *topology;
	unsigned shards, cores, pus, nodes, crowded;
} spread_cases[] = {
	{"numa:2 core:1 pu:1", 2, 2, 2, 2, 0},   {"numa:2 core:2 pu:2", 2, 2, 2, 2, 0},
	{"numa:2 core:2 pu:2", 4, 4, 4, 2, 0},   {"numa:2 core:2 pu:2", 8, 4, 8, 2, 0},
	{"numa:2 core:2 pu:2", 16, 4, 8, 2, 16}, {"numa:4 core:16 pu:2", 64, 64, 64, 4, 0},
	{"numa:1 core:4 pu:1", 3, 3, 3, 1, 0},   {"numa:1 core:1 pu:1", 3, 1, 1, 1, 3},
};

START_TEST(shards_spread_over_nodes_then_cores_then_threads)
{
	const struct spread_case *c = &spread_cases[_i];
	struct wvm_place p[64], again[64];
	unsigned crowded = 0;

	synthetic(c->topology);
	ck_assert_int_eq(wvm_place_compute(p, c->shards, NULL, why, sizeof(why)), 0);
	ck_assert_uint_eq(count_distinct(p, c->shards, true), c->cores);
	ck_assert_uint_eq(count_distinct(p, c->shards, false), c->pus);
	for (unsigned i = 0; i < c->nodes; i++)
		ck_assert_uint_eq(on_node(p, c->shards, (int)i), c->shards / c->nodes);
	for (unsigned i = 0; i < c->shards; i++) {
		crowded += p[i].crowded;
		ck_assert(!p[i].real);
	}
	ck_assert_uint_eq(crowded, c->crowded);
	ck_assert_int_eq(wvm_place_compute(again, c->shards, "", why, sizeof(why)), 0);
	ck_assert_mem_eq(p, again, c->shards * sizeof(p[0]));
}
END_TEST

/* PUs are numbered thread by thread within a core here, so a core's first one is even. */
START_TEST(every_core_of_every_package_gives_its_first_thread_first)
{
	struct wvm_place p[16];

	synthetic("package:2 numa:2 core:4 pu:2");
	ck_assert_int_eq(wvm_place_compute(p, 16, NULL, why, sizeof(why)), 0);
	ck_assert_uint_eq(count_distinct(p, 16, true), 16);
	for (unsigned i = 0; i < 16; i++) {
		ck_assert_int_eq(p[i].pu, 2 * p[i].core);
		ck_assert_int_eq(p[i].node, p[i].pu / 8);
	}
	ck_assert_int_eq(wvm_place_compute(p, 4, NULL, why, sizeof(why)), 0);
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(on_node(p, 4, i), 1);
}
END_TEST

START_TEST(a_list_is_followed_in_its_order_and_begun_again)
{
	const int want[] = {5, 2, 3, 5};
	struct wvm_place p[4];

	synthetic("numa:2 core:2 pu:2");
	ck_assert_int_eq(wvm_place_compute(p, 4, "5,2-3", why, sizeof(why)), 0);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(p[i].pu, want[i]);
	ck_assert_int_eq(p[0].node, 1);
	ck_assert_int_eq(p[1].node, 0);
	ck_assert(p[0].crowded && p[3].crowded && !p[1].crowded);
	ck_assert(wvm_place_same_pu(&p[0], &p[3]));
	ck_assert(!wvm_place_same_pu(&p[0], &p[1]));
}
END_TEST

static const struct {
	const char *list;
	int err;
} bad_lists[] = {
	{"x", -EINVAL},  {"0,", -EINVAL},   {",0", -EINVAL}, {"3-1", -EINVAL},
	{"0-", -EINVAL}, {"0 1", -EINVAL},  {"-1", -EINVAL}, {"0-99999999999", -EINVAL},
	{"8", -ENODEV},  {"1000", -ENODEV},
};

START_TEST(a_bad_list_is_refused_with_its_text)
{
	struct wvm_place p[1];

	synthetic("numa:2 core:2 pu:2");
	why[0] = 0;
	ck_assert_int_eq(wvm_place_compute(p, 1, bad_lists[_i].list, why, sizeof(why)),
			 bad_lists[_i].err);
	ck_assert_ptr_nonnull(strstr(why, bad_lists[_i].list));
}
END_TEST

START_TEST(the_number_of_shards_has_bounds)
{
	struct wvm_place p[1];

	ck_assert_int_eq(wvm_place_compute(p, 0, NULL, why, sizeof(why)), -EINVAL);
	ck_assert_int_eq(wvm_place_compute(p, WVM_PLACE_MAX + 1, NULL, why, sizeof(why)), -EINVAL);
}
END_TEST

START_TEST(the_text_has_a_line_per_shard_and_never_overruns)
{
	struct wvm_place p[3];
	char text[512], small[40];

	synthetic("numa:2 core:1 pu:1");
	ck_assert_int_eq(wvm_place_compute(p, 3, "0,1,0", why, sizeof(why)), 0);
	ck_assert_uint_eq(wvm_place_print(p, 3, text, sizeof(text)), strlen(text));
	ck_assert_str_eq(text, "shard 0: cpu 0, core 0, NUMA node 0, shared, not applied\n"
			       "shard 1: cpu 1, core 1, NUMA node 1, not applied\n"
			       "shard 2: cpu 0, core 0, NUMA node 0, shared, not applied\n");
	memset(small, 'x', sizeof(small));
	ck_assert_uint_eq(wvm_place_print(p, 3, small, 30), 29);
	ck_assert_uint_eq(strlen(small), 29);
	ck_assert_int_eq(small[30], 'x');
}
END_TEST

START_TEST(a_foreign_topology_is_not_applied)
{
	struct wvm_place p;
	cpu_set_t before, after;

	synthetic("numa:2 core:32 pu:1");
	ck_assert_int_eq(wvm_place_compute(&p, 1, "63", why, sizeof(why)), 0);
	ck_assert_int_eq(sched_getaffinity(0, sizeof(before), &before), 0);
	ck_assert_int_eq(wvm_place_apply(&p), 0);
	ck_assert_int_eq(sched_getaffinity(0, sizeof(after), &after), 0);
	ck_assert(CPU_EQUAL(&before, &after));
}
END_TEST

static int last_cpu(void)
{
	cpu_set_t set;
	int last = -1;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set))
			last = i;
	return last;
}

START_TEST(applying_pins_the_thread_and_prefers_its_node)
{
	int cpu = last_cpu(), policy = -1;
	unsigned long nodes[16] = {0};
	struct wvm_place p;
	char list[16];
	cpu_set_t set;
	void *mem;

	snprintf(list, sizeof(list), "%d", cpu);
	ck_assert_int_eq(wvm_place_compute(&p, 1, list, why, sizeof(why)), 0);
	ck_assert(p.real);
	ck_assert_int_eq(wvm_place_apply(&p), 0);
	ck_assert_int_eq(sched_getcpu(), cpu);
	ck_assert_int_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	ck_assert_int_eq(CPU_COUNT(&set), 1);
	ck_assert_int_eq(get_mempolicy(&policy, nodes, 1024, NULL, 0), 0);
	ck_assert_int_eq(policy, MPOL_PREFERRED);
	ck_assert_uint_eq(nodes[0], 1UL << p.node);
	mem = aligned_alloc(4096, 8192);
	ck_assert_int_eq(wvm_place_memory(&p, mem, 8192), 0);
	ck_assert_int_eq(get_mempolicy(&policy, nodes, 1024, mem, MPOL_F_ADDR), 0);
	ck_assert_int_eq(policy, MPOL_PREFERRED);
	free(mem);
}
END_TEST

START_TEST(the_affinity_mask_bounds_the_placement)
{
	int cpu = last_cpu();
	struct wvm_place p[2];
	char list[16];
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(set), &set), 0);
	ck_assert_int_eq(wvm_place_compute(p, 2, NULL, why, sizeof(why)), 0);
	ck_assert_int_eq(p[0].pu, cpu);
	ck_assert_int_eq(p[1].pu, cpu);
	ck_assert(p[0].crowded && p[1].crowded);
	ck_assert_uint_eq(wvm_place_cores(), 1);
	snprintf(list, sizeof(list), "%d", cpu ? 0 : 1);
	ck_assert_int_eq(wvm_place_compute(p, 1, list, why, sizeof(why)), -ENODEV);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/place");
	TCase *c = tcase_create("place");

	tcase_add_loop_test(c, shards_spread_over_nodes_then_cores_then_threads, 0,
			    sizeof(spread_cases) / sizeof(spread_cases[0]));
	tcase_add_test(c, every_core_of_every_package_gives_its_first_thread_first);
	tcase_add_test(c, a_list_is_followed_in_its_order_and_begun_again);
	tcase_add_loop_test(c, a_bad_list_is_refused_with_its_text, 0,
			    sizeof(bad_lists) / sizeof(bad_lists[0]));
	tcase_add_test(c, the_number_of_shards_has_bounds);
	tcase_add_test(c, the_text_has_a_line_per_shard_and_never_overruns);
	tcase_add_test(c, a_foreign_topology_is_not_applied);
	tcase_add_test(c, applying_pins_the_thread_and_prefers_its_node);
	tcase_add_test(c, the_affinity_mask_bounds_the_placement);
	suite_add_tcase(s, c);
	return run_suite(s);
}

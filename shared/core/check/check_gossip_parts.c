/* A simulated tree run in parts is what it is as a whole: check_gossip_scale has the latter. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/scale/scale.h"

/* Three tiers, or two; views of tier 0 that hold a pod exactly, or less. */
static const struct tree {
	uint32_t pod, pods, zones, room, loss_ppm;
	double apart; /* of accusations, at most: how many there are follows from the loss */
} trees[] = {
	{25, 8, 5, 24, 20000, 0}, /* hardly any */
	{25, 8, 5, 24, 200000, 0.15},
	{25, 20, 1, 24, 200000, 0.15},
	{40, 5, 5, 30, 200000, 0.15},
};
#define TREES   (sizeof(trees) / sizeof(trees[0]))
#define SPREADS 20u

static struct scale_plan plan_of(const struct tree *t)
{
	struct scale_plan p = {
		.name = "a tree",
		.note = "a test",
		.c = {.pod = t->pod,
		      .pods = t->pods,
		      .zones = t->zones,
		      .room = t->room,
		      .room_up = 64,
		      .loss_ppm = t->loss_ppm,
		      .delay_min_ms = 1,
		      .delay_max_ms = 3,
		      .seed = 1},
		.warm_s = 5,
		.quiet_s = 30,
		.after_s = 30,
		.deaths = 40,
	};

	scale_gossip(&p.c.gossip, true, scale_hosts(&p.c));
	return p;
}

static void assert_near(const char *what, double whole, double parts, double apart)
{
	ck_assert_msg(parts >= whole * (1 - apart) && parts <= whole * (1 + apart),
		      "%s: %g in parts, %g as a whole", what, parts, whole);
}

static void free_all(struct scale_result *r, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		scale_result_free(&r[i]);
}

START_TEST(a_tree_in_parts_has_the_figures_of_the_whole)
{
	const struct tree *t = &trees[_i];
	struct scale_plan plan = plan_of(t);
	struct scale_result r[2], *whole = &r[0], *parts = &r[1];

	ck_assert(scale_measure(&plan, whole));
	plan.processes = 2;
	ck_assert(scale_measure(&plan, parts));
	ck_assert_uint_eq(parts->hosts, whole->hosts);
	ck_assert_uint_eq(parts->agents, whole->agents);
	ck_assert(parts->state_bytes == whole->state_bytes);
	ck_assert(parts->node_hours == whole->node_hours);
	ck_assert_uint_lt(parts->memory, whole->memory);
	assert_near("messages", whole->messages, parts->messages, 0.03);
	assert_near("bytes", whole->bytes, parts->bytes, 0.03);
	if (t->apart > 0) {
		ck_assert(whole->suspected > 100);
		assert_near("accusations", whole->suspected, parts->suspected, t->apart);
	}
	/* All that live learn the epoch, and of each death. */
	ck_assert_uint_eq(parts->epoch.of, parts->hosts - 40);
	ck_assert_uint_eq(parts->epoch.reached, parts->epoch.of);
	ck_assert_uint_gt(parts->epoch.max_ms, 0);
	ck_assert_uint_le(parts->epoch.max_ms, 4000);
	ck_assert_uint_eq(parts->first.of, 40);
	ck_assert_uint_eq(parts->first.reached, 40);
	assert_near("first verdict", whole->first.median_ms, parts->first.median_ms, 0.15);
	if (t->loss_ppm == 20000) {
		assert_near("each verdict", whole->all.median_ms, parts->all.median_ms, 0.15);
		ck_assert_uint_ge(parts->all.of, 40 * (t->pod - 10));
		ck_assert_uint_eq(parts->all.reached, parts->all.of);
		ck_assert(parts->false_dead == 0);
	}
	free_all(r, 2);
}
END_TEST

/* One spread alone says little: how long it takes to the first gateway is chance. */
START_TEST(an_epoch_takes_as_long_in_parts)
{
	struct scale_plan plan = plan_of(&trees[_i]);
	double median_ms[2] = {0}, p99_ms[2] = {0};

	plan.c.loss_ppm = 20000;
	plan.quiet_s = 1;
	plan.after_s = 5;
	plan.deaths = 0;
	for (uint32_t i = 0; i < 2 * SPREADS; i++) {
		struct scale_result r;

		plan.c.seed = i / 2;
		plan.processes = i % 2 * 2;
		ck_assert(scale_measure(&plan, &r));
		ck_assert_uint_eq(r.epoch.reached, r.hosts);
		median_ms[i % 2] += r.epoch.median_ms / (double)SPREADS;
		p99_ms[i % 2] += r.epoch.p99_ms / (double)SPREADS;
		scale_result_free(&r);
	}
	assert_near("median", median_ms[0], median_ms[1], 0.25);
	assert_near("p99", p99_ms[0], p99_ms[1], 0.1);
}
END_TEST

START_TEST(the_parts_together_have_each_object_once)
{
	struct scale_plan plan = plan_of(&trees[_i]);
	const struct scale_config *c = &plan.c;
	uint32_t agents = scale_agents(c), pods = c->pods * c->zones, origin = 3;
	uint8_t *times = calloc(agents, 1);

	for (uint32_t pod = 0; pod < pods; pod++) {
		struct scale_part p = {pod == origin ? SCALE_UPPER : SCALE_POD, pod};
		static struct scale s;
		uint32_t hosts = 0;

		ck_assert(scale_init_part(&s, c, &p));
		for (uint32_t i = 0; i < agents; i++) {
			times[i] += s.agent[i].g != NULL;
			ck_assert(!s.agent[i].g || s.host[s.agent[i].host].up);
		}
		for (uint32_t i = 0; i < s.hosts; i++)
			hosts += s.host[i].up;
		ck_assert_uint_eq(hosts, scale_part_hosts(c, &p));
		scale_free(&s);
	}
	for (uint32_t i = 0; i < agents; i++)
		ck_assert_msg(times[i] == 1, "object %u: %u times", i, times[i]);
	free(times);
}
END_TEST

START_TEST(no_figure_depends_on_the_number_of_processes)
{
	static const uint32_t processes[] = {1, 2, 5};
	struct scale_plan plan = plan_of(&trees[1]);
	struct scale_result r[3];

	for (uint32_t i = 0; i < 3; i++) {
		plan.processes = processes[i];
		ck_assert(scale_measure(&plan, &r[i]));
		ck_assert(r[i].messages == r[0].messages && r[i].bytes == r[0].bytes);
		ck_assert(r[i].suspected == r[0].suspected);
		ck_assert(r[i].false_dead == r[0].false_dead && r[i].false_dead > 0);
		ck_assert_mem_eq(r[i].epoch.curve_ms, r[0].epoch.curve_ms,
				 SCALE_CURVE * sizeof(uint32_t));
		ck_assert_mem_eq(r[i].first.curve_ms, r[0].first.curve_ms,
				 SCALE_CURVE * sizeof(uint32_t));
		ck_assert_mem_eq(r[i].all.curve_ms, r[0].all.curve_ms,
				 SCALE_CURVE * sizeof(uint32_t));
	}
	free_all(r, 3);
}
END_TEST

START_TEST(a_pod_alone_hears_of_no_epoch_until_a_gateway_knows_it)
{
	struct scale_plan plan = plan_of(&trees[0]);
	struct scale_part p = {SCALE_POD, 7};
	uint32_t first = p.pod * plan.c.pod;
	static struct scale s;

	ck_assert(scale_init_part(&s, &plan.c, &p));
	scale_run(&s, 20000);
	for (uint32_t i = 0; i < plan.c.pod; i++)
		ck_assert_uint_eq(s.host[first + i].epoch, 1);
	scale_epoch(&s, first + 1);
	scale_run(&s, 23000);
	for (uint32_t i = 0; i < plan.c.pod; i++)
		ck_assert_uint_eq(s.host[first + i].epoch, 2);
	scale_free(&s);
}
END_TEST

/* Else what is asked of members outside of a part would not be answered. */
START_TEST(what_speaks_beyond_its_pod_is_not_divided)
{
	struct scale_plan plan = plan_of(&trees[0]);
	struct scale_result r;

	ck_assert(scale_divisible(&plan.c));
	plan.processes = 1;
	plan.c.room = plan.c.pod;
	ck_assert(!scale_divisible(&plan.c));
	ck_assert(!scale_measure(&plan, &r));
	plan.c.room = plan.c.pod - 1;
	plan.c.pods = plan.c.zones = 1;
	ck_assert(!scale_divisible(&plan.c));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gossip_parts");
	TCase *tc = tcase_create("gossip_parts");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, a_tree_in_parts_has_the_figures_of_the_whole, 0, TREES);
	tcase_add_loop_test(tc, an_epoch_takes_as_long_in_parts, 1, TREES);
	tcase_add_loop_test(tc, the_parts_together_have_each_object_once, 0, TREES);
	tcase_add_test(tc, no_figure_depends_on_the_number_of_processes);
	tcase_add_test(tc, a_pod_alone_hears_of_no_epoch_until_a_gateway_knows_it);
	tcase_add_test(tc, what_speaks_beyond_its_pod_is_not_divided);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

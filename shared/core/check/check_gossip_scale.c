/* A small run of make scale: 200 and 1,000 nodes, and a tree of 1,000. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/core/scale/scale.h"

enum { MESH_200, MESH_1000, THEIRS_1000, TREE_1000, PLANS };

static struct scale_result results[PLANS];

static struct scale_plan plan(const char *name, uint32_t pod, uint32_t pods, uint32_t zones,
			      bool ours)
{
	struct scale_plan p = {
		.name = name,
		.note = "a test",
		.c = {.pod = pod,
		      .pods = pods,
		      .zones = zones,
		      .room = pod < 100 ? 64 : 1024,
		      .loss_ppm = 20000,
		      .delay_min_ms = 1,
		      .delay_max_ms = 3,
		      .seed = 1},
		.warm_s = 5,
		.quiet_s = 20,
		.after_s = ours ? 20 : 40,
		.deaths = 8,
	};

	scale_gossip(&p.c.gossip, ours, pod * pods * zones);
	return p;
}

static void run(int which)
{
	struct scale_plan p;

	switch (which) {
	case MESH_200: p = plan("200", 200, 1, 1, true); break;
	case MESH_1000: p = plan("1000", 1000, 1, 1, true); break;
	case THEIRS_1000: p = plan("1000, memberlist", 1000, 1, 1, false); break;
	default: p = plan("1000 in pods", 20, 10, 5, true); break;
	}
	ck_assert(scale_measure(&p, &results[which]));
}

START_TEST(all_learn_of_epochs_and_deaths_in_time_and_for_a_few_messages)
{
	const struct scale_result *r = &results[_i];
	uint32_t period_ms, suspect_ms;

	run(_i);
	period_ms = (uint32_t)(r->plan.c.gossip.period_ns / 1000000);
	suspect_ms = (uint32_t)(r->plan.c.gossip.suspect_ns / 1000000);
	ck_assert_uint_eq(r->hosts, _i == MESH_200 ? 200 : 1000);
	/* 8 died. Without its messages getting lost an epoch takes a few round trips. */
	ck_assert_uint_eq(r->epoch.of, r->hosts - 8);
	ck_assert_uint_eq(r->epoch.reached, r->epoch.of);
	ck_assert_uint_gt(r->epoch.max_ms, 0);
	ck_assert_uint_le(r->epoch.max_ms, 4000);
	ck_assert_uint_eq(r->first.reached, 8);
	ck_assert_uint_ge(r->first.median_ms, suspect_ms);
	ck_assert_uint_le(r->first.max_ms, suspect_ms + 6 * period_ms);
	ck_assert_uint_eq(r->all.reached, r->all.of);
	ck_assert_uint_ge(r->all.of, _i == TREE_1000 ? 8 * 15 : 8 * (r->hosts - 8));
	ck_assert_uint_le(r->all.max_ms, suspect_ms + 10 * period_ms);
	ck_assert(r->false_dead == 0);
	/* A probe and an answer in each period, also for others: some more for what is lost. */
	ck_assert(r->messages >= 2e3 / period_ms);
	ck_assert(r->messages <= 8e3 / period_ms);
	ck_assert(r->bytes > r->messages * (WVM_HEADER_BYTES + WVM_GOSSIP_HEAD_BYTES));
	scale_result_free(&results[_i]);
}
END_TEST

START_TEST(the_figures_are_written_so_that_others_can_read_them)
{
	char svg[] = "/tmp/wvm_scale_svg_XXXXXX", json[] = "/tmp/wvm_scale_json_XXXXXX", line[64];
	int fds[2] = {mkstemp(svg), mkstemp(json)};
	FILE *f;
	json_t *all;

	ck_assert(fds[0] >= 0 && fds[1] >= 0);
	run(MESH_200);
	ck_assert_int_eq(scale_plot(svg, &results[MESH_200], 1), 0);
	ck_assert_int_eq(scale_json(json, &results[MESH_200], 1), 0);
	f = fopen(svg, "r");
	ck_assert(f && fgets(line, sizeof(line), f));
	ck_assert(!strncmp(line, "<svg ", 5));
	fclose(f);
	all = json_load_file(json, 0, NULL);
	ck_assert_uint_eq(json_array_size(all), 1);
	ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(all, 0), "nodes")), 200);
	ck_assert_int_eq(
		json_integer_value(json_object_get(
			json_object_get(json_array_get(all, 0), "epoch_known"), "reached")),
		192);
	json_decref(all);
	ck_assert_int_eq(scale_json("/nowhere/at/all", &results[MESH_200], 1), -2);
	scale_result_free(&results[MESH_200]);
	close(fds[0]);
	close(fds[1]);
	unlink(svg);
	unlink(json);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gossip_scale");
	TCase *tc = tcase_create("gossip_scale");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, all_learn_of_epochs_and_deaths_in_time_and_for_a_few_messages, 0,
			    PLANS);
	tcase_add_test(tc, the_figures_are_written_so_that_others_can_read_them);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

/* Gossip among simulated hosts (shared/core/scale): what its user relies on. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/scale/scale.h"

#define SECOND 1000u
#define HOUR   (3600 * SECOND)

#ifdef EFFORT /* per cent */
#define LONG (HOUR * EFFORT / 100)
#else
#define LONG HOUR
#endif

static struct scale s;

static struct scale_config config(uint32_t pod)
{
	struct scale_config c = {.pod = pod,
				 .pods = 1,
				 .zones = 1,
				 .room = WVM_GOSSIP_ROOM,
				 .delay_min_ms = 1,
				 .delay_max_ms = 5,
				 .seed = 7};

	scale_gossip(&c.gossip, true, pod);
	return c;
}

static void begin(const struct scale_config *c)
{
	ck_assert(scale_init(&s, c));
}

/* How many that are up have that opinion of a host. */
static uint32_t opinions(uint32_t of, uint8_t status)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s.hosts; i++)
		n += i != of && s.host[i].up && scale_opinion(&s, i, 0, of) == status;
	return n;
}

static uint32_t wrong_opinions(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s.hosts; i++)
		n += s.host[i].up ? s.hosts - 1 - opinions(i, WVM_GOSSIP_ALIVE) : 0;
	return n;
}

/* A probe within two periods (longer for few: by chance), 5 s of suspicion, and the news. */
START_TEST(a_dead_node_is_known_to_all)
{
	static const uint32_t sizes[] = {2, 3, 5, 40, 300};
	struct scale_config c = config(sizes[_i]);

	c.loss_ppm = _i >= 2 ? 20000 : 0;
	begin(&c);
	scale_run(&s, 10 * SECOND);
	scale_kill(&s, 1);
	scale_run(&s, 12 * SECOND);
	ck_assert_uint_eq(opinions(1, WVM_GOSSIP_DEAD), 0); /* nobody is condemned in haste */
	scale_run(&s, 30 * SECOND);
	ck_assert_uint_eq(opinions(1, WVM_GOSSIP_DEAD), sizes[_i] - 1);
	ck_assert_uint_eq(s.death[0].told, sizes[_i] - 1);
	ck_assert_uint_ge(s.death[0].first_ms, 5 * SECOND);
	ck_assert_uint_le(s.death[0].first_ms, 10 * SECOND);
	ck_assert_uint_le(s.death[0].last_ms, 15 * SECOND);
	ck_assert_uint_eq(s.n.false_dead, 0);
	scale_free(&s);
}
END_TEST

START_TEST(no_live_node_is_declared_dead_at_2_percent_loss)
{
	struct scale_config c = config(50);

	c.loss_ppm = 20000;
	begin(&c);
	scale_run(&s, LONG);
	ck_assert_uint_gt(s.n.lost, 0);
	ck_assert_uint_gt(s.n.suspected, 0); /* else it would prove nothing */
	ck_assert_uint_eq(s.n.false_dead, 0);
	ck_assert_uint_eq(wrong_opinions(), 0);
	printf("proof: gossip at 2 %% loss: %u nodes, %.0f node-hours: %llu notes of suspicion, 0 "
	       "of death\n",
	       s.hosts, (double)s.hosts * s.now_ms / HOUR, (unsigned long long)s.n.suspected);
	scale_free(&s);
}
END_TEST

static uint32_t accused; /* notes by the slow one about others */

static void count_accusations(struct scale *w, const struct scale_agent *a,
			      const struct wvm_gossip_action *note)
{
	accused += a->host == 0 && note->status == WVM_GOSSIP_DEAD && w->host[note->node].up;
}

/* It stands still for more than a period again and again, and so never hears an answer in time. */
START_TEST(a_slow_observer_does_not_accuse)
{
	struct scale_config c = config(30);
	const struct wvm_gossip_counters *n;

	begin(&c);
	s.on_note = count_accusations;
	accused = 0;
	s.host[0].every_ms = 3000;
	s.host[0].stall_ms = 2200;
	scale_run(&s, 300 * SECOND);
	n = &scale_object(&s, 0, 0)->counters;
	ck_assert_uint_gt(n->late, 50);
	ck_assert_uint_eq(accused, 0);
	ck_assert_uint_eq(n->dead, 0);
	ck_assert_uint_ge(scale_object(&s, 0, 0)->health, WVM_GOSSIP_SLOW);
	for (uint32_t i = 1; i < s.hosts; i++) {
		for (uint32_t k = 1; k < s.hosts; k++)
			ck_assert(i == k || scale_opinion(&s, i, 0, k) == WVM_GOSSIP_ALIVE);
	}
	/* And when it is well again, it accuses those that are dead. */
	s.host[0].every_ms = 0;
	scale_kill(&s, 9);
	scale_run(&s, 400 * SECOND);
	ck_assert_uint_eq(scale_object(&s, 0, 0)->health, 0);
	ck_assert_uint_eq(scale_opinion(&s, 0, 0, 9), WVM_GOSSIP_DEAD);
	scale_free(&s);
}
END_TEST

/* Cut off, it hears from nobody that anybody else is silent: it is the likely cause. */
START_TEST(who_is_cut_off_condemns_hardly_anybody)
{
	struct scale_config c = config(30);
	uint32_t dead = 0;

	begin(&c);
	scale_run(&s, 5 * SECOND);
	s.host[4].side = 1;
	scale_run(&s, 120 * SECOND);
	for (uint32_t i = 0; i < s.hosts; i++)
		dead += i != 4 && scale_opinion(&s, 4, 0, i) == WVM_GOSSIP_DEAD;
	ck_assert_uint_eq(dead, 0);
	ck_assert_uint_gt(scale_object(&s, 4, 0)->counters.held, 0);
	ck_assert_uint_eq(opinions(4, WVM_GOSSIP_DEAD), 29);
	scale_free(&s);
}
END_TEST

START_TEST(a_suspect_refutes)
{
	struct scale_config c = config(20);
	uint32_t incarnation;

	begin(&c);
	scale_run(&s, 5 * SECOND);
	incarnation = scale_object(&s, 3, 0)->self.incarnation;
	s.host[3].side = 1; /* for less than it takes */
	scale_run(&s, 8 * SECOND);
	ck_assert_uint_gt(opinions(3, WVM_GOSSIP_SUSPECT), 0);
	s.host[3].side = 0;
	scale_run(&s, 25 * SECOND);
	ck_assert_uint_eq(wrong_opinions(), 0);
	ck_assert_uint_eq(s.n.false_dead, 0);
	ck_assert_uint_gt(scale_object(&s, 3, 0)->counters.refuted, 0);
	ck_assert_uint_gt(scale_object(&s, 3, 0)->self.incarnation, incarnation);
	scale_free(&s);
}
END_TEST

START_TEST(a_split_heals_and_the_views_converge)
{
	struct scale_config c = config(60);
	uint32_t at;

	c.loss_ppm = 20000;
	begin(&c);
	scale_run(&s, 5 * SECOND);
	for (uint32_t i = 0; i < 25; i++)
		s.host[i].side = 1;
	scale_run(&s, 150 * SECOND);
	ck_assert_uint_eq(opinions(0, WVM_GOSSIP_ALIVE), 24); /* its own side */
	ck_assert_uint_eq(opinions(59, WVM_GOSSIP_ALIVE), 34);
	for (uint32_t i = 0; i < 25; i++)
		s.host[i].side = 0;
	at = s.now_ms;
	while (wrong_opinions() && s.now_ms < at + 300 * SECOND)
		scale_run(&s, s.now_ms + SECOND);
	ck_assert_uint_eq(wrong_opinions(), 0);
	printf("proof: gossip, a split of 25 and 35 nodes: one view again %u s after it healed\n",
	       (s.now_ms - at) / SECOND);
	/* And it stays so. */
	scale_run(&s, s.now_ms + 60 * SECOND);
	ck_assert_uint_eq(wrong_opinions(), 0);
	scale_free(&s);
}
END_TEST

START_TEST(a_node_that_starts_again_is_taken_again)
{
	struct scale_config c = config(30);

	c.loss_ppm = 20000;
	begin(&c);
	scale_run(&s, 5 * SECOND);
	scale_kill(&s, 11);
	scale_run(&s, 30 * SECOND);
	ck_assert_uint_eq(opinions(11, WVM_GOSSIP_DEAD), 29);
	scale_start(&s, 11);
	scale_run(&s, 36 * SECOND);
	ck_assert_uint_eq(wrong_opinions(), 0);
	ck_assert_uint_eq(wvm_gossip_find(scale_object(&s, 0, 0), 11)->incarnation,
			  scale_object(&s, 11, 0)->self.incarnation);
	ck_assert_uint_ge(scale_object(&s, 11, 0)->self.incarnation, wvm_gossip_incarnation(2));
	scale_free(&s);
}
END_TEST

START_TEST(who_leaves_is_gone_at_once)
{
	struct scale_config c = config(30);

	begin(&c);
	scale_run(&s, 5 * SECOND);
	scale_announce(&s, 5, WVM_NODE_OFFLINE);
	scale_run(&s, 9 * SECOND);
	ck_assert_uint_eq(opinions(5, WVM_GOSSIP_DEAD), 29);
	ck_assert_uint_eq(wvm_gossip_find(scale_object(&s, 9, 0), 5)->life, WVM_NODE_OFFLINE);
	scale_free(&s);
}
END_TEST

START_TEST(nodes_that_know_one_seed_find_all)
{
	struct scale_config c = config(200);

	c.seeds = 1;
	c.loss_ppm = 20000;
	begin(&c);
	scale_run(&s, 120 * SECOND);
	ck_assert_uint_eq(wrong_opinions(), 0);
	scale_free(&s);
}
END_TEST

START_TEST(a_changed_life_reaches_all)
{
	struct scale_config c = config(100);

	begin(&c);
	scale_run(&s, 5 * SECOND);
	scale_announce(&s, 5, WVM_NODE_DRAINING);
	scale_run(&s, 12 * SECOND);
	for (uint32_t i = 0; i < s.hosts; i++)
		ck_assert(i == 5 ||
			  wvm_gossip_find(scale_object(&s, i, 0), 5)->life == WVM_NODE_DRAINING);
	scale_free(&s);
}
END_TEST

/* 4 zones of 4 pods of 12: through three tiers, although hardly anybody knows others. */
START_TEST(an_epoch_reaches_all_through_the_tiers)
{
	struct scale_config c = config(12);
	uint32_t reached = 0;

	c.pods = 4;
	c.zones = 4;
	c.room = 16;
	c.loss_ppm = 20000;
	begin(&c);
	scale_run(&s, 5 * SECOND);
	scale_epoch(&s, 190);
	scale_run(&s, 15 * SECOND);
	for (uint32_t i = 0; i < s.hosts; i++)
		reached += s.host[i].epoch == 2;
	ck_assert_uint_eq(reached, s.hosts);
	ck_assert_uint_eq(s.n.refused, 0); /* and nobody got what was for another tier */
	scale_free(&s);
}
END_TEST

/* Whether a host has heard another to be done in epoch 2. */
static bool heard_done(uint32_t at, uint32_t of)
{
	const struct wvm_gossip_peer *p = wvm_gossip_find(scale_object(&s, at, 0), of);

	return p && p->epoch == 2 && !p->busy;
}

static uint32_t all_heard_done(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s.hosts; i++) {
		for (uint32_t k = 0; k < s.hosts; k++)
			n += i != k && heard_done(i, k);
	}
	return n;
}

/* At most two rounds of probes of all that a node knows, but for what is lost. */
START_TEST(who_is_done_with_an_epoch_is_known_to_all_and_not_before)
{
	struct scale_config c = config(40);

	c.loss_ppm = 50000;
	begin(&c);
	scale_run(&s, 5 * SECOND);
	for (uint32_t i = 0; i < s.hosts; i++)
		wvm_gossip_busy(scale_object(&s, i, 0), true);
	scale_epoch(&s, 17);
	scale_run(&s, 65 * SECOND);
	ck_assert_uint_eq(all_heard_done(), 0);
	for (uint32_t k = 0; k < s.hosts; k++) {
		for (uint32_t i = 0; i < s.hosts; i++)
			ck_assert(i == k || !heard_done(i, k));
		ck_assert_uint_eq(s.host[k].epoch, 2);
		wvm_gossip_busy(scale_object(&s, k, 0), false);
		scale_run(&s, s.now_ms + SECOND);
	}
	scale_run(&s, s.now_ms + 60 * SECOND);
	ck_assert_uint_eq(all_heard_done(), s.hosts * (s.hosts - 1));
	scale_free(&s);
}
END_TEST

/* Each watches those whom it has room for; helpers hear where the silent one is. */
START_TEST(a_view_smaller_than_its_group_holds_no_dead_for_alive)
{
	struct scale_config c = config(100);

	c.room = 40;
	begin(&c);
	scale_run(&s, 5 * SECOND);
	scale_kill(&s, 1);
	scale_run(&s, 90 * SECOND);
	ck_assert_uint_eq(opinions(1, WVM_GOSSIP_ALIVE), 0);
	ck_assert_uint_ge(s.death[0].told, 20); /* 40 % of 99, less those that made room */
	for (uint32_t i = 0; i < s.hosts; i++)
		ck_assert_uint_le(scale_object(&s, i, 0)->count, 40);
	ck_assert_uint_eq(s.n.false_dead, 0);
	scale_free(&s);
}
END_TEST

START_TEST(the_same_seed_is_the_same_run)
{
	struct scale_counts n[2];

	for (int i = 0; i < 2; i++) {
		struct scale_config c = config(40);

		c.loss_ppm = 50000;
		begin(&c);
		scale_run(&s, 30 * SECOND);
		scale_kill(&s, 3);
		scale_run(&s, 60 * SECOND);
		n[i] = s.n;
		scale_free(&s);
	}
	ck_assert(!memcmp(&n[0], &n[1], sizeof(n[0])));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gossip");
	TCase *tc = tcase_create("gossip");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, a_dead_node_is_known_to_all, 0, 5);
	tcase_add_test(tc, no_live_node_is_declared_dead_at_2_percent_loss);
	tcase_add_test(tc, a_slow_observer_does_not_accuse);
	tcase_add_test(tc, who_is_cut_off_condemns_hardly_anybody);
	tcase_add_test(tc, a_suspect_refutes);
	tcase_add_test(tc, a_split_heals_and_the_views_converge);
	tcase_add_test(tc, a_node_that_starts_again_is_taken_again);
	tcase_add_test(tc, who_leaves_is_gone_at_once);
	tcase_add_test(tc, nodes_that_know_one_seed_find_all);
	tcase_add_test(tc, a_changed_life_reaches_all);
	tcase_add_test(tc, an_epoch_reaches_all_through_the_tiers);
	tcase_add_test(tc, who_is_done_with_an_epoch_is_known_to_all_and_not_before);
	tcase_add_test(tc, a_view_smaller_than_its_group_holds_no_dead_for_alive);
	tcase_add_test(tc, the_same_seed_is_the_same_run);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

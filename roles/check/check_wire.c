/* The impairments of the test wire, in virtual time. */
#include <check.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The wire is a program, not a library: its pure part is compiled in here. */
#include "roles/check/wire/chaos.c"
#include "roles/check/wire/impair.c"

#define MANY  200000u
#define EVERY 10000ull /* ns between frames */

static struct wvm_impair im;

static void setup(void)
{
	ck_assert_int_eq(wvm_impair_init(&im, 4096, 1514, 42), 0);
}

static void teardown(void)
{
	wvm_impair_fini(&im);
}

static void chaos(const char *spec)
{
	char err[256] = "";

	ck_assert_msg(wvm_chaos_parse(&im.chaos, spec, err, sizeof(err)) == 0, "%s: %s", spec, err);
}

/* What came out of the wire for one run: the numbers of the frames, and when. */
struct outcome {
	uint32_t number[2 * MANY];
	uint64_t at_ns[2 * MANY];
	unsigned n;
};
static struct outcome seen, other;

static void collect(struct outcome *out, uint64_t now)
{
	const struct wvm_frame *frame;

	while ((frame = wvm_impair_pop(&im, now)) != NULL) {
		ck_assert_uint_eq(frame->len, 100);
		memcpy(&out->number[out->n], wvm_impair_data(&im, frame), 4);
		out->at_ns[out->n++] = frame->due_ns;
	}
}

static unsigned push(uint64_t now, unsigned src, unsigned dst, enum wvm_frame_kind kind, uint32_t n)
{
	unsigned char data[100] = {0};

	memcpy(data, &n, 4);
	return wvm_impair_push(&im, now, src, dst, kind, data, sizeof(data));
}

/* Sends UDP frames 0 .. n-1 from port 1 to port 2 at even distances, then waits for the rest. */
static void run(struct outcome *out, unsigned n)
{
	out->n = 0;
	for (uint32_t i = 0; i < n; i++) {
		push(i * EVERY, 1, 2, WVM_FRAME_UDP, i);
		collect(out, i * EVERY);
	}
	while (wvm_impair_next(&im) != UINT64_MAX)
		collect(out, wvm_impair_next(&im));
}

static void restart(uint64_t seed)
{
	teardown();
	ck_assert_int_eq(wvm_impair_init(&im, 4096, 1514, seed), 0);
}

/* A count of MANY trials lies within five standard deviations of its probability. */
static void assert_rate(uint64_t count, double p)
{
	double mean = MANY * p, sd = sqrt(MANY * p * (1 - p));

	ck_assert_msg(fabs((double)count - mean) <= 5 * sd,
		      "%" PRIu64 " of %u, expected %.0f +- %.0f", count, MANY, mean, 5 * sd);
}

START_TEST(a_perfect_wire_passes_all_at_once_and_in_order)
{
	run(&seen, MANY);
	ck_assert_uint_eq(seen.n, MANY);
	for (unsigned i = 0; i < MANY; i++) {
		ck_assert_uint_eq(seen.number[i], i);
		ck_assert_uint_eq(seen.at_ns[i], i * EVERY);
	}
	ck_assert_uint_eq(im.stats[1].in, MANY);
	ck_assert_uint_eq(im.stats[1].lost + im.stats[1].duplicated + im.stats[1].reordered, 0);
	ck_assert_uint_eq(im.stats[2].forwarded, MANY);
}
END_TEST

START_TEST(loss_has_the_rate_asked_for_and_the_rest_arrives_in_order)
{
	chaos("loss 1%");
	run(&seen, MANY);
	assert_rate(im.stats[1].lost, 0.01);
	ck_assert_uint_eq(seen.n, MANY - im.stats[1].lost);
	for (unsigned i = 1; i < seen.n; i++)
		ck_assert_uint_gt(seen.number[i], seen.number[i - 1]);
}
END_TEST

START_TEST(loss_of_everything_and_of_nothing_is_exact)
{
	chaos("loss 100%");
	run(&seen, 1000);
	ck_assert_uint_eq(seen.n, 0);
	ck_assert_uint_eq(im.stats[1].lost, 1000);
	chaos("loss 0%");
	run(&seen, 1000);
	ck_assert_uint_eq(seen.n, 1000);
}
END_TEST

START_TEST(each_duplicate_is_one_more_frame)
{
	static unsigned char count[MANY];
	unsigned twice = 0;

	chaos("duplicate 2%");
	memset(count, 0, sizeof(count));
	run(&seen, MANY);
	for (unsigned i = 0; i < seen.n; i++)
		count[seen.number[i]]++;
	for (unsigned i = 0; i < MANY; i++) {
		ck_assert(count[i] == 1 || count[i] == 2);
		twice += count[i] == 2;
	}
	ck_assert_uint_eq(twice, im.stats[1].duplicated);
	assert_rate(twice, 0.02);
}
END_TEST

START_TEST(reorder_lets_later_frames_pass_and_loses_none)
{
	unsigned passed = 0;
	uint32_t highest = 0;

	chaos("reorder 5%");
	run(&seen, MANY);
	ck_assert_uint_eq(seen.n, MANY);
	for (unsigned i = 0; i < seen.n; i++) {
		if (seen.number[i] < highest)
			passed++;
		else
			highest = seen.number[i];
		ck_assert_uint_le(highest, seen.number[i] + 2 * WVM_WIRE_HELD + WVM_WIRE_OVERTAKE);
	}
	assert_rate(im.stats[1].held, 0.05);
	/* Nearly all that were held were passed; a run of held ones may keep its own order. */
	ck_assert_uint_ge(im.stats[1].reordered, im.stats[1].held * 9 / 10);
	ck_assert_uint_ge(passed, im.stats[1].held * 9 / 10);
}
END_TEST

START_TEST(a_held_frame_that_nobody_follows_leaves_by_itself)
{
	chaos("reorder 100%");
	push(5000, 1, 2, WVM_FRAME_UDP, 7);
	ck_assert_uint_eq(wvm_impair_next(&im), 5000 + WVM_WIRE_HOLD_NS);
	seen.n = 0;
	collect(&seen, 5000 + WVM_WIRE_HOLD_NS - 1);
	ck_assert_uint_eq(seen.n, 0);
	collect(&seen, 5000 + WVM_WIRE_HOLD_NS);
	ck_assert_uint_eq(seen.n, 1);
	ck_assert_uint_eq(im.stats[1].reordered, 0);
}
END_TEST

START_TEST(delay_is_exact_and_jitter_keeps_the_order)
{
	chaos("delay 1ms");
	run(&seen, 1000);
	for (unsigned i = 0; i < 1000; i++)
		ck_assert_uint_eq(seen.at_ns[i], i * EVERY + 1000000);
	restart(42);
	chaos("delay 1ms jitter 300us");
	run(&seen, 2000);
	ck_assert_uint_eq(seen.n, 2000);
	for (unsigned i = 0; i < 2000; i++) {
		ck_assert_uint_eq(seen.number[i], i);
		ck_assert_uint_ge(seen.at_ns[i], i * EVERY + 1000000);
		ck_assert_uint_le(seen.at_ns[i], i * EVERY + 1300000);
	}
}
END_TEST

START_TEST(rate_spreads_frames_over_the_time_they_need)
{
	uint64_t frame_ns = 100 * 8 * 1000; /* 100 bytes at 1 Mbit/s */

	chaos("rate 1mbit");
	seen.n = 0;
	for (uint32_t i = 0; i < 1000; i++)
		push(1000000000, 1, 2, WVM_FRAME_UDP, i);
	while (wvm_impair_next(&im) != UINT64_MAX)
		collect(&seen, wvm_impair_next(&im));
	ck_assert_uint_eq(seen.n, 1000);
	/* The burst allowance covers the first; from there on one frame time each. */
	ck_assert_uint_eq(seen.at_ns[0], 1000000000);
	for (unsigned i = 2; i < 1000; i++)
		ck_assert_uint_eq(seen.at_ns[i] - seen.at_ns[i - 1], frame_ns);
	ck_assert_uint_eq(seen.at_ns[999], 1000000000 + 1000 * frame_ns - WVM_WIRE_BURST_NS);
}
END_TEST

START_TEST(the_same_seed_means_the_same_fate)
{
	const char *all = "loss 1% duplicate 1% reorder 5% delay 1ms jitter 1ms rate 1gbit";

	chaos(all);
	run(&seen, MANY / 4);
	restart(42);
	chaos(all);
	run(&other, MANY / 4);
	ck_assert_uint_eq(seen.n, other.n);
	ck_assert_mem_eq(seen.number, other.number, seen.n * sizeof(*seen.number));
	ck_assert_mem_eq(seen.at_ns, other.at_ns, seen.n * sizeof(*seen.at_ns));
	restart(43);
	chaos(all);
	run(&other, MANY / 4);
	ck_assert(seen.n != other.n ||
		  memcmp(seen.number, other.number, seen.n * sizeof(*seen.number)) != 0);
}
END_TEST

/* Which of the first frames of link 1 -> 2 are lost. */
static void losses(unsigned char *lost, unsigned n, bool others)
{
	for (uint32_t i = 0; i < n; i++) {
		lost[i] = push(i, 1, 2, WVM_FRAME_UDP, i) == 0;
		if (others)
			for (uint32_t k = 0; k < i % 3; k++)
				push(i, 2, 1 + 2 * k, WVM_FRAME_UDP, i);
		collect(&seen, UINT64_MAX - 1);
		seen.n = 0;
	}
}

START_TEST(what_is_lost_depends_neither_on_other_links_nor_on_other_impairments)
{
	static unsigned char a[5000], b[5000], c[5000];

	seen.n = 0;
	chaos("loss 5%");
	losses(a, 5000, false);
	restart(42);
	chaos("loss 5%");
	losses(b, 5000, true);
	restart(42);
	chaos("loss 5% duplicate 30% reorder 10% jitter 1ms");
	losses(c, 5000, false);
	ck_assert_mem_eq(a, b, sizeof(a));
	ck_assert_mem_eq(a, c, sizeof(a));
}
END_TEST

START_TEST(the_two_directions_of_a_link_have_fates_of_their_own)
{
	unsigned both = 0, one = 0;

	chaos("loss 50%");
	for (uint32_t i = 0; i < 1000; i++) {
		unsigned there = push(i, 1, 2, WVM_FRAME_UDP, i), back;

		back = push(i, 2, 1, WVM_FRAME_UDP, i);
		both += there == back;
		one += there != back;
	}
	ck_assert_uint_gt(both, 400);
	ck_assert_uint_gt(one, 400);
}
END_TEST

START_TEST(a_partition_stops_its_groups_and_nobody_else)
{
	chaos("partition 1|2,3");
	for (unsigned src = 1; src <= 4; src++)
		for (unsigned dst = 1; dst <= 4; dst++) {
			bool cut = src != 4 && dst != 4 && (src == 1) != (dst == 1);

			if (src == dst)
				continue;
			ck_assert_uint_eq(push(0, src, dst, WVM_FRAME_UDP, 0), !cut);
			ck_assert_uint_eq(push(0, src, dst, WVM_FRAME_IP, 0), !cut);
			ck_assert_uint_eq(push(0, src, dst, WVM_FRAME_CLEAN, 0), 1);
		}
	ck_assert_uint_eq(im.stats[1].blocked, 4);
	ck_assert_uint_eq(im.stats[2].blocked, 2);
	ck_assert_uint_eq(im.stats[4].blocked, 0);
	chaos("heal");
	ck_assert_uint_eq(push(0, 1, 2, WVM_FRAME_UDP, 0), 1);
}
END_TEST

START_TEST(only_udp_is_impaired)
{
	chaos("loss 100% delay 5s");
	ck_assert_uint_eq(push(10, 1, 2, WVM_FRAME_CLEAN, 1), 1);
	ck_assert_uint_eq(push(10, 1, 2, WVM_FRAME_IP, 2), 1);
	ck_assert_uint_eq(wvm_impair_next(&im), 10);
	ck_assert_uint_eq(push(10, 1, 2, WVM_FRAME_UDP, 3), 0);
}
END_TEST

START_TEST(a_full_queue_drops_counts_and_recovers)
{
	chaos("delay 1s");
	for (uint32_t i = 0; i < 5000; i++)
		push(i, 1, 2, WVM_FRAME_UDP, i);
	ck_assert_uint_eq(im.stats[1].overflow, 5000 - 4096);
	seen.n = 0;
	collect(&seen, 2000000000);
	ck_assert_uint_eq(seen.n, 4096);
	ck_assert_uint_eq(push(2000000000, 1, 2, WVM_FRAME_UDP, 1), 1);
}
END_TEST

START_TEST(a_frame_too_long_is_dropped_and_counted)
{
	static unsigned char big[1515];

	ck_assert_uint_eq(wvm_impair_push(&im, 0, 1, 2, WVM_FRAME_UDP, big, 1514), 1);
	ck_assert_uint_eq(wvm_impair_push(&im, 0, 1, 2, WVM_FRAME_UDP, big, 1515), 0);
	ck_assert_uint_eq(im.stats[1].overflow, 1);
}
END_TEST

START_TEST(frames_are_conserved_whatever_happens)
{
	static const char *const SPECS[] = {"loss 3% duplicate 4% reorder 20%",
					    "delay 50us jitter 1ms",
					    "rate 20mbit",
					    "partition 1,2|3,4",
					    "heal rate 0bit",
					    "clear",
					    "reorder 100% duplicate 100%"};
	struct wvm_port_stats sum = {0};
	uint64_t now = 0, out = 0;

	srand(7);
	for (unsigned i = 0; i < MANY; i++) {
		unsigned src = 1 + (unsigned)rand() % 4, dst = 1 + (src + (unsigned)rand() % 3) % 4;

		if (i % 1000 == 0)
			chaos(SPECS[(unsigned)rand() % 7]);
		now += (unsigned)rand() % 20000;
		push(now, src, dst, WVM_FRAME_UDP, i);
		for (uint64_t last = 0; wvm_impair_next(&im) <= now; out++) {
			const struct wvm_frame *frame = wvm_impair_pop(&im, now);

			ck_assert_uint_ge(frame->due_ns, last);
			last = frame->due_ns;
		}
	}
	while (wvm_impair_pop(&im, UINT64_MAX - 1))
		out++;
	for (unsigned i = 1; i <= 4; i++) {
		sum.in += im.stats[i].in;
		sum.lost += im.stats[i].lost + im.stats[i].blocked + im.stats[i].overflow;
		sum.duplicated += im.stats[i].duplicated;
		sum.forwarded += im.stats[i].forwarded;
	}
	ck_assert_uint_eq(sum.in, MANY);
	ck_assert_uint_eq(out, sum.in - sum.lost + sum.duplicated);
	ck_assert_uint_eq(out, sum.forwarded);
	ck_assert_uint_eq(im.n_idle, im.n_frames);
	for (unsigned s = 1; s <= 4; s++)
		for (unsigned d = 1; d <= 4; d++)
			ck_assert_uint_eq(im.link[s][d].n_held, 0);
}
END_TEST

START_TEST(a_specification_sets_what_it_names_and_nothing_else)
{
	chaos("loss 1% duplicate 0.5% reorder 5% delay 1.5ms jitter 200us rate 100mbit");
	ck_assert_double_eq_tol(im.chaos.loss, 0.01, 1e-12);
	ck_assert_double_eq_tol(im.chaos.duplicate, 0.005, 1e-12);
	ck_assert_double_eq_tol(im.chaos.reorder, 0.05, 1e-12);
	ck_assert_uint_eq(im.chaos.delay_ns, 1500000);
	ck_assert_uint_eq(im.chaos.jitter_ns, 200000);
	ck_assert_uint_eq(im.chaos.rate_bps, 100000000);
	chaos("  delay\t2s \n");
	ck_assert_uint_eq(im.chaos.delay_ns, 2000000000);
	ck_assert_uint_eq(im.chaos.rate_bps, 100000000);
	chaos("");
	ck_assert_uint_eq(im.chaos.jitter_ns, 200000);
	chaos("clear loss 100%");
	ck_assert_uint_eq(im.chaos.delay_ns, 0);
	ck_assert(im.chaos.loss == 1.0);
}
END_TEST

static const char *const BAD[] = {
	"loss",           "loss 1",         "loss 101%",
	"loss -1%",       "loss x%",        "loss nan%",
	"delay 1",        "delay 1m",       "delay 61s",
	"rate 5",         "rate 1000tbit",  "frob 1%",
	"partition",      "partition 1",    "partition 1|1",
	"partition 0|1",  "partition 65|1", "partition 1|",
	"partition |1",   "partition 1,|2", "partition 1|2 3",
	"partition -1|2", "loss 1% delay",  "loss inf%",
};

START_TEST(a_bad_specification_is_refused_whole)
{
	struct wvm_chaos before;
	char spec[128], err[128] = "";

	chaos("loss 7% partition 1|2");
	before = im.chaos;
	snprintf(spec, sizeof(spec), "duplicate 3%% %s", BAD[_i]);
	ck_assert_int_eq(wvm_chaos_parse(&im.chaos, spec, err, sizeof(err)), -EINVAL);
	ck_assert_int_gt((int)strlen(err), 0);
	ck_assert_mem_eq(&im.chaos, &before, sizeof(before));
}
END_TEST

START_TEST(frames_are_told_apart_by_type_and_protocol)
{
	unsigned char frame[60] = {0};

	frame[12] = 0x08;
	frame[23] = 17;
	ck_assert_int_eq(wvm_frame_kind(frame, 60), WVM_FRAME_UDP);
	ck_assert_int_eq(wvm_frame_kind(frame, 33), WVM_FRAME_CLEAN);
	frame[23] = 6;
	ck_assert_int_eq(wvm_frame_kind(frame, 60), WVM_FRAME_IP);
	frame[13] = 0x06;
	ck_assert_int_eq(wvm_frame_kind(frame, 60), WVM_FRAME_CLEAN);
	frame[12] = 0x86;
	frame[13] = 0xdd;
	frame[20] = 17;
	ck_assert_int_eq(wvm_frame_kind(frame, 60), WVM_FRAME_UDP);
	frame[20] = 58;
	ck_assert_int_eq(wvm_frame_kind(frame, 60), WVM_FRAME_IP);
}
END_TEST

START_TEST(impossible_sizes_are_refused)
{
	struct wvm_impair no;

	ck_assert_int_eq(wvm_impair_init(&no, 0, 1514, 1), -EINVAL);
	ck_assert_int_eq(wvm_impair_init(&no, 16, 0, 1), -EINVAL);
	ck_assert_int_eq(wvm_impair_init(&no, 16, 1 << 20, 1), -EINVAL);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("wire");
	TCase *t = tcase_create("impair");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_perfect_wire_passes_all_at_once_and_in_order);
	tcase_add_test(t, loss_has_the_rate_asked_for_and_the_rest_arrives_in_order);
	tcase_add_test(t, loss_of_everything_and_of_nothing_is_exact);
	tcase_add_test(t, each_duplicate_is_one_more_frame);
	tcase_add_test(t, reorder_lets_later_frames_pass_and_loses_none);
	tcase_add_test(t, a_held_frame_that_nobody_follows_leaves_by_itself);
	tcase_add_test(t, delay_is_exact_and_jitter_keeps_the_order);
	tcase_add_test(t, rate_spreads_frames_over_the_time_they_need);
	tcase_add_test(t, the_same_seed_means_the_same_fate);
	tcase_add_test(t, what_is_lost_depends_neither_on_other_links_nor_on_other_impairments);
	tcase_add_test(t, the_two_directions_of_a_link_have_fates_of_their_own);
	tcase_add_test(t, a_partition_stops_its_groups_and_nobody_else);
	tcase_add_test(t, only_udp_is_impaired);
	tcase_add_test(t, a_full_queue_drops_counts_and_recovers);
	tcase_add_test(t, a_frame_too_long_is_dropped_and_counted);
	tcase_add_test(t, frames_are_conserved_whatever_happens);
	suite_add_tcase(s, t);
	t = tcase_create("chaos");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_specification_sets_what_it_names_and_nothing_else);
	tcase_add_loop_test(t, a_bad_specification_is_refused_whole, 0,
			    sizeof(BAD) / sizeof(BAD[0]));
	tcase_add_test(t, frames_are_told_apart_by_type_and_protocol);
	tcase_add_test(t, impossible_sizes_are_refused);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

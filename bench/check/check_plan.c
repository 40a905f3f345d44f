/* Which pages wvmbench takes, the mailbox between its parts, and its comparisons. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/wvmbench/fault.h"
#include "bench/wvmbench/floor.h"
#include "bench/wvmbench/mailbox.h"
#include "bench/wvmbench/plan.h"
#include "bench/wvmbench/rate.h"
#include "bench/wvmbench/result.h"
#include "shared/wavevm.h"

static int by_threes(void *opaque, uint64_t unit)
{
	(*(unsigned *)opaque)++;
	return (int)(unit % 3);
}

static int refuses(void *opaque, uint64_t unit)
{
	(void)opaque;
	return unit < 4 ? 0 : -ECONNREFUSED;
}

START_TEST(sets_have_one_home_and_never_overlap)
{
	struct plan_set a, b;
	uint64_t next = 0;
	unsigned asked = 0;

	ck_assert_int_eq(plan_take(&a, &next, 100, 1300, 1, by_threes, &asked), 0);
	ck_assert_uint_eq(a.pages, 1300);
	ck_assert_uint_eq(a.n_spans, 3);
	ck_assert_uint_eq(next, 8);
	ck_assert_int_eq(plan_take(&b, &next, 100, 512, 1, by_threes, &asked), 0);
	ck_assert_uint_eq(b.n_spans, 2);
	for (uint64_t i = 0; i < a.pages; i++) {
		ck_assert_uint_eq(plan_page(&a, i) / PLAN_UNIT_PAGES % 3, 1);
		ck_assert_uint_ne(plan_page(&a, i) % PLAN_UNIT_PAGES, 0);
		ck_assert_uint_lt(plan_page(&a, i), plan_page(&b, 0));
		if (i > 0)
			ck_assert_uint_gt(plan_page(&a, i), plan_page(&a, i - 1));
	}
}
END_TEST

START_TEST(every_unit_of_a_set_has_an_opener_that_is_not_in_it)
{
	struct plan_set set, openers;
	uint64_t next = 3;
	unsigned asked = 0;

	ck_assert_int_eq(plan_take(&set, &next, 100, 2 * 511 + 1, 0, by_threes, &asked), 0);
	plan_openers(&set, &openers);
	ck_assert_uint_eq(openers.n_spans, 3);
	ck_assert_uint_eq(openers.pages, 3);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_uint_eq(openers.span[i].first, (3 + 3 * i) * PLAN_UNIT_PAGES);
		ck_assert_uint_eq(openers.span[i].pages, 1);
		ck_assert_uint_eq(set.span[i].first, openers.span[i].first + 1);
		ck_assert_uint_eq(set.span[i].pages, i < 2 ? 511 : 1);
	}
}
END_TEST

/* Of 8 threads half are in each range. */
START_TEST(a_rate_is_of_two_ranges_that_have_as_many_pages)
{
	struct plan_set set;

	ck_assert_int_eq(rate_plan(&set, 5, 0), -EINVAL);
	ck_assert_int_eq(rate_plan(&set, 5, MAILBOX_SPANS / 2 + 1), -EINVAL);
	ck_assert_int_eq(rate_plan(&set, 5, 8), 0);
	ck_assert_uint_eq(set.pages, 16 * PLAN_SET_PAGES);
	for (uint64_t i = 0; i < set.pages; i++) {
		uint64_t unit = plan_page(&set, i) / PLAN_UNIT_PAGES;

		ck_assert_uint_eq(unit / RATE_RANGE_UNITS, i * 2 / set.pages);
		ck_assert_uint_ge(unit % RATE_RANGE_UNITS, 5);
		ck_assert_uint_lt(unit % RATE_RANGE_UNITS, 5 + 8);
	}
}
END_TEST

START_TEST(a_set_that_cannot_be_had_uses_nothing_up)
{
	struct plan_set set;
	uint64_t next = 2;
	unsigned asked = 0;

	ck_assert_int_eq(plan_take(&set, &next, 10, 4 * 512, 0, by_threes, &asked), -ENOSPC);
	ck_assert_uint_eq(next, 2);
	ck_assert_int_eq(plan_take(&set, &next, 1000, 4 * 512, 0, refuses, NULL), -ECONNREFUSED);
	ck_assert_uint_eq(next, 2);
	ck_assert_int_eq(
		plan_take(&set, &next, UINT64_MAX, MAILBOX_SPANS * 511 + 1, 0, by_threes, &asked),
		-EINVAL);
}
END_TEST

START_TEST(an_order_has_each_page_once_and_depends_on_the_seed)
{
	static unsigned char seen[1000];
	uint32_t *a = plan_order(1000, 1), *b = plan_order(1000, 1), *c = plan_order(1000, 2);

	memset(seen, 0, sizeof(seen));
	for (unsigned i = 0; i < 1000; i++) {
		ck_assert_uint_lt(a[i], 1000);
		ck_assert_uint_eq(seen[a[i]]++, 0);
	}
	ck_assert_mem_eq(a, b, 1000 * sizeof(*a));
	ck_assert_mem_ne(a, c, 1000 * sizeof(*a));
	free(a);
	free(b);
	free(c);
}
END_TEST

/* But for the last ones, which have to take what is left. */
START_TEST(neighbours_in_an_order_are_none_in_memory)
{
	uint32_t *order = plan_order(2000, 7);
	unsigned near = 0;

	for (unsigned i = 0; i < 2000; i++)
		for (unsigned k = i > PLAN_APART_LAST ? i - PLAN_APART_LAST : 0; k < i; k++)
			near += abs((int)order[i] - (int)order[k]) <= (int)PLAN_APART;
	ck_assert_uint_le(near, 20);
	free(order);
	free(plan_order(0, 1));
	order = plan_order(1, 1);
	ck_assert_uint_eq(order[0], 0);
	free(order);
}
END_TEST

START_TEST(a_stale_page_a_foreign_page_and_a_missing_store_are_all_seen)
{
	struct plan_set set = {.generation = 5};
	unsigned word = plan_word(7);

	ck_assert_uint_ne(plan_pattern(7, 3, 5), plan_pattern(7, 3, 4));
	ck_assert_uint_ne(plan_pattern(7, 3, 5), plan_pattern(8, 3, 5));
	ck_assert_uint_ne(plan_pattern(7, 3, 5), plan_pattern(7, 4, 5));
	ck_assert_uint_eq(plan_pattern(7, 3, 0), 0);
	ck_assert_uint_eq(plan_expected(&set, 7, word), plan_pattern(7, word, 5));
	set.own_word = true;
	ck_assert_uint_eq(plan_expected(&set, 7, word), ~plan_pattern(7, word, 5));
	ck_assert_uint_eq(plan_expected(&set, 7, (word + 1) % 512), plan_pattern(7, word + 1, 5));
	set.generation = 0;
	ck_assert_uint_eq(plan_expected(&set, 7, word), UINT64_MAX);
}
END_TEST

static unsigned char box[MAILBOX_PAGES * WVM_PAGE_SIZE] __attribute__((aligned(WVM_PAGE_SIZE)));

/* A peer as `wvmbench peer` is one, on plain memory: answers the sum of what it is told. */
static void *serve(void *opaque)
{
	unsigned slot = (unsigned)(uintptr_t)opaque;
	struct mailbox_command c;
	struct mailbox m;

	mailbox_init(&m, box);
	mailbox_join(&m);
	do {
		uint64_t sum = 0;

		while (!mailbox_take(&m, slot, &c))
			usleep(50);
		for (unsigned i = 0; i < c.n_spans; i++)
			sum += c.span[i].first * c.span[i].pages;
		mailbox_answer(&m, slot, 100 + (int)slot, sum + c.generation);
	} while (c.op != MAILBOX_QUIT);
	return NULL;
}

START_TEST(each_peer_answers_its_own_commands_only)
{
	struct mailbox_span span[MAILBOX_SPANS];
	struct mailbox_reply reply;
	struct mailbox m;
	pthread_t peer[3];
	uint64_t sum = 0;

	memset(box, 0, sizeof(box));
	mailbox_init(&m, box);
	mailbox_begin(&m, 77);
	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(&peer[i], NULL, serve, (void *)(i + 1));
	usleep(20000);
	for (unsigned i = 0; i < MAILBOX_SPANS; i++) {
		span[i] = (struct mailbox_span){i, 2 * i};
		sum += 2ull * i * i;
	}
	for (unsigned round = 0; round < 50; round++)
		for (unsigned slot = 1; slot <= 3; slot++) {
			ck_assert_int_eq(mailbox_call(&m, slot, MAILBOX_READ, round, span,
						      MAILBOX_SPANS, 60000, &reply),
					 0);
			ck_assert_int_eq(reply.node, 100 + slot);
			ck_assert_uint_eq(reply.errors, sum + round);
		}
	for (unsigned slot = 1; slot <= 3; slot++)
		ck_assert_int_eq(mailbox_call(&m, slot, MAILBOX_QUIT, 0, NULL, 0, 60000, &reply),
				 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(peer[i], NULL);
}
END_TEST

START_TEST(a_command_of_an_earlier_session_is_not_carried_out)
{
	struct mailbox old, peer, next;
	struct mailbox_command c;
	struct mailbox_reply reply;

	memset(box, 0, sizeof(box));
	mailbox_init(&old, box);
	mailbox_begin(&old, 5);
	ck_assert_int_eq(mailbox_call(&old, 1, MAILBOX_WRITE, 9, NULL, 0, 1, &reply), -ETIMEDOUT);
	mailbox_init(&peer, box);
	mailbox_join(&peer);
	ck_assert(!mailbox_take(&peer, 1, &c));
	/* The same sequence number in a new session is a new command. */
	mailbox_init(&next, box);
	mailbox_begin(&next, 6);
	ck_assert_int_eq(mailbox_call(&next, 1, MAILBOX_HELLO, 0, NULL, 0, 1, &reply), -ETIMEDOUT);
	ck_assert(mailbox_take(&peer, 1, &c));
	ck_assert_uint_eq(c.op, MAILBOX_HELLO);
	ck_assert(!mailbox_take(&peer, 1, &c));
	/* An answer to the old session is none to the new one. */
	peer.session = 5;
	mailbox_answer(&peer, 1, 0, 0);
	ck_assert_int_eq(mailbox_call(&next, 1, MAILBOX_HELLO, 0, NULL, 0, 1, &reply), -ETIMEDOUT);
}
END_TEST

START_TEST(calls_out_of_range_are_refused)
{
	struct mailbox_reply reply;
	struct mailbox m;

	mailbox_init(&m, box);
	mailbox_begin(&m, 1);
	ck_assert_int_eq(mailbox_call(&m, 0, MAILBOX_HELLO, 0, NULL, 0, 1, &reply), -EINVAL);
	ck_assert_int_eq(mailbox_call(&m, 15, MAILBOX_HELLO, 0, NULL, 0, 1, &reply), -EINVAL);
	ck_assert_int_eq(mailbox_call(&m, 1, MAILBOX_READ, 0, NULL, MAILBOX_SPANS + 1, 1, &reply),
			 -EINVAL);
}
END_TEST

START_TEST(each_node_has_its_own_cursor)
{
	struct mailbox m;

	memset(box, 0, sizeof(box));
	mailbox_init(&m, box);
	*mailbox_next_unit(&m, 0) = 10;
	*mailbox_next_unit(&m, 7) = 20;
	ck_assert_uint_eq(*mailbox_next_unit(&m, 0), 10);
	ck_assert_uint_eq(*mailbox_next_unit(&m, 7), 20);
	for (unsigned node = 100; node < 100 + MAILBOX_NODES - 2; node++)
		ck_assert_ptr_nonnull(mailbox_next_unit(&m, node));
	ck_assert_ptr_null(mailbox_next_unit(&m, 5000));
}
END_TEST

START_TEST(units_of_all_nodes_are_taken_behind_those_of_each)
{
	struct mailbox m;
	uint64_t first;

	memset(box, 0, sizeof(box));
	mailbox_init(&m, box);
	*mailbox_next_unit(&m, 3) = 10;
	*mailbox_next_unit(&m, 4) = 6;
	ck_assert_int_eq(mailbox_take_units(&m, 5, 100, &first), 0);
	ck_assert_uint_eq(first, 10);
	ck_assert_uint_eq(*mailbox_next_unit(&m, 3), 15);
	ck_assert_uint_eq(*mailbox_next_unit(&m, 4), 15);
	/* Also for a node that is met only later. */
	ck_assert_uint_eq(*mailbox_next_unit(&m, 5), 15);
	*mailbox_next_unit(&m, 5) = 40;
	ck_assert_int_eq(mailbox_take_units(&m, 60, 100, &first), 0);
	ck_assert_uint_eq(first, 40);
	ck_assert_int_eq(mailbox_take_units(&m, 1, 100, &first), -ENOSPC);
	ck_assert_int_eq(mailbox_take_units(&m, UINT64_MAX, 100, &first), -ENOSPC);
	ck_assert_uint_eq(*mailbox_next_unit(&m, 3), 100);
}
END_TEST

static struct results ours, theirs;

/* Adds a round of one sample per thread count. */
static void add(struct results *r, const char *name, unsigned threads, uint64_t us,
		uint64_t elapsed_ns)
{
	struct wvm_samples s;

	ck_assert_int_eq(wvm_samples_init(&s, 1), 0);
	wvm_samples_add(&s, us * 1000);
	ck_assert_int_eq(result_add_samples(result_get(r, name, threads), &s, elapsed_ns), 0);
	wvm_samples_fini(&s);
}

START_TEST(a_ratio_is_the_median_of_the_rounds_ratios)
{
	struct ratio ratio[8];

	add(&ours, "remote-read", 1, 20, 1);
	add(&ours, "remote-read", 1, 60, 1);
	add(&ours, "remote-read", 1, 33, 1);
	add(&theirs, "remote-read", 1, 10, 1);
	add(&theirs, "remote-read", 1, 20, 1);
	add(&theirs, "remote-read", 1, 30, 1);
	ck_assert_uint_eq(results_compare(&ours, &theirs, ratio, 8), 1);
	ck_assert_str_eq(ratio[0].name, "remote-read");
	ck_assert_double_eq_tol(ratio[0].value, 2.0, 1e-9);
	ck_assert_uint_eq(ratio[0].rounds, 3);
	results_fini(&ours);
	results_fini(&theirs);
}
END_TEST

START_TEST(threads_are_compared_by_rate_and_what_one_side_lacks_is_left_out)
{
	struct ratio ratio[8];

	add(&ours, "remote-read", 8, 5, 2000);
	add(&theirs, "remote-read", 8, 1, 1000);
	add(&ours, "remote-write", 1, 30, 1);
	add(&theirs, "remote-write", 1, 10, 1);
	add(&ours, "remote-read-modified", 1, 30, 1);
	add(&theirs, "local-miss", 1, 30, 1);
	ck_assert_uint_eq(results_compare(&ours, &theirs, ratio, 8), 2);
	ck_assert_str_eq(ratio[0].name, "remote-write");
	ck_assert_double_eq_tol(ratio[0].value, 3, 1e-9);
	ck_assert_str_eq(ratio[1].name, "rate-8-threads");
	ck_assert_double_eq_tol(ratio[1].value, 0.5, 1e-9);
	results_fini(&ours);
	results_fini(&theirs);
}
END_TEST

START_TEST(what_the_floor_prints_is_read_back)
{
	char text[4096] = "{\"results\": [", *end = text + strlen(text);
	struct wvm_samples s;
	struct wvm_summary summary;
	FILE *out = fmemopen(end, sizeof(text) - (size_t)(end - text), "w");

	ck_assert_int_eq(wvm_samples_init(&s, 2), 0);
	wvm_samples_add(&s, 1000);
	wvm_samples_add(&s, 9000);
	wvm_summarize(&s, 4000000, &summary);
	wvm_summary_json(out, "remote-read", 4, &summary);
	fprintf(out, "]}");
	fclose(out);
	ck_assert_int_eq(floor_parse(text, &theirs), 0);
	ck_assert_mem_eq(&result_find(&theirs, "remote-read", 4)->round[0], &summary,
			 sizeof(summary));
	results_fini(&theirs);
	wvm_samples_fini(&s);
}
END_TEST

static const char *const BROKEN[] = {
	"",
	"{}",
	"{\"results\": []}",
	"{\"results\": [{}]}",
	"{\"results\": [{\"name\": \"x\", \"threads\": 1, \"count\": 1}]}",
	"{\"results\": [{\"name\": \"x\", \"threads\": 0, \"count\": 1, \"log2_us\": []}]}",
};

static const struct {
	bool write, measured;
	uint64_t reads, writes, local; /* faults, at 1000 pages */
} phases[] = {
	{false, true, 1000, 0, 0},     {false, true, 900, 0, 0},    {false, false, 899, 0, 0},
	{true, true, 0, 1000, 100},    {true, false, 0, 1000, 101}, {true, false, 1000, 0, 0},
	{false, false, 0, 1000, 0},    {false, false, 30, 0, 30},   {false, false, 0, 0, 1000},
	{true, true, 1000, 1100, 200},
};

START_TEST(a_phase_whose_accesses_were_no_faults_is_none)
{
	struct wvm_stats from = {.faults_read = 70, .faults_write = 80, .faults_local = 20};
	struct wvm_stats to = from;

	to.faults_read += phases[_i].reads;
	to.faults_write += phases[_i].writes;
	to.faults_local += phases[_i].local;
	ck_assert_int_eq(fault_expect_asked("x", phases[_i].write, 1000, &from, &to),
			 phases[_i].measured ? 0 : -EBADMSG);
}
END_TEST

START_TEST(a_broken_report_of_the_floor_is_refused)
{
	ck_assert_int_eq(floor_parse(BROKEN[_i], &theirs), -EBADMSG);
	results_fini(&theirs);
}
END_TEST

START_TEST(a_broken_report_of_the_floors_stream_is_refused)
{
	double seconds = 0;

	ck_assert_int_eq(floor_parse_stream("{\"seconds\": 1.5}", &seconds), 0);
	ck_assert_double_eq(seconds, 1.5);
	ck_assert_int_eq(floor_parse_stream("{\"seconds\": 0}", &seconds), -EBADMSG);
	ck_assert_int_eq(floor_parse_stream("{\"seconds\": \"1\"}", &seconds), -EBADMSG);
	ck_assert_int_eq(floor_parse_stream("", &seconds), -EBADMSG);
}
END_TEST

#define RELAY_REST                                                                      \
	"\"count\": 9, \"mean_us\": 2, \"p90_us\": 3, \"p99_us\": 3, \"p99.9_us\": 3, " \
	"\"max_us\": 3, \"faults_per_s\": 1, \"log2_us\": [0,9,0,0,0,0,0,0,0,0,0,0,"    \
	"0,0,0,0,0,0,0,0,0,0,0,0]}]}"

START_TEST(a_report_of_the_floors_relay_is_read_and_a_broken_one_refused)
{
	struct wvm_summary s;

	ck_assert_int_eq(
		floor_parse_relay("{\"bytes\": 64, \"results\": [{\"p50_us\": 2.5, " RELAY_REST, 64,
				  &s),
		0);
	ck_assert_double_eq(s.p50_us, 2.5);
	ck_assert_uint_eq(s.count, 9);
	/* Of other runs; that took no time; without any. */
	ck_assert_int_eq(
		floor_parse_relay("{\"bytes\": 65, \"results\": [{\"p50_us\": 2.5, " RELAY_REST, 64,
				  &s),
		-EBADMSG);
	ck_assert_int_eq(
		floor_parse_relay("{\"bytes\": 64, \"results\": [{\"p50_us\": 0, " RELAY_REST, 64,
				  &s),
		-EBADMSG);
	ck_assert_int_eq(floor_parse_relay("{\"bytes\": 64, \"results\": []}", 64, &s), -EBADMSG);
	ck_assert_int_eq(floor_parse_relay("", 64, &s), -EBADMSG);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("wvmbench");
	TCase *t = tcase_create("plan");

	tcase_add_test(t, sets_have_one_home_and_never_overlap);
	tcase_add_test(t, every_unit_of_a_set_has_an_opener_that_is_not_in_it);
	tcase_add_test(t, a_rate_is_of_two_ranges_that_have_as_many_pages);
	tcase_add_test(t, a_set_that_cannot_be_had_uses_nothing_up);
	tcase_add_test(t, an_order_has_each_page_once_and_depends_on_the_seed);
	tcase_add_test(t, neighbours_in_an_order_are_none_in_memory);
	tcase_add_test(t, a_stale_page_a_foreign_page_and_a_missing_store_are_all_seen);
	suite_add_tcase(s, t);
	t = tcase_create("mailbox");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, each_peer_answers_its_own_commands_only);
	tcase_add_test(t, a_command_of_an_earlier_session_is_not_carried_out);
	tcase_add_test(t, calls_out_of_range_are_refused);
	tcase_add_test(t, each_node_has_its_own_cursor);
	tcase_add_test(t, units_of_all_nodes_are_taken_behind_those_of_each);
	suite_add_tcase(s, t);
	t = tcase_create("result");
	tcase_add_test(t, a_ratio_is_the_median_of_the_rounds_ratios);
	tcase_add_test(t, threads_are_compared_by_rate_and_what_one_side_lacks_is_left_out);
	tcase_add_loop_test(t, a_phase_whose_accesses_were_no_faults_is_none, 0,
			    sizeof(phases) / sizeof(phases[0]));
	tcase_add_test(t, what_the_floor_prints_is_read_back);
	tcase_add_test(t, a_broken_report_of_the_floors_stream_is_refused);
	tcase_add_test(t, a_report_of_the_floors_relay_is_read_and_a_broken_one_refused);
	tcase_add_loop_test(t, a_broken_report_of_the_floor_is_refused, 0,
			    sizeof(BROKEN) / sizeof(BROKEN[0]));
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

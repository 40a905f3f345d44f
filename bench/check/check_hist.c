/* The statistics of the benchmarks, against values worked out by hand. */
#include "bench/wvmbench/hist.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct wvm_samples samples;
static struct wvm_summary summary;

static void setup(void)
{
	ck_assert_int_eq(wvm_samples_init(&samples, 10000), 0);
}

static void teardown(void)
{
	wvm_samples_fini(&samples);
}

START_TEST(percentiles_are_the_nearest_rank_in_any_order_of_samples)
{
	/* 1 .. 1000 us, shuffled by a step that has no common factor with 1000. */
	for (unsigned i = 0; i < 1000; i++)
		wvm_samples_add(&samples, (1 + i * 7 % 1000) * 1000);
	wvm_summarize(&samples, 2000000000, &summary);
	ck_assert_uint_eq(summary.count, 1000);
	ck_assert_double_eq_tol(summary.mean_us, 500.5, 1e-9);
	ck_assert_double_eq_tol(summary.p50_us, 500, 1e-9);
	ck_assert_double_eq_tol(summary.p90_us, 900, 1e-9);
	ck_assert_double_eq_tol(summary.p99_us, 990, 1e-9);
	ck_assert_double_eq_tol(summary.p999_us, 999, 1e-9);
	ck_assert_double_eq_tol(summary.max_us, 1000, 1e-9);
	ck_assert_double_eq_tol(summary.per_second, 500, 1e-9);
}
END_TEST

START_TEST(few_samples_give_percentiles_that_are_samples)
{
	static const struct {
		unsigned n;
		double p50, p90, p999;
	} CASES[] = {{1, 1, 1, 1}, {2, 1, 2, 2}, {3, 2, 3, 3}, {10, 5, 9, 10}};

	for (unsigned c = 0; c < 4; c++) {
		samples.n = 0;
		for (unsigned i = CASES[c].n; i > 0; i--)
			wvm_samples_add(&samples, i * 1000);
		wvm_summarize(&samples, 0, &summary);
		ck_assert_double_eq_tol(summary.p50_us, CASES[c].p50, 1e-9);
		ck_assert_double_eq_tol(summary.p90_us, CASES[c].p90, 1e-9);
		ck_assert_double_eq_tol(summary.p999_us, CASES[c].p999, 1e-9);
		ck_assert(summary.per_second == 0);
	}
}
END_TEST

START_TEST(no_samples_are_all_zero)
{
	wvm_summarize(&samples, 5, &summary);
	ck_assert_uint_eq(summary.count, 0);
	ck_assert(summary.max_us == 0 && summary.p50_us == 0 && summary.per_second == 0);
}
END_TEST

START_TEST(buckets_begin_at_powers_of_two)
{
	static const struct {
		uint64_t ns;
		unsigned bucket;
	} CASES[] = {{0, 0},        {999, 0},         {1000, 0},       {1999, 0},
		     {2000, 1},     {3999, 1},        {4000, 2},       {1023999, 9},
		     {1024000, 10}, {1ull << 50, 23}, {UINT64_MAX, 23}};

	for (unsigned i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++)
		ck_assert_uint_eq(wvm_hist_bucket(CASES[i].ns), CASES[i].bucket);
	for (unsigned i = 0; i < WVM_HIST_BUCKETS; i++)
		ck_assert_uint_eq(wvm_hist_bucket((1ull << i) * 1000), i);
}
END_TEST

START_TEST(every_sample_is_in_one_bucket)
{
	uint64_t sum = 0;

	srand(3);
	for (unsigned i = 0; i < 10000; i++)
		wvm_samples_add(&samples, (uint64_t)rand() << rand() % 20);
	wvm_summarize(&samples, 1, &summary);
	for (unsigned i = 0; i < WVM_HIST_BUCKETS; i++)
		sum += summary.bucket[i];
	ck_assert_uint_eq(sum, 10000);
}
END_TEST

START_TEST(the_samples_of_threads_are_joined)
{
	struct wvm_samples part;

	ck_assert_int_eq(wvm_samples_init(&part, 2), 0);
	wvm_samples_add(&part, 3000);
	wvm_samples_add(&part, 1000);
	wvm_samples_add(&samples, 2000);
	wvm_samples_append(&samples, &part);
	wvm_samples_fini(&part);
	wvm_summarize(&samples, 0, &summary);
	ck_assert_uint_eq(summary.count, 3);
	ck_assert_double_eq_tol(summary.p50_us, 2, 1e-9);
}
END_TEST

START_TEST(the_median_needs_no_order)
{
	double odd[] = {9, 1, 5}, even[] = {4, 1, 3, 2}, one[] = {7};

	ck_assert_double_eq_tol(wvm_median(odd, 3), 5, 1e-12);
	ck_assert_double_eq_tol(wvm_median(even, 4), 2.5, 1e-12);
	ck_assert_double_eq_tol(wvm_median(one, 1), 7, 1e-12);
}
END_TEST

START_TEST(the_distribution_is_printed_as_qemu_prints_it)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	wvm_samples_add(&samples, 300000);
	wvm_samples_add(&samples, 310000);
	wvm_samples_add(&samples, 1500000);
	wvm_summarize(&samples, 0, &summary);
	wvm_hist_print(out, &summary);
	fclose(out);
	ck_assert_str_eq(text, "Latency Distribution:\n"
			       "  [   256 us -   512 us ]:          2\n"
			       "  [   512 us -     1 ms ]:          0\n"
			       "  [     1 ms -     2 ms ]:          1\n");
	free(text);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("hist");
	TCase *t = tcase_create("hist");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, percentiles_are_the_nearest_rank_in_any_order_of_samples);
	tcase_add_test(t, few_samples_give_percentiles_that_are_samples);
	tcase_add_test(t, no_samples_are_all_zero);
	tcase_add_test(t, buckets_begin_at_powers_of_two);
	tcase_add_test(t, every_sample_is_in_one_bucket);
	tcase_add_test(t, the_samples_of_threads_are_joined);
	tcase_add_test(t, the_median_needs_no_order);
	tcase_add_test(t, the_distribution_is_printed_as_qemu_prints_it);
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

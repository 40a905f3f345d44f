/* What is printed of pairs of rounds. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/wvmbench/series.h"

static void fill(struct series_set *set)
{
	struct series *s;

	memset(set, 0, sizeof(*set));
	s = series_begin(set, "first-touch", "memfd", "MiB/s");
	series_add(s, 50, 100);
	series_add(s, 10, 100);
	series_add(s, 90, 300);
	series_count(set, "faults", 7);
}

START_TEST(a_ratio_is_the_median_of_the_rounds_own_ratios)
{
	struct series_set set;

	fill(&set);
	/* 0.5, 0.1, 0.3; the ratio of the medians would be 0.5. */
	ck_assert_double_eq_tol(series_ratio(&set.series[0]), 0.3, 1e-9);
}
END_TEST

START_TEST(a_base_of_nothing_makes_no_ratio)
{
	struct series_set set;

	memset(&set, 0, sizeof(set));
	ck_assert_double_eq(series_ratio(series_begin(&set, "a", "b", "c")), 0);
	series_add(&set.series[0], 5, 0);
	ck_assert_double_eq(series_ratio(&set.series[0]), 0);
}
END_TEST

START_TEST(json_holds_every_round_and_every_count)
{
	struct series_set set;
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	json_t *root, *s;

	fill(&set);
	series_json(f, &set, "touch", "one-core");
	fclose(f);
	root = json_loads(text, 0, NULL);
	ck_assert_msg(root != NULL, "not JSON: %s", text);
	ck_assert_str_eq(json_string_value(json_object_get(root, "layout")), "one-core");
	s = json_array_get(json_object_get(root, "series"), 0);
	ck_assert_str_eq(json_string_value(json_object_get(s, "name")), "first-touch");
	ck_assert_uint_eq(json_array_size(json_object_get(s, "ours")), 3);
	ck_assert_double_eq(json_number_value(json_array_get(json_object_get(s, "base"), 2)), 300);
	ck_assert_double_eq(
		json_number_value(json_object_get(json_object_get(root, "counts"), "faults")), 7);
	json_decref(root);
	free(text);
}
END_TEST

START_TEST(a_line_names_figure_layout_and_ratio)
{
	struct series_set set;
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	fill(&set);
	series_print(f, &set, "one-core");
	fclose(f);
	ck_assert_ptr_nonnull(strstr(text, "\nratio first-touch one-core 0.300\n"));
	ck_assert_ptr_nonnull(strstr(text, "\ncount faults one-core 7\n"));
	free(text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("series");
	TCase *t = tcase_create("series");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(t, a_ratio_is_the_median_of_the_rounds_own_ratios);
	tcase_add_test(t, a_base_of_nothing_makes_no_ratio);
	tcase_add_test(t, json_holds_every_round_and_every_count);
	tcase_add_test(t, a_line_names_figure_layout_and_ratio);
	suite_add_tcase(s, t);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* wvm_floor as its users run it: every layout ends, counts every page and finds every word right.
 */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char bin_dir[4096];

static int run(const char *arguments, char *out, size_t size)
{
	char line[8192];
	FILE *pipe;
	size_t n;

	snprintf(line, sizeof(line), "%s/wvm_floor %s 2>&1", bin_dir, arguments);
	pipe = popen(line, "r");
	ck_assert_ptr_nonnull(pipe);
	n = fread(out, 1, size - 1, pipe);
	out[n] = '\0';
	return pclose(pipe);
}

static const char *const LAYOUTS[] = {
	"",
	"--cores 0,0,0",
	"--processes 3",
	"--threads 8",
	"--threads 8 --processes 3",
	"--spin --threads 3",
	"--spin --processes 3 --cores 0,0,0",
	"--blocking --threads 8",
	"--blocking --processes 3",
};

START_TEST(every_layout_counts_every_page)
{
	static const char *const NAMES[] = {"local-miss", "zero-page", "remote-read",
					    "remote-write-upgrade", "remote-write"};
	char arguments[256], out[16384];
	json_t *root, *results;

	snprintf(arguments, sizeof(arguments), "--json --pages 500 %s", LAYOUTS[_i]);
	ck_assert_msg(run(arguments, out, sizeof(out)) == 0, "%s: %s", arguments, out);
	root = json_loads(out, 0, NULL);
	ck_assert_msg(root != NULL, "not JSON: %s", out);
	results = json_object_get(root, "results");
	ck_assert_uint_eq(json_array_size(results), 5);
	for (unsigned i = 0; i < 5; i++) {
		json_t *r = json_array_get(results, i), *buckets = json_object_get(r, "log2_us");
		json_int_t sum = 0;

		ck_assert_str_eq(json_string_value(json_object_get(r, "name")), NAMES[i]);
		ck_assert_int_eq(json_integer_value(json_object_get(r, "count")), 500);
		ck_assert(json_real_value(json_object_get(r, "p50_us")) > 0);
		for (unsigned b = 0; b < json_array_size(buckets); b++)
			sum += json_integer_value(json_array_get(buckets, b));
		ck_assert_int_eq(sum, 500);
	}
	json_decref(root);
}
END_TEST

static const char *const STREAMS[] = {"", "--cores 0,0,0", "--raw", "--spin --cores 0,0,0",
				      "--place"};

START_TEST(a_stream_counts_every_byte)
{
	char arguments[256], out[4096];
	json_t *root;

	snprintf(arguments, sizeof(arguments), "--json --stream 9 %s", STREAMS[_i]);
	ck_assert_msg(run(arguments, out, sizeof(out)) == 0, "%s: %s", arguments, out);
	root = json_loads(out, 0, NULL);
	ck_assert_msg(root != NULL, "not JSON: %s", out);
	ck_assert_int_eq(json_integer_value(json_object_get(root, "bytes")), 9 << 20);
	ck_assert(json_real_value(json_object_get(root, "seconds")) > 0);
	ck_assert_str_eq(json_string_value(json_object_get(root, "stream")),
			 strstr(arguments, "--raw")     ? "raw"
			 : strstr(arguments, "--place") ? "placed"
							: "checked");
	json_decref(root);
}
END_TEST

static const char *const RELAYS[] = {"", "--bytes 1", "--bytes 1409 --cores 0,0,0", "--bytes 65536",
				     "--bytes 16384 --spin --cores 0,0,0"};

START_TEST(a_relay_counts_every_run)
{
	char arguments[256], out[4096];
	json_t *root, *result;

	snprintf(arguments, sizeof(arguments), "--json --relay 300 %s", RELAYS[_i]);
	ck_assert_msg(run(arguments, out, sizeof(out)) == 0, "%s: %s", arguments, out);
	root = json_loads(out, 0, NULL);
	ck_assert_msg(root != NULL, "not JSON: %s", out);
	result = json_array_get(json_object_get(root, "results"), 0);
	ck_assert_str_eq(json_string_value(json_object_get(result, "name")), "relay");
	ck_assert_int_eq(json_integer_value(json_object_get(result, "count")), 300);
	ck_assert(json_real_value(json_object_get(result, "p50_us")) > 0);
	json_decref(root);
}
END_TEST

static const char *const WRONG[] = {"--stream 0",
				    "--relay 0",
				    "--relay 1 --bytes 0",
				    "--relay 1 --bytes 65537",
				    "--relay 1 --blocking",
				    "--relay 1 --stream 1",
				    "--bytes 1",
				    "--raw",
				    "--place",
				    "--stream 1 --raw --place",
				    "--stream 1 --blocking",
				    "--threads 0",
				    "--threads 65",
				    "--pages x",
				    "--cores 0,0",
				    "--spin --blocking",
				    "--processes 4",
				    "--cores 0,0,4095",
				    "--pages 2 --threads 3",
				    "extra"};

START_TEST(wrong_options_are_refused_with_a_line)
{
	char out[4096];

	ck_assert_int_ne(run(WRONG[_i], out, sizeof(out)), 0);
	ck_assert_ptr_nonnull(strstr(out, "wvm_floor: "));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("floor");
	TCase *t = tcase_create("floor");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, every_layout_counts_every_page, 0,
			    sizeof(LAYOUTS) / sizeof(LAYOUTS[0]));
	tcase_add_loop_test(t, a_relay_counts_every_run, 0, sizeof(RELAYS) / sizeof(RELAYS[0]));
	tcase_add_loop_test(t, a_stream_counts_every_byte, 0, sizeof(STREAMS) / sizeof(STREAMS[0]));
	tcase_add_loop_test(t, wrong_options_are_refused_with_a_line, 0,
			    sizeof(WRONG) / sizeof(WRONG[0]));
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	ssize_t n = readlink("/proc/self/exe", bin_dir, sizeof(bin_dir) - 16);
	SRunner *sr;
	int failed;

	if (geteuid() != 0) {
		printf("SKIP check_floor: userfaultfd needs root\n");
		return EXIT_SUCCESS;
	}
	/* build/check/bench/check_floor -> build/bin */
	bin_dir[n > 0 ? n : 0] = '\0';
	for (unsigned i = 0; i < 3; i++)
		*strrchr(bin_dir, '/') = '\0';
	strcat(bin_dir, "/bin");
	sr = srunner_create(suite());
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

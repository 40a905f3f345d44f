/*
 * Runs a fuzz target on files that are kept, as a libcheck program:
 *
 *	fuzz_NAME                   the files of <folder>/fuzz/corpus/NAME and found/NAME
 *	fuzz_NAME FILE...           these files, without a fork: for a debugger
 *	fuzz_NAME --seeds DIR       writes the seeds that the target makes itself
 *
 * The folder is taken from the program's path, .../check/<folder>/fuzz_NAME; it
 * runs in the top directory.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>

#include "shared/fuzz/fuzz.h"

#define FILES_MAX 4096u

static char *files[FILES_MAX];
static unsigned count;
static const char *seed_dir;

__attribute__((weak)) void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
}

static void add_dir(const char *folder, const char *kind, const char *name)
{
	char dir[512];
	struct dirent **found;
	int n;

	snprintf(dir, sizeof(dir), "%s/fuzz/%s/%s", folder, kind, name);
	n = scandir(dir, &found, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (found[i]->d_name[0] != '.' && count < FILES_MAX &&
		    asprintf(&files[count], "%s/%s", dir, found[i]->d_name) > 0)
			count++;
		free(found[i]);
	}
	if (n >= 0)
		free(found);
}

static int run_file(const char *path)
{
	static uint8_t data[1 << 20];
	FILE *f = fopen(path, "re");
	uint8_t *exact;
	size_t len;

	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	len = fread(data, 1, sizeof(data), f);
	fclose(f);
	exact = fuzz_copy(data, len);
	LLVMFuzzerTestOneInput(exact, len);
	free(exact);
	return 0;
}

START_TEST(kept_input_holds)
{
	fprintf(stderr, "%s\n", files[_i]); /* what a crash belongs to */
	ck_assert_int_eq(run_file(files[_i]), 0);
}
END_TEST

/* A target whose files were lost must not pass. */
START_TEST(inputs_are_kept)
{
	ck_assert_uint_gt(count, 0);
}
END_TEST

static void put_seed(const char *name, const void *data, size_t len)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", seed_dir, name);
	f = fopen(path, "we");
	if (!f || fwrite(data, 1, len, f) != len || fclose(f)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
}

static int run_kept(const char *folder, const char *name)
{
	Suite *suite = suite_create(name);
	TCase *tc = tcase_create(name);
	SRunner *runner = srunner_create(suite);
	int failed;

	add_dir(folder, "corpus", name);
	add_dir(folder, "found", name);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, inputs_are_kept);
	tcase_add_loop_test(tc, kept_input_holds, 0, (int)count);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	for (unsigned i = 0; i < count; i++)
		free(files[i]);
	return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	const char *folder = strstr(argv[0], "/check/");
	char *base = strrchr(argv[0], '/');
	int bad = 0;

	if (argc == 3 && !strcmp(argv[1], "--seeds")) {
		seed_dir = argv[2];
		wvm_fuzz_seeds(put_seed);
		return 0;
	}
	if (argc == 1) {
		if (!folder || folder + 6 >= base || strncmp(base, "/fuzz_", 6)) {
			fprintf(stderr, "%s: not of the form .../check/FOLDER/fuzz_NAME\n",
				argv[0]);
			return 1;
		}
		*base = '\0';
		return run_kept(folder + 7, base + 6);
	}
	for (int i = 1; i < argc; i++)
		bad |= run_file(argv[i]);
	return bad;
}

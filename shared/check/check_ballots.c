/* The file of ballots: what is read back is what was stored, and nothing else is ever taken for it.
 */
#include "shared/ballots.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/core/assert.h"
#include "shared/crc32c.h"

#define NODE    8u
#define PHYS    3u
#define CLUSTER UINT64_C(0x123456789abcdef0)

static char dir[64], err[512];
static struct wvm_ballots ballots;
static struct wvm_epoch_record first;

void wvm_core_panic(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, what);
	abort();
}

static void make_dir(void)
{
	snprintf(dir, sizeof(dir), "/dev/shm/wvm-ballots-%d", (int)getpid());
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	wvm_ballots_first(&first, (const uint32_t[]){NODE, 1, 5}, 3);
}

static void remove_dir(void)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/ballots.%u", dir, PHYS);
	unlink(path);
	strcat(path, ".new");
	unlink(path);
	rmdir(dir);
}

static int begin(struct wvm_epoch_durable *d)
{
	return wvm_ballots_begin(&ballots, dir, PHYS, NODE, CLUSTER, &first, d, err, sizeof(err));
}

/* A voter that has promised and accepted. */
static struct wvm_epoch_durable voted(void)
{
	struct wvm_epoch_durable d;

	wvm_epoch_first(&d, &first);
	d.value = d.current;
	d.value.epoch = 2;
	d.value.state = WVM_NODE_DRAINING;
	d.accepted = wvm_epoch_ballot(3, 5);
	d.promised = wvm_epoch_ballot(4, 1);
	ck_assert(wvm_epoch_durable_check(&d));
	return d;
}

static size_t read_back(uint8_t bytes[256])
{
	int fd = open(ballots.path, O_RDONLY);
	ssize_t n = read(fd, bytes, 256);

	close(fd);
	ck_assert_int_ge(n, 0);
	return (size_t)n;
}

static void write_file(const uint8_t *bytes, size_t len)
{
	int fd = open(ballots.path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

START_TEST(the_first_start_makes_the_file_and_the_next_ones_read_what_was_stored)
{
	struct wvm_epoch_durable d, again, v = voted();

	ck_assert_int_eq(begin(&d), 1);
	ck_assert_uint_eq(d.current.epoch, 1);
	ck_assert_uint_eq(d.promised, 0);
	ck_assert_int_eq(access(ballots.path, F_OK), 0);
	ck_assert_int_eq(wvm_ballots_store(&ballots, &v), 0);
	ck_assert_int_eq(begin(&again), 0);
	ck_assert_mem_eq(&again, &v, sizeof(v));
}
END_TEST

START_TEST(no_damaged_byte_and_no_other_length_is_taken)
{
	struct wvm_epoch_durable d, v = voted();
	uint8_t bytes[256];

	ck_assert_int_eq(begin(&d), 1);
	ck_assert_int_eq(wvm_ballots_store(&ballots, &v), 0);
	ck_assert_uint_eq(read_back(bytes), WVM_BALLOTS_BYTES);
	for (unsigned i = 0; i < WVM_BALLOTS_BYTES; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			bytes[i] ^= (uint8_t)(1u << bit);
			ck_assert_int_eq(wvm_ballots_decode(&ballots, bytes, WVM_BALLOTS_BYTES, &d),
					 -EINVAL);
			bytes[i] ^= (uint8_t)(1u << bit);
		}
	}
	memset(bytes + WVM_BALLOTS_BYTES, 0, sizeof(bytes) - WVM_BALLOTS_BYTES);
	for (unsigned len = 0; len <= WVM_BALLOTS_BYTES + 8; len++) {
		uint8_t now[256];

		if (len == WVM_BALLOTS_BYTES)
			continue;
		write_file(bytes, len);
		ck_assert_int_eq(begin(&d), -EINVAL);
		ck_assert_ptr_nonnull(strstr(err, ballots.path));
		ck_assert_ptr_nonnull(strstr(err, "remove ballots.*"));
		ck_assert_uint_eq(read_back(now), len); /* and it is left as it was */
	}
}
END_TEST

/* A right checksum over a state that no machine can have been in. */
START_TEST(a_state_that_cannot_have_been_stored_is_refused)
{
	struct wvm_epoch_durable d, v = voted();
	uint8_t bytes[WVM_BALLOTS_BYTES];
	uint32_t crc;

	ck_assert_int_eq(begin(&d), 1);
	wvm_ballots_encode(bytes, &ballots, &v);
	memset(bytes + WVM_BALLOTS_BYTES - 12, 0, 8); /* promised below accepted */
	crc = wvm_crc32c(0, bytes, WVM_BALLOTS_BYTES - 4);
	for (unsigned i = 0; i < 4; i++)
		bytes[WVM_BALLOTS_BYTES - 4 + i] = (uint8_t)(crc >> (24 - 8 * i));
	ck_assert_int_eq(wvm_ballots_decode(&ballots, bytes, sizeof(bytes), &d), -EINVAL);
}
END_TEST

START_TEST(votes_of_another_cluster_are_refused_and_no_votes_are_replaced)
{
	struct wvm_epoch_durable d, v = voted();

	ck_assert_int_eq(begin(&d), 1);
	ck_assert_int_eq(wvm_ballots_begin(&ballots, dir, PHYS, NODE, CLUSTER + 1, &first, &d, err,
					   sizeof(err)),
			 0);
	ck_assert_int_eq(wvm_ballots_store(&ballots, &v), 0);
	ck_assert_int_eq(begin(&d), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err, ballots.path));
	ck_assert_int_eq(wvm_ballots_begin(&ballots, dir, PHYS, NODE + 1, CLUSTER + 1, &first, &d,
					   err, sizeof(err)),
			 -EEXIST);
	ck_assert_int_eq(wvm_ballots_begin(&ballots, dir, PHYS, NODE, CLUSTER + 1, &first, &d, err,
					   sizeof(err)),
			 0);
	ck_assert_mem_eq(&d, &v, sizeof(v));
}
END_TEST

START_TEST(a_store_that_fails_leaves_the_old_file_and_says_so)
{
	struct wvm_epoch_durable d, v = voted();
	char temporary[300];

	ck_assert_int_eq(begin(&d), 1);
	snprintf(temporary, sizeof(temporary), "%s.new", ballots.path);
	ck_assert_int_eq(mkdir(temporary, 0700), 0); /* no file can be made there */
	ck_assert_int_eq(wvm_ballots_store(&ballots, &v), -EISDIR);
	ck_assert_int_eq(rmdir(temporary), 0);
	ck_assert_int_eq(begin(&d), 0);
	ck_assert_uint_eq(d.promised, 0);
	snprintf(ballots.path, sizeof(ballots.path), "/nonexistent/ballots.0");
	ck_assert_int_eq(wvm_ballots_store(&ballots, &v), -ENOENT);
}
END_TEST

START_TEST(the_seven_lowest_of_any_order_vote_first)
{
	static const uint32_t ids[] = {90, 4, 70, 5, 60, 6, 50, 7, 40, 8};
	static const uint32_t want[] = {4, 5, 6, 7, 8, 40, 50};
	struct wvm_epoch_record r;

	wvm_ballots_first(&r, ids, 10);
	ck_assert(wvm_epoch_record_check(&r));
	ck_assert_uint_eq(r.voters, 7);
	ck_assert_mem_eq(r.voter, want, sizeof(want));
	wvm_ballots_first(&r, ids, 1);
	ck_assert(wvm_epoch_record_check(&r));
	ck_assert_uint_eq(r.voters, 1);
	ck_assert_uint_eq(r.voter[0], 90);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ballots");
	TCase *t = tcase_create("file");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, make_dir, remove_dir);
	tcase_add_test(t, the_first_start_makes_the_file_and_the_next_ones_read_what_was_stored);
	tcase_add_test(t, no_damaged_byte_and_no_other_length_is_taken);
	tcase_add_test(t, a_state_that_cannot_have_been_stored_is_refused);
	tcase_add_test(t, votes_of_another_cluster_are_refused_and_no_votes_are_replaced);
	tcase_add_test(t, a_store_that_fails_leaves_the_old_file_and_says_so);
	tcase_add_test(t, the_seven_lowest_of_any_order_vote_first);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

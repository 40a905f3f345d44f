/* Neighbours that enter the RAM file, are protected and read in one go. */
#include "roles/master/check/mem_toucher.h"

#define RUN 16u

static uint64_t run[RUN][WVM_PAGE_SIZE / 8];

static void fill_run(uint64_t seed)
{
	for (unsigned i = 0; i < RUN; i++)
		memcpy(run[i], pattern(seed + 1000 * i), sizeof(run[i]));
}

/* A client that maps two parts of the VM only, neither of which is all of a run at 0. */
static void attach_in_parts(unsigned i)
{
	start(i);
	ck_assert_int_eq(wvm_mem_client_add(node, 0, i, t[i].uffd), 0);
	for (unsigned part = 0; part < 2; part++) {
		uint64_t first = part ? 10 : 0, pages = part ? 20 : 4;
		struct wvm_mem_map map = {.base = t[i].ctl->base + first * WVM_PAGE_SIZE,
					  .gpa = first * WVM_PAGE_SIZE,
					  .len = pages * WVM_PAGE_SIZE,
					  .mode = WVM_STRICT,
					  .vm_id = VM_ID};

		ck_assert_int_eq(wvm_mem_map_add(node, 0, i, &map), 0);
	}
}

static bool maps(unsigned i, uint64_t page)
{
	return i < 2 || page < 4 || page >= 10;
}

/* Whoever maps a page reads what is there without an event, and stores nothing without one. */
static void expect_protected(uint64_t page, unsigned clients)
{
	uint64_t is = word_of_file(page, 1);

	for (unsigned i = 0; i < clients; i++) {
		if (!maps(i, page))
			continue;
		tell(i, READ, page, 1, 0);
		expect_done(i, (int64_t)is);
		tell(i, WRITE, page, 1, 7);
		expect_event(i, page, true);
		ck_assert_uint_eq(word_of_file(page, 1), is);
		ck_assert_int_eq(wvm_mem_lift(vm, page, 1u << i), 0);
		expect_done(i, 7);
		ck_assert_int_eq(wvm_mem_protect(vm, page), 0);
		is = 7;
	}
}

START_TEST(a_run_enters_protected_in_every_mm)
{
	attach(0);
	attach(1);
	attach_in_parts(2);
	fill_run(50);
	ck_assert_uint_eq(wvm_mem_install_run(vm, 0, RUN, run), RUN);
	for (uint64_t page = 0; page < RUN; page++) {
		ck_assert_uint_eq(word_of_file(page, 3), 53 + 1000 * page);
		expect_protected(page, 3);
	}
	ck_assert(!wvm_mem_present(vm, RUN));
}
END_TEST

START_TEST(a_run_with_a_page_that_is_there_overwrites_nothing)
{
	attach(0);
	for (uint64_t there = 0; there < RUN; there++) {
		ck_assert_int_eq(wvm_mem_install(vm, there, pattern(there), false, 0), 0);
		fill_run(50);
		ck_assert_uint_eq(wvm_mem_install_run(vm, 0, RUN, run), 0);
		for (uint64_t page = 0; page < RUN; page++)
			ck_assert_int_eq(wvm_mem_present(vm, page), page == there);
		ck_assert_uint_eq(word_of_file(there, 0), there);
		ck_assert_int_eq(wvm_mem_punch(vm, there), 0);
	}
	/* One behind the run is none of its concern. */
	ck_assert_int_eq(wvm_mem_install(vm, RUN, pattern(3), false, 0), 0);
	ck_assert_uint_eq(wvm_mem_install_run(vm, 0, RUN, run), RUN);
	ck_assert_uint_eq(word_of_file(RUN, 0), 3);
}
END_TEST

START_TEST(a_run_is_protected_and_read_as_it_is)
{
	uint64_t now[RUN][WVM_PAGE_SIZE / 8];

	attach(0);
	attach(1);
	attach_in_parts(2);
	tell(0, WRITE, 0, 0, 100);
	expect_event(0, 0, true);
	ck_assert_int_eq(wvm_mem_fill(vm, 0, 0, RUN, 1), 0);
	expect_done(0, 100);
	/* All of it is Modified here: whoever maps it may write. */
	for (unsigned i = 0; i < 3; i++)
		for (uint64_t page = 0; page < RUN; page++)
			if (maps(i, page)) {
				tell(i, WRITE, page, i, 100 + page);
				expect_done(i, (int64_t)(100 + page));
			}
	ck_assert_int_eq(wvm_mem_protect_run(vm, 0, RUN), 0);
	ck_assert_int_eq(wvm_mem_read_run(vm, 0, RUN, now), 0);
	for (uint64_t page = 0; page < RUN; page++) {
		for (unsigned i = 0; i < 3; i++)
			ck_assert_uint_eq(now[page][i], maps(i, page) ? 100 + page : 0);
		expect_protected(page, 3);
	}
}
END_TEST

START_TEST(a_run_survives_a_dead_client)
{
	attach(0);
	attach(1);
	fill_run(9);
	kill(t[0].pid, SIGKILL);
	waitpid(t[0].pid, NULL, 0);
	t[0].pid = 0;
	ck_assert_uint_eq(wvm_mem_install_run(vm, 0, RUN, run), RUN);
	ck_assert_uint_eq(dying_mask, 1);
	tell(1, READ, RUN - 1, 0, 0);
	expect_done(1, 9 + 1000 * (RUN - 1));
	ck_assert_int_eq(wvm_mem_protect_run(vm, 0, RUN), 0);
}
END_TEST

START_TEST(a_run_ends_where_the_tmpfs_is_full)
{
	char dir[] = "/dev/shm/wvm-check-runs.XXXXXX", text[96];
	uint64_t now[WVM_PAGE_SIZE / 8];
	struct wvm_mem *small;
	unsigned done;
	int opened;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(text, sizeof(text), "mount -t tmpfs -o size=%uk none %s", 4 * (RUN - 3), dir);
	ck_assert_int_eq(system(text), 0);
	snprintf(text, sizeof(text), "%s/ram", dir);
	opened = wvm_mem_open(node, &small, VM_ID + 1, text, VM_BYTES, WVM_MEM_EMPTY, err,
			      sizeof(err));
	fill_run(20);
	done = opened ? 0 : wvm_mem_install_run(small, 0, RUN, run);
	for (uint64_t page = 0; !opened && page < RUN; page++) {
		ck_assert_int_eq(wvm_mem_read(small, page, now), page < done ? 0 : -ENODATA);
		ck_assert_uint_eq(now[0], page < done ? 20 + 1000 * page : 0);
	}
	snprintf(text, sizeof(text), "umount -l %s", dir);
	ck_assert_int_eq(system(text), 0);
	rmdir(dir);
	ck_assert_msg(!opened, "%s", err);
	ck_assert_uint_gt(done, 0);
	ck_assert_uint_lt(done, RUN);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("roles/master/mem_runs");
	SRunner *sr = srunner_create(s);
	TCase *tc = tcase_create("runs");
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_run_enters_protected_in_every_mm);
	tcase_add_test(tc, a_run_with_a_page_that_is_there_overwrites_nothing);
	tcase_add_test(tc, a_run_is_protected_and_read_as_it_is);
	tcase_add_test(tc, a_run_survives_a_dead_client);
	tcase_add_test(tc, a_run_ends_where_the_tmpfs_is_full);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);

	name_file();
	srunner_run_all(sr, CK_ENV);
	unlink(path);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}

/* mem.c against the kernel: the RAM file and the mms of other processes. */
#include "roles/master/check/mem_toucher.h"

/* --- what is in the file, what is mapped ------------------------------------ */

START_TEST(missing_page_is_an_event_and_install_ends_it)
{
	attach(0);
	tell(0, READ, 5, 2, 0);
	expect_event(0, 5, false);
	ck_assert_int_eq(wvm_mem_install(vm, 5, pattern(100), false, 1), 0);
	expect_done(0, 102);
	ck_assert(wvm_mem_present(vm, 5));
	ck_assert(!wvm_mem_present(vm, 4));
}
END_TEST

START_TEST(shared_page_reports_a_store_before_it_lands)
{
	attach(0);
	tell(0, READ, 1, 0, 0);
	expect_event(0, 1, false);
	ck_assert_int_eq(wvm_mem_install(vm, 1, pattern(7), false, 1), 0);
	expect_done(0, 7);
	tell(0, WRITE, 1, 0, 99);
	expect_event(0, 1, true);
	ck_assert_uint_eq(word_of_file(1, 0), 7);
	ck_assert_int_eq(wvm_mem_lift(vm, 1, 1), 0);
	expect_done(0, 99);
	ck_assert_uint_eq(word_of_file(1, 0), 99);
}
END_TEST

START_TEST(zero_page_is_read_only_until_lifted)
{
	attach(0);
	tell(0, READ, 9, 3, 0);
	expect_event(0, 9, false);
	ck_assert_int_eq(wvm_mem_install(vm, 9, NULL, false, 1), 0);
	expect_done(0, 0);
	tell(0, WRITE, 9, 3, 5);
	expect_event(0, 9, true);
	ck_assert_uint_eq(word_of_file(9, 3), 0);
	ck_assert_int_eq(wvm_mem_lift(vm, 9, 1), 0);
	expect_done(0, 5);
}
END_TEST

/* The hole that protecting before the install closes. */
START_TEST(second_mm_never_stores_unseen)
{
	for (unsigned writable = 0; writable < 2; writable++) {
		uint64_t page = 10 + writable;

		if (!writable) {
			attach(0);
			attach(1);
		}
		tell(0, writable ? WRITE : READ, page, 0, 50);
		expect_event(0, page, writable);
		ck_assert_int_eq(wvm_mem_install(vm, page, pattern(50), writable, 1), 0);
		expect_done(0, 50);
		tell(1, WRITE, page, 1, 777);
		expect_event(1, page, true);
		ck_assert_uint_eq(word_of_file(page, 1), 51);
		ck_assert_int_eq(wvm_mem_lift(vm, page, 2), 0);
		expect_done(1, 777);
	}
}
END_TEST

START_TEST(second_mm_reads_without_an_event_and_still_cannot_store_unseen)
{
	attach(0);
	attach(1);
	tell(0, READ, 3, 0, 0);
	expect_event(0, 3, false);
	ck_assert_int_eq(wvm_mem_install(vm, 3, pattern(1), false, 1), 0);
	expect_done(0, 1);
	tell(1, READ, 3, 1, 0);
	expect_done(1, 2);
	tell(1, WRITE, 3, 1, 4);
	expect_event(1, 3, true);
	ck_assert_uint_eq(word_of_file(3, 1), 2);
	ck_assert_int_eq(wvm_mem_lift(vm, 3, 2), 0);
	expect_done(1, 4);
}
END_TEST

START_TEST(all_waiters_go_on_and_may_write_if_granted)
{
	for (unsigned i = 0; i < 3; i++)
		attach(i);
	for (unsigned i = 0; i < 3; i++) {
		tell(i, WRITE, 20, i, 1000 + i);
		expect_event(i, 20, true);
	}
	ck_assert_int_eq(wvm_mem_install(vm, 20, pattern(0), true, 7), 0);
	for (unsigned i = 0; i < 3; i++)
		expect_done(i, 1000 + i);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(word_of_file(20, i), 1000 + i);
}
END_TEST

/* Page by page and life by life: a marker that was dropped by an unmap is made anew. */
START_TEST(every_life_of_a_page_is_protected)
{
	attach(0);
	attach(1);
	for (uint64_t life = 0; life < 500; life++) {
		unsigned who = life & 1, other = !who;

		tell(who, READ, 30, 0, 0);
		expect_event(who, 30, false);
		ck_assert_int_eq(wvm_mem_install(vm, 30, pattern(life), false, 1u << who), 0);
		expect_done(who, (int64_t)life);
		tell(other, WRITE, 30, 1, 5000 + life);
		expect_event(other, 30, true);
		ck_assert_uint_eq(word_of_file(30, 1), life + 1);
		ck_assert_int_eq(wvm_mem_lift(vm, 30, 1u << other), 0);
		expect_done(other, (int64_t)(5000 + life));
		ck_assert_int_eq(wvm_mem_protect(vm, 30), 0);
		ck_assert_uint_eq(word_of_file(30, 1), 5000 + life);
		ck_assert_int_eq(wvm_mem_punch(vm, 30), 0);
		ck_assert(!wvm_mem_present(vm, 30));
	}
}
END_TEST

START_TEST(install_without_waiters_holds_the_page_protected)
{
	attach(0);
	ck_assert_int_eq(wvm_mem_install(vm, 7, pattern(70), true, 0), 0);
	ck_assert(wvm_mem_present(vm, 7));
	tell(0, READ, 7, 1, 0);
	expect_done(0, 71);
	tell(0, WRITE, 7, 1, 1);
	expect_event(0, 7, true);
	ck_assert_uint_eq(word_of_file(7, 1), 71);
	ck_assert_int_eq(wvm_mem_lift(vm, 7, 1), 0);
	expect_done(0, 1);
}
END_TEST

START_TEST(present_page_is_never_overwritten)
{
	struct wvm_mem_counters c;

	attach(0);
	attach(1);
	ck_assert_int_eq(wvm_mem_install(vm, 8, pattern(80), false, 0), 0);
	ck_assert_int_eq(wvm_mem_install(vm, 8, pattern(90), false, 0), -EEXIST);
	ck_assert_int_eq(wvm_mem_install(vm, 8, pattern(90), false, 1), -EEXIST);
	ck_assert_uint_eq(word_of_file(8, 0), 80);
	tell(1, WRITE, 8, 0, 3);
	expect_event(1, 8, true);
	ck_assert_int_eq(wvm_mem_install(vm, 8, pattern(90), true, 2), -EEXIST);
	expect_done(1, 3);
	tell(0, WRITE, 8, 1, 4);
	expect_event(0, 8, true);
	ck_assert_uint_eq(word_of_file(8, 1), 81);
	wvm_memory_counters(node, 0, &c);
	ck_assert_uint_eq(c.already, 3);
	ck_assert_uint_eq(c.installs, 1);
}
END_TEST

START_TEST(late_mapping_cannot_store_unseen)
{
	struct uffdio_writeprotect p = {.mode = UFFDIO_WRITEPROTECT_MODE_WP};

	ck_assert_int_eq(wvm_mem_install(vm, 2, pattern(20), true, 0), 0);
	start(0);
	add(0, WVM_STRICT);
	/* What wvm_map() does once the master knows the range. */
	p.range = (struct uffdio_range){t[0].ctl->base + 2 * WVM_PAGE_SIZE, WVM_PAGE_SIZE};
	ck_assert_int_eq(ioctl(t[0].uffd, UFFDIO_WRITEPROTECT, &p), 0);
	tell(0, WRITE, 2, 0, 1);
	expect_event(0, 2, true);
	ck_assert_uint_eq(word_of_file(2, 0), 20);
}
END_TEST

START_TEST(hole_reads_as_an_error_and_not_as_zeros)
{
	uint64_t buf[WVM_PAGE_SIZE / 8] = {42};

	ck_assert_int_eq(wvm_mem_read(vm, 6, buf), -ENODATA);
	ck_assert_int_eq(wvm_mem_install(vm, 6, NULL, false, 0), 0);
	ck_assert_int_eq(wvm_mem_read(vm, 6, buf), 0);
	ck_assert_uint_eq(buf[0], 0);
	ck_assert_int_eq(wvm_mem_punch(vm, 6), 0);
	ck_assert_int_eq(wvm_mem_read(vm, 6, buf), -ENODATA);
}
END_TEST

START_TEST(kernel_reads_mapped_pages_too)
{
	attach(0);
	tell(0, SYSCALL_READ, 12, 4, 0);
	expect_event(0, 12, false);
	ck_assert_int_eq(wvm_mem_install(vm, 12, pattern(12), false, 1), 0);
	expect_done(0, 16);
}
END_TEST

/* --- clients that go --------------------------------------------------------- */

static void kill_toucher(unsigned i)
{
	kill(t[i].pid, SIGKILL);
	waitpid(t[i].pid, NULL, 0);
	t[i].pid = 0;
}

START_TEST(dying_client_is_dropped_and_the_others_go_on)
{
	for (unsigned i = 0; i < 3; i++)
		attach(i);
	for (unsigned i = 0; i < 2; i++) {
		tell(i, WRITE, 40, i, 9);
		expect_event(i, 40, true);
	}
	kill_toucher(0);
	/* The dead one is first in the mask, so that it is to take the page. */
	ck_assert_int_eq(wvm_mem_install(vm, 40, pattern(0), true, 3), 0);
	expect_done(1, 9);
	ck_assert_uint_eq(dying_mask, 1);
	ck_assert_uint_eq(wvm_mem_mappers(vm, 40), 6);
	tell(2, WRITE, 40, 2, 1);
	expect_event(2, 40, true);
	ck_assert_int_eq(wvm_mem_protect(vm, 40), 0);
	ck_assert_uint_eq(dying_mask, 1);
}
END_TEST

START_TEST(page_is_held_when_all_its_waiters_died)
{
	attach(0);
	attach(1);
	tell(0, WRITE, 41, 0, 9);
	expect_event(0, 41, true);
	kill_toucher(0);
	ck_assert_int_eq(wvm_mem_install(vm, 41, pattern(41), true, 1), 0);
	ck_assert_uint_eq(word_of_file(41, 0), 41);
	tell(1, WRITE, 41, 0, 1);
	expect_event(1, 41, true);
	ck_assert_uint_eq(word_of_file(41, 0), 41);
}
END_TEST

START_TEST(every_step_survives_a_dead_client)
{
	attach(0);
	attach(1);
	ck_assert_int_eq(wvm_mem_install(vm, 0, NULL, true, 0), 0);
	kill_toucher(0);
	for (unsigned step = 0; step < 4; step++) {
		if (step) /* known again, although dead */
			add(0, WVM_STRICT);
		dying_mask = 0;
		switch (step) {
		case 0: ck_assert_int_eq(wvm_mem_protect(vm, 0), 0); break;
		case 1: ck_assert_int_eq(wvm_mem_lift(vm, 0, 3), 0); break;
		case 2: ck_assert_int_eq(wvm_mem_fail(vm, 1, 1, EIO), 0); break;
		case 3: ck_assert_int_eq(wvm_mem_install(vm, 2, NULL, false, 1), 0); break;
		}
		ck_assert_uint_eq(dying_mask, 1);
		ck_assert_uint_eq(wvm_mem_mappers(vm, 0), 2);
	}
	ck_assert_uint_eq(failed_count, 0);
}
END_TEST

START_TEST(page_that_its_program_unmapped_is_skipped)
{
	struct wvm_mem_counters c;

	attach(0);
	attach(1);
	tell(0, UNMAP, 0, 0, 0);
	expect_done(0, 0);
	tell(1, WRITE, 0, 0, 8);
	expect_event(1, 0, true);
	ck_assert_int_eq(wvm_mem_install(vm, 0, NULL, true, 3), 0);
	expect_done(1, 8);
	ck_assert_int_eq(wvm_mem_protect(vm, 0), 0);
	ck_assert_uint_eq(dying_mask, 0);
	wvm_memory_counters(node, 0, &c);
	ck_assert_uint_gt(c.skipped, 0);
}
END_TEST

/* --- errors --------------------------------------------------------------------- */

START_TEST(failed_page_gives_sigbus_in_the_waiter_only)
{
	attach(0);
	attach(1);
	/* A marker is in both mms from a former life: POISON alone would refuse it. */
	ck_assert_int_eq(wvm_mem_install(vm, 50, NULL, false, 0), 0);
	ck_assert_int_eq(wvm_mem_protect(vm, 50), 0);
	ck_assert_int_eq(wvm_mem_punch(vm, 50), 0);
	tell(0, WRITE, 50, 0, 1);
	expect_event(0, 50, true);
	ck_assert_int_eq(wvm_mem_fail(vm, 50, 1, ETIMEDOUT), 0);
	expect_done(0, -SIGBUS);
	ck_assert_uint_eq(failed_count, 1);
	ck_assert_int_eq(last_error.how, WVM_ERROR_HOW_POISONED);
	ck_assert_int_eq(last_error.reason, ETIMEDOUT);
	ck_assert_uint_eq(last_error.addr, t[0].ctl->base + 50 * WVM_PAGE_SIZE);
	ck_assert_uint_eq(last_error.gpa, 50 * WVM_PAGE_SIZE);
	tell(1, READ, 50, 0, 0);
	expect_event(1, 50, false);
	ck_assert_int_eq(wvm_mem_install(vm, 50, pattern(5), false, 2), 0);
	expect_done(1, 5);
}
END_TEST

START_TEST(failed_page_gives_the_kernel_an_error)
{
	attach(0);
	tell(0, SYSCALL_READ, 51, 0, 0);
	expect_event(0, 51, false);
	ck_assert_int_eq(wvm_mem_fail(vm, 51, 1, EIO), 0);
	expect_done(0, -EFAULT);
}
END_TEST

START_TEST(present_page_is_not_failed)
{
	attach(0);
	ck_assert_int_eq(wvm_mem_install(vm, 52, NULL, false, 0), 0);
	ck_assert_int_eq(wvm_mem_fail(vm, 52, 1, EIO), -EBUSY);
	ck_assert_uint_eq(failed_count, 0);
}
END_TEST

START_TEST(parked_mapping_is_told_and_its_thread_left)
{
	start(0);
	add(0, WVM_ERROR_PARK);
	tell(0, READ, 53, 0, 0);
	expect_event(0, 53, false);
	ck_assert_int_eq(wvm_mem_fail(vm, 53, 1, ETIMEDOUT), 0);
	ck_assert_uint_eq(failed_count, 1);
	ck_assert_int_eq(last_error.how, WVM_ERROR_HOW_PARKED);
	/* It still waits, and could still be served. */
	ck_assert_int_eq(sem_trywait(&t[0].ctl->done), -1);
	ck_assert_int_eq(wvm_mem_install(vm, 53, pattern(3), false, 1), 0);
	expect_done(0, 3);
}
END_TEST

START_TEST(without_poison_the_helper_is_asked)
{
	wvm_memory_disable_poison(node);
	attach(0);
	tell(0, READ, 54, 0, 0);
	expect_event(0, 54, false);
	ck_assert_int_eq(wvm_mem_fail(vm, 54, 1, EIO), 0);
	ck_assert_uint_eq(failed_count, 1);
	ck_assert_int_eq(last_error.how, WVM_ERROR_HOW_REPLACE);
}
END_TEST

/* --- tables and the file ---------------------------------------------------------------- */

START_TEST(impossible_ranges_are_refused)
{
	const uint64_t at = 0x10000000;
	const struct {
		struct wvm_mem_map map;
		int expect;
	} cases[] = {
		{{.base = at, .gpa = 0, .len = 4096, .vm_id = 4}, -ENXIO},
		{{.base = at, .gpa = 0, .len = 0, .vm_id = VM_ID}, -EINVAL},
		{{.base = at + 1, .gpa = 0, .len = 4096, .vm_id = VM_ID}, -EINVAL},
		{{.base = at, .gpa = 8, .len = 4096, .vm_id = VM_ID}, -EINVAL},
		{{.base = at, .gpa = 0, .len = 100, .vm_id = VM_ID}, -EINVAL},
		{{.base = 0, .gpa = 0, .len = 4096, .vm_id = VM_ID}, -EINVAL},
		{{.base = ~4095ull, .gpa = 0, .len = 8192, .vm_id = VM_ID}, -EINVAL},
		{{.base = at, .gpa = 0, .len = 4096, .mode = 1, .vm_id = VM_ID}, -EINVAL},
		{{.base = at, .gpa = VM_BYTES, .len = 4096, .vm_id = VM_ID}, -ERANGE},
		{{.base = at, .gpa = 0, .len = VM_BYTES + 4096, .vm_id = VM_ID}, -ERANGE},
		{{.base = at, .gpa = ~4095ull, .len = 8192, .vm_id = VM_ID}, -ERANGE},
		{{.base = at, .gpa = 8192, .len = 8192, .vm_id = VM_ID}, 0},
		{{.base = at + 65536, .gpa = 12288, .len = 4096, .vm_id = VM_ID}, -EEXIST},
		{{.base = at + 4096, .gpa = 65536, .len = 4096, .vm_id = VM_ID}, -EEXIST},
	};

	start(0);
	ck_assert_int_eq(wvm_mem_map_add(node, 0, 0, &cases[11].map), -ENOENT);
	ck_assert_int_eq(wvm_mem_client_add(node, 0, 0, t[0].uffd), 0);
	ck_assert_int_eq(wvm_mem_client_add(node, 0, 0, t[0].uffd), -EEXIST);
	ck_assert_int_eq(wvm_mem_client_add(node, 0, 64, t[0].uffd), -EINVAL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		ck_assert_msg(wvm_mem_map_add(node, 0, 0, &cases[i].map) == cases[i].expect,
			      "case %zu", i);
	for (uint64_t n = 1; n < WVM_MEM_MAPS_MAX; n++) {
		struct wvm_mem_map m = {.base = at + (n + 1) * 65536,
					.gpa = 16384 + n * 4096,
					.len = 4096,
					.vm_id = VM_ID};

		ck_assert_int_eq(wvm_mem_map_add(node, 0, 0, &m), 0);
	}
	ck_assert_int_eq(wvm_mem_map_add(node, 0, 0,
					 &(struct wvm_mem_map){.base = at + (20ull << 16),
							       .gpa = 0,
							       .len = 4096,
							       .vm_id = VM_ID}),
			 -ENOSPC);
	ck_assert_int_eq(wvm_mem_map_del(node, 0, 0, VM_ID, 8192, 4096), -ENOENT);
	ck_assert_int_eq(wvm_mem_map_del(node, 0, 0, VM_ID, 8192, 8192), 0);
	ck_assert_int_eq(wvm_mem_map_del(node, 0, 0, VM_ID, 8192, 8192), -ENOENT);
	ck_assert_uint_eq(wvm_mem_mappers(vm, 2), 0);
	ck_assert_uint_eq(wvm_mem_mappers(vm, 5), 1);
}
END_TEST

static int open_second(uint16_t id, const char *name, uint64_t size, enum wvm_mem_open_how how)
{
	struct wvm_memory *n2;
	struct wvm_mem *v2;
	int ret;

	ck_assert_int_eq(wvm_memory_new(&n2, 1, NULL, NULL), 0);
	memset(err, 0, sizeof(err));
	ret = wvm_mem_open(n2, &v2, id, name, size, how, err, sizeof(err));
	if (ret)
		ck_assert_msg(err[0] && !strchr(err, '\n'), "one line for the operator");
	wvm_memory_free(n2);
	return ret;
}

START_TEST(bad_ram_files_are_refused_with_a_text)
{
	char other[80];
	int fd;

	ck_assert_int_eq(open_second(1, path, VM_BYTES, WVM_MEM_EMPTY), -EBUSY);
	snprintf(other, sizeof(other), "%s.other", path);
	ck_assert_int_eq(open_second(1, other, 1000, WVM_MEM_EMPTY), -EINVAL);
	ck_assert_int_eq(open_second(1, other, 0, WVM_MEM_EMPTY), -EINVAL);
	fd = open(other, O_RDWR | O_CREAT, 0600);
	ck_assert_int_eq(ftruncate(fd, 8192), 0);
	ck_assert_int_eq(open_second(1, other, 4096, WVM_MEM_EMPTY), -EEXIST);
	ck_assert_int_eq(open_second(1, other, 16384, WVM_MEM_ADOPT), -EEXIST);
	ck_assert_int_eq(open_second(1, other, 8192, WVM_MEM_EMPTY), 0);
	close(fd);
	unlink(other);
	ck_assert_int_eq(symlink(path, other), 0);
	ck_assert_int_eq(open_second(1, other, VM_BYTES, WVM_MEM_EMPTY), -ELOOP);
	unlink(other);
	ck_assert_int_eq(open_second(1, "/dev/shm", 4096, WVM_MEM_EMPTY), -EISDIR);
	ck_assert_int_eq(open_second(1, "/proc/self/oom_score_adj", 4096, WVM_MEM_EMPTY),
			 -EMEDIUMTYPE);
	ck_assert_int_eq(open_second(1, "/dev/shm/no/such", 4096, WVM_MEM_EMPTY), -ENOENT);
}
END_TEST

START_TEST(tmpfs_with_huge_pages_is_refused)
{
	char dir[] = "/dev/shm/wvm-check-huge.XXXXXX", file[96];
	int ret;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(file, sizeof(file), "mount -t tmpfs -o huge=always,size=16m none %s", dir);
	ck_assert_int_eq(system(file), 0);
	snprintf(file, sizeof(file), "%s/ram", dir);
	ret = open_second(1, file, 4096, WVM_MEM_EMPTY);
	snprintf(file, sizeof(file), "umount %s", dir);
	ck_assert_int_eq(system(file), 0);
	rmdir(dir);
	ck_assert_int_eq(ret, -EMEDIUMTYPE);
	ck_assert_ptr_nonnull(strstr(err, "huge=never"));
}
END_TEST

START_TEST(hugetlbfs_is_refused_naming_the_alternative)
{
	char dir[] = "/dev/shm/wvm-check-hugetlb.XXXXXX", file[96];
	int ret;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(file, sizeof(file), "mount -t hugetlbfs none %s", dir);
	ck_assert_int_eq(system(file), 0);
	snprintf(file, sizeof(file), "%s/ram", dir);
	ret = open_second(1, file, VM_BYTES, WVM_MEM_EMPTY);
	snprintf(file, sizeof(file), "umount %s", dir);
	ck_assert_int_eq(system(file), 0);
	rmdir(dir);
	ck_assert_int_eq(ret, -EMEDIUMTYPE);
	ck_assert_ptr_nonnull(strstr(err, "hugetlbfs"));
	ck_assert_ptr_nonnull(strstr(err, "/dev/shm"));
	ck_assert_ptr_null(strchr(err, '\n'));
}
END_TEST

START_TEST(leftover_pages_are_punched_unless_adopted)
{
	for (unsigned adopt = 0; adopt < 2; adopt++) {
		ck_assert_int_eq(wvm_mem_install(vm, 3, pattern(33), false, 0), 0);
		wvm_memory_free(node);
		ck_assert_int_eq(wvm_memory_new(&node, 1, &ops, NULL), 0);
		ck_assert_int_eq(wvm_mem_open(node, &vm, VM_ID, path, VM_BYTES,
					      adopt ? WVM_MEM_ADOPT : WVM_MEM_EMPTY, err,
					      sizeof(err)),
				 0);
		ck_assert_int_eq(wvm_mem_present(vm, 3), adopt);
	}
	ck_assert_uint_eq(word_of_file(3, 0), 33);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mem");
	TCase *tc = tcase_create("pages"), *files = tcase_create("files");
	SRunner *sr = srunner_create(s);
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, missing_page_is_an_event_and_install_ends_it);
	tcase_add_test(tc, shared_page_reports_a_store_before_it_lands);
	tcase_add_test(tc, zero_page_is_read_only_until_lifted);
	tcase_add_test(tc, second_mm_never_stores_unseen);
	tcase_add_test(tc, second_mm_reads_without_an_event_and_still_cannot_store_unseen);
	tcase_add_test(tc, all_waiters_go_on_and_may_write_if_granted);
	tcase_add_test(tc, every_life_of_a_page_is_protected);
	tcase_add_test(tc, install_without_waiters_holds_the_page_protected);
	tcase_add_test(tc, present_page_is_never_overwritten);
	tcase_add_test(tc, late_mapping_cannot_store_unseen);
	tcase_add_test(tc, hole_reads_as_an_error_and_not_as_zeros);
	tcase_add_test(tc, kernel_reads_mapped_pages_too);
	tcase_add_test(tc, dying_client_is_dropped_and_the_others_go_on);
	tcase_add_test(tc, page_is_held_when_all_its_waiters_died);
	tcase_add_test(tc, every_step_survives_a_dead_client);
	tcase_add_test(tc, page_that_its_program_unmapped_is_skipped);
	tcase_add_test(tc, failed_page_gives_sigbus_in_the_waiter_only);
	tcase_add_test(tc, failed_page_gives_the_kernel_an_error);
	tcase_add_test(tc, present_page_is_not_failed);
	tcase_add_test(tc, parked_mapping_is_told_and_its_thread_left);
	tcase_add_test(tc, without_poison_the_helper_is_asked);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);

	tcase_add_checked_fixture(files, setup, teardown);
	tcase_add_test(files, impossible_ranges_are_refused);
	tcase_add_test(files, bad_ram_files_are_refused_with_a_text);
	tcase_add_test(files, tmpfs_with_huge_pages_is_refused);
	tcase_add_test(files, hugetlbfs_is_refused_naming_the_alternative);
	tcase_add_test(files, leftover_pages_are_punched_unless_adopted);
	tcase_set_timeout(files, 60);
	suite_add_tcase(s, files);

	name_file();
	srunner_run_all(sr, CK_ENV);
	unlink(path);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}

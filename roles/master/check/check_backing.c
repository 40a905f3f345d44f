/* Room behind the mapped tables: found out before they are touched, on a tmpfs that is full. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "roles/master/backing.h"

#define PAGES     4096u
#define TMPFS_KIB 64u /* of which the test keeps some */
#define PAGE      WVM_PAGE_BYTES

static char dir[] = "/tmp/wvm-backing-XXXXXX";
static struct wvm_core_vm vm;
static struct wvm_backing backing;
static int ballast;

static void *map_file(const char *name, size_t len)
{
	char path[64];
	void *at;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)len), 0);
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(at, MAP_FAILED);
	close(fd);
	return at;
}

/* In a mount namespace of its own, which ends with the test's process. */
static void setup(void)
{
	char path[64], options[32];

	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(options, sizeof(options), "size=%uk", TMPFS_KIB);
	ck_assert_int_eq(mount("wvm-backing", dir, "tmpfs", 0, options), 0);
	vm = (struct wvm_core_vm){.id = 1, .pages = PAGES};
	vm.home = map_file("home", PAGES * sizeof(*vm.home));
	vm.units = map_file("units", PAGES / WVM_UNIT_PAGES * sizeof(*vm.units));
	vm.held_units = map_file("held_units", PAGES / WVM_UNIT_PAGES * sizeof(*vm.held_units));
	vm.held = map_file("held", PAGES * sizeof(*vm.held));
	vm.store = map_file("store", (size_t)PAGES * PAGE);
	ck_assert_int_eq(wvm_backing_open(&backing, &vm), 0);
	snprintf(path, sizeof(path), "%s/ballast", dir);
	ballast = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
}

static void teardown(void)
{
	wvm_backing_close(&backing);
	close(ballast);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
}

static void fill(void)
{
	for (off_t at = 0; !fallocate(ballast, 0, at, PAGE); at += PAGE)
		;
	ck_assert_int_eq(errno, ENOSPC);
}

static void make_room(unsigned pages)
{
	static off_t at;

	ck_assert_int_eq(fallocate(ballast, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
				   (off_t)pages * PAGE),
			 0);
	at += (off_t)pages * PAGE;
}

START_TEST(what_has_room_keeps_it_and_what_has_none_is_refused)
{
	ck_assert(wvm_backing_held(&backing, 5));
	ck_assert(wvm_backing_home(&backing, 5));
	ck_assert(wvm_backing_store(&backing, 5));
	fill();
	/* Entries of the same table page, and the page itself. */
	ck_assert(wvm_backing_held(&backing, 63) && wvm_backing_home(&backing, 0));
	ck_assert(wvm_backing_store(&backing, 5));
	memset(vm.store + 5 * PAGE, 1, PAGE);
	vm.held[63].version = 1;
	vm.home[63].version = 1;
	vm.units[0].version = 1;
	ck_assert(!wvm_backing_held(&backing, 64));
	ck_assert(!wvm_backing_home(&backing, 64));
	ck_assert(!wvm_backing_store(&backing, 6));
	make_room(3);
	ck_assert(wvm_backing_held(&backing, 64));
	ck_assert(wvm_backing_home(&backing, 64));
	ck_assert(wvm_backing_store(&backing, 6));
	vm.held[64].version = vm.home[64].version = 1;
	memset(vm.store + 6 * PAGE, 1, PAGE);
	ck_assert(!wvm_backing_store(&backing, 7));
}
END_TEST

START_TEST(a_stored_copy_that_was_written_is_not_asked_about_again)
{
	ck_assert(wvm_backing_home(&backing, 9));
	ck_assert(wvm_backing_store(&backing, 9));
	vm.home[9].flags = WVM_HOME_WRITTEN;
	fill();
	ck_assert(wvm_backing_store(&backing, 9));
	vm.home[9].flags = 0; /* a zero page by now; its room is still there */
	ck_assert(wvm_backing_store(&backing, 9));
}
END_TEST

static unsigned used_pages(void)
{
	struct statfs f;

	ck_assert_int_eq(statfs(dir, &f), 0);
	return (unsigned)(f.f_blocks - f.f_bfree);
}

/* Units are forgotten whole, and leave others' room alone. */
START_TEST(what_is_forgotten_gives_its_room_back_and_is_zeros)
{
	const uint64_t first = WVM_UNIT_PAGES;
	const unsigned tables = WVM_UNIT_PAGES * sizeof(*vm.home) / PAGE;
	unsigned used;

	ck_assert(wvm_backing_home_unit(&backing, first + 7));
	ck_assert(wvm_backing_home(&backing, first - 1) && wvm_backing_held(&backing, first - 1));
	ck_assert(wvm_backing_held(&backing, first) && wvm_backing_store(&backing, first));
	vm.home[first - 1].version = vm.held[first - 1].version = 1;
	vm.home[first].version = vm.home[2 * first - 1].version = vm.held[first].version = 2;
	memset(vm.store + first * PAGE, 1, PAGE);
	used = used_pages();
	wvm_backing_forget(&backing, first, true);
	ck_assert_uint_eq(used_pages(), used - tables - 1);
	wvm_backing_forget(&backing, first, false);
	ck_assert_uint_eq(used_pages(), used - tables - 2);
	ck_assert_uint_eq(vm.home[first - 1].version, 1);
	ck_assert_uint_eq(vm.held[first - 1].version, 1);
	fill();
	ck_assert(!wvm_backing_home(&backing, first));
	ck_assert(!wvm_backing_held(&backing, first));
	ck_assert(!wvm_backing_home_unit(&backing, first));
	make_room(tables + 2);
	ck_assert(wvm_backing_home_unit(&backing, first));
	ck_assert(wvm_backing_held(&backing, first) && wvm_backing_store(&backing, first));
	ck_assert_uint_eq(vm.home[first].version | vm.home[2 * first - 1].version, 0);
	ck_assert_uint_eq(vm.held[first].version | vm.store[first * PAGE], 0);
}
END_TEST

START_TEST(pages_in_order_get_room_by_the_piece_and_a_lone_one_gets_a_page)
{
	unsigned before;

	ck_assert(wvm_backing_home(&backing, 3));
	before = used_pages();
	ck_assert(wvm_backing_store(&backing, 3));
	ck_assert_uint_eq(used_pages(), before + 1);
	ck_assert(wvm_backing_store(&backing, 4));
	ck_assert_uint_eq(used_pages(), before + 13); /* 3, and 4 to 15 */
	fill();
	ck_assert(wvm_backing_store(&backing, 15));
	memset(vm.store + 4 * PAGE, 1, 12 * PAGE);
	ck_assert(!wvm_backing_store(&backing, 16));
}
END_TEST

START_TEST(a_page_gets_room_that_its_whole_piece_has_not)
{
	ck_assert(wvm_backing_home(&backing, 3));
	ck_assert(wvm_backing_store(&backing, 3));
	fill();
	make_room(1);
	ck_assert(wvm_backing_store(&backing, 4));
	memset(vm.store + 4 * PAGE, 1, PAGE);
	ck_assert(!wvm_backing_store(&backing, 5));
}
END_TEST

START_TEST(asking_changes_no_byte)
{
	vm.held[70].version = 42;
	memset(vm.store + 70 * PAGE, 7, PAGE);
	ck_assert(wvm_backing_held(&backing, 70));
	ck_assert(wvm_backing_home(&backing, 70));
	ck_assert(wvm_backing_store(&backing, 70));
	ck_assert_uint_eq(vm.held[70].version, 42);
	for (unsigned i = 0; i < PAGE; i++)
		ck_assert_uint_eq(vm.store[70 * PAGE + i], 7);
	ck_assert_uint_eq(vm.home[70].version, 0);
}
END_TEST

START_TEST(a_whole_mapping_has_room_or_says_why_not)
{
	void *at = map_file("outbox", 8 * PAGE);

	ck_assert_int_eq(wvm_backing_fill(at, 8 * PAGE), 0);
	fill();
	memset(at, 1, 8 * PAGE);
	ck_assert_int_eq(wvm_backing_fill(map_file("more", 8 * PAGE), 8 * PAGE), -ENOSPC);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("backing");
	TCase *t = tcase_create("backing");
	SRunner *runner;
	int failed;

	if (geteuid() != 0) {
		printf("SKIPPED: check_backing: needs root, for a tmpfs of its own\n");
		return 0;
	}
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, what_has_room_keeps_it_and_what_has_none_is_refused);
	tcase_add_test(t, a_stored_copy_that_was_written_is_not_asked_about_again);
	tcase_add_test(t, pages_in_order_get_room_by_the_piece_and_a_lone_one_gets_a_page);
	tcase_add_test(t, a_page_gets_room_that_its_whole_piece_has_not);
	tcase_add_test(t, what_is_forgotten_gives_its_room_back_and_is_zeros);
	tcase_add_test(t, asking_changes_no_byte);
	tcase_add_test(t, a_whole_mapping_has_room_or_says_why_not);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

/* Code areas: what the master takes from a client, what it writes there, and lies. */
#include <pthread.h>
#include <time.h>

#include "roles/master/check/clients_bed.h"
#include "roles/master/code.h"
#include "shared/client_priv.h"
#include "shared/code_area.h"

#define PAGES (1u << 17) /* of the first VM: four pages of bits */

static const struct wvm_ring_header header = {
	.vm_count = 2, .vms = {{.size = PAGES * 4096ull, .vm_id = 5}, {.size = 4096, .vm_id = 9}}};

static int memfd(uint64_t bytes, int seals)
{
	int fd = memfd_create("area", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert(fd >= 0 && !ftruncate(fd, (off_t)bytes) && !fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

/* ---- the area ---------------------------------------------------------------------------- */

/* Both ends of an area in one process. */
struct ends {
	struct wvm_code_layout at;
	struct wvm_code *code;      /* the master's */
	struct wvm_code_area *area; /* the client's */
};

static void open_ends(struct ends *e)
{
	int fd;

	wvm_code_place(&header, &e->at);
	fd = memfd(e->at.bytes, F_SEAL_SHRINK);
	e->area = mmap(NULL, e->at.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert(e->area != MAP_FAILED && !wvm_area_map(&e->code, fd, &header));
	close(fd);
}

static void close_ends(struct ends *e)
{
	wvm_area_unmap(e->code);
	munmap(e->area, e->at.bytes);
}

static uint64_t *bits(struct ends *e, bool closed, unsigned vm)
{
	return (uint64_t *)((char *)e->area + (closed ? e->at.closed : e->at.marked)[vm]);
}

static void mark(struct ends *e, unsigned vm, uint64_t page)
{
	bits(e, false, vm)[page / 64] |= 1ull << page % 64;
}

static bool is_set(struct ends *e, bool closed, unsigned vm, uint64_t page)
{
	return bits(e, closed, vm)[page / 64] >> page % 64 & 1;
}

START_TEST(an_area_that_is_not_what_was_agreed_is_refused)
{
	struct wvm_code_layout at;
	struct wvm_code *code;
	int pipes[2], plain;
	char path[] = "/dev/shm/wvm-area-XXXXXX";

	wvm_code_place(&header, &at);
	ck_assert_uint_eq(at.bytes, WVM_CODE_AREA_BYTES + 2 * 4 * 4096 + 2 * 4096);
	ck_assert(!pipe(pipes));
	plain = mkstemp(path);
	ck_assert(plain >= 0 && !ftruncate(plain, (off_t)at.bytes) && !unlink(path));
	const int bad[] = {memfd(at.bytes, F_SEAL_GROW),
			   memfd(at.bytes - 1, F_SEAL_SHRINK),
			   memfd(at.bytes + 4096, F_SEAL_SHRINK),
			   memfd(0, F_SEAL_SHRINK),
			   memfd(at.bytes, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE),
			   pipes[0],
			   plain,
			   -1};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_msg(wvm_area_map(&code, bad[i], &header) == -EPROTO, "%zu", i);
		if (bad[i] >= 0)
			close(bad[i]);
	}
}
END_TEST

/* Every way in which a range can lie in words of 64. */
START_TEST(exactly_the_marked_pages_of_a_range_are_raised_and_unmarked)
{
	static const uint64_t ranges[][2] = {{0, 1},  {63, 1},   {63, 2},    {64, 64},
					     {1, 62}, {10, 500}, {0, PAGES}, {PAGES - 1, 1}};
	struct ends e;
	uint64_t raised = 0, target;

	open_ends(&e);
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		uint64_t first = ranges[i][0], count = ranges[i][1], n = 0;

		for (uint64_t p = 0; p < PAGES; p++)
			if (p % 3 == 0 || p == first)
				mark(&e, 0, p);
		wvm_area_close(e.code, 0, first);
		ck_assert(wvm_area_marked(e.code, 0, first, count));
		for (uint64_t p = first; p < first + count; p++)
			n += p % 3 == 0 || p == first;
		ck_assert_uint_eq(wvm_area_raise(e.code, 0, first, count, &target), n);
		raised += n;
		ck_assert_uint_eq(target, raised);
		ck_assert_uint_eq(e.area->head, raised);
		for (uint64_t p = 0; p < PAGES; p++)
			ck_assert_int_eq(is_set(&e, false, 0, p),
					 (p < first || p >= first + count) && p % 3 == 0);
		ck_assert(!is_set(&e, true, 0, first));
		ck_assert(!wvm_area_marked(e.code, 0, first, count));
		ck_assert_uint_eq(wvm_area_raise(e.code, 0, first, count, &target), 0);
	}
	close_ends(&e);
}
END_TEST

START_TEST(entries_are_in_order_and_say_which_vm)
{
	struct ends e;
	uint64_t target;

	open_ends(&e);
	mark(&e, 0, 100);
	mark(&e, 0, 70);
	mark(&e, 1, 0);
	ck_assert_uint_eq(wvm_area_raise(e.code, 0, 0, 200, &target), 2);
	ck_assert_uint_eq(wvm_area_raise(e.code, 1, 0, 1, &target), 1);
	ck_assert_uint_eq(e.area->ring[0].what, 70);
	ck_assert_uint_eq(e.area->ring[1].what, 100);
	ck_assert_uint_eq(e.area->ring[2].what, 1ull << WVM_CODE_VM_SHIFT);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(e.area->ring[i].serial, i + 1);
	ck_assert(!wvm_area_told(e.code, target) && !wvm_area_told_all(e.code));
	e.area->told = 2;
	ck_assert(!wvm_area_told(e.code, target) && wvm_area_told(e.code, 2));
	e.area->told = 3;
	ck_assert(wvm_area_told(e.code, target) && wvm_area_told_all(e.code));
	close_ends(&e);
}
END_TEST

/* A client that overwrites everything, all the time. */
static bool scribbling;

static void *scribble(void *arg)
{
	struct ends *e = arg;
	uint64_t *words = (uint64_t *)e->area, x = 88172645463325252u;

	while (GET(scribbling)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		__atomic_store_n(&words[x % (e->at.bytes / 8)], x, __ATOMIC_RELAXED);
		__atomic_store_n(&e->area->head, x, __ATOMIC_RELAXED);
	}
	return NULL;
}

START_TEST(a_client_that_overwrites_its_area_confuses_itself_alone)
{
	uint64_t target, last = 0;
	pthread_t liar;
	struct ends e;

	open_ends(&e);
	__atomic_store_n(&scribbling, true, __ATOMIC_RELEASE);
	ck_assert(!pthread_create(&liar, NULL, scribble, &e));
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t n;

		mark(&e, 0, i);
		n = wvm_area_raise(e.code, 0, i, 512, &target);
		ck_assert_uint_le(n, 512);
		if (!n)
			continue;
		/* Our own count, whatever is there. */
		ck_assert_uint_eq(target, last + n);
		last = target;
		(void)wvm_area_told(e.code, target);
		wvm_area_close(e.code, 1, 0);
		wvm_area_others(e.code, true);
	}
	ck_assert_uint_gt(last, 0);
	__atomic_store_n(&scribbling, false, __ATOMIC_RELEASE);
	pthread_join(liar, NULL);
	close_ends(&e);
}
END_TEST

START_TEST(a_page_that_is_not_marked_costs_next_to_nothing)
{
	struct timespec a, b;
	uint64_t target, n = 0, ns;
	struct ends e;

	open_ends(&e);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
	for (unsigned i = 0; i < 10 * PAGES; i++)
		n += wvm_area_raise(e.code, 0, i % PAGES, 1, &target);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
	ns = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000000u + (uint64_t)b.tv_nsec -
	     (uint64_t)a.tv_nsec;
	printf("  (%.1f ns for a page that is not marked)\n", (double)ns / 10 / PAGES);
	ck_assert_uint_eq(n, 0);
	ck_assert_uint_lt(ns / 10 / PAGES, 500);
	close_ends(&e);
}
END_TEST

/* ---- what a client asks for --------------------------------------------------------------- */

static int64_t say(struct wvm *w, enum wvm_ring_msg type, struct wvm_ring_req req)
{
	return wvm_call(w, type, &req, NULL, BED_WAIT_MS);
}

static int lie_about_areas(void)
{
	const struct wvm_ring_req good = {.vm_id = BED_VM, .len = 4096};
	const struct wvm_ring_req bad[] = {
		{.vm_id = 77, .len = 4096},
		{.vm_id = BED_VM, .len = 8192},
		{.vm_id = BED_VM, .len = 4096, .gpa = 1},
		{.vm_id = BED_VM, .len = 4096, .gpa = BED_BYTES},
		{.vm_id = BED_VM, .len = 0},
	};
	struct wvm_code_layout at;
	struct wvm_ring_header h;
	struct wvm *w;
	int pipes[2], fd;

	NEED(!wvm_attach(&w, stage->text) && !wvm_ring_file_header(w->file, &h) && !pipe(pipes));
	wvm_code_place(&h, &at);
	NEED(say(w, WVM_RING_CODE_MARK, good) == -EINVAL);
	NEED(say(w, WVM_RING_CODE, (struct wvm_ring_req){.addr = 12345}) == -EBADF);
	NEED(say(w, WVM_RING_CODE, (struct wvm_ring_req){.addr = ~0ull}) == -EBADF);
	NEED(say(w, WVM_RING_CODE, (struct wvm_ring_req){.addr = 1ull << 32}) == -EBADF);
	NEED(say(w, WVM_RING_CODE, (struct wvm_ring_req){.addr = (uint64_t)pipes[0]}) == -EPROTO);
	fd = memfd_create("area", MFD_ALLOW_SEALING);
	NEED(!ftruncate(fd, (off_t)at.bytes));
	NEED(say(w, WVM_RING_CODE, (struct wvm_ring_req){.addr = (uint64_t)fd}) == -EPROTO);
	NEED(!fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	NEED(say(w, WVM_RING_CODE, (struct wvm_ring_req){.addr = (uint64_t)fd}) == 0);
	NEED(say(w, WVM_RING_CODE, (struct wvm_ring_req){.addr = (uint64_t)fd}) == -EALREADY);
	NEED(say(w, WVM_RING_CODE_MARK, good) == 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		NEED(say(w, WVM_RING_CODE_MARK, bad[i]) < 0);
	wvm_detach(w);
	return 0;
}

START_TEST(impossible_areas_and_marks_are_answered_with_an_error)
{
	struct wvm_clients_counters c;

	prepare(0, lie_about_areas);
	snprintf(stage->text, sizeof(stage->text), "%s", bed->ring);
	bed_start((unsigned)_i, WVM_MEM_EMPTY);
	begin(0);
	finish(0);
	wvm_clients_counters(bed->clients, &c);
	ck_assert_uint_eq(c.broken, 0);
	bed_stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("code_area");
	TCase *area = tcase_create("area"), *clients = tcase_create("clients");
	SRunner *sr = srunner_create(s);
	int failures;

	tcase_add_test(area, an_area_that_is_not_what_was_agreed_is_refused);
	tcase_add_test(area, exactly_the_marked_pages_of_a_range_are_raised_and_unmarked);
	tcase_add_test(area, entries_are_in_order_and_say_which_vm);
	tcase_add_test(area, a_client_that_overwrites_its_area_confuses_itself_alone);
	tcase_add_test(area, a_page_that_is_not_marked_costs_next_to_nothing);
	tcase_set_timeout(area, 60);
	suite_add_tcase(s, area);
	tcase_add_checked_fixture(clients, setup, teardown);
	tcase_add_loop_test(clients, impossible_areas_and_marks_are_answered_with_an_error, 1,
			    BED_SHARDS + 1);
	tcase_set_timeout(clients, 120);
	suite_add_tcase(s, clients);
	name_files();
	srunner_run_all(sr, CK_ENV);
	remove_files();
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}

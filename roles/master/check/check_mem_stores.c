/* Stores of other processes against protection: none is lost, none comes late. */
#include "roles/master/check/mem_toucher.h"

#define CYCLES 30000u

/* A holder of one page with three clients: two that store all the time, one that reads. */
struct holder {
	char state; /* I, S, M */
	uint64_t image[WVM_PAGE_SIZE / 8];
	uint64_t waiting, writing; /* clients in a fault; of those: to write */
};

static void collect(struct holder *h)
{
	struct pollfd p[3];
	struct uffd_msg m;

	for (unsigned i = 0; i < 3; i++)
		p[i] = (struct pollfd){.fd = t[i].uffd, .events = POLLIN};
	ck_assert_int_ge(poll(p, 3, h->waiting ? 0 : WAIT_MS), h->waiting ? 0 : 1);
	for (unsigned i = 0; i < 3; i++) {
		while (next_event(i, &m)) {
			h->waiting |= 1u << i;
			if (m.arg.pagefault.flags &
			    (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP))
				h->writing |= 1u << i;
		}
	}
}

/* In state S nothing has been written since the image was taken. */
static void check_shared(struct holder *h)
{
	uint64_t now[WVM_PAGE_SIZE / 8];

	if (h->state != 'S')
		return;
	ck_assert_int_eq(wvm_mem_read(vm, 0, now), 0);
	ck_assert_msg(!memcmp(h->image, now, sizeof(now)), "a store into a Shared page");
}

static void grant(struct holder *h)
{
	bool write = h->writing;

	check_shared(h);
	if (h->state == 'I')
		ck_assert_int_eq(wvm_mem_install(vm, 0, h->image, write, h->waiting), 0);
	else if (write)
		ck_assert_int_eq(wvm_mem_lift(vm, 0, h->waiting), 0);
	else
		wvm_mem_wake(vm, 0, h->waiting);
	if (write)
		h->state = 'M';
	else if (h->state == 'I')
		h->state = 'S';
	h->waiting = h->writing = 0;
}

static uint64_t stored(unsigned i)
{
	return __atomic_load_n(&t[i].ctl->stored, __ATOMIC_ACQUIRE);
}

/* Waits until one of the writers has stored, so that cycles are not empty. */
static void let_store(const uint64_t *before)
{
	for (unsigned n = 0; n < 200 && stored(0) == before[0] && stored(1) == before[1]; n++)
		usleep(10);
}

static void take_back(struct holder *h, bool keep)
{
	uint64_t before[2] = {stored(0), stored(1)}, again[WVM_PAGE_SIZE / 8];

	ck_assert_int_eq(wvm_mem_protect(vm, 0), 0);
	ck_assert_int_eq(wvm_mem_read(vm, 0, h->image), 0);
	for (unsigned w = 0; w < 2; w++)
		ck_assert_msg(h->image[w] >= before[w], "a store before the protection is lost");
	ck_assert_int_eq(wvm_mem_read(vm, 0, again), 0);
	ck_assert_msg(!memcmp(h->image, again, sizeof(again)), "a store after the protection");
	h->state = 'S';
	if (keep)
		return;
	ck_assert_int_eq(wvm_mem_punch(vm, 0), 0);
	h->state = 'I';
}

START_TEST(no_store_is_lost_or_late_in_thirty_thousand_cycles)
{
	struct holder h = {.state = 'I'};
	uint64_t last[2] = {0, 0};
	unsigned alive = 3;

	for (unsigned i = 0; i < 3; i++) {
		attach(i);
		tell(i, i < 2 ? HAMMER : WATCH, 0, i, 0);
	}
	for (unsigned cycle = 0; cycle < CYCLES; cycle++) {
		collect(&h);
		grant(&h);
		if (h.state == 'M')
			let_store(last);
		last[0] = stored(0);
		last[1] = stored(1);
		check_shared(&h);
		take_back(&h, cycle % 3 == 0);
	}
	for (unsigned i = 0; i < 3; i++)
		t[i].ctl->stop = true;
	while (alive) {
		bool got = false;

		for (unsigned i = 0; i < 3; i++)
			if (!sem_trywait(&t[i].ctl->done)) {
				ck_assert_msg(!t[i].ctl->result, "client %u saw a word go back", i);
				alive--;
				got = true;
			}
		if (got || !alive)
			continue;
		h.waiting |= 8; /* do not insist on an event */
		collect(&h);
		h.waiting &= ~8ull;
		if (h.waiting)
			grant(&h);
	}
	if (h.state == 'I')
		ck_assert_int_eq(wvm_mem_install(vm, 0, h.image, false, 0), 0);
	for (unsigned w = 0; w < 2; w++) {
		ck_assert_uint_eq(word_of_file(0, w), stored(w));
		ck_assert_uint_gt(stored(w), 0);
	}
	ck_assert_uint_gt(stored(0) + stored(1), CYCLES / 2);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mem_stores");
	TCase *tc = tcase_create("stores");
	SRunner *sr = srunner_create(s);
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, no_store_is_lost_or_late_in_thirty_thousand_cycles);
	tcase_set_timeout(tc, 300);
	suite_add_tcase(s, tc);
	name_file();
	srunner_run_all(sr, CK_ENV);
	unlink(path);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}

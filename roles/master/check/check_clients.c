/* libwavevm and the master's clients together, across processes; loops over one and two shards. */
#include <pthread.h>

#include "roles/master/check/clients_bed.h"

#define ON_GIB (GIB / WVM_PAGE_SIZE) /* pages per shard range */

static int use_both_ranges(void)
{
	struct wvm *w;
	uint64_t pages[] = {0, 1, ON_GIB - 1, ON_GIB, ON_GIB + 1, 2 * ON_GIB, BED_PAGES - 1};
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		NEED(*word(m, pages[i], 5) == (pages[i] % 2 ? pages[i] % BED_STORED : 0));
		*word(m, pages[i], 5) = i + 1000;
		NEED(*word(m, pages[i], 5) == i + 1000);
	}
	NEED(!wvm_unmap(w, m, BED_BYTES));
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		NEED(*word(m, pages[i], 5) == i + 1000);
	NEED(wvm_unmap(w, m, GIB) == -EINVAL);
	wvm_detach(w);
	return 0;
}

static void start(unsigned shards)
{
	for (uint64_t i = 0; i < BED_STORED; i++)
		for (unsigned n = 0; n < WVM_PAGE_SIZE / 8; n++)
			bed->stored[i][n] = i;
	snprintf(stage->text, sizeof(stage->text), "%s", bed->ring);
	bed_start(shards, WVM_MEM_EMPTY);
}

static void expect_counters(unsigned attached, unsigned gone)
{
	struct wvm_clients_counters c;

	do {
		usleep(1000);
		wvm_clients_counters(bed->clients, &c);
	} while (c.gone < gone);
	ck_assert_uint_eq(c.attached, attached);
	ck_assert_uint_eq(c.gone, gone);
	ck_assert_uint_eq(c.refused, 0);
	ck_assert_uint_eq(c.broken, 0);
}

START_TEST(every_range_is_read_and_written_and_mapped_again)
{
	prepare(0, use_both_ranges);
	start((unsigned)_i);
	begin(0);
	finish(0);
	expect_counters(1, 1);
	for (unsigned k = 0; k < (unsigned)_i; k++)
		ck_assert_uint_eq(GET(bed->gone[k]), 1);
	ck_assert_uint_eq(file_word(ON_GIB, 5), 1003);
	bed_stop();
}
END_TEST

/* --- two programs and a holder that takes the page back ------------------------------ */

#define INCREMENTS 20000u

static int increment(void)
{
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, GIB, 16 * WVM_PAGE_SIZE, WVM_STRICT);
	NEED(m);
	for (unsigned i = 0; i < INCREMENTS; i++) {
		__atomic_fetch_add(word(m, 1, 0), 1, __ATOMIC_SEQ_CST);
		if (i % 64 == 0)
			usleep(1);
	}
	__atomic_fetch_add(&stage->counter, 1, __ATOMIC_SEQ_CST);
	wvm_detach(w);
	return 0;
}

static void do_take_back_if_here(uint64_t page)
{
	if (bed->state[page])
		do_take_back(page);
}

START_TEST(increments_of_two_programs_survive_take_backs)
{
	uint64_t page = ON_GIB + 1;
	unsigned cycles = 0;

	prepare(0, increment);
	prepare(1, increment);
	start((unsigned)_i);
	memset(bed->stored[page % BED_STORED], 0, WVM_PAGE_SIZE);
	begin(0);
	begin(1);
	for (; GET(stage->counter) < 2; cycles++) {
		on_shard(wvm_mem_shard(bed->vm, page), do_take_back_if_here, page);
		usleep(50);
	}
	finish(0);
	finish(1);
	on_shard(wvm_mem_shard(bed->vm, page), do_take_back_if_here, page);
	ck_assert_uint_eq(bed->stored[page % BED_STORED][0], 2 * INCREMENTS);
	ck_assert_uint_gt(cycles, 10);
	bed_stop();
}
END_TEST

/* --- a program that comes late ---------------------------------------------------------- */

static int store_early(void)
{
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m);
	for (uint64_t p = 0; p < 10; p++)
		*word(m, p, 0) = 10 + p;
	*word(m, ON_GIB + 3, 0) = 99;
	sem_post(&stage->to_test);
	wait_for(&stage->end);
	wvm_detach(w);
	return 0;
}

static int store_late(void)
{
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m);
	sem_post(&stage->to_test);
	wait_for(&stage->to_client);
	for (uint64_t p = 0; p < 10; p++)
		*word(m, p, 1) = 20 + p;
	*word(m, ON_GIB + 3, 1) = 98;
	sem_post(&stage->to_test);
	wait_for(&stage->end);
	wvm_detach(w);
	return 0;
}

START_TEST(late_attacher_cannot_store_unseen)
{
	prepare(0, store_early);
	prepare(1, store_late);
	start((unsigned)_i);
	begin(0);
	wait_for(&stage->to_test);
	for (uint64_t p = 0; p < 10; p += 2)
		downgrade(p);
	begin(1);
	wait_for(&stage->to_test);
	ck_assert_uint_eq(GET(bed->write_faults[1]), 0);
	sem_post(&stage->to_client);
	wait_for(&stage->to_test);
	/* Shared or Modified: each of its first stores was an event. */
	ck_assert_uint_ge(GET(bed->write_faults[1]), 11);
	for (uint64_t p = 0; p < 10; p++) {
		ck_assert_uint_eq(file_word(p, 0), 10 + p);
		ck_assert_uint_eq(file_word(p, 1), 20 + p);
	}
	ck_assert_uint_eq(file_word(ON_GIB + 3, 1), 98);
	sem_post(&stage->end);
	sem_post(&stage->end);
	finish(0);
	finish(1);
	bed_stop();
}
END_TEST

/* --- deaths --------------------------------------------------------------------------------- */

static int wait_in_a_fault(void)
{
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m);
	*word(m, 1, 0) = 5;
	NEED(!wvm_pin(w, m, WVM_PAGE_SIZE));
	*word(m, ON_GIB + PAGE_SILENT, 0) = 1;
	return 1;
}

START_TEST(killed_client_frees_its_slot_and_leaves_its_pages)
{
	for (unsigned i = 0; i < 3; i++)
		prepare(i, wait_in_a_fault);
	prepare(3, use_both_ranges);
	start((unsigned)_i);
	for (unsigned i = 0; i < 3; i++) {
		begin(i);
		until(GET(bed->silent) == i + 1);
		kill_client(i);
		for (unsigned k = 0; k < (unsigned)_i; k++)
			until(GET(bed->gone[k]) == i + 1);
		until(GET(bed->unanswered_unpins) == i + 1);
		ck_assert_uint_eq(file_word(1, 0), 5);
		take_back(1);
		for (unsigned n = 0; n < WVM_PAGE_SIZE / 8; n++)
			bed->stored[1][n] = 1;
	}
	expect_counters(3, 3);
	begin(3);
	finish(3);
	bed_stop();
}
END_TEST

static int come_and_go(void)
{
	unsigned fds = 0;

	for (unsigned i = 0; i < 200; i++) {
		struct wvm *w;
		void *m;

		NEED(!wvm_attach(&w, stage->text));
		m = wvm_map(w, BED_VM, GIB, GIB, WVM_STRICT);
		NEED(m);
		*word(m, i * 16, 0) = i;
		wvm_detach(w);
		if (!i)
			fds = count_fds();
		NEED(fds == count_fds());
	}
	return 0;
}

START_TEST(two_hundred_attachments_leak_no_descriptor)
{
	unsigned fds;

	prepare(0, come_and_go);
	start((unsigned)_i);
	fds = count_fds();
	begin(0);
	finish(0);
	expect_counters(200, 200);
	until(count_fds() == fds);
	bed_stop();
}
END_TEST

/* Each attachment is a slot and an mm of its own for the master, also within one process. */
static int fill_all_slots(void)
{
	struct wvm *w[WVM_CLIENTS_MAX], *more;
	void *m[WVM_CLIENTS_MAX];

	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++) {
		NEED(!wvm_attach(&w[i], stage->text));
		m[i] = wvm_map(w[i], BED_VM, 0, GIB, WVM_STRICT);
		NEED(m[i]);
		*word(m[i], 4, i) = i;
	}
	NEED(wvm_attach(&more, stage->text) == -EUSERS);
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		for (unsigned n = 0; n < WVM_CLIENTS_MAX; n++)
			NEED(*word(m[i], 4, n) == n);
	wvm_detach(w[17]);
	NEED(!wvm_attach(&w[17], stage->text));
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		wvm_detach(w[i]);
	return 0;
}

START_TEST(sixty_four_clients_share_a_page_and_the_next_is_refused)
{
	prepare(0, fill_all_slots);
	start((unsigned)_i);
	begin(0);
	finish(0);
	expect_counters(WVM_CLIENTS_MAX + 1, WVM_CLIENTS_MAX + 1);
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		ck_assert_uint_ge(GET(bed->write_faults[i]), 1);
	bed_stop();
}
END_TEST

/* --- errors ------------------------------------------------------------------------------------
 */

/* Each call fills the next one, so that nobody writes what is being read. */
static struct seen_error {
	void *addr;
	char text[256];
} seen_errors[16];
static unsigned errors_made, errors_read;
static sem_t error_seen;

static void on_error(void *opaque, void *addr, const char *text)
{
	struct seen_error *e = &seen_errors[errors_made++ % 16];

	e->addr = addr;
	snprintf(e->text, sizeof(e->text), "%s", text);
	sem_post(&error_seen);
}

static const struct seen_error *next_error(void)
{
	wait_for(&error_seen);
	return &seen_errors[errors_read++ % 16];
}

static int be_failed(void)
{
	const struct seen_error *e;
	struct wvm_stats stats;
	struct wvm *w;
	void *m;
	int fd;

	sem_init(&error_seen, 0, 0);
	NEED(!wvm_attach(&w, stage->text));
	wvm_on_error(w, on_error, NULL);
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m);
	for (uint64_t p = PAGE_FAILS; p < BED_PAGES; p += ON_GIB) {
		NEED(read_signal(word(m, p, 0)) == SIGBUS);
		e = next_error();
		NEED(e->addr == (void *)word(m, p, 0));
		NEED(strstr(e->text, "its home did not answer in time"));
		NEED(strstr(e->text, "SIGBUS"));
		NEED(read_signal(word(m, p, 0)) == SIGBUS);
		NEED(!read_signal(word(m, p + 1, 0)));
		NEED(!read_signal(word(m, p - 2, 0)));
	}
	fd = memfd_create("out", MFD_CLOEXEC);
	NEED(write(fd, (void *)word(m, PAGE_FAILS + 16, 0), 10) == -1 && errno == EFAULT);
	NEED(write(fd, (void *)word(m, 3, 0), WVM_PAGE_SIZE) == (ssize_t)WVM_PAGE_SIZE);
	NEED(!wvm_stats(w, &stats));
	NEED(stats.faults_failed == 4 && stats.faults_read >= 4 && !stats.faults_write);
	NEED(stats.pages_homed == 4711);
	wvm_detach(w);
	return 0;
}

START_TEST(failed_page_is_sigbus_and_tells_the_program)
{
	prepare(0, be_failed);
	start((unsigned)_i);
	begin(0);
	finish(0);
	bed_stop();
}
END_TEST

START_TEST(failed_page_is_sigbus_without_uffdio_poison_too)
{
	prepare(0, be_failed);
	start((unsigned)_i);
	wvm_memory_disable_poison(bed->memory);
	begin(0);
	finish(0);
	bed_stop();
}
END_TEST

static bool parked_done;

static void *touch_parked(void *at)
{
	(void)*(volatile uint64_t *)at;
	__atomic_store_n(&parked_done, true, __ATOMIC_RELEASE);
	return NULL;
}

static int be_parked(void)
{
	const struct seen_error *e;
	pthread_t thread;
	struct wvm *w;
	void *m;

	sem_init(&error_seen, 0, 0);
	NEED(!wvm_attach(&w, stage->text));
	wvm_on_error(w, on_error, NULL);
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT | WVM_ERROR_PARK);
	NEED(m);
	NEED(!pthread_create(&thread, NULL, touch_parked, (void *)word(m, PAGE_FAILS, 0)));
	e = next_error();
	NEED(e->addr == (void *)word(m, PAGE_FAILS, 0));
	NEED(strstr(e->text, "stays stopped"));
	NEED(!GET(parked_done));
	NEED(*word(m, 3, 0) == 3); /* the others go on */
	sem_post(&stage->to_test);
	NEED(!pthread_join(thread, NULL)); /* the test serves it after all */
	NEED(parked_done);
	wvm_detach(w);
	return 0;
}

static void do_serve_parked(uint64_t page)
{
	ck_assert_int_eq(wvm_mem_install(bed->vm, page, NULL, false, 1), 0);
	bed->state[page] = 'S';
}

START_TEST(parked_thread_waits_and_the_program_is_told)
{
	prepare(0, be_parked);
	start((unsigned)_i);
	begin(0);
	wait_for(&stage->to_test);
	on_shard(0, do_serve_parked, PAGE_FAILS);
	finish(0);
	bed_stop();
}
END_TEST

/* --- the other calls
 * ------------------------------------------------------------------------------ */

static int map_wrongly(void)
{
	const struct {
		uint16_t vm;
		uint64_t gpa, len;
		unsigned mode;
		int err;
	} cases[] = {
		{BED_VM, 1, 4096, 0, EINVAL},
		{BED_VM, 0, 0, 0, EINVAL},
		{BED_VM, 0, 4095, 0, EINVAL},
		{BED_VM, 0, 4096, 1, EINVAL},
		{BED_VM, 0, 4096, WVM_ERROR_PARK << 1, EINVAL},
		{BED_VM, ~4095ull, 8192, 0, EINVAL},
		{BED_VM + 1, 0, 4096, 0, ENXIO},
		{BED_VM, BED_BYTES, 4096, 0, ERANGE},
		{BED_VM, 65536, BED_BYTES, 0, ERANGE},
		{BED_VM, 8192, 4096, 0, EEXIST},
		{BED_VM, 0, 12288, 0, EEXIST},
	};
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 4096, 8192, WVM_STRICT);
	NEED(m);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		errno = 0;
		NEED(!wvm_map(w, cases[i].vm, cases[i].gpa, cases[i].len, cases[i].mode));
		if (errno != cases[i].err)
			fprintf(stderr, "case %zu: errno %d\n", i, errno);
		NEED(errno == cases[i].err);
	}
	for (unsigned i = 1; i < WVM_RING_MAPS_MAX; i++)
		NEED(wvm_map(w, BED_VM, i * 65536, 4096, WVM_STRICT));
	NEED(!wvm_map(w, BED_VM, GIB, 4096, WVM_STRICT) && errno == ENOSPC);
	NEED(wvm_unmap(w, m, 4096) == -EINVAL);
	NEED(wvm_unmap(w, (char *)m + 4096, 4096) == -EINVAL);
	NEED(!wvm_unmap(w, m, 8192));
	NEED(wvm_unmap(w, m, 8192) == -EINVAL);
	NEED(wvm_map(w, BED_VM, GIB, 4096, WVM_STRICT));
	NEED(wvm_node_id(w) == BED_NODE);
	NEED(wvm_where(w, BED_VM, 2 * GIB) == 102);
	NEED(wvm_where(w, BED_VM, BED_BYTES) == -ERANGE);
	NEED(wvm_where(w, BED_VM + 1, 0) == -ENXIO);
	NEED(wvm_vm_size(w, BED_VM) == (int64_t)BED_BYTES);
	NEED(wvm_vm_size(w, BED_VM + 1) == -ENXIO);
	wvm_detach(w);
	wvm_detach(NULL);
	return 0;
}

START_TEST(wrong_arguments_have_their_errors)
{
	prepare(0, map_wrongly);
	start((unsigned)_i);
	begin(0);
	finish(0);
	expect_counters(1, 1);
	bed_stop();
}
END_TEST

static int pin_things(void)
{
	struct wvm *w;
	uint8_t *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, GIB, WVM_STRICT);
	NEED(m);
	NEED(!wvm_pin(w, m + 100, 4000)); /* two pages */
	NEED(!wvm_pin(w, m, 8192));       /* the same two: nested */
	NEED(!wvm_unpin(w, m + 1, 8000));
	NEED(!wvm_unpin(w, m, 8192));
	NEED(wvm_unpin(w, m, 8192) == -EINVAL);
	NEED(wvm_pin(w, m + PAGE_FAILS * WVM_PAGE_SIZE, 1) == -EIO);
	NEED(wvm_unpin(w, m + PAGE_FAILS * WVM_PAGE_SIZE, 1) == -EINVAL);
	NEED(wvm_pin(w, m, 0) == -EINVAL);
	NEED(wvm_pin(w, m, GIB + 1) == -EINVAL);
	NEED(wvm_pin(w, m - 1, 2) == -EINVAL);
	NEED(wvm_pin(w, m, SIZE_MAX) == -EINVAL);
	NEED(wvm_pin(w, &w, 8) == -EINVAL);
	for (unsigned i = 0; i < 256; i++)
		NEED(!wvm_pin(w, m + i * 65536, 1));
	NEED(wvm_pin(w, m + 256 * 65536, 1) == -EOVERFLOW);
	for (unsigned i = 0; i < 65534; i++)
		NEED(!wvm_pin(w, m, 1));
	NEED(wvm_pin(w, m, 1) == -EOVERFLOW);
	NEED(!wvm_unpin(w, m, 1));
	NEED(!wvm_pin(w, m, 1));
	wvm_detach(w);
	return 0;
}

START_TEST(pins_nest_and_end_with_their_client)
{
	prepare(0, pin_things);
	start((unsigned)_i);
	begin(0);
	finish(0);
	expect_counters(1, 1);
	/* Two pages once, one failed, 256 more; nesting is not the glue's business. */
	ck_assert_uint_eq(GET(bed->pins), 258);
	ck_assert_uint_eq(GET(bed->unpins), 257);
	ck_assert_uint_eq(GET(bed->unanswered_unpins), 256);
	bed_stop();
}
END_TEST

static int die_in_a_pin(void)
{
	struct wvm *w;
	uint8_t *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, GIB, WVM_STRICT);
	NEED(m);
	wvm_pin(w, m + PAGE_SILENT * WVM_PAGE_SIZE, 1);
	return 1;
}

static void do_answer_pin(uint64_t result)
{
	wvm_clients_reply(bed->clients, 0, bed->pin_client, bed->pin_token, (int64_t)result);
	wvm_clients_reply(bed->clients, 0, bed->pin_client, bed->pin_token, 0); /* of no effect */
}

START_TEST(pin_that_is_granted_to_a_dead_client_is_ended)
{
	for (unsigned i = 0; i < 2; i++)
		prepare(i, die_in_a_pin);
	start((unsigned)_i);
	for (unsigned i = 0; i < 2; i++) {
		struct wvm_clients_counters c;

		begin(i);
		until(GET(bed->pins) == i + 1 && GET(bed->pin_token));
		kill_client(i);
		until(GET(bed->gone[0]) == i + 1);
		wvm_clients_counters(bed->clients, &c);
		ck_assert_uint_eq(c.gone, i); /* its slot waits for the answer */
		on_shard(0, do_answer_pin, i ? (uint64_t)-EIO : 0);
		expect_counters(i + 1, i + 1);
		ck_assert_uint_eq(GET(bed->unpins), 1); /* the failed one needs none */
		__atomic_store_n(&bed->pin_token, 0, __ATOMIC_RELEASE);
	}
	bed_stop();
}
END_TEST

static int fork_inside(void)
{
	struct wvm *w;
	void *m;
	int status;
	pid_t pid;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, GIB, WVM_STRICT);
	NEED(m);
	*word(m, 1, 0) = 77;
	pid = fork();
	if (!pid) {
		struct wvm *own;
		void *mine;

		NEED(read_signal(m) == SIGSEGV);
		NEED(!wvm_map(w, BED_VM, GIB, 4096, WVM_STRICT) && errno == ECONNREFUSED);
		NEED(wvm_pin(w, m, 1) == -ECONNREFUSED);
		wvm_detach(w);
		NEED(!wvm_attach(&own, stage->text));
		mine = wvm_map(own, BED_VM, 0, GIB, WVM_STRICT);
		NEED(mine && *word(mine, 1, 0) == 77);
		*word(mine, 1, 0) = 78;
		wvm_detach(own);
		_exit(0);
	}
	NEED(waitpid(pid, &status, 0) == pid && !status);
	NEED(*word(m, 1, 0) == 78);
	NEED(!wvm_unmap(w, m, GIB));
	wvm_detach(w);
	return 0;
}

START_TEST(forked_child_has_no_memory_and_may_attach_itself)
{
#ifdef __SANITIZE_THREAD__
	fprintf(stderr, "skipped: TSan starts no thread after a fork\n");
	return;
#endif
	prepare(0, fork_inside);
	start((unsigned)_i);
	begin(0);
	finish(0);
	expect_counters(2, 2);
	bed_stop();
}
END_TEST

/* --- threads
 * ------------------------------------------------------------------------------------------ */

static struct wvm *shared_client;

static void *many_calls(void *arg)
{
	uintptr_t n = (uintptr_t)arg;

	for (unsigned i = 0; i < 200; i++) {
		uint64_t gpa = n * 128 * WVM_PAGE_SIZE;
		void *m = wvm_map(shared_client, BED_VM, gpa, 128 * WVM_PAGE_SIZE, WVM_STRICT);
		struct wvm_stats s;

		if (!m || wvm_pin(shared_client, m, 4096))
			return (void *)1;
		*word(m, 3, 0) = i;
		if (wvm_stats(shared_client, &s) || wvm_where(shared_client, BED_VM, gpa) != 100 ||
		    wvm_unpin(shared_client, m, 4096) ||
		    wvm_unmap(shared_client, m, 128 * WVM_PAGE_SIZE))
			return (void *)2;
	}
	return NULL;
}

static int call_from_threads(void)
{
	pthread_t thread[8];

	NEED(!wvm_attach(&shared_client, stage->text));
	for (uintptr_t i = 0; i < 8; i++)
		NEED(!pthread_create(&thread[i], NULL, many_calls, (void *)i));
	for (unsigned i = 0; i < 8; i++) {
		void *result;

		NEED(!pthread_join(thread[i], &result));
		NEED(!result);
	}
	wvm_detach(shared_client);
	return 0;
}

START_TEST(threads_of_one_client_call_at_once)
{
	prepare(0, call_from_threads);
	start((unsigned)_i);
	begin(0);
	finish(0);
	expect_counters(1, 1);
	bed_stop();
}
END_TEST

/* --- costs
 * ------------------------------------------------------------------------------------------ */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 0
#elif defined(__has_feature)
#define COUNTS_ALLOCATIONS !(__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define COUNTS_ALLOCATIONS 1
#endif

static unsigned allocations;
static _Thread_local bool counted;

static void do_count(uint64_t on)
{
	counted = on;
}

#if COUNTS_ALLOCATIONS
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

void *malloc(size_t n)
{
	if (counted)
		ADD(allocations);
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t m)
{
	if (counted)
		ADD(allocations);
	return __libc_calloc(n, m);
}

void *realloc(void *p, size_t n)
{
	if (counted)
		ADD(allocations);
	return __libc_realloc(p, n);
}
#endif

static int be_served(void)
{
	struct wvm_stats stats;
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	sem_post(&stage->to_test);
	wait_for(&stage->to_client);
	for (unsigned i = 0; i < 20; i++) {
		m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
		NEED(m);
		for (uint64_t p = 0; p < 50; p++) {
			*word(m, i * 1024 + p * 16, 0) = p;
			NEED(*word(m, ON_GIB + i * 1024 + p * 16, 0) == 0);
		}
		NEED(read_signal(word(m, PAGE_FAILS + i * 16, 0)) == SIGBUS);
		NEED(!wvm_pin(w, m, 8192) && !wvm_unpin(w, m, 8192) && !wvm_stats(w, &stats));
		NEED(!wvm_unmap(w, m, BED_BYTES));
	}
	sem_post(&stage->to_test);
	wait_for(&stage->to_client);
	wvm_detach(w);
	return 0;
}

START_TEST(serving_allocates_nothing)
{
	if (!COUNTS_ALLOCATIONS) {
		fprintf(stderr, "skipped: a sanitizer owns malloc\n");
		return;
	}
	prepare(0, be_served);
	start((unsigned)_i);
	begin(0);
	wait_for(&stage->to_test);
	for (unsigned k = 0; k < (unsigned)_i; k++)
		on_shard(k, do_count, 1);
	free(malloc(1));
	ck_assert_uint_eq(GET(allocations), 0); /* this thread's do not count */
	sem_post(&stage->to_client);
	wait_for(&stage->to_test);
	ck_assert_uint_ge(GET(bed->faults), 2000);
	ck_assert_uint_eq(GET(allocations), 0);
	sem_post(&stage->to_client);
	finish(0);
	bed_stop();
}
END_TEST

/* How often the thread of that name has gone to sleep. */
static long sleeps_of(const char *name)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	long total = -1;

	while ((e = readdir(d)) != NULL) {
		char path[300], line[128], comm[32] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/status", e->d_name);
		f = fopen(path, "re");
		while (f && fgets(line, sizeof(line), f)) {
			sscanf(line, "Name: %31s", comm);
			if (!strcmp(comm, name))
				sscanf(line, "voluntary_ctxt_switches: %ld", &total);
		}
		if (f)
			fclose(f);
	}
	closedir(d);
	return total;
}

static int be_idle(void)
{
	struct wvm *w;
	long before;

	NEED(!wvm_attach(&w, stage->text));
	NEED(wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT));
	usleep(100000);
	before = sleeps_of("wvm-helper");
	sem_post(&stage->to_test);
	wait_for(&stage->to_client);
	NEED(before > 0 && sleeps_of("wvm-helper") == before);
	wvm_detach(w);
	return 0;
}

START_TEST(idle_client_and_its_master_sleep)
{
	uint64_t before[BED_SHARDS];

	prepare(0, be_idle);
	start((unsigned)_i);
	begin(0);
	wait_for(&stage->to_test);
	usleep(100000);
	for (unsigned k = 0; k < (unsigned)_i; k++)
		before[k] = GET(bed->shard[k]->stats.turns);
	usleep(300000);
	for (unsigned k = 0; k < (unsigned)_i; k++)
		ck_assert_uint_eq(GET(bed->shard[k]->stats.turns), before[k]);
	sem_post(&stage->to_client);
	finish(0);
	bed_stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("clients");
	TCase *tc = tcase_create("clients");
	SRunner *sr = srunner_create(s);
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
#define EACH(name) tcase_add_loop_test(tc, name, 1, BED_SHARDS + 1)
	EACH(every_range_is_read_and_written_and_mapped_again);
	EACH(increments_of_two_programs_survive_take_backs);
	EACH(late_attacher_cannot_store_unseen);
	EACH(killed_client_frees_its_slot_and_leaves_its_pages);
	EACH(two_hundred_attachments_leak_no_descriptor);
	EACH(sixty_four_clients_share_a_page_and_the_next_is_refused);
	EACH(failed_page_is_sigbus_and_tells_the_program);
	EACH(failed_page_is_sigbus_without_uffdio_poison_too);
	EACH(parked_thread_waits_and_the_program_is_told);
	EACH(wrong_arguments_have_their_errors);
	EACH(pins_nest_and_end_with_their_client);
	EACH(pin_that_is_granted_to_a_dead_client_is_ended);
	EACH(forked_child_has_no_memory_and_may_attach_itself);
	EACH(threads_of_one_client_call_at_once);
	EACH(serving_allocates_nothing);
	EACH(idle_client_and_its_master_sleep);
#undef EACH
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	name_files();
	srunner_run_all(sr, CK_ENV);
	remove_files();
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}

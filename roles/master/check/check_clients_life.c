/* Ends and beginnings of masters: ring files left behind, clients left alone or taken over. */
#include <pthread.h>
#include <sys/syscall.h>

#include "roles/master/check/clients_bed.h"

#define NEXT 3u /* client_pid index of the second master; the first one's is 2 */

/* A master in a process of its own, so that it can be killed. */
struct desk {
	sem_t order, done;
	enum { TAKE_BACK, PEEK, AWAITED, END } what;
	uint64_t page, result;
	int pid; /* of one that is awaited */
	unsigned shards;
	enum wvm_mem_open_how how;
};
static struct desk *desk;

/* When all are back, this master has nothing more to take over. */
static void do_count_awaited(uint64_t unused)
{
	desk->pid = 0;
	desk->result = wvm_clients_awaited(bed->clients, &desk->pid);
	if (!desk->result)
		wvm_clients_adopted(bed->clients);
}

static int be_master(void)
{
	bed_start(desk->shards, desk->how);
	sem_post(&desk->done);
	for (;;) {
		wait_for(&desk->order);
		switch (desk->what) {
		case TAKE_BACK: take_back(desk->page); break;
		case PEEK: desk->result = file_word(desk->page, 0); break;
		case AWAITED: on_shard(0, do_count_awaited, 0); break;
		case END:
			bed_stop();
			sem_post(&desk->done);
			return 0;
		}
		sem_post(&desk->done);
	}
}

static void order(unsigned what, uint64_t page)
{
	desk->what = what;
	desk->page = page;
	sem_post(&desk->order);
	wait_for(&desk->done);
}

static void start_master(unsigned i, unsigned shards, enum wvm_mem_open_how how)
{
	desk->shards = shards;
	desk->how = how;
	prepare(i, be_master);
	begin(i);
	wait_for(&desk->done);
}

static void setup_desk(void)
{
	setup();
	desk = shared_zeros(sizeof(*desk));
	sem_init(&desk->order, 1, 0);
	sem_init(&desk->done, 1, 0);
	snprintf(stage->text, sizeof(stage->text), "%s", bed->ring);
}

/* --- the ring file ---------------------------------------------------------------- */

static int attach_and_write(void)
{
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m);
	*word(m, 1, 0) = stage->value;
	wvm_detach(w);
	return 0;
}

START_TEST(ring_file_of_a_killed_master_is_used_again)
{
	start_master(2, 1, WVM_MEM_EMPTY);
	kill_client(2);
	ck_assert(!access(bed->ring, F_OK));
	bed->boot_id++;
	memset(bed->state, 0, sizeof(bed->state));
	start_master(2, 2, WVM_MEM_EMPTY);
	stage->value = 5;
	prepare(0, attach_and_write);
	begin(0);
	finish(0);
	order(PEEK, 1);
	ck_assert_uint_eq(desk->result, 5);
	order(END, 0);
	finish(2);
	ck_assert_msg(access(bed->ring, F_OK) && access(bed->ram, F_OK),
		      "a clean end removes both");
}
END_TEST

static int attach_to_nobody(void)
{
	struct wvm *w;

	NEED(wvm_attach(&w, stage->text) == -ECONNREFUSED);
	NEED(strstr(wvm_attach_error(), "gone"));
	NEED(wvm_attach(&w, "/dev/shm/no/such") == -ENOENT);
	NEED(wvm_attach(&w, "/etc/passwd") == -EPROTO);
	NEED(wvm_attach(&w, "/dev/shm") == -EPROTO);
	unsetenv("WVM_RING_PATH");
	unsetenv("WVM_ENV_SOCK_PATH");
	NEED(wvm_attach(&w, NULL) == -EINVAL);
	setenv("WVM_ENV_SOCK_PATH", stage->text, 1);
	NEED(wvm_attach(&w, NULL) == -ECONNREFUSED);
	setenv("WVM_RING_PATH", "/etc/passwd", 1);
	NEED(wvm_attach(&w, NULL) == -EPROTO);
	return 0;
}

START_TEST(attaching_without_a_master_says_why)
{
	start_master(2, 1, WVM_MEM_EMPTY);
	kill_client(2);
	prepare(0, attach_to_nobody);
	begin(0);
	finish(0);
}
END_TEST

/* Opens only the ring file; the RAM file is another. */
static int try_open(const char *path)
{
	struct wvm_clients_conf conf = {
		.path = path, .boot_id = 99, .shards = bed->shard, .ops = &bed_ops};
	struct wvm_shard_opts o = {.name = "bed"};
	struct wvm_memory *memory;
	struct wvm_clients *c;
	struct wvm_mem *vm;
	char ram[80];
	int ret;

	snprintf(ram, sizeof(ram), "%s.2", bed->ram);
	ck_assert_int_eq(wvm_shard_create(&bed->shard[0], &o, bed->text, sizeof(bed->text)), 0);
	ck_assert_int_eq(wvm_memory_new(&memory, 1, NULL, NULL), 0);
	ck_assert_int_eq(wvm_mem_open(memory, &vm, 1, ram, 4096, WVM_MEM_EMPTY, bed->text,
				      sizeof(bed->text)),
			 0);
	conf.memory = memory;
	bed->text[0] = '\0';
	ret = wvm_clients_open(&c, &conf, bed->text, sizeof(bed->text));
	if (!ret)
		wvm_clients_close(c, true);
	else
		ck_assert_msg(bed->text[0] && !strchr(bed->text, '\n'),
			      "one line for the operator");
	wvm_mem_unlink(vm);
	wvm_memory_free(memory);
	wvm_shard_destroy(bed->shard[0]);
	return ret;
}

START_TEST(second_master_is_refused_and_told_who_has_it)
{
	char pid[32];

	start_master(2, 1, WVM_MEM_EMPTY);
	ck_assert_int_eq(try_open(bed->ring), -EADDRINUSE);
	snprintf(pid, sizeof(pid), "pid %d", (int)client_pid[2]);
	ck_assert_msg(strstr(bed->text, pid), "%s", bed->text);
	stage->value = 6;
	prepare(0, attach_and_write); /* the first one goes on */
	begin(0);
	finish(0);
	kill_client(2);
	ck_assert_int_eq(try_open(bed->ring), 0);
}
END_TEST

START_TEST(foreign_files_are_not_taken_for_ring_files)
{
	struct wvm_ring_header h = {.magic = WVM_RING_MAGIC, .layout = WVM_RING_LAYOUT + 1};
	struct stat st;
	int fd = open(bed->ring, O_RDWR | O_CREAT, 0600);

	ck_assert_int_eq(write(fd, "hello", 5), 5);
	ck_assert_int_eq(try_open(bed->ring), -EPROTO);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, 5);
	ck_assert_int_eq(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	ck_assert_int_eq(try_open(bed->ring), -EPROTO);
	ck_assert_msg(strstr(bed->text, "layout"), "%s", bed->text);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	close(fd);
	ck_assert_int_eq(try_open(bed->ring), 0); /* an empty file is nobody's */
	ck_assert_int_eq(symlink("/dev/shm/elsewhere", bed->ring), 0);
	ck_assert_int_eq(try_open(bed->ring), -ELOOP);
	ck_assert_int_eq(try_open("/dev/shm"), -EISDIR);
	ck_assert_int_eq(try_open("/dev/null"), -EPROTO);
}
END_TEST

/* --- clients whose master ends --------------------------------------------------------- */

static sem_t error_seen;
static void *error_addr = (void *)1;

static void on_error(void *opaque, void *addr, const char *text)
{
	error_addr = addr;
	sem_post(&error_seen);
}

static volatile bool touched;

static void *touch(void *at)
{
	uint64_t seen = *(volatile uint64_t *)at;

	__atomic_store_n(&stage->counter, seen + 1, __ATOMIC_RELEASE);
	touched = true;
	return NULL;
}

/* Holds pages, has a thread in a fault, and loses its master. */
static int lose_the_master(void)
{
	struct wvm_stats stats;
	pthread_t thread;
	struct wvm *w, *other;
	void *m;

	sem_init(&error_seen, 0, 0);
	NEED(!wvm_attach(&w, stage->text));
	wvm_on_error(w, on_error, NULL);
	m = wvm_map(w, BED_VM, 0, GIB, WVM_STRICT);
	NEED(m);
	*word(m, 1, 0) = 1;
	NEED(!pthread_create(&thread, NULL, touch, (void *)word(m, PAGE_SILENT, 0)));
	NEED(!wvm_stats(w, &stats) && stats.pages_homed == 4711);
	sem_post(&stage->to_test);
	wait_for(&error_seen);
	NEED(!error_addr);
	NEED(!wvm_map(w, BED_VM, 2 * GIB, 4096, WVM_STRICT) && errno == ECONNREFUSED);
	NEED(wvm_pin(w, m, 1) == -ECONNREFUSED);
	stats.pages_homed = 0;
	NEED(wvm_stats(w, &stats) == -ECONNREFUSED && stats.pages_homed == 4711);
	NEED(wvm_vm_size(w, BED_VM) == -ECONNREFUSED);
	NEED(wvm_attach(&other, stage->text) == -ECONNREFUSED);
	sem_post(&stage->to_test);
	wait_for(&stage->to_client);
	/* Whatever came after: this client was not taken over, and no zero was read. */
	NEED(!touched);
	NEED(wvm_stats(w, &stats) == -ECONNREFUSED);
	return 0; /* with a thread in an access that never ends */
}

START_TEST(master_that_starts_afresh_leaves_old_clients_waiting)
{
	prepare(0, lose_the_master);
	start_master(2, (unsigned)_i, WVM_MEM_EMPTY);
	begin(0);
	wait_for(&stage->to_test);
	until(GET(bed->silent) == 1);
	kill_client(2);
	wait_for(&stage->to_test);
	bed->boot_id++;
	memset(bed->state, 0, sizeof(bed->state));
	start_master(NEXT, (unsigned)_i, WVM_MEM_EMPTY);
	order(AWAITED, 0);
	ck_assert_uint_eq(desk->result, 1);
	stage->value = 7;
	prepare(1, attach_and_write);
	begin(1);
	finish(1);
	sem_post(&stage->to_client);
	finish(0);
	order(END, 0);
	finish(NEXT);
}
END_TEST

/* Goes on through its master's death as if nothing had been. */
static int live_on(void)
{
	pthread_t thread;
	struct wvm *w;
	void *m;

	sem_init(&error_seen, 0, 0);
	NEED(!wvm_attach(&w, stage->text));
	wvm_on_error(w, on_error, NULL);
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m);
	for (uint64_t p = 1; p < 12; p++)
		*word(m, p, 0) = p * 100;
	NEED(!pthread_create(&thread, NULL, touch, (void *)word(m, PAGE_SILENT, 0)));
	sem_post(&stage->to_test);
	wait_for(&error_seen);
	*word(m, 1, 0) += 5; /* what it holds it keeps */
	sem_post(&stage->to_test);
	/* These fault with nobody there, and are served by the next master. */
	NEED(*word(m, 20, 0) == 0);
	NEED(*word(m, GIB / WVM_PAGE_SIZE, 0) == 0);
	NEED(!pthread_join(thread, NULL) && touched);
	for (uint64_t p = 1; p < 12; p++)
		NEED(*word(m, p, 0) == p * 100 + (p == 1 ? 5 : 0));
	NEED(!wvm_pin(w, m, 4096));
	sem_post(&stage->to_test);
	wait_for(&stage->to_client);
	*word(m, 1, 0) += 1; /* taken back meanwhile: an event for the new master */
	NEED(*word(m, 1, 0) == 106);
	NEED(wvm_map(w, BED_VM, 0, 4096, WVM_STRICT) == NULL && errno == EEXIST);
	NEED(!wvm_unmap(w, m, BED_BYTES));
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m && *word(m, 1, 0) == 106);
	wvm_detach(w);
	return 0;
}

static void await_clients(void)
{
	do {
		order(AWAITED, 0);
		ck_assert_int_eq(desk->pid, desk->result ? client_pid[0] : 0);
	} while (desk->result);
}

START_TEST(master_that_takes_the_pages_over_takes_the_clients_too)
{
	unsigned lives = 3;

	prepare(0, live_on);
	start_master(2, (unsigned)_i, WVM_MEM_EMPTY);
	begin(0);
	wait_for(&stage->to_test);
	until(GET(bed->silent) == 1);
	kill_client(2);
	wait_for(&stage->to_test);
	bed->serve_silent = true;
	/* Killed again and again before it is ready, or right after. */
	while (lives--) {
		bed->adopts[2 - lives] = bed->boot_id++;
		start_master(NEXT, (unsigned)_i, WVM_MEM_ADOPT);
		if (lives == 2) {
			await_clients();
			wait_for(&stage->to_test);
			order(TAKE_BACK, 1);
			ck_assert_uint_eq(bed->stored[1][0], 105);
		}
		if (lives)
			kill_client(NEXT);
	}
	await_clients();
	sem_post(&stage->to_client);
	finish(0);
	order(END, 0);
	finish(NEXT);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("clients_life");
	TCase *tc = tcase_create("life");
	SRunner *sr = srunner_create(s);
	int failures;

	tcase_add_checked_fixture(tc, setup_desk, teardown);
	tcase_add_test(tc, ring_file_of_a_killed_master_is_used_again);
	tcase_add_test(tc, attaching_without_a_master_says_why);
	tcase_add_test(tc, second_master_is_refused_and_told_who_has_it);
	tcase_add_test(tc, foreign_files_are_not_taken_for_ring_files);
	tcase_add_loop_test(tc, master_that_starts_afresh_leaves_old_clients_waiting, 1,
			    BED_SHARDS + 1);
	tcase_add_loop_test(tc, master_that_takes_the_pages_over_takes_the_clients_too, 1,
			    BED_SHARDS + 1);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	name_files();
	srunner_run_all(sr, CK_ENV);
	remove_files();
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}

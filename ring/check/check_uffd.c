#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "ring/check/support.h"
#include "ring/pidwatch.h"
#include "ring/uffd.h"

#define PAGE  4096UL
#define PAGES 256

/*
 * The client is another process: it maps a file in memory, registers it, tells address and
 * descriptor, and touches pages as told by `work`. The shard here serves it.
 */
struct shared {
	uint32_t ready, go, done;
	uint64_t base;
	int uffd;
	unsigned wrong; /* pages with other contents than expected */
	unsigned sigbus;
};

static struct shared *sh;
static struct wvm_shard *shard;
static struct wvm_uffd uffd;
static pid_t client;
static int pidfd, memfd;
static uint8_t page[PAGE] __attribute__((aligned(4096)));
static unsigned faults, write_faults;
static uint32_t closed;
static int failed_with;

static int make_uffd(void *mem, uint64_t modes)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					     UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
					     UFFD_FEATURE_MISSING_SHMEM};
	struct uffdio_register reg = {.range = {(uintptr_t)mem, PAGES * PAGE}, .mode = modes};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		_exit(77);
	return fd;
}

static void run_client(void (*work)(volatile uint8_t *mem))
{
	uint8_t *mem = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sh->base = (uintptr_t)mem;
	sh->uffd = make_uffd(mem, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
	__atomic_store_n(&sh->ready, 1, __ATOMIC_RELEASE);
	if (!wait_for(&sh->go))
		_exit(1);
	work(mem);
	__atomic_store_n(&sh->done, 1, __ATOMIC_RELEASE);
	_exit(0);
}

static void start_client(void (*work)(volatile uint8_t *mem))
{
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memfd = memfd_create("check", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(memfd, PAGES * PAGE), 0);
	client = fork();
	if (!client)
		run_client(work);
	ck_assert(wait_for(&sh->ready));
	pidfd = wvm_pidfd_open(client);
	ck_assert_int_ge(pidfd, 0);
}

static void events(struct wvm_uffd *u, const struct uffd_msg *msgs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t addr = msgs[i].arg.pagefault.address & ~(PAGE - 1);
		uint64_t flags = msgs[i].arg.pagefault.flags;
		int err;

		if (msgs[i].event != UFFD_EVENT_PAGEFAULT)
			ck_abort_msg("event %u", msgs[i].event);
		if (flags & UFFD_PAGEFAULT_FLAG_WP) {
			write_faults++;
			err = wvm_uffd_protect(u, addr, PAGE, false, 0);
		} else {
			faults++;
			memset(page, (int)((addr - sh->base) / PAGE), PAGE);
			err = wvm_uffd_copy(u, addr, page, PAGE, WVM_UFFD_WP, NULL);
			if (err == -EEXIST)
				err = wvm_uffd_wake(u, addr, PAGE);
		}
		if (err)
			ck_abort_msg("answering a fault: %s", strerror(-err));
	}
}

static void failed(struct wvm_uffd *u, int err)
{
	failed_with = err;
}

static void on_closed(struct wvm_uffd *u)
{
	closed++;
	memset(u, 0xee, sizeof(*u)); /* whoever still refers to it crashes */
}

static const struct wvm_uffd_ops ops = {.events = events, .failed = failed, .closed = on_closed};

static struct wvm_pidwatch watch;
static uint32_t died, watch_closed;

static void on_died(struct wvm_pidwatch *w)
{
	died++;
	wvm_shard_stop(shard);
}

static void on_watch_closed(struct wvm_pidwatch *w)
{
	watch_closed++;
	memset(w, 0xee, sizeof(*w));
}

static void open_shard(bool multishot)
{
	struct wvm_kernel kernel;
	char why[256];

	ck_assert_int_eq(wvm_kernel_probe(&kernel, why, sizeof(why)), 0);
	ck_assert(kernel.read_multishot && kernel.uffd);
	kernel.read_multishot = multishot;
	shard = make_shard(&(struct wvm_shard_opts){.kernel = &kernel, .uffd_bufs = 2});
	ck_assert_int_eq(wvm_uffd_open(&uffd, shard, wvm_pidfd_getfd(pidfd, sh->uffd), &ops, NULL),
			 0);
	watch = (struct wvm_pidwatch){.died = on_died, .closed = on_watch_closed};
	ck_assert_int_eq(wvm_pidwatch_open(&watch, shard, pidfd), 0);
}

static void serve(void)
{
	__atomic_store_n(&sh->go, 1, __ATOMIC_RELEASE);
	run_to_stop(shard);
	ck_assert_uint_eq(died, 1);
}

static int exit_status(void)
{
	int status;

	ck_assert_int_eq(waitpid(client, &status, 0), client);
	return status;
}

static void finish(void)
{
	wvm_shard_destroy(shard);
	close(memfd);
	munmap(sh, sizeof(*sh));
}

/* Reading. */

static void *touch_slice(void *arg)
{
	volatile uint8_t *mem = (volatile uint8_t *)(uintptr_t)sh->base;

	for (uintptr_t i = (uintptr_t)arg; i < PAGES; i += 4) {
		if (mem[i * PAGE + 5] != (uint8_t)i)
			__atomic_fetch_add(&sh->wrong, 1, __ATOMIC_RELAXED);
		mem[i * PAGE + 6] = 1;
		if (mem[i * PAGE + 6] != 1 || mem[i * PAGE + 5] != (uint8_t)i)
			__atomic_fetch_add(&sh->wrong, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void touch_all(volatile uint8_t *mem)
{
	pthread_t t[4];

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, touch_slice, (void *)i);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
}

START_TEST(missing_and_write_faults_of_another_process_are_served)
{
	start_client(touch_all);
	open_shard(_i == 0);
	serve();
	/* This kernel waits for a nonblocking userfaultfd, so it never fell back. */
	ck_assert_int_eq(uffd.multishot, _i == 0);
	ck_assert_int_eq(exit_status(), 0);
	ck_assert_uint_eq(sh->wrong, 0);
	ck_assert_uint_ge(faults, PAGES);
	ck_assert_uint_ge(write_faults, PAGES);
	ck_assert_uint_eq(shard->stats.uffd_events, faults + write_faults);
	ck_assert_int_eq(failed_with, 0);
	finish();
}
END_TEST

/* Dying and closing. */

static void hang_in_a_fault(volatile uint8_t *mem)
{
	(void)mem[0];
}

static void kill_client(struct wvm_timer *t, uint64_t now_ns)
{
	kill(client, SIGKILL);
}

static void ignore_events(struct wvm_uffd *u, const struct uffd_msg *msgs, unsigned n)
{
	faults += n;
}

static const struct wvm_uffd_ops deaf = {.events = ignore_events, .closed = on_closed};

START_TEST(the_death_of_a_faulting_process_is_noticed_and_its_ioctls_say_esrch)
{
	struct wvm_timer t = {.fire = kill_client};
	size_t done = 77;

	start_client(hang_in_a_fault);
	open_shard(_i == 0);
	uffd.ops = &deaf;
	wvm_shard_arm_at(shard, &t, wvm_now_ns() + 50000000);
	serve();
	ck_assert_uint_eq(faults, 1);
	ck_assert_int_eq(WTERMSIG(exit_status()), SIGKILL);
	ck_assert_int_eq(wvm_uffd_copy(&uffd, sh->base, page, PAGE, 0, &done), -ESRCH);
	ck_assert_uint_eq(done, 0);
	ck_assert_int_eq(wvm_uffd_protect(&uffd, sh->base, PAGE, true, 0), -ESRCH);
	finish();
}
END_TEST

static void close_both(struct wvm_timer *t, uint64_t now_ns)
{
	wvm_uffd_close(&uffd);
	wvm_uffd_close(&uffd);
	wvm_pidwatch_close(&watch);
}

static void stop_now(struct wvm_timer *t, uint64_t now_ns)
{
	wvm_shard_stop(shard);
}

START_TEST(closing_while_the_read_is_armed_ends_it_before_the_memory_goes)
{
	struct wvm_timer close_timer = {.fire = close_both}, end = {.fire = stop_now};
	unsigned slots;

	start_client(hang_in_a_fault);
	open_shard(_i == 0);
	slots = shard->free_file_count;
	wvm_shard_arm_at(shard, &close_timer, wvm_now_ns() + 20000000);
	wvm_shard_arm_at(shard, &end, wvm_now_ns() + 60000000);
	run_to_stop(shard);
	ck_assert_uint_eq(closed, 1);
	ck_assert_uint_eq(watch_closed, 1);
	ck_assert_uint_eq(died, 0);
	ck_assert_uint_eq(shard->free_file_count, slots + 1);
	kill(client, SIGKILL);
	exit_status();
	finish();
}
END_TEST

static void close_in_event(struct wvm_uffd *u, const struct uffd_msg *msgs, unsigned n)
{
	wvm_uffd_close(u);
	kill(client, SIGKILL);
}

static const struct wvm_uffd_ops suicidal = {.events = close_in_event, .closed = on_closed};

START_TEST(an_event_may_close_its_own_userfaultfd)
{
	start_client(hang_in_a_fault);
	open_shard(_i == 0);
	uffd.ops = &suicidal;
	serve();
	/* closed() runs in the loop, at the latest while it ends. */
	ck_assert_uint_eq(closed, 1);
	exit_status();
	finish();
}
END_TEST

START_TEST(a_process_that_is_dead_already_is_reported_too)
{
	start_client(hang_in_a_fault);
	kill(client, SIGKILL);
	exit_status();
	shard = make_shard(NULL);
	watch = (struct wvm_pidwatch){.died = on_died};
	ck_assert_int_eq(wvm_pidwatch_open(&watch, shard, pidfd), 0);
	run_to_stop(shard);
	ck_assert_uint_eq(died, 1);
	ck_assert_uint_eq(shard->stats.deaths, 1);
	ck_assert_int_eq(wvm_pidfd_open(client), -ESRCH);
	finish();
}
END_TEST

/* A descriptor that is no userfaultfd in working order. */
START_TEST(a_broken_descriptor_is_reported_and_not_read_for_ever)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct wvm_timer end = {.fire = stop_now};

	shard = make_shard(NULL);
	shard->kernel.read_multishot = _i == 0;
	ck_assert_int_eq(wvm_uffd_open(&uffd, shard, fd, &ops, NULL), 0);
	wvm_shard_arm_at(shard, &end, wvm_now_ns() + 100000000);
	run_to_stop(shard);
	ck_assert_int_lt(failed_with, 0);
	ck_assert_uint_le(shard->stats.turns, 20);
	ck_assert_int_eq(wvm_uffd_open(&uffd, shard, -1, &ops, NULL), -EBADF);
	wvm_shard_destroy(shard);
	close(fd);
}
END_TEST

/* The ioctls' results. */

START_TEST(the_ioctls_report_as_documented)
{
	static uint8_t two[2 * PAGE] __attribute__((aligned(4096)));
	size_t done;

	start_client(hang_in_a_fault);
	open_shard(true);
	ck_assert_int_eq(wvm_uffd_copy(&uffd, sh->base + PAGE, page, PAGE, 0, &done), 0);
	ck_assert_uint_eq(done, PAGE);
	ck_assert_int_eq(wvm_uffd_copy(&uffd, sh->base + PAGE, page, PAGE, 0, &done), -EEXIST);
	ck_assert_uint_eq(done, 0);
	/* The first page fits, the second is there: what was done is told. */
	ck_assert_int_eq(wvm_uffd_copy(&uffd, sh->base, two, 2 * PAGE, 0, &done), -EEXIST);
	ck_assert_uint_eq(done, PAGE);
	ck_assert_int_eq(wvm_uffd_copy(&uffd, sh->base + 1, page, PAGE, 0, NULL), -EINVAL);
	ck_assert_int_eq(wvm_uffd_copy(&uffd, sh->base - (PAGES + 16) * PAGE, page, PAGE, 0, NULL),
			 -ENOENT);
	ck_assert_int_eq(wvm_uffd_protect(&uffd, sh->base, 2 * PAGE, true, 0), 0);
	ck_assert_int_eq(wvm_uffd_protect(&uffd, sh->base, 2 * PAGE, false, WVM_UFFD_DONTWAKE), 0);
	ck_assert_int_eq(wvm_uffd_protect(&uffd, sh->base - (PAGES + 16) * PAGE, PAGE, true, 0),
			 -ENOENT);
	ck_assert_int_eq(wvm_uffd_wake(&uffd, sh->base, PAGE), 0);
	ck_assert_int_eq(wvm_uffd_poison(&uffd, sh->base + 3 * PAGE, PAGE), 0);
	ck_assert_int_eq(wvm_uffd_poison(&uffd, sh->base + 3 * PAGE, PAGE), -EEXIST);
	/* Nothing registered for minor faults, hence no CONTINUE. */
	ck_assert_int_lt(wvm_uffd_continue(&uffd, sh->base, PAGE, 0, NULL), 0);
	shard->kernel.uffd_features = 0;
	ck_assert_int_eq(wvm_uffd_poison(&uffd, sh->base + 4 * PAGE, PAGE), -ENOTSUP);
	kill(client, SIGKILL);
	exit_status();
	finish();
}
END_TEST

static sigjmp_buf back;

static void on_sigbus(int sig)
{
	siglongjmp(back, 1);
}

static void touch_poison(volatile uint8_t *mem)
{
	signal(SIGBUS, on_sigbus);
	if (!sigsetjmp(back, 1))
		(void)mem[7 * PAGE];
	else
		sh->sigbus++;
}

static void poison(struct wvm_uffd *u, const struct uffd_msg *msgs, unsigned n)
{
	ck_assert_int_eq(wvm_uffd_poison(u, msgs->arg.pagefault.address & ~(PAGE - 1), PAGE), 0);
}

static const struct wvm_uffd_ops poisoner = {.events = poison};

START_TEST(a_poisoned_page_gives_sigbus_to_who_waits_for_it)
{
	start_client(touch_poison);
	open_shard(true);
	uffd.ops = &poisoner;
	serve();
	ck_assert_int_eq(exit_status(), 0);
	ck_assert_uint_eq(sh->sigbus, 1);
	finish();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/uffd");
	TCase *c = tcase_create("uffd");
	struct wvm_kernel kernel;
	char why[256];

	if (wvm_kernel_probe(&kernel, why, sizeof(why)) || !kernel.uffd) {
		printf("ring/uffd: skipped, userfaultfd is not permitted to this user\n");
		return EXIT_SUCCESS;
	}
	tcase_set_timeout(c, 60);
	tcase_add_loop_test(c, missing_and_write_faults_of_another_process_are_served, 0, 2);
	tcase_add_loop_test(c, the_death_of_a_faulting_process_is_noticed_and_its_ioctls_say_esrch,
			    0, 2);
	tcase_add_loop_test(c, closing_while_the_read_is_armed_ends_it_before_the_memory_goes, 0,
			    2);
	tcase_add_loop_test(c, an_event_may_close_its_own_userfaultfd, 0, 2);
	tcase_add_test(c, a_process_that_is_dead_already_is_reported_too);
	tcase_add_loop_test(c, a_broken_descriptor_is_reported_and_not_read_for_ever, 0, 2);
	tcase_add_test(c, the_ioctls_report_as_documented);
	tcase_add_test(c, a_poisoned_page_gives_sigbus_to_who_waits_for_it);
	suite_add_tcase(s, c);
	return run_suite(s);
}

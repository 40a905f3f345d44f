/*
 * For the tests of mem.c: processes that touch pages of a RAM file when told
 * to, and the test's own view of their faults. The test is the holder.
 */
#ifndef WVM_CHECK_MEM_TOUCHER_H
#define WVM_CHECK_MEM_TOUCHER_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/master/mem.h"
#include "shared/client_ring.h"

/* Not every test program needs every helper. */
#pragma GCC diagnostic ignored "-Wunused-function"

#define PAGES    64u
#define VM_BYTES ((uint64_t)PAGES * WVM_PAGE_SIZE)
#define VM_ID    3u
#define WAIT_MS  20000 /* a watchdog, not a measurement */

enum command { READ, WRITE, UNMAP, HAMMER, WATCH, SYSCALL_READ, EXIT };

/* Shared with one toucher. */
struct ctl {
	sem_t go, done;
	enum command command;
	uint64_t page, value; /* of 64-bit word `word` of the page */
	unsigned word;
	int64_t result;
	uint64_t base;
	int uffd;
	volatile uint64_t stored; /* HAMMER: the last value whose store is complete */
	volatile bool stop;
};

struct toucher {
	struct ctl *ctl;
	pid_t pid;
	int uffd;
};

static char path[64], err[256];
static struct wvm_memory *node;
static struct wvm_mem *vm;
static struct toucher t[3];
static unsigned dying_mask, failed_count;
static struct wvm_ring_error last_error;

/* --- the process that touches ------------------------------------------- */

static sigjmp_buf bus;

static void on_bus(int sig)
{
	siglongjmp(bus, sig);
}

static int64_t touch(uint8_t *base, struct ctl *c)
{
	volatile uint64_t *at = (volatile uint64_t *)(void *)(base + c->page * WVM_PAGE_SIZE) +
				c->word;
	int sig = sigsetjmp(bus, 1);

	if (sig)
		return -sig;
	if (c->command == WRITE)
		*at = c->value;
	return (int64_t)*at;
}

/* Each store is announced after it is done. */
static int64_t hammer(uint8_t *base, struct ctl *c)
{
	volatile uint64_t *at = (volatile uint64_t *)(void *)(base + c->page * WVM_PAGE_SIZE) +
				c->word;

	while (!c->stop) {
		uint64_t next = c->stored + 1;

		*at = next;
		__atomic_store_n(&c->stored, next, __ATOMIC_RELEASE);
	}
	return 0;
}

/* Reads refault all the time, so that some meet every step; no word may go back. */
static int64_t watch(uint8_t *base, struct ctl *c)
{
	volatile uint64_t *at = (volatile uint64_t *)(void *)(base + c->page * WVM_PAGE_SIZE);
	uint64_t seen[2] = {0, 0};

	while (!c->stop) {
		for (unsigned i = 0; i < 2; i++) {
			uint64_t now = at[i];

			if (now < seen[i])
				return -1;
			seen[i] = now;
		}
		if (++c->stored % 16 == 0)
			usleep(1); /* the writers and the holder have two cores */
	}
	return 0;
}

static int64_t syscall_read(uint8_t *base, struct ctl *c)
{
	int fd = memfd_create("out", MFD_CLOEXEC);
	ssize_t n = write(fd, base + c->page * WVM_PAGE_SIZE, WVM_PAGE_SIZE);
	uint64_t word = 0;

	if (n != (ssize_t)WVM_PAGE_SIZE || pread(fd, &word, 8, c->word * 8) != 8)
		return -errno;
	close(fd);
	return (int64_t)word;
}

static int make_uffd(uint8_t *base)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = WVM_UFFD_FEATURES | UFFD_FEATURE_POISON};
	struct uffdio_register r = {.range = {(uintptr_t)base, VM_BYTES},
				    .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &r))
		_exit(10);
	return fd;
}

static void toucher_main(struct ctl *c)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t *base = mmap(NULL, VM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (base == MAP_FAILED)
		_exit(11);
	signal(SIGBUS, on_bus);
	c->uffd = make_uffd(base);
	c->base = (uintptr_t)base;
	for (;;) {
		sem_post(&c->done);
		while (sem_wait(&c->go))
			;
		switch (c->command) {
		case READ:
		case WRITE: c->result = touch(base, c); break;
		case UNMAP: c->result = munmap(base, VM_BYTES); break;
		case HAMMER: c->result = hammer(base, c); break;
		case WATCH: c->result = watch(base, c); break;
		case SYSCALL_READ: c->result = syscall_read(base, c); break;
		case EXIT: _exit(0);
		}
	}
}

/* --- the test's side -------------------------------------------------------- */

static void start(unsigned i)
{
	int pidfd;

	t[i].ctl = mmap(NULL, sizeof(struct ctl), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(t[i].ctl != MAP_FAILED);
	sem_init(&t[i].ctl->go, 1, 0);
	sem_init(&t[i].ctl->done, 1, 0);
	t[i].pid = fork();
	if (!t[i].pid)
		toucher_main(t[i].ctl);
	while (sem_wait(&t[i].ctl->done))
		;
	pidfd = (int)syscall(SYS_pidfd_open, t[i].pid, 0);
	t[i].uffd = (int)syscall(SYS_pidfd_getfd, pidfd, t[i].ctl->uffd, 0);
	ck_assert_int_ge(t[i].uffd, 0);
	close(pidfd);
}

/* As a client would: its mapping becomes known to the node. */
static void add(unsigned i, uint32_t mode)
{
	struct wvm_mem_map map = {
		.base = t[i].ctl->base, .len = VM_BYTES, .mode = mode, .vm_id = VM_ID};

	ck_assert_int_eq(wvm_mem_client_add(node, 0, i, t[i].uffd), 0);
	ck_assert_int_eq(wvm_mem_map_add(node, 0, i, &map), 0);
}

static void attach(unsigned i)
{
	start(i);
	add(i, WVM_STRICT);
}

static void tell(unsigned i, enum command command, uint64_t page, unsigned word, uint64_t value)
{
	struct ctl *c = t[i].ctl;

	c->command = command;
	c->page = page;
	c->word = word;
	c->value = value;
	sem_post(&c->go);
}

static bool next_event(unsigned i, struct uffd_msg *m)
{
	return read(t[i].uffd, m, sizeof(*m)) == (ssize_t)sizeof(*m);
}

/* Either the access raises an event (1) or it completes (0), whichever is first. */
static int event_or_done(unsigned i, uint64_t page, bool *write)
{
	struct uffd_msg m;

	for (unsigned n = 0; n < WAIT_MS; n++) {
		struct pollfd p = {.fd = t[i].uffd, .events = POLLIN};

		poll(&p, 1, 1);
		if (next_event(i, &m)) {
			struct wvm_mem *which;
			uint64_t where;

			ck_assert_int_eq(m.event, UFFD_EVENT_PAGEFAULT);
			ck_assert_int_eq(
				wvm_mem_find(node, 0, i, m.arg.pagefault.address, &which, &where),
				0);
			ck_assert_ptr_eq(which, vm);
			ck_assert_uint_eq(where, page);
			*write = m.arg.pagefault.flags &
				 (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
			return 1;
		}
		if (!sem_trywait(&t[i].ctl->done))
			return 0;
	}
	ck_abort_msg("neither an event nor an end");
	return -1;
}

#define expect_event(i, page, is_write)                                                         \
	do {                                                                                    \
		bool write_ = false;                                                            \
		ck_assert_msg(event_or_done(i, page, &write_) == 1, "landed without an event"); \
		ck_assert_int_eq(write_, is_write);                                             \
	} while (0)
#define expect_done(i, value)                                                              \
	do {                                                                               \
		bool write_;                                                               \
		ck_assert_msg(event_or_done(i, ~0ull, &write_) == 0, "an event too many"); \
		ck_assert_int_eq(t[i].ctl->result, value);                                 \
	} while (0)

static uint64_t word_of_file(uint64_t page, unsigned word)
{
	uint64_t buf[WVM_PAGE_SIZE / 8];

	ck_assert_int_eq(wvm_mem_read(vm, page, buf), 0);
	return buf[word];
}

static const uint64_t *pattern(uint64_t seed)
{
	static uint64_t data[WVM_PAGE_SIZE / 8];

	for (unsigned i = 0; i < WVM_PAGE_SIZE / 8; i++)
		data[i] = seed + i;
	return data;
}

static void dying(void *ctx, unsigned shard, unsigned client)
{
	dying_mask |= 1u << client;
}

static void failed(void *ctx, unsigned shard, unsigned client, const struct wvm_ring_error *e)
{
	last_error = *e;
	failed_count++;
}

static const struct wvm_mem_ops ops = {.dying = dying, .failed = failed};

/* Named by the runner, which removes it also when a test did not come to its end. */
static void name_file(void)
{
	snprintf(path, sizeof(path), "/dev/shm/wvm-check-mem.%d", (int)getpid());
}

static void setup(void)
{
	if (geteuid()) {
		fprintf(stderr, "needs root (userfaultfd, pidfd_getfd)\n");
		exit(77);
	}
	ck_assert_int_eq(wvm_memory_new(&node, 1, &ops, NULL), 0);
	ck_assert_msg(
		!wvm_mem_open(node, &vm, VM_ID, path, VM_BYTES, WVM_MEM_EMPTY, err, sizeof(err)),
		"%s", err);
}

static void teardown(void)
{
	for (unsigned i = 0; i < 3; i++) {
		if (!t[i].pid)
			continue;
		kill(t[i].pid, SIGKILL);
		waitpid(t[i].pid, NULL, 0);
	}
	wvm_mem_unlink(vm);
	wvm_memory_free(node);
}

#endif

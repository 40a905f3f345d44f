/*
 * For the tests of the clients: a master of one VM whose holder is the simplest
 * there is (it grants at once), and client processes that use libwavevm.
 */
#ifndef WVM_CHECK_CLIENTS_BED_H
#define WVM_CHECK_CLIENTS_BED_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/post.h"
#include "ring/shard.h"
#include "roles/master/clients.h"
#include "roles/master/mem.h"
#include "shared/client_ring.h"
#include "shared/wavevm.h"

/* Not every test program needs every helper. */
#pragma GCC diagnostic ignored "-Wunused-function"

#define GIB         (1ull << 30)
#define BED_VM      5u
#define BED_BYTES   (3 * GIB)
#define BED_PAGES   (BED_BYTES / WVM_PAGE_SIZE)
#define BED_NODE    7u
#define BED_STORED  64u /* pages whose bytes survive being taken back: page % 64 */
#define BED_WAIT_MS 30000
#define BED_SHARDS  2u

/* What the holder does with a page, by its number % 16; all others are granted. */
#define PAGE_SILENT 13u /* nobody ever answers */
#define PAGE_FAILS  14u

struct bed {
	char ring[64], ram[64], text[256];
	unsigned shard_count;
	struct wvm_shard *shard[BED_SHARDS];
	struct wvm_memory *memory;
	struct wvm_mem *vm;
	struct wvm_clients *clients;
	uint64_t boot_id, adopts[WVM_RING_ADOPTS_MAX];
	/* By the owning shard. */
	char state[BED_PAGES]; /* 0 (not here), S, M */
	uint64_t stored[BED_STORED][WVM_PAGE_SIZE / 8];
	bool serve_silent;
	/* Read by the test's thread. */
	unsigned faults, silent, write_faults[WVM_CLIENTS_MAX], gone[BED_SHARDS];
	unsigned pins, unpins, unanswered_unpins;
	uint64_t pin_token; /* of a pin of page PAGE_SILENT, never answered by itself */
	unsigned pin_client;
	unsigned replied;
	char last_log[512];
	int start_result;
	sem_t called;
};

static struct bed *bed; /* shared: a second master can take the holder's table over */

/* Shared with the client processes. */
struct stage {
	sem_t to_client, to_test, end;
	uint64_t value;
	volatile uint64_t counter;
	char text[256];
};
static struct stage *stage;

#define GET(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define ADD(x) __atomic_add_fetch(&(x), 1, __ATOMIC_ACQ_REL)

#define until(cond)                                      \
	do {                                             \
		unsigned ms_ = 0;                        \
		while (!(cond) && ms_++ < BED_WAIT_MS)   \
			usleep(1000);                    \
		ck_assert_msg(cond, "never: %s", #cond); \
	} while (0)

static void wait_for(sem_t *s)
{
	while (sem_wait(s))
		;
}

/* --- the holder -------------------------------------------------------------- */

static void bed_fault(void *ctx, unsigned shard, struct wvm_mem *vm, uint64_t page, bool write,
		      unsigned client)
{
	uint64_t waiter = 1ull << client;
	char *state = &bed->state[page];

	ADD(bed->faults);
	if (write)
		ADD(bed->write_faults[client]);
	if (page % 16 == PAGE_SILENT && !GET(bed->serve_silent)) {
		ADD(bed->silent);
		return;
	}
	if (page % 16 == PAGE_FAILS && !GET(bed->serve_silent)) {
		wvm_mem_fail(vm, page, waiter, ETIMEDOUT);
		return;
	}
	if (!*state) {
		const void *data = page % 2 ? bed->stored[page % BED_STORED] : NULL;
		int ret = wvm_mem_install(vm, page, data, write, waiter);

		*state = ret ? 0 : write ? 'M' : 'S';
		return;
	}
	if (write) {
		*state = 'M';
		wvm_mem_lift(vm, page, waiter);
	} else {
		wvm_mem_wake(vm, page, waiter);
	}
}

static void bed_pin(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t first, uint64_t count,
		    uint64_t token)
{
	ADD(bed->pins);
	if (first % 16 == PAGE_SILENT) {
		__atomic_store_n(&bed->pin_client, client, __ATOMIC_RELEASE);
		__atomic_store_n(&bed->pin_token, token, __ATOMIC_RELEASE);
		return;
	}
	wvm_clients_reply(bed->clients, 0, client, token, first % 16 == PAGE_FAILS ? -EIO : 0);
}

static void bed_unpin(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t first,
		      uint64_t count, uint64_t token)
{
	ADD(bed->unpins);
	if (!token)
		ADD(bed->unanswered_unpins);
	wvm_clients_reply(bed->clients, 0, client, token, 0);
}

static void bed_gone(void *ctx, unsigned shard, unsigned client)
{
	ADD(bed->gone[shard]);
}

static void bed_stats(void *ctx, unsigned client, struct wvm_stats *s)
{
	s->pages_homed = 4711;
}

static int bed_where(void *ctx, struct wvm_mem *vm, uint64_t gpa)
{
	return (int)(gpa >> 30) + 100;
}

static void bed_code(void *ctx, unsigned shard, unsigned client, struct wvm_code *code)
{
}

static void bed_code_told(void *ctx, unsigned shard, unsigned client)
{
}

static void bed_code_mark(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t page,
			  uint64_t token)
{
	wvm_clients_reply(bed->clients, 0, client, token, 0);
}

static void bed_log(void *ctx, const char *line)
{
	snprintf(bed->last_log, sizeof(bed->last_log), "%s", line);
}

static const struct wvm_clients_ops bed_ops = {.fault = bed_fault,
					       .pin = bed_pin,
					       .unpin = bed_unpin,
					       .client_gone = bed_gone,
					       .stats = bed_stats,
					       .where = bed_where,
					       .code = bed_code,
					       .code_told = bed_code_told,
					       .code_mark = bed_code_mark,
					       .log = bed_log};

/* --- calls into a shard's thread ----------------------------------------------- */

static void run_call(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	void (*fn)(uint64_t);
	uint64_t arg;

	memcpy(&fn, data, sizeof(fn));
	memcpy(&arg, (const char *)data + sizeof(fn), sizeof(arg));
	fn(arg);
	sem_post(&bed->called);
}

/* Runs fn(arg) on a shard and waits for its end. */
static void on_shard(unsigned shard, void (*fn)(uint64_t), uint64_t arg)
{
	char data[sizeof(fn) + sizeof(arg)];

	memcpy(data, &fn, sizeof(fn));
	memcpy(data + sizeof(fn), &arg, sizeof(arg));
	while (wvm_post_outside(bed->shard[shard], run_call, NULL, data, sizeof(data)))
		usleep(1000);
	wait_for(&bed->called);
}

static void do_take_back(uint64_t page)
{
	ck_assert(bed->state[page]);
	ck_assert_int_eq(wvm_mem_protect(bed->vm, page), 0);
	ck_assert_int_eq(wvm_mem_read(bed->vm, page, bed->stored[page % BED_STORED]), 0);
	ck_assert_int_eq(wvm_mem_punch(bed->vm, page), 0);
	bed->state[page] = 0;
}

static void do_downgrade(uint64_t page)
{
	ck_assert(bed->state[page]);
	ck_assert_int_eq(wvm_mem_protect(bed->vm, page), 0);
	bed->state[page] = 'S';
}

static void take_back(uint64_t page)
{
	on_shard(wvm_mem_shard(bed->vm, page), do_take_back, page);
}

static void downgrade(uint64_t page)
{
	on_shard(wvm_mem_shard(bed->vm, page), do_downgrade, page);
}

static uint64_t file_word(uint64_t page, unsigned word)
{
	uint64_t buf[WVM_PAGE_SIZE / 8];

	ck_assert_int_eq(wvm_mem_read(bed->vm, page, buf), 0);
	return buf[word];
}

static void do_start(uint64_t unused)
{
	bed->start_result = wvm_clients_start(bed->clients);
}

/* --- life ------------------------------------------------------------------------ */

static int bed_open(enum wvm_mem_open_how how)
{
	struct wvm_clients_conf conf = {.path = bed->ring,
					.node_id = BED_NODE,
					.boot_id = bed->boot_id,
					.shards = bed->shard,
					.ops = &bed_ops};
	int ret;

	ret = wvm_memory_new(&bed->memory, bed->shard_count, &wvm_clients_mem_ops, &bed->clients);
	if (!ret)
		ret = wvm_mem_open(bed->memory, &bed->vm, BED_VM, bed->ram, BED_BYTES, how,
				   bed->text, sizeof(bed->text));
	conf.memory = bed->memory;
	memcpy(conf.adopts, bed->adopts, sizeof(conf.adopts));
	return ret ? ret : wvm_clients_open(&bed->clients, &conf, bed->text, sizeof(bed->text));
}

static void bed_start(unsigned shards, enum wvm_mem_open_how how)
{
	sem_init(&bed->called, 0, 0);
	bed->shard_count = shards;
	for (unsigned k = 0; k < shards; k++) {
		struct wvm_shard_opts o = {.index = k, .name = "bed", .files = 512};

		ck_assert_msg(!wvm_shard_create(&bed->shard[k], &o, bed->text, sizeof(bed->text)),
			      "%s", bed->text);
	}
	ck_assert_msg(!bed_open(how), "%s", bed->text);
	for (unsigned k = 0; k < shards; k++)
		ck_assert_int_eq(wvm_shard_start(bed->shard[k]), 0);
	on_shard(0, do_start, 0);
	ck_assert_int_eq(bed->start_result, 0);
}

static void bed_stop(void)
{
	for (unsigned k = 0; k < bed->shard_count; k++) {
		wvm_shard_stop(bed->shard[k]);
		ck_assert_int_eq(wvm_shard_join(bed->shard[k]), 0);
	}
	wvm_clients_close(bed->clients, true);
	wvm_mem_unlink(bed->vm);
	wvm_memory_free(bed->memory);
	for (unsigned k = 0; k < bed->shard_count; k++)
		wvm_shard_destroy(bed->shard[k]);
}

/* --- client processes ----------------------------------------------------------------- */

/* A client's body returns 0, or the line of what failed. */
typedef int client_fn(void);
#define NEED(x)                                                                               \
	do {                                                                                  \
		if (!(x)) {                                                                   \
			fprintf(stderr, "client: line %d: %s (errno %s, %s)\n", __LINE__, #x, \
				strerror(errno), wvm_attach_error());                         \
			return 1;                                                             \
		}                                                                             \
	} while (0)

#define CLIENTS_MAX 4u
static pid_t client_pid[CLIENTS_MAX];
static sem_t *client_go; /* [CLIENTS_MAX], shared */

/* Forked before the shards' threads exist; begins when told to. */
static void prepare(unsigned i, client_fn *fn)
{
	client_pid[i] = fork();
	if (client_pid[i])
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	wait_for(&client_go[i]);
	_exit(fn());
}

static void begin(unsigned i)
{
	sem_post(&client_go[i]);
}

static void finish(unsigned i)
{
	int status;

	ck_assert_int_eq(waitpid(client_pid[i], &status, 0), client_pid[i]);
	client_pid[i] = 0;
	ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status), "client %u: status 0x%x", i,
		      status);
}

static void kill_client(unsigned i)
{
	kill(client_pid[i], SIGKILL);
	waitpid(client_pid[i], NULL, 0);
	client_pid[i] = 0;
}

static void *shared_zeros(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert(p != MAP_FAILED);
	return p;
}

/* Named by the runner, which removes them also when a test did not come to its end. */
static char ring_name[64], ram_name[64];

static void name_files(void)
{
	snprintf(ring_name, sizeof(ring_name), "/dev/shm/wvm-check-ring.%d", (int)getpid());
	snprintf(ram_name, sizeof(ram_name), "/dev/shm/wvm-check-ram.%d", (int)getpid());
}

static void remove_files(void)
{
	unlink(ring_name);
	unlink(ram_name);
}

static void setup(void)
{
	if (geteuid()) {
		fprintf(stderr, "needs root (userfaultfd, pidfd_getfd)\n");
		exit(77);
	}
	bed = shared_zeros(sizeof(*bed));
	bed->boot_id = 0x1000;
	snprintf(bed->ring, sizeof(bed->ring), "%s", ring_name);
	snprintf(bed->ram, sizeof(bed->ram), "%s", ram_name);
	stage = shared_zeros(sizeof(*stage));
	sem_init(&stage->to_client, 1, 0);
	sem_init(&stage->to_test, 1, 0);
	sem_init(&stage->end, 1, 0);
	client_go = shared_zeros(CLIENTS_MAX * sizeof(*client_go));
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		sem_init(&client_go[i], 1, 0);
}

static void teardown(void)
{
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (client_pid[i])
			kill_client(i);
	remove_files();
}

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static sigjmp_buf bus;

static void on_bus(int sig)
{
	siglongjmp(bus, sig);
}

/* The signal that reading gives, 0 for none. */
static int read_signal(const volatile void *at)
{
	int sig;

	signal(SIGBUS, on_bus);
	signal(SIGSEGV, on_bus);
	sig = sigsetjmp(bus, 1);
	if (!sig)
		(void)*(const volatile char *)at;
	signal(SIGBUS, SIG_DFL);
	signal(SIGSEGV, SIG_DFL);
	return sig;
}

static volatile uint64_t *word(void *base, uint64_t page, unsigned index)
{
	return (volatile uint64_t *)(void *)((uint8_t *)base + page * WVM_PAGE_SIZE) + index;
}

#endif

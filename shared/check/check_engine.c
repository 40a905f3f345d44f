/* The channel between a slave and an engine: this program is both, in two processes. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/engine_host.h"
#include "shared/engine_priv.h"

#define VCPUS 4u
#define RUNS  100000u /* of all processors together */

extern char **environ;

/* ---- the engine ------------------------------------------------------------------------ */

/* What a run's first byte asks for. */
enum wish { ECHO = 'e', SPIN = 's', REFUSE = 'r' };

static struct wvm_engine *engine;
static unsigned kicks_told[VCPUS]; /* atomic */

static void on_kick(void *opaque, unsigned vcpu)
{
	(void)opaque;
	__atomic_fetch_add(&kicks_told[vcpu], 1, __ATOMIC_RELAXED);
}

static uint8_t twisted(uint8_t byte, size_t at, uint64_t seq)
{
	return (uint8_t)(byte ^ (at * 7) ^ seq);
}

static void *run_vcpu(void *arg)
{
	unsigned vcpu = (unsigned)(uintptr_t)arg;
	static _Thread_local uint8_t buf[WVM_RUN_MAX];
	uint64_t seq;
	int len;

	while ((len = wvm_engine_wait(engine, vcpu, buf, sizeof(buf), &seq)) >= 0) {
		int r;

		if (buf[0] == SPIN)
			while (!wvm_engine_kicked(engine, vcpu) ||
			       !__atomic_load_n(&kicks_told[vcpu], __ATOMIC_RELAXED))
				;
		for (int i = 1; i < len; i++)
			buf[i] = twisted(buf[i], (size_t)i, seq);
		r = buf[0] == REFUSE ? wvm_engine_refuse(engine, vcpu, seq, WVM_RUN_BASE)
				     : wvm_engine_exit(engine, vcpu, seq, buf, (size_t)len);
		if (r)
			_exit(3);
	}
	if (len != -ECONNRESET)
		_exit(4);
	return NULL;
}

static int be_engine(void)
{
	pthread_t threads[VCPUS];
	char err[160] = "";

	if (wvm_engine_open(&engine, on_kick, NULL, err, sizeof(err))) {
		fprintf(stderr, "%s\n", err);
		return 2;
	}
	for (unsigned i = 0; i < wvm_engine_vcpus(engine); i++)
		pthread_create(&threads[i], NULL, run_vcpu, (void *)(uintptr_t)i);
	for (unsigned i = 0; i < wvm_engine_vcpus(engine); i++)
		pthread_join(threads[i], NULL);
	wvm_engine_close(engine);
	return 0;
}

/* Writes what it likes where its answers belong. */
static int be_hostile(unsigned seed)
{
	int mem_fd, vcpus, to_slave;
	uint8_t *mem, *ring;
	size_t bytes;

	if (sscanf(getenv(WVM_ENGINE_ENV), "%d,%d,%d", &mem_fd, &vcpus, &to_slave) != 3)
		return 2;
	bytes = engine_bytes((unsigned)vcpus);
	mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, mem_fd, 0);
	if (mem == MAP_FAILED || !ftruncate(mem_fd, 4096)) /* sealed */
		return 3;
	ring = mem + engine_ring_at((unsigned)vcpus, 0, 1);
	srand(seed);
	for (unsigned i = 0; i < 512; i++)
		ring[i] = (uint8_t)(rand() >> 7);
	ring[128] = 200; /* a length, so that something is there */
	ring[129] = ring[130] = ring[131] = 0;
	eventfd_write(to_slave, 1);
	return 0;
}

/* ---- the slave ------------------------------------------------------------------------- */

struct bed {
	struct wvm_engine_host *h;
	pid_t pid;
	uint8_t record[WVM_ENGINE_RECORD_MAX], run[WVM_RUN_MAX];
};

static struct bed bed;

static void begin(const char *as, const char *seed)
{
	char self[] = "/proc/self/exe", as_text[32], seed_text[32];
	char *argv[] = {self, as_text, seed_text, NULL};
	char err[160] = "";

	snprintf(as_text, sizeof(as_text), "%s", as);
	snprintf(seed_text, sizeof(seed_text), "%s", seed);
	ck_assert_msg(!wvm_engine_host_new(&bed.h, VCPUS, err, sizeof(err)), "%s", err);
	ck_assert_msg(
		!wvm_engine_host_spawn(bed.h, self, argv, environ, &bed.pid, err, sizeof(err)),
		"%s", err);
}

/* The engine is told to end, and does, with this status. */
static void end(int status)
{
	int got;

	wvm_engine_host_free(bed.h);
	ck_assert_int_eq(waitpid(bed.pid, &got, 0), bed.pid);
	ck_assert(WIFEXITED(got));
	ck_assert_int_eq(WEXITSTATUS(got), status);
}

static void await_bell(void)
{
	struct pollfd p = {.fd = wvm_engine_host_bell(bed.h), .events = POLLIN};
	eventfd_t count;

	ck_assert_int_eq(poll(&p, 1, 10000), 1);
	eventfd_read(p.fd, &count);
}

static struct wvm_engine_answer await(unsigned vcpu)
{
	struct wvm_engine_answer a;
	int r;

	while ((r = wvm_engine_host_take(bed.h, vcpu, bed.record, &a)) == -EAGAIN)
		await_bell();
	ck_assert_int_eq(r, 0);
	return a;
}

static size_t fill(unsigned vcpu, uint64_t seq, enum wish wish)
{
	size_t len = seq % 1000 == 0 ? WVM_RUN_MAX : 1 + (seq * 37 + vcpu) % 3000;

	bed.run[0] = (uint8_t)wish;
	for (size_t i = 1; i < len; i++)
		bed.run[i] = (uint8_t)(seq + i * vcpu);
	return len;
}

static void check_answer(const struct wvm_engine_answer *a, unsigned vcpu, uint64_t seq)
{
	size_t len = fill(vcpu, seq, ECHO);

	ck_assert_uint_eq(a->seq, seq);
	ck_assert_uint_eq(a->reason, 0);
	ck_assert_uint_eq(a->len, len);
	for (size_t i = 1; i < len; i++)
		if (a->data[i] != twisted(bed.run[i], i, seq))
			ck_abort_msg("byte %zu of run %llu of processor %u", i,
				     (unsigned long long)seq, vcpu);
}

START_TEST(each_run_comes_back_once_and_whole)
{
	uint64_t given[VCPUS] = {0}, taken[VCPUS] = {0}, all = 0;

	begin("engine", "");
	while (all < RUNS) {
		for (unsigned v = 0; v < VCPUS; v++) {
			struct wvm_engine_answer a;
			int r;

			if (given[v] == taken[v] && given[v] < RUNS / VCPUS) {
				size_t len = fill(v, ++given[v], ECHO);

				ck_assert_int_eq(
					wvm_engine_host_run(bed.h, v, given[v], bed.run, len), 0);
			}
			r = wvm_engine_host_take(bed.h, v, bed.record, &a);
			if (r == -EAGAIN)
				continue;
			ck_assert_int_eq(r, 0);
			check_answer(&a, v, ++taken[v]);
			all++;
		}
		/* Each processor has a run now: something comes. */
		if (all < RUNS && taken[0] != given[0] && taken[1] != given[1] &&
		    taken[2] != given[2] && taken[3] != given[3])
			await_bell();
	}
	end(0);
}
END_TEST

START_TEST(a_kick_ends_the_run_that_it_names_and_no_other)
{
	struct wvm_engine_answer a;

	begin("engine", "");
	for (uint64_t seq = 1; seq <= 200; seq++) {
		size_t len = fill(1, seq, SPIN);

		if (seq % 4 == 0) /* before its run */
			wvm_engine_host_kick(bed.h, 1, seq);
		ck_assert_int_eq(wvm_engine_host_run(bed.h, 1, seq, bed.run, len), 0);
		if (seq % 4 == 1) /* late: of the run before */
			wvm_engine_host_kick(bed.h, 1, seq - 1);
		if (seq % 40 == 1) {
			usleep(20000);
			ck_assert_int_eq(wvm_engine_host_take(bed.h, 1, bed.record, &a), -EAGAIN);
		}
		if (seq % 4)
			wvm_engine_host_kick(bed.h, 1, seq);
		ck_assert_uint_eq(await(1).seq, seq);
	}
	end(0);
}
END_TEST

START_TEST(a_refusal_has_its_reason)
{
	struct wvm_engine_answer a;

	begin("engine", "");
	ck_assert_int_eq(wvm_engine_host_run(bed.h, 3, 77, bed.run, fill(3, 77, REFUSE)), 0);
	a = await(3);
	ck_assert_uint_eq(a.seq, 77);
	ck_assert_uint_eq(a.reason, WVM_RUN_BASE);
	end(0);
}
END_TEST

/* The slave dies without a word: its engine, whose parent is a process of its own, ends too. */
START_TEST(an_engine_ends_with_its_slave)
{
	int out[2];
	pid_t slave;
	char byte;

	ck_assert_int_eq(pipe(out), 0);
	slave = fork();
	if (!slave) {
		close(out[0]); /* the engine has the other end, as 1, until it ends */
		dup2(out[1], 1);
		close(out[1]);
		begin("engine", "");
		ck_assert_int_eq(wvm_engine_host_run(bed.h, 0, 1, bed.run, fill(0, 1, ECHO)), 0);
		await(0);
		raise(SIGKILL);
	}
	close(out[1]);
	ck_assert_int_eq(waitpid(slave, NULL, 0), slave);
	ck_assert_int_eq(read(out[0], &byte, 1), 0);
	close(out[0]);
}
END_TEST

START_TEST(a_hostile_engine_costs_an_error)
{
	char seed[16];

	for (unsigned i = 0; i < 200; i++) {
		struct wvm_engine_answer a;
		unsigned wrong = 0;
		int r = 0;

		snprintf(seed, sizeof(seed), "%u", i);
		begin("hostile", seed);
		await_bell();
		for (unsigned k = 0; k < 64 && r != -EAGAIN && r != -EPROTO; k++) {
			r = wvm_engine_host_take(bed.h, 0, bed.record, &a);
			wrong += r == -EPROTO;
			if (!r)
				ck_assert_uint_le(a.len, WVM_RUN_MAX);
		}
		ck_assert_uint_eq(wrong, 1);
		ck_assert_int_eq(wvm_engine_host_take(bed.h, 1, bed.record, &a), -EAGAIN);
		end(0);
	}
}
END_TEST

START_TEST(what_names_no_channel_is_refused_with_a_line)
{
	static const char *const names[] = {"",        "1",       "0,0,1,2,3,4", "9,300,1,2,3,4",
					    "1,1,1,1", "a,b,c,d", "0,1,1,2,3,1", "0,1,1,2,3,4x"};
	struct wvm_engine *e = NULL;

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char err[160] = "";

		setenv(WVM_ENGINE_ENV, names[i], 1);
		ck_assert_int_lt(wvm_engine_open(&e, on_kick, NULL, err, sizeof(err)), 0);
		ck_assert_int_gt(strlen(err), 10);
	}
	unsetenv(WVM_ENGINE_ENV);
}
END_TEST

START_TEST(a_program_that_is_not_there_is_an_error)
{
	char missing[] = "/nonexistent/engine", *argv[] = {missing, NULL}, err[160] = "";

	ck_assert_int_eq(wvm_engine_host_new(&bed.h, 1, err, sizeof(err)), 0);
	ck_assert_int_eq(
		wvm_engine_host_spawn(bed.h, missing, argv, environ, &bed.pid, err, sizeof(err)),
		-ENOENT);
	ck_assert_ptr_nonnull(strstr(err, missing));
	wvm_engine_host_free(bed.h);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("engine");
	TCase *t = tcase_create("engine");
	SRunner *runner;
	int failed;

	if (argc > 1 && !strcmp(argv[1], "engine"))
		return be_engine();
	if (argc > 2 && !strcmp(argv[1], "hostile"))
		return be_hostile((unsigned)atoi(argv[2]));
	tcase_set_timeout(t, 120);
	tcase_add_test(t, each_run_comes_back_once_and_whole);
	tcase_add_test(t, a_kick_ends_the_run_that_it_names_and_no_other);
	tcase_add_test(t, a_refusal_has_its_reason);
	tcase_add_test(t, an_engine_ends_with_its_slave);
	tcase_add_test(t, a_hostile_engine_costs_an_error);
	tcase_add_test(t, what_names_no_channel_is_refused_with_a_line);
	tcase_add_test(t, a_program_that_is_not_there_is_an_error);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

/*
 * Processors that may be on different hosts:
 *   together  each counts in its own memory; in how many slices of time did all of them get on?
 *   clock     a baton goes round: whoever has it must see no earlier time than who had it before
 *   code      one writes a function, the next ones call it; each writes in turn
 *   exec      each starts a program, again and again, all at once
 */
#include "guest.h"

#include <cpuid.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#define SLICES       16u
#define SLICE_MS     500u
#define CLOCK_ROUNDS 400u
#define CODE_ROUNDS  10u
#define EXECS        4u
#define EXEC_STATUS  7

struct counts {
	_Alignas(PAGE_SIZE) uint64_t slice[SLICES];
	uint64_t work;
};

static struct {
	struct counts *counts;
	atomic_uint ready;
	double begin; /* of the slices, by the last who is ready */
	_Alignas(64) atomic_uint turn;
	uint64_t ticks;
	double seconds;
	uint64_t backwards;
	uint8_t *code;
	uint32_t written;
} c;

/* ---- together -------------------------------------------------------------------------------- */

/* Waits for the baton. Processors of one host must let each other run. */
static void wait_turn(unsigned turn)
{
	for (unsigned i = 0; atomic_load(&c.turn) != turn; i++) {
		if (i > 100)
			sched_yield();
	}
}

/* Until a thread runs on a processor of another host it takes a while, which is not its work. */
static void await_all(void)
{
	if (atomic_fetch_add(&c.ready, 1) + 1 == guest.cpus) {
		c.begin = seconds_now();
		atomic_store(&c.turn, 1);
	}
	wait_turn(1);
}

static void count_slices(unsigned thread)
{
	struct counts *own = &c.counts[thread];

	await_all();
	for (;;) {
		unsigned slice = (unsigned)((seconds_now() - c.begin) * 1000 / SLICE_MS);

		if (slice >= SLICES)
			return;
		for (unsigned i = 0; i < 1000; i++)
			own->work = mix(own->work + i);
		own->slice[slice]++;
	}
}

static unsigned slices_of(const struct counts *counts)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SLICES; i++)
		n += counts->slice[i] > 0;
	return n;
}

void test_together(void)
{
	unsigned together = 0;

	c.counts = aligned_alloc(PAGE_SIZE, guest.cpus * sizeof(*c.counts));
	if (!c.counts) {
		report("no memory for the counters");
		return;
	}
	memset(c.counts, 0, guest.cpus * sizeof(*c.counts));
	atomic_store(&c.ready, 0);
	atomic_store(&c.turn, 0);
	on_all_cpus(count_slices);
	for (unsigned slice = 0; slice < SLICES; slice++) {
		unsigned busy = 0;

		for (unsigned i = 0; i < guest.cpus; i++)
			busy += c.counts[i].slice[slice] > 0;
		together += busy == guest.cpus;
	}
	for (unsigned i = 0; i < guest.cpus; i++) {
		uint64_t work = 0;

		for (unsigned slice = 0; slice < SLICES; slice++)
			work += c.counts[i].slice[slice];
		printf("cpu %-2u     %llu units of work, in %u of %u slices of %u ms\n", i,
		       (unsigned long long)work, slices_of(&c.counts[i]), SLICES, SLICE_MS);
		if (!work)
			report("processor %u did no work", i);
	}
	printf("together   %u processors, all at work in %u of %u slices\n", guest.cpus, together,
	       SLICES);
	if (!together)
		report("never were all processors at work");
	free(c.counts);
}

/* ---- clock -------------------------------------------------------------------------------------
 */

static void pass_clock(unsigned thread)
{
	for (unsigned round = 0; round < CLOCK_ROUNDS; round++) {
		uint64_t ticks;
		double seconds;

		wait_turn(round * guest.cpus + thread);
		ticks = __rdtsc();
		seconds = seconds_now();
		if (ticks < c.ticks || seconds < c.seconds) {
			if (!c.backwards++)
				report("clock: processor %u reads %llu ticks, %.9f s, after %llu, "
				       "%.9f s",
				       thread, (unsigned long long)ticks, seconds,
				       (unsigned long long)c.ticks, c.seconds);
		}
		c.ticks = __rdtsc();
		c.seconds = seconds_now();
		atomic_store(&c.turn, round * guest.cpus + thread + 1);
	}
}

static void test_clock(void)
{
	atomic_store(&c.turn, 0);
	on_all_cpus(pass_clock);
	printf("clock      handed over %u times, %llu times backwards\n", CLOCK_ROUNDS * guest.cpus,
	       (unsigned long long)c.backwards);
}

/* ---- code ---------------------------------------------------------------------------------------
 */

/* As the processor's manual asks of code that another one has written. */
static void serialize(void)
{
	unsigned a, b, d, e;

	__cpuid(0, a, b, d, e);
}

static void write_function(uint32_t value)
{
	const uint8_t body[6] = {0xb8,
				 (uint8_t)value,
				 (uint8_t)(value >> 8),
				 (uint8_t)(value >> 16),
				 (uint8_t)(value >> 24),
				 0xc3};

	memcpy(c.code, body, sizeof(body)); /* mov $value, %eax; ret */
}

static void pass_code(unsigned thread)
{
	uint32_t (*function)(void);

	memcpy(&function, &c.code, sizeof(function));
	for (unsigned turn = 0; turn < CODE_ROUNDS * guest.cpus * guest.cpus; turn++) {
		unsigned writer = turn / guest.cpus % guest.cpus;

		if (turn % guest.cpus != (thread + guest.cpus - writer) % guest.cpus)
			continue;
		wait_turn(turn);
		if (thread == writer) {
			c.written = (uint32_t)mix(turn);
			write_function(c.written);
		}
		serialize();
		for (unsigned i = 0; i < 3; i++) {
			uint32_t got = function();

			if (got != c.written)
				report("code: processor %u runs the function of %08x, not of %08x",
				       thread, got, c.written);
		}
		atomic_store(&c.turn, turn + 1);
	}
}

static void test_code(void)
{
	c.code = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c.code == MAP_FAILED) {
		report("no memory for code: %s", strerror(errno));
		return;
	}
	atomic_store(&c.turn, 0);
	on_all_cpus(pass_code);
	printf("code       written %u times, called by %u processors each\n",
	       CODE_ROUNDS * guest.cpus, guest.cpus);
	munmap(c.code, PAGE_SIZE);
}

/* ---- exec
 * ----------------------------------------------------------------------------------------- */

static void start_programs(unsigned thread)
{
	for (unsigned i = 0; i < EXECS; i++) {
		pid_t child = fork();
		int status = 0;

		if (child == 0) {
			execl("/proc/self/exe", "init", "--status", (char *)NULL);
			_exit(1);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
		    WEXITSTATUS(status) != EXEC_STATUS)
			report("exec: a program on processor %u ended with %#x", thread, status);
	}
}

static void test_exec(void)
{
	on_all_cpus(start_programs);
	printf("exec       %u programs on each of %u processors\n", EXECS, guest.cpus);
}

int exec_status(void)
{
	return EXEC_STATUS;
}

void test_cpus(void)
{
	test_clock();
	test_code();
	test_exec();
}

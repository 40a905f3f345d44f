/*
 * wvm.mode=compute: each processor works on numbers of its own, all at once, as much each. Says
 * "compute N processors: S s" with the time until the last one is done.
 *
 * wvm.mode=bench: random loads and stores over memory that has been written before. Says "bench
 * warm" when all of it has been, "bench pass N: R M accesses/s", and "bench done", with a second
 * after the first and the last of these for whoever reads counters outside.
 */
#include "guest.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define PASSES    5u
#define ACCESSES  (1u << 20) /* loads in a pass, and as many stores */
#define BENCH_MIB 128u

static uint64_t next(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17; /* xorshift64 (Marsaglia 2003) */
}

static uint64_t pass(uint64_t *memory, uint64_t words, uint64_t x)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < ACCESSES; i++) {
		x = next(x);
		sum += memory[(x >> 32) * words >> 32];
		memory[(x & UINT32_MAX) * words >> 32] = x;
	}
	__asm__ volatile("" : : "r"(sum) : "memory");
	return x;
}

void run_bench(void)
{
	const uint64_t mib = guest.mib ? guest.mib : BENCH_MIB;
	const uint64_t words = mib * MIB / sizeof(uint64_t);
	uint64_t x = mix(guest.seed) | 1;
	uint64_t *memory = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		report("no memory for a benchmark of %llu MiB", (unsigned long long)mib);
		return;
	}
	for (uint64_t i = 0; i < words; i++)
		memory[i] = i;
	x = pass(memory, words, x);
	printf("bench warm, %llu MiB\n", (unsigned long long)mib);
	sleep(1);
	for (unsigned i = 1; i <= PASSES; i++) {
		const double start = seconds_now();

		x = pass(memory, words, x);
		printf("bench pass %u: %.3f M accesses/s\n", i,
		       2e-6 * ACCESSES / (seconds_now() - start));
	}
	printf("bench done\n");
	sleep(1);
}

#define STEPS (1u << 31) /* of each processor */

static void compute(unsigned thread)
{
	uint64_t x = mix(guest.seed + thread) | 1;

	for (unsigned i = 0; i < STEPS; i++)
		x = next(x);
	__asm__ volatile("" : : "r"(x)); /* or none of it would be computed */
}

void run_compute(void)
{
	const double start = seconds_now();

	on_all_cpus(compute);
	printf("compute %u processors: %.3f s\n", guest.cpus, seconds_now() - start);
}

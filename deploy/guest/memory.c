/*
 * Most of the memory, three passes. In every pass a page is written by one
 * thread and read by another one.
 *   ascending  every page in order
 *   inverted   every page downwards, all bits the other way round
 *   random     every page in a random order, half of them rewritten on the way
 */
#include "guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

static uint64_t *memory;
static uint16_t *generation; /* of each page, once the random pass has begun */
static size_t pages;
static uint64_t stride; /* of the random order: without a divisor in common with pages */

static uint64_t *page_at(size_t page)
{
	return memory + page * PAGE_WORDS;
}

static void write_ascending(unsigned thread)
{
	size_t p;

	for (p = thread; p < pages; p += guest.cpus)
		page_fill(page_at(p), p, 1, 0);
}

static void read_ascending(unsigned thread)
{
	size_t p;

	for (p = (thread + 1) % guest.cpus; p < pages; p += guest.cpus)
		page_check(page_at(p), p, 1, 0, "ascending");
}

static void write_inverted(unsigned thread)
{
	size_t p;

	for (p = thread; p < pages; p += guest.cpus)
		page_fill(page_at(pages - 1 - p), pages - 1 - p, 2, ~0ull);
}

static void read_inverted(unsigned thread)
{
	size_t p;

	for (p = (thread + 1) % guest.cpus; p < pages; p += guest.cpus)
		page_check(page_at(p), p, 2, ~0ull, "inverted");
}

static size_t random_page(size_t i)
{
	return (size_t)((i * stride + guest.seed % pages) % pages);
}

static void random_rewrite(unsigned thread)
{
	size_t i;

	for (i = thread; i < pages; i += guest.cpus) {
		const size_t p = random_page(i);

		page_check(page_at(p), p, 2, ~0ull, "random, before");
		generation[p] = mix(guest.seed ^ i) & 1 ? 3 : 4;
		page_fill(page_at(p), p, generation[p], 0);
	}
}

static void random_read(unsigned thread)
{
	size_t i;

	for (i = (thread + 1) % guest.cpus; i < pages; i += guest.cpus) {
		const size_t p = random_page(i);

		page_check(page_at(p), p, generation[p], 0, "random");
	}
}

static void read_final(unsigned thread)
{
	size_t p;

	for (p = (thread + 1) % guest.cpus; p < pages; p += guest.cpus)
		page_check(page_at(p), p, generation[p], 0, "final");
}

static void pass(const char *name, void (*first)(unsigned), void (*second)(unsigned))
{
	const double start = seconds_now();

	on_all_cpus(first);
	if (second)
		on_all_cpus(second);
	printf("%-10s %zu MiB, %.2f s, %llu errors so far\n", name, pages * PAGE_SIZE / MIB,
	       seconds_now() - start, errors);
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	while (b) {
		const uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

static uint64_t choose_mib(void)
{
	struct sysinfo info;

	if (guest.mib)
		return guest.mib;
	if (sysinfo(&info))
		return 64;
	return (uint64_t)info.freeram * info.mem_unit / MIB * 7 / 8;
}

static bool allocate(void)
{
	pages = choose_mib() * (MIB / PAGE_SIZE);
	memory = mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	generation = calloc(pages, sizeof(*generation));
	if (memory == MAP_FAILED || !generation || !pages) {
		report("no memory for a test of %zu pages", pages);
		return false;
	}
	for (stride = pages * 5 / 8 | 1; common_divisor(stride, pages) != 1; stride += 2)
		continue;
	return true;
}

uint64_t test_memory(void)
{
	if (!allocate())
		return 0;
	pass("ascending", write_ascending, read_ascending);
	pass("inverted", write_inverted, read_inverted);
	pass("random", random_rewrite, random_read);
	test_stress(memory, generation, pages);
	pass("final", read_final, NULL);
	return pages * PAGE_SIZE / MIB;
}

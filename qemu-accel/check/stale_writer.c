/*
 * Rewrites functions of a running guest (stale.S) from another node, and says whether a vCPU
 * was ever returned an old number.
 *   stale_writer code TIMES VCPUS
 *   stale_writer add TIMES: both add to a word, the guest so often, the writer until it is done
 * WVM_RING_PATH is the master's of that other node. Exit status 0: no error.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shared/wavevm.h"

/* As in stale.S. */
#define MEMORY  0x800000u
#define CODE    0x400000u
#define PLAIN   (CODE + 0x100)
#define ACROSS  (CODE + 0xffe)
#define REQUEST 0x500000u
#define WORD    0x700005u
#define ANSWER  0x600000u
#define PAGE    4096u
#define RET     0xc3000000u

#define READY_S  60
#define ANSWER_S 30
#define ADD_S    120

enum answer { SEEN, ERRORS, ASKED, GOT, READY, DONE };

static uint8_t *memory;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t *word_at(uint32_t gpa)
{
	return (uint32_t *)(memory + gpa);
}

/* Functions lie where they lie: x86 stores four bytes of one cache line at once. */
static void put(uint32_t gpa, uint32_t value)
{
	__asm__ volatile("movl %1, %0" : "=m"(*word_at(gpa)) : "r"(value) : "memory");
}

static uint32_t answer(unsigned vcpu, enum answer which)
{
	return __atomic_load_n(word_at(ANSWER + vcpu * PAGE) + which, __ATOMIC_ACQUIRE);
}

static void await(unsigned vcpu, enum answer which, uint32_t value, int seconds)
{
	double end = now() + seconds;

	while (answer(vcpu, which) != value) {
		if (now() > end) {
			printf("vCPU %u does not answer: %u instead of %u\n", vcpu,
			       answer(vcpu, which), value);
			exit(2);
		}
		usleep(20);
	}
}

static int rewrite_code(unsigned times, unsigned vcpus)
{
	unsigned errors = 0;
	double begin = now();

	for (uint32_t n = 1; n <= times; n++) {
		put(PLAIN + 1, n);
		put(ACROSS + 2, RET | n);
		put(REQUEST, n);
		for (unsigned v = 0; v < vcpus; v++)
			await(v, SEEN, n, ANSWER_S);
	}
	for (unsigned v = 0; v < vcpus; v++) {
		errors += answer(v, ERRORS);
		if (answer(v, ERRORS))
			printf("vCPU %u: %u errors, the first: %u after request %u\n", v,
			       answer(v, ERRORS), answer(v, GOT), answer(v, ASKED));
	}
	printf("rewritten %u times in %.1f s, %u errors\n", times, now() - begin, errors);
	return errors != 0;
}

static int add_both(unsigned times)
{
	uint32_t *word = word_at(WORD), sum, own = 0;
	double end = now() + ADD_S;

	put(REQUEST + 8, times);
	put(REQUEST + 4, 1);
	put(PLAIN + 1, 1);
	put(ACROSS + 2, RET | 1);
	put(REQUEST, 1);
	while (!answer(0, DONE) && now() < end)
		for (unsigned n = 0; n < 50; n++, own++)
			__asm__ volatile("lock incl %0" : "+m"(*word) : : "memory");
	await(0, DONE, 1, 1);
	__asm__ volatile("movl %1, %0" : "=r"(sum) : "m"(*word));
	printf("added %u and %u times, %u are lost\n", times, own, times + own - sum);
	return sum != times + own;
}

int main(int argc, char **argv)
{
	unsigned times = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	unsigned vcpus = argc > 3 ? (unsigned)atoi(argv[3]) : 1;
	struct wvm *w;
	int ret;

	if (!times || wvm_attach(&w, NULL)) {
		printf("%s\n", wvm_attach_error());
		return 2;
	}
	memory = wvm_map(w, 0, 0, MEMORY, WVM_STRICT);
	if (!memory) {
		printf("%s\n", wvm_attach_error());
		return 2;
	}
	for (unsigned v = 0; v < vcpus; v++)
		await(v, READY, 1, READY_S);
	ret = strcmp(argv[1], "add") ? rewrite_code(times, vcpus) : add_both(times);
	wvm_detach(w);
	return ret;
}

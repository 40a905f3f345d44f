/*
 * The guest of the demo: a first process that tests the machine it runs on.
 * Its parameters come from the kernel's command line (init.c lists them).
 */
#ifndef WVM_GUEST_H
#define WVM_GUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE  4096u
#define PAGE_WORDS (PAGE_SIZE / sizeof(uint64_t))
#define MIB        (1024u * 1024u)

struct guest {
	uint64_t seed;
	uint64_t mib; /* of memory to test; 0: most of what is free */
	unsigned seconds;
	unsigned cpus;
	bool disk;
	bool net;
	bool swap;
	bool count_work; /* of each processor */
	bool test_cpus;
	bool test_litmus;
	bool litmus_disordered; /* by threads that keep no order: it has to be noticed */
	bool bound;             /* memory to `node` */
	unsigned node;
	char mode[16]; /* test, boot, bench, compute, shell */
};

extern struct guest guest;
extern atomic_ullong errors; /* wrong pages and broken invariants, all tests together */

/* Prints a line (the first few of them; all are counted) and counts an error. */
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * pattern.c: what a page holds is a function of the seed, the page's number
 * and a generation, and differs in every word, so that a page that is stale,
 * swapped with another, zeroed or mixed of two states is never taken for good.
 * mask is xor'ed to every word.
 */
void page_fill(uint64_t *words, uint64_t page, uint64_t generation, uint64_t mask);
/* True if the page is as expected; otherwise reports page, offset, expected and got. */
bool page_check(const uint64_t *words, uint64_t page, uint64_t generation, uint64_t mask,
		const char *where);
uint64_t mix(uint64_t x);

/* run.c: runs fn(number) on threads 0 .. guest.cpus - 1, thread i pinned to processor i. */
void on_all_cpus(void (*fn)(unsigned thread));
double seconds_now(void);

/* memory.c: returns the MiB that were verified. */
uint64_t test_memory(void);

/* stress.c: works on pages [0, count) of memory, page p being in generation[p]. */
void test_stress(uint64_t *memory, uint16_t *generation, size_t count);

/* disk.c */
void test_disk(void);
int make_disk(const char *path, uint64_t mib);

/* net.c */
void test_net(void);

/* swap.c */
void use_swap(void);

/* numa.c: prints what each node has; takes all memory from one, from now on. */
void show_nodes(void);
void bind_memory(unsigned node);

/* litmus.c: the memory model, by the litmus tests. */
void test_litmus(void);

/* cpus.c: what processors on different hosts could get wrong. */
void test_together(void);
void test_cpus(void);  /* the others */
int exec_status(void); /* what its programs end with */

/* bench.c */
void run_bench(void);
void run_compute(void);

#endif

/*
 * Programs on the nodes of a test cluster: forked processes that attach to
 * their node's master, map its memory and do what a function says. They share
 * an arena of ordinary memory with the test, which tells on failures and
 * serves as the model that cluster memory is compared with.
 */
#ifndef WVM_CHECK_PROGRAM_H
#define WVM_CHECK_PROGRAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "roles/check/cluster.h"
#include "shared/wavevm.h"

#define PROGRAMS_MAX 16u
#define PAGE         WVM_PAGE_SIZE
#define PAGE_WORDS   (PAGE / sizeof(uint64_t))
#define MIB          (UINT64_C(1) << 20)
#define GIB          (UINT64_C(1) << 30)

/* Shared by a test and its programs. */
struct arena {
	atomic_int failed;
	char text[512]; /* the first failure */
	size_t bytes;
	atomic_uint arrived, left; /* of program_meet() */
	atomic_ullong word[64];
	uint64_t model[]; /* as many as arena_new() was asked for */
};

struct program {
	const struct cluster *cluster;
	struct arena *arena;
	unsigned node;
	unsigned index, count; /* among the programs of one call */
	uint64_t seed;         /* of program_random() */
	struct wvm *wvm;       /* attached before the function is called */
	const void *arg;
	pid_t pid;
};

typedef void program_fn(struct program *p);

/* In a program: ends it, and the test, unless cond. */
#define NEED(p, cond, ...)                                                       \
	do {                                                                     \
		if (!(cond))                                                     \
			program_fail(p, __FILE__, __LINE__, #cond, __VA_ARGS__); \
	} while (0)
__attribute__((noreturn, format(printf, 5, 6))) void program_fail(struct program *p,
								  const char *file, int line,
								  const char *cond,
								  const char *format, ...);

/* An arena with so many words of model, all zero. */
struct arena *arena_new(size_t model_words);
void arena_free(struct arena *a);

/* Runs count programs, program i on node nodes[i]. Asserts that all end well. */
void programs_run(const struct cluster *c, struct arena *a, const unsigned *nodes, unsigned count,
		  program_fn *fn, const void *arg);

/* The same by hand: fill in all but pid, start, then await. fn may end by returning. */
void program_start(struct program *p, program_fn *fn);
/* Asserts that all of them end well. */
void programs_await(struct program *const list[], unsigned count);
/* Ends one by SIGKILL. */
void program_kill(struct program *p);

/* ---- in a program ------------------------------------------------------- */

/* Maps, or fails the test. */
void *program_map(struct program *p, uint64_t gpa, size_t len);
/* Waits until all programs of the call are here. */
void program_meet(struct program *p);
/* Waits until word[i] of the arena is at least value. */
void program_await_word(struct program *p, unsigned i, uint64_t value);
uint64_t program_random(struct program *p);

static inline uint64_t load(const volatile uint64_t *at)
{
	return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static inline void store(volatile uint64_t *at, uint64_t value)
{
	__atomic_store_n(at, value, __ATOMIC_RELAXED);
}

/* What word `index` of a page holds in a generation; never 0. */
static inline uint64_t pattern(uint64_t page, unsigned index, uint64_t generation)
{
	uint64_t x = (page << 9 | index) * 0x9e3779b97f4a7c15u ^ generation * 0xbf58476d1ce4e5b9u;

	x ^= x >> 29;
	return x * 0x94d049bb133111ebu | 1;
}

void pattern_fill(uint64_t *page, uint64_t number, uint64_t generation);
/* The first word that differs, or -1. */
int pattern_differs(const uint64_t *page, uint64_t number, uint64_t generation);

#endif

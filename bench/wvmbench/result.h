/* What was measured, over several rounds, and what it is compared with. */
#ifndef WVMBENCH_RESULT_H
#define WVMBENCH_RESULT_H

#include <stdbool.h>
#include <stdio.h>

#include "bench/wvmbench/hist.h"

#define RESULT_ROUNDS 32u
#define RESULT_MAX    64u

/* One kind of access with one number of threads. */
struct result {
	char name[32];
	unsigned threads;
	struct wvm_samples samples; /* of all rounds; the floor's are not kept */
	uint64_t elapsed_ns;
	struct wvm_summary summary; /* of all rounds; the floor: median of each figure */
	struct wvm_summary round[RESULT_ROUNDS];
	unsigned rounds;
};

struct results {
	struct result entry[RESULT_MAX];
	unsigned n;
};

/* The entry of that name and number of threads, made if it is not there; NULL: no room. */
struct result *result_get(struct results *r, const char *name, unsigned threads);

/* The same without making one: NULL if there is none. */
const struct result *result_find(const struct results *r, const char *name, unsigned threads);

/*
 * Adds a round. From samples (kept): sorts and summarizes them; *samples is empty afterwards.
 * From a finished summary: keeps it. 0, -ENOMEM, -ENOSPC (too many rounds).
 */
int result_add_samples(struct result *r, struct wvm_samples *samples, uint64_t elapsed_ns);
int result_add_summary(struct result *r, const struct wvm_summary *s);

/* Fills each entry's summary. Once, after the last round. */
void results_finish(struct results *r);
void results_fini(struct results *r);

/* One figure of a over the same figure of b, round by round, and the median of these. */
struct ratio {
	char name[32];
	double value;
	double round[RESULT_ROUNDS];
	double ours[RESULT_ROUNDS], base[RESULT_ROUNDS]; /* the two figures of each round */
	bool rate;                                       /* faults/s; else microseconds */
	unsigned rounds;
};

/*
 * The comparisons of a cluster (a) with the floor (b): p50 of one thread, faults/s of several.
 * Returns how many there are, at most max; entries that one side lacks are left out.
 */
unsigned results_compare(const struct results *a, const struct results *b, struct ratio *out,
			 unsigned max);

/* The same as series.h prints its figures: a JSON array with the values of every round. */
void ratios_json(FILE *out, const struct ratio *ratio, unsigned n);

/* Tables for people. */
void results_print(FILE *out, const char *title, const struct results *r, bool histogram);

/* A JSON array. */
void results_json(FILE *out, const struct results *r);

#endif

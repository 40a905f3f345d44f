/* What a benchmark measured in pairs of rounds, and how it is printed. Pure. */
#ifndef WVMBENCH_SERIES_H
#define WVMBENCH_SERIES_H

#include <stdint.h>
#include <stdio.h>

#define SERIES_ROUNDS 32u
#define SERIES_MAX    5u
#define SERIES_COUNTS 40u

/* One figure and what it is held against, round by round. */
struct series {
	char name[32], against[32], unit[16];
	double ours[SERIES_ROUNDS], base[SERIES_ROUNDS];
	unsigned rounds;
};

struct series_set {
	struct series series[SERIES_MAX];
	unsigned n;
	struct {
		char name[40];
		double value;
	} count[SERIES_COUNTS]; /* what was counted on the way */
	unsigned n_counts;
};

/* Begins a figure. More than SERIES_MAX are a mistake of the caller (assertion). */
struct series *series_begin(struct series_set *set, const char *name, const char *against,
			    const char *unit);

/* Adds a round; one above SERIES_ROUNDS is a mistake of the caller (assertion). */
void series_add(struct series *s, double ours, double base);

void series_count(struct series_set *set, const char *name, double value);

/* The median of ours / base over the rounds, each with its own base. */
double series_ratio(const struct series *s);

/* Lines for people, last "ratio NAME LAYOUT VALUE". */
void series_print(FILE *out, const struct series_set *set, const char *layout);

/* A JSON object. Names need no escapes. */
void series_json(FILE *out, const struct series_set *set, const char *program, const char *layout);

#endif

/*
 * What many faults' parts come to, and how that is shown: medians, a stacked bar
 * in the terminal and as SVG, system calls per fault. Pure but for the printing.
 */
#ifndef WVMBENCH_BARS_H
#define WVMBENCH_BARS_H

#include <stdio.h>

#include "bench/wvmbench/join.h"

#define BAR_WIDTH  72u
#define BAR_PIECES (PARTS + 1u) /* and what no part explains */
#define BAR_CALLS  32u
#define BAR_SIDES  3u

/* System calls of one master, by kind, over some time. */
struct call_counts {
	unsigned n;
	char name[BAR_CALLS][24];
	uint64_t made[BAR_CALLS];
};

/* Parts of all faults of one kind, to be filled one by one. */
struct explain_samples {
	uint64_t *part[PARTS]; /* of those that were joined */
	uint64_t *total;       /* of all faults */
	size_t joined, faults, room;
	uint64_t no_fault, again, ahead, missing;
};

/* One kind of fault, explained. Times in us; medians. */
struct explained {
	char name[32];
	uint64_t faults, joined, again, ahead, missing;
	uint64_t no_fault; /* accesses beside the faults */
	double part_us[PARTS];
	double p50_us;  /* of the accesses that were faults, as measured by the program */
	double rest_us; /* p50_us less all parts: medians of parts need not add up to it */
	const char *side[BAR_SIDES]; /* whose calls; NULL: none */
	struct call_counts calls[BAR_SIDES];
};

/* Room for so many accesses. 0 or -ENOMEM. */
int explain_samples_init(struct explain_samples *s, size_t room);
void explain_samples_fini(struct explain_samples *s);

/* Adds an access and what was found out about it; j is used if r is JOIN_WHOLE. */
void explain_samples_add(struct explain_samples *s, const struct access *a, enum join_result r,
			 const struct joined *j);

/* Medians of what was added; sorts it. Leaves name, sides and calls alone. */
void explain_finish(struct explained *e, struct explain_samples *s);

/* Name of a part and of the rest, and its letter in the bar. i is below BAR_PIECES. */
const char *bar_name(unsigned i);
char bar_letter(unsigned i);

/*
 * How many of `width` cells each of n pieces takes: rounded where they end, so that all
 * together are width (0, if no piece is above 0). Pieces below 0 take none.
 */
void bar_cells(const double *us, unsigned n, unsigned width, unsigned *cells);

/* Calls made between two counts of the same master, in `after`'s order. */
void call_counts_between(const struct call_counts *before, const struct call_counts *after,
			 struct call_counts *out);
/* Adds those of `more` to `sum`, by name. */
void call_counts_add(struct call_counts *sum, const struct call_counts *more);

/* The bar, a table of its parts, and system calls per fault. */
void explain_print(FILE *out, const struct explained *e);
/* One JSON object, without a line end. */
void explain_json(FILE *out, const struct explained *e);
/* Its figures as bench/report.py counts them: lines of "name": value, each behind a comma but the
 * first of all. */
void explain_counts(FILE *out, const struct explained *e, bool first);
/* A whole SVG document with a bar for each. */
void explain_svg(FILE *out, const struct explained *list, unsigned n, const char *layout);

#endif

/* All litmus tests, in all placements, on clusters of two and three nodes, as a table. */
#ifndef WVM_LITMUS_CAMPAIGN_H
#define WVM_LITMUS_CAMPAIGN_H

#include "roles/check/litmus/cell.h"

#define LITMUS_CHAOS "loss 1% duplicate 1% reorder 5% delay 100us jitter 200us"

struct litmus_campaign {
	uint64_t runs; /* of each line of the table */
	uint64_t seed;
	const char *test;     /* NULL: all */
	bool clean, impaired; /* networks */
	const char *chaos;    /* of the impaired one; NULL: LITMUS_CHAOS */
	unsigned hang_s;
	const char *preload; /* into the masters */
};

/* Of one test, over all lines. */
struct litmus_tally {
	uint64_t runs, forbidden, relaxed, raced, asked;
	struct litmus_set seen, allowed, sequential;
};

struct litmus_totals {
	struct litmus_tally test[32]; /* in the order of litmus_tests */
	uint64_t lines, runs, forbidden, relaxed;
	uint64_t raced;         /* runs in which the threads met in the middle of an instance */
	uint64_t grants, pages; /* given to holders; sent between nodes */
};

/*
 * Runs it and prints the table on stdout. Asserts by libcheck that every
 * program ended well, nothing hung, and every run was counted; what the
 * outcomes were is in totals. To be called from a test of cluster_main().
 */
void litmus_campaign(const struct litmus_campaign *o, struct litmus_totals *totals);

/* The tests of litmus_tests that have outcomes which only store buffers explain, and what was seen.
 */
void litmus_print_relaxed(const struct litmus_totals *totals);
/* The line that begins with "proof: litmus: ". */
void litmus_print_proof(const struct litmus_totals *totals);

#endif

/*
 * The workload that verifies while harm is done: programs that load and store
 * words of shared pages at random, each with a word of its own in every page.
 * What is read was stored, is not older than what was read before, and is exactly
 * what was stored last where the word is the reader's own; at the end every
 * program finds every word as its owner left it.
 */
#ifndef WVM_CHECK_CHURN_H
#define WVM_CHECK_CHURN_H

#include "roles/check/harm.h"

#define CHURN_RANGES_MAX  12u /* a program may map 16 */
#define CHURN_RANGE_PAGES 16u
#define CHURN_NODES_MAX   6u
#define CHURN_PAGES_MAX   (CHURN_RANGES_MAX * CHURN_RANGE_PAGES)

struct churn_plan {
	unsigned homes;  /* a bit for each node: only pages of these homes */
	unsigned first;  /* unit to begin with: for groups that share no page */
	unsigned ranges; /* at most CHURN_RANGES_MAX, one in each unit */
	bool may_fail;   /* accesses may get SIGBUS; they are tried again in a new mapping */
};

/* What the programs tell while they run. */
enum churn_word {
	CHURN_READY = 30,    /* programs that have begun */
	CHURN_STOP,          /* set by the test */
	CHURN_STOPPED,       /* programs that have seen it */
	CHURN_VERIFY,        /* set by the test: nothing fails any more */
	CHURN_PAUSE_MS_MAX,  /* the longest access that did not fail; the test may clear it */
	CHURN_ERRORS = 36,   /* and the node: accesses that failed there */
	CHURN_ERROR_MS = 42, /* and the node: the longest until one failed */
	CHURN_DONE = 48,     /* and the program's index: its rounds */
};

struct churn {
	struct churn_plan plan;
	struct arena *arena;
	unsigned count;
	struct program programs[PROGRAMS_MAX], *list[PROGRAMS_MAX];
};

/* Starts count programs, number i on nodes[i], and waits until all have begun. */
void churn_start(struct churn *w, const struct cluster *c, const struct churn_plan *plan,
		 const unsigned *nodes, unsigned count);
/* The same without the wait. */
void churn_begin(struct churn *w, const struct cluster *c, const struct churn_plan *plan,
		 const unsigned *nodes, unsigned count);
/* Lets the programs stop. Then, when nothing can fail any more: verifies all, and ends them. */
void churn_stop(struct churn *w);
void churn_verify(struct churn *w);
void churn_free(struct churn *w);

/* The longest until an access failed on this node; and how many did, on all. */
uint64_t churn_error_ms_max(const struct churn *w, unsigned node);
uint64_t churn_errors(const struct churn *w);
/* Rounds of all programs so far. */
uint64_t churn_rounds(const struct churn *w);
/* Every program does at least so many more rounds; false after 20 s. */
bool churn_goes_on(const struct churn *w, unsigned rounds);

#endif

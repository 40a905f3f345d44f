/*
 * What one batch is: who does what, where the variables lie, in which order
 * they are visited. Every program of a cell works it out by itself.
 */
#ifndef WVM_LITMUS_PLAN_H
#define WVM_LITMUS_PLAN_H

#include "roles/check/litmus/cell.h"

#define PLAN_WORDS  504u /* of a page for instances; the last line is the bystanders' */
#define PLAN_NOBODY LITMUS_THREADS
#define PLAN_VISITS 3u /* at most so many pages */

struct plan {
	uint64_t batch;
	uint8_t part[LITMUS_WORKERS]; /* a thread's number, or PLAN_NOBODY */
	unsigned keeper;              /* the worker that resets before and collects after */
	unsigned instances;
	unsigned pages;
	uint32_t page[PLAN_VISITS];
	unsigned word_first, word_stride;
	unsigned first[LITMUS_WORKERS], stride[LITMUS_WORKERS]; /* order of each worker's visits */
	unsigned loose; /* of 8 instances so many have delays between their accesses */
	uint64_t delay_ticks;
	bool warm;     /* all threads touch the pages before they meet to start */
	bool lockstep; /* a thread waits a moment before each instance for those that are behind */
};

void plan_make(const struct litmus_cell *c, uint64_t batch, struct plan *p);

/* Instances of a batch: no two variables share a word of a page. */
static inline unsigned plan_instances(const struct litmus_cell *c)
{
	return c->placement == LITMUS_ONE_PAGE ? PLAN_WORDS / c->test->vars : PLAN_WORDS;
}

/* Index into page[] of a variable of an instance. Neighbours lie the other way round. */
static inline unsigned plan_page(const struct plan *p, unsigned instance, unsigned var)
{
	return (instance + var) % p->pages;
}

static inline unsigned plan_word(const struct plan *p, unsigned instance, unsigned var)
{
	unsigned slot = p->pages == 1 ? var * p->instances + instance : instance;

	return (p->word_first + slot * p->word_stride) % PLAN_WORDS;
}

/* What a variable's values carry: no two are the same in a cell. */
static inline uint64_t plan_stamp(const struct plan *p, unsigned instance, unsigned var)
{
	return (p->batch + 1) << 24 | instance << 8 | var << 4;
}

#endif

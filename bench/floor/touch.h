/* A: the memory and the threads that touch it. */
#ifndef WVM_FLOOR_TOUCH_H
#define WVM_FLOOR_TOUCH_H

#include "bench/wvmbench/hist.h"
#include "floor.h"

struct region {
	uint64_t *mem; /* [pages + 1][512] */
	uint64_t pages;
	int uffd;
};

/* Makes a region of untouched pages and hands it to M. */
void region_open(struct region *r, const struct floor_options *o, struct floor_shared *shared);

/* Ends M's work on it and unmaps it. */
void region_close(struct region *r, struct floor_shared *shared);

/* Touches each page once as op says, from all threads, in random order; checks every word. */
void touch_all(struct region *r, const struct floor_options *o, struct floor_shared *shared,
	       enum floor_op op, struct wvm_summary *out);

#endif

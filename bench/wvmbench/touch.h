/* Timed accesses to a set of pages by one or more threads. */
#ifndef WVMBENCH_TOUCH_H
#define WVMBENCH_TOUCH_H

#include <stdbool.h>

#include "bench/wvmbench/attach.h"
#include "bench/wvmbench/hist.h"
#include "bench/wvmbench/plan.h"

#define TOUCH_THREADS 64u

struct touch_options {
	unsigned threads; /* 1 .. TOUCH_THREADS */
	const int *core;  /* [n_cores]: thread i runs on core[i % n_cores] */
	unsigned n_cores; /* 0: not pinned */
	bool write;       /* store to each page; else load from it */
	uint64_t seed;    /* of the order */
};

/*
 * Touches every page of the set once, in random order, its pages dealt to the
 * threads in equal runs. Appends the latencies to *all and gives the time from the first
 * access to the last. A load is compared with what the page must hold; a store makes
 * set->own_word true. Then all words of all pages are compared. 0, -errno (threads, memory,
 * a core), or -EBADMSG with a line on standard error when a word is wrong.
 */
int touch_set(const struct attached *a, struct plan_set *set, const struct touch_options *o,
	      struct wvm_samples *all, uint64_t *elapsed_ns);

#endif

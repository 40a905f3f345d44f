/*
 * Which pages a benchmark touches, and what they must hold. Pure.
 */
#ifndef WVMBENCH_PLAN_H
#define WVMBENCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/wvmbench/mailbox.h"

#define PLAN_UNIT_PAGES 512u /* a unit has one home (shared/PROTOCOL.md) */
#define PLAN_WORDS      512u /* of 8 bytes in a page */

/* A set of pages with one home and one history, in whole units but for the last. */
struct plan_set {
	struct mailbox_span span[MAILBOX_SPANS];
	unsigned n_spans;
	uint64_t pages;
	uint64_t generation; /* of the pattern they hold; 0: zeros */
	bool own_word;       /* and on top of it the word that the measuring program wrote */
};

/* The home of a unit: a node id, or -errno. */
typedef int plan_where_fn(void *opaque, uint64_t unit);

/*
 * Takes `pages` pages of units whose home is node, from unit *next_unit on, and
 * moves *next_unit behind them. 0, -ENOSPC (fewer are left below n_units),
 * -EINVAL (more than MAILBOX_SPANS units), or the error of where.
 */
int plan_take(struct plan_set *set, uint64_t *next_unit, uint64_t n_units, uint64_t pages, int node,
	      plan_where_fn *where, void *opaque);

/* The i-th page of a set, as a page number in the VM. */
uint64_t plan_page(const struct plan_set *set, uint64_t i);

/* Word `word` of page `page` in the pattern of a generation; generation 0 is all zeros. */
uint64_t plan_pattern(uint64_t page, unsigned word, uint64_t generation);

/* The word of a page that is touched. */
unsigned plan_word(uint64_t page);

/* What a word of a page of the set must hold. */
uint64_t plan_expected(const struct plan_set *set, uint64_t page, unsigned word);

/* 0 .. n - 1 in an order that depends on seed alone, for the caller to free; NULL: no memory. */
uint32_t *plan_shuffle(uint64_t n, uint64_t seed);

#endif

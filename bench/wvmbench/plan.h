/*
 * Which pages a benchmark touches, and what they must hold. Pure.
 */
#ifndef WVMBENCH_PLAN_H
#define WVMBENCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/wvmbench/mailbox.h"

#define PLAN_UNIT_PAGES 512u /* a unit has one home (shared/PROTOCOL.md) */
#define PLAN_SET_PAGES  511u /* of a unit, in a set: the first one is its opener */
#define PLAN_WORDS      512u /* of 8 bytes in a page */

/*
 * A set of pages with one home and one history, PLAN_SET_PAGES of each unit but for the last.
 * The first page of a unit is left out: whoever touches it first is granted the whole unit, and
 * for everybody else the others are pages to be asked for one by one, touched or not.
 */
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
 * -EINVAL (more than are in MAILBOX_SPANS units), or the error of where.
 */
int plan_take(struct plan_set *set, uint64_t *next_unit, uint64_t n_units, uint64_t pages, int node,
	      plan_where_fn *where, void *opaque);

/* The pages that open a set's units: spans only, for a peer to write. */
void plan_openers(const struct plan_set *set, struct plan_set *openers);

/* The i-th page of a set, as a page number in the VM. */
uint64_t plan_page(const struct plan_set *set, uint64_t i);

/* Word `word` of page `page` in the pattern of a generation; generation 0 is all zeros. */
uint64_t plan_pattern(uint64_t page, unsigned word, uint64_t generation);

/* The word of a page that is touched. */
unsigned plan_word(uint64_t page);

/* What a word of a page of the set must hold. */
uint64_t plan_expected(const struct plan_set *set, uint64_t page, unsigned word);

/*
 * 0 .. n - 1 in a random order that depends on seed alone, for the caller to free; NULL: no memory.
 * Where n allows it (from about 1000 on), one that is no stream for read-ahead
 * (shared/core/ahead.h): each is more than PLAN_APART from the PLAN_APART_LAST before it. With
 * fewer it is as far as can be.
 */
#define PLAN_APART      16u
#define PLAN_APART_LAST 16u
uint32_t *plan_order(uint64_t n, uint64_t seed);

#endif

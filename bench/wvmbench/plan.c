#include "bench/wvmbench/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ORDER_TRIES 32u

int plan_take(struct plan_set *set, uint64_t *next_unit, uint64_t n_units, uint64_t pages, int node,
	      plan_where_fn *where, void *opaque)
{
	uint64_t unit = *next_unit;

	memset(set, 0, sizeof(*set));
	if (pages > MAILBOX_SPANS * PLAN_SET_PAGES)
		return -EINVAL;
	for (; set->pages < pages; unit++) {
		uint64_t left = pages - set->pages;
		int home;

		if (unit >= n_units)
			return -ENOSPC;
		home = where(opaque, unit);
		if (home < 0)
			return home;
		if (home != node)
			continue;
		left = left < PLAN_SET_PAGES ? left : PLAN_SET_PAGES;
		set->span[set->n_spans++] = (struct mailbox_span){unit * PLAN_UNIT_PAGES + 1, left};
		set->pages += left;
	}
	*next_unit = unit;
	return 0;
}

void plan_openers(const struct plan_set *set, struct plan_set *openers)
{
	memset(openers, 0, sizeof(*openers));
	for (; openers->n_spans < set->n_spans; openers->n_spans++)
		openers->span[openers->n_spans] =
			(struct mailbox_span){set->span[openers->n_spans].first - 1, 1};
	openers->pages = openers->n_spans;
}

uint64_t plan_page(const struct plan_set *set, uint64_t i)
{
	assert(i < set->pages);
	return set->span[i / PLAN_SET_PAGES].first + i % PLAN_SET_PAGES;
}

uint64_t plan_pattern(uint64_t page, unsigned word, uint64_t generation)
{
	if (generation == 0)
		return 0;
	return (page * PLAN_WORDS + word + 1) * 0x9e3779b97f4a7c15ull ^
	       generation * 0xbf58476d1ce4e5b9ull;
}

unsigned plan_word(uint64_t page)
{
	return (unsigned)(page * 37 % PLAN_WORDS);
}

uint64_t plan_expected(const struct plan_set *set, uint64_t page, unsigned word)
{
	uint64_t value = plan_pattern(page, word, set->generation);

	return set->own_word && word == plan_word(page) ? ~value : value;
}

static uint64_t random_below(uint64_t *seed, uint64_t n)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return (*seed >> 33) % n;
}

/* How far value is from the last ones before order[i], at most PLAN_APART + 1. */
static uint64_t apart(const uint32_t *order, uint64_t i, uint32_t value)
{
	uint64_t least = PLAN_APART + 1;

	for (uint64_t k = i > PLAN_APART_LAST ? i - PLAN_APART_LAST : 0; k < i; k++) {
		uint64_t d = order[k] > value ? order[k] - value : value - order[k];

		least = d < least ? d : least;
	}
	return least;
}

uint32_t *plan_order(uint64_t n, uint64_t seed)
{
	uint32_t *order = malloc(n * sizeof(*order) + 1);

	if (!order)
		return NULL;
	for (uint64_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	for (uint64_t i = 0; i + 1 < n; i++) {
		uint64_t best = i, best_apart = 0;
		uint32_t swap;

		for (unsigned try = 0; try < ORDER_TRIES && best_apart <= PLAN_APART; try++) {
			uint64_t j = i + random_below(&seed, n - i), d = apart(order, i, order[j]);

			if (d > best_apart) {
				best_apart = d;
				best = j;
			}
		}
		swap = order[i];
		order[i] = order[best];
		order[best] = swap;
	}
	return order;
}

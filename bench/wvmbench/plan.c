#include "bench/wvmbench/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int plan_take(struct plan_set *set, uint64_t *next_unit, uint64_t n_units, uint64_t pages, int node,
	      plan_where_fn *where, void *opaque)
{
	uint64_t unit = *next_unit;

	memset(set, 0, sizeof(*set));
	if (pages > MAILBOX_SPANS * PLAN_UNIT_PAGES)
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
		left = left < PLAN_UNIT_PAGES ? left : PLAN_UNIT_PAGES;
		set->span[set->n_spans++] = (struct mailbox_span){unit * PLAN_UNIT_PAGES, left};
		set->pages += left;
	}
	*next_unit = unit;
	return 0;
}

uint64_t plan_page(const struct plan_set *set, uint64_t i)
{
	assert(i < set->pages);
	return set->span[i / PLAN_UNIT_PAGES].first + i % PLAN_UNIT_PAGES;
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

uint32_t *plan_shuffle(uint64_t n, uint64_t seed)
{
	uint32_t *order = malloc(n * sizeof(*order) + 1);

	if (!order)
		return NULL;
	for (uint64_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	for (uint64_t i = n; i > 1; i--) {
		uint64_t j = (seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 33;
		uint32_t swap = order[i - 1];

		order[i - 1] = order[j % i];
		order[j % i] = swap;
	}
	return order;
}

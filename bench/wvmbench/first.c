/*
 * `wvmbench touch`: what memory costs that nobody has touched yet. A plain memfd is the partner:
 * there, too, each store takes a page fault in which the kernel makes a page of zeros.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/wvmbench/bulk.h"
#include "bench/wvmbench/plan.h"

#define WARM_UNITS 8u /* for code, sockets and page-table caches, before the first round */

static uint64_t store_each_page(uint64_t *mem, uint64_t pages)
{
	uint64_t began = bulk_now();

	for (uint64_t page = 0; page < pages; page++)
		*(volatile uint64_t *)(mem + page * PLAN_WORDS) = page + 1;
	return bulk_now() - began;
}

/* What was stored must be there, and zeros in all other words. */
static int verify(const uint64_t *mem, uint64_t pages)
{
	for (uint64_t page = 0; page < pages; page++) {
		const uint64_t *word = mem + page * PLAN_WORDS;
		uint64_t other = 0;

		for (unsigned i = 1; i < PLAN_WORDS; i++)
			other |= word[i];
		if (word[0] != page + 1 || other != 0) {
			fprintf(stderr,
				"wvmbench: page %" PRIu64 " of the part holds a wrong word\n",
				page);
			return -EBADMSG;
		}
	}
	return 0;
}

static int touch_ours(struct attached *a, uint64_t units, double *seconds)
{
	uint64_t first, pages = units * PLAN_UNIT_PAGES;
	int rc = bulk_take_units(a, units, &first);

	if (rc < 0)
		return rc;
	*seconds = (double)store_each_page(attached_page(a, first * PLAN_UNIT_PAGES), pages) / 1e9;
	return verify(attached_page(a, first * PLAN_UNIT_PAGES), pages);
}

static int touch_plain(uint64_t units, double *seconds)
{
	uint64_t pages = units * PLAN_UNIT_PAGES, *mem = bulk_plain_map(pages * WVM_PAGE_SIZE);
	int rc;

	if (!mem)
		return -ENOMEM;
	*seconds = (double)store_each_page(mem, pages) / 1e9;
	rc = verify(mem, pages);
	munmap(mem, pages * WVM_PAGE_SIZE);
	return rc;
}

/* One touch of each; who begins changes with the round. */
static int touch_pair(struct attached *a, uint64_t units, bool plain_first, double *ours,
		      double *plain)
{
	int rc = plain_first ? touch_plain(units, plain) : touch_ours(a, units, ours);

	if (rc < 0)
		return rc;
	return plain_first ? touch_ours(a, units, ours) : touch_plain(units, plain);
}

int first_run(const struct bulk_options *o, struct attached *a, struct series_set *out)
{
	struct series *s = series_begin(out, "first-touch", "memfd", "MiB/s");
	/* All rounds' parts stay in use, and one memfd comes on top. */
	uint64_t mib = bulk_fit(o->mib, o->rounds + 1), began;
	struct wvm_stats before, after;
	double ours, plain;
	int rc;

	if (mib == 0)
		return -ENOMEM;
	began = bulk_now();
	rc = touch_pair(a, WARM_UNITS, true, &ours, &plain);
	mib = bulk_fit_time(o, mib, 2 * WARM_UNITS, bulk_now() - began);
	wvm_stats(a->wvm, &before);
	for (unsigned round = 0; round < o->rounds && rc == 0; round++) {
		rc = touch_pair(a, mib / 2, round % 2 == 0, &ours, &plain);
		if (rc == 0)
			series_add(s, (double)mib / ours, (double)mib / plain);
	}
	if (rc < 0)
		return rc;
	wvm_stats(a->wvm, &after);
	series_count(out, "mib", (double)mib);
	series_count(out, "faults_per_round",
		     (double)(after.faults_read + after.faults_write - before.faults_read -
			      before.faults_write) /
			     o->rounds);
	return 0;
}

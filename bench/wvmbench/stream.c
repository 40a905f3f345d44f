/*
 * `wvmbench stream`: how fast a program reads, from front to back, memory that another node holds
 * Modified. The partner is wvm_floor --stream: the same bytes as one stream of datagrams, into
 * memory that is there; raw, without looking at them; and placed, into a file that has no pages:
 * what no node can do without, whatever its protocol is, for memory that it has not had before;
 * the same with huge pages, which make that cheaper.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bench/wvmbench/bulk.h"
#include "bench/wvmbench/floor.h"
#include "bench/wvmbench/partner.h"
#include "bench/wvmbench/plan.h"

#define WARM_UNITS 8u
#define COPIES     3u /* of each page: at its owner, at its home, here */

/* Reads every word, as a program that uses the data does. */
static uint64_t read_all(const uint64_t *mem, uint64_t pages)
{
	uint64_t began = bulk_now(), total = 0;

	for (uint64_t i = 0; i < pages * PLAN_WORDS; i++)
		total += mem[i];
	bulk_use(total);
	return bulk_now() - began;
}

static int read_ours(struct partner *p, uint64_t units, double *seconds)
{
	uint64_t first, pages = units * PLAN_UNIT_PAGES;
	int rc = bulk_take_units(p->a, units, &first);

	if (rc < 0)
		return rc;
	first *= PLAN_UNIT_PAGES;
	rc = partner_write(p, first, pages);
	if (rc < 0)
		return rc;
	*seconds = (double)read_all(attached_page(p->a, first), pages) / 1e9;
	return partner_verify(p, first, pages);
}

/* The partners: what wvm_floor is told. */
static const char *const kinds[] = {"", "--raw", "--place", "--place=huge"};
#define KINDS  (sizeof(kinds) / sizeof(*kinds))
#define THINGS (KINDS + 1) /* that are measured: first our read */

/* All kinds of the floor, and our read among them, in an order that changes. */
static int stream_round(const struct bulk_options *o, struct partner *p, uint64_t mib,
			unsigned round, double *seconds)
{
	int rc = 0;

	for (unsigned i = 0; i < THINGS && rc == 0; i++) {
		unsigned turn = (i + round) % THINGS;

		if (turn == 0)
			rc = read_ours(p, mib / 2, &seconds[0]);
		else
			rc = floor_stream(o->floor_program, o->floor_arguments, mib,
					  kinds[turn - 1], &seconds[turn]);
	}
	return rc;
}

int stream_run(const struct bulk_options *o, struct attached *a, struct series_set *out)
{
	struct series *checked = series_begin(out, "remote-stream", "floor", "MiB/s");
	struct series *raw = series_begin(out, "remote-stream-raw", "raw floor", "MiB/s");
	struct series *placed = series_begin(out, "remote-stream-placed", "placed floor", "MiB/s");
	struct series *huge = series_begin(out, "remote-stream-huge", "placed floor, huge pages",
					   "MiB/s");
	uint64_t mib = bulk_fit(o->mib, COPIES * o->rounds + 2);
	struct wvm_stats before, after;
	struct partner p;
	double seconds[THINGS];
	uint64_t began;
	int rc = mib ? partner_start(&p, a, o) : -ENOMEM;

	if (rc < 0)
		return rc;
	began = bulk_now();
	rc = read_ours(&p, WARM_UNITS, &seconds[0]);
	mib = bulk_fit_time(o, mib, 2 * WARM_UNITS, bulk_now() - began);
	wvm_stats(a->wvm, &before);
	for (unsigned round = 0; round < o->rounds && rc == 0; round++) {
		rc = stream_round(o, &p, mib, round, seconds);
		if (rc < 0)
			break;
		series_add(checked, (double)mib / seconds[0], (double)mib / seconds[1]);
		series_add(raw, (double)mib / seconds[0], (double)mib / seconds[2]);
		series_add(placed, (double)mib / seconds[0], (double)mib / seconds[3]);
		series_add(huge, (double)mib / seconds[0], (double)mib / seconds[4]);
	}
	partner_stop(&p);
	if (rc < 0)
		return rc;
	wvm_stats(a->wvm, &after);
	series_count(out, "mib", (double)mib);
	series_count(out, "faults_per_round",
		     (double)(after.faults_read - before.faults_read) / o->rounds);
	return 0;
}

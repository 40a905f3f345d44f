/*
 * `wvmbench rate`: how many faults per second several threads get served, over two ranges of 1 GiB,
 * so that a master with two shards has work for both. What it is held against is the same with
 * masters of one shard, which is another cluster: bench/run.sh.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/wvmbench/bulk.h"
#include "bench/wvmbench/fault.h"
#include "bench/wvmbench/partner.h"
#include "bench/wvmbench/rate.h"
#include "bench/wvmbench/touch.h"

#define WARM_UNITS 1u
#define COPIES     3u /* of each page: at its owner, at its home, here */

int rate_plan(struct plan_set *set, uint64_t first, uint64_t n)
{
	memset(set, 0, sizeof(*set));
	if (!n || 2 * n > MAILBOX_SPANS)
		return -EINVAL;
	for (uint64_t i = 0; i < 2 * n; i++) {
		uint64_t unit = first + i % n + i / n * RATE_RANGE_UNITS;

		set->span[set->n_spans++] = (struct mailbox_span){unit * PLAN_UNIT_PAGES + 1,
								  PLAN_SET_PAGES};
		set->pages += PLAN_SET_PAGES;
	}
	return 0;
}

/* Takes n units of each range that no run has used yet. */
static int take(struct attached *a, uint64_t n, struct plan_set *set)
{
	uint64_t first;
	int rc = -ENOSPC;

	/* One more than both ranges have: the mailbox is behind them. */
	if (a->units >= 2 * RATE_RANGE_UNITS)
		rc = mailbox_take_units(&a->mailbox, n, RATE_RANGE_UNITS, &first);
	if (rc == 0)
		return rate_plan(set, first, n);
	fprintf(stderr,
		"wvmbench: VM %u has no %" PRIu64
		" MiB in each of its first two GiB that no run has used yet; start the cluster anew "
		"with a VM of more than 2 GiB, or ask for fewer --mib or --rounds\n",
		a->vm_id, 2 * n);
	return rc;
}

/* One access to each page, all of them owned by the other node; faults per second. */
static int measure(struct partner *p, const struct bulk_options *o, bool write,
		   struct plan_set *set, double *rate)
{
	struct touch_options t = {.threads = o->threads,
				  .core = o->cores,
				  .n_cores = o->n_cores,
				  .write = write,
				  .seed = p->generation};
	struct wvm_stats before, after;
	struct wvm_samples samples;
	uint64_t elapsed = 0;
	int rc = partner_write_spans(p, set->span, set->n_spans);

	if (rc < 0)
		return rc;
	set->generation = p->generation;
	set->own_word = false;
	rc = wvm_samples_init(&samples, set->pages);
	if (rc < 0)
		return rc;
	rc = wvm_stats(p->a->wvm, &before);
	if (rc == 0)
		rc = touch_set(p->a, set, &t, &samples, &elapsed);
	if (rc == 0)
		rc = wvm_stats(p->a->wvm, &after);
	wvm_samples_fini(&samples);
	if (rc == 0)
		rc = fault_expect_asked(write ? "write" : "read", write, set->pages, &before,
					&after);
	*rate = (double)set->pages * 1e9 / (double)(elapsed + 1);
	return rc;
}

static int rate_round(struct partner *p, const struct bulk_options *o, uint64_t units, double *read,
		      double *write)
{
	struct plan_set set;
	int rc = take(p->a, units, &set);

	if (rc == 0)
		rc = measure(p, o, false, &set, read);
	if (rc == 0)
		rc = measure(p, o, true, &set, write);
	return rc;
}

int rate_run(const struct bulk_options *o, struct attached *a, struct series_set *out)
{
	uint64_t units = bulk_fit(o->mib, COPIES * o->rounds + 2) / 4;
	double read[SERIES_ROUNDS], write[SERIES_ROUNDS];
	struct partner p;
	int rc;

	if (!units || 2 * units > MAILBOX_SPANS) {
		fprintf(stderr, "wvmbench: --mib is from 4 to %u here\n", MAILBOX_SPANS * 2);
		return -EINVAL;
	}
	rc = partner_start(&p, a, o);
	if (rc < 0)
		return rc;
	rc = rate_round(&p, o, WARM_UNITS, read, write);
	for (unsigned round = 0; round < o->rounds && rc == 0; round++)
		rc = rate_round(&p, o, units, &read[round], &write[round]);
	partner_stop(&p);
	if (rc < 0)
		return rc;
	series_count(out, "threads", o->threads);
	series_count(out, "read_faults_per_s", wvm_median(read, o->rounds));
	series_count(out, "write_faults_per_s", wvm_median(write, o->rounds));
	return 0;
}

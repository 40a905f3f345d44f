/*
 * `wvmbench capacity`: what the tables of a cluster on this machine take, counted by the kernel
 * and not computed: blocks of the masters' files, resident memory, page tables.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/wvmbench/bulk.h"
#include "bench/wvmbench/partner.h"
#include "bench/wvmbench/plan.h"
#include "bench/wvmbench/usage.h"

#define MIB (1024.0 * 1024.0)

/* Tables of all nodes together. */
struct tables {
	double directory, holder;
	struct usage own; /* of the first node, which is this program's */
};

static int count(const struct bulk_options *o, struct tables *t)
{
	struct usage u;

	memset(t, 0, sizeof(*t));
	for (unsigned i = 0; i < o->n_nodes; i++) {
		int rc = usage_of(&o->node[i], &u);

		if (rc < 0)
			return rc;
		t->directory += (double)u.directory;
		t->holder += (double)u.holder;
		if (i == 0)
			t->own = u;
	}
	return 0;
}

/* What the node with a program takes that has just mapped the whole VM. */
static int at_start(const struct bulk_options *o, struct attached *a, const struct tables *t,
		    struct series_set *out)
{
	uint64_t page_tables;
	double total;
	int rc = usage_status(getpid(), "VmPTE", &page_tables);

	if (rc < 0)
		return rc;
	total = (double)(t->own.directory + t->own.holder + t->own.fixed + t->own.process +
			 page_tables);
	series_count(out, "vm_gib", (double)a->pages * WVM_PAGE_SIZE / MIB / 1024);
	series_count(out, "start_client_page_tables_mib", (double)page_tables / MIB);
	series_count(out, "start_master_mib", (double)t->own.process / MIB);
	series_count(out, "start_files_mib",
		     (double)(t->own.directory + t->own.holder + t->own.fixed) / MIB);
	series_count(out, "start_mib", total / MIB);
	series_count(out, "bytes_per_untouched_unit",
		     (t->directory + t->holder) / (double)(a->units ? a->units : 1));
	return 0;
}

static int of_whole_units(const struct bulk_options *o, struct attached *a, uint64_t units,
			  struct series_set *out)
{
	struct tables before, after;
	uint64_t first;
	int rc = bulk_take_units(a, units, &first);

	if (rc == 0)
		rc = count(o, &before);
	if (rc < 0)
		return rc;
	for (uint64_t page = 0; page < units * PLAN_UNIT_PAGES; page++)
		*(volatile uint64_t *)attached_page(a, first * PLAN_UNIT_PAGES + page) = page + 1;
	rc = count(o, &after);
	series_count(out, "directory_bytes_per_whole_unit",
		     (after.directory - before.directory) / (double)units);
	series_count(out, "holder_bytes_per_whole_unit",
		     (after.holder - before.holder) / (double)units);
	return rc;
}

/* Pages that two nodes share: each is tracked by itself. */
static int of_shared_pages(const struct bulk_options *o, struct attached *a, uint64_t units,
			   struct series_set *out)
{
	uint64_t first, pages = units * PLAN_UNIT_PAGES;
	struct tables before, after;
	struct partner p;
	int rc = partner_start(&p, a, o);

	if (rc < 0)
		return rc;
	rc = bulk_take_units(a, units, &first);
	first *= PLAN_UNIT_PAGES;
	if (rc == 0)
		rc = count(o, &before);
	if (rc == 0)
		rc = partner_write(&p, first, pages);
	if (rc == 0)
		rc = partner_verify(&p, first, pages);
	if (rc == 0)
		rc = count(o, &after);
	partner_stop(&p);
	if (rc < 0)
		return rc;
	series_count(out, "directory_bytes_per_tracked_page",
		     (after.directory - before.directory) / (double)pages);
	series_count(out, "holder_bytes_per_held_page",
		     (after.holder - before.holder) / (2.0 * (double)pages));
	return 0;
}

int capacity_run(const struct bulk_options *o, struct attached *a, struct series_set *out)
{
	struct tables t;
	uint64_t mib = bulk_fit(o->mib, 4);
	int rc;

	if (o->n_nodes == 0) {
		fprintf(stderr,
			"wvmbench: whose memory? --node PREFIX:PID of each node's master\n");
		return -EINVAL;
	}
	if (mib == 0)
		return -ENOMEM;
	rc = count(o, &t);
	if (rc == 0)
		rc = at_start(o, a, &t, out);
	if (rc == 0)
		rc = of_whole_units(o, a, mib / 2, out);
	if (rc == 0)
		rc = of_shared_pages(o, a, mib / 2, out);
	return rc;
}

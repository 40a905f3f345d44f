/*
 * `wvmbench local`: memory that came from elsewhere and is used here alone by now, against a memfd:
 * random loads and stores. Nothing of WaveVM should be in the way any more, so faults are counted.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "bench/wvmbench/bulk.h"
#include "bench/wvmbench/partner.h"
#include "bench/wvmbench/plan.h"

#define SLICES   16u        /* of a round, in turn with the memfd's: what disturbs, disturbs both */
#define ACCESSES (1u << 19) /* loads in a slice, and as many stores */

struct set {
	uint64_t *mem, words;
	uint64_t seed;  /* of the next slice */
	uint64_t ns;    /* of all slices of the round */
	uint64_t minor; /* page faults that the kernel counted in them */
};

static uint64_t minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (uint64_t)usage.ru_minflt;
}

/* Every word is written: each page is Modified here, and both sets hold the same. */
static void fill(struct set *s)
{
	for (uint64_t i = 0; i < s->words; i++)
		s->mem[i] = plan_pattern(i / PLAN_WORDS, i % PLAN_WORDS, 1);
	s->seed = 88172645463325252ull;
}

static uint64_t next(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17; /* xorshift64 (Marsaglia 2003) */
}

static void slice(struct set *s)
{
	uint64_t x = s->seed, sum = 0, minor = minor_faults(), began = bulk_now();

	for (unsigned i = 0; i < ACCESSES; i++) {
		x = next(x);
		sum += s->mem[(x >> 32) * s->words >> 32];
		s->mem[(x & UINT32_MAX) * s->words >> 32] = x;
	}
	bulk_use(sum);
	s->ns += bulk_now() - began;
	s->minor += minor_faults() - minor;
	s->seed = x;
}

static void one_round(struct set *ours, struct set *plain, bool plain_first)
{
	ours->ns = plain->ns = 0;
	for (unsigned i = 0; i < SLICES; i++) {
		slice(plain_first ? plain : ours);
		slice(plain_first ? ours : plain);
	}
}

/* Another node has it first, where one is named. */
static int have_it_elsewhere(const struct bulk_options *o, struct attached *a, uint64_t first,
			     uint64_t pages)
{
	struct partner p;
	int rc;

	if (!o->peer_ring)
		return 0;
	rc = partner_start(&p, a, o);
	if (rc < 0)
		return rc;
	rc = partner_write(&p, first, pages);
	if (rc == 0)
		rc = partner_verify(&p, first, pages);
	partner_stop(&p);
	return rc;
}

static int measure(const struct bulk_options *o, struct attached *a, struct set *ours,
		   struct set *plain, struct series_set *out)
{
	struct series *s = series_begin(out, "local", "memfd", "M accesses/s");
	struct wvm_stats before, after;
	double accesses = 2.0 * SLICES * ACCESSES;

	fill(ours);
	fill(plain);
	one_round(ours, plain, true); /* not counted: caches and page tables */
	ours->minor = plain->minor = 0;
	wvm_stats(a->wvm, &before);
	for (unsigned round = 0; round < o->rounds; round++) {
		one_round(ours, plain, round % 2 == 0);
		series_add(s, accesses * 1e3 / (double)ours->ns,
			   accesses * 1e3 / (double)plain->ns);
	}
	wvm_stats(a->wvm, &after);
	series_count(out, "faults",
		     (double)(after.faults_read + after.faults_write - before.faults_read -
			      before.faults_write));
	series_count(out, "kernel_faults", (double)ours->minor);
	series_count(out, "kernel_faults_memfd", (double)plain->minor);
	if (memcmp(ours->mem, plain->mem, ours->words * sizeof(*ours->mem)) == 0)
		return 0;
	fprintf(stderr, "wvmbench: the same stores left something else than on a memfd\n");
	return -EBADMSG;
}

int local_run(const struct bulk_options *o, struct attached *a, struct series_set *out)
{
	/* Here, at the home, at the node that had it, and the memfd. */
	uint64_t mib = bulk_fit(o->mib, 4), pages = mib * 1024 * 1024 / WVM_PAGE_SIZE, first;
	struct set ours = {.words = pages * PLAN_WORDS}, plain = ours;
	int rc;

	if (mib == 0)
		return -ENOMEM;
	rc = bulk_take_units(a, pages / PLAN_UNIT_PAGES, &first);
	if (rc < 0)
		return rc;
	first *= PLAN_UNIT_PAGES;
	rc = have_it_elsewhere(o, a, first, pages);
	if (rc < 0)
		return rc;
	ours.mem = attached_page(a, first);
	plain.mem = bulk_plain_map(pages * WVM_PAGE_SIZE);
	if (!plain.mem)
		return -ENOMEM;
	series_count(out, "mib", (double)mib);
	rc = measure(o, a, &ours, &plain, out);
	munmap(plain.mem, pages * WVM_PAGE_SIZE);
	return rc;
}

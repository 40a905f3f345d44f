#include "bench/wvmbench/result.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct result *result_find(const struct results *r, const char *name, unsigned threads)
{
	for (unsigned i = 0; i < r->n; i++)
		if (r->entry[i].threads == threads && !strcmp(r->entry[i].name, name))
			return &r->entry[i];
	return NULL;
}

struct result *result_get(struct results *r, const char *name, unsigned threads)
{
	struct result *e = (struct result *)result_find(r, name, threads);

	if (e || r->n == RESULT_MAX)
		return e;
	e = &r->entry[r->n++];
	memset(e, 0, sizeof(*e));
	snprintf(e->name, sizeof(e->name), "%s", name);
	e->threads = threads;
	return e;
}

int result_add_summary(struct result *r, const struct wvm_summary *s)
{
	if (r->rounds == RESULT_ROUNDS)
		return -ENOSPC;
	r->round[r->rounds++] = *s;
	return 0;
}

int result_add_samples(struct result *r, struct wvm_samples *samples, uint64_t elapsed_ns)
{
	struct wvm_samples joined;
	struct wvm_summary s;
	int rc;

	wvm_summarize(samples, elapsed_ns, &s);
	rc = wvm_samples_init(&joined, r->samples.n + samples->n);
	if (rc == 0)
		rc = result_add_summary(r, &s);
	if (rc < 0)
		return rc;
	wvm_samples_append(&joined, &r->samples);
	wvm_samples_append(&joined, samples);
	wvm_samples_fini(&r->samples);
	r->samples = joined;
	r->elapsed_ns += elapsed_ns;
	samples->n = 0;
	return 0;
}

/* The median over the rounds of the figure at byte `offset` of a summary. */
static double median_of(const struct result *r, size_t offset)
{
	double v[RESULT_ROUNDS];

	for (unsigned i = 0; i < r->rounds; i++)
		v[i] = *(const double *)((const char *)&r->round[i] + offset);
	return wvm_median(v, r->rounds);
}

static void summarize_rounds(struct result *r)
{
	static const size_t FIGURES[] = {
		offsetof(struct wvm_summary, mean_us),   offsetof(struct wvm_summary, p50_us),
		offsetof(struct wvm_summary, p90_us),    offsetof(struct wvm_summary, p99_us),
		offsetof(struct wvm_summary, p999_us),   offsetof(struct wvm_summary, max_us),
		offsetof(struct wvm_summary, per_second)};

	memset(&r->summary, 0, sizeof(r->summary));
	if (r->rounds == 0)
		return;
	for (size_t i = 0; i < sizeof(FIGURES) / sizeof(FIGURES[0]); i++)
		*(double *)((char *)&r->summary + FIGURES[i]) = median_of(r, FIGURES[i]);
	for (unsigned i = 0; i < r->rounds; i++) {
		r->summary.count += r->round[i].count;
		for (unsigned b = 0; b < WVM_HIST_BUCKETS; b++)
			r->summary.bucket[b] += r->round[i].bucket[b];
	}
}

void results_finish(struct results *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		struct result *e = &r->entry[i];

		if (e->samples.n > 0)
			wvm_summarize(&e->samples, e->elapsed_ns, &e->summary);
		else
			summarize_rounds(e);
	}
}

void results_fini(struct results *r)
{
	for (unsigned i = 0; i < r->n; i++)
		wvm_samples_fini(&r->entry[i].samples);
	r->n = 0;
}

static bool compare(const struct result *a, const struct result *b, bool rate, struct ratio *out)
{
	double v[RESULT_ROUNDS];

	if (!a || !b)
		return false;
	out->rate = rate;
	out->rounds = a->rounds < b->rounds ? a->rounds : b->rounds;
	for (unsigned i = 0; i < out->rounds; i++) {
		const struct wvm_summary *x = &a->round[i], *y = &b->round[i];

		out->ours[i] = rate ? x->per_second : x->p50_us;
		out->base[i] = rate ? y->per_second : y->p50_us;
		if (out->base[i] <= 0)
			return false;
		out->round[i] = v[i] = out->ours[i] / out->base[i];
	}
	if (out->rounds == 0)
		return false;
	out->value = wvm_median(v, out->rounds);
	return true;
}

unsigned results_compare(const struct results *a, const struct results *b, struct ratio *out,
			 unsigned max)
{
	static const struct {
		const char *name, *ours, *floor;
	} PAIRS[] = {
		{"local-miss", "local-miss", "local-miss"},
		{"zero-page", "zero-page", "zero-page"},
		{"remote-read", "remote-read", "remote-read"},
		{"remote-write", "remote-write", "remote-write"},
		{"remote-write-upgrade", "remote-write-upgrade", "remote-write-upgrade"},
	};
	unsigned n = 0;

	for (size_t i = 0; i < sizeof(PAIRS) / sizeof(PAIRS[0]) && n < max; i++) {
		snprintf(out[n].name, sizeof(out[n].name), "%s", PAIRS[i].name);
		n += compare(result_find(a, PAIRS[i].ours, 1), result_find(b, PAIRS[i].floor, 1),
			     false, &out[n]);
	}
	for (unsigned i = 0; i < a->n && n < max; i++) {
		const struct result *e = &a->entry[i];

		if (e->threads == 1 || strcmp(e->name, "remote-read") != 0)
			continue;
		snprintf(out[n].name, sizeof(out[n].name), "rate-%u-threads", e->threads);
		n += compare(e, result_find(b, e->name, e->threads), true, &out[n]);
	}
	return n;
}

static void ratio_values(FILE *out, const char *key, const double *v, unsigned n)
{
	fprintf(out, ", \"%s\": [", key);
	for (unsigned i = 0; i < n; i++)
		fprintf(out, "%s%.10g", i ? ", " : "", v[i]);
	fprintf(out, "]");
}

void ratios_json(FILE *out, const struct ratio *ratio, unsigned n)
{
	fprintf(out, "[");
	for (unsigned i = 0; i < n; i++) {
		fprintf(out, "%s\n{\"name\": \"%s\", \"unit\": \"%s\", \"against\": \"floor\"",
			i ? "," : "", ratio[i].name, ratio[i].rate ? "faults/s" : "us");
		ratio_values(out, "ours", ratio[i].ours, ratio[i].rounds);
		ratio_values(out, "base", ratio[i].base, ratio[i].rounds);
		fprintf(out, "}");
	}
	fprintf(out, "]");
}

void results_print(FILE *out, const char *title, const struct results *r, bool histogram)
{
	fprintf(out, "%s\n", title);
	wvm_summary_head(out);
	for (unsigned i = 0; i < r->n; i++) {
		const struct result *e = &r->entry[i];

		wvm_summary_row(out, e->name, e->threads, &e->summary);
		if (histogram)
			wvm_hist_print(out, &e->summary);
	}
}

void results_json(FILE *out, const struct results *r)
{
	fprintf(out, "[");
	for (unsigned i = 0; i < r->n; i++) {
		fprintf(out, "%s\n", i ? "," : "");
		wvm_summary_json(out, r->entry[i].name, r->entry[i].threads, &r->entry[i].summary);
	}
	fprintf(out, "]");
}

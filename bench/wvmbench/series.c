#include "bench/wvmbench/series.h"

#include <assert.h>
#include <string.h>

#include "bench/wvmbench/hist.h"

struct series *series_begin(struct series_set *set, const char *name, const char *against,
			    const char *unit)
{
	struct series *s;

	assert(set->n < SERIES_MAX);
	s = &set->series[set->n++];
	snprintf(s->name, sizeof(s->name), "%s", name);
	snprintf(s->against, sizeof(s->against), "%s", against);
	snprintf(s->unit, sizeof(s->unit), "%s", unit);
	s->rounds = 0;
	return s;
}

void series_add(struct series *s, double ours, double base)
{
	assert(s->rounds < SERIES_ROUNDS);
	s->ours[s->rounds] = ours;
	s->base[s->rounds++] = base;
}

void series_count(struct series_set *set, const char *name, double value)
{
	assert(set->n_counts < SERIES_COUNTS);
	snprintf(set->count[set->n_counts].name, sizeof(set->count[0].name), "%s", name);
	set->count[set->n_counts++].value = value;
}

static double ratio_of(const struct series *s, unsigned round)
{
	return s->base[round] > 0 ? s->ours[round] / s->base[round] : 0;
}

double series_ratio(const struct series *s)
{
	double v[SERIES_ROUNDS];

	for (unsigned i = 0; i < s->rounds; i++)
		v[i] = ratio_of(s, i);
	return s->rounds ? wvm_median(v, s->rounds) : 0;
}

static double median_of(const double *from, unsigned n)
{
	double v[SERIES_ROUNDS];

	memcpy(v, from, n * sizeof(*v));
	return n ? wvm_median(v, n) : 0;
}

void series_print(FILE *out, const struct series_set *set, const char *layout)
{
	for (unsigned i = 0; i < set->n; i++) {
		const struct series *s = &set->series[i];

		for (unsigned k = 0; k < s->rounds; k++)
			fprintf(out, "%-16s round %-2u %12.1f %s, %s %.1f %s: %.3f\n", s->name,
				k + 1, s->ours[k], s->unit, s->against, s->base[k], s->unit,
				ratio_of(s, k));
		fprintf(out, "%-16s median   %12.1f %s, %s %.1f %s\n", s->name,
			median_of(s->ours, s->rounds), s->unit, s->against,
			median_of(s->base, s->rounds), s->unit);
	}
	for (unsigned i = 0; i < set->n_counts; i++)
		fprintf(out, "count %s %s %.10g\n", set->count[i].name, layout,
			set->count[i].value);
	for (unsigned i = 0; i < set->n; i++)
		fprintf(out, "ratio %s %s %.3f\n", set->series[i].name, layout,
			series_ratio(&set->series[i]));
}

static void numbers(FILE *out, const char *key, const double *v, unsigned n)
{
	fprintf(out, ", \"%s\": [", key);
	for (unsigned i = 0; i < n; i++)
		fprintf(out, "%s%.10g", i ? ", " : "", v[i]);
	fprintf(out, "]");
}

void series_json(FILE *out, const struct series_set *set, const char *program, const char *layout)
{
	fprintf(out, "{\"program\": \"wvmbench %s\", \"layout\": \"%s\", \"counts\": {", program,
		layout);
	for (unsigned i = 0; i < set->n_counts; i++)
		fprintf(out, "%s\"%s\": %.10g", i ? ", " : "", set->count[i].name,
			set->count[i].value);
	fprintf(out, "},\n\"series\": [");
	for (unsigned i = 0; i < set->n; i++) {
		const struct series *s = &set->series[i];

		fprintf(out, "%s\n{\"name\": \"%s\", \"unit\": \"%s\", \"against\": \"%s\"",
			i ? "," : "", s->name, s->unit, s->against);
		numbers(out, "ours", s->ours, s->rounds);
		numbers(out, "base", s->base, s->rounds);
		fprintf(out, "}");
	}
	fprintf(out, "]}\n");
}

#include "bench/wvmbench/hist.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int wvm_samples_init(struct wvm_samples *s, size_t room)
{
	s->n = 0;
	s->room = room;
	s->ns = malloc(room * sizeof(*s->ns) + 1);
	if (!s->ns)
		return -ENOMEM;
	/* So that no page fault of ours falls into a measurement. */
	memset(s->ns, 0xff, room * sizeof(*s->ns) + 1);
	return 0;
}

void wvm_samples_fini(struct wvm_samples *s)
{
	free(s->ns);
	memset(s, 0, sizeof(*s));
}

void wvm_samples_add(struct wvm_samples *s, uint64_t ns)
{
	assert(s->n < s->room);
	s->ns[s->n++] = ns;
}

void wvm_samples_append(struct wvm_samples *s, const struct wvm_samples *from)
{
	assert(from->n <= s->room - s->n);
	if (from->n == 0)
		return;
	memcpy(s->ns + s->n, from->ns, from->n * sizeof(*s->ns));
	s->n += from->n;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The per_mille percentile of sorted samples, in us. */
static double percentile(const struct wvm_samples *s, unsigned per_mille)
{
	size_t rank = (s->n * per_mille + 999) / 1000;

	return (double)s->ns[rank > 0 ? rank - 1 : 0] / 1e3;
}

unsigned wvm_hist_bucket(uint64_t ns)
{
	uint64_t us = ns / 1000;
	unsigned bucket = us > 0 ? 63 - (unsigned)__builtin_clzll(us) : 0;

	return bucket < WVM_HIST_BUCKETS ? bucket : WVM_HIST_BUCKETS - 1;
}

void wvm_summarize(struct wvm_samples *s, uint64_t elapsed_ns, struct wvm_summary *out)
{
	double sum = 0;

	memset(out, 0, sizeof(*out));
	if (s->n == 0)
		return;
	qsort(s->ns, s->n, sizeof(*s->ns), by_value);
	for (size_t i = 0; i < s->n; i++) {
		sum += (double)s->ns[i];
		out->bucket[wvm_hist_bucket(s->ns[i])]++;
	}
	out->count = s->n;
	out->mean_us = sum / (double)s->n / 1e3;
	out->p50_us = percentile(s, 500);
	out->p90_us = percentile(s, 900);
	out->p99_us = percentile(s, 990);
	out->p999_us = percentile(s, 999);
	out->max_us = (double)s->ns[s->n - 1] / 1e3;
	if (elapsed_ns > 0)
		out->per_second = (double)s->n * 1e9 / (double)elapsed_ns;
}

static const char *time_text(uint64_t us, char text[32])
{
	static const char *const UNITS[] = {"us", "ms", "sec"};
	unsigned unit = 0;

	for (; us >= 1000 && unit < 2; unit++)
		us /= 1000;
	snprintf(text, 32, "%" PRIu64 " %s", us, UNITS[unit]);
	return text;
}

void wvm_hist_print(FILE *out, const struct wvm_summary *s)
{
	unsigned first = 0, last = WVM_HIST_BUCKETS - 1;
	char from[32], to[32];

	if (s->count == 0)
		return;
	while (s->bucket[first] == 0)
		first++;
	while (s->bucket[last] == 0)
		last--;
	fprintf(out, "Latency Distribution:\n");
	for (unsigned i = first; i <= last; i++)
		fprintf(out, "  [ %8s - %8s ]: %10" PRIu64 "\n", time_text(1ull << i, from),
			time_text(2ull << i, to), s->bucket[i]);
}

void wvm_summary_head(FILE *out)
{
	fprintf(out, "%-22s %7s %8s %8s %8s %8s %8s %8s %9s %10s\n", "us", "threads", "count",
		"mean", "p50", "p90", "p99", "p99.9", "max", "per s");
}

void wvm_summary_row(FILE *out, const char *name, unsigned threads, const struct wvm_summary *s)
{
	fprintf(out, "%-22s %7u %8" PRIu64 " %8.2f %8.2f %8.2f %8.2f %8.2f %9.1f %10.0f\n", name,
		threads, s->count, s->mean_us, s->p50_us, s->p90_us, s->p99_us, s->p999_us,
		s->max_us, s->per_second);
}

void wvm_summary_json(FILE *out, const char *name, unsigned threads, const struct wvm_summary *s)
{
	fprintf(out,
		"{\"name\": \"%s\", \"threads\": %u, \"count\": %" PRIu64
		", \"mean_us\": %.3f, \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f, "
		"\"p99.9_us\": %.3f, \"max_us\": %.3f, \"faults_per_s\": %.1f, \"log2_us\": [",
		name, threads, s->count, s->mean_us, s->p50_us, s->p90_us, s->p99_us, s->p999_us,
		s->max_us, s->per_second);
	for (unsigned i = 0; i < WVM_HIST_BUCKETS; i++)
		fprintf(out, "%s%" PRIu64, i ? ", " : "", s->bucket[i]);
	fprintf(out, "]}");
}

static int by_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double wvm_median(double *v, size_t n)
{
	assert(n > 0);
	qsort(v, n, sizeof(*v), by_double);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

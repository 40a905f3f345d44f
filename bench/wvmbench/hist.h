/*
 * Latency samples and what is said about them. Pure; used by wvmbench and by
 * the floor program, so that both count in the same way.
 */
#ifndef WVMBENCH_HIST_H
#define WVMBENCH_HIST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define WVM_HIST_BUCKETS 24 /* as QEMU's postcopy latency distribution: 1 us to 16 s */

/* Samples of one phase, one per access. */
struct wvm_samples {
	uint64_t *ns;
	size_t n, room;
};

struct wvm_summary {
	uint64_t count;
	double mean_us, p50_us, p90_us, p99_us, p999_us, max_us; /* 0 without samples */
	double per_second; /* count over the time the phase took; 0 if that is unknown */
	uint64_t bucket[WVM_HIST_BUCKETS]; /* [i]: 2^i us <= t < 2^(i+1) us; the ends take the rest
					    */
};

/* Makes room for that many samples; their memory is touched here. 0 or -ENOMEM. */
int wvm_samples_init(struct wvm_samples *s, size_t room);
void wvm_samples_fini(struct wvm_samples *s);

/* Adds a sample; one beyond the room is a mistake of the caller (assertion). */
void wvm_samples_add(struct wvm_samples *s, uint64_t ns);

/* Appends all of from to s. */
void wvm_samples_append(struct wvm_samples *s, const struct wvm_samples *from);

/*
 * Sorts the samples and fills *out. A percentile p is the smallest sample that at least p of
 * all samples do not exceed (nearest rank). elapsed_ns: from the first to the last access.
 */
void wvm_summarize(struct wvm_samples *s, uint64_t elapsed_ns, struct wvm_summary *out);

/* The bucket of a latency. */
unsigned wvm_hist_bucket(uint64_t ns);

/* "Latency distribution" as QEMU prints it, from the first to the last bucket in use. */
void wvm_hist_print(FILE *out, const struct wvm_summary *s);

/* A table: the head, then one row per summary. */
void wvm_summary_head(FILE *out);
void wvm_summary_row(FILE *out, const char *name, unsigned threads, const struct wvm_summary *s);

/* One JSON object, without a line end. name needs no escapes. */
void wvm_summary_json(FILE *out, const char *name, unsigned threads, const struct wvm_summary *s);

/* The median of n >= 1 values, which it sorts; the mean of the middle two if n is even. */
double wvm_median(double *v, size_t n);

#endif

/* Runs wvm_floor and reads what it says. */
#ifndef WVMBENCH_FLOOR_H
#define WVMBENCH_FLOOR_H

#include "bench/wvmbench/result.h"

struct floor_run {
	const char *program;   /* path of wvm_floor; NULL: beside this program */
	const char *arguments; /* layout options, e.g. "--cores 0,0,1 --spin"; trusted */
	unsigned threads;
	uint64_t pages;
};

/* Runs it once and adds each of its results to *out as a round. 0 or -errno with a line. */
int floor_round(const struct floor_run *f, struct results *out);

/* Adds the results in a text that wvm_floor --json printed. 0 or -EBADMSG, -ENOSPC. */
int floor_parse(const char *json, struct results *out);

/*
 * Runs program (NULL: wvm_floor beside this one) for a stream of that many MiB, of the kind
 * that a further option names ("": with checksums and copying). 0 with the time it took, or -errno
 * with a line on standard error.
 */
int floor_stream(const char *program, const char *arguments, uint64_t mib, const char *kind,
		 double *seconds);

/* What such a run prints: 0, or -EBADMSG. */
int floor_parse_stream(const char *json, double *seconds);

/*
 * Runs it for so many round trips through two relays, of that many bytes (1 to 65536) each way. 0
 * with their summary, or -errno with a line on standard error.
 */
int floor_relay(const char *program, const char *arguments, uint64_t runs, unsigned bytes,
		struct wvm_summary *out);

/* What such a run prints: 0, or -EBADMSG. */
int floor_parse_relay(const char *json, unsigned bytes, struct wvm_summary *out);

#endif

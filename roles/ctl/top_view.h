/* What `wvm_ctl top` knows at one moment, as text and as JSON. No I/O but to the stream given. */
#ifndef WVM_CTL_TOP_VIEW_H
#define WVM_CTL_TOP_VIEW_H

#include <stdio.h>

#include "roles/ctl/top_poll.h"

#define WVM_TOP_TARGETS_MAX 64u

enum wvm_top_sort {
	WVM_TOP_BY_ORDER, /* in which they were named */
	WVM_TOP_BY_NODE,
	WVM_TOP_BY_FAULTS,
	WVM_TOP_BY_P99,
	WVM_TOP_BY_DROPS,
	WVM_TOP_SORTS
};

struct wvm_top_view {
	struct wvm_top_target *targets;
	unsigned count; /* 1 to WVM_TOP_TARGETS_MAX */
	double interval_s;
	enum wvm_top_sort sort;
	bool paused;
};

/* A table of masters, one of gateways, and the members as each master sees them. now_ns as the
 * targets' times.
 */
void wvm_top_text(const struct wvm_top_view *v, uint64_t now_ns, FILE *out);
/* The caller's to decref; NULL: no memory. */
json_t *wvm_top_json(const struct wvm_top_view *v, uint64_t now_ns);

/* A figure in at most 5 characters, as 7, 0.25, 12.3k; a time, as 45u, 1.2m, 3.0s; bytes, as 3.2G;
 * seconds, as 59s, 12m, 3h, 10d. Whatever the value is.
 */
void wvm_top_figure(char out[8], double value);
void wvm_top_time(char out[8], double us);
void wvm_top_bytes(char out[8], double bytes);
void wvm_top_span(char out[8], double s);

#endif

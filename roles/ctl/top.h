/* wvm_ctl top: what masters and gateways do at present, again and again. */
#ifndef WVM_CTL_TOP_H
#define WVM_CTL_TOP_H

#include <stdbool.h>
#include <stdint.h>

#include "roles/ctl/top_view.h"

#define WVM_TOP_INTERVAL_MIN_S 0.1
#define WVM_TOP_INTERVAL_MAX_S 3600.0

struct wvm_top_options {
	struct {
		uint32_t ip; /* host order */
		uint16_t port;
	} at[WVM_TOP_TARGETS_MAX];
	unsigned count;    /* of at; at least 1 */
	double interval_s; /* WVM_TOP_INTERVAL_MIN_S to _MAX_S */
	unsigned samples;  /* 0: until the user ends it, as JSON 1 */
	bool json;
};

/*
 * On a terminal a screen that obeys keys, otherwise text (or JSON, a line each) one after the
 * other, each of rates over an interval. The exit status of wvm_ctl: 1, with a line on standard
 * error, when nobody has answered at all, or the output cannot be written.
 */
int wvm_top(const struct wvm_top_options *o);

#endif

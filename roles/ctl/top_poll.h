/*
 * Asks daemons for what `wvm_ctl top` shows, all at the same time: nothing here waits. A round
 * asks one daemon for all its answers, one after the other; when it is late it ends without any.
 *
 * Times are CLOCK_MONOTONIC in ns, the caller's.
 */
#ifndef WVM_CTL_TOP_POLL_H
#define WVM_CTL_TOP_POLL_H

#include "roles/ctl/ask.h"
#include "roles/ctl/top_sample.h"

/* One daemon. */
struct wvm_top_target {
	uint32_t ip; /* host order */
	uint16_t port;

	struct wvm_top_sample *now, *before; /* NULL: there is none (yet) */
	struct wvm_top_rates rates;          /* between these two */
	uint64_t heard_ns;                   /* of `now`, or when it was begun with */
	int failed; /* -errno of the latest round, 0: it came to its end: -ECONNREFUSED, -ETIMEDOUT,
		     * -EPROTO when what came cannot be read */

	/* The present round. */
	struct wvm_top_sample *next;
	int fd; /* -1: there is no round */
	unsigned step;
	uint16_t part, parts;
	uint32_t snapshot;
	char *text;
	size_t len;
	uint64_t try_ns, again_ns, until_ns;
};

/* 0 or -ENOMEM. */
int wvm_top_open(struct wvm_top_target *t, uint32_t ip, uint16_t port, uint64_t now_ns);
void wvm_top_close(struct wvm_top_target *t);

/* Begins a round, which ends within limit_ns; not when one is under way. */
void wvm_top_begin(struct wvm_top_target *t, uint64_t now_ns, uint64_t limit_ns);
/* Goes on with it. After it was called, the caller waits for fd, or until wvm_top_due(). */
void wvm_top_go_on(struct wvm_top_target *t, uint64_t now_ns);
/* UINT64_MAX when there is no round. */
uint64_t wvm_top_due(const struct wvm_top_target *t);

#endif

/* A peer on another node of this machine, for benchmarks that need one to have written first. */
#ifndef WVMBENCH_PARTNER_H
#define WVMBENCH_PARTNER_H

#include <sys/types.h>

#include "bench/wvmbench/attach.h"
#include "bench/wvmbench/bulk.h"

struct partner {
	struct attached *a;
	pid_t pid;
	int node;
	uint64_t generation; /* of the pattern it wrote last */
};

/* Starts a peer at o->peer_ring and waits for it. 0, or -errno with a line; then nothing runs. */
int partner_start(struct partner *p, struct attached *a, const struct bulk_options *o);
void partner_stop(struct partner *p);

/* It writes a new pattern to `pages` pages from `first` on. 0, or -errno with a line. */
int partner_write(struct partner *p, uint64_t first, uint64_t pages);

/* The same to several spans, at most MAILBOX_SPANS. */
int partner_write_spans(struct partner *p, const struct mailbox_span *span, unsigned n);

/* It reads them and finds that pattern. 0, or -errno with a line: -EBADMSG when a word is wrong. */
int partner_read(struct partner *p, uint64_t first, uint64_t pages);

/* Whether the words of these pages, read here, are the pattern of p->generation; else a line. */
int partner_verify(const struct partner *p, uint64_t first, uint64_t pages);

#endif

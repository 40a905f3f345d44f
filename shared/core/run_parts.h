/* What run.c has for both sides of a run; not for others. */
#ifndef WVM_CORE_RUN_PARTS_H
#define WVM_CORE_RUN_PARTS_H

#include "shared/core/run.h"

#define WVM_RUN_NEVER UINT64_MAX

/* Nothing has come. */
void wvm_run_parts_reset(struct wvm_run_parts *p);
/* Takes a segment, unless it cannot be one of these. True: all of it is there, len bytes. */
bool wvm_run_parts_add(struct wvm_run_parts *p, const struct wvm_msg *m, const uint8_t *payload);

/* All of data is to be sent. */
void wvm_run_out_start(struct wvm_run_out *out, const void *data, uint32_t len);
/* The next segment: what m says of it, and its bytes. False: none is to be sent now. */
bool wvm_run_out_next(struct wvm_run_out *out, uint32_t segment, struct wvm_msg *m,
		      const uint8_t **payload);

static inline uint64_t wvm_run_earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The wait before the retry after next. */
static inline uint64_t wvm_run_longer(uint64_t wait_ns)
{
	return wvm_run_earlier(2 * wait_ns, WVM_RUN_RETRY_MAX_NS);
}

#endif

/* Which pages `wvmbench rate` takes. */
#ifndef WVMBENCH_RATE_H
#define WVMBENCH_RATE_H

#include "bench/wvmbench/plan.h"

#define RATE_RANGE_UNITS 512u /* 1 GiB: ranges are dealt to shards in turn (shared/PROTOCOL.md) */

/*
 * n units from `first` on, and the same of the next range: first all of one range, then all of
 * the other, so that of an even number of threads half are in each. 0, or -EINVAL (none, or more
 * than a command to a peer has room for).
 */
int rate_plan(struct plan_set *set, uint64_t first, uint64_t n);

#endif

/* `wvmbench fault --explain`: where the time of a remote read fault goes. */
#ifndef WVMBENCH_EXPLAIN_H
#define WVMBENCH_EXPLAIN_H

#include "bench/wvmbench/fault_int.h"

/* Whether it can be done as it is asked for, before anything runs. 0, or -errno with a line. */
int explain_check(const struct fault_options *o);

/* Runs the faults, with all peers there, and reports. 0, or -errno with a line. */
int explain_run(struct bench *b);

#endif

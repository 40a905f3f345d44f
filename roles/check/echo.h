/*
 * A slave for tests of the relay: a thread with a socket where a master of the cluster expects
 * its slave, which speaks the run protocol and answers a run with its bytes changed. It counts
 * how often it executed each run, and is late, refuses or is kicked as the test wants.
 */
#ifndef WVM_CHECK_ECHO_H
#define WVM_CHECK_ECHO_H

#include <pthread.h>
#include <stdatomic.h>

#include "roles/check/cluster.h"
#include "shared/core/run.h"

#define ECHO_VCPUS 8u
#define ECHO_RUNS  20000u /* of a processor, that are counted */
#define ECHO_CORES 3u     /* what it says of itself */

struct echo_vcpu {
	struct wvm_run_slave run;
	bool known;
	uint64_t answer_at; /* UINT64_MAX: nothing runs */
	uint8_t in[WVM_RUN_MAX], out[WVM_RUN_MAX];
	atomic_uchar executed[ECHO_RUNS + 1]; /* by seq */
	atomic_uint aborts;
};

struct echo {
	const struct cluster *cluster;
	unsigned node;
	uint64_t life;
	pthread_t thread;
	int fd, stop_fd;
	atomic_ulong delay_ns; /* until a run is answered, unless it is kicked */
	atomic_uint refuse;    /* enum wvm_run_reason, 0: none */
	atomic_uint strangers; /* datagrams that are not the master's */
	struct echo_vcpu vcpu[ECHO_VCPUS];
};

/* life: not 0. What it counts begins anew. */
void echo_start(struct echo *e, const struct cluster *c, unsigned node, uint64_t life);
void echo_stop(struct echo *e);

/* What comes back for a byte of a run. */
static inline uint8_t echo_of(uint8_t byte, size_t at)
{
	return (uint8_t)(byte ^ 0x5a ^ at);
}

#endif

/*
 * The channel between a slave and the process that it started to run processors (our QEMU with
 * WVM_ROLE=SLAVE): a memfd with, for each processor, one SPSC ring each way and a word of kicks;
 * eventfds as doorbells. The slave makes it and hands the descriptors down by inheritance; the
 * numbers are in the environment (WVM_ENGINE="memfd,vcpus,to_slave,kicks,first_doorbell,slave",
 * the last one its process). Host byte order. The slave's side: shared/engine_host.h.
 *
 * Runs and answers are those of shared/vcpu.h, whole, one record each; the seq before them. Each
 * side's rings are read with the checks of shared/spsc.h: neither trusts the other.
 *
 * Engine side: wvm_engine_* below; each processor's functions belong to its thread. One helper
 * thread waits for kicks and calls on_kick, which takes no lock and touches no guest memory.
 */
#ifndef WVM_SHARED_ENGINE_H
#define WVM_SHARED_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/run.h"
#include "shared/spsc.h"
#include "shared/vcpu.h"

#define WVM_ENGINE_ENV "WVM_ENGINE"
#define WVM_ENGINE_CAPACITY \
	262144u /* data bytes of each ring: two of the longest records and their padding */

enum wvm_engine_msg {
	WVM_ENGINE_RUN = 1,    /* slave to engine: uint64_t seq, the run */
	WVM_ENGINE_EXIT = 2,   /* engine to slave: uint64_t seq, the answer */
	WVM_ENGINE_REFUSE = 3, /* uint64_t seq, uint64_t reason */
};

struct wvm_engine;

/* May be called before wvm_engine_open() returns, and for a run that is not waited for yet. */
typedef void wvm_engine_kick_fn(void *opaque, unsigned vcpu);

/* Takes up the channel that the environment names. 0, or -errno with one line in err. */
int wvm_engine_open(struct wvm_engine **out, wvm_engine_kick_fn *on_kick, void *opaque, char *err,
		    size_t err_len);
void wvm_engine_close(struct wvm_engine *e);
unsigned wvm_engine_vcpus(const struct wvm_engine *e);

/*
 * Waits for the next run of a processor: its bytes in buf (WVM_RUN_MAX), their number returned, and
 * *seq. -EINTR after wvm_engine_wake(). -ECONNRESET: the slave is gone, -EPROTO, -EMSGSIZE: it has
 * broken the rules; the process is to end.
 */
int wvm_engine_wait(struct wvm_engine *e, unsigned vcpu, void *buf, size_t room, uint64_t *seq);
void wvm_engine_wake(struct wvm_engine *e, unsigned vcpu);

/* Whether the run that was waited for last is to end soon. Cheap: two loads. */
bool wvm_engine_kicked(const struct wvm_engine *e, unsigned vcpu);

int wvm_engine_exit(struct wvm_engine *e, unsigned vcpu, uint64_t seq, const void *answer,
		    size_t len);
int wvm_engine_refuse(struct wvm_engine *e, unsigned vcpu, uint64_t seq, unsigned reason);

#endif

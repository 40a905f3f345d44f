/*
 * The slave of a node: runs processors of VMs that other nodes' programs own. One shard with
 * one socket on loopback, which talks to the master of its node and to nobody else; for each
 * (VM, processor) the slave's side of the run protocol; engines that execute.
 *
 * A VM is one in one life of its owner. The first run of a later life takes its place, once
 * what still runs has ended (BUSY until then); messages of earlier lives are dropped. A VM
 * that has been silent for a minute makes room for another one that needs it, but never while
 * a processor of it runs, or is within an instruction.
 */
#ifndef WVM_SLAVE_SLAVE_H
#define WVM_SLAVE_SLAVE_H

#include "ring/daemon.h"
#include "ring/shard.h"
#include "ring/udp.h"
#include "roles/slave/engine.h"
#include "roles/slave/options.h"

#define WVM_SLAVE_VMS     16u
#define WVM_SLAVE_CPUS    64u /* of all VMs together: 8 MiB for what they send and answer */
#define WVM_SLAVE_POLL_NS UINT64_C(50000) /* as the master's */
#define WVM_SLAVE_FORGET_NS \
	UINT64_C(60000000000) /* far longer than any copy of a message is under way */
/*
 * A VM whose processor left something here that its owner has not (MIDWAY, STAYS) is forgotten
 * after a day of silence, and only when there is no room otherwise: by then its owner is gone.
 */
#define WVM_SLAVE_KEPT_NS   UINT64_C(86400000000000)
/* An owner that is silent so long has given its run up by half of that time. */
#define WVM_SLAVE_SILENT_NS (2 * WVM_RUN_DEADLINE_NS)

struct wvm_slave;

struct wvm_slave_vm {
	bool used;
	uint16_t id;
	uint64_t life; /* of the owner */
	uint64_t heard_ns;
	const struct wvm_engine *engine; /* NULL: no run yet */
	struct wvm_engine_vm *machine;
	/*
	 * What was refused before its processor had an entry: up to this seq, of this life. A copy
	 * that comes later, when there is room, is not to be executed either.
	 */
	uint64_t barred_life;
	uint64_t barred_seq[WVM_VCPU_MAX];
};

struct wvm_slave_cpu {
	struct wvm_slave *slave;
	struct wvm_slave_vm *vm; /* NULL: free */
	struct wvm_run_slave run;
	struct wvm_job job;
	bool executing;    /* the job is the engine's */
	uint64_t heard_ns; /* from its owner, in its present life */
	struct wvm_timer timer;
	uint8_t *in, *out; /* WVM_RUN_MAX bytes each */
};

struct wvm_slave_counters {
	uint64_t messages, strangers; /* strangers: datagrams that the master has not sent */
	uint64_t runs, answers, refusals, kicks, hellos;
	uint64_t drops[WVM_DROP_REASONS];
};

/* All of it is the shard's thread's, once that runs; counters are read by others. */
struct wvm_slave {
	const struct wvm_slave_options *options;
	struct wvm_engine_env env;
	struct wvm_place places[WVM_SLAVE_CPUS];
	int claim_fd;
	struct wvm_shard *shard;
	struct wvm_udp *udp;
	struct sockaddr_in master;
	uint32_t self; /* vnode */
	uint32_t segment;
	uint64_t life;
	uint32_t engines; /* as in struct wvm_vcpu_hello */
	bool stopping;
	uint64_t full_until_ns; /* VMs are not taken on so long */
	bool said_full;
	struct wvm_slave_vm vms[WVM_SLAVE_VMS];
	struct wvm_slave_cpu cpus[WVM_SLAVE_CPUS];
	uint8_t *buffers;
	struct wvm_slave_counters counters;
	int exit_status;
};

/* 0, or -errno with one line in err, nothing left behind. `s` is zeroed memory of the caller. */
int wvm_slave_start(struct wvm_slave *s, const struct wvm_slave_options *options, char *err,
		    size_t err_len);
/* Ends what runs, with its answers unsaid, then the engines. */
void wvm_slave_stop(struct wvm_slave *s);

/* table.c: the VMs and processors that there are */

struct wvm_slave_vm *wvm_slave_vm_find(struct wvm_slave *s, uint16_t id);
/* Takes a VM on, in the place of a forgotten one if need be; NULL: no room. */
struct wvm_slave_vm *wvm_slave_vm_add(struct wvm_slave *s, uint16_t id, uint64_t life,
				      uint64_t now_ns);
/* Ends its engine and forgets its processors; none is executing. */
void wvm_slave_vm_clear(struct wvm_slave *s, struct wvm_slave_vm *vm);
bool wvm_slave_vm_executing(const struct wvm_slave *s, const struct wvm_slave_vm *vm);
struct wvm_slave_cpu *wvm_slave_cpu_find(struct wvm_slave *s, const struct wvm_slave_vm *vm,
					 unsigned vcpu);
struct wvm_slave_cpu *wvm_slave_cpu_add(struct wvm_slave *s, struct wvm_slave_vm *vm, unsigned vcpu,
					uint64_t now_ns);
unsigned wvm_slave_executing(const struct wvm_slave *s);
/* Whether a run was refused for lack of room; and notes that it is. */
bool wvm_slave_barred(const struct wvm_slave_vm *vm, uint64_t life, unsigned vcpu, uint64_t seq);
void wvm_slave_bar(struct wvm_slave_vm *vm, uint64_t life, unsigned vcpu, uint64_t seq);

/* runs.c: what comes from the master */
void wvm_slave_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len);
void wvm_slave_room(void *ctx);
void wvm_slave_timer(struct wvm_timer *timer, uint64_t now_ns);
void wvm_slave_job_done(struct wvm_job *job);
/* What runs is to end, and nobody wants its answer. */
void wvm_slave_abort(struct wvm_slave_cpu *c);
/* Says that the calling thread is the shard's. */
void wvm_slave_runs_begin(void);

#endif

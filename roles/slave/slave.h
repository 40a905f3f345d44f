/*
 * The slave daemon: one shard with a socket for its master, the slave's side of the run protocol
 * for each processor that it has heard of, and the engines that execute what comes.
 * What a node's slave knows of a processor it keeps for all of its life: only so is no run executed
 * twice. Everything belongs to the shard's thread.
 */
#ifndef WVM_SLAVE_SLAVE_H
#define WVM_SLAVE_SLAVE_H

#include <netinet/in.h>

#include "ring/udp.h"
#include "roles/slave/engine.h"
#include "shared/client_priv.h"

#define WVM_SLAVE_VCPUS_MAX 256u /* of all VMs together, in one life */
#define WVM_SLAVE_VMS_MAX   8u

/* A VM in one life of its owner. */
struct wvm_slave_vm {
	bool used;
	uint16_t id;
	uint8_t kind; /* enum wvm_vcpu_engine */
	uint64_t life;
	const struct wvm_engine_ops *ops;
	struct wvm_engine_vm *engine;
	uint32_t vcpus;
	unsigned running;
	uint64_t busy_ns; /* when a later life has been refused first; 0: has not */
};

struct wvm_slave_vcpu {
	struct wvm_slave *slave;
	struct wvm_slave_vm *vm; /* of the job, while it is busy */
	bool busy;
	uint64_t heard_ns; /* from its owner */
	struct wvm_run_slave run;
	struct wvm_job job;
	struct wvm_timer timer;
};

struct wvm_slave {
	const struct wvm_slave_options *options;
	struct wvm_kernel kernel;
	struct wvm_place places[WVM_SLAVE_CORES_MAX];
	int claim_fd;
	struct wvm_shard *shard;
	struct wvm_udp *udp;
	uint64_t life;
	uint32_t engines; /* 1 << enum wvm_vcpu_engine, or'ed */
	/* The master, as its ring file says. */
	struct wvm_ring_file *ring;
	struct sockaddr_in master; /* port 0: not known */
	uint32_t vnode, segment;
	uint64_t asked_ns; /* when the file was read last */
	bool strange;      /* the operator has been told of a stranger */
	struct wvm_engine_env env;
	uint8_t *buffers; /* a run and an answer for each */
	unsigned count, running;
	uint32_t key[WVM_SLAVE_VCPUS_MAX]; /* VM and processor */
	struct wvm_slave_vcpu vcpu[WVM_SLAVE_VCPUS_MAX];
	struct wvm_slave_vm vms[WVM_SLAVE_VMS_MAX];
};

/* `slave` is zeroed memory. 0, or -errno with one line in err. */
int wvm_slave_start(struct wvm_slave *slave, const struct wvm_slave_options *options, char *err,
		    size_t err_len);
/* Ends all that runs. The program's exit status. */
int wvm_slave_stop(struct wvm_slave *slave);

/* serve.c: what comes from the master; ctx is the slave */
void wvm_slave_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len);
void wvm_slave_room(void *ctx);
/* Reads the ring file again; false: it names no master. */
bool wvm_slave_find_master(struct wvm_slave *slave);

#endif

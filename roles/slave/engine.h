/*
 * What executes runs for the slave: KVM in threads of this process (engine_kvm.c), or a process
 * that the slave starts for each VM (engine_process.c). The slave knows the run protocol and
 * nothing of the guest; an engine knows runs and answers (shared/vcpu.h) and nothing of nodes.
 *
 * A VM here is one life of its owner: opened for the first run that says what machine it
 * is, closed when a later life begins or the slave stops. All functions are called in the shard's
 * thread, and none blocks.
 */
#ifndef WVM_SLAVE_ENGINE_H
#define WVM_SLAVE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/place.h"
#include "ring/shard.h"
#include "roles/slave/options.h"
#include "shared/core/run.h"
#include "shared/vcpu.h"

/* A run that is being executed; the engine's from start until done. */
struct wvm_job {
	uint16_t vcpu;
	uint64_t seq;
	const uint8_t *run; /* run_len bytes */
	uint32_t run_len;
	struct wvm_vcpu_run head; /* of it */
	bool kicked;              /* atomic; set before kick() */
	/* The result. */
	enum wvm_run_reason reason; /* of a refusal: nothing of it was executed */
	uint8_t *answer;            /* WVM_RUN_MAX bytes; else these */
	uint32_t answer_len;
	/* In the shard's thread, once for each start; also from within start(). */
	void (*done)(struct wvm_job *job);
};

/* What a slave has for its engines. */
struct wvm_engine_env {
	struct wvm_shard *shard;
	const struct wvm_slave_options *options;
	const struct wvm_place *places; /* options->cores of them */
};

struct wvm_engine_vm; /* each engine's own */

struct wvm_engine_ops {
	/* 0, or -errno with one line in err. */
	int (*open)(struct wvm_engine_vm **out, const struct wvm_engine_env *env, uint16_t vm_id,
		    const struct wvm_vcpu_setup *setup, char *err, size_t err_len);
	void (*start)(struct wvm_engine_vm *vm, struct wvm_job *job);
	/* The job is to end soon. */
	void (*kick)(struct wvm_engine_vm *vm, struct wvm_job *job);
	/* Ends what is executed even if it heeds no kick. NULL: every kick is heeded. */
	void (*force)(struct wvm_engine_vm *vm);
	/* Ends it, in the background. No job is under way, but when the slave stops. */
	void (*close)(struct wvm_engine_vm *vm);
	/* After the shard's end: waits for what was closed. */
	void (*stop)(void);
};

extern const struct wvm_engine_ops wvm_engine_kvm, wvm_engine_process;

/* Whether this node's KVM will do. */
bool wvm_engine_kvm_usable(void);

/* Ends a job: with an ERROR that says why, or refused. In the shard's thread. */
void wvm_job_error(struct wvm_job *job, const char *text);
void wvm_job_refuse(struct wvm_job *job, enum wvm_run_reason reason);
/* The answer that an error is; its length. Any thread. */
uint32_t wvm_job_error_encode(uint8_t answer[WVM_RUN_MAX], const char *text);

#endif

/*
 * What runs processors for the slave. Two kinds: KVM in threads of this process (kvm_engine.c),
 * and a process that the slave starts, one for each VM (process.c). The slave's shard knows the run
 * protocol and nothing of the guest; an engine knows runs and answers (shared/vcpu.h) and nothing
 * of nodes.
 *
 * One wvm_engine_vm is a VM in one life of its owner. It is made by the first run, and ended when
 * the owner begins another life, when it is forgotten, or when the slave stops. All functions are
 * the shard's thread's; none blocks.
 */
#ifndef WVM_SLAVE_ENGINE_H
#define WVM_SLAVE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/place.h"
#include "ring/shard.h"
#include "shared/core/run.h"
#include "shared/vcpu.h"

/*
 * A run that is being executed. Embedded in the slave's processor. Between start and done, it is
 * the engine's, but for `kicked`.
 */
struct wvm_job {
	uint16_t vcpu;
	uint64_t seq;
	const uint8_t *run; /* run_len bytes */
	uint32_t run_len;
	struct wvm_vcpu_run head; /* of it, decoded; what it has is sound by itself */
	bool kicked;              /* atomic; set before kick() */
	/* The result: reason of a refusal, or answer_len bytes of an answer. */
	unsigned reason;
	uint8_t *answer; /* WVM_RUN_MAX bytes */
	uint32_t answer_len;
	bool keeps; /* the engine has what no answer has: an open instruction, a state that stays */
	/* The engine's end of it. Any thread, once for each start; also from within start(). */
	void (*done)(struct wvm_job *job);
};

/* What all engines of a slave have in common. */
struct wvm_engine_env {
	struct wvm_shard *shard;
	const char *ring_path;
	const char *qemu; /* the program */
	const struct wvm_place *places;
	unsigned cores;   /* entries of places */
	uint64_t poll_ns; /* a processor's thread spins so long for its next run; 0: it sleeps */
};

struct wvm_engine_vm;

struct wvm_engine {
	const char *name;
	/* NULL with a line in err: no memory, and the like. What takes time is done later. */
	struct wvm_engine_vm *(*open)(const struct wvm_engine_env *env, uint16_t vm_id, char *err,
				      size_t err_len);
	void (*start)(struct wvm_engine_vm *vm, struct wvm_job *job);
	/* The job is to end soon; may be done by then. */
	void (*kick)(struct wvm_engine_vm *vm, struct wvm_job *job);
	/* No job is under way. What takes time is done later, in the background. */
	void (*close)(struct wvm_engine_vm *vm);
	/* How many that were closed are not gone yet. Any thread. */
	unsigned (*closing)(void);
};

extern const struct wvm_engine wvm_engine_kvm, wvm_engine_process;

/* Whether KVM can be used; one line in why if not. */
bool wvm_engine_kvm_usable(char *why, size_t why_len);

/* Ends a job with an ERROR answer that says why, or a refusal. */
void wvm_job_error(struct wvm_job *job, const char *text);
void wvm_job_refuse(struct wvm_job *job, enum wvm_run_reason reason);

#endif

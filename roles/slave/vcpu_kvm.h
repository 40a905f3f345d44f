/*
 * One run of a processor by KVM: what the run carries is put into it, it is executed, and what came
 * of it becomes the answer. By the thread of the processor.
 */
#ifndef WVM_SLAVE_VCPU_KVM_H
#define WVM_SLAVE_VCPU_KVM_H

#include "roles/slave/engine.h"
#include "roles/slave/kvm.h"

struct wvm_vcpu_kvm {
	struct wvm_kvm_vcpu *v;
	uint64_t base;   /* the seq whose state `common` is; 0: none */
	uint8_t *common; /* the state that both sides have */
	bool midway;     /* within an instruction, whose access `exit` is */
	bool open;       /* an interrupt can be taken */
	struct wvm_kvm_exit exit;
	bool own_ticks;       /* the guest's time stamp counter can be set */
	uint64_t ticks_ahead; /* it is so far ahead of this host's */
};

/* Takes v over as a processor in no state. False: no memory, or what wvm_kvm_error() says. */
bool wvm_vcpu_kvm_init(struct wvm_vcpu_kvm *c, struct wvm_kvm_vcpu *v);
/* v stays. */
void wvm_vcpu_kvm_free(struct wvm_vcpu_kvm *c);

/* Fills in the job's result. */
void wvm_vcpu_kvm_run(struct wvm_vcpu_kvm *c, struct wvm_job *job);

#endif

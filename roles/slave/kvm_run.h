/*
 * One run of a processor by KVM, from what it carries to its answer: which state both sides have,
 * what differs from it, and what of an access is left to do. By the thread of the processor.
 *
 * A state is named by the seq of the run that brought it, or in whose answer it went: of
 * either both sides have the same bytes.
 */
#ifndef WVM_SLAVE_KVM_RUN_H
#define WVM_SLAVE_KVM_RUN_H

#include "roles/slave/kvm.h"
#include "shared/core/run.h"
#include "shared/vcpu.h"

struct wvm_kvm_cpu {
	struct wvm_kvm_vcpu *v;
	uint8_t *held;     /* the state that both sides have */
	uint64_t held_seq; /* its name; 0: none */
	/*
	 * The last exit waits for its data (PIO, MMIO, MSR). The state goes along with
	 * none of those: before the access is complete it is one that goes on nowhere, since the
	 * part that is missing lies in KVM.
	 */
	bool midway;
	bool may_stay; /* as the last run allows */
	bool stays;    /* as its answer said: KVM's state is newer */
	struct wvm_kvm_exit exit;
	bool leave; /* atomic; the guest is to be left for reasons of the slave's own */
	bool lost;  /* atomic; by the signal handler: memory that cannot be had, at lost_at */
	uintptr_t lost_at;
};

/* NULL: no memory, or wvm_kvm_error(). */
int wvm_kvm_cpu_open(struct wvm_kvm_cpu *c, struct wvm_kvm *kvm, unsigned index);
void wvm_kvm_cpu_close(struct wvm_kvm_cpu *c);

/* Both sides have no state in common any more: the next run has to bring the whole. */
void wvm_kvm_cpu_spoil(struct wvm_kvm_cpu *c);

/*
 * Before anything is executed: whether the run makes sense here, and its state. A reason to
 * refuse it, or WVM_RUN_NO_REASON; then *text may be a line, for which it ends with ERROR. After
 * any line, here or below, follows wvm_kvm_cpu_spoil().
 */
unsigned wvm_kvm_cpu_take(struct wvm_kvm_cpu *c, const struct wvm_vcpu_run *r, uint64_t seq,
			  const char **text);

/*
 * Executes it, until the guest needs its owner, or *kicked or c->leave is set: looked at before
 * the guest is entered, so that a kick is to set one, then wvm_kvm_kick() and a signal. A signal
 * alone changes nothing: the guest is entered again. *e is what the answer says, but for its state
 * and data. A line in *text: ERROR.
 */
void wvm_kvm_cpu_execute(struct wvm_kvm_cpu *c, const struct wvm_vcpu_run *r, const bool *kicked,
			 struct wvm_vcpu_exit *e, const char **text);

/* Writes the answer to out. Its bytes; 0 with a line in *text. */
size_t wvm_kvm_cpu_answer(struct wvm_kvm_cpu *c, uint64_t seq, struct wvm_vcpu_exit *e,
			  uint8_t *out, size_t room, const char **text);

#endif

/*
 * Processors run by KVM: a VM without devices and without an interrupt controller in the
 * kernel (both are the owner's), whose memory is what the caller has mapped. A
 * processor is run by one thread; whatever the guest does that needs its owner
 * ends wvm_kvm_run(). Its state is one block of sections (shared/vcpu_state.h), in KVM's
 * own structs.
 *
 * Opening and mapping: one thread, before any processor runs. Errors are -errno and
 * one line in wvm_kvm_error().
 */
#ifndef WVM_SLAVE_KVM_H
#define WVM_SLAVE_KVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/vcpu_state.h"

struct kvm_cpuid2;

/* Sections of a processor's state, in their order in the layout. */
enum wvm_kvm_section {
	WVM_KVM_REGS,   /* struct kvm_regs */
	WVM_KVM_SREGS,  /* struct kvm_sregs */
	WVM_KVM_EVENTS, /* struct kvm_vcpu_events */
	WVM_KVM_XSAVE,  /* struct kvm_xsave */
	WVM_KVM_XCRS,   /* struct kvm_xcrs */
	WVM_KVM_DEBUG,  /* struct kvm_debugregs */
	WVM_KVM_MP,     /* struct kvm_mp_state */
	WVM_KVM_MSRS,   /* uint64_t each, in the order of wvm_kvm_msrs; 0 where KVM has none */
	WVM_KVM_SECTIONS,
};
#define WVM_KVM_ALL ((UINT32_C(1) << WVM_KVM_SECTIONS) - 1)

/* That are part of the state; the same on every node. */
extern const uint32_t wvm_kvm_msrs[];
extern const unsigned wvm_kvm_msr_count;

/* What ended a run. */
enum wvm_kvm_exit_kind {
	WVM_KVM_EXIT_KICKED, /* by wvm_kvm_kick(), or a signal */
	WVM_KVM_EXIT_PIO,
	WVM_KVM_EXIT_MMIO,
	WVM_KVM_EXIT_HLT,
	WVM_KVM_EXIT_MSR,    /* one that KVM leaves to its user */
	WVM_KVM_EXIT_WINDOW, /* an interrupt can be taken, as was asked for */
	WVM_KVM_EXIT_SHUTDOWN,
	WVM_KVM_EXIT_ERROR, /* KVM cannot go on: `detail` says why. Running on ends the same way */
};

#define WVM_KVM_DATA_MAX 4096u /* of a string instruction: count × size */

struct wvm_kvm_exit {
	uint8_t kind;    /* enum wvm_kvm_exit_kind */
	bool write;      /* PIO, MMIO, MSR: by the guest */
	uint8_t size;    /* PIO, MMIO: bytes of one access */
	uint32_t count;  /* PIO: accesses of a string instruction, or 1 */
	uint64_t at;     /* port, address, or number of the MSR */
	uint32_t detail; /* ERROR: KVM's exit reason << 16 | its suberror or the like */
	/* Written by the guest, or to be filled in before the next run; count × size bytes, an
	 * MSR's 8. Points into memory shared with KVM. */
	uint8_t *data;
	uint32_t bytes;
};

struct wvm_kvm;
struct wvm_kvm_vcpu;

const char *wvm_kvm_error(void);

/* /dev/kvm, with what is needed of it. NULL: wvm_kvm_error(). */
struct wvm_kvm *wvm_kvm_open(void);
void wvm_kvm_close(struct wvm_kvm *kvm); /* after its processors */

/* Guest addresses gpa to gpa + bytes - 1 are the memory at `host`; all page-aligned. */
int wvm_kvm_map(struct wvm_kvm *kvm, uint64_t gpa, void *host, uint64_t bytes, bool read_only);

/* Takes all of it away again. No processor runs. */
int wvm_kvm_unmap(struct wvm_kvm *kvm);

/* A processor. cpuid: what it says of itself (NULL: all that KVM can). */
struct wvm_kvm_vcpu *wvm_kvm_vcpu_open(struct wvm_kvm *kvm, unsigned index,
				       const struct kvm_cpuid2 *cpuid);
void wvm_kvm_vcpu_close(struct wvm_kvm_vcpu *v);

/* The sections of every state. The same for all. */
const struct wvm_vcpu_layout *wvm_kvm_layout(void);
/* Of the sections, and of which MSRs there are: what both sides must have alike. Never 0. */
uint32_t wvm_kvm_layout_hash(void);
/* The processor's state, wvm_kvm_layout()->bytes; valid are the sections read last. */
void *wvm_kvm_state(struct wvm_kvm_vcpu *v);
/* One section of a state. */
void *wvm_kvm_section(void *state, enum wvm_kvm_section section);

/*
 * Reads sections from KVM into the state, or writes them to KVM. What a run
 * leaves in memory shared with KVM (REGS, SREGS, EVENTS) costs no system call. By the thread
 * that runs it.
 */
int wvm_kvm_get(struct wvm_kvm_vcpu *v, uint32_t sections);
int wvm_kvm_set(struct wvm_kvm_vcpu *v, uint32_t sections);

/*
 * Runs it until something is to be done. window: it shall end as soon as an
 * interrupt can be taken; irq: take this one first (0 to 255; -1: none), which is to be
 * done only when the last state said that it can. 0, or -errno.
 */
int wvm_kvm_run(struct wvm_kvm_vcpu *v, int irq, bool window, struct wvm_kvm_exit *exit);

/*
 * Carries out what the last exit left to do with its data (PIO, MMIO, MSR), and runs nothing of
 * the guest: only then is the state one that goes on elsewhere. 0, or -errno.
 */
int wvm_kvm_complete(struct wvm_kvm_vcpu *v);

/* The time stamp counter that the guest reads; 0 where KVM does not say. */
uint64_t wvm_kvm_ticks(struct wvm_kvm_vcpu *v);
/* Sets it forward to `ticks`, unless it is there already. By the thread that runs it. */
int wvm_kvm_ticks_reach(struct wvm_kvm_vcpu *v, uint64_t ticks);

/* Whether an interrupt can be taken; after a run. */
bool wvm_kvm_open_for_interrupts(const struct wvm_kvm_vcpu *v);

/*
 * Ends the present run, or else the next one at its beginning. Any thread; and
 * the signal handler of the running one. A thread that is in the guest
 * leaves it for a signal only: send it one after this call, and let its handler do the
 * same, for the moment between its decision to run and the run.
 */
void wvm_kvm_kick(struct wvm_kvm_vcpu *v);
/* Forgets a kick that no run has ended by. */
void wvm_kvm_unkick(struct wvm_kvm_vcpu *v);

#endif

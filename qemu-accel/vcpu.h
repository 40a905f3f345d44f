/* What the files about remote vCPUs know of each other; once per target, after cpu.h. */
#ifndef WVM_QEMU_VCPU_H
#define WVM_QEMU_VCPU_H

#include "hw/core/tcg-cpu-ops.h"
#include "qemu/units.h"
#include "shared/vcpu.h"
#include "shared/vcpu_state.h"
#include "sysemu/accel-ops.h"

/*
 * vcpu.c: a vCPU's state as one block of two sections, the same on both sides: its VMState, which
 * is what QEMU's own migration needs to go on elsewhere, behind its length; and its local APIC.
 */
#define WVM_QEMU_STATE_BYTES (32 * KiB) /* of the first */
enum { WVM_QEMU_STATE_CPU, WVM_QEMU_STATE_APIC };
#define WVM_QEMU_STATE_ALL (1u << WVM_QEMU_STATE_CPU | 1u << WVM_QEMU_STATE_APIC)

/*
 * The registers of a local APIC, named as Intel does. Times are nanoseconds of the guest's clock,
 * counted from when it was given.
 */
struct wvm_qemu_apic {
	uint32_t base, spurious, error, divide, initial_count;
	uint32_t icr[2], lvt[6];
	uint32_t isr[8], tmr[8], irr[8];
	uint8_t id, tpr, log_dest, dest_mode;
	uint32_t count_shift; /* 0 to 7: the count goes down every so many powers of two */
	uint32_t unused;      /* 0 */
	int64_t given;        /* when, by the guest's time stamp counter */
	int64_t loaded_ago;   /* since the initial count was written */
	int64_t due_in; /* till the timer's interrupt, below 0 if it is late; INT64_MAX: none */
};
QEMU_BUILD_BUG_ON(sizeof(struct wvm_qemu_apic) % WVM_VCPU_WORD);

/*
 * ticks.c: the guest's time stamp counter. Any thread, but where said.
 */
/* Once, before there are vCPUs: measures this host's, which takes 20 ms. */
void wvm_qemu_ticks_begin(void);
uint64_t wvm_qemu_ticks_hz(void); /* of this host's */
/*
 * A slave, before the first run and each time that the VM goes on after a stop, with the BQL: what
 * its owner's counts at. It begins anew at 0, and is raised to the owner's: that may be less than
 * before, but no vCPU has run since.
 */
void wvm_qemu_ticks_follow(uint64_t hz);
/* How far the guest's counter gets in so many ns, and how long it takes. */
int64_t wvm_qemu_ticks_in(int64_t ns);
int64_t wvm_qemu_ticks_ns(int64_t ticks);
int64_t wvm_qemu_ticks(void);
/* It is at least so much now. */
void wvm_qemu_ticks_reach(int64_t least);
/*
 * The owner's, with the BQL: a round trip to a node took so many ns, without what was executed
 * there; how many there were yet; and how far the counter gets while a message is under way, at
 * least: 0 until there were WVM_QEMU_TRIPS, of which the shortest one was hardly disturbed.
 */
#define WVM_QEMU_TRIPS 8u
void wvm_qemu_ticks_trip(unsigned node, int64_t ns);
unsigned wvm_qemu_ticks_trips(unsigned node);
int64_t wvm_qemu_ticks_way(unsigned node);
/* Once: CPUs of this class have a counter that a guest may take for a clock. */
void wvm_qemu_ticks_class_init(ObjectClass *oc);

const struct wvm_vcpu_layout *wvm_qemu_layout(void);
struct wvm_qemu_apic *wvm_qemu_state_apic(void *block);
/*
 * The VMState's section, zero behind what is used. By the vCPU's thread, or while it is stopped;
 * BQL held.
 */
void wvm_qemu_state_save(CPUState *cs, void *block);
bool wvm_qemu_state_load(CPUState *cs, const void *block);
/* Of all that both sides must have alike so that a state means the same: kind of vCPU, its place.
 */
uint32_t wvm_qemu_state_kind(CPUState *cs);

/*
 * apic.c: gives a vCPU's local APIC away, and takes it (back), with what was raised here meanwhile.
 * By the vCPU's thread; BQL held. None of them is for a vCPU without APIC.
 */
void wvm_qemu_apic_give(CPUState *cs, struct wvm_qemu_apic *a);
void wvm_qemu_apic_take(CPUState *cs, const struct wvm_qemu_apic *a);
/* Whether something was raised here since it was given. */
bool wvm_qemu_apic_raised(CPUState *cs);

/* Offsets in a local APIC's page, as Intel has them. */
enum {
	WVM_QEMU_APIC_ID = 0x20,
	WVM_QEMU_APIC_AT_EOI = 0xb0,
	WVM_QEMU_APIC_LDR = 0xd0,
	WVM_QEMU_APIC_DFR = 0xe0,
	WVM_QEMU_APIC_SVR = 0xf0,
	WVM_QEMU_APIC_ICR = 0x300, /* its upper half 0x10 behind */
	WVM_QEMU_APIC_LINT0 = 0x350,
	WVM_QEMU_APIC_LINT1 = 0x360,
};

/*
 * What the guest did to a local APIC that the owner has to know or to do: `at` of an EXIT of kind
 * APIC. Its own registers are up to date where the vCPU runs.
 */
enum {
	WVM_QEMU_APIC_BASE = 2, /* the MSR was written: 8 bytes */
	WVM_QEMU_APIC_EOI = 3, /* a level-triggered interrupt ended, for I/O APICs: 1, its vector */
	WVM_QEMU_APIC_SEND = 4,      /* an interrupt is to be sent: 8, the ICR */
	WVM_QEMU_APIC_WRITE = 0x1000 /* + offset: a register by which it is addressed: 4 bytes */
};

/*
 * slave.c: this QEMU runs vCPUs for the owner of a VM, and has nothing else (WVM_ROLE=SLAVE,
 * -machine wavevm-slave).
 */
bool wvm_qemu_is_slave(void);
void wvm_qemu_slave_tcg_ops(struct TCGCPUOps *ops);
void wvm_qemu_slave_accel_ops(AccelOpsClass *ops);

/* remote.c: this QEMU owns the VM, and some of its vCPUs run on other nodes. */
void wvm_qemu_remote_accel_ops(AccelOpsClass *ops);

#endif

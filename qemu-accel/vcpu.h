/* What the files about remote vCPUs know of each other; once per target, after cpu.h. */
#ifndef WVM_QEMU_VCPU_H
#define WVM_QEMU_VCPU_H

#include "hw/core/tcg-cpu-ops.h"
#include "qemu/units.h"
#include "shared/vcpu.h"
#include "shared/vcpu_state.h"
#include "sysemu/accel-ops.h"

/*
 * vcpu.c: a vCPU's state as one block, the same on both sides: its VMState, which is what QEMU's
 * own migration needs to go on elsewhere, behind its length.
 */
#define WVM_QEMU_STATE_BYTES (32 * KiB)

/*
 * The time stamp counter: a host's own and what it is *ahead of that. Nobody's goes back, nor lies
 * behind what another one has said (least); own: the host's now. Any thread.
 */
void wvm_qemu_ticks_reach(int64_t *ahead, int64_t own, int64_t least);

const struct wvm_vcpu_layout *wvm_qemu_layout(void);
/* The block, zero behind what is used. By the vCPU's thread, or while it is stopped; BQL held. */
void wvm_qemu_state_save(CPUState *cs, void *block);
bool wvm_qemu_state_load(CPUState *cs, const void *block);
/* Of all that both sides must have alike so that a state means the same: kind of vCPU, its place.
 */
uint32_t wvm_qemu_state_kind(CPUState *cs);

/* What of the interrupt controller an EXIT of kind APIC is about: its `at`. Data: 1, 8 bytes. */
enum { WVM_QEMU_APIC_TPR = 1, WVM_QEMU_APIC_BASE = 2 };

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

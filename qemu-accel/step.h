/* Atomic instructions that are executed alone (step.c). All on the vCPU's thread. */
#ifndef WVM_QEMU_STEP_H
#define WVM_QEMU_STEP_H

/* The vCPU begins to execute: one instruction, with all others stopped, or as usual. */
void wvm_qemu_step_enter(CPUState *cs, bool alone);
/* A TLB entry was made for a load or a store; page: where its memory is here. */
void wvm_qemu_step_fill(void *page);
void wvm_qemu_step_exit(void);

#endif

/*
 * The guest of `wvmbench vcpu`: endless loops of one instruction that ends a run, and a jump. It
 * is in ring 0, as the kernel of a real guest is when it halts or talks to a device, and writes no
 * memory.
 */
#ifndef WVMBENCH_GUEST_H
#define WVMBENCH_GUEST_H

#include <stdint.h>

#include "bench/wvmbench/hist.h"

enum guest_loop {
	GUEST_EMPTY, /* hlt: nothing for the owner to do */
	GUEST_PIO,   /* out, one byte */
	GUEST_MMIO,  /* a store of four bytes where there is no memory */
	GUEST_LOOPS,
};

/* Its memory, from the beginning of the VM's. */
#define GUEST_BYTES (UINT64_C(2) << 20)
#define GUEST_SETUP "vcpus 1\nmap 0 200000 0\n"

void guest_fill(uint8_t *mem);

/* A processor that is about to begin a loop; wvm_kvm_layout()->bytes. 0 or -EIO with a line. */
int guest_state(void *state, enum guest_loop loop);

/* How each run of a loop ends: enum wvm_vcpu_exit_kind. */
unsigned guest_exit(enum guest_loop loop);

/*
 * Fills *samples, up to its room, with how long this host's KVM alone takes from one exit of a loop
 * to the next. 0 or -errno with a line.
 */
int guest_local(enum guest_loop loop, struct wvm_samples *samples);

#endif

/*
 * A bare machine, and the owner of a processor of it that KVM runs on nodes' slaves: 64-bit code
 * with nothing around it but page tables, no device and no interrupt controller. For tests and
 * wvmbench: asserts nothing, returns -errno.
 */
#ifndef WVM_CHECK_BARE_H
#define WVM_CHECK_BARE_H

#include "roles/slave/kvm.h"
#include "shared/core/run.h"
#include "shared/wavevm_vcpu.h"

#define BARE_CODE   0x1000u
#define BARE_TABLES 0x10000u /* three pages */
#define BARE_RFLAGS 0x3202u  /* ports are open to ring 3, interrupts enabled */

/* Page tables, and the code at BARE_CODE: the first GiB is where it is, open to ring 3. */
void bare_fill(uint8_t *mem, const char *code, const char *end);

/*
 * Makes a processor that is about to execute the code in a ring (0 or 3) of `state`, which has all
 * sections as KVM has them of a new one. Further registers are the caller's to set.
 */
void bare_state(void *state, unsigned ring);
/* The same of a processor of KVM's own that is made for it. 0 or -EIO: wvm_kvm_error(). */
int bare_new_state(void *state, unsigned vcpu, unsigned ring);

/* A node's slave, as an owner knows it: node and life are the caller's to fill in. */
struct bare_slave {
	unsigned node;
	uint64_t life;
	bool told; /* of the machine */
};

/* A processor, by the thread that owns it. */
struct bare_cpu {
	struct wvm_vcpu_link *l; /* the caller's */
	const char *setup;       /* of the machine; shared/vcpu.h */
	const struct bare_slave *at;
	uint64_t base;  /* seq by which the slave there has `sent`; 0: it has nothing of ours */
	uint8_t *state; /* the newest, which the caller may change; wvm_kvm_layout()->bytes */
	uint8_t *sent;  /* what both sides have */
	bool carries;   /* the run that was sent brought a state */
	struct wvm_vcpu_exit exit; /* of the last answer; its parts lie in that */
	size_t sent_bytes;         /* of the last run */
	uint8_t run[WVM_RUN_MAX];
};

/* Zeros but for setup and memory. 0 or -ENOMEM. */
int bare_cpu_init(struct bare_cpu *c, const char *setup);
void bare_cpu_fini(struct bare_cpu *c);

/* Whatever slave it runs at next gets the whole state. */
static inline void bare_cpu_forget(struct bare_cpu *c)
{
	c->base = 0;
}

/*
 * One run at a slave: with the whole state where that is another one than the last, else with what
 * the caller has changed of it. flags: enum wvm_vcpu_run_flag, but for WHOLE. 0 with *answer, and
 * when that is ANSWERED c->exit and c->state, which is the newest unless the exit is MIDWAY or
 * STAYS; -errno of wvm_vcpu_run(); -EBADMSG: an answer that does not fit to the run; -EBUSY: the
 * state has stayed at another slave, where it is to be fetched first (GET).
 */
int bare_cpu_run(struct bare_cpu *c, struct bare_slave *at, uint8_t flags,
		 struct wvm_vcpu_answer *answer);

#endif

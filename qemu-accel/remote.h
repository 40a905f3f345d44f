/* What the files about the vCPUs of an owner that run elsewhere know of each other. */
#ifndef WVM_QEMU_REMOTE_H
#define WVM_QEMU_REMOTE_H

#include "shared/core/run.h"
#include "shared/vcpu.h"
#include "shared/wavevm_vcpu.h"
#include "vcpu.h"

/* One remote vCPU; its thread's, with the BQL where others look, but where said. */
struct wvm_qemu_remote {
	CPUState *cs; /* the shadow: what devices, controllers and monitors see */
	struct wvm_vcpu_link *link;
	unsigned node;
	uint64_t life;   /* of that node's slave */
	uint32_t kind;   /* wvm_qemu_state_kind() */
	uint64_t base;   /* the seq whose state `state` is, there and here; 0: none */
	uint64_t *state; /* as it was shipped or came last */
	uint64_t *spare; /* another such block */
	uint32_t setup;  /* the version that the slave has; 0: none that is known */
	bool midway;     /* in an instruction there, which waits for `access` */
	bool given;      /* the shadow's local APIC is there */
	bool lost;       /* it may have gone on, or not: only a reset helps */
	bool running;    /* atomic: a run is out, or about to go */
	bool kicked;     /* atomic: somebody wants the thread's attention */
	uint8_t access[8], access_len;
	int64_t sent_ns;             /* when the last run was, by the clock; atomic */
	struct wvm_vcpu_where where; /* what operators are told */
	uint8_t out[WVM_RUN_MAX];
};

/*
 * remote_map.c: the setup, which follows the memory map. BQL.
 */
void wvm_qemu_setup_begin(void);
/* The text, its length and version, until the BQL is let go. */
const char *wvm_qemu_setup(uint32_t *len, uint32_t *version);

/* remote_exit.c: what an answer asks of the owner. BQL. False: the vCPU cannot go on. */
bool wvm_qemu_remote_exit(struct wvm_qemu_remote *r, const struct wvm_vcpu_exit *e, uint64_t seq);

/* Says why, and stops the VM. */
void wvm_qemu_remote_lost(struct wvm_qemu_remote *r, const char *what);

/*
 * remote.c: has the slave of r->node take the vCPU's state over and give it back; nothing of the
 * guest is executed, so whatever comes of it the vCPU may go on elsewhere. Not midway. By its
 * thread; BQL held, but not meanwhile. *reason: of REFUSED.
 */
enum wvm_vcpu_outcome wvm_qemu_remote_get(struct wvm_qemu_remote *r, unsigned *reason);

/*
 * remote_move.c. BQL, but where said.
 */
/* The slave of r->node, or where there is none, that of another node of vCPUs; false: none. */
bool wvm_qemu_remote_meet(struct wvm_qemu_remote *r);
/*
 * The vCPU, which has just been refused where it is, goes to a node of the placement that takes
 * it, from the *next-th of them on. By its thread. False: there is none.
 */
bool wvm_qemu_remote_elsewhere(struct wvm_qemu_remote *r, unsigned *next);
/* Orders come from now on, to be taken by the vCPU's thread between two runs; and no more. */
void wvm_qemu_remote_watch(struct wvm_qemu_remote *r);
void wvm_qemu_remote_unwatch(struct wvm_qemu_remote *r);
/* Says what has changed. By the vCPU's thread, or before there is one. */
void wvm_qemu_remote_say(struct wvm_qemu_remote *r);

#endif

/*
 * libwavevm, for the program that owns a VM: runs its processors on other nodes.
 * (shared/PROTOCOL.md, Processors; shared/vcpu.h for what runs and answers carry.)
 *
 * Each processor has a link of its own: a channel to the local master and the owner's side of the
 * run protocol. A link belongs to the thread of its processor, but for wvm_vcpu_kick(). Errors are
 * -errno; wvm_vcpu_error() has one line. Nodes are named as everywhere in wavevm.h, by the ids of
 * the topology. Links are to be closed before wvm_detach(). A master that is started again within
 * the time of silence is not noticed.
 */
#ifndef WAVEVM_VCPU_H
#define WAVEVM_VCPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/vcpu.h"
#include "shared/vcpu_report.h"
#include "shared/wavevm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct wvm_vcpu_link;

const char *wvm_vcpu_error(void); /* of this thread's last failure; never NULL */

/*
 * Processors 0 to WVM_VCPU_MAX - 1 of a VM that the master serves. 0, -EBUSY (another program has
 * it, or this one), -ENXIO (no such VM), -EUSERS (no room), -EINVAL, -ECONNREFUSED, -ETIMEDOUT,
 * -ENOMEM.
 */
int wvm_vcpu_open(struct wvm_vcpu_link **out, struct wvm *w, uint16_t vm_id, unsigned vcpu);
void wvm_vcpu_close(struct wvm_vcpu_link *l);

/* Asks a node's slave for its life. 0, -ETIMEDOUT (2 s), -ENXIO (no such node), -EREMOTE (it has 0
 * cores in the topology), -ECONNREFUSED (no
 * master). */
int wvm_vcpu_hello(struct wvm_vcpu_link *l, unsigned node, uint64_t *life,
		   struct wvm_vcpu_hello *hello);

/* A node whose slave is asked, and what it says. */
struct wvm_vcpu_met {
	unsigned node;
	uint64_t life; /* 0: it was silent for 2 s, has 0 cores, or is not there */
	struct wvm_vcpu_hello hello;
};

/*
 * Asks the slaves of all these nodes at once, which takes no longer than one that is silent. How
 * many have answered, or -ECONNREFUSED, -ETIMEDOUT (of the master), -ENOMEM.
 */
int wvm_vcpu_meet_slaves(struct wvm_vcpu_link *l, struct wvm_vcpu_met *met, unsigned count);

/* How a run ended. */
enum wvm_vcpu_outcome {
	WVM_VCPU_ANSWERED, /* *answer, until the next call */
	WVM_VCPU_REFUSED,  /* it was not executed and never will be; it may go elsewhere. reason */
	WVM_VCPU_LOST,     /* it may have been executed: the VM must not go on. wvm_vcpu_error() */
};

struct wvm_vcpu_answer {
	enum wvm_vcpu_outcome outcome;
	unsigned reason; /* REFUSED: enum wvm_run_reason */
	uint64_t seq;    /* of the run: what the next state may be a difference from */
	const void *data;
	size_t len;
	uint64_t ran_from_ns, took_ns; /* CLOCK_MONOTONIC; the round trip */
};

/*
 * Runs it there and waits for the answer, as long as the slave shows that it lives. The seq that
 * it gets is one more than the last run's, from 1. 0 with *answer; or -errno when nothing was sent.
 */
int wvm_vcpu_run(struct wvm_vcpu_link *l, unsigned node, uint64_t life, const void *run, size_t len,
		 struct wvm_vcpu_answer *answer);

/*
 * The run that is waited for is to end soon; without one, the next ends at its beginning. Any
 * thread, also a signal handler; takes no lock, does not block.
 */
void wvm_vcpu_kick(struct wvm_vcpu_link *l);

struct wvm_vcpu_counters {
	uint64_t runs, bytes_sent, bytes_received, retries, kicks;
};
void wvm_vcpu_counters(const struct wvm_vcpu_link *l, struct wvm_vcpu_counters *out);

/*
 * What the master's operator is told of the processor (wvm_ctl vcpu), besides the counters above,
 * which go with it after every run.
 */
struct wvm_vcpu_where {
	enum wvm_vcpu_is is;
	unsigned node;
	unsigned first, vcpus; /* of the VM: those from first on may run elsewhere */
	uint64_t moves, refused;
	uint64_t exits[WVM_VCPU_EXIT_KINDS];
};
void wvm_vcpu_report(struct wvm_vcpu_link *l, const struct wvm_vcpu_where *where);

/*
 * Whether the operator wants the processor on another node (wvm_ctl vcpu move). A run that is
 * out is kicked when such an order comes, and the descriptor gets readable for who runs none: an
 * eventfd, which wvm_vcpu_wanted() reads, and whoever polls it may. An order stands until
 * wvm_vcpu_obeyed() has said what became of it, in how long a time. reason: of
 * WVM_VCPU_MOVED_REFUSED, enum wvm_run_reason.
 */
int wvm_vcpu_order_fd(const struct wvm_vcpu_link *l);
bool wvm_vcpu_wanted(struct wvm_vcpu_link *l, unsigned *node);
void wvm_vcpu_obeyed(struct wvm_vcpu_link *l, enum wvm_vcpu_moved outcome, unsigned reason,
		     uint64_t took_ns);

#ifdef __cplusplus
}
#endif
#endif

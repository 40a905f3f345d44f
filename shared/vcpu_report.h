/*
 * The last page of a processor's channel (shared/client_ring.h): where the processor runs, as its
 * owner says it, and where it shall run, as its master's operator wants it (shared/PROTOCOL.md,
 * Where a processor runs, and orders to move it). Words of 64 bits, each written by one side and
 * read by the other as it is: what one reads of the other's is a number, and no more than that.
 */
#ifndef WVM_SHARED_VCPU_REPORT_H
#define WVM_SHARED_VCPU_REPORT_H

#include <stdint.h>

#include "shared/vcpu.h"

#define WVM_VCPU_REPORT_BYTES 4096u
#define WVM_VCPU_REPORT_EXITS 16u /* words; WVM_VCPU_EXIT_KINDS are in use */

enum wvm_vcpu_is {
	WVM_VCPU_IS_UNKNOWN, /* its owner has not said anything yet */
	WVM_VCPU_IS_RUNNING, /* or would, if its VM did */
	WVM_VCPU_IS_HALTED,
	WVM_VCPU_IS_LOST,
	WVM_VCPU_STATES,
};

/* What became of an order. */
enum wvm_vcpu_moved {
	WVM_VCPU_MOVED_NOT_YET,
	WVM_VCPU_MOVED,
	WVM_VCPU_MOVED_NOWHERE, /* it is there already */
	WVM_VCPU_MOVED_SILENT,  /* no slave answers there */
	WVM_VCPU_MOVED_ENGINE,  /* the slave there has not the engine that runs it */
	WVM_VCPU_MOVED_REFUSED, /* the slave there has refused it */
	WVM_VCPU_MOVED_LOST,    /* it is lost, and goes on nowhere */
	WVM_VCPU_MOVED_FAILED,  /* something else: its owner has said what, on stderr */
	WVM_VCPU_OUTCOMES,
};

/* By the owner. Counters since it opened the processor. */
struct wvm_vcpu_report {
	uint64_t is; /* enum wvm_vcpu_is */
	uint64_t node;
	uint64_t first, vcpus; /* of the VM: those from first on may run elsewhere */
	uint64_t runs, retries, bytes_sent, bytes_received;
	uint64_t moves, refused;
	uint64_t exits[WVM_VCPU_REPORT_EXITS]; /* by enum wvm_vcpu_exit_kind */
	/* The order that was carried out last, or not; `answered` is written behind the others. */
	uint64_t outcome, reason, took_ns; /* enum wvm_vcpu_moved, REFUSED: enum wvm_run_reason */
	uint64_t answered;
};
#define WVM_VCPU_REPORT_WORDS (sizeof(struct wvm_vcpu_report) / sizeof(uint64_t))

/* By the master, in one word: TOKEN << 32 | node. 0: none yet. */
struct wvm_vcpu_order {
	uint64_t wanted;
};
#define WVM_VCPU_ORDER_OFFSET 2048u

/* Any words, also ones that are being written; `answered` is read before what it stands for. */
static inline void wvm_vcpu_report_read(struct wvm_vcpu_report *to,
					const struct wvm_vcpu_report *shared)
{
	const uint64_t *from = (const uint64_t *)shared;
	uint64_t *words = (uint64_t *)to;

	to->answered = __atomic_load_n(&shared->answered, __ATOMIC_ACQUIRE);
	for (unsigned i = 0; i + 1 < WVM_VCPU_REPORT_WORDS; i++)
		words[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

static inline void wvm_vcpu_report_write(struct wvm_vcpu_report *shared,
					 const struct wvm_vcpu_report *from)
{
	const uint64_t *words = (const uint64_t *)from;
	uint64_t *to = (uint64_t *)shared;

	for (unsigned i = 0; i + 1 < WVM_VCPU_REPORT_WORDS; i++)
		__atomic_store_n(&to[i], words[i], __ATOMIC_RELAXED);
	__atomic_store_n(&shared->answered, from->answered, __ATOMIC_RELEASE);
}

#endif

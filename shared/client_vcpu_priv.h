/* A processor's link, as the files of libwavevm that are about it share it. */
#ifndef WVM_SHARED_CLIENT_VCPU_PRIV_H
#define WVM_SHARED_CLIENT_VCPU_PRIV_H

#include "shared/client_priv.h"
#include "shared/core/run.h"
#include "shared/wavevm_vcpu.h"

/* How long an open channel is waited for, where nothing was sent yet. */
#define WVM_VCPU_MEET_NS WVM_RUN_DEADLINE_NS

#define WVM_VCPU_NODES 8u /* whose vnodes a link remembers */

struct wvm_vcpu_link {
	struct wvm *w;
	struct wvm_vcpu_link *next; /* w->vcpus; w->lock */
	uint16_t vm_id;
	unsigned vcpu;
	int bell_fd;      /* eventfd: the master's, of kicks, and of the helper thread */
	int to_master_fd; /* eventfd */
	int order_fd;     /* eventfd: the helper thread's, when an order has come */
	bool kicked;      /* atomic; the present run, else the next */
	uint64_t kicks;   /* atomic */

	pthread_mutex_t lock; /* its thread's during a call; between calls the acknowledger's */
	bool open;            /* the master has the channel, or that one is gone */
	unsigned lives;       /* w->lives of that master */
	int mem_fd;           /* the channel: made anew for each master */
	uint8_t *mem;
	struct wvm_spsc_tx tx;
	struct wvm_spsc_rx rx;
	struct wvm_run_owner run;
	uint64_t nonce; /* of the last hello */
	struct {
		bool known;
		unsigned node;
		uint32_t vnode;
	} nodes[WVM_VCPU_NODES];
	unsigned next_node;
	struct wvm_vcpu_counters counters;
	struct wvm_vcpu_report report; /* what every master is told */
	uint64_t order;                /* being carried out */
	uint8_t answer[WVM_RUN_MAX];
	uint8_t record[sizeof(struct wvm_msg) + WVM_DATAGRAM_MAX]; /* being taken */
};

uint64_t wvm_vcpu_now_ns(void); /* CLOCK_MONOTONIC */

/* --- client_vcpu_link.c; the link's lock is held --- */

/* Whether datagrams get to a master now. */
bool wvm_vcpu_ready(struct wvm_vcpu_link *l);
/*
 * Gives the present master a channel, unless it has one. 0 or -errno with the text set:
 * -ECONNREFUSED (no master), -ETIMEDOUT, -EBUSY (somebody else's processor) …
 */
int wvm_vcpu_meet(struct wvm_vcpu_link *l, int timeout_ms);
/* The same, and waits for the next master until end_ns. */
int wvm_vcpu_await(struct wvm_vcpu_link *l, uint64_t end_ns);
/* Sleeps until the bell rings, or until_ns. */
void wvm_vcpu_sleep(struct wvm_vcpu_link *l, uint64_t until_ns);
/* Puts one message on the channel; what finds no room there is lost. True: ring the master. */
bool wvm_vcpu_put(struct wvm_vcpu_link *l, const struct wvm_msg *m, const uint8_t *payload);
/* All that the run's machine has to say. */
void wvm_vcpu_flush(struct wvm_vcpu_link *l);
/* client_vcpu_report.c: the report as it is now, with the link's own counters. */
void wvm_vcpu_publish(struct wvm_vcpu_link *l);
/* The acknowledger shall see to this link. */
void wvm_vcpu_acknowledge_later(struct wvm_vcpu_link *l);

#endif

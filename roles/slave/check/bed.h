/*
 * A slave under test: the daemon as a process, with this test as its master and as the owner of
 * VMs. What is sent may be doubled, kept and sent again.
 */
#ifndef WVM_SLAVE_CHECK_BED_H
#define WVM_SLAVE_CHECK_BED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "roles/slave/check/fake_engine.h"
#include "shared/core/run.h"
#include "shared/vcpu.h"

#define BED_SELF    5u /* vnodes: the slave's node, and the owner's */
#define BED_OWNER   9u
#define BED_VM      3u
#define BED_WAIT_MS 20000

struct bed {
	pid_t slave;
	int fd; /* the master's socket */
	uint16_t port;
	uint64_t life; /* of the slave, as its last hello said */
	struct wvm_vcpu_hello hello;
	char ring[64], counts_path[64];
	struct fake_counts *counts;
	unsigned copies; /* each message is sent so often */
	/* The last run's datagrams. */
	unsigned kept;
	uint8_t keep[64][1472];
	uint32_t keep_len[64];
};

/* One processor of the owner. */
struct bed_vcpu {
	struct wvm_run_owner run;
	uint8_t answer[WVM_RUN_MAX], out[WVM_RUN_MAX];
	struct wvm_vcpu_exit exit;
	bool sent; /* the run has not ended */
};

void bed_setup(void);
void bed_teardown(void);
extern struct bed bed;

/* Starts the daemon, with one more option or NULL, and waits until it says hello. */
void bed_start(const char *option);
/* SIGTERM; its exit status. */
int bed_stop(void);
void bed_kill(void);
/* Asks for life and engines. False: no answer within wait_ms. */
bool bed_hello(int wait_ms);

void bed_vcpu(struct bed_vcpu *v, uint16_t vm_id, unsigned vcpu, uint64_t life);
/* Begins a run of a fake engine: wish, and len bytes of state in all. */
void bed_begin(struct bed_vcpu *v, enum fake_wish wish, uint32_t len);
/* Begins one that is encoded already. */
void bed_begin_run(struct bed_vcpu *v, const struct wvm_vcpu_run *r);
/* Begins what lies in v->out. */
void bed_begin_bytes(struct bed_vcpu *v, size_t len);
/* Until the run has ended, or for wait_ms. An answer is decoded. */
enum wvm_run_event bed_await(struct bed_vcpu *v, int wait_ms);
/* Both. */
enum wvm_run_event bed_run(struct bed_vcpu *v, enum fake_wish wish);
void bed_kick(struct bed_vcpu *v);
void bed_send(const void *data, size_t len);
/* What was kept, again. */
void bed_replay(void);
/* Sends one message of an owner's node, as it is. */
void bed_emit(const struct wvm_msg *m, const uint8_t *payload);
/* Takes one message; false: none within wait_ms. */
bool bed_take(struct wvm_msg *m, const uint8_t **payload, int wait_ms);

uint32_t bed_executed(unsigned vcpu, uint64_t seq);
/* The text of an ERROR. */
const char *bed_error(const struct bed_vcpu *v);

#endif

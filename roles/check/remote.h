/*
 * Slaves of a cluster's nodes, and an owner of processors that KVM runs on them: guests in
 * ring 3, whose state the owner has in KVM's own sections.
 */
#ifndef WVM_CHECK_REMOTE_H
#define WVM_CHECK_REMOTE_H

#include "roles/check/bare.h"
#include "roles/check/cluster.h"

#define REMOTE_MEM   (UINT64_C(64) << 20) /* of the guest: the whole VM */
#define REMOTE_STACK 0x8000u
#define REMOTE_DATA  0x100000u
#define REMOTE_FS    0x120000u
#define REMOTE_FLAG  0x140000u /* a byte: the guest ends when it is not 0 */
#define REMOTE_PORT  0x3f8u

/* The daemon on a node, started; it ends with the test. more: one more option or NULL. */
pid_t slave_start(const struct cluster *c, unsigned node, const char *more);
/* SIGTERM, or another signal; how it ended as waitpid() says it. */
int slave_end(pid_t pid, int signal);

/* A processor, and the slaves of the first two nodes. */
struct remote {
	struct bare_cpu cpu;
	struct bare_slave slave[2];
	uint64_t bytes; /* of state, that its answers had */
};

/* All that a processor of a guest needs, at BARE_CODE; registers are the caller's to set. */
void remote_open(struct remote *r, struct wvm *w, unsigned vcpu);
void remote_close(struct remote *r);
/* Waits until the node's slave answers, and knows its life. */
void remote_learn(struct remote *r, unsigned node);
void *remote_section(struct remote *r, enum wvm_kvm_section section);

/*
 * One run on a node, with the state where it is not that of the last answer there. Returns the
 * outcome; an answer is in r->cpu.exit, and its state in r->cpu.state. flags: GET, RESUME.
 */
struct wvm_vcpu_answer remote_run(struct remote *r, unsigned node, uint8_t flags);

#endif

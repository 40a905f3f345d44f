#include "roles/check/remote.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SETUP "vcpus 2\nmap 0 4000000 0\n"

/* ---- slaves ---------------------------------------------------------------------------- */

pid_t slave_start(const struct cluster *c, unsigned node, const char *more)
{
	const struct cluster_node *n = &c->node[node];
	char program[4128], port[8], id[8], log[176];
	const char *argv[] = {program, port,          "2",     "64", id,
			      "9001",  "--ring-path", n->ring, more, NULL};
	pid_t pid;

	snprintf(program, sizeof(program), "%s/wavevm_node_slave", cluster_bin());
	snprintf(port, sizeof(port), "%u", n->slave_port);
	snprintf(id, sizeof(id), "%u", node);
	snprintf(log, sizeof(log), "%s.slave", n->log);
	pid = fork();
	if (!pid) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		cpu_set_t all;

		memset(&all, 0xff, sizeof(all)); /* the test may keep to one CPU */
		(void)sched_setaffinity(0, sizeof(all), &all);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fd, 2);
		execv(program, (char *const *)argv);
		_exit(127);
	}
	ck_assert_int_gt(pid, 0);
	return pid;
}

int slave_end(pid_t pid, int signal)
{
	int status;

	kill(pid, signal);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

/* ---- the guest ------------------------------------------------------------------------- */

void *remote_section(struct remote *r, enum wvm_kvm_section section)
{
	return wvm_kvm_section(r->cpu.state, section);
}

void remote_open(struct remote *r, struct wvm *w, unsigned vcpu)
{
	struct kvm_sregs *s;
	struct kvm_regs *regs;

	memset(r, 0, sizeof(*r));
	ck_assert_int_eq(bare_cpu_init(&r->cpu, SETUP), 0);
	ck_assert_msg(!bare_new_state(r->cpu.state, vcpu, 3), "%s", wvm_kvm_error());
	s = remote_section(r, WVM_KVM_SREGS);
	s->fs.base = REMOTE_FS;
	regs = remote_section(r, WVM_KVM_REGS);
	regs->rsp = REMOTE_STACK;
	regs->rsi = REMOTE_DATA;
	ck_assert_msg(!wvm_vcpu_open(&r->cpu.l, w, CLUSTER_VM, vcpu), "%s", wvm_vcpu_error());
}

void remote_close(struct remote *r)
{
	wvm_vcpu_close(r->cpu.l);
	bare_cpu_fini(&r->cpu);
}

/* ---- runs ------------------------------------------------------------------------------ */

void remote_learn(struct remote *r, unsigned node)
{
	struct bare_slave *slave = &r->slave[node];
	struct wvm_vcpu_hello h;
	int ret = -1;

	*slave = (struct bare_slave){.node = node};
	for (unsigned i = 0; i < 10 && ret; i++)
		ret = wvm_vcpu_hello(r->cpu.l, node, &slave->life, &h);
	ck_assert_msg(!ret, "%s", wvm_vcpu_error());
	ck_assert_uint_ne(h.engines & 1u << WVM_VCPU_ENGINE_KVM, 0);
}

struct wvm_vcpu_answer remote_run(struct remote *r, unsigned node, uint8_t flags)
{
	struct wvm_vcpu_answer a;
	int ret = bare_cpu_run(&r->cpu, &r->slave[node], flags, &a);

	ck_assert_msg(!ret, "%s (%s)", strerror(-ret), wvm_vcpu_error());
	r->bytes += a.outcome == WVM_VCPU_ANSWERED ? r->cpu.exit.state_len : 0;
	return a;
}

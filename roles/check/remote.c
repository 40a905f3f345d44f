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

#include "shared/core/run.h"

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

static void segment(struct kvm_segment *s, uint8_t type, bool code)
{
	*s = (struct kvm_segment){.limit = 0xffffffff,
				  .selector = (uint16_t)((code ? 8 : 16) | 3),
				  .type = type,
				  .present = 1,
				  .dpl = 3,
				  .db = !code,
				  .s = 1,
				  .l = code,
				  .g = 1};
}

/* The first GiB in 2 MiB pages, open to ring 3. */
void remote_prepare(uint8_t *mem, const char *code, const char *end)
{
	uint64_t *top = (uint64_t *)(void *)(mem + REMOTE_TABLES);

	top[0] = (REMOTE_TABLES + 0x1000) | 7;
	top[512] = (REMOTE_TABLES + 0x2000) | 7;
	for (uint64_t i = 0; i < 512; i++)
		top[1024 + i] = i << 21 | 0x87;
	memcpy(mem + REMOTE_CODE, code, (size_t)(end - code));
}

void *remote_section(struct remote *r, enum wvm_kvm_section section)
{
	return wvm_kvm_section(r->state, section);
}

/* What a new processor is in KVM, which the test asks for one of its own. */
static void initial_state(uint8_t *state, unsigned vcpu)
{
	struct wvm_kvm *kvm = wvm_kvm_open();
	struct wvm_kvm_vcpu *v;

	ck_assert_msg(kvm != NULL, "%s", wvm_kvm_error());
	v = wvm_kvm_vcpu_open(kvm, vcpu, NULL);
	ck_assert_msg(v != NULL && !wvm_kvm_get(v, WVM_KVM_ALL), "%s", wvm_kvm_error());
	memcpy(state, wvm_kvm_state(v), wvm_kvm_layout()->bytes);
	wvm_kvm_vcpu_close(v);
	wvm_kvm_close(kvm);
}

void remote_open(struct remote *r, struct wvm *w, unsigned vcpu)
{
	struct kvm_sregs *s;
	struct kvm_xcrs *x;

	memset(r, 0, sizeof(*r));
	r->state = calloc(1, wvm_kvm_layout()->bytes);
	ck_assert_ptr_nonnull(r->state);
	initial_state(r->state, vcpu);
	s = remote_section(r, WVM_KVM_SREGS);
	s->cr3 = REMOTE_TABLES;
	s->cr4 = 0x40620;    /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE */
	s->cr0 = 0x80050033; /* paging, protection, FPU */
	s->efer = 0x500;
	segment(&s->cs, 11, true);
	segment(&s->ds, 3, false);
	s->es = s->fs = s->gs = s->ss = s->ds;
	s->fs.base = REMOTE_FS;
	x = remote_section(r, WVM_KVM_XCRS);
	x->nr_xcrs = 1;
	x->xcrs[0] = (struct kvm_xcr){.xcr = 0, .value = 7};
	/* One that begins is runnable, wherever in the reset of a real machine it would be. */
	((struct kvm_mp_state *)remote_section(r, WVM_KVM_MP))->mp_state = KVM_MP_STATE_RUNNABLE;
	*(struct kvm_regs *)remote_section(r, WVM_KVM_REGS) =
		(struct kvm_regs){.rip = REMOTE_CODE,
				  .rflags = REMOTE_RFLAGS,
				  .rsp = REMOTE_STACK,
				  .rsi = REMOTE_DATA};
	ck_assert_msg(!wvm_vcpu_open(&r->l, w, CLUSTER_VM, vcpu), "%s", wvm_vcpu_error());
}

void remote_close(struct remote *r)
{
	wvm_vcpu_close(r->l);
	free(r->state);
}

/* ---- runs ------------------------------------------------------------------------------ */

void remote_learn(struct remote *r, unsigned node)
{
	struct wvm_vcpu_hello h;
	int ret = -1;

	for (unsigned i = 0; i < 10 && ret; i++)
		ret = wvm_vcpu_hello(r->l, node, &r->life[node], &h);
	ck_assert_msg(!ret, "%s", wvm_vcpu_error());
	ck_assert_uint_ne(h.engines & 1u << WVM_VCPU_ENGINE_KVM, 0);
	r->told[node] = false;
}

static void take_state(struct remote *r, uint64_t seq)
{
	const struct wvm_vcpu_layout *l = wvm_kvm_layout();
	uint32_t changed;

	r->bytes += r->exit.state_len;
	if (!(r->exit.flags & WVM_VCPU_EXIT_STATE))
		return;
	ck_assert_uint_eq(r->exit.base, r->base);
	ck_assert_int_eq(wvm_vcpu_apply(l, r->state, r->exit.state, r->exit.state_len, &changed),
			 0);
	r->base = seq;
}

struct wvm_vcpu_answer remote_run(struct remote *r, unsigned node, uint8_t flags)
{
	const struct wvm_vcpu_layout *l = wvm_kvm_layout();
	bool whole = !r->base || node != r->node;
	struct wvm_vcpu_run run = {.engine = WVM_VCPU_ENGINE_KVM,
				   .flags = (uint8_t)(flags | (whole ? WVM_VCPU_RUN_WHOLE : 0)),
				   .setup_version = 1,
				   .base = whole ? 0 : r->base,
				   .ticks = r->exit.ticks,
				   .layout = wvm_kvm_layout_hash(),
				   .setup = (const uint8_t *)SETUP,
				   .setup_len = r->told[node] ? 0 : sizeof(SETUP) - 1};
	static __thread uint8_t delta[WVM_RUN_MAX];
	struct wvm_vcpu_answer a;
	size_t len;

	if (whole) {
		run.state_len = (uint32_t)wvm_vcpu_delta(l, NULL, r->state, WVM_KVM_ALL, delta,
							 sizeof(delta));
		run.state = delta;
	}
	len = wvm_vcpu_run_encode(r->run, sizeof(r->run), &run);
	ck_assert_msg(!wvm_vcpu_run(r->l, node, r->life[node], r->run, len, &a), "%s",
		      wvm_vcpu_error());
	if (a.outcome != WVM_VCPU_ANSWERED)
		return a;
	r->told[node] = true;
	r->node = node;
	if (whole)
		r->base = a.seq;
	ck_assert_int_eq(wvm_vcpu_exit_decode(a.data, a.len, &r->exit), 0);
	take_state(r, a.seq);
	return a;
}

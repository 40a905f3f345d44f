/*
 * Runs handed over to a program that the slave starts, one process for each VM: our QEMU with
 * WVM_ROLE=SLAVE. Watched by its pidfd. What it was executing when it died ends with an error,
 * since nobody knows how far it came; what comes after is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/daemon.h"
#include "ring/doorbell.h"
#include "ring/pidwatch.h"
#include "roles/slave/engine.h"
#include "shared/engine_host.h"

#define GRACE_NS  UINT64_C(2000000000) /* between SIGTERM and SIGKILL */
#define WAIT_US   5000
#define ENV_CHARS 300u
#define OUR_NAMES 3u

extern char **environ;

struct wvm_engine_vm {
	struct wvm_engine_vm *next;
	struct wvm_shard *shard;
	uint16_t vm_id;
	unsigned vcpus;
	pid_t pid; /* 0: it is gone, and waited for */
	bool closed, bell_open, watch_open;
	struct wvm_engine_host *host; /* NULL: no more runs */
	struct wvm_doorbell bell;
	struct wvm_pidwatch watch;
	struct wvm_timer grace;
	uint8_t record[WVM_ENGINE_RECORD_MAX];
	struct wvm_job *job[]; /* under way, by processor */
};

static struct wvm_engine_vm *all; /* the shard's thread; after its end the main thread's */

/* ---- the end --------------------------------------------------------------------------- */

static void how_it_ended(int status, char *out, size_t room)
{
	if (WIFSIGNALED(status))
		snprintf(out, room, "was ended by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(out, room, "has ended with status %d", WEXITSTATUS(status));
}

static void fail_jobs(struct wvm_engine_vm *vm, const char *why)
{
	for (unsigned i = 0; i < vm->vcpus; i++) {
		struct wvm_job *job = vm->job[i];

		vm->job[i] = NULL;
		if (job)
			wvm_job_error(job, why);
	}
}

static void free_when_over(struct wvm_engine_vm *vm)
{
	struct wvm_engine_vm **at = &all;

	if (!vm->closed || vm->pid || vm->bell_open || vm->watch_open)
		return;
	while (*at != vm)
		at = &(*at)->next;
	*at = vm->next;
	free(vm);
}

static void bell_closed(struct wvm_doorbell *d)
{
	struct wvm_engine_vm *vm = d->ctx;

	vm->bell_open = false;
	free_when_over(vm);
}

static void watch_closed(struct wvm_pidwatch *w)
{
	struct wvm_engine_vm *vm = w->ctx;

	vm->watch_open = false;
	free_when_over(vm);
}

/* It gets no more runs; what it still executes is over. */
static void give_up(struct wvm_engine_vm *vm, const char *why)
{
	if (vm->host) {
		wvm_engine_host_free(vm->host);
		vm->host = NULL;
		wvm_doorbell_close(&vm->bell);
	}
	fail_jobs(vm, why);
}

static void too_long(struct wvm_timer *t, uint64_t now_ns)
{
	struct wvm_engine_vm *vm =
		(struct wvm_engine_vm *)((char *)t - offsetof(struct wvm_engine_vm, grace));

	(void)now_ns;
	if (vm->pid)
		kill(vm->pid, SIGKILL);
}

static void take_answers(struct wvm_doorbell *d);

static void died(struct wvm_pidwatch *w)
{
	struct wvm_engine_vm *vm = w->ctx;
	char how[96], why[200];
	int status = 0;

	if (vm->host)
		take_answers(&vm->bell); /* what it has finished before counts */
	waitpid(vm->pid, &status, 0);
	how_it_ended(status, how, sizeof(how));
	snprintf(why, sizeof(why), "its engine (process %d) %s", (int)vm->pid, how);
	if (!vm->closed)
		wvm_log("VM %u: %s", vm->vm_id, why);
	vm->pid = 0;
	wvm_shard_disarm(vm->shard, &vm->grace);
	give_up(vm, why);
	wvm_pidwatch_close(w);
}

/* ---- answers --------------------------------------------------------------------------- */

static bool take_one(struct wvm_engine_vm *vm, unsigned vcpu, int *r)
{
	struct wvm_job *job = vm->job[vcpu];
	struct wvm_engine_answer a;
	struct wvm_vcpu_exit e;

	*r = wvm_engine_host_take(vm->host, vcpu, vm->record, &a);
	if (*r)
		return false;
	if (!job || a.seq != job->seq || (!a.reason && wvm_vcpu_exit_decode(a.data, a.len, &e))) {
		*r = -EPROTO;
		return false;
	}
	vm->job[vcpu] = NULL;
	if (a.reason) {
		wvm_job_refuse(job, a.reason);
		return true;
	}
	memcpy(job->answer, a.data, a.len);
	job->answer_len = (uint32_t)a.len;
	job->done(job);
	return true;
}

static void take_answers(struct wvm_doorbell *d)
{
	struct wvm_engine_vm *vm = d->ctx;

	for (unsigned i = 0; i < vm->vcpus && vm->host; i++) {
		int r = 0;

		/* A job has one answer, and the next is not begun in here. */
		if (vm->job[i])
			(void)take_one(vm, i, &r);
		if (r && r != -EAGAIN) {
			wvm_log("VM %u: its engine (process %d) breaks the rules of its channel",
				vm->vm_id, (int)vm->pid);
			kill(vm->pid, SIGKILL);
			give_up(vm, "its engine has broken the rules of its channel");
		}
	}
}

/* ---- the beginning --------------------------------------------------------------------- */

/* What QEMU is told. Its own memory is a formality: the machine maps the VM's. */
static int spawn(struct wvm_engine_vm *vm, const struct wvm_engine_env *env,
		 const struct wvm_vcpu_setup *setup, char *const names[], char *err, size_t err_len)
{
	const char *qemu = env->options->qemu;
	char smp[16];
	const char *const argv[] = {qemu,
				    "-machine",
				    "wavevm-slave",
				    "-accel",
				    "wavevm,backend=tcg",
				    "-cpu",
				    setup->cpu[0] ? setup->cpu : "qemu64",
				    "-smp",
				    smp,
				    "-m",
				    "16",
				    "-display",
				    "none",
				    "-nodefaults",
				    "-serial",
				    "none",
				    "-monitor",
				    "none",
				    NULL};

	snprintf(smp, sizeof(smp), "%u", setup->vcpus);
	return wvm_engine_host_spawn(vm->host, qemu, (char *const *)argv, names, &vm->pid, err,
				     err_len);
}

/* Ours behind what we have ourselves, less those of the same names. */
static char **environment(char ours[OUR_NAMES][ENV_CHARS])
{
	size_t count = 0, n = 0;
	char **list;

	while (environ[count])
		count++;
	list = calloc(count + OUR_NAMES + 1, sizeof(*list));
	for (size_t i = 0; list && i < count; i++) {
		bool same = false;

		for (unsigned k = 0; k < OUR_NAMES; k++)
			same |= !strncmp(environ[i], ours[k], strcspn(ours[k], "=") + 1);
		if (!same)
			list[n++] = environ[i];
	}
	for (unsigned k = 0; list && k < OUR_NAMES; k++)
		list[n++] = ours[k];
	return list;
}

static int start_program(struct wvm_engine_vm *vm, const struct wvm_engine_env *env,
			 const struct wvm_vcpu_setup *setup, char *err, size_t err_len)
{
	char ours[OUR_NAMES][ENV_CHARS], **names;
	int r;

	snprintf(ours[0], ENV_CHARS, "WVM_ROLE=SLAVE");
	snprintf(ours[1], ENV_CHARS, "WVM_RING_PATH=%s", env->options->ring_path);
	snprintf(ours[2], ENV_CHARS, "WVM_VM_ID=%u", vm->vm_id);
	names = environment(ours);
	if (!names) {
		snprintf(err, err_len, "no memory for an engine");
		return -ENOMEM;
	}
	r = spawn(vm, env, setup, names, err, err_len);
	free(names);
	return r;
}

/* The pidfd of our child, who is not waited for: it cannot be another's. */
static int watch(struct wvm_engine_vm *vm)
{
	int pidfd = wvm_pidfd_open(vm->pid), r;
	int bell = fcntl(wvm_engine_host_bell(vm->host), F_DUPFD_CLOEXEC, 0);

	if (pidfd < 0 || bell < 0) {
		r = pidfd < 0 ? pidfd : -errno;
		goto fail;
	}
	vm->bell.ctx = vm->watch.ctx = vm;
	vm->bell.ring = take_answers;
	vm->bell.closed = bell_closed;
	vm->watch.died = died;
	vm->watch.closed = watch_closed;
	r = wvm_doorbell_open(&vm->bell, vm->shard, bell, true);
	if (r)
		goto fail;
	vm->bell_open = true;
	wvm_pidwatch_open(&vm->watch, vm->shard, pidfd);
	vm->watch_open = true;
	return 0;
fail:
	if (pidfd >= 0)
		close(pidfd);
	if (bell >= 0)
		close(bell);
	return r;
}

static int process_open(struct wvm_engine_vm **out, const struct wvm_engine_env *env,
			uint16_t vm_id, const struct wvm_vcpu_setup *setup, char *err,
			size_t err_len)
{
	struct wvm_engine_vm *vm = calloc(1, sizeof(*vm) + setup->vcpus * sizeof(vm->job[0]));
	int r;

	if (!vm) {
		snprintf(err, err_len, "no memory for an engine");
		return -ENOMEM;
	}
	vm->shard = env->shard;
	vm->vm_id = vm_id;
	vm->vcpus = setup->vcpus;
	vm->grace.fire = too_long;
	r = wvm_engine_host_new(&vm->host, setup->vcpus, err, err_len);
	if (!r)
		r = start_program(vm, env, setup, err, err_len);
	if (!r && (r = watch(vm))) {
		snprintf(err, err_len, "its engine cannot be watched: %s", strerror(-r));
		kill(vm->pid, SIGKILL);
		waitpid(vm->pid, NULL, 0);
	}
	if (r) {
		wvm_engine_host_free(vm->host);
		free(vm);
		return r;
	}
	wvm_log("VM %u: engine %s for %u processor%s (process %d)", vm_id, env->options->qemu,
		setup->vcpus, setup->vcpus == 1 ? "" : "s", (int)vm->pid);
	vm->next = all;
	all = vm;
	*out = vm;
	return 0;
}

/* ---- runs ------------------------------------------------------------------------------ */

static void process_start(struct wvm_engine_vm *vm, struct wvm_job *job)
{
	if (!vm->host) {
		wvm_job_refuse(job, WVM_RUN_ENGINE);
		return;
	}
	vm->job[job->vcpu] = job;
	if (job->kicked)
		wvm_engine_host_kick(vm->host, job->vcpu, job->seq);
	if (!wvm_engine_host_run(vm->host, job->vcpu, job->seq, job->run, job->run_len))
		return;
	/* It has answered all runs before, and so has taken them. */
	vm->job[job->vcpu] = NULL;
	wvm_log("VM %u: its engine (process %d) takes no runs", vm->vm_id, (int)vm->pid);
	kill(vm->pid, SIGKILL);
	wvm_job_refuse(job, WVM_RUN_ENGINE);
}

static void process_kick(struct wvm_engine_vm *vm, struct wvm_job *job)
{
	if (vm->host)
		wvm_engine_host_kick(vm->host, job->vcpu, job->seq);
}

static void process_force(struct wvm_engine_vm *vm)
{
	if (vm->pid)
		kill(vm->pid, SIGKILL);
}

static void process_close(struct wvm_engine_vm *vm)
{
	vm->closed = true;
	if (vm->host) {
		wvm_engine_host_free(vm->host);
		vm->host = NULL;
		wvm_doorbell_close(&vm->bell);
	}
	/* Jobs that are under way when the slave stops are nobody's any more. */
	memset(vm->job, 0, vm->vcpus * sizeof(vm->job[0]));
	if (vm->pid) {
		kill(vm->pid, SIGTERM);
		wvm_shard_arm(vm->shard, &vm->grace, GRACE_NS);
	}
	free_when_over(vm);
}

static void process_stop(void)
{
	unsigned waits = (unsigned)(GRACE_NS / 1000 / WAIT_US);

	while (all) {
		struct wvm_engine_vm *vm = all;

		for (; vm->pid && waitpid(vm->pid, NULL, WNOHANG) != vm->pid; usleep(WAIT_US)) {
			if (!waits)
				kill(vm->pid, SIGKILL);
			else
				waits--;
		}
		all = vm->next;
		free(vm);
	}
}

const struct wvm_engine_ops wvm_engine_process = {
	.open = process_open,
	.start = process_start,
	.kick = process_kick,
	.force = process_force,
	.close = process_close,
	.stop = process_stop,
};

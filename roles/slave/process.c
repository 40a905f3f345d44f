/*
 * Processors by a process that the slave starts for each VM: our QEMU with WVM_ROLE=SLAVE, or
 * whatever speaks shared/engine.h. The shard hands runs over and takes answers itself; only
 * the start, which blocks until the program is loaded, has a thread.
 *
 *	NEW -first run with a setup-> STARTING -it has a pid-> RUNNING -it ends, or breaks the
 *rules-> DEAD any -close-> (told to end, SIGTERM, 2 s later SIGKILL) gone
 *
 * What it had not taken up is refused when it is DEAD; what it may have executed ends with an
 * ERROR. A dead one is not started again for the same life of the owner: what it had
 * within an instruction is lost.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/doorbell.h"
#include "ring/pidwatch.h"
#include "ring/post.h"
#include "roles/slave/engine.h"
#include "roles/slave/slave.h"
#include "shared/engine_host.h"

#define START_NS      UINT64_C(20000000000) /* QEMU is up within one second */
#define KILL_NS       UINT64_C(2000000000)
#define STARTER_STACK (256u * 1024)

enum state { NEW, STARTING, RUNNING, DEAD };

struct wvm_engine_vm {
	struct wvm_engine_env env;
	uint16_t vm_id;
	enum state state;
	bool closing;
	struct wvm_vcpu_setup setup; /* that it was started for */
	struct wvm_engine_host *host;
	pid_t pid;
	struct wvm_pidwatch watch;
	struct wvm_doorbell bell;
	bool watching, listening;
	struct wvm_timer timer; /* the start's, then the end's */
	struct wvm_job *jobs[WVM_VCPU_MAX];
	uint8_t record[WVM_ENGINE_RECORD_MAX];
};

/* What the starter found; posted. */
struct started {
	int result; /* 0 or -errno */
	pid_t pid;
	char text[200];
};

extern char **environ;
static unsigned closing_count; /* atomic */

/* ---- the program ----------------------------------------------------------------------- */

/* The command line of the engine: our QEMU's, with nothing but processors and the VM's memory. */
static int run_program(struct wvm_engine_vm *vm, pid_t *pid, char *err, size_t err_len)
{
	char accel[64], smp[16];
	const char *argv[] = {vm->env.qemu,
			      "-accel",
			      accel,
			      "-machine",
			      "wavevm-slave",
			      "-smp",
			      smp,
			      "-display",
			      "none",
			      "-monitor",
			      "none",
			      "-serial",
			      "none",
			      "-parallel",
			      "none",
			      "-nodefaults",
			      "-no-user-config",
			      vm->setup.cpu[0] ? "-cpu" : NULL,
			      vm->setup.cpu,
			      NULL};

	snprintf(accel, sizeof(accel), "wavevm,backend=tcg,vm-id=%u", vm->vm_id);
	snprintf(smp, sizeof(smp), "%u", vm->setup.vcpus);
	return wvm_engine_host_spawn(vm->host, vm->env.qemu, (char *const *)argv, environ, pid, err,
				     err_len);
}

/* The program may use what the slave's processors may. */
static void leave_the_shards_core(const struct wvm_engine_env *env)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (unsigned i = 0; i < env->cores; i++)
		if (env->places[i].real && env->places[i].pu >= 0)
			CPU_SET((unsigned)env->places[i].pu, &set);
	if (CPU_COUNT(&set))
		(void)sched_setaffinity(0, sizeof(set), &set);
}

static void on_started(struct wvm_shard *self, void *ctx, const void *data, size_t len);

static void *start_program(void *arg)
{
	struct wvm_engine_vm *vm = arg;
	struct started s = {.pid = 0};

	leave_the_shards_core(&vm->env);
	s.result = run_program(vm, &s.pid, s.text, sizeof(s.text));
	while (wvm_post_outside(vm->env.shard, on_started, vm, &s, sizeof(s)) == -EAGAIN)
		usleep(1000);
	return NULL;
}

static int start_starter(struct wvm_engine_vm *vm)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STARTER_STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attr, start_program, vm);
	pthread_attr_destroy(&attr);
	return -r;
}

static void send_signal(const struct wvm_engine_vm *vm, int number)
{
	if (vm->watching)
		(void)syscall(SYS_pidfd_send_signal, vm->watch.pidfd, number, NULL, 0);
}

/* ---- its end --------------------------------------------------------------------------- */

/* Nothing more is expected of it. */
static void be_dead(struct wvm_engine_vm *vm, const char *text)
{
	bool opened = vm->host && wvm_engine_host_opened(vm->host);

	if (vm->state != DEAD && !vm->closing)
		wvm_log("VM %u: %s", vm->vm_id, text);
	vm->state = DEAD;
	wvm_shard_disarm(vm->env.shard, &vm->timer);
	for (unsigned i = 0; i < WVM_VCPU_MAX; i++) {
		struct wvm_job *job = vm->jobs[i];

		vm->jobs[i] = NULL;
		if (job && opened)
			wvm_job_error(job, text);
		else if (job)
			wvm_job_refuse(job, WVM_RUN_ENGINE);
	}
	send_signal(vm, SIGKILL);
}

static void free_vm(struct wvm_engine_vm *vm)
{
	wvm_engine_host_free(vm->host);
	free(vm);
	__atomic_fetch_sub(&closing_count, 1, __ATOMIC_SEQ_CST);
}

/* Bell and watch go in turns of their own; whichever is last frees. */
static void go(struct wvm_engine_vm *vm)
{
	if (vm->closing && vm->state != STARTING && !vm->watching && !vm->listening)
		free_vm(vm);
}

static void on_bell_closed(struct wvm_doorbell *d)
{
	struct wvm_engine_vm *vm = d->ctx;

	vm->listening = false;
	go(vm);
}

static void on_watch_closed(struct wvm_pidwatch *w)
{
	struct wvm_engine_vm *vm = w->ctx;

	vm->watching = false;
	go(vm);
}

static void take_answers(struct wvm_engine_vm *vm);

static void on_died(struct wvm_pidwatch *w)
{
	struct wvm_engine_vm *vm = w->ctx;
	char text[200];
	int status = 0;

	(void)waitpid(vm->pid, &status, WNOHANG);
	/* What it said before counts. */
	if (vm->state == RUNNING && !vm->closing)
		take_answers(vm);
	if (WIFSIGNALED(status))
		snprintf(text, sizeof(text), "the engine (process %d) was killed by signal %d",
			 (int)vm->pid, WTERMSIG(status));
	else
		snprintf(text, sizeof(text), "the engine (process %d) ended with status %d",
			 (int)vm->pid, WEXITSTATUS(status));
	be_dead(vm, text);
	wvm_pidwatch_close(&vm->watch);
}

/* ---- runs and answers ------------------------------------------------------------------ */

/* An answer that is one: of the run that the processor has, and as answers are. */
static bool take_answer(struct wvm_engine_vm *vm, unsigned vcpu, const struct wvm_engine_answer *a)
{
	struct wvm_job *job = vm->jobs[vcpu];
	struct wvm_vcpu_exit e;

	if (a->seq != job->seq)
		return false;
	if (!a->reason && wvm_vcpu_exit_decode(a->data, a->len, &e))
		return false;
	vm->jobs[vcpu] = NULL;
	if (a->reason) {
		wvm_job_refuse(job, (enum wvm_run_reason)a->reason);
		return true;
	}
	memcpy(job->answer, a->data, a->len);
	job->answer_len = (uint32_t)a->len;
	job->reason = WVM_RUN_NO_REASON;
	job->keeps = e.flags & (WVM_VCPU_EXIT_MIDWAY | WVM_VCPU_EXIT_STAYS);
	job->done(job);
	return true;
}

static void take_answers(struct wvm_engine_vm *vm)
{
	for (unsigned i = 0; i < vm->setup.vcpus; i++) {
		struct wvm_engine_answer a;
		int r;

		if (!vm->jobs[i])
			continue;
		r = wvm_engine_host_take(vm->host, i, vm->record, &a);
		if (r == -EAGAIN || (!r && take_answer(vm, i, &a)))
			continue;
		be_dead(vm, "the engine answers what makes no sense");
		return;
	}
}

static void on_bell(struct wvm_doorbell *d)
{
	struct wvm_engine_vm *vm = d->ctx;

	if (vm->state != DEAD && !vm->closing)
		take_answers(vm);
}

static void on_timer(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_engine_vm *vm =
		(struct wvm_engine_vm *)((uint8_t *)timer - offsetof(struct wvm_engine_vm, timer));

	(void)now_ns;
	if (vm->closing)
		send_signal(vm, SIGKILL);
	else if (!wvm_engine_host_opened(vm->host))
		be_dead(vm, "the engine does not come up");
}

static int watch_process(struct wvm_engine_vm *vm, pid_t pid)
{
	int pidfd = wvm_pidfd_open(pid), fd, r;

	if (pidfd < 0) {
		kill(pid, SIGKILL); /* ours, and not waited for: its number is no other's */
		(void)waitpid(pid, NULL, 0);
		return pidfd;
	}
	vm->pid = pid;
	vm->watch.ctx = vm;
	vm->watch.died = on_died;
	vm->watch.closed = on_watch_closed;
	vm->watching = true;
	wvm_pidwatch_open(&vm->watch, vm->env.shard, pidfd);
	fd = dup(wvm_engine_host_bell(vm->host));
	vm->bell.ctx = vm;
	vm->bell.ring = on_bell;
	vm->bell.closed = on_bell_closed;
	r = fd < 0 ? -errno : wvm_doorbell_open(&vm->bell, vm->env.shard, fd, true);
	vm->listening = !r;
	if (r && fd >= 0)
		close(fd);
	return r;
}

static void close_process(struct wvm_engine_vm *vm)
{
	if (vm->listening)
		wvm_doorbell_close(&vm->bell);
	wvm_engine_host_free(vm->host);
	vm->host = NULL;
	send_signal(vm, SIGTERM);
	if (vm->watching && vm->state != DEAD)
		wvm_shard_arm(vm->env.shard, &vm->timer, KILL_NS);
	go(vm);
}

static void on_started(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_engine_vm *vm = ctx;
	struct started s;
	int r;

	(void)self;
	(void)len;
	memcpy(&s, data, sizeof(s));
	vm->state = RUNNING;
	if (s.result) {
		be_dead(vm, s.text);
	} else {
		r = watch_process(vm, s.pid);
		if (r)
			be_dead(vm, "the engine cannot be watched");
		else if (!vm->closing)
			wvm_log("VM %u: its engine is process %d", vm->vm_id, (int)s.pid);
	}
	if (vm->closing)
		close_process(vm);
	else if (vm->state == RUNNING)
		take_answers(vm); /* it may have rung before we listened */
}

/* ---- the slave's ----------------------------------------------------------------------- */

static struct wvm_engine_vm *vm_open(const struct wvm_engine_env *env, uint16_t vm_id, char *err,
				     size_t err_len)
{
	struct wvm_engine_vm *vm = calloc(1, sizeof(*vm));

	if (!vm) {
		snprintf(err, err_len, "no memory for VM %u", vm_id);
		return NULL;
	}
	vm->env = *env;
	vm->vm_id = vm_id;
	vm->timer.fire = on_timer;
	return vm;
}

/* The machine of the first run is what the program is started for; it learns of later ones itself.
 */
static unsigned begin(struct wvm_engine_vm *vm, const struct wvm_job *job)
{
	char err[200] = "";
	int r;

	if (!job->head.setup_len)
		return WVM_RUN_SETUP;
	if (wvm_vcpu_setup_parse(job->head.setup, job->head.setup_len, &vm->setup, err,
				 sizeof(err))) {
		wvm_log("VM %u: %s", vm->vm_id, err);
		return WVM_RUN_MALFORMED;
	}
	r = wvm_engine_host_new(&vm->host, vm->setup.vcpus, err, sizeof(err));
	if (!r) {
		vm->state = STARTING;
		r = start_starter(vm);
		if (r) {
			snprintf(err, sizeof(err), "no thread to start an engine: %s",
				 strerror(-r));
			vm->state = NEW;
			wvm_engine_host_free(vm->host);
			vm->host = NULL;
		}
	}
	if (r) {
		wvm_log("VM %u: %s", vm->vm_id, err);
		return WVM_RUN_ENGINE;
	}
	wvm_shard_arm(vm->env.shard, &vm->timer, START_NS);
	return WVM_RUN_NO_REASON;
}

static void vm_start(struct wvm_engine_vm *vm, struct wvm_job *job)
{
	unsigned reason = vm->state == DEAD ? WVM_RUN_ENGINE : WVM_RUN_NO_REASON;

	if (vm->state == NEW)
		reason = begin(vm, job);
	if (!reason && job->vcpu >= vm->setup.vcpus)
		reason = WVM_RUN_MALFORMED;
	if (reason) {
		wvm_job_refuse(job, (enum wvm_run_reason)reason);
		return;
	}
	vm->jobs[job->vcpu] = job;
	if (job->kicked)
		wvm_engine_host_kick(vm->host, job->vcpu, job->seq);
	if (wvm_engine_host_run(vm->host, job->vcpu, job->seq, job->run, job->run_len))
		be_dead(vm, "the engine does not take runs");
}

static void vm_kick(struct wvm_engine_vm *vm, struct wvm_job *job)
{
	if (vm->host && vm->jobs[job->vcpu] == job)
		wvm_engine_host_kick(vm->host, job->vcpu, job->seq);
}

static void vm_close(struct wvm_engine_vm *vm)
{
	__atomic_fetch_add(&closing_count, 1, __ATOMIC_SEQ_CST);
	vm->closing = true;
	wvm_shard_disarm(vm->env.shard, &vm->timer);
	if (vm->state != STARTING) /* else when it has a pid */
		close_process(vm);
}

static unsigned vm_closing(void)
{
	return __atomic_load_n(&closing_count, __ATOMIC_SEQ_CST);
}

const struct wvm_engine wvm_engine_process = {.name = "process",
					      .open = vm_open,
					      .start = vm_start,
					      .kick = vm_kick,
					      .close = vm_close,
					      .closing = vm_closing};

/*
 * Processors by KVM, each in a thread of its own beside the shard. The VM's memory is that of
 * libwavevm, mapped once; what the guest sees of it where is KVM's table.
 *
 * A worker is handed its job without a lock, and told by a semaphore: that is on the way of every
 * run.
 *
 * Locks: `setup_lock` is held while the machine is made or changed, which may take long and is
 * never waited for by the shard. `lock` guards the list of workers and whether they are open;
 * nothing waits under it. `map_lock` is held for reading while guests run, for writing while
 * KVM's table of memory changes.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "roles/slave/engine.h"
#include "roles/slave/kvm_run.h"
#include "roles/slave/slave.h"
#include "shared/wavevm.h"

#define WORKER_STACK  (256u * 1024)
#define LEAVE_NS      2000000 /* until those in the guest are kicked again */
#define TROUBLE_TRIES 20u     /* for the master's word about memory, 5 ms each */
#define KICK_SIGNAL   SIGUSR1

struct worker {
	struct wvm_engine_vm *vm;
	unsigned vcpu;
	pthread_t thread;
	sem_t told;
	struct wvm_job *job; /* to be executed; atomic, set before it is told */
	struct wvm_kvm_cpu cpu;
	bool open; /* cpu is; vm->lock */
};

struct wvm_engine_vm {
	struct wvm_engine_env env;
	uint16_t vm_id;

	pthread_mutex_t setup_lock;
	bool has_setup;
	uint32_t setup_version;
	struct wvm_vcpu_setup setup;
	struct wvm *w;
	uint8_t *ram;
	uint64_t ram_bytes;
	struct wvm_kvm *kvm;

	pthread_rwlock_t map_lock;

	pthread_mutex_t lock;
	unsigned refs;     /* the slave, and each worker */
	bool closing;      /* atomic, as a worker's job */
	char trouble[200]; /* libwavevm's last word about memory */
	struct worker *workers[WVM_VCPU_MAX];
};

static unsigned closing_count; /* atomic */
static __thread struct wvm_kvm_cpu *current;

/* ---- signals --------------------------------------------------------------------------- */

static void on_kick(int number)
{
	(void)number;
	if (current && current->v)
		wvm_kvm_kick(current->v);
}

/* By KVM for the thread that runs a guest, where a page of it cannot be had. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (!current || !current->v) {
		signal(number, SIG_DFL); /* happens again, and is the end */
		return;
	}
	current->lost_at = (uintptr_t)info->si_addr;
	__atomic_store_n(&current->lost, true, __ATOMIC_SEQ_CST);
	wvm_kvm_kick(current->v);
}

static void catch_signals(void)
{
	struct sigaction kick = {.sa_handler = on_kick};
	struct sigaction bus = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};

	sigaction(KICK_SIGNAL, &kick, NULL);
	sigaction(SIGBUS, &bus, NULL);
}

bool wvm_engine_kvm_usable(char *why, size_t why_len)
{
	struct wvm_kvm *kvm = wvm_kvm_open();

	if (!kvm)
		snprintf(why, why_len, "%s", wvm_kvm_error());
	wvm_kvm_close(kvm);
	return kvm != NULL;
}

/* ---- the machine ----------------------------------------------------------------------- */

static void on_error(void *opaque, void *addr, const char *text)
{
	struct wvm_engine_vm *vm = opaque;

	wvm_log("VM %u: %s", vm->vm_id, text);
	if (!addr)
		return;
	pthread_mutex_lock(&vm->lock);
	snprintf(vm->trouble, sizeof(vm->trouble), "%s", text);
	pthread_mutex_unlock(&vm->lock);
}

static int attach(struct wvm_engine_vm *vm)
{
	int64_t bytes;
	int r = wvm_attach(&vm->w, vm->env.ring_path);

	if (r)
		return r;
	wvm_on_error(vm->w, on_error, vm);
	bytes = wvm_vm_size(vm->w, vm->vm_id);
	if (bytes <= 0) {
		wvm_log("VM %u: the master of this node serves no such VM", vm->vm_id);
		return -ENXIO;
	}
	vm->ram_bytes = (uint64_t)bytes;
	vm->ram = wvm_map(vm->w, vm->vm_id, 0, (size_t)bytes, WVM_STRICT | WVM_ERROR_SIGBUS);
	return vm->ram ? 0 : -errno;
}

/* Memory and an empty VM of KVM. What a failed try leaves is closed with the engine's VM. */
static int make_machine(struct wvm_engine_vm *vm)
{
	if (!vm->ram && attach(vm)) {
		wvm_log("VM %u: %s", vm->vm_id, wvm_attach_error());
		wvm_detach(vm->w);
		vm->w = NULL;
		return -EIO;
	}
	if (!vm->kvm)
		vm->kvm = wvm_kvm_open();
	if (!vm->kvm)
		wvm_log("VM %u: %s", vm->vm_id, wvm_kvm_error());
	return vm->kvm ? 0 : -EIO;
}

static void kick_all(struct wvm_engine_vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	for (unsigned i = 0; i < WVM_VCPU_MAX; i++) {
		struct worker *w = vm->workers[i];

		if (w && w->open) {
			__atomic_store_n(&w->cpu.leave, true, __ATOMIC_SEQ_CST);
			wvm_kvm_kick(w->cpu.v);
			pthread_kill(w->thread, KICK_SIGNAL);
		}
	}
	pthread_mutex_unlock(&vm->lock);
}

/* Nobody is in the guest afterwards. One that was just entering it did not see the first kick. */
static void stop_guests(struct wvm_engine_vm *vm)
{
	struct timespec t;

	do {
		kick_all(vm);
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += LEAVE_NS;
		if (t.tv_nsec >= 1000000000) {
			t.tv_nsec -= 1000000000;
			t.tv_sec++;
		}
	} while (pthread_rwlock_timedwrlock(&vm->map_lock, &t));
}

static int map_all(struct wvm_engine_vm *vm, const struct wvm_vcpu_setup *setup)
{
	int r = wvm_kvm_unmap(vm->kvm);

	for (unsigned i = 0; !r && i < setup->maps; i++) {
		const struct wvm_vcpu_map *m = &setup->map[i];

		r = wvm_kvm_map(vm->kvm, m->gpa, vm->ram + m->offset, m->len, m->read_only);
	}
	return r;
}

static bool fits(const struct wvm_engine_vm *vm, const struct wvm_vcpu_setup *setup)
{
	for (unsigned i = 0; i < setup->maps; i++) {
		const struct wvm_vcpu_map *m = &setup->map[i];

		if (m->offset > vm->ram_bytes || m->len > vm->ram_bytes - m->offset)
			return false;
	}
	return true;
}

static unsigned take_setup(struct wvm_engine_vm *vm, const struct wvm_vcpu_run *r)
{
	struct wvm_vcpu_setup setup;
	char err[160] = "";
	int failed;

	if (wvm_vcpu_setup_parse(r->setup, r->setup_len, &setup, err, sizeof(err))) {
		wvm_log("VM %u: %s", vm->vm_id, err);
		return WVM_RUN_MALFORMED;
	}
	if (make_machine(vm))
		return WVM_RUN_ENGINE;
	if (!fits(vm, &setup)) {
		wvm_log("VM %u: its setup names memory beyond its %llu MiB", vm->vm_id,
			(unsigned long long)(vm->ram_bytes >> 20));
		return WVM_RUN_MALFORMED;
	}
	stop_guests(vm);
	failed = map_all(vm, &setup);
	pthread_rwlock_unlock(&vm->map_lock);
	if (failed) {
		wvm_log("VM %u: %s", vm->vm_id, wvm_kvm_error());
		vm->has_setup = false;
		return WVM_RUN_ENGINE;
	}
	vm->setup = setup;
	vm->setup_version = r->setup_version;
	vm->has_setup = true;
	return WVM_RUN_NO_REASON;
}

static unsigned know_setup(struct wvm_engine_vm *vm, const struct wvm_job *job)
{
	const struct wvm_vcpu_run *r = &job->head;
	unsigned reason = WVM_RUN_NO_REASON;

	pthread_mutex_lock(&vm->setup_lock);
	if (!vm->has_setup || vm->setup_version != r->setup_version)
		reason = r->setup_len ? take_setup(vm, r) : WVM_RUN_SETUP;
	if (!reason && job->vcpu >= vm->setup.vcpus)
		reason = WVM_RUN_MALFORMED;
	pthread_mutex_unlock(&vm->setup_lock);
	return reason;
}

/* ---- a processor ----------------------------------------------------------------------- */

static unsigned open_cpu(struct worker *w)
{
	struct wvm_engine_vm *vm = w->vm;
	struct wvm_kvm_cpu cpu;

	if (w->open)
		return WVM_RUN_NO_REASON;
	if (wvm_kvm_cpu_open(&cpu, vm->kvm, w->vcpu)) {
		wvm_log("VM %u: %s", vm->vm_id, wvm_kvm_error());
		wvm_kvm_cpu_close(&cpu);
		return WVM_RUN_ENGINE;
	}
	pthread_mutex_lock(&vm->lock);
	w->cpu = cpu;
	w->open = true;
	pthread_mutex_unlock(&vm->lock);
	current = &w->cpu;
	return WVM_RUN_NO_REASON;
}

/* What libwavevm says about it has the node and the reason; it comes a moment after the signal. */
static const char *explain(struct worker *w, const char *text, char *line, size_t line_len)
{
	struct wvm_engine_vm *vm = w->vm;
	bool known = false;

	if (!strstr(text, "memory that cannot be had") && !strstr(text, strerror(EFAULT)))
		return text;
	for (unsigned i = 0; i < TROUBLE_TRIES && !known; i++) {
		pthread_mutex_lock(&vm->lock);
		known = vm->trouble[0];
		snprintf(line, line_len, "%s", known ? vm->trouble : text);
		pthread_mutex_unlock(&vm->lock);
		if (!known)
			usleep(5000);
	}
	return line;
}

static void execute(struct worker *w, struct wvm_job *job)
{
	struct wvm_engine_vm *vm = w->vm;
	struct wvm_vcpu_exit e = {0};
	const char *text = NULL;
	uint64_t began = wvm_now_ns();
	unsigned reason;
	char line[200];

	reason = know_setup(vm, job);
	if (!reason)
		reason = open_cpu(w);
	if (!reason)
		reason = wvm_kvm_cpu_take(&w->cpu, &job->head, job->seq, &text);
	if (reason) {
		wvm_job_refuse(job, (enum wvm_run_reason)reason);
		return;
	}
	if (!text) {
		pthread_rwlock_rdlock(&vm->map_lock);
		wvm_kvm_cpu_execute(&w->cpu, &job->head, &job->kicked, &e, &text);
		pthread_rwlock_unlock(&vm->map_lock);
	}
	e.ran_ns = wvm_now_ns() - began;
	if (!text)
		job->answer_len = (uint32_t)wvm_kvm_cpu_answer(&w->cpu, job->seq, &e, job->answer,
							       WVM_RUN_MAX, &text);
	if (text)
		wvm_kvm_cpu_spoil(&w->cpu);
	job->keeps = w->cpu.midway || w->cpu.stays;
	if (text) {
		wvm_job_error(job, explain(w, text, line, sizeof(line)));
		return;
	}
	job->reason = WVM_RUN_NO_REASON;
	job->done(job);
}

static void unref(struct wvm_engine_vm *vm)
{
	unsigned left;

	pthread_mutex_lock(&vm->lock);
	left = --vm->refs;
	pthread_mutex_unlock(&vm->lock);
	if (left)
		return;
	for (unsigned i = 0; i < WVM_VCPU_MAX; i++) {
		if (!vm->workers[i])
			continue;
		sem_destroy(&vm->workers[i]->told);
		free(vm->workers[i]);
	}
	wvm_kvm_close(vm->kvm);
	if (vm->w)
		wvm_detach(vm->w);
	pthread_mutex_destroy(&vm->lock);
	pthread_mutex_destroy(&vm->setup_lock);
	pthread_rwlock_destroy(&vm->map_lock);
	free(vm);
	__atomic_fetch_sub(&closing_count, 1, __ATOMIC_SEQ_CST);
}

/* Until there is something to do, or it is time to sleep. */
static void spin(const struct worker *w)
{
	const struct wvm_engine_vm *vm = w->vm;
	uint64_t until = vm->env.poll_ns ? wvm_now_ns() + vm->env.poll_ns : 0;

	while (until && !__atomic_load_n(&w->job, __ATOMIC_RELAXED) &&
	       !__atomic_load_n(&vm->closing, __ATOMIC_RELAXED) && wvm_now_ns() < until)
		sched_yield(); /* to the shard, which brings it, or to another processor */
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct wvm_engine_vm *vm = w->vm;
	sigset_t kick;
	bool closing;

	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	for (;;) {
		struct wvm_job *job;

		spin(w);
		while (sem_wait(&w->told))
			; /* a kick that came too late */
		/* What was handed over before the end is executed: it is owed an answer. */
		closing = __atomic_load_n(&vm->closing, __ATOMIC_ACQUIRE);
		job = __atomic_exchange_n(&w->job, NULL, __ATOMIC_ACQUIRE);
		if (job)
			execute(w, job);
		else if (closing)
			break;
	}
	current = NULL;
	if (w->open)
		wvm_kvm_cpu_close(&w->cpu);
	unref(vm);
	return NULL;
}

/* ---- the shard's ----------------------------------------------------------------------- */

static struct wvm_engine_vm *vm_open(const struct wvm_engine_env *env, uint16_t vm_id, char *err,
				     size_t err_len)
{
	static bool caught;
	struct wvm_engine_vm *vm = calloc(1, sizeof(*vm));
	pthread_rwlockattr_t attr;

	if (!vm) {
		snprintf(err, err_len, "no memory for VM %u", vm_id);
		return NULL;
	}
	if (!caught)
		catch_signals();
	caught = true;
	vm->env = *env;
	vm->vm_id = vm_id;
	vm->refs = 1;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->setup_lock, NULL);
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&vm->map_lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	return vm;
}

static void *work_in_place(void *arg)
{
	struct worker *w = arg;
	const struct wvm_place *place = w->vm->env.places + w->vcpu % w->vm->env.cores;
	char name[16];

	snprintf(name, sizeof(name), "wvm-vcpu-%u", w->vcpu % 1000);
	(void)pthread_setname_np(pthread_self(), name);
	(void)wvm_place_apply(place);
	return work(arg);
}

static struct worker *make_worker(struct wvm_engine_vm *vm, unsigned vcpu)
{
	struct worker *w = calloc(1, sizeof(*w));
	pthread_attr_t attr;
	int r;

	if (!w)
		return NULL;
	w->vm = vm;
	w->vcpu = vcpu;
	sem_init(&w->told, 0, 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WORKER_STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_mutex_lock(&vm->lock);
	vm->refs++;
	r = pthread_create(&w->thread, &attr, work_in_place, w);
	if (r)
		vm->refs--;
	else
		vm->workers[vcpu] = w;
	pthread_mutex_unlock(&vm->lock);
	pthread_attr_destroy(&attr);
	if (!r)
		return w;
	wvm_log("VM %u: no thread for processor %u: %s", vm->vm_id, vcpu, strerror(r));
	sem_destroy(&w->told);
	free(w);
	return NULL;
}

static void vm_start(struct wvm_engine_vm *vm, struct wvm_job *job)
{
	struct worker *w = vm->workers[job->vcpu];

	if (!w)
		w = make_worker(vm, job->vcpu);
	if (!w) {
		wvm_job_refuse(job, WVM_RUN_ENGINE);
		return;
	}
	__atomic_store_n(&w->job, job, __ATOMIC_RELEASE);
	sem_post(&w->told);
}

static void vm_kick(struct wvm_engine_vm *vm, struct wvm_job *job)
{
	struct worker *w = vm->workers[job->vcpu];

	pthread_mutex_lock(&vm->lock);
	if (w && w->open) {
		wvm_kvm_kick(w->cpu.v);
		pthread_kill(w->thread, KICK_SIGNAL);
	}
	pthread_mutex_unlock(&vm->lock);
}

static void vm_close(struct wvm_engine_vm *vm)
{
	__atomic_fetch_add(&closing_count, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&vm->lock);
	__atomic_store_n(&vm->closing, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < WVM_VCPU_MAX; i++)
		if (vm->workers[i])
			sem_post(&vm->workers[i]->told);
	pthread_mutex_unlock(&vm->lock);
	unref(vm);
}

static unsigned vm_closing(void)
{
	return __atomic_load_n(&closing_count, __ATOMIC_SEQ_CST);
}

const struct wvm_engine wvm_engine_kvm = {.name = "KVM",
					  .open = vm_open,
					  .start = vm_start,
					  .kick = vm_kick,
					  .close = vm_close,
					  .closing = vm_closing};

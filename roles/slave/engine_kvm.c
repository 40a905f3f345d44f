/*
 * Runs executed by KVM: one thread for each processor, beside the shard. The VM's memory is that of
 * the cluster, mapped as any program does. What takes time (meeting the master, making the VM)
 * is done by the thread of the processor that comes first, and undone by a thread of its own.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ring/daemon.h"
#include "ring/post.h"
#include "roles/slave/engine.h"
#include "roles/slave/vcpu_kvm.h"
#include "shared/wavevm.h"

#define KICK_SIGNAL  SIGUSR1
#define FULL_WAIT_US 100
#define END_S        5

struct worker {
	struct wvm_engine_vm *vm;
	bool started;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct wvm_job *next; /* lock */
	struct wvm_vcpu_kvm vcpu;
	struct wvm_kvm_vcpu *running; /* atomic; whom a kick is for */
};

struct wvm_engine_vm {
	struct wvm_engine_vm *next;
	struct wvm_shard *shard;
	const struct wvm_place *places;
	unsigned cores;
	uint16_t vm_id;
	uint32_t vcpus;
	const char *ring_path;
	pthread_t ender;
	bool end; /* atomic */
	/* lock: from here */
	pthread_mutex_t lock;
	struct wvm *wvm;
	uint8_t *ram;
	uint64_t ram_bytes;
	struct wvm_kvm *kvm;
	struct wvm_vcpu_setup setup; /* its maps are KVM's slots */
	uint32_t slot[WVM_VCPU_MAPS_MAX];
	uint32_t setup_version; /* 0: none yet */
	/* to here */
	struct worker worker[];
};

static struct wvm_engine_vm *ending; /* the shard's thread; after its end the main thread's */
static __thread struct worker *self;

bool wvm_engine_kvm_usable(void)
{
	struct wvm_kvm *kvm = wvm_kvm_open();

	if (!kvm)
		wvm_log("no KVM: %s", wvm_kvm_error());
	wvm_kvm_close(kvm);
	return kvm;
}

/* ---- the machine ----------------------------------------------------------------------- */

static void close_machine(struct wvm_engine_vm *vm)
{
	wvm_kvm_close(vm->kvm);
	wvm_detach(vm->wvm);
	vm->kvm = NULL;
	vm->wvm = NULL;
	vm->ram = NULL;
}

/* A later run tries again what fails here. */
static bool open_machine(struct wvm_engine_vm *vm)
{
	int64_t bytes;

	if (vm->kvm)
		return true;
	if (wvm_attach(&vm->wvm, vm->ring_path)) {
		wvm_log("VM %u: %s", vm->vm_id, wvm_attach_error());
		vm->wvm = NULL;
		return false;
	}
	bytes = wvm_vm_size(vm->wvm, vm->vm_id);
	if (bytes > 0) {
		vm->ram_bytes = (uint64_t)bytes;
		vm->ram = wvm_map(vm->wvm, vm->vm_id, 0, vm->ram_bytes,
				  WVM_STRICT | WVM_ERROR_SIGBUS);
	}
	if (!vm->ram)
		wvm_log("VM %u: its memory cannot be mapped: %s", vm->vm_id, wvm_attach_error());
	else if (!(vm->kvm = wvm_kvm_open()))
		wvm_log("VM %u: %s", vm->vm_id, wvm_kvm_error());
	if (!vm->kvm)
		close_machine(vm);
	return vm->kvm;
}

static bool same_map(const struct wvm_vcpu_map *a, const struct wvm_vcpu_map *b)
{
	return a->gpa == b->gpa && a->len == b->len && a->offset == b->offset &&
	       a->read_only == b->read_only;
}

static const struct wvm_vcpu_map *find_map(const struct wvm_vcpu_setup *s,
					   const struct wvm_vcpu_map *map)
{
	for (uint32_t i = 0; i < s->maps; i++)
		if (same_map(&s->map[i], map))
			return &s->map[i];
	return NULL;
}

/*
 * Puts KVM's slots right. Other processors may run: those ranges that stay are
 * not touched, and what has gone is an access for the owner from now on.
 */
static bool map_memory(struct wvm_engine_vm *vm, const struct wvm_vcpu_setup *to)
{
	uint32_t slot[WVM_VCPU_MAPS_MAX];
	bool used[WVM_KVM_SLOTS] = {false};

	for (uint32_t i = 0; i < to->maps; i++)
		if (to->map[i].offset > vm->ram_bytes ||
		    to->map[i].len > vm->ram_bytes - to->map[i].offset)
			return false;
	for (uint32_t i = 0; i < vm->setup.maps; i++) {
		used[vm->slot[i]] = find_map(to, &vm->setup.map[i]);
		if (!used[vm->slot[i]])
			(void)wvm_kvm_map_slot(vm->kvm, vm->slot[i], vm->setup.map[i].gpa, NULL, 0,
					       false);
	}
	for (uint32_t i = 0; i < to->maps; i++) {
		const struct wvm_vcpu_map *m = &to->map[i], *old = find_map(&vm->setup, m);

		if (old) {
			slot[i] = vm->slot[old - vm->setup.map];
			continue;
		}
		for (slot[i] = 0; used[slot[i]]; slot[i]++)
			;
		used[slot[i]] = true;
		if (wvm_kvm_map_slot(vm->kvm, slot[i], m->gpa, vm->ram + m->offset, m->len,
				     m->read_only)) {
			wvm_log("VM %u: %s", vm->vm_id, wvm_kvm_error());
			/* Half of it is there: the next setup begins from nothing. */
			close_machine(vm);
			vm->setup.maps = 0;
			vm->setup_version = 0;
			return false;
		}
	}
	memcpy(vm->slot, slot, sizeof(slot));
	vm->setup = *to;
	return true;
}

static enum wvm_run_reason new_setup(struct wvm_engine_vm *vm, const struct wvm_vcpu_run *r)
{
	static _Thread_local struct wvm_vcpu_setup setup;
	char err[160];

	if (wvm_vcpu_setup_parse(r->setup, r->setup_len, &setup, err, sizeof(err))) {
		wvm_log("VM %u: %s", vm->vm_id, err);
		return WVM_RUN_MALFORMED;
	}
	if (setup.vcpus != vm->vcpus || !map_memory(vm, &setup))
		return WVM_RUN_MALFORMED;
	vm->setup_version = r->setup_version;
	return WVM_RUN_NO_REASON;
}

/* An earlier version than ours comes with a run that was long on its way. */
static enum wvm_run_reason take_setup(struct wvm_engine_vm *vm, const struct wvm_vcpu_run *r)
{
	enum wvm_run_reason reason = WVM_RUN_NO_REASON;

	pthread_mutex_lock(&vm->lock);
	if (!open_machine(vm))
		reason = WVM_RUN_ENGINE;
	else if (r->setup_version > vm->setup_version || !vm->setup_version)
		reason = r->setup_len ? new_setup(vm, r) : WVM_RUN_SETUP;
	pthread_mutex_unlock(&vm->lock);
	return reason;
}

/* ---- a processor's thread -------------------------------------------------------------- */

static void on_kick(int number)
{
	struct wvm_kvm_vcpu *v = self ? __atomic_load_n(&self->running, __ATOMIC_SEQ_CST) : NULL;

	(void)number;
	if (v)
		wvm_kvm_kick(v);
}

static bool open_vcpu(struct worker *w, unsigned index)
{
	struct wvm_kvm_vcpu *v;

	if (w->vcpu.v)
		return true;
	v = wvm_kvm_vcpu_open(w->vm->kvm, index, NULL);
	if (!v || !wvm_vcpu_kvm_init(&w->vcpu, v)) {
		wvm_log("VM %u: processor %u: %s", w->vm->vm_id, index, wvm_kvm_error());
		wvm_kvm_vcpu_close(v);
		w->vcpu.v = NULL;
		return false;
	}
	if (!w->vcpu.own_ticks && !index)
		wvm_log("VM %u: this KVM gives guests the host's time stamp counter: it may go back "
			"when a processor moves to another host",
			w->vm->vm_id);
	return true;
}

static void execute(struct worker *w, struct wvm_job *job)
{
	job->reason = take_setup(w->vm, &job->head);
	if (!job->reason && !open_vcpu(w, job->vcpu))
		job->reason = WVM_RUN_ENGINE;
	if (job->reason)
		return;
	/* Who kicks sets kicked first and looks then whom to kick: one of us sees the other. */
	__atomic_store_n(&w->running, w->vcpu.v, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&w->vm->end, __ATOMIC_SEQ_CST))
		wvm_kvm_kick(w->vcpu.v);
	wvm_vcpu_kvm_run(&w->vcpu, job);
	__atomic_store_n(&w->running, NULL, __ATOMIC_SEQ_CST);
}

static void on_done(struct wvm_shard *shard, void *ctx, const void *data, size_t len)
{
	struct wvm_job *job = ctx;

	(void)shard;
	(void)data;
	(void)len;
	job->done(job);
}

static struct wvm_job *next_job(struct worker *w)
{
	struct wvm_job *job;

	pthread_mutex_lock(&w->lock);
	while (!w->next && !__atomic_load_n(&w->vm->end, __ATOMIC_ACQUIRE))
		pthread_cond_wait(&w->wake, &w->lock);
	job = w->next;
	w->next = NULL;
	pthread_mutex_unlock(&w->lock);
	return __atomic_load_n(&w->vm->end, __ATOMIC_ACQUIRE) ? NULL : job;
}

static void *work(void *arg)
{
	struct worker *w = self = arg;
	struct wvm_engine_vm *vm = w->vm;
	struct wvm_job *job;

	(void)wvm_place_apply(&vm->places[(unsigned)(w - vm->worker) % vm->cores]);
	while ((job = next_job(w))) {
		execute(w, job);
		/* The shard may be gone when the slave stops, and nobody waits for it then. */
		while (!__atomic_load_n(&vm->end, __ATOMIC_ACQUIRE) &&
		       wvm_post_outside(vm->shard, on_done, job, NULL, 0) == -EAGAIN)
			usleep(FULL_WAIT_US);
	}
	return NULL;
}

/* ---- what the slave calls -------------------------------------------------------------- */

static int kvm_open(struct wvm_engine_vm **out, const struct wvm_engine_env *env, uint16_t vm_id,
		    const struct wvm_vcpu_setup *setup, char *err, size_t err_len)
{
	struct wvm_engine_vm *vm = calloc(1, sizeof(*vm) + setup->vcpus * sizeof(vm->worker[0]));
	struct sigaction action = {.sa_handler = on_kick};

	if (!vm || sigaction(KICK_SIGNAL, &action, NULL)) {
		snprintf(err, err_len, "no memory for %u processors", setup->vcpus);
		free(vm);
		return -ENOMEM;
	}
	vm->shard = env->shard;
	vm->places = env->places;
	vm->cores = env->options->cores;
	vm->ring_path = env->options->ring_path;
	vm->vm_id = vm_id;
	vm->vcpus = setup->vcpus;
	pthread_mutex_init(&vm->lock, NULL);
	for (uint32_t i = 0; i < vm->vcpus; i++) {
		vm->worker[i].vm = vm;
		pthread_mutex_init(&vm->worker[i].lock, NULL);
		pthread_cond_init(&vm->worker[i].wake, NULL);
	}
	*out = vm;
	return 0;
}

static void kvm_start(struct wvm_engine_vm *vm, struct wvm_job *job)
{
	struct worker *w = &vm->worker[job->vcpu];
	int r = w->started ? 0 : pthread_create(&w->thread, NULL, work, w);

	if (r) {
		wvm_log("VM %u: no thread for processor %u: %s", vm->vm_id, job->vcpu, strerror(r));
		wvm_job_refuse(job, WVM_RUN_ENGINE);
		return;
	}
	w->started = true;
	pthread_mutex_lock(&w->lock);
	w->next = job;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

static void kick_worker(struct worker *w)
{
	struct wvm_kvm_vcpu *v = __atomic_load_n(&w->running, __ATOMIC_SEQ_CST);

	/* The signal's handler says it again to the processor that runs by then. */
	if (v)
		pthread_kill(w->thread, KICK_SIGNAL);
}

static void kvm_kick(struct wvm_engine_vm *vm, struct wvm_job *job)
{
	kick_worker(&vm->worker[job->vcpu]);
}

/* ---- the end --------------------------------------------------------------------------- */

static void *end_vm(void *arg)
{
	struct wvm_engine_vm *vm = arg;

	for (uint32_t i = 0; i < vm->vcpus; i++) {
		struct worker *w = &vm->worker[i];

		if (!w->started)
			continue;
		pthread_join(w->thread, NULL);
		wvm_vcpu_kvm_free(&w->vcpu);
		wvm_kvm_vcpu_close(w->vcpu.v);
	}
	close_machine(vm);
	return NULL;
}

static void reap(struct wvm_engine_vm **at, struct wvm_engine_vm *vm)
{
	*at = vm->next;
	free(vm);
}

static void kvm_close(struct wvm_engine_vm *vm)
{
	for (struct wvm_engine_vm **at = &ending; *at;) {
		if (!pthread_tryjoin_np((*at)->ender, NULL))
			reap(at, *at);
		else
			at = &(*at)->next;
	}
	__atomic_store_n(&vm->end, true, __ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < vm->vcpus; i++) {
		struct worker *w = &vm->worker[i];

		pthread_mutex_lock(&w->lock);
		pthread_cond_signal(&w->wake);
		pthread_mutex_unlock(&w->lock);
		kick_worker(w);
	}
	if (pthread_create(&vm->ender, NULL, end_vm, vm)) {
		wvm_log("VM %u: no thread to end it: its memory stays mapped", vm->vm_id);
		return;
	}
	vm->next = ending;
	ending = vm;
}

static void kvm_stop(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += END_S;
	while (ending) {
		struct wvm_engine_vm *vm = ending;

		if (pthread_timedjoin_np(vm->ender, NULL, &until)) {
			wvm_log("VM %u: its processors wait for memory that does not come: not "
				"waited for",
				vm->vm_id);
			_exit(EXIT_FAILURE);
		}
		reap(&ending, vm);
	}
}

const struct wvm_engine_ops wvm_engine_kvm = {
	.open = kvm_open,
	.start = kvm_start,
	.kick = kvm_kick,
	.close = kvm_close,
	.stop = kvm_stop,
};

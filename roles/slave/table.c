#include <string.h>

#include "roles/slave/slave.h"

struct wvm_slave_vm *wvm_slave_vm_find(struct wvm_slave *s, uint16_t id)
{
	for (unsigned i = 0; i < WVM_SLAVE_VMS; i++)
		if (s->vms[i].used && s->vms[i].id == id)
			return &s->vms[i];
	return NULL;
}

/* Nothing would be lost with it but what its owner sends again, or has given up long ago. */
static bool forgettable(const struct wvm_slave *s, const struct wvm_slave_vm *vm, uint64_t now_ns)
{
	uint64_t silent_ns = now_ns - vm->heard_ns;

	if (silent_ns < WVM_SLAVE_FORGET_NS)
		return false;
	for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++) {
		const struct wvm_slave_cpu *c = &s->cpus[i];

		if (c->vm != vm)
			continue;
		if (c->executing || (c->job.keeps && silent_ns < WVM_SLAVE_KEPT_NS))
			return false;
	}
	return true;
}

static struct wvm_slave_vm *oldest_forgettable(struct wvm_slave *s, uint64_t now_ns)
{
	struct wvm_slave_vm *oldest = NULL;

	for (unsigned i = 0; i < WVM_SLAVE_VMS; i++) {
		struct wvm_slave_vm *vm = &s->vms[i];

		if (vm->used && forgettable(s, vm, now_ns) &&
		    (!oldest || vm->heard_ns < oldest->heard_ns))
			oldest = vm;
	}
	return oldest;
}

static void forget(struct wvm_slave *s, struct wvm_slave_vm *vm)
{
	wvm_log("VM %u: forgotten, nothing was heard of it", vm->id);
	wvm_slave_vm_clear(s, vm);
	vm->used = false;
}

struct wvm_slave_vm *wvm_slave_vm_add(struct wvm_slave *s, uint16_t id, uint64_t life,
				      uint64_t now_ns)
{
	struct wvm_slave_vm *vm = NULL;

	/* A copy of what was refused must not be taken now. */
	for (unsigned i = 0; now_ns >= s->full_until_ns && i < WVM_SLAVE_VMS && !vm; i++)
		if (!s->vms[i].used)
			vm = &s->vms[i];
	if (!vm && now_ns >= s->full_until_ns) {
		vm = oldest_forgettable(s, now_ns);
		if (vm)
			forget(s, vm);
	}
	if (!vm) {
		s->full_until_ns = now_ns + WVM_SLAVE_FORGET_NS;
		return NULL;
	}
	*vm = (struct wvm_slave_vm){.used = true, .id = id, .life = life, .heard_ns = now_ns};
	return vm;
}

void wvm_slave_vm_clear(struct wvm_slave *s, struct wvm_slave_vm *vm)
{
	for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++) {
		if (s->cpus[i].vm != vm)
			continue;
		wvm_shard_disarm(s->shard, &s->cpus[i].timer);
		s->cpus[i].vm = NULL;
	}
	if (vm->machine)
		vm->engine->close(vm->machine);
	vm->machine = NULL;
	vm->engine = NULL;
}

bool wvm_slave_vm_executing(const struct wvm_slave *s, const struct wvm_slave_vm *vm)
{
	for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++)
		if (s->cpus[i].vm == vm && s->cpus[i].executing)
			return true;
	return false;
}

struct wvm_slave_cpu *wvm_slave_cpu_find(struct wvm_slave *s, const struct wvm_slave_vm *vm,
					 unsigned vcpu)
{
	for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++)
		if (s->cpus[i].vm == vm && s->cpus[i].run.vcpu == vcpu)
			return &s->cpus[i];
	return NULL;
}

static struct wvm_slave_cpu *free_cpu(struct wvm_slave *s)
{
	for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++)
		if (!s->cpus[i].vm)
			return &s->cpus[i];
	return NULL;
}

struct wvm_slave_cpu *wvm_slave_cpu_add(struct wvm_slave *s, struct wvm_slave_vm *vm, unsigned vcpu,
					uint64_t now_ns)
{
	struct wvm_slave_cpu *c = free_cpu(s);
	struct wvm_slave_vm *old = c ? NULL : oldest_forgettable(s, now_ns);

	if (old && old != vm) {
		forget(s, old);
		c = free_cpu(s);
	}
	if (!c)
		return NULL;
	c->vm = vm;
	memset(&c->job, 0, sizeof(c->job));
	wvm_run_slave_init(&c->run, vm->id, (uint16_t)vcpu, s->self, s->life, s->segment, c->in);
	return c;
}

unsigned wvm_slave_executing(const struct wvm_slave *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++)
		n += s->cpus[i].vm && s->cpus[i].executing;
	return n;
}

bool wvm_slave_barred(const struct wvm_slave_vm *vm, uint64_t life, unsigned vcpu, uint64_t seq)
{
	return life == vm->barred_life && seq <= vm->barred_seq[vcpu];
}

void wvm_slave_bar(struct wvm_slave_vm *vm, uint64_t life, unsigned vcpu, uint64_t seq)
{
	if (life != vm->barred_life) {
		memset(vm->barred_seq, 0, sizeof(vm->barred_seq));
		vm->barred_life = life;
	}
	if (seq > vm->barred_seq[vcpu])
		vm->barred_seq[vcpu] = seq;
}

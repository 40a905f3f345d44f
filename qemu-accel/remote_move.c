/*
 * Remote vCPUs that go to another node: since an operator wants it (wvm_ctl vcpu move), or since
 * the slave where they are does not take them. It happens between two runs, when the shadow has
 * the whole state, and costs one run that executes nothing: the other slave gets the machine
 * and the state, and gives the state back. Only then is the vCPU there; whatever becomes of that
 * run before, it goes on where it was. Of the slave that it leaves nothing is to be taken back:
 * what it had of the vCPU differs from what the next run there brings, which is the whole.
 */
#include "qemu/osdep.h"

#include <sys/eventfd.h>

#include "cpu.h"
#include "hw/boards.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"

#include "accel.h"
#include "remote.h"

/* Trips with a setup, or by a clock that was set, do not count: it goes on without them. */
#define GETS_MOST (2 * WVM_QEMU_TRIPS)

void wvm_qemu_remote_say(struct wvm_qemu_remote *r)
{
	struct wvm_vcpu_where *w = &r->where;

	w->is = r->lost         ? WVM_VCPU_IS_LOST
		: r->cs->halted ? WVM_VCPU_IS_HALTED
				: WVM_VCPU_IS_RUNNING;
	w->node = r->node;
	w->first = wvm_qemu_placement.split;
	w->vcpus = current_machine->smp.cpus;
	wvm_vcpu_report(r->link, w);
}

/* Whether there is a slave that could run it. BQL held or not. */
static enum wvm_vcpu_moved greet(struct wvm_qemu_remote *r, unsigned node, uint64_t *life)
{
	struct wvm_vcpu_hello hello;

	if (wvm_vcpu_hello(r->link, node, life, &hello))
		return WVM_VCPU_MOVED_SILENT;
	return hello.engines & 1u << WVM_VCPU_ENGINE_TCG ? WVM_VCPU_MOVED : WVM_VCPU_MOVED_ENGINE;
}

/* The slave there has nothing of the vCPU: all that it needs goes with the next run. */
static void be_at(struct wvm_qemu_remote *r, unsigned node, uint64_t life)
{
	r->node = node;
	r->life = life;
	r->base = r->setup = 0;
}

static enum wvm_vcpu_moved go_to(struct wvm_qemu_remote *r, unsigned node, unsigned *reason)
{
	unsigned old_node = r->node;
	uint64_t old_life = r->life, life;
	enum wvm_vcpu_moved outcome;
	enum wvm_vcpu_outcome got;
	unsigned gets = 0;

	*reason = WVM_RUN_NO_REASON;
	qemu_mutex_unlock_iothread();
	outcome = greet(r, node, &life);
	qemu_mutex_lock_iothread();
	if (outcome != WVM_VCPU_MOVED)
		return outcome;
	be_at(r, node, life);
	/* Whoever has stopped the VM may change the shadow meanwhile: a reset does. */
	if (r->cs->stopped) {
		r->where.moves++;
		return WVM_VCPU_MOVED;
	}
	/* More than once, until the ways are known well enough for the time stamp counter there. */
	do
		got = wvm_qemu_remote_get(r, reason);
	while (got == WVM_VCPU_ANSWERED && wvm_qemu_ticks_trips(node) < WVM_QEMU_TRIPS &&
	       ++gets < GETS_MOST);
	if (got == WVM_VCPU_ANSWERED) {
		r->where.moves++;
		return WVM_VCPU_MOVED;
	}
	if (r->lost)
		return WVM_VCPU_MOVED_LOST;
	be_at(r, old_node, old_life);
	return got == WVM_VCPU_REFUSED ? WVM_VCPU_MOVED_REFUSED : WVM_VCPU_MOVED_SILENT;
}

/* ---- by order ------------------------------------------------------------------------------- */

/* By the vCPU's thread, as all that is done to a vCPU between two runs. */
static void take_order(CPUState *cs, run_on_cpu_data data)
{
	struct wvm_qemu_remote *r = data.host_ptr;
	int64_t from = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
	enum wvm_vcpu_moved outcome;
	unsigned node, reason = WVM_RUN_NO_REASON;

	if (!wvm_vcpu_wanted(r->link, &node))
		return;
	if (r->lost || r->midway)
		outcome = WVM_VCPU_MOVED_LOST;
	else if (node == r->node)
		outcome = WVM_VCPU_MOVED_NOWHERE;
	else
		outcome = go_to(r, node, &reason);
	wvm_qemu_remote_say(r);
	wvm_vcpu_obeyed(r->link, outcome, reason, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - from);
}

/* In the main loop: a vCPU that has halted is awaited by nothing else. */
static void on_order(void *opaque)
{
	struct wvm_qemu_remote *r = opaque;
	eventfd_t rings;

	(void)eventfd_read(wvm_vcpu_order_fd(r->link), &rings);
	if (r->cs->created)
		async_run_on_cpu(r->cs, take_order, RUN_ON_CPU_HOST_PTR(r));
}

void wvm_qemu_remote_watch(struct wvm_qemu_remote *r)
{
	wvm_qemu_remote_say(r);
	qemu_set_fd_handler(wvm_vcpu_order_fd(r->link), on_order, NULL, r);
}

void wvm_qemu_remote_unwatch(struct wvm_qemu_remote *r)
{
	qemu_set_fd_handler(wvm_vcpu_order_fd(r->link), NULL, NULL, NULL);
}

/* ---- for want of a slave -------------------------------------------------------------------- */

/* The nth node of the vCPUs, which is a node of several as a rule: its first time. */
static bool is_new(unsigned nth)
{
	const uint32_t *nodes = wvm_qemu_placement.nodes;

	for (unsigned i = 0; i < nth; i++)
		if (nodes[i] == nodes[nth])
			return false;
	return true;
}

bool wvm_qemu_remote_elsewhere(struct wvm_qemu_remote *r, unsigned *next)
{
	unsigned left = r->node, reason;

	while (*next < wvm_qemu_placement.count) {
		unsigned nth = (*next)++, node = wvm_qemu_placement.nodes[nth];

		if (node == left || !is_new(nth) || go_to(r, node, &reason) != WVM_VCPU_MOVED)
			continue;
		warn_report("wavevm: vCPU %d was refused by the slave of node %u, and goes on on "
			    "node %u",
			    r->cs->cpu_index, left, node);
		wvm_qemu_remote_say(r);
		return true;
	}
	return false;
}

bool wvm_qemu_remote_meet(struct wvm_qemu_remote *r)
{
	enum wvm_vcpu_moved outcome = greet(r, r->node, &r->life);
	g_autofree char *why = g_strdup(outcome == WVM_VCPU_MOVED_SILENT
						? wvm_vcpu_error()
						: "the slave there has no TCG; start it with QEMU");

	for (unsigned i = 0; outcome != WVM_VCPU_MOVED && i < wvm_qemu_placement.count; i++) {
		unsigned node = wvm_qemu_placement.nodes[i];

		if (node == r->node || !is_new(i))
			continue;
		outcome = greet(r, node, &r->life);
		if (outcome != WVM_VCPU_MOVED)
			continue;
		warn_report("wavevm: vCPU %d on node %u: %s; it goes to node %u", r->cs->cpu_index,
			    r->node, why, node);
		r->node = node;
	}
	if (outcome != WVM_VCPU_MOVED)
		error_report("wavevm: vCPU %d on node %u: %s", r->cs->cpu_index, r->node, why);
	return outcome == WVM_VCPU_MOVED;
}

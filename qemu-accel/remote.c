/*
 * The owner's side of a vCPU that runs on another node (shared/PROTOCOL.md, Processors). In this
 * QEMU it has a shadow, a vCPU like others to devices, interrupt controllers and monitors; only
 * its thread does not execute the guest but sends runs and carries out what their answers ask for.
 *
 * Between two runs, but for those within an instruction, the shadow has the whole state, its local
 * APIC's as well, and so all
 * that QEMU does to a vCPU is done to it as ever: reset, INIT, SIPI, a debugger's look. What
 * that has changed goes with the next run. Who wants a vCPU at rest (stop, run_on_cpu(), an
 * interrupt) kicks the thread, which ends the run. An access to a device is carried out by the
 * thread with the BQL, as by a local vCPU.
 */
#include "qemu/osdep.h"

#include "cpu.h"
#include "exec/exec-all.h"
#include "hw/boards.h"
#include "hw/i386/apic.h"
#include "hw/intc/i8259.h"
#include "qemu/error-report.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "sysemu/cpu-timers.h"
#include "sysemu/cpus.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#include "tcg/tcg.h"

#include "accel.h"
#include "remote.h"

#define NMI_VECTOR 2
/* A slave that still ends what it ran for an owner before us. */
#define BUSY_TRIES 100
#define BUSY_US    50000

/*
 * A run does not take longer: counters of hosts drift apart by some 0.01 %, so in this time by a
 * fraction of what a page takes from one node to another.
 */
#define RUN_NS (50 * (int64_t)SCALE_MS)

static struct wvm_qemu_remote *remotes[WVM_VCPU_MAX]; /* NULL: runs here */
static QEMUTimer *beat;                               /* ends runs that take too long */
static AccelOpsClass plain_ops;                       /* the parent's ops */

static struct wvm_qemu_remote *of(CPUState *cs)
{
	return cs->cpu_index < WVM_VCPU_MAX ? remotes[cs->cpu_index] : NULL;
}

/* ---- what happens to the shadow between two runs ----------------------------------------------
 */

static bool pending(struct wvm_qemu_remote *r, uint32_t which)
{
	return r->cs->interrupt_request & which;
}

/* As cpu_exec() does for local ones, but for what is injected. */
static void take_events(struct wvm_qemu_remote *r)
{
	X86CPU *cpu = X86_CPU(r->cs);

	if (pending(r, CPU_INTERRUPT_POLL)) {
		cpu_reset_interrupt(r->cs, CPU_INTERRUPT_POLL);
		apic_poll_irq(cpu->apic_state);
	}
	if (pending(r, CPU_INTERRUPT_HALT)) {
		cpu_reset_interrupt(r->cs, CPU_INTERRUPT_HALT);
		r->cs->halted = 1;
	}
	if (pending(r, CPU_INTERRUPT_INIT))
		do_cpu_init(cpu); /* which also forgets the request */
	if (pending(r, CPU_INTERRUPT_SIPI)) {
		cpu_reset_interrupt(r->cs, CPU_INTERRUPT_SIPI);
		do_cpu_sipi(cpu);
	}
	if (pending(r, CPU_INTERRUPT_SMI | CPU_INTERRUPT_MCE)) {
		cpu_reset_interrupt(r->cs, CPU_INTERRUPT_SMI | CPU_INTERRUPT_MCE);
		warn_report_once("wavevm: SMI and machine checks do not reach remote vCPUs");
	}
	if (r->cs->halted && cpu_has_work(r->cs))
		r->cs->halted = 0;
}

/* The old controller's interrupt is the vCPU's to take; what is raised in its APIC goes there. */
static bool pic_waits(struct wvm_qemu_remote *r)
{
	return apic_accept_pic_intr(X86_CPU(r->cs)->apic_state) > 0 && pic_get_output(isa_pic);
}

/* An interrupt that the vCPU takes now, or a wish to hear when it can. */
static void offer_interrupt(struct wvm_qemu_remote *r, struct wvm_vcpu_run *run)
{
	if (pending(r, CPU_INTERRUPT_NMI) && x86_cpu_pending_interrupt(r->cs, CPU_INTERRUPT_NMI)) {
		cpu_reset_interrupt(r->cs, CPU_INTERRUPT_NMI);
		run->flags |= WVM_VCPU_RUN_INJECT;
		run->vector = NMI_VECTOR;
	} else if (pic_waits(r) && x86_cpu_pending_interrupt(r->cs, CPU_INTERRUPT_HARD)) {
		run->flags |= WVM_VCPU_RUN_INJECT;
		run->vector = pic_read_irq(isa_pic);
	}
}

/* ---- runs
 * ------------------------------------------------------------------------------------------ */

/* Something here waits for the thread to be out of the guest. */
static bool wanted_back(struct wvm_qemu_remote *r)
{
	return r->cs->stop || !cpu_work_list_empty(r->cs) ||
	       pending(r, CPU_INTERRUPT_POLL | CPU_INTERRUPT_HALT | CPU_INTERRUPT_INIT |
				  CPU_INTERRUPT_SIPI) ||
	       (r->given && wvm_qemu_apic_raised(r->cs)) ||
	       (pending(r, CPU_INTERRUPT_NMI) &&
		x86_cpu_pending_interrupt(r->cs, CPU_INTERRUPT_NMI));
}

static void plan_run(struct wvm_qemu_remote *r, struct wvm_vcpu_run *run)
{
	*run = (struct wvm_vcpu_run){.engine = WVM_VCPU_ENGINE_TCG, .layout = r->kind};
	if (r->midway) {
		run->flags = WVM_VCPU_RUN_RESUME;
		run->base = r->base;
		run->data = r->access_len ? r->access : NULL;
		run->data_len = r->access_len;
		if (wanted_back(r))
			run->flags |= WVM_VCPU_RUN_GET;
	} else {
		offer_interrupt(r, run);
	}
	if (pending(r, CPU_INTERRUPT_NMI) || pic_waits(r))
		run->flags |= WVM_VCPU_RUN_WINDOW;
}

/* The APIC is here again: as it came with an answer, or as it was sent with what was refused. */
static void have_apic(struct wvm_qemu_remote *r)
{
	if (!r->given)
		return;
	r->given = false;
	wvm_qemu_apic_take(r->cs, wvm_qemu_state_apic(r->state));
	/* QEMU's APIC only ever takes this back. */
	if (pic_waits(r))
		cpu_interrupt(r->cs, CPU_INTERRUPT_HARD);
}

static void put_state(struct wvm_qemu_remote *r, struct wvm_vcpu_run *run)
{
	const struct wvm_vcpu_layout *layout = wvm_qemu_layout();
	uint8_t *at = r->out + wvm_vcpu_run_state_at(run->setup_len);
	size_t room = sizeof(r->out) - wvm_vcpu_run_state_at(run->setup_len) - 64, len;
	uint64_t *before = r->state;

	have_apic(r);
	wvm_qemu_state_save(r->cs, r->spare);
	wvm_qemu_apic_give(r->cs, wvm_qemu_state_apic(r->spare));
	r->given = true;
	len = wvm_vcpu_delta(layout, r->base ? before : NULL, r->spare, WVM_QEMU_STATE_ALL, at,
			     room);
	g_assert(len <= room);
	r->state = r->spare;
	r->spare = before;
	run->base = r->base;
	run->state_len = len;
	if (!r->base)
		run->flags |= WVM_VCPU_RUN_WHOLE;
}

/* What was planned, in r->out, with what the slave must have for it. Its length. */
static size_t put_run(struct wvm_qemu_remote *r, struct wvm_vcpu_run *run)
{
	size_t len;

	run->setup = (const uint8_t *)wvm_qemu_setup(&run->setup_len, &run->setup_version);
	if (r->setup == run->setup_version) {
		run->setup = NULL;
		run->setup_len = 0;
	}
	if (!r->midway)
		put_state(r, run);
	qatomic_set(&r->sent_ns, get_clock());
	run->ticks = wvm_qemu_ticks() + wvm_qemu_ticks_way(r->node);
	len = wvm_vcpu_run_encode(r->out, sizeof(r->out), run);
	g_assert(len);
	return len;
}

static bool take_answer(struct wvm_qemu_remote *r, const struct wvm_vcpu_run *run,
			const struct wvm_vcpu_answer *a)
{
	struct wvm_vcpu_exit e;
	int64_t trip;

	if (!wvm_vcpu_exit_decode(a->data, a->len, &e)) {
		r->setup = run->setup_version;
		if (run->state_len)
			r->base = a->seq;
		trip = get_clock() - r->sent_ns - (int64_t)e.ran_ns;
		if (!run->setup_len) /* with one, an engine may have been started */
			wvm_qemu_ticks_trip(r->node, trip);
		wvm_qemu_ticks_reach(e.ticks + wvm_qemu_ticks_way(r->node));
		r->where.exits[e.kind]++;
		if (wvm_qemu_remote_exit(r, &e, a->seq)) {
			if (!r->midway)
				have_apic(r);
			return true;
		}
	}
	wvm_qemu_remote_lost(r, "its slave's answer makes no sense");
	return false;
}

/* What was refused was not executed: it may be sent once more, with more or later. */
static bool may_try_again(struct wvm_qemu_remote *r, unsigned reason, unsigned tries)
{
	bool knew = r->base, had_setup = r->setup;

	r->where.refused++;
	r->setup = 0;
	if (!r->midway)
		r->base = 0;
	switch (reason) {
	case WVM_RUN_SETUP: return had_setup;
	case WVM_RUN_BASE: return knew && !r->midway;
	case WVM_RUN_BUSY: return tries < BUSY_TRIES;
	default: return false;
	}
}

/* Sends it and waits. BQL held, but not meanwhile. */
static int send_run(struct wvm_qemu_remote *r, size_t len, struct wvm_vcpu_answer *a)
{
	int ret;

	qemu_mutex_unlock_iothread();
	ret = wvm_vcpu_run(r->link, r->node, r->life, r->out, len, a);
	if (!ret && a->outcome == WVM_VCPU_REFUSED && a->reason == WVM_RUN_BUSY)
		g_usleep(BUSY_US);
	qemu_mutex_lock_iothread();
	return ret;
}

/* Until there is an answer, or there will be none. */
static enum wvm_vcpu_outcome deliver(struct wvm_qemu_remote *r, struct wvm_vcpu_run *run,
				     struct wvm_vcpu_answer *a)
{
	unsigned tries = 0;

	do {
		run->flags &= ~WVM_VCPU_RUN_WHOLE;
		/* A kick that ended the try before, or came between two, is not made again. */
		if (r->midway ? wanted_back(r) : r->cs->stop || !cpu_work_list_empty(r->cs))
			run->flags |= WVM_VCPU_RUN_GET;
		if (send_run(r, put_run(r, run), a))
			a->outcome = WVM_VCPU_LOST;
	} while (a->outcome == WVM_VCPU_REFUSED && may_try_again(r, a->reason, tries++));
	/* Whether it was taken up or not, the state that was sent is as good as one comes. */
	if (a->outcome != WVM_VCPU_ANSWERED)
		have_apic(r);
	return a->outcome;
}

enum wvm_vcpu_outcome wvm_qemu_remote_get(struct wvm_qemu_remote *r, unsigned *reason)
{
	struct wvm_vcpu_run run = {
		.engine = WVM_VCPU_ENGINE_TCG, .flags = WVM_VCPU_RUN_GET, .layout = r->kind};
	struct wvm_vcpu_answer a;
	struct wvm_vcpu_exit e;

	*reason = WVM_RUN_ENGINE;
	if (deliver(r, &run, &a) == WVM_VCPU_REFUSED)
		*reason = a.reason;
	if (a.outcome != WVM_VCPU_ANSWERED)
		return a.outcome;
	/* What was to run it has died: there, this is no loss. */
	if (!wvm_vcpu_exit_decode(a.data, a.len, &e) && e.kind == WVM_VCPU_EXIT_ERROR) {
		have_apic(r);
		return WVM_VCPU_REFUSED;
	}
	return take_answer(r, &run, &a) ? WVM_VCPU_ANSWERED : WVM_VCPU_LOST;
}

/* False: the vCPU cannot go on. */
static bool one_run(struct wvm_qemu_remote *r)
{
	g_autofree char *why = NULL;
	struct wvm_vcpu_answer a;
	struct wvm_vcpu_run run;
	unsigned next = 0;

	plan_run(r, &run);
	do {
		if (deliver(r, &run, &a) == WVM_VCPU_ANSWERED) {
			bool goes_on = take_answer(r, &run, &a);

			wvm_qemu_remote_say(r);
			return goes_on;
		}
		g_free(why);
		why = g_strdup(wvm_vcpu_error());
	} while (a.outcome == WVM_VCPU_REFUSED && !r->midway &&
		 wvm_qemu_remote_elsewhere(r, &next));
	wvm_qemu_remote_lost(r, why);
	return false;
}

/*
 * Guest code until something here wants the thread. A kick that comes before `running` is
 * seen in `kicked`, a later one ends the run.
 */
static void run_guest(struct wvm_qemu_remote *r)
{
	if (r->lost)
		return;
	qatomic_set(&r->kicked, false);
	take_events(r);
	if (r->cs->halted)
		return;
	if (r->where.is != WVM_VCPU_IS_RUNNING)
		wvm_qemu_remote_say(r);
	qatomic_mb_set(&r->running, true);
	if (!timer_pending(beat))
		timer_mod_ns(beat, get_clock() + RUN_NS / 2);
	if (!qatomic_read(&r->kicked) || r->cs->interrupt_request) {
		/* Within an instruction it cannot be left, whatever is wanted. */
		while (one_run(r) && r->midway)
			;
	}
	qatomic_set(&r->running, false);
}

static void kick_thread(CPUState *cs)
{
	struct wvm_qemu_remote *r = of(cs);

	if (!r) {
		plain_ops.kick_vcpu_thread(cs);
		return;
	}
	qatomic_mb_set(&r->kicked, true);
	if (qatomic_read(&r->running))
		wvm_vcpu_kick(r->link);
}

static void on_beat(void *opaque)
{
	int64_t now = get_clock();
	bool any = false;

	for (unsigned i = 0; i < WVM_VCPU_MAX; i++) {
		struct wvm_qemu_remote *r = remotes[i];

		if (!r || !qatomic_read(&r->running))
			continue;
		any = true;
		if (now - qatomic_read(&r->sent_ns) >= RUN_NS)
			wvm_vcpu_kick(r->link);
	}
	if (any)
		timer_mod_ns(beat, now + RUN_NS / 2);
}

static void *remote_thread(void *arg)
{
	CPUState *cs = arg;
	struct wvm_qemu_remote *r = of(cs);

	rcu_register_thread();
	tcg_register_thread();
	qemu_mutex_lock_iothread();
	qemu_thread_get_self(cs->thread);
	cs->thread_id = qemu_get_thread_id();
	cs->can_do_io = 1;
	current_cpu = cs;
	r->kind = wvm_qemu_state_kind(cs);
	cpu_thread_signal_created(cs);
	qemu_guest_random_seed_thread_part2(cs->random_seed);
	do {
		if (cpu_can_run(cs))
			run_guest(r);
		if (r->lost)
			cs->stopped = true;
		qatomic_mb_set(&cs->exit_request, 0);
		qemu_wait_io_event(cs);
	} while (!cs->unplug || cpu_can_run(cs));
	wvm_qemu_remote_unwatch(r);
	wvm_vcpu_close(r->link);
	cpu_thread_signal_destroyed(cs);
	qemu_mutex_unlock_iothread();
	rcu_unregister_thread();
	return NULL;
}

/* ---- beginning
 * ------------------------------------------------------------------------------------- */

static void open_remote(CPUState *cs)
{
	struct wvm_qemu_remote *r = g_new0(struct wvm_qemu_remote, 1);
	unsigned nth = cs->cpu_index - wvm_qemu_placement.split;

	r->cs = cs;
	r->node = wvm_qemu_placement.nodes[MIN(nth, wvm_qemu_placement.count - 1)];
	r->state = g_malloc0(wvm_qemu_layout()->bytes);
	r->spare = g_malloc0(wvm_qemu_layout()->bytes);
	if (wvm_vcpu_open(&r->link, wvm_qemu_cluster(), wvm_qemu_vm_id(), cs->cpu_index)) {
		error_report("wavevm: vCPU %d: %s", cs->cpu_index, wvm_vcpu_error());
		exit(EXIT_FAILURE);
	}
	if (!wvm_qemu_remote_meet(r))
		exit(EXIT_FAILURE);
	remotes[cs->cpu_index] = r;
	wvm_qemu_remote_watch(r);
}

static void create_thread(CPUState *cs)
{
	char name[24];

	if ((unsigned)cs->cpu_index < wvm_qemu_placement.split) {
		plain_ops.create_vcpu_thread(cs);
		return;
	}
	wvm_qemu_ticks_begin();
	wvm_qemu_setup_begin();
	open_remote(cs);
	cs->tcg_cflags = (cs->cluster_index << CF_CLUSTER_SHIFT) | CF_PARALLEL;
	cs->thread = g_new0(QemuThread, 1);
	cs->halt_cond = g_new0(QemuCond, 1);
	qemu_cond_init(cs->halt_cond);
	snprintf(name, sizeof(name), "CPU %d/node %u", cs->cpu_index, remotes[cs->cpu_index]->node);
	qemu_thread_create(cs->thread, name, remote_thread, cs, QEMU_THREAD_JOINABLE);
}

/* The thread does such work only when the shadow has the whole state. */
static void nothing(CPUState *cs, run_on_cpu_data data)
{
}

static void synchronize(CPUState *cs)
{
	if (of(cs) && cs->created && !qemu_cpu_is_self(cs))
		run_on_cpu(cs, nothing, RUN_ON_CPU_NULL);
}

/* A reset makes a vCPU anew, also one that was lost, with whatever slave is there now. */
static void post_reset(CPUState *cs)
{
	struct wvm_qemu_remote *r = of(cs);

	if (!r || !r->lost)
		return;
	r->midway = r->given = false;
	r->base = r->setup = 0;
	r->lost = !wvm_qemu_remote_meet(r);
	cs->stopped = false;
}

static void print_counters(void)
{
	for (unsigned i = 0; i < WVM_VCPU_MAX; i++) {
		const struct wvm_qemu_remote *r = remotes[i];
		struct wvm_vcpu_counters c;

		if (!r)
			continue;
		wvm_vcpu_counters(r->link, &c);
		fprintf(stderr,
			"wavevm: vCPU %u on node %u: %" PRIu64 " runs, %" PRIu64
			" retries, %" PRIu64 " moves,",
			i, r->node, c.runs, c.retries, r->where.moves);
		for (unsigned k = 1; k < WVM_VCPU_EXIT_KINDS; k++) {
			if (r->where.exits[k])
				fprintf(stderr, " %s %" PRIu64, wvm_vcpu_exit_name(k),
					r->where.exits[k]);
		}
		fprintf(stderr, "\n");
	}
}

static void check_machine(void)
{
	const CpuTopology *t = &current_machine->smp;

	if (!qemu_tcg_mttcg_enabled() || icount_enabled()) {
		error_report("wavevm: split= needs a thread for each vCPU; leave %s out",
			     icount_enabled() ? "-icount" : "thread=single");
		exit(EXIT_FAILURE);
	}
	if (t->max_cpus > WVM_VCPU_MAX || t->cores != t->max_cpus) {
		error_report("wavevm: split= needs -smp N, all of them cores of one socket, and at "
			     "most %u",
			     WVM_VCPU_MAX);
		exit(EXIT_FAILURE);
	}
}

void wvm_qemu_remote_accel_ops(AccelOpsClass *ops)
{
	if (wvm_qemu_placement.split >= current_machine->smp.max_cpus)
		return;
	check_machine();
	plain_ops = *ops;
	beat = timer_new_ns(QEMU_CLOCK_REALTIME, on_beat, NULL);
	ops->create_vcpu_thread = create_thread;
	ops->kick_vcpu_thread = kick_thread;
	ops->synchronize_state = synchronize;
	ops->synchronize_post_reset = post_reset;
	ops->get_elapsed_ticks = wvm_qemu_ticks;
	if (wvm_qemu_placement.report)
		atexit(print_counters);
}

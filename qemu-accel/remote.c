/*
 * vCPUs that run on other nodes, seen from the QEMU that owns the VM. Each has a CPUState here,
 * its shadow: interrupts are raised on it, the monitor looks at it, and its thread sends
 * runs to the node's slave instead of executing (shared/PROTOCOL.md, Processors).
 *
 * Whose state is it? `block` is the last one that both sides have, in answer to run `base`. The
 * shadow's env is older as long as env_valid is false; it is loaded when somebody wants
 * to see it (synchronize) or an event acts on it (INIT, SIPI), and then goes back with the next
 *run.
 *
 *	            answer with state
 *	  env_valid ------------------> !env_valid      block is newer than env
 *	            <------------------
 *	             synchronize: load block            env may be changed by anyone, so it is
 *shipped
 *
 * Two fields of env are kept right all the time, as cpu_has_work() looks at them: IF, and
 * whether interrupts are inhibited.
 */
#include "qemu/osdep.h"

#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/boards.h"
#include "hw/i386/apic.h"
#include "hw/i386/apic_internal.h"
#include "monitor/monitor.h"
#include "qemu/error-report.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "sysemu/cpu-timers.h"
#include "sysemu/cpus.h"
#include "sysemu/hw_accel.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#include "sysemu/tcg.h"
#include "tcg/tcg.h"

#include "accel.h"
#include "shared/core/run.h"
#include "shared/wavevm_vcpu.h"
#include "vcpu.h"

#define NMI_VECTOR 2

struct remote {
	CPUState *cs;
	struct wvm_vcpu_link *link;
	uint32_t node;
	uint64_t slave_life;    /* 0: not asked yet */
	uint64_t base;          /* 0: the slave has no state of ours */
	bool env_valid;         /* the shadow's env is the newest */
	bool midway, open;      /* as the last answer said */
	bool broken;            /* the VM has been stopped because of it */
	bool in_run;            /* atomic; a kick is for the slave, too */
	uint32_t setup_version; /* that the slave has been told of */
	uint64_t *block, *spare;
	uint8_t data[4096]; /* what the last access has read */
	uint32_t data_len;
	uint8_t out[WVM_RUN_MAX];
	uint64_t exits[WVM_VCPU_EXIT_KINDS], runs, ran_ns; /* counted; read by others */
};

static struct remote *remotes; /* by cpu_index */
static AccelOpsClass plain;    /* for the vCPUs that run here */
static int64_t ticks_ahead;    /* of this host's; atomic */

static struct remote *of(CPUState *cs)
{
	return remotes && remotes[cs->cpu_index].cs ? &remotes[cs->cpu_index] : NULL;
}

/* ---- the time stamp counter ----------------------------------------------------------------- */

static int64_t owner_ticks(void)
{
	return cpu_get_ticks() + qatomic_read(&ticks_ahead);
}

/* A vCPU elsewhere has read this much: none here may read less after it. */
static void ticks_reach(int64_t least)
{
	int64_t ahead = qatomic_read(&ticks_ahead), wanted = least - cpu_get_ticks();

	while (wanted > ahead) {
		int64_t old = qatomic_cmpxchg(&ticks_ahead, ahead, wanted);

		if (old == ahead)
			return;
		ahead = old;
	}
}

/* ---- the machine, as a slave needs to know it ---------------------------------------------------
 */

static struct {
	char text[WVM_VCPU_SETUP_MAX];
	size_t len;
	uint32_t version; /* BQL */
	MemoryListener listener;
} setup;

static void add_map(struct wvm_vcpu_setup *s, const struct wvm_vcpu_map *map)
{
	struct wvm_vcpu_map *last = s->maps ? &s->map[s->maps - 1] : NULL;

	if (last && last->gpa + last->len == map->gpa && last->offset + last->len == map->offset &&
	    last->read_only == map->read_only)
		last->len += map->len;
	else if (s->maps < WVM_VCPU_MAPS_MAX)
		s->map[s->maps++] = *map;
	/* What finds no room is forwarded, page by page: slow, and right. */
}

/* Ranges of the flat view come in ascending order. */
static bool add_range(Int128 start, Int128 len, const MemoryRegion *mr, hwaddr at, void *opaque)
{
	struct wvm_vcpu_map map = {.gpa = int128_get64(start)};
	uint64_t end, offset;

	if (!memory_region_is_ram((MemoryRegion *)mr) || mr->ram_device)
		return false;
	end = map.gpa + int128_get64(len);
	map.read_only = mr->readonly || memory_region_is_romd((MemoryRegion *)mr);
	if (!wvm_qemu_offset((uint8_t *)memory_region_get_ram_ptr((MemoryRegion *)mr) + at,
			     end - map.gpa, &offset))
		return false;
	/* Whole pages only. */
	map.offset = offset + (ROUND_UP(map.gpa, WVM_PAGE_SIZE) - map.gpa);
	map.gpa = ROUND_UP(map.gpa, WVM_PAGE_SIZE);
	end = ROUND_DOWN(end, WVM_PAGE_SIZE);
	if (end <= map.gpa || map.offset % WVM_PAGE_SIZE)
		return false;
	map.len = end - map.gpa;
	add_map(opaque, &map);
	return false;
}

/* The text behind -cpu: the slave makes its vCPUs by the same words. */
static void cpu_text(char *out, size_t room)
{
	g_autofree char *line = NULL;
	gsize len, at;
	bool next = false;

	pstrcpy(out, room, "qemu64");
	if (!g_file_get_contents("/proc/self/cmdline", &line, &len, NULL))
		return;
	for (at = 0; at < len; at += strlen(line + at) + 1) {
		if (next)
			pstrcpy(out, room, line + at);
		next = !strcmp(line + at, "-cpu") || !strcmp(line + at, "--cpu");
	}
}

/* BQL held, as in every change of the memory map. */
static void describe_machine(void)
{
	g_autofree struct wvm_vcpu_setup *s = g_new0(struct wvm_vcpu_setup, 1);
	char text[WVM_VCPU_SETUP_MAX];
	FlatView *view;
	size_t len;

	s->vcpus = current_machine->smp.max_cpus;
	cpu_text(s->cpu, sizeof(s->cpu));
	RCU_READ_LOCK_GUARD();
	view = address_space_to_flatview(&address_space_memory);
	flatview_for_each_range(view, add_range, s);
	len = wvm_vcpu_setup_print(s, text, sizeof(text));
	if (len == setup.len && !memcmp(text, setup.text, len))
		return;
	memcpy(setup.text, text, len);
	setup.len = len;
	setup.version++;
}

/* The vCPUs elsewhere must not go on with the map as it was. */
static void map_changed(MemoryListener *listener)
{
	uint32_t version = setup.version;
	CPUState *cs;

	describe_machine();
	if (setup.version == version)
		return;
	CPU_FOREACH(cs)
	{
		if (of(cs))
			qemu_cpu_kick(cs);
	}
}

/* ---- state
 * --------------------------------------------------------------------------------------- */

static void keep_flags(struct remote *r, uint8_t flags)
{
	CPUX86State *env = &X86_CPU(r->cs)->env;

	r->open = flags & WVM_VCPU_EXIT_OPEN;
	r->midway = flags & WVM_VCPU_EXIT_MIDWAY;
	if (r->midway)
		return;
	env->eflags = (env->eflags & ~IF_MASK) | (flags & WVM_VCPU_EXIT_IF ? IF_MASK : 0);
	if (r->open)
		env->hflags &= ~HF_INHIBIT_IRQ_MASK;
}

/* Stops the VM for good: what this vCPU has done is not known. BQL held. */
static void give_up(struct remote *r, const char *why, const char *then)
{
	if (!r->broken)
		error_report("wavevm: vCPU %d on node %u: %s; %s", r->cs->cpu_index, r->node, why,
			     then);
	r->broken = true;
	qemu_system_vmstop_request_prepare();
	qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
	r->cs->stop = true;
}

/* ---- one run
 * -------------------------------------------------------------------------------------- */

/* The owner's part of a run: all that does not depend on who executes it. BQL held. */
static struct wvm_vcpu_run next_run(struct remote *r, uint8_t flags)
{
	return (struct wvm_vcpu_run){
		.engine = WVM_VCPU_ENGINE_TCG,
		.flags = flags | (r->midway ? WVM_VCPU_RUN_RESUME : 0),
		.layout = wvm_qemu_state_kind(r->cs),
		.data = r->data,
		.data_len = r->midway ? r->data_len : 0,
	};
}

/* What depends on what the slave knows already: state and setup. Encodes it. BQL held. */
static size_t encode_run(struct remote *r, struct wvm_vcpu_run *run)
{
	const struct wvm_vcpu_layout *layout = wvm_qemu_layout();
	uint8_t *at;
	size_t room;

	run->setup_version = setup.version;
	run->setup = (const uint8_t *)setup.text;
	run->setup_len = r->setup_version == setup.version ? 0 : setup.len;
	run->ticks = owner_ticks();
	run->base = r->base;
	run->state = NULL;
	run->state_len = 0;
	if (!r->base)
		run->flags |= WVM_VCPU_RUN_WHOLE;
	at = r->out + wvm_vcpu_run_state_at(run->setup_len);
	room = r->out + sizeof(r->out) - at - sizeof(r->data);
	if (r->env_valid) {
		wvm_qemu_state_save(r->cs, r->spare);
		run->state_len = wvm_vcpu_delta(layout, r->base ? r->block : NULL, r->spare, 1, at,
						room);
	} else if (!r->base) {
		run->state_len = wvm_vcpu_delta(layout, NULL, r->block, 1, at, room);
	}
	return wvm_vcpu_run_encode(r->out, sizeof(r->out), run);
}

/* The slave has taken the run: what went with it is common knowledge. */
static void run_taken(struct remote *r, const struct wvm_vcpu_run *run, uint64_t seq)
{
	if (r->env_valid) {
		uint64_t *block = r->block;

		r->block = r->spare;
		r->spare = block;
		r->env_valid = false;
	}
	if (run->flags & WVM_VCPU_RUN_WHOLE || run->state_len)
		r->base = seq;
	if (run->setup_len)
		r->setup_version = run->setup_version;
	r->data_len = 0;
}

/* Whether the run may be sent again, with what was missing. BQL held. */
static bool after_refusal(struct remote *r, unsigned reason)
{
	if (reason == WVM_RUN_BASE && r->base && !r->midway) {
		r->base = 0;
		return true;
	}
	if (reason == WVM_RUN_SETUP && r->setup_version) {
		r->setup_version = 0;
		return true;
	}
	if (reason == WVM_RUN_BUSY) {
		g_usleep(10000);
		return true;
	}
	give_up(r, wvm_run_reason_text(reason),
		"look at that node's slave, then start the VM anew");
	return false;
}

/*
 * Sends the run until a slave has executed it. BQL held, but not while waiting. False: the VM has
 * to stop, and has been told so.
 */
static bool run_there(struct remote *r, struct wvm_vcpu_run *run, struct wvm_vcpu_answer *answer)
{
	for (;;) {
		uint8_t whole = run->flags & ~WVM_VCPU_RUN_WHOLE;
		size_t len = encode_run(r, run);
		int err;

		if (!len) {
			give_up(r, "its state has no room in a run", "this is a mistake of WaveVM");
			return false;
		}
		qatomic_mb_set(&r->in_run, true);
		if (qatomic_read(&r->cs->exit_request))
			wvm_vcpu_kick(r->link);
		qemu_mutex_unlock_iothread();
		err = wvm_vcpu_run(r->link, r->node, r->slave_life, r->out, len, answer);
		qatomic_mb_set(&r->in_run, false);
		qemu_mutex_lock_iothread();
		if (err) {
			give_up(r, wvm_vcpu_error(), "start the VM anew");
			return false;
		}
		if (answer->outcome == WVM_VCPU_ANSWERED) {
			run_taken(r, run, answer->seq);
			return true;
		}
		if (answer->outcome == WVM_VCPU_LOST) {
			give_up(r, wvm_vcpu_error(),
				"its last steps may have been executed or not, so the VM cannot go "
				"on; start the slave, and the VM anew");
			return false;
		}
		run->flags = whole;
		if (!after_refusal(r, answer->reason))
			return false;
	}
}

/* Takes the answer's state over. False: it makes no sense. */
static bool take_answer(struct remote *r, const struct wvm_vcpu_answer *answer,
			struct wvm_vcpu_exit *e)
{
	uint32_t changed;

	if (wvm_vcpu_exit_decode(answer->data, answer->len, e))
		return false;
	if (e->flags & WVM_VCPU_EXIT_STATE) {
		if (e->base != r->base ||
		    wvm_vcpu_apply(wvm_qemu_layout(), r->block, e->state, e->state_len, &changed))
			return false;
		r->base = answer->seq;
		r->env_valid = false;
	} else if (!(e->flags & WVM_VCPU_EXIT_MIDWAY)) {
		return false;
	}
	keep_flags(r, e->flags);
	ticks_reach(e->ticks);
	qatomic_set(&r->runs, r->runs + 1);
	qatomic_set(&r->ran_ns, r->ran_ns + e->ran_ns);
	qatomic_set(&r->exits[e->kind], r->exits[e->kind] + 1);
	return true;
}

static void do_apic(struct remote *r, const struct wvm_vcpu_exit *e)
{
	DeviceState *apic = X86_CPU(r->cs)->apic_state;
	bool tpr = e->at == 1;

	if (!(e->flags & WVM_VCPU_EXIT_WRITE)) {
		r->data_len = 1;
		r->data[0] = cpu_get_apic_tpr(apic);
	} else if (tpr && e->data_len == 1) {
		cpu_set_apic_tpr(apic, e->data[0]);
	} else if (!tpr && e->data_len == 8) {
		cpu_set_apic_base(apic, ldq_le_p(e->data));
	}
}

/* An access of the guest, by the devices that are here. BQL held. */
static void do_access(struct remote *r, const struct wvm_vcpu_exit *e)
{
	AddressSpace *as = e->kind == WVM_VCPU_EXIT_PIO ? &address_space_io : r->cs->as;
	bool write = e->flags & WVM_VCPU_EXIT_WRITE;
	uint8_t *data = write ? (uint8_t *)e->data : r->data;
	uint32_t i;

	for (i = 0; i < e->count; i++)
		address_space_rw(as, e->at, MEMTXATTRS_UNSPECIFIED, data + i * e->size, e->size,
				 write);
	r->data_len = write ? 0 : e->size * e->count;
}

static void do_exit(struct remote *r, const struct wvm_vcpu_exit *e)
{
	g_autofree char *text = NULL;

	switch (e->kind) {
	case WVM_VCPU_EXIT_PIO:
	case WVM_VCPU_EXIT_MMIO: do_access(r, e); break;
	case WVM_VCPU_EXIT_APIC: do_apic(r, e); break;
	case WVM_VCPU_EXIT_HLT: r->cs->halted = 1; break;
	case WVM_VCPU_EXIT_SHUTDOWN:
		qemu_system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
		r->cs->stop = true;
		break;
	case WVM_VCPU_EXIT_ERROR:
		text = g_strndup((const char *)e->data, e->data_len);
		give_up(r, text, "start the VM anew");
		break;
	default: break;
	}
}

static bool ask_slave(struct remote *r)
{
	struct wvm_vcpu_hello hello;
	int err;

	if (r->slave_life)
		return true;
	qemu_mutex_unlock_iothread();
	err = wvm_vcpu_hello(r->link, r->node, &r->slave_life, &hello);
	qemu_mutex_lock_iothread();
	if (!err && !(hello.engines & 1u << WVM_VCPU_ENGINE_TCG)) {
		give_up(r, "its slave has no TCG engine", "start it with one");
		r->slave_life = 0;
		return false;
	}
	if (err) {
		r->slave_life = 0;
		give_up(r, wvm_vcpu_error(), "start wavevm_node_slave there, then the VM anew");
	}
	return !err;
}

/* One run and what it ends in. False: no more of them. BQL held. */
static bool step(struct remote *r, uint8_t flags, uint8_t vector)
{
	struct wvm_vcpu_run run = next_run(r, flags);
	struct wvm_vcpu_answer answer;
	struct wvm_vcpu_exit e;

	if (!ask_slave(r))
		return false;
	run.vector = vector;
	if (!run_there(r, &run, &answer))
		return false;
	if (!take_answer(r, &answer, &e)) {
		give_up(r, "its answer makes no sense", "are both nodes of one version?");
		return false;
	}
	do_exit(r, &e);
	return !r->broken;
}

/* Makes the shadow's env the newest. By the vCPU's thread; BQL held. */
static void fetch_state(struct remote *r)
{
	while (r->midway && !r->broken)
		step(r, WVM_VCPU_RUN_GET, 0);
	if (r->env_valid)
		return;
	if (!wvm_qemu_state_load(r->cs, r->block))
		give_up(r, "its state makes no sense", "are both nodes of one version?");
	r->env_valid = true;
}

/* ---- the thread
 * ----------------------------------------------------------------------------------- */

/* What the shadow has been asked for that changes its state as a whole. True: look again. */
static bool act_on_state(struct remote *r)
{
	CPUState *cs = r->cs;
	X86CPU *cpu = X86_CPU(cs);
	int request = cs->interrupt_request;

	if (request & CPU_INTERRUPT_POLL) {
		cpu_reset_interrupt(cs, CPU_INTERRUPT_POLL);
		apic_poll_irq(cpu->apic_state);
		return true;
	}
	if (request & CPU_INTERRUPT_INIT) {
		fetch_state(r);
		do_cpu_init(cpu);
		r->open = false;
		return true;
	}
	if (request & CPU_INTERRUPT_SIPI) {
		cpu_reset_interrupt(cs, CPU_INTERRUPT_SIPI);
		fetch_state(r);
		do_cpu_sipi(cpu);
		return true;
	}
	if (request & CPU_INTERRUPT_SMI) {
		cpu_reset_interrupt(cs, CPU_INTERRUPT_SMI);
		warn_report_once("wavevm: vCPUs on other nodes have no system management mode");
	}
	/* These are about translated code, which is the slave's, or no business of a vCPU's. */
	cpu_reset_interrupt(cs, CPU_INTERRUPT_EXITTB | CPU_INTERRUPT_TPR | CPU_INTERRUPT_VIRQ);
	return false;
}

/* The interrupt that goes with the next run, if there is one. */
static uint8_t take_interrupt(struct remote *r, uint8_t *vector)
{
	CPUState *cs = r->cs;
	int intno;

	if (cs->interrupt_request & CPU_INTERRUPT_NMI && !r->midway) {
		cpu_reset_interrupt(cs, CPU_INTERRUPT_NMI);
		*vector = NMI_VECTOR;
		return WVM_VCPU_RUN_INJECT;
	}
	if (!(cs->interrupt_request & CPU_INTERRUPT_HARD))
		return 0;
	if (!r->open || r->midway)
		return WVM_VCPU_RUN_WINDOW;
	cpu_reset_interrupt(cs, CPU_INTERRUPT_HARD);
	intno = cpu_get_pic_interrupt(&X86_CPU(cs)->env);
	if (intno < 0)
		return 0;
	*vector = intno;
	return WVM_VCPU_RUN_INJECT;
}

static void run_once(struct remote *r)
{
	uint8_t vector = 0, flags;

	while (act_on_state(r))
		continue;
	if (r->cs->halted && !cpu_has_work(r->cs))
		return;
	flags = take_interrupt(r, &vector);
	r->cs->halted = 0;
	step(r, flags, vector);
	/* Others may wait until this vCPU stops: not within an instruction. */
	while (r->midway && !r->broken && qatomic_read(&r->cs->exit_request))
		step(r, WVM_VCPU_RUN_GET, 0);
}

static void *remote_thread(void *arg)
{
	CPUState *cs = arg;
	struct remote *r = of(cs);

	rcu_register_thread();
	tcg_register_thread();
	qemu_mutex_lock_iothread();
	qemu_thread_get_self(cs->thread);
	cs->thread_id = qemu_get_thread_id();
	cs->can_do_io = 1;
	current_cpu = cs;
	cpu_thread_signal_created(cs);
	qemu_guest_random_seed_thread_part2(cs->random_seed);
	do {
		if (cpu_can_run(cs) && !r->broken)
			run_once(r);
		qatomic_mb_set(&cs->exit_request, 0);
		qemu_wait_io_event(cs);
	} while (!cs->unplug || cpu_can_run(cs));
	qemu_mutex_unlock_iothread();
	rcu_unregister_thread();
	return NULL;
}

/* ---- what QEMU calls
 * -------------------------------------------------------------------------------- */

static void begin_remote(CPUState *cs)
{
	static bool listening;
	struct wvm_qemu_placement *p = &wvm_qemu_placement;
	struct remote *r = &remotes[cs->cpu_index];
	unsigned i = MIN(cs->cpu_index - p->split, p->count - 1);

	if (wvm_vcpu_open(&r->link, wvm_qemu_cluster(), wvm_qemu_vm_id(), cs->cpu_index)) {
		error_report("wavevm: vCPU %d: %s", cs->cpu_index, wvm_vcpu_error());
		exit(EXIT_FAILURE);
	}
	r->cs = cs;
	r->node = p->nodes[i];
	r->env_valid = true;
	r->block = g_malloc0(WVM_QEMU_STATE_BYTES);
	r->spare = g_malloc0(WVM_QEMU_STATE_BYTES);
	if (!listening) {
		setup.listener.name = "wavevm";
		setup.listener.commit = map_changed;
		memory_listener_register(&setup.listener, &address_space_memory);
		listening = true;
	}
}

static void create_thread(CPUState *cs)
{
	char name[16];

	if (cs->cpu_index < wvm_qemu_placement.split) {
		plain.create_vcpu_thread(cs);
		return;
	}
	if (!remotes)
		remotes = g_new0(struct remote, current_machine->smp.max_cpus);
	begin_remote(cs);
	cs->tcg_cflags = (cs->cluster_index << CF_CLUSTER_SHIFT) | CF_PARALLEL;
	cs->thread = g_new0(QemuThread, 1);
	cs->halt_cond = g_new0(QemuCond, 1);
	qemu_cond_init(cs->halt_cond);
	snprintf(name, sizeof(name), "CPU %d/remote", cs->cpu_index);
	qemu_thread_create(cs->thread, name, remote_thread, cs, QEMU_THREAD_JOINABLE);
}

static void kick_thread(CPUState *cs)
{
	struct remote *r = of(cs);

	plain.kick_vcpu_thread(cs);
	/* After exit_request is set: run_there() looks at it after it has said that it is in a run.
	 */
	smp_mb();
	if (r && qatomic_read(&r->in_run))
		wvm_vcpu_kick(r->link);
}

static void do_synchronize(CPUState *cs, run_on_cpu_data arg)
{
	fetch_state(of(cs));
}

static void synchronize(CPUState *cs)
{
	if (of(cs) && !of(cs)->env_valid)
		run_on_cpu(cs, do_synchronize, RUN_ON_CPU_NULL);
}

/* The env has been set by others, whatever we knew. All vCPUs are stopped. */
static void env_is_new(CPUState *cs)
{
	struct remote *r = of(cs);

	if (!r)
		return;
	r->env_valid = true;
	r->open = false;
}

void wvm_qemu_remote_accel_ops(AccelOpsClass *ops)
{
	plain = *ops;
	ops->create_vcpu_thread = create_thread;
	ops->kick_vcpu_thread = kick_thread;
	ops->get_elapsed_ticks = owner_ticks;
	ops->synchronize_state = synchronize;
	ops->synchronize_post_reset = env_is_new;
	ops->synchronize_post_init = env_is_new;
	ops->synchronize_pre_loadvm = synchronize;
}

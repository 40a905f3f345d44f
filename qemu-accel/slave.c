/*
 * The slave's engine: this QEMU has vCPUs and the VM's memory, and nothing else. A slave
 * daemon has started it and hands it runs (shared/engine.h); whatever the guest does beyond memory
 * is its owner's (shared/PROTOCOL.md, Processors).
 *
 *	a vCPU's thread    waits for a run, takes its state over, executes guest code, answers
 *	an access          within guest code to anything but memory: the thread answers from there
 *	                   (MIDWAY) and waits for the run that has the result
 *
 * The memory map is what the owner says it is: a background of everything that is
 * forwarded, and aliases of the VM's memory over it.
 *
 * Interrupts: a vCPU's local APIC comes and goes with it (apic.c). Its timer and what the guest
 * does to it are QEMU's own here; an interrupt that it sends, and whatever else others have to know
 * of, is forwarded. What the owner raises for it comes with the next run, for which this one is
 * ended. INJECT and WINDOW are for what is none of an APIC's: NMI, and the old controller's
 * interrupts. They set INTERRUPT_WISH, which makes QEMU look as soon as one can be taken; the
 * override of cpu_exec_interrupt then takes the run's vector, or ends the run.
 */
#include "qemu/osdep.h"

#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/exec-all.h"
#include "hw/boards.h"
#include "hw/i386/apic-msidef.h"
#include "hw/i386/apic.h"
#include "hw/i386/apic_internal.h"
#include "hw/i386/topology.h"
#include "qemu/error-report.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "qemu/units.h"
#include "sysemu/cpu-timers.h"
#include "sysemu/cpus.h"
#include "sysemu/reset.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#include "tcg/helper-tcg.h"
#include "tcg/tcg.h"

#include "accel.h"
#include "shared/engine.h"
#include "vcpu.h"

#define START_POLL_MS 2

#define NMI_VECTOR 2 /* as an external interrupt's it is reserved: the owner means an NMI */

#define INTERRUPT_WISH CPU_INTERRUPT_TGT_EXT_0 /* of no use to x86 else */

/* One vCPU's; its thread's, but kick. */
struct slave_cpu {
	CPUState *cs;
	unsigned index;
	uint32_t kind;
	uint64_t seq;  /* of the run that is being executed */
	uint64_t base; /* the seq whose state `state` is; 0: none yet */
	uint64_t *state, *now;
	int64_t began_ns;
	bool inject, window, get; /* what the run wants */
	uint8_t vector;
	bool opened; /* the window that was wanted */
	uint8_t in[WVM_RUN_MAX], out[WVM_RUN_MAX];
};

static struct slave_cpu *slaves;
static unsigned cpu_count;
static struct wvm_engine *engine;
static MemoryRegion everything, ports, apics, ram;
static MemoryRegion *aliases;
static uint32_t alias_count, setup_version; /* BQL */
static uint64_t era;                        /* BQL */

bool wvm_qemu_is_slave(void)
{
	const char *role = getenv("WVM_ROLE");

	return role && !strcmp(role, "SLAVE");
}

static struct slave_cpu *of(CPUState *cs)
{
	return &slaves[cs->cpu_index];
}

/* ---- the machine as the owner has it ----------------------------------------------------------
 */

static bool map_memory(const struct wvm_vcpu_setup *s)
{
	MemoryRegion *system = get_system_memory();
	uint64_t size = memory_region_size(&ram);
	uint32_t i;

	for (i = 0; i < s->maps; i++) {
		if (s->map[i].offset > size || s->map[i].len > size - s->map[i].offset)
			return false;
	}
	memory_region_transaction_begin();
	for (i = 0; i < alias_count; i++) {
		memory_region_del_subregion(system, &aliases[i]);
		object_unparent(OBJECT(&aliases[i]));
	}
	g_free(aliases);
	aliases = g_new0(MemoryRegion, s->maps);
	alias_count = s->maps;
	for (i = 0; i < s->maps; i++) {
		memory_region_init_alias(&aliases[i], NULL, "wavevm-map", &ram, s->map[i].offset,
					 s->map[i].len);
		memory_region_set_readonly(&aliases[i], s->map[i].read_only);
		memory_region_add_subregion(system, s->map[i].gpa, &aliases[i]);
	}
	memory_region_transaction_commit();
	return true;
}

/* What the owner's counter was to be when the run came, and got on since. */
static int64_t owner_now(const struct slave_cpu *c, const struct wvm_vcpu_run *r)
{
	int64_t since = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - c->began_ns;

	return r->ticks + wvm_qemu_ticks_in(since);
}

/* An earlier version than ours comes from a run that was long on its way. */
static unsigned take_setup(const struct slave_cpu *c, const struct wvm_vcpu_run *r)
{
	struct wvm_vcpu_setup setup;
	unsigned reason = WVM_RUN_NO_REASON;
	char err[160];

	qemu_mutex_lock_iothread();
	if (r->setup_len && r->setup_version > setup_version) {
		if (wvm_vcpu_setup_parse(r->setup, r->setup_len, &setup, err, sizeof(err)) ||
		    setup.vcpus != cpu_count || !map_memory(&setup))
			reason = WVM_RUN_MALFORMED;
		else
			setup_version = r->setup_version;
		if (reason == WVM_RUN_NO_REASON && setup.ticks_hz && setup.era != era) {
			era = setup.era;
			wvm_qemu_ticks_follow(setup.ticks_hz);
			wvm_qemu_ticks_reach(owner_now(c, r));
		}
	} else if (r->setup_version > setup_version) {
		reason = WVM_RUN_SETUP;
	}
	qemu_mutex_unlock_iothread();
	return reason;
}

/* ---- runs and answers ---------------------------------------------------------------------------
 */

static uint8_t now_flags(struct slave_cpu *c)
{
	const CPUX86State *env = &X86_CPU(c->cs)->env;

	return (x86_cpu_pending_interrupt(c->cs, CPU_INTERRUPT_HARD) ? WVM_VCPU_EXIT_OPEN : 0) |
	       (env->eflags & IF_MASK ? WVM_VCPU_EXIT_IF : 0);
}

static void send_answer(struct slave_cpu *c, struct wvm_vcpu_exit *e)
{
	size_t len;

	e->ticks = wvm_qemu_ticks();
	e->ran_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - c->began_ns;
	len = wvm_vcpu_exit_encode(c->out, sizeof(c->out), e);
	g_assert(len);
	if (wvm_engine_exit(engine, c->index, c->seq, c->out, len))
		_exit(EXIT_FAILURE);
}

/* With the whole truth: it goes on from this answer wherever the owner wants. BQL not held. */
static void answer(struct slave_cpu *c, enum wvm_vcpu_exit_kind kind, const char *text)
{
	const struct wvm_vcpu_layout *layout = wvm_qemu_layout();
	uint64_t *spare = c->state;
	struct wvm_vcpu_exit e = {
		.kind = kind,
		.flags = WVM_VCPU_EXIT_STATE,
		.base = c->base,
		.ip = X86_CPU(c->cs)->env.eip,
		.data = (const uint8_t *)text,
		.data_len = text ? strlen(text) : 0,
	};
	uint8_t *at = c->out + wvm_vcpu_exit_state_at();
	size_t room = sizeof(c->out) - wvm_vcpu_exit_state_at() - 256, len;

	qemu_mutex_lock_iothread();
	e.flags |= now_flags(c);
	wvm_qemu_state_save(c->cs, c->now);
	wvm_qemu_apic_give(c->cs, wvm_qemu_state_apic(c->now));
	qemu_mutex_unlock_iothread();
	len = wvm_vcpu_delta(layout, c->state, c->now, WVM_QEMU_STATE_ALL, at, room);
	g_assert(len <= room);
	e.state_len = len;
	c->state = c->now;
	c->now = spare;
	c->base = c->seq;
	send_answer(c, &e);
}

/* Waits for the next run that is one. */
static void next_run(struct slave_cpu *c, struct wvm_vcpu_run *r)
{
	for (;;) {
		int len = wvm_engine_wait(engine, c->index, c->in, sizeof(c->in), &c->seq);

		if (len == -EINTR)
			continue;
		if (len < 0)
			_exit(EXIT_SUCCESS); /* the slave is gone, and so is the owner for us */
		c->began_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
		if (!wvm_vcpu_run_decode(c->in, len, r) && r->engine == WVM_VCPU_ENGINE_TCG &&
		    r->layout == c->kind)
			return;
		wvm_engine_refuse(engine, c->index, c->seq, WVM_RUN_MALFORMED);
	}
}

static unsigned take_state(struct slave_cpu *c, const struct wvm_vcpu_run *r)
{
	bool loaded = true;
	uint32_t changed;

	if (r->flags & WVM_VCPU_RUN_WHOLE)
		memset(c->state, 0, wvm_qemu_layout()->bytes);
	else if (!c->base || r->base != c->base)
		return WVM_RUN_BASE;
	if (wvm_vcpu_apply(wvm_qemu_layout(), c->state, r->state, r->state_len, &changed)) {
		c->base = 0;
		return WVM_RUN_MALFORMED;
	}
	qemu_mutex_lock_iothread();
	if (changed & 1u << WVM_QEMU_STATE_CPU || r->flags & WVM_VCPU_RUN_WHOLE)
		loaded = wvm_qemu_state_load(c->cs, c->state);
	if (loaded)
		wvm_qemu_apic_take(c->cs, wvm_qemu_state_apic(c->state));
	qemu_mutex_unlock_iothread();
	if (!loaded)
		c->base = 0;
	else if (r->state_len || r->flags & WVM_VCPU_RUN_WHOLE)
		c->base = c->seq;
	return loaded ? WVM_RUN_NO_REASON : WVM_RUN_MALFORMED;
}

/* What the run wants of us besides executing. */
static void take_wishes(struct slave_cpu *c, const struct wvm_vcpu_run *r)
{
	wvm_qemu_ticks_reach(owner_now(c, r));
	c->inject = r->flags & WVM_VCPU_RUN_INJECT;
	c->vector = r->vector;
	c->window = r->flags & WVM_VCPU_RUN_WINDOW;
	c->get = r->flags & WVM_VCPU_RUN_GET;
	c->opened = false;
	/* The APIC's timer asks for an interrupt, too, in the main loop. */
	qemu_mutex_lock_iothread();
	if (c->inject || c->window)
		qatomic_or(&c->cs->interrupt_request, INTERRUPT_WISH);
	else
		qatomic_and(&c->cs->interrupt_request, ~INTERRUPT_WISH);
	qemu_mutex_unlock_iothread();
	if (c->get || c->inject || c->window)
		cpu_exit(c->cs);
}

/* ---- accesses that are the owner's
 * ---------------------------------------------------------------- */

/* Answers from within an instruction, and returns with the run that resumes it. */
static void midway(struct slave_cpu *c, struct wvm_vcpu_exit *e, struct wvm_vcpu_run *r)
{
	e->flags |= WVM_VCPU_EXIT_MIDWAY;
	send_answer(c, e);
	for (;;) {
		next_run(c, r);
		if (r->flags & WVM_VCPU_RUN_RESUME && !r->state_len &&
		    !(r->flags & WVM_VCPU_RUN_INJECT) && take_setup(c, r) == WVM_RUN_NO_REASON)
			break;
		wvm_engine_refuse(engine, c->index, c->seq, WVM_RUN_MALFORMED);
	}
	take_wishes(c, r);
}

static uint64_t forward(enum wvm_vcpu_exit_kind kind, uint64_t at, unsigned size, bool write,
			uint64_t value)
{
	struct wvm_vcpu_exit e = {.kind = kind, .at = at, .count = 1, .size = size};
	bool locked = qemu_mutex_iothread_locked(); /* for accesses, not for the APIC's MSR */
	struct wvm_vcpu_run r;
	uint8_t data[8];

	if (kind == WVM_VCPU_EXIT_APIC)
		e.size = e.count = 0;
	if (write) {
		stq_le_p(data, value);
		e.flags |= WVM_VCPU_EXIT_WRITE;
		e.data = data;
		e.data_len = size;
	}
	if (locked)
		qemu_mutex_unlock_iothread();
	midway(of(current_cpu), &e, &r);
	if (locked)
		qemu_mutex_lock_iothread();
	memset(data, 0, sizeof(data));
	memcpy(data, r.data, MIN(r.data_len, sizeof(data)));
	return ldq_le_p(data);
}

static uint64_t memory_read(void *opaque, hwaddr at, unsigned size)
{
	return forward(WVM_VCPU_EXIT_MMIO, (uintptr_t)opaque + at, size, false, 0);
}

static void memory_write(void *opaque, hwaddr at, uint64_t value, unsigned size)
{
	forward(WVM_VCPU_EXIT_MMIO, (uintptr_t)opaque + at, size, true, value);
}

static uint64_t port_read(void *opaque, hwaddr at, unsigned size)
{
	return forward(WVM_VCPU_EXIT_PIO, at, size, false, 0);
}

static void port_write(void *opaque, hwaddr at, uint64_t value, unsigned size)
{
	forward(WVM_VCPU_EXIT_PIO, at, size, true, value);
}

static const MemoryRegionOps memory_ops = {
	.read = memory_read,
	.write = memory_write,
	.endianness = DEVICE_LITTLE_ENDIAN,
	.valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
	.impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

static const MemoryRegionOps port_ops = {
	.read = port_read,
	.write = port_write,
	.endianness = DEVICE_LITTLE_ENDIAN,
	.valid = {.min_access_size = 1, .max_access_size = 4, .unaligned = true},
	.impl = {.min_access_size = 1, .max_access_size = 4, .unaligned = true},
};

/* ---- the local APIC -------------------------------------------------------------------------
 */

#define APIC_PAGE     0x1000u
#define APIC_REGISTER 0xff0u /* the bits of an address that choose one */
#define ICR_SELF      1u     /* the shorthand for the sender itself */

static APICCommonState *own_apic(void)
{
	return APIC_COMMON(X86_CPU(current_cpu)->apic_state);
}

static void tell(uint64_t at, unsigned size, uint64_t value)
{
	forward(WVM_VCPU_EXIT_APIC, at, size, true, value);
}

static void apic_local(APICCommonState *s, hwaddr at, uint64_t value, unsigned size)
{
	memory_region_dispatch_write(&s->io_memory, at, value, size_memop(size) | MO_LE,
				     MEMTXATTRS_UNSPECIFIED);
}

/* The vector that the EOI is about, if I/O APICs wait for it; else -1. */
static int ends_level(const APICCommonState *s)
{
	for (int i = 7; i >= 0; i--) {
		int bit;

		if (!s->isr[i])
			continue;
		bit = 31 - clz32(s->isr[i]);
		return !(s->spurious_vec & APIC_SV_DIRECTED_IO) && s->tmr[i] >> bit & 1
			       ? i * 32 + bit
			       : -1;
	}
	return -1;
}

/* All but fixed interrupts to itself are the owner's to send. */
static void send_interrupt(APICCommonState *s, uint64_t value, unsigned size)
{
	if ((value >> APIC_ICR_DEST_SHORT_SHIFT & 3) == ICR_SELF &&
	    (value >> APIC_ICR_DELIV_MOD_SHIFT & 7) == APIC_DM_FIXED) {
		apic_local(s, WVM_QEMU_APIC_ICR, value, size);
		return;
	}
	s->icr[0] = value;
	tell(WVM_QEMU_APIC_SEND, 8, (uint64_t)s->icr[1] << 32 | s->icr[0]);
}

static uint64_t apic_read(void *opaque, hwaddr at, unsigned size)
{
	uint64_t value = 0;

	memory_region_dispatch_read(&own_apic()->io_memory, at, &value, size_memop(size) | MO_LE,
				    MEMTXATTRS_UNSPECIFIED);
	return value;
}

static void apic_write(void *opaque, hwaddr at, uint64_t value, unsigned size)
{
	APICCommonState *s = own_apic();
	hwaddr reg = at & APIC_REGISTER;
	int level;

	if (at >= APIC_PAGE || !reg) { /* a message like a device's */
		forward(WVM_VCPU_EXIT_MMIO, APIC_DEFAULT_ADDRESS + at, size, true, value);
		return;
	}
	if (size < 4) /* QEMU's does nothing, either */
		return;
	if (reg == WVM_QEMU_APIC_ICR) {
		send_interrupt(s, value, size);
		return;
	}
	level = reg == WVM_QEMU_APIC_AT_EOI ? ends_level(s) : -1;
	apic_local(s, at, value, size);
	if (level >= 0)
		tell(WVM_QEMU_APIC_EOI, 1, level);
	if (reg == WVM_QEMU_APIC_ID || reg == WVM_QEMU_APIC_LDR || reg == WVM_QEMU_APIC_DFR ||
	    reg == WVM_QEMU_APIC_SVR || reg == WVM_QEMU_APIC_LINT0 || reg == WVM_QEMU_APIC_LINT1)
		tell(WVM_QEMU_APIC_WRITE + reg, 4, value);
}

static const MemoryRegionOps apic_ops = {
	.read = apic_read,
	.write = apic_write,
	.endianness = DEVICE_LITTLE_ENDIAN,
	.valid = {.min_access_size = 1, .max_access_size = 4},
	.impl = {.min_access_size = 1, .max_access_size = 4},
};

static void (*plain_set_base)(APICCommonState *s, uint64_t value);

static void apic_set_base(APICCommonState *s, uint64_t value)
{
	plain_set_base(s, value);
	tell(WVM_QEMU_APIC_BASE, 8, value);
}

/* ---- execution
 * ------------------------------------------------------------------------------------- */

static const struct TCGCPUOps *plain_ops;

/* BQL held. */
static bool exec_interrupt(CPUState *cs, int request)
{
	struct slave_cpu *c = of(cs);
	CPUX86State *env = &X86_CPU(cs)->env;
	bool nmi = c->inject && c->vector == NMI_VECTOR;

	if (!(request & INTERRUPT_WISH) ||
	    !x86_cpu_pending_interrupt(cs, nmi ? CPU_INTERRUPT_NMI : CPU_INTERRUPT_HARD))
		return plain_ops->cpu_exec_interrupt(cs, request & ~INTERRUPT_WISH);
	if (c->inject) {
		c->inject = false;
		if (!c->window)
			cs->interrupt_request &= ~INTERRUPT_WISH;
		if (nmi)
			env->hflags2 |= HF2_NMI_MASK;
		do_interrupt_x86_hardirq(env, c->vector, 1);
		return true;
	}
	cs->interrupt_request &= ~INTERRUPT_WISH;
	c->opened = c->window;
	c->window = false;
	/* QEMU looks at this next, before it executes anything. */
	qatomic_set(&cs->exit_request, 1);
	return false;
}

void wvm_qemu_slave_tcg_ops(struct TCGCPUOps *ops)
{
	static struct TCGCPUOps plain;

	plain = *ops;
	plain_ops = &plain;
	ops->cpu_exec_interrupt = exec_interrupt;
}

/* Whether the run is to end here, without regard to what the guest does. */
static bool wanted_back(struct slave_cpu *c)
{
	return !c->inject && (c->get || wvm_engine_kicked(engine, c->index));
}

/* Until there is something to answer. */
static void execute(struct slave_cpu *c)
{
	CPUState *cs = c->cs;

	cs->halted = 0;
	for (;;) {
		int r;

		qatomic_mb_set(&cs->exit_request, 0);
		qemu_mutex_lock_iothread();
		process_queued_cpu_work(cs);
		qemu_mutex_unlock_iothread();
		/* After exit_request is cleared: a kick sets it behind its own mark. */
		if (wanted_back(c)) {
			answer(c, WVM_VCPU_EXIT_KICKED, NULL);
			return;
		}
		cpu_exec_start(cs);
		r = cpu_exec(cs);
		cpu_exec_end(cs);
		/* HLT itself also sets halted: this is how a triple fault ends. */
		if (r == EXCP_HLT && !cs->halted) {
			answer(c, WVM_VCPU_EXIT_SHUTDOWN, NULL);
			return;
		}
		if (r == EXCP_ATOMIC)
			cpu_exec_step_atomic(cs);
		if (r == EXCP_DEBUG) {
			answer(c, WVM_VCPU_EXIT_ERROR, "a breakpoint, which nobody here has set");
			return;
		}
		if (cs->halted) {
			answer(c, WVM_VCPU_EXIT_HLT, NULL);
			return;
		}
		if (c->opened) {
			answer(c, WVM_VCPU_EXIT_WINDOW, NULL);
			return;
		}
	}
}

static void one_run(struct slave_cpu *c)
{
	struct wvm_vcpu_run r;
	unsigned reason;

	next_run(c, &r);
	reason = r.flags & WVM_VCPU_RUN_RESUME ? WVM_RUN_MALFORMED : take_setup(c, &r);
	if (reason == WVM_RUN_NO_REASON)
		reason = take_state(c, &r);
	if (reason != WVM_RUN_NO_REASON) {
		wvm_engine_refuse(engine, c->index, c->seq, reason);
		return;
	}
	take_wishes(c, &r);
	execute(c);
}

static void *slave_thread(void *arg)
{
	CPUState *cs = arg;
	struct slave_cpu *c = of(cs);

	rcu_register_thread();
	tcg_register_thread();
	qemu_mutex_lock_iothread();
	qemu_thread_get_self(cs->thread);
	cs->thread_id = qemu_get_thread_id();
	cs->can_do_io = 1;
	current_cpu = cs;
	cpu_thread_signal_created(cs);
	qemu_guest_random_seed_thread_part2(cs->random_seed);
	c->kind = wvm_qemu_state_kind(cs);
	/* QEMU resets all that it has before it starts the machine: no run before. */
	while (!runstate_is_running())
		qemu_cond_timedwait_iothread(cs->halt_cond, START_POLL_MS);
	qemu_mutex_unlock_iothread();
	for (;;)
		one_run(c);
	return NULL;
}

static void create_thread(CPUState *cs)
{
	char name[16];

	cs->tcg_cflags = (cs->cluster_index << CF_CLUSTER_SHIFT) | CF_PARALLEL;
	cs->thread = g_new0(QemuThread, 1);
	cs->halt_cond = g_new0(QemuCond, 1);
	qemu_cond_init(cs->halt_cond);
	snprintf(name, sizeof(name), "CPU %d/slave", cs->cpu_index);
	qemu_thread_create(cs->thread, name, slave_thread, cs, QEMU_THREAD_DETACHED);
}

/* From the helper thread of the channel: no lock, no guest memory. */
static void on_kick(void *opaque, unsigned index)
{
	cpu_exit(slaves[index].cs);
}

/*
 * QEMU stops and resumes vCPUs at a reset. Ours are stopped for it all the time: it never waits for
 * a thread that waits for its owner.
 */
static void kick_thread(CPUState *cs)
{
	cs->stop = false;
	cs->stopped = true;
	cpu_exit(cs);
}

void wvm_qemu_slave_accel_ops(AccelOpsClass *ops)
{
	ops->kick_vcpu_thread = kick_thread;
	ops->create_vcpu_thread = create_thread;
	ops->get_elapsed_ticks = wvm_qemu_ticks;
}

/* ---- the machine
 * ------------------------------------------------------------------------------------ */

static void create_cpu(MachineState *ms, const X86CPUTopoInfo *topology, unsigned index)
{
	Object *cpu = object_new(ms->cpu_type);

	slaves[index].index = index;
	slaves[index].cs = CPU(cpu);
	slaves[index].state = g_malloc0(wvm_qemu_layout()->bytes);
	slaves[index].now = g_malloc0(wvm_qemu_layout()->bytes);
	object_property_set_uint(cpu, "apic-id", x86_apicid_from_cpu_idx(topology, index),
				 &error_fatal);
	qdev_realize(DEVICE(cpu), NULL, &error_fatal);
	object_unref(cpu);
}

static void map_background(void)
{
	MemoryRegion *system = get_system_memory();
	uint64_t size;
	void *memory = wvm_qemu_map_vm(&size, &error_fatal);

	memory_region_init_ram_ptr(&ram, NULL, "wavevm-ram", size, memory);
	memory_region_init_io(&everything, NULL, &memory_ops, NULL, "wavevm-owner", UINT64_MAX);
	memory_region_init_io(&ports, NULL, &port_ops, NULL, "wavevm-owner-io", 65536);
	/* QEMU gives each x86 CPU a controller, and maps it: over it, what others must know of. */
	memory_region_init_io(&apics, NULL, &apic_ops, NULL, "wavevm-apic", APIC_SPACE_SIZE);
	memory_region_add_subregion_overlap(system, 0, &everything, -1);
	memory_region_add_subregion_overlap(system, APIC_DEFAULT_ADDRESS, &apics, 0x2000);
	memory_region_add_subregion(get_system_io(), 0, &ports);
}

/* There is nothing that could be finished in good order. */
static void on_shutdown(Notifier *n, void *cause)
{
	_exit(EXIT_SUCCESS);
}

static void slave_init(MachineState *ms)
{
	static Notifier shutdown = {.notify = on_shutdown};
	APICCommonClass *apic = APIC_COMMON_CLASS(object_class_by_name("apic"));
	X86CPUTopoInfo topology = {
		.dies_per_pkg = ms->smp.dies,
		.cores_per_die = ms->smp.cores,
		.threads_per_core = ms->smp.threads,
	};
	char err[160];
	unsigned i;

	if (!wvm_qemu_is_slave()) {
		error_report("-machine wavevm-slave is for wavevm_node_slave, which starts it; a "
			     "VM wants -machine q35");
		exit(EXIT_FAILURE);
	}
	plain_set_base = apic->set_base;
	apic->set_base = apic_set_base;
	cpu_count = ms->smp.cpus;
	x86_cpu_set_default_version(1); /* as the owner's board does */
	wvm_qemu_ticks_begin();
	slaves = g_new0(struct slave_cpu, cpu_count);
	map_background();
	/* Before kicks come: a run may be out already, for which we are started. */
	for (i = 0; i < cpu_count; i++)
		create_cpu(ms, &topology, i);
	if (wvm_engine_open(&engine, on_kick, NULL, err, sizeof(err))) {
		error_report("wavevm: %s", err);
		exit(EXIT_FAILURE);
	}
	if (wvm_engine_vcpus(engine) != cpu_count) {
		error_report("wavevm: -smp %u, but the slave has %u vCPUs", cpu_count,
			     wvm_engine_vcpus(engine));
		exit(EXIT_FAILURE);
	}
	qemu_register_shutdown_notifier(&shutdown);
}

static void slave_reset(MachineState *ms, ShutdownCause cause)
{
	static bool begun;

	/* The first one is QEMU's own. A triple fault asks for others: the owner decides on it. */
	if (!begun)
		qemu_devices_reset(cause);
	begun = true;
}

static void slave_machine(MachineClass *mc)
{
	mc->desc = "runs vCPUs for the owner of a WaveVM guest";
	mc->init = slave_init;
	mc->reset = slave_reset;
	mc->max_cpus = WVM_VCPU_MAX;
	mc->default_cpu_type = X86_CPU_TYPE_NAME("qemu64");
	mc->default_ram_size = 0;
	mc->no_serial = mc->no_parallel = mc->no_floppy = mc->no_cdrom = mc->no_sdcard = 1;
}

DEFINE_MACHINE("wavevm-slave", slave_machine)

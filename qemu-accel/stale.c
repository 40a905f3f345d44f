/*
 * Translated code of pages that others write (shared/PROTOCOL.md, Clients).
 *
 * TCG drops translated blocks (TBs) when a store of this process hits their page. Stores of
 * other nodes and programs are told to us by libwavevm instead: every page that code may be
 * read from is marked before it is, and what was marked and has changed is drained by each
 * vCPU before it begins its next block.
 *
 * Marking. TCG reads code through TLB entries that are valid for fetches, and no other way.
 * tlb_fill makes them, all of them: so our tlb_fill has QEMU's make one, and marks its
 * page. (Data accesses fill such entries, too: a page that cannot be executed costs nothing.)
 *
 * Draining. libwavevm calls on_changed() on a thread of its own, which sets exit_request in
 * every vCPU, takes no lock and waits for nobody. Whoever changes the page goes on after that. So
 * a vCPU may finish the block that it is in, as a processor may execute what it has fetched
 * already; the next block's first instructions leave the loop, and cpu_exec_enter() drains:
 * the TBs of each page are dropped (those that lie in two pages hang at both, and jump
 * caches and chains of all vCPUs forget them), and this vCPU's TLB, so that the page is marked
 * again when it is fetched from again.
 *
 * Until then this vCPU has TLB entries of pages whose mark is gone. It may translate from one,
 * but not execute the result: its exit_request is pending. Nor may others, who have drained
 * already and for whom the page may be current again: a block that this one, the laggard, has
 * translated from older bytes would look valid to them until its own drain drops it. (QEMU
 * itself has that window with stores of its own vCPUs before version 8.1.) So while there is a
 * laggard, those who are ahead of it look for TBs, and make them, in a part of the cache of
 * their own (TCG keeps what CF_CLUSTER tells apart); the laggard's drain lets them out again.
 *
 * Halted vCPUs drain when they go on. A vCPU that stands in a page fault, in whatever lock,
 * is only a laggard.
 */
#include "qemu/osdep.h"

#include "accel.h"
#include "cpu.h"
#if __has_include("exec/exec-all.h")
#include "exec/exec-all.h"
#endif
#if __has_include("exec/cputlb.h")
#include "exec/cputlb.h"
#endif
#if __has_include("exec/tb-flush.h")
#include "exec/tb-flush.h"
#endif
#if __has_include("exec/translation-block.h")
#include "exec/translation-block.h"
#endif
#include "hw/core/accel-cpu.h"
#if __has_include("accel/tcg/cpu-ops.h")
#include "accel/tcg/cpu-ops.h"
#else
#include "hw/core/tcg-cpu-ops.h"
#endif
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "step.h"

/* CF_CLUSTER has 8 bits; the vCPUs' own value is the highest. */
#define VCPUS_MAX 254
#define PAGES_MAX 64

struct vcpu {
	uint64_t cursor;    /* its thread's */
	uint64_t drained;   /* atomic: the cursor as others see it */
	uint32_t running;   /* atomic: it may translate and execute */
	uint32_t apart;     /* atomic: it is ahead of a laggard */
	uint32_t cluster;   /* its thread's: QEMU's own */
	bool cluster_known; /* its thread's */
	bool flushing;      /* its thread's: all TBs are to be dropped, which is queued */
};

static struct vcpu vcpus[VCPUS_MAX];
static int vcpu_count;
static struct TCGCPUOps ops;
static const struct TCGCPUOps *parent;
static void (*parent_class_init)(CPUClass *cc);
static void (*parent_init_ops)(struct AccelCPUClass *accel, CPUClass *cc);

static struct vcpu *vcpu_of(CPUState *cs)
{
	return &vcpus[cs->cpu_index];
}

/* ---- libwavevm's thread ---------------------------------------------------------------- */

static void on_changed(void *opaque)
{
	static bool registered;
	CPUState *cs;

	if (!registered)
		rcu_register_thread();
	registered = true;
	WITH_RCU_READ_LOCK_GUARD()
	{
		CPU_FOREACH(cs)
		{
			cpu_exit(cs);
		}
	}
}

/* ---- draining -------------------------------------------------------------------------- */

/* tb_invalidate_phys_range() got a further argument in the middle of QEMU's versions. */
typedef void drop_fn(tb_page_addr_t start, tb_page_addr_t end);
typedef void drop_for_cpu_fn(CPUState *cs, tb_page_addr_t start, tb_page_addr_t last);

static void drop_blocks(void *host)
{
	void *drop = tb_invalidate_phys_range;
	ram_addr_t ram = qemu_ram_addr_from_host(host);
	ram_addr_t end = ram + WVM_PAGE_SIZE - (QEMU_VERSION_MAJOR >= 8);

	if (ram == RAM_ADDR_INVALID)
		return;
	if (__builtin_types_compatible_p(__typeof__(tb_invalidate_phys_range), drop_for_cpu_fn))
		((drop_for_cpu_fn *)drop)(NULL, ram, end);
	else
		((drop_fn *)drop)(ram, end);
}

/*
 * With the others stopped the TBs are gone at once. Else by work that is queued for this
 * vCPU, which makes it leave its loop before the next block: until it comes back it counts
 * as one who has not drained.
 */
static void drop_all(CPUState *cs, struct vcpu *v)
{
	v->flushing = !cpu_in_exclusive_context(cs);
	tb_flush(cs);
	tlb_flush(cs);
}

/* Whether others see this vCPU further than before. Its thread; needs no lock. */
static bool drain(CPUState *cs, struct vcpu *v)
{
	uint64_t before = v->cursor;
	void *pages[PAGES_MAX];
	int n;

	RCU_READ_LOCK_GUARD();
	do {
		n = wvm_code_drain(wvm_qemu_cluster(), &v->cursor, pages, PAGES_MAX);
		for (int i = 0; i < n; i++)
			drop_blocks(pages[i]);
	} while (n == PAGES_MAX);
	if (n < 0)
		drop_all(cs, v);
	else if (v->cursor != before)
		tlb_flush(cs);
	if (v->flushing || v->drained == v->cursor)
		return false;
	qatomic_store_release(&v->drained, v->cursor);
	return true;
}

/* ---- who is ahead of whom -------------------------------------------------------------- */

static bool has_laggard(const struct vcpu *v)
{
	for (int i = 0; i < vcpu_count; i++) {
		struct vcpu *other = &vcpus[i];

		if (other != v && qatomic_load_acquire(&other->running) &&
		    (int64_t)(qatomic_load_acquire(&other->drained) - v->cursor) < 0)
			return true;
	}
	return false;
}

/* They leave their loops, and look anew. Nobody is a laggard because of us any more. */
static void call_those_apart(CPUState *self)
{
	CPUState *cs;

	smp_mb();
	WITH_RCU_READ_LOCK_GUARD()
	{
		CPU_FOREACH(cs)
		{
			if (cs != self && qatomic_read(&vcpu_of(cs)->apart))
				cpu_exit(cs);
		}
	}
}

static void set_apart(CPUState *cs, struct vcpu *v, bool apart)
{
	uint32_t cluster = apart ? (uint32_t)cs->cpu_index << CF_CLUSTER_SHIFT : v->cluster;

	cs->tcg_cflags = (cs->tcg_cflags & ~CF_CLUSTER_MASK) | cluster;
	if (cs->cflags_next_tb != (uint32_t)-1)
		cs->cflags_next_tb = (cs->cflags_next_tb & ~CF_CLUSTER_MASK) | cluster;
	qatomic_set(&v->apart, apart);
}

/*
 * QEMU does without atomic accesses and barriers where no two vCPUs run at once (-smp 1,
 * thread=single). Here other nodes always do.
 */
static void prepare_cflags(CPUState *cs, struct vcpu *v)
{
	cs->tcg_cflags |= CF_PARALLEL;
	if (!v->cluster_known)
		v->cluster = cs->tcg_cflags & CF_CLUSTER_MASK;
	v->cluster_known = true;
}

static void exec_enter(CPUState *cs)
{
	struct vcpu *v = vcpu_of(cs);
	bool any;

	parent->cpu_exec_enter(cs);
	wvm_qemu_step_enter(cs, cpu_in_exclusive_context(cs));
	/*
	 * A step that has all other vCPUs stopped executes what was looked up before. If that
	 * had changed since, then either exit_request is set, and it is not executed, or
	 * whoever changes it does not go on yet.
	 */
	if (cpu_in_exclusive_context(cs))
		return;
	prepare_cflags(cs, v);
	/* Who does not see us running has drained no more than we are about to. */
	qatomic_set(&v->running, 1);
	smp_mb();
	v->flushing = false; /* what was queued is done before a vCPU executes again */
	if (drain(cs, v))
		call_those_apart(cs);
	any = has_laggard(v);
	if (any != v->apart)
		set_apart(cs, v, any);
	/* The laggard may have drained while we looked, and not have seen that we are apart. */
	smp_mb();
	if (any && !has_laggard(v))
		cpu_exit(cs);
}

static void exec_exit(CPUState *cs)
{
	struct vcpu *v = vcpu_of(cs);

	parent->cpu_exec_exit(cs);
	wvm_qemu_step_exit();
	/* What the step has translated while it was behind must be gone before others run. */
	if (cpu_in_exclusive_context(cs))
		drain(cs, v);
	else
		qatomic_store_release(&v->running, 0);
	call_those_apart(cs);
}

/* ---- marking --------------------------------------------------------------------------- */

/* Later versions keep the function that does this to themselves, but not the table. */
static const CPUTLBEntry *entry_of(CPUState *cs, vaddr address, int mmu_idx)
{
#if QEMU_VERSION_MAJOR >= 9
	const CPUTLBDescFast *f = &cs->neg.tlb.f[mmu_idx];
#else
	const CPUTLBDescFast *f = &env_tlb((CPUArchState *)cs->env_ptr)->f[mmu_idx];
#endif

	return &f->table[(address >> TARGET_PAGE_BITS) & (f->mask >> CPU_TLB_ENTRY_BITS)];
}

/* Nested walks and what is between QEMU and physical memory are no fetches. */
static bool is_of_fetches(int mmu_idx)
{
	return mmu_idx != MMU_PHYS_IDX && mmu_idx != MMU_NESTED_IDX;
}

/* One that is for a part of a page is filled anew each time, and has TLB_INVALID_MASK. */
static bool is_ram(uint64_t entry)
{
	return entry != (target_ulong)-1 && !(entry & TLB_MMIO);
}

/* What is not of the cluster is not for us: no error. */
static void use_entry(CPUState *cs, vaddr address, MMUAccessType access, int mmu_idx)
{
	const CPUTLBEntry *e = entry_of(cs, address, mmu_idx);
	void *page = (void *)(uintptr_t)((address & TARGET_PAGE_MASK) + e->addend);

	if (is_ram(e->addr_code))
		(void)wvm_code_mark(wvm_qemu_cluster(), page);
	if (access != MMU_INST_FETCH && (is_ram(e->addr_read) || is_ram(e->addr_write)))
		wvm_qemu_step_fill(page);
}

static bool fill(CPUState *cs, vaddr address, int size, MMUAccessType access, int mmu_idx,
		 bool probe, uintptr_t retaddr)
{
	/* Raises the guest's exception, if there is one, without coming back. */
	if (!parent->tlb_fill(cs, address, size, access, mmu_idx, probe, retaddr))
		return false;
	if (is_of_fetches(mmu_idx))
		use_entry(cs, address, access, mmu_idx);
	return true;
}

/* ---- our place between QEMU and its CPU classes ---------------------------------------- */

static void watch(void)
{
	int ret;

	if (current_machine->smp.max_cpus > VCPUS_MAX) {
		error_report("wavevm: backend=tcg runs at most %d vCPUs", VCPUS_MAX);
		exit(EXIT_FAILURE);
	}
	vcpu_count = current_machine->smp.max_cpus;
	ret = wvm_code_watch(wvm_qemu_cluster(), on_changed, NULL);
	if (ret) {
		error_report("wavevm: the master does not watch translated code: %s",
			     strerror(-ret));
		exit(EXIT_FAILURE);
	}
}

/* Once per CPU model; all of a target have the same operations. */
static void init_ops(struct AccelCPUClass *accel, CPUClass *cc)
{
	parent_init_ops(accel, cc);
	if (!parent) {
		parent = cc->tcg_ops;
		ops = *parent;
		ops.tlb_fill = fill;
		ops.cpu_exec_enter = exec_enter;
		ops.cpu_exec_exit = exec_exit;
		watch();
	}
	g_assert(cc->tcg_ops == parent);
	cc->tcg_ops = &ops;
}

static void cpu_class_init(CPUClass *cc)
{
	parent_class_init(cc);
	if (cc->init_accel_cpu == init_ops)
		return;
	parent_init_ops = cc->init_accel_cpu;
	cc->init_accel_cpu = init_ops;
}

void wvm_qemu_stale_class_init(ObjectClass *oc, void *data)
{
	AccelCPUClass *acc = ACCEL_CPU_CLASS(oc);

	parent_class_init = acc->cpu_class_init;
	acc->cpu_class_init = cpu_class_init;
}

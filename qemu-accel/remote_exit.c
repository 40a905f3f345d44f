/* What the answers of a remote vCPU's slave ask of the owner: accesses, and its state. */
#include "qemu/osdep.h"

#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/i386/apic.h"
#include "hw/i386/apic_internal.h"
#include "hw/i386/ioapic.h"
#include "qemu/error-report.h"
#include "sysemu/cpus.h"
#include "sysemu/runstate.h"

#include "remote.h"

void wvm_qemu_remote_lost(struct wvm_qemu_remote *r, const char *what)
{
	if (r->lost)
		return;
	r->lost = true;
	wvm_qemu_remote_say(r);
	error_report("wavevm: vCPU %d on node %u: %s; the VM is stopped: see to the slave there "
		     "(wavevm_node_slave), and start the VM anew",
		     r->cs->cpu_index, r->node, what);
	vm_stop(RUN_STATE_INTERNAL_ERROR);
}

/* One access to ports or memory; what it reads goes with the run that resumes. */
static bool access_space(struct wvm_qemu_remote *r, const struct wvm_vcpu_exit *e)
{
	bool write = e->flags & WVM_VCPU_EXIT_WRITE, port = e->kind == WVM_VCPU_EXIT_PIO;
	AddressSpace *as = port ? &address_space_io : r->cs->as;
	MemTxAttrs attrs = cpu_get_mem_attrs(&X86_CPU(r->cs)->env);

	if (!e->size || e->size > sizeof(r->access) || e->count != 1 ||
	    (write && e->data_len != e->size))
		return false;
	if (write)
		memcpy(r->access, e->data, e->size);
	/* A failed access reads as what the device gave, as for a local vCPU. */
	address_space_rw(as, e->at, attrs, r->access, e->size, write);
	r->access_len = write ? 0 : e->size;
	return true;
}

/* A register of the shadow's APIC, as if the vCPU had written to it here. */
static void write_apic(struct wvm_qemu_remote *r, hwaddr at, uint32_t value)
{
	APICCommonState *s = APIC_COMMON(X86_CPU(r->cs)->apic_state);

	memory_region_dispatch_write(&s->io_memory, at, value, MO_32 | MO_LE,
				     MEMTXATTRS_UNSPECIFIED);
}

static bool is_told(uint64_t at)
{
	switch (at - WVM_QEMU_APIC_WRITE) {
	case WVM_QEMU_APIC_ID:
	case WVM_QEMU_APIC_LDR:
	case WVM_QEMU_APIC_DFR:
	case WVM_QEMU_APIC_SVR:
	case WVM_QEMU_APIC_LINT0:
	case WVM_QEMU_APIC_LINT1: return true;
	default: return false;
	}
}

/* Its state is with the vCPU; this is what others see of it. */
static bool access_apic(struct wvm_qemu_remote *r, const struct wvm_vcpu_exit *e)
{
	r->access_len = 0;
	if (!(e->flags & WVM_VCPU_EXIT_WRITE))
		return false;
	if (e->at == WVM_QEMU_APIC_BASE && e->data_len == 8) {
		cpu_set_apic_base(X86_CPU(r->cs)->apic_state, ldq_le_p(e->data));
	} else if (e->at == WVM_QEMU_APIC_EOI && e->data_len == 1) {
		ioapic_eoi_broadcast(e->data[0]);
	} else if (e->at == WVM_QEMU_APIC_SEND && e->data_len == 8) {
		write_apic(r, WVM_QEMU_APIC_ICR + 0x10, ldl_le_p(e->data + 4));
		write_apic(r, WVM_QEMU_APIC_ICR, ldl_le_p(e->data));
	} else if (is_told(e->at) && e->data_len == 4) {
		write_apic(r, e->at - WVM_QEMU_APIC_WRITE, ldl_le_p(e->data));
	} else {
		return false;
	}
	return true;
}

/* Without it the answer must be one from within an instruction. */
static bool take_state(struct wvm_qemu_remote *r, const struct wvm_vcpu_exit *e, uint64_t seq)
{
	uint32_t changed;

	if (e->base != r->base ||
	    wvm_vcpu_apply(wvm_qemu_layout(), r->state, e->state, e->state_len, &changed) ||
	    !wvm_qemu_state_load(r->cs, r->state))
		return false;
	r->base = seq;
	return true;
}

static bool at_boundary(struct wvm_qemu_remote *r, const struct wvm_vcpu_exit *e)
{
	switch (e->kind) {
	case WVM_VCPU_EXIT_KICKED:
	case WVM_VCPU_EXIT_WINDOW: return true;
	case WVM_VCPU_EXIT_HLT: r->cs->halted = 1; return true;
	case WVM_VCPU_EXIT_SHUTDOWN: /* as a local one's triple fault */
		r->cs->halted = 1;
		qemu_system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
		return true;
	default: return false;
	}
}

bool wvm_qemu_remote_exit(struct wvm_qemu_remote *r, const struct wvm_vcpu_exit *e, uint64_t seq)
{
	if (e->kind == WVM_VCPU_EXIT_ERROR) {
		g_autofree char *why = g_strndup((const char *)e->data, e->data_len);

		wvm_qemu_remote_lost(r, why);
		return false;
	}
	r->midway = e->flags & WVM_VCPU_EXIT_MIDWAY;
	if (e->flags & WVM_VCPU_EXIT_STATE)
		return !r->midway && take_state(r, e, seq) && at_boundary(r, e);
	switch (r->midway ? e->kind : 0) {
	case WVM_VCPU_EXIT_PIO:
	case WVM_VCPU_EXIT_MMIO: return access_space(r, e);
	case WVM_VCPU_EXIT_APIC: return access_apic(r, e);
	default: return false;
	}
}

/* What the answers of a remote vCPU's slave ask of the owner: accesses, and its state. */
#include "qemu/osdep.h"

#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/i386/apic.h"
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

static bool access_apic(struct wvm_qemu_remote *r, const struct wvm_vcpu_exit *e)
{
	DeviceState *apic = X86_CPU(r->cs)->apic_state;
	bool write = e->flags & WVM_VCPU_EXIT_WRITE;

	r->access_len = 0;
	if (e->at == WVM_QEMU_APIC_TPR && write && e->data_len == 1) {
		cpu_set_apic_tpr(apic, e->data[0]);
	} else if (e->at == WVM_QEMU_APIC_TPR && !write) {
		r->access[0] = cpu_get_apic_tpr(apic);
		r->access_len = 1;
	} else if (e->at == WVM_QEMU_APIC_BASE && write && e->data_len == 8) {
		cpu_set_apic_base(apic, ldq_le_p(e->data));
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

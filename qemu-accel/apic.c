/*
 * A vCPU's local interrupt controller as part of its state: where the vCPU runs, there its
 * timer ticks and its interrupts are accepted and ended, without a word to the owner.
 *
 *	HELD  here: QEMU's own APIC is the vCPU's, its timer runs
 *	GIVEN it went with a run (owner) or an answer (slave); the timer is stopped here. What is
 *	      raised here meanwhile (the owner's devices, other vCPUs) gathers in an IRR that was
 *	      left empty, and is added when the APIC comes back
 */
#include "qemu/osdep.h"

#include "cpu.h"
#include "hw/i386/apic.h"
#include "hw/i386/apic_internal.h"
#include "qemu/timer.h"

#include "vcpu.h"

static APICCommonState *of(CPUState *cs)
{
	return APIC_COMMON(X86_CPU(cs)->apic_state);
}

void wvm_qemu_apic_give(CPUState *cs, struct wvm_qemu_apic *a)
{
	APICCommonState *s = of(cs);
	int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);

	*a = (struct wvm_qemu_apic){
		.base = s->apicbase,
		.spurious = s->spurious_vec,
		.error = s->esr,
		.divide = s->divide_conf,
		.initial_count = s->initial_count,
		.icr = {s->icr[0], s->icr[1]},
		.id = s->id,
		.tpr = s->tpr,
		.log_dest = s->log_dest,
		.dest_mode = s->dest_mode,
		.count_shift = s->count_shift,
		.given = wvm_qemu_ticks(),
		.loaded_ago = now - s->initial_count_load_time,
		.due_in = s->timer_expiry == -1 ? INT64_MAX : s->timer_expiry - now,
	};
	QEMU_BUILD_BUG_ON(sizeof(a->lvt) != sizeof(s->lvt));
	memcpy(a->lvt, s->lvt, sizeof(a->lvt));
	memcpy(a->isr, s->isr, sizeof(a->isr));
	memcpy(a->tmr, s->tmr, sizeof(a->tmr));
	memcpy(a->irr, s->irr, sizeof(a->irr));
	memset(s->irr, 0, sizeof(s->irr));
	timer_del(s->timer);
	qatomic_and(&cs->interrupt_request, ~(CPU_INTERRUPT_POLL | CPU_INTERRUPT_HARD));
}

/* Bounds of what comes from elsewhere, in ns: the longest count is 2^32 << 7. */
#define DUE_MOST   (INT64_C(1) << 40)
#define AGO_MOST   (INT64_C(1) << 61)
#define SINCE_MOST INT64_C(1000000000)

static int64_t within(int64_t value, int64_t most)
{
	return MIN(MAX(value, 0), most);
}

/* What was raised here meanwhile is newer, and may be of another trigger mode. */
static void add_requests(APICCommonState *s, const struct wvm_qemu_apic *a)
{
	for (int i = 0; i < 8; i++) {
		uint32_t raised = s->irr[i];

		s->irr[i] = a->irr[i] | raised;
		s->tmr[i] = (a->tmr[i] & ~raised) | (s->tmr[i] & raised);
		s->isr[i] = a->isr[i];
	}
}

void wvm_qemu_apic_take(CPUState *cs, const struct wvm_qemu_apic *a)
{
	APICCommonState *s = of(cs);
	int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
	int64_t since = within(wvm_qemu_ticks_ns(wvm_qemu_ticks() - a->given), SINCE_MOST);

	s->apicbase = a->base;
	s->spurious_vec = a->spurious;
	s->esr = a->error;
	s->divide_conf = a->divide;
	s->initial_count = a->initial_count;
	s->icr[0] = a->icr[0];
	s->icr[1] = a->icr[1];
	s->id = a->id;
	s->tpr = a->tpr;
	s->log_dest = a->log_dest;
	s->dest_mode = a->dest_mode;
	s->count_shift = a->count_shift & 7;
	memcpy(s->lvt, a->lvt, sizeof(s->lvt));
	add_requests(s, a);
	s->initial_count_load_time = now - since - within(a->loaded_ago, AGO_MOST);
	s->timer_expiry = s->next_time = -1;
	timer_del(s->timer);
	/* A late one comes once, however many periods it has missed. */
	if (a->due_in != INT64_MAX) {
		s->timer_expiry = s->next_time = now + within(a->due_in - since, DUE_MOST);
		timer_mod(s->timer, s->next_time);
	}
	apic_poll_irq(DEVICE(s));
}

bool wvm_qemu_apic_raised(CPUState *cs)
{
	APICCommonState *s = of(cs);
	uint32_t any = 0;

	for (int i = 0; i < 8; i++)
		any |= s->irr[i];
	return any;
}

#include "roles/slave/kvm_run.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RFLAGS_IF 0x200u

static __thread char line[200];

int wvm_kvm_cpu_open(struct wvm_kvm_cpu *c, struct wvm_kvm *kvm, unsigned index)
{
	*c = (struct wvm_kvm_cpu){.held = calloc(1, wvm_kvm_layout()->bytes)};
	if (!c->held)
		return -ENOMEM;
	c->v = wvm_kvm_vcpu_open(kvm, index, NULL);
	return c->v ? 0 : -EIO;
}

void wvm_kvm_cpu_close(struct wvm_kvm_cpu *c)
{
	wvm_kvm_vcpu_close(c->v);
	free(c->held);
}

void wvm_kvm_cpu_spoil(struct wvm_kvm_cpu *c)
{
	c->held_seq = 0;
	c->midway = c->stays = false;
}

/* ---- what the run brings --------------------------------------------------------------- */

static bool makes_sense(const struct wvm_kvm_cpu *c, const struct wvm_vcpu_run *r)
{
	bool resume = r->flags & WVM_VCPU_RUN_RESUME, inject = r->flags & WVM_VCPU_RUN_INJECT;

	if (resume != c->midway)
		return false;
	/* Within an instruction nothing else can be done; an interrupt comes with the next run. */
	if (resume && (inject || r->state_len || r->flags & WVM_VCPU_RUN_WHOLE))
		return false;
	if (inject && r->flags & WVM_VCPU_RUN_GET)
		return false;
	/* A difference from a state that is not the processor's any more. */
	if (c->stays && r->state_len)
		return false;
	return !resume || (c->exit.write ? !r->data_len : r->data_len == c->exit.bytes);
}

/* An interrupt that the processor cannot take yet would be one that KVM cannot enter it with. */
static bool takes_interrupts(struct wvm_kvm_cpu *c)
{
	uint8_t *state = c->stays ? wvm_kvm_state(c->v) : c->held;
	const struct kvm_regs *regs = wvm_kvm_section(state, WVM_KVM_REGS);
	const struct kvm_vcpu_events *e = wvm_kvm_section(state, WVM_KVM_EVENTS);

	return regs->rflags & RFLAGS_IF && !e->interrupt.shadow && !e->interrupt.injected &&
	       !e->exception.injected && !e->exception.pending && !e->nmi.injected;
}

static void copy_sections(void *to, void *from, uint32_t sections)
{
	const struct wvm_vcpu_layout *l = wvm_kvm_layout();

	for (unsigned i = 0; i < l->count; i++)
		if (sections >> i & 1)
			memcpy((uint8_t *)to + l->at[i], (uint8_t *)from + l->at[i], l->len[i]);
}

unsigned wvm_kvm_cpu_take(struct wvm_kvm_cpu *c, const struct wvm_vcpu_run *r, uint64_t seq,
			  const char **text)
{
	const struct wvm_vcpu_layout *l = wvm_kvm_layout();
	bool whole = r->flags & WVM_VCPU_RUN_WHOLE;
	uint32_t changed = 0;

	if (r->layout != wvm_kvm_layout_hash())
		return WVM_RUN_MALFORMED;
	/* One that moved away with an access open has been started anew by its owner. */
	if (whole && !(r->flags & WVM_VCPU_RUN_RESUME))
		wvm_kvm_cpu_spoil(c);
	if (!makes_sense(c, r))
		return WVM_RUN_MALFORMED;
	if (!whole && (!c->held_seq || r->base != c->held_seq))
		return WVM_RUN_BASE;
	if (whole)
		memset(c->held, 0, l->bytes);
	if (wvm_vcpu_apply(l, c->held, r->state, r->state_len, &changed))
		return WVM_RUN_MALFORMED;
	if (whole)
		changed = WVM_KVM_ALL;
	if (changed) {
		copy_sections(wvm_kvm_state(c->v), c->held, changed);
		c->held_seq = seq;
	}
	if (r->flags & WVM_VCPU_RUN_INJECT && !takes_interrupts(c)) {
		c->held_seq = changed ? 0 : c->held_seq; /* KVM has it not */
		return WVM_RUN_MALFORMED;
	}
	if (wvm_kvm_set(c->v, changed) || (r->ticks && wvm_kvm_ticks_reach(c->v, r->ticks)))
		*text = wvm_kvm_error();
	return WVM_RUN_NO_REASON;
}

/* ---- executing ------------------------------------------------------------------------- */

static const uint8_t kinds[] = {
	[WVM_KVM_EXIT_KICKED] = WVM_VCPU_EXIT_KICKED,
	[WVM_KVM_EXIT_PIO] = WVM_VCPU_EXIT_PIO,
	[WVM_KVM_EXIT_MMIO] = WVM_VCPU_EXIT_MMIO,
	[WVM_KVM_EXIT_HLT] = WVM_VCPU_EXIT_HLT,
	[WVM_KVM_EXIT_MSR] = WVM_VCPU_EXIT_MSR,
	[WVM_KVM_EXIT_WINDOW] = WVM_VCPU_EXIT_WINDOW,
	[WVM_KVM_EXIT_SHUTDOWN] = WVM_VCPU_EXIT_SHUTDOWN,
	[WVM_KVM_EXIT_ERROR] = WVM_VCPU_EXIT_ERROR,
};

static bool has_size(unsigned bytes)
{
	return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
}

static void say_access(struct wvm_kvm_cpu *c, struct wvm_vcpu_exit *e, const char **text)
{
	const struct wvm_kvm_exit *x = &c->exit;
	bool msr = e->kind == WVM_VCPU_EXIT_MSR;

	e->flags |= WVM_VCPU_EXIT_MIDWAY | (x->write ? WVM_VCPU_EXIT_WRITE : 0);
	e->at = x->at;
	e->size = msr ? 0 : x->size;
	e->count = msr ? 0 : x->count;
	if (x->write) {
		e->data = x->data;
		e->data_len = x->bytes;
	}
	if (!msr && (!has_size(x->size) || x->bytes > WVM_KVM_DATA_MAX)) {
		snprintf(line, sizeof(line),
			 "an access of %u bytes at %#llx, which no device takes", x->bytes,
			 (unsigned long long)x->at);
		*text = line;
	}
}

/* What KVM cannot go on with: its own words, or the memory that it did not get. */
static void say_trouble(struct wvm_kvm_cpu *c, int error, const char **text)
{
	if (error)
		snprintf(line, sizeof(line), "%s", wvm_kvm_error());
	else
		snprintf(line, sizeof(line), "KVM cannot go on (exit %u, detail %#x)",
			 c->exit.detail >> 16, c->exit.detail & 0xffff);
	*text = line;
}

static bool wanted_out(struct wvm_kvm_cpu *c, const bool *kicked)
{
	return __atomic_load_n(kicked, __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&c->leave, __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&c->lost, __ATOMIC_SEQ_CST);
}

static int enter(struct wvm_kvm_cpu *c, const struct wvm_vcpu_run *r, const bool *kicked)
{
	int irq = r->flags & WVM_VCPU_RUN_INJECT ? r->vector : -1, error;

	/* A kick of a former run is none of this one; one of this run has set `kicked` before. */
	__atomic_store_n(&c->leave, false, __ATOMIC_SEQ_CST);
	wvm_kvm_unkick(c->v);
	do {
		if (wanted_out(c, kicked))
			wvm_kvm_kick(c->v);
		error = wvm_kvm_run(c->v, irq, r->flags & WVM_VCPU_RUN_WINDOW, &c->exit);
		irq = -1; /* KVM has it */
	} while (!error && c->exit.kind == WVM_KVM_EXIT_KICKED && !wanted_out(c, kicked));
	return error;
}

void wvm_kvm_cpu_execute(struct wvm_kvm_cpu *c, const struct wvm_vcpu_run *r, const bool *kicked,
			 struct wvm_vcpu_exit *e, const char **text)
{
	int error = 0;

	*e = (struct wvm_vcpu_exit){.kind = WVM_VCPU_EXIT_KICKED};
	c->may_stay = r->flags & WVM_VCPU_RUN_STAY;
	if (r->data_len)
		memcpy(c->exit.data, r->data, r->data_len);
	if (r->flags & WVM_VCPU_RUN_GET) {
		error = r->flags & WVM_VCPU_RUN_RESUME ? wvm_kvm_complete(c->v) : 0;
		c->exit = (struct wvm_kvm_exit){.kind = WVM_KVM_EXIT_KICKED};
	} else {
		error = enter(c, r, kicked);
	}
	c->midway = false;
	if (__atomic_exchange_n(&c->lost, false, __ATOMIC_SEQ_CST)) {
		*text = "memory that cannot be had";
		return;
	}
	if (error || c->exit.kind == WVM_KVM_EXIT_ERROR) {
		say_trouble(c, error, text);
		return;
	}
	e->kind = kinds[c->exit.kind];
	c->midway = e->kind == WVM_VCPU_EXIT_PIO || e->kind == WVM_VCPU_EXIT_MMIO ||
		    e->kind == WVM_VCPU_EXIT_MSR;
	if (c->midway)
		say_access(c, e, text);
}

/* ---- the answer ------------------------------------------------------------------------ */

static bool stays(const struct wvm_kvm_cpu *c, const struct wvm_vcpu_exit *e)
{
	return c->may_stay && (e->kind == WVM_VCPU_EXIT_HLT || e->kind == WVM_VCPU_EXIT_WINDOW ||
			       e->kind == WVM_VCPU_EXIT_KICKED);
}

/* Where the state does not go along, what is at hand without a call for each of its sections. */
static int say_registers(struct wvm_kvm_cpu *c, struct wvm_vcpu_exit *e)
{
	const uint32_t shared = UINT32_C(1) << WVM_KVM_REGS | UINT32_C(1) << WVM_KVM_EVENTS;
	const struct kvm_regs *regs;
	int r = wvm_kvm_get(c->v, c->midway || c->stays ? shared : WVM_KVM_ALL);

	if (r)
		return r;
	regs = wvm_kvm_section(wvm_kvm_state(c->v), WVM_KVM_REGS);
	e->ip = regs->rip;
	if (regs->rflags & RFLAGS_IF)
		e->flags |= WVM_VCPU_EXIT_IF;
	if (c->midway || c->stays) {
		e->ticks = wvm_kvm_ticks(c->v);
		return 0;
	}
	e->ticks = *(uint64_t *)wvm_kvm_section(wvm_kvm_state(c->v), WVM_KVM_MSRS);
	return 0;
}

size_t wvm_kvm_cpu_answer(struct wvm_kvm_cpu *c, uint64_t seq, struct wvm_vcpu_exit *e,
			  uint8_t *out, size_t room, const char **text)
{
	const struct wvm_vcpu_layout *l = wvm_kvm_layout();
	uint8_t *at = out + wvm_vcpu_exit_state_at();
	uint64_t base = c->held_seq;
	size_t used;

	c->stays = stays(c, e);
	if (say_registers(c, e)) {
		*text = wvm_kvm_error();
		return 0;
	}
	if (c->stays)
		e->flags |= WVM_VCPU_EXIT_STAYS | (takes_interrupts(c) ? WVM_VCPU_EXIT_OPEN : 0);
	if (c->midway || c->stays)
		return wvm_vcpu_exit_encode(out, room, e);
	room -= wvm_vcpu_exit_state_at();
	used = wvm_vcpu_delta(l, c->held, wvm_kvm_state(c->v), WVM_KVM_ALL, at, room);
	if (used > room) {
		*text = "the state has no room in an answer";
		return 0;
	}
	memcpy(c->held, wvm_kvm_state(c->v), l->bytes);
	c->held_seq = seq;
	e->flags |= WVM_VCPU_EXIT_STATE | (takes_interrupts(c) ? WVM_VCPU_EXIT_OPEN : 0);
	e->base = base;
	e->state_len = (uint32_t)used;
	return wvm_vcpu_exit_encode(out, room + wvm_vcpu_exit_state_at(), e);
}

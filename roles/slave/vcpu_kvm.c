#include "roles/slave/vcpu_kvm.h"

#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#define IF_BIT   UINT64_C(0x200)
#define READINGS 4u

/* What comes of a step besides a refusal. */
enum outcome { GO_ON, REFUSED, FAILED }; /* FAILED: wvm_kvm_error() */

/* The best of some readings: one may have been interrupted. It is never behind. */
static bool follow_ticks(struct wvm_vcpu_kvm *c)
{
	uint64_t best = UINT64_MAX;

	c->ticks_ahead = 0;
	for (unsigned i = 0; c->own_ticks && i < READINGS; i++) {
		uint64_t before = __rdtsc(), ticks, took;

		if (wvm_kvm_ticks(c->v, &ticks))
			return false;
		took = __rdtsc() - before;
		if (took < best) {
			best = took;
			c->ticks_ahead = ticks - before;
		}
	}
	return true;
}

static uint64_t ticks_now(const struct wvm_vcpu_kvm *c)
{
	return __rdtsc() + c->ticks_ahead;
}

/* The guest's counter never goes back for what one processor tells another. */
static bool reach_ticks(struct wvm_vcpu_kvm *c, uint64_t least)
{
	if (!c->own_ticks || (int64_t)(least - ticks_now(c)) <= 0)
		return true;
	return !wvm_kvm_set_ticks(c->v, least) && follow_ticks(c);
}

bool wvm_vcpu_kvm_init(struct wvm_vcpu_kvm *c, struct wvm_kvm_vcpu *v)
{
	*c = (struct wvm_vcpu_kvm){.v = v};
	c->common = calloc(1, wvm_kvm_layout()->bytes);
	c->own_ticks = wvm_kvm_own_ticks(v);
	if (c->common && follow_ticks(c))
		return true;
	wvm_vcpu_kvm_free(c);
	return false;
}

void wvm_vcpu_kvm_free(struct wvm_vcpu_kvm *c)
{
	free(c->common);
	c->common = NULL;
}

/* ---- what the run carries -------------------------------------------------------------- */

/* Whether the run fits to where the processor is. Nothing has been changed yet. */
static enum wvm_run_reason check(const struct wvm_vcpu_kvm *c, const struct wvm_vcpu_run *r)
{
	bool resume = r->flags & WVM_VCPU_RUN_RESUME, inject = r->flags & WVM_VCPU_RUN_INJECT;
	uint32_t reads = c->exit.write ? 0 : c->exit.bytes;

	if (r->layout != wvm_kvm_layout_hash())
		return WVM_RUN_MALFORMED;
	/* A slave that has forgotten the instruction has forgotten the state, too. */
	if (resume && !c->midway)
		return c->base == r->base && c->base ? WVM_RUN_MALFORMED : WVM_RUN_BASE;
	if (c->midway && (!resume || r->state_len || r->flags & WVM_VCPU_RUN_WHOLE))
		return WVM_RUN_MALFORMED;
	if (resume && r->data_len != reads)
		return WVM_RUN_MALFORMED;
	if (inject && r->flags & WVM_VCPU_RUN_GET)
		return WVM_RUN_MALFORMED;
	if (!(r->flags & WVM_VCPU_RUN_WHOLE) && (!c->base || r->base != c->base))
		return WVM_RUN_BASE;
	return WVM_RUN_NO_REASON;
}

static enum outcome take_state(struct wvm_vcpu_kvm *c, const struct wvm_job *job,
			       enum wvm_run_reason *reason)
{
	const struct wvm_vcpu_layout *layout = wvm_kvm_layout();
	const struct wvm_vcpu_run *r = &job->head;
	bool whole = r->flags & WVM_VCPU_RUN_WHOLE;
	uint64_t before = ticks_now(c);
	uint8_t *state = wvm_kvm_state(c->v);
	uint32_t changed;

	if (!whole && !r->state_len)
		return GO_ON;
	if (whole)
		memset(c->common, 0, layout->bytes);
	if (wvm_vcpu_apply(layout, c->common, r->state, r->state_len, &changed)) {
		c->base = whole ? 0 : c->base;
		*reason = WVM_RUN_MALFORMED;
		return REFUSED;
	}
	changed = whole ? WVM_KVM_ALL : changed;
	memcpy(state, c->common, layout->bytes);
	c->base = 0; /* what KVM has taken of it is not known if it does not take all */
	if (wvm_kvm_set(c->v, changed))
		return FAILED;
	c->base = job->seq;
	if (!(changed >> WVM_KVM_MSRS & 1))
		return GO_ON;
	/* The counter has become that of the state, which is an old one. */
	if (!follow_ticks(c) || (!whole && !reach_ticks(c, before)))
		return FAILED;
	return GO_ON;
}

/* ---- the answer ------------------------------------------------------------------------ */

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

static bool is_access(const struct wvm_kvm_exit *x)
{
	return x->kind == WVM_KVM_EXIT_PIO || x->kind == WVM_KVM_EXIT_MMIO;
}

static void say_access(struct wvm_vcpu_exit *e, const struct wvm_kvm_exit *x)
{
	e->at = x->at;
	if (is_access(x)) {
		e->size = x->size;
		e->count = x->kind == WVM_KVM_EXIT_PIO ? x->count : 1;
	}
	if (x->write) {
		e->flags |= WVM_VCPU_EXIT_WRITE;
		e->data = x->data;
		e->data_len = x->bytes;
	}
}

/* The difference from what both sides have, which the state is from now on. */
static bool add_state(struct wvm_vcpu_kvm *c, struct wvm_job *job, struct wvm_vcpu_exit *e)
{
	const struct wvm_vcpu_layout *layout = wvm_kvm_layout();
	uint8_t *at = job->answer + wvm_vcpu_exit_state_at(), *state = wvm_kvm_state(c->v);
	size_t room = WVM_RUN_MAX - wvm_vcpu_exit_state_at() - 256;

	if (wvm_kvm_get(c->v, WVM_KVM_ALL))
		return false;
	e->flags |= WVM_VCPU_EXIT_STATE;
	e->base = c->base;
	e->state_len = (uint32_t)wvm_vcpu_delta(layout, c->common, state, WVM_KVM_ALL, at, room);
	memcpy(c->common, state, layout->bytes);
	c->base = job->seq;
	return true;
}

static bool odd_size(const struct wvm_kvm_exit *x)
{
	return is_access(x) && x->size != 1 && x->size != 2 && x->size != 4 && x->size != 8;
}

static bool answer(struct wvm_vcpu_kvm *c, struct wvm_job *job, uint64_t began_ns)
{
	const struct wvm_kvm_exit *x = &c->exit;
	struct wvm_vcpu_exit e = {.kind = kinds[x->kind], .base = c->base};
	const struct kvm_regs *regs;
	char text[160];

	c->midway = is_access(x) || x->kind == WVM_KVM_EXIT_MSR;
	c->open = wvm_kvm_open_for_interrupts(c->v);
	if (c->midway) {
		e.flags |= WVM_VCPU_EXIT_MIDWAY;
		say_access(&e, x);
		if (wvm_kvm_get(c->v, 1u << WVM_KVM_REGS))
			return false;
	} else if (!add_state(c, job, &e)) {
		return false;
	}
	regs = wvm_kvm_section(wvm_kvm_state(c->v), WVM_KVM_REGS);
	e.flags |= (c->open ? WVM_VCPU_EXIT_OPEN : 0) |
		   (regs->rflags & IF_BIT ? WVM_VCPU_EXIT_IF : 0);
	e.ip = regs->rip;
	e.ticks = ticks_now(c);
	e.ran_ns = wvm_now_ns() - began_ns;
	if (x->kind == WVM_KVM_EXIT_ERROR) {
		snprintf(text, sizeof(text), "KVM cannot go on: reason %u, detail %u, at 0x%llx",
			 x->detail >> 16, x->detail & 0xffff, (unsigned long long)regs->rip);
		e.data = (const uint8_t *)text;
		e.data_len = (uint32_t)strlen(text);
	}
	job->answer_len = (uint32_t)wvm_vcpu_exit_encode(job->answer, WVM_RUN_MAX, &e);
	return true;
}

/* ---- the run --------------------------------------------------------------------------- */

static bool go(struct wvm_vcpu_kvm *c, struct wvm_job *job)
{
	const struct wvm_vcpu_run *r = &job->head;
	bool resume = r->flags & WVM_VCPU_RUN_RESUME;
	int irq = r->flags & WVM_VCPU_RUN_INJECT ? r->vector : -1;

	if (resume && !c->exit.write)
		memcpy(c->exit.data, r->data, r->data_len);
	c->midway = false;
	if (r->flags & WVM_VCPU_RUN_GET) {
		c->exit = (struct wvm_kvm_exit){.kind = WVM_KVM_EXIT_KICKED};
		return !resume || !wvm_kvm_complete(c->v);
	}
	if (__atomic_load_n(&job->kicked, __ATOMIC_SEQ_CST))
		wvm_kvm_kick(c->v);
	return !wvm_kvm_run(c->v, irq, r->flags & WVM_VCPU_RUN_WINDOW, &c->exit);
}

/* What has not been said by now is not known: the next run brings the whole state. */
static void fail(struct wvm_vcpu_kvm *c, struct wvm_job *job, const char *text)
{
	c->base = 0;
	c->midway = false;
	job->answer_len = wvm_job_error_encode(job->answer, text);
}

void wvm_vcpu_kvm_run(struct wvm_vcpu_kvm *c, struct wvm_job *job)
{
	uint64_t began_ns = wvm_now_ns();
	enum outcome outcome;

	job->reason = check(c, &job->head);
	if (job->reason)
		return;
	outcome = take_state(c, job, &job->reason);
	if (outcome == REFUSED)
		return;
	if (outcome == FAILED || !reach_ticks(c, job->head.ticks) || !go(c, job))
		fail(c, job, wvm_kvm_error());
	else if (odd_size(&c->exit))
		fail(c, job, "the guest accesses a device by an odd number of bytes");
	else if (!answer(c, job, began_ns))
		fail(c, job, wvm_kvm_error());
}

#include "roles/check/bare.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_FLAGS 0x27u /* present, writable, ring 3, accessed */
#define LARGE_FLAGS 0xe7u /* the same, written, 2 MiB */

/* ---- the machine ----------------------------------------------------------------------- */

/* Marked as accessed and written already, so that the processor does not write to its tables. */
void bare_fill(uint8_t *mem, const char *code, const char *end)
{
	uint64_t *top = (uint64_t *)(void *)(mem + BARE_TABLES);

	top[0] = (BARE_TABLES + 0x1000) | TABLE_FLAGS;
	top[512] = (BARE_TABLES + 0x2000) | TABLE_FLAGS;
	for (uint64_t i = 0; i < 512; i++)
		top[1024 + i] = i << 21 | LARGE_FLAGS;
	memcpy(mem + BARE_CODE, code, (size_t)(end - code));
}

static struct kvm_segment segment(uint8_t type, bool code, unsigned ring)
{
	return (struct kvm_segment){.limit = 0xffffffff,
				    .selector = (uint16_t)((code ? 8 : 16) | ring),
				    .type = type,
				    .present = 1,
				    .dpl = (uint8_t)ring,
				    .db = !code,
				    .s = 1,
				    .l = code,
				    .g = 1};
}

void bare_state(void *state, unsigned ring)
{
	struct kvm_sregs *s = wvm_kvm_section(state, WVM_KVM_SREGS);
	struct kvm_xcrs *x = wvm_kvm_section(state, WVM_KVM_XCRS);

	s->cr3 = BARE_TABLES;
	s->cr4 = 0x40620;    /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE */
	s->cr0 = 0x80050033; /* paging, protection, FPU */
	s->efer = 0x500;
	s->cs = segment(11, true, ring);
	s->ds = s->es = s->fs = s->gs = s->ss = segment(3, false, ring);
	x->nr_xcrs = 1;
	x->xcrs[0] = (struct kvm_xcr){.xcr = 0, .value = 7};
	/* One that begins is runnable, wherever in the reset of a real machine it would be. */
	((struct kvm_mp_state *)wvm_kvm_section(state, WVM_KVM_MP))->mp_state =
		KVM_MP_STATE_RUNNABLE;
	*(struct kvm_regs *)wvm_kvm_section(state, WVM_KVM_REGS) =
		(struct kvm_regs){.rip = BARE_CODE, .rflags = BARE_RFLAGS};
}

int bare_new_state(void *state, unsigned vcpu, unsigned ring)
{
	struct wvm_kvm *kvm = wvm_kvm_open();
	struct wvm_kvm_vcpu *v = kvm ? wvm_kvm_vcpu_open(kvm, vcpu, NULL) : NULL;
	int ret = v && !wvm_kvm_get(v, WVM_KVM_ALL) ? 0 : -EIO;

	if (!ret) {
		memcpy(state, wvm_kvm_state(v), wvm_kvm_layout()->bytes);
		bare_state(state, ring);
	}
	wvm_kvm_vcpu_close(v);
	wvm_kvm_close(kvm);
	return ret;
}

/* ---- the owner ------------------------------------------------------------------------- */

int bare_cpu_init(struct bare_cpu *c, const char *setup)
{
	memset(c, 0, sizeof(*c));
	c->setup = setup;
	c->state = calloc(1, wvm_kvm_layout()->bytes);
	c->sent = calloc(1, wvm_kvm_layout()->bytes);
	if (c->state && c->sent)
		return 0;
	bare_cpu_fini(c);
	return -ENOMEM;
}

void bare_cpu_fini(struct bare_cpu *c)
{
	free(c->state);
	free(c->sent);
	c->state = c->sent = NULL;
}

/* The slave there has a state that we have not. */
static bool stays(const struct bare_cpu *c)
{
	return c->base && c->exit.flags & WVM_VCPU_EXIT_STAYS;
}

static size_t encode(struct bare_cpu *c, uint8_t flags)
{
	const struct wvm_vcpu_layout *l = wvm_kvm_layout();
	struct wvm_vcpu_run r = {.engine = WVM_VCPU_ENGINE_KVM,
				 .flags = (uint8_t)(flags | (c->base ? 0 : WVM_VCPU_RUN_WHOLE)),
				 .setup_version = 1,
				 .base = c->base,
				 .ticks = c->exit.ticks,
				 .layout = wvm_kvm_layout_hash(),
				 .setup = (const uint8_t *)c->setup,
				 .setup_len = c->at->told ? 0 : (uint32_t)strlen(c->setup)};
	size_t at = wvm_vcpu_run_state_at(r.setup_len);

	/* Within an instruction nothing else can be changed, nor what is not here. */
	if (!(flags & WVM_VCPU_RUN_RESUME) && !stays(c))
		r.state_len = (uint32_t)wvm_vcpu_delta(l, c->base ? c->sent : NULL, c->state,
						       WVM_KVM_ALL, c->run + at,
						       sizeof(c->run) - at);
	c->carries = r.state_len || r.flags & WVM_VCPU_RUN_WHOLE;
	return wvm_vcpu_run_encode(c->run, sizeof(c->run), &r);
}

static int take(struct bare_cpu *c, const struct wvm_vcpu_answer *a)
{
	const struct wvm_vcpu_layout *l = wvm_kvm_layout();
	uint32_t changed;
	int ret = wvm_vcpu_exit_decode(a->data, a->len, &c->exit);

	if (ret)
		return ret;
	if (c->carries) { /* what both have by now */
		memcpy(c->sent, c->state, l->bytes);
		c->base = a->seq;
	}
	if (!(c->exit.flags & WVM_VCPU_EXIT_STATE))
		return 0;
	if (c->exit.base != c->base)
		return -EBADMSG;
	ret = wvm_vcpu_apply(l, c->sent, c->exit.state, c->exit.state_len, &changed);
	if (ret)
		return ret;
	memcpy(c->state, c->sent, l->bytes);
	c->base = a->seq;
	return 0;
}

int bare_cpu_run(struct bare_cpu *c, struct bare_slave *at, uint8_t flags,
		 struct wvm_vcpu_answer *answer)
{
	int ret;

	if (c->at != at && stays(c))
		return -EBUSY;
	if (c->at != at)
		bare_cpu_forget(c);
	c->at = at;
	c->sent_bytes = encode(c, flags);
	if (!c->sent_bytes)
		return -EMSGSIZE;
	ret = wvm_vcpu_run(c->l, at->node, at->life, c->run, c->sent_bytes, answer);
	if (ret || answer->outcome != WVM_VCPU_ANSWERED)
		return ret;
	at->told = true;
	return take(c, answer);
}

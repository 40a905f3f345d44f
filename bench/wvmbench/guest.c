#include "bench/wvmbench/guest.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/wvmbench/bulk.h"
#include "roles/check/bare.h"

#define NO_MEMORY 0x3ff00000u /* within the page tables, but of no map */
#define WARM      200u        /* exits that do not count */

extern const char guest_code[], guest_empty[], guest_pio[], guest_mmio[], guest_end[];
__asm__(".pushsection .rodata\n"
	"guest_code:\n"
	"guest_empty:\n"
	"   hlt\n"
	"   jmp guest_empty\n"
	"guest_pio:\n"
	"   out %al, $0x80\n"
	"   jmp guest_pio\n"
	"guest_mmio:\n"
	"   mov %eax, (%rsi)\n"
	"   jmp guest_mmio\n"
	"guest_end:\n"
	".popsection");

static const struct {
	const char *code;
	uint8_t here, there; /* enum wvm_kvm_exit_kind, enum wvm_vcpu_exit_kind */
} loops[GUEST_LOOPS] = {
	[GUEST_EMPTY] = {guest_empty, WVM_KVM_EXIT_HLT, WVM_VCPU_EXIT_HLT},
	[GUEST_PIO] = {guest_pio, WVM_KVM_EXIT_PIO, WVM_VCPU_EXIT_PIO},
	[GUEST_MMIO] = {guest_mmio, WVM_KVM_EXIT_MMIO, WVM_VCPU_EXIT_MMIO},
};

void guest_fill(uint8_t *mem)
{
	bare_fill(mem, guest_code, guest_end);
}

unsigned guest_exit(enum guest_loop loop)
{
	return loops[loop].there;
}

int guest_state(void *state, enum guest_loop loop)
{
	struct kvm_regs *r = wvm_kvm_section(state, WVM_KVM_REGS);

	if (bare_new_state(state, 0, 0) < 0) {
		fprintf(stderr, "wvmbench: %s\n", wvm_kvm_error());
		return -EIO;
	}
	r->rip = BARE_CODE + (uint64_t)(loops[loop].code - guest_code);
	r->rsi = NO_MEMORY;
	return 0;
}

/* ---- by KVM here ------------------------------------------------------------------------- */

static int run_once(struct wvm_kvm_vcpu *v, enum guest_loop loop, uint64_t *ns)
{
	struct wvm_kvm_exit e;
	uint64_t from;

	do {
		from = bulk_now();
		if (wvm_kvm_run(v, -1, false, &e) < 0)
			return -EIO;
		*ns = bulk_now() - from;
	} while (e.kind == WVM_KVM_EXIT_KICKED); /* a signal of somebody's */
	return e.kind == loops[loop].here ? 0 : -EPROTO;
}

static int run_all(struct wvm_kvm_vcpu *v, enum guest_loop loop, struct wvm_samples *samples)
{
	uint64_t ns;
	int ret = guest_state(wvm_kvm_state(v), loop);

	if (!ret)
		ret = wvm_kvm_set(v, WVM_KVM_ALL);
	for (unsigned i = 0; i < WARM && !ret; i++)
		ret = run_once(v, loop, &ns);
	while (samples->n < samples->room && !ret) {
		ret = run_once(v, loop, &ns);
		wvm_samples_add(samples, ns);
	}
	return ret;
}

int guest_local(enum guest_loop loop, struct wvm_samples *samples)
{
	uint8_t *mem = (uint8_t *)bulk_plain_map(GUEST_BYTES);
	struct wvm_kvm *kvm = mem ? wvm_kvm_open() : NULL;
	struct wvm_kvm_vcpu *v = NULL;
	int ret = -EIO;

	if (!mem)
		return -ENOMEM;
	guest_fill(mem);
	if (kvm && !wvm_kvm_map(kvm, 0, mem, GUEST_BYTES, false))
		v = wvm_kvm_vcpu_open(kvm, 0, NULL);
	if (v)
		ret = run_all(v, loop, samples);
	if (ret == -EPROTO)
		fprintf(stderr, "wvmbench: KVM here ends the guest's loop in another way than it "
				"should\n");
	else if (ret < 0)
		fprintf(stderr, "wvmbench: KVM here: %s\n", wvm_kvm_error());
	wvm_kvm_vcpu_close(v);
	wvm_kvm_close(kvm);
	munmap(mem, GUEST_BYTES);
	return ret;
}

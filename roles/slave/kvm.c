#include "roles/slave/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CPUID_MAX 256u
#define TSS_ADDR  0xfffbd000u /* three pages that no guest uses; Intel needs them */

/*
 * System calls, segment bases, the page attributes, the clock, KVM's own clocks and what
 * Linux uses besides. Those that a kernel does not know are left out when it
 * is asked.
 */
const uint32_t wvm_kvm_msrs[] = {
	0x10,       /* TSC */
	0x3b,       /* TSC_ADJUST */
	0x174,      /* SYSENTER_CS */
	0x175,      /* SYSENTER_ESP */
	0x176,      /* SYSENTER_EIP */
	0x1a0,      /* MISC_ENABLE */
	0x277,      /* PAT */
	0x48,       /* SPEC_CTRL */
	0x6e0,      /* TSC_DEADLINE */
	0xda0,      /* XSS */
	0xc0000081, /* STAR */
	0xc0000082, /* LSTAR */
	0xc0000083, /* CSTAR */
	0xc0000084, /* SYSCALL_MASK */
	0xc0000102, /* KERNEL_GS_BASE */
	0xc0000103, /* TSC_AUX */
	0x4b564d00, /* KVM_WALL_CLOCK_NEW */
	0x4b564d01, /* KVM_SYSTEM_TIME_NEW */
	0x4b564d02, /* KVM_ASYNC_PF_EN */
	0x4b564d03, /* KVM_STEAL_TIME */
	0x4b564d04, /* KVM_PV_EOI_EN */
};
#define MSRS (sizeof(wvm_kvm_msrs) / sizeof(wvm_kvm_msrs[0]))
const unsigned wvm_kvm_msr_count = MSRS;

#define MSR_TSC       0x10u
#define OFFSET_STANDS UINT64_C(1000000000) /* ticks of the host's; a third to half a second */
#define AT_TSC        0u                   /* in wvm_kvm_msrs */

#define SHARED (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)

struct wvm_kvm {
	int fd, vm;
	uint32_t run_bytes; /* of the memory shared with KVM, per processor */
	uint32_t slots;     /* of memory in use */
};

struct wvm_kvm_vcpu {
	int fd;
	struct kvm_run *run;
	uint32_t run_bytes;
	uint8_t *state;
	uint32_t
		known; /* sections in `run` are those of the processor: 1 << enum wvm_kvm_section */
	bool has_msr[MSRS];
	bool offset_known;
	uint64_t offset;    /* of its time stamp counter to this host's */
	uint64_t offset_at; /* the host's when that was read */
};

static __thread char error_text[160];

const char *wvm_kvm_error(void)
{
	return error_text;
}

__attribute__((format(printf, 1, 2))) static int failed(const char *format, ...)
{
	int error = errno ? -errno : -EIO;
	va_list ap;

	va_start(ap, format);
	vsnprintf(error_text, sizeof(error_text), format, ap);
	va_end(ap);
	return error;
}

/* ---- the VM ---------------------------------------------------------------------------- */

static const struct {
	int cap, least;
	const char *name;
} needed[] = {
	{KVM_CAP_USER_MEMORY, 1, "KVM_CAP_USER_MEMORY"},
	{KVM_CAP_IMMEDIATE_EXIT, 1, "KVM_CAP_IMMEDIATE_EXIT"},
	{KVM_CAP_VCPU_EVENTS, 1, "KVM_CAP_VCPU_EVENTS"},
	{KVM_CAP_DEBUGREGS, 1, "KVM_CAP_DEBUGREGS"},
	{KVM_CAP_XSAVE, 1, "KVM_CAP_XSAVE"},
	{KVM_CAP_XCRS, 1, "KVM_CAP_XCRS"},
	{KVM_CAP_SYNC_REGS, SHARED, "KVM_CAP_SYNC_REGS"},
	{KVM_CAP_MP_STATE, 1, "KVM_CAP_MP_STATE"},
};

static int check_caps(int fd)
{
	if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return failed("/dev/kvm has another API version than %d", KVM_API_VERSION);
	for (unsigned i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		int has = ioctl(fd, KVM_CHECK_EXTENSION, needed[i].cap);

		errno = ENOTSUP;
		if (has < 0 || (has & needed[i].least) != needed[i].least)
			return failed("this kernel's KVM lacks %s", needed[i].name);
	}
	return 0;
}

struct wvm_kvm *wvm_kvm_open(void)
{
	struct wvm_kvm *kvm = calloc(1, sizeof(*kvm));
	int bytes;

	if (!kvm)
		return NULL;
	kvm->vm = -1;
	kvm->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm->fd < 0) {
		failed("/dev/kvm: %s (no KVM here, or no permission)", strerror(errno));
		goto fail;
	}
	if (check_caps(kvm->fd))
		goto fail;
	bytes = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	kvm->vm = ioctl(kvm->fd, KVM_CREATE_VM, 0);
	if (bytes < (int)sizeof(struct kvm_run) || kvm->vm < 0 ||
	    ioctl(kvm->vm, KVM_SET_TSS_ADDR, TSS_ADDR)) {
		failed("KVM makes no VM: %s", strerror(errno));
		goto fail;
	}
	kvm->run_bytes = (uint32_t)bytes;
	return kvm;
fail:
	wvm_kvm_close(kvm);
	return NULL;
}

void wvm_kvm_close(struct wvm_kvm *kvm)
{
	if (!kvm)
		return;
	if (kvm->vm >= 0)
		close(kvm->vm);
	if (kvm->fd >= 0)
		close(kvm->fd);
	free(kvm);
}

int wvm_kvm_map(struct wvm_kvm *kvm, uint64_t gpa, void *host, uint64_t bytes, bool read_only)
{
	struct kvm_userspace_memory_region region = {.slot = kvm->slots,
						     .flags = read_only ? KVM_MEM_READONLY : 0,
						     .guest_phys_addr = gpa,
						     .memory_size = bytes,
						     .userspace_addr = (uint64_t)(uintptr_t)host};

	if (ioctl(kvm->vm, KVM_SET_USER_MEMORY_REGION, &region))
		return failed("KVM takes no memory of %llu bytes at %#llx: %s",
			      (unsigned long long)bytes, (unsigned long long)gpa, strerror(errno));
	kvm->slots++;
	return 0;
}

int wvm_kvm_unmap(struct wvm_kvm *kvm)
{
	for (; kvm->slots; kvm->slots--) {
		struct kvm_userspace_memory_region region = {.slot = kvm->slots - 1};

		if (ioctl(kvm->vm, KVM_SET_USER_MEMORY_REGION, &region))
			return failed("KVM does not give memory back: %s", strerror(errno));
	}
	return 0;
}

/* ---- the state ------------------------------------------------------------------------- */

static const uint32_t sizes[WVM_KVM_SECTIONS] = {
	[WVM_KVM_REGS] = sizeof(struct kvm_regs),
	[WVM_KVM_SREGS] = sizeof(struct kvm_sregs),
	[WVM_KVM_EVENTS] = sizeof(struct kvm_vcpu_events),
	[WVM_KVM_XSAVE] = sizeof(struct kvm_xsave),
	[WVM_KVM_XCRS] = sizeof(struct kvm_xcrs),
	[WVM_KVM_DEBUG] = sizeof(struct kvm_debugregs),
	[WVM_KVM_MP] = sizeof(struct kvm_mp_state),
	[WVM_KVM_MSRS] = MSRS * sizeof(uint64_t),
};

const struct wvm_vcpu_layout *wvm_kvm_layout(void)
{
	static struct wvm_vcpu_layout layout;
	static bool made;

	if (!made) {
		for (unsigned i = 0; i < WVM_KVM_SECTIONS; i++)
			wvm_vcpu_layout_add(&layout, sizes[i]);
		made = true;
	}
	return &layout;
}

uint32_t wvm_kvm_layout_hash(void)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (unsigned i = 0; i < WVM_KVM_SECTIONS; i++)
		hash = (hash ^ sizes[i]) * 16777619u;
	for (unsigned i = 0; i < MSRS; i++)
		hash = (hash ^ wvm_kvm_msrs[i]) * 16777619u;
	return hash ? hash : 1;
}

void *wvm_kvm_state(struct wvm_kvm_vcpu *v)
{
	return v->state;
}

void *wvm_kvm_section(void *state, enum wvm_kvm_section section)
{
	return (uint8_t *)state + wvm_kvm_layout()->at[section];
}

/* Where KVM shares a section with us; NULL: it does not. */
static void *shared_with(struct wvm_kvm_vcpu *v, unsigned section, uint64_t *bit)
{
	switch (section) {
	case WVM_KVM_REGS: *bit = KVM_SYNC_X86_REGS; return &v->run->s.regs.regs;
	case WVM_KVM_SREGS: *bit = KVM_SYNC_X86_SREGS; return &v->run->s.regs.sregs;
	case WVM_KVM_EVENTS: *bit = KVM_SYNC_X86_EVENTS; return &v->run->s.regs.events;
	default: return NULL;
	}
}

/* struct kvm_msrs and its entries. */
struct msr_list {
	struct {
		uint32_t nmsrs, pad;
	} head;
	struct kvm_msr_entry entry[MSRS];
};

/* Whether a counter that was read since the host's was `before` fits to the offset. */
static bool within(const struct wvm_kvm_vcpu *v, uint64_t before, uint64_t ticks)
{
	return ticks - (before + v->offset) <= __builtin_ia32_rdtsc() - before;
}

static int get_msrs(struct wvm_kvm_vcpu *v, uint64_t *to)
{
	struct msr_list list = {.head.nmsrs = 0};
	uint64_t before;
	uint32_t n = 0;
	int got;

	for (unsigned i = 0; i < MSRS; i++)
		if (v->has_msr[i])
			list.entry[list.head.nmsrs++].index = wvm_kvm_msrs[i];
	before = __builtin_ia32_rdtsc();
	got = ioctl(v->fd, KVM_GET_MSRS, &list);
	if (got != (int)list.head.nmsrs)
		return failed("KVM does not say what MSR %#x is",
			      got < 0 ? 0 : list.entry[got].index);
	for (unsigned i = 0; i < MSRS; i++)
		to[i] = v->has_msr[i] ? list.entry[n++].data : 0;
	/* The guest may have written its counter. */
	if (!within(v, before, to[AT_TSC]))
		v->offset_known = false;
	return 0;
}

static int set_msrs(struct wvm_kvm_vcpu *v, const uint64_t *from)
{
	struct msr_list list = {.head.nmsrs = 0};
	int done;

	for (unsigned i = 0; i < MSRS; i++) {
		if (v->has_msr[i]) {
			list.entry[list.head.nmsrs++] =
				(struct kvm_msr_entry){.index = wvm_kvm_msrs[i], .data = from[i]};
		} else if (from[i]) {
			errno = ENOTSUP;
			return failed("this node's KVM has no MSR %#x, which the processor uses",
				      wvm_kvm_msrs[i]);
		}
	}
	v->offset_known = false;
	done = ioctl(v->fd, KVM_SET_MSRS, &list);
	if (done == (int)list.head.nmsrs)
		return 0;
	return failed("KVM does not take MSR %#x", done < 0 ? 0 : list.entry[done].index);
}

/* KVM's calls for a section that travels by a call. */
static const struct {
	unsigned long get, set;
	const char *name;
} calls[WVM_KVM_SECTIONS] = {
	[WVM_KVM_REGS] = {KVM_GET_REGS, KVM_SET_REGS, "registers"},
	[WVM_KVM_SREGS] = {KVM_GET_SREGS, KVM_SET_SREGS, "special registers"},
	[WVM_KVM_EVENTS] = {KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, "events"},
	[WVM_KVM_XSAVE] = {KVM_GET_XSAVE, KVM_SET_XSAVE, "XSAVE area"},
	[WVM_KVM_XCRS] = {KVM_GET_XCRS, KVM_SET_XCRS, "XCRs"},
	[WVM_KVM_DEBUG] = {KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, "debug registers"},
	[WVM_KVM_MP] = {KVM_GET_MP_STATE, KVM_SET_MP_STATE, "mp state"},
};

int wvm_kvm_get(struct wvm_kvm_vcpu *v, uint32_t sections)
{
	for (unsigned i = 0; i < WVM_KVM_SECTIONS; i++) {
		void *to = wvm_kvm_section(v->state, (enum wvm_kvm_section)i), *from;
		uint64_t bit;
		int r;

		if (!(sections >> i & 1))
			continue;
		from = shared_with(v, i, &bit);
		if (from && v->known >> i & 1) {
			memcpy(to, from, sizes[i]);
			continue;
		}
		if (i == WVM_KVM_MSRS)
			r = get_msrs(v, to);
		else
			r = ioctl(v->fd, calls[i].get, to);
		if (r)
			return i == WVM_KVM_MSRS ? r
						 : failed("KVM does not say what the %s are: %s",
							  calls[i].name, strerror(errno));
	}
	return 0;
}

/* The XSAVE area says which parts it has, and XCR0 which there may be: XCRS first. */
static const uint8_t order[WVM_KVM_SECTIONS] = {WVM_KVM_XCRS,   WVM_KVM_XSAVE, WVM_KVM_SREGS,
						WVM_KVM_MSRS,   WVM_KVM_DEBUG, WVM_KVM_REGS,
						WVM_KVM_EVENTS, WVM_KVM_MP};

int wvm_kvm_set(struct wvm_kvm_vcpu *v, uint32_t sections)
{
	for (unsigned k = 0; k < WVM_KVM_SECTIONS; k++) {
		unsigned i = order[k];
		void *from = wvm_kvm_section(v->state, (enum wvm_kvm_section)i), *to;
		uint64_t bit;
		int r;

		if (!(sections >> i & 1))
			continue;
		to = shared_with(v, i, &bit);
		if (to) {
			/* Taken by the next run. */
			memcpy(to, from, sizes[i]);
			v->run->kvm_dirty_regs |= bit;
			v->known |= UINT32_C(1) << i;
			continue;
		}
		if (i == WVM_KVM_MSRS)
			r = set_msrs(v, from);
		else
			r = ioctl(v->fd, calls[i].set, from);
		if (r)
			return i == WVM_KVM_MSRS ? r
						 : failed("KVM does not take the %s: %s",
							  calls[i].name, strerror(errno));
	}
	return 0;
}

/* ---- a processor ----------------------------------------------------------------------- */

static int set_cpuid(struct wvm_kvm *kvm, struct wvm_kvm_vcpu *v, const struct kvm_cpuid2 *cpuid)
{
	struct kvm_cpuid2 *all;
	int r;

	if (cpuid)
		return ioctl(v->fd, KVM_SET_CPUID2, cpuid);
	all = calloc(1, sizeof(*all) + CPUID_MAX * sizeof(all->entries[0]));
	if (!all)
		return -1;
	all->nent = CPUID_MAX;
	r = ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, all) || ioctl(v->fd, KVM_SET_CPUID2, all);
	free(all);
	return r ? -1 : 0;
}

/* One that KVM knows can be read, and takes what was read. */
static void find_msrs(struct wvm_kvm_vcpu *v)
{
	for (unsigned i = 0; i < MSRS; i++) {
		struct msr_list one = {.head.nmsrs = 1, .entry[0].index = wvm_kvm_msrs[i]};

		v->has_msr[i] = ioctl(v->fd, KVM_GET_MSRS, &one) == 1 &&
				ioctl(v->fd, KVM_SET_MSRS, &one) == 1;
	}
}

struct wvm_kvm_vcpu *wvm_kvm_vcpu_open(struct wvm_kvm *kvm, unsigned index,
				       const struct kvm_cpuid2 *cpuid)
{
	struct wvm_kvm_vcpu *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->run = MAP_FAILED;
	v->run_bytes = kvm->run_bytes;
	v->state = calloc(1, wvm_kvm_layout()->bytes);
	v->fd = ioctl(kvm->vm, KVM_CREATE_VCPU, index);
	if (v->fd >= 0)
		v->run = mmap(NULL, v->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (!v->state || v->run == MAP_FAILED || set_cpuid(kvm, v, cpuid)) {
		failed("KVM makes no processor %u: %s", index, strerror(errno));
		wvm_kvm_vcpu_close(v);
		return NULL;
	}
	find_msrs(v);
	v->run->kvm_valid_regs = SHARED;
	return v;
}

void wvm_kvm_vcpu_close(struct wvm_kvm_vcpu *v)
{
	if (!v)
		return;
	if (v->run != MAP_FAILED)
		munmap(v->run, v->run_bytes);
	if (v->fd >= 0)
		close(v->fd);
	free(v->state);
	free(v);
}

/* ---- running --------------------------------------------------------------------------- */

static void say_pio(struct wvm_kvm_vcpu *v, struct wvm_kvm_exit *e)
{
	struct kvm_run *run = v->run;

	e->kind = WVM_KVM_EXIT_PIO;
	e->write = run->io.direction == KVM_EXIT_IO_OUT;
	e->size = run->io.size;
	e->count = run->io.count;
	e->at = run->io.port;
	e->data = (uint8_t *)run + run->io.data_offset;
	e->bytes = run->io.count * run->io.size;
}

static void say_mmio(struct wvm_kvm_vcpu *v, struct wvm_kvm_exit *e)
{
	e->kind = WVM_KVM_EXIT_MMIO;
	e->write = v->run->mmio.is_write;
	e->size = (uint8_t)v->run->mmio.len;
	e->count = 1;
	e->at = v->run->mmio.phys_addr;
	e->data = v->run->mmio.data;
	e->bytes = v->run->mmio.len;
}

static void say_msr(struct wvm_kvm_vcpu *v, struct wvm_kvm_exit *e)
{
	e->kind = WVM_KVM_EXIT_MSR;
	e->write = v->run->exit_reason == KVM_EXIT_X86_WRMSR;
	e->at = v->run->msr.index;
	e->data = (uint8_t *)&v->run->msr.data;
	e->bytes = sizeof(v->run->msr.data);
}

static uint32_t detail_of(const struct kvm_run *run)
{
	uint32_t more = 0;

	if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		more = run->internal.suberror;
	else if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
		more = (uint32_t)run->fail_entry.hardware_entry_failure_reason;
	return run->exit_reason << 16 | (more & 0xffff);
}

/* Everything that KVM may say and is not handled is an error: never run on blindly. */
static void say(struct wvm_kvm_vcpu *v, struct wvm_kvm_exit *e)
{
	switch (v->run->exit_reason) {
	case KVM_EXIT_IO: say_pio(v, e); return;
	case KVM_EXIT_MMIO: say_mmio(v, e); return;
	case KVM_EXIT_HLT: e->kind = WVM_KVM_EXIT_HLT; return;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR: say_msr(v, e); return;
	case KVM_EXIT_IRQ_WINDOW_OPEN: e->kind = WVM_KVM_EXIT_WINDOW; return;
	case KVM_EXIT_SHUTDOWN: e->kind = WVM_KVM_EXIT_SHUTDOWN; return;
	case KVM_EXIT_INTR: e->kind = WVM_KVM_EXIT_KICKED; return;
	default: e->kind = WVM_KVM_EXIT_ERROR; e->detail = detail_of(v->run);
	}
}

/* Events that the run is about to bring replace KVM's own, with one that was injected before. */
static int inject(struct wvm_kvm_vcpu *v, int irq)
{
	struct kvm_interrupt take = {.irq = (uint32_t)irq};

	if (!(v->run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS))
		return ioctl(v->fd, KVM_INTERRUPT, &take);
	v->run->s.regs.events.interrupt.injected = 1;
	v->run->s.regs.events.interrupt.nr = (uint8_t)irq;
	v->run->s.regs.events.interrupt.soft = 0;
	return 0;
}

int wvm_kvm_run(struct wvm_kvm_vcpu *v, int irq, bool window, struct wvm_kvm_exit *e)
{
	int r;

	*e = (struct wvm_kvm_exit){.kind = WVM_KVM_EXIT_KICKED};
	if (irq >= 0 && inject(v, irq))
		return failed("KVM does not take interrupt %d: %s", irq, strerror(errno));
	v->run->request_interrupt_window = window;
	r = ioctl(v->fd, KVM_RUN, 0);
	if (r && errno != EINTR && errno != EAGAIN)
		return failed("KVM does not run the processor: %s", strerror(errno));
	v->known |= UINT32_C(1) << WVM_KVM_REGS | UINT32_C(1) << WVM_KVM_SREGS |
		    UINT32_C(1) << WVM_KVM_EVENTS;
	/* A kick that came with an exit of another kind ends the next run. */
	if (r)
		__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	else
		say(v, e);
	return 0;
}

int wvm_kvm_complete(struct wvm_kvm_vcpu *v)
{
	struct wvm_kvm_exit e;
	int r;

	wvm_kvm_kick(v);
	r = wvm_kvm_run(v, -1, false, &e);
	if (!r && e.kind != WVM_KVM_EXIT_KICKED) {
		errno = EIO;
		return failed("KVM does not complete an access before it is entered again");
	}
	return r;
}

/* ---- the time stamp counter ------------------------------------------------------------ */

static uint64_t ask_ticks(struct wvm_kvm_vcpu *v)
{
	struct msr_list one = {.head.nmsrs = 1, .entry[0].index = MSR_TSC};

	return ioctl(v->fd, KVM_GET_MSRS, &one) == 1 ? one.entry[0].data : 0;
}

static int offset_call(struct wvm_kvm_vcpu *v, unsigned long call, uint64_t *offset)
{
	struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL,
				       .attr = KVM_VCPU_TSC_OFFSET,
				       .addr = (uint64_t)(uintptr_t)offset};

	return ioctl(v->fd, call, &attr);
}

/*
 * A call for a processor costs as much as an exit of its guest (KVM loads all of it), and this is
 * asked twice a run. So it is reckoned from the host's counter where that gives what KVM says:
 * where the kernel tells the offset, and both count at one rate. A guest that writes its counter
 * changes the offset, which is seen when it is read again.
 */
uint64_t wvm_kvm_ticks(struct wvm_kvm_vcpu *v)
{
	uint64_t before, ticks;

	before = __builtin_ia32_rdtsc();
	if (v->offset_known && before - v->offset_at < OFFSET_STANDS)
		return before + v->offset;
	v->offset_known = !offset_call(v, KVM_GET_DEVICE_ATTR, &v->offset);
	before = v->offset_at = __builtin_ia32_rdtsc();
	ticks = ask_ticks(v);
	v->offset_known = v->offset_known && within(v, before, ticks);
	return ticks;
}

/*
 * By the offset, where KVM lets us: it takes a counter that is written within a second of another
 * one for an attempt to have both alike, and writes something else.
 */
int wvm_kvm_ticks_reach(struct wvm_kvm_vcpu *v, uint64_t ticks)
{
	uint64_t now = wvm_kvm_ticks(v), offset;
	struct msr_list one = {.head.nmsrs = 1, .entry[0] = {.index = MSR_TSC, .data = ticks}};

	if (now >= ticks)
		return 0;
	v->offset_known = false;
	now = ask_ticks(v);
	if (now >= ticks)
		return 0;
	if (!offset_call(v, KVM_GET_DEVICE_ATTR, &offset)) {
		offset += ticks - now;
		if (!offset_call(v, KVM_SET_DEVICE_ATTR, &offset))
			return 0;
	}
	if (ioctl(v->fd, KVM_SET_MSRS, &one) == 1)
		return 0;
	return failed("KVM does not set the time stamp counter: %s", strerror(errno));
}

bool wvm_kvm_open_for_interrupts(const struct wvm_kvm_vcpu *v)
{
	return v->run->ready_for_interrupt_injection;
}

void wvm_kvm_kick(struct wvm_kvm_vcpu *v)
{
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

void wvm_kvm_unkick(struct wvm_kvm_vcpu *v)
{
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

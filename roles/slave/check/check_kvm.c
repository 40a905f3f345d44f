/*
 * KVM's engine with guests of our own: 64-bit code in ring 3 over page tables of our own, with
 * ports open to it. Their results are compared with the same computation made here.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "roles/slave/kvm.h"

#define MEM     (UINT64_C(8) << 20)
#define TABLES  0x10000u
#define CODE    0x1000u
#define STACK   0x8000u
#define DATA    0x100000u
#define MMIO_AT 0x40000000u /* no memory there; mapped by the page tables */
#define PORT    0x3f8u

/* Instructions of the guests, between two labels. */
extern const char guest_sum[], guest_sum_end[], guest_ports[], guest_ports_end[], guest_mmio[],
	guest_mmio_end[], guest_halt[], guest_halt_end[], guest_spin[], guest_spin_end[];
__asm__(".pushsection .rodata\n"
	/* rcx steps of a random walk: rax the generator, rsi the memory, xmm0 and ymm3 sums. */
	"guest_sum:\n"
	"1: imul $0x41c64e6d, %rax, %rax\n"
	"   add $0x3039, %rax\n"
	"   mov %rax, %rdx\n"
	"   shr $20, %rdx\n"
	"   and $0xfff, %rdx\n"
	"   add %rax, (%rsi, %rdx, 8)\n"
	"   movq %rax, %xmm1\n"
	"   paddq %xmm1, %xmm0\n"
	"   add %rax, %fs:0\n"
	"   dec %rcx\n"
	"   jnz 1b\n"
	"   movq %xmm0, %rbx\n"
	"   mov $0x3f8, %dx\n"
	"   out %al, %dx\n"
	"guest_sum_end:\n"
	/* Echoes a word, then writes 5 bytes from memory. */
	"guest_ports:\n"
	"   mov $0x3f8, %dx\n"
	"   in %dx, %ax\n"
	"   inc %ax\n"
	"   out %ax, %dx\n"
	"   mov $5, %rcx\n"
	"   rep outsb\n"
	"   jmp guest_ports\n"
	"guest_ports_end:\n"
	"guest_mmio:\n"
	"   mov (%rsi), %rax\n"
	"   mov %eax, 8(%rsi)\n"
	"   jmp guest_mmio\n"
	"guest_mmio_end:\n"
	"guest_halt:\n"
	"   hlt\n"
	"guest_halt_end:\n"
	"guest_spin:\n"
	"   incq (%rsi)\n"
	"   jmp guest_spin\n"
	"guest_spin_end:\n"
	".popsection");

struct guest {
	struct wvm_kvm *kvm;
	struct wvm_kvm_vcpu *v;
	uint8_t *mem;
};

static int mem_fd = -1;

static void segment(struct kvm_segment *s, uint8_t type, bool code)
{
	*s = (struct kvm_segment){.limit = 0xffffffff,
				  .selector = (uint16_t)((code ? 8 : 16) | 3),
				  .type = type,
				  .present = 1,
				  .dpl = 3,
				  .db = !code,
				  .s = 1,
				  .l = code,
				  .g = 1};
}

/* The first GiB in 2 MiB pages, and one at MMIO_AT, open to ring 3. */
static void make_tables(uint8_t *mem)
{
	uint64_t *top = (uint64_t *)(void *)(mem + TABLES);

	top[0] = (TABLES + 0x1000) | 7;
	top[512] = (TABLES + 0x2000) | 7;
	top[513] = (TABLES + 0x3000) | 7;
	top[1536] = MMIO_AT | 0x87;
	for (uint64_t i = 0; i < 512; i++)
		top[1024 + i] = i << 21 | 0x87;
}

static void *section(struct guest *g, enum wvm_kvm_section which)
{
	return wvm_kvm_section(wvm_kvm_state(g->v), which);
}

static void open_guest(struct guest *g)
{
	g->kvm = wvm_kvm_open();
	ck_assert_msg(g->kvm != NULL, "%s", wvm_kvm_error());
	g->mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_SHARED, mem_fd, 0);
	ck_assert_ptr_ne(g->mem, MAP_FAILED);
	ck_assert_int_eq(wvm_kvm_map(g->kvm, 0, g->mem, MEM, false), 0);
	g->v = wvm_kvm_vcpu_open(g->kvm, 0, NULL);
	ck_assert_msg(g->v != NULL, "%s", wvm_kvm_error());
}

static void close_guest(struct guest *g)
{
	wvm_kvm_vcpu_close(g->v);
	wvm_kvm_close(g->kvm);
	munmap(g->mem, MEM);
}

#define OPEN_GUEST(g, code) start(g, code, (size_t)(code##_end - code))
static void start(struct guest *g, const char *code, size_t len)
{
	struct kvm_sregs *s;
	struct kvm_xcrs *x;

	open_guest(g);
	make_tables(g->mem);
	memcpy(g->mem + CODE, code, len);
	ck_assert_int_eq(wvm_kvm_get(g->v, WVM_KVM_ALL), 0);
	s = section(g, WVM_KVM_SREGS);
	s->cr3 = TABLES;
	s->cr4 = 0x620 | 0x40000; /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE */
	s->cr0 = 0x80050033;      /* paging, protection, FPU */
	s->efer = 0x500;
	segment(&s->cs, 11, true);
	segment(&s->ds, 3, false);
	s->es = s->fs = s->gs = s->ss = s->ds;
	s->fs.base = DATA + 0x10000;
	x = section(g, WVM_KVM_XCRS);
	x->nr_xcrs = 1;
	x->xcrs[0] = (struct kvm_xcr){.xcr = 0, .value = 7};
	*(struct kvm_regs *)section(g, WVM_KVM_REGS) =
		(struct kvm_regs){.rip = CODE, .rflags = 0x3002, .rsp = STACK, .rsi = DATA};
}

static void setup(void)
{
	mem_fd = memfd_create("guest", MFD_CLOEXEC);
	ck_assert_int_ge(mem_fd, 0);
	ck_assert_int_eq(ftruncate(mem_fd, (off_t)MEM), 0);
}

static void teardown(void)
{
	close(mem_fd);
}

static struct wvm_kvm_exit run(struct guest *g)
{
	struct wvm_kvm_exit e;
	int r = wvm_kvm_run(g->v, -1, false, &e);

	ck_assert_msg(r == 0, "%s", wvm_kvm_error());
	return e;
}

static void on_alarm(int number)
{
	(void)number;
}

/* ---- ports and addresses --------------------------------------------------------------- */

START_TEST(a_guest_reads_and_writes_ports)
{
	struct wvm_kvm_exit e;
	struct guest g;
	uint16_t word = 0x1234;

	OPEN_GUEST(&g, guest_ports);
	memcpy(g.mem + DATA, "hallo", 5);
	ck_assert_int_eq(wvm_kvm_set(g.v, WVM_KVM_ALL), 0);
	e = run(&g);
	ck_assert_int_eq(e.kind, WVM_KVM_EXIT_PIO);
	ck_assert(!e.write && e.size == 2 && e.at == PORT && e.bytes == 2 && e.count == 1);
	memcpy(e.data, &word, 2);
	e = run(&g);
	ck_assert_int_eq(e.kind, WVM_KVM_EXIT_PIO);
	memcpy(&word, e.data, 2);
	ck_assert(e.write && e.bytes == 2 && word == 0x1235);
	for (unsigned got = 0; got < 5; got += e.bytes) {
		e = run(&g);
		ck_assert_int_eq(e.kind, WVM_KVM_EXIT_PIO);
		ck_assert(e.write && e.size == 1 && got + e.bytes <= 5);
		ck_assert(!memcmp(e.data, &"hallo"[got], e.bytes));
	}
	close_guest(&g);
}
END_TEST

START_TEST(a_guest_reads_and_writes_where_no_memory_is)
{
	uint64_t value = UINT64_C(0x1122334455667788);
	struct wvm_kvm_exit e;
	struct guest g;

	OPEN_GUEST(&g, guest_mmio);
	((struct kvm_regs *)section(&g, WVM_KVM_REGS))->rsi = MMIO_AT + 0x10;
	ck_assert_int_eq(wvm_kvm_set(g.v, WVM_KVM_ALL), 0);
	e = run(&g);
	ck_assert_msg(e.kind == WVM_KVM_EXIT_MMIO, "kind %u, detail %#x", e.kind, e.detail);
	ck_assert(!e.write && e.at == MMIO_AT + 0x10 && e.bytes == 8);
	memcpy(e.data, &value, 8);
	e = run(&g);
	ck_assert_int_eq(e.kind, WVM_KVM_EXIT_MMIO);
	ck_assert(e.write && e.at == MMIO_AT + 0x18 && e.bytes == 4 && !memcmp(e.data, &value, 4));
	close_guest(&g);
}
END_TEST

/* HLT is not for ring 3, and there is no handler for that: the third fault ends it. */
START_TEST(a_guest_that_cannot_go_on_is_reported_each_time)
{
	struct guest g;

	OPEN_GUEST(&g, guest_halt);
	ck_assert_int_eq(wvm_kvm_set(g.v, WVM_KVM_ALL), 0);
	ck_assert_int_eq(run(&g).kind, WVM_KVM_EXIT_SHUTDOWN);
	close_guest(&g);
}
END_TEST

/* ---- interrupts ------------------------------------------------------------------------- */

/*
 * In real mode, from reset: 0:CODE halts, and vector 0x20 leads to an output. The interrupt must be
 * taken whatever of the state comes along, as with the first run after a move.
 */
START_TEST(an_interrupt_that_comes_with_a_new_state_is_taken)
{
	static const uint32_t along[] = {0, 1u << WVM_KVM_REGS, 1u << WVM_KVM_EVENTS, WVM_KVM_ALL};
	const uint8_t vector[] = {0, 0x20, 0, 0}, output[] = {0xe6, 0x10}; /* out %al, $0x10 */
	struct wvm_kvm_exit e;
	struct kvm_sregs *s;
	struct guest g;

	open_guest(&g);
	g.mem[CODE] = 0xf4; /* hlt */
	memcpy(g.mem + 0x20 * 4, vector, sizeof(vector));
	memcpy(g.mem + 0x2000, output, sizeof(output));
	ck_assert_int_eq(wvm_kvm_get(g.v, WVM_KVM_ALL), 0);
	s = section(&g, WVM_KVM_SREGS);
	s->cs.base = s->cs.selector = 0;
	*(struct kvm_regs *)section(&g, WVM_KVM_REGS) =
		(struct kvm_regs){.rip = CODE, .rflags = 0x202, .rsp = STACK};
	ck_assert_int_eq(wvm_kvm_set(g.v, WVM_KVM_ALL), 0);
	ck_assert_int_eq(run(&g).kind, WVM_KVM_EXIT_HLT);
	ck_assert_int_eq(wvm_kvm_get(g.v, WVM_KVM_ALL), 0);
	ck_assert_int_eq(wvm_kvm_set(g.v, along[_i]), 0);
	ck_assert_int_eq(wvm_kvm_run(g.v, 0x20, false, &e), 0);
	ck_assert_msg(e.kind == WVM_KVM_EXIT_PIO && e.at == 0x10, "kind %u", e.kind);
	close_guest(&g);
}
END_TEST

/* ---- kicks ----------------------------------------------------------------------------- */

START_TEST(a_kick_before_a_run_ends_it_at_once)
{
	struct guest g;
	uint64_t *count;

	OPEN_GUEST(&g, guest_spin);
	ck_assert_int_eq(wvm_kvm_set(g.v, WVM_KVM_ALL), 0);
	count = (uint64_t *)(void *)(g.mem + DATA);
	wvm_kvm_kick(g.v);
	ck_assert_int_eq(run(&g).kind, WVM_KVM_EXIT_KICKED);
	ck_assert_uint_eq(*count, 0);
	close_guest(&g);
}
END_TEST

struct kicker {
	struct guest *g; /* the one that runs */
	pthread_t runner;
	bool stop;
};

/* Until it is over: a signal that comes before the run finds the kick there. */
static void *kick(void *arg)
{
	struct kicker *k = arg;

	while (!__atomic_load_n(&k->stop, __ATOMIC_ACQUIRE)) {
		usleep(2000);
		wvm_kvm_kick(__atomic_load_n(&k->g, __ATOMIC_ACQUIRE)->v);
		pthread_kill(k->runner, SIGALRM);
	}
	return NULL;
}

static void start_kicking(struct kicker *k, struct guest *g, pthread_t *thread)
{
	struct sigaction action = {.sa_handler = on_alarm};

	sigaction(SIGALRM, &action, NULL);
	*k = (struct kicker){.g = g, .runner = pthread_self()};
	ck_assert_int_eq(pthread_create(thread, NULL, kick, k), 0);
}

START_TEST(a_kick_ends_a_guest_that_never_would)
{
	struct kicker k;
	pthread_t thread;
	struct guest g;

	OPEN_GUEST(&g, guest_spin);
	ck_assert_int_eq(wvm_kvm_set(g.v, WVM_KVM_ALL), 0);
	start_kicking(&k, &g, &thread);
	for (unsigned i = 0; i < 20; i++)
		ck_assert_int_eq(run(&g).kind, WVM_KVM_EXIT_KICKED);
	__atomic_store_n(&k.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	ck_assert_uint_gt(*(uint64_t *)(void *)(g.mem + DATA), 0);
	close_guest(&g);
}
END_TEST

/* ---- moving ---------------------------------------------------------------------------- */

#define STEPS UINT64_C(100000000)

struct sums {
	uint64_t rax, xmm, fs, memory[4096];
};

static void compute(struct sums *s)
{
	uint64_t a = 12345;

	memset(s, 0, sizeof(*s));
	for (uint64_t i = 0; i < STEPS; i++) {
		a = a * 0x41c64e6d + 0x3039;
		s->memory[a >> 20 & 0xfff] += a;
		s->xmm += a;
		s->fs += a;
	}
	s->rax = a;
}

/* The state goes to the other VM as a delta to what that one had last. */
static void move(struct guest *from, struct guest *to, uint8_t *delta, uint64_t *bytes)
{
	const struct wvm_vcpu_layout *l = wvm_kvm_layout();
	uint32_t changed;
	size_t used;

	ck_assert_msg(wvm_kvm_get(from->v, WVM_KVM_ALL) == 0, "%s", wvm_kvm_error());
	used = wvm_vcpu_delta(l, wvm_kvm_state(to->v), wvm_kvm_state(from->v), WVM_KVM_ALL, delta,
			      wvm_vcpu_delta_most(l));
	ck_assert_int_eq(wvm_vcpu_apply(l, wvm_kvm_state(to->v), delta, used, &changed), 0);
	ck_assert(!memcmp(wvm_kvm_state(to->v), wvm_kvm_state(from->v), l->bytes));
	ck_assert_msg(wvm_kvm_set(to->v, changed) == 0, "%s", wvm_kvm_error());
	*bytes += used;
}

START_TEST(a_running_processor_moves_between_two_and_computes_the_same)
{
	uint8_t *delta = malloc(wvm_vcpu_delta_most(wvm_kvm_layout()));
	struct sums *want = malloc(sizeof(*want));
	unsigned moves = 0, at = 0;
	struct kicker k;
	pthread_t thread;
	struct wvm_kvm_exit e;
	struct guest g[2];
	struct kvm_regs *regs;
	uint64_t bytes = 0, left = STEPS;
	unsigned ran[2] = {0};

	open_guest(&g[1]);
	OPEN_GUEST(&g[0], guest_sum);
	regs = section(&g[0], WVM_KVM_REGS);
	regs->rax = 12345;
	regs->rcx = STEPS;
	ck_assert_int_eq(wvm_kvm_set(g[0].v, WVM_KVM_ALL), 0);
	start_kicking(&k, &g[0], &thread);
	while ((e = run(&g[at])).kind == WVM_KVM_EXIT_KICKED) {
		move(&g[at], &g[!at], delta, &bytes);
		ran[at] += ((struct kvm_regs *)section(&g[at], WVM_KVM_REGS))->rcx != left;
		left = ((struct kvm_regs *)section(&g[at], WVM_KVM_REGS))->rcx;
		at = !at;
		__atomic_store_n(&k.g, &g[at], __ATOMIC_RELEASE);
		moves++;
	}
	__atomic_store_n(&k.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	ck_assert_int_eq(e.kind, WVM_KVM_EXIT_PIO);
	ck_assert_int_eq(wvm_kvm_complete(g[at].v), 0);
	ck_assert_int_eq(wvm_kvm_get(g[at].v, WVM_KVM_ALL), 0);
	regs = section(&g[at], WVM_KVM_REGS);
	compute(want);
	ck_assert_uint_eq(regs->rcx, 0);
	/* PORT went into dx, and nothing into ax. */
	ck_assert_uint_eq(regs->rax, want->rax);
	ck_assert_uint_eq(regs->rbx, want->xmm);
	ck_assert_uint_eq(*(uint64_t *)(void *)(g[0].mem + DATA + 0x10000), want->fs);
	ck_assert(!memcmp(g[0].mem + DATA, want->memory, sizeof(want->memory)));
	/* Both got somewhere, again and again. */
	ck_assert_uint_gt(ran[0], 10);
	ck_assert_uint_gt(ran[1], 10);
	printf("proof: moves of a running processor: %u, %llu bytes each\n", moves,
	       (unsigned long long)(bytes / moves));
	close_guest(&g[0]);
	close_guest(&g[1]);
	free(want);
	free(delta);
}
END_TEST

/* ---- what cannot be -------------------------------------------------------------------- */

START_TEST(what_kvm_does_not_take_is_an_error_with_a_line)
{
	struct guest g;
	uint64_t *msrs;

	open_guest(&g);
	ck_assert_int_lt(wvm_kvm_map(g.kvm, 0x123, g.mem, MEM, false), 0);
	ck_assert_ptr_nonnull(strstr(wvm_kvm_error(), "0x123"));
	ck_assert_ptr_null(wvm_kvm_vcpu_open(g.kvm, 0, NULL)); /* there is one already */
	ck_assert_ptr_nonnull(strstr(wvm_kvm_error(), "processor 0"));
	ck_assert_int_eq(wvm_kvm_get(g.v, WVM_KVM_ALL), 0);
	/* An address that no processor has. */
	msrs = section(&g, WVM_KVM_MSRS);
	for (unsigned i = 0; i < wvm_kvm_msr_count; i++)
		if (wvm_kvm_msrs[i] == 0xc0000082)
			msrs[i] = UINT64_C(0x8000000000000000);
	ck_assert_int_lt(wvm_kvm_set(g.v, 1u << WVM_KVM_MSRS), 0);
	ck_assert_ptr_nonnull(strstr(wvm_kvm_error(), "0xc0000082"));
	close_guest(&g);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kvm");
	TCase *t = tcase_create("kvm");
	SRunner *runner;
	int failed;

	if (access("/dev/kvm", R_OK | W_OK)) {
		printf("SKIPPED: check_kvm: needs /dev/kvm\n");
		return 0;
	}
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_guest_reads_and_writes_ports);
	tcase_add_test(t, a_guest_reads_and_writes_where_no_memory_is);
	tcase_add_test(t, a_guest_that_cannot_go_on_is_reported_each_time);
	tcase_add_loop_test(t, an_interrupt_that_comes_with_a_new_state_is_taken, 0, 4);
	tcase_add_test(t, a_kick_before_a_run_ends_it_at_once);
	tcase_add_test(t, a_kick_ends_a_guest_that_never_would);
	tcase_add_test(t, a_running_processor_moves_between_two_and_computes_the_same);
	tcase_add_test(t, what_kvm_does_not_take_is_an_error_with_a_line);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

/*
 * Processors that KVM runs on several nodes, with real masters and slaves: guests in ring 3, whose
 * memory is the cluster's. What they compute is compared with the same computation made here.
 */
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/remote.h"

#define ROUNDS      UINT64_C(10000000) /* of each processor, through one lock */
#define MOVES       10000u
/*
 * Of each processor, through a lock that goes round: the default is for each day, LOCK_ROUNDS=50000
 * in the environment for 10^5 changes of ownership and 10^7 increments.
 */
#define FAIR_ROUNDS UINT64_C(500)
#define FAIR_STEPS  UINT64_C(100) /* increments while it has the lock */
#define WORDS       512u          /* of the walk: a page */

extern const char guest_lock[], guest_lock_end[], guest_fair[], guest_fair_end[], guest_walk[],
	guest_walk_end[], guest_touch[], guest_touch_end[];
__asm__(".pushsection .rodata\n"
	/* rcx times: a lock at (rsi), sums behind it, and a counter on another page. r12: who. */
	"guest_lock:\n"
	"1: mov $1, %eax\n"
	"   xchg %eax, (%rsi)\n"
	"   test %eax, %eax\n"
	"   jz 2f\n"
	"   pause\n"
	"   jmp 1b\n"
	"2: incq 8(%rsi)\n"
	"   mov 8(%rsi), %rax\n"
	"   add %rax, 16(%rsi)\n"
	"   cmp %r12, 24(%rsi)\n"
	"   je 3f\n"
	"   mov %r12, 24(%rsi)\n"
	"   incq 32(%rsi)\n"
	"3: movl $0, (%rsi)\n"
	"   lock incq 8192(%rsi)\n"
	"   dec %rcx\n"
	"   jnz 1b\n"
	"   mov $0x3f8, %dx\n"
	"   out %al, %dx\n"
	"guest_lock_end:\n"
	/*
	 * The same, r14 increments at a time and r15 times, with a lock that is had in the order of
	 * asking (r13), and is given up, but for the last time, when the other one has asked for
	 * it. Who waits leaves the guest, by cpuid, so that threads that are woken there get the
	 * CPU.
	 */
	"guest_fair:\n"
	"1: mov $1, %r13d\n"
	"   lock xadd %r13d, (%rsi)\n"
	"   jmp 3f\n"
	"2: cpuid\n"
	"3: cmp %r13d, 4(%rsi)\n"
	"   jne 2b\n"
	"   mov %r14, %rdx\n"
	"4: incq 8(%rsi)\n"
	"   mov 8(%rsi), %rax\n"
	"   add %rax, 16(%rsi)\n"
	"   dec %rdx\n"
	"   jnz 4b\n"
	"   cmp %r12, 24(%rsi)\n"
	"   je 5f\n"
	"   mov %r12, 24(%rsi)\n"
	"   incq 32(%rsi)\n"
	"5: cmp $1, %r15\n"
	"   je 7f\n"
	"   jmp 6f\n"
	"8: cpuid\n"
	"6: mov (%rsi), %eax\n"
	"   sub 4(%rsi), %eax\n"
	"   cmp $2, %eax\n"
	"   jb 8b\n"
	"7: incl 4(%rsi)\n"
	"   lock add %r14, 8192(%rsi)\n"
	"   dec %r15\n"
	"   jnz 1b\n"
	"   mov $0x3f8, %dx\n"
	"   out %al, %dx\n"
	"guest_fair_end:\n"
	/* Steps of a random walk until the flag is set; r8 counts, rax generates. */
	"guest_walk:\n"
	"1: imul $0x41c64e6d, %rax, %rax\n"
	"   add $0x3039, %rax\n"
	"   mov %rax, %rdx\n"
	"   shr $20, %rdx\n"
	"   and $0x1ff, %rdx\n"
	"   add %rax, (%rsi, %rdx, 8)\n"
	"   movq %rax, %xmm1\n"
	"   paddq %xmm1, %xmm0\n"
	"   vmovq %rax, %xmm2\n"
	"   vinsertf128 $1, %xmm2, %ymm2, %ymm2\n"
	"   vxorps %ymm2, %ymm3, %ymm3\n"
	"   add %rax, %fs:0\n"
	"   push %rax\n"
	"   pop %r9\n"
	"   add %r9, %r10\n"
	"   inc %r8\n"
	"   cmpb $0, (%rdi)\n"
	"   jz 1b\n"
	"   mov $0x3f8, %dx\n"
	"   out %al, %dx\n"
	"guest_walk_end:\n"
	/* Writes a word of each page from rsi on. */
	"guest_touch:\n"
	"1: incq (%rsi)\n"
	"   add $4096, %rsi\n"
	"   jmp 1b\n"
	"guest_touch_end:\n"
	".popsection");

static struct cluster cluster;
static pid_t slaves[2];
static struct wvm *wvm;
static uint8_t *mem;
static struct remote cpus[2];

/*
 * Guests have CPU 1, all else CPU 0. A KVM that is in a virtual machine itself (PVM) was seen to
 * lose what another CPU tells the one that is in a guest, so that a thread which is woken there
 * does not run for seconds.
 */
static const char guests[] = "--cpus=1";
enum { GUESTS_CPU = 1, OTHER_CPU = 0 };

static void stay_on(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* With masters and owner on that CPU. */
static void start_on(unsigned cpu, const char *code, const char *end)
{
	static const struct cluster_opts opts = {.nodes = 2, .vm = "1:64M"};
	const char *const all_else[] = {"--cpus", cpu == GUESTS_CPU ? "1" : "0", NULL};

	cluster_prepare(&cluster, &opts);
	for (unsigned i = 0; i < 2; i++)
		cluster_node_start(&cluster, i, all_else);
	for (unsigned i = 0; i < 2; i++) {
		cluster_node_await(&cluster, i);
		slaves[i] = slave_start(&cluster, i, guests);
	}
	stay_on(cpu);
	ck_assert_msg(!wvm_attach(&wvm, cluster.node[0].ring), "%s", wvm_attach_error());
	mem = wvm_map(wvm, CLUSTER_VM, 0, REMOTE_MEM, WVM_STRICT);
	ck_assert_msg(mem != NULL, "%s", wvm_attach_error());
	bare_fill(mem, code, end);
	for (unsigned i = 0; i < 2; i++) {
		remote_open(&cpus[i], wvm, i);
		remote_learn(&cpus[i], 0);
		remote_learn(&cpus[i], 1);
	}
}

static void start(const char *code, const char *end)
{
	start_on(OTHER_CPU, code, end);
}

static void stop(void)
{
	for (unsigned i = 0; i < 2; i++) {
		int status;

		remote_close(&cpus[i]);
		status = slave_end(slaves[i], SIGTERM);
		ck_assert(WIFEXITED(status));
		ck_assert_int_eq(WEXITSTATUS(status), 0);
	}
	wvm_detach(wvm);
	cluster_stop(&cluster);
}

static struct kvm_regs *regs(struct remote *r)
{
	return remote_section(r, WVM_KVM_REGS);
}

/* The write to the port ends a guest; then the processor is fetched whole. */
static void check_end(struct remote *r)
{
	ck_assert_msg(r->cpu.exit.kind == WVM_VCPU_EXIT_PIO, "%s: %.*s",
		      wvm_vcpu_exit_name(r->cpu.exit.kind), (int)r->cpu.exit.data_len,
		      (const char *)r->cpu.exit.data);
	ck_assert_uint_eq(r->cpu.exit.at, REMOTE_PORT);
	ck_assert_uint_eq(r->cpu.exit.flags & (WVM_VCPU_EXIT_MIDWAY | WVM_VCPU_EXIT_WRITE),
			  WVM_VCPU_EXIT_MIDWAY | WVM_VCPU_EXIT_WRITE);
	ck_assert_int_eq(
		remote_run(r, r->cpu.at->node, WVM_VCPU_RUN_RESUME | WVM_VCPU_RUN_GET).outcome,
		WVM_VCPU_ANSWERED);
	ck_assert_int_eq(r->cpu.exit.kind, WVM_VCPU_EXIT_KICKED);
	ck_assert_uint_ne(r->cpu.exit.flags & WVM_VCPU_EXIT_STATE, 0);
}

/* ---- two processors of one guest ------------------------------------------------------- */

static void *run_to_end(void *arg)
{
	struct remote *r = arg;
	unsigned node = r == &cpus[1];

	do
		ck_assert_int_eq(remote_run(r, node, 0).outcome, WVM_VCPU_ANSWERED);
	while (r->cpu.exit.kind == WVM_VCPU_EXIT_KICKED);
	return NULL;
}

/* Both to their end, each so many rounds; how long it took. What they leave is at REMOTE_DATA. */
static uint64_t run_both(unsigned cpu, const char *code, const char *end, uint64_t rounds)
{
	pthread_t thread;
	uint64_t began;

	start_on(cpu, code, end);
	for (unsigned i = 0; i < 2; i++) {
		regs(&cpus[i])->rcx = regs(&cpus[i])->r15 = rounds;
		regs(&cpus[i])->r14 = FAIR_STEPS;
		regs(&cpus[i])->r12 = i + 1;
	}
	began = cluster_now_ms();
	ck_assert_int_eq(pthread_create(&thread, NULL, run_to_end, &cpus[1]), 0);
	run_to_end(&cpus[0]);
	pthread_join(thread, NULL);
	return cluster_now_ms() - began;
}

/* Behind the lock: a counter, the sum of all it has been, who had it last, and changes of that. */
static uint64_t check_data(uint64_t lock, uint64_t count)
{
	const uint64_t *data = (const uint64_t *)(const void *)(mem + REMOTE_DATA);

	ck_assert_uint_eq(data[0], lock);
	ck_assert_uint_eq(data[1], count);
	ck_assert_uint_eq(data[2], count / 2 * (count + 1));
	ck_assert_uint_eq(data[1024], count);
	for (unsigned i = 0; i < 2; i++) {
		check_end(&cpus[i]);
		ck_assert(!regs(&cpus[i])->rcx || !regs(&cpus[i])->r15);
	}
	return data[4];
}

START_TEST(processors_on_two_nodes_share_a_lock_and_counters)
{
	uint64_t ms = run_both(OTHER_CPU, guest_lock, guest_lock_end, ROUNDS);
	uint64_t changes = check_data(0, 2 * ROUNDS);

	printf("proof: two processors on two nodes: %llu rounds through one lock in %llu ms, the lock "
	       "went over %llu times\n",
	       (unsigned long long)(2 * ROUNDS), (unsigned long long)ms,
	       (unsigned long long)changes);
	ck_assert_uint_gt(changes, 5);
	stop();
}
END_TEST

START_TEST(a_fair_lock_goes_to_and_fro_between_nodes)
{
	const char *asked = getenv("LOCK_ROUNDS");
	uint64_t rounds = asked ? strtoull(asked, NULL, 0) : FAIR_ROUNDS, ms, changes;

	ck_assert_uint_gt(rounds, 0);
	/* The lock goes over at each wake of a processor: twice as often where none comes from
	 * afar. */
	ms = run_both(GUESTS_CPU, guest_fair, guest_fair_end, rounds);
	changes = check_data(2 * rounds << 32 | 2 * rounds, 2 * rounds * FAIR_STEPS);
	printf("proof: a fair lock between two nodes: %llu increments in %llu ms, the lock went over "
	       "%llu times\n",
	       (unsigned long long)(2 * rounds * FAIR_STEPS), (unsigned long long)ms,
	       (unsigned long long)changes);
	ck_assert_uint_eq(changes, 2 * rounds);
	stop();
}
END_TEST

/* ---- moving ---------------------------------------------------------------------------- */

struct walk {
	uint64_t rax, xmm, ymm, fs, r10, memory[WORDS];
};

static void compute(struct walk *w, uint64_t steps)
{
	uint64_t a = 12345;

	memset(w, 0, sizeof(*w));
	for (uint64_t i = 0; i < steps; i++) {
		a = a * 0x41c64e6d + 0x3039;
		w->memory[a >> 20 & (WORDS - 1)] += a;
		w->xmm += a;
		w->ymm ^= a;
		w->fs += a;
		w->r10 += a;
	}
	w->rax = a;
}

static atomic_bool walked;

static void *kick_often(void *arg)
{
	while (!atomic_load(&walked)) {
		usleep(1000);
		wvm_vcpu_kick(cpus[0].cpu.l);
	}
	return NULL;
}

/* At its new place it is as it was at the old one, but for the clock. */
static void check_arrival(struct remote *r, unsigned node)
{
	static const enum wvm_kvm_section same[] = {WVM_KVM_REGS, WVM_KVM_SREGS, WVM_KVM_XSAVE,
						    WVM_KVM_XCRS, WVM_KVM_EVENTS};
	const struct wvm_vcpu_layout *l = wvm_kvm_layout();
	uint8_t *before = malloc(l->bytes);

	memcpy(before, r->cpu.state, l->bytes);
	ck_assert_int_eq(remote_run(r, node, WVM_VCPU_RUN_GET).outcome, WVM_VCPU_ANSWERED);
	ck_assert_int_eq(r->cpu.exit.kind, WVM_VCPU_EXIT_KICKED);
	for (unsigned i = 0; i < sizeof(same) / sizeof(same[0]); i++)
		ck_assert_msg(!memcmp(before + l->at[same[i]], r->cpu.state + l->at[same[i]],
				      l->len[same[i]]),
			      "section %u", same[i]);
	free(before);
}

static void check_walk(struct remote *r)
{
	const struct kvm_xsave *x = remote_section(r, WVM_KVM_XSAVE);
	const struct kvm_sregs *s = remote_section(r, WVM_KVM_SREGS);
	const uint8_t *area = (const uint8_t *)x;
	struct walk *want = malloc(sizeof(*want));
	uint64_t xmm0, ymm3[2];

	compute(want, regs(r)->r8);
	memcpy(&xmm0, area + 160, 8);
	memcpy(&ymm3[0], area + 160 + 3 * 16, 8);
	memcpy(&ymm3[1], area + 576 + 3 * 16, 8);
	ck_assert_uint_eq(regs(r)->rax, want->rax);
	ck_assert_uint_eq(regs(r)->r10, want->r10);
	ck_assert_uint_eq(regs(r)->rsp, REMOTE_STACK);
	ck_assert_uint_eq(xmm0, want->xmm);
	ck_assert_uint_eq(ymm3[0], want->ymm);
	ck_assert_uint_eq(ymm3[1], want->ymm);
	ck_assert_uint_eq(s->fs.base, REMOTE_FS);
	ck_assert_uint_eq(*(uint64_t *)(void *)(mem + REMOTE_FS), want->fs);
	ck_assert(!memcmp(mem + REMOTE_DATA, want->memory, sizeof(want->memory)));
	free(want);
}

START_TEST(a_running_processor_moves_between_nodes_and_computes_the_same)
{
	struct remote *r = &cpus[0];
	unsigned moves = 0, got_on = 0, node = 0;
	uint64_t began, last = 0;
	pthread_t thread;

	start(guest_walk, guest_walk_end);
	regs(r)->rax = 12345;
	regs(r)->rdi = REMOTE_FLAG;
	atomic_store(&walked, false);
	ck_assert_int_eq(pthread_create(&thread, NULL, kick_often, NULL), 0);
	began = cluster_now_ms();
	for (;;) {
		struct wvm_vcpu_answer a = remote_run(r, node, 0);

		ck_assert_msg(a.outcome == WVM_VCPU_ANSWERED, "%s (%s)", wvm_vcpu_error(),
			      wvm_run_reason_text(a.reason));
		if (r->cpu.exit.kind != WVM_VCPU_EXIT_KICKED)
			break;
		got_on += regs(r)->r8 != last;
		last = regs(r)->r8;
		if (++moves == MOVES)
			mem[REMOTE_FLAG] = 1;
		node = !node;
		if (moves % 64 == 0)
			check_arrival(r, node);
	}
	atomic_store(&walked, true);
	pthread_join(thread, NULL);
	check_end(r);
	printf("proof: moves of a running processor between nodes: %u, in %u of them it got on, "
	       "%llu steps; %llu ms, %llu bytes of state an answer\n",
	       moves, got_on, (unsigned long long)regs(r)->r8,
	       (unsigned long long)(cluster_now_ms() - began),
	       (unsigned long long)(r->bytes / moves));
	ck_assert_uint_ge(moves, MOVES);
	ck_assert_uint_gt(got_on, MOVES / 20);
	check_walk(r);
	stop();
}
END_TEST

/* ---- what cannot be -------------------------------------------------------------------- */

/* A page whose home is silent: the guest gets no other bytes, and its owner is told. */
START_TEST(memory_that_cannot_be_had_ends_the_run_with_an_error)
{
	struct remote *r = &cpus[0];
	uint64_t began;
	char text[256];

	start(guest_touch, guest_touch_end);
	/* Where nobody has been yet; the table of pages reaches further than what is touched here.
	 */
	regs(r)->rsi = REMOTE_MEM / 2;
	ck_assert_int_eq(kill(cluster.node[1].pid, SIGSTOP), 0);
	began = cluster_now_ms();
	ck_assert_int_eq(remote_run(r, 0, 0).outcome, WVM_VCPU_ANSWERED);
	ck_assert_int_eq(kill(cluster.node[1].pid, SIGCONT), 0);
	ck_assert_int_eq(r->cpu.exit.kind, WVM_VCPU_EXIT_ERROR);
	snprintf(text, sizeof(text), "%.*s", (int)r->cpu.exit.data_len,
		 (const char *)r->cpu.exit.data);
	printf("proof: memory of a silent home, after %llu ms: %s\n",
	       (unsigned long long)(cluster_now_ms() - began), text);
	ck_assert_uint_gt(strlen(text), 10);
	stop();
}
END_TEST

START_TEST(a_run_whose_slave_is_killed_is_lost_and_not_run_again)
{
	struct remote *r = &cpus[0];
	struct wvm_vcpu_answer a;
	pthread_t thread;

	start(guest_walk, guest_walk_end);
	regs(r)->rdi = REMOTE_FLAG;
	atomic_store(&walked, false);
	ck_assert_int_eq(pthread_create(&thread, NULL, kick_often, NULL), 0);
	ck_assert_int_eq(remote_run(r, 1, 0).outcome, WVM_VCPU_ANSWERED);
	ck_assert_int_eq(r->cpu.exit.kind, WVM_VCPU_EXIT_KICKED);
	atomic_store(&walked, true);
	pthread_join(thread, NULL);
	slave_end(slaves[1], SIGKILL);
	slaves[1] = slave_start(&cluster, 1, guests);
	a = remote_run(r, 1, 0);
	ck_assert_int_eq(a.outcome, WVM_VCPU_LOST);
	/* The next life takes the whole state. */
	remote_learn(r, 1);
	bare_cpu_forget(&r->cpu);
	mem[REMOTE_FLAG] = 1;
	ck_assert_int_eq(remote_run(r, 1, 0).outcome, WVM_VCPU_ANSWERED);
	check_end(r);
	stop();
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("processors by KVM");
	TCase *t = cluster_tcase(s, "processors by KVM", 240);

	tcase_add_test(t, processors_on_two_nodes_share_a_lock_and_counters);
	tcase_add_test(t, a_running_processor_moves_between_nodes_and_computes_the_same);
	tcase_add_test(t, memory_that_cannot_be_had_ends_the_run_with_an_error);
	tcase_add_test(t, a_run_whose_slave_is_killed_is_lost_and_not_run_again);
	t = cluster_tcase(s, "a lock that goes round", 3600); /* as long as LOCK_ROUNDS asks for */
	tcase_add_test(t, a_fair_lock_goes_to_and_fro_between_nodes);
	return s;
}

int main(int argc, char **argv)
{
	Suite *(*const make[])(void) = {suite};

	(void)argc;
	if (access("/dev/kvm", R_OK | W_OK)) {
		printf("SKIPPED: check_vcpu_kvm: needs /dev/kvm\n");
		return 0;
	}
	if (!__builtin_cpu_supports("avx")) {
		printf("SKIPPED: check_vcpu_kvm: needs AVX\n");
		return 0;
	}
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
		printf("SKIPPED: check_vcpu_kvm: needs two CPUs\n");
		return 0;
	}
	return cluster_main(argv, make, 1);
}

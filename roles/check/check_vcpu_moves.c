/*
 * Processors on other nodes, by KVM, over real masters and slaves: this program owns a VM of 64-bit
 * code in ring 3 and has no device but a port. What the guest computes on several nodes is compared
 * with the same guest run by one KVM here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/bare.h"
#include "roles/check/cluster.h"

#define NODES 3u /* the owner's is 0 */
#define MEM   (UINT64_C(8) << 20)
#define STACK 0x102800u /* on the page that fs and gs are on */
#define DATA  0x100000u
#define PORT  0x3f8u

#define TURNS UINT64_C(20000) /* of each processor that shares counters */
#define MOVES 10000u
#define AFTER UINT64_C(100000) /* steps after the last move */

/* Instructions of the guests, between two labels. */
extern const char guest_walk[], guest_walk_end[], guest_share[], guest_share_end[], guest_clock[],
	guest_clock_end[], guest_halt[], guest_halt_end[];
__asm__(".pushsection .rodata\n"
	/* rcx steps of a random walk: rax the generator, rsi memory; sums in registers of each
	   kind, and by way of fs and gs. */
	"guest_walk:\n"
	"1: imul $0x41c64e6d, %rax, %rax\n"
	"   add $0x3039, %rax\n"
	"   mov %rax, %rdx\n"
	"   shr $20, %rdx\n"
	"   and $0x3ff, %rdx\n"
	"   add %rax, (%rsi, %rdx, 8)\n"
	"   vmovq %rax, %xmm1\n"
	"   vpbroadcastq %xmm1, %ymm2\n"
	"   vpaddq %ymm2, %ymm3, %ymm3\n"
	"   vpxor %ymm3, %ymm4, %ymm4\n"
	"   vpermq $0x39, %ymm4, %ymm4\n"
	"   movq %rax, %xmm5\n"
	"   paddq %xmm5, %xmm6\n"
	"   add %rax, %fs:0\n"
	"   xor %rax, %gs:8\n"
	"   lea (%r8, %rax), %r8\n"
	"   xor %r8, %r9\n"
	"   push %r9\n"
	"   pop %r10\n"
	"   add %r10, %r11\n"
	"   dec %rcx\n"
	"   jnz 1b\n"
	"   mov $0x3f8, %dx\n"
	"   out %al, %dx\n"
	"guest_walk_end:\n"
	/* In ring 0, counts in registers of two kinds how often it has halted. */
	"guest_halt:\n"
	"1: inc %rcx\n"
	"   mov %rcx, %dr0\n"
	"   hlt\n"
	"   jmp 1b\n"
	"guest_halt_end:\n"
	/* rcx turns: rsi a counter by lock, rdi a lock with two counters on other pages. */
	"guest_share:\n"
	"1: lock incq (%rsi)\n"
	"2: mov $1, %eax\n"
	"   xchg %eax, (%rdi)\n"
	"   test %eax, %eax\n"
	"   jz 4f\n"
	"3: pause\n"
	"   cmpl $0, (%rdi)\n"
	"   jne 3b\n"
	"   jmp 2b\n"
	"4: incq 4096(%rdi)\n"
	"   incq 8192(%rdi)\n"
	"   movl $0, (%rdi)\n"
	"   dec %rcx\n"
	"   jnz 1b\n"
	"   mov $0x3f8, %dx\n"
	"   out %al, %dx\n"
	"guest_share_end:\n"
	/* rbx the highest time stamp, r12 how often one was lower. */
	"guest_clock:\n"
	"1: rdtsc\n"
	"   shl $32, %rdx\n"
	"   or %rdx, %rax\n"
	"   cmp %rbx, %rax\n"
	"   jae 2f\n"
	"   inc %r12\n"
	"   jmp 1b\n"
	"2: mov %rax, %rbx\n"
	"   jmp 1b\n"
	"guest_clock_end:\n"
	".popsection");

static struct cluster cluster;
static struct {
	pid_t pid;
	char log[192];
} slave[NODES];

/* ---- slaves ---------------------------------------------------------------------------- */

static void start_slave(unsigned i)
{
	const struct cluster_node *n = &cluster.node[i];
	char program[4200], port[8], id[8];

	snprintf(program, sizeof(program), "%s/wavevm_node_slave", cluster_bin());
	snprintf(port, sizeof(port), "%u", n->slave_port);
	snprintf(id, sizeof(id), "%u", i);
	snprintf(slave[i].log, sizeof(slave[i].log), "%s/slave.%u", cluster_dir(), i);
	fflush(NULL);
	slave[i].pid = fork();
	ck_assert_int_ge(slave[i].pid, 0);
	if (!slave[i].pid) {
		int log = open(slave[i].log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		dup2(log, 2);
		execl(program, program, port, "1", "1024", id, "9", "--ring-path", n->ring, NULL);
		_exit(127);
	}
}

static void end_slave(unsigned i)
{
	static char text[CLUSTER_OUT_BYTES];
	int status;

	kill(slave[i].pid, SIGTERM);
	ck_assert_int_eq(waitpid(slave[i].pid, &status, 0), slave[i].pid);
	cluster_read(slave[i].log, text, sizeof(text));
	ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status), "slave %u: status %#x: %s", i,
		      (unsigned)status, text);
}

static void setup(void)
{
	static const struct cluster_opts opts = {.nodes = NODES, .vm = "1:1G"};

	cluster_start(&cluster, &opts);
	for (unsigned i = 0; i < NODES; i++)
		start_slave(i);
}

static void teardown(void)
{
	for (unsigned i = 0; i < NODES; i++)
		end_slave(i);
	cluster_stop(&cluster);
}

/* ---- the machine ----------------------------------------------------------------------- */

/* A processor, with nothing but what the machine needs; KVM says what the rest is. */
static void first_state(struct wvm_kvm_vcpu *v)
{
	uint8_t *state = wvm_kvm_state(v);
	struct kvm_sregs *s = wvm_kvm_section(state, WVM_KVM_SREGS);
	struct kvm_regs *r = wvm_kvm_section(state, WVM_KVM_REGS);

	ck_assert_msg(!wvm_kvm_get(v, WVM_KVM_ALL), "%s", wvm_kvm_error());
	bare_state(state, 3);
	s->fs.base = DATA + 0x2000;
	s->gs.base = DATA + 0x2100;
	r->rsp = STACK;
	r->rsi = DATA;
	r->rax = 12345;
}

/* ---- the owner ------------------------------------------------------------------------- */

struct cpu {
	struct bare_cpu bare;
	struct bare_slave slave[NODES];
	unsigned at; /* where it runs */
	uint64_t bytes;
	uint64_t turn; /* atomic; odd: a run is under way */
};

static const char machine[] = "vcpus 2\nmap 0 800000 0\n";

static void open_cpu(struct cpu *c, struct wvm *w, unsigned index, const void *state)
{
	struct wvm_vcpu_hello h;

	memset(c, 0, sizeof(*c));
	ck_assert_int_eq(bare_cpu_init(&c->bare, machine), 0);
	memcpy(c->bare.state, state, wvm_kvm_layout()->bytes);
	ck_assert_msg(!wvm_vcpu_open(&c->bare.l, w, CLUSTER_VM, index), "%s", wvm_vcpu_error());
	for (unsigned i = 0; i < NODES; i++) {
		int r;

		c->slave[i].node = i;
		for (unsigned k = 0;
		     (r = wvm_vcpu_hello(c->bare.l, i, &c->slave[i].life, &h)) && k < 5; k++)
			;
		ck_assert_msg(!r, "%s", wvm_vcpu_error());
		ck_assert(h.engines & 1u << WVM_VCPU_ENGINE_KVM);
	}
}

static void close_cpu(struct cpu *c)
{
	wvm_vcpu_close(c->bare.l);
	bare_cpu_fini(&c->bare);
}

static struct kvm_regs *regs(struct cpu *c)
{
	return wvm_kvm_section(c->bare.state, WVM_KVM_REGS);
}

static struct wvm_vcpu_answer send(struct cpu *c, uint8_t flags)
{
	struct wvm_vcpu_answer a;
	int ret;

	__atomic_fetch_add(&c->turn, 1, __ATOMIC_SEQ_CST);
	ret = bare_cpu_run(&c->bare, &c->slave[c->at], flags, &a);
	__atomic_fetch_add(&c->turn, 1, __ATOMIC_SEQ_CST);
	ck_assert_msg(!ret, "%s (%s)", strerror(-ret), wvm_vcpu_error());
	c->bytes += c->bare.sent_bytes + a.len;
	return a;
}

/* One run, wherever it is now. Its state is the newest afterwards, unless it is MIDWAY. */
static uint8_t step(struct cpu *c, uint8_t flags)
{
	struct wvm_vcpu_answer a = send(c, flags);
	const struct wvm_vcpu_exit *e = &c->bare.exit;

	ck_assert_msg(a.outcome == WVM_VCPU_ANSWERED, "outcome %u: %s: %s", a.outcome,
		      wvm_run_reason_text(a.reason), wvm_vcpu_error());
	ck_assert_msg(e->kind != WVM_VCPU_EXIT_ERROR, "%.*s", (int)e->data_len,
		      (const char *)e->data);
	ck_assert(e->flags & (WVM_VCPU_EXIT_STATE | WVM_VCPU_EXIT_MIDWAY | WVM_VCPU_EXIT_STAYS));
	return e->kind;
}

/* The guest has written to its port: it is completed, and its state is here. */
static void finish(struct cpu *c)
{
	ck_assert_msg(c->bare.exit.kind == WVM_VCPU_EXIT_PIO, "%s at %#lx",
		      wvm_vcpu_exit_name(c->bare.exit.kind), c->bare.exit.ip);
	ck_assert(c->bare.exit.flags & WVM_VCPU_EXIT_WRITE && c->bare.exit.at == PORT &&
		  c->bare.exit.size == 1 && c->bare.exit.count == 1);
	ck_assert_uint_eq(step(c, WVM_VCPU_RUN_RESUME | WVM_VCPU_RUN_GET), WVM_VCPU_EXIT_KICKED);
	ck_assert(c->bare.exit.flags & WVM_VCPU_EXIT_STATE);
}

/* Kicks a run that has been under way for some time: one that has not begun would do nothing. */
struct kicker {
	struct cpu *cpu;
	pthread_t thread;
	bool stop; /* atomic */
	unsigned after_us;
};

static void *kick(void *arg)
{
	struct kicker *k = arg;

	while (!__atomic_load_n(&k->stop, __ATOMIC_ACQUIRE)) {
		uint64_t turn = __atomic_load_n(&k->cpu->turn, __ATOMIC_SEQ_CST);

		usleep(turn % 2 ? k->after_us : 20);
		if (turn % 2 && turn == __atomic_load_n(&k->cpu->turn, __ATOMIC_SEQ_CST))
			wvm_vcpu_kick(k->cpu->bare.l);
	}
	return NULL;
}

static void start_kicking(struct kicker *k, struct cpu *c, unsigned after_us)
{
	*k = (struct kicker){.cpu = c, .after_us = after_us};
	ck_assert_int_eq(pthread_create(&k->thread, NULL, kick, k), 0);
}

static void stop_kicking(struct kicker *k)
{
	__atomic_store_n(&k->stop, true, __ATOMIC_RELEASE);
	pthread_join(k->thread, NULL);
}

/* ---- a reference, and states to begin with --------------------------------------------------- */

struct local {
	struct wvm_kvm *kvm;
	struct wvm_kvm_vcpu *v;
	uint8_t *mem;
};

static void open_local(struct local *l)
{
	l->mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(l->mem, MAP_FAILED);
	l->kvm = wvm_kvm_open();
	ck_assert_msg(l->kvm != NULL, "%s", wvm_kvm_error());
	ck_assert_int_eq(wvm_kvm_map(l->kvm, 0, l->mem, MEM, false), 0);
	l->v = wvm_kvm_vcpu_open(l->kvm, 0, NULL);
	ck_assert_msg(l->v != NULL, "%s", wvm_kvm_error());
	first_state(l->v);
}

static void close_local(struct local *l)
{
	wvm_kvm_vcpu_close(l->v);
	wvm_kvm_close(l->kvm);
	munmap(l->mem, MEM);
}

static void run_local(struct local *l)
{
	struct wvm_kvm_exit e;

	ck_assert_msg(!wvm_kvm_set(l->v, WVM_KVM_ALL), "%s", wvm_kvm_error());
	do
		ck_assert_msg(!wvm_kvm_run(l->v, -1, false, &e), "%s", wvm_kvm_error());
	while (e.kind == WVM_KVM_EXIT_KICKED);
	ck_assert_int_eq(e.kind, WVM_KVM_EXIT_PIO);
	ck_assert_int_eq(wvm_kvm_complete(l->v), 0);
	ck_assert_int_eq(wvm_kvm_get(l->v, WVM_KVM_ALL), 0);
}

#define XMM  160u /* in the XSAVE area: the 16 registers' lower halves, */
#define YMM  576u /* and their upper ones */
#define HALF 256u

static void compare(struct cpu *c, struct local *l)
{
	static const enum wvm_kvm_section alike[] = {WVM_KVM_REGS, WVM_KVM_SREGS, WVM_KVM_XCRS,
						     WVM_KVM_DEBUG};
	const uint8_t *is = wvm_kvm_section(c->bare.state, WVM_KVM_XSAVE),
		      *want = wvm_kvm_section(wvm_kvm_state(l->v), WVM_KVM_XSAVE);

	for (unsigned i = 0; i < sizeof(alike) / sizeof(alike[0]); i++)
		ck_assert_msg(!memcmp(wvm_kvm_section(c->bare.state, alike[i]),
				      wvm_kvm_section(wvm_kvm_state(l->v), alike[i]),
				      wvm_kvm_layout()->len[alike[i]]),
			      "section %u is another one", alike[i]);
	ck_assert(!memcmp(is + XMM, want + XMM, HALF));
	ck_assert(!memcmp(is + YMM, want + YMM, HALF));
}

/* ---- tests ----------------------------------------------------------------------------- */

static uint8_t *map_guest(struct wvm **w)
{
	uint8_t *mem;

	ck_assert_msg(!wvm_attach(w, cluster.node[0].ring), "%s", wvm_attach_error());
	mem = wvm_map(*w, CLUSTER_VM, 0, MEM, WVM_STRICT);
	ck_assert_msg(mem != NULL, "%s", wvm_attach_error());
	memset(mem, 0, MEM);
	return mem;
}

START_TEST(a_processor_that_moves_computes_what_one_that_stays_does)
{
	static struct cpu c;
	unsigned moves = 0, got_on = 0;
	uint64_t left = UINT64_C(1) << 62, steps, began;
	struct kicker k;
	struct local l;
	struct wvm *w;
	uint8_t *mem = map_guest(&w);

	bare_fill(mem, guest_walk, guest_walk_end);
	open_local(&l);
	open_cpu(&c, w, 0, wvm_kvm_state(l.v));
	regs(&c)->rcx = left;
	began = cluster_now_ms();
	start_kicking(&k, &c, 400);
	for (; moves < MOVES; moves++) {
		c.at = 1 + moves % (NODES - 1);
		/* Its state comes with the kick, or stays and is fetched. */
		ck_assert_uint_eq(step(&c, moves % 5 ? 0 : WVM_VCPU_RUN_STAY),
				  WVM_VCPU_EXIT_KICKED);
		if (moves % 5 == 0)
			ck_assert_uint_eq(step(&c, WVM_VCPU_RUN_GET), WVM_VCPU_EXIT_KICKED);
		got_on += regs(&c)->rcx != left;
		left = regs(&c)->rcx;
	}
	stop_kicking(&k);
	steps = (UINT64_C(1) << 62) - left + AFTER;
	regs(&c)->rcx = AFTER; /* of the owner's own: a register that is changed here */
	while (step(&c, 0) == WVM_VCPU_EXIT_KICKED)
		;
	finish(&c);
	printf("proof: moves of a running processor between nodes: %u, %u of them further on, "
	       "%lu ms, %lu bytes each, %lu steps\n",
	       moves, got_on, cluster_now_ms() - began, c.bytes / moves, steps);
	ck_assert_uint_gt(got_on, MOVES / 10);

	bare_fill(l.mem, guest_walk, guest_walk_end);
	((struct kvm_regs *)wvm_kvm_section(wvm_kvm_state(l.v), WVM_KVM_REGS))->rcx = steps;
	run_local(&l);
	compare(&c, &l);
	ck_assert(!memcmp(mem, l.mem, MEM));
	close_cpu(&c);
	close_local(&l);
	wvm_detach(w);
}
END_TEST

struct sharer {
	struct cpu cpu;
	pthread_t thread;
	unsigned runs;
};

static void *share(void *arg)
{
	struct sharer *s = arg;

	while (s->runs++, step(&s->cpu, 0) == WVM_VCPU_EXIT_KICKED)
		;
	finish(&s->cpu);
	return NULL;
}

START_TEST(two_processors_on_two_nodes_share_counters_and_a_lock)
{
	static struct sharer s[2];
	struct kicker k[2];
	struct local l;
	struct wvm *w;
	uint8_t *mem = map_guest(&w);
	uint64_t total[3];

	bare_fill(mem, guest_share, guest_share_end);
	open_local(&l);
	for (unsigned i = 0; i < 2; i++) {
		open_cpu(&s[i].cpu, w, i, wvm_kvm_state(l.v));
		s[i].cpu.at = i + 1;
		regs(&s[i].cpu)->rcx = TURNS;
		regs(&s[i].cpu)->rdi = DATA + 0x1000;
		start_kicking(&k[i], &s[i].cpu, 1000 + 500 * i);
	}
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&s[i].thread, NULL, share, &s[i]), 0);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(s[i].thread, NULL);
		stop_kicking(&k[i]);
		ck_assert_uint_eq(regs(&s[i].cpu)->rcx, 0);
		ck_assert_uint_gt(s[i].runs, 1);
	}
	memcpy(&total[0], mem + DATA, 8);
	memcpy(&total[1], mem + DATA + 0x2000, 8);
	memcpy(&total[2], mem + DATA + 0x3000, 8);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(total[i], 2 * TURNS);
	for (unsigned i = 0; i < 2; i++)
		close_cpu(&s[i].cpu);
	printf("proof: two processors, %u and %u runs, counted to %lu together\n", s[0].runs,
	       s[1].runs, total[0]);
	close_local(&l);
	wvm_detach(w);
}
END_TEST

#define CLOCK_MOVES 1000u
#define AHEAD       UINT64_C(100000000) /* less than what KVM takes for the same time */

/* Also forward to what the owner has seen meanwhile, and for each node from where it came. */
START_TEST(time_never_goes_back)
{
	static struct cpu c;
	struct kicker k;
	struct local l;
	struct wvm *w;
	uint8_t *mem = map_guest(&w);
	uint64_t stamp = 0, grown = 0, ahead;

	bare_fill(mem, guest_clock, guest_clock_end);
	open_local(&l);
	open_cpu(&c, w, 0, wvm_kvm_state(l.v));
	/* Some KVMs, which run without the processor's help, let guests read the host's. */
	ahead = wvm_kvm_ticks(l.v) + (UINT64_C(1) << 50);
	ck_assert_int_eq(wvm_kvm_ticks_reach(l.v, ahead), 0);
	ahead = wvm_kvm_ticks(l.v) >= ahead ? AHEAD : 0;
	start_kicking(&k, &c, 100);
	for (unsigned i = 0; i < CLOCK_MOVES; i++) {
		uint64_t least = c.bare.exit.ticks += i % 10 == 5 ? ahead : 0;

		c.at = 1 + (i / 3) % (NODES - 1);
		ck_assert_uint_eq(step(&c, 0), WVM_VCPU_EXIT_KICKED);
		ck_assert_uint_eq(regs(&c)->r12, 0);
		ck_assert_uint_ge(c.bare.exit.ticks, least);
		ck_assert_uint_ge(c.bare.exit.ticks, regs(&c)->rbx);
		if (regs(&c)->rbx > stamp) {
			ck_assert_uint_ge(regs(&c)->rbx, least);
			grown++;
		}
		stamp = regs(&c)->rbx;
	}
	stop_kicking(&k);
	ck_assert_uint_gt(grown, CLOCK_MOVES / 10);
	printf("proof: time went on in %lu of %u runs%s\n", grown, CLOCK_MOVES,
	       ahead ? "" : "; not tried: forward, this KVM has none but the host's");
	close_cpu(&c);
	close_local(&l);
	wvm_detach(w);
}
END_TEST

static void refused(struct cpu *c, uint8_t flags, enum wvm_run_reason reason)
{
	struct wvm_vcpu_answer a = send(c, flags);

	ck_assert_uint_eq(a.outcome, WVM_VCPU_REFUSED);
	ck_assert_str_eq(wvm_run_reason_text(a.reason), wvm_run_reason_text(reason));
}

START_TEST(what_does_not_fit_to_where_a_processor_is_is_refused)
{
	static struct cpu c;
	struct local l;
	struct wvm *w;
	uint8_t *mem = map_guest(&w);

	bare_fill(mem, guest_walk, guest_walk_end);
	open_local(&l);
	open_cpu(&c, w, 1, wvm_kvm_state(l.v));
	regs(&c)->rcx = 1;
	c.at = 1;
	c.slave[1].told = true;
	refused(&c, 0, WVM_RUN_SETUP);
	c.slave[1].told = false;
	c.bare.base = 99;
	refused(&c, 0, WVM_RUN_BASE);
	c.bare.base = 0;
	/* With its state, and nothing done. */
	ck_assert_uint_eq(step(&c, WVM_VCPU_RUN_GET), WVM_VCPU_EXIT_KICKED);
	ck_assert_uint_eq(regs(&c)->rcx, 1);
	refused(&c, WVM_VCPU_RUN_RESUME, WVM_RUN_MALFORMED);
	ck_assert_uint_eq(step(&c, 0), WVM_VCPU_EXIT_PIO);
	refused(&c, 0, WVM_RUN_MALFORMED);
	finish(&c);
	/* What KVM cannot do is said, and again; nobody tries on his own. */
	regs(&c)->rip = 0x7f0000000000;
	ck_assert_uint_eq(step(&c, 0), WVM_VCPU_EXIT_SHUTDOWN);
	close_cpu(&c);
	close_local(&l);
	wvm_detach(w);
}
END_TEST

static void check_halts(struct cpu *c, uint64_t halts)
{
	ck_assert(c->bare.exit.flags & WVM_VCPU_EXIT_STATE);
	ck_assert_uint_eq(regs(c)->rcx, halts);
	ck_assert_uint_eq(
		((struct kvm_debugregs *)wvm_kvm_section(c->bare.state, WVM_KVM_DEBUG))->db[0],
		halts);
}

START_TEST(a_state_that_stays_is_whole_when_it_is_fetched)
{
	static struct cpu c;
	struct wvm_vcpu_answer a;
	struct local l;
	struct wvm *w;
	uint8_t *mem = map_guest(&w);
	uint64_t halts = 0, known;

	bare_fill(mem, guest_halt, guest_halt_end);
	open_local(&l);
	open_cpu(&c, w, 1, wvm_kvm_state(l.v));
	bare_state(c.bare.state, 0);
	for (unsigned round = 0; round < 20; round++) {
		c.at = 1 + round % 2;
		for (unsigned i = 0; i < 1 + round; i++) {
			ck_assert_uint_eq(step(&c, WVM_VCPU_RUN_STAY), WVM_VCPU_EXIT_HLT);
			halts++;
			ck_assert_uint_eq(c.bare.exit.flags & WVM_VCPU_EXIT_STAYS,
					  WVM_VCPU_EXIT_STAYS);
			ck_assert_uint_eq(c.bare.exit.state_len, 0);
		}
		/* Nowhere else, and not with a change of what it is not any more. */
		ck_assert_int_eq(bare_cpu_run(&c.bare, &c.slave[2 - round % 2], 0, &a), -EBUSY);
		c.bare.exit.flags &= ~WVM_VCPU_EXIT_STAYS;
		known = regs(&c)->rcx++;
		refused(&c, 0, WVM_RUN_MALFORMED);
		regs(&c)->rcx = known;
		/* By asking for it, or by the next exit that may not keep it. */
		if (round % 3) {
			ck_assert_uint_eq(step(&c, WVM_VCPU_RUN_GET), WVM_VCPU_EXIT_KICKED);
		} else {
			ck_assert_uint_eq(step(&c, 0), WVM_VCPU_EXIT_HLT);
			halts++;
		}
		check_halts(&c, halts);
	}
	close_cpu(&c);
	close_local(&l);
	wvm_detach(w);
}
END_TEST

static Suite *make(void)
{
	Suite *s = suite_create("vcpu_moves");
	TCase *t = cluster_tcase(s, "vcpu_moves", 240);

	tcase_add_unchecked_fixture(t, setup, teardown);
	tcase_add_test(t, what_does_not_fit_to_where_a_processor_is_is_refused);
	tcase_add_test(t, a_state_that_stays_is_whole_when_it_is_fetched);
	tcase_add_test(t, two_processors_on_two_nodes_share_counters_and_a_lock);
	tcase_add_test(t, time_never_goes_back);
	tcase_add_test(t, a_processor_that_moves_computes_what_one_that_stays_does);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {make};

	(void)argc;
	if (access("/dev/kvm", R_OK | W_OK)) {
		printf("SKIPPED: check_vcpu_moves: needs /dev/kvm\n");
		return 0;
	}
	return cluster_main(argv, suites, 1);
}

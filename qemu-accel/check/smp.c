/*
 * A bare guest: the first processor has the others do, one after the other, what a processor may
 * need its devices, its interrupt controller and others for. It prints a line for each on the
 * serial port, "ok NAME CPU" or "FAILED NAME CPU", then "end", and resets the machine by a
 * triple fault of the last processor. Compiled with BEAT it goes on for ever instead: the others
 * count, and the first one prints "beat N" twice a second, N being how many of them do; and "leap"
 * when its time stamp counter got on by half more in that time than at first.
 */
#include <stdbool.h>
#include <stdint.h>

#define APIC       0xfee00000u
#define APIC_ID    0x020u
#define APIC_TPR   0x080u
#define APIC_EOI   0x0b0u
#define APIC_SVR   0x0f0u
#define APIC_ICR   0x300u
#define APIC_ICR_H 0x310u
#define APIC_TIMER 0x320u
#define APIC_FROM  0x380u /* what the timer counts down from */
#define APIC_COUNT 0x390u
#define APIC_DIV   0x3e0u
#define IOAPIC     0xfec00000u

#define ICR_FIXED 0x4000u
#define ICR_NMI   0x4400u
#define ICR_INIT  0x4500u
#define ICR_SIPI  0x4608u /* at 0x8000 */
#define ICR_SELF  0x44000u

#define TIMER_PERIODIC 0x20000u
#define TIMER_OFF      0x10000u
#define DIV_1          0xbu
#define LEVEL          0x8000u

#define VECTOR   0x40u
#define TIMER    0x41u
#define SERIAL   0x42u
#define CPUS     8u
#define IPIS     200u
#define UPDATES  20000u
#define TIMERS   100u
#define TIMER_NS 200000u /* as QEMU counts at DIV_1 */
#define SERIALS  3u
#define LOOKS    20000u
#define PATIENCE 30000u /* milliseconds of the ACPI timer: a host may be busy */

struct gate {
	uint16_t low, selector, flags, high;
} __attribute__((packed));

struct cpu {
	volatile uint32_t started, job, done, ok;
	volatile uint32_t ipis, nmis, spurious, timers, serials;
	volatile uint32_t ready; /* what the first one does next may begin */
	volatile uint32_t beats;
};

static struct cpu cpus[CPUS];
static struct gate idt[256];
static volatile uint32_t shared_counter, locked_counter, lock;
static uint32_t count; /* processors */
static volatile uint64_t last_tsc;

extern void on_ipi(void), on_nmi(void), on_spurious(void), on_timer(void), on_serial(void);
void bsp_main(void);
void ap_main(uint32_t id);
void count_ipi(void);
void count_nmi(void);
void count_spurious(void);
void count_timer(void);
void count_serial(void);

static uint8_t inb(uint16_t port)
{
	uint8_t v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static uint32_t inl(uint16_t port)
{
	uint32_t v;

	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static void outb(uint16_t port, uint8_t v)
{
	asm volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static void outl(uint16_t port, uint32_t v)
{
	asm volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}

static uint32_t apic(uint32_t at)
{
	return *(volatile uint32_t *)(APIC + at);
}

static void set_apic(uint32_t at, uint32_t v)
{
	*(volatile uint32_t *)(APIC + at) = v;
}

static void print(const char *s)
{
	for (; *s; s++) {
		while (!(inb(0x3fd) & 0x20))
			;
		outb(0x3f8, (uint8_t)*s);
	}
}

static void print_number(uint32_t n)
{
	char text[11] = "", *p = text + 10;

	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	print(p);
}

static void pause(void)
{
	asm volatile("pause" ::: "memory");
}

/* ---- time: the ACPI timer, of 24 bits at 3.579545 MHz -------------------------------------- */

#define LPC_PMBASE 0x8000f840u
#define PORTS      0xb000u

static void time_init(void)
{
	outl(0xcf8, LPC_PMBASE);
	outl(0xcfc, PORTS | 1);
	outl(0xcf8, LPC_PMBASE + 4);
	outl(0xcfc, inl(0xcfc) | 0x80);
}

static uint32_t ticks(void)
{
	return inl(PORTS + 8) & 0xffffffu;
}

/* Waits until *p is at least v; false: it took too long. */
static bool await(volatile uint32_t *p, uint32_t v)
{
	uint32_t from = ticks(), ms = 0;

	while (*p < v) {
		uint32_t now = ticks(), gone = (now - from) & 0xffffffu;

		pause();
		if (gone < 3580)
			continue;
		ms += gone / 3580;
		from = now;
		if (ms > PATIENCE)
			return false;
	}
	return true;
}

static void sleep_ms(uint32_t ms)
{
	uint32_t from = ticks();

	while (((ticks() - from) & 0xffffffu) < ms * 3580)
		pause();
}

/* ---- interrupts ------------------------------------------------------------------------------ */

static uint32_t self(void)
{
	return apic(APIC_ID) >> 24;
}

void count_ipi(void)
{
	cpus[self()].ipis++;
	set_apic(APIC_EOI, 0);
}

void count_nmi(void)
{
	cpus[self()].nmis++;
}

void count_spurious(void)
{
	cpus[self()].spurious++;
}

void count_timer(void)
{
	cpus[self()].timers++;
	set_apic(APIC_EOI, 0);
}

/* The port wants one more until it is told not to. */
void count_serial(void)
{
	if (++cpus[self()].serials == SERIALS)
		outb(0x3f9, 0);
	set_apic(APIC_EOI, 0);
}

static void set_gate(unsigned vector, void (*f)(void))
{
	uint32_t at = (uint32_t)f;

	idt[vector] = (struct gate){(uint16_t)at, 8, 0x8e00, (uint16_t)(at >> 16)};
}

static void load_idt(void)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) at = {sizeof(idt) - 1, (uint32_t)idt};

	asm volatile("lidt %0" ::"m"(at));
	set_apic(APIC_SVR, 0x1ff);
	set_apic(APIC_TPR, 0);
}

static void send(uint32_t to, uint32_t what)
{
	set_apic(APIC_ICR_H, to << 24);
	set_apic(APIC_ICR, what);
}

/* ---- what the others do; each returns whether it went right ------------------------------------
 */

static bool do_ports(struct cpu *c)
{
	(void)c;
	outb(0x70, 0x0f); /* the clock's memory: a byte for whoever wants it */
	outb(0x71, 0x5a);
	outb(0x70, 0x0f);
	if (inb(0x71) != 0x5a)
		return false;
	outb(0x71, 0);
	return inl(PORTS + 8) != 0xffffffffu;
}

static bool do_device_memory(struct cpu *c)
{
	*(volatile uint32_t *)IOAPIC = 1; /* its version */
	return c == &cpus[self()] && (*(volatile uint32_t *)(IOAPIC + 0x10) & 0xff) >= 0x11;
}

static bool do_cpuid(struct cpu *c)
{
	uint32_t a = 1, b, d, x = 0;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(x), "=d"(d));
	return b >> 24 == (uint32_t)(c - cpus) && d & 1u << 9;
}

/* Read-only memory below 4 GiB, which no slave has. */
static bool do_rom(struct cpu *c)
{
	volatile uint8_t *reset = (uint8_t *)0xfffffff0u;
	uint8_t before = *reset;

	(void)c;
	*reset = (uint8_t)~before;
	return before == 0xea && *reset == 0xea;
}

static bool do_halt(struct cpu *c)
{
	uint32_t had = c->ipis;

	for (uint32_t i = 1; i <= IPIS; i++) {
		c->ready = i;
		asm volatile("cli");
		while (c->ipis < had + i)
			asm volatile("sti; hlt; cli");
	}
	asm volatile("sti");
	return c->ipis == had + IPIS;
}

static bool do_spin(struct cpu *c)
{
	uint32_t had = c->ipis;

	asm volatile("sti");
	for (uint32_t i = 1; i <= IPIS; i++) {
		c->ready = i;
		while (c->ipis < had + i)
			pause();
	}
	return c->ipis == had + IPIS;
}

/* One that comes while interrupts are off is taken as soon as they are on, and not before. */
static bool do_window(struct cpu *c)
{
	uint32_t had = c->ipis, early;

	asm volatile("cli");
	c->ready = 1;
	while (c->ready != 2)
		pause();
	early = c->ipis;
	asm volatile("sti; nop; nop");
	for (uint32_t i = 0; c->ipis == had && i < 1000000; i++)
		asm volatile("" ::: "memory");
	return early == had && c->ipis == had + 1;
}

/* As do_window(), by priority. */
static bool do_priority(struct cpu *c)
{
	uint32_t had = c->ipis, early;

	asm volatile("sti");
	set_apic(APIC_TPR, VECTOR | 0xf);
	c->ready = 1;
	while (c->ready != 2)
		pause();
	early = c->ipis;
	set_apic(APIC_TPR, 0);
	for (uint32_t i = 0; c->ipis == had && i < 1000000; i++)
		asm volatile("" ::: "memory");
	return early == had && c->ipis == had + 1;
}

static bool do_nmi(struct cpu *c)
{
	uint32_t had = c->nmis;

	asm volatile("cli");
	c->ready = 1;
	while (c->nmis == had)
		pause();
	asm volatile("sti");
	return c->nmis == had + 1;
}

static bool do_send(struct cpu *c)
{
	uint32_t had = cpus[0].ipis, mine = c->ipis;

	for (uint32_t i = 1; i <= IPIS; i++) {
		send(0, ICR_FIXED | VECTOR);
		while (cpus[0].ipis < had + i)
			pause();
	}
	send((uint32_t)(c - cpus), ICR_FIXED | VECTOR);
	while (c->ipis == mine)
		pause();
	return cpus[0].ipis == had + IPIS;
}

static void update(void)
{
	for (uint32_t i = 0; i < UPDATES; i++) {
		__atomic_fetch_add(&shared_counter, 1, __ATOMIC_SEQ_CST);
		while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
			pause();
		locked_counter++;
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
	}
}

static bool do_memory(struct cpu *c)
{
	c->ready = 1;
	while (c->ready != 2)
		pause();
	update();
	return true;
}

static bool do_self(struct cpu *c)
{
	uint32_t had = c->ipis;

	asm volatile("sti");
	for (uint32_t i = 1; i <= IPIS; i++) {
		set_apic(APIC_ICR, ICR_SELF | VECTOR);
		for (uint32_t n = 0; c->ipis != had + i && n < 1000000; n++)
			asm volatile("" ::: "memory");
		if (c->ipis != had + i)
			return false;
	}
	return true;
}

/* Every other time it is awaited in HLT. */
static bool do_timer(struct cpu *c)
{
	uint32_t had = c->timers, from;

	asm volatile("cli");
	set_apic(APIC_DIV, DIV_1);
	set_apic(APIC_TIMER, TIMER);
	for (uint32_t i = 1; i <= TIMERS; i++) {
		set_apic(APIC_FROM, TIMER_NS);
		if (apic(APIC_COUNT) > TIMER_NS)
			return false;
		from = ticks();
		while (c->timers < had + i) {
			if (i % 2)
				asm volatile("sti; hlt; cli");
			else
				asm volatile("sti; nop; pause; cli");
		}
		/* 0.2 ms are 716 of these. One may have come while they were read. */
		if (i > 1 && ((ticks() - from) & 0xffffffu) < 400 && apic(APIC_COUNT) != 0)
			return false;
	}
	asm volatile("sti");
	return c->timers == had + TIMERS && apic(APIC_COUNT) == 0;
}

/* None comes too early, and none when it is off. */
static bool do_periodic(struct cpu *c)
{
	uint32_t had = c->timers, from = ticks(), ended;

	asm volatile("sti");
	set_apic(APIC_TIMER, TIMER_PERIODIC | TIMER);
	set_apic(APIC_FROM, TIMER_NS);
	while (c->timers < had + TIMERS)
		pause();
	ended = (ticks() - from) & 0xffffffu;
	set_apic(APIC_TIMER, TIMER_OFF | TIMER);
	had = c->timers;
	sleep_ms(5);
	return ended >= TIMERS * (TIMER_NS / 1000) * 358 / 100 / 2 && c->timers <= had + 1;
}

/* A level goes on to interrupt after each EOI, which the I/O APIC hears of; then it is gone. */
static bool do_level(struct cpu *c)
{
	volatile uint32_t *io = (uint32_t *)IOAPIC;
	uint32_t had = c->serials = 0;

	asm volatile("sti");
	io[0] = 0x10 + 2 * 4 + 1;
	io[4] = (uint32_t)(c - cpus) << 24;
	io[0] = 0x10 + 2 * 4;
	io[4] = LEVEL | SERIAL;
	outb(0x3fc, 0x0b); /* it may interrupt */
	outb(0x3f9, 2);    /* when it could send */
	while (c->serials < had + SERIALS)
		pause();
	sleep_ms(5);
	io[4] = TIMER_OFF;
	return c->serials == had + SERIALS;
}

static uint64_t tsc(void)
{
	uint32_t low, high;

	asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)::"memory");
	return (uint64_t)high << 32 | low;
}

/* Whoever reads it next finds it to be no earlier. */
static bool look(void)
{
	bool ok = true;

	for (uint32_t i = 0; i < LOOKS && ok; i++) {
		uint64_t now;

		while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
			pause();
		now = tsc();
		ok = now >= last_tsc;
		last_tsc = now;
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
		for (uint32_t n = 0; n < 20; n++)
			pause();
	}
	return ok;
}

static bool do_ticks(struct cpu *c)
{
	c->ready = 1;
	while (c->ready != 2)
		pause();
	return look();
}

/* ---- and what the first one does meanwhile
 * ------------------------------------------------------- */

static bool with_ipis(struct cpu *c, uint32_t id)
{
	for (uint32_t i = 1; i <= IPIS; i++) {
		uint32_t had = c->ipis;

		if (!await(&c->ready, i))
			return false;
		send(id, ICR_FIXED | VECTOR);
		if (!await(&c->ipis, had + 1))
			return false;
	}
	return true;
}

static bool with_one(struct cpu *c, uint32_t id)
{
	if (!await(&c->ready, 1))
		return false;
	send(id, ICR_FIXED | VECTOR);
	sleep_ms(20);
	c->ready = 2;
	return true;
}

static bool with_nmi(struct cpu *c, uint32_t id)
{
	if (!await(&c->ready, 1))
		return false;
	send(id, ICR_NMI);
	return true;
}

static bool with_updates(struct cpu *c, uint32_t id)
{
	(void)id;
	if (!await(&c->ready, 1))
		return false;
	/* Before the other one counts, which it has been told to do already. */
	shared_counter = locked_counter = 0;
	c->ready = 2;
	update();
	return await(&c->done, 1) && shared_counter == 2 * UPDATES && locked_counter == 2 * UPDATES;
}

static bool with_looks(struct cpu *c, uint32_t id)
{
	(void)id;
	if (!await(&c->ready, 1))
		return false;
	c->ready = 2;
	return look();
}

static const struct {
	const char *name;
	bool (*theirs)(struct cpu *c);
	bool (*ours)(struct cpu *c, uint32_t id);
} jobs[] = {
	{"ports", do_ports, 0},
	{"device-memory", do_device_memory, 0},
	{"cpuid", do_cpuid, 0},
	{"rom", do_rom, 0},
	{"halt", do_halt, with_ipis},
	{"spin", do_spin, with_ipis},
	{"window", do_window, with_one},
	{"priority", do_priority, with_one},
	{"nmi", do_nmi, with_nmi},
	{"send", do_send, 0},
	{"memory", do_memory, with_updates},
	{"self", do_self, 0},
	{"timer", do_timer, 0},
	{"periodic", do_periodic, 0},
	{"level", do_level, 0},
	{"ticks", do_ticks, with_looks},
};
#define JOBS      (sizeof(jobs) / sizeof(jobs[0]))
#define JOB_CRASH (JOBS + 1)
#define JOB_BEAT  (JOBS + 2)

static void say(bool ok, const char *name, uint32_t id)
{
	print(ok ? "ok " : "FAILED ");
	print(name);
	print(" ");
	print_number(id);
	print("\n");
}

static void crash(void)
{
	static const uint8_t nothing[6];

	asm volatile("lidt %0; ud2" ::"m"(nothing));
}

void ap_main(uint32_t id)
{
	struct cpu *c = &cpus[id];
	uint32_t job;

	load_idt();
	c->started++;
	for (;;) {
		while (!(job = c->job))
			pause();
		c->job = 0;
		if (job == JOB_CRASH)
			crash();
		for (; job == JOB_BEAT; c->beats++)
			pause();
		c->ok = jobs[job - 1].theirs(c);
		c->done = 1;
	}
}

static bool start(uint32_t id)
{
	uint32_t had = cpus[id].started;

	send(id, ICR_INIT);
	sleep_ms(10);
	send(id, ICR_SIPI);
	return await(&cpus[id].started, had + 1);
}

static void try_all(uint32_t id)
{
	struct cpu *c = &cpus[id];

	for (uint32_t j = 0; j < JOBS; j++) {
		bool ok;

		c->ready = c->done = 0;
		c->job = j + 1;
		ok = !jobs[j].ours || jobs[j].ours(c, id);
		ok = await(&c->done, 1) && ok && c->ok;
		say(ok, jobs[j].name, id);
		if (!ok)
			return;
	}
	/* Once more from the beginning, in the middle of whatever it does. */
	say(start(id), "init", id);
}

#ifdef BEAT
static void beat(void)
{
	uint32_t before[CPUS];
	uint64_t first = 0;

	for (uint32_t i = 1; i < count; i++)
		cpus[i].job = JOB_BEAT;
	for (;;) {
		uint32_t moving = 0;
		uint64_t took;

		for (uint32_t i = 1; i < count; i++)
			before[i] = cpus[i].beats;
		took = tsc();
		sleep_ms(500);
		took = tsc() - took;
		first = first ? first : took;
		if (took > first + (first >> 1))
			print("leap\n");
		for (uint32_t i = 1; i < count; i++)
			moving += cpus[i].beats != before[i];
		print("beat ");
		print_number(moving);
		print("\n");
	}
}
#endif

void bsp_main(void)
{
	outb(0x70, 0x5f); /* the firmware's: processors beyond the first */
	count = inb(0x71) + 1u;
	outb(0x21, 0xff); /* what the firmware has used */
	outb(0xa1, 0xff);
	set_gate(VECTOR, on_ipi);
	set_gate(2, on_nmi);
	set_gate(0xff, on_spurious);
	set_gate(TIMER, on_timer);
	set_gate(SERIAL, on_serial);
	load_idt();
	time_init();
	asm volatile("sti");
	print("begin ");
	print_number(count);
	print("\n");
	for (uint32_t i = 1; i < count; i++)
		say(start(i), "start", i);
#ifdef BEAT
	beat();
#endif
	for (uint32_t i = 1; i < count; i++)
		try_all(i);
	print("end\n");
	cpus[count - 1].job = JOB_CRASH;
}

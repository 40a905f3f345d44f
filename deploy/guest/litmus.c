/*
 * The litmus tests (roles/check/litmus/litmus.h) inside the guest, a thread on each processor.
 *
 * Processors of different hosts are as far apart as a page takes to travel, which is a thousand
 * times what an instance takes: threads that leave a barrier one after the other, as its page
 * comes to them, do not meet in any. So they start by the clock. How far their time
 * stamp counters differ is measured before (measure_clocks()); each group of instances has a
 * time of its own at which all threads come to it, give or take a delay by chance, and where there
 * are pauses between the accesses they are of the same size, from none to several travels.
 *
 * A page that is wanted back within a millisecond of its loss is kept for longer each time, up to
 * ten (shared/PROTOCOL.md, Times): accesses that are to meet must not fight for it before. So
 * each group has other pages than the one before, one or as many as variables, which each thread
 * has read, written or left alone before; and who waits for others looks no more often.
 *
 * With each batch the parts move on by one processor. What a thread has loaded it keeps to
 * itself until the batch is over.
 */
#include "guest.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "roles/check/litmus/litmus.h"

#define INSTANCES   64u  /* of a batch */
#define SETS        8u   /* of pages; each group has one, and the one after it the next */
#define TEST_MS     6000 /* for each test */
#define CLOCK_TRIES 40u
#define SLOT_US     2000u  /* for a group, beside the delays: what holds threads up */
#define HEAD_US     15000u /* from the keeper's word to the first group */
#define SPINS       100u
#define POLL_US     1500u /* a page that is wanted back sooner is held back for longer */
#define NAP_NS      1000000

/* What a thread alone writes, a page for each. */
struct own {
	_Alignas(PAGE_SIZE) uint8_t reg[INSTANCES][LITMUS_REGS];
	atomic_uint done; /* batches; reg is the last one's */
};

/* What a batch is; each thread works it out by itself. */
struct plan {
	unsigned batch;
	uint64_t serial; /* no two batches of any tests have the same */
	unsigned pages;
	unsigned group; /* instances that begin at a time */
	unsigned loose; /* of 8 instances so many have pauses between their accesses */
	uint64_t delay, slot;
};

struct totals {
	unsigned runs, forbidden, raced, relaxed;
};

/* What travels in a batch is not on the page of what does not. */
static struct {
	const struct litmus_test *test;
	unsigned number; /* of the test */
	uint64_t end;    /* by thread 0's clock */
	struct litmus_set tso, sequential, serial;
	int64_t *ahead; /* of thread 0's counter, in ticks, each thread's */
	uint64_t error; /* the largest that these may have */
	struct own *own;
	struct {
		_Alignas(PAGE_SIZE) atomic_uint begun; /* batches */
		bool over;                             /* the last one is not to be run */
		uint64_t start;                        /* by thread 0's clock */
	} next;
	struct {
		_Alignas(PAGE_SIZE) atomic_uint turn;
		uint64_t ticks; /* of the other's counter */
	} baton;
	struct {
		_Alignas(PAGE_SIZE) struct litmus_set seen;
		struct totals test, all;
	} found;
	_Alignas(PAGE_SIZE) volatile uint64_t pool[SETS][LITMUS_VARS][PAGE_WORDS];
} l;

/* ---- clocks ---- */

static uint64_t now(unsigned thread)
{
	return __rdtsc() - (uint64_t)l.ahead[thread];
}

static void wait_turn(unsigned turn)
{
	for (unsigned i = 0; atomic_load(&l.baton.turn) != turn; i++)
		if (i > SPINS)
			sched_yield();
}

/* The one that goes there and back in the shortest time says the most. */
static void measure_clock(unsigned other, bool first, unsigned *turn)
{
	uint64_t best = UINT64_MAX;

	for (unsigned i = 0; i < CLOCK_TRIES; i++, *turn += 2) {
		uint64_t sent = __rdtsc(), took;

		if (!first) {
			wait_turn(*turn + 1);
			l.baton.ticks = __rdtsc();
			atomic_store(&l.baton.turn, *turn + 2);
			continue;
		}
		atomic_store(&l.baton.turn, *turn + 1);
		wait_turn(*turn + 2);
		took = __rdtsc() - sent;
		if (took >= best)
			continue;
		best = took;
		l.ahead[other] = (int64_t)(l.baton.ticks - (sent + took / 2));
	}
	if (first && best / 2 > l.error)
		l.error = best / 2;
}

static void measure_clocks(unsigned thread)
{
	unsigned turn = 0;

	for (unsigned other = 1; other < guest.cpus; other++) {
		if (thread == 0 || thread == other)
			measure_clock(other, thread == 0, &turn);
		else
			turn += 2 * CLOCK_TRIES;
	}
}

static void print_clocks(void)
{
	uint64_t us = litmus_ticks_per_us();
	int64_t least = 0, most = 0;

	for (unsigned i = 0; i < guest.cpus; i++) {
		least = l.ahead[i] < least ? l.ahead[i] : least;
		most = l.ahead[i] > most ? l.ahead[i] : most;
	}
	printf("litmus     the processors' counters differ by %llu us, known to within %llu us\n",
	       (unsigned long long)((uint64_t)(most - least) / us),
	       (unsigned long long)(l.error / us));
}

/* ---- a batch ---- */

static unsigned below(uint64_t *random, unsigned n)
{
	return (unsigned)(litmus_random(random) % n);
}

static void make_plan(unsigned batch, struct plan *p)
{
	static const unsigned delay_us[] = {100, 1000, 2000, 3000, 3000, 5000};
	uint64_t serial = (uint64_t)l.number << 20 | batch, random = mix(guest.seed ^ serial << 8);

	*p = (struct plan){.batch = batch, .serial = serial, .group = 4u << below(&random, 3)};
	p->pages = below(&random, 3) ? l.test->vars : 1;
	p->delay = delay_us[below(&random, 6)] * litmus_ticks_per_us();
	p->loose = 4 + below(&random, 5);
	p->slot = SLOT_US * litmus_ticks_per_us() + l.error + p->delay * (2 + 3 * p->group) / 2;
}

/* Neighbours lie the other way round. */
static volatile uint64_t *place(const struct plan *p, unsigned instance, unsigned var)
{
	unsigned set = instance / p->group % SETS;

	return &l.pool[set][(instance + var) % p->pages][var * INSTANCES + instance];
}

static uint64_t stamp(const struct plan *p, unsigned instance, unsigned var)
{
	return (p->serial + 1) << 24 | instance << 8 | var << 4;
}

static unsigned value_of(uint64_t word, uint64_t with)
{
	return (word ^ with) <= 2 ? (unsigned)(word ^ with) : LITMUS_FOREIGN;
}

/* Which part a thread has; none from test->threads on. */
static unsigned part_of(const struct plan *p, unsigned thread)
{
	return (thread + p->batch) % guest.cpus;
}

/* Some pages are here then, to be read or to be written, and others are not. */
static void warm_up(const struct plan *p, unsigned thread, uint64_t *random)
{
	for (unsigned i = 0; i < SETS * p->pages; i++) {
		volatile uint64_t *page = l.pool[i / p->pages][i % p->pages];
		unsigned what = below(random, 8);

		if (what < 2)
			(void)page[PAGE_WORDS - 1];
		else if (what == 2)
			page[PAGE_WORDS / 2 + thread] = *random;
	}
}

static void run_instance(const struct litmus_thread *t, const struct plan *p, unsigned i,
			 unsigned loose, struct litmus_frame *f, uint8_t reg[LITMUS_REGS])
{
	for (unsigned v = 0; v < l.test->vars; v++) {
		f->at[v] = place(p, i, v);
		f->stamp[v] = stamp(p, i, v);
	}
	if (guest.litmus_disordered)
		litmus_dawdle(t, f, false);
	else
		(below(&f->random, 8) < loose ? t->loose : t->tight)(f);
	for (unsigned op = 0; op < t->ops; op++)
		if (t->op[op].kind == LITMUS_LOAD)
			reg[t->op[op].value] = (uint8_t)value_of(f->reg[t->op[op].value],
								 f->stamp[t->op[op].var]);
}

static void run_part(const struct litmus_thread *t, const struct plan *p, unsigned thread,
		     uint64_t *random)
{
	struct litmus_frame f = {.random = litmus_random(random), .delay_ticks = p->delay};
	uint8_t reg[INSTANCES][LITMUS_REGS] = {0};
	uint64_t at = l.next.start, spread = l.error + p->delay + 1;

	for (unsigned first = 0; first < INSTANCES; first += p->group, at += p->slot) {
		uint64_t begin = at + litmus_random(random) % spread;
		unsigned backwards = below(random, 2) ? p->group - 1 : 0;
		/* What has held it up is made up for without pauses. */
		bool late = (int64_t)(now(thread) - at - p->slot) > 0;

		while ((int64_t)(now(thread) - begin) < 0)
			_mm_pause();
		for (unsigned k = 0; k < p->group; k++) {
			unsigned i = first + (k ^ backwards);

			run_instance(t, p, i, late ? 0 : p->loose, &f, reg[i]);
		}
	}
	memcpy(l.own[thread].reg, reg, sizeof(reg));
}

/* ---- between batches ---- */

static void count(const struct plan *p, unsigned instance, unsigned outcome)
{
	char text[LITMUS_OUTCOME_TEXT];

	l.found.test.runs++;
	l.found.test.raced += !litmus_has(&l.serial, outcome);
	l.found.test.relaxed += litmus_has(&l.tso, outcome) && !litmus_has(&l.sequential, outcome);
	l.found.seen.bits[outcome / 64] |= UINT64_C(1) << (outcome % 64);
	if (litmus_has(&l.tso, outcome))
		return;
	l.found.test.forbidden++;
	report("litmus: %s, variables on %u pages, run %u of batch %u: %s", l.test->name, p->pages,
	       instance, p->batch, litmus_outcome(l.test, outcome, text));
}

static void look(const struct plan *p)
{
	for (unsigned i = 0; i < INSTANCES; i++) {
		unsigned outcome = 0;

		for (unsigned thread = 0; thread < guest.cpus; thread++) {
			const struct litmus_thread *t = &l.test->thread[part_of(p, thread)];

			if (part_of(p, thread) >= l.test->threads)
				continue;
			for (unsigned op = 0; op < t->ops; op++)
				if (t->op[op].kind == LITMUS_LOAD)
					outcome |=
						LITMUS_REG(t->op[op].value,
							   l.own[thread].reg[i][t->op[op].value]);
		}
		for (unsigned v = 0; v < l.test->vars; v++)
			outcome |= LITMUS_LAST(v, value_of(*place(p, i, v), stamp(p, i, v)));
		count(p, i, outcome);
	}
}

static void reset(const struct plan *p)
{
	for (unsigned i = 0; i < INSTANCES; i++)
		for (unsigned v = 0; v < l.test->vars; v++)
			*place(p, i, v) = stamp(p, i, v);
}

/* Whoever has been idle sleeps: the others need the host's processors. */
static void wait_a_bit(bool idle)
{
	static const struct timespec nap = {.tv_nsec = NAP_NS};
	uint64_t begin = __rdtsc();

	if (idle)
		nanosleep(&nap, NULL);
	while (__rdtsc() - begin < POLL_US * litmus_ticks_per_us())
		_mm_pause();
}

/* The keeper of a batch: sees the last one off, when all have done with it, and starts this one. */
static void start_batch(const struct plan *p, const struct plan *last, unsigned thread, bool idle)
{
	for (unsigned i = 0; i < guest.cpus; i++)
		while (atomic_load(&l.own[i].done) < p->batch)
			wait_a_bit(idle);
	if (p->batch)
		look(last);
	reset(p);
	l.next.over = (int64_t)(now(thread) - l.end) >= 0;
	l.next.start = now(thread) + l.error + HEAD_US * litmus_ticks_per_us();
	atomic_store(&l.next.begun, p->batch + 1);
}

/*
 * A batch has one meeting, with as few pages that travel as can be: to its keeper the page of each
 * thread, which has the results; from it one that has the time to start at.
 */
static void run_batches(unsigned thread)
{
	uint64_t random = mix(guest.seed * guest.cpus + thread + ((uint64_t)l.number << 32));
	struct plan plan, last = {0};
	bool idle = false;

	for (unsigned batch = 0;; batch++, last = plan) {
		unsigned part;

		make_plan(batch, &plan);
		if (thread == batch % guest.cpus)
			start_batch(&plan, &last, thread, idle);
		while (atomic_load(&l.next.begun) <= batch)
			wait_a_bit(idle);
		if (l.next.over)
			return;
		part = part_of(&plan, thread);
		idle = part >= l.test->threads;
		if (!idle) {
			warm_up(&plan, thread, &random);
			run_part(&l.test->thread[part], &plan, thread, &random);
		}
		atomic_store(&l.own[thread].done, batch + 1);
	}
}

/* ---- tests ---- */

/* Whether threads that meet show it: there is an outcome that no order of whole threads has. */
static bool can_race(void)
{
	return memcmp(&l.tso, &l.serial, sizeof(l.tso)) != 0;
}

/* That two readers are both overtaken by two writers is rare. */
static unsigned time_ms(void)
{
	return !can_race() ? TEST_MS / 6 : l.test->threads > 3 ? 5 * TEST_MS : TEST_MS;
}

static void run_test(unsigned number)
{
	const struct litmus_test *test = &litmus_tests[number];

	l.test = test;
	l.number = number;
	l.found.seen = (struct litmus_set){0};
	l.found.test = (struct totals){0};
	litmus_model(test, LITMUS_TSO, &l.tso);
	litmus_model(test, LITMUS_SEQUENTIAL, &l.sequential);
	litmus_model(test, LITMUS_SERIAL, &l.serial);
	/* As thread 0 reads it, wherever this runs. */
	l.end = __rdtsc() + time_ms() * 1000 * litmus_ticks_per_us();
	atomic_store(&l.next.begun, 0);
	memset(l.own, 0, guest.cpus * sizeof(*l.own));
	on_all_cpus(run_batches);
	printf("litmus     %-11s %u runs, %u raced (%.1f %%), %u of %u outcomes, %u relaxed, "
	       "%u forbidden\n",
	       test->name, l.found.test.runs, l.found.test.raced,
	       l.found.test.runs ? 100.0 * l.found.test.raced / l.found.test.runs : 0.0,
	       litmus_set_size(&l.found.seen), litmus_set_size(&l.tso), l.found.test.relaxed,
	       l.found.test.forbidden);
	l.found.all.runs += l.found.test.runs;
	l.found.all.raced += l.found.test.raced;
	l.found.all.relaxed += l.found.test.relaxed;
	l.found.all.forbidden += l.found.test.forbidden;
}

static void run_tests(void)
{
	char never[256] = "";
	unsigned tests = 0;

	for (unsigned i = 0; i < litmus_count; i++) {
		if (litmus_tests[i].threads > guest.cpus)
			continue;
		run_test(i);
		tests++;
		if (can_race() && !l.found.test.raced) {
			strcat(never, " ");
			strcat(never, l.test->name);
		}
	}
	/* Threads that never meet show nothing. */
	if (guest.cpus > 1 && !l.found.all.raced)
		report("litmus: the threads never met");
	else if (*never)
		printf("litmus     never raced:%s\n", never);
	printf("litmus     %u of %u tests, %u runs, %u raced, %u relaxed, %u forbidden\n", tests,
	       litmus_count, l.found.all.runs, l.found.all.raced, l.found.all.relaxed,
	       l.found.all.forbidden);
}

void test_litmus(void)
{
	l.ahead = calloc(guest.cpus, sizeof(*l.ahead));
	l.own = aligned_alloc(PAGE_SIZE, guest.cpus * sizeof(*l.own));
	if (l.ahead && l.own) {
		(void)litmus_ticks_per_us(); /* once for all threads */
		on_all_cpus(measure_clocks);
		print_clocks();
		run_tests();
	} else {
		report("no memory for the litmus tests");
	}
	free(l.ahead);
	free(l.own);
}

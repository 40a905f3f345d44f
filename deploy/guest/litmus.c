/*
 * The litmus tests (roles/check/litmus/litmus.h) inside the guest, a thread on each processor. All
 * instances of a batch lie in the same page, or each variable's in a page of its own; all threads
 * walk through them, with pauses by chance, and with each batch the parts move on by one
 * processor. One thread resets them before and looks at the outcomes after.
 */
#include "guest.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/check/litmus/litmus.h"

#define INSTANCES 96u
#define BATCHES   12u /* of each placement */
#define DELAY_US  20u

struct totals {
	unsigned runs, forbidden, raced, relaxed;
};

static struct {
	const struct litmus_test *test;
	bool apart; /* a page for each variable */
	struct litmus_set tso, sequential, serial;
	struct totals totals, all;
	uint64_t reg[INSTANCES][LITMUS_REGS];
	_Alignas(64) atomic_uint arrived;
	_Alignas(64) atomic_uint turn;
	_Alignas(PAGE_SIZE) uint64_t page[LITMUS_VARS][PAGE_WORDS];
} l;

/* Processors of one host must let each other run. */
static void meet(void)
{
	unsigned turn = atomic_load(&l.turn);

	if (atomic_fetch_add(&l.arrived, 1) + 1 == guest.cpus) {
		atomic_store(&l.arrived, 0);
		atomic_store(&l.turn, turn + 1);
		return;
	}
	for (unsigned i = 0; atomic_load(&l.turn) == turn; i++) {
		if (i > 100)
			sched_yield();
	}
}

static volatile uint64_t *place(unsigned instance, unsigned var)
{
	return l.apart ? &l.page[var][instance] : &l.page[0][var * INSTANCES + instance];
}

static uint64_t stamp(unsigned batch, unsigned instance, unsigned var)
{
	return (uint64_t)(batch + 1) << 24 | instance << 8 | var << 4;
}

/* What a value is that carries the stamp: 0 for the one from before the run. */
static unsigned value_of(uint64_t word, uint64_t with)
{
	if (!word)
		return 0;
	return (word & ~UINT64_C(3)) == with ? word & 3 : LITMUS_FOREIGN;
}

static void run_part(const struct litmus_thread *t, unsigned batch, uint64_t *random)
{
	for (unsigned i = 0; i < INSTANCES; i++) {
		struct litmus_frame f = {.random = litmus_random(random),
					 .delay_ticks = DELAY_US * litmus_ticks_per_us()};

		for (unsigned v = 0; v < l.test->vars; v++) {
			f.at[v] = place(i, v);
			f.stamp[v] = stamp(batch, i, v);
		}
		litmus_pause(&f);
		(litmus_random(random) % 2 ? t->loose : t->tight)(&f);
		for (unsigned op = 0; op < t->ops; op++) {
			if (t->op[op].kind == LITMUS_LOAD)
				l.reg[i][t->op[op].value] = value_of(f.reg[t->op[op].value],
								     f.stamp[t->op[op].var]);
		}
	}
}

static void look(unsigned batch, unsigned i)
{
	char text[LITMUS_OUTCOME_TEXT];
	unsigned outcome = 0;

	for (unsigned r = 0; r < l.test->regs; r++)
		outcome |= LITMUS_REG(r, l.reg[i][r]);
	for (unsigned v = 0; v < l.test->vars; v++)
		outcome |= LITMUS_LAST(v, value_of(*place(i, v), stamp(batch, i, v)));
	l.totals.runs++;
	l.totals.raced += !litmus_has(&l.serial, outcome);
	l.totals.relaxed += litmus_has(&l.tso, outcome) && !litmus_has(&l.sequential, outcome);
	if (litmus_has(&l.tso, outcome))
		return;
	l.totals.forbidden++;
	report("litmus: %s, variables %s, run %u of batch %u: %s", l.test->name,
	       l.apart ? "on pages of their own" : "on one page", i, batch,
	       litmus_outcome(l.test, outcome, text));
}

static void run_batches(unsigned thread)
{
	uint64_t random = mix(guest.seed * guest.cpus + thread);

	for (unsigned batch = 0; batch < BATCHES; batch++) {
		unsigned part = (thread + batch) % guest.cpus;

		if (thread == batch % guest.cpus)
			memset(l.page, 0, sizeof(l.page));
		meet();
		if (part < l.test->threads)
			run_part(&l.test->thread[part], batch, &random);
		meet();
		if (thread == (batch + 1) % guest.cpus) {
			for (unsigned i = 0; i < INSTANCES; i++)
				look(batch, i);
		}
		meet();
	}
}

static void run_test(const struct litmus_test *test)
{
	l.test = test;
	l.totals = (struct totals){0};
	litmus_model(test, LITMUS_TSO, &l.tso);
	litmus_model(test, LITMUS_SEQUENTIAL, &l.sequential);
	litmus_model(test, LITMUS_SERIAL, &l.serial);
	for (unsigned i = 0; i < 2; i++) {
		l.apart = i;
		on_all_cpus(run_batches);
	}
	printf("litmus     %-11s %u runs, %u raced, %u relaxed, %u forbidden\n", test->name,
	       l.totals.runs, l.totals.raced, l.totals.relaxed, l.totals.forbidden);
	l.all.runs += l.totals.runs;
	l.all.raced += l.totals.raced;
	l.all.relaxed += l.totals.relaxed;
	l.all.forbidden += l.totals.forbidden;
}

void test_litmus(void)
{
	unsigned tests = 0;

	for (unsigned i = 0; i < litmus_count; i++) {
		if (litmus_tests[i].threads > guest.cpus)
			continue;
		run_test(&litmus_tests[i]);
		tests++;
	}
	/* Threads that never meet show nothing. */
	if (guest.cpus > 1 && !l.all.raced)
		report("litmus: the threads never met");
	printf("litmus     %u of %u tests, %u runs, %u raced, %u relaxed, %u forbidden\n", tests,
	       litmus_count, l.all.runs, l.all.raced, l.all.relaxed, l.all.forbidden);
}

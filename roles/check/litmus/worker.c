#include "roles/check/litmus/worker.h"

#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "shared/wavevm.h"

#define SPINS        2000u
#define SHORT_NAPS   50u
#define LOCKSTEP_US  1u
#define SLEEPY_US    1000u
#define HEADSTART_US 5u /* from the end of a meeting to the first access */

struct worker {
	struct board *b;
	const struct litmus_cell *cell;
	unsigned self;
	struct wvm *wvm;
	uint64_t *memory;
	uint64_t random;
	struct plan plan, last;
};

__attribute__((noreturn, format(printf, 2, 3))) static void give_up(struct worker *w,
								    const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (!atomic_exchange(&w->b->failed, 1))
		vsnprintf(w->b->text, sizeof(w->b->text), format, ap);
	va_end(ap);
	_exit(1);
}

static unsigned below(struct worker *w, unsigned n)
{
	return (unsigned)(litmus_random(&w->random) % n);
}

static void sleep_us(struct worker *w, unsigned us)
{
	struct timespec t = {.tv_nsec = us * 1000L};
	uint64_t start = __rdtsc(), late_ms;

	nanosleep(&t, NULL);
	late_ms = (__rdtsc() - start) / litmus_ticks_per_us() / 1000;
	if (late_ms > atomic_load(&w->b->late_ms))
		atomic_store(&w->b->late_ms, (unsigned)late_ms);
}

static void set_phase(struct worker *w, enum worker_phase phase)
{
	atomic_store(&w->b->place[w->self].phase, phase);
}

static uint64_t *word_at(struct worker *w, const struct plan *p, unsigned instance, unsigned var)
{
	return w->memory + (uint64_t)p->page[plan_page(p, instance, var)] * (WORKER_PAGE / 8) +
	       plan_word(p, instance, var);
}

/* A word of a page that no instance uses. */
static volatile uint64_t *own_word(struct worker *w, uint64_t page)
{
	return w->memory + page * (WORKER_PAGE / 8) + PLAN_WORDS + w->self;
}

/* ---- meetings ---------------------------------------------------------------------------- */

/* Sleeps rather than yields: the masters need the processor for what is waited for. */
static void wait_a_bit(struct worker *w, unsigned tries)
{
	if (atomic_load(&w->b->failed))
		_exit(1);
	if (tries < SPINS)
		_mm_pause();
	else
		sleep_us(w, tries < SPINS + SHORT_NAPS ? 10 : 50);
}

static void meet(struct worker *w)
{
	struct board *b = w->b;
	unsigned turn = atomic_load(&b->turns);

	set_phase(w, WORKER_MEETS);
	if (atomic_fetch_add(&b->arrived, 1) + 1 == w->cell->workers) {
		atomic_store(&b->arrived, 0);
		atomic_store(&b->done, 0);
		atomic_store(&b->batch, w->plan.batch);
		atomic_store(&b->start_tsc, __rdtsc() + HEADSTART_US * litmus_ticks_per_us());
		atomic_fetch_add(&b->turns, 1);
		return;
	}
	for (unsigned i = 0; atomic_load(&b->turns) == turn; i++)
		wait_a_bit(w, i);
}

/* ---- a batch ----------------------------------------------------------------------------- */

/* Where a fault is to be provoked, time is no matter. */
static bool dawdles(const struct litmus_cell *c)
{
	return c->memory == LITMUS_DISORDERED || c->memory == LITMUS_LAZY;
}

/* Threads of one node have to be this close for their store buffers to be seen. */
static void wait_for_others(struct worker *w, unsigned visited)
{
	bool sleepy = dawdles(w->cell);
	uint64_t end = __rdtsc() + (sleepy ? SLEEPY_US : LOCKSTEP_US) * litmus_ticks_per_us();
	unsigned behind;

	do {
		behind = 0;
		for (unsigned i = 0; i < w->cell->workers; i++)
			if (w->plan.part[i] != PLAN_NOBODY)
				behind += atomic_load_explicit(&w->b->place[i].visited,
							       memory_order_relaxed) < visited;
		if (sleepy && behind)
			sleep_us(w, 5);
	} while (behind && __rdtsc() < end);
}

/* A page that has come is not yet in the address space of every program. */
static void warm_up(struct worker *w)
{
	if (w->plan.part[w->self] != PLAN_NOBODY)
		for (unsigned i = 0; i < w->plan.pages; i++)
			*own_word(w, w->plan.page[i]) = w->random;
	meet(w);
}

static void run_instance(struct worker *w, const struct litmus_thread *code, unsigned instance,
			 struct litmus_frame *f)
{
	const struct litmus_test *t = w->cell->test;

	for (unsigned v = 0; v < t->vars; v++) {
		f->at[v] = word_at(w, &w->plan, instance, v);
		f->stamp[v] = plan_stamp(&w->plan, instance, v);
	}
	if (dawdles(w->cell)) {
		litmus_dawdle(code, f, w->cell->memory == LITMUS_LAZY);
	} else if (litmus_random(&f->random) % 8 < w->plan.loose) {
		code->loose(f);
	} else {
		if (w->plan.loose)
			litmus_pause(f);
		code->tight(f);
	}
	for (unsigned i = 0; i < code->ops; i++)
		if (code->op[i].kind == LITMUS_LOAD)
			w->b->reg[instance][code->op[i].value] = f->reg[code->op[i].value];
}

static void run_thread(struct worker *w, const struct litmus_thread *code)
{
	struct worker_place *place = &w->b->place[w->self];
	struct litmus_frame f = {.random = litmus_random(&w->random),
				 .delay_ticks = w->plan.delay_ticks};
	unsigned instance = w->plan.first[w->self] % w->plan.instances;
	uint64_t start = atomic_load(&w->b->start_tsc);

	while ((int64_t)(__rdtsc() - start) < 0)
		;
	for (unsigned i = 0; i < w->plan.instances; i++) {
		if (w->plan.lockstep || dawdles(w->cell))
			wait_for_others(w, i);
		run_instance(w, code, instance, &f);
		atomic_store_explicit(&place->visited, i + 1, memory_order_relaxed);
		instance = (instance + w->plan.stride[w->self]) % w->plan.instances;
	}
	atomic_fetch_add(&w->b->done, 1);
}

/* Reads or writes words of its own in the same pages, so that they move. */
static void stand_by(struct worker *w)
{
	while (atomic_load(&w->b->done) < w->cell->test->threads && !atomic_load(&w->b->failed)) {
		volatile uint64_t *word = own_word(w, w->plan.page[below(w, w->plan.pages)]);

		sleep_us(w, 20 + below(w, 300));
		if (below(w, 3))
			(void)*word;
		else
			*word = w->random;
	}
}

/* ---- LITMUS_LAZY: stores reach other nodes by these hands -------------------------------- */

static void carry(struct worker *w, unsigned instance, unsigned var)
{
	uint32_t page = w->plan.page[plan_page(&w->plan, instance, var)];
	unsigned word = plan_word(&w->plan, instance, var), first = below(w, LITMUS_NODES);
	volatile uint64_t *shadow = &w->b->shadow[page][word];

	for (unsigned i = 0; i < LITMUS_NODES; i++) {
		unsigned from = (first + i) % LITMUS_NODES;
		uint64_t value = *(volatile uint64_t *)&w->b->copy[from][page][word];

		if (value == *shadow)
			continue;
		*shadow = value;
		for (unsigned to = 0; to < LITMUS_NODES; to++)
			*(volatile uint64_t *)&w->b->copy[to][page][word] = value;
		return;
	}
}

static void carry_all(struct worker *w)
{
	unsigned instances = w->plan.instances, vars = w->cell->test->vars;

	while (atomic_load(&w->b->done) < w->cell->test->threads && !atomic_load(&w->b->failed)) {
		carry(w, below(w, instances), below(w, vars));
		if (!below(w, 64))
			sleep_us(w, 20); /* each is to be late for about as long as threads sleep */
	}
	for (unsigned i = 0; i < instances; i++)
		for (unsigned v = 0; v < vars; v++)
			carry(w, i, v);
}

/* ---- between batches --------------------------------------------------------------------- */

static unsigned decode(uint64_t value, uint64_t stamp, unsigned most)
{
	return (value ^ stamp) <= most ? (unsigned)(value ^ stamp) : LITMUS_FOREIGN;
}

static unsigned var_of(const struct litmus_test *t, unsigned reg)
{
	for (unsigned i = 0; i < t->threads; i++)
		for (unsigned k = 0; k < t->thread[i].ops; k++) {
			const struct litmus_op *op = &t->thread[i].op[k];

			if (op->kind == LITMUS_LOAD && op->value == reg)
				return op->var;
		}
	return 0;
}

static void note(struct worker *w, const struct plan *p, unsigned instance, unsigned outcome)
{
	struct board *b = w->b;
	const struct litmus_test *t = w->cell->test;
	char *text, name[LITMUS_OUTCOME_TEXT];
	size_t len, size = sizeof(b->note[0]);

	if (b->notes == LITMUS_NOTES)
		return;
	text = b->note[b->notes++];
	len = (size_t)snprintf(
		text, size, "%s: batch %llu instance %u seed %llu, collected on node %u;",
		litmus_outcome(t, outcome, name), (unsigned long long)p->batch, instance,
		(unsigned long long)w->cell->seed, w->cell->node[p->keeper]);
	for (unsigned i = 0; i < w->cell->workers && len < size; i++)
		if (p->part[i] != PLAN_NOBODY)
			len += (size_t)snprintf(text + len, size - len, " P%u on node %u",
						p->part[i], w->cell->node[i]);
	for (unsigned v = 0; v < t->vars && len < size; v++)
		len += (size_t)snprintf(text + len, size - len, " %c: page %u word %u holds %lx",
					"xyz"[v], p -> page[plan_page(p, instance, v)],
					plan_word(p, instance, v), *word_at(w, p, instance, v));
	for (unsigned r = 0; r < t->regs && len < size; r++)
		len += (size_t)snprintf(text + len, size - len, " r%u=%lx", r, b->reg[instance][r]);
}

static void collect(struct worker *w, const struct plan *p)
{
	const struct litmus_test *t = w->cell->test;

	for (unsigned i = 0; i < p->instances; i++) {
		unsigned outcome = 0;

		for (unsigned r = 0; r < t->regs; r++)
			outcome |= LITMUS_REG(
				r, decode(w->b->reg[i][r], plan_stamp(p, i, var_of(t, r)), 2));
		for (unsigned v = 0; v < t->vars; v++)
			outcome |= LITMUS_LAST(v, decode(*(volatile uint64_t *)word_at(w, p, i, v),
							 plan_stamp(p, i, v), 2));
		w->b->count[outcome]++;
		if (!litmus_has(&w->b->allowed, outcome))
			note(w, p, i, outcome);
	}
}

static void reset(struct worker *w, const struct plan *p)
{
	for (unsigned i = 0; i < p->instances; i++)
		for (unsigned v = 0; v < w->cell->test->vars; v++) {
			uint32_t page = p->page[plan_page(p, i, v)];
			uint64_t stamp = plan_stamp(p, i, v);

			*(volatile uint64_t *)word_at(w, p, i, v) = stamp;
			if (w->cell->memory != LITMUS_LAZY)
				continue;
			w->b->shadow[page][plan_word(p, i, v)] = stamp;
			for (unsigned n = 0; n < LITMUS_NODES; n++)
				w->b->copy[n][page][plan_word(p, i, v)] = stamp;
		}
	memset(w->b->reg, 0xff, sizeof(w->b->reg));
}

/* ---- a worker's life --------------------------------------------------------------------- */

static void get_memory(struct worker *w)
{
	const struct litmus_cell *c = w->cell;
	unsigned node = c->node[w->self];
	int rc;

	if (c->memory != LITMUS_WAVEVM) {
		w->memory = w->b->copy[c->memory == LITMUS_LAZY ? node : 0][0];
		return;
	}
	rc = wvm_attach(&w->wvm, c->ring[node]);
	if (rc)
		give_up(w, "attach on node %u: %s", node, wvm_attach_error());
	w->memory = wvm_map(w->wvm, c->vm_id, 0, c->vm_bytes, WVM_STRICT);
	if (!w->memory)
		give_up(w, "map on node %u: %s", node, wvm_attach_error());
}

static void pin(unsigned self)
{
	cpu_set_t allowed, one;
	unsigned nth;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) || CPU_COUNT(&allowed) < 2)
		return;
	nth = self % (unsigned)CPU_COUNT(&allowed);
	CPU_ZERO(&one);
	for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && !nth--) {
			CPU_SET(cpu, &one);
			break;
		}
	sched_setaffinity(0, sizeof(one), &one);
}

static void run_part(struct worker *w)
{
	unsigned part = w->plan.part[w->self];

	set_phase(w, WORKER_RUNS);
	if (part != PLAN_NOBODY)
		run_thread(w, &w->cell->test->thread[part]);
	else if (w->cell->memory == LITMUS_LAZY)
		carry_all(w);
	else
		stand_by(w);
}

void worker_main(struct board *b, unsigned self, pid_t parent)
{
	struct worker w = {.b = b, .cell = b->cell, .self = self};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	prctl(PR_SET_TIMERSLACK, 1);
	signal(SIGPIPE, SIG_IGN);
	w.random = b->cell->seed << 8 ^ self;
	pin(self);
	get_memory(&w);
	for (uint64_t batch = 0; batch <= b->batches; batch++) {
		plan_make(w.cell, batch, &w.plan);
		atomic_store(&b->place[self].visited, 0);
		set_phase(&w, WORKER_KEEPS);
		if (w.plan.keeper == self && batch > 0)
			collect(&w, &w.last);
		if (batch == b->batches)
			break;
		if (w.plan.keeper == self)
			reset(&w, &w.plan);
		meet(&w);
		if (w.plan.warm)
			warm_up(&w);
		run_part(&w);
		meet(&w);
		w.last = w.plan;
	}
	set_phase(&w, WORKER_ENDS);
	wvm_detach(w.wvm);
	_exit(0);
}

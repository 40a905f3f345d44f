/*
 * x86-TSO as an abstract machine (Owens, Sarkar, Sewell, "A better x86 memory
 * model: x86-TSO", 2009): each thread has a FIFO of stores; a load takes the
 * newest store to its address from the own FIFO, else memory; mfence waits
 * until the FIFO is empty; the oldest store goes to memory at any time. All
 * interleavings are walked: the programs are a few instructions long.
 */
#include "roles/check/litmus/litmus.h"

struct machine {
	uint8_t memory[LITMUS_VARS], reg[LITMUS_REGS];
	uint8_t at[LITMUS_THREADS];     /* the next instruction */
	uint8_t first[LITMUS_THREADS];  /* the oldest store that is not in memory */
	uint8_t queued[LITMUS_THREADS]; /* after the newest */
	struct litmus_op fifo[LITMUS_THREADS][LITMUS_OPS];
};

struct walk {
	const struct litmus_test *test;
	enum litmus_order order;
	struct litmus_set *out;
};

static uint8_t load(const struct machine *m, unsigned t, unsigned var)
{
	for (unsigned i = m->queued[t]; i-- > m->first[t];)
		if (m->fifo[t][i].var == var)
			return m->fifo[t][i].value;
	return m->memory[var];
}

static void finish(const struct walk *w, const struct machine *m)
{
	unsigned outcome = 0;

	for (unsigned i = 0; i < w->test->regs; i++)
		outcome |= LITMUS_REG(i, m->reg[i]);
	for (unsigned i = 0; i < w->test->vars; i++)
		outcome |= LITMUS_LAST(i, m->memory[i]);
	w->out->bits[outcome / 64] |= UINT64_C(1) << (outcome % 64);
}

/* Thread t's next instruction; false: it cannot go on now. */
static bool step(const struct walk *w, struct machine *m, unsigned t)
{
	const struct litmus_thread *code = &w->test->thread[t];
	const struct litmus_op *op = &code->op[m->at[t]];

	if (m->at[t] == code->ops)
		return false;
	for (unsigned i = 0; w->order == LITMUS_SERIAL && i < w->test->threads; i++)
		if (i != t && m->at[i] && m->at[i] < w->test->thread[i].ops)
			return false;
	if (op->kind == LITMUS_FENCE && m->first[t] != m->queued[t])
		return false;
	if (op->kind == LITMUS_LOAD)
		m->reg[op->value] = load(m, t, op->var);
	else if (op->kind == LITMUS_STORE && w->order == LITMUS_TSO)
		m->fifo[t][m->queued[t]++] = *op;
	else if (op->kind == LITMUS_STORE)
		m->memory[op->var] = op->value;
	m->at[t]++;
	return true;
}

static bool drain(struct machine *m, unsigned t)
{
	if (m->first[t] == m->queued[t])
		return false;
	m->memory[m->fifo[t][m->first[t]].var] = m->fifo[t][m->first[t]].value;
	m->first[t]++;
	return true;
}

static void explore(const struct walk *w, const struct machine *m)
{
	bool ended = true;

	for (unsigned t = 0; t < w->test->threads; t++) {
		struct machine stepped = *m, drained = *m;

		if (step(w, &stepped, t)) {
			explore(w, &stepped);
			ended = false;
		}
		if (drain(&drained, t)) {
			explore(w, &drained);
			ended = false;
		}
	}
	if (ended)
		finish(w, m);
}

void litmus_model(const struct litmus_test *t, enum litmus_order order, struct litmus_set *out)
{
	struct walk w = {.test = t, .order = order, .out = out};

	*out = (struct litmus_set){0};
	explore(&w, &(struct machine){0});
}

unsigned litmus_set_size(const struct litmus_set *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LITMUS_OUTCOMES / 64; i++)
		n += (unsigned)__builtin_popcountll(s->bits[i]);
	return n;
}

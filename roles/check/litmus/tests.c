/* The litmus tests, their code, and how their outcomes are written. */
#include <stdio.h>
#include <string.h>

#include "roles/check/litmus/litmus.h"

#ifndef __x86_64__
#error "the litmus tests are x86 instructions"
#endif

static inline __attribute__((always_inline)) void access(const struct litmus_op *op,
							 struct litmus_frame *f)
{
	switch (op->kind) {
	case LITMUS_STORE:
		asm volatile("movq %1, %0"
			     : "=m"(*f->at[op->var])
			     : "r"(f->stamp[op->var] | op->value)
			     : "memory");
		break;
	case LITMUS_LOAD:
		asm volatile("movq %1, %0"
			     : "=r"(f->reg[op->value])
			     : "m"(*f->at[op->var])
			     : "memory");
		break;
	default: asm volatile("mfence" ::: "memory");
	}
}

/* With constant arguments the loop unrolls and nothing but the accesses is left. */
static inline __attribute__((always_inline)) void execute(const struct litmus_op *op, unsigned ops,
							  struct litmus_frame *f, bool loose)
{
#pragma GCC unroll 4
	for (unsigned i = 0; i < ops; i++) {
		if (loose)
			litmus_pause(f);
		access(&op[i], f);
	}
}

void litmus_dawdle(const struct litmus_thread *t, struct litmus_frame *f, bool ordered)
{
	struct litmus_op op[LITMUS_OPS];
	unsigned n = 0;

	for (unsigned i = 0; i < t->ops; i++)
		if (ordered || t->op[i].kind != LITMUS_FENCE)
			op[n++] = t->op[i];
	for (; n; n--) {
		unsigned i = ordered ? 0 : (unsigned)(litmus_random(&f->random) % n);

		if (litmus_random(&f->random) % 2)
			litmus_pause(f);
		else
			litmus_sleep(f);
		access(&op[i], f);
		memmove(&op[i], &op[i + 1], (n - 1 - i) * sizeof(op[0]));
	}
}

enum { x, y, z };

#define W(var, value)                    \
	{                                \
		LITMUS_STORE, var, value \
	}
#define R(var, reg)                   \
	{                             \
		LITMUS_LOAD, var, reg \
	}
#define F                          \
	{                          \
		LITMUS_FENCE, 0, 0 \
	}

#define THREAD(name, ...)                                                                     \
	static const struct litmus_op name##_ops[] = {__VA_ARGS__};                           \
	static void name##_tight(struct litmus_frame *f)                                      \
	{                                                                                     \
		execute(name##_ops, sizeof(name##_ops) / sizeof(struct litmus_op), f, false); \
	}                                                                                     \
	static void name##_loose(struct litmus_frame *f)                                      \
	{                                                                                     \
		execute(name##_ops, sizeof(name##_ops) / sizeof(struct litmus_op), f, true);  \
	}
#define CODE(name)                                                                       \
	{                                                                                \
		name##_ops, sizeof(name##_ops) / sizeof(struct litmus_op), name##_tight, \
			name##_loose                                                     \
	}

THREAD(sb_0, W(x, 1), R(y, 0))
THREAD(sb_1, W(y, 1), R(x, 1))
THREAD(sb_fenced_0, W(x, 1), F, R(y, 0))
THREAD(sb_fenced_1, W(y, 1), F, R(x, 1))
THREAD(mp_0, W(x, 1), W(y, 1))
THREAD(mp_1, R(y, 0), R(x, 1))
THREAD(mp_fenced_0, W(x, 1), F, W(y, 1))
THREAD(mp_fenced_1, R(y, 0), F, R(x, 1))
THREAD(lb_0, R(x, 0), W(y, 1))
THREAD(lb_1, R(y, 1), W(x, 1))
THREAD(r_1, W(y, 2), R(x, 0))
THREAD(s_0, W(x, 2), W(y, 1))
THREAD(s_1, R(y, 0), W(x, 1))
THREAD(w22_0, W(x, 1), W(y, 2))
THREAD(w22_1, W(y, 1), W(x, 2))
THREAD(write_x, W(x, 1))
THREAD(write_y, W(y, 1))
THREAD(corr_1, R(x, 0), R(x, 1))
THREAD(coww_0, W(x, 1), W(x, 2))
THREAD(iriw_2, R(x, 0), R(y, 1))
THREAD(iriw_3, R(y, 2), R(x, 3))
THREAD(wrc_1, R(x, 0), W(y, 1))
THREAD(wrc_2, R(y, 1), R(x, 2))
THREAD(isa2_1, R(y, 0), W(z, 1))
THREAD(isa2_2, R(z, 1), R(x, 2))

#define CODES(...) .thread = {__VA_ARGS__}
#define REGS2(a, b)                                   \
	.asked = LITMUS_REG(0, a) | LITMUS_REG(1, b), \
	.asked_mask = LITMUS_REG(0, 3) | LITMUS_REG(1, 3)
#define REGS3(a, b, c)                                                   \
	.asked = LITMUS_REG(0, a) | LITMUS_REG(1, b) | LITMUS_REG(2, c), \
	.asked_mask = LITMUS_REG(0, 3) | LITMUS_REG(1, 3) | LITMUS_REG(2, 3)
#define REGS4(a, b, c, d)                                                                   \
	.asked = LITMUS_REG(0, a) | LITMUS_REG(1, b) | LITMUS_REG(2, c) | LITMUS_REG(3, d), \
	.asked_mask = LITMUS_REG(0, 3) | LITMUS_REG(1, 3) | LITMUS_REG(2, 3) | LITMUS_REG(3, 3)
#define REG_LAST(a, var, b)                              \
	.asked = LITMUS_REG(0, a) | LITMUS_LAST(var, b), \
	.asked_mask = LITMUS_REG(0, 3) | LITMUS_LAST(var, 3)

/* The names are those of Alglave, Maranget and Tautschnig, "Herding cats". */
const struct litmus_test litmus_tests[] = {
	{"SB", 2, 2, 2, CODES(CODE(sb_0), CODE(sb_1)), REGS2(0, 0)},
	{"SB+mfences", 2, 2, 2, CODES(CODE(sb_fenced_0), CODE(sb_fenced_1)), REGS2(0, 0)},
	{"MP", 2, 2, 2, CODES(CODE(mp_0), CODE(mp_1)), REGS2(1, 0)},
	{"MP+mfences", 2, 2, 2, CODES(CODE(mp_fenced_0), CODE(mp_fenced_1)), REGS2(1, 0)},
	{"LB", 2, 2, 2, CODES(CODE(lb_0), CODE(lb_1)), REGS2(1, 1)},
	{"R", 2, 2, 1, CODES(CODE(mp_0), CODE(r_1)), REG_LAST(0, y, 2)},
	{"S", 2, 2, 1, CODES(CODE(s_0), CODE(s_1)), REG_LAST(1, x, 2)},
	{"2+2W", 2, 2, 0, CODES(CODE(w22_0), CODE(w22_1)),
	 .asked = LITMUS_LAST(x, 1) | LITMUS_LAST(y, 1),
	 .asked_mask = LITMUS_LAST(x, 3) | LITMUS_LAST(y, 3)},
	{"CoRR", 2, 1, 2, CODES(CODE(write_x), CODE(corr_1)), REGS2(1, 0)},
	{"CoWW", 1, 1, 0, CODES(CODE(coww_0)), .asked = LITMUS_LAST(x, 1),
	 .asked_mask = LITMUS_LAST(x, 3)},
	{"IRIW", 4, 2, 4, CODES(CODE(write_x), CODE(write_y), CODE(iriw_2), CODE(iriw_3)),
	 REGS4(1, 0, 1, 0)},
	{"WRC", 3, 2, 3, CODES(CODE(write_x), CODE(wrc_1), CODE(wrc_2)), REGS3(1, 1, 0)},
	{"ISA2", 3, 3, 3, CODES(CODE(mp_0), CODE(isa2_1), CODE(isa2_2)), REGS3(1, 1, 0)},
};
const unsigned litmus_count = sizeof(litmus_tests) / sizeof(litmus_tests[0]);

const struct litmus_test *litmus_find(const char *name)
{
	for (unsigned i = 0; i < litmus_count; i++)
		if (!strcmp(litmus_tests[i].name, name))
			return &litmus_tests[i];
	return NULL;
}

/* ---- outcomes as text -------------------------------------------------------------------- */

static const char *write_outcome(const struct litmus_test *t, unsigned outcome, unsigned mask,
				 char *text)
{
	size_t len = 0;

	for (unsigned i = 0; i < LITMUS_REGS + LITMUS_VARS; i++) {
		bool last = i >= LITMUS_REGS;

		if (last ? i - LITMUS_REGS >= t->vars : i >= t->regs)
			continue;
		if (!(mask >> (2 * i) & 3))
			continue;
		len += (size_t)snprintf(text + len, LITMUS_OUTCOME_TEXT - len, "%s%c",
					len ? " " : "", last ? "xyz"[i - LITMUS_REGS] : 'r');
		if (!last)
			len += (size_t)snprintf(text + len, LITMUS_OUTCOME_TEXT - len, "%u", i);
		len += (size_t)snprintf(text + len, LITMUS_OUTCOME_TEXT - len, "=%c",
					"012?"[outcome >> (2 * i) & 3]);
	}
	return text;
}

const char *litmus_outcome(const struct litmus_test *t, unsigned outcome, char *text)
{
	return write_outcome(t, outcome, ~0u, text);
}

const char *litmus_asked(const struct litmus_test *t, char *text)
{
	return write_outcome(t, t->asked, t->asked_mask, text);
}

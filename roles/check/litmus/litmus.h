/*
 * Litmus tests: programs of a few loads and stores whose outcomes tell memory
 * models apart. What x86-TSO allows of each is not written down here but
 * enumerated by a model of it (litmus_model()) from the same instructions that
 * are executed.
 */
#ifndef WVM_LITMUS_H
#define WVM_LITMUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LITMUS_THREADS 4u
#define LITMUS_VARS    3u /* x, y, z; each starts as 0 */
#define LITMUS_REGS    4u /* of all threads together */
#define LITMUS_OPS     3u
#define LITMUS_FOREIGN 3u /* stands for a value that nobody wrote to this variable in this run */

enum litmus_kind { LITMUS_STORE, LITMUS_LOAD, LITMUS_FENCE };

struct litmus_op {
	uint8_t kind, var;
	uint8_t value; /* LITMUS_STORE: 1 or 2; LITMUS_LOAD: the register */
};

/* What a thread's code works on. Values in memory carry the stamp of their run and variable. */
struct litmus_frame {
	volatile uint64_t *at[LITMUS_VARS];
	uint64_t stamp[LITMUS_VARS]; /* the two lowest bits are 0 */
	uint64_t reg[LITMUS_REGS];   /* as loaded, with the stamp */
	uint64_t random, delay_ticks;
};

typedef void litmus_code(struct litmus_frame *f);

struct litmus_thread {
	const struct litmus_op *op;
	unsigned ops;
	litmus_code *tight; /* the accesses, one mov each */
	litmus_code *loose; /* the same with litmus_pause() before each */
};

struct litmus_test {
	const char *name;
	unsigned threads, vars, regs;
	struct litmus_thread thread[LITMUS_THREADS];
	unsigned asked, asked_mask; /* the outcome that the literature asks about */
};

extern const struct litmus_test litmus_tests[];
extern const unsigned litmus_count;

const struct litmus_test *litmus_find(const char *name);

/*
 * A thread's accesses with sleeps between them, so that threads meet in the
 * middle however few processors there are; or, not ordered, in any order and
 * without its fences: what no x86 does.
 */
void litmus_dawdle(const struct litmus_thread *t, struct litmus_frame *f, bool ordered);

/* ---- outcomes ---------------------------------------------------------------------------- */

/* Two bits for each register and for the last value of each variable. */
#define LITMUS_REG(reg, value)  ((unsigned)(value) << (2 * (reg)))
#define LITMUS_LAST(var, value) ((unsigned)(value) << (2 * (LITMUS_REGS + (var))))
#define LITMUS_REG_OF(o, reg)   ((o) >> (2 * (reg)) & 3)
#define LITMUS_LAST_OF(o, var)  ((o) >> (2 * (LITMUS_REGS + (var))) & 3)
#define LITMUS_OUTCOMES         (1u << (2 * (LITMUS_REGS + LITMUS_VARS)))
#define LITMUS_OUTCOME_TEXT     64u

struct litmus_set {
	uint64_t bits[LITMUS_OUTCOMES / 64];
};

static inline bool litmus_has(const struct litmus_set *s, unsigned outcome)
{
	return s->bits[outcome / 64] >> (outcome % 64) & 1;
}

unsigned litmus_set_size(const struct litmus_set *s);

/* Each allows what the one before does, and more. */
enum litmus_order {
	LITMUS_SERIAL,     /* the threads one after the other, in any order */
	LITMUS_SEQUENTIAL, /* any interleaving of their instructions */
	LITMUS_TSO,
};

/* All outcomes that an order allows. */
void litmus_model(const struct litmus_test *t, enum litmus_order order, struct litmus_set *out);

/* "r0=1 r1=0 x=1 y=1"; '?' is LITMUS_FOREIGN. text has LITMUS_OUTCOME_TEXT bytes. */
const char *litmus_outcome(const struct litmus_test *t, unsigned outcome, char *text);
/* The asked outcome, which says nothing on some of them. */
const char *litmus_asked(const struct litmus_test *t, char *text);

/* ---- time and chance --------------------------------------------------------------------- */

/* Ticks of the time stamp counter in a microsecond; measured at the first call. */
uint64_t litmus_ticks_per_us(void);
/* Spins for less than f->delay_ticks. */
void litmus_pause(struct litmus_frame *f);
/* Sleeps for less than 60 us: others run meanwhile, however few processors there are. */
void litmus_sleep(struct litmus_frame *f);
/* splitmix64 */
uint64_t litmus_random(uint64_t *state);

#endif

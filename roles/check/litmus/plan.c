#include "roles/check/litmus/plan.h"

/* No common factor with PLAN_WORDS, nor with its half and third. */
static const uint8_t strides[] = {1, 1, 5, 11, 13, 17, 19, 23, 25, 29, 31, 37, 41, 43, 47};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static unsigned below(uint64_t *random, unsigned n)
{
	return (unsigned)(litmus_random(random) % n);
}

static void deal_parts(const struct litmus_cell *c, uint64_t *random, struct plan *p)
{
	unsigned last = c->shuffle ? c->workers : c->test->threads;

	for (unsigned i = 0; i < c->workers; i++)
		p->part[i] = (uint8_t)(i < c->test->threads ? i : PLAN_NOBODY);
	for (unsigned i = last - 1; i > 0; i--) {
		unsigned k = below(random, i + 1);
		uint8_t part = p->part[i];

		p->part[i] = p->part[k];
		p->part[k] = part;
	}
	p->keeper = below(random, c->workers);
}

static void place(const struct litmus_cell *c, uint64_t *random, struct plan *p)
{
	unsigned home = below(random, c->pool.homes), at = below(random, LITMUS_POOL);
	unsigned step = 1 + below(random, 5); /* twice that does not come round the pool */

	p->pages = c->placement == LITMUS_ONE_PAGE ? 1 : c->test->vars > 2 ? c->test->vars : 2;
	for (unsigned i = 0; i < p->pages; i++) {
		unsigned of = c->placement == LITMUS_HOMES ? (home + i) % c->pool.homes : home;

		p->page[i] = c->pool.page[of][(at + i * step) % LITMUS_POOL];
	}
	p->word_first = below(random, PLAN_WORDS);
	p->word_stride = strides[below(random, COUNT(strides))];
}

/* Mostly all go the same way from the same place, so that they meet at an instance. */
static void order_visits(const struct litmus_cell *c, uint64_t *random, struct plan *p)
{
	unsigned first = below(random, p->instances),
		 stride = strides[below(random, COUNT(strides))];
	unsigned way = below(random, 4);

	for (unsigned i = 0; i < c->workers; i++) {
		p->first[i] = first;
		p->stride[i] = stride;
		if (way == 1)
			p->first[i] += below(random, 4);
		if (way == 2) {
			p->first[i] = below(random, p->instances);
			p->stride[i] = strides[below(random, COUNT(strides))];
		}
	}
}

void plan_make(const struct litmus_cell *c, uint64_t batch, struct plan *p)
{
	static const uint8_t part[] = {63, 4, 2, 1, 0}; /* of the longest delay: 2^-n */

	uint64_t random = c->seed * UINT64_C(0x9e3779b97f4a7c15) ^ batch << 20;

	*p = (struct plan){.batch = batch, .instances = plan_instances(c)};
	deal_parts(c, &random, p);
	place(c, &random, p);
	order_visits(c, &random, p);
	p->delay_ticks = c->delay_us * litmus_ticks_per_us() >> part[below(&random, COUNT(part))];
	p->loose = p->delay_ticks ? 1 + below(&random, 7) : 0;
	p->warm = below(&random, 2);
	p->lockstep = below(&random, 3) == 0;
}

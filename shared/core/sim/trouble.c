/* Random troubles: each begins at some time, strikes some node or wire, and ends later. */
#include <string.h>

#include "shared/core/sim/sim.h"

static uint64_t about(struct sim *s, uint64_t ns)
{
	return 1 + sim_rnd(s) % (2 * ns + 1);
}

static void cut(struct sim *s, uint32_t from, uint32_t to, int by)
{
	s->cuts[from][to] = (uint8_t)(s->cuts[from][to] + by);
}

/* by 1: begins, -1: ends. */
static void strike(struct sim *s, enum sim_trouble trouble, uint32_t a, uint32_t b, int by)
{
	switch (trouble) {
	case SIM_CUT_NODE:
		for (uint32_t i = 0; i < s->config.nodes; i++) {
			cut(s, a, i, by);
			cut(s, i, a, by);
		}
		break;
	case SIM_CUT_PAIR: cut(s, b, a, by); /* fallthrough */
	case SIM_CUT_WAY: cut(s, a, b, by); break;
	case SIM_STOP: sim_stop(s, a, by > 0); return;
	case SIM_KILL:
		if (by > 0)
			sim_kill(s, a);
		else
			sim_revive(s, a);
		return;
	case SIM_SLOW: sim_slow(s, a, by > 0 ? 5000 + sim_rnd(s) % 500000 : 0); return;
	case SIM_TROUBLES: return;
	}
	sim_note(s, a, SIM_NO_PAGE, "%s %s%u", by > 0 ? "CUT" : "joined",
		 trouble == SIM_CUT_NODE  ? "from all, "
		 : trouble == SIM_CUT_WAY ? "to "
					  : "both ways, ",
		 b);
}

static enum sim_trouble choose(struct sim *s)
{
	uint32_t bit;

	do {
		bit = 1u << sim_rnd(s) % 6;
	} while (!(s->config.troubles & bit));
	return (enum sim_trouble)bit;
}

static void next(struct sim *s)
{
	sim_post(s, s->report.now_ns + about(s, s->config.trouble_gap_ns), SIM_EV_TROUBLE);
}

void sim_trouble_begin(struct sim *s)
{
	enum sim_trouble trouble;
	struct sim_event *e;
	uint64_t length;

	if (s->quiet) {
		s->trouble_idle = true;
		return;
	}
	trouble = choose(s);
	s->report.stops += trouble == SIM_STOP;
	s->report.slowed += trouble == SIM_SLOW;
	s->report.cuts += trouble < SIM_STOP;
	/* Most are short; some outlive deadlines. */
	length = about(s, s->config.trouble_ns);
	if (sim_rnd(s) % 8 == 0)
		length *= 10;
	e = sim_post(s, s->report.now_ns + length, SIM_EV_RELIEF);
	e->trouble = (uint8_t)trouble;
	e->node = (uint32_t)(sim_rnd(s) % s->config.nodes);
	e->index = (e->node + 1 + (uint32_t)(sim_rnd(s) % (s->config.nodes - 1))) % s->config.nodes;
	e->life = s->trouble_life;
	strike(s, trouble, e->node, e->index, 1);
	next(s);
}

void sim_trouble_end(struct sim *s, const struct sim_event *e)
{
	if (e->life == s->trouble_life)
		strike(s, (enum sim_trouble)e->trouble, e->node, e->index, -1);
}

/* The cluster is no longer quiet. */
void sim_trouble_start(struct sim *s)
{
	if (!s->trouble_idle || !s->config.troubles || !s->config.trouble_gap_ns)
		return;
	s->trouble_idle = false;
	next(s);
}

/* All random troubles end now; what the caller of the simulator did stays. */
void sim_trouble_heal(struct sim *s)
{
	s->trouble_life++;
	memset(s->cuts, 0, sizeof(s->cuts));
	for (uint32_t i = 0; i < s->config.nodes; i++) {
		while (s->nodes[i].stops)
			sim_stop(s, i, false);
		if (s->nodes[i].service_ns)
			sim_slow(s, i, 0);
		sim_revive(s, i);
	}
}

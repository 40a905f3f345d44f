/* Configurations: one that works, and any that follows from a seed. */
#include "shared/core/sim/sim.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

void sim_default(struct sim_config *c, uint64_t seed)
{
	*c = (struct sim_config){
		.seed = seed,
		.nodes = 3,
		.clients = 2,
		.threads = 2,
		.pages = 16,
		.loss_ppm = 10000,
		.duplicate_ppm = 10000,
		.reorder_ppm = 50000,
		.delay_ns = 20000,
		.reorder_ns = 2000000,
		.think_ns = 20000,
		.write_ppm = 400000,
		.pin_ppm = 10000,
		.learn_ns = 200 * MS,
	};
	wvm_core_default_limits(&c->limits);
	wvm_core_default_times(&c->times);
}

/* The dice of a plan are not those of its run: a plan can be changed by hand and run again. */
struct dice {
	uint64_t x;
};

static uint64_t roll(struct dice *d, uint64_t from, uint64_t to)
{
	d->x ^= d->x >> 12;
	d->x ^= d->x << 25;
	d->x ^= d->x >> 27;
	return from + (d->x * UINT64_C(0x2545f4914f6cdd1d) >> 11) % (to - from + 1);
}

static bool one_in(struct dice *d, uint64_t n)
{
	return roll(d, 1, n) == 1;
}

/* Small values as often as large ones. */
static uint64_t roll_scale(struct dice *d, uint64_t from, uint64_t to)
{
	uint64_t top = from;

	for (uint64_t steps = roll(d, 0, 63); steps && top < to; steps--)
		top = one_in(d, 4) ? top * 2 + 1 : top + (top + 3) / 4;
	return roll(d, from, top < to ? top : to);
}

static void plan_shape(struct dice *d, struct sim_config *c)
{
	c->nodes = (uint32_t)(one_in(d, 8) ? roll(d, 9, 14) : roll(d, 2, 8));
	c->clients = (uint32_t)roll(d, 1, c->nodes > 8 ? 2 : 3);
	c->threads = (uint32_t)roll(d, 1, SIM_THREADS_MAX / (c->nodes * c->clients) > 2 ? 3 : 2);
	if (c->nodes * c->clients * c->threads > SIM_THREADS_MAX)
		c->threads = 1;
	c->pages = (uint32_t)(one_in(d, 3) ? roll(d, 1, 3) : roll(d, 2, 40));
	c->pages_hot = one_in(d, 3) ? (uint32_t)roll(d, 1, c->pages) : 0;
	c->think_ns = roll_scale(d, 500, 200 * US);
	c->write_ppm = (uint32_t)(one_in(d, 4) ? roll_scale(d, 1000, 1000000)
					       : roll(d, 100000, 900000));
	c->pin_ppm = one_in(d, 3) ? (uint32_t)roll_scale(d, 1000, 500000) : 0;
}

static void plan_network(struct dice *d, struct sim_config *c)
{
	c->delay_ns = roll_scale(d, 2 * US, MS);
	c->loss_ppm = one_in(d, 4) ? 0 : (uint32_t)roll_scale(d, 100, 300000);
	c->duplicate_ppm = one_in(d, 4) ? 0 : (uint32_t)roll_scale(d, 100, 300000);
	c->reorder_ppm = one_in(d, 4) ? 0 : (uint32_t)roll_scale(d, 1000, 600000);
	c->reorder_ns = roll_scale(d, 10 * US, 80 * MS);
	c->corrupt_ppm = one_in(d, 3) ? 0 : (uint32_t)roll_scale(d, 100, 50000);
	c->ancient_ppm = one_in(d, 2) ? 0 : (uint32_t)roll_scale(d, 10, 5000);
	c->ancient_ns = roll_scale(d, 10 * MS, 8000 * MS);
}

static void plan_core(struct dice *d, struct sim_config *c)
{
	struct wvm_core_limits *l = &c->limits;

	if (one_in(d, 2)) {
		l->requests = (uint32_t)roll(d, 1, 8);
		l->txns = (uint32_t)roll(d, 1, 4);
		l->waiting = (uint32_t)roll(d, 1, 8);
		l->demands = (uint32_t)roll(d, 1, 4);
		l->partials = 1u << roll(d, 0, 3);
		l->holder_blocks = (uint32_t)roll(d, 1, 6);
		l->peer_shards = 1;
	} else if (one_in(d, 2)) {
		/* Enough for all threads, and quicker to begin with than the defaults. */
		*l = (struct wvm_core_limits){.requests = 64,
					      .txns = 64,
					      .waiting = 256,
					      .demands = 64,
					      .partials = 64,
					      .holder_blocks = 64,
					      .peer_shards = 2};
	}
	if (one_in(d, 2)) {
		c->times.deadline_ns = roll_scale(d, 20 * MS, 5000 * MS);
		c->times.rto_min_ns = roll_scale(d, 500 * US, 6 * MS);
		c->times.rto_initial_ns = roll_scale(d, MS, 20 * MS);
		c->times.rto_max_ns = roll_scale(d, 20 * MS, 500 * MS);
		c->times.hold_min_ns = roll_scale(d, 1000, 300 * US);
		c->times.hold_max_ns = roll_scale(d, c->times.hold_min_ns, 10 * MS);
	}
}

static void plan_troubles(struct dice *d, struct sim_config *c)
{
	static const uint32_t socket[] = {0, 4096, 20000, 212992};

	c->socket_bytes = socket[roll(d, 0, 3)];
	if (!one_in(d, 3)) {
		c->troubles = (uint32_t)roll(d, 1, SIM_TROUBLES);
		c->trouble_ns = roll_scale(d, 2 * MS, 1000 * MS);
		c->trouble_gap_ns = c->trouble_ns * roll(d, 1, 10);
	}
	if (one_in(d, 2)) {
		c->program_gap_ns = roll_scale(d, 5 * MS, 1000 * MS);
		c->program_away_ns = roll_scale(d, 50 * US, 20 * MS);
	}
	c->units = !one_in(d, 4);
	c->full_ppm = one_in(d, 4) ? (uint32_t)roll_scale(d, 100, 20000) : 0;
}

/* Half of them calm: then nobody may notice. Of the others some take their programs along. */
static void plan_deaths(struct dice *d, struct sim_config *c)
{
	if (!one_in(d, 3))
		return;
	c->deaths = (uint32_t)roll(d, 1, c->nodes > 3 ? 3 : c->nodes - 1);
	c->death_gap_ns = roll_scale(d, MS, 1000 * MS);
	c->death_known_ns = roll_scale(d, MS, 200 * MS);
	c->deaths_meet = one_in(d, 2);
	c->deaths_all = c->deaths_meet && one_in(d, 3);
	c->mortal_only = !c->deaths_all && one_in(d, 2);
}

void sim_random(struct sim_config *c, uint64_t seed)
{
	struct dice d = {seed * UINT64_C(0xd1342543de82ef95) + 1};

	roll(&d, 0, 1);
	sim_default(c, seed);
	plan_shape(&d, c);
	plan_network(&d, c);
	plan_core(&d, c);
	plan_troubles(&d, c);
	c->read_ahead = one_in(&d, 2) ? (uint32_t)roll(&d, 1, 4) : 0;
	c->evict_ppm = one_in(&d, 2) ? (uint32_t)roll_scale(&d, 1000, 500000) : 0;
	c->placed = one_in(&d, 3);
	c->move_gap_ns = one_in(&d, 2) ? roll_scale(&d, MS, 1000 * MS) : 0;
	/* A new home needs blocks for all that the former ones had. */
	if (c->move_gap_ns && c->limits.holder_blocks < 3 * c->pages)
		c->limits.holder_blocks = 3 * c->pages;
	c->wander = one_in(&d, 2) ? (uint32_t)roll(&d, 1, 3) : 0;
	c->renew = c->move_gap_ns && one_in(&d, 2);
	c->backup = one_in(&d, 2);
	plan_deaths(&d, c);
	c->unmap_ppm = one_in(&d, 3) ? (uint32_t)roll_scale(&d, 1000, 200000) : 0;
}

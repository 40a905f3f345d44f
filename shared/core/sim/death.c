/*
 * Nodes that die for good: from one moment on nothing is heard of them, and their files are gone.
 * Some time later the others agree on it, by an epoch that gives its slices to their second homes.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/core/sim/sim.h"

#define MS    UINT64_C(1000000)
#define AGAIN (5 * MS)

static uint64_t about(struct sim *s, uint64_t ns)
{
	return s->report.now_ns + 1 + sim_rnd(s) % (2 * ns + 1);
}

/* The last nodes are there to die. */
bool sim_runs_nothing(const struct sim *s, uint32_t node)
{
	return !s->config.deaths_all && node + s->config.deaths >= s->config.nodes;
}

static void next(struct sim *s)
{
	sim_post(s, about(s, s->config.death_gap_ns), SIM_EV_DEATH);
}

static bool is_home(const struct sim *s, uint32_t node)
{
	return node < s->config.nodes && s->active[node];
}

/*
 * The second homes that belong to the move's slices: who gave the slice away; else who was it; else
 * who would be its home without the present one. was: NULL: there was no table before.
 */
void sim_build_seconds(struct sim *s, struct sim_move *m, const struct sim_move *was)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t home = m->slices.home_vnode[i], second = SIM_NOBODY;

		if (was)
			second = was->slices.home_vnode[i] != home ? was->slices.home_vnode[i]
								   : was->seconds.home_vnode[i];
		m->seconds.home_vnode[i] = is_home(s, second) && second != home
						   ? second
						   : sim_second(s, i, home);
		m->second.home_vnode[i] = !s->config.mortal_only || sim_runs_nothing(s, home)
						  ? m->seconds.home_vnode[i]
						  : WVM_SLICE_NIL;
	}
}

void sim_deaths_start(struct sim *s)
{
	if (!s->config.deaths)
		return;
	next(s);
}

bool sim_unburied(const struct sim *s)
{
	for (uint32_t i = 0; i < s->config.nodes; i++)
		if (s->nodes[i].dead && !s->nodes[i].buried)
			return true;
	return false;
}

static void die(struct sim *s, uint32_t node)
{
	uint64_t units = s->page_count / WVM_UNIT_PAGES + 1;
	struct sim_node *n = &s->nodes[node];

	sim_note(s, node, SIM_NO_PAGE, "DIES");
	s->report.deaths++;
	s->report.deaths_between += s->moving;
	n->dead = n->down = true;
	n->dying = n->retiring = false;
	n->tick_ns = 0;
	n->known = n->usable = 0;
	n->core->durable->undos = 0;
	sim_note_stall(s, n);
	for (uint32_t i = node * s->node_threads; i < (node + 1) * s->node_threads; i++) {
		s->threads[i].life++;
		s->threads[i].state = SIM_TH_IDLE;
	}
	memset(n->home, 0xee, sizeof(*n->home) * s->page_count);
	memset(n->units, 0xee, sizeof(*n->units) * units);
	memset(n->held, 0, sizeof(*n->held) * s->page_count);
	memset(n->held_units, 0, sizeof(*n->held_units) * units);
	memset(n->present, 0, sizeof(n->present));
	memset(n->data, 0, sizeof(n->data));
	sim_post(s, about(s, s->config.death_known_ns), SIM_EV_BURY)->node = node;
	/* As where one supply of power ends. */
	if (s->config.reboots && sim_rnd(s) % 2)
		sim_reboot_soon(s, 2 * s->config.death_known_ns);
}

/* It was of nothing the home before this move, and who was still has what it was given. */
static bool is_joining(const struct sim *s, uint32_t node)
{
	const struct sim_move *m = &s->moves[s->table % SIM_MOVES];

	return s->moving && !m->deadly && m->node == node && s->active[node];
}

/* One at a time: neither another death, nor a node without its files, nor a move is under way. */
static bool is_calm(const struct sim *s, uint32_t node)
{
	for (uint32_t i = 0; i < s->config.nodes; i++)
		if (s->nodes[i].empty)
			return false;
	if (sim_unburied(s) || s->config.deaths_joining)
		return !sim_unburied(s) && is_joining(s, node);
	/* Of slices that have lost a page nobody knows that they are copied. */
	return !s->moving && (s->config.deaths_all || !wvm_core_degraded(s->nodes[node].core));
}

static uint32_t homes_left(const struct sim *s)
{
	uint32_t homes = 0;

	for (uint32_t i = 0; i < s->config.nodes; i++)
		homes += s->active[i] && !s->nodes[i].dead;
	return homes;
}

/* A home, or one that is being drained and has something that is not handed over. */
static bool homes_any(const struct sim *s, uint32_t node)
{
	const struct wvm_slices *base = sim_table(s, s->moves[s->table % SIM_MOVES].base);

	for (uint32_t i = 0; s->moving && !s->active[node] && i < WVM_SLICES; i++)
		if (base->home_vnode[i] == node)
			return true;
	return s->active[node];
}

static bool may_die(const struct sim *s, uint32_t node)
{
	const struct sim_node *n = &s->nodes[node];

	for (uint32_t i = 0; i < s->layout.count; i++)
		if (s->placed[i].member == node)
			return false;
	return !n->dead && !n->empty && homes_any(s, node) &&
	       homes_left(s) > (uint32_t)s->active[node] &&
	       (s->config.deaths_all || sim_runs_nothing(s, node)) &&
	       (s->config.deaths_meet || is_calm(s, node));
}

/* Whether one may die as soon as nothing moves. */
static bool any_mortal(const struct sim *s)
{
	for (uint32_t i = 0; i < s->config.nodes && homes_left(s) > 1; i++)
		if (s->active[i] && !s->nodes[i].dead &&
		    (s->config.deaths_all || sim_runs_nothing(s, i)))
			return true;
	return false;
}

void sim_death(struct sim *s)
{
	uint32_t node = (uint32_t)(sim_rnd(s) % s->config.nodes);

	if (s->quiet || s->report.deaths == s->config.deaths) {
		s->death_due = false;
		return;
	}
	if (may_die(s, node)) {
		s->death_due = false;
		die(s, node);
		next(s);
		return;
	}
	/* The next move waits for it, unless it is to give it a home that stays. */
	s->death_due = !s->config.deaths_meet && !s->config.deaths_joining && any_mortal(s);
	sim_post(s, s->report.now_ns + AGAIN, SIM_EV_DEATH);
}

/* What it had goes to the second homes; what others have stays where it is. */
static void take_out(struct sim *s, uint32_t node, struct sim_move *m, const struct sim_move *was)
{
	s->active[node] = 0;
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t home = was->slices.home_vnode[i];

		m->slices.home_vnode[i] = home == node ? was->seconds.home_vnode[i] : home;
	}
	sim_build_seconds(s, m, was);
}

void sim_bury(struct sim *s, uint32_t node)
{
	const struct sim_move *was = sim_move(s, s->table);
	struct sim_move *m = sim_move(s, s->table + 1);
	bool joins = s->moving;

	s->table++;
	m->epoch = ++s->epoch;
	m->moved = joins ? was->moved : m->epoch;
	m->base = joins ? was->base : s->table - 1;
	m->deadly = true;
	m->node = node;
	take_out(s, node, m, was);
	m->lost = was->lost;
	memcpy(m->member, was->member, sizeof(m->member));
	if (!joins || !was->deadly) {
		memset(&m->lost, 0, sizeof(m->lost));
		memset(m->member, WVM_LOST_NOT, sizeof(m->member));
		for (uint32_t i = 0; i < s->config.nodes; i++)
			if (s->nodes[i].buried)
				m->member[i] = WVM_LOST_ABSENT;
	}
	m->lost.epoch = m->epoch;
	m->lost.moved = m->moved;
	m->lost.member = m->member;
	m->member[node] = sim_runs_nothing(s, node) ? WVM_LOST_EMPTY : WVM_LOST_HOLDER;
	wvm_core_lost_slices(&m->lost, &s->list, &was->slices,
			     joins ? sim_table(s, was->base) : NULL, node);
	s->nodes[node].buried = s->table;
	s->moving = true;
	s->unmoved = 0;
	sim_note(s, node, SIM_NO_PAGE, "is taken out, epoch %u", m->epoch);
	sim_tell_all(s);
	if (!s->config.move_gap_ns)
		sim_post(s, s->report.now_ns + AGAIN, SIM_EV_DECIDE);
}

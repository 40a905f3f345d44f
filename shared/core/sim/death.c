/*
 * Nodes that die for good: from one moment on nothing is heard of them, and their files are gone.
 * Some time later the others agree on it, by an epoch that gives its slices to their second homes.
 *
 * What second homes have is a STAND-IN here, until homes copy it by messages (backup.c): whatever a
 * home acknowledges is at its second home at that moment; and all is copied anew when a move has
 * come to its end. Between its begin and that, second homes that are new have nothing, and say so.
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

/* ---- second homes: the stand-in -------------------------------------------------------- */

static uint16_t slice_of(uint64_t core_page)
{
	return wvm_slice_of(SIM_VM_ID, core_page << WVM_PAGE_SHIFT);
}

/* Each slice's home if its present one were none; SIM_NOBODY where there is no other. */
static void build_second(struct sim *s, struct sim_move *m)
{
	struct wvm_slices_scratch *scratch = sim_zeroed(sizeof(*scratch));
	struct wvm_slices *without = sim_zeroed(sizeof(*without));
	uint8_t active[SIM_NODES_MAX];

	for (uint32_t node = 0; node < s->config.nodes; node++) {
		uint32_t others = 0;

		memcpy(active, s->active, sizeof(active));
		active[node] = 0;
		for (uint32_t i = 0; i < s->config.nodes; i++)
			others += active[i];
		if (others)
			wvm_slices_build_active(without, &s->list, active, scratch);
		for (uint32_t i = 0; i < WVM_SLICES; i++)
			if (m->slices.home_vnode[i] == node)
				m->second.home_vnode[i] = others ? without->home_vnode[i]
								 : SIM_NOBODY;
	}
	free(without);
	free(scratch);
}

static uint32_t *made(struct sim_node *n, uint64_t core_page)
{
	return &n->units[wvm_unit_index(core_page)].reserved[0];
}

static void drop_copies(struct sim *s, uint64_t unit, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	*made(n, unit * WVM_UNIT_PAGES) = 0;
	/* And nobody who was cut short goes back to it. */
	for (uint32_t i = 0; i < n->core->durable->undos; i++) {
		struct wvm_undo *u = &n->core->durable->undo[i];

		if (u->kind == WVM_UNDO_UNIT && u->index == unit)
			((struct wvm_home_unit *)(void *)u->image)->reserved[0] = 0;
	}
	for (uint64_t p = unit * WVM_UNIT_PAGES; p < unit * WVM_UNIT_PAGES + SIM_UNIT_PAGES; p++)
		if (p < s->page_count && n->home[p].flags & WVM_HOME_BACKUP)
			memset(&n->home[p], 0, sizeof(n->home[p]));
}

static void copy(struct sim *s, uint32_t from, uint32_t to, uint64_t core_page)
{
	const struct wvm_home_page *e = &s->nodes[from].home[core_page];
	struct sim_node *n = &s->nodes[to];
	struct wvm_home_page *c = &n->home[core_page];

	if (!e->version || e->flags & (WVM_HOME_BACKUP | WVM_HOME_UNSTORED) ||
	    wvm_merge_outdated(&s->nodes[from].units[wvm_unit_index(core_page)], e) ||
	    c->version >= e->version)
		return;
	*c = (struct wvm_home_page){.version = e->version,
				    .flags = WVM_HOME_BACKUP |
					     (e->flags & (WVM_HOME_WRITTEN | WVM_HOME_LOST))};
	memcpy(n->store + (core_page << WVM_PAGE_SHIFT),
	       s->nodes[from].store + (core_page << WVM_PAGE_SHIFT), WVM_PAGE_BYTES);
}

/* node acknowledges a write-back: its second home has it, too, by then. */
void sim_backup_copy(struct sim *s, uint32_t node, uint64_t core_page)
{
	uint32_t second;

	if (!s->config.deaths || wvm_core_placed(s->nodes[node].core, 0, core_page))
		return;
	second = sim_move(s, s->nodes[node].table)->second.home_vnode[slice_of(core_page)];
	if (second == SIM_NOBODY || s->nodes[second].dead || second == node ||
	    !*made(&s->nodes[second], core_page))
		return;
	copy(s, node, second, core_page);
}

/* All that homes have stored: nothing is under way. */
void sim_backups_make(struct sim *s)
{
	struct sim_move *m = sim_move(s, s->table);

	for (uint64_t unit = 0; s->config.deaths && unit * WVM_UNIT_PAGES < s->page_count; unit++) {
		uint16_t slice = slice_of(unit * WVM_UNIT_PAGES);
		uint32_t second = m->second.home_vnode[slice];

		for (uint32_t i = 0; i < s->config.nodes; i++)
			if (!s->nodes[i].dead)
				drop_copies(s, unit, i);
		if (second == SIM_NOBODY)
			continue;
		*made(&s->nodes[second], unit * WVM_UNIT_PAGES) = 1;
		for (uint64_t p = unit * WVM_UNIT_PAGES;
		     p < unit * WVM_UNIT_PAGES + SIM_UNIT_PAGES && p < s->page_count; p++)
			copy(s, m->slices.home_vnode[slice], second, p);
	}
}

/* The present table is new: copies of pairs that are none any more are gone. */
void sim_backups_plan(struct sim *s)
{
	struct sim_move *m = sim_move(s, s->table), *was = sim_move(s, s->table - 1);

	if (!s->config.deaths)
		return;
	build_second(s, m);
	for (uint64_t unit = 0; unit * WVM_UNIT_PAGES < s->page_count; unit++) {
		uint16_t slice = slice_of(unit * WVM_UNIT_PAGES);
		uint32_t home = m->slices.home_vnode[slice], second = m->second.home_vnode[slice];

		if (home == was->slices.home_vnode[slice] &&
		    second == was->second.home_vnode[slice])
			continue;
		for (uint32_t i = 0; i < s->config.nodes; i++)
			/* Who takes the place of a dead home needs them. */
			if (!s->nodes[i].dead && !(m->deadly && i == home))
				drop_copies(s, unit, i);
	}
}

/* ---- deaths ---------------------------------------------------------------------------- */

static void next(struct sim *s)
{
	sim_post(s, about(s, s->config.death_gap_ns), SIM_EV_DEATH);
}

void sim_deaths_start(struct sim *s)
{
	if (!s->config.deaths)
		return;
	build_second(s, sim_move(s, 1));
	sim_backups_make(s);
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
}

static bool may_die(const struct sim *s, uint32_t node)
{
	const struct sim_node *n = &s->nodes[node];
	uint32_t homes = 0;

	for (uint32_t i = 0; i < s->config.nodes; i++)
		homes += s->active[i] && !s->nodes[i].dead;
	for (uint32_t i = 0; i < s->layout.count; i++)
		if (s->placed[i].member == node)
			return false;
	return !n->dead && !n->empty && s->active[node] && homes > 1 &&
	       (s->config.deaths_all || sim_runs_nothing(s, node)) &&
	       (s->config.deaths_meet || (!s->moving && !sim_unburied(s)));
}

static bool any_mortal(const struct sim *s)
{
	for (uint32_t i = 0; i < s->config.nodes; i++)
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
	/* The next move waits for it. */
	s->death_due = !s->config.deaths_meet && any_mortal(s);
	sim_post(s, s->report.now_ns + AGAIN, SIM_EV_DEATH);
}

/* The next home of what it had; what others have stays where it is. */
static void take_out(struct sim *s, uint32_t node, struct sim_move *m, const struct sim_move *was)
{
	struct wvm_slices_scratch *scratch = sim_zeroed(sizeof(*scratch));
	struct wvm_slices *without = sim_zeroed(sizeof(*without));

	s->active[node] = 0;
	wvm_slices_build_active(without, &s->list, s->active, scratch);
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t home = was->slices.home_vnode[i];

		m->slices.home_vnode[i] = home == node ? without->home_vnode[i] : home;
	}
	free(without);
	free(scratch);
}

void sim_bury(struct sim *s, uint32_t node)
{
	const struct sim_move *was = sim_move(s, s->table);
	struct sim_move *m = sim_move(s, s->table + 1);
	bool joins = s->moving;

	WVM_ASSERT(s->active[node]);
	s->table++;
	m->epoch = ++s->epoch;
	m->moved = joins ? was->moved : m->epoch;
	m->base = joins ? was->base : s->table - 1;
	m->deadly = true;
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
	sim_backups_plan(s);
	sim_tell_all(s);
	if (!s->config.move_gap_ns)
		sim_post(s, s->report.now_ns + AGAIN, SIM_EV_DECIDE);
}

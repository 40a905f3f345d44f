/*
 * Nodes that come back without their files, as after a reboot of the host: one whose earlier
 * life nobody has taken anything of, as far as that counts (shared/core/join.h). Before
 * that it is emptied as an operator would do it: its programs leave, and it gives up what it
 * holds, or the last copy of a page would be gone. Until it is empty it is like any other.
 *
 * Or it is not emptied (reboots): then what its programs had stored to is gone with them.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/core/sim/sim.h"

#define MS    UINT64_C(1000000)
#define TRIES 3000u /* then it stays as it is */

/* What it homes, others must not have taken; and there is nothing that it would miss itself. */
static bool may_lose_files(const struct sim *s, uint32_t node)
{
	for (uint32_t i = 0; i < s->config.nodes; i++)
		if (!s->nodes[i].dead && wvm_core_taken(s->nodes[i].core, node))
			return false;
	return true;
}

/* Where one end at a time is to harm nobody, what it has as a second home may be needed now. */
static bool may_be_needed(const struct sim *s)
{
	return s->config.deaths && !s->config.deaths_meet &&
	       (sim_unburied(s) || (s->moving && s->moves[s->table % SIM_MOVES].deadly));
}

static bool is_asked(const struct wvm_core *core, uint32_t head, uint32_t member)
{
	for (; head; head = core->waiting[head - 1].next)
		if (core->waiting[head - 1].member == member)
			return true;
	return false;
}

/*
 * Whether a request of the node may still be granted, or a grant of it be taken. Its next life
 * knows of none, and who is asked what it has of the node tells of what it has by then.
 */
static bool asks(const struct sim *s, uint32_t node)
{
	for (uint32_t i = 0; i < s->config.nodes; i++) {
		const struct wvm_core *core = s->nodes[i].core;

		if (s->nodes[i].dead)
			continue;
		for (uint32_t t = 0; t < core->params.limits.txns; t++)
			if (core->txns[t].timer.place &&
			    (core->txns[t].asked.member == node ||
			     is_asked(core, core->txns[t].queue_head, node)))
				return true;
		for (uint32_t p = 0; p < WVM_PULLS; p++)
			if (core->pulls[p].state && is_asked(core, core->pulls[p].queue_head, node))
				return true;
		for (const struct sim_event *e = s->nodes[i].inbox; e; e = e->next)
			if (e->kind == SIM_EV_MESSAGE && e->index == node)
				return true;
	}
	for (size_t i = 0; i < s->events.count; i++) {
		const struct sim_event *e = s->events.heap[i].event;

		if (e->kind == SIM_EV_MESSAGE && e->index == node && e->grants)
			return true;
	}
	return false;
}

static bool has_nothing(const struct sim *s, uint32_t node)
{
	const struct wvm_core *core = s->nodes[node].core;

	if (core->requests_free != core->params.limits.requests ||
	    core->demands_free != core->params.limits.demands)
		return false;
	for (uint32_t p = 0; p < s->config.pages; p++) {
		uint64_t page = sim_core_page(p);

		if (core->vms[0].held_units[wvm_unit_index(page)].merging ||
		    wvm_core_held(&core->vms[0], page).state == WVM_HELD_MODIFIED)
			return false;
		for (uint32_t i = 0; i < s->config.nodes; i++) {
			struct wvm_home_page e = wvm_core_homed(&s->nodes[i].core->vms[0], page);

			if (e.state == WVM_HOME_MODIFIED && e.member[0] == node)
				return false;
		}
	}
	return !asks(s, node);
}

/* It has no page for itself, and no home believes that it has, nor will when it is there again. */
static bool is_empty(struct sim *s, uint32_t node)
{
	bool empty;

	sim_look_undone(s);
	empty = has_nothing(s, node);
	sim_look_undone(s);
	return empty;
}

static void give_up_pages(struct sim *s, uint32_t node)
{
	for (uint32_t p = 0; p < s->config.pages && !s->nodes[node].down; p++) {
		s->report.steps++;
		sim_touch(s, p);
		(void)wvm_core_evict(s->nodes[node].core, s->report.now_ns, 0, sim_core_page(p));
		sim_node_drain(s, node);
	}
}

/* Zeros, as new files are. */
static void lose_files(struct sim *s, uint32_t node)
{
	uint64_t units = s->page_count / WVM_UNIT_PAGES + 1;
	struct sim_node *n = &s->nodes[node];

	sim_note(s, node, SIM_NO_PAGE, "loses its files");
	n->down = n->empty = true;
	n->asked = 0;
	for (uint32_t i = 0; i < s->config.nodes; i++)
		s->nodes[i].asked &= ~(1u << node);
	n->dying = false;
	n->tick_ns = 0;
	sim_note_stall(s, n);
	memset(n->home, 0, sizeof(*n->home) * s->page_count);
	memset(n->held, 0, sizeof(*n->held) * s->page_count);
	memset(n->units, 0, sizeof(*n->units) * units);
	memset(n->held_units, 0, sizeof(*n->held_units) * units);
	memset(n->durable, 0, wvm_core_durable_bytes(&n->core->params));
	for (uint32_t p = 0; p < s->config.pages; p++)
		memset(n->store + (sim_core_page(p) << WVM_PAGE_SHIFT), 0, WVM_PAGE_BYTES);
	memset(n->stored, 0, sizeof(n->stored));
	memset(n->present, 0, sizeof(n->present));
	memset(n->data, 0, sizeof(n->data));
	memset(n->untrapped, 0, sizeof(n->untrapped));
	s->report.renewed++;
	sim_post(s, s->report.now_ns + 1 + sim_rnd(s) % (20 * MS), SIM_EV_REVIVE)->node = node;
}

void sim_retire(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	if (n->dead || (n->down && n->empty))
		return; /* on its way back, or never */
	if (n->retiring && (s->quiet || ++n->tries > TRIES || !may_lose_files(s, node))) {
		n->retiring = false;
		return;
	}
	if (!n->down && !n->stops && !n->core->adopting && !n->inbox) {
		if (!n->retiring)
			n->tries = 0;
		n->retiring = true;
		sim_programs_leave(s, node);
		if (!n->down)
			give_up_pages(s, node);
		if (!n->down && !may_be_needed(s) && may_lose_files(s, node) && is_empty(s, node)) {
			lose_files(s, node);
			return;
		}
	}
	sim_post(s, s->report.now_ns + MS, SIM_EV_RETIRE)->node = node;
}

/* Any node that nobody has anything of. Its operator does not make it a home meanwhile. */
void sim_retire_some(struct sim *s)
{
	uint32_t node = (uint32_t)(sim_rnd(s) % s->config.nodes);

	if (s->config.renew && !s->quiet && !s->nodes[node].dead && !s->nodes[node].retiring &&
	    may_lose_files(s, node))
		sim_post(s, s->report.now_ns + MS, SIM_EV_RETIRE)->node = node;
}

static void hear(struct sim *s, uint32_t node, uint32_t from)
{
	struct sim_node *n = &s->nodes[node];

	s->report.steps++;
	sim_note(s, node, SIM_NO_PAGE, "hears that node %u has begun anew", from);
	wvm_core_renewed(n->core, from, s->nodes[from].boot + 1);
	sim_node_drain(s, node);
	if (!n->down) /* else it did not come to answer */
		s->nodes[from].asked |= 1u << node;
}

/*
 * It asks all before it serves, one after the other; who is killed is asked by and by, and who has
 * lost its files meanwhile again. False: not all have answered.
 */
static bool ask_one(struct sim *s, uint32_t node)
{
	uint32_t left = 0, first = (uint32_t)(sim_rnd(s) % s->config.nodes), ask = node;

	for (uint32_t k = 0; s->config.backup && k < s->config.nodes; k++) {
		uint32_t i = (first + k) % s->config.nodes;
		const struct sim_node *other = &s->nodes[i];

		if (i == node || other->empty || other->dead || s->nodes[node].asked >> i & 1)
			continue;
		left++;
		if (!other->down && !other->stops && !other->core->adopting && !other->inbox)
			ask = i;
	}
	if (ask != node)
		hear(s, ask, node);
	return !left;
}

/* What was said in a later epoch than its own does not count until it has learnt that one. */
static uint32_t answered_in(const struct sim *s, uint32_t node)
{
	uint32_t epoch = 0;

	for (uint32_t i = 0; i < s->config.nodes; i++)
		if (i != node && !s->nodes[i].dead && s->nodes[i].epoch > epoch)
			epoch = s->nodes[i].epoch;
	return epoch;
}

/* It has learnt what there is to learn before it begins, or learns it later. */
void sim_renew(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	if (!ask_one(s, node)) {
		sim_post(s, s->report.now_ns + 1 + sim_rnd(s) % MS, SIM_EV_REVIVE)->node = node;
		return;
	}
	n->down = n->retiring = false;
	if (sim_rnd(s) % 2) {
		n->epoch = s->epoch;
		n->table = s->table;
	}
	n->serves_from = answered_in(s, node);
	sim_node_start(s, node);
	/* Told or not: it has nothing to hand over. */
	if (!s->moving && s->table > 1 && sim_rnd(s) % 2)
		(void)wvm_core_handed_over(n->core, sim_move(s, s->table)->moved);
	if (!s->moving && wvm_core_handover(n->core).out)
		sim_failed(s, "node %u: has something to hand over, and no files", node);
	sim_node_drain(s, node);
	sim_inbox_resume(s, node);
}

/* ---- hosts that are rebooted ----------------------------------------------------------- */

bool sim_may_reboot(const struct sim *s, uint32_t node)
{
	return s->config.reboots && node < s->config.nodes / 2;
}

/* Whether pages may be LOST. */
bool sim_may_lose(const struct sim *s)
{
	return s->config.deaths_meet || s->config.deaths_all || s->config.reboots;
}

void sim_reboot_soon(struct sim *s, uint64_t ns)
{
	sim_post(s, s->report.now_ns + 1 + sim_rnd(s) % (2 * ns + 1), SIM_EV_REBOOT);
}

void sim_reboots_start(struct sim *s)
{
	if (s->config.reboots)
		sim_reboot_soon(s, s->config.reboot_gap_ns);
}

static bool is_between(const struct sim *s, uint32_t node)
{
	const struct sim_node *n = &s->nodes[node];

	return !sim_may_reboot(s, node) || n->dead || n->empty || n->retiring;
}

void sim_reboot(struct sim *s)
{
	uint32_t node = (uint32_t)(sim_rnd(s) % s->config.nodes);

	while (is_between(s, node) && sim_rnd(s) % 8)
		node = (node + 1) % s->config.nodes;
	if (s->quiet || s->report.reboots == s->config.reboots)
		return;
	if (is_between(s, node)) {
		sim_reboot_soon(s, MS);
		return;
	}
	if (!may_lose_files(s, node))
		sim_failed(s, "node %u: homes nothing, and pages were taken of it", node);
	s->report.reboots++;
	s->report.reboots_dead += s->moving || sim_unburied(s);
	sim_programs_end(s, node);
	s->nodes[node].core->durable->undos = 0;
	lose_files(s, node);
	sim_reboot_soon(s, s->config.reboot_gap_ns);
}

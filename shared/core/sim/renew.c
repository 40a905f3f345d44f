/*
 * Nodes that come back without their files, as after a reboot of the host: one whose earlier
 * life nobody has taken anything of, as far as that counts (shared/core/join.h). Before
 * that it is emptied as an operator would do it: its programs leave, and it gives up what it
 * holds, or the last copy of a page would be gone. Until it is empty it is like any other.
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
		if (wvm_core_taken(s->nodes[i].core, node))
			return false;
	return true;
}

static bool is_asked(const struct wvm_core *core, uint32_t head, uint32_t member)
{
	for (; head; head = core->waiting[head - 1].next)
		if (core->waiting[head - 1].member == member)
			return true;
	return false;
}

/* Whether a request of the node may still be granted. Its next life knows of none. */
static bool asks(const struct sim *s, uint32_t node)
{
	for (uint32_t i = 0; i < s->config.nodes; i++) {
		const struct wvm_core *core = s->nodes[i].core;

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

		if (e->kind == SIM_EV_MESSAGE && e->index == node && e->request)
			return true;
	}
	return false;
}

/* It has no page for itself, and no home believes that it has. */
static bool is_empty(const struct sim *s, uint32_t node)
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

	if (n->down && n->empty)
		return; /* on its way back */
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
		if (!n->down && may_lose_files(s, node) && is_empty(s, node)) {
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

	if (s->config.renew && !s->quiet && !s->nodes[node].retiring && may_lose_files(s, node))
		sim_post(s, s->report.now_ns + MS, SIM_EV_RETIRE)->node = node;
}

/* It has learnt what there is to learn before it begins, or learns it later. */
void sim_renew(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	n->down = n->retiring = false;
	if (sim_rnd(s) % 2) {
		n->epoch = s->epoch;
		n->table = s->table;
		n->moved = s->moved;
	}
	sim_node_start(s, node);
	/* Told or not: it has nothing to hand over. */
	if (!s->moving && s->table > 1 && sim_rnd(s) % 2 &&
	    !wvm_core_handed_over(n->core, s->moved))
		sim_failed(s, "node %u: has something to hand over, and no files", node);
	sim_node_drain(s, node);
	sim_inbox_resume(s, node);
}

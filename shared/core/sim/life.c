/*
 * A master's end without warning, and the next one's beginning over the same
 * files. It ends at the worst moments: in the middle of an input (what the input
 * changed is undone), or between two actions (what was not carried out is found
 * by looking at the RAM file). Its programs go on with what they have mapped.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/core/sim/sim.h"

static void die(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	n->dying = false;
	n->down = true;
	n->tick_ns = 0;
	sim_note_stall(s, n);
	s->report.kills++;
	s->report.kills_undone += n->core->durable->undos != 0;
	sim_note(s, node, SIM_NO_PAGE, "KILLED%s",
		 n->core->durable->undos ? " within an input" : "");
}

/*
 * What an input that was cut short has changed is undone by the next life. Until then the
 * invariants look at the files as it will find them: to look, and to look no more.
 */
void sim_look_undone(struct sim *s)
{
	for (uint32_t node = 0; node < s->config.nodes; node++) {
		struct sim_node *n = &s->nodes[node];

		for (uint32_t i = 0; n->down && i < n->core->durable->undos; i++) {
			struct wvm_undo *u = &n->core->durable->undo[i];
			uint8_t *entry = wvm_undo_entry(n->core, u->kind, u->vm, u->index);
			uint8_t is[WVM_UNDO_BYTES];

			memcpy(is, entry, sizeof(is));
			memcpy(entry, u->image, sizeof(is));
			memcpy(u->image, is, sizeof(is));
		}
	}
}

void sim_kill(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	if (!n->down)
		n->dying = true; /* at its next input */
}

/* In the middle of a master's work. True: it does no more. */
bool sim_life_ends(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	if (n->dying && sim_rnd(s) % 4 == 0)
		die(s, node);
	return n->down;
}

/* ---- the next one ---------------------------------------------------------------------- */

static void take_over_pages(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	for (uint64_t unit = 0; unit * WVM_UNIT_PAGES < s->page_count; unit++)
		wvm_core_adopt_unit(n->core, 0, unit);
	for (uint32_t p = 0; p < s->config.pages; p++) {
		uint64_t page = sim_core_page(p);
		const struct wvm_held_page never = {0};

		if (!n->data[p] && !memcmp(&n->held[page], &never, sizeof(never)))
			continue;
		s->report.steps++;
		wvm_core_adopt_held(n->core, s->report.now_ns, 0, page, n->data[p]);
		sim_node_drain(s, node);
		if (n->down)
			return; /* killed again */
	}
}

/* Those who wait for a pin are told that the master is gone; those who have one keep it. */
static void take_over_pins(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	for (uint32_t i = node * s->node_threads; i < (node + 1) * s->node_threads; i++) {
		struct sim_thread *t = &s->threads[i];

		if (t->pinned && !wvm_core_adopt_pin(n->core, 0, sim_core_page(t->page)))
			sim_failed(s, "node %u: pinned page %llu is not held", node,
				   (unsigned long long)t->page);
	}
}

/* Faults that the former life had read are nowhere: all who wait are woken, and fault again. */
static void wake_all(struct sim *s, uint32_t node)
{
	for (uint32_t p = 0; p < s->config.pages; p++) {
		sim_wake(s, node, p, ~UINT64_C(0));
		sim_pins_lost(s, node, p);
	}
}

void sim_revive(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];

	n->dying = false; /* no input came, so it went on */
	if (!n->down || n->dead)
		return;
	if (n->empty) {
		sim_renew(s, node);
		return;
	}
	n->down = false;
	sim_node_start(s, node);
	wvm_core_adopt(n->core);
	for (uint32_t p = 0; p < s->config.pages; p++)
		wvm_core_adopt_home(n->core, 0, sim_core_page(p));
	/* Room for copies that were forgotten, and it did not come to give it back. */
	for (uint32_t p = 0; s->config.backup && p < s->config.pages; p++)
		n->stored[p] &= n->home[sim_core_page(p)].version != 0;
	wvm_core_adopt_home_end(n->core);
	if (n->epoch >= n->serves_from)
		wvm_core_serve(n->core, true);
	/* Sometimes it is killed while it takes over. */
	n->dying = sim_rnd(s) % 8 == 0;
	take_over_pages(s, node);
	if (n->down) {
		sim_post(s, s->report.now_ns + 1000000, SIM_EV_REVIVE)->node = node;
		return;
	}
	n->dying = false;
	take_over_pins(s, node);
	wvm_core_adopt_held_end(n->core, s->report.now_ns);
	wake_all(s, node);
	sim_node_drain(s, node);
	sim_inbox_resume(s, node);
}

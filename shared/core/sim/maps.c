/*
 * Programs that give up their mapping of one page while the rest of them goes on, and map it again
 * later: munmap() and wvm_map() of a range. The core hears of neither. Who waits there is let go,
 * so what the core still has of them finds nobody; and a mapping that is new has no markers, so
 * that it is known to the master first, and protected before it is used (programs.c, map()).
 */
#include "shared/core/sim/sim.h"

#define US UINT64_C(1000)

void sim_map_known(struct sim_node *n, uint32_t client, uint32_t page)
{
	n->untrapped[page] |= (uint8_t)(1u << client);
}

void sim_map_protected(struct sim_node *n, uint32_t client, uint32_t page)
{
	if (n->data[page])
		n->untrapped[page] &= (uint8_t) ~(1u << client);
}

static void later(struct sim *s, uint32_t program, uint32_t page, bool second, uint64_t ns)
{
	struct sim_event *e = sim_post(s, s->report.now_ns + ns, SIM_EV_MAP);

	e->index = program;
	e->life = s->programs[program].life;
	e->page = page;
	e->write = second;
}

/* Pins are of the program, not of its mapping: one that has, or wants, one keeps the page mapped.
 */
static bool is_pinned(const struct sim *s, uint32_t node, uint32_t client, uint32_t page)
{
	for (uint32_t i = node * s->node_threads; i < (node + 1) * s->node_threads; i++) {
		const struct sim_thread *t = &s->threads[i];

		if (t->client == client && t->page == page &&
		    (t->pinned || t->state == SIM_TH_WAIT_PIN))
			return true;
	}
	return false;
}

void sim_unmap(struct sim *s, uint32_t node, uint32_t client, uint32_t page)
{
	struct sim_node *n = &s->nodes[node];

	if (n->down || !(n->usable >> client & 1) || n->unmapped[page] >> client & 1 ||
	    is_pinned(s, node, client, page))
		return;
	s->report.unmapped++;
	sim_note(s, node, page, "program %u unmaps p%u", client, page);
	n->unmapped[page] |= (uint8_t)(1u << client);
	sim_let_go(s, node, client, page);
	later(s, node * s->config.clients + client, page, false, 1 + sim_rnd(s) % (2000 * US));
}

void sim_map_event(struct sim *s, const struct sim_event *e)
{
	uint32_t node = e->index / s->config.clients, client = e->index % s->config.clients;
	struct sim_node *n = &s->nodes[node];

	if (s->programs[e->index].life != e->life || n->dead)
		return;
	/* Its master is asked first, when it gets to it. */
	if (!e->write && (n->down || n->stops || n->inbox)) {
		later(s, e->index, e->page, false, 1000 * US);
		return;
	}
	if (!e->write) {
		sim_note(s, node, e->page, "program %u maps p%u", client, e->page);
		sim_map_known(n, client, e->page);
		later(s, e->index, e->page, true, 20 * US);
		return;
	}
	sim_map_protected(n, client, e->page);
	n->unmapped[e->page] &= (uint8_t) ~(1u << client);
}

void sim_maps_all(struct sim *s, uint32_t node, uint32_t client)
{
	struct sim_node *n = &s->nodes[node];

	s->programs[node * s->config.clients + client].life++;
	for (uint32_t p = 0; p < s->config.pages; p++)
		n->unmapped[p] &= (uint8_t) ~(1u << client);
}

/*
 * Who is home changes: nodes join (they are given slices) and drain (they lose
 * all of theirs), by one epoch after the other. Each node learns of an epoch at
 * a time of its own, some late; the next one that moves something is decided when all
 * have handed over, as the user of the core has to see to. Epochs that move nothing come
 * at any time.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/core/sim/sim.h"

#define MS      UINT64_C(1000000)
#define AGAIN   (5 * MS)
#define UNMOVED 3u /* epochs between two moves */

static void decide_after(struct sim *s, uint64_t ns)
{
	sim_post(s, s->report.now_ns + 1 + sim_rnd(s) % (2 * ns + 1), SIM_EV_DECIDE);
}

static void learn_after(struct sim *s, uint32_t node, uint64_t ns)
{
	sim_post(s, s->report.now_ns + 1 + sim_rnd(s) % ns, SIM_EV_LEARN)->node = node;
}

void sim_moves_start(struct sim *s)
{
	if (s->config.move_gap_ns)
		decide_after(s, s->config.move_gap_ns);
}

static bool is_done(const struct sim *s)
{
	for (uint32_t i = 0; i < s->config.nodes; i++) {
		const struct sim_node *n = &s->nodes[i];
		struct wvm_handover_left left = wvm_core_handover(n->core);

		if (n->dead)
			continue;
		if (n->down || n->core->adopting || n->epoch != s->epoch || left.in || left.out)
			return false;
	}
	return true;
}

/* Whoever is no home any more has nothing left of what it was. */
static void check_drained(struct sim *s, uint32_t node)
{
	static const struct wvm_home_page never;
	const struct sim_node *n = &s->nodes[node];

	for (uint32_t p = 0; p < s->config.pages; p++) {
		uint64_t page = sim_core_page(p);

		if (wvm_core_home_of(n->core, 0, page, NULL) == node)
			continue;
		/* Copies of its former time as a second home are forgotten at leisure. */
		if (s->config.backup && n->units[wvm_unit_index(page)].era)
			continue;
		if (memcmp(&n->home[page], &never, sizeof(never)))
			sim_failed(s, "node %u: has an entry of page %u, which is not its own",
				   node, p);
		if (n->stored[p])
			sim_failed(s, "node %u: keeps a copy of page %u, which is not its own",
				   node, p);
	}
}

static uint32_t homes(const struct sim *s)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < s->config.nodes; i++)
		count += s->active[i];
	return count;
}

/* To within 10 % of the same for all, and only what had to move. */
static void check_shares(struct sim *s, uint32_t change)
{
	const struct wvm_slices *is = sim_table(s, s->table), *was = sim_table(s, s->table - 1);
	uint32_t share[SIM_NODES_MAX] = {0}, moved = 0, ideal = WVM_SLICES / homes(s);

	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		share[is->home_vnode[i]]++;
		moved += is->home_vnode[i] != was->home_vnode[i];
	}
	for (uint32_t i = 0; i < s->config.nodes; i++)
		if (s->active[i] ? share[i] * 10 < ideal * 9 || share[i] * 10 > ideal * 11 + 10
				 : share[i] != 0)
			sim_failed(s, "node %u is home of %u slices, not %u", i, share[i], ideal);
	/* After a death it is levelled. */
	if (!sim_move(s, s->table - 1)->deadly &&
	    moved > 2 * WVM_SLICES / (homes(s) + !s->active[change]))
		sim_failed(s, "%u slices moved with node %u", moved, change);
}

static bool homes_any(const struct sim *s, uint32_t node)
{
	for (uint32_t i = 0; i < s->layout.count; i++)
		if (s->placed[i].member == node)
			return true;
	return s->active[node];
}

/* Told of the end, a node is against the return of none that homes nothing. */
static void check_taken(struct sim *s, uint32_t node)
{
	for (uint32_t i = 0; i < s->config.nodes; i++)
		if (!homes_any(s, i) && wvm_core_taken(s->nodes[node].core, i))
			sim_failed(s, "node %u: counts what it took from node %u, which is drained",
				   node, i);
}

/* All members have counted nothing left; most of them are told. */
static void hand_over_ends(struct sim *s)
{
	s->moving = false;
	for (uint32_t i = 0; i < s->config.nodes; i++) {
		if (s->nodes[i].dead)
			continue;
		check_drained(s, i);
		if (sim_rnd(s) % 4 == 0)
			continue; /* the next epoch says it */
		if (!wvm_core_handed_over(s->nodes[i].core, sim_move(s, s->table)->moved))
			sim_failed(s, "node %u: does not believe that all is handed over", i);
		check_taken(s, i);
	}
	sim_retire_some(s);
}

void sim_tell_all(struct sim *s)
{
	for (uint32_t i = 0; i < s->config.nodes; i++)
		learn_after(s, i, sim_rnd(s) % 4 ? 2 * MS : s->config.learn_ns);
}

/* An epoch that is about something else: who is home stays. */
static void decide_unmoved(struct sim *s)
{
	s->epoch++;
	s->unmoved++;
	s->report.unmoved++;
	s->report.unmoved_between += s->moving;
	sim_tell_all(s);
}

static void decide_move(struct sim *s, uint32_t node)
{
	struct sim_move *m;

	s->active[node] ^= 1;
	s->moving = true;
	m = sim_move(s, ++s->table);
	m->epoch = m->moved = ++s->epoch;
	m->base = s->table - 1;
	m->deadly = false;
	m->node = node;
	s->unmoved = 0;
	m->slices = *sim_slices(s);
	if (s->config.backup)
		sim_build_seconds(s, m, sim_move(s, s->table - 1));
	*(s->active[node] ? &s->report.joins : &s->report.drains) += 1;
	check_shares(s, node);
	sim_tell_all(s);
}

void sim_move_decide(struct sim *s)
{
	uint32_t node = (uint32_t)(sim_rnd(s) % s->config.nodes);

	if (s->moving && !sim_unburied(s) && is_done(s))
		hand_over_ends(s);
	if (!s->config.move_gap_ns) {
		if (s->moving)
			decide_after(s, AGAIN);
		return; /* there was a death, and nothing else */
	}
	/* Whoever has not learnt one is not heard, so few come while there is something to do. */
	if (!s->quiet && s->unmoved < UNMOVED && sim_rnd(s) % 8 == 0)
		decide_unmoved(s);
	if (s->moving || sim_unburied(s) || s->death_due || s->nodes[node].dead ||
	    (s->active[node] && homes(s) == 1) || s->nodes[node].retiring) {
		decide_after(s, AGAIN);
		return;
	}
	if (s->quiet) {
		decide_after(s, 1000 * MS);
		return;
	}
	decide_move(s, node);
	decide_after(s, s->config.move_gap_ns);
}

/* The epoch, durable, before the core hears of it. move: NULL: it moves nothing. */
static void take(struct sim *s, uint32_t node, uint32_t epoch, const struct sim_move *move)
{
	struct sim_node *n = &s->nodes[node];
	const struct wvm_slices *slices = sim_table(s, n->table);
	enum wvm_epoch_taken taken;

	n->epoch = epoch;
	s->report.steps++;
	sim_note(s, node, SIM_NO_PAGE, "epoch %u", epoch);
	if (move && s->config.backup)
		wvm_core_backup_next(n->core, sim_backup_table(s, n->table));
	if (move && move->deadly)
		taken = wvm_core_epoch_lost(n->core, s->report.now_ns, epoch, slices, &move->lost);
	else
		taken = wvm_core_epoch(n->core, s->report.now_ns, epoch, slices);
	if (taken != WVM_EPOCH_TAKEN)
		sim_failed(s, "node %u: does not take epoch %u: %d", node, epoch, taken);
}

/* One that is down, or at something, hears of it later. Those that move slices come in order. */
void sim_move_learn(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_move *next = sim_move(s, n->table + 1);
	uint64_t in;

	if (n->epoch == s->epoch || n->dead)
		return;
	if (n->down || n->stops || n->core->adopting) {
		learn_after(s, node, 10 * MS);
		return;
	}
	in = wvm_core_handover(n->core).in;
	if (n->table == s->table) {
		take(s, node, s->epoch, NULL);
	} else {
		n->table++;
		take(s, node, next->epoch, next);
		in = wvm_core_handover(n->core).in -
		     (next->deadly && next->moved != next->epoch ? in : 0);
		*(next->deadly ? &s->report.rebuilt : &s->report.units_moved) += in;
		if (s->epoch != next->epoch)
			learn_after(s, node, 2 * MS);
	}
	sim_node_drain(s, node);
	if (n->down || n->core->serving || n->epoch < n->serves_from)
		return;
	wvm_core_serve(n->core, true);
	sim_node_drain(s, node);
}

/* All have had time enough. */
void sim_move_end(struct sim *s)
{
	if (s->moving && !s->report.failure && s->settled && !is_done(s))
		sim_failed(s, "a hand-over does not come to an end");
}

/*
 * Who says what is true of a page: its new home, from when it has what the former one had; and
 * until then that one, though it may have ceased to serve.
 */
uint32_t sim_home_of(const struct sim *s, uint64_t page)
{
	uint64_t core_page = sim_core_page(page);
	uint16_t slice = wvm_slice_of(SIM_VM_ID, core_page << WVM_PAGE_SHIFT);
	const struct sim_move *move = &s->moves[s->table % SIM_MOVES];
	uint32_t is = move->slices.home_vnode[slice], was;

	if (wvm_core_placed(s->nodes[0].core, 0, core_page))
		return wvm_core_home_of(s->nodes[0].core, 0, core_page, NULL);
	if (s->nodes[is].dead)
		return SIM_NOBODY;
	if (s->table == 1 ||
	    (s->nodes[is].table == s->table && wvm_core_homes(s->nodes[is].core, 0, core_page)))
		return is;
	if (move->deadly && move->lost.slices[slice / 64] >> slice % 64 & 1)
		return SIM_NOBODY;
	/* It may be behind more than one death, which left this slice alone. */
	if (move->deadly && s->nodes[is].table >= move->base &&
	    wvm_core_home_of(s->nodes[is].core, 0, core_page, NULL) == is &&
	    wvm_core_homes(s->nodes[is].core, 0, core_page))
		return is;
	was = sim_table(s, move->base)->home_vnode[slice];
	return s->nodes[was].dead ? SIM_NOBODY : was;
}

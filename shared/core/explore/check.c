/*
 * What must hold in every state: design of the memory model in shared/PROTOCOL.md.
 */
#include "shared/core/explore/world.h"

struct wvm_held_page ex_held(const struct ex_node *node)
{
	struct ex_node n = *node;

	return wvm_core_held(&(struct wvm_core_vm){.held = &n.held, .held_units = &n.unit}, 0);
}

struct wvm_home_page ex_home(const struct ex_world *w)
{
	struct wvm_home_page home = w->home;
	struct wvm_home_unit unit = w->unit;

	return wvm_core_homed(&(struct wvm_core_vm){.home = &home, .units = &unit}, 0);
}

/* The one waiting thread of each program is among those that its node's request will wake. */
static void check_threads(struct ex_rig *rig, const struct ex_world *w, uint32_t n)
{
	const struct ex_node *node = &w->node[n];

	for (uint32_t c = 0; c < rig->config.programs; c++) {
		uint64_t waiters = node->thread[c] == EX_READS ? node->request.waiters_read
							       : node->request.waiters_write;

		if (node->thread[c] == EX_IDLE)
			continue;
		if (!node->held.request || !(waiters >> c & 1))
			ex_failed(rig, "node %u: program %u waits, and is forgotten", n, c);
	}
	if (node->held.request && !node->request.timer.place)
		ex_failed(rig, "node %u: its request has no timer", n);
	if (node->held.demand && !node->demand.timer.place)
		ex_failed(rig, "node %u: what its home asked for has no timer", n);
	if (node->unit.merge && !node->merge.timer.place)
		ex_failed(rig, "node %u: its merge has no timer", n);
	if (node->unit.merging && !node->unit.merge)
		ex_failed(rig, "node %u: its merge is forgotten", n);
}

static void check_value(struct ex_rig *rig, const struct ex_world *w, uint32_t n)
{
	const struct ex_node *node = &w->node[n];

	const struct wvm_held_page h = ex_held(node);
	bool hole = !node->present && h.hole && h.state != WVM_HELD_INVALID;

	if ((node->present || hole) && (hole ? EX_ZERO : node->ram) != w->truth)
		ex_failed(rig, "node %u: a load returns a value that was overwritten, held %d", n,
			  h.state);
}

static void check_memory(struct ex_rig *rig, const struct ex_world *w, uint32_t n)
{
	const struct ex_node *node = &w->node[n];

	const struct wvm_held_page h = ex_held(node);
	bool held = h.state != WVM_HELD_INVALID;

	if (node->present != held && !(held && h.hole))
		ex_failed(rig, "node %u: page in RAM %d, held %d", n, node->present, h.state);
	for (uint32_t c = 0; c < rig->config.programs; c++)
		if (node->stores[c] && h.state != WVM_HELD_MODIFIED)
			ex_failed(rig, "node %u: program %u can store, held %d", n, c, h.state);
}

/* The records may name too many holders, never too few. */
static void check_record(struct ex_rig *rig, const struct ex_world *w, uint32_t n)
{
	const struct wvm_held_page held = ex_held(&w->node[n]), *h = &held;
	const struct wvm_home_page home = ex_home(w), *e = &home;
	bool modified = e->state == WVM_HOME_MODIFIED, recorded = false;

	if (h->state == WVM_HELD_INVALID)
		return;
	for (uint32_t i = 0; i < e->holders; i++)
		recorded |= e->member[i] == n;
	if (!recorded)
		ex_failed(rig, "node %u: holds a copy that its home does not know", n);
	if (h->state == WVM_HELD_MODIFIED && wvm_merge_granted(&w->unit, &w->node[n].unit, n))
		return;
	if (h->state == WVM_HELD_MODIFIED && (!modified || h->version != e->granted))
		ex_failed(rig, "node %u: owner of what its home did not grant", n);
	if (h->version != e->version && !(modified && h->version == e->granted))
		ex_failed(rig, "node %u: its copy is another version than the home's", n);
}

/* The last written bytes are in the store, with the owner, or on their way from it. */
static void check_home(struct ex_rig *rig, const struct ex_world *w, uint32_t modified)
{
	const struct wvm_home_page home = ex_home(w), *e = &home;
	uint8_t stored = e->flags & WVM_HOME_WRITTEN ? w->store : EX_ZERO;
	bool kept = stored == w->truth || modified;

	if (e->flags & WVM_HOME_LOST)
		ex_failed(rig, "the home calls the page lost");
	if (e->state != WVM_HOME_MODIFIED && stored != w->truth)
		ex_failed(rig, "acknowledged as written back, and not stored");
	for (uint32_t i = 0; i < rig->config.nodes; i++) {
		const struct ex_node *n = &w->node[i];

		if (n->held.demand && n->demand.state == WVM_DEMAND_WRITE_BACK &&
		    (n->demand.keep ? n->ram : n->outbox) == w->truth)
			kept = true;
	}
	if (!kept)
		ex_failed(rig, "the last written bytes are nowhere any more");
	if (e->txn && !w->txn.timer.place)
		ex_failed(rig, "the home's transaction has no timer");
	if (e->state == WVM_HOME_MODIFIED && e->holders != 1)
		ex_failed(rig, "Modified, with %u holders", e->holders);
	if (e->version > w->unit.version || e->granted > w->unit.version)
		ex_failed(rig, "a version above its unit's");
}

bool ex_check(struct ex_rig *rig, const struct ex_world *w)
{
	uint32_t modified = 0, present = 0;

	rig->failure[0] = 0;
	for (uint32_t i = 0; i < rig->config.nodes; i++)
		check_value(rig, w, i);
	for (uint32_t i = 0; i < rig->config.nodes; i++)
		check_threads(rig, w, i);
	if (rig->config.bytes_only)
		return !rig->failure[0];
	for (uint32_t i = 0; i < rig->config.nodes; i++) {
		modified += ex_held(&w->node[i]).state == WVM_HELD_MODIFIED;
		present += w->node[i].present;
	}
	if (modified > 1 || (modified && present > 1))
		ex_failed(rig, "%u owners, %u copies", modified, present);
	for (uint32_t i = 0; i < rig->config.nodes; i++)
		check_memory(rig, w, i);
	check_home(rig, w, modified);
	for (uint32_t i = 0; i < rig->config.nodes; i++)
		check_record(rig, w, i);
	return !rig->failure[0];
}

bool ex_complete(const struct ex_rig *rig, const struct ex_world *w)
{
	/* No request: no thread waits, and no timer is armed, as ex_check() has seen. */
	for (uint32_t i = 0; i < rig->config.nodes; i++)
		if (w->node[i].held.request || w->node[i].held.demand || w->node[i].unit.merge)
			return false;
	return !w->home.txn && !w->messages;
}

/* Orders to drain and to join, on the control port of any master. On shard 0. */
#include <stdio.h>

#include "roles/master/control_priv.h"
#include "roles/master/node.h"
#include "shared/control.h"

static uint32_t phys(const struct wvm_node *node, uint32_t member)
{
	return node->topology.nodes[member].phys_id;
}

static bool placed(const struct wvm_node *node, uint32_t member)
{
	for (uint32_t i = 0; i < node->layout.count; i++)
		if (node->layout.list[i].member == member)
			return true;
	return false;
}

/*
 * All that take part, and the one that is to, have to be there, and have learnt of all records:
 * slices move between them. One that cannot follow would never be done.
 */
static uint32_t absent(const struct wvm_node *node, uint32_t member)
{
	for (uint32_t i = 0; i < node->members.count; i++) {
		const struct wvm_gossip_peer *p = wvm_node_membership_peer(node->membership, i);

		if (i == node->self || (i != member && !wvm_view_takes_part(&node->view->now, i)))
			continue;
		if (!p || p->status != WVM_GOSSIP_ALIVE || p->epoch < node->view->now.record.epoch)
			return i;
	}
	return node->members.count;
}

/*
 * It is not known yet whether it follows: this node, or that one, has just begun, or has not been
 * heard for a moment. A suspicion is refuted or becomes DEAD within seconds: an order waits for
 * that, and whoever gave it does not have to give it again.
 */
static bool not_yet(const struct wvm_node *node, uint32_t member)
{
	const struct wvm_gossip_peer *p = wvm_node_membership_peer(node->membership, member);

	return p && (p->status == WVM_GOSSIP_SUSPECT ||
		     (p->status == WVM_GOSSIP_ALIVE && p->epoch < node->view->now.record.epoch));
}

static void not_yet_text(const struct wvm_node *node, uint32_t member, char *text, size_t len)
{
	const struct wvm_gossip_peer *p = wvm_node_membership_peer(node->membership, member);

	if (p->status == WVM_GOSSIP_SUSPECT)
		snprintf(text, len, "node %u has not answered for a moment", phys(node, member));
	else if (p->epoch)
		snprintf(text, len, "node %u is in epoch %u still (what hinders it is in its log)",
			 phys(node, member), p->epoch);
	else
		snprintf(text, len, "node %u has not been heard of yet", phys(node, member));
}

static void moving_text(const struct wvm_node *node, char *text, size_t len)
{
	const struct wvm_view *v = &node->view->now;
	uint32_t member = v->moving;

	if (member == WVM_VIEW_NOBODY)
		for (member = 0; v->state[member] != WVM_NODE_LOST;)
			member++;
	snprintf(text, len, "node %u is %s: wait until that is done (wvm_ctl members)",
		 phys(node, member), wvm_node_state_name(v->state[member]));
}

/* Why the order cannot be carried out, in text; empty: it can. */
static void objection(const struct wvm_node *node, uint32_t member, enum wvm_node_state state,
		      char *text, size_t len)
{
	const struct wvm_view *v = &node->view->now;
	uint32_t other;

	*text = '\0';
	switch (wvm_view_allows(v, member, state)) {
	case WVM_VIEW_IS_SO: return;
	case WVM_VIEW_ALLOWED: break;
	case WVM_VIEW_MOVING: moving_text(node, text, len); return;
	case WVM_VIEW_LAST:
		snprintf(text, len,
			 "node %u is the last one that homes memory: let another join first",
			 phys(node, member));
		return;
	case WVM_VIEW_NO_WAY:
		snprintf(text, len, "node %u cannot: only the first %u nodes of a topology can",
			 phys(node, member), WVM_VIEW_MEMBERS);
		return;
	}
	if (state == WVM_NODE_DRAINING && placed(node, member)) {
		snprintf(
			text, len,
			"PLACE lines of %s put memory on node %u, and what is placed does not move: "
			"take them out of the topology of all nodes, and start the cluster anew",
			node->options->topology, phys(node, member));
		return;
	}
	other = absent(node, member);
	if (other < node->members.count && !not_yet(node, other))
		snprintf(
			text, len,
			"node %u does not answer, and memory moves between all nodes: start it, or "
			"wait until it is ALIVE (wvm_ctl members)",
			phys(node, other));
}

static void wish(struct wvm_node *node, uint32_t member, enum wvm_node_state state)
{
	struct wvm_epoch_record r;

	/* Where another wish is under way this one is made when the order is given again. */
	if (wvm_view_record(&node->view->now, &node->members, member, state, &r))
		(void)wvm_node_membership_wish(node->membership, &r);
}

/*
 * A drained node may be switched off for good: if nobody else knew of its end by then nobody ever
 * would, and the others wait for it for ever. Who names an epoch has it on its disk.
 */
static bool known_elsewhere(const struct wvm_node *node)
{
	for (uint32_t i = 0; i < node->members.count; i++) {
		const struct wvm_gossip_peer *p = wvm_node_membership_peer(node->membership, i);

		if (i != node->self && wvm_view_takes_part(&node->view->now, i) && p &&
		    p->epoch >= node->view->now.record.epoch)
			return true;
	}
	return false;
}

static bool is_done(const struct wvm_node *node, uint32_t member, bool join)
{
	uint8_t state = node->view->now.state[member];

	if (join)
		return state == WVM_NODE_ACTIVE;
	return state == WVM_NODE_SHADOW ||
	       (state == WVM_NODE_OFFLINE && (member != node->self || known_elsewhere(node)));
}

/* What an order waits for beside memory that moves; empty: nothing. */
static void awaited(const struct wvm_node *node, uint32_t member, bool moves, char *text,
		    size_t len)
{
	uint32_t other = absent(node, member);
	unsigned programs = wvm_clients_count(node->clients);

	*text = '\0';
	if (other < node->members.count && not_yet(node, other))
		not_yet_text(node, other, text, len);
	else if (other < node->members.count)
		snprintf(text, len, "node %u does not answer", phys(node, other));
	else if (!node->view->now.moved)
		snprintf(text, len, "the members have not decided it yet (wvm_ctl epoch)");
	else if (moves || node->view->now.state[member] != WVM_NODE_DRAINING)
		return;
	else if (member != node->self)
		snprintf(text, len, "its programs have to end, and its pages to leave");
	else if (programs)
		snprintf(text, len, "%u program%s to end there, then its pages leave", programs,
			 programs == 1 ? " has" : "s have");
	else
		snprintf(text, len, "%llu pages have to leave",
			 (unsigned long long)wvm_reclaim_left(node));
}

static json_t *life_json(const struct wvm_node *node, uint32_t member, bool join)
{
	const struct wvm_view *v = &node->view->now;
	json_t *o = json_object(), *busy = json_array();
	uint8_t state = v->state[member];
	bool done = is_done(node, member, join);
	char text[160];

	set(o, "node", phys(node, member));
	json_object_set_new(o, "life", json_string(wvm_node_state_name(state)));
	set(o, "epoch", v->record.epoch);
	json_object_set_new(o, "done", json_boolean(done));
	for (uint32_t i = wvm_node_view_unsettled(node, 0); v->moved && i < node->members.count;
	     i = wvm_node_view_unsettled(node, i + 1))
		json_array_append_new(busy, json_integer(phys(node, i)));
	if (!join && state == WVM_NODE_OFFLINE)
		snprintf(text, sizeof(text), "no other node has said yet that it knows");
	else
		awaited(node, member, json_array_size(busy), text, sizeof(text));
	if (!done && *text)
		json_object_set_new(o, "waits", json_string(text));
	json_object_set_new(o, "busy", busy);
	return o;
}

json_t *wvm_control_life(struct wvm_node *node, uint32_t phys_id, bool join, uint16_t *status)
{
	const struct wvm_conf_node *c = wvm_topology_by_phys(&node->topology, phys_id);
	enum wvm_node_state state = join ? WVM_NODE_WARMING : WVM_NODE_DRAINING;
	uint32_t member = c ? (uint32_t)(c - node->topology.nodes) : 0;
	char text[512];
	json_t *o;

	if (!c) {
		*status = WVM_CONTROL_BAD_NODE;
		return NULL;
	}
	if (!node->membership->open) {
		o = json_object();
		json_object_set_new(o, "error", json_string(node->membership->off));
		return o;
	}
	objection(node, member, state, text, sizeof(text));
	if (!*text && absent(node, member) == node->members.count)
		wish(node, member, state);
	o = member < node->view->now.count ? life_json(node, member, join) : json_object();
	if (*text)
		json_object_set_new(o, "error", json_string(text));
	return o;
}

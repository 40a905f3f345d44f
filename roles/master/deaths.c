/*
 * Members that lend memory only, and have died: this node, or another one, wishes for the record
 * that takes such a member out (shared/view.h). Gossip says that it is dead; that it is out is what
 * a majority decides. It held no page for itself, so what it homed is all that has to be made anew.
 *
 * Whoever is dead by its own word may only be started again, and is given the time for it. Of the
 * homes that are there the first one wishes at once, the next ones only if that was of no use.
 */
#include <stddef.h>

#include "roles/master/node.h"

#define LOOK_NS  UINT64_C(100000000)
#define AGAIN_NS UINT64_C(5000000000) /* to be started again: as long as others are suspected */
#define TURN_NS  UINT64_C(500000000)  /* until the next home wishes, too */

static const struct wvm_gossip_peer *dead_peer(const struct wvm_node *node, uint32_t member)
{
	const struct wvm_gossip_peer *p;

	if (member == node->self)
		return NULL;
	p = wvm_node_membership_peer(node->membership, member);
	return p && p->status == WVM_GOSSIP_DEAD ? p : NULL;
}

static bool can_be_taken_out(const struct wvm_node *node, uint32_t member)
{
	return wvm_node_view_mortal(node, member) &&
	       wvm_view_allows(&node->view->now, member, WVM_NODE_LOST) == WVM_VIEW_ALLOWED;
}

/* How many homes come before this one, and are there. */
static uint32_t rank(const struct wvm_node *node)
{
	uint32_t before = 0;

	for (uint32_t i = 0; i < node->self && i < node->view->now.count; i++)
		before += wvm_view_takes_part(&node->view->now, i) && !dead_peer(node, i);
	return before;
}

static uint64_t due_ns(const struct wvm_node *node, const struct wvm_gossip_peer *p)
{
	return p->since_ns + (p->life == WVM_NODE_OFFLINE ? AGAIN_NS : 0) + rank(node) * TURN_NS;
}

static void fire(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_node_view *v =
		(struct wvm_node_view *)((char *)timer - offsetof(struct wvm_node_view, deaths));
	struct wvm_node *node = v->node;
	struct wvm_epoch_record r;
	bool any = false;

	for (uint32_t i = 0; i < v->now.count; i++) {
		const struct wvm_gossip_peer *p = dead_peer(node, i);

		if (!p || !can_be_taken_out(node, i))
			continue;
		any = true;
		if (now_ns < due_ns(node, p) || !node->serving ||
		    !wvm_view_takes_part(&v->now, node->self))
			continue;
		if (wvm_view_record(&v->now, &node->members, i, WVM_NODE_LOST, &r))
			(void)wvm_node_membership_wish(node->membership, &r);
		break; /* one record after the other */
	}
	if (any)
		wvm_shard_arm(node->shards[0].shard, timer, LOOK_NS);
}

void wvm_node_deaths_look(struct wvm_node *node)
{
	struct wvm_timer *timer = &node->view->deaths;

	timer->fire = fire;
	wvm_shard_arm(node->shards[0].shard, timer, LOOK_NS);
}

const char *wvm_node_refused_do(const struct wvm_node *node)
{
	if (wvm_node_view_mortal(node, node->self) && node->members.count > 2)
		return "leave it stopped until the others have replaced it (OFFLINE in their wvm_ctl "
		       "members), then start it";
	return "stop all nodes and start the cluster anew";
}

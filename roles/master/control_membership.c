/* The control port's part about membership: who answers, and the epoch. On shard 0. */
#include <arpa/inet.h>
#include <stdio.h>

#include "roles/master/control_priv.h"
#include "roles/master/node.h"

#define LISTED_MAX 4096u

static void set_text(json_t *o, const char *key, const char *text)
{
	json_object_set_new(o, key, json_string(text));
}

static uint64_t ms_since(uint64_t then_ns)
{
	uint64_t now = wvm_now_ns();

	return now > then_ns ? (now - then_ns) / 1000000 : 0;
}

/* A node that is named by its vnode: its phys_id. */
static void set_node(json_t *o, const char *key, const struct wvm_node *n, uint32_t vnode)
{
	const struct wvm_conf_node *c = wvm_topology_by_vnode(&n->topology, vnode);

	if (c)
		set(o, key, c->phys_id);
}

static json_t *self_json(const struct wvm_node_membership *n, json_t *o)
{
	const struct wvm_gossip_self *self = &n->m.gossip->self;

	set_text(o, "life", wvm_node_state_name(self->life));
	set_text(o, "status", wvm_gossip_status_name(WVM_GOSSIP_ALIVE));
	json_object_set_new(o, "heard", json_true());
	set(o, "incarnation", self->incarnation);
	set(o, "boot", self->incarnation >> 16);
	set(o, "epoch", self->epoch);
	set(o, "health", n->m.gossip->health);
	set(o, "since_ms", ms_since(n->started_ns));
	return o;
}

static json_t *member_json(const struct wvm_node_membership *n, uint32_t member)
{
	const struct wvm_conf_node *c = &n->node->topology.nodes[member];
	const struct wvm_hop *at = &n->peers[member].at;
	struct in_addr ip = {htonl(at->ip)};
	char text[INET_ADDRSTRLEN], address[INET_ADDRSTRLEN + 8];
	const char *state = wvm_node_view_state(n->node, member);
	const struct wvm_gossip_peer *p;
	json_t *o = json_object();

	snprintf(address, sizeof(address), "%s:%u", inet_ntop(AF_INET, &ip, text, sizeof(text)),
		 at->port);
	set(o, "node", c->phys_id);
	set(o, "vnode", c->first_vnode);
	set_text(o, "address", address);
	if (state)
		set_text(o, "member", state);
	if (member == n->node->self)
		return self_json(n, o);
	p = wvm_gossip_find(n->m.gossip, c->first_vnode);
	if (!p) { /* the view has no room for it */
		set_text(o, "status", "unknown");
		return o;
	}
	set_text(o, "life", wvm_node_state_name(p->life));
	set_text(o, "status", wvm_gossip_status_name(p->status));
	json_object_set_new(o, "heard", json_boolean(p->epoch));
	set(o, "incarnation", p->incarnation);
	set(o, "boot", p->incarnation >> 16);
	set(o, "epoch", p->epoch);
	set(o, "health", p->health);
	set(o, "since_ms", ms_since(p->since_ns));
	return o;
}

json_t *wvm_control_members(const struct wvm_node *node)
{
	const struct wvm_node_membership *n = node->membership;
	uint32_t count = node->members.count < LISTED_MAX ? node->members.count : LISTED_MAX;
	json_t *o = json_object(), *list = json_array();

	set(o, "node", node->options->phys_id);
	json_object_set_new(o, "watching", json_boolean(n && n->open));
	if (n && !n->open)
		set_text(o, "why_not", n->off);
	for (uint32_t i = 0; n && n->open && i < count; i++)
		json_array_append_new(list, member_json(n, i));
	set(o, "left_off", node->members.count - count);
	json_object_set_new(o, "members", list);
	return o;
}

static json_t *record_json(const struct wvm_node *n, const struct wvm_epoch_record *r)
{
	json_t *o = json_object(), *voters = json_array();

	set(o, "epoch", r->epoch);
	set_node(o, "node", n, r->node);
	set(o, "vnode", r->node);
	set_text(o, "life", wvm_node_state_name(r->state));
	for (unsigned i = 0; i < r->voters; i++) {
		json_t *one = json_object();

		set_node(one, "node", n, r->voter[i]);
		set(one, "vnode", r->voter[i]);
		json_array_append_new(voters, one);
	}
	json_object_set_new(o, "voters", voters);
	return o;
}

static json_t *ballot_json(const struct wvm_node *n, uint64_t ballot)
{
	json_t *o = json_object();

	set(o, "round", wvm_epoch_round(ballot));
	set(o, "vnode", wvm_epoch_proposer(ballot));
	return o;
}

json_t *wvm_control_epoch(const struct wvm_node *node)
{
	const struct wvm_node_membership *n = node->membership;
	json_t *o = json_object();
	const struct wvm_epoch *e;

	set(o, "node", node->options->phys_id);
	json_object_set_new(o, "watching", json_boolean(n && n->open));
	if (!n || !n->open) {
		if (n)
			set_text(o, "why_not", n->off);
		return o;
	}
	e = &n->m.epoch;
	json_object_set_new(o, "record", record_json(node, &e->d.current));
	json_object_set_new(o, "votes", json_boolean(wvm_epoch_voter(&e->d.current, e->self) >= 0));
	set_text(o, "phase", wvm_epoch_phase_name(e->phase));
	if (e->wish.epoch)
		json_object_set_new(o, "wish", record_json(node, &e->wish));
	if (e->d.promised)
		json_object_set_new(o, "promised", ballot_json(node, e->d.promised));
	if (e->d.accepted)
		json_object_set_new(o, "accepted", record_json(node, &e->d.value));
	json_object_set_new(o, "storing", json_boolean(n->m.saving));
	set(o, "conflicts", e->conflicts);
	set_text(o, "file", n->ballots.path);
	return o;
}

void wvm_control_membership_stats(json_t *o, const struct wvm_node *node)
{
	const struct wvm_node_membership *n = node->membership;
	const struct wvm_membership_counters *c;
	const struct wvm_gossip_counters *g;
	json_t *section = json_object();
	char name[32];

	json_object_set_new(o, "membership", section);
	if (!n || !n->open)
		return;
	c = &n->m.counters;
	g = &n->m.gossip->counters;
	set(section, "received", c->received);
	set(section, "gossip_received", c->gossip);
	set(section, "ballots_received", c->ballots);
	set(section, "gossip_sent", c->gossip_sent);
	set(section, "ballots_sent", c->ballots_sent);
	set(section, "unsent", c->unsent);
	set(section, "ballots_busy", c->busy);
	set(section, "saves", c->saves);
	set(section, "saves_failed", __atomic_load_n(&n->saver.failed, __ATOMIC_RELAXED));
	for (unsigned k = 1; k < WVM_DROP_REASONS; k++) {
		snprintf(name, sizeof(name), "dropped_%s", wvm_drop_name(k));
		set(section, name, c->drops[k]);
	}
	set(section, "peers", n->m.gossip->count);
	set(section, "peers_suspect", n->m.gossip->suspects);
	set(section, "peers_dead", n->m.gossip->dead);
	set(section, "probes", g->probes);
	set(section, "probes_failed", g->failed);
	set(section, "suspected", g->suspected);
	set(section, "dead", g->dead);
	set(section, "refuted", g->refuted);
	set(section, "held", g->held);
	set(section, "late", g->late);
	set(section, "view_full", g->full);
	set(section, "out_full", g->out_full);
	set(section, "relays_full", g->relays_full);
	set(section, "id_conflicts", g->conflicts);
	set(section, "epoch_conflicts", n->m.epoch.conflicts);
}

#include "roles/master/membership.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/vfs.h>
#include <time.h>

#include "roles/master/node.h"
#include "shared/core/assert.h"
#include "shared/core/slices.h"

#define RX_BUFFERS   4
#define TX_BUFFERS   64 /* more than one input makes: WVM_GOSSIP_OUT and WVM_EPOCH_OUT */
#define SOCKET_BYTES (1 << 18)
#define LEAVE_S      1

/* ---- addresses ------------------------------------------------------------------------- */

static uint32_t vnode_of(const struct wvm_node *node, uint32_t member)
{
	return node->members.list[member].first_vnode;
}

/* Its member is the index; members are known by their first vnode alone. */
static struct wvm_node_peer *peer_of(const struct wvm_node_membership *n, uint32_t vnode)
{
	uint32_t member = wvm_member_of(&n->node->members, vnode);

	if (member == WVM_SLICE_NIL || vnode_of(n->node, member) != vnode)
		return NULL;
	return &n->peers[member];
}

static bool where(void *ctx, uint32_t vnode, struct wvm_hop *out)
{
	const struct wvm_node_peer *p = peer_of(ctx, vnode);

	if (p)
		*out = p->at;
	return p;
}

static struct sockaddr_in address_of(const struct wvm_hop *at)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(at->ip),
				    .sin_port = htons(at->port)};
}

static struct wvm_hop hop_of(const struct sockaddr_in *at)
{
	return (struct wvm_hop){.ip = ntohl(at->sin_addr.s_addr), .port = ntohs(at->sin_port)};
}

static bool by_sidecar(const struct wvm_node *node)
{
	return wvm_node_by_sidecar(node, node->self);
}

static int by_address(const void *a, const void *b)
{
	const struct wvm_hop *x = a, *y = b;
	uint64_t left = (uint64_t)x->ip << 16 | x->port, right = (uint64_t)y->ip << 16 | y->port;

	return (left > right) - (left < right);
}

/* Two nodes at one control address could not be told from each other. */
static int check_addresses(struct wvm_node_membership *n)
{
	uint32_t count = n->node->members.count;
	struct wvm_hop *all;

	if (by_sidecar(n->node))
		return 0;
	all = calloc(count, sizeof(*all));
	if (!all)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		all[i] = n->peers[i].at;
	qsort(all, count, sizeof(*all), by_address);
	for (uint32_t i = 1; i < count && !n->off[0]; i++) {
		struct in_addr ip = {htonl(all[i].ip)};

		if (wvm_hop_same(all[i - 1], all[i]))
			snprintf(
				n->off, sizeof(n->off),
				"two NODE lines have the control port %s:%u, so who answers is not "
				"watched: give each its own, as the last field of its line",
				inet_ntoa(ip), all[i].port);
	}
	free(all);
	return 0;
}

/* As the NODE lines say; where they say nothing all nodes have the port that this one has. */
static int find_peers(struct wvm_node_membership *n, char *err, size_t err_len)
{
	const struct wvm_node *node = n->node;
	const struct wvm_conf_node *me = &node->topology.nodes[node->self];

	if (me->ctrl_port && me->ctrl_port != node->options->ctrl_port) {
		snprintf(err, err_len,
			 "%s:%u: node %u has ctrl_port %u, but the command line says %u",
			 node->options->topology, me->line, me->phys_id, me->ctrl_port,
			 node->options->ctrl_port);
		return -EINVAL;
	}
	n->peers = calloc(node->members.count, sizeof(*n->peers));
	for (uint32_t i = 0; n->peers && i < node->members.count; i++) {
		const struct wvm_conf_node *c = &node->topology.nodes[i];

		n->peers[i].at = (struct wvm_hop){.ip = c->ip,
						  .port = by_sidecar(node) ? c->port
							  : c->ctrl_port
								  ? c->ctrl_port
								  : node->options->ctrl_port};
	}
	if (n->peers && !check_addresses(n))
		return 0;
	snprintf(err, err_len, "no memory for %u members", node->members.count);
	return -ENOMEM;
}

/* ---- what the machines want ------------------------------------------------------------ */

static struct wvm_udp *socket_of(const struct wvm_node_membership *n)
{
	if (n->udp)
		return n->udp;
	return n->shared ? wvm_control_udp(n->node->control) : n->node->shards[0].udp;
}

/* A gateway leads it to the first shard by its steer, 0. */
static bool send_to(void *ctx, uint32_t vnode, const struct wvm_hop *to, const uint8_t *bytes,
		    size_t len)
{
	struct wvm_node_membership *n = ctx;
	struct sockaddr_in peer = address_of(to);

	return !wvm_udp_send(socket_of(n), WVM_LANE_CONTROL, &peer, 0, bytes, len);
}

static void save(void *ctx, const struct wvm_epoch_durable *d)
{
	struct wvm_node_membership *n = ctx;

	wvm_saver_save(&n->saver, d, wvm_node_view_next(n->node, d) ? &n->node->view->next : NULL);
}

/* What becomes of those who need the pages that a dead node has. */
static const char *what_follows(const struct wvm_node *node, uint32_t member, bool said)
{
	if (!wvm_view_takes_part(&node->view->now, member))
		return said ? ", and has no pages of anybody" : "; it has no pages of anybody";
	if (wvm_node_view_mortal(node, member) && node->members.count > 2)
		return ": unless it is back soon, others make its pages anew";
	if (wvm_node_view_mortal(node, member))
		return ": of two nodes one is no majority and cannot replace it: whoever needs its "
		       "pages waits, and gets an error after 12 s, until it is back";
	return said ? ": whoever needs its pages waits, and gets an error after 5 s, until it is "
		      "started again"
		    : ": if it has ended or is cut off, whoever needs its pages waits, and gets an "
		      "error after 5 s, until it is back";
}

static void said_dead(struct wvm_node_membership *n, struct wvm_node_peer *p, uint32_t phys_id,
		      const char *at, const struct wvm_gossip_action *note, uint64_t now_ns)
{
	double since = (double)(now_ns - (p->silent_ns ? p->silent_ns : now_ns)) / 1e9;
	bool said = note->life == WVM_NODE_OFFLINE;
	const char *follows = what_follows(n->node, (uint32_t)(p - n->peers), said);

	if (p->dead)
		return;
	p->dead = true;
	if (said)
		wvm_log("node %u (%s) has ended, as it said itself%s", phys_id, at, follows);
	else
		wvm_log("node %u (%s) is DEAD: its control port has not answered for %.1f s, neither "
			"here nor to others%s%s",
			phys_id, at, since,
			note->epoch ? ""
				    : ", and never in its present life (is that port open "
				      "between the hosts?)",
			follows);
}

static void note(void *ctx, const struct wvm_gossip_action *a, uint64_t now_ns)
{
	struct wvm_node_membership *n = ctx;
	struct wvm_node_peer *p = peer_of(n, a->node);
	struct in_addr ip = {htonl(a->ip)};
	char text[INET_ADDRSTRLEN], at[INET_ADDRSTRLEN + 8];
	uint32_t phys_id;

	if (!p)
		return;
	phys_id = n->node->topology.nodes[p - n->peers].phys_id;
	snprintf(at, sizeof(at), "%s:%u", inet_ntop(AF_INET, &ip, text, sizeof(text)), a->port);
	if (a->status == WVM_GOSSIP_SUSPECT && !p->silent_ns)
		p->silent_ns = now_ns;
	if (a->status == WVM_GOSSIP_DEAD) {
		said_dead(n, p, phys_id, at, a, now_ns);
		wvm_node_deaths_look(n->node);
	}
	if (a->status != WVM_GOSSIP_ALIVE)
		return;
	if (p->dead)
		wvm_log("node %u (%s) is ALIVE again", phys_id, at);
	p->dead = false;
	p->silent_ns = 0;
}

static void learnt(void *ctx, const struct wvm_epoch_record *record, enum wvm_epoch_verdict verdict)
{
	struct wvm_node_membership *n = ctx;

	wvm_node_view_learnt(n->node, record);
}

/* Whoever is asked again says so again: once for each epoch is enough. */
static void behind(void *ctx, uint32_t vnode, uint32_t epoch)
{
	struct wvm_node_membership *n = ctx;

	if (epoch == n->behind)
		return;
	n->behind = epoch;
	wvm_log("vnode %u is in epoch %u, too far ahead to be followed record by record: this node "
		"has no part in the cluster any more; to have it back stop all nodes, remove "
		"ballots.* and view.* of each, and start all of them",
		vnode, epoch);
}

static const struct wvm_membership_ops membership_ops = {.where = where,
							 .send = send_to,
							 .save = save,
							 .note = note,
							 .learnt = learnt,
							 .behind = behind};

/* ---- inputs ---------------------------------------------------------------------------- */

/* One timer stands for all; it follows the deadline, so that none fires in vain. */
static void arm(struct wvm_node_membership *n)
{
	struct wvm_shard *shard = n->node->shards[0].shard;
	uint64_t due = wvm_membership_deadline(&n->m);

	if (due == n->armed_ns)
		return;
	n->armed_ns = due;
	if (due == WVM_NEVER)
		wvm_shard_disarm(shard, &n->timer);
	else
		wvm_shard_arm_at(shard, &n->timer, due);
}

static void on_timer(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_node_membership *n =
		(void *)((char *)timer - offsetof(struct wvm_node_membership, timer));

	n->armed_ns = WVM_NEVER;
	wvm_membership_tick(&n->m, now_ns);
	arm(n);
}

static void on_saved(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_node_membership *n = ctx;

	wvm_membership_saved(&n->m, self->now_ns);
	arm(n);
}

void wvm_node_membership_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data,
				  size_t len)
{
	struct wvm_node_membership *n = ctx;
	struct wvm_hop at = hop_of(from);

	if (!n->told)
		return; /* this node has not begun: what it learns would find it half built */
	wvm_membership_datagram(&n->m, &at, data, len, n->node->shards[0].shard->now_ns);
	arm(n);
}

enum wvm_drop wvm_node_membership_relayed(struct wvm_node *node, unsigned shard,
					  const struct sockaddr_in *from, const struct wvm_msg *msg,
					  const uint8_t *payload)
{
	struct wvm_node_membership *n = node->membership;
	struct wvm_hop at = hop_of(from);
	enum wvm_drop reason;

	if (!n || !n->open || !n->told || !by_sidecar(node) || shard != 0)
		return WVM_DROP_TYPE;
	reason = wvm_membership_segment(&n->m, &at, msg, payload, node->shards[0].shard->now_ns);
	arm(n);
	return reason;
}

/* What the operator may not have meant. Of a node that runs: one that is refused says one line. */
static void tell(const struct wvm_node_membership *n)
{
	if (n->off[0])
		wvm_log("%s: %s", n->node->options->topology, n->off);
	if (n->made && n->node->boot > 1)
		wvm_log("%s: there was none: this node begins as one that never voted; if it did, "
			"stop it and put the file back",
			n->ballots.path);
	if (n->in_memory)
		wvm_log("%s: is in memory, but ballots have to outlive this host: name a directory "
			"on a disk (--state-dir)",
			n->ballots.dir);
}

void wvm_node_membership_life(struct wvm_node_membership *n, enum wvm_node_state life)
{
	if (!n)
		return;
	if (!n->told)
		tell(n);
	n->told = true;
	if (!n->open)
		return;
	wvm_membership_life(&n->m, life, n->node->shards[0].shard->now_ns);
	arm(n);
}

static void on_leave(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_node_membership *n = ctx;

	wvm_node_membership_life(n, WVM_NODE_OFFLINE);
	sem_post(&n->left);
}

/* What is sent leaves with the turn that the shards' end waits for. */
void wvm_node_membership_leave(struct wvm_node_membership *n)
{
	struct timespec t;

	if (!n || !n->open || wvm_post_outside(n->node->shards[0].shard, on_leave, n, NULL, 0))
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += LEAVE_S;
	while (sem_clockwait(&n->left, CLOCK_MONOTONIC, &t) && errno == EINTR)
		;
}

/* ---- for the view ---------------------------------------------------------------------- */

static int store_view(const void *ctx, const struct wvm_view *view)
{
	return wvm_node_view_store(ctx, view);
}

const struct wvm_gossip_peer *wvm_node_membership_peer(const struct wvm_node_membership *n,
						       uint32_t member)
{
	return n->open ? wvm_gossip_find(n->m.gossip, vnode_of(n->node, member)) : NULL;
}

void wvm_node_membership_busy(struct wvm_node_membership *n, bool busy)
{
	if (n->open)
		wvm_membership_busy(&n->m, busy);
}

int wvm_node_membership_wish(struct wvm_node_membership *n, const struct wvm_epoch_record *record)
{
	int r;

	if (!n->open)
		return -ENOTCONN;
	r = wvm_membership_wish(&n->m, record, n->node->shards[0].shard->now_ns);
	arm(n);
	return r;
}

void wvm_node_membership_install(struct wvm_node_membership *n,
				 const struct wvm_epoch_record *record)
{
	if (!n->open || n->m.epoch.d.current.epoch >= record->epoch)
		return;
	WVM_ASSERT(!wvm_membership_install(&n->m, record, n->node->shards[0].shard->now_ns));
	arm(n);
}

/* ---- begin and end --------------------------------------------------------------------- */

static int read_ballots(struct wvm_node_membership *n, struct wvm_epoch_durable *d, char *err,
			size_t err_len)
{
	const struct wvm_node *node = n->node;
	uint64_t cluster = wvm_node_identity(node);
	struct wvm_epoch_record first;
	struct statfs fs;
	int r;

	r = wvm_node_first_record(node, &first);
	if (r) {
		snprintf(err, err_len, "no memory for %u members", node->members.count);
		return r;
	}
	r = wvm_ballots_begin(&n->ballots, node->options->state_dir, node->options->phys_id,
			      vnode_of(node, node->self), cluster, &first, d, err, err_len);
	if (r < 0)
		return r;
	n->made = r > 0;
	n->in_memory = !statfs(n->ballots.dir, &fs) &&
		       (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
	r = wvm_node_view_check(node, d->current.epoch, err, err_len);
	if (r)
		return r;
	r = wvm_saver_open(&n->saver, &n->ballots, store_view, node, node->shards[0].shard,
			   on_saved, n);
	if (r)
		snprintf(err, err_len, "cannot start a thread: %s", strerror(-r));
	return r;
}

static int make_machines(struct wvm_node_membership *n, const struct wvm_epoch_durable *d,
			 char *err, size_t err_len)
{
	struct wvm_node *node = n->node;
	const struct wvm_hop *me = &n->peers[node->self].at;
	struct wvm_gossip_self self = {.node = vnode_of(node, node->self),
				       .ip = me->ip,
				       .port = me->port,
				       .incarnation = wvm_gossip_incarnation(node->boot),
				       .busy = node->view->now.moved != 0};
	uint64_t now = wvm_now_ns(), seed;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = now;
	n->gossip_memory = aligned_alloc(8, wvm_gossip_bytes(WVM_GOSSIP_ROOM));
	if (!n->gossip_memory) {
		snprintf(err, err_len, "no memory for the view of other nodes");
		return -ENOMEM;
	}
	wvm_membership_init(&n->m, &membership_ops, n, n->gossip_memory, WVM_GOSSIP_ROOM, node->mtu,
			    &self, d, seed, now);
	wvm_membership_keep(&n->m, node->view->now.kept, node->view->now.kept_count);
	for (uint32_t i = 0; i < node->members.count; i++)
		if (i != node->self)
			wvm_membership_add(&n->m, vnode_of(node, i), now);
	return 0;
}

/* Where this node's address is that of the operator's port, one socket is for both. */
static int open_socket(struct wvm_node_membership *n, char *err, size_t err_len)
{
	const struct wvm_hop *me = &n->peers[n->node->self].at;
	struct wvm_udp_opts o = {.bind = address_of(me),
				 .datagram = wvm_node_membership_datagram,
				 .datagram_max = WVM_MTU_DEFAULT,
				 .rx_buffers = RX_BUFFERS,
				 .tx_buffers = TX_BUFFERS,
				 .socket_bytes = SOCKET_BYTES};
	void *ctx = n;

	n->shared = !by_sidecar(n->node) && me->ip == INADDR_LOOPBACK;
	if (by_sidecar(n->node) || n->shared)
		return 0;
	*err = 0;
	return wvm_udp_open(&n->udp, &n->node->shards[0].shard, &ctx, 1, &o, err, err_len);
}

int wvm_node_membership_open(struct wvm_node_membership **out, struct wvm_node *node, char *err,
			     size_t err_len)
{
	struct wvm_node_membership *n = calloc(1, sizeof(*n));
	struct wvm_epoch_durable d;
	int r;

	if (!n) {
		snprintf(err, err_len, "no memory for membership");
		return -ENOMEM;
	}
	*out = n;
	n->node = node;
	n->armed_ns = WVM_NEVER;
	n->timer.fire = on_timer;
	n->started_ns = wvm_now_ns();
	sem_init(&n->left, 0, 0);
	if ((r = find_peers(n, err, err_len)))
		return r;
	if (n->off[0])
		return 0;
	if ((r = read_ballots(n, &d, err, err_len)) || (r = make_machines(n, &d, err, err_len)) ||
	    (r = open_socket(n, err, err_len)))
		return r;
	n->open = true;
	return 0;
}

void wvm_node_membership_close(struct wvm_node_membership *n)
{
	if (!n)
		return;
	wvm_saver_close(&n->saver);
	wvm_udp_close(n->udp);
	free(n->gossip_memory);
	free(n->peers);
	sem_destroy(&n->left);
	free(n);
}

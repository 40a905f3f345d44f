#include "roles/master/view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/master/node.h"

static uint32_t vnode_of(const struct wvm_node *node, uint32_t member)
{
	return node->members.list[member].first_vnode;
}

/* ---- the file -------------------------------------------------------------------------- */

void wvm_node_view_path(const struct wvm_node *node, char path[WVM_REPLACE_PATH])
{
	snprintf(path, WVM_REPLACE_PATH, "%s/view.%u", node->options->state_dir,
		 node->options->phys_id);
}

int wvm_node_view_store(const struct wvm_node *node, const struct wvm_view *v)
{
	uint8_t bytes[WVM_VIEW_BYTES_MAX];
	char path[WVM_REPLACE_PATH];
	size_t len = wvm_view_encode(bytes, v, vnode_of(node, node->self), wvm_node_identity(node));

	wvm_node_view_path(node, path);
	return wvm_file_replace(node->options->state_dir, path, bytes, len);
}

static int refuse(const char *path, int r, char *err, size_t err_len)
{
	if (r == -EINVAL)
		snprintf(err, err_len,
			 "%s: does not say any more who the members are (damaged, or written by "
			 "another version): put a good copy of its last state back; without one "
			 "stop all nodes, remove ballots.* and view.* of each, and start all of "
			 "them",
			 path);
	else if (r == -EEXIST)
		snprintf(err, err_len,
			 "%s: is of another node, or of a cluster with other NODE, PLACE or SPARE "
			 "lines: put the former topology back, or stop all nodes, remove ballots.* "
			 "and view.* of each, and start all of them",
			 path);
	else
		snprintf(err, err_len, "%s: cannot be read: %s", path, strerror(-r));
	return r;
}

/* Of nodes that are not spare the lowest vnodes vote. */
int wvm_node_first_record(const struct wvm_node *node, struct wvm_epoch_record *first)
{
	uint32_t *ids = calloc(node->members.count, sizeof(*ids)), count = 0;

	if (!ids)
		return -ENOMEM;
	for (uint32_t i = 0; i < node->members.count; i++)
		if (!node->topology.nodes[i].spare)
			ids[count++] = vnode_of(node, i);
	wvm_ballots_first(first, ids, count);
	free(ids);
	return 0;
}

static int first_view(const struct wvm_node *node, struct wvm_view *v)
{
	uint8_t *spare = calloc(node->members.count, 1);
	struct wvm_epoch_record first;
	int r = spare ? wvm_node_first_record(node, &first) : -ENOMEM;

	for (uint32_t i = 0; !r && i < node->members.count; i++)
		spare[i] = node->topology.nodes[i].spare;
	if (!r)
		wvm_view_first(v, &first, node->members.count, spare);
	free(spare);
	return r;
}

static int read_view(const struct wvm_node *node, struct wvm_view *v, char *err, size_t err_len)
{
	uint8_t bytes[WVM_VIEW_BYTES_MAX + 1];
	char path[WVM_REPLACE_PATH];
	ssize_t n;
	int r;

	wvm_node_view_path(node, path);
	n = wvm_file_read(path, bytes, sizeof(bytes));
	if (n == -ENOENT)
		r = first_view(node, v);
	else if (n < 0)
		r = (int)n;
	else
		r = wvm_view_decode(v, bytes, (size_t)n, vnode_of(node, node->self),
				    wvm_node_identity(node), node->members.count);
	return r ? refuse(path, r, err, err_len) : 0;
}

/*
 * The view is stored before the ballots, so it may be one record ahead. Behind them it cannot be
 * but by another hand; then who is home of what is not known here.
 */
int wvm_node_view_check(const struct wvm_node *node, uint32_t voted, char *err, size_t err_len)
{
	char path[WVM_REPLACE_PATH];

	if (node->view->now.record.epoch >= voted)
		return 0;
	wvm_node_view_path(node, path);
	snprintf(err, err_len,
		 "%s: %s, but this node has been in epoch %u: put the last file back, or stop all "
		 "nodes, remove ballots.* and view.* of each, and start all of them",
		 path, node->view->now.record.epoch > WVM_FIRST_EPOCH ? "is older" : "is missing",
		 voted);
	return -EEXIST;
}

/* ---- tables ---------------------------------------------------------------------------- */

void wvm_node_view_table(const struct wvm_node *node, struct wvm_slices *out, bool before)
{
	struct wvm_node_view *v = node->view;

	wvm_view_homes(&v->now, node->members.count, before, v->homes);
	wvm_slices_build_active(out, &node->members, v->homes, &v->scratch);
}

void wvm_node_view_note_gone(const struct wvm_node *node)
{
	struct wvm_node_view *v = node->view;

	for (uint32_t i = 0; i < node->members.count; i++)
		__atomic_store_n(&v->gone[i], !wvm_view_takes_part(&v->now, i), __ATOMIC_RELAXED);
}

void wvm_node_view_gone(const struct wvm_node *node, struct wvm_core *core)
{
	for (uint32_t i = 0; i < node->members.count; i++)
		if (i != node->self)
			wvm_core_gone(core, i,
				      __atomic_load_n(&node->view->gone[i], __ATOMIC_RELAXED));
}

/* One record at most: each is learnt, and noted in the life's file, before the next is stored. */
void wvm_node_view_left(const struct wvm_node *node)
{
	const struct wvm_epoch_record *r = &node->view->now.record;

	if (node->state.life->epoch < r->epoch && r->state == WVM_NODE_OFFLINE)
		wvm_core_left(node->shards[0].core);
}

int wvm_node_view_open(struct wvm_node *node, char *err, size_t err_len)
{
	struct wvm_node_view *v = calloc(1, sizeof(*v));
	int r;

	node->view = v;
	if (v) {
		v->homes = calloc(node->members.count, 1);
		v->gone = calloc(node->members.count, 1);
	}
	if (!v || !v->homes || !v->gone) {
		snprintf(err, err_len, "no memory for %u members", node->members.count);
		return -ENOMEM;
	}
	r = read_view(node, &v->now, err, err_len);
	if (r)
		return r;
	v->next = v->now;
	wvm_node_view_note_gone(node);
	pthread_mutex_init(&v->lock, NULL);
	v->epoch = v->now.record.epoch;
	v->moved = v->now.moved;
	wvm_node_view_table(node, &v->before, true);
	wvm_node_view_table(node, &v->slices, false);
	return 0;
}

void wvm_node_view_close(struct wvm_node *node)
{
	if (node->view) {
		free(node->view->homes);
		free(node->view->gone);
	}
	free(node->view);
	node->view = NULL;
}

void wvm_node_view_params(const struct wvm_node *node, struct wvm_core_params *p)
{
	const struct wvm_node_view *v = node->view;

	p->epoch = v->now.record.epoch;
	p->slices = &v->slices;
	p->shards = (uint8_t)node->shard_count;
	p->moved = v->now.moved;
	p->before = v->now.moved ? &v->before : NULL;
}

void wvm_node_view_own(struct wvm_node_shard *s, struct wvm_core_params *p)
{
	struct wvm_node_epoch *e = &s->next;

	if (p->before) {
		e->tables[0] = *p->before;
		p->before = &e->tables[0];
	}
	e->table = 1;
	e->tables[1] = *p->slices;
	p->slices = &e->tables[1];
	e->moved = p->moved;
	e->taken = p->epoch;
	s->moving = p->before;
}

const struct wvm_slices *wvm_node_slices(const struct wvm_node *node)
{
	return &node->view->slices;
}

void wvm_node_view_asked(const struct wvm_node *node, uint8_t *asked)
{
	for (uint32_t i = 0; i < node->members.count; i++)
		asked[i] = wvm_view_takes_part(&node->view->now, i);
}

bool wvm_node_view_admits(const struct wvm_node *node)
{
	return wvm_view_open(&node->view->now, node->self);
}

const char *wvm_node_view_state(const struct wvm_node *node, uint32_t member)
{
	const struct wvm_view *v = &node->view->now;

	return member < v->count ? wvm_node_state_name(v->state[member]) : NULL;
}

/* ---- what others say --------------------------------------------------------------------- */

/* Whether a member that takes part has said that it has nothing to move any more. */
static bool settled(const struct wvm_node *node, uint32_t member)
{
	const struct wvm_gossip_peer *p;

	if (member == node->self)
		return !node->view->busy;
	p = wvm_node_membership_peer(node->membership, member);
	return p && p->epoch >= node->view->now.moved && !p->busy;
}

/* The first member that is not done, or members.count. */
uint32_t wvm_node_view_unsettled(const struct wvm_node *node, uint32_t from)
{
	while (from < node->members.count &&
	       (!wvm_view_takes_part(&node->view->now, from) || settled(node, from)))
		from++;
	return from;
}

bool wvm_node_view_next(struct wvm_node *node, const struct wvm_epoch_durable *d)
{
	struct wvm_view *next = &node->view->next;

	if (d->current.epoch != next->record.epoch + 1)
		return false;
	(void)wvm_view_apply(next, &node->members, &d->current);
	return true;
}

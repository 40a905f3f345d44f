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
	size_t len = wvm_view_encode(bytes, v, &node->members, vnode_of(node, node->self),
				     wvm_node_identity(node));

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
		wvm_view_first(v, &first, &node->members, spare, &node->view->scratch);
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
		r = wvm_view_decode(v, bytes, (size_t)n, &node->members, vnode_of(node, node->self),
				    wvm_node_identity(node));
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

/* ---- for cores and shards -------------------------------------------------------------- */

void wvm_node_view_note_gone(const struct wvm_node *node)
{
	struct wvm_node_view *v = node->view;

	for (uint32_t i = 0; i < node->members.count; i++) {
		uint8_t gone = wvm_view_takes_part(&v->now, i) ? WVM_NODE_STAYS : WVM_NODE_GONE;

		if (i < v->now.count && v->now.state[i] == WVM_NODE_LOST)
			gone = WVM_NODE_DEAD;
		__atomic_store_n(&v->gone[i], gone, __ATOMIC_RELAXED);
	}
}

void wvm_node_view_gone(const struct wvm_node *node, struct wvm_core *core)
{
	for (uint32_t i = 0; i < node->members.count; i++) {
		uint8_t gone = __atomic_load_n(&node->view->gone[i], __ATOMIC_RELAXED);

		if (i == node->self)
			continue;
		wvm_core_lost(core, i, gone == WVM_NODE_DEAD);
		wvm_core_gone(core, i, gone != WVM_NODE_STAYS);
	}
}

bool wvm_node_view_ends(const struct wvm_epoch_record *record)
{
	return record->state == WVM_NODE_OFFLINE || record->state == WVM_NODE_LOST;
}

/* One record at most: each is learnt, and noted in the life's file, before the next is stored. */
void wvm_node_view_left(const struct wvm_node *node)
{
	const struct wvm_epoch_record *r = &node->view->now.record;

	if (node->state.life->epoch < r->epoch && wvm_node_view_ends(r))
		wvm_core_left(node->shards[0].core);
}

/* What the core of a node that takes part is to believe of each member. */
static void fill_lost(const struct wvm_node *node, struct wvm_core_lost *lost, uint8_t *member)
{
	const struct wvm_view *now = &node->view->now;

	*lost = (struct wvm_core_lost){
		.epoch = now->lost_epoch, .moved = now->moved, .member = member};
	memcpy(lost->slices, now->lost, sizeof(lost->slices));
	for (uint32_t i = 0; i < node->members.count; i++)
		member[i] = wvm_view_takes_part(now, i) ? WVM_LOST_NOT : WVM_LOST_ABSENT;
	for (uint32_t i = 0; i < now->count; i++)
		if (now->state[i] == WVM_NODE_LOST)
			member[i] = WVM_LOST_EMPTY; /* nobody else is taken out */
}

/* Of a table that was in force before: its homes are those that it names. */
static void seconds_before(const struct wvm_node *node, struct wvm_node_tables *t)
{
	struct wvm_node_view *v = node->view;

	memset(v->homes, 0, node->members.count);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		v->homes[wvm_member_of(&node->members, t->slices.home_vnode[i])] = 1;
	wvm_slices_build_backup(&t->seconds, &t->slices, &node->members, v->homes, v->mortal,
				&v->scratch);
}

/* The view's, of members that may be lost. */
static void mortal_seconds(const struct wvm_node *node, struct wvm_slices *seconds)
{
	const struct wvm_view *now = &node->view->now;

	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t home = wvm_member_of(&node->members, now->slices.home_vnode[i]);

		seconds->home_vnode[i] = node->view->mortal[home] ? now->seconds.home_vnode[i]
								  : WVM_SLICE_NIL;
	}
}

void wvm_node_view_publish(struct wvm_node *node)
{
	struct wvm_node_view *v = node->view;
	struct wvm_slices seconds;

	if (v->backups)
		mortal_seconds(node, &seconds);
	pthread_mutex_lock(&v->lock);
	if (v->now.moved != v->moved)
		v->before.seconds = v->is.seconds;
	v->moved = v->now.moved;
	v->before.slices = v->now.before;
	v->is.slices = v->now.slices;
	if (v->backups)
		v->is.seconds = seconds;
	fill_lost(node, &v->lost, v->lost_member);
	__atomic_store_n(&v->epoch, v->now.record.epoch, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&v->lock);
}

static bool make_lists(struct wvm_node *node)
{
	struct wvm_node_view *v = node->view;
	uint32_t count = node->members.count;

	v->homes = calloc(count, 1);
	v->gone = calloc(count, 1);
	v->mortal = calloc(count, 1);
	v->lost_member = calloc(count, 1);
	if (!v->homes || !v->gone || !v->mortal || !v->lost_member)
		return false;
	for (uint32_t i = 0; i < count && i < WVM_VIEW_MEMBERS; i++) {
		v->mortal[i] = !node->topology.nodes[i].cores;
		v->backups |= v->mortal[i];
	}
	return true;
}

int wvm_node_view_open(struct wvm_node *node, char *err, size_t err_len)
{
	struct wvm_node_view *v = calloc(1, sizeof(*v));
	int r;

	node->view = v;
	if (!v || !make_lists(node)) {
		snprintf(err, err_len, "no memory for %u members", node->members.count);
		return -ENOMEM;
	}
	r = read_view(node, &v->now, err, err_len);
	if (r)
		return r;
	v->next = v->now;
	wvm_node_view_note_gone(node);
	pthread_mutex_init(&v->lock, NULL);
	wvm_node_view_publish(node);
	if (v->backups)
		seconds_before(node, &v->before);
	return 0;
}

void wvm_node_view_close(struct wvm_node *node)
{
	if (node->view) {
		free(node->view->homes);
		free(node->view->gone);
		free(node->view->mortal);
		free(node->view->lost_member);
	}
	free(node->view);
	node->view = NULL;
}

/* A node that takes no part has nothing of a move. */
static bool has_part(const struct wvm_node *node)
{
	return wvm_view_takes_part(&node->view->now, node->self);
}

void wvm_node_view_params(const struct wvm_node *node, struct wvm_core_params *p)
{
	const struct wvm_node_view *v = node->view;
	uint32_t moved = wvm_node_view_lost(node) ? 0 : v->now.moved;

	p->epoch = v->now.record.epoch;
	p->slices = &v->is.slices;
	p->backup = v->backups ? &v->is.seconds : NULL;
	p->shards = (uint8_t)node->shard_count;
	p->moved = moved;
	p->before = moved ? &v->before.slices : NULL;
	p->lost = moved && v->lost.epoch && has_part(node) ? &v->lost : NULL;
}

int wvm_node_view_own(struct wvm_node_shard *s, struct wvm_core_params *p)
{
	const struct wvm_node_view *v = s->node->view;
	struct wvm_node_epoch *e = &s->next;
	uint32_t count = s->node->members.count;
	uint8_t *lists = calloc(3, count);

	e->renewed = calloc(count, sizeof(*e->renewed));
	if (!lists || !e->renewed) {
		free(lists);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < 3; i++)
		e->lost_member[i] = lists + (size_t)i * count;
	e->table = 1;
	e->base = 1;
	e->tables[1] = v->is;
	p->slices = &e->tables[1].slices;
	if (p->backup)
		p->backup = &e->tables[1].seconds;
	if (p->before) {
		e->base = 0;
		e->tables[0] = v->before;
		p->before = &e->tables[0].slices;
	}
	if (p->lost) {
		e->losts[0] = *p->lost;
		memcpy(e->lost_member[0], p->lost->member, count);
		e->losts[0].member = e->lost_member[0];
		p->lost = &e->losts[0];
	}
	e->moved = p->moved;
	e->taken = p->epoch;
	s->moving = p->before;
	return 0;
}

void wvm_node_view_disown(struct wvm_node_shard *s)
{
	free(s->next.lost_member[0]);
	s->next.lost_member[0] = NULL;
	free(s->next.renewed);
	s->next.renewed = NULL;
}

const struct wvm_slices *wvm_node_slices(const struct wvm_node *node)
{
	return &node->view->is.slices;
}

bool wvm_node_view_lost(const struct wvm_node *node)
{
	const struct wvm_view *now = &node->view->now;

	return node->self < now->count && now->state[node->self] == WVM_NODE_LOST;
}

bool wvm_node_view_mortal(const struct wvm_node *node, uint32_t member)
{
	return node->view->mortal[member];
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
	return p && p->epoch >= wvm_view_stirred(&node->view->now) && !p->busy;
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
	(void)wvm_view_apply(next, &node->members, &d->current, &node->view->scratch);
	return true;
}

/* The view while shards run: records that are learnt, epochs that cores take, what completes them.
 */
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "ring/post.h"
#include "roles/master/node.h"
#include "shared/core/assert.h"

#define LOOK_NS  UINT64_C(50000000) /* at what is still to be moved */
#define RETRY_NS UINT64_C(20000000) /* of an epoch that a shard cannot take yet */

/* ---- a record is learnt ---------------------------------------------------------------- */

/* On the shard that it is for: its turn looks. */
static void on_given(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	wvm_node_view_turn(ctx);
}

/* What finds no room in an inbox is given again when shard 0 looks. */
static void give(struct wvm_node *node)
{
	uint32_t epoch = node->view->now.record.epoch;

	wvm_node_view_turn(&node->shards[0]);
	for (unsigned i = 1; i < node->shard_count; i++) {
		struct wvm_node_shard *s = &node->shards[i];

		if (__atomic_load_n(&s->next.taken, __ATOMIC_ACQUIRE) != epoch)
			(void)wvm_post(node->shards[0].shard, s->shard, on_given, s, NULL, 0);
	}
}

static void tell_busy(struct wvm_node *node, bool busy)
{
	node->view->busy = busy;
	wvm_node_membership_busy(node->membership, busy);
}

static void look_soon(struct wvm_node *node)
{
	struct wvm_node_view *v = node->view;

	wvm_shard_arm(node->shards[0].shard, &v->timer, LOOK_NS);
}

static void say(const struct wvm_node *node)
{
	const struct wvm_epoch_record *r = &node->view->now.record;
	const struct wvm_conf_node *c = wvm_topology_by_vnode(&node->topology, r->node);
	const char *what = "";

	if (node->view->now.lost_epoch == r->epoch) {
		wvm_log("epoch %u: node %u has died: others make its pages anew", r->epoch,
			c ? c->phys_id : UINT32_MAX);
		return;
	}
	if (node->view->now.moved == r->epoch)
		what = r->state == WVM_NODE_WARMING ? ": slices move to it"
						    : ": its slices move to others";
	wvm_log("epoch %u: node %u is %s%s", r->epoch, c ? c->phys_id : UINT32_MAX,
		wvm_node_state_name(r->state), what);
}

/* What the state of this member means for this node's programs and pages. */
static void act_on_state(struct wvm_node *node)
{
	wvm_reclaim_leave(node, !wvm_node_view_admits(node));
}

/*
 * This node was taken for dead, and others have its place. Its core stays in the epoch before, in
 * which nobody hears it; the next life knows by the view's file that its pages are void.
 */
static void retire(struct wvm_node *node)
{
	if (node->view->retired)
		return;
	node->view->retired = true;
	wvm_log("epoch %u: this node was taken out of the cluster, since it did not answer: its pages "
		"were made anew elsewhere, and this life ends. Start it again: it begins empty, and "
		"`wvm_ctl join %u` has it home memory again",
		node->view->now.record.epoch, node->options->phys_id);
	node->exit_status = 1;
	kill(getpid(), SIGTERM);
}

/*
 * In this order: the next life is to know the epoch before a core does, and this one what becomes
 * of an end before that (as in wvm_node_view_left()); and gossip says with the first message of
 * the new epoch that there is something to move.
 */
void wvm_node_view_learnt(struct wvm_node *node, const struct wvm_epoch_record *record)
{
	struct wvm_node_view *v = node->view;

	if (record->epoch <= v->now.record.epoch || v->retired)
		return; /* that of the start; or this life has ended */
	WVM_ASSERT(v->next.record.epoch == record->epoch);
	v->now = v->next;
	if (wvm_node_view_lost(node)) {
		retire(node);
		return;
	}
	if (wvm_node_view_ends(record))
		wvm_core_left(node->shards[0].core);
	__atomic_store_n(&node->state.life->epoch, record->epoch, __ATOMIC_RELEASE);
	if (wvm_view_stirred(&v->now) == record->epoch)
		tell_busy(node, true);
	say(node);
	wvm_node_view_note_gone(node);
	wvm_node_view_asked(node, v->homes);
	wvm_node_join_epoch(node, record->epoch, v->homes);
	act_on_state(node);
	wvm_node_view_publish(node);
	give(node);
	look_soon(node);
}

/* ---- a shard --------------------------------------------------------------------------- */

static void on_retry(struct wvm_timer *timer, uint64_t now_ns)
{
	/* It ran so that the shard has a turn. */
	(void)timer;
	(void)now_ns;
}

/*
 * Which units have moved is written into the table of units: all of it has to have room. When
 * others are to be told what is held here, that is looked up unit by unit.
 */
static bool room_for_epoch(struct wvm_node_shard *s)
{
	for (unsigned i = 0; i < s->node->vm_count; i++)
		if (!wvm_backing_all_units(&s->node->backing[i]) ||
		    (s->next.lost.epoch && !wvm_backing_all_touched(&s->node->backing[i])))
			return false;
	return true;
}

static uint32_t free_table(const struct wvm_node_epoch *e)
{
	uint32_t i = 0;

	while (i == e->table || i == e->base)
		i++;
	return i;
}

/* The list of the dead there, as one that the core may keep. */
static const struct wvm_core_lost *own_lost(struct wvm_node_shard *s)
{
	struct wvm_node_epoch *e = &s->next;
	uint32_t at = !e->lost_at;

	e->losts[at] = e->lost;
	memcpy(e->lost_member[at], e->lost_member[2], s->node->members.count);
	e->losts[at].member = e->lost_member[at];
	return &e->losts[at];
}

/*
 * Other second homes alone, as a shard sees that has slept over moves that took everything back: in
 * the table that the core has.
 */
static void new_seconds(struct wvm_node_shard *s, const struct wvm_slices *seconds)
{
	struct wvm_slices *are = &s->next.tables[s->next.table].seconds;

	if (!memcmp(are, seconds, sizeof(*are)))
		return;
	*are = *seconds;
	wvm_core_backup_next(s->core, are);
}

/*
 * One epoch; lost: members have died in it. What the core has already does no harm. False: it
 * cannot go on to it yet.
 */
static bool step(struct wvm_node_shard *s, uint32_t epoch, const struct wvm_node_tables *to,
		 bool lost)
{
	struct wvm_node_epoch *e = &s->next;
	uint32_t unused = free_table(e), moved = lost ? e->lost.moved : epoch;
	bool moves = lost || memcmp(&to->slices, &e->tables[e->table].slices, sizeof(to->slices));
	enum wvm_epoch_taken taken;

	e->tables[unused] = *to;
	if (moves && s->node->view->backups)
		wvm_core_backup_next(s->core, &e->tables[unused].seconds);
	else if (s->node->view->backups && epoch > e->taken)
		new_seconds(s, &to->seconds);
	taken = lost ? wvm_core_epoch_lost(s->core, s->shard->now_ns, epoch,
					   &e->tables[unused].slices, own_lost(s))
		     : wvm_core_epoch(s->core, s->shard->now_ns, epoch, &e->tables[unused].slices);
	wvm_node_drain(s);
	if (moves && taken == WVM_EPOCH_TAKEN) {
		if (moved != e->moved)
			e->base = e->table; /* else it is a part of the move that it is in */
		e->table = unused;
		e->moved = moved;
		e->lost_at ^= lost;
	}
	return taken != WVM_EPOCH_BUSY;
}

/*
 * A shard that has slept over moves of others goes by the table before the one under way: a home
 * that it becomes there has to ask those who were homes then. Those who have died since the begin
 * of that are told of at once.
 */
static bool steps(struct wvm_node_shard *s)
{
	struct wvm_node_epoch *e = &s->next;
	bool begins = e->moving > e->taken;

	if (begins && !step(s, e->moving - 1, &e->before, false))
		return false;
	if (e->lost.epoch > e->taken && !step(s, e->lost.epoch, &e->is, true))
		return false;
	if (begins && !e->lost.epoch && !step(s, e->moving, &e->is, false))
		return false;
	return step(s, e->epoch, &e->is, false);
}

static bool take(struct wvm_node_shard *s)
{
	struct wvm_node_epoch *e = &s->next;
	bool room = room_for_epoch(s);

	if (room && steps(s)) {
		wvm_node_view_gone(s->node, s->core);
		if (!e->moving && !wvm_core_handed_over(s->core, e->moved))
			wvm_log("shard %u does not agree that all of epoch %u has moved: a drained "
				"node that comes back may be refused here",
				s->index, e->moved);
		return true;
	}
	if (!e->told)
		wvm_log("shard %u cannot go on to epoch %u%s: it tries again, and until then answers "
			"nobody who has",
			s->index, e->epoch,
			room ? ", since its part of the last move is not done"
			     : ", for lack of room on the tmpfs: free memory or room there");
	e->told = true;
	e->timer.fire = on_retry;
	wvm_shard_arm(s->shard, &e->timer, RETRY_NS);
	return false;
}

static bool is_later(struct wvm_node_shard *s)
{
	struct wvm_node_view *v = s->node->view;
	struct wvm_node_epoch *e = &s->next;
	uint32_t epoch = __atomic_load_n(&v->epoch, __ATOMIC_ACQUIRE);

	if (epoch == e->taken || epoch == e->epoch)
		return epoch != e->taken;
	pthread_mutex_lock(&v->lock);
	e->epoch = v->epoch;
	e->moving = v->moved;
	e->is = v->is;
	e->before = v->before;
	e->lost = v->lost;
	memcpy(e->lost_member[2], v->lost_member, s->node->members.count);
	if (v->lost_member[s->node->self] != WVM_LOST_NOT)
		e->lost.epoch =
			0; /* it takes no part, so that nobody asks it, and it asks nobody */
	pthread_mutex_unlock(&v->lock);
	e->told = false;
	return true;
}

void wvm_node_view_turn(struct wvm_node_shard *s)
{
	struct wvm_node_epoch *e = &s->next;
	struct wvm_handover_left left;
	uint32_t settled;

	if (!s->adopting && is_later(s)) {
		wvm_runs_end(s);
		if (take(s))
			__atomic_store_n(&e->taken, e->epoch, __ATOMIC_RELEASE);
	}
	left = wvm_core_handover(s->core);
	s->moving = left.in || left.out;
	settled = s->moving ? 0 : e->taken;
	if (settled != e->settled)
		__atomic_store_n(&e->settled, settled, __ATOMIC_RELEASE);
}

/* ---- members that begin without their files -------------------------------------------- */

struct renewed {
	uint32_t member;
	uint16_t boot;
};

static void on_renewed(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_node_shard *s = ctx;
	struct renewed r;

	memcpy(&r, data, sizeof(r));
	if (s->adopting)
		return;
	for (unsigned i = 0; i < s->node->vm_count; i++)
		if (!wvm_backing_all_units(&s->node->backing[i]))
			return;
	wvm_runs_end(s);
	wvm_core_renewed(s->core, r.member, r.boot);
	wvm_node_drain(s);
	__atomic_store_n(&s->next.renewed[r.member], r.boot, __ATOMIC_RELEASE);
}

/* Whom no shard could be told, for want of room, is told when it asks again. */
bool wvm_node_view_renewed(struct wvm_node *node, uint32_t member, uint16_t boot)
{
	struct renewed r = {.member = member, .boot = boot};
	struct wvm_shard *self = node->shards[0].shard;
	bool all = true;

	for (unsigned i = 0; node->view->backups && i < node->shard_count; i++) {
		struct wvm_node_shard *s = &node->shards[i];

		if (__atomic_load_n(&s->next.renewed[member], __ATOMIC_ACQUIRE) == boot)
			continue;
		if (i)
			(void)wvm_post(self, s->shard, on_renewed, s, &r, sizeof(r));
		else
			on_renewed(self, s, &r, sizeof(r));
		all = all && __atomic_load_n(&s->next.renewed[member], __ATOMIC_ACQUIRE) == boot;
	}
	return all;
}

/* ---- what is still to be moved --------------------------------------------------------- */

static bool all_taken(const struct wvm_node *node)
{
	for (unsigned i = 0; i < node->shard_count; i++)
		if (__atomic_load_n(&node->shards[i].next.taken, __ATOMIC_ACQUIRE) !=
		    node->view->now.record.epoch)
			return false;
	return true;
}

static bool all_settled(const struct wvm_node *node)
{
	for (unsigned i = 0; i < node->shard_count; i++)
		if (__atomic_load_n(&node->shards[i].next.settled, __ATOMIC_ACQUIRE) !=
		    node->view->now.record.epoch)
			return false;
	return true;
}

/* A node that leaves has no programs, and no pages that would be lost with it. */
static bool may_complete(const struct wvm_node *node)
{
	const struct wvm_node_view *v = node->view;

	if (wvm_node_view_unsettled(node, 0) < node->members.count)
		return false;
	return v->now.state[node->self] != WVM_NODE_DRAINING ||
	       (!wvm_clients_count(node->clients) && wvm_reclaim_empty(node));
}

static void complete(struct wvm_node *node)
{
	struct wvm_epoch_record r;

	if (wvm_view_completing(&node->view->now, &node->members, &r))
		(void)wvm_node_membership_wish(node->membership, &r);
}

static void look(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_node_view *v =
		(struct wvm_node_view *)((char *)timer - offsetof(struct wvm_node_view, timer));
	struct wvm_node *node = v->node;

	if (!all_taken(node))
		give(node);
	if (v->busy == all_settled(node))
		tell_busy(node, !v->busy);
	if (wvm_view_completer(&v->now) == node->self && may_complete(node))
		complete(node);
	if (v->now.moved || !all_taken(node) || v->busy)
		look_soon(node);
}

void wvm_node_view_begin(struct wvm_node *node)
{
	struct wvm_node_view *v = node->view;

	v->node = node;
	v->timer.fire = look;
	if (v->now.record.epoch > WVM_FIRST_EPOCH)
		say(node);
	v->busy = v->now.moved != 0; /* as gossip knows from its beginning */
	act_on_state(node);
	wvm_node_membership_install(node->membership, &v->now.record);
	look(&v->timer, node->shards[0].shard->now_ns);
}

/*
 * Between the parts of a node: datagrams and faults go into the core, its
 * actions become datagrams, userfaultfd ioctls and wake-ups.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "ring/post.h"
#include "roles/master/node.h"
#include "shared/core/assert.h"
#include "shared/wire.h"

#define POLL_NS         UINT64_C(50000)  /* longer than a round trip between spinning peers */
#define WAIT_POLL_NS    UINT64_C(200000) /* and than one to a peer that has to be woken */
#define TICKS_PER_TURN  256u /* due timers handled before sockets get their turn again */
#define NO_ROOM_SAID_NS UINT64_C(10000000000) /* between two lines about it */

void wvm_core_panic(const char *what, const char *file, int line)
{
	wvm_log("stopped: memory could no longer be trusted: %s (%s:%d)", what, file, line);
	abort();
}

/* ---- sending --------------------------------------------------------------------------- */

bool wvm_node_all_zero(const uint8_t *page)
{
	const uint64_t *word = (const void *)page;
	uint64_t any = 0;

	for (unsigned i = 0; i < WVM_PAGE_BYTES / 8 && !any; i += 8)
		any = word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] |
		      word[i + 5] | word[i + 6] | word[i + 7];
	return !any;
}

static bool send_segment(struct wvm_node_shard *s, uint32_t member, const struct wvm_msg *msg,
			 const uint8_t *payload)
{
	enum wvm_lane lane = msg->qos == WVM_QOS_BULK ? WVM_LANE_BULK : WVM_LANE_CONTROL;
	uint8_t *buf = wvm_udp_reserve(s->udp, lane);
	size_t len;

	if (!buf) {
		s->no_buffer++;
		return false;
	}
	len = wvm_wire_encode(buf, s->node->mtu, msg, payload);
	WVM_ASSERT(len > 0);
	wvm_udp_commit(s->udp, lane, &s->node->addresses[member], msg->steer, buf, len);
	return true;
}

static void send_page(struct wvm_node_shard *s, uint32_t member, struct wvm_msg *msg,
		      const uint8_t *page)
{
	uint32_t segment = s->node->segment;

	s->pages_sent++;
	msg->seg_total = WVM_PAGE_BYTES;
	for (uint32_t at = 0; at < WVM_PAGE_BYTES; at += segment) {
		msg->seg_offset = at;
		msg->payload_len = WVM_PAGE_BYTES - at < segment ? WVM_PAGE_BYTES - at : segment;
		if (!send_segment(s, member, msg, page + at))
			return; /* like a loss on the wire: the rest is asked for again */
	}
}

unsigned wvm_holder_shard(const struct wvm_node *node, uint64_t page)
{
	return (unsigned)((page >> (WVM_RANGE_SHIFT - WVM_PAGE_SHIFT)) % node->shard_count);
}

bool wvm_node_is_to_home(const struct wvm_msg *msg)
{
	switch (msg->type) {
	case WVM_MSG_MEM_READ:
	case WVM_MSG_MEM_ACQUIRE:
	case WVM_MSG_INVALIDATE_ACK:
	case WVM_MSG_WRITE_BACK:
	case WVM_MSG_NOT_HELD:
	case WVM_MSG_LOST: return true;
	default: return false;
	}
}

/* Between two homes of a slice. */
static bool is_between_homes(const struct wvm_msg *msg)
{
	return msg->type == WVM_MSG_HANDOVER || msg->type == WVM_MSG_HANDOVER_PAGE ||
	       msg->type == WVM_MSG_HANDOVER_DONE || msg->type == WVM_MSG_BACKUP ||
	       msg->type == WVM_MSG_BACKUP_DONE ||
	       (msg->type == WVM_MSG_HOLDING && !(msg->flags & WVM_MSG_ANSWER));
}

/* Which shard of this node acts on a message: the slice's towards a home, else the range's. */
static unsigned shard_of(const struct wvm_node *node, const struct wvm_msg *msg)
{
	if (msg->type == WVM_MSG_HOLDING_DONE)
		return msg->steer % node->shard_count; /* each shard speaks for itself */
	if (wvm_node_is_to_home(msg) || is_between_homes(msg))
		return wvm_slice_of(msg->vm_id, msg->gpa) % node->shard_count;
	return wvm_holder_shard(node, msg->gpa >> WVM_PAGE_SHIFT);
}

/* ---- room on the tmpfs ----------------------------------------------------------------- */

static bool told_no_room(struct wvm_node_shard *s)
{
	s->no_room++;
	if (!s->no_room_said_ns || s->shard->now_ns - s->no_room_said_ns > NO_ROOM_SAID_NS) {
		s->no_room_said_ns = s->shard->now_ns;
		wvm_log("no room on the tmpfs of %s.*: pages wait at their owners or become "
			"errors (%llu so far); free memory or room there",
			s->node->options->shm_file, (unsigned long long)s->no_room);
	}
	return false;
}

bool wvm_node_holder_entry(struct wvm_node_shard *s, uint32_t vm, uint64_t page)
{
	return wvm_backing_held(&s->node->backing[vm], page) || told_no_room(s);
}

bool wvm_node_holder_room(struct wvm_node_shard *s, uint32_t vm, uint64_t page)
{
	struct wvm_backing *b = &s->node->backing[vm];

	if (wvm_backing_held_unit(b, page) && !wvm_core_needs_held(s->core, vm, page))
		return true;
	return wvm_backing_held(b, page) || told_no_room(s);
}

/*
 * A former home looks at all entries of the unit. The new one puts them in, and from the first on
 * may look at any; of a unit that nobody has touched, or that is granted whole, there are none.
 */
static bool has_room_between(struct wvm_node_shard *s, struct wvm_backing *b, uint64_t page,
			     const struct wvm_msg *msg, const uint8_t *payload)
{
	bool bytes = msg->type == WVM_MSG_HANDOVER_PAGE ||
		     (msg->type == WVM_MSG_BACKUP && msg->payload_len);
	struct wvm_handed entry;

	if (msg->type == WVM_MSG_BACKUP_DONE)
		return true; /* about the slice */
	if (msg->type == WVM_MSG_HANDOVER && msg->flags & WVM_MSG_ANSWER) {
		entry = wvm_core_handed(payload, msg->payload_len);
		if (!entry.unit)
			return wvm_backing_unit(b, page) || told_no_room(s);
		if (!entry.page)
			return (wvm_backing_home(b, page) &&
				wvm_backing_home(b, page - page % WVM_UNIT_PAGES)) ||
			       told_no_room(s);
	}
	if (!wvm_backing_home_unit(b, page))
		return told_no_room(s);
	return !bytes || wvm_backing_store(b, page) || told_no_room(s);
}

/*
 * A page's entry. Where there are second homes, or other members tell what they hold, entries of
 * one unit are looked at one after the other, by the core's own timers: all of them have room, or
 * none has.
 */
static bool has_entry_room(const struct wvm_node *node, struct wvm_backing *b, uint64_t page)
{
	return node->view->backups ? wvm_backing_home_unit(b, page) : wvm_backing_home(b, page);
}

/* Whether there is room for what the core touches with this message. What it drops needs none. */
static bool has_room(struct wvm_node_shard *s, struct wvm_msg *msg, const uint8_t *payload)
{
	struct wvm_backing *b = s->node->backing;
	uint64_t page = msg->gpa / WVM_PAGE_BYTES;
	uint32_t vm;

	while (b < s->node->backing + s->node->vm_count && b->vm.id != msg->vm_id)
		b++;
	if (b == s->node->backing + s->node->vm_count || page >= b->vm.pages)
		return true;
	if (is_between_homes(msg))
		return has_room_between(s, b, page, msg, payload);
	if (msg->type == WVM_MSG_HOLDING_DONE)
		return true;
	if (!wvm_node_is_to_home(msg))
		return wvm_backing_held(b, page) || told_no_room(s);
	vm = (uint32_t)(b - s->node->backing);
	if (!wvm_backing_unit(b, page))
		return told_no_room(s);
	if (!wvm_core_needs_home(s->core, vm, page, msg)) /* whether it has come may matter */
		return !s->moving || has_entry_room(s->node, b, page) || told_no_room(s);
	if (wvm_msg_asks_merge(msg)) {
		/* Refused, and not dropped: its holder keeps all pages until it has an answer. */
		if (!wvm_backing_home_unit(b, page))
			msg->version = 0;
		return true;
	}
	if (!has_entry_room(s->node, b, page) ||
	    (msg->type == WVM_MSG_WRITE_BACK && msg->payload_len && !wvm_backing_store(b, page)))
		return told_no_room(s);
	return true;
}

static void trace_message(struct wvm_node_shard *s, enum wvm_stamp_kind kind,
			  const struct wvm_msg *msg)
{
	wvm_trace(&s->trace, kind, msg->type, msg->vm_id, msg->gpa >> WVM_PAGE_SHIFT, msg->request);
}

/* A message of this node to itself. Where there is no room it is retried like a loss. */
static void take_own(struct wvm_node_shard *s, const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_msg m = *msg;

	trace_message(s, WVM_STAMP_RECEIVE, &m);
	if (!has_room(s, &m, data))
		return;
	wvm_runs_before(s, &m);
	s->own_dropped += wvm_core_message(s->core, s->shard->now_ns, &m, data) != WVM_DROP_NONE;
}

static void on_own_message(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_node_shard *s = ctx;
	const struct wvm_msg *msg = data;

	take_own(s, msg, (const uint8_t *)data + sizeof(*msg));
	wvm_node_drain(s);
}

/* Home and holder on one node talk by the same messages, without a wire. */
static void send_to_self(struct wvm_node_shard *s, const struct wvm_msg *msg, const uint8_t *data)
{
	unsigned to = shard_of(s->node, msg);
	struct wvm_node_shard *target = &s->node->shards[to];

	if (to == s->index)
		take_own(s, msg, data);
	else if (wvm_post_pair(s->shard, target->shard, on_own_message, target, msg, sizeof(*msg),
			       data, msg->payload_len))
		s->post_refused++; /* retried like a loss */
}

static void page_to_self(struct wvm_node_shard *s, struct wvm_msg *msg, const uint8_t *page)
{
	msg->payload_len = page ? WVM_PAGE_BYTES : 0;
	msg->seg_total = msg->payload_len;
	send_to_self(s, msg, page);
}

/* Where a page may be a hole, and the file has nothing, it is zeros. */
static void read_page(struct wvm_node_shard *s, const struct wvm_action *a, uint8_t *buf)
{
	int r = wvm_mem_read(s->node->vms[a->vm], a->page, buf);

	if (r == -ENODATA && a->hole)
		memset(buf, 0, WVM_PAGE_BYTES);
	else if (r)
		wvm_core_panic("a held page is not in the RAM file", __FILE__, __LINE__);
}

static const uint8_t *payload_of(struct wvm_node_shard *s, const struct wvm_action *a)
{
	switch ((enum wvm_data_source)a->source) {
	case WVM_DATA_STORE: {
		const struct wvm_core_vm *vm = wvm_core_vm_at(s->core, a->vm);

		return vm->store + (a->page << WVM_PAGE_SHIFT);
	}
	case WVM_DATA_RAM: read_page(s, a, s->page); return s->page;
	case WVM_DATA_OUTBOX: return s->outbox + (size_t)a->slot * WVM_PAGE_BYTES;
	default: return NULL;
	}
}

void wvm_node_send(struct wvm_node_shard *s, uint32_t member, const struct wvm_msg *m,
		   const uint8_t *page)
{
	struct wvm_msg msg = *m;

	if (page && wvm_node_all_zero(page)) {
		page = NULL;
		msg.flags |= WVM_MSG_ZERO;
		msg.qos = WVM_QOS_CONTROL;
		s->zero_sent++;
	}
	trace_message(s, WVM_STAMP_SEND, &msg);
	if (member == s->node->self)
		page_to_self(s, &msg, page);
	else if (page)
		send_page(s, member, &msg, page);
	else
		send_segment(s, member, &msg, NULL);
}

/* ---- the other actions ----------------------------------------------------------------- */

static void no_room_for(struct wvm_node_shard *s, const struct wvm_action *a, int error)
{
	/* Read ahead, nobody misses it. */
	if ((a->waiters || a->writable) && !s->install_failed++)
		wvm_log("a page cannot be put into the RAM file: %s; its program gets an error "
			"(free memory or room on the tmpfs)",
			strerror(error));
	wvm_mem_fail(s->node->vms[a->vm], a->page, a->waiters, error);
}

void wvm_node_install(struct wvm_node_shard *s, const struct wvm_action *a)
{
	struct wvm_mem *vm = s->node->vms[a->vm];
	bool writable = a->writable && wvm_stale_install(s, a);
	int r = wvm_mem_install(vm, a->page, a->data, writable, a->waiters);

	if (!r)
		return;
	if (r == -EEXIST)
		wvm_core_panic("a page was in the RAM file that nobody held", __FILE__, __LINE__);
	wvm_core_not_installed(s->core, a->vm, a->page);
	no_room_for(s, a, -r);
	wvm_pins_page(s, a->vm, a->page, r);
}

/* The pages stay Modified, with room or without: the error is that of this access. */
static void act_fill(struct wvm_node_shard *s, const struct wvm_action *a)
{
	struct wvm_mem *vm = s->node->vms[a->vm];
	bool alone = wvm_stale_narrows(s, a);
	unsigned below = alone ? 0 : a->below, count = alone ? 1 : a->count;
	int r;

	if (!wvm_stale_grant(s, a))
		return;
	r = wvm_mem_fill(vm, a->page, below, count, a->waiters);
	if (r && below + count > 1)
		r = wvm_mem_fill(vm, a->page, 0, 1, a->waiters);
	if (r)
		no_room_for(s, a, -r);
}

static void act_settle(struct wvm_node_shard *s, const struct wvm_action *a)
{
	int r = wvm_mem_settle(s->node->vms[a->vm], a->page, a->waiters);

	if (r && a->waiters)
		no_room_for(s, a, -r);
}

static void act_fail(struct wvm_node_shard *s, const struct wvm_action *a)
{
	int reason = a->reason == WVM_FAIL_LOST ? EIO : ETIMEDOUT;

	if (a->waiters)
		wvm_mem_fail(s->node->vms[a->vm], a->page, a->waiters, reason);
	wvm_pins_page(s, a->vm, a->page, -EIO);
}

static void act_send(struct wvm_node_shard *s, const struct wvm_action *a)
{
	const uint8_t *page = payload_of(s, a);

	if (a->source == WVM_DATA_BYTES) {
		trace_message(s, WVM_STAMP_SEND, &a->msg);
		if (a->member == s->node->self)
			send_to_self(s, &a->msg, a->data);
		else
			send_segment(s, a->member, &a->msg, a->data);
		return;
	}
	if (!wvm_stale_hold(s, a, page))
		wvm_node_send(s, a->member, &a->msg, page);
}

static void act(struct wvm_node_shard *s, const struct wvm_action *a)
{
	struct wvm_mem *vm = s->node->vms[a->vm];

	if (wvm_runs_take(s, a))
		return;
	switch ((enum wvm_action_kind)a->kind) {
	case WVM_ACT_SEND: act_send(s, a); break;
	case WVM_ACT_INSTALL: wvm_node_install(s, a); break;
	case WVM_ACT_LIFT:
		/* Not lifted now: the thread faults again, and again finds the page Modified. */
		if (wvm_stale_grant(s, a) && wvm_mem_lift(vm, a->page, a->waiters))
			wvm_mem_wake(vm, a->page, a->waiters);
		break;
	case WVM_ACT_WAKE: wvm_mem_wake(vm, a->page, a->waiters); break;
	case WVM_ACT_PROTECT: break; /* always put off: the next action tells for how long */
	case WVM_ACT_SAVE: read_page(s, a, s->outbox + (size_t)a->slot * WVM_PAGE_BYTES); break;
	case WVM_ACT_PUNCH:
		if (wvm_mem_punch(vm, a->page))
			wvm_core_panic("a page cannot be removed from the RAM file", __FILE__,
				       __LINE__);
		wvm_stale_left(s, a->vm, a->page);
		break;
	case WVM_ACT_FAIL: act_fail(s, a); break;
	case WVM_ACT_FILL: act_fill(s, a); break;
	case WVM_ACT_SETTLE: act_settle(s, a); break;
	case WVM_ACT_PINNED: wvm_pins_page(s, a->vm, a->page, 0); break;
	case WVM_ACT_FORGET: wvm_backing_forget(&s->node->backing[a->vm], a->page, a->home); break;
	}
	if (a->waiters)
		wvm_trace(&s->trace, WVM_STAMP_DONE, a->kind, wvm_mem_vm_id(vm), a->page, 0);
}

void wvm_node_drain(struct wvm_node_shard *s)
{
	const struct wvm_action *a;

	while ((a = wvm_core_action(s->core)))
		act(s, a);
	wvm_runs_drained(s);
}

/* ---- receiving ------------------------------------------------------------------------- */

static void drop(struct wvm_node_shard *s, enum wvm_drop reason)
{
	s->drops[reason]++;
}

/* What it has to fetch from former homes it asks for from then on. */
static void serve_shard(struct wvm_node_shard *s)
{
	if (s->serving || !__atomic_load_n(&s->node->serving, __ATOMIC_ACQUIRE))
		return;
	s->serving = true;
	wvm_runs_end(s);
	wvm_core_serve(s->core, true);
	wvm_node_drain(s);
}

static void on_serve(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	serve_shard(ctx);
}

/* The home may answer: no earlier than the next life can know that this one did. */
static void serve(struct wvm_node *node)
{
	__atomic_store_n(&node->state.life->served, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&node->serving, true, __ATOMIC_RELEASE);
	serve_shard(&node->shards[0]);
	/* One with a full inbox is awake. */
	for (unsigned i = 1; i < node->shard_count; i++)
		(void)wvm_post(node->shards[0].shard, node->shards[i].shard, on_serve,
			       &node->shards[i], NULL, 0);
	wvm_node_ready(node);
}

void wvm_node_ready(struct wvm_node *node)
{
	if (node->ready || node->adoption.active || !node->serving)
		return;
	node->ready = true;
	printf("wavevm_node_master: ready, node %u with %u of %u vnodes, ring %s\n",
	       node->options->phys_id, node->members.list[node->self].vnodes,
	       node->topology.vnode_count, node->options->ring_path);
	fflush(stdout);
	sd_notify(0, "READY=1");
	wvm_node_membership_life(node->membership, WVM_NODE_ACTIVE);
}

static void join_changed(struct wvm_node *node)
{
	if (node->join.state == WVM_JOIN_SERVING) {
		serve(node);
	} else if (node->join.state == WVM_JOIN_REFUSED) {
		wvm_log("node %u used memory of an earlier life of this node, which is gone (%llu "
			"grants): %s",
			node->topology.nodes[node->join.refuser].phys_id,
			(unsigned long long)node->join.refuser_grants, wvm_node_refused_do(node));
		node->exit_status = 1;
		kill(getpid(), SIGTERM);
	} else if (node->join.state == WVM_JOIN_DIFFERS) {
		wvm_layout_stranger(node, node->join.refuser, node->join.refuser_identity);
		node->exit_status = 1;
		kill(getpid(), SIGTERM);
	}
}

/* True when it was for this shard; else it is dropped. Of any epoch: join.h says what counts. */
static bool on_report(struct wvm_node_shard *s, uint32_t member, const struct wvm_msg *msg)
{
	struct wvm_node *node = s->node;
	enum wvm_join_state before = node->join.state;
	struct wvm_msg reply;
	uint64_t taken = 0;

	if (s->index != 0) {
		drop(s, WVM_DROP_TYPE);
		return false;
	}
	for (unsigned i = 0; i < node->shard_count; i++)
		taken += wvm_core_taken(node->shards[i].core, member);
	if (!(msg->flags & WVM_MSG_ANSWER) && msg->version != node->join.identity &&
	    node->stranger != member + 1) {
		node->stranger = member + 1; /* it asks five times a second */
		wvm_layout_stranger(node, member, msg->version);
	}
	if (!(msg->flags & WVM_MSG_ANSWER) &&
	    !wvm_node_view_renewed(node, member, wvm_request_boot(msg->request)))
		return true; /* it asks again */
	if (wvm_join_message(&node->join, member, msg, taken, &reply))
		send_segment(s, member, &reply, NULL);
	if (node->join.state != before)
		join_changed(node);
	return true;
}

void wvm_node_join_epoch(struct wvm_node *node, uint32_t epoch, const uint8_t *asked)
{
	enum wvm_join_state before = node->join.state;

	wvm_join_epoch(&node->join, epoch, asked);
	if (node->join.state != before)
		join_changed(node);
}

void wvm_node_join_timer(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_node *node =
		(struct wvm_node *)((char *)timer - offsetof(struct wvm_node, join_timer));
	struct wvm_node_shard *s = &node->shards[0];
	struct wvm_msg msg;
	uint32_t member;

	while ((member = wvm_join_poll(&node->join, now_ns, &msg)) != UINT32_MAX)
		send_segment(s, member, &msg, NULL);
	if (wvm_join_deadline(&node->join) != UINT64_MAX)
		wvm_shard_arm_at(s->shard, timer, wvm_join_deadline(&node->join));
	else if (node->join.state == WVM_JOIN_SERVING && !node->serving)
		serve(node); /* nobody was to be asked */
}

/* A PING comes back to its sender; nothing else happens. False: dropped. */
static bool on_ping(struct wvm_node_shard *s, uint32_t member, const struct wvm_msg *msg)
{
	struct wvm_msg reply = *msg;

	if (msg->flags & WVM_MSG_ANSWER) {
		drop(s, WVM_DROP_STALE);
		return false;
	}
	reply.flags |= WVM_MSG_ANSWER;
	reply.hops = WVM_HOPS_MAX;
	reply.src = s->node->members.list[s->node->self].first_vnode;
	reply.dst = msg->src;
	reply.steer = msg->reply_steer;
	reply.reply_steer = msg->steer;
	reply.payload_len = 0;
	reply.seg_offset = reply.seg_total = 0;
	send_segment(s, member, &reply, NULL);
	return true;
}

/* A gateway had no room for a message of ours to that member. What does not come from one is not
 * it. */
static bool on_push_back(struct wvm_node_shard *s, uint32_t member, const struct wvm_msg *msg)
{
	if (!wvm_node_by_sidecar(s->node, member)) {
		drop(s, WVM_DROP_TYPE);
		return false;
	}
	s->pushed_back++;
	wvm_core_pushed_back(s->core, s->shard->now_ns, member);
	return true;
}

static bool from_member(const struct wvm_node *node, uint32_t member,
			const struct sockaddr_in *from)
{
	const struct sockaddr_in *a = &node->addresses[member];

	return a->sin_addr.s_addr == from->sin_addr.s_addr && a->sin_port == from->sin_port;
}

/* The message of a run goes on as it is, or is dropped. */
static void relay(struct wvm_node_shard *s, const struct sockaddr_in *from, struct wvm_msg *msg,
		  const uint8_t *payload)
{
	enum wvm_drop reason = wvm_vcpus_message(s, from, msg, payload);

	if (reason)
		drop(s, reason);
	else
		s->accepted++;
}

/* Gossip and ballots that come by this host's gateway; others have a port of their own. */
static void take_membership(struct wvm_node_shard *s, const struct sockaddr_in *from,
			    const struct wvm_msg *msg, const uint8_t *payload)
{
	enum wvm_drop reason = wvm_node_membership_relayed(s->node, s->index, from, msg, payload);

	if (reason)
		drop(s, reason);
	else
		s->accepted++;
}

static void on_message(struct wvm_node_shard *s, const struct sockaddr_in *from,
		       struct wvm_msg *msg, const uint8_t *payload)
{
	uint32_t member = wvm_member_of(&s->node->members, msg->src);

	if (wvm_vcpus_takes(msg)) {
		relay(s, from, msg, payload);
		return;
	}
	if (member == WVM_SLICE_NIL || member == s->node->self ||
	    wvm_member_of(&s->node->members, msg->dst) != s->node->self) {
		drop(s, WVM_DROP_NODE);
		return;
	}
	if (!from_member(s->node, member, from)) {
		drop(s, WVM_DROP_SOURCE);
		return;
	}
	if (wvm_membership_takes(msg->type)) {
		take_membership(s, from, msg, payload);
		return;
	}
	trace_message(s, WVM_STAMP_RECEIVE, msg);
	if (msg->type == WVM_MSG_REPORT) {
		s->accepted += on_report(s, member, msg);
	} else if (msg->type == WVM_MSG_PING) {
		s->accepted += on_ping(s, member, msg);
	} else if (msg->type == WVM_MSG_PUSH_BACK) {
		s->accepted += on_push_back(s, member, msg);
	} else if (shard_of(s->node, msg) != s->index) {
		drop(s, WVM_DROP_GPA); /* its steer does not fit its address */
	} else if (!has_room(s, msg, payload)) {
		drop(s, WVM_DROP_ROOM);
	} else {
		s->pages_received += msg->payload_len && !msg->seg_offset;
		wvm_runs_before(s, msg);
		s->accepted += wvm_core_message(s->core, s->shard->now_ns, msg, payload) ==
			       WVM_DROP_NONE;
		wvm_node_drain(s);
	}
}

/* The shard whose message this is. */
static unsigned shard_for(const struct wvm_node *node, const struct wvm_msg *msg)
{
	return wvm_vcpus_takes(msg) ? 0 : msg->steer % node->shard_count;
}

void wvm_node_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	struct wvm_node_shard *s = ctx;

	if (!len) {
		s->received++;
		drop(s, WVM_DROP_SHORT);
	}
	while (len) {
		const uint8_t *payload;
		struct wvm_msg msg;
		size_t consumed;
		enum wvm_drop reason = wvm_wire_decode(data, len, &msg, &payload, &consumed);

		unsigned owner = reason ? s->index : shard_for(s->node, &msg);

		s->received += owner == s->index;
		if (reason)
			drop(s, reason);
		else if (owner == s->index)
			on_message(s, from, &msg, payload);
		else
			wvm_udp_forward(s->udp, owner, from, data, consumed);
		data += consumed;
		len -= consumed;
	}
}

/* ---- time ------------------------------------------------------------------------------ */

static void tick(struct wvm_node_shard *s, uint64_t now_ns)
{
	for (unsigned i = 0; i < TICKS_PER_TURN && wvm_core_deadline(s->core) <= now_ns; i++) {
		wvm_core_tick(s->core, now_ns);
		wvm_node_drain(s);
	}
}

void wvm_node_core_timer(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_node_shard *s =
		(struct wvm_node_shard *)((char *)timer - offsetof(struct wvm_node_shard, timer));

	s->armed_ns = WVM_NEVER;
	wvm_runs_end(s);
	tick(s, now_ns);
}

/*
 * While somebody here waits for a page his core has often nothing else to do, and would have to be
 * woken for the answer, which takes as long as the rest of the way. Whoever has something to do
 * gets the core (wvm_shard_set_poll()).
 */
static void set_poll(struct wvm_node_shard *s)
{
	uint64_t poll_ns = s->node->options->poll ? POLL_NS : 0;

	if (wvm_core_requests(s->core))
		poll_ns = WAIT_POLL_NS;
	wvm_shard_set_poll(s->shard, poll_ns);
}

/*
 * One timer of the shard stands for all of the core's. It follows the deadline
 * exactly: one left standing would come close, and a sleep that ends before the
 * kernel's next tick makes the kernel reprogram its clock, at 14 us a time on
 * virtual machines.
 */
bool wvm_node_turn(struct wvm_hook *hook, uint64_t now_ns)
{
	struct wvm_node_shard *s =
		(struct wvm_node_shard *)((char *)hook - offsetof(struct wvm_node_shard, hook));
	uint64_t due;
	bool more;

	wvm_runs_end(s);
	serve_shard(s);
	more = wvm_pins_turn(s);
	wvm_adopt_turn(s);
	wvm_node_view_turn(s);
	more |= wvm_reclaim_turn(s);
	wvm_runs_end(s);
	wvm_stale_turn(s);
	set_poll(s);
	due = wvm_core_deadline(s->core);
	if (due == s->armed_ns)
		return more;
	s->armed_ns = due;
	if (due == WVM_NEVER)
		wvm_shard_disarm(s->shard, &s->timer);
	else
		wvm_shard_arm_at(s->shard, &s->timer, due);
	return more;
}

/* ---- clients --------------------------------------------------------------------------- */

static void on_fault(void *ctx, unsigned shard, struct wvm_mem *vm, uint64_t page, bool write,
		     unsigned client)
{
	struct wvm_node *node = ctx;
	struct wvm_node_shard *s = &node->shards[shard];
	uint32_t index = wvm_node_vm_index(node, vm);

	wvm_trace(&s->trace, WVM_STAMP_FAULT, write, wvm_mem_vm_id(vm), page, 0);
	wvm_runs_end(s);
	if (s->adopting)
		return; /* wvm_adopt_turn() wakes all who wait, and the fault comes again */
	if (!wvm_node_holder_room(s, index, page)) {
		wvm_mem_fail(vm, page, UINT64_C(1) << client, ENOSPC);
		return;
	}
	if (!wvm_reclaim_fault(s, index, page, client))
		return;
	/* No room for one more request: the thread tries its access again. */
	if (!wvm_core_fault(s->core, s->shard->now_ns, index, page, write, client))
		wvm_mem_wake(vm, page, UINT64_C(1) << client);
	wvm_node_drain(s);
	if (!write)
		wvm_node_read_ahead(s, index, page);
}

static void on_pin(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t first, uint64_t count,
		   uint64_t token)
{
	struct wvm_node *node = ctx;

	wvm_runs_end(&node->shards[0]);
	wvm_pins_begin(&node->shards[0], client, wvm_node_vm_index(node, vm), first, count, token);
}

static void on_unpin(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t first, uint64_t count,
		     uint64_t token)
{
	struct wvm_node *node = ctx;

	if (token && wvm_pins_busy(&node->shards[0])) {
		wvm_clients_reply(node->clients, 0, client, token, -EAGAIN);
		return;
	}
	wvm_runs_end(&node->shards[0]);
	wvm_pins_end(&node->shards[0], wvm_node_vm_index(node, vm), first, count);
	if (token)
		wvm_clients_reply(node->clients, 0, client, token, 0);
}

static void on_client_gone(void *ctx, unsigned shard, unsigned client)
{
	struct wvm_node *node = ctx;

	wvm_core_client_gone(node->shards[shard].core, client);
	wvm_pins_client_gone(&node->shards[shard], client);
	wvm_stale_client_gone(&node->shards[shard], client);
}

static void on_code(void *ctx, unsigned shard, unsigned client, struct wvm_code *code)
{
	struct wvm_node *node = ctx;

	wvm_stale_client(&node->shards[shard], client, code);
}

static void on_code_told(void *ctx, unsigned shard, unsigned client)
{
	struct wvm_node *node = ctx;

	wvm_stale_told(&node->shards[shard], client);
}

static void on_code_mark(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t page,
			 uint64_t token)
{
	struct wvm_node *node = ctx;

	wvm_stale_mark(node, client, wvm_node_vm_index(node, vm), page, token);
}

static void on_stats(void *ctx, unsigned client, struct wvm_stats *out)
{
	struct wvm_node *node = ctx;

	for (unsigned i = 0; i < node->shard_count; i++) {
		const struct wvm_core_stats *c = wvm_core_stats(node->shards[i].core);

		out->pages_shared += c->pages_shared;
		out->pages_modified += c->pages_modified;
		out->pages_homed += c->pages_homed;
		out->faults_local += c->faults_local;
		out->bytes_received += node->shards[i].pages_received * WVM_PAGE_BYTES;
		out->bytes_sent += node->shards[i].pages_sent * WVM_PAGE_BYTES;
	}
}

static int on_where(void *ctx, struct wvm_mem *vm, uint64_t gpa)
{
	struct wvm_node *node = ctx;
	uint32_t index = wvm_node_vm_index(node, vm), member;

	if (gpa >= wvm_mem_size(vm))
		return -ERANGE;
	member = wvm_core_home_of(node->shards[0].core, index, gpa >> WVM_PAGE_SHIFT, NULL);
	return (int)node->topology.nodes[member].phys_id;
}

static int on_node(void *ctx, uint32_t node_id, struct wvm_ring_node *out)
{
	struct wvm_node *node = ctx;
	const struct wvm_conf_node *n = wvm_topology_by_phys(&node->topology, node_id);

	if (!n)
		return -ENXIO;
	*out = (struct wvm_ring_node){.nodes = node->topology.count,
				      .next = wvm_topology_after(&node->topology, n)->phys_id,
				      .cores = n->cores};
	return (int)n->first_vnode;
}

static bool on_admits(void *ctx)
{
	return wvm_node_view_admits(ctx);
}

static void on_log(void *ctx, const char *line)
{
	wvm_log("%s", line);
}

const struct wvm_clients_ops wvm_node_clients_ops = {
	.fault = on_fault,
	.pin = on_pin,
	.unpin = on_unpin,
	.client_gone = on_client_gone,
	.code = on_code,
	.code_told = on_code_told,
	.code_mark = on_code_mark,
	.stats = on_stats,
	.admits = on_admits,
	.where = on_where,
	.node = on_node,
	.vcpu_record = wvm_vcpus_record,
	.vcpu_room = wvm_vcpus_room,
	.log = on_log,
};

#include "roles/master/vcpus.h"

#include <string.h>

#include "roles/master/node.h"
#include "shared/wire.h"

/* From an owner to a slave, or back. */
enum way { NEITHER, TO_SLAVE, TO_OWNER };

static enum way way_of(const struct wvm_msg *msg)
{
	switch (msg->type) {
	case WVM_MSG_VCPU_RUN:
	case WVM_MSG_VCPU_KICK:
	case WVM_MSG_VCPU_DONE: return TO_SLAVE;
	case WVM_MSG_VCPU_EXIT:
	case WVM_MSG_VCPU_TAKEN: return TO_OWNER;
	case WVM_MSG_VCPU_HELLO: return msg->flags & WVM_MSG_ANSWER ? TO_OWNER : TO_SLAVE;
	default: return NEITHER;
	}
}

bool wvm_vcpus_takes(const struct wvm_msg *msg)
{
	return way_of(msg) != NEITHER;
}

void wvm_vcpus_init(struct wvm_node *node)
{
	node->vcpus.slave = (struct sockaddr_in){.sin_family = AF_INET,
						 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
						 .sin_port = htons(node->options->slave_port)};
}

static enum wvm_lane lane_of(const struct wvm_msg *msg)
{
	return msg->qos == WVM_QOS_BULK ? WVM_LANE_BULK : WVM_LANE_CONTROL;
}

/* ---- sending --------------------------------------------------------------------------- */

/* What begins at this node, whoever wrote it, says so; the ends do not know the rest. */
static void stamp(const struct wvm_node *node, struct wvm_msg *msg)
{
	msg->src = node->members.list[node->self].first_vnode;
	msg->epoch = WVM_STATIC_EPOCH;
	msg->node_state = WVM_NODE_ACTIVE;
	msg->hops = WVM_HOPS_MAX;
	msg->steer = msg->reply_steer = 0;
}

static enum wvm_drop send_to(struct wvm_node_shard *s, const struct sockaddr_in *peer,
			     const struct wvm_msg *msg, const uint8_t *payload)
{
	enum wvm_lane lane = lane_of(msg);
	enum wvm_drop reason = wvm_wire_check(msg);
	uint8_t *buf;

	if (reason)
		return reason;
	if (WVM_HEADER_BYTES + msg->payload_len > s->node->mtu)
		return WVM_DROP_LONG;
	buf = wvm_udp_reserve(s->udp, lane);
	if (!buf)
		return WVM_DROP_ROOM;
	wvm_udp_commit(s->udp, lane, peer, msg->steer, buf,
		       wvm_wire_encode(buf, s->node->mtu, msg, payload));
	return WVM_DROP_NONE;
}

static enum wvm_drop to_owner(struct wvm_node *node, const struct wvm_msg *msg,
			      const uint8_t *payload)
{
	enum wvm_drop reason = wvm_clients_vcpu_push(node->clients, msg, payload);

	node->vcpus.to_owner += !reason;
	return reason;
}

static enum wvm_drop to_own_slave(struct wvm_node_shard *s, const struct wvm_msg *msg,
				  const uint8_t *payload)
{
	enum wvm_drop reason = send_to(s, &s->node->vcpus.slave, msg, payload);

	s->node->vcpus.to_slave += !reason;
	return reason;
}

/* ---- from the wire ---------------------------------------------------------------------- */

/* As it is, but for the hops, which the checksum does not cover. */
static enum wvm_drop pass_to_slave(struct wvm_node_shard *s, const struct wvm_msg *msg,
				   const uint8_t *payload)
{
	size_t len = WVM_HEADER_BYTES + (size_t)msg->payload_len;
	enum wvm_lane lane = lane_of(msg);
	uint8_t *buf;

	if (!msg->hops)
		return WVM_DROP_HOPS;
	if (len > s->node->mtu)
		return WVM_DROP_LONG;
	buf = wvm_udp_reserve(s->udp, lane);
	if (!buf)
		return WVM_DROP_ROOM;
	memcpy(buf, payload - WVM_HEADER_BYTES, len);
	buf[WVM_WIRE_HOPS_OFFSET]--;
	wvm_udp_commit(s->udp, lane, &s->node->vcpus.slave, 0, buf, len);
	s->node->vcpus.to_slave++;
	return WVM_DROP_NONE;
}

static bool at_slave(const struct wvm_node *node, const struct sockaddr_in *from)
{
	return from->sin_port == node->vcpus.slave.sin_port &&
	       (from->sin_addr.s_addr == node->vcpus.slave.sin_addr.s_addr ||
		from->sin_addr.s_addr == node->addresses[node->self].sin_addr.s_addr);
}

static enum wvm_drop from_slave(struct wvm_node_shard *s, struct wvm_msg *msg,
				const uint8_t *payload)
{
	struct wvm_node *node = s->node;
	uint32_t member = wvm_member_of(&node->members, msg->dst);
	enum wvm_drop reason;

	if (way_of(msg) != TO_OWNER)
		return WVM_DROP_TYPE;
	if (member == WVM_SLICE_NIL)
		return WVM_DROP_NODE;
	stamp(node, msg);
	reason = member == node->self ? to_owner(node, msg, payload)
				      : send_to(s, &node->addresses[member], msg, payload);
	node->vcpus.from_slave += !reason;
	return reason;
}

static enum wvm_drop from_member(struct wvm_node_shard *s, uint32_t member,
				 const struct sockaddr_in *from, const struct wvm_msg *msg,
				 const uint8_t *payload)
{
	const struct sockaddr_in *address = &s->node->addresses[member];

	if (address->sin_addr.s_addr != from->sin_addr.s_addr ||
	    address->sin_port != from->sin_port)
		return WVM_DROP_SOURCE;
	if (wvm_member_of(&s->node->members, msg->dst) != s->node->self)
		return WVM_DROP_NODE;
	if (msg->epoch != WVM_STATIC_EPOCH)
		return WVM_DROP_EPOCH;
	return way_of(msg) == TO_SLAVE ? pass_to_slave(s, msg, payload)
				       : to_owner(s->node, msg, payload);
}

enum wvm_drop wvm_vcpus_message(struct wvm_node_shard *s, const struct sockaddr_in *from,
				struct wvm_msg *msg, const uint8_t *payload)
{
	uint32_t member = wvm_member_of(&s->node->members, msg->src);
	enum wvm_drop reason = WVM_DROP_NODE;

	/* Two nodes of one host may have a slave's and a master's port alike: src tells. */
	if (member == s->node->self)
		reason = at_slave(s->node, from) ? from_slave(s, msg, payload) : WVM_DROP_SOURCE;
	else if (member != WVM_SLICE_NIL)
		reason = from_member(s, member, from, msg, payload);
	s->node->vcpus.drops[reason] += reason != WVM_DROP_NONE;
	return reason;
}

/* ---- from an owner ----------------------------------------------------------------------- */

bool wvm_vcpus_room(void *ctx)
{
	struct wvm_node *node = ctx;

	return wvm_udp_free(node->shards[0].udp, WVM_LANE_BULK) > 0;
}

static enum wvm_drop from_owner(struct wvm_node *node, uint16_t vm_id, unsigned vcpu,
				const uint8_t *data, size_t len)
{
	struct wvm_node_shard *s = &node->shards[0];
	struct wvm_msg msg;
	uint32_t member;

	if (len < sizeof(msg))
		return WVM_DROP_SHORT;
	memcpy(&msg, data, sizeof(msg));
	if (msg.payload_len != len - sizeof(msg))
		return WVM_DROP_LENGTH;
	if (way_of(&msg) != TO_SLAVE)
		return WVM_DROP_TYPE;
	if (msg.vm_id != vm_id)
		return WVM_DROP_VM;
	if ((msg.gpa & UINT16_MAX) != vcpu)
		return WVM_DROP_GPA;
	member = wvm_member_of(&node->members, msg.dst);
	if (member == WVM_SLICE_NIL)
		return WVM_DROP_NODE;
	stamp(node, &msg);
	if (member == node->self)
		return to_own_slave(s, &msg, data + sizeof(msg));
	return send_to(s, &node->addresses[member], &msg, data + sizeof(msg));
}

void wvm_vcpus_record(void *ctx, uint16_t vm_id, unsigned vcpu, const uint8_t *data, size_t len)
{
	struct wvm_node *node = ctx;
	enum wvm_drop reason = from_owner(node, vm_id, vcpu, data, len);

	node->vcpus.from_owner += !reason;
	node->vcpus.drops[reason] += reason != WVM_DROP_NONE;
}

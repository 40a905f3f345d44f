#include "shared/core/join.h"

#include "shared/core/assert.h"

/* Who has not answered is asked or not. */
static void ask(struct wvm_join *j, const uint8_t *asked)
{
	j->missing = 0;
	for (uint32_t i = 0; i < j->members->count; i++) {
		bool waited_for = !asked || asked[i];

		if (j->answered[i] == WVM_JOIN_ANSWERED)
			continue;
		j->answered[i] = waited_for ? WVM_JOIN_WAITED_FOR : WVM_JOIN_NOT_ASKED;
		j->missing += waited_for;
	}
	j->state = j->missing ? WVM_JOIN_ASKING : WVM_JOIN_SERVING;
}

void wvm_join_init(struct wvm_join *j, const struct wvm_members *members, uint8_t *answered,
		   uint32_t self, uint32_t epoch, uint16_t boot, uint64_t identity,
		   const uint8_t *asked)
{
	WVM_ASSERT(self < members->count);
	*j = (struct wvm_join){
		.members = members,
		.answered = answered,
		.self = self,
		.epoch = epoch,
		.boot = boot,
		.identity = identity,
	};
	__builtin_memset(answered, WVM_JOIN_NOT_ASKED, members->count);
	answered[self] = WVM_JOIN_ANSWERED;
	ask(j, asked);
}

void wvm_join_epoch(struct wvm_join *j, uint32_t epoch, const uint8_t *asked)
{
	WVM_ASSERT(epoch >= j->epoch);
	j->epoch = epoch;
	if (j->state == WVM_JOIN_ASKING)
		ask(j, asked);
}

void wvm_join_resume(struct wvm_join *j)
{
	j->state = WVM_JOIN_SERVING;
	j->missing = 0;
}

static void address(const struct wvm_join *j, uint32_t member, struct wvm_msg *msg)
{
	*msg = (struct wvm_msg){
		.type = WVM_MSG_REPORT,
		.node_state = j->state == WVM_JOIN_SERVING ? WVM_NODE_ACTIVE : WVM_NODE_WARMING,
		.hops = WVM_HOPS_MAX,
		.epoch = j->epoch,
		.src = j->members->list[j->self].first_vnode,
		.dst = j->members->list[member].first_vnode,
		.version = j->identity,
	};
}

/* The only request of this kind: its id needs the boot and nothing else. */
static uint64_t report_id(const struct wvm_join *j)
{
	return wvm_request_id(j->boot, 0, 0);
}

uint32_t wvm_join_poll(struct wvm_join *j, uint64_t now_ns, struct wvm_msg *msg)
{
	if (j->state != WVM_JOIN_ASKING || now_ns < j->next_ns)
		return UINT32_MAX;
	while (j->cursor < j->members->count) {
		uint32_t member = j->cursor++;

		if (j->answered[member] != WVM_JOIN_WAITED_FOR)
			continue;
		address(j, member, msg);
		msg->request = report_id(j);
		return member;
	}
	j->cursor = 0;
	j->next_ns = now_ns + WVM_JOIN_RETRY_NS;
	return UINT32_MAX;
}

uint64_t wvm_join_deadline(const struct wvm_join *j)
{
	return j->state == WVM_JOIN_ASKING ? j->next_ns : UINT64_MAX;
}

bool wvm_join_message(struct wvm_join *j, uint32_t member, const struct wvm_msg *msg,
		      uint64_t taken, struct wvm_msg *reply)
{
	WVM_ASSERT(member < j->members->count);
	if (!(msg->flags & WVM_MSG_ANSWER)) {
		/* Known to be the odd one out, and about to end: it must not end others. */
		if (j->state == WVM_JOIN_DIFFERS)
			return false;
		address(j, member, reply);
		reply->flags = WVM_MSG_ANSWER;
		reply->request = msg->request;
		reply->gpa = taken;
		return true;
	}
	if (j->state != WVM_JOIN_ASKING || msg->request != report_id(j) ||
	    j->answered[member] != WVM_JOIN_WAITED_FOR)
		return false;
	if (msg->version != j->identity) {
		j->state = WVM_JOIN_DIFFERS;
		j->refuser = member;
		j->refuser_identity = msg->version;
		return false;
	}
	if (msg->epoch > j->epoch)
		return false;
	if (msg->gpa) {
		j->state = WVM_JOIN_REFUSED;
		j->refuser = member;
		j->refuser_grants = msg->gpa;
		return false;
	}
	j->answered[member] = WVM_JOIN_ANSWERED;
	if (!--j->missing)
		j->state = WVM_JOIN_SERVING;
	return false;
}

/* Runs of remote processors, the slave's side. */
#include "shared/core/run_parts.h"

void wvm_run_slave_init(struct wvm_run_slave *s, uint16_t vm_id, uint16_t vcpu, uint32_t self,
			uint64_t life, uint32_t segment, void *buf)
{
	*s = (struct wvm_run_slave){
		.vm_id = vm_id,
		.vcpu = vcpu,
		.self = self,
		.life = life,
		.segment = segment,
		.in.buf = buf,
		.taken_at = WVM_RUN_NEVER,
		.retry_at = WVM_RUN_NEVER,
	};
}

/* What was said of the last run is not needed any more. */
static void let_go(struct wvm_run_slave *s)
{
	s->state = WVM_RUN_FREE;
	s->send_taken = s->send_refusal = s->abandoned = false;
	s->taken_at = s->retry_at = WVM_RUN_NEVER;
	s->out = (struct wvm_run_out){0};
}

static void refuse_other(struct wvm_run_slave *s, const struct wvm_msg *m,
			 enum wvm_run_reason reason)
{
	s->other.wanted = true;
	s->other.node = m->src;
	s->other.life = m->version;
	s->other.seq = m->request;
	s->other.reason = (uint8_t)reason;
}

/*
 * Whose message this is. A later life of the owner takes the place of the one that we know, for
 * its processors have begun anew; what still runs for the former must have ended before.
 */
static bool from_owner(struct wvm_run_slave *s, const struct wvm_msg *m, enum wvm_run_event *event)
{
	if (m->version == s->owner_life)
		return m->src == s->owner;
	if (m->type != WVM_MSG_VCPU_RUN || m->version < s->owner_life || m->version < s->busy_life)
		return false;
	if (s->state == WVM_RUN_RUNNING) {
		refuse_other(s, m, WVM_RUN_BUSY);
		if (m->version > s->busy_life || m->request > s->busy_seq)
			s->busy_seq = m->request;
		s->busy_life = m->version;
		s->abandoned = true;
		*event = WVM_RUN_ABORT;
		return false;
	}
	let_go(s);
	s->owner = m->src;
	s->owner_life = m->version;
	s->seq = s->kick_seq = 0;
	/* What was refused stays so, also when a late copy of it comes now. */
	if (s->busy_life == m->version) {
		s->seq = s->busy_seq;
		s->state = WVM_RUN_HAS_REFUSED;
		s->reason = WVM_RUN_BUSY;
	}
	return true;
}

/* Somebody asks for the run that we have. */
static void say_again(struct wvm_run_slave *s)
{
	if (s->state == WVM_RUN_RUNNING) {
		s->send_taken = true;
	} else if (s->state == WVM_RUN_HAS_REFUSED) {
		s->send_refusal = true;
	} else if (s->state == WVM_RUN_HAS_ANSWER && s->out.at == s->out.end) {
		s->out.at = 0;
		s->out.end = s->out.len;
	}
}

static enum wvm_run_event take(struct wvm_run_slave *s, const struct wvm_msg *m,
			       const uint8_t *payload, uint64_t now_ns)
{
	if (m->request > s->seq) {
		if (s->state == WVM_RUN_RUNNING)
			return WVM_RUN_NOTHING;
		let_go(s);
		s->seq = m->request;
		s->state = WVM_RUN_TAKING;
		wvm_run_parts_reset(&s->in);
	}
	if (s->state != WVM_RUN_TAKING) {
		say_again(s);
		return WVM_RUN_NOTHING;
	}
	if (!wvm_run_parts_add(&s->in, m, payload))
		return WVM_RUN_NOTHING;
	s->state = WVM_RUN_RUNNING;
	s->taken_at = now_ns + WVM_RUN_TAKEN_NS;
	return WVM_RUN_START;
}

static enum wvm_run_event kick(struct wvm_run_slave *s, const struct wvm_msg *m)
{
	if (m->request > s->kick_seq)
		s->kick_seq = m->request;
	if (m->request != s->seq)
		return WVM_RUN_NOTHING;
	if (s->state == WVM_RUN_RUNNING)
		return WVM_RUN_KICK;
	say_again(s);
	return WVM_RUN_NOTHING;
}

enum wvm_run_event wvm_run_slave_message(struct wvm_run_slave *s, const struct wvm_msg *m,
					 const uint8_t *payload, uint64_t now_ns)
{
	enum wvm_run_event event = WVM_RUN_NOTHING;

	if (m->vm_id != s->vm_id || wvm_run_vcpu(m) != s->vcpu || m->dst != s->self)
		return WVM_RUN_NOTHING;
	if (m->grant != s->life) {
		if (m->type == WVM_MSG_VCPU_RUN)
			refuse_other(s, m, WVM_RUN_OTHER_LIFE);
		return WVM_RUN_NOTHING;
	}
	if (!from_owner(s, m, &event) || m->request < s->seq)
		return event;
	switch (m->type) {
	case WVM_MSG_VCPU_RUN: return take(s, m, payload, now_ns);
	case WVM_MSG_VCPU_KICK: return kick(s, m);
	case WVM_MSG_VCPU_DONE:
		if (m->request == s->seq && s->state == WVM_RUN_HAS_ANSWER)
			let_go(s);
		return WVM_RUN_NOTHING;
	default: return WVM_RUN_NOTHING;
	}
}

void wvm_run_slave_answer(struct wvm_run_slave *s, const void *data, uint32_t len, uint64_t now_ns)
{
	bool abandoned = s->abandoned;

	let_go(s);
	if (abandoned)
		return;
	s->state = WVM_RUN_HAS_ANSWER;
	s->retry_ns = WVM_RUN_RETRY_NS;
	s->retry_at = now_ns + s->retry_ns;
	s->retry_until = now_ns + WVM_RUN_DEADLINE_NS;
	wvm_run_out_start(&s->out, data, len);
}

void wvm_run_slave_refuse(struct wvm_run_slave *s, enum wvm_run_reason reason)
{
	bool abandoned = s->abandoned;

	let_go(s);
	if (abandoned)
		return;
	s->state = WVM_RUN_HAS_REFUSED;
	s->reason = (uint8_t)reason;
	s->send_refusal = true;
}

enum wvm_run_event wvm_run_slave_tick(struct wvm_run_slave *s, uint64_t now_ns)
{
	if (now_ns >= s->taken_at) {
		s->taken_at = WVM_RUN_NEVER;
		s->send_taken = true;
	}
	if (now_ns < s->retry_at)
		return WVM_RUN_NOTHING;
	/* An owner that lives asks by then itself. */
	if (now_ns >= s->retry_until) {
		s->retry_at = WVM_RUN_NEVER;
		return WVM_RUN_NOTHING;
	}
	say_again(s);
	s->retry_ns = wvm_run_longer(s->retry_ns);
	s->retry_at = now_ns + s->retry_ns;
	return WVM_RUN_NOTHING;
}

uint64_t wvm_run_slave_deadline(const struct wvm_run_slave *s)
{
	return wvm_run_earlier(s->taken_at, s->retry_at);
}

static struct wvm_msg message(const struct wvm_run_slave *s, enum wvm_msg_type type,
			      unsigned reason)
{
	return (struct wvm_msg){
		.type = (uint8_t)type,
		.flags = reason ? WVM_MSG_ERROR : 0,
		.qos = WVM_QOS_CONTROL,
		.hops = WVM_HOPS_MAX,
		.vm_id = s->vm_id,
		.src = s->self,
		.dst = s->owner,
		.request = s->seq,
		.gpa = wvm_run_operand(s->vcpu, reason),
		.version = s->owner_life,
		.grant = s->life,
	};
}

bool wvm_run_slave_next(struct wvm_run_slave *s, struct wvm_msg *m, const uint8_t **payload)
{
	*payload = NULL;
	if (s->other.wanted) {
		s->other.wanted = false;
		*m = message(s, WVM_MSG_VCPU_EXIT, s->other.reason);
		m->dst = s->other.node;
		m->request = s->other.seq;
		m->version = s->other.life;
		return true;
	}
	if (s->send_refusal) {
		s->send_refusal = false;
		*m = message(s, WVM_MSG_VCPU_EXIT, s->reason);
		return true;
	}
	if (s->send_taken) {
		s->send_taken = false;
		*m = message(s, WVM_MSG_VCPU_TAKEN, WVM_RUN_NO_REASON);
		return true;
	}
	*m = message(s, WVM_MSG_VCPU_EXIT, WVM_RUN_NO_REASON);
	return wvm_run_out_next(&s->out, s->segment, m, payload);
}

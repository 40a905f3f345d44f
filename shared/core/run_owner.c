/* Runs of remote processors, the owner's side. */
#include "shared/core/run_parts.h"

void wvm_run_owner_init(struct wvm_run_owner *o, uint16_t vm_id, uint16_t vcpu, uint32_t self,
			uint64_t life, uint32_t segment, void *buf)
{
	*o = (struct wvm_run_owner){
		.vm_id = vm_id,
		.vcpu = vcpu,
		.self = self,
		.life = life,
		.segment = segment,
		.in.buf = buf,
		.done.at = WVM_RUN_NEVER,
	};
}

/* The slave at that node is to know that the answer to seq is here. */
static void say_done(struct wvm_run_owner *o, uint32_t node, uint64_t life, uint64_t seq)
{
	o->done.node = node;
	o->done.life = life;
	o->done.seq = seq;
	o->done.at = WVM_RUN_NEVER;
	o->done.now = true;
}

void wvm_run_begin(struct wvm_run_owner *o, uint32_t node, uint64_t slave_life, const void *data,
		   uint32_t len, uint64_t now_ns)
{
	/* The next run tells the same slave that its answer has come. */
	if (o->done.at != WVM_RUN_NEVER) {
		if (o->done.node != node || o->done.life != slave_life)
			o->done.now = true;
		o->done.at = WVM_RUN_NEVER;
	}
	o->seq++;
	o->state = WVM_RUN_SENT;
	o->node = node;
	o->slave_life = slave_life;
	o->kicked = o->send_kick = false;
	o->heard_ns = now_ns;
	o->retry_ns = WVM_RUN_RETRY_NS;
	o->retry_at = now_ns + o->retry_ns;
	o->reason = WVM_RUN_NO_REASON;
	wvm_run_parts_reset(&o->in);
	wvm_run_out_start(&o->out, data, len);
}

void wvm_run_owner_kick(struct wvm_run_owner *o, uint64_t now_ns)
{
	if (o->state == WVM_RUN_IDLE || o->kicked)
		return;
	o->kicked = o->send_kick = true;
	o->retry_ns = WVM_RUN_RETRY_NS;
	o->retry_at = now_ns + o->retry_ns;
}

static enum wvm_run_event end(struct wvm_run_owner *o, enum wvm_run_event event)
{
	o->state = WVM_RUN_IDLE;
	o->out.at = o->out.end;
	o->send_kick = false;
	return event;
}

/* The slave has the run: what follows is to ask now and then whether it lives. */
static void heard(struct wvm_run_owner *o, uint64_t now_ns)
{
	o->heard_ns = now_ns;
	if (o->state == WVM_RUN_TAKEN)
		return;
	o->state = WVM_RUN_TAKEN;
	o->out.at = o->out.end;
	if (!o->kicked) {
		o->retry_ns = WVM_RUN_PROBE_NS;
		o->retry_at = now_ns + o->retry_ns;
	}
}

static enum wvm_run_event refused(struct wvm_run_owner *o, const struct wvm_msg *m)
{
	unsigned reason = wvm_run_reason(m);

	/* Either it is another life that speaks, or this one refuses: nothing else makes sense. */
	if ((reason == WVM_RUN_OTHER_LIFE) == (m->grant == o->slave_life))
		return WVM_RUN_NOTHING;
	o->reason = (uint8_t)reason;
	return end(o, reason == WVM_RUN_OTHER_LIFE ? WVM_RUN_LOST : WVM_RUN_REFUSED);
}

static enum wvm_run_event present_run(struct wvm_run_owner *o, const struct wvm_msg *m,
				      const uint8_t *payload, uint64_t now_ns)
{
	if (m->type == WVM_MSG_VCPU_EXIT && m->flags & WVM_MSG_ERROR)
		return refused(o, m);
	if (m->grant != o->slave_life)
		return WVM_RUN_NOTHING;
	heard(o, now_ns);
	if (m->type != WVM_MSG_VCPU_EXIT || !wvm_run_parts_add(&o->in, m, payload))
		return WVM_RUN_NOTHING;
	o->answer_len = o->in.len;
	o->done.node = o->node;
	o->done.life = o->slave_life;
	o->done.seq = o->seq;
	o->done.now = false;
	o->done.at = now_ns + WVM_RUN_DONE_NS;
	return end(o, WVM_RUN_ANSWERED);
}

enum wvm_run_event wvm_run_owner_message(struct wvm_run_owner *o, const struct wvm_msg *m,
					 const uint8_t *payload, uint64_t now_ns)
{
	if ((m->type != WVM_MSG_VCPU_EXIT && m->type != WVM_MSG_VCPU_TAKEN) ||
	    m->vm_id != o->vm_id || wvm_run_vcpu(m) != o->vcpu || m->version != o->life ||
	    m->dst != o->self)
		return WVM_RUN_NOTHING;
	if (o->state != WVM_RUN_IDLE && m->request == o->seq && m->src == o->node)
		return present_run(o, m, payload, now_ns);
	/* An answer that has come before: its slave has not heard so. */
	if (m->type == WVM_MSG_VCPU_EXIT && !(m->flags & WVM_MSG_ERROR) && m->request <= o->seq)
		say_done(o, m->src, m->grant, m->request);
	return WVM_RUN_NOTHING;
}

/* The whole run as long as the slave may not have it; else one segment, which asks for a sign. */
static void retry(struct wvm_run_owner *o, uint64_t now_ns)
{
	if (o->out.at == o->out.end) {
		o->out.at = 0;
		o->out.end = o->state == WVM_RUN_SENT || o->out.len < o->segment ? o->out.len
										 : o->segment;
	}
	o->send_kick = o->kicked;
	o->retries++;
	o->retry_ns = wvm_run_longer(o->retry_ns);
	if (o->state == WVM_RUN_TAKEN)
		o->retry_ns = wvm_run_earlier(o->retry_ns, WVM_RUN_PROBE_NS);
	o->retry_at = now_ns + o->retry_ns;
}

enum wvm_run_event wvm_run_owner_tick(struct wvm_run_owner *o, uint64_t now_ns)
{
	if (now_ns >= o->done.at) {
		o->done.at = WVM_RUN_NEVER;
		o->done.now = true;
	}
	if (o->state == WVM_RUN_IDLE)
		return WVM_RUN_NOTHING;
	if (now_ns - o->heard_ns >= WVM_RUN_DEADLINE_NS)
		return end(o, WVM_RUN_SILENT);
	if (now_ns >= o->retry_at)
		retry(o, now_ns);
	return WVM_RUN_NOTHING;
}

uint64_t wvm_run_owner_deadline(const struct wvm_run_owner *o)
{
	uint64_t at = o->done.at;

	if (o->state == WVM_RUN_IDLE)
		return at;
	at = wvm_run_earlier(at, o->heard_ns + WVM_RUN_DEADLINE_NS);
	return wvm_run_earlier(at, o->retry_at);
}

static struct wvm_msg message(const struct wvm_run_owner *o, enum wvm_msg_type type)
{
	return (struct wvm_msg){
		.type = (uint8_t)type,
		.qos = WVM_QOS_CONTROL,
		.hops = WVM_HOPS_MAX,
		.vm_id = o->vm_id,
		.src = o->self,
		.dst = o->node,
		.request = o->seq,
		.gpa = wvm_run_operand(o->vcpu, WVM_RUN_NO_REASON),
		.version = o->life,
		.grant = o->slave_life,
	};
}

bool wvm_run_owner_next(struct wvm_run_owner *o, struct wvm_msg *m, const uint8_t **payload)
{
	*payload = NULL;
	if (o->done.now) {
		o->done.now = false;
		*m = message(o, WVM_MSG_VCPU_DONE);
		m->dst = o->done.node;
		m->grant = o->done.life;
		m->request = o->done.seq;
		return true;
	}
	*m = message(o, WVM_MSG_VCPU_RUN);
	if (wvm_run_out_next(&o->out, o->segment, m, payload))
		return true;
	/* Behind the run: one that comes before it would find nothing to kick. */
	if (!o->send_kick)
		return false;
	o->send_kick = false;
	*m = message(o, WVM_MSG_VCPU_KICK);
	return true;
}

/* What comes from the master, what goes back, and what engines make of runs in between. */
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "ring/post.h"
#include "roles/slave/slave.h"
#include "shared/wire.h"

static __thread bool is_shard;

void wvm_slave_runs_begin(void)
{
	is_shard = true;
}

/* ---- sending --------------------------------------------------------------------------- */

static void send_message(struct wvm_slave *s, const struct wvm_msg *m, const uint8_t *payload)
{
	enum wvm_lane lane = m->qos == WVM_QOS_BULK ? WVM_LANE_BULK : WVM_LANE_CONTROL;
	uint8_t *buf = wvm_udp_reserve(s->udp, lane);
	size_t room = WVM_HEADER_BYTES + s->segment, len;

	if (!buf) {
		s->counters.drops[WVM_DROP_ROOM]++; /* as one that was lost */
		return;
	}
	len = wvm_wire_encode(buf, room, m, payload);
	if (len)
		wvm_udp_commit(s->udp, lane, &s->master, 0, buf, len);
	else
		wvm_udp_cancel(s->udp, lane, buf);
}

/* What finds no buffer now is sent when there is one again: wvm_slave_room(). */
static void flush(struct wvm_slave_cpu *c)
{
	struct wvm_slave *s = c->slave;
	const uint8_t *payload;
	struct wvm_msg m;

	for (;;) {
		if (!wvm_udp_free(s->udp, WVM_LANE_BULK)) {
			(void)wvm_udp_reserve(s->udp, WVM_LANE_BULK); /* asks to be told of room */
			return;
		}
		if (!wvm_run_slave_next(&c->run, &m, &payload))
			return;
		send_message(s, &m, payload);
	}
}

static void arm(struct wvm_slave_cpu *c)
{
	uint64_t at = wvm_run_slave_deadline(&c->run);

	if (c->executing && c->heard_ns + WVM_SLAVE_SILENT_NS < at)
		at = c->heard_ns + WVM_SLAVE_SILENT_NS;
	if (at == WVM_NEVER)
		wvm_shard_disarm(c->slave->shard, &c->timer);
	else
		wvm_shard_arm_at(c->slave->shard, &c->timer, at);
}

void wvm_slave_room(void *ctx)
{
	struct wvm_slave *s = ctx;

	for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++)
		if (s->cpus[i].vm)
			flush(&s->cpus[i]);
}

/* ---- engines --------------------------------------------------------------------------- */

static void finish(struct wvm_slave_cpu *c)
{
	struct wvm_slave *s = c->slave;
	struct wvm_job *job = &c->job;

	c->executing = false;
	if (job->reason || !job->answer_len) {
		s->counters.refusals++;
		wvm_run_slave_refuse(&c->run, job->reason ? (enum wvm_run_reason)job->reason
							  : WVM_RUN_MALFORMED);
	} else {
		s->counters.answers++;
		wvm_run_slave_answer(&c->run, job->answer, job->answer_len, s->shard->now_ns);
	}
	flush(c);
	arm(c);
}

static void on_done(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	(void)self;
	(void)data;
	(void)len;
	finish(ctx);
}

void wvm_slave_job_done(struct wvm_job *job)
{
	struct wvm_slave_cpu *c =
		(struct wvm_slave_cpu *)((uint8_t *)job - offsetof(struct wvm_slave_cpu, job));

	if (is_shard) {
		finish(c);
		return;
	}
	/* The inbox has more room than there are processors. */
	while (wvm_post_outside(c->slave->shard, on_done, c, NULL, 0))
		usleep(1000);
}

static const struct wvm_engine *engine_of(const struct wvm_slave *s, unsigned kind)
{
	if (!(s->engines >> kind & 1))
		return NULL;
	return kind == WVM_VCPU_ENGINE_KVM ? &wvm_engine_kvm : &wvm_engine_process;
}

static unsigned find_machine(struct wvm_slave_cpu *c)
{
	const struct wvm_engine *engine = engine_of(c->slave, c->job.head.engine);
	struct wvm_slave_vm *vm = c->vm;
	char err[160] = "";

	/* All processors of a VM are run by one kind. */
	if (!engine || (vm->engine && vm->engine != engine))
		return WVM_RUN_ENGINE;
	if (!vm->machine) {
		vm->machine = engine->open(&c->slave->env, vm->id, err, sizeof(err));
		if (!vm->machine) {
			wvm_log("%s", err);
			return WVM_RUN_ENGINE;
		}
		vm->engine = engine;
		wvm_log("VM %u: runs here, by %s", vm->id, engine->name);
	}
	return WVM_RUN_NO_REASON;
}

static void begin(struct wvm_slave_cpu *c)
{
	struct wvm_job *job = &c->job;
	bool keeps = job->keeps;
	unsigned reason;

	*job = (struct wvm_job){.vcpu = c->run.vcpu,
				.seq = c->run.seq,
				.run = c->in,
				.run_len = c->run.in.len,
				.keeps = keeps, /* as it was, should it be refused */
				.answer = c->out,
				.kicked = wvm_run_slave_kicked(&c->run),
				.done = wvm_slave_job_done};
	c->slave->counters.runs++;
	c->executing = true;
	reason = wvm_vcpu_run_decode(c->in, c->run.in.len, &job->head) ? WVM_RUN_MALFORMED
								       : find_machine(c);
	if (reason)
		wvm_job_refuse(job, (enum wvm_run_reason)reason);
	else
		c->vm->engine->start(c->vm->machine, job);
}

static void kick(struct wvm_slave_cpu *c)
{
	if (!c->executing)
		return;
	c->slave->counters.kicks++;
	__atomic_store_n(&c->job.kicked, true, __ATOMIC_SEQ_CST);
	c->vm->engine->kick(c->vm->machine, &c->job);
}

void wvm_slave_abort(struct wvm_slave_cpu *c)
{
	c->run.abandoned = true;
	kick(c);
}

/* What nobody waits for any more is not to run for ever. */
static void look_for_owner(struct wvm_slave_cpu *c, uint64_t now_ns)
{
	if (!c->executing || now_ns < c->heard_ns + WVM_SLAVE_SILENT_NS)
		return;
	wvm_log("VM %u, processor %u: kicked, its owner is silent", c->run.vm_id, c->run.vcpu);
	c->heard_ns = now_ns; /* and once more, should it have been in vain */
	kick(c);
}

void wvm_slave_timer(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_slave_cpu *c =
		(struct wvm_slave_cpu *)((uint8_t *)timer - offsetof(struct wvm_slave_cpu, timer));

	(void)wvm_run_slave_tick(&c->run, now_ns);
	look_for_owner(c, now_ns);
	flush(c);
	arm(c);
}

/* ---- receiving ------------------------------------------------------------------------- */

/* To a run that no processor's entry knows of, or will. */
static void refuse_at_once(struct wvm_slave *s, const struct wvm_msg *m, enum wvm_run_reason reason)
{
	struct wvm_msg answer = {.type = WVM_MSG_VCPU_EXIT,
				 .flags = WVM_MSG_ERROR,
				 .qos = WVM_QOS_CONTROL,
				 .hops = WVM_HOPS_MAX,
				 .vm_id = m->vm_id,
				 .src = s->self,
				 .dst = m->src,
				 .request = m->request,
				 .gpa = wvm_run_operand(wvm_run_vcpu(m), reason),
				 .version = m->version,
				 .grant = s->life};

	s->counters.refusals++;
	send_message(s, &answer, NULL);
}

static void hello(struct wvm_slave *s, const struct wvm_msg *m)
{
	struct wvm_vcpu_hello h = {
		.engines = s->engines, .cores = s->env.cores, .running = wvm_slave_executing(s)};
	uint8_t body[WVM_VCPU_HELLO_BYTES];
	struct wvm_msg reply = *m;

	wvm_vcpu_hello_encode(body, &h);
	reply.flags = WVM_MSG_ANSWER;
	reply.hops = WVM_HOPS_MAX;
	reply.src = s->self;
	reply.dst = m->src;
	reply.grant = s->life;
	reply.seg_offset = 0;
	reply.payload_len = sizeof(body);
	reply.seg_total = wvm_wire_total(sizeof(body));
	s->counters.hellos++;
	send_message(s, &reply, body);
}

/* A later life of the owner: what there is of the former one goes. False: it still runs. */
static bool another_life(struct wvm_slave *s, struct wvm_slave_vm *vm, uint64_t life)
{
	if (wvm_slave_vm_executing(s, vm)) {
		for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++)
			if (s->cpus[i].vm == vm && s->cpus[i].executing)
				wvm_slave_abort(&s->cpus[i]);
		return false;
	}
	wvm_slave_vm_clear(s, vm);
	vm->life = life;
	return true;
}

static void full(struct wvm_slave *s, const struct wvm_msg *m)
{
	if (!s->said_full)
		wvm_log("VM %u, processor %u: refused, there is no room for more than %u "
			"processors of %u VMs",
			m->vm_id, wvm_run_vcpu(m), WVM_SLAVE_CPUS, WVM_SLAVE_VMS);
	s->said_full = true;
	refuse_at_once(s, m, WVM_RUN_FULL);
}

/* The processor that a run is for, made where there is none. NULL: it was refused, or is dropped.
 */
static struct wvm_slave_cpu *cpu_for_run(struct wvm_slave *s, const struct wvm_msg *m)
{
	uint64_t now_ns = s->shard->now_ns;
	unsigned vcpu = wvm_run_vcpu(m);
	struct wvm_slave_vm *vm = wvm_slave_vm_find(s, m->vm_id);
	struct wvm_slave_cpu *c;

	if (!vm)
		vm = wvm_slave_vm_add(s, m->vm_id, m->version, now_ns);
	if (!vm) {
		full(s, m);
		return NULL;
	}
	if (m->version < vm->life) {
		s->counters.drops[WVM_DROP_STALE]++;
		return NULL;
	}
	vm->heard_ns = now_ns;
	if (wvm_slave_barred(vm, m->version, vcpu, m->request)) {
		refuse_at_once(s, m, WVM_RUN_BUSY);
		return NULL;
	}
	if (m->version > vm->life && !another_life(s, vm, m->version)) {
		wvm_slave_bar(vm, m->version, vcpu, m->request);
		refuse_at_once(s, m, WVM_RUN_BUSY);
		return NULL;
	}
	c = wvm_slave_cpu_find(s, vm, vcpu);
	if (!c)
		c = wvm_slave_cpu_add(s, vm, vcpu, now_ns);
	if (!c) {
		wvm_slave_bar(vm, m->version, vcpu, m->request);
		full(s, m);
	}
	return c;
}

static void take(struct wvm_slave *s, const struct wvm_msg *m, const uint8_t *payload)
{
	struct wvm_slave_vm *vm;
	struct wvm_slave_cpu *c;

	if (m->type == WVM_MSG_VCPU_HELLO) {
		hello(s, m);
		return;
	}
	if (m->type == WVM_MSG_VCPU_RUN && m->grant != s->life) {
		refuse_at_once(s, m, WVM_RUN_OTHER_LIFE);
		return;
	}
	if (m->type == WVM_MSG_VCPU_RUN) {
		c = cpu_for_run(s, m);
	} else {
		vm = wvm_slave_vm_find(s, m->vm_id);
		c = vm ? wvm_slave_cpu_find(s, vm, wvm_run_vcpu(m)) : NULL;
		s->counters.drops[WVM_DROP_STALE] += !c;
	}
	if (!c)
		return;
	c->vm->heard_ns = s->shard->now_ns;
	if (m->type == WVM_MSG_VCPU_RUN || m->version == c->run.owner_life)
		c->heard_ns = s->shard->now_ns;
	switch (wvm_run_slave_message(&c->run, m, payload, s->shard->now_ns)) {
	case WVM_RUN_START: begin(c); break;
	case WVM_RUN_KICK:
	case WVM_RUN_ABORT: kick(c); break;
	default: break;
	}
	flush(c);
	arm(c);
}

static enum wvm_drop acceptable(const struct wvm_slave *s, const struct wvm_msg *m)
{
	if (m->dst != s->self)
		return WVM_DROP_NODE;
	switch (m->type) {
	case WVM_MSG_VCPU_HELLO: return m->flags & WVM_MSG_ANSWER ? WVM_DROP_TYPE : WVM_DROP_NONE;
	case WVM_MSG_VCPU_RUN:
	case WVM_MSG_VCPU_KICK:
	case WVM_MSG_VCPU_DONE:
		return wvm_run_vcpu(m) < WVM_VCPU_MAX && wvm_run_reason(m) == 0 ? WVM_DROP_NONE
										: WVM_DROP_GPA;
	default: return WVM_DROP_TYPE;
	}
}

void wvm_slave_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	struct wvm_slave *s = ctx;

	if (from->sin_addr.s_addr != s->master.sin_addr.s_addr ||
	    from->sin_port != s->master.sin_port) {
		s->counters.strangers++;
		return;
	}
	if (s->stopping)
		return;
	for (size_t consumed; len; data += consumed, len -= consumed) {
		const uint8_t *payload;
		struct wvm_msg m;
		enum wvm_drop reason = wvm_wire_decode(data, len, &m, &payload, &consumed);

		if (!reason)
			reason = acceptable(s, &m);
		s->counters.messages++;
		s->counters.drops[reason] += reason != WVM_DROP_NONE;
		if (!reason)
			take(s, &m, payload);
	}
}

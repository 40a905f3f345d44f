/* What comes from the master: runs and kicks to the processors, and their answers back. */
#include <arpa/inet.h>
#include <string.h>

#include "ring/daemon.h"
#include "roles/slave/slave.h"
#include "shared/wire.h"

#define ASK_NS    UINT64_C(100000000)  /* the ring file is read no more often than this */
#define BUSY_NS   UINT64_C(2000000000) /* to end what an owner's former life runs */
/* An owner that is silent so long has given its run up by half of that time. */
#define SILENT_NS (2 * WVM_RUN_DEADLINE_NS)

static void job_done(struct wvm_job *job);

/* ---- the master ------------------------------------------------------------------------ */

bool wvm_slave_find_master(struct wvm_slave *s)
{
	struct wvm_ring_header h;
	struct wvm_ring_file *f;

	/* A master that starts anew may make the file anew: by its name, each time. */
	if (wvm_ring_file_get(&f, s->options->ring_path))
		return false;
	if (s->ring)
		wvm_ring_file_put(s->ring);
	s->ring = f;
	if (wvm_ring_file_header(f, &h) || !h.udp_port)
		return false;
	s->master = (struct sockaddr_in){.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(h.udp_ip),
					 .sin_port = htons(h.udp_port)};
	s->vnode = h.vnode;
	s->segment = wvm_wire_segment(WVM_MTU_DEFAULT);
	if (h.segment && h.segment < s->segment)
		s->segment = h.segment;
	if (h.slave_port != s->options->port)
		wvm_log("the master of %s expects its slave at port %u, but this one has %u",
			s->options->ring_path, h.slave_port, s->options->port);
	return true;
}

static bool is_master(const struct wvm_slave *s, const struct sockaddr_in *from)
{
	return s->master.sin_port && from->sin_port == s->master.sin_port &&
	       from->sin_addr.s_addr == s->master.sin_addr.s_addr;
}

/* Somebody whom we do not know may be a master that has started since we looked. */
static bool knows(struct wvm_slave *s, const struct sockaddr_in *from)
{
	uint64_t now = s->shard->now_ns;
	char ip[INET_ADDRSTRLEN];

	if (is_master(s, from))
		return true;
	if (s->asked_ns && now - s->asked_ns < ASK_NS)
		return false;
	s->asked_ns = now;
	if (wvm_slave_find_master(s) && is_master(s, from))
		return true;
	if (!s->strange)
		wvm_log("datagrams from %s:%u, which is not this node's master: dropped",
			inet_ntop(AF_INET, &from->sin_addr, ip, sizeof(ip)), ntohs(from->sin_port));
	s->strange = true;
	return false;
}

/* ---- out ------------------------------------------------------------------------------- */

/* What finds no room is lost; who waits for it asks again. */
static void emit(struct wvm_slave *s, const struct wvm_msg *m, const void *payload)
{
	uint8_t *buf = wvm_udp_reserve(s->udp, WVM_LANE_CONTROL);
	size_t len;

	if (!buf)
		return;
	len = wvm_wire_encode(buf, WVM_MTU_DEFAULT, m, payload);
	if (len)
		wvm_udp_commit(s->udp, WVM_LANE_CONTROL, &s->master, m->steer, buf, len);
	else
		wvm_udp_cancel(s->udp, WVM_LANE_CONTROL, buf);
}

static void flush(struct wvm_slave_vcpu *c)
{
	struct wvm_slave *s = c->slave;
	const uint8_t *payload;
	uint64_t deadline;
	struct wvm_msg m;

	while (wvm_udp_free(s->udp, WVM_LANE_CONTROL) && wvm_run_slave_next(&c->run, &m, &payload))
		emit(s, &m, payload);
	deadline = wvm_run_slave_deadline(&c->run);
	if (c->busy && c->heard_ns + SILENT_NS < deadline)
		deadline = c->heard_ns + SILENT_NS;
	if (deadline == UINT64_MAX)
		wvm_shard_disarm(s->shard, &c->timer);
	else
		wvm_shard_arm_at(s->shard, &c->timer, deadline);
}

void wvm_slave_room(void *ctx)
{
	struct wvm_slave *s = ctx;

	for (unsigned i = 0; i < s->count; i++)
		flush(&s->vcpu[i]);
}

static void answer_hello(struct wvm_slave *s, const struct wvm_msg *m)
{
	struct wvm_vcpu_hello h = {
		.engines = s->engines, .cores = s->options->cores, .running = s->running};
	uint8_t body[WVM_VCPU_HELLO_BYTES];
	struct wvm_msg reply = *m;

	wvm_vcpu_hello_encode(body, &h);
	reply.flags = WVM_MSG_ANSWER;
	reply.src = m->dst;
	reply.dst = m->src;
	reply.grant = s->life;
	reply.payload_len = sizeof(body);
	reply.seg_offset = 0;
	reply.seg_total = wvm_wire_total(sizeof(body));
	emit(s, &reply, body);
}

/* ---- VMs ------------------------------------------------------------------------------- */

static struct wvm_slave_vm *find_vm(struct wvm_slave *s, uint16_t id)
{
	for (unsigned i = 0; i < WVM_SLAVE_VMS_MAX; i++)
		if (s->vms[i].used && s->vms[i].id == id)
			return &s->vms[i];
	return NULL;
}

static void kick(struct wvm_slave_vcpu *c)
{
	__atomic_store_n(&c->job.kicked, true, __ATOMIC_SEQ_CST);
	c->vm->ops->kick(c->vm->engine, &c->job);
}

/*
 * Ends the VM's former life. False: something of it is still being executed, and has been told
 * to end. An engine that does not heed that is ended.
 */
static bool end_life(struct wvm_slave *s, struct wvm_slave_vm *vm)
{
	uint64_t now = s->shard->now_ns;

	if (!vm->running) {
		vm->ops->close(vm->engine);
		vm->used = false;
		return true;
	}
	if (!vm->busy_ns)
		vm->busy_ns = now;
	for (unsigned i = 0; i < s->count; i++)
		if (s->vcpu[i].busy && s->vcpu[i].vm == vm)
			kick(&s->vcpu[i]);
	if (now - vm->busy_ns > BUSY_NS && vm->ops->force)
		vm->ops->force(vm->engine);
	return false;
}

static enum wvm_run_reason open_vm(struct wvm_slave_vcpu *c, struct wvm_slave_vm **out)
{
	const struct wvm_vcpu_run *r = &c->job.head;
	static struct wvm_vcpu_setup setup;
	struct wvm_slave *s = c->slave;
	struct wvm_slave_vm *vm = s->vms;
	char err[256];

	if (!r->setup_len)
		return WVM_RUN_SETUP;
	if (wvm_vcpu_setup_parse(r->setup, r->setup_len, &setup, err, sizeof(err))) {
		wvm_log("VM %u: %s", c->run.vm_id, err);
		return WVM_RUN_MALFORMED;
	}
	if (c->run.vcpu >= setup.vcpus)
		return WVM_RUN_MALFORMED;
	while (vm < s->vms + WVM_SLAVE_VMS_MAX && vm->used)
		vm++;
	if (vm == s->vms + WVM_SLAVE_VMS_MAX)
		return WVM_RUN_FULL;
	*vm = (struct wvm_slave_vm){.id = c->run.vm_id,
				    .kind = r->engine,
				    .life = c->run.owner_life,
				    .vcpus = setup.vcpus,
				    .ops = r->engine == WVM_VCPU_ENGINE_KVM ? &wvm_engine_kvm
									    : &wvm_engine_process};
	if (vm->ops->open(&vm->engine, &s->env, vm->id, &setup, err, sizeof(err))) {
		wvm_log("VM %u: %s", vm->id, err);
		return WVM_RUN_ENGINE;
	}
	vm->used = true;
	*out = vm;
	return WVM_RUN_NO_REASON;
}

/* Which VM's engine a run is for. Its job is decoded. */
static enum wvm_run_reason vm_for(struct wvm_slave_vcpu *c, struct wvm_slave_vm **out)
{
	struct wvm_slave_vm *vm = find_vm(c->slave, c->run.vm_id);

	if (!(c->slave->engines >> c->job.head.engine & 1))
		return WVM_RUN_ENGINE;
	if (vm && vm->life > c->run.owner_life)
		return WVM_RUN_ENGINE; /* it is another's by now */
	if (vm && vm->life < c->run.owner_life) {
		if (!end_life(c->slave, vm))
			return WVM_RUN_BUSY;
		vm = NULL;
	}
	if (!vm)
		return open_vm(c, out);
	if (vm->kind != c->job.head.engine || c->run.vcpu >= vm->vcpus)
		return WVM_RUN_MALFORMED;
	*out = vm;
	return WVM_RUN_NO_REASON;
}

/* ---- runs ------------------------------------------------------------------------------ */

static void begin(struct wvm_slave_vcpu *c)
{
	struct wvm_job *j = &c->job;
	enum wvm_run_reason reason = WVM_RUN_MALFORMED;

	j->vcpu = c->run.vcpu;
	j->seq = c->run.seq;
	j->run = c->run.in.buf;
	j->run_len = c->run.in.len;
	j->kicked = wvm_run_slave_kicked(&c->run);
	j->reason = WVM_RUN_NO_REASON;
	j->answer_len = 0;
	if (!wvm_vcpu_run_decode(j->run, j->run_len, &j->head))
		reason = vm_for(c, &c->vm);
	if (reason) {
		wvm_run_slave_refuse(&c->run, reason);
		return;
	}
	c->busy = true;
	c->vm->running++;
	c->slave->running++;
	c->vm->ops->start(c->vm->engine, j);
}

static void job_done(struct wvm_job *job)
{
	struct wvm_slave_vcpu *c =
		(struct wvm_slave_vcpu *)((char *)job - offsetof(struct wvm_slave_vcpu, job));

	c->busy = false;
	c->vm->running--;
	c->slave->running--;
	if (job->reason)
		wvm_run_slave_refuse(&c->run, job->reason);
	else
		wvm_run_slave_answer(&c->run, job->answer, job->answer_len,
				     c->slave->shard->now_ns);
	flush(c);
}

/* What nobody waits for any more is not to run for ever. */
static void on_timer(struct wvm_timer *t, uint64_t now_ns)
{
	struct wvm_slave_vcpu *c =
		(struct wvm_slave_vcpu *)((char *)t - offsetof(struct wvm_slave_vcpu, timer));

	wvm_run_slave_tick(&c->run, now_ns);
	if (c->busy && now_ns >= c->heard_ns + SILENT_NS) {
		wvm_log("VM %u: processor %u runs for an owner that is silent: kicked",
			c->run.vm_id, c->run.vcpu);
		c->heard_ns = now_ns;
		kick(c);
	}
	flush(c);
}

static struct wvm_slave_vcpu *find_vcpu(struct wvm_slave *s, const struct wvm_msg *m)
{
	uint32_t key = (uint32_t)m->vm_id << 16 | wvm_run_vcpu(m);
	struct wvm_slave_vcpu *c;

	for (unsigned i = 0; i < s->count; i++)
		if (s->key[i] == key)
			return &s->vcpu[i];
	if (s->count == WVM_SLAVE_VCPUS_MAX || m->grant != s->life || m->type != WVM_MSG_VCPU_RUN)
		return NULL;
	c = &s->vcpu[s->count];
	s->key[s->count] = key;
	c->slave = s;
	c->timer.fire = on_timer;
	c->job.done = job_done;
	c->job.answer = s->buffers + ((size_t)s->count * 2 + 1) * WVM_RUN_MAX;
	wvm_run_slave_init(&c->run, m->vm_id, (uint16_t)wvm_run_vcpu(m), s->vnode, s->life,
			   s->segment, s->buffers + (size_t)s->count * 2 * WVM_RUN_MAX);
	s->count++;
	return c;
}

/* To a processor that we keep nothing of: the run is for another life, or there is no room. */
static void refuse_unknown(struct wvm_slave *s, const struct wvm_msg *m)
{
	struct wvm_run_slave r;
	const uint8_t *payload;
	struct wvm_msg reply;

	if (m->type != WVM_MSG_VCPU_RUN)
		return;
	wvm_run_slave_init(&r, m->vm_id, (uint16_t)wvm_run_vcpu(m), s->vnode, s->life, s->segment,
			   NULL);
	r.owner = m->src;
	r.owner_life = m->version;
	r.seq = m->request;
	wvm_run_slave_refuse(&r, m->grant == s->life ? WVM_RUN_FULL : WVM_RUN_OTHER_LIFE);
	if (wvm_run_slave_next(&r, &reply, &payload))
		emit(s, &reply, payload);
}

static void take(struct wvm_slave *s, const struct wvm_msg *m, const uint8_t *payload)
{
	struct wvm_slave_vcpu *c;

	if (m->dst != s->vnode)
		return;
	if (m->type == WVM_MSG_VCPU_HELLO && !(m->flags & WVM_MSG_ANSWER)) {
		answer_hello(s, m);
		return;
	}
	if (m->type != WVM_MSG_VCPU_RUN && m->type != WVM_MSG_VCPU_KICK &&
	    m->type != WVM_MSG_VCPU_DONE)
		return;
	c = find_vcpu(s, m);
	if (!c) {
		refuse_unknown(s, m);
		return;
	}
	if (m->version == c->run.owner_life)
		c->heard_ns = s->shard->now_ns;
	switch (wvm_run_slave_message(&c->run, m, payload, s->shard->now_ns)) {
	case WVM_RUN_START:
		c->heard_ns = s->shard->now_ns;
		begin(c);
		break;
	case WVM_RUN_ABORT: end_life(s, c->vm); break;
	case WVM_RUN_KICK: kick(c); break;
	default: break;
	}
	flush(c);
}

void wvm_slave_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	struct wvm_slave *s = ctx;
	size_t consumed;

	if (!knows(s, from))
		return;
	for (; len; len -= consumed, data += consumed) {
		const uint8_t *payload;
		struct wvm_msg m;

		if (wvm_wire_decode(data, len, &m, &payload, &consumed) == WVM_DROP_NONE)
			take(s, &m, payload);
	}
}

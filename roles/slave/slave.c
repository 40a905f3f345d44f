#include "roles/slave/slave.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "ring/claim.h"
#include "ring/post.h"
#include "shared/client_priv.h"
#include "shared/wire.h"

#define STOP_TRIES 1500u /* of 10 ms: an access to memory waits 12 s at most, an engine 2 s */

/* ---- the master ------------------------------------------------------------------------ */

/*
 * Who the master is stands in its ring file. Its next life has the same command line, and
 * so the same address.
 */
static int find_master(struct wvm_slave *s, char *err, size_t err_len)
{
	const struct wvm_slave_options *o = s->options;
	struct wvm_ring_file *file;
	struct wvm_ring_header h;
	int r = wvm_ring_file_get(&file, o->ring_path);

	if (!r) {
		r = wvm_ring_file_header(file, &h);
		wvm_ring_file_put(file);
	}
	if (r) {
		snprintf(err, err_len, "%s", wvm_attach_error());
		return r;
	}
	if (h.node_id != o->phys_id || h.slave_port != o->port) {
		snprintf(
			err, err_len,
			"%s: its master is node %u and expects a slave at port %u, but the command "
			"line says node %u, port %u",
			o->ring_path, h.node_id, h.slave_port, o->phys_id, o->port);
		return -EINVAL;
	}
	if (h.memory_only) {
		snprintf(err, err_len,
			 "node %u lends memory only (0 cores in its NODE line of the topology): "
			 "start no slave here, or give it cores in the topology of all nodes",
			 h.node_id);
		return -WVM_RING_MEMORY_ONLY;
	}
	if (!h.udp_ip || !h.udp_port || h.segment < WVM_SEGMENT_UNIT ||
	    h.segment > WVM_DATAGRAM_MAX - WVM_HEADER_BYTES) {
		snprintf(err, err_len, "%s: its master takes no slave", o->ring_path);
		return -EPROTO;
	}
	s->master = (struct sockaddr_in){.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(h.udp_ip),
					 .sin_port = htons(h.udp_port)};
	s->self = h.vnode;
	s->segment = h.segment / WVM_SEGMENT_UNIT * WVM_SEGMENT_UNIT;
	return 0;
}

/* Never 0, and another one at every start: what was meant for a former life is recognised. */
static uint64_t new_life(void)
{
	uint64_t life = 0;

	if (getrandom(&life, sizeof(life), 0) != sizeof(life))
		life = (uint64_t)getpid() << 48 ^ wvm_now_ns();
	return life ? life : 1;
}

/* ---- engines --------------------------------------------------------------------------- */

static void find_engines(struct wvm_slave *s)
{
	const struct wvm_slave_options *o = s->options;
	char why[200] = "--no-kvm";

	if (!o->no_kvm && wvm_engine_kvm_usable(why, sizeof(why)))
		s->engines |= 1u << WVM_VCPU_ENGINE_KVM;
	else
		wvm_log("without KVM: %s", why);
	if (o->qemu[0] && !access(o->qemu, X_OK))
		s->engines |= 1u << WVM_VCPU_ENGINE_TCG;
	else if (o->qemu[0])
		wvm_log("without TCG: %s: %s", o->qemu, strerror(errno));
	else
		wvm_log("without TCG: no QEMU beside this program (see --qemu)");
	/* Of the processes that are started, and of the clients that KVM's VMs are. */
	setenv("WVM_ROLE", "SLAVE", 1);
	setenv("WVM_RING_PATH", o->ring_path, 1);
}

static int place(struct wvm_slave *s, char *err, size_t err_len)
{
	const struct wvm_slave_options *o = s->options;
	char text[2048], *rest = text, *line;
	int r = wvm_place_compute(s->places, o->cores, o->cpus, err, err_len);

	if (r)
		return r;
	if (s->places[0].real) {
		s->claim_fd = wvm_claim(s->places, o->cores, !o->cpus, WVM_CLAIM_FILE);
		if (s->claim_fd < 0)
			wvm_log("cannot see which CPUs other daemons of this host use: %s: %s",
				WVM_CLAIM_FILE, strerror(-s->claim_fd));
	}
	wvm_place_print(s->places, o->cores, text, sizeof(text));
	while ((line = strsep(&rest, "\n")) && *line)
		wvm_log("processors, %s", line);
	return 0;
}

/* ---- the shard ------------------------------------------------------------------------- */

/* Runs are not executed and answers not sent any more: whoever waits is to learn it. */
static void on_died(struct wvm_shard *shard, void *ctx, bool ran)
{
	struct wvm_slave *s = ctx;

	if (ran) {
		wvm_log("stopped: %s", shard->dead);
		_exit(EXIT_FAILURE);
	}
	s->exit_status = EXIT_FAILURE;
	kill(getpid(), SIGTERM);
}

static int make_buffers(struct wvm_slave *s)
{
	s->buffers = wvm_shard_memory(s->shard, WVM_SLAVE_CPUS * 2 * (size_t)WVM_RUN_MAX);
	if (!s->buffers)
		return -ENOMEM;
	for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++) {
		struct wvm_slave_cpu *c = &s->cpus[i];

		c->slave = s;
		c->timer.fire = wvm_slave_timer;
		c->in = s->buffers + 2 * (size_t)i * WVM_RUN_MAX;
		c->out = c->in + WVM_RUN_MAX;
	}
	return 0;
}

static int make_shard(struct wvm_slave *s, char *err, size_t err_len)
{
	struct wvm_shard_opts o = {.name = "wvm-slave",
				   .poll_ns = s->options->poll ? WVM_SLAVE_POLL_NS : 0,
				   .files = 16 + 4 * WVM_SLAVE_VMS,
				   .died = on_died,
				   .died_ctx = s};
	struct wvm_udp_opts u = {.bind = {.sin_family = AF_INET,
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					  .sin_port = htons(s->options->port)},
				 .datagram = wvm_slave_datagram,
				 .room = wvm_slave_room,
				 .steer_offset = WVM_WIRE_STEER_OFFSET,
				 .datagram_max = WVM_HEADER_BYTES + s->segment};
	void *ctx = s;
	int r = wvm_shard_create(&s->shard, &o, err, err_len);

	if (r)
		return r;
	r = make_buffers(s);
	if (r) {
		snprintf(err, err_len, "no memory for %u processors", WVM_SLAVE_CPUS);
		return r;
	}
	*err = 0;
	r = wvm_udp_open(&s->udp, &s->shard, &ctx, 1, &u, err, err_len);
	if (!r && *err)
		wvm_log("%s", err);
	return r;
}

/* Guests take their CPUs whole; the shard, by which kicks come, is on others where there are any.
 */
static void leave_processors_cpus(const struct wvm_slave *s)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return;
	for (unsigned i = 0; i < s->options->cores; i++)
		if (s->places[i].real && s->places[i].pu >= 0)
			CPU_CLR((unsigned)s->places[i].pu, &set);
	if (CPU_COUNT(&set))
		(void)sched_setaffinity(0, sizeof(set), &set);
}

static void on_started(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	wvm_slave_runs_begin();
	leave_processors_cpus(ctx);
}

/* ---- start and stop -------------------------------------------------------------------- */

static int build(struct wvm_slave *s, char *err, size_t err_len)
{
	int r;

	s->claim_fd = -1;
	s->life = new_life();
	wvm_daemon_files(); /* each processor of an engine process has a bell */
	if ((r = find_master(s, err, err_len)) || (r = place(s, err, err_len)) ||
	    (r = make_shard(s, err, err_len)))
		return r;
	find_engines(s);
	s->env = (struct wvm_engine_env){.shard = s->shard,
					 .ring_path = s->options->ring_path,
					 .qemu = s->options->qemu,
					 .places = s->places,
					 .cores = s->options->cores,
					 .poll_ns = s->options->poll ? WVM_SLAVE_POLL_NS : 0};
	if (s->engines)
		return 0;
	snprintf(err, err_len, "there is nothing here that could run a processor");
	return -ENOTSUP;
}

static void unbuild(struct wvm_slave *s)
{
	wvm_udp_close(s->udp);
	if (s->buffers)
		wvm_shard_memory_free(s->buffers, WVM_SLAVE_CPUS * 2 * (size_t)WVM_RUN_MAX);
	wvm_shard_destroy(s->shard);
	if (s->claim_fd >= 0)
		close(s->claim_fd);
}

int wvm_slave_start(struct wvm_slave *s, const struct wvm_slave_options *options, char *err,
		    size_t err_len)
{
	int r;

	s->options = options;
	r = build(s, err, err_len);
	if (!r) {
		r = wvm_post_outside(s->shard, on_started, s, NULL, 0);
		if (!r)
			r = wvm_shard_start(s->shard);
		if (r)
			snprintf(err, err_len, "cannot start a thread: %s", strerror(-r));
	}
	if (r) {
		unbuild(s);
		return r;
	}
	wvm_log("ready: node %u, at 127.0.0.1:%u, %u cores, by%s%s", options->phys_id,
		options->port, options->cores, s->engines & 1u << WVM_VCPU_ENGINE_KVM ? " KVM" : "",
		s->engines & 1u << WVM_VCPU_ENGINE_TCG ? " TCG" : "");
	return 0;
}

/* First what runs is to end; then, where nothing runs any more, the engines. */
static void on_stop(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_slave *s = ctx;

	s->stopping = true;
	for (unsigned i = 0; i < WVM_SLAVE_CPUS; i++)
		if (s->cpus[i].vm && s->cpus[i].executing)
			wvm_slave_abort(&s->cpus[i]);
	for (unsigned i = 0; i < WVM_SLAVE_VMS; i++) {
		struct wvm_slave_vm *vm = &s->vms[i];

		if (!vm->used || wvm_slave_vm_executing(s, vm))
			continue;
		wvm_slave_vm_clear(s, vm);
		vm->used = false;
	}
}

static bool all_gone(struct wvm_slave *s)
{
	for (unsigned i = 0; i < WVM_SLAVE_VMS; i++)
		if (__atomic_load_n(&s->vms[i].used, __ATOMIC_RELAXED))
			return false;
	return !wvm_engine_kvm.closing() && !wvm_engine_process.closing();
}

static void log_counters(const struct wvm_slave *s)
{
	const struct wvm_slave_counters *c = &s->counters;

	wvm_log("stopped: %llu runs, %llu answers, %llu refusals, %llu kicks; "
		"%llu messages, %llu not from the master",
		(unsigned long long)c->runs, (unsigned long long)c->answers,
		(unsigned long long)c->refusals, (unsigned long long)c->kicks,
		(unsigned long long)c->messages, (unsigned long long)c->strangers);
	for (unsigned i = 1; i < WVM_DROP_REASONS; i++)
		if (c->drops[i])
			wvm_log("dropped, %s: %llu", wvm_drop_name((enum wvm_drop)i),
				(unsigned long long)c->drops[i]);
}

void wvm_slave_stop(struct wvm_slave *s)
{
	int r;

	for (unsigned i = 0; i < STOP_TRIES && !all_gone(s); i++) {
		(void)wvm_post_outside(s->shard, on_stop, s, NULL, 0);
		usleep(10000);
	}
	if (!all_gone(s)) {
		/* A thread that is stuck in the guest's memory would not let go of what we free. */
		wvm_log("stopped, with a processor that does not end");
		_exit(EXIT_FAILURE);
	}
	wvm_shard_stop(s->shard);
	r = wvm_shard_join(s->shard);
	if (r) {
		wvm_log("the shard ended by itself: %s", s->shard->dead);
		s->exit_status = EXIT_FAILURE;
	}
	log_counters(s);
	unbuild(s);
}

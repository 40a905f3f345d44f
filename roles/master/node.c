#include "roles/master/node.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "ring/claim.h"
#include "ring/post.h"
#include "shared/core/assert.h"
#include "shared/wire.h"

#define IP_UDP_HEADERS 28u
#define PAD_PART       8u /* of a datagram: 128 of 1472 let pages of 3 datagrams leave 14 at a time */
#define FILES          96u /* a shard's own */
#define WANDER         2u  /* one write after a read may be chance */

/* ---- who is who ------------------------------------------------------------------------ */

/* A master hears another at one address: through both ends' sidecars, or directly. */
static int check_sidecars(const struct wvm_node *n, char *err, size_t err_len)
{
	const struct wvm_conf_node *list = n->topology.nodes;

	for (uint32_t i = 1; i < n->topology.count; i++) {
		if (wvm_conf_node_is_sidecar(&list[i]) == wvm_conf_node_is_sidecar(&list[0]))
			continue;
		snprintf(
			err, err_len,
			"%s: of node %u (line %u) and node %u (line %u) one is reached by a gateway "
			"(127.0.0.1 %u) and one directly: all NODE lines name the gateway, or none",
			n->options->topology, list[0].phys_id, list[0].line, list[i].phys_id,
			list[i].line, WVM_GATEWAY_PORT);
		return -EINVAL;
	}
	return 0;
}

static int load_topology(struct wvm_node *n, char *err, size_t err_len)
{
	const struct wvm_master_options *o = n->options;
	const struct wvm_conf_node *me;
	int r = wvm_topology_load(&n->topology, o->topology, err, err_len);

	if (r)
		return r;
	me = wvm_topology_by_phys(&n->topology, o->phys_id);
	if (!me) {
		snprintf(err, err_len, "%s: no NODE line has phys_id %u", o->topology, o->phys_id);
		return -EINVAL;
	}
	r = check_sidecars(n, err, err_len);
	if (r)
		return r;
	n->self = (uint32_t)(me - n->topology.nodes);
	n->layout = (struct wvm_layout){n->topology.places, n->topology.place_count};
	if (!wvm_conf_node_is_sidecar(me) && me->port != o->port) {
		snprintf(err, err_len, "%s:%u: node %u has port %u, but the command line says %u",
			 o->topology, me->line, me->phys_id, me->port, o->port);
		return -EINVAL;
	}
	return wvm_layout_check(n, err, err_len);
}

uint32_t wvm_node_vm_index(const struct wvm_node *node, const struct wvm_mem *vm)
{
	for (uint32_t i = 0; i < node->vm_count; i++)
		if (node->vms[i] == vm)
			return i;
	WVM_ASSERT(!"a VM of this node");
	return 0;
}

bool wvm_node_by_sidecar(const struct wvm_node *n, uint32_t member)
{
	return wvm_conf_node_is_sidecar(&n->topology.nodes[member]);
}

/* Members are the topology's nodes in its order, which is that of their vnodes. */
static int make_members(struct wvm_node *n, char *err, size_t err_len)
{
	uint32_t count = n->topology.count;

	n->member_list = calloc(count, sizeof(*n->member_list));
	n->addresses = calloc(count, sizeof(*n->addresses));
	n->join_answered = calloc(count, 1);
	if (!n->member_list || !n->addresses || !n->join_answered) {
		snprintf(err, err_len, "no memory for %u members", count);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < count; i++) {
		const struct wvm_conf_node *c = &n->topology.nodes[i];

		n->member_list[i] = (struct wvm_member){c->first_vnode, c->vnode_count};
		n->addresses[i] = (struct sockaddr_in){.sin_family = AF_INET,
						       .sin_addr.s_addr = htonl(c->ip),
						       .sin_port = htons(c->port)};
	}
	n->members = (struct wvm_members){n->member_list, count};
	return wvm_node_view_open(n, err, err_len);
}

/* The MTU of the interface that has our address, less the headers; or the default. */
static unsigned interface_mtu(const struct sockaddr_in *address)
{
	unsigned mtu = WVM_MTU_DEFAULT;
	struct ifaddrs *list, *i;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || getifaddrs(&list)) {
		if (fd >= 0)
			close(fd);
		return mtu;
	}
	for (i = list; i; i = i->ifa_next) {
		const struct sockaddr_in *a = (const struct sockaddr_in *)i->ifa_addr;
		struct ifreq request;

		if (!a || a->sin_family != AF_INET ||
		    a->sin_addr.s_addr != address->sin_addr.s_addr)
			continue;
		memset(&request, 0, sizeof(request));
		snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", i->ifa_name);
		if (!ioctl(fd, SIOCGIFMTU, &request) && request.ifr_mtu >= 0 &&
		    (unsigned)request.ifr_mtu < mtu + IP_UDP_HEADERS)
			mtu = (unsigned)request.ifr_mtu - IP_UDP_HEADERS;
	}
	freeifaddrs(list);
	close(fd);
	return mtu;
}

static int choose_mtu(struct wvm_node *n, char *err, size_t err_len)
{
	n->mtu = n->options->mtu ? n->options->mtu : interface_mtu(&n->addresses[n->self]);
	if (n->mtu < WVM_MTU_MIN || n->mtu > WVM_DATAGRAM_MAX) {
		snprintf(err, err_len, "the interface carries %u bytes per datagram, fewer than %u",
			 n->mtu, WVM_MTU_MIN);
		return -EMSGSIZE;
	}
	n->segment = wvm_wire_page_segment(n->mtu);
	return 0;
}

/* ---- memory ---------------------------------------------------------------------------- */

static int open_vms(struct wvm_node *n, char *err, size_t err_len)
{
	const struct wvm_master_options *o = n->options;
	int r = wvm_memory_new(&n->memory, n->shard_count, &wvm_clients_mem_ops, &n->clients);

	if (r) {
		snprintf(err, err_len, "no memory for the clients' tables");
		return r;
	}
	for (unsigned i = 0; i < o->vm_count; i++) {
		char path[256];

		snprintf(path, sizeof(path), "%s.%u", o->shm_file, o->vms[i].id);
		r = wvm_mem_open(n->memory, &n->vms[i], o->vms[i].id, path,
				 wvm_node_vm_size(n, &o->vms[i]),
				 n->state.adopting ? WVM_MEM_ADOPT : WVM_MEM_EMPTY, err, err_len);
		if (r)
			return r;
		n->vm_count++;
	}
	return 0;
}

static int map_vm_state(struct wvm_node *n, struct wvm_core_vm *vms, char *err, size_t err_len)
{
	for (unsigned i = 0; i < n->vm_count; i++) {
		int r;

		vms[i] = (struct wvm_core_vm){.id = n->options->vms[i].id,
					      .pages = wvm_mem_size(n->vms[i]) / WVM_PAGE_BYTES};
		r = wvm_state_vm(&n->state, &vms[i], err, err_len);
		if (r)
			return r;
		r = wvm_backing_open(&n->backing[i], &vms[i]);
		if (r) {
			snprintf(err, err_len, "no memory for VM %u", vms[i].id);
			return r;
		}
	}
	return 0;
}

/* ---- the former life ------------------------------------------------------------------- */

static struct wvm_core_params core_params(const struct wvm_node *n, unsigned index)
{
	struct wvm_core_params p = {.members = &n->members,
				    .layout = &n->layout,
				    .self = n->self,
				    .boot = n->boot ? n->boot : 1, /* not known yet: no matter */
				    .shard = (uint8_t)index,
				    .units = true,
				    .merge = true,
				    .wander = WANDER,
				    .read_ahead = n->options->read_ahead};

	wvm_node_view_params(n, &p);
	wvm_core_default_limits(&p.limits);
	wvm_core_default_times(&p.times);
	return p;
}

/* Who the members are decides which pages have their home here, and what an index means. */
static uint64_t members_hash(const struct wvm_node *n)
{
	return (uint64_t)wvm_members_hash(n) << 32 | n->self << 16 | (n->members.count & 0xffff);
}

static struct wvm_life_shape life_shape(const struct wvm_node *n)
{
	const struct wvm_master_options *o = n->options;
	struct wvm_core_params p = core_params(n, 0);
	struct wvm_life_shape shape = {.layout = WVM_LIFE_LAYOUT,
				       .shards = n->shard_count,
				       .members = members_hash(n),
				       .placed = wvm_layout_hash(n),
				       .durable_bytes = wvm_core_durable_bytes(&p),
				       .vm_count = o->vm_count};

	for (unsigned i = 0; i < o->vm_count; i++) {
		shape.vms[i].id = o->vms[i].id;
		shape.vms[i].size = wvm_node_vm_size(n, &o->vms[i]);
	}
	return shape;
}

/* Files first, then the boot: a number is not used up by a start that is refused. */
static int open_state(struct wvm_node *n, const struct wvm_life_shape *shape, char *err,
		      size_t err_len)
{
	const struct wvm_master_options *o = n->options;
	bool fresh = o->fresh || wvm_node_view_lost(n);
	int r = wvm_state_open(&n->state, o->shm_file, fresh, shape, err, err_len);

	if (r)
		return r;
	n->keep_files = n->state.adopting;
	r = wvm_state_boot(o->state_dir, o->phys_id, &n->boot, err, err_len);
	if (r)
		return r;
	if (n->state.adopting && n->view->now.record.epoch < n->state.life->epoch) {
		char path[WVM_REPLACE_PATH];

		wvm_node_view_path(n, path);
		snprintf(
			err, err_len,
			"%s: knows epoch %u, but the pages that are to be taken over are of epoch "
			"%u: put the last file back, or stop all nodes and start each with --fresh",
			path, n->view->now.record.epoch, n->state.life->epoch);
		return -EINVAL;
	}
	if (n->state.adopting && n->boot <= n->state.life->boot_first) {
		snprintf(err, err_len,
			 "%s/boot.%u: %u is not above %u, the boot whose pages are to be taken "
			 "over: put the former number back, or stop all nodes and start each with "
			 "--fresh",
			 o->state_dir, o->phys_id, n->boot, n->state.life->boot_first);
		return -EINVAL;
	}
	return 0;
}

/* Every file is there. Those of a former life are taken over as far as they can be by now. */
static int begin_life(struct wvm_node *n, const struct wvm_life_shape *shape, char *err,
		      size_t err_len)
{
	int r;

	wvm_node_view_asked(n, n->view->homes);
	wvm_join_init(&n->join, &n->members, n->join_answered, n->self, n->view->now.record.epoch,
		      n->boot, wvm_node_identity(n), n->view->homes);
	if (!n->state.adopting) {
		wvm_state_publish(&n->state, shape, n->boot, n->view->now.record.epoch);
		return 0;
	}
	wvm_node_view_left(n);
	n->state.life->epoch = n->view->now.record.epoch;
	r = wvm_adopt_home(n, err, err_len);
	for (unsigned i = 0; !r && !n->view->now.moved && i < n->shard_count; i++)
		(void)wvm_core_handed_over(n->shards[i].core, 0);
	if (!r && n->state.life->served)
		wvm_join_resume(&n->join);
	return r;
}

/* ---- shards ---------------------------------------------------------------------------- */

/* What leaves this node must find its place, and be noted, also when the tmpfs is full by then. */
static int map_filled(struct wvm_node *n, unsigned index, const char *kind, size_t len, void **out,
		      char *err, size_t err_len)
{
	char name[32];
	int r;

	snprintf(name, sizeof(name), "%u.%s", index, kind);
	r = wvm_state_map(&n->state, name, len, out, err, err_len);
	if (r)
		return r;
	r = wvm_backing_fill(*out, len);
	if (r)
		snprintf(err, err_len,
			 "%s.%s: no room for %zu KiB: %s; free memory or room on its tmpfs",
			 n->options->shm_file, name, len / 1024, strerror(-r));
	return r;
}

static int make_core(struct wvm_node *n, unsigned index, const struct wvm_core_vm *vms, char *err,
		     size_t err_len)
{
	struct wvm_node_shard *s = &n->shards[index];
	struct wvm_core_params p = core_params(n, index);
	void *outbox;
	int r;

	p.adopt = n->state.adopting;
	p.boot_first = p.adopt ? n->state.life->boot_first : n->boot;
	if (getrandom(&p.seed, sizeof(p.seed), 0) != sizeof(p.seed))
		p.seed = wvm_now_ns();
	r = map_filled(n, index, "outbox", (size_t)p.limits.demands * WVM_PAGE_BYTES, &outbox, err,
		       err_len);
	if (r)
		return r;
	s->outbox = outbox;
	p.outbox = outbox;
	r = map_filled(n, index, "durable", wvm_core_durable_bytes(&p), &p.durable, err, err_len);
	if (r)
		return r;
	r = wvm_reclaim_init(s);
	if (r) {
		snprintf(err, err_len, "no memory for shard %u", index);
		return r;
	}
	r = wvm_node_view_own(s, &p);
	if (r) {
		snprintf(err, err_len, "no memory for shard %u", index);
		return r;
	}
	s->core_memory = aligned_alloc(64, wvm_core_bytes(&p));
	s->runs = aligned_alloc(64, sizeof(*s->runs));
	if (!s->core_memory || !s->runs || wvm_stale_init(s)) {
		snprintf(err, err_len, "no memory for shard %u", index);
		return -ENOMEM;
	}
	memset(s->runs, 0, sizeof(*s->runs));
	s->core = wvm_core_init(s->core_memory, &p);
	for (unsigned i = 0; i < n->vm_count; i++) {
		/* What has moved is in the table of units. */
		if ((p.before && !wvm_backing_all_units(&n->backing[i])) ||
		    (p.lost && !wvm_backing_all_touched(&n->backing[i]))) {
			snprintf(err, err_len,
				 "%s.*: no room for the tables of units and pages: free memory or "
				 "room on its tmpfs",
				 n->options->shm_file);
			return -ENOSPC;
		}
		wvm_core_add_vm(s->core, &vms[i]);
	}
	wvm_node_view_gone(n, s->core);
	return 0;
}

/*
 * A shard's loop has ended by itself. Its pages would hang for ever, here and on
 * other nodes, in a process that looks alive. So the process ends; its files stay,
 * as those of a killed one do. One that never began has nothing in them.
 */
static void on_died(struct wvm_shard *s, void *ctx, bool ran)
{
	struct wvm_node *n = ctx;

	if (ran) {
		wvm_log("stopped: %s", s->dead);
		_exit(EXIT_FAILURE);
	}
	n->exit_status = EXIT_FAILURE;
	kill(getpid(), SIGTERM); /* wvm_node_stop() says why */
}

static int make_shard(struct wvm_node *n, unsigned index, char *err, size_t err_len)
{
	struct wvm_node_shard *s = &n->shards[index];
	struct wvm_shard_opts o = {
		.index = index,
		.name = "wvm-shard",
		.place = n->places[index],
		.pin = true,
		.kernel = &n->kernel,
		.files = FILES + (index ? WVM_CLIENTS_MAX : WVM_CLIENTS_FILES),
		.inbox_bytes = sizeof(struct wvm_msg) + WVM_PAGE_BYTES + 64,
		.died = on_died,
		.died_ctx = n,
	};
	int r;

	if (o.inbox_bytes < n->mtu + 64)
		o.inbox_bytes = n->mtu + 64;
	s->node = n;
	s->index = index;
	s->armed_ns = WVM_NEVER;
	s->timer.fire = wvm_node_core_timer;
	s->hook.turn = wvm_node_turn;
	r = wvm_pins_init(s);
	if (r) {
		snprintf(err, err_len, "no memory for shard %u", index);
		return r;
	}
	r = wvm_shard_create(&s->shard, &o, err, err_len);
	if (!r)
		wvm_shard_hook(s->shard, WVM_HOOK_ROLE, &s->hook);
	return r;
}

static int open_sockets(struct wvm_node *n, char *err, size_t err_len)
{
	struct wvm_shard *shards[WVM_NODE_SHARDS_MAX];
	struct wvm_udp *sockets[WVM_NODE_SHARDS_MAX];
	void *contexts[WVM_NODE_SHARDS_MAX];
	bool sidecar = wvm_conf_node_is_sidecar(&n->topology.nodes[n->self]);
	struct wvm_udp_opts o = {.bind = n->addresses[n->self],
				 .datagram = wvm_node_datagram,
				 .steer_offset = WVM_WIRE_STEER_OFFSET,
				 .datagram_max = n->mtu,
				 .pad_max = n->mtu / PAD_PART};
	int r;

	if (sidecar) {
		o.bind.sin_addr.s_addr = htonl(INADDR_ANY);
		o.bind.sin_port = htons(n->options->port);
	}
	for (unsigned i = 0; i < n->shard_count; i++) {
		shards[i] = n->shards[i].shard;
		contexts[i] = &n->shards[i];
	}
	*err = 0;
	r = wvm_udp_open(sockets, shards, contexts, n->shard_count, &o, err, err_len);
	if (r)
		return r;
	if (*err)
		wvm_log("%s", err);
	for (unsigned i = 0; i < n->shard_count; i++)
		n->shards[i].udp = sockets[i];
	return 0;
}

static void log_lines(char *text)
{
	char *rest = NULL;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		wvm_log("%s", line);
}

/* What fails here is no reason not to run; it may be slower than it could. */
static void claim_cpus(struct wvm_node *n)
{
	unsigned pus = wvm_place_pus();

	if (n->shard_count > pus)
		wvm_log("%u cores are asked for, but this process may use %u CPU%s: shards share them",
			n->shard_count, pus, pus == 1 ? "" : "s");
	if (!n->places[0].real)
		return; /* a simulated machine, on which nobody runs */
	n->claim_fd = wvm_claim(n->places, n->shard_count, !n->options->cpus, WVM_CLAIM_FILE);
	if (n->claim_fd < 0)
		wvm_log("cannot see which CPUs other masters of this host use: %s: %s",
			WVM_CLAIM_FILE, strerror(-n->claim_fd));
}

static int make_shards(struct wvm_node *n, char *err, size_t err_len)
{
	char text[2048], *rest = text, *line;
	int r = wvm_kernel_probe(&n->kernel, err, err_len);

	if (r)
		return r;
	if (!n->kernel.uffd) {
		snprintf(err, err_len,
			 "userfaultfd is not permitted: run as root, with CAP_SYS_PTRACE or access "
			 "to /dev/userfaultfd, or set vm.unprivileged_userfaultfd = 1");
		return -EPERM;
	}
	wvm_kernel_describe(&n->kernel, text, sizeof(text));
	while ((line = strsep(&rest, "\n")) && *line)
		wvm_log("%s", line);
	r = wvm_place_compute(n->places, n->shard_count, n->options->cpus, err, err_len);
	if (r)
		return r;
	claim_cpus(n);
	wvm_place_print(n->places, n->shard_count, text, sizeof(text));
	log_lines(text);
	for (unsigned i = 0; i < n->shard_count && !r; i++)
		r = make_shard(n, i, err, err_len);
	return r ? r : open_sockets(n, err, err_len);
}

/* ---- start and stop -------------------------------------------------------------------- */

static void on_started(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_node *n = ctx;
	int r = wvm_clients_start(n->clients);

	if (r) {
		wvm_log("clients cannot be served: %s", strerror(-r));
		n->exit_status = 1;
		kill(getpid(), SIGTERM);
		return;
	}
	if (n->adoption.active)
		wvm_adopt_begin(n, self->now_ns);
	wvm_node_membership_life(n->membership, WVM_NODE_WARMING);
	wvm_node_view_begin(n);
	n->join_timer.fire = wvm_node_join_timer;
	wvm_node_join_timer(&n->join_timer, self->now_ns);
}

/* Through a gateway, our address is that of the loopback device. */
static struct wvm_clients_relay relay_conf(const struct wvm_node *n)
{
	bool sidecar = wvm_conf_node_is_sidecar(&n->topology.nodes[n->self]);

	return (struct wvm_clients_relay){.ip = sidecar ? INADDR_LOOPBACK
							: n->topology.nodes[n->self].ip,
					  .port = n->options->port,
					  .slave_port = n->options->slave_port,
					  .vnode = n->members.list[n->self].first_vnode,
					  .segment = wvm_wire_segment(n->mtu)};
}

static int open_clients(struct wvm_node *n, char *err, size_t err_len)
{
	struct wvm_shard *shards[WVM_NODE_SHARDS_MAX];
	struct wvm_clients_conf conf = {.path = n->options->ring_path,
					.node_id = n->options->phys_id,
					.memory = n->memory,
					.shards = shards,
					.ops = &wvm_node_clients_ops,
					.ctx = n};

	for (unsigned i = 0; i < n->shard_count; i++)
		shards[i] = n->shards[i].shard;
	wvm_vcpus_init(n);
	conf.relay = relay_conf(n);
	conf.memory_only = !n->topology.nodes[n->self].cores;
	/* Differs from every former life's, also when the state directory was lost. */
	n->boot_id = (uint64_t)n->boot << 48 | (wvm_now_ns() & 0xffffffffffff);
	conf.boot_id = n->boot_id;
	if (n->state.adopting)
		memcpy(conf.adopts, n->state.life->ids[n->state.life->current & 1],
		       sizeof(conf.adopts));
	wvm_life_begin(n->state.life, n->boot_id, n->state.adopting);
	return wvm_clients_open(&n->clients, &conf, err, err_len);
}

static int build(struct wvm_node *n, char *err, size_t err_len)
{
	const struct wvm_master_options *o = n->options;
	struct wvm_core_vm vms[WVM_MASTER_VMS_MAX];
	struct wvm_life_shape shape;
	int r;

	n->shard_count = o->shards;
	n->claim_fd = -1;
	if ((r = load_topology(n, err, err_len)) || (r = make_members(n, err, err_len)) ||
	    (r = choose_mtu(n, err, err_len)) || (r = make_shards(n, err, err_len)))
		return r;
	shape = life_shape(n);
	if ((r = open_state(n, &shape, err, err_len)) || (r = open_vms(n, err, err_len)) ||
	    (r = map_vm_state(n, vms, err, err_len)))
		return r;
	for (unsigned i = 0; i < n->shard_count; i++)
		if ((r = make_core(n, i, vms, err, err_len)))
			return r;
	if ((r = begin_life(n, &shape, err, err_len)))
		return r;
	if ((r = wvm_control_open(&n->control, n, err, err_len)) ||
	    (r = wvm_node_membership_open(&n->membership, n, err, err_len)))
		return r;
	for (unsigned i = 0; i < n->shard_count; i++)
		if ((r = wvm_trace_open(&n->shards[i].trace, n->shards[i].shard))) {
			snprintf(err, err_len, "no memory for shard %u", i);
			return r;
		}
	return open_clients(n, err, err_len);
}

static void unbuild(struct wvm_node *n)
{
	bool remove = !n->keep_files;

	if (n->clients)
		wvm_clients_close(n->clients, remove);
	wvm_node_membership_close(n->membership);
	wvm_node_view_close(n);
	wvm_control_close(n->control);
	for (unsigned i = 0; i < n->shard_count; i++) {
		struct wvm_node_shard *s = &n->shards[i];

		wvm_udp_close(s->udp);
		wvm_shard_destroy(s->shard);
		free(s->core_memory);
		free(s->runs);
		wvm_stale_free(s);
		wvm_pins_free(s);
		wvm_reclaim_free(s);
		wvm_node_view_disown(s);
		wvm_trace_close(&s->trace);
	}
	for (unsigned i = 0; remove && i < n->vm_count; i++)
		wvm_mem_unlink(n->vms[i]);
	if (n->memory)
		wvm_memory_free(n->memory);
	for (unsigned i = 0; i < n->vm_count; i++)
		wvm_backing_close(&n->backing[i]);
	wvm_state_close(&n->state, remove);
	wvm_adopt_free(n);
	if (n->claim_fd >= 0)
		close(n->claim_fd);
	free(n->member_list);
	free(n->addresses);
	free(n->join_answered);
	wvm_topology_free(&n->topology);
}

int wvm_node_start(struct wvm_node *node, const struct wvm_master_options *options, char *err,
		   size_t err_len)
{
	unsigned started = 0;
	int r;

	node->options = options;
	node->started_ns = wvm_now_ns();
	r = build(node, err, err_len);
	for (; !r && started < node->shard_count; started++) {
		r = wvm_shard_start(node->shards[started].shard);
		if (r)
			snprintf(err, err_len, "cannot start a thread: %s", strerror(-r));
	}
	if (!r)
		return wvm_post_outside(node->shards[0].shard, on_started, node, NULL, 0);
	while (started-- > 1) {
		wvm_shard_stop(node->shards[started - 1].shard);
		wvm_shard_join(node->shards[started - 1].shard);
	}
	unbuild(node);
	return r;
}

void wvm_node_stop(struct wvm_node *node)
{
	wvm_node_membership_leave(node->membership);
	for (unsigned i = 0; i < node->shard_count; i++)
		wvm_shard_stop(node->shards[i].shard);
	for (unsigned i = 0; i < node->shard_count; i++) {
		int r = wvm_shard_join(node->shards[i].shard);

		if (r) {
			wvm_log("shard %u ended by itself: %s", i, node->shards[i].shard->dead);
			node->exit_status = 1;
		}
	}
	unbuild(node);
}

#include "shared/control.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "roles/master/control_priv.h"
#include "roles/master/node.h"

#define ASKERS_MAX 8u /* at the same time; one more, and the oldest one begins anew */

/* The text that an asker gets in parts. */
struct snapshot {
	struct sockaddr_in asker;
	char *text;
	size_t len;
	uint32_t number; /* 0: none */
};

struct wvm_control {
	struct wvm_node *node;
	struct wvm_udp *udp;
	struct snapshot snapshots[ASKERS_MAX];
	uint32_t last;
	struct wvm_control_counters counters; /* of shard 0's thread, as all of this */
	struct wvm_stamp stamps[WVM_CONTROL_STAMPS_MAX];
};

/* A decoded request. */
struct request {
	uint16_t op, part, vm_id;
	uint32_t snapshot;
	uint64_t operand;
};

/* ---- status ---------------------------------------------------------------------------- */

static json_t *vm_json(const struct wvm_node *n, unsigned i)
{
	json_t *o = json_object();

	set(o, "id", n->options->vms[i].id);
	set(o, "bytes", wvm_mem_size(n->vms[i]));
	json_object_set_new(o, "ram_file", json_string(wvm_mem_path(n->vms[i])));
	return o;
}

static json_t *members_json(const struct wvm_node *n)
{
	json_t *list = json_array();
	uint32_t *slices = calloc(n->members.count, sizeof(*slices));
	uint64_t *placed = calloc(n->members.count, sizeof(*placed));

	for (uint32_t i = 0; slices && i < WVM_SLICES; i++)
		slices[wvm_member_of(&n->members, wvm_node_slices(n)->home_vnode[i])]++;
	for (uint32_t i = 0; placed && i < n->layout.count; i++)
		placed[n->layout.list[i].member] += n->layout.list[i].units;
	for (uint32_t i = 0; i < n->members.count; i++) {
		const struct wvm_conf_node *c = &n->topology.nodes[i];
		char address[INET_ADDRSTRLEN + 8], ip[INET_ADDRSTRLEN];
		struct in_addr in = {htonl(c->ip)};
		const char *state = wvm_node_view_state(n, i);
		json_t *o = json_object();

		inet_ntop(AF_INET, &in, ip, sizeof(ip));
		snprintf(address, sizeof(address), "%s:%u", ip, c->port);
		set(o, "node", c->phys_id);
		json_object_set_new(o, "address", json_string(address));
		set(o, "vnodes", c->vnode_count);
		if (state)
			json_object_set_new(o, "member", json_string(state));
		set(o, "slices", slices ? slices[i] : 0);
		set(o, "placed_mib", placed ? placed[i] * (WVM_UNIT_BYTES >> 20) : 0);
		json_object_set_new(o, "answered", json_boolean(n->join_answered[i]));
		json_array_append_new(list, o);
	}
	free(slices);
	free(placed);
	return list;
}

static uint64_t load(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void sum_core(const struct wvm_node *n, struct wvm_core_stats *sum)
{
	uint64_t *to = (uint64_t *)sum;

	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < n->shard_count; i++) {
		const uint64_t *from = (const uint64_t *)wvm_core_stats(n->shards[i].core);

		for (size_t k = 0; k < sizeof(*sum) / sizeof(*to); k++)
			to[k] += __atomic_load_n(&from[k], __ATOMIC_RELAXED);
	}
}

static json_t *status_json(const struct wvm_node *n)
{
	static const char *const states[] = {"asking", "serving", "refused", "refused"};
	json_t *o = json_object(), *vms = json_array(), *places = json_array();
	struct wvm_core_stats core;
	uint64_t state_bytes, store_bytes, waits = 0, untouched = 0, failed = 0;

	sum_core(n, &core);
	set(o, "node", n->options->phys_id);
	json_object_set_new(o, "version", json_string(WVM_VERSION));
	set(o, "protocol", WVM_PROTOCOL_VERSION);
	json_object_set_new(
		o, "state",
		json_string(n->adoption.active ? "taking over" : states[n->join.state]));
	set(o, "epoch", n->view->now.record.epoch);
	set(o, "boot", n->boot);
	set(o, "uptime_s", (wvm_now_ns() - n->started_ns) / 1000000000);
	set(o, "mtu", n->mtu);
	set(o, "ram_mb", n->options->ram_mb);
	json_object_set_new(o, "ring", json_string(n->options->ring_path));
	set(o, "clients", wvm_clients_count(n->clients));
	set(o, "pages_shared", core.pages_shared);
	set(o, "pages_modified", core.pages_modified);
	set(o, "pages_homed", core.pages_homed);
	set(o, "ahead_asked", core.ahead_asked);
	set(o, "ahead_joined", core.ahead_joined);
	set(o, "ahead_passed", core.ahead_passed);
	set(o, "ahead_given_up", core.ahead_given_up);
	set(o, "pages_budget", wvm_reclaim_budget(n));
	set(o, "evicted_shared", core.evicted_shared);
	set(o, "evicted_modified", core.evicted_modified);
	for (unsigned i = 0; i < n->shard_count; i++) {
		waits += n->shards[i].reclaim.waits;
		failed += n->shards[i].reclaim.failed;
		untouched += n->shards[i].reclaim.untouched;
	}
	set(o, "reclaim_untouched", untouched);
	set(o, "reclaim_waits", waits);
	set(o, "reclaim_failed", failed);
	json_object_set_new(o, "leaving", json_boolean(wvm_reclaim_leaving(n)));
	json_object_set_new(o, "emptied", json_boolean(wvm_reclaim_empty(n)));
	set(o, "pages_left", wvm_reclaim_left(n));
	state_bytes = wvm_state_bytes(&n->state, &store_bytes);
	set(o, "store_bytes", store_bytes);
	set(o, "tables_bytes", state_bytes - store_bytes);
	for (unsigned i = 0; i < n->vm_count; i++)
		json_array_append_new(vms, vm_json(n, i));
	json_object_set_new(o, "vms", vms);
	json_object_set_new(o, "members", members_json(n));
	for (unsigned i = 0; i < n->shard_count; i++) {
		char line[128];

		wvm_place_print(&n->places[i], 1, line, sizeof(line));
		line[strcspn(line, "\n")] = 0;
		json_array_append_new(
			places, json_string(strchr(line, ':') ? strchr(line, ':') + 2 : line));
	}
	json_object_set_new(o, "shards", places);
	return o;
}

/* ---- stats ----------------------------------------------------------------------------- */

static json_t *buckets_json(const uint64_t *buckets)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < WVM_LATENCY_BUCKETS; i++)
		json_array_append_new(list, json_integer((json_int_t)buckets[i]));
	return list;
}

static void add_core(json_t *o, const struct wvm_core_stats *core)
{
	json_t *c = json_object();

#define SET(name, text) set(c, #name, core->name);
	WVM_CORE_COUNTERS(SET)
#undef SET
	json_object_set_new(o, "core", c);
	json_object_set_new(o, "latency_read", buckets_json(core->latency_read));
	json_object_set_new(o, "latency_write", buckets_json(core->latency_write));
}

/* What each shard did, to see whether the cores share the work. */
static void add_shards(json_t *o, const struct wvm_node *n)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < n->shard_count; i++) {
		const struct wvm_node_shard *s = &n->shards[i];
		const struct wvm_core_stats *c = wvm_core_stats(s->core);
		json_t *one = json_object();

		json_object_set_new(one, "cpu", json_integer(n->places[i].pu));
		set(one, "faults", load(&c->faults_read) + load(&c->faults_write));
		set(one, "requests_served", load(&c->home_reads) + load(&c->home_acquires));
		set(one, "messages_received", load(&s->received));
		json_array_append_new(list, one);
	}
	json_object_set_new(o, "shards", list);
}

static void add_runtime(json_t *o, const struct wvm_node *n)
{
	struct wvm_ring_stats sum = {0};
	json_t *r = json_object();

	for (unsigned i = 0; i < n->shard_count; i++)
		wvm_ring_stats_add(&sum, &n->shards[i].shard->stats);
	for (size_t i = 0; i < wvm_ring_stats_count(); i++)
		set(r, wvm_ring_stats_name(i), wvm_ring_stats_get(&sum, i));
	json_object_set_new(o, "runtime", r);
}

static void add_memory(json_t *o, const struct wvm_node *n)
{
	struct wvm_mem_counters sum = {0}, one;
	uint64_t runs = 0, run_pages = 0;
	uint64_t *to = (uint64_t *)&sum, *from = (uint64_t *)&one;
	json_t *m = json_object();

	for (unsigned i = 0; i < n->shard_count; i++) {
		wvm_memory_counters(n->memory, i, &one);
		for (size_t k = 0; k < sizeof(sum) / sizeof(*to); k++)
			to[k] += from[k];
		runs += n->shards[i].runs->ends;
		run_pages += n->shards[i].runs->pages;
	}
	set(m, "installs", sum.installs);
	set(m, "uffd_ioctls", sum.ioctls);
	set(m, "runs", runs);
	set(m, "run_pages", run_pages);
	set(m, "punches", sum.punches);
	set(m, "punch_retries", sum.punch_retries);
	set(m, "failed", sum.failed);
	json_object_set_new(o, "memory", m);
}

/* Translated code of programs here that others have written. */
static void add_code(json_t *o, const struct wvm_node *n)
{
	struct wvm_stale_counters sum = {0};
	json_t *c = json_object();

	for (unsigned i = 0; i < n->shard_count; i++) {
		const struct wvm_stale_counters *one = &n->shards[i].code;

		sum.raised += one->raised;
		sum.answers += one->answers;
		sum.waited += one->waited;
		sum.dropped += one->dropped;
		sum.writers += one->writers;
		sum.marks += one->marks;
	}
	set(c, "raised", sum.raised);
	set(c, "answers", sum.answers);
	set(c, "waited", sum.waited);
	set(c, "dropped", sum.dropped);
	set(c, "writers", sum.writers);
	set(c, "marks", sum.marks);
	json_object_set_new(o, "code", c);
}

/* Of all shards together. */
static json_t *calls_json(const struct wvm_node *n)
{
	json_t *sum = json_object();

	for (unsigned k = 0; k < WVM_CALL_KINDS; k++) {
		uint64_t made = 0;

		for (unsigned i = 0; i < n->shard_count; i++)
			made += wvm_calls_made(&n->shards[i].shard->calls, k);
		set(sum, wvm_call_name(k), made);
	}
	return sum;
}

/* Of all shards together, and of each. */
static void add_calls(json_t *o, const struct wvm_node *n)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < n->shard_count; i++) {
		json_t *one = json_object();

		for (unsigned k = 0; k < WVM_CALL_KINDS; k++) {
			set(one, wvm_call_name(k), wvm_calls_made(&n->shards[i].shard->calls, k));
		}
		json_array_append_new(list, one);
	}
	json_object_set_new(o, "syscalls", calls_json(n));
	json_object_set_new(o, "syscalls_by_shard", list);
}

static void add_control(json_t *o, const struct wvm_control_counters *c)
{
	json_t *section = json_object();

	set(section, "requests", c->requests);
	set(section, "bad_length", c->bad_length);
	set(section, "bad_magic", c->bad_magic);
	set(section, "unanswered", c->unanswered);
	json_object_set_new(o, "control", section);
}

/* Runs of remote processors: what was relayed each way, and what was dropped on it. */
static void add_vcpus(json_t *o, const struct wvm_node *n)
{
	const struct wvm_vcpus *v = &n->vcpus;
	json_t *section = json_object();
	char name[32];

	set(section, "channels", wvm_clients_vcpu_count(n->clients));
	set(section, "from_owner", v->from_owner);
	set(section, "to_owner", v->to_owner);
	set(section, "from_slave", v->from_slave);
	set(section, "to_slave", v->to_slave);
	for (unsigned k = 1; k < WVM_DROP_REASONS; k++) {
		snprintf(name, sizeof(name), "dropped_%s", wvm_drop_name(k));
		set(section, name, v->drops[k]);
	}
	json_object_set_new(o, "vcpus", section);
}

static json_t *stats_json(const struct wvm_node *n)
{
	json_t *o = json_object(), *g = json_object(), *d = json_object();
	struct wvm_core_stats core;
	uint64_t drops[WVM_DROP_REASONS];
	uint64_t sent = 0, received = 0, zero = 0, no_buffer = 0, refused = 0, failed = 0, room = 0,
		 pushed = 0;
	uint64_t messages = 0, accepted = 0, own_dropped = 0;

	set(o, "monotonic_ns", wvm_now_ns()); /* of the counters below */
	sum_core(n, &core);
	memcpy(drops, core.drops, sizeof(drops));
	for (unsigned i = 0; i < n->shard_count; i++) {
		const struct wvm_node_shard *s = &n->shards[i];

		for (unsigned k = 0; k < WVM_DROP_REASONS; k++)
			drops[k] += s->drops[k];
		sent += s->pages_sent;
		received += s->pages_received;
		zero += s->zero_sent;
		no_buffer += s->no_buffer;
		refused += s->post_refused;
		pushed += s->pushed_back;
		failed += s->install_failed;
		room += s->no_room;
		messages += s->received;
		accepted += s->accepted;
		own_dropped += s->own_dropped;
	}
	add_core(o, &core);
	set(g, "messages_received", messages);
	set(g, "messages_accepted", accepted);
	set(g, "own_messages_dropped", own_dropped);
	set(g, "pages_sent", sent);
	set(g, "pages_received", received);
	set(g, "zero_pages_sent", zero);
	set(g, "no_transmit_buffer", no_buffer);
	set(g, "inbox_full", refused);
	set(g, "pushed_back", pushed);
	set(g, "install_failed", failed);
	set(g, "no_room", room);
	json_object_set_new(o, "node", g);
	for (unsigned k = 1; k < WVM_DROP_REASONS; k++)
		set(d, wvm_drop_name(k), drops[k]);
	json_object_set_new(o, "drops", d);
	add_memory(o, n);
	add_code(o, n);
	add_runtime(o, n);
	add_shards(o, n);
	add_calls(o, n);
	add_control(o, &n->control->counters);
	add_vcpus(o, n);
	wvm_control_membership_stats(o, n);
	return o;
}

/* ---- where ----------------------------------------------------------------------------- */

/* By the kernel: where a full tmpfs has no room for the entry it is an error, and not a SIGBUS. */
static bool peek(void *to, const void *at, size_t len)
{
	struct iovec mine = {to, len}, from = {(void *)at, len};

	return process_vm_readv(getpid(), &mine, 1, &from, 1, 0) == (ssize_t)len;
}

/*
 * Any shard's page, by shard 0: it may become another at any moment, and its room may be
 * given back. What there is no room for was never touched: all zeros.
 */
static void look_up(const struct wvm_core_vm *vm, uint64_t page, struct wvm_held_page *h,
		    struct wvm_home_page *e)
{
	struct wvm_held_unit held_unit;
	struct wvm_home_unit unit;

	if (peek(&held_unit, &vm->held_units[page / WVM_UNIT_PAGES], sizeof(held_unit)) &&
	    peek(h, &vm->held[page], sizeof(*h)))
		*h = wvm_core_held_in(&held_unit, h, page);
	if (peek(&unit, &vm->units[page / WVM_UNIT_PAGES], sizeof(unit)) &&
	    peek(e, &vm->home[page], sizeof(*e)))
		*e = wvm_core_homed_in(&unit, e);
}

static json_t *where_json(struct wvm_node *n, const struct request *q, uint16_t *status)
{
	static const char *const home_states[] = {"Home", "Shared", "Modified"};
	static const char *const held_states[] = {"Invalid", "Shared", "Modified"};
	uint64_t page = q->operand / WVM_PAGE_BYTES;
	struct wvm_home_page e = {0};
	struct wvm_held_page h = {0};
	const struct wvm_layout_range *placed;
	const struct wvm_core_vm *vm;
	uint32_t index = 0, member, vnode;
	json_t *o;

	while (index < n->vm_count && n->options->vms[index].id != q->vm_id)
		index++;
	if (index == n->vm_count) {
		*status = WVM_CONTROL_BAD_VM;
		return NULL;
	}
	vm = wvm_core_vm_at(n->shards[0].core, index);
	if (page >= vm->pages) {
		*status = WVM_CONTROL_BAD_GPA;
		return NULL;
	}
	look_up(vm, page, &h, &e);
	o = json_object();
	member = wvm_core_home_of(n->shards[0].core, index, page, &vnode);
	set(o, "vm", q->vm_id);
	set(o, "gpa", q->operand);
	set(o, "slice", wvm_slice_of(q->vm_id, q->operand));
	set(o, "home_node", n->topology.nodes[member].phys_id);
	set(o, "home_vnode", vnode);
	placed = wvm_core_placed(n->shards[0].core, index, page);
	if (placed)
		set(o, "placed_by_line", placed->line);
	set(o, "node", n->options->phys_id);
	json_object_set_new(o, "held", json_string(held_states[h.state]));
	set(o, "held_version", h.version);
	if (member == n->self) {
		json_object_set_new(o, "home_state", json_string(home_states[e.state]));
		set(o, "version", e.version);
		set(o, "holders", e.holders);
		json_object_set_new(o, "lost", json_boolean(e.flags & WVM_HOME_LOST));
		if (e.state == WVM_HOME_MODIFIED)
			set(o, "owner_node", n->topology.nodes[e.member[0]].phys_id);
	}
	return o;
}

/* ---- the trace of faults --------------------------------------------------------------- */

/*
 * One part, with the system calls so far: whoever counts what a fault costs asks
 * when it begins and when it ends, and is answered by one call each time.
 */
static json_t *trace_json(struct wvm_node *n, const struct request *q)
{
	uint64_t now = wvm_now_ns(), ms = q->operand, until = 0;
	json_t *o = json_object(), *list = json_array();

	if (ms)
		until = now + (ms < WVM_TRACE_MS_MAX ? ms : WVM_TRACE_MS_MAX) * UINT64_C(1000000);
	set(o, "node", n->options->phys_id);
	json_object_set_new(o, "ring", json_string(n->options->ring_path));
	set(o, "monotonic_ns", now);
	set(o, "until_ns", until);
	/* The number of the stamp that each shard makes next. */
	for (unsigned i = 0; i < n->shard_count; i++) {
		struct wvm_trace *t = &n->shards[i].trace;

		wvm_trace_until(t, until);
		json_array_append_new(list, json_integer((json_int_t)__atomic_load_n(
						    &t->made, __ATOMIC_ACQUIRE)));
	}
	json_object_set_new(o, "made", list);
	json_object_set_new(o, "syscalls", calls_json(n));
	return o;
}

/* [ns, kind, what, vm, page, request] */
static json_t *stamp_json(const struct wvm_stamp *s)
{
	const char *what = s->kind == WVM_STAMP_SEND || s->kind == WVM_STAMP_RECEIVE
				   ? wvm_msg_name(s->what)
				   : NULL;

	return json_pack("[I,s,o,i,I,I]", (json_int_t)s->ns, wvm_stamp_name(s->kind),
			 what ? json_string(what) : json_integer(s->what), s->vm_id,
			 (json_int_t)s->page, (json_int_t)s->request);
}

static json_t *stamps_json(struct wvm_control *c, const struct request *q, uint16_t *status)
{
	uint64_t shard = q->operand >> WVM_CONTROL_SHARD_SHIFT;
	uint64_t first = q->operand & ((UINT64_C(1) << WVM_CONTROL_SHARD_SHIFT) - 1);
	const struct wvm_trace *t;
	json_t *o, *list;
	size_t n;

	if (shard >= c->node->shard_count) {
		*status = WVM_CONTROL_BAD_SHARD;
		return NULL;
	}
	t = &c->node->shards[shard].trace;
	n = wvm_trace_read(t, &first, c->stamps, WVM_CONTROL_STAMPS_MAX);
	list = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, stamp_json(&c->stamps[i]));
	o = json_object();
	set(o, "first", first);
	set(o, "made", __atomic_load_n(&t->made, __ATOMIC_ACQUIRE));
	json_object_set_new(o, "stamps", list);
	return o;
}

/* ---- datagrams ------------------------------------------------------------------------- */

static bool decode(const uint8_t data[WVM_CONTROL_REQUEST_BYTES], struct request *q)
{
	uint32_t magic, snapshot;
	uint16_t op, part, vm_id;
	uint64_t operand;

	memcpy(&magic, data, 4);
	memcpy(&op, data + 4, 2);
	memcpy(&part, data + 6, 2);
	memcpy(&snapshot, data + 8, 4);
	memcpy(&vm_id, data + 12, 2);
	memcpy(&operand, data + 16, 8);
	*q = (struct request){.op = be16toh(op),
			      .part = be16toh(part),
			      .vm_id = be16toh(vm_id),
			      .snapshot = be32toh(snapshot),
			      .operand = be64toh(operand)};
	return be32toh(magic) == WVM_CONTROL_MAGIC;
}

/* The asker's own, else the oldest. */
static struct snapshot *place_for(struct wvm_control *c, const struct sockaddr_in *asker)
{
	struct snapshot *oldest = &c->snapshots[0];

	for (unsigned i = 0; i < ASKERS_MAX; i++) {
		struct snapshot *at = &c->snapshots[i];

		if (at->number && at->asker.sin_addr.s_addr == asker->sin_addr.s_addr &&
		    at->asker.sin_port == asker->sin_port)
			return at;
		/* By age, also when the numbers have come round; an empty one is older than any. */
		if (oldest->number &&
		    (!at->number || c->last - at->number > c->last - oldest->number))
			oldest = at;
	}
	return oldest;
}

static const struct snapshot *find(const struct wvm_control *c, uint32_t number)
{
	for (unsigned i = 0; number && i < ASKERS_MAX; i++)
		if (c->snapshots[i].number == number)
			return &c->snapshots[i];
	return NULL;
}

static uint16_t take_snapshot(struct wvm_control *c, const struct sockaddr_in *asker,
			      const struct request *q, const struct snapshot **out)
{
	struct snapshot *at = place_for(c, asker);
	uint16_t status = WVM_CONTROL_OK;
	json_t *o = NULL;

	switch (q->op) {
	case WVM_CONTROL_STATUS: o = status_json(c->node); break;
	case WVM_CONTROL_STATS: o = stats_json(c->node); break;
	case WVM_CONTROL_WHERE: o = where_json(c->node, q, &status); break;
	case WVM_CONTROL_TRACE: o = trace_json(c->node, q); break;
	case WVM_CONTROL_STAMPS: o = stamps_json(c, q, &status); break;
	case WVM_CONTROL_VCPUS: o = wvm_control_vcpus(c->node); break;
	case WVM_CONTROL_MOVE: o = wvm_control_move(c->node, q->vm_id, q->operand, &status); break;
	case WVM_CONTROL_MEMBERS: o = wvm_control_members(c->node); break;
	case WVM_CONTROL_EPOCH: o = wvm_control_epoch(c->node); break;
	case WVM_CONTROL_DRAIN:
	case WVM_CONTROL_JOIN:
		o = wvm_control_life(c->node, q->operand, q->op == WVM_CONTROL_JOIN, &status);
		break;
	default: return WVM_CONTROL_UNKNOWN;
	}
	c->last += c->last == UINT32_MAX ? 2 : 1;
	free(at->text);
	at->text = o ? json_dumps(o, q->op == WVM_CONTROL_TRACE || q->op == WVM_CONTROL_STAMPS
					     ? JSON_COMPACT
					     : JSON_INDENT(1))
		     : NULL;
	at->len = at->text ? strlen(at->text) : 0;
	at->number = c->last;
	at->asker = *asker;
	json_decref(o);
	*out = at;
	return status;
}

/* Nodes at 127.0.0.1 have one socket for both. A request has another magic. */
static bool for_membership(const struct wvm_node *n, const uint8_t *data, size_t len)
{
	const struct wvm_node_membership *m = n->membership;

	return m && m->open && m->shared && len >= 4 && !memcmp(data, "WVMX", 4);
}

static void on_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	struct wvm_control *c = ctx;
	uint8_t out[WVM_CONTROL_HEADER_BYTES + WVM_CONTROL_PART];
	struct request q;
	static const struct snapshot none;
	const struct snapshot *is = &none;
	uint16_t status = WVM_CONTROL_OK;
	size_t at, part = 0;

	if (for_membership(c->node, data, len)) {
		wvm_node_membership_datagram(c->node->membership, from, data, len);
		return;
	}
	if (len != WVM_CONTROL_REQUEST_BYTES) {
		c->counters.bad_length++;
		return;
	}
	if (!decode(data, &q)) {
		c->counters.bad_magic++;
		return;
	}
	c->counters.requests++;
	if (!q.part)
		status = take_snapshot(c, from, &q, &is);
	else if (find(c, q.snapshot))
		is = find(c, q.snapshot);
	else
		status = WVM_CONTROL_EXPIRED;
	at = (size_t)q.part * WVM_CONTROL_PART;
	if (!status && at < is->len)
		part = is->len - at < WVM_CONTROL_PART ? is->len - at : WVM_CONTROL_PART;
	memcpy(out, &(uint32_t){htobe32(WVM_CONTROL_MAGIC)}, 4);
	memcpy(out + 4, &(uint16_t){htobe16(q.op | WVM_CONTROL_ANSWER)}, 2);
	memcpy(out + 6, &(uint16_t){htobe16(q.part)}, 2);
	memcpy(out + 8, &(uint32_t){htobe32(is->number)}, 4);
	memcpy(out + 12, &(uint16_t){htobe16(status)}, 2);
	memcpy(out + 14,
	       &(uint16_t){
		       htobe16((uint16_t)((is->len + WVM_CONTROL_PART - 1) / WVM_CONTROL_PART))},
	       2);
	if (part)
		memcpy(out + WVM_CONTROL_HEADER_BYTES, is->text + at, part);
	if (wvm_udp_send(c->udp, WVM_LANE_CONTROL, from, 0, out, WVM_CONTROL_HEADER_BYTES + part))
		c->counters.unanswered++;
}

int wvm_control_open(struct wvm_control **out, struct wvm_node *node, char *err, size_t err_len)
{
	struct wvm_control *c = calloc(1, sizeof(*c));
	/* Loopback alone: whoever reaches this port may read all of the node's figures. */
	struct wvm_udp_opts o = {.bind = {.sin_family = AF_INET,
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					  .sin_port = htons(node->options->ctrl_port)},
				 .datagram = on_datagram,
				 .rx_buffers = 4,
				 .tx_buffers = 64,
				 .socket_bytes = 1 << 17};
	void *ctx = c;
	int r;

	if (!c) {
		snprintf(err, err_len, "no memory for the control port");
		return -ENOMEM;
	}
	c->node = node;
	*err = 0;
	r = wvm_udp_open(&c->udp, &node->shards[0].shard, &ctx, 1, &o, err, err_len);
	if (r) {
		free(c);
		return r;
	}
	*out = c;
	return 0;
}

struct wvm_udp *wvm_control_udp(struct wvm_control *c)
{
	return c->udp;
}

void wvm_control_close(struct wvm_control *c)
{
	if (!c)
		return;
	wvm_udp_close(c->udp);
	for (unsigned i = 0; i < ASKERS_MAX; i++)
		free(c->snapshots[i].text);
	free(c);
}

/*
 * The control port: any datagrams. Each answer fits the part size and says which
 * request it answers; all parts of one snapshot together are JSON.
 */
#include <jansson.h>
#include <unistd.h>

#include "roles/master/fuzz/own_shm.h"
#include "roles/master/mem_priv.h"
#include "shared/fuzz/fuzz.h"

#include "roles/master/control.c" // NOLINT: the unit under test

#define OPS_MAX 64u
#define PAGES   1024u

static struct wvm_node node;
static struct wvm_control *control;
static struct wvm_master_options options = {.phys_id = 4,
					    .ring_path = "/dev/shm/r",
					    .vms = {{7, PAGES *WVM_PAGE_BYTES}},
					    .vm_count = 1};
static uint8_t last[2048]; /* the last answer */
static size_t last_len;
static unsigned answers;

/* ---- instead of the socket and of what the node has besides ---------------------------------- */

int wvm_udp_open(struct wvm_udp **out, struct wvm_shard *const *shards, void *const *ctx,
		 unsigned n, const struct wvm_udp_opts *opts, char *why, size_t why_len)
{
	FUZZ_CHECK(opts->bind.sin_addr.s_addr == htonl(INADDR_LOOPBACK), "not loopback alone");
	*out = NULL;
	return 0;
}

void wvm_udp_close(struct wvm_udp *u)
{
}

int wvm_udp_send(struct wvm_udp *u, enum wvm_lane lane, const struct sockaddr_in *peer,
		 uint16_t steer, const void *data, size_t len)
{
	FUZZ_CHECK(len >= WVM_CONTROL_HEADER_BYTES &&
			   len <= WVM_CONTROL_HEADER_BYTES + WVM_CONTROL_PART,
		   "an answer of %zu bytes", len);
	memcpy(last, data, len);
	last_len = len;
	answers++;
	return 0;
}

unsigned wvm_clients_count(const struct wvm_clients *c)
{
	return 3;
}

unsigned wvm_clients_vcpu_count(const struct wvm_clients *c)
{
	return 2;
}

/* Owners that say anything. */
static const struct wvm_vcpu_report said[2] = {
	{.is = WVM_VCPU_IS_RUNNING, .first = 1, .vcpus = 3, .runs = 9},
	{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, .outcome = UINT64_MAX,
	 .reason = UINT64_MAX, .exits = {UINT64_MAX, UINT64_MAX, UINT64_MAX}}};

void wvm_clients_vcpu_each(const struct wvm_clients *c, wvm_clients_vcpu_fn *fn, void *ctx)
{
	fn(ctx, 7, 1, &said[0]);
	fn(ctx, 7, 2, &said[1]);
}

bool wvm_clients_vcpu_order(struct wvm_clients *c, uint16_t vm_id, unsigned vcpu, uint64_t wanted,
			    struct wvm_vcpu_report *out)
{
	if (vm_id != 7 || vcpu < 1 || vcpu > 2)
		return false;
	*out = said[vcpu - 1];
	out->answered = vcpu == 2 ? wanted : 0;
	return true;
}

const struct wvm_gossip_peer *wvm_node_membership_peer(const struct wvm_node_membership *n,
						       uint32_t member)
{
	return wvm_gossip_find(n->m.gossip, n->node->members.list[member].first_vnode);
}

/* Whatever is ordered: the record is one that may follow. */
int wvm_node_membership_wish(struct wvm_node_membership *n, const struct wvm_epoch_record *record)
{
	FUZZ_CHECK(wvm_epoch_record_check(record) && record->epoch == 2, "a wish of epoch %u",
		   record->epoch);
	return 0;
}

uint64_t wvm_reclaim_held(const struct wvm_node *n)
{
	return 5;
}

bool wvm_reclaim_leaving(const struct wvm_node *n)
{
	return true;
}

bool wvm_reclaim_empty(const struct wvm_node *n)
{
	return false;
}

uint64_t wvm_reclaim_left(const struct wvm_node *n)
{
	return 5;
}

uint64_t wvm_reclaim_budget(const struct wvm_node *n)
{
	return PAGES;
}

uint64_t wvm_now_ns(void)
{
	return 5000000000u;
}

/* As in membership.c, without a socket and timers. */
void wvm_node_membership_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data,
				  size_t len)
{
	struct wvm_node_membership *n = ctx;
	struct wvm_hop at = {.ip = ntohl(from->sin_addr.s_addr), .port = ntohs(from->sin_port)};

	wvm_membership_datagram(&n->m, &at, data, len, wvm_now_ns());
}

void wvm_shard_hook(struct wvm_shard *s, enum wvm_hook_stage stage, struct wvm_hook *h)
{
}

/* ---- a node of three ---------------------------------------------------------------------------
 */

static struct wvm_runs runs;

/* More stamps than one answer has room for, of every kind and of messages that there are not. */
static void make_trace(struct wvm_trace *t, struct wvm_shard *shard)
{
	FUZZ_CHECK(!wvm_trace_open(t, shard), "trace");
	wvm_trace_until(t, UINT64_MAX);
	for (unsigned i = 0; i < WVM_CONTROL_STAMPS_MAX + 100; i++)
		wvm_trace(t, i % WVM_STAMP_KINDS, (uint8_t)i, 7, ~(uint64_t)i, ~(uint64_t)i);
	wvm_trace_until(t, 0);
}

/* ---- membership ------------------------------------------------------------------------------ */

static struct wvm_node_membership membership;
static struct wvm_node_peer peers[3];

static bool where(void *ctx, uint32_t vnode, struct wvm_hop *out)
{
	uint32_t member = wvm_member_of(&node.members, vnode);

	if (member == WVM_SLICE_NIL)
		return false;
	*out = peers[member].at;
	return true;
}

static bool send_to(void *ctx, uint32_t vnode, const struct wvm_hop *to, const uint8_t *bytes,
		    size_t len)
{
	FUZZ_CHECK(len <= WVM_MTU_DEFAULT && to->port == 9001, "%zu bytes to %x", len, to->ip);
	return true;
}

/* The disk is slow for ever: all of its states are shown. */
static void save(void *ctx, const struct wvm_epoch_durable *d)
{
	FUZZ_CHECK(wvm_epoch_durable_check(d), "a state to store");
}

static void note(void *ctx, const struct wvm_gossip_action *a, uint64_t now_ns)
{
}

static void learnt(void *ctx, const struct wvm_epoch_record *r, enum wvm_epoch_verdict verdict)
{
}

static void behind(void *ctx, uint32_t vnode, uint32_t epoch)
{
}

static void open_membership(void)
{
	static const struct wvm_membership_ops ops = {.where = where,
						      .send = send_to,
						      .save = save,
						      .note = note,
						      .learnt = learnt,
						      .behind = behind};
	struct wvm_gossip_self self = {.ip = 0x0a000001, .port = 9001, .incarnation = 1 << 16};
	uint32_t ids[3];
	struct wvm_epoch_record first;
	struct wvm_epoch_durable d;

	for (uint32_t i = 0; i < 3; i++) {
		ids[i] = node.members.list[i].first_vnode;
		peers[i].at = (struct wvm_hop){.ip = 0x0a000001 + i, .port = 9001};
	}
	wvm_ballots_first(&first, ids, 3);
	wvm_epoch_first(&d, &first);
	membership = (struct wvm_node_membership){
		.node = &node, .open = true, .told = true, .shared = true, .peers = peers};
	membership.gossip_memory = aligned_alloc(8, wvm_gossip_bytes(WVM_GOSSIP_ROOM));
	wvm_membership_init(&membership.m, &ops, &membership, membership.gossip_memory,
			    WVM_GOSSIP_ROOM, WVM_MTU_DEFAULT, &self, &d, 1, wvm_now_ns());
	for (uint32_t i = 1; i < 3; i++)
		FUZZ_CHECK(wvm_membership_add(&membership.m, ids[i], wvm_now_ns()), "add");
	wvm_membership_life(&membership.m, WVM_NODE_ACTIVE, wvm_now_ns());
	node.membership = &membership;
}

/* That of the topology: nothing is read or stored. */
static void open_view(void)
{
	struct wvm_node_view *v = calloc(1, sizeof(*v));
	struct wvm_epoch_record first;

	FUZZ_CHECK(v && !wvm_node_first_record(&node, &first), "memory");
	v->node = &node;
	v->homes = calloc(node.members.count, 1);
	v->gone = calloc(node.members.count, 1);
	wvm_view_first(&v->now, &first, &node.members, NULL, &v->scratch);
	v->is.slices = v->now.slices;
	v->next = v->now;
	node.view = v;
}

static void open_node(void)
{
	static const char text[] = "NODE 4 10.0.0.1 9000 4 4\nNODE 5 10.0.0.2 9000 4 8\n"
				   "NODE 6 10.0.0.3 9000 4 4\n";
	static struct wvm_member list[3];
	static uint8_t answered[3] = {1, 1, 0};
	static struct wvm_shard shard;
	struct wvm_core_params p = {.members = &node.members, .boot = 1};
	struct wvm_core_vm vm = {.id = 7, .pages = PAGES};
	char err[256];

	node.options = &options;
	FUZZ_CHECK(
		!wvm_topology_parse(&node.topology, "t", text, sizeof(text) - 1, err, sizeof(err)),
		"%s", err);
	for (uint32_t i = 0; i < 3; i++)
		list[i] = (struct wvm_member){node.topology.nodes[i].first_vnode,
					      node.topology.nodes[i].vnode_count};
	node.members = (struct wvm_members){list, 3};
	open_view();
	node.join_answered = answered;
	node.shard_count = 1;
	node.shards[0].shard = &shard;
	node.shards[0].runs = &runs;
	wvm_node_view_params(&node, &p);
	wvm_core_default_limits(&p.limits);
	wvm_core_default_times(&p.times);
	node.shards[0].core_memory = aligned_alloc(64, (wvm_core_bytes(&p) + 63) & ~(size_t)63);
	node.shards[0].core = wvm_core_init(node.shards[0].core_memory, &p);
	vm.home = calloc(PAGES, sizeof(*vm.home));
	vm.held = calloc(PAGES, sizeof(*vm.held));
	vm.units = calloc(PAGES / WVM_UNIT_PAGES, sizeof(*vm.units));
	vm.held_units = calloc(PAGES / WVM_UNIT_PAGES, sizeof(*vm.held_units));
	vm.home[1].state = WVM_HOME_MODIFIED;
	vm.home[1].holders = 1;
	vm.home[1].member[0] = 2;
	wvm_core_add_vm(node.shards[0].core, &vm);
	FUZZ_CHECK(!wvm_backing_open(&node.backing[0], &vm), "backing");
	fuzz_own_shm();
	snprintf(options.shm_file, sizeof(options.shm_file), "/dev/shm/wvm-fuzz-control.%d",
		 (int)getpid());
	FUZZ_CHECK(!wvm_memory_new(&node.memory, 1, NULL, NULL) &&
			   !wvm_mem_open(node.memory, &node.vms[0], 7, options.shm_file,
					 PAGES * WVM_PAGE_BYTES, WVM_MEM_EMPTY, err, sizeof(err)),
		   "%s", err);
	wvm_mem_unlink(node.vms[0]);
	node.vm_count = 1;
	make_trace(&node.shards[0].trace, &shard);
	FUZZ_CHECK(!wvm_control_open(&control, &node, err, sizeof(err)), "%s", err);
	node.control = control;
	open_membership();
}

static uint16_t field(unsigned at)
{
	return (uint16_t)(last[at] << 8 | last[at + 1]);
}

/* Exactly the bytes of a datagram. */
static void give(const uint8_t *data, size_t len)
{
	const struct sockaddr_in from = {.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(0x0a000002),
					 .sin_port = htons(9001)};
	uint8_t *exact = fuzz_copy(data, len);

	answers = 0;
	on_datagram(control, &from, exact, len);
	FUZZ_CHECK(answers <= 1 && (!answers || len == WVM_CONTROL_REQUEST_BYTES), "answers");
	if (answers)
		FUZZ_CHECK(!memcmp(last, data, 4) && field(6) == (data[6] << 8 | data[7]) &&
				   field(4) == ((data[4] << 8 | data[5]) | WVM_CONTROL_ANSWER),
			   "an answer to something else");
	free(exact);
}

/* The first part has been answered: the others follow, and are JSON with it. */
static void collect(uint8_t *request)
{
	uint16_t parts = field(14);
	json_error_t why;
	char *text = NULL;
	size_t len = 0;
	json_t *o;

	for (uint16_t part = 0; part < parts; part++) {
		if (part) {
			request[6] = (uint8_t)(part >> 8);
			request[7] = (uint8_t)part;
			memcpy(request + 8, last + 8, 4);
			give(request, WVM_CONTROL_REQUEST_BYTES);
			FUZZ_CHECK(answers && !field(12), "part %u of %u", part, parts);
		}
		text = realloc(text, len + last_len);
		memcpy(text + len, last + WVM_CONTROL_HEADER_BYTES,
		       last_len - WVM_CONTROL_HEADER_BYTES);
		len += last_len - WVM_CONTROL_HEADER_BYTES;
	}
	o = json_loadb(text ? text : "", len, 0, &why);
	FUZZ_CHECK(o, "%zu bytes in %u parts: %s", len, parts, why.text);
	json_decref(o);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};

	if (!control)
		open_node();
	for (unsigned i = 0; i < OPS_MAX && in.left; i++) {
		uint8_t how = fuzz_u8(&in), datagram[64] = "WVMC";
		size_t bytes = how & 0x80 ? fuzz_u8(&in) % sizeof(datagram) : 24;

		if (how & 0x40) {
			fuzz_bytes(&in, datagram, bytes);
		} else {
			datagram[5] = (uint8_t)(WVM_CONTROL_STATUS + how % 8 + (how % 16 == 15));
			datagram[7] = how & 0x20 ? fuzz_u8(&in) : 0;
			fuzz_bytes(&in, datagram + 8, 4);
			datagram[13] = how & 8 ? fuzz_u8(&in) : 7;
			fuzz_bytes(&in, datagram + (how & 0x10 ? 16 : 21), how & 0x10 ? 8 : 3);
		}
		give(datagram, bytes);
		if (answers && !field(6) && !field(12))
			collect(datagram);
	}
	return 0;
}

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	static const uint8_t each[] = {0, 0, 0, 0, 0, 0, 0,    0, 1, 0, 0, 0, 0, 0,  0, 0, 2,
				       0, 0, 0, 0, 0, 0, 0,    2, 0, 0, 0, 0, 0, 16, 0, 3, 0,
				       0, 0, 0, 0, 0, 0, 0x20, 1, 0, 0, 0, 1, 0, 0,  0};
	/* Traced for 100 ms, no more; stamps from 0 and from 4000 on; of a shard there is not. */
	static const uint8_t trace[] = {3,  0,   0,    0, 0, 0, 0, 100, 3, 0, 0, 0, 0, 0, 0,
					0,  4,   0,    0, 0, 0, 0, 0,   0, 4, 0, 0, 0, 0, 0,
					15, 160, 0x14, 0, 0, 0, 0, 0,   1, 0, 0, 0, 0, 0, 0};
	/* Where they run; orders: that waits, of a liar, of a local one, to no node of ours. */
	static const uint8_t vcpus[] = {5, 0, 0,    0, 0,    0, 0,    0, 0x16, 0, 0, 0, 0, 1, 0,
					0, 9, 0,    0, 0,    5, 0x16, 0, 0,    0, 0, 2, 0, 0, 9,
					0, 0, 0,    5, 0x16, 0, 0,    0, 0,    0, 0, 0, 9, 0, 0,
					0, 5, 0x16, 0, 0,    0, 0,    1, 0,    0, 9, 0, 0, 0, 9};

	/* Who answers, and the epoch. */
	static const uint8_t members[] = {7, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0, 0, 0, 7, 0, 0, 0};

	put("members", members, sizeof(members));
	put("each", each, sizeof(each));
	put("trace", trace, sizeof(trace));
	put("vcpus", vcpus, sizeof(vcpus));
}

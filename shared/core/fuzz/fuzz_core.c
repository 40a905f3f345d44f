/*
 * One core among hostile members: they send any messages that decode, with ids
 * and versions that mean something, while programs fault, pin and leave, the
 * RAM file runs out of room and time passes. No assertion is reached, every
 * action fits the state of the node, all pools stay whole, and whoever waits is
 * answered when all have fallen silent.
 */
#include "shared/core/fuzz/node.h"

#define SELF    1u
#define OPS_MAX 400u
#define POOL    16u

static struct node node;

/* Numbers that were on the wire lately: what a hostile member knows. */
static struct pool {
	uint64_t value[POOL];
	unsigned next;
} ids, grants, versions;
static uint64_t counter; /* of the hostile members' own request ids */

static void learn(struct pool *p, uint64_t value)
{
	p->value[p->next++ % POOL] = value;
}

static void node_send(struct node *n, uint32_t member, const struct wvm_msg *msg,
		      const uint8_t *page)
{
	learn(&ids, msg->request);
	learn(msg->grant ? &grants : &ids, msg->grant ? msg->grant : msg->request);
	learn(&versions, msg->version);
}

static uint64_t pick(struct fuzz_in *in, const struct pool *p)
{
	uint8_t how = fuzz_u8(in);
	uint64_t known = p->value[(p->next - 1 - how % POOL) % POOL];

	switch (how / POOL) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
	case 5:
	case 6:
	case 7:
	case 8: return known;
	case 9: return known + 1;
	case 10: return known - 1;
	case 11: return (uint64_t)EPOCH << 32 | how % POOL;
	case 12: return how % POOL;
	case 13: return UINT64_MAX - how % POOL;
	case 14: return fuzz_u64(in);
	default: return wvm_request_id((uint16_t)(how % 4), how >> 2 & 1, fuzz_u16(in));
	}
}

/* Of a request of theirs: mostly the next one, as the window of ids wants it. */
static uint64_t pick_request(struct fuzz_in *in)
{
	uint8_t how = fuzz_u8(in);

	if (how < 160)
		return wvm_request_id(3, 0, counter += 1 + how % 4);
	if (how < 180)
		return wvm_request_id(3, 0, counter - how % 8);
	if (how < 200)
		return wvm_request_id((uint16_t)(how % 4), how % 3, counter += 5000);
	return pick(in, &ids);
}

static const uint8_t types[] = {
	WVM_MSG_MEM_READ,  WVM_MSG_MEM_ACQUIRE,          WVM_MSG_MEM_ACK,    WVM_MSG_INVALIDATE,
	WVM_MSG_DOWNGRADE, WVM_MSG_FETCH_AND_INVALIDATE, WVM_MSG_WRITE_BACK, WVM_MSG_INVALIDATE_ACK,
	WVM_MSG_NOT_HELD,  WVM_MSG_WRITE_BACK_ACK,       WVM_MSG_LOST,       WVM_MSG_WRONG_HOME,
	WVM_MSG_MEM_ACK,   WVM_MSG_WRITE_BACK,
};

static bool from_requester(uint8_t type)
{
	return type == WVM_MSG_MEM_READ || type == WVM_MSG_MEM_ACQUIRE;
}

/* A whole page, one of its segments at several sizes, or instead a flag. */
static void pick_payload(struct fuzz_in *in, struct wvm_msg *m)
{
	static const uint16_t sizes[] = {4096, 1408, 1024, 512};
	uint8_t how = fuzz_u8(in);
	uint16_t size = sizes[how & 3];

	m->flags = how >> 3 & 1 ? fuzz_u8(in) : 0;
	if (how >> 2 & 1) {
		m->flags |= how & 1 ? WVM_MSG_ZERO : WVM_MSG_HELD;
		return;
	}
	m->seg_total = WVM_PAGE_BYTES;
	m->seg_offset = (how >> 4) * (uint32_t)size;
	if (m->seg_offset >= WVM_PAGE_BYTES)
		m->seg_offset = 0;
	m->payload_len = (uint16_t)(WVM_PAGE_BYTES - m->seg_offset < size
					    ? WVM_PAGE_BYTES - m->seg_offset
					    : size);
}

static void message(struct fuzz_in *in)
{
	uint8_t who = fuzz_u8(in), what = fuzz_u8(in);
	uint32_t member = who % (MEMBERS - 1), page = what / 16 % 8;
	struct wvm_msg m = {.type = types[what % sizeof(types)],
			    .hops = 1,
			    .vm_id = VM_ID,
			    .epoch = EPOCH,
			    .dst = member_list[SELF].first_vnode + (who >> 5) % 2,
			    .steer = 3,
			    .reply_steer = fuzz_u8(in)};
	uint8_t *payload;

	member += member >= SELF;
	m.src = member_list[member].first_vnode + (who >> 6) % member_list[member].vnodes;
	m.gpa = (page < PAGES ? core_page(page) : VM_PAGES - 7 + page) << WVM_PAGE_SHIFT;
	m.request = from_requester(m.type) ? pick_request(in) : pick(in, &ids);
	if (m.type == WVM_MSG_MEM_ACK || m.type == WVM_MSG_WRITE_BACK)
		pick_payload(in, &m);
	else
		m.flags = who >> 7 ? fuzz_u8(in) : 0;
	m.version = pick(in, &versions);
	if (!from_requester(m.type))
		m.grant = pick(in, what & 0x80 ? &ids : &grants);
	if (wvm_wire_check(&m))
		return;
	payload = malloc(m.payload_len);
	memset(payload, fuzz_u8(in), m.payload_len);
	/* A demand of theirs is in the same window as their requests. */
	if (!from_requester(m.type))
		learn(&ids, m.request);
	learn(&grants, m.request);
	wvm_core_message(node.core, node.now_ns, &m, m.payload_len ? payload : NULL);
	node_drain(&node);
	free(payload);
}

static void pass(struct fuzz_in *in)
{
	static const uint64_t steps[] = {0,      1000,    50000,    100000,
					 6 * MS, 50 * MS, 500 * MS, 2600 * MS};

	node_tick(&node, node.now_ns + steps[fuzz_u8(in) % 8]);
}

static void step(struct fuzz_in *in)
{
	uint8_t op = fuzz_u8(in), arg;

	if (op < 144) {
		message(in);
		return;
	}
	arg = fuzz_u8(in);
	switch ((op - 144) / 16) {
	case 0:
	case 1: node_fault(&node, arg % PAGES, arg / 64 % 2, arg >> 3 & 1); break;
	case 2: node_pin(&node, arg % PAGES); break;
	case 3: node_unpin(&node, arg % PAGES); break;
	case 4: node_gone(&node, arg % CLIENTS); break;
	case 5:
		if (arg < 32)
			wvm_core_serve(node.core, arg & 1);
		else
			node.fail_installs = arg & 3;
		break;
	default: pass(in); break;
	}
}

/* All are silent now: everybody who waits gets an answer, be it the deadline's. */
static void settle(void)
{
	uint64_t end = node.now_ns + 2 * node.params.times.deadline_ns + 1000 * MS;

	while (wvm_core_deadline(node.core) <= end)
		node_tick(&node, wvm_core_deadline(node.core) > node.now_ns
					 ? wvm_core_deadline(node.core)
					 : node.now_ns);
	for (uint32_t i = 0; i < PAGES; i++)
		FUZZ_CHECK(!(node.wait_read[i] | node.wait_write[i] | node.asked[i]) &&
				   !node.held[core_page(i)].request,
			   "page %u is waited for without end", i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct wvm_core_limits tight = {.requests = 3,
						     .txns = 2,
						     .waiting = 2,
						     .demands = 2,
						     .partials = 2,
						     .holder_blocks = 1,
						     .peer_shards = 2};
	struct wvm_core_limits roomy = {.requests = 8,
					.txns = 8,
					.waiting = 16,
					.demands = 8,
					.partials = 8,
					.holder_blocks = 4,
					.peer_shards = 2};
	struct fuzz_in in = {data, len};
	uint8_t how = fuzz_u8(&in);

	if (!member_list[1].vnodes)
		cluster_init();
	node_open(&node, SELF, how & 1 ? &tight : &roomy, how);
	ids = grants = versions = (struct pool){.next = 1};
	counter = 0;
	for (unsigned i = 0; i < OPS_MAX && in.left; i++)
		step(&in);
	settle();
	node_close(&node);
	return 0;
}

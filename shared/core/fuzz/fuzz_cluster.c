/*
 * Two or three real cores that are honest, and a network and programs that the
 * fuzzer drives: every order, loss and copy of messages, segments torn apart,
 * pools of a few slots, full RAM files, programs that leave. A load never sees
 * anything but the last store, no two nodes may write at once, and when the
 * network is whole again everybody gets on.
 */
#include "shared/core/fuzz/node.h"

#define NODES_MAX 3u
#define OPS_MAX   500u
#define WIRE_MAX  48u /* messages on their way; then the oldest is lost */

struct letter {
	uint32_t to;
	struct wvm_msg msg;
	uint8_t payload[WVM_PAGE_BYTES];
};

static struct node nodes[NODES_MAX];
static uint32_t count, pages; /* that take part */
static struct letter letters[WIRE_MAX];
static uint8_t wire[WIRE_MAX]; /* a permutation of the letters; wire_count are on their way */
static uint32_t wire_count;
static uint32_t segment; /* bytes of a page per message */
static uint64_t truth[PAGES], stored, now_ns;

/* ---- network ------------------------------------------------------------------------------ */

static struct letter *letter(uint32_t i)
{
	return &letters[wire[i]];
}

/* Takes the i-th oldest off the wire. */
static void lose(uint32_t i)
{
	uint8_t slot = wire[i];

	memmove(&wire[i], &wire[i + 1], (--wire_count - i) * sizeof(wire[0]));
	wire[wire_count] = slot;
}

static void post(uint32_t to, const struct wvm_msg *msg, const uint8_t *payload)
{
	struct letter *l;

	if (wire_count == WIRE_MAX)
		lose(0);
	l = letter(wire_count++);
	l->to = to;
	l->msg = *msg;
	if (msg->payload_len)
		memcpy(l->payload, payload, msg->payload_len);
}

static void node_send(struct node *n, uint32_t member, const struct wvm_msg *msg,
		      const uint8_t *page)
{
	struct wvm_msg m = *msg;

	FUZZ_CHECK(member < count, "to member %u", member);
	if (!page) {
		post(member, &m, NULL);
		return;
	}
	for (uint32_t at = 0; at < WVM_PAGE_BYTES; at += segment) {
		m.seg_offset = at;
		m.payload_len = (uint16_t)(WVM_PAGE_BYTES - at < segment ? WVM_PAGE_BYTES - at
									 : segment);
		post(member, &m, page + at);
	}
}

FUZZ_UNWATCHED_BEGIN

/* ---- memory ------------------------------------------------------------------------------- */

static uint64_t word(const struct node *n, uint32_t i, uint32_t at)
{
	uint64_t v;

	memcpy(&v, n->ram[i] + at * 1360u, sizeof(v));
	return v;
}

/* Whoever has a page has the last store, whole; who may write has it alone. */
static void check_memory(void)
{
	for (uint32_t i = 0; i < PAGES; i++) {
		uint32_t have = 0, may_write = 0;

		for (uint32_t k = 0; k < count; k++) {
			if (!nodes[k].present[i])
				continue;
			have++;
			may_write += nodes[k].stores[i];
			for (uint32_t at = 0; at < 4; at++)
				FUZZ_CHECK(word(&nodes[k], i, at) == truth[i],
					   "node %u, page %u, word %u: %lu is read, %lu was stored",
					   k, i, at, (unsigned long)word(&nodes[k], i, at),
					   (unsigned long)truth[i]);
		}
		FUZZ_CHECK(!may_write || have == 1, "page %u: %u have it, %u write", i, have,
			   may_write);
	}
	for (uint32_t k = 0; k < count; k++)
		FUZZ_CHECK(!wvm_core_stats(nodes[k].core)->home_lost, "lost pages at node %u", k);
}

static void program(uint32_t k, uint32_t i, bool write, unsigned client)
{
	struct node *n = &nodes[k];

	if (!n->present[i] || (write && !n->stores[i])) {
		node_fault(n, i, write, client);
		return;
	}
	if (!write)
		return; /* check_memory() reads all */
	truth[i] = ++stored;
	for (uint32_t at = 0; at < 4; at++)
		memcpy(n->ram[i] + at * 1360u, &truth[i], sizeof(truth[i]));
}

/* ---- steps -------------------------------------------------------------------------------- */

static void deliver(uint32_t i, bool keep)
{
	const struct letter *l = letter(i);
	struct wvm_msg msg = l->msg;
	struct node *n = &nodes[l->to];
	uint8_t *exact = fuzz_copy(l->payload, msg.payload_len);

	if (!keep)
		lose(i);
	wvm_core_message(n->core, now_ns, &msg, msg.payload_len ? exact : NULL);
	node_drain(n);
	free(exact);
}

static void pass(uint64_t ns)
{
	now_ns += ns;
	for (uint32_t k = 0; k < count; k++)
		node_tick(&nodes[k], now_ns);
}

static void step(struct fuzz_in *in)
{
	static const uint64_t times[] = {0,      10000,   100000,   1 * MS,
					 7 * MS, 30 * MS, 600 * MS, 5100 * MS};
	uint8_t op = fuzz_u8(in), arg = fuzz_u8(in);
	uint32_t k = op % count;

	switch (op / 16) {
	case 0:
	case 1:
	case 2:
	case 3: program(k, arg % pages, op & 16, arg >> 6 & 1); break;
	case 4: node_pin(&nodes[k], arg % pages); break;
	case 5: node_unpin(&nodes[k], arg % pages); break;
	case 6: pass(times[arg % 8]); break;
	case 7:
		if (arg < 8)
			node_gone(&nodes[k], arg % CLIENTS);
		else if (arg < 64)
			nodes[k].fail_installs = arg % 3;
		else
			pass(times[arg % 6]);
		break;
	case 8:
		if (wire_count)
			lose(arg % wire_count);
		break;
	case 9:
		if (wire_count)
			deliver(arg % wire_count, true);
		break;
	default:
		if (wire_count)
			deliver(op & 8 ? 0 : arg % wire_count, false);
		break;
	}
	for (k = 0; k < count; k++)
		nodes[k].now_ns = now_ns;
	check_memory();
}

/* ---- the end ------------------------------------------------------------------------------ */

static bool all_answered(void)
{
	for (uint32_t k = 0; k < count; k++)
		for (uint32_t i = 0; i < PAGES; i++)
			if (nodes[k].held[core_page(i)].request)
				return false;
	return !wire_count;
}

static void run_whole(const char *what)
{
	uint64_t end = now_ns + 12000 * MS;

	for (unsigned steps = 0; !all_answered(); steps++) {
		uint64_t due = WVM_CORE_NEVER;

		FUZZ_CHECK(now_ns < end && steps < 100000, "%s: no end", what);
		if (wire_count) {
			deliver(0, false);
			continue;
		}
		for (uint32_t k = 0; k < count; k++)
			if (wvm_core_deadline(nodes[k].core) < due)
				due = wvm_core_deadline(nodes[k].core);
		FUZZ_CHECK(due != WVM_CORE_NEVER, "%s: nobody has a timer", what);
		pass(due > now_ns ? due - now_ns : 0);
		check_memory();
	}
}

static void unpin_all(void)
{
	for (uint32_t k = 0; k < count; k++)
		for (uint32_t i = 0; i < pages; i++)
			while (nodes[k].pinned[i])
				node_unpin(&nodes[k], i);
}

/* The network is whole and nobody pins: all requests end, and every node gets every page. */
static void settle(void)
{
	for (uint32_t k = 0; k < count; k++)
		nodes[k].fail_installs = 0;
	unpin_all();
	run_whole("settling");
	unpin_all(); /* those that were asked for before, and came */
	for (uint32_t k = 0; k < count; k++)
		for (uint32_t i = 0; i < pages; i++) {
			nodes[k].failed[i] = 0;
			program(k, i, (k + i) & 1, 2);
			run_whole("a last access");
			FUZZ_CHECK(!nodes[k].failed[i],
				   "page %u fails at node %u of a whole network", i, k);
		}
}

FUZZ_UNWATCHED_END

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct wvm_core_limits tight = {.requests = 3,
						     .txns = 2,
						     .waiting = 1,
						     .demands = 2,
						     .partials = 1,
						     .holder_blocks = 1,
						     .peer_shards = 1};
	static const struct wvm_core_limits roomy = {.requests = 16,
						     .txns = 16,
						     .waiting = 32,
						     .demands = 16,
						     .partials = 16,
						     .holder_blocks = 4,
						     .peer_shards = 1};
	struct fuzz_in in = {data, len};
	uint8_t how = fuzz_u8(&in);

	if (!member_list[1].vnodes)
		cluster_init();
	count = how & 1 ? 3 : 2;
	pages = 2 * count; /* the last unit's home is the third node */
	segment = how & 2 ? 1408 : how & 4 ? 2048 : WVM_PAGE_BYTES;
	wire_count = 0;
	stored = 0;
	memset(truth, 0, sizeof(truth));
	for (uint32_t i = 0; i < WIRE_MAX; i++)
		wire[i] = (uint8_t)i;
	for (uint32_t k = 0; k < count; k++)
		node_open(&nodes[k], k, how & 8 ? &tight : &roomy, how + k + 1);
	now_ns = nodes[0].now_ns;
	for (unsigned i = 0; i < OPS_MAX && in.left; i++)
		step(&in);
	settle();
	for (uint32_t k = 0; k < count; k++)
		node_close(&nodes[k]);
	return 0;
}

/*
 * A gateway's inputs: orders about routes as any bytes, and datagrams of neighbours and strangers,
 * any bytes or segments that are right but for what the input says. Whatever comes: nobody but a
 * neighbour is heard or learned from, every segment is in one counter, what leaves are whole
 * segments within the mtu, as many as were forwarded and pushed back, and routes stay sorted and
 * agree with a model.
 */
#include "shared/control_route.h"
#include "shared/forward.h"
#include "shared/fuzz/fuzz.h"
#include "shared/wire.h"

#define MTU     576u
#define BUFFERS 256u
#define ROOM    6u
#define HOPS    6u /* of which 1 to 3 can become neighbours */
#define STEPS   200u

struct bed {
	struct wvm_routes_table routes;
	struct wvm_forward f;
	void *memory;
	uint8_t *pool[BUFFERS];
	unsigned taken;  /* of pool */
	unsigned starve; /* lanes that get no buffer, as bits */
	uint64_t out_segments;
};

static struct wvm_hop hop(unsigned n)
{
	return (struct wvm_hop){.ip = 0x0a000000 + n % HOPS, .port = 8000};
}

static void check_routes(const struct bed *b)
{
	for (unsigned c = 0; c < WVM_ROUTE_CLASSES; c++) {
		const struct wvm_route_list *l = &b->routes.list[c];

		FUZZ_CHECK(l->count <= l->room, "class %u", c);
		for (uint32_t i = 0; i < l->count; i++) {
			const struct wvm_route_range *r = &l->at[i];

			FUZZ_CHECK(r->count && r->first < WVM_NODE_MAX &&
					   r->count <= WVM_NODE_MAX - r->first && r->hop.ip &&
					   r->hop.port,
				   "class %u, range %u", c, i);
			FUZZ_CHECK(!i || r->first >= r[-1].first + r[-1].count, "order of class %u",
				   c);
		}
	}
}

static void order(struct bed *b, struct fuzz_in *in)
{
	size_t len = fuzz_u8(in) % 24;
	uint8_t *data = malloc(len + 1), again[WVM_ROUTE_ORDER_BYTES];
	enum wvm_control_status status;
	enum wvm_route_class class, found;
	struct wvm_route_order o;
	const struct wvm_hop *h;
	bool done;

	FUZZ_CHECK(data, "memory");
	fuzz_bytes(in, data, len);
	if (len >= 6 && fuzz_u8(in) & 1)
		memcpy(data, "WVMC\0", 5);
	if (!wvm_route_order_is(data, len)) {
		free(data);
		return;
	}
	status = wvm_route_order_decode(data, len, &o);
	if (status == WVM_CONTROL_OK) {
		FUZZ_CHECK(o.count && o.first + o.count <= WVM_NODE_MAX, "range");
		wvm_route_order_encode(again, &o);
		FUZZ_CHECK(!memcmp(again, data, len), "the same bytes again");
		class = o.op == WVM_CONTROL_ROUTE_ANNOUNCE ? WVM_ROUTE_ANNOUNCED
							   : WVM_ROUTE_OPERATOR;
		o.hop = hop(1 + o.hop.ip % 3);
		done = o.op == WVM_CONTROL_ROUTE_DEL
			       ? wvm_route_clear(&b->routes, class, o.first, o.count, NULL)
			       : wvm_route_set(&b->routes, class, o.first, o.count, o.hop);
		wvm_forward_routes_changed(&b->f);
		h = wvm_route_find(&b->routes, o.first + o.count - 1, &found);
		if (done && o.op == WVM_CONTROL_ROUTE_DEL)
			FUZZ_CHECK(found != WVM_ROUTE_OPERATOR, "deleted");
		else if (done)
			FUZZ_CHECK(found < class || (h && wvm_hop_same(*h, o.hop)), "set");
	}
	free(data);
}

static void leave(struct bed *b, const struct wvm_forward_out *out)
{
	size_t at = 0;

	FUZZ_CHECK(out->len && out->len <= MTU && out->hop.ip, "%u bytes", out->len);
	while (at < out->len) {
		struct wvm_wire_hop h;
		size_t segment, consumed;

		FUZZ_CHECK(!wvm_wire_peek(out->buf + at, out->len - at, &h, &segment, &consumed),
			   "at %zu of %u", at, out->len);
		FUZZ_CHECK(h.hops < WVM_HOPS_MAX || h.type == WVM_MSG_PUSH_BACK, "a hop less");
		b->out_segments++;
		at += segment; /* what looks like padding is a segment's */
	}
	b->taken--;
	for (unsigned i = 0; i < BUFFERS; i++)
		if (b->pool[i] == out->buf) {
			b->pool[i] = b->pool[b->taken];
			b->pool[b->taken] = out->buf;
			return;
		}
	FUZZ_CHECK(false, "a buffer of nobody");
}

static void feed(struct bed *b, struct wvm_hop from, const uint8_t *data, size_t len)
{
	struct wvm_forward_out out;
	uint32_t learned = b->routes.list[WVM_ROUTE_LEARNED].count;
	bool trusted = wvm_route_trusts(&b->routes, from);

	learned = b->routes.list[WVM_ROUTE_LEARNED].count;
	FUZZ_CHECK(wvm_forward_begin(&b->f, from) == trusted, "trust");
	while (trusted && len) {
		size_t n;

		for (unsigned i = 0; i < WVM_FORWARD_LANES; i++)
			if (wvm_forward_wants(&b->f, i) && !(b->starve >> i & 1) &&
			    b->taken < BUFFERS)
				wvm_forward_supply(&b->f, i, b->pool[b->taken++]);
		n = wvm_forward_segment(&b->f, from, data, len);
		FUZZ_CHECK(n && n <= len, "%zu of %zu", n, len);
		data += n;
		len -= n;
		while (wvm_forward_next(&b->f, &out))
			leave(b, &out);
	}
	FUZZ_CHECK(trusted || b->routes.list[WVM_ROUTE_LEARNED].count == learned,
		   "learned from a stranger");
}

static size_t build(struct fuzz_in *in, uint8_t *out, size_t room)
{
	static const uint8_t payload[512];
	size_t at = 0;

	for (unsigned parts = fuzz_u8(in) % 5; parts; parts--) {
		uint16_t len = fuzz_u8(in) * 2u;
		struct wvm_msg m = {.type = len ? WVM_MSG_HEARTBEAT : WVM_MSG_PING,
				    .qos = fuzz_u8(in) & 1,
				    .hops = fuzz_u8(in) % (WVM_HOPS_MAX + 1),
				    .src = fuzz_u8(in),
				    .dst = fuzz_u8(in),
				    .payload_len = len,
				    .seg_total = wvm_wire_total(len),
				    .request = 1 + fuzz_u8(in)};

		at += wvm_wire_encode(out + at, room - at, &m, payload);
	}
	return at;
}

static void datagram(struct bed *b, struct fuzz_in *in)
{
	uint8_t data[2048], how = fuzz_u8(in), *exact;
	struct wvm_hop from = hop(fuzz_u8(in));
	size_t len;

	if (how & 1) {
		len = fuzz_u16(in) % sizeof(data);
		len = len < in->left ? len : in->left;
		fuzz_bytes(in, data, len);
	} else {
		len = build(in, data, sizeof(data));
		if (how & 2 && len)
			data[fuzz_u16(in) % len] ^= fuzz_u8(in);
		if (how & 4)
			for (unsigned pad = fuzz_u8(in); pad && len < sizeof(data); pad--)
				data[len++] = 0;
		if (how & 8 && len)
			len -= fuzz_u16(in) % len;
	}
	exact = fuzz_copy(data, len);
	feed(b, from, exact, len);
	free(exact);
}

static void check_counters(const struct bed *b)
{
	const struct wvm_forward_counters *c = &b->f.counters;
	uint64_t sum = c->forwarded + c->no_route + c->loops + c->hops_used_up + c->too_long +
		       c->pushed_back + c->lost;

	for (unsigned i = 0; i < WVM_DROP_REASONS; i++)
		sum += c->drops[i];
	FUZZ_CHECK(sum == c->segments, "%llu of %llu", (unsigned long long)sum,
		   (unsigned long long)c->segments);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct wvm_route_limits limits = {{ROOM, ROOM, ROOM, ROOM}};
	struct fuzz_in in = {data, len};
	struct wvm_forward_out out;
	static struct bed b;

	memset(&b, 0, sizeof(b));
	b.memory = malloc(wvm_route_bytes(&limits));
	FUZZ_CHECK(b.memory, "memory");
	wvm_route_init(&b.routes, &limits, b.memory);
	wvm_route_set(&b.routes, WVM_ROUTE_STATIC, 16, 32, hop(1));
	wvm_route_set_upstream(&b.routes, hop(2));
	wvm_forward_init(&b.f, &b.routes, MTU);
	for (unsigned i = 0; i < BUFFERS; i++)
		FUZZ_CHECK((b.pool[i] = malloc(MTU)) != NULL, "memory");
	for (unsigned step = 0; step < STEPS && in.left; step++) {
		switch (fuzz_u8(&in) % 5) {
		case 0: order(&b, &in); break;
		case 1: b.starve = fuzz_u8(&in) & 7; break;
		case 2:
			while (wvm_forward_flush(&b.f, &out))
				leave(&b, &out);
			break;
		default: datagram(&b, &in); break;
		}
		check_routes(&b);
	}
	while (wvm_forward_flush(&b.f, &out))
		leave(&b, &out);
	check_counters(&b);
	FUZZ_CHECK(b.out_segments == b.f.counters.forwarded + b.f.counters.pushed_back, "%llu",
		   (unsigned long long)b.out_segments);
	for (unsigned i = 0; i < BUFFERS; i++)
		free(b.pool[i]);
	free(b.memory);
	return 0;
}

/* A message through, an order, one pushed back, and one of a stranger. */
void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	static const uint8_t through[] = {3, 0, 1, 1, 0, 0, 3, 5, 200, 1, 2};
	static const uint8_t ordered[] = {0, 20, 'W', 'V', 'M', 'C', 0,  1, 0, 0, 0,
					  9, 10, 0,   0,   3,   31,  64, 0, 0, 0, 4,
					  0, 3,  0,   1,   1,   0,   0,  3, 5, 9, 1};
	static const uint8_t pushed[] = {1,  3,   3, 0,   1, 2, 0,  0,   3,
					 20, 200, 1, 100, 1, 3, 20, 200, 1};
	static const uint8_t stranger[] = {3, 0, 5, 1, 0, 0, 3, 99, 200, 1, 2};

	put("through", through, sizeof(through));
	put("ordered", ordered, sizeof(ordered));
	put("pushed", pushed, sizeof(pushed));
	put("stranger", stranger, sizeof(stranger));
}

/*
 * The driver of membership between its machines: datagrams of any bytes, and well-formed messages
 * of any content from any address; stores that take long; ticks. Whatever comes, no ballot leaves
 * before its state is stored, a promise is never taken back, epochs only rise, nobody is believed
 * who is not at his address, and every datagram is counted once.
 */
#include "shared/membership.h"

#include "shared/ballots.h"
#include "shared/core/assert.h"
#include "shared/fuzz/fuzz.h"
#include "shared/wire.h"

#define NODES   5u
#define SELF    1u
#define OPS_MAX 96u
#define ADDRESS UINT32_C(0x0a000001) /* of node 0 */

static struct wvm_membership m;
static uint64_t memory[(64 << 10) / 8];
static struct wvm_epoch_durable stored, storing;
static bool is_storing;
static uint32_t learnt_epoch;
static uint64_t given;

void wvm_core_panic(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, what);
	abort();
}

static struct wvm_hop place(uint32_t node)
{
	return (struct wvm_hop){.ip = ADDRESS + node, .port = 9001};
}

static bool where(void *ctx, uint32_t node, struct wvm_hop *out)
{
	*out = place(node);
	return node < NODES;
}

static bool send(void *ctx, uint32_t node, const struct wvm_hop *to, const uint8_t *bytes,
		 size_t len)
{
	const uint8_t *payload;
	struct wvm_epoch_msg e;
	struct wvm_msg msg;
	size_t consumed;

	FUZZ_CHECK(node < NODES && node != SELF && wvm_hop_same(*to, place(node)), "%u", node);
	FUZZ_CHECK(!wvm_wire_decode(bytes, len, &msg, &payload, &consumed) && consumed == len,
		   "a message that is none");
	FUZZ_CHECK(msg.src == SELF && msg.dst == node && wvm_membership_takes(msg.type), "type %u",
		   msg.type);
	if (msg.type != WVM_MSG_BALLOT)
		return len % 7; /* as if there were no buffer */
	FUZZ_CHECK(!is_storing, "a ballot left before its state was stored");
	FUZZ_CHECK(wvm_epoch_decode(&e, payload, msg.payload_len), "a ballot that is none");
	if (e.kind == WVM_EPOCH_PROMISE || e.kind == WVM_EPOCH_ACCEPTED)
		FUZZ_CHECK(stored.current.epoch >= e.epoch || stored.promised >= e.ballot,
			   "kind %u is not what is stored", e.kind);
	return true;
}

static void save(void *ctx, const struct wvm_epoch_durable *d)
{
	FUZZ_CHECK(!is_storing && wvm_epoch_durable_check(d), "a state to store");
	FUZZ_CHECK(d->current.epoch >= stored.current.epoch, "an epoch that is gone");
	FUZZ_CHECK(d->current.epoch > stored.current.epoch || d->promised >= stored.promised,
		   "a promise taken back");
	is_storing = true;
	storing = *d;
}

static void note(void *ctx, const struct wvm_gossip_action *a, uint64_t now_ns)
{
	FUZZ_CHECK(a->node < NODES && a->node != SELF && a->ip == place(a->node).ip, "%u", a->node);
}

static void learnt(void *ctx, const struct wvm_epoch_record *r, enum wvm_epoch_verdict verdict)
{
	FUZZ_CHECK(r->epoch > learnt_epoch && !is_storing, "epoch %u", r->epoch);
	FUZZ_CHECK(r->epoch == stored.current.epoch, "learnt before it is stored");
	learnt_epoch = r->epoch;
}

static void behind(void *ctx, uint32_t node, uint32_t epoch)
{
}

static void begin(uint8_t seed)
{
	static const struct wvm_membership_ops ops = {.where = where,
						      .send = send,
						      .save = save,
						      .note = note,
						      .learnt = learnt,
						      .behind = behind};
	static const uint32_t ids[NODES] = {0, 1, 2, 3, 4};
	struct wvm_gossip_self self = {.node = SELF,
				       .ip = place(SELF).ip,
				       .port = place(SELF).port,
				       .incarnation = wvm_gossip_incarnation(1)};
	struct wvm_epoch_record first;

	is_storing = false;
	learnt_epoch = 0;
	given = 0;
	wvm_ballots_first(&first, ids, NODES);
	wvm_epoch_first(&stored, &first);
	FUZZ_CHECK(wvm_gossip_bytes(NODES) <= sizeof(memory), "memory");
	wvm_membership_init(&m, &ops, NULL, memory, NODES, WVM_MTU_DEFAULT, &self, &stored, seed,
			    0);
	for (uint32_t i = 0; i < NODES; i++)
		FUZZ_CHECK(wvm_membership_add(&m, i, 0) == (i != SELF), "add %u", i);
	wvm_membership_life(&m, WVM_NODE_ACTIVE, 0);
}

/* ---- inputs ------------------------------------------------------------------------------- */

static void give(const struct wvm_hop *from, const uint8_t *data, size_t len, uint64_t now_ns)
{
	uint8_t *exact = fuzz_copy(data, len);

	wvm_membership_datagram(&m, from, exact, len, now_ns);
	given++;
	free(exact);
}

static struct wvm_hop any_hop(struct fuzz_in *in, uint32_t src)
{
	struct wvm_hop at = place(src);
	uint8_t how = fuzz_u8(in);

	at.ip += how > 240;
	at.port += how > 248;
	return at;
}

static struct wvm_epoch_record any_record(struct fuzz_in *in, uint32_t epoch)
{
	struct wvm_epoch_record r = m.epoch.d.current;
	uint8_t how = fuzz_u8(in);

	r.epoch = epoch;
	r.node = how % NODES;
	r.state = how / 8 % WVM_NODE_OFFLINE;
	if (how & 0x80 && r.voters > 1)
		r.voter[--r.voters] = 0;
	return r;
}

/* A ballot that is about the epochs of now, mostly. */
static size_t ballot(struct fuzz_in *in, uint32_t src, uint8_t payload[WVM_GOSSIP_BYTES_MAX])
{
	uint8_t how = fuzz_u8(in), round = fuzz_u8(in);
	struct wvm_epoch_msg e = {.kind = (uint8_t)(1 + how % 8),
				  .epoch = m.epoch.d.current.epoch + how / 8 % 4};
	bool voting = e.kind <= WVM_EPOCH_REFUSED;

	if (voting)
		e.ballot = wvm_epoch_ballot(
			1 + round % 16,
			e.kind == WVM_EPOCH_PREPARE || e.kind == WVM_EPOCH_ACCEPT ? src : SELF);
	if (e.kind == WVM_EPOCH_REFUSED)
		e.other = e.ballot + (1 + round / 16) * (UINT64_C(1) << 32);
	if (e.kind == WVM_EPOCH_PROMISE && how & 0x80)
		e.other = wvm_epoch_ballot(1, src);
	if (e.kind == WVM_EPOCH_ACCEPT || e.kind == WVM_EPOCH_DECIDED || e.other)
		e.record = any_record(in, e.epoch);
	if (e.kind == WVM_EPOCH_REFUSED)
		e.record = (struct wvm_epoch_record){0};
	if (!wvm_epoch_msg_check(&e))
		return 0;
	wvm_epoch_encode(payload, &e);
	return WVM_EPOCH_MSG_BYTES;
}

static size_t gossip(struct fuzz_in *in, uint32_t src, uint8_t payload[WVM_GOSSIP_BYTES_MAX],
		     uint8_t *kind)
{
	uint8_t how = fuzz_u8(in);
	struct wvm_gossip_msg g = {.kind = (uint8_t)(1 + how % 8),
				   .life = fuzz_u8(in) % WVM_NODE_LIVES,
				   .busy = how / 8 % 2,
				   .ip = place(src).ip + (how > 250),
				   .port = 9001,
				   .epoch = fuzz_u8(in) % 40,
				   .incarnation = 1 + fuzz_u8(in) * 1000u};

	*kind = g.kind;
	if (g.kind != WVM_GOSSIP_NEWS && g.kind != WVM_GOSSIP_ANNOUNCE)
		g.seq = how & 0x80 ? m.gossip->target_seq : 1;
	if (g.kind == WVM_GOSSIP_ACK || g.kind == WVM_GOSSIP_NACK || g.kind == WVM_GOSSIP_PROBE_FOR)
		g.target = how / 8 % NODES;
	if (g.kind == WVM_GOSSIP_VIEW) {
		g.seq = how & 0x80 ? m.gossip->pull_seq : 1;
		g.target = WVM_NODE_MAX;
	}
	for (; g.count < how / 16 % 4; g.count++) {
		uint8_t what = fuzz_u8(in);
		uint32_t node = g.kind == WVM_GOSSIP_VIEW ? g.count : what % (NODES + 1);

		g.entry[g.count] = (struct wvm_gossip_entry){.node = node,
							     .incarnation = 1 + fuzz_u8(in) * 999u,
							     .ip = place(node).ip + (what > 250),
							     .port = 9001,
							     .status = 1 + what / 8 % 3,
							     .life = WVM_NODE_ACTIVE};
	}
	return wvm_gossip_msg_check(&g) ? wvm_gossip_encode(payload, &g) : 0;
}

static void message(struct fuzz_in *in, bool votes, uint64_t now_ns)
{
	static uint8_t payload[WVM_GOSSIP_BYTES_MAX], bytes[WVM_MEMBERSHIP_DATAGRAM];
	uint8_t who = fuzz_u8(in), kind = 0;
	uint32_t src = who % (NODES + 1);
	struct wvm_hop from = any_hop(in, src);
	struct wvm_msg msg = {.type = WVM_MSG_BALLOT,
			      .hops = WVM_HOPS_MAX,
			      .src = src,
			      .dst = who < 250 ? SELF : SELF + 1};
	size_t len = votes ? ballot(in, src, payload) : gossip(in, src, payload, &kind);

	if (!len)
		return;
	if (!votes)
		msg.type = (uint8_t)wvm_gossip_type(kind);
	if (kind == WVM_GOSSIP_ACK || kind == WVM_GOSSIP_NACK)
		msg.flags = WVM_MSG_ANSWER;
	msg.payload_len = (uint16_t)len;
	msg.seg_total = wvm_wire_total((uint32_t)len);
	len = wvm_wire_encode(bytes, sizeof(bytes), &msg, payload);
	FUZZ_CHECK(len > 0, "encode");
	give(&from, bytes, len, now_ns);
}

/* Any bytes behind a header that is right, or any bytes at all. */
static void bytes(struct fuzz_in *in, uint64_t now_ns)
{
	uint8_t data[192] = {0}, how = fuzz_u8(in);
	size_t len = how % sizeof(data);
	struct wvm_hop from = place(0);

	fuzz_bytes(in, data, len);
	if (how & 1 && len >= WVM_HEADER_BYTES) {
		memcpy(data, "WVMX", 4);
		data[4] = WVM_PROTOCOL_VERSION;
		data[5] = (uint8_t)(WVM_MSG_HEARTBEAT + data[5] % 5);
		data[10] = 0;
		data[11] = (uint8_t)(len - WVM_HEADER_BYTES);
		wvm_wire_seal(data, len);
	}
	give(&from, data, len, now_ns);
}

static void op(struct fuzz_in *in, uint64_t now_ns)
{
	struct wvm_epoch_record r;
	uint8_t what = fuzz_u8(in);

	switch (what % 8) {
	case 0: wvm_membership_tick(&m, now_ns); break;
	case 1:
	case 2:
		if (!is_storing)
			break;
		is_storing = false;
		stored = storing;
		wvm_membership_saved(&m, now_ns);
		break;
	case 3:
		r = any_record(in, m.epoch.d.current.epoch + 1);
		wvm_membership_wish(&m, &r, now_ns);
		break;
	case 4: bytes(in, now_ns); break;
	default: message(in, what % 8 < 7, now_ns); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	const struct wvm_membership_counters *c = &m.counters;
	uint64_t now_ns = 0, drops = 0;

	begin(fuzz_u8(&in));
	for (uint32_t i = 0; i < OPS_MAX && in.left; i++) {
		now_ns += (uint64_t)fuzz_u8(&in) * 4000000;
		op(&in, now_ns);
		FUZZ_CHECK(m.saving == is_storing, "one store at a time");
		FUZZ_CHECK(m.gossip->self.epoch == learnt_epoch, "gossip tells of epoch %u of %u",
			   m.gossip->self.epoch, learnt_epoch);
	}
	for (unsigned k = 0; k < WVM_DROP_REASONS; k++)
		drops += c->drops[k];
	FUZZ_CHECK(c->received == given && given == c->gossip + c->ballots + drops, "%lu datagrams",
		   (unsigned long)given);
	return 0;
}

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	fuzz_put_random(put, 11, 1024, 0xff, 0);
}

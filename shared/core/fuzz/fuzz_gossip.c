/*
 * Gossip among hostile members: bytes as they come are taken only if they encode to the same again,
 * and whatever they say, no assertion of the node is reached, its view stays within its bound and
 * in order, what it sends is well-formed and fits its datagrams, its actions end, it does not
 * accuse itself, its incarnation never falls, and nobody but its user makes it claim an epoch.
 */
#include "shared/core/gossip.h"
#include "shared/fuzz/fuzz.h"

#define SELF    20u
#define FIRST   16u
#define GROUP   16u
#define ROOM    10u
#define OPS_MAX 300u

static struct wvm_gossip_config config;
static uint64_t memory[4096];
static struct wvm_gossip *g;
static uint32_t incarnation, epoch;
static bool busy;

FUZZ_UNWATCHED_BEGIN

static void view(void)
{
	uint32_t members = 0, others = 0, dead = 0, suspects = 0, news = 0, order = 0;

	FUZZ_CHECK(g->count <= ROOM, "%u peers", g->count);
	for (uint32_t i = 0; i < g->count; i++) {
		const struct wvm_gossip_peer *p = &g->peer[i];
		bool member = p->node - FIRST < GROUP;

		FUZZ_CHECK(wvm_gossip_find(g, p->node) == p, "node %u", p->node);
		FUZZ_CHECK(p->node != SELF && !p->noted, "node %u", p->node);
		FUZZ_CHECK(p->status >= WVM_GOSSIP_ALIVE && p->status < WVM_GOSSIP_STATUSES,
			   "status %u", p->status);
		FUZZ_CHECK(member || p->status == WVM_GOSSIP_ALIVE, "an other is accused");
		members += member;
		others += !member;
		dead += p->status == WVM_GOSSIP_DEAD;
		suspects += p->status == WVM_GOSSIP_SUSPECT;
		news += p->sends != 0;
		order ^= 1u << g->order[i];
	}
	FUZZ_CHECK(members == g->members && others == g->others, "%u %u", members, others);
	FUZZ_CHECK(dead == g->dead && suspects == g->suspects, "%u %u", dead, suspects);
	FUZZ_CHECK(news == g->news_count, "%u to be told, %u noted", news, g->news_count);
	FUZZ_CHECK(order == (1u << g->count) - 1, "the round is not of all");
	FUZZ_CHECK(!suspects || g->expiry_at != UINT64_MAX, "a suspicion without an end");
	FUZZ_CHECK(g->self.incarnation >= incarnation, "incarnation %u", g->self.incarnation);
	FUZZ_CHECK(g->self.epoch == epoch, "epoch %u", g->self.epoch);
	incarnation = g->self.incarnation;
}

static void sent(const struct wvm_gossip_action *a)
{
	uint8_t bytes[WVM_GOSSIP_BYTES_MAX];
	size_t len;

	FUZZ_CHECK(a->node != SELF && wvm_gossip_msg_check(&a->msg), "kind %u", a->msg.kind);
	FUZZ_CHECK(a->msg.busy == busy, "busy %u", a->msg.busy);
	len = wvm_gossip_encode(bytes, &a->msg);
	FUZZ_CHECK(len + WVM_HEADER_BYTES <= config.mtu, "%zu bytes", len);
	for (uint32_t i = 0; i < a->msg.count; i++)
		FUZZ_CHECK(a->msg.entry[i].node != SELF, "it tells of itself");
}

static void drain(void)
{
	struct wvm_gossip_action a;
	uint32_t n = 0;

	while (wvm_gossip_next(g, &a)) {
		FUZZ_CHECK(++n <= WVM_GOSSIP_NOTES + 1 + WVM_GOSSIP_OUT, "%u actions", n);
		if (a.act == WVM_GOSSIP_SEND)
			sent(&a);
		if (a.act == WVM_GOSSIP_EPOCH)
			FUZZ_CHECK(a.epoch > epoch && a.node != SELF, "epoch %u", a.epoch);
		if (a.act == WVM_GOSSIP_NOTE)
			FUZZ_CHECK(wvm_gossip_find(g, a.node), "node %u", a.node);
	}
	view();
}

FUZZ_UNWATCHED_END

static struct wvm_gossip_entry any_entry(struct fuzz_in *in)
{
	uint8_t how = fuzz_u8(in);
	struct wvm_gossip_entry e = {
		.node = fuzz_u8(in) % 48,
		.incarnation = 1u + fuzz_u8(in) % 8 +
			       (how > 250 ? WVM_GOSSIP_INCARNATION_MAX - 8 : 0),
		.ip = 0x0a000000,
		.port = 9001,
		.status = (uint8_t)(1 + how % 3),
		.life = how / 4 % WVM_NODE_LIVES,
		.top = how / 32 % WVM_GOSSIP_TIERS,
	};

	if (e.life == WVM_NODE_OFFLINE)
		e.status = WVM_GOSSIP_DEAD;
	return e;
}

/* Mostly with the numbers that are waited for. */
static void any_head(struct fuzz_in *in, struct wvm_gossip_msg *m, uint32_t from)
{
	uint8_t how = fuzz_u8(in);

	*m = (struct wvm_gossip_msg){.kind = (uint8_t)(1 + how % 8),
				     .top = how / 8 % WVM_GOSSIP_TIERS,
				     .life = how / 32 % WVM_NODE_LIVES,
				     .busy = how / 128,
				     .ip = 0x0a000000 + from,
				     .port = 9001,
				     .epoch = fuzz_u8(in),
				     .incarnation = 1u + fuzz_u8(in) % 8};
	how = fuzz_u8(in);
	if (m->kind == WVM_GOSSIP_NEWS || m->kind == WVM_GOSSIP_ANNOUNCE)
		return;
	m->seq = how < 128 ? g->target_seq : how < 200 ? g->relay[how % 8].seq : g->pull_seq;
	m->seq = m->kind == WVM_GOSSIP_VIEW ? g->pull_seq : m->seq ? m->seq : 1;
	if (m->kind == WVM_GOSSIP_VIEW)
		m->target = how & 1 ? WVM_NODE_MAX : 64u + how;
	else if (m->kind != WVM_GOSSIP_PROBE)
		m->target = how & 1 ? g->target % WVM_NODE_MAX : how % 48;
}

static bool any_message(struct fuzz_in *in, struct wvm_gossip_msg *m, uint32_t from)
{
	uint8_t bytes[WVM_GOSSIP_BYTES_MAX], again[WVM_GOSSIP_BYTES_MAX], how = fuzz_u8(in);
	size_t len = WVM_GOSSIP_HEAD_BYTES + how % 4 * WVM_GOSSIP_ENTRY_BYTES + (how == 255);

	if (how >= 200) {
		fuzz_bytes(in, bytes, len);
		if (!wvm_gossip_decode(m, bytes, len))
			return false;
		FUZZ_CHECK(wvm_gossip_encode(again, m) == len && !memcmp(bytes, again, len),
			   "kind %u", m->kind);
		return true;
	}
	any_head(in, m, from);
	while (m->count < how % 16) {
		struct wvm_gossip_entry e = any_entry(in);

		if (m->kind == WVM_GOSSIP_VIEW && m->count && e.node <= m->entry[m->count - 1].node)
			break;
		m->entry[m->count++] = e;
	}
	return wvm_gossip_msg_check(m);
}

static void op(struct fuzz_in *in, uint64_t now_ns)
{
	static struct wvm_gossip_msg m;
	uint8_t what = fuzz_u8(in);
	struct wvm_gossip_entry e;
	uint32_t from;

	switch (what % 8) {
	case 0:
	case 1: wvm_gossip_tick(g, now_ns); break;
	case 2:
		e = any_entry(in);
		wvm_gossip_add(g, &e, now_ns);
		break;
	case 3:
		if (what < 64) {
			wvm_gossip_remove(g, fuzz_u8(in) % 48);
		} else if (what < 96) {
			wvm_gossip_announce(g, what / 8 % WVM_NODE_LIVES, now_ns);
		} else if (what < 128) {
			epoch += what % 4;
			wvm_gossip_epoch(g, epoch, now_ns);
		} else {
			busy = what / 8 % 2;
			wvm_gossip_busy(g, busy);
		}
		break;
	default:
		from = what < 200 ? fuzz_u8(in) % 48 : g->pull_node % WVM_NODE_MAX;
		if (any_message(in, &m, from))
			wvm_gossip_message(g, from, &m, now_ns);
		break;
	}
	drain();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	uint8_t how = fuzz_u8(&in);
	struct wvm_gossip_self self = {.node = SELF,
				       .first = FIRST,
				       .count = GROUP,
				       .ip = 0x0a000000 + SELF,
				       .port = 9001,
				       .top = how % 2,
				       .incarnation = 1,
				       .epoch = 1};
	uint64_t now_ns = 0;

	wvm_gossip_defaults(&config);
	config.mtu = WVM_MTU_MIN;
	FUZZ_CHECK(wvm_gossip_bytes(ROOM) <= sizeof(memory), "%zu", wvm_gossip_bytes(ROOM));
	g = wvm_gossip_init(memory, ROOM, &config, &self, how, now_ns);
	incarnation = epoch = 1;
	busy = false;
	if (how & 2)
		wvm_gossip_announce(g, WVM_NODE_ACTIVE, now_ns);
	drain();
	for (uint32_t i = 0; i < OPS_MAX && in.left; i++) {
		now_ns += (uint64_t)fuzz_u8(&in) * 4000000;
		op(&in, now_ns);
	}
	return 0;
}

/* ---- seeds: random decisions -------------------------------------------------------------- */

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	fuzz_put_random(put, 3, 1024, 0xff, 2); /* it speaks */
}

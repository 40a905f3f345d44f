/* Gossip: messages as bytes. */
#include "shared/core/assert.h"
#include "shared/core/gossip.h"

/* Unicast, and not 0.x.y.z. */
static bool address_check(uint32_t ip, uint16_t port)
{
	return ip >= UINT32_C(0x01000000) && ip < UINT32_C(0xe0000000) && port;
}

static bool incarnation_check(uint32_t incarnation)
{
	return incarnation >= 1 && incarnation <= WVM_GOSSIP_INCARNATION_MAX;
}

bool wvm_gossip_entry_check(const struct wvm_gossip_entry *e)
{
	return e->node < WVM_NODE_MAX && incarnation_check(e->incarnation) &&
	       address_check(e->ip, e->port) && e->status >= WVM_GOSSIP_ALIVE &&
	       e->status < WVM_GOSSIP_STATUSES && e->life < WVM_NODE_LIVES &&
	       e->top < WVM_GOSSIP_TIERS && !e->zero[0] && !e->zero[1] && !e->zero[2] &&
	       (e->life != WVM_NODE_OFFLINE || e->status == WVM_GOSSIP_DEAD);
}

static bool head_check(const struct wvm_gossip_msg *m)
{
	return m->kind >= WVM_GOSSIP_PROBE && m->kind < WVM_GOSSIP_KINDS &&
	       m->tier < WVM_GOSSIP_TIERS && m->top >= m->tier && m->top < WVM_GOSSIP_TIERS &&
	       m->life < WVM_NODE_LIVES && m->health <= WVM_GOSSIP_HEALTH && m->busy <= 1 &&
	       !m->zero2 && m->count <= WVM_GOSSIP_ENTRIES && address_check(m->ip, m->port) &&
	       incarnation_check(m->incarnation);
}

/* seq and target. */
static bool kind_check(const struct wvm_gossip_msg *m)
{
	switch (m->kind) {
	case WVM_GOSSIP_PROBE: return m->seq && !m->target;
	case WVM_GOSSIP_ACK:
	case WVM_GOSSIP_PROBE_FOR:
	case WVM_GOSSIP_NACK:
	case WVM_GOSSIP_PULL: return m->seq && m->target < WVM_NODE_MAX;
	case WVM_GOSSIP_VIEW: return m->seq && m->target <= WVM_NODE_MAX;
	default: return !m->seq && !m->target;
	}
}

/* So that one who asks for the rest comes to an end. */
static bool ascending(const struct wvm_gossip_msg *m)
{
	for (uint32_t i = 1; i < m->count; i++) {
		if (m->entry[i].node <= m->entry[i - 1].node)
			return false;
	}
	return !m->count || m->target > m->entry[m->count - 1].node;
}

bool wvm_gossip_msg_check(const struct wvm_gossip_msg *m)
{
	if (!head_check(m) || !kind_check(m))
		return false;
	for (uint32_t i = 0; i < m->count; i++) {
		if (!wvm_gossip_entry_check(&m->entry[i]))
			return false;
	}
	return m->kind != WVM_GOSSIP_VIEW || ascending(m);
}

enum wvm_msg_type wvm_gossip_type(uint8_t kind)
{
	switch (kind) {
	case WVM_GOSSIP_ANNOUNCE: return WVM_MSG_NODE_ANNOUNCE;
	case WVM_GOSSIP_PULL: return WVM_MSG_VIEW_PULL;
	case WVM_GOSSIP_VIEW: return WVM_MSG_VIEW_ACK;
	default: return WVM_MSG_HEARTBEAT;
	}
}

static void put2(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static void put4(uint8_t *at, uint32_t v)
{
	put2(at, v >> 16);
	put2(at + 2, v);
}

static uint16_t get2(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get4(const uint8_t *at)
{
	return (uint32_t)get2(at) << 16 | get2(at + 2);
}

static void put_entry(uint8_t *at, const struct wvm_gossip_entry *e)
{
	put4(at, e->node);
	put4(at + 4, e->incarnation);
	put4(at + 8, e->ip);
	put2(at + 12, e->port);
	at[14] = e->status;
	at[15] = e->life;
	at[16] = e->top;
	at[17] = at[18] = at[19] = 0;
}

size_t wvm_gossip_encode(uint8_t out[WVM_GOSSIP_BYTES_MAX], const struct wvm_gossip_msg *m)
{
	WVM_ASSERT(wvm_gossip_msg_check(m));
	out[0] = m->kind;
	out[1] = m->tier;
	out[2] = m->top;
	out[3] = m->life;
	out[4] = m->health;
	out[5] = m->busy;
	put2(out + 6, m->count);
	put2(out + 8, m->port);
	put2(out + 10, 0);
	put4(out + 12, m->ip);
	put4(out + 16, m->epoch);
	put4(out + 20, m->incarnation);
	put4(out + 24, m->seq);
	put4(out + 28, m->target);
	for (uint32_t i = 0; i < m->count; i++)
		put_entry(out + WVM_GOSSIP_HEAD_BYTES + i * WVM_GOSSIP_ENTRY_BYTES, &m->entry[i]);
	return WVM_GOSSIP_HEAD_BYTES + m->count * WVM_GOSSIP_ENTRY_BYTES;
}

static void get_entry(struct wvm_gossip_entry *e, const uint8_t *at)
{
	*e = (struct wvm_gossip_entry){
		.node = get4(at),
		.incarnation = get4(at + 4),
		.ip = get4(at + 8),
		.port = get2(at + 12),
		.status = at[14],
		.life = at[15],
		.top = at[16],
		.zero = {at[17], at[18], at[19]},
	};
}

/* Only head and entries that there are: the rest is large, and nobody reads it. */
bool wvm_gossip_decode(struct wvm_gossip_msg *m, const uint8_t *bytes, size_t len)
{
	if (len < WVM_GOSSIP_HEAD_BYTES)
		return false;
	m->kind = bytes[0];
	m->tier = bytes[1];
	m->top = bytes[2];
	m->life = bytes[3];
	m->health = bytes[4];
	m->busy = bytes[5];
	m->count = get2(bytes + 6);
	m->port = get2(bytes + 8);
	m->zero2 = get2(bytes + 10);
	m->ip = get4(bytes + 12);
	m->epoch = get4(bytes + 16);
	m->incarnation = get4(bytes + 20);
	m->seq = get4(bytes + 24);
	m->target = get4(bytes + 28);
	if (m->count > WVM_GOSSIP_ENTRIES ||
	    len != WVM_GOSSIP_HEAD_BYTES + m->count * WVM_GOSSIP_ENTRY_BYTES)
		return false;
	for (uint32_t i = 0; i < m->count; i++)
		get_entry(&m->entry[i], bytes + WVM_GOSSIP_HEAD_BYTES + i * WVM_GOSSIP_ENTRY_BYTES);
	return wvm_gossip_msg_check(m);
}

/* Which hosts, objects and groups there are, what they take, and the numbers of gossip. */
#include "shared/core/scale/scale.h"

#define MS          UINT64_C(1000000)
#define EVENT_BYTES 1024u /* of an object: mostly timers that were overtaken */

void scale_gossip(struct wvm_gossip_config *c, bool ours, uint32_t hosts)
{
	uint64_t log10_milli = 0;

	wvm_gossip_defaults(c);
	if (ours)
		return;
	/* 1000 * log10(hosts), by squaring: no libm for one number. */
	double x = hosts;
	for (; x >= 10; x /= 10)
		log10_milli += 1000;
	for (uint64_t bit = 500; bit; bit /= 2) {
		x *= x;
		if (x >= 10) {
			x /= 10;
			log10_milli += bit;
		}
	}
	c->period_ns = 1000 * MS;
	c->direct_ns = 500 * MS;
	c->news_ns = 200 * MS;
	c->suspect_ns = 4 * (log10_milli > 1000 ? log10_milli : 1000) * MS;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

uint32_t scale_pod_gateways(const struct scale_config *c)
{
	return c->pods * c->zones > 1 ? least(SCALE_GATEWAYS, c->pod) : 0;
}

static uint32_t zone_gateways(const struct scale_config *c)
{
	return c->zones > 1 ? least(SCALE_GATEWAYS, c->pods) : 0;
}

uint32_t scale_hosts(const struct scale_config *c)
{
	return c->pod * c->pods * c->zones;
}

uint32_t scale_agents(const struct scale_config *c)
{
	return scale_hosts(c) + c->pods * c->zones * scale_pod_gateways(c) +
	       c->zones * zone_gateways(c);
}

uint32_t scale_room(const struct scale_config *c, uint32_t tier)
{
	return tier && c->room_up ? c->room_up : c->room;
}

size_t scale_object_bytes(const struct scale_config *c, uint32_t tier)
{
	return wvm_gossip_bytes(scale_room(c, tier));
}

uint32_t scale_top(const struct scale_config *c, uint32_t host)
{
	uint32_t place = host % c->pod, pod = host / c->pod % c->pods;

	if (place >= scale_pod_gateways(c))
		return 0;
	return place == 0 && pod < zone_gateways(c) ? 2 : 1;
}

uint32_t scale_agent_of(const struct scale_config *c, uint32_t host, uint32_t tier)
{
	uint32_t pod = host / c->pod, at = scale_hosts(c);

	if (tier == 0)
		return host;
	if (tier == 1)
		return at + pod * scale_pod_gateways(c) + host % c->pod;
	at += c->pods * c->zones * scale_pod_gateways(c);
	return at + pod / c->pods * zone_gateways(c) + pod % c->pods;
}

/* The ids of a host's group in a tier. */
void scale_group_of(const struct scale_config *c, uint32_t host, uint32_t tier, uint32_t *first,
		    uint32_t *count)
{
	*count = tier == 0 ? c->pod : tier == 1 ? c->pod * c->pods : scale_hosts(c);
	*first = host / *count * *count;
}

/* ---- parts ------------------------------------------------------------------------------ */

bool scale_divisible(const struct scale_config *c)
{
	return c->pods * c->zones > 1 && c->room < c->pod && !c->seeds;
}

uint32_t scale_part_hosts(const struct scale_config *c, const struct scale_part *p)
{
	uint32_t gateways = scale_pod_gateways(c);

	switch (p->kind) {
	case SCALE_WHOLE: return scale_hosts(c);
	case SCALE_UPPER: return c->pods * c->zones * gateways + c->pod - gateways;
	default: return c->pod;
	}
}

uint32_t scale_part_host(const struct scale_config *c, const struct scale_part *p, uint32_t i)
{
	uint32_t gateways = scale_pod_gateways(c), all = c->pods * c->zones * gateways;

	switch (p->kind) {
	case SCALE_WHOLE: return i;
	case SCALE_UPPER:
		return i < all ? i / gateways * c->pod + i % gateways
			       : p->pod * c->pod + gateways + i - all;
	default: return p->pod * c->pod + i;
	}
}

bool scale_part_has(const struct scale_config *c, const struct scale_part *p, uint32_t host,
		    uint32_t tier)
{
	if (tier > scale_top(c, host))
		return false;
	switch (p->kind) {
	case SCALE_WHOLE: return true;
	case SCALE_UPPER: return tier || host / c->pod == p->pod;
	default: return !tier && host / c->pod == p->pod;
	}
}

uint64_t scale_part_bytes(const struct scale_config *c, const struct scale_part *p)
{
	uint64_t here = scale_part_hosts(c, p), low = p->kind == SCALE_WHOLE ? here : c->pod;
	uint64_t up = p->kind == SCALE_POD ? 0 : scale_agents(c) - scale_hosts(c);

	return low * scale_object_bytes(c, 0) + up * scale_object_bytes(c, 1) +
	       here * sizeof(struct scale_host) +
	       (low + up) * (sizeof(struct scale_agent) + EVENT_BYTES);
}

uint64_t scale_bytes(const struct scale_config *c)
{
	return scale_part_bytes(c, &(struct scale_part){.kind = SCALE_WHOLE});
}

#include "roles/check/stranger.h"

#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "shared/wire.h"

#define ANSWER_MS 20000u /* a hang, not a measure */

uint64_t stranger_chance(void)
{
	static uint64_t seed = 88172645463325252u;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

struct sockaddr_in stranger_address(const char *ip, uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};

	inet_pton(AF_INET, ip, &sin.sin_addr);
	return sin;
}

static void send_to(struct sockaddr_in at, const void *data, size_t len)
{
	static int fd = -1;
	struct sockaddr_in from = stranger_address("127.0.77.99", 0);

	if (fd < 0) {
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
	}
	ck_assert_int_eq(sendto(fd, data, len, 0, (struct sockaddr *)&at, sizeof(at)), (int)len);
}

void stranger_send(const struct cluster *c, unsigned to, const void *data, size_t len)
{
	send_to(stranger_address(c->node[to].ip, c->node[to].port), data, len);
}

void stranger_send_control(const struct cluster *c, unsigned to, const void *data, size_t len)
{
	send_to(stranger_address("127.0.0.1", c->node[to].ctrl_port), data, len);
}

void stranger_gossip(const struct cluster *c, unsigned to, const void *data, size_t len)
{
	send_to(stranger_address(c->node[to].ip, c->node[to].ctrl_port), data, len);
}

void stranger_forge(struct sockaddr_in from, struct sockaddr_in to, const void *data, size_t len)
{
	static int fd = -1;
	struct {
		struct iphdr ip;
		struct udphdr udp;
		uint8_t data[STRANGER_MTU];
	} __attribute__((packed)) packet;
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = to.sin_addr};
	size_t all = sizeof(packet) - STRANGER_MTU + len;

	if (fd < 0)
		fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	ck_assert_int_ge(fd, 0);
	ck_assert_uint_le(len, STRANGER_MTU);
	packet.ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP};
	packet.ip.saddr = from.sin_addr.s_addr;
	packet.ip.daddr = to.sin_addr.s_addr;
	packet.udp = (struct udphdr){.source = from.sin_port,
				     .dest = to.sin_port,
				     .len = htons((uint16_t)(sizeof(struct udphdr) + len))};
	memcpy(packet.data, data, len);
	ck_assert_int_eq(sendto(fd, &packet, all, 0, (struct sockaddr *)&at, sizeof(at)), (int)all);
}

void stranger_send_as(const struct cluster *c, unsigned from, unsigned to, const void *data,
		      size_t len)
{
	stranger_forge(stranger_address(c->node[from].ip, c->node[from].port),
		       stranger_address(c->node[to].ip, c->node[to].port), data, len);
}

void stranger_gossip_as(const struct cluster *c, unsigned from, unsigned to, const void *data,
			size_t len)
{
	stranger_forge(stranger_address(c->node[from].ip, c->node[from].ctrl_port),
		       stranger_address(c->node[to].ip, c->node[to].ctrl_port), data, len);
}

size_t stranger_noise(uint8_t *data)
{
	size_t len = stranger_chance() % 4 ? stranger_chance() % 200
					   : stranger_chance() % (2 * STRANGER_MTU);

	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)stranger_chance();
	if (len >= 5 && stranger_chance() % 2) { /* further in: it has the beginning of ours */
		memcpy(data, "WVMX", 4);
		if (stranger_chance() % 8)
			data[4] = WVM_PROTOCOL_VERSION;
	}
	if (len >= WVM_HEADER_BYTES && stranger_chance() % 2) { /* and says its length */
		data[10] = (uint8_t)((len - WVM_HEADER_BYTES) >> 8);
		data[11] = (uint8_t)(len - WVM_HEADER_BYTES);
	}
	if (len >= WVM_HEADER_BYTES && stranger_chance() % 2)
		wvm_wire_seal(data, len);
	return len;
}

json_t *stranger_stats(const struct cluster *c, unsigned node)
{
	uint64_t end = cluster_now_ms() + ANSWER_MS;
	static struct cluster_result r;
	json_t *o;

	do
		cluster_ctl(c, node, &r, (const char *const[]){"--json", "stats", NULL});
	while (r.status && cluster_now_ms() < end);
	ck_assert_msg(!r.status, "%s", r.err);
	o = json_loads(r.out, 0, NULL);
	ck_assert_ptr_nonnull(o);
	return o;
}

static void read_drops(const struct cluster *c, unsigned node, const char *section,
		       const char *prefix, uint64_t drops[WVM_DROP_REASONS])
{
	json_t *o = stranger_stats(c, node);
	const json_t *d = json_object_get(o, section);

	drops[0] = 0;
	for (unsigned i = 1; i < WVM_DROP_REASONS; i++) {
		const json_t *value;
		char name[32];

		snprintf(name, sizeof(name), "%s%s", prefix, wvm_drop_name(i));
		value = json_object_get(d, name);
		ck_assert_msg(json_is_integer(value), "no counter '%s' in '%s'", name, section);
		drops[i] = (uint64_t)json_integer_value(value);
		if (i < WVM_DROP_STALE)
			drops[0] += drops[i];
	}
	json_decref(o);
}

void stranger_drops(const struct cluster *c, unsigned node, uint64_t drops[WVM_DROP_REASONS])
{
	read_drops(c, node, "drops", "", drops);
}

void stranger_gossip_drops(const struct cluster *c, unsigned node, uint64_t drops[WVM_DROP_REASONS])
{
	read_drops(c, node, "membership", "dropped_", drops);
}

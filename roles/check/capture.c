#include "roles/check/capture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/wire.h"

#define SOCKET_BYTES (32 << 20)

static int open_tap(void)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)};
	int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0), bytes = SOCKET_BYTES;

	ck_assert_int_ge(fd, 0);
	at.sll_ifindex = (int)if_nametoindex("lo");
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)), 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

/* Whose port it is: of data, or of gossip. An operator asks at another address. */
static int node_at(const struct cluster *c, uint32_t address, uint16_t port, bool *gossip)
{
	for (unsigned i = 0; i < c->nodes; i++) {
		struct sockaddr_in at = stranger_address(c->node[i].ip, c->node[i].port);

		*gossip = port == htons(c->node[i].ctrl_port);
		if (at.sin_addr.s_addr == address && (at.sin_port == port || *gossip))
			return (int)i;
	}
	return -1;
}

/* A packet may hold many datagrams, for the network to cut, and a datagram many messages. */
static void take_messages(struct capture_port *k, unsigned from, const uint8_t *data, size_t len)
{
	while (len) {
		struct captured *to;
		const uint8_t *payload;
		struct wvm_msg m;
		size_t consumed;

		if (wvm_wire_decode(data, len, &m, &payload, &consumed) || consumed > STRANGER_MTU)
			return;
		to = &k->ring[m.type][k->seen[m.type]++ % CAPTURE_PER_TYPE];
		to->from = (uint8_t)from;
		to->len = (uint16_t)consumed;
		memcpy(to->data, data, consumed);
		data += consumed;
		len -= consumed;
	}
}

static void take_request(const struct cluster *c, struct capture *list, uint16_t port,
			 const uint8_t *data, size_t len)
{
	for (unsigned i = 0; i < c->nodes; i++) {
		struct capture *k = &list[i];
		unsigned slot = k->control % CAPTURE_CONTROL;

		if (htons(c->node[i].ctrl_port) != port || len > sizeof(k->request[0]))
			continue;
		memcpy(k->request[slot], data, len);
		k->request_len[slot] = len;
		k->control++;
	}
}

static void take(const struct cluster *c, struct capture *list, const uint8_t *packet, size_t len)
{
	const struct iphdr *ip = (const void *)packet;
	const struct udphdr *udp;
	bool of_gossip, gossip;
	size_t header;
	int from, to;

	if (len < sizeof(*ip) || ip->protocol != IPPROTO_UDP)
		return;
	header = ip->ihl * 4u;
	if (len < header + sizeof(*udp))
		return;
	udp = (const void *)(packet + header);
	header += sizeof(*udp);
	from = node_at(c, ip->saddr, udp->source, &of_gossip);
	to = node_at(c, ip->daddr, udp->dest, &gossip);
	if (from >= 0 && to >= 0 && gossip == of_gossip)
		take_messages(gossip ? &list[to].gossip : &list[to].data, (unsigned)from,
			      packet + header, len - header);
	else if (to < 0)
		take_request(c, list, udp->dest, packet + header, len - header);
}

void capture_run(const struct cluster *c, struct capture *list, unsigned ms)
{
	static uint8_t packet[1 << 17];
	uint64_t end = cluster_now_ms() + ms;
	int fd = open_tap();

	while (cluster_now_ms() < end) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		struct sockaddr_ll from;
		socklen_t from_len = sizeof(from);
		ssize_t n;

		if (poll(&p, 1, 10) != 1)
			continue;
		n = recvfrom(fd, packet, sizeof(packet), MSG_DONTWAIT, (struct sockaddr *)&from,
			     &from_len);
		/* On this interface everything is seen twice. */
		if (n > 0 && from.sll_pkttype != PACKET_OUTGOING)
			take(c, list, packet, (size_t)n);
	}
	close(fd);
}

unsigned capture_types(const struct capture_port *k)
{
	unsigned types = 0;

	for (unsigned i = 0; i < CAPTURE_TYPES; i++)
		types += k->seen[i] > 0;
	return types;
}

const struct captured *capture_any(const struct capture_port *k)
{
	unsigned type;

	do
		type = (unsigned)(stranger_chance() % CAPTURE_TYPES);
	while (!k->seen[type]);
	return &k->ring[type]
		       [stranger_chance() %
			(k->seen[type] < CAPTURE_PER_TYPE ? k->seen[type] : CAPTURE_PER_TYPE)];
}

/*
 * What tests of hostile datagrams share: sending from anybody's address, and
 * reading what the masters counted. On loopback alone.
 */
#ifndef WVM_CHECK_STRANGER_H
#define WVM_CHECK_STRANGER_H

#include <netinet/in.h>

#include "roles/check/cluster.h"
#include "shared/core/msg.h"

#define STRANGER_MTU 1472u

/* The same ones in every run. */
uint64_t stranger_chance(void);

struct sockaddr_in stranger_address(const char *ip, uint16_t port);
/* From an address that is no member's. len may exceed STRANGER_MTU. */
void stranger_send(const struct cluster *c, unsigned to, const void *data, size_t len);
/* From the address and port of a member, as an attacker on the same network would. */
void stranger_send_as(const struct cluster *c, unsigned from, unsigned to, const void *data,
		      size_t len);
/* From any address and port of this host, by a raw socket. len: at most STRANGER_MTU. */
void stranger_forge(struct sockaddr_in from, struct sockaddr_in to, const void *data, size_t len);
/* To the control port, where an operator asks. */
void stranger_send_control(const struct cluster *c, unsigned to, const void *data, size_t len);
/* The same as stranger_send() and stranger_send_as(), between the ports of gossip and ballots. */
void stranger_gossip(const struct cluster *c, unsigned to, const void *data, size_t len);
void stranger_gossip_as(const struct cluster *c, unsigned from, unsigned to, const void *data,
			size_t len);

/*
 * A stranger's random bytes, up to 2 * STRANGER_MTU: any length, often with the
 * beginning of a real one, sometimes under a good checksum. Returns the length.
 */
size_t stranger_noise(uint8_t *data);

/* `stats` of a master, asked for until there is room for the question. The caller's to decref. */
json_t *stranger_stats(const struct cluster *c, unsigned node);

/* The drops of a master by reason; beyond them [0] the sum of those that work does not cause. */
void stranger_drops(const struct cluster *c, unsigned node, uint64_t drops[WVM_DROP_REASONS]);
/* The same of its port of gossip and ballots. */
void stranger_gossip_drops(const struct cluster *c, unsigned node,
			   uint64_t drops[WVM_DROP_REASONS]);

#endif

/*
 * Messages between masters, gossip and ballots between them, and requests to their
 * control ports, as they really are: taken from the loopback interface while the
 * masters work.
 */
#ifndef WVM_CHECK_CAPTURE_H
#define WVM_CHECK_CAPTURE_H

#include "roles/check/stranger.h"

#define CAPTURE_PER_TYPE 64u /* of one node: the newest ones */
#define CAPTURE_TYPES    WVM_MSG_TYPES
#define CAPTURE_CONTROL  8u

struct captured {
	uint8_t from; /* member */
	uint16_t len; /* 0: none yet */
	uint8_t data[STRANGER_MTU];
};

/* What came to one port, by type. */
struct capture_port {
	uint64_t seen[CAPTURE_TYPES];
	struct captured ring[CAPTURE_TYPES][CAPTURE_PER_TYPE];
};

/* What came to one node. */
struct capture {
	struct capture_port data, gossip;
	unsigned control; /* of the requests to its control port */
	uint8_t request[CAPTURE_CONTROL][64];
	size_t request_len[CAPTURE_CONTROL];
};

/* Captures for ms milliseconds what comes to every node of c; list has one for each. */
void capture_run(const struct cluster *c, struct capture *list, unsigned ms);
/* A captured message: any type alike, then any of that type. */
const struct captured *capture_any(const struct capture_port *k);
/* How many types were seen. */
unsigned capture_types(const struct capture_port *k);

#endif

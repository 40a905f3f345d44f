/*
 * Datagrams that prove themselves: a number, a steering field, and bytes that
 * follow from the number, so that lost, doubled and torn ones show.
 */
#ifndef WVM_RING_CHECK_UDP_SUPPORT_H
#define WVM_RING_CHECK_UDP_SUPPORT_H

#include <errno.h>
#include <stdio.h>

#include "ring/check/support.h"
#include "ring/udp.h"

#define STEER_OFFSET 8
#define PROOF_HEADER 12
#define PROOF_MAX    65536

struct proof_log {
	unsigned seen[PROOF_MAX]; /* times that number was received */
	unsigned received, torn, doubled, disordered;
	int64_t last; /* highest number so far */
};

static inline void proof_write(uint8_t *buf, size_t len, uint32_t number, uint16_t steer)
{
	uint32_t length = (uint32_t)len;

	memcpy(buf, &number, 4);
	memcpy(buf + 4, &length, 4);
	buf[STEER_OFFSET] = (uint8_t)(steer >> 8);
	buf[STEER_OFFSET + 1] = (uint8_t)steer;
	for (size_t i = STEER_OFFSET + 2; i < len; i++)
		buf[i] = (uint8_t)(number * 31 + i);
}

static inline uint16_t proof_steer(const uint8_t *data)
{
	return (uint16_t)(data[STEER_OFFSET] << 8 | data[STEER_OFFSET + 1]);
}

static inline void proof_check(struct proof_log *log, const uint8_t *data, size_t len)
{
	uint32_t number, length;

	if (len < PROOF_HEADER) {
		log->torn++;
		return;
	}
	memcpy(&number, data, 4);
	memcpy(&length, data + 4, 4);
	if (length != len || number >= PROOF_MAX) {
		log->torn++;
		return;
	}
	for (size_t i = STEER_OFFSET + 2; i < len; i++)
		if (data[i] != (uint8_t)(number * 31 + i)) {
			log->torn++;
			return;
		}
	log->received++;
	if (log->seen[number]++)
		log->doubled++;
	if (number < log->last)
		log->disordered++;
	else
		log->last = number;
}

static inline struct sockaddr_in loopback(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static inline struct wvm_udp *open_udp(struct wvm_shard *s, void *ctx,
				       const struct wvm_udp_opts *opts)
{
	char why[256];
	struct wvm_udp *u;
	int err = wvm_udp_open(&u, &s, &ctx, 1, opts, why, sizeof(why));

	ck_assert_msg(!err, "udp: %d %s", err, why);
	return u;
}

static inline int send_proof(struct wvm_udp *u, enum wvm_lane lane, const struct sockaddr_in *to,
			     uint32_t number, uint16_t steer, size_t len)
{
	uint8_t *buf = wvm_udp_reserve(u, lane);

	if (!buf)
		return -EAGAIN;
	proof_write(buf, len, number, steer);
	wvm_udp_commit(u, lane, to, steer, buf, len);
	return 0;
}

#endif

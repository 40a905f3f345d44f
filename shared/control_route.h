/*
 * Orders about routes at a gateway's control port: one datagram each, answered by one.
 *
 *   order   magic "WVMC" 4 | op 2 | vnode 4 | IPv4 4 | port 2 | count 4, may be left out: 1
 *   answer  magic "WVMC" 4 | op + 0x8000 2 | vnode 4 | status 2 | vnodes 4
 *
 * All big-endian. ADD: the operator's route of the vnodes from now on, whatever it was; `vnodes` of
 * the answer are those that had another one. DEL: the operator's route of the vnodes goes away,
 * address and port do not matter; `vnodes` are those that had one. ANNOUNCE: the vnodes are at the
 * sender; IPv4 0 is its own address. Repeating an order changes nothing more.
 *
 * All functions are pure and may be called from any thread.
 */
#ifndef WVM_CONTROL_ROUTE_H
#define WVM_CONTROL_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/control.h"
#include "shared/core/route.h"

#define WVM_ROUTE_ORDER_SHORT  16u /* bytes, without count */
#define WVM_ROUTE_ORDER_BYTES  20u
#define WVM_ROUTE_ANSWER_BYTES 16u

struct wvm_route_order {
	uint16_t op; /* enum wvm_control_op */
	uint32_t first, count;
	struct wvm_hop hop;
};

struct wvm_route_answer {
	uint16_t op;     /* of the order */
	uint16_t status; /* enum wvm_control_status */
	uint32_t first;
	uint32_t vnodes;
};

/* Whether a datagram at the control port is an order about routes, by its magic and op. */
bool wvm_route_order_is(const uint8_t *data, size_t len);

/*
 * Takes one that is. OK, BAD_LENGTH, BAD_RANGE or BAD_HOP; *o has what could be read (op and,
 * unless the length is bad, first), all of it when OK. Whether ip 0 of an announcement
 * stands for its sender is left to the caller.
 */
enum wvm_control_status wvm_route_order_decode(const uint8_t *data, size_t len,
					       struct wvm_route_order *o);

void wvm_route_order_encode(uint8_t out[WVM_ROUTE_ORDER_BYTES], const struct wvm_route_order *o);
void wvm_route_answer_encode(uint8_t out[WVM_ROUTE_ANSWER_BYTES], const struct wvm_route_answer *a);
/* False: it is no answer to an order of that op and first vnode. */
bool wvm_route_answer_decode(const uint8_t *data, size_t len, const struct wvm_route_order *o,
			     struct wvm_route_answer *a);

/* Whether ip is the address of a host: not 0.x, no group, no broadcast. */
bool wvm_hop_is_host(uint32_t ip);

#endif

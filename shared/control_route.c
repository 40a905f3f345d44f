#include "shared/control_route.h"

#include "shared/core/bytes.h"
#include "shared/core/msg.h"

bool wvm_hop_is_host(uint32_t ip)
{
	return ip >> 24 != 0 && ip >> 24 < 224; /* RFC 6890 */
}

bool wvm_route_order_is(const uint8_t *data, size_t len)
{
	if (len < 6 || wvm_load32(data) != WVM_CONTROL_MAGIC)
		return false;
	switch (wvm_load16(data + 4)) {
	case WVM_CONTROL_ROUTE_ADD:
	case WVM_CONTROL_ROUTE_DEL:
	case WVM_CONTROL_ROUTE_ANNOUNCE: return true;
	default: return false;
	}
}

enum wvm_control_status wvm_route_order_decode(const uint8_t *data, size_t len,
					       struct wvm_route_order *o)
{
	bool own;

	*o = (struct wvm_route_order){.op = wvm_load16(data + 4), .count = 1};
	if (len != WVM_ROUTE_ORDER_SHORT && len != WVM_ROUTE_ORDER_BYTES)
		return WVM_CONTROL_BAD_LENGTH;
	o->first = wvm_load32(data + 6);
	o->hop.ip = wvm_load32(data + 10);
	o->hop.port = wvm_load16(data + 14);
	if (len == WVM_ROUTE_ORDER_BYTES)
		o->count = wvm_load32(data + 16);
	if (!o->count || o->first >= WVM_NODE_MAX || o->count > WVM_NODE_MAX - o->first)
		return WVM_CONTROL_BAD_RANGE;
	own = o->op == WVM_CONTROL_ROUTE_ANNOUNCE && !o->hop.ip;
	if (o->op != WVM_CONTROL_ROUTE_DEL &&
	    ((!own && !wvm_hop_is_host(o->hop.ip)) || !o->hop.port))
		return WVM_CONTROL_BAD_HOP;
	return WVM_CONTROL_OK;
}

void wvm_route_order_encode(uint8_t out[WVM_ROUTE_ORDER_BYTES], const struct wvm_route_order *o)
{
	wvm_store32(out, WVM_CONTROL_MAGIC);
	wvm_store16(out + 4, o->op);
	wvm_store32(out + 6, o->first);
	wvm_store32(out + 10, o->hop.ip);
	wvm_store16(out + 14, o->hop.port);
	wvm_store32(out + 16, o->count);
}

void wvm_route_answer_encode(uint8_t out[WVM_ROUTE_ANSWER_BYTES], const struct wvm_route_answer *a)
{
	wvm_store32(out, WVM_CONTROL_MAGIC);
	wvm_store16(out + 4, a->op | WVM_CONTROL_ANSWER);
	wvm_store32(out + 6, a->first);
	wvm_store16(out + 10, a->status);
	wvm_store32(out + 12, a->vnodes);
}

bool wvm_route_answer_decode(const uint8_t *data, size_t len, const struct wvm_route_order *o,
			     struct wvm_route_answer *a)
{
	if (len != WVM_ROUTE_ANSWER_BYTES || wvm_load32(data) != WVM_CONTROL_MAGIC)
		return false;
	*a = (struct wvm_route_answer){.op = (uint16_t)(wvm_load16(data + 4) & ~WVM_CONTROL_ANSWER),
				       .first = wvm_load32(data + 6),
				       .status = wvm_load16(data + 10),
				       .vnodes = wvm_load32(data + 12)};
	return wvm_load16(data + 4) & WVM_CONTROL_ANSWER && a->op == o->op && a->first == o->first;
}

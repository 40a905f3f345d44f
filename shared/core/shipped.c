/* What a former home says of a unit and one page of it: the bytes of an answer to HANDOVER. */
#include "shared/core/core_int.h"

#define REST_LOST UINT32_C(0x80000000) /* in `merged`: pages without an entry are LOST */

static uint8_t *put(uint8_t *at, uint64_t value, uint32_t bytes)
{
	while (bytes--)
		*at++ = (uint8_t)(value >> 8 * bytes);
	return at;
}

static uint64_t get(const uint8_t **at, uint32_t bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *(*at)++;
	return value;
}

uint32_t wvm_shipped_encode(uint8_t *out, const struct wvm_shipped *s)
{
	uint8_t *at = out;

	at = put(at, s->unit.version, 8);
	at = put(at, s->unit.granted, 8);
	at = put(at, s->unit.grant, 8);
	at = put(at, s->unit.owner, 4);
	at = put(at, s->unit.merged | (wvm_unit_rest_lost(&s->unit) ? REST_LOST : 0), 4);
	at = put(at, s->version, 8);
	at = put(at, s->granted, 8);
	at = put(at, s->total, 2);
	at = put(at, s->first, 2);
	at = put(at, s->count, 2);
	at = put(at, s->state, 1);
	at = put(at, s->flags, 1);
	for (uint32_t i = 0; i < s->count; i++) {
		at = put(at, s->grant[i], 8);
		at = put(at, s->member[i], 4);
	}
	return (uint32_t)(at - out);
}

/* Further up in the list. */
static bool is_twice(const struct wvm_shipped *s, uint32_t index)
{
	for (uint32_t i = 0; i < index; i++)
		if (s->member[i] == s->member[index])
			return true;
	return false;
}

static bool plausible(const struct wvm_core *core, const struct wvm_shipped *s)
{
	uint32_t members = core->params.members->count;

	if (s->first + s->count > s->total || s->total > members || s->unit.owner >= members ||
	    s->unit.merged > 1 || s->version > s->unit.version || s->granted > s->unit.version ||
	    s->unit.granted > s->unit.version || s->state > WVM_HOME_MODIFIED ||
	    s->flags & ~(WVM_HOME_WRITTEN | WVM_HOME_LOST | WVM_HOME_ASKED | WVM_HOME_UNSTORED) ||
	    (s->flags & WVM_HOME_UNSTORED && s->state != WVM_HOME_MODIFIED))
		return false;
	if (s->total && !s->count)
		return false; /* asked for any part, a home has something to say */
	for (uint32_t i = 0; i < s->count; i++)
		if (s->member[i] >= members || is_twice(s, i))
			return false;
	if (!s->version)
		return !s->total && !s->state && !s->flags;
	if (s->state == WVM_HOME_MODIFIED)
		return s->total == 1 && s->granted > s->version;
	return (s->state == WVM_HOME_SHARED) == (s->total > 0);
}

bool wvm_shipped_decode(const struct wvm_core *core, const uint8_t *at, uint32_t len,
			struct wvm_shipped *s)
{
	if (len < 56)
		return false;
	*s = (struct wvm_shipped){0};
	s->unit.version = get(&at, 8);
	s->unit.granted = get(&at, 8);
	s->unit.grant = get(&at, 8);
	s->unit.owner = (uint32_t)get(&at, 4);
	s->unit.merged = (uint32_t)get(&at, 4);
	if (s->unit.merged & REST_LOST) {
		s->unit.merged &= ~REST_LOST;
		s->unit.lost = WVM_UNIT_UNKNOWN | WVM_UNIT_REBUILT;
	}
	s->version = get(&at, 8);
	s->granted = get(&at, 8);
	s->total = (uint16_t)get(&at, 2);
	s->first = (uint16_t)get(&at, 2);
	s->count = (uint16_t)get(&at, 2);
	s->state = (uint8_t)get(&at, 1);
	s->flags = (uint8_t)get(&at, 1);
	if (s->count > WVM_SHIP_HOLDERS || len != 56 + 12u * s->count)
		return false;
	for (uint32_t i = 0; i < s->count; i++) {
		s->grant[i] = get(&at, 8);
		s->member[i] = (uint32_t)get(&at, 4);
	}
	return plausible(core, s);
}

struct wvm_handed wvm_core_handed(const uint8_t *payload, uint32_t len)
{
	const uint8_t *unit = payload, *page = payload + 32;

	if (!payload || len < 56)
		return (struct wvm_handed){0, 0};
	return (struct wvm_handed){.unit = get(&unit, 8), .page = get(&page, 8)};
}

#include "shared/view.h"

#include <errno.h>
#include <string.h>

#include "shared/core/assert.h"
#include "shared/core/bytes.h"
#include "shared/crc32c.h"

#define MAGIC "WVMVIEW1"

enum offset {
	AT_MAGIC = 0,
	AT_NODE = 8,
	AT_CLUSTER = AT_NODE + 4,
	AT_RECORD = AT_CLUSTER + 8,
	AT_MOVED = AT_RECORD + WVM_EPOCH_RECORD_BYTES,
	AT_MOVING = AT_MOVED + 4,
	AT_KEPT_COUNT = AT_MOVING + 4,
	AT_KEPT = AT_KEPT_COUNT + 4,
	AT_COUNT = AT_KEPT + WVM_EPOCH_LOG * WVM_EPOCH_RECORD_BYTES,
	AT_STATE = AT_COUNT + 4,
	CRC_BYTES = 4,
};
_Static_assert(AT_STATE + WVM_VIEW_MEMBERS + CRC_BYTES == WVM_VIEW_BYTES_MAX, "as stated");

static bool is_home(uint8_t state)
{
	return state == WVM_NODE_WARMING || state == WVM_NODE_ACTIVE;
}

static bool on_its_way(uint8_t state)
{
	return state == WVM_NODE_WARMING || state == WVM_NODE_DRAINING;
}

void wvm_view_first(struct wvm_view *v, const struct wvm_epoch_record *first, uint32_t members,
		    const uint8_t *spare)
{
	*v = (struct wvm_view){.record = *first,
			       .count = members < WVM_VIEW_MEMBERS ? members : WVM_VIEW_MEMBERS};
	for (uint32_t i = 0; i < v->count; i++)
		v->state[i] = spare && spare[i] ? WVM_NODE_SHADOW : WVM_NODE_ACTIVE;
}

static uint32_t homes(const struct wvm_view *v)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < v->count; i++)
		n += is_home(v->state[i]);
	return n;
}

enum wvm_view_answer wvm_view_allows(const struct wvm_view *v, uint32_t member,
				     enum wvm_node_state state)
{
	uint8_t now;

	if (member >= v->count)
		return WVM_VIEW_NO_WAY;
	now = v->state[member];
	if (now == state)
		return WVM_VIEW_IS_SO;
	if ((state == WVM_NODE_ACTIVE && now == WVM_NODE_WARMING) ||
	    (state == WVM_NODE_OFFLINE && now == WVM_NODE_DRAINING))
		return WVM_VIEW_ALLOWED;
	if ((state == WVM_NODE_WARMING && now == WVM_NODE_ACTIVE) ||
	    (state == WVM_NODE_DRAINING && (now == WVM_NODE_OFFLINE || now == WVM_NODE_SHADOW)))
		return WVM_VIEW_IS_SO;
	if (state != WVM_NODE_WARMING && state != WVM_NODE_DRAINING)
		return WVM_VIEW_NO_WAY;
	if (v->moved)
		return WVM_VIEW_MOVING;
	return state == WVM_NODE_DRAINING && homes(v) == 1 ? WVM_VIEW_LAST : WVM_VIEW_ALLOWED;
}

/* ---- records --------------------------------------------------------------------------- */

static void add_voter(struct wvm_epoch_record *r, uint32_t vnode)
{
	uint8_t at = r->voters;

	while (at && r->voter[at - 1] > vnode)
		at--;
	memmove(&r->voter[at + 1], &r->voter[at], (r->voters - at) * sizeof(r->voter[0]));
	r->voter[at] = vnode;
	r->voters++;
}

static void drop_voter(struct wvm_epoch_record *r, int at)
{
	r->voters--;
	memmove(&r->voter[at], &r->voter[at + 1], (r->voters - at) * sizeof(r->voter[0]));
	r->voter[r->voters] = 0;
}

static void fill_voters(const struct wvm_view *v, const struct wvm_members *members,
			struct wvm_epoch_record *r)
{
	for (uint32_t i = 0; i < v->count && r->voters < WVM_EPOCH_VOTERS_MAX; i++) {
		uint32_t vnode = members->list[i].first_vnode;

		if (vnode != r->node && is_home(v->state[i]) && wvm_epoch_voter(r, vnode) < 0)
			add_voter(r, vnode);
	}
}

bool wvm_view_record(const struct wvm_view *v, const struct wvm_members *members, uint32_t member,
		     enum wvm_node_state state, struct wvm_epoch_record *out)
{
	int at;

	if (wvm_view_allows(v, member, state) != WVM_VIEW_ALLOWED)
		return false;
	*out = v->record;
	out->epoch++;
	out->node = members->list[member].first_vnode;
	out->state = (uint8_t)state;
	at = wvm_epoch_voter(out, out->node);
	if (state == WVM_NODE_OFFLINE && at >= 0) {
		drop_voter(out, at);
		fill_voters(v, members, out);
	}
	if (state == WVM_NODE_ACTIVE && at < 0 && out->voters < WVM_EPOCH_VOTERS_MAX)
		add_voter(out, out->node);
	return true;
}

static void keep(struct wvm_view *v, const struct wvm_epoch_record *record)
{
	if (v->kept_count == WVM_EPOCH_LOG)
		memmove(v->kept, v->kept + 1, --v->kept_count * sizeof(v->kept[0]));
	v->kept[v->kept_count++] = *record;
}

bool wvm_view_apply(struct wvm_view *v, const struct wvm_members *members,
		    const struct wvm_epoch_record *record)
{
	uint32_t member = wvm_member_of(members, record->node);

	WVM_ASSERT(record->epoch == v->record.epoch + 1);
	keep(v, &v->record);
	v->record = *record;
	if (member == WVM_SLICE_NIL || members->list[member].first_vnode != record->node ||
	    wvm_view_allows(v, member, record->state) != WVM_VIEW_ALLOWED)
		return false;
	v->state[member] = record->state;
	v->moved = on_its_way(record->state) ? record->epoch : 0;
	v->moving = v->moved ? member : 0;
	return v->moved;
}

/* ---- who does what --------------------------------------------------------------------- */

void wvm_view_homes(const struct wvm_view *v, uint32_t count, bool before, uint8_t *out)
{
	for (uint32_t i = 0; i < count; i++) {
		out[i] = i >= v->count || is_home(v->state[i]);
		if (before && v->moved && i == v->moving)
			out[i] = !out[i];
	}
}

bool wvm_view_takes_part(const struct wvm_view *v, uint32_t member)
{
	return member >= v->count || is_home(v->state[member]) ||
	       v->state[member] == WVM_NODE_DRAINING;
}

bool wvm_view_open(const struct wvm_view *v, uint32_t member)
{
	return member >= v->count || is_home(v->state[member]);
}

/* ---- bytes ----------------------------------------------------------------------------- */

size_t wvm_view_encode(uint8_t out[WVM_VIEW_BYTES_MAX], const struct wvm_view *v, uint32_t node,
		       uint64_t cluster)
{
	size_t end = AT_STATE + v->count;

	memcpy(out + AT_MAGIC, MAGIC, AT_NODE - AT_MAGIC);
	wvm_store32(out + AT_NODE, node);
	wvm_store64(out + AT_CLUSTER, cluster);
	wvm_epoch_record_encode(out + AT_RECORD, &v->record);
	wvm_store32(out + AT_MOVED, v->moved);
	wvm_store32(out + AT_MOVING, v->moving);
	wvm_store32(out + AT_KEPT_COUNT, v->kept_count);
	for (uint32_t i = 0; i < WVM_EPOCH_LOG; i++)
		wvm_epoch_record_encode(out + AT_KEPT + i * WVM_EPOCH_RECORD_BYTES, &v->kept[i]);
	wvm_store32(out + AT_COUNT, v->count);
	memcpy(out + AT_STATE, v->state, v->count);
	wvm_store32(out + end, wvm_crc32c(0, out, end));
	return end + CRC_BYTES;
}

/* Exactly the member that `moved` is about is on its way, and somebody is home. */
static bool plausible(const struct wvm_view *v)
{
	if (!wvm_epoch_record_check(&v->record) || !homes(v) || v->moved > v->record.epoch)
		return false;
	if (v->moved ? v->moving >= v->count : v->moving)
		return false;
	if (v->kept_count > WVM_EPOCH_LOG)
		return false;
	for (uint32_t i = 0; i < v->kept_count; i++)
		if (!wvm_epoch_record_check(&v->kept[i]) ||
		    v->kept[i].epoch != v->record.epoch - v->kept_count + i)
			return false;
	for (uint32_t i = 0; i < v->count; i++) {
		bool moves = v->moved && i == v->moving;

		if (v->state[i] >= WVM_NODE_STATES || on_its_way(v->state[i]) != moves)
			return false;
	}
	return true;
}

int wvm_view_decode(struct wvm_view *v, const uint8_t *bytes, size_t len, uint32_t node,
		    uint64_t cluster, uint32_t members)
{
	uint32_t count;

	if (len < AT_STATE + CRC_BYTES || memcmp(bytes, MAGIC, AT_NODE - AT_MAGIC))
		return -EINVAL;
	count = wvm_load32(bytes + AT_COUNT);
	if (count > WVM_VIEW_MEMBERS || len != AT_STATE + count + CRC_BYTES ||
	    wvm_load32(bytes + len - CRC_BYTES) != wvm_crc32c(0, bytes, len - CRC_BYTES))
		return -EINVAL;
	*v = (struct wvm_view){.record = wvm_epoch_record_decode(bytes + AT_RECORD),
			       .moved = wvm_load32(bytes + AT_MOVED),
			       .moving = wvm_load32(bytes + AT_MOVING),
			       .kept_count = wvm_load32(bytes + AT_KEPT_COUNT),
			       .count = count};
	for (uint32_t i = 0; i < WVM_EPOCH_LOG; i++)
		v->kept[i] = wvm_epoch_record_decode(bytes + AT_KEPT + i * WVM_EPOCH_RECORD_BYTES);
	memcpy(v->state, bytes + AT_STATE, count);
	if (!plausible(v))
		return -EINVAL;
	return wvm_load32(bytes + AT_NODE) == node && wvm_load64(bytes + AT_CLUSTER) == cluster &&
			       (members < WVM_VIEW_MEMBERS ? members : WVM_VIEW_MEMBERS) == count
		       ? 0
		       : -EEXIST;
}

#include "shared/view.h"

#include <errno.h>
#include <string.h>

#include "shared/core/assert.h"
#include "shared/core/bytes.h"
#include "shared/crc32c.h"

#define MAGIC  "WVMVIEW2"
/* The member of a second home in the bytes: there is none. */
#define NOBODY UINT16_MAX

enum offset {
	AT_MAGIC = 0,
	AT_NODE = 8,
	AT_CLUSTER = AT_NODE + 4,
	AT_RECORD = AT_CLUSTER + 8,
	AT_MOVED = AT_RECORD + WVM_EPOCH_RECORD_BYTES,
	AT_MOVING = AT_MOVED + 4,
	AT_LOST_EPOCH = AT_MOVING + 4,
	AT_KEPT_COUNT = AT_LOST_EPOCH + 4,
	AT_KEPT = AT_KEPT_COUNT + 4,
	AT_LOST = AT_KEPT + WVM_EPOCH_LOG * WVM_EPOCH_RECORD_BYTES,
	AT_SLICES = AT_LOST + WVM_SLICES / 8,
	AT_BEFORE = AT_SLICES + WVM_SLICES * 2,
	AT_SECONDS = AT_BEFORE + WVM_SLICES * 2,
	AT_COUNT = AT_SECONDS + WVM_SLICES * 2,
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

static uint32_t count_of(const struct wvm_members *members)
{
	return members->count < WVM_VIEW_MEMBERS ? members->count : WVM_VIEW_MEMBERS;
}

/* What the homes have by their weight. */
static void build(struct wvm_slices *table, const struct wvm_view *v,
		  const struct wvm_members *members, struct wvm_slices_scratch *scratch)
{
	uint8_t active[WVM_VIEW_MEMBERS];

	wvm_view_homes(v, v->count, active);
	wvm_slices_build_active(table, members, active, scratch);
}

/* The second homes that the table in force says, where v->seconds has none: costly, so not else. */
static void fill_seconds(struct wvm_view *v, const struct wvm_members *members,
			 struct wvm_slices_scratch *scratch)
{
	uint8_t active[WVM_VIEW_MEMBERS], wanted[WVM_VIEW_MEMBERS] = {0};
	struct wvm_slices computed;
	bool any = false;

	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		if (v->seconds.home_vnode[i] != WVM_SLICE_NIL)
			continue;
		wanted[wvm_member_of(members, v->slices.home_vnode[i])] = 1;
		any = true;
	}
	if (!any)
		return;
	wvm_view_homes(v, v->count, active);
	wvm_slices_build_backup(&computed, &v->slices, members, active, wanted, scratch);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (v->seconds.home_vnode[i] == WVM_SLICE_NIL)
			v->seconds.home_vnode[i] = computed.home_vnode[i];
}

void wvm_view_first(struct wvm_view *v, const struct wvm_epoch_record *first,
		    const struct wvm_members *members, const uint8_t *spare,
		    struct wvm_slices_scratch *scratch)
{
	memset(v, 0, sizeof(*v));
	v->record = *first;
	v->count = count_of(members);
	for (uint32_t i = 0; i < v->count; i++)
		v->state[i] = spare && spare[i] ? WVM_NODE_SHADOW : WVM_NODE_ACTIVE;
	build(&v->slices, v, members, scratch);
	v->before = v->slices;
	memset(&v->seconds, 0xff, sizeof(v->seconds)); /* WVM_SLICE_NIL */
	fill_seconds(v, members, scratch);
}

static uint32_t homes(const struct wvm_view *v)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < v->count; i++)
		n += is_home(v->state[i]);
	return n;
}

/* Dead for good: at any time, also while there is a move. */
static enum wvm_view_answer allows_death(const struct wvm_view *v, uint8_t now)
{
	if (now == WVM_NODE_SHADOW || now == WVM_NODE_OFFLINE)
		return WVM_VIEW_IS_SO;
	return is_home(now) && homes(v) == 1 ? WVM_VIEW_LAST : WVM_VIEW_ALLOWED;
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
	if (state == WVM_NODE_LOST)
		return allows_death(v, now);
	if (state == WVM_NODE_OFFLINE && now == WVM_NODE_LOST)
		return v->moving == WVM_VIEW_NOBODY ? WVM_VIEW_ALLOWED : WVM_VIEW_MOVING;
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
	if ((state == WVM_NODE_OFFLINE || state == WVM_NODE_LOST) && at >= 0) {
		drop_voter(out, at);
		fill_voters(v, members, out);
	}
	if (state == WVM_NODE_ACTIVE && at < 0 && out->voters < WVM_EPOCH_VOTERS_MAX)
		add_voter(out, out->node);
	return true;
}

uint32_t wvm_view_completer(const struct wvm_view *v)
{
	uint32_t i = 0;

	if (!v->moved)
		return WVM_SLICE_NIL;
	if (v->moving != WVM_VIEW_NOBODY)
		return v->moving;
	while (!is_home(v->state[i]))
		i++;
	return i;
}

bool wvm_view_completing(const struct wvm_view *v, const struct wvm_members *members,
			 struct wvm_epoch_record *out)
{
	uint32_t i = 0;

	if (!v->moved)
		return false;
	if (v->moving != WVM_VIEW_NOBODY)
		return wvm_view_record(v, members, v->moving,
				       v->state[v->moving] == WVM_NODE_WARMING ? WVM_NODE_ACTIVE
									       : WVM_NODE_OFFLINE,
				       out);
	while (v->state[i] != WVM_NODE_LOST)
		i++;
	return wvm_view_record(v, members, i, WVM_NODE_OFFLINE, out);
}

/* ---- what they do ---------------------------------------------------------------------- */

static void keep(struct wvm_view *v, const struct wvm_epoch_record *record)
{
	if (v->kept_count == WVM_EPOCH_LOG)
		memmove(v->kept, v->kept + 1, --v->kept_count * sizeof(v->kept[0]));
	v->kept[v->kept_count++] = *record;
}

static void begin_move(struct wvm_view *v, uint32_t moving)
{
	v->moved = v->record.epoch;
	v->moving = moving;
	v->before = v->slices;
}

static void complete(struct wvm_view *v)
{
	v->moved = v->moving = v->lost_epoch = 0;
	memset(v->lost, 0, sizeof(v->lost));
	v->before = v->slices;
	for (uint32_t i = 0; i < v->count; i++)
		if (v->state[i] == WVM_NODE_LOST)
			v->state[i] = WVM_NODE_OFFLINE;
}

static bool homes_vnode(const struct wvm_view *v, const struct wvm_members *members, uint32_t vnode)
{
	uint32_t member = wvm_member_of(members, vnode);

	return member < v->count && is_home(v->state[member]);
}

/* Who gave a slice away has all of it, so that it is its second home costs nothing. */
static void level(struct wvm_view *v, const struct wvm_members *members,
		  struct wvm_slices_scratch *scratch)
{
	build(&v->slices, v, members, scratch);
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t *second = &v->seconds.home_vnode[i];

		if (v->slices.home_vnode[i] != v->before.home_vnode[i])
			*second = v->before.home_vnode[i];
		if (!homes_vnode(v, members, *second))
			*second = WVM_SLICE_NIL;
	}
	fill_seconds(v, members, scratch);
}

static bool has(const struct wvm_slices *table, uint32_t slice, const struct wvm_member *m)
{
	return table->home_vnode[slice] - m->first_vnode < m->vnodes;
}

/* Nobody else's slices move: who is left has enough to do with those of the dead. */
static void bury(struct wvm_view *v, const struct wvm_members *members, uint32_t member,
		 struct wvm_slices_scratch *scratch)
{
	const struct wvm_member *m = &members->list[member];

	if (!v->moved)
		begin_move(v, WVM_VIEW_NOBODY);
	else if (v->moving == member)
		v->moving = WVM_VIEW_NOBODY;
	v->lost_epoch = v->record.epoch;
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		bool his = has(&v->slices, i, m);

		if (his || has(&v->before, i, m))
			v->lost[i / 64] |= UINT64_C(1) << i % 64;
		if (his)
			v->slices.home_vnode[i] = v->seconds.home_vnode[i];
		if (his || has(&v->seconds, i, m))
			v->seconds.home_vnode[i] = WVM_SLICE_NIL;
	}
	fill_seconds(v, members, scratch);
}

bool wvm_view_apply(struct wvm_view *v, const struct wvm_members *members,
		    const struct wvm_epoch_record *record, struct wvm_slices_scratch *scratch)
{
	uint32_t member = wvm_member_of(members, record->node);

	WVM_ASSERT(record->epoch == v->record.epoch + 1);
	keep(v, &v->record);
	v->record = *record;
	if (member == WVM_SLICE_NIL || members->list[member].first_vnode != record->node ||
	    wvm_view_allows(v, member, record->state) != WVM_VIEW_ALLOWED)
		return false;
	v->state[member] = record->state;
	if (record->state == WVM_NODE_LOST) {
		bury(v, members, member, scratch);
	} else if (on_its_way(record->state)) {
		begin_move(v, member);
		level(v, members, scratch);
	} else {
		complete(v);
	}
	return v->moved;
}

/* ---- who does what --------------------------------------------------------------------- */

uint32_t wvm_view_stirred(const struct wvm_view *v)
{
	return v->lost_epoch ? v->lost_epoch : v->moved;
}

void wvm_view_homes(const struct wvm_view *v, uint32_t count, uint8_t *out)
{
	for (uint32_t i = 0; i < count; i++)
		out[i] = i >= v->count || is_home(v->state[i]);
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

static void put_table(uint8_t *out, const struct wvm_slices *table,
		      const struct wvm_members *members)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		wvm_store16(out + i * 2, (uint16_t)wvm_member_of(members, table->home_vnode[i]));
}

static void get_table(struct wvm_slices *table, const uint8_t *bytes,
		      const struct wvm_members *members)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint16_t member = wvm_load16(bytes + i * 2);

		table->home_vnode[i] = member == NOBODY
					       ? WVM_SLICE_NIL
					       : wvm_slice_vnode(i, &members->list[member]);
	}
}

size_t wvm_view_encode(uint8_t out[WVM_VIEW_BYTES_MAX], const struct wvm_view *v,
		       const struct wvm_members *members, uint32_t node, uint64_t cluster)
{
	size_t end = AT_STATE + v->count;

	memcpy(out + AT_MAGIC, MAGIC, AT_NODE - AT_MAGIC);
	wvm_store32(out + AT_NODE, node);
	wvm_store64(out + AT_CLUSTER, cluster);
	wvm_epoch_record_encode(out + AT_RECORD, &v->record);
	wvm_store32(out + AT_MOVED, v->moved);
	wvm_store32(out + AT_MOVING, v->moving);
	wvm_store32(out + AT_LOST_EPOCH, v->lost_epoch);
	wvm_store32(out + AT_KEPT_COUNT, v->kept_count);
	for (uint32_t i = 0; i < WVM_EPOCH_LOG; i++)
		wvm_epoch_record_encode(out + AT_KEPT + i * WVM_EPOCH_RECORD_BYTES, &v->kept[i]);
	for (uint32_t i = 0; i < WVM_SLICES / 64; i++)
		wvm_store64(out + AT_LOST + i * 8, v->lost[i]);
	put_table(out + AT_SLICES, &v->slices, members);
	put_table(out + AT_BEFORE, &v->before, members);
	put_table(out + AT_SECONDS, &v->seconds, members);
	wvm_store32(out + AT_COUNT, v->count);
	memcpy(out + AT_STATE, v->state, v->count);
	wvm_store32(out + end, wvm_crc32c(0, out, end));
	return end + CRC_BYTES;
}

static bool records_plausible(const struct wvm_view *v)
{
	if (!wvm_epoch_record_check(&v->record) || v->kept_count > WVM_EPOCH_LOG)
		return false;
	for (uint32_t i = 0; i < v->kept_count; i++)
		if (!wvm_epoch_record_check(&v->kept[i]) ||
		    v->kept[i].epoch != v->record.epoch - v->kept_count + i)
			return false;
	return true;
}

/* Exactly the member that `moved` is about is on its way, and somebody is home. */
static bool states_plausible(const struct wvm_view *v)
{
	bool one = v->moved && v->moving != WVM_VIEW_NOBODY, dead = false;

	if (!homes(v) || (one && v->moving >= v->count))
		return false;
	for (uint32_t i = 0; i < v->count; i++) {
		if (v->state[i] >= WVM_NODE_STATES ||
		    on_its_way(v->state[i]) != (one && i == v->moving))
			return false;
		dead |= v->state[i] == WVM_NODE_LOST;
	}
	return dead == (v->lost_epoch != 0);
}

static bool move_plausible(const struct wvm_view *v)
{
	uint64_t lost = 0;

	for (uint32_t i = 0; i < WVM_SLICES / 64; i++)
		lost |= v->lost[i];
	if (v->moved > v->record.epoch || v->lost_epoch > v->record.epoch)
		return false;
	if (!v->lost_epoch)
		return !lost && v->moving != WVM_VIEW_NOBODY && (v->moved || !v->moving);
	return v->moved && v->lost_epoch >= v->moved;
}

/* Homes are homes; and what the dead had before the move has been left without one. */
static bool tables_plausible(const struct wvm_view *v, const uint8_t *bytes)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint16_t now = wvm_load16(bytes + AT_SLICES + i * 2);
		uint16_t before = wvm_load16(bytes + AT_BEFORE + i * 2);
		bool lost = v->lost[i / 64] >> i % 64 & 1;
		uint8_t was;

		if (now >= v->count || before >= v->count || !is_home(v->state[now]) ||
		    (!v->moved && before != now))
			return false;
		was = v->state[before];
		if (was != WVM_NODE_ACTIVE && was != WVM_NODE_DRAINING &&
		    !(was == WVM_NODE_LOST && lost))
			return false;
	}
	return true;
}

/* Each slice has a second home, another one, so long as there is one. */
static bool seconds_plausible(const struct wvm_view *v, const uint8_t *bytes)
{
	bool alone = homes(v) == 1;

	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint16_t now = wvm_load16(bytes + AT_SLICES + i * 2);
		uint16_t second = wvm_load16(bytes + AT_SECONDS + i * 2);

		if (alone ? second != NOBODY
			  : second >= v->count || second == now || !is_home(v->state[second]))
			return false;
	}
	return true;
}

static void get_view(struct wvm_view *v, const uint8_t *bytes, uint32_t count)
{
	memset(v, 0, sizeof(*v));
	v->record = wvm_epoch_record_decode(bytes + AT_RECORD);
	v->moved = wvm_load32(bytes + AT_MOVED);
	v->moving = wvm_load32(bytes + AT_MOVING);
	v->lost_epoch = wvm_load32(bytes + AT_LOST_EPOCH);
	v->kept_count = wvm_load32(bytes + AT_KEPT_COUNT);
	for (uint32_t i = 0; i < WVM_EPOCH_LOG; i++)
		v->kept[i] = wvm_epoch_record_decode(bytes + AT_KEPT + i * WVM_EPOCH_RECORD_BYTES);
	for (uint32_t i = 0; i < WVM_SLICES / 64; i++)
		v->lost[i] = wvm_load64(bytes + AT_LOST + i * 8);
	v->count = count;
	memcpy(v->state, bytes + AT_STATE, count);
}

int wvm_view_decode(struct wvm_view *v, const uint8_t *bytes, size_t len,
		    const struct wvm_members *members, uint32_t node, uint64_t cluster)
{
	uint32_t count;

	if (len < AT_STATE + CRC_BYTES || memcmp(bytes, MAGIC, AT_NODE - AT_MAGIC))
		return -EINVAL;
	count = wvm_load32(bytes + AT_COUNT);
	if (count > WVM_VIEW_MEMBERS || len != AT_STATE + count + CRC_BYTES ||
	    wvm_load32(bytes + len - CRC_BYTES) != wvm_crc32c(0, bytes, len - CRC_BYTES))
		return -EINVAL;
	get_view(v, bytes, count);
	if (!records_plausible(v) || !states_plausible(v) || !move_plausible(v) ||
	    !tables_plausible(v, bytes) || !seconds_plausible(v, bytes))
		return -EINVAL;
	if (wvm_load32(bytes + AT_NODE) != node || wvm_load64(bytes + AT_CLUSTER) != cluster ||
	    count_of(members) != count)
		return -EEXIST;
	get_table(&v->slices, bytes + AT_SLICES, members);
	get_table(&v->before, bytes + AT_BEFORE, members);
	get_table(&v->seconds, bytes + AT_SECONDS, members);
	return 0;
}

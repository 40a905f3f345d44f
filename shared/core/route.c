#include "shared/core/route.h"

#include "shared/core/assert.h"
#include "shared/core/msg.h"

static const char *const names[] = {
	[WVM_ROUTE_OPERATOR] = "operator",   [WVM_ROUTE_STATIC] = "static",
	[WVM_ROUTE_ANNOUNCED] = "announced", [WVM_ROUTE_LEARNED] = "learned",
	[WVM_ROUTE_DEFAULT] = "default",     [WVM_ROUTE_UPSTREAM] = "upstream",
	[WVM_ROUTE_NONE] = "none",
};

const char *wvm_route_class_name(enum wvm_route_class class)
{
	return (unsigned)class <= WVM_ROUTE_NONE ? names[class] : "unknown";
}

/* ---- memory ---------------------------------------------------------------------------- */

/* Every range may have a hop of its own; at most half of the slots are taken. */
static uint32_t neighbour_slots(const struct wvm_route_limits *limits)
{
	uint64_t hops = 2; /* default, upstream */
	uint32_t slots = 4;

	for (unsigned i = 0; i < WVM_ROUTE_LEARNED; i++)
		hops += limits->ranges[i];
	while (slots < 2 * hops)
		slots *= 2;
	return slots;
}

size_t wvm_route_bytes(const struct wvm_route_limits *limits)
{
	size_t bytes = neighbour_slots(limits) * sizeof(struct wvm_hop);

	for (unsigned i = 0; i < WVM_ROUTE_CLASSES; i++) {
		WVM_ASSERT(limits->ranges[i] <= WVM_NODE_MAX);
		bytes += limits->ranges[i] * sizeof(struct wvm_route_range);
	}
	return bytes;
}

void wvm_route_init(struct wvm_routes_table *t, const struct wvm_route_limits *limits, void *memory)
{
	struct wvm_route_range *at = memory;

	*t = (struct wvm_routes_table){.neighbour_mask = neighbour_slots(limits) - 1,
				       .changed = true};
	for (unsigned i = 0; i < WVM_ROUTE_CLASSES; i++) {
		t->list[i] = (struct wvm_route_list){.at = at, .room = limits->ranges[i]};
		at += limits->ranges[i];
	}
	t->neighbours = (struct wvm_hop *)(void *)at;
}

void wvm_route_set_default(struct wvm_routes_table *t, struct wvm_hop hop)
{
	t->fallback = hop;
	t->changed = true;
}

void wvm_route_set_upstream(struct wvm_routes_table *t, struct wvm_hop hop)
{
	t->upstream = hop;
	t->changed = true;
}

/* Its slot, or the free one where it would be. */
static struct wvm_hop *slot_of(const struct wvm_routes_table *t, struct wvm_hop hop)
{
	uint32_t i = (hop.ip * 2654435761u ^ hop.port * 40503u) & t->neighbour_mask;

	while (t->neighbours[i].ip && !wvm_hop_same(t->neighbours[i], hop))
		i = (i + 1) & t->neighbour_mask;
	return &t->neighbours[i];
}

static void note_neighbour(struct wvm_routes_table *t, struct wvm_hop hop)
{
	if (hop.ip)
		*slot_of(t, hop) = hop;
}

/* ---- ranges ---------------------------------------------------------------------------- */

static uint32_t end_of(const struct wvm_route_range *r)
{
	return r->first + r->count;
}

/* The first range that does not end before or at vnode. */
static uint32_t first_behind(const struct wvm_route_list *l, uint32_t vnode)
{
	uint32_t low = 0, high = l->count;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (end_of(&l->at[mid]) <= vnode)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void check_range(uint32_t first, uint32_t count)
{
	WVM_ASSERT(count && first < WVM_NODE_MAX && count <= WVM_NODE_MAX - first);
}

/* Puts n ranges in the place of those from `from` to before `to`. There is room. */
static void replace(struct wvm_route_list *l, uint32_t from, uint32_t to,
		    const struct wvm_route_range *with, uint32_t n)
{
	uint32_t behind = l->count - to;

	WVM_ASSERT(from <= to && to <= l->count && l->count - (to - from) + n <= l->room);
	__builtin_memmove(&l->at[from + n], &l->at[to], behind * sizeof(*l->at));
	for (uint32_t i = 0; i < n; i++)
		l->at[from + i] = with[i];
	l->count = from + n + behind;
}

static bool joins(const struct wvm_route_range *a, const struct wvm_route_range *b)
{
	return end_of(a) == b->first && wvm_hop_same(a->hop, b->hop);
}

/* Appends, or makes the last one longer. */
static void put(struct wvm_route_range *list, uint32_t *n, struct wvm_route_range r)
{
	if (!r.count)
		return;
	if (*n && joins(&list[*n - 1], &r))
		list[*n - 1].count += r.count;
	else
		list[(*n)++] = r;
}

/* What was in [first, end) gives way to `hop`, or to nothing where hop.ip is 0. */
static bool put_range(struct wvm_routes_table *t, enum wvm_route_class class, uint32_t first,
		      uint32_t count, struct wvm_hop hop, uint32_t *gone)
{
	struct wvm_route_list *l = &t->list[class];
	uint32_t end = first + count, from = first_behind(l, first), to = from, n = 0, had = 0;
	struct wvm_route_range with[5], before = {0}, after = {0};

	for (; to < l->count && l->at[to].first < end; to++) {
		const struct wvm_route_range *r = &l->at[to];
		uint32_t low = r->first > first ? r->first : first;
		uint32_t high = end_of(r) < end ? end_of(r) : end;

		had += high - low;
		if (r->first < first)
			before = (struct wvm_route_range){r->first, first - r->first, r->hop};
		if (end_of(r) > end)
			after = (struct wvm_route_range){end, end_of(r) - end, r->hop};
	}
	/* Those beside it, which it may become one with. */
	if (from && end_of(&l->at[from - 1]) == first)
		put(with, &n, l->at[--from]);
	put(with, &n, before);
	if (hop.ip)
		put(with, &n, (struct wvm_route_range){first, count, hop});
	put(with, &n, after);
	if (to < l->count && l->at[to].first == end)
		put(with, &n, l->at[to++]);
	if (gone)
		*gone = had;
	if (l->count - (to - from) + n > l->room)
		return false;
	replace(l, from, to, with, n);
	if (class == WVM_ROUTE_LEARNED)
		return true;
	/* Where nothing gave way nobody stops to be a neighbour. */
	if (!had && hop.ip && !t->changed)
		note_neighbour(t, hop);
	else
		t->changed = true;
	return true;
}

bool wvm_route_set(struct wvm_routes_table *t, enum wvm_route_class class, uint32_t first,
		   uint32_t count, struct wvm_hop hop)
{
	WVM_ASSERT((unsigned)class < WVM_ROUTE_CLASSES && hop.ip && hop.port);
	check_range(first, count);
	return put_range(t, class, first, count, hop, NULL);
}

bool wvm_route_clear(struct wvm_routes_table *t, enum wvm_route_class class, uint32_t first,
		     uint32_t count, uint32_t *gone)
{
	WVM_ASSERT((unsigned)class < WVM_ROUTE_CLASSES);
	check_range(first, count);
	return put_range(t, class, first, count, (struct wvm_hop){0}, gone);
}

const struct wvm_route_range *wvm_route_range_of(const struct wvm_routes_table *t,
						 enum wvm_route_class class, uint32_t vnode)
{
	const struct wvm_route_list *l = &t->list[class];
	uint32_t i = first_behind(l, vnode);

	return i < l->count && l->at[i].first <= vnode ? &l->at[i] : NULL;
}

const struct wvm_hop *wvm_route_find(const struct wvm_routes_table *t, uint32_t vnode,
				     enum wvm_route_class *class)
{
	enum wvm_route_class ignored;

	class = class ? class : &ignored;
	for (unsigned i = 0; i < WVM_ROUTE_CLASSES && vnode < WVM_NODE_MAX; i++) {
		const struct wvm_route_range *r = wvm_route_range_of(t, i, vnode);

		*class = (enum wvm_route_class)i;
		if (r)
			return &r->hop;
	}
	*class = WVM_ROUTE_DEFAULT;
	if (t->fallback.ip && vnode < WVM_NODE_MAX)
		return &t->fallback;
	*class = WVM_ROUTE_UPSTREAM;
	if (t->upstream.ip && vnode < WVM_NODE_MAX)
		return &t->upstream;
	*class = WVM_ROUTE_NONE;
	return NULL;
}

/* ---- neighbours ------------------------------------------------------------------------ */

static void forget_strangers(struct wvm_routes_table *t)
{
	struct wvm_route_list *l = &t->list[WVM_ROUTE_LEARNED];
	uint32_t kept = 0;

	for (uint32_t i = 0; i < l->count; i++)
		if (slot_of(t, l->at[i].hop)->ip)
			l->at[kept++] = l->at[i];
	l->count = kept;
}

static void collect(struct wvm_routes_table *t)
{
	for (uint32_t i = 0; i <= t->neighbour_mask; i++)
		t->neighbours[i] = (struct wvm_hop){0};
	for (unsigned c = 0; c < WVM_ROUTE_LEARNED; c++)
		for (uint32_t i = 0; i < t->list[c].count; i++)
			note_neighbour(t, t->list[c].at[i].hop);
	note_neighbour(t, t->fallback);
	note_neighbour(t, t->upstream);
	t->changed = false;
	forget_strangers(t);
}

bool wvm_route_trusts(struct wvm_routes_table *t, struct wvm_hop hop)
{
	if (t->changed)
		collect(t);
	return hop.ip && slot_of(t, hop)->ip;
}

bool wvm_route_is_news(struct wvm_routes_table *t, uint32_t vnode, struct wvm_hop from)
{
	enum wvm_route_class class;
	const struct wvm_hop *hop = wvm_route_find(t, vnode, &class);

	return vnode < WVM_NODE_MAX && class >= WVM_ROUTE_LEARNED &&
	       !(hop && wvm_hop_same(*hop, from)) && wvm_route_trusts(t, from);
}

bool wvm_route_learn(struct wvm_routes_table *t, uint32_t vnode, struct wvm_hop from)
{
	if (!wvm_route_is_news(t, vnode, from))
		return false;
	if (wvm_route_set(t, WVM_ROUTE_LEARNED, vnode, 1, from))
		return true;
	t->learned_full++;
	return false;
}

/*
 * Where a gateway sends what is for a vnode. No I/O, no clock, no allocation.
 *
 *   class      comes from                                           precedence
 *   OPERATOR   orders at the control port                           1
 *   STATIC     ROUTE lines of the file                              2
 *   ANNOUNCED  a neighbour's announcement at the control port       3
 *   LEARNED    the src of what a trusted neighbour has sent         4
 *   default    ROUTE 0 0 of the file                                5
 *   upstream   the command line                                     6
 *
 * Each class is an array of ranges in ascending order, none overlapping another of its class,
 * neighbours with the same next hop made one: a million vnodes cost as many entries as there are
 * ranges, and a look-up is a binary search in each class until one has the vnode. A range that is
 * set takes the place of what its class had there: the others are cut, or split.
 *
 * Trust. A next hop of any class but LEARNED, the default and the upstream are neighbours. Only
 * from neighbours does a gateway take data, and only from those does it learn, so what a stranger
 * sends leads nowhere and changes nothing. What was learned from one that is none any more is
 * forgotten with it. The set is a hash table, made anew after a change when it is next asked.
 *
 * Belongs to one thread.
 */
#ifndef WVM_CORE_ROUTE_H
#define WVM_CORE_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wvm_route_class {
	WVM_ROUTE_OPERATOR,
	WVM_ROUTE_STATIC,
	WVM_ROUTE_ANNOUNCED,
	WVM_ROUTE_LEARNED,
	WVM_ROUTE_CLASSES, /* those with ranges */
	WVM_ROUTE_DEFAULT = WVM_ROUTE_CLASSES,
	WVM_ROUTE_UPSTREAM,
	WVM_ROUTE_NONE,
};

/* An IPv4 UDP endpoint, in host order. ip 0: none. 8 bytes. */
struct wvm_hop {
	uint32_t ip;
	uint16_t port;
	uint16_t zero;
};

/* vnodes [first, first + count), count at least 1. 16 bytes. */
struct wvm_route_range {
	uint32_t first, count;
	struct wvm_hop hop;
};
_Static_assert(sizeof(struct wvm_route_range) == 16, "the size stated above");

struct wvm_route_limits {
	uint32_t ranges[WVM_ROUTE_CLASSES]; /* of each class at most */
};

struct wvm_route_list {
	struct wvm_route_range *at;
	uint32_t count, room;
};

struct wvm_routes_table {
	struct wvm_route_list list[WVM_ROUTE_CLASSES];
	struct wvm_hop fallback, upstream; /* ip 0: there is none */
	struct wvm_hop *neighbours;        /* open addressing; ip 0: free */
	uint32_t neighbour_mask;
	bool changed;          /* since neighbours were collected */
	uint32_t learned_full; /* what was not learned for lack of room */
};

/* Bytes of memory for wvm_route_init(), aligned as pointers are. */
size_t wvm_route_bytes(const struct wvm_route_limits *limits);

/* An empty table in memory of wvm_route_bytes(), which stays the caller's. */
void wvm_route_init(struct wvm_routes_table *t, const struct wvm_route_limits *limits,
		    void *memory);

void wvm_route_set_default(struct wvm_routes_table *t, struct wvm_hop hop);
void wvm_route_set_upstream(struct wvm_routes_table *t, struct wvm_hop hop);

/*
 * [first, first + count) of this class leads to hop from now on; within the vnode ids, count at
 * least 1, hop.ip and hop.port not 0. False: the class is full, nothing has changed.
 */
bool wvm_route_set(struct wvm_routes_table *t, enum wvm_route_class class, uint32_t first,
		   uint32_t count, struct wvm_hop hop);

/*
 * This class has nothing for [first, first + count) any more. Sets *gone (may be NULL) to how
 * many vnodes it had something for. False: a range would have to be split, and the
 * class is full; nothing has changed.
 */
bool wvm_route_clear(struct wvm_routes_table *t, enum wvm_route_class class, uint32_t first,
		     uint32_t count, uint32_t *gone);

/* Where a vnode's messages go; NULL: nowhere. class may be NULL. Valid until the next change. */
const struct wvm_hop *wvm_route_find(const struct wvm_routes_table *t, uint32_t vnode,
				     enum wvm_route_class *class);

/* The class's range that has the vnode, or NULL. */
const struct wvm_route_range *wvm_route_range_of(const struct wvm_routes_table *t,
						 enum wvm_route_class class, uint32_t vnode);

/* Whether hop is a neighbour. */
bool wvm_route_trusts(struct wvm_routes_table *t, struct wvm_hop hop);

/*
 * A neighbour has sent something that is from vnode: unless it is routed by an order, a line or an
 * announcement, or goes there anyway, that is the way to it from now on. True: there was
 * something to learn. When there is no room, things stay as they are (counted).
 */
bool wvm_route_learn(struct wvm_routes_table *t, uint32_t vnode, struct wvm_hop from);
/* Whether there would be, room or not. */
bool wvm_route_is_news(struct wvm_routes_table *t, uint32_t vnode, struct wvm_hop from);

/* "operator", "static", …; the name of a class, of the default and so on. */
const char *wvm_route_class_name(enum wvm_route_class class);

static inline bool wvm_hop_same(struct wvm_hop a, struct wvm_hop b)
{
	return a.ip == b.ip && a.port == b.port;
}

#endif

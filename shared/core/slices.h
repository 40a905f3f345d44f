/*
 * The hash ring: which node is home of a page. The guest's memory is cut into
 * units of 2 MiB; a unit belongs to one of 4096 slices; every slice has one
 * home vnode. All nodes compute the same table from the same member list.
 */
#ifndef WVM_CORE_SLICES_H
#define WVM_CORE_SLICES_H

#include <stdint.h>

#define WVM_SLICES    4096u /* 16 KiB of table; also the largest number of homes */
#define WVM_SLICE_NIL UINT32_MAX

/* One node that may be home. Its weight is its vnodes: 4 GiB each. 8 bytes. */
struct wvm_member {
	uint32_t first_vnode; /* the node's identity on the wire */
	uint32_t vnodes;      /* at least 1 */
};

/* The members in ascending order of first_vnode, without overlap. */
struct wvm_members {
	const struct wvm_member *list;
	uint32_t count;
};

struct wvm_slices {
	uint32_t home_vnode[WVM_SLICES];
};

/* Members that a slice likes best, of which a table of second homes keeps so many. */
#define WVM_SLICES_CHOICES 8

/* What building a table needs besides; ~450 KiB, the caller's, free afterwards. */
struct wvm_slices_scratch {
	uint64_t score[WVM_SLICES]; /* of the slice with the member it asked last */
	uint32_t asked[WVM_SLICES]; /* that member; in the end the one that has the slice */
	uint32_t held[WVM_SLICES];  /* slices of member i: from first[i], quota[i], a heap */
	uint32_t first[WVM_SLICES];
	uint32_t quota[WVM_SLICES];
	uint32_t taken[WVM_SLICES];
	uint8_t active[WVM_SLICES];
	uint64_t choice_score[WVM_SLICES][WVM_SLICES_CHOICES]; /* falling */
	uint16_t choice[WVM_SLICES][WVM_SLICES_CHOICES];
	uint8_t choices[WVM_SLICES];  /* how many of them there are */
	uint8_t asked_of[WVM_SLICES]; /* how many of them were asked, or passed over */
};

/* The slice of a unit: gpa in bytes. 0 to WVM_SLICES - 1. */
uint16_t wvm_slice_of(uint16_t vm_id, uint64_t gpa);

/*
 * Fills table. Every member gets its share of the 4096 slices by weight, to
 * one slice (largest remainder); which slices it gets follows from weighted
 * rendezvous scores, so that a member that joins or leaves moves few others'.
 * Members beyond 4096 get none. Deterministic: equal inputs, equal tables.
 */
void wvm_slices_build(struct wvm_slices *table, const struct wvm_members *members,
		      struct wvm_slices_scratch *scratch);

/*
 * The same where members have no share unless active[] says so, one byte each; at least
 * one is. A member that becomes active, or is no more, moves few slices of others.
 */
void wvm_slices_build_active(struct wvm_slices *table, const struct wvm_members *members,
			     const uint8_t *active, struct wvm_slices_scratch *scratch);

/* The vnode that homes a slice where its home is that member: all its vnodes have their turn. */
uint32_t wvm_slice_vnode(uint32_t slice, const struct wvm_member *member);

/*
 * The second homes: home_vnode[i] is the vnode that slice i would have as its home in a table of
 * wvm_slices_build_active() in which the member of slices->home_vnode[i] is not active;
 * WVM_SLICE_NIL where no other one is, and where mortal[] of its home is 0. active as above;
 * mortal: one byte each: whose slices have second homes. NULL: all. A table for each such home is
 * built, but what costs most of one, what slices think of members, once for all of them.
 */
void wvm_slices_build_backup(struct wvm_slices *backup, const struct wvm_slices *slices,
			     const struct wvm_members *members, const uint8_t *active,
			     const uint8_t *mortal, struct wvm_slices_scratch *scratch);

/* The index of the member whose vnode this is, or WVM_SLICE_NIL. O(log n). */
uint32_t wvm_member_of(const struct wvm_members *members, uint32_t vnode);

#endif

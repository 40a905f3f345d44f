/*
 * The view: which members are homes, and first or second ones of which slices, as one epoch record
 * after the other has changed it (shared/core/epoch.h, shared/PROTOCOL.md, View). All nodes make
 * the same of the same records.
 *
 *	SHADOW, OFFLINE --join--> WARMING --nothing is left to move--> ACTIVE
 *	ACTIVE --drain--> DRAINING --nothing is left, on it and to move--> OFFLINE
 *	WARMING, ACTIVE, DRAINING --it has died--> LOST --its pages are made anew--> OFFLINE
 *
 * WARMING and ACTIVE members are homes, others are of nothing. The records "join" and "drain" move
 * slices, so that all homes have theirs by weight; at most one member is on its way at a time. A
 * death may come at any time. It gives the slices of the dead alone to other homes, their second
 * ones, so the table follows from history, and not from the states; where a move is under way the
 * death becomes a part of it. One record completes a move with all its deaths. One member wishes
 * for it (wvm_view_completer()), when all that take part have counted nothing any more. So whoever
 * begins later knows by the view alone whether the table before matters.
 *
 * The second home of a slice is who keeps a copy of what the home stores, where the home may be
 * lost (shared/core/backup.h). It stays while it is a home and the slice's home is the same. Where
 * a join or a drain moves a slice, the former home becomes the second one, if it still is a home:
 * it has all of the slice, so nothing is copied, and the slice goes back if the new home dies on
 *the way. In all other cases the second home is *computed*: who would have the slice by weight if
 *its home were none (wvm_slices_build_backup(), of the table that the record makes). This costs a
 * table for each home that has such slices.
 *
 * No I/O, no allocation. An object belongs to one thread; it may be copied.
 */
#ifndef WVM_VIEW_H
#define WVM_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/epoch.h"
#include "shared/core/slices.h"

/* Members beyond these have no slices, and are what the topology says for ever: ACTIVE. */
#define WVM_VIEW_MEMBERS WVM_SLICES

/* Of moving: who was on its way has died, or nobody was: the move consists of deaths alone. */
#define WVM_VIEW_NOBODY UINT32_MAX

/* About 55 KiB. */
struct wvm_view {
	struct wvm_epoch_record record; /* the last one; epoch 0: not the topology's own either */
	uint32_t moved;      /* the epoch that began the move which is under way; 0: none is */
	uint32_t moving;     /* who is on its way there, or WVM_VIEW_NOBODY; 0 where moved is */
	uint32_t lost_epoch; /* its last record of a death; 0: none. Then somebody is LOST */
	uint32_t count;      /* members, at most WVM_VIEW_MEMBERS */
	uint8_t state[WVM_VIEW_MEMBERS]; /* by member: enum wvm_node_state */
	/*
	 * A bit for each slice that deaths in this move left without a home: those that the dead
	 * homed as they died, and, where the move was under way by then, also those that they had
	 * before it. Bit i % 64 of word i / 64 is slice i.
	 */
	uint64_t lost[WVM_SLICES / 64];
	struct wvm_slices slices; /* in force */
	struct wvm_slices before; /* before the move; the same where none is under way */
	/*
	 * The second homes, of `slices`: each is a home, and not that of the slice. WVM_SLICE_NIL,
	 * for all slices, where there is one home only.
	 */
	struct wvm_slices seconds;
	/* Those before `record`, oldest first: for members that come back after a while. */
	uint32_t kept_count;
	struct wvm_epoch_record kept[WVM_EPOCH_LOG];
};

/*
 * That of the topology: all are ACTIVE but for the spare ones (one byte each; NULL: none), of
 * which one at least of the first WVM_VIEW_MEMBERS is not. All second homes are computed. scratch:
 * free afterwards.
 */
void wvm_view_first(struct wvm_view *v, const struct wvm_epoch_record *first,
		    const struct wvm_members *members, const uint8_t *spare,
		    struct wvm_slices_scratch *scratch);

enum wvm_view_answer {
	WVM_VIEW_ALLOWED,
	WVM_VIEW_IS_SO,  /* it is in that state or on its way there; who is to be LOST: is out */
	WVM_VIEW_MOVING, /* a move is under way, and has to be completed first */
	WVM_VIEW_LAST,   /* it is the last home */
	WVM_VIEW_NO_WAY, /* no such step from where it is */
};

/* Whether a record may follow that puts the member into that state. */
enum wvm_view_answer wvm_view_allows(const struct wvm_view *v, uint32_t member,
				     enum wvm_node_state state);

/*
 * The record that follows: the voters stay, but that an OFFLINE or LOST one is replaced by the
 * first home that does not vote yet, and a new home votes where there are fewer than 7. False: not
 * allowed.
 */
bool wvm_view_record(const struct wvm_view *v, const struct wvm_members *members, uint32_t member,
		     enum wvm_node_state state, struct wvm_epoch_record *out);

/* Who is to wish for the record that completes the move under way; WVM_SLICE_NIL: none is. */
uint32_t wvm_view_completer(const struct wvm_view *v);
/* That record, as the next one. False: no move is under way. */
bool wvm_view_completing(const struct wvm_view *v, const struct wvm_members *members,
			 struct wvm_epoch_record *out);

/*
 * Takes the next record. One that is not allowed changes voters and epoch alone, everywhere alike.
 * True: there is something to move, or to make anew, by this very record. scratch: free afterwards.
 */
bool wvm_view_apply(struct wvm_view *v, const struct wvm_members *members,
		    const struct wvm_epoch_record *record, struct wvm_slices_scratch *scratch);

/* The last record that left something to move or to make anew, and is not completed; 0: none. */
uint32_t wvm_view_stirred(const struct wvm_view *v);

/* Who may home slices: one byte for each of count members, 1 if it may. */
void wvm_view_homes(const struct wvm_view *v, uint32_t count, uint8_t *homes);

/* Whether a member has, or may have, pages of others: others ask it before they serve. */
bool wvm_view_takes_part(const struct wvm_view *v, uint32_t member);
/* Whether new programs may come to that member. */
bool wvm_view_open(const struct wvm_view *v, uint32_t member);

/*
 * Bytes of a file: magic "WVMVIEW2" 8 | node 4 | cluster 8 | record 40 | moved 4 | moving 4 |
 * lost_epoch 4 | kept_count 4 | kept 40 each of WVM_EPOCH_LOG, unused ones 0 | lost 8 for each
 * 64 slices | slices: the home's member 2 each | before: 2 each | seconds: 2 each, 0xffff: none |
 * count 4 | state 1 each | crc32c of all before 4; big-endian. node, cluster: as for ballots. The
 * vnode of a slice follows from its member (wvm_slice_vnode()).
 */
#define WVM_VIEW_BYTES_MAX                                                                \
	(84u + WVM_EPOCH_LOG * WVM_EPOCH_RECORD_BYTES + WVM_SLICES / 8 + WVM_SLICES * 6 + \
	 WVM_VIEW_MEMBERS)

size_t wvm_view_encode(uint8_t out[WVM_VIEW_BYTES_MAX], const struct wvm_view *v,
		       const struct wvm_members *members, uint32_t node, uint64_t cluster);
/* 0; -EINVAL: no such bytes; -EEXIST: another node's or cluster's. */
int wvm_view_decode(struct wvm_view *v, const uint8_t *bytes, size_t len,
		    const struct wvm_members *members, uint32_t node, uint64_t cluster);

#endif

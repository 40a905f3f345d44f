/*
 * The view: which members are homes, as one epoch record after the other has changed it
 * (shared/core/epoch.h, shared/PROTOCOL.md, View). All nodes make the same of the same records.
 *
 *	SHADOW, OFFLINE --join--> WARMING --nothing is left to move--> ACTIVE
 *	ACTIVE --drain--> DRAINING --nothing is left, on it and to move--> OFFLINE
 *
 * WARMING and ACTIVE members are homes by their weight, others are of nothing. The records "join"
 * and "drain" move slices; at most one member is on its way at a time, and the record that
 * completes it is wished for by that member alone, when all that take part have counted nothing
 * any more. So whoever begins later knows by the view alone whether the table before matters.
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

struct wvm_view {
	struct wvm_epoch_record record; /* the last one; epoch 0: not the topology's own either */
	uint32_t moved;  /* the epoch that moved slices, and is not completed; 0: none */
	uint32_t moving; /* its member, where moved is not 0 */
	uint32_t count;  /* members, at most WVM_VIEW_MEMBERS */
	uint8_t state[WVM_VIEW_MEMBERS]; /* by member: enum wvm_node_state */
	/* Those before `record`, oldest first: for members that come back after a while. */
	uint32_t kept_count;
	struct wvm_epoch_record kept[WVM_EPOCH_LOG];
};

/* That of the topology: all are ACTIVE but for the spare ones (one byte each; NULL: none). */
void wvm_view_first(struct wvm_view *v, const struct wvm_epoch_record *first, uint32_t members,
		    const uint8_t *spare);

enum wvm_view_answer {
	WVM_VIEW_ALLOWED,
	WVM_VIEW_IS_SO,  /* it is in that state, or on its way there */
	WVM_VIEW_MOVING, /* another member is on its way, and has to be done first */
	WVM_VIEW_LAST,   /* it is the last home */
	WVM_VIEW_NO_WAY, /* no such step from where it is */
};

/* Whether a record may follow that puts the member into that state. */
enum wvm_view_answer wvm_view_allows(const struct wvm_view *v, uint32_t member,
				     enum wvm_node_state state);

/*
 * The record that follows: the voters stay, but that an OFFLINE one is replaced by the first home
 * that does not vote yet, and a new home votes where there are fewer than 7. False: not allowed.
 */
bool wvm_view_record(const struct wvm_view *v, const struct wvm_members *members, uint32_t member,
		     enum wvm_node_state state, struct wvm_epoch_record *out);

/*
 * Takes the next record. One that is not allowed changes voters and epoch alone, everywhere alike.
 * True: slices move, from wvm_view_homes(before) to wvm_view_homes(now).
 */
bool wvm_view_apply(struct wvm_view *v, const struct wvm_members *members,
		    const struct wvm_epoch_record *record);

/* Who homes slices: one byte for each of count members, 1 if it does; before: before the move. */
void wvm_view_homes(const struct wvm_view *v, uint32_t count, bool before, uint8_t *homes);

/* Whether a member has, or may have, pages of others: others ask it before they serve. */
bool wvm_view_takes_part(const struct wvm_view *v, uint32_t member);
/* Whether new programs may come to that member. */
bool wvm_view_open(const struct wvm_view *v, uint32_t member);

/*
 * Bytes of a file: magic "WVMVIEW1" 8 | node 4 | cluster 8 | record 40 | moved 4 | moving 4 |
 * kept_count 4 | kept 40 each of WVM_EPOCH_LOG, unused ones 0 | count 4 | state 1 each |
 * crc32c of all before 4; big-endian. node, cluster: as for ballots.
 */
#define WVM_VIEW_BYTES_MAX (80u + WVM_EPOCH_LOG * WVM_EPOCH_RECORD_BYTES + WVM_VIEW_MEMBERS)

size_t wvm_view_encode(uint8_t out[WVM_VIEW_BYTES_MAX], const struct wvm_view *v, uint32_t node,
		       uint64_t cluster);
/* 0; -EINVAL: no such bytes; -EEXIST: another node's or cluster's. */
int wvm_view_decode(struct wvm_view *v, const uint8_t *bytes, size_t len, uint32_t node,
		    uint64_t cluster, uint32_t members);

#endif

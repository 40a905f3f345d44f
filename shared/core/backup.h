/*
 * Backups: what a home has stored is kept by a second home as well, which takes its place
 * when it is gone for good. Rules and the reason for each: shared/PROTOCOL.md, Backup.
 *
 * The second home of a slice follows from a table (wvm_core_params.backup); placed ranges have
 * none. A pair of a slice's home and second home lasts as long as both are the same in the tables
 * of each epoch; its era is the epoch that made the pair.
 *
 *	second home, per page    home[page] with WVM_HOME_BACKUP, version and flags,
 *	                         and store[page]; it counts while its unit's `era` is the slice's
 *	second home, per slice   making -> complete: all that its home has acknowledged is here
 *	home, per slice          making -> complete: the second home has said so;
 *	                         degraded until then
 *
 *	home                                    second home
 *	  write-back stored  -- BACKUP ---------> version is higher: bytes, then the entry
 *	  WRITE_BACK_ACK     <- BACKUP, ANSWER -- in any case
 *	  a pass over all units whose slices are not complete, WVM_COPIES_WALK at a time:
 *	  each entry         -- BACKUP ---------> as above
 *	  at its end, slice by slice
 *	                     -- BACKUP_DONE ----> complete, if it is the life that got the copies
 *	                                          and knows no more than the home (renewed.h)
 *	  complete           <- ANSWER ---------- or ERROR, who it is, what it knows: once more
 *
 * While a slice is made a write-back is copied before it is acknowledged as well, so whether the
 * pass has been at its page does not matter. One case apart: a unit that is being handed over to
 * its home is in the former one's hands, who may be the second home. Until the former home is done
 * with it nothing of it is copied, and the slice is left to a later pass. Its write-backs wait
 * in their slots (id 0) and are copied and acknowledged when it is done. Those slots are a quarter
 * of all, and lent: what can be sent takes them, and the owners repeat.
 *
 * Nothing of the home's side outlives its process but which slices are complete: owners
 * repeat their write-backs, and a pass begins anew. What has to be said again and not to be copied
 * again (`whole`) is copied as well then.
 */
#ifndef WVM_CORE_BACKUP_H
#define WVM_CORE_BACKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/core/slices.h"
#include "shared/core/timers.h"

struct wvm_core;
struct wvm_msg;

/* A slice's two homes as members: at most WVM_SLICES are homes. */
struct wvm_pair {
	uint16_t home, second;
};
#define WVM_PAIR_NIL UINT16_MAX

/*
 * A slice as one of its two homes sees it, durable. 24 bytes. Eras are epochs; 0 is none. A change
 * of pair is final with the one store to `pair`.
 */
struct wvm_second {
	struct wvm_pair pair;
	uint32_t era;      /* of the pair */
	uint32_t complete; /* is `era`: the second home has it all */
	/* Of who was its second home and has become its home: the same of before. */
	uint32_t from, from_complete;
	uint32_t reserved;
};

/* Behind the other durable parts, where there are backups. */
struct wvm_seconds {
	struct wvm_second slice[WVM_SLICES];
};

/* A write-back at its home: what it takes to acknowledge it. 40 bytes. */
struct wvm_written {
	uint64_t request, grant, version;
	uint32_t member, vnode; /* the owner */
	uint16_t steer, reply_steer;
};

enum wvm_copy_state {
	WVM_COPY_FREE,
	WVM_COPY_WRITTEN, /* of a page that was written back: then it is acknowledged */
	WVM_COPY_LOST,    /* of a page that is lost */
	WVM_COPY_WALK,    /* of a unit's pages, one after the other */
	WVM_COPY_DONE,    /* the word that a slice is complete */
};

/* A message to a second home that is not answered. */
struct wvm_copy {
	struct wvm_core_timer timer;
	uint64_t id; /* 0: not sent yet */
	uint64_t page;
	uint64_t version; /* that was sent last */
	uint64_t started_ns, sent_ns;
	struct wvm_written written;
	uint32_t vm, member; /* the second home */
	uint16_t slice;
	uint16_t tries;
	uint8_t state; /* enum wvm_copy_state */
};

#define WVM_COPIES       144u
#define WVM_COPIES_WALK  16u /* the first of them, for what nobody waits for */
#define WVM_COPIES_WAIT  32u /* of the others, for write-backs that cannot be copied yet */
#define WVM_COPY_UNHEARD 3u  /* messages without an answer: the second home is silent */

/* The pass, and what it needs. */
struct wvm_backup {
	struct wvm_copy copies[WVM_COPIES];
	uint32_t used[2]; /* for what nobody waits for, and the others */
	struct wvm_core_timer timer;
	const struct wvm_slices *next; /* wvm_core_backup_next() */
	uint64_t unit;                 /* where it is */
	uint32_t vm;
	uint32_t slice;                 /* behind the units: the next slice to be said complete */
	bool marking;                   /* it is behind the units */
	bool looked;                    /* a pass has been at all units there are */
	uint64_t unit_of[WVM_SLICES];   /* one of each slice: vm + 1 << 40 | unit; 0: none yet */
	uint8_t missed[WVM_SLICES / 8]; /* slices that this pass cannot complete */
	/* And that none can: pages of theirs are LOST as the rest of a unit, without entries. */
	uint8_t hopeless[WVM_SLICES / 8];
	uint8_t whole[WVM_SLICES / 8]; /* the second home has all, and the word is to be said */
};

/* ---- for others ------------------------------------------------------------------------ */

/*
 * At the second home of the page, or, once it has become its home in the epoch that is present, at
 * that: whether it has all copies that the page's (former) home has acknowledged. Durable.
 */
bool wvm_backup_complete(const struct wvm_core *core, uint32_t vm, uint64_t page);
/* There likewise: whether home[page] is such a copy, and not one of an earlier pair. */
bool wvm_backup_counts(const struct wvm_core *core, uint32_t vm, uint64_t page);
/* Takes one copy, or all of a unit, out of the entries. Final at once. An action may follow. */
void wvm_backup_drop(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_backup_drop_unit(struct wvm_core *core, uint32_t vm, uint64_t page);
/* The latter without giving the room back. */
void wvm_backup_clear_unit(struct wvm_core *core, uint32_t vm, uint64_t page);

/* At the home: whether there is a stored copy that somebody may still need. */
bool wvm_backup_stored(struct wvm_core *core, uint32_t vm, uint64_t page);
/*
 * At the home: whether the second home is known to have all of the page's slice; and whether it
 * can have copies of the page yet.
 */
bool wvm_backup_made(const struct wvm_core *core, uint32_t vm, uint64_t page);
bool wvm_backup_ready(const struct wvm_core *core, uint32_t vm, uint64_t page);

/*
 * The era of copies that this node may make of what it was the home of: as the second home, or, in
 * the epoch that is present, where it has become the home again. 0: it is neither.
 */
uint32_t wvm_backup_era(const struct wvm_core *core, uint32_t vm, uint64_t page);
/*
 * The entries of a unit that this node was the home of become such copies, each final by itself.
 * Its era is noted before.
 */
void wvm_backup_keep_unit(struct wvm_core *core, uint32_t vm, uint64_t page);

/* The member that is the page's second home, or WVM_SLICE_NIL. */
uint32_t wvm_backup_member(const struct wvm_core *core, uint32_t vm, uint64_t page);

/* ---- for the other parts of the core --------------------------------------------------- */

/* At a start, and when the tables have changed. */
void wvm_backup_init(struct wvm_core *core);
void wvm_backup_rehome(struct wvm_core *core);
/* A VM is there, whose units no pass has looked at. */
void wvm_backup_add_vm(struct wvm_core *core);
/* The pages whose write-backs wait for their units, one by one; *at is 0 first. */
bool wvm_backup_waits(const struct wvm_core *core, uint32_t *at, uint32_t *vm, uint64_t *page);
/* The unit is done with being handed over or made anew: it may be copied from now on. */
void wvm_backup_unit_came(struct wvm_core *core, uint32_t vm, uint64_t page);
/* Whether the slice, homed here, has something that its second home does not have. */
bool wvm_backup_degraded(const struct wvm_core *core, uint32_t slice);
/* There may be something to be made. */
void wvm_backup_look(struct wvm_core *core);
/* Pages of the slice were lost. Durable, if it is homed here; and what that means to the pass. */
void wvm_backup_again(struct wvm_core *core, uint32_t slice);
/* The member has begun without files: no slice counts as complete. Durable. See renewed.h. */
void wvm_backup_renewed(struct wvm_core *core, uint32_t member);
/* A home takes an entry of a former life over. */
void wvm_backup_adopt(struct wvm_core *core, uint32_t vm, uint64_t page);

/*
 * At the home: its stored copy of the page is new, or is told of again. True: the write-back is
 * acknowledged when the second home has it, or, without a free slot, repeated by its owner;
 * false: it may be acknowledged now.
 */
bool wvm_backup_written(struct wvm_core *core, uint32_t vm, uint64_t page,
			const struct wvm_written *w);
/* The page is about to be lost. False: no slot to say so. */
bool wvm_backup_lose(struct wvm_core *core, uint32_t vm, uint64_t page);

enum wvm_drop wvm_backup_message(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg, const uint8_t *data);
/* Whether a part of such a message is worth keeping. */
bool wvm_backup_wants(const struct wvm_core *core, uint32_t vm, uint64_t page,
		      const struct wvm_msg *msg);
void wvm_backup_timer(struct wvm_core *core, struct wvm_copy *c);
void wvm_backup_walk(struct wvm_core *core);

#endif

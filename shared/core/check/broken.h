/*
 * A core with one rule left out, chosen as the program runs. Each broken_*.c but broken.c includes
 * one of the core's sources and wraps what it exports; the linker then has no use for the library's
 * copy. Whoever claims to check the protocol has to catch every one of them.
 */
#ifndef WVM_CHECK_BROKEN_H
#define WVM_CHECK_BROKEN_H

#include <stdbool.h>
#include <stdint.h>

enum broken_fault {
	BROKEN_NOT,
	BROKEN_ONE_ACK,             /* the home goes on without waiting for every sharer */
	BROKEN_OWNER_FORGOTTEN,     /* it falls back to its stored copy when it has to ask again */
	BROKEN_STORED_VERSION,      /* it keeps the version that was there before a write-back */
	BROKEN_LATE_GRANT,          /* whatever request id the grant answers */
	BROKEN_REFUSED_GRANT,       /* INVALIDATE_ACK or NOT_HELD is answered for a grant under
				     * way, and that grant taken when it comes */
	BROKEN_FORGOTTEN_EARLY,     /* data is dropped before the home has acknowledged it */
	BROKEN_NOT_HELD_WHILE_HELD, /* a demand within the hold time is refused */
	BROKEN_DOWNGRADE,           /* it leaves the page writable for those that could write */
	BROKEN_SECOND_PROGRAM,      /* a Shared page comes unprotected to the second program */
	BROKEN_KEPT,                /* INVALIDATE is acknowledged, and the copy stays */
	BROKEN_UNIT_TWICE,      /* a unit that is granted whole is granted whole to another one */
	BROKEN_UNIT_KEPT,       /* a page that is split off stays one of the whole, too */
	BROKEN_MERGE_ASKED,     /* the home merges a unit, a page of which it has asked for */
	BROKEN_MERGE_BLIND,     /* it merges it whichever version it is told */
	BROKEN_MERGE_EVICT,     /* the holder gives up pages of a unit that it wants to be merged */
	BROKEN_HANDOVER_BLIND,  /* a new home serves before the page has come */
	BROKEN_HANDOVER_EARLY,  /* it takes the first page of a unit for all of it */
	BROKEN_HANDOVER_SERVES, /* a former home goes on serving those who have not switched */
	BROKEN_HANDOVER_COUNTER, /* a unit's version counter is not handed over with it */
	BROKEN_HANDOVER_LEFT, /* what a former home has not acknowledged is not for the new one */
	BROKEN_HANDOVER_COUNTED, /* a life counts what is left before the undo log is rolled back */
	BROKEN_HANDOVER_FORGETS, /* at the end it forgets what it took from those that are homes
				    still */
	BROKEN_BACKUP_EARLY,     /* a write-back is acknowledged before the second home has it */
	BROKEN_BACKUP_LOWER,     /* the second home takes whatever version comes */
	BROKEN_BACKUP_SKIPS,     /* it is told to have all without what was stored before */
	BROKEN_BACKUP_ENTRY,     /* a new home takes what it had as the second one for entries */
	BROKEN_REBUILD_UNTOLD,   /* a home that takes a dead one's place does not wait for the last
				  * member to tell what it holds */
	BROKEN_REBUILD_ZEROS, /* it takes for zeros what nobody holds and it may have no copy of */
	BROKEN_REBUILD_VERSION, /* it gives out the version of what is stored once more */
	BROKEN_RENEWED_SECOND,  /* told of a member that has begun anew, a second home goes on
				 * calling complete what its home may not know of */
	BROKEN_RENEWED_TOLD,    /* and a home that is being told does not care */
	BROKEN_FAULTS,
	/*
	 * Not among the others, since nothing is wrong with it: a grant is taken
	 * without comparing its version with the highest one given up. A holder
	 * that answers for a grant under way retires the grant's request id, too,
	 * so the id decides already; see check_explore_teeth.c and check_teeth.c.
	 */
	BROKEN_INVALIDATED_IGNORED = BROKEN_FAULTS,
};

extern enum broken_fault broken_fault;
extern uint32_t broken_every; /* the fault strikes every n-th time; 1: always */

const char *broken_name(enum broken_fault fault);

/* Of the wrappers: whether this fault strikes now. */
bool broken_now(enum broken_fault fault);

/* Grants that the comparison which BROKEN_INVALIDATED_IGNORED leaves out would have refused. */
extern uint64_t broken_ignored;

#endif

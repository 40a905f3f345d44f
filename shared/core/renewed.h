/*
 * Members that have begun without the files of an earlier life, as after a reboot of their host.
 * What that life had Modified is gone. Its home may be the only one that knows that there was
 * something: were it to die before anybody asks for the page, its second home would take an older
 * copy, or zeros, for the last bytes, since the member's new life says that it holds nothing.
 * So nobody waits until a page is asked for: wvm_core_renewed() is said to all others before the
 * member serves (and so before it tells anybody what it holds).
 *
 *	(a) a home        what the member's earlier lives have Modified is LOST
 *	(b)               then no slice counts as complete at its second home: those of which
 *	                  something was lost are copied again, of the others it is said again
 *	(c) a second home likewise, until the home says it and knows all that is known here
 *	(d) a new home that is being told (rebuild.c): the unit is WVM_UNIT_STOLEN
 *
 * What is known, `renewed`, is a boot for each member: its lives before that are gone. It only
 * grows, is durable, and is final when all of the above is. A home and a second home agree on a
 * slice only when they know the same: both BACKUP_DONE and its answer name the sum of all that is
 * known, and one item of it, the newest first, which the other one then knows, too. The slice is
 * complete when the sums are the same.
 *
 * Why a second home that takes over never calls an older copy the last one, whatever comes first:
 *
 *	told: home first       a BACKUP_DONE of before that comes late names another sum
 *	second home first      likewise, and the home learns of it by the answer, at the latest
 *	home dies in between   the second home is told in any case before the member serves, and
 *	                       waits for what the member has to say. Told before it takes over:
 *	                       not complete, WVM_UNIT_UNKNOWN; in the middle of it: STOLEN; after
 *	                       it: it is the home
 *	one is killed          all that follows is done, durably, before `renewed` says it: said
 *	                       again, by whomever, it is done again from the begin
 *	page comes later,      what comes is compared with what is known: it is LOST on arrival.
 *	  by hand-over         The former home does the same with what may come back to it
 *	message is late        HOLDING and requests of lives that are gone are not heard
 *	said twice, or late    it is no news; and grants of the present life are of a later boot
 *
 * A first life (boot 1) has had no earlier one. One who has lost its own files, and what it knew,
 * asks all for a REPORT itself: who is still asking then has to ask it again.
 */
#ifndef WVM_CORE_RENEWED_H
#define WVM_CORE_RENEWED_H

#include <stdbool.h>
#include <stdint.h>

struct wvm_core;
struct wvm_home_unit;

/* After what is durable is there. */
void wvm_renewed_init(struct wvm_core *core);

/* One item of what is known, another one with each call: member << 16 | boot; 0: there is none. */
uint64_t wvm_renewed_item(struct wvm_core *core);
/* Such an item from another member. Whether it was news. */
bool wvm_renewed_learn(struct wvm_core *core, uint64_t item);

/* The whole was granted to a life that is gone: what has no entry is LOST. Noted by the caller. */
void wvm_renewed_unit(const struct wvm_core *core, struct wvm_home_unit *u);

#endif

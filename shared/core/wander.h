/*
 * Pages that wander from node to node: each reads one and then writes it (a lock, a counter, what a
 * kernel accounts to a process). The read is granted Shared, and the write has to ask again. A node
 * that has seen this of a page asks for it Modified when it is read.
 *
 *	            read, granted Shared          written while held so (upgrade)
 *	PLAIN -----------------------> READ FIRST -------------------------------> wrote + 1
 *	  ^                               | given up unwritten: wrote = 0
 *	  `-------------------------------'
 *	wrote has reached params.wander: reads ask for Modified, WVM_WANDER_TRUST times in a row;
 *	then one is a plain read again, which shows whether a write still follows
 *
 * Whether a page that was granted Modified to a read is written is not seen, hence the plain read
 * now and then: what is only read, by several, is taken from each other so many times at most. It
 * is this node's guess, and costs time when it is wrong; nobody relies on it, and it is not kept
 * for a later life.
 */
#ifndef WVM_CORE_WANDER_H
#define WVM_CORE_WANDER_H

#include <stdbool.h>

#include "shared/core/core.h"

#define WVM_WANDER_TRUST 15u
#define WVM_WANDER_MOST  15u /* of wvm_core_params.wander */

/* Whether this read is to ask for Modified; one that counts. */
bool wvm_wander_asks(const struct wvm_core_params *p, struct wvm_held_page *h);

/* Granted Shared to a read; granted Modified, by an upgrade of what was Shared or anew. */
void wvm_wander_read(const struct wvm_core_params *p, struct wvm_held_page *h);
void wvm_wander_wrote(const struct wvm_core_params *p, struct wvm_held_page *h, bool upgrade);
/* Gone, whatever it was. */
void wvm_wander_lost(const struct wvm_core_params *p, struct wvm_held_page *h);

#endif

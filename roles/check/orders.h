/*
 * Orders of `wvm_ctl` to the masters of a test cluster that change who its members are, and what
 * the masters say of them. `at`, `node`: who is asked; `of`: about whom. All assert by libcheck.
 */
#ifndef WVM_CHECK_ORDERS_H
#define WVM_CHECK_ORDERS_H

#include "roles/check/cluster.h"

void ctl(const struct cluster *c, unsigned node, struct cluster_result *r, const char *command,
	 const char *arg);
/* It is obeyed, and complete when this returns. */
void order(const struct cluster *c, unsigned node, const char *command, const char *arg);
/* The same in another process, which await_order() waits for. */
void order_meanwhile(const struct cluster *c, pid_t *waits, unsigned node, const char *command,
		     const char *arg);
void await_order(pid_t waits);
/* It is refused, for a reason that has `why` in it. */
void refused(const struct cluster *c, unsigned node, const char *command, const char *arg,
	     const char *why);

uint64_t slices_of(const struct cluster *c, unsigned at, unsigned of);
/* All nodes alike: each home has its part of the slices, to one. homes: a bit for each node. */
void shares(const struct cluster *c, unsigned at, unsigned homes);
/* What gossip says: "ALIVE", "DEAD". */
void await_status(const struct cluster *c, unsigned at, unsigned of, const char *status);
/* What records have made of it: "ACTIVE" and so on. */
void is_member(const struct cluster *c, unsigned at, unsigned of, const char *state);
/* All are ALIVE, and have been heard. */
void await_alive(const struct cluster *c, unsigned at);
uint64_t epoch_of(const struct cluster *c, unsigned node);
void await_epoch(const struct cluster *c, unsigned node, uint64_t epoch);

#endif

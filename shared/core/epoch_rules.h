/*
 * The rules that the safety of epochs stands on, apart from the machine that uses them
 * (epoch.c), so that a test can build that machine with one of them broken.
 */
#ifndef WVM_CORE_EPOCH_RULES_H
#define WVM_CORE_EPOCH_RULES_H

#include "shared/core/epoch.h"

/* Any two quorums have a voter in common. */
static inline bool wvm_epoch_quorum(uint32_t votes, uint32_t voters)
{
	return 2 * votes > voters;
}

/* A promise, once given, holds against every lower ballot. The same one may ask again. */
static inline bool wvm_epoch_may_promise(const struct wvm_epoch_durable *d, uint64_t ballot)
{
	return ballot >= d->promised;
}

static inline bool wvm_epoch_may_accept(const struct wvm_epoch_durable *d, uint64_t ballot)
{
	return ballot >= d->promised;
}

/* Of what promises tell, the record that was accepted at the highest ballot may be decided. */
static inline bool wvm_epoch_must_take(uint64_t accepted, uint64_t learnt)
{
	return accepted > learnt;
}

/* What a voter says must be what it would say again after a crash. */
static inline void wvm_epoch_changed(struct wvm_epoch *e)
{
	e->save = true;
}

#endif

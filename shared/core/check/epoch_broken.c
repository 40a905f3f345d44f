#include "shared/core/check/epoch_broken.h"

#include "shared/core/epoch_rules.h"

enum epoch_fault epoch_fault;

const char *epoch_fault_name(enum epoch_fault fault)
{
	static const char *const names[EPOCH_FAULTS] = {
		[EPOCH_SOUND] = "nothing",
		[EPOCH_SAVES_LATE] = "saved after the answer has left",
		[EPOCH_SAVES_NOTHING] = "votes are not saved",
		[EPOCH_OWN_WISH] = "an accepted record is ignored",
		[EPOCH_LAST_TOLD] = "the accepted record is not the highest ballot's",
		[EPOCH_MINORITY] = "a minority is a quorum",
		[EPOCH_BELOW_PROMISE] = "accepts below its promise",
		[EPOCH_PROMISE_LOWER] = "promises below its promise",
	};

	return names[fault];
}

static bool broken_quorum(uint32_t votes, uint32_t voters)
{
	return wvm_epoch_quorum(epoch_fault == EPOCH_MINORITY ? votes + 1 : votes, voters);
}

static bool broken_may_promise(const struct wvm_epoch_durable *d, uint64_t ballot)
{
	/* Above what it accepted, so that what it saves is well-formed. */
	return (epoch_fault == EPOCH_PROMISE_LOWER && ballot >= d->accepted) ||
	       wvm_epoch_may_promise(d, ballot);
}

static bool broken_may_accept(const struct wvm_epoch_durable *d, uint64_t ballot)
{
	return epoch_fault == EPOCH_BELOW_PROMISE || wvm_epoch_may_accept(d, ballot);
}

static bool broken_must_take(uint64_t accepted, uint64_t learnt)
{
	if (epoch_fault == EPOCH_OWN_WISH)
		return false;
	if (epoch_fault == EPOCH_LAST_TOLD)
		return accepted != 0;
	return wvm_epoch_must_take(accepted, learnt);
}

static void broken_changed(struct wvm_epoch *e)
{
	if (epoch_fault != EPOCH_SAVES_NOTHING || e->say_learnt)
		wvm_epoch_changed(e);
}

bool good_epoch_next(struct wvm_epoch *e, struct wvm_epoch_action *a);

#define wvm_epoch_quorum      broken_quorum
#define wvm_epoch_may_promise broken_may_promise
#define wvm_epoch_may_accept  broken_may_accept
#define wvm_epoch_must_take   broken_must_take
#define wvm_epoch_changed     broken_changed
#define wvm_epoch_next        good_epoch_next
#include "shared/core/epoch.c"
#undef wvm_epoch_next

bool wvm_epoch_next(struct wvm_epoch *e, struct wvm_epoch_action *a)
{
	bool late = e->save && epoch_fault == EPOCH_SAVES_LATE;

	if (!late)
		return good_epoch_next(e, a);
	e->save = false;
	if (good_epoch_next(e, a)) {
		e->save = true;
		return true;
	}
	a->act = WVM_EPOCH_SAVE;
	return true;
}

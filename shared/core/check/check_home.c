/* The home's state machine: messages in, actions out, one core driven by hand. */
#include "shared/core/check/rig.h"

/* Members that ask; the core under test is RIG_SELF, the home. */
#define A 3u
#define B 4u
#define C 5u
#define D 6u

#define ZERO WVM_MSG_ZERO
#define KEEP WVM_MSG_KEEP
#define HELD WVM_MSG_HELD

#define READ(from, id, ...)    IN(MEM_READ, from, .request = id, __VA_ARGS__)
#define ACQUIRE(from, id, ...) IN(MEM_ACQUIRE, from, .request = id, __VA_ARGS__)
#define GRANT(to, id, v, ...)  SENT(MEM_ACK, to, .request = id, .version = v, __VA_ARGS__)
#define STORE                  .source = WVM_DATA_STORE

/* What the home asks of holders, and their answers. */
#define INVALIDATE(to, txn, id, v) \
	SENT(INVALIDATE, to, .request = OWN(txn), .grant = id, .version = v)
#define DOWNGRADE(to, txn, id, v, ...) \
	SENT(DOWNGRADE, to, .request = OWN(txn), .grant = id, .version = v, __VA_ARGS__)
#define FETCH(to, txn, id, v) \
	SENT(FETCH_AND_INVALIDATE, to, .request = OWN(txn), .grant = id, .version = v)
#define INVALIDATED(from, id, v, ...) \
	IN(INVALIDATE_ACK, from, .request = OWN(1), .grant = id, .version = v, __VA_ARGS__)
#define NOT_HELD(from, id, v, ...) \
	IN(NOT_HELD, from, .request = OWN(1), .grant = id, .version = v, __VA_ARGS__)
#define IS_LOST(from, id, v, ...) \
	IN(LOST, from, .request = OWN(1), .grant = id, .version = v, __VA_ARGS__)
#define WRITE_BACK(from, id, v, ...) \
	IN(WRITE_BACK, from, .request = OWN(1), .grant = id, .version = v, __VA_ARGS__)
#define STORED_ACK(to, id, v) SENT(WRITE_BACK_ACK, to, .request = OWN(1), .grant = id, .version = v)

#define LOST_TO(to, id) SENT(MEM_ACK, to, .request = id, .flags = WVM_MSG_ERROR)

#define ENTRY(state_, n, v, ...) \
	DO(HOME, .state = WVM_HOME_##state_, .holders = n, .version = v, __VA_ARGS__)
#define BUSY    .slot = 1 /* of an entry: a transaction is in flight */
#define WRITTEN .flags = WVM_HOME_WRITTEN
#define STALE   LESS(STALE)

/* How a page gets into a state. Untouched pages start at V(1). */
#define A_SHARED   READ(A, ID(1)), GRANT(A, ID(1), V(1), .flags = ZERO)
#define AB_SHARED  A_SHARED, READ(B, ID(2)), GRANT(B, ID(2), V(1), .flags = ZERO)
#define A_MODIFIED ACQUIRE(A, ID(1)), GRANT(A, ID(1), V(2), .flags = ZERO)
#define A_WROTE    A_MODIFIED, WRITE_BACK(A, ID(1), V(2), .fill = 0xa1), STORED_ACK(A, ID(1), V(2))
#define A_KEPT                                                               \
	A_MODIFIED, WRITE_BACK(A, ID(1), V(2), .fill = 0xa1, .flags = KEEP), \
		STORED_ACK(A, ID(1), V(2))
#define INVALIDATING \
	AB_SHARED, ACQUIRE(C, ID(5)), INVALIDATE(A, 1, ID(1), V(1)), INVALIDATE(B, 1, ID(2), V(1))
#define DOWNGRADING A_MODIFIED, READ(B, ID(5)), DOWNGRADE(A, 1, ID(1), V(2))
#define FETCHING    A_MODIFIED, ACQUIRE(B, ID(5)), FETCH(A, 1, ID(1), V(2))
#define MS          UINT64_C(1000000)
#define RETRY       DO(TICK, .ns = 26 * MS)
#define STILL       DO(PASS, .ns = 13 * MS)

static void a_is_gone(struct rig *r)
{
	wvm_core_gone(r->core, A, true);
}

static void b_is_gone(struct rig *r)
{
	wvm_core_gone(r->core, B, true);
}

static void a_is_back(struct rig *r)
{
	wvm_core_gone(r->core, A, false);
}

static const struct rig_case stored[] = {
	CASE("a read of an untouched page is granted Shared, as zero", A_SHARED,
	     ENTRY(SHARED, 1, V(1), .grant = ID(1)), COUNTED(pages_homed, 1),
	     COUNTED(home_reads, 1), DO(IDLE)),
	CASE("an acquire of an untouched page is granted Modified, as zero", A_MODIFIED,
	     ENTRY(MODIFIED, 1, V(1), .grant = ID(1)), COUNTED(home_acquires, 1), DO(IDLE)),
	CASE("a copy that is claimed of an untouched page is not believed",
	     ACQUIRE(A, ID(1), .flags = HELD, .version = V(0)),
	     GRANT(A, ID(1), V(2), .flags = ZERO)),
	CASE("a written page is granted with its stored copy", A_WROTE,
	     ENTRY(HOME, 0, V(2), WRITTEN), READ(B, ID(3)), GRANT(B, ID(3), V(2), STORE),
	     ENTRY(SHARED, 1, V(2), WRITTEN), DO(STORED, .fill = 0xa1)),
	CASE("an acquire of a written page is granted with its stored copy", A_WROTE,
	     ACQUIRE(B, ID(3)), GRANT(B, ID(3), V(3), STORE), ENTRY(MODIFIED, 1, V(2), WRITTEN)),
	CASE("pages of a unit share one counter", A_MODIFIED, READ(B, ID(1), .page = 9),
	     GRANT(B, ID(1), V(3), .flags = ZERO, .page = 9), ENTRY(SHARED, 1, V(3), .page = 9)),
	CASE("an acknowledgement that nobody waits for changes nothing", A_WROTE,
	     INVALIDATED(A, ID(1), V(2), STALE), NOT_HELD(A, ID(1), V(2), STALE),
	     IS_LOST(A, ID(1), V(2), STALE), ENTRY(HOME, 0, V(2), WRITTEN)),
	CASE("a write-back of what was never granted is not acknowledged",
	     WRITE_BACK(A, ID(1), V(1), .fill = 1, STALE), A_WROTE,
	     WRITE_BACK(A, ID(1), V(3), .fill = 1, STALE), DO(STORED, .fill = 0xa1)),
	CASE("a write-back that was stored is acknowledged again and not stored again", A_WROTE,
	     WRITE_BACK(A, ID(1), V(2), .fill = 0xee), STORED_ACK(A, ID(1), V(2)),
	     DO(STORED, .fill = 0xa1), ENTRY(HOME, 0, V(2), WRITTEN)),
	CASE("the last segment of a stored write-back is enough for its acknowledgement", A_WROTE,
	     WRITE_BACK(A, ID(1), V(2)), STORED_ACK(A, ID(1), V(2))),
};

static const struct rig_case shared[] = {
	CASE("a second reader joins", AB_SHARED, ENTRY(SHARED, 2, V(1), .grant = ID(1))),
	CASE("the same read again is granted again", A_SHARED, READ(A, ID(1)),
	     GRANT(A, ID(1), V(1), .flags = ZERO), ENTRY(SHARED, 1, V(1), .grant = ID(1))),
	CASE("a newer read of a sharer replaces its grant", A_SHARED, READ(A, ID(4)),
	     GRANT(A, ID(4), V(1), .flags = ZERO), ENTRY(SHARED, 1, V(1), .grant = ID(4))),
	CASE("a sharer's next life reads the stored copy", A_WROTE, READ(A, ID(2)),
	     GRANT(A, ID(2), V(2), STORE), READ(A, LATER(1)), GRANT(A, LATER(1), V(2), STORE),
	     ENTRY(SHARED, 1, V(2), WRITTEN, .grant = LATER(1))),
	CASE("an owner's next life after its write-back", A_KEPT, ACQUIRE(A, LATER(1)),
	     GRANT(A, LATER(1), V(3), STORE)),
	CASE("an older read of a sharer is late", READ(A, ID(3)),
	     GRANT(A, ID(3), V(1), .flags = ZERO), READ(A, ID(1), STALE),
	     ENTRY(SHARED, 1, V(1), .grant = ID(3))),
	CASE("an older acquire of a sharer is late", READ(A, ID(3)),
	     GRANT(A, ID(3), V(1), .flags = ZERO), ACQUIRE(A, ID(1), STALE),
	     ENTRY(SHARED, 1, V(1), .grant = ID(3))),
	CASE("a sole sharer upgrades without data", A_SHARED,
	     ACQUIRE(A, ID(2), .flags = HELD, .version = V(1)),
	     GRANT(A, ID(2), V(2), .flags = HELD), ENTRY(MODIFIED, 1, V(1), .grant = ID(2))),
	CASE("an upgrade of another version gets the data", A_WROTE, READ(A, ID(2)),
	     GRANT(A, ID(2), V(2), STORE), ACQUIRE(A, ID(3), .flags = HELD, .version = V(1)),
	     GRANT(A, ID(3), V(3), STORE)),
	CASE("a sharer that lost its copy gets the data", A_WROTE, READ(A, ID(2)),
	     GRANT(A, ID(2), V(2), STORE), ACQUIRE(A, ID(3)), GRANT(A, ID(3), V(3), STORE)),
	CASE("the version without the flag claims nothing", A_SHARED,
	     ACQUIRE(A, ID(2), .version = V(1)), GRANT(A, ID(2), V(2), .flags = ZERO)),
	CASE("a read that claims the version gets the data", A_WROTE,
	     READ(A, ID(2), .flags = HELD, .version = V(2)), GRANT(A, ID(2), V(2), STORE)),
	CASE("an owner that kept its copy is a sharer", A_KEPT,
	     ENTRY(SHARED, 1, V(2), .grant = ID(1), WRITTEN), DO(STORED, .fill = 0xa1)),
	CASE("the acquire that was granted and written back is over", A_KEPT,
	     ACQUIRE(A, ID(1), STALE), ENTRY(SHARED, 1, V(2), .grant = ID(1), WRITTEN)),
	CASE("the owner that kept its copy upgrades", A_KEPT,
	     ACQUIRE(A, ID(3), .flags = HELD, .version = V(2)),
	     GRANT(A, ID(3), V(3), .flags = HELD)),
	CASE("an answer without a transaction changes nothing", A_SHARED,
	     INVALIDATED(A, ID(1), V(1), STALE), NOT_HELD(A, ID(1), V(1), STALE),
	     IS_LOST(A, ID(1), V(1), STALE), ENTRY(SHARED, 1, V(1), .grant = ID(1))),
	CASE("a write-back of a Shared version is acknowledged, not stored", A_KEPT,
	     WRITE_BACK(A, ID(1), V(2), .fill = 0xee), STORED_ACK(A, ID(1), V(2)),
	     DO(STORED, .fill = 0xa1), ENTRY(SHARED, 1, V(2), .grant = ID(1), WRITTEN)),
};

static const struct rig_case modified[] = {
	CASE("the same acquire again is granted again", A_MODIFIED, ACQUIRE(A, ID(1)),
	     GRANT(A, ID(1), V(2), .flags = ZERO), ENTRY(MODIFIED, 1, V(1), .grant = ID(1))),
	CASE("a repeated upgrade is granted again without data", A_SHARED,
	     ACQUIRE(A, ID(2), .flags = HELD, .version = V(1)),
	     GRANT(A, ID(2), V(2), .flags = HELD),
	     ACQUIRE(A, ID(2), .flags = HELD, .version = V(1)),
	     GRANT(A, ID(2), V(2), .flags = HELD)),
	CASE("a repeated upgrade that has lost its copy meanwhile gets the data", A_SHARED,
	     ACQUIRE(A, ID(2), .flags = HELD, .version = V(1)),
	     GRANT(A, ID(2), V(2), .flags = HELD), ACQUIRE(A, ID(2)),
	     GRANT(A, ID(2), V(2), .flags = ZERO)),
	CASE("a read under the owner's id is none of its requests", A_MODIFIED,
	     READ(A, ID(1), STALE), ENTRY(MODIFIED, 1, V(1), .grant = ID(1))),
	CASE("an older request of the owner is late", ACQUIRE(A, ID(4)),
	     GRANT(A, ID(4), V(2), .flags = ZERO), READ(A, ID(3), STALE), ACQUIRE(A, ID(3), STALE),
	     ENTRY(MODIFIED, 1, V(1), .grant = ID(4))),
	CASE("a newer read of the owner says that it never took its grant", A_MODIFIED,
	     READ(A, ID(2)), GRANT(A, ID(2), V(1), .flags = ZERO),
	     ENTRY(SHARED, 1, V(1), .grant = ID(2)), COUNTED(home_not_held, 1)),
	CASE("a newer acquire of the owner gets a new version", A_MODIFIED, ACQUIRE(A, ID(2)),
	     GRANT(A, ID(2), V(3), .flags = ZERO), ENTRY(MODIFIED, 1, V(1), .grant = ID(2)),
	     COUNTED(home_not_held, 1)),
	CASE("a read of the owner's next life: the owner is asked what became of the page",
	     A_MODIFIED, READ(A, LATER(1)), FETCH(A, 1, ID(1), V(2)),
	     ENTRY(MODIFIED, 1, V(1), BUSY)),
	CASE("its bytes are gone, and the page with them", A_MODIFIED, READ(A, LATER(1)),
	     FETCH(A, 1, ID(1), V(2)), IS_LOST(A, ID(1), V(2)), LOST_TO(A, LATER(1)),
	     ENTRY(HOME, 0, V(1), .flags = WVM_HOME_LOST), COUNTED(home_lost, 1),
	     COUNTED(home_not_held, 0), READ(B, ID(1)), LOST_TO(B, ID(1))),
	CASE("an acquire of the owner's next life", A_MODIFIED, ACQUIRE(A, LATER(1)),
	     FETCH(A, 1, ID(1), V(2)), IS_LOST(A, ID(1), V(2)), LOST_TO(A, LATER(1)),
	     ENTRY(HOME, 0, V(1), .flags = WVM_HOME_LOST)),
	CASE("a next life that took the former one over never had the page", A_MODIFIED,
	     READ(A, LATER(1)), FETCH(A, 1, ID(1), V(2)), NOT_HELD(A, ID(1), V(2)),
	     GRANT(A, LATER(1), V(1), .flags = ZERO), COUNTED(home_not_held, 1),
	     ENTRY(SHARED, 1, V(1), .grant = LATER(1))),
	CASE("a next life whose write-back was on its way", A_MODIFIED, ACQUIRE(A, LATER(1)),
	     FETCH(A, 1, ID(1), V(2)), WRITE_BACK(A, ID(1), V(2), .fill = 0xa1),
	     STORED_ACK(A, ID(1), V(2)), GRANT(A, LATER(1), V(3), STORE)),
	CASE("the owner may write back unasked, keeping a copy", A_KEPT,
	     ENTRY(SHARED, 1, V(2), WRITTEN)),
	CASE("the owner may write back unasked, keeping none", A_WROTE,
	     ENTRY(HOME, 0, V(2), WRITTEN)),
	CASE("a page written back as zero is stored as the word zero", A_WROTE, ACQUIRE(B, ID(3)),
	     GRANT(B, ID(3), V(3), STORE), WRITE_BACK(B, ID(3), V(3), .flags = ZERO),
	     STORED_ACK(B, ID(3), V(3)), ENTRY(HOME, 0, V(3)), READ(A, ID(7)),
	     GRANT(A, ID(7), V(3), .flags = ZERO)),
	CASE("a write-back without bytes is none", A_MODIFIED,
	     WRITE_BACK(A, ID(1), V(2), LESS(SEGMENT)), ENTRY(MODIFIED, 1, V(1))),
	CASE("only the owner writes back, and only its grant and version", A_MODIFIED,
	     WRITE_BACK(B, ID(1), V(2), .fill = 1), STORED_ACK(B, ID(1), V(2)),
	     WRITE_BACK(A, ID(2), V(2), .fill = 1), STORED_ACK(A, ID(2), V(2)),
	     WRITE_BACK(A, ID(1), V(1), .fill = 1), STORED_ACK(A, ID(1), V(1)),
	     WRITE_BACK(A, ID(1), V(3), .fill = 1, STALE), DO(STORED, .fill = 0),
	     ENTRY(MODIFIED, 1, V(1), .grant = ID(1))),
	CASE("an answer without a transaction leaves the owner", A_MODIFIED,
	     INVALIDATED(A, ID(1), V(2), STALE), NOT_HELD(A, ID(1), V(2), STALE),
	     IS_LOST(A, ID(1), V(2), STALE), ENTRY(MODIFIED, 1, V(1), .grant = ID(1))),
};

static const struct rig_case invalidating[] = {
	CASE("an acquire waits for every sharer", INVALIDATING, ENTRY(SHARED, 2, V(1), BUSY),
	     INVALIDATED(A, ID(1), V(1)), ENTRY(SHARED, 1, V(1), BUSY), INVALIDATED(B, ID(2), V(1)),
	     GRANT(C, ID(5), V(2), .flags = ZERO), ENTRY(MODIFIED, 1, V(1), .grant = ID(5)),
	     DO(IDLE)),
	CASE("a sharer that is gone is not asked", A_SHARED, DO(CALL, .call = a_is_gone),
	     ACQUIRE(C, ID(5)), GRANT(C, ID(5), V(2), .flags = ZERO),
	     ENTRY(MODIFIED, 1, V(1), .grant = ID(5)), DO(IDLE)),
	CASE("others are", AB_SHARED, DO(CALL, .call = a_is_gone), ACQUIRE(C, ID(5)),
	     INVALIDATE(B, 1, ID(2), V(1)), INVALIDATED(B, ID(2), V(1)),
	     GRANT(C, ID(5), V(2), .flags = ZERO), DO(IDLE)),
	CASE("nor is it one any more for who reads", A_SHARED, DO(CALL, .call = a_is_gone),
	     READ(B, ID(2)), GRANT(B, ID(2), V(1), .flags = ZERO),
	     ENTRY(SHARED, 1, V(1), .grant = ID(2))),
	CASE("one that goes while it is asked is waited for no longer", INVALIDATING,
	     INVALIDATED(B, ID(2), V(1)), DO(CALL, .call = a_is_gone), DO(TICK),
	     GRANT(C, ID(5), V(2), .flags = ZERO), ENTRY(MODIFIED, 1, V(1), .grant = ID(5)),
	     DO(IDLE)),
	CASE("nor are several", INVALIDATING, DO(CALL, .call = a_is_gone),
	     DO(CALL, .call = b_is_gone), DO(TICK), INVALIDATE(B, 1, ID(2), V(1)), DO(TICK),
	     GRANT(C, ID(5), V(2), .flags = ZERO), DO(IDLE)),
	CASE("whoever was upgraded meanwhile keeps its copy", AB_SHARED,
	     DO(CALL, .call = a_is_gone), ACQUIRE(B, ID(5), .flags = HELD, .version = V(1)),
	     GRANT(B, ID(5), V(2), .flags = HELD), DO(IDLE)),
	CASE("one that is back is asked, in its later life", A_SHARED, DO(CALL, .call = a_is_gone),
	     DO(CALL, .call = a_is_back), READ(A, LATER(1)),
	     GRANT(A, LATER(1), V(1), .flags = ZERO), ACQUIRE(C, ID(5)),
	     INVALIDATE(A, 1, LATER(1), V(1))),
	CASE("an owner that is gone has its page still: no older copy in its place", A_MODIFIED,
	     DO(CALL, .call = a_is_gone), ACQUIRE(C, ID(5)), FETCH(A, 1, ID(1), V(2)),
	     ENTRY(MODIFIED, 1, V(1), .grant = ID(1), BUSY)),
	CASE("one sharer's acknowledgement counts once", INVALIDATING, INVALIDATED(A, ID(1), V(1)),
	     INVALIDATED(A, ID(1), V(1), STALE), ENTRY(SHARED, 1, V(1), BUSY)),
	CASE("an acknowledgement names the grant and the version", INVALIDATING,
	     INVALIDATED(A, ID(2), V(1), STALE), INVALIDATED(A, ID(1), V(0), STALE),
	     INVALIDATED(A, ID(1), V(2), STALE), INVALIDATED(C, ID(1), V(1), STALE),
	     ENTRY(SHARED, 2, V(1), BUSY)),
	CASE("an upgrading sharer is not asked, and gets no data", AB_SHARED,
	     ACQUIRE(B, ID(5), .flags = HELD, .version = V(1)), INVALIDATE(A, 1, ID(1), V(1)),
	     INVALIDATED(A, ID(1), V(1)), GRANT(B, ID(5), V(2), .flags = HELD),
	     ENTRY(MODIFIED, 1, V(1), .grant = ID(5))),
	CASE("the one who did not answer is asked again", INVALIDATING, INVALIDATED(A, ID(1), V(1)),
	     STILL, RETRY, INVALIDATE(B, 1, ID(2), V(1)), COUNTED(home_txn_retries, 1),
	     INVALIDATED(B, ID(2), V(1)), GRANT(C, ID(5), V(2), .flags = ZERO)),
	CASE("retries back off", INVALIDATING, INVALIDATED(A, ID(1), V(1)), RETRY,
	     INVALIDATE(B, 1, ID(2), V(1)), DO(PASS, .ns = 27 * MS), DO(TICK, .ns = 25 * MS),
	     INVALIDATE(B, 1, ID(2), V(1)), DO(PASS, .ns = 55 * MS), DO(TICK, .ns = 49 * MS),
	     INVALIDATE(B, 1, ID(2), V(1))),
	CASE("answers of an owner are none of a sharer", INVALIDATING,
	     NOT_HELD(A, ID(1), V(1), STALE), IS_LOST(A, ID(1), V(1), STALE),
	     WRITE_BACK(A, ID(1), V(1), .fill = 1), STORED_ACK(A, ID(1), V(1)),
	     ENTRY(SHARED, 2, V(1), BUSY)),
	CASE("a later request waits its turn", INVALIDATING, READ(D, ID(6)),
	     INVALIDATED(A, ID(1), V(1)), INVALIDATED(B, ID(2), V(1)),
	     GRANT(C, ID(5), V(2), .flags = ZERO), DOWNGRADE(C, 2, ID(5), V(2)),
	     ENTRY(MODIFIED, 1, V(1), BUSY)),
	CASE("the asker's retry changes nothing", INVALIDATING, ACQUIRE(C, ID(5)),
	     INVALIDATED(A, ID(1), V(1)), INVALIDATED(B, ID(2), V(1)),
	     GRANT(C, ID(5), V(2), .flags = ZERO), DO(IDLE)),
	CASE("the asker's newer request takes the older's place", INVALIDATING, ACQUIRE(C, ID(8)),
	     ACQUIRE(C, ID(5), STALE), INVALIDATED(A, ID(1), V(1)), INVALIDATED(B, ID(2), V(1)),
	     GRANT(C, ID(8), V(2), .flags = ZERO), ENTRY(MODIFIED, 1, V(1), .grant = ID(8))),
	CASE("an acquire that becomes a read gets a Shared copy", INVALIDATING, READ(C, ID(8)),
	     INVALIDATED(A, ID(1), V(1)), INVALIDATED(B, ID(2), V(1)),
	     GRANT(C, ID(8), V(1), .flags = ZERO), ENTRY(SHARED, 1, V(1), .grant = ID(8))),
	CASE("an upgrade that becomes a read gives up its own record, too", AB_SHARED,
	     ACQUIRE(B, ID(5)), INVALIDATE(A, 1, ID(1), V(1)), READ(B, ID(6)),
	     INVALIDATED(A, ID(1), V(1)), ENTRY(SHARED, 1, V(1), BUSY), RETRY,
	     INVALIDATE(B, 1, ID(2), V(1)), INVALIDATED(B, ID(2), V(1)),
	     GRANT(B, ID(6), V(1), .flags = ZERO), ENTRY(SHARED, 1, V(1), .grant = ID(6))),
	CASE("an upgrade that was a read in between is granted once the others are gone", AB_SHARED,
	     ACQUIRE(B, ID(5)), INVALIDATE(A, 1, ID(1), V(1)), READ(B, ID(6)),
	     INVALIDATED(A, ID(1), V(1)), ENTRY(SHARED, 1, V(1), BUSY), ACQUIRE(B, ID(7)),
	     GRANT(B, ID(7), V(2), .flags = ZERO), ENTRY(MODIFIED, 1, V(1), .grant = ID(7)),
	     DO(IDLE)),
	CASE("a sharer asks again while it is invalidated", INVALIDATING, READ(A, ID(7)),
	     INVALIDATED(A, ID(1), V(1)), INVALIDATED(B, ID(2), V(1)),
	     GRANT(C, ID(5), V(2), .flags = ZERO), DOWNGRADE(C, 2, ID(5), V(2))),
};

static const struct rig_case downgrading[] = {
	CASE("a read waits for the owner's bytes, and the owner keeps a copy", DOWNGRADING,
	     ENTRY(MODIFIED, 1, V(1), BUSY),
	     WRITE_BACK(A, ID(1), V(2), .fill = 0xa1, .flags = KEEP), STORED_ACK(A, ID(1), V(2)),
	     GRANT(B, ID(5), V(2), STORE), ENTRY(SHARED, 2, V(2), WRITTEN, .grant = ID(1)),
	     DO(STORED, .fill = 0xa1), DO(IDLE)),
	CASE("the owner may keep no copy", DOWNGRADING, WRITE_BACK(A, ID(1), V(2), .fill = 0xa1),
	     STORED_ACK(A, ID(1), V(2)), GRANT(B, ID(5), V(2), STORE),
	     ENTRY(SHARED, 1, V(2), WRITTEN, .grant = ID(5))),
	CASE("zero bytes come as a flag", DOWNGRADING,
	     WRITE_BACK(A, ID(1), V(2), .flags = KEEP | ZERO), STORED_ACK(A, ID(1), V(2)),
	     GRANT(B, ID(5), V(2), .flags = ZERO), ENTRY(SHARED, 2, V(2))),
	CASE("the owner is asked again", DOWNGRADING, STILL, RETRY, DOWNGRADE(A, 1, ID(1), V(2)),
	     DO(TIMED), COUNTED(home_txn_retries, 1)),
	CASE("an owner that never took its grant leaves the stored copy", DOWNGRADING,
	     NOT_HELD(A, ID(1), V(2)), GRANT(B, ID(5), V(1), .flags = ZERO),
	     ENTRY(SHARED, 1, V(1), .grant = ID(5)), COUNTED(home_not_held, 1)),
	CASE("an owner that lost the page makes it an error", DOWNGRADING, IS_LOST(A, ID(1), V(2)),
	     LOST_TO(B, ID(5)), ENTRY(HOME, 0, V(1), .flags = WVM_HOME_LOST),
	     COUNTED(home_lost, 1)),
	CASE("a refusal names the grant and the version", DOWNGRADING,
	     NOT_HELD(A, ID(2), V(2), STALE), NOT_HELD(A, ID(1), V(1), STALE),
	     NOT_HELD(B, ID(1), V(2), STALE), IS_LOST(A, ID(2), V(2), STALE),
	     IS_LOST(A, ID(1), V(3), STALE), IS_LOST(C, ID(1), V(2), STALE),
	     ENTRY(MODIFIED, 1, V(1), BUSY)),
	CASE("a sharer's acknowledgement is none of an owner", DOWNGRADING,
	     INVALIDATED(A, ID(1), V(2), STALE), ENTRY(MODIFIED, 1, V(1), BUSY)),
	CASE("the owner's newer request waits, and its refusal comes first", DOWNGRADING,
	     READ(A, ID(3)), ENTRY(MODIFIED, 1, V(1), BUSY, .grant = ID(1)),
	     NOT_HELD(A, ID(1), V(2)), GRANT(B, ID(5), V(1), .flags = ZERO),
	     GRANT(A, ID(3), V(1), .flags = ZERO), ENTRY(SHARED, 2, V(1))),
	CASE("a reader that wants to write meanwhile is granted M", DOWNGRADING, ACQUIRE(B, ID(6)),
	     WRITE_BACK(A, ID(1), V(2), .fill = 0xa1), STORED_ACK(A, ID(1), V(2)),
	     GRANT(B, ID(6), V(3), STORE), ENTRY(MODIFIED, 1, V(2), WRITTEN, .grant = ID(6))),
	CASE("… after the copy that the owner kept is gone", DOWNGRADING, ACQUIRE(B, ID(6)),
	     WRITE_BACK(A, ID(1), V(2), .fill = 0xa1, .flags = KEEP), STORED_ACK(A, ID(1), V(2)),
	     INVALIDATE(A, 2, ID(1), V(2)), INVALIDATED(A, ID(1), V(2)),
	     GRANT(B, ID(6), V(3), STORE)),
	CASE("readers that came later are answered together", DOWNGRADING, READ(C, ID(1)),
	     READ(D, ID(1)), WRITE_BACK(A, ID(1), V(2), .fill = 0xa1, .flags = KEEP),
	     STORED_ACK(A, ID(1), V(2)), GRANT(B, ID(5), V(2), STORE), GRANT(C, ID(1), V(2), STORE),
	     GRANT(D, ID(1), V(2), STORE), ENTRY(SHARED, 4, V(2), WRITTEN)),
};

static const struct rig_case fetching[] = {
	CASE("a take-over waits for the owner's bytes", FETCHING, ENTRY(MODIFIED, 1, V(1), BUSY),
	     WRITE_BACK(A, ID(1), V(2), .fill = 0xa1), STORED_ACK(A, ID(1), V(2)),
	     GRANT(B, ID(5), V(3), STORE), ENTRY(MODIFIED, 1, V(2), WRITTEN, .grant = ID(5)),
	     DO(STORED, .fill = 0xa1), DO(IDLE)),
	CASE("an owner that stays is not acknowledged", FETCHING,
	     WRITE_BACK(A, ID(1), V(2), .fill = 0xa1, .flags = KEEP, STALE),
	     ENTRY(MODIFIED, 1, V(1), BUSY), DO(STORED, .fill = 0),
	     WRITE_BACK(A, ID(1), V(2), .fill = 0xa1), STORED_ACK(A, ID(1), V(2)),
	     GRANT(B, ID(5), V(3), STORE)),
	CASE("the owner is asked again", FETCHING, STILL, RETRY, FETCH(A, 1, ID(1), V(2))),
	CASE("an owner that never took its grant leaves the stored copy", FETCHING,
	     NOT_HELD(A, ID(1), V(2)), GRANT(B, ID(5), V(3), .flags = ZERO),
	     ENTRY(MODIFIED, 1, V(1), .grant = ID(5))),
	CASE("an owner that lost the page makes it an error, for all from then on", FETCHING,
	     READ(C, ID(1)), IS_LOST(A, ID(1), V(2)), LOST_TO(B, ID(5)), LOST_TO(C, ID(1)),
	     READ(A, ID(9)), LOST_TO(A, ID(9)), ACQUIRE(D, ID(9)), LOST_TO(D, ID(9)),
	     WRITE_BACK(A, ID(1), V(2), .fill = 1), STORED_ACK(A, ID(1), V(2)),
	     ENTRY(HOME, 0, V(1), .flags = WVM_HOME_LOST)),
	CASE("a second taker follows the first", FETCHING, ACQUIRE(C, ID(1)),
	     WRITE_BACK(A, ID(1), V(2), .flags = ZERO), STORED_ACK(A, ID(1), V(2)),
	     GRANT(B, ID(5), V(3), .flags = ZERO), FETCH(B, 2, ID(5), V(3)),
	     WRITE_BACK(B, ID(5), V(3), .fill = 0xb1), STORED_ACK(B, ID(5), V(3)),
	     GRANT(C, ID(1), V(4), STORE), DO(IDLE)),
	CASE("a wrong refusal changes nothing", FETCHING, NOT_HELD(A, ID(1), V(1), STALE),
	     INVALIDATED(A, ID(1), V(2), STALE), ENTRY(MODIFIED, 1, V(1), BUSY)),
};

static const struct rig_case queued[] = {
	CASE("requests are answered in the order of their coming", FETCHING, READ(C, ID(1)),
	     ACQUIRE(D, ID(1)), READ(A, ID(2)), WRITE_BACK(A, ID(1), V(2), .flags = ZERO),
	     STORED_ACK(A, ID(1), V(2)), GRANT(B, ID(5), V(3), .flags = ZERO),
	     DOWNGRADE(B, 2, ID(5), V(3)), WRITE_BACK(B, ID(5), V(3), .flags = ZERO | KEEP),
	     STORED_ACK(B, ID(5), V(3)), GRANT(C, ID(1), V(3), .flags = ZERO),
	     INVALIDATE(B, 3, ID(5), V(3)), INVALIDATE(C, 3, ID(1), V(3)),
	     INVALIDATED(B, ID(5), V(3)), INVALIDATED(C, ID(1), V(3)),
	     GRANT(D, ID(1), V(4), .flags = ZERO), DOWNGRADE(D, 4, ID(1), V(4)),
	     NOT_HELD(D, ID(1), V(4)), GRANT(A, ID(2), V(3), .flags = ZERO), DO(IDLE)),
	CASE("a retry does not stand in the queue twice", FETCHING, READ(C, ID(1)), READ(C, ID(1)),
	     NOT_HELD(A, ID(1), V(2)), GRANT(B, ID(5), V(3), .flags = ZERO),
	     DOWNGRADE(B, 2, ID(5), V(3)), NOT_HELD(B, ID(5), V(3)),
	     GRANT(C, ID(1), V(1), .flags = ZERO), DO(IDLE)),
	CASE("a newer request keeps the older's place in the queue", FETCHING, READ(C, ID(1)),
	     READ(D, ID(1)), ACQUIRE(C, ID(4)), READ(C, ID(1), STALE), NOT_HELD(A, ID(1), V(2)),
	     GRANT(B, ID(5), V(3), .flags = ZERO), FETCH(B, 2, ID(5), V(3)),
	     NOT_HELD(B, ID(5), V(3)), GRANT(C, ID(4), V(4), .flags = ZERO),
	     DOWNGRADE(C, 3, ID(4), V(4))),
	CASE("the owner's next life waits, and finds the page lost", FETCHING, READ(A, LATER(1)),
	     IS_LOST(A, ID(1), V(2)), LOST_TO(B, ID(5)), LOST_TO(A, LATER(1)), DO(IDLE)),
	CASE("a queued request that is late by now is left out", A_MODIFIED, READ(B, ID(5)),
	     DOWNGRADE(A, 1, ID(1), V(2)), ACQUIRE(A, ID(1)), READ(C, ID(1)),
	     WRITE_BACK(A, ID(1), V(2), .flags = ZERO | KEEP), STORED_ACK(A, ID(1), V(2)),
	     GRANT(B, ID(5), V(2), .flags = ZERO), GRANT(C, ID(1), V(2), .flags = ZERO), DO(IDLE)),
	CASE("pages do not wait for one another", FETCHING, READ(C, ID(1), .page = 3),
	     GRANT(C, ID(1), V(3), .flags = ZERO, .page = 3)),
};

static void to_the_deadline(struct rig *r)
{
	r->now_ns += r->params.times.deadline_ns;
}

static const struct rig_case aborted[] = {
	CASE("a take-over ends at the deadline, and the owner stays", FETCHING, READ(C, ID(1)),
	     DO(CALL, .call = to_the_deadline), DO(TICK), ENTRY(MODIFIED, 1, V(1), .grant = ID(1)),
	     COUNTED(home_txn_aborted, 1), DO(IDLE), WRITE_BACK(A, ID(1), V(2), .fill = 0xa1),
	     STORED_ACK(A, ID(1), V(2)), READ(C, ID(1)), GRANT(C, ID(1), V(2), STORE)),
	CASE("an invalidation ends at the deadline, and the rest stays", INVALIDATING,
	     INVALIDATED(A, ID(1), V(1)), DO(CALL, .call = to_the_deadline), DO(TICK),
	     ENTRY(SHARED, 1, V(1), .grant = ID(2)), DO(IDLE), INVALIDATED(B, ID(2), V(1), STALE),
	     ACQUIRE(C, ID(5)), INVALIDATE(B, 2, ID(2), V(1)), INVALIDATED(B, ID(2), V(1)),
	     GRANT(C, ID(5), V(2), .flags = ZERO)),
	CASE("a downgrade ends at the deadline", DOWNGRADING, DO(CALL, .call = to_the_deadline),
	     DO(TICK), ENTRY(MODIFIED, 1, V(1)), NOT_HELD(A, ID(1), V(2), STALE),
	     ENTRY(MODIFIED, 1, V(1)), READ(B, ID(5)), DOWNGRADE(A, 2, ID(1), V(2))),
	CASE("the owner's write-back without a transaction serves the next", FETCHING,
	     DO(CALL, .call = to_the_deadline), DO(TICK),
	     WRITE_BACK(A, ID(1), V(2), .fill = 0xa1, .flags = KEEP), STORED_ACK(A, ID(1), V(2)),
	     READ(B, ID(6)), GRANT(B, ID(6), V(2), STORE)),
};

static const struct rig_case refused[] = {
	CASE("a home that does not serve yet answers nothing", DO(SERVE, .flags = 0),
	     READ(A, ID(1), LESS(ROOM)), ACQUIRE(A, ID(1), LESS(ROOM)),
	     INVALIDATED(A, ID(1), V(1), LESS(ROOM)), ENTRY(HOME, 0, 0), DO(SERVE, .flags = 1),
	     READ(A, ID(1)), GRANT(A, ID(1), V(1), .flags = ZERO)),
	CASE("another node's page is not ours", READ(A, ID(1), .page = RIG_OTHER, LESS(NODE)),
	     SENT(WRONG_HOME, A, .request = ID(1), .page = RIG_OTHER),
	     ACQUIRE(A, ID(1), .page = RIG_OTHER, LESS(NODE)),
	     SENT(WRONG_HOME, A, .request = ID(1), .page = RIG_OTHER),
	     WRITE_BACK(A, ID(1), V(1), .fill = 1, .page = RIG_OTHER, LESS(NODE)),
	     INVALIDATED(A, ID(1), V(1), .page = RIG_OTHER, LESS(NODE)),
	     NOT_HELD(A, ID(1), V(1), .page = RIG_OTHER, LESS(NODE)),
	     ENTRY(HOME, 0, 0, .page = RIG_OTHER)),
	CASE("a page beyond the guest", READ(A, ID(1), .page = RIG_PAGES, LESS(GPA))),
	CASE("an id of an older boot is late", READ(A, LATER(1)),
	     GRANT(A, LATER(1), V(1), .flags = ZERO), ACQUIRE(A, ID(9), .page = 2, STALE)),
	CASE("an id of a shard that no member has", READ(A, RIG_ID(9, 16, 1), LESS(REQUEST)),
	     READ(A, RIG_ID(9, 255, 1), LESS(REQUEST)), READ(A, RIG_ID(0, 2, 1), LESS(REQUEST))),
	CASE("an id below the window of seen ids is late", READ(A, ID(WVM_SEEN_BITS + 1)),
	     GRANT(A, ID(WVM_SEEN_BITS + 1), V(1), .flags = ZERO), READ(A, ID(1), .page = 1, STALE),
	     READ(A, ID(2), .page = 1), GRANT(A, ID(2), V(2), .page = 1, .flags = ZERO),
	     READ(B, ID(1), .page = 2), GRANT(B, ID(1), V(3), .page = 2, .flags = ZERO)),
	CASE("what was dropped for lack of room is not seen", DO(SERVE, .flags = 0),
	     READ(A, ID(WVM_SEEN_BITS * 2), LESS(ROOM)), DO(SERVE, .flags = 1), READ(A, ID(1)),
	     GRANT(A, ID(1), V(1), .flags = ZERO)),
	CASE("a type that no core takes", IN(PING, A, .request = ID(1), LESS(TYPE)),
	     IN(PAGE_PUSH_DIFF, A, LESS(TYPE)), IN(WRONG_HOME, A, .request = ID(1), LESS(EPOCH))),
};

#define ALL(table) table, CASES(table)
static const struct {
	const char *name;
	const struct rig_case *cases;
	int count;
} groups[] = {
	{"stored", ALL(stored)},           {"shared", ALL(shared)},
	{"modified", ALL(modified)},       {"invalidating", ALL(invalidating)},
	{"downgrading", ALL(downgrading)}, {"fetching", ALL(fetching)},
	{"queued", ALL(queued)},           {"aborted", ALL(aborted)},
	{"refused", ALL(refused)},
};

START_TEST(every_transition_does_what_its_case_says)
{
	for (int i = 0; i < groups[_i].count; i++) {
		struct rig r;

		rig_open(&r, RIG_SELF, NULL);
		rig_run(&r, &groups[_i].cases[i]);
		rig_close(&r);
	}
}
END_TEST

/* A rig whose pools have `n` slots each, for what happens when they are empty. */
static void open_small(struct rig *r, uint32_t n)
{
	struct wvm_core_limits l = {.requests = 4,
				    .txns = n,
				    .waiting = n,
				    .demands = 4,
				    .partials = 4,
				    .holder_blocks = n,
				    .peer_shards = 4};

	rig_open(r, RIG_SELF, &l);
}

static const struct rig_case without_room[] = {
	CASE("no slot for a transaction: the request is dropped, and taken when it comes again",
	     FETCHING, ACQUIRE(A, ID(3), .page = 1),
	     GRANT(A, ID(3), V(4), .page = 1, .flags = ZERO), READ(C, ID(1), .page = 1, LESS(ROOM)),
	     ENTRY(MODIFIED, 1, V(3), .page = 1), NOT_HELD(A, ID(1), V(2)),
	     GRANT(B, ID(5), V(5), .flags = ZERO), READ(C, ID(1), .page = 1),
	     DOWNGRADE(A, 2, ID(3), V(4), .page = 1)),
	CASE("no slot to wait in: the request is dropped, and taken when it comes again", FETCHING,
	     READ(C, ID(1)), READ(D, ID(1), LESS(ROOM)), READ(C, ID(2)), NOT_HELD(A, ID(1), V(2)),
	     GRANT(B, ID(5), V(3), .flags = ZERO), DOWNGRADE(B, 2, ID(5), V(3)),
	     NOT_HELD(B, ID(5), V(3)), GRANT(C, ID(2), V(1), .flags = ZERO), READ(D, ID(1)),
	     GRANT(D, ID(1), V(1), .flags = ZERO)),
	CASE("slots come back when a transaction is given up", FETCHING, READ(C, ID(1)),
	     DO(CALL, .call = to_the_deadline), DO(TICK), READ(B, ID(6)),
	     DOWNGRADE(A, 2, ID(1), V(2)), READ(C, ID(1)), NOT_HELD(A, ID(1), V(2)),
	     GRANT(B, ID(6), V(1), .flags = ZERO), GRANT(C, ID(1), V(1), .flags = ZERO), DO(IDLE)),
};

START_TEST(a_full_pool_drops_and_recovers)
{
	struct rig r;

	open_small(&r, 1);
	rig_run(&r, &without_room[_i]);
	rig_close(&r);
}
END_TEST

/* Member `i` of many readers, leaving out the home itself. */
static uint32_t reader(uint32_t i)
{
	return i + 3;
}

static void let_read(struct rig *r, uint32_t count, uint64_t page)
{
	for (uint32_t i = 0; i < count; i++) {
		rig_do(r, (struct rig_step)READ(reader(i), ID(i + 1), .page = page));
		rig_do(r, (struct rig_step)GRANT(reader(i), ID(i + 1), V(1), .flags = ZERO,
						 .page = page));
	}
}

/* Takes the INVALIDATEs that are due, in any order. Returns how many; each sharer once. */
static uint32_t take_invalidates(struct rig *r, bool *asked)
{
	const struct wvm_action *a;
	uint32_t n = 0;

	while ((a = wvm_core_action(r->core))) {
		uint32_t i = a->member - reader(0);

		ck_assert_int_eq(a->kind, WVM_ACT_SEND);
		ck_assert_int_eq(a->msg.type, WVM_MSG_INVALIDATE);
		ck_assert_uint_eq(a->msg.grant, ID(i + 1));
		ck_assert_uint_eq(a->msg.version, V(1));
		ck_assert(!asked[i]);
		asked[i] = true;
		n++;
	}
	return n;
}

/* 150 sharers: 30 blocks of records, three batches of INVALIDATEs. Acknowledged in any order. */
START_TEST(many_sharers_are_invalidated_in_batches)
{
	enum { MANY = 150 };
	uint32_t order[MANY], random = 12345 + (uint32_t)_i;
	bool asked[MANY] = {false};
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	r.name = "many sharers";
	let_read(&r, MANY, 0);
	rig_do(&r, (struct rig_step)ACQUIRE(0, ID(1)));
	ck_assert_uint_eq(take_invalidates(&r, asked), WVM_TXN_BATCH);
	rig_do(&r, (struct rig_step)DO(TICK, .ns = 1));
	ck_assert_uint_eq(take_invalidates(&r, asked), WVM_TXN_BATCH);
	rig_do(&r, (struct rig_step)DO(TICK, .ns = 1));
	ck_assert_uint_eq(take_invalidates(&r, asked), MANY - 2 * WVM_TXN_BATCH);
	rig_do(&r, (struct rig_step)STILL);
	for (uint32_t i = 0; i < MANY; i++)
		order[i] = i;
	for (uint32_t i = MANY - 1; i > 0; i--) {
		uint32_t j = (random = random * 1103515245u + 12345u) / 65536 % (i + 1);
		uint32_t t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
	for (uint32_t i = 0; i < MANY; i++) {
		rig_do(&r, (struct rig_step)ENTRY(SHARED, MANY - i, V(1), BUSY));
		rig_do(&r, (struct rig_step)INVALIDATED(reader(order[i]), ID(order[i] + 1), V(1)));
	}
	rig_do(&r, (struct rig_step)GRANT(0, ID(1), V(2), .flags = ZERO));
	rig_do(&r, (struct rig_step)DO(IDLE));
	rig_close(&r);
}
END_TEST

/* One who does not answer among many is the only one asked again. */
START_TEST(the_last_of_many_sharers_is_asked_again_alone)
{
	enum { MANY = 100 };
	bool asked[MANY] = {false};
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	r.name = "last of many";
	let_read(&r, MANY, 0);
	rig_do(&r, (struct rig_step)ACQUIRE(0, ID(1)));
	take_invalidates(&r, asked);
	rig_do(&r, (struct rig_step)DO(TICK, .ns = 1));
	take_invalidates(&r, asked);
	for (uint32_t i = 0; i < MANY; i++)
		if (i != 70)
			rig_do(&r, (struct rig_step)INVALIDATED(reader(i), ID(i + 1), V(1)));
	rig_do(&r, (struct rig_step)RETRY);
	rig_do(&r, (struct rig_step)INVALIDATE(reader(70), 1, ID(71), V(1)));
	rig_do(&r, (struct rig_step)INVALIDATED(reader(70), ID(71), V(1)));
	rig_do(&r, (struct rig_step)GRANT(0, ID(1), V(2), .flags = ZERO));
	rig_close(&r);
}
END_TEST

/* Four sharers have their records; the fifth would need a second block, and there is one. */
START_TEST(without_blocks_all_sharers_give_way_to_a_new_one)
{
	enum { ROOM = WVM_HOLDERS_INLINE + WVM_BLOCK_HOLDERS };
	bool asked[ROOM] = {false};
	struct rig r;

	open_small(&r, 1);
	r.name = "no blocks";
	let_read(&r, ROOM, 0);
	rig_do(&r, (struct rig_step)READ(0, ID(9)));
	ck_assert_uint_eq(take_invalidates(&r, asked), ROOM);
	rig_do(&r, (struct rig_step)COUNTED(home_evicted, 1));
	for (uint32_t i = 0; i < ROOM; i++)
		rig_do(&r, (struct rig_step)INVALIDATED(reader(i), ID(i + 1), V(1)));
	rig_do(&r, (struct rig_step)GRANT(0, ID(9), V(1), .flags = ZERO));
	rig_do(&r, (struct rig_step)ENTRY(SHARED, 1, V(1), .grant = ID(9)));
	/* The block is free again, for another page. */
	for (uint32_t i = 0; i < ROOM; i++) {
		rig_do(&r, (struct rig_step)READ(reader(i), ID(100 + i), .page = 1));
		rig_do(&r, (struct rig_step)GRANT(reader(i), ID(100 + i), V(2), .flags = ZERO,
						  .page = 1));
	}
	rig_close(&r);
}
END_TEST

/* More queued than one step answers: the rest follows by itself, and in order. */
START_TEST(a_long_queue_is_answered_in_batches_and_in_order)
{
	enum { MANY = 150 };
	struct rig r;
	uint32_t n = 0;

	rig_open(&r, RIG_SELF, NULL);
	r.name = "long queue";
	rig_do(&r, (struct rig_step)ACQUIRE(0, ID(1)));
	rig_do(&r, (struct rig_step)GRANT(0, ID(1), V(2), .flags = ZERO));
	rig_do(&r, (struct rig_step)READ(2, ID(5)));
	rig_do(&r, (struct rig_step)DOWNGRADE(0, 1, ID(1), V(2)));
	for (uint32_t i = 0; i < MANY; i++)
		rig_do(&r, (struct rig_step)READ(reader(i), ID(i + 1)));
	rig_do(&r, (struct rig_step)WRITE_BACK(0, ID(1), V(2), .fill = 7));
	rig_do(&r, (struct rig_step)STORED_ACK(0, ID(1), V(2)));
	rig_do(&r, (struct rig_step)GRANT(2, ID(5), V(2), STORE));
	for (uint32_t batch = 0; n < MANY; batch++) {
		if (batch) {
			/* Whoever comes between two batches waits behind the others. */
			rig_do(&r, (struct rig_step)READ(reader(MANY + batch), ID(1)));
			rig_do(&r, (struct rig_step)DO(TICK, .ns = 1));
		}
		for (uint32_t i = 0; i < WVM_TXN_BATCH && n < MANY; i++, n++)
			rig_do(&r, (struct rig_step)GRANT(reader(n), ID(n + 1), V(2), STORE));
	}
	rig_do(&r, (struct rig_step)GRANT(reader(MANY + 1), ID(1), V(2), STORE));
	rig_do(&r, (struct rig_step)GRANT(reader(MANY + 2), ID(1), V(2), STORE));
	rig_do(&r, (struct rig_step)DO(IDLE));
	rig_close(&r);
}
END_TEST

/* Whatever arrives while the rest of a long queue waits for its batch. */
START_TEST(an_owner_may_write_back_between_two_batches)
{
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	r.name = "between batches";
	rig_do(&r, (struct rig_step)ACQUIRE(0, ID(1)));
	rig_do(&r, (struct rig_step)GRANT(0, ID(1), V(2), .flags = ZERO));
	rig_do(&r, (struct rig_step)ACQUIRE(2, ID(5)));
	rig_do(&r, (struct rig_step)FETCH(0, 1, ID(1), V(2)));
	/* All of these are late copies by the time they are looked at, so none is answered. */
	for (uint32_t i = 0; i < WVM_TXN_BATCH + 6; i++)
		rig_do(&r, (struct rig_step)READ(reader(i), ID(i + 1)));
	rig_do(&r, (struct rig_step)NOT_HELD(0, ID(1), V(2)));
	rig_do(&r, (struct rig_step)GRANT(2, ID(5), V(3), .flags = ZERO));
	rig_do(&r, (struct rig_step)DOWNGRADE(2, 2, ID(5), V(3)));
	rig_do(&r, (struct rig_step)NOT_HELD(2, ID(5), V(3)));
	for (uint32_t i = 0; i < WVM_TXN_BATCH + 1; i++)
		rig_do(&r, (struct rig_step)GRANT(reader(i), ID(i + 1), V(1), .flags = ZERO));
	/* The entry waits for its next batch: nothing of the following is part of it. */
	rig_do(&r, (struct rig_step)INVALIDATED(reader(0), ID(1), V(1), STALE));
	rig_do(&r, (struct rig_step)NOT_HELD(reader(0), ID(1), V(1), STALE));
	rig_do(&r, (struct rig_step)DO(TICK, .ns = 1));
	for (uint32_t i = WVM_TXN_BATCH + 1; i < WVM_TXN_BATCH + 6; i++)
		rig_do(&r, (struct rig_step)GRANT(reader(i), ID(i + 1), V(1), .flags = ZERO));
	rig_do(&r, (struct rig_step)DO(IDLE));
	rig_close(&r);
}
END_TEST

/* A transaction that lasts while thousands of ids are given out asks under a new one. */
START_TEST(an_old_transaction_asks_under_a_new_id)
{
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	r.name = "old transaction";
	rig_do(&r, (struct rig_step)ACQUIRE(A, ID(1)));
	rig_do(&r, (struct rig_step)GRANT(A, ID(1), V(2), .flags = ZERO));
	rig_do(&r, (struct rig_step)READ(B, ID(5)));
	rig_do(&r, (struct rig_step)DOWNGRADE(A, 1, ID(1), V(2)));
	for (uint32_t i = 0; i < WVM_SEEN_BITS / 2; i++)
		wvm_core_next_id(r.core);
	rig_do(&r, (struct rig_step)RETRY);
	rig_do(&r, (struct rig_step)DOWNGRADE(A, 1, ID(1), V(2)));
	wvm_core_next_id(r.core);
	rig_do(&r, (struct rig_step)DO(TICK));
	rig_do(&r, (struct rig_step)DOWNGRADE(A, WVM_SEEN_BITS / 2 + 3, ID(1), V(2)));
	rig_close(&r);
}
END_TEST

static const struct {
	const char *what;
	enum wvm_drop drop;
} foreign[] = {
	{"another epoch", WVM_DROP_EPOCH},          {"a stranger", WVM_DROP_NODE},
	{"for another node", WVM_DROP_NODE},        {"an unknown VM", WVM_DROP_VM},
	{"an address within a page", WVM_DROP_GPA}, {"an address beyond the guest", WVM_DROP_GPA},
	{"the highest address", WVM_DROP_GPA},
};

static void spoil(struct wvm_msg *m, int how)
{
	switch (how) {
	case 0: m->epoch++; break;
	case 1: m->src = RIG_VNODE(RIG_MEMBERS); break;
	case 2: m->dst = RIG_VNODE(A); break;
	case 3: m->vm_id++; break;
	case 4: m->gpa += 64; break;
	case 5: m->gpa = (uint64_t)RIG_PAGES << WVM_PAGE_SHIFT; break;
	default: m->gpa = WVM_GPA_MAX - WVM_PAGE_BYTES; break;
	}
}

START_TEST(a_message_that_is_not_for_this_page_or_node_changes_nothing)
{
	static const uint8_t types[] = {
		WVM_MSG_MEM_READ,       WVM_MSG_MEM_ACQUIRE, WVM_MSG_MEM_ACK,
		WVM_MSG_INVALIDATE,     WVM_MSG_DOWNGRADE,   WVM_MSG_FETCH_AND_INVALIDATE,
		WVM_MSG_WRITE_BACK,     WVM_MSG_NOT_HELD,    WVM_MSG_LOST,
		WVM_MSG_INVALIDATE_ACK, WVM_MSG_WRONG_HOME,  WVM_MSG_WRITE_BACK_ACK,
	};
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	for (unsigned int i = 0; i < sizeof(types); i++) {
		struct rig_step s = {.type = types[i], .member = A, .request = ID(1)};
		struct wvm_msg m = rig_msg(&s);

		spoil(&m, _i);
		ck_assert_int_eq(wvm_core_message(r.core, r.now_ns, &m, NULL), foreign[_i].drop);
		ck_assert_ptr_null(wvm_core_action(r.core));
	}
	ck_assert_uint_eq(wvm_core_stats(r.core)->drops[foreign[_i].drop], sizeof(types));
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, every_transition_does_what_its_case_says, 0, CASES(groups));
	tcase_add_loop_test(tc, a_full_pool_drops_and_recovers, 0, CASES(without_room));
	tcase_add_loop_test(tc, many_sharers_are_invalidated_in_batches, 0, 5);
	tcase_add_test(tc, the_last_of_many_sharers_is_asked_again_alone);
	tcase_add_test(tc, without_blocks_all_sharers_give_way_to_a_new_one);
	tcase_add_test(tc, a_long_queue_is_answered_in_batches_and_in_order);
	tcase_add_test(tc, an_owner_may_write_back_between_two_batches);
	tcase_add_test(tc, an_old_transaction_asks_under_a_new_id);
	tcase_add_loop_test(tc, a_message_that_is_not_for_this_page_or_node_changes_nothing, 0,
			    CASES(foreign));
}

int main(void)
{
	return rig_main("home", add);
}

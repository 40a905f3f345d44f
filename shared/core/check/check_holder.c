/* The holder's and the requester's state machines: one core driven by hand. */
#include "shared/core/check/rig.h"

/* The home of the page under test; the core is RIG_SELF, the holder. */
#define H 3u
#define X 4u /* some other member */

#define ZERO   WVM_MSG_ZERO
#define KEEP   WVM_MSG_KEEP
#define HELD   WVM_MSG_HELD
#define FAULTY WVM_MSG_ERROR
#define US     UINT64_C(1000)
#define MS     UINT64_C(1000000)

/* Local programs: bit 0 is client 0. */
#define LOAD(client, ...)  DO(FAULT, .slot = client, __VA_ARGS__)
#define STORE(client, ...) DO(FAULT, .slot = client, .flags = 1, __VA_ARGS__)
#define BY(mask)           .waiters = mask

/* Requests of this core, by the counter of their id, and the answers. */
#define READ(n, ...)     SENT(MEM_READ, H, .request = OWN(n), __VA_ARGS__)
#define ACQUIRE(n, ...)  SENT(MEM_ACQUIRE, H, .request = OWN(n), __VA_ARGS__)
#define UPGRADE(n, v)    ACQUIRE(n, .flags = HELD, .version = v)
#define GRANT(n, v, ...) IN(MEM_ACK, H, .request = OWN(n), .version = v, __VA_ARGS__)

/* What the home asks for (its transaction, the grant, the version), and the answers. */
#define ASK(type_, txn, g, v, ...) \
	IN(type_, H, .request = ID(txn), .grant = g, .version = v, __VA_ARGS__)
#define INVALIDATE(txn, n, v, ...) ASK(INVALIDATE, txn, OWN(n), v, __VA_ARGS__)
#define DOWNGRADE(txn, n, v, ...)  ASK(DOWNGRADE, txn, OWN(n), v, __VA_ARGS__)
#define FETCH(txn, n, v, ...)      ASK(FETCH_AND_INVALIDATE, txn, OWN(n), v, __VA_ARGS__)
#define ANSWER(type_, txn, g, v, ...) \
	SENT(type_, H, .request = ID(txn), .grant = g, .version = v, __VA_ARGS__)
#define INVALIDATED(txn, n, v) ANSWER(INVALIDATE_ACK, txn, OWN(n), v)
#define NOT_HELD(txn, n, v)    ANSWER(NOT_HELD, txn, OWN(n), v)
#define BACK_KEPT(txn, n, v) \
	ANSWER(WRITE_BACK, txn, OWN(n), v, .flags = KEEP, .source = WVM_DATA_RAM)
#define BACK_SAVED(txn, n, v) ANSWER(WRITE_BACK, txn, OWN(n), v, .source = WVM_DATA_OUTBOX)
#define STORED(n, v, ...) \
	IN(WRITE_BACK_ACK, H, .request = ID(1), .grant = OWN(n), .version = v, __VA_ARGS__)
#define STALE LESS(STALE)

#define INVALID_           DO(HELD, .state = WVM_HELD_INVALID)
#define SHARED(n, v)       DO(HELD, .state = WVM_HELD_SHARED, .grant = OWN(n), .version = v)
#define MODIFIED(n, v)     DO(HELD, .state = WVM_HELD_MODIFIED, .grant = OWN(n), .version = v)
#define PROTECT_PUNCH      ACT(PROTECT), ACT(PUNCH)
#define PROTECT_SAVE_PUNCH ACT(PROTECT), ACT(SAVE), ACT(PUNCH)
#define AFTER_HOLD         DO(PASS, .ns = 0), DO(CALL, .call = let_hold_end)
#define RETRY              DO(TICK, .ns = 26 * MS)

static void let_hold_end(struct rig *r)
{
	r->now_ns += r->params.times.hold_max_ns;
}

static void pass_a_retry(struct rig *r)
{
	r->now_ns += 26 * MS;
}

static void to_the_deadline(struct rig *r)
{
	r->now_ns += r->params.times.deadline_ns;
}

static void half_the_deadline(struct rig *r)
{
	r->now_ns += r->params.times.deadline_ns / 2;
}

/* The longest that the first retry may take goes by. */
#define PAST_RETRY DO(CALL, .call = pass_a_retry), DO(TICK)

/* How page 0 gets into a state. Request 1, granted V(5). */
#define ASKED_S LOAD(0), READ(1)
#define ASKED_M STORE(0), ACQUIRE(1)
#define HAS_S   ASKED_S, GRANT(1, V(5), .fill = 0x55), ACT(INSTALL, BY(1), .fill = 0x55)
#define HAS_M \
	ASKED_M, GRANT(1, V(5), .fill = 0x55), ACT(INSTALL, BY(1), .fill = 0x55, .writable = true)
#define KEPT      HAS_M, AFTER_HOLD, DOWNGRADE(1, 1, V(5)), ACT(PROTECT), BACK_KEPT(1, 1, V(5))
#define SAVED     HAS_M, AFTER_HOLD, FETCH(1, 1, V(5)), PROTECT_SAVE_PUNCH, BACK_SAVED(1, 1, V(5))
#define UPGRADING HAS_S, STORE(1), UPGRADE(2, V(5))

static const struct rig_case faults[] = {
	CASE("a load asks for a Shared copy, and gets it", HAS_S, SHARED(1, V(5)), DO(IDLE),
	     COUNTED(faults_read, 1), COUNTED(grants_shared, 1), COUNTED(requests_sent, 1),
	     COUNTED(pages_shared, 1)),
	CASE("a store asks for the page Modified, and gets it", HAS_M, MODIFIED(1, V(5)), DO(IDLE),
	     COUNTED(faults_write, 1), COUNTED(grants_modified, 1), COUNTED(pages_modified, 1)),
	CASE("a zero page is installed as zeros, Shared", ASKED_S, GRANT(1, V(5), .flags = ZERO),
	     ACT(INSTALL, BY(1)), SHARED(1, V(5)), COUNTED(grants_zero, 1)),
	CASE("a zero page is installed as zeros, Modified", ASKED_M, GRANT(1, V(5), .flags = ZERO),
	     ACT(INSTALL, BY(1), .writable = true), MODIFIED(1, V(5))),
	CASE("a load of a Shared page wakes", HAS_S, LOAD(3), ACT(WAKE, BY(8)),
	     COUNTED(faults_local, 1)),
	CASE("a load of a Modified page lifts", HAS_M, LOAD(3), ACT(LIFT, BY(8))),
	CASE("a store to a Modified page lifts for its program", HAS_M, STORE(63),
	     ACT(LIFT, BY(UINT64_C(1) << 63)), COUNTED(faults_local, 1)),
	CASE("a store to a Shared page upgrades without data", UPGRADING,
	     GRANT(2, V(6), .flags = HELD), ACT(LIFT, BY(2)), MODIFIED(2, V(6)),
	     COUNTED(grants_upgrade, 1)),
	CASE("an upgrade may come with data: the old copy goes first", UPGRADING,
	     GRANT(2, V(6), .fill = 0x66), PROTECT_PUNCH,
	     ACT(INSTALL, BY(2), .fill = 0x66, .writable = true), MODIFIED(2, V(6))),
	CASE("all who wait for a Shared copy wait once", LOAD(0), READ(1), LOAD(1), LOAD(0),
	     GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(3), .fill = 1)),
	CASE("readers wait for a Modified copy that is under way", ASKED_M, LOAD(1), LOAD(2),
	     GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(7), .fill = 1, .writable = true)),
	CASE("a writer that comes while a read is under way upgrades after it", ASKED_S, STORE(1),
	     GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1), UPGRADE(2, V(5)),
	     SHARED(1, V(5)), GRANT(2, V(6), .flags = HELD), ACT(LIFT, BY(2)), MODIFIED(2, V(6)),
	     DO(IDLE)),
	CASE("a load during an upgrade finds the Shared copy", UPGRADING, LOAD(2),
	     ACT(WAKE, BY(4))),
	CASE("pages are asked for by themselves", ASKED_S, LOAD(1, .page = 7), READ(2, .page = 7),
	     GRANT(2, V(9), .fill = 2, .page = 7), ACT(INSTALL, BY(2), .fill = 2, .page = 7),
	     GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1)),
	CASE("nothing is installed for a program that is gone", LOAD(0), READ(1), LOAD(1),
	     DO(GONE, .slot = 1), GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1)),
	CASE("a page asked for by a program that is gone is held all the same", ASKED_M,
	     DO(GONE, .slot = 0), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(0), .fill = 1, .writable = true), MODIFIED(1, V(5))),
};

static const struct rig_case grants[] = {
	CASE("a grant that nobody asked for", GRANT(1, V(5), .fill = 1, STALE), INVALID_,
	     COUNTED(grants_dropped, 1)),
	CASE("a grant of another id", ASKED_S, GRANT(2, V(5), .fill = 1, STALE),
	     IN(MEM_ACK, H, .request = ID(1), .version = V(5), .fill = 1, STALE), INVALID_),
	CASE("a second copy of a grant", HAS_S, GRANT(1, V(5), .fill = 2, STALE), SHARED(1, V(5))),
	CASE("a second copy of a Modified grant", HAS_M, GRANT(1, V(5), .fill = 2, STALE),
	     MODIFIED(1, V(5))),
	CASE("a grant from another node than the page's home", ASKED_S,
	     IN(MEM_ACK, X, .request = OWN(1), .version = V(5), .fill = 1, LESS(NODE)), INVALID_),
	CASE("a grant without bytes", ASKED_S, GRANT(1, V(5), LESS(SEGMENT)), INVALID_,
	     GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1)),
	CASE("a copy that was not held cannot be granted: asked again under a new id", ASKED_M,
	     GRANT(1, V(5), .flags = HELD, STALE), ACQUIRE(2), INVALID_,
	     GRANT(1, V(5), .fill = 1, STALE), GRANT(2, V(6), .fill = 2),
	     ACT(INSTALL, BY(1), .fill = 2, .writable = true)),
	CASE("a read is not granted without a copy", ASKED_S, GRANT(1, V(5), .flags = HELD, STALE),
	     READ(2), INVALID_),
	CASE("an upgrade whose copy went meanwhile is asked for anew", UPGRADING, AFTER_HOLD,
	     INVALIDATE(1, 1, V(5)), PROTECT_PUNCH, INVALIDATED(1, 1, V(5)),
	     GRANT(2, V(6), .flags = HELD, STALE), ACQUIRE(3), GRANT(3, V(7), .fill = 3),
	     ACT(INSTALL, BY(2), .fill = 3, .writable = true)),
	CASE("a Modified grant at or below what was given up is not taken", HAS_S, AFTER_HOLD,
	     INVALIDATE(1, 1, V(5)), PROTECT_PUNCH, INVALIDATED(1, 1, V(5)), STORE(0), ACQUIRE(2),
	     GRANT(2, V(5), .fill = 1, STALE), ACQUIRE(3), GRANT(3, V(4), .fill = 1, STALE),
	     ACQUIRE(4), GRANT(4, V(6), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1, .writable = true), COUNTED(grants_dropped, 2),
	     COUNTED(requests_renewed, 2)),
	CASE("a read below what was given up is not taken", HAS_S, AFTER_HOLD,
	     INVALIDATE(1, 1, V(5)), PROTECT_PUNCH, INVALIDATED(1, 1, V(5)), LOAD(0), READ(2),
	     GRANT(2, V(4), .fill = 1, STALE), READ(3)),
	CASE("a read may bring back what was given up for nothing", HAS_S, AFTER_HOLD,
	     INVALIDATE(1, 1, V(5)), PROTECT_PUNCH, INVALIDATED(1, 1, V(5)), LOAD(0), READ(2),
	     GRANT(2, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1), SHARED(2, V(5))),
	CASE("a Modified grant ends what was asked of the Shared copy before it", UPGRADING,
	     INVALIDATE(1, 1, V(5)), DO(TIMED), GRANT(2, V(6), .flags = HELD), ACT(LIFT, BY(2)),
	     DO(IDLE), MODIFIED(2, V(6)), DOWNGRADE(2, 2, V(6)), DO(TICK, .ns = 100 * US),
	     ACT(PROTECT), BACK_KEPT(2, 2, V(6))),
	CASE("an error is the page's loss", ASKED_S, LOAD(1), GRANT(1, 0, .flags = FAULTY),
	     ACT(FAIL, BY(3), .state = WVM_FAIL_LOST), INVALID_, DO(IDLE),
	     COUNTED(faults_failed, 1), LOAD(0), READ(2)),
	CASE("an error on an upgrade takes the Shared copy along", UPGRADING,
	     GRANT(2, 0, .flags = FAULTY), PROTECT_PUNCH, ACT(FAIL, BY(2), .state = WVM_FAIL_LOST),
	     INVALID_, DO(IDLE)),
	CASE("another id's error is none", ASKED_S, GRANT(7, 0, .flags = FAULTY, STALE), DO(TIMED)),
	CASE("wrong home: the answer is not ours to act on", ASKED_S,
	     IN(WRONG_HOME, H, .request = OWN(1), LESS(EPOCH)), DO(TIMED)),
};

static const struct rig_case demands[] = {
	CASE("a Shared copy goes: protected, punched, acknowledged", HAS_S, AFTER_HOLD,
	     INVALIDATE(1, 1, V(5)), PROTECT_PUNCH, INVALIDATED(1, 1, V(5)), INVALID_, DO(IDLE),
	     COUNTED(pages_shared, 0)),
	CASE("an acknowledgement that was lost is given again", HAS_S, AFTER_HOLD,
	     INVALIDATE(1, 1, V(5)), PROTECT_PUNCH, INVALIDATED(1, 1, V(5)), INVALIDATE(2, 1, V(5)),
	     INVALIDATED(2, 1, V(5))),
	CASE("an owner keeps a Shared copy and writes it back", KEPT, SHARED(1, V(5)), DO(TIMED),
	     STORED(1, V(5)), DO(IDLE), SHARED(1, V(5)), COUNTED(write_backs, 1)),
	CASE("an owner gives the page up and writes it back", SAVED, INVALID_, DO(TIMED),
	     STORED(1, V(5)), DO(IDLE), COUNTED(write_backs, 1)),
	CASE("a kept copy is written back until it is acknowledged", KEPT, RETRY,
	     BACK_KEPT(1, 1, V(5)), DO(TICK), BACK_KEPT(1, 1, V(5)),
	     DO(CALL, .call = to_the_deadline), DO(TICK), BACK_KEPT(1, 1, V(5)), STORED(1, V(5)),
	     DO(IDLE), COUNTED(write_backs_retried, 3)),
	CASE("a saved copy is written back until it is acknowledged", SAVED, RETRY,
	     BACK_SAVED(1, 1, V(5)), DO(CALL, .call = to_the_deadline), DO(TICK),
	     BACK_SAVED(1, 1, V(5)), STORED(1, V(5)), DO(IDLE)),
	CASE("write-backs back off", SAVED, DO(PASS, .ns = 4 * MS), DO(TICK, .ns = 4 * MS),
	     BACK_SAVED(1, 1, V(5)), DO(PASS, .ns = 8 * MS), DO(TICK, .ns = 8 * MS),
	     BACK_SAVED(1, 1, V(5)), DO(PASS, .ns = 16 * MS), DO(TICK, .ns = 16 * MS),
	     BACK_SAVED(1, 1, V(5))),
	CASE("a downgrade that is repeated is answered with the same bytes", KEPT,
	     DOWNGRADE(2, 1, V(5)), BACK_KEPT(2, 1, V(5)), RETRY, BACK_KEPT(2, 1, V(5))),
	CASE("a fetch that is repeated is answered with the same bytes", SAVED, FETCH(2, 1, V(5)),
	     BACK_SAVED(2, 1, V(5)), RETRY, BACK_SAVED(2, 1, V(5))),
	CASE("a fetch after an answered downgrade takes the kept copy", KEPT, FETCH(2, 1, V(5)),
	     ACT(SAVE), ACT(PUNCH), BACK_SAVED(2, 1, V(5)), INVALID_, STORED(1, V(5)), DO(IDLE)),
	CASE("a downgrade after an answered fetch gets the saved bytes", SAVED,
	     DOWNGRADE(2, 1, V(5)), BACK_SAVED(2, 1, V(5)), INVALID_),
	CASE("an invalidation says that the kept copy's bytes have arrived", KEPT,
	     INVALIDATE(2, 1, V(5)), PROTECT_PUNCH, INVALIDATED(2, 1, V(5)), INVALID_, DO(IDLE)),
	CASE("an invalidation says that the saved bytes have arrived", SAVED,
	     INVALIDATE(2, 1, V(5)), INVALIDATED(2, 1, V(5)), DO(IDLE)),
	CASE("a downgrade of a sharer is late", HAS_S, DOWNGRADE(1, 1, V(5), STALE),
	     FETCH(1, 1, V(5), STALE), SHARED(1, V(5))),
	CASE("an invalidation of an owner is late", HAS_M, INVALIDATE(1, 1, V(5), STALE),
	     MODIFIED(1, V(5))),
	CASE("after the acknowledgement a downgrade is late, a fetch, too", KEPT, STORED(1, V(5)),
	     DOWNGRADE(2, 1, V(5), STALE), FETCH(2, 1, V(5), STALE), SHARED(1, V(5))),
	CASE("acknowledgements name the grant, the version and come from the home", SAVED,
	     STORED(2, V(5), STALE), STORED(1, V(4), STALE), STORED(1, V(6), STALE),
	     IN(WRITE_BACK_ACK, X, .request = ID(1), .grant = OWN(1), .version = V(5), LESS(NODE)),
	     DO(TIMED), STORED(1, V(5)), DO(IDLE), STORED(1, V(5), STALE)),
	CASE("an acknowledgement of what is held and not written back", HAS_M,
	     STORED(1, V(5), STALE), MODIFIED(1, V(5))),
	CASE("only the home may ask", HAS_M, AFTER_HOLD,
	     IN(FETCH_AND_INVALIDATE, X, .request = ID(1), .grant = OWN(1), .version = V(5),
		LESS(NODE)),
	     MODIFIED(1, V(5))),
};

/* What the home means is not what is held. */
static const struct rig_case others[] = {
	CASE("a sharer never granted acknowledges", INVALIDATE(1, 9, V(4)), INVALIDATED(1, 9, V(4)),
	     INVALID_),
	CASE("a grant of this boot that was never taken is not held", DOWNGRADE(1, 9, V(4)),
	     NOT_HELD(1, 9, V(4)), FETCH(2, 9, V(4)), NOT_HELD(2, 9, V(4)), INVALID_),
	CASE("a grant of an earlier boot is lost",
	     ASK(DOWNGRADE, 1, RIG_ID(RIG_BOOT - 1, RIG_SHARD, 9), V(4)),
	     ANSWER(LOST, 1, RIG_ID(RIG_BOOT - 1, RIG_SHARD, 9), V(4)),
	     ASK(FETCH_AND_INVALIDATE, 2, RIG_ID(RIG_BOOT - 1, RIG_SHARD, 9), V(4)),
	     ANSWER(LOST, 2, RIG_ID(RIG_BOOT - 1, RIG_SHARD, 9), V(4))),
	CASE("a Shared copy of an earlier boot is gone",
	     ASK(INVALIDATE, 1, RIG_ID(RIG_BOOT - 1, RIG_SHARD, 9), V(4)),
	     ANSWER(INVALIDATE_ACK, 1, RIG_ID(RIG_BOOT - 1, RIG_SHARD, 9), V(4))),
	CASE("a grant of a boot to come is nobody's",
	     ASK(DOWNGRADE, 1, RIG_ID(RIG_BOOT + 1, RIG_SHARD, 1), V(4), STALE),
	     ASK(INVALIDATE, 1, RIG_ID(RIG_BOOT + 1, RIG_SHARD, 1), V(4), STALE)),
	CASE("an older grant of a held page is over", HAS_M, FETCH(1, 9, V(4)),
	     NOT_HELD(1, 9, V(4)), MODIFIED(1, V(5)), INVALIDATE(2, 9, V(4)),
	     INVALIDATED(2, 9, V(4)), MODIFIED(1, V(5))),
	CASE("the held grant under an older version is over", HAS_M, FETCH(1, 1, V(4)),
	     NOT_HELD(1, 1, V(4)), MODIFIED(1, V(5))),
	CASE("another grant under the held version is over", HAS_M, FETCH(1, 9, V(5)),
	     NOT_HELD(1, 9, V(5)), MODIFIED(1, V(5))),
	CASE("no home grants past an owner", HAS_M, FETCH(1, 9, V(6), STALE),
	     INVALIDATE(1, 9, V(6), STALE), FETCH(1, 1, V(6), STALE), MODIFIED(1, V(5))),
	CASE("an older grant of a Shared page is over, and the page stays", HAS_S,
	     INVALIDATE(1, 9, V(5)), INVALIDATED(1, 9, V(5)), SHARED(1, V(5)), FETCH(1, 9, V(4)),
	     NOT_HELD(1, 9, V(4)), SHARED(1, V(5))),
	CASE("a Shared copy that the home has forgotten goes", HAS_S, INVALIDATE(1, 9, V(6)),
	     PROTECT_PUNCH, INVALIDATED(1, 9, V(6)), INVALID_),
	CASE("… and also when the home thinks that this is an owner", HAS_S, DOWNGRADE(1, 9, V(6)),
	     PROTECT_PUNCH, NOT_HELD(1, 9, V(6)), INVALID_),
	CASE("… and with it what had been asked of it", HAS_S, INVALIDATE(1, 1, V(5)),
	     INVALIDATE(2, 9, V(6)), PROTECT_PUNCH, INVALIDATED(2, 9, V(6)), DO(IDLE), INVALID_),
	CASE("while bytes are under way, an older grant is over", SAVED, FETCH(2, 9, V(4)),
	     NOT_HELD(2, 9, V(4)), DO(TIMED)),
};

/* Small messages overtake pages. */
static const struct rig_case early[] = {
	CASE("a downgrade waits for its grant, and for the hold time", ASKED_M,
	     DOWNGRADE(1, 1, V(5)), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1, .writable = true), MODIFIED(1, V(5)),
	     DO(PASS, .ns = 99 * US), DO(TICK, .ns = US), ACT(PROTECT), BACK_KEPT(1, 1, V(5)),
	     SHARED(1, V(5)), COUNTED(demands_early, 1), COUNTED(demands_held, 1)),
	CASE("a fetch waits for its grant", ASKED_M, FETCH(1, 1, V(5)), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1, .writable = true), DO(TICK, .ns = 100 * US),
	     PROTECT_SAVE_PUNCH, BACK_SAVED(1, 1, V(5)), INVALID_),
	CASE("an invalidation waits for its grant", ASKED_S, INVALIDATE(1, 1, V(5)),
	     GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1), SHARED(1, V(5)),
	     DO(TICK, .ns = 100 * US), PROTECT_PUNCH, INVALIDATED(1, 1, V(5)), INVALID_, DO(IDLE)),
	CASE("an invalidation waits even where a writer waits, too", ASKED_S, STORE(1),
	     INVALIDATE(1, 1, V(5)), GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1),
	     UPGRADE(2, V(5)), DO(TICK, .ns = 100 * US), PROTECT_PUNCH, INVALIDATED(1, 1, V(5)),
	     GRANT(2, V(7), .fill = 2), ACT(INSTALL, BY(2), .fill = 2, .writable = true)),
	CASE("asked twice, it waits on: the page may be slower than the home's retries", ASKED_M,
	     DOWNGRADE(1, 1, V(5)), DOWNGRADE(1, 1, V(5)), FETCH(2, 1, V(5)), FETCH(2, 1, V(5)),
	     COUNTED(demands_early, 1), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1, .writable = true), DO(TICK, .ns = 100 * US),
	     PROTECT_SAVE_PUNCH, BACK_SAVED(2, 1, V(5))),
	CASE("asked again after the time of a retry, the owner-to-be refuses, and asks anew",
	     ASKED_M, FETCH(1, 1, V(5)), PAST_RETRY, ACQUIRE(1), FETCH(1, 1, V(5)),
	     NOT_HELD(1, 1, V(5)), ACQUIRE(2), GRANT(1, V(5), .fill = 1, STALE), INVALID_,
	     GRANT(2, V(6), .fill = 2), ACT(INSTALL, BY(1), .fill = 2, .writable = true),
	     MODIFIED(2, V(6)), DO(IDLE)),
	CASE("asked again after the time of a retry, the sharer-to-be acknowledges, and asks anew",
	     ASKED_S, INVALIDATE(1, 1, V(5)), PAST_RETRY, READ(1), INVALIDATE(1, 1, V(5)),
	     INVALIDATED(1, 1, V(5)), READ(2), GRANT(1, V(5), .fill = 1, STALE),
	     GRANT(2, V(6), .fill = 2), ACT(INSTALL, BY(1), .fill = 2), SHARED(2, V(6))),
	CASE("what was asked of the old id does not bind the new one", ASKED_M, FETCH(1, 1, V(5)),
	     PAST_RETRY, ACQUIRE(1), FETCH(1, 1, V(5)), NOT_HELD(1, 1, V(5)), ACQUIRE(2),
	     GRANT(2, V(6), .fill = 2), ACT(INSTALL, BY(1), .fill = 2, .writable = true), DO(IDLE)),
	/* The home has gone back to V(4); were that taken for older, the read would go on for ever.
	 */
	CASE("a refused grant's version is not one that was given up", ASKED_M, FETCH(1, 1, V(5)),
	     PAST_RETRY, ACQUIRE(1), FETCH(1, 1, V(5)), NOT_HELD(1, 1, V(5)), ACQUIRE(2),
	     DO(CALL, .call = to_the_deadline), DO(TICK),
	     ACT(FAIL, BY(1), .state = WVM_FAIL_DEADLINE), LOAD(0), READ(3),
	     GRANT(3, V(4), .fill = 2), ACT(INSTALL, BY(1), .fill = 2), SHARED(3, V(4)), DO(IDLE)),
	CASE("a demand of a newer version takes the place of an older one", ASKED_S,
	     INVALIDATE(1, 1, V(4)), INVALIDATE(2, 1, V(5)), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1), DO(TICK, .ns = 100 * US), PROTECT_PUNCH,
	     INVALIDATED(2, 1, V(5))),
	CASE("a demand of another version than the grant's is not for it", ASKED_S,
	     INVALIDATE(1, 1, V(4)), GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1),
	     DO(IDLE), SHARED(1, V(5))),
	CASE("an early demand of the wrong kind is dropped with its grant", ASKED_M,
	     INVALIDATE(1, 1, V(5)), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1, .writable = true), DO(IDLE), MODIFIED(1, V(5))),
	CASE("an upgrade's grant that was asked back twice takes the Shared copy along", UPGRADING,
	     DOWNGRADE(1, 2, V(6)), PAST_RETRY, UPGRADE(2, V(5)), DOWNGRADE(2, 2, V(6)),
	     PROTECT_PUNCH, NOT_HELD(2, 2, V(6)), ACQUIRE(3), INVALID_),
	CASE("a demand for another id is answered at once", ASKED_M, FETCH(1, 9, V(4)),
	     NOT_HELD(1, 9, V(4)), DO(TIMED), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1, .writable = true)),
};

static const struct rig_case holds[] = {
	CASE("a page is kept for the hold time", HAS_M, FETCH(1, 1, V(5)), MODIFIED(1, V(5)),
	     DO(PASS, .ns = 99 * US), DO(TICK, .ns = US), PROTECT_SAVE_PUNCH,
	     BACK_SAVED(1, 1, V(5)), COUNTED(demands_held, 1)),
	CASE("the last that was asked for is done", HAS_M, DOWNGRADE(1, 1, V(5)), FETCH(2, 1, V(5)),
	     DO(TICK, .ns = 100 * US), PROTECT_SAVE_PUNCH, BACK_SAVED(2, 1, V(5))),
	CASE("a shared page is kept for the hold time", HAS_S, INVALIDATE(1, 1, V(5)),
	     INVALIDATE(2, 1, V(5)), DO(PASS, .ns = 99 * US), DO(TICK, .ns = US), PROTECT_PUNCH,
	     INVALIDATED(2, 1, V(5)), DO(IDLE)),
	CASE("an upgrade starts the hold time anew", UPGRADING, AFTER_HOLD,
	     GRANT(2, V(6), .flags = HELD), ACT(LIFT, BY(2)), FETCH(1, 2, V(6)),
	     DO(PASS, .ns = 99 * US), DO(TICK, .ns = US), PROTECT_SAVE_PUNCH,
	     BACK_SAVED(1, 2, V(6))),
	CASE("a page that is pinned is not given up until it is unpinned", HAS_M,
	     DO(PIN, .drop = WVM_PIN_HELD), DO(PIN, .drop = WVM_PIN_HELD), AFTER_HOLD,
	     FETCH(1, 1, V(5)), DO(IDLE), DO(UNPIN), FETCH(2, 1, V(5)), MODIFIED(1, V(5)),
	     DO(UNPIN), DO(TICK, .ns = 1), PROTECT_SAVE_PUNCH, BACK_SAVED(2, 1, V(5))),
	CASE("a page that is unpinned within the hold time waits for its end", HAS_M,
	     DO(PIN, .drop = WVM_PIN_HELD), DOWNGRADE(1, 1, V(5)), DO(IDLE), DO(UNPIN),
	     DO(PASS, .ns = 99 * US), DO(TICK, .ns = US), ACT(PROTECT), BACK_KEPT(1, 1, V(5))),
	CASE("a pin that comes while the hold time runs defers what was asked", HAS_M,
	     FETCH(1, 1, V(5)), DO(PIN, .drop = WVM_PIN_HELD), DO(TICK, .ns = 100 * US), DO(IDLE),
	     MODIFIED(1, V(5)), DO(UNPIN), DO(TICK, .ns = 1), PROTECT_SAVE_PUNCH,
	     BACK_SAVED(1, 1, V(5))),
	CASE("a page that is not there is asked for, pinned", DO(PIN, .drop = WVM_PIN_ASKED),
	     ACQUIRE(1), GRANT(1, V(5), .fill = 1), ACT(INSTALL, .fill = 1, .writable = true),
	     ACT(PINNED), AFTER_HOLD, FETCH(1, 1, V(5)), MODIFIED(1, V(5)), DO(UNPIN),
	     DO(TICK, .ns = 1), PROTECT_SAVE_PUNCH, BACK_SAVED(1, 1, V(5))),
	CASE("a pin during a read upgrades after it", ASKED_S, DO(PIN, .drop = WVM_PIN_ASKED),
	     GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1), UPGRADE(2, V(5)),
	     GRANT(2, V(6), .flags = HELD), ACT(LIFT), ACT(PINNED)),
	CASE("a pin of a Shared page upgrades", HAS_S, DO(PIN, .drop = WVM_PIN_ASKED),
	     UPGRADE(2, V(5)), DO(PIN, .drop = WVM_PIN_ASKED), GRANT(2, V(6), .flags = HELD),
	     ACT(LIFT), ACT(PINNED), DO(UNPIN), DO(UNPIN)),
	CASE("a Shared page whose pin is under way may go", HAS_S, DO(PIN, .drop = WVM_PIN_ASKED),
	     UPGRADE(2, V(5)), AFTER_HOLD, INVALIDATE(1, 1, V(5)), PROTECT_PUNCH,
	     INVALIDATED(1, 1, V(5)), GRANT(2, V(7), .fill = 7),
	     ACT(INSTALL, .fill = 7, .writable = true), ACT(PINNED), AFTER_HOLD, FETCH(3, 2, V(7)),
	     DO(UNPIN), DO(TICK, .ns = 1), PROTECT_SAVE_PUNCH, BACK_SAVED(3, 2, V(7))),
	CASE("a pin that failed is none", DO(PIN, .drop = WVM_PIN_ASKED), ACQUIRE(1),
	     GRANT(1, 0, .flags = FAULTY), ACT(FAIL, .state = WVM_FAIL_LOST), STORE(0), ACQUIRE(2),
	     GRANT(2, V(6), .fill = 1), ACT(INSTALL, BY(1), .fill = 1, .writable = true),
	     AFTER_HOLD, FETCH(1, 2, V(6)), PROTECT_SAVE_PUNCH, BACK_SAVED(1, 2, V(6))),
};

static const struct rig_case blocked[] = {
	CASE("a store to a kept copy waits for the acknowledgement", KEPT, STORE(0),
	     COUNTED(requests_blocked, 1), DO(PASS, .ns = MS), STORED(1, V(5)), UPGRADE(2, V(5)),
	     GRANT(2, V(6), .flags = HELD), ACT(LIFT, BY(1)), DO(IDLE)),
	CASE("a load of a saved page waits for the acknowledgement", SAVED, LOAD(0),
	     STORED(1, V(5)), READ(2), GRANT(2, V(6), .fill = 1), ACT(INSTALL, BY(1), .fill = 1)),
	CASE("a store during a blocked load makes it an acquire", SAVED, LOAD(0), STORE(1),
	     STORED(1, V(5)), ACQUIRE(2), GRANT(2, V(6), .fill = 1),
	     ACT(INSTALL, BY(3), .fill = 1, .writable = true)),
	CASE("a load of a kept copy does not wait", KEPT, LOAD(0), ACT(WAKE, BY(1))),
	CASE("an invalidation in the place of the acknowledgement lets the request go", KEPT,
	     STORE(0), INVALIDATE(2, 1, V(5)), PROTECT_PUNCH, INVALIDATED(2, 1, V(5)), ACQUIRE(2),
	     DO(TIMED)),
	CASE("a fetch of the kept copy leaves the request blocked", KEPT, STORE(0),
	     FETCH(2, 1, V(5)), ACT(SAVE), ACT(PUNCH), BACK_SAVED(2, 1, V(5)), STORED(1, V(5)),
	     ACQUIRE(2)),
	CASE("a blocked request fails at its deadline; the saved bytes are kept", SAVED, LOAD(0),
	     DO(CALL, .call = to_the_deadline), DO(TICK), BACK_SAVED(1, 1, V(5)), DO(TICK),
	     ACT(FAIL, BY(1), .state = WVM_FAIL_DEADLINE), DO(TIMED), DO(TICK),
	     BACK_SAVED(1, 1, V(5)), STORED(1, V(5)), DO(IDLE)),
	CASE("a blocked upgrade fails at its deadline: the kept bytes go to the outbox", KEPT,
	     STORE(0), DO(CALL, .call = to_the_deadline), DO(TICK), BACK_KEPT(1, 1, V(5)), DO(TICK),
	     ACT(SAVE), ACT(PUNCH), ACT(FAIL, BY(1), .state = WVM_FAIL_DEADLINE), INVALID_,
	     DO(TIMED), DO(TICK), BACK_SAVED(1, 1, V(5)), LOAD(0), STORED(1, V(5)), READ(2)),
	CASE("bytes that are never acknowledged outlive every request for the page", SAVED, LOAD(0),
	     DO(CALL, .call = to_the_deadline), DO(TICK), BACK_SAVED(1, 1, V(5)), DO(TICK),
	     ACT(FAIL, BY(1), .state = WVM_FAIL_DEADLINE), LOAD(0),
	     DO(CALL, .call = to_the_deadline), DO(TICK), BACK_SAVED(1, 1, V(5)), DO(TICK),
	     ACT(FAIL, BY(1), .state = WVM_FAIL_DEADLINE), FETCH(8, 1, V(5)),
	     BACK_SAVED(8, 1, V(5)), STORED(1, V(5)), DO(IDLE)),
};

static const struct rig_case retried[] = {
	CASE("a request is sent again until it is answered, backing off", ASKED_S,
	     DO(PASS, .ns = 13 * MS), RETRY, READ(1), DO(PASS, .ns = 27 * MS),
	     DO(TICK, .ns = 25 * MS), READ(1), DO(PASS, .ns = 55 * MS), DO(TICK, .ns = 49 * MS),
	     READ(1), COUNTED(requests_retried, 3), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1), DO(IDLE)),
	CASE("the answer to what was sent once is a sample of the path", HAS_S, LOAD(0, .page = 1),
	     READ(2, .page = 1), DO(TICK, .ns = 8 * MS), READ(2, .page = 1)),
	CASE("the answer to a retried request is none (Karn)", ASKED_S, RETRY, READ(1),
	     GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1), LOAD(0, .page = 1),
	     READ(2, .page = 1), DO(PASS, .ns = 13 * MS)),
	CASE("a retry of an upgrade that has lost its copy does not claim it", UPGRADING,
	     AFTER_HOLD, INVALIDATE(1, 1, V(5)), PROTECT_PUNCH, INVALIDATED(1, 1, V(5)), RETRY,
	     ACQUIRE(2)),
	CASE("a request fails at the deadline", ASKED_S, DO(CALL, .call = to_the_deadline),
	     DO(TICK), ACT(FAIL, BY(1), .state = WVM_FAIL_DEADLINE), DO(IDLE), INVALID_,
	     COUNTED(faults_failed, 1), GRANT(1, V(5), .fill = 1, STALE), INVALID_),
	CASE("an upgrade fails at the deadline, and the Shared copy goes", UPGRADING,
	     DO(CALL, .call = to_the_deadline), DO(TICK), PROTECT_PUNCH,
	     ACT(FAIL, BY(2), .state = WVM_FAIL_DEADLINE), INVALID_, DO(IDLE)),
	CASE("an upgrade that fails in the hold time acknowledges what was asked", UPGRADING,
	     INVALIDATE(1, 1, V(5)), GRANT(2, 0, .flags = FAULTY), PROTECT_PUNCH,
	     INVALIDATED(1, 1, V(5)), ACT(FAIL, BY(2), .state = WVM_FAIL_LOST), DO(IDLE), INVALID_),
	CASE("a writer that came during the read has its own deadline, from when it came", ASKED_S,
	     DO(CALL, .call = half_the_deadline), STORE(1), DO(CALL, .call = half_the_deadline),
	     GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1), UPGRADE(2, V(5)),
	     DO(TICK, .ns = 66 * MS), UPGRADE(2, V(5)), DO(CALL, .call = half_the_deadline),
	     DO(TICK), PROTECT_PUNCH, ACT(FAIL, BY(2), .state = WVM_FAIL_DEADLINE), DO(IDLE)),
	CASE("a page that could not be installed is not held", ASKED_S, GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1), DO(FAILED), INVALID_, COUNTED(grants_undone, 1),
	     INVALIDATE(1, 1, V(5)), INVALIDATED(1, 1, V(5)), LOAD(0), READ(2),
	     GRANT(2, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1), SHARED(2, V(5))),
	CASE("asked for early and not installed: the owner says so at once", ASKED_M,
	     FETCH(1, 1, V(5)), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1, .writable = true), DO(FAILED), NOT_HELD(1, 1, V(5)),
	     DO(IDLE), INVALID_),
	CASE("asked for early and not installed: the sharer acknowledges at once", ASKED_S,
	     INVALIDATE(1, 1, V(5)), GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1),
	     DO(FAILED), INVALIDATED(1, 1, V(5)), DO(IDLE), INVALID_),
	CASE("an owner that could not install its page says so", ASKED_M, GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1, .writable = true), DO(FAILED), INVALID_,
	     FETCH(1, 1, V(5)), NOT_HELD(1, 1, V(5)), STORE(0), ACQUIRE(2)),
	CASE("a page that could not be installed for a reader is not upgraded in place", ASKED_S,
	     STORE(1), GRANT(1, V(5), .fill = 1), ACT(INSTALL, BY(1), .fill = 1), DO(FAILED),
	     UPGRADE(2, V(5)), GRANT(2, V(6), .flags = HELD, STALE), ACQUIRE(3),
	     GRANT(3, V(7), .fill = 1), ACT(INSTALL, BY(2), .fill = 1, .writable = true)),
};

#define ALL(table) table, CASES(table)
static const struct {
	const char *name;
	const struct rig_case *cases;
	int count;
} groups[] = {
	{"faults", ALL(faults)},   {"grants", ALL(grants)},   {"demands", ALL(demands)},
	{"others", ALL(others)},   {"early", ALL(early)},     {"holds", ALL(holds)},
	{"blocked", ALL(blocked)}, {"retried", ALL(retried)},
};

START_TEST(every_transition_does_what_its_case_says)
{
	for (int i = 0; i < groups[_i].count; i++) {
		struct rig r;

		rig_open(&r, H, NULL);
		rig_run(&r, &groups[_i].cases[i]);
		rig_close(&r);
	}
}
END_TEST

static void open_small(struct rig *r, uint32_t n)
{
	struct wvm_core_limits l = {.requests = n,
				    .txns = 4,
				    .waiting = 4,
				    .demands = n,
				    .partials = 4,
				    .holder_blocks = 4,
				    .peer_shards = 4};

	rig_open(r, H, &l);
}

static const struct rig_case without_room[] = {
	CASE("no slot for a request: the fault is sent back, and taken when it comes again",
	     ASKED_S, LOAD(1, .page = 1, .drop = true), COUNTED(faults_refused, 1),
	     DO(PIN, .page = 1, .drop = WVM_PIN_ROOM), STORE(1), GRANT(1, V(5), .fill = 1),
	     ACT(INSTALL, BY(1), .fill = 1), UPGRADE(2, V(5)), LOAD(1, .page = 1, .drop = true),
	     GRANT(2, V(6), .flags = HELD), ACT(LIFT, BY(2)), LOAD(1, .page = 1),
	     READ(3, .page = 1)),
	CASE("a slot comes back when a request fails", ASKED_S, GRANT(1, 0, .flags = FAULTY),
	     ACT(FAIL, BY(1), .state = WVM_FAIL_LOST), LOAD(0, .page = 1), READ(2, .page = 1)),
	CASE("no slot for a demand: dropped, and obeyed when it comes again", HAS_M,
	     STORE(0, .page = 1), ACQUIRE(2, .page = 1), GRANT(2, V(6), .page = 1, .fill = 1),
	     ACT(INSTALL, BY(1), .page = 1, .fill = 1, .writable = true), AFTER_HOLD,
	     FETCH(1, 1, V(5)), PROTECT_SAVE_PUNCH, BACK_SAVED(1, 1, V(5)),
	     FETCH(1, 2, V(6), .page = 1, LESS(ROOM)), STORED(1, V(5)),
	     FETCH(1, 2, V(6), .page = 1), ACT(PROTECT, .page = 1), ACT(SAVE, .page = 1),
	     ACT(PUNCH, .page = 1),
	     ANSWER(WRITE_BACK, 1, OWN(2), V(6), .source = WVM_DATA_OUTBOX, .page = 1)),
	CASE("what is not held is refused without a slot", SAVED, FETCH(1, 9, V(4), .page = 1),
	     ANSWER(NOT_HELD, 1, OWN(9), V(4), .page = 1)),
	CASE("an early demand without a slot is dropped; the home asks again", HAS_M,
	     STORE(0, .page = 1), ACQUIRE(2, .page = 1), AFTER_HOLD, FETCH(1, 1, V(5)),
	     PROTECT_SAVE_PUNCH, BACK_SAVED(1, 1, V(5)), FETCH(1, 2, V(6), .page = 1),
	     GRANT(2, V(6), .page = 1, .fill = 1),
	     ACT(INSTALL, BY(1), .page = 1, .fill = 1, .writable = true), STORED(1, V(5)), DO(IDLE),
	     AFTER_HOLD, FETCH(2, 2, V(6), .page = 1), ACT(PROTECT, .page = 1),
	     ACT(SAVE, .page = 1), ACT(PUNCH, .page = 1),
	     ANSWER(WRITE_BACK, 2, OWN(2), V(6), .source = WVM_DATA_OUTBOX, .page = 1)),
};

START_TEST(a_full_pool_drops_and_recovers)
{
	struct rig r;

	open_small(&r, 1);
	rig_run(&r, &without_room[_i]);
	rig_close(&r);
}
END_TEST

START_TEST(a_page_has_65535_pins_at_most)
{
	struct rig r;

	rig_open(&r, H, NULL);
	rig_run(&r, &(struct rig_case)CASE("pins", HAS_M));
	for (uint32_t i = 0; i < UINT16_MAX; i++)
		ck_assert_int_eq(wvm_core_pin(r.core, r.now_ns, 0, 0), WVM_PIN_HELD);
	ck_assert_int_eq(wvm_core_pin(r.core, r.now_ns, 0, 0), WVM_PIN_MANY);
	wvm_core_unpin(r.core, r.now_ns, 0, 0);
	ck_assert_int_eq(wvm_core_pin(r.core, r.now_ns, 0, 0), WVM_PIN_HELD);
	rig_close(&r);
}
END_TEST

/* As many as may wait for their pins, all asked for: more actions than one input has room for. */
START_TEST(many_pages_may_be_unpinned_at_once)
{
	enum { MANY = 512 };
	struct wvm_core_limits l;
	struct rig r;
	uint32_t saved = 0;

	wvm_core_default_limits(&l);
	l.demands = 8 * MANY;
	rig_open(&r, H, &l);
	r.name = "unpin many";
	for (uint32_t i = 0; i < MANY; i++) {
		rig_do(&r, (struct rig_step)DO(PIN, .page = i, .drop = WVM_PIN_ASKED));
		rig_do(&r, (struct rig_step)ACQUIRE(i + 1, .page = i));
		rig_do(&r, (struct rig_step)GRANT(i + 1, V(5 + i), .flags = ZERO, .page = i));
		rig_do(&r, (struct rig_step)ACT(INSTALL, .writable = true, .page = i));
		rig_do(&r, (struct rig_step)ACT(PINNED, .page = i));
		rig_do(&r, (struct rig_step)FETCH(1, i + 1, V(5 + i), .page = i));
	}
	let_hold_end(&r);
	for (uint32_t i = 0; i < MANY; i++)
		wvm_core_unpin(r.core, r.now_ns, 0, i);
	while (wvm_core_deadline(r.core) <= r.now_ns) {
		const struct wvm_action *a;

		wvm_core_tick(r.core, r.now_ns);
		while ((a = wvm_core_action(r.core)))
			saved += a->kind == WVM_ACT_SAVE;
	}
	ck_assert_uint_eq(saved, MANY);
	rig_close(&r);
}
END_TEST

/* Fought over: each loss that is refaulted within 1 ms doubles the hold, up to 10 ms. */
static uint64_t lose_and_refault(struct rig *r, uint32_t round, uint64_t wait_ns)
{
	uint64_t granted;

	r->now_ns += wait_ns;
	rig_do(r, (struct rig_step)STORE(0));
	rig_do(r, (struct rig_step)ACQUIRE(round));
	rig_do(r, (struct rig_step)GRANT(round, V(10 + round), .flags = ZERO));
	rig_do(r, (struct rig_step)ACT(INSTALL, BY(1), .writable = true));
	granted = r->now_ns;
	rig_do(r, (struct rig_step)FETCH(1, round, V(10 + round)));
	rig_do(r, (struct rig_step)DO(TICK));
	rig_do(r, (struct rig_step)ACT(PROTECT));
	rig_do(r, (struct rig_step)ACT(SAVE));
	rig_do(r, (struct rig_step)ACT(PUNCH));
	rig_do(r, (struct rig_step)BACK_SAVED(1, round, V(10 + round)));
	rig_do(r, (struct rig_step)STORED(round, V(10 + round)));
	return r->now_ns - granted;
}

START_TEST(the_hold_doubles_while_a_page_is_fought_over)
{
	static const uint64_t hold_us[] = {100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000};
	uint32_t round = 0;
	struct rig r;

	rig_open(&r, H, NULL);
	r.name = "hold";
	for (unsigned int i = 0; i < CASES(hold_us); i++)
		ck_assert_uint_eq(lose_and_refault(&r, ++round, 500 * US), hold_us[i] * US);
	/* A thousand more do not overflow anything. */
	for (unsigned int i = 0; i < 1000; i++)
		ck_assert_uint_eq(lose_and_refault(&r, ++round, 999 * US), 10 * MS);
	/* Left alone for a while, it is as any other page. */
	ck_assert_uint_eq(lose_and_refault(&r, ++round, 1000 * US), 100 * US);
	ck_assert_uint_eq(lose_and_refault(&r, ++round, 500 * US), 200 * US);
	rig_close(&r);
}
END_TEST

/* Takes all actions of one tick. True when it ended the request for `page`. */
static bool tick_fails(struct rig *r, uint64_t page)
{
	const struct wvm_action *a;
	bool failed = false;

	r->now_ns = wvm_core_deadline(r->core);
	wvm_core_tick(r->core, r->now_ns);
	while ((a = wvm_core_action(r->core)))
		failed |= a->kind == WVM_ACT_FAIL && a->page == page;
	return failed;
}

/*
 * A request that was blocked is older than those before it in the queue, so it
 * fails first, from its middle (0) or its end (1). The others keep their order.
 */
START_TEST(a_request_may_fail_within_the_window_queue)
{
	enum { WINDOW = WVM_WINDOW_INITIAL / WVM_WINDOW_ONE };
	const struct wvm_action *a;
	uint64_t late;
	uint32_t queued = WINDOW + 1;
	struct rig r;

	rig_open(&r, H, NULL);
	rig_run(&r, &(struct rig_case)CASE("within the queue", SAVED, LOAD(0)));
	/* Short of its deadline, so that nothing else is tried again before. */
	late = r.now_ns + r.params.times.deadline_ns - 2 * MS;
	while (wvm_core_deadline(r.core) < late)
		ck_assert(!tick_fails(&r, 0));
	r.now_ns = late;
	for (uint32_t i = 1; i <= WINDOW; i++) {
		rig_do(&r, (struct rig_step)LOAD(0, .page = i));
		rig_do(&r, (struct rig_step)READ(i + 1, .page = i));
	}
	/* One answer was had before, so the window is a little larger. */
	rig_do(&r, (struct rig_step)LOAD(0, .page = WINDOW + 1));
	rig_do(&r, (struct rig_step)READ(WINDOW + 2, .page = WINDOW + 1));
	rig_do(&r, (struct rig_step)LOAD(0, .page = WINDOW + 2));
	rig_do(&r, (struct rig_step)STORED(1, V(5)));
	if (!_i)
		rig_do(&r, (struct rig_step)LOAD(0, .page = WINDOW + 3));
	while (!tick_fails(&r, 0))
		ck_assert_uint_lt(r.now_ns, 7000 * MS);
	if (_i)
		rig_do(&r, (struct rig_step)LOAD(0, .page = WINDOW + 3));
	for (uint32_t i = 1; i <= WINDOW + 1; i++) {
		rig_do(&r, (struct rig_step)GRANT(i + 1, V(5), .flags = ZERO, .page = i));
		rig_do(&r, (struct rig_step)ACT(INSTALL, BY(1), .page = i));
		while ((a = wvm_core_action(r.core))) {
			ck_assert_int_eq(a->msg.type, WVM_MSG_MEM_READ);
			ck_assert_uint_eq(a->page, ++queued);
		}
	}
	ck_assert_uint_eq(queued, WINDOW + 3);
	rig_close(&r);
}
END_TEST

/* A retry that has grown older than half the responder's window asks under a new id. */
START_TEST(an_old_request_is_renewed)
{
	struct rig r;

	rig_open(&r, H, NULL);
	r.name = "old request";
	rig_run(&r, &(struct rig_case)CASE("old request", ASKED_S, INVALIDATE(1, 1, V(5))));
	for (uint32_t i = 0; i < WVM_SEEN_BITS / 2; i++)
		wvm_core_next_id(r.core);
	rig_do(&r, (struct rig_step)RETRY);
	rig_do(&r, (struct rig_step)READ(1));
	wvm_core_next_id(r.core);
	rig_do(&r, (struct rig_step)DO(TICK));
	rig_do(&r, (struct rig_step)READ(WVM_SEEN_BITS / 2 + 3));
	rig_do(&r, (struct rig_step)COUNTED(requests_renewed, 1));
	rig_do(&r, (struct rig_step)GRANT(1, V(5), .fill = 1, STALE));
	/* What was asked of the old id is answered by now: it was never taken. */
	rig_do(&r, (struct rig_step)INVALIDATE(1, 1, V(5)));
	rig_do(&r, (struct rig_step)INVALIDATED(1, 1, V(5)));
	rig_close(&r);
}
END_TEST

/* ---- pages in segments ----------------------------------------------------------------- */

#define SEGMENTS 4u
#define SEGMENT  (WVM_PAGE_BYTES / SEGMENTS)

static enum wvm_drop segment(struct rig *r, struct rig_step s, uint32_t index)
{
	struct wvm_msg m = rig_msg(&s);
	uint8_t bytes[SEGMENT];

	memset(bytes, s.fill, sizeof(bytes));
	m.seg_total = WVM_PAGE_BYTES;
	m.seg_offset = index * SEGMENT;
	m.payload_len = SEGMENT;
	return wvm_core_message(r->core, r->now_ns, &m, bytes);
}

START_TEST(a_grant_in_segments_is_taken_when_whole_in_any_order)
{
	static const uint8_t orders[][SEGMENTS + 2] = {
		{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}, {1, 1, 0, 3, 3, 2}, {3, 3, 3, 0, 1, 2},
	};
	const struct rig_step grant = GRANT(1, V(5), .fill = 0x5a);
	uint32_t n = _i < 3 ? SEGMENTS : SEGMENTS + 2;
	struct rig r;

	rig_open(&r, H, NULL);
	rig_run(&r, &(struct rig_case)CASE("segments", ASKED_S));
	for (uint32_t i = 0; i < n; i++) {
		rig_quiet(&r);
		ck_assert_int_eq(segment(&r, grant, orders[_i][i]), WVM_DROP_NONE);
	}
	rig_do(&r, (struct rig_step)ACT(INSTALL, BY(1), .fill = 0x5a));
	rig_quiet(&r);
	rig_close(&r);
}
END_TEST

START_TEST(segments_of_two_versions_never_make_one_page)
{
	const struct rig_step old = GRANT(1, V(5), .fill = 0x55),
			      new = GRANT(1, V(6), .fill = 0x66);
	struct rig r;

	rig_open(&r, H, NULL);
	rig_run(&r, &(struct rig_case)CASE("two versions", ASKED_S));
	for (uint32_t i = 0; i < SEGMENTS - 1; i++) {
		segment(&r, old, i);
		segment(&r, new, SEGMENTS - 1 - i);
	}
	rig_quiet(&r);
	segment(&r, new, 0);
	rig_do(&r, (struct rig_step)ACT(INSTALL, BY(1), .fill = 0x66));
	ck_assert_int_eq(segment(&r, old, SEGMENTS - 1), WVM_DROP_STALE);
	rig_quiet(&r);
	rig_close(&r);
}
END_TEST

START_TEST(segments_that_nobody_waits_for_take_no_room)
{
	struct rig r;

	open_small(&r, 4);
	rig_run(&r, &(struct rig_case)CASE("unwanted", ASKED_S));
	segment(&r, (struct rig_step)GRANT(1, V(5), .fill = 1), 0);
	for (uint32_t i = 0; i < 1000; i++)
		ck_assert_int_eq(segment(&r, (struct rig_step)GRANT(9 + i, V(5), .fill = 2), 0),
				 WVM_DROP_NONE);
	ck_assert_int_eq(segment(&r, (struct rig_step)GRANT(9, V(5), .fill = 2), SEGMENTS - 1),
			 WVM_DROP_STALE);
	for (uint32_t i = 1; i < SEGMENTS; i++)
		segment(&r, (struct rig_step)GRANT(1, V(5), .fill = 1), i);
	rig_do(&r, (struct rig_step)ACT(INSTALL, BY(1), .fill = 1));
	rig_do(&r, (struct rig_step)COUNTED(partials_evicted, 0));
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, every_transition_does_what_its_case_says, 0, CASES(groups));
	tcase_add_loop_test(tc, a_full_pool_drops_and_recovers, 0, CASES(without_room));
	tcase_add_test(tc, a_page_has_65535_pins_at_most);
	tcase_add_test(tc, many_pages_may_be_unpinned_at_once);
	tcase_add_loop_test(tc, a_request_may_fail_within_the_window_queue, 0, 2);
	tcase_add_test(tc, the_hold_doubles_while_a_page_is_fought_over);
	tcase_add_test(tc, an_old_request_is_renewed);
	tcase_add_loop_test(tc, a_grant_in_segments_is_taken_when_whole_in_any_order, 0, 5);
	tcase_add_test(tc, segments_of_two_versions_never_make_one_page);
	tcase_add_test(tc, segments_that_nobody_waits_for_take_no_room);
}

int main(void)
{
	return rig_main("holder", add);
}

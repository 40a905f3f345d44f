/*
 * Units put together again: what the home and the holder say while 512 grants
 * become one, and whatever is lost, late or killed in between. The entries of
 * before stay where they are here: nobody may look at them.
 */
#include "shared/core/check/rig.h"

#define H     RIG_ELSEWHERE /* home of the unit, in the holder's cases */
#define UNIT  WVM_MSG_UNIT
#define ZERO  WVM_MSG_ZERO
#define HELD  WVM_MSG_HELD
#define ERROR WVM_MSG_ERROR

/* ---- the home ---------------------------------------------------------------------------- */

#define READ(from, id, ...)    IN(MEM_READ, from, .request = id, __VA_ARGS__)
#define ACQUIRE(from, id, ...) IN(MEM_ACQUIRE, from, .request = id, __VA_ARGS__)
#define GIVES(to, id, v, ...)  SENT(MEM_ACK, to, .request = id, .version = v, __VA_ARGS__)
#define ASKS(type_, n, to, id, v) \
	SENT(type_, to, .request = OWN(n), .grant = id, .version = v, .page = 5)
#define SAYS(type_, n, from, id, v, ...) \
	IN(type_, from, .request = OWN(n), .grant = id, .version = v, .page = 5, __VA_ARGS__)
#define STORED(n, to, id, v) \
	SENT(WRITE_BACK_ACK, to, .request = OWN(n), .grant = id, .version = v, .page = 5)
/* Member 10 has the unit, but page 5 was 9's meanwhile; what is granted last is version 4. */
#define SPLIT_AND_BACK                                                                          \
	READ(10, ID(1), .flags = UNIT, .page = 3),                                              \
		GIVES(10, ID(1), V(2), .flags = ZERO | UNIT, .page = 3),                        \
		ACQUIRE(9, ID(1), .page = 5), ASKS(FETCH_AND_INVALIDATE, 1, 10, ID(1), V(2)),   \
		SAYS(WRITE_BACK, 1, 10, ID(1), V(2), .fill = 0x55), STORED(1, 10, ID(1), V(2)), \
		GIVES(9, ID(1), V(3), .source = WVM_DATA_STORE, .page = 5),                     \
		ACQUIRE(10, ID(2), .page = 5), ASKS(FETCH_AND_INVALIDATE, 2, 9, ID(1), V(3)),   \
		SAYS(WRITE_BACK, 2, 9, ID(1), V(3), .fill = 0x66), STORED(2, 9, ID(1), V(3)),   \
		GIVES(10, ID(2), V(4), .source = WVM_DATA_STORE, .page = 5)
#define MERGE(id, grant_, v) \
	IN(MEM_ACQUIRE, 10, .request = id, .grant = grant_, .version = v, .flags = UNIT | HELD)
#define MERGED(id, grant_, v)  GIVES(10, id, v, .grant = grant_, .flags = UNIT | HELD)
#define REFUSED(id, grant_, v) GIVES(10, id, v, .grant = grant_, .flags = UNIT | ERROR)
#define FORGETS                ACT(FORGET, .flags = 1)

static const struct rig_case home[] = {
	CASE("all pages of one node become one grant", SPLIT_AND_BACK, COUNTED(pages_homed, 1),
	     MERGE(ID(4), ID(3), V(4)), FORGETS, MERGED(ID(4), ID(3), V(5)),
	     COUNTED(home_merges, 1), COUNTED(pages_homed, 0), DO(IDLE)),
	CASE("asked again, under whatever id, it is granted again", SPLIT_AND_BACK,
	     MERGE(ID(4), ID(3), V(4)), FORGETS, MERGED(ID(4), ID(3), V(5)),
	     MERGE(ID(6), ID(3), V(4)), MERGED(ID(6), ID(3), V(5)), COUNTED(home_merges, 1)),
	CASE("any page is asked for by it, one that had an entry too", SPLIT_AND_BACK,
	     MERGE(ID(4), ID(3), V(4)), FORGETS, MERGED(ID(4), ID(3), V(5)),
	     READ(9, ID(2), .page = 5), ASKS(DOWNGRADE, 3, 10, ID(3), V(5)),
	     DO(HOME, .page = 5, .state = WVM_HOME_MODIFIED, .holders = 1, .version = V(4),
		.grant = ID(3), .slot = 1),
	     SAYS(WRITE_BACK, 3, 10, ID(3), V(5), .fill = 0x77), STORED(3, 10, ID(3), V(5)),
	     GIVES(9, ID(2), V(5), .source = WVM_DATA_STORE, .page = 5), READ(9, ID(3), .page = 6),
	     SENT(DOWNGRADE, 10, .request = OWN(4), .grant = ID(3), .version = V(5), .page = 6)),
	CASE("and may come back, and be merged again", SPLIT_AND_BACK, MERGE(ID(4), ID(3), V(4)),
	     FORGETS, MERGED(ID(4), ID(3), V(5)), ACQUIRE(9, ID(2), .page = 5),
	     ASKS(FETCH_AND_INVALIDATE, 3, 10, ID(3), V(5)),
	     SAYS(WRITE_BACK, 3, 10, ID(3), V(5), .fill = 0x77), STORED(3, 10, ID(3), V(5)),
	     GIVES(9, ID(2), V(6), .source = WVM_DATA_STORE, .page = 5),
	     /* A copy of the first. */
	     MERGE(ID(4), ID(3), V(4)), MERGED(ID(4), ID(3), V(5)), ACQUIRE(10, ID(5), .page = 5),
	     ASKS(FETCH_AND_INVALIDATE, 4, 9, ID(2), V(6)),
	     SAYS(WRITE_BACK, 4, 9, ID(2), V(6), .fill = 0x88), STORED(4, 9, ID(2), V(6)),
	     GIVES(10, ID(5), V(7), .source = WVM_DATA_STORE, .page = 5), MERGE(ID(7), ID(6), V(7)),
	     FORGETS, MERGED(ID(7), ID(6), V(8)), COUNTED(home_merges, 2)),
	CASE("not while it asks for a page", SPLIT_AND_BACK, READ(9, ID(2), .page = 5),
	     ASKS(DOWNGRADE, 3, 10, ID(2), V(4)), MERGE(ID(4), ID(3), V(4)),
	     REFUSED(ID(4), ID(3), V(5)), COUNTED(home_merges, 0)),
	CASE("nor after it asked in vain", SPLIT_AND_BACK, READ(9, ID(2), .page = 5),
	     ASKS(DOWNGRADE, 3, 10, ID(2), V(4)), DO(KILL), DO(ADOPTED), MERGE(ID(4), ID(3), V(4)),
	     REFUSED(ID(4), ID(3), V(5)), MERGE(ID(6), ID(5), V(5)), REFUSED(ID(6), ID(5), V(6)),
	     COUNTED(home_merges, 0)),
	CASE("nor while another has a page", SPLIT_AND_BACK, READ(9, ID(2), .page = 5),
	     ASKS(DOWNGRADE, 3, 10, ID(2), V(4)),
	     SAYS(WRITE_BACK, 3, 10, ID(2), V(4), .flags = WVM_MSG_KEEP, .fill = 0x77),
	     STORED(3, 10, ID(2), V(4)), GIVES(9, ID(2), V(4), .source = WVM_DATA_STORE, .page = 5),
	     MERGE(ID(4), ID(3), V(4)), REFUSED(ID(4), ID(3), V(5))),
	CASE("nor of who does not know of the last grant", SPLIT_AND_BACK,
	     MERGE(ID(4), ID(3), V(3)), REFUSED(ID(4), ID(3), V(4)), MERGE(ID(5), ID(3), V(3)),
	     REFUSED(ID(5), ID(3), V(4)), MERGE(ID(7), ID(6), V(4)), FORGETS,
	     MERGED(ID(7), ID(6), V(5))),
	CASE("what was refused is never granted", SPLIT_AND_BACK, READ(9, ID(2), .page = 5),
	     ASKS(DOWNGRADE, 3, 10, ID(2), V(4)), MERGE(ID(4), ID(3), V(4)),
	     REFUSED(ID(4), ID(3), V(5)), SAYS(NOT_HELD, 3, 10, ID(2), V(4)),
	     GIVES(9, ID(2), V(3), .source = WVM_DATA_STORE, .page = 5),
	     ACQUIRE(10, ID(5), .page = 5), ASKS(INVALIDATE, 4, 9, ID(2), V(3)),
	     SAYS(INVALIDATE_ACK, 4, 9, ID(2), V(3)),
	     GIVES(10, ID(5), V(6), .source = WVM_DATA_STORE, .page = 5), MERGE(ID(4), ID(3), V(4)),
	     REFUSED(ID(4), ID(3), V(6))),
	CASE("nor a page of another's unit", READ(9, ID(1), .flags = UNIT, .page = 3),
	     GIVES(9, ID(1), V(2), .flags = ZERO | UNIT, .page = 3), MERGE(ID(4), ID(3), V(2)),
	     REFUSED(ID(4), ID(3), V(3))),
	CASE("an untouched unit is no unit to merge",
	     IN(MEM_ACQUIRE, 10, .request = ID(4), .grant = ID(3), .flags = UNIT | HELD,
		LESS(STALE))),
	CASE("an old write-back is acknowledged still", SPLIT_AND_BACK, MERGE(ID(4), ID(3), V(4)),
	     FORGETS, MERGED(ID(4), ID(3), V(5)), SAYS(WRITE_BACK, 2, 9, ID(1), V(3), .fill = 0x66),
	     STORED(2, 9, ID(1), V(3)), DO(STORED, .page = 5, .fill = 0x66)),
	CASE("nobody who has all pages says that he has none", SPLIT_AND_BACK,
	     MERGE(ID(4), ID(3), V(4)), FORGETS, MERGED(ID(4), ID(3), V(5)),
	     READ(9, ID(2), .page = 5), ASKS(DOWNGRADE, 3, 10, ID(3), V(5)),
	     SAYS(NOT_HELD, 3, 10, ID(3), V(5), LESS(STALE))),
	CASE("it outlives its home", SPLIT_AND_BACK, MERGE(ID(4), ID(3), V(4)), FORGETS,
	     MERGED(ID(4), ID(3), V(5)), DO(KILL), DO(ADOPTED), COUNTED(adopted_homed, 0),
	     ACQUIRE(9, ID(2), .page = 5),
	     SENT(FETCH_AND_INVALIDATE, 10, .request = RIG_ID(RIG_BOOT + 1, RIG_SHARD, 1),
		  .grant = ID(3), .version = V(5), .page = 5)),
	CASE("killed before it has answered, it has not granted", SPLIT_AND_BACK,
	     MERGE(ID(4), ID(3), V(4)), DO(KILL), DO(ADOPTED), COUNTED(adopted_homed, 1),
	     READ(9, ID(2), .page = 5),
	     SENT(DOWNGRADE, 10, .request = RIG_ID(RIG_BOOT + 1, RIG_SHARD, 1), .grant = ID(2),
		  .version = V(4), .page = 5)),
};

/* ---- the holder -------------------------------------------------------------------------- */

static void let_hold_end(struct rig *r)
{
	r->now_ns += r->params.times.hold_max_ns;
}

static void want_none(struct rig *r)
{
	wvm_core_merge(r->core, false);
}

#define AFTER_HOLD       DO(PASS, .ns = 0), DO(CALL, .call = let_hold_end)
#define STORES(c, n)     DO(FAULT, .slot = c, .flags = 1, .page = n)
#define GRANT(n, v, ...) IN(MEM_ACK, H, .request = OWN(n), .version = v, __VA_ARGS__)
#define ASK(type_, txn, id, v, ...) \
	IN(type_, H, .request = ID(txn), .grant = id, .version = v, __VA_ARGS__)
#define ANSWER(type_, txn, id, v, ...) \
	SENT(type_, H, .request = ID(txn), .grant = id, .version = v, __VA_ARGS__)
/* The page goes, and all of it has gone. */
#define GOES(n, txn, id, v)                                                           \
	ASK(FETCH_AND_INVALIDATE, txn, id, v, .page = n), ACT(PROTECT, .page = n),    \
		ACT(SAVE, .page = n), ACT(PUNCH, .page = n),                          \
		ANSWER(WRITE_BACK, txn, id, v, .page = n, .source = WVM_DATA_OUTBOX), \
		ASK(WRITE_BACK_ACK, txn, id, v, .page = n)
/* Page 17 of a unit that is this node's was elsewhere, and is back, by request 2. */
#define ALL_BACK                                                                           \
	STORES(0, 16), SENT(MEM_ACQUIRE, H, .request = OWN(1), .flags = UNIT, .page = 16), \
		GRANT(1, V(2), .flags = ZERO | UNIT, .page = 16),                          \
		ACT(FILL, .page = 16, .count = 8, .waiters = 1), AFTER_HOLD,               \
		GOES(17, 1, OWN(1), V(2)), STORES(0, 17),                                  \
		SENT(MEM_ACQUIRE, H, .request = OWN(2), .page = 17),                       \
		GRANT(2, V(4), .fill = 0x66, .page = 17),                                  \
		ACT(INSTALL, .page = 17, .fill = 0x66, .writable = true, .waiters = 1)
#define ASKS_MERGE(n, id, v) \
	SENT(MEM_ACQUIRE, H, .request = OWN(n), .grant = id, .version = v, .flags = UNIT | HELD)
#define MERGE_GRANTED(id, v) \
	IN(MEM_ACK, H, .request = OWN(4), .grant = id, .version = v, .flags = UNIT | HELD)
#define MERGE_REFUSED(id, v) \
	IN(MEM_ACK, H, .request = OWN(4), .grant = id, .version = v, .flags = UNIT | ERROR)
#define NEXT_LIFE(n) RIG_ID(RIG_BOOT + 1, RIG_SHARD, n)
#define ADOPTS(n)    DO(ADOPT, .page = n, .flags = 1)

static const struct rig_case holder[] = {
	CASE("it asks when the last page has been back for a while", ALL_BACK, DO(TICK),
	     ASKS_MERGE(4, OWN(3), V(4)), MERGE_GRANTED(OWN(3), V(5)), ACT(FORGET), DO(IDLE),
	     COUNTED(units_merged, 1), COUNTED(pages_modified, 8), GOES(17, 2, OWN(3), V(5)),
	     GOES(16, 3, OWN(3), V(5)), COUNTED(pages_modified, 6)),
	CASE("pages that were never touched are zeros still", ALL_BACK, DO(TICK),
	     ASKS_MERGE(4, OWN(3), V(4)), MERGE_GRANTED(OWN(3), V(5)), ACT(FORGET), STORES(0, 100),
	     ACT(FILL, .page = 100, .below = 4, .count = 4, .waiters = 1)),
	CASE("not when a page has gone again", ALL_BACK, AFTER_HOLD, GOES(17, 2, OWN(2), V(4)),
	     DO(TICK), DO(IDLE)),
	CASE("nor as long as one is pinned", ALL_BACK, DO(PIN, .page = 17, .drop = WVM_PIN_HELD),
	     DO(TICK), DO(TICK), DO(UNPIN, .page = 17), DO(TICK), ASKS_MERGE(4, OWN(3), V(4))),
	CASE("it asks until it is answered, for the same under a new id", ALL_BACK, DO(TICK),
	     ASKS_MERGE(4, OWN(3), V(4)), DO(TICK), ASKS_MERGE(5, OWN(3), V(4)), DO(TICK),
	     ASKS_MERGE(6, OWN(3), V(4)), MERGE_GRANTED(OWN(3), V(5)), ACT(FORGET), DO(IDLE)),
	CASE("who asks for a page by its id has granted it", ALL_BACK, DO(TICK),
	     ASKS_MERGE(4, OWN(3), V(4)), GOES(17, 2, OWN(3), V(5)), COUNTED(units_merged, 1),
	     DO(IDLE),
	     IN(MEM_ACK, H, .request = OWN(4), .grant = OWN(3), .version = V(5),
		.flags = UNIT | HELD, LESS(STALE)),
	     GOES(18, 3, OWN(3), V(5))),
	CASE("refused, it names what the home wants to see", ALL_BACK, DO(TICK),
	     ASKS_MERGE(4, OWN(3), V(4)), MERGE_REFUSED(OWN(3), V(7)), COUNTED(merges_refused, 1),
	     DO(TICK), ASKS_MERGE(6, OWN(5), V(7)), MERGE_GRANTED(OWN(5), V(8)), ACT(FORGET),
	     DO(IDLE)),
	CASE("and gives up at last", ALL_BACK, DO(TICK), ASKS_MERGE(4, OWN(3), V(4)),
	     MERGE_REFUSED(OWN(3), V(5)), DO(TICK), ASKS_MERGE(6, OWN(5), V(5)),
	     MERGE_REFUSED(OWN(5), V(6)), DO(TICK), ASKS_MERGE(8, OWN(7), V(6)),
	     MERGE_REFUSED(OWN(7), V(7)), DO(TICK), ASKS_MERGE(10, OWN(9), V(7)),
	     MERGE_REFUSED(OWN(9), V(8)), DO(TICK), DO(IDLE), GOES(17, 2, OWN(2), V(4))),
	CASE("another answer is not for it", ALL_BACK, DO(TICK), ASKS_MERGE(4, OWN(3), V(4)),
	     IN(MEM_ACK, H, .request = OWN(4), .grant = OWN(2), .version = V(5),
		.flags = UNIT | HELD, LESS(STALE)),
	     IN(MEM_ACK, H, .request = OWN(4), .grant = OWN(3), .version = V(4),
		.flags = UNIT | HELD, LESS(STALE)),
	     COUNTED(units_merged, 0)),
	CASE("what is asked meanwhile by the page's own grant is obeyed", ALL_BACK, AFTER_HOLD,
	     DO(TICK), ASKS_MERGE(4, OWN(3), V(4)), GOES(17, 2, OWN(2), V(4)),
	     MERGE_REFUSED(OWN(3), V(5)), DO(TICK), DO(IDLE)),
	CASE("nothing goes unasked meanwhile, but may be pinned", ALL_BACK, AFTER_HOLD, DO(TICK),
	     ASKS_MERGE(4, OWN(3), V(4)), DO(EVICT, .page = 17, .drop = WVM_EVICT_BUSY),
	     DO(EVICT, .page = 18, .drop = WVM_EVICT_BUSY),
	     DO(PIN, .page = 17, .drop = WVM_PIN_HELD), DO(PIN, .page = 18, .drop = WVM_PIN_HELD),
	     /* The pins are in entries that are kept. */
	     MERGE_GRANTED(OWN(3), V(5)), COUNTED(units_merged, 1),
	     DO(EVICT, .page = 17, .drop = WVM_EVICT_BUSY),
	     ASK(FETCH_AND_INVALIDATE, 2, OWN(3), V(5), .page = 18), DO(UNPIN, .page = 18),
	     DO(TICK), ACT(PROTECT, .page = 18), ACT(SAVE, .page = 18), ACT(PUNCH, .page = 18),
	     ANSWER(WRITE_BACK, 2, OWN(3), V(5), .page = 18, .source = WVM_DATA_OUTBOX),
	     ASK(WRITE_BACK_ACK, 2, OWN(3), V(5), .page = 18), DO(UNPIN, .page = 17),
	     GOES(17, 3, OWN(3), V(5))),
	CASE("nothing is put together any more once that is not wanted", ALL_BACK,
	     DO(CALL, .call = want_none), DO(TICK), DO(IDLE)),
	CASE("what was asked for goes on", ALL_BACK, DO(TICK), ASKS_MERGE(4, OWN(3), V(4)),
	     DO(CALL, .call = want_none), DO(TICK), ASKS_MERGE(5, OWN(3), V(4)),
	     MERGE_REFUSED(OWN(3), V(5)), DO(TICK), DO(IDLE), GOES(17, 2, OWN(2), V(4))),
	CASE("killed meanwhile, it asks on in its next life", ALL_BACK, DO(TICK),
	     ASKS_MERGE(4, OWN(3), V(4)), DO(KILL), ADOPTS(16), ADOPTS(17), DO(ADOPTED), DO(TICK),
	     SENT(MEM_ACQUIRE, H, .request = NEXT_LIFE(1), .grant = OWN(3), .version = V(4),
		  .flags = UNIT | HELD),
	     MERGE_GRANTED(OWN(3), V(5)), ACT(FORGET), GOES(17, 2, OWN(3), V(5))),
	CASE("and names the version that it named before, whatever has come since", ALL_BACK,
	     AFTER_HOLD, DO(TICK), ASKS_MERGE(4, OWN(3), V(4)), GOES(17, 2, OWN(2), V(4)),
	     STORES(0, 17), SENT(MEM_ACQUIRE, H, .request = OWN(5), .page = 17),
	     GRANT(5, V(6), .fill = 0x77, .page = 17),
	     ACT(INSTALL, .page = 17, .fill = 0x77, .writable = true, .waiters = 1), DO(KILL),
	     ADOPTS(16), ADOPTS(17), DO(ADOPTED), DO(TICK),
	     SENT(MEM_ACQUIRE, H, .request = NEXT_LIFE(1), .grant = OWN(3), .version = V(4),
		  .flags = UNIT | HELD),
	     MERGE_REFUSED(OWN(3), V(7)), GOES(17, 4, OWN(5), V(6))),
	CASE("and is asked by its id then", ALL_BACK, DO(TICK), ASKS_MERGE(4, OWN(3), V(4)),
	     DO(KILL), ADOPTS(16), ADOPTS(17), DO(ADOPTED), GOES(17, 2, OWN(3), V(5)), DO(IDLE)),
	CASE("killed before it has asked, it has not", ALL_BACK, DO(TICK), DO(KILL), ADOPTS(16),
	     ADOPTS(17), DO(ADOPTED), DO(IDLE), GOES(17, 2, OWN(2), V(4))),
	CASE("it outlives its master", ALL_BACK, DO(TICK), ASKS_MERGE(4, OWN(3), V(4)),
	     MERGE_GRANTED(OWN(3), V(5)), ACT(FORGET), DO(KILL), ADOPTS(16), ADOPTS(17),
	     DO(ADOPTED), DO(IDLE), COUNTED(pages_modified, 8), GOES(17, 2, OWN(3), V(5))),
};

START_TEST(a_home_makes_one_grant_of_all_pages)
{
	rig_run_units(RIG_SELF, &home[_i], true);
}
END_TEST

START_TEST(a_holder_asks_for_it_and_loses_no_page)
{
	rig_run_units(H, &holder[_i], true);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_home_makes_one_grant_of_all_pages, 0, CASES(home));
	tcase_add_loop_test(tc, a_holder_asks_for_it_and_loses_no_page, 0, CASES(holder));
}

int main(void)
{
	return rig_main("merge", add);
}

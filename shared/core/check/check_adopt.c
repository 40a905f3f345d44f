/*
 * A core that is killed, and the next one that goes on with what it left: its
 * entries, its durable block, its outbox, and the RAM file as it was. Whatever
 * action of whatever input was the last, nothing that left the node is untrue
 * afterwards, and no store is lost.
 */
#include "shared/core/check/rig.h"

#define H 3u /* the home of page 0 in the holder's cases; a member that asks in the home's */
#define B 4u

#define ZERO WVM_MSG_ZERO
#define KEEP WVM_MSG_KEEP
#define HELD WVM_MSG_HELD
#define MS   UINT64_C(1000000)

#define LOAD(client)     DO(FAULT, .slot = client)
#define STORE(client)    DO(FAULT, .slot = client, .flags = 1)
#define BY(mask)         .waiters = mask
#define GRANT(n, v, ...) IN(MEM_ACK, H, .request = OWN(n), .version = v, __VA_ARGS__)
#define NEXT(n)          RIG_ID(RIG_BOOT + 1, RIG_SHARD, n) /* ids of the life after the kill */
#define AFTER_HOLD       DO(PASS, .ns = 0), DO(CALL, .call = let_hold_end)
#define STALE            LESS(STALE)

#define ASK(type_, txn, n, v, ...) \
	IN(type_, H, .request = ID(txn), .grant = OWN(n), .version = v, __VA_ARGS__)
#define ANSWER(type_, txn, n, v, ...) \
	SENT(type_, H, .request = ID(txn), .grant = OWN(n), .version = v, __VA_ARGS__)
#define BACK_KEPT(txn, n, v)  ANSWER(WRITE_BACK, txn, n, v, .flags = KEEP, .source = WVM_DATA_RAM)
#define BACK_SAVED(txn, n, v) ANSWER(WRITE_BACK, txn, n, v, .source = WVM_DATA_OUTBOX)
#define STORED(n, v, ...) \
	IN(WRITE_BACK_ACK, H, .request = ID(1), .grant = OWN(n), .version = v, __VA_ARGS__)

#define INVALID_       DO(HELD, .state = WVM_HELD_INVALID)
#define SHARED(n, v)   DO(HELD, .state = WVM_HELD_SHARED, .grant = OWN(n), .version = v)
#define MODIFIED(n, v) DO(HELD, .state = WVM_HELD_MODIFIED, .grant = OWN(n), .version = v)

/* The next life finds the page in the RAM file, or not. */
#define KILLED_PRESENT DO(KILL), DO(ADOPT, .flags = 1)
#define KILLED_ABSENT  DO(KILL), DO(ADOPT)
#define GOES_ON        DO(ADOPTED)

static void let_hold_end(struct rig *r)
{
	r->now_ns += r->params.times.hold_max_ns;
}

#define ASKED_S LOAD(0), SENT(MEM_READ, H, .request = OWN(1))
#define ASKED_M STORE(0), SENT(MEM_ACQUIRE, H, .request = OWN(1))
#define GIVEN_S ASKED_S, GRANT(1, V(5), .fill = 0x55)
#define GIVEN_M ASKED_M, GRANT(1, V(5), .fill = 0x55)
#define HAS_S   GIVEN_S, ACT(INSTALL, BY(1), .fill = 0x55)
#define HAS_M   GIVEN_M, ACT(INSTALL, BY(1), .fill = 0x55, .writable = true)
#define UPGRADING \
	HAS_S, STORE(1), SENT(MEM_ACQUIRE, H, .request = OWN(2), .flags = HELD, .version = V(5))

static const struct rig_case holder[] = {
	CASE("what was held is held, by the same grants", HAS_M, KILLED_PRESENT, GOES_ON,
	     MODIFIED(1, V(5)), COUNTED(adopted_held, 1), COUNTED(pages_modified, 1), STORE(2),
	     ACT(LIFT, BY(4)), DO(IDLE)),
	CASE("and is given up as ever", HAS_M, KILLED_PRESENT, GOES_ON,
	     ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), ACT(PROTECT), ACT(SAVE), ACT(PUNCH),
	     BACK_SAVED(1, 1, V(5)), STORED(1, V(5)), INVALID_, DO(IDLE)),
	CASE("a Shared copy, too", HAS_S, KILLED_PRESENT, GOES_ON, SHARED(1, V(5)),
	     COUNTED(pages_shared, 1), ASK(INVALIDATE, 1, 1, V(5)), ACT(PROTECT), ACT(PUNCH),
	     ANSWER(INVALIDATE_ACK, 1, 1, V(5)), COUNTED(pages_shared, 0)),
	CASE("a request that was under way is over: whoever waited asks again", ASKED_M,
	     KILLED_ABSENT, GOES_ON, GRANT(1, V(5), .fill = 0x55, STALE), STORE(0),
	     SENT(MEM_ACQUIRE, H, .request = NEXT(1))),
	CASE("a grant that was cut short was never taken", GIVEN_M, KILLED_ABSENT, GOES_ON,
	     INVALID_, ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), ANSWER(NOT_HELD, 1, 1, V(5))),
	CASE("nor one that was decided, and not installed", GIVEN_M,
	     ACT(INSTALL, BY(1), .fill = 0x55, .writable = true), KILLED_ABSENT, GOES_ON, INVALID_,
	     COUNTED(adopted_dropped, 1), ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)),
	     ANSWER(NOT_HELD, 1, 1, V(5))),
	CASE("a grant that was never seen is answered by the next life as by this one", ASKED_M,
	     KILLED_ABSENT, GOES_ON, ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)),
	     ANSWER(NOT_HELD, 1, 1, V(5))),
	CASE("an older copy that was to give way is no newer one", UPGRADING,
	     GRANT(2, V(6), .fill = 0x66), ACT(PROTECT), KILLED_PRESENT, ACT(PROTECT), ACT(PUNCH),
	     GOES_ON, INVALID_, ASK(FETCH_AND_INVALIDATE, 1, 2, V(6)),
	     ANSWER(NOT_HELD, 1, 2, V(6))),
	CASE("an upgrade without data that was cut short leaves the Shared copy", UPGRADING,
	     GRANT(2, V(6), .flags = HELD), KILLED_PRESENT, GOES_ON, SHARED(1, V(5)),
	     ASK(FETCH_AND_INVALIDATE, 1, 2, V(6)), ACT(PROTECT), ACT(PUNCH),
	     ANSWER(NOT_HELD, 1, 2, V(6)), INVALID_),
	CASE("an upgrade without data whose waiters were not let go", UPGRADING,
	     GRANT(2, V(6), .flags = HELD), ACT(LIFT, BY(2)), KILLED_PRESENT, GOES_ON,
	     MODIFIED(2, V(6)), STORE(1), ACT(LIFT, BY(2))),
	CASE("a FETCH that was cut short never came", HAS_M, AFTER_HOLD,
	     ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), KILLED_PRESENT, GOES_ON, MODIFIED(1, V(5)),
	     COUNTED(adopted_written_back, 0), DO(IDLE)),
	CASE("a FETCH whose bytes were not saved yet saves them, stores since included", HAS_M,
	     AFTER_HOLD, ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), ACT(PROTECT), KILLED_PRESENT,
	     ACT(PROTECT), ACT(SAVE), ACT(PUNCH), GOES_ON, COUNTED(adopted_written_back, 1),
	     DO(TICK), BACK_SAVED(1, 1, V(5)), STORED(1, V(5)), DO(IDLE)),
	CASE("a FETCH whose page is gone has its bytes in the outbox", HAS_M, AFTER_HOLD,
	     ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), ACT(PROTECT), ACT(SAVE), ACT(PUNCH),
	     KILLED_ABSENT, GOES_ON, DO(TICK), BACK_SAVED(1, 1, V(5)), STORED(1, V(5)), DO(IDLE)),
	CASE("a write-back that was not acknowledged is repeated, the home's retry answered", HAS_M,
	     AFTER_HOLD, ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), ACT(PROTECT), ACT(SAVE), ACT(PUNCH),
	     BACK_SAVED(1, 1, V(5)), KILLED_ABSENT, GOES_ON, ASK(FETCH_AND_INVALIDATE, 2, 1, V(5)),
	     BACK_SAVED(2, 1, V(5)), STORED(1, V(5)), DO(IDLE)),
	CASE("a DOWNGRADE is repeated from the RAM file, protected again", HAS_M, AFTER_HOLD,
	     ASK(DOWNGRADE, 1, 1, V(5)), ACT(PROTECT), BACK_KEPT(1, 1, V(5)), KILLED_PRESENT,
	     ACT(PROTECT), GOES_ON, SHARED(1, V(5)), DO(TICK), BACK_KEPT(1, 1, V(5)),
	     STORED(1, V(5)), SHARED(1, V(5)), DO(IDLE)),
	CASE("a request waits for the write-back of the life before", HAS_M, AFTER_HOLD,
	     ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), ACT(PROTECT), ACT(SAVE), ACT(PUNCH),
	     KILLED_ABSENT, GOES_ON, LOAD(0), STORED(1, V(5)),
	     SENT(MEM_READ, H, .request = NEXT(1))),
	CASE("a write-back that was acknowledged is over", HAS_M, AFTER_HOLD,
	     ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), ACT(PROTECT), ACT(SAVE), ACT(PUNCH),
	     BACK_SAVED(1, 1, V(5)), STORED(1, V(5)), LOAD(0), SENT(MEM_READ, H, .request = OWN(2)),
	     KILLED_ABSENT, GOES_ON, COUNTED(adopted_written_back, 0), DO(IDLE)),
	CASE("an INVALIDATE that was cut short never came", HAS_S, AFTER_HOLD,
	     ASK(INVALIDATE, 1, 1, V(5)), KILLED_PRESENT, GOES_ON, SHARED(1, V(5))),
	CASE("an INVALIDATE that was begun is carried out", HAS_S, AFTER_HOLD,
	     ASK(INVALIDATE, 1, 1, V(5)), ACT(PROTECT), KILLED_PRESENT, ACT(PROTECT), ACT(PUNCH),
	     GOES_ON, INVALID_, ASK(INVALIDATE, 1, 1, V(5)), ANSWER(INVALIDATE_ACK, 1, 1, V(5))),
	CASE("what waited for the hold time is asked again", HAS_M, ASK(DOWNGRADE, 1, 1, V(5)),
	     KILLED_PRESENT, GOES_ON, DO(IDLE), ASK(DOWNGRADE, 2, 1, V(5)), ACT(PROTECT),
	     BACK_KEPT(2, 1, V(5))),
	CASE("a page that nobody decided to have goes", KILLED_PRESENT, ACT(PROTECT), ACT(PUNCH),
	     GOES_ON, INVALID_),
	CASE("an install that failed was given back", GIVEN_M,
	     ACT(INSTALL, BY(1), .fill = 0x55, .writable = true), DO(FAILED), KILLED_ABSENT,
	     GOES_ON, INVALID_),
	CASE("until all is taken over, the home's messages wait", HAS_M, DO(KILL),
	     ASK(FETCH_AND_INVALIDATE, 1, 1, V(5), LESS(ROOM)), DO(ADOPT, .flags = 1), GOES_ON,
	     ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), ACT(PROTECT), ACT(SAVE), ACT(PUNCH),
	     BACK_SAVED(1, 1, V(5))),
	CASE("a life that adopts may be killed as well", HAS_M, AFTER_HOLD,
	     ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)), ACT(PROTECT), KILLED_PRESENT, ACT(PROTECT),
	     KILLED_PRESENT, ACT(PROTECT), ACT(SAVE), KILLED_PRESENT, ACT(PROTECT), ACT(SAVE),
	     ACT(PUNCH), KILLED_ABSENT, GOES_ON, DO(TICK), BACK_SAVED(1, 1, V(5))),
	CASE("grants of all lives since the first are answered for, earlier ones are lost", HAS_M,
	     KILLED_PRESENT, GOES_ON, DO(KILL), DO(ADOPT, .flags = 1), GOES_ON,
	     IN(FETCH_AND_INVALIDATE, H, .request = ID(1), .grant = NEXT(7), .version = V(4)),
	     SENT(NOT_HELD, H, .request = ID(1), .grant = NEXT(7), .version = V(4)),
	     IN(FETCH_AND_INVALIDATE, H, .request = ID(2),
		.grant = RIG_ID(RIG_BOOT - 1, RIG_SHARD, 7), .version = V(4)),
	     SENT(LOST, H, .request = ID(2), .grant = RIG_ID(RIG_BOOT - 1, RIG_SHARD, 7),
		  .version = V(4))),
};

#define READ(from, id, ...)    IN(MEM_READ, from, .request = id, __VA_ARGS__)
#define ACQUIRE(from, id, ...) IN(MEM_ACQUIRE, from, .request = id, __VA_ARGS__)
#define GIVES(to, id, v, ...)  SENT(MEM_ACK, to, .request = id, .version = v, __VA_ARGS__)
#define ENTRY(state_, n, v, ...) \
	DO(HOME, .state = WVM_HOME_##state_, .holders = n, .version = v, __VA_ARGS__)
#define H_MODIFIED ACQUIRE(H, ID(1)), GIVES(H, ID(1), V(2), .flags = ZERO)
#define HB_SHARED                                                             \
	READ(H, ID(1)), GIVES(H, ID(1), V(1), .flags = ZERO), READ(B, ID(2)), \
		GIVES(B, ID(2), V(1), .flags = ZERO)
#define WROTE(id, v, fill_, ...) \
	IN(WRITE_BACK, H, .request = ID(9), .grant = id, .version = v, .fill = fill_, __VA_ARGS__)
#define KEPT(id, v) SENT(WRITE_BACK_ACK, H, .request = ID(9), .grant = id, .version = v)
#define TAKEN_OVER  DO(KILL), DO(ADOPTED)

static const struct rig_case home[] = {
	CASE("what was granted is known", H_MODIFIED, TAKEN_OVER,
	     ENTRY(MODIFIED, 1, V(1), .grant = ID(1)), COUNTED(adopted_homed, 1),
	     COUNTED(pages_homed, 1)),
	CASE("a grant that was cut short was never given", ACQUIRE(H, ID(1)), TAKEN_OVER,
	     ENTRY(HOME, 0, 0), ACQUIRE(H, ID(1)), GIVES(H, ID(1), V(4), .flags = ZERO)),
	CASE("a retry of what was granted gets the same grant", H_MODIFIED, TAKEN_OVER,
	     ACQUIRE(H, ID(1)), GIVES(H, ID(1), V(2), .flags = ZERO)),
	CASE("bytes that were acknowledged are there", H_MODIFIED, WROTE(ID(1), V(2), 0xa1),
	     KEPT(ID(1), V(2)), TAKEN_OVER, DO(STORED, .fill = 0xa1), READ(B, ID(5)),
	     GIVES(B, ID(5), V(2), .source = WVM_DATA_STORE)),
	CASE("a write-back that was cut short never came, and comes again", H_MODIFIED,
	     WROTE(ID(1), V(2), 0xa1), TAKEN_OVER, ENTRY(MODIFIED, 1, V(1), .grant = ID(1)),
	     WROTE(ID(1), V(2), 0xa1), KEPT(ID(1), V(2)),
	     ENTRY(HOME, 0, V(2), .flags = WVM_HOME_WRITTEN), DO(STORED, .fill = 0xa1)),
	CASE("a transaction is begun anew by the requester's retry", HB_SHARED,
	     ACQUIRE(B, ID(5), .flags = HELD, .version = V(1)),
	     SENT(INVALIDATE, H, .request = OWN(1), .grant = ID(1), .version = V(1)), TAKEN_OVER,
	     ENTRY(SHARED, 2, V(1)), DO(IDLE), ACQUIRE(B, ID(5), .flags = HELD, .version = V(1)),
	     SENT(INVALIDATE, H, .request = NEXT(1), .grant = ID(1), .version = V(1)),
	     IN(INVALIDATE_ACK, H, .request = NEXT(1), .grant = ID(1), .version = V(1)),
	     GIVES(B, ID(5), V(2), .flags = HELD)),
	CASE("versions go on where they were", H_MODIFIED, WROTE(ID(1), V(2), 0xa1),
	     KEPT(ID(1), V(2)), TAKEN_OVER, ACQUIRE(B, ID(5)),
	     GIVES(B, ID(5), V(3), .source = WVM_DATA_STORE)),
	CASE("a page that was lost stays lost", H_MODIFIED, READ(B, ID(5)),
	     SENT(DOWNGRADE, H, .request = OWN(1), .grant = ID(1), .version = V(2)),
	     IN(LOST, H, .request = OWN(1), .grant = ID(1), .version = V(2)),
	     SENT(MEM_ACK, B, .request = ID(5), .flags = WVM_MSG_ERROR), TAKEN_OVER, READ(B, ID(6)),
	     SENT(MEM_ACK, B, .request = ID(6), .flags = WVM_MSG_ERROR)),
};

static void run_case(uint32_t home_member, const struct rig_case *c)
{
	struct rig r;

	rig_open(&r, home_member, NULL);
	rig_run(&r, c);
	rig_close(&r);
}

START_TEST(a_holder_goes_on_where_its_former_life_was_killed)
{
	run_case(H, &holder[_i]);
}
END_TEST

START_TEST(a_home_goes_on_where_its_former_life_was_killed)
{
	run_case(RIG_SELF, &home[_i]);
}
END_TEST

/* Every member once: records in blocks, up to the third of them and beyond. */
#define SHARERS 40u

static void share(struct rig *r, uint32_t first, uint32_t count, uint64_t version)
{
	for (uint32_t m = first; m < first + count; m++) {
		rig_do(r, (struct rig_step)READ(m + 10, ID(1)));
		rig_do(r, (struct rig_step)GIVES(m + 10, ID(1), version, .flags = ZERO));
	}
}

static void check_sharers(struct rig *r, uint32_t count)
{
	ck_assert_uint_eq(r->home[0].holders, count);
	for (uint32_t m = 0; m < count; m++) {
		uint32_t at = wvm_holders_find(r->core, &r->home[0], m + 10);

		ck_assert_uint_ne(at, WVM_NIL);
		ck_assert_uint_eq(*wvm_holders_at(r->core, &r->home[0], at).grant, ID(1));
	}
}

static uint32_t free_blocks(const struct wvm_core *core)
{
	uint32_t n = 0;

	for (uint32_t slot = core->free_block; slot; slot = core->blocks[slot - 1].next)
		n++;
	return n;
}

/* _i sharers; the request of one more is cut short: every change of blocks is undone. */
START_TEST(records_in_blocks_are_found_and_no_block_is_lost_or_given_twice)
{
	struct wvm_core_limits limits;
	uint32_t count = (uint32_t)_i, blocks;
	struct rig r;

	wvm_core_default_limits(&limits);
	limits.holder_blocks = 16;
	rig_open(&r, RIG_SELF, &limits);
	share(&r, 0, count, V(1));
	blocks = free_blocks(r.core);
	rig_do(&r, (struct rig_step)READ(count + 10, ID(1)));
	rig_do(&r, (struct rig_step)DO(KILL));
	check_sharers(&r, count);
	ck_assert_uint_eq(free_blocks(r.core), blocks);
	rig_do(&r, (struct rig_step)DO(ADOPTED));
	/* Versions of what never happened are not given again. */
	share(&r, count, SHARERS - count, count ? V(1) : V(2));
	check_sharers(&r, SHARERS);
	rig_close(&r);
}
END_TEST

/* All sharers acknowledge but the last, whose answer is cut short and comes again. */
START_TEST(an_acknowledgement_that_was_cut_short_is_not_counted)
{
	uint32_t count = (uint32_t)_i;
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	share(&r, 0, count, V(1));
	rig_do(&r, (struct rig_step)ACQUIRE(9, ID(1)));
	for (uint32_t m = 0; m < count; m++)
		rig_do(&r, (struct rig_step)SENT(INVALIDATE, m + 10, .request = OWN(1),
						 .grant = ID(1), .version = V(1)));
	for (uint32_t m = 0; m < count; m++)
		rig_do(&r, (struct rig_step)IN(INVALIDATE_ACK, m + 10, .request = OWN(1),
					       .grant = ID(1), .version = V(1)));
	/* The grant was not taken from the core yet: it never left. */
	rig_do(&r, (struct rig_step)DO(KILL));
	ck_assert_uint_eq(r.home[0].holders, 1);
	ck_assert_uint_eq(wvm_holders_find(r.core, &r.home[0], count - 1 + 10), 0);
	ck_assert_uint_ge(free_blocks(r.core), r.params.limits.holder_blocks - 1);
	rig_close(&r);
}
END_TEST

START_TEST(what_was_taken_from_a_home_is_remembered)
{
	const struct rig_case c = CASE("", HAS_M, KILLED_PRESENT, GOES_ON);
	struct rig r;

	rig_open(&r, H, NULL);
	rig_run(&r, &c);
	ck_assert_uint_eq(wvm_core_taken(r.core, H), 1);
	ck_assert_uint_eq(wvm_core_taken(r.core, B), 0);
	rig_close(&r);
}
END_TEST

START_TEST(pins_are_taken_over_by_name)
{
	const struct rig_case before = CASE("", HAS_M, DO(PIN, .drop = WVM_PIN_HELD));
	const struct rig_case after = CASE("", GOES_ON, ASK(FETCH_AND_INVALIDATE, 1, 1, V(5)),
					   DO(IDLE), DO(UNPIN), DO(TICK), ACT(PROTECT), ACT(SAVE),
					   ACT(PUNCH), BACK_SAVED(1, 1, V(5)));
	struct rig r;

	rig_open(&r, H, NULL);
	rig_run(&r, &before);
	rig_do(&r, (struct rig_step)DO(KILL));
	rig_do(&r, (struct rig_step)DO(ADOPT, .flags = 1));
	ck_assert(!wvm_core_adopt_pin(r.core, 0, 7));
	ck_assert(wvm_core_adopt_pin(r.core, 0, 0));
	rig_run(&r, &after);
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_holder_goes_on_where_its_former_life_was_killed, 0,
			    CASES(holder));
	tcase_add_loop_test(tc, a_home_goes_on_where_its_former_life_was_killed, 0, CASES(home));
	tcase_add_loop_test(tc, records_in_blocks_are_found_and_no_block_is_lost_or_given_twice, 0,
			    (int)SHARERS);
	tcase_add_loop_test(tc, an_acknowledgement_that_was_cut_short_is_not_counted, 1, 30);
	tcase_add_test(tc, what_was_taken_from_a_home_is_remembered);
	tcase_add_test(tc, pins_are_taken_over_by_name);
}

int main(void)
{
	return rig_main("adopt", add);
}

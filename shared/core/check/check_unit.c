/*
 * Units that are granted whole: what the home says once for 512 pages, and what
 * becomes of it when somebody else wants one of them.
 */
#include "shared/core/check/rig.h"

#define H    RIG_ELSEWHERE /* home of the unit, in the holder's cases */
#define UNIT WVM_MSG_UNIT
#define ZERO WVM_MSG_ZERO
#define KEEP WVM_MSG_KEEP

/* ---- the home ---------------------------------------------------------------------------- */

#define READ(from, id, ...)    IN(MEM_READ, from, .request = id, __VA_ARGS__)
#define ACQUIRE(from, id, ...) IN(MEM_ACQUIRE, from, .request = id, __VA_ARGS__)
#define GIVES(to, id, v, ...)  SENT(MEM_ACK, to, .request = id, .version = v, __VA_ARGS__)
/* Member 10 has the unit, by its request 1, in version 2. */
#define WHOLE                                      \
	READ(10, ID(1), .flags = UNIT, .page = 3), \
		GIVES(10, ID(1), V(2), .flags = ZERO | UNIT, .page = 3)
#define ASKS(type_, n, ...) \
	SENT(type_, 10, .request = OWN(n), .grant = ID(1), .version = V(2), __VA_ARGS__)
#define SAYS(type_, n, ...) \
	IN(type_, 10, .request = OWN(n), .grant = ID(1), .version = V(2), __VA_ARGS__)
#define STORED(n, ...) \
	SENT(WRITE_BACK_ACK, 10, .request = OWN(n), .grant = ID(1), .version = V(2), __VA_ARGS__)

static const struct rig_case home[] = {
	CASE("an untouched unit is granted whole, without an entry", WHOLE, DO(HOME, .page = 3),
	     DO(HOME, .page = 4), COUNTED(home_units, 1), COUNTED(pages_homed, 0)),
	CASE("asked again, it is granted again", WHOLE, READ(10, ID(1), .flags = UNIT, .page = 3),
	     GIVES(10, ID(1), V(2), .flags = ZERO | UNIT, .page = 3), COUNTED(home_units, 1)),
	CASE("who does not ask for the whole gets the page", ACQUIRE(10, ID(1), .page = 3),
	     GIVES(10, ID(1), V(2), .flags = ZERO, .page = 3), COUNTED(home_units, 0)),
	CASE("a touched unit is not granted whole", READ(9, ID(1), .page = 3),
	     GIVES(9, ID(1), V(1), .flags = ZERO, .page = 3),
	     READ(10, ID(1), .flags = UNIT, .page = 4),
	     GIVES(10, ID(1), V(2), .flags = ZERO, .page = 4)),
	CASE("one page is split off, the owner asked for it", WHOLE, ACQUIRE(9, ID(1), .page = 5),
	     ASKS(FETCH_AND_INVALIDATE, 1, .page = 5),
	     DO(HOME, .page = 5, .state = WVM_HOME_MODIFIED, .holders = 1, .version = V(1),
		.grant = ID(1), .slot = 1),
	     SAYS(WRITE_BACK, 1, .page = 5, .fill = 0x55), STORED(1, .page = 5),
	     GIVES(9, ID(1), V(3), .source = WVM_DATA_STORE, .page = 5),
	     /* The rest is the owner's still. */
	     READ(9, ID(2), .page = 6), ASKS(DOWNGRADE, 2, .page = 6), COUNTED(pages_homed, 2)),
	CASE("never taken: none of it, and nobody is asked again", WHOLE,
	     ACQUIRE(9, ID(1), .page = 5), ASKS(FETCH_AND_INVALIDATE, 1, .page = 5),
	     SAYS(NOT_HELD, 1, .page = 5), GIVES(9, ID(1), V(3), .flags = ZERO, .page = 5),
	     READ(9, ID(2), .page = 6), GIVES(9, ID(2), V(4), .flags = ZERO, .page = 6),
	     COUNTED(home_units_refused, 1)),
	CASE("never taken, and asked of two pages at once", WHOLE, ACQUIRE(9, ID(1), .page = 5),
	     ASKS(FETCH_AND_INVALIDATE, 1, .page = 5), READ(8, ID(1), .page = 6),
	     ASKS(DOWNGRADE, 2, .page = 6), SAYS(NOT_HELD, 1, .page = 5),
	     GIVES(9, ID(1), V(3), .flags = ZERO, .page = 5), SAYS(NOT_HELD, 2, .page = 6),
	     GIVES(8, ID(1), V(1), .flags = ZERO, .page = 6), COUNTED(home_units_refused, 1)),
	CASE("a newer request of the owner proves nothing: it is asked", WHOLE,
	     READ(10, ID(2), .page = 5), ASKS(FETCH_AND_INVALIDATE, 1, .page = 5)),
	CASE("what the owner lost is one page", WHOLE, ACQUIRE(9, ID(1), .page = 5),
	     ASKS(FETCH_AND_INVALIDATE, 1, .page = 5), SAYS(LOST, 1, .page = 5),
	     GIVES(9, ID(1), 0, .flags = WVM_MSG_ERROR, .page = 5), READ(9, ID(2), .page = 6),
	     ASKS(DOWNGRADE, 2, .page = 6)),
	CASE("it outlives its home", WHOLE, DO(KILL), DO(ADOPTED), ACQUIRE(9, ID(1), .page = 5),
	     SENT(FETCH_AND_INVALIDATE, 10, .request = RIG_ID(RIG_BOOT + 1, RIG_SHARD, 1),
		  .grant = ID(1), .version = V(2), .page = 5)),
};

/* ---- the holder -------------------------------------------------------------------------- */

static void let_hold_end(struct rig *r)
{
	r->now_ns += r->params.times.hold_max_ns;
}

#define AFTER_HOLD       DO(PASS, .ns = 0), DO(CALL, .call = let_hold_end)
#define LOADS(c, n)      DO(FAULT, .slot = c, .page = n)
#define STORES(c, n)     DO(FAULT, .slot = c, .flags = 1, .page = n)
#define GRANT(n, v, ...) IN(MEM_ACK, H, .request = OWN(n), .version = v, __VA_ARGS__)
#define ASK(type_, ...) \
	IN(type_, H, .request = ID(1), .grant = OWN(1), .version = V(2), __VA_ARGS__)
#define ANSWER(type_, ...) \
	SENT(type_, H, .request = ID(1), .grant = OWN(1), .version = V(2), __VA_ARGS__)
#define FILLS(n, c, w)         ACT(FILL, .page = n, .count = c, .waiters = w)
#define FILLS_BOTH(n, b, c, w) ACT(FILL, .page = n, .below = b, .count = c, .waiters = w)
/* The unit is this node's, and a thread of client 0 has page 16. */
#define MINE                                                                               \
	STORES(0, 16), SENT(MEM_ACQUIRE, H, .request = OWN(1), .flags = UNIT, .page = 16), \
		GRANT(1, V(2), .flags = ZERO | UNIT, .page = 16), FILLS(16, 8, 1)

static void take_back(struct rig *r)
{
	wvm_core_unfilled(r->core, 0, 17);
}

static const struct rig_case holder[] = {
	CASE("after one answer the rest is local", MINE, LOADS(0, 200), FILLS(200, 8, 1),
	     STORES(1, 300), FILLS_BOTH(300, 4, 4, 2), COUNTED(requests_sent, 1), DO(IDLE)),
	CASE("pages in a row are filled twice as many at a time", MINE, STORES(0, 24),
	     FILLS(24, 16, 1), STORES(0, 40), FILLS(40, 32, 1), STORES(0, 72), FILLS(72, 64, 1),
	     STORES(0, 136), FILLS(136, 128, 1), STORES(0, 264), FILLS(264, 248, 1)),
	CASE("and so do those that go downwards", MINE, STORES(0, 407), FILLS_BOTH(407, 7, 1, 1),
	     STORES(0, 399), FILLS_BOTH(399, 15, 1, 1), STORES(0, 383), FILLS_BOTH(383, 31, 1, 1),
	     STORES(1, 351), FILLS_BOTH(351, 63, 1, 2), DO(IDLE)),
	CASE("others wait for the one that asks for the whole", LOADS(0, 16),
	     SENT(MEM_READ, H, .request = OWN(1), .flags = UNIT, .page = 16), STORES(1, 20),
	     LOADS(2, 500), GRANT(1, V(2), .flags = ZERO | UNIT, .page = 16),
	     FILLS_BOTH(500, 4, 4, 4), FILLS_BOTH(20, 4, 4, 2), FILLS(16, 8, 1),
	     COUNTED(requests_sent, 1), DO(IDLE)),
	CASE("they are sent when a page alone is granted", LOADS(0, 16),
	     SENT(MEM_READ, H, .request = OWN(1), .flags = UNIT, .page = 16), STORES(1, 20),
	     GRANT(1, V(1), .flags = ZERO, .page = 16), ACT(INSTALL, .waiters = 1, .page = 16),
	     SENT(MEM_ACQUIRE, H, .request = OWN(2), .page = 20), LOADS(0, 30),
	     SENT(MEM_READ, H, .request = OWN(3), .page = 30)),
	CASE("they do not wait for long: the first is asked for alone", LOADS(0, 16),
	     SENT(MEM_READ, H, .request = OWN(1), .flags = UNIT, .page = 16),
	     DO(PASS, .ns = 1000000), STORES(1, 20), DO(TICK),
	     /* Its first retry, then the others' patience ends. */
	     SENT(MEM_READ, H, .request = OWN(1), .flags = UNIT, .page = 16), DO(TICK),
	     SENT(MEM_ACQUIRE, H, .request = OWN(2), .page = 20),
	     SENT(MEM_READ, H, .request = OWN(3), .page = 16),
	     GRANT(1, V(2), .flags = ZERO | UNIT, .page = 16, LESS(STALE))),
	CASE("the whole is taken for no other request", LOADS(0, 16),
	     SENT(MEM_READ, H, .request = OWN(1), .flags = UNIT, .page = 16),
	     GRANT(1, V(1), .flags = ZERO, .page = 16), ACT(INSTALL, .waiters = 1, .page = 16),
	     STORES(1, 20), SENT(MEM_ACQUIRE, H, .request = OWN(2), .page = 20),
	     GRANT(2, V(2), .flags = ZERO | UNIT, .page = 20, LESS(STALE)),
	     SENT(MEM_ACQUIRE, H, .request = OWN(3), .page = 20), COUNTED(units_taken, 0)),
	CASE("a FETCH splits its page off", MINE, AFTER_HOLD, ASK(FETCH_AND_INVALIDATE, .page = 17),
	     ACT(PROTECT, .page = 17), ACT(SAVE, .page = 17), ACT(PUNCH, .page = 17),
	     ANSWER(WRITE_BACK, .page = 17, .source = WVM_DATA_OUTBOX), LOADS(0, 18),
	     FILLS(18, 6, 1), LOADS(0, 17), COUNTED(requests_blocked, 1),
	     IN(WRITE_BACK_ACK, H, .request = ID(1), .grant = OWN(1), .version = V(2), .page = 17),
	     SENT(MEM_READ, H, .request = OWN(2), .page = 17)),
	CASE("a DOWNGRADE leaves a page that is there for all programs", MINE, AFTER_HOLD,
	     ASK(DOWNGRADE, .page = 17), ACT(PROTECT, .page = 17), ACT(SETTLE, .page = 17),
	     ANSWER(WRITE_BACK, .page = 17, .flags = KEEP, .source = WVM_DATA_RAM), LOADS(1, 17),
	     ACT(PROTECT, .page = 17), ACT(SETTLE, .page = 17, .waiters = 2)),
	CASE("pages that nobody has used are counted, and go one by one like others", MINE,
	     COUNTED(pages_untouched, WVM_UNIT_PAGES - 8), COUNTED(pages_modified, 8), AFTER_HOLD,
	     DO(EVICT, .page = 90), ACT(PROTECT, .page = 90), ACT(SAVE, .page = 90),
	     ACT(PUNCH, .page = 90),
	     SENT(WRITE_BACK, H, .request = OWN(1), .grant = OWN(1), .version = V(2), .page = 90,
		  .source = WVM_DATA_OUTBOX),
	     COUNTED(pages_untouched, WVM_UNIT_PAGES - 9), COUNTED(pages_modified, 8),
	     DO(EVICT, .page = 17), ACT(PROTECT, .page = 17), ACT(SAVE, .page = 17, .slot = 1),
	     ACT(PUNCH, .page = 17),
	     SENT(WRITE_BACK, H, .request = OWN(1), .grant = OWN(1), .version = V(2), .page = 17,
		  .source = WVM_DATA_OUTBOX, .slot = 1),
	     COUNTED(pages_untouched, WVM_UNIT_PAGES - 9), COUNTED(pages_modified, 7),
	     COUNTED(writebacks_now, 2)),
	CASE("one that is pinned is used", MINE, DO(PIN, .page = 40, .drop = WVM_PIN_HELD),
	     COUNTED(pages_untouched, WVM_UNIT_PAGES - 9), COUNTED(pages_modified, 9)),
	CASE("one whose room is taken back is not", MINE, DO(CALL, .call = take_back),
	     COUNTED(pages_untouched, WVM_UNIT_PAGES - 7), COUNTED(pages_modified, 7), LOADS(0, 17),
	     FILLS_BOTH(17, 1, 7, 1), COUNTED(pages_untouched, WVM_UNIT_PAGES - 8)),
	CASE("its pages have their hold time", MINE, ASK(FETCH_AND_INVALIDATE, .page = 16),
	     DO(TICK), ACT(PROTECT, .page = 16), ACT(SAVE, .page = 16), ACT(PUNCH, .page = 16),
	     ANSWER(WRITE_BACK, .page = 16, .source = WVM_DATA_OUTBOX)),
	CASE("a demand for another page overtakes the grant, and is obeyed", STORES(0, 16),
	     SENT(MEM_ACQUIRE, H, .request = OWN(1), .flags = UNIT, .page = 16),
	     ASK(FETCH_AND_INVALIDATE, .page = 90),
	     GRANT(1, V(2), .flags = ZERO | UNIT, .page = 16), FILLS(16, 8, 1), DO(TICK),
	     ACT(PROTECT, .page = 90), ACT(SAVE, .page = 90), ACT(PUNCH, .page = 90),
	     ANSWER(WRITE_BACK, .page = 90, .source = WVM_DATA_OUTBOX)),
	CASE("the whole is refused for one page, and never taken", STORES(0, 16),
	     SENT(MEM_ACQUIRE, H, .request = OWN(1), .flags = UNIT, .page = 16),
	     ASK(FETCH_AND_INVALIDATE, .page = 90), DO(TICK),
	     SENT(MEM_ACQUIRE, H, .request = OWN(1), .flags = UNIT, .page = 16),
	     DO(CALL, .call = let_hold_end), DO(CALL, .call = let_hold_end),
	     ASK(FETCH_AND_INVALIDATE, .page = 90), ANSWER(NOT_HELD, .page = 90),
	     SENT(MEM_ACQUIRE, H, .request = OWN(2), .flags = UNIT, .page = 16),
	     GRANT(1, V(2), .flags = ZERO | UNIT, .page = 16, LESS(STALE)),
	     COUNTED(units_taken, 0)),
	CASE("a pin splits its page off", MINE, DO(PIN, .page = 40, .drop = WVM_PIN_HELD),
	     DO(HELD, .page = 40, .state = WVM_HELD_MODIFIED, .version = V(2), .grant = OWN(1)),
	     AFTER_HOLD, ASK(FETCH_AND_INVALIDATE, .page = 40), DO(UNPIN, .page = 40), DO(TICK),
	     ACT(PROTECT, .page = 40), ACT(SAVE, .page = 40), ACT(PUNCH, .page = 40),
	     ANSWER(WRITE_BACK, .page = 40, .source = WVM_DATA_OUTBOX)),
	CASE("it outlives its master, pages and holes alike", MINE, DO(KILL),
	     DO(ADOPT, .page = 16, .flags = 1), DO(ADOPT, .page = 17, .flags = 0), DO(ADOPTED),
	     COUNTED(pages_modified, 8), COUNTED(pages_untouched, WVM_UNIT_PAGES - 8), LOADS(0, 17),
	     FILLS_BOTH(17, 1, 7, 1), AFTER_HOLD, ASK(FETCH_AND_INVALIDATE, .page = 17),
	     ACT(PROTECT, .page = 17), ACT(SAVE, .page = 17), ACT(PUNCH, .page = 17),
	     ANSWER(WRITE_BACK, .page = 17, .source = WVM_DATA_OUTBOX)),
	CASE("killed before it is removed, what was split off is removed", MINE, AFTER_HOLD,
	     ASK(FETCH_AND_INVALIDATE, .page = 17), ACT(PROTECT, .page = 17), DO(KILL),
	     DO(ADOPT, .page = 17, .flags = 0), ACT(PROTECT, .page = 17), ACT(SAVE, .page = 17),
	     ACT(PUNCH, .page = 17)),
	CASE("killed after it was saved, the saved bytes stay", MINE, AFTER_HOLD,
	     ASK(FETCH_AND_INVALIDATE, .page = 17), ACT(PROTECT, .page = 17), ACT(SAVE, .page = 17),
	     ACT(PUNCH, .page = 17), DO(KILL), DO(ADOPT, .page = 17, .flags = 0),
	     ACT(PROTECT, .page = 17), ACT(PUNCH, .page = 17)),
};

/* A unit says that something of it is held for as long as anything is. */
START_TEST(a_unit_is_held_until_its_last_page_has_gone)
{
	static const struct rig_step mine[] = {MINE};
	const struct wvm_core_vm *vm;
	struct rig r;

	rig_open(&r, H, NULL);
	r.core->params.units = true;
	vm = wvm_core_vm_at(r.core, 0);
	ck_assert(!wvm_core_unit_held(vm, 0));
	for (const struct rig_step *s = mine; s < mine + sizeof(mine) / sizeof(*mine); s++)
		rig_do(&r, *s);
	r.now_ns += r.params.times.hold_max_ns;
	for (uint64_t page = 0; page < WVM_UNIT_PAGES; page++) {
		struct rig_step back = IN(WRITE_BACK_ACK, H, .request = OWN(1), .grant = OWN(1),
					  .version = V(2), .page = page);

		ck_assert(wvm_core_unit_held(vm, page));
		ck_assert_int_eq(wvm_core_evict(r.core, r.now_ns, 0, page), WVM_EVICT_DONE);
		while (wvm_core_action(r.core))
			;
		ck_assert_uint_eq(wvm_core_stats(r.core)->writebacks_now, 1);
		rig_do(&r, back);
	}
	ck_assert(!wvm_core_unit_held(vm, 0));
	ck_assert_uint_eq(wvm_core_stats(r.core)->pages_untouched, 0);
	ck_assert_uint_eq(wvm_core_stats(r.core)->pages_modified, 0);
	ck_assert_uint_eq(wvm_core_stats(r.core)->writebacks_now, 0);
	rig_close(&r);
}
END_TEST

START_TEST(a_home_grants_units_whole_and_page_by_page)
{
	rig_run_units(RIG_SELF, &home[_i], false);
}
END_TEST

START_TEST(a_holder_takes_units_whole_and_gives_pages_up)
{
	rig_run_units(H, &holder[_i], false);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_home_grants_units_whole_and_page_by_page, 0, CASES(home));
	tcase_add_loop_test(tc, a_holder_takes_units_whole_and_gives_pages_up, 0, CASES(holder));
	tcase_add_test(tc, a_unit_is_held_until_its_last_page_has_gone);
}

int main(void)
{
	return rig_main("unit", add);
}

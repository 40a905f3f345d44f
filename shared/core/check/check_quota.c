/*
 * What waits for somebody who is gone, or for a pin, leaves room for all others:
 * in the slots for demands and in the window of requests.
 */
#include "shared/core/check/rig.h"

#define GONE  3u            /* home of unit 0, which does not answer any more */
#define ALIVE RIG_ELSEWHERE /* home of unit 1 */
#define SLOTS 64u
#define TXN   1u

/* Request ids of the core so far, and the one that each page was granted to. */
static uint32_t ids, id_of[RIG_PAGES];

static void open_with(struct rig *r, uint32_t slots)
{
	struct wvm_core_limits l;

	wvm_core_default_limits(&l);
	l.demands = slots;
	rig_open(r, GONE, &l);
	r->name = "quota";
	ids = 0;
}

static uint32_t home_of(uint64_t page)
{
	return page < RIG_OTHER ? GONE : ALIVE;
}

/* This node gets the page Modified. */
static void own(struct rig *r, uint64_t page)
{
	uint32_t id = id_of[page] = ++ids;

	rig_do(r, (struct rig_step)DO(FAULT, .flags = 1, .page = page));
	rig_do(r,
	       (struct rig_step)SENT(MEM_ACQUIRE, home_of(page), .request = OWN(id), .page = page));
	rig_do(r, (struct rig_step)IN(MEM_ACK, home_of(page), .request = OWN(id), .version = V(id),
				      .flags = WVM_MSG_ZERO, .page = page));
	rig_do(r, (struct rig_step)ACT(INSTALL, .waiters = 1, .writable = true, .page = page));
}

static void let_hold_end(struct rig *r)
{
	r->now_ns += r->params.times.hold_max_ns;
}

/* The home asks for it. What the core said; its actions are taken. */
static enum wvm_drop fetch(struct rig *r, uint64_t page)
{
	uint32_t id = id_of[page];
	struct rig_step s = IN(FETCH_AND_INVALIDATE, home_of(page), .request = ID(TXN),
			       .grant = OWN(id), .version = V(id), .page = page);
	struct wvm_msg m = rig_msg(&s);
	enum wvm_drop drop = wvm_core_message(r->core, r->now_ns, &m, NULL);

	while (wvm_core_action(r->core))
		;
	return drop;
}

static void stored(struct rig *r, uint64_t page)
{
	uint32_t id = id_of[page];

	rig_do(r, (struct rig_step)IN(WRITE_BACK_ACK, home_of(page), .request = ID(TXN),
				      .grant = OWN(id), .version = V(id), .page = page));
}

/* Pages 0 .. n - 1; returns how many of them the core has begun to write back. */
static uint32_t fill(struct rig *r, uint32_t n)
{
	uint32_t begun = 0;

	for (uint32_t i = 0; i < n; i++)
		own(r, i);
	let_hold_end(r);
	for (uint32_t i = 0; i < n; i++)
		begun += fetch(r, i) == WVM_DROP_NONE;
	return begun;
}

START_TEST(write_backs_to_a_home_that_is_gone_leave_room_for_others)
{
	struct rig r;
	uint32_t begun, taken = 0;

	open_with(&r, SLOTS);
	begun = fill(&r, 2 * SLOTS);
	ck_assert_uint_ge(begun, SLOTS / 4);
	for (uint32_t i = 0; i < SLOTS / 4; i++)
		own(&r, RIG_OTHER + i);
	let_hold_end(&r);
	for (uint32_t i = 0; i < SLOTS / 4; i++)
		taken += fetch(&r, RIG_OTHER + i) == WVM_DROP_NONE;
	ck_assert_uint_eq(taken, SLOTS / 4);
	for (uint32_t i = 0; i < SLOTS / 4; i++)
		stored(&r, RIG_OTHER + i);
	rig_close(&r);
}
END_TEST

/* What a home has got back comes free for it again, to the last slot. */
START_TEST(a_home_that_answers_gets_its_slots_again)
{
	struct rig r;
	uint32_t begun;

	open_with(&r, SLOTS);
	begun = fill(&r, 2 * SLOTS);
	for (uint32_t round = 0; round < 5; round++) {
		uint32_t again = 0;

		for (uint32_t i = 0; i < begun; i++)
			stored(&r, round * begun + i);
		if ((round + 2) * begun > 2 * SLOTS)
			break;
		for (uint32_t i = 0; i < begun; i++) {
			uint32_t at = (round + 1) * begun + i;

			again += fetch(&r, at) == WVM_DROP_NONE;
		}
		ck_assert_uint_eq(again, begun);
	}
	rig_close(&r);
}
END_TEST

START_TEST(one_slot_serves_every_home_in_turn)
{
	struct rig r;

	open_with(&r, 1);
	own(&r, 0);
	own(&r, RIG_OTHER);
	let_hold_end(&r);
	ck_assert_int_eq(fetch(&r, 0), WVM_DROP_NONE);
	ck_assert_int_eq(fetch(&r, RIG_OTHER), WVM_DROP_ROOM);
	stored(&r, 0);
	ck_assert_int_eq(fetch(&r, RIG_OTHER), WVM_DROP_NONE);
	rig_close(&r);
}
END_TEST

START_TEST(pinned_pages_that_are_asked_for_leave_room_for_others)
{
	struct rig r;
	uint32_t parked = 0, taken = 0;

	open_with(&r, SLOTS);
	for (uint32_t i = 0; i < 2 * SLOTS; i++) {
		own(&r, i);
		rig_do(&r, (struct rig_step)DO(PIN, .page = i, .drop = WVM_PIN_HELD));
	}
	let_hold_end(&r);
	for (uint32_t i = 0; i < 2 * SLOTS; i++)
		parked += fetch(&r, i) == WVM_DROP_NONE;
	ck_assert_uint_gt(parked, 0);
	ck_assert_uint_le(parked, SLOTS / 8);
	/* Others of the same home, and of another one. */
	for (uint32_t i = 0; i < SLOTS / 4; i++) {
		own(&r, 300 + i);
		own(&r, RIG_OTHER + i);
	}
	let_hold_end(&r);
	for (uint32_t i = 0; i < SLOTS / 4; i++) {
		taken += fetch(&r, 300 + i) == WVM_DROP_NONE;
		taken += fetch(&r, RIG_OTHER + i) == WVM_DROP_NONE;
	}
	ck_assert_uint_eq(taken, SLOTS / 2);
	rig_close(&r);
}
END_TEST

/* Those with a slot leave at the unpin, the others when the home asks again. */
START_TEST(unpinned_pages_leave_and_give_their_place_to_others)
{
	struct rig r;

	open_with(&r, 8);
	for (uint32_t i = 0; i < 3; i++) {
		own(&r, i);
		rig_do(&r, (struct rig_step)DO(PIN, .page = i, .drop = WVM_PIN_HELD));
	}
	let_hold_end(&r);
	ck_assert_int_eq(fetch(&r, 0), WVM_DROP_NONE);
	ck_assert_int_eq(fetch(&r, 1), WVM_DROP_ROOM);
	rig_do(&r, (struct rig_step)DO(UNPIN, .page = 0));
	rig_do(&r, (struct rig_step)DO(TICK, .ns = 1));
	rig_do(&r, (struct rig_step)ACT(PROTECT));
	rig_do(&r, (struct rig_step)ACT(SAVE));
	rig_do(&r, (struct rig_step)ACT(PUNCH));
	rig_do(&r, (struct rig_step)SENT(WRITE_BACK, GONE, .request = ID(TXN), .grant = OWN(1),
					 .version = V(1), .source = WVM_DATA_OUTBOX));
	ck_assert_int_eq(fetch(&r, 1), WVM_DROP_NONE);
	ck_assert_int_eq(fetch(&r, 2), WVM_DROP_ROOM);
	rig_do(&r, (struct rig_step)DO(UNPIN, .page = 2));
	ck_assert_int_eq(fetch(&r, 2), WVM_DROP_NONE);
	rig_close(&r);
}
END_TEST

/* A page that is pinned while its hold time runs: the demand finds no place, and is asked again. */
START_TEST(a_demand_that_meets_a_pin_too_many_is_dropped_and_taken_again)
{
	struct rig r;

	open_with(&r, 8);
	own(&r, 0);
	own(&r, 1);
	ck_assert_int_eq(fetch(&r, 0), WVM_DROP_NONE);
	ck_assert_int_eq(fetch(&r, 1), WVM_DROP_NONE);
	rig_do(&r, (struct rig_step)DO(PIN, .page = 0, .drop = WVM_PIN_HELD));
	rig_do(&r, (struct rig_step)DO(PIN, .page = 1, .drop = WVM_PIN_HELD));
	rig_do(&r, (struct rig_step)DO(TICK));
	rig_do(&r, (struct rig_step)DO(TICK));
	rig_do(&r, (struct rig_step)DO(IDLE));
	ck_assert_uint_eq(!!r.held[0].demand + !!r.held[1].demand, 1);
	rig_do(&r, (struct rig_step)DO(UNPIN, .page = 0));
	rig_do(&r, (struct rig_step)DO(UNPIN, .page = 1));
	ck_assert_int_eq(fetch(&r, 0), WVM_DROP_NONE);
	ck_assert_int_eq(fetch(&r, 1), WVM_DROP_NONE);
	ck_assert(r.held[0].demand && r.held[1].demand);
	rig_close(&r);
}
END_TEST

/*
 * Requests that wait at a home for somebody who is gone are tried again, and shrink
 * the window to its least. They must not fill it: the home answers all others.
 */
START_TEST(requests_that_wait_at_a_home_keep_no_others_from_it)
{
	enum { WAITING = 2 * WVM_WINDOW_MIN / WVM_WINDOW_ONE + 5 };
	const struct wvm_action *a;
	struct rig r;

	open_with(&r, SLOTS);
	for (uint32_t i = 0; i < WAITING; i++) {
		rig_do(&r, (struct rig_step)DO(FAULT, .page = i));
		rig_do(&r, (struct rig_step)SENT(MEM_READ, GONE, .request = OWN(i + 1), .page = i));
	}
	for (uint64_t end = r.now_ns + UINT64_C(3000000000); wvm_core_deadline(r.core) < end;) {
		r.now_ns = wvm_core_deadline(r.core);
		wvm_core_tick(r.core, r.now_ns);
		while ((a = wvm_core_action(r.core)))
			ck_assert_int_eq(a->kind, WVM_ACT_SEND);
	}
	for (uint32_t i = 100; i < 200; i++) {
		rig_do(&r, (struct rig_step)DO(FAULT, .page = i));
		rig_do(&r, (struct rig_step)SENT(MEM_READ, GONE, .request = OWN(WAITING + i - 99),
						 .page = i));
		rig_do(&r, (struct rig_step)IN(MEM_ACK, GONE, .request = OWN(WAITING + i - 99),
					       .version = V(5), .flags = WVM_MSG_ZERO, .page = i));
		rig_do(&r, (struct rig_step)ACT(INSTALL, .waiters = 1, .page = i));
	}
	rig_close(&r);
}
END_TEST

static void add(TCase *t)
{
	tcase_add_test(t, write_backs_to_a_home_that_is_gone_leave_room_for_others);
	tcase_add_test(t, a_home_that_answers_gets_its_slots_again);
	tcase_add_test(t, requests_that_wait_at_a_home_keep_no_others_from_it);
	tcase_add_test(t, one_slot_serves_every_home_in_turn);
	tcase_add_test(t, pinned_pages_that_are_asked_for_leave_room_for_others);
	tcase_add_test(t, unpinned_pages_leave_and_give_their_place_to_others);
	tcase_add_test(t, a_demand_that_meets_a_pin_too_many_is_dropped_and_taken_again);
}

int main(void)
{
	return rig_main("quota", add);
}

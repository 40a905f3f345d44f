/*
 * Pages given up for lack of memory: Shared ones without a word, Modified ones
 * by a write-back that nobody asked for. The home's part of it as well.
 */
#include "shared/core/check/rig.h"

#define H 3u /* the home of page 0 in the holder's cases */
#define A 10u
#define B 9u

#define ZERO WVM_MSG_ZERO
#define HELD WVM_MSG_HELD
#define KEEP WVM_MSG_KEEP

#define GRANT(n, v, ...) IN(MEM_ACK, H, .request = OWN(n), .version = v, __VA_ARGS__)
#define READS(n, client) DO(FAULT, .slot = client), SENT(MEM_READ, H, .request = OWN(n))
#define WRITES(n, client) \
	DO(FAULT, .slot = client, .flags = 1), SENT(MEM_ACQUIRE, H, .request = OWN(n))
#define HAS_S READS(1, 0), GRANT(1, V(5), .fill = 0x55), ACT(INSTALL, .waiters = 1, .fill = 0x55)
#define HAS_M                                       \
	WRITES(1, 0), GRANT(1, V(5), .fill = 0x55), \
		ACT(INSTALL, .waiters = 1, .fill = 0x55, .writable = true)
#define AFTER_HOLD DO(PASS, .ns = 0), DO(CALL, .call = let_hold_end)
#define BUSY       .drop = WVM_EVICT_BUSY
#define ROOM       .drop = WVM_EVICT_ROOM
#define BACK(...)                                                                \
	SENT(WRITE_BACK, H, .request = OWN(1), .grant = OWN(1), .version = V(5), \
	     .source = WVM_DATA_OUTBOX, __VA_ARGS__)
#define STORED_          IN(WRITE_BACK_ACK, H, .request = OWN(1), .grant = OWN(1), .version = V(5))
#define GONE_M           HAS_M, AFTER_HOLD, DO(EVICT), ACT(PROTECT), ACT(SAVE), ACT(PUNCH), BACK()
#define GONE_S           HAS_S, AFTER_HOLD, DO(EVICT), ACT(PROTECT), ACT(PUNCH)
#define INVALID_         DO(HELD, .state = WVM_HELD_INVALID)
#define ASK(type_, n, v) IN(type_, H, .request = ID(1), .grant = OWN(n), .version = v)
#define ANSWER(type_, n, v, ...) \
	SENT(type_, H, .request = ID(1), .grant = OWN(n), .version = v, __VA_ARGS__)

static void let_hold_end(struct rig *r)
{
	r->now_ns += r->params.times.hold_max_ns;
}

static void hold_is_short(struct rig *r)
{
	rig_assert(r, r->held[0].hold_until_ns == r->now_ns + r->params.times.hold_min_ns,
		   "the page is held for %lu ns", r->held[0].hold_until_ns - r->now_ns);
}

static const struct rig_case holder[] = {
	CASE("what is not held cannot go", DO(EVICT, BUSY), DO(IDLE)),
	CASE("a Shared copy goes without a word", GONE_S, INVALID_, COUNTED(evicted_shared, 1),
	     COUNTED(pages_shared, 0), DO(IDLE)),
	CASE("the home that still counts on it is answered", GONE_S, ASK(INVALIDATE, 1, V(5)),
	     ANSWER(INVALIDATE_ACK, 1, V(5)), INVALID_),
	CASE("and the same version may come back", GONE_S, READS(2, 1),
	     GRANT(2, V(5), .fill = 0x55), ACT(INSTALL, .waiters = 2, .fill = 0x55),
	     DO(HELD, .state = WVM_HELD_SHARED, .grant = OWN(2), .version = V(5))),
	CASE("but no late copy of its grant", GONE_S, GRANT(1, V(5), .fill = 0x55, LESS(STALE)),
	     INVALID_),
	CASE("a Modified page is written back until it is acknowledged", GONE_M, INVALID_,
	     COUNTED(evicted_modified, 1), DO(TICK), BACK(), DO(TICK), BACK(), STORED_, DO(IDLE)),
	CASE("it is under way until then", HAS_M, AFTER_HOLD, COUNTED(writebacks_now, 0), DO(EVICT),
	     ACT(PROTECT), ACT(SAVE), ACT(PUNCH), BACK(), COUNTED(pages_modified, 0),
	     COUNTED(writebacks_now, 1), DO(TICK), BACK(), COUNTED(writebacks_now, 1), STORED_,
	     COUNTED(writebacks_now, 0)),
	CASE("also what stays as a Shared copy", HAS_M, AFTER_HOLD, ASK(DOWNGRADE, 1, V(5)),
	     ACT(PROTECT), ANSWER(WRITE_BACK, 1, V(5), .flags = KEEP, .source = WVM_DATA_RAM),
	     COUNTED(writebacks_now, 1), COUNTED(pages_shared, 1),
	     IN(WRITE_BACK_ACK, H, .request = ID(1), .grant = OWN(1), .version = V(5)),
	     COUNTED(writebacks_now, 0)),
	CASE("what waits for its hold time is not", HAS_M, ASK(FETCH_AND_INVALIDATE, 1, V(5)),
	     COUNTED(writebacks_now, 0), COUNTED(pages_modified, 1)),
	CASE("its refault waits for the acknowledgement", GONE_M, DO(FAULT, .slot = 1), STORED_,
	     SENT(MEM_READ, H, .request = OWN(2))),
	CASE("it is not lost in a fight: its hold time stays", GONE_M, STORED_, WRITES(2, 1),
	     GRANT(2, V(6), .fill = 0x66),
	     ACT(INSTALL, .waiters = 2, .fill = 0x66, .writable = true),
	     DO(CALL, .call = hold_is_short)),
	CASE("a FETCH that crosses it is answered by the same bytes", GONE_M,
	     ASK(FETCH_AND_INVALIDATE, 1, V(5)),
	     ANSWER(WRITE_BACK, 1, V(5), .source = WVM_DATA_OUTBOX),
	     IN(WRITE_BACK_ACK, H, .request = ID(1), .grant = OWN(1), .version = V(5)), DO(IDLE)),
	CASE("a DOWNGRADE, too, and no copy stays", GONE_M, ASK(DOWNGRADE, 1, V(5)),
	     ANSWER(WRITE_BACK, 1, V(5), .source = WVM_DATA_OUTBOX), INVALID_),
	CASE("a late FETCH after it is a grant long over", GONE_M, STORED_,
	     ASK(FETCH_AND_INVALIDATE, 1, V(5)), ANSWER(NOT_HELD, 1, V(5))),
	CASE("not within its hold time", HAS_M, DO(EVICT, BUSY), DO(IDLE)),
	CASE("not while it is pinned", HAS_M, AFTER_HOLD, DO(PIN, .drop = WVM_PIN_HELD),
	     DO(EVICT, BUSY), DO(UNPIN), DO(EVICT), ACT(PROTECT), ACT(SAVE), ACT(PUNCH), BACK()),
	CASE("not while an upgrade is under way", HAS_S, AFTER_HOLD,
	     DO(FAULT, .slot = 1, .flags = 1),
	     SENT(MEM_ACQUIRE, H, .request = OWN(2), .flags = HELD, .version = V(5)),
	     DO(EVICT, BUSY)),
	CASE("not while its home waits for a write-back", HAS_M, AFTER_HOLD,
	     ASK(DOWNGRADE, 1, V(5)), ACT(PROTECT),
	     ANSWER(WRITE_BACK, 1, V(5), .flags = KEEP, .source = WVM_DATA_RAM), DO(EVICT, BUSY)),
	CASE("the next life writes it back", GONE_M, DO(KILL), DO(ADOPT), DO(ADOPTED), INVALID_,
	     DO(TICK), BACK(), COUNTED(writebacks_now, 1), STORED_, COUNTED(writebacks_now, 0),
	     DO(IDLE)),
	CASE("also when the page was still to go, with what was stored since", HAS_M, AFTER_HOLD,
	     DO(EVICT), ACT(PROTECT), DO(KILL), DO(ADOPT, .flags = 1), ACT(PROTECT), ACT(SAVE),
	     ACT(PUNCH), DO(ADOPTED), DO(TICK), BACK()),
	CASE("a Shared copy that was still to go goes in the next life", HAS_S, AFTER_HOLD,
	     DO(EVICT), ACT(PROTECT), DO(KILL), DO(ADOPT, .flags = 1), ACT(PROTECT), ACT(PUNCH),
	     DO(ADOPTED), INVALID_, DO(IDLE)),
};

#define OWNER                                 \
	IN(MEM_ACQUIRE, A, .request = ID(1)), \
		SENT(MEM_ACK, A, .request = ID(1), .version = V(2), .flags = ZERO)
#define GIVES_BACK \
	IN(WRITE_BACK, A, .request = ID(1), .grant = ID(1), .version = V(2), .fill = 0xa1)
#define TAKEN           SENT(WRITE_BACK_ACK, A, .request = ID(1), .grant = ID(1), .version = V(2))
#define AT_HOME         DO(HOME, .state = WVM_HOME_HOME, .version = V(2), .flags = WVM_HOME_WRITTEN)
#define DEMANDED(type_) SENT(type_, A, .request = OWN(1), .grant = ID(1), .version = V(2))

static const struct rig_case home[] = {
	CASE("bytes that nobody asked for are stored", OWNER, GIVES_BACK, TAKEN, AT_HOME,
	     DO(STORED, .fill = 0xa1), DO(IDLE)),
	CASE("and acknowledged as often as they come", OWNER, GIVES_BACK, TAKEN, GIVES_BACK, TAKEN,
	     AT_HOME),
	CASE("never in place of a later owner's", OWNER, GIVES_BACK, TAKEN,
	     IN(MEM_ACQUIRE, B, .request = ID(1)),
	     SENT(MEM_ACK, B, .request = ID(1), .version = V(3), .source = WVM_DATA_STORE),
	     IN(WRITE_BACK, B, .request = ID(2), .grant = ID(1), .version = V(3), .fill = 0xb2),
	     SENT(WRITE_BACK_ACK, B, .request = ID(2), .grant = ID(1), .version = V(3)), GIVES_BACK,
	     TAKEN, DO(STORED, .fill = 0xb2)),
	CASE("they end a FETCH that crosses them", OWNER, IN(MEM_ACQUIRE, B, .request = ID(1)),
	     DEMANDED(FETCH_AND_INVALIDATE), GIVES_BACK, TAKEN,
	     SENT(MEM_ACK, B, .request = ID(1), .version = V(3), .source = WVM_DATA_STORE),
	     DO(HOME, .state = WVM_HOME_MODIFIED, .holders = 1, .version = V(2),
		.flags = WVM_HOME_WRITTEN)),
	CASE("and a DOWNGRADE, without a copy there", OWNER, IN(MEM_READ, B, .request = ID(1)),
	     DEMANDED(DOWNGRADE), GIVES_BACK, TAKEN,
	     SENT(MEM_ACK, B, .request = ID(1), .version = V(2), .source = WVM_DATA_STORE),
	     DO(HOME, .state = WVM_HOME_SHARED, .holders = 1, .version = V(2),
		.flags = WVM_HOME_WRITTEN)),
	CASE("the answer to what crossed them changes nothing", OWNER,
	     IN(MEM_READ, B, .request = ID(1)), DEMANDED(DOWNGRADE), GIVES_BACK, TAKEN,
	     SENT(MEM_ACK, B, .request = ID(1), .version = V(2), .source = WVM_DATA_STORE),
	     IN(NOT_HELD, A, .request = OWN(1), .grant = ID(1), .version = V(2), LESS(STALE)),
	     DO(HOME, .state = WVM_HOME_SHARED, .holders = 1, .version = V(2),
		.flags = WVM_HOME_WRITTEN)),
};

START_TEST(a_holder_gives_pages_up)
{
	struct rig r;

	rig_open(&r, H, NULL);
	rig_run(&r, &holder[_i]);
	rig_close(&r);
}
END_TEST

START_TEST(a_home_takes_what_it_did_not_ask_for)
{
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	rig_run(&r, &home[_i]);
	rig_close(&r);
}
END_TEST

#define SLOTS 8u

/* What its homes ask for finds a slot, however many pages leave unasked. */
START_TEST(pages_that_leave_unasked_leave_slots_to_homes)
{
	struct wvm_core_limits limits;
	struct rig r;

	wvm_core_default_limits(&limits);
	limits.demands = SLOTS;
	rig_open(&r, H, &limits);
	for (uint64_t p = 0; p < SLOTS; p++) {
		rig_do(&r, (struct rig_step)DO(FAULT, .page = p, .flags = 1));
		rig_do(&r, (struct rig_step)SENT(MEM_ACQUIRE, H, .page = p, .request = OWN(p + 1)));
		rig_do(&r, (struct rig_step)GRANT(p + 1, V(5 + p), .page = p, .fill = 0x55));
		rig_do(&r, (struct rig_step)ACT(INSTALL, .page = p, .waiters = 1, .fill = 0x55,
						.writable = true));
	}
	r.now_ns += r.params.times.hold_max_ns;
	for (uint64_t p = 0; p < SLOTS; p++) {
		enum wvm_evict said = wvm_core_evict(r.core, r.now_ns, 0, p);

		ck_assert_int_eq(said, p < SLOTS / 4 ? WVM_EVICT_DONE : WVM_EVICT_ROOM);
		while (wvm_core_action(r.core))
			;
	}
	ck_assert_uint_eq(r.core->demands_free, SLOTS - SLOTS / 4);
	/* An acknowledgement lets the next one go. */
	rig_do(&r, (struct rig_step)IN(WRITE_BACK_ACK, H, .request = OWN(1), .grant = OWN(1),
				       .version = V(5)));
	ck_assert_int_eq(wvm_core_evict(r.core, r.now_ns, 0, SLOTS - 1), WVM_EVICT_DONE);
	while (wvm_core_action(r.core))
		;
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_holder_gives_pages_up, 0, CASES(holder));
	tcase_add_loop_test(tc, a_home_takes_what_it_did_not_ask_for, 0, CASES(home));
	tcase_add_test(tc, pages_that_leave_unasked_leave_slots_to_homes);
}

int main(void)
{
	return rig_main("evict", add);
}

/* One core whose home changes under it: what it says to both sides, message by message. */
#include "shared/core/check/moved.h"

static struct wvm_slices table, other; /* of the next epoch, and of the one after it */

static const struct wvm_action *next_of(struct rig *r, uint32_t epoch, uint8_t type,
					uint32_t member)
{
	const struct wvm_action *a = wvm_core_action(r->core);

	ck_assert_ptr_nonnull(a);
	ck_assert_int_eq(a->kind, WVM_ACT_SEND);
	ck_assert_str_eq(wvm_msg_name(a->msg.type), wvm_msg_name(type));
	ck_assert_uint_eq(a->member, member);
	ck_assert_uint_eq(a->msg.epoch, epoch);
	return a;
}

static const struct wvm_action *next(struct rig *r, uint8_t type, uint32_t member)
{
	return next_of(r, NEXT, type, member);
}

/* Unit 0 goes from `from` to `to`. */
static void move(struct rig *r, uint32_t from, uint32_t to)
{
	rig_open(r, from, NULL);
	table = r->slices;
	table.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(to);
}

static enum wvm_epoch_taken change(struct rig *r, uint32_t epoch)
{
	return wvm_core_epoch(r->core, r->now_ns, epoch, &table);
}

START_TEST(a_former_home_serves_no_more_and_gives_what_it_has_once)
{
	struct wvm_msg m;
	const struct wvm_action *a;
	struct rig r;

	move(&r, RIG_SELF, RIG_ELSEWHERE);
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_ACQUIRE, 3, RIG_EPOCH, ID(1)), NULL), 0);
	ck_assert_ptr_nonnull(wvm_core_action(r.core));
	ck_assert_ptr_null(wvm_core_action(r.core));
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	ck_assert_uint_eq(wvm_core_handover(r.core).out, 1);
	/* The past is answered with the present; the present is not served. */
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_READ, 4, RIG_EPOCH, ID(2)), NULL),
			 WVM_DROP_EPOCH);
	next(&r, WVM_MSG_WRONG_HOME, 4);
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_READ, 4, NEXT, ID(2)), NULL), WVM_DROP_NODE);
	next(&r, WVM_MSG_WRONG_HOME, 4);
	/* Strangers get nothing. */
	m = message(WVM_MSG_HANDOVER, 4, NEXT, ID(3));
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NODE);
	m.src = RIG_VNODE(RIG_ELSEWHERE);
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NONE);
	a = next(&r, WVM_MSG_HANDOVER, RIG_ELSEWHERE);
	ck_assert_uint_eq(a->msg.flags, WVM_MSG_ANSWER);
	ck_assert_uint_eq(a->msg.payload_len, 68);
	ck_assert_ptr_null(wvm_core_action(r.core));
	ck_assert_int_eq(r.home[0].state, WVM_HOME_MODIFIED);
	/* A second move has to wait for the first. */
	other = r.slices;
	ck_assert_int_eq(wvm_core_epoch(r.core, r.now_ns, NEXT + 1, &other), WVM_EPOCH_BUSY);
	for (int i = 0; i < 2; i++) {
		m.type = WVM_MSG_HANDOVER_DONE;
		ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NONE);
		/* Each time: a life that ends before it has forgotten the bytes is asked again. */
		a = wvm_core_action(r.core);
		ck_assert(a->kind == WVM_ACT_FORGET && a->home);
		next(&r, WVM_MSG_HANDOVER_DONE, RIG_ELSEWHERE);
		ck_assert_ptr_null(wvm_core_action(r.core));
		ck_assert_uint_eq(wvm_core_handover(r.core).out, 0);
		ck_assert_uint_eq(r.home[0].version, 0);
	}
	ck_assert_uint_eq(wvm_core_taken(r.core, RIG_ELSEWHERE), 1);
	m.type = WVM_MSG_HANDOVER;
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_STALE);
	rig_close(&r);
}
END_TEST

START_TEST(a_new_home_serves_a_page_when_it_has_come_and_not_before)
{
	uint8_t entry[56] = {0}, page[WVM_PAGE_BYTES];
	const struct wvm_action *a;
	struct wvm_msg m;
	struct rig r;

	memset(page, 7, sizeof(page));
	move(&r, RIG_ELSEWHERE, RIG_SELF);
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	ck_assert_uint_eq(wvm_core_handover(r.core).in, 1);
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_READ, 4, NEXT, ID(2)), NULL), WVM_DROP_NONE);
	a = next(&r, WVM_MSG_HANDOVER, RIG_ELSEWHERE);
	m = message(WVM_MSG_HANDOVER, RIG_ELSEWHERE, NEXT, a->msg.request);
	ck_assert_ptr_null(wvm_core_action(r.core));
	ck_assert(!wvm_core_homes(r.core, 0, 0));
	/* Home, written, version 9 of a unit at 12. */
	entry[7] = 12;
	entry[39] = 9;
	entry[55] = WVM_HOME_WRITTEN;
	m.flags = WVM_MSG_ANSWER;
	m.payload_len = sizeof(entry) - 1;
	m.seg_total = WVM_SEGMENT_UNIT;
	ck_assert_int_eq(in(&r, m, entry), WVM_DROP_SEGMENT);
	m.payload_len = sizeof(entry);
	entry[54] = 9;
	ck_assert_int_eq(in(&r, m, entry), WVM_DROP_SEGMENT); /* no such state */
	entry[54] = 0;
	m.src = RIG_VNODE(5);
	ck_assert_int_eq(in(&r, m, entry), WVM_DROP_NODE);
	m.src = RIG_VNODE(RIG_ELSEWHERE);
	ck_assert_int_eq(in(&r, m, entry), WVM_DROP_NONE);
	ck_assert_ptr_null(wvm_core_action(r.core)); /* the bytes are to come */
	m.type = WVM_MSG_HANDOVER_PAGE;
	m.flags = 0;
	m.payload_len = m.seg_total = WVM_PAGE_BYTES;
	ck_assert_int_eq(in(&r, m, page), WVM_DROP_NONE);
	a = next(&r, WVM_MSG_MEM_ACK, 4);
	ck_assert_uint_eq(a->source, WVM_DATA_STORE);
	ck_assert_uint_eq(a->msg.version, 9);
	ck_assert_uint_eq(r.store[4095], 7);
	ck_assert_uint_eq(r.units[0].version, 12);
	ck_assert(wvm_core_homes(r.core, 0, 0) && !wvm_core_homes(r.core, 0, 1));
	/* A late copy changes nothing. */
	ck_assert_int_eq(in(&r, m, entry), WVM_DROP_STALE);
	rig_close(&r);
}
END_TEST

/* The bytes of an answer, by what is in them: the low one of each number. */
enum {
	UNIT_VERSION = 7,
	UNIT_GRANTED = 15,
	UNIT_OWNER = 27,
	UNIT_MERGED = 31,
	VERSION = 39,
	GRANTED = 47,
	TOTAL = 49,
	FIRST = 51,
	COUNT = 53,
	STATE = 54,
	FLAGS = 55,
	ENTRY = 56,
	MEMBER = 67,
	ENTRY_AND_ONE = 68,
	ENTRY_FULL = WVM_SHIP_BYTES
};

static const struct {
	const char *name;
	uint16_t bytes;
	struct {
		uint8_t at, is;
	} change[5];
} wrong[] = {
	{"too short", ENTRY - 1, {{0}}},
	{"shorter than it says", ENTRY, {{STATE, 1}, {TOTAL, 1}, {COUNT, 1}}},
	{"longer than it says", ENTRY_AND_ONE, {{0}}},
	{"more holders than can be in it", ENTRY_FULL + 12, {{STATE, 1}, {TOTAL, 99}, {COUNT, 33}}},
	{"more holders than there are", ENTRY_AND_ONE, {{STATE, 1}, {COUNT, 1}}},
	{"holders beyond the last",
	 ENTRY_AND_ONE,
	 {{STATE, 1}, {TOTAL, 1}, {FIRST, 1}, {COUNT, 1}}},
	{"more holders than members", ENTRY, {{STATE, 1}, {TOTAL, RIG_MEMBERS + 1}}},
	{"a holder that is no member",
	 ENTRY_AND_ONE,
	 {{STATE, 1}, {TOTAL, 1}, {COUNT, 1}, {MEMBER, RIG_MEMBERS}}},
	{"an owner that is no member", ENTRY, {{UNIT_OWNER, RIG_MEMBERS}}},
	{"merged twice", ENTRY, {{UNIT_MERGED, 2}}},
	{"a version that the unit does not count", ENTRY, {{VERSION, 13}}},
	{"a grant that the unit does not count", ENTRY, {{GRANTED, 13}}},
	{"a unit granted in a version to come", ENTRY, {{UNIT_GRANTED, 13}}},
	{"no such state", ENTRY, {{STATE, WVM_HOME_MODIFIED + 1}}},
	{"no such flag", ENTRY, {{FLAGS, 0x80}}},
	{"Modified by nobody", ENTRY, {{STATE, WVM_HOME_MODIFIED}, {GRANTED, 10}}},
	{"Modified in the version that is stored",
	 ENTRY_AND_ONE,
	 {{STATE, WVM_HOME_MODIFIED}, {GRANTED, 9}, {TOTAL, 1}, {COUNT, 1}}},
	{"Shared by nobody", ENTRY, {{STATE, WVM_HOME_SHARED}}},
	{"held, and at home", ENTRY_AND_ONE, {{TOTAL, 1}, {COUNT, 1}}},
	{"no entry, and yet bytes", ENTRY, {{VERSION, 0}}},
	{"no entry, and yet a state", ENTRY, {{VERSION, 0}, {FLAGS, 0}, {STATE, 1}}},
	{"no entry, and yet holders", ENTRY, {{VERSION, 0}, {FLAGS, 0}, {TOTAL, 1}}},
	{"Shared, by holders that it does not name", ENTRY, {{STATE, 1}, {TOTAL, 1}}},
	{"a holder twice",
	 ENTRY_AND_ONE + 12,
	 {{STATE, 1}, {TOTAL, 2}, {COUNT, 2}, {MEMBER, 3}, {MEMBER + 12, 3}}},
};

START_TEST(an_answer_that_no_home_gives_is_refused_and_changes_nothing)
{
	static const struct wvm_home_unit never;
	uint8_t entry[ENTRY_FULL + 12] = {
		[UNIT_VERSION] = 12, [VERSION] = 9, [FLAGS] = WVM_HOME_WRITTEN};
	struct wvm_msg m;
	struct rig r;

	move(&r, RIG_ELSEWHERE, RIG_SELF);
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	wvm_core_tick(r.core, r.now_ns);
	m = message(WVM_MSG_HANDOVER, RIG_ELSEWHERE, NEXT,
		    next(&r, WVM_MSG_HANDOVER, RIG_ELSEWHERE)->msg.request);
	ck_assert_ptr_null(wvm_core_action(r.core));
	m.flags = WVM_MSG_ANSWER;
	m.payload_len = wrong[_i].bytes;
	m.seg_total = 2 * WVM_SEGMENT_UNIT;
	for (uint32_t i = 0; i < 5; i++)
		if (wrong[_i].change[i].at)
			entry[wrong[_i].change[i].at] = wrong[_i].change[i].is;
	ck_assert_msg(in(&r, m, entry) == WVM_DROP_SEGMENT, "%s", wrong[_i].name);
	ck_assert(!memcmp(&r.units[0], &never, sizeof(never)));
	ck_assert_uint_eq(r.home[0].version, 0);
	ck_assert_ptr_null(wvm_core_action(r.core));
	/* What is right in its place is taken still. */
	memset(entry, 0, sizeof(entry));
	entry[UNIT_VERSION] = 12;
	entry[VERSION] = 9;
	m.payload_len = ENTRY;
	ck_assert_int_eq(in(&r, m, entry), WVM_DROP_NONE);
	ck_assert_uint_eq(r.home[0].version, 9);
	ck_assert_uint_eq(r.units[0].version, 12);
	rig_close(&r);
}
END_TEST

/*
 * Without the files of its earlier life the former home has nothing of any unit, and says so. It
 * must not come to that (join.h); and of a unit that is here in part it is known to be wrong.
 */
START_TEST(a_new_home_is_a_witness_of_what_the_former_one_had)
{
	uint8_t entry[ENTRY] = {0};
	struct wvm_msg m;
	struct rig r;

	move(&r, RIG_ELSEWHERE, RIG_SELF);
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	wvm_core_tick(r.core, r.now_ns);
	m = message(WVM_MSG_HANDOVER, RIG_ELSEWHERE, NEXT, 0);
	m.request = next(&r, WVM_MSG_HANDOVER, RIG_ELSEWHERE)->msg.request;
	m.flags = WVM_MSG_ANSWER;
	m.payload_len = ENTRY;
	m.seg_total = WVM_SEGMENT_UNIT;
	ck_assert_ptr_null(wvm_core_action(r.core));
	entry[UNIT_VERSION] = _i ? 12 : 0;
	entry[VERSION] = _i ? 9 : 0;
	ck_assert_uint_eq(wvm_core_taken(r.core, RIG_ELSEWHERE), 0);
	ck_assert_int_eq(in(&r, m, entry), WVM_DROP_NONE);
	/* Where it had nothing there is nothing to lose. */
	ck_assert_uint_eq(wvm_core_taken(r.core, RIG_ELSEWHERE), _i);
	if (_i) {
		m.request = next(&r, WVM_MSG_HANDOVER, RIG_ELSEWHERE)->msg.request;
		m.gpa = 5 * WVM_PAGE_BYTES;
		ck_assert_ptr_null(wvm_core_action(r.core));
		entry[UNIT_VERSION] = entry[VERSION] = 0;
		ck_assert_int_eq(in(&r, m, entry), WVM_DROP_SEGMENT);
		ck_assert_int_eq(r.units[0].phase, WVM_MOVED_COMING);
		/* One that has it may say more of it, and is counted once. */
		entry[UNIT_VERSION] = 12;
		entry[VERSION] = 10;
		ck_assert_int_eq(in(&r, m, entry), WVM_DROP_NONE);
		ck_assert_uint_eq(r.home[5].version, 10);
		ck_assert_uint_eq(wvm_core_taken(r.core, RIG_ELSEWHERE), 1);
		/* What came is known to the next life, too, and so is who had it. */
		rig_kill(&r);
		ck_assert_uint_eq(wvm_core_taken(r.core, RIG_ELSEWHERE), 1);
	} else {
		next(&r, WVM_MSG_HANDOVER_DONE, RIG_ELSEWHERE);
	}
	rig_close(&r);
}
END_TEST

static void ends_of(struct rig *r)
{
	while (wvm_core_action(r->core))
		;
}

/* Asked for twice, by a request and by the walk: the second answer finds a page that is in use. */
START_TEST(bytes_of_a_page_that_has_come_already_are_not_stored)
{
	uint8_t entry[56] = {[7] = 12, [39] = 9, [55] = WVM_HOME_WRITTEN}, page[WVM_PAGE_BYTES];
	struct wvm_msg m, of_request;
	struct rig r;

	memset(page, 7, sizeof(page));
	move(&r, RIG_ELSEWHERE, RIG_SELF);
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_READ, 4, NEXT, ID(2)), NULL), WVM_DROP_NONE);
	of_request = message(WVM_MSG_HANDOVER_PAGE, RIG_ELSEWHERE, NEXT,
			     next(&r, WVM_MSG_HANDOVER, RIG_ELSEWHERE)->msg.request);
	of_request.payload_len = of_request.seg_total = WVM_PAGE_BYTES;
	ck_assert_ptr_null(wvm_core_action(r.core));
	wvm_core_tick(r.core, r.now_ns);
	m = message(WVM_MSG_HANDOVER, RIG_ELSEWHERE, NEXT,
		    next(&r, WVM_MSG_HANDOVER, RIG_ELSEWHERE)->msg.request);
	ck_assert_ptr_null(wvm_core_action(r.core));
	ck_assert_uint_ne(m.request, of_request.request);
	m.flags = WVM_MSG_ANSWER;
	m.payload_len = sizeof(entry);
	m.seg_total = WVM_SEGMENT_UNIT;
	ck_assert_int_eq(in(&r, m, entry), WVM_DROP_NONE);
	m.type = WVM_MSG_HANDOVER_PAGE;
	m.flags = 0;
	m.payload_len = m.seg_total = WVM_PAGE_BYTES;
	ck_assert_int_eq(in(&r, m, page), WVM_DROP_NONE);
	ends_of(&r);
	/* Somebody else has it, and changes it. */
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_ACQUIRE, 5, NEXT, ID(3)), NULL), WVM_DROP_NONE);
	m = message(WVM_MSG_WRITE_BACK, 5, NEXT, ID(3));
	m.grant = ID(3);
	m.version = next(&r, WVM_MSG_MEM_ACK, 5)->msg.version;
	m.payload_len = m.seg_total = WVM_PAGE_BYTES;
	ends_of(&r);
	memset(page, 8, sizeof(page));
	ck_assert_int_eq(in(&r, m, page), WVM_DROP_NONE);
	ends_of(&r);
	memset(page, 7, sizeof(page));
	ck_assert_int_eq(in(&r, of_request, page), WVM_DROP_STALE);
	ck_assert_uint_eq(r.store[0], 8);
	ck_assert_uint_eq(r.home[0].version, m.version);
	rig_close(&r);
}
END_TEST

START_TEST(epochs_go_forward_and_a_later_one_is_told)
{
	struct rig r;

	move(&r, RIG_SELF, RIG_ELSEWHERE);
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_READ, 4, NEXT + 4, ID(2)), NULL),
			 WVM_DROP_EPOCH);
	ck_assert_uint_eq(wvm_core_epoch_seen(r.core), NEXT + 4);
	ck_assert_ptr_null(wvm_core_action(r.core));
	/* One message makes nobody look for records without end. */
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_READ, 4, UINT32_MAX, ID(3)), NULL),
			 WVM_DROP_EPOCH);
	ck_assert_uint_le(wvm_core_epoch_seen(r.core), RIG_EPOCH + 16);
	ck_assert_uint_ge(wvm_core_epoch_seen(r.core), NEXT + 4);
	ck_assert_int_eq(change(&r, RIG_EPOCH), WVM_EPOCH_OLD);
	table = r.slices; /* nothing moves */
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	ck_assert_uint_eq(wvm_core_handover(r.core).out, 0);
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_READ, 4, NEXT, ID(2)), NULL), WVM_DROP_NONE);
	next(&r, WVM_MSG_MEM_ACK, 4);
	rig_close(&r);
}
END_TEST

/* Outstanding to the former home: asked of the new one, under another id. */
START_TEST(requests_follow_their_home)
{
	const struct wvm_action *a;
	uint64_t id;
	struct rig r;

	move(&r, RIG_ELSEWHERE, 5);
	ck_assert(wvm_core_fault(r.core, r.now_ns, 0, 3, false, 0));
	id = wvm_core_action(r.core)->msg.request;
	ck_assert_ptr_null(wvm_core_action(r.core));
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	wvm_core_tick(r.core, r.now_ns);
	a = next(&r, WVM_MSG_MEM_READ, 5);
	ck_assert_uint_gt(a->msg.request, id);
	rig_close(&r);
}
END_TEST

/* The node was slow: it hears of the epoch when the deadline is over, and before its timers run. */
START_TEST(a_request_whose_deadline_is_over_is_not_asked_of_a_new_home)
{
	const struct wvm_action *a;
	uint64_t deadline_ns;
	struct rig r;

	move(&r, RIG_ELSEWHERE, 5);
	deadline_ns = r.now_ns + r.params.times.deadline_ns;
	ck_assert(wvm_core_fault(r.core, r.now_ns, 0, 3, false, 0));
	next_of(&r, RIG_EPOCH, WVM_MSG_MEM_READ, RIG_ELSEWHERE);
	ck_assert_ptr_null(wvm_core_action(r.core));
	r.now_ns = deadline_ns + 40000000;
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	ck_assert_uint_le(wvm_core_deadline(r.core), deadline_ns);
	wvm_core_tick(r.core, r.now_ns);
	a = wvm_core_action(r.core);
	ck_assert(a && a->kind == WVM_ACT_FAIL && a->reason == WVM_FAIL_DEADLINE);
	ck_assert_ptr_null(wvm_core_action(r.core));
	ck_assert_uint_eq(wvm_core_requests(r.core), 0);
	rig_close(&r);
}
END_TEST

/* What was written back and not acknowledged before the switch is so after it, at the new home. */
START_TEST(a_write_back_under_way_is_repeated_to_the_new_home)
{
	struct wvm_msg m;
	const struct wvm_action *a;
	struct rig r;

	move(&r, RIG_ELSEWHERE, 5);
	ck_assert(wvm_core_fault(r.core, r.now_ns, 0, 3, true, 0));
	a = next_of(&r, RIG_EPOCH, WVM_MSG_MEM_ACQUIRE, RIG_ELSEWHERE);
	m = message(WVM_MSG_MEM_ACK, RIG_ELSEWHERE, RIG_EPOCH, a->msg.request);
	m.gpa = 3 * WVM_PAGE_BYTES;
	m.version = V(4);
	m.flags = WVM_MSG_ZERO;
	ck_assert_ptr_null(wvm_core_action(r.core));
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NONE);
	while (wvm_core_action(r.core))
		;
	r.now_ns += r.params.times.hold_max_ns;
	m.type = WVM_MSG_FETCH_AND_INVALIDATE;
	m.flags = 0;
	m.grant = m.request;
	m.request = ID(7);
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NONE);
	while ((a = wvm_core_action(r.core)) && a->kind != WVM_ACT_SEND)
		;
	ck_assert(a && a->msg.type == WVM_MSG_WRITE_BACK && a->member == RIG_ELSEWHERE);
	ck_assert_ptr_null(wvm_core_action(r.core));
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	wvm_core_tick(r.core, r.now_ns);
	a = next(&r, WVM_MSG_WRITE_BACK, 5);
	ck_assert(a->msg.dst == RIG_VNODE(5) && a->msg.grant == m.grant && a->msg.version == V(4));
	ck_assert_int_eq(a->source, WVM_DATA_OUTBOX);
	ck_assert_ptr_null(wvm_core_action(r.core));
	/* The former home has no say in it, the new one does. */
	m.type = WVM_MSG_WRITE_BACK_ACK;
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_EPOCH);
	m.epoch = NEXT;
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NODE);
	ck_assert_uint_ne(wvm_core_deadline(r.core), WVM_CORE_NEVER);
	m.src = RIG_VNODE(5);
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NONE);
	ck_assert_uint_eq(wvm_core_deadline(r.core), WVM_CORE_NEVER);
	rig_close(&r);
}
END_TEST

static const struct wvm_action *sends(struct rig *r, uint8_t type)
{
	const struct wvm_action *a;

	while ((a = wvm_core_action(r->core)) && a->kind != WVM_ACT_SEND)
		;
	ck_assert_ptr_nonnull(a);
	ck_assert_str_eq(wvm_msg_name(a->msg.type), wvm_msg_name(type));
	return a;
}

/* What the home says to the request or question `id` about a page. */
static void answer(struct rig *r, uint8_t type, uint8_t flags, uint64_t page, uint64_t id,
		   uint64_t grant, uint64_t version)
{
	struct wvm_msg m = message(type, RIG_ELSEWHERE, RIG_EPOCH, id);

	m.gpa = page << WVM_PAGE_SHIFT;
	m.flags = flags;
	m.grant = grant;
	m.version = version;
	ck_assert_int_eq(in(r, m, NULL), WVM_DROP_NONE);
}

/* A unit that was granted whole, one page of which went and came back: it asks for a merge. */
static struct wvm_msg ask_for_merge(struct rig *r)
{
	uint64_t id;

	ck_assert(wvm_core_fault(r->core, r->now_ns, 0, 3, true, 0));
	id = sends(r, WVM_MSG_MEM_ACQUIRE)->msg.request;
	ends_of(r);
	answer(r, WVM_MSG_MEM_ACK, WVM_MSG_UNIT | WVM_MSG_ZERO, 3, id, 0, V(2));
	ends_of(r);
	r->now_ns += r->params.times.hold_max_ns;
	answer(r, WVM_MSG_FETCH_AND_INVALIDATE, 0, 5, ID(1), id, V(2));
	sends(r, WVM_MSG_WRITE_BACK);
	ends_of(r);
	answer(r, WVM_MSG_WRITE_BACK_ACK, 0, 5, ID(1), id, V(2));
	ends_of(r);
	ck_assert(wvm_core_fault(r->core, r->now_ns, 0, 5, true, 0));
	id = sends(r, WVM_MSG_MEM_ACQUIRE)->msg.request;
	ends_of(r);
	answer(r, WVM_MSG_MEM_ACK, WVM_MSG_ZERO, 5, id, 0, V(4));
	ends_of(r);
	r->now_ns = wvm_core_deadline(r->core);
	wvm_core_tick(r->core, r->now_ns);
	return sends(r, WVM_MSG_MEM_ACQUIRE)->msg;
}

START_TEST(a_merge_that_is_not_answered_is_asked_of_the_new_home)
{
	struct wvm_msg asked, m;
	const struct wvm_action *a;
	struct rig r;

	move(&r, RIG_ELSEWHERE, 5);
	r.core->params.units = r.core->params.merge = true;
	asked = ask_for_merge(&r);
	ck_assert_int_eq(asked.flags, WVM_MSG_UNIT | WVM_MSG_HELD);
	ends_of(&r);
	ck_assert_int_eq(change(&r, NEXT), WVM_EPOCH_TAKEN);
	wvm_core_tick(r.core, r.now_ns);
	a = next(&r, WVM_MSG_MEM_ACQUIRE, 5);
	ck_assert(a->msg.flags == asked.flags && a->msg.dst == RIG_VNODE(5));
	ck_assert(a->msg.grant == asked.grant && a->msg.version == asked.version);
	ck_assert_uint_gt(a->msg.request, asked.request);
	m = message(WVM_MSG_MEM_ACK, 5, NEXT, a->msg.request);
	m.flags = asked.flags;
	m.grant = asked.grant;
	m.version = V(5);
	ck_assert_ptr_null(wvm_core_action(r.core));
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NONE);
	ck_assert_uint_eq(r.held_units[0].merging, 0);
	ck_assert_uint_eq(r.held_units[0].version, V(5));
	ck_assert_uint_eq(wvm_core_stats(r.core)->units_merged, 1);
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, a_write_back_under_way_is_repeated_to_the_new_home);
	tcase_add_loop_test(tc, an_answer_that_no_home_gives_is_refused_and_changes_nothing, 0,
			    CASES(wrong));
	tcase_add_loop_test(tc, a_new_home_is_a_witness_of_what_the_former_one_had, 0, 2);
	tcase_add_test(tc, a_merge_that_is_not_answered_is_asked_of_the_new_home);
	tcase_add_test(tc, bytes_of_a_page_that_has_come_already_are_not_stored);
	tcase_add_test(tc, a_former_home_serves_no_more_and_gives_what_it_has_once);
	tcase_add_test(tc, a_new_home_serves_a_page_when_it_has_come_and_not_before);
	tcase_add_test(tc, epochs_go_forward_and_a_later_one_is_told);
	tcase_add_test(tc, requests_follow_their_home);
	tcase_add_test(tc, a_request_whose_deadline_is_over_is_not_asked_of_a_new_home);
}

int main(void)
{
	return rig_main("handover", add);
}

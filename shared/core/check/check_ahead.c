/*
 * Reading ahead: which pages are asked for, when, and that nobody is told of
 * what becomes of them unless somebody came to wait.
 */
#include "shared/core/check/rig.h"

#define HOME  3u  /* of unit 0 */
#define FIRST 4u  /* pages asked for by a new stream */
#define MOST  16u /* of the core under test */

static uint32_t ids; /* that the core has given out */

static void open_sized(struct rig *r, uint32_t home, uint32_t most, uint32_t requests)
{
	struct wvm_core_limits l;
	struct wvm_core_vm vm;

	wvm_core_default_limits(&l);
	if (requests)
		l.requests = requests;
	rig_open(r, home, &l);
	vm = *wvm_core_vm_at(r->core, 0);
	r->params.read_ahead = most;
	r->core = wvm_core_init(r->memory, &r->params);
	ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
	wvm_core_serve(r->core, true);
	r->name = "ahead";
	ids = 0;
}

static void open_with(struct rig *r, uint32_t most)
{
	open_sized(r, HOME, most, 0);
}

static uint32_t home_of(uint64_t page)
{
	return page < RIG_OTHER ? HOME : RIG_ELSEWHERE;
}

static void asked(struct rig *r, uint64_t page)
{
	rig_do(r,
	       (struct rig_step)SENT(MEM_READ, home_of(page), .request = OWN(++ids), .page = page));
}

/* It came; `waiters` are woken. */
static void granted(struct rig *r, uint64_t page, uint32_t id, uint64_t waiters)
{
	rig_do(r, (struct rig_step)IN(MEM_ACK, home_of(page), .request = OWN(id), .version = V(1),
				      .fill = 1, .page = page));
	rig_do(r, (struct rig_step)ACT(INSTALL, .waiters = waiters, .fill = 1, .page = page));
}

/* A read fault that asks for its own page and gets it, and the guesses after it. */
static void read_fault(struct rig *r, uint64_t page)
{
	rig_do(r, (struct rig_step)DO(FAULT, .page = page));
	asked(r, page);
	wvm_core_ahead(r->core, r->now_ns, 0, page);
}

/* The guesses are `count` pages, `stride` apart; all of them come. */
static void guesses(struct rig *r, uint64_t page, int64_t stride, uint32_t count)
{
	uint32_t from = ids;

	for (uint32_t i = 0; i < count; i++)
		asked(r, page + (uint64_t)(stride * i));
	rig_quiet(r);
	granted(r, page - (uint64_t)stride, from, 1);
	for (uint32_t i = 0; i < count; i++)
		granted(r, page + (uint64_t)(stride * i), from + 1 + i, 0);
}

static uint64_t counter(const struct rig *r, size_t offset)
{
	return *(const uint64_t *)((const char *)wvm_core_stats(r->core) + offset);
}
#define COUNT(r, name) counter(r, offsetof(struct wvm_core_stats, name))

START_TEST(a_stream_grows_to_its_most_while_it_goes_on)
{
	static const uint32_t windows[] = {FIRST, 8, MOST, MOST, MOST};
	uint64_t at = 10;
	struct rig r;

	open_with(&r, MOST);
	read_fault(&r, at);
	guesses(&r, ++at, 1, 0);
	for (uint32_t i = 0; i < 5; i++) {
		read_fault(&r, at);
		guesses(&r, at + 1, 1, windows[i]);
		at += windows[i] + 1;
	}
	ck_assert_uint_eq(COUNT(&r, ahead_asked), FIRST + 8 + 3 * MOST);
	ck_assert_uint_eq(COUNT(&r, ahead_passed), FIRST + 8 + 2 * MOST);
	ck_assert_uint_eq(COUNT(&r, ahead_joined), 0);
	rig_close(&r);
}
END_TEST

START_TEST(strides_either_way_have_to_show_twice)
{
	static const int64_t strides[] = {-1, 2, 3, -5, 16};

	for (uint32_t i = 0; i < 5; i++) {
		int64_t s = strides[i];
		uint64_t at = 200;
		struct rig r;

		open_with(&r, MOST);
		for (uint32_t n = 0; n < 2; n++, at += (uint64_t)s) {
			read_fault(&r, at);
			guesses(&r, at + (uint64_t)s, s, 0);
		}
		read_fault(&r, at);
		guesses(&r, at + (uint64_t)s, s, FIRST);
		at += (uint64_t)(s * (int64_t)(FIRST + 1));
		read_fault(&r, at);
		guesses(&r, at + (uint64_t)s, s, 8);
		rig_close(&r);
	}
}
END_TEST

START_TEST(a_miss_ends_the_guesses)
{
	struct rig r;

	open_with(&r, MOST);
	read_fault(&r, 10);
	guesses(&r, 11, 1, 0);
	read_fault(&r, 11);
	guesses(&r, 12, 1, FIRST);
	read_fault(&r, 16);
	guesses(&r, 17, 1, 8);
	read_fault(&r, 9); /* close by, and neither on the way nor just past it */
	guesses(&r, 10, 1, 0);
	read_fault(&r, 8);
	guesses(&r, 9, 1, 0);
	read_fault(&r, 300);
	guesses(&r, 301, 1, 0);
	read_fault(&r, 301); /* begins small again */
	guesses(&r, 302, 1, FIRST);
	rig_close(&r);
}
END_TEST

START_TEST(random_faults_ask_for_nothing_more)
{
	static const uint64_t pages[] = {0, 400, 77, 233, 511, 140, 320, 33, 444, 111};
	struct rig r;

	open_with(&r, MOST);
	for (uint32_t i = 0; i < 10; i++) {
		read_fault(&r, pages[i]);
		guesses(&r, pages[i] + 1, 1, 0);
	}
	ck_assert_uint_eq(COUNT(&r, ahead_asked), 0);
	rig_close(&r);
}
END_TEST

/* More streams than there is room for: the oldest gives way, and starts anew. */
START_TEST(as_many_streams_as_there_is_room_for_go_on_side_by_side)
{
	for (uint32_t streams = WVM_AHEAD_STREAMS; streams <= WVM_AHEAD_STREAMS + 1; streams++) {
		bool fits = streams == WVM_AHEAD_STREAMS;
		struct rig r;

		open_with(&r, MOST);
		for (uint32_t i = 0; i < streams; i++) {
			read_fault(&r, i * 29);
			guesses(&r, i * 29 + 1, 1, 0);
		}
		for (uint32_t i = 0; i < streams; i++) {
			read_fault(&r, i * 29 + 1);
			guesses(&r, i * 29 + 2, 1, fits ? FIRST : 0);
		}
		rig_close(&r);
	}
}
END_TEST

/* At the end of a unit, which may have another home, and of the VM; but the stream goes on. */
START_TEST(guesses_stay_in_the_unit)
{
	struct rig r;

	open_with(&r, MOST);
	read_fault(&r, 508);
	guesses(&r, 509, 1, 0);
	read_fault(&r, 509);
	guesses(&r, 510, 1, 2);
	read_fault(&r, 512);
	guesses(&r, 513, 1, 8);
	read_fault(&r, RIG_PAGES - 3);
	guesses(&r, RIG_PAGES - 2, 1, 0);
	read_fault(&r, RIG_PAGES - 2);
	guesses(&r, RIG_PAGES - 1, 1, 1);
	read_fault(&r, 2);
	guesses(&r, 1, -1, 0);
	read_fault(&r, 1);
	guesses(&r, 0, -1, 0);
	read_fault(&r, 0); /* nothing before the first page */
	guesses(&r, 1, 1, 0);
	rig_close(&r);
}
END_TEST

START_TEST(pages_that_are_there_or_on_their_way_are_not_asked_for)
{
	struct rig r;

	open_with(&r, MOST);
	read_fault(&r, 14);
	guesses(&r, 15, 1, 0);
	rig_do(&r, (struct rig_step)DO(FAULT, .flags = 1, .page = 13));
	rig_do(&r, (struct rig_step)SENT(MEM_ACQUIRE, HOME, .request = OWN(++ids), .page = 13));
	read_fault(&r, 30); /* far off: the stream is a new one */
	guesses(&r, 31, 1, 0);
	read_fault(&r, 10);
	guesses(&r, 11, 1, 0);
	read_fault(&r, 11);
	asked(&r, 12);
	asked(&r, 15);
	rig_quiet(&r);
	rig_close(&r);
}
END_TEST

START_TEST(nothing_is_asked_for_when_off)
{
	struct rig r;

	open_with(&r, 0);
	for (uint64_t page = 10; page < 14; page++) {
		wvm_core_ahead(r.core, r.now_ns, 0, page);
		rig_quiet(&r);
	}
	rig_close(&r);
}
END_TEST

/* The owner may be far away all the same. */
START_TEST(pages_homed_here_are_asked_for_too)
{
	struct rig r;

	open_sized(&r, RIG_SELF, MOST, 0);
	for (uint64_t page = 10; page < 12; page++) {
		rig_do(&r, (struct rig_step)DO(FAULT, .page = page));
		rig_do(&r, (struct rig_step)SENT(MEM_READ, RIG_SELF, .request = OWN(++ids),
						 .page = page));
		wvm_core_ahead(r.core, r.now_ns, 0, page);
	}
	for (uint64_t page = 12; page < 12 + FIRST; page++)
		rig_do(&r, (struct rig_step)SENT(MEM_READ, RIG_SELF, .request = OWN(++ids),
						 .page = page));
	rig_quiet(&r);
	rig_close(&r);
}
END_TEST

/* Half the window, 32 at first, and half the slots are left to those that wait. */
START_TEST(guesses_take_half_of_the_room_at_most)
{
	static const struct {
		uint32_t requests, guesses;
	} cases[] = {{0, 16}, {12, 5}, {2, 0}, {1, 0}};

	for (uint32_t i = 0; i < 4; i++) {
		uint32_t from;
		struct rig r;

		open_sized(&r, HOME, WVM_AHEAD_MOST, cases[i].requests);
		read_fault(&r, 10);
		guesses(&r, 11, 1, 0);
		/* As if found long ago. */
		r.core->ahead.stream[0].stride = 1;
		r.core->ahead.stream[0].window = WVM_AHEAD_MOST / 2;
		r.core->ahead.stream[0].next = 11;
		from = ids;
		read_fault(&r, 11);
		while (ids < from + 1 + cases[i].guesses)
			asked(&r, 12 + (ids - from - 1));
		rig_quiet(&r);
		rig_close(&r);
	}
}
END_TEST

/* Two faults, and the guesses are under way. */
static void under_way(struct rig *r)
{
	open_with(r, MOST);
	read_fault(r, 10);
	guesses(r, 11, 1, 0);
	read_fault(r, 11);
	for (uint32_t i = 0; i < FIRST; i++)
		asked(r, 12 + i);
	granted(r, 11, ids - FIRST, 1);
}

/* No FAIL, no retry: the rig would find an action that no step names. */
START_TEST(guesses_that_do_not_come_end_without_a_word)
{
	struct rig r;

	under_way(&r);
	for (uint32_t i = 0; i < FIRST; i++) {
		rig_do(&r, (struct rig_step)DO(TICK, .ns = 100000000));
		rig_quiet(&r);
	}
	rig_do(&r, (struct rig_step)DO(IDLE));
	ck_assert_uint_eq(COUNT(&r, ahead_given_up), FIRST);
	ck_assert_uint_eq(COUNT(&r, faults_failed), 0);
	ck_assert_uint_eq(r.core->requests_free, r.params.limits.requests);
	/* What comes after all is not taken. */
	rig_do(&r, (struct rig_step)IN(MEM_ACK, HOME, .request = OWN(ids), .version = V(1),
				       .fill = 1, .page = 15, .drop = WVM_DROP_STALE));
	rig_quiet(&r);
	rig_close(&r);
}
END_TEST

START_TEST(a_lost_page_is_an_error_only_to_who_waits)
{
	struct rig r;

	under_way(&r);
	rig_do(&r, (struct rig_step)IN(MEM_ACK, HOME, .request = OWN(ids), .flags = WVM_MSG_ERROR,
				       .page = 15));
	rig_quiet(&r);
	ck_assert_uint_eq(COUNT(&r, ahead_given_up), 1);
	rig_do(&r, (struct rig_step)DO(FAULT, .page = 14));
	rig_do(&r, (struct rig_step)IN(MEM_ACK, HOME, .request = OWN(ids - 1),
				       .flags = WVM_MSG_ERROR, .page = 14));
	rig_do(&r, (struct rig_step)ACT(FAIL, .waiters = 1, .state = WVM_FAIL_LOST, .page = 14));
	rig_close(&r);
}
END_TEST

START_TEST(a_fault_joins_and_its_deadline_is_its_own)
{
	uint64_t began;
	struct rig r;

	under_way(&r);
	rig_do(&r, (struct rig_step)DO(PASS, .ns = 1000000));
	began = r.now_ns;
	rig_do(&r, (struct rig_step)DO(FAULT, .page = 13, .slot = 5));
	rig_quiet(&r);
	ck_assert_uint_eq(COUNT(&r, ahead_joined), 1);
	while (r.now_ns < began + r.params.times.deadline_ns) {
		const struct wvm_action *a;

		wvm_core_tick(r.core, r.now_ns = wvm_core_deadline(r.core));
		while ((a = wvm_core_action(r.core))) {
			ck_assert_uint_eq(a->page, 13);
			if (a->kind == WVM_ACT_FAIL)
				ck_assert_uint_eq(a->waiters, UINT64_C(1) << 5);
			else
				ck_assert_uint_eq(a->kind, WVM_ACT_SEND);
		}
	}
	ck_assert_uint_eq(r.now_ns, began + r.params.times.deadline_ns);
	ck_assert_uint_eq(COUNT(&r, faults_failed), 1);
	ck_assert_uint_eq(COUNT(&r, ahead_given_up), FIRST - 1);
	rig_close(&r);
}
END_TEST

/* A fault in the midst of what is under way says that it is not enough. */
START_TEST(a_fault_that_joins_moves_the_window_on)
{
	struct rig r;

	under_way(&r);
	rig_do(&r, (struct rig_step)DO(FAULT, .page = 12));
	rig_quiet(&r);
	wvm_core_ahead(r.core, r.now_ns, 0, 12);
	for (uint64_t page = 16; page <= 12 + 8; page++)
		asked(&r, page);
	rig_quiet(&r);
	rig_close(&r);
}
END_TEST

START_TEST(a_writer_that_joins_gets_the_page_modified)
{
	struct rig r;

	under_way(&r);
	rig_do(&r, (struct rig_step)DO(FAULT, .flags = 1, .page = 12));
	rig_quiet(&r);
	granted(&r, 12, ids - 3, 0);
	rig_do(&r, (struct rig_step)SENT(MEM_ACQUIRE, HOME, .request = OWN(ids + 1), .page = 12,
					 .flags = WVM_MSG_HELD, .version = V(1)));
	rig_close(&r);
}
END_TEST

/* Nobody is to get on by it: what its home asks for goes at once, not after the hold time. */
START_TEST(a_page_that_nobody_waited_for_is_not_held_up)
{
	struct rig r;

	under_way(&r);
	granted(&r, 12, ids - 3, 0);
	rig_do(&r, (struct rig_step)IN(INVALIDATE, HOME, .request = ID(1), .grant = OWN(ids - 3),
				       .version = V(1), .page = 12));
	rig_do(&r, (struct rig_step)DO(TICK, .ns = 1));
	rig_do(&r, (struct rig_step)ACT(PROTECT, .page = 12));
	rig_do(&r, (struct rig_step)ACT(PUNCH, .page = 12));
	rig_do(&r, (struct rig_step)SENT(INVALIDATE_ACK, HOME, .request = ID(1),
					 .grant = OWN(ids - 3), .version = V(1), .page = 12));
	rig_close(&r);
}
END_TEST

/*
 * Many requests for a home that is silent wait for its window, and the home of what was read ahead
 * moves there, so that guesses wait as well. A fault that joins one has all of its deadline.
 */
START_TEST(a_fault_joins_a_guess_that_waits_for_its_new_home)
{
	const uint64_t second = UINT64_C(1000000000);
	struct wvm_slices next;
	uint64_t began;
	uint32_t joined = 0;
	struct rig r;

	open_sized(&r, HOME, MOST, 0);
	next = r.slices;
	next.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(RIG_ELSEWHERE);
	for (uint64_t page = RIG_OTHER; page < RIG_OTHER + 480; page++) {
		ck_assert(wvm_core_fault(r.core, r.now_ns, 0, page, false, 0));
		while (wvm_core_action(r.core))
			;
	}
	for (uint64_t page = 0; page < 2; page++) {
		ck_assert(wvm_core_fault(r.core, r.now_ns, 0, page, false, 0));
		wvm_core_ahead(r.core, r.now_ns, 0, page);
		while (wvm_core_action(r.core))
			;
	}
	for (uint64_t page = 16; page < 500; page++) {
		if (!wvm_core_fault(r.core, r.now_ns, 0, page, false, 0))
			break;
		while (wvm_core_action(r.core))
			;
	}
	began = r.now_ns;
	ck_assert_int_eq(wvm_core_epoch(r.core, r.now_ns, RIG_EPOCH + 1, &next), WVM_EPOCH_TAKEN);
	while (wvm_core_deadline(r.core) < began + 7 * second) {
		uint64_t due = wvm_core_deadline(r.core);

		r.now_ns = due > r.now_ns ? due : r.now_ns;
		for (uint32_t i = 0; r.now_ns > began + second && i < r.params.limits.requests;
		     i++) {
			const struct wvm_request *q = &r.core->requests[i];

			if (!q->timer.place || !q->ahead)
				continue;
			joined++;
			ck_assert(wvm_core_fault(r.core, r.now_ns, 0, q->page, false, 1));
			while (wvm_core_action(r.core))
				;
		}
		wvm_core_tick(r.core, r.now_ns);
		while (wvm_core_action(r.core))
			;
	}
	ck_assert_uint_gt(joined, 0);
	ck_assert_uint_eq(wvm_core_requests(r.core), 0); /* all have ended, with an error */
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, a_stream_grows_to_its_most_while_it_goes_on);
	tcase_add_test(tc, strides_either_way_have_to_show_twice);
	tcase_add_test(tc, a_miss_ends_the_guesses);
	tcase_add_test(tc, random_faults_ask_for_nothing_more);
	tcase_add_test(tc, as_many_streams_as_there_is_room_for_go_on_side_by_side);
	tcase_add_test(tc, guesses_stay_in_the_unit);
	tcase_add_test(tc, pages_that_are_there_or_on_their_way_are_not_asked_for);
	tcase_add_test(tc, nothing_is_asked_for_when_off);
	tcase_add_test(tc, pages_homed_here_are_asked_for_too);
	tcase_add_test(tc, guesses_take_half_of_the_room_at_most);
	tcase_add_test(tc, guesses_that_do_not_come_end_without_a_word);
	tcase_add_test(tc, a_lost_page_is_an_error_only_to_who_waits);
	tcase_add_test(tc, a_fault_joins_and_its_deadline_is_its_own);
	tcase_add_test(tc, a_fault_joins_a_guess_that_waits_for_its_new_home);
	tcase_add_test(tc, a_fault_that_joins_moves_the_window_on);
	tcase_add_test(tc, a_writer_that_joins_gets_the_page_modified);
	tcase_add_test(tc, a_page_that_nobody_waited_for_is_not_held_up);
}

int main(void)
{
	return rig_main("ahead", add);
}

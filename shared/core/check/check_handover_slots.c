/*
 * What a new home asks for and when: the slots for its questions, and former homes that do not
 * answer them. One core with many units; the test is all others.
 */
#include "shared/core/check/moved.h"

#define BIG   9u /* a VM whose units have a slice each */
#define UNITS 64u
#define DEAD  5u /* former homes: it says nothing */
#define LIVE  6u
#define MS    UINT64_C(1000000)

static struct wvm_slices table;   /* of the next epoch: all is RIG_SELF's */
static struct wvm_slices seconds; /* where there are second homes: it is LIVE */

struct many {
	struct rig rig;
	struct wvm_core_vm vm;
	uint32_t index;     /* of the VM */
	uint32_t questions; /* that the walk has asked and not had an answer to, at most */
	uint32_t asked[RIG_MEMBERS];
	bool answers[RIG_MEMBERS];
	struct wvm_msg waiting[WVM_PULLS]; /* questions to be answered a round trip later */
	uint32_t waiting_count;
};

static uint16_t slice_of(uint64_t unit)
{
	return wvm_slice_of(BIG, unit << WVM_UNIT_SHIFT);
}

/* The first half of the units has its former home at `first`, the rest at `second`. */
static void many_open(struct many *m, uint32_t first, uint32_t second)
{
	struct rig *r = &m->rig;

	memset(m, 0, sizeof(*m));
	rig_open(r, RIG_ELSEWHERE, NULL);
	table = r->slices;
	for (uint64_t u = 0; u < UNITS; u++) {
		ck_assert_uint_eq(r->slices.home_vnode[slice_of(u)], RIG_VNODE(RIG_ELSEWHERE));
		r->slices.home_vnode[slice_of(u)] = RIG_VNODE(u < UNITS / 2 ? first : second);
		table.home_vnode[slice_of(u)] = RIG_VNODE(RIG_SELF);
	}
	m->vm = (struct wvm_core_vm){.id = BIG, .pages = UNITS * WVM_UNIT_PAGES};
	m->vm.home = calloc(m->vm.pages, sizeof(*m->vm.home));
	m->vm.held = calloc(m->vm.pages, sizeof(*m->vm.held));
	m->vm.store = calloc(m->vm.pages, WVM_PAGE_BYTES);
	m->vm.units = calloc(UNITS, sizeof(*m->vm.units));
	m->vm.held_units = calloc(UNITS, sizeof(*m->vm.held_units));
	ck_assert(m->vm.home && m->vm.held && m->vm.store && m->vm.units && m->vm.held_units);
	m->index = wvm_core_add_vm(r->core, &m->vm);
	ck_assert_uint_ne(m->index, WVM_NIL);
}

static void many_open_backed(struct many *m)
{
	struct rig *r = &m->rig;

	many_open(m, LIVE, LIVE);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		seconds.home_vnode[i] = RIG_VNODE(LIVE);
	r->params.backup = &seconds;
	free(r->durable);
	free(r->memory);
	r->durable = r->params.durable = rig_memory(wvm_core_durable_bytes(&r->params));
	r->memory = rig_memory(wvm_core_bytes(&r->params));
	r->core = wvm_core_init(r->memory, &r->params);
	m->index = wvm_core_add_vm(r->core, &m->vm);
	wvm_core_serve(r->core, true);
	wvm_core_backup_next(r->core, &seconds);
}

static void many_close(struct many *m)
{
	free(m->vm.home);
	free(m->vm.held);
	free(m->vm.store);
	free(m->vm.units);
	free(m->vm.held_units);
	rig_close(&m->rig);
}

static void switch_over(struct many *m)
{
	ck_assert_int_eq(wvm_core_epoch(m->rig.core, m->rig.now_ns, NEXT, &table), WVM_EPOCH_TAKEN);
	ck_assert_uint_eq(wvm_core_handover(m->rig.core).in, UNITS);
}

/* A message of `member` about a page of the VM. */
static enum wvm_drop tell(struct many *m, uint8_t type, uint32_t member, uint64_t page,
			  uint64_t request)
{
	struct wvm_msg msg = message(type, member, NEXT, request);
	bool bytes = type == WVM_MSG_WRITE_BACK;

	msg.vm_id = BIG;
	msg.gpa = page << WVM_PAGE_SHIFT;
	msg.grant = bytes ? ID(1) : 0;
	msg.flags = bytes ? WVM_MSG_ZERO : 0;
	return in(&m->rig, msg, NULL);
}

/* Takes all actions: questions to former homes. Returns how many. */
static uint32_t take_questions(struct many *m)
{
	const struct wvm_action *a;
	uint32_t count = 0;

	while ((a = wvm_core_action(m->rig.core))) {
		ck_assert_int_eq(a->kind, WVM_ACT_SEND);
		ck_assert(a->msg.type == WVM_MSG_HANDOVER || a->msg.type == WVM_MSG_HANDOVER_DONE);
		m->asked[a->member]++;
		count++;
		if (!m->answers[a->member])
			continue;
		ck_assert_uint_lt(m->waiting_count, WVM_PULLS);
		m->waiting[m->waiting_count++] = a->msg;
	}
	if (m->questions < m->waiting_count)
		m->questions = m->waiting_count;
	return count;
}

/* That nothing of the unit was ever asked for; and that it is forgotten. */
static void answer(struct many *m, struct wvm_msg q)
{
	static const uint8_t never[56];
	struct wvm_msg a = message(q.type, wvm_member_of(&m->rig.members, q.dst), NEXT, q.request);

	a.vm_id = BIG;
	a.gpa = q.gpa;
	a.flags = WVM_MSG_ANSWER;
	if (q.type == WVM_MSG_HANDOVER)
		a.payload_len = a.seg_total = sizeof(never);
	(void)in(&m->rig, a, q.type == WVM_MSG_HANDOVER ? never : NULL);
}

/* All that is due. Returns the questions that come of it. */
static uint32_t tick(struct many *m)
{
	uint32_t count = 0;

	while (wvm_core_deadline(m->rig.core) <= m->rig.now_ns) {
		wvm_core_tick(m->rig.core, m->rig.now_ns);
		count += take_questions(m);
	}
	return count;
}

/* One round trip after the other. */
static void run_for(struct many *m, uint64_t ns)
{
	uint64_t until = m->rig.now_ns + ns;

	while (m->rig.now_ns < until) {
		struct wvm_msg waiting[WVM_PULLS];
		uint32_t count = m->waiting_count;

		memcpy(waiting, m->waiting, sizeof(waiting));
		m->waiting_count = 0;
		for (uint32_t i = 0; i < count; i++) {
			answer(m, waiting[i]);
			take_questions(m);
		}
		tick(m);
		m->rig.now_ns += MS;
	}
}

static uint32_t left_of(const struct many *m, uint32_t from, uint32_t to)
{
	uint32_t left = 0;

	for (uint32_t u = from; u < to; u++)
		left += m->vm.units[u].phase != WVM_MOVED_DONE;
	return left;
}

/* Of all pages that somebody waits for, most are those of the one that says nothing. */
START_TEST(a_page_is_asked_for_whoever_else_is_silent)
{
	struct many m;

	many_open(&m, DEAD, LIVE);
	switch_over(&m);
	for (uint32_t i = 0; i < 3 * WVM_PULLS; i++)
		(void)tell(&m, WVM_MSG_MEM_READ, 9, i, ID(1 + i));
	ck_assert_uint_ge(take_questions(&m), 16); /* they wait side by side */
	for (uint32_t i = 0; i < 4; i++) {
		uint64_t page = (UNITS / 2 + i) * WVM_UNIT_PAGES;

		ck_assert_int_eq(tell(&m, WVM_MSG_MEM_READ, 9, page, ID(1000 + i)), WVM_DROP_NONE);
		ck_assert_uint_eq(take_questions(&m), 1);
		ck_assert_uint_eq(m.asked[LIVE], 1 + i);
	}
	/* And the walk begins, at the first unit. */
	m.rig.now_ns = wvm_core_deadline(m.rig.core);
	wvm_core_tick(m.rig.core, m.rig.now_ns);
	ck_assert_uint_eq(take_questions(&m), WVM_PULLS_WALK);
	many_close(&m);
}
END_TEST

START_TEST(units_of_one_that_is_silent_hold_up_no_others)
{
	struct many m;
	uint32_t asked;

	many_open(&m, DEAD, LIVE);
	m.answers[LIVE] = true;
	switch_over(&m);
	run_for(&m, 500 * MS);
	ck_assert_uint_eq(left_of(&m, UNITS / 2, UNITS), 0);
	ck_assert_uint_eq(wvm_core_handover(m.rig.core).in, UNITS / 2);
	/* It is asked on, and not by all at once. */
	asked = m.asked[DEAD];
	run_for(&m, 10000 * MS);
	ck_assert_uint_ge(m.asked[DEAD], asked + 10);
	ck_assert_uint_le(m.asked[DEAD], asked + 100);
	m.answers[DEAD] = true;
	run_for(&m, 1000 * MS);
	ck_assert_uint_eq(wvm_core_handover(m.rig.core).in, 0);
	ck_assert_uint_eq(wvm_core_deadline(m.rig.core), WVM_CORE_NEVER);
	many_close(&m);
}
END_TEST

/* A unit is two questions, and sixteen of them are out at a time. */
START_TEST(all_slots_of_the_walk_are_in_use_while_everybody_answers)
{
	uint32_t homes = _i;
	struct many m;

	many_open(&m, LIVE, homes == 1 ? LIVE : LIVE + 1);
	m.answers[LIVE] = m.answers[LIVE + 1] = true;
	switch_over(&m);
	run_for(&m, (2 * UNITS / WVM_PULLS_WALK + 2) * MS);
	ck_assert_uint_eq(m.questions, WVM_PULLS_WALK);
	ck_assert_uint_eq(wvm_core_handover(m.rig.core).in, 0);
	ck_assert_uint_eq(m.asked[LIVE] + m.asked[LIVE + 1], 2 * UNITS);
	many_close(&m);
}
END_TEST

static uint32_t free_waiting(const struct many *m)
{
	const struct wvm_core *core = m->rig.core;
	uint32_t count = 0;

	for (uint32_t slot = core->free_waiting; slot; slot = core->waiting[slot - 1].next)
		count++;
	return count;
}

START_TEST(a_page_that_does_not_come_is_waited_for_until_the_deadline)
{
	uint64_t deadline_ns;
	uint32_t asked;
	struct many m;

	many_open(&m, DEAD, DEAD);
	deadline_ns = m.rig.params.times.deadline_ns;
	switch_over(&m);
	ck_assert_int_eq(tell(&m, WVM_MSG_MEM_READ, 9, 7, ID(1)), WVM_DROP_NONE);
	ck_assert_uint_eq(take_questions(&m), 1);
	ck_assert_uint_eq(free_waiting(&m) + 1, m.rig.params.limits.waiting);
	run_for(&m, deadline_ns - MS);
	ck_assert_uint_eq(free_waiting(&m) + 1, m.rig.params.limits.waiting);
	run_for(&m, 2 * MS);
	ck_assert_uint_eq(free_waiting(&m), m.rig.params.limits.waiting);
	for (uint32_t i = 0; i < WVM_PULLS; i++)
		ck_assert_int_ne(m.rig.core->pulls[i].state, WVM_PULL_PAGE);
	/* Whoever repeats it waits again. */
	asked = m.asked[DEAD];
	ck_assert_int_eq(tell(&m, WVM_MSG_MEM_READ, 9, 7, ID(2)), WVM_DROP_NONE);
	take_questions(&m);
	ck_assert_uint_eq(m.asked[DEAD], asked + 1);
	many_close(&m);
}
END_TEST

static const struct {
	uint8_t type;
	bool asks;
} said[] = {
	{WVM_MSG_MEM_READ, true},  {WVM_MSG_MEM_ACQUIRE, true},     {WVM_MSG_WRITE_BACK, true},
	{WVM_MSG_NOT_HELD, false}, {WVM_MSG_INVALIDATE_ACK, false}, {WVM_MSG_LOST, false},
};

START_TEST(a_page_is_asked_for_by_what_needs_it_and_by_nothing_else)
{
	struct many m;

	many_open(&m, LIVE, LIVE);
	switch_over(&m);
	(void)tell(&m, said[_i].type, 9, 3, ID(1));
	ck_assert_uint_eq(take_questions(&m), said[_i].asks);
	many_close(&m);
}
END_TEST

/* It begins in an epoch that has moved slices to it, and has nothing of an earlier life. */
START_TEST(a_fresh_life_fetches_what_has_moved_as_soon_as_it_serves)
{
	struct many m;

	many_open(&m, LIVE, LIVE + 1);
	m.answers[LIVE] = m.answers[LIVE + 1] = true;
	m.rig.params.epoch = m.rig.params.moved = NEXT;
	m.rig.params.before = &m.rig.slices;
	m.rig.params.slices = &table;
	m.rig.core = wvm_core_init(m.rig.memory, &m.rig.params);
	m.index = wvm_core_add_vm(m.rig.core, &m.vm);
	ck_assert_uint_eq(wvm_core_handover(m.rig.core).in, UNITS);
	/* Nobody's answers would be heard before. */
	ck_assert_uint_eq(wvm_core_deadline(m.rig.core), WVM_CORE_NEVER);
	wvm_core_serve(m.rig.core, true);
	run_for(&m, 100 * MS);
	ck_assert_uint_eq(wvm_core_handover(m.rig.core).in, 0);
	ck_assert_uint_eq(m.asked[LIVE] + m.asked[LIVE + 1], 2 * UNITS);
	many_close(&m);
}
END_TEST

/* The question of the unit, taken out of those that wait for an answer. */
static struct wvm_msg question_of(struct many *m, uint64_t unit)
{
	for (uint32_t i = 0; i < m->waiting_count; i++) {
		struct wvm_msg q = m->waiting[i];

		if (q.gpa >> WVM_UNIT_SHIFT != unit)
			continue;
		m->waiting[i] = m->waiting[--m->waiting_count];
		return q;
	}
	ck_abort_msg("unit %u is not asked for", (unsigned)unit);
}

/* Its owner may have nowhere else to put the page, and it is acknowledged when the unit is done. */
START_TEST(a_unit_that_a_write_back_waits_for_comes_before_others)
{
	struct wvm_shipped s = {.unit.version = 12,
				.version = 8,
				.granted = 9,
				.total = 1,
				.count = 1,
				.state = WVM_HOME_MODIFIED,
				.grant = {ID(1)},
				.member = {9}};
	const uint64_t last = UNITS - 1, page = last * WVM_UNIT_PAGES;
	uint8_t bytes[WVM_SHIP_BYTES];
	struct wvm_msg a, w;
	struct many m;

	many_open_backed(&m);
	m.answers[LIVE] = true;
	switch_over(&m);
	ck_assert_uint_eq(tick(&m), WVM_PULLS_WALK);
	ck_assert_int_eq(tell(&m, WVM_MSG_WRITE_BACK, 9, page, ID(2)), WVM_DROP_ROOM);
	ck_assert_uint_eq(take_questions(&m), 1);
	a = question_of(&m, last);
	a.src = RIG_VNODE(LIVE);
	a.dst = RIG_VNODE(RIG_SELF);
	a.flags = WVM_MSG_ANSWER;
	a.payload_len = a.seg_total = (uint16_t)wvm_shipped_encode(bytes, &s);
	ck_assert_int_eq(in(&m.rig, a, bytes), WVM_DROP_NONE);
	take_questions(&m);
	w = message(WVM_MSG_WRITE_BACK, 9, NEXT, ID(2));
	w.vm_id = BIG;
	w.gpa = page << WVM_PAGE_SHIFT;
	w.grant = ID(1);
	w.version = 9;
	w.flags = WVM_MSG_ZERO;
	ck_assert_int_eq(in(&m.rig, w, NULL), WVM_DROP_NONE);
	/* No slot is free; the first that is one is the unit's. */
	ck_assert_ptr_null(wvm_core_action(m.rig.core));
	answer(&m, question_of(&m, 0)); /* nothing was ever asked for: to be forgotten */
	ck_assert_uint_eq(take_questions(&m), 1);
	answer(&m, question_of(&m, 0));
	ck_assert_uint_eq(tick(&m), 1);
	(void)question_of(&m, last);
	many_close(&m);
}
END_TEST

/* The walk of the last move was put off when there was nothing left to ask for. */
START_TEST(a_move_begins_at_once_after_another)
{
	struct wvm_slices next;
	struct many m;

	many_open(&m, LIVE, LIVE);
	m.answers[LIVE] = true;
	for (uint32_t u = UNITS - 4; u < UNITS; u++)
		m.rig.slices.home_vnode[slice_of(u)] = RIG_VNODE(DEAD);
	switch_over(&m);
	/* Some take their time, and the walk finds that nothing is left to be asked for. */
	run_for(&m, 3 * m.rig.params.times.rto_initial_ns);
	m.answers[DEAD] = true;
	while (wvm_core_handover(m.rig.core).in)
		run_for(&m, MS);
	next = table;
	next.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(RIG_SELF);
	ck_assert_int_eq(wvm_core_epoch(m.rig.core, m.rig.now_ns, NEXT + 1, &next),
			 WVM_EPOCH_TAKEN);
	ck_assert_uint_ge(wvm_core_handover(m.rig.core).in, 1);
	tick(&m);
	ck_assert_uint_ge(m.asked[RIG_ELSEWHERE], 1);
	many_close(&m);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, a_page_is_asked_for_whoever_else_is_silent);
	tcase_add_test(tc, a_fresh_life_fetches_what_has_moved_as_soon_as_it_serves);
	tcase_add_test(tc, units_of_one_that_is_silent_hold_up_no_others);
	tcase_add_loop_test(tc, all_slots_of_the_walk_are_in_use_while_everybody_answers, 1, 3);
	tcase_add_test(tc, a_unit_that_a_write_back_waits_for_comes_before_others);
	tcase_add_test(tc, a_move_begins_at_once_after_another);
	tcase_add_test(tc, a_page_that_does_not_come_is_waited_for_until_the_deadline);
	tcase_add_loop_test(tc, a_page_is_asked_for_by_what_needs_it_and_by_nothing_else, 0,
			    CASES(said));
}

int main(void)
{
	return rig_main("handover slots", add);
}

/*
 * What a hand-over leaves behind when it is complete everywhere: a node that has given all away
 * and lost its files comes back, and no other one does.
 */
#include "shared/core/check/moved.h"
#include "shared/core/join.h"

#define DRAINED 5u /* home of both units, until it is drained */

static struct wvm_slices table, later; /* of the next epoch, and of another one */

/* The one slice that is no unit's. */
static uint32_t idle_slice(void)
{
	uint32_t slice = 0;

	while (slice == wvm_slice_of(RIG_VM, 0) || slice == wvm_slice_of(RIG_VM, 1 << 21))
		slice++;
	return slice;
}

/* After `table` another slice moves, which is none of theirs. */
static void plan_later(void)
{
	later = table;
	later.home_vnode[idle_slice()] = RIG_VNODE(7);
}

/* Member `home` has both units. In the next epoch `to` has the first, and the second is elsewhere.
 */
static void open(struct rig *r, uint32_t home, uint32_t to, const struct wvm_layout *layout)
{
	uint16_t second = wvm_slice_of(RIG_VM, RIG_OTHER << WVM_PAGE_SHIFT);
	struct wvm_core_vm vm;

	rig_open_placed(r, home, layout);
	r->slices.home_vnode[second] = RIG_VNODE(home);
	table = r->slices;
	table.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(to);
	table.home_vnode[second] = RIG_VNODE(RIG_ELSEWHERE);
	vm = *wvm_core_vm_at(r->core, 0);
	r->core = wvm_core_init(r->memory, &r->params);
	ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
	wvm_core_serve(r->core, true);
}

static void change(struct rig *r, uint32_t epoch, const struct wvm_slices *to)
{
	ck_assert_int_eq(wvm_core_epoch(r->core, r->now_ns, epoch, to), WVM_EPOCH_TAKEN);
	r->params.before = r->params.slices;
	r->params.slices = to;
	r->params.epoch = r->params.moved = epoch;
}

static struct wvm_msg question(struct rig *r, uint8_t type)
{
	const struct wvm_action *a;

	while (!(a = wvm_core_action(r->core))) {
		r->now_ns = wvm_core_deadline(r->core);
		wvm_core_tick(r->core, r->now_ns);
	}
	ck_assert_int_eq(a->kind, WVM_ACT_SEND);
	ck_assert_str_eq(wvm_msg_name(a->msg.type), wvm_msg_name(type));
	return a->msg;
}

static void ends_of(struct rig *r)
{
	while (wvm_core_action(r->core))
		;
}

/* A grant of a page of either unit. */
static void take_from(struct rig *r, uint32_t home, uint64_t page)
{
	struct wvm_msg m;

	ck_assert(wvm_core_fault(r->core, r->now_ns, 0, page, false, 0));
	m = message(WVM_MSG_MEM_ACK, home, r->params.epoch, question(r, WVM_MSG_MEM_READ).request);
	m.gpa = page << WVM_PAGE_SHIFT;
	m.version = V(4);
	m.flags = WVM_MSG_ZERO;
	ends_of(r);
	ck_assert_int_eq(in(r, m, NULL), WVM_DROP_NONE);
	ends_of(r);
}

/* The former home has nothing of the first unit, and knows that it is known. */
static void fetch(struct rig *r)
{
	static const uint8_t never[56];
	struct wvm_msg m = message(WVM_MSG_HANDOVER, DRAINED, NEXT, 0);

	m.flags = WVM_MSG_ANSWER;
	m.request = question(r, WVM_MSG_HANDOVER).request;
	m.payload_len = m.seg_total = sizeof(never);
	ck_assert_int_eq(in(r, m, never), WVM_DROP_NONE);
	m.type = WVM_MSG_HANDOVER_DONE;
	m.request = question(r, WVM_MSG_HANDOVER_DONE).request;
	m.payload_len = m.seg_total = 0;
	ck_assert_int_eq(in(r, m, NULL), WVM_DROP_NONE);
	ck_assert_uint_eq(wvm_core_handover(r->core).in, 0);
	wvm_core_tick(r->core, r->now_ns); /* what the input before has changed is final */
}

/* What becomes of a life of `node` that has no files, when this node answers it. */
static enum wvm_join_state joins(const struct rig *r, uint32_t node)
{
	static uint8_t answered[RIG_MEMBERS];
	struct wvm_msg ask, reply;
	struct wvm_join new, here;

	wvm_join_init(&here, &r->members, answered, RIG_SELF, NEXT, RIG_BOOT, 0, NULL);
	wvm_join_init(&new, &r->members, answered, node, NEXT, 7, 0, NULL);
	for (uint32_t i = 0; i < RIG_MEMBERS; i++)
		answered[i] = i != RIG_SELF;
	new.missing = 1;
	ck_assert_uint_eq(wvm_join_poll(&new, 0, &ask), RIG_SELF);
	ck_assert(wvm_join_message(&here, node, &ask, wvm_core_taken(r->core, node), &reply));
	ck_assert(!wvm_join_message(&new, RIG_SELF, &reply, 0, &ask));
	return new.state;
}

START_TEST(a_drained_node_comes_back_without_files_when_all_is_handed_over)
{
	struct rig r;

	open(&r, DRAINED, RIG_SELF, NULL);
	take_from(&r, DRAINED, 3);
	change(&r, NEXT, &table);
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_REFUSED);
	/* Not while something is left, nor by word of another epoch. */
	ck_assert(!wvm_core_handed_over(r.core, NEXT));
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_REFUSED);
	fetch(&r);
	ck_assert(!wvm_core_handed_over(r.core, RIG_EPOCH));
	ck_assert(!wvm_core_handed_over(r.core, NEXT + 1));
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_REFUSED);
	ck_assert(wvm_core_handed_over(r.core, NEXT));
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_SERVING);
	/* Who has become the home of what was taken must not have lost it. */
	ck_assert_uint_gt(wvm_core_taken(r.core, RIG_ELSEWHERE), 0);
	rig_kill(&r);
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_SERVING);
	ck_assert(wvm_core_handed_over(r.core, NEXT));
	rig_close(&r);
}
END_TEST

/* It has a slice still, of no unit that anybody knows of; or a placed range. */
START_TEST(one_that_is_home_of_anything_does_not)
{
	static struct wvm_layout_range range = {.units = 1, .member = DRAINED};
	static const struct wvm_layout layout = {&range, 1};
	struct rig r;

	range.first = wvm_layout_key(RIG_VM, RIG_OTHER << WVM_PAGE_SHIFT);
	open(&r, DRAINED, RIG_SELF, _i ? &layout : NULL);
	if (!_i)
		r.slices.home_vnode[idle_slice()] = table.home_vnode[idle_slice()] =
			RIG_VNODE(DRAINED);
	take_from(&r, DRAINED, 3);
	change(&r, NEXT, &table);
	fetch(&r);
	ck_assert(wvm_core_handed_over(r.core, NEXT));
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_REFUSED);
	rig_close(&r);
}
END_TEST

/* A drained node that has left is not asked, so all others answer for what it took: of homes. */
START_TEST(what_somebody_took_who_has_left_is_not_forgotten)
{
	struct rig r;

	open(&r, DRAINED, RIG_SELF, NULL);
	change(&r, NEXT, &table);
	fetch(&r);
	ck_assert(wvm_core_handed_over(r.core, NEXT));
	ck_assert_int_eq(joins(&r, RIG_ELSEWHERE), WVM_JOIN_SERVING);
	wvm_core_left(r.core);
	ck_assert_int_eq(joins(&r, RIG_ELSEWHERE), WVM_JOIN_REFUSED);
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_SERVING);
	rig_kill(&r);
	ck_assert(wvm_core_handed_over(r.core, NEXT));
	ck_assert_int_eq(joins(&r, RIG_ELSEWHERE), WVM_JOIN_REFUSED);
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_SERVING);
	rig_close(&r);
}
END_TEST

/* The next move is decided when the last one is complete, so it says as much. */
START_TEST(the_next_move_says_that_the_last_one_is_complete)
{
	struct rig r;

	open(&r, DRAINED, RIG_SELF, NULL);
	take_from(&r, DRAINED, 3);
	change(&r, NEXT, &table);
	fetch(&r);
	/* One that moves nothing may come at any time. */
	ck_assert_int_eq(wvm_core_epoch(r.core, r.now_ns, NEXT + 1, &table), WVM_EPOCH_TAKEN);
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_REFUSED);
	plan_later();
	change(&r, NEXT + 2, &later);
	ck_assert_int_eq(joins(&r, DRAINED), WVM_JOIN_SERVING);
	rig_close(&r);
}
END_TEST

/*
 * The new home of the other unit is one that others hold something of from the switch on: what was
 * granted by the former one is written back to the new one, of whose later life without files the
 * former one knows nothing as long as it has not been told to forget the unit.
 */
START_TEST(a_new_home_may_not_lose_its_files_either)
{
	struct rig r;

	open(&r, DRAINED, RIG_SELF, NULL);
	ck_assert_int_eq(joins(&r, RIG_ELSEWHERE), WVM_JOIN_SERVING);
	take_from(&r, DRAINED, 3);
	change(&r, NEXT, &table);
	ck_assert_int_eq(joins(&r, RIG_ELSEWHERE), WVM_JOIN_REFUSED);
	fetch(&r);
	ck_assert(wvm_core_handed_over(r.core, NEXT));
	ck_assert_int_eq(joins(&r, RIG_ELSEWHERE), WVM_JOIN_REFUSED);
	rig_close(&r);
}
END_TEST

/* In the epoch that it was in. It does not serve yet. */
static void begin_again(struct rig *r)
{
	struct wvm_core_vm vm = *wvm_core_vm_at(r->core, 0);

	r->params.boot++;
	r->core = wvm_core_init(r->memory, &r->params);
	ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
}

static void lose_files(struct rig *r)
{
	memset(r->durable, 0, wvm_core_durable_bytes(&r->params));
	memset(r->units, 0, sizeof(r->units));
	memset(r->home, 0, RIG_PAGES * sizeof(*r->home));
	begin_again(r);
}

static void lose_files_and_serve(struct rig *r)
{
	lose_files(r);
	wvm_core_serve(r->core, true);
}

START_TEST(a_drained_node_without_files_is_ready_for_the_next_move)
{
	struct rig r;

	open(&r, RIG_SELF, 8, NULL);
	change(&r, NEXT, &table);
	lose_files_and_serve(&r);
	ck_assert_uint_eq(wvm_core_handover(r.core).out, 0);
	plan_later();
	if (_i) {
		ck_assert(wvm_core_handed_over(r.core, NEXT));
		ck_assert_uint_eq(wvm_core_handover(r.core).out, 0);
		rig_kill(&r);
		wvm_core_adopt_held_end(r.core, r.now_ns);
		ck_assert_uint_eq(wvm_core_handover(r.core).out, 0);
	}
	change(&r, NEXT + 1, &later);
	ck_assert_uint_eq(wvm_core_handover(r.core).out, 0);
	rig_close(&r);
}
END_TEST

/*
 * All had come to its former life, which said so, and was the last to: the others have gone on, and
 * nobody answers in the epoch of that move any more. Without: 0 a word, by the next move; 1 that;
 * 2 that, and a life that ends between the word and the move.
 */
START_TEST(a_new_home_without_files_is_ready_for_the_next_move_until_it_serves)
{
	struct wvm_msg m = message(WVM_MSG_MEM_ACQUIRE, 3, NEXT + 1, ID(1));
	struct rig r;

	open(&r, 5, RIG_SELF, NULL);
	change(&r, NEXT, &table);
	ck_assert_uint_eq(wvm_core_handover(r.core).in, 1);
	lose_files(&r);
	plan_later();
	ck_assert(!wvm_core_handed_over(r.core, NEXT - 1));
	ck_assert_uint_eq(wvm_core_handover(r.core).in, 1);
	if (_i)
		ck_assert(wvm_core_handed_over(r.core, NEXT));
	if (_i == 2) {
		rig_kill(&r);
		wvm_core_adopt_held_end(r.core, r.now_ns);
		ck_assert_uint_eq(wvm_core_handover(r.core).in, 0);
	}
	change(&r, NEXT + 1, &later);
	ck_assert_uint_eq(wvm_core_handover(r.core).in, 0);
	wvm_core_serve(r.core, true);
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NONE);
	ck_assert_int_eq(question(&r, WVM_MSG_MEM_ACK).flags & WVM_MSG_ZERO, WVM_MSG_ZERO);
	rig_close(&r);
}
END_TEST

/* Whoever says that all of it has come is wrong. */
START_TEST(a_new_home_that_has_a_part_of_a_unit_is_not_ready_before_it_serves)
{
	struct rig r;

	open(&r, 5, RIG_SELF, NULL);
	change(&r, NEXT, &table);
	r.units[0] =
		(struct wvm_home_unit){.version = V(3), .moved = NEXT, .phase = WVM_MOVED_COMING};
	begin_again(&r);
	ck_assert(!wvm_core_handed_over(r.core, NEXT));
	ck_assert_uint_eq(wvm_core_handover(r.core).in, 1);
	rig_close(&r);
}
END_TEST

/* It asks, and is answered: no move can be next that was not decided without it. */
START_TEST(a_new_home_without_files_that_serves_is_not_ready_for_the_next_move)
{
	struct rig r;

	open(&r, 5, RIG_SELF, NULL);
	change(&r, NEXT, &table);
	lose_files_and_serve(&r);
	question(&r, WVM_MSG_HANDOVER);
	ends_of(&r);
	plan_later();
	ck_assert(!wvm_core_handed_over(r.core, NEXT));
	ck_assert_int_eq(wvm_core_epoch(r.core, r.now_ns, NEXT + 1, &later), WVM_EPOCH_BUSY);
	ck_assert_uint_eq(wvm_core_handover(r.core).in, 1);
	rig_close(&r);
}
END_TEST

/* Those who have fetched all do not ask again; others do, whenever they like. */
START_TEST(who_begins_without_files_has_nothing_to_give_and_says_so)
{
	struct wvm_msg ask = message(WVM_MSG_HANDOVER, 8, NEXT, ID(3)), done = ask;
	struct wvm_shipped said;
	const struct wvm_action *a;
	struct rig r;

	done.type = WVM_MSG_HANDOVER_DONE;
	open(&r, RIG_SELF, 8, NULL);
	change(&r, NEXT, &table);
	ck_assert_uint_eq(wvm_core_handover(r.core).out, 2);
	lose_files_and_serve(&r);
	for (int life = 0; life < 2; life++) {
		ck_assert_uint_eq(wvm_core_handover(r.core).out, 0);
		for (int again = 0; again < 2; again++) {
			ck_assert_int_eq(in(&r, ask, NULL), WVM_DROP_NONE);
			a = wvm_core_action(r.core);
			ck_assert_int_eq(a->msg.type, WVM_MSG_HANDOVER);
			ck_assert(wvm_shipped_decode(r.core, a->data, a->msg.payload_len, &said));
			ck_assert_uint_eq(said.unit.version, 0);
			ends_of(&r);
			ck_assert_int_eq(in(&r, done, NULL), WVM_DROP_NONE);
			ends_of(&r);
		}
		rig_kill(&r);
		wvm_core_adopt_held_end(r.core, r.now_ns);
	}
	rig_close(&r);
}
END_TEST

/* Whoever says that is wrong: it has a page that nobody has fetched. */
START_TEST(what_a_former_home_has_is_not_handed_over_by_word_alone)
{
	struct wvm_msg m = message(WVM_MSG_MEM_ACQUIRE, 3, RIG_EPOCH, ID(1));
	struct rig r;

	open(&r, RIG_SELF, 8, NULL);
	m.gpa = (uint64_t)RIG_OTHER << WVM_PAGE_SHIFT;
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NONE);
	ends_of(&r);
	change(&r, NEXT, &table);
	ck_assert(!wvm_core_handed_over(r.core, NEXT));
	ck_assert_uint_eq(wvm_core_handover(r.core).out, 2);
	/* It is given to whoever is to have it. */
	m = message(WVM_MSG_HANDOVER, RIG_ELSEWHERE, NEXT, ID(3));
	m.gpa = (uint64_t)RIG_OTHER << WVM_PAGE_SHIFT;
	ck_assert_int_eq(in(&r, m, NULL), WVM_DROP_NONE);
	ck_assert_uint_eq(question(&r, WVM_MSG_HANDOVER).flags, WVM_MSG_ANSWER);
	ends_of(&r);
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, a_drained_node_comes_back_without_files_when_all_is_handed_over);
	tcase_add_loop_test(tc, one_that_is_home_of_anything_does_not, 0, 2);
	tcase_add_test(tc, what_somebody_took_who_has_left_is_not_forgotten);
	tcase_add_test(tc, a_new_home_may_not_lose_its_files_either);
	tcase_add_test(tc, the_next_move_says_that_the_last_one_is_complete);
	tcase_add_loop_test(tc, a_drained_node_without_files_is_ready_for_the_next_move, 0, 2);
	tcase_add_loop_test(tc, a_new_home_without_files_is_ready_for_the_next_move_until_it_serves,
			    0, 3);
	tcase_add_test(tc, a_new_home_that_has_a_part_of_a_unit_is_not_ready_before_it_serves);
	tcase_add_test(tc, a_new_home_without_files_that_serves_is_not_ready_for_the_next_move);
	tcase_add_test(tc, who_begins_without_files_has_nothing_to_give_and_says_so);
	tcase_add_test(tc, what_a_former_home_has_is_not_handed_over_by_word_alone);
}

int main(void)
{
	return rig_main("handed over", add);
}

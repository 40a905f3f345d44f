/* One core whose home changes under it: what it says to both sides, message by message. */
#include "shared/core/check/rig.h"

#define NEXT (RIG_EPOCH + 1)

static struct wvm_slices table, other; /* of the next epoch, and of the one after it */

static struct wvm_msg message(uint8_t type, uint32_t member, uint32_t epoch, uint64_t request)
{
	return (struct wvm_msg){.type = type,
				.node_state = WVM_NODE_ACTIVE,
				.hops = WVM_HOPS_MAX,
				.vm_id = RIG_VM,
				.epoch = epoch,
				.src = RIG_VNODE(member),
				.dst = RIG_VNODE(RIG_SELF),
				.request = request};
}

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

static enum wvm_drop in(struct rig *r, struct wvm_msg m, const uint8_t *payload)
{
	return wvm_core_message(r->core, r->now_ns, &m, payload);
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

START_TEST(epochs_go_forward_and_a_later_one_is_told)
{
	struct rig r;

	move(&r, RIG_SELF, RIG_ELSEWHERE);
	ck_assert_int_eq(in(&r, message(WVM_MSG_MEM_READ, 4, NEXT + 4, ID(2)), NULL),
			 WVM_DROP_EPOCH);
	ck_assert_uint_eq(wvm_core_epoch_seen(r.core), NEXT + 4);
	ck_assert_ptr_null(wvm_core_action(r.core));
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

static void add(TCase *tc)
{
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

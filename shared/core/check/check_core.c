/* What a core accepts at its making: limits, VMs; and where it says that pages live. */
#include "shared/core/check/rig.h"

static const struct {
	const char *what;
	size_t offset; /* in struct wvm_core_limits */
	uint32_t least, most;
} limits[] = {
#define LIMIT(name, least, most)                                           \
	{                                                                  \
#name, offsetof(struct wvm_core_limits, name), least, most \
	}
	LIMIT(requests, 1, 1u << 20), LIMIT(txns, 1, 1u << 20),
	LIMIT(waiting, 1, 1u << 20),  LIMIT(demands, 1, 1u << 20),
	LIMIT(partials, 1, 1u << 20), LIMIT(holder_blocks, 1, 1u << 28),
	LIMIT(peer_shards, 1, 256),
};

static size_t bytes_with(const struct rig *r, size_t offset, uint32_t value)
{
	struct wvm_core_params p = r->params;

	memcpy((char *)&p.limits + offset, &value, sizeof(value));
	return wvm_core_bytes(&p);
}

START_TEST(a_limit_out_of_its_range_is_refused)
{
	size_t offset = limits[_i].offset;
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	ck_assert_uint_eq(bytes_with(&r, offset, limits[_i].least - 1), 0);
	ck_assert_uint_gt(bytes_with(&r, offset, limits[_i].least), 0);
	ck_assert_uint_gt(bytes_with(&r, offset, limits[_i].most), 0);
	ck_assert_uint_eq(bytes_with(&r, offset, limits[_i].most + 1), 0);
	ck_assert_uint_eq(bytes_with(&r, offset, UINT32_MAX), 0);
	ck_assert_uint_eq(wvm_core_bytes(&r.params) % 64, 0);
	rig_close(&r);
}
END_TEST

START_TEST(parameters_that_make_no_sense_are_refused)
{
	struct wvm_members nobody;
	struct wvm_core_params p;
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	p = r.params;
	p.boot = 0;
	ck_assert_uint_eq(wvm_core_bytes(&p), 0);
	p = r.params;
	p.self = RIG_MEMBERS;
	ck_assert_uint_eq(wvm_core_bytes(&p), 0);
	p = r.params;
	p.limits.partials = 3; /* no power of two */
	ck_assert_uint_eq(wvm_core_bytes(&p), 0);
	p = r.params;
	nobody = (struct wvm_members){r.list, 0};
	p.members = &nobody;
	p.self = 0;
	ck_assert_uint_eq(wvm_core_bytes(&p), 0);
	rig_close(&r);
}
END_TEST

START_TEST(a_vm_is_added_once_and_64_at_most)
{
	struct rig r;
	struct wvm_core_vm vm;

	rig_open(&r, RIG_SELF, NULL);
	vm = *wvm_core_vm_at(r.core, 0);
	ck_assert_uint_eq(wvm_core_add_vm(r.core, &vm), WVM_NIL);
	for (uint32_t i = 1; i < WVM_CORE_VMS_MAX; i++) {
		vm.id = (uint16_t)(1000 + i);
		ck_assert_uint_eq(wvm_core_add_vm(r.core, &vm), i);
		ck_assert_uint_eq(wvm_core_vm_at(r.core, i)->id, 1000 + i);
	}
	vm.id = 5000;
	ck_assert_uint_eq(wvm_core_add_vm(r.core, &vm), WVM_NIL);
	rig_close(&r);
}
END_TEST

START_TEST(a_page_lives_where_its_slice_does)
{
	struct rig r;
	uint32_t vnode = 0;

	rig_open(&r, RIG_SELF, NULL);
	ck_assert_uint_eq(wvm_core_home_of(r.core, 0, 511, &vnode), RIG_SELF);
	ck_assert_uint_eq(vnode, RIG_VNODE(RIG_SELF));
	ck_assert_uint_eq(wvm_core_home_of(r.core, 0, RIG_OTHER, &vnode), RIG_ELSEWHERE);
	ck_assert_uint_eq(wvm_core_home_of(r.core, 0, RIG_OTHER, NULL), RIG_ELSEWHERE);
	rig_close(&r);
}
END_TEST

START_TEST(a_placed_page_lives_on_its_node_and_messages_go_there)
{
	const struct wvm_layout_range list[] = {
		{.first = wvm_layout_key(RIG_VM - 1, 0), .units = 9, .member = RIG_SELF},
		{.first = wvm_layout_key(RIG_VM, 0), .units = 1, .member = 3, .line = 7},
	};
	const struct wvm_layout layout = {list, 2};
	uint32_t vnode = 0;
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	ck_assert_ptr_null(wvm_core_placed(r.core, 0, 0));
	rig_close(&r);
	rig_open_placed(&r, RIG_SELF, &layout);
	for (uint64_t page = 0; page < WVM_UNIT_PAGES; page += 511) {
		ck_assert_uint_eq(wvm_core_home_of(r.core, 0, page, &vnode), 3);
		ck_assert_uint_eq(vnode, RIG_VNODE(3));
		ck_assert_ptr_eq(wvm_core_placed(r.core, 0, page), &list[1]);
	}
	ck_assert_ptr_null(wvm_core_placed(r.core, 0, RIG_OTHER));
	ck_assert_uint_eq(wvm_core_home_of(r.core, 0, RIG_OTHER, &vnode), RIG_ELSEWHERE);
	rig_run(&r, &(struct rig_case)CASE(
			    "placed", DO(FAULT), SENT(MEM_READ, 3, .request = OWN(1)),
			    IN(MEM_ACK, 3, .request = OWN(1), .version = V(1), .fill = 1),
			    ACT(INSTALL, .waiters = 1, .fill = 1)));
	rig_close(&r);
}
END_TEST

/* What a joining node is told. */
START_TEST(grants_are_counted_by_their_home)
{
	struct rig r;

	rig_open(&r, 3, NULL);
	rig_run(&r,
		&(struct rig_case)CASE(
			"taken", DO(FAULT), SENT(MEM_READ, 3, .request = OWN(1)),
			IN(MEM_ACK, 3, .request = OWN(1), .version = V(1), .fill = 1),
			ACT(INSTALL, .waiters = 1, .fill = 1), DO(FAULT, .flags = 1),
			SENT(MEM_ACQUIRE, 3, .request = OWN(2), .flags = WVM_MSG_HELD,
			     .version = V(1)),
			IN(MEM_ACK, 3, .request = OWN(2), .version = V(2), .flags = WVM_MSG_HELD),
			ACT(LIFT, .waiters = 1),
			IN(MEM_ACK, 3, .request = OWN(2), .version = V(2), .flags = WVM_MSG_HELD,
			   LESS(STALE))));
	ck_assert_uint_eq(wvm_core_taken(r.core, 3), 2);
	ck_assert_uint_eq(wvm_core_taken(r.core, RIG_SELF), 0);
	ck_assert_uint_eq(wvm_core_taken(r.core, RIG_ELSEWHERE), 0);
	rig_close(&r);
}
END_TEST

/* The histogram's bucket i is below 2^i µs. */
START_TEST(a_fault_counts_in_the_bucket_of_its_duration)
{
	static const struct {
		uint64_t ns;
		uint32_t bucket;
	} cases[] = {{0, 0},      {999, 0},    {1000, 1},        {1999, 1},       {2000, 2},
		     {100000, 7}, {128000, 8}, {4000000000, 22}, {4999999999, 23}};
	struct rig r;

	rig_open(&r, 3, NULL);
	r.name = "latency";
	wvm_core_fault(r.core, r.now_ns, 0, 0, _i % 2, 0);
	while (wvm_core_action(r.core))
		;
	r.now_ns += cases[_i].ns;
	rig_do(&r, (struct rig_step)IN(MEM_ACK, 3, .request = OWN(1), .version = V(1),
				       .flags = WVM_MSG_ZERO));
	for (uint32_t i = 0; i < WVM_LATENCY_BUCKETS; i++) {
		const struct wvm_core_stats *s = wvm_core_stats(r.core);
		bool here = i == cases[_i].bucket;

		ck_assert_uint_eq(s->latency_write[i], here && _i % 2);
		ck_assert_uint_eq(s->latency_read[i], here && !(_i % 2));
	}
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_limit_out_of_its_range_is_refused, 0, CASES(limits));
	tcase_add_test(tc, parameters_that_make_no_sense_are_refused);
	tcase_add_test(tc, a_vm_is_added_once_and_64_at_most);
	tcase_add_test(tc, a_page_lives_where_its_slice_does);
	tcase_add_test(tc, a_placed_page_lives_on_its_node_and_messages_go_there);
	tcase_add_test(tc, grants_are_counted_by_their_home);
	tcase_add_loop_test(tc, a_fault_counts_in_the_bucket_of_its_duration, 0, 9);
}

int main(void)
{
	return rig_main("core", add);
}

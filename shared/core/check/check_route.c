/* Routes of a gateway: precedence, ranges, trust, and against a model that has every vnode. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/msg.h"
#include "shared/core/route.h"

#define ROOM  8u
#define MODEL 64u /* vnodes of the model */

static struct wvm_routes_table t;
static void *memory;

static struct wvm_hop hop(unsigned n)
{
	return (struct wvm_hop){.ip = 0x0a000000 + n, .port = 8000};
}

static void make(uint32_t room)
{
	struct wvm_route_limits limits = {{room, room, room, room}};

	memory = malloc(wvm_route_bytes(&limits));
	wvm_route_init(&t, &limits, memory);
}

static void setup(void)
{
	make(ROOM);
}

static void teardown(void)
{
	free(memory);
}

/* The last byte of the next hop's address, 0: none. */
static unsigned way(uint32_t vnode)
{
	const struct wvm_hop *h = wvm_route_find(&t, vnode, NULL);

	return h ? h->ip & 0xff : 0;
}

START_TEST(an_order_comes_before_a_line_before_an_announcement_before_what_was_learned)
{
	enum wvm_route_class class;

	ck_assert_uint_eq(way(5), 0);
	wvm_route_set_upstream(&t, hop(6));
	ck_assert_uint_eq(way(5), 6);
	wvm_route_set_default(&t, hop(5));
	ck_assert_uint_eq(way(5), 5);
	for (unsigned k = WVM_ROUTE_CLASSES; k-- > 0;) {
		ck_assert(wvm_route_set(&t, k, 5, 1, hop(1 + k)));
		ck_assert_uint_eq(way(5), 1 + k);
	}
	for (unsigned i = 0; i < WVM_ROUTE_CLASSES; i++) {
		wvm_route_find(&t, 5, &class);
		ck_assert_int_eq(class, i);
		ck_assert(wvm_route_clear(&t, i, 5, 1, NULL));
	}
	ck_assert_uint_eq(way(5), 5);
	ck_assert_uint_eq(way(WVM_NODE_MAX), 0);
}
END_TEST

START_TEST(a_million_vnodes_behind_one_hop_are_one_entry)
{
	for (uint32_t i = 0; i < WVM_NODE_MAX; i += 2)
		ck_assert(wvm_route_set(&t, WVM_ROUTE_OPERATOR, i, 2, hop(1)));
	ck_assert_uint_eq(t.list[WVM_ROUTE_OPERATOR].count, 1);
	ck_assert_uint_eq(way(WVM_NODE_MAX - 1), 1);
}
END_TEST

START_TEST(a_range_within_another_splits_it)
{
	uint32_t gone;

	wvm_route_set(&t, WVM_ROUTE_STATIC, 0, 100, hop(1));
	wvm_route_set(&t, WVM_ROUTE_STATIC, 40, 20, hop(2));
	ck_assert_uint_eq(t.list[WVM_ROUTE_STATIC].count, 3);
	ck_assert_uint_eq(way(39), 1);
	ck_assert_uint_eq(way(40), 2);
	ck_assert_uint_eq(way(59), 2);
	ck_assert_uint_eq(way(60), 1);
	ck_assert(wvm_route_clear(&t, WVM_ROUTE_STATIC, 30, 40, &gone));
	ck_assert_uint_eq(gone, 40);
	ck_assert_uint_eq(way(29), 1);
	ck_assert_uint_eq(way(30), 0);
	ck_assert_uint_eq(way(70), 1);
}
END_TEST

START_TEST(a_full_class_refuses_and_keeps_what_it_has)
{
	for (unsigned i = 0; i < ROOM; i++)
		ck_assert(wvm_route_set(&t, WVM_ROUTE_OPERATOR, 10 * i, 3, hop(1 + i)));
	ck_assert(!wvm_route_set(&t, WVM_ROUTE_OPERATOR, 200, 1, hop(99)));
	ck_assert_uint_eq(way(200), 0);
	/* Cutting a hole takes an entry more. */
	ck_assert(!wvm_route_clear(&t, WVM_ROUTE_OPERATOR, 11, 1, NULL));
	ck_assert_uint_eq(way(11), 2);
	/* What takes another's place takes no entry. */
	ck_assert(wvm_route_set(&t, WVM_ROUTE_OPERATOR, 10, 3, hop(77)));
	ck_assert_uint_eq(way(12), 77);
}
END_TEST

START_TEST(only_neighbours_are_trusted_and_learned_from)
{
	struct wvm_hop other_port = hop(1);

	other_port.port++;
	ck_assert(!wvm_route_trusts(&t, (struct wvm_hop){0}));
	ck_assert(!wvm_route_trusts(&t, hop(1)));
	ck_assert(!wvm_route_learn(&t, 9, hop(1)));
	ck_assert_uint_eq(way(9), 0);
	wvm_route_set(&t, WVM_ROUTE_ANNOUNCED, 3, 1, hop(1));
	ck_assert(wvm_route_trusts(&t, hop(1)));
	ck_assert(!wvm_route_trusts(&t, other_port));
	ck_assert(wvm_route_learn(&t, 9, hop(1)));
	ck_assert_uint_eq(way(9), 1);
	ck_assert(!wvm_route_learn(&t, 9, hop(1)));
	/* A vnode moves to the neighbour it was heard from last; what is configured does not. */
	wvm_route_set_upstream(&t, hop(2));
	ck_assert(wvm_route_learn(&t, 9, hop(2)));
	ck_assert_uint_eq(way(9), 2);
	ck_assert(!wvm_route_learn(&t, 3, hop(2)));
	ck_assert_uint_eq(way(3), 1);
	ck_assert(!wvm_route_learn(&t, WVM_NODE_MAX, hop(2)));
}
END_TEST

START_TEST(what_was_learned_goes_with_its_neighbour)
{
	wvm_route_set(&t, WVM_ROUTE_OPERATOR, 3, 1, hop(1));
	wvm_route_set(&t, WVM_ROUTE_STATIC, 4, 1, hop(2));
	ck_assert(wvm_route_learn(&t, 9, hop(1)));
	ck_assert(wvm_route_learn(&t, 11, hop(2)));
	wvm_route_clear(&t, WVM_ROUTE_OPERATOR, 3, 1, NULL);
	ck_assert(!wvm_route_trusts(&t, hop(1)));
	ck_assert_uint_eq(way(9), 0);
	ck_assert_uint_eq(way(11), 2);
}
END_TEST

START_TEST(what_finds_no_room_is_not_learned_and_is_counted)
{
	wvm_route_set_upstream(&t, hop(200));
	wvm_route_set(&t, WVM_ROUTE_OPERATOR, 0, 1, hop(1));
	for (unsigned i = 0; i < ROOM; i++)
		ck_assert(wvm_route_learn(&t, 10 + 2 * i, hop(1)));
	ck_assert(!wvm_route_learn(&t, 100, hop(1)));
	ck_assert_uint_eq(t.learned_full, 1);
	ck_assert_uint_eq(way(100), 200);
}
END_TEST

START_TEST(every_class_has_a_name_of_its_own)
{
	for (unsigned i = 0; i <= WVM_ROUTE_NONE; i++)
		for (unsigned k = 0; k < i; k++)
			ck_assert_str_ne(wvm_route_class_name(i), wvm_route_class_name(k));
	ck_assert_str_eq(wvm_route_class_name(WVM_ROUTE_NONE + 1), "unknown");
}
END_TEST

static uint64_t state = 0x9e3779b97f4a7c15;

static uint32_t below(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 11) % n);
}

static void check_sorted(const struct wvm_route_list *l)
{
	for (uint32_t i = 0; i < l->count; i++) {
		const struct wvm_route_range *r = &l->at[i];

		ck_assert_uint_gt(r->count, 0);
		if (!i)
			continue;
		ck_assert_uint_ge(r->first, r[-1].first + r[-1].count);
		ck_assert(r->first > r[-1].first + r[-1].count || !wvm_hop_same(r->hop, r[-1].hop));
	}
}

START_TEST(ranges_agree_with_a_model_of_every_vnode)
{
	unsigned model[MODEL] = {0};

	for (unsigned step = 0; step < 20000; step++) {
		uint32_t first = below(MODEL), count = 1 + below(MODEL - first), gone = 0, had = 0;
		unsigned to = below(4); /* 0: cleared */
		bool done;

		for (uint32_t i = first; i < first + count; i++)
			had += model[i] != 0;
		done = to ? wvm_route_set(&t, WVM_ROUTE_STATIC, first, count, hop(to))
			  : wvm_route_clear(&t, WVM_ROUTE_STATIC, first, count, &gone);
		ck_assert(to || gone == had);
		for (uint32_t i = first; done && i < first + count; i++)
			model[i] = to;
		for (uint32_t i = 0; i < MODEL; i++)
			ck_assert_uint_eq(way(i), model[i]);
		check_sorted(&t.list[WVM_ROUTE_STATIC]);
		/* Not asked at every step, so that several changes come together, too. */
		for (unsigned n = 1; n < 4 && step % 3; n++) {
			bool there = false;

			for (uint32_t i = 0; i < MODEL; i++)
				there |= model[i] == n;
			ck_assert_int_eq(wvm_route_trusts(&t, hop(n)), there);
		}
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("route");
	TCase *c = tcase_create("route");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c,
		       an_order_comes_before_a_line_before_an_announcement_before_what_was_learned);
	tcase_add_test(c, a_million_vnodes_behind_one_hop_are_one_entry);
	tcase_add_test(c, a_range_within_another_splits_it);
	tcase_add_test(c, a_full_class_refuses_and_keeps_what_it_has);
	tcase_add_test(c, only_neighbours_are_trusted_and_learned_from);
	tcase_add_test(c, what_was_learned_goes_with_its_neighbour);
	tcase_add_test(c, what_finds_no_room_is_not_learned_and_is_counted);
	tcase_add_test(c, every_class_has_a_name_of_its_own);
	tcase_add_test(c, ranges_agree_with_a_model_of_every_vnode);
	suite_add_tcase(s, c);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

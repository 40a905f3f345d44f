/* The core's timers: the heap against a list that is searched. */
#include <check.h>
#include <stdlib.h>

#include "shared/core/timers.h"

#define NODES 97u

static struct wvm_core_timer nodes[NODES];
static struct wvm_core_timer *heap[NODES];

static uint64_t state;

static uint32_t below(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 20) % n;
}

static struct wvm_core_timers fresh(void)
{
	for (uint32_t i = 0; i < NODES; i++)
		nodes[i] = (struct wvm_core_timer){.kind = i};
	return (struct wvm_core_timers){.heap = heap, .capacity = NODES};
}

/* WVM_CORE_NEVER: not armed. */
static uint64_t due[NODES];

static uint64_t earliest(void)
{
	uint64_t first = WVM_CORE_NEVER;

	for (uint32_t i = 0; i < NODES; i++)
		if (due[i] < first)
			first = due[i];
	return first;
}

static void take_expired(struct wvm_core_timers *timers, uint64_t now_ns)
{
	struct wvm_core_timer *t = wvm_core_timer_expired(timers, now_ns);

	if (!t) {
		ck_assert_uint_gt(earliest(), now_ns);
		return;
	}
	ck_assert_uint_eq(t->due_ns, earliest());
	ck_assert_uint_eq(t->due_ns, due[t->kind]);
	ck_assert_uint_le(t->due_ns, now_ns);
	ck_assert_uint_eq(t->place, 0);
	due[t->kind] = WVM_CORE_NEVER;
}

/* Few distinct times, so that equal ones are frequent; armed and idle nodes alike. */
START_TEST(random_use_agrees_with_a_searched_list)
{
	struct wvm_core_timers timers = fresh();
	uint64_t now_ns = 0;

	state = 0x9e3779b97f4a7c15 + (uint64_t)_i;
	for (uint32_t i = 0; i < NODES; i++)
		due[i] = WVM_CORE_NEVER;
	for (uint32_t n = 0; n < 50000; n++) {
		uint32_t i = below(NODES), armed = 0;

		switch (below(_i % 2 ? 4 : 6)) {
		case 0: take_expired(&timers, now_ns); break;
		case 1:
			wvm_core_timer_cancel(&timers, &nodes[i]);
			due[i] = WVM_CORE_NEVER;
			break;
		case 2: now_ns += below(5); break;
		default:
			due[i] = now_ns + below(40);
			wvm_core_timer_arm(&timers, &nodes[i], due[i]);
			break;
		}
		ck_assert_uint_eq(wvm_core_timer_next(&timers), earliest());
		for (i = 0; i < NODES; i++) {
			if ((due[i] != WVM_CORE_NEVER) != (nodes[i].place != 0))
				ck_abort_msg("timer %u: armed is %u", i, nodes[i].place);
			armed += nodes[i].place != 0;
		}
		ck_assert_uint_eq(timers.count, armed);
	}
}
END_TEST

START_TEST(all_come_in_order_of_their_time)
{
	struct wvm_core_timers timers = fresh();
	struct wvm_core_timer *t;
	uint64_t last = 0;
	uint32_t n = 0;

	state = 77;
	for (uint32_t i = 0; i < NODES; i++)
		wvm_core_timer_arm(&timers, &nodes[i], below(1000));
	while ((t = wvm_core_timer_expired(&timers, UINT64_MAX))) {
		ck_assert_uint_ge(t->due_ns, last);
		last = t->due_ns;
		n++;
	}
	ck_assert_uint_eq(n, NODES);
	ck_assert_uint_eq(wvm_core_timer_next(&timers), WVM_CORE_NEVER);
}
END_TEST

START_TEST(a_timer_is_not_due_before_its_time)
{
	struct wvm_core_timers timers = fresh();

	wvm_core_timer_arm(&timers, &nodes[0], 100);
	ck_assert_ptr_null(wvm_core_timer_expired(&timers, 99));
	ck_assert_ptr_eq(wvm_core_timer_expired(&timers, 100), &nodes[0]);
	ck_assert_ptr_null(wvm_core_timer_expired(&timers, UINT64_MAX));
}
END_TEST

START_TEST(cancelling_an_idle_timer_does_nothing)
{
	struct wvm_core_timers timers = fresh();

	wvm_core_timer_arm(&timers, &nodes[1], 5);
	wvm_core_timer_cancel(&timers, &nodes[0]);
	wvm_core_timer_cancel(&timers, &nodes[1]);
	wvm_core_timer_cancel(&timers, &nodes[1]);
	ck_assert_uint_eq(timers.count, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("timers");
	TCase *tc = tcase_create("timers");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, random_use_agrees_with_a_searched_list, 0, 4);
	tcase_add_test(tc, all_come_in_order_of_their_time);
	tcase_add_test(tc, a_timer_is_not_due_before_its_time);
	tcase_add_test(tc, cancelling_an_idle_timer_does_nothing);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

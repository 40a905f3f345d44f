/* The window of seen request ids, the round-trip estimate, the congestion window. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/peer.h"

#define MS UINT64_C(1000000)

static uint64_t state;

static uint64_t below(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % n;
}

static uint64_t id(uint16_t boot, uint64_t counter)
{
	return wvm_request_id(boot, 3, counter);
}

/* ---- seen ids -------------------------------------------------------------------------- */

START_TEST(the_first_id_may_be_any)
{
	static const uint64_t first[] = {0, 1, WVM_SEEN_BITS, WVM_REQUEST_COUNTER_MAX};
	struct wvm_seen seen = {0};

	ck_assert_int_eq(wvm_seen_check(&seen, id(1, first[_i])), WVM_DROP_NONE);
	ck_assert(wvm_seen_note(&seen, id(1, first[_i])));
	ck_assert(!wvm_seen_note(&seen, id(1, first[_i])));
}
END_TEST

START_TEST(an_id_below_the_window_is_stale)
{
	const uint64_t high = 1000000;
	struct wvm_seen seen = {0};

	wvm_seen_note(&seen, id(1, high));
	ck_assert_int_eq(wvm_seen_check(&seen, id(1, high - WVM_SEEN_BITS)), WVM_DROP_STALE);
	ck_assert_int_eq(wvm_seen_check(&seen, id(1, 0)), WVM_DROP_STALE);
	ck_assert_int_eq(wvm_seen_check(&seen, id(1, high - WVM_SEEN_BITS + 1)), WVM_DROP_NONE);
	ck_assert(wvm_seen_note(&seen, id(1, high - WVM_SEEN_BITS + 1)));
	ck_assert(!wvm_seen_note(&seen, id(1, high - WVM_SEEN_BITS + 1)));
	ck_assert(!wvm_seen_note(&seen, id(1, high)));
}
END_TEST

START_TEST(checking_notes_nothing)
{
	struct wvm_seen seen = {0}, before = {0};

	wvm_seen_note(&seen, id(1, 10));
	memcpy(&before, &seen, sizeof(seen));
	wvm_seen_check(&seen, id(1, 10));
	wvm_seen_check(&seen, id(1, 11));
	wvm_seen_check(&seen, id(2, 1));
	ck_assert_mem_eq(&seen, &before, sizeof(seen));
}
END_TEST

START_TEST(a_newer_boot_starts_over_and_ends_the_older)
{
	struct wvm_seen seen = {0};

	wvm_seen_note(&seen, id(1, 50000));
	ck_assert_int_eq(wvm_seen_check(&seen, id(2, 1)), WVM_DROP_NONE);
	ck_assert(wvm_seen_note(&seen, id(2, 1)));
	ck_assert(!wvm_seen_note(&seen, id(2, 1)));
	ck_assert_int_eq(wvm_seen_check(&seen, id(1, 50001)), WVM_DROP_STALE);
	ck_assert_int_eq(wvm_seen_check(&seen, id(1, UINT32_MAX)), WVM_DROP_STALE);
	ck_assert(wvm_seen_note(&seen, id(2, 50000)));
	ck_assert(wvm_seen_note(&seen, id(UINT16_MAX, 1)));
	ck_assert_int_eq(wvm_seen_check(&seen, id(2, 50001)), WVM_DROP_STALE);
}
END_TEST

/* A jump clears exactly what it passes: nothing new is taken for a retry. */
START_TEST(a_jump_forgets_what_it_passes)
{
	static const uint64_t jumps[] = {1,    2,    63,   64,   65,   4032,   4095,
					 4096, 4097, 8191, 8192, 8193, 100000, UINT64_C(1) << 39};
	struct wvm_seen seen = {0};
	uint64_t base = 3 * WVM_SEEN_BITS, jump = jumps[_i];

	for (uint64_t c = base - WVM_SEEN_BITS + 1; c <= base; c++)
		wvm_seen_note(&seen, id(1, c));
	ck_assert(wvm_seen_note(&seen, id(1, base + jump)));
	for (uint64_t c = base + jump - WVM_SEEN_BITS + 1; c < base + jump; c++)
		ck_assert_int_eq(wvm_seen_note(&seen, id(1, c)), c > base);
}
END_TEST

/* Against a list of all that was noted. */
START_TEST(random_ids_agree_with_the_model)
{
	enum { SPAN = 60000 };
	static bool noted[3][SPAN];
	struct wvm_seen seen = {0};
	uint64_t at = 0, highest = 0;
	uint16_t boot = 0, boots = 0;

	memset(noted, 0, sizeof(noted));
	state = 0x1234567 + (uint64_t)_i;
	while (at < SPAN - 20000) {
		uint64_t c = at + below(6000);
		uint16_t b = 1 + boots - (boots && below(50) == 0);
		bool stale;

		c = c > 3000 ? c - 3000 : 0;
		at += below(_i % 2 ? 3 : 40) ? 0 : below(_i % 3 ? 64 : 9000);
		if (boots < 2 && below(5000) == 0) {
			boots++;
			at = 0;
		}
		stale = b < boot || (b == boot && c + WVM_SEEN_BITS <= highest);
		ck_assert_int_eq(wvm_seen_check(&seen, id(b, c)),
				 stale ? WVM_DROP_STALE : WVM_DROP_NONE);
		if (stale)
			continue;
		if (b > boot || c > highest)
			highest = c;
		boot = b;
		ck_assert_int_eq(wvm_seen_note(&seen, id(b, c)), !noted[b - 1][c]);
		noted[b - 1][c] = true;
	}
}
END_TEST

/* ---- round trips ----------------------------------------------------------------------- */

START_TEST(the_timeout_stays_within_its_bounds)
{
	struct wvm_peer peer;

	wvm_peer_init(&peer);
	ck_assert_uint_eq(wvm_peer_rto(&peer, MS, 20 * MS, 500 * MS), 20 * MS);
	state = 99;
	for (uint32_t i = 0; i < 100000; i++) {
		uint64_t rto;

		wvm_peer_sample(&peer, below(i % 7 ? 100000 : UINT64_C(10000000000)));
		rto = wvm_peer_rto(&peer, MS, 20 * MS, 500 * MS);
		ck_assert(rto >= MS && rto <= 500 * MS);
	}
}
END_TEST

START_TEST(the_first_sample_gives_three_round_trips)
{
	struct wvm_peer peer;

	wvm_peer_init(&peer);
	wvm_peer_sample(&peer, 10 * MS); /* RFC 6298: srtt + 4 * rtt / 2 */
	ck_assert_uint_eq(wvm_peer_rto(&peer, 0, 1, UINT64_MAX), 30 * MS);
}
END_TEST

START_TEST(a_sample_of_zero_counts_as_one)
{
	struct wvm_peer peer;

	wvm_peer_init(&peer);
	wvm_peer_sample(&peer, 0);
	ck_assert_uint_lt(wvm_peer_rto(&peer, 0, 20 * MS, 500 * MS), 10);
}
END_TEST

START_TEST(the_estimate_follows_a_steady_path)
{
	struct wvm_peer peer;

	wvm_peer_init(&peer);
	wvm_peer_sample(&peer, 100 * MS);
	for (uint32_t i = 0; i < 200; i++)
		wvm_peer_sample(&peer, 2 * MS);
	ck_assert_uint_lt(wvm_peer_rto(&peer, 0, 1, UINT64_MAX), 2 * MS + MS / 2);
	ck_assert_uint_ge(wvm_peer_rto(&peer, 0, 1, UINT64_MAX), 2 * MS - 100);
	for (uint32_t i = 0; i < 200; i++)
		wvm_peer_sample(&peer, i % 2 ? 2 * MS : 6 * MS);
	ck_assert_uint_gt(wvm_peer_rto(&peer, 0, 1, UINT64_MAX), 8 * MS);
}
END_TEST

/* ---- congestion ------------------------------------------------------------------------ */

START_TEST(the_window_opens_by_one_per_window_of_answers)
{
	struct wvm_peer peer;
	uint32_t before;

	wvm_peer_init(&peer);
	for (uint32_t round = 0; round < 20; round++) {
		before = peer.window;
		for (uint32_t i = 0; i < before / WVM_WINDOW_ONE; i++)
			wvm_peer_answered(&peer);
		ck_assert_uint_ge(peer.window, before + WVM_WINDOW_ONE * 3 / 4);
		ck_assert_uint_le(peer.window, before + WVM_WINDOW_ONE);
	}
}
END_TEST

START_TEST(the_window_has_a_ceiling_and_a_floor)
{
	struct wvm_peer peer;

	wvm_peer_init(&peer);
	for (uint32_t i = 0; i < 3000000; i++)
		wvm_peer_answered(&peer);
	ck_assert_uint_eq(peer.window, WVM_WINDOW_MAX);
	for (uint32_t i = 0; i < 100; i++)
		wvm_peer_timed_out(&peer, (i + 1) * MS);
	ck_assert_uint_eq(peer.window, WVM_WINDOW_MIN);
	peer.in_flight = 1;
	ck_assert(wvm_peer_open(&peer));
}
END_TEST

START_TEST(a_burst_of_timeouts_halves_once_per_round_trip)
{
	struct wvm_peer peer;

	wvm_peer_init(&peer);
	wvm_peer_sample(&peer, 10 * MS);
	for (uint32_t i = 0; i < 30; i++)
		wvm_peer_timed_out(&peer, 100 * MS + i * MS / 4);
	ck_assert_uint_eq(peer.window, WVM_WINDOW_INITIAL / 2);
	wvm_peer_timed_out(&peer, 110 * MS);
	ck_assert_uint_eq(peer.window, WVM_WINDOW_INITIAL / 4);
}
END_TEST

START_TEST(the_window_is_open_until_it_is_full)
{
	struct wvm_peer peer;

	wvm_peer_init(&peer);
	for (; peer.in_flight < WVM_WINDOW_INITIAL / WVM_WINDOW_ONE; peer.in_flight++)
		ck_assert(wvm_peer_open(&peer));
	ck_assert(!wvm_peer_open(&peer));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("peer");
	TCase *tc = tcase_create("peer");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, the_first_id_may_be_any, 0, 4);
	tcase_add_test(tc, an_id_below_the_window_is_stale);
	tcase_add_test(tc, checking_notes_nothing);
	tcase_add_test(tc, a_newer_boot_starts_over_and_ends_the_older);
	tcase_add_loop_test(tc, a_jump_forgets_what_it_passes, 0, 14);
	tcase_add_loop_test(tc, random_ids_agree_with_the_model, 0, 6);
	tcase_add_test(tc, the_timeout_stays_within_its_bounds);
	tcase_add_test(tc, the_first_sample_gives_three_round_trips);
	tcase_add_test(tc, a_sample_of_zero_counts_as_one);
	tcase_add_test(tc, the_estimate_follows_a_steady_path);
	tcase_add_test(tc, the_window_opens_by_one_per_window_of_answers);
	tcase_add_test(tc, the_window_has_a_ceiling_and_a_floor);
	tcase_add_test(tc, a_burst_of_timeouts_halves_once_per_round_trip);
	tcase_add_test(tc, the_window_is_open_until_it_is_full);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

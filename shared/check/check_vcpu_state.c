/* The state of a processor comes out as it went in, whatever differs; and nothing else is taken. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/vcpu_state.h"

#define ROUNDS 20000u
#define CANARY 64u

static uint64_t random_state;

static uint64_t rnd(void)
{
	random_state ^= random_state >> 12; /* xorshift64*, Marsaglia and Vigna */
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

/* Section sizes as KVM has them on x86, and two that do not end on a word. */
static const uint32_t SIZES[] = {144, 320, 128, 392, 4096, 64, 4, 16 + 19 * 16, 13};
#define SECTIONS ((uint32_t)(sizeof(SIZES) / sizeof(SIZES[0])))

static struct wvm_vcpu_layout layout;
static uint8_t *base, *state, *copy, *delta;
static size_t room;

static void setup(void)
{
	memset(&layout, 0, sizeof(layout));
	for (uint32_t i = 0; i < SECTIONS; i++)
		ck_assert_int_eq(wvm_vcpu_layout_add(&layout, SIZES[i]), (int)i);
	room = wvm_vcpu_delta_most(&layout);
	base = calloc(1, layout.bytes);
	state = calloc(1, layout.bytes);
	copy = calloc(1, layout.bytes);
	delta = malloc(room + CANARY);
	random_state = 88172645463325252;
}

static void teardown(void)
{
	free(base);
	free(state);
	free(copy);
	free(delta);
}

/* A byte that a section has, and not one that only fills its last word up. */
static uint8_t *any_byte(uint8_t *of)
{
	uint32_t section = (uint32_t)rnd() % layout.count;

	return of + layout.at[section] + rnd() % layout.len[section];
}

static void scramble(uint8_t *of, unsigned bytes)
{
	while (bytes--)
		*any_byte(of) = (uint8_t)rnd();
}

START_TEST(what_differs_arrives_and_no_more_is_sent)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t changed, words = 0, want = 0;
		size_t used;

		memcpy(base, state, layout.bytes);
		scramble(state, (unsigned)rnd() % (i % 50 ? 12 : 4000));
		memset(delta + room, 0xa5, CANARY);
		used = wvm_vcpu_delta(&layout, base, state, UINT32_MAX, delta, room);
		ck_assert_uint_le(used, room);
		for (unsigned k = 0; k < CANARY; k++)
			ck_assert_uint_eq(delta[room + k], 0xa5);
		memcpy(copy, base, layout.bytes);
		ck_assert_int_eq(wvm_vcpu_apply(&layout, copy, delta, used, &changed), 0);
		ck_assert(!memcmp(copy, state, layout.bytes));
		for (uint32_t s = 0; s < SECTIONS; s++)
			for (uint32_t at = layout.at[s]; at < layout.at[s] + layout.len[s]; at += 8)
				if (memcmp(base + at, state + at, 8)) {
					words++;
					want |= UINT32_C(1) << s;
				}
		ck_assert_uint_eq(changed, want);
		/* A word, and what tells where it is; never more for equal ones between. */
		ck_assert_uint_le(used, words * (WVM_VCPU_WORD + WVM_VCPU_RUN_BYTES));
		ck_assert(words ? used > words * WVM_VCPU_WORD : !used);
	}
}
END_TEST

START_TEST(the_whole_is_what_differs_from_zeros)
{
	uint32_t changed;
	size_t used;

	scramble(state, 3000);
	used = wvm_vcpu_delta(&layout, NULL, state, UINT32_MAX, delta, room);
	ck_assert_int_eq(wvm_vcpu_apply(&layout, copy, delta, used, &changed), 0);
	ck_assert(!memcmp(copy, state, layout.bytes));
}
END_TEST

START_TEST(sections_that_are_not_named_are_left_out)
{
	uint32_t changed;
	size_t used;

	memset(state, 1, 144);
	memset(state + layout.at[1], 1, 320);
	used = wvm_vcpu_delta(&layout, base, state, 1u << 1, delta, room);
	ck_assert_uint_eq(used, WVM_VCPU_RUN_BYTES + 320);
	ck_assert_int_eq(wvm_vcpu_apply(&layout, copy, delta, used, &changed), 0);
	ck_assert_uint_eq(changed, 1u << 1);
	ck_assert_uint_eq(copy[0], 0);
}
END_TEST

START_TEST(a_port_access_is_a_few_words)
{
	memset(base, 7, layout.bytes);
	memset(base + layout.at[6] + 4, 0, 4);
	memset(base + layout.at[8] + 13, 0, 3);
	memcpy(state, base, layout.bytes);
	state[0]++;   /* rax */
	state[128]++; /* rip */
	ck_assert_uint_eq(wvm_vcpu_delta(&layout, base, state, UINT32_MAX, delta, room),
			  2 * (WVM_VCPU_RUN_BYTES + WVM_VCPU_WORD));
}
END_TEST

START_TEST(without_room_it_says_how_much_it_takes)
{
	size_t used;

	scramble(state, 500);
	used = wvm_vcpu_delta(&layout, base, state, UINT32_MAX, delta, room);
	for (size_t less = 0; less < used; less += 5) {
		memset(delta, 0xa5, room);
		ck_assert_uint_gt(wvm_vcpu_delta(&layout, base, state, UINT32_MAX, delta, less),
				  less);
		for (size_t i = less; i < room; i++)
			ck_assert_uint_eq(delta[i], 0xa5);
	}
}
END_TEST

/* Damaged ones are refused whole, or are another delta of this layout. */
START_TEST(a_damaged_one_changes_nothing_or_stays_within_its_sections)
{
	unsigned refused = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t changed;
		size_t used;
		uint8_t *own;

		scramble(state, 20);
		used = wvm_vcpu_delta(&layout, base, state, UINT32_MAX, delta, room);
		used -= i % 3 ? 0 : rnd() % used;
		for (unsigned n = i % 3; n; n--)
			delta[rnd() % used] ^= (uint8_t)(1u << rnd() % 8);
		own = malloc(used); /* what lies behind is not ours: for the sanitizer */
		memcpy(own, delta, used);
		memcpy(copy, base, layout.bytes);
		if (wvm_vcpu_apply(&layout, copy, own, used, &changed)) {
			ck_assert(!memcmp(copy, base, layout.bytes));
			refused++;
		}
		ck_assert_uint_eq(copy[layout.at[6] + 4] | copy[layout.at[8] + 13], 0);
		free(own);
	}
	ck_assert_uint_gt(refused, ROUNDS / 10);
}
END_TEST

static const struct {
	const char *what;
	uint8_t bytes[24];
	size_t len;
} WRONG[] = {
	{"shorter than a run", {0, 0, 0, 0, 0, 1}, 7},
	{"no words", {0, 0, 0, 0, 0, 0, 0, 0}, 8},
	{"words that are not there", {0, 0, 0, 0, 0, 2, 0, 0}, 16},
	{"a section that does not exist", {SECTIONS, 0, 0, 0, 0, 1, 0, 0}, 16},
	{"beyond its section", {0, 0, 0, 18, 0, 1, 0, 0}, 16},
	{"beyond what fills the last word up", {6, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1}, 16},
	{"something where nothing is", {0, 1, 0, 0, 0, 1, 0, 0}, 16},
	{"and at the end", {0, 0, 0, 0, 0, 1, 0, 1}, 16},
};

START_TEST(what_is_no_delta_is_refused)
{
	uint8_t two[32] = {1, 0, 0, 0, 0, 1, [16] = 0, 0, 0, 0, 0, 1};
	uint32_t changed;

	ck_assert_msg(wvm_vcpu_apply(&layout, copy, WRONG[_i].bytes, WRONG[_i].len, &changed) ==
			      -EBADMSG,
		      "%s", WRONG[_i].what);
	/* Runs out of order, and one that overlaps the one before. */
	ck_assert_int_eq(wvm_vcpu_apply(&layout, copy, two, sizeof(two), &changed), -EBADMSG);
	two[16] = 1;
	ck_assert_int_eq(wvm_vcpu_apply(&layout, copy, two, sizeof(two), &changed), -EBADMSG);
	two[19] = 1;
	ck_assert_int_eq(wvm_vcpu_apply(&layout, copy, two, sizeof(two), &changed), 0);
}
END_TEST

START_TEST(a_layout_has_bounds)
{
	struct wvm_vcpu_layout l = {0};

	ck_assert_int_eq(wvm_vcpu_layout_add(&l, 0), -1);
	ck_assert_int_eq(wvm_vcpu_layout_add(&l, WVM_VCPU_SECTION_MAX + 1), -1);
	for (int i = 0; i < (int)WVM_VCPU_SECTIONS_MAX; i++)
		ck_assert_int_eq(wvm_vcpu_layout_add(&l, WVM_VCPU_SECTION_MAX), i);
	ck_assert_int_eq(wvm_vcpu_layout_add(&l, 8), -1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vcpu_state");
	TCase *t = tcase_create("vcpu_state");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, what_differs_arrives_and_no_more_is_sent);
	tcase_add_test(t, the_whole_is_what_differs_from_zeros);
	tcase_add_test(t, sections_that_are_not_named_are_left_out);
	tcase_add_test(t, a_port_access_is_a_few_words);
	tcase_add_test(t, without_room_it_says_how_much_it_takes);
	tcase_add_test(t, a_damaged_one_changes_nothing_or_stays_within_its_sections);
	tcase_add_loop_test(t, what_is_no_delta_is_refused, 0, sizeof(WRONG) / sizeof(WRONG[0]));
	tcase_add_test(t, a_layout_has_bounds);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

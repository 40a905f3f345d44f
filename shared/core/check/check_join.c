/* What members say before a home serves: what ends its asking, and what it makes of each answer. */
#include <check.h>
#include <string.h>

#include "shared/core/join.h"

#define COUNT    3u
#define EPOCH    4u
#define SELF     1u
#define BOOT     9u
#define IDENTITY UINT64_C(0x1122334455667788)

static const struct wvm_member list[COUNT] = {{0, 2}, {2, 1}, {3, 4}};
static const struct wvm_members members = {list, COUNT};
static uint8_t answered[COUNT];

static struct wvm_join begin(void)
{
	struct wvm_join j;

	wvm_join_init(&j, &members, answered, SELF, EPOCH, BOOT, IDENTITY, NULL);
	return j;
}

static struct wvm_join begin_asking(bool first, bool last)
{
	const uint8_t asked[COUNT] = {first, 0, last}; /* gone when it is used again */
	struct wvm_join j;

	wvm_join_init(&j, &members, answered, SELF, EPOCH, BOOT, IDENTITY, asked);
	return j;
}

static void learn(struct wvm_join *j, uint32_t epoch, bool first, bool last)
{
	const uint8_t asked[COUNT] = {first, 1, last};

	wvm_join_epoch(j, epoch, asked);
}

static struct wvm_msg answer(uint64_t taken)
{
	return (struct wvm_msg){.type = WVM_MSG_REPORT,
				.flags = WVM_MSG_ANSWER,
				.request = wvm_request_id(BOOT, 0, 0),
				.version = IDENTITY,
				.epoch = EPOCH,
				.gpa = taken};
}

static void hear(struct wvm_join *j, uint32_t member, struct wvm_msg msg)
{
	struct wvm_msg reply;

	ck_assert(!wvm_join_message(j, member, &msg, 0, &reply));
}

START_TEST(all_others_are_asked_again_until_they_have_answered)
{
	struct wvm_join j = begin();
	struct wvm_msg msg;

	for (uint64_t now = 0; now < 3; now++) {
		uint64_t at = now * WVM_JOIN_RETRY_NS;

		ck_assert_uint_eq(wvm_join_poll(&j, at, &msg), 0);
		ck_assert_uint_eq(msg.dst, 0);
		ck_assert_uint_eq(msg.src, 2);
		ck_assert_uint_eq(msg.version, IDENTITY);
		ck_assert_uint_eq(wvm_join_poll(&j, at, &msg), 2);
		ck_assert_uint_eq(msg.dst, 3);
		ck_assert_uint_eq(wvm_join_poll(&j, at, &msg), UINT32_MAX);
		ck_assert_uint_eq(wvm_join_poll(&j, at, &msg), UINT32_MAX);
		ck_assert_uint_eq(wvm_join_deadline(&j), at + WVM_JOIN_RETRY_NS);
	}
	hear(&j, 0, answer(0));
	hear(&j, 0, answer(0));
	ck_assert_uint_eq(wvm_join_poll(&j, wvm_join_deadline(&j), &msg), 2);
	ck_assert_uint_eq(wvm_join_poll(&j, wvm_join_deadline(&j), &msg), UINT32_MAX);
	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	hear(&j, 2, answer(0));
	ck_assert_int_eq(j.state, WVM_JOIN_SERVING);
	ck_assert_uint_eq(wvm_join_deadline(&j), UINT64_MAX);
	ck_assert_uint_eq(wvm_join_poll(&j, UINT64_MAX, &msg), UINT32_MAX);
}
END_TEST

START_TEST(one_that_used_memory_of_an_earlier_life_refuses)
{
	struct wvm_join j = begin();

	hear(&j, 2, answer(5));
	ck_assert_int_eq(j.state, WVM_JOIN_REFUSED);
	ck_assert_uint_eq(j.refuser, 2);
	ck_assert_uint_eq(j.refuser_grants, 5);
	hear(&j, 0, answer(0));
	ck_assert_int_eq(j.state, WVM_JOIN_REFUSED);
}
END_TEST

/* Also before what it took is looked at: it may have looked for it elsewhere. */
START_TEST(one_of_another_cluster_refuses)
{
	struct wvm_join j = begin();
	struct wvm_msg other = answer(5);

	other.version ^= 1;
	hear(&j, 0, answer(0));
	hear(&j, 2, other);
	ck_assert_int_eq(j.state, WVM_JOIN_DIFFERS);
	ck_assert_uint_eq(j.refuser, 2);
	ck_assert_uint_eq(j.refuser_identity, IDENTITY ^ 1);
	hear(&j, 2, answer(0));
	ck_assert_int_eq(j.state, WVM_JOIN_DIFFERS);
	ck_assert_uint_eq(wvm_join_deadline(&j), UINT64_MAX);
	/* It ends, and answers nobody who would end for it. */
	hear(&j, 0, (struct wvm_msg){.type = WVM_MSG_REPORT, .request = wvm_request_id(4, 0, 0)});
}
END_TEST

START_TEST(an_answer_to_another_life_says_nothing)
{
	struct wvm_join j = begin();
	struct wvm_msg late = answer(5);

	late.request = wvm_request_id(BOOT - 1, 0, 0);
	late.version ^= 1;
	hear(&j, 2, late);
	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	ck_assert_uint_eq(j.missing, 2);
}
END_TEST

START_TEST(whoever_asks_is_told_what_was_taken_and_who_we_are)
{
	struct wvm_join j = begin();
	struct wvm_msg ask = {.type = WVM_MSG_REPORT,
			      .request = wvm_request_id(4, 0, 0),
			      .version = IDENTITY ^ 1};
	struct wvm_msg reply;

	ck_assert(wvm_join_message(&j, 2, &ask, 77, &reply));
	ck_assert_uint_eq(reply.type, WVM_MSG_REPORT);
	ck_assert_uint_eq(reply.flags, WVM_MSG_ANSWER);
	ck_assert_uint_eq(reply.request, ask.request);
	ck_assert_uint_eq(reply.gpa, 77);
	ck_assert_uint_eq(reply.version, IDENTITY);
	ck_assert_uint_eq(reply.dst, 3);
	ck_assert_uint_eq(reply.node_state, WVM_NODE_WARMING);
	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	wvm_join_resume(&j);
	ck_assert(wvm_join_message(&j, 2, &ask, 77, &reply));
	ck_assert_uint_eq(reply.node_state, WVM_NODE_ACTIVE);
}
END_TEST

/* The members that are asked in one round, a bit for each; all in that epoch. */
static unsigned round_at(struct wvm_join *j, uint64_t now, uint32_t epoch)
{
	struct wvm_msg msg;
	unsigned who = 0;
	uint32_t member;

	while ((member = wvm_join_poll(j, now, &msg)) != UINT32_MAX) {
		ck_assert(!(who & 1u << member));
		ck_assert_uint_eq(msg.dst, list[member].first_vnode);
		ck_assert_uint_eq(msg.epoch, epoch);
		who |= 1u << member;
	}
	return who;
}

START_TEST(only_those_that_may_have_taken_something_are_asked)
{
	struct wvm_join j = begin_asking(false, true);
	struct wvm_msg other = answer(0);

	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	ck_assert_uint_eq(round_at(&j, 0, EPOCH), 1u << 2);
	/* What the other says, unasked, is not waited for and changes nothing. */
	other.version ^= 1;
	hear(&j, 0, answer(5));
	hear(&j, 0, other);
	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	ck_assert_uint_eq(j.missing, 1);
	hear(&j, 2, answer(0));
	ck_assert_int_eq(j.state, WVM_JOIN_SERVING);
	j = begin_asking(true, false);
	ck_assert_uint_eq(round_at(&j, 0, EPOCH), 1u << 0);
	hear(&j, 0, answer(3));
	ck_assert_int_eq(j.state, WVM_JOIN_REFUSED);
	j = begin_asking(false, false);
	ck_assert_int_eq(j.state, WVM_JOIN_SERVING);
	ck_assert_uint_eq(wvm_join_deadline(&j), UINT64_MAX);
}
END_TEST

/* It would serve slices that have moved away in an epoch that it does not know yet. */
START_TEST(an_answer_from_a_later_epoch_counts_once_that_is_learnt)
{
	struct wvm_join j = begin();
	struct wvm_msg later = answer(0), taken = answer(7);

	later.epoch = taken.epoch = EPOCH + 1;
	hear(&j, 0, answer(0));
	hear(&j, 2, later);
	hear(&j, 2,
	     taken); /* nor does what it took: it may be of slices that are others' by then */
	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	ck_assert_uint_eq(round_at(&j, 0, EPOCH), 1u << 2);
	ck_assert_uint_eq(round_at(&j, WVM_JOIN_RETRY_NS, EPOCH), 1u << 2);
	learn(&j, EPOCH + 1, true, true);
	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	ck_assert_uint_eq(round_at(&j, 2 * WVM_JOIN_RETRY_NS, EPOCH + 1), 1u << 2);
	later.epoch++;
	hear(&j, 2, later);
	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	later.epoch--;
	hear(&j, 2, later);
	ck_assert_int_eq(j.state, WVM_JOIN_SERVING);
}
END_TEST

START_TEST(what_was_taken_counts_in_the_epoch_in_which_both_are)
{
	struct wvm_join j = begin();
	struct wvm_msg taken = answer(7);

	taken.epoch = EPOCH + 1;
	hear(&j, 2, taken);
	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	learn(&j, EPOCH + 1, true, true);
	hear(&j, 2, taken);
	ck_assert_int_eq(j.state, WVM_JOIN_REFUSED);
	ck_assert_uint_eq(j.refuser_grants, 7);
}
END_TEST

START_TEST(an_answer_from_an_earlier_epoch_counts)
{
	struct wvm_join j = begin();
	struct wvm_msg early = answer(0);

	early.epoch = EPOCH - 1;
	hear(&j, 0, early);
	ck_assert_uint_eq(j.missing, 1);
	early.gpa = 2;
	hear(&j, 2, early);
	ck_assert_int_eq(j.state, WVM_JOIN_REFUSED);
	ck_assert_uint_eq(j.refuser, 2);
}
END_TEST

/* Which epoch it is in cannot repair that, and nobody would ever say why it waits. */
START_TEST(one_of_another_cluster_refuses_in_any_epoch)
{
	for (uint32_t epoch = EPOCH - 1; epoch <= EPOCH + 1; epoch++) {
		struct wvm_join j = begin();
		struct wvm_msg other = answer(0);

		other.epoch = epoch;
		other.version ^= 1;
		hear(&j, 2, other);
		ck_assert_int_eq(j.state, WVM_JOIN_DIFFERS);
	}
}
END_TEST

START_TEST(a_question_of_any_epoch_is_answered_with_ones_own)
{
	struct wvm_join j = begin_asking(true, false);
	struct wvm_msg ask = {.type = WVM_MSG_REPORT, .version = IDENTITY}, reply;

	for (uint32_t epoch = 0; epoch <= EPOCH + 2; epoch++) {
		ask.epoch = epoch;
		ask.request = wvm_request_id((uint16_t)(epoch + 1), 0, 0);
		ck_assert(wvm_join_message(&j, 2, &ask, 5, &reply));
		ck_assert_uint_eq(reply.epoch, EPOCH);
		ck_assert_uint_eq(reply.request, ask.request);
		ck_assert_uint_eq(reply.gpa, 5);
	}
	learn(&j, EPOCH + 1, true, false);
	ck_assert(wvm_join_message(&j, 2, &ask, 5, &reply));
	ck_assert_uint_eq(reply.epoch, EPOCH + 1);
	/* And by one that serves. */
	hear(&j, 0, answer(0));
	ck_assert_int_eq(j.state, WVM_JOIN_SERVING);
	learn(&j, EPOCH + 2, true, true);
	ck_assert(wvm_join_message(&j, 2, &ask, 5, &reply));
	ck_assert_uint_eq(reply.epoch, EPOCH + 2);
}
END_TEST

START_TEST(a_later_epoch_says_anew_who_is_waited_for)
{
	struct wvm_join j = begin_asking(true, false);

	/* One more is asked. */
	learn(&j, EPOCH, true, true);
	ck_assert_uint_eq(round_at(&j, 0, EPOCH), 1u << 0 | 1u << 2);
	hear(&j, 0, answer(0));
	ck_assert_int_eq(j.state, WVM_JOIN_ASKING);
	/* An answer stays, asked or not. */
	learn(&j, EPOCH + 1, true, true);
	ck_assert_uint_eq(round_at(&j, WVM_JOIN_RETRY_NS, EPOCH + 1), 1u << 2);
	learn(&j, EPOCH + 2, false, true);
	ck_assert_uint_eq(round_at(&j, 2 * WVM_JOIN_RETRY_NS, EPOCH + 2), 1u << 2);
	/* The one that is missing is asked no more. */
	learn(&j, EPOCH + 3, true, false);
	ck_assert_int_eq(j.state, WVM_JOIN_SERVING);
	ck_assert_uint_eq(round_at(&j, UINT64_MAX, EPOCH + 3), 0);
}
END_TEST

START_TEST(who_serves_asks_nobody_and_who_is_refused_stays_so)
{
	struct wvm_join j = begin();

	wvm_join_resume(&j);
	learn(&j, EPOCH + 1, true, true);
	ck_assert_int_eq(j.state, WVM_JOIN_SERVING);
	ck_assert_uint_eq(round_at(&j, UINT64_MAX, EPOCH + 1), 0);
	j = begin();
	hear(&j, 2, answer(1));
	learn(&j, EPOCH + 1, false, false);
	ck_assert_int_eq(j.state, WVM_JOIN_REFUSED);
	ck_assert_uint_eq(j.refuser, 2);
}
END_TEST

START_TEST(a_node_alone_serves_at_once)
{
	const struct wvm_members alone = {list, 1};
	struct wvm_join j;

	wvm_join_init(&j, &alone, answered, 0, EPOCH, BOOT, IDENTITY, NULL);
	ck_assert_int_eq(j.state, WVM_JOIN_SERVING);
	ck_assert_uint_eq(answered[0], 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("join");
	TCase *tc = tcase_create("join");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tc, all_others_are_asked_again_until_they_have_answered);
	tcase_add_test(tc, one_that_used_memory_of_an_earlier_life_refuses);
	tcase_add_test(tc, one_of_another_cluster_refuses);
	tcase_add_test(tc, an_answer_to_another_life_says_nothing);
	tcase_add_test(tc, whoever_asks_is_told_what_was_taken_and_who_we_are);
	tcase_add_test(tc, only_those_that_may_have_taken_something_are_asked);
	tcase_add_test(tc, an_answer_from_a_later_epoch_counts_once_that_is_learnt);
	tcase_add_test(tc, what_was_taken_counts_in_the_epoch_in_which_both_are);
	tcase_add_test(tc, an_answer_from_an_earlier_epoch_counts);
	tcase_add_test(tc, one_of_another_cluster_refuses_in_any_epoch);
	tcase_add_test(tc, a_question_of_any_epoch_is_answered_with_ones_own);
	tcase_add_test(tc, a_later_epoch_says_anew_who_is_waited_for);
	tcase_add_test(tc, who_serves_asks_nobody_and_who_is_refused_stays_so);
	tcase_add_test(tc, a_node_alone_serves_at_once);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

/* What members say before a home serves: what ends its asking, and what it makes of each answer. */
#include <check.h>
#include <string.h>

#include "shared/core/join.h"

#define COUNT    3u
#define SELF     1u
#define BOOT     9u
#define IDENTITY UINT64_C(0x1122334455667788)

static const struct wvm_member list[COUNT] = {{0, 2}, {2, 1}, {3, 4}};
static const struct wvm_members members = {list, COUNT};
static uint8_t answered[COUNT];

static struct wvm_join begin(void)
{
	struct wvm_join j;

	wvm_join_init(&j, &members, answered, SELF, 1, BOOT, IDENTITY);
	return j;
}

static struct wvm_msg answer(uint64_t taken)
{
	return (struct wvm_msg){.type = WVM_MSG_REPORT,
				.flags = WVM_MSG_ANSWER,
				.request = wvm_request_id(BOOT, 0, 0),
				.version = IDENTITY,
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

START_TEST(a_node_alone_serves_at_once)
{
	const struct wvm_members alone = {list, 1};
	struct wvm_join j;

	wvm_join_init(&j, &alone, answered, 0, 1, BOOT, IDENTITY);
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
	tcase_add_test(tc, a_node_alone_serves_at_once);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

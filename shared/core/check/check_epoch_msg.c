/* Epochs: records, what is saved and messages as bytes; what is not well-formed is not taken. */
#include <check.h>
#include <string.h>

#include "shared/core/epoch.h"

static struct wvm_epoch_record record(uint32_t epoch, uint32_t node, unsigned voters)
{
	struct wvm_epoch_record r = {
		.epoch = epoch, .node = node, .state = WVM_NODE_ACTIVE, .voters = (uint8_t)voters};

	for (unsigned i = 0; i < voters; i++)
		r.voter[i] = i;
	return r;
}

START_TEST(what_is_saved_is_checked_when_it_is_read)
{
	struct wvm_epoch_durable good, d;
	struct wvm_epoch_record first = record(1, 0, 3);

	wvm_epoch_first(&good, &first);
	ck_assert(wvm_epoch_durable_check(&good));
	good.value = record(2, 2, 3);
	good.promised = good.accepted = wvm_epoch_ballot(2, 1);
	ck_assert(wvm_epoch_durable_check(&good));
#define BAD(change)                                      \
	do {                                             \
		d = good;                                \
		change;                                  \
		ck_assert(!wvm_epoch_durable_check(&d)); \
	} while (0)
	BAD(d.current.epoch = 0);
	BAD(d.current.epoch = UINT32_MAX);
	BAD(d.promised = wvm_epoch_ballot(1, 1));
	BAD(d.promised = wvm_epoch_ballot(WVM_EPOCH_ROUND_MAX + 1, 1));
	BAD(d.accepted = 0);
	BAD(d.accepted = 1);
	BAD(d.value.epoch = 3);
	BAD(d.value.voters = 8);
	BAD(d.promised = 0);
}
END_TEST

START_TEST(records_are_well_formed)
{
	struct wvm_epoch_record good = record(2, 5, 7), r;

	ck_assert(wvm_epoch_record_check(&good));
	ck_assert_int_eq(wvm_epoch_voter(&good, 6), 6);
	ck_assert_int_eq(wvm_epoch_voter(&good, 7), -1);
#define BAD_RECORD(change)                              \
	do {                                            \
		r = good;                               \
		change;                                 \
		ck_assert(!wvm_epoch_record_check(&r)); \
	} while (0)
	BAD_RECORD(r.node = WVM_NODE_MAX);
	BAD_RECORD(r.state = WVM_NODE_STATES);
	BAD_RECORD(r.reserved = 1);
	BAD_RECORD(r.voters = 0);
	BAD_RECORD(r.voters = 8);
	BAD_RECORD(r.voters = 6);            /* something behind the last */
	BAD_RECORD(r.voter[3] = r.voter[2]); /* one vote each */
	BAD_RECORD(r.voter[6] = WVM_NODE_MAX);
	BAD_RECORD(r.state = WVM_NODE_OFFLINE); /* and it votes */
	BAD_RECORD(r.state = WVM_NODE_LOST);
	r = good;
	r.node = 7;
	r.state = WVM_NODE_OFFLINE;
	ck_assert(wvm_epoch_record_check(&r));
	r.state = WVM_NODE_LOST;
	ck_assert(wvm_epoch_record_check(&r));
}
END_TEST

static const struct wvm_epoch_msg samples[] = {
	{.kind = WVM_EPOCH_PREPARE, .epoch = 2, .ballot = UINT64_C(3) << 32 | 5},
	{.kind = WVM_EPOCH_PROMISE, .epoch = 2, .ballot = UINT64_C(3) << 32 | 5},
	{.kind = WVM_EPOCH_PROMISE,
	 .epoch = 2,
	 .ballot = UINT64_C(3) << 32 | 5,
	 .other = UINT64_C(2) << 32 | 4,
	 .record = {.epoch = 2, .node = 0x12345, .state = 2, .voters = 2, .voter = {4, 0xfffff}}},
	{.kind = WVM_EPOCH_ACCEPT,
	 .epoch = 2,
	 .ballot = UINT64_C(3) << 32 | 5,
	 .record = {.epoch = 2, .node = 1, .state = 4, .voters = 1, .voter = {0}}},
	{.kind = WVM_EPOCH_ACCEPTED, .epoch = 2, .ballot = UINT64_C(3) << 32 | 5},
	{.kind = WVM_EPOCH_REFUSED,
	 .epoch = 2,
	 .ballot = UINT64_C(3) << 32 | 5,
	 .other = UINT64_C(3) << 32 | 6},
	{.kind = WVM_EPOCH_DECIDED,
	 .epoch = 0x01020304,
	 .record = {.epoch = 0x01020304, .voters = 7, .voter = {1, 2, 3, 4, 5, 6, 7}}},
	{.kind = WVM_EPOCH_PULL, .epoch = UINT32_MAX},
	{.kind = WVM_EPOCH_FAR, .epoch = 1},
};

START_TEST(messages_come_back_from_their_bytes_and_wrong_bytes_do_not)
{
	struct wvm_epoch_msg m = samples[_i], back;
	uint8_t bytes[WVM_EPOCH_MSG_BYTES], again[WVM_EPOCH_MSG_BYTES];
	unsigned taken = 0;

	wvm_epoch_encode(bytes, &m);
	ck_assert(wvm_epoch_decode(&back, bytes, sizeof(bytes)));
	ck_assert(!memcmp(&m, &back, sizeof(m)));
	ck_assert(!wvm_epoch_decode(&back, bytes, sizeof(bytes) - 1));
	ck_assert(!wvm_epoch_decode(&back, bytes, sizeof(bytes) + 1));
	ck_assert(!wvm_epoch_decode(&back, bytes, 0));
	/* Whatever is taken is the bytes that it came from: nothing is looked past. */
	for (unsigned at = 0; at < sizeof(bytes); at++) {
		for (unsigned v = 0; v < 256; v++) {
			uint8_t was = bytes[at];

			bytes[at] = (uint8_t)v;
			if (wvm_epoch_decode(&back, bytes, sizeof(bytes))) {
				wvm_epoch_encode(again, &back);
				ck_assert(!memcmp(bytes, again, sizeof(bytes)));
				taken += v != was;
			}
			bytes[at] = was;
		}
	}
	ck_assert_uint_gt(taken, 0);
}
END_TEST

START_TEST(bytes_lie_where_the_header_says)
{
	uint8_t bytes[WVM_EPOCH_MSG_BYTES];

	wvm_epoch_encode(bytes, &samples[2]);
	ck_assert(!memcmp(bytes,
			  "\2\0\0\0\0\0\0\2\0\0\0\3\0\0\0\5\0\0\0\2\0\0\0\4"
			  "\0\0\0\2\0\1\x23\x45\2\2\0\0\0\0\0\4\0\xf\xff\xff\0",
			  45));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epoch_msg");
	TCase *tc = tcase_create("epoch_msg");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tc, what_is_saved_is_checked_when_it_is_read);
	tcase_add_test(tc, records_are_well_formed);
	tcase_add_loop_test(tc, messages_come_back_from_their_bytes_and_wrong_bytes_do_not, 0,
			    (int)(sizeof(samples) / sizeof(samples[0])));
	tcase_add_test(tc, bytes_lie_where_the_header_says);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

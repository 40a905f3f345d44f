/* The ring of stamps: what is kept, what is lost, and that no reader sees half of one. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>

#include "roles/master/trace.h"

#define FAR UINT64_MAX

static struct wvm_shard *shard;
static struct wvm_trace trace;
static struct wvm_stamp out[WVM_TRACE_STAMPS];

static void open_trace(void)
{
	char why[256] = "";

	ck_assert_msg(!wvm_shard_create(&shard, &(struct wvm_shard_opts){0}, why, sizeof(why)),
		      "%s", why);
	ck_assert_int_eq(wvm_trace_open(&trace, shard), 0);
}

static void close_trace(void)
{
	wvm_trace_close(&trace);
	wvm_shard_destroy(shard);
}

static void stamp(uint64_t i)
{
	wvm_trace(&trace, WVM_STAMP_SEND, (uint8_t)i, (uint16_t)i, i, ~i);
}

START_TEST(nothing_is_kept_while_it_is_off)
{
	uint64_t first = 0;

	stamp(1);
	ck_assert_uint_eq(wvm_trace_read(&trace, &first, out, WVM_TRACE_STAMPS), 0);
	ck_assert_uint_eq(first, 0);
}
END_TEST

START_TEST(stamps_come_in_order_with_all_that_they_say)
{
	uint64_t first = 0, before = wvm_now_ns();

	wvm_trace_until(&trace, FAR);
	for (uint64_t i = 0; i < 5; i++)
		stamp(i);
	ck_assert_uint_eq(wvm_trace_read(&trace, &first, out, WVM_TRACE_STAMPS), 5);
	ck_assert_uint_eq(first, 0);
	for (uint64_t i = 0; i < 5; i++) {
		ck_assert_uint_eq(out[i].page, i);
		ck_assert_uint_eq(out[i].request, ~i);
		ck_assert_uint_eq(out[i].vm_id, i);
		ck_assert_uint_eq(out[i].what, i);
		ck_assert_uint_eq(out[i].kind, WVM_STAMP_SEND);
		ck_assert_uint_ge(out[i].ns, i ? out[i - 1].ns : before);
	}
	ck_assert_uint_le(out[4].ns, wvm_now_ns());
}
END_TEST

START_TEST(it_goes_off_by_itself_when_its_time_is_over)
{
	uint64_t first = 0;

	wvm_trace_until(&trace, wvm_now_ns() - 1);
	stamp(1);
	ck_assert_uint_eq(trace.until_ns, 0);
	wvm_trace_until(&trace, FAR);
	stamp(2);
	wvm_trace_until(&trace, 0);
	stamp(3);
	ck_assert_uint_eq(wvm_trace_read(&trace, &first, out, WVM_TRACE_STAMPS), 1);
	ck_assert_uint_eq(out[0].page, 2);
}
END_TEST

START_TEST(the_oldest_are_overwritten_and_a_reader_is_told_where_it_goes_on)
{
	uint64_t first = 10, made = WVM_TRACE_STAMPS + 100;
	size_t n;

	wvm_trace_until(&trace, FAR);
	for (uint64_t i = 0; i < made; i++)
		stamp(i);
	n = wvm_trace_read(&trace, &first, out, WVM_TRACE_STAMPS);
	ck_assert_uint_eq(first, 101); /* what is in the slot of number 100 may be half written */
	ck_assert_uint_eq(n, made - 101);
	for (size_t i = 0; i < n; i++)
		ck_assert_uint_eq(out[i].page, first + i);
	first = made - 3;
	ck_assert_uint_eq(wvm_trace_read(&trace, &first, out, 2), 2);
	ck_assert_uint_eq(out[0].page, made - 3);
	first = made + 7;
	ck_assert_uint_eq(wvm_trace_read(&trace, &first, out, 2), 0);
	ck_assert_uint_eq(first, made);
}
END_TEST

START_TEST(the_end_of_a_turn_is_stamped_when_something_was_sent_in_it)
{
	uint64_t first = 0;

	wvm_trace_until(&trace, FAR);
	trace.hook.turn(&trace.hook, 0);
	stamp(1);
	trace.hook.turn(&trace.hook, 0);
	trace.hook.turn(&trace.hook, 0);
	wvm_trace(&trace, WVM_STAMP_RECEIVE, 0, 0, 0, 0);
	trace.hook.turn(&trace.hook, 0);
	ck_assert_uint_eq(wvm_trace_read(&trace, &first, out, WVM_TRACE_STAMPS), 3);
	ck_assert_uint_eq(out[0].kind, WVM_STAMP_SEND);
	ck_assert_uint_eq(out[1].kind, WVM_STAMP_SUBMIT);
	ck_assert_uint_eq(out[2].kind, WVM_STAMP_RECEIVE);
}
END_TEST

static atomic_bool writing;

static void *write_all(void *arg)
{
	for (uint64_t i = 0; i < WVM_TRACE_STAMPS * 64; i++)
		stamp(i);
	writing = false;
	return NULL;
}

START_TEST(a_reader_beside_the_writer_sees_whole_stamps_in_order)
{
	pthread_t writer;
	uint64_t read = 0, passes = 0;

	wvm_trace_until(&trace, FAR);
	writing = true;
	ck_assert_int_eq(pthread_create(&writer, NULL, write_all, NULL), 0);
	while (writing) {
		uint64_t first = 0; /* always the oldest: those that are overwritten meanwhile */
		size_t n = wvm_trace_read(&trace, &first, out, WVM_TRACE_STAMPS);

		for (size_t i = 0; i < n; i++) {
			uint64_t is = first + i;

			ck_assert_msg(out[i].page == is && out[i].request == ~is &&
					      out[i].vm_id == (uint16_t)is &&
					      out[i].what == (uint8_t)is,
				      "stamp %lu is %lx %lx %x %x", is, out[i].page, out[i].request,
				      out[i].vm_id, out[i].what);
		}
		read += n;
		passes++;
	}
	pthread_join(writer, NULL);
	ck_assert_uint_gt(passes, 3);
	ck_assert_uint_gt(read, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("trace");
	TCase *t = tcase_create("trace");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, open_trace, close_trace);
	tcase_add_test(t, nothing_is_kept_while_it_is_off);
	tcase_add_test(t, stamps_come_in_order_with_all_that_they_say);
	tcase_add_test(t, it_goes_off_by_itself_when_its_time_is_over);
	tcase_add_test(t, the_oldest_are_overwritten_and_a_reader_is_told_where_it_goes_on);
	tcase_add_test(t, the_end_of_a_turn_is_stamped_when_something_was_sent_in_it);
	tcase_add_test(t, a_reader_beside_the_writer_sees_whole_stamps_in_order);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

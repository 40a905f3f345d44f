/* Segments: which offsets, totals and lengths fit together, and how a page is cut. */
#include <check.h>

#include "shared/wire.h"

static struct wvm_msg message(uint8_t type)
{
	return (struct wvm_msg){
		.type = type,
		.request = 1,
		.gpa = WVM_PAGE_BYTES,
	};
}

/* Offset, total and length of page segments: what may be together. */
static const struct {
	const char *what;
	uint32_t offset, total;
	uint16_t len;
	bool good;
} page_segments[] = {
	{"a whole page", 0, 4096, 4096, true},
	{"first of two", 0, 4096, 2048, true},
	{"second of two", 2048, 4096, 2048, true},
	{"first of three", 0, 4096, 1408, true},
	{"second of three", 1408, 4096, 1408, true},
	{"third of three", 2816, 4096, 1280, true},
	{"last of eight", 3584, 4096, 512, true},
	{"first of eight", 0, 4096, 512, true},
	{"empty", 0, 4096, 0, false},
	{"empty, at the end", 4096, 4096, 0, false},
	{"empty, without total", 0, 0, 0, false},
	{"larger than a page", 0, 4160, 4160, false},
	{"smaller than a page", 0, 2048, 2048, false},
	{"beyond the page", 4096, 4096, 64, false},
	{"across the end", 2816, 4096, 1344, false},
	{"smaller segments than any mtu makes", 0, 4096, 448, false},
	{"smaller segments, in the middle", 448, 4096, 448, false},
	{"a last one too near", 448, 4096, 3648, false},
	{"a last one longer than those before", 1408, 4096, 2688, false},
	{"offset of another segment size", 1024, 4096, 1408, false},
	{"odd length", 0, 4096, 1407, false},
	{"odd last length", 2816, 4096, 1279, false},
	{"odd offset", 2815, 4096, 1281, false},
	{"odd total", 0, 4095, 4095, false},
};
#define PAGE_SEGMENTS (sizeof(page_segments) / sizeof(page_segments[0]))

START_TEST(page_segments_fit_together)
{
	struct wvm_msg m = message(WVM_MSG_MEM_ACK);

	m.seg_offset = page_segments[_i].offset;
	m.seg_total = page_segments[_i].total;
	m.payload_len = page_segments[_i].len;
	ck_assert_msg(wvm_wire_check(&m) ==
			      (page_segments[_i].good ? WVM_DROP_NONE : WVM_DROP_SEGMENT),
		      "%s: %s", page_segments[_i].what, wvm_drop_name(wvm_wire_check(&m)));
}
END_TEST

/* The same for payloads that may end anywhere. */
static const struct {
	const char *what;
	uint32_t offset, total;
	uint16_t len;
	bool good;
} byte_segments[] = {
	{"one byte", 0, 64, 1, true},
	{"a unit", 0, 64, 64, true},
	{"a unit and a byte", 0, 128, 65, true},
	{"first of many", 0, WVM_SEGMENT_TOTAL_MAX, 1408, true},
	{"last of many", 1408, 1472, 1, true},
	{"the largest", WVM_SEGMENT_TOTAL_MAX - 512, WVM_SEGMENT_TOTAL_MAX, 512, true},
	{"total a unit too large", 0, 128, 64, false},
	{"total two units too large", 0, 192, 64, false},
	{"total too small", 0, 64, 65, false},
	{"total without payload", 0, 64, 0, false},
	{"offset without payload", 64, 0, 0, false},
	{"odd total", 0, 65, 65, false},
	{"odd length, not the last", 0, 4096, 1409, false},
	{"offset of another segment size", 1024, 4096, 1408, false},
	{"a last one too near", 448, 512, 64, false},
	{"more than the largest", WVM_SEGMENT_TOTAL_MAX, WVM_SEGMENT_TOTAL_MAX + 64, 64, false},
	{"offset that would wrap", UINT32_MAX - 63, 64, 64, false},
};
#define BYTE_SEGMENTS (sizeof(byte_segments) / sizeof(byte_segments[0]))

START_TEST(byte_segments_fit_together)
{
	struct wvm_msg m = message(WVM_MSG_REPORT);

	m.seg_offset = byte_segments[_i].offset;
	m.seg_total = byte_segments[_i].total;
	m.payload_len = byte_segments[_i].len;
	ck_assert_msg(wvm_wire_check(&m) ==
			      (byte_segments[_i].good ? WVM_DROP_NONE : WVM_DROP_SEGMENT),
		      "%s: %s", byte_segments[_i].what, wvm_drop_name(wvm_wire_check(&m)));
}
END_TEST

START_TEST(a_page_travels_in_the_fewest_equal_segments)
{
	for (uint32_t mtu = WVM_MTU_MIN; mtu <= 9000; mtu++) {
		uint32_t segment = wvm_wire_page_segment(mtu);
		uint32_t most = (mtu - WVM_HEADER_BYTES) / 64 * 64;
		uint32_t count = (4096 + segment - 1) / segment;
		struct wvm_msg m = message(WVM_MSG_MEM_ACK);

		ck_assert_uint_eq(segment % 64, 0);
		ck_assert_uint_le(segment, most);
		ck_assert_uint_eq(count, (4096 + most - 1) / most);
		ck_assert_uint_le(count, WVM_PAGE_SEGMENTS_MAX);
		/* a unit less would not do */
		ck_assert_uint_gt((4096 + segment - 65) / (segment - 64), count);
		m.seg_total = WVM_PAGE_BYTES;
		for (m.seg_offset = 0; m.seg_offset < 4096; m.seg_offset += segment) {
			uint32_t rest = 4096 - m.seg_offset;

			m.payload_len = (uint16_t)(rest < segment ? rest : segment);
			ck_assert_uint_eq(wvm_wire_check(&m), WVM_DROP_NONE);
		}
	}
	ck_assert_uint_eq(wvm_wire_page_segment(0), 0);
	ck_assert_uint_eq(wvm_wire_page_segment(WVM_MTU_MIN - 1), 0);
	ck_assert_uint_eq(wvm_wire_page_segment(WVM_MTU_MIN), 512);
	ck_assert_uint_eq(wvm_wire_page_segment(1280), 1024);
	ck_assert_uint_eq(wvm_wire_page_segment(1471), 1024);
	ck_assert_uint_eq(wvm_wire_page_segment(WVM_MTU_DEFAULT), 1408);
	ck_assert_uint_eq(wvm_wire_page_segment(4159), 2048);
	ck_assert_uint_eq(wvm_wire_page_segment(4160), 4096);
	ck_assert_uint_eq(wvm_wire_page_segment(8972), 4096);
	ck_assert_uint_eq(wvm_wire_page_segment(UINT32_MAX), 4096);
	ck_assert_uint_eq(wvm_wire_segment(WVM_MTU_DEFAULT), 1408);
	ck_assert_uint_eq(wvm_wire_segment(WVM_MTU_MIN - 1), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("segments");
	TCase *tc = tcase_create("segments");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tc, page_segments_fit_together, 0, PAGE_SEGMENTS);
	tcase_add_loop_test(tc, byte_segments_fit_together, 0, BYTE_SEGMENTS);
	tcase_add_test(tc, a_page_travels_in_the_fewest_equal_segments);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

/* Pages put together from segments: any order, copies, versions that interleave, no room. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/partial.h"

#define SLOTS    8u
#define MESSAGES 12u

static struct wvm_partials table;
static struct wvm_partial slots[SLOTS];
static uint8_t pages[SLOTS * WVM_PAGE_BYTES];
static uint32_t buckets[SLOTS];
static uint64_t state;

static uint32_t below(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 20) % n;
}

static void fresh(uint64_t seed)
{
	state = seed * 0x9e3779b97f4a7c15 + 1;
	memset(pages, 0xcc, sizeof(pages));
	wvm_partials_init(&table, slots, pages, buckets, SLOTS);
}

static const uint8_t *add(struct wvm_msg m, uint32_t offset, uint32_t len, uint8_t fill)
{
	uint8_t bytes[WVM_PAGE_BYTES];

	memset(bytes, fill, sizeof(bytes));
	m.seg_offset = offset;
	m.seg_total = WVM_PAGE_BYTES;
	m.payload_len = (uint16_t)len;
	return wvm_partials_add(&table, &m, bytes);
}

static bool filled(const uint8_t *page, uint8_t fill)
{
	for (uint32_t i = 0; i < WVM_PAGE_BYTES; i++)
		if (page[i] != fill)
			return false;
	return true;
}

static const uint32_t sizes[] = {64, 512, 1024, 1408, 2048, 4032};
#define SIZES (int)(sizeof(sizes) / sizeof(sizes[0]))

/* Whatever the order, the page is whole with the last missing segment and not before. */
START_TEST(a_page_is_whole_when_no_part_is_missing)
{
	const struct wvm_msg m = {.type = WVM_MSG_MEM_ACK, .request = 5, .version = 9};
	uint32_t size = sizes[_i], count = (WVM_PAGE_BYTES + size - 1) / size;

	for (uint32_t round = 0; round < 50; round++) {
		bool got[64] = {false};
		uint32_t missing = count;
		const uint8_t *page = NULL;

		fresh(round + 1);
		while (missing) {
			uint32_t i = below(count), at = i * size;
			uint32_t len = WVM_PAGE_BYTES - at < size ? WVM_PAGE_BYTES - at : size;

			ck_assert_ptr_null(page);
			missing -= !got[i];
			got[i] = true;
			page = add(m, at, len, 0x77);
		}
		ck_assert_ptr_nonnull(page);
		ck_assert(filled(page, 0x77));
		ck_assert_uint_eq(table.evicted, 0);
		ck_assert_uint_eq(table.newest, 0);
		ck_assert_uint_eq(table.oldest, 0);
	}
}
END_TEST

/* Each field of the key by itself keeps two messages apart. */
START_TEST(segments_that_differ_in_any_field_of_the_key_never_meet)
{
	const struct wvm_msg a = {.type = WVM_MSG_MEM_ACK,
				  .vm_id = 1,
				  .src = 2,
				  .request = 3,
				  .gpa = 4 * WVM_PAGE_BYTES,
				  .version = 5,
				  .grant = 6};
	struct wvm_msg b = a;

	switch (_i) {
	case 0: b.type = WVM_MSG_WRITE_BACK; break;
	case 1: b.vm_id++; break;
	case 2: b.src++; break;
	case 3: b.request++; break;
	case 4: b.gpa += WVM_PAGE_BYTES; break;
	case 5: b.version++; break;
	default: b.grant++; break;
	}
	fresh(1);
	for (uint32_t i = 0; i < 3; i++) {
		ck_assert_ptr_null(add(a, i * 1024, 1024, 0xaa));
		ck_assert_ptr_null(add(b, (3 - i) * 1024, 1024, 0xbb));
	}
	ck_assert(filled(add(a, 3072, 1024, 0xaa), 0xaa));
	ck_assert(filled(add(b, 0, 1024, 0xbb), 0xbb));
}
END_TEST

/* What is not part of the key does not keep segments apart. */
START_TEST(segments_of_a_retry_complete_the_first_try)
{
	struct wvm_msg m = {.type = WVM_MSG_MEM_ACK, .request = 3, .version = 5};

	fresh(1);
	add(m, 0, 2048, 1);
	m.steer = 9;
	m.hops = 3;
	m.flags = WVM_MSG_KEEP;
	ck_assert(filled(add(m, 2048, 2048, 1), 1));
}
END_TEST

START_TEST(without_room_the_oldest_goes)
{
	struct wvm_msg m = {.type = WVM_MSG_MEM_ACK, .version = 5};

	fresh(1);
	for (m.request = 1; m.request <= SLOTS; m.request++)
		add(m, 0, 2048, (uint8_t)m.request);
	/* More of the oldest does not make it younger: its age is that of its first segment. */
	m.request = 1;
	ck_assert_ptr_null(add(m, 2048, 1024, 1));
	m.request = SLOTS + 1;
	ck_assert_ptr_null(add(m, 0, 2048, SLOTS + 1));
	ck_assert_uint_eq(table.evicted, 1);
	/* Its last segment alone begins it anew, at the cost of the next oldest. */
	m.request = 1;
	ck_assert_ptr_null(add(m, 3072, 1024, 1));
	ck_assert_uint_eq(table.evicted, 2);
	for (m.request = 3; m.request <= SLOTS + 1; m.request++)
		ck_assert(filled(add(m, 2048, 2048, (uint8_t)m.request), (uint8_t)m.request));
	ck_assert_uint_eq(table.evicted, 2);
	m.request = 1;
	ck_assert(filled(add(m, 0, 3072, 1), 1));
}
END_TEST

/* The model: which quarters of which message are there, and in which order they began. */
struct model {
	struct wvm_msg msg;
	uint8_t fill;
	uint8_t got; /* quarters, one bit each */
	uint64_t began;
};

static struct model messages[MESSAGES];

static void make_messages(void)
{
	for (uint32_t i = 0; i < MESSAGES; i++)
		messages[i] = (struct model){.msg = {.type = WVM_MSG_MEM_ACK,
						     .request = 1 + i / 2,
						     .src = i % 3,
						     .version = 100 + i % 2},
					     .fill = (uint8_t)(i + 1)};
}

static struct model *oldest(uint32_t *in_use)
{
	struct model *first = NULL;

	*in_use = 0;
	for (uint32_t i = 0; i < MESSAGES; i++) {
		if (!messages[i].got)
			continue;
		++*in_use;
		if (!first || messages[i].began < first->began)
			first = &messages[i];
	}
	return first;
}

START_TEST(random_segments_agree_with_the_model)
{
	uint64_t evicted = 0, whole = 0;

	fresh((uint64_t)_i + 5);
	make_messages();
	for (uint32_t n = 1; n <= 100000; n++) {
		struct model *m = &messages[below(MESSAGES)], *first;
		uint32_t quarter = below(4), in_use;
		const uint8_t *page;

		first = oldest(&in_use);
		if (!m->got) {
			m->began = n;
			if (in_use == SLOTS) {
				first->got = 0;
				evicted++;
			}
		}
		m->got |= 1u << quarter;
		page = add(m->msg, quarter * 1024, 1024, m->fill);
		ck_assert_int_eq(page != NULL, m->got == 0xf);
		if (page) {
			ck_assert(filled(page, m->fill));
			m->got = 0;
			whole++;
		}
		ck_assert_uint_eq(table.evicted, evicted);
	}
	ck_assert_uint_gt(whole, 1000);
	ck_assert_uint_gt(evicted, 1000);
}
END_TEST

START_TEST(one_slot_is_enough_for_one_page_at_a_time)
{
	struct wvm_msg m = {.type = WVM_MSG_WRITE_BACK, .version = 5};

	wvm_partials_init(&table, slots, pages, buckets, 1);
	for (m.request = 1; m.request < 100; m.request++) {
		ck_assert_ptr_null(add(m, 2048, 2048, 1));
		ck_assert(filled(add(m, 0, 2048, 1), 1));
	}
	ck_assert_uint_eq(table.evicted, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("partial");
	TCase *tc = tcase_create("partial");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, a_page_is_whole_when_no_part_is_missing, 0, SIZES);
	tcase_add_loop_test(tc, segments_that_differ_in_any_field_of_the_key_never_meet, 0, 7);
	tcase_add_test(tc, segments_of_a_retry_complete_the_first_try);
	tcase_add_test(tc, without_room_the_oldest_goes);
	tcase_add_loop_test(tc, random_segments_agree_with_the_model, 0, 4);
	tcase_add_test(tc, one_slot_is_enough_for_one_page_at_a_time);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

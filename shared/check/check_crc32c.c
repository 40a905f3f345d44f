/* CRC-32C: the standard's vectors, and agreement of every way to compute it. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/crc32c.h"
#include "shared/crc32c_table.h"

/* Bit by bit, from the definition. */
static uint32_t reference(uint32_t seed, const uint8_t *p, size_t len)
{
	uint32_t crc = ~seed;

	for (; len; len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ WVM_CRC32C_POLY : crc >> 1;
	}
	return ~crc;
}

static uint64_t random_state = 1;

static uint64_t random64(void) /* splitmix64 */
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static uint8_t *random_bytes(size_t len)
{
	uint8_t *p = malloc(len + 1);

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)random64();
	return p;
}

static void expect_all(uint32_t want, uint32_t seed, const void *data, size_t len)
{
	ck_assert_uint_eq(wvm_crc32c(seed, data, len), want);
	ck_assert_uint_eq(wvm_crc32c_portable(seed, data, len), want);
	if (wvm_crc32c_has_hardware())
		ck_assert_uint_eq(wvm_crc32c_hardware(seed, data, len), want);
}

START_TEST(vectors_of_rfc_3720_are_met)
{
	static const uint8_t read10[48] = {
		0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, 0x28, [40] = 0x02,
	};
	uint8_t bytes[32];

	expect_all(0x00000000, 0, "", 0);
	expect_all(0xe3069283, 0, "123456789", 9);
	memset(bytes, 0, sizeof(bytes));
	expect_all(0x8a9136aa, 0, bytes, sizeof(bytes));
	memset(bytes, 0xff, sizeof(bytes));
	expect_all(0x62a8ab43, 0, bytes, sizeof(bytes));
	for (unsigned i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	expect_all(0x46dd794e, 0, bytes, sizeof(bytes));
	for (unsigned i = 0; i < 32; i++)
		bytes[i] = (uint8_t)(31 - i);
	expect_all(0x113fdb5c, 0, bytes, sizeof(bytes));
	expect_all(0xd9963a56, 0, read10, sizeof(read10));
}
END_TEST

START_TEST(tables_follow_from_the_polynomial)
{
	uint32_t power = 0x80000000; /* x^0, reflected */

	for (unsigned n = 0; n < 256; n++) {
		uint32_t crc = n;

		for (unsigned bit = 0; bit < 64; bit++) {
			if (bit && bit % 8 == 0)
				ck_assert_uint_eq(crc32c_slice[bit / 8 - 1][n], crc);
			crc = crc & 1 ? crc >> 1 ^ WVM_CRC32C_POLY : crc >> 1;
		}
		ck_assert_uint_eq(crc32c_slice[7][n], crc);
	}
	for (unsigned n = 1; n <= 64 * 2 * WVM_CRC32C_WORDS_MAX - 33; n++) {
		power = power & 1 ? power >> 1 ^ WVM_CRC32C_POLY : power >> 1;
		if ((n + 33) % 64 == 0)
			ck_assert_uint_eq(crc32c_shift[(n + 33) / 64], power);
	}
}
END_TEST

/* Each buffer is exactly as long as the data, so that a sanitizer sees a byte too far. */
START_TEST(every_length_to_two_pages_agrees)
{
	for (size_t len = 0; len <= 8300; len += len < 600 ? 1 : 1 + random64() % 7) {
		uint8_t *data = random_bytes(len);
		uint32_t seed = (uint32_t)random64();
		uint32_t want = reference(seed, data, len);
		uint8_t *tight = malloc(len ? len : 1);

		ck_assert_ptr_nonnull(tight);
		memcpy(tight, data, len);
		expect_all(want, seed, tight, len);
		free(tight);
		free(data);
	}
}
END_TEST

START_TEST(every_alignment_agrees)
{
	uint8_t *data = random_bytes(5000);

	for (size_t at = 0; at < 64; at++) {
		for (size_t len = 4000; len < 4200; len += 13)
			expect_all(reference(7, data + at, len), 7, data + at, len);
	}
	free(data);
}
END_TEST

START_TEST(a_checksum_continues_where_the_first_part_ended)
{
	uint8_t *data = random_bytes(3000);

	for (int i = 0; i < 2000; i++) {
		size_t len = random64() % 3000;
		size_t cut = len ? random64() % len : 0;
		uint32_t first = wvm_crc32c(0, data, cut);

		expect_all(reference(0, data, len), first, data + cut, len - cut);
	}
	free(data);
}
END_TEST

START_TEST(the_copy_is_exact_and_has_the_same_checksum)
{
	uint8_t *data = random_bytes(9000);

	for (int i = 0; i < 3000; i++) {
		size_t len = random64() % 8500;
		size_t at = random64() % 64;
		size_t to = random64() % 64;
		uint8_t *copy = malloc(to + len + 1);

		ck_assert_ptr_nonnull(copy);
		memset(copy, 0xa5, to + len + 1);
		ck_assert_uint_eq(wvm_crc32c_copy(9, copy + to, data + at, len),
				  wvm_crc32c_portable(9, data + at, len));
		ck_assert_int_eq(memcmp(copy + to, data + at, len), 0);
		ck_assert(!to || copy[to - 1] == 0xa5);
		ck_assert_uint_eq(copy[to + len], 0xa5);
		free(copy);
	}
	free(data);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("crc32c");
	TCase *tc = tcase_create("crc32c");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, vectors_of_rfc_3720_are_met);
	tcase_add_test(tc, tables_follow_from_the_polynomial);
	tcase_add_test(tc, every_length_to_two_pages_agrees);
	tcase_add_test(tc, every_alignment_agrees);
	tcase_add_test(tc, a_checksum_continues_where_the_first_part_ended);
	tcase_add_test(tc, the_copy_is_exact_and_has_the_same_checksum);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

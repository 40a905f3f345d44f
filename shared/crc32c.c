/* CRC-32C: slice-by-8 for any processor, three interleaved streams for x86-64. */
#include "shared/crc32c.h"

#include <assert.h>
#include <string.h>

#include "shared/crc32c_table.h"

static inline uint32_t step_byte(uint32_t crc, uint8_t byte)
{
	return crc32c_slice[0][(crc ^ byte) & 0xff] ^ (crc >> 8);
}

static inline uint32_t load_le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t wvm_crc32c_portable(uint32_t seed, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t crc = ~seed;

	for (; len >= 8; p += 8, len -= 8) {
		uint32_t low = crc ^ load_le32(p);

		crc = crc32c_slice[7][low & 0xff] ^ crc32c_slice[6][low >> 8 & 0xff] ^
		      crc32c_slice[5][low >> 16 & 0xff] ^ crc32c_slice[4][low >> 24] ^
		      crc32c_slice[3][p[4]] ^ crc32c_slice[2][p[5]] ^ crc32c_slice[1][p[6]] ^
		      crc32c_slice[0][p[7]];
	}
	for (; len; len--)
		crc = step_byte(crc, *p++);
	return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>

#define HARDWARE __attribute__((target("sse4.2,pclmul")))

bool wvm_crc32c_has_hardware(void)
{
	return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

/* One word of a stream: checksummed and, if dst, copied. */
HARDWARE static inline __attribute__((always_inline)) uint64_t take_word(uint64_t crc, uint8_t *dst,
									 const uint8_t *src,
									 size_t at)
{
	uint64_t word;

	memcpy(&word, src + at, 8);
	if (dst)
		memcpy(dst + at, &word, 8);
	return _mm_crc32_u64(crc, word);
}

/* The remainder crc, moved past further words: see crc32c_shift. Not yet reduced. */
HARDWARE static inline __attribute__((always_inline)) uint64_t shift_words(uint64_t crc,
									   size_t words)
{
	__m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
					       _mm_cvtsi32_si128((int)crc32c_shift[words]), 0);

	return (uint64_t)_mm_cvtsi128_si64(product);
}

/*
 * The crc32 instruction has a latency of three cycles and a throughput of one:
 * three equal parts of the data go side by side and are joined at the end.
 */
HARDWARE static inline __attribute__((always_inline)) uint32_t hardware(uint32_t seed, uint8_t *dst,
									const uint8_t *src,
									size_t len)
{
	uint64_t a = (uint32_t)~seed;

	while (len >= 96) {
		size_t words = len / 24;
		size_t part, i;
		uint64_t b = 0, c = 0;

		if (words > WVM_CRC32C_WORDS_MAX)
			words = WVM_CRC32C_WORDS_MAX;
		part = words * 8;
		for (i = 0; i < part; i += 8) {
			a = take_word(a, dst, src, i);
			b = take_word(b, dst, src, part + i);
			c = take_word(c, dst, src, 2 * part + i);
		}
		a = c ^ _mm_crc32_u64(0, shift_words(a, 2 * words) ^ shift_words(b, words));
		src += 3 * part;
		dst = dst ? dst + 3 * part : dst;
		len -= 3 * part;
	}
	for (; len >= 8; src += 8, dst = dst ? dst + 8 : dst, len -= 8)
		a = take_word(a, dst, src, 0);
	for (; len; src++, len--) {
		if (dst)
			*dst++ = *src;
		a = _mm_crc32_u8((uint32_t)a, *src);
	}
	return ~(uint32_t)a;
}

HARDWARE uint32_t wvm_crc32c_hardware(uint32_t seed, const void *data, size_t len)
{
	return hardware(seed, NULL, data, len);
}

HARDWARE static uint32_t hardware_copy(uint32_t seed, void *dst, const void *src, size_t len)
{
	return hardware(seed, dst, src, len);
}

#else

bool wvm_crc32c_has_hardware(void)
{
	return false;
}

uint32_t wvm_crc32c_hardware(uint32_t seed, const void *data, size_t len)
{
	assert(!"there are no CRC-32C instructions to use");
	return wvm_crc32c_portable(seed, data, len);
}

static uint32_t hardware_copy(uint32_t seed, void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
	return wvm_crc32c_hardware(seed, dst, len);
}
#endif

uint32_t wvm_crc32c(uint32_t seed, const void *data, size_t len)
{
	return wvm_crc32c_has_hardware() ? wvm_crc32c_hardware(seed, data, len)
					 : wvm_crc32c_portable(seed, data, len);
}

uint32_t wvm_crc32c_copy(uint32_t seed, void *dst, const void *src, size_t len)
{
	if (wvm_crc32c_has_hardware())
		return hardware_copy(seed, dst, src, len);
	if (len)
		memcpy(dst, src, len);
	return wvm_crc32c_portable(seed, dst, len);
}

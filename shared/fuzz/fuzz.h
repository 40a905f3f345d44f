/*
 * What every fuzz target uses. A target is one file <folder>/fuzz/fuzz_<name>.c
 * with LLVMFuzzerTestOneInput(); clang links it with libFuzzer (make fuzz), any
 * compiler with replay.c (make check), which runs the files kept in
 * <folder>/fuzz/corpus/<name>/ and <folder>/fuzz/found/<name>/.
 */
#ifndef WVM_FUZZ_H
#define WVM_FUZZ_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A target may define it: hands its seeds over, each under a name (make fuzz-seeds). */
typedef void wvm_fuzz_put(const char *name, const void *data, size_t len);
void wvm_fuzz_seeds(wvm_fuzz_put *put);

/*
 * Hands over run-0 to run-3, of `len` bytes: the decisions of a generator that begins with
 * `random`, the first byte of each with only the bits of `keep`, and those of `set`.
 */
static inline void fuzz_put_random(wvm_fuzz_put *put, uint32_t random, size_t len, uint8_t keep,
				   uint8_t set)
{
	uint8_t seed[1024];

	for (uint32_t n = 0; n < 4 && len <= sizeof(seed); n++) {
		char name[] = "run-0";

		for (size_t i = 0; i < len; i++) {
			random = random * 1664525 + 1013904223;
			seed[i] = (uint8_t)(random >> 24);
		}
		seed[0] = (uint8_t)((seed[0] & keep) | set);
		name[4] = (char)('0' + n);
		put(name, seed, len);
	}
}

/* A property that must hold for every input. */
#define FUZZ_CHECK(cond, ...)                                                                \
	do {                                                                                 \
		if (!(cond)) {                                                               \
			fprintf(stderr, "%s:%d: not true: %s: ", __FILE__, __LINE__, #cond); \
			fprintf(stderr, __VA_ARGS__);                                        \
			fputc('\n', stderr);                                                 \
			abort();                                                             \
		}                                                                            \
	} while (0)

/*
 * Around functions that check and model: libFuzzer is not to look for new ways
 * through them, nor to pay for watching them.
 */
#ifdef __clang__
#define FUZZ_UNWATCHED_BEGIN \
	_Pragma("clang attribute push(__attribute__((no_sanitize(\"coverage\"))), apply_to = function)")
#define FUZZ_UNWATCHED_END _Pragma("clang attribute pop")
#else
#define FUZZ_UNWATCHED_BEGIN
#define FUZZ_UNWATCHED_END
#endif

/* The input as a source of decisions. Behind its end everything is 0. */
struct fuzz_in {
	const uint8_t *at;
	size_t left;
};

static inline void fuzz_bytes(struct fuzz_in *in, void *to, size_t len)
{
	size_t n = len < in->left ? len : in->left;

	if (n)
		memcpy(to, in->at, n);
	memset((uint8_t *)to + n, 0, len - n);
	in->at += n;
	in->left -= n;
}

static inline uint8_t fuzz_u8(struct fuzz_in *in)
{
	uint8_t v;

	fuzz_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint16_t fuzz_u16(struct fuzz_in *in)
{
	uint16_t v;

	fuzz_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint32_t fuzz_u32(struct fuzz_in *in)
{
	uint32_t v;

	fuzz_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint64_t fuzz_u64(struct fuzz_in *in)
{
	uint64_t v;

	fuzz_bytes(in, &v, sizeof(v));
	return v;
}

/* Exactly len bytes of heap, so that the sanitizer sees a read of one byte more. */
static inline uint8_t *fuzz_copy(const void *data, size_t len)
{
	uint8_t *p = malloc(len);

	if (!p && len)
		abort();
	if (len)
		memcpy(p, data, len);
	return p;
}

#endif

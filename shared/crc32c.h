/*
 * CRC-32C (Castagnoli; RFC 3720, section 12.1): the checksum of every message
 * and of stored sectors. All functions are pure and may be called from any
 * thread; there is nothing to initialise.
 *
 * seed is the checksum of what came before, 0 at the start, so that
 * wvm_crc32c(wvm_crc32c(0, a, n), b, m) is the checksum of a followed by b.
 */
#ifndef WVM_CRC32C_H
#define WVM_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* By the processor's instructions where it has them, else portably. */
uint32_t wvm_crc32c(uint32_t seed, const void *data, size_t len);

/* Copies len bytes from src to dst, which do not overlap, and returns their checksum. */
uint32_t wvm_crc32c_copy(uint32_t seed, void *dst, const void *src, size_t len);

/* True if wvm_crc32c() uses SSE4.2 and PCLMULQDQ here. */
bool wvm_crc32c_has_hardware(void);

/* The two ways by name, for tests and measurements; _hardware only where there is some. */
uint32_t wvm_crc32c_portable(uint32_t seed, const void *data, size_t len);
uint32_t wvm_crc32c_hardware(uint32_t seed, const void *data, size_t len);

#endif

/* Numbers in network byte order, at any address. */
#ifndef WVM_CORE_BYTES_H
#define WVM_CORE_BYTES_H

#include <stdint.h>

static inline void wvm_store16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void wvm_store32(uint8_t *p, uint32_t v)
{
	wvm_store16(p, (uint16_t)(v >> 16));
	wvm_store16(p + 2, (uint16_t)v);
}

static inline void wvm_store64(uint8_t *p, uint64_t v)
{
	wvm_store32(p, (uint32_t)(v >> 32));
	wvm_store32(p + 4, (uint32_t)v);
}

static inline uint16_t wvm_load16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t wvm_load32(const uint8_t *p)
{
	return (uint32_t)wvm_load16(p) << 16 | wvm_load16(p + 2);
}

static inline uint64_t wvm_load64(const uint8_t *p)
{
	return (uint64_t)wvm_load32(p) << 32 | wvm_load32(p + 4);
}

#endif

/* Random numbers of a state machine, from a seed within it: the same seed, the same run. */
#ifndef WVM_CORE_RANDOM_H
#define WVM_CORE_RANDOM_H

#include <stdint.h>

/* A uniform hash of 64 bits (the finalizer of SplitMix64: Steele, Lea and Flood). */
static inline uint64_t wvm_random_mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* The next number below `below`, which is 1 to 2^32. xorshift64*; *state is never 0. */
static inline uint64_t wvm_random_below(uint64_t *state, uint64_t below)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * UINT64_C(0x2545f4914f6cdd1d) >> 32) % below;
}

#endif

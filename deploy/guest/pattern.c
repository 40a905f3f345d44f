#include "guest.h"

uint64_t mix(uint64_t x) /* splitmix64 */
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t first_word(uint64_t page, uint64_t generation)
{
	return mix(guest.seed ^ mix(page ^ mix(generation)));
}

void page_fill(uint64_t *words, uint64_t page, uint64_t generation, uint64_t mask)
{
	uint64_t word = first_word(page, generation);
	const uint64_t step = mix(word) | 1;
	size_t i;

	for (i = 0; i < PAGE_WORDS; i++, word += step)
		words[i] = word ^ mask;
}

bool page_check(const uint64_t *words, uint64_t page, uint64_t generation, uint64_t mask,
		const char *where)
{
	uint64_t word = first_word(page, generation);
	const uint64_t step = mix(word) | 1;
	size_t i;

	for (i = 0; i < PAGE_WORDS; i++, word += step) {
		const uint64_t got = words[i];

		if (got == (word ^ mask))
			continue;
		report("%s: page %llu offset %zu generation %llu expected %016llx got %016llx",
		       where, (unsigned long long)page, i * sizeof(*words),
		       (unsigned long long)generation, (unsigned long long)(word ^ mask),
		       (unsigned long long)got);
		return false;
	}
	return true;
}

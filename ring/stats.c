#include "ring/stats.h"

#include <inttypes.h>

struct counter {
	const char *name, *text;
};

static const struct counter counters[] = {
#define X(field, text) {#field, text},
	WVM_RING_COUNTERS(X)
#undef X
};

#define COUNTERS (sizeof(counters) / sizeof(counters[0]))

_Static_assert(sizeof(struct wvm_ring_stats) == COUNTERS * sizeof(uint64_t),
	       "the struct is an array of the listed counters");

size_t wvm_ring_stats_count(void)
{
	return COUNTERS;
}

const char *wvm_ring_stats_name(size_t i)
{
	return i < COUNTERS ? counters[i].name : NULL;
}

const char *wvm_ring_stats_text(size_t i)
{
	return i < COUNTERS ? counters[i].text : NULL;
}

uint64_t wvm_ring_stats_get(const struct wvm_ring_stats *stats, size_t i)
{
	return __atomic_load_n((const uint64_t *)stats + i, __ATOMIC_RELAXED);
}

void wvm_ring_stats_add(struct wvm_ring_stats *sum, const struct wvm_ring_stats *from)
{
	for (size_t i = 0; i < COUNTERS; i++)
		((uint64_t *)sum)[i] += wvm_ring_stats_get(from, i);
}

void wvm_ring_stats_print(const struct wvm_ring_stats *stats, FILE *out)
{
	for (size_t i = 0; i < COUNTERS; i++) {
		uint64_t v = wvm_ring_stats_get(stats, i);

		if (v)
			fprintf(out, "%s %" PRIu64 "\n", counters[i].name, v);
	}
}

#include "shared/deal.h"

#include <stdbool.h>
#include <stddef.h>

/* Whether the next processor is a's rather than b's; fractions compared without division. */
static bool comes_before(const struct wvm_deal_node *a, const struct wvm_deal_node *b)
{
	uint64_t load_a = ((uint64_t)a->vcpus + 1) * b->cores;
	uint64_t load_b = ((uint64_t)b->vcpus + 1) * a->cores;

	return load_a != load_b ? load_a < load_b : a->vcpus < b->vcpus;
}

static struct wvm_deal_node *choose(struct wvm_deal_node *nodes, uint32_t count)
{
	struct wvm_deal_node *best = NULL;

	for (uint32_t i = 0; i < count; i++)
		if (nodes[i].cores && (!best || comes_before(&nodes[i], best)))
			best = &nodes[i];
	return best;
}

uint32_t wvm_deal(struct wvm_deal_node *nodes, uint32_t count, uint32_t *to, uint32_t vcpus)
{
	for (uint32_t i = 0; i < vcpus; i++) {
		struct wvm_deal_node *node = choose(nodes, count);

		if (!node)
			return 0;
		node->vcpus++;
		to[i] = node->id;
	}
	return vcpus;
}

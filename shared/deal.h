/*
 * Which node runs which processor of a VM, by the nodes' cores. No I/O, any thread.
 *
 * Processors are dealt one by one, each to the node where (processors there + 1) / cores is least.
 * So no node gets more of them than it has cores while another one has a core to spare, beyond
 * that their numbers are in proportion to the cores, and neighbours are on different nodes as far
 * as that allows. Of several such nodes it is the one with the fewest processors, of these the
 * first in the list: the same input always gives the same result.
 */
#ifndef WVM_DEAL_H
#define WVM_DEAL_H

#include <stdint.h>

struct wvm_deal_node {
	uint32_t id;
	uint32_t cores; /* 0: gets none */
	uint32_t vcpus; /* that it has; those dealt to it are added */
};

/*
 * Deals `vcpus` processors to count nodes, and writes the ids of their nodes to `to`, in their
 * order. Returns how many were dealt: all, or 0 where no node has cores. Each costs a walk
 * through the list.
 */
uint32_t wvm_deal(struct wvm_deal_node *nodes, uint32_t count, uint32_t *to, uint32_t vcpus);

#endif

/* The nodes of the cluster, which the local master knows. */
#include <errno.h>
#include <string.h>

#include "shared/client_priv.h"

static int get_node(struct wvm *w, uint32_t id, struct wvm_ring_node *node)
{
	struct wvm_ring_req req = {.mode = id};
	struct wvm_stats data = {0}; /* the reply's, whatever it is */
	int64_t ret = wvm_call(w, WVM_RING_NODE, &req, &data, WVM_CALL_MS);

	_Static_assert(sizeof(*node) <= sizeof(data), "the reply fits");
	memcpy(node, &data, sizeof(*node));
	if (ret < 0)
		return wvm_client_fail((int)ret, "the master of this node does not answer: %s",
				       strerror((int)-ret));
	if (!node->nodes)
		return wvm_client_fail(-ENOTSUP, "the master of this node is of an older version, "
						 "which does not tell the nodes' cores");
	return 0;
}

int wvm_nodes(struct wvm *w, struct wvm_node_info *nodes, unsigned max)
{
	uint32_t id = w->node_id, count = 1;
	struct wvm_ring_node node, first;
	int ret = get_node(w, id, &first);

	node = first;
	while (!ret && node.next != w->node_id && count < first.nodes) {
		id = node.next;
		ret = get_node(w, id, &node);
		if (!ret && count - 1 < max)
			nodes[count - 1] = (struct wvm_node_info){id, node.cores};
		count++;
	}
	if (ret)
		return ret;
	if (count - 1 < max)
		nodes[count - 1] = (struct wvm_node_info){w->node_id, first.cores};
	return (int)count;
}

/* What tests of homes that move say to a core. */
#ifndef WVM_CORE_CHECK_MOVED_H
#define WVM_CORE_CHECK_MOVED_H

#include "shared/core/check/rig.h"

#define NEXT (RIG_EPOCH + 1)

static inline struct wvm_msg message(uint8_t type, uint32_t member, uint32_t epoch,
				     uint64_t request)
{
	return (struct wvm_msg){.type = type,
				.node_state = WVM_NODE_ACTIVE,
				.hops = WVM_HOPS_MAX,
				.vm_id = RIG_VM,
				.epoch = epoch,
				.src = RIG_VNODE(member),
				.dst = RIG_VNODE(RIG_SELF),
				.request = request};
}

static inline enum wvm_drop in(struct rig *r, struct wvm_msg m, const uint8_t *payload)
{
	return wvm_core_message(r->core, r->now_ns, &m, payload);
}

#endif

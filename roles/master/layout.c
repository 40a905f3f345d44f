/* What all nodes must have alike: who the members are, and what is placed on whom. */
#include <endian.h>
#include <errno.h>
#include <stdio.h>

#include "roles/master/node.h"
#include "shared/crc32c.h"

uint64_t wvm_node_vm_size(const struct wvm_node *n, const struct wvm_master_vm *vm)
{
	return vm->size ? vm->size : n->topology.total_ram_gb << 30;
}

static const struct wvm_master_vm *vm_of(const struct wvm_node *n,
					 const struct wvm_layout_range *range)
{
	for (unsigned i = 0; i < n->options->vm_count; i++)
		if (n->options->vms[i].id == range->first >> 32)
			return &n->options->vms[i];
	return NULL;
}

int wvm_layout_check(const struct wvm_node *n, char *err, size_t err_len)
{
	for (uint32_t i = 0; i < n->layout.count; i++) {
		const struct wvm_layout_range *r = &n->layout.list[i];
		const struct wvm_master_vm *vm = vm_of(n, r);
		uint64_t end = ((r->first & UINT32_MAX) + r->units) << WVM_UNIT_SHIFT;

		if (!vm) {
			wvm_log("%s:%u: PLACE is for VM %u, which this master does not have (--vm)",
				n->options->topology, r->line, (unsigned)(r->first >> 32));
			continue;
		}
		if (end <= wvm_node_vm_size(n, vm))
			continue;
		snprintf(err, err_len,
			 "%s:%u: the range ends at %llu MiB, but VM %u has %llu MiB: make mib "
			 "smaller, or start all masters with a larger --vm %u:SIZE",
			 n->options->topology, r->line, (unsigned long long)(end >> 20), vm->id,
			 (unsigned long long)(wvm_node_vm_size(n, vm) >> 20), vm->id);
		return -EINVAL;
	}
	return 0;
}

uint32_t wvm_members_hash(const struct wvm_node *n)
{
	uint32_t crc = 0;

	for (uint32_t i = 0; i < n->members.count; i++) {
		const struct wvm_member *m = &n->members.list[i];
		uint32_t both[2] = {htobe32(m->first_vnode), htobe32(m->vnodes)};

		crc = wvm_crc32c(crc, both, sizeof(both));
	}
	/* Whose pages may be made anew is decided by all alike. No member is at that vnode. */
	for (uint32_t i = 0; i < n->topology.count; i++) {
		uint32_t memory_only[2] = {htobe32(UINT32_MAX), htobe32(i)};

		if (!n->topology.nodes[i].cores)
			crc = wvm_crc32c(crc, memory_only, sizeof(memory_only));
	}
	return crc;
}

/* Not the lines: a comment more makes no other cluster. A spare is what no range can be. */
uint32_t wvm_layout_hash(const struct wvm_node *n)
{
	uint32_t crc = 0;

	for (uint32_t i = 0; i < n->layout.count; i++) {
		const struct wvm_layout_range *r = &n->layout.list[i];
		uint64_t all[3] = {htobe64(r->first), htobe64(r->units), htobe64(r->member)};

		crc = wvm_crc32c(crc, all, sizeof(all));
	}
	for (uint32_t i = 0; i < n->topology.count; i++) {
		uint64_t spare[2] = {htobe64(UINT64_MAX), htobe64(i)};

		if (n->topology.nodes[i].spare)
			crc = wvm_crc32c(crc, spare, sizeof(spare));
	}
	return crc;
}

uint64_t wvm_node_identity(const struct wvm_node *n)
{
	return (uint64_t)wvm_members_hash(n) << 32 | wvm_layout_hash(n);
}

void wvm_layout_stranger(struct wvm_node *n, uint32_t member, uint64_t identity)
{
	bool nodes = identity >> 32 != n->join.identity >> 32;

	wvm_log("node %u has other %s lines in its topology than %s: give all nodes the same "
		"file, and start again those that ended",
		n->topology.nodes[member].phys_id, nodes ? "NODE" : "PLACE or SPARE",
		n->options->topology);
}

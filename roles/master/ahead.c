/*
 * Reading ahead is for those who have room: its pages may never be used, and
 * none of the last ones on the tmpfs may be missing to a fault because of them.
 */
#include <sys/statvfs.h>

#include "roles/master/node.h"

#define HELD_PER_PAGE (WVM_PAGE_BYTES / sizeof(struct wvm_held_page)) /* entries */
#define ROOM_NS       UINT64_C(10000000) /* between two looks at the tmpfs; 1 MiB at 100 MiB/s */
#define ROOM_PART     8u                 /* of the tmpfs that is left to faults */

static bool has_room(struct wvm_node_shard *s, uint32_t vm)
{
	struct statvfs st;

	if (s->shard->now_ns < s->ahead_until_ns)
		return s->ahead_room;
	s->ahead_until_ns = s->shard->now_ns + ROOM_NS;
	wvm_count_call(WVM_CALL_statfs);
	/* A tmpfs without a bound says 0 blocks of 0. */
	s->ahead_room = !statvfs(wvm_mem_path(s->node->vms[vm]), &st) &&
			st.f_bavail >= st.f_blocks / ROOM_PART;
	return s->ahead_room;
}

/* The core touches any entry of the unit. */
static bool has_entries(struct wvm_node_shard *s, uint32_t vm, uint64_t page)
{
	uint64_t first = page - page % WVM_UNIT_PAGES;

	for (uint64_t at = first; at < first + WVM_UNIT_PAGES; at += HELD_PER_PAGE)
		if (!wvm_backing_held(&s->node->backing[vm], at))
			return false;
	return true;
}

void wvm_node_read_ahead(struct wvm_node_shard *s, uint32_t vm, uint64_t page)
{
	if (!s->node->options->read_ahead ||
	    wvm_reclaim_short(s->node, s->node->options->read_ahead) || !has_room(s, vm) ||
	    !has_entries(s, vm, page))
		return;
	wvm_core_ahead(s->core, s->shard->now_ns, vm, page);
	wvm_node_drain(s);
}

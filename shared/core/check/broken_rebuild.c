#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef enum wvm_drop done_fn(struct wvm_core *core, uint32_t member, const struct wvm_msg *msg);
typedef void begin_fn(struct wvm_core *core);
done_fn good_rebuild_done;
begin_fn good_rebuild_begin;

#define wvm_rebuild_done  good_rebuild_done
#define wvm_rebuild_begin good_rebuild_begin
#include "shared/core/rebuild.c"
#undef wvm_rebuild_done
#undef wvm_rebuild_begin

enum wvm_drop wvm_rebuild_done(struct wvm_core *core, uint32_t member, const struct wvm_msg *msg)
{
	enum wvm_drop drop;

	if (broken_fault == BROKEN_REBUILD_UNTOLD && !core->untold)
		return WVM_DROP_STALE; /* it has not waited for this one */
	drop = good_rebuild_done(core, member, msg);
	if (core->untold == 1 && broken_now(BROKEN_REBUILD_UNTOLD)) {
		core->untold = 0;
		wvm_core_timer_arm(&core->timers, &core->rebuild, core->now_ns);
	}
	return drop;
}

void wvm_rebuild_begin(struct wvm_core *core)
{
	good_rebuild_begin(core);
	for (uint32_t vm = 0; core->params.lost && vm < core->vm_count; vm++)
		for (uint64_t page = 0; page < core->vms[vm].pages; page += WVM_UNIT_PAGES)
			if (wvm_moved_phase_of(core, vm, page) == WVM_MOVED_TELLING &&
			    broken_now(BROKEN_REBUILD_ZEROS))
				wvm_home_unit_of(core, vm, page)->lost = 0;
}

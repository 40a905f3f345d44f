#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef void renewed_fn(struct wvm_core *core, uint32_t member, uint16_t boot);
renewed_fn good_core_renewed;

#define wvm_core_renewed good_core_renewed
#include "shared/core/renewed.c"
#undef wvm_core_renewed

static bool is_second(const struct wvm_core *core, uint32_t slice)
{
	return wvm_member_of(core->params.members, core->params.backup->home_vnode[slice]) ==
	       core->params.self;
}

/* What is known of each page is as it would be. */
static void keep_told(struct wvm_core *core)
{
	for (uint32_t vm = 0; vm < core->vm_count; vm++)
		for (uint64_t page = 0; page < core->vms[vm].pages; page += WVM_UNIT_PAGES)
			if (wvm_moved_phase_of(core, vm, page) == WVM_MOVED_TELLING &&
			    broken_now(BROKEN_RENEWED_TOLD))
				wvm_home_unit_of(core, vm, page)->lost &=
					(uint32_t)~WVM_UNIT_STOLEN;
}

void wvm_core_renewed(struct wvm_core *core, uint32_t member, uint16_t boot)
{
	static struct wvm_seconds was;

	if (core->seconds)
		was = *core->seconds;
	good_core_renewed(core, member, boot);
	for (uint32_t i = 0; core->seconds && i < WVM_SLICES; i++)
		if (is_second(core, i) && broken_now(BROKEN_RENEWED_SECOND))
			core->seconds->slice[i].complete = was.slice[i].complete;
	keep_told(core);
}

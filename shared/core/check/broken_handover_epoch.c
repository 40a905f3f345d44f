#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef bool handed_over_fn(struct wvm_core *core, uint32_t epoch);
handed_over_fn good_handed_over;

#define wvm_core_handed_over good_handed_over
#include "shared/core/handover_epoch.c"
#undef wvm_core_handed_over

bool wvm_core_handed_over(struct wvm_core *core, uint32_t epoch)
{
	bool done = good_handed_over(core, epoch);

	if (done && broken_now(BROKEN_HANDOVER_FORGETS))
		for (uint32_t i = 0; i < core->params.members->count; i++)
			core->taken[i] = 0;
	return done;
}

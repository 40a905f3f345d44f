#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef void adopt_fn(struct wvm_core *core);
adopt_fn good_core_adopt;

#define wvm_core_adopt good_core_adopt
#include "shared/core/adopt.c"
#undef wvm_core_adopt

void wvm_core_adopt(struct wvm_core *core)
{
	struct wvm_handover_left early;

	for (uint32_t vm = 0; vm < core->vm_count; vm++)
		wvm_handover_add_vm(core, vm);
	early = core->left;
	core->left = (struct wvm_handover_left){0};
	good_core_adopt(core);
	if (broken_now(BROKEN_HANDOVER_COUNTED))
		core->left = early;
}

#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef bool ready_fn(const struct wvm_core *core, uint32_t vm, uint64_t page,
		      const struct wvm_msg *msg);
typedef enum wvm_drop message_fn(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg, const uint8_t *data);
ready_fn good_handover_ready;
message_fn good_handover_message;

#define wvm_handover_ready   good_handover_ready
#define wvm_handover_message good_handover_message
#include "shared/core/handover.c"
#undef wvm_handover_ready
#undef wvm_handover_message

bool wvm_handover_ready(const struct wvm_core *core, uint32_t vm, uint64_t page,
			const struct wvm_msg *msg)
{
	struct wvm_home_unit *u = &core->vms[vm].units[wvm_unit_index(page)];

	if (good_handover_ready(core, vm, page, msg))
		return true;
	if (!broken_now(BROKEN_HANDOVER_BLIND))
		return false;
	/* As if nobody had ever touched the unit. */
	if (u->moved != core->params.moved)
		*u = (struct wvm_home_unit){.moved = core->params.moved};
	u->phase = WVM_MOVED_CAME;
	return true;
}

enum wvm_drop wvm_handover_message(struct wvm_core *core, uint32_t vm, uint64_t page,
				   uint32_t member, const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_home_unit *u = &core->vms[vm].units[wvm_unit_index(page)];
	bool known = wvm_moved_phase_of(core, vm, page) != WVM_MOVED_UNKNOWN;
	enum wvm_drop drop = good_handover_message(core, vm, page, member, msg, data);
	uint64_t first = page - page % WVM_UNIT_PAGES;

	for (uint64_t at = first; u->era && at < core->vms[vm].pages && at < first + WVM_UNIT_PAGES;
	     at++)
		if (wvm_moved_phase_of(core, vm, page) == WVM_MOVED_COMING &&
		    wvm_home_of(core, vm, at)->flags & WVM_HOME_BACKUP &&
		    broken_now(BROKEN_BACKUP_ENTRY))
			wvm_home_of(core, vm, at)->flags &= (uint8_t)~WVM_HOME_BACKUP;

	if (wvm_moved_phase_of(core, vm, page) == WVM_MOVED_COMING &&
	    broken_now(BROKEN_HANDOVER_EARLY))
		u->phase = WVM_MOVED_CAME;
	/* Unless it has given out versions of its own already: those are above any of before. */
	if (!known && wvm_moved_in(core, vm, page) && u->version >> 32 < core->params.epoch &&
	    broken_now(BROKEN_HANDOVER_COUNTER))
		u->version = 0;
	return drop;
}

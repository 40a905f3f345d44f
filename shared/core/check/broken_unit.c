#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef bool grant_fn(struct wvm_core *core, uint32_t vm, uint64_t page, const struct wvm_asked *q);
typedef void split_fn(struct wvm_core *core, uint32_t vm, uint64_t page);
grant_fn good_unit_grant;
split_fn good_unit_split;

#define wvm_unit_grant good_unit_grant
#define wvm_unit_split good_unit_split
#include "shared/core/unit.c"
#undef wvm_unit_grant
#undef wvm_unit_split

bool wvm_unit_grant(struct wvm_core *core, uint32_t vm, uint64_t page, const struct wvm_asked *q)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);

	if (q->flags & WVM_MSG_UNIT && u->granted && u->owner != q->member &&
	    !wvm_home_of(core, vm, page)->version && broken_now(BROKEN_UNIT_TWICE)) {
		u->grant = q->id;
		u->owner = q->member;
		u->granted = wvm_home_version(core, vm, page);
	}
	return good_unit_grant(core, vm, page, q);
}

void wvm_unit_split(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);

	good_unit_split(core, vm, page);
	if (broken_now(BROKEN_UNIT_KEPT))
		u->mine[page % WVM_UNIT_PAGES / 64] |= UINT64_C(1) << page % 64;
}

#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef enum wvm_drop grant_fn(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			       const struct wvm_msg *msg, const uint8_t *data);
grant_fn good_request_grant;

#define wvm_request_grant good_request_grant
#include "shared/core/request.c"
#undef wvm_request_grant

/* As if the page had come into the RAM file without the second program's protection. */
static void let_in(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	wvm_core_emit(core, WVM_ACT_LIFT, vm, page)->waiters = UINT64_C(1) << 1;
}

static void ignore(struct wvm_core *core, struct wvm_held_page *h, const struct wvm_msg *msg)
{
	const struct wvm_request *r = h->request ? &core->requests[h->request - 1] : NULL;
	struct wvm_held_page without = *h;

	without.invalidated = 0;
	if (r && r->id == msg->request && r->state == WVM_REQUEST_SENT &&
	    !(msg->flags & WVM_MSG_ERROR))
		broken_ignored += acceptable(&without, r, msg) && !acceptable(h, r, msg);
	h->invalidated = 0;
}

enum wvm_drop wvm_request_grant(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page);
	uint64_t invalidated = h->invalidated;
	uint8_t state = h->state;
	struct wvm_msg m = *msg;
	enum wvm_drop drop;

	if (broken_fault == BROKEN_LATE_GRANT && h->request && core->requests[h->request - 1].id)
		m.request = core->requests[h->request - 1].id;
	if (broken_now(BROKEN_INVALIDATED_IGNORED))
		ignore(core, h, msg);
	drop = good_request_grant(core, vm, page, member, &m, data);
	if (h->invalidated < invalidated)
		h->invalidated = invalidated;
	if (state == WVM_HELD_INVALID && h->state == WVM_HELD_SHARED &&
	    broken_now(BROKEN_SECOND_PROGRAM))
		let_in(core, vm, page);
	return drop;
}

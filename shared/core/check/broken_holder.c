#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef enum wvm_drop demand_fn(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg);
typedef void timer_fn(struct wvm_core *core, struct wvm_demand *d);
typedef void rehome_fn(struct wvm_core *core);
demand_fn good_holder_demand;
timer_fn good_holder_timer;
rehome_fn good_holder_rehome;

#define wvm_holder_demand good_holder_demand
#define wvm_holder_rehome good_holder_rehome
#define wvm_holder_timer  good_holder_timer
#include "shared/core/holder.c"
#undef wvm_holder_demand
#undef wvm_holder_rehome
#undef wvm_holder_timer

static bool answered_wrongly(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			     const struct wvm_msg *msg)
{
	const struct wvm_held_page *h = wvm_held_of(core, vm, page);
	const struct wvm_request *r = h->request ? &core->requests[h->request - 1] : NULL;
	bool invalidate = msg->type == WVM_MSG_INVALIDATE;
	bool named = h->grant == msg->grant && h->version == msg->version;
	struct wvm_demand d = {.page = page,
			       .txn = msg->request,
			       .grant = msg->grant,
			       .version = msg->version,
			       .vm = vm,
			       .member = member,
			       .home_vnode = msg->src,
			       .steer = msg->reply_steer};

	if (r && r->id && r->id == msg->grant && broken_now(BROKEN_REFUSED_GRANT)) {
		answer(core, &d, invalidate ? WVM_MSG_INVALIDATE_ACK : WVM_MSG_NOT_HELD);
		return true;
	}
	if (h->state == WVM_HELD_MODIFIED && core->now_ns < h->hold_until_ns && !invalidate &&
	    broken_now(BROKEN_NOT_HELD_WHILE_HELD)) {
		answer(core, &d, WVM_MSG_NOT_HELD);
		return true;
	}
	if (h->state == WVM_HELD_SHARED && named && !h->demand && broken_now(BROKEN_KEPT)) {
		answer(core, &d, WVM_MSG_INVALIDATE_ACK);
		return true;
	}
	return false;
}

/* Nothing protects where the action was; waking nobody in its place does no harm. */
static void unprotect(struct wvm_core *core, uint32_t since)
{
	for (; since != core->action_tail; since++) {
		struct wvm_action *a = &core->actions[since % WVM_ACTIONS];

		if (a->kind == WVM_ACT_PROTECT)
			a->kind = WVM_ACT_WAKE;
	}
}

enum wvm_drop wvm_holder_demand(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg)
{
	const struct wvm_held_page *h = wvm_held_of(core, vm, page);
	bool modified = h->state == WVM_HELD_MODIFIED;
	uint32_t actions = core->action_tail;
	enum wvm_drop drop;

	if (answered_wrongly(core, vm, page, member, msg))
		return WVM_DROP_NONE;
	drop = good_holder_demand(core, vm, page, member, msg);
	if (modified && h->state == WVM_HELD_SHARED && broken_now(BROKEN_DOWNGRADE))
		unprotect(core, actions);
	return drop;
}

void wvm_holder_timer(struct wvm_core *core, struct wvm_demand *d)
{
	const struct wvm_held_page *h = wvm_held_of(core, d->vm, d->page);
	bool modified = h->state == WVM_HELD_MODIFIED;
	uint32_t actions = core->action_tail;

	if (d->state == WVM_DEMAND_WRITE_BACK && broken_now(BROKEN_FORGOTTEN_EARLY)) {
		finish(core, d);
		return;
	}
	good_holder_timer(core, d);
	if (modified && h->state == WVM_HELD_SHARED && broken_now(BROKEN_DOWNGRADE))
		unprotect(core, actions);
}

/* Each goes on to whom it went before, as if nothing had moved. */
void wvm_holder_rehome(struct wvm_core *core)
{
	uint32_t count = core->params.limits.demands;

	for (uint32_t i = 0; i < count && broken_fault == BROKEN_HANDOVER_LEFT; i++)
		if (core->demands[i].state == WVM_DEMAND_WRITE_BACK)
			core->demands[i].used = false;
	good_holder_rehome(core);
	for (uint32_t i = 0; i < count && broken_fault == BROKEN_HANDOVER_LEFT; i++)
		if (core->demands[i].timer.place)
			core->demands[i].used = true;
}

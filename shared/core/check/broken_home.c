#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef enum wvm_drop invalidated_fn(struct wvm_core *core, uint32_t vm, uint64_t page,
				     uint32_t member, const struct wvm_msg *msg);
typedef enum wvm_drop write_back_fn(struct wvm_core *core, uint32_t vm, uint64_t page,
				    uint32_t member, const struct wvm_msg *msg,
				    const uint8_t *data);
typedef void timer_fn(struct wvm_core *core, struct wvm_txn *t);
invalidated_fn good_home_invalidated;
write_back_fn good_home_write_back;
timer_fn good_home_timer;
typedef enum wvm_drop request_fn(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg);
request_fn good_home_request;

#define wvm_home_invalidated good_home_invalidated
#define wvm_home_timer       good_home_timer
#define wvm_home_request     good_home_request
#define wvm_home_write_back  good_home_write_back
#include "shared/core/home.c"
#undef wvm_home_invalidated
#undef wvm_home_timer
#undef wvm_home_request
#undef wvm_home_write_back

enum wvm_drop wvm_home_invalidated(struct wvm_core *core, uint32_t vm, uint64_t page,
				   uint32_t member, const struct wvm_msg *msg)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	uint32_t record = wvm_holders_find(core, e, member);

	if (e->txn && record != WVM_NIL && broken_now(BROKEN_ONE_ACK)) {
		struct wvm_holder h = wvm_holders_at(core, e, record);
		uint64_t grant_id = *h.grant;

		wvm_holders_clear(core, e);
		wvm_holders_add(core, e, member, grant_id);
	}
	return good_home_invalidated(core, vm, page, member, msg);
}

void wvm_home_timer(struct wvm_core *core, struct wvm_txn *t)
{
	struct wvm_home_page *e = wvm_home_of(core, t->vm, t->page);

	if (e->state == WVM_HOME_MODIFIED && t->state != WVM_TXN_DRAIN &&
	    broken_now(BROKEN_OWNER_FORGOTTEN)) {
		wvm_holders_clear(core, e);
		e->state = WVM_HOME_HOME;
		go_on(core, t);
		return;
	}
	good_home_timer(core, t);
}

enum wvm_drop wvm_home_write_back(struct wvm_core *core, uint32_t vm, uint64_t page,
				  uint32_t member, const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	uint64_t before = e->version;
	enum wvm_drop drop = good_home_write_back(core, vm, page, member, msg, data);

	if (broken_now(BROKEN_STORED_VERSION))
		e->version = before;
	return drop;
}

/* Gives the version that is stored, and that others may hold, to what will be stored next. */
enum wvm_drop wvm_home_request(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			       const struct wvm_msg *msg)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	uint32_t epoch = core->params.epoch, at = core->action_tail;
	uint64_t version = u->version;
	enum wvm_drop drop;

	/* Not to itself: a holder that refuses it asks again, at once and for ever. */
	if (!(u->lost & WVM_UNIT_REBUILT) || member == core->params.self ||
	    !broken_now(BROKEN_REBUILD_VERSION))
		return good_home_request(core, vm, page, member, msg);
	core->params.epoch = 0;
	u->version = wvm_home_of(core, vm, page)->version;
	u->version -= u->version != 0; /* the next is the one that is stored */
	drop = good_home_request(core, vm, page, member, msg);
	core->params.epoch = epoch;
	u->version = u->version < version ? version : u->version;
	for (; at != core->action_tail; at++)
		core->actions[at % WVM_ACTIONS].msg.epoch = epoch;
	return drop;
}

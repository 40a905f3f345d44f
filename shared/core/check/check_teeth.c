/*
 * The simulator's own test: cores with one rule left out, each of which it has
 * to catch. The sources are included, so that what they export can be wrapped;
 * the linker then has no use for the library's copies.
 */
#include "shared/core/core_int.h"

typedef enum wvm_drop from_holder(struct wvm_core *core, uint32_t vm, uint64_t page,
				  uint32_t member, const struct wvm_msg *msg);
typedef enum wvm_drop with_page(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg, const uint8_t *data);
typedef void home_timer(struct wvm_core *core, struct wvm_txn *t);
typedef void holder_timer(struct wvm_core *core, struct wvm_demand *d);
from_holder good_home_invalidated, good_holder_demand;
with_page good_home_write_back, good_request_grant;
home_timer good_home_timer;
holder_timer good_holder_timer;

/* The three machines have private functions of the same names. */
#define wvm_home_invalidated good_home_invalidated
#define wvm_home_timer       good_home_timer
#define wvm_home_write_back  good_home_write_back
#define slot_of              home_slot_of
#define begin                home_begin
#include "shared/core/home.c"
#undef wvm_home_invalidated
#undef wvm_home_timer
#undef wvm_home_write_back
#undef slot_of
#undef begin

#define wvm_holder_demand good_holder_demand
#define wvm_holder_timer  good_holder_timer
#define slot_of           holder_slot_of
#define begin             holder_begin
#define finish            holder_finish
#include "shared/core/holder.c"
#undef wvm_holder_demand
#undef wvm_holder_timer
#undef slot_of
#undef begin
#undef finish

#define wvm_request_grant good_request_grant
#include "shared/core/request.c"
#undef wvm_request_grant

/* Later than the sources: it has a macro of the name of one of their functions. */
#include <check.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/core/sim/cluster.h"

/* The rule that is left out. */
static enum fault {
	SOUND,
	ONE_ACK_IS_ENOUGH,     /* the home does not wait for every sharer */
	OWNER_FORGOTTEN,       /* the home falls back to its stored copy when it has to ask again */
	STORED_BEFORE_GRANTED, /* the home keeps the version that was there before a write-back */
	LATE_GRANT_TAKEN,      /* whatever request id the grant answers */
	REFUSED_GRANT_TAKEN,   /* NOT_HELD is answered, and the grant taken when it comes */
	FORGOTTEN_EARLY,       /* data is dropped before the home has acknowledged it */
	NOT_HELD_WHILE_HELD,   /* a demand within the hold time is refused */
	DOWNGRADE_UNPROTECTED, /* the second program's stores go on */
	KEPT_WHEN_INVALIDATED, /* the acknowledgement is sent, and the copy stays */
	FAULTS,
} fault;

static const char *const names[FAULTS] = {
	"sound",
	"the first acknowledgement is enough",
	"the owner is forgotten when it is slow",
	"a write-back leaves the old version",
	"a late grant is taken",
	"a refused grant is taken",
	"data is forgotten before its acknowledgement",
	"what is held is refused",
	"a downgrade leaves pages writable",
	"an invalidated copy stays",
};

static bool now_broken(enum fault f)
{
	static uint32_t count;

	return fault == f && ++count % 8 == 0;
}

enum wvm_drop wvm_home_invalidated(struct wvm_core *core, uint32_t vm, uint64_t page,
				   uint32_t member, const struct wvm_msg *msg)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	uint32_t record = wvm_holders_find(core, e, member);

	if (e->txn && record != WVM_NIL && now_broken(ONE_ACK_IS_ENOUGH)) {
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
	    now_broken(OWNER_FORGOTTEN)) {
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

	if (now_broken(STORED_BEFORE_GRANTED))
		e->version = before;
	return drop;
}

enum wvm_drop wvm_request_grant(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg, const uint8_t *data)
{
	const struct wvm_held_page *h = wvm_held_of(core, vm, page);
	struct wvm_msg m = *msg;

	if (fault == LATE_GRANT_TAKEN && h->request && core->requests[h->request - 1].id)
		m.request = core->requests[h->request - 1].id;
	return good_request_grant(core, vm, page, member, &m, data);
}

enum wvm_drop wvm_holder_demand(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg)
{
	struct wvm_held_page *h = wvm_held_of(core, vm, page), before = *h;
	struct wvm_demand d = {.page = page,
			       .txn = msg->request,
			       .grant = msg->grant,
			       .version = msg->version,
			       .vm = vm,
			       .member = member,
			       .home_vnode = msg->src,
			       .steer = msg->reply_steer};
	struct wvm_request *r = h->request ? &core->requests[h->request - 1] : NULL;
	uint32_t actions = core->action_tail;
	enum wvm_drop drop;

	if (r && r->id && r->id == msg->grant && now_broken(REFUSED_GRANT_TAKEN)) {
		answer(core, &d,
		       msg->type == WVM_MSG_INVALIDATE ? WVM_MSG_INVALIDATE_ACK : WVM_MSG_NOT_HELD);
		return WVM_DROP_NONE;
	}
	if (h->state == WVM_HELD_MODIFIED && core->now_ns < h->hold_until_ns &&
	    msg->type != WVM_MSG_INVALIDATE && now_broken(NOT_HELD_WHILE_HELD)) {
		answer(core, &d, WVM_MSG_NOT_HELD);
		return WVM_DROP_NONE;
	}
	if (h->state == WVM_HELD_SHARED && h->grant == msg->grant && h->version == msg->version &&
	    !h->demand && now_broken(KEPT_WHEN_INVALIDATED)) {
		answer(core, &d, WVM_MSG_INVALIDATE_ACK);
		return WVM_DROP_NONE;
	}
	drop = good_holder_demand(core, vm, page, member, msg);
	if (before.state == WVM_HELD_MODIFIED && h->state == WVM_HELD_SHARED &&
	    now_broken(DOWNGRADE_UNPROTECTED)) {
		struct wvm_action *a = &core->actions[actions % WVM_ACTIONS];

		a->kind = WVM_ACT_WAKE; /* in the place of PROTECT */
	}
	return drop;
}

void wvm_holder_timer(struct wvm_core *core, struct wvm_demand *d)
{
	if (d->state == WVM_DEMAND_WRITE_BACK && now_broken(FORGOTTEN_EARLY)) {
		holder_finish(core, d);
		return;
	}
	good_holder_timer(core, d);
}

/* ---- the test -------------------------------------------------------------------------- */

static jmp_buf caught;

/* An assertion of the core that fails catches the fault as well. */
void wvm_core_panic(const char *what, const char *file, int line)
{
	printf("  (assertion in the core: %s, %s:%d)\n", what, file, line);
	longjmp(caught, 1);
}

static bool fails(uint64_t seed, uint64_t accesses)
{
	struct sim_config c;
	struct sim_report r;
	struct sim *sim;

	sim_default(&c, seed);
	c.pages = 8;
	c.loss_ppm = c.duplicate_ppm = 20000;
	c.reorder_ppm = 100000;
	c.reorder_ns = 40000000; /* beyond the retries */
	sim = sim_create(&c);
	if (setjmp(caught))
		return true; /* the core cannot be used any more: its memory stays */
	sim_run(sim, accesses);
	sim_report(sim, &r);
	if (r.failure)
		printf("  (%s)\n", r.failure);
	sim_destroy(sim);
	return r.failure;
}

START_TEST(a_core_with_a_rule_left_out_is_caught)
{
	uint32_t seed = 1;

	fault = _i;
	printf("%s:\n", names[fault]);
	while (seed <= 50 && !fails(seed, 20000))
		seed++;
	if (fault == SOUND)
		ck_assert_uint_eq(seed, 51);
	else
		ck_assert_uint_le(seed, 50);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("teeth");
	TCase *tc = tcase_create("teeth");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, a_core_with_a_rule_left_out_is_caught, 0, FAULTS);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

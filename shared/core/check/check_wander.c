/* Pages that are read, then written, by one node after the other (shared/core/wander.h). */
#include "shared/core/check/rig.h"
#include "shared/core/wander.h"

#define HOME   3u
#define WANDER 2u

static uint32_t ids, txns; /* that the core, and the home, have given out */
static uint64_t version;   /* the newest */

static void open_with(struct rig *r, uint8_t wander)
{
	struct wvm_core_vm vm;

	rig_open(r, HOME, NULL);
	vm = *wvm_core_vm_at(r->core, 0);
	r->params.wander = wander;
	r->core = wvm_core_init(r->memory, &r->params);
	ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
	wvm_core_serve(r->core, true);
	r->name = "wander";
	ids = txns = 0;
	version = 5;
}

/* Somebody else has written it meanwhile. It is granted Shared. */
static void read_shared(struct rig *r)
{
	version++;
	rig_do(r, (struct rig_step)DO(FAULT));
	rig_do(r, (struct rig_step)SENT(MEM_READ, HOME, .request = OWN(++ids)));
	rig_do(r, (struct rig_step)IN(MEM_ACK, HOME, .request = OWN(ids), .version = V(version),
				      .flags = WVM_MSG_ZERO));
	rig_do(r, (struct rig_step)ACT(INSTALL, .waiters = 1));
}

/* The read asks for all. */
static void read_modified(struct rig *r)
{
	version++;
	rig_do(r, (struct rig_step)DO(FAULT));
	rig_do(r, (struct rig_step)SENT(MEM_ACQUIRE, HOME, .request = OWN(++ids)));
	rig_do(r, (struct rig_step)IN(MEM_ACK, HOME, .request = OWN(ids), .version = V(version),
				      .flags = WVM_MSG_ZERO));
	rig_do(r, (struct rig_step)ACT(INSTALL, .waiters = 1, .writable = true));
}

static void upgrade(struct rig *r)
{
	rig_do(r, (struct rig_step)DO(FAULT, .flags = 1));
	rig_do(r, (struct rig_step)SENT(MEM_ACQUIRE, HOME, .request = OWN(++ids),
					.flags = WVM_MSG_HELD, .version = V(version)));
	version++;
	rig_do(r, (struct rig_step)IN(MEM_ACK, HOME, .request = OWN(ids), .version = V(version),
				      .flags = WVM_MSG_HELD));
	rig_do(r, (struct rig_step)ACT(LIFT, .waiters = 1));
}

static void ask(struct rig *r, uint8_t type)
{
	struct rig_step s = IN(FETCH_AND_INVALIDATE, HOME, .request = ID(++txns), .grant = OWN(ids),
			       .version = V(version));

	s.type = type;
	r->now_ns += r->params.times.hold_max_ns;
	rig_do(r, s);
}

static void lose_shared(struct rig *r)
{
	ask(r, WVM_MSG_INVALIDATE);
	rig_do(r, (struct rig_step)ACT(PROTECT));
	rig_do(r, (struct rig_step)ACT(PUNCH));
	rig_do(r, (struct rig_step)SENT(INVALIDATE_ACK, HOME, .request = ID(txns),
					.grant = OWN(ids), .version = V(version)));
}

static void stored(struct rig *r)
{
	rig_do(r, (struct rig_step)IN(WRITE_BACK_ACK, HOME, .request = ID(txns), .grant = OWN(ids),
				      .version = V(version)));
}

static void lose_modified(struct rig *r)
{
	ask(r, WVM_MSG_FETCH_AND_INVALIDATE);
	rig_do(r, (struct rig_step)ACT(PROTECT));
	rig_do(r, (struct rig_step)ACT(SAVE));
	rig_do(r, (struct rig_step)ACT(PUNCH));
	rig_do(r, (struct rig_step)SENT(WRITE_BACK, HOME, .request = ID(txns), .grant = OWN(ids),
					.version = V(version), .source = WVM_DATA_OUTBOX));
	stored(r);
}

static void downgraded(struct rig *r)
{
	ask(r, WVM_MSG_DOWNGRADE);
	rig_do(r, (struct rig_step)ACT(PROTECT));
	rig_do(r, (struct rig_step)SENT(WRITE_BACK, HOME, .request = ID(txns), .grant = OWN(ids),
					.version = V(version), .flags = WVM_MSG_KEEP,
					.source = WVM_DATA_RAM));
	stored(r);
}

static void wander(struct rig *r, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		read_shared(r);
		upgrade(r);
		lose_modified(r);
	}
}

static void trust(struct rig *r)
{
	for (unsigned i = 0; i < WVM_WANDER_TRUST; i++) {
		read_modified(r);
		lose_modified(r);
	}
}

START_TEST(a_page_that_is_always_written_after_a_read_is_asked_for_at_the_read)
{
	struct rig r;

	open_with(&r, WANDER);
	wander(&r, WANDER);
	trust(&r);
	/* A plain read in between shows that it still wanders. */
	wander(&r, 1);
	trust(&r);
	ck_assert_uint_eq(wvm_core_stats(r.core)->wander_asked, 2 * WVM_WANDER_TRUST);
	rig_close(&r);
}
END_TEST

START_TEST(one_that_is_not_written_any_more_is_a_plain_one)
{
	struct rig r;

	open_with(&r, WANDER);
	wander(&r, WANDER);
	trust(&r);
	read_shared(&r);
	lose_shared(&r);
	wander(&r, WANDER);
	read_modified(&r);
	rig_close(&r);
}
END_TEST

START_TEST(reads_in_between_count_from_the_beginning)
{
	struct rig r;

	open_with(&r, WANDER);
	for (unsigned i = 0; i < 5; i++) {
		wander(&r, WANDER - 1);
		read_shared(&r);
		lose_shared(&r);
	}
	rig_close(&r);
}
END_TEST

/* Others read what is written here: that is no page that wanders. */
START_TEST(what_its_home_made_shared_does_not_count)
{
	struct rig r;

	open_with(&r, WANDER);
	wander(&r, WANDER - 1);
	read_shared(&r);
	lose_shared(&r);
	version++;
	rig_do(&r, (struct rig_step)DO(FAULT, .flags = 1));
	rig_do(&r, (struct rig_step)SENT(MEM_ACQUIRE, HOME, .request = OWN(++ids)));
	rig_do(&r, (struct rig_step)IN(MEM_ACK, HOME, .request = OWN(ids), .version = V(version),
				       .flags = WVM_MSG_ZERO));
	rig_do(&r, (struct rig_step)ACT(INSTALL, .waiters = 1, .writable = true));
	for (unsigned i = 0; i < 2 * WANDER; i++) {
		downgraded(&r);
		upgrade(&r);
	}
	lose_modified(&r);
	read_shared(&r);
	rig_close(&r);
}
END_TEST

START_TEST(without_it_a_read_is_a_read)
{
	struct rig r;

	open_with(&r, 0);
	wander(&r, 3 * WVM_WANDER_TRUST);
	rig_close(&r);
}
END_TEST

static void add(TCase *t)
{
	tcase_add_test(t, a_page_that_is_always_written_after_a_read_is_asked_for_at_the_read);
	tcase_add_test(t, one_that_is_not_written_any_more_is_a_plain_one);
	tcase_add_test(t, reads_in_between_count_from_the_beginning);
	tcase_add_test(t, what_its_home_made_shared_does_not_count);
	tcase_add_test(t, without_it_a_read_is_a_read);
}

int main(void)
{
	return rig_main("wander", add);
}

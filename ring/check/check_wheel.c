#include <stdio.h>

#include "ring/check/support.h"
#include "ring/wheel.h"

#define TIMERS 512

struct modelled {
	struct wvm_timer timer;
	bool armed;
	uint64_t expires_ns;
	unsigned fired;
};

static struct wvm_wheel wheel;
static struct modelled timers[TIMERS];
static struct rng rng;
static uint64_t last_tick; /* of the timers fired in one advance */

static uint64_t due_tick(uint64_t expires_ns)
{
	return (expires_ns + WVM_TICK_NS - 1) >> WVM_TICK_SHIFT;
}

static void model_fire(struct wvm_timer *t, uint64_t now_ns)
{
	struct modelled *m = (struct modelled *)t;

	if (!m->armed || wvm_timer_armed(t))
		ck_abort_msg("fired without being armed");
	if (now_ns < m->expires_ns)
		ck_abort_msg("fired %lu ns early", m->expires_ns - now_ns);
	if (t->tick < last_tick)
		ck_abort_msg("fired out of order");
	last_tick = t->tick;
	m->armed = false;
	m->fired++;
}

/* A delay with every magnitude as likely as any other, from now to hours. */
static uint64_t random_delay(void)
{
	return rng_next(&rng) >> (20 + rng_below(&rng, 44));
}

static void check_against_model(uint64_t now_ns)
{
	uint64_t armed = 0, earliest = WVM_NEVER;

	/* No ck_assert in here: each writes to libcheck's pipe. */
	for (unsigned i = 0; i < TIMERS; i++) {
		struct modelled *m = &timers[i];

		if (m->armed != wvm_timer_armed(&m->timer))
			ck_abort_msg("timer %u: armed is %d", i, m->armed);
		if (!m->armed)
			continue;
		armed++;
		if (due_tick(m->expires_ns) <= now_ns >> WVM_TICK_SHIFT)
			ck_abort_msg("a timer due %lu ns ago was not fired",
				     now_ns - m->expires_ns);
		if (m->expires_ns < earliest)
			earliest = m->expires_ns;
	}
	ck_assert_uint_eq(armed, wheel.armed);
	if (earliest == WVM_NEVER)
		ck_assert_uint_eq(wvm_wheel_next(&wheel), WVM_NEVER);
	else
		ck_assert_uint_le(wvm_wheel_next(&wheel), earliest + WVM_TICK_NS);
}

START_TEST(random_operations_match_a_model)
{
	uint64_t now = (uint64_t)_i * 0x123456789abcULL;

	rng.state = (uint64_t)_i * 7919 + 1;
	memset(timers, 0, sizeof(timers));
	wvm_wheel_init(&wheel, now);
	for (unsigned i = 0; i < TIMERS; i++)
		timers[i].timer.fire = model_fire;
	for (unsigned step = 0; step < 20000; step++) {
		struct modelled *m = &timers[rng_below(&rng, TIMERS)];

		switch (rng_below(&rng, 4)) {
		case 0:
		case 1:
			/* Due from the next advance on, hence one tick ahead of the model's now. */
			m->expires_ns = now + WVM_TICK_NS + random_delay();
			m->armed = true;
			wvm_wheel_arm(&wheel, &m->timer, m->expires_ns);
			break;
		case 2:
			if (wvm_wheel_cancel(&wheel, &m->timer) != m->armed)
				ck_abort_msg("cancel does not know what is armed");
			m->armed = false;
			break;
		default:
			now += rng_below(&rng, 3) ? random_delay() : 0;
			last_tick = 0;
			while (wvm_wheel_advance(&wheel, now, 64) == 64)
				;
			check_against_model(now);
		}
	}
}
END_TEST

START_TEST(sleeping_until_next_fires_every_timer_within_a_tick)
{
	uint64_t now = 1000;
	unsigned wakeups = 0;

	rng.state = 42;
	memset(timers, 0, sizeof(timers));
	wvm_wheel_init(&wheel, now);
	for (unsigned i = 0; i < TIMERS; i++) {
		timers[i].timer.fire = model_fire;
		timers[i].expires_ns = now + random_delay();
		timers[i].armed = true;
		wvm_wheel_arm(&wheel, &timers[i].timer, timers[i].expires_ns);
	}
	while (wheel.armed) {
		uint64_t next = wvm_wheel_next(&wheel);

		ck_assert_uint_ne(next, WVM_NEVER);
		for (unsigned i = 0; i < TIMERS; i++)
			if (timers[i].armed && next > timers[i].expires_ns + WVM_TICK_NS)
				ck_abort_msg("it would sleep %lu ns too long",
					     next - timers[i].expires_ns);
		now = next > now ? next : now;
		last_tick = 0;
		wvm_wheel_advance(&wheel, now, TIMERS);
		wakeups++;
	}
	for (unsigned i = 0; i < TIMERS; i++)
		ck_assert_uint_eq(timers[i].fired, 1);
	ck_assert_uint_le(wakeups, TIMERS * WVM_WHEEL_LEVELS);
}
END_TEST

static unsigned rearms;

static void rearm_fire(struct wvm_timer *t, uint64_t now_ns)
{
	rearms++;
	wvm_wheel_arm(&wheel, t, 0);
}

START_TEST(a_timer_that_arms_itself_for_the_past_fires_once_per_advance)
{
	struct wvm_timer t = {.fire = rearm_fire};

	wvm_wheel_init(&wheel, 0);
	wvm_wheel_arm(&wheel, &t, 5);
	rearms = 0;
	for (unsigned i = 1; i <= 10; i++) {
		ck_assert_uint_eq(wvm_wheel_advance(&wheel, i * 1000000, 100), 1);
		ck_assert_uint_eq(rearms, i);
		ck_assert_uint_le(wvm_wheel_next(&wheel), i * 1000000);
	}
}
END_TEST

static struct wvm_timer victim;

static void cancel_victim(struct wvm_timer *t, uint64_t now_ns)
{
	ck_assert(wvm_wheel_cancel(&wheel, &victim));
}

static void never_fire(struct wvm_timer *t, uint64_t now_ns)
{
	ck_abort_msg("a cancelled timer fired");
}

START_TEST(a_due_timer_can_be_cancelled_by_one_that_fires_before_it)
{
	struct wvm_timer t = {.fire = cancel_victim};

	victim = (struct wvm_timer){.fire = never_fire};
	wvm_wheel_init(&wheel, 0);
	wvm_wheel_arm(&wheel, &t, 1000);
	wvm_wheel_arm(&wheel, &victim, 1000);
	ck_assert_uint_eq(wvm_wheel_advance(&wheel, 10000000, 100), 1);
	ck_assert_uint_eq(wheel.armed, 0);
	ck_assert(!wvm_wheel_cancel(&wheel, &victim));
}
END_TEST

START_TEST(an_advance_fires_no_more_than_its_bound)
{
	memset(timers, 0, sizeof(timers));
	wvm_wheel_init(&wheel, 0);
	for (unsigned i = 0; i < 10; i++) {
		timers[i].timer.fire = model_fire;
		timers[i].armed = true;
		wvm_wheel_arm(&wheel, &timers[i].timer, 0);
	}
	last_tick = 0;
	ck_assert_uint_eq(wvm_wheel_advance(&wheel, 1, 4), 4);
	ck_assert_uint_eq(wvm_wheel_advance(&wheel, 1, 4), 4);
	ck_assert_uint_eq(wvm_wheel_advance(&wheel, 1, 4), 2);
	ck_assert_uint_eq(wvm_wheel_next(&wheel), WVM_NEVER);
}
END_TEST

START_TEST(timers_of_one_tick_fire_in_the_order_of_arming)
{
	static unsigned long order;

	memset(timers, 0, sizeof(timers));
	wvm_wheel_init(&wheel, 0);
	for (unsigned i = 0; i < 8; i++) {
		timers[i].timer.fire = model_fire;
		timers[i].armed = true;
		wvm_wheel_arm(&wheel, &timers[i].timer, WVM_TICK_NS);
	}
	last_tick = 0;
	for (order = 0; order < 8; order++) {
		ck_assert_uint_eq(wvm_wheel_advance(&wheel, WVM_TICK_NS, 1), 1);
		ck_assert_uint_eq(timers[order].fired, 1);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/wheel");
	TCase *c = tcase_create("wheel");

	tcase_set_timeout(c, 60);
	tcase_add_loop_test(c, random_operations_match_a_model, 0, 20);
	tcase_add_test(c, sleeping_until_next_fires_every_timer_within_a_tick);
	tcase_add_test(c, a_timer_that_arms_itself_for_the_past_fires_once_per_advance);
	tcase_add_test(c, a_due_timer_can_be_cancelled_by_one_that_fires_before_it);
	tcase_add_test(c, an_advance_fires_no_more_than_its_bound);
	tcase_add_test(c, timers_of_one_tick_fire_in_the_order_of_arming);
	suite_add_tcase(s, c);
	return run_suite(s);
}

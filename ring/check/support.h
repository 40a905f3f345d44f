/*
 * What the tests of ring/ share: making and driving shards, clocks, the main.
 */
#ifndef WVM_RING_CHECK_SUPPORT_H
#define WVM_RING_CHECK_SUPPORT_H

#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ring/post.h"
#include "ring/shard.h"

#define GIVE_UP_NS 20000000000ULL /* a test that waits longer has failed */

/* A small deterministic generator (xorshift64*). */
struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * 2685821657736338717ULL;
}

static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

static inline struct wvm_shard *make_shard(const struct wvm_shard_opts *opts)
{
	const struct wvm_shard_opts none = {0};
	char why[256] = "";
	struct wvm_shard *s;
	int err = wvm_shard_create(&s, opts ? opts : &none, why, sizeof(why));

	ck_assert_msg(!err, "shard: %d %s", err, why);
	return s;
}

/* Stops a shard after a while, so that a broken test ends. */
struct deadline {
	struct wvm_timer timer;
	struct wvm_shard *shard;
	bool over;
};

static inline void deadline_fire(struct wvm_timer *t, uint64_t now_ns)
{
	struct deadline *d = (struct deadline *)t;

	d->over = true;
	wvm_shard_stop(d->shard);
}

/* Runs s in this thread until somebody stops it; fails when nobody does. */
static inline void run_to_stop(struct wvm_shard *s)
{
	struct deadline d = {.timer.fire = deadline_fire, .shard = s};
	int err;

	wvm_shard_arm_at(s, &d.timer, wvm_now_ns() + GIVE_UP_NS);
	err = wvm_shard_run(s);
	ck_assert_msg(!err, "loop: %d %s", err, s->dead);
	ck_assert_msg(!d.over, "nothing stopped the shard");
	wvm_shard_disarm(s, &d.timer);
}

/* Runs s for ns nanoseconds. */
static inline void run_for(struct wvm_shard *s, uint64_t ns)
{
	struct deadline d = {.timer.fire = deadline_fire, .shard = s};

	wvm_shard_arm_at(s, &d.timer, wvm_now_ns() + ns);
	ck_assert_int_eq(wvm_shard_run(s), 0);
	ck_assert(d.over);
}

/* Waits until *flag is not 0; false after GIVE_UP_NS. */
static inline bool wait_for(const uint32_t *flag)
{
	uint64_t end = wvm_now_ns() + GIVE_UP_NS;

	while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE)) {
		if (wvm_now_ns() > end)
			return false;
		usleep(200);
	}
	return true;
}

/* Value of a counter while its shard runs. */
#define COUNTER(s, field) __atomic_load_n(&(s)->stats.field, __ATOMIC_RELAXED)

static inline int run_suite(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif

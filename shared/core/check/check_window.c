/* The window of requests to a peer: what waits for it, shrinks it and does without. */
#include "shared/core/check/rig.h"

#define H 3u /* the home of the pages under test; the core is RIG_SELF */

#define ZERO WVM_MSG_ZERO
#define US   UINT64_C(1000)
#define MS   UINT64_C(1000000)

/* Local programs: bit 0 is client 0. */
#define LOAD(client, ...)  DO(FAULT, .slot = client, __VA_ARGS__)
#define STORE(client, ...) DO(FAULT, .slot = client, .flags = 1, __VA_ARGS__)
#define BY(mask)           .waiters = mask

/* Requests of this core, by the counter of their id, and the answers. */
#define READ(n, ...)     SENT(MEM_READ, H, .request = OWN(n), __VA_ARGS__)
#define ACQUIRE(n, ...)  SENT(MEM_ACQUIRE, H, .request = OWN(n), __VA_ARGS__)
#define GRANT(n, v, ...) IN(MEM_ACK, H, .request = OWN(n), .version = v, __VA_ARGS__)

/* Requests beyond the peer's window wait, leave in order, and fail at their own deadline. */
START_TEST(requests_beyond_the_window_wait_in_order)
{
	enum { WINDOW = WVM_WINDOW_INITIAL / WVM_WINDOW_ONE, MORE = 5 };
	uint64_t started[WINDOW + MORE], left = WINDOW + 2;
	struct rig r;

	rig_open(&r, H, NULL);
	r.name = "window";
	for (uint32_t i = 0; i < WINDOW + MORE; i++) {
		started[i] = r.now_ns;
		rig_do(&r, (struct rig_step)LOAD(0, .page = i));
		if (i < WINDOW)
			rig_do(&r, (struct rig_step)READ(i + 1, .page = i));
		r.now_ns += 10 * US;
	}
	/* A store that comes while the read waits makes it an acquire; its place stays. */
	rig_do(&r, (struct rig_step)STORE(1, .page = WINDOW + 1));
	/* An answer frees its place, and the window has grown by a fraction of one more. */
	rig_do(&r, (struct rig_step)GRANT(1, V(5), .flags = ZERO));
	rig_do(&r, (struct rig_step)ACT(INSTALL, BY(1)));
	rig_do(&r, (struct rig_step)READ(WINDOW + 1, .page = WINDOW));
	rig_do(&r, (struct rig_step)ACQUIRE(WINDOW + 2, .page = WINDOW + 1));
	rig_do(&r, (struct rig_step)GRANT(2, V(5), .flags = ZERO, .page = 1));
	rig_do(&r, (struct rig_step)ACT(INSTALL, BY(1), .page = 1));
	rig_do(&r, (struct rig_step)READ(WINDOW + 3, .page = WINDOW + 2));
	/* The home is silent: what is tried again makes way for what waits, in order. */
	while (wvm_core_deadline(r.core) < started[2] + r.params.times.deadline_ns) {
		const struct wvm_action *a;

		rig_do(&r, (struct rig_step)DO(TICK));
		a = wvm_core_action(r.core);
		ck_assert(a && a->kind == WVM_ACT_SEND);
		ck_assert(a->page >= 2 && a->page <= left);
		while ((a = wvm_core_action(r.core))) {
			ck_assert_int_eq(a->kind, WVM_ACT_SEND);
			ck_assert_uint_eq(a->page, ++left);
		}
	}
	ck_assert_uint_eq(left, WINDOW + MORE - 1);
	rig_close(&r);
}
END_TEST

/* Word of no room on the way is like a timeout: what waits goes on waiting until half are answered.
 */
START_TEST(a_push_back_halves_the_window)
{
	enum { WINDOW = WVM_WINDOW_INITIAL / WVM_WINDOW_ONE };
	struct rig r;

	rig_open(&r, H, NULL);
	r.name = "push back";
	for (uint32_t i = 0; i <= WINDOW; i++) {
		rig_do(&r, (struct rig_step)LOAD(0, .page = i));
		if (i < WINDOW)
			rig_do(&r, (struct rig_step)READ(i + 1, .page = i));
	}
	r.now_ns += 10 * US;
	for (uint32_t member = 0; member < r.params.members->count; member++)
		if (member != r.params.self)
			wvm_core_pushed_back(r.core, r.now_ns, member);
	/* Half of the window, and a little that each answer adds. */
	for (uint32_t i = 0; i < WINDOW / 2 - 1; i++) {
		rig_do(&r, (struct rig_step)GRANT(i + 1, V(5), .flags = ZERO, .page = i));
		rig_do(&r, (struct rig_step)ACT(INSTALL, BY(1), .page = i));
	}
	rig_do(&r, (struct rig_step)GRANT(WINDOW / 2, V(5), .flags = ZERO, .page = WINDOW / 2 - 1));
	rig_do(&r, (struct rig_step)ACT(INSTALL, BY(1), .page = WINDOW / 2 - 1));
	rig_do(&r, (struct rig_step)READ(WINDOW + 1, .page = WINDOW));
	rig_close(&r);
}
END_TEST

START_TEST(a_request_in_the_window_queue_fails_at_its_deadline)
{
	enum { WINDOW = WVM_WINDOW_INITIAL / WVM_WINDOW_ONE };
	struct rig r;
	uint32_t failed = 0;

	rig_open(&r, H, NULL);
	r.name = "window queue";
	for (uint32_t i = 0; i < WINDOW; i++) {
		rig_do(&r, (struct rig_step)LOAD(0, .page = i));
		rig_do(&r, (struct rig_step)READ(i + 1, .page = i));
	}
	r.now_ns += MS;
	for (uint32_t i = WINDOW; i < 2 * WINDOW; i++)
		rig_do(&r, (struct rig_step)LOAD(0, .page = i));
	r.now_ns += MS;
	/* None is answered, so the window has shrunk to its least when the first ones fail. */
	while (wvm_core_deadline(r.core) != WVM_CORE_NEVER) {
		const struct wvm_action *a;

		r.now_ns = wvm_core_deadline(r.core);
		wvm_core_tick(r.core, r.now_ns);
		while ((a = wvm_core_action(r.core)))
			failed += a->kind == WVM_ACT_FAIL && a->waiters == 1;
	}
	ck_assert_uint_eq(failed, 2 * WINDOW);
	for (uint32_t i = 0; i < 2 * WINDOW; i++)
		ck_assert(!r.held[i].request);
	rig_do(&r, (struct rig_step)LOAD(0, .page = 7));
	ck_assert_ptr_nonnull(wvm_core_action(r.core));
	rig_close(&r);
}
END_TEST

/* What this node's own page costs: no window, since no network lies between. */
START_TEST(requests_to_the_own_home_need_no_window)
{
	struct rig r;

	rig_open(&r, RIG_SELF, NULL);
	r.name = "own home";
	for (uint32_t i = 0; i < 200; i++) {
		rig_do(&r, (struct rig_step)LOAD(0, .page = i));
		rig_do(&r,
		       (struct rig_step)SENT(MEM_READ, RIG_SELF, .request = OWN(i + 1), .page = i));
	}
	rig_close(&r);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, requests_beyond_the_window_wait_in_order);
	tcase_add_test(tc, a_push_back_halves_the_window);
	tcase_add_test(tc, a_request_in_the_window_queue_fails_at_its_deadline);
	tcase_add_test(tc, requests_to_the_own_home_need_no_window);
}

int main(void)
{
	return rig_main("window", add);
}

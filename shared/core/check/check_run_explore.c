/*
 * Runs of remote processors, all that can happen: an owner that takes three steps, now on one
 * slave, now on the other, and every order of messages delivered, lost and repeated, of timers,
 * kicks, refusals and slaves that begin another life, up to the bounds below, to a fixed point. No
 * step may be begun twice, whatever run it travelled in; an answer is of a step that was executed;
 * what was refused may go elsewhere.
 *
 * Time is not in the states: a timer that is set may fire at any moment, which is more than any
 * clock allows.
 */
#include <check.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/run.h"

#define STEPS   3u /* at most */
#define SLAVES  2u
#define FLYING  3u /* messages; what finds no room is lost, which is one more case */
#define SEGMENT 64u
#define RUN_LEN 70u /* two segments */
/* How many of each there are; more takes hours. */
static const struct bounds {
	unsigned steps, losses, repeats, restarts, refusals, kicks;
} bounds[] = {{3, 1, 1, 1, 1, 0}, {2, 1, 1, 1, 0, 1}};
static const struct bounds *most;

#define NEVER UINT64_MAX
#define PATH  127u
#define LATER (UINT64_C(1) << 50)

struct state {
	struct wvm_run_owner owner;
	struct wvm_run_slave slaves[SLAVES];
	uint64_t known[SLAVES]; /* the life of each slave that the owner has been told of */
	uint32_t flying;
	struct wvm_msg messages[FLYING];
	uint8_t step_of[16];  /* which step a seq is about */
	uint8_t begun[STEPS]; /* times, refusals taken back */
	uint8_t step, losses, repeats, restarts, refusals, kicks;
	bool stopped;
	/* How it came to this: choices. Not what it is. */
	_Alignas(8) uint8_t path_len;
	uint8_t path[PATH];
};
#define STATE_BYTES offsetof(struct state, path_len)

static uint8_t data[RUN_LEN], in[SLAVES + 1][WVM_RUN_MAX];

/* The states seen, by their hash of 128 bits, and those still to be looked at. */
static struct {
	uint64_t (*seen)[2];
	uint64_t room, count;
	struct state *todo;
	uint64_t head, tail, todo_room;
	uint64_t ends; /* states in which all steps are done */
} all;

static void must(bool holds, const struct state *s, const char *what)
{
	char path[PATH * 4 + 1] = "";

	if (holds)
		return;
	for (unsigned i = 0; i < s->path_len; i++)
		sprintf(path + strlen(path), " %u", s->path[i]);
	ck_abort_msg("%s: step %u, owner seq %llu state %u, slaves %u %u, after%s", what, s->step,
		     (unsigned long long)s->owner.seq, s->owner.state, s->slaves[0].state,
		     s->slaves[1].state, path);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 29;
}

static int by_content(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct wvm_msg));
}

/* What must not tell two states apart: clocks, and the order of what is in flight. */
static void normalize(struct state *s)
{
	struct wvm_run_owner *o = &s->owner;

	o->heard_ns = 0;
	o->retries = 0;
	o->retry_ns = 1;
	o->retry_at = o->state == WVM_RUN_IDLE ? NEVER : 1;
	if (o->done.at != NEVER)
		o->done.at = 1;
	for (unsigned i = 0; i < SLAVES; i++) {
		struct wvm_run_slave *v = &s->slaves[i];

		v->retry_ns = 1;
		v->retry_until = LATER;
		v->taken_at = v->taken_at == NEVER ? NEVER : 1;
		v->retry_at = v->retry_at == NEVER ? NEVER : 1;
	}
	memset(&s->messages[s->flying], 0, (FLYING - s->flying) * sizeof(s->messages[0]));
	qsort(s->messages, s->flying, sizeof(s->messages[0]), by_content);
}

static bool is_new(const struct state *s)
{
	const uint64_t *words = (const void *)s;
	uint64_t a = 1, b = 2, at;

	for (size_t i = 0; i < STATE_BYTES / 8; i++) {
		a = mix(a, words[i]);
		b = mix(b, words[i] ^ UINT64_C(0x5851f42d4c957f2d));
	}
	for (at = a % all.room; all.seen[at][0] | all.seen[at][1]; at = (at + 1) % all.room) {
		if (all.seen[at][0] == a && all.seen[at][1] == b)
			return false;
	}
	all.seen[at][0] = a;
	all.seen[at][1] = b;
	if (++all.count >= all.room / 2)
		ck_abort_msg("more than %llu states", (unsigned long long)all.count);
	return true;
}

static void found(struct state *s)
{
	normalize(s);
	if (!is_new(s))
		return;
	if (all.tail - all.head == all.todo_room)
		ck_abort_msg("more than %llu states wait", (unsigned long long)all.todo_room);
	all.todo[all.tail++ % all.todo_room] = *s;
}

static void put(struct state *s, const struct wvm_msg *m)
{
	if (s->flying < FLYING)
		memcpy(&s->messages[s->flying++], m, sizeof(*m));
}

static void all_send(struct state *s)
{
	const uint8_t *payload;
	struct wvm_msg m;

	memset(&m, 0, sizeof(m)); /* its padding is hashed */
	while (wvm_run_owner_next(&s->owner, &m, &payload))
		put(s, &m);
	for (unsigned i = 0; i < SLAVES; i++) {
		while (wvm_run_slave_next(&s->slaves[i], &m, &payload))
			put(s, &m);
	}
}

/* The present step, as another run. */
static void begin(struct state *s)
{
	unsigned node;

	if (s->step == most->steps || s->stopped)
		return;
	node = (unsigned)(s->owner.seq % SLAVES);
	wvm_run_begin(&s->owner, node + 1, s->known[node], data, RUN_LEN, 0);
	must(s->owner.seq < sizeof(s->step_of), s, "more runs than expected");
	s->step_of[s->owner.seq] = s->step;
}

static void owner_event(struct state *s, enum wvm_run_event event)
{
	switch (event) {
	case WVM_RUN_ANSWERED:
		must(s->owner.answer_len == RUN_LEN, s, "another answer");
		must(s->begun[s->step] == 1, s, "an answer to what was not executed once");
		s->step++;
		begin(s);
		break;
	case WVM_RUN_REFUSED:
		must(s->begun[s->step] == 0, s, "refused, but executed");
		begin(s);
		break;
	case WVM_RUN_LOST:
	case WVM_RUN_SILENT: s->stopped = true; break;
	default: break;
	}
}

static void slave_event(struct state *s, unsigned i, enum wvm_run_event event)
{
	struct wvm_run_slave *v = &s->slaves[i];

	if (event != WVM_RUN_START)
		return;
	must(v->in.len == RUN_LEN, s, "another run");
	must(++s->begun[s->step_of[v->seq]] == 1, s, "a step is begun twice");
}

static void deliver(struct state *s, unsigned which, bool keep)
{
	struct wvm_msg m = s->messages[which];

	if (!keep)
		s->messages[which] = s->messages[--s->flying];
	if (m.dst == 0)
		owner_event(s, wvm_run_owner_message(&s->owner, &m, data, 0));
	else
		slave_event(s, m.dst - 1,
			    wvm_run_slave_message(&s->slaves[m.dst - 1], &m, data, 0));
}

static void new_life(struct state *s, unsigned i)
{
	uint64_t life = s->slaves[i].life + 10;

	wvm_run_slave_init(&s->slaves[i], 1, 0, i + 1, life, SEGMENT, in[i]);
}

/* Whatever can happen next; false when there is no such choice. */
static bool happen(struct state *s, unsigned choice)
{
	unsigned which = choice % FLYING;

	switch (choice / FLYING) {
	case 0:
		if (which >= s->flying)
			return false;
		deliver(s, which, false);
		return true;
	case 1:
		if (which >= s->flying || s->repeats == most->repeats)
			return false;
		s->repeats++;
		deliver(s, which, true);
		return true;
	case 2:
		if (which >= s->flying || s->losses == most->losses)
			return false;
		s->losses++;
		s->messages[which] = s->messages[--s->flying];
		return true;
	case 3: /* 0, 1: answers; 2, 3: refusals */
		if (s->slaves[which % SLAVES].state != WVM_RUN_RUNNING)
			return false;
		if (which < SLAVES) {
			wvm_run_slave_answer(&s->slaves[which], data, RUN_LEN, 0);
			return true;
		}
		if (s->refusals == most->refusals)
			return false;
		s->refusals++;
		s->begun[s->step_of[s->slaves[which - SLAVES].seq]]--;
		wvm_run_slave_refuse(&s->slaves[which - SLAVES], WVM_RUN_BASE);
		return true;
	case 4: /* 0, 1: timers; 2, 3: other lives */
		if (which < SLAVES) {
			if (wvm_run_slave_deadline(&s->slaves[which]) == NEVER)
				return false;
			slave_event(s, which, wvm_run_slave_tick(&s->slaves[which], 1));
			return true;
		}
		if (s->restarts == most->restarts)
			return false;
		s->restarts++;
		new_life(s, which - SLAVES);
		return true;
	case 5:
		if (which == 0) { /* the owner's timer */
			if (wvm_run_owner_deadline(&s->owner) == NEVER)
				return false;
			owner_event(s, wvm_run_owner_tick(&s->owner, 1));
			return true;
		}
		if (which == 1) { /* the deadline */
			if (s->owner.state == WVM_RUN_IDLE)
				return false;
			owner_event(s, wvm_run_owner_tick(&s->owner, WVM_RUN_DEADLINE_NS));
			return true;
		}
		if (which == 2) {
			if (s->owner.state == WVM_RUN_IDLE || s->kicks == most->kicks ||
			    s->owner.kicked)
				return false;
			s->kicks++;
			wvm_run_owner_kick(&s->owner, 0);
			return true;
		}
		/* The owner is told of a new life, for its next run. */
		for (unsigned i = 0; i < SLAVES; i++) {
			if (s->known[i] != s->slaves[i].life) {
				s->known[i] = s->slaves[i].life;
				return true;
			}
		}
		return false;
	default: return false;
	}
}

#define CHOICES (6 * FLYING)

static void explore(void)
{
	static struct state s, next;

	memset(&s, 0, sizeof(s));
	wvm_run_owner_init(&s.owner, 1, 0, 0, 5, SEGMENT, in[SLAVES]);
	for (unsigned i = 0; i < SLAVES; i++) {
		wvm_run_slave_init(&s.slaves[i], 1, 0, i + 1, 100 + i, SEGMENT, in[i]);
		s.known[i] = 100 + i;
	}
	begin(&s);
	all_send(&s);
	found(&s);
	while (all.head < all.tail) {
		s = all.todo[all.head++ % all.todo_room];
		all.ends += s.step == most->steps;
		for (unsigned choice = 0; choice < CHOICES; choice++) {
			memcpy(&next, &s, sizeof(s));
			if (next.path_len < PATH)
				next.path[next.path_len++] = (uint8_t)choice;
			if (!happen(&next, choice))
				continue;
			all_send(&next);
			found(&next);
		}
	}
}

START_TEST(no_order_of_events_executes_a_step_twice)
{
	most = &bounds[_i];
	memset(&all, 0, sizeof(all));
	all.room = 1u << 24;
	all.todo_room = 1u << 20;
	all.seen = calloc(all.room, sizeof(all.seen[0]));
	all.todo = malloc(all.todo_room * sizeof(all.todo[0]));
	ck_assert(all.seen && all.todo);
	explore();
	printf("runs explored: %llu states, %llu of them with all steps done, 0 violations\n",
	       (unsigned long long)all.count, (unsigned long long)all.ends);
	ck_assert_uint_gt(all.ends, 0);
	free(all.seen);
	free(all.todo);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("run_explore");
	TCase *t = tcase_create("run_explore");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 300);
	tcase_add_loop_test(t, no_order_of_events_executes_a_step_twice, 0,
			    (int)(sizeof(bounds) / sizeof(bounds[0])));
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

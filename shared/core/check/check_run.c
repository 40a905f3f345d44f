/*
 * Runs of remote processors: one owner and two slaves over a network that loses, repeats and
 * reorders, with virtual time; slaves and the owner begin new lives. The properties are those
 * that a guest depends on: no run is executed twice, whoever executes; a refused one is never
 * executed; an answer is that of its run; and runs go on as long as messages pass.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/run.h"
#include "shared/wire.h"

#define MS       UINT64_C(1000000)
#define NEVER    UINT64_MAX
#define SLAVES   2
#define FLYING   4096
#define EXECUTED 65536
#define SEGMENT  1344u
#define OWNER_AT 0u
#define VM       7
#define VCPU     3

static uint64_t random_state;

static uint64_t random64(void) /* splitmix64 */
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static bool chance(unsigned permille)
{
	return random64() % 1000 < permille;
}

struct datagram {
	uint64_t at;
	struct wvm_msg m;
	uint8_t payload[SEGMENT];
};

struct slave {
	struct wvm_run_slave s;
	uint64_t life;
	uint64_t ends_at; /* of the run that it executes */
	bool kicked;
	uint8_t in[WVM_RUN_MAX], answer[WVM_RUN_MAX];
};

/* Who has executed what. */
struct executed {
	uint64_t owner_life, seq;
};

static struct world {
	uint64_t now;
	unsigned loss, duplicate;                            /* per mille */
	uint64_t delay;                                      /* at most */
	unsigned restart, owner_restart, stale_life, refuse; /* per mille, of runs */
	uint64_t long_run;                                   /* how long a run lasts at most */
	struct wvm_run_owner owner;
	uint64_t owner_life;
	uint8_t owner_in[WVM_RUN_MAX], run[WVM_RUN_MAX];
	uint32_t run_len;
	struct slave slaves[SLAVES];
	unsigned in_flight;
	unsigned executions, refusals;
	unsigned answered, lost, silent, kicks_seen;
	uint64_t last_life;
} w;

/* Filled as far as in_flight, executions and refusals say. */
static struct datagram flying[FLYING];
static struct executed executed[EXECUTED], refused[EXECUTED];

static uint64_t new_life(void)
{
	return ++w.last_life;
}

/* libcheck writes to a pipe at each of its assertions, also at one that holds. */
#define must(condition, ...)                       \
	do {                                       \
		if (!(condition))                  \
			ck_abort_msg(__VA_ARGS__); \
	} while (0)

static void send(const struct wvm_msg *m, const uint8_t *payload)
{
	unsigned copies = chance(w.loss) ? 0 : chance(w.duplicate) ? 2 : 1;

	must(wvm_wire_check(m) == WVM_DROP_NONE, "%s would be dropped for %s",
	     wvm_msg_name(m->type), wvm_drop_name(wvm_wire_check(m)));
	must(m->payload_len <= SEGMENT, "a segment of %u bytes", m->payload_len);
	while (copies--) {
		struct datagram *d = &flying[w.in_flight++];

		must(w.in_flight < FLYING, "too many datagrams");
		d->at = w.now + 1000 + random64() % w.delay;
		d->m = *m;
		if (m->payload_len)
			memcpy(d->payload, payload, m->payload_len);
	}
}

static void owner_sends(void)
{
	struct wvm_msg m;
	const uint8_t *payload;

	while (wvm_run_owner_next(&w.owner, &m, &payload))
		send(&m, payload);
}

static void slave_sends(struct slave *s)
{
	struct wvm_msg m;
	const uint8_t *payload;

	while (wvm_run_slave_next(&s->s, &m, &payload))
		send(&m, payload);
}

static void slave_begins(unsigned i)
{
	struct slave *s = &w.slaves[i];

	s->life = new_life();
	s->ends_at = NEVER;
	wvm_run_slave_init(&s->s, VM, VCPU, i + 1, s->life, SEGMENT, s->in);
}

static void owner_begins(void)
{
	w.owner_life = new_life();
	wvm_run_owner_init(&w.owner, VM, VCPU, OWNER_AT, w.owner_life, SEGMENT, w.owner_in);
}

/* What an engine makes of a run: each byte, seen from the other end, and turned. */
static void answer_of(uint8_t *out, const uint8_t *run, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		out[i] = run[len - 1 - i] ^ 0x5a;
}

static void next_run(void)
{
	unsigned i = random64() % SLAVES;
	uint64_t life = w.slaves[i].life;

	if (chance(w.stale_life))
		slave_begins(i);
	w.run_len = 1 + (uint32_t)(random64() % (chance(100) ? WVM_RUN_MAX : 900));
	for (uint32_t k = 0; k < w.run_len; k++)
		w.run[k] = (uint8_t)random64();
	wvm_run_begin(&w.owner, i + 1, life, w.run, w.run_len, w.now);
	if (chance(100))
		wvm_run_owner_kick(&w.owner, w.now);
	owner_sends();
}

static void start(struct slave *s)
{
	struct executed *e = &executed[w.executions++];

	must(w.executions < EXECUTED, "too many runs");
	e->owner_life = s->s.owner_life;
	e->seq = s->s.seq;
	if (s->s.owner_life == w.owner_life && s->s.seq == w.owner.seq) {
		ck_assert_uint_eq(s->s.in.len, w.run_len);
		ck_assert_mem_eq(s->s.in.buf, w.run, w.run_len);
	}
	if (chance(w.refuse)) {
		w.executions--;
		refused[w.refusals++] = *e;
		must(w.refusals < EXECUTED, "too many refusals");
		wvm_run_slave_refuse(&s->s, WVM_RUN_BASE);
		return;
	}
	answer_of(s->answer, s->s.in.buf, s->s.in.len);
	s->ends_at = w.now + random64() % w.long_run;
}

static void slave_event(struct slave *s, enum wvm_run_event event)
{
	if (event == WVM_RUN_START) {
		start(s);
		if (s->ends_at != NEVER && wvm_run_slave_kicked(&s->s))
			event = WVM_RUN_KICK;
	}
	if ((event == WVM_RUN_KICK || event == WVM_RUN_ABORT) && s->ends_at > w.now + MS) {
		w.kicks_seen++;
		s->ends_at = w.now + MS;
	}
	slave_sends(s);
}

static void owner_event(enum wvm_run_event event)
{
	static uint8_t expected[WVM_RUN_MAX];

	owner_sends();
	switch (event) {
	case WVM_RUN_ANSWERED:
		answer_of(expected, w.run, w.run_len);
		ck_assert_uint_eq(w.owner.answer_len, w.run_len);
		ck_assert_mem_eq(w.owner_in, expected, w.run_len);
		w.answered++;
		break;
	case WVM_RUN_REFUSED:
		ck_assert_uint_eq(w.owner.reason == WVM_RUN_BASE || w.owner.reason == WVM_RUN_BUSY,
				  1);
		refused[w.refusals++] = (struct executed){w.owner_life, w.owner.seq};
		must(w.refusals < EXECUTED, "too many refusals");
		break;
	/* The VM has to stop; another one begins. */
	case WVM_RUN_LOST:
		w.lost++;
		owner_begins();
		break;
	case WVM_RUN_SILENT:
		w.silent++;
		owner_begins();
		break;
	default: return;
	}
	if (chance(w.restart))
		slave_begins(random64() % SLAVES);
	if (chance(w.owner_restart))
		owner_begins();
	next_run();
}

static void arrive(struct datagram *d)
{
	if (d->m.dst == OWNER_AT) {
		owner_event(wvm_run_owner_message(&w.owner, &d->m, d->payload, w.now));
	} else {
		struct slave *s = &w.slaves[d->m.dst - 1];

		slave_event(s, wvm_run_slave_message(&s->s, &d->m, d->payload, w.now));
	}
}

/* The earliest of all that is to come happens. */
static void step(void)
{
	uint64_t at = wvm_run_owner_deadline(&w.owner);
	unsigned first = FLYING;

	for (unsigned i = 0; i < w.in_flight; i++) {
		if (flying[i].at < at) {
			at = flying[i].at;
			first = i;
		}
	}
	for (unsigned i = 0; i < SLAVES; i++) {
		struct slave *s = &w.slaves[i];

		if (s->ends_at <= at) {
			w.now = s->ends_at > w.now ? s->ends_at : w.now;
			s->ends_at = NEVER;
			wvm_run_slave_answer(&s->s, s->answer, s->s.in.len, w.now);
			slave_sends(s);
			return;
		}
		if (wvm_run_slave_deadline(&s->s) < at) {
			w.now = wvm_run_slave_deadline(&s->s);
			slave_event(s, wvm_run_slave_tick(&s->s, w.now));
			return;
		}
	}
	must(at != NEVER, "nothing will ever happen again");
	w.now = at;
	if (first < FLYING) {
		struct datagram d = flying[first];

		flying[first] = flying[--w.in_flight];
		arrive(&d);
	} else {
		owner_event(wvm_run_owner_tick(&w.owner, w.now));
	}
}

static int by_run(const void *a, const void *b)
{
	const struct executed *x = a, *y = b;

	if (x->owner_life != y->owner_life)
		return x->owner_life < y->owner_life ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static void check_history(void)
{
	qsort(executed, w.executions, sizeof(executed[0]), by_run);
	for (unsigned i = 1; i < w.executions; i++)
		must(by_run(&executed[i - 1], &executed[i]),
		     "run %llu of life %llu was executed twice",
		     (unsigned long long)executed[i].seq,
		     (unsigned long long)executed[i].owner_life);
	for (unsigned i = 0; i < w.refusals; i++)
		must(!bsearch(&refused[i], executed, w.executions, sizeof(executed[0]), by_run),
		     "run %llu of life %llu was refused, and executed",
		     (unsigned long long)refused[i].seq, (unsigned long long)refused[i].owner_life);
}

static void world(uint64_t seed)
{
	memset(&w, 0, sizeof(w));
	random_state = seed;
	w.now = 1;
	w.delay = 200000;
	w.long_run = 50000;
	for (unsigned i = 0; i < SLAVES; i++)
		slave_begins(i);
	owner_begins();
}

static void run_until(unsigned answered, unsigned most)
{
	next_run();
	for (unsigned i = 0; w.answered < answered; i++) {
		must(i < most, "%u runs after %u steps", w.answered, i);
		step();
	}
	check_history();
}

START_TEST(a_quiet_network_needs_two_messages_a_run)
{
	world(1);
	w.delay = 10000;
	next_run();
	for (unsigned i = 0; w.answered < 1000; i++)
		step();
	check_history();
	ck_assert_uint_eq(w.owner.retries, 0);
	ck_assert_uint_eq(w.executions,
			  1000 + (w.slaves[0].ends_at != NEVER) + (w.slaves[1].ends_at != NEVER));
}
END_TEST

START_TEST(each_run_is_executed_once_whatever_the_network_does)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		world(seed);
		w.loss = (unsigned)(seed % 4) * 100;
		w.duplicate = (unsigned)(seed % 3) * 150;
		w.delay = seed % 5 ? 200000 : 60 * MS;
		w.long_run = seed % 2 ? 100000 : 40 * MS;
		run_until(500, 2000000);
		/* Nobody began another life: nothing is lost, and nothing is given up. */
		ck_assert_uint_eq(w.lost + w.silent, 0);
	}
}
END_TEST

START_TEST(and_whoever_begins_another_life)
{
	unsigned lost = 0, refusals = 0;

	for (uint64_t seed = 0; seed < 40; seed++) {
		world(1000 + seed);
		w.loss = 100;
		w.duplicate = 300;
		w.delay = seed % 2 ? 300000 : 80 * MS;
		w.long_run = seed % 3 ? 300000 : 100 * MS;
		w.restart = 100;
		w.owner_restart = 50;
		w.stale_life = 50;
		w.refuse = 100;
		run_until(500, 2000000);
		lost += w.lost;
		refusals += w.refusals;
		ck_assert_uint_eq(w.silent, 0);
	}
	ck_assert_uint_gt(lost, 100);
	ck_assert_uint_gt(refusals, 100);
}
END_TEST

START_TEST(a_kick_ends_a_long_run_also_when_it_is_lost_or_early)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		uint64_t begun;

		world(2000 + seed);
		w.loss = seed % 2 ? 300 : 0;
		w.delay = seed % 3 ? 100000 : 30 * MS;
		w.long_run = UINT64_C(3600000) * MS;
		next_run();
		wvm_run_owner_kick(&w.owner, w.now);
		begun = w.now;
		while (w.answered < 100) {
			if (w.owner.state != WVM_RUN_IDLE && !w.owner.kicked) {
				wvm_run_owner_kick(&w.owner, w.now);
				owner_sends();
			}
			step();
		}
		ck_assert_uint_eq(w.silent + w.lost, 0);
		ck_assert_uint_lt(w.now - begun, 100 * 2000 * MS);
		check_history();
	}
}
END_TEST

START_TEST(a_run_of_an_hour_is_not_given_up)
{
	world(3000);
	w.loss = 200;
	w.long_run = UINT64_C(7200000) * MS;
	run_until(8, 2000000);
	ck_assert_uint_gt(w.now, 3600000 * MS);
	ck_assert_uint_eq(w.silent + w.lost, 0);
}
END_TEST

START_TEST(silence_ends_the_run_at_the_deadline)
{
	enum wvm_run_event event = WVM_RUN_NOTHING;
	struct wvm_msg m;
	const uint8_t *payload;
	unsigned runs = 0;

	world(4000);
	wvm_run_begin(&w.owner, 1, w.slaves[0].life, w.run, 100, w.now);
	while (event == WVM_RUN_NOTHING) {
		while (wvm_run_owner_next(&w.owner, &m, &payload))
			runs += m.type == WVM_MSG_VCPU_RUN;
		w.now = wvm_run_owner_deadline(&w.owner);
		event = wvm_run_owner_tick(&w.owner, w.now);
	}
	ck_assert_uint_eq(event, WVM_RUN_SILENT);
	ck_assert_uint_eq(w.now, 1 + WVM_RUN_DEADLINE_NS);
	/* 20, 40, … 320 ms, then twice a second. */
	ck_assert_uint_ge(runs, 12);
	ck_assert_uint_le(runs, 16);
	ck_assert_uint_eq(wvm_run_owner_deadline(&w.owner), NEVER);
}
END_TEST

START_TEST(an_owner_that_began_anew_waits_for_what_still_runs)
{
	struct slave *s = &w.slaves[0];
	struct datagram late;

	world(5000);
	w.long_run = 1;
	wvm_run_begin(&w.owner, 1, s->life, w.run, 100, w.now);
	owner_sends();
	ck_assert_uint_eq(wvm_run_slave_message(&s->s, &flying[0].m, flying[0].payload, 5),
			  WVM_RUN_START);
	owner_begins();
	w.in_flight = 0;
	wvm_run_begin(&w.owner, 1, s->life, w.run, 100, w.now);
	owner_sends();
	ck_assert_uint_eq(wvm_run_slave_message(&s->s, &flying[0].m, flying[0].payload, 6),
			  WVM_RUN_ABORT);
	late = flying[0];
	w.in_flight = 0;
	slave_sends(s);
	ck_assert_uint_eq(wvm_run_owner_message(&w.owner, &flying[0].m, NULL, 7), WVM_RUN_REFUSED);
	ck_assert_uint_eq(w.owner.reason, WVM_RUN_BUSY);
	/* What nobody waits for is not sent. */
	wvm_run_slave_answer(&s->s, s->answer, 100, 8);
	w.in_flight = 0;
	slave_sends(s);
	ck_assert_uint_eq(w.in_flight, 0);
	/* The owner has been told that its first run is not executed: so it is not, late as it
	 * comes. */
	ck_assert_uint_eq(wvm_run_slave_message(&s->s, &late.m, late.payload, 9), WVM_RUN_NOTHING);
	slave_sends(s);
	ck_assert_uint_eq(w.in_flight, 1);
	ck_assert_uint_eq(flying[0].m.type, WVM_MSG_VCPU_EXIT);
	ck_assert_uint_eq(wvm_run_reason(&flying[0].m), WVM_RUN_BUSY);
	w.in_flight = 0;
	wvm_run_begin(&w.owner, 1, s->life, w.run, 100, w.now);
	owner_sends();
	ck_assert_uint_eq(wvm_run_slave_message(&s->s, &flying[0].m, flying[0].payload, 9),
			  WVM_RUN_START);
}
END_TEST

/* What fits no run of this sender changes nothing, byte by byte. */
START_TEST(segments_that_do_not_fit_are_left)
{
	struct slave *s = &w.slaves[0];
	struct wvm_msg m = {.type = WVM_MSG_VCPU_RUN,
			    .vm_id = VM,
			    .src = OWNER_AT,
			    .dst = 1,
			    .request = 1,
			    .gpa = VCPU,
			    .version = 100,
			    .seg_total = 256,
			    .payload_len = 128};
	struct wvm_msg other;
	uint8_t payload[256] = {1};

	world(6000);
	m.grant = s->life;
	ck_assert_uint_eq(wvm_run_slave_message(&s->s, &m, payload, 1), WVM_RUN_NOTHING);
	ck_assert_uint_eq(s->s.in.units, 2);
#define LEFT(field, value)                                                          \
	do {                                                                        \
		other = m;                                                          \
		other.seg_offset = 128;                                             \
		other.field = value;                                                \
		ck_assert_uint_eq(wvm_run_slave_message(&s->s, &other, payload, 2), \
				  WVM_RUN_NOTHING);                                 \
		ck_assert_uint_eq(s->s.in.units, 2);                                \
		ck_assert_uint_eq(s->s.in.len, 0);                                  \
	} while (0)
	LEFT(seg_total, 320);              /* another length */
	LEFT(seg_total, WVM_RUN_MAX + 64); /* longer than a run */
	LEFT(payload_len, 0);
	LEFT(payload_len, 60);  /* neither the last nor of whole units */
	LEFT(payload_len, 192); /* beyond the end */
	LEFT(seg_offset, 32);   /* between units */
	LEFT(vm_id, VM + 1);
	LEFT(gpa, VCPU + 1);
	LEFT(src, 2);
	LEFT(dst, 2);
	LEFT(version, 99);
	LEFT(request, 0);
	LEFT(grant, s->life + 1);
	m.seg_offset = 128;
	m.payload_len = 70;
	ck_assert_uint_eq(wvm_run_slave_message(&s->s, &m, payload, 3), WVM_RUN_START);
	ck_assert_uint_eq(s->s.in.len, 198);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("run");
	TCase *t = tcase_create("run");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 300);
	tcase_add_test(t, a_quiet_network_needs_two_messages_a_run);
	tcase_add_test(t, each_run_is_executed_once_whatever_the_network_does);
	tcase_add_test(t, and_whoever_begins_another_life);
	tcase_add_test(t, a_kick_ends_a_long_run_also_when_it_is_lost_or_early);
	tcase_add_test(t, a_run_of_an_hour_is_not_given_up);
	tcase_add_test(t, silence_ends_the_run_at_the_deadline);
	tcase_add_test(t, an_owner_that_began_anew_waits_for_what_still_runs);
	tcase_add_test(t, segments_that_do_not_fit_are_left);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

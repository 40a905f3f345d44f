/* Gossip: one object. What it keeps, what it believes, and what it does with what is not for it. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/gossip.h"

#define MS    UINT64_C(1000000)
#define SELF  1000u
#define FIRST 1000u /* ids of its pod */
#define POD   50u
#define ROOM  64u

static struct wvm_gossip_config config;
static struct wvm_gossip *g;
static struct wvm_gossip_action actions[200]; /* since it was last driven */
static uint32_t count;
static uint64_t now;

static void drain(void)
{
	count = 0;
	while (wvm_gossip_next(g, &actions[count]))
		ck_assert_uint_lt(++count, 199);
}

/* The first message of a kind, or to that node; NULL: none. */
static const struct wvm_gossip_action *sent(uint8_t kind)
{
	for (uint32_t i = 0; i < count; i++) {
		if (actions[i].act == WVM_GOSSIP_SEND && actions[i].msg.kind == kind)
			return &actions[i];
	}
	return NULL;
}

static const struct wvm_gossip_action *noted(uint32_t node)
{
	for (uint32_t i = 0; i < count; i++) {
		if (actions[i].act == WVM_GOSSIP_NOTE && actions[i].node == node)
			return &actions[i];
	}
	return NULL;
}

static void setup(void)
{
	struct wvm_gossip_self self = {.node = SELF,
				       .first = FIRST,
				       .count = POD,
				       .ip = 0x0a000001,
				       .port = 9001,
				       .incarnation = wvm_gossip_incarnation(1),
				       .epoch = 5};

	now = 1000 * MS;
	wvm_gossip_defaults(&config);
	g = wvm_gossip_init(malloc(wvm_gossip_bytes(ROOM)), ROOM, &config, &self, 1, now);
}

static void teardown(void)
{
	free(g);
}

static struct wvm_gossip_entry entry(uint32_t node, uint32_t incarnation, uint8_t status)
{
	return (struct wvm_gossip_entry){.node = node,
					 .incarnation = incarnation,
					 .ip = 0x0b000000 + node,
					 .port = 9001,
					 .status = status,
					 .life = WVM_NODE_ACTIVE};
}

static void add(uint32_t node)
{
	struct wvm_gossip_entry e = entry(node, 10, WVM_GOSSIP_ALIVE);

	ck_assert(wvm_gossip_add(g, &e, now));
}

static struct wvm_gossip_msg message(uint32_t from, uint8_t kind)
{
	return (struct wvm_gossip_msg){
		.kind = kind,
		.life = WVM_NODE_ACTIVE,
		.port = 9001,
		.ip = 0x0b000000 + from,
		.epoch = 5,
		.incarnation = 10,
		.seq = kind != WVM_GOSSIP_NEWS && kind != WVM_GOSSIP_ANNOUNCE,
	};
}

static enum wvm_drop take(uint32_t from, const struct wvm_gossip_msg *m)
{
	enum wvm_drop drop;

	ck_assert(wvm_gossip_msg_check(m));
	drop = wvm_gossip_message(g, from, m, now);
	drain();
	return drop;
}

static enum wvm_drop tell(uint32_t from, struct wvm_gossip_entry e)
{
	struct wvm_gossip_msg m = message(from, WVM_GOSSIP_NEWS);

	m.count = 1;
	m.entry[0] = e;
	return take(from, &m);
}

static uint8_t status(uint32_t node)
{
	const struct wvm_gossip_peer *p = wvm_gossip_find(g, node);

	return p ? p->status : 0;
}

/* To the deadline, and its tick. */
static void tick(void)
{
	ck_assert(wvm_gossip_deadline(g) != UINT64_MAX);
	if (wvm_gossip_deadline(g) > now)
		now = wvm_gossip_deadline(g);
	wvm_gossip_tick(g, now);
	drain();
}

static void pass(uint64_t ns)
{
	uint64_t until = now + ns;

	while (wvm_gossip_deadline(g) <= until)
		tick();
	now = until;
}

static uint32_t in_pod(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < g->count; i++)
		n += g->peer[i].node - FIRST < POD;
	return n;
}

START_TEST(a_full_view_keeps_its_pod_and_a_sample_of_others)
{
	uint64_t mean = 0;

	for (uint32_t i = 0; i < 100000; i++)
		tell(FIRST + POD + i, entry(0, 1, WVM_GOSSIP_ALIVE));
	ck_assert_uint_eq(g->count, ROOM);
	ck_assert_uint_gt(g->counters.full, 0);
	/* Members come later, and find room. */
	for (uint32_t i = 1; i < POD; i++)
		tell(FIRST + i, entry(FIRST + i, 10, WVM_GOSSIP_ALIVE));
	ck_assert_uint_eq(g->count, ROOM);
	ck_assert_uint_eq(in_pod(), POD - 1);
	ck_assert_uint_eq(g->members, POD - 1);
	ck_assert_uint_eq(g->others, ROOM - POD + 1);
	/* The sample is not the first ones, nor the last. */
	for (uint32_t i = 0; i < g->count; i++)
		mean += g->peer[i].node - FIRST < POD ? 0 : g->peer[i].node;
	mean /= g->others;
	ck_assert_uint_gt(mean, 20000);
	ck_assert_uint_lt(mean, 80000);
	/* Whoever comes again and again does not push others out. */
	for (uint32_t i = 0; i < 1000; i++)
		tell(FIRST + POD + i % 10, entry(0, 1, WVM_GOSSIP_ALIVE));
	ck_assert_uint_eq(in_pod(), POD - 1);
	ck_assert_uint_eq(g->count, ROOM);
}
END_TEST

/* Add and take away at random, against a plain list. */
START_TEST(the_view_is_what_was_put_into_it)
{
	bool in[POD] = {false};
	uint32_t random = 1, there;

	for (uint32_t step = 0; step < 20000; step++) {
		uint32_t i;

		random = random * 1664525 + 1013904223;
		i = 1 + (random >> 8) % (POD - 1);
		if (in[i]) {
			wvm_gossip_remove(g, FIRST + i);
		} else if (random >> 31) {
			add(FIRST + i);
		} else {
			tell(FIRST + i, entry(FIRST + i, 10, WVM_GOSSIP_ALIVE));
		}
		in[i] = !in[i];
		if (step % 7 == 0) {
			now += 100 * MS;
			wvm_gossip_tick(g, now);
			drain();
		}
		there = 0;
		for (uint32_t k = 1; k < POD; k++) {
			ck_assert(in[k] == !!wvm_gossip_find(g, FIRST + k));
			there += in[k];
		}
		ck_assert_uint_eq(g->count, there);
		ck_assert_uint_eq(g->members, there);
	}
}
END_TEST

START_TEST(later_word_counts_and_earlier_does_not)
{
	add(1001);
	add(1002);
	tell(1002, entry(1001, 10, WVM_GOSSIP_SUSPECT));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_SUSPECT);
	ck_assert(noted(1001) && noted(1001)->status == WVM_GOSSIP_SUSPECT);
	tell(1002, entry(1001, 10, WVM_GOSSIP_ALIVE));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_SUSPECT);
	tell(1002, entry(1001, 11, WVM_GOSSIP_ALIVE));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_ALIVE);
	tell(1002, entry(1001, 10, WVM_GOSSIP_DEAD));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_ALIVE);
	ck_assert(!noted(1001));
	/* A verdict begins as a suspicion, and holds when that is two periods old. */
	tell(1002, entry(1001, 11, WVM_GOSSIP_DEAD));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_SUSPECT);
	tell(1002, entry(1001, 11, WVM_GOSSIP_DEAD));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_SUSPECT);
	pass(1000 * MS);
	tell(1002, entry(1001, 11, WVM_GOSSIP_DEAD));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_DEAD);
	tell(1002, entry(1001, 11, WVM_GOSSIP_ALIVE));
	tell(1002, entry(1001, 11, WVM_GOSSIP_SUSPECT));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_DEAD);
	/* Its own word of a later life. */
	tell(1001, entry(1002, 10, WVM_GOSSIP_ALIVE));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_DEAD);
	tell(1002, entry(1001, 12, WVM_GOSSIP_ALIVE));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_ALIVE);
}
END_TEST

START_TEST(the_dead_that_talk_hear_that_they_are_dead)
{
	struct wvm_gossip_entry gone = entry(1001, 10, WVM_GOSSIP_DEAD);
	struct wvm_gossip_msg m = message(1001, WVM_GOSSIP_PULL);

	add(1001);
	add(1002);
	tell(1002, gone);
	pass(1000 * MS);
	tell(1002, gone);
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_DEAD);
	take(1001, &m);
	ck_assert(sent(WVM_GOSSIP_VIEW) && sent(WVM_GOSSIP_NEWS));
	ck_assert_uint_eq(sent(WVM_GOSSIP_NEWS)->node, 1001);
	ck_assert_uint_eq(sent(WVM_GOSSIP_NEWS)->msg.entry[0].node, 1001);
	ck_assert_uint_eq(sent(WVM_GOSSIP_NEWS)->msg.entry[0].status, WVM_GOSSIP_DEAD);
}
END_TEST

START_TEST(what_is_said_of_this_node_it_knows_better)
{
	add(1001);
	tell(1001, entry(SELF, wvm_gossip_incarnation(1), WVM_GOSSIP_SUSPECT));
	ck_assert_uint_eq(g->self.incarnation, wvm_gossip_incarnation(1) + 1);
	ck_assert_uint_eq(g->counters.refuted, 1);
	ck_assert(!wvm_gossip_find(g, SELF));
	tell(1001, entry(SELF, wvm_gossip_incarnation(1), WVM_GOSSIP_DEAD)); /* old */
	ck_assert_uint_eq(g->counters.refuted, 1);
	/* Nothing makes the number wrap. */
	tell(1001, entry(SELF, WVM_GOSSIP_INCARNATION_MAX, WVM_GOSSIP_DEAD));
	ck_assert_uint_eq(g->self.incarnation, wvm_gossip_incarnation(1) + 1);
	tell(1001, entry(SELF, wvm_gossip_incarnation(9), WVM_GOSSIP_ALIVE));
	ck_assert_uint_eq(g->counters.conflicts, 1); /* from another address */
}
END_TEST

START_TEST(what_is_not_for_it_changes_nothing)
{
	static const uint8_t members_only[] = {WVM_GOSSIP_PROBE, WVM_GOSSIP_ACK,
					       WVM_GOSSIP_PROBE_FOR, WVM_GOSSIP_NACK};
	struct wvm_gossip_msg m = message(1001, WVM_GOSSIP_PROBE);

	add(1001);
	ck_assert_int_eq(take(SELF, &m), WVM_DROP_SOURCE);
	ck_assert_uint_eq(g->counters.conflicts, 1);
	m.tier = m.top = 1;
	ck_assert_int_eq(take(1001, &m), WVM_DROP_NODE);
	ck_assert_uint_eq(count, 0);
	for (uint32_t i = 0; i < sizeof(members_only); i++) {
		m = message(7, members_only[i]);
		ck_assert_int_eq(take(7, &m), WVM_DROP_NODE);
		ck_assert(!sent(WVM_GOSSIP_ACK));
	}
	m = message(1001, WVM_GOSSIP_VIEW); /* nobody asked */
	m.count = 1;
	m.target = WVM_NODE_MAX;
	m.entry[0] = entry(1003, 1, WVM_GOSSIP_ALIVE);
	ck_assert_int_eq(take(1001, &m), WVM_DROP_STALE);
	ck_assert_uint_eq(status(1003), 0);
	m = message(1001, WVM_GOSSIP_ACK);
	ck_assert_int_eq(take(1001, &m), WVM_DROP_STALE);
	m = message(1001, WVM_GOSSIP_PROBE_FOR);
	m.target = 1040; /* unknown */
	ck_assert_int_eq(take(1001, &m), WVM_DROP_NODE);
	/* An outsider's accusation of a member. */
	tell(7, entry(1001, 10, WVM_GOSSIP_SUSPECT));
	ck_assert_uint_eq(status(1001), WVM_GOSSIP_ALIVE);
}
END_TEST

START_TEST(probes_for_others_are_bounded)
{
	struct wvm_gossip_msg m = message(1001, WVM_GOSSIP_PROBE_FOR);

	add(1001);
	add(1002);
	m.target = 1002;
	for (uint32_t i = 0; i < WVM_GOSSIP_RELAYS; i++) {
		m.seq = i + 1;
		ck_assert_int_eq(take(1001, &m), WVM_DROP_NONE);
		ck_assert(sent(WVM_GOSSIP_PROBE) && sent(WVM_GOSSIP_PROBE)->node == 1002);
	}
	ck_assert_int_eq(take(1001, &m), WVM_DROP_ROOM);
	/* The answer, by the seq of the relay; then the NACKs of the rest. */
	m = message(1002, WVM_GOSSIP_ACK);
	m.seq = g->relay[2].seq;
	m.target = 1002;
	ck_assert_int_eq(take(1002, &m), WVM_DROP_NONE);
	ck_assert_uint_eq(sent(WVM_GOSSIP_ACK)->node, 1001);
	ck_assert_uint_eq(sent(WVM_GOSSIP_ACK)->msg.seq, 3);
	ck_assert_int_eq(take(1002, &m), WVM_DROP_STALE);
	while (!sent(WVM_GOSSIP_NACK))
		tick();
	ck_assert_uint_eq(count, WVM_GOSSIP_RELAYS - 1);
	ck_assert_uint_eq(sent(WVM_GOSSIP_NACK)->node, 1001);
}
END_TEST

START_TEST(a_view_is_asked_for_part_by_part)
{
	struct wvm_gossip_msg m;
	uint32_t seen = 0, parts = 0;

	config.mtu = WVM_MTU_MIN; /* 24 entries */
	for (uint32_t i = 1; i < POD; i++)
		add(FIRST + i);
	m = message(1001, WVM_GOSSIP_PULL);
	do {
		const struct wvm_gossip_action *a;

		take(1001, &m);
		a = sent(WVM_GOSSIP_VIEW);
		ck_assert(a && wvm_gossip_msg_check(&a->msg) && a->msg.seq == m.seq);
		ck_assert_uint_le(a->msg.count, 24);
		for (uint32_t i = 0; i < a->msg.count; i++)
			ck_assert_uint_eq(a->msg.entry[i].node, FIRST + 1 + seen++);
		m.target = a->msg.target;
		parts++;
	} while (m.target < WVM_NODE_MAX);
	ck_assert_uint_eq(seen, POD - 1);
	ck_assert_uint_eq(parts, 3);
}
END_TEST

START_TEST(an_answer_that_is_lost_is_asked_for_again_and_then_given_up)
{
	uint32_t asked = 0;

	add(7); /* an other: forgotten when it is silent */
	wvm_gossip_announce(g, WVM_NODE_ACTIVE, now);
	drain();
	for (uint32_t i = 0; i < 20 && wvm_gossip_find(g, 7); i++) {
		tick();
		asked += sent(WVM_GOSSIP_PULL) != NULL;
	}
	ck_assert_uint_eq(asked, 3);
	ck_assert(!wvm_gossip_find(g, 7));
}
END_TEST

START_TEST(an_epoch_is_told_when_it_was_learnt_and_not_when_it_was_heard)
{
	struct wvm_gossip_msg m = message(1001, WVM_GOSSIP_NEWS);

	add(1001);
	m.epoch = UINT32_MAX; /* it lies */
	take(1001, &m);
	ck_assert_uint_eq(count, 1);
	ck_assert_int_eq(actions[0].act, WVM_GOSSIP_EPOCH);
	ck_assert_uint_eq(actions[0].epoch, UINT32_MAX);
	ck_assert_uint_eq(actions[0].node, 1001);
	ck_assert_uint_eq(g->self.epoch, 5);
	m.epoch = 6; /* and does not hide what is true */
	take(1001, &m);
	ck_assert_uint_eq(actions[0].epoch, 6);
	wvm_gossip_epoch(g, 6, now);
	tick();
	ck_assert(sent(WVM_GOSSIP_NEWS) && sent(WVM_GOSSIP_NEWS)->msg.epoch == 6);
	m.epoch = 6;
	take(1001, &m);
	ck_assert_uint_eq(count, 0);
}
END_TEST

/* What a peer says of itself. */
static void say(uint32_t from, uint32_t incarnation, uint32_t epoch, bool busy)
{
	struct wvm_gossip_msg m = message(from, WVM_GOSSIP_NEWS);

	m.incarnation = incarnation;
	m.epoch = epoch;
	m.busy = busy;
	m.health = 2;
	take(from, &m);
}

static void check_word(uint32_t node, uint32_t epoch, bool busy)
{
	const struct wvm_gossip_peer *p = wvm_gossip_find(g, node);

	ck_assert_uint_eq(p->epoch, epoch);
	ck_assert_uint_eq(p->busy, busy);
	ck_assert_uint_eq(p->health, epoch ? 2 : 0);
}

START_TEST(who_is_busy_is_known_by_its_own_word_of_its_present_life)
{
	const uint32_t one = wvm_gossip_incarnation(1), two = wvm_gossip_incarnation(2);

	add(1001);
	add(1002);
	check_word(1001, 0, false);
	say(1001, one, 4, true);
	check_word(1001, 4, true);
	check_word(1002, 0, false);
	say(1001, one, 5, false);
	check_word(1001, 5, false);
	say(1001, one, 5, true);
	/* Others accuse it, and tell of its refutation and of its life: it has said nothing new. */
	tell(1002, entry(1001, one, WVM_GOSSIP_SUSPECT));
	check_word(1001, 5, true);
	tell(1002, entry(1001, one + 1, WVM_GOSSIP_ALIVE));
	check_word(1001, 5, true);
	say(1002, one, 3, false);
	check_word(1001, 5, true);
	/* They tell that it began anew: of that life nothing is known, whatever comes late. */
	tell(1002, entry(1001, two, WVM_GOSSIP_ALIVE));
	check_word(1001, 0, false);
	say(1001, one + 1, 5, false);
	check_word(1001, 0, false);
	say(1001, two, 5, true);
	check_word(1001, 5, true);
	say(1001, one + 1, 5, false);
	check_word(1001, 5, true);
	/* And by itself. */
	say(1001, wvm_gossip_incarnation(3), 5, false);
	check_word(1001, 5, false);
	check_word(1002, 3, false);
	/* Forgotten, it has said nothing. */
	wvm_gossip_remove(g, 1001);
	tell(1002, entry(1001, wvm_gossip_incarnation(3), WVM_GOSSIP_ALIVE));
	check_word(1001, 0, false);
}
END_TEST

START_TEST(that_it_is_busy_is_told_with_every_message_and_by_none_of_its_own)
{
	static const uint8_t ask[] = {WVM_GOSSIP_PROBE, WVM_GOSSIP_PULL};
	uint64_t due;

	add(1001);
	wvm_gossip_announce(g, WVM_NODE_ACTIVE, now);
	drain();
	ck_assert_uint_eq(sent(WVM_GOSSIP_ANNOUNCE)->msg.busy, 0);
	for (unsigned busy = 2; busy--;) {
		due = wvm_gossip_deadline(g);
		wvm_gossip_busy(g, busy);
		drain();
		ck_assert_uint_eq(count, 0);
		ck_assert_uint_eq(wvm_gossip_deadline(g), due);
		for (unsigned i = 0; i < sizeof(ask); i++) {
			struct wvm_gossip_msg m = message(1001, ask[i]);

			take(1001, &m);
			ck_assert_uint_eq(count, 1);
			ck_assert_uint_eq(actions[0].msg.busy, busy);
			ck_assert(wvm_gossip_msg_check(&actions[0].msg));
		}
		do
			tick();
		while (!sent(WVM_GOSSIP_PROBE));
		ck_assert_uint_eq(sent(WVM_GOSSIP_PROBE)->msg.busy, busy);
	}
	/* Between two actions: what is sent after it says so. */
	wvm_gossip_announce(g, WVM_NODE_DRAINING, now);
	wvm_gossip_busy(g, true);
	drain();
	ck_assert_uint_eq(sent(WVM_GOSSIP_ANNOUNCE)->msg.busy, 1);
}
END_TEST

START_TEST(the_silent_are_probed_through_others_then_suspected_then_dead)
{
	struct wvm_gossip_msg nack = message(1002, WVM_GOSSIP_NACK);
	const struct wvm_gossip_action *a;
	uint64_t since;

	for (uint32_t i = 1; i <= 4; i++)
		add(FIRST + i);
	wvm_gossip_announce(g, WVM_NODE_ACTIVE, now);
	drain();
	do
		tick();
	while (!sent(WVM_GOSSIP_PROBE));
	nack.target = sent(WVM_GOSSIP_PROBE)->node;
	nack.seq = sent(WVM_GOSSIP_PROBE)->msg.seq;
	do
		tick();
	while (!sent(WVM_GOSSIP_PROBE_FOR));
	ck_assert_uint_eq(count, config.helpers);
	for (uint32_t i = 0; i < config.helpers; i++) {
		a = &actions[i];
		ck_assert_uint_eq(a->msg.target, nack.target);
		ck_assert_uint_ne(a->node, nack.target);
	}
	ck_assert_uint_eq(g->asked_count, 3);
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t from = g->asked[i];

		nack.ip = 0x0b000000 + from;
		take(from, &nack);
	}
	while (!noted(nack.target))
		tick();
	ck_assert_uint_eq(noted(nack.target)->status, WVM_GOSSIP_SUSPECT);
	ck_assert_uint_eq(g->health, 0); /* it is not this node's doing */
	since = now;
	while (status(nack.target) == WVM_GOSSIP_SUSPECT && now < since + 60000 * MS) {
		a = sent(WVM_GOSSIP_PROBE);
		if (a && a->node != nack.target) {
			struct wvm_gossip_msg ack = message(a->node, WVM_GOSSIP_ACK);

			ack.target = a->node;
			ack.seq = a->msg.seq;
			take(a->node, &ack);
		}
		if (sent(WVM_GOSSIP_PROBE_FOR)) {
			for (uint32_t i = 0; i < g->asked_count; i++) {
				nack.seq = g->target_seq;
				nack.target = g->target;
				nack.ip = 0x0b000000 + g->asked[i];
				take(g->asked[i], &nack);
			}
		}
		tick();
	}
	ck_assert_uint_eq(status(nack.target), WVM_GOSSIP_DEAD);
	ck_assert(noted(nack.target));
	ck_assert_uint_eq(now - since, config.suspect_ns);
}
END_TEST

/* Three of many, so that no round of probes comes to all of them by chance. */
#define SUSPECTS 3u

static bool suspicion(const struct wvm_gossip_msg *m, uint32_t node)
{
	return m->count && m->entry[0].node == node && m->entry[0].status == WVM_GOSSIP_SUSPECT;
}

/* The others answer; a suspect that is probed shortly before its time is over may do so, too. */
static void answer_probe(uint64_t until, bool answers, bool asked[SUSPECTS])
{
	const struct wvm_gossip_action *a = sent(WVM_GOSSIP_PROBE);
	struct wvm_gossip_msg ack;
	uint32_t i;

	if (!a)
		return;
	i = a->node - FIRST - 1;
	if (i < SUSPECTS) {
		ck_assert(suspicion(&a->msg, a->node));
		if (until - now > 3 * config.period_ns)
			return; /* or it is the round's turn */
		asked[i] = true;
		if (!answers)
			return;
	}
	ack = message(a->node, WVM_GOSSIP_ACK);
	ack.target = a->node;
	ack.seq = a->msg.seq;
	ack.incarnation += i < SUSPECTS;
	take(a->node, &ack);
}

/* Helpers found the target as silent. */
static void answer_for(void)
{
	struct wvm_gossip_msg nack = message(0, WVM_GOSSIP_NACK);

	if (!sent(WVM_GOSSIP_PROBE_FOR))
		return;
	nack.target = g->target;
	nack.seq = g->target_seq;
	for (uint32_t i = 0; i < g->asked_count; i++) {
		nack.ip = 0x0b000000 + g->asked[i];
		take(g->asked[i], &nack);
	}
}

/* What they said against it has not come to this node. */
START_TEST(suspects_are_asked_for_a_last_word)
{
	bool asked[SUSPECTS] = {false};
	uint64_t until;

	for (uint32_t i = 1; i < POD; i++)
		add(FIRST + i);
	wvm_gossip_announce(g, WVM_NODE_ACTIVE, now);
	drain();
	for (uint32_t i = 0; i < SUSPECTS; i++) {
		struct wvm_gossip_msg m = message(FIRST + 40, WVM_GOSSIP_NEWS);

		m.count = 1;
		m.entry[0] = entry(FIRST + 1 + i, 10, WVM_GOSSIP_SUSPECT);
		take(FIRST + 40, &m);
		ck_assert_uint_eq(status(FIRST + 1 + i), WVM_GOSSIP_SUSPECT);
	}
	until = now + config.suspect_ns;
	while (wvm_gossip_deadline(g) < until) {
		tick();
		answer_for();
		answer_probe(until, _i, asked);
	}
	for (uint32_t i = 0; i < SUSPECTS; i++) {
		ck_assert(asked[i]);
		ck_assert_uint_eq(status(FIRST + 1 + i),
				  _i ? WVM_GOSSIP_ALIVE : WVM_GOSSIP_SUSPECT);
	}
	/* And no verdict is later for it. */
	pass(until - now);
	for (uint32_t i = 0; i < SUSPECTS; i++)
		ck_assert_uint_eq(status(FIRST + 1 + i), _i ? WVM_GOSSIP_ALIVE : WVM_GOSSIP_DEAD);
}
END_TEST

START_TEST(what_can_not_be_is_not_taken_by_add)
{
	struct wvm_gossip_entry e = entry(1001, 10, WVM_GOSSIP_ALIVE);

	e.port = 0;
	ck_assert(!wvm_gossip_add(g, &e, now));
	e = entry(SELF, 10, WVM_GOSSIP_ALIVE);
	ck_assert(!wvm_gossip_add(g, &e, now));
	e = entry(1001, 10, WVM_GOSSIP_DEAD);
	ck_assert(!wvm_gossip_add(g, &e, now));
	config.direct_ns = config.period_ns;
	ck_assert(!wvm_gossip_config_check(&config));
	wvm_gossip_defaults(&config);
	config.fanout = 9;
	ck_assert(!wvm_gossip_config_check(&config));
	wvm_gossip_defaults(&config);
	config.mtu = WVM_MTU_MIN - 1;
	ck_assert(!wvm_gossip_config_check(&config));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gossip_view");
	TCase *tc = tcase_create("gossip_view");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_full_view_keeps_its_pod_and_a_sample_of_others);
	tcase_add_test(tc, the_view_is_what_was_put_into_it);
	tcase_add_test(tc, later_word_counts_and_earlier_does_not);
	tcase_add_test(tc, the_dead_that_talk_hear_that_they_are_dead);
	tcase_add_test(tc, what_is_said_of_this_node_it_knows_better);
	tcase_add_test(tc, what_is_not_for_it_changes_nothing);
	tcase_add_test(tc, probes_for_others_are_bounded);
	tcase_add_test(tc, a_view_is_asked_for_part_by_part);
	tcase_add_test(tc, an_answer_that_is_lost_is_asked_for_again_and_then_given_up);
	tcase_add_test(tc, an_epoch_is_told_when_it_was_learnt_and_not_when_it_was_heard);
	tcase_add_test(tc, who_is_busy_is_known_by_its_own_word_of_its_present_life);
	tcase_add_test(tc, that_it_is_busy_is_told_with_every_message_and_by_none_of_its_own);
	tcase_add_test(tc, the_silent_are_probed_through_others_then_suspected_then_dead);
	tcase_add_loop_test(tc, suspects_are_asked_for_a_last_word, 0, 2);
	tcase_add_test(tc, what_can_not_be_is_not_taken_by_add);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

/* Epochs: what each part of a node does with each input. All orders of them: check_epoch_explore.
 */
#include <check.h>
#include <string.h>

#include "shared/core/epoch.h"

#define SEED 7u
#define MS   UINT64_C(1000000)

/* A node, and what its last input has led to. */
static struct wvm_epoch e;
static struct wvm_epoch_durable disk;
static struct wvm_epoch_action acts[32];
static unsigned count;

static struct wvm_epoch_record record(uint32_t epoch, uint32_t node, unsigned voters)
{
	struct wvm_epoch_record r = {
		.epoch = epoch, .node = node, .state = WVM_NODE_ACTIVE, .voters = (uint8_t)voters};

	for (unsigned i = 0; i < voters; i++)
		r.voter[i] = i;
	return r;
}

static void drain(void)
{
	for (count = 0; wvm_epoch_next(&e, &acts[count]); count++) {
		if (acts[count].act == WVM_EPOCH_SAVE) {
			ck_assert_uint_eq(count, 0);
			disk = e.d;
			ck_assert(wvm_epoch_durable_check(&disk));
		}
	}
	/* What leaves a node is well-formed, and nothing of it is what the node does not know. */
	ck_assert(!memcmp(&disk, &e.d, sizeof(disk)));
}

static const struct wvm_epoch_action *only(enum wvm_epoch_act act)
{
	const struct wvm_epoch_action *found = NULL;

	for (unsigned i = 0; i < count; i++) {
		if (acts[i].act != act)
			continue;
		ck_assert_ptr_null(found);
		found = &acts[i];
	}
	ck_assert_ptr_nonnull(found);
	return found;
}

static unsigned sent(enum wvm_epoch_kind kind)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		n += acts[i].act == WVM_EPOCH_SEND && acts[i].msg.kind == kind;
	return n;
}

static bool sent_to(enum wvm_epoch_kind kind, uint32_t to)
{
	for (unsigned i = 0; i < count; i++) {
		if (acts[i].act == WVM_EPOCH_SEND && acts[i].msg.kind == kind && acts[i].node == to)
			return true;
	}
	return false;
}

/* Of `voters` voters 0, 1, ... this is `self`. */
static void start(uint32_t self, unsigned voters)
{
	struct wvm_epoch_record first = record(1, 0, voters);

	wvm_epoch_first(&disk, &first);
	wvm_epoch_init(&e, self, SEED, &disk);
	drain();
}

static void restart(void)
{
	wvm_epoch_init(&e, e.self, SEED, &disk);
	drain();
}

static enum wvm_drop hear(uint32_t from, struct wvm_epoch_msg m)
{
	enum wvm_drop drop = wvm_epoch_message(&e, from, &m, 0);

	drain();
	return drop;
}

static enum wvm_drop vote(uint32_t from, enum wvm_epoch_kind kind, uint64_t ballot)
{
	return hear(from, (struct wvm_epoch_msg){.kind = (uint8_t)kind,
						 .epoch = e.d.current.epoch + 1,
						 .ballot = ballot});
}

static enum wvm_drop refuse(uint32_t from, uint64_t ballot, uint64_t other)
{
	return hear(from, (struct wvm_epoch_msg){.kind = WVM_EPOCH_REFUSED,
						 .epoch = e.d.current.epoch + 1,
						 .ballot = ballot,
						 .other = other});
}

static enum wvm_drop with(uint32_t from, enum wvm_epoch_kind kind, uint64_t ballot, uint64_t other,
			  struct wvm_epoch_record r)
{
	return hear(from, (struct wvm_epoch_msg){.kind = (uint8_t)kind,
						 .epoch = r.epoch,
						 .ballot = ballot,
						 .other = other,
						 .record = r});
}

static enum wvm_drop decided(uint32_t from, struct wvm_epoch_record r)
{
	return with(from, WVM_EPOCH_DECIDED, 0, 0, r);
}

static bool wish(struct wvm_epoch_record r)
{
	bool done = wvm_epoch_wish(&e, &r, 0);

	drain();
	return done;
}

static void tick(uint64_t now)
{
	wvm_epoch_tick(&e, now);
	drain();
}

static uint64_t ballot(uint32_t round, uint32_t node)
{
	return wvm_epoch_ballot(round, node);
}

/* ---- proposer --------------------------------------------------------------------------- */

START_TEST(a_wish_is_decided_by_a_majority_of_promises_and_then_of_votes)
{
	struct wvm_epoch_record r = record(2, 4, 3);

	start(0, 5);
	ck_assert(wish(r));
	ck_assert_int_eq(acts[0].act, WVM_EPOCH_SAVE);
	ck_assert_uint_eq(sent(WVM_EPOCH_PREPARE), 4);
	ck_assert(!wish(r)); /* one at a time */
	ck_assert_int_eq(vote(1, WVM_EPOCH_PROMISE, ballot(1, 0)), WVM_DROP_NONE);
	ck_assert_int_eq(vote(1, WVM_EPOCH_PROMISE, ballot(1, 0)), WVM_DROP_NONE);
	ck_assert_uint_eq(count, 0); /* the same vote twice is one vote */
	vote(2, WVM_EPOCH_PROMISE, ballot(1, 0));
	ck_assert_uint_eq(sent(WVM_EPOCH_ACCEPT), 4);
	vote(3, WVM_EPOCH_ACCEPTED, ballot(1, 0));
	ck_assert_uint_eq(e.d.current.epoch, 1);
	vote(1, WVM_EPOCH_ACCEPTED, ballot(1, 0));
	ck_assert_int_eq(only(WVM_EPOCH_LEARNT)->verdict, WVM_EPOCH_WON);
	ck_assert(wvm_epoch_record_same(&e.d.current, &r));
	ck_assert_uint_eq(sent(WVM_EPOCH_DECIDED), 4); /* 1, 2 vote on; 3, 4 did */
	ck_assert_uint_eq(wvm_epoch_deadline(&e), UINT64_MAX);
	ck_assert_int_eq(vote(2, WVM_EPOCH_ACCEPTED, ballot(1, 0)), WVM_DROP_STALE);
}
END_TEST

START_TEST(one_voter_alone_decides_at_once)
{
	start(0, 1);
	ck_assert(wish(record(2, 9, 2)));
	ck_assert_int_eq(only(WVM_EPOCH_LEARNT)->verdict, WVM_EPOCH_WON);
	ck_assert(sent_to(WVM_EPOCH_DECIDED, 1) && sent_to(WVM_EPOCH_DECIDED, 9));
	/* The next record needs those that this one names. */
	ck_assert(wish(record(3, 9, 1)));
	ck_assert_uint_eq(e.d.current.epoch, 2);
	ck_assert_uint_eq(sent(WVM_EPOCH_PREPARE), 1);
}
END_TEST

START_TEST(a_minority_asks_for_ever_and_decides_nothing)
{
	start(0, 5);
	wish(record(2, 4, 5));
	vote(1, WVM_EPOCH_PROMISE, ballot(1, 0));
	for (uint64_t now = 0; now < 3600 * 1000 * MS; now = wvm_epoch_deadline(&e)) {
		ck_assert_uint_le(wvm_epoch_deadline(&e) - now, WVM_EPOCH_RETRY_MAX_NS);
		tick(wvm_epoch_deadline(&e));
		ck_assert_uint_eq(sent(WVM_EPOCH_PREPARE), 3); /* of who has not answered */
	}
	ck_assert_uint_eq(e.d.current.epoch, 1);
	ck_assert_uint_eq(sent(WVM_EPOCH_ACCEPT), 0);
	wvm_epoch_withdraw(&e);
	ck_assert_uint_eq(wvm_epoch_deadline(&e), UINT64_MAX);
	ck_assert_int_eq(vote(2, WVM_EPOCH_PROMISE, ballot(1, 0)), WVM_DROP_STALE);
	ck_assert(wish(record(2, 3, 5)));
}
END_TEST

START_TEST(a_record_that_was_accepted_goes_before_the_wish)
{
	struct wvm_epoch_record old = record(2, 2, 5), late = record(2, 3, 5);

	start(0, 5);
	wish(record(2, 4, 5));
	refuse(3, ballot(1, 0), ballot(4, 4));
	ck_assert_uint_gt(wvm_epoch_deadline(&e), 0);
	ck_assert_uint_lt(wvm_epoch_deadline(&e), 2 * WVM_EPOCH_BACK_OFF_NS);
	tick(wvm_epoch_deadline(&e));
	ck_assert(e.ballot == ballot(5, 0));
	with(1, WVM_EPOCH_PROMISE, ballot(5, 0), ballot(3, 3), late);
	with(2, WVM_EPOCH_PROMISE, ballot(5, 0), ballot(2, 4), old);
	ck_assert_uint_eq(sent(WVM_EPOCH_ACCEPT), 4);
	ck_assert(wvm_epoch_record_same(&acts[count - 1].msg.record, &late));
	vote(1, WVM_EPOCH_ACCEPTED, ballot(5, 0));
	vote(2, WVM_EPOCH_ACCEPTED, ballot(5, 0));
	ck_assert_int_eq(only(WVM_EPOCH_LEARNT)->verdict, WVM_EPOCH_LOST);
	ck_assert(wvm_epoch_record_same(&only(WVM_EPOCH_LEARNT)->record, &late));
	ck_assert_uint_eq(e.wish.epoch, 0);
}
END_TEST

START_TEST(its_own_vote_counts_as_what_it_accepted)
{
	struct wvm_epoch_record r = record(2, 2, 3);

	start(0, 3);
	with(1, WVM_EPOCH_ACCEPT, ballot(1, 1), 0, r);
	wish(record(2, 1, 3));
	ck_assert(e.ballot == ballot(2, 0));
	vote(2, WVM_EPOCH_PROMISE, ballot(2, 0));
	ck_assert(wvm_epoch_record_same(&e.value, &r));
	/* An accepted record is asked for again, too. */
	tick(wvm_epoch_deadline(&e));
	ck_assert_uint_eq(sent(WVM_EPOCH_ACCEPT), 2);
}
END_TEST

START_TEST(a_proposer_that_has_promised_a_higher_ballot_does_not_go_on)
{
	start(0, 3);
	wish(record(2, 1, 3));
	vote(2, WVM_EPOCH_PREPARE, ballot(1, 2));
	vote(1, WVM_EPOCH_PROMISE, ballot(1, 0));
	ck_assert_uint_eq(sent(WVM_EPOCH_ACCEPT), 0);
	ck_assert_int_eq(e.phase, WVM_EPOCH_BACKING_OFF);
	tick(wvm_epoch_deadline(&e));
	ck_assert(e.ballot == ballot(2, 0));
}
END_TEST

START_TEST(back_offs_grow_and_differ)
{
	uint64_t longest = 0, shortest = UINT64_MAX;

	start(0, 3);
	wish(record(2, 1, 3));
	for (unsigned i = 0; i < 300; i++) {
		uint64_t wait;

		refuse(1, e.ballot, e.ballot + 1);
		wait = wvm_epoch_deadline(&e);
		ck_assert_uint_ge(wait, WVM_EPOCH_BACK_OFF_NS / 2);
		ck_assert_uint_le(wait, WVM_EPOCH_RETRY_MAX_NS * 3 / 2);
		if (i >= 10 && wait > longest)
			longest = wait;
		if (i >= 10 && wait < shortest)
			shortest = wait;
		tick(wait);
	}
	ck_assert_uint_lt(shortest, WVM_EPOCH_RETRY_MAX_NS * 3 / 4);
	ck_assert_uint_gt(longest, WVM_EPOCH_RETRY_MAX_NS * 5 / 4);
}
END_TEST

START_TEST(rounds_end_without_wrapping)
{
	start(0, 3);
	wish(record(2, 1, 3));
	refuse(1, ballot(1, 0), ballot(WVM_EPOCH_ROUND_MAX, 1));
	for (unsigned i = 0; i < 5; i++) {
		tick(wvm_epoch_deadline(&e));
		ck_assert_int_eq(e.phase, WVM_EPOCH_BACKING_OFF);
		ck_assert_uint_eq(count, 0);
	}
	decided(1, record(2, 2, 3));
	ck_assert(wish(record(3, 1, 3)));
	ck_assert(e.ballot == ballot(1, 0));
}
END_TEST

START_TEST(one_that_does_not_vote_proposes_too_and_never_the_same_ballot_again)
{
	start(7, 3);
	ck_assert(wish(record(2, 7, 3)));
	ck_assert_uint_eq(sent(WVM_EPOCH_PREPARE), 3);
	restart();
	ck_assert_int_eq(e.phase, WVM_EPOCH_IDLE);
	ck_assert(wish(record(2, 6, 3)));
	ck_assert(e.ballot == ballot(2, 7));
	vote(0, WVM_EPOCH_PROMISE, ballot(1, 7));
	vote(1, WVM_EPOCH_PROMISE, ballot(2, 7));
	vote(2, WVM_EPOCH_PROMISE, ballot(2, 7));
	vote(0, WVM_EPOCH_ACCEPTED, ballot(2, 7));
	vote(2, WVM_EPOCH_ACCEPTED, ballot(2, 7));
	ck_assert_int_eq(only(WVM_EPOCH_LEARNT)->verdict, WVM_EPOCH_WON);
	ck_assert_uint_eq(sent(WVM_EPOCH_DECIDED), 4); /* the changed node as well */
}
END_TEST

START_TEST(a_wish_must_follow_the_present_record)
{
	struct wvm_epoch_record bad = record(2, 1, 3);

	start(0, 3);
	ck_assert(!wish(record(3, 1, 3)) && !wish(record(1, 1, 3)));
	bad.voters = 0;
	ck_assert(!wish(bad));
	ck_assert_uint_eq(e.wish.epoch, 0);
}
END_TEST

/* ---- voter ------------------------------------------------------------------------------ */

START_TEST(a_promise_outlives_the_process)
{
	struct wvm_epoch_record r = record(2, 2, 3), s = record(2, 1, 3);

	start(0, 3);
	ck_assert_int_eq(vote(1, WVM_EPOCH_PREPARE, ballot(5, 1)), WVM_DROP_NONE);
	ck_assert_int_eq(acts[0].act, WVM_EPOCH_SAVE);
	ck_assert(sent_to(WVM_EPOCH_PROMISE, 1) && acts[1].msg.other == 0);
	restart();
	with(2, WVM_EPOCH_ACCEPT, ballot(4, 2), 0, r);
	ck_assert(sent_to(WVM_EPOCH_REFUSED, 2) && acts[0].msg.other == ballot(5, 1));
	vote(2, WVM_EPOCH_PREPARE, ballot(4, 2));
	ck_assert(sent_to(WVM_EPOCH_REFUSED, 2));
	/* The same again is answered, and needs no saving. */
	vote(1, WVM_EPOCH_PREPARE, ballot(5, 1));
	ck_assert(count == 1 && sent_to(WVM_EPOCH_PROMISE, 1));
	with(1, WVM_EPOCH_ACCEPT, ballot(5, 1), 0, s);
	ck_assert(count == 2 && sent_to(WVM_EPOCH_ACCEPTED, 1));
	with(1, WVM_EPOCH_ACCEPT, ballot(5, 1), 0, s);
	ck_assert(count == 1 && sent_to(WVM_EPOCH_ACCEPTED, 1));
	restart();
	vote(2, WVM_EPOCH_PREPARE, ballot(6, 2));
	ck_assert(sent_to(WVM_EPOCH_PROMISE, 2) && acts[1].msg.other == ballot(5, 1));
	ck_assert(wvm_epoch_record_same(&acts[1].msg.record, &s));
}
END_TEST

START_TEST(what_a_voter_does_not_answer)
{
	struct wvm_epoch_record r = record(2, 2, 3);

	start(0, 3);
	ck_assert_int_eq(vote(1, WVM_EPOCH_PREPARE, ballot(1, 2)), WVM_DROP_SOURCE);
	ck_assert_int_eq(with(1, WVM_EPOCH_ACCEPT, ballot(1, 2), 0, r), WVM_DROP_SOURCE);
	ck_assert_int_eq(vote(0, WVM_EPOCH_PREPARE, ballot(1, 0)), WVM_DROP_SOURCE);
	ck_assert_int_eq(vote(1, WVM_EPOCH_PROMISE, ballot(1, 0)), WVM_DROP_STALE);
	ck_assert_int_eq(vote(8, WVM_EPOCH_ACCEPTED, ballot(1, 0)), WVM_DROP_NODE);
	/* Two records at one ballot: the second is not taken. */
	with(1, WVM_EPOCH_ACCEPT, ballot(1, 1), 0, r);
	ck_assert_int_eq(with(1, WVM_EPOCH_ACCEPT, ballot(1, 1), 0, record(2, 1, 3)),
			 WVM_DROP_GRANT);
	ck_assert_uint_eq(e.conflicts, 1);
	ck_assert(wvm_epoch_record_same(&e.d.value, &r));
	/* Answers of another phase. */
	wish(record(2, 1, 3));
	ck_assert_int_eq(vote(1, WVM_EPOCH_ACCEPTED, e.ballot), WVM_DROP_STALE);
	start(4, 3);
	ck_assert_int_eq(vote(1, WVM_EPOCH_PREPARE, ballot(1, 1)), WVM_DROP_NODE);
	ck_assert_int_eq(with(1, WVM_EPOCH_ACCEPT, ballot(1, 1), 0, r), WVM_DROP_NODE);
}
END_TEST

/* ---- learner ---------------------------------------------------------------------------- */

START_TEST(one_that_is_behind_asks_for_record_after_record)
{
	start(0, 3);
	wvm_epoch_heard(&e, 2, 4, 0);
	drain();
	ck_assert(count == 1 && sent_to(WVM_EPOCH_PULL, 2) && acts[0].msg.epoch == 2);
	wvm_epoch_heard(&e, 1, 3, 0);
	drain();
	ck_assert_uint_eq(count, 0); /* one is asked at a time */
	tick(WVM_EPOCH_PULL_NS);
	ck_assert(sent_to(WVM_EPOCH_PULL, 2));
	for (uint32_t epoch = 2; epoch <= 4; epoch++) {
		decided(2, record(epoch, 1, 3));
		ck_assert_uint_eq(only(WVM_EPOCH_LEARNT)->record.epoch, epoch);
		ck_assert_uint_eq(sent(WVM_EPOCH_PULL), epoch < 4);
	}
	ck_assert_uint_eq(wvm_epoch_deadline(&e), UINT64_MAX);
}
END_TEST

START_TEST(any_message_of_a_later_epoch_tells)
{
	static const struct {
		enum wvm_epoch_kind kind;
		uint32_t of, in; /* the message's epoch; its sender's */
	} cases[] = {{WVM_EPOCH_PREPARE, 4, 3},
		     {WVM_EPOCH_DECIDED, 3, 3},
		     {WVM_EPOCH_FAR, 3, 3},
		     {WVM_EPOCH_PULL, 4, 3}};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wvm_epoch_msg m = {.kind = (uint8_t)cases[i].kind, .epoch = cases[i].of};

		if (m.kind == WVM_EPOCH_PREPARE)
			m.ballot = ballot(1, 2);
		if (m.kind == WVM_EPOCH_DECIDED)
			m.record = record(m.epoch, 1, 3);
		start(0, 3);
		ck_assert_int_eq(hear(2, m), WVM_DROP_EPOCH);
		ck_assert(sent_to(WVM_EPOCH_PULL, 2));
		ck_assert_uint_eq(e.ahead, cases[i].in);
		ck_assert_uint_eq(e.d.promised, 0);
	}
}
END_TEST

START_TEST(who_does_not_answer_is_not_asked_for_ever)
{
	unsigned pulls = 1;

	start(0, 3);
	wvm_epoch_heard(&e, 2, 9, 0);
	drain();
	while (wvm_epoch_deadline(&e) != UINT64_MAX) {
		tick(wvm_epoch_deadline(&e));
		pulls += sent(WVM_EPOCH_PULL);
	}
	ck_assert_uint_eq(pulls, WVM_EPOCH_PULLS);
	wvm_epoch_heard(&e, 1, 3, 0);
	drain();
	ck_assert(sent_to(WVM_EPOCH_PULL, 1));
}
END_TEST

START_TEST(old_records_are_told_as_long_as_they_are_kept)
{
	struct wvm_epoch_msg pull = {.kind = WVM_EPOCH_PULL};

	start(0, 3);
	for (uint32_t epoch = 2; epoch <= 30; epoch++)
		decided(1, record(epoch, epoch, 3));
	for (pull.epoch = 1; pull.epoch <= 30; pull.epoch++) {
		bool kept = pull.epoch >= 30 - WVM_EPOCH_LOG;

		ck_assert_int_eq(hear(2, pull), WVM_DROP_NONE);
		ck_assert(sent_to(kept ? WVM_EPOCH_DECIDED : WVM_EPOCH_FAR, 2));
		ck_assert_uint_eq(acts[0].msg.epoch, kept ? pull.epoch : 30);
		ck_assert_uint_eq(acts[0].msg.record.node, kept && pull.epoch > 1 ? pull.epoch : 0);
	}
	ck_assert_int_eq(hear(2, pull), WVM_DROP_STALE); /* the next one */
	/* A proposer that is behind is told as well. */
	hear(2, (struct wvm_epoch_msg){
			.kind = WVM_EPOCH_PREPARE, .epoch = 29, .ballot = ballot(1, 2)});
	ck_assert(sent_to(WVM_EPOCH_DECIDED, 2));
	/* After a start only the last, and what the user has kept. */
	restart();
	ck_assert_uint_eq(only(WVM_EPOCH_LEARNT)->record.epoch, 30);
	ck_assert_int_eq(only(WVM_EPOCH_LEARNT)->verdict, WVM_EPOCH_NO_WISH);
	pull.epoch = 29;
	hear(2, pull);
	ck_assert(sent_to(WVM_EPOCH_FAR, 2));
}
END_TEST

/* What it is given may end later than the present record, and have a gap or a defect before. */
START_TEST(what_a_former_life_has_kept_is_told_as_far_as_it_leads_here)
{
	struct wvm_epoch_record old[40];
	struct wvm_epoch_msg pull = {.kind = WVM_EPOCH_PULL};

	for (uint32_t i = 0; i < 40; i++)
		old[i] = record(i + 1, i + 1, 3);
	for (int gap = 0; gap < 2; gap++) {
		uint32_t first = gap ? 27 : 30 - WVM_EPOCH_LOG;

		start(0, 3);
		for (uint32_t epoch = 2; epoch <= 30; epoch++)
			decided(1, record(epoch, epoch, 3));
		restart();
		if (gap)
			old[25].voters = 0; /* of epoch 26 */
		wvm_epoch_keep(&e, old, 32);
		for (pull.epoch = 1; pull.epoch <= 30; pull.epoch++) {
			hear(2, pull);
			ck_assert(sent_to(pull.epoch >= first ? WVM_EPOCH_DECIDED : WVM_EPOCH_FAR,
					  2));
			if (pull.epoch >= first)
				ck_assert_uint_eq(acts[0].msg.record.node, pull.epoch);
		}
	}
}
END_TEST

START_TEST(one_that_is_too_far_behind_needs_the_view)
{
	struct wvm_epoch_record r = record(40, 1, 3);

	start(0, 3);
	wish(record(2, 1, 3));
	wvm_epoch_heard(&e, 2, 40, 0);
	drain();
	ck_assert_int_eq(hear(2, (struct wvm_epoch_msg){.kind = WVM_EPOCH_FAR, .epoch = 40}),
			 WVM_DROP_NONE);
	ck_assert_uint_eq(only(WVM_EPOCH_BEHIND)->epoch, 40);
	ck_assert_uint_eq(only(WVM_EPOCH_BEHIND)->node, 2);
	ck_assert_uint_eq(e.pull_at, UINT64_MAX);
	ck_assert(wvm_epoch_install(&e, &r, 0));
	drain();
	ck_assert_int_eq(only(WVM_EPOCH_LEARNT)->verdict, WVM_EPOCH_LOST);
	ck_assert_uint_eq(e.d.promised, 0);
	ck_assert(!wvm_epoch_install(&e, &r, 0));
	r = record(41, 2, 3);
	ck_assert(wvm_epoch_install(&e, &r, 0));
	drain();
	r.voters = 0;
	r.epoch = 42;
	ck_assert(!wvm_epoch_install(&e, &r, 0));
	/* Nothing from before the gap is told as a record. */
	hear(2, (struct wvm_epoch_msg){.kind = WVM_EPOCH_PULL, .epoch = 40});
	ck_assert(sent_to(WVM_EPOCH_DECIDED, 2));
	hear(2, (struct wvm_epoch_msg){.kind = WVM_EPOCH_PULL, .epoch = 39});
	ck_assert(sent_to(WVM_EPOCH_FAR, 2));
}
END_TEST

START_TEST(a_second_record_for_an_epoch_is_not_taken_but_counted)
{
	struct wvm_epoch_record r = record(2, 1, 3);

	start(0, 3);
	wish(record(2, 2, 3));
	ck_assert_int_eq(decided(1, r), WVM_DROP_NONE);
	ck_assert_int_eq(only(WVM_EPOCH_LEARNT)->verdict, WVM_EPOCH_LOST);
	ck_assert_int_eq(decided(2, r), WVM_DROP_STALE);
	ck_assert_uint_eq(e.conflicts, 0);
	ck_assert_int_eq(decided(2, record(2, 2, 3)), WVM_DROP_GRANT);
	ck_assert_uint_eq(e.conflicts, 1);
	ck_assert(wvm_epoch_record_same(&e.d.current, &r));
	ck_assert_int_eq(hear(2, (struct wvm_epoch_msg){.kind = WVM_EPOCH_FAR, .epoch = 3}),
			 WVM_DROP_STALE);
}
END_TEST

START_TEST(epochs_end_without_wrapping)
{
	struct wvm_epoch_record last = record(UINT32_MAX, 1, 3);

	start(0, 3);
	ck_assert(wvm_epoch_install(&e, &last, 0));
	drain();
	last.epoch = 0;
	ck_assert(!wish(last));
	ck_assert(wvm_epoch_durable_check(&disk));
	ck_assert_int_eq(hear(1, (struct wvm_epoch_msg){.kind = WVM_EPOCH_PREPARE,
							.epoch = UINT32_MAX,
							.ballot = ballot(1, 1)}),
			 WVM_DROP_NONE);
	ck_assert(sent_to(WVM_EPOCH_DECIDED, 1));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epoch");
	TCase *tc = tcase_create("epoch");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tc, a_wish_is_decided_by_a_majority_of_promises_and_then_of_votes);
	tcase_add_test(tc, one_voter_alone_decides_at_once);
	tcase_add_test(tc, a_minority_asks_for_ever_and_decides_nothing);
	tcase_add_test(tc, a_record_that_was_accepted_goes_before_the_wish);
	tcase_add_test(tc, its_own_vote_counts_as_what_it_accepted);
	tcase_add_test(tc, a_proposer_that_has_promised_a_higher_ballot_does_not_go_on);
	tcase_add_test(tc, back_offs_grow_and_differ);
	tcase_add_test(tc, rounds_end_without_wrapping);
	tcase_add_test(tc, one_that_does_not_vote_proposes_too_and_never_the_same_ballot_again);
	tcase_add_test(tc, a_wish_must_follow_the_present_record);
	tcase_add_test(tc, a_promise_outlives_the_process);
	tcase_add_test(tc, what_a_voter_does_not_answer);
	tcase_add_test(tc, one_that_is_behind_asks_for_record_after_record);
	tcase_add_test(tc, any_message_of_a_later_epoch_tells);
	tcase_add_test(tc, who_does_not_answer_is_not_asked_for_ever);
	tcase_add_test(tc, old_records_are_told_as_long_as_they_are_kept);
	tcase_add_test(tc, what_a_former_life_has_kept_is_told_as_far_as_it_leads_here);
	tcase_add_test(tc, one_that_is_too_far_behind_needs_the_view);
	tcase_add_test(tc, a_second_record_for_an_epoch_is_not_taken_but_counted);
	tcase_add_test(tc, epochs_end_without_wrapping);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

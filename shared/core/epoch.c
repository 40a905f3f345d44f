/* Epochs: voter, proposer and learner. Records and messages as bytes: epoch_msg.c. */
#include "shared/core/epoch.h"

#include "shared/core/assert.h"
#include "shared/core/epoch_rules.h"
#include "shared/core/random.h"

#define NEVER UINT64_MAX

static uint32_t next_epoch(const struct wvm_epoch *e)
{
	return e->d.current.epoch + 1; /* 0 after the last: no message is about that */
}

void wvm_epoch_init(struct wvm_epoch *e, uint32_t self, uint64_t seed,
		    const struct wvm_epoch_durable *d)
{
	WVM_ASSERT(self < WVM_NODE_MAX && wvm_epoch_durable_check(d));
	*e = (struct wvm_epoch){
		.d = *d,
		.self = self,
		.seen = d->promised,
		.retry_at = NEVER,
		.pull_at = NEVER,
		.random = seed | 1,
		.say_learnt = true,
	};
}

void wvm_epoch_keep(struct wvm_epoch *e, const struct wvm_epoch_record *records, uint32_t count)
{
	e->log_count = 0;
	while (count-- && e->log_count < WVM_EPOCH_LOG) {
		if (records[count].epoch >= e->d.current.epoch)
			continue;
		if (records[count].epoch != e->d.current.epoch - e->log_count - 1 ||
		    !wvm_epoch_record_check(&records[count]))
			return;
		e->log[records[count].epoch % WVM_EPOCH_LOG] = records[count];
		e->log_count++;
	}
}

/* ---- actions ---------------------------------------------------------------------------- */

bool wvm_epoch_next(struct wvm_epoch *e, struct wvm_epoch_action *a)
{
	*a = (struct wvm_epoch_action){.act = WVM_EPOCH_SAVE};
	if (e->save) {
		e->save = false;
		return true;
	}
	if (e->say_learnt) {
		a->act = WVM_EPOCH_LEARNT;
		a->record = e->d.current;
		a->verdict = (enum wvm_epoch_verdict)e->verdict;
		e->say_learnt = e->verdict = 0;
		return true;
	}
	if (e->behind) {
		a->act = WVM_EPOCH_BEHIND;
		a->node = e->behind_node;
		a->epoch = e->behind;
		e->behind = e->behind_node = 0;
		return true;
	}
	if (e->out_at < e->out_count) {
		a->act = WVM_EPOCH_SEND;
		a->node = e->out[e->out_at].to;
		a->msg = e->out[e->out_at++].msg;
		return true;
	}
	e->out_at = e->out_count = 0;
	return false;
}

/* Actions of one input are taken before the next, so those of one fit. */
static void input(struct wvm_epoch *e)
{
	WVM_ASSERT(!e->save && !e->say_learnt && !e->behind && e->out_at == e->out_count);
	e->out_at = e->out_count = 0;
}

static void send(struct wvm_epoch *e, uint32_t to, const struct wvm_epoch_msg *m)
{
	struct wvm_epoch_out *o = &e->out[e->out_count];

	WVM_ASSERT(e->out_count < WVM_EPOCH_OUT && to != e->self && wvm_epoch_msg_check(m));
	e->out_count++;
	o->to = to;
	o->reserved = 0;
	o->msg = *m;
}

static void answer(struct wvm_epoch *e, uint32_t to, const struct wvm_epoch_msg *m,
		   enum wvm_epoch_kind kind, uint64_t other)
{
	struct wvm_epoch_msg reply = {
		.kind = (uint8_t)kind, .epoch = m->epoch, .ballot = m->ballot, .other = other};

	if (kind == WVM_EPOCH_PROMISE && other)
		reply.record = e->d.value;
	send(e, to, &reply);
}

/* ---- learner ---------------------------------------------------------------------------- */

static void pull(struct wvm_epoch *e, uint64_t now_ns)
{
	struct wvm_epoch_msg m = {.kind = WVM_EPOCH_PULL, .epoch = next_epoch(e)};

	send(e, e->ahead_node, &m);
	e->pulls++;
	e->pull_at = now_ns + WVM_EPOCH_PULL_NS;
}

static void pull_no_more(struct wvm_epoch *e)
{
	e->pull_at = NEVER;
	e->ahead = e->ahead_node = 0;
	e->pulls = 0;
}

/* A node is in that epoch. While one is asked, the latest to show a later epoch is asked next. */
static void ahead(struct wvm_epoch *e, uint32_t from, uint32_t epoch, uint64_t now_ns)
{
	if (epoch <= e->d.current.epoch || epoch < e->ahead || from == e->self)
		return;
	e->ahead = epoch;
	e->ahead_node = from;
	if (e->pull_at == NEVER)
		pull(e, now_ns);
}

void wvm_epoch_heard(struct wvm_epoch *e, uint32_t from, uint32_t epoch, uint64_t now_ns)
{
	input(e);
	ahead(e, from, epoch, now_ns);
}

static void no_wish(struct wvm_epoch *e)
{
	e->phase = WVM_EPOCH_IDLE;
	e->votes = e->refusals = 0;
	e->wish = e->value = (struct wvm_epoch_record){0};
	e->learnt = e->ballot = 0;
	e->retry_at = NEVER;
	e->retry_ns = 0;
}

/* The node is in this record's epoch from here on: it has voted on nothing there. */
static void enter(struct wvm_epoch *e, const struct wvm_epoch_record *record)
{
	if (e->wish.epoch)
		e->verdict = wvm_epoch_record_same(&e->wish, record) ? WVM_EPOCH_WON
								     : WVM_EPOCH_LOST;
	no_wish(e);
	e->d = (struct wvm_epoch_durable){.current = *record};
	e->seen = 0;
	e->say_learnt = true;
	wvm_epoch_changed(e);
}

static void learn(struct wvm_epoch *e, const struct wvm_epoch_record *record, uint64_t now_ns)
{
	WVM_ASSERT(record->epoch == next_epoch(e));
	e->log[e->d.current.epoch % WVM_EPOCH_LOG] = e->d.current;
	if (e->log_count < WVM_EPOCH_LOG)
		e->log_count++;
	enter(e, record);
	if (e->ahead <= record->epoch) {
		pull_no_more(e);
	} else {
		e->pulls = 0;
		pull(e, now_ns);
	}
}

bool wvm_epoch_install(struct wvm_epoch *e, const struct wvm_epoch_record *record, uint64_t now_ns)
{
	input(e);
	if (!wvm_epoch_record_check(record) || record->epoch <= e->d.current.epoch)
		return false;
	if (record->epoch == next_epoch(e)) {
		learn(e, record, now_ns);
		return true;
	}
	e->log_count = 0; /* there is a gap behind it */
	enter(e, record);
	pull_no_more(e);
	return true;
}

/* A record that is kept, or NULL. */
static const struct wvm_epoch_record *kept(const struct wvm_epoch *e, uint32_t epoch)
{
	if (epoch == e->d.current.epoch)
		return &e->d.current;
	if (epoch > e->d.current.epoch || e->d.current.epoch - epoch > e->log_count)
		return NULL;
	return &e->log[epoch % WVM_EPOCH_LOG];
}

/* A node lacks that record, which is decided. */
static void tell(struct wvm_epoch *e, uint32_t to, uint32_t epoch)
{
	const struct wvm_epoch_record *r = kept(e, epoch);
	struct wvm_epoch_msg m = {.kind = WVM_EPOCH_FAR, .epoch = e->d.current.epoch};

	if (r) {
		m.kind = WVM_EPOCH_DECIDED;
		m.epoch = epoch;
		m.record = *r;
	}
	send(e, to, &m);
}

/* ---- voter ------------------------------------------------------------------------------ */

static void vote_changed(struct wvm_epoch *e, uint64_t promised)
{
	e->d.promised = promised;
	wvm_epoch_changed(e);
}

static enum wvm_drop asked(struct wvm_epoch *e, uint32_t from, const struct wvm_epoch_msg *m)
{
	if (wvm_epoch_voter(&e->d.current, e->self) < 0)
		return WVM_DROP_NODE;
	if (wvm_epoch_proposer(m->ballot) != from)
		return WVM_DROP_SOURCE;
	if (m->ballot > e->seen)
		e->seen = m->ballot;
	return WVM_DROP_NONE;
}

static enum wvm_drop prepare(struct wvm_epoch *e, uint32_t from, const struct wvm_epoch_msg *m)
{
	enum wvm_drop drop = asked(e, from, m);

	if (drop)
		return drop;
	if (!wvm_epoch_may_promise(&e->d, m->ballot)) {
		answer(e, from, m, WVM_EPOCH_REFUSED, e->d.promised);
		return WVM_DROP_NONE;
	}
	if (e->d.promised != m->ballot)
		vote_changed(e, m->ballot);
	answer(e, from, m, WVM_EPOCH_PROMISE, e->d.accepted);
	return WVM_DROP_NONE;
}

static void accept_value(struct wvm_epoch *e, uint64_t ballot, const struct wvm_epoch_record *value)
{
	e->d.accepted = ballot;
	e->d.value = *value;
	vote_changed(e, ballot);
}

static enum wvm_drop accept(struct wvm_epoch *e, uint32_t from, const struct wvm_epoch_msg *m)
{
	enum wvm_drop drop = asked(e, from, m);

	if (drop)
		return drop;
	if (!wvm_epoch_may_accept(&e->d, m->ballot)) {
		answer(e, from, m, WVM_EPOCH_REFUSED, e->d.promised);
		return WVM_DROP_NONE;
	}
	if (e->d.accepted != m->ballot) {
		accept_value(e, m->ballot, &m->record);
	} else if (!wvm_epoch_record_same(&e->d.value, &m->record)) {
		e->conflicts++;
		return WVM_DROP_GRANT;
	}
	answer(e, from, m, WVM_EPOCH_ACCEPTED, 0);
	return WVM_DROP_NONE;
}

/* ---- proposer --------------------------------------------------------------------------- */

static void back_off(struct wvm_epoch *e, uint64_t now_ns)
{
	uint32_t shift = e->refusals < 6 ? e->refusals : 6;
	uint64_t mean = WVM_EPOCH_BACK_OFF_NS << shift;

	if (mean > WVM_EPOCH_RETRY_MAX_NS)
		mean = WVM_EPOCH_RETRY_MAX_NS;
	if (e->refusals < UINT8_MAX)
		e->refusals++;
	e->phase = WVM_EPOCH_BACKING_OFF;
	e->votes = 0;
	e->value = (struct wvm_epoch_record){0};
	e->learnt = 0;
	e->retry_at = now_ns + mean / 2 + wvm_random_below(&e->random, mean);
}

static bool enough(const struct wvm_epoch *e)
{
	uint32_t votes = 0;

	for (uint32_t i = 0; i < e->d.current.voters; i++)
		votes += e->votes >> i & 1;
	return wvm_epoch_quorum(votes, e->d.current.voters);
}

/* To the voters that have not answered yet. */
static void ask_voters(struct wvm_epoch *e)
{
	const struct wvm_epoch_record *r = &e->d.current;
	struct wvm_epoch_msg m = {
		.kind = WVM_EPOCH_PREPARE, .epoch = next_epoch(e), .ballot = e->ballot};

	if (e->phase == WVM_EPOCH_ACCEPTING) {
		m.kind = WVM_EPOCH_ACCEPT;
		m.record = e->value;
	}
	for (uint32_t i = 0; i < r->voters; i++) {
		if (r->voter[i] != e->self && !(e->votes & 1u << i))
			send(e, r->voter[i], &m);
	}
}

/* To those that voted, those that will, and whom it is about; others hear of the epoch. */
static void announce(struct wvm_epoch *e, const struct wvm_epoch_record *before)
{
	const struct wvm_epoch_record *r = &e->d.current;
	struct wvm_epoch_msg m = {.kind = WVM_EPOCH_DECIDED, .epoch = r->epoch, .record = *r};

	for (uint32_t i = 0; i < r->voters; i++) {
		if (r->voter[i] != e->self)
			send(e, r->voter[i], &m);
	}
	for (uint32_t i = 0; i < before->voters; i++) {
		if (before->voter[i] != e->self && wvm_epoch_voter(r, before->voter[i]) < 0)
			send(e, before->voter[i], &m);
	}
	if (r->node != e->self && wvm_epoch_voter(r, r->node) < 0 &&
	    wvm_epoch_voter(before, r->node) < 0)
		send(e, r->node, &m);
}

static void count_accepted(struct wvm_epoch *e, uint64_t now_ns)
{
	struct wvm_epoch_record before = e->d.current, value = e->value;

	if (!enough(e))
		return;
	learn(e, &value, now_ns);
	announce(e, &before);
}

static void count_promises(struct wvm_epoch *e, uint64_t now_ns)
{
	int self = wvm_epoch_voter(&e->d.current, e->self);

	if (!enough(e))
		return;
	/* Meanwhile it has promised a higher one. */
	if (self >= 0 && !wvm_epoch_may_accept(&e->d, e->ballot)) {
		back_off(e, now_ns);
		return;
	}
	if (!e->learnt)
		e->value = e->wish;
	e->phase = WVM_EPOCH_ACCEPTING;
	e->votes = 0;
	e->retry_ns = WVM_EPOCH_RETRY_NS;
	e->retry_at = now_ns + e->retry_ns;
	if (self >= 0) {
		accept_value(e, e->ballot, &e->value);
		e->votes = (uint8_t)(1u << self);
	}
	ask_voters(e);
	count_accepted(e, now_ns);
}

static void learn_accepted(struct wvm_epoch *e, uint64_t accepted,
			   const struct wvm_epoch_record *value)
{
	if (!wvm_epoch_must_take(accepted, e->learnt))
		return;
	e->learnt = accepted;
	e->value = *value;
}

/* A ballot above all heard of. It is promised here first, so that no later life uses it again. */
static void attempt(struct wvm_epoch *e, uint64_t now_ns)
{
	int self = wvm_epoch_voter(&e->d.current, e->self);
	uint32_t round = wvm_epoch_round(e->seen > e->d.promised ? e->seen : e->d.promised);

	if (round >= WVM_EPOCH_ROUND_MAX) {
		back_off(e, now_ns);
		return;
	}
	e->phase = WVM_EPOCH_PREPARING;
	e->ballot = e->seen = wvm_epoch_ballot(round + 1, e->self);
	e->votes = 0;
	e->value = (struct wvm_epoch_record){0};
	e->learnt = 0;
	e->retry_ns = WVM_EPOCH_RETRY_NS;
	e->retry_at = now_ns + e->retry_ns;
	vote_changed(e, e->ballot);
	if (self >= 0) {
		e->votes = (uint8_t)(1u << self);
		learn_accepted(e, e->d.accepted, &e->d.value);
	}
	ask_voters(e);
	count_promises(e, now_ns);
}

bool wvm_epoch_wish(struct wvm_epoch *e, const struct wvm_epoch_record *record, uint64_t now_ns)
{
	input(e);
	if (e->wish.epoch || !wvm_epoch_record_check(record) || record->epoch != next_epoch(e))
		return false;
	e->wish = *record;
	attempt(e, now_ns);
	return true;
}

void wvm_epoch_withdraw(struct wvm_epoch *e)
{
	input(e);
	no_wish(e);
}

static enum wvm_drop answered(struct wvm_epoch *e, uint32_t from, const struct wvm_epoch_msg *m,
			      uint64_t now_ns)
{
	int voter = wvm_epoch_voter(&e->d.current, from);

	if (voter < 0 || from == e->self)
		return WVM_DROP_NODE;
	if (m->ballot != e->ballot)
		return WVM_DROP_STALE;
	if (m->kind == WVM_EPOCH_PROMISE && e->phase == WVM_EPOCH_PREPARING) {
		if (m->other)
			learn_accepted(e, m->other, &m->record);
		e->votes |= (uint8_t)(1u << voter);
		count_promises(e, now_ns);
	} else if (m->kind == WVM_EPOCH_ACCEPTED && e->phase == WVM_EPOCH_ACCEPTING) {
		e->votes |= (uint8_t)(1u << voter);
		count_accepted(e, now_ns);
	} else if (m->kind == WVM_EPOCH_REFUSED &&
		   (e->phase == WVM_EPOCH_PREPARING || e->phase == WVM_EPOCH_ACCEPTING)) {
		if (m->other > e->seen)
			e->seen = m->other;
		back_off(e, now_ns);
	} else {
		return WVM_DROP_STALE;
	}
	return WVM_DROP_NONE;
}

/* ---- inputs ----------------------------------------------------------------------------- */

/* About a record that is decided here. */
static enum wvm_drop of_the_past(struct wvm_epoch *e, uint32_t from, const struct wvm_epoch_msg *m)
{
	const struct wvm_epoch_record *r = kept(e, m->epoch);

	switch (m->kind) {
	case WVM_EPOCH_PREPARE:
	case WVM_EPOCH_ACCEPT:
	case WVM_EPOCH_PULL: tell(e, from, m->epoch); return WVM_DROP_NONE;
	case WVM_EPOCH_DECIDED:
		if (!r || wvm_epoch_record_same(r, &m->record))
			return WVM_DROP_STALE;
		e->conflicts++;
		return WVM_DROP_GRANT;
	default: return WVM_DROP_STALE;
	}
}

/* About a record beyond the next one: what its sender knows must be learnt first. */
static enum wvm_drop of_the_future(struct wvm_epoch *e, uint32_t from,
				   const struct wvm_epoch_msg *m, uint64_t now_ns)
{
	if (m->kind == WVM_EPOCH_FAR && e->ahead) {
		e->behind = m->epoch;
		e->behind_node = from;
		pull_no_more(e);
		return WVM_DROP_NONE;
	}
	ahead(e, from,
	      m->kind >= WVM_EPOCH_DECIDED && m->kind != WVM_EPOCH_PULL ? m->epoch : m->epoch - 1,
	      now_ns);
	return WVM_DROP_EPOCH;
}

enum wvm_drop wvm_epoch_message(struct wvm_epoch *e, uint32_t from, const struct wvm_epoch_msg *m,
				uint64_t now_ns)
{
	input(e);
	WVM_ASSERT(wvm_epoch_msg_check(m));
	if (from == e->self)
		return WVM_DROP_SOURCE;
	if (m->epoch <= e->d.current.epoch)
		return of_the_past(e, from, m);
	if (m->epoch > next_epoch(e))
		return of_the_future(e, from, m, now_ns);
	switch (m->kind) {
	case WVM_EPOCH_PREPARE: return prepare(e, from, m);
	case WVM_EPOCH_ACCEPT: return accept(e, from, m);
	case WVM_EPOCH_PULL: return WVM_DROP_STALE; /* it is not decided here either */
	case WVM_EPOCH_FAR: return WVM_DROP_STALE;  /* who is there has the next record */
	case WVM_EPOCH_DECIDED: learn(e, &m->record, now_ns); return WVM_DROP_NONE;
	default: return answered(e, from, m, now_ns);
	}
}

void wvm_epoch_tick(struct wvm_epoch *e, uint64_t now_ns)
{
	input(e);
	if (now_ns >= e->pull_at) {
		if (e->pulls < WVM_EPOCH_PULLS)
			pull(e, now_ns);
		else
			pull_no_more(e);
	}
	if (now_ns < e->retry_at)
		return;
	if (e->phase == WVM_EPOCH_BACKING_OFF) {
		attempt(e, now_ns);
		return;
	}
	e->retry_ns = e->retry_ns * 2 < WVM_EPOCH_RETRY_MAX_NS ? e->retry_ns * 2
							       : WVM_EPOCH_RETRY_MAX_NS;
	e->retry_at = now_ns + e->retry_ns;
	ask_voters(e);
}

uint64_t wvm_epoch_deadline(const struct wvm_epoch *e)
{
	return e->retry_at < e->pull_at ? e->retry_at : e->pull_at;
}

#include "shared/core/check/epoch_explore.h"

#include <check.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/core/epoch.h"

#define NODES      4u
#define MESSAGES   512u
#define LOCALS     (1u << 17)
#define RECORDS    64u
#define LIVES      3u
/* What may happen to a node: a message; or */
#define EVENT_TICK MESSAGES
#define EVENT_END  (MESSAGES + 1u)
#define EVENT_WISH (MESSAGES + 2u) /* + its life */
#define EVENTS     (MESSAGES + 2u + LIVES)

/* What is compared of a node: nothing behind that outlives an input. */
#define LOCAL_BYTES offsetof(struct wvm_epoch, out)

struct flying {
	uint32_t from, to;
	struct wvm_epoch_msg msg;
};

struct state {
	uint64_t sent[MESSAGES / 64];
	uint32_t local[NODES];
	uint8_t lives[NODES];
	uint8_t decided[2]; /* index of a record, + 1 */
	uint8_t ends;
	uint8_t reserved[1 + 4];
};

struct step {
	uint32_t parent;
	uint16_t event;
	uint8_t node, stopped_after; /* actions + 1; 0: not stopped */
};

/* What an event does to a node in a local state. */
struct outcome {
	uint32_t local, next; /* next outcome of the same event, or 0 */
	uint8_t stopped_after;
	uint8_t learnt; /* index of a record, + 1 */
	uint8_t sends;
	uint16_t send[WVM_EPOCH_OUT];
};

static struct {
	const struct epoch_explore_config *c;
	struct epoch_explore_report *r;
	uint8_t (*locals)[LOCAL_BYTES]; /* each as the head of a struct wvm_epoch */
	uint32_t *local_hash;
	struct flying messages[MESSAGES];
	struct wvm_epoch_record records[RECORDS];
	uint32_t records_count;
	uint32_t (*memo)[EVENTS]; /* first outcome + 1; NOTHING: it does nothing */
	struct outcome *outcomes;
	uint32_t outcomes_count, outcomes_room;
	struct state *states;
	struct step *steps;
	uint32_t *seen;
	uint64_t seen_room;
} x;
#define NOTHING UINT32_MAX

static uint64_t hash(const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	uint64_t h = len, w;

	for (size_t i = 0; i + 8 <= len; i += 8) {
		memcpy(&w, at + i, 8);
		h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	return h;
}

static void *room(size_t count, size_t bytes)
{
	void *p = calloc(count, bytes);

	if (!p)
		ck_abort_msg("no memory");
	return p;
}

/* ---- nodes ------------------------------------------------------------------------------ */

static uint32_t intern_local(struct wvm_epoch *e)
{
	static uint8_t bytes[LOCAL_BYTES];
	uint64_t at;

	e->retry_at = e->retry_at == UINT64_MAX ? UINT64_MAX : 1;
	e->pull_at = e->pull_at == UINT64_MAX ? UINT64_MAX : 1;
	e->retry_ns = 0;
	e->random = 1;
	e->refusals = e->pulls = 0;
	if (e->phase == WVM_EPOCH_BACKING_OFF)
		e->ballot = 0;
	ck_assert_uint_eq(e->out_count, 0);
	memcpy(bytes, e, LOCAL_BYTES);
	for (at = hash(bytes, LOCAL_BYTES) % (2 * LOCALS); x.local_hash[at];
	     at = (at + 1) % (2 * LOCALS)) {
		if (!memcmp(x.locals[x.local_hash[at] - 1], bytes, LOCAL_BYTES))
			return x.local_hash[at] - 1;
	}
	if (x.r->locals == LOCALS)
		ck_abort_msg("more than %u states of a node", LOCALS);
	memcpy(x.locals[x.r->locals], bytes, LOCAL_BYTES);
	x.local_hash[at] = ++x.r->locals;
	return x.r->locals - 1;
}

static void load(struct wvm_epoch *e, uint32_t local)
{
	memset(e, 0, sizeof(*e));
	memcpy(e, x.locals[local], LOCAL_BYTES);
}

static uint16_t intern_message(uint32_t from, uint32_t to, const struct wvm_epoch_msg *m)
{
	struct flying f;

	memset(&f, 0, sizeof(f));
	f.from = from;
	f.to = to;
	f.msg = *m;
	for (uint32_t i = 0; i < x.r->messages; i++) {
		if (!memcmp(&x.messages[i], &f, sizeof(f)))
			return (uint16_t)i;
	}
	if (x.r->messages == MESSAGES)
		ck_abort_msg("more than %u different messages", MESSAGES);
	x.messages[x.r->messages] = f;
	return (uint16_t)x.r->messages++;
}

static uint8_t intern_record(const struct wvm_epoch_record *r)
{
	for (uint32_t i = 0; i < x.records_count; i++) {
		if (wvm_epoch_record_same(&x.records[i], r))
			return (uint8_t)(i + 1);
	}
	if (x.records_count == RECORDS)
		ck_abort_msg("more than %u records", RECORDS);
	x.records[x.records_count] = *r;
	return (uint8_t)++x.records_count;
}

/* ---- events ----------------------------------------------------------------------------- */

/* A node wishes in each of its lives for something else, so that a ballot used twice shows. */
static bool make_wish(struct wvm_epoch *e, uint32_t life)
{
	struct wvm_epoch_record r = {.epoch = e->d.current.epoch + 1,
				     .node = e->self,
				     .state = (uint8_t)(WVM_NODE_SHADOW + life)};

	if (e->wish.epoch || r.epoch > 1 + x.c->records || e->self < x.c->nodes - x.c->proposers)
		return false;
	/* On the second record vote all nodes but one: who that is depends on who proposed. */
	r.voters = (uint8_t)(x.c->nodes - (x.c->records > 1));
	for (uint32_t i = 0, node = 0; i < r.voters; node++) {
		if (x.c->records == 1 || node != (e->self + 1) % x.c->nodes)
			r.voter[i++] = node;
	}
	return wvm_epoch_wish(e, &r, 0);
}

static bool may_try(const struct wvm_epoch *e)
{
	uint64_t top = e->seen > e->d.promised ? e->seen : e->d.promised;

	return wvm_epoch_round(top) < x.c->rounds;
}

/* False if there is no such event. */
static bool apply(struct wvm_epoch *e, uint32_t event)
{
	if (event < MESSAGES) {
		const struct flying *f = &x.messages[event];

		return f->to == e->self && (wvm_epoch_message(e, f->from, &f->msg, 0), true);
	}
	if (event == EVENT_END) {
		struct wvm_epoch_durable d = e->d;

		wvm_epoch_init(e, e->self, 1, &d);
		return true;
	}
	if (event == EVENT_TICK) {
		if (wvm_epoch_deadline(e) == UINT64_MAX ||
		    (e->phase == WVM_EPOCH_BACKING_OFF && !may_try(e)))
			return false;
		wvm_epoch_tick(e, 1);
		return true;
	}
	if (!may_try(e))
		return false;
	return make_wish(e, event - EVENT_WISH);
}

/*
 * Applies the event, and carries out its first `limit` actions; o says what came of it. Returns
 * whether there were more actions; the node ends there then, and goes on with what was saved.
 */
static bool outcome(uint32_t local, uint32_t event, uint32_t limit, struct outcome *o)
{
	static struct wvm_epoch e;
	struct wvm_epoch_durable saved;
	struct wvm_epoch_action a;
	uint32_t done = 0;
	bool more = false;

	load(&e, local);
	saved = e.d;
	*o = (struct outcome){.local = NOTHING};
	if (!apply(&e, event))
		return false;
	for (;; done++) {
		if (done == limit) {
			wvm_epoch_init(&e, e.self, 1, &saved);
			o->stopped_after = (uint8_t)(limit + 1);
			more = true;
			limit = UINT32_MAX;
		}
		if (!wvm_epoch_next(&e, &a))
			break;
		if (a.act == WVM_EPOCH_SAVE)
			saved = e.d;
		else if (a.act == WVM_EPOCH_LEARNT && a.record.epoch > 1)
			o->learnt = intern_record(&a.record);
		else if (a.act == WVM_EPOCH_SEND)
			o->send[o->sends++] = intern_message(e.self, a.node, &a.msg);
	}
	o->local = intern_local(&e);
	return more;
}

/* Behind the last of the same event, if there is one. Returns its index + 1. */
static uint32_t keep(uint32_t last, const struct outcome *o)
{
	if (x.outcomes_count == x.outcomes_room) {
		x.outcomes_room *= 2;
		x.outcomes = realloc(x.outcomes, x.outcomes_room * sizeof(*x.outcomes));
		if (!x.outcomes)
			ck_abort_msg("no memory");
	}
	x.outcomes[x.outcomes_count] = *o;
	if (last)
		x.outcomes[last - 1].next = x.outcomes_count + 1;
	return ++x.outcomes_count;
}

/* The first outcome + 1, or NOTHING. Outcomes in which the node ends follow. */
static uint32_t outcomes(uint32_t local, uint32_t event)
{
	uint32_t *first = &x.memo[local][event], last;
	struct outcome o;

	if (*first)
		return *first;
	outcome(local, event, UINT32_MAX - 1, &o);
	if (o.local == NOTHING || (o.local == local && !o.sends && !o.learnt)) {
		*first = NOTHING;
		return NOTHING;
	}
	last = *first = keep(0, &o);
	for (uint32_t limit = 0; event != EVENT_END; limit++) {
		if (!outcome(local, event, limit, &o))
			break;
		last = keep(last, &o);
	}
	return *first;
}

/* ---- the search ------------------------------------------------------------------------- */

static bool add(const struct state *s, const struct step *step)
{
	uint64_t at = hash(s, sizeof(*s)) % x.seen_room;

	for (; x.seen[at]; at = (at + 1) % x.seen_room) {
		if (!memcmp(&x.states[x.seen[at] - 1], s, sizeof(*s)))
			return true;
	}
	if (x.r->states == x.c->states_max)
		return false;
	x.states[x.r->states] = *s;
	x.steps[x.r->states] = *step;
	x.seen[at] = (uint32_t)++x.r->states;
	return true;
}

static const char *const kinds[WVM_EPOCH_KINDS] = {
	"", "PREPARE", "PROMISE", "ACCEPT", "ACCEPTED", "REFUSED", "DECIDED", "PULL", "FAR"};

static void tell_event(const struct step *s)
{
	const struct flying *f = &x.messages[s->event % MESSAGES];

	if (s->event == EVENT_TICK)
		fprintf(x.c->trace, "node %u tries again", s->node);
	else if (s->event == EVENT_END)
		fprintf(x.c->trace, "node %u ends and begins anew", s->node);
	else if (s->event >= EVENT_WISH)
		fprintf(x.c->trace, "node %u wishes", s->node);
	else
		fprintf(x.c->trace,
			"%u -> %u %s epoch %u ballot %u.%u other %u.%u record of %u, %u", f->from,
			f->to, kinds[f->msg.kind], f->msg.epoch, wvm_epoch_round(f->msg.ballot),
			wvm_epoch_proposer(f->msg.ballot), wvm_epoch_round(f->msg.other),
			wvm_epoch_proposer(f->msg.other), f->msg.record.node, f->msg.record.state);
	if (s->stopped_after)
		fprintf(x.c->trace, "; it ends after %u actions", s->stopped_after - 1u);
	fputc('\n', x.c->trace);
}

static void tell_way(uint32_t to)
{
	if (to == 0)
		return;
	tell_way(x.steps[to].parent);
	tell_event(&x.steps[to]);
}

/* What a node has is never taken back: its epoch, its promise; and no ballot is used again. */
static bool goes_on(uint32_t before, uint32_t after)
{
	static struct wvm_epoch a, b;

	load(&a, before);
	load(&b, after);
	if (a.d.current.epoch != b.d.current.epoch)
		return a.d.current.epoch < b.d.current.epoch;
	return a.d.promised <= b.d.promised &&
	       (!b.ballot || b.ballot == a.ballot || b.ballot > a.d.promised);
}

/*
 * Whether nothing can come of a message any more, as goes_on() is checked of all transitions:
 * an answer of a ballot that its proposer has left, a record that is known, and a question about a
 * known record by one that knows it.
 */
static bool is_dead(const struct state *s, const struct flying *f)
{
	const struct wvm_epoch *to = (const void *)x.locals[s->local[f->to]];
	const struct wvm_epoch *from = (const void *)x.locals[s->local[f->from]];

	switch (f->msg.kind) {
	case WVM_EPOCH_PROMISE:
	case WVM_EPOCH_ACCEPTED:
	case WVM_EPOCH_REFUSED:
		return to->d.current.epoch >= f->msg.epoch || to->ballot != f->msg.ballot;
	case WVM_EPOCH_DECIDED: return to->d.current.epoch >= f->msg.epoch;
	default:
		return to->d.current.epoch >= f->msg.epoch && from->d.current.epoch >= f->msg.epoch;
	}
}

static void forget_dead(struct state *s)
{
	for (uint32_t w = 0; w < MESSAGES / 64; w++) {
		for (uint64_t bits = s->sent[w]; bits; bits &= bits - 1) {
			uint32_t m = w * 64 + (uint32_t)__builtin_ctzll(bits);

			if (is_dead(s, &x.messages[m]))
				s->sent[w] &= ~(UINT64_C(1) << m % 64);
		}
	}
}

/* The state after an outcome; false if that contradicts what is decided. */
static bool follow(struct state *s, uint32_t node, const struct outcome *o)
{
	s->local[node] = o->local;
	for (uint32_t i = 0; i < o->sends; i++)
		s->sent[o->send[i] / 64] |= UINT64_C(1) << o->send[i] % 64;
	if (o->learnt) {
		uint8_t *decided = &s->decided[x.records[o->learnt - 1].epoch - 2];

		if (*decided && *decided != o->learnt)
			return false;
		*decided = o->learnt;
	}
	return true;
}

/* All outcomes of an event at a node; false to end the search. */
static bool event(uint32_t from, uint32_t node, uint32_t which)
{
	struct step step = {.parent = from, .event = (uint16_t)which, .node = (uint8_t)node};
	uint32_t i = outcomes(x.states[from].local[node], which);
	bool ends = which == EVENT_END;

	if (i == NOTHING)
		return true;
	for (; i; i = x.outcomes[i - 1].next) {
		const struct outcome *o = &x.outcomes[i - 1];
		struct state s = x.states[from];

		if (o->stopped_after || ends) {
			if (s.ends == x.c->ends)
				continue;
			s.ends++;
			s.lives[node]++;
		}
		step.stopped_after = o->stopped_after;
		x.r->transitions++;
		if (!follow(&s, node, o))
			x.r->violation = "two records are decided for one epoch";
		else if (x.c->reduce && !goes_on(x.states[from].local[node], o->local))
			x.r->violation = "an epoch or a promise is taken back";
		if (x.r->violation) {
			if (x.c->trace) {
				tell_way(from);
				tell_event(&step);
			}
			return false;
		}
		if (x.c->reduce)
			forget_dead(&s);
		if (!add(&s, &step))
			return false;
	}
	return true;
}

static bool is_end(const struct state *s)
{
	struct wvm_epoch e;

	for (uint32_t i = 0; i < x.c->nodes; i++) {
		load(&e, s->local[i]);
		if (e.d.current.epoch != 1 + x.c->records)
			return false;
	}
	return true;
}

static bool expand(uint32_t from)
{
	for (uint32_t n = 0; n < x.c->nodes; n++) {
		if (!event(from, n, EVENT_TICK) || !event(from, n, EVENT_END) ||
		    !event(from, n, EVENT_WISH + x.states[from].lives[n]))
			return false;
	}
	for (uint32_t m = 0; m < x.r->messages; m++) {
		if (x.states[from].sent[m / 64] >> m % 64 & 1 && !event(from, x.messages[m].to, m))
			return false;
	}
	return true;
}

static void begin(void)
{
	struct wvm_epoch_record first = {.epoch = 1, .state = WVM_NODE_ACTIVE};
	struct wvm_epoch_durable d;
	struct step none = {0};
	struct state s;

	memset(&s, 0, sizeof(s));
	first.voters = (uint8_t)x.c->voters;
	for (uint32_t i = 0; i < x.c->voters; i++)
		first.voter[i] = i;
	wvm_epoch_first(&d, &first);
	for (uint32_t i = 0; i < x.c->nodes; i++) {
		static struct wvm_epoch e;
		struct wvm_epoch_action a;

		wvm_epoch_init(&e, i, 1, &d);
		while (wvm_epoch_next(&e, &a))
			continue;
		s.local[i] = intern_local(&e);
	}
	add(&s, &none);
}

void epoch_explore(const struct epoch_explore_config *c, struct epoch_explore_report *r)
{
	uint64_t at = 0, level_end = 1;
	struct timespec t0, t1;

	ck_assert(c->nodes <= NODES && c->ends < LIVES && c->states_max < UINT32_MAX / 2);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	memset(&x, 0, sizeof(x));
	memset(r, 0, sizeof(*r));
	x.c = c;
	x.r = r;
	x.locals = room(LOCALS, LOCAL_BYTES);
	x.local_hash = room(2 * LOCALS, sizeof(uint32_t));
	x.memo = room(LOCALS, sizeof(*x.memo));
	x.outcomes_room = 1024;
	x.outcomes = room(x.outcomes_room, sizeof(*x.outcomes));
	x.states = room(c->states_max, sizeof(*x.states));
	x.steps = room(c->states_max, sizeof(*x.steps));
	x.seen_room = 2 * c->states_max + 1;
	x.seen = room(x.seen_room, sizeof(*x.seen));
	begin();
	r->fixed_point = true;
	for (; at < r->states; at++) {
		if (at == level_end) {
			level_end = r->states;
			r->depth++;
		}
		if (!expand((uint32_t)at)) {
			r->fixed_point = false;
			break;
		}
		r->ends += is_end(&x.states[at]);
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	r->seconds = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) * 1e-9;
	free(x.locals);
	free(x.local_hash);
	free(x.memo);
	free(x.outcomes);
	free(x.states);
	free(x.steps);
	free(x.seen);
}

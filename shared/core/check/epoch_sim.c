#include "shared/core/check/epoch_sim.h"

#include <stdbool.h>
#include <string.h>

#include "shared/core/epoch.h"

#define MS         UINT64_C(1000000)
#define NODES      9u
#define FLYING     1024u /* what finds no room is lost */
#define EPOCHS     4096u
#define TROUBLE_NS (15000 * MS)
#define SETTLE_NS  (60000 * MS)
#define NEVER      UINT64_MAX

struct node {
	struct wvm_epoch e;
	struct wvm_epoch_durable disk;
	struct wvm_epoch_record installed; /* the last one of the view that its user took whole */
	uint32_t view;                     /* the epoch of the last record that its user knows */
	bool up, starts;                   /* it may be told what it knows */
	uint64_t up_at;
	uint8_t side; /* of a split network */
};

struct flight {
	uint64_t at;
	uint32_t from, to; /* indexes */
	uint8_t bytes[WVM_EPOCH_MSG_BYTES];
};

static struct {
	struct epoch_sim_report *r;
	uint64_t now, random;
	uint32_t count;
	struct node node[NODES];
	struct flight flight[FLYING];
	uint32_t flying;
	struct wvm_epoch_record history[EPOCHS];
	uint32_t last;                    /* epoch */
	uint32_t loss, repeat, late, end; /* per mille */
	uint64_t trouble_at, gossip_at;
} s;

static uint32_t below(uint32_t n)
{
	s.random = s.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)((s.random >> 33) % n);
}

static bool chance(uint32_t per_mille)
{
	return below(1000) < per_mille;
}

static void wrong(const char *what)
{
	if (!s.r->violation)
		s.r->violation = what;
}

static uint32_t id_of(uint32_t i)
{
	return 3 * i + 1;
}

static bool connected(const struct node *a, const struct node *b)
{
	return b->up && a->side == b->side;
}

/* ---- one node --------------------------------------------------------------------------- */

static void drain(struct node *n);

static void start(struct node *n)
{
	n->up = n->starts = true;
	wvm_epoch_init(&n->e, n->e.self, s.random, &n->disk);
	drain(n);
	/* Its user stored a view, and it ended before it saved that. */
	if (n->up && n->installed.epoch > n->e.d.current.epoch) {
		n->starts = wvm_epoch_install(&n->e, &n->installed, s.now);
		drain(n);
	}
}

static void end(struct node *n)
{
	n->up = false;
	n->up_at = s.now + (1 + below(2000)) * MS;
	s.r->ends++;
}

static void put(struct node *n, uint32_t to, const uint8_t *bytes)
{
	uint64_t delay = chance(s.late) ? below(1500) * MS : (1 + below(5)) * MS;
	struct flight *f = &s.flight[s.flying];

	if (s.flying == FLYING || chance(s.loss)) {
		s.r->losses++;
		return;
	}
	s.flying++;
	f->at = s.now + delay;
	f->from = (uint32_t)(n - s.node);
	f->to = to;
	memcpy(f->bytes, bytes, sizeof(f->bytes));
}

static void send(struct node *n, const struct wvm_epoch_action *a)
{
	uint8_t bytes[WVM_EPOCH_MSG_BYTES];
	uint32_t to = (a->node - 1) / 3;

	if (to >= s.count || id_of(to) != a->node) {
		wrong("a message to a node that is not there");
		return;
	}
	s.r->messages++;
	wvm_epoch_encode(bytes, &a->msg);
	put(n, to, bytes);
	if (chance(s.repeat)) {
		s.r->repeats++;
		put(n, to, bytes);
	}
}

static void learnt(struct node *n, const struct wvm_epoch_action *a)
{
	const struct wvm_epoch_record *r = &a->record;
	bool again = r->epoch <= n->view && n->starts;

	if (!again && r->epoch != n->view + 1)
		wrong("a record is left out, or comes twice");
	if (r->epoch > n->view)
		n->view = r->epoch;
	s.r->won += a->verdict == WVM_EPOCH_WON;
	s.r->lost += a->verdict == WVM_EPOCH_LOST;
	if (r->epoch >= EPOCHS) {
		wrong("more epochs than there is room for");
		return;
	}
	if (!s.history[r->epoch].epoch) {
		s.history[r->epoch] = *r;
		s.r->records += r->epoch > 1;
		s.last = r->epoch > s.last ? r->epoch : s.last;
	} else if (!wvm_epoch_record_same(&s.history[r->epoch], r)) {
		wrong("two records are decided for one epoch");
	}
}

/* Too far behind: it takes the view of the one that said so, if that is to be had. */
static bool take_view(struct node *n, uint32_t from)
{
	struct node *o = &s.node[(from - 1) / 3];
	struct wvm_epoch_record r = o->e.d.current;

	if (!connected(n, o) || r.epoch <= n->e.d.current.epoch)
		return false;
	s.r->views++;
	n->starts = true;
	n->installed = r;
	n->view = r.epoch;
	return wvm_epoch_install(&n->e, &r, s.now);
}

/* Carries actions out; it may end after any of them. */
static void carry_out(struct node *n, uint32_t *behind)
{
	uint32_t left = chance(s.end) ? below(6) : UINT32_MAX;
	struct wvm_epoch_action a;

	while (left && wvm_epoch_next(&n->e, &a)) {
		left--;
		switch (a.act) {
		case WVM_EPOCH_SAVE: n->disk = n->e.d; break;
		case WVM_EPOCH_LEARNT: learnt(n, &a); break;
		case WVM_EPOCH_BEHIND: *behind = a.node; break;
		case WVM_EPOCH_SEND: send(n, &a); break;
		}
	}
	if (!left) {
		s.r->cut++;
		end(n);
	}
	n->starts = false;
}

static void drain(struct node *n)
{
	uint32_t behind = UINT32_MAX;

	carry_out(n, &behind);
	if (n->up && behind != UINT32_MAX && take_view(n, behind))
		carry_out(n, &behind);
	if (n->up && n->e.conflicts)
		wrong("a message contradicts what is decided");
}

static struct wvm_epoch_record any_change(uint32_t epoch)
{
	struct wvm_epoch_record r = {.epoch = epoch,
				     .node = id_of(below(s.count)),
				     .state = (uint8_t)below(WVM_NODE_STATES)};
	uint32_t want = 1 + below(s.count < 7 ? s.count : 7), left = s.count;

	for (uint32_t i = 0; i < s.count; i++, left--) {
		bool out = r.state >= WVM_NODE_OFFLINE && id_of(i) == r.node;

		if (!out && below(left) < want - r.voters)
			r.voter[r.voters++] = id_of(i);
		if (r.voters == want)
			break;
	}
	if (!r.voters) /* all but the one that goes */
		r.voter[r.voters++] = id_of(r.node == id_of(0));
	return r;
}

static bool make_wish(struct node *n)
{
	struct wvm_epoch_record r = any_change(n->e.d.current.epoch + 1);
	bool done = wvm_epoch_wish(&n->e, &r, s.now);

	drain(n);
	return done;
}

/* ---- the world -------------------------------------------------------------------------- */

static void deliver(uint32_t which)
{
	struct flight f = s.flight[which];
	struct node *n = &s.node[f.to];
	struct wvm_epoch_msg m;

	s.flight[which] = s.flight[--s.flying];
	if (!connected(&s.node[f.from], n) && (!n->up || s.node[f.from].side != n->side))
		return;
	if (!wvm_epoch_decode(&m, f.bytes, sizeof(f.bytes))) {
		wrong("a message does not decode");
		return;
	}
	wvm_epoch_message(&n->e, id_of(f.from), &m, s.now);
	drain(n);
}

/* Somebody's header, or gossip, tells somebody else of its epoch. */
static void gossip(void)
{
	struct node *from = &s.node[below(s.count)], *to = &s.node[below(s.count)];

	s.gossip_at = s.now + (1 + below(40)) * MS;
	if (!from->up || !connected(from, to))
		return;
	wvm_epoch_heard(&to->e, from->e.self, from->e.d.current.epoch, s.now);
	drain(to);
}

static void trouble(void)
{
	struct node *n = &s.node[below(s.count)];

	s.trouble_at = s.now + below(60) * MS;
	switch (below(16)) {
	case 0:
		if (n->up)
			end(n);
		break;
	case 1:
		s.r->splits++;
		for (uint32_t i = 0; i < s.count; i++)
			s.node[i].side = (uint8_t)below(2);
		break;
	case 2:
	case 3:
		for (uint32_t i = 0; i < s.count; i++)
			s.node[i].side = 0;
		break;
	case 4:
		if (n->up) {
			wvm_epoch_withdraw(&n->e);
			drain(n);
		}
		break;
	default:
		if (n->up)
			make_wish(n);
		break;
	}
}

/* The next thing that happens, whatever it is. */
static void step(void)
{
	uint64_t at = s.gossip_at < s.trouble_at ? s.gossip_at : s.trouble_at;
	uint32_t which = UINT32_MAX, node = UINT32_MAX;

	for (uint32_t i = 0; i < s.flying; i++) {
		if (s.flight[i].at < at) {
			at = s.flight[i].at;
			which = i;
		}
	}
	for (uint32_t i = 0; i < s.count; i++) {
		struct node *n = &s.node[i];
		uint64_t due = n->up ? wvm_epoch_deadline(&n->e) : n->up_at;

		if (due < at) {
			at = due;
			node = i;
		}
	}
	s.now = at > s.now ? at : s.now;
	if (node != UINT32_MAX) {
		if (!s.node[node].up) {
			start(&s.node[node]);
			return;
		}
		wvm_epoch_tick(&s.node[node].e, s.now);
		drain(&s.node[node]);
	} else if (which != UINT32_MAX) {
		deliver(which);
	} else if (s.gossip_at <= s.trouble_at) {
		gossip();
	} else {
		trouble();
	}
}

static bool settled(uint32_t epoch)
{
	for (uint32_t i = 0; i < s.count; i++) {
		const struct node *n = &s.node[i];

		if (!n->up || n->e.wish.epoch || n->view < epoch || n->view != s.node[0].view)
			return false;
	}
	return true;
}

static void settle(uint32_t epoch, const char *what)
{
	uint64_t limit = s.now + SETTLE_NS;

	while (!s.r->violation && !settled(epoch)) {
		if (s.now > limit) {
			wrong(what);
			return;
		}
		step();
	}
}

static void heal(void)
{
	s.loss = s.repeat = s.late = s.end = 0;
	s.trouble_at = NEVER;
	for (uint32_t i = 0; i < s.count; i++)
		s.node[i].side = 0;
}

static void begin(uint64_t seed, struct epoch_sim_report *r)
{
	struct wvm_epoch_record first;

	memset(&s, 0, sizeof(s));
	memset(r, 0, sizeof(*r));
	s.r = r;
	s.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	s.count = 3 + below(5) + below(3);
	s.loss = below(4) * 100;
	s.repeat = below(3) * 100;
	s.late = below(3) * 100;
	first = any_change(1);
	for (uint32_t i = 0; i < s.count; i++) {
		struct node *n = &s.node[i];

		n->e.self = id_of(i);
		wvm_epoch_first(&n->disk, &first);
		start(n);
	}
	s.end = below(3) * 10;
}

void epoch_sim(uint64_t seed, struct epoch_sim_report *r)
{
	begin(seed, r);
	while (!r->violation && s.now < TROUBLE_NS)
		step();
	if (r->violation)
		return;
	heal();
	settle(s.last, "not everybody comes to the same epoch");
	r->settled_ns = s.now - TROUBLE_NS;
	for (uint32_t i = 0; i < 3 && !r->violation; i++) {
		uint32_t epoch = s.last;

		if (!make_wish(&s.node[below(s.count)]))
			wrong("a wish is not taken");
		settle(epoch + 1, "nothing new is agreed on");
	}
	for (uint32_t i = 1; i <= s.last; i++) {
		if (!s.history[i].epoch)
			wrong("there is an epoch without a record");
	}
}

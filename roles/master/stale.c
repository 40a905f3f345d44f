#include "roles/master/stale.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ring/post.h"
#include "roles/master/code.h"
#include "roles/master/node.h"
#include "shared/core/assert.h"

#define ANSWER_NS  UINT64_C(2000000000) /* less than a writer's deadline: it still gets its page */
#define HOLD_NS    UINT64_C(100000)     /* what a writer keeps, before a mark takes it away again */
#define PAGES_MAX  256u                 /* raised and not answered; more count as every page */
#define HELD_MAX   64u
#define WRITES_MAX 64u
#define MARKS_MAX  64u

/* Pages that a client is told of and has not answered yet. */
struct raised {
	uint64_t first, count, target, since_ns;
	uint32_t vm;
	uint8_t client;
};

/* Of one client, where there was no room for its pages one by one: every page of the shard. */
struct crowd {
	uint64_t target;
	uint64_t oldest, since_ns; /* a target of then: whether it answers at all */
};

struct held {
	struct wvm_msg msg;
	uint32_t member, vm;
	uint64_t page;
	bool data;
	uint8_t bytes[WVM_PAGE_BYTES];
};

/* A page that threads of programs wait to store to; then for a moment one that they may. */
struct written {
	uint64_t page, waiters, until_ns;
	uint32_t vm;
};

struct mark {
	uint64_t page, token;
	uint32_t vm;
	uint8_t client;
};

struct wvm_stale {
	struct wvm_node_shard *s;
	uint64_t watching; /* clients that translate */
	uint64_t ring;     /* of those, to be rung at the end of this turn */
	uint64_t late;     /* of those, reported */
	uint64_t crowded;
	unsigned raised_count, held_first, held_count, written_count, mark_count;
	const struct written *granting;
	struct wvm_timer timer;
	struct wvm_code *code[WVM_CLIENTS_MAX];
	struct crowd crowd[WVM_CLIENTS_MAX];
	struct raised raised[PAGES_MAX];
	struct written written[WRITES_MAX];
	struct mark mark[MARKS_MAX];
	struct held sending;
	struct held held[HELD_MAX]; /* in order, from held_first on, round */
};

#define COUNT(t, field, n) \
	__atomic_store_n(&(t)->s->code.field, (t)->s->code.field + (n), __ATOMIC_RELAXED)

static uint64_t bit(unsigned client)
{
	return UINT64_C(1) << client;
}

/* ---- what is raised ---------------------------------------------------------------------- */

static void arm(struct wvm_stale *t, uint64_t at_ns)
{
	if (!wvm_timer_armed(&t->timer))
		wvm_shard_arm_at(t->s->shard, &t->timer, at_ns);
}

static void note(struct wvm_stale *t, const struct raised *r)
{
	struct crowd *c = &t->crowd[r->client];

	t->ring |= bit(r->client);
	arm(t, r->since_ns + ANSWER_NS);
	if (t->raised_count < PAGES_MAX) {
		t->raised[t->raised_count++] = *r;
		return;
	}
	if (!(t->crowded & bit(r->client)))
		*c = (struct crowd){.oldest = r->target, .since_ns = r->since_ns};
	c->target = r->target;
	t->crowded |= bit(r->client);
}

static void raise_in(struct wvm_stale *t, unsigned client, uint32_t vm, uint64_t first,
		     uint64_t count)
{
	struct raised r = {.first = first,
			   .count = count,
			   .since_ns = t->s->shard->now_ns,
			   .vm = vm,
			   .client = (uint8_t)client};
	uint64_t n = wvm_area_raise(t->code[client], vm, first, count, &r.target);

	COUNT(t, raised, n);
	if (n)
		note(t, &r);
}

void wvm_stale_left(struct wvm_node_shard *s, uint32_t vm, uint64_t page)
{
	struct wvm_stale *t = s->stale;

	for (uint64_t left = t->watching; left; left &= left - 1)
		raise_in(t, (unsigned)__builtin_ctzll(left), vm, page, 1);
}

/* Whether a client has yet to answer that one of the pages changes. */
static bool waits(const struct wvm_stale *t, uint32_t vm, uint64_t first, uint64_t count)
{
	if (t->crowded)
		return true;
	for (unsigned i = 0; i < t->raised_count; i++) {
		const struct raised *r = &t->raised[i];

		if (r->vm == vm && r->first < first + count && first < r->first + r->count)
			return true;
	}
	return false;
}

/* ---- messages that wait ------------------------------------------------------------------ */

bool wvm_stale_hold(struct wvm_node_shard *s, const struct wvm_action *a, const uint8_t *page)
{
	struct wvm_stale *t = s->stale;
	struct held *h;

	if (!wvm_node_is_to_home(&a->msg) || !waits(t, a->vm, a->page, 1))
		return false;
	COUNT(t, waited, 1);
	if (t->held_count == HELD_MAX) {
		COUNT(t, dropped, 1);
		return true;
	}
	h = &t->held[(t->held_first + t->held_count++) % HELD_MAX];
	h->msg = a->msg;
	h->member = a->member;
	h->vm = a->vm;
	h->page = a->page;
	h->data = page != NULL;
	if (page)
		memcpy(h->bytes, page, WVM_PAGE_BYTES);
	return true;
}

/* In their order; what still has to wait goes round. What they cause may put more behind them. */
static void send_held(struct wvm_stale *t)
{
	struct held *h = &t->sending;

	for (unsigned n = t->held_count; n; n--) {
		*h = t->held[t->held_first];
		t->held_first = (t->held_first + 1) % HELD_MAX;
		t->held_count--;
		if (waits(t, h->vm, h->page, 1)) {
			t->held[(t->held_first + t->held_count++) % HELD_MAX] = *h;
			continue;
		}
		wvm_node_send(t->s, h->member, &h->msg, h->data ? h->bytes : NULL);
		wvm_node_drain(t->s);
	}
}

/* ---- programs that wait to store --------------------------------------------------------- */

/* Whether it is for those who have waited, and for the page that they have waited for. */
static bool is_granting(const struct wvm_stale *t, const struct wvm_action *a)
{
	const struct written *w = t->granting;

	return w && w->vm == a->vm && w->page == a->page;
}

bool wvm_stale_narrows(const struct wvm_node_shard *s, const struct wvm_action *a)
{
	return is_granting(s->stale, a);
}

/* The pages that an action opens, and whether that concerns a client which translates. */
static bool concerns(const struct wvm_stale *t, const struct wvm_action *a, uint64_t *first,
		     uint64_t *count)
{
	*first = a->page - (a->kind == WVM_ACT_FILL ? a->below : 0);
	*count = a->kind == WVM_ACT_FILL ? a->below + a->count : 1;
	if (!t->watching || !a->waiters)
		return false;
	/* They have waited: if it was marked since it is not closed, and its client asks for that.
	 */
	if (is_granting(t, a))
		return false;
	for (uint64_t left = t->watching; left; left &= left - 1) {
		unsigned c = (unsigned)__builtin_ctzll(left);

		if (a->waiters & ~bit(c) && wvm_area_marked(t->code[c], a->vm, *first, *count))
			return true;
	}
	return waits(t, a->vm, *first, *count);
}

static struct written *find_written(struct wvm_stale *t, uint32_t vm, uint64_t page)
{
	for (unsigned i = 0; i < t->written_count; i++)
		if (t->written[i].vm == vm && t->written[i].page == page)
			return &t->written[i];
	return NULL;
}

bool wvm_stale_install(struct wvm_node_shard *s, const struct wvm_action *a)
{
	uint64_t first, count;

	return !a->writable || !concerns(s->stale, a, &first, &count);
}

bool wvm_stale_grant(struct wvm_node_shard *s, const struct wvm_action *a)
{
	struct wvm_stale *t = s->stale;
	struct written *w = NULL;
	uint64_t first, count;

	if (!concerns(t, a, &first, &count))
		return true;
	for (uint64_t left = t->watching; left; left &= left - 1) {
		unsigned c = (unsigned)__builtin_ctzll(left);

		if (a->waiters & ~bit(c))
			raise_in(t, c, a->vm, first, count);
	}
	COUNT(t, writers, 1);
	w = find_written(t, a->vm, a->page);
	if (!w && t->written_count < WRITES_MAX) {
		w = &t->written[t->written_count++];
		*w = (struct written){.vm = a->vm, .page = a->page};
	}
	if (!w) {
		/* They come again, until there is room. */
		wvm_mem_wake(s->node->vms[a->vm], a->page, a->waiters);
		return false;
	}
	w->until_ns = 0;
	w->waiters |= a->waiters;
	return false;
}

/* As if the threads had come just now, when nothing is in their way. */
static void let_write(struct wvm_stale *t, struct written *w)
{
	struct wvm_node_shard *s = t->s;
	uint64_t waiters = w->waiters;
	struct written is = *w;

	w->waiters = 0;
	w->until_ns = s->shard->now_ns + HOLD_NS;
	wvm_shard_arm_at(s->shard, &t->timer, w->until_ns);
	t->granting = &is;
	for (; waiters; waiters &= waiters - 1) {
		unsigned c = (unsigned)__builtin_ctzll(waiters);

		if (!wvm_node_holder_room(s, is.vm, is.page))
			wvm_mem_fail(s->node->vms[is.vm], is.page, bit(c), ENOSPC);
		else if (!wvm_core_fault(s->core, s->shard->now_ns, is.vm, is.page, true, c))
			wvm_mem_wake(s->node->vms[is.vm], is.page, bit(c));
		wvm_node_drain(s);
	}
	t->granting = NULL;
}

static void let_all_write(struct wvm_stale *t)
{
	for (unsigned i = 0; i < t->written_count; i++) {
		struct written *w = &t->written[i];

		if (w->waiters && !waits(t, w->vm, w->page, 1))
			let_write(t, w);
	}
}

/* ---- marks that want to know ------------------------------------------------------------- */

static void close_page(struct wvm_stale *t, const struct mark *m)
{
	struct wvm_node *n = t->s->node;
	int r = -EINVAL;

	if (t->watching & bit(m->client)) {
		r = wvm_mem_protect_others(n->vms[m->vm], m->page, m->client);
		if (!r)
			wvm_area_close(t->code[m->client], m->vm, m->page);
		else
			r = -EAGAIN;
		COUNT(t, marks, 1);
	}
	wvm_clients_reply(n->clients, t->s->index, m->client, m->token, r);
}

static void begin_mark(struct wvm_node_shard *s, const struct mark *m)
{
	struct wvm_stale *t = s->stale;

	wvm_runs_end(s);
	if (!find_written(t, m->vm, m->page) && !waits(t, m->vm, m->page, 1))
		close_page(t, m);
	else if (t->mark_count < MARKS_MAX)
		t->mark[t->mark_count++] = *m;
	else
		wvm_clients_reply(s->node->clients, s->index, m->client, m->token, -EAGAIN);
}

static void on_mark(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct mark m;

	WVM_ASSERT(len == sizeof(m));
	memcpy(&m, data, sizeof(m));
	begin_mark(ctx, &m);
}

void wvm_stale_mark(struct wvm_node *node, unsigned client, uint32_t vm, uint64_t page,
		    uint64_t token)
{
	struct mark m = {.page = page, .token = token, .vm = vm, .client = (uint8_t)client};
	struct wvm_node_shard *from = &node->shards[0];
	struct wvm_node_shard *to = &node->shards[wvm_holder_shard(node, page)];

	if (from == to)
		begin_mark(to, &m);
	else if (wvm_post(from->shard, to->shard, on_mark, to, &m, sizeof(m)))
		wvm_clients_reply(node->clients, 0, client, token, -EAGAIN);
}

static void close_marked(struct wvm_stale *t)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < t->mark_count; i++) {
		const struct mark *m = &t->mark[i];

		if (find_written(t, m->vm, m->page) || waits(t, m->vm, m->page, 1))
			t->mark[kept++] = *m;
		else
			close_page(t, m);
	}
	t->mark_count = kept;
}

/* ---- going on ---------------------------------------------------------------------------- */

static bool answered(struct wvm_stale *t, unsigned client, uint64_t target)
{
	return !(t->watching & bit(client)) || wvm_area_told(t->code[client], target);
}

static void forget_answered(struct wvm_stale *t)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < t->raised_count; i++)
		if (!answered(t, t->raised[i].client, t->raised[i].target))
			t->raised[kept++] = t->raised[i];
	COUNT(t, answers, t->raised_count - kept);
	t->raised_count = kept;
	for (uint64_t left = t->crowded; left; left &= left - 1) {
		unsigned c = (unsigned)__builtin_ctzll(left);

		if (answered(t, c, t->crowd[c].target)) {
			t->crowded &= ~bit(c);
		} else if (answered(t, c, t->crowd[c].oldest)) {
			t->crowd[c].oldest = t->crowd[c].target;
			t->crowd[c].since_ns = t->s->shard->now_ns;
		}
	}
}

static void forget_written(struct wvm_stale *t, uint64_t now_ns)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < t->written_count; i++)
		if (t->written[i].waiters || t->written[i].until_ns > now_ns)
			t->written[kept++] = t->written[i];
	t->written_count = kept;
}

static void go_on(struct wvm_stale *t)
{
	wvm_runs_end(t->s);
	forget_answered(t);
	send_held(t);
	let_all_write(t);
	close_marked(t);
}

void wvm_stale_told(struct wvm_node_shard *s, unsigned client)
{
	struct wvm_stale *t = s->stale;

	go_on(t);
	/* Of what was raised later it will be told again. */
	for (unsigned i = 0; i < t->raised_count; i++)
		if (t->raised[i].client == client)
			t->ring |= bit(client);
	t->ring |= t->crowded & bit(client);
}

/* Whether the client is late with something; else *next_ns is when it would be, at most. */
static bool is_late(const struct wvm_stale *t, unsigned client, uint64_t now_ns, uint64_t *next_ns)
{
	uint64_t since = UINT64_MAX;

	for (unsigned i = 0; i < t->raised_count; i++)
		if (t->raised[i].client == client && t->raised[i].since_ns < since)
			since = t->raised[i].since_ns;
	if (t->crowded & bit(client) && t->crowd[client].since_ns < since)
		since = t->crowd[client].since_ns;
	if (since == UINT64_MAX)
		return false;
	if (now_ns >= since + ANSWER_NS)
		return true;
	if (since + ANSWER_NS < *next_ns)
		*next_ns = since + ANSWER_NS;
	return false;
}

static void on_timer(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_stale *t =
		(struct wvm_stale *)((char *)timer - offsetof(struct wvm_stale, timer));
	uint64_t next_ns = UINT64_MAX;

	forget_written(t, now_ns);
	go_on(t);
	for (uint64_t left = t->watching & ~t->late; left; left &= left - 1) {
		unsigned c = (unsigned)__builtin_ctzll(left);

		if (!is_late(t, c, now_ns, &next_ns))
			continue;
		t->late |= bit(c);
		wvm_clients_code_late(t->s->node->clients, t->s->index, c);
	}
	for (unsigned i = 0; i < t->written_count; i++)
		if (!t->written[i].waiters && t->written[i].until_ns < next_ns)
			next_ns = t->written[i].until_ns;
	if (next_ns != UINT64_MAX)
		wvm_shard_arm_at(t->s->shard, timer, next_ns);
}

void wvm_stale_turn(struct wvm_node_shard *s)
{
	struct wvm_stale *t = s->stale;

	for (; t->ring; t->ring &= t->ring - 1)
		wvm_clients_code_raised(s->node->clients, s->index,
					(unsigned)__builtin_ctzll(t->ring));
}

/* ---- clients ----------------------------------------------------------------------------- */

void wvm_stale_client(struct wvm_node_shard *s, unsigned client, struct wvm_code *code)
{
	s->stale->code[client] = code;
	s->stale->late &= ~bit(client);
	s->stale->watching |= bit(client);
}

void wvm_stale_client_gone(struct wvm_node_shard *s, unsigned client)
{
	struct wvm_stale *t = s->stale;
	unsigned kept = 0;

	t->watching &= ~bit(client);
	t->ring &= ~bit(client);
	for (unsigned i = 0; i < t->written_count; i++)
		t->written[i].waiters &= ~bit(client);
	for (unsigned i = 0; i < t->mark_count; i++)
		if (t->mark[i].client != client)
			t->mark[kept++] = t->mark[i];
		else /* the slot is not given away before all that is owed was answered */
			wvm_clients_reply(s->node->clients, s->index, client, t->mark[i].token,
					  -EINVAL);
	t->mark_count = kept;
	go_on(t);
}

int wvm_stale_init(struct wvm_node_shard *s)
{
	s->stale = calloc(1, sizeof(*s->stale));
	if (!s->stale)
		return -ENOMEM;
	s->stale->s = s;
	s->stale->timer.fire = on_timer;
	return 0;
}

void wvm_stale_free(struct wvm_node_shard *s)
{
	free(s->stale);
}

#include "roles/master/pins.h"

#include <errno.h>
#include <stdlib.h>

#include "ring/post.h"
#include "roles/master/node.h"
#include "shared/core/assert.h"

#define PAGES_PER_TURN 256u /* of one part, that are held already: then others get a turn */
#define RETRY_NS       UINT64_C(100000)

/* What travels between shards. */
struct part_message {
	uint64_t first, count;
	uint32_t vm;
	unsigned client, index, shard;
	int error;
};

static bool mine(const struct wvm_node_shard *s, uint64_t page)
{
	return wvm_holder_shard(s->node, page) == s->index;
}

static void release(struct wvm_node_shard *s, uint32_t vm, uint64_t first, uint64_t end)
{
	wvm_runs_end(s);
	for (uint64_t page = first; page < end; page++)
		if (mine(s, page))
			wvm_core_unpin(s->core, s->shard->now_ns, vm, page);
}

static void on_release(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_node_shard *s = ctx;
	const struct part_message *m = data;

	/* Of a program that died before its pins were taken over: there is nothing to release. */
	wvm_adopt_turn(s);
	if (s->adopting)
		return;
	release(s, m->vm, m->first, m->first + m->count);
	wvm_node_drain(s);
}

/* One message that waits for room in another shard's inbox. */
struct wvm_pin_letter {
	wvm_post_fn fn;
	unsigned to;
	struct part_message message;
};

static bool send_letter(struct wvm_node_shard *from, const struct wvm_pin_letter *l)
{
	struct wvm_node_shard *target = &from->node->shards[l->to];

	return !wvm_post(from->shard, target->shard, l->fn, target, &l->message,
			 sizeof(l->message));
}

/*
 * Other messages between shards may be lost and are asked for again; these may
 * not. They wait here when an inbox is full, in order, and never block the shard.
 */
static void post(struct wvm_node_shard *from, unsigned to, wvm_post_fn fn,
		 const struct part_message *m)
{
	struct wvm_pins *pins = &from->pins;
	struct wvm_pin_letter l = {.fn = fn, .to = to, .message = *m};

	if (to == from->index) {
		fn(from->shard, from, m, sizeof(*m));
		return;
	}
	if (pins->letters_first == pins->letters_end && send_letter(from, &l))
		return;
	WVM_ASSERT(pins->letters_end - pins->letters_first < WVM_PIN_LETTERS);
	pins->letters[pins->letters_end++ % WVM_PIN_LETTERS] = l;
}

bool wvm_pins_turn(struct wvm_node_shard *s)
{
	struct wvm_pins *pins = &s->pins;

	while (pins->letters_first != pins->letters_end &&
	       send_letter(s, &pins->letters[pins->letters_first % WVM_PIN_LETTERS]))
		pins->letters_first++;
	return pins->letters_first != pins->letters_end;
}

bool wvm_pins_busy(const struct wvm_node_shard *s)
{
	return s->pins.letters_end - s->pins.letters_first > WVM_PIN_LETTERS / 4;
}

bool wvm_pins_none(const struct wvm_node_shard *s)
{
	for (unsigned i = 0; i < WVM_PINS_MAX; i++)
		if (s->pins.requests[i].used)
			return false;
	return true;
}

/* ---- shard 0 --------------------------------------------------------------------------- */

static void on_part_done(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_node_shard *s = ctx;
	const struct part_message *m = data;
	struct wvm_pin_request *r = &s->pins.requests[m->index];
	struct part_message undo = {.vm = r->vm, .first = r->first, .count = r->count};

	if (m->error)
		r->error = m->error;
	else
		r->done |= UINT64_C(1) << m->shard;
	if (--r->left)
		return;
	if (r->error)
		for (unsigned i = 0; i < s->node->shard_count; i++)
			if (r->done >> i & 1)
				post(s, i, on_release, &undo);
	r->used = false;
	wvm_clients_reply(s->node->clients, 0, r->client, r->token, r->error);
}

static void on_part_begin(struct wvm_shard *self, void *ctx, const void *data, size_t len);

void wvm_pins_begin(struct wvm_node_shard *s, unsigned client, uint32_t vm, uint64_t first,
		    uint64_t count, uint64_t token)
{
	unsigned index = 0;
	struct part_message m = {.vm = vm, .first = first, .count = count, .client = client};

	while (index < WVM_PINS_MAX && s->pins.requests[index].used)
		index++;
	if (index == WVM_PINS_MAX || wvm_pins_busy(s)) {
		wvm_clients_reply(s->node->clients, 0, client, token, -EAGAIN);
		return;
	}
	s->pins.requests[index] = (struct wvm_pin_request){.token = token,
							   .first = first,
							   .count = count,
							   .vm = vm,
							   .client = client,
							   .left = s->node->shard_count,
							   .used = true};
	m.index = index;
	for (unsigned i = 0; i < s->node->shard_count; i++)
		post(s, i, on_part_begin, &m);
}

void wvm_pins_end(struct wvm_node_shard *s, uint32_t vm, uint64_t first, uint64_t count)
{
	struct part_message m = {.vm = vm, .first = first, .count = count};

	for (unsigned i = 0; i < s->node->shard_count; i++)
		post(s, i, on_release, &m);
}

/* ---- every shard ----------------------------------------------------------------------- */

static void part_done(struct wvm_node_shard *s, struct wvm_pin_part *p, int error)
{
	struct part_message m = {
		.index = (unsigned)(p - s->pins.parts), .shard = s->index, .error = error};

	if (error)
		release(s, p->vm, p->first, p->next);
	p->used = false;
	post(s, 0, on_part_done, &m);
}

/* Pins on until the core has to ask, the part is done, or others are to have a turn. */
static void advance(struct wvm_node_shard *s, struct wvm_pin_part *p)
{
	unsigned budget = PAGES_PER_TURN;

	if (p->abandoned) {
		part_done(s, p, -ECANCELED);
		return;
	}
	wvm_runs_end(s);
	for (; p->next < p->end; p->next++) {
		enum wvm_pin_result result;

		if (!mine(s, p->next))
			continue;
		if (!budget--) {
			wvm_shard_arm(s->shard, &s->pins.retry, 0);
			return;
		}
		if (!wvm_node_holder_entry(s, p->vm, p->next)) {
			part_done(s, p, -ENOSPC);
			return;
		}
		result = wvm_core_pin(s->core, s->shard->now_ns, p->vm, p->next);
		if (result == WVM_PIN_HELD)
			continue;
		if (result == WVM_PIN_MANY) {
			part_done(s, p, -EOVERFLOW);
			return;
		}
		p->asked = result == WVM_PIN_ASKED;
		if (!p->asked)
			wvm_shard_arm(s->shard, &s->pins.retry, RETRY_NS);
		return;
	}
	part_done(s, p, 0);
}

static void on_part_begin(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_node_shard *s = ctx;
	const struct part_message *m = data;
	struct wvm_pin_part *p = &s->pins.parts[m->index];

	*p = (struct wvm_pin_part){.first = m->first,
				   .end = m->first + m->count,
				   .next = m->first,
				   .vm = m->vm,
				   .client = m->client,
				   .used = true};
	advance(s, p);
	wvm_node_drain(s);
}

void wvm_pins_page(struct wvm_node_shard *s, uint32_t vm, uint64_t page, int error)
{
	for (unsigned i = 0; i < WVM_PINS_MAX; i++) {
		struct wvm_pin_part *p = &s->pins.parts[i];

		if (!p->used || !p->asked || p->vm != vm || p->next != page)
			continue;
		p->asked = false;
		if (error) {
			part_done(s, p, error);
			continue;
		}
		p->next++;
		advance(s, p);
	}
}

static void retry(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_pins *pins =
		(struct wvm_pins *)((char *)timer - offsetof(struct wvm_pins, retry));

	for (unsigned i = 0; i < WVM_PINS_MAX; i++)
		if (pins->parts[i].used && !pins->parts[i].asked)
			advance(pins->shard, &pins->parts[i]);
	wvm_node_drain(pins->shard);
}

void wvm_pins_client_gone(struct wvm_node_shard *s, unsigned client)
{
	for (unsigned i = 0; i < WVM_PINS_MAX; i++) {
		struct wvm_pin_part *p = &s->pins.parts[i];

		/* One that waits for the core ends when the core has answered. */
		if (p->used && p->client == client)
			p->abandoned = true;
	}
}

int wvm_pins_init(struct wvm_node_shard *s)
{
	s->pins.shard = s;
	s->pins.retry.fire = retry;
	if (s->node->shard_count == 1)
		return 0;
	s->pins.letters = calloc(WVM_PIN_LETTERS, sizeof(*s->pins.letters));
	return s->pins.letters ? 0 : -ENOMEM;
}

void wvm_pins_free(struct wvm_node_shard *s)
{
	free(s->pins.letters);
}

/*
 * Whole exchanges between two and three real cores, each run again and again
 * with one message lost, doubled, or held back until a certain later one has
 * arrived: every message of the exchange in turn, and every later one. Every
 * load sees what was stored last, and every access succeeds.
 */
#include <check.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/core.h"

#define NODES_MAX   3u
#define CLIENTS     2u
#define ACCESSES    16u
#define FLIGHTS     64u
#define VM_ID       7u
#define SEGMENT     1408u
#define LATENCY_NS  UINT64_C(20000)
#define SPACING_NS  UINT64_C(400000) /* longer than an undisturbed exchange */
#define LONGEST_NS  UINT64_C(4000000000)
#define NEVER       UINT32_MAX
#define COPY_OFFSET 1360u /* a word in each segment: a page of two stores is noticed */
#define COPIES      4u

/* One load or store by a thread of its own. All are of page 0, whose home is node 0. */
struct access {
	uint32_t slot; /* accesses of one slot begin together */
	uint32_t node;
	uint32_t client;
	bool store;
};

struct scenario {
	const char *name;
	uint32_t nodes;
	struct access access[ACCESSES]; /* one with nodes == 0 has none left: `count` */
	uint32_t count;
};

enum fate_kind { FATE_NONE, FATE_LOSE, FATE_DOUBLE, FATE_DELAY };

/* Message `index`, counted as they are sent, is lost, or comes (again) right after message `past`.
 */
struct fate {
	enum fate_kind kind;
	uint32_t index, past;
};

struct flight {
	uint64_t at_ns;
	uint32_t index; /* of the message; NEVER: free */
	uint32_t node;
	struct wvm_msg msg;
	uint8_t bytes[SEGMENT];
};

struct node {
	struct wvm_core *core;
	uint8_t *outbox;
	struct wvm_home_page home;
	struct wvm_home_unit unit;
	struct wvm_held_page held;
	struct wvm_held_unit held_unit;
	uint8_t store[WVM_PAGE_BYTES], ram[WVM_PAGE_BYTES];
	bool present, stores[CLIENTS];
};

enum progress { NOT_YET, RUNNABLE, WAITING, DONE };

struct net {
	const struct scenario *scenario;
	struct fate fate[2];
	struct wvm_member list[NODES_MAX];
	struct wvm_members members;
	struct wvm_slices slices;
	struct node nodes[NODES_MAX];
	enum progress progress[ACCESSES + NODES_MAX];
	struct access access[ACCESSES + NODES_MAX];
	uint32_t accesses;
	uint32_t sent;
	uint64_t now_ns, truth;
	struct flight flights[FLIGHTS]; /* the last: not cleared with the rest, for speed */
};

static void describe(const struct net *n, char *text, size_t room)
{
	static const char *const kinds[] = {"none", "lose", "double", "delay"};

	snprintf(text, room, "%s, %s %u past %u, %s %u past %u, at %lu ns", n->scenario->name,
		 kinds[n->fate[0].kind], n->fate[0].index, n->fate[0].past, kinds[n->fate[1].kind],
		 n->fate[1].index, n->fate[1].past, n->now_ns);
}

#define must(n, cond)                                         \
	do {                                                  \
		if (!(cond)) {                                \
			char text_[200];                      \
			describe(n, text_, sizeof(text_));    \
			ck_abort_msg("%s: %s", text_, #cond); \
		}                                             \
	} while (0)

/* ---- the network ----------------------------------------------------------------------- */

static void put(struct net *n, uint64_t at_ns, uint32_t index, uint32_t node,
		const struct wvm_msg *msg, const uint8_t *bytes)
{
	uint32_t i = 0;

	while (i < FLIGHTS && n->flights[i].index != NEVER)
		i++;
	must(n, i < FLIGHTS);
	n->flights[i].at_ns = at_ns;
	n->flights[i].index = index;
	n->flights[i].node = node;
	n->flights[i].msg = *msg;
	if (msg->payload_len)
		memcpy(n->flights[i].bytes, bytes, msg->payload_len);
}

static void transmit(struct net *n, uint32_t to, const struct wvm_msg *msg, const uint8_t *bytes)
{
	uint64_t at_ns = n->now_ns + LATENCY_NS;
	uint32_t index = n->sent++;

	for (uint32_t i = 0; i < 2; i++) {
		const struct fate *f = &n->fate[i];

		if (f->kind == FATE_NONE || f->index != index)
			continue;
		if (f->kind == FATE_LOSE)
			return;
		/* Not for ever, should the other never come; two of them in turn within the time.
		 */
		put(n, n->now_ns + LONGEST_NS / 4, index, to, msg, bytes);
		if (f->kind == FATE_DELAY)
			return;
	}
	put(n, at_ns, index, to, msg, bytes);
}

/* Message `index` has arrived: what was to come after it comes now. */
static void let_go(struct net *n, uint32_t index)
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct fate *f = &n->fate[i];

		if (f->kind < FATE_DOUBLE || f->past != index)
			continue;
		for (uint32_t j = 0; j < FLIGHTS; j++)
			if (n->flights[j].index == f->index &&
			    n->flights[j].at_ns > n->now_ns + LATENCY_NS)
				n->flights[j].at_ns = n->now_ns;
	}
}

static void send_page(struct net *n, uint32_t to, struct wvm_msg *msg, const uint8_t *page)
{
	msg->seg_total = WVM_PAGE_BYTES;
	for (uint32_t at = 0; at < WVM_PAGE_BYTES; at += SEGMENT) {
		msg->seg_offset = at;
		msg->payload_len = WVM_PAGE_BYTES - at < SEGMENT ? WVM_PAGE_BYTES - at : SEGMENT;
		transmit(n, to, msg, page + at);
	}
}

/* ---- a node ---------------------------------------------------------------------------- */

static void wake(struct net *n, uint32_t node, uint64_t clients)
{
	for (uint32_t i = 0; i < n->accesses; i++)
		if (n->progress[i] == WAITING && n->access[i].node == node &&
		    clients >> n->access[i].client & 1)
			n->progress[i] = RUNNABLE;
}

static void lift(struct net *n, uint32_t node, uint64_t clients)
{
	for (uint32_t c = 0; c < CLIENTS; c++)
		if (clients >> c & 1)
			n->nodes[node].stores[c] = true;
}

static void act_send(struct net *n, uint32_t node, const struct wvm_action *a)
{
	static const uint8_t zeros[WVM_PAGE_BYTES];
	struct node *self = &n->nodes[node];
	const uint8_t *page = NULL;
	struct wvm_msg msg = a->msg;

	if (a->source == WVM_DATA_STORE)
		page = self->store;
	else if (a->source == WVM_DATA_RAM)
		page = self->ram;
	else if (a->source == WVM_DATA_OUTBOX)
		page = self->outbox + (size_t)a->slot * WVM_PAGE_BYTES;
	if (page && !memcmp(page, zeros, WVM_PAGE_BYTES)) {
		page = NULL;
		msg.flags |= WVM_MSG_ZERO;
	}
	if (a->member == node) {
		msg.payload_len = page ? WVM_PAGE_BYTES : 0;
		msg.seg_total = msg.payload_len;
		wvm_core_message(self->core, n->now_ns, &msg, page);
	} else if (page) {
		send_page(n, a->member, &msg, page);
	} else {
		transmit(n, a->member, &msg, NULL);
	}
}

static void carry_out(struct net *n, uint32_t node, const struct wvm_action *a)
{
	struct node *self = &n->nodes[node];

	switch ((enum wvm_action_kind)a->kind) {
	case WVM_ACT_SEND: act_send(n, node, a); return;
	case WVM_ACT_INSTALL:
		must(n, !self->present);
		memset(self->stores, 0, sizeof(self->stores));
		if (a->data)
			memcpy(self->ram, a->data, WVM_PAGE_BYTES);
		else
			memset(self->ram, 0, WVM_PAGE_BYTES);
		self->present = true;
		if (a->writable)
			lift(n, node, a->waiters);
		wake(n, node, a->waiters);
		return;
	case WVM_ACT_LIFT:
		must(n, self->present);
		lift(n, node, a->waiters);
		wake(n, node, a->waiters);
		return;
	case WVM_ACT_WAKE: wake(n, node, a->waiters); return;
	case WVM_ACT_PROTECT: memset(self->stores, 0, sizeof(self->stores)); return;
	case WVM_ACT_SAVE:
		must(n, self->present);
		memcpy(self->outbox + (size_t)a->slot * WVM_PAGE_BYTES, self->ram, WVM_PAGE_BYTES);
		return;
	case WVM_ACT_PUNCH:
		must(n, self->present);
		self->present = false;
		memset(self->ram, 0xee, WVM_PAGE_BYTES);
		return;
	default: must(n, !"a fault or a pin that fails");
	}
}

static uint64_t word(const uint8_t *page, uint32_t copy)
{
	uint64_t value;

	memcpy(&value, page + copy * COPY_OFFSET, sizeof(value));
	return value;
}

/* One writer or many readers, and every copy is the true one. */
static void check_copies(struct net *n)
{
	uint32_t modified = 0, present = 0;

	for (uint32_t i = 0; i < n->scenario->nodes; i++) {
		const struct node *node = &n->nodes[i];

		modified += node->held.state == WVM_HELD_MODIFIED;
		present += node->present;
		must(n, node->present == (node->held.state != WVM_HELD_INVALID));
		for (uint32_t c = 0; c < CLIENTS; c++)
			must(n, !node->stores[c] || node->held.state == WVM_HELD_MODIFIED);
		for (uint32_t c = 0; node->present && c < COPIES; c++)
			must(n, word(node->ram, c) == n->truth);
	}
	must(n, modified <= 1 && (!modified || present == 1));
}

static void drain(struct net *n, uint32_t node)
{
	const struct wvm_action *a;

	while ((a = wvm_core_action(n->nodes[node].core)))
		carry_out(n, node, a);
	check_copies(n);
}

static void run_access(struct net *n, uint32_t index)
{
	const struct access *a = &n->access[index];
	struct node *node = &n->nodes[a->node];

	if (!node->present || (a->store && !node->stores[a->client])) {
		n->progress[index] = WAITING;
		must(n, wvm_core_fault(node->core, n->now_ns, 0, 0, a->store, a->client));
		drain(n, a->node);
		return;
	}
	for (uint32_t c = 0; c < COPIES; c++)
		must(n, word(node->ram, c) == n->truth);
	if (a->store) {
		n->truth = index + 1;
		for (uint32_t c = 0; c < COPIES; c++)
			memcpy(node->ram + c * COPY_OFFSET, &n->truth, sizeof(n->truth));
	}
	n->progress[index] = DONE;
}

/* ---- running --------------------------------------------------------------------------- */

/* Of the cores, for one run after another. */
static _Alignas(64) uint8_t memory[NODES_MAX][768 * 1024];
static uint8_t outboxes[NODES_MAX][4 * WVM_PAGE_BYTES];

static void make_node(struct net *n, uint32_t index)
{
	struct node *node = &n->nodes[index];
	struct wvm_core_vm vm = {.id = VM_ID,
				 .pages = 1,
				 .home = &node->home,
				 .units = &node->unit,
				 .store = node->store,
				 .held = &node->held,
				 .held_units = &node->held_unit};
	struct wvm_core_params p = {.members = &n->members,
				    .slices = &n->slices,
				    .self = index,
				    .epoch = 1,
				    .boot = 1,
				    .seed = index + 1,
				    .limits = {.requests = 8,
					       .txns = 8,
					       .waiting = 8,
					       .demands = 4,
					       .partials = 4,
					       .holder_blocks = 4,
					       .peer_shards = 1}};

	wvm_core_default_times(&p.times);
	ck_assert_uint_le(wvm_core_bytes(&p), sizeof(memory[index]));
	node->outbox = p.outbox = outboxes[index];
	node->core = wvm_core_init(memory[index], &p);
	wvm_core_add_vm(node->core, &vm);
	wvm_core_serve(node->core, true);
}

static void open_net(struct net *n, const struct scenario *s, struct fate first, struct fate second)
{
	memset(n, 0, offsetof(struct net, flights));
	n->scenario = s;
	n->fate[0] = first;
	n->fate[1] = second;
	n->now_ns = 1000000;
	for (uint32_t i = 0; i < s->nodes; i++)
		n->list[i] = (struct wvm_member){.first_vnode = i, .vnodes = 1};
	n->members = (struct wvm_members){n->list, s->nodes}; /* home_vnode is 0 everywhere */
	for (uint32_t i = 0; i < FLIGHTS; i++)
		n->flights[i].index = NEVER;
	for (uint32_t i = 0; i < s->nodes; i++)
		make_node(n, i);
	memcpy(n->access, s->access, sizeof(s->access));
	n->accesses = s->count;
}

static uint64_t begins(const struct net *n, uint32_t index)
{
	return 1000000 + n->access[index].slot * SPACING_NS;
}

/* The earliest of what is to come; ties: accesses, then messages, then timers. False: nothing is.
 */
static bool step(struct net *n)
{
	uint64_t at_ns = UINT64_MAX;
	uint32_t access = NEVER, flight = NEVER, timer = NEVER;

	for (uint32_t i = 0; i < n->accesses; i++) {
		uint64_t due = n->progress[i] == RUNNABLE ? n->now_ns : begins(n, i);

		if (n->progress[i] > RUNNABLE || due >= at_ns)
			continue;
		at_ns = due;
		access = i;
	}
	for (uint32_t i = 0; i < FLIGHTS; i++) {
		const struct flight *f = &n->flights[i];

		if (f->index == NEVER || f->at_ns > at_ns ||
		    (f->at_ns == at_ns && (flight == NEVER || f->index > n->flights[flight].index)))
			continue;
		at_ns = f->at_ns;
		flight = i;
	}
	for (uint32_t i = 0; i < n->scenario->nodes; i++) {
		if (wvm_core_deadline(n->nodes[i].core) >= at_ns)
			continue;
		at_ns = wvm_core_deadline(n->nodes[i].core);
		timer = i;
	}
	if (at_ns == UINT64_MAX)
		return false;
	if (at_ns > n->now_ns)
		n->now_ns = at_ns;
	if (timer != NEVER) {
		wvm_core_tick(n->nodes[timer].core, n->now_ns);
		drain(n, timer);
	} else if (flight != NEVER) {
		struct flight f = n->flights[flight];

		n->flights[flight].index = NEVER;
		wvm_core_message(n->nodes[f.node].core, n->now_ns, &f.msg, f.bytes);
		drain(n, f.node);
		let_go(n, f.index);
	} else {
		run_access(n, access);
	}
	return true;
}

/* Until nothing is on its way and no timer runs: that state comes by itself, and soon. */
static void run(struct net *n)
{
	while (step(n))
		must(n, n->now_ns < LONGEST_NS);
	for (uint32_t i = 0; i < n->accesses; i++)
		must(n, n->progress[i] == DONE);
}

/* Returns how many messages the exchange had. In the end every node sees the last store. */
static uint32_t play(const struct scenario *s, struct fate first, struct fate second)
{
	static struct net net;
	struct net *n = &net;
	uint32_t sent;

	open_net(n, s, first, second);
	run(n);
	sent = n->sent;
	for (uint32_t i = 0; i < s->nodes; i++) {
		n->progress[n->accesses] = RUNNABLE;
		n->access[n->accesses++] = (struct access){.node = i};
		run(n);
	}
	for (uint32_t i = 0; i < s->nodes; i++)
		must(n, n->nodes[i].held.state == WVM_HELD_SHARED);
	return sent;
}

#define LOAD(slot_, node_)                   \
	{                                    \
		.slot = slot_, .node = node_ \
	}
#define STORE(slot_, node_)                                 \
	{                                                   \
		.slot = slot_, .node = node_, .store = true \
	}
#define SECOND(slot_, node_)                                             \
	{                                                                \
		.slot = slot_, .node = node_, .store = true, .client = 1 \
	}
#define SCENARIO(name_, nodes_, ...)                                                   \
	{                                                                              \
		name_, nodes_, {__VA_ARGS__},                                          \
			sizeof((struct access[]){__VA_ARGS__}) / sizeof(struct access) \
	}

static const struct scenario scenarios[] = {
	SCENARIO("first touches", 2, LOAD(0, 1), STORE(1, 1), LOAD(2, 0)),
	SCENARIO("read of what the home's node modified", 2, STORE(0, 0), LOAD(1, 1), STORE(2, 0),
		 LOAD(3, 1)),
	SCENARIO("read of what another node modified", 2, STORE(0, 1), LOAD(1, 0), STORE(2, 1),
		 LOAD(3, 0)),
	SCENARIO("upgrade", 2, STORE(0, 0), LOAD(1, 1), STORE(2, 1), LOAD(3, 0), STORE(4, 1)),
	SCENARIO("take-over", 2, STORE(0, 1), STORE(1, 0), STORE(2, 1), LOAD(3, 0)),
	SCENARIO("two upgraders", 2, STORE(0, 0), LOAD(1, 1), STORE(2, 0), STORE(2, 1), LOAD(3, 0),
		 LOAD(3, 1)),
	SCENARIO("two programs on a node", 2, LOAD(0, 1), STORE(0, 1), SECOND(0, 1), STORE(0, 0),
		 SECOND(1, 0), SECOND(1, 1)),
	SCENARIO("read between two others", 3, STORE(0, 1), LOAD(1, 2), STORE(2, 1), LOAD(3, 2)),
	SCENARIO("upgrade over a sharer", 3, STORE(0, 1), LOAD(1, 2), STORE(2, 2), LOAD(3, 1)),
	SCENARIO("take-over between two others", 3, STORE(0, 1), STORE(1, 2), STORE(2, 1),
		 LOAD(3, 0)),
	SCENARIO("two upgraders away from home", 3, STORE(0, 1), LOAD(1, 2), STORE(2, 1),
		 STORE(2, 2), LOAD(3, 1), LOAD(3, 2)),
	SCENARIO("three writers at once", 3, STORE(0, 0), STORE(0, 1), STORE(0, 2), LOAD(1, 0),
		 LOAD(1, 1), LOAD(1, 2)),
	SCENARIO("three readers, then three writers", 3, STORE(0, 1), LOAD(1, 0), LOAD(1, 1),
		 LOAD(1, 2), STORE(2, 0), STORE(2, 1), STORE(2, 2)),
	SCENARIO("a reader, an upgrader and a writer", 3, LOAD(0, 1), LOAD(0, 2), STORE(1, 1),
		 LOAD(1, 0), STORE(1, 0), LOAD(1, 2)),
};
#define SCENARIOS (int)(sizeof(scenarios) / sizeof(scenarios[0]))

static const struct fate none = {FATE_NONE, 0, 0};

START_TEST(an_undisturbed_exchange_ends_with_every_node_seeing_the_last_store)
{
	ck_assert_uint_gt(play(&scenarios[_i], none, none), 2);
}
END_TEST

START_TEST(any_one_message_may_be_lost)
{
	uint32_t k = 0;

	while (play(&scenarios[_i], (struct fate){FATE_LOSE, k, 0}, none) > k)
		k++;
	ck_assert_uint_gt(k, 2);
}
END_TEST

/* Second copies come at once, or after any later message. */
START_TEST(any_one_message_may_come_twice)
{
	for (uint32_t k = 0, sent = 1; k < sent; k++)
		for (uint32_t j = k; j < sent; j++)
			sent = play(&scenarios[_i], (struct fate){FATE_DOUBLE, k, j}, none);
}
END_TEST

START_TEST(any_one_message_may_be_overtaken_by_any_later_one)
{
	uint32_t sent = play(&scenarios[_i], none, none);

	for (uint32_t k = 0; k < sent; k++)
		for (uint32_t j = k + 1; j < sent + 4; j++)
			sent = play(&scenarios[_i], (struct fate){FATE_DELAY, k, j}, none);
}
END_TEST

#define REACH 4u /* how many later messages a disturbed one may come after, in pairs */
#define WAYS  (1 + 2 * REACH)

/* Fate number i of those that two messages of an exchange may have. */
static struct fate fate_at(uint32_t i)
{
	uint32_t index = i / WAYS, way = i % WAYS;

	if (!way)
		return (struct fate){FATE_LOSE, index, 0};
	if (way <= REACH)
		return (struct fate){FATE_DOUBLE, index, index + way - 1};
	return (struct fate){FATE_DELAY, index, index + way - REACH};
}

START_TEST(any_two_messages_may_be_lost_doubled_or_overtaken)
{
	uint32_t sent = play(&scenarios[_i], none, none);

	for (uint32_t i = 0; i < sent * WAYS; i++)
		for (uint32_t j = i + 1; j < sent * WAYS; j++)
			play(&scenarios[_i], fate_at(i), fate_at(j));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("network");
	TCase *tc = tcase_create("network");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, an_undisturbed_exchange_ends_with_every_node_seeing_the_last_store,
			    0, SCENARIOS);
	tcase_add_loop_test(tc, any_one_message_may_be_lost, 0, SCENARIOS);
	tcase_add_loop_test(tc, any_one_message_may_come_twice, 0, SCENARIOS);
	tcase_add_loop_test(tc, any_one_message_may_be_overtaken_by_any_later_one, 0, SCENARIOS);
	tcase_add_loop_test(tc, any_two_messages_may_be_lost_doubled_or_overtaken, 0, SCENARIOS);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

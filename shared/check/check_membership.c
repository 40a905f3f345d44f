/* The driver of membership: who is believed, and that nothing is said before it is stored. */
#include "shared/membership.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/ballots.h"
#include "shared/core/assert.h"
#include "shared/wire.h"

#define NODES  3u
#define QUEUE  256u
#define MS     UINT64_C(1000000)
#define SECOND (1000 * MS)
#define FIRST  4u /* vnode of the first node; the next ones have those after it */

void wvm_core_panic(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, what);
	abort();
}

struct datagram {
	uint32_t from, to;
	size_t len;
	uint8_t bytes[WVM_MEMBERSHIP_DATAGRAM];
};

struct node {
	struct wvm_membership m;
	uint64_t memory[(64 << 10) / 8];
	struct wvm_epoch_durable stored;
	bool storing; /* save() was called, and wvm_membership_saved() not yet */
	bool hold;    /* the disk takes its time */
	uint32_t learnt, behind;
	unsigned sent_while_storing; /* ballots */
	uint8_t status[NODES];
	bool hands_over; /* its part takes time */
};

static struct node nodes[NODES];
static struct datagram queue[QUEUE];
static unsigned queued, lost;
static uint64_t now;

static bool where(void *ctx, uint32_t node, struct wvm_hop *out)
{
	*out = (struct wvm_hop){.ip = 0x0a000000 + node, .port = 9001};
	return node >= FIRST && node < FIRST + NODES;
}

static bool send(void *ctx, uint32_t node, const struct wvm_hop *to, const uint8_t *bytes,
		 size_t len)
{
	struct node *n = ctx;

	n->sent_while_storing += n->storing && bytes[5] == WVM_MSG_BALLOT;
	ck_assert_uint_eq(to->ip, 0x0a000000 + node);
	ck_assert_uint_le(len, sizeof(queue[0].bytes));
	if (queued == QUEUE) {
		lost++;
		return false;
	}
	queue[queued] = (struct datagram){.from = n->m.self, .to = node, .len = len};
	memcpy(queue[queued++].bytes, bytes, len);
	return true;
}

static void save(void *ctx, const struct wvm_epoch_durable *d)
{
	struct node *n = ctx;

	ck_assert(!n->storing);
	n->storing = true;
	n->stored = *d;
}

static void note(void *ctx, const struct wvm_gossip_action *a, uint64_t now_ns)
{
	struct node *n = ctx;

	n->status[a->node - FIRST] = a->status;
}

static void learnt(void *ctx, const struct wvm_epoch_record *r, enum wvm_epoch_verdict verdict)
{
	struct node *n = ctx;

	ck_assert_uint_gt(r->epoch, n->learnt);
	n->learnt = r->epoch;
	if (n->hands_over)
		wvm_membership_busy(&n->m, true);
}

static void behind(void *ctx, uint32_t node, uint32_t epoch)
{
	((struct node *)ctx)->behind = epoch;
}

static const struct wvm_membership_ops ops = {.where = where,
					      .send = send,
					      .save = save,
					      .note = note,
					      .learnt = learnt,
					      .behind = behind};

static void begin(unsigned i, uint16_t boot, const struct wvm_epoch_durable *d)
{
	struct node *n = &nodes[i];
	struct wvm_gossip_self self = {.node = FIRST + i,
				       .ip = 0x0a000000 + FIRST + i,
				       .port = 9001,
				       .incarnation = wvm_gossip_incarnation(boot)};

	*n = (struct node){.hands_over = n->hands_over};
	ck_assert_uint_le(wvm_gossip_bytes(WVM_GOSSIP_ROOM), sizeof(n->memory));
	wvm_membership_init(&n->m, &ops, n, n->memory, WVM_GOSSIP_ROOM, WVM_MTU_DEFAULT, &self, d,
			    i + 1, now);
	for (unsigned k = 0; k < NODES; k++)
		ck_assert(wvm_membership_add(&n->m, FIRST + k, now) == (k != i));
	wvm_membership_life(&n->m, WVM_NODE_ACTIVE, now);
}

static struct wvm_epoch_durable first_state(void)
{
	struct wvm_epoch_durable d;
	struct wvm_epoch_record r;

	wvm_ballots_first(&r, (const uint32_t[]){FIRST, FIRST + 1, FIRST + 2}, NODES);
	wvm_epoch_first(&d, &r);
	return d;
}

static void begin_all(void)
{
	struct wvm_epoch_durable d = first_state();

	now = SECOND;
	queued = lost = 0;
	for (unsigned i = 0; i < NODES; i++) {
		nodes[i].hands_over = false;
		begin(i, 1, &d);
	}
}

static enum wvm_drop give(unsigned i, const struct datagram *d)
{
	struct wvm_hop from = {.ip = 0x0a000000 + d->from, .port = 9001};

	return wvm_membership_datagram(&nodes[i].m, &from, d->bytes, d->len, now);
}

/* A millisecond: what was sent arrives, stores end, ticks. `off`: nothing reaches that node. */
static void step(unsigned off)
{
	static struct datagram before[QUEUE];
	unsigned count = queued;

	memcpy(before, queue, count * sizeof(queue[0]));
	queued = 0;
	now += MS;
	for (unsigned i = 0; i < count; i++)
		if (before[i].to - FIRST != off && before[i].from - FIRST != off)
			give(before[i].to - FIRST, &before[i]);
	for (unsigned i = 0; i < NODES; i++) {
		if (nodes[i].storing && !nodes[i].hold) {
			nodes[i].storing = false;
			wvm_membership_saved(&nodes[i].m, now);
		}
		if (i != off && wvm_membership_deadline(&nodes[i].m) <= now)
			wvm_membership_tick(&nodes[i].m, now);
	}
}

static void run(unsigned ms, unsigned off)
{
	while (ms--)
		step(off);
}

static struct wvm_epoch_record next_record(const struct wvm_membership *m, uint32_t node,
					   enum wvm_node_state state)
{
	struct wvm_epoch_record r = m->epoch.d.current;

	r.epoch++;
	r.node = node;
	r.state = (uint8_t)state;
	return r;
}

static void check_sums(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		const struct wvm_membership_counters *c = &nodes[i].m.counters;
		uint64_t drops = 0;

		for (unsigned k = 0; k < WVM_DROP_REASONS; k++)
			drops += c->drops[k];
		ck_assert_uint_eq(c->received, c->gossip + c->ballots + drops);
	}
}

START_TEST(all_hear_of_all_and_a_silent_one_is_dead_to_the_others)
{
	struct wvm_epoch_durable stored = first_state();

	begin_all();
	run(3000, NODES);
	for (unsigned i = 0; i < NODES; i++) {
		for (unsigned k = 0; k < NODES; k++) {
			const struct wvm_gossip_peer *p = wvm_gossip_find(nodes[i].m.gossip,
									  FIRST + k);

			if (i == k)
				continue;
			ck_assert_uint_eq(p->status, WVM_GOSSIP_ALIVE);
			ck_assert_uint_eq(p->life, WVM_NODE_ACTIVE);
			ck_assert_uint_eq(p->epoch, 1);
		}
	}
	run(9000, 2);
	ck_assert_uint_eq(nodes[0].status[2], WVM_GOSSIP_DEAD);
	ck_assert_uint_eq(nodes[1].status[2], WVM_GOSSIP_DEAD);
	ck_assert_uint_ne(nodes[0].status[1], WVM_GOSSIP_DEAD);
	ck_assert_uint_ne(nodes[1].status[0], WVM_GOSSIP_DEAD);
	begin(2, 2, &stored);
	run(3000, NODES);
	ck_assert_uint_eq(nodes[0].status[2], WVM_GOSSIP_ALIVE);
	ck_assert_uint_eq(wvm_gossip_find(nodes[0].m.gossip, FIRST + 2)->incarnation >> 16, 2);
	check_sums();
	ck_assert_uint_eq(lost, 0);
}
END_TEST

START_TEST(a_wish_is_decided_and_learnt_by_all_in_the_order_of_epochs)
{
	begin_all();
	run(1000, NODES);
	for (unsigned k = 2; k < 6; k++) {
		struct wvm_epoch_record r = next_record(&nodes[k % NODES].m, FIRST + 2,
							k % 2 ? WVM_NODE_ACTIVE
							      : WVM_NODE_DRAINING);

		ck_assert_int_eq(wvm_membership_wish(&nodes[k % NODES].m, &r, now), 0);
		ck_assert_int_eq(wvm_membership_wish(&nodes[k % NODES].m, &r, now), -EBUSY);
		run(2000, NODES);
		for (unsigned i = 0; i < NODES; i++) {
			ck_assert_uint_eq(nodes[i].learnt, k);
			ck_assert_uint_eq(nodes[i].m.gossip->self.epoch, k);
			ck_assert(wvm_epoch_record_same(&nodes[i].m.epoch.d.current, &r));
		}
	}
	check_sums();
}
END_TEST

/* Whom a node has heard to be done in an epoch, as a bit for each. */
static unsigned done_in(unsigned at, uint32_t epoch)
{
	unsigned done = 0;

	for (unsigned k = 0; k < NODES; k++) {
		const struct wvm_gossip_peer *p = wvm_gossip_find(nodes[at].m.gossip, FIRST + k);

		done |= (unsigned)(p && p->epoch == epoch && !p->busy) << k;
	}
	return done;
}

/* From the first message on that names the epoch. */
START_TEST(nobody_is_heard_to_be_done_in_an_epoch_before_it_is)
{
	struct wvm_epoch_durable stored;
	struct wvm_epoch_record r;
	unsigned done = 0, all = (1u << NODES) - 1;

	begin_all();
	run(2000, NODES);
	for (unsigned i = 0; i < NODES; i++) {
		ck_assert_uint_eq(done_in(i, 1), all & ~(1u << i));
		nodes[i].hands_over = true;
	}
	r = next_record(&nodes[0].m, FIRST + 2, WVM_NODE_DRAINING);
	ck_assert_int_eq(wvm_membership_wish(&nodes[0].m, &r, now), 0);
	for (unsigned ms = 0; ms < 12000; ms++) {
		step(NODES);
		if (ms == 2000 || ms == 4000 || ms == 8000) {
			unsigned i = ms / 4000;

			ck_assert_uint_eq(nodes[i].learnt, 2);
			done |= 1u << i;
			wvm_membership_busy(&nodes[i].m, false);
		}
		if (ms == 6000) { /* its part is not done, whatever the life before said of 1 */
			stored = nodes[2].stored;
			begin(2, 2, &stored);
		}
		for (unsigned i = 0; i < NODES; i++)
			ck_assert_uint_eq(done_in(i, 2) & ~done, 0);
	}
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_uint_eq(done_in(i, 2), all & ~(1u << i));
	check_sums();
}
END_TEST

START_TEST(no_ballot_leaves_while_a_store_is_under_way_and_those_that_come_are_counted)
{
	struct wvm_epoch_record r;

	begin_all();
	run(1000, NODES);
	r = next_record(&nodes[0].m, FIRST, WVM_NODE_DRAINING);
	nodes[1].hold = nodes[2].hold = true;
	ck_assert_int_eq(wvm_membership_wish(&nodes[0].m, &r, now), 0);
	run(2000, NODES);
	for (unsigned i = 1; i < NODES; i++) {
		ck_assert(nodes[i].m.saving);
		ck_assert_uint_eq(nodes[i].m.counters.ballots_sent, 0);
		ck_assert_uint_gt(nodes[i].m.counters.busy, 0); /* PREPARE again */
		ck_assert_uint_eq(nodes[i].status[0], WVM_GOSSIP_ALIVE);
		ck_assert_int_eq(wvm_membership_wish(&nodes[i].m, &r, now), -EBUSY);
	}
	ck_assert_uint_eq(nodes[0].learnt, 1);
	nodes[1].hold = false; /* two of three */
	run(3000, NODES);
	ck_assert_uint_eq(nodes[0].learnt, 2);
	ck_assert_uint_eq(nodes[1].learnt, 2);
	ck_assert_uint_eq(nodes[2].learnt, 1);
	nodes[2].hold = false;
	run(3000, NODES);
	ck_assert_uint_eq(nodes[2].learnt, 2);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_uint_eq(nodes[i].sent_while_storing, 0);
	check_sums();
}
END_TEST

/* ---- strangers ------------------------------------------------------------------------- */

/* A message of node 1 to node 0 that would be taken. */
static struct datagram forge(struct wvm_gossip_msg *g, struct wvm_msg *m)
{
	struct datagram d = {.from = FIRST + 1, .to = FIRST};
	uint8_t payload[WVM_GOSSIP_BYTES_MAX];
	size_t len = wvm_gossip_encode(payload, g);

	m->payload_len = (uint16_t)len;
	m->seg_total = wvm_wire_total((uint32_t)len);
	d.len = wvm_wire_encode(d.bytes, sizeof(d.bytes), m, payload);
	ck_assert_uint_gt(d.len, 0);
	return d;
}

/* What it says is that node 2 is dead, and that of a high incarnation. */
static struct wvm_gossip_msg lie(void)
{
	struct wvm_gossip_msg g = {.kind = WVM_GOSSIP_NEWS,
				   .life = WVM_NODE_ACTIVE,
				   .count = 1,
				   .ip = 0x0a000000 + FIRST + 1,
				   .port = 9001,
				   .epoch = 1,
				   .incarnation = 1 << 20};

	g.entry[0] = (struct wvm_gossip_entry){.node = FIRST + 2,
					       .incarnation = 1 << 21,
					       .ip = 0x0a000000 + FIRST + 2,
					       .port = 9001,
					       .status = WVM_GOSSIP_SUSPECT,
					       .life = WVM_NODE_ACTIVE};
	return g;
}

static struct wvm_msg header(void)
{
	return (struct wvm_msg){.type = WVM_MSG_HEARTBEAT,
				.hops = WVM_HOPS_MAX,
				.epoch = 1,
				.src = FIRST + 1,
				.dst = FIRST};
}

enum { FROM, PORT, SRC, DST, HEAD_IP, HEAD_PORT, ENTRY_NODE, ENTRY_IP, FLAG, TYPE, TAIL, CASES };

static const struct {
	const char *name;
	enum wvm_drop reason;
} cases[CASES] = {
	[FROM] = {"from another address", WVM_DROP_SOURCE},
	[PORT] = {"from another port", WVM_DROP_SOURCE},
	[SRC] = {"of a node that there is not", WVM_DROP_NODE},
	[DST] = {"to another node", WVM_DROP_NODE},
	[HEAD_IP] = {"naming another address for itself", WVM_DROP_SOURCE},
	[HEAD_PORT] = {"naming another port for itself", WVM_DROP_SOURCE},
	[ENTRY_NODE] = {"about a node that there is not", WVM_DROP_NODE},
	[ENTRY_IP] = {"naming another address for a node", WVM_DROP_SOURCE},
	[FLAG] = {"NEWS that is an answer", WVM_DROP_FLAGS},
	[TYPE] = {"NEWS as NODE_ANNOUNCE", WVM_DROP_TYPE},
	[TAIL] = {"with another message behind it", WVM_DROP_LENGTH},
};

START_TEST(what_a_stranger_says_changes_nothing_and_is_counted)
{
	struct wvm_hop from = {.ip = 0x0a000000 + FIRST + 1, .port = 9001};
	struct wvm_gossip_msg g = lie();
	struct wvm_msg m = header();
	struct datagram d;
	uint64_t before;
	size_t len;

	begin_all();
	run(1000, NODES);
	from.ip += _i == FROM;
	from.port += _i == PORT;
	m.src = _i == SRC ? FIRST + NODES : m.src;
	m.dst += _i == DST;
	g.ip += _i == HEAD_IP;
	g.port += _i == HEAD_PORT;
	g.entry[0].node += _i == ENTRY_NODE;
	g.entry[0].ip += _i == ENTRY_IP;
	m.flags = _i == FLAG ? WVM_MSG_ANSWER : 0;
	m.type = _i == TYPE ? WVM_MSG_NODE_ANNOUNCE : m.type;
	d = forge(&g, &m);
	len = d.len;
	if (_i == TAIL) {
		memcpy(d.bytes + len, d.bytes, len);
		d.len = 2 * len;
	}
	before = nodes[0].m.counters.drops[cases[_i].reason];
	ck_assert_int_eq(wvm_membership_datagram(&nodes[0].m, &from, d.bytes, d.len, now),
			 cases[_i].reason);
	ck_assert_msg(nodes[0].m.counters.drops[cases[_i].reason] == before + 1, "%s",
		      cases[_i].name);
	ck_assert_uint_eq(wvm_gossip_find(nodes[0].m.gossip, FIRST + 2)->status, WVM_GOSSIP_ALIVE);
	ck_assert_uint_eq(wvm_gossip_find(nodes[0].m.gossip, FIRST + 1)->incarnation >> 20, 0);
	/* And the same without the mistake is taken. */
	g = lie();
	m = header();
	d = forge(&g, &m);
	ck_assert_int_eq(give(0, &d), WVM_DROP_NONE);
	ck_assert_uint_eq(wvm_gossip_find(nodes[0].m.gossip, FIRST + 2)->status,
			  WVM_GOSSIP_SUSPECT);
	check_sums();
}
END_TEST

START_TEST(a_ballot_from_another_address_changes_nothing)
{
	struct wvm_epoch_msg e = {
		.kind = WVM_EPOCH_PREPARE, .epoch = 2, .ballot = wvm_epoch_ballot(1, FIRST + 1)};
	struct wvm_msg m = header();
	struct datagram d = {.from = FIRST + 2, .to = FIRST};
	uint8_t payload[WVM_EPOCH_MSG_BYTES];

	begin_all();
	wvm_epoch_encode(payload, &e);
	m.type = WVM_MSG_BALLOT;
	m.payload_len = m.seg_total = sizeof(payload);
	d.len = wvm_wire_encode(d.bytes, sizeof(d.bytes), &m, payload);
	ck_assert_int_eq(give(0, &d), WVM_DROP_SOURCE);
	ck_assert_uint_eq(nodes[0].m.epoch.d.promised, 0);
	d.from = FIRST + 1;
	ck_assert_int_eq(give(0, &d), WVM_DROP_NONE);
	ck_assert_uint_eq(nodes[0].m.epoch.d.promised, e.ballot);
	ck_assert_uint_eq(nodes[0].stored.promised, e.ballot);
}
END_TEST

static Suite *membership_suite(void)
{
	Suite *s = suite_create("membership");
	TCase *t = tcase_create("driver");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, all_hear_of_all_and_a_silent_one_is_dead_to_the_others);
	tcase_add_test(t, a_wish_is_decided_and_learnt_by_all_in_the_order_of_epochs);
	tcase_add_test(t, nobody_is_heard_to_be_done_in_an_epoch_before_it_is);
	tcase_add_test(t,
		       no_ballot_leaves_while_a_store_is_under_way_and_those_that_come_are_counted);
	tcase_add_loop_test(t, what_a_stranger_says_changes_nothing_and_is_counted, 0, CASES);
	tcase_add_test(t, a_ballot_from_another_address_changes_nothing);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(membership_suite());
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

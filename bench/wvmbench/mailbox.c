#include "bench/wvmbench/mailbox.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "shared/wavevm.h"

#define POLL_NS 500000 /* between two looks: local memory until the other side writes */

_Static_assert(sizeof(struct mailbox_command) <= WVM_PAGE_SIZE, "a command is one page");
_Static_assert(sizeof(struct mailbox_use) <= WVM_PAGE_SIZE, "one page");
_Static_assert(2 + MAILBOX_PEERS == MAILBOX_PAGES, "a page for each peer");

void mailbox_init(struct mailbox *m, void *mem)
{
	unsigned char *page = mem;

	memset(m, 0, sizeof(*m));
	m->command = mem;
	m->use = (struct mailbox_use *)(page + WVM_PAGE_SIZE);
	for (unsigned slot = 1; slot <= MAILBOX_PEERS; slot++)
		m->reply[slot] = (struct mailbox_reply *)(page + (1 + slot) * WVM_PAGE_SIZE);
}

void mailbox_begin(struct mailbox *m, uint64_t session)
{
	m->session = session;
	m->seq = 0;
}

static void put(struct mailbox *m, unsigned slot, enum mailbox_op op, uint64_t generation,
		const struct mailbox_span *span, unsigned n_spans)
{
	struct mailbox_command *c = m->command;

	/* A peer that reads half of this sees a sequence number of 0 and looks again. */
	__atomic_store_n(&c->seq, 0, __ATOMIC_SEQ_CST);
	c->session = m->session;
	c->op = op;
	c->slot = slot;
	c->generation = generation;
	c->n_spans = n_spans;
	if (n_spans > 0)
		memcpy(c->span, span, n_spans * sizeof(*span));
	__atomic_store_n(&c->seq, ++m->seq, __ATOMIC_RELEASE);
}

static bool answered(const struct mailbox *m, const struct mailbox_reply *r)
{
	return __atomic_load_n(&r->seq, __ATOMIC_ACQUIRE) == m->seq && r->session == m->session;
}

int mailbox_call(struct mailbox *m, unsigned slot, enum mailbox_op op, uint64_t generation,
		 const struct mailbox_span *span, unsigned n_spans, unsigned timeout_ms,
		 struct mailbox_reply *reply)
{
	const struct timespec pause = {.tv_nsec = POLL_NS};
	struct timespec now;
	uint64_t end_ms;

	if (slot < 1 || slot > MAILBOX_PEERS || n_spans > MAILBOX_SPANS)
		return -EINVAL;
	clock_gettime(CLOCK_MONOTONIC, &now);
	end_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 + timeout_ms;
	put(m, slot, op, generation, span, n_spans);
	while (!answered(m, m->reply[slot])) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 > end_ms)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
	*reply = *m->reply[slot];
	return 0;
}

/* The entry that says how far the memory of all nodes together is used up. */
#define ALL_NODES UINT64_MAX

static uint64_t *use_of(struct mailbox *m, uint64_t node_plus_1, uint64_t begin)
{
	for (unsigned i = 0; i < MAILBOX_NODES; i++) {
		if (m->use->entry[i].node_plus_1 == 0) {
			m->use->entry[i].next_unit = begin;
			m->use->entry[i].node_plus_1 = node_plus_1;
		}
		if (m->use->entry[i].node_plus_1 == node_plus_1)
			return &m->use->entry[i].next_unit;
	}
	return NULL;
}

static uint64_t used_by_all(const struct mailbox *m)
{
	for (unsigned i = 0; i < MAILBOX_NODES; i++)
		if (m->use->entry[i].node_plus_1 == ALL_NODES)
			return m->use->entry[i].next_unit;
	return 0;
}

uint64_t *mailbox_next_unit(struct mailbox *m, unsigned node)
{
	return use_of(m, node + 1ull, used_by_all(m));
}

int mailbox_take_units(struct mailbox *m, uint64_t n, uint64_t limit, uint64_t *first)
{
	uint64_t begin = 0, *all = use_of(m, ALL_NODES, 0);

	for (unsigned i = 0; i < MAILBOX_NODES; i++)
		if (m->use->entry[i].next_unit > begin)
			begin = m->use->entry[i].next_unit;
	if (!all || n > limit || begin > limit - n)
		return -ENOSPC;
	for (unsigned i = 0; i < MAILBOX_NODES; i++)
		if (m->use->entry[i].node_plus_1 != 0)
			m->use->entry[i].next_unit = begin + n;
	*first = begin;
	return 0;
}

void mailbox_join(struct mailbox *m)
{
	m->seq = __atomic_load_n(&m->command->seq, __ATOMIC_ACQUIRE);
	m->session = m->command->session;
}

bool mailbox_take(struct mailbox *m, unsigned slot, struct mailbox_command *command)
{
	uint64_t seq = __atomic_load_n(&m->command->seq, __ATOMIC_ACQUIRE);

	if (seq == 0 || (seq == m->seq && m->command->session == m->session))
		return false;
	*command = *m->command;
	/* Written to while it was copied: the next look finds it complete. */
	if (__atomic_load_n(&m->command->seq, __ATOMIC_ACQUIRE) != seq || command->seq != seq)
		return false;
	m->seq = seq;
	m->session = command->session;
	return command->slot == slot && command->n_spans <= MAILBOX_SPANS;
}

void mailbox_answer(struct mailbox *m, unsigned slot, int node, uint64_t errors)
{
	struct mailbox_reply *r = m->reply[slot];

	__atomic_store_n(&r->seq, 0, __ATOMIC_SEQ_CST);
	r->session = m->session;
	r->errors = errors;
	r->node = node;
	__atomic_store_n(&r->seq, m->seq, __ATOMIC_RELEASE);
}

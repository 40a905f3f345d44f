/*
 * All processors at once, each with one thread, for a given time. A thread
 * does in turn:
 *   count    add to a counter that all share and to one of its own; the sums must agree
 *   update   change a structure under a lock, having checked what must hold of it
 *   rewrite  check and rewrite a page of its own, chosen at random
 *   hand on  take a page from its neighbour and check it, fill one for the next
 */
#include "guest.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define LEDGER_WORDS 64
#define BOX_PAGE     (1ull << 40) /* page numbers that no page of the test has */
#define BATCH        16

/* Under its lock: entry i is entry 0 times i + 1, whoever wrote it last. */
struct ledger {
	pthread_mutex_t mutex;
	uint64_t updates;
	uint64_t entry[LEDGER_WORDS];
};

/* Filled by one thread, emptied by its neighbour; full says whose turn it is. */
struct box {
	_Alignas(PAGE_SIZE) uint64_t words[PAGE_WORDS];
	_Alignas(PAGE_SIZE) atomic_uint full;
	uint64_t filled;
	uint64_t emptied;
};

struct totals {
	_Alignas(64) uint64_t counted;
	uint64_t updated;
	uint64_t rewritten;
};

static struct {
	uint64_t *memory;
	uint16_t *generation;
	size_t pages;
	double end;
	struct ledger ledger;
	_Alignas(64) atomic_ullong counter;
	atomic_flag spin;
	uint64_t spun; /* under spin */
	struct box *boxes;
	struct totals *totals;
} s = {.ledger.mutex = PTHREAD_MUTEX_INITIALIZER, .spin = ATOMIC_FLAG_INIT};

static void count(struct totals *t)
{
	atomic_fetch_add(&s.counter, 1);
	while (atomic_flag_test_and_set(&s.spin))
		sched_yield();
	s.spun++;
	atomic_flag_clear(&s.spin);
	t->counted++;
}

static void update(struct totals *t)
{
	struct ledger *l = &s.ledger;
	unsigned i;

	pthread_mutex_lock(&l->mutex);
	for (i = 1; i < LEDGER_WORDS; i++) {
		if (l->entry[i] == l->entry[0] * (i + 1))
			continue;
		report("ledger: entry %u after update %llu expected %016llx got %016llx", i,
		       (unsigned long long)l->updates, (unsigned long long)(l->entry[0] * (i + 1)),
		       (unsigned long long)l->entry[i]);
		break;
	}
	l->updates++;
	for (i = 0; i < LEDGER_WORDS; i++)
		l->entry[i] = mix(l->updates) * (i + 1);
	pthread_mutex_unlock(&l->mutex);
	t->updated++;
}

/* Thread t owns the pages whose number leaves t when divided by the number of threads. */
static void rewrite(unsigned thread, struct totals *t, uint64_t *random)
{
	size_t page;

	*random = mix(*random);
	page = *random % s.pages;
	page -= page % guest.cpus;
	page += thread;
	if (page >= s.pages)
		return;
	page_check(s.memory + page * PAGE_WORDS, page, s.generation[page], 0, "rewrite");
	s.generation[page] = (uint16_t)(*random >> 48);
	page_fill(s.memory + page * PAGE_WORDS, page, s.generation[page], 0);
	t->rewritten++;
}

static void hand_on(unsigned thread)
{
	struct box *out = &s.boxes[thread];
	struct box *in = &s.boxes[(thread + guest.cpus - 1) % guest.cpus];

	if (!atomic_load(&out->full)) {
		page_fill(out->words, BOX_PAGE + thread, ++out->filled, 0);
		atomic_store(&out->full, 1);
	}
	if (atomic_load(&in->full)) {
		page_check(in->words, BOX_PAGE + (uint64_t)(in - s.boxes), ++in->emptied, 0,
			   "hand-over");
		atomic_store(&in->full, 0);
	}
}

static void stress_thread(unsigned thread)
{
	struct totals *t = &s.totals[thread];
	uint64_t random = mix(guest.seed + thread);
	unsigned i;

	while (seconds_now() < s.end) {
		for (i = 0; i < BATCH; i++) {
			count(t);
			update(t);
			hand_on(thread);
		}
		rewrite(thread, t, &random);
	}
}

static void expect_equal(const char *what, uint64_t expected, uint64_t got)
{
	if (expected != got)
		report("%s: expected %llu got %llu", what, (unsigned long long)expected,
		       (unsigned long long)got);
}

static void check_totals(void)
{
	uint64_t counted = 0, updated = 0, rewritten = 0, handed = 0;
	unsigned i;

	for (i = 0; i < guest.cpus; i++) {
		const struct box *b = &s.boxes[i];

		counted += s.totals[i].counted;
		updated += s.totals[i].updated;
		rewritten += s.totals[i].rewritten;
		handed += b->emptied;
		expect_equal("pages handed over", b->filled, b->emptied + b->full);
	}
	expect_equal("atomic counter", counted, s.counter);
	expect_equal("counter under a spinlock", counted, s.spun);
	expect_equal("updates of the ledger", updated, s.ledger.updates);
	if (!counted || !updated || !rewritten || !handed)
		report("stress: a thread did nothing");
	printf("stress     %u processors, %u s: %llu atomic adds, %llu locked updates, "
	       "%llu pages rewritten, %llu handed over, %llu errors so far\n",
	       guest.cpus, guest.seconds, (unsigned long long)counted, (unsigned long long)updated,
	       (unsigned long long)rewritten, (unsigned long long)handed, errors);
}

void test_stress(uint64_t *memory, uint16_t *generation, size_t count_)
{
	if (!guest.seconds)
		return;
	s.memory = memory;
	s.generation = generation;
	s.pages = count_;
	s.boxes = aligned_alloc(PAGE_SIZE, guest.cpus * sizeof(*s.boxes));
	s.totals = calloc(guest.cpus, sizeof(*s.totals));
	if (!s.boxes || !s.totals) {
		report("no memory for the stress test");
		return;
	}
	for (unsigned i = 0; i < guest.cpus; i++)
		s.boxes[i] = (struct box){.full = 0};
	s.end = seconds_now() + guest.seconds;
	on_all_cpus(stress_thread);
	check_totals();
	free(s.boxes);
	free(s.totals);
}

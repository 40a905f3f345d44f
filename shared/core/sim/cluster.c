#include "shared/core/sim/cluster.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define VM_ID     7
#define SEGMENT   1408u /* three to a page, as on Ethernet */
#define FAIL_TEXT 200

enum event_kind { EV_MESSAGE, EV_TICK, EV_THREAD };

struct event {
	uint64_t at_ns;
	uint64_t order; /* ties: first made, first run */
	enum event_kind kind;
	uint32_t node;
	uint32_t thread;
	struct wvm_msg msg;
	uint8_t *payload; /* owned */
};

struct node {
	struct wvm_core *core;
	void *memory;
	uint8_t *outbox, *store, *ram;
	struct wvm_home_page *home;
	struct wvm_home_unit *units;
	struct wvm_held_page *held;
	bool present[SIM_PAGES_MAX];
	bool stores[SIM_CLIENTS_MAX][SIM_PAGES_MAX]; /* a store does not trap */
	uint64_t tick_ns;                            /* the next tick event that counts */
	bool cut;
};

enum thread_state { TH_THINK, TH_ACCESS, TH_WAIT, TH_WAIT_PIN };

struct thread {
	uint32_t node, client;
	enum thread_state state;
	uint64_t page;
	uint32_t word;
	bool write, modify;
	uint64_t value;
	uint64_t since_ns;
	uint64_t accesses;
	bool pins, pinned;
};

struct sim {
	struct sim_config config;
	struct wvm_member members[SIM_NODES_MAX];
	struct wvm_members list;
	struct wvm_slices slices;
	struct node nodes[SIM_NODES_MAX];
	struct thread threads[SIM_THREADS_MAX];
	uint32_t thread_count;
	uint64_t truth[SIM_PAGES_MAX][SIM_WORDS];
	struct event **heap;
	size_t events, room;
	uint64_t order, random, value;
	bool quiet; /* threads begin nothing new */
	struct sim_report report;
	char text[FAIL_TEXT];
};

/* ---- small things ---------------------------------------------------------------------- */

static uint64_t rnd(struct sim *s)
{
	s->random ^= s->random >> 12;
	s->random ^= s->random << 25;
	s->random ^= s->random >> 27;
	return s->random * UINT64_C(0x2545f4914f6cdd1d) >> 11;
}

static bool chance(struct sim *s, uint32_t ppm)
{
	return ppm && rnd(s) % 1000000 < ppm;
}

static uint32_t word_offset(uint32_t word)
{
	return word * 1360 / 8 * 8;
}

__attribute__((format(printf, 2, 3))) static void failed(struct sim *s, const char *format, ...)
{
	va_list ap;
	int n;

	if (s->report.failure)
		return;
	n = snprintf(s->text, sizeof(s->text),
		     "seed %llu step %llu time %llu ns: ", (unsigned long long)s->config.seed,
		     (unsigned long long)s->report.steps, (unsigned long long)s->report.now_ns);
	va_start(ap, format);
	vsnprintf(s->text + n, sizeof(s->text) - (size_t)n, format, ap);
	va_end(ap);
	s->report.failure = s->text;
}

static void *zeroed(size_t size)
{
	/* Not aligned_alloc() and memset(): most of the store is never touched. */
	void *p = calloc(1, size + 64);

	if (!p)
		abort();
	return p;
}

/* Two pages to a unit: different homes, and versions from a shared counter. */
static uint64_t core_page(uint64_t page)
{
	return page / 2 * WVM_UNIT_PAGES + page % 2;
}

static uint64_t sim_page(uint64_t page)
{
	return page / WVM_UNIT_PAGES * 2 + page % WVM_UNIT_PAGES;
}

/* ---- events ---------------------------------------------------------------------------- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static struct event *post(struct sim *s, uint64_t at_ns, enum event_kind kind)
{
	struct event *e = calloc(1, sizeof(*e));
	size_t i;

	if (s->events == s->room) {
		s->room = s->room ? 2 * s->room : 1024;
		s->heap = realloc(s->heap, s->room * sizeof(*s->heap));
	}
	if (!e || !s->heap)
		abort();
	e->at_ns = at_ns;
	e->order = s->order++;
	e->kind = kind;
	for (i = s->events++; i && before(e, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = e;
	return e;
}

static struct event *next_event(struct sim *s)
{
	struct event *first = s->heap[0], *last = s->heap[--s->events];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < s->events) {
		if (child + 1 < s->events && before(s->heap[child + 1], s->heap[child]))
			child++;
		if (!before(s->heap[child], last))
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	s->heap[i] = last;
	return first;
}

/* ---- network --------------------------------------------------------------------------- */

static void trace_msg(struct sim *s, const char *what, const struct wvm_msg *m)
{
	if (s->config.trace)
		fprintf(s->config.trace,
			"%12llu  %u -> %u  %-20s page %llu version %llx grant %llx id %llx flags %x +%u %s\n",
			(unsigned long long)s->report.now_ns, m->src, m->dst, wvm_msg_name(m->type),
			(unsigned long long)(m->gpa >> WVM_PAGE_SHIFT),
			(unsigned long long)m->version, (unsigned long long)m->grant,
			(unsigned long long)m->request, m->flags, m->seg_offset, what);
}

static void deliver_later(struct sim *s, uint32_t node, const struct wvm_msg *msg,
			  const uint8_t *payload)
{
	uint64_t delay = s->config.delay_ns + rnd(s) % (s->config.delay_ns / 4 + 1);
	struct event *e;

	if (chance(s, s->config.reorder_ppm)) {
		s->report.overtaken++;
		delay += rnd(s) % (s->config.reorder_ns + 1);
	}
	e = post(s, s->report.now_ns + delay, EV_MESSAGE);
	e->node = node;
	e->msg = *msg;
	if (msg->payload_len) {
		e->payload = malloc(msg->payload_len);
		if (!e->payload)
			abort();
		memcpy(e->payload, payload, msg->payload_len);
	}
}

static void transmit(struct sim *s, uint32_t from, uint32_t to, const struct wvm_msg *msg,
		     const uint8_t *payload)
{
	s->report.messages++;
	if (s->nodes[from].cut || s->nodes[to].cut || chance(s, s->config.loss_ppm)) {
		s->report.lost++;
		trace_msg(s, "LOST", msg);
		return;
	}
	trace_msg(s, "", msg);
	deliver_later(s, to, msg, payload);
	if (chance(s, s->config.duplicate_ppm)) {
		s->report.doubled++;
		deliver_later(s, to, msg, payload);
	}
}

static bool all_zero(const uint8_t *page)
{
	for (uint32_t i = 0; i < WVM_PAGE_BYTES; i++)
		if (page[i])
			return false;
	return true;
}

static void send_page(struct sim *s, uint32_t from, uint32_t to, struct wvm_msg *msg,
		      const uint8_t *page)
{
	msg->seg_total = WVM_PAGE_BYTES;
	for (uint32_t at = 0; at < WVM_PAGE_BYTES; at += SEGMENT) {
		msg->seg_offset = at;
		msg->payload_len = WVM_PAGE_BYTES - at < SEGMENT ? WVM_PAGE_BYTES - at : SEGMENT;
		transmit(s, from, to, msg, page + at);
	}
}

/* ---- a node's memory ------------------------------------------------------------------- */

static uint8_t *ram_page(struct node *n, uint64_t page)
{
	return n->ram + page * WVM_PAGE_BYTES;
}

static void wake(struct sim *s, uint32_t node, uint64_t page, uint64_t clients)
{
	for (uint32_t i = 0; i < s->thread_count; i++) {
		struct thread *t = &s->threads[i];

		if (t->state != TH_WAIT || t->node != node || t->page != page ||
		    !(clients >> t->client & 1))
			continue;
		if (s->report.now_ns - t->since_ns > s->report.wait_ns_max)
			s->report.wait_ns_max = s->report.now_ns - t->since_ns;
		t->state = TH_ACCESS;
		post(s, s->report.now_ns + 1000 + rnd(s) % 3000, EV_THREAD)->thread = i;
	}
}

static void protect(struct sim *s, struct node *n, uint64_t page)
{
	for (uint32_t c = 0; c < s->config.clients; c++)
		n->stores[c][page] = false;
}

static void lift(struct sim *s, struct node *n, uint64_t page, uint64_t clients)
{
	for (uint32_t c = 0; c < s->config.clients; c++)
		if (clients >> c & 1)
			n->stores[c][page] = true;
}

static void thread_failed(struct sim *s, uint32_t node, uint64_t page)
{
	for (uint32_t i = 0; i < s->thread_count; i++) {
		struct thread *t = &s->threads[i];

		if ((t->state == TH_WAIT || t->state == TH_WAIT_PIN) && t->node == node &&
		    t->page == page) {
			s->report.failed_faults++;
			t->pins = t->pinned = false;
			t->state = TH_THINK;
			post(s, s->report.now_ns + 1000, EV_THREAD)->thread = i;
		}
	}
}

static void pins_done(struct sim *s, uint32_t node, uint64_t page)
{
	for (uint32_t i = 0; i < s->thread_count; i++) {
		struct thread *t = &s->threads[i];

		if (t->state == TH_WAIT_PIN && t->node == node && t->page == page) {
			t->pinned = true;
			t->state = TH_ACCESS;
			post(s, s->report.now_ns + 1000, EV_THREAD)->thread = i;
		}
	}
}

static void carry_out(struct sim *s, uint32_t node, const struct wvm_action *a)
{
	struct node *n = &s->nodes[node];
	const uint8_t *data = NULL;
	uint64_t page = sim_page(a->page);
	struct wvm_msg msg;

	switch ((enum wvm_action_kind)a->kind) {
	case WVM_ACT_INSTALL:
		if (n->present[page])
			failed(s, "node %u: page %llu installed over a present one", node,
			       (unsigned long long)page);
		protect(s, n, page);
		if (a->data)
			memcpy(ram_page(n, page), a->data, WVM_PAGE_BYTES);
		else
			memset(ram_page(n, page), 0, WVM_PAGE_BYTES);
		n->present[page] = true;
		if (a->writable)
			lift(s, n, page, a->waiters);
		wake(s, node, page, a->waiters);
		return;
	case WVM_ACT_LIFT:
		if (!n->present[page])
			failed(s, "node %u: page %llu lifted but absent", node,
			       (unsigned long long)page);
		lift(s, n, page, a->waiters);
		wake(s, node, page, a->waiters);
		return;
	case WVM_ACT_WAKE: wake(s, node, page, a->waiters); return;
	case WVM_ACT_PROTECT: protect(s, n, page); return;
	case WVM_ACT_SAVE:
		memcpy(n->outbox + (size_t)a->slot * WVM_PAGE_BYTES, ram_page(n, page),
		       WVM_PAGE_BYTES);
		return;
	case WVM_ACT_PUNCH:
		if (!n->present[page])
			failed(s, "node %u: page %llu punched but absent", node,
			       (unsigned long long)page);
		n->present[page] = false;
		memset(ram_page(n, page), 0xee, WVM_PAGE_BYTES);
		return;
	case WVM_ACT_FAIL: thread_failed(s, node, page); return;
	case WVM_ACT_PINNED: pins_done(s, node, page); return;
	case WVM_ACT_SEND: break;
	}
	msg = a->msg;
	if (a->source == WVM_DATA_STORE)
		data = n->store + (a->page << WVM_PAGE_SHIFT);
	else if (a->source == WVM_DATA_RAM)
		data = ram_page(n, page);
	else if (a->source == WVM_DATA_OUTBOX)
		data = n->outbox + (size_t)a->slot * WVM_PAGE_BYTES;
	if (data && all_zero(data)) {
		data = NULL;
		msg.flags |= WVM_MSG_ZERO;
	}
	if (a->member == node) {
		msg.payload_len = data ? WVM_PAGE_BYTES : 0;
		msg.seg_total = msg.payload_len;
		s->report.steps++;
		trace_msg(s, "self", &msg);
		wvm_core_message(n->core, s->report.now_ns, &msg, data);
	} else if (data) {
		send_page(s, node, a->member, &msg, data);
	} else {
		transmit(s, node, a->member, &msg, NULL);
	}
}

/* ---- what must always hold ------------------------------------------------------------- */

static void check_page(struct sim *s, uint64_t page)
{
	uint32_t modified = 0, present = 0;

	for (uint32_t i = 0; i < s->config.nodes; i++) {
		struct node *n = &s->nodes[i];
		const struct wvm_held_page *h = &n->held[core_page(page)];

		modified += h->state == WVM_HELD_MODIFIED;
		present += n->present[page];
		if (n->present[page] != (h->state != WVM_HELD_INVALID))
			failed(s, "node %u: page %llu in RAM %d, held %d", i,
			       (unsigned long long)page, n->present[page], h->state);
		for (uint32_t c = 0; c < s->config.clients; c++)
			if (n->stores[c][page] && h->state != WVM_HELD_MODIFIED)
				failed(s, "node %u: page %llu writable, held %d", i,
				       (unsigned long long)page, h->state);
		for (uint32_t w = 0; w < SIM_WORDS && n->present[page]; w++)
			if (memcmp(ram_page(n, page) + word_offset(w), &s->truth[page][w], 8))
				failed(s, "node %u: page %llu word %u stale in state %d", i,
				       (unsigned long long)page, w, h->state);
	}
	if (modified > 1 || (modified && present > 1))
		failed(s, "page %llu: %u owners, %u copies", (unsigned long long)page, modified,
		       present);
}

static void drain(struct sim *s, uint32_t node)
{
	struct node *n = &s->nodes[node];
	const struct wvm_action *a;
	uint64_t touched[64];
	uint32_t count = 0;

	while ((a = wvm_core_action(n->core))) {
		if (count < 64)
			touched[count++] = sim_page(a->page);
		carry_out(s, node, a);
	}
	for (uint32_t i = 0; i < count; i++)
		check_page(s, touched[i]);
}

static void rearm(struct sim *s, uint32_t node)
{
	struct node *n = &s->nodes[node];
	uint64_t due = wvm_core_deadline(n->core);

	if (due == WVM_CORE_NEVER || (n->tick_ns && n->tick_ns <= due))
		return;
	if (due < s->report.now_ns)
		due = s->report.now_ns;
	n->tick_ns = due;
	post(s, due, EV_TICK)->node = node;
}

/* ---- threads --------------------------------------------------------------------------- */

static void choose(struct sim *s, struct thread *t)
{
	bool hot = s->config.pages_hot && rnd(s) % 4;

	t->page = rnd(s) % (hot ? s->config.pages_hot : s->config.pages);
	t->word = rnd(s) % SIM_WORDS;
	t->write = chance(s, s->config.write_ppm);
	t->modify = t->write && rnd(s) % 2;
	t->pins = t->write && chance(s, s->config.pin_ppm);
	t->pinned = false;
	t->value = ++s->value;
	t->state = TH_ACCESS;
	t->since_ns = s->report.now_ns;
}

static void think(struct sim *s, uint32_t index)
{
	struct thread *t = &s->threads[index];

	t->state = TH_THINK;
	post(s, s->report.now_ns + 1 + rnd(s) % (2 * s->config.think_ns), EV_THREAD)->thread =
		index;
}

static void access_now(struct sim *s, struct thread *t)
{
	uint8_t *at = ram_page(&s->nodes[t->node], t->page) + word_offset(t->word);
	uint64_t *truth = &s->truth[t->page][t->word], seen;

	memcpy(&seen, at, 8);
	if ((!t->write || t->modify) && seen != *truth)
		failed(s, "node %u read %llu at page %llu word %u, last written %llu", t->node,
		       (unsigned long long)seen, (unsigned long long)t->page, t->word,
		       (unsigned long long)*truth);
	if (t->write) {
		*truth = t->value;
		memcpy(at, &t->value, 8);
	}
	t->accesses++;
	s->report.accesses++;
}

/* True when the thread has the pin it wants; else it waits, or tries again later. */
static bool get_pin(struct sim *s, uint32_t index)
{
	struct thread *t = &s->threads[index];

	s->report.steps++;
	switch (wvm_core_pin(s->nodes[t->node].core, s->report.now_ns, 0, core_page(t->page))) {
	case WVM_PIN_HELD: t->pinned = true; return true;
	case WVM_PIN_ASKED: t->state = TH_WAIT_PIN; return false;
	default: think(s, index); return false;
	}
}

static void run_thread(struct sim *s, uint32_t index)
{
	struct thread *t = &s->threads[index];
	struct node *n = &s->nodes[t->node];

	if (t->state == TH_WAIT || t->state == TH_WAIT_PIN)
		return;
	if (t->state == TH_THINK) {
		if (s->quiet)
			return;
		choose(s, t);
	}
	if (t->pins && !t->pinned && !get_pin(s, index))
		return;
	if (n->present[t->page] && (!t->write || n->stores[t->client][t->page])) {
		access_now(s, t);
		if (t->pinned) {
			s->report.steps++;
			wvm_core_unpin(n->core, s->report.now_ns, 0, core_page(t->page));
		}
		think(s, index);
		return;
	}
	s->report.faults++;
	s->report.steps++;
	t->state = TH_WAIT;
	if (!wvm_core_fault(n->core, s->report.now_ns, 0, core_page(t->page), t->write, t->client))
		think(s, index);
}

/* ---- running --------------------------------------------------------------------------- */

static void run_event(struct sim *s, struct event *e)
{
	uint32_t node = e->node;

	s->report.now_ns = e->at_ns;
	switch (e->kind) {
	case EV_MESSAGE:
		s->report.steps++;
		wvm_core_message(s->nodes[node].core, e->at_ns, &e->msg, e->payload);
		break;
	case EV_TICK:
		if (s->nodes[node].tick_ns != e->at_ns)
			return;
		s->nodes[node].tick_ns = 0;
		s->report.steps++;
		wvm_core_tick(s->nodes[node].core, e->at_ns);
		break;
	case EV_THREAD:
		node = s->threads[e->thread].node;
		run_thread(s, e->thread);
		break;
	}
	drain(s, node);
	rearm(s, node);
}

static void step(struct sim *s)
{
	struct event *e = next_event(s);

	run_event(s, e);
	free(e->payload);
	free(e);
}

uint64_t sim_run(struct sim *s, uint64_t accesses)
{
	uint64_t until = s->report.accesses + accesses;

	/* Those that are under way have their next event already. */
	for (uint32_t i = 0; s->quiet && i < s->thread_count; i++)
		if (s->threads[i].state == TH_THINK)
			think(s, i);
	s->quiet = false;
	while (s->events && s->report.accesses < until && !s->report.failure)
		step(s);
	return s->report.steps;
}

void sim_settle(struct sim *s, uint64_t ns)
{
	uint64_t until = s->report.now_ns + ns;

	s->quiet = true;
	while (s->events && s->heap[0]->at_ns <= until && !s->report.failure)
		step(s);
}

void sim_partition(struct sim *s, uint32_t node, bool cut)
{
	s->nodes[node].cut = cut;
}

void sim_default(struct sim_config *c, uint64_t seed)
{
	*c = (struct sim_config){
		.seed = seed,
		.nodes = 3,
		.clients = 2,
		.threads = 2,
		.pages = 16,
		.loss_ppm = 10000,
		.duplicate_ppm = 10000,
		.reorder_ppm = 50000,
		.delay_ns = 20000,
		.reorder_ns = 2000000,
		.think_ns = 20000,
		.write_ppm = 400000,
		.pin_ppm = 10000,
	};
	wvm_core_default_limits(&c->limits);
	wvm_core_default_times(&c->times);
}

static void make_node(struct sim *s, uint32_t index)
{
	struct node *n = &s->nodes[index];
	const struct sim_config *c = &s->config;
	struct wvm_core_params p = {
		.members = &s->list,
		.slices = &s->slices,
		.self = index,
		.epoch = 1,
		.boot = 1,
		.seed = rnd(s) + 1,
		.limits = c->limits,
		.times = c->times,
	};
	uint64_t pages = core_page(c->pages - 1) + 1;
	struct wvm_core_vm vm = {.id = VM_ID, .pages = pages};

	n->home = zeroed(sizeof(*n->home) * pages);
	n->held = zeroed(sizeof(*n->held) * pages);
	n->units = zeroed(sizeof(*n->units) * (pages / WVM_UNIT_PAGES + 1));
	n->store = zeroed(pages << WVM_PAGE_SHIFT);
	n->ram = zeroed((size_t)c->pages * WVM_PAGE_BYTES);
	n->outbox = zeroed((size_t)c->limits.demands * WVM_PAGE_BYTES);
	n->memory = zeroed(wvm_core_bytes(&p));
	p.outbox = n->outbox;
	n->core = wvm_core_init(n->memory, &p);
	vm.home = n->home;
	vm.held = n->held;
	vm.units = n->units;
	vm.store = n->store;
	wvm_core_add_vm(n->core, &vm);
	wvm_core_serve(n->core, true);
}

struct sim *sim_create(const struct sim_config *config)
{
	struct wvm_slices_scratch *scratch = zeroed(sizeof(*scratch));
	struct sim *s = zeroed(sizeof(*s));

	s->config = *config;
	s->quiet = true;
	s->random = config->seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	for (uint32_t i = 0; i < config->nodes; i++)
		s->members[i] = (struct wvm_member){.first_vnode = i, .vnodes = 1};
	s->list = (struct wvm_members){s->members, config->nodes};
	wvm_slices_build(&s->slices, &s->list, scratch);
	free(scratch);
	for (uint32_t i = 0; i < config->nodes; i++)
		make_node(s, i);
	for (uint32_t i = 0; i < config->nodes * config->clients * config->threads; i++) {
		s->threads[i].node = i % config->nodes;
		s->threads[i].client = i / config->nodes % config->clients;
	}
	s->thread_count = config->nodes * config->clients * config->threads;
	return s;
}

void sim_destroy(struct sim *s)
{
	while (s->events) {
		struct event *e = next_event(s);

		free(e->payload);
		free(e);
	}
	for (uint32_t i = 0; i < s->config.nodes; i++) {
		struct node *n = &s->nodes[i];

		free(n->home);
		free(n->held);
		free(n->units);
		free(n->store);
		free(n->ram);
		free(n->outbox);
		free(n->memory);
	}
	free(s->heap);
	free(s);
}

void sim_report(const struct sim *s, struct sim_report *report)
{
	*report = s->report;
	report->accesses_min = UINT64_MAX;
	for (uint32_t i = 0; i < s->thread_count; i++) {
		const struct thread *t = &s->threads[i];

		report->waiting += t->state == TH_WAIT || t->state == TH_WAIT_PIN;
		if (t->accesses < report->accesses_min)
			report->accesses_min = t->accesses;
		if (t->accesses > report->accesses_max)
			report->accesses_max = t->accesses;
	}
}

const struct wvm_core_stats *sim_stats(const struct sim *s, uint32_t node)
{
	return wvm_core_stats(s->nodes[node].core);
}

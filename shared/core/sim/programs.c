/*
 * Programs: threads that read, store and change words, fault where the page
 * tables say so, and wait; and the coming and going of whole programs.
 */
#include "shared/core/sim/sim.h"

#include <string.h>

/* ---- one access ------------------------------------------------------------------------ */

static void choose(struct sim *s, struct sim_thread *t)
{
	bool hot = s->config.pages_hot && sim_rnd(s) % 4;

	t->page = sim_rnd(s) % (hot ? s->config.pages_hot : s->config.pages);
	t->word = sim_rnd(s) % SIM_WORDS;
	t->write = sim_chance(s, s->config.write_ppm);
	t->modify = t->write && sim_rnd(s) % 2;
	t->pins = t->write && sim_chance(s, s->config.pin_ppm);
	t->pinned = false;
	if (t->write)
		t->value = ++s->value;
	t->state = SIM_TH_ACCESS;
	t->since_ns = s->report.now_ns;
}

static void run_after(struct sim *s, uint32_t index, uint64_t ns)
{
	struct sim_event *e = sim_post(s, s->report.now_ns + ns, SIM_EV_THREAD);

	e->index = index;
	e->life = s->threads[index].life;
}

void sim_think(struct sim *s, uint32_t index)
{
	s->threads[index].state = SIM_TH_THINK;
	run_after(s, index, 1 + sim_rnd(s) % (2 * s->config.think_ns));
}

static void access_now(struct sim *s, struct sim_thread *t)
{
	uint8_t *at = sim_ram(&s->nodes[t->node], t->page) + sim_word_offset(t->word);
	uint64_t *truth = &s->truth[t->page][t->word], seen;
	bool reads = !t->write || t->modify;

	s->nodes[t->node].data[t->page] = true;
	memcpy(&seen, at, 8);
	if (reads && seen != *truth)
		sim_failed(s, "node %u read %llu at page %llu word %u, last written %llu", t->node,
			   (unsigned long long)seen, (unsigned long long)t->page, t->word,
			   (unsigned long long)*truth);
	if (t->write) {
		*truth = t->value;
		memcpy(at, &t->value, 8);
	}
	if (reads)
		sim_note(s, t->node, t->page, "p%llu.%u = %llu", (unsigned long long)t->page,
			 t->word, (unsigned long long)seen);
	if (t->write)
		sim_note(s, t->node, t->page, "p%llu.%u := %llu", (unsigned long long)t->page,
			 t->word, (unsigned long long)t->value);
	sim_history_add(s, t, seen);
	t->accesses++;
	s->report.accesses++;
}

/* The access is tried again after a while: some ms, or hardly anything else would be simulated. */
static void again(struct sim *s, uint32_t index)
{
	s->threads[index].state = SIM_TH_ACCESS;
	run_after(s, index, 1 + sim_rnd(s) % 10000000);
}

/* True when the thread has the pin it wants; else it waits, or tries again later. */
static bool get_pin(struct sim *s, uint32_t index)
{
	struct sim_thread *t = &s->threads[index];

	s->report.steps++;
	sim_note(s, t->node, t->page, "pin p%llu", (unsigned long long)t->page);
	switch (wvm_core_pin(s->nodes[t->node].core, s->report.now_ns, 0, sim_core_page(t->page))) {
	case WVM_PIN_HELD: t->pinned = true; return true;
	case WVM_PIN_ASKED:
		t->state = SIM_TH_WAIT_PIN;
		t->fault_ns = s->report.now_ns;
		t->stalled_ns = sim_stalled(s, &s->nodes[t->node]);
		return false;
	default: again(s, index); return false;
	}
}

static void unpin(struct sim *s, uint32_t node, uint64_t page)
{
	s->report.steps++;
	sim_note(s, node, page, "unpin p%llu", (unsigned long long)page);
	wvm_core_unpin(s->nodes[node].core, s->report.now_ns, 0, sim_core_page(page));
}

/* The fault is on its way to the master: now, or through the inbox of a busy one. */
static void fault(struct sim *s, uint32_t index)
{
	struct sim_thread *t = &s->threads[index];
	struct sim_event *e = sim_event_new(s, SIM_EV_FAULT, false);

	s->report.faults++;
	t->state = SIM_TH_WAIT;
	t->queued = true;
	t->fault_ns = s->report.now_ns;
	t->stalled_ns = sim_stalled(s, &s->nodes[t->node]);
	e->node = t->node;
	e->index = index;
	e->life = t->life;
	e->number = ++t->fault;
	e->page = (uint32_t)t->page;
	e->write = t->write;
	sim_arrive(s, e);
}

/* Guesses that are as bad as can be: any pages, few of them read soon. */
static void read_ahead(struct sim *s, uint32_t node)
{
	for (uint32_t i = 0; i < s->config.read_ahead; i++) {
		uint32_t page = (uint32_t)(sim_rnd(s) % s->config.pages);

		sim_touch(s, page);
		if (!wvm_ahead_page(s->nodes[node].core, 0, sim_core_page(page)))
			return;
	}
}

/*
 * The master reads a fault. Its thread may have been woken meanwhile, by
 * another's: the master does not know that.
 */
void sim_thread_fault(struct sim *s, const struct sim_event *e)
{
	struct sim_thread *t = &s->threads[e->index];
	bool present = t->fault == e->number && t->state == SIM_TH_WAIT;

	if (t->life != e->life)
		return;
	if (present)
		t->queued = false;
	s->report.steps++;
	sim_touch(s, e->page);
	sim_note(s, t->node, e->page, "fault p%u %s", e->page, e->write ? "W" : "R");
	if (wvm_core_fault(s->nodes[t->node].core, s->report.now_ns, 0, sim_core_page(e->page),
			   e->write, t->client)) {
		read_ahead(s, t->node);
		return;
	}
	sim_note(s, t->node, e->page, "refused p%u", e->page);
	if (present)
		again(s, e->index);
}

/* As masters do it: pins are asked for when the master gets to it. */
static bool master_is_busy(struct sim *s, const struct sim_node *n)
{
	return n->stops || n->down || n->inbox || s->report.now_ns < n->busy_until_ns;
}

/* A page of the thread's program, mostly one that another thread is at. */
static void unmap_any(struct sim *s, const struct sim_thread *t)
{
	uint32_t other = t->node * s->node_threads + (uint32_t)(sim_rnd(s) % s->node_threads);
	uint64_t page = s->threads[other].page;

	if (sim_rnd(s) % 4 == 0)
		page = sim_rnd(s) % s->config.pages;
	sim_unmap(s, t->node, t->client, (uint32_t)page);
}

void sim_thread_run(struct sim *s, uint32_t index)
{
	struct sim_thread *t = &s->threads[index];
	struct sim_node *n = &s->nodes[t->node];

	if (t->state == SIM_TH_THINK && s->quiet) {
		t->state = SIM_TH_IDLE;
		return;
	}
	if (t->state == SIM_TH_THINK)
		choose(s, t);
	if (n->unmapped[t->page] >> t->client & 1) {
		sim_think(s, index);
		return;
	}
	if (t->pins && master_is_busy(s, n)) {
		run_after(s, index, 1000000);
		return;
	}
	if (t->pins && !t->pinned) {
		sim_touch(s, t->page);
		if (!get_pin(s, index)) {
			sim_node_drain(s, t->node);
			return;
		}
	}
	if (!n->present[t->page] || (t->write && !(n->untrapped[t->page] >> t->client & 1))) {
		fault(s, index);
		return;
	}
	access_now(s, t);
	if (t->pinned) {
		t->pinned = false;
		unpin(s, t->node, t->page);
		sim_node_drain(s, t->node);
	}
	sim_think(s, index);
	if (s->config.unmap_ppm && !s->quiet && sim_chance(s, s->config.unmap_ppm))
		unmap_any(s, t);
}

/* ---- what ends a wait ------------------------------------------------------------------ */

/* The threads of a node lie together. */
#define for_each_thread(s, node, i) \
	for (uint32_t i = (node) * (s)->node_threads; i < ((node) + 1) * (s)->node_threads; i++)

static void end_wait(struct sim *s, uint32_t index)
{
	struct sim_thread *t = &s->threads[index];

	if (s->report.now_ns - t->fault_ns > s->report.wait_ns_max)
		s->report.wait_ns_max = s->report.now_ns - t->fault_ns;
	sim_check_wait(s, t);
	t->queued = false;
}

/* The kernel wakes every thread of a program that waits for the page. */
void sim_wake(struct sim *s, uint32_t node, uint64_t page, uint64_t clients)
{
	for_each_thread(s, node, i)
	{
		struct sim_thread *t = &s->threads[i];

		if (t->state != SIM_TH_WAIT || t->page != page || !(clients >> t->client & 1))
			continue;
		end_wait(s, i);
		t->state = SIM_TH_ACCESS;
		run_after(s, i, 1000 + sim_rnd(s) % 3000);
	}
}

void sim_let_go(struct sim *s, uint32_t node, uint32_t client, uint64_t page)
{
	for_each_thread(s, node, i)
	{
		struct sim_thread *t = &s->threads[i];

		if (t->state != SIM_TH_WAIT || t->page != page || t->client != client)
			continue;
		end_wait(s, i);
		s->report.let_go++;
		t->state = SIM_TH_THINK;
		run_after(s, i, 1000);
	}
}

void sim_wake_failed(struct sim *s, uint32_t node, uint64_t page, uint64_t clients)
{
	for_each_thread(s, node, i)
	{
		struct sim_thread *t = &s->threads[i];
		bool waits = t->state == SIM_TH_WAIT && clients >> t->client & 1;

		if (t->page != page || (!waits && t->state != SIM_TH_WAIT_PIN))
			continue;
		end_wait(s, i);
		s->report.failed_faults++;
		t->pins = t->pinned = false;
		t->state = SIM_TH_THINK;
		run_after(s, i, 1000);
	}
}

void sim_pins_done(struct sim *s, uint32_t node, uint64_t page)
{
	struct sim_node *n = &s->nodes[node];

	sim_note(s, node, page, "pinned p%llu", (unsigned long long)page);
	for_each_thread(s, node, i)
	{
		struct sim_thread *t = &s->threads[i];

		if (t->state != SIM_TH_WAIT_PIN || t->page != page)
			continue;
		end_wait(s, i);
		t->pinned = true;
		t->state = SIM_TH_ACCESS;
		run_after(s, i, 1000);
	}
	while (n->orphans[page]) {
		n->orphans[page]--;
		unpin(s, node, page);
	}
}

/* The master that they asked for pins is gone; they do without. */
void sim_pins_lost(struct sim *s, uint32_t node, uint64_t page)
{
	for_each_thread(s, node, i)
	{
		struct sim_thread *t = &s->threads[i];

		if (t->state != SIM_TH_WAIT_PIN || t->page != page)
			continue;
		end_wait(s, i);
		t->pins = t->pinned = false;
		t->state = SIM_TH_THINK;
		run_after(s, i, 1000);
	}
}

/* ---- coming and going ------------------------------------------------------------------ */

static void leave(struct sim *s, uint32_t node, uint32_t client)
{
	struct sim_node *n = &s->nodes[node];

	s->report.left++;
	s->report.steps++;
	sim_note(s, node, SIM_NO_PAGE, "program %u leaves", client);
	n->known &= (uint8_t) ~(1u << client);
	n->usable &= (uint8_t) ~(1u << client);
	sim_maps_all(s, node, client);
	wvm_core_client_gone(n->core, client);
	for_each_thread(s, node, i)
	{
		struct sim_thread *t = &s->threads[i];

		if (t->client != client)
			continue;
		if (t->pinned)
			unpin(s, node, t->page);
		if (t->state == SIM_TH_WAIT_PIN)
			n->orphans[t->page]++;
		t->life++;
		t->pinned = t->pins = t->queued = false;
		t->state = SIM_TH_IDLE;
	}
	sim_node_drain(s, node);
}

/*
 * shared/PROTOCOL.md, On the node: a program that maps later is known to the
 * master first, so that installs protect its page tables, too; then protects
 * what is in the file already; and only then has its mapping.
 */
static void map(struct sim *s, uint32_t node, uint32_t client)
{
	struct sim_node *n = &s->nodes[node];

	sim_note(s, node, SIM_NO_PAGE, "program %u maps", client);
	for (uint32_t p = 0; p < s->config.pages; p++)
		sim_map_known(n, client, p);
	n->known |= (uint8_t)(1u << client);
	sim_maps_all(s, node, client);
}

static void use(struct sim *s, uint32_t node, uint32_t client)
{
	struct sim_node *n = &s->nodes[node];

	sim_note(s, node, SIM_NO_PAGE, "program %u runs", client);
	for (uint32_t p = 0; p < s->config.pages; p++)
		sim_map_protected(n, client, p);
	n->usable |= (uint8_t)(1u << client);
	for_each_thread(s, node, i) if (s->threads[i].client == client && !s->quiet)
		sim_think(s, i);
}

static void program_after(struct sim *s, uint32_t index, uint64_t ns)
{
	sim_post(s, s->report.now_ns + 1 + sim_rnd(s) % (2 * ns + 1), SIM_EV_PROGRAM)->index =
		index;
}

void sim_program_event(struct sim *s, uint32_t index)
{
	struct sim_program *p = &s->programs[index];
	uint32_t node = index / s->config.clients, client = index % s->config.clients;

	if (s->nodes[node].dead)
		return;
	/* A busy master notices later; and nobody leaves while all is to come to rest. */
	if (master_is_busy(s, &s->nodes[node]) || s->nodes[node].retiring) {
		program_after(s, index, 1000000);
		return;
	}
	switch (p->state) {
	case SIM_PROGRAM_RUNS:
		if (s->quiet) {
			p->idle = true;
			return;
		}
		leave(s, node, client);
		p->state = SIM_PROGRAM_AWAY;
		program_after(s, index, s->config.program_away_ns);
		return;
	case SIM_PROGRAM_AWAY:
		map(s, node, client);
		p->state = SIM_PROGRAM_MAPS;
		program_after(s, index, 20000);
		return;
	case SIM_PROGRAM_MAPS:
		use(s, node, client);
		p->state = SIM_PROGRAM_RUNS;
		p->idle = !s->config.program_gap_ns;
		if (!p->idle)
			program_after(s, index, s->config.program_gap_ns);
		return;
	}
}

/* All of a node, unless it is killed meanwhile: they come back by themselves when it has ceased to
 * retire. */
void sim_programs_leave(struct sim *s, uint32_t node)
{
	if (sim_runs_nothing(s, node))
		return;
	for (uint32_t c = 0; c < s->config.clients; c++) {
		uint32_t index = node * s->config.clients + c;
		struct sim_program *p = &s->programs[index];

		if (p->state == SIM_PROGRAM_AWAY)
			continue;
		p->state = SIM_PROGRAM_AWAY;
		if (p->idle)
			program_after(s, index, 1000000);
		p->idle = false;
		leave(s, node, c);
		if (s->nodes[node].down)
			return;
	}
}

/* All of a node that is gone, with all that they had. They come back some time after it. */
void sim_programs_end(struct sim *s, uint32_t node)
{
	s->nodes[node].known = s->nodes[node].usable = 0;
	for_each_thread(s, node, i)
	{
		struct sim_thread *t = &s->threads[i];

		t->life++;
		t->pinned = t->pins = t->queued = false;
		t->state = SIM_TH_IDLE;
	}
	for (uint32_t c = 0; c < s->config.clients; c++) {
		uint32_t index = node * s->config.clients + c;
		struct sim_program *p = &s->programs[index];

		p->state = SIM_PROGRAM_AWAY;
		sim_maps_all(s, node, c);
		if (p->idle)
			program_after(s, index, 1000000);
		p->idle = false;
	}
}

/* The cluster is no longer quiet: those that have no event get one. */
void sim_programs_start(struct sim *s)
{
	for (uint32_t i = 0; i < s->thread_count; i++) {
		const struct sim_thread *t = &s->threads[i];

		if (t->state == SIM_TH_IDLE && s->nodes[t->node].usable >> t->client & 1)
			sim_think(s, i);
	}
	for (uint32_t i = 0; i < s->config.nodes * s->config.clients; i++) {
		if (!s->programs[i].idle || !s->config.program_gap_ns ||
		    !s->nodes[i / s->config.clients].known)
			continue;
		s->programs[i].idle = false;
		program_after(s, i, s->config.program_gap_ns);
	}
}

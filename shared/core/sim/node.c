/*
 * A node's memory as kernel and master keep it, and how the master carries out
 * what its core says: the model of roles/master/glue.c and mem.c.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/core/sim/sim.h"

/* Only what programs use: the rest of a page is always zero. */
static void poison(struct sim_node *n, uint64_t page)
{
	for (uint32_t w = 0; w < SIM_WORDS; w++)
		memset(sim_ram(n, page) + sim_word_offset(w), 0xee, 8);
}

static bool all_zero(const uint8_t *page)
{
	uint64_t words[8];

	/* A page that is not zero shows it in its first words, mostly. */
	for (uint32_t i = 0; i < WVM_PAGE_BYTES; i += sizeof(words)) {
		memcpy(words, page + i, sizeof(words));
		if (words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] |
		    words[7])
			return false;
	}
	return true;
}

static void protect(struct sim_node *n, uint64_t page)
{
	n->untrapped[page] &= (uint8_t)~n->known;
}

static void lift(struct sim_node *n, uint64_t page, uint64_t clients)
{
	n->untrapped[page] |= (uint8_t)clients & n->known;
}

static void install(struct sim *s, uint32_t node, uint64_t page, const struct wvm_action *a)
{
	struct sim_node *n = &s->nodes[node];

	if (n->present[page])
		sim_failed(s, "node %u: page %llu installed over a present one", node,
			   (unsigned long long)page);
	if (sim_chance(s, s->config.full_ppm)) {
		s->report.installs_failed++;
		sim_note(s, node, page, "no room for p%llu", (unsigned long long)page);
		wvm_core_not_installed(n->core, a->vm, a->page);
		n->orphans[page] = 0;
		sim_wake_failed(s, node, page, a->waiters);
		return;
	}
	sim_note(s, node, page, "install p%llu %s", (unsigned long long)page,
		 a->writable ? "M" : "S");
	if (!s->config.unprotected)
		protect(n, page);
	if (a->data)
		memcpy(sim_ram(n, page), a->data, WVM_PAGE_BYTES);
	else
		memset(sim_ram(n, page), 0, WVM_PAGE_BYTES);
	n->present[page] = n->data[page] = true;
	if (a->writable)
		lift(n, page, a->waiters);
	sim_wake(s, node, page, a->waiters);
}

/* Zeros where there is nothing. Programs that have no marker in their page tables can store. */
static void fill(struct sim *s, uint32_t node, const struct wvm_action *a)
{
	struct sim_node *n = &s->nodes[node];

	for (uint64_t at = a->page - a->below; at < a->page + a->count; at++) {
		uint64_t page = sim_page_of(at);

		if (at % WVM_UNIT_PAGES >= SIM_UNIT_PAGES || page >= s->config.pages)
			continue;
		sim_touch(s, page);
		sim_note(s, node, page, "fill p%llu", (unsigned long long)page);
		if (!n->present[page]) {
			memset(sim_ram(n, page), 0, WVM_PAGE_BYTES);
			n->present[page] = true;
			n->untrapped[page] |= n->known & (uint8_t)sim_rnd(s);
		}
		lift(n, page, a->waiters);
		sim_wake(s, node, page, a->waiters);
	}
}

static void settle(struct sim *s, uint32_t node, uint64_t page, const struct wvm_action *a)
{
	struct sim_node *n = &s->nodes[node];

	if (!n->present[page] && sim_chance(s, s->config.full_ppm)) {
		sim_note(s, node, page, "no room to settle p%llu", (unsigned long long)page);
		sim_wake_failed(s, node, page, a->waiters);
		return;
	}
	sim_note(s, node, page, "settle p%llu", (unsigned long long)page);
	if (!n->data[page])
		memset(sim_ram(n, page), 0, WVM_PAGE_BYTES);
	n->present[page] = n->data[page] = true;
	sim_wake(s, node, page, a->waiters);
}

/* The page as the RAM file has it; where it has nothing, and the core knows: zeros. */
static const uint8_t *ram_of(struct sim *s, uint32_t node, uint64_t page,
			     const struct wvm_action *a)
{
	static const uint8_t zeros[WVM_PAGE_BYTES];
	struct sim_node *n = &s->nodes[node];

	if (n->present[page])
		return sim_ram(n, page);
	if (!a->hole)
		sim_failed(s, "node %u: page %llu is read and not there", node,
			   (unsigned long long)page);
	return zeros;
}

static void punch(struct sim *s, uint32_t node, uint64_t page)
{
	struct sim_node *n = &s->nodes[node];

	if (!n->present[page] && !n->held[sim_core_page(page)].hole)
		sim_failed(s, "node %u: page %llu punched but absent", node,
			   (unsigned long long)page);
	sim_note(s, node, page, "punch p%llu", (unsigned long long)page);
	n->present[page] = n->data[page] = false;
	/* The kernel may drop a marker when a refault races with the removal of the page. */
	if (sim_rnd(s) % 4 == 0)
		n->untrapped[page] |= n->known & (uint8_t)sim_rnd(s);
	poison(n, page);
}

static void send(struct sim *s, uint32_t node, uint64_t page, const struct wvm_action *a)
{
	struct sim_node *n = &s->nodes[node];
	struct wvm_msg msg = a->msg;
	const uint8_t *data = NULL;

	if (a->source == WVM_DATA_STORE)
		data = n->store + (a->page << WVM_PAGE_SHIFT);
	else if (a->source == WVM_DATA_RAM)
		data = ram_of(s, node, page, a);
	else if (a->source == WVM_DATA_OUTBOX)
		data = n->outbox + (size_t)a->slot * WVM_PAGE_BYTES;
	if (a->source == WVM_DATA_BYTES && a->member == node) {
		s->report.steps++;
		wvm_core_message(n->core, s->report.now_ns, &msg, a->data);
		return;
	}
	if (a->source == WVM_DATA_BYTES) {
		sim_send_bytes(s, node, a->member, &msg, a->data);
		return;
	}
	if (msg.type == WVM_MSG_WRITE_BACK_ACK)
		sim_note_acknowledged(s, node, &msg);
	if (msg.type == WVM_MSG_WRITE_BACK)
		sim_check_written_back(s, node, page, msg.version, data);
	if (data && all_zero(data)) {
		data = NULL;
		msg.flags |= WVM_MSG_ZERO;
	}
	if (a->member != node) {
		sim_send(s, node, a->member, &msg, data);
		return;
	}
	msg.payload_len = data ? WVM_PAGE_BYTES : 0;
	msg.seg_total = msg.payload_len;
	s->report.steps++;
	if (s->config.trace)
		sim_chart_send(s, 0, node, node, &msg, "");
	if (msg.type == WVM_MSG_WRITE_BACK_ACK)
		sim_check_acknowledged(s, node, &msg);
	if (msg.type == WVM_MSG_WRITE_BACK)
		sim_backup_written_back(s, node, &msg);
	wvm_core_message(n->core, s->report.now_ns, &msg, data);
}

/*
 * The entries may become zeros, and the stored copies anything: some do. (Of the
 * core's unit only the first pages are used.)
 */
static void forget(struct sim *s, uint32_t node, uint64_t page, bool home)
{
	struct sim_node *n = &s->nodes[node];

	s->report.merges += !home;
	sim_note(s, node, page, "forget %s of p%llu on", home ? "entries and bytes" : "entries",
		 (unsigned long long)page);
	for (uint64_t at = page; at < page + SIM_UNIT_PAGES && at < s->config.pages; at++) {
		uint64_t core_page = sim_core_page(at);

		if (home)
			n->stored[at] = false;
		if (sim_rnd(s) % 2)
			continue;
		if (home) {
			memset(&n->home[core_page], 0, sizeof(*n->home));
			memset(n->store + (core_page << WVM_PAGE_SHIFT), 0xee, WVM_PAGE_BYTES);
		} else {
			memset(&n->held[core_page], 0, sizeof(*n->held));
		}
	}
}

static void carry_out(struct sim *s, uint32_t node, const struct wvm_action *a)
{
	struct sim_node *n = &s->nodes[node];
	uint64_t page = sim_page_of(a->page);

	switch ((enum wvm_action_kind)a->kind) {
	case WVM_ACT_SEND: send(s, node, page, a); return;
	case WVM_ACT_INSTALL: install(s, node, page, a); return;
	case WVM_ACT_LIFT:
		if (!n->present[page] && !n->held[sim_core_page(page)].hole)
			sim_failed(s, "node %u: page %llu lifted but absent", node,
				   (unsigned long long)page);
		sim_note(s, node, page, "lift p%llu", (unsigned long long)page);
		lift(n, page, a->waiters);
		sim_wake(s, node, page, a->waiters);
		return;
	case WVM_ACT_WAKE:
		sim_note(s, node, page, "wake p%llu", (unsigned long long)page);
		sim_wake(s, node, page, a->waiters);
		return;
	case WVM_ACT_PROTECT:
		sim_note(s, node, page, "protect p%llu", (unsigned long long)page);
		protect(n, page);
		return;
	case WVM_ACT_SAVE:
		sim_note(s, node, page, "save p%llu", (unsigned long long)page);
		memcpy(n->outbox + (size_t)a->slot * WVM_PAGE_BYTES, ram_of(s, node, page, a),
		       WVM_PAGE_BYTES);
		return;
	case WVM_ACT_PUNCH: punch(s, node, page); return;
	case WVM_ACT_FAIL:
		sim_note(s, node, page, "FAIL p%llu %s", (unsigned long long)page,
			 a->reason == WVM_FAIL_LOST ? "lost" : "deadline");
		n->orphans[page] = 0;
		sim_wake_failed(s, node, page, a->waiters);
		return;
	case WVM_ACT_FILL: fill(s, node, a); return;
	case WVM_ACT_SETTLE: settle(s, node, page, a); return;
	case WVM_ACT_PINNED: sim_pins_done(s, node, page); return;
	case WVM_ACT_FORGET: forget(s, node, page, a->home); return;
	}
	sim_failed(s, "node %u: action %u", node, a->kind);
}

void sim_node_drain(struct sim *s, uint32_t node)
{
	const struct wvm_action *a;

	/* It may be killed before what it changed is final, and after, before it is carried out. */
	while (!sim_life_ends(s, node) && (a = wvm_core_action(s->nodes[node].core)) &&
	       !sim_life_ends(s, node)) {
		sim_touch(s, sim_page_of(a->page));
		carry_out(s, node, a);
	}
	sim_rearm(s, node);
	sim_check_touched(s, node);
}

/* ---- lives ----------------------------------------------------------------------------- */

static void make_files(struct sim *s, struct sim_node *n, const struct wvm_core_params *p)
{
	const struct sim_config *c = &s->config;

	n->home = sim_zeroed(sizeof(*n->home) * s->page_count);
	n->held = sim_zeroed(sizeof(*n->held) * s->page_count);
	n->held_units = sim_zeroed(sizeof(*n->held_units) * (s->page_count / WVM_UNIT_PAGES + 1));
	n->units = sim_zeroed(sizeof(*n->units) * (s->page_count / WVM_UNIT_PAGES + 1));
	n->store = sim_zeroed(s->page_count << WVM_PAGE_SHIFT);
	n->ram = sim_zeroed((size_t)c->pages * WVM_PAGE_BYTES);
	n->outbox = sim_zeroed((size_t)c->limits.demands * WVM_PAGE_BYTES);
	n->durable = sim_zeroed(wvm_core_durable_bytes(p));
}

/* What a master that is gone had in its own memory. Its sockets: sim_inbox_resume(). */
static void forget_master(struct sim_node *n)
{
	memset(n->orphans, 0, sizeof(n->orphans));
	free(n->memory);
	n->tick_ns = n->busy_until_ns = 0;
}

/*
 * A master begins: the first over new files, or one that has lost its own, a later one over those
 * of the life before. What is on its way from and to that life stays there.
 */
void sim_node_start(struct sim *s, uint32_t node)
{
	struct wvm_core_vm vm = {.id = SIM_VM_ID, .pages = s->page_count};
	struct sim_node *n = &s->nodes[node];
	struct wvm_core_params p;

	if (!n->epoch)
		n->epoch = n->table = 1;
	n->boot++;
	if (n->empty || n->boot == 1)
		n->boot_first = n->boot;
	n->empty = false;
	p = (struct wvm_core_params){
		.members = &s->list,
		.slices = sim_table(s, n->table),
		.before = n->table > 1 ? sim_table(s, sim_move(s, n->table)->base) : NULL,
		.moved = sim_move(s, n->table)->moved,
		.backup = sim_backup_table(s, n->table),
		.lost = sim_move(s, n->table)->deadly ? &sim_move(s, n->table)->lost : NULL,
		.layout = &s->layout,
		.self = node,
		.epoch = n->epoch,
		.boot = n->boot,
		.boot_first = n->boot_first,
		.adopt = n->boot > n->boot_first,
		.seed = sim_rnd(s) + 1,
		.limits = s->config.limits,
		.times = s->config.times,
		.wander = (uint8_t)s->config.wander,
		.units = s->config.units,
		.merge = s->config.units,
	};
	if (n->boot == 1)
		make_files(s, n, &p);
	forget_master(n);
	n->memory = sim_zeroed(wvm_core_bytes(&p));
	p.outbox = n->outbox;
	p.durable = n->durable;
	n->core = wvm_core_init(n->memory, &p);
	vm.home = n->home;
	vm.held = n->held;
	vm.held_units = n->held_units;
	vm.units = n->units;
	vm.store = n->store;
	wvm_core_add_vm(n->core, &vm);
	for (uint32_t i = 0; i < s->config.nodes; i++)
		if (s->nodes[i].buried && s->nodes[i].buried <= n->table)
			wvm_core_lost(n->core, i, true);
	if (!p.adopt && n->epoch >= n->serves_from)
		wvm_core_serve(n->core, true);
	sim_note(s, node, SIM_NO_PAGE, "boot %u", n->boot);
}

void sim_node_free(struct sim_node *n)
{
	free(n->home);
	free(n->held);
	free(n->held_units);
	free(n->units);
	free(n->store);
	free(n->ram);
	free(n->outbox);
	free(n->durable);
	free(n->memory);
}

#include "roles/master/adopt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring/post.h"
#include "roles/master/node.h"
#include "shared/core/assert.h"

#define LOOK_NS UINT64_C(2000000)    /* how often it is looked whether all clients are back */
#define TELL_NS UINT64_C(2000000000) /* then the operator is told who is not */

#define PINS_MAX ((size_t)WVM_CLIENTS_MAX * WVM_RING_PINS_MAX)

/* ---- the home -------------------------------------------------------------------------- */

struct home_run {
	struct wvm_node *node;
	uint32_t vm;
};

static void adopt_home_run(void *ctx, uint64_t first, uint64_t end)
{
	struct home_run *run = ctx;
	struct wvm_node *node = run->node;
	const struct wvm_core_vm *vm = wvm_core_vm_at(node->shards[0].core, run->vm);

	for (uint64_t page = first; page < end && page < vm->pages; page++) {
		unsigned shard = wvm_slice_of(vm->id, page << WVM_PAGE_SHIFT) % node->shard_count;

		wvm_core_adopt_home(node->shards[shard].core, run->vm, page);
	}
}

int wvm_adopt_home(struct wvm_node *node, char *err, size_t err_len)
{
	struct home_run run = {.node = node};

	node->adoption.pins = calloc(PINS_MAX, sizeof(*node->adoption.pins));
	if (!node->adoption.pins) {
		snprintf(err, err_len, "no memory to take the former life over");
		return -ENOMEM;
	}
	node->adoption.active = true;
	for (unsigned i = 0; i < node->shard_count; i++)
		wvm_core_adopt(node->shards[i].core);
	for (; run.vm < node->vm_count; run.vm++) {
		const struct wvm_core_vm *vm = wvm_core_vm_at(node->shards[0].core, run.vm);
		int r = wvm_state_scan(&node->state, vm->home, sizeof(*vm->home), adopt_home_run,
				       &run);

		if (r) {
			snprintf(err, err_len, "cannot read the directory of VM %u: %s", vm->id,
				 strerror(-r));
			return r;
		}
	}
	for (unsigned i = 0; i < node->shard_count; i++) {
		wvm_core_adopt_home_end(node->shards[i].core);
		node->shards[i].adopting = true;
	}
	return 0;
}

void wvm_adopt_free(struct wvm_node *node)
{
	free(node->adoption.pins);
}

/* ---- the holder, on every shard -------------------------------------------------------- */

struct held_run {
	struct wvm_node_shard *shard;
	uint32_t vm;
};

static bool mine(const struct wvm_node_shard *s, uint64_t page)
{
	return wvm_holder_shard(s->node, page) == s->index;
}

static bool touched(const struct wvm_held_page *h)
{
	static const struct wvm_held_page never;

	return memcmp(h, &never, sizeof(never)) != 0;
}

/* Entries that are not all zeros have their room, of which nobody has been told yet. */
static void need_room(bool has)
{
	if (!has)
		wvm_core_panic("no room for an entry of the former life", __FILE__, __LINE__);
}

static void adopt_held_run(void *ctx, uint64_t first, uint64_t end)
{
	struct held_run *run = ctx;
	struct wvm_node_shard *s = run->shard;
	const struct wvm_core_vm *vm = wvm_core_vm_at(s->core, run->vm);

	for (uint64_t page = first; page < end && page < vm->pages; page++) {
		if (!mine(s, page) || !touched(&vm->held[page]))
			continue;
		need_room(wvm_backing_held(&s->node->backing[run->vm], page));
		wvm_core_adopt_held(s->core, s->shard->now_ns, run->vm, page,
				    wvm_mem_present(s->node->vms[run->vm], page));
		wvm_node_drain(s);
	}
}

static void adopt_unit_run(void *ctx, uint64_t first, uint64_t end)
{
	struct held_run *run = ctx;
	struct wvm_node_shard *s = run->shard;
	uint64_t units = wvm_core_vm_at(s->core, run->vm)->pages / WVM_UNIT_PAGES;

	for (uint64_t unit = first; unit < end && unit < units; unit++) {
		uint64_t page = unit * WVM_UNIT_PAGES;

		if (!mine(s, page))
			continue;
		need_room(wvm_backing_held_unit(&s->node->backing[run->vm], page));
		wvm_core_adopt_unit(s->core, run->vm, unit);
	}
}

/* A page of a unit that is held whole has no entry, and needs none. */
static bool is_stranger(struct wvm_node_shard *s, uint32_t vm, uint64_t page)
{
	if (wvm_backing_held_unit(&s->node->backing[vm], page) &&
	    !wvm_core_needs_held(s->core, vm, page))
		return false;
	if (!wvm_backing_held(&s->node->backing[vm], page))
		wvm_core_panic("no room for the entry of a page that is in the RAM file", __FILE__,
			       __LINE__);
	return !touched(&wvm_core_vm_at(s->core, vm)->held[page]);
}

/* Pages in the file that no entry ever spoke of: nobody should have put them there. */
static void remove_strangers(struct wvm_node_shard *s, uint32_t vm)
{
	const struct wvm_core_vm *v = wvm_core_vm_at(s->core, vm);
	struct wvm_mem *mem = s->node->vms[vm];
	uint64_t page = 0;

	while ((page = wvm_mem_next_present(mem, page)) < v->pages) {
		if (mine(s, page) && is_stranger(s, vm, page)) {
			wvm_core_adopt_held(s->core, s->shard->now_ns, vm, page, true);
			wvm_node_drain(s);
		}
		page++;
	}
}

static void adopt_pins(struct wvm_node_shard *s)
{
	const struct wvm_adoption *a = &s->node->adoption;

	for (unsigned i = 0; i < a->pin_count; i++) {
		const struct wvm_adopt_pin *p = &a->pins[i];

		for (uint64_t page = p->first; page < p->first + p->count; page++)
			if (mine(s, page) && !wvm_core_adopt_pin(s->core, p->vm, page))
				wvm_core_panic("a pinned page is not held", __FILE__, __LINE__);
	}
}

void wvm_adopt_turn(struct wvm_node_shard *s)
{
	struct wvm_node *node = s->node;

	if (!s->adopting || !__atomic_load_n(&node->adoption.go, __ATOMIC_ACQUIRE))
		return;
	for (uint32_t vm = 0; vm < node->vm_count; vm++) {
		struct held_run run = {.shard = s, .vm = vm};
		const struct wvm_core_vm *v = wvm_core_vm_at(s->core, vm);
		int r = wvm_state_scan(&node->state, v->held_units, sizeof(*v->held_units),
				       adopt_unit_run, &run);

		if (!r)
			r = wvm_state_scan(&node->state, v->held, sizeof(*v->held), adopt_held_run,
					   &run);

		if (r)
			wvm_core_panic("the holder's table cannot be read", __FILE__, __LINE__);
		remove_strangers(s, vm);
	}
	adopt_pins(s);
	wvm_core_adopt_held_end(s->core, s->shard->now_ns);
	__atomic_store_n(&s->adopting, false, __ATOMIC_RELEASE);
	wvm_mem_wake_all(node->memory, s->index);
}

/* ---- the clients, on shard 0 ----------------------------------------------------------- */

static void collect_pin(void *ctx, struct wvm_mem *vm, uint64_t first, uint64_t count)
{
	struct wvm_node *node = ctx;
	struct wvm_adoption *a = &node->adoption;

	WVM_ASSERT(a->pin_count < PINS_MAX);
	a->pins[a->pin_count++] = (struct wvm_adopt_pin){
		.first = first, .count = count, .vm = wvm_node_vm_index(node, vm)};
}

static void on_nudge(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	wvm_adopt_turn(ctx);
}

/* A full inbox wakes its shard as well: every turn looks. */
static void let_shards_go(struct wvm_node *node)
{
	wvm_clients_each_pin(node->clients, collect_pin, node);
	__atomic_store_n(&node->adoption.go, true, __ATOMIC_RELEASE);
	for (unsigned i = 1; i < node->shard_count; i++)
		(void)wvm_post(node->shards[0].shard, node->shards[i].shard, on_nudge,
			       &node->shards[i], NULL, 0);
	wvm_adopt_turn(&node->shards[0]);
}

static bool all_done(struct wvm_node *node)
{
	for (unsigned i = 0; i < node->shard_count; i++)
		if (__atomic_load_n(&node->shards[i].adopting, __ATOMIC_ACQUIRE))
			return false;
	return true;
}

static uint64_t sum(const struct wvm_node *node, size_t offset)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < node->shard_count; i++)
		total += *(const uint64_t *)((const char *)wvm_core_stats(node->shards[i].core) +
					     offset);
	return total;
}

#define SUM(node, name) ((unsigned long long)sum(node, offsetof(struct wvm_core_stats, name)))

static void finish(struct wvm_node *node)
{
	node->adoption.active = false;
	node->keep_files = false;
	wvm_life_complete(node->state.life, node->boot_id);
	wvm_log("took over the pages of its former life: %llu held, %llu homed, %llu being "
		"written back, %u programs",
		SUM(node, adopted_held), SUM(node, adopted_homed), SUM(node, adopted_written_back),
		wvm_clients_count(node->clients));
	wvm_clients_adopted(node->clients);
	wvm_node_ready(node);
}

static void tell_who_is_awaited(struct wvm_node *node, unsigned awaited, int pid)
{
	node->adoption.told = true;
	wvm_log("waits for %u programs of its former life (one is pid %d) before it serves pages: "
		"each has to come back or to end",
		awaited, pid);
}

static void look(struct wvm_timer *timer, uint64_t now_ns)
{
	struct wvm_node *node =
		(struct wvm_node *)((char *)timer - offsetof(struct wvm_node, adoption.timer));
	struct wvm_adoption *a = &node->adoption;

	if (!a->go) {
		int pid = 0;
		unsigned awaited = wvm_clients_awaited(node->clients, &pid);

		if (!awaited)
			let_shards_go(node);
		else if (!a->told && now_ns - a->began_ns >= TELL_NS)
			tell_who_is_awaited(node, awaited, pid);
	}
	if (a->go && all_done(node))
		finish(node);
	else
		wvm_shard_arm(node->shards[0].shard, timer, LOOK_NS);
}

void wvm_adopt_begin(struct wvm_node *node, uint64_t now_ns)
{
	node->adoption.began_ns = now_ns;
	node->adoption.timer.fire = look;
	look(&node->adoption.timer, now_ns);
}

#include "roles/master/reclaim.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "ring/post.h"
#include "roles/master/node.h"
#include "shared/core/assert.h"

#define HIGH_PERCENT 97u /* of the budget: pages go from here */
#define LOW_PERCENT  94u /* down to here */
#define EVICTIONS    64u /* of one turn */
#define VISITS       256u
#define RETRY_NS     UINT64_C(500000)    /* hold times are shorter, mostly */
#define HELP_NS      UINT64_C(1000000)   /* between two calls for help */
#define FAILING_NS   UINT64_C(100000000) /* for all who waited too long to come and be told */

static void on_timer(struct wvm_timer *timer, uint64_t now_ns)
{
	/* It ran so that the shard has a turn. */
	(void)timer;
	(void)now_ns;
}

int wvm_reclaim_init(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;

	r->shard = s;
	r->timer.fire = on_timer;
	for (unsigned i = 0; i < s->node->vm_count; i++) {
		uint64_t bytes = wvm_mem_size(s->node->vms[i]) / WVM_PAGE_BYTES;
		void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (at == MAP_FAILED)
			return -ENOMEM;
		r->marks[i] = at;
		r->mark_bytes[i] = bytes;
	}
	return 0;
}

void wvm_reclaim_free(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;

	for (unsigned i = 0; i < WVM_MASTER_VMS_MAX; i++)
		if (r->marks[i])
			munmap(r->marks[i], r->mark_bytes[i]);
}

uint64_t wvm_reclaim_budget(const struct wvm_node *node)
{
	return (node->options->ram_mb << 20) / WVM_PAGE_BYTES;
}

static uint64_t held_by(const struct wvm_node_shard *s)
{
	const struct wvm_core_stats *c = wvm_core_stats(s->core);

	/* What is asked for has its room. */
	return __atomic_load_n(&c->pages_shared, __ATOMIC_RELAXED) +
	       __atomic_load_n(&c->pages_modified, __ATOMIC_RELAXED) +
	       __atomic_load_n(&c->requests_now, __ATOMIC_RELAXED);
}

uint64_t wvm_reclaim_held(const struct wvm_node *node)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < node->shard_count; i++)
		sum += held_by(&node->shards[i]);
	return sum;
}

bool wvm_reclaim_short(const struct wvm_node *node, uint64_t more)
{
	return wvm_reclaim_leaving(node) ||
	       (wvm_reclaim_held(node) + more) * 100 >= wvm_reclaim_budget(node) * HIGH_PERCENT;
}

/* ---- the hand -------------------------------------------------------------------------- */

/* What takes room: pages with data, and those of whole units that nobody has touched yet. */
static uint64_t next_page(const struct wvm_node_shard *s, uint64_t pages)
{
	const struct wvm_reclaim *r = &s->reclaim;
	const struct wvm_backing *b = &s->node->backing[r->vm];
	uint64_t end = wvm_mem_next_present(s->node->vms[r->vm], r->page), at = r->page;

	if (end > pages)
		end = pages;
	while ((at = wvm_backing_next_held_unit(b, at, end)) < end) {
		uint64_t unit_end = (at | (WVM_UNIT_PAGES - 1)) + 1;
		uint64_t stop = unit_end < end ? unit_end : end;

		at = wvm_core_next_filled(&b->vm, at, stop);
		if (at < stop)
			return at;
	}
	return end;
}

/* The next page of this shard that is in a RAM file. False: once round without any. */
static bool advance(struct wvm_node_shard *s)
{
	struct wvm_node *n = s->node;
	struct wvm_reclaim *r = &s->reclaim;

	for (unsigned tries = 0; tries <= n->vm_count;) {
		uint64_t pages = r->mark_bytes[r->vm];
		uint64_t range = UINT64_C(1) << (WVM_RANGE_SHIFT - WVM_PAGE_SHIFT);

		if (r->page < pages)
			r->page = next_page(s, pages);
		if (r->page >= pages) {
			r->page = 0;
			r->vm = (r->vm + 1) % n->vm_count;
			r->passed++;
			tries++;
		} else if (wvm_holder_shard(n, r->page) != s->index) {
			r->page = (r->page / range + 1) * range;
		} else {
			return true;
		}
	}
	return false;
}

/*
 * Room that no program has touched: once no store can come, and still nothing is
 * there, it is given back without a word to anybody.
 */
static bool take_back(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;
	struct wvm_mem *mem = s->node->vms[r->vm];

	if (wvm_mem_protect(mem, r->page) || wvm_mem_present(mem, r->page))
		return false;
	if (wvm_mem_punch(mem, r->page))
		wvm_core_panic("a page cannot be removed from the RAM file", __FILE__, __LINE__);
	wvm_core_unfilled(s->core, r->vm, r->page);
	r->untouched++;
	return true;
}

/* The page under the hand. True: it is on its way out. */
static bool visit(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;
	const struct wvm_held_page h = wvm_core_held(wvm_core_vm_at(s->core, r->vm), r->page);
	uint8_t *mark = &r->marks[r->vm][r->page];
	bool modified = h.state == WVM_HELD_MODIFIED;
	bool data = wvm_mem_present(s->node->vms[r->vm], r->page);
	enum wvm_evict said;

	if (!data)
		return *mark ? take_back(s) : !(*mark = 1);
	if (*mark < (modified ? 2 : 1)) {
		/* Where it cannot be protected no store is seen, and nothing else is wrong. */
		if (!*mark && modified && !h.pins)
			(void)wvm_mem_protect(s->node->vms[r->vm], r->page);
		++*mark;
		return false;
	}
	if (!wvm_node_holder_entry(s, r->vm, r->page))
		return false;
	said = wvm_core_evict(s->core, s->shard->now_ns, r->vm, r->page);
	wvm_node_drain(s);
	return said == WVM_EVICT_DONE;
}

/* ---- work ------------------------------------------------------------------------------ */

static void on_wake(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	/* Its turn finds what is to be done. */
}

/* One whose inbox is full does not sleep, and is told again where it matters. */
static void post_others(struct wvm_node_shard *s, wvm_post_fn fn)
{
	struct wvm_node *n = s->node;

	for (unsigned i = 0; i < n->shard_count; i++)
		if (i != s->index)
			(void)wvm_post(s->shard, n->shards[i].shard, fn, &n->shards[i], NULL, 0);
}

void wvm_reclaim_wake_others(struct wvm_node_shard *s)
{
	post_others(s, on_wake);
}

static void on_help(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_node_shard *s = ctx;

	s->reclaim.active = true; /* if there still is something to do */
}

/*
 * Other shards may sleep, and have all the pages. They go down to the low mark, too: else one that
 * is between the marks gives up again and again the few that its programs use, and the others keep
 * theirs, which may be idle.
 */
static void ask_others(struct wvm_node_shard *s)
{
	if (s->shard->now_ns - s->reclaim.asked_ns < HELP_NS)
		return;
	s->reclaim.asked_ns = s->shard->now_ns;
	post_others(s, on_help);
}

/* Once round at most: who has few pages would mark them and give them up in one go. */
static unsigned sweep(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;
	uint64_t first = r->page, end = r->passed + s->node->vm_count;
	unsigned gone = 0;

	/* Of a home that is silent no more pages go: the hand passes them. */
	for (unsigned i = 0; i < VISITS && gone < EVICTIONS && advance(s); i++) {
		if (r->passed > end || (r->passed == end && r->page >= first))
			break;
		gone += visit(s);
		s->reclaim.page++;
	}
	return gone;
}

/* How long over time those are that wait for room; 0: not yet. */
static uint64_t overdue_ns(const struct wvm_node_shard *s)
{
	uint64_t waited = s->shard->now_ns - s->reclaim.stalled_ns;
	struct wvm_core_times times;
	uint64_t most;

	wvm_core_default_times(&times);
	/* What is to go may be waiting for a home that is being replaced. */
	most = s->node->view->backups ? times.deadline_lost_ns : times.deadline_ns;
	return waited > most ? waited - most : 0;
}

/* Faults come again: there is room, or they are to be told that there is none. */
static void release(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;

	if (!r->stalled)
		return;
	if (wvm_reclaim_held(s->node) < wvm_reclaim_budget(s->node))
		r->stalled = false;
	else if (!overdue_ns(s))
		return;
	else if (overdue_ns(s) > FAILING_NS) /* whoever comes now waits anew */
		r->stalled = false;
	wvm_mem_wake_all(s->node->memory, s->index);
}

bool wvm_reclaim_turn(struct wvm_node_shard *s)
{
	struct wvm_reclaim *r = &s->reclaim;
	uint64_t budget = wvm_reclaim_budget(s->node), held = wvm_reclaim_held(s->node);
	unsigned gone;

	if (wvm_leave_begins(s))
		return wvm_leave_turn(s);
	if (!r->active && !r->stalled && held * 100 < budget * HIGH_PERCENT)
		return false;
	if (s->adopting)
		return false;
	r->active = held * 100 > budget * LOW_PERCENT;
	if (!r->active) {
		release(s);
		return false;
	}
	r->rounds++;
	ask_others(s);
	gone = sweep(s);
	if (gone)
		r->stalled_ns = s->shard->now_ns;
	release(s);
	if (!gone)
		wvm_shard_arm(s->shard, &r->timer, RETRY_NS);
	return gone;
}

/* ---- faults ---------------------------------------------------------------------------- */

/* The page is in the RAM file already, as far as the budget counts. */
static bool has_its_room(const struct wvm_node_shard *s, uint32_t vm, uint64_t page)
{
	const struct wvm_core_vm *v = wvm_core_vm_at(s->core, vm);

	if (!wvm_core_needs_held(s->core, vm, page))
		return wvm_core_next_filled(v, page, page + 1) == page;
	return v->held[page].state != WVM_HELD_INVALID;
}

bool wvm_reclaim_fault(struct wvm_node_shard *s, uint32_t vm, uint64_t page, unsigned client)
{
	struct wvm_reclaim *r = &s->reclaim;
	uint64_t budget = wvm_reclaim_budget(s->node), held = wvm_reclaim_held(s->node);
	uint64_t most = held < budget ? (budget - held) / 4 : 0;

	r->marks[vm][page] = 0;
	if (held * 100 >= budget * HIGH_PERCENT || !most)
		most = 1;
	wvm_core_fill_most(s->core, most < WVM_UNIT_PAGES ? (uint32_t)most : WVM_UNIT_PAGES);
	if (held < budget || has_its_room(s, vm, page))
		return true;
	if (!r->stalled) {
		r->stalled = true;
		r->stalled_ns = s->shard->now_ns;
	} else if (overdue_ns(s)) {
		r->failed++;
		wvm_mem_fail(s->node->vms[vm], page, UINT64_C(1) << client, ENOMEM);
		return false;
	}
	r->waits++;
	return false;
}

#include "roles/master/runs.h"

#include <string.h>

#include "roles/master/node.h"
#include "shared/core/assert.h"

static bool has(const struct wvm_run *r, uint32_t vm, uint64_t page)
{
	return r->vm == vm && page - r->first < r->count;
}

/* Whether the page may be the run's next: an empty one begins with it. */
static bool goes_on(const struct wvm_run *r, uint32_t vm, uint64_t page)
{
	return !r->count || (r->vm == vm && page == r->first + r->count && page % WVM_UNIT_PAGES &&
			     r->count < WVM_RUN_PAGES);
}

/* The place of the page in the run. */
static unsigned add(struct wvm_run *r, uint32_t vm, uint64_t page)
{
	if (!r->count)
		*r = (struct wvm_run){.vm = vm, .first = page};
	return r->count++;
}

static struct wvm_run end(struct wvm_runs *runs, struct wvm_run *r)
{
	struct wvm_run is = *r;

	r->count = 0;
	runs->ends += is.count > 1;
	runs->pages += is.count > 1 ? is.count : 0;
	return is;
}

/* ---- what comes ------------------------------------------------------------------------ */

static void end_coming(struct wvm_node_shard *s)
{
	struct wvm_runs *runs = s->runs;
	struct wvm_run r = end(runs, &runs->coming);
	unsigned done = 0;

	if (r.count > 1)
		done = wvm_mem_install_run(s->node->vms[r.vm], r.first, r.count, runs->data);
	for (; done < r.count; done++)
		wvm_node_install(s, &(struct wvm_action){.kind = WVM_ACT_INSTALL,
							 .vm = r.vm,
							 .page = r.first + done,
							 .data = runs->data[done]});
}

static bool take_install(struct wvm_node_shard *s, const struct wvm_action *a)
{
	struct wvm_runs *runs = s->runs;
	uint8_t *at;

	if (a->waiters || a->writable)
		return false;
	if (!goes_on(&runs->coming, a->vm, a->page))
		end_coming(s);
	at = runs->data[add(&runs->coming, a->vm, a->page)];
	if (a->data)
		memcpy(at, a->data, WVM_PAGE_BYTES);
	else
		memset(at, 0, WVM_PAGE_BYTES);
	return true;
}

/* ---- what leaves ----------------------------------------------------------------------- */

static void protect(struct wvm_node_shard *s, uint32_t vm, uint64_t page, unsigned count)
{
	if (wvm_mem_protect_run(s->node->vms[vm], page, count))
		wvm_core_panic("a page cannot be write-protected", __FILE__, __LINE__);
}

/* The page has been read as zeros, from a hole or not. */
static void leave_zeros(struct wvm_node_shard *s, uint32_t vm, uint64_t page,
			const struct wvm_leaving *l)
{
	struct wvm_mem *mem = s->node->vms[vm];

	if (l->settle)
		(void)wvm_mem_settle(mem, page, 0); /* without room it stays a hole */
	else if (!l->hole && !wvm_mem_present(mem, page))
		wvm_core_panic("a held page is not in the RAM file", __FILE__, __LINE__);
}

static void end_leaving(struct wvm_node_shard *s)
{
	struct wvm_runs *runs = s->runs;
	struct wvm_run r = end(runs, &runs->leaving);

	if (!r.count)
		return;
	protect(s, r.vm, r.first, r.count);
	if (wvm_mem_read_run(s->node->vms[r.vm], r.first, r.count, runs->buffer))
		wvm_core_panic("a held page is not in the RAM file", __FILE__, __LINE__);
	for (unsigned i = 0; i < r.count; i++) {
		if (wvm_node_all_zero(runs->buffer[i]))
			leave_zeros(s, r.vm, r.first + i, &runs->left[i]);
		wvm_node_send(s, runs->left[i].member, &runs->left[i].msg, runs->buffer[i]);
	}
}

/* The PROTECT is not the beginning of a departure. */
static void close_now(struct wvm_node_shard *s)
{
	struct wvm_runs *runs = s->runs;

	if (!runs->closing.valid)
		return;
	runs->closing.valid = false;
	protect(s, runs->closing.vm, runs->closing.page, 1);
	if (runs->closing.settle)
		(void)wvm_mem_settle(s->node->vms[runs->closing.vm], runs->closing.page, 0);
}

static bool is_closing(const struct wvm_runs *runs, const struct wvm_action *a)
{
	return runs->closing.valid && runs->closing.vm == a->vm && runs->closing.page == a->page;
}

/* What goes to this node itself is acted upon at once. */
static bool take_send(struct wvm_node_shard *s, const struct wvm_action *a)
{
	struct wvm_runs *runs = s->runs;

	if (a->source != WVM_DATA_RAM || a->member == s->node->self || !is_closing(runs, a))
		return false;
	runs->closing.valid = false;
	if (!goes_on(&runs->leaving, a->vm, a->page))
		end_leaving(s);
	runs->left[add(&runs->leaving, a->vm, a->page)] =
		(struct wvm_leaving){.msg = a->msg,
				     .member = a->member,
				     .settle = runs->closing.settle,
				     .hole = a->hole};
	return true;
}

/* Whether the action is about the page's bytes here. */
static bool is_of_file(const struct wvm_action *a)
{
	switch ((enum wvm_action_kind)a->kind) {
	case WVM_ACT_SEND: return a->source == WVM_DATA_RAM;
	case WVM_ACT_FAIL:
	case WVM_ACT_PINNED:
	case WVM_ACT_FORGET: return false;
	default: return true;
	}
}

/* ---- both ------------------------------------------------------------------------------ */

bool wvm_runs_take(struct wvm_node_shard *s, const struct wvm_action *a)
{
	struct wvm_runs *runs = s->runs;

	WVM_ASSERT(!is_of_file(a) ||
		   (!has(&runs->coming, a->vm, a->page) && !has(&runs->leaving, a->vm, a->page)));
	if (a->kind == WVM_ACT_SETTLE && is_closing(runs, a) && !a->waiters) {
		runs->closing.settle = true;
		return true;
	}
	if (a->kind == WVM_ACT_SEND && take_send(s, a))
		return true;
	close_now(s);
	if (a->kind == WVM_ACT_INSTALL)
		return take_install(s, a);
	if (a->kind != WVM_ACT_PROTECT)
		return false;
	runs->closing.vm = a->vm;
	runs->closing.page = a->page;
	runs->closing.settle = false;
	runs->closing.valid = true;
	return true;
}

void wvm_runs_drained(struct wvm_node_shard *s)
{
	close_now(s);
}

void wvm_runs_before(struct wvm_node_shard *s, const struct wvm_msg *msg)
{
	const struct wvm_runs *runs = s->runs;
	uint64_t page = msg->gpa >> WVM_PAGE_SHIFT;

	/* Of whichever VM: nothing is lost by ending too early. */
	if (page - runs->coming.first < runs->coming.count ||
	    page - runs->leaving.first < runs->leaving.count)
		wvm_runs_end(s);
}

void wvm_runs_end(struct wvm_node_shard *s)
{
	end_coming(s);
	end_leaving(s);
	wvm_node_drain(s);
}

/*
 * When a master takes its inputs. One that is neither stopped nor slow takes
 * each as it comes. Otherwise datagrams wait in its socket buffer, as far as
 * that has room, and faults in its userfaultfds; timers are late.
 */
#include "shared/core/sim/sim.h"

uint64_t sim_stalled(const struct sim *s, const struct sim_node *n)
{
	return n->stalled_ns + (n->stalled_since_ns ? s->report.now_ns - n->stalled_since_ns : 0);
}

/* Waits of its threads are excused for as long as it is stopped, slow or behind. */
void sim_note_stall(struct sim *s, struct sim_node *n)
{
	bool stalled = n->stops || n->service_ns || n->inbox || n->down;

	if (stalled && !n->stalled_since_ns) {
		n->stalled_since_ns = s->report.now_ns ? s->report.now_ns : 1;
	} else if (!stalled && n->stalled_since_ns) {
		n->stalled_ns = sim_stalled(s, n);
		n->stalled_since_ns = 0;
	}
}

/* A node short of memory: any page may have to go, whatever it is in the middle of. */
static void evict(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	uint64_t page;

	if (!s->config.evict_ppm || n->down || !sim_chance(s, s->config.evict_ppm))
		return;
	page = sim_rnd(s) % s->config.pages;
	s->report.steps++;
	sim_touch(s, page);
	if (wvm_core_evict(n->core, s->report.now_ns, 0, sim_core_page(page)) == WVM_EVICT_DONE) {
		s->report.evicted++;
		sim_note(s, node, page, "evicts p%llu", (unsigned long long)page);
	}
	sim_node_drain(s, node);
}

static void handle(struct sim *s, uint32_t node, struct sim_event *e)
{
	struct sim_node *n = &s->nodes[node];

	if (e->kind == SIM_EV_MESSAGE)
		sim_receive(s, node, e);
	else
		sim_thread_fault(s, e);
	sim_event_free(s, e);
	sim_node_drain(s, node);
	evict(s, node);
	if (n->service_ns)
		n->busy_until_ns = s->report.now_ns + n->service_ns / 2 +
				   sim_rnd(s) % (n->service_ns + 1);
}

static void serve_later(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	uint64_t at = n->busy_until_ns;

	if (n->serving || n->stops || n->down || !n->inbox)
		return;
	n->serving = true;
	sim_post(s, at > s->report.now_ns ? at : s->report.now_ns, SIM_EV_SERVE)->node = node;
}

/* Takes e. */
void sim_arrive(struct sim *s, struct sim_event *e)
{
	struct sim_node *n = &s->nodes[e->node];

	/* Nobody has that port open; faults wait in the programs' userfaultfds. */
	if (n->down && e->kind == SIM_EV_MESSAGE) {
		sim_note(s, e->node, SIM_NO_PAGE, "#%llu lost: down",
			 (unsigned long long)e->number);
		sim_event_free(s, e);
		return;
	}
	if (!n->stops && !n->down && !n->inbox && s->report.now_ns >= n->busy_until_ns) {
		handle(s, e->node, e);
		return;
	}
	if (e->kind == SIM_EV_MESSAGE) {
		if (s->config.socket_bytes && n->inbox_bytes + e->bytes > s->config.socket_bytes) {
			s->report.overflowed++;
			sim_note(s, e->node, SIM_NO_PAGE, "#%llu lost: no room",
				 (unsigned long long)e->number);
			sim_event_free(s, e);
			return;
		}
		n->inbox_bytes += e->bytes;
	}
	if (!n->inbox)
		n->inbox_end = &n->inbox;
	*n->inbox_end = e;
	n->inbox_end = &e->next;
	sim_note_stall(s, n);
	serve_later(s, e->node);
}

void sim_serve(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_event *e = n->inbox;

	n->serving = false;
	if (!e || n->stops || n->down)
		return;
	n->inbox = e->next;
	e->next = NULL;
	if (e->kind == SIM_EV_MESSAGE)
		n->inbox_bytes -= e->bytes;
	handle(s, node, e);
	sim_note_stall(s, n);
	serve_later(s, node);
}

/* Sees to it that the core's next timer has an event. */
void sim_rearm(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	uint64_t due = wvm_core_deadline(n->core);

	n->looks = true;
	if (n->stops || n->down || due == WVM_CORE_NEVER || (n->tick_ns && n->tick_ns <= due))
		return;
	if (due < s->report.now_ns)
		due = s->report.now_ns;
	if (due < n->busy_until_ns)
		due = n->busy_until_ns;
	n->tick_ns = due ? due : 1;
	sim_post(s, n->tick_ns, SIM_EV_TICK)->node = node;
}

void sim_tick(struct sim *s, uint32_t node, uint64_t at_ns)
{
	struct sim_node *n = &s->nodes[node];

	if (n->tick_ns != at_ns)
		return;
	n->tick_ns = 0;
	if (!n->stops && !n->down && at_ns >= n->busy_until_ns &&
	    wvm_core_deadline(n->core) <= at_ns) {
		s->report.steps++;
		sim_note(s, node, SIM_NO_PAGE, "tick");
		wvm_core_tick(n->core, at_ns);
	}
	sim_node_drain(s, node);
}

void sim_stop(struct sim *s, uint32_t node, bool stop)
{
	struct sim_node *n = &s->nodes[node];

	WVM_ASSERT(stop || n->stops);
	n->stops += stop ? 1 : -1u;
	sim_note(s, node, SIM_NO_PAGE, stop ? "STOPS" : "goes on");
	sim_note_stall(s, n);
	serve_later(s, node);
	sim_rearm(s, node);
}

/* A killed master's datagrams went with its socket, faults did not. It stalls while it is down. */
void sim_inbox_resume(struct sim *s, uint32_t node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_event **link = &n->inbox;

	while (*link) {
		struct sim_event *e = *link;

		if (e->kind != SIM_EV_MESSAGE) {
			link = &e->next;
			continue;
		}
		*link = e->next;
		n->inbox_bytes -= e->bytes;
		sim_event_free(s, e);
	}
	n->inbox_end = link;
	sim_note_stall(s, n);
	serve_later(s, node);
	sim_rearm(s, node);
}

void sim_slow(struct sim *s, uint32_t node, uint64_t service_ns)
{
	struct sim_node *n = &s->nodes[node];

	n->service_ns = service_ns;
	sim_note(s, node, SIM_NO_PAGE, "takes %llu us an input",
		 (unsigned long long)service_ns / 1000);
	sim_note_stall(s, n);
}

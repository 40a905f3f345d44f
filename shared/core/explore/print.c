/*
 * A path for people: one line per step, and what the nodes hold after it.
 */
#include "shared/core/explore/world.h"

static const char *const timers[] = {"request's retry", "demand's timer", "transaction's retry",
				     "merge's timer"};
static const char *const values[] = {"zeros", "current", "STALE"};

static void print_message(FILE *to, const struct ex_msg *m, const struct ex_names *names)
{
	static const char *const flags[] = {" ZERO", " ERROR", " MORE", " KEEP", " HELD"};

	fprintf(to, "%s %u -> %u", wvm_msg_name(m->msg.type), names->node[m->msg.src],
		names->node[m->msg.dst]);
	for (uint32_t i = 0; i < 5; i++)
		fputs(m->msg.flags >> i & 1 ? flags[i] : "", to);
	if (m->paged)
		fprintf(to, " page=%s", values[m->value]);
	if (wvm_request_counter(m->msg.request))
		fprintf(to, " id=%llu", (unsigned long long)wvm_request_counter(m->msg.request));
	if (m->msg.grant)
		fprintf(to, " grant=%llu", (unsigned long long)wvm_request_counter(m->msg.grant));
	if (m->msg.version)
		fprintf(to, " version=%u", (uint32_t)m->msg.version);
}

void ex_print_event(FILE *to, const struct ex_world *w, const struct ex_event *e,
		    const struct ex_names *names)
{
	uint32_t node = names->node[e->node];

	switch ((enum ex_kind)e->kind) {
	case EX_ACCESS:
		fprintf(to, "node %u: program %u %s", node, names->program[e->node][e->index],
			e->write ? "stores" : "loads");
		break;
	case EX_DELIVER:
	case EX_COPY:
	case EX_LOSE:
		fputs(e->kind == EX_DELIVER ? "deliver "
		      : e->kind == EX_COPY  ? "deliver a copy of "
					    : "lose ",
		      to);
		print_message(to, &w->msg[e->index], names);
		break;
	case EX_EVICT: fprintf(to, "node %u: gives the page up for lack of memory", node); break;
	case EX_TIMER: fprintf(to, "node %u: %s", node, timers[e->index]); break;
	case EX_DEADLINE: fprintf(to, "node %u: deadline at its %s", node, timers[e->index]); break;
	}
	fputs(e->late && e->kind != EX_TIMER ? " (hold times are over)\n" : "\n", to);
}

static void print_node(FILE *to, const struct ex_node *n, uint32_t name)
{
	static const char letters[] = "ISM";

	fprintf(to, "  %u:%c", name, letters[n->held.state]);
	if (n->held.state)
		fprintf(to, " v%u g%llu", (uint32_t)n->held.version,
			(unsigned long long)wvm_request_counter(n->held.grant));
	if (n->present)
		fprintf(to, " %s", values[n->ram]);
	if (n->held.invalidated)
		fprintf(to, " gone v%u", (uint32_t)n->held.invalidated);
	if (n->held.request)
		fprintf(to, " asks %s id %llu%s%s", n->request.type == WVM_MSG_MEM_READ ? "S" : "M",
			(unsigned long long)wvm_request_counter(n->request.id),
			n->request.state == WVM_REQUEST_BLOCKED ? " (blocked)" : "",
			n->request.early.type ? " (early demand)" : "");
	if (n->held.demand)
		fprintf(to, " %s %s", wvm_msg_name(n->demand.type),
			n->demand.state == WVM_DEMAND_HELD ? "waits" : "written back");
}

void ex_print_state(FILE *to, const struct ex_rig *rig, const struct ex_world *w,
		    const struct ex_names *names)
{
	static const char *const states[] = {"Home", "Shared", "Modified"};
	static const char *const txns[] = {"INVALIDATE", "DOWNGRADE", "FETCH", "DRAIN"};

	for (uint32_t i = 0; i < rig->config.nodes; i++)
		print_node(to, &w->node[i], names->node[i]);
	fprintf(to, "\n  home:%s v%u", states[w->home.state], (uint32_t)w->home.version);
	for (uint32_t i = 0; i < w->home.holders; i++)
		fprintf(to, " [%u g%llu]", names->node[w->home.member[i]],
			(unsigned long long)wvm_request_counter(w->home.grant[i]));
	if (w->home.txn)
		fprintf(to, " %s for %u, %u behind", txns[w->txn.state],
			names->node[w->txn.asked.member], w->waiting_count);
	fputs("\n", to);
	for (uint32_t i = 0; i < w->messages; i++) {
		fputs("  under way: ", to);
		print_message(to, &w->msg[i], names);
		fputs("\n", to);
	}
}

/* What a run says of itself. */
#include "shared/core/sim/sim.h"

void sim_report(const struct sim *s, struct sim_report *report)
{
	*report = s->report;
	report->accesses_min = UINT64_MAX;
	for (uint32_t i = 0; i < s->thread_count; i++) {
		const struct sim_thread *t = &s->threads[i];

		report->waiting += t->state == SIM_TH_WAIT || t->state == SIM_TH_WAIT_PIN;
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

void sim_report_add(struct sim_report *sum, const struct sim_report *r)
{
	sum->now_ns += r->now_ns;
	sum->steps += r->steps;
	sum->accesses += r->accesses;
	sum->faults += r->faults;
	sum->failed_faults += r->failed_faults;
	sum->messages += r->messages;
	sum->lost += r->lost;
	sum->doubled += r->doubled;
	sum->overtaken += r->overtaken;
	sum->corrupted += r->corrupted;
	sum->corrupted_caught += r->corrupted_caught;
	sum->corrupted_hops += r->corrupted_hops;
	sum->overflowed += r->overflowed;
	sum->cuts += r->cuts;
	sum->stops += r->stops;
	sum->slowed += r->slowed;
	sum->kills += r->kills;
	sum->kills_undone += r->kills_undone;
	sum->evicted += r->evicted;
	sum->merges += r->merges;
	sum->left += r->left;
	sum->installs_failed += r->installs_failed;
	sum->joins += r->joins;
	sum->drains += r->drains;
	sum->units_moved += r->units_moved;
	sum->unmoved += r->unmoved;
	sum->renewed += r->renewed;
	sum->unmoved_between += r->unmoved_between;
	sum->sweeps += r->sweeps;
	sum->history += r->history;
	if (r->wait_ns_max > sum->wait_ns_max)
		sum->wait_ns_max = r->wait_ns_max;
}

void sim_report_print(const struct sim_report *r, FILE *out)
{
#define N(x) (unsigned long long)(r->x)
	fprintf(out,
		"%llu core steps, %llu s of simulated time\n"
		"  messages %llu: lost %llu, doubled %llu, overtaken %llu, without room %llu\n"
		"  damaged %llu: refused %llu, in the hops alone %llu\n"
		"  wires cut %llu, nodes stopped %llu, slowed %llu; programs left %llu\n"
		"  masters killed and taken over %llu, of them within an input %llu\n"
		"  accesses %llu, all in a linearizable history; faults %llu, of them errors %llu, "
		"longest wait %.3f s\n"
		"  pages given up for lack of memory %llu, installs without room %llu; full checks "
		"of all pages %llu\n"
		"  nodes that joined %llu, drained %llu; units handed over %llu; epochs that moved none "
		"%llu, of them during a hand-over %llu; nodes without files %llu\n",
		N(steps), N(now_ns) / 1000000000, N(messages), N(lost), N(doubled), N(overtaken),
		N(overflowed), N(corrupted), N(corrupted_caught), N(corrupted_hops), N(cuts),
		N(stops), N(slowed), N(left), N(kills), N(kills_undone), N(history), N(faults),
		N(failed_faults), (double)r->wait_ns_max * 1e-9, N(evicted), N(installs_failed),
		N(sweeps), N(joins), N(drains), N(units_moved), N(unmoved), N(unmoved_between),
		N(renewed));
#undef N
}

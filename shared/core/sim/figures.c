/* What a run says of itself. */
#include "shared/core/sim/sim.h"

/* Whether whoever asks for it now, or as the next one, is told that its last copy is lost. */
static bool is_lost(const struct sim *s, uint64_t page)
{
	uint32_t home = sim_home_of(s, page);
	struct wvm_home_page e;

	if (home == SIM_NOBODY)
		return false; /* that is not known yet */
	e = wvm_core_homed(&s->nodes[home].core->vms[0], sim_core_page(page));
	if (e.flags & WVM_HOME_LOST)
		return true;
	if (e.state == WVM_HOME_MODIFIED)
		return s->nodes[e.member[0]].dead;
	return e.flags & WVM_HOME_UNSTORED && (!e.granted || s->nodes[e.granted - 1].dead);
}

void sim_report(const struct sim *s, struct sim_report *report)
{
	*report = s->report;
	for (uint64_t page = 0; s->config.deaths && page < s->config.pages; page++)
		report->lost_pages += is_lost(s, page);
	report->backup_copied = report->backup_waited = 0;
	for (uint32_t i = 0; i < s->config.nodes; i++) {
		report->backup_copied += sim_stats(s, i)->backup_copied;
		report->backup_waited += sim_stats(s, i)->backup_waited;
	}
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
	sum->joined += r->joined;
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
	sum->unmapped += r->unmapped;
	sum->let_go += r->let_go;
	sum->installs_failed += r->installs_failed;
	sum->joins += r->joins;
	sum->drains += r->drains;
	sum->units_moved += r->units_moved;
	sum->deaths += r->deaths;
	sum->deaths_between += r->deaths_between;
	sum->rebuilt += r->rebuilt;
	sum->lost_pages += r->lost_pages;
	sum->unmoved += r->unmoved;
	sum->renewed += r->renewed;
	sum->reboots += r->reboots;
	sum->reboots_dead += r->reboots_dead;
	sum->unmoved_between += r->unmoved_between;
	sum->backup_copied += r->backup_copied;
	sum->backup_waited += r->backup_waited;
	sum->backup_checked += r->backup_checked;
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
		"  wires cut %llu, nodes stopped %llu, slowed %llu; programs left %llu, "
		"pages unmapped %llu, with threads that waited %llu\n"
		"  masters killed and taken over %llu, of them within an input %llu\n"
		"  accesses %llu, all in a linearizable history; faults %llu, of them errors %llu, "
		"longest wait %.3f s\n"
		"  pages given up for lack of memory %llu, installs without room %llu; full checks "
		"of all pages %llu\n"
		"  nodes that joined %llu, drained %llu; units handed over %llu; epochs that moved none "
		"%llu, of them during a hand-over %llu; nodes without files %llu\n"
		"  pages copied to second homes %llu, of them before an acknowledgement %llu; found "
		"there %llu\n"
		"  nodes that died for good %llu, of them during a move %llu; units made anew %llu, pages "
		"lost %llu; hosts rebooted %llu, of them before a dead one's place was taken %llu\n",
		N(steps), N(now_ns) / 1000000000, N(messages), N(lost), N(doubled), N(overtaken),
		N(overflowed), N(corrupted), N(corrupted_caught), N(corrupted_hops), N(cuts),
		N(stops), N(slowed), N(left), N(unmapped), N(let_go), N(kills), N(kills_undone),
		N(history), N(faults), N(failed_faults), (double)r->wait_ns_max * 1e-9, N(evicted),
		N(installs_failed), N(sweeps), N(joins), N(drains), N(units_moved), N(unmoved),
		N(unmoved_between), N(renewed), N(backup_copied), N(backup_waited),
		N(backup_checked), N(deaths), N(deaths_between), N(rebuilt), N(lost_pages),
		N(reboots), N(reboots_dead));
#undef N
}

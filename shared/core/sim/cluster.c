#include "shared/core/sim/sim.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_NS UINT64_C(60000000000)
#define STILL_MAX 1000000u /* events at one time: it will not move on any more */

static const struct sim *current; /* for sim_where() */

__attribute__((format(printf, 2, 3))) void sim_failed(struct sim *s, const char *format, ...)
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
	/* Whatever becomes of the process. */
	if (s->config.trace)
		fflush(s->config.trace);
}

void *sim_zeroed(size_t size)
{
	/* Not aligned_alloc() and memset(): most of the store is never touched. */
	void *p = calloc(1, size + 64);

	if (!p)
		abort();
	return p;
}

void sim_where(uint64_t *seed, uint64_t *step)
{
	*seed = current ? current->config.seed : 0;
	*step = current ? current->report.steps : 0;
}

/* ---- running --------------------------------------------------------------------------- */

static void run_event(struct sim *s, struct sim_event *e, uint64_t at_ns)
{
	switch ((enum sim_event_kind)e->kind) {
	case SIM_EV_MESSAGE:
	case SIM_EV_FAULT: sim_arrive(s, e); return;
	case SIM_EV_TICK: sim_tick(s, e->node, at_ns); break;
	case SIM_EV_THREAD:
		if (e->life == s->threads[e->index].life)
			sim_thread_run(s, e->index);
		break;
	case SIM_EV_SERVE: sim_serve(s, e->node); break;
	case SIM_EV_PROGRAM: sim_program_event(s, e->index); break;
	case SIM_EV_MAP: sim_map_event(s, e); break;
	case SIM_EV_TROUBLE: sim_trouble_begin(s); break;
	case SIM_EV_RELIEF: sim_trouble_end(s, e); break;
	case SIM_EV_REVIVE: sim_revive(s, e->node); break;
	case SIM_EV_RETIRE: sim_retire(s, e->node); break;
	case SIM_EV_REBOOT: sim_reboot(s); break;
	case SIM_EV_DECIDE: sim_move_decide(s); break;
	case SIM_EV_LEARN: sim_move_learn(s, e->node); break;
	case SIM_EV_DEATH: sim_death(s); break;
	case SIM_EV_BURY: sim_bury(s, e->node); break;
	}
	sim_event_free(s, e);
}

static void step(struct sim *s)
{
	uint64_t at_ns;
	struct sim_event *e = sim_event_next(s, &at_ns);

	s->still = at_ns == s->report.now_ns ? s->still + 1 : 0;
	if (s->still > STILL_MAX)
		sim_failed(s, "time stands still");
	s->report.now_ns = at_ns;
	run_event(s, e, at_ns);
}

/* Until that many accesses or inputs were made in all. */
static void run_to(struct sim *s, uint64_t accesses, uint64_t steps)
{
	current = s;
	if (s->quiet) {
		s->quiet = false;
		sim_programs_start(s);
		sim_trouble_start(s);
	}
	while (s->events.count && s->report.accesses < accesses && s->report.steps < steps &&
	       !s->report.failure)
		step(s);
}

uint64_t sim_run(struct sim *s, uint64_t accesses)
{
	run_to(s, s->report.accesses + accesses, UINT64_MAX);
	return s->report.steps;
}

void sim_settle(struct sim *s, uint64_t ns)
{
	uint64_t until = s->report.now_ns + ns;

	current = s;
	s->quiet = true;
	sim_trouble_heal(s);
	while (s->events.count && s->events.heap[0].at_ns <= until && !s->report.failure)
		step(s);
	s->settled = ns >= UINT64_C(20000000000);
	sim_move_end(s);
	if (s->settled)
		sim_check_rest(s);
	s->settled = false;
	sim_check_all(s);
}

void sim_partition(struct sim *s, uint32_t node, bool cut)
{
	s->nodes[node].cut = cut;
	sim_note(s, node, SIM_NO_PAGE, cut ? "CUT from all" : "joined");
}

void sim_cut(struct sim *s, uint32_t from, uint32_t to, bool cut)
{
	s->nodes[from].cut_to[to] = cut;
	sim_note(s, from, SIM_NO_PAGE, cut ? "CUT to %u" : "joined to %u", to);
}

/* ---- beginning and end ----------------------------------------------------------------- */

static void make_programs(struct sim *s)
{
	const struct sim_config *c = &s->config;

	s->node_threads = c->clients * c->threads;
	s->thread_count = c->nodes * s->node_threads;
	for (uint32_t i = 0; i < s->thread_count; i++) {
		s->threads[i].node = i / s->node_threads;
		s->threads[i].client = i % s->node_threads / c->threads;
	}
	for (uint32_t i = 0; i < c->nodes; i++)
		s->nodes[i].known = s->nodes[i].usable =
			sim_runs_nothing(s, i) ? 0 : (uint8_t)((1u << c->clients) - 1);
	for (uint32_t i = 0; i < c->nodes * c->clients; i++)
		s->programs[i].idle = true;
}

/*
 * The units between have their homes by hash; both kinds share members and shards. Whoever is there
 * to die homes none, since nobody would take its place.
 */
static void place_units(struct sim *s)
{
	uint32_t count = 0, homes = s->config.nodes - (s->config.deaths_all ? 0 : s->config.deaths);

	for (uint64_t unit = 1; s->config.placed && unit < s->page_count / WVM_UNIT_PAGES + 1;
	     unit += 2)
		s->placed[count++] = (struct wvm_layout_range){
			.first = wvm_layout_key(SIM_VM_ID, unit << WVM_UNIT_SHIFT),
			.units = 1,
			.member = (uint32_t)(unit / 2 % homes)};
	s->layout = (struct wvm_layout){s->placed, count};
}

static uint64_t last_seed;

uint64_t sim_last_seed(void)
{
	return last_seed;
}

struct sim *sim_create(const struct sim_config *config)
{
	struct sim *s = sim_zeroed(sizeof(*s));

	last_seed = config->seed;
	s->config = *config;
	sim_trace_seed(&s->config);
	s->config.backup |= config->deaths > 0 || config->reboots > 0;
	s->config.times.deadline_lost_ns = config->times.deadline_ns / 5 * 12; /* as in a master */
	s->quiet = s->trouble_idle = true;
	s->random = config->seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	s->page_count = sim_core_page(config->pages - 1) + 1;
	for (uint32_t i = 0; i < config->nodes; i++)
		s->members[i] = (struct wvm_member){.first_vnode = i, .vnodes = 1};
	s->list = (struct wvm_members){s->members, config->nodes};
	s->epoch = s->table = 1;
	for (uint32_t i = 0; i < config->nodes; i++)
		s->active[i] = !sim_may_reboot(s, i);
	sim_tables_begin();
	s->moves[1].slices = *sim_slices(s);
	sim_build_seconds(s, sim_move(s, 1), NULL);
	place_units(s);
	for (uint32_t i = 0; i < config->nodes; i++)
		sim_node_start(s, i);
	sim_moves_start(s);
	make_programs(s);
	/* Where nothing runs, no fault may ever come that has its timers looked at. */
	for (uint32_t i = 0; i < config->nodes; i++)
		if (sim_runs_nothing(s, i))
			sim_rearm(s, i);
	sim_deaths_start(s);
	sim_reboots_start(s);
	return s;
}

void sim_destroy(struct sim *s)
{
	for (uint32_t i = 0; i < s->config.nodes; i++)
		sim_node_free(&s->nodes[i]);
	sim_events_free(s);
	free(s->history.list);
	free(s);
	current = NULL;
}

void sim_exercise(const struct sim_config *config, uint64_t steps, struct sim_report *report,
		  char text[SIM_TEXT])
{
	struct sim *s = sim_create(config);

	/* Where pages are seldom fought over, most accesses are no input to a core. */
	run_to(s, 2 * steps, steps);
	if (!s->report.failure)
		sim_settle(s, SETTLE_NS);
	sim_report(s, report);
	if (report->waiting)
		sim_failed(s, "%u threads wait for ever", report->waiting);
	sim_check_history(s);
	sim_report(s, report);
	if (report->failure)
		memcpy(text, s->text, SIM_TEXT);
	report->failure = report->failure ? text : NULL;
	sim_destroy(s);
}

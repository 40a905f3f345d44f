/* One run: the quiet, then an epoch and deaths, and what came of these. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/core/scale/scale.h"

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

bool scale_spread(struct scale_spread *s, uint32_t *ms, uint32_t reached, uint32_t of)
{
	*s = (struct scale_spread){.reached = reached, .of = of};
	s->curve_ms = calloc(SCALE_CURVE, sizeof(*s->curve_ms));
	if (!s->curve_ms)
		return false;
	if (!reached)
		return true;
	qsort(ms, reached, sizeof(*ms), ascending);
	for (uint32_t i = 0; i < SCALE_CURVE; i++)
		s->curve_ms[i] = ms[(uint64_t)(reached - 1) * i / (SCALE_CURVE - 1)];
	s->median_ms = ms[(reached - 1) / 2];
	s->p99_ms = ms[(uint64_t)(reached - 1) * 99 / 100];
	s->max_ms = ms[reached - 1];
	return true;
}

static bool epoch_spread(const struct scale *s, uint32_t from_ms, struct scale_result *r)
{
	uint32_t *ms = malloc(s->hosts * sizeof(*ms)), reached = 0, up = 0;
	bool ok;

	for (uint32_t i = 0; ms && i < s->hosts; i++) {
		up += s->host[i].up;
		if (s->host[i].up && s->host[i].epoch > 1)
			ms[reached++] = s->host[i].learnt_ms - from_ms;
	}
	ok = ms && scale_spread(&r->epoch, ms, reached, up);
	free(ms);
	return ok;
}

static bool death_spread(const struct scale *s, struct scale_result *r)
{
	uint32_t first[SCALE_DEATHS], reached = 0, group = 0;

	for (uint32_t i = 0; i < s->deaths; i++) {
		group += s->death[i].group;
		if (s->death[i].told)
			first[reached++] = s->death[i].first_ms;
	}
	return scale_spread(&r->first, first, reached, s->deaths) &&
	       scale_spread(&r->all, s->told_ms, s->told, group);
}

/* A host that is up and no gateway. */
static uint32_t somebody(struct scale *s)
{
	uint32_t host;

	do
		host = scale_below(s, s->hosts);
	while (!s->host[host].up || scale_top(&s->c, host));
	return host;
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void scale_quiet(struct scale *s, const struct scale_plan *plan, struct scale_figures *f)
{
	struct scale_counts before;

	*f = (struct scale_figures){0};
	scale_run(s, plan->warm_s * 1000);
	before = s->n;
	scale_run(s, (plan->warm_s + plan->quiet_s) * 1000);
	f->messages = s->n.messages - before.messages;
	f->bytes = s->n.bytes - before.bytes;
	for (uint32_t i = 0; i < scale_part_hosts(&s->c, &s->part); i++) {
		uint32_t host = scale_part_host(&s->c, &s->part, i);

		for (uint32_t tier = 0; tier <= scale_top(&s->c, host); tier++) {
			const struct wvm_gossip *g = scale_object(s, host, tier);

			f->agents += g != NULL;
			f->suspected += g ? g->counters.suspected : 0;
		}
	}
}

void scale_sum(struct scale_result *r, const struct scale_figures *f, uint32_t end_ms)
{
	const struct scale_plan *p = &r->plan;
	double host_seconds = (double)r->hosts * p->quiet_s;
	double quiet_hours = (double)r->hosts * (p->warm_s + p->quiet_s) / 3600;

	r->state_bytes = (double)scale_object_bytes(&p->c, 0) +
			 (double)scale_object_bytes(&p->c, 1) * (r->agents - r->hosts) / r->hosts;
	r->messages = (double)f->messages / host_seconds;
	r->bytes = (double)f->bytes / host_seconds;
	r->suspected = (double)f->suspected / quiet_hours;
	r->node_hours = (double)r->hosts * end_ms / 3600e3;
	r->false_dead = (double)f->false_dead / r->node_hours;
}

static bool measure_whole(const struct scale_plan *plan, struct scale_result *r)
{
	static struct scale s;
	struct scale_figures f;
	uint32_t from_ms;
	bool ok;

	if (!scale_init(&s, &plan->c)) {
		fprintf(stderr, "wvm_scale: %s: no memory for %llu MiB of nodes\n", plan->name,
			(unsigned long long)(r->memory >> 20));
		return false;
	}
	scale_quiet(&s, plan, &f);
	from_ms = s.now_ms;
	scale_epoch(&s, somebody(&s));
	for (uint32_t i = 0; i < plan->deaths && i < SCALE_DEATHS; i++)
		scale_kill(&s, somebody(&s));
	scale_run(&s, from_ms + plan->after_s * 1000);
	f.false_dead = s.n.false_dead;
	scale_sum(r, &f, s.now_ms);
	ok = epoch_spread(&s, from_ms, r) && death_spread(&s, r);
	scale_free(&s);
	return ok;
}

uint64_t scale_plan_bytes(const struct scale_plan *plan)
{
	const struct scale_config *c = &plan->c;
	uint64_t pods, upper;

	if (!plan->processes)
		return scale_bytes(c);
	pods = plan->processes * scale_part_bytes(c, &(struct scale_part){.kind = SCALE_POD});
	upper = scale_part_bytes(c, &(struct scale_part){.kind = SCALE_UPPER});
	return pods > upper ? pods : upper;
}

bool scale_measure(const struct scale_plan *plan, struct scale_result *r)
{
	double began = now_s();
	bool ok;

	*r = (struct scale_result){.plan = *plan,
				   .hosts = scale_hosts(&plan->c),
				   .agents = scale_agents(&plan->c),
				   .memory = scale_plan_bytes(plan)};
	ok = plan->processes ? scale_measure_parts(plan, r) : measure_whole(plan, r);
	r->seconds = now_s() - began;
	return ok;
}

void scale_result_free(struct scale_result *r)
{
	free(r->epoch.curve_ms);
	free(r->first.curve_ms);
	free(r->all.curve_ms);
	*r = (struct scale_result){0};
}

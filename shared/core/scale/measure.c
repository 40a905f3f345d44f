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

/* ms: of those that were reached; sorted here. */
static bool spread(struct scale_spread *s, uint32_t *ms, uint32_t reached, uint32_t of)
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
	ok = ms && spread(&r->epoch, ms, reached, up);
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
	return spread(&r->first, first, reached, s->deaths) &&
	       spread(&r->all, s->told_ms, s->told, group);
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

static void quiet(struct scale *s, struct scale_result *r)
{
	struct scale_counts before;
	double host_seconds = (double)s->hosts * r->plan.quiet_s;

	scale_run(s, r->plan.warm_s * 1000);
	before = s->n;
	scale_run(s, (r->plan.warm_s + r->plan.quiet_s) * 1000);
	for (uint32_t i = 0; i < s->agents; i++)
		r->suspected += s->agent[i].g->counters.suspected;
	r->suspected /= (double)s->hosts * s->now_ms / 3600e3;
	r->messages = (double)(s->n.messages - before.messages) / host_seconds;
	r->bytes = (double)(s->n.bytes - before.bytes) / host_seconds;
}

bool scale_measure(const struct scale_plan *plan, struct scale_result *r)
{
	static struct scale s;
	double began = now_s();
	uint32_t from_ms;
	bool ok;

	*r = (struct scale_result){.plan = *plan, .memory = scale_bytes(&plan->c)};
	if (!scale_init(&s, &plan->c)) {
		fprintf(stderr, "wvm_scale: %s: no memory for %llu MiB of nodes\n", plan->name,
			(unsigned long long)(r->memory >> 20));
		return false;
	}
	r->hosts = s.hosts;
	r->agents = s.agents;
	r->state_bytes = (double)scale_object_bytes(&plan->c, 0) +
			 (double)scale_object_bytes(&plan->c, 1) * (s.agents - s.hosts) / s.hosts;
	quiet(&s, r);
	from_ms = s.now_ms;
	scale_epoch(&s, somebody(&s));
	for (uint32_t i = 0; i < plan->deaths && i < SCALE_DEATHS; i++)
		scale_kill(&s, somebody(&s));
	scale_run(&s, from_ms + plan->after_s * 1000);
	r->node_hours = (double)s.hosts * s.now_ms / 3600e3;
	r->false_dead = (double)s.n.false_dead / r->node_hours;
	ok = epoch_spread(&s, from_ms, r) && death_spread(&s, r);
	scale_free(&s);
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

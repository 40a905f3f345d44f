/* A world in parts: the upper tiers, then pod by pod, by as many processes as the plan says. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/core/random.h"
#include "shared/core/scale/scale.h"

#define DIE_SALT UINT64_C(0x6465617468) /* who dies is drawn by itself */

/* What comes of a part. The last is that of the upper tiers. */
struct part {
	struct scale_figures f;
	bool done;
};

/* Its arrays are shared by the processes; each part writes what is its own. */
struct run {
	const struct scale_plan *plan;
	uint32_t pods, from_ms, end_ms;
	uint32_t origin;                     /* host that the epoch begins at */
	uint32_t dead[SCALE_DEATHS], deaths; /* ascending, so those of a pod follow each other */
	atomic_uint *next;                   /* pod that nobody has begun */
	struct part *part;                   /* pods, and one */
	uint32_t *learnt_ms; /* of each host, from the epoch's beginning, by its tier 0 */
	uint32_t *upper_ms;  /* of each gateway, absolute, by the upper tiers */
	struct scale_death *death;
	uint32_t *told_ms, told_room; /* told_room of each death */
};

static void *shared_array(size_t count, size_t size)
{
	void *p = mmap(NULL, count * size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		       0);

	return p == MAP_FAILED ? NULL : p;
}

static void unshare(void *p, size_t count, size_t size)
{
	if (p)
		munmap(p, count * size);
}

static void release(struct run *r)
{
	uint32_t hosts = scale_hosts(&r->plan->c), gateways = scale_pod_gateways(&r->plan->c);

	unshare(r->next, 1, sizeof(*r->next));
	unshare(r->part, r->pods + 1, sizeof(*r->part));
	unshare(r->learnt_ms, hosts, sizeof(*r->learnt_ms));
	unshare(r->upper_ms, (size_t)r->pods * gateways, sizeof(*r->upper_ms));
	unshare(r->death, SCALE_DEATHS, sizeof(*r->death));
	unshare(r->told_ms, (size_t)SCALE_DEATHS * r->told_room, sizeof(*r->told_ms));
}

static bool allocate(struct run *r)
{
	uint32_t hosts = scale_hosts(&r->plan->c), gateways = scale_pod_gateways(&r->plan->c);

	r->next = shared_array(1, sizeof(*r->next));
	r->part = shared_array(r->pods + 1, sizeof(*r->part));
	r->learnt_ms = shared_array(hosts, sizeof(*r->learnt_ms));
	r->upper_ms = shared_array((size_t)r->pods * gateways, sizeof(*r->upper_ms));
	r->death = shared_array(SCALE_DEATHS, sizeof(*r->death));
	r->told_ms = shared_array((size_t)SCALE_DEATHS * r->told_room, sizeof(*r->told_ms));
	return r->next && r->part && r->learnt_ms && r->upper_ms && r->death && r->told_ms;
}

/* ---- who ---------------------------------------------------------------------------------- */

static bool dies(const struct run *r, uint32_t host)
{
	for (uint32_t i = 0; i < r->deaths; i++) {
		if (r->dead[i] == host)
			return true;
	}
	return false;
}

/* Another host that is no gateway. */
static uint32_t another(const struct run *r, uint64_t *random)
{
	const struct scale_config *c = &r->plan->c;
	uint32_t host;

	do
		host = (uint32_t)wvm_random_below(random, scale_hosts(c));
	while (scale_top(c, host) || host == r->origin || dies(r, host));
	return host;
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void choose(struct run *r)
{
	uint64_t random = wvm_random_mix(r->plan->c.seed ^ DIE_SALT) | 1;
	uint32_t deaths = r->plan->deaths < SCALE_DEATHS ? r->plan->deaths : SCALE_DEATHS;

	r->origin = UINT32_MAX;
	r->origin = another(r, &random);
	for (; r->deaths < deaths; r->deaths++)
		r->dead[r->deaths] = another(r, &random);
	qsort(r->dead, r->deaths, sizeof(r->dead[0]), ascending);
}

/* ---- a part ------------------------------------------------------------------------------- */

/* A gateway learns the epoch from the groups above when these say so, if not before. */
static void run_after(struct run *r, struct scale *s)
{
	uint32_t gateways = scale_pod_gateways(&s->c), first = s->part.pod * s->c.pod;
	const uint32_t *at = &r->upper_ms[s->part.pod * gateways];

	while (s->part.kind == SCALE_POD) {
		uint32_t next = SCALE_NEVER;

		for (uint32_t i = 0; i < gateways; i++) {
			if (at[i] > s->now_ms && at[i] < next)
				next = at[i];
		}
		if (next > r->end_ms)
			break;
		scale_run(s, next);
		for (uint32_t i = 0; i < gateways; i++) {
			if (at[i] == next && s->host[first + i].epoch == 1)
				scale_epoch(s, first + i);
		}
	}
	scale_run(s, r->end_ms);
}

static void collect(struct run *r, const struct scale *s)
{
	uint32_t gateways = scale_pod_gateways(&s->c);

	for (uint32_t i = 0; i < s->c.pod; i++) {
		uint32_t host = s->part.pod * s->c.pod + i;
		const struct scale_host *h = &s->host[host];

		r->learnt_ms[host] = h->epoch > 1 ? h->learnt_ms - r->from_ms : SCALE_NEVER;
	}
	for (uint32_t i = 0; s->part.kind == SCALE_UPPER && i < r->pods * gateways; i++) {
		const struct scale_host *h = &s->host[i / gateways * s->c.pod + i % gateways];

		r->upper_ms[i] = h->epoch > 1 ? h->learnt_ms : SCALE_NEVER;
	}
}

/* Whether all verdicts had room. */
static bool collect_deaths(struct run *r, const struct scale *s, uint32_t first)
{
	for (uint32_t i = 0; i < s->deaths; i++)
		r->death[first + i] = s->death[i];
	if (s->told > s->deaths * r->told_room)
		return false;
	if (s->told)
		memcpy(&r->told_ms[(size_t)first * r->told_room], s->told_ms,
		       s->told * sizeof(*s->told_ms));
	return true;
}

static bool run_part(struct run *r, const struct scale_part *p)
{
	static struct scale s;
	struct part *part = &r->part[p->kind == SCALE_UPPER ? r->pods : p->pod];
	uint32_t first = SCALE_DEATHS;
	bool ok;

	if (!scale_init_part(&s, &r->plan->c, p))
		return false;
	scale_quiet(&s, r->plan, &part->f);
	if (p->kind == SCALE_UPPER)
		scale_epoch(&s, r->origin);
	for (uint32_t i = r->deaths; i-- > 0;) {
		if (r->dead[i] / s.c.pod == p->pod)
			first = i;
	}
	for (uint32_t i = first; i < r->deaths && r->dead[i] / s.c.pod == p->pod; i++)
		scale_kill(&s, r->dead[i]);
	run_after(r, &s);
	part->f.false_dead = s.n.false_dead;
	collect(r, &s);
	ok = collect_deaths(r, &s, first);
	part->done = ok;
	scale_free(&s);
	return ok;
}

/* Pods that nobody else has begun, until there is none. */
static bool run_pods(struct run *r)
{
	bool ok = true;

	while (ok) {
		struct scale_part p = {.kind = SCALE_POD, .pod = atomic_fetch_add(r->next, 1)};

		if (p.pod >= r->pods)
			break;
		ok = p.pod == r->origin / r->plan->c.pod || run_part(r, &p);
	}
	/* Then the others need not go on. */
	if (!ok)
		atomic_store(r->next, r->pods);
	return ok;
}

static bool run_processes(struct run *r)
{
	pid_t child[SCALE_PROCESSES];
	uint32_t begun = 0;
	bool ok = true;

	/* What is buffered would be written by each. */
	fflush(NULL);
	while (ok && begun < r->plan->processes && begun < SCALE_PROCESSES) {
		child[begun] = fork();
		if (!child[begun])
			_exit(run_pods(r) ? 0 : 1);
		ok = child[begun] > 0;
		begun += ok;
	}
	for (uint32_t i = 0; i < begun; i++) {
		int status;

		ok &= waitpid(child[i], &status, 0) == child[i] && WIFEXITED(status) &&
		      !WEXITSTATUS(status);
	}
	return ok;
}

/* ---- all of it ---------------------------------------------------------------------------- */

/* False: a part is missing, or not all objects were in one. */
static bool add_up(const struct run *r, struct scale_result *result)
{
	struct scale_figures sum = {0};
	uint32_t without = r->origin / r->plan->c.pod;

	for (uint32_t i = 0; i <= r->pods; i++) {
		const struct part *p = &r->part[i];

		if (p->done != (i != without))
			return false;
		sum.messages += p->f.messages;
		sum.bytes += p->f.bytes;
		sum.suspected += p->f.suspected;
		sum.false_dead += p->f.false_dead;
		sum.agents += p->f.agents;
	}
	scale_sum(result, &sum, r->end_ms);
	return sum.agents == result->agents;
}

/* Those that live, and when they learnt it. */
static bool spread_epoch(const struct run *r, struct scale_result *result)
{
	uint32_t reached = 0;

	for (uint32_t i = 0; i < result->hosts; i++) {
		if (r->learnt_ms[i] != SCALE_NEVER && !dies(r, i))
			r->learnt_ms[reached++] = r->learnt_ms[i];
	}
	return scale_spread(&result->epoch, r->learnt_ms, reached, result->hosts - r->deaths);
}

static bool spread_deaths(const struct run *r, struct scale_result *result)
{
	uint32_t first[SCALE_DEATHS], reached = 0, told = 0, group = 0;

	for (uint32_t i = 0; i < r->deaths; i++) {
		const struct scale_death *d = &r->death[i];

		group += d->group;
		if (d->told)
			first[reached++] = d->first_ms;
	}
	/* The deaths of one pod have their verdicts together, at the first of them. */
	for (uint32_t i = 0, end; i < r->deaths; i = end) {
		uint32_t pod = r->dead[i] / r->plan->c.pod, count = 0;

		for (end = i; end < r->deaths && r->dead[end] / r->plan->c.pod == pod; end++)
			count += r->death[end].told;
		memmove(&r->told_ms[told], &r->told_ms[(size_t)i * r->told_room],
			count * sizeof(*r->told_ms));
		told += count;
	}
	return scale_spread(&result->first, first, reached, r->deaths) &&
	       scale_spread(&result->all, r->told_ms, told, group);
}

bool scale_measure_parts(const struct scale_plan *plan, struct scale_result *result)
{
	const struct scale_config *c = &plan->c;
	struct run r = {.plan = plan, .pods = c->pods * c->zones, .told_room = 4 * c->pod};
	bool ok = false;

	if (!scale_divisible(c) || !allocate(&r)) {
		fprintf(stderr, "wvm_scale: %s: %s\n", plan->name,
			scale_divisible(c) ? "no memory" : "not to be run in parts");
		goto out;
	}
	choose(&r);
	r.from_ms = (plan->warm_s + plan->quiet_s) * 1000;
	r.end_ms = r.from_ms + plan->after_s * 1000;
	ok = run_part(&r, &(struct scale_part){SCALE_UPPER, r.origin / c->pod}) &&
	     run_processes(&r) && add_up(&r, result) && spread_epoch(&r, result) &&
	     spread_deaths(&r, result);
	if (!ok)
		fprintf(stderr, "wvm_scale: %s: a part has failed (no memory?)\n", plan->name);
out:
	release(&r);
	return ok;
}

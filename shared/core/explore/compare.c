/*
 * Are the renamed states the core's states? One long random run, made twice:
 * by cores that keep everything, and by cores that know only what the packed
 * state says. Each step must lead both to the same packed state.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/explore/world.h"

struct pair {
	struct ex_rig live, restored;
	struct ex_world w;
	uint64_t random;
};

static uint64_t rnd(struct pair *p)
{
	p->random ^= p->random >> 12; /* xorshift64*, Marsaglia and Vigna */
	p->random ^= p->random << 25;
	p->random ^= p->random >> 27;
	return p->random * UINT64_C(0x2545f4914f6cdd1d) >> 33;
}

static uint8_t find(const uint8_t *names, uint32_t count, uint8_t name)
{
	uint8_t i = 0;

	while (i < count && names[i] != name)
		i++;
	WVM_ASSERT(i < count);
	return i;
}

/* The event of the packed state, in the words of the original one. */
static struct ex_event original(const struct pair *p, const struct ex_event *e,
				const struct ex_names *names)
{
	struct ex_event o = *e;

	o.node = find(names->node, p->live.config.nodes, e->node);
	if (e->kind == EX_ACCESS)
		o.index = find(names->program[o.node], p->live.config.programs, e->index);
	else if (e->kind == EX_DELIVER || e->kind == EX_COPY || e->kind == EX_LOSE)
		o.index = find(names->message, p->w.messages, e->index);
	return o;
}

/* What may still happen never runs out here. */
static void replenish(struct pair *p)
{
	struct ex_world full;

	ex_first(&p->live, &full);
	p->w.accesses = full.accesses;
	p->w.losses = full.losses;
	p->w.duplicates = full.duplicates;
	p->w.retries = full.retries;
	p->w.deadlines = full.deadlines;
	p->w.evictions = full.evictions;
}

static bool step(struct pair *p, struct explore_report *report)
{
	uint8_t a[EX_PACKED], b[EX_PACKED];
	struct ex_event list[EX_EVENTS], mine, theirs;
	struct ex_names names;
	struct ex_world w;
	uint32_t count, size;

	replenish(p);
	size = ex_pack(&p->live, &p->w, a, &names);
	ex_unpack(&p->restored, &w, a, size);
	count = ex_events(&p->restored, &w, list);
	theirs = list[rnd(p) % count];
	mine = original(p, &theirs, &names);
	if (!ex_step(&p->live, &p->w, &mine) || !ex_check(&p->live, &p->w)) {
		memcpy(report->violation, p->live.failure, sizeof(p->live.failure));
		return false;
	}
	if (!ex_step(&p->restored, &w, &theirs)) {
		memcpy(report->violation, p->restored.failure, sizeof(p->restored.failure));
		return false;
	}
	size = ex_pack(&p->live, &p->w, a, &names);
	if (size == ex_pack(&p->restored, &w, b, &names) && !memcmp(a, b, size))
		return true;
	snprintf(report->violation, sizeof(report->violation),
		 "event kind %u at node %u leads to another state than its renamed one",
		 theirs.kind, theirs.node);
	return false;
}

uint64_t explore_compare(const struct explore_config *config, uint64_t seed, uint64_t steps,
			 struct explore_report *report)
{
	struct pair *p = aligned_alloc(64, (sizeof(*p) + 63) & ~(size_t)63);
	uint64_t made = 0;

	memset(report, 0, sizeof(*report));
	if (!p)
		return 0;
	memset(p, 0, sizeof(*p));
	p->random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	if (!ex_rig_init(&p->live, config) && !ex_rig_init(&p->restored, config)) {
		p->live.live = true;
		ex_first(&p->live, &p->w);
		while (made < steps && step(p, report))
			made++;
	}
	ex_rig_done(&p->live);
	ex_rig_done(&p->restored);
	free(p);
	return made;
}

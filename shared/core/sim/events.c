/* What happens when: a binary heap over events that come from two pools. */
#include <stdlib.h>

#include "shared/core/sim/sim.h"

#define CHUNK 64u /* events allocated at once; their memory is kept till the end */

struct sim_chunk {
	struct sim_chunk *next;
};

/* Chunks are found again through the first word in front of their events. */
static void grow(struct sim *s, bool large)
{
	size_t size = (sizeof(struct sim_event) + (large ? SIM_LARGE : SIM_SMALL) + 15) & ~15ul;
	uint8_t *block = malloc(16 + CHUNK * size);

	if (!block)
		abort();
	((struct sim_chunk *)(void *)block)->next = s->events.chunks;
	s->events.chunks = (struct sim_chunk *)(void *)block;
	for (uint32_t i = 0; i < CHUNK; i++) {
		struct sim_event *e = (struct sim_event *)(void *)(block + 16 + i * size);

		e->large = large;
		e->next = s->events.free[large];
		s->events.free[large] = e;
	}
}

struct sim_event *sim_event_new(struct sim *s, enum sim_event_kind kind, bool large)
{
	struct sim_event *e;

	if (!s->events.free[large])
		grow(s, large);
	e = s->events.free[large];
	s->events.free[large] = e->next;
	e->next = NULL;
	e->kind = kind;
	e->original = NULL;
	return e;
}

void sim_event_free(struct sim *s, struct sim_event *e)
{
	if (e->original)
		sim_event_free(s, e->original);
	e->next = s->events.free[e->large];
	s->events.free[e->large] = e;
}

static bool before(const struct sim_entry *a, const struct sim_entry *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void sim_event_post(struct sim *s, struct sim_event *e, uint64_t at_ns)
{
	struct sim_events *q = &s->events;
	struct sim_entry entry = {at_ns, q->order++, e};
	size_t i;

	if (q->count == q->room) {
		q->room = q->room ? 2 * q->room : 1024;
		q->heap = realloc(q->heap, q->room * sizeof(*q->heap));
		if (!q->heap)
			abort();
	}
	for (i = q->count++; i && before(&entry, &q->heap[(i - 1) / 2]); i = (i - 1) / 2)
		q->heap[i] = q->heap[(i - 1) / 2];
	q->heap[i] = entry;
}

struct sim_event *sim_post(struct sim *s, uint64_t at_ns, enum sim_event_kind kind)
{
	struct sim_event *e = sim_event_new(s, kind, false);

	sim_event_post(s, e, at_ns);
	return e;
}

struct sim_event *sim_event_next(struct sim *s, uint64_t *at_ns)
{
	struct sim_events *q = &s->events;
	struct sim_entry first = q->heap[0], last = q->heap[--q->count];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < q->count) {
		if (child + 1 < q->count && before(&q->heap[child + 1], &q->heap[child]))
			child++;
		if (!before(&q->heap[child], &last))
			break;
		q->heap[i] = q->heap[child];
		i = child;
	}
	q->heap[i] = last;
	*at_ns = first.at_ns;
	return first.event;
}

void sim_events_free(struct sim *s)
{
	while (s->events.chunks) {
		struct sim_chunk *c = s->events.chunks;

		s->events.chunks = c->next;
		free(c);
	}
	free(s->events.heap);
}

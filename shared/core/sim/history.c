/*
 * Linearizability of registers from what the programs recorded: when each
 * access was begun and done, what it read and what it wrote. Every written
 * value is another one, so it is known which store a load saw, and the check is
 * one pass over the accesses (Gibbons and Korach, Testing shared memories, 1997):
 *
 * All accesses of one value form a cluster. Let f be the earliest end of one of
 * them and l the latest beginning. With f < l the value was there during all
 * of [f, l]: such zones of a word must not overlap. Otherwise there was a common
 * instant of all, within [l, f]: it must not lie within another value's zone.
 *
 * Nothing here looks at the simulator's own idea of a word's true value.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/core/sim/sim.h"

struct cluster {
	uint64_t first_done_ns, last_begun_ns;
	uint64_t written_ns; /* its store was begun */
	uint32_t at;
	uint32_t next; /* of this word, by first_done_ns; 0: none */
	uint8_t state; /* bits: */
#define SEEN     1
#define WRITTEN  2
#define REPLACED 4 /* a read-modify-write found this value */
};

void sim_history_add(struct sim *s, const struct sim_thread *t, uint64_t read)
{
	struct sim_history *h = &s->history;

	if (h->count == SIM_HISTORY_MAX)
		return;
	if (h->count == h->room) {
		h->room = h->room ? 2 * h->room : 4096;
		h->list = realloc(h->list, h->room * sizeof(*h->list));
		if (!h->list)
			abort();
	}
	h->list[h->count++] = (struct sim_access){
		.begun_ns = t->since_ns,
		.done_ns = s->report.now_ns,
		.read = read,
		.wrote = t->write ? t->value : 0,
		.at = (uint32_t)(t->page * SIM_WORDS + t->word),
		.reads = !t->write || t->modify,
	};
}

struct check {
	struct sim *s;
	struct cluster *clusters; /* by value; the words' first values behind them */
	uint64_t values;
	uint32_t *head, *tail; /* of each word */
};

/* Every word begins with a value of its own, which nobody wrote. */
static struct cluster *cluster_of(struct check *c, uint64_t value, uint32_t at)
{
	uint64_t index = value ? value : c->values + at;
	struct cluster *k;

	if (value >= c->values) {
		sim_failed(c->s, "history: page %u word %u held %llu, which nobody wrote",
			   at / SIM_WORDS, at % SIM_WORDS, (unsigned long long)value);
		return NULL;
	}
	k = &c->clusters[index];
	if (!(k->state & SEEN)) {
		k->state |= SEEN;
		k->at = at;
		k->first_done_ns = UINT64_MAX;
		*(c->tail[at] ? &c->clusters[c->tail[at]].next : &c->head[at]) = (uint32_t)index;
		c->tail[at] = (uint32_t)index;
	}
	if (k->at != at) {
		sim_failed(c->s, "history: page %u word %u held %llu, which was written elsewhere",
			   at / SIM_WORDS, at % SIM_WORDS, (unsigned long long)value);
		return NULL;
	}
	return k;
}

static struct cluster *belongs(struct check *c, const struct sim_access *a, uint64_t value)
{
	struct cluster *k = cluster_of(c, value, a->at);

	if (!k)
		return NULL;
	if (a->done_ns < k->first_done_ns)
		k->first_done_ns = a->done_ns;
	if (a->begun_ns > k->last_begun_ns)
		k->last_begun_ns = a->begun_ns;
	return k;
}

static void take_access(struct check *c, const struct sim_access *a)
{
	struct cluster *k;

	if (a->reads) {
		k = belongs(c, a, a->read);
		/* Two that changed the same value: one of the changes is gone. */
		if (k && a->wrote && k->state & REPLACED)
			sim_failed(c->s, "history: page %u word %u was changed twice from %llu",
				   a->at / SIM_WORDS, a->at % SIM_WORDS,
				   (unsigned long long)a->read);
		if (k && a->wrote)
			k->state |= REPLACED;
	}
	if (a->wrote) {
		k = belongs(c, a, a->wrote);
		if (k) {
			k->state |= WRITTEN;
			k->written_ns = a->begun_ns;
		}
	}
}

static void out_of_order(struct check *c, const struct cluster *a, const struct cluster *b)
{
	sim_failed(c->s, "history: page %u word %u is not linearizable: values %llu and %llu",
		   a->at / SIM_WORDS, a->at % SIM_WORDS,
		   (unsigned long long)(a - c->clusters) % c->values,
		   (unsigned long long)(b - c->clusters) % c->values);
}

/*
 * The clusters of a word come by first_done_ns. A zone that reaches furthest
 * so far is the only one that the next may meet, as long as zones are disjoint.
 */
static void check_word(struct check *c, uint32_t at)
{
	const struct cluster *zone = NULL, *k;

	for (uint32_t i = c->head[at]; i; i = k->next) {
		k = &c->clusters[i];
		if (i < c->values && !(k->state & WRITTEN)) {
			sim_failed(c->s, "history: page %u word %u held %u before it was written",
				   at / SIM_WORDS, at % SIM_WORDS, i);
			return;
		}
		if (k->first_done_ns < k->written_ns) {
			out_of_order(c, k, k);
			return;
		}
		if (k->first_done_ns < k->last_begun_ns) {
			if (zone && k->first_done_ns < zone->last_begun_ns) {
				out_of_order(c, zone, k);
				return;
			}
			zone = k;
		} else if (zone && zone->first_done_ns < k->last_begun_ns &&
			   k->first_done_ns < zone->last_begun_ns) {
			out_of_order(c, zone, k);
			return;
		}
	}
}

void sim_check_history(struct sim *s)
{
	uint32_t words = s->config.pages * SIM_WORDS;
	struct check c = {.s = s, .values = s->value + 1};

	c.clusters = sim_zeroed((c.values + words) * sizeof(*c.clusters));
	c.head = sim_zeroed(words * sizeof(*c.head));
	c.tail = sim_zeroed(words * sizeof(*c.tail));
	/* The first values are there from the beginning. */
	for (uint32_t i = 0; i < words; i++)
		cluster_of(&c, 0, i)->first_done_ns = 0;
	for (size_t i = 0; i < s->history.count; i++)
		take_access(&c, &s->history.list[i]);
	for (uint32_t i = 0; i < words; i++)
		check_word(&c, i);
	s->report.history = s->history.count;
	free(c.clusters);
	free(c.head);
	free(c.tail);
}

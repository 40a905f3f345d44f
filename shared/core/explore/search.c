/*
 * Breadth first over the states. Every state is kept whole, so two states are
 * the same only if they are; of each is known how it was reached first, which
 * is a shortest path.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "shared/core/explore/world.h"

#define STATES_MOST (UINT32_MAX - 1)

/* How a state was reached. 6 bytes each in two arrays would be 12 of 14. */
struct origin {
	uint32_t parent;
	uint16_t event; /* of the parent's ex_events() */
	uint16_t steps; /* it leads on to: successors in `edges` */
};

struct search {
	struct ex_rig rig;
	struct explore_report *report;
	uint8_t *bytes; /* packed states, one after the other */
	uint64_t *at;   /* [i]: where state i begins, [i + 1]: where it ends */
	struct origin *from;
	uint32_t *edges; /* successors by delivery or timer, in order of states */
	uint64_t *table; /* hash << 32 | state + 1, open addressing */
	uint64_t used, edge_count, slots;
	uint64_t bytes_room, edges_room, states_room;
	uint64_t states;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- memory ---------------------------------------------------------------------------- */

/* Address space; pages come as they are touched, so each array may have room for the whole. */
static void *reserve(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void release(void *p, uint64_t size)
{
	if (p)
		munmap(p, size);
}

static int make_room(struct search *s)
{
	uint64_t memory = s->rig.config.memory_max;

	s->states_room = s->rig.config.states_max < STATES_MOST ? s->rig.config.states_max
								: STATES_MOST;
	s->bytes_room = memory + EX_PACKED;
	s->edges_room = memory + EX_EVENTS * sizeof(*s->edges);
	s->slots = 1 << 16;
	s->bytes = reserve(s->bytes_room);
	s->edges = reserve(s->edges_room);
	s->at = reserve((s->states_room + 2) * sizeof(*s->at));
	s->from = reserve((s->states_room + 2) * sizeof(*s->from));
	s->table = reserve(s->slots * sizeof(*s->table));
	return s->bytes && s->edges && s->at && s->from && s->table ? 0 : -ENOMEM;
}

static void drop_room(struct search *s)
{
	release(s->bytes, s->bytes_room);
	release(s->edges, s->edges_room);
	release(s->at, (s->states_room + 2) * sizeof(*s->at));
	release(s->from, (s->states_room + 2) * sizeof(*s->from));
	release(s->table, s->slots * sizeof(*s->table));
	ex_rig_done(&s->rig);
	free(s);
}

static uint64_t memory_used(const struct search *s)
{
	return s->used + s->edge_count * sizeof(*s->edges) + s->slots * sizeof(*s->table) +
	       s->states * (sizeof(*s->at) + sizeof(*s->from));
}

static bool full(const struct search *s)
{
	/* The table doubles, and while it does both are there. */
	uint64_t growth = s->states * 5 / 3 >= s->slots ? 2 * s->slots * sizeof(*s->table) : 0;

	return s->states >= s->states_room || memory_used(s) + growth >= s->rig.config.memory_max;
}

/* ---- the set of states ----------------------------------------------------------------- */

static uint32_t hash(const uint8_t *bytes, uint32_t size)
{
	uint64_t h = size, word;

	for (uint32_t i = 0; i < size; i += 8) {
		word = 0;
		memcpy(&word, bytes + i, size - i < 8 ? size - i : 8);
		h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 32;
	}
	h *= UINT64_C(0xc4ceb9fe1a85ec53);
	return (uint32_t)(h >> 32);
}

static bool grow_table(struct search *s)
{
	uint64_t slots = 2 * s->slots, *table = reserve(slots * sizeof(*table));

	if (!table)
		return false;
	for (uint64_t i = 0; i < s->slots; i++) {
		uint64_t at = (s->table[i] >> 32) & (slots - 1);

		if (!s->table[i])
			continue;
		while (table[at])
			at = (at + 1) & (slots - 1);
		table[at] = s->table[i];
	}
	release(s->table, s->slots * sizeof(*s->table));
	s->table = table;
	s->slots = slots;
	return true;
}

/* The state's number; *added: it is a new one. */
static uint32_t insert(struct search *s, const uint8_t *bytes, uint32_t size, bool *added)
{
	uint64_t h = hash(bytes, size), at = h & (s->slots - 1), entry;

	*added = false;
	for (; (entry = s->table[at]); at = (at + 1) & (s->slots - 1)) {
		uint32_t i = (uint32_t)entry - 1;

		if (entry >> 32 == h && s->at[i + 1] - s->at[i] == size &&
		    !memcmp(s->bytes + s->at[i], bytes, size))
			return i;
	}
	s->table[at] = h << 32 | (s->states + 1);
	memcpy(s->bytes + s->used, bytes, size);
	s->used += size;
	s->at[s->states + 1] = s->used;
	*added = true;
	return (uint32_t)s->states++;
}

static void restore(const struct search *s, uint32_t i, struct ex_world *w)
{
	ex_unpack(&s->rig, w, s->bytes + s->at[i], (uint32_t)(s->at[i + 1] - s->at[i]));
}

/* ---- the way to a state ---------------------------------------------------------------- */

/* How the nodes and programs of the state after a step are called, if `names` was before it. */
static void follow(struct ex_names *names, const struct ex_names *packed)
{
	struct ex_names before = *names;

	for (uint32_t n = 0; n < EX_NODES_MAX; n++) {
		names->node[packed->node[n]] = before.node[n];
		for (uint32_t c = 0; c < EX_PROGRAMS_MAX; c++)
			names->program[packed->node[n]][packed->program[n][c]] =
				before.program[n][c];
	}
}

/* Makes one step, and says so. */
static void retrace(struct search *s, struct ex_world *w, uint32_t event, struct ex_names *names)
{
	struct ex_event list[EX_EVENTS];
	/* What the state does not have keeps its name. */
	struct ex_names packed = {.node = {0, 1, 2}, .program = {{0, 1}, {0, 1}, {0, 1}}};
	uint8_t bytes[EX_PACKED];
	FILE *to = s->rig.config.trace;

	ex_events(&s->rig, w, list);
	ex_print_event(to, w, &list[event], names);
	if (ex_step(&s->rig, w, &list[event]))
		ex_check(&s->rig, w);
	ex_print_state(to, &s->rig, w, names);
	if (s->rig.failure[0])
		return;
	ex_unpack(&s->rig, w, bytes, ex_pack(&s->rig, w, bytes, &packed));
	follow(names, &packed);
}

/* The steps to state i, and the event after it that went wrong (or NONE). */
#define NONE UINT32_MAX
static void print_path(struct search *s, uint32_t i, uint32_t event)
{
	struct ex_names names = {.node = {0, 1, 2}, .program = {{0, 1}, {0, 1}, {0, 1}}};
	uint32_t length = 0, *path = malloc((s->report->depth + 2u) * sizeof(*path));
	struct ex_world w;

	if (!path || !s->rig.config.trace) {
		free(path);
		return;
	}
	if (event != NONE)
		path[length++] = event;
	for (; i; i = s->from[i].parent)
		path[length++] = s->from[i].event;
	ex_first(&s->rig, &w);
	for (uint32_t step = 1; length--; step++) {
		fprintf(s->rig.config.trace, "%3u ", step);
		retrace(s, &w, path[length], &names);
	}
	fprintf(s->rig.config.trace, "    %s\n", s->report->violation);
	free(path);
}

static void violated(struct search *s, uint32_t state, uint32_t event)
{
	s->report->violations = 1;
	memcpy(s->report->violation, s->rig.failure, sizeof(s->rig.failure));
	print_path(s, state, event);
}

/* ---- exploring ------------------------------------------------------------------------- */

/* False: a violation. */
static bool expand(struct search *s, uint32_t i)
{
	struct ex_event list[EX_EVENTS];
	struct ex_world w, next;
	struct ex_names names;
	uint8_t bytes[EX_PACKED];
	uint32_t events, to, size;
	bool added;

	restore(s, i, &w);
	events = ex_events(&s->rig, &w, list);
	for (uint32_t k = 0; k < events; k++) {
		next = w;
		s->report->transitions++;
		if (!ex_step(&s->rig, &next, &list[k]) || !ex_check(&s->rig, &next)) {
			violated(s, i, k);
			return false;
		}
		size = ex_pack(&s->rig, &next, bytes, &names);
		to = insert(s, bytes, size, &added);
		if (added)
			s->from[to] = (struct origin){.parent = i, .event = (uint16_t)k};
		if (ex_progress(&list[k])) {
			s->edges[s->edge_count++] = to;
			s->from[i].steps++;
		}
	}
	return true;
}

/*
 * From every state the end of all that has begun must be reachable by
 * deliveries and timers alone. Marked backward from the states where nothing is
 * left; successors mostly come later, so few rounds do.
 */
static void find_traps(struct search *s)
{
	uint8_t *ends = reserve(s->states);
	struct ex_world w;
	bool more = ends;

	if (!ends)
		return;
	for (uint32_t i = 0; i < s->states; i++) {
		restore(s, i, &w);
		ends[i] = ex_complete(&s->rig, &w);
		s->report->complete += ends[i];
	}
	while (more) {
		uint64_t edge = s->edge_count;

		more = false;
		for (uint64_t i = s->states; i--;) {
			bool found = false;

			for (uint32_t k = s->from[i].steps; k--;)
				found |= ends[s->edges[--edge]];
			more |= found && !ends[i];
			ends[i] |= found;
		}
	}
	for (uint32_t i = 0; i < s->states; i++) {
		if (ends[i])
			continue;
		if (!s->report->traps++) {
			ex_failed(&s->rig, "from here the end of what has begun is out of reach");
			violated(s, i, NONE);
		}
	}
	release(ends, s->states);
}

static void run(struct search *s)
{
	struct ex_world w;
	struct ex_names names;
	uint8_t bytes[EX_PACKED];
	uint64_t level_end = 1;
	uint32_t i;
	bool added;

	ex_first(&s->rig, &w);
	insert(s, bytes, ex_pack(&s->rig, &w, bytes, &names), &added);
	for (i = 0; i < s->states; i++) {
		if (i == level_end) {
			s->report->depth++;
			level_end = s->states;
		}
		if (full(s) || (s->states * 5 / 3 >= s->slots && !grow_table(s)))
			return;
		if (!expand(s, i))
			return;
	}
	s->report->fixed_point = true;
	find_traps(s);
}

static bool valid(const struct explore_config *c)
{
	return c->nodes >= 2 && c->nodes <= EX_NODES_MAX && c->programs >= 1 &&
	       c->programs <= EX_PROGRAMS_MAX && c->outstanding >= 1 && c->accesses < 32 &&
	       c->under_way >= 1 && c->under_way < EX_MESSAGES && c->losses < 8 &&
	       c->duplicates < 8 && c->retries < 8 && c->deadlines < 8 && c->evictions < 8 &&
	       c->states_max && c->memory_max;
}

int explore(const struct explore_config *config, struct explore_report *report)
{
	uint64_t began_ns = now_ns();
	struct search *s;
	int err;

	memset(report, 0, sizeof(*report));
	if (!valid(config))
		return -EINVAL;
	s = aligned_alloc(64, (sizeof(*s) + 63) & ~(size_t)63);
	if (!s)
		return -ENOMEM;
	memset(s, 0, sizeof(*s));
	s->report = report;
	err = ex_rig_init(&s->rig, config);
	if (!err)
		err = make_room(s);
	if (!err)
		run(s);
	report->states = s->states;
	report->bytes = memory_used(s);
	report->seconds = (double)(now_ns() - began_ns) / 1e9;
	drop_room(s);
	return err;
}

void explore_default(struct explore_config *config)
{
	*config = (struct explore_config){
		.nodes = 3,
		.programs = 1,
		.outstanding = 3,
		.under_way = 3,
		.losses = 1,
		.duplicates = 1,
		.retries = 1,
		.states_max = STATES_MOST,
		.memory_max = UINT64_C(3) << 30,
	};
}

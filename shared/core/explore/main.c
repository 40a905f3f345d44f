/*
 * wvm_explore: the exhaustive check as a program. Without options it runs the
 * table below, which is what `make explore` does; with options one run.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/explore/explore.h"

#ifndef WVM_VERSION
#define WVM_VERSION "0"
#endif

const char *argp_program_version = "wvm_explore " WVM_VERSION;

/* Bounds that fit into 3 GB each; minutes in all. */
static const struct explore_config table[] = {
	{.nodes = 2, .programs = 1, .outstanding = 2, .under_way = 8},
	{.nodes = 2, .programs = 2, .outstanding = 4, .under_way = 2, .losses = 1},
	{.nodes = 2,
	 .programs = 1,
	 .outstanding = 2,
	 .under_way = 2,
	 .losses = 1,
	 .duplicates = 1,
	 .retries = 1,
	 .deadlines = 1},
	{.nodes = 3, .programs = 1, .outstanding = 3, .under_way = 1, .losses = 1, .deadlines = 1},
	{.nodes = 2,
	 .programs = 1,
	 .outstanding = 2,
	 .under_way = 2,
	 .losses = 1,
	 .duplicates = 1,
	 .retries = 1,
	 .evictions = 2},
	{.nodes = 3,
	 .programs = 1,
	 .outstanding = 3,
	 .under_way = 8,
	 .accesses = 3,
	 .losses = 1,
	 .duplicates = 1,
	 .retries = 1},
	{.nodes = 2,
	 .programs = 1,
	 .outstanding = 2,
	 .under_way = 1,
	 .losses = 1,
	 .duplicates = 1,
	 .retries = 1,
	 .deadlines = 1,
	 .units = true},
	{.nodes = 3,
	 .programs = 1,
	 .outstanding = 3,
	 .under_way = 8,
	 .accesses = 3,
	 .losses = 1,
	 .duplicates = 1,
	 .retries = 1,
	 .units = true},
	{.nodes = 2,
	 .programs = 1,
	 .outstanding = 2,
	 .under_way = 1,
	 .losses = 1,
	 .duplicates = 1,
	 .deadlines = 1,
	 .units = true,
	 .merge = true},
};

struct arguments {
	struct explore_config c;
	bool one;
};

enum { OPT_STATES = 256, OPT_MEMORY };

static const struct argp_option options[] = {
	{"nodes", 'n', "N", 0, "2 or 3; node 0 is the page's home", 0},
	{"programs", 'p', "N", 0, "per node, 1 or 2", 0},
	{"operations", 'o', "N", 0, "accesses that wait at the same time", 0},
	{"accesses", 'a', "N", 0, "that miss, in all; 0: any number", 0},
	{"under-way", 'u', "N", 0, "no access begins while so many messages are under way", 0},
	{"evictions", 'e', "N", 0, "pages given up for lack of memory, in all", 0},
	{"losses", 'l', "N", 0, "messages lost, in all", 0},
	{"duplicates", 'd', "N", 0, "messages delivered twice, in all", 0},
	{"retries", 'r', "N", 0, "retries while messages are under way, in all", 0},
	{"deadlines", 't', "N", 0, "deadlines that strike, in all", 0},
	{"units", 'w', NULL, 0, "nodes ask for the whole unit of the page", 0},
	{"merge", 'm', NULL, 0, "and put it together again (with --units)", 0},
	{"states", OPT_STATES, "N", 0, "end after that many states", 0},
	{"memory", OPT_MEMORY, "MB", 0, "end at that much memory for states", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	uint64_t value = 0;
	char *end = NULL;

	if (arg) {
		value = strtoull(arg, &end, 0);
		if (end == arg || *end || value > UINT32_MAX)
			argp_error(state, "'%s' is not a number", arg);
		a->one |= key != OPT_MEMORY && key != OPT_STATES;
	}
	switch (key) {
	case 'n': a->c.nodes = (uint32_t)value; break;
	case 'p': a->c.programs = (uint32_t)value; break;
	case 'o': a->c.outstanding = (uint32_t)value; break;
	case 'a': a->c.accesses = (uint32_t)value; break;
	case 'u': a->c.under_way = (uint32_t)value; break;
	case 'e': a->c.evictions = (uint32_t)value; break;
	case 'l': a->c.losses = (uint32_t)value; break;
	case 'd': a->c.duplicates = (uint32_t)value; break;
	case 'r': a->c.retries = (uint32_t)value; break;
	case 't': a->c.deadlines = (uint32_t)value; break;
	case 'w': a->c.units = a->one = true; break;
	case 'm': a->c.merge = a->one = true; break;
	case OPT_STATES: a->c.states_max = value; break;
	case OPT_MEMORY: a->c.memory_max = value << 20; break;
	case ARGP_KEY_ARG: argp_error(state, "no argument is expected"); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* True: all reachable states are there, and nothing is wrong with any of them. */
static bool run(const struct explore_config *c)
{
	struct explore_report r;
	int err;

	printf("%u nodes, %u programs each, 1 page; %u accesses outstanding", c->nodes, c->programs,
	       c->outstanding);
	if (c->accesses)
		printf(" (%u in all)", c->accesses);
	printf(", begun below %u messages; %u lost, %u doubled, %u early retries, %u deadlines, "
	       "%u evictions%s\n",
	       c->under_way, c->losses, c->duplicates, c->retries, c->deadlines, c->evictions,
	       !c->units  ? ""
	       : c->merge ? "; whole units, and merged again"
			  : "; whole units");
	fflush(stdout);
	err = explore(c, &r);
	if (err) {
		fprintf(stderr, "wvm_explore: %s\n",
			err == -EINVAL ? "a number is out of its range (see explore.h)"
				       : strerror(-err));
		return false;
	}
	printf("  %llu states, %llu transitions, depth %u, %llu violations, %llu at rest, %.1f s, "
	       "%llu MB: %s\n",
	       (unsigned long long)r.states, (unsigned long long)r.transitions, r.depth,
	       (unsigned long long)r.violations, (unsigned long long)r.complete, r.seconds,
	       (unsigned long long)(r.bytes >> 20),
	       r.violations    ? r.violation
	       : r.fixed_point ? "fixed point; from every state all can end"
			       : "NOT COMPLETE: more states than there was room for");
	fflush(stdout);
	return r.fixed_point && !r.violations;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Explores every order of events of the protocol core for one page. Without "
		       "options on bounds: a table of runs."};
	struct arguments a = {.one = false};
	bool good = true;

	explore_default(&a.c);
	a.c.trace = stdout;
	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (a.one)
		return run(&a.c) ? EXIT_SUCCESS : EXIT_FAILURE;
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		struct explore_config c = table[i];

		c.states_max = a.c.states_max;
		c.memory_max = a.c.memory_max;
		c.trace = a.c.trace;
		good &= run(&c);
	}
	return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

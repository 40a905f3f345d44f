/*
 * All that can happen while one record, or two, are agreed: every order in which messages arrive,
 * nodes end and begin anew, and proposers try again, to a fixed point.
 *
 * The network is the set of all messages ever sent. Each may arrive at any time, any number of
 * times, or never: loss, repetition, delay and reordering have no bound. Bounded are the rounds of
 * ballots and how often nodes end; a node may end after any action of any input, between SAVE
 * and SEND as well. Clocks are not in the states: a timer that is set may fire at any moment.
 */
#ifndef WVM_CORE_CHECK_EPOCH_EXPLORE_H
#define WVM_CORE_CHECK_EPOCH_EXPLORE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct epoch_explore_config {
	uint32_t nodes;     /* 2 to 4 */
	uint32_t voters;    /* of these, the first so many, on record 2 */
	uint32_t proposers; /* the last so many nodes, each with a change of its own */
	uint32_t records; /* to be decided: 1 or 2, the second by the voters that the first names */
	uint32_t rounds;  /* highest of a ballot */
	uint32_t ends;    /* of nodes, all together */
	bool reduce;      /* forget messages that nothing can come of any more (explained there) */
	uint64_t states_max;
	FILE *trace; /* where a shortest way to a violation is told, or NULL */
};

struct epoch_explore_report {
	uint64_t states, transitions;
	uint64_t ends; /* states in which all nodes know the last record */
	uint32_t depth;
	uint32_t locals, messages; /* different states of one node; different messages */
	bool fixed_point;          /* else states_max ended it */
	const char *violation;     /* what is wrong; ends the search */
	double seconds;
};

void epoch_explore(const struct epoch_explore_config *c, struct epoch_explore_report *r);

#endif

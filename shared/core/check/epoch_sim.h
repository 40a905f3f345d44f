/*
 * Simulated nodes that agree on epochs, from a seed: 3 to 9 of them, of which 1 to 7 vote at a
 * time. First messages are lost, repeated, late and out of order, nodes end (also between two
 * actions of one input) and come back with what they saved, the network falls apart, and
 * everybody has wishes. Then all is well again, and everybody must come to the same epoch, and
 * agree on something new.
 */
#ifndef WVM_CORE_CHECK_EPOCH_SIM_H
#define WVM_CORE_CHECK_EPOCH_SIM_H

#include <stdint.h>

struct epoch_sim_report {
	const char *violation; /* what is wrong; ends the run */
	uint32_t records;      /* decided */
	uint32_t won, lost;    /* wishes */
	uint32_t ends;         /* of nodes */
	uint32_t cut;          /* of these, before the actions of an input were all carried out */
	uint32_t views;        /* installed by a node that was too far behind */
	uint32_t splits;       /* of the network */
	uint32_t messages, losses, repeats;
	uint64_t settled_ns; /* from the end of all trouble to the same epoch everywhere */
};

void epoch_sim(uint64_t seed, struct epoch_sim_report *r);

#endif

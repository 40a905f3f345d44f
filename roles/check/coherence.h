/*
 * The coherence tests: what strict memory promises to programs on three nodes,
 * two on each. Every configuration of masters and network runs the same ones.
 */
#ifndef WVM_CHECK_COHERENCE_H
#define WVM_CHECK_COHERENCE_H

#include "roles/check/program.h"

/* The cluster that they run on, started by the test program. */
extern struct cluster coherence_cluster;
/* How much work: 100 on loopback, less where the network is slow on purpose. */
extern unsigned coherence_percent;

/* Adds all of them. */
void coherence_tests(TCase *t);

#endif

#ifndef WVM_FLOOR_RELAY_H
#define WVM_FLOOR_RELAY_H

#include "floor.h"

#define RELAY_BYTES_MAX 65536u

/*
 * The floor of a run of a processor on another node: o->relay_runs times o->relay_bytes from a
 * thread to relay A through shared memory and an eventfd, to relay B by UDP, to an echo by UDP,
 * there to the thread that stands for the processor, and all the way back; each a process. They
 * look at nothing but lengths: no checksum, no table, no retry. Prints the round trips.
 */
void floor_relay(const struct floor_options *o);

#endif

/*
 * Where a stream goes that no page is there for yet: what a node does, at the least, that reads
 * memory of another one. Runs of pages are written to a file on /dev/shm that has none, and a
 * program (the same thread) reads every word of its mapping. With huge pages, each is made of
 * nothing just before its first run: the cheapest fresh memory that there is.
 */
#ifndef WVM_FLOOR_PLACE_H
#define WVM_FLOOR_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#define PLACE_RUN (32u * 4096u) /* bytes written at once, as roles/master/runs.h does */

struct place {
	int fd;
	bool huge;
	uint64_t bytes, done; /* of the stream; written and read */
	uint8_t *mapping;
	uint8_t *run;
	uint64_t sum; /* of what was read, so that it is */
};

/* Exits with a message where it cannot. */
void place_open(struct place *p, uint64_t bytes, bool huge);
/* Where the bytes from `at` of the stream go; room for one segment. */
uint8_t *place_for(struct place *p, uint64_t at);
/* All bytes below `have` are there. */
void place_have(struct place *p, uint64_t have);

#endif

/*
 * What the tests of faults and deaths share: masters that are stopped, accesses
 * that may fail, tmpfs that are small, and the list of deaths that were rehearsed.
 */
#ifndef WVM_CHECK_HARM_H
#define WVM_CHECK_HARM_H

#include "roles/check/program.h"

#define HARM_UNITS 64u /* of 2 MiB from offset 0: each node is home of some */

/* ---- the test's side -------------------------------------------------------------------- */

/* Stops a master and waits until it stands: the signal alone leaves it time to answer. */
void harm_freeze(const struct cluster *c, unsigned node);
/* Lets it go on. */
void harm_thaw(const struct cluster *c, unsigned node);
/* Waits until word[i] of the arena is at least value, or a program has failed. */
void harm_await(struct arena *a, unsigned word, uint64_t value);
/*
 * Of the first HARM_UNITS units those whose home is `home` (HARM_ANY: all) are
 * touched by a program on `node`, which is granted all of each and then gone:
 * everybody else has to ask for every page of them.
 */
#define HARM_ANY UINT32_MAX
void harm_touch_units(const struct cluster *c, struct arena *a, unsigned node, unsigned home);
/* Waits until the node's log has the text. */
void harm_await_log(const struct cluster *c, unsigned node, const char *text);

/* A UDP port as the kernel sees it, all sockets of it together. */
struct harm_port {
	uint64_t drops;  /* datagrams for which there was no room, since it was opened */
	uint64_t queued; /* bytes that were not received yet, with the kernel's overhead */
};
struct harm_port harm_data_port(const struct cluster *c, unsigned node);
/* All sockets at that port in the namespace of a process. */
struct harm_port harm_port_of(pid_t pid, unsigned port);
struct harm_port harm_control_port(const struct cluster *c, unsigned node); /* the operator's */
/* Where other nodes send gossip and ballots. */
struct harm_port harm_gossip_port(const struct cluster *c, unsigned node);

/*
 * A tmpfs of so many KiB that ends with this test, and node i's files in it (after
 * cluster_prepare()): mounted in a mount namespace of the test's own.
 */
void harm_small_tmpfs(struct cluster *c, unsigned i, unsigned kib);
/* Fills what is left of it but so many KiB; frees it again. */
void harm_fill(const struct cluster *c, unsigned i, unsigned kib_left);
void harm_empty(const struct cluster *c, unsigned i);

/* A death or fault was rehearsed to its end. Any process of the test program. */
void harm_rehearsed(const char *name);
/* cluster_main() with a line "proof: deaths rehearsed" at its end. */
int harm_main(char **argv, Suite *(*const make[])(void), unsigned count);

/* ---- in a program ------------------------------------------------------------------------ */

/* Unit number n of those whose home is `node`, as a gpa. */
uint64_t harm_gpa(struct program *p, unsigned node, unsigned n);
/* One more in word[i] of the arena. */
void harm_tell(struct program *p, unsigned word);

/* From now on harm_fails() and so on take SIGBUS. One thread of a program may use them. */
void harm_catch_bus(void);
/* Whether an access gets SIGBUS, at the right address. A store stores 1. */
bool harm_fails(struct program *p, uint64_t *at, bool write);
/* Whether it could be read, and its value; whether it could be stored. */
bool harm_load(struct program *p, uint64_t *at, uint64_t *value);
bool harm_store(struct program *p, uint64_t *at, uint64_t value);
/* A page that failed once fails until it is mapped anew: does so with a whole mapping. */
uint64_t *harm_remap(struct program *p, uint64_t *at, uint64_t gpa, size_t len);

#endif

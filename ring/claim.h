/*
 * Which processing units the daemons of this host have taken, so that those that
 * are started without a list of CPUs do not all run on the first one.
 *
 * The file is empty and stays; what counts are locks on its bytes, which the kernel
 * drops with the process, however it ends. Byte `round << 32 | pu`: round 0 is the
 * first daemon on that PU, round 1 the second one, and so on; so daemons beyond the
 * number of PUs go to those that have fewest. Whoever does not see the file (a
 * container with a /dev/shm of its own, or it was removed under running daemons)
 * does not see who runs.
 */
#ifndef WVM_RING_CLAIM_H
#define WVM_RING_CLAIM_H

#include <stdbool.h>

#include "ring/place.h"

#define WVM_CLAIM_FILE   "/dev/shm/wavevm.cpus"
#define WVM_CLAIM_ROUNDS 64u /* daemons that are counted on one PU */

/*
 * Claims the PUs of n shards (1 to WVM_PLACE_MAX) that wvm_place_compute() placed, in the
 * file. With `move`, which is for those that it chose itself, a shard whose PU another
 * process has goes to the one with the fewest processes, where there are several to
 * that of an idle core before a second hardware thread, then to that of the same NUMA node.
 * Where it is not the first process on its PU, it is marked crowded; those that were
 * there before are not told. Never two shards of one call on a PU that had one each.
 *
 * Returns a descriptor: the claims last until it is closed, in this process and
 * what it forks. Or -errno when the file cannot be used: then nothing is claimed, and all
 * stay where they are. At start, from one thread.
 */
int wvm_claim(struct wvm_place *p, unsigned n, bool move, const char *file);

#endif

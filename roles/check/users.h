/*
 * Programs that use all of a test cluster's memory at once, and know what must be there: each page
 * has one writer, which writes one generation after the other, and all read everybody's.
 */
#ifndef WVM_CHECK_USERS_H
#define WVM_CHECK_USERS_H

#include "roles/check/program.h"

#define USERS_MAX   6u
#define USERS_UNITS 256u /* of a VM of 512 MiB */
#define USERS_EACH  4u   /* pages used of a unit */
#define USERS_PAGES (USERS_UNITS * USERS_EACH)
/* Words of an arena's model: of each page the generation begun, and the one written. */
#define USERS_MODEL (2 * USERS_PAGES)

/* Words of the arena. */
enum { USERS_STOP, USERS_STEPS, USERS_SLOWEST_US, USERS_OWN };

/* Program i runs on nodes[i], until end_users(). Of one cluster at a time. */
struct arena *start_users(const struct cluster *c, const unsigned *nodes, unsigned count);
/* Until they have made so many more accesses, or one has failed. */
void await_steps(struct arena *a, unsigned long long more);
/* Each of them looks at all pages, and ends well. */
void end_users(struct arena *a);
/* One program there looks at all pages, when nobody writes; or writes them all. */
void look_from(const struct cluster *c, struct arena *a, unsigned node);
void fill_from(const struct cluster *c, struct arena *a, unsigned node);

#endif

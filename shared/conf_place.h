/* PLACE lines of a topology, for shared/conf.c alone. */
#ifndef WVM_CONF_PLACE_H
#define WVM_CONF_PLACE_H

#include "shared/conf.h"
#include "shared/conf_line.h"

/* The words of c, a PLACE line, as one more range; its member is still a phys_id. */
int conf_place_add(struct conf *c, struct wvm_topology *t);

/* When all lines are read: sorts the ranges and finds the node of each. */
int conf_place_check(struct conf *c, struct wvm_topology *t);

#endif

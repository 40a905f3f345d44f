/* PLACE and SPARE lines of a topology, for shared/conf.c alone. */
#ifndef WVM_CONF_PLACE_H
#define WVM_CONF_PLACE_H

#include "shared/conf.h"
#include "shared/conf_line.h"

/* The words of c, a PLACE line, as one more range; its member is still a phys_id. */
int conf_place_add(struct conf *c, struct wvm_topology *t);

/* SPARE lines, in the order of the file. list is malloc'ed, the caller's to free. */
struct conf_spares {
	struct conf_spare {
		uint32_t phys_id;
		uint32_t line;
	} * list;
	uint32_t count;
};

/* The words of c, a SPARE line, as one more. */
int conf_spare_add(struct conf *c, struct conf_spares *spares);

/* When all lines are read and nodes can be found: marks those that they name. */
int conf_spare_check(struct conf *c, struct wvm_topology *t, const struct conf_spares *spares);

/* And then: sorts the ranges and finds the node of each. */
int conf_place_check(struct conf *c, struct wvm_topology *t, const struct conf_spares *spares);

#endif

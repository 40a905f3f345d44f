/* drain NODE and join NODE: gives the order to a master, and waits until it is carried out. */
#ifndef WVM_CTL_LIFE_H
#define WVM_CTL_LIFE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "roles/ctl/ask.h"

/*
 * Orders, and asks until it is done, with a line on stdout for each change unless `quiet`. The
 * order stands when the caller is interrupted. 0, or -errno with one line in err. *answer, the
 * master's last one, is the caller's to decref, and NULL when there was none.
 */
int wvm_life(const struct wvm_ask *ask, bool join, uint32_t node, bool quiet, json_t **answer,
	     char *err, size_t err_len);

#endif

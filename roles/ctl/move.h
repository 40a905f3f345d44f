/* wvm_ctl vcpu move: gives the order, and waits until its owner says what became of it. */
#ifndef WVM_CTL_MOVE_H
#define WVM_CTL_MOVE_H

#include <jansson.h>
#include <stdbool.h>

#include "roles/ctl/ask.h"

/*
 * The processor of ask->vm_id to the node; ask->operand is set here. 0 with one line in said; or
 * -errno with one in err: whatever happened, nothing of the guest was executed twice or not at all.
 * *answer, the master's last one, is the caller's to decref, and NULL when there was none.
 */
int wvm_move(struct wvm_ask *ask, unsigned vcpu, uint32_t node, char *said, size_t said_len,
	     json_t **answer, char *err, size_t err_len);

#endif

/* Asking a master's control port (shared/control.h). */
#ifndef WVM_CTL_ASK_H
#define WVM_CTL_ASK_H

#include <stddef.h>
#include <stdint.h>

#include "shared/control.h"

struct wvm_ask {
	uint32_t ip; /* host order; 0: this host */
	uint16_t port;
	enum wvm_control_op op;
	uint16_t vm_id;
	uint64_t operand;
};

/*
 * Asks and collects all parts of the answer. *text is the caller's to free().
 * 0, or -errno with one line in err: -ETIMEDOUT when no master answers.
 */
int wvm_ask(const struct wvm_ask *ask, char **text, char *err, size_t err_len);

#endif

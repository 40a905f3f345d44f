/* Asking a master's control port (shared/control.h). */
#ifndef WVM_CTL_ASK_H
#define WVM_CTL_ASK_H

#include <jansson.h>
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

/* One part of an answer. */
struct wvm_ask_part {
	uint32_t snapshot;      /* that later parts are asked of */
	uint16_t status, parts; /* enum wvm_control_status; of the whole answer */
	size_t len;
	uint8_t text[WVM_CONTROL_PART]; /* does not end in a zero byte */
};

/* For who asks many at once: the request for a part. snapshot: 0 for part 0. */
void wvm_ask_encode(uint8_t out[WVM_CONTROL_REQUEST_BYTES], const struct wvm_ask *ask,
		    uint16_t part, uint32_t snapshot);
/* 0, or -EPROTO when the datagram is no answer to that request. */
int wvm_ask_decode(const uint8_t *data, size_t len, const struct wvm_ask *ask, uint16_t part,
		   struct wvm_ask_part *a);

/* The same, read: *answer (NULL, or the one before, which is given up) is the caller's to decref.
 */
int wvm_ask_json(const struct wvm_ask *ask, json_t **answer, char *err, size_t err_len);

#endif

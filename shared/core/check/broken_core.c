#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef enum wvm_drop message_fn(struct wvm_core *core, uint64_t now_ns, const struct wvm_msg *msg,
				 const uint8_t *payload);
message_fn good_core_message;

#define wvm_core_message good_core_message
#include "shared/core/core.c"
#undef wvm_core_message

/* As if the message had come before the change of epoch: it is served as ever. */
static enum wvm_drop serve_as_before(struct wvm_core *core, uint64_t now_ns,
				     const struct wvm_msg *msg, const uint8_t *payload)
{
	struct wvm_core_params *p = &core->params, now = *p;
	enum wvm_drop drop;

	p->slices = now.before;
	p->before = NULL;
	p->epoch = msg->epoch;
	drop = good_core_message(core, now_ns, msg, payload);
	p->slices = now.slices;
	p->before = now.before;
	p->epoch = now.epoch;
	return drop;
}

enum wvm_drop wvm_core_message(struct wvm_core *core, uint64_t now_ns, const struct wvm_msg *msg,
			       const uint8_t *payload)
{
	if (core->params.before && msg->epoch + 1 == core->params.epoch &&
	    (msg->type == WVM_MSG_MEM_READ || msg->type == WVM_MSG_MEM_ACQUIRE) &&
	    broken_now(BROKEN_HANDOVER_SERVES))
		return serve_as_before(core, now_ns, msg, payload);
	return good_core_message(core, now_ns, msg, payload);
}

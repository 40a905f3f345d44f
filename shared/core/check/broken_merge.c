#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef enum wvm_drop request_fn(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg);
typedef enum wvm_evict evict_fn(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page);
request_fn good_merge_request;
evict_fn good_core_evict;

#define wvm_merge_request good_merge_request
#define wvm_core_evict    good_core_evict
#include "shared/core/evict.c"
#include "shared/core/merge.c"
#undef wvm_merge_request
#undef wvm_core_evict

/* What the home has asked of the unit's owner, as if it had not. */
static void forget_asking(struct wvm_core *core, uint32_t vm, uint64_t first)
{
	for (uint64_t page = first; page < first + pages_of(core, vm, first); page++) {
		struct wvm_home_page *e = wvm_home_of(core, vm, page);

		e->flags &= (uint8_t)~WVM_HOME_ASKED;
		e->txn = 0;
	}
}

enum wvm_drop wvm_merge_request(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg)
{
	struct wvm_msg m = *msg;

	if (broken_now(BROKEN_MERGE_ASKED))
		forget_asking(core, vm, page);
	if (broken_now(BROKEN_MERGE_BLIND))
		m.version = wvm_home_unit_of(core, vm, page)->version;
	return good_merge_request(core, vm, page, member, &m);
}

enum wvm_evict wvm_core_evict(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page)
{
	struct wvm_held_unit *u = wvm_held_unit_of(core, vm, page);
	uint64_t merging = u->merging;
	enum wvm_evict done;

	if (broken_now(BROKEN_MERGE_EVICT))
		u->merging = 0;
	done = good_core_evict(core, now_ns, vm, page);
	u->merging = merging;
	return done;
}

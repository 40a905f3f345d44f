#include "shared/core/core_int.h"

#include "shared/core/check/broken.h"

typedef bool written_fn(struct wvm_core *core, uint32_t vm, uint64_t page,
			const struct wvm_written *w);
typedef enum wvm_drop message_fn(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg, const uint8_t *data);
typedef void walk_fn(struct wvm_core *core);
written_fn good_backup_written;
message_fn good_backup_message;
walk_fn good_backup_walk;

#define wvm_backup_written good_backup_written
#define wvm_backup_message good_backup_message
#define wvm_backup_walk    good_backup_walk
#include "shared/core/backup.c"
#undef wvm_backup_written
#undef wvm_backup_message
#undef wvm_backup_walk

bool wvm_backup_written(struct wvm_core *core, uint32_t vm, uint64_t page,
			const struct wvm_written *w)
{
	return good_backup_written(core, vm, page, w) && !broken_now(BROKEN_BACKUP_EARLY);
}

enum wvm_drop wvm_backup_message(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	/* As if what it has were older. */
	if (msg->type == WVM_MSG_BACKUP && !(msg->flags & WVM_MSG_ANSWER) &&
	    wvm_backup_counts(core, vm, page) && e->version > msg->version &&
	    (data || msg->flags & WVM_MSG_ZERO) && broken_now(BROKEN_BACKUP_LOWER))
		e->version = msg->version - 1;
	return good_backup_message(core, vm, page, member, msg, data);
}

void wvm_backup_walk(struct wvm_core *core)
{
	struct wvm_backup *b = core->backup;

	if (b->looked && !b->marking && broken_now(BROKEN_BACKUP_SKIPS))
		b->marking = true;
	good_backup_walk(core);
}

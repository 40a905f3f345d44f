/* Backups, at the second home: see backup.h. */
#include "shared/core/backup_int.h"

/*
 * While the bytes are replaced the entry calls them lost. Who is killed then gets them again:
 * nobody was told that they are here.
 */
static void keep_bytes(struct wvm_core *core, uint32_t vm, uint64_t page, const uint8_t *data)
{
	struct wvm_home_page *e = wvm_home_of(core, vm, page);

	if (e->version) {
		e->flags |= WVM_HOME_LOST;
		wvm_undo_commit(core);
	}
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__builtin_memcpy(core->vms[vm].store + (page << WVM_PAGE_SHIFT), data, WVM_PAGE_BYTES);
}

static void take(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t home,
		 const struct wvm_msg *msg, const uint8_t *data)
{
	struct wvm_home_unit *u = wvm_home_unit_of(core, vm, page);
	struct wvm_home_page *e = wvm_home_of(core, vm, page);
	uint32_t era = wvm_backup_pair(core, vm, page)->era;

	if (u->era != era) {
		wvm_backup_clear_unit(core, vm, page);
		wvm_undo_note(core, WVM_UNDO_UNIT, vm, wvm_unit_index(page));
		u->era = era;
	}
	if (data)
		keep_bytes(core, vm, page, data);
	wvm_note_home(core, vm, page);
	e->version = e->version < msg->version ? msg->version : e->version;
	e->flags = WVM_HOME_BACKUP;
	if (data)
		e->flags |= WVM_HOME_WRITTEN;
	if (msg->flags & WVM_MSG_ERROR)
		e->flags |= WVM_HOME_LOST;
	/* Should it lose its files it must not serve zeros, while this has what it had (join.h). */
	core->taken[home]++;
	core->stats.backup_taken++;
}

/* Whether the copy that is offered is none that is here already. */
static bool is_news(const struct wvm_core *core, uint32_t vm, uint64_t page,
		    const struct wvm_msg *msg)
{
	const struct wvm_home_page *e = &core->vms[vm].home[page];

	if (!wvm_backup_counts(core, vm, page))
		return true;
	if (msg->flags & WVM_MSG_ERROR)
		return !(e->flags & WVM_HOME_LOST) || e->version < msg->version;
	return e->version < msg->version;
}

bool wvm_backup_wants(const struct wvm_core *core, uint32_t vm, uint64_t page,
		      const struct wvm_msg *msg)
{
	return wvm_backup_member(core, vm, page) == core->params.self &&
	       is_news(core, vm, page, msg);
}

static struct wvm_action *answer(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg, uint8_t flags)
{
	struct wvm_action *a = wvm_core_send(core, msg->type, vm, page, member, msg->src);

	a->msg.request = msg->request;
	a->msg.version = msg->version;
	a->msg.grant = core->params.boot_first;
	a->msg.flags = WVM_MSG_ANSWER | flags;
	a->msg.steer = msg->reply_steer;
	a->msg.reply_steer = msg->steer;
	return a;
}

/* The home says that all of the slice is here. */
static enum wvm_drop to_complete(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				 const struct wvm_msg *msg)
{
	struct wvm_second *s = &core->seconds->slice[wvm_backup_slice(core, vm, page)];
	struct wvm_action *a;
	bool same;

	(void)wvm_renewed_learn(core, msg->grant >> WVM_BACKUP_LIFE_BITS);
	same = (uint16_t)msg->grant == core->params.boot_first && msg->version == core->renewed_sum;
	if (same)
		__atomic_store_n(&s->complete, s->era, __ATOMIC_RELEASE);
	a = answer(core, vm, page, member, msg, same ? 0 : WVM_MSG_ERROR);
	a->msg.version = core->renewed_sum;
	a->msg.grant |= wvm_renewed_item(core) << WVM_BACKUP_LIFE_BITS;
	return WVM_DROP_NONE;
}

enum wvm_drop wvm_backup_to_second(struct wvm_core *core, uint32_t vm, uint64_t page,
				   uint32_t member, const struct wvm_msg *msg, const uint8_t *data)
{
	uint16_t slice = wvm_backup_slice(core, vm, page);

	if (wvm_backup_member(core, vm, page) != core->params.self ||
	    wvm_core_home_of(core, vm, page, NULL) != member || !wvm_backup_is_own(core, slice))
		return WVM_DROP_NODE;
	if (msg->type == WVM_MSG_BACKUP_DONE)
		return to_complete(core, vm, page, member, msg);
	/* What it had as the former home is not for others to change, and its new one knows. */
	if (core->params.before && wvm_moved_out(core, vm, page) &&
	    wvm_moved_phase_of(core, vm, page) < WVM_MOVED_GIVEN)
		return WVM_DROP_ROOM;
	if (!msg->version)
		return WVM_DROP_SEGMENT; /* no home says so */
	if (is_news(core, vm, page, msg)) {
		if (!data && !(msg->flags & (WVM_MSG_ZERO | WVM_MSG_ERROR)))
			return WVM_DROP_SEGMENT;
		take(core, vm, page, member, msg, data);
	}
	answer(core, vm, page, member, msg, 0);
	return WVM_DROP_NONE;
}

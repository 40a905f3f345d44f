/*
 * Who holds a page: three records in the entry, further ones in blocks from a
 * pool. Records have no order; a removed one is replaced by the last. The
 * caller has noted the entry for undoing; blocks are noted here, those that
 * were free need not be.
 */
#include "shared/core/core_int.h"

struct wvm_holder wvm_holders_at(struct wvm_core *core, struct wvm_home_page *e, uint32_t index)
{
	struct wvm_holder_block *b;

	WVM_ASSERT(index < e->holders);
	if (index < WVM_HOLDERS_INLINE)
		return (struct wvm_holder){&e->grant[index], &e->member[index]};
	index -= WVM_HOLDERS_INLINE;
	b = &core->blocks[e->more - 1];
	for (; index >= WVM_BLOCK_HOLDERS; index -= WVM_BLOCK_HOLDERS)
		b = &core->blocks[b->next - 1];
	return (struct wvm_holder){&b->grant[index], &b->member[index]};
}

uint32_t wvm_holders_find(struct wvm_core *core, struct wvm_home_page *e, uint32_t member)
{
	uint32_t left = e->holders, index = 0, more = e->more;

	for (uint32_t i = 0; i < WVM_HOLDERS_INLINE && left; i++, index++, left--)
		if (e->member[i] == member)
			return index;
	while (left) {
		const struct wvm_holder_block *b = &core->blocks[more - 1];

		for (uint32_t i = 0; i < WVM_BLOCK_HOLDERS && left; i++, index++, left--)
			if (b->member[i] == member)
				return index;
		more = b->next;
	}
	return WVM_NIL;
}

/* Whether the next record beyond `holders` begins a new block. */
static bool at_block_start(uint32_t holders)
{
	return holders >= WVM_HOLDERS_INLINE &&
	       (holders - WVM_HOLDERS_INLINE) % WVM_BLOCK_HOLDERS == 0;
}

/* The link that holds, or is to hold, the last block. */
static uint32_t *last_link(struct wvm_core *core, struct wvm_home_page *e, bool existing)
{
	uint32_t *link = &e->more;

	while (*link && !(existing && !core->blocks[*link - 1].next))
		link = &core->blocks[*link - 1].next;
	return link;
}

static void note_block(struct wvm_core *core, uint32_t slot)
{
	if (slot)
		wvm_undo_note(core, WVM_UNDO_BLOCK, 0, slot - 1);
}

/* The block of record `index`, slot + 1; 0: it is in the entry. */
static uint32_t block_of(const struct wvm_core *core, const struct wvm_home_page *e, uint32_t index)
{
	uint32_t slot = e->more;

	if (index < WVM_HOLDERS_INLINE)
		return 0;
	for (index -= WVM_HOLDERS_INLINE; index >= WVM_BLOCK_HOLDERS; index -= WVM_BLOCK_HOLDERS)
		slot = core->blocks[slot - 1].next;
	return slot;
}

void wvm_holders_set(struct wvm_core *core, struct wvm_home_page *e, uint32_t index, uint64_t grant)
{
	note_block(core, block_of(core, e, index));
	*wvm_holders_at(core, e, index).grant = grant;
}

bool wvm_holders_add(struct wvm_core *core, struct wvm_home_page *e, uint32_t member,
		     uint64_t grant)
{
	struct wvm_holder h;

	if (e->holders == UINT16_MAX)
		return false;
	if (e->holders)
		note_block(core, block_of(core, e, e->holders - 1u));
	if (at_block_start(e->holders)) {
		uint32_t slot = core->free_block;

		if (!slot)
			return false;
		core->free_block = core->blocks[slot - 1].next;
		core->blocks[slot - 1].next = 0;
		*last_link(core, e, false) = slot;
	}
	e->holders++;
	h = wvm_holders_at(core, e, e->holders - 1u);
	*h.grant = grant;
	*h.member = member;
	return true;
}

void wvm_holders_remove(struct wvm_core *core, struct wvm_home_page *e, uint32_t index)
{
	struct wvm_holder gone = wvm_holders_at(core, e, index);
	struct wvm_holder last = wvm_holders_at(core, e, e->holders - 1u);

	note_block(core, block_of(core, e, index));
	note_block(core, block_of(core, e, e->holders - 1u));
	*gone.grant = *last.grant;
	*gone.member = *last.member;
	e->holders--;
	if (at_block_start(e->holders)) {
		uint32_t *link = last_link(core, e, true), slot = *link;

		if (e->holders > WVM_HOLDERS_INLINE)
			note_block(core, block_of(core, e, e->holders - 1u));
		*link = 0;
		core->blocks[slot - 1].next = core->free_block;
		core->free_block = slot;
	}
}

/* The chain goes to the free list as it is: one block is changed, however long it is. */
void wvm_holders_clear(struct wvm_core *core, struct wvm_home_page *e)
{
	uint32_t last = e->more;

	while (last && core->blocks[last - 1].next)
		last = core->blocks[last - 1].next;
	if (last) {
		note_block(core, last);
		core->blocks[last - 1].next = core->free_block;
		core->free_block = e->more;
	}
	e->more = 0;
	e->holders = 0;
}

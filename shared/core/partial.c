#include "shared/core/partial.h"

#include "shared/core/assert.h"

_Static_assert(WVM_PAGE_BYTES / WVM_SEGMENT_UNIT == 64, "one bit of `missing` per unit");

void wvm_partials_init(struct wvm_partials *p, struct wvm_partial *slots, uint8_t *pages,
		       uint32_t *buckets, uint32_t count)
{
	WVM_ASSERT(count && !(count & (count - 1)));
	__builtin_memset(p, 0, sizeof(*p));
	p->slots = slots;
	p->pages = pages;
	p->buckets = buckets;
	p->count = count;
	for (uint32_t i = 0; i < count; i++) {
		slots[i].missing = 0;
		slots[i].chain = i + 1 < count ? i + 2 : 0;
		buckets[i] = 0;
	}
	p->free = 1;
}

static uint32_t *bucket_of(struct wvm_partials *p, uint64_t request, uint32_t src)
{
	uint64_t h = (request ^ (uint64_t)src << 32) * UINT64_C(0x9e3779b97f4a7c15);

	return &p->buckets[(h >> 40) & (p->count - 1)];
}

static bool same(const struct wvm_partial *s, const struct wvm_msg *msg)
{
	return s->request == msg->request && s->version == msg->version && s->src == msg->src &&
	       s->grant == msg->grant && s->gpa == msg->gpa && s->vm_id == msg->vm_id &&
	       s->type == msg->type;
}

static void unlink_age(struct wvm_partials *p, struct wvm_partial *s)
{
	*(s->newer ? &p->slots[s->newer - 1].older : &p->newest) = s->older;
	*(s->older ? &p->slots[s->older - 1].newer : &p->oldest) = s->newer;
}

static void release(struct wvm_partials *p, uint32_t index)
{
	struct wvm_partial *s = &p->slots[index - 1];
	uint32_t *link = bucket_of(p, s->request, s->src);

	while (*link != index) {
		WVM_ASSERT(*link);
		link = &p->slots[*link - 1].chain;
	}
	*link = s->chain;
	unlink_age(p, s);
	s->missing = 0;
	s->chain = p->free;
	p->free = index;
}

static uint32_t take(struct wvm_partials *p, const struct wvm_msg *msg)
{
	struct wvm_partial *s;
	uint32_t *bucket, index;

	if (!p->free) {
		p->evicted++;
		release(p, p->oldest);
	}
	index = p->free;
	s = &p->slots[index - 1];
	p->free = s->chain;
	*s = (struct wvm_partial){.request = msg->request,
				  .grant = msg->grant,
				  .version = msg->version,
				  .gpa = msg->gpa,
				  .missing = UINT64_MAX,
				  .src = msg->src,
				  .vm_id = msg->vm_id,
				  .type = msg->type};
	bucket = bucket_of(p, s->request, s->src);
	s->chain = *bucket;
	*bucket = index;
	s->older = p->newest;
	*(p->newest ? &p->slots[p->newest - 1].newer : &p->oldest) = index;
	p->newest = index;
	return index;
}

/* Bits of the units [offset, offset + len) in bytes. */
static uint64_t units(uint32_t offset, uint32_t len)
{
	uint32_t first = offset / WVM_SEGMENT_UNIT, n = len / WVM_SEGMENT_UNIT;

	return n >= 64 ? UINT64_MAX : ((UINT64_C(1) << n) - 1) << first;
}

const uint8_t *wvm_partials_add(struct wvm_partials *p, const struct wvm_msg *msg,
				const uint8_t *payload)
{
	uint32_t index = *bucket_of(p, msg->request, msg->src);
	struct wvm_partial *s;
	uint8_t *page;

	WVM_ASSERT(msg->seg_offset + msg->payload_len <= WVM_PAGE_BYTES);
	while (index && !same(&p->slots[index - 1], msg))
		index = p->slots[index - 1].chain;
	if (!index)
		index = take(p, msg);
	s = &p->slots[index - 1];
	page = p->pages + (size_t)(index - 1) * WVM_PAGE_BYTES;
	__builtin_memcpy(page + msg->seg_offset, payload, msg->payload_len);
	s->missing &= ~units(msg->seg_offset, msg->payload_len);
	if (s->missing)
		return NULL;
	/* The bytes outlive the slot until it is taken again: the next call at the earliest. */
	release(p, index);
	return page;
}

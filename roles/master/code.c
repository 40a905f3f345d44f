#include "roles/master/code.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "shared/code_area.h"

struct wvm_code {
	struct wvm_code_area *area;
	struct wvm_code_layout at;
	pthread_mutex_t lock; /* of the ring: shards that append at once */
	uint64_t head;        /* the area's is a copy */
};

/* Sparse as the client made it: what it says of pages that nobody looks at takes no memory. */
static bool area_ok(int fd, uint64_t bytes)
{
	struct statfs fs;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && seals & F_SEAL_SHRINK && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
	       (uint64_t)st.st_size == bytes && !fstatfs(fd, &fs) &&
	       (unsigned long)fs.f_type == TMPFS_MAGIC;
}

int wvm_area_map(struct wvm_code **out, int fd, const struct wvm_ring_header *h)
{
	struct wvm_code *c = calloc(1, sizeof(*c));
	void *at;

	if (!c)
		return -ENOMEM;
	wvm_code_place(h, &c->at);
	if (!area_ok(fd, c->at.bytes)) {
		free(c);
		return -EPROTO;
	}
	at = mmap(NULL, c->at.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (at == MAP_FAILED) {
		free(c);
		return errno == ENOMEM ? -ENOMEM : -EPROTO; /* ours, or the client's doing */
	}
	c->area = at;
	/* Where a client that comes back has left off; if it lies it is told too much or too
	   little, and it alone. */
	c->head = __atomic_load_n(&c->area->head, __ATOMIC_ACQUIRE);
	pthread_mutex_init(&c->lock, NULL);
	*out = c;
	return 0;
}

void wvm_area_unmap(struct wvm_code *c)
{
	if (!c)
		return;
	munmap(c->area, c->at.bytes);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

void wvm_area_others(struct wvm_code *c, bool others)
{
	__atomic_store_n(&c->area->others, others, __ATOMIC_SEQ_CST);
}

static uint64_t *word_of(const struct wvm_code *c, const uint64_t *offsets, unsigned vm,
			 uint64_t page)
{
	return (uint64_t *)((uint8_t *)c->area + offsets[vm]) + page / 64;
}

/* Those of the pages that are in the same word as `first`; their number in *n. */
static uint64_t mask_of(uint64_t first, uint64_t count, uint64_t *n)
{
	uint64_t at = first % 64, mask;

	*n = 64 - at < count ? 64 - at : count;
	mask = *n == 64 ? UINT64_MAX : (UINT64_C(1) << *n) - 1;
	return mask << at;
}

bool wvm_area_marked(const struct wvm_code *c, unsigned vm, uint64_t first, uint64_t count)
{
	uint64_t n;

	for (; count; first += n, count -= n) {
		const uint64_t *marked = word_of(c, c->at.marked, vm, first);

		if (mask_of(first, count, &n) & __atomic_load_n(marked, __ATOMIC_SEQ_CST))
			return true;
	}
	return false;
}

/* The lock is held. The serial says to whoever reads at the same time that it may be torn. */
static void append(struct wvm_code *c, unsigned vm, uint64_t page)
{
	struct wvm_code_entry *e = &c->area->ring[c->head % WVM_CODE_RING];

	__atomic_store_n(&e->serial, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&e->what, (uint64_t)vm << WVM_CODE_VM_SHIFT | page, __ATOMIC_RELAXED);
	__atomic_store_n(&e->serial, c->head + 1, __ATOMIC_RELEASE);
	__atomic_store_n(&c->head, c->head + 1, __ATOMIC_RELAXED);
}

/* `closed` first: a page that is closed and not marked would be taken for both. */
static uint64_t unmark(struct wvm_code *c, unsigned vm, uint64_t first, uint64_t mask)
{
	__atomic_fetch_and(word_of(c, c->at.closed, vm, first), ~mask, __ATOMIC_SEQ_CST);
	return mask &
	       __atomic_fetch_and(word_of(c, c->at.marked, vm, first), ~mask, __ATOMIC_SEQ_CST);
}

uint64_t wvm_area_raise(struct wvm_code *c, unsigned vm, uint64_t first, uint64_t count,
			uint64_t *target)
{
	uint64_t raised = 0, n;

	if (!wvm_area_marked(c, vm, first, count))
		return 0;
	pthread_mutex_lock(&c->lock);
	for (; count; first += n, count -= n) {
		uint64_t left = unmark(c, vm, first, mask_of(first, count, &n));

		for (; left; left &= left - 1, raised++)
			append(c, vm, first - first % 64 + (uint64_t)__builtin_ctzll(left));
	}
	__atomic_store_n(&c->area->head, c->head, __ATOMIC_RELEASE);
	*target = c->head;
	pthread_mutex_unlock(&c->lock);
	return raised;
}

bool wvm_area_told(const struct wvm_code *c, uint64_t target)
{
	return (int64_t)(__atomic_load_n(&c->area->told, __ATOMIC_SEQ_CST) - target) >= 0;
}

bool wvm_area_told_all(const struct wvm_code *c)
{
	return wvm_area_told(c, __atomic_load_n(&c->head, __ATOMIC_RELAXED));
}

void wvm_area_close(struct wvm_code *c, unsigned vm, uint64_t page)
{
	uint64_t bit = UINT64_C(1) << page % 64;

	__atomic_fetch_or(word_of(c, c->at.marked, vm, page), bit, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(word_of(c, c->at.closed, vm, page), bit, __ATOMIC_SEQ_CST);
}

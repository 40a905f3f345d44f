#include "roles/master/mem.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ring/calls.h"
#include "roles/master/mem_priv.h"

/* linux/userfaultfd.h before 6.6 */
struct poison_args {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#define POISON_IOCTL _IOWR(UFFDIO, 0x08, struct poison_args)

/* Tries while the client's address space is being changed; each is a system call of its own. */
#define EAGAIN_TRIES 64u
/* Tries to get a page out of the file. Only a store through another door could need a second. */
#define PUNCH_TRIES  16u

static const uint8_t zero_page[WVM_PAGE_SIZE] __attribute__((aligned(WVM_PAGE_SIZE)));

#define for_each_client(c, mask)                                                            \
	for (uint64_t left_ = (mask); left_ && ((c) = (unsigned)__builtin_ctzll(left_), 1); \
	     left_ &= left_ - 1)

#define COUNT_MANY(sh, field, n) \
	__atomic_store_n(&(sh)->counters.field, (sh)->counters.field + (n), __ATOMIC_RELAXED)
#define COUNT(sh, field) COUNT_MANY(sh, field, 1)

/* --- the table of one shard -------------------------------------------- */

int wvm_memory_new(struct wvm_memory **out, unsigned shards, const struct wvm_mem_ops *ops,
		   void *ctx)
{
	struct wvm_memory *node;

	if (!shards || shards > WVM_RING_SHARDS_MAX)
		return -EINVAL;
	node = aligned_alloc(64, sizeof(*node) + shards * sizeof(node->shard[0]));
	if (!node)
		return -ENOMEM;
	memset(node, 0, sizeof(*node) + shards * sizeof(node->shard[0]));
	node->shards = shards;
	node->ops = ops;
	node->ctx = ctx;
	for (unsigned k = 0; k < shards; k++)
		node->shard[k].index = k;
	*out = node;
	return 0;
}

void wvm_memory_free(struct wvm_memory *node)
{
	if (!node)
		return;
	for (unsigned i = 0; i < node->vms; i++)
		wvm_mem_close(&node->vm[i]);
	free(node);
}

unsigned wvm_memory_shards(const struct wvm_memory *node)
{
	return node->shards;
}

void wvm_memory_counters(const struct wvm_memory *node, unsigned shard,
			 struct wvm_mem_counters *out)
{
	const uint64_t *from = (const uint64_t *)&node->shard[shard].counters;
	uint64_t *to = (uint64_t *)out;

	for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

struct wvm_mem *wvm_memory_vm(struct wvm_memory *node, uint16_t vm_id)
{
	for (unsigned i = 0; i < node->vms; i++)
		if (node->vm[i].vm_id == vm_id)
			return &node->vm[i];
	return NULL;
}

struct wvm_mem *wvm_memory_vm_at(struct wvm_memory *node, unsigned index)
{
	return index < node->vms ? &node->vm[index] : NULL;
}

uint16_t wvm_mem_vm_id(const struct wvm_mem *vm)
{
	return vm->vm_id;
}

uint64_t wvm_mem_size(const struct wvm_mem *vm)
{
	return vm->size;
}

const char *wvm_mem_path(const struct wvm_mem *vm)
{
	return vm->path;
}

unsigned wvm_mem_shard(const struct wvm_mem *vm, uint64_t page)
{
	return wvm_ring_shard(page * WVM_PAGE_SIZE, vm->node->shards);
}

int wvm_mem_client_add(struct wvm_memory *node, unsigned shard, unsigned client, int uffd)
{
	struct mem_shard *sh = &node->shard[shard];

	if (shard >= node->shards || client >= WVM_CLIENTS_MAX || uffd < 0)
		return -EINVAL;
	if (sh->known & 1ull << client)
		return -EEXIST;
	sh->client[client] = (struct mem_client){.uffd = uffd};
	sh->known |= 1ull << client;
	return 0;
}

static void recount_mappers(struct mem_shard *sh, unsigned client)
{
	const struct mem_client *cl = &sh->client[client];

	for (unsigned v = 0; v < WVM_RING_VMS_MAX; v++)
		sh->mappers[v] &= ~(1ull << client);
	for (unsigned i = 0; i < cl->maps; i++)
		sh->mappers[cl->map[i].vm_index] |= 1ull << client;
}

void wvm_mem_client_del(struct wvm_memory *node, unsigned shard, unsigned client)
{
	struct mem_shard *sh = &node->shard[shard];

	assert(shard < node->shards && client < WVM_CLIENTS_MAX);
	sh->known &= ~(1ull << client);
	sh->client[client] = (struct mem_client){.uffd = -1};
	recount_mappers(sh, client);
}

static void wake_range(struct mem_shard *sh, unsigned client, uint64_t addr, uint64_t len)
{
	struct uffdio_range range = {.start = addr, .len = len};

	COUNT(sh, ioctls);
	wvm_count_call(WVM_CALL_uffd_wake);
	(void)ioctl(sh->client[client].uffd, UFFDIO_WAKE, &range); /* nobody waits: also fine */
}

static bool overlap(uint64_t a, uint64_t b, uint64_t a_len, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

int wvm_mem_map_add(struct wvm_memory *node, unsigned shard, unsigned client,
		    const struct wvm_mem_map *map)
{
	struct mem_shard *sh = &node->shard[shard];
	struct mem_client *cl = &sh->client[client];
	struct wvm_mem *vm = wvm_memory_vm(node, map->vm_id);
	uint64_t mask = WVM_PAGE_SIZE - 1;

	if (!(sh->known & 1ull << client))
		return -ENOENT;
	if (!vm)
		return -ENXIO;
	if (!map->len || !map->base || (map->gpa | map->len | map->base) & mask ||
	    map->base + map->len < map->base || map->mode & ~WVM_ERROR_PARK)
		return -EINVAL;
	if (map->gpa > vm->size || map->len > vm->size - map->gpa)
		return -ERANGE;
	for (unsigned i = 0; i < cl->maps; i++) {
		const struct wvm_mem_map *m = &cl->map[i];

		if (overlap(m->base, map->base, m->len, map->len) ||
		    (m->vm_id == map->vm_id && overlap(m->gpa, map->gpa, m->len, map->len)))
			return -EEXIST;
	}
	if (cl->maps == WVM_MEM_MAPS_MAX)
		return -ENOSPC;
	cl->map[cl->maps] = *map;
	cl->map[cl->maps++].vm_index = (uint16_t)(vm - node->vm);
	recount_mappers(sh, client);
	wake_range(sh, client, map->base, map->len);
	return 0;
}

int wvm_mem_map_del(struct wvm_memory *node, unsigned shard, unsigned client, uint16_t vm_id,
		    uint64_t gpa, uint64_t len)
{
	struct mem_shard *sh = &node->shard[shard];
	struct mem_client *cl = &sh->client[client];

	for (unsigned i = 0; i < cl->maps; i++) {
		struct wvm_mem_map m = cl->map[i];

		if (m.vm_id != vm_id || m.gpa != gpa || m.len != len)
			continue;
		cl->map[i] = cl->map[--cl->maps];
		recount_mappers(sh, client);
		wake_range(sh, client, m.base, m.len);
		return 0;
	}
	return -ENOENT;
}

int wvm_mem_find(struct wvm_memory *node, unsigned shard, unsigned client, uint64_t addr,
		 struct wvm_mem **vm, uint64_t *page)
{
	const struct mem_client *cl = &node->shard[shard].client[client];

	for (unsigned i = 0; i < cl->maps; i++) {
		const struct wvm_mem_map *m = &cl->map[i];

		if (addr < m->base || addr - m->base >= m->len)
			continue;
		*vm = &node->vm[m->vm_index];
		*page = (m->gpa + (addr - m->base)) / WVM_PAGE_SIZE;
		return 0;
	}
	return -ENOENT;
}

static const struct wvm_mem_map *map_of(const struct mem_shard *sh, unsigned client,
					const struct wvm_mem *vm, uint64_t gpa)
{
	const struct mem_client *cl = &sh->client[client];

	for (unsigned i = 0; i < cl->maps; i++) {
		const struct wvm_mem_map *m = &cl->map[i];

		if (&vm->node->vm[m->vm_index] == vm && gpa >= m->gpa && gpa - m->gpa < m->len)
			return m;
	}
	return NULL;
}

/* --- one ioctl on one mm ------------------------------------------------ */

/* A page of one client: what the ioctls are about. */
struct spot {
	struct mem_shard *sh;
	struct wvm_memory *node;
	const struct wvm_mem_map *map;
	unsigned client;
	int uffd;
	uint64_t addr;
};

/* False when the client does not map the page here. */
static bool spot_at(struct spot *s, struct wvm_mem *vm, uint64_t page, unsigned client)
{
	struct mem_shard *sh = &vm->node->shard[wvm_mem_shard(vm, page)];
	uint64_t gpa = page * WVM_PAGE_SIZE;
	const struct wvm_mem_map *map = map_of(sh, client, vm, gpa);

	if (!map)
		return false;
	*s = (struct spot){.sh = sh,
			   .node = vm->node,
			   .map = map,
			   .client = client,
			   .uffd = sh->client[client].uffd,
			   .addr = map->base + (gpa - map->gpa)};
	return true;
}

/* The mm is gone: nothing can store through it any more. Its shard forgets it. */
static void spot_dying(const struct spot *s)
{
	COUNT(s->sh, dying);
	wvm_mem_client_del(s->node, s->sh->index, s->client);
	if (s->node->ops && s->node->ops->dying)
		s->node->ops->dying(s->node->ctx, s->sh->index, s->client);
}

/*
 * 0; -ENOENT: this mm is of no concern here (not mapped, or gone); anything
 * else: it is, and the ioctl failed. EEXIST comes back to the caller.
 */
static int spot_ioctl(const struct spot *s, unsigned long request, void *args)
{
	unsigned tries = 0;

	do {
		COUNT(s->sh, ioctls);
		wvm_count_call(wvm_call_of_uffd(request));
		if (!ioctl(s->uffd, request, args))
			return 0;
	} while ((errno == EAGAIN || errno == EINTR) && ++tries < EAGAIN_TRIES);
	switch (errno) {
	case ESRCH: spot_dying(s); return -ENOENT;
	case ENOENT: COUNT(s->sh, skipped); return -ENOENT;
	case EAGAIN:
	case EINTR: return -EBUSY;
	default: return -errno;
	}
}

static int spot_protect_range(const struct spot *s, uint64_t len, uint64_t mode)
{
	struct uffdio_writeprotect args = {.range = {.start = s->addr, .len = len}, .mode = mode};

	return spot_ioctl(s, UFFDIO_WRITEPROTECT, &args);
}

static int spot_protect(const struct spot *s, uint64_t mode)
{
	return spot_protect_range(s, WVM_PAGE_SIZE, mode);
}

static int spot_copy(const struct spot *s, const void *data, bool writable)
{
	struct uffdio_copy args = {.dst = s->addr,
				   .src = (uint64_t)(uintptr_t)data,
				   .len = WVM_PAGE_SIZE,
				   .mode = writable ? 0 : UFFDIO_COPY_MODE_WP};

	return spot_ioctl(s, UFFDIO_COPY, &args);
}

static int spot_poison(const struct spot *s)
{
	struct poison_args args = {.range = {.start = s->addr, .len = WVM_PAGE_SIZE}};
	int ret;

	/* POISON refuses any page table entry, also our own marker. The page is not in the
	   file, so whoever comes in between faults again. */
	ret = spot_protect(s, UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
	return ret ? ret : spot_ioctl(s, POISON_IOCTL, &args);
}

/* --- pages ---------------------------------------------------------------- */

static struct mem_shard *owner(struct wvm_mem *vm, uint64_t page)
{
	assert(page < vm->size / WVM_PAGE_SIZE);
	return &vm->node->shard[wvm_mem_shard(vm, page)];
}

static uint64_t mappers(struct wvm_mem *vm, uint64_t page)
{
	return owner(vm, page)->mappers[vm - vm->node->vm];
}

uint64_t wvm_mem_mappers(struct wvm_mem *vm, uint64_t page)
{
	struct mem_shard *sh = owner(vm, page);
	uint64_t mask = 0;
	unsigned c;

	for_each_client(c, mappers(vm, page)) if (map_of(sh, c, vm, page * WVM_PAGE_SIZE))
		mask |= 1ull << c;
	return mask;
}

void wvm_mem_wake_all(struct wvm_memory *node, unsigned shard)
{
	struct mem_shard *sh = &node->shard[shard];
	unsigned c;

	for_each_client(c, sh->known) for (unsigned i = 0; i < sh->client[c].maps; i++)
		wake_range(sh, c, sh->client[c].map[i].base, sh->client[c].map[i].len);
}

uint64_t wvm_mem_next_present(struct wvm_mem *vm, uint64_t page)
{
	off_t at;

	wvm_count_call(WVM_CALL_lseek);
	at = lseek(vm->fd, (off_t)(page * WVM_PAGE_SIZE), SEEK_DATA);
	return at < 0 ? UINT64_MAX : (uint64_t)at / WVM_PAGE_SIZE;
}

bool wvm_mem_present(struct wvm_mem *vm, uint64_t page)
{
	off_t at = (off_t)(page * WVM_PAGE_SIZE);

	wvm_count_call(WVM_CALL_lseek);
	return lseek(vm->fd, at, SEEK_DATA) == at;
}

/*
 * The same the other way round, for a page that is likely to be a hole: the
 * kernel looks for data through all of the hole, but stops at once if it looks for a hole.
 */
static bool is_hole(struct wvm_mem *vm, uint64_t page)
{
	off_t at = (off_t)(page * WVM_PAGE_SIZE);

	wvm_count_call(WVM_CALL_lseek);
	return lseek(vm->fd, at, SEEK_HOLE) == at;
}

/* Write-protects the page in these clients' mms; goes on after a failure and reports it. */
static int protect_in(struct wvm_mem *vm, uint64_t page, uint64_t clients)
{
	int result = 0;
	unsigned c;

	for_each_client(c, clients)
	{
		struct spot s;
		int ret;

		if (!spot_at(&s, vm, page, c))
			continue;
		ret = spot_protect(&s, UFFDIO_WRITEPROTECT_MODE_WP);
		if (ret && ret != -ENOENT)
			result = ret;
	}
	return result;
}

int wvm_mem_protect(struct wvm_mem *vm, uint64_t page)
{
	return protect_in(vm, page, mappers(vm, page));
}

int wvm_mem_protect_others(struct wvm_mem *vm, uint64_t page, unsigned client)
{
	return protect_in(vm, page, mappers(vm, page) & ~(1ull << client));
}

/* The client maps all of the pages in one piece here, as nearly all do: one ioctl. */
static int protect_at_once(struct wvm_mem *vm, uint64_t page, unsigned count, unsigned client)
{
	uint64_t gpa = page * WVM_PAGE_SIZE, len = (uint64_t)count * WVM_PAGE_SIZE;
	struct spot s;

	if (!spot_at(&s, vm, page, client) || s.map->len - (gpa - s.map->gpa) < len)
		return -ERANGE;
	return spot_protect_range(&s, len, UFFDIO_WRITEPROTECT_MODE_WP);
}

int wvm_mem_protect_run(struct wvm_mem *vm, uint64_t page, unsigned count)
{
	int result = 0;
	unsigned c;

	for_each_client(c, mappers(vm, page))
	{
		int ret = protect_at_once(vm, page, count, c);

		for (unsigned i = 0; ret && ret != -ENOENT && i < count; i++) {
			int one = protect_in(vm, page + i, 1ull << c);

			result = one ? one : result;
		}
	}
	return result;
}

int wvm_mem_lift(struct wvm_mem *vm, uint64_t page, uint64_t waiters)
{
	int result = 0;
	unsigned c;

	for_each_client(c, waiters & mappers(vm, page))
	{
		struct spot s;
		int ret;

		if (!spot_at(&s, vm, page, c))
			continue;
		ret = spot_protect(&s, 0);
		if (ret && ret != -ENOENT)
			result = ret;
	}
	return result;
}

int wvm_mem_wake(struct wvm_mem *vm, uint64_t page, uint64_t waiters)
{
	unsigned c;

	for_each_client(c, waiters & mappers(vm, page))
	{
		struct spot s;

		if (spot_at(&s, vm, page, c))
			wake_range(s.sh, c, s.addr, WVM_PAGE_SIZE);
	}
	return 0;
}

/* A waiter that cannot be lifted now is woken: it faults again and is lifted then. */
static void release_waiters(struct wvm_mem *vm, uint64_t page, bool writable, uint64_t waiters)
{
	if (!waiters || (writable && !wvm_mem_lift(vm, page, waiters)))
		return;
	wvm_mem_wake(vm, page, waiters);
}

/* Bytes written, or -errno. */
static ssize_t write_pages(struct wvm_mem *vm, uint64_t page, unsigned count, const void *data)
{
	ssize_t n;

	do {
		wvm_count_call(WVM_CALL_pwrite);
		n = pwrite(vm->fd, data, count * WVM_PAGE_SIZE, (off_t)(page * WVM_PAGE_SIZE));
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* Into the file without any mm. Every mm is protected by now. */
static int install_by_write(struct wvm_mem *vm, uint64_t page, const void *data)
{
	ssize_t n = write_pages(vm, page, 1, data);

	if (n == (ssize_t)WVM_PAGE_SIZE)
		return 0;
	return n < 0 ? (int)n : -EIO;
}

int wvm_mem_install(struct wvm_mem *vm, uint64_t page, const void *data, bool writable,
		    uint64_t waiters)
{
	struct mem_shard *sh = owner(vm, page);
	uint64_t all = wvm_mem_mappers(vm, page);
	uint64_t tries = waiters & all;
	int ret;

	if (!data)
		data = zero_page;
	/* The first waiter's own entry comes with the page; every other mm is closed before. */
	ret = protect_in(vm, page, all & ~(tries & -tries));
	if (ret)
		return ret;
	for (; tries; tries &= tries - 1) {
		unsigned c = (unsigned)__builtin_ctzll(tries);
		struct spot s;

		if (!spot_at(&s, vm, page, c))
			continue;
		ret = spot_copy(&s, data, writable);
		if (!ret)
			goto installed;
		if (ret == -EEXIST && wvm_mem_present(vm, page))
			goto already;
		/* It cannot take the page, but it may live: close it too, try the next. */
		ret = protect_in(vm, page, 1ull << c);
		if (ret)
			return ret;
	}
	if (!is_hole(vm, page))
		goto already;
	ret = install_by_write(vm, page, data);
	if (ret)
		return ret;
installed:
	COUNT(sh, installs);
	release_waiters(vm, page, writable, waiters & ~(tries & -tries));
	return 0;

already:
	COUNT(sh, already);
	ret = protect_in(vm, page, all & ~(writable ? waiters : 0));
	if (ret)
		return ret;
	release_waiters(vm, page, writable, waiters);
	return -EEXIST;
}

unsigned wvm_mem_install_run(struct wvm_mem *vm, uint64_t page, unsigned count, const void *data)
{
	struct mem_shard *sh = owner(vm, page);
	ssize_t n;

	assert(page + count <= vm->size / WVM_PAGE_SIZE);
	if (wvm_mem_protect_run(vm, page, count) || wvm_mem_next_present(vm, page) < page + count)
		return 0;
	n = write_pages(vm, page, count, data);
	count = n < 0 ? 0 : (unsigned)(n / (ssize_t)WVM_PAGE_SIZE);
	COUNT_MANY(sh, installs, count);
	return count;
}

/* Lifts the protection of this mm from as much of the pages as it maps here, and wakes. */
static void fill_in(const struct spot *s, uint64_t gpa, uint64_t below, uint64_t len)
{
	uint64_t before = gpa - s->map->gpa, left = s->map->len - before;
	struct spot from = *s;
	int ret;

	below = below < before ? below : before;
	from.addr -= below;
	ret = spot_protect_range(&from, below + (len < left ? len : left), 0);
	/* It faults again, and this comes again. */
	if (ret && ret != -ENOENT)
		wake_range(s->sh, s->client, s->addr, WVM_PAGE_SIZE);
}

int wvm_mem_fill(struct wvm_mem *vm, uint64_t page, unsigned below, unsigned count,
		 uint64_t waiters)
{
	uint64_t gpa = page * WVM_PAGE_SIZE, len = (uint64_t)count * WVM_PAGE_SIZE;
	uint64_t less = (uint64_t)below * WVM_PAGE_SIZE;
	unsigned c;
	int ret;

	assert(below <= page && page + count <= vm->size / WVM_PAGE_SIZE);
	do {
		wvm_count_call(WVM_CALL_fallocate);
		ret = fallocate(vm->fd, FALLOC_FL_KEEP_SIZE, (off_t)(gpa - less),
				(off_t)(less + len));
	} while (ret && errno == EINTR);
	if (ret)
		return -errno;
	for_each_client(c, waiters & mappers(vm, page))
	{
		struct spot s;

		if (spot_at(&s, vm, page, c))
			fill_in(&s, gpa, less, len);
	}
	return 0;
}

int wvm_mem_settle(struct wvm_mem *vm, uint64_t page, uint64_t waiters)
{
	int ret = wvm_mem_present(vm, page) ? 0 : install_by_write(vm, page, zero_page);

	return ret ? ret : wvm_mem_wake(vm, page, waiters);
}

int wvm_mem_read_run(struct wvm_mem *vm, uint64_t page, unsigned count, void *buf)
{
	ssize_t len = (ssize_t)(count * WVM_PAGE_SIZE), n;

	assert(page + count <= vm->size / WVM_PAGE_SIZE);
	do {
		wvm_count_call(WVM_CALL_pread);
		n = pread(vm->fd, buf, (size_t)len, (off_t)(page * WVM_PAGE_SIZE));
	} while (n < 0 && errno == EINTR);
	return n == len ? 0 : -EIO;
}

int wvm_mem_read(struct wvm_mem *vm, uint64_t page, void *buf)
{
	if (wvm_mem_read_run(vm, page, 1, buf))
		return -EIO;
	/* A hole reads as zeros, so only zeros leave a doubt. */
	if (!memcmp(buf, zero_page, WVM_PAGE_SIZE) && !wvm_mem_present(vm, page))
		return -ENODATA;
	return 0;
}

int wvm_mem_punch(struct wvm_mem *vm, uint64_t page)
{
	struct mem_shard *sh = owner(vm, page);

	COUNT(sh, punches);
	for (unsigned i = 0; i < PUNCH_TRIES; i++) {
		int ret;

		wvm_count_call(WVM_CALL_fallocate);
		ret = fallocate(vm->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)(page * WVM_PAGE_SIZE), WVM_PAGE_SIZE);
		if (!ret && is_hole(vm, page))
			return 0;
		COUNT(sh, punch_retries);
	}
	return -EIO;
}

/* How the client learns of it: by the kernel where it can, else by its helper thread. */
static int fail_one(const struct spot *s)
{
	int ret;

	if (s->map->mode & WVM_ERROR_PARK)
		return WVM_ERROR_HOW_PARKED;
	if (__atomic_load_n(&s->node->no_poison, __ATOMIC_RELAXED))
		return WVM_ERROR_HOW_REPLACE;
	ret = spot_poison(s);
	/* ENOTTY, EINVAL: a kernel before 6.6. Any other refusal is met in the same way. */
	if (ret == -ENOTTY || ret == -EINVAL)
		__atomic_store_n(&s->node->no_poison, true, __ATOMIC_RELAXED);
	if (ret && ret != -ENOENT)
		return WVM_ERROR_HOW_REPLACE;
	return ret ? ret : WVM_ERROR_HOW_POISONED;
}

int wvm_mem_fail(struct wvm_mem *vm, uint64_t page, uint64_t waiters, int reason)
{
	struct mem_shard *sh = owner(vm, page);
	unsigned c;

	if (wvm_mem_present(vm, page))
		return -EBUSY;
	for_each_client(c, waiters & mappers(vm, page))
	{
		struct wvm_ring_error err = {
			.gpa = page * WVM_PAGE_SIZE, .vm_id = vm->vm_id, .reason = reason};
		struct spot s;
		int how;

		if (!spot_at(&s, vm, page, c))
			continue;
		err.addr = s.addr;
		how = fail_one(&s);
		if (how < 0)
			continue;
		COUNT(sh, failed);
		err.how = (uint16_t)how;
		if (vm->node->ops && vm->node->ops->failed)
			vm->node->ops->failed(vm->node->ctx, sh->index, c, &err);
	}
	return 0;
}

void wvm_memory_disable_poison(struct wvm_memory *node)
{
	__atomic_store_n(&node->no_poison, true, __ATOMIC_RELAXED);
}

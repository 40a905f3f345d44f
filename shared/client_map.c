#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/client_priv.h"

#define SHARD_RANGE (1ull << 30) /* wvm_ring_shard() */
#define PAGE_MASK   ((uint64_t)WVM_PAGE_SIZE - 1)
#define RETRIES     1000u /* of an ioctl that meets a changing address space */

/* Calls fn for each piece of [gpa, gpa + len) that one shard serves. */
typedef int piece_fn(struct wvm *w, unsigned shard, uint8_t *addr, uint64_t len);

static int for_pieces(struct wvm *w, uint8_t *addr, uint64_t gpa, uint64_t len, piece_fn *fn)
{
	while (len) {
		uint64_t piece = SHARD_RANGE - gpa % SHARD_RANGE;
		int ret;

		if (piece > len || w->shards == 1)
			piece = len;
		ret = fn(w, wvm_ring_shard(gpa, w->shards), addr, piece);
		if (ret)
			return ret;
		addr += piece;
		gpa += piece;
		len -= piece;
	}
	return 0;
}

static int register_piece(struct wvm *w, unsigned shard, uint8_t *addr, uint64_t len)
{
	struct uffdio_register r = {.range = {.start = (uintptr_t)addr, .len = len},
				    .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};

	return ioctl(w->uffd[shard], UFFDIO_REGISTER, &r) ? -errno : 0;
}

static int protect_piece(struct wvm *w, unsigned shard, uint8_t *addr, uint64_t len)
{
	for (unsigned i = 0; i < RETRIES; i++) {
		struct uffdio_writeprotect p = {.range = {.start = (uintptr_t)addr, .len = len},
						.mode = UFFDIO_WRITEPROTECT_MODE_WP};

		if (!ioctl(w->uffd[shard], UFFDIO_WRITEPROTECT, &p))
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			break;
	}
	return -errno;
}

/*
 * Write-protects what is in the file by now. Pages that enter it later are
 * protected by the master, which knows of this range already. Marking the whole
 * range would cost page tables for all of it.
 */
static int protect_present(struct wvm *w, int fd, const struct range *r)
{
	uint64_t at = r->gpa, end = r->gpa + r->len;

	while (at < end) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		off_t hole;
		int ret;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		if ((uint64_t)data >= end)
			return 0;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			hole = data + WVM_PAGE_SIZE; /* punched meanwhile */
		at = (uint64_t)hole < end ? (uint64_t)hole : end;
		ret = for_pieces(w, r->addr + ((uint64_t)data - r->gpa), (uint64_t)data,
				 at - (uint64_t)data, protect_piece);
		if (ret)
			return ret;
	}
	return 0;
}

/* Takes a place in the table for the range, or says why not. */
static int reserve(struct wvm *w, const struct range *want, struct range **out, unsigned *lives)
{
	struct range *free_one = NULL;
	int ret = 0;

	pthread_mutex_lock(&w->lock);
	*lives = w->lives;
	for (unsigned i = 0; i < WVM_RING_MAPS_MAX; i++) {
		struct range *r = &w->ranges[i];

		if (r->state == RANGE_FREE)
			free_one = r;
		else if (r->vm_id == want->vm_id && want->gpa < r->gpa + r->len &&
			 r->gpa < want->gpa + want->len)
			ret = -EEXIST;
	}
	if (!ret && w->gone)
		ret = -ECONNREFUSED;
	if (!ret && !free_one)
		ret = -ENOSPC;
	if (!ret) {
		*free_one = *want; /* RANGE_FREE still */
		__atomic_store_n(&free_one->state, RANGE_BUSY, __ATOMIC_RELEASE);
		*out = free_one;
	}
	pthread_mutex_unlock(&w->lock);
	return ret;
}

static void set_state(struct wvm *w, struct range *r, enum range_state state)
{
	pthread_mutex_lock(&w->lock);
	__atomic_store_n(&r->state, state, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&w->lock);
}

/* False: the master that was told of it is gone, and the next one does not know of it. */
static bool go_live(struct wvm *w, struct range *r, unsigned lives)
{
	bool same;

	pthread_mutex_lock(&w->lock);
	same = w->lives == lives;
	if (same)
		__atomic_store_n(&r->state, RANGE_LIVE, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&w->lock);
	return same;
}

static int find_vm(struct wvm *w, struct range *r, struct wvm_ring_vm *vm)
{
	struct wvm_ring_header h;
	int ret = wvm_ring_file_header(w->file, &h);

	if (ret)
		return ret;
	for (unsigned i = 0; i < h.vm_count; i++) {
		*vm = h.vms[i];
		if (vm->vm_id != r->vm_id)
			continue;
		r->vm_index = (uint16_t)i;
		if (r->gpa > vm->size || r->len > vm->size - r->gpa)
			return wvm_client_fail(
				-ERANGE, "VM %u has %llu bytes; 0x%llx + %llu is beyond", r->vm_id,
				(unsigned long long)vm->size, (unsigned long long)r->gpa,
				(unsigned long long)r->len);
		return 0;
	}
	return wvm_client_fail(-ENXIO, "this node serves no VM %u", r->vm_id);
}

static int open_ram(const struct wvm_ring_vm *vm)
{
	int fd = open(vm->ram_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0)
		return wvm_client_fail(-errno, "cannot open the RAM file %s: %s", vm->ram_path,
				       strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != vm->size) {
		close(fd);
		return wvm_client_fail(-EPROTO, "%s is not the RAM file of VM %u: wrong size",
				       vm->ram_path, vm->vm_id);
	}
	return fd;
}

static int map_memory(struct wvm *w, int fd, struct range *r)
{
	int ret;

	r->addr = mmap(NULL, r->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		       (off_t)r->gpa);
	if (r->addr == MAP_FAILED) {
		r->addr = NULL;
		return wvm_client_fail(-errno, "cannot map %llu bytes: %s",
				       (unsigned long long)r->len, strerror(errno));
	}
	/* A core dump would fault the whole guest in. Old kernels without THP refuse NOHUGEPAGE. */
	(void)madvise(r->addr, r->len, MADV_DONTDUMP);
	(void)madvise(r->addr, r->len, MADV_NOHUGEPAGE);
	ret = madvise(r->addr, r->len, MADV_DONTFORK) ? -errno : 0;
	if (!ret)
		ret = for_pieces(w, r->addr, r->gpa, r->len, register_piece);
	return ret ? wvm_client_fail(ret, "cannot register %llu bytes with userfaultfd: %s",
				     (unsigned long long)r->len, strerror(-ret))
		   : 0;
}

static int tell_master(struct wvm *w, enum wvm_ring_msg type, const struct range *r)
{
	struct wvm_ring_req req = {.vm_id = r->vm_id,
				   .mode = r->mode,
				   .gpa = r->gpa,
				   .len = r->len,
				   .addr = (uint64_t)(uintptr_t)r->addr};

	return (int)wvm_call(w, type, &req, NULL, WVM_CALL_MS);
}

/* mmap, register, tell the master, protect what is there: in this order (PROTOCOL.md, Clients). */
static int map_range(struct wvm *w, struct range *r)
{
	struct wvm_ring_vm vm;
	int ret, fd;

	ret = find_vm(w, r, &vm);
	if (ret)
		return ret;
	fd = open_ram(&vm);
	if (fd < 0)
		return fd;
	ret = map_memory(w, fd, r);
	if (ret)
		goto err_unmap;
	ret = tell_master(w, WVM_RING_MAP, r);
	if (ret == -ESHUTDOWN) {
		wvm_client_fail(ret,
				"this node is no home of memory: it was drained, or not let in "
				"yet; run on another, or let it in: wvm_ctl join, with its id");
		goto err_tell;
	}
	if (ret) {
		wvm_client_fail(ret, "the master did not take the mapping: %s", strerror(-ret));
		goto err_tell;
	}
	ret = protect_present(w, fd, r);
	if (ret) {
		wvm_client_fail(ret, "cannot write-protect the mapping: %s", strerror(-ret));
		goto err_tell;
	}
	close(fd);
	return 0;

err_tell:
	/* After a timeout the master may have it; if not, this does no harm. */
	(void)tell_master(w, WVM_RING_UNMAP, r);
err_unmap:
	if (r->addr)
		munmap(r->addr, r->len);
	close(fd);
	return ret;
}

void *wvm_map(struct wvm *w, uint16_t vm_id, uint64_t gpa, size_t len, unsigned mode)
{
	struct range want = {.vm_id = vm_id, .mode = mode, .gpa = gpa, .len = len};
	unsigned lives;
	struct range *r;
	int ret;

	if (!len || (gpa | len) & PAGE_MASK || gpa + len < gpa || mode & ~WVM_ERROR_PARK) {
		wvm_client_fail(-EINVAL,
				"offset and length must be multiples of %u, the mode a "
				"known one",
				WVM_PAGE_SIZE);
		errno = EINVAL;
		return NULL;
	}
	ret = w->owner == getpid() ? reserve(w, &want, &r, &lives) : -ECONNREFUSED;
	if (ret) {
		wvm_client_fail(ret, "cannot map: %s", strerror(-ret));
		errno = -ret;
		return NULL;
	}
	ret = map_range(w, r);
	if (!ret && !go_live(w, r, lives)) {
		ret = wvm_client_fail(-ECONNREFUSED, "the master is gone: try again");
		munmap(r->addr, r->len);
	}
	if (ret) {
		set_state(w, r, RANGE_FREE);
		errno = -ret;
		return NULL;
	}
	return r->addr;
}

/* Threads that still wait in the range find out that it is gone. */
static void wake_all(struct wvm *w, const struct range *r)
{
	for (unsigned k = 0; k < w->shards; k++) {
		struct uffdio_range range = {.start = (uintptr_t)r->addr, .len = r->len};

		(void)ioctl(w->uffd[k], UFFDIO_WAKE, &range);
	}
}

int wvm_unmap(struct wvm *w, void *addr, size_t len)
{
	struct range *r = NULL;
	int ret;

	if (w->owner != getpid())
		return -EINVAL;
	pthread_mutex_lock(&w->lock);
	for (unsigned i = 0; i < WVM_RING_MAPS_MAX; i++)
		if (w->ranges[i].state == RANGE_LIVE && w->ranges[i].addr == addr &&
		    w->ranges[i].len == len)
			r = &w->ranges[i];
	if (r)
		__atomic_store_n(&r->state, RANGE_BUSY, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&w->lock);
	if (!r)
		return -EINVAL;
	/* A store between the master's forgetting and munmap() would be seen by nobody. */
	mprotect(r->addr, r->len, PROT_NONE);
	ret = tell_master(w, WVM_RING_UNMAP, r);
	munmap(r->addr, r->len);
	wake_all(w, r);
	set_state(w, r, RANGE_FREE);
	return ret == -ECONNREFUSED ? 0 : ret;
}

void wvm_ranges_close(struct wvm *w)
{
	for (unsigned i = 0; i < WVM_RING_MAPS_MAX; i++)
		if (w->ranges[i].state == RANGE_LIVE)
			mprotect(w->ranges[i].addr, w->ranges[i].len, PROT_NONE);
}

void wvm_ranges_unmap(struct wvm *w)
{
	for (unsigned i = 0; i < WVM_RING_MAPS_MAX; i++) {
		struct range *r = &w->ranges[i];

		if (r->state != RANGE_LIVE)
			continue;
		munmap(r->addr, r->len);
		wake_all(w, r);
		r->state = RANGE_FREE;
	}
}

static struct range *range_around(struct wvm *w, uint64_t addr, uint64_t len)
{
	for (unsigned i = 0; i < WVM_RING_MAPS_MAX; i++) {
		struct range *r = &w->ranges[i];
		uint64_t base;

		if (r->state != RANGE_LIVE) /* a BUSY one's address is its caller's */
			continue;
		base = (uintptr_t)r->addr;
		if (addr >= base && len <= r->len && addr - base <= r->len - len)
			return r;
	}
	return NULL;
}

/* A page beyond the end of its file gives SIGBUS, on any kernel. */
int wvm_page_replace(struct wvm *w, uint64_t addr)
{
	struct range *r = range_around(w, addr, WVM_PAGE_SIZE);
	struct uffdio_range page = {.start = addr, .len = WVM_PAGE_SIZE};
	unsigned shard;

	if (!r || addr & PAGE_MASK)
		return -EINVAL;
	if (mmap((void *)(uintptr_t)addr, WVM_PAGE_SIZE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, w->empty_fd, 0) == MAP_FAILED)
		return -errno;
	shard = wvm_ring_shard(r->gpa + (addr - (uintptr_t)r->addr), w->shards);
	return ioctl(w->uffd[shard], UFFDIO_WAKE, &page) ? -errno : 0;
}

/* --- pins ------------------------------------------------------------------ */

static int pin_request(struct wvm *w, void *addr, size_t len, struct wvm_ring_req *req)
{
	uint64_t from = (uintptr_t)addr & ~PAGE_MASK, to;
	struct range *r;
	int ret = -EINVAL;

	if (w->owner != getpid())
		return -ECONNREFUSED;
	if (!len || __builtin_add_overflow((uintptr_t)addr, len + PAGE_MASK, &to) ||
	    len > SIZE_MAX - PAGE_MASK)
		return ret;
	to &= ~PAGE_MASK;
	pthread_mutex_lock(&w->lock);
	r = range_around(w, from, to - from);
	if (r) {
		*req = (struct wvm_ring_req){.vm_id = r->vm_id,
					     .gpa = r->gpa + (from - (uintptr_t)r->addr),
					     .len = to - from};
		ret = 0;
	}
	pthread_mutex_unlock(&w->lock);
	return ret;
}

/* The entry of a range, or a free one for it; NULL: all are taken. w->lock held. */
static struct pinned *pin_entry(struct wvm *w, const struct wvm_ring_req *req)
{
	struct pinned *found = NULL;

	for (unsigned i = 0; i < WVM_RING_PINS_MAX; i++) {
		struct pinned *p = &w->pins[i];

		if (!p->times)
			found = found ? found : p;
		else if (p->vm_id == req->vm_id && p->gpa == req->gpa && p->len == req->len)
			return p;
	}
	return found;
}

/* Held by the life `lives`, or by none: then a pin that was answered is worth nothing. */
static int note_pin(struct wvm *w, const struct wvm_ring_req *req, unsigned lives)
{
	struct pinned *p;
	int ret = 0;

	pthread_mutex_lock(&w->lock);
	p = pin_entry(w, req);
	if (w->lives != lives)
		ret = -ECONNREFUSED;
	else if (!p)
		ret = -EOVERFLOW;
	else
		*p = (struct pinned){.vm_id = req->vm_id,
				     .times = p->times + 1,
				     .gpa = req->gpa,
				     .len = req->len};
	pthread_mutex_unlock(&w->lock);
	return ret;
}

/* Before the master is asked: what is not noted ends with this life of it at the latest. */
static void forget_pin(struct wvm *w, const struct wvm_ring_req *req)
{
	struct pinned *p;

	pthread_mutex_lock(&w->lock);
	p = pin_entry(w, req);
	if (p && p->times)
		p->times--;
	pthread_mutex_unlock(&w->lock);
}

static unsigned lives_of(struct wvm *w)
{
	unsigned lives;

	pthread_mutex_lock(&w->lock);
	lives = w->lives;
	pthread_mutex_unlock(&w->lock);
	return lives;
}

/* Should it still be granted, nobody would end it. */
static void cancel_pin(struct wvm *w, struct wvm_ring_req *req)
{
	pthread_mutex_lock(&w->lock);
	req->token = 0;
	(void)wvm_send(w, WVM_RING_UNPIN, req);
	pthread_mutex_unlock(&w->lock);
}

int wvm_pin(struct wvm *w, void *addr, size_t len)
{
	struct wvm_ring_req req;
	unsigned lives;
	int ret = pin_request(w, addr, len, &req);

	if (ret)
		return ret;
	lives = lives_of(w);
	ret = (int)wvm_call(w, WVM_RING_PIN, &req, NULL, WVM_PIN_MS);
	if (!ret)
		ret = note_pin(w, &req, lives);
	if (ret == -ETIMEDOUT || ret == -EOVERFLOW)
		cancel_pin(w, &req);
	return ret;
}

int wvm_unpin(struct wvm *w, void *addr, size_t len)
{
	struct wvm_ring_req req;
	int ret = pin_request(w, addr, len, &req);

	if (ret)
		return ret;
	forget_pin(w, &req);
	return (int)wvm_call(w, WVM_RING_UNPIN, &req, NULL, WVM_CALL_MS);
}

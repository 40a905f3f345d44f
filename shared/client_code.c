/*
 * Translated code: what this program has translated from, and what others write of it
 * (code_area.h; PROTOCOL.md, Clients).
 *
 * Why no change of a marked page is missed. The program sets the page's bit, then reads
 * its bytes, with a full barrier between. The master takes the page out of all page tables
 * first, which interrupts every processor that has it, then looks at the bit, and only
 * then lets others have the page. If it does not see the bit, then the bit was set after
 * the page was gone, and reading the bytes is a fault that gets the new ones. If it sees
 * it, the page is in the ring before the others have it.
 *
 * Programs of the same node change a page without a fault of ours, once the master lets
 * them store. It looks at the bit then, as above; but bits that are set after that need its
 * help. So it says in `others` that there are such programs, before they can map
 * anything. Whoever then finds a page that is not `closed` asks the master, who write-protects
 * it in the other programs: their next store is a fault again. By the order of sequentially
 * consistent accesses either the master sees a bit that was set before, or whoever
 * set it, and whoever finds it set after that, sees `others`.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shared/client_priv.h"
#include "shared/code_area.h"

#define ASK_PAUSE_US 1000u

struct code {
	int fd;
	wvm_code_fn *fn;
	void *opaque;
	struct wvm_code_layout at;
	struct wvm_code_area *area;
};

static struct code *code_of(struct wvm *w)
{
	return __atomic_load_n(&w->code, __ATOMIC_ACQUIRE);
}

/* ---- what was marked --------------------------------------------------------------------- */

static struct range *range_of(struct wvm *w, uint64_t addr)
{
	for (unsigned i = 0; i < WVM_RING_MAPS_MAX; i++) {
		struct range *r = &w->ranges[i];

		if (__atomic_load_n(&r->state, __ATOMIC_ACQUIRE) == RANGE_LIVE &&
		    addr - (uintptr_t)r->addr < r->len)
			return r;
	}
	return NULL;
}

static uint64_t *word_of(const struct code *c, const uint64_t *offsets, unsigned vm, uint64_t page)
{
	return (uint64_t *)((uint8_t *)c->area + offsets[vm]) + page / 64;
}

/* The master closes the page to other programs. Without one it is waited for, as in a fault. */
static int ask(struct wvm *w, const struct range *r, uint64_t page)
{
	for (;;) {
		struct wvm_ring_req req = {
			.vm_id = r->vm_id, .gpa = page * WVM_PAGE_SIZE, .len = WVM_PAGE_SIZE};
		int64_t ret = wvm_call(w, WVM_RING_CODE_MARK, &req, NULL, WVM_CALL_MS);

		switch (ret) {
		case -EAGAIN: /* too much at once */
		case -EBUSY:
		case -ETIMEDOUT:
		case -ECONNREFUSED: break;
		default: return (int)ret;
		}
		if (w->owner != getpid())
			return -EINVAL;
		usleep(ASK_PAUSE_US);
	}
}

int wvm_code_mark(struct wvm *w, const void *addr)
{
	struct code *c = code_of(w);
	struct range *r = range_of(w, (uintptr_t)addr);
	uint64_t page, bit, *marked, *closed;

	if (!c || !r)
		return -EINVAL;
	page = (r->gpa + ((uintptr_t)addr - (uintptr_t)r->addr)) / WVM_PAGE_SIZE;
	bit = UINT64_C(1) << page % 64;
	marked = word_of(c, c->at.marked, r->vm_index, page);
	/* The barrier before the bytes are read comes with it, or came with whoever set it. */
	if (!(__atomic_load_n(marked, __ATOMIC_SEQ_CST) & bit))
		__atomic_fetch_or(marked, bit, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&c->area->others, __ATOMIC_SEQ_CST))
		return 0;
	closed = word_of(c, c->at.closed, r->vm_index, page);
	if (__atomic_load_n(closed, __ATOMIC_SEQ_CST) & bit)
		return 0;
	return ask(w, r, page);
}

/* ---- what was written -------------------------------------------------------------------- */

static void *address_of(struct wvm *w, uint64_t what)
{
	unsigned vm = (unsigned)(what >> WVM_CODE_VM_SHIFT);
	uint64_t gpa = (what & ((UINT64_C(1) << WVM_CODE_VM_SHIFT) - 1)) * WVM_PAGE_SIZE;

	for (unsigned i = 0; i < WVM_RING_MAPS_MAX; i++) {
		struct range *r = &w->ranges[i];

		if (__atomic_load_n(&r->state, __ATOMIC_ACQUIRE) == RANGE_LIVE &&
		    r->vm_index == vm && gpa - r->gpa < r->len)
			return r->addr + (gpa - r->gpa);
	}
	return NULL; /* not mapped any more */
}

/* The entry of that number; false: another has taken its place. */
static bool read_entry(const struct code *c, uint64_t number, uint64_t *what)
{
	const struct wvm_code_entry *e = &c->area->ring[number % WVM_CODE_RING];

	if (__atomic_load_n(&e->serial, __ATOMIC_ACQUIRE) != number + 1)
		return false;
	/* Acquire: the serial is read again after it. */
	*what = __atomic_load_n(&e->what, __ATOMIC_ACQUIRE);
	return __atomic_load_n(&e->serial, __ATOMIC_RELAXED) == number + 1;
}

int wvm_code_drain(struct wvm *w, uint64_t *cursor, void *pages[], unsigned max)
{
	struct code *c = code_of(w);
	uint64_t head, what;
	unsigned n = 0;

	if (!c)
		return -EINVAL;
	head = __atomic_load_n(&c->area->head, __ATOMIC_ACQUIRE);
	/* Also when a later master counts from less than the cursor. */
	if (head - *cursor > WVM_CODE_RING)
		goto overrun;
	while (*cursor != head && n < max) {
		if (!read_entry(c, *cursor, &what))
			goto overrun;
		++*cursor;
		pages[n] = address_of(w, what);
		n += pages[n] != NULL;
	}
	return (int)n;

overrun:
	*cursor = __atomic_load_n(&c->area->head, __ATOMIC_ACQUIRE);
	return -EOVERFLOW;
}

void wvm_code_look(struct wvm *w)
{
	struct code *c = code_of(w);
	uint64_t head;

	if (!c)
		return;
	head = __atomic_load_n(&c->area->head, __ATOMIC_ACQUIRE);
	if (head == __atomic_load_n(&c->area->told, __ATOMIC_RELAXED))
		return;
	c->fn(c->opaque);
	__atomic_store_n(&c->area->told, head, __ATOMIC_SEQ_CST);
	wvm_ring_bell(w);
}

/*
 * What the dead master had cleared and not put into the ring is not known: all cursors are
 * overrun. Before the next one is told that we are back, since until then nobody
 * gets a page of this node.
 */
void wvm_code_lost(struct wvm *w)
{
	struct code *c = code_of(w);
	uint64_t head;

	if (!c)
		return;
	head = __atomic_load_n(&c->area->head, __ATOMIC_ACQUIRE) + 2 * WVM_CODE_RING;
	__atomic_store_n(&c->area->head, head, __ATOMIC_SEQ_CST);
	c->fn(c->opaque);
	__atomic_store_n(&c->area->told, head, __ATOMIC_SEQ_CST);
}

/* ---- its life ---------------------------------------------------------------------------- */

int wvm_code_fd(struct wvm *w)
{
	struct code *c = code_of(w);

	return c ? c->fd : -1;
}

static int open_area(struct code *c)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	void *at;

	c->fd = memfd_create("wvm-code", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (c->fd < 0 || ftruncate(c->fd, (off_t)c->at.bytes) || fcntl(c->fd, F_ADD_SEALS, seals))
		return -errno;
	at = mmap(NULL, c->at.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	c->area = at;
	(void)madvise(at, c->at.bytes, MADV_DONTFORK);
	return 0;
}

static void free_code(struct code *c)
{
	if (c->area)
		munmap(c->area, c->at.bytes);
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}

void wvm_code_close(struct wvm *w)
{
	if (w->code)
		free_code(w->code);
	w->code = NULL;
}

/* From here on the helper looks at it, and a next master is told of it. */
static int publish(struct wvm *w, struct code *c)
{
	int ret = 0;

	pthread_mutex_lock(&w->lock);
	if (w->code)
		ret = -EALREADY;
	else if (w->gone)
		ret = -ECONNREFUSED;
	else
		__atomic_store_n(&w->code, c, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&w->lock);
	return ret;
}

int wvm_code_watch(struct wvm *w, wvm_code_fn *fn, void *opaque)
{
	struct wvm_ring_header h;
	struct wvm_ring_req req = {0};
	struct code *c;
	int ret;

	if (w->owner != getpid() || wvm_ring_file_header(w->file, &h))
		return -ECONNREFUSED;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	*c = (struct code){.fd = -1, .fn = fn, .opaque = opaque};
	wvm_code_place(&h, &c->at);
	ret = open_area(c);
	if (!ret)
		ret = publish(w, c);
	if (ret) {
		free_code(c);
		return ret;
	}
	req.addr = (uint64_t)c->fd;
	/* A failure leaves it published: the helper may be looking at it, and a later master
	   may take it. Nothing is promised then. */
	return (int)wvm_call(w, WVM_RING_CODE, &req, NULL, WVM_CALL_MS);
}

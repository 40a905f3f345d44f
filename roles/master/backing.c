#include "roles/master/backing.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "ring/calls.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* A call costs more than the page that it makes room for; 64 KiB are soon used or little. */
#define PIECE_PAGES 16u /* a power of two */

static size_t table_pages(uint64_t entries, size_t entry)
{
	return (entries * entry + WVM_PAGE_BYTES - 1) / WVM_PAGE_BYTES;
}

static uint64_t units_of(const struct wvm_core_vm *vm)
{
	return (vm->pages + WVM_UNIT_PAGES - 1) / WVM_UNIT_PAGES;
}

int wvm_backing_open(struct wvm_backing *b, const struct wvm_core_vm *vm)
{
	size_t home = table_pages(vm->pages, sizeof(*vm->home));
	size_t held = table_pages(vm->pages, sizeof(*vm->held));
	size_t held_units = table_pages(units_of(vm), sizeof(*vm->held_units));
	size_t units = table_pages(units_of(vm), sizeof(*vm->units));
	uint8_t *at;

	b->vm = *vm;
	b->bytes = home + held + held_units + units + vm->pages;
	/* Sparse as the tables are. */
	at = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return -ENOMEM;
	b->home = at;
	b->held = at + home;
	b->held_units = b->held + held;
	b->units = b->held_units + held_units;
	b->stored = b->units + units;
	return 0;
}

void wvm_backing_close(struct wvm_backing *b)
{
	if (b->home)
		munmap(b->home, b->bytes);
	memset(b, 0, sizeof(*b));
}

int wvm_backing_fill(void *at, size_t len)
{
	int r;

	do {
		wvm_count_call(WVM_CALL_madvise);
		r = madvise(at, len, MADV_POPULATE_WRITE);
	} while (r && (errno == EINTR || errno == EAGAIN));
	if (!r)
		return 0;
	return errno == EFAULT ? -ENOSPC : -errno; /* EFAULT: a touch would be a SIGBUS */
}

/* Entries of pages on a page of their table: those of one unit share none with another's. */
#define ENTRIES (WVM_PAGE_BYTES / sizeof(struct wvm_home_page))
_Static_assert(WVM_UNIT_PAGES % ENTRIES == 0, "units share no page of a table");
_Static_assert(sizeof(struct wvm_home_page) == sizeof(struct wvm_held_page), "in either table");

static uint64_t unit_end(const struct wvm_backing *b, uint64_t page)
{
	uint64_t end = (page | (WVM_UNIT_PAGES - 1)) + 1;

	return end < b->vm.pages ? end : b->vm.pages;
}

static bool is_marked(const uint8_t *marks, uint64_t i)
{
	return __atomic_load_n(&marks[i], __ATOMIC_RELAXED);
}

/* Pages from to end - 1 of an array. */
static bool fill_and_mark(uint8_t *marks, void *array, uint64_t from, uint64_t end)
{
	if (wvm_backing_fill((uint8_t *)array + from * WVM_PAGE_BYTES,
			     (end - from) * WVM_PAGE_BYTES))
		return false;
	for (uint64_t i = from; i < end; i++)
		__atomic_store_n(&marks[i], 1, __ATOMIC_RELAXED);
	return true;
}

/* Shards share pages of the tables, and mark them for each other. */
static bool has(uint8_t *marks, void *table, uint64_t index, size_t entry)
{
	uint64_t first = index * entry / WVM_PAGE_BYTES;
	uint64_t last = ((index + 1) * entry - 1) / WVM_PAGE_BYTES;

	for (uint64_t i = first; i <= last; i++)
		if (!is_marked(marks, i) && !fill_and_mark(marks, table, i, i + 1))
			return false;
	return true;
}

bool wvm_backing_held_unit(struct wvm_backing *b, uint64_t page)
{
	return has(b->held_units, b->vm.held_units, page / WVM_UNIT_PAGES,
		   sizeof(*b->vm.held_units));
}

uint64_t wvm_backing_next_held_unit(const struct wvm_backing *b, uint64_t page, uint64_t end)
{
	while (page < end &&
	       !is_marked(b->held_units,
			  page / WVM_UNIT_PAGES * sizeof(*b->vm.held_units) / WVM_PAGE_BYTES))
		page = (page | (WVM_UNIT_PAGES - 1)) + 1;
	return page < end ? page : end;
}

bool wvm_backing_held(struct wvm_backing *b, uint64_t page)
{
	return wvm_backing_held_unit(b, page) &&
	       has(b->held, b->vm.held, page, sizeof(*b->vm.held));
}

bool wvm_backing_has_held(const struct wvm_backing *b, uint64_t page)
{
	return is_marked(b->held, page * sizeof(*b->vm.held) / WVM_PAGE_BYTES);
}

bool wvm_backing_unit(struct wvm_backing *b, uint64_t page)
{
	return has(b->units, b->vm.units, page / WVM_UNIT_PAGES, sizeof(*b->vm.units));
}

bool wvm_backing_all_units(struct wvm_backing *b)
{
	uint64_t pages = table_pages(units_of(&b->vm), sizeof(*b->vm.units)), from = 0, end;

	while (from < pages) {
		for (; from < pages && is_marked(b->units, from); from++)
			;
		for (end = from; end < pages && !is_marked(b->units, end); end++)
			;
		if (from < end && !fill_and_mark(b->units, b->vm.units, from, end))
			return false;
		from = end;
	}
	return true;
}

bool wvm_backing_all_touched(struct wvm_backing *b)
{
	uint64_t page = wvm_backing_next_held_unit(b, 0, b->vm.pages), end;

	for (; page < b->vm.pages; page = wvm_backing_next_held_unit(b, end, b->vm.pages)) {
		end = unit_end(b, page);
		for (; page < end && b->vm.held_units[page / WVM_UNIT_PAGES].touched;
		     page += ENTRIES)
			if (!wvm_backing_held(b, page))
				return false;
	}
	return true;
}

bool wvm_backing_home(struct wvm_backing *b, uint64_t page)
{
	return wvm_backing_unit(b, page) && has(b->home, b->vm.home, page, sizeof(*b->vm.home));
}

bool wvm_backing_home_unit(struct wvm_backing *b, uint64_t page)
{
	uint64_t end = unit_end(b, page);

	for (page -= page % WVM_UNIT_PAGES; page < end; page += ENTRIES)
		if (!wvm_backing_home(b, page))
			return false;
	return true;
}

/* Room is given back. Where the kernel does not take it, it stays, with what is in it. */
static void empty(uint8_t *marks, void *array, uint64_t from, uint64_t end)
{
	wvm_count_call(WVM_CALL_madvise);
	if (madvise((uint8_t *)array + from * WVM_PAGE_BYTES, (end - from) * WVM_PAGE_BYTES,
		    MADV_REMOVE))
		return;
	for (uint64_t i = from; i < end; i++)
		__atomic_store_n(&marks[i], 0, __ATOMIC_RELAXED);
}

void wvm_backing_forget(struct wvm_backing *b, uint64_t page, bool home)
{
	uint64_t end = unit_end(b, page), first = page - page % WVM_UNIT_PAGES;
	uint64_t from = first / ENTRIES, to = (end + ENTRIES - 1) / ENTRIES;

	if (!home) {
		empty(b->held, b->vm.held, from, to);
		return;
	}
	empty(b->home, b->vm.home, from, to);
	empty(b->stored, b->vm.store, first, end);
}

/*
 * Whoever comes from the page below goes on upwards as a rule: then the rest of the piece
 * gets its room by the same call. A lone page stays one page, as does one whose piece has
 * no room. (What a call that fails made room for is not given back: it may hold a former
 * life's data.)
 */
bool wvm_backing_store(struct wvm_backing *b, uint64_t page)
{
	uint64_t end = (page | (PIECE_PAGES - 1)) + 1;

	if (b->vm.home[page].flags & WVM_HOME_WRITTEN || is_marked(b->stored, page))
		return true;
	if (end > b->vm.pages)
		end = b->vm.pages;
	if (page && is_marked(b->stored, page - 1) &&
	    fill_and_mark(b->stored, b->vm.store, page, end))
		return true;
	return fill_and_mark(b->stored, b->vm.store, page, page + 1);
}

#include "roles/master/backing.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

static size_t table_pages(uint64_t entries, size_t entry)
{
	return (entries * entry + WVM_PAGE_BYTES - 1) / WVM_PAGE_BYTES;
}

int wvm_backing_open(struct wvm_backing *b, const struct wvm_core_vm *vm)
{
	uint64_t units = (vm->pages + WVM_UNIT_PAGES - 1) / WVM_UNIT_PAGES;
	size_t home = table_pages(vm->pages, sizeof(*vm->home));
	size_t held = table_pages(vm->pages, sizeof(*vm->held));
	size_t held_units = table_pages(units, sizeof(*vm->held_units));
	uint8_t *at;

	b->vm = *vm;
	b->bytes = home + held + held_units + table_pages(units, sizeof(*vm->units));
	/* Sparse as the tables are. */
	at = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return -ENOMEM;
	b->home = at;
	b->held = at + home;
	b->held_units = at + home + held;
	b->units = b->held_units + held_units;
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

	do
		r = madvise(at, len, MADV_POPULATE_WRITE);
	while (r && (errno == EINTR || errno == EAGAIN));
	if (!r)
		return 0;
	return errno == EFAULT ? -ENOSPC : -errno; /* EFAULT: a touch would be a SIGBUS */
}

/* Shards share pages of the tables, and mark them for each other; a mark is only ever set. */
static bool has(uint8_t *marks, void *table, uint64_t index, size_t entry)
{
	uint64_t i = index * entry / WVM_PAGE_BYTES;

	if (__atomic_load_n(&marks[i], __ATOMIC_RELAXED))
		return true;
	if (wvm_backing_fill((uint8_t *)table + i * WVM_PAGE_BYTES, WVM_PAGE_BYTES))
		return false;
	__atomic_store_n(&marks[i], 1, __ATOMIC_RELAXED);
	return true;
}

bool wvm_backing_held_unit(struct wvm_backing *b, uint64_t page)
{
	return has(b->held_units, b->vm.held_units, page / WVM_UNIT_PAGES,
		   sizeof(*b->vm.held_units));
}

bool wvm_backing_held(struct wvm_backing *b, uint64_t page)
{
	return wvm_backing_held_unit(b, page) &&
	       has(b->held, b->vm.held, page, sizeof(*b->vm.held));
}

bool wvm_backing_unit(struct wvm_backing *b, uint64_t page)
{
	return has(b->units, b->vm.units, page / WVM_UNIT_PAGES, sizeof(*b->vm.units));
}

bool wvm_backing_home(struct wvm_backing *b, uint64_t page)
{
	return wvm_backing_unit(b, page) && has(b->home, b->vm.home, page, sizeof(*b->vm.home));
}

bool wvm_backing_store(struct wvm_backing *b, uint64_t page)
{
	return b->vm.home[page].flags & WVM_HOME_WRITTEN ||
	       !wvm_backing_fill(b->vm.store + page * WVM_PAGE_BYTES, WVM_PAGE_BYTES);
}

#include "place.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "floor.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* linux 6.1 */
#endif
#define HUGE_PAGE (UINT64_C(2) << 20)

/* Aligned to huge pages, so that the file can have them. */
static void *map_aligned(int fd, uint64_t bytes)
{
	uint8_t *at = mmap(NULL, bytes + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return at;
	at += HUGE_PAGE - (uintptr_t)at % HUGE_PAGE;
	return mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
}

/* The kernel makes a huge page of a range that has one page at least, whatever its policy is. */
static void make_huge(struct place *p)
{
	if (p->done % HUGE_PAGE || p->bytes - p->done < HUGE_PAGE)
		return;
	p->mapping[p->done] = 0;
	if (madvise(p->mapping + p->done, HUGE_PAGE, MADV_COLLAPSE))
		floor_die("a huge page for the stream");
}

void place_open(struct place *p, uint64_t bytes, bool huge)
{
	void *at = MAP_FAILED;

	p->fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	p->bytes = bytes;
	p->huge = huge;
	p->run = aligned_alloc(FLOOR_PAGE, PLACE_RUN + FLOOR_PAGE);
	if (p->fd >= 0 && ftruncate(p->fd, (off_t)bytes) == 0)
		at = map_aligned(p->fd, bytes);
	if (!p->run || at == MAP_FAILED)
		floor_die("a file for the stream on /dev/shm");
	madvise(at, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(p->run, 1, PLACE_RUN + FLOOR_PAGE);
	p->mapping = at;
}

uint8_t *place_for(struct place *p, uint64_t at)
{
	return p->run + (at - p->done);
}

static void write_run(struct place *p, uint64_t len)
{
	if (p->huge)
		make_huge(p);
	if (pwrite(p->fd, p->run, len, (off_t)p->done) != (ssize_t)len)
		floor_die("no room for the stream on /dev/shm");
	for (uint64_t i = p->done / 8; i < (p->done + len) / 8; i++)
		p->sum += ((const uint64_t *)p->mapping)[i];
	p->done += len;
}

void place_have(struct place *p, uint64_t have)
{
	while (have - p->done >= PLACE_RUN) {
		write_run(p, PLACE_RUN);
		/* A segment does not end where a run does. */
		memmove(p->run, p->run + PLACE_RUN, have - p->done);
	}
	if (have == p->bytes && p->done < have)
		write_run(p, have - p->done);
}

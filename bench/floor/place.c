#include "place.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "floor.h"

void place_open(struct place *p, uint64_t bytes)
{
	void *at = MAP_FAILED;

	p->fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	p->bytes = bytes;
	p->run = aligned_alloc(FLOOR_PAGE, PLACE_RUN + FLOOR_PAGE);
	if (p->fd >= 0 && ftruncate(p->fd, (off_t)bytes) == 0)
		at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, p->fd, 0);
	if (!p->run || at == MAP_FAILED)
		floor_die("a file for the stream on /dev/shm");
	madvise(at, bytes, MADV_NOHUGEPAGE);
	memset(p->run, 1, PLACE_RUN + FLOOR_PAGE);
	p->mapping = at;
}

uint8_t *place_for(struct place *p, uint64_t at)
{
	return p->run + (at - p->done);
}

static void write_run(struct place *p, uint64_t len)
{
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

/*
 * A disk made by `init --make-disk FILE MIB [SEED]` on the host holds page
 * number b in block b. The guest reads all of it by direct I/O, so that the
 * disk's DMA goes straight to the pages that are checked, then writes every
 * block anew and reads it back.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#define CHUNK       (64 * PAGE_SIZE)
#define DISK_PAGE   (1ull << 41) /* page numbers that no page of memory has */
#define MADE        1
#define REWRITTEN   2
#define DISK_WAIT_S 5

static void fill_chunk(uint64_t *words, uint64_t chunk, uint64_t generation)
{
	for (unsigned i = 0; i < CHUNK / PAGE_SIZE; i++)
		page_fill(words + i * PAGE_WORDS, DISK_PAGE + chunk * (CHUNK / PAGE_SIZE) + i,
			  generation, 0);
}

static void check_chunk(const uint64_t *words, uint64_t chunk, uint64_t generation)
{
	for (unsigned i = 0; i < CHUNK / PAGE_SIZE; i++)
		page_check(words + i * PAGE_WORDS, DISK_PAGE + chunk * (CHUNK / PAGE_SIZE) + i,
			   generation, 0, "disk");
}

static bool transfer(int fd, uint64_t *words, uint64_t chunk, bool writing)
{
	const off_t at = (off_t)(chunk * CHUNK);
	const ssize_t n = writing ? pwrite(fd, words, CHUNK, at) : pread(fd, words, CHUNK, at);

	if (n == (ssize_t)CHUNK)
		return true;
	report("disk: %s of chunk %llu: %s", writing ? "write" : "read", (unsigned long long)chunk,
	       n < 0 ? strerror(errno) : "short");
	return false;
}

static bool read_all(int fd, uint64_t *words, uint64_t chunks, uint64_t generation)
{
	for (uint64_t c = 0; c < chunks; c++) {
		if (!transfer(fd, words, c, false))
			return false;
		check_chunk(words, c, generation);
	}
	return true;
}

static bool write_all(int fd, uint64_t *words, uint64_t chunks, uint64_t generation)
{
	for (uint64_t c = 0; c < chunks; c++) {
		fill_chunk(words, c, generation);
		if (!transfer(fd, words, c, true))
			return false;
	}
	return fsync(fd) == 0;
}

static int open_disk(void)
{
	static const char *const names[] = {"/dev/vda", "/dev/sda"};
	const double end = seconds_now() + DISK_WAIT_S;

	do {
		for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			const int fd = open(names[i], O_RDWR | O_DIRECT | O_CLOEXEC);

			if (fd >= 0)
				return fd;
		}
		usleep(50 * 1000);
	} while (seconds_now() < end);
	return -1;
}

void test_disk(void)
{
	uint64_t *words = aligned_alloc(PAGE_SIZE, CHUNK);
	const int fd = open_disk();
	const double start = seconds_now();
	uint64_t bytes = 0;

	if (fd < 0 || !words || ioctl(fd, BLKGETSIZE64, &bytes) || bytes < CHUNK) {
		report("disk: there is none");
	} else if (read_all(fd, words, bytes / CHUNK, MADE) &&
		   write_all(fd, words, bytes / CHUNK, REWRITTEN) &&
		   read_all(fd, words, bytes / CHUNK, REWRITTEN)) {
		printf("disk       %llu MiB read, written and read, %.2f s, %llu errors so far\n",
		       (unsigned long long)(bytes / MIB), seconds_now() - start, errors);
	} else {
		report("disk: test given up");
	}
	if (fd >= 0)
		close(fd);
	free(words);
}

int make_disk(const char *path, uint64_t mib)
{
	const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	uint64_t *words = aligned_alloc(PAGE_SIZE, CHUNK);
	int rc = 0;

	if (fd < 0 || !words || !write_all(fd, words, mib * MIB / CHUNK, MADE)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		rc = 1;
	}
	if (fd >= 0)
		close(fd);
	free(words);
	return rc;
}

/* wvm.swap=1: /dev/vda is memory to swap to, whatever is on it. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/swap.h>
#include <unistd.h>

#define DISK_WAIT_S 5

/* The first page of a swap area, as the kernel reads it (include/linux/swap.h, union swap_header).
 */
struct swap_header {
	char boot[1024];
	uint32_t version, last_page, bad_pages;
	char unused[PAGE_SIZE - 1024 - 3 * sizeof(uint32_t) - 10];
	char magic[10];
} __attribute__((packed));
_Static_assert(sizeof(struct swap_header) == PAGE_SIZE, "one page");

static int open_disk(void)
{
	const double end = seconds_now() + DISK_WAIT_S;
	int fd;

	while ((fd = open("/dev/vda", O_RDWR | O_CLOEXEC)) < 0 && seconds_now() < end)
		usleep(50 * 1000);
	return fd;
}

static bool write_header(int fd, uint64_t bytes)
{
	struct swap_header header = {.version = 1, .last_page = (uint32_t)(bytes / PAGE_SIZE - 1)};

	memcpy(header.magic, "SWAPSPACE2", sizeof(header.magic));
	return pwrite(fd, &header, sizeof(header), 0) == sizeof(header) && fsync(fd) == 0;
}

void use_swap(void)
{
	const int fd = open_disk();
	uint64_t bytes = 0;

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) || bytes < 16 * PAGE_SIZE) {
		report("swap: there is no disk");
	} else if (!write_header(fd, bytes) || swapon("/dev/vda", 0)) {
		report("swap: %s", strerror(errno));
	} else {
		printf("swap       %llu MiB\n", (unsigned long long)(bytes / MIB));
	}
	if (fd >= 0)
		close(fd);
}

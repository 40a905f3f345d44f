#include "shared/replace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* The name of a file is durable when its directory is. */
static int sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = fsync(fd) ? -errno : 0;
	close(fd);
	return r;
}

static int write_new(const char *path, const uint8_t *bytes, size_t len)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600), r = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, bytes, len);
	if (n != (ssize_t)len)
		r = n < 0 ? -errno : -ENOSPC;
	else if (fdatasync(fd))
		r = -errno;
	if (close(fd) && !r)
		r = -errno;
	return r;
}

int wvm_file_replace(const char *dir, const char *path, const uint8_t *bytes, size_t len)
{
	char temporary[WVM_REPLACE_PATH + 8];
	int r;

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	r = write_new(temporary, bytes, len);
	if (!r && rename(temporary, path))
		r = -errno;
	return r ? r : sync_dir(dir);
}

ssize_t wvm_file_read(const char *path, uint8_t *out, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, out, room);
	if (n < 0)
		n = -errno;
	close(fd);
	return n;
}

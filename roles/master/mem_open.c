#include "roles/master/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "roles/master/mem_priv.h"

struct why {
	char *text;
	size_t len;
};

static int fail(const struct why *why, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(const struct why *why, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->text, why->len, format, args);
	va_end(args);
	return err;
}

/* Whether the mount of this device makes huge pages by itself, by its line in mountinfo. */
static bool mount_is_huge(dev_t dev)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool huge = false;
	char id[32];

	if (!f)
		return false;
	snprintf(id, sizeof(id), "%u:%u", major(dev), minor(dev));
	while (getline(&line, &room, f) > 0) {
		char device[32];

		if (sscanf(line, "%*u %*u %31s", device) != 1 || strcmp(device, id))
			continue;
		huge = strstr(line, "huge=always") || strstr(line, "huge=within_size");
	}
	free(line);
	fclose(f);
	return huge;
}

static bool huge_forced(void)
{
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
	char line[128] = "";
	bool forced;

	if (!f)
		return false;
	forced = fgets(line, sizeof(line), f) && strstr(line, "[force]");
	fclose(f);
	return forced;
}

static int check_filesystem(int fd, const char *path, const struct stat *st, const struct why *why)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return fail(why, -errno, "%s: %s", path, strerror(errno));
	if ((unsigned long)fs.f_type == HUGETLBFS_MAGIC)
		return fail(why, -EMEDIUMTYPE,
			    "%s is on hugetlbfs, whose pages cannot be kept coherent in units of "
			    "4 KiB: put the RAM file on a tmpfs such as /dev/shm",
			    path);
	if ((unsigned long)fs.f_type != TMPFS_MAGIC)
		return fail(why, -EMEDIUMTYPE,
			    "%s is not on a tmpfs: put the RAM file under /dev/shm", path);
	if (mount_is_huge(st->st_dev))
		return fail(why, -EMEDIUMTYPE,
			    "%s is on a tmpfs with huge pages: mount it with huge=never", path);
	if (huge_forced())
		return fail(why, -EMEDIUMTYPE,
			    "huge pages are forced for every tmpfs: write 'never' to "
			    "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
	return 0;
}

/* The lock ends with the process; it keeps a second master off the same file. */
static int lock_file(int fd, const char *path, const struct why *why)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return fail(why, -EBUSY,
			    "%s is in use by another master: give each its own --shm-file", path);
	return fail(why, -errno, "%s: cannot lock: %s", path, strerror(errno));
}

static int size_file(int fd, const char *path, const struct stat *st, uint64_t size,
		     enum wvm_mem_open_how how, const struct why *why)
{
	if (st->st_size && (uint64_t)st->st_size != size)
		return fail(why, -EEXIST,
			    "%s has %lld bytes but the VM has %llu: remove the file, or give the "
			    "VM its size",
			    path, (long long)st->st_size, (unsigned long long)size);
	if (!st->st_size && ftruncate(fd, (off_t)size))
		return fail(why, -errno, "%s: cannot make it %llu bytes long: %s", path,
			    (unsigned long long)size, strerror(errno));
	if (how == WVM_MEM_ADOPT)
		return 0;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)size))
		return fail(why, -errno, "%s: cannot empty it: %s", path, strerror(errno));
	if (lseek(fd, 0, SEEK_DATA) >= 0 || errno != ENXIO)
		return fail(why, -EBUSY, "%s does not become empty: another program writes to it",
			    path);
	return 0;
}

static int open_file(struct wvm_mem *vm, const char *path, enum wvm_mem_open_how how,
		     const struct why *why)
{
	struct stat st;
	char *real;
	int fd, ret;

	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(why, -errno, "cannot open the RAM file %s: %s", path, strerror(errno));
	ret = -EINVAL;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		fail(why, ret, "%s is not a regular file", path);
		goto err_close;
	}
	real = realpath(path, NULL);
	if (!real || strlen(real) >= sizeof(vm->path)) {
		fail(why, ret, "%s: its absolute path is longer than %zu bytes", path,
		     sizeof(vm->path) - 1);
		free(real);
		goto err_close;
	}
	strcpy(vm->path, real);
	free(real);
	ret = check_filesystem(fd, path, &st, why);
	if (!ret)
		ret = lock_file(fd, path, why);
	if (!ret)
		ret = size_file(fd, path, &st, vm->size, how, why);
	if (ret)
		goto err_close;
	vm->fd = fd;
	return 0;

err_close:
	close(fd);
	return ret;
}

int wvm_mem_open(struct wvm_memory *node, struct wvm_mem **out, uint16_t vm_id, const char *path,
		 uint64_t size, enum wvm_mem_open_how how, char *err, size_t err_len)
{
	struct why why = {.text = err, .len = err_len};
	struct wvm_mem *vm = &node->vm[node->vms];
	int ret;

	if (!size || size % WVM_PAGE_SIZE || size > INT64_MAX)
		return fail(&why, -EINVAL, "VM %u: %llu bytes is not a multiple of 4096", vm_id,
			    (unsigned long long)size);
	if (wvm_memory_vm(node, vm_id))
		return fail(&why, -EINVAL, "VM %u is named twice", vm_id);
	if (node->vms == WVM_RING_VMS_MAX)
		return fail(&why, -ENOSPC, "VM %u: a node serves at most %u VMs", vm_id,
			    WVM_RING_VMS_MAX);
	*vm = (struct wvm_mem){.node = node, .size = size, .fd = -1, .vm_id = vm_id};
	ret = open_file(vm, path, how, &why);
	if (ret)
		return ret;
	node->vms++;
	*out = vm;
	return 0;
}

int wvm_mem_unlink(struct wvm_mem *vm)
{
	return unlink(vm->path) ? -errno : 0;
}

void wvm_mem_close(struct wvm_mem *vm)
{
	if (vm->fd >= 0)
		close(vm->fd);
	vm->fd = -1;
}

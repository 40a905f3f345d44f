#include "roles/master/state.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARK "state" /* <prefix>.state exists as long as the other files mean something */

#define LIFE_BYTES 4096u

static int failed(int error, const char *path, const char *step, char *err, size_t err_len)
{
	snprintf(err, err_len, "%s: cannot %s: %s", path, step, strerror(error));
	return -error;
}

static void remove_left_over(const char *prefix)
{
	static const char *const kinds[] = {"home",  "units",  "held",   "held_units",
					    "store", "outbox", "durable"};
	char pattern[256];

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		glob_t found;

		snprintf(pattern, sizeof(pattern), "%s.*.%s", prefix, kinds[i]);
		if (glob(pattern, GLOB_NOSORT, NULL, &found))
			continue;
		for (size_t k = 0; k < found.gl_pathc; k++)
			unlink(found.gl_pathv[k]);
		globfree(&found);
	}
}

/* The lock ends with the process; it tells a living master's files from a killed one's. */
static int lock_mark(int fd, const char *path, char *err, size_t err_len)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return failed(errno, path, "lock it", err, err_len);
	snprintf(err, err_len, "%s: another master is using it: give each its own --shm-file",
		 path);
	return -EBUSY;
}

/* Whether the file of this descriptor still has that name. */
static bool is_named(int fd, const char *path)
{
	struct stat mine, there;

	return !fstat(fd, &mine) && !stat(path, &there) && mine.st_dev == there.st_dev &&
	       mine.st_ino == there.st_ino;
}

/* Opens and locks the mark, whoever's it was; *stale: a killed master's. */
static int take_mark(const char *path, int *out, bool *stale, char *err, size_t err_len)
{
	for (;;) {
		int fd, r;

		*stale = true;
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT) {
			*stale = false;
			fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
			if (fd < 0 && errno == EEXIST)
				continue; /* another master, this moment */
		}
		if (fd < 0)
			return failed(errno, path, "create the file", err, err_len);
		r = lock_mark(fd, path, err, err_len);
		if (!r && is_named(fd, path)) {
			*out = fd;
			return 0;
		}
		close(fd);
		if (r)
			return r;
	}
}

static int map_life(struct wvm_state *s, const char *path, char *err, size_t err_len)
{
	void *at;
	int error = posix_fallocate(s->lock_fd, 0, LIFE_BYTES);

	if (error)
		return failed(error, path, "make it one page long", err, err_len);
	at = mmap(NULL, LIFE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, s->lock_fd, 0);
	if (at == MAP_FAILED)
		return failed(errno, path, "map it", err, err_len);
	s->life = at;
	return 0;
}

/* What of the command line or the topology is not as it was. */
static const char *difference(const struct wvm_life_shape *was, const struct wvm_life_shape *is)
{
	if (was->layout != is->layout)
		return "by another version of wavevm_node_master";
	if (was->shards != is->shards)
		return "with another number of --shards";
	if (was->members != is->members)
		return "as a node of another topology";
	/* They depend on the shards and the topology as well. */
	if (was->durable_bytes != is->durable_bytes)
		return "by another version of wavevm_node_master";
	if (was->placed != is->placed)
		return "with other PLACE or SPARE lines in its topology";
	if (was->vm_count != is->vm_count || memcmp(was->vms, is->vms, sizeof(was->vms)))
		return "with other VMs (--vm)";
	return NULL;
}

int wvm_state_open(struct wvm_state *s, const char *prefix, bool fresh,
		   const struct wvm_life_shape *shape, char *err, size_t err_len)
{
	const char *other;
	char path[256];
	bool stale;
	int r;

	memset(s, 0, sizeof(*s));
	snprintf(path, sizeof(path), "%s." MARK, prefix);
	r = take_mark(path, &s->lock_fd, &stale, err, err_len);
	if (!r) {
		r = map_life(s, path, err, err_len);
		if (r)
			close(s->lock_fd);
	}
	if (r)
		return r;
	s->adopting = stale && !fresh && s->life->magic == WVM_LIFE_MAGIC;
	other = s->adopting ? difference(&s->life->shape, shape) : NULL;
	if (other) {
		snprintf(
			err, err_len,
			"%s: a master that was killed left its pages here, and it ran %s: start it "
			"as it was to go on with them, or stop all nodes and start each with "
			"--fresh",
			path, other);
		munmap(s->life, LIFE_BYTES);
		close(s->lock_fd);
		return -EEXIST;
	}
	if (!s->adopting) {
		memset(s->life, 0, LIFE_BYTES);
		remove_left_over(prefix);
	}
	snprintf(s->prefix, sizeof(s->prefix), "%s", prefix);
	return 0;
}

void wvm_state_publish(struct wvm_state *s, const struct wvm_life_shape *shape, uint16_t boot_first,
		       uint32_t epoch)
{
	s->life->shape = *shape;
	s->life->epoch = epoch;
	s->life->boot_first = boot_first;
	__atomic_store_n(&s->life->magic, WVM_LIFE_MAGIC, __ATOMIC_RELEASE);
}

static void set_ids(struct wvm_life *life, const uint64_t *ids)
{
	uint64_t other = !life->current;

	memcpy(life->ids[other], ids, sizeof(life->ids[other]));
	__atomic_store_n(&life->current, other, __ATOMIC_RELEASE);
}

/* When there are too many the oldest but the first go: their programs had the least time to attach.
 */
void wvm_life_begin(struct wvm_life *life, uint64_t boot_id, bool adopting)
{
	uint64_t ids[WVM_RING_ADOPTS_MAX] = {0};
	unsigned n = 0;

	if (adopting)
		memcpy(ids, life->ids[life->current & 1], sizeof(ids));
	while (n < WVM_RING_ADOPTS_MAX && ids[n])
		n++;
	if (n == WVM_RING_ADOPTS_MAX)
		memmove(&ids[1], &ids[2], (--n - 1) * sizeof(ids[0]));
	ids[n] = boot_id;
	set_ids(life, ids);
}

void wvm_life_complete(struct wvm_life *life, uint64_t boot_id)
{
	set_ids(life, (const uint64_t[WVM_RING_ADOPTS_MAX]){boot_id});
}

int wvm_state_map(struct wvm_state *s, const char *name, size_t len, void **out, char *err,
		  size_t err_len)
{
	char path[sizeof(s->maps[0].path)];
	int fd, error;
	struct stat st;
	void *at;

	if (s->count == WVM_STATE_MAPS_MAX)
		return failed(ENOSPC, name, "keep one more state file", err, err_len);
	snprintf(path, sizeof(path), "%s.%s", s->prefix, name);
	fd = open(path, (s->adopting ? 0 : O_CREAT | O_TRUNC) | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return failed(errno, path, s->adopting ? "open it" : "create the file", err,
			      err_len);
	at = MAP_FAILED;
	errno = 0;
	if (s->adopting ? !fstat(fd, &st) && (size_t)st.st_size == len : !ftruncate(fd, (off_t)len))
		at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	error = errno ? errno : EPROTO;
	close(fd);
	if (at == MAP_FAILED) {
		if (!s->adopting)
			unlink(path);
		return failed(error, path, "map it", err, err_len);
	}
	madvise(at, len, MADV_NOHUGEPAGE);
	memcpy(s->maps[s->count].path, path, sizeof(path));
	s->maps[s->count].at = at;
	s->maps[s->count].len = len;
	s->count++;
	*out = at;
	return 0;
}

static const char *path_of(const struct wvm_state *s, const void *at)
{
	for (unsigned i = 0; i < s->count; i++)
		if (s->maps[i].at == at)
			return s->maps[i].path;
	return NULL;
}

int wvm_state_scan(const struct wvm_state *s, const void *at, size_t entry, wvm_state_run_fn *fn,
		   void *ctx)
{
	int fd = open(path_of(s, at), O_RDONLY | O_CLOEXEC);
	off_t data, hole = 0;

	if (fd < 0)
		return -errno;
	while ((data = lseek(fd, hole, SEEK_DATA)) >= 0) {
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			break;
		fn(ctx, (uint64_t)data / entry, (uint64_t)hole / entry);
	}
	close(fd);
	return 0;
}

int wvm_state_vm(struct wvm_state *s, struct wvm_core_vm *vm, char *err, size_t err_len)
{
	uint64_t pages = vm->pages, units = (pages + WVM_UNIT_PAGES - 1) / WVM_UNIT_PAGES;
	struct {
		const char *kind;
		size_t len;
		void *at;
	} f[] = {{"home", pages * sizeof(*vm->home), NULL},
		 {"units", units * sizeof(*vm->units), NULL},
		 {"held", pages * sizeof(*vm->held), NULL},
		 {"held_units", units * sizeof(*vm->held_units), NULL},
		 {"store", pages * WVM_PAGE_BYTES, NULL}};

	for (size_t i = 0; i < sizeof(f) / sizeof(f[0]); i++) {
		char name[32];
		int r;

		snprintf(name, sizeof(name), "%u.%s", vm->id, f[i].kind);
		r = wvm_state_map(s, name, f[i].len, &f[i].at, err, err_len);
		if (r)
			return r;
	}
	vm->home = f[0].at;
	vm->units = f[1].at;
	vm->held = f[2].at;
	vm->held_units = f[3].at;
	vm->store = f[4].at;
	return 0;
}

uint64_t wvm_state_bytes(const struct wvm_state *s, uint64_t *store_bytes)
{
	uint64_t sum = 0;

	*store_bytes = 0;
	for (unsigned i = 0; i < s->count; i++) {
		const char *path = s->maps[i].path;
		size_t n = strlen(path);
		struct stat st;

		if (stat(path, &st))
			continue;
		sum += (uint64_t)st.st_blocks * 512;
		if (n > 6 && !strcmp(path + n - 6, ".store"))
			*store_bytes += (uint64_t)st.st_blocks * 512;
	}
	return sum;
}

void wvm_state_close(struct wvm_state *s, bool remove)
{
	char path[256];

	for (unsigned i = 0; i < s->count; i++) {
		munmap(s->maps[i].at, s->maps[i].len);
		if (remove)
			unlink(s->maps[i].path);
	}
	s->count = 0;
	if (!s->prefix[0])
		return;
	if (remove) {
		snprintf(path, sizeof(path), "%s." MARK, s->prefix);
		unlink(path);
	}
	munmap(s->life, LIFE_BYTES);
	close(s->lock_fd);
	s->prefix[0] = 0;
}

/* Writes value to path so that a crash leaves the old or the new one. */
static int replace(const char *path, unsigned value)
{
	char temporary[300], text[16];
	int n = snprintf(text, sizeof(text), "%u\n", value), fd, error = 0;

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	fd = open(temporary, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)n) != n || fsync(fd))
		error = errno;
	if (close(fd) && !error)
		error = errno;
	if (!error && rename(temporary, path))
		error = errno;
	return -error;
}

/* The whole text is one number and the end of its line: a torn or edited file is not guessed at. */
static bool boot_number(const char *text, size_t len, unsigned long *out)
{
	size_t i = 0;

	for (*out = 0; i < len && text[i] >= '0' && text[i] <= '9'; i++)
		*out = *out * 10 + (unsigned long)(text[i] - '0');
	return i && i + 1 == len && text[i] == '\n' && *out <= UINT16_MAX;
}

int wvm_state_boot(const char *dir, uint32_t phys_id, uint16_t *boot, char *err, size_t err_len)
{
	char path[280], text[16];
	unsigned long last = 0;
	int fd, r;

	if (mkdir(dir, 0755) && errno != EEXIST)
		return failed(errno, dir, "create the state directory (--state-dir)", err, err_len);
	snprintf(path, sizeof(path), "%.200s/boot.%u", dir, phys_id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t n = read(fd, text, sizeof(text));

		close(fd);
		/* A text that fills the buffer may go on behind it. */
		if (n == sizeof(text) || n < 0 || !boot_number(text, (size_t)n, &last)) {
			snprintf(err, err_len,
				 "%s: does not hold a boot number; write a number above every "
				 "earlier one into it",
				 path);
			return -EINVAL;
		}
	} else if (errno != ENOENT) {
		return failed(errno, path, "open it", err, err_len);
	}
	*boot = last == UINT16_MAX ? 1 : (uint16_t)(last + 1);
	r = replace(path, *boot);
	return r ? failed(-r, path, "write it", err, err_len) : 0;
}

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/client_priv.h"

static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER;
static struct wvm_ring_file *files;

/* A fork() must not catch the lock in another thread's hand. */
static void before_fork(void)
{
	pthread_mutex_lock(&files_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&files_lock);
}

static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork, after_fork);
}

static struct wvm_ring_file *find(const struct stat *st)
{
	for (struct wvm_ring_file *f = files; f; f = f->next)
		if (f->dev == st->st_dev && f->ino == st->st_ino)
			return f;
	return NULL;
}

/* path_fd is an O_PATH descriptor: closing it drops no lock. */
static int open_new(struct wvm_ring_file **out, int path_fd, const struct stat *st,
		    const char *path)
{
	struct wvm_ring_file *f;
	char name[64];

	f = calloc(1, sizeof(*f));
	if (!f)
		return wvm_client_fail(-ENOMEM, "out of memory");
	snprintf(name, sizeof(name), "/proc/self/fd/%d", path_fd);
	f->fd = open(name, O_RDWR | O_CLOEXEC);
	if (f->fd < 0) {
		int err = -errno;

		free(f);
		return wvm_client_fail(err, "cannot open the ring file %s: %s", path,
				       strerror(-err));
	}
	f->dev = st->st_dev;
	f->ino = st->st_ino;
	f->refs = 1;
	f->next = files;
	files = f;
	*out = f;
	return 0;
}

int wvm_ring_file_get(struct wvm_ring_file **out, const char *path)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct stat st;
	int fd, ret = 0;

	pthread_once(&once, watch_forks);
	fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return wvm_client_fail(ret, "cannot open the ring file %s: %s%s", path,
				       strerror(-ret),
				       ret == -ENOENT ? " (is the master running?)" : "");
	}
	if (!S_ISREG(st.st_mode)) {
		close(fd);
		return wvm_client_fail(-EPROTO, "%s is not a ring file", path);
	}
	pthread_mutex_lock(&files_lock);
	*out = find(&st);
	if (*out)
		(*out)->refs++;
	else
		ret = open_new(out, fd, &st, path);
	pthread_mutex_unlock(&files_lock);
	close(fd);
	return ret;
}

void wvm_ring_file_put(struct wvm_ring_file *f)
{
	struct wvm_ring_file **at = &files;

	pthread_mutex_lock(&files_lock);
	if (--f->refs) {
		pthread_mutex_unlock(&files_lock);
		return;
	}
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	pthread_mutex_unlock(&files_lock);
	close(f->fd);
	free(f);
}

static int set_lock(struct wvm_ring_file *f, unsigned slot, short type)
{
	struct flock lock = {.l_type = type,
			     .l_whence = SEEK_SET,
			     .l_start = wvm_ring_slot_offset(slot),
			     .l_len = WVM_RING_SLOT_BYTES};

	return fcntl(f->fd, F_SETLK, &lock) ? -errno : 0;
}

static bool left_clean(struct wvm_ring_file *f, unsigned slot)
{
	uint64_t claim = 0;
	ssize_t n = pread(f->fd, &claim, sizeof(claim), wvm_ring_slot_offset(slot));

	return n != (ssize_t)sizeof(claim) || !claim;
}

int wvm_ring_file_claim(struct wvm_ring_file *f)
{
	int found = -EUSERS;

	pthread_mutex_lock(&files_lock);
	/* A slot whose owner was killed is still being cleared by the master: those come last. */
	for (unsigned pass = 0; pass < 2 && found < 0; pass++) {
		for (unsigned i = 0; i < WVM_CLIENTS_MAX && found < 0; i++) {
			if (f->claimed & 1ull << i || (!pass && !left_clean(f, i)) ||
			    set_lock(f, i, F_WRLCK))
				continue;
			f->claimed |= 1ull << i;
			found = (int)i;
		}
	}
	pthread_mutex_unlock(&files_lock);
	return found < 0 ? wvm_client_fail(found, "all %u client slots of the master are taken",
					   WVM_CLIENTS_MAX)
			 : found;
}

void wvm_ring_file_release(struct wvm_ring_file *f, unsigned slot)
{
	uint64_t nobody = 0;

	pthread_mutex_lock(&files_lock);
	/* Without it the slot is only taken later than clean ones. */
	if (pwrite(f->fd, &nobody, sizeof(nobody), wvm_ring_slot_offset(slot)) < 0)
		errno = 0;
	(void)set_lock(f, slot, F_UNLCK);
	f->claimed &= ~(1ull << slot);
	pthread_mutex_unlock(&files_lock);
}

int wvm_ring_file_header(struct wvm_ring_file *f, struct wvm_ring_header *h)
{
	ssize_t n = pread(f->fd, h, sizeof(*h), 0);

	if (n != (ssize_t)sizeof(*h) || h->magic != WVM_RING_MAGIC)
		return wvm_client_fail(-EPROTO, "this is not a ring file of a WaveVM master");
	if (h->layout != WVM_RING_LAYOUT)
		return wvm_client_fail(-EPROTO,
				       "the master speaks ring layout %u, this program %u: install "
				       "the same version of both",
				       h->layout, WVM_RING_LAYOUT);
	if (!h->shard_count || h->shard_count > WVM_RING_SHARDS_MAX ||
	    h->vm_count > WVM_RING_VMS_MAX || h->node_id > INT32_MAX)
		return wvm_client_fail(-EPROTO, "the ring file's header is damaged");
	if (!h->boot_id)
		return wvm_client_fail(-ECONNREFUSED, "the master is not serving yet");
	for (unsigned i = 0; i < h->vm_count; i++)
		h->vms[i].ram_path[WVM_RING_RAM_PATH - 1] = '\0';
	return 0;
}

pid_t wvm_ring_file_master(struct wvm_ring_file *f)
{
	struct flock lock = {.l_type = F_WRLCK,
			     .l_whence = SEEK_SET,
			     .l_start = 0,
			     .l_len = WVM_RING_LOCK_BYTES};

	if (fcntl(f->fd, F_GETLK, &lock) || lock.l_type == F_UNLCK || lock.l_pid <= 0)
		return 0;
	return lock.l_pid;
}

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "roles/master/clients_priv.h"

/*
 * A lock by F_SETLK tells clients our pid, which one by F_OFD_SETLK would not.
 * But it falls as soon as any descriptor of that file is closed through the same
 * descriptor table, and a client may hand us such a descriptor as its "eventfd".
 * So the lock belongs to a thread with a descriptor table of its own, which holds
 * nothing but the ring file and does nothing but end.
 */
struct header_lock {
	pthread_t thread;
	int fd;
	int result;
	pid_t owner;
	sem_t locked, unlock;
};

static void wait_for(sem_t *s)
{
	while (sem_wait(s))
		;
}

static int own_table(int fd)
{
	if (syscall(SYS_close_range, fd + 1, ~0u, CLOSE_RANGE_UNSHARE))
		return -errno;
	return fd > 0 && syscall(SYS_close_range, 0, fd - 1, 0) ? -errno : 0;
}

static int take(struct header_lock *l)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = WVM_RING_LOCK_BYTES};

	if (!fcntl(l->fd, F_SETLK, &lock))
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return -errno;
	if (!fcntl(l->fd, F_GETLK, &lock) && lock.l_type != F_UNLCK)
		l->owner = lock.l_pid;
	return -EADDRINUSE;
}

static void *hold(void *arg)
{
	struct header_lock *l = arg;

	l->result = own_table(l->fd);
	if (!l->result)
		l->result = take(l);
	sem_post(&l->locked);
	wait_for(&l->unlock);
	return NULL; /* the table goes with its last thread, and the lock with it */
}

int wvm_header_lock(struct header_lock **out, int fd, pid_t *owner)
{
	struct header_lock *l = calloc(1, sizeof(*l));
	sigset_t all, before;
	int ret;

	if (!l)
		return -ENOMEM;
	l->fd = fd;
	sem_init(&l->locked, 0, 0);
	sem_init(&l->unlock, 0, 0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = -pthread_create(&l->thread, NULL, hold, l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret) {
		free(l);
		return ret;
	}
	wait_for(&l->locked);
	ret = l->result;
	*owner = l->owner;
	if (ret)
		wvm_header_unlock(l);
	else
		*out = l;
	return ret;
}

void wvm_header_unlock(struct header_lock *l)
{
	sem_post(&l->unlock);
	pthread_join(l->thread, NULL);
	free(l);
}

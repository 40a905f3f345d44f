/*
 * Preloaded into a master by check_deaths.c: io_uring_enter2(2) fails from the
 * moment on at which the file that WVM_BREAK_FILE names exists, in one of its shards.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_the_one(void)
{
	static __thread int known; /* 1: no, 2: yes */
	char name[16] = "";

	if (!known) {
		prctl(PR_GET_NAME, name);
		known = strcmp(name, "wvm-shard-1") ? 1 : 2;
	}
	return known == 2;
}

int io_uring_enter2(unsigned fd, unsigned submit, unsigned complete, unsigned flags, void *sig,
		    size_t size);

int io_uring_enter2(unsigned fd, unsigned submit, unsigned complete, unsigned flags, void *sig,
		    size_t size)
{
	const char *path = getenv("WVM_BREAK_FILE");
	long r;

	if (path && is_the_one() && !access(path, F_OK))
		return -EBADF;
	r = syscall(SYS_io_uring_enter, fd, submit, complete, flags, sig, size);
	return r < 0 ? -errno : (int)r;
}

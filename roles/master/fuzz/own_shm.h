/*
 * A /dev/shm of the fuzz target's own: what it makes there goes with the
 * process, however that ends. Without the right to it (root) it uses the host's.
 */
#ifndef WVM_FUZZ_OWN_SHM_H
#define WVM_FUZZ_OWN_SHM_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mount.h>

static inline void fuzz_own_shm(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "/dev/shm", "tmpfs", 0, "huge=never"))
		return;
}

#endif

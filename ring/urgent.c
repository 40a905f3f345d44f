#include "ring/urgent.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESET_ON_FORK 1u /* SCHED_FLAG_RESET_ON_FORK */

/* As sched_setattr(2) has it; glibc 2.36 has neither. */
struct sched_attr {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period; /* ns; runtime is the slice of SCHED_OTHER */
};

static int set(const struct sched_attr *a)
{
	return syscall(SYS_sched_setattr, 0, a, 0) ? -errno : 0;
}

int wvm_urgent(void)
{
	struct sched_attr a = {0};
	int err;

	if (syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0))
		return -errno;
	if (a.policy != SCHED_OTHER)
		return 0;
	a.size = sizeof(a);
	a.flags |= RESET_ON_FORK;
	a.runtime = WVM_URGENT_SLICE_NS;
	if (a.nice)
		return set(&a);
	a.nice = WVM_URGENT_NICE;
	err = set(&a);
	if (err != -EPERM)
		return err;
	a.nice = 0;
	return set(&a);
}

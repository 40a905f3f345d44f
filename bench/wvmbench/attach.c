#include "bench/wvmbench/attach.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/wvmbench/plan.h"

static void on_error(void *opaque, void *addr, const char *text)
{
	(void)opaque;
	fprintf(stderr, "wvmbench: %s%s\n", addr ? "" : "the master is gone: ", text);
	_exit(1);
}

static void on_sigbus(int signal)
{
	static const char text[] = "wvmbench: a page of the VM could not be had\n";
	ssize_t ignored = write(2, text, sizeof(text) - 1);

	(void)signal;
	(void)ignored;
	_exit(1);
}

static int map_all(struct attached *a)
{
	int64_t size = wvm_vm_size(a->wvm, a->vm_id);

	if (size < 0) {
		fprintf(stderr, "wvmbench: VM %u: %s\n", a->vm_id, strerror((int)-size));
		return (int)size;
	}
	a->pages = (uint64_t)size / WVM_PAGE_SIZE;
	if (a->pages < 2 * PLAN_UNIT_PAGES) {
		fprintf(stderr, "wvmbench: VM %u has only %lld bytes\n", a->vm_id, (long long)size);
		return -EINVAL;
	}
	a->units = (a->pages - MAILBOX_PAGES) / PLAN_UNIT_PAGES;
	a->mem = wvm_map(a->wvm, a->vm_id, 0, a->pages * WVM_PAGE_SIZE, WVM_STRICT);
	if (!a->mem) {
		int rc = -errno;

		fprintf(stderr, "wvmbench: cannot map VM %u: %s\n", a->vm_id, wvm_attach_error());
		return rc;
	}
	mailbox_init(&a->mailbox, attached_page(a, a->pages - MAILBOX_PAGES));
	return 0;
}

int attach_vm(struct attached *a, const char *ring, uint16_t vm_id)
{
	int rc;

	memset(a, 0, sizeof(*a));
	a->vm_id = vm_id;
	signal(SIGBUS, on_sigbus);
	rc = wvm_attach(&a->wvm, ring);
	if (rc < 0) {
		fprintf(stderr, "wvmbench: %s\n", wvm_attach_error());
		return rc;
	}
	wvm_on_error(a->wvm, on_error, NULL);
	a->node = wvm_node_id(a->wvm);
	rc = map_all(a);
	if (rc < 0)
		detach_vm(a);
	return rc;
}

void detach_vm(struct attached *a)
{
	wvm_detach(a->wvm);
	memset(a, 0, sizeof(*a));
}

int pin_to_core(int core)
{
	cpu_set_t set;

	if (core < 0)
		return 0;
	if (core >= CPU_SETSIZE)
		return -EINVAL;
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	return -pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

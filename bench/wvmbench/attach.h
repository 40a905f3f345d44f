/* The VM's memory, attached to by the measuring program and by each peer. */
#ifndef WVMBENCH_ATTACH_H
#define WVMBENCH_ATTACH_H

#include <stdint.h>

#include "bench/wvmbench/mailbox.h"
#include "shared/wavevm.h"

struct attached {
	struct wvm *wvm;
	uint64_t *mem;         /* the whole VM */
	uint64_t pages, units; /* pages of it; whole units in front of the mailbox */
	uint16_t vm_id;
	int node;
	struct mailbox mailbox;
};

/*
 * Attaches to the master behind ring (NULL: the environment) and maps all of a VM. 0, or -errno
 * with one line on standard error. From then on a page that cannot be had ends the program.
 */
int attach_vm(struct attached *a, const char *ring, uint16_t vm_id);
void detach_vm(struct attached *a);

/* The first word of a page. */
static inline uint64_t *attached_page(const struct attached *a, uint64_t page)
{
	return a->mem + page * (WVM_PAGE_SIZE / sizeof(uint64_t));
}

/* Pins the calling thread to a core. 0 or -errno; -1 as core: nothing. */
int pin_to_core(int core);

#endif

/*
 * Atomic instructions that TCG cannot do as one access of the host (misaligned ones, or wider
 * than the host has): it stops all other vCPUs and executes the instruction alone, as
 * loads and stores. Other nodes do not stop. So the pages that it accesses are pinned until
 * it is done: Modified here from before the first load until after the last store.
 *
 * Every access goes through the TLB, which is empty when such a step begins; tlb_fill
 * pins what it fills. A program of this node that maps the same memory is not held off.
 */
#include "qemu/osdep.h"

#include "accel.h"
#include "cpu.h"
#if __has_include("exec/exec-all.h")
#include "exec/exec-all.h"
#endif
#if __has_include("exec/cputlb.h")
#include "exec/cputlb.h"
#endif
#include "step.h"

/* An instruction that locks its operand touches two pages at most. */
#define PINS_MAX     4
#define PIN_PAUSE_US 1000

/* Of the vCPU that runs on this thread. */
static __thread struct {
	bool active;
	unsigned count;
	void *page[PINS_MAX];
} step;

static void unpin_all(void)
{
	while (step.count)
		(void)wvm_unpin(wvm_qemu_cluster(), step.page[--step.count], WVM_PAGE_SIZE);
}

void wvm_qemu_step_enter(CPUState *cs, bool alone)
{
	/* The last step may have left by an exception of the guest. */
	unpin_all();
	step.active = alone;
	if (alone)
		tlb_flush(cs);
}

void wvm_qemu_step_fill(void *page)
{
	int ret;

	if (!step.active || step.count == PINS_MAX)
		return;
	for (unsigned i = 0; i < step.count; i++)
		if (step.page[i] == page)
			return;
	/* A master that is gone is waited for, as in a page fault. */
	while ((ret = wvm_pin(wvm_qemu_cluster(), page, WVM_PAGE_SIZE)) == -EAGAIN ||
	       ret == -EBUSY || ret == -ECONNREFUSED)
		g_usleep(PIN_PAUSE_US);
	/* Memory that is not the cluster's needs none; a page that cannot be had stops the access.
	 */
	if (!ret)
		step.page[step.count++] = page;
}

void wvm_qemu_step_exit(void)
{
	step.active = false;
	unpin_all();
}

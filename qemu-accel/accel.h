/* What the files of WaveVM's QEMU accelerator know of each other. */
#ifndef WVM_QEMU_ACCEL_H
#define WVM_QEMU_ACCEL_H

#include "hw/boards.h"
#include "qapi/error.h"
#include "shared/wavevm.h"
#if QEMU_VERSION_MAJOR >= 10
#include "system/hostmem.h"
#else
#include "sysemu/hostmem.h"
#endif

/* -accel wavevm,split=N[,remote=NODE:NODE...]: where vCPUs run. */
struct wvm_qemu_placement {
	uint32_t split;  /* the first so many run here */
	uint32_t *nodes; /* one for each of the others, the last for all that follow */
	uint32_t count;
	bool report; /* counters on stderr at the end */
};
extern struct wvm_qemu_placement wvm_qemu_placement;

/*
 * remote_deal.c: fills in where `vcpus` of them from split on run, by the topology: one node for
 * each, by shared/deal.h, of those whose slave answers now and has TCG. This node counts with the
 * split that it keeps; it gets more only where it has a slave, too. The master is attached.
 */
bool wvm_qemu_deal(uint32_t vcpus, Error **errp);

/* The text of -cpu, or what stands for it. */
const char *wvm_qemu_cpu_text(MachineState *ms);

#define TYPE_WAVEVM_RAM "memory-backend-wavevm"

/*
 * The accelerators that run the vCPUs: QEMU's own, subclassed so that their
 * vCPU operations can be. The names do not end in "-accel", which keeps them
 * out of -accel's reach: the user selects them by -accel wavevm,backend=.
 */
#define TYPE_WAVEVM_TCG "wavevm-accel-tcg"
#define TYPE_WAVEVM_KVM "wavevm-accel-kvm"

/*
 * wavevm-ram.c: guest RAM. All from the main thread.
 */

/* Attaches to the master named by the environment; vm_id is what a backend without vm-id maps. */
bool wvm_qemu_attach(uint16_t vm_id, Error **errp);

/* The attachment; NULL unless -accel wavevm is in use. */
struct wvm *wvm_qemu_cluster(void);
uint16_t wvm_qemu_vm_id(void);

/* All of the VM's memory in one piece, for a slave, which has no memory of its own. */
void *wvm_qemu_map_vm(uint64_t *size, Error **errp);

/* Where in the VM's memory len bytes at a host address lie; false: not there. */
bool wvm_qemu_offset(const void *host, uint64_t len, uint64_t *offset);

/* Makes the RAM that plain -m asks for come from the cluster. Before the board is created. */
void wvm_qemu_default_ram(MachineState *ms);

/* Does this backend hold memory of the cluster? */
bool wvm_qemu_is_cluster_ram(HostMemoryBackend *backend);

/*
 * guard.c: refuses whatever would reach guest RAM past the memory protocol
 * (that is, by pinned pages), now and when devices or drives are added later.
 */
bool wvm_qemu_guard(Error **errp);

/*
 * parked.c: what happens when a page cannot be had. wvm_qemu_parked_init()
 * once, before the first wvm_map(). wvm_qemu_parked() is a wvm_error_fn.
 */
void wvm_qemu_parked_init(void);
void wvm_qemu_parked(void *opaque, void *addr, const char *text);

/* stale.c: for the class that adapts CPUs to TCG. Translated code of pages that others write. */
void wvm_qemu_stale_class_init(ObjectClass *oc, void *data);

#endif

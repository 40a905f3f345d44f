/*
 * Guest RAM must not be pinned.
 *
 * A page that another node writes is taken out of this node's RAM file. Who
 * has pinned it (O_DIRECT in flight, vhost, VFIO, mlock) would go on with a
 * page that nobody else sees, and who discards or copies pages on its own
 * (ballooning, migration) would undo what the protocol has agreed. All of
 * these are refused, on the command line and when added later.
 */
#include "qemu/osdep.h"

#include "accel.h"
#include "block/block_int.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/mem/pc-dimm.h"
#include "hw/qdev-core.h"
#include "migration/blocker.h"
#include "net/net.h"
#include "net/vhost_net.h"
#include "qemu/error-report.h"
#if QEMU_VERSION_MAJOR >= 10
#include "qobject/qdict.h"
#include "system/numa.h"
#include "system/runstate.h"
#include "system/system.h"
#else
#include "qapi/qmp/qdict.h"
#include "sysemu/numa.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#endif

typedef int open_fn(BlockDriverState *bs, QDict *options, int flags, Error **errp);
typedef int reopen_fn(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp);

/* Block drivers that hand guest pages to hardware or to direct I/O. */
static struct pinning_driver {
	const char *name;
	bool always; /* else only with O_DIRECT */
	open_fn *open;
	reopen_fn *reopen;
} pinning_drivers[] = {
	{.name = "file"},
	{.name = "host_device"},
	{.name = "host_cdrom"},
	{.name = "nvme", .always = true},
	{.name = "io_uring", .always = true},
	{.name = "nvme-io_uring", .always = true},
	{.name = "virtio-blk-vfio-pci", .always = true},
	{.name = "virtio-blk-vhost-user", .always = true},
	{.name = "virtio-blk-vhost-vdpa", .always = true},
};

static struct pinning_driver *find_pinning(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(pinning_drivers); i++) {
		if (!strcmp(pinning_drivers[i].name, name))
			return &pinning_drivers[i];
	}
	return NULL;
}

static bool refuse_pinning(const struct pinning_driver *p, const char *what, int flags,
			   Error **errp)
{
	if (p->always)
		error_setg(errp,
			   "wavevm: drive '%s': driver %s pins guest RAM, which must be free to "
			   "move between nodes; use driver=file",
			   what, p->name);
	else if (flags & BDRV_O_NOCACHE)
		error_setg(errp,
			   "wavevm: drive '%s': O_DIRECT (cache=none, cache.direct=on) pins guest "
			   "RAM, which must be free to move between nodes; use cache=writeback",
			   what);
	else
		return false;
	return true;
}

static int guarded_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
	struct pinning_driver *p = find_pinning(bs->drv->format_name);
	const char *name = qdict_get_try_str(options, "filename");

	if (refuse_pinning(p, name ? name : bdrv_get_device_or_node_name(bs), flags, errp))
		return -ENOTSUP;
	return p->open(bs, options, flags, errp);
}

static int guarded_reopen(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp)
{
	struct pinning_driver *p = find_pinning(state->bs->drv->format_name);

	if (refuse_pinning(p, state->bs->filename, state->flags, errp))
		return -ENOTSUP;
	return p->reopen(state, queue, errp);
}

/* Drives of the command line are open by now; later ones meet guarded_open(). */
static bool guard_drives(Error **errp)
{
	BlockDriverState *bs;
	size_t i;

	for (bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
		struct pinning_driver *p = bs->drv ? find_pinning(bs->drv->format_name) : NULL;

		if (p && refuse_pinning(p, bs->filename, bs->open_flags, errp))
			return false;
	}
	for (i = 0; i < ARRAY_SIZE(pinning_drivers); i++) {
		struct pinning_driver *p = &pinning_drivers[i];
		BlockDriver *drv = bdrv_find_format(p->name);
		open_fn **open;

		if (!drv)
			continue;
#if QEMU_VERSION_MAJOR >= 9
		open = &drv->bdrv_open;
#else
		open = &drv->bdrv_file_open;
#endif
		p->open = *open;
		*open = guarded_open;
		p->reopen = drv->bdrv_reopen_prepare;
		if (p->reopen)
			drv->bdrv_reopen_prepare = guarded_reopen;
	}
	return true;
}

static bool netdev_pins(const char *id)
{
	NetClientState *nc = id ? qemu_find_netdev(id) : NULL;

	if (!nc)
		return false;
	switch (nc->info->type) {
	case NET_CLIENT_DRIVER_VHOST_USER:
	case NET_CLIENT_DRIVER_VHOST_VDPA: return true;
	default: return get_vhost_net(nc) != NULL;
	}
}

static bool is_local_dimm(const char *driver, const char *memdev)
{
	ObjectClass *oc = object_class_by_name(driver);
	Object *backend;

	if (!oc || !memdev || !object_class_dynamic_cast(oc, TYPE_PC_DIMM))
		return false;
	backend = object_resolve_path_type(memdev, TYPE_MEMORY_BACKEND, NULL);
	return backend && !wvm_qemu_is_cluster_ram(MEMORY_BACKEND(backend));
}

/* Asked for every -device and device_add. Nothing is ever hidden, some are refused. */
static bool refuse_device(DeviceListener *listener, const QDict *opts, bool from_json, Error **errp)
{
	const char *driver = qdict_get_try_str(opts, "driver");
	const char *netdev = qdict_get_try_str(opts, "netdev");
	const char *memdev = qdict_get_try_str(opts, "memdev");

	if (!driver)
		return false;
	if (g_str_has_prefix(driver, "vhost-") || g_str_has_prefix(driver, "vfio-"))
		error_setg(errp,
			   "wavevm: device %s lets hardware or another program at guest RAM, which "
			   "must be free to move between nodes; use an emulated or virtio device",
			   driver);
	else if (netdev_pins(netdev))
		error_setg(errp,
			   "wavevm: netdev %s uses vhost, which reaches guest RAM past the memory "
			   "protocol; use vhost=off",
			   netdev);
	else if (is_local_dimm(driver, memdev))
		error_setg(errp,
			   "wavevm: memory '%s' of this node alone cannot be guest RAM; use "
			   "memory-backend-wavevm",
			   memdev);
	return false;
}

static void refuse_local_ram(HostMemoryBackend *backend)
{
	if (!backend || wvm_qemu_is_cluster_ram(backend))
		return;
	/* Whoever chose them wants speed: what they would break, not only that they are local. */
	if (host_memory_backend_pagesize(backend) > WVM_PAGE_SIZE) {
		error_report("wavevm: memory '%s' has huge pages (hugetlbfs), which nodes cannot "
			     "share %u bytes at a time; use memory-backend-wavevm, or leave "
			     "-mem-path out",
			     object_get_canonical_path_component(OBJECT(backend)), WVM_PAGE_SIZE);
		exit(EXIT_FAILURE);
	}
	error_report("wavevm: memory '%s' of this node alone cannot be guest RAM; use "
		     "memory-backend-wavevm, or leave -mem-path out",
		     object_get_canonical_path_component(OBJECT(backend)));
	exit(EXIT_FAILURE);
}

/* What the board made of the options by itself: its RAM, and a NIC with vhost. */
static void check_machine(Notifier *n, void *unused)
{
	MachineState *ms = current_machine;
	MemoryListener *listener;
	int i;

	refuse_local_ram(ms->memdev);
	for (i = 0; ms->numa_state && i < ms->numa_state->num_nodes; i++)
		refuse_local_ram(ms->numa_state->nodes[i].node_memdev);

	QTAILQ_FOREACH(listener, &address_space_memory.listeners, link_as)
	{
		if (!g_str_has_prefix(listener->name, "vhost") &&
		    !g_str_has_prefix(listener->name, "vfio"))
			continue;
		error_report("wavevm: a device uses %s, which reaches guest RAM past the memory "
			     "protocol; use vhost=off",
			     listener->name);
		exit(EXIT_FAILURE);
	}
}

static bool block_migration(Error **errp)
{
	static Error *reason;

	if (runstate_check(RUN_STATE_INMIGRATE)) {
		error_setg(errp, "wavevm: -incoming is not possible; guest RAM is the cluster's");
		return false;
	}
	error_setg(&reason, "guest RAM belongs to a WaveVM cluster and cannot be migrated or saved "
			    "from one node");
#if QEMU_VERSION_MAJOR >= 9
	return migrate_add_blocker(&reason, errp) >= 0;
#else
	return migrate_add_blocker(reason, errp) >= 0;
#endif
}

static bool mlock_wanted(void)
{
#if QEMU_VERSION_MAJOR >= 10
	return should_mlock(mlock_state);
#else
	return enable_mlock;
#endif
}

bool wvm_qemu_guard(Error **errp)
{
	static DeviceListener devices = {.hide_device = refuse_device};
	static Notifier machine_done = {.notify = check_machine};

	if (mlock_wanted()) {
		error_setg(errp, "wavevm: guest RAM is larger than this node and cannot be locked; "
				 "leave -overcommit mem-lock=on out");
		return false;
	}
	/* Ballooning stops by itself then; devices that must discard refuse to start. */
	if (ram_block_discard_disable(true)) {
		error_setg(errp, "wavevm: a device discards guest RAM on its own; leave it out");
		return false;
	}
	if (!block_migration(errp) || !guard_drives(errp))
		return false;
	device_listener_register(&devices);
	qemu_add_machine_init_done_notifier(&machine_done);
	return true;
}

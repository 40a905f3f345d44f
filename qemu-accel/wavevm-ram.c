/*
 * Guest RAM: the QOM memory backend whose pages come from the cluster.
 *
 *   -object memory-backend-wavevm,id=ID,size=SIZE[,offset=OFFSET][,vm-id=N]
 *
 * maps [offset, offset + size) of the VM's memory; without an offset, what is
 * behind the objects before it, so that those of -numa node,memdev= in the order
 * of the nodes make up the guest's RAM as a single one would. Without any object,
 * the RAM that -m asks for is mapped from offset 0 of the accelerator's VM. A thread that
 * touches a page which is not here yet sleeps in its access until the master
 * has it, be it a vCPU, a device or the kernel on behalf of one (read(2) into
 * guest RAM); nothing here takes part in that.
 */
#include "qemu/osdep.h"

#include "accel.h"
#include "qapi/visitor.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "qom/object_interfaces.h"

OBJECT_DECLARE_SIMPLE_TYPE(WaveVMRam, WAVEVM_RAM)

/* Of a DIMM's guest address: what QEMU's own anonymous memory has on x86. */
#define HOTPLUG_ALIGN (2 * MiB)

struct WaveVMRam {
	HostMemoryBackend parent_obj;

	uint16_t vm_id;
	uint64_t offset; /* bytes into the VM's memory */
	bool offset_given;
	QLIST_ENTRY(WaveVMRam) mapped;
};

static QLIST_HEAD(, WaveVMRam) mapped = QLIST_HEAD_INITIALIZER(mapped);

static struct wvm *cluster; /* NULL unless -accel wavevm is in use */
static uint16_t default_vm;
static HostMemoryBackend *default_ram; /* made by QEMU for -m, if it was */

bool wvm_qemu_attach(uint16_t vm_id, Error **errp)
{
	wvm_qemu_parked_init();
	if (wvm_attach(&cluster, NULL)) {
		error_setg(errp, "wavevm: %s", wvm_attach_error());
		return false;
	}
	wvm_on_error(cluster, wvm_qemu_parked, NULL);
	default_vm = vm_id;
	return true;
}

struct wvm *wvm_qemu_cluster(void)
{
	return cluster;
}

uint16_t wvm_qemu_vm_id(void)
{
	return default_vm;
}

void *wvm_qemu_map_vm(uint64_t *size, Error **errp)
{
	int64_t vm_size = wvm_vm_size(cluster, default_vm);
	void *addr;

	if (vm_size <= 0) {
		error_setg(errp, "wavevm: the master knows no VM %u", default_vm);
		return NULL;
	}
	addr = wvm_map(cluster, default_vm, 0, vm_size, WVM_STRICT | WVM_ERROR_PARK);
	if (!addr) {
		error_setg(errp, "wavevm: %s", wvm_attach_error());
		return NULL;
	}
	if (madvise(addr, vm_size, MADV_NOHUGEPAGE) && errno != EINVAL)
		warn_report("wavevm: cannot turn huge pages off: %s", strerror(errno));
	*size = vm_size;
	return addr;
}

static bool lies_in(HostMemoryBackend *b, uint64_t at, const void *host, uint64_t len,
		    uint64_t *offset)
{
	const uint8_t *base = memory_region_get_ram_ptr(&b->mr), *p = host;

	if (p < base || p + len > base + b->size)
		return false;
	*offset = at + (p - base);
	return true;
}

bool wvm_qemu_offset(const void *host, uint64_t len, uint64_t *offset)
{
	WaveVMRam *r;

	if (default_ram && lies_in(default_ram, 0, host, len, offset))
		return true;
	QLIST_FOREACH(r, &mapped, mapped)
	{
		if (r->vm_id == default_vm &&
		    lies_in(MEMORY_BACKEND(r), r->offset, host, len, offset))
			return true;
	}
	return false;
}

bool wvm_qemu_is_cluster_ram(HostMemoryBackend *backend)
{
	return backend == default_ram || object_dynamic_cast(OBJECT(backend), TYPE_WAVEVM_RAM);
}

static bool check_range(HostMemoryBackend *b, uint16_t vm_id, uint64_t offset, Error **errp)
{
	int64_t vm_size = wvm_vm_size(cluster, vm_id);

	if (vm_size == -ENXIO) {
		error_setg(errp,
			   "wavevm: the master knows no VM %u; give vm-id= the id of a VM that it "
			   "was started with",
			   vm_id);
		return false;
	}
	if (vm_size < 0) {
		error_setg(errp, "wavevm: the master does not answer (%s); start it again",
			   strerror(-vm_size));
		return false;
	}
	if (!b->size || !QEMU_IS_ALIGNED(b->size | offset, WVM_PAGE_SIZE)) {
		error_setg(errp,
			   "wavevm: RAM of %" PRIu64 " bytes at offset %" PRIu64
			   " is not made of whole pages; use multiples of %u bytes",
			   b->size, offset, WVM_PAGE_SIZE);
		return false;
	}
	if (offset > (uint64_t)vm_size || b->size > vm_size - offset) {
		error_setg(errp,
			   "wavevm: RAM of %" PRIu64 " MiB at offset %" PRIu64
			   " MiB does not fit VM %u, which has %" PRId64
			   " MiB; use a smaller -m or start the masters with a larger VM",
			   (uint64_t)(b->size / MiB), (uint64_t)(offset / MiB), vm_id,
			   (int64_t)(vm_size / MiB));
		return false;
	}
	return true;
}

static uint64_t end_of_mapped(uint16_t vm_id)
{
	uint64_t end = default_ram && vm_id == default_vm ? default_ram->size : 0;
	WaveVMRam *r;

	QLIST_FOREACH(r, &mapped, mapped)
	{
		if (r->vm_id == vm_id)
			end = MAX(end, r->offset + MEMORY_BACKEND(r)->size);
	}
	return end;
}

static HostMemoryBackend *overlapped(uint16_t vm_id, uint64_t offset, uint64_t size)
{
	WaveVMRam *r;

	if (default_ram && vm_id == default_vm && offset < default_ram->size)
		return default_ram;
	QLIST_FOREACH(r, &mapped, mapped)
	{
		if (r->vm_id == vm_id && offset < r->offset + MEMORY_BACKEND(r)->size &&
		    r->offset < offset + size)
			return MEMORY_BACKEND(r);
	}
	return NULL;
}

static bool check_overlap(HostMemoryBackend *b, uint16_t vm_id, uint64_t offset, Error **errp)
{
	HostMemoryBackend *other = overlapped(vm_id, offset, b->size);

	if (!other)
		return true;
	error_setg(errp,
		   "wavevm: memory '%s' at offset %" PRIu64
		   " MiB of VM %u overlaps '%s'; give each "
		   "a range of its own, or leave offset out to put it behind those before it",
		   object_get_canonical_path_component(OBJECT(b)), (uint64_t)(offset / MiB), vm_id,
		   object_get_canonical_path_component(OBJECT(other)));
	return false;
}

static bool map_cluster_ram(HostMemoryBackend *b, uint16_t vm_id, uint64_t offset, Error **errp)
{
	g_autofree char *name = host_memory_backend_get_name(b);
	void *addr;

	if (!check_range(b, vm_id, offset, errp) || !check_overlap(b, vm_id, offset, errp))
		return false;
	if (b->prealloc) {
		error_setg(errp, "wavevm: guest RAM is filled on demand from the whole cluster; "
				 "leave prealloc (-mem-prealloc) out");
		return false;
	}
	addr = wvm_map(cluster, vm_id, offset, b->size, WVM_STRICT | WVM_ERROR_PARK);
	if (!addr) {
		error_setg(errp, "wavevm: %s", wvm_attach_error());
		return false;
	}
	memory_region_init_ram_ptr(&b->mr, OBJECT(b), name, b->size, addr);
	b->mr.align = HOTPLUG_ALIGN;
	/* QEMU asks for huge pages for every RAM block; the protocol works on single ones. */
	if (madvise(addr, b->size, MADV_NOHUGEPAGE) && errno != EINVAL)
		warn_report("wavevm: cannot turn huge pages off: %s", strerror(errno));
	return true;
}

static bool ram_alloc(HostMemoryBackend *b, Error **errp)
{
	WaveVMRam *r = WAVEVM_RAM(b);

	if (!cluster) {
		error_setg(errp, TYPE_WAVEVM_RAM " needs -accel wavevm");
		return false;
	}
	if (!b->share || b->merge) {
		error_setg(errp,
			   "wavevm: guest RAM is shared by all nodes, page by page; "
			   "leave %s out",
			   b->merge ? "merge=on" : "share=off");
		return false;
	}
	if (!r->offset_given)
		r->offset = end_of_mapped(r->vm_id);
	if (!map_cluster_ram(b, r->vm_id, r->offset, errp))
		return false;
	QLIST_INSERT_HEAD(&mapped, r, mapped);
	return true;
}

#if QEMU_VERSION_MAJOR >= 9
static bool create_default_ram(MachineState *ms, const char *path, Error **errp)
{
	const char *id = MACHINE_GET_CLASS(ms)->default_ram_id;
	Object *obj;
	bool ok;

	if (path) {
		error_setg(errp, "wavevm: -mem-path is not possible; guest RAM is the cluster's");
		return false;
	}
	obj = object_new(TYPE_WAVEVM_RAM);
	object_property_add_child(object_get_objects_root(), id, obj);
	ok = object_property_set_int(obj, "size", ms->ram_size, errp) &&
	     object_property_set_int(obj, "offset", 0, errp) &&
	     object_property_set_bool(obj, "x-use-canonical-path-for-ramblock-id", false, errp) &&
	     user_creatable_complete(USER_CREATABLE(obj), errp) &&
	     object_property_set_link(OBJECT(ms), "memory-backend", obj, errp);
	object_unref(obj);
	return ok;
}

void wvm_qemu_default_ram(MachineState *ms)
{
	MACHINE_GET_CLASS(ms)->create_default_memdev = create_default_ram;
}
#else
static void (*plain_alloc)(HostMemoryBackend *b, Error **errp);

static void plain_ram_alloc(HostMemoryBackend *b, Error **errp)
{
	const char *id = object_get_canonical_path_component(OBJECT(b));

	if (g_strcmp0(id, MACHINE_GET_CLASS(current_machine)->default_ram_id)) {
		plain_alloc(b, errp);
		return;
	}
	b->share = true;
	b->merge = false;
	if (map_cluster_ram(b, default_vm, 0, errp))
		default_ram = b;
}

/*
 * This QEMU creates the RAM for -m as a memory-backend-ram, by name and long
 * after the accelerator, and a backend made earlier would shut out
 * -machine memory-backend= and -numa memdev=. So its class is told to get the
 * memory of that one object from us.
 */
void wvm_qemu_default_ram(MachineState *ms)
{
	HostMemoryBackendClass *bc =
		MEMORY_BACKEND_CLASS(object_class_by_name(TYPE_MEMORY_BACKEND_RAM));

	plain_alloc = bc->alloc;
	bc->alloc = plain_ram_alloc;
}

static void ram_alloc_7(HostMemoryBackend *b, Error **errp)
{
	ram_alloc(b, errp);
}
#define ram_alloc ram_alloc_7
#endif

static void get_vm_id(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
	visit_type_uint16(v, name, &WAVEVM_RAM(obj)->vm_id, errp);
}

static void get_offset(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
	visit_type_size(v, name, &WAVEVM_RAM(obj)->offset, errp);
}

static bool check_unmapped(Object *obj, const char *name, Error **errp)
{
	if (!host_memory_backend_mr_inited(MEMORY_BACKEND(obj)))
		return true;
	error_setg(errp, "cannot change property '%s' of mapped memory", name);
	return false;
}

static void set_vm_id(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
	if (check_unmapped(obj, name, errp))
		visit_type_uint16(v, name, &WAVEVM_RAM(obj)->vm_id, errp);
}

static void set_offset(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
	if (check_unmapped(obj, name, errp))
		WAVEVM_RAM(obj)->offset_given = visit_type_size(v, name, &WAVEVM_RAM(obj)->offset,
								errp);
}

static void ram_instance_init(Object *obj)
{
	HostMemoryBackend *b = MEMORY_BACKEND(obj);

	WAVEVM_RAM(obj)->vm_id = default_vm;
	b->share = true;
	b->merge = false;
}

/* Nothing of QEMU refers to the memory any more: every user holds the backend. */
static void ram_instance_finalize(Object *obj)
{
	HostMemoryBackend *b = MEMORY_BACKEND(obj);

	QLIST_SAFE_REMOVE(WAVEVM_RAM(obj), mapped);
	if (host_memory_backend_mr_inited(b) &&
	    wvm_unmap(cluster, memory_region_get_ram_ptr(&b->mr), b->size))
		warn_report("wavevm: the master did not take back the memory of '%s'",
			    memory_region_name(&b->mr));
}

static void ram_class_init(ObjectClass *oc, void *data)
{
	MEMORY_BACKEND_CLASS(oc)->alloc = ram_alloc;
	object_class_property_add(oc, "vm-id", "uint16", get_vm_id, set_vm_id, NULL, NULL);
	object_class_property_set_description(oc, "vm-id",
					      "The VM to map memory of (-accel's by default)");
	object_class_property_add(oc, "offset", "size", get_offset, set_offset, NULL, NULL);
	object_class_property_set_description(oc, "offset",
					      "Where in the VM's memory to begin (default: "
					      "behind the objects before it)");
}

static const TypeInfo ram_types[] = {
	{
		.name = TYPE_WAVEVM_RAM,
		.parent = TYPE_MEMORY_BACKEND,
		.instance_size = sizeof(WaveVMRam),
		.instance_init = ram_instance_init,
		.instance_finalize = ram_instance_finalize,
		.class_init = ram_class_init,
	},
};

DEFINE_TYPES(ram_types)

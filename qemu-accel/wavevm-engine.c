/*
 * The accelerators that run vCPUs under -accel wavevm, as subclasses of QEMU's
 * own. QEMU finds an accelerator's vCPU operations and CPU class by the name
 * of its type, hence three types each. A method that is not overridden here
 * is the parent's.
 */
#include "qemu/osdep.h"

#include "accel.h"
#include "cpu.h"
#include "qemu/accel.h"
#if QEMU_VERSION_MAJOR >= 10
#include "accel/accel-cpu-target.h"
#include "system/accel-ops.h"
#else
#include "hw/core/accel-cpu.h"
#include "sysemu/accel-ops.h"
#endif

static void engine_class_init(ObjectClass *oc, void *data)
{
	ACCEL_CLASS(oc)->name = "wavevm";
}

static const TypeInfo engine_types[] = {
#ifdef CONFIG_TCG
	{
		.name = TYPE_WAVEVM_TCG,
		.parent = ACCEL_CLASS_NAME("tcg"),
		.class_init = engine_class_init,
	},
	{
		.name = TYPE_WAVEVM_TCG ACCEL_OPS_SUFFIX,
		.parent = ACCEL_OPS_NAME("tcg"),
	},
	{
		.name = TYPE_WAVEVM_TCG "-" CPU_RESOLVING_TYPE,
		.parent = ACCEL_CPU_NAME("tcg"),
		.class_init = wvm_qemu_stale_class_init,
	},
#endif
#ifdef CONFIG_KVM
	{
		.name = TYPE_WAVEVM_KVM,
		.parent = ACCEL_CLASS_NAME("kvm"),
		.class_init = engine_class_init,
	},
	{
		.name = TYPE_WAVEVM_KVM ACCEL_OPS_SUFFIX,
		.parent = ACCEL_OPS_NAME("kvm"),
	},
	{
		.name = TYPE_WAVEVM_KVM "-" CPU_RESOLVING_TYPE,
		.parent = ACCEL_CPU_NAME("kvm"),
	},
#endif
};

DEFINE_TYPES(engine_types)

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
#include "vcpu.h"
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

#ifdef CONFIG_TCG
static void (*tcg_ops_init)(AccelOpsClass *ops);
static void (*tcg_cpu_class_init)(CPUClass *cc);
static void (*tcg_init_accel_cpu)(struct AccelCPUClass *accel_cpu, CPUClass *cc);

/* After the parent's: ours may hand what they do not do themselves on to it. */
static void our_ops_init(AccelOpsClass *ops)
{
	tcg_ops_init(ops);
	if (wvm_qemu_is_slave())
		wvm_qemu_slave_accel_ops(ops);
	else
		wvm_qemu_remote_accel_ops(ops);
}

static void tcg_ops_class_init(ObjectClass *oc, void *data)
{
	AccelOpsClass *ops = ACCEL_OPS_CLASS(oc);

	tcg_ops_init = ops->ops_init;
	ops->ops_init = our_ops_init;
}

static void our_init_accel_cpu(struct AccelCPUClass *accel_cpu, CPUClass *cc)
{
	static struct TCGCPUOps ops;

	tcg_init_accel_cpu(accel_cpu, cc);
	if (!ops.initialize) {
		ops = *cc->tcg_ops;
		if (wvm_qemu_is_slave())
			wvm_qemu_slave_tcg_ops(&ops);
	}
	cc->tcg_ops = &ops;
}

static void our_cpu_class_init(CPUClass *cc)
{
	tcg_cpu_class_init(cc);
	tcg_init_accel_cpu = cc->init_accel_cpu;
	cc->init_accel_cpu = our_init_accel_cpu;
}

static void tcg_cpu_type_class_init(ObjectClass *oc, void *data)
{
	AccelCPUClass *acc = ACCEL_CPU_CLASS(oc);

	tcg_cpu_class_init = acc->cpu_class_init;
	acc->cpu_class_init = our_cpu_class_init;
	/* Around ours: it looks at code wherever it comes from. */
	wvm_qemu_stale_class_init(oc, data);
	wvm_qemu_ticks_class_init(oc);
}
#endif

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
		.class_init = tcg_ops_class_init,
	},
	{
		.name = TYPE_WAVEVM_TCG "-" CPU_RESOLVING_TYPE,
		.parent = ACCEL_CPU_NAME("tcg"),
		.class_init = tcg_cpu_type_class_init,
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

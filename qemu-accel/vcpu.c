/* A vCPU's state as a block of bytes: written and read as migration does, into memory. */
#include "qemu/osdep.h"

#include "cpu.h"
#include "io/channel-buffer.h"
#include "migration/qemu-file-types.h"
#include "migration/vmstate.h"
#include "qemu/error-report.h"
#include "qemu/units.h"

#include "../migration/qemu-file.h"
#include "accel.h"
#include "vcpu.h"

#define PEEK \
	16 /* zeros behind, so that whoever looks for one more subsection finds no end of file */

const struct wvm_vcpu_layout *wvm_qemu_layout(void)
{
	static struct wvm_vcpu_layout layout;

	if (!layout.count) {
		wvm_vcpu_layout_add(&layout, WVM_QEMU_STATE_BYTES);
		wvm_vcpu_layout_add(&layout, sizeof(struct wvm_qemu_apic));
	}
	return &layout;
}

struct wvm_qemu_apic *wvm_qemu_state_apic(void *block)
{
	return (void *)((uint8_t *)block + wvm_qemu_layout()->at[WVM_QEMU_STATE_APIC]);
}

void wvm_qemu_state_save(CPUState *cs, void *block)
{
	QIOChannelBuffer *buffer = qio_channel_buffer_new(WVM_QEMU_STATE_BYTES);
	QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(buffer));
	uint64_t len;

	if (vmstate_save_state(f, &vmstate_x86_cpu, X86_CPU(cs), NULL)) {
		error_report("wavevm: the state of vCPU %d cannot be written", cs->cpu_index);
		abort();
	}
	qemu_fflush(f);
	len = buffer->usage;
	g_assert(len <= WVM_QEMU_STATE_BYTES - sizeof(len) - PEEK);
	memcpy(block, &len, sizeof(len));
	memcpy((uint8_t *)block + sizeof(len), buffer->data, len);
	memset((uint8_t *)block + sizeof(len) + len, 0, WVM_QEMU_STATE_BYTES - sizeof(len) - len);
	qemu_fclose(f);
}

bool wvm_qemu_state_load(CPUState *cs, const void *block)
{
	QIOChannelBuffer *buffer;
	QEMUFile *f;
	uint64_t len;
	int r;

	memcpy(&len, block, sizeof(len));
	if (!len || len > WVM_QEMU_STATE_BYTES - sizeof(len) - PEEK)
		return false;
	buffer = qio_channel_buffer_new(len + PEEK);
	memcpy(buffer->data, (const uint8_t *)block + sizeof(len), len);
	memset(buffer->data + len, 0, PEEK);
	buffer->usage = len + PEEK;
	f = qemu_file_new_input(QIO_CHANNEL(buffer));
	r = vmstate_load_state(f, &vmstate_x86_cpu, X86_CPU(cs), vmstate_x86_cpu.version_id);
	r = r ? r : qemu_file_get_error(f);
	qemu_fclose(f);
	return !r;
}

static void mix(uint32_t *hash, uint64_t value)
{
	for (int i = 0; i < 8; i++) {
		*hash = (*hash ^ (uint8_t)value) * UINT32_C(16777619); /* FNV-1a */
		value >>= 8;
	}
}

uint32_t wvm_qemu_state_kind(CPUState *cs)
{
	const CPUX86State *env = &X86_CPU(cs)->env;
	uint32_t hash = UINT32_C(2166136261);

	for (int i = 0; i < FEATURE_WORDS; i++)
		mix(&hash, env->features[i]);
	mix(&hash, env->cpuid_version);
	mix(&hash, env->cpuid_level);
	mix(&hash, env->cpuid_xlevel);
	mix(&hash, (uint64_t)env->cpuid_vendor1 << 32 | env->cpuid_vendor2);
	mix(&hash, env->cpuid_vendor3);
	mix(&hash, X86_CPU(cs)->apic_id);
	mix(&hash, (uint64_t)cs->nr_cores << 32 | (uint32_t)cs->nr_threads);
	mix(&hash, vmstate_x86_cpu.version_id);
	mix(&hash, sizeof(struct wvm_qemu_apic));
	mix(&hash, QEMU_VERSION_MAJOR * 1000 + QEMU_VERSION_MINOR);
	return hash;
}

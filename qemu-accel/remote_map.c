/*
 * The machine as the slaves of its vCPUs must know it: how many vCPUs of what kind, and which
 * guest-physical memory is which part of the VM's. It follows the memory map: each change of it
 * makes another version, and the runs that are out are ended, so that the next ones take it along.
 */
#include "qemu/osdep.h"

#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/boards.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "sysemu/runstate.h"

#include "accel.h"
#include "remote.h"

static struct wvm_vcpu_setup next; /* being gathered */
static bool overflow;
static char text[WVM_VCPU_SETUP_MAX];
static uint32_t text_len, version;

static void map_begin(MemoryListener *l)
{
	next.maps = 0;
	overflow = false;
}

/* Sections come in ascending order. */
static void map_section(MemoryListener *l, MemoryRegionSection *s)
{
	uint64_t gpa = s->offset_within_address_space, len = int128_get64(s->size), offset;
	const uint8_t *host;
	struct wvm_vcpu_map *last = next.maps ? &next.map[next.maps - 1] : NULL;
	bool read_only = s->readonly;

	if (!memory_region_is_ram(s->mr) || memory_region_is_ram_device(s->mr) ||
	    (gpa | len) % WVM_PAGE_SIZE)
		return;
	host = memory_region_get_ram_ptr(s->mr);
	if (!wvm_qemu_offset(host + s->offset_within_region, len, &offset))
		return;
	if (last && last->gpa + last->len == gpa && last->offset + last->len == offset &&
	    last->read_only == read_only) {
		last->len += len;
		return;
	}
	if (next.maps == WVM_VCPU_MAPS_MAX) {
		overflow = true;
		return;
	}
	next.map[next.maps++] = (struct wvm_vcpu_map){gpa, len, offset, read_only};
}

static void print_setup(void)
{
	char new[sizeof(text)];
	size_t len;
	CPUState *cs;

	len = wvm_vcpu_setup_print(&next, new, sizeof(new));
	if (overflow || !len) {
		error_report("wavevm: the memory map has more than %u pieces of RAM, too many for "
			     "remote vCPUs",
			     WVM_VCPU_MAPS_MAX);
		exit(EXIT_FAILURE);
	}
	if (len == text_len && !memcmp(new, text, len))
		return;
	memcpy(text, new, len);
	text_len = len;
	version++;
	CPU_FOREACH(cs)
	{
		if (cs->created)
			qemu_cpu_kick(cs);
	}
}

static void map_commit(MemoryListener *l)
{
	print_setup();
}

/* The guest's counter stood still while the VM was stopped, and slaves' did not. */
static void on_state(void *opaque, bool running, RunState state)
{
	if (!running)
		return;
	next.era = version + 1; /* no other era of this VM has it */
	print_setup();
}

static MemoryListener listener = {
	.name = "wavevm-remote",
	.begin = map_begin,
	.region_add = map_section,
	.region_nop = map_section,
	.commit = map_commit,
};

void wvm_qemu_setup_begin(void)
{
	const char *cpu = wvm_qemu_cpu_text(current_machine);

	if (version)
		return;
	if (strlen(cpu) > WVM_VCPU_CPU_MAX) {
		error_report("wavevm: -cpu %s is too long for remote vCPUs (%u characters at most)",
			     cpu, WVM_VCPU_CPU_MAX);
		exit(EXIT_FAILURE);
	}
	next.vcpus = current_machine->smp.max_cpus;
	next.ticks_hz = wvm_qemu_ticks_hz();
	pstrcpy(next.cpu, sizeof(next.cpu), cpu);
	/*
	 * A slave keeps the highest version that it has seen, be it of this VM's owner before us:
	 * versions are to go on from there, and none has changed its map each second.
	 */
	version = time(NULL);
	next.era = version;
	memory_listener_register(&listener, &address_space_memory);
	qemu_add_vm_change_state_handler(on_state, NULL);
}

const char *wvm_qemu_setup(uint32_t *len, uint32_t *v)
{
	*len = text_len;
	*v = version;
	return text;
}

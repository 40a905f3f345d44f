#include "roles/slave/options.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ring/daemon.h"
#include "ring/place.h"
#include "roles/slave/slave.h"
#include "shared/core/msg.h"

const char *argp_program_version = "wavevm_node_slave " WVM_VERSION " (protocol 31)";

#define QEMU_NAME "qemu-system-x86_64"

enum {
	OPT_RING = 256,
	OPT_QEMU,
	OPT_CPUS,
	OPT_NO_KVM,
	OPT_POLL,
};

static const struct argp_option option_list[] = {
	{"ring-path", OPT_RING, "FILE", 0,
	 "ring file of this node's master (WVM_RING_PATH; /dev/shm/wavevm-INSTANCE.ring)", 0},
	{"qemu", OPT_QEMU, "FILE", 0,
	 "WaveVM's QEMU, which is started for VMs that TCG runs (WVM_QEMU; " QEMU_NAME
	 " beside this program, else none)",
	 0},
	{"cpus", OPT_CPUS, "LIST", 0,
	 "which CPUs processors run on, as 0,2-3 (chosen by hwloc, where no other daemon of this "
	 "host runs)",
	 0},
	{"no-kvm", OPT_NO_KVM, NULL, 0, "do not use KVM, where there is one", 0},
	{"poll", OPT_POLL, NULL, 0,
	 "spin before sleeping; only where the master and the processors run on other cores", 0},
	{0},
};

static void positional(struct argp_state *state, struct wvm_slave_options *o, const char *arg)
{
	static const struct {
		const char *name;
		uint64_t min, max;
	} args[] = {{"PORT", 1, UINT16_MAX},
		    {"CORES", 1, WVM_SLAVE_CPUS},
		    {"RAM_MB", 1, UINT64_C(1) << 32},
		    {"PHYS_ID", 0, WVM_NODE_MAX - 1},
		    {"CTRL_PORT", 1, UINT16_MAX}};
	unsigned i = state->arg_num;
	uint64_t value;

	if (i >= sizeof(args) / sizeof(args[0]))
		argp_error(state, "unexpected argument '%s'", arg);
	value = wvm_arg_number(state, args[i].name, arg, args[i].min, args[i].max);
	switch (i) {
	case 0: o->port = (uint16_t)value; break;
	case 1: o->cores = (unsigned)value; break;
	case 2: o->ram_mb = value; break;
	case 3: o->phys_id = (uint32_t)value; break;
	default: o->ctrl_port = (uint16_t)value; break;
	}
}

/* WVM_CORE_OVERRIDE, else no more than the CPU quota lets be used at a time. */
static void choose_cores(struct argp_state *state, struct wvm_slave_options *o)
{
	const char *override = getenv("WVM_CORE_OVERRIDE");
	unsigned most = wvm_place_cores();

	if (override && *override)
		o->cores = (unsigned)wvm_arg_number(state, "WVM_CORE_OVERRIDE", override, 1,
						    WVM_SLAVE_CPUS);
	else if (o->cores > most)
		o->cores = most;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct wvm_slave_options *o = state->input;

	switch (key) {
	case OPT_RING:
		wvm_arg_text(state, "--ring-path", o->ring_path, sizeof(o->ring_path), arg);
		break;
	case OPT_QEMU: wvm_arg_text(state, "--qemu", o->qemu, sizeof(o->qemu), arg); break;
	case OPT_CPUS: o->cpus = arg; break;
	case OPT_NO_KVM: o->no_kvm = true; break;
	case OPT_POLL: o->poll = true; break;
	case ARGP_KEY_ARG: positional(state, o, arg); break;
	case ARGP_KEY_END:
		if (state->arg_num < 5)
			argp_error(state, "%u of 5 arguments are missing", 5 - state->arg_num);
		choose_cores(state, o);
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* The one that was installed with this program. */
static void find_qemu(struct wvm_slave_options *o)
{
	const char *named = getenv("WVM_QEMU");
	char self[sizeof(o->qemu)], *slash;
	ssize_t len;

	if (o->qemu[0])
		return;
	if (named && *named) {
		snprintf(o->qemu, sizeof(o->qemu), "%s", named);
		return;
	}
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len <= 0)
		return;
	self[len] = 0;
	slash = strrchr(self, '/');
	if (!slash || (size_t)(slash - self) + sizeof("/" QEMU_NAME) > sizeof(o->qemu))
		return;
	strcpy(slash + 1, QEMU_NAME);
	if (!access(self, X_OK))
		strcpy(o->qemu, self);
}

/* getopt would read it as a cluster of short options. */
static void refuse_vfio(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-vfio"))
			continue;
		fprintf(stderr, "wavevm_node_slave: -vfio: devices of this host are not given to "
				"guests in this version\n");
		exit(EXIT_FAILURE);
	}
}

void wvm_slave_options(struct wvm_slave_options *o, int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_list,
		.parser = parse,
		.args_doc = "PORT CORES RAM_MB PHYS_ID CTRL_PORT",
		.doc = "Runs processors of VMs whose owner is on another node of a WaveVM cluster, "
		       "by KVM or TCG. It is a program of this host's master: start that first.\v"
		       "PORT is the master's SLAVE_PORT, PHYS_ID the master's. CORES: how many "
		       "CPUs processors run on, at most what the CPU quota allows; "
		       "WVM_CORE_OVERRIDE says otherwise. RAM_MB is what the host gives; the "
		       "guests' memory is the master's, so is its budget. CTRL_PORT is not used "
		       "yet. -vfio FILE is refused in this version. Ends cleanly on SIGTERM. INSTANCE is "
		       "WVM_INSTANCE_ID, else PHYS_ID.",
	};

	argp_err_exit_status = 1;
	*o = (struct wvm_slave_options){0};
	refuse_vfio(argc, argv);
	argp_parse(&argp, argc, argv, 0, NULL, o);
	wvm_arg_path(o->ring_path, sizeof(o->ring_path), "WVM_RING_PATH", o->phys_id, ".ring");
	find_qemu(o);
}

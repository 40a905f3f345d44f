#include "roles/slave/options.h"

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ring/daemon.h"
#include "shared/core/msg.h"

const char *argp_program_version = "wavevm_node_slave " WVM_VERSION " (protocol 31)";

#define QEMU "qemu-system-x86_64"

enum { OPT_RING = 256, OPT_QEMU, OPT_CPUS, OPT_VFIO };

static const struct argp_option option_list[] = {
	{"ring-path", OPT_RING, "FILE", 0,
	 "ring file of this node's master (WVM_RING_PATH; /dev/shm/wavevm-INSTANCE.ring)", 0},
	{"qemu", OPT_QEMU, "PROGRAM", 0,
	 "QEMU with the accelerator, which runs processors that KVM does not (" QEMU
	 " beside this program, in ../qemu, or in PATH)",
	 0},
	{"cpus", OPT_CPUS, "LIST", 0,
	 "CPUs that processors run on, as 0,2-3 (chosen by hwloc, where no other daemon of this "
	 "host runs)",
	 0},
	{"vfio", OPT_VFIO, "FILE", OPTION_HIDDEN, "", 0},
	{0},
};

static void positional(struct argp_state *state, struct wvm_slave_options *o, const char *arg)
{
	switch (state->arg_num) {
	case 0: o->port = (uint16_t)wvm_arg_number(state, "PORT", arg, 1, UINT16_MAX); break;
	case 1: o->cores = wvm_arg_cores(state, "CORES", arg, WVM_SLAVE_CORES_MAX); break;
	case 2: o->ram_mb = wvm_arg_number(state, "RAM_MB", arg, 1, UINT64_C(1) << 32); break;
	case 3:
		o->phys_id = (uint32_t)wvm_arg_number(state, "PHYS_ID", arg, 0, WVM_NODE_MAX - 1);
		break;
	case 4:
		o->ctrl_port = (uint16_t)wvm_arg_number(state, "CTRL_PORT", arg, 1, UINT16_MAX);
		break;
	default: argp_error(state, "unexpected argument '%s'", arg);
	}
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct wvm_slave_options *o = state->input;

	switch (key) {
	case OPT_RING:
		wvm_arg_text(state, "--ring-path", o->ring_path, sizeof(o->ring_path), arg);
		break;
	case OPT_QEMU:
		wvm_arg_text(state, "--qemu", o->qemu, sizeof(o->qemu), arg);
		if (access(o->qemu, X_OK))
			argp_failure(state, 1, 0, "--qemu '%s' is no program that can be run",
				     o->qemu);
		break;
	case OPT_CPUS: o->cpus = arg; break;
	case OPT_VFIO:
		argp_failure(state, 1, 0,
			     "-vfio '%s': devices stay with the VM's owner, a slave takes none",
			     arg);
		break;
	case ARGP_KEY_ARG: positional(state, o, arg); break;
	case ARGP_KEY_END:
		if (state->arg_num < 5)
			argp_error(state, "%u of 5 arguments are missing", 5 - state->arg_num);
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* ---- the engine's program -------------------------------------------------------------- */

static bool take(struct wvm_slave_options *o, const char *folder, size_t len, const char *below)
{
	int n = snprintf(o->qemu, sizeof(o->qemu), "%.*s%s/" QEMU, (int)len, folder, below);

	if (n > 0 && (size_t)n < sizeof(o->qemu) && !access(o->qemu, X_OK))
		return true;
	o->qemu[0] = 0;
	return false;
}

/* A QEMU of the system, without our accelerator, shows by its end that it is none. */
static void find_qemu(struct wvm_slave_options *o)
{
	const char *path = getenv("PATH");
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		char *folder;

		self[n] = 0;
		folder = dirname(self);
		if (take(o, folder, strlen(folder), "") ||
		    take(o, folder, strlen(folder), "/../qemu"))
			return;
	}
	for (size_t len; path && *path; path += len + (path[len] == ':')) {
		len = strcspn(path, ":");
		if (len && take(o, path, len, ""))
			return;
	}
}

/* As operators write it, which getopt would read as -v -f …. */
static void take_vfio(int argc, char **argv)
{
	static char option[] = "--vfio";

	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "-vfio"))
			argv[i] = option;
}

void wvm_slave_options(struct wvm_slave_options *o, int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_list,
		.parser = parse,
		.args_doc = "PORT CORES RAM_MB PHYS_ID CTRL_PORT",
		.doc = "Runs processors of VMs whose owners are on other nodes of a WaveVM cluster, "
		       "by KVM or by a QEMU that it starts.\v"
		       "PORT is the SLAVE_PORT of this node's master, at 127.0.0.1. CORES: how many "
		       "CPUs processors may use, or auto: WVM_CORE_OVERRIDE, else all that this "
		       "process may use, cut to its CPU quota. RAM_MB and CTRL_PORT are as for the "
		       "master, which has the memory and answers for the node. Ends cleanly on "
		       "SIGTERM: then what its processors were doing is not known to their owners, "
		       "whose VMs stop. INSTANCE is WVM_INSTANCE_ID, else PHYS_ID.",
	};

	argp_err_exit_status = 1;
	*o = (struct wvm_slave_options){0};
	take_vfio(argc, argv);
	argp_parse(&argp, argc, argv, 0, NULL, o);
	wvm_arg_path(o->ring_path, sizeof(o->ring_path), "WVM_RING_PATH", o->phys_id, ".ring");
	if (!o->qemu[0])
		find_qemu(o);
}

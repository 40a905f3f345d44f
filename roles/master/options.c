#include "roles/master/options.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring/daemon.h"
#include "shared/core/ahead.h"
#include "shared/core/msg.h"

const char *argp_program_version = "wavevm_node_master " WVM_VERSION " (protocol 31)";

enum {
	OPT_RING = 256,
	OPT_SHM,
	OPT_VM,
	OPT_CPUS,
	OPT_CORES,
	OPT_SHARDS,
	OPT_MTU,
	OPT_POLL,
	OPT_STATE,
	OPT_FRESH,
	OPT_AHEAD,
};

static const struct argp_option option_list[] = {
	{"ring-path", OPT_RING, "FILE", 0,
	 "ring file by which clients find this master (WVM_RING_PATH; "
	 "/dev/shm/wavevm-INSTANCE.ring)",
	 0},
	{"shm-file", OPT_SHM, "FILE", 0,
	 "prefix of the RAM and state files, on a tmpfs (WVM_SHM_FILE; "
	 "/dev/shm/wavevm-INSTANCE)",
	 0},
	{"vm", OPT_VM, "ID:SIZE", 0,
	 "a VM and its size, as 1:4G; repeatable (one VM 0 of the topology's RAM)", 0},
	{"cores", OPT_CORES, "N", 0,
	 "cores to run on, with one shard pinned to each, 1 to 16, or auto: WVM_CORE_OVERRIDE, "
	 "else all that this process may use, cut to its CPU quota (WVM_CORE_OVERRIDE; 1)",
	 0},
	{"shards", OPT_SHARDS, NULL, OPTION_ALIAS, NULL, 0},
	{"cpus", OPT_CPUS, "LIST", 0,
	 "which CPUs these are, as 0,2-3 (chosen by hwloc, where no other master of this host runs)",
	 0},
	{"mtu", OPT_MTU, "BYTES", 0,
	 "largest UDP payload, 576 to 65000 (interface MTU - 28, at most 1472)", 0},
	{"poll", OPT_POLL, NULL, 0, "spin before sleeping, giving the core away at each look", 0},
	{"read-ahead", OPT_AHEAD, "PAGES", 0,
	 "pages of other nodes to ask for ahead of one who reads in order, 0 to 64 (64)", 0},
	{"state-dir", OPT_STATE, "DIR", 0,
	 "what outlives a reboot: boot counter and ballots, on a disk "
	 "(/var/lib/wavevm)",
	 0},
	{"fresh", OPT_FRESH, NULL, 0,
	 "discard what a killed master left, instead of going on with it; only when the whole "
	 "cluster starts anew",
	 0},
	{0},
};

/* 1:4G, 1:512M, 1:1073741824 */
static void add_vm(struct argp_state *state, struct wvm_master_options *o, const char *arg)
{
	const char *colon = strchr(arg, ':');
	struct wvm_master_vm *vm = &o->vms[o->vm_count];
	unsigned long long size;
	char *end;
	char id[16];
	int shift = 0;

	if (!colon || colon == arg || (size_t)(colon - arg) >= sizeof(id) ||
	    !isdigit((unsigned char)colon[1]))
		argp_failure(state, 1, 0, "--vm '%s' is not ID:SIZE", arg);
	if (o->vm_count == WVM_MASTER_VMS_MAX)
		argp_failure(state, 1, 0, "--vm '%s': at most %u VMs", arg, WVM_MASTER_VMS_MAX);
	snprintf(id, sizeof(id), "%.*s", (int)(colon - arg), arg);
	vm->id = (uint16_t)wvm_arg_number(state, "--vm ID", id, 0, UINT16_MAX);
	errno = 0;
	size = strtoull(colon + 1, &end, 10);
	if (*end)
		shift = *end == 'M' ? 20 : *end == 'G' ? 30 : *end == 'T' ? 40 : -1;
	if (errno || shift < 0 || (*end && end[1]) || !size || size << shift >> shift != size ||
	    size << shift > WVM_GPA_MAX || (size << shift) % WVM_UNIT_BYTES)
		argp_failure(state, 1, 0,
			     "--vm '%s': the size is not a multiple of 2M (units: M, G, T)", arg);
	vm->size = (uint64_t)size << shift;
	for (unsigned i = 0; i < o->vm_count; i++)
		if (o->vms[i].id == vm->id)
			argp_failure(state, 1, 0, "--vm %u is given twice", vm->id);
	o->vm_count++;
}

static void positional(struct argp_state *state, struct wvm_master_options *o, const char *arg)
{
	switch (state->arg_num) {
	case 0: o->ram_mb = wvm_arg_number(state, "RAM_MB", arg, 1, UINT64_C(1) << 32); break;
	case 1: o->port = (uint16_t)wvm_arg_number(state, "PORT", arg, 1, UINT16_MAX); break;
	case 2: o->topology = arg; break;
	case 3:
		o->phys_id = (uint32_t)wvm_arg_number(state, "PHYS_ID", arg, 0, WVM_NODE_MAX - 1);
		break;
	case 4:
		o->ctrl_port = (uint16_t)wvm_arg_number(state, "CTRL_PORT", arg, 1, UINT16_MAX);
		break;
	case 5:
		o->slave_port = (uint16_t)wvm_arg_number(state, "SLAVE_PORT", arg, 1, UINT16_MAX);
		break;
	case 6:
		o->sync_batch = (uint32_t)wvm_arg_number(state, "SYNC_BATCH", arg, 1, 1u << 20);
		break;
	default: argp_error(state, "unexpected argument '%s'", arg);
	}
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct wvm_master_options *o = state->input;
	const char *override = getenv("WVM_CORE_OVERRIDE");

	switch (key) {
	case OPT_RING:
		wvm_arg_text(state, "--ring-path", o->ring_path, sizeof(o->ring_path), arg);
		break;
	case OPT_SHM:
		wvm_arg_text(state, "--shm-file", o->shm_file, sizeof(o->shm_file), arg);
		break;
	case OPT_VM: add_vm(state, o, arg); break;
	case OPT_CPUS: o->cpus = arg; break;
	case OPT_CORES:
		o->shards = wvm_arg_cores(state, "--cores", arg, WVM_MASTER_SHARDS_MAX);
		break;
	case OPT_SHARDS:
		o->shards = wvm_arg_cores(state, "--shards", arg, WVM_MASTER_SHARDS_MAX);
		break;
	case OPT_MTU:
		o->mtu = (unsigned)wvm_arg_number(state, "--mtu", arg, WVM_MTU_MIN, 65000);
		break;
	case OPT_AHEAD:
		o->read_ahead = (unsigned)wvm_arg_number(state, "--read-ahead", arg, 0,
							 WVM_AHEAD_MOST);
		break;
	case OPT_POLL: o->poll = true; break;
	case OPT_STATE: o->state_dir = arg; break;
	case OPT_FRESH: o->fresh = true; break;
	case ARGP_KEY_ARG: positional(state, o, arg); break;
	case ARGP_KEY_END:
		if (state->arg_num < 6)
			argp_error(state, "%u of 6 arguments are missing", 6 - state->arg_num);
		if (!o->shards)
			o->shards = override && *override ? wvm_arg_cores(state, "--cores", "auto",
									  WVM_MASTER_SHARDS_MAX)
							  : 1;
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* What the command line left open: the environment, then the default of this instance. */
static void defaults(struct wvm_master_options *o)
{
	wvm_arg_path(o->ring_path, sizeof(o->ring_path), "WVM_RING_PATH", o->phys_id, ".ring");
	wvm_arg_path(o->shm_file, sizeof(o->shm_file), "WVM_SHM_FILE", o->phys_id, "");
	if (!o->vm_count)
		o->vm_count = 1;
}

void wvm_master_options(struct wvm_master_options *o, int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_list,
		.parser = parse,
		.args_doc = "RAM_MB PORT TOPOLOGY PHYS_ID CTRL_PORT SLAVE_PORT [SYNC_BATCH]",
		.doc = "Runs one node of a WaveVM cluster: its share of the guests' memory and "
		       "directory, and the programs on this host that map it.\v"
		       "TOPOLOGY is the same file on all nodes (NODE <phys_id> <ip> <port> "
		       "<cores> <ram_gb> [<ctrl_port>]); PHYS_ID says which line is this host. PLACE <vm_id> "
		       "<first_mib> <mib> <phys_id> puts a range of a VM's memory on one node, "
		       "instead of on all of them by hash; SPARE <phys_id> makes a node home "
		       "nothing until it is let in (wvm_ctl join). Ends cleanly on "
		       "SIGTERM. INSTANCE is WVM_INSTANCE_ID, else PHYS_ID.",
	};

	argp_err_exit_status = 1;
	*o = (struct wvm_master_options){
		.sync_batch = 1, .state_dir = "/var/lib/wavevm", .read_ahead = WVM_AHEAD_MOST};
	argp_parse(&argp, argc, argv, 0, NULL, o);
	defaults(o);
}

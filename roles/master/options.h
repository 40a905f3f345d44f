/*
 * The command line of wavevm_node_master. Positional arguments as operators
 * know them, everything else as long options:
 *
 *   wavevm_node_master RAM_MB PORT TOPOLOGY PHYS_ID CTRL_PORT SLAVE_PORT [SYNC_BATCH]
 */
#ifndef WVM_MASTER_OPTIONS_H
#define WVM_MASTER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define WVM_MASTER_VMS_MAX    8u
#define WVM_MASTER_SHARDS_MAX 16u

struct wvm_master_vm {
	uint16_t id;
	uint64_t size; /* bytes; 0: the sum of the topology's ram_gb */
};

struct wvm_master_options {
	uint64_t ram_mb; /* budget of cached guest pages: reclaim.h */
	uint16_t port;
	const char *topology;
	uint32_t phys_id;
	uint16_t ctrl_port;
	uint16_t slave_port;
	uint32_t sync_batch; /* 1 without the argument */

	char ring_path[256];
	char shm_file[200]; /* RAM files are <shm_file>.<vm_id>, state files <shm_file>.<vm_id>.* */
	const char *state_dir;
	const char *cpus;
	unsigned shards;     /* 1 to WVM_MASTER_SHARDS_MAX */
	unsigned mtu;        /* UDP payload bytes; 0: from the interface */
	unsigned read_ahead; /* pages, 0: none */
	bool poll;
	bool fresh;
	struct wvm_master_vm vms[WVM_MASTER_VMS_MAX];
	unsigned vm_count; /* at least 1: VM 0 when none is named */
};

/* Fills o from the command line and the environment. Exits with status 1 and one line on an error.
 */
void wvm_master_options(struct wvm_master_options *o, int argc, char **argv);

#endif

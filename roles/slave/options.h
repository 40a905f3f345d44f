/*
 * The command line of wavevm_node_slave. Positional arguments as operators know them,
 * everything else as long options:
 *
 *   wavevm_node_slave PORT CORES RAM_MB PHYS_ID CTRL_PORT
 */
#ifndef WVM_SLAVE_OPTIONS_H
#define WVM_SLAVE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct wvm_slave_options {
	uint16_t port;
	unsigned cores; /* to run processors on: WVM_CORE_OVERRIDE, or CORES cut to the CPU quota */
	uint64_t ram_mb;
	uint32_t phys_id;
	uint16_t ctrl_port;
	char ring_path[256];
	char qemu[256]; /* the program; empty: none was found */
	const char *cpus;
	bool no_kvm;
	bool poll;
};

/* Fills o from the command line and the environment. Exits with status 1 and one line on an error.
 */
void wvm_slave_options(struct wvm_slave_options *o, int argc, char **argv);

#endif

/*
 * The command line of wavevm_node_slave: positional arguments as operators know them,
 * everything else as long options.
 *
 *   wavevm_node_slave PORT CORES RAM_MB PHYS_ID CTRL_PORT
 */
#ifndef WVM_SLAVE_OPTIONS_H
#define WVM_SLAVE_OPTIONS_H

#include <stdint.h>

#define WVM_SLAVE_CORES_MAX 256u

struct wvm_slave_options {
	uint16_t port; /* UDP at 127.0.0.1: SLAVE_PORT of this node's master */
	unsigned cores;
	uint64_t ram_mb; /* the memory is the master's */
	uint32_t phys_id;
	uint16_t ctrl_port;
	char ring_path[256];
	char qemu[1024]; /* empty: there is none, so nothing but KVM */
	const char *cpus;
};

/* Fills o. Exits with status 1 and one line on an error. */
void wvm_slave_options(struct wvm_slave_options *o, int argc, char **argv);

#endif

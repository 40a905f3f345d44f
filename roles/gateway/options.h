/* The command line of wavevm_gateway. */
#ifndef WVM_GATEWAY_OPTIONS_H
#define WVM_GATEWAY_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/core/route.h"

#define WVM_GATEWAY_BUFFERS_MIN 64u
#define WVM_GATEWAY_BUFFERS_MAX 65536u

struct wvm_gateway_options {
	uint16_t port, ctrl_port;
	struct wvm_hop upstream; /* ip 0: there is none */
	const char *routes;      /* file; "-": none */
	const char *cpus;        /* NULL: hwloc chooses */
	uint32_t bind_ip;        /* host order; 0: every address of this host */
	uint32_t ctrl_ip;        /* host order */
	unsigned mtu;            /* 0: the interface's */
	unsigned buffers;        /* datagrams waiting to leave */
	unsigned orders;         /* operator's routes at most */
	bool poll;
};

/* Ends the program with status 1 and one line when the command line makes no sense. */
void wvm_gateway_options(struct wvm_gateway_options *o, int argc, char **argv);

#endif

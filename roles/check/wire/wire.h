/*
 * The wire: an Ethernet switch between TAP devices that knows the addresses of
 * its ports, forwards frames through an impairment queue, and sleeps when there
 * is nothing to do. One thread.
 */
#ifndef WVM_WIRE_WIRE_H
#define WVM_WIRE_WIRE_H

#include <stdio.h>

#include "impair.h"

struct wvm_wire_port {
	int fd;
	char netns[64]; /* "" when the descriptor was given */
	unsigned char mac[6];
	uint64_t undelivered; /* frames that the kernel would not take (interface down) */
};

struct wvm_wire {
	unsigned n_ports;
	struct wvm_wire_port port[WVM_WIRE_PORTS + 1]; /* from 1 */
	int control_fd;                                /* -1: none */
	int signal_fd;                                 /* signalfd: SIGUSR1, SIGTERM, SIGINT */
	int parent_fd;                                 /* pidfd: end with this process; -1: none */
	const char *stats_path;                        /* NULL: none */
	struct wvm_impair impair;
};

/* Runs until SIGTERM, SIGINT or the end of the parent. Returns 0 or -errno. */
int wvm_wire_run(struct wvm_wire *wire);

/* Writes the counters, as one line and as one JSON object. */
void wvm_wire_print(const struct wvm_wire *wire, FILE *out);
void wvm_wire_print_json(const struct wvm_wire *wire, FILE *out);

/* Replaces stats_path, where one was named, by the counters of now. 0 or -errno. */
int wvm_wire_save_stats(const struct wvm_wire *wire);

#endif

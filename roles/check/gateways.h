/* Gateways of the system tests: wavevm_gateway processes, alone or beside the masters of a cluster.
 */
#ifndef WVM_CHECK_GATEWAYS_H
#define WVM_CHECK_GATEWAYS_H

#include "roles/check/cluster.h"

struct gateway {
	pid_t pid; /* 0: does not run */
	char name[32], netns[160], routes[160], log[160];
	char upstream_ip[24];
	uint16_t port, ctrl_port, upstream_port;
};

/*
 * Names a gateway in the namespace of a path ("": the test's own), with the text of its file of
 * routes. upstream_ip "0.0.0.0": there is none. Nothing runs.
 */
void gateway_prepare(struct gateway *g, const char *name, const char *netns, uint16_t port,
		     uint16_t ctrl_port, const char *upstream_ip, uint16_t upstream_port,
		     const char *routes);
/* Starts it, with further arguments (NULL-terminated, or NULL), and waits for its ready line. */
void gateway_start(struct gateway *g, const char *const more[]);
/* Sends the signal and waits for the end: the status as waitpid() gives it. */
int gateway_end(struct gateway *g, int signal);

/* wvm_ctl on its control port: arguments after the port, NULL-terminated. */
void gateway_ctl(const struct gateway *g, struct cluster_result *r, const char *const args[]);
/* `wvm_ctl --json COMMAND`, parsed. The caller's to decref. */
json_t *gateway_json(const struct gateway *g, const char *command);
/* A figure of `stats --json`. */
uint64_t gateway_stat(const struct gateway *g, const char *section, const char *name);

#endif

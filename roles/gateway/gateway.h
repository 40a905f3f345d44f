/*
 * The gateway: one shard of the runtime, a socket for data, one for control, the routes and the
 * forwarder. Everything in it belongs to the shard's thread once that runs.
 */
#ifndef WVM_GATEWAY_GATEWAY_H
#define WVM_GATEWAY_GATEWAY_H

#include <netinet/in.h>

#include "ring/daemon.h"
#include "ring/shard.h"
#include "ring/udp.h"
#include "roles/gateway/options.h"
#include "shared/forward.h"

struct wvm_gateway_control;

struct wvm_gateway {
	const struct wvm_gateway_options *options;
	struct wvm_routes_table routes;
	void *route_memory;
	struct wvm_forward forward;
	unsigned mtu;
	struct wvm_place place;
	int claim_fd; /* our CPU, as long as it is open */
	struct wvm_shard *shard;
	struct wvm_udp *udp;
	struct wvm_hook hook;
	struct wvm_gateway_control *control;
	uint64_t control_answered, control_unanswered; /* no buffer for the answer */
	uint64_t control_foreign;                      /* datagrams without our magic */
	uint64_t told_ns; /* when the log said last that messages lead nowhere; 0: never */
	uint64_t told;    /* how many did by then */
	uint64_t started_ns;
	int exit_status;
};

/* 0, or -errno with one line in err, nothing left behind. g is zeroed memory of the caller. */
int wvm_gateway_start(struct wvm_gateway *g, const struct wvm_gateway_options *options, char *err,
		      size_t err_len);
void wvm_gateway_stop(struct wvm_gateway *g);

/* control.c: the control port. What it gives out and takes is in shared/control.h. */
int wvm_gateway_control_open(struct wvm_gateway_control **out, struct wvm_gateway *g, char *err,
			     size_t err_len);
void wvm_gateway_control_close(struct wvm_gateway_control *c);

/* report.c: answers as text, the caller's to free(); NULL: no memory. */
char *wvm_gateway_status(const struct wvm_gateway *g);
char *wvm_gateway_stats(const struct wvm_gateway *g);
char *wvm_gateway_dump(const struct wvm_gateway *g);

static inline struct wvm_hop wvm_gateway_hop(const struct sockaddr_in *a)
{
	return (struct wvm_hop){.ip = ntohl(a->sin_addr.s_addr), .port = ntohs(a->sin_port)};
}

#endif

#include "roles/gateway/options.h"

#include <argp.h>
#include <arpa/inet.h>
#include <string.h>

#include "ring/daemon.h"
#include "shared/control_route.h"
#include "shared/core/msg.h"

const char *argp_program_version = "wavevm_gateway " WVM_VERSION " (protocol 31)";

enum {
	OPT_BIND = 256,
	OPT_CTRL_IP,
	OPT_CPUS,
	OPT_MTU,
	OPT_BUFFERS,
	OPT_ORDERS,
	OPT_POLL,
};

static const struct argp_option option_list[] = {
	{"bind", OPT_BIND, "IP", 0, "address to listen at (all of this host's)", 0},
	{"control-ip", OPT_CTRL_IP, "IP", 0,
	 "address of the control port (127.0.0.1): whoever reaches it may change routes", 0},
	{"cpus", OPT_CPUS, "CPU", 0, "which CPU to run on (chosen by hwloc)", 0},
	{"mtu", OPT_MTU, "BYTES", 0,
	 "largest UDP payload sent, 576 to 65000 (MTU of the interface towards upstream - 28, at "
	 "most 1472)",
	 0},
	{"buffers", OPT_BUFFERS, "N", 0,
	 "datagrams that may wait to leave; what finds none free is pushed back (4096)", 0},
	{"orders", OPT_ORDERS, "N", 0, "operator's routes at most (65536)", 0},
	{"poll", OPT_POLL, NULL, 0, "spin before sleeping, giving the core away at each look", 0},
	{0},
};

static uint32_t address(struct argp_state *state, const char *what, const char *text, bool host)
{
	struct in_addr in;
	uint32_t ip = 0;

	if (inet_pton(AF_INET, text, &in) == 1)
		ip = ntohl(in.s_addr);
	else
		argp_failure(state, 1, 0, "%s '%s' is not an IPv4 address", what, text);
	if (ip && host && !wvm_hop_is_host(ip))
		argp_failure(state, 1, 0, "%s '%s' is not the address of a host", what, text);
	return ip;
}

static void positional(struct argp_state *state, struct wvm_gateway_options *o, const char *arg)
{
	switch (state->arg_num) {
	case 0: o->port = (uint16_t)wvm_arg_number(state, "PORT", arg, 1, UINT16_MAX); break;
	case 1:
		o->upstream.ip = strcmp(arg, "-") ? address(state, "UPSTREAM_IP", arg, true) : 0;
		break;
	case 2:
		o->upstream.port = (uint16_t)wvm_arg_number(state, "UPSTREAM_PORT", arg,
							    o->upstream.ip ? 1 : 0, UINT16_MAX);
		break;
	case 3: o->routes = arg; break;
	case 4:
		o->ctrl_port = (uint16_t)wvm_arg_number(state, "CTRL_PORT", arg, 1, UINT16_MAX);
		break;
	default: argp_error(state, "unexpected argument '%s'", arg);
	}
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct wvm_gateway_options *o = state->input;

	switch (key) {
	case OPT_BIND: o->bind_ip = address(state, "--bind", arg, true); break;
	case OPT_CTRL_IP: o->ctrl_ip = address(state, "--control-ip", arg, true); break;
	case OPT_CPUS: o->cpus = arg; break;
	case OPT_MTU:
		o->mtu = (unsigned)wvm_arg_number(state, "--mtu", arg, WVM_MTU_MIN, 65000);
		break;
	case OPT_BUFFERS:
		o->buffers = (unsigned)wvm_arg_number(
			state, "--buffers", arg, WVM_GATEWAY_BUFFERS_MIN, WVM_GATEWAY_BUFFERS_MAX);
		break;
	case OPT_ORDERS:
		o->orders = (unsigned)wvm_arg_number(state, "--orders", arg, 1, WVM_NODE_MAX);
		break;
	case OPT_POLL: o->poll = true; break;
	case ARGP_KEY_ARG: positional(state, o, arg); break;
	case ARGP_KEY_END:
		if (state->arg_num < 5)
			argp_error(state, "%u of 5 arguments are missing", 5 - state->arg_num);
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

void wvm_gateway_options(struct wvm_gateway_options *o, int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_list,
		.parser = parse,
		.args_doc = "PORT UPSTREAM_IP UPSTREAM_PORT ROUTES CTRL_PORT",
		.doc = "Passes messages of a WaveVM cluster on by the vnode that they are for: beside a "
		       "master (sidecar), or as a tier between hosts.\v"
		       "ROUTES has lines ROUTE <first_vnode> <count> <next_hop_ip> <port>, in which "
		       "0 0 is the default; - : no file. An order at the control port comes before a "
		       "line, that before what neighbours announce and what is learned from their "
		       "messages, that before the default, and last comes UPSTREAM (0.0.0.0 0: there "
		       "is none). Only next hops and upstream are heard. Ends cleanly on SIGTERM.",
	};

	argp_err_exit_status = 1;
	*o = (struct wvm_gateway_options){
		.ctrl_ip = INADDR_LOOPBACK, .buffers = 4096, .orders = 65536};
	argp_parse(&argp, argc, argv, 0, NULL, o);
}

/* wvmbench: what a WaveVM cluster costs, measured from a program on it. */
#include <argp.h>
#include <string.h>

#include "bench/wvmbench/args.h"
#include "bench/wvmbench/bulk.h"
#include "bench/wvmbench/fault.h"
#include "bench/wvmbench/gateway.h"
#include "bench/wvmbench/peer.h"
#include "bench/wvmbench/touch.h"
#include "bench/wvmbench/vcpu.h"

enum {
	KEY_PEER_RING = 256,
	KEY_PEERS,
	KEY_PEER_CORES,
	KEY_FLOOR,
	KEY_FLOOR_ARGS,
	KEY_LAYOUT,
	KEY_JSON,
	KEY_HISTOGRAM,
	KEY_ROUNDS,
	KEY_EXPLAIN,
	KEY_CONTROL,
	KEY_FLOOR_PROGRAM
};

static const struct argp_option FAULT_OPTIONS[] = {
	{"ring", 'r', "PATH", 0, "Ring file of this node's master (default $WVM_RING_PATH)", 0},
	{"vm", 'v', "ID", 0, "VM whose memory is measured and OVERWRITTEN (default 0)", 0},
	{"peer-ring", KEY_PEER_RING, "PATH", 0,
	 "Start a peer at another master of this machine; twice for a third node", 0},
	{"peers", KEY_PEERS, "N", 0,
	 "Use peers in slots 1 to N, started on other hosts by "
	 "`wvmbench peer --slot K`",
	 0},
	{"threads", 't', "LIST", 0, "Measure with so many threads each (default 1,8)", 0},
	{"pages", 'n', "N", 0,
	 "Pages per phase and round (default 2000; read-ahead sees to some of less than 500)", 0},
	{"rounds", KEY_ROUNDS, "N", 0, "Rounds, 1 to 32 (default 5)", 0},
	{"cores", 'c', "LIST", 0, "Cores of the touching threads", 0},
	{"peer-cores", KEY_PEER_CORES, "LIST", 0, "Cores of the peers started here", 0},
	{"floor", KEY_FLOOR, NULL, 0, "Run wvm_floor in turn and print ratios to it", 0},
	{"floor-args", KEY_FLOOR_ARGS, "ARGS", 0, "Its layout, as '--cores 0,0,1 --spin'", 0},
	{"floor-program", KEY_FLOOR_PROGRAM, "PATH", 0, "wvm_floor (default: beside wvmbench)", 0},
	{"layout", KEY_LAYOUT, "NAME", 0, "Name of the layout of cores in the report", 0},
	{"histogram", KEY_HISTOGRAM, NULL, 0, "Print latency distributions", 0},
	{"explain", KEY_EXPLAIN, "FILE.svg", OPTION_ARG_OPTIONAL,
	 "Instead: where the time of remote read faults goes, from traces of the masters, and the "
	 "system calls of each; as bars here, and as SVG there. All masters are on this host",
	 0},
	{"control", KEY_CONTROL, "LIST", 0,
	 "Control ports for --explain: of this node's master, then of each --peer-ring's "
	 "(default 9001,9011,9021 ...)",
	 0},
	{"json", KEY_JSON, "FILE", 0, "Write JSON there ('-': instead of the tables)", 0},
	{0}};

static const struct argp_option PEER_OPTIONS[] = {
	{"ring", 'r', "PATH", 0, "Ring file of this node's master (default $WVM_RING_PATH)", 0},
	{"vm", 'v', "ID", 0, "VM (default 0)", 0},
	{"slot", 's', "K", 0, "Which peer this is, 1 to 14 (default 1)", 0},
	{"core", 'c', "N", 0, "Run on this core", 0},
	{0}};

static const char DOC[] =
	"wvmbench fault: page faults on a running cluster.\n"
	"wvmbench peer: the other node's part, on another host.\n"
	"wvmbench touch|stream|local|capacity|rate: memory in bulk; --help of each.\n"
	"wvmbench vcpu: runs of a processor on another node.\n"
	"wvmbench gateway: messages through a gateway.";

/* What the phases of `fault` are; the order is that in which they are measured. */
static const char FAULT_DOC[] =
	"Page faults on a running cluster: one access to each of --pages pages, in random order, of "
	"every kind.\v"
	"First-touch is memory homed here that nobody has touched: whole units are granted, and few "
	"accesses are faults. All others are measured at pages that are asked for one by one, and a "
	"run ends with an error if they were not:\n"
	"  local-miss            homed here, shared by two other nodes\n"
	"  zero-page             untouched, in a unit of the home's node\n"
	"  remote-write-upgrade  read before, shared with the home's node\n"
	"  remote-write          owned by the home's node\n"
	"  remote-read           the home has it, two other nodes share it\n"
	"  remote-read-modified  owned by a third node\n"
	"  remote-write-third    owned by a third node\n"
	"Their home is the node of peer 1, but for local-miss. With peers on one other node only, "
	"local-miss, remote-read and remote-write-third are left out, and remote-read-modified is "
	"owned by the home's node; without a peer only first-touch is measured.";

static error_t parse_fault(int key, char *arg, struct argp_state *state)
{
	struct fault_options *o = state->input;
	int value[FAULT_LISTS];

	switch (key) {
	case 'r': o->ring = arg; break;
	case 'v': o->vm_id = (uint16_t)arg_number(state, "--vm", arg, 0, UINT16_MAX); break;
	case 'n': o->pages = arg_number(state, "--pages", arg, 1, MAILBOX_SPANS * 512); break;
	case 'c': o->n_cores = arg_list(state, "--cores", arg, 0, 4095, o->core); break;
	case 't':
		o->n_threads = arg_list(state, "--threads", arg, 1, TOUCH_THREADS, value);
		for (unsigned i = 0; i < o->n_threads; i++)
			o->threads[i] = (unsigned)value[i];
		break;
	case KEY_PEER_RING:
		if (o->n_peer_rings == MAILBOX_PEERS)
			argp_error(state, "more than %u peers", MAILBOX_PEERS);
		o->peer_ring[o->n_peer_rings++] = arg;
		break;
	case KEY_PEERS:
		o->peers = (unsigned)arg_number(state, "--peers", arg, 0, MAILBOX_PEERS);
		break;
	case KEY_PEER_CORES:
		o->n_peer_cores = arg_list(state, "--peer-cores", arg, 0, 4095, o->peer_core);
		break;
	case KEY_ROUNDS: o->rounds = (unsigned)arg_number(state, "--rounds", arg, 1, 32); break;
	case KEY_FLOOR: o->floor = true; break;
	case KEY_FLOOR_ARGS: o->floor_arguments = arg; break;
	case KEY_FLOOR_PROGRAM: o->floor_program = arg; break;
	case KEY_LAYOUT: o->layout = arg; break;
	case KEY_HISTOGRAM: o->histogram = true; break;
	case KEY_EXPLAIN:
		o->explain = true;
		o->explain_svg = arg;
		break;
	case KEY_CONTROL:
		o->n_control = arg_list(state, "--control", arg, 1, UINT16_MAX, o->control);
		break;
	case KEY_JSON: o->json = arg; break;
	case ARGP_KEY_ARG: argp_error(state, "unknown argument '%s'", arg); break;
	case ARGP_KEY_END:
		if (o->peers < o->n_peer_rings)
			o->peers = o->n_peer_rings;
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static error_t parse_peer(int key, char *arg, struct argp_state *state)
{
	struct peer_options *o = state->input;

	switch (key) {
	case 'r': o->ring = arg; break;
	case 'v': o->vm_id = (uint16_t)arg_number(state, "--vm", arg, 0, UINT16_MAX); break;
	case 's': o->slot = (unsigned)arg_number(state, "--slot", arg, 1, MAILBOX_PEERS); break;
	case 'c': o->core = (int)arg_number(state, "--core", arg, 0, 4095); break;
	case ARGP_KEY_ARG: argp_error(state, "unknown argument '%s'", arg); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* The command becomes the program's name, so that messages and --help speak of it. */
static void name_command(char **argv)
{
	static char name[64];

	snprintf(name, sizeof(name), "wvmbench %s", argv[1]);
	argv[1] = name;
}

static void parse_command(const struct argp *argp, int argc, char **argv, void *options)
{
	name_command(argv);
	argp_parse(argp, argc - 1, argv + 1, 0, NULL, options);
}

int main(int argc, char **argv)
{
	static const struct argp fault_argp = {FAULT_OPTIONS, parse_fault, NULL, FAULT_DOC,
					       NULL,          NULL,        NULL};
	static const struct argp peer_argp = {PEER_OPTIONS, parse_peer, NULL, DOC,
					      NULL,         NULL,       NULL};
	static const struct argp main_argp = {
		NULL, NULL, "fault|peer|touch|stream|local|capacity|rate|vcpu|gateway [OPTION...]",
		DOC,  NULL, NULL,
		NULL};
	static struct fault_options fault = {.pages = 2000,
					     .rounds = 5,
					     .threads = {1, 8},
					     .n_threads = 2,
					     .floor_arguments = "",
					     .layout = "any"};
	static struct peer_options peer = {.slot = 1, .core = -1};

	argp_program_version = "wvmbench " WVM_VERSION;
	if (argc > 1 && !strcmp(argv[1], "fault")) {
		parse_command(&fault_argp, argc, argv, &fault);
		return fault_main(&fault);
	}
	if (argc > 1 && !strcmp(argv[1], "peer")) {
		parse_command(&peer_argp, argc, argv, &peer);
		return peer_main(&peer);
	}
	if (argc > 1 && bulk_find(argv[1])) {
		const struct bulk *b = bulk_find(argv[1]);

		name_command(argv);
		return bulk_command(b, argc - 1, argv + 1);
	}
	if (argc > 1 && !strcmp(argv[1], "vcpu")) {
		name_command(argv);
		return vcpu_command(argc - 1, argv + 1);
	}
	if (argc > 1 && !strcmp(argv[1], "gateway")) {
		name_command(argv);
		return gateway_command(argc - 1, argv + 1);
	}
	argp_parse(&main_argp, argc, argv, 0, NULL, NULL);
	argp_help(&main_argp, stderr, ARGP_HELP_STD_ERR, argv[0]);
	return 2;
}

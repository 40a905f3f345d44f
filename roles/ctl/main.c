/* wvm_ctl: the operator's tool. */
#include <argp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/ctl/ask.h"
#include "roles/ctl/life.h"
#include "roles/ctl/move.h"
#include "roles/ctl/print.h"
#include "roles/ctl/route.h"
#include "roles/ctl/top.h"
#include "shared/conf.h"
#include "shared/vcpu.h"

#define DEFAULT_PORT 9001u
#define INTERVAL_S   2 /* of top */

const char *argp_program_version = "wvm_ctl " WVM_VERSION " (protocol 31)";

static const struct command {
	const char *name;
	enum wvm_control_op op;
	void (*print)(const json_t *answer);
	bool operand;
} commands[] = {
	{"status", WVM_CONTROL_STATUS, wvm_print_status, false},
	{"stats", WVM_CONTROL_STATS, wvm_print_stats, false},
	{"where", WVM_CONTROL_WHERE, wvm_print_where, true},
	{"vcpu", WVM_CONTROL_VCPUS, wvm_print_vcpus, false},
	{"members", WVM_CONTROL_MEMBERS, wvm_print_members, false},
	{"epoch", WVM_CONTROL_EPOCH, wvm_print_epoch, false},
	{"slices", WVM_CONTROL_STATUS, wvm_print_slices, false},
	{"drain", WVM_CONTROL_DRAIN, NULL, true},
	{"join", WVM_CONTROL_JOIN, NULL, true},
	{"route", WVM_CONTROL_ROUTE_DUMP, wvm_print_routes, false},
	{"top", 0, NULL, false},
};

struct options {
	struct wvm_ask ask;
	const struct command *command;
	bool json;
	bool move; /* vcpu move */
	unsigned vcpu;
	uint32_t node;
	struct wvm_route_order order; /* op 0: route list */
	unsigned args;                /* of route */
	bool live;                    /* top */
	bool live_only;               /* an option that nothing else has */
	const char *asked[WVM_TOP_TARGETS_MAX];
	struct wvm_top_options top;
};

static const struct argp_option option_list[] = {
	{"port", 'p', "PORT", 0, "control port of the master on this host (9001)", 0},
	{"vm", 'v', "ID", 0, "VM that GPA or the vCPU belongs to (0)", 0},
	{"gateway", 'g', "IP", 0, "gateway whose routes are meant (127.0.0.1)", 0},
	{"count", 'c', "N", 0, "so many vnodes from FIRST on (1)", 0},
	{NULL, 'n', "COUNT", 0, "top: so many samples, then end (no end; with --json 1)", 0},
	{NULL, 'd', "SECONDS", 0, "top: from one sample to the next, 0.1 to 3600 (2)", 0},
	{"json", 'j', NULL, 0, "print the answer as JSON", 0},
	{0},
};

static uint64_t number(struct argp_state *state, const char *what, const char *text, uint64_t max)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (text[0] < '0' || text[0] > '9' || *end || errno || value > max)
		argp_failure(state, 1, 0, "%s '%s' is not a number up to %llu", what, text,
			     (unsigned long long)max);
	return value;
}

static void choose(struct argp_state *state, struct options *o, const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(name, commands[i].name))
			o->command = &commands[i];
	if (!o->command)
		argp_error(state, "there is no command '%s'", name);
	else
		o->ask.op = o->command->op;
	o->live = !strcmp(name, "top");
}

/* vcpu move I NODE: those after the first. */
static void take_move(struct argp_state *state, struct options *o, const char *arg)
{
	switch (state->arg_num) {
	case 1:
		if (strcmp(arg, "move"))
			argp_error(state, "vcpu has no '%s', only move", arg);
		o->move = true;
		break;
	case 2: o->vcpu = (unsigned)number(state, "vCPU", arg, WVM_VCPU_MAX - 1); break;
	default: o->node = (uint32_t)number(state, "NODE", arg, WVM_NODE_MAX - 1); break;
	}
}

static uint32_t address(struct argp_state *state, const char *what, const char *text)
{
	struct in_addr in;

	if (inet_pton(AF_INET, text, &in) != 1)
		argp_failure(state, 1, 0, "%s '%s' is not an IPv4 address", what, text);
	return ntohl(in.s_addr);
}

/* route list, route add FIRST IP PORT, route del FIRST: those after the first. */
static void take_route(struct argp_state *state, struct options *o, const char *arg)
{
	o->args = state->arg_num;
	if (state->arg_num == 1 && !strcmp(arg, "add"))
		o->order.op = WVM_CONTROL_ROUTE_ADD;
	else if (state->arg_num == 1 && !strcmp(arg, "del"))
		o->order.op = WVM_CONTROL_ROUTE_DEL;
	else if (state->arg_num == 1 && strcmp(arg, "list"))
		argp_error(state, "route has no '%s', only list, add and del", arg);
	else if (state->arg_num == 2 && o->order.op)
		o->order.first = (uint32_t)number(state, "FIRST", arg, WVM_NODE_MAX - 1);
	else if (state->arg_num == 3 && o->order.op == WVM_CONTROL_ROUTE_ADD)
		o->order.hop.ip = address(state, "IP", arg);
	else if (state->arg_num == 4 && o->order.op == WVM_CONTROL_ROUTE_ADD)
		o->order.hop.port = (uint16_t)number(state, "PORT", arg, UINT16_MAX);
	else if (state->arg_num > 1)
		argp_error(state, "unexpected argument '%s'", arg);
}

static void check_route(struct argp_state *state, const struct options *o)
{
	if (o->order.op == WVM_CONTROL_ROUTE_ADD && o->args < 4)
		argp_error(state, "add needs FIRST, IP and PORT, as in route add 5 10.0.0.5 8000");
	if (o->order.op == WVM_CONTROL_ROUTE_DEL && o->args < 2)
		argp_error(state, "del needs FIRST, as in route del 5");
}

/* top [IP:]PORT ... */
static void take_asked(struct argp_state *state, struct options *o, const char *arg)
{
	if (o->top.count == WVM_TOP_TARGETS_MAX)
		argp_error(state, "top asks %u daemons at most", WVM_TOP_TARGETS_MAX);
	else
		o->asked[o->top.count++] = arg;
}

/* Those without an IP are at that of --gateway, which may come last. */
static void check_top(struct argp_state *state, struct options *o)
{
	uint32_t here = o->ask.ip ? o->ask.ip : INADDR_LOOPBACK;

	for (unsigned i = 0; i < o->top.count; i++) {
		const char *text = o->asked[i], *port = strchr(text, ':');
		char ip[32] = ""; /* a longer one is none, cut or not */

		o->top.at[i].ip = here;
		if (port) {
			snprintf(ip, sizeof(ip), "%.*s", (int)(port - text), text);
			o->top.at[i].ip = address(state, "IP", ip);
		}
		o->top.at[i].port = (uint16_t)number(state, "PORT", port ? port + 1 : text,
						     UINT16_MAX);
	}
	if (!o->top.count) {
		o->top.at[0].ip = here;
		o->top.at[0].port = o->ask.port;
		o->top.count = 1;
	}
	o->top.json = o->json;
	if (o->json && !o->top.samples)
		o->top.samples = 1;
}

static double seconds(struct argp_state *state, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (text[0] < '0' || text[0] > '9' || *end ||
	    !(value >= WVM_TOP_INTERVAL_MIN_S && value <= WVM_TOP_INTERVAL_MAX_S))
		argp_failure(state, 1, 0, "-d '%s' is not a number of seconds from %g to %g", text,
			     WVM_TOP_INTERVAL_MIN_S, WVM_TOP_INTERVAL_MAX_S);
	return value;
}

static unsigned samples(struct argp_state *state, const char *text)
{
	unsigned value = (unsigned)number(state, "-n", text, UINT32_MAX);

	if (!value)
		argp_failure(state, 1, 0, "-n 0 samples are none");
	return value;
}

/* drain NODE, join NODE */
static bool is_life(const struct options *o)
{
	return o->ask.op == WVM_CONTROL_DRAIN || o->ask.op == WVM_CONTROL_JOIN;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'p': o->ask.port = (uint16_t)number(state, "--port", arg, UINT16_MAX); break;
	case 'v': o->ask.vm_id = (uint16_t)number(state, "--vm", arg, UINT16_MAX); break;
	case 'g': o->ask.ip = address(state, "--gateway", arg); break;
	case 'c': o->order.count = (uint32_t)number(state, "--count", arg, WVM_NODE_MAX); break;
	case 'j': o->json = true; break;
	case 'n':
		o->top.samples = samples(state, arg);
		o->live_only = true;
		break;
	case 'd':
		o->top.interval_s = seconds(state, arg);
		o->live_only = true;
		break;
	case ARGP_KEY_ARG:
		if (!o->command)
			choose(state, o, arg);
		else if (o->live)
			take_asked(state, o, arg);
		else if (o->ask.op == WVM_CONTROL_VCPUS && state->arg_num < 4)
			take_move(state, o, arg);
		else if (o->ask.op == WVM_CONTROL_ROUTE_DUMP)
			take_route(state, o, arg);
		else if (is_life(o) && state->arg_num == 1)
			o->node = (uint32_t)number(state, "NODE", arg, WVM_NODE_MAX - 1);
		else if (o->command->operand && state->arg_num == 1)
			o->ask.operand = number(state, "GPA", arg, UINT64_MAX);
		else
			argp_error(state, "unexpected argument '%s'", arg);
		break;
	case ARGP_KEY_END:
		if (!o->command)
			argp_error(
				state,
				"a command is missing: status, stats, where, vcpu, members, epoch, "
				"slices, drain, join, route or top");
		else if (o->live_only && !o->live)
			argp_error(state, "-n and -d belong to top");
		else if (o->live)
			check_top(state, o);
		else if (is_life(o) && state->arg_num < 2)
			argp_error(state, "%s needs a node, as in %s 3", o->command->name,
				   o->command->name);
		else if (o->command->operand && state->arg_num < 2)
			argp_error(state, "where needs a GPA, as 0x100000");
		else if (o->move && state->arg_num < 4)
			argp_error(state, "move needs a vCPU and a node, as in vcpu move 1 2");
		else
			check_route(state, o);
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static int move(struct options *o)
{
	char err[256], said[128];
	json_t *answer;
	int ret = wvm_move(&o->ask, o->vcpu, o->node, said, sizeof(said), &answer, err,
			   sizeof(err));

	if (ret)
		fprintf(stderr, "wvm_ctl: %s\n", err);
	else if (o->json && !json_dumpf(answer, stdout, JSON_INDENT(1)))
		putchar('\n');
	else
		puts(said);
	json_decref(answer);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int life(const struct options *o)
{
	char err[512];
	json_t *answer;
	int ret = wvm_life(&o->ask, o->ask.op == WVM_CONTROL_JOIN, o->node, o->json, &answer, err,
			   sizeof(err));

	if (ret)
		fprintf(stderr, "wvm_ctl: %s\n", err);
	else if (o->json && !json_dumpf(answer, stdout, JSON_INDENT(1)))
		putchar('\n');
	json_decref(answer);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int route(const struct options *o)
{
	struct wvm_route_answer answer;
	char err[256];
	bool add = o->order.op == WVM_CONTROL_ROUTE_ADD;

	if (wvm_route_order(&o->ask, &o->order, &answer, err, sizeof(err))) {
		fprintf(stderr, "wvm_ctl: %s\n", err);
		return EXIT_FAILURE;
	}
	printf(o->json ? "{\"first\": %u, \"count\": %u, \"%s\": %u}\n"
		       : "from vnode %u on, %u vnodes: %s %u\n",
	       o->order.first, o->order.count, add ? "replaced" : "deleted", answer.vnodes);
	return EXIT_SUCCESS;
}

static int ask(struct options *o)
{
	char err[256], *text = NULL;
	json_error_t why;
	json_t *answer;

	if (wvm_ask(&o->ask, &text, err, sizeof(err))) {
		fprintf(stderr, "wvm_ctl: %s\n", err);
		return EXIT_FAILURE;
	}
	answer = json_loads(text, 0, &why);
	if (!answer) {
		fprintf(stderr, "wvm_ctl: the master's answer is not JSON: %s\n", why.text);
		free(text);
		return EXIT_FAILURE;
	}
	if (o->json)
		puts(text);
	else
		o->command->print(answer);
	json_decref(answer);
	free(text);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_list,
		.parser = parse,
		.args_doc =
			"status\nstats\nwhere GPA\nvcpu [move I NODE]\nmembers\nepoch\nslices\ndrain NODE\n"
			"join NODE\nroute [list]\n"
			"route add FIRST IP PORT\nroute del FIRST\ntop [[IP:]PORT...]",
		.doc = "Asks the WaveVM master on this host, or a gateway.\v"
		       "status  who the node is, its VMs, members and pages\n"
		       "stats   all counters that are not 0, and the fault histograms\n"
		       "where   the home of a page and why it is the home (a PLACE line of the "
		       "topology, or the hash), and what this node knows of the page\n"
		       "vcpu    where the vCPUs of this node's QEMU are that run elsewhere, and what "
		       "they did; move: vCPU I goes on on NODE, which is waited for\n"
		       "members who of the cluster's nodes answers, as this node has it\n"
		       "epoch   the record of members that counts, who votes on the next, and what "
		       "is under way\n"
		       "slices  how many of the directory's slices each node has, and how many its "
		       "vnodes would be\n"
		       "drain   NODE is to home no memory any more: its slices move to the others "
		       "while guests run, and when its last program has ended its pages follow; "
		       "waits until it may be switched off (the order stands if you interrupt it)\n"
		       "join    NODE, a spare one or one that was drained, homes memory again; "
		       "waits until it does\n"
		       "route   the routes of a gateway; add: the vnodes from FIRST on go by IP:PORT "
		       "from now on, del: they do not any more. status and stats with --port of a "
		       "gateway are its own\n"
		       "top     what masters and gateways do at present (--port, or all those PORTs), and "
		       "the members as each master has them; keys: q quit, p pause, s sort. Without a "
		       "terminal: text, a block for each sample; --json: the rates of one",
	};
	struct options o = {
		.ask.port = DEFAULT_PORT, .order.count = 1, .top.interval_s = INTERVAL_S};

	argp_err_exit_status = 1;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (o.live)
		return wvm_top(&o.top);
	if (o.order.op)
		return route(&o);
	if (is_life(&o))
		return life(&o);
	return o.move ? move(&o) : ask(&o);
}

/* wvm_ctl: the operator's tool. */
#include <argp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/ctl/ask.h"
#include "roles/ctl/move.h"
#include "roles/ctl/print.h"
#include "roles/ctl/route.h"
#include "shared/conf.h"
#include "shared/vcpu.h"

#define DEFAULT_PORT 9001u

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
	{"route", WVM_CONTROL_ROUTE_DUMP, wvm_print_routes, false},
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
};

static const struct argp_option option_list[] = {
	{"port", 'p', "PORT", 0, "control port of the master on this host (9001)", 0},
	{"vm", 'v', "ID", 0, "VM that GPA or the vCPU belongs to (0)", 0},
	{"gateway", 'g', "IP", 0, "gateway whose routes are meant (127.0.0.1)", 0},
	{"count", 'c', "N", 0, "so many vnodes from FIRST on (1)", 0},
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

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'p': o->ask.port = (uint16_t)number(state, "--port", arg, UINT16_MAX); break;
	case 'v': o->ask.vm_id = (uint16_t)number(state, "--vm", arg, UINT16_MAX); break;
	case 'g': o->ask.ip = address(state, "--gateway", arg); break;
	case 'c': o->order.count = (uint32_t)number(state, "--count", arg, WVM_NODE_MAX); break;
	case 'j': o->json = true; break;
	case ARGP_KEY_ARG:
		if (!o->command)
			choose(state, o, arg);
		else if (o->ask.op == WVM_CONTROL_VCPUS && state->arg_num < 4)
			take_move(state, o, arg);
		else if (o->ask.op == WVM_CONTROL_ROUTE_DUMP)
			take_route(state, o, arg);
		else if (o->command->operand && state->arg_num == 1)
			o->ask.operand = number(state, "GPA", arg, UINT64_MAX);
		else
			argp_error(state, "unexpected argument '%s'", arg);
		break;
	case ARGP_KEY_END:
		if (!o->command)
			argp_error(
				state,
				"a command is missing: status, stats, where, vcpu, members, epoch "
				"or route");
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
			"status\nstats\nwhere GPA\nvcpu [move I NODE]\nmembers\nepoch\nroute [list]\n"
			"route add FIRST IP PORT\nroute del FIRST",
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
		       "route   the routes of a gateway; add: the vnodes from FIRST on go by IP:PORT "
		       "from now on, del: they do not any more. status and stats with --port of a "
		       "gateway are its own",
	};
	struct options o = {.ask.port = DEFAULT_PORT, .order.count = 1};

	argp_err_exit_status = 1;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (o.order.op)
		return route(&o);
	return o.move ? move(&o) : ask(&o);
}

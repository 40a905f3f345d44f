/* wvm_ctl: the operator's tool. */
#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/ctl/ask.h"
#include "roles/ctl/print.h"

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
};

struct options {
	struct wvm_ask ask;
	const struct command *command;
	bool json;
};

static const struct argp_option option_list[] = {
	{"port", 'p', "PORT", 0, "control port of the master on this host (9001)", 0},
	{"vm", 'v', "ID", 0, "VM that GPA belongs to (0)", 0},
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

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'p': o->ask.port = (uint16_t)number(state, "--port", arg, UINT16_MAX); break;
	case 'v': o->ask.vm_id = (uint16_t)number(state, "--vm", arg, UINT16_MAX); break;
	case 'j': o->json = true; break;
	case ARGP_KEY_ARG:
		if (!o->command)
			choose(state, o, arg);
		else if (o->command->operand && state->arg_num == 1)
			o->ask.operand = number(state, "GPA", arg, UINT64_MAX);
		else
			argp_error(state, "unexpected argument '%s'", arg);
		break;
	case ARGP_KEY_END:
		if (!o->command)
			argp_error(state, "a command is missing: status, stats or where");
		else if (o->command->operand && state->arg_num < 2)
			argp_error(state, "where needs a GPA, as 0x100000");
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_list,
		.parser = parse,
		.args_doc = "status\nstats\nwhere GPA",
		.doc = "Asks the WaveVM master on this host.\v"
		       "status  who the node is, its VMs, members and pages\n"
		       "stats   all counters that are not 0, and the fault histograms\n"
		       "where   the home of a page and why it is the home (a PLACE line of the "
		       "topology, or the hash), and what this node knows of the page",
	};
	struct options o = {.ask.port = DEFAULT_PORT};
	char err[256], *text = NULL;
	json_error_t why;
	json_t *answer;

	argp_err_exit_status = 1;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (wvm_ask(&o.ask, &text, err, sizeof(err))) {
		fprintf(stderr, "wvm_ctl: %s\n", err);
		return EXIT_FAILURE;
	}
	answer = json_loads(text, 0, &why);
	if (!answer) {
		fprintf(stderr, "wvm_ctl: the master's answer is not JSON: %s\n", why.text);
		free(text);
		return EXIT_FAILURE;
	}
	if (o.json)
		puts(text);
	else
		o.command->print(answer);
	json_decref(answer);
	free(text);
	return EXIT_SUCCESS;
}

/* wvm_litmus: the memory model across nodes, tested with litmus tests. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "roles/check/cluster.h"
#include "roles/check/litmus/campaign.h"

enum { KEY_HANG = 256, KEY_LIST };

static const struct argp_option OPTIONS[] = {
	{"runs", 'r', "N", 0, "Runs of each line of the table (default 100000)", 0},
	{"seed", 's', "N", 0, "Seed (default: from the clock; printed)", 0},
	{"test", 't', "NAME", 0, "Only this test", 0},
	{"network", 'n', "NAME", 0, "Only this network: clean or impaired", 0},
	{"chaos", 'c', "SPEC", 0, "What the impaired wire does (default " LITMUS_CHAOS ")", 0},
	{"hang", KEY_HANG, "S", 0, "A batch that takes longer is an error (default 60)", 0},
	{"list", KEY_LIST, NULL, 0, "Print the tests and what x86-TSO says of each, run nothing",
	 0},
	{0}};

static const char DOC[] =
	"Runs litmus tests on clusters of two and three masters of its own (root) and compares "
	"the outcomes with what x86-TSO allows. Exit status 0: nothing forbidden was seen.";

static struct litmus_campaign campaign = {
	.runs = 100000, .clean = true, .impaired = true, .hang_s = 60};

static uint64_t number(struct argp_state *state, const char *what, const char *text, uint64_t max)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || end == text || *end || *text == '-' || !value || value > max)
		argp_error(state, "%s: '%s' is not from 1 to %llu", what, text,
			   (unsigned long long)max);
	return value;
}

static void choose_network(struct argp_state *state, const char *name)
{
	campaign.clean = !strcmp(name, "clean");
	campaign.impaired = !strcmp(name, "impaired");
	if (!campaign.clean && !campaign.impaired)
		argp_error(state, "--network: '%s' is neither clean nor impaired", name);
}

static void list(void)
{
	char text[LITMUS_OUTCOME_TEXT];

	for (unsigned i = 0; i < litmus_count; i++) {
		const struct litmus_test *t = &litmus_tests[i];
		struct litmus_set tso, sc;
		bool allowed = false;

		litmus_model(t, LITMUS_TSO, &tso);
		litmus_model(t, LITMUS_SEQUENTIAL, &sc);
		for (unsigned o = 0; o < LITMUS_OUTCOMES; o++)
			allowed |= litmus_has(&tso, o) && (o & t->asked_mask) == t->asked;
		printf("%-11s %u threads, %2u outcomes, %2u of them sequential; %s: %s\n", t->name,
		       t->threads, litmus_set_size(&tso), litmus_set_size(&sc),
		       litmus_asked(t, text), allowed ? "allowed" : "forbidden");
	}
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 'r': campaign.runs = number(state, "--runs", arg, UINT32_MAX); break;
	case 's': campaign.seed = number(state, "--seed", arg, UINT64_MAX); break;
	case 't':
		if (!litmus_find(arg))
			argp_error(state, "--test: no test is called '%s'", arg);
		campaign.test = arg;
		break;
	case 'n': choose_network(state, arg); break;
	case 'c': campaign.chaos = arg; break;
	case KEY_HANG: campaign.hang_s = (unsigned)number(state, "--hang", arg, 86400); break;
	case KEY_LIST: list(); exit(0);
	case ARGP_KEY_ARG: argp_error(state, "unknown argument '%s'", arg); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

START_TEST(no_outcome_is_seen_that_x86_tso_forbids)
{
	static struct litmus_totals totals;

	litmus_campaign(&campaign, &totals);
	litmus_print_relaxed(&totals);
	litmus_print_proof(&totals);
	ck_assert_msg(totals.forbidden == 0, "%llu runs with a forbidden outcome",
		      (unsigned long long)totals.forbidden);
}
END_TEST

static Suite *litmus_suite(void)
{
	Suite *s = suite_create("litmus");

	/* No limit in time: a batch has one. */
	tcase_add_test(cluster_tcase(s, "campaign", 0), no_outcome_is_seen_that_x86_tso_forbids);
	return s;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {OPTIONS, parse, NULL, DOC, NULL, NULL, NULL};
	static Suite *(*const suites[])(void) = {litmus_suite};

	argp_program_version = "wvm_litmus " WVM_VERSION;
	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (!campaign.seed)
		campaign.seed = (uint64_t)time(NULL);
	printf("litmus: %llu runs a line, seed %llu\n", (unsigned long long)campaign.runs,
	       (unsigned long long)campaign.seed);
	return cluster_main(argv, suites, 1);
}

/*
 * The simulator as a program: random configurations, one per seed, in as many
 * processes as there are processors, until time is up or one of them fails; or
 * one seed again, as a chart.
 */
#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/core/assert.h"
#include "shared/core/sim/cluster.h"

#define JOBS_MAX     64
#define SEED_SECONDS 900 /* of real time: a core that loops is a failure, too */

struct options {
	uint64_t seed, from, to, steps;
	double seconds;
	int jobs, page;
	bool one, trace, broken;
};

/* One per process, in shared memory, so that the parent can tell what a dead one was at. */
struct worker {
	uint64_t seed, seeds;
	struct sim_report sum;
	char failure[SIM_TEXT];
};

static struct worker *mine;  /* of this process */
static volatile bool *ended; /* one has failed: the others stop after their seed */

/* ---- options --------------------------------------------------------------------------- */

enum { KEY_STEPS = 256, KEY_BROKEN };

static const struct argp_option argp_options[] = {
	{"seed", 's', "N", 0, "Run this seed, and no other", 0},
	{"trace", 't', NULL, 0, "Draw its messages as a chart (with --seed)", 0},
	{"window", 'w', "FROM-TO", 0, "Draw these steps only", 0},
	{"page", 'p', "N", 0, "Draw what concerns this page only", 0},
	{"seconds", 'd', "N", 0, "Run fresh seeds for so long (60)", 0},
	{"hours", 'H', "N", 0, "Run fresh seeds for so long", 0},
	{"jobs", 'j', "N", 0, "Processes (one per processor)", 0},
	{"steps", KEY_STEPS, "N", 0, "Inputs to cores per seed (400000)", 0},
	{"broken", KEY_BROKEN, NULL, 0,
	 "Let second programs in unprotected: it has to be noticed (exit status 1)", 0},
	{0},
};

static double number(struct argp_state *state, const char *arg, double most)
{
	char *end;
	double value = strtod(arg, &end);

	if (end == arg || *end || !(value >= 0) || value > most)
		argp_error(state, "%s is not a number from 0 to %.0f", arg, most);
	return value;
}

static uint64_t whole(struct argp_state *state, const char *arg, const char **rest)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(arg, &end, 0);
	if (end == arg || errno || *arg == '-' || (rest ? *end && *end != '-' : *end))
		argp_error(state, "%s is not a number", arg);
	if (rest)
		*rest = end;
	return value;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;
	const char *rest;

	switch (key) {
	case 's':
		o->seed = whole(state, arg, NULL);
		o->one = true;
		return 0;
	case 't': o->trace = true; return 0;
	case 'w':
		o->from = whole(state, arg, &rest);
		o->to = *rest ? whole(state, rest + 1, NULL) : o->from;
		return 0;
	case 'p': o->page = (int)number(state, arg, SIM_PAGES_MAX - 1) + 1; return 0;
	case 'd': o->seconds = number(state, arg, 1e9); return 0;
	case 'H': o->seconds = 3600 * number(state, arg, 1e6); return 0;
	case 'j': o->jobs = (int)number(state, arg, JOBS_MAX); return 0;
	case KEY_STEPS: o->steps = whole(state, arg, NULL); return 0;
	case KEY_BROKEN: o->broken = true; return 0;
	case ARGP_KEY_ARG: argp_usage(state); return 0;
	case ARGP_KEY_END:
		if (o->trace && !o->one)
			argp_error(state, "a chart needs --seed");
		return 0;
	default: return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = argp_options,
	.parser = parse,
	.doc = "Runs clusters of the protocol core in simulated time: every seed is another "
	       "configuration, with lost, doubled, late and damaged messages, stopped and slow "
	       "nodes. Exits with 1 at the first violation of what must always hold.\v"
	       "The environment's WVM_SIM_TRACE=SEED[:FROM-TO] draws runs of a seed in test "
	       "programs, too, which have configurations of their own; their failures print it.",
};

/* ---- runs ------------------------------------------------------------------------------ */

/* An assertion in a core, which cannot go on: the rest of the process neither. */
__attribute__((noreturn)) void wvm_core_panic(const char *what, const char *file, int line)
{
	uint64_t seed, step;

	sim_where(&seed, &step);
	snprintf(mine->failure, sizeof(mine->failure), "seed %llu step %llu: assertion %s, %s:%d",
		 (unsigned long long)seed, (unsigned long long)step, what, file, line);
	fflush(stdout);
	_exit(1);
}

/* Whether the seed passed; else its failure is in mine. */
static bool run_seed(uint64_t seed, const struct options *o)
{
	struct sim_config config;
	struct sim_report r;

	mine->seed = seed;
	sim_random(&config, seed);
	config.unprotected = o->broken;
	if (o->trace) {
		config.trace = stdout;
		config.trace_from = o->from;
		config.trace_to = o->to;
		config.trace_page = (uint32_t)o->page;
	}
	alarm(o->trace ? 0 : SEED_SECONDS);
	sim_exercise(&config, o->steps, &r, mine->failure);
	alarm(0);
	mine->seeds++;
	sim_report_add(&mine->sum, &r);
	return !r.failure;
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

__attribute__((noreturn)) static void work(int index, const struct options *o)
{
	double until = now_s() + o->seconds;

	for (uint64_t seed = o->seed + (uint64_t)index; !*ended; seed += (uint64_t)o->jobs) {
		if (!run_seed(seed, o)) {
			*ended = true;
			fflush(stdout); /* the chart, to its last line */
			_exit(1);
		}
		if (now_s() >= until)
			break;
	}
	_exit(0);
}

static void tell_failure(const struct worker *w, const struct options *o)
{
	const char *step = strstr(w->failure, "step ");
	uint64_t at = step ? strtoull(step + 5, NULL, 10) : 0;

	printf("FAILED  %s\nreplay  make sim SEED=%llu TRACE=1", w->failure,
	       (unsigned long long)w->seed);
	if (at)
		printf(" STEP=%llu-%llu",
		       (unsigned long long)(at > SIM_TRACE_STEPS ? at - SIM_TRACE_STEPS : 1),
		       (unsigned long long)at);
	if (o->steps != SIM_SEED_STEPS)
		printf(" STEPS=%llu", (unsigned long long)o->steps);
	printf("\n");
}

/* How a process ended that left no failure of its own. */
static void note_death(struct worker *w, int status)
{
	if (w->failure[0] || !status)
		return;
	if (WIFSIGNALED(status))
		snprintf(w->failure, sizeof(w->failure), "seed %llu: ended by signal %d (%s)",
			 (unsigned long long)w->seed, WTERMSIG(status),
			 WTERMSIG(status) == SIGALRM ? "it did not come to an end"
						     : strsignal(WTERMSIG(status)));
	else
		snprintf(w->failure, sizeof(w->failure), "seed %llu: exit status %d",
			 (unsigned long long)w->seed, WEXITSTATUS(status));
}

/* True when all seeds passed. */
static bool run_fresh(struct worker *workers, const struct options *o)
{
	struct sim_report sum = {0};
	pid_t pids[JOBS_MAX] = {0};
	uint64_t seeds = 0;
	bool passed = true;

	for (int i = 0; i < o->jobs; i++) {
		fflush(stdout);
		pids[i] = fork();
		if (pids[i] < 0) {
			perror("fork");
			*ended = true;
			passed = false;
			break;
		}
		mine = &workers[i];
		if (!pids[i])
			work(i, o);
	}
	for (int i = 0; i < o->jobs; i++) {
		int status = 0;

		if (pids[i] <= 0)
			continue;
		if (waitpid(pids[i], &status, 0) < 0) {
			perror("waitpid");
			passed = false;
		}
		note_death(&workers[i], status);
		if (workers[i].failure[0]) {
			*ended = true;
			passed = false;
			tell_failure(&workers[i], o);
		}
		seeds += workers[i].seeds;
		sim_report_add(&sum, &workers[i].sum);
	}
	printf("%llu seeds from %llu: ", (unsigned long long)seeds, (unsigned long long)o->seed);
	sim_report_print(&sum, stdout);
	return passed;
}

int main(int argc, char **argv)
{
	struct options o = {
		.seconds = 60, .steps = SIM_SEED_STEPS, .jobs = (int)sysconf(_SC_NPROCESSORS_ONLN)};
	struct worker *workers;
	size_t size = JOBS_MAX * sizeof(*workers) + sizeof(bool);

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	sim_trace_check();
	o.jobs = o.jobs < 1 ? 1 : o.jobs > JOBS_MAX ? JOBS_MAX : o.jobs;
	workers = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (workers == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	ended = (volatile bool *)(workers + JOBS_MAX);
	if (!o.one) {
		o.seed = (uint64_t)time(NULL) * 100000;
		return run_fresh(workers, &o) ? 0 : 1;
	}
	o.jobs = 1;
	o.seconds = 0;
	return run_fresh(workers, &o) ? 0 : 1;
}

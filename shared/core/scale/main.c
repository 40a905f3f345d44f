/*
 * wvm_scale: gossip and epochs among up to a million simulated nodes. Without options it makes the
 * runs of the table below, which is what `make scale` does; with options one run.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/core/scale/scale.h"

#ifndef WVM_VERSION
#define WVM_VERSION "0"
#endif

const char *argp_program_version = "wvm_scale " WVM_VERSION;

#define OURS \
	"period 0.5 s, dead 5 s after suspicion, news at once and then each 0.5 s; every node real"
#define THEIRS                                                                                      \
	"the same machine with memberlist's defaults for a LAN: period 1 s, dead 4 log10(N) s "     \
	"after suspicion (the least that\n    it waits; it waits longer for fewer accusers), news " \
	"each 0.2 s, fan-out 3; its epochs ride on gossip as here"

struct run {
	const char *name, *note;
	uint32_t pod, pods, zones, room, room_up;
	bool theirs, small;
	uint32_t warm_s, quiet_s, after_s, deaths;
};

static const struct run runs[] = {
	{"200, mesh", OURS, 200, 1, 1, 1024, 0, false, true, 5, 600, 30, 8},
	{"1,000, mesh", OURS, 1000, 1, 1, 1024, 0, false, true, 5, 300, 30, 16},
	{"1,000, mesh, memberlist", THEIRS, 1000, 1, 1, 1024, 0, true, true, 5, 300, 60, 16},
	{"10,000, mesh", OURS, 10000, 1, 1, 10240, 0, false, false, 5, 20, 20, 16},
	{"10,000, mesh, memberlist", THEIRS, 10000, 1, 1, 10240, 0, true, false, 5, 20, 40, 16},
	{"50,000, pods of 1,000",
	 OURS "; 2 zones of 25 pods, views full: 999 members and 25 others", 1000, 25, 2, 1024, 0,
	 false, false, 5, 10, 20, 32},
	{"1,016,800, pods of 1,025",
	 OURS
	 "; 32 zones of 31 pods of 1,025, views\n    full: 1,024 members; of gateways in their zones 61 and others",
	 1025, 31, 32, 1024, 0, false, false, 5, 20, 20, 64},
	{"1,000,000, pods of 100",
	 OURS
	 "; 100 zones of 100 pods of 100. Views are\n    of 112 (99 members, 13 others), those of gateways in their zones of 256: the "
	 "whole of it at once",
	 100, 100, 100, 112, 256, false, false, 5, 5, 14, 64},
};
#define RUNS (sizeof(runs) / sizeof(runs[0]))

struct arguments {
	struct run one;
	bool is_one, small;
	const char *out;
	uint32_t loss_ppm, memory_mb, processes;
	bool parts;
	uint64_t seed;
};

enum {
	OPT_PODS = 256,
	OPT_ZONES,
	OPT_LOSS,
	OPT_SEED,
	OPT_MEMORY,
	OPT_MEMBERLIST,
	OPT_PARTS,
	OPT_PROCESSES
};

static const struct argp_option options[] = {
	{"small", 's', NULL, 0, "The runs of up to 1,000 nodes only", 0},
	{"out", 'o', "DIR", 0, "Write scale.svg and scale.json there", 0},
	{"pod", 'n', "N", 0, "One run: hosts of a pod (2 to 32,767)", 1},
	{"pods", OPT_PODS, "N", 0, "Pods of a zone", 1},
	{"zones", OPT_ZONES, "N", 0, "Zones", 1},
	{"view", 'v', "N", 0, "Peers in a view, at most 32,767", 1},
	{"gateway-view", 'g', "N", 0,
	 "Peers in the views of gateways, which are to hold their groups", 1},
	{"after", 'a', "S", 0, "Seconds after the epoch and the deaths", 1},
	{"quiet", 'q', "S", 0, "Seconds before, while messages are counted", 1},
	{"deaths", 'd', "N", 0, "Nodes that die, at most 64", 1},
	{"memberlist", OPT_MEMBERLIST, NULL, 0, "With memberlist's numbers", 1},
	{"loss", OPT_LOSS, "PPM", 0, "Datagrams lost, of a million (20000)", 2},
	{"seed", OPT_SEED, "N", 0, "Another seed (1)", 2},
	{"memory", OPT_MEMORY, "MB", 0,
	 "Run what takes more in parts, pod by pod, or leave it out if its pods are not apart: views "
	 "of more than a pod has (8192)",
	 2},
	{"parts", OPT_PARTS, NULL, 0, "Run in parts whatever can be", 2},
	{"processes", OPT_PROCESSES, "N", 0,
	 "Parts at a time, if memory allows (as there are processors); no figure depends on it", 2},
	{0},
};

static uint32_t number(struct argp_state *state, const char *arg, uint32_t min, uint32_t max)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(arg, &end, 10);
	if (errno || end == arg || *end || v < min || v > max)
		argp_error(state, "'%s': a number from %u to %u is needed", arg, min, max);
	return (uint32_t)v;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 's': a->small = true; return 0;
	case 'o': a->out = arg; return 0;
	case OPT_LOSS: a->loss_ppm = number(state, arg, 0, 1000000); return 0;
	case OPT_SEED: a->seed = number(state, arg, 0, UINT32_MAX); return 0;
	case OPT_MEMORY: a->memory_mb = number(state, arg, 1, UINT32_MAX); return 0;
	case OPT_PARTS: a->parts = true; return 0;
	case OPT_PROCESSES: a->processes = number(state, arg, 1, SCALE_PROCESSES); return 0;
	case 'n': a->one.pod = number(state, arg, 2, WVM_GOSSIP_ROOM_MAX); break;
	case OPT_PODS: a->one.pods = number(state, arg, 1, WVM_NODE_MAX); break;
	case OPT_ZONES: a->one.zones = number(state, arg, 1, WVM_NODE_MAX); break;
	case 'v': a->one.room = number(state, arg, 1, WVM_GOSSIP_ROOM_MAX); break;
	case 'g': a->one.room_up = number(state, arg, 1, WVM_GOSSIP_ROOM_MAX); break;
	case 'a': a->one.after_s = number(state, arg, 1, 3600); break;
	case 'q': a->one.quiet_s = number(state, arg, 1, 86400); break;
	case 'd': a->one.deaths = number(state, arg, 0, SCALE_DEATHS); break;
	case OPT_MEMBERLIST: a->one.theirs = true; break;
	case ARGP_KEY_ARG: argp_error(state, "'%s': no such argument", arg); return 0;
	case ARGP_KEY_END:
		if ((uint64_t)a->one.pod * a->one.pods * a->one.zones > WVM_NODE_MAX)
			argp_error(state, "more than %u nodes have no ids", WVM_NODE_MAX);
		/* The rest have to live, and gateways do not die. */
		if (a->one.pod < 4 || a->one.deaths * 2 >= a->one.pod * a->one.pods * a->one.zones)
			argp_error(state, "too few nodes for these deaths: pods of 4 and more");
		return 0;
	default: return ARGP_ERR_UNKNOWN;
	}
	a->is_one = true;
	return 0;
}

static struct scale_plan plan_of(const struct run *r, const struct arguments *a)
{
	struct scale_plan p = {
		.name = r->name,
		.note = r->note,
		.c = {.pod = r->pod,
		      .pods = r->pods,
		      .zones = r->zones,
		      .room = r->room,
		      .room_up = r->room_up,
		      .loss_ppm = a->loss_ppm,
		      .delay_min_ms = 1,
		      .delay_max_ms = 3,
		      .seed = a->seed},
		.warm_s = r->warm_s,
		.quiet_s = r->quiet_s,
		.after_s = r->after_s,
		.deaths = r->deaths,
	};

	scale_gossip(&p.c.gossip, !r->theirs, r->pod * r->pods * r->zones);
	return p;
}

/* In parts if it is asked for or needed; as many at a time as memory allows. */
static void divide(struct scale_plan *p, const struct arguments *a)
{
	bool fits = scale_plan_bytes(p) >> 20 <= a->memory_mb;

	if (!scale_divisible(&p->c) || (fits && !a->parts))
		return;
	p->processes = a->processes;
	while (p->processes > 1 && scale_plan_bytes(p) >> 20 > a->memory_mb)
		p->processes--;
}

/* Whether there is one more result. */
static bool make(const struct run *run, const struct arguments *a, struct scale_result *r)
{
	struct scale_plan p = plan_of(run, a);
	uint64_t mb;

	divide(&p, a);
	mb = scale_plan_bytes(&p) >> 20;
	if (mb > a->memory_mb) {
		printf("%s: left out, since it takes %llu MiB (--memory)\n", p.name,
		       (unsigned long long)mb);
		return false;
	}
	fprintf(stderr, "%s: %llu MiB, %u s of virtual time%s ...\n", p.name,
		(unsigned long long)mb, p.warm_s + p.quiet_s + p.after_s,
		p.processes ? ", in parts" : "");
	return scale_measure(&p, r);
}

static int write_out(const char *dir, const struct scale_result *r, uint32_t count)
{
	char path[4096];
	int error;

	snprintf(path, sizeof(path), "%s/scale.svg", dir);
	error = scale_plot(path, r, count);
	if (!error) {
		printf("plot: %s\n", path);
		snprintf(path, sizeof(path), "%s/scale.json", dir);
		error = scale_json(path, r, count);
	}
	if (error) {
		fprintf(stderr, "wvm_scale: cannot write %s: %s\n", path, strerror(-error));
		return 1;
	}
	printf("figures: %s\n", path);
	return 0;
}

static uint32_t processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > SCALE_PROCESSES ? SCALE_PROCESSES : (uint32_t)n;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		options,
		parse,
		NULL,
		"Membership gossip and the spread of an epoch among simulated nodes: the machines "
		"that daemons are to use, under virtual time. Options of one run replace the table of "
		"runs.",
		NULL,
		NULL,
		NULL};
	struct arguments a = {.one = {"run", "as the options say", 1000, 1, 1, 1024, 0, false,
				      false, 5, 20, 30, 16},
			      .loss_ppm = 20000,
			      .memory_mb = 8192,
			      .processes = processors(),
			      .seed = 1};
	struct scale_result r[RUNS];
	uint32_t count = 0;
	int status = 0;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return 1;
	for (uint32_t i = 0; i < (a.is_one ? 1 : RUNS); i++) {
		const struct run *run = a.is_one ? &a.one : &runs[i];

		if (!a.small || a.is_one || run->small)
			count += make(run, &a, &r[count]);
	}
	scale_table(stdout, r, count);
	if (a.out)
		status = write_out(a.out, r, count);
	for (uint32_t i = 0; i < count; i++)
		scale_result_free(&r[i]);
	return status || !count;
}

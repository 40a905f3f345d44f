#include "bench/wvmbench/bulk.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench/wvmbench/args.h"
#include "bench/wvmbench/plan.h"

#define UNIT_MIB   2u
#define MIB        (1024u * 1024u)
#define MIB_MAX    (1u << 24) /* 16 TiB */
#define MARGIN_MIB 512u       /* of memory that is left to the rest of the machine */

struct bulk {
	const char *name, *doc;
	int (*run)(const struct bulk_options *o, struct attached *a, struct series_set *out);
	uint64_t mib;
};

static const struct bulk COMMANDS[] = {
	{"touch",
	 "Sequential first touch, one store for each page, of memory of the VM that was never "
	 "touched, against the same on a memfd. Each round takes another part of the VM.",
	 first_run, 1024},
	{"stream",
	 "Sequential read of memory that another node holds Modified, against the floor's stream "
	 "of as many bytes. Needs --peer-ring.",
	 stream_run, 1024},
	{"local",
	 "Random loads and stores over memory that is used here alone, against the same over a "
	 "memfd. With --peer-ring another node has it first.",
	 local_run, 256},
	{"capacity",
	 "What directory, holders' tables and page tables take of memory: per untouched unit, whole "
	 "unit and shared page, and of a mapping of the whole VM. Needs --peer-ring, and --node for "
	 "each node.",
	 capacity_run, 64},
	{"rate",
	 "Faults per second of several threads in two ranges of 1 GiB, one access to each page of "
	 "what another node owns. Counts only: held against each other are runs on clusters with "
	 "different --cores. Needs --peer-ring and a VM of more than 2 GiB.",
	 rate_run, 64},
};

enum {
	KEY_ROUNDS = 256,
	KEY_SECONDS,
	KEY_NODE,
	KEY_CORES,
	KEY_LAYOUT,
	KEY_JSON,
	KEY_PEER_RING,
	KEY_PEER_CORE,
	KEY_FLOOR_ARGS,
	KEY_FLOOR_PROGRAM
};

static const struct argp_option OPTIONS[] = {
	{"ring", 'r', "PATH", 0, "Ring file of this node's master (default $WVM_RING_PATH)", 0},
	{"vm", 'v', "ID", 0, "VM whose memory is measured and OVERWRITTEN (default 0)", 0},
	{"mib", 'm', "N", 0, "MiB of memory in a round; less if there is no room", 0},
	{"rounds", KEY_ROUNDS, "N", 0, "Rounds, 1 to 32 (default 5)", 0},
	{"seconds", KEY_SECONDS, "N", 0,
	 "Use less memory if a round would take longer than about that (default: as long as it "
	 "takes)",
	 0},
	{"core", 'c', "N", 0, "Core of the measuring thread", 0},
	{"threads", 't', "N", 0, "Touching threads of rate, 1 to 64 (default 8)", 0},
	{"cores", KEY_CORES, "LIST", 0, "Their cores, dealt in turn (default: not pinned)", 0},
	{"peer-ring", KEY_PEER_RING, "PATH", 0, "Start a peer at another master of this machine",
	 0},
	{"peer-core", KEY_PEER_CORE, "N", 0, "Core of the peer", 0},
	{"floor-args", KEY_FLOOR_ARGS, "ARGS", 0, "Its layout, as '--cores 0,0,1 --spin'", 0},
	{"floor-program", KEY_FLOOR_PROGRAM, "PATH", 0, "wvm_floor (default: beside wvmbench)", 0},
	{"node", KEY_NODE, "PREFIX:PID", 0,
	 "A master of this machine, by its --shm-file and process: first that of --ring, then the "
	 "others",
	 0},
	{"layout", KEY_LAYOUT, "NAME", 0, "Name of the layout of cores in the report", 0},
	{"json", KEY_JSON, "FILE", 0, "Write JSON there ('-': instead of the lines)", 0},
	{0}};

const struct bulk *bulk_find(const char *name)
{
	for (unsigned i = 0; i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++)
		if (!strcmp(COMMANDS[i].name, name))
			return &COMMANDS[i];
	return NULL;
}

static void parse_node(char *arg, struct bulk_options *o, struct argp_state *state)
{
	char *colon = strrchr(arg, ':');

	if (!colon || colon == arg)
		argp_error(state, "--node: '%s' is not PREFIX:PID", arg);
	if (o->n_nodes == BULK_NODES)
		argp_error(state, "more than %u nodes", BULK_NODES);
	*colon = '\0';
	o->node[o->n_nodes].prefix = arg;
	o->node[o->n_nodes++].pid = (pid_t)arg_number(state, "--node", colon + 1, 1, INT32_MAX);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct bulk_options *o = state->input;

	switch (key) {
	case 'r': o->ring = arg; break;
	case 'v': o->vm_id = (uint16_t)arg_number(state, "--vm", arg, 0, UINT16_MAX); break;
	case 'm': o->mib = arg_number(state, "--mib", arg, UNIT_MIB, MIB_MAX); break;
	case 'c': o->core = (int)arg_number(state, "--core", arg, 0, 4095); break;
	case 't': o->threads = (unsigned)arg_number(state, "--threads", arg, 1, 64); break;
	case KEY_CORES: o->n_cores = arg_list(state, "--cores", arg, 0, 4095, o->cores); break;
	case KEY_ROUNDS:
		o->rounds = (unsigned)arg_number(state, "--rounds", arg, 1, SERIES_ROUNDS);
		break;
	case KEY_PEER_RING: o->peer_ring = arg; break;
	case KEY_PEER_CORE:
		o->peer_core = (int)arg_number(state, "--peer-core", arg, 0, 4095);
		break;
	case KEY_FLOOR_ARGS: o->floor_arguments = arg; break;
	case KEY_FLOOR_PROGRAM: o->floor_program = arg; break;
	case KEY_SECONDS:
		o->seconds = (unsigned)arg_number(state, "--seconds", arg, 1, 3600);
		break;
	case KEY_NODE: parse_node(arg, o, state); break;
	case KEY_LAYOUT: o->layout = arg; break;
	case KEY_JSON: o->json = arg; break;
	case ARGP_KEY_ARG: argp_error(state, "unknown argument '%s'", arg); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int bulk_write(const char *name, const char *layout, const char *json, const struct series_set *set)
{
	bool to_stdout = json && !strcmp(json, "-");
	FILE *out = NULL;
	int bad;

	if (!to_stdout)
		series_print(stdout, set, layout);
	if (!json)
		return 0;
	out = to_stdout ? stdout : fopen(json, "w");
	if (out) {
		series_json(out, set, name, layout);
		bad = ferror(out);
		if ((to_stdout ? fflush(out) : fclose(out)) == 0 && !bad)
			return 0;
	}
	fprintf(stderr, "wvmbench: %s: %s\n", json, strerror(errno));
	return -EIO;
}

int bulk_command(const struct bulk *b, int argc, char **argv)
{
	const struct argp argp = {OPTIONS, parse, NULL, b->doc, NULL, NULL, NULL};
	struct bulk_options o = {.mib = b->mib,
				 .rounds = 5,
				 .core = -1,
				 .threads = 8,
				 .peer_core = -1,
				 .floor_arguments = "",
				 .layout = "any"};
	static struct series_set set;
	struct attached a;
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	rc = pin_to_core(o.core);
	if (rc < 0) {
		fprintf(stderr, "wvmbench: core %d: %s\n", o.core, strerror(-rc));
		return 1;
	}
	if (attach_vm(&a, o.ring, o.vm_id) < 0)
		return 1;
	rc = b->run(&o, &a, &set);
	if (rc == 0)
		rc = bulk_write(b->name, o.layout, o.json, &set);
	detach_vm(&a);
	return rc < 0;
}

int bulk_take_units(struct attached *a, uint64_t n, uint64_t *first)
{
	if (mailbox_take_units(&a->mailbox, n, a->units, first) == 0)
		return 0;
	fprintf(stderr,
		"wvmbench: VM %u has no %" PRIu64
		" MiB in a row that no run has used yet; start the "
		"cluster anew, give the VM more memory, or ask for fewer --mib or --rounds\n",
		a->vm_id, n * UNIT_MIB);
	return -ENOSPC;
}

static uint64_t available_mib(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	uint64_t kib = 0;

	while (f && fgets(line, sizeof(line), f) &&
	       sscanf(line, "MemAvailable: %" SCNu64, &kib) != 1)
		continue;
	if (f)
		fclose(f);
	return kib / 1024;
}

uint64_t bulk_fit(uint64_t wanted_mib, unsigned copies)
{
	uint64_t there = available_mib(), room = 0;

	if (there > MARGIN_MIB)
		room = (there - MARGIN_MIB) / copies / UNIT_MIB * UNIT_MIB;
	wanted_mib -= wanted_mib % UNIT_MIB;
	if (wanted_mib <= room)
		return wanted_mib;
	fprintf(stderr,
		"wvmbench: %" PRIu64
		" MiB of memory are available, and each MiB is needed %u times: "
		"%" PRIu64 " MiB a round instead of %" PRIu64 "\n",
		there, copies, room, wanted_mib);
	return room;
}

uint64_t bulk_fit_time(const struct bulk_options *o, uint64_t mib, uint64_t warm_mib,
		       uint64_t warm_ns)
{
	uint64_t fits = o->seconds * 1000000000ull * warm_mib / (warm_ns + 1);

	fits = fits < warm_mib ? warm_mib : fits - fits % UNIT_MIB;
	if (o->seconds == 0 || mib <= fits)
		return mib;
	fprintf(stderr,
		"wvmbench: a round of %" PRIu64 " MiB would take %" PRIu64
		" s, and %u are allowed: %" PRIu64 " MiB a round\n",
		mib, mib * warm_ns / warm_mib / 1000000000, o->seconds, fits);
	return fits;
}

uint64_t *bulk_plain_map(uint64_t bytes)
{
	int fd = memfd_create("wvmbench", MFD_CLOEXEC);
	void *at = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0)
		at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		fprintf(stderr, "wvmbench: a memfd of %" PRIu64 " bytes: %s\n", bytes,
			strerror(errno));
	if (fd >= 0)
		close(fd);
	if (at == MAP_FAILED)
		return NULL;
	madvise(at, bytes, MADV_NOHUGEPAGE);
	return at;
}

uint64_t bulk_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

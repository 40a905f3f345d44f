/*
 * `wvmbench vcpu`: the round trip of a run of a processor whose slave is on another node, against
 * the least that the same hops cost and KVM's own exits; and of one that goes to yet another node.
 */
#include "bench/wvmbench/vcpu.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/wvmbench/args.h"
#include "bench/wvmbench/bulk.h"
#include "bench/wvmbench/floor.h"
#include "bench/wvmbench/guest.h"
#include "bench/wvmbench/result.h"
#include "roles/check/bare.h"

#define WARM       200u /* runs before those that count: the first one is whole, and pages come */
#define HELLOS     3u   /* of 2 s each */
#define FLOOR_PART 1.5  /* what a round trip may be of its floor, beside KVM's exit */
#define RUNS_MAX   1000000u

enum {
	KEY_MOVE_TO = 256,
	KEY_ROUNDS,
	KEY_FLOOR_ARGS,
	KEY_FLOOR_PROGRAM,
	KEY_LAYOUT,
	KEY_JSON,
	KEY_HISTOGRAM
};

static const struct argp_option OPTIONS[] = {
	{"ring", 'r', "PATH", 0, "Ring file of this node's master (default $WVM_RING_PATH)", 0},
	{"vm", 'v', "ID", 0, "VM whose first 2 MiB are OVERWRITTEN by the guest (default 0)", 0},
	{"node", 'N', "ID", 0, "Node whose slave runs the processor (default 1)", 0},
	{"move-to", KEY_MOVE_TO, "ID", 0,
	 "Measure moves, too: every run at the other one of these two nodes, with the whole state",
	 0},
	{"runs", 'n', "N", 0, "Runs of each kind in a round (default 2000)", 0},
	{"rounds", KEY_ROUNDS, "N", 0, "Rounds, 1 to 32 (default 5)", 0},
	{"core", 'c', "N", 0, "Core of the processor's thread here, and of KVM's own exits", 0},
	{"floor-args", KEY_FLOOR_ARGS, "ARGS", 0, "The floor's layout, as '--cores 0,0,1 --spin'",
	 0},
	{"floor-program", KEY_FLOOR_PROGRAM, "PATH", 0, "wvm_floor (default: beside wvmbench)", 0},
	{"layout", KEY_LAYOUT, "NAME", 0, "Name of the layout of cores in the report", 0},
	{"histogram", KEY_HISTOGRAM, NULL, 0, "Print latency distributions", 0},
	{"json", KEY_JSON, "FILE", 0, "Write JSON there ('-': instead of the tables)", 0},
	{0}};

static const char DOC[] =
	"Round trips of runs of a processor that KVM runs on another node, by way of both masters and "
	"that node's wavevm_node_slave, which have to run.\v"
	"The guest is a loop of one instruction:\n"
	"  vcpu-empty  hlt; the state stays with the slave\n"
	"  vcpu-state  hlt; the answer has the complete state, as a difference\n"
	"  vcpu-pio    out; the processor stays there within the instruction\n"
	"  vcpu-mmio   a store where there is no memory; likewise\n"
	"  vcpu-move   hlt, each run on the other node, with the whole state\n"
	"Each is held against 1.5 times the floor (wvm_floor --relay, as many bytes) and the exit of "
	"this host's own KVM together.";

struct options {
	const char *ring;
	uint16_t vm_id;
	unsigned node;
	int move_to; /* -1: no moves */
	uint64_t runs;
	unsigned rounds;
	int core; /* -1: not pinned */
	const char *floor_program, *floor_arguments, *layout, *json;
	bool histogram;
};

/* What is measured: loops where they are, and moves. */
enum { EMPTY, PIO, MMIO, STATE, MOVE, THINGS };
static const struct {
	const char *name;
	enum guest_loop loop;
	uint8_t flags; /* of a run */
} things[THINGS] = {
	[EMPTY] = {"vcpu-empty", GUEST_EMPTY, WVM_VCPU_RUN_STAY},
	[PIO] = {"vcpu-pio", GUEST_PIO, 0},
	[MMIO] = {"vcpu-mmio", GUEST_MMIO, 0},
	[STATE] = {"vcpu-state", GUEST_EMPTY, 0},
	[MOVE] = {"vcpu-move", GUEST_EMPTY, 0},
};

struct vcpu_bench {
	const struct options *o;
	struct attached a;
	struct bare_cpu cpu;
	struct bare_slave slave[2]; /* --node and --move-to */
	struct results ours, kvm, floor;
	struct wvm_vcpu_counters count[THINGS]; /* of the runs that count */
	uint64_t strays;                        /* runs that ended for reasons of the slave's own */
};

/* ---- runs -------------------------------------------------------------------------------- */

static int complain(const char *what)
{
	fprintf(stderr, "wvmbench: %s\n", what);
	return -EIO;
}

/* One run as it should be: 0 with its time, 1 if it ended early, or -errno with a line. */
static int run_once(struct vcpu_bench *b, unsigned slave, unsigned thing, uint64_t *ns)
{
	const struct wvm_vcpu_exit *e = &b->cpu.exit;
	enum guest_loop loop = things[thing].loop;
	uint8_t flags = things[thing].flags |
			(e->flags & WVM_VCPU_EXIT_MIDWAY ? WVM_VCPU_RUN_RESUME : 0);
	struct wvm_vcpu_answer answer;
	uint64_t from = bulk_now();
	int ret = bare_cpu_run(&b->cpu, &b->slave[slave], flags, &answer);

	*ns = bulk_now() - from;
	if (ret == -EBADMSG)
		return complain("the slave's answer does not fit to the run");
	if (ret < 0 || answer.outcome != WVM_VCPU_ANSWERED)
		return complain(wvm_vcpu_error());
	if (e->kind == guest_exit(loop))
		return 0;
	if (e->kind == WVM_VCPU_EXIT_KICKED)
		return 1;
	fprintf(stderr, "wvmbench: a run on node %u ended by %s at %#" PRIx64 ", not by %s: %.*s\n",
		b->slave[slave].node, wvm_vcpu_exit_name(e->kind), e->ip,
		wvm_vcpu_exit_name(guest_exit(loop)), (int)e->data_len, (const char *)e->data);
	return -EPROTO;
}

/* The instruction that waits for its device is done, so that the processor may begin another loop.
 */
static int finish(struct vcpu_bench *b)
{
	struct wvm_vcpu_answer answer;

	if (!(b->cpu.exit.flags & WVM_VCPU_EXIT_MIDWAY))
		return 0;
	if (bare_cpu_run(&b->cpu, &b->slave[0], WVM_VCPU_RUN_RESUME | WVM_VCPU_RUN_GET, &answer) <
		    0 ||
	    answer.outcome != WVM_VCPU_ANSWERED)
		return complain(wvm_vcpu_error());
	return 0;
}

static int many_runs(struct vcpu_bench *b, unsigned thing, uint64_t runs, struct wvm_samples *out)
{
	uint64_t strays = 0;

	for (uint64_t i = 0; i < runs;) {
		unsigned slave = thing == MOVE && b->cpu.at == &b->slave[0];
		uint64_t ns;
		int ret = run_once(b, slave, thing, &ns);

		if (ret < 0)
			return ret;
		strays += (uint64_t)ret;
		if (strays > runs)
			return complain("more runs end early than not");
		if (ret)
			continue;
		if (out)
			wvm_samples_add(out, ns);
		i++;
	}
	b->strays += strays;
	return 0;
}

static void count(struct wvm_vcpu_counters *sum, const struct wvm_vcpu_counters *from,
		  const struct wvm_vcpu_counters *to)
{
	sum->runs += to->runs - from->runs;
	sum->bytes_sent += to->bytes_sent - from->bytes_sent;
	sum->bytes_received += to->bytes_received - from->bytes_received;
	sum->retries += to->retries - from->retries;
}

static int keep(struct results *r, unsigned thing, struct wvm_samples *samples, uint64_t ns)
{
	struct result *e = result_get(r, things[thing].name, 1);
	int ret = e ? result_add_samples(e, samples, ns) : -ENOSPC;

	return ret < 0 ? complain(strerror(-ret)) : 0;
}

static int turn_ours(struct vcpu_bench *b, unsigned thing, struct wvm_samples *samples)
{
	struct wvm_vcpu_counters before, after;
	uint64_t from;
	int ret = guest_state(b->cpu.state, things[thing].loop);

	bare_cpu_forget(&b->cpu);
	if (!ret)
		ret = many_runs(b, thing, WARM, NULL);
	if (ret < 0)
		return ret;
	wvm_vcpu_counters(b->cpu.l, &before);
	from = bulk_now();
	ret = many_runs(b, thing, b->o->runs, samples);
	if (ret < 0)
		return ret;
	ret = keep(&b->ours, thing, samples, bulk_now() - from);
	wvm_vcpu_counters(b->cpu.l, &after);
	count(&b->count[thing], &before, &after);
	return ret < 0 ? ret : finish(b);
}

/* ---- what they are held against ------------------------------------------------------------ */

static int turn_kvm(struct vcpu_bench *b, unsigned thing, struct wvm_samples *samples)
{
	uint64_t from = bulk_now();
	int ret;

	if (thing == MOVE || thing == STATE)
		return 0;
	ret = guest_local(things[thing].loop, samples);
	return ret < 0 ? ret : keep(&b->kvm, thing, samples, bulk_now() - from);
}

/* Of one message, so that a round trip has as many as one of ours. */
static unsigned floor_bytes(const struct wvm_vcpu_counters *c)
{
	return (unsigned)((c->bytes_sent + c->bytes_received + c->runs) / (2 * c->runs));
}

static int turn_floor(struct vcpu_bench *b, unsigned thing)
{
	struct result *e = result_get(&b->floor, things[thing].name, 1);
	struct wvm_summary s;
	int ret = floor_relay(b->o->floor_program, b->o->floor_arguments, b->o->runs,
			      floor_bytes(&b->count[thing]), &s);

	if (ret < 0)
		return ret;
	return e ? result_add_summary(e, &s) : -ENOSPC;
}

/* All three in turn; ours first in the first round, since the floor has to know its bytes. */
static int one_thing(struct vcpu_bench *b, unsigned thing, unsigned round,
		     struct wvm_samples *samples)
{
	int ret = 0;

	for (unsigned i = 0; i < 3 && !ret; i++)
		switch (round % 2 ? 2 - i : i) {
		case 0: ret = turn_ours(b, thing, samples); break;
		case 1: ret = turn_kvm(b, thing, samples); break;
		default: ret = turn_floor(b, thing);
		}
	return ret;
}

static int run_rounds(struct vcpu_bench *b)
{
	unsigned n = b->o->move_to < 0 ? MOVE : THINGS;
	struct wvm_samples samples;
	int ret = wvm_samples_init(&samples, b->o->runs);

	for (unsigned round = 0; round < b->o->rounds && !ret; round++)
		for (unsigned thing = 0; thing < n && !ret; thing++)
			ret = one_thing(b, thing, round, &samples);
	wvm_samples_fini(&samples);
	return ret;
}

/* ---- the report ---------------------------------------------------------------------------- */

static const struct result *of(const struct results *r, unsigned thing)
{
	return result_find(r, things[thing].name, 1);
}

static void count_one(struct series_set *set, const char *name, const char *what, double value)
{
	char text[sizeof(set->count[0].name)];

	snprintf(text, sizeof(text), "%s: %s", name, what);
	series_count(set, text, value);
}

static void counts_of(const struct vcpu_bench *b, unsigned thing, struct series_set *set)
{
	const struct result *ours = of(&b->ours, thing), *kvm = of(&b->kvm, thing),
			    *floor = of(&b->floor, thing);
	const struct wvm_vcpu_counters *c = &b->count[thing];
	const char *name = things[thing].name;

	count_one(set, name, "p50, us", ours->summary.p50_us);
	count_one(set, name, "p90, us", ours->summary.p90_us);
	count_one(set, name, "p99, us", ours->summary.p99_us);
	if (kvm)
		count_one(set, name, "KVM's exit p50, us", kvm->summary.p50_us);
	count_one(set, name, "floor p50, us", floor->summary.p50_us);
	count_one(set, name, "bytes sent", (double)c->bytes_sent / (double)c->runs);
	count_one(set, name, "bytes received", (double)c->bytes_received / (double)c->runs);
}

/* A move and a state have no limit, but the same measure: their loop's exit, and as many bytes. */
static void series_of(const struct vcpu_bench *b, unsigned thing, struct series_set *set)
{
	const struct result *ours = of(&b->ours, thing), *floor = of(&b->floor, thing),
			    *kvm = of(&b->kvm, things[thing].loop == GUEST_EMPTY ? EMPTY : thing);
	struct series *s = series_begin(set, things[thing].name, "1.5 floor + KVM's exit", "us");

	for (unsigned i = 0; i < ours->rounds; i++)
		series_add(s, ours->round[i].p50_us,
			   FLOOR_PART * floor->round[i].p50_us + kvm->round[i].p50_us);
}

static int report(struct vcpu_bench *b)
{
	static struct series_set set;
	uint64_t retries = 0;

	results_finish(&b->ours);
	results_finish(&b->kvm);
	results_finish(&b->floor);
	for (unsigned thing = 0; thing < THINGS; thing++) {
		if (!of(&b->ours, thing))
			continue;
		series_of(b, thing, &set);
		counts_of(b, thing, &set);
		retries += b->count[thing].retries;
	}
	series_count(&set, "runs of each kind in a round", (double)b->o->runs);
	series_count(&set, "runs that ended early", (double)b->strays);
	series_count(&set, "retries", (double)retries);
	if (!b->o->json || strcmp(b->o->json, "-") != 0) {
		results_print(stdout, "runs by way of the masters", &b->ours, b->o->histogram);
		results_print(stdout, "KVM's own exits", &b->kvm, b->o->histogram);
		results_print(stdout, "floor (median of the rounds)", &b->floor, b->o->histogram);
	}
	return bulk_write("vcpu", b->o->layout, b->o->json, &set);
}

/* ---- beginning and end --------------------------------------------------------------------- */

static int meet(struct vcpu_bench *b, unsigned index, unsigned node)
{
	struct bare_slave *s = &b->slave[index];
	struct wvm_vcpu_hello hello;
	int ret = -ETIMEDOUT;

	s->node = node;
	for (unsigned i = 0; i < HELLOS && ret == -ETIMEDOUT; i++)
		ret = wvm_vcpu_hello(b->cpu.l, node, &s->life, &hello);
	if (ret < 0)
		return complain(wvm_vcpu_error());
	if (hello.engines & 1u << WVM_VCPU_ENGINE_KVM)
		return 0;
	fprintf(stderr, "wvmbench: the slave of node %u has no KVM (/dev/kvm there?)\n", node);
	return -ENOTSUP;
}

static int measure(struct vcpu_bench *b)
{
	int ret = wvm_vcpu_open(&b->cpu.l, b->a.wvm, b->o->vm_id, 0);

	if (ret < 0)
		return complain(wvm_vcpu_error());
	guest_fill((uint8_t *)b->a.mem);
	ret = meet(b, 0, b->o->node);
	if (!ret && b->o->move_to >= 0)
		ret = meet(b, 1, (unsigned)b->o->move_to);
	if (!ret)
		ret = run_rounds(b);
	if (!ret)
		ret = report(b);
	wvm_vcpu_close(b->cpu.l);
	return ret;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'r': o->ring = arg; break;
	case 'v': o->vm_id = (uint16_t)arg_number(state, "--vm", arg, 0, UINT16_MAX); break;
	case 'N': o->node = (unsigned)arg_number(state, "--node", arg, 0, INT32_MAX); break;
	case 'n': o->runs = arg_number(state, "--runs", arg, 1, RUNS_MAX); break;
	case 'c': o->core = (int)arg_number(state, "--core", arg, 0, 4095); break;
	case KEY_MOVE_TO:
		o->move_to = (int)arg_number(state, "--move-to", arg, 0, INT32_MAX);
		break;
	case KEY_ROUNDS:
		o->rounds = (unsigned)arg_number(state, "--rounds", arg, 1, SERIES_ROUNDS);
		break;
	case KEY_FLOOR_ARGS: o->floor_arguments = arg; break;
	case KEY_FLOOR_PROGRAM: o->floor_program = arg; break;
	case KEY_LAYOUT: o->layout = arg; break;
	case KEY_JSON: o->json = arg; break;
	case KEY_HISTOGRAM: o->histogram = true; break;
	case ARGP_KEY_ARG: argp_error(state, "unknown argument '%s'", arg); break;
	case ARGP_KEY_END:
		if (o->move_to == (int)o->node)
			argp_error(state, "--move-to is the node that --node is");
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int vcpu_command(int argc, char **argv)
{
	static const struct argp argp = {OPTIONS, parse, NULL, DOC, NULL, NULL, NULL};
	struct options o = {.node = 1,
			    .move_to = -1,
			    .runs = 2000,
			    .rounds = 5,
			    .core = -1,
			    .floor_arguments = "",
			    .layout = "any"};
	static struct vcpu_bench b = {0};
	int ret;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	b.o = &o;
	ret = pin_to_core(o.core);
	if (ret < 0) {
		fprintf(stderr, "wvmbench: core %d: %s\n", o.core, strerror(-ret));
		return 1;
	}
	ret = bare_cpu_init(&b.cpu, GUEST_SETUP);
	if (ret < 0)
		return complain(strerror(-ret)) < 0;
	ret = attach_vm(&b.a, o.ring, o.vm_id);
	if (!ret) {
		ret = measure(&b);
		detach_vm(&b.a);
	}
	results_fini(&b.ours);
	results_fini(&b.kvm);
	results_fini(&b.floor);
	bare_cpu_fini(&b.cpu);
	return ret < 0;
}

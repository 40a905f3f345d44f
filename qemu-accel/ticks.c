/*
 * The guest's time stamp counter, on hosts whose own differ in count and in pace.
 *
 * The owner's is the guest's. A slave's is its host's, brought to the owner's pace, and raised to
 * what the owner's must be when a run arrives: what it was at sending and half of the shortest
 * round trip. Answers raise the owner's likewise. Nobody's ever goes back. So two differ by less
 * than half of the difference between the ways to and fro, and by what they drift apart between two
 * runs, which are never far apart (remote.c). A page takes longer from node to node: who reads
 * there what another vCPU has read here, and its own counter then, finds its own to be later.
 *
 * A host whose counter stops or changes its pace has its clock take the counter's place.
 */
#include "qemu/osdep.h"

#include "cpu.h"
#include "hw/core/accel-cpu.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "qemu/timer.h"
#include "sysemu/cpu-timers.h"

#include "accel.h"
#include "vcpu.h"

#define MEASURE_US  20000
#define MEASURE_TRY 8 /* the reading that was disturbed least counts */

#define CPUID_APM 0x80000007u

static bool follows;             /* this is a slave */
static bool steady;              /* this host's counter is as good as a clock */
static uint64_t own_hz, wide_hz; /* this host's pace, and the owner's */
static uint64_t from;            /* this host's when it was measured */
static int64_t ahead;            /* of this host's; atomic */

/* A test's: what other hosts' counters would be, WVM_TEST_TICKS=OFFSET:PPM. */
static int64_t test_offset, test_ppm;

static uint64_t host_now(void)
{
	uint64_t now = steady ? cpu_get_host_ticks() : get_clock();

	return now + test_offset + (int64_t)(now / 1000000) * test_ppm;
}

static void read_test(void)
{
	const char *text = getenv("WVM_TEST_TICKS"), *ppm;

	if (!text || !*text)
		return;
	if (qemu_strtoi64(text, &ppm, 10, &test_offset) || *ppm != ':' ||
	    qemu_strtoi64(ppm + 1, NULL, 10, &test_ppm)) {
		error_report("wavevm: WVM_TEST_TICKS=%s is not OFFSET:PPM", text);
		exit(EXIT_FAILURE);
	}
}

/* The counter and the clock at one moment. */
static void read_both(uint64_t *ticks, int64_t *ns)
{
	int64_t best = INT64_MAX;

	for (int i = 0; i < MEASURE_TRY; i++) {
		int64_t before = get_clock();
		uint64_t now = cpu_get_host_ticks();
		int64_t took = get_clock() - before;

		if (took < best) {
			best = took;
			*ticks = now;
			*ns = before + took / 2;
		}
	}
}

static uint64_t measure(void)
{
	uint64_t first, second;
	int64_t began, ended;

	read_both(&first, &began);
	g_usleep(MEASURE_US);
	read_both(&second, &ended);
	return (unsigned __int128)(second - first) * NANOSECONDS_PER_SECOND / (ended - began);
}

void wvm_qemu_ticks_begin(void)
{
	uint32_t edx;

	if (own_hz)
		return;
	follows = wvm_qemu_is_slave();
	if (follows)
		read_test();
	host_cpuid(CPUID_APM, 0, NULL, NULL, NULL, &edx);
	steady = edx & CPUID_APM_INVTSC;
	own_hz = wide_hz = steady ? measure() : NANOSECONDS_PER_SECOND;
	from = host_now();
}

uint64_t wvm_qemu_ticks_hz(void)
{
	return own_hz;
}

int64_t wvm_qemu_ticks_in(int64_t ns)
{
	return (__int128)ns * wide_hz / NANOSECONDS_PER_SECOND;
}

int64_t wvm_qemu_ticks_ns(int64_t ticks)
{
	return (__int128)ticks * NANOSECONDS_PER_SECOND / wide_hz;
}

void wvm_qemu_ticks_follow(uint64_t hz)
{
	wide_hz = hz;
	from = host_now();
	qatomic_set(&ahead, 0);
}

/* The owner's stands still while the VM is stopped. */
static int64_t own(void)
{
	unsigned __int128 passed;

	if (!follows)
		return steady ? cpu_get_ticks() : qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
	passed = host_now() - from;
	return own_hz == wide_hz ? passed : passed * wide_hz / own_hz;
}

int64_t wvm_qemu_ticks(void)
{
	return own() + qatomic_read(&ahead);
}

void wvm_qemu_ticks_reach(int64_t least)
{
	int64_t now = qatomic_read(&ahead), wanted = least - own();

	while (wanted > now) {
		int64_t old = qatomic_cmpxchg(&ahead, now, wanted);

		if (old == now)
			return;
		now = old;
	}
}

/* ---- the ways to other nodes ------------------------------------------------------------------
 */

struct way {
	int64_t shortest_ns; /* there and back */
	unsigned trips;
};

static struct way *way_to(unsigned node)
{
	static GHashTable *ways; /* by node; BQL */
	struct way *way;

	if (!ways)
		ways = g_hash_table_new(NULL, NULL);
	way = g_hash_table_lookup(ways, GUINT_TO_POINTER(node));
	if (!way) {
		way = g_new0(struct way, 1);
		g_hash_table_insert(ways, GUINT_TO_POINTER(node), way);
	}
	return way;
}

void wvm_qemu_ticks_trip(unsigned node, int64_t ns)
{
	struct way *way = way_to(node);

	if (ns <= 0) /* the other host's clock was set */
		return;
	if (!way->trips++ || ns < way->shortest_ns)
		way->shortest_ns = ns;
}

unsigned wvm_qemu_ticks_trips(unsigned node)
{
	return way_to(node)->trips;
}

int64_t wvm_qemu_ticks_way(unsigned node)
{
	const struct way *way = way_to(node);

	return way->trips < WVM_QEMU_TRIPS ? 0 : wvm_qemu_ticks_in(way->shortest_ns / 2);
}

/* ---- what the guest is told of it ----------------------------------------------------------- */

static bool (*parent_realize)(CPUState *cs, Error **errp);

/* QEMU does not promise it under TCG, and its guest then looks for slower clocks: here it holds. */
static bool realize(CPUState *cs, Error **errp)
{
	CPUX86State *env = &X86_CPU(cs)->env;
	bool apart = wvm_qemu_is_slave() ||
		     wvm_qemu_placement.split < current_machine->smp.max_cpus;

	if (parent_realize && !parent_realize(cs, errp))
		return false;
	if (apart && (!(env->user_features[FEAT_8000_0007_EDX] & CPUID_APM_INVTSC) ||
		      X86_CPU(cs)->filtered_features[FEAT_8000_0007_EDX] & CPUID_APM_INVTSC)) {
		env->features[FEAT_8000_0007_EDX] |= CPUID_APM_INVTSC;
		env->cpuid_xlevel = MAX(env->cpuid_xlevel, CPUID_APM);
	}
	return true;
}

void wvm_qemu_ticks_class_init(ObjectClass *oc)
{
	AccelCPUClass *acc = ACCEL_CPU_CLASS(oc);

	parent_realize = acc->cpu_realizefn;
	acc->cpu_realizefn = realize;
}

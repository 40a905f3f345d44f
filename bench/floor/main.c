/* wvm_floor: how fast a remote page fault can be here at all. */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "floor.h"
#include "relay.h"
#include "stream.h"
#include "touch.h"

enum {
	KEY_SPIN = 256,
	KEY_BLOCKING,
	KEY_JSON,
	KEY_HISTOGRAM,
	KEY_TIMEOUT,
	KEY_STREAM,
	KEY_RAW,
	KEY_PLACE,
	KEY_RELAY,
	KEY_BYTES
};

static const struct argp_option OPTIONS[] = {
	{"threads", 't', "N", 0, "Touching threads, 1 to 64 (default 1)", 0},
	{"pages", 'n', "N", 0, "Pages per phase, all threads together (default 10000)", 0},
	{"cores", 'c', "A,M,H", 0,
	 "Core of the touching threads, of the fault handler and of the "
	 "home (default: not pinned)",
	 0},
	{"processes", 'p', "2|3", 0,
	 "The fault handler is a thread of the touching process (2, "
	 "default) or a process of its own (3)",
	 0},
	{"spin", KEY_SPIN, NULL, 0, "Handler and home spin instead of sleeping", 0},
	{"blocking", KEY_BLOCKING, NULL, 0,
	 "Plain blocking reads and sockets, two threads, no "
	 "io_uring",
	 0},
	{"json", KEY_JSON, NULL, 0, "Print JSON", 0},
	{"histogram", KEY_HISTOGRAM, NULL, 0, "Print the latency distribution of each phase", 0},
	{"stream", KEY_STREAM, "MIB", 0,
	 "Measure a bulk stream from the home to the handler instead of faults", 0},
	{"raw", KEY_RAW, NULL, 0, "The stream without checksums and without copying", 0},
	{"place", KEY_PLACE, "huge", OPTION_ARG_OPTIONAL,
	 "The stream into a file on /dev/shm that has no pages, which is read as it comes; huge: "
	 "that gets huge pages before",
	 0},
	{"relay", KEY_RELAY, "N", 0,
	 "Measure N round trips instead: from a thread through relay A and relay B to the second "
	 "thread of an echo, as a run of a processor on another node goes; --cores are the thread's, "
	 "A's, and of B and echo",
	 0},
	{"bytes", KEY_BYTES, "N", 0, "Bytes of such a run and of its answer (default 256)", 0},
	{"timeout", KEY_TIMEOUT, "SECONDS", 0, "Give up after that time (default 120)", 0},
	{0}};

static const char *const NAMES[FLOOR_OPS] = {
	[FLOOR_LOCAL] = "local-miss",   [FLOOR_ZERO] = "zero-page",
	[FLOOR_READ] = "remote-read",   [FLOOR_UPGRADE] = "remote-write-upgrade",
	[FLOOR_WRITE] = "remote-write",
};

static pid_t children[2]; /* home, master */

static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno == 0 && end != text && *end == '\0' && *out >= min && *out <= max;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct floor_options *o = state->input;
	uint64_t value = 0;
	char rest;

	switch (key) {
	case 't':
		if (!number(arg, 1, FLOOR_THREADS, &value))
			argp_error(state, "--threads: '%s' is not from 1 to 64", arg);
		o->threads = (unsigned)value;
		break;
	case 'n':
		if (!number(arg, 1, 1 << 24, &o->pages))
			argp_error(state, "--pages: '%s' is not from 1 to 16777216", arg);
		break;
	case 'c':
		if (sscanf(arg, "%d,%d,%d%c", &o->core_a, &o->core_m, &o->core_h, &rest) != 3)
			argp_error(state, "--cores takes three numbers, as 0,0,1");
		break;
	case 'p':
		if (!number(arg, 2, 3, &value))
			argp_error(state, "--processes is 2 or 3");
		o->processes = (unsigned)value;
		break;
	case KEY_SPIN: o->spin = true; break;
	case KEY_BLOCKING: o->blocking = true; break;
	case KEY_JSON: o->json = true; break;
	case KEY_HISTOGRAM: o->histogram = true; break;
	case KEY_STREAM:
		if (!number(arg, 1, 1 << 20, &value))
			argp_error(state, "--stream: '%s' is not from 1 to 1048576", arg);
		o->stream_bytes = value << 20;
		break;
	case KEY_RAW: o->raw = true; break;
	case KEY_PLACE:
		if (arg && strcmp(arg, "huge"))
			argp_error(state, "--place: '%s' is not \"huge\"", arg);
		o->place = true;
		o->huge = arg;
		break;
	case KEY_RELAY:
		if (!number(arg, 1, 1 << 24, &o->relay_runs))
			argp_error(state, "--relay: '%s' is not from 1 to 16777216", arg);
		break;
	case KEY_BYTES:
		if (!number(arg, 1, RELAY_BYTES_MAX, &value))
			argp_error(state, "--bytes: '%s' is not from 1 to 65536", arg);
		o->relay_bytes = (unsigned)value;
		break;
	case KEY_TIMEOUT:
		if (!number(arg, 1, 86400, &value))
			argp_error(state, "--timeout: '%s' is not from 1 to 86400", arg);
		alarm((unsigned)value);
		break;
	case ARGP_KEY_ARG: argp_error(state, "unknown argument '%s'", arg); break;
	case ARGP_KEY_END:
		if (o->spin && o->blocking)
			argp_error(state, "--spin and --blocking exclude each other");
		if ((o->raw || o->place) && o->stream_bytes == 0)
			argp_error(state, "--raw and --place are for --stream");
		if (o->raw && o->place)
			argp_error(state, "--raw and --place exclude each other");
		if (o->stream_bytes > 0 && o->blocking)
			argp_error(state, "--stream and --blocking exclude each other");
		if (o->relay_bytes > 0 && o->relay_runs == 0)
			argp_error(state, "--bytes is for --relay");
		if (o->relay_runs > 0 && (o->blocking || o->stream_bytes > 0))
			argp_error(state, "--relay excludes --blocking and --stream");
		if (o->relay_bytes == 0)
			o->relay_bytes = 256;
		if (o->pages < o->threads)
			argp_error(state, "fewer pages than threads");
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* A touching thread waits for ever when its helper is gone: end instead. */
static void on_signal(int signal)
{
	const char *text = signal == SIGALRM ? "wvm_floor: time is up, a fault was not answered\n"
					     : "wvm_floor: the home or the handler is gone\n";
	ssize_t ignored = write(2, text, strlen(text));

	(void)ignored;
	_exit(1);
}

pid_t floor_spawn(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		floor_die("fork");
	if (pid == 0) {
		signal(SIGALRM, SIG_DFL);
		signal(SIGCHLD, SIG_DFL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static void start_home(const struct floor_options *o, struct floor_shared *shared)
{
	int fd = floor_socket(&shared->home);

	children[0] = floor_spawn();
	if (children[0] == 0)
		floor_home(o, shared, fd);
	close(fd);
}

static struct {
	const struct floor_options *o;
	struct floor_shared *shared;
} master_args;

static void *master_thread(void *unused)
{
	floor_master(master_args.o, master_args.shared, -1);
	return NULL;
}

static pthread_t start_master(const struct floor_options *o, struct floor_shared *shared)
{
	pthread_t thread = 0;
	int self;

	master_args.o = o;
	master_args.shared = shared;
	if (o->processes == 2) {
		if (pthread_create(&thread, NULL, master_thread, NULL) != 0)
			floor_die("pthread_create");
		return thread;
	}
	self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (self < 0)
		floor_die("pidfd_open");
	children[1] = floor_spawn();
	if (children[1] == 0) {
		floor_master(o, shared, self);
		_exit(0);
	}
	close(self);
	return 0;
}

static void stop(const struct floor_options *o, struct floor_shared *shared, pthread_t master)
{
	signal(SIGCHLD, SIG_DFL);
	shared->stage = STAGE_QUIT;
	if (o->processes == 2)
		pthread_join(master, NULL);
	else
		waitpid(children[1], NULL, 0);
	kill(children[0], SIGKILL);
	waitpid(children[0], NULL, 0);
}

static void print(const struct floor_options *o, const struct wvm_summary *result)
{
	if (!o->json) {
		wvm_summary_head(stdout);
		for (int op = 0; op < FLOOR_OPS; op++) {
			wvm_summary_row(stdout, NAMES[op], o->threads, &result[op]);
			if (o->histogram)
				wvm_hist_print(stdout, &result[op]);
		}
		return;
	}
	printf("{\"program\": \"wvm_floor\", \"processes\": %u, \"cores\": [%d, %d, %d], "
	       "\"waiting\": \"%s\", \"io\": \"%s\", \"results\": [\n",
	       o->processes, o->core_a, o->core_m, o->core_h, o->spin ? "spinning" : "sleeping",
	       o->blocking ? "blocking" : "io_uring");
	for (int op = 0; op < FLOOR_OPS; op++) {
		wvm_summary_json(stdout, NAMES[op], o->threads, &result[op]);
		printf("%s\n", op < FLOOR_OPS - 1 ? "," : "]}");
	}
}

static void measure(const struct floor_options *o, struct floor_shared *shared,
		    struct wvm_summary *result)
{
	static const enum floor_op FIRST[] = {FLOOR_LOCAL, FLOOR_ZERO, FLOOR_READ, FLOOR_WRITE};
	struct region region;

	for (unsigned i = 0; i < sizeof(FIRST) / sizeof(FIRST[0]); i++) {
		region_open(&region, o, shared);
		touch_all(&region, o, shared, FIRST[i], &result[FIRST[i]]);
		if (FIRST[i] == FLOOR_READ)
			touch_all(&region, o, shared, FLOOR_UPGRADE, &result[FLOOR_UPGRADE]);
		region_close(&region, shared);
	}
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		OPTIONS, parse,
		NULL,    "Measures remote page faults without a protocol: the floor for WaveVM's.",
		NULL,    NULL,
		NULL};
	struct floor_options o = {.threads = 1,
				  .processes = 2,
				  .pages = 10000,
				  .core_a = -1,
				  .core_m = -1,
				  .core_h = -1};
	static struct wvm_summary result[FLOOR_OPS];
	struct floor_shared *shared;
	pthread_t master;

	argp_program_version = "wvm_floor " WVM_VERSION;
	alarm(120);
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		floor_die("mmap");
	floor_set_shared(shared);
	signal(SIGALRM, on_signal);
	signal(SIGCHLD, on_signal);
	if (o.stream_bytes > 0) {
		floor_stream(&o);
		return 0;
	}
	if (o.relay_runs > 0) {
		floor_relay(&o);
		return 0;
	}
	start_home(&o, shared);
	master = start_master(&o, shared);
	measure(&o, shared, result);
	stop(&o, shared, master);
	print(&o, result);
	return 0;
}

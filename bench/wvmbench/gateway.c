/*
 * wvmbench gateway: what a gateway costs that is started here. Messages of 64 bytes from one socket
 * to another, by way of it; in turn by the bare forwarder (forward.h) on the same core.
 *
 *   rate     a burst is put into its socket while it stands still (SIGSTOP); then it goes on, and
 *            the time counts until the last message has come out: so it is the one that is
 *            waited for, and not who sends
 *   latency  one message at a time, from before its send to after its receipt: the median
 *   idle     its processor time while nothing comes
 */
#include "bench/wvmbench/gateway.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/wvmbench/args.h"
#include "bench/wvmbench/bulk.h"
#include "bench/wvmbench/floor.h"
#include "bench/wvmbench/forward.h"
#include "bench/wvmbench/touch.h"
#include "shared/wire.h"

#define SINK_BYTES  (64 << 20)
#define BURST_MAX   10000u /* what a socket of 8 MiB takes of messages of 64 bytes */
#define SILENCE_MS  1000
#define LATENCY_MAX 100000u
#define READY_MS    5000

struct options {
	const char *program;
	const char *layout, *json;
	int core, gateway_core;
	unsigned burst, lone, rounds, idle_s;
	bool floor;
};

struct bed {
	const struct options *o;
	int source, sink;
	uint16_t source_port, sink_port;
	uint8_t message[WVM_HEADER_BYTES];
	pid_t gateway, bare;
	uint16_t gateway_port, bare_port;
	char routes[64];
	double *times;
};

static int complain(const char *what, int r)
{
	fprintf(stderr, "wvmbench: %s: %s\n", what, strerror(-r));
	return r;
}

static struct sockaddr_in local(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = htons(port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* ---- the gateway ------------------------------------------------------------------------ */

static int free_port(uint16_t *port)
{
	int fd = forward_socket(4096, port);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

static int write_routes(struct bed *b)
{
	int fd;
	FILE *f;

	strcpy(b->routes, "/tmp/wvmbench-routes.XXXXXX");
	fd = mkstemp(b->routes);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f)
		return -errno;
	fprintf(f, "ROUTE 1 1 127.0.0.1 %u\nROUTE 2 1 127.0.0.1 %u\n", b->sink_port,
		b->source_port);
	return fclose(f) ? -errno : 0;
}

static void default_program(char *path, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", path, size - 32);

	path[n > 0 ? n : 0] = 0;
	if (strrchr(path, '/'))
		strcpy(strrchr(path, '/') + 1, "wavevm_gateway");
}

static void run_gateway(const struct bed *b, uint16_t control, int out)
{
	char path[4096], port[8], ctrl[8], core[8];
	const char *args[] = {path, port, "0.0.0.0", "0", b->routes, ctrl, NULL, NULL, NULL};

	default_program(path, sizeof(path));
	if (b->o->program)
		args[0] = b->o->program;
	snprintf(port, sizeof(port), "%u", b->gateway_port);
	snprintf(ctrl, sizeof(ctrl), "%u", control);
	snprintf(core, sizeof(core), "%d", b->o->gateway_core);
	if (b->o->gateway_core >= 0) {
		args[6] = "--cpus";
		args[7] = core;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(out, 1);
	execv(args[0], (char *const *)args);
	fprintf(stderr, "wvmbench: %s: %s\n", args[0], strerror(errno));
	_exit(127);
}

static int start_gateway(struct bed *b)
{
	struct pollfd p = {.events = POLLIN};
	uint16_t control;
	char said[256];
	int out[2], r = write_routes(b);
	ssize_t n;

	if (r || (r = free_port(&b->gateway_port)) || (r = free_port(&control)))
		return complain("cannot prepare a gateway", r);
	if (pipe2(out, O_CLOEXEC))
		return complain("pipe", -errno);
	b->gateway = fork();
	if (!b->gateway)
		run_gateway(b, control, out[1]);
	close(out[1]);
	p.fd = out[0];
	n = b->gateway > 0 && poll(&p, 1, READY_MS) > 0 ? read(out[0], said, sizeof(said) - 1) : 0;
	close(out[0]);
	if (n > 0)
		return 0;
	fprintf(stderr, "wvmbench: the gateway did not start\n");
	return -ECHILD;
}

static void end(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGCONT);
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
}

/* ---- rate -------------------------------------------------------------------------------- */

/* Messages that are in what has come; -ETIMEDOUT when nothing comes any more. */
static int take(struct bed *b)
{
	static uint8_t data[FORWARD_BATCH][2048];
	struct mmsghdr in[FORWARD_BATCH];
	struct iovec iov[FORWARD_BATCH];
	struct pollfd p = {.fd = b->sink, .events = POLLIN};
	int n, messages = 0;

	memset(in, 0, sizeof(in));
	for (unsigned i = 0; i < FORWARD_BATCH; i++) {
		iov[i] = (struct iovec){data[i], sizeof(data[i])};
		in[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	}
	n = recvmmsg(b->sink, in, FORWARD_BATCH, MSG_DONTWAIT, NULL);
	if (n < 0 && errno == EAGAIN)
		return poll(&p, 1, SILENCE_MS) > 0 ? 0 : -ETIMEDOUT;
	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++)
		messages += (int)(in[i].msg_len / WVM_HEADER_BYTES);
	return messages;
}

static int fill(struct bed *b, const struct sockaddr_in *to)
{
	for (unsigned i = 0; i < b->o->burst; i++)
		if (sendto(b->source, b->message, sizeof(b->message), 0, (struct sockaddr *)to,
			   sizeof(*to)) < 0)
			return -errno;
	return 0;
}

/* Messages per second of a burst through one of the two. */
static int rate(struct bed *b, pid_t pid, uint16_t port, double *out)
{
	struct sockaddr_in to = local(port);
	unsigned came = 0;
	uint64_t began;
	int r;

	if (kill(pid, SIGSTOP) || waitpid(pid, NULL, WUNTRACED) != pid)
		return complain("cannot stop it", -errno);
	r = fill(b, &to);
	began = bulk_now();
	kill(pid, SIGCONT);
	while (r >= 0 && came < b->o->burst) {
		r = take(b);
		came += r > 0 ? (unsigned)r : 0;
	}
	if (r < 0) {
		fprintf(stderr, "wvmbench: %u of %u messages came out: %s\n", came, b->o->burst,
			strerror(-r));
		return r;
	}
	*out = came * 1e9 / (double)(bulk_now() - began);
	return 0;
}

/* ---- latency ----------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median of one message at a time, in us. */
static int latency(struct bed *b, uint16_t port, double *out)
{
	struct sockaddr_in to = local(port);
	struct timeval wait = {.tv_sec = 2};
	uint8_t data[2048];

	setsockopt(b->sink, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	for (unsigned i = 0; i < b->o->lone; i++) {
		uint64_t began = bulk_now();

		if (sendto(b->source, b->message, sizeof(b->message), 0, (struct sockaddr *)&to,
			   sizeof(to)) < 0 ||
		    recv(b->sink, data, sizeof(data), 0) != (ssize_t)sizeof(b->message))
			return complain("a lone message", errno ? -errno : -EIO);
		b->times[i] = (double)(bulk_now() - began) / 1000;
	}
	qsort(b->times, b->o->lone, sizeof(*b->times), by_value);
	*out = b->times[b->o->lone / 2];
	return 0;
}

/* ---- idle -------------------------------------------------------------------------------- */

static double cpu_ns(pid_t pid)
{
	clockid_t clock;
	struct timespec t = {0};

	if (!clock_getcpuclockid(pid, &clock))
		clock_gettime(clock, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double idle_percent(const struct bed *b)
{
	double before;

	sleep(1);
	before = cpu_ns(b->gateway);
	sleep(b->o->idle_s);
	return (cpu_ns(b->gateway) - before) / (b->o->idle_s * 1e9) * 100;
}

/* ---- all --------------------------------------------------------------------------------- */

static int make_bed(struct bed *b)
{
	struct wvm_msg m = {.type = WVM_MSG_PING,
			    .hops = WVM_HOPS_MAX,
			    .src = 2,
			    .dst = 1,
			    .epoch = 1,
			    .request = 1};
	struct sockaddr_in to;
	int r;

	b->source = forward_socket(SINK_BYTES, &b->source_port);
	b->sink = forward_socket(SINK_BYTES, &b->sink_port);
	b->times = calloc(b->o->lone, sizeof(*b->times));
	if (b->source < 0 || b->sink < 0 || !b->times)
		return complain("cannot open sockets", b->source < 0 ? b->source : -ENOMEM);
	wvm_wire_encode(b->message, sizeof(b->message), &m, NULL);
	to = local(b->sink_port);
	r = start_gateway(b);
	if (r || !b->o->floor)
		return r;
	b->bare = forward_start(b->o->gateway_core, &to, &b->bare_port);
	return b->bare < 0 ? complain("cannot start the bare forwarder", b->bare) : 0;
}

static int run_rounds(struct bed *b, struct series_set *set)
{
	struct series *rates = series_begin(set, "gateway-rate", "recvmmsg/sendmmsg", "messages/s");
	struct series *times = series_begin(set, "gateway-latency", "recvmmsg/sendmmsg", "us");

	for (unsigned i = 0; i <= b->o->rounds; i++) {
		double rate_ours, rate_bare = 0, time_ours, time_bare = 0;
		int r = rate(b, b->gateway, b->gateway_port, &rate_ours);

		r = r ? r : latency(b, b->gateway_port, &time_ours);
		if (!r && b->o->floor)
			r = rate(b, b->bare, b->bare_port, &rate_bare);
		if (!r && b->o->floor)
			r = latency(b, b->bare_port, &time_bare);
		if (r)
			return r;
		if (!i)
			continue; /* the first one warms */
		series_add(rates, rate_ours, rate_bare);
		series_add(times, time_ours, time_bare);
	}
	series_count(set, "idle_percent_of_a_core", idle_percent(b));
	return 0;
}

enum {
	KEY_ROUNDS = 256,
	KEY_GATEWAY_CORE,
	KEY_BURST,
	KEY_LONE,
	KEY_FLOOR,
	KEY_PROGRAM,
	KEY_LAYOUT,
	KEY_JSON,
	KEY_IDLE
};

static const struct argp_option OPTIONS[] = {
	{"floor", KEY_FLOOR, NULL, 0, "In turn with a bare recvmmsg/sendmmsg forwarder", 0},
	{"core", 'c', "N", 0, "Core of who sends and receives (default: not pinned)", 0},
	{"gateway-core", KEY_GATEWAY_CORE, "N", 0, "Core of the gateway and of the bare forwarder",
	 0},
	{"burst", KEY_BURST, "N", 0, "Messages of a burst, 1 to 10000 (default 8000)", 0},
	{"lone", 'n', "N", 0, "Messages one at a time (default 5000)", 0},
	{"rounds", KEY_ROUNDS, "N", 0, "Rounds, 1 to 32 (default 7)", 0},
	{"idle", KEY_IDLE, "SECONDS", 0, "How long it is idle, 1 to 60 (default 3)", 0},
	{"gateway-program", KEY_PROGRAM, "PATH", 0, "wavevm_gateway (default: beside wvmbench)", 0},
	{"layout", KEY_LAYOUT, "NAME", 0, "Name of the layout of cores in the report", 0},
	{"json", KEY_JSON, "FILE", 0, "Write JSON there ('-': instead of the tables)", 0},
	{0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case KEY_FLOOR: o->floor = true; break;
	case 'c': o->core = (int)arg_number(state, "--core", arg, 0, 4095); break;
	case KEY_GATEWAY_CORE:
		o->gateway_core = (int)arg_number(state, "--gateway-core", arg, 0, 4095);
		break;
	case KEY_BURST: o->burst = (unsigned)arg_number(state, "--burst", arg, 1, BURST_MAX); break;
	case 'n': o->lone = (unsigned)arg_number(state, "--lone", arg, 1, LATENCY_MAX); break;
	case KEY_ROUNDS:
		o->rounds = (unsigned)arg_number(state, "--rounds", arg, 1, SERIES_ROUNDS);
		break;
	case KEY_IDLE: o->idle_s = (unsigned)arg_number(state, "--idle", arg, 1, 60); break;
	case KEY_PROGRAM: o->program = arg; break;
	case KEY_LAYOUT: o->layout = arg; break;
	case KEY_JSON: o->json = arg; break;
	case ARGP_KEY_ARG: argp_error(state, "unknown argument '%s'", arg); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int gateway_command(int argc, char **argv)
{
	static const struct argp argp = {
		OPTIONS,
		parse,
		NULL,
		"Messages of 64 bytes through a gateway that is started for it: how many per second "
		"it forwards of a burst, how long a lone one takes, and what it costs idle. Needs no "
		"cluster.",
		NULL,
		NULL,
		NULL};
	struct options o = {.core = -1,
			    .gateway_core = -1,
			    .burst = 8000,
			    .lone = 5000,
			    .rounds = 7,
			    .idle_s = 3,
			    .layout = "any"};
	static struct series_set set;
	struct bed b = {.o = &o, .source = -1, .sink = -1};
	int r;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	r = make_bed(&b);
	/* Afterwards: what is started inherits where its parent may run. */
	if (!r && (r = pin_to_core(o.core)) < 0)
		complain("--core", r);
	if (!r)
		r = run_rounds(&b, &set);
	end(b.gateway);
	end(b.bare);
	if (b.routes[0])
		unlink(b.routes);
	if (!r)
		r = bulk_write("gateway", o.layout, o.json, &set);
	free(b.times);
	return r < 0;
}

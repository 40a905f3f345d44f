/* wvm_wire: a bad network on purpose. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control.h"
#include "tap.h"
#include "wire.h"

#define QUEUE_FRAMES 32768 /* 1 Gbit/s of full frames for 0.4 s */
#define FRAME_EXTRA  18    /* Ethernet header and a VLAN tag */

struct options {
	const char *netns[WVM_WIRE_PORTS];
	int fd[WVM_WIRE_PORTS];
	unsigned n_netns, n_fds;
	const char *chaos, *control, *stats, *device, *tell, *card;
	char command[WVM_CONTROL_MAX]; /* the words after --tell, joined */
	unsigned long mtu;
	uint64_t seed;
	bool with_parent;
};

static const struct argp_option OPTIONS[] = {
	{"chaos", 'c', "SPEC", 0, "What to do to UDP frames, see below", 0},
	{"seed", 's', "N", 0, "Seed of all random decisions (default 1)", 0},
	{"control", 'C', "PATH", 0, "Take commands at this Unix socket", 0},
	{"stats", 'S', "FILE", 0, "Write the counters there as JSON on SIGUSR1 and at the end", 0},
	{"device", 'd', "NAME", 0, "Name of the TAP device in each namespace (default eth0)", 0},
	{"mtu", 'm', "BYTES", 0, "MTU of the devices (default 1500)", 0},
	{"fd", 'f', "N", 0, "Use this open TAP descriptor as the next port, too", 0},
	{"with-parent", 'p', NULL, 0, "End when the parent process ends", 0},
	{"tell", 't', "PATH", 0, "Send the words that follow to a running wire, print its answer",
	 0},
	{"card", 'k', "DEVICE", 0,
	 "Only make a veth of this namespace behave as a card: GRO on, TSO off", 0},
	{0}};

static const char DOC[] =
	"Connects network namespaces by TAP devices and forwards Ethernet frames between them."
	"\vPorts are numbered from 1 in the order given, namespaces first. Commands, also as SPEC:\n"
	"  loss 1% duplicate 1% reorder 5% delay 1ms jitter 200us rate 100mbit\n"
	"  partition 1|2,3   heal   clear   stats";

static bool number(const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 0);
	return errno == 0 && end != text && *end == '\0' && *text != '-' && *out <= max;
}

static void add_word(struct argp_state *state, struct options *o, const char *word)
{
	size_t used = strlen(o->command);

	if ((size_t)snprintf(o->command + used, sizeof(o->command) - used, "%s%s", used ? " " : "",
			     word) >= sizeof(o->command) - used)
		argp_error(state, "command too long");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;
	uint64_t value = 0;

	switch (key) {
	case 'c': o->chaos = arg; break;
	case 's':
		if (!number(arg, UINT64_MAX, &o->seed))
			argp_error(state, "--seed: '%s' is not a number", arg);
		break;
	case 'C': o->control = arg; break;
	case 'S': o->stats = arg; break;
	case 'd': o->device = arg; break;
	case 'm':
		if (!number(arg, 65535 - FRAME_EXTRA, &value) || value < 576)
			argp_error(state, "--mtu: '%s' is not from 576 to 65517", arg);
		o->mtu = value;
		break;
	case 'f':
		if (!number(arg, 1 << 20, &value) || o->n_fds == WVM_WIRE_PORTS)
			argp_error(state, "--fd: cannot use '%s'", arg);
		o->fd[o->n_fds++] = (int)value;
		break;
	case 'p': o->with_parent = true; break;
	case 't': o->tell = arg; break;
	case 'k': o->card = arg; break;
	case ARGP_KEY_ARG:
		if (o->tell)
			add_word(state, o, arg);
		else if (o->n_netns == WVM_WIRE_PORTS)
			argp_error(state, "more than %d namespaces", WVM_WIRE_PORTS);
		else
			o->netns[o->n_netns++] = arg;
		break;
	case ARGP_KEY_END:
		if (!o->tell && !o->card && o->n_netns + o->n_fds < 1)
			argp_error(state, "no network namespace given");
		if (o->n_netns + o->n_fds > WVM_WIRE_PORTS)
			argp_error(state, "more than %d ports", WVM_WIRE_PORTS);
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static int fail(const char *what, const char *which, int rc)
{
	fprintf(stderr, "wvm_wire: %s %s: %s\n", what, which, strerror(-rc));
	return 1;
}

static int tell(const struct options *o)
{
	char answer[WVM_CONTROL_MAX];
	int rc = wvm_control_tell(o->tell, o->command, answer);

	if (rc < 0)
		return fail("no answer from", o->tell, rc);
	if (!strncmp(answer, "error", 5)) {
		fprintf(stderr, "wvm_wire: %s\n", answer);
		return 1;
	}
	if (strcmp(answer, "ok") != 0)
		fputs(answer, stdout);
	return 0;
}

static int open_ports(struct wvm_wire *wire, const struct options *o)
{
	for (unsigned i = 0; i < o->n_netns + o->n_fds; i++) {
		struct wvm_wire_port *port = &wire->port[++wire->n_ports];
		const unsigned char mac[6] = {0x02, 'W', 'V', 'M', 0, (unsigned char)(i + 1)};
		int rc;

		if (i < o->n_netns) {
			snprintf(port->netns, sizeof(port->netns), "%s", o->netns[i]);
			rc = wvm_tap_open(o->netns[i], o->device, (unsigned)o->mtu, mac);
		} else {
			rc = o->fd[i - o->n_netns];
			fcntl(rc, F_SETFL, fcntl(rc, F_GETFL) | O_NONBLOCK);
		}
		if (rc < 0)
			return fail("cannot make a TAP device in namespace", port->netns, rc);
		port->fd = rc;
		rc = wvm_tap_mac(port->fd, port->mac);
		if (rc < 0)
			return fail("not a TAP descriptor: port", port->netns, rc);
	}
	return 0;
}

static int open_doors(struct wvm_wire *wire, const struct options *o)
{
	sigset_t set;

	if (o->control) {
		wire->control_fd = wvm_control_open(o->control);
		if (wire->control_fd < 0)
			return fail("cannot open control socket", o->control, wire->control_fd);
	}
	if (o->with_parent) {
		wire->parent_fd = (int)syscall(SYS_pidfd_open, getppid(), 0);
		if (wire->parent_fd < 0)
			return fail("cannot watch", "the parent process", -errno);
	}
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	wire->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return wire->signal_fd < 0 ? fail("cannot open", "a signalfd", -errno) : 0;
}

static int run(const struct options *o)
{
	static struct wvm_wire wire = {.control_fd = -1, .parent_fd = -1};
	char err[256];
	int rc = wvm_impair_init(&wire.impair, QUEUE_FRAMES, o->mtu + FRAME_EXTRA, o->seed);

	if (rc < 0)
		return fail("cannot get memory for", "the queue", rc);
	if (o->chaos && wvm_chaos_parse(&wire.impair.chaos, o->chaos, err, sizeof(err)) < 0) {
		fprintf(stderr, "wvm_wire: --chaos: %s\n", err);
		return 1;
	}
	wire.stats_path = o->stats;
	if (open_ports(&wire, o) != 0 || open_doors(&wire, o) != 0)
		return 1;
	/* The kernel may add 50 us to each wait otherwise: as much as some delays asked for. */
	prctl(PR_SET_TIMERSLACK, 1);
	printf("wvm_wire: ready, %u ports, seed %llu, chaos '%s'\n", wire.n_ports,
	       (unsigned long long)o->seed, o->chaos ? o->chaos : "");
	fflush(stdout);
	rc = wvm_wire_run(&wire);
	wvm_wire_print(&wire, stderr);
	if (o->control)
		unlink(o->control);
	if (wvm_wire_save_stats(&wire) < 0)
		fprintf(stderr, "wvm_wire: cannot write %s\n", o->stats);
	return rc < 0 ? fail("cannot read", "a TAP device", rc) : 0;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		OPTIONS, parse, "NETNS...\n--tell PATH COMMAND...", DOC, NULL, NULL, NULL};
	struct options o = {.seed = 1, .mtu = 1500, .device = "eth0"};
	int rc;

	argp_program_version = "wvm_wire " WVM_VERSION;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (o.tell)
		return tell(&o);
	if (o.card) {
		rc = wvm_tap_like_card(o.card);
		return rc < 0 ? fail("cannot set up", o.card, rc) : 0;
	}
	return run(&o);
}

#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "control.h"

#define FRAME_MAX 65536
#define BATCH     64 /* frames read from one port before the others get their turn */

enum { POLL_CONTROL, POLL_SIGNAL, POLL_PARENT, POLL_PORTS };

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* Queues a frame for the port that has its destination address, else for all others. */
static void forward(struct wvm_wire *wire, uint64_t now, unsigned src, const unsigned char *frame,
		    size_t len)
{
	enum wvm_frame_kind kind = wvm_frame_kind(frame, len);

	for (unsigned dst = 1; dst <= wire->n_ports; dst++)
		if (!memcmp(wire->port[dst].mac, frame, 6)) {
			if (dst != src)
				wvm_impair_push(&wire->impair, now, src, dst, kind, frame, len);
			return;
		}
	for (unsigned dst = 1; dst <= wire->n_ports; dst++)
		if (dst != src)
			wvm_impair_push(&wire->impair, now, src, dst, kind, frame, len);
}

static int read_port(struct wvm_wire *wire, unsigned src)
{
	static unsigned char frame[FRAME_MAX];
	uint64_t now = now_ns();

	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t len = read(wire->port[src].fd, frame, sizeof(frame));

		if (len < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (len >= 14)
			forward(wire, now, src, frame, (size_t)len);
	}
	return 0;
}

static void deliver(struct wvm_wire *wire)
{
	const struct wvm_frame *frame;
	uint64_t now = now_ns();

	while ((frame = wvm_impair_pop(&wire->impair, now)) != NULL) {
		struct wvm_wire_port *port = &wire->port[frame->dst];

		if (write(port->fd, wvm_impair_data(&wire->impair, frame), frame->len) < 0)
			port->undelivered++;
	}
}

static void command(void *opaque, char *text, char *answer)
{
	struct wvm_wire *wire = opaque;
	char err[256];
	FILE *out;

	if (!strncmp(text, "stats", 5)) {
		out = fmemopen(answer, WVM_CONTROL_MAX, "w");
		if (!out) {
			strcpy(answer, "error: out of memory");
			return;
		}
		wvm_wire_print_json(wire, out);
		fclose(out);
	} else if (wvm_chaos_parse(&wire->impair.chaos, text, err, sizeof(err)) < 0) {
		snprintf(answer, WVM_CONTROL_MAX, "error: %s", err);
	} else {
		strcpy(answer, "ok");
	}
}

/* Returns whether the wire goes on. */
static bool serve_signal(struct wvm_wire *wire)
{
	struct signalfd_siginfo info;

	if (read(wire->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return true;
	if (info.ssi_signo != SIGUSR1)
		return false;
	wvm_wire_print(wire, stderr);
	if (wvm_wire_save_stats(wire) < 0)
		fprintf(stderr, "wvm_wire: cannot write %s\n", wire->stats_path);
	return true;
}

static int wait_for_work(struct wvm_wire *wire, struct pollfd *fds)
{
	uint64_t due = wvm_impair_next(&wire->impair), now = now_ns(),
		 left = due > now ? due - now : 0;
	struct timespec ts = {.tv_sec = (time_t)(left / 1000000000ull),
			      .tv_nsec = (long)(left % 1000000000ull)};

	if (ppoll(fds, POLL_PORTS + wire->n_ports, due == UINT64_MAX ? NULL : &ts, NULL) < 0)
		return errno == EINTR ? 0 : -errno;
	return 0;
}

int wvm_wire_run(struct wvm_wire *wire)
{
	struct pollfd fds[POLL_PORTS + WVM_WIRE_PORTS];
	int rc = 0;

	fds[POLL_CONTROL] = (struct pollfd){.fd = wire->control_fd, .events = POLLIN};
	fds[POLL_SIGNAL] = (struct pollfd){.fd = wire->signal_fd, .events = POLLIN};
	fds[POLL_PARENT] = (struct pollfd){.fd = wire->parent_fd, .events = POLLIN};
	for (unsigned i = 1; i <= wire->n_ports; i++)
		fds[POLL_PORTS + i - 1] = (struct pollfd){.fd = wire->port[i].fd, .events = POLLIN};
	while (rc == 0) {
		rc = wait_for_work(wire, fds);
		if (rc < 0)
			break;
		for (unsigned i = 1; i <= wire->n_ports && rc == 0; i++)
			if (fds[POLL_PORTS + i - 1].revents & POLLIN)
				rc = read_port(wire, i);
		deliver(wire);
		if (fds[POLL_CONTROL].revents)
			wvm_control_serve(wire->control_fd, command, wire);
		if (fds[POLL_PARENT].revents)
			break;
		if (fds[POLL_SIGNAL].revents && !serve_signal(wire))
			break;
	}
	return rc;
}

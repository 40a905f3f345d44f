#include "bench/wvmbench/forward.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DATAGRAM 2048u
#define ROOM     (8 << 20) /* as a gateway's socket has */

int forward_socket(int bytes, uint16_t *port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)))
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) ||
	    getsockname(fd, (struct sockaddr *)&at, &len)) {
		int r = -errno;

		close(fd);
		return r;
	}
	*port = ntohs(at.sin_port);
	return fd;
}

static void forward(int fd, const struct sockaddr_in *to)
{
	static uint8_t data[FORWARD_BATCH][DATAGRAM];
	struct mmsghdr in[FORWARD_BATCH], out[FORWARD_BATCH];
	struct iovec from[FORWARD_BATCH], on[FORWARD_BATCH];

	memset(in, 0, sizeof(in));
	memset(out, 0, sizeof(out));
	for (unsigned i = 0; i < FORWARD_BATCH; i++) {
		from[i] = (struct iovec){data[i], DATAGRAM};
		in[i].msg_hdr = (struct msghdr){.msg_iov = &from[i], .msg_iovlen = 1};
		out[i].msg_hdr = (struct msghdr){.msg_name = (void *)to,
						 .msg_namelen = sizeof(*to),
						 .msg_iov = &on[i],
						 .msg_iovlen = 1};
	}
	for (;;) {
		int got = recvmmsg(fd, in, FORWARD_BATCH, MSG_WAITFORONE, NULL), sent = 0;

		for (int i = 0; i < got; i++)
			on[i] = (struct iovec){data[i], in[i].msg_len};
		while (sent < got) {
			int n = sendmmsg(fd, out + sent, (unsigned)(got - sent), 0);

			if (n <= 0 && errno != EINTR)
				_exit(1);
			sent += n > 0 ? n : 0;
		}
	}
}

pid_t forward_start(int core, const struct sockaddr_in *to, uint16_t *port)
{
	int fd = forward_socket(ROOM, port);
	pid_t pid;

	if (fd < 0)
		return fd;
	pid = fork();
	if (!pid) {
		cpu_set_t set;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		CPU_ZERO(&set);
		if (core >= 0)
			CPU_SET((unsigned)core, &set);
		if (core >= 0 && sched_setaffinity(0, sizeof(set), &set))
			_exit(1);
		forward(fd, to);
	}
	if (pid < 0)
		pid = -errno;
	close(fd);
	return pid;
}

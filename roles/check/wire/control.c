#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int address(struct sockaddr_un *sun, const char *path)
{
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(sun->sun_path))
		return -ENAMETOOLONG;
	strcpy(sun->sun_path, path);
	return 0;
}

/* Whether somebody has the socket at this address open. */
static int answers(const struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), yes;

	if (fd < 0)
		return 0;
	yes = connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0;
	close(fd);
	return yes;
}

int wvm_control_open(const char *path)
{
	struct sockaddr_un sun;
	int fd, rc = address(&sun, path);

	if (rc < 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!answers(&sun))
		unlink(path);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

void wvm_control_serve(int fd, wvm_control_fn *fn, void *opaque)
{
	static char command[WVM_CONTROL_MAX], answer[WVM_CONTROL_MAX];
	struct sockaddr_un from;
	socklen_t from_len;
	ssize_t n;

	for (;;) {
		from_len = sizeof(from);
		n = recvfrom(fd, command, sizeof(command) - 1, 0, (struct sockaddr *)&from,
			     &from_len);
		if (n < 0)
			return;
		command[n] = '\0';
		fn(opaque, command, answer);
		/* A caller that does not wait for its answer loses only that. */
		sendto(fd, answer, strlen(answer), MSG_DONTWAIT, (struct sockaddr *)&from,
		       from_len);
	}
}

int wvm_control_tell(const char *path, const char *command, char *answer)
{
	struct sockaddr_un sun;
	struct sockaddr own = {.sa_family = AF_UNIX};
	struct timeval patience = {.tv_sec = 5};
	ssize_t n;
	int fd, rc = address(&sun, path);

	if (rc < 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Binding to the bare family gives the socket an abstract name to answer to. */
	if (bind(fd, &own, sizeof(own.sa_family)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ||
	    send(fd, command, strlen(command), 0) < 0 ||
	    (n = recv(fd, answer, WVM_CONTROL_MAX - 1, 0)) < 0) {
		rc = errno == EAGAIN ? -ETIMEDOUT : -errno;
		close(fd);
		return rc;
	}
	answer[n] = '\0';
	close(fd);
	return 0;
}

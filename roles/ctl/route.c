#include "roles/ctl/route.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRIES  5
#define TRY_MS 400

static const char *reason(uint16_t status)
{
	switch (status) {
	case WVM_CONTROL_BAD_RANGE: return "the vnodes go beyond the last one, 1048575";
	case WVM_CONTROL_BAD_HOP: return "the next hop is no host's address, or the gateway itself";
	case WVM_CONTROL_FULL: return "it has no room for one more route (--orders)";
	case WVM_CONTROL_NO_ROUTE: return "there is no operator's route to delete";
	case WVM_CONTROL_UNKNOWN: return "this is no gateway: is it the master's control port?";
	default: return "it does not take this order; is it of another version?";
	}
}

static int exchange(int fd, const struct wvm_route_order *order, struct wvm_route_answer *answer)
{
	uint8_t out[WVM_ROUTE_ORDER_BYTES], in[64];

	wvm_route_order_encode(out, order);
	for (int i = 0; i < TRIES; i++) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		/* ECONNREFUSED also reports an earlier send: either way nobody listens. */
		if (send(fd, out, sizeof(out), 0) < 0)
			return -errno;
		while (poll(&p, 1, TRY_MS) > 0) {
			n = recv(fd, in, sizeof(in), 0);
			if (n < 0)
				return -errno;
			if (wvm_route_answer_decode(in, (size_t)n, order, answer))
				return 0;
		}
	}
	return -ETIMEDOUT;
}

int wvm_route_order(const struct wvm_ask *to, const struct wvm_route_order *order,
		    struct wvm_route_answer *answer, char *err, size_t err_len)
{
	struct sockaddr_in at = {.sin_family = AF_INET,
				 .sin_port = htons(to->port),
				 .sin_addr.s_addr = htonl(to->ip ? to->ip : INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;
	char ip[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &at.sin_addr, ip, sizeof(ip));
	if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof(at)))
		r = -errno;
	else
		r = exchange(fd, order, answer);
	if (fd >= 0)
		close(fd);
	if (r) {
		snprintf(err, err_len,
			 "no gateway answers on control port %s:%u: %s; is it "
			 "running, with that CTRL_PORT?",
			 ip, to->port, strerror(-r));
	} else if (answer->status) {
		snprintf(err, err_len, "%s", reason(answer->status));
		r = -EPERM;
	}
	return r;
}

#include "roles/ctl/ask.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRIES         5
#define TRY_MS        400 /* doubled each time that it is begun anew */
#define SNAPSHOTS_MAX 5   /* begun anew because somebody asked in between */

void wvm_ask_encode(uint8_t out[WVM_CONTROL_REQUEST_BYTES], const struct wvm_ask *ask,
		    uint16_t part, uint32_t snapshot)
{
	memset(out, 0, WVM_CONTROL_REQUEST_BYTES);
	memcpy(out, &(uint32_t){htobe32(WVM_CONTROL_MAGIC)}, 4);
	memcpy(out + 4, &(uint16_t){htobe16((uint16_t)ask->op)}, 2);
	memcpy(out + 6, &(uint16_t){htobe16(part)}, 2);
	memcpy(out + 8, &(uint32_t){htobe32(snapshot)}, 4);
	memcpy(out + 12, &(uint16_t){htobe16(ask->vm_id)}, 2);
	memcpy(out + 16, &(uint64_t){htobe64(ask->operand)}, 8);
}

int wvm_ask_decode(const uint8_t *data, size_t len, const struct wvm_ask *ask, uint16_t part,
		   struct wvm_ask_part *a)
{
	uint32_t magic, snapshot;
	uint16_t op, got, status, parts;

	if (len < WVM_CONTROL_HEADER_BYTES)
		return -EPROTO;
	if (len > WVM_CONTROL_HEADER_BYTES + WVM_CONTROL_PART)
		return -EPROTO;
	memcpy(&magic, data, 4);
	memcpy(&op, data + 4, 2);
	memcpy(&got, data + 6, 2);
	memcpy(&snapshot, data + 8, 4);
	memcpy(&status, data + 12, 2);
	memcpy(&parts, data + 14, 2);
	if (be32toh(magic) != WVM_CONTROL_MAGIC ||
	    be16toh(op) != ((uint16_t)ask->op | WVM_CONTROL_ANSWER) || be16toh(got) != part)
		return -EPROTO;
	a->snapshot = be32toh(snapshot);
	a->status = be16toh(status);
	a->parts = be16toh(parts);
	a->len = len - WVM_CONTROL_HEADER_BYTES;
	memcpy(a->text, data + WVM_CONTROL_HEADER_BYTES, a->len);
	return 0;
}

/* One part, asked for until it comes. */
static int fetch(int fd, const struct wvm_ask *ask, uint16_t part, uint32_t snapshot, int try_ms,
		 struct wvm_ask_part *a)
{
	uint8_t request[WVM_CONTROL_REQUEST_BYTES];
	uint8_t reply[WVM_CONTROL_HEADER_BYTES + WVM_CONTROL_PART];

	wvm_ask_encode(request, ask, part, snapshot);
	for (int i = 0; i < TRIES; i++) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		/* ECONNREFUSED also reports an earlier send: either way nobody listens. */
		if (send(fd, request, sizeof(request), 0) < 0)
			return -errno;
		if (poll(&p, 1, try_ms) <= 0)
			continue;
		n = recv(fd, reply, sizeof(reply), 0);
		if (n < 0)
			return -errno;
		if (!wvm_ask_decode(reply, (size_t)n, ask, part, a))
			return 0;
	}
	return -ETIMEDOUT;
}

static int refused(uint16_t status, const struct wvm_ask *ask, char *err, size_t err_len)
{
	switch (status) {
	case WVM_CONTROL_BAD_VM:
		snprintf(err, err_len, "this node has no VM %u (wvm_ctl status lists them)",
			 ask->vm_id);
		return -ENXIO;
	case WVM_CONTROL_BAD_GPA:
		snprintf(err, err_len, "0x%llx is beyond the memory of VM %u",
			 (unsigned long long)ask->operand, ask->vm_id);
		return -ERANGE;
	case WVM_CONTROL_BAD_SHARD:
		snprintf(err, err_len, "this node has no shard %llu",
			 (unsigned long long)(ask->operand >> WVM_CONTROL_SHARD_SHIFT));
		return -ENXIO;
	case WVM_CONTROL_BAD_VCPU:
		snprintf(
			err, err_len,
			"VM %u has no vCPU %llu on this node that could run elsewhere: wvm_ctl vcpu "
			"lists them, on the node where the VM's QEMU (split=) runs",
			ask->vm_id, (unsigned long long)(ask->operand >> WVM_CONTROL_VCPU_SHIFT));
		return -ENXIO;
	case WVM_CONTROL_LOCAL_VCPU:
		snprintf(
			err, err_len,
			"vCPU %llu of VM %u runs in its QEMU itself: only those that split= leaves to "
			"other nodes can be moved",
			(unsigned long long)(ask->operand >> WVM_CONTROL_VCPU_SHIFT), ask->vm_id);
		return -EPERM;
	case WVM_CONTROL_BAD_NODE:
		snprintf(err, err_len, "the topology has no node %u (wvm_ctl status lists them)",
			 (uint32_t)(ask->operand & WVM_CONTROL_NODE_MASK));
		return -ENXIO;
	case WVM_CONTROL_MEMORY_ONLY:
		snprintf(err, err_len,
			 "node %u lends memory only (0 cores in its NODE line of the topology): "
			 "name a node with cores, or give it cores in the topology of all nodes",
			 (uint32_t)(ask->operand & WVM_CONTROL_NODE_MASK));
		return -EREMOTE;
	case WVM_CONTROL_NOT_YET:
		snprintf(err, err_len, "this version does not do that yet");
		return -ENOTSUP;
	default:
		if (ask->op == WVM_CONTROL_ROUTE_DUMP) {
			snprintf(err, err_len,
				 "this is no gateway: is it the master's control port?");
			return -ENOTSUP;
		}
		snprintf(err, err_len, "this master does not know the command; is it older?");
		return -ENOTSUP;
	}
}

/* 0, 1 when the snapshot went away, or -errno. */
static int collect(int fd, const struct wvm_ask *ask, int try_ms, char **text, char *err,
		   size_t err_len)
{
	struct wvm_ask_part a;
	size_t len = 0;
	char *all = NULL;
	uint16_t part = 0, parts = 1;
	uint32_t snapshot = 0, ip = ask->ip ? ask->ip : INADDR_LOOPBACK;

	for (; part < parts; part++) {
		int r = fetch(fd, ask, part, snapshot, try_ms, &a);
		char *more;

		if (!r && a.status) {
			r = part ? 1 : refused(a.status, ask, err, err_len);
		} else if (r) {
			snprintf(err, err_len,
				 "no %s answers on control port %u.%u.%u.%u:%u: %s; is it running, "
				 "with that CTRL_PORT?",
				 ask->op == WVM_CONTROL_ROUTE_DUMP ? "gateway" : "master", ip >> 24,
				 ip >> 16 & 255, ip >> 8 & 255, ip & 255, ask->port, strerror(-r));
		}
		more = r ? NULL : realloc(all, len + a.len + 1);
		if (!more) {
			free(all);
			return r ? r : -ENOMEM;
		}
		all = more;
		memcpy(all + len, a.text, a.len);
		len += a.len;
		all[len] = 0;
		parts = a.parts;
		snapshot = a.snapshot;
	}
	*text = all;
	return 0;
}

/*
 * With a socket of its own: who has asked twice since the answer was late gets both, and the one
 * of the earlier request would pass for one of the next attempt, always one snapshot behind.
 */
static int attempt(const struct wvm_ask *ask, int try_ms, char **text, char *err, size_t err_len)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(ask->port),
				 .sin_addr.s_addr = htonl(ask->ip ? ask->ip : INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		r = -errno;
		snprintf(err, err_len, "no UDP socket: %s", strerror(-r));
	} else {
		r = collect(fd, ask, try_ms, text, err, err_len);
	}
	if (fd >= 0)
		close(fd);
	return r;
}

int wvm_ask(const struct wvm_ask *ask, char **text, char *err, size_t err_len)
{
	int r = 1;

	for (int i = 0; r > 0 && i < SNAPSHOTS_MAX; i++)
		r = attempt(ask, TRY_MS << i, text, err, err_len);
	if (r > 0) {
		snprintf(err, err_len,
			 "others ask this master at the same time, or it is late with its answers; "
			 "try again");
		r = -EBUSY;
	}
	return r;
}

int wvm_ask_json(const struct wvm_ask *ask, json_t **answer, char *err, size_t err_len)
{
	json_error_t why;
	char *text;
	int r = wvm_ask(ask, &text, err, err_len);

	if (r)
		return r;
	json_decref(*answer);
	*answer = json_loads(text, 0, &why);
	free(text);
	if (*answer)
		return 0;
	snprintf(err, err_len, "the master's answer is not JSON: %s", why.text);
	return -EPROTO;
}

#include "ring/udp.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ring/post.h"
#include "ring/udp_private.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define SHARDS_MAX   1024
#define BIND_TRIES   100 /* at BIND_WAIT_NS */
#define BIND_WAIT_NS 10000000
#define RX_CONTROL   32    /* CMSG_SPACE(int), padded so that the payload is 64-byte aligned */
#define RX_PAYLOAD   65536 /* a merged batch is at most one IP datagram */
#define RX_HEADER    (sizeof(struct io_uring_recvmsg_out) + sizeof(struct sockaddr_in) + RX_CONTROL)

_Static_assert(RX_HEADER == 64, "the payload begins on a cache line");

/* Receiving. */

static void prepare(struct wvm_standing *o, struct io_uring_sqe *sqe)
{
	struct wvm_udp *u = (struct wvm_udp *)((char *)o - offsetof(struct wvm_udp, rx));

	io_uring_prep_recvmsg_multishot(sqe, u->slot, &u->rx_msg, 0);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
	sqe->buf_group = (uint16_t)u->rx_bufs.group;
	WVM_COUNT(u->shard, rx_rearmed, 1);
}

/* Size of the merged datagrams, 0 when there is one. */
static size_t gro_size(struct io_uring_recvmsg_out *out, struct msghdr *msg)
{
	struct cmsghdr *c;
	int size;

	for (c = io_uring_recvmsg_cmsg_firsthdr(out, msg); c;
	     c = io_uring_recvmsg_cmsg_nexthdr(out, msg, c))
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO &&
		    c->cmsg_len >= CMSG_LEN(sizeof(size))) {
			memcpy(&size, CMSG_DATA(c), sizeof(size));
			return size > 0 ? (size_t)size : 0;
		}
	return 0;
}

static void deliver(struct wvm_udp *u, uint8_t *buf, int res)
{
	struct wvm_shard *s = u->shard;
	struct io_uring_recvmsg_out *out = io_uring_recvmsg_validate(buf, res, &u->rx_msg);
	const uint8_t *data;
	const struct sockaddr_in *from;
	size_t len, step;
	unsigned n = 0;

	if (!out || out->flags & MSG_TRUNC || out->namelen != sizeof(*from)) {
		WVM_COUNT(s, rx_truncated, 1);
		return;
	}
	from = io_uring_recvmsg_name(out);
	data = io_uring_recvmsg_payload(out, &u->rx_msg);
	len = io_uring_recvmsg_payload_length(out, res, &u->rx_msg);
	step = gro_size(out, &u->rx_msg);
	WVM_COUNT(s, rx_batches, 1);
	WVM_COUNT(s, rx_bytes, len);
	if (!step || step > len)
		step = len;
	else if (step < len)
		WVM_COUNT(s, rx_gro_batches, 1);
	do {
		size_t one = len < step ? len : step;

		n++;
		u->opts.datagram(u->ctx, from, data, one);
		data += one;
		len -= one;
	} while (len);
	WVM_COUNT(s, rx_datagrams, n);
}

static enum wvm_standing_next received(struct wvm_standing *o, int res, uint32_t flags)
{
	struct wvm_udp *u = (struct wvm_udp *)((char *)o - offsetof(struct wvm_udp, rx));

	if (res >= 0 && flags & IORING_CQE_F_BUFFER)
		deliver(u, wvm_bufring_at(&u->rx_bufs, flags), res);
	if (flags & IORING_CQE_F_BUFFER)
		wvm_bufring_put(&u->rx_bufs, flags);
	if (res >= 0)
		return WVM_STANDING_AGAIN;
	/* Armed again after this turn's completions have given their buffers back. */
	if (res == -ENOBUFS) {
		WVM_COUNT(u->shard, rx_enobufs, 1);
		return WVM_STANDING_AGAIN;
	}
	WVM_COUNT(u->shard, rx_errors, 1);
	return WVM_STANDING_LATER;
}

unsigned wvm_udp_owner(const struct wvm_udp *u, const uint8_t *data, size_t len)
{
	unsigned at = u->opts.steer_offset;

	if (u->group_count == 1 || len < at + 2)
		return 0;
	return ((unsigned)data[at] << 8 | data[at + 1]) % u->group_count;
}

unsigned wvm_udp_index(const struct wvm_udp *u)
{
	return u->index;
}

static void forwarded(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_udp *u = ctx;
	const struct sockaddr_in *from = data;

	assert(len >= sizeof(*from));
	WVM_COUNT(self, rx_forwarded_in, 1);
	u->opts.datagram(u->ctx, from, (const uint8_t *)(from + 1), len - sizeof(*from));
}

int wvm_udp_forward(struct wvm_udp *u, unsigned owner, const struct sockaddr_in *from,
		    const uint8_t *data, size_t len)
{
	int err;

	assert(owner < u->group_count);
	WVM_COUNT(u->shard, rx_foreign, 1);
	err = wvm_post_pair(u->shard, u->group[owner]->shard, forwarded, u->group[owner], from,
			    sizeof(*from), data, len);
	if (err)
		WVM_COUNT(u->shard, rx_foreign_lost, 1);
	return err;
}

/* Opening. */

static const char *complete(struct wvm_udp_opts *o)
{
	if (!o->datagram_max)
		o->datagram_max = 1472;
	if (!o->rx_buffers)
		o->rx_buffers = 64;
	if (!o->tx_buffers)
		o->tx_buffers = 512;
	if (!o->tx_control)
		o->tx_control = o->tx_buffers / 8;
	if (!o->bulk_quota)
		o->bulk_quota = 256;
	if (!o->socket_bytes)
		o->socket_bytes = 8 << 20;
	if (!o->datagram)
		return "datagram";
	if (o->datagram_max < 64 || o->datagram_max > WVM_GSO_BYTES)
		return "datagram_max";
	if (o->rx_buffers > 32768 || o->rx_buffers & (o->rx_buffers - 1))
		return "rx_buffers";
	if (o->tx_buffers > 65536)
		return "tx_buffers";
	if (o->tx_control >= o->tx_buffers)
		return "tx_control";
	if (o->steer_offset > 65000)
		return "steer_offset";
	if (o->socket_bytes < 4096)
		return "socket_bytes";
	if (o->pad_max > o->datagram_max)
		return "pad_max";
	return NULL;
}

static int set_buffer(int fd, int force, int plain, int bytes)
{
	if (!setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof(bytes)))
		return 0;
	return setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes)) ? -errno : 0;
}

static void hint_buffer(int fd, int wanted, char *why, size_t why_len)
{
	int got = 0;
	socklen_t len = sizeof(got);

	/* The kernel reports twice the size, the other half being its own overhead. */
	if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &got, &len) || got / 2 >= wanted)
		return;
	snprintf(why, why_len,
		 "receive buffer is %d KiB instead of %d KiB: bursts may be lost; raise "
		 "net.core.rmem_max or run with CAP_NET_ADMIN",
		 got / 2 / 1024, wanted / 1024);
}

static int configure(int fd, const struct wvm_udp_opts *o)
{
	const int on = 1, dont_fragment = IP_PMTUDISC_DO;

	set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, o->socket_bytes);
	set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, o->socket_bytes);
	if (setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &dont_fragment, sizeof(dont_fragment)) ||
	    setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on)))
		return -errno;
	return 0;
}

/*
 * The kernel takes a process's io_uring down after its end, a moment later, and its sockets
 * keep their ports until then: a program that is started again at once waits for that.
 */
static int bind_soon(int fd, const struct sockaddr_in *at)
{
	const struct timespec wait = {.tv_nsec = BIND_WAIT_NS};

	for (unsigned i = 0; i < BIND_TRIES; i++) {
		if (!bind(fd, (const struct sockaddr *)at, sizeof(*at)))
			return 0;
		if (errno != EADDRINUSE)
			return -1;
		nanosleep(&wait, NULL);
	}
	errno = EADDRINUSE;
	return -1;
}

/*
 * The first socket of a group binds without SO_REUSEPORT, so that it fails when anybody else
 * has the port; it gets the option afterwards, and the others can join.
 */
static int open_socket(struct wvm_udp *u, char *why, size_t why_len)
{
	const struct sockaddr_in *at = &u->opts.bind;
	const int on = 1;
	socklen_t len = sizeof(u->address);
	char name[INET_ADDRSTRLEN] = "?";
	const char *hint = "";
	int err;

	u->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (u->fd < 0)
		return wvm_kernel_explain(-errno, "socket", why, why_len);
	err = configure(u->fd, &u->opts);
	if (err)
		return wvm_kernel_explain(err, "UDP socket options", why, why_len);
	if ((u->index && setsockopt(u->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on))) ||
	    bind_soon(u->fd, at) ||
	    (!u->index && u->group_count > 1 &&
	     setsockopt(u->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on))) ||
	    getsockname(u->fd, (struct sockaddr *)&u->address, &len)) {
		err = -errno;
		inet_ntop(AF_INET, &at->sin_addr, name, sizeof(name));
		if (err == -EADDRINUSE)
			hint = "; another process has the port, end it or choose another";
		else if (err == -EADDRNOTAVAIL)
			hint = "; no interface of this host has the address";
		snprintf(why, why_len, "UDP %s:%u: %s%s", name, ntohs(at->sin_port), strerror(-err),
			 hint);
		return err;
	}
	return 0;
}

static int attach_steering(const struct wvm_udp *u, char *why, size_t why_len)
{
	/* Offset 0 is the first byte of the UDP payload; a load beyond the end returns 0. */
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, u->opts.steer_offset),
		BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, u->group_count),
		BPF_STMT(BPF_RET | BPF_A, 0),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (u->group_count == 1)
		return 0;
	if (setsockopt(u->fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &prog, sizeof(prog)))
		return wvm_kernel_explain(-errno, "SO_ATTACH_REUSEPORT_CBPF", why, why_len);
	return 0;
}

static int start(struct wvm_udp *u, char *why, size_t why_len)
{
	int err;

	err = wvm_udp_tx_open(u);
	if (!err)
		err = wvm_bufring_open(&u->rx_bufs, u->shard, u->opts.rx_buffers,
				       RX_HEADER + RX_PAYLOAD);
	if (err)
		return wvm_kernel_explain(err, "UDP buffers", why, why_len);
	u->slot = wvm_shard_file_add(u->shard, u->fd);
	if (u->slot < 0)
		return wvm_kernel_explain(u->slot, "io_uring file table", why, why_len);
	u->rx_msg.msg_namelen = sizeof(struct sockaddr_in);
	u->rx_msg.msg_controllen = RX_CONTROL;
	u->rx.prepare = prepare;
	u->rx.event = received;
	return 0;
}

static int open_member(struct wvm_udp **out, unsigned i, unsigned n, struct wvm_shard *s, void *ctx,
		       const struct wvm_udp_opts *opts, char *why, size_t why_len)
{
	struct wvm_udp *u = calloc(1, sizeof(*u));
	int err;

	out[i] = u;
	if (!u)
		return wvm_kernel_explain(-ENOMEM, "UDP socket", why, why_len);
	u->shard = s;
	u->ctx = ctx;
	u->opts = *opts;
	u->fd = u->slot = -1;
	u->index = i;
	u->group_count = n;
	u->group = calloc(n, sizeof(*u->group));
	if (!u->group)
		return wvm_kernel_explain(-ENOMEM, "UDP socket", why, why_len);
	/* The first decided the port when the caller left it open. */
	if (i)
		u->opts.bind.sin_port = out[0]->address.sin_port;
	err = open_socket(u, why, why_len);
	return err ? err : start(u, why, why_len);
}

/* Takes the shard's slots back, for a group that could not be opened. */
static void abandon(struct wvm_udp *u)
{
	if (u && u->slot >= 0)
		wvm_shard_file_del(u->shard, u->slot);
	wvm_udp_close(u);
}

int wvm_udp_open(struct wvm_udp **out, struct wvm_shard *const *shards, void *const *ctx,
		 unsigned n, const struct wvm_udp_opts *opts, char *why, size_t why_len)
{
	struct wvm_udp_opts o = *opts;
	const char *bad = complete(&o);
	int err = 0;

	if (why_len)
		why[0] = 0;
	if (bad || n < 1 || n > SHARDS_MAX) {
		snprintf(why, why_len, "UDP option %s is out of range", bad ? bad : "shards");
		return -EINVAL;
	}
	memset(out, 0, n * sizeof(*out));
	o.bind.sin_family = AF_INET;
	for (unsigned i = 0; i < n && !err; i++)
		err = open_member(out, i, n, shards[i], ctx ? ctx[i] : NULL, &o, why, why_len);
	if (!err)
		err = attach_steering(out[0], why, why_len);
	if (err) {
		for (unsigned i = 0; i < n; i++) {
			abandon(out[i]);
			out[i] = NULL;
		}
		return err;
	}
	for (unsigned i = 0; i < n; i++) {
		memcpy(out[i]->group, out, n * sizeof(*out));
		out[i]->hook.turn = wvm_udp_tx_flush;
		wvm_shard_hook(shards[i], WVM_HOOK_FLUSH, &out[i]->hook);
		wvm_standing_start(&out[i]->rx, shards[i]);
	}
	hint_buffer(out[0]->fd, o.socket_bytes, why, why_len);
	return 0;
}

void wvm_udp_close(struct wvm_udp *u)
{
	if (!u)
		return;
	assert(!u->shard->entered);
	if (u->fd >= 0)
		close(u->fd);
	wvm_bufring_close(&u->rx_bufs);
	wvm_udp_tx_close(u);
	free(u->group);
	free(u);
}

int wvm_udp_fd(const struct wvm_udp *u)
{
	return u->fd;
}

struct sockaddr_in wvm_udp_address(const struct wvm_udp *u)
{
	return u->address;
}

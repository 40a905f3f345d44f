#include "roles/gateway/gateway.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ring/claim.h"
#include "shared/conf.h"
#include "shared/core/assert.h"
#include "shared/wire.h"

#define POLL_NS      UINT64_C(50000) /* as a master's */
#define PAD_PART     8u              /* of a datagram, as a master's */
#define RX_BUFFERS   256u
#define PUSH_BUFFERS 16u   /* that only word of what was refused may take */
#define ANNOUNCED    4096u /* routes by announcements, and learned ones, at most */
#define IP_HEADERS   28u
#define TOLD_NS      UINT64_C(10000000000) /* between two lines about what leads nowhere */

void wvm_core_panic(const char *what, const char *file, int line)
{
	wvm_log("stopped: %s (%s:%d)", what, file, line);
	abort();
}

/* ---- datagrams ------------------------------------------------------------------------- */

static enum wvm_lane lane_of(enum wvm_forward_lane lane)
{
	return lane == WVM_FORWARD_BULK ? WVM_LANE_BULK : WVM_LANE_CONTROL;
}

/* Control messages leave the last few buffers to those by which a sender learns of a full lane. */
static bool may_take(struct wvm_gateway *g, enum wvm_forward_lane lane)
{
	return lane != WVM_FORWARD_CONTROL || wvm_udp_free(g->udp, WVM_LANE_CONTROL) > PUSH_BUFFERS;
}

static void supply(struct wvm_gateway *g, enum wvm_forward_lane lane)
{
	uint8_t *buf;

	if (!wvm_forward_wants(&g->forward, lane) || !may_take(g, lane))
		return;
	buf = wvm_udp_reserve(g->udp, lane_of(lane));
	if (buf)
		wvm_forward_supply(&g->forward, lane, buf);
}

static void leave(struct wvm_gateway *g, const struct wvm_forward_out *out)
{
	struct sockaddr_in peer = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(out->hop.ip),
				   .sin_port = htons(out->hop.port)};

	wvm_udp_commit(g->udp, lane_of(out->lane), &peer, out->steer, out->buf, out->len);
}

static void on_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	struct wvm_gateway *g = ctx;
	struct wvm_hop hop = wvm_gateway_hop(from);
	struct wvm_forward_out out;

	if (!wvm_forward_begin(&g->forward, hop))
		return;
	while (len) {
		size_t n;

		for (unsigned i = 0; i < WVM_FORWARD_LANES; i++)
			supply(g, i);
		n = wvm_forward_segment(&g->forward, hop, data, len);
		data += n;
		len -= n;
		while (wvm_forward_next(&g->forward, &out))
			leave(g, &out);
	}
}

/* What leads nowhere is a mistake of the files: a cluster that is set up so hangs, and does not say
 * why. */
static void tell(struct wvm_gateway *g, uint64_t now_ns)
{
	const struct wvm_forward_counters *c = &g->forward.counters;
	uint64_t sum = c->no_route + c->too_long + c->loops + c->hops_used_up;

	if (sum == g->told || (g->told_ns && now_ns - g->told_ns < TOLD_NS))
		return;
	g->told = sum;
	g->told_ns = now_ns;
	wvm_log("messages dropped so far: %llu without a route, %llu longer than the mtu of %u (masters "
		"need the same --mtu), %llu whose way leads back, %llu after too many hops",
		(unsigned long long)c->no_route, (unsigned long long)c->too_long, g->mtu,
		(unsigned long long)c->loops, (unsigned long long)c->hops_used_up);
}

/* The end of a batch: nothing waits for more to come. */
static bool on_turn(struct wvm_hook *hook, uint64_t now_ns)
{
	struct wvm_gateway *g =
		(struct wvm_gateway *)((char *)hook - offsetof(struct wvm_gateway, hook));
	struct wvm_forward_out out;

	while (wvm_forward_flush(&g->forward, &out))
		leave(g, &out);
	tell(g, now_ns);
	return false;
}

/* ---- routes ---------------------------------------------------------------------------- */

static int load_routes(struct wvm_gateway *g, char *err, size_t err_len)
{
	const struct wvm_gateway_options *o = g->options;
	struct wvm_routes file = {0};
	struct wvm_route_limits limits = {
		{o->orders, 0, ANNOUNCED, ANNOUNCED}}; /* in the order of the classes */
	int r = strcmp(o->routes, "-") ? wvm_routes_load(&file, o->routes, err, err_len) : 0;

	if (r)
		return r;
	limits.ranges[WVM_ROUTE_STATIC] = file.count;
	g->route_memory = calloc(1, wvm_route_bytes(&limits));
	if (!g->route_memory) {
		wvm_routes_free(&file);
		snprintf(err, err_len, "no memory for %u routes", o->orders + file.count);
		return -ENOMEM;
	}
	wvm_route_init(&g->routes, &limits, g->route_memory);
	for (uint32_t i = 0; i < file.count; i++) {
		const struct wvm_route *line = &file.routes[i];
		bool set = wvm_route_set(&g->routes, WVM_ROUTE_STATIC, line->first_vnode,
					 line->vnode_count,
					 (struct wvm_hop){.ip = line->ip, .port = line->port});

		WVM_ASSERT(set);
	}
	if (file.has_default)
		wvm_route_set_default(&g->routes, (struct wvm_hop){.ip = file.fallback.ip,
								   .port = file.fallback.port});
	wvm_route_set_upstream(&g->routes, o->upstream);
	wvm_routes_free(&file);
	return 0;
}

/* ---- the mtu --------------------------------------------------------------------------- */

/* Of the path to an address as this host sees it; the default where it cannot tell. */
static unsigned path_mtu(struct wvm_hop hop)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(hop.ip),
				 .sin_port = htons(hop.port)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), mtu = 0;
	socklen_t len = sizeof(mtu);
	unsigned payload = WVM_MTU_DEFAULT;

	if (fd >= 0 && hop.ip && !connect(fd, (struct sockaddr *)&to, sizeof(to)) &&
	    !getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &len) && mtu > (int)IP_HEADERS &&
	    (unsigned)mtu - IP_HEADERS < payload)
		payload = (unsigned)mtu - IP_HEADERS;
	if (fd >= 0)
		close(fd);
	return payload;
}

static int choose_mtu(struct wvm_gateway *g, char *err, size_t err_len)
{
	g->mtu = g->options->mtu ? g->options->mtu : path_mtu(g->options->upstream);
	if (g->mtu >= WVM_MTU_MIN)
		return 0;
	snprintf(err, err_len, "the way upstream carries %u bytes per datagram, fewer than %u",
		 g->mtu, WVM_MTU_MIN);
	return -EMSGSIZE;
}

/* ---- start and stop -------------------------------------------------------------------- */

/* What waits here is lost to nobody who does not know it: its senders repeat it. */
static void on_died(struct wvm_shard *s, void *ctx, bool ran)
{
	struct wvm_gateway *g = ctx;

	if (ran) {
		wvm_log("stopped: %s", s->dead);
		_exit(EXIT_FAILURE);
	}
	g->exit_status = EXIT_FAILURE;
	kill(getpid(), SIGTERM);
}

static int choose_cpu(struct wvm_gateway *g, char *err, size_t err_len)
{
	const char *cpus = g->options->cpus;
	char line[128];
	int r = wvm_place_compute(&g->place, 1, cpus, err, err_len);

	if (r)
		return r;
	if (g->place.real) {
		g->claim_fd = wvm_claim(&g->place, 1, !cpus, WVM_CLAIM_FILE);
		if (g->claim_fd < 0)
			wvm_log("cannot see which CPUs other daemons of this host use: %s: %s",
				WVM_CLAIM_FILE, strerror(-g->claim_fd));
	}
	wvm_place_print(&g->place, 1, line, sizeof(line));
	line[strcspn(line, "\n")] = 0;
	wvm_log("%s", line);
	return 0;
}

static int open_socket(struct wvm_gateway *g, char *err, size_t err_len)
{
	const struct wvm_gateway_options *o = g->options;
	struct wvm_udp_opts u = {.bind = {.sin_family = AF_INET,
					  .sin_addr.s_addr = htonl(o->bind_ip),
					  .sin_port = htons(o->port)},
				 .datagram = on_datagram,
				 .steer_offset = WVM_WIRE_STEER_OFFSET,
				 .datagram_max = g->mtu,
				 .rx_buffers = RX_BUFFERS,
				 .tx_buffers = o->buffers,
				 .tx_control = o->buffers / 2,
				 .pad_max = g->mtu / PAD_PART};
	void *ctx = g;
	int r;

	*err = 0;
	r = wvm_udp_open(&g->udp, &g->shard, &ctx, 1, &u, err, err_len);
	if (!r && *err)
		wvm_log("%s", err);
	return r;
}

static int build(struct wvm_gateway *g, char *err, size_t err_len)
{
	struct wvm_shard_opts o = {.name = "wvm-gateway",
				   .pin = true,
				   .poll_ns = g->options->poll ? POLL_NS : 0,
				   .died = on_died,
				   .died_ctx = g};
	int r;

	g->claim_fd = -1;
	if ((r = load_routes(g, err, err_len)) || (r = choose_mtu(g, err, err_len)) ||
	    (r = choose_cpu(g, err, err_len)))
		return r;
	o.place = g->place;
	wvm_forward_init(&g->forward, &g->routes, g->mtu);
	r = wvm_shard_create(&g->shard, &o, err, err_len);
	if (r)
		return r;
	g->hook.turn = on_turn;
	wvm_shard_hook(g->shard, WVM_HOOK_ROLE, &g->hook);
	r = open_socket(g, err, err_len);
	return r ? r : wvm_gateway_control_open(&g->control, g, err, err_len);
}

static void unbuild(struct wvm_gateway *g)
{
	wvm_gateway_control_close(g->control);
	wvm_udp_close(g->udp);
	wvm_shard_destroy(g->shard);
	if (g->claim_fd >= 0)
		close(g->claim_fd);
	free(g->route_memory);
}

int wvm_gateway_start(struct wvm_gateway *g, const struct wvm_gateway_options *options, char *err,
		      size_t err_len)
{
	int r;

	g->options = options;
	g->started_ns = wvm_now_ns();
	r = build(g, err, err_len);
	if (!r) {
		r = wvm_shard_start(g->shard);
		if (r)
			snprintf(err, err_len, "cannot start a thread: %s", strerror(-r));
	}
	if (r)
		unbuild(g);
	return r;
}

void wvm_gateway_stop(struct wvm_gateway *g)
{
	int r;

	wvm_shard_stop(g->shard);
	r = wvm_shard_join(g->shard);
	if (r) {
		wvm_log("ended by itself: %s", g->shard->dead);
		g->exit_status = EXIT_FAILURE;
	}
	unbuild(g);
}

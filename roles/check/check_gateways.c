/*
 * Gateways: three masters in namespaces of their own, each behind a sidecar, these behind a
 * gateway of their pod. Programs verify what they share while gateways are killed and replaced;
 * strangers are not heard; a lane that is full tells who sends; every order is answered.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "roles/check/churn.h"
#include "roles/check/gateways.h"
#include "roles/check/stranger.h"
#include "shared/control_route.h"
#include "shared/wire.h"

#define NODES      3u
#define POD_PORT   8100u
#define ROUNDS     300u /* of each program */
#define IDLE_MS    5000u
#define IDLE_NS    (UINT64_C(1000000) * IDLE_MS / 500) /* 0.2 % of a core */
#define BURST      500u                                /* messages that come at once */
#define BURST_BYTE 1200u

#define BULK_PAGES 2048u

/* Words of the arena. */
enum { DONE = 10 };

static struct cluster cluster;
static struct gateway sidecar[NODES], pod;

/* ---- a cluster behind gateways --------------------------------------------------------- */

static void start_all(const char *const pod_more[])
{
	const struct cluster_opts opts = {.net = CLUSTER_VETH, .sidecars = true};
	char routes[256], name[16];

	cluster_prepare(&cluster, &opts);
	gateway_prepare(&pod, "pod", cluster.node[0].netns, POD_PORT, 9111, "0.0.0.0", 0,
			"ROUTE 0 1 10.77.0.1 8000\nROUTE 1 1 10.77.0.2 8000\n"
			"ROUTE 2 1 10.77.0.3 8000\n");
	gateway_start(&pod, pod_more);
	for (unsigned i = 0; i < NODES; i++) {
		snprintf(routes, sizeof(routes), "ROUTE %u 1 127.0.0.1 9000\n", i);
		snprintf(name, sizeof(name), "sidecar.%u", i);
		gateway_prepare(&sidecar[i], name, cluster.node[i].netns, 8000, 9101,
				cluster.node[0].ip, POD_PORT, routes);
		gateway_start(&sidecar[i], NULL);
	}
	for (unsigned i = 0; i < NODES; i++)
		cluster_node_start(&cluster, i, NULL);
	for (unsigned i = 0; i < NODES; i++)
		cluster_node_await(&cluster, i);
}

/* Masters, then gateways: each ends cleanly. */
static void stop_all(void)
{
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(cluster_node_end(&cluster, i, SIGTERM), 0);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(gateway_end(&sidecar[i], SIGTERM), 0);
	ck_assert_int_eq(gateway_end(&pod, SIGTERM), 0);
	cluster_stop(&cluster);
}

static const unsigned everywhere[] = {0, 1, 2, 0, 1, 2};
#define PROGRAMS (sizeof(everywhere) / sizeof(everywhere[0]))
static const struct churn_plan plan = {.homes = 7, .ranges = 6};

/* What wvm_ctl top says of one that has work. */
static void expect_rates(const struct gateway *g)
{
	static struct cluster_result r;
	json_t *o, *one;

	gateway_ctl(g, &r, (const char *const[]){"--json", "-d", "1", "top", NULL});
	ck_assert_msg(r.status == 0, "%s", r.err);
	o = json_loads(r.out, 0, NULL);
	one = json_array_get(json_object_get(o, "daemons"), 0);
	ck_assert_str_eq(json_string_value(json_object_get(one, "role")), "gateway");
	ck_assert_double_gt(json_real_value(json_object_get(one, "forwarded_per_s")), 0);
	ck_assert_double_gt(json_real_value(json_object_get(one, "datagrams_per_s")), 0);
	ck_assert(json_is_integer(json_object_get(one, "waiting")));
	ck_assert_int_le(json_integer_value(json_object_get(one, "waiting")),
			 json_integer_value(json_object_get(one, "buffers")));
	json_decref(o);
}

START_TEST(masters_share_memory_through_sidecars_and_a_pod)
{
	uint64_t forwarded, datagrams;
	static struct churn w;

	start_all(NULL);
	churn_start(&w, &cluster, &plan, everywhere, PROGRAMS);
	ck_assert(churn_goes_on(&w, ROUNDS));
	expect_rates(&pod);
	churn_stop(&w);
	churn_verify(&w);
	churn_free(&w);
	forwarded = gateway_stat(&pod, "gateway", "forwarded");
	datagrams = gateway_stat(&pod, "gateway", "datagrams_out");
	printf("proof: %llu messages by way of the pod in %llu datagrams\n",
	       (unsigned long long)forwarded, (unsigned long long)datagrams);
	ck_assert_uint_gt(forwarded, ROUNDS);
	ck_assert_uint_lt(datagrams, forwarded);
	for (unsigned i = 0; i < NODES; i++) {
		ck_assert_uint_gt(gateway_stat(&sidecar[i], "gateway", "forwarded"), 0);
		ck_assert_uint_eq(gateway_stat(&sidecar[i], "gateway", "strangers"), 0);
		ck_assert_uint_eq(cluster_stat(&cluster, i, "drops", "source"), 0);
	}
	stop_all();
}
END_TEST

/* Whether `node` has heard of `of`, and says this status of it. */
static bool says(unsigned node, unsigned of, const char *status)
{
	json_t *o = cluster_json(&cluster, node, "members");
	const json_t *m = json_array_get(json_object_get(o, "members"), of);
	bool is = json_is_true(json_object_get(m, "heard")) &&
		  !strcmp(json_string_value(json_object_get(m, "status")), status);

	json_decref(o);
	return is;
}

static void await_says(unsigned node, unsigned of, const char *status)
{
	uint64_t end = cluster_now_ms() + 30000; /* a hang, not a measure */

	while (!says(node, of, status)) {
		ck_assert_msg(cluster_now_ms() < end, "node %u does not say %s of node %u", node,
			      status, of);
		cluster_sleep_ms(100);
	}
}

START_TEST(masters_watch_each_other_through_gateways_and_one_cut_off_accuses_nobody)
{
	start_all(NULL);
	for (unsigned i = 0; i < NODES; i++)
		for (unsigned k = 0; k < NODES; k++)
			await_says(i, k, "ALIVE");
	ck_assert_int_eq(WTERMSIG(gateway_end(&sidecar[2], SIGKILL)), SIGKILL);
	await_says(0, 2, "DEAD");
	await_says(1, 2, "DEAD");
	for (unsigned i = 0; i < NODES; i++)
		for (unsigned k = 0; k < 2; k++)
			ck_assert(!says(i, k, "DEAD"));
	gateway_start(&sidecar[2], NULL);
	for (unsigned i = 0; i < NODES; i++)
		for (unsigned k = 0; k < NODES; k++)
			await_says(i, k, "ALIVE");
	stop_all();
}
END_TEST

START_TEST(gateways_that_are_killed_and_replaced_cost_no_byte)
{
	static struct churn w;

	start_all(NULL);
	churn_start(&w, &cluster, &plan, everywhere, PROGRAMS);
	for (unsigned i = 0; i < 6; i++) {
		struct gateway *g = i % 2 ? &sidecar[i / 2] : &pod;

		ck_assert(churn_goes_on(&w, 20));
		ck_assert_int_ne(gateway_end(g, SIGKILL), 0);
		cluster_sleep_ms(150);
		gateway_start(g, NULL);
		cluster_sleep_ms(300);
	}
	ck_assert(churn_goes_on(&w, 50));
	churn_stop(&w);
	churn_verify(&w);
	ck_assert_uint_eq(churn_errors(&w), 0);
	printf("proof: 6 gateways killed under load, %llu rounds verified\n",
	       (unsigned long long)churn_rounds(&w));
	churn_free(&w);
	stop_all();
}
END_TEST

/* One writes all pages, then the other reads them in order, which is asked ahead for. */
static void write_then_read(struct program *p)
{
	uint64_t *base = program_map(p, 0, BULK_PAGES * PAGE);

	for (unsigned i = 0; i < BULK_PAGES && !p->index; i++)
		store(base + i * PAGE_WORDS, i + 1);
	program_meet(p);
	for (unsigned i = 0; i < BULK_PAGES && p->index; i++)
		NEED(p, load(base + i * PAGE_WORDS) == i + 1, "page %u", i);
	atomic_fetch_add(&p->arena->word[DONE], 1);
}

START_TEST(a_pod_that_pushes_back_is_heard_by_masters_and_costs_no_byte)
{
	struct arena *a = arena_new(0);
	struct program programs[2], *list[2];
	uint64_t pushed, heard = 0;

	start_all((const char *const[]){"--buffers", "64", NULL});
	for (unsigned i = 0; i < 2; i++) {
		programs[i] = (struct program){.cluster = &cluster,
					       .arena = a,
					       .node = i,
					       .index = i,
					       .count = 2,
					       .seed = i + 1};
		list[i] = &programs[i];
		program_start(&programs[i], write_then_read);
	}
	/* What comes meanwhile is there at once when it goes on: more than it has buffers for. */
	while (atomic_load(&a->word[DONE]) < 2 && !atomic_load(&a->failed)) {
		ck_assert_int_eq(kill(pod.pid, SIGSTOP), 0);
		cluster_sleep_ms(10);
		ck_assert_int_eq(kill(pod.pid, SIGCONT), 0);
		cluster_sleep_ms(10);
	}
	programs_await(list, 2);
	arena_free(a);
	pushed = gateway_stat(&pod, "gateway", "pushed_back");
	for (unsigned i = 0; i < NODES; i++)
		heard += cluster_stat(&cluster, i, "node", "pushed_back");
	printf("proof: the pod pushed %llu messages back, masters heard of %llu\n",
	       (unsigned long long)pushed, (unsigned long long)heard);
	ck_assert_uint_gt(pushed, 0);
	ck_assert_uint_gt(heard, 0);
	ck_assert_uint_le(heard, pushed);
	stop_all();
}
END_TEST

/* ---- strangers ------------------------------------------------------------------------- */

static size_t message(uint8_t *out, uint32_t src, uint32_t dst, uint8_t qos, uint16_t len,
		      uint64_t number)
{
	static const uint8_t payload[2048];
	struct wvm_msg m = {.type = len ? WVM_MSG_HEARTBEAT : WVM_MSG_PING,
			    .qos = qos,
			    .node_state = WVM_NODE_ACTIVE,
			    .hops = WVM_HOPS_MAX,
			    .epoch = 1,
			    .src = src,
			    .dst = dst,
			    .payload_len = len,
			    .seg_total = wvm_wire_total(len),
			    .request = number};
	size_t n = wvm_wire_encode(out, 2048, &m, payload);

	ck_assert_uint_gt(n, 0);
	return n;
}

static struct sockaddr_in at(const char *ip, uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	inet_pton(AF_INET, ip, &a.sin_addr);
	return a;
}

/* On host 2, from its address and a port that is nobody's: as src a member, and one that is none.
 */
static void be_a_stranger(void)
{
	struct sockaddr_in to = at("10.77.0.1", POD_PORT);
	pid_t pid = fork();
	uint8_t data[2048];
	int status;

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		int fd;

		cluster_enter_net(cluster.node[1].netns);
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		for (unsigned i = 0; i < 200; i++) {
			size_t len = message(data, i % 2 ? 1 : 77 + i, 0, WVM_QOS_CONTROL, 0,
					     1 + i);

			if (sendto(fd, data, len, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
				_exit(1);
		}
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}

static size_t routes_of_class(const struct gateway *g, const char *class)
{
	json_t *o = gateway_json(g, "route"), *item;
	size_t count = 0, i;

	json_array_foreach(json_object_get(o, "routes"), i, item)
		count += !strcmp(json_string_value(json_object_get(item, "class")), class);
	json_decref(o);
	return count;
}

START_TEST(a_strangers_packets_lead_nowhere_and_create_no_route)
{
	uint64_t end = cluster_now_ms() + 5000, heard;
	struct cluster_result *r = calloc(1, sizeof(*r));

	start_all(NULL);
	be_a_stranger();
	do
		heard = gateway_stat(&pod, "gateway", "strangers");
	while (heard < 200 && cluster_now_ms() < end);
	ck_assert_uint_eq(heard, 200);
	ck_assert_uint_eq(routes_of_class(&pod, "learned"), 0);
	ck_assert_uint_eq(routes_of_class(&pod, "announced"), 0);
	ck_assert_uint_eq(routes_of_class(&pod, "static"), 3);
	/* Nothing of it came to the master that it was for, by its sidecar. */
	ck_assert_uint_eq(cluster_stat(&cluster, 0, "drops", "node"), 0);
	ck_assert_uint_eq(gateway_stat(&sidecar[0], "gateway", "strangers"), 0);
	/* The control port is not to be reached from another host. */
	cluster_run(r,
		    (const char *const[]){"/usr/bin/python3", "deploy/wvm_route_ctl.py",
					  "10.77.0.1", "9111", "1", "10.77.0.2", "666", NULL},
		    cluster.node[1].netns, NULL);
	ck_assert_int_ne(r->status, 0);
	ck_assert_uint_eq(routes_of_class(&pod, "operator"), 0);
	free(r);
	stop_all();
}
END_TEST

#define STORM       100000u /* datagrams of each kind */
#define STORM_QUEUE (1u << 17)
#define STORM_MS    20000u /* a hang, not a measure */
#define PAUSE_MS    4000u  /* less than the 5 s after which an access is an error */

/* One datagram of its storm, by a process on the host of node 1, or of the pod's for its orders. */
typedef void storm_fn(int fd);

/* What begins like a message, or is a good one but for some bits; a checksum may be right. */
static void send_as_nobody(int fd)
{
	struct sockaddr_in to = at("10.77.0.1", POD_PORT);
	uint8_t data[2 * STRANGER_MTU];
	size_t len;

	if (stranger_chance() % 2) {
		len = stranger_noise(data);
	} else {
		len = message(data, 1, (uint32_t)(stranger_chance() % NODES), WVM_QOS_CONTROL, 0,
			      stranger_chance());
		data[stranger_chance() % len] ^= (uint8_t)(1 + stranger_chance() % 255);
		wvm_wire_seal(data, len);
	}
	if (sendto(fd, data, len, 0, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EMSGSIZE)
		_exit(1);
}

/* From the address of the sidecar there. Under a right checksum it might be the truth. */
static void send_as_neighbour(int fd)
{
	uint16_t bytes = stranger_chance() % 4 ? 0 : (uint16_t)(1 + stranger_chance() % 1200);
	uint8_t data[STRANGER_MTU];
	size_t len = message(data, 1, (uint32_t)(stranger_chance() % NODES),
			     bytes ? WVM_QOS_BULK : WVM_QOS_CONTROL, bytes, stranger_chance());

	data[stranger_chance() % len] ^= (uint8_t)(1 + stranger_chance() % 255);
	if (stranger_chance() % 8 == 0)
		len = 1 + stranger_chance() % (len - 1);
	stranger_forge(at("10.77.0.2", 8000), at("10.77.0.1", POD_PORT), data, len);
}

static void send_orders(int fd)
{
	struct sockaddr_in to = at("127.0.0.1", (uint16_t)pod.ctrl_port);
	uint8_t data[2 * STRANGER_MTU];
	size_t len = stranger_noise(data);

	if (sendto(fd, data, len, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		_exit(1);
}

/* Not faster than the pod reads. Returns what the kernel dropped of it. */
static uint64_t storm(storm_fn *send_one, unsigned host, unsigned port)
{
	uint64_t before = harm_port_of(pod.pid, port).drops;
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		int fd;

		cluster_enter_net(cluster.node[host].netns);
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		for (unsigned i = 0; i < STORM; i++) {
			send_one(fd);
			while (i % 64 == 0 && harm_port_of(pod.pid, port).queued > STORM_QUEUE)
				cluster_sleep_ms(1);
		}
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	return harm_port_of(pod.pid, port).drops - before;
}

/* Each that came from nobody, or from the address of a neighbour. */
static void expect_counted(const char *name, uint64_t before, uint64_t kernel)
{
	uint64_t end = cluster_now_ms() + STORM_MS, counted;

	do
		counted = gateway_stat(&pod, "gateway", name) - before;
	while (counted + kernel < STORM && cluster_now_ms() < end);
	ck_assert_msg(counted + kernel >= STORM && kernel <= STORM / 2,
		      "of %u sent %lu were counted as %s, and the kernel dropped %lu", STORM,
		      counted, name, kernel);
}

/* Whatever a neighbour's datagrams say becomes exactly one of these. */
static void expect_forward_balance(void)
{
	static const char *const ends[] = {"forwarded", "no_route",    "loops", "hops_used_up",
					   "too_long",  "pushed_back", "lost"};
	json_t *o = gateway_json(&pod, "stats"), *value;
	const json_t *g = json_object_get(o, "gateway");
	uint64_t sum = 0, dropped = 0;
	const char *name;

	for (unsigned i = 0; i < sizeof(ends) / sizeof(*ends); i++)
		sum += (uint64_t)json_integer_value(json_object_get(g, ends[i]));
	json_object_foreach(json_object_get(o, "drops"), name, value)
		dropped += (uint64_t)json_integer_value(value);
	ck_assert_uint_eq(sum + dropped,
			  (uint64_t)json_integer_value(json_object_get(g, "segments")));
	ck_assert_uint_gt(dropped, 0);
	json_decref(o);
}

START_TEST(a_storm_on_every_port_of_a_pod_costs_no_byte_and_no_route)
{
	static struct churn w;
	uint64_t nobody, neighbour, kernel;

	start_all(NULL);
	churn_start(&w, &cluster, &plan, everywhere, PROGRAMS);
	nobody = gateway_stat(&pod, "gateway", "strangers");
	kernel = storm(send_as_nobody, 1, POD_PORT);
	expect_counted("strangers", nobody, kernel);
	neighbour = gateway_stat(&pod, "gateway", "datagrams_in");
	kernel = storm(send_as_neighbour, 1, POD_PORT);
	expect_counted("datagrams_in", neighbour, kernel);
	expect_forward_balance();
	(void)storm(send_orders, 0, pod.ctrl_port);
	ck_assert_uint_gt(gateway_stat(&pod, "control", "bad_magic"), 0);
	ck_assert_uint_eq(routes_of_class(&pod, "learned"), 0);
	ck_assert_uint_eq(routes_of_class(&pod, "announced"), 0);
	ck_assert_uint_eq(routes_of_class(&pod, "operator"), 0);
	ck_assert_uint_eq(routes_of_class(&pod, "static"), NODES);
	ck_assert(churn_goes_on(&w, 20));
	churn_stop(&w);
	churn_verify(&w);
	ck_assert_uint_eq(churn_errors(&w), 0);
	ck_assert_uint_le(atomic_load(&w.arena->word[CHURN_PAUSE_MS_MAX]), PAUSE_MS);
	printf("proof: %u hostile datagrams from nobody, %u as from a neighbour and %u orders to a "
	       "pod's gateway: 0 bytes changed, 0 routes, the longest access took %llu ms\n",
	       STORM, STORM, STORM,
	       (unsigned long long)atomic_load(&w.arena->word[CHURN_PAUSE_MS_MAX]));
	churn_free(&w);
	stop_all();
}
END_TEST

/* ---- one gateway alone ----------------------------------------------------------------- */

static struct gateway alone;

static int open_socket(uint16_t *port)
{
	struct sockaddr_in a;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), bytes = 64 << 20;

	*port = cluster_free_port("127.0.0.1");
	a = at("127.0.0.1", *port);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	return fd;
}

/* vnode 1 is at one port, vnode 2 at another. */
static void start_alone(uint16_t one, uint16_t two, const char *const more[])
{
	char routes[256];

	snprintf(routes, sizeof(routes), "ROUTE 1 1 127.0.0.1 %u\nROUTE 2 1 127.0.0.1 %u\n", one,
		 two);
	gateway_prepare(&alone, "alone", "", cluster_free_port("127.0.0.1"),
			cluster_free_port("127.0.0.1"), "0.0.0.0", 0, routes);
	gateway_start(&alone, more);
}

/* Counts messages until none comes for a while: those that are push-backs, and all others. */
static void count_messages(int fd, unsigned *push_backs, unsigned *others)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	static uint8_t data[65536];

	*push_backs = *others = 0;
	while (poll(&p, 1, 500) > 0) {
		ssize_t len = recv(fd, data, sizeof(data), 0);
		const uint8_t *at = data;

		while (len > 0) {
			const uint8_t *payload;
			struct wvm_msg m;
			size_t used;

			ck_assert_int_eq(wvm_wire_decode(at, (size_t)len, &m, &payload, &used), 0);
			if (m.type == WVM_MSG_PUSH_BACK)
				(*push_backs)++;
			else
				(*others)++;
			at += used;
			len -= (ssize_t)used;
		}
	}
}

START_TEST(a_full_lane_pushes_back_and_loses_nothing_in_silence)
{
	unsigned told, passed, nothing;
	struct sockaddr_in to;
	uint16_t one, two;
	int sink = open_socket(&one), source = open_socket(&two);
	uint8_t data[2048];

	start_alone(one, two, (const char *const[]){"--buffers", "64", NULL});
	to = at("127.0.0.1", alone.port);
	/* All of it is there when it looks again. */
	ck_assert_int_eq(kill(alone.pid, SIGSTOP), 0);
	for (unsigned i = 0; i < BURST; i++) {
		size_t len = message(data, 2, 1, WVM_QOS_BULK, BURST_BYTE, 1 + i);

		ck_assert_int_eq(sendto(source, data, len, 0, (struct sockaddr *)&to, sizeof(to)),
				 (ssize_t)len);
	}
	ck_assert_int_eq(kill(alone.pid, SIGCONT), 0);
	count_messages(source, &told, &nothing);
	ck_assert_uint_eq(nothing, 0);
	count_messages(sink, &nothing, &passed);
	printf("proof: of %u messages %u passed, %u were pushed back\n", BURST, passed, told);
	ck_assert_uint_gt(told, 0);
	ck_assert_uint_gt(passed, 0);
	ck_assert_uint_eq(told + passed, BURST);
	ck_assert_uint_eq(gateway_stat(&alone, "gateway", "lost"), 0);
	ck_assert_int_eq(gateway_end(&alone, SIGTERM), 0);
	close(sink);
	close(source);
}
END_TEST

static uint64_t cpu_ns(pid_t pid)
{
	clockid_t clock;
	struct timespec t;

	ck_assert_int_eq(clock_getcpuclockid(pid, &clock), 0);
	ck_assert_int_eq(clock_gettime(clock, &t), 0);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

START_TEST(an_idle_gateway_takes_no_time)
{
	uint64_t before, took;

	start_alone(1, 2, NULL);
	cluster_sleep_ms(200);
	before = cpu_ns(alone.pid);
	cluster_sleep_ms(IDLE_MS);
	took = cpu_ns(alone.pid) - before;
	printf("proof: %.4f %% of a core when idle\n", (double)took / IDLE_MS / 10000);
	ck_assert_uint_lt(took, IDLE_NS);
	ck_assert_int_eq(gateway_end(&alone, SIGTERM), 0);
}
END_TEST

/* ---- orders ---------------------------------------------------------------------------- */

/* The tool with these arguments behind address and port: its status and text. */
static struct cluster_result *tool(uint16_t port, const char *const args[])
{
	static struct cluster_result r;
	const char *all[16] = {"/usr/bin/python3", "deploy/wvm_route_ctl.py", "127.0.0.1"};
	char number[8];
	unsigned count = 3;

	snprintf(number, sizeof(number), "%u", port);
	all[count++] = number;
	while (*args)
		all[count++] = *args++;
	cluster_run(&r, all, NULL, NULL);
	return &r;
}
#define TOOL(port, ...) tool(port, (const char *const[]){__VA_ARGS__, NULL})

START_TEST(the_tools_add_replace_delete_and_list_routes)
{
	static struct cluster_result r;
	const struct cluster_result *t;

	start_alone(1, 2, NULL);
	t = TOOL(alone.ctrl_port, "5", "10.0.0.9", "8000");
	ck_assert_msg(t->status == 0, "%s", t->err);
	t = TOOL(alone.ctrl_port, "4", "10.0.0.8", "8000", "--count", "3");
	ck_assert_msg(t->status == 0 && strstr(t->out, "1 replaced"), "%s%s", t->out, t->err);
	t = TOOL(alone.ctrl_port, "--dump");
	ck_assert_msg(t->status == 0 && strstr(t->out, "10.0.0.8:8000"), "%s%s", t->out, t->err);
	ck_assert_ptr_null(strstr(t->out, "10.0.0.9:8000"));
	gateway_ctl(&alone, &r, (const char *const[]){"route", "del", "5", NULL});
	ck_assert_msg(r.status == 0, "%s", r.err);
	ck_assert_uint_eq(routes_of_class(&alone, "operator"), 2);
	t = TOOL(alone.ctrl_port, "5", "--delete");
	ck_assert_msg(t->status && strstr(t->err, "no operator's route"), "%s", t->err);
	t = TOOL(alone.ctrl_port, "4", "--delete", "--count", "3");
	ck_assert_msg(t->status == 0, "%s", t->err);
	ck_assert_uint_eq(routes_of_class(&alone, "operator"), 0);
	t = TOOL(alone.ctrl_port, "5", "127.0.0.1", "99999");
	ck_assert_int_ne(t->status, 0);
	ck_assert_int_eq(gateway_end(&alone, SIGTERM), 0);
	/* No answer is an error. */
	t = TOOL(alone.ctrl_port, "5", "10.0.0.9", "8000");
	ck_assert_msg(t->status && strstr(t->err, "no gateway answers"), "%s", t->err);
	gateway_ctl(&alone, &r,
		    (const char *const[]){"route", "add", "5", "10.0.0.9", "8000", NULL});
	ck_assert_msg(r.status && strstr(r.err, "no gateway answers"), "%s", r.err);
}
END_TEST

START_TEST(a_route_by_order_is_followed_at_once)
{
	static struct cluster_result r;
	struct sockaddr_in to;
	uint16_t one, two;
	int first = open_socket(&one), second = open_socket(&two);
	unsigned none, passed;
	uint8_t data[2048];
	char port[8];

	start_alone(one, two, NULL);
	to = at("127.0.0.1", alone.port);
	snprintf(port, sizeof(port), "%u", one);
	gateway_ctl(&alone, &r,
		    (const char *const[]){"route", "add", "1000", "127.0.0.1", port, "--count", "9",
					  NULL});
	ck_assert_msg(r.status == 0, "%s", r.err);
	for (unsigned vnode = 1000; vnode < 1010; vnode++)
		ck_assert_int_gt(sendto(second, data,
					message(data, 2, vnode, WVM_QOS_CONTROL, 0, vnode), 0,
					(struct sockaddr *)&to, sizeof(to)),
				 0);
	count_messages(first, &none, &passed);
	ck_assert_uint_eq(passed, 9);
	ck_assert_uint_eq(gateway_stat(&alone, "gateway", "no_route"), 1);
	ck_assert_int_eq(gateway_end(&alone, SIGTERM), 0);
	close(first);
	close(second);
}
END_TEST

/* One order, and its status. */
static unsigned order(int fd, const struct wvm_route_order *o)
{
	struct sockaddr_in to = at("127.0.0.1", alone.ctrl_port);
	struct timeval wait = {.tv_sec = 5};
	struct wvm_route_answer a;
	uint8_t data[64];
	ssize_t len;

	wvm_route_order_encode(data, o);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	ck_assert_int_gt(
		sendto(fd, data, WVM_ROUTE_ORDER_BYTES, 0, (struct sockaddr *)&to, sizeof(to)), 0);
	len = recv(fd, data, sizeof(data), 0);
	ck_assert_int_gt(len, 0);
	ck_assert(wvm_route_answer_decode(data, (size_t)len, o, &a));
	return a.status;
}

START_TEST(who_announces_itself_is_heard_from_then_on)
{
	uint16_t one, two, new_port;
	int first = open_socket(&one), new = open_socket(&new_port);
	struct wvm_route_order o = {.op = WVM_CONTROL_ROUTE_ANNOUNCE, .first = 50, .count = 2};
	struct sockaddr_in to;
	unsigned none, passed;
	uint8_t data[2048];

	two = cluster_free_port("127.0.0.1");
	start_alone(one, two, NULL);
	to = at("127.0.0.1", alone.port);
	for (unsigned announced = 0; announced < 2; announced++) {
		ck_assert_int_gt(sendto(new, data, message(data, 50, 1, WVM_QOS_CONTROL, 0, 7), 0,
					(struct sockaddr *)&to, sizeof(to)),
				 0);
		count_messages(first, &none, &passed);
		ck_assert_uint_eq(passed, announced);
		o.hop.port = new_port;
		ck_assert_uint_eq(order(new, &o), WVM_CONTROL_OK);
	}
	ck_assert_int_gt(sendto(first, data, message(data, 1, 51, WVM_QOS_CONTROL, 0, 8), 0,
				(struct sockaddr *)&to, sizeof(to)),
			 0);
	count_messages(new, &none, &passed);
	ck_assert_uint_eq(passed, 1);
	ck_assert_uint_eq(routes_of_class(&alone, "announced"), 1);
	/* Not what is no port, nor the gateway itself, nor vnodes beyond the last one. */
	o.hop.port = 0;
	ck_assert_uint_eq(order(new, &o), WVM_CONTROL_BAD_HOP);
	o.hop.port = alone.port;
	ck_assert_uint_eq(order(new, &o), WVM_CONTROL_BAD_HOP);
	o.hop.port = new_port;
	o.count = UINT32_MAX;
	ck_assert_uint_eq(order(new, &o), WVM_CONTROL_BAD_RANGE);
	ck_assert_int_eq(gateway_end(&alone, SIGTERM), 0);
	close(first);
	close(new);
}
END_TEST

/* Of ops that are not there, and of lengths that are none: an answer with a status each. */
START_TEST(every_command_is_answered)
{
	static const struct {
		uint16_t op;
		size_t len;
		uint16_t status;
	} cases[] = {{WVM_CONTROL_DRAIN, 24, WVM_CONTROL_NOT_YET},
		     {WVM_CONTROL_JOIN, 24, WVM_CONTROL_NOT_YET},
		     {999, 24, WVM_CONTROL_UNKNOWN},
		     {WVM_CONTROL_STATUS, 24, WVM_CONTROL_OK},
		     {WVM_CONTROL_STATUS, 7, WVM_CONTROL_BAD_LENGTH},
		     {WVM_CONTROL_DRAIN, 6, WVM_CONTROL_BAD_LENGTH}};
	struct sockaddr_in to;
	struct timeval wait = {.tv_sec = 5};
	uint16_t port;
	int fd = open_socket(&port);

	start_alone(1, 2, NULL);
	to = at("127.0.0.1", alone.ctrl_port);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t data[32] = "WVMC", answer[2048];

		data[4] = (uint8_t)(cases[i].op >> 8);
		data[5] = (uint8_t)cases[i].op;
		ck_assert_int_gt(
			sendto(fd, data, cases[i].len, 0, (struct sockaddr *)&to, sizeof(to)), 0);
		ck_assert_int_ge(recv(fd, answer, sizeof(answer), 0), 16);
		ck_assert_msg(answer[12] == 0 && answer[13] == cases[i].status,
			      "case %zu: status %u", i, answer[13]);
	}
	ck_assert_int_eq(gateway_end(&alone, SIGTERM), 0);
	close(fd);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("gateways");
	TCase *c = cluster_tcase(s, "cluster", 120), *one = cluster_tcase(s, "alone", 60);

	tcase_add_test(c, masters_share_memory_through_sidecars_and_a_pod);
	tcase_add_test(c, masters_watch_each_other_through_gateways_and_one_cut_off_accuses_nobody);
	tcase_add_test(c, gateways_that_are_killed_and_replaced_cost_no_byte);
	tcase_add_test(c, a_pod_that_pushes_back_is_heard_by_masters_and_costs_no_byte);
	tcase_add_test(c, a_strangers_packets_lead_nowhere_and_create_no_route);
	tcase_add_test(c, a_storm_on_every_port_of_a_pod_costs_no_byte_and_no_route);
	tcase_add_test(one, a_full_lane_pushes_back_and_loses_nothing_in_silence);
	tcase_add_test(one, an_idle_gateway_takes_no_time);
	tcase_add_test(one, the_tools_add_replace_delete_and_list_routes);
	tcase_add_test(one, a_route_by_order_is_followed_at_once);
	tcase_add_test(one, who_announces_itself_is_heard_from_then_on);
	tcase_add_test(one, every_command_is_answered);
	return s;
}

int main(int argc, char **argv)
{
	return cluster_main(argv, (Suite * (*const[])(void)){suite}, 1);
}

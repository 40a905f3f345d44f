/* Live masters watch each other: who answers, who does not, and who only says so. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "roles/check/cluster.h"
#include "roles/check/harm.h"
#include "shared/ballots.h"
#include "shared/core/gossip.h"
#include "shared/wire.h"

#define NODES    3u
#define BUSY     4u    /* this machine may be so many times as slow as one that is idle */
#define HEARD_MS 2000u /* all know of all */
#define DEAD_MS  8000u /* two periods, 5 s of suspicion, and rounds of news */
#define STOP_MS  3000u
#define STORM    30000u

#define QUEUE_BYTES 16384u /* in a control port's socket: a part of what fits */

static struct cluster cluster;

/* ---- what a node says ------------------------------------------------------------------ */

struct seen {
	char status[16], life[16];
	uint64_t incarnation, boot, epoch;
	bool heard;
};

static uint64_t figure(const json_t *o, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(o, name));
}

static void see(unsigned node, struct seen seen[NODES])
{
	json_t *o = cluster_json(&cluster, node, "members");
	json_t *list = json_object_get(o, "members"), *item;
	size_t i;

	ck_assert(json_is_true(json_object_get(o, "watching")));
	ck_assert_uint_eq(json_array_size(list), NODES);
	json_array_foreach(list, i, item)
	{
		struct seen *s = &seen[figure(item, "node")];

		snprintf(s->status, sizeof(s->status), "%s",
			 json_string_value(json_object_get(item, "status")));
		snprintf(s->life, sizeof(s->life), "%s",
			 json_string_value(json_object_get(item, "life")));
		s->incarnation = figure(item, "incarnation");
		s->boot = figure(item, "boot");
		s->epoch = figure(item, "epoch");
		s->heard = json_is_true(json_object_get(item, "heard"));
	}
	json_decref(o);
}

static bool is(unsigned node, unsigned of, const char *status)
{
	struct seen seen[NODES];

	see(node, seen);
	return !strcmp(seen[of].status, status);
}

/* Until `node` says that `of` is so; the time that it took. */
static uint64_t await(unsigned node, unsigned of, const char *status, uint64_t ms)
{
	uint64_t began = cluster_now_ms();

	while (!is(node, of, status)) {
		ck_assert_msg(cluster_now_ms() - began < ms, "node %u does not say %s of node %u",
			      node, status, of);
		cluster_sleep_ms(50);
	}
	return cluster_now_ms() - began;
}

static bool all_heard(unsigned node)
{
	struct seen seen[NODES];

	see(node, seen);
	for (unsigned i = 0; i < NODES; i++)
		if (!seen[i].heard || strcmp(seen[i].status, "ALIVE") ||
		    strcmp(seen[i].life, "ACTIVE") || seen[i].epoch != 1)
			return false;
	return true;
}

static void await_all(void)
{
	uint64_t end = cluster_now_ms() + BUSY * HEARD_MS;

	for (unsigned i = 0; i < NODES; i++) {
		while (!all_heard(i)) {
			ck_assert_msg(cluster_now_ms() < end, "node %u has not heard of all", i);
			cluster_sleep_ms(50);
		}
	}
}

/* How often a line of its log has this in it. */
static unsigned said(unsigned node, const char *what)
{
	static char text[CLUSTER_OUT_BYTES];
	unsigned count = 0;

	cluster_read(cluster.node[node].log, text, sizeof(text));
	for (const char *at = text; (at = strstr(at, what)); at++)
		count++;
	return count;
}

static uint64_t counter(unsigned node, const char *name)
{
	return cluster_stat(&cluster, node, "membership", name);
}

static void begin(enum cluster_net net)
{
	cluster_start(&cluster, &(struct cluster_opts){.net = net, .vm = "1:1G"});
	await_all();
}

/* What all nodes have adds up, and each has its part to one slice, as its vnodes are alike. */
static void shares(void)
{
	struct cluster_result r;
	unsigned sum = 0, rows = 0;

	cluster_ctl(&cluster, 0, &r, (const char *const[]){"slices", NULL});
	ck_assert_int_eq(r.status, 0);
	ck_assert_ptr_nonnull(strstr(r.out, "epoch 1  slices 4096\n"));
	for (const char *line = strchr(r.out, '\n'); line; line = strchr(line + 1, '\n')) {
		unsigned node, vnodes, slices;
		double exact;

		if (sscanf(line, " %u %*s %u %lf %u", &node, &vnodes, &exact, &slices) != 4)
			continue;
		ck_assert_uint_eq(node, rows++);
		ck_assert(slices > exact - 1 && slices < exact + 1);
		sum += slices;
	}
	ck_assert_uint_eq(rows, NODES);
	ck_assert_uint_eq(sum, 4096);
}

/* ---- tests ----------------------------------------------------------------------------- */

START_TEST(all_hear_of_all_and_agree_on_the_epoch_of_the_topology)
{
	struct cluster_result r;

	begin(CLUSTER_LOOPBACK);
	for (unsigned i = 0; i < NODES; i++) {
		json_t *o = cluster_json(&cluster, i, "epoch"), *v;

		ck_assert_uint_eq(figure(json_object_get(o, "record"), "epoch"), 1);
		v = json_object_get(json_object_get(o, "record"), "voters");
		ck_assert_uint_eq(json_array_size(v), NODES);
		for (unsigned k = 0; k < NODES; k++)
			ck_assert_uint_eq(figure(json_array_get(v, k), "node"), k);
		ck_assert_str_eq(json_string_value(json_object_get(o, "phase")), "idle");
		ck_assert_int_eq(access(json_string_value(json_object_get(o, "file")), F_OK), 0);
		json_decref(o);
		ck_assert_uint_gt(counter(i, "gossip_sent"), 0);
		ck_assert_uint_gt(counter(i, "gossip_received"), 0);
	}
	cluster_ctl(&cluster, 0, &r, (const char *const[]){"members", NULL});
	ck_assert_int_eq(r.status, 0);
	ck_assert_ptr_nonnull(strstr(r.out, "ACTIVE   ALIVE"));
	cluster_ctl(&cluster, 0, &r, (const char *const[]){"epoch", NULL});
	ck_assert_int_eq(r.status, 0);
	ck_assert_ptr_nonnull(strstr(r.out, "epoch 1: node 0 is ACTIVE"));
	shares();
	cluster_stop(&cluster);
}
END_TEST

START_TEST(a_killed_node_is_dead_to_the_others_alone_and_alive_again_when_it_is_back)
{
	struct seen before[NODES], after[NODES];
	uint64_t began, took;

	begin(CLUSTER_VETH);
	see(0, before);
	began = cluster_now_ms();
	cluster_node_end(&cluster, 2, SIGKILL);
	await(0, 2, "DEAD", BUSY * DEAD_MS);
	await(1, 2, "DEAD", BUSY * DEAD_MS);
	took = cluster_now_ms() - began;
	printf("proof: a killed node was DEAD to both others after %lu ms\n", took);
	ck_assert_uint_ge(took, 5000); /* or it was no suspicion that ran out */
	ck_assert(is(0, 1, "ALIVE") && is(1, 0, "ALIVE"));
	cluster_node_start(&cluster, 2, NULL);
	cluster_node_await(&cluster, 2);
	await(0, 2, "ALIVE", BUSY * HEARD_MS);
	await(1, 2, "ALIVE", BUSY * HEARD_MS);
	await_all();
	see(0, after);
	ck_assert_uint_gt(after[2].incarnation, before[2].incarnation);
	ck_assert_uint_eq(after[2].boot, before[2].boot + 1);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_eq(said(i, "is DEAD"), 1); /* once, of that one */
		ck_assert_uint_eq(said(i, "node 2 (10.77.0.3:9001) is DEAD"), 1);
		ck_assert_uint_eq(said(i, "node 2 (10.77.0.3:9001) is ALIVE again"), 1);
	}
	cluster_stop(&cluster);
}
END_TEST

START_TEST(a_node_that_stands_still_for_3_s_is_not_dead_and_accuses_nobody)
{
	uint64_t end;

	begin(CLUSTER_LOOPBACK);
	ck_assert_int_eq(kill(cluster.node[1].pid, SIGSTOP), 0);
	end = cluster_now_ms() + STOP_MS;
	while (cluster_now_ms() < end) {
		ck_assert(!is(0, 1, "DEAD") && !is(2, 1, "DEAD"));
		cluster_sleep_ms(100);
	}
	ck_assert_int_eq(kill(cluster.node[1].pid, SIGCONT), 0);
	await(0, 1, "ALIVE", BUSY * HEARD_MS);
	await(2, 1, "ALIVE", BUSY * HEARD_MS);
	cluster_sleep_ms(DEAD_MS); /* nor later */
	await_all();
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_uint_eq(said(i, "is DEAD"), 0);
	ck_assert_uint_gt(counter(1, "late"), 0);
	cluster_stop(&cluster);
}
END_TEST

START_TEST(a_node_that_is_ended_says_goodbye)
{
	uint64_t began;

	begin(CLUSTER_LOOPBACK);
	began = cluster_now_ms();
	ck_assert_int_eq(cluster_node_end(&cluster, 0, SIGTERM), 0);
	await(1, 0, "DEAD", 4000);
	await(2, 0, "DEAD", 4000);
	ck_assert_uint_lt(cluster_now_ms() - began, 5000); /* no suspicion runs out so soon */
	for (unsigned i = 1; i < NODES; i++)
		ck_assert_uint_eq(said(i, "has ended, as it said itself"), 1);
	cluster_stop(&cluster);
}
END_TEST

/* ---- as if it were another node -------------------------------------------------------- */

/* The kernel closes the sockets of a killed process's io_uring a moment after its end. */
static int socket_at(const char *ip, uint16_t port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
	uint64_t end = cluster_now_ms() + 5000;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, ip, &at.sin_addr);
	while (bind(fd, (struct sockaddr *)&at, sizeof(at))) {
		ck_assert_msg(cluster_now_ms() < end, "%s: %s", ip, strerror(errno));
		cluster_sleep_ms(20);
	}
	return fd;
}

static void send_to_node(int fd, unsigned node, const uint8_t *bytes, size_t len)
{
	struct sockaddr_in at = {.sin_family = AF_INET,
				 .sin_port = htons(cluster.node[node].ctrl_port)};

	inet_pton(AF_INET, cluster.node[node].ip, &at.sin_addr);
	ck_assert_int_eq(sendto(fd, bytes, len, 0, (struct sockaddr *)&at, sizeof(at)),
			 (ssize_t)len);
}

/* From node 1 to node 0. */
static void send_prepare(int fd, uint32_t round)
{
	struct wvm_epoch_msg e = {
		.kind = WVM_EPOCH_PREPARE, .epoch = 2, .ballot = wvm_epoch_ballot(round, 1)};
	struct wvm_msg m = {.type = WVM_MSG_BALLOT,
			    .hops = 1,
			    .epoch = 1,
			    .src = 1,
			    .payload_len = WVM_EPOCH_MSG_BYTES,
			    .seg_total = WVM_EPOCH_MSG_BYTES};
	uint8_t payload[WVM_EPOCH_MSG_BYTES], bytes[WVM_MTU_DEFAULT];

	wvm_epoch_encode(payload, &e);
	send_to_node(fd, 0, bytes, wvm_wire_encode(bytes, sizeof(bytes), &m, payload));
}

/* The next ballot that comes, within so many milliseconds; gossip is passed over. */
static bool receive_ballot(int fd, struct wvm_epoch_msg *e, unsigned ms)
{
	uint64_t end = cluster_now_ms() + ms;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint8_t bytes[WVM_MTU_DEFAULT];

	while (cluster_now_ms() < end) {
		const uint8_t *payload;
		struct wvm_msg m;
		size_t consumed;
		ssize_t n;

		if (poll(&p, 1, 20) < 1)
			continue;
		n = recv(fd, bytes, sizeof(bytes), 0);
		ck_assert_int_eq(wvm_wire_decode(bytes, (size_t)n, &m, &payload, &consumed),
				 WVM_DROP_NONE);
		if (m.type == WVM_MSG_BALLOT) {
			ck_assert(wvm_epoch_decode(e, payload, m.payload_len));
			return true;
		}
	}
	return false;
}

/* Asks again, as the network may lose: until this is the answer to that ballot. */
static struct wvm_epoch_msg ask(int fd, uint32_t round)
{
	struct wvm_epoch_msg e;

	for (unsigned i = 0; i < 20; i++) {
		send_prepare(fd, round);
		if (receive_ballot(fd, &e, 1000) && wvm_epoch_round(e.ballot) == round)
			return e;
	}
	ck_abort_msg("no answer to the ballot of round %u", round);
}

static struct wvm_epoch_durable stored(unsigned node)
{
	struct wvm_ballots b = {.node = node};
	uint8_t bytes[WVM_BALLOTS_BYTES];
	struct wvm_epoch_durable d;
	char path[200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/ballots.%u", cluster.node[node].state, node);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fread(bytes, 1, sizeof(bytes), f), sizeof(bytes));
	fclose(f);
	/* Of some cluster: whose is not known here. */
	ck_assert_int_ne(wvm_ballots_decode(&b, bytes, sizeof(bytes), &d), -EINVAL);
	return d;
}

START_TEST(a_promise_is_on_the_disk_before_it_is_given_and_holds_after_kill_and_restart)
{
	struct wvm_epoch_msg e;
	char path[200];
	json_t *o;
	int fd;

	begin(CLUSTER_LOOPBACK);
	cluster_node_end(&cluster, 1, SIGKILL);
	fd = socket_at(cluster.node[1].ip, cluster.node[1].ctrl_port);
	e = ask(fd, 5);
	ck_assert_int_eq(e.kind, WVM_EPOCH_PROMISE);
	ck_assert_uint_eq(stored(0).promised, wvm_epoch_ballot(5, 1));
	o = cluster_json(&cluster, 0, "epoch");
	ck_assert_uint_eq(figure(json_object_get(o, "promised"), "round"), 5);
	json_decref(o);
	/* A directory where the new file is to be: it cannot be stored, so nothing is promised. */
	snprintf(path, sizeof(path), "%s/ballots.0.new", cluster.node[0].state);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	send_prepare(fd, 6);
	ck_assert(!receive_ballot(fd, &e, 2500));
	ck_assert_uint_eq(stored(0).promised, wvm_epoch_ballot(5, 1));
	ck_assert_uint_eq(said(0, "cannot store ballots"), 1);
	ck_assert(is(2, 0, "ALIVE"));
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert(receive_ballot(fd, &e, 20000)); /* as soon as it can */
	ck_assert_int_eq(e.kind, WVM_EPOCH_PROMISE);
	ck_assert_uint_eq(wvm_epoch_round(e.ballot), 6);
	ck_assert_uint_eq(stored(0).promised, wvm_epoch_ballot(6, 1));
	ck_assert_uint_eq(said(0, "ballots are stored again"), 1);
	cluster_node_end(&cluster, 0, SIGKILL);
	cluster_node_start(&cluster, 0, NULL);
	e = ask(fd, 4);
	ck_assert_int_eq(e.kind, WVM_EPOCH_REFUSED);
	ck_assert_uint_eq(e.other, wvm_epoch_ballot(6, 1));
	close(fd);
	cluster_kill(&cluster);
}
END_TEST

/* To node 0, as if it were node 1: it is of a far higher incarnation, and node 2 suspect. */
static void forge(const char *from_ip, uint16_t from_port)
{
	struct wvm_gossip_msg g = {.kind = WVM_GOSSIP_NEWS,
				   .life = WVM_NODE_ACTIVE,
				   .count = 1,
				   .epoch = 9,
				   .incarnation = 1 << 30};
	struct wvm_msg m = {.type = WVM_MSG_HEARTBEAT, .hops = 1, .epoch = 1, .src = 1, .dst = 0};
	uint8_t payload[WVM_GOSSIP_BYTES_MAX], bytes[WVM_MTU_DEFAULT];
	int fd = socket_at(from_ip, from_port);
	struct in_addr ip;
	size_t len;

	inet_pton(AF_INET, cluster.node[1].ip, &ip);
	g.ip = ntohl(ip.s_addr);
	g.port = cluster.node[1].ctrl_port;
	inet_pton(AF_INET, cluster.node[2].ip, &ip);
	g.entry[0] = (struct wvm_gossip_entry){.node = 2,
					       .incarnation = 1 << 30,
					       .ip = ntohl(ip.s_addr),
					       .port = cluster.node[2].ctrl_port,
					       .status = WVM_GOSSIP_DEAD,
					       .life = WVM_NODE_OFFLINE};
	len = wvm_gossip_encode(payload, &g);
	m.payload_len = (uint16_t)len;
	m.seg_total = wvm_wire_total((uint32_t)len);
	len = wvm_wire_encode(bytes, sizeof(bytes), &m, payload);
	send_to_node(fd, 0, bytes, len);
	close(fd);
}

START_TEST(what_strangers_say_changes_nothing_and_is_counted)
{
	static const char *const from[] = {"127.0.77.2", "127.0.77.9", "127.0.0.1"};
	struct seen before[NODES], after[NODES];
	uint64_t end = cluster_now_ms() + 20000, dropped;

	begin(CLUSTER_LOOPBACK);
	see(0, before);
	dropped = counter(0, "dropped_source");
	for (unsigned i = 0; i < 3; i++)
		forge(from[i], 0);
	while (counter(0, "dropped_source") < dropped + 3) {
		ck_assert_msg(cluster_now_ms() < end, "not counted");
		cluster_sleep_ms(50);
	}
	see(0, after);
	for (unsigned i = 0; i < NODES; i++) {
		ck_assert_str_eq(after[i].status, "ALIVE");
		ck_assert_uint_lt(after[i].incarnation, 1 << 30);
		ck_assert_uint_eq(after[i].epoch, 1);
	}
	/* From the right address it would have been believed: so the test's message is a good one.
	 */
	cluster_node_end(&cluster, 1, SIGKILL);
	forge(cluster.node[1].ip, cluster.node[1].ctrl_port);
	end = cluster_now_ms() + 20000;
	do {
		ck_assert_msg(cluster_now_ms() < end, "not believed");
		see(0, after);
	} while (after[1].incarnation != 1 << 30);
	cluster_kill(&cluster);
}
END_TEST

/* ---- a storm --------------------------------------------------------------------------- */

/* Noise; gossip with some bytes changed, in half of it under a right checksum. */
static size_t hostile(uint8_t bytes[WVM_MTU_DEFAULT], unsigned i)
{
	static const struct wvm_gossip_msg probe = {.kind = WVM_GOSSIP_PROBE,
						    .life = WVM_NODE_ACTIVE,
						    .ip = 0x7f004d02,
						    .port = 1,
						    .incarnation = 1,
						    .seq = 1};
	struct wvm_msg m = {.type = WVM_MSG_HEARTBEAT, .hops = 1, .epoch = 1, .src = 1, .dst = 0};
	uint8_t payload[WVM_GOSSIP_BYTES_MAX];
	size_t len;

	if (i % 3 == 0) {
		len = (size_t)(rand() % WVM_MTU_DEFAULT);
		for (size_t k = 0; k < len; k++)
			bytes[k] = (uint8_t)rand();
		return len;
	}
	m.payload_len = (uint16_t)wvm_gossip_encode(payload, &probe);
	m.seg_total = wvm_wire_total(m.payload_len);
	len = wvm_wire_encode(bytes, WVM_MTU_DEFAULT, &m, payload);
	for (unsigned k = 0; k < i % 4; k++)
		bytes[(size_t)rand() % len] ^= (uint8_t)(1 + rand() % 255);
	if (i % 3 == 1)
		wvm_wire_seal(bytes, len);
	return len;
}

static uint64_t received(unsigned node, uint64_t *counted)
{
	json_t *o = cluster_json(&cluster, node, "stats");
	json_t *section = json_object_get(o, "membership"), *value;
	uint64_t sum = figure(section, "gossip_received") + figure(section, "ballots_received");
	uint64_t all = figure(section, "received");
	const char *name;

	json_object_foreach(section, name, value) if (!strncmp(name, "dropped_", 8))
		sum += (uint64_t)json_integer_value(value);
	*counted = sum;
	json_decref(o);
	return all;
}

START_TEST(a_storm_of_strangers_is_counted_and_nobody_is_dead_for_it)
{
	uint64_t before, after, counted, end, hidden;
	uint8_t bytes[WVM_MTU_DEFAULT];
	int fd;

	begin(CLUSTER_LOOPBACK);
	before = received(0, &counted);
	hidden = counter(0, "dropped_source");
	fd = socket_at("127.0.77.9", 0);
	for (unsigned i = 0; i < STORM; i++) {
		size_t len = hostile(bytes, i);

		send_to_node(fd, 0, bytes, len);
		/* Its socket is small: not faster than the master reads. */
		end = cluster_now_ms() + 1000;
		while (i % 16 == 15 && cluster_now_ms() < end &&
		       harm_gossip_port(&cluster, 0).queued > QUEUE_BYTES)
			cluster_sleep_ms(1);
	}
	close(fd);
	end = cluster_now_ms() + 20000;
	do
		after = received(0, &counted);
	while (after - before < STORM * 9 / 10 && cluster_now_ms() < end);
	printf("proof: of a storm of %u datagrams to one control port %lu were counted\n", STORM,
	       after - before);
	ck_assert_uint_ge(after - before, STORM * 9 / 10);
	ck_assert_uint_eq(after, counted);
	ck_assert_uint_gt(counter(0, "dropped_source") - hidden, STORM / 20);
	for (unsigned i = 0; i < NODES; i++)
		for (unsigned k = 0; k < NODES; k++)
			await(i, k, "ALIVE", BUSY * HEARD_MS);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_uint_eq(said(i, "is DEAD"), 0);
	cluster_stop(&cluster);
}
END_TEST

START_TEST(a_damaged_file_of_ballots_is_one_clear_error_and_is_left_alone)
{
	static char text[CLUSTER_OUT_BYTES];
	char path[200];
	FILE *f;

	begin(CLUSTER_LOOPBACK);
	cluster_node_end(&cluster, 1, SIGKILL);
	snprintf(path, sizeof(path), "%s/ballots.1", cluster.node[1].state);
	f = fopen(path, "r+e");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fseek(f, 50, SEEK_SET), 0);
	fputc(0x5a, f);
	fclose(f);
	cluster_node_start(&cluster, 1, NULL);
	ck_assert_int_ne(cluster_node_end(&cluster, 1, 0), 0);
	cluster_read(cluster.node[1].log, text, sizeof(text));
	ck_assert_msg(strstr(text, path) && strstr(text, "put a good copy"), "%s", text);
	ck_assert_int_eq(unlink(path), 0);
	cluster_node_start(&cluster, 1, NULL);
	cluster_node_await(&cluster, 1);
	ck_assert_uint_eq(said(1, "there was none"), 1);
	cluster_kill(&cluster);
}
END_TEST

static void write_topology(const char *text)
{
	FILE *f = fopen(cluster.topology, "we");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
}

START_TEST(nodes_of_one_address_without_control_ports_run_and_say_that_they_do_not_watch)
{
	char text[256];
	json_t *o;

	cluster_prepare(&cluster, &(struct cluster_opts){.nodes = 2, .vm = "1:1G"});
	snprintf(text, sizeof(text), "NODE 0 127.0.77.1 %u 1 4\nNODE 1 127.0.77.1 %u 1 4\n",
		 cluster.node[0].port, cluster_free_port("127.0.77.1"));
	write_topology(text);
	cluster_node_start(&cluster, 0, NULL);
	do
		cluster_sleep_ms(50);
	while (!said(0, "two NODE lines have the control port"));
	o = cluster_json(&cluster, 0, "members");
	ck_assert(json_is_false(json_object_get(o, "watching")));
	json_decref(o);
	cluster_kill(&cluster);
}
END_TEST

/* At 127.0.0.1 the socket for orders is the one for other nodes. */
START_TEST(nodes_at_127_0_0_1_watch_each_other_and_answer_orders_by_one_socket)
{
	char text[256] = "", *at = text;

	cluster_prepare(&cluster, &(struct cluster_opts){.vm = "1:1G"});
	for (unsigned i = 0; i < NODES; i++) {
		struct cluster_node *n = &cluster.node[i];

		snprintf(n->ip, sizeof(n->ip), "127.0.0.1");
		n->port = cluster_free_port(n->ip);
		at += sprintf(at, "NODE %u %s %u 1 4 %u\n", i, n->ip, n->port, n->ctrl_port);
	}
	write_topology(text);
	for (unsigned i = 0; i < NODES; i++)
		cluster_node_start(&cluster, i, NULL);
	for (unsigned i = 0; i < NODES; i++)
		cluster_node_await(&cluster, i);
	await_all();
	cluster_stop(&cluster);
}
END_TEST

START_TEST(a_control_port_other_than_the_topology_s_is_refused)
{
	static char text[CLUSTER_OUT_BYTES];

	cluster_prepare(&cluster, &(struct cluster_opts){.vm = "1:1G"});
	snprintf(text, sizeof(text), "NODE 0 127.0.77.1 %u 1 4 1\n", cluster.node[0].port);
	write_topology(text);
	cluster_node_start(&cluster, 0, NULL);
	ck_assert_int_ne(cluster_node_end(&cluster, 0, 0), 0);
	cluster_read(cluster.node[0].log, text, sizeof(text));
	ck_assert_msg(strstr(text, "topology:1: node 0 has ctrl_port 1"), "%s", text);
}
END_TEST

static Suite *members_suite(void)
{
	Suite *s = suite_create("members");
	TCase *t = cluster_tcase(s, "members", 240);

	tcase_add_test(t, all_hear_of_all_and_agree_on_the_epoch_of_the_topology);
	tcase_add_test(t,
		       a_killed_node_is_dead_to_the_others_alone_and_alive_again_when_it_is_back);
	tcase_add_test(t, a_node_that_stands_still_for_3_s_is_not_dead_and_accuses_nobody);
	tcase_add_test(t, a_node_that_is_ended_says_goodbye);
	tcase_add_test(
		t, a_promise_is_on_the_disk_before_it_is_given_and_holds_after_kill_and_restart);
	tcase_add_test(t, what_strangers_say_changes_nothing_and_is_counted);
	tcase_add_test(t, a_storm_of_strangers_is_counted_and_nobody_is_dead_for_it);
	tcase_add_test(t, a_damaged_file_of_ballots_is_one_clear_error_and_is_left_alone);
	tcase_add_test(
		t, nodes_of_one_address_without_control_ports_run_and_say_that_they_do_not_watch);
	tcase_add_test(t, nodes_at_127_0_0_1_watch_each_other_and_answer_orders_by_one_socket);
	tcase_add_test(t, a_control_port_other_than_the_topology_s_is_refused);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {members_suite};

	return cluster_main(argv, suites, 1);
}

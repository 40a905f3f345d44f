/*
 * UDP over a veth pair between two network namespaces of this process's own.
 * They have no names and end with the test, however it ends.
 */
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#include "ring/check/udp_support.h"

static int here, there; /* namespaces: the sender's, the receiver's */

__attribute__((format(printf, 1, 2))) static void run(const char *fmt, ...)
{
	char command[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	ck_assert_msg(system(command) == 0, "failed: %s", command);
}

static void enter(int ns)
{
	ck_assert_msg(setns(ns, CLONE_NEWNET) == 0, "setns: %s", strerror(errno));
}

/* What ethtool -K does, without the program. */
static void set_feature(const char *device, uint32_t command, uint32_t value)
{
	struct ethtool_value v = {.cmd = command, .data = value};
	struct ifreq ifr = {0};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	strcpy(ifr.ifr_name, device);
	ifr.ifr_data = (void *)&v;
	ck_assert_msg(ioctl(fd, SIOCETHTOOL, &ifr) == 0, "ethtool on %s: %s", device,
		      strerror(errno));
	close(fd);
}

/* A fresh namespace, entered. */
static int new_namespace(void)
{
	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "unshare: %s (the tests need root)",
		      strerror(errno));
	run("ip link set lo up");
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

static void make_link(unsigned mtu)
{
	there = new_namespace();
	here = new_namespace();
	run("ip link add v0 mtu %u type veth peer name v1 mtu %u netns /proc/%d/fd/%d", mtu, mtu,
	    getpid(), there);
	run("ip addr add 10.9.0.1/24 dev v0 && ip link set v0 up");
	enter(there);
	run("ip addr add 10.9.0.2/24 dev v1 && ip link set v1 up");
	enter(here);
}

static struct sockaddr_in at(const char *ip, uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	a.sin_addr.s_addr = inet_addr(ip);
	return a;
}

/* A group of receivers there, one sender here. */

#define GROUP 2

static struct wvm_shard *members[GROUP], *tx_shard;
static struct wvm_udp *group[GROUP], *tx;
static struct proof_log logs[GROUP];
static struct sockaddr_in rx_address;
static uint32_t received, stop_after, done, misplaced;

static void take(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	struct proof_log *log = ctx;
	unsigned self = (unsigned)(log - logs);
	unsigned owner = wvm_udp_owner(group[self], data, len);

	if (owner != self) {
		__atomic_fetch_add(&misplaced, 1, __ATOMIC_RELAXED);
		wvm_udp_forward(group[self], owner, from, data, len);
		return;
	}
	proof_check(log, data, len);
	if (__atomic_add_fetch(&received, 1, __ATOMIC_RELAXED) == stop_after)
		__atomic_store_n(&done, 1, __ATOMIC_RELEASE);
}

static void refuse(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	ck_abort_msg("the sender received something");
}

static void open_all(struct wvm_udp_opts tx_opts)
{
	struct wvm_udp_opts o = {.datagram = take, .steer_offset = STEER_OFFSET};
	void *ctx[GROUP];
	char why[256];

	for (unsigned i = 0; i < GROUP; i++) {
		members[i] = make_shard(&(struct wvm_shard_opts){.index = i, .inbox_slots = 1024});
		ctx[i] = &logs[i];
	}
	o.bind = at("10.9.0.2", 9000);
	enter(there);
	ck_assert_msg(!wvm_udp_open(group, members, ctx, GROUP, &o, why, sizeof(why)), "%s", why);
	enter(here);
	rx_address = o.bind;
	tx_shard = make_shard(NULL);
	tx_opts.bind = at("10.9.0.1", 9000);
	tx_opts.datagram = refuse;
	tx = open_udp(tx_shard, NULL, &tx_opts);
}

/* Datagrams that the kernel says it dropped on the way: full queues of the link and the socket. */
static uint64_t link_drops(const char *device)
{
	FILE *f = fopen("/proc/thread-self/net/dev", "r");
	unsigned long long in, out, sum = 0;
	char line[512], name[32];

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " %31[^:]: %*u %*u %*u %llu %*u %*u %*u %*u %*u %*u %*u %llu",
			   name, &in, &out) == 3 &&
		    !strcmp(name, device))
			sum = in + out;
	fclose(f);
	return sum;
}

static uint64_t socket_drops(void)
{
	FILE *f = fopen("/proc/thread-self/net/snmp", "r");
	unsigned long long errors = 0;
	char line[1024];

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "Udp: %*u %*u %*u %*u %llu", &errors);
	fclose(f);
	return errors;
}

static uint64_t kernel_drops(void)
{
	uint64_t sum = link_drops("v0");

	enter(there);
	sum += link_drops("v1") + socket_drops();
	enter(here);
	return sum;
}

static uint64_t dropped; /* by the kernel, in the present test */

/* Whether all came, or the kernel accounts for what did not. */
static bool all_accounted(unsigned datagrams)
{
	dropped = done ? 0 : kernel_drops();
	if (dropped)
		printf("the kernel dropped %llu of %u datagrams\n", (unsigned long long)dropped,
		       datagrams);
	return done || received + dropped >= datagrams;
}

static void run_all(unsigned datagrams)
{
	stop_after = datagrams;
	for (unsigned i = 0; i < GROUP; i++)
		ck_assert_int_eq(wvm_shard_start(members[i]), 0);
	ck_assert_int_eq(wvm_shard_start(tx_shard), 0);
	wait_for(&done);
	wvm_shard_stop(tx_shard);
	ck_assert_int_eq(wvm_shard_join(tx_shard), 0);
	for (unsigned i = 0; i < GROUP; i++) {
		wvm_shard_stop(members[i]);
		ck_assert_int_eq(wvm_shard_join(members[i]), 0);
	}
	ck_assert_msg(all_accounted(datagrams), "%u of %u arrived, %llu dropped by the kernel",
		      received, datagrams, (unsigned long long)dropped);
}

static void close_all(void)
{
	wvm_udp_close(tx);
	wvm_shard_destroy(tx_shard);
	for (unsigned i = 0; i < GROUP; i++)
		wvm_udp_close(group[i]);
	for (unsigned i = 0; i < GROUP; i++)
		wvm_shard_destroy(members[i]);
}

static uint64_t sum(size_t offset)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < GROUP; i++)
		total += *(uint64_t *)((char *)&members[i]->stats + offset);
	return total;
}
#define SUM(field) sum(offsetof(struct wvm_ring_stats, field))

static void check_exactly_once(unsigned datagrams, uint16_t (*steer)(unsigned))
{
	unsigned missing = 0;

	for (unsigned i = 0; i < GROUP; i++)
		ck_assert_uint_eq(logs[i].torn + logs[i].doubled, 0);
	for (unsigned i = 0; i < datagrams; i++) {
		unsigned seen = logs[steer(i) % GROUP].seen[i];

		missing += !seen;
		if (seen > 1 || missing > dropped)
			ck_abort_msg("datagram %u came %u times", i, seen);
	}
}

/* A window of datagrams under way (the kernel's backlog is shared by all on this CPU); the steer
 * changes in runs or with every datagram. */

static struct {
	struct wvm_hook hook;
	unsigned next, total, window;
	uint16_t (*steer)(unsigned number);
} source;

static uint16_t in_runs(unsigned number)
{
	return (uint16_t)(number / 5);
}

static bool send_some(struct wvm_hook *h, uint64_t now_ns)
{
	uint32_t arrived = __atomic_load_n(&received, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < 100 && source.next < source.total; i++) {
		if (source.next >= arrived + source.window ||
		    send_proof(tx, WVM_LANE_BULK, &rx_address, source.next,
			       source.steer(source.next), 1400))
			break;
		source.next++;
	}
	return source.next < source.total;
}

static void run_source(unsigned total, unsigned window)
{
	source.hook.turn = send_some;
	source.steer = in_runs;
	source.total = total;
	source.window = window;
	wvm_shard_hook(tx_shard, WVM_HOOK_ROLE, &source.hook);
	run_all(total);
	check_exactly_once(total, in_runs);
}

START_TEST(batches_of_one_steer_reach_their_shard_without_detour)
{
	make_link(1500);
	open_all((struct wvm_udp_opts){0});
	run_source(20000, 150);
	ck_assert_uint_gt(tx_shard->stats.tx_gso_batches, 0);
	ck_assert_uint_gt(SUM(rx_gro_batches), 0);
	ck_assert_uint_eq(misplaced, 0);
	close_all();
}
END_TEST

/*
 * The device segments nothing (gso_max_segs 1), so the sender's batches cross as single
 * datagrams and the receiver's GRO merges them anew. veth runs its GRO only with the sender's
 * TSO off.
 */
START_TEST(batches_cut_by_the_device_and_merged_by_gro_arrive_once)
{
	make_link(1500);
	run("ip link set v0 gso_max_segs 1");
	set_feature("v0", ETHTOOL_STSO, 0);
	enter(there);
	set_feature("v1", ETHTOOL_SGRO, 1);
	enter(here);
	open_all((struct wvm_udp_opts){0});
	run_source(20000, 150);
	ck_assert_uint_gt(SUM(rx_gro_batches), 0);
	ck_assert_uint_eq(SUM(rx_foreign), misplaced);
	ck_assert_uint_eq(SUM(rx_foreign), SUM(rx_forwarded_in));
	ck_assert_uint_eq(SUM(rx_foreign_lost), 0);
	close_all();
}
END_TEST

/*
 * The same with trains that mix the steers, as a real link's GRO makes them of many senders'
 * datagrams: the kernel steers by the first of each, the case that loopback never shows.
 */
START_TEST(mixed_trains_through_gro_reach_the_first_shard_and_are_passed_on)
{
	static uint8_t data[40 * 1400];
	uint8_t control[CMSG_SPACE(2)] = {0};
	struct iovec iov = {data, sizeof(data)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	const uint16_t size = 1400;
	int fd;

	make_link(1500);
	run("ip link set v0 gso_max_segs 1");
	set_feature("v0", ETHTOOL_STSO, 0);
	enter(there);
	set_feature("v1", ETHTOOL_SGRO, 1);
	enter(here);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	open_all((struct wvm_udp_opts){0});
	msg.msg_name = &rx_address;
	msg.msg_namelen = sizeof(rx_address);
	c->cmsg_level = SOL_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(2);
	memcpy(CMSG_DATA(c), &size, 2);
	for (unsigned first = 0; first < 400; first += 40) {
		for (unsigned i = 0; i < 40; i++)
			proof_write(data + i * 1400, 1400, first + i, in_runs(first + i));
		ck_assert_int_eq(sendmsg(fd, &msg, 0), sizeof(data));
	}
	run_all(400);
	check_exactly_once(400, in_runs);
	/* All trains begin with steer 0, 8, …: an even one, so shard 0 got them whole. */
	ck_assert_uint_gt(SUM(rx_gro_batches), 0);
	ck_assert_uint_gt(members[0]->stats.rx_foreign, 0);
	ck_assert_uint_eq(SUM(rx_foreign), misplaced);
	ck_assert_uint_eq(SUM(rx_foreign), SUM(rx_forwarded_in));
	close(fd);
	close_all();
}
END_TEST

/*
 * A slow link and a small socket buffer: sends find no room, wait in the kernel, and their
 * buffers must not be reused meanwhile.
 */
START_TEST(a_slow_link_holds_buffers_back_and_tears_nothing)
{
	make_link(1500);
	run("tc qdisc add dev v0 root tbf rate 200mbit burst 64kb limit 4mb");
	open_all((struct wvm_udp_opts){.socket_bytes = 16384, .tx_buffers = 128});
	run_source(10000, UINT16_MAX);
	ck_assert_uint_gt(tx_shard->stats.tx_blocked, 0);
	ck_assert_uint_gt(tx_shard->stats.tx_pool_empty, 0);
	ck_assert_uint_eq(tx_shard->stats.tx_errors, 0);
	close_all();
}
END_TEST

/*
 * The link's queue takes nothing, and the socket wants to hear of it (IP_RECVERR): every send ends
 * with ENOBUFS, until all of these are counted and the queue is a good one again.
 */
#define BUFFERS  64u
#define REFUSED  300u /* several times the buffers */
#define ARRIVING 100u

static struct {
	unsigned refused, sent;
	bool open;
} narrow;

static bool send_into_a_full_queue(struct wvm_hook *h, uint64_t now_ns)
{
	while (narrow.refused < REFUSED &&
	       !send_proof(tx, WVM_LANE_BULK, &rx_address, 1000 + narrow.refused, 0, 1000))
		narrow.refused++;
	if (COUNTER(tx_shard, tx_errors) < REFUSED)
		return true;
	if (!narrow.open)
		run("tc qdisc del dev v0 root");
	narrow.open = true;
	while (narrow.sent < ARRIVING &&
	       !send_proof(tx, WVM_LANE_BULK, &rx_address, narrow.sent, in_runs(narrow.sent), 1000))
		narrow.sent++;
	return narrow.sent < ARRIVING;
}

START_TEST(what_a_full_queue_refuses_is_counted_and_gives_its_buffer_back)
{
	struct wvm_hook hook = {.turn = send_into_a_full_queue};
	const int on = 1;

	make_link(1500);
	enter(there);
	run("ip link set v1 address 02:00:00:00:00:02");
	enter(here);
	run("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev v0");
	run("tc qdisc add dev v0 root pfifo limit 0");
	open_all((struct wvm_udp_opts){.tx_buffers = BUFFERS});
	ck_assert_int_eq(setsockopt(wvm_udp_fd(tx), IPPROTO_IP, IP_RECVERR, &on, sizeof(on)), 0);
	wvm_shard_hook(tx_shard, WVM_HOOK_ROLE, &hook);
	run_all(ARRIVING);
	check_exactly_once(ARRIVING, in_runs);
	ck_assert_uint_eq(received, ARRIVING);
	ck_assert_uint_eq(tx_shard->stats.tx_errors, REFUSED);
	ck_assert_uint_gt(tx_shard->stats.tx_gso_batches, 0);
	ck_assert_uint_eq(tx_shard->stats.tx_refused + tx_shard->stats.tx_blocked, 0);
	ck_assert_uint_eq(tx_shard->stats.tx_gso_fallback, 0);
	ck_assert(wvm_udp_idle(tx));
	ck_assert_uint_eq(wvm_udp_free(tx, WVM_LANE_CONTROL), BUFFERS);
	close_all();
}
END_TEST

/* Too long for the link: dropped and counted, never fragmented; the rest gets through. */

static bool send_long_and_short(struct wvm_hook *h, uint64_t now_ns)
{
	static bool sent;

	if (!sent) {
		ck_assert_int_eq(send_proof(tx, WVM_LANE_CONTROL, &rx_address, 9, 0, 1473), 0);
		for (unsigned i = 0; i < 3; i++)
			ck_assert_int_eq(
				send_proof(tx, WVM_LANE_BULK, &rx_address, 10 + i, 0, 1473), 0);
		ck_assert_int_eq(send_proof(tx, WVM_LANE_BULK, &rx_address, 0, 1, 1472), 0);
		ck_assert_int_eq(send_proof(tx, WVM_LANE_BULK, &rx_address, 1, 1, 1472), 0);
	}
	sent = true;
	return false;
}

START_TEST(what_is_too_long_for_the_link_is_dropped_and_counted)
{
	struct wvm_hook hook = {.turn = send_long_and_short};

	make_link(1500);
	open_all((struct wvm_udp_opts){.datagram_max = 9000});
	wvm_shard_hook(tx_shard, WVM_HOOK_ROLE, &hook);
	run_all(2);
	ck_assert_uint_eq(logs[1].received, 2);
	ck_assert_uint_eq(logs[0].received, 0);
	ck_assert_uint_eq(tx_shard->stats.tx_too_long, 4);
	/* EINVAL or EMSGSIZE for the batch, by kernel version: no reason to give up GSO. */
	ck_assert_uint_le(tx_shard->stats.tx_gso_fallback, 1);
	ck_assert_uint_eq(tx_shard->stats.tx_gso_batches, 2);
	ck_assert_uint_eq(tx_shard->stats.tx_errors, 0);
	close_all();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/udp_veth");
	TCase *c = tcase_create("udp_veth");

	if (geteuid()) {
		printf("ring/udp_veth: skipped, it needs root to make network namespaces\n");
		return EXIT_SUCCESS;
	}
	tcase_set_timeout(c, 60);
	tcase_add_test(c, batches_of_one_steer_reach_their_shard_without_detour);
	tcase_add_test(c, batches_cut_by_the_device_and_merged_by_gro_arrive_once);
	tcase_add_test(c, mixed_trains_through_gro_reach_the_first_shard_and_are_passed_on);
	tcase_add_test(c, a_slow_link_holds_buffers_back_and_tears_nothing);
	tcase_add_test(c, what_a_full_queue_refuses_is_counted_and_gives_its_buffer_back);
	tcase_add_test(c, what_is_too_long_for_the_link_is_dropped_and_counted);
	suite_add_tcase(s, c);
	return run_suite(s);
}

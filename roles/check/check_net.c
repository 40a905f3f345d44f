/* net.sh and wvm_wire with real sockets: what the other system tests stand on. Needs root. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/udp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT    9000
#define SEGMENT 1472 /* what fits a frame of MTU 1500 */
#define BURST   32   /* segments per send */
#define FRAMES  20000u
#define BLOCK   3200u /* sent before the wire is given time to catch up; less than its queue */

static char bin_dir[4096];

/* A running net.sh: it answers with its tag and directory, and ends when its input does. */
struct net {
	pid_t pid;
	int in, out;
	char tag[64], dir[256];
};

static void start_net(struct net *net, const char *hosts, const char *chaos, const char *seed)
{
	int to[2], from[2];
	char line[512];
	ssize_t n = 0;

	ck_assert_int_eq(pipe2(to, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(from, O_CLOEXEC), 0);
	net->pid = fork();
	ck_assert_int_ge(net->pid, 0);
	if (net->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(to[0], 0);
		dup2(from[1], 1);
		setenv("WVM_BIN", bin_dir, 1);
		setenv("SEED", seed, 1);
		unsetenv("CHAOS");
		unsetenv("NET_WIRE");
		if (chaos)
			setenv("CHAOS", chaos, 1);
		execlp("bash", "bash", "-c",
		       ". roles/check/net.sh; net_up $0 || exit 1; echo $NET_TAG $NET_DIR; read -r _",
		       hosts, NULL);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	net->in = to[1];
	net->out = from[0];
	for (ssize_t got; n < (ssize_t)sizeof(line) - 1; n += got) {
		got = read(net->out, line + n, sizeof(line) - 1 - (size_t)n);
		ck_assert_msg(got > 0, "net.sh did not come up");
		if (line[n + got - 1] == '\n') {
			n += got;
			break;
		}
	}
	line[n] = '\0';
	ck_assert_int_eq(sscanf(line, "%63s %255s", net->tag, net->dir), 2);
}

static bool exists(const char *format, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), format, name);
	return access(path, F_OK) == 0;
}

static void stop_net(struct net *net)
{
	char first[128];
	int status;

	close(net->in);
	ck_assert_int_eq(waitpid(net->pid, &status, 0), net->pid);
	close(net->out);
	ck_assert(WIFEXITED(status));
	snprintf(first, sizeof(first), "%s-1", net->tag);
	ck_assert(!exists("/run/netns/%s", first));
	ck_assert(!exists("%s", net->dir));
}

/* A UDP socket in host number `host`, with room for everything a test sends. */
static int open_socket(const struct net *net, unsigned host)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	char path[256];
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), away, fd, room = 128 << 20;

	snprintf(path, sizeof(path), "/run/netns/%s-%u", net->tag, host);
	away = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(away, 0);
	ck_assert_int_eq(setns(away, CLONE_NEWNET), 0);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(setns(home, CLONE_NEWNET), 0);
	close(home);
	close(away);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)), 0);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)), 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

static struct sockaddr_in host_address(unsigned host)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(PORT)};

	sin.sin_addr.s_addr = htonl(0x0a4d0000u + host); /* 10.77.0.host */
	return sin;
}

/* Sends datagrams first .. first + n - 1, each beginning with its number, as one large packet. */
static void send_segments(int fd, unsigned host, uint32_t first, unsigned n)
{
	static unsigned char data[BURST * SEGMENT];
	struct sockaddr_in to = host_address(host);
	int segment = SEGMENT;

	for (unsigned i = 0; i < n; i++) {
		uint32_t number = first + i;

		memcpy(data + i * SEGMENT, &number, sizeof(number));
	}
	ck_assert_int_eq(setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)), 0);
	ck_assert_int_eq(sendto(fd, data, n * SEGMENT, 0, (struct sockaddr *)&to, sizeof(to)),
			 n * SEGMENT);
}

/* Waits up to 10 s for one datagram and returns its number, or -1. Checks its length. */
static int64_t receive(int fd, int wait_ms)
{
	unsigned char data[65536];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint32_t number;
	ssize_t n;

	if (poll(&p, 1, wait_ms) != 1)
		return -1;
	n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
	ck_assert_int_eq(n, SEGMENT);
	memcpy(&number, data, sizeof(number));
	return number;
}

/* Sends a command to the wire; the answer (may be "") replaces *answer. Returns success. */
static bool tell(const struct net *net, const char *command, char *answer, size_t size)
{
	char line[8192];
	FILE *out;
	size_t n;

	snprintf(line, sizeof(line), "exec %s/wvm_wire --tell %s/wire '%s' 2>&1", bin_dir, net->dir,
		 command);
	out = popen(line, "r");
	ck_assert_ptr_nonnull(out);
	n = fread(answer, 1, size - 1, out);
	answer[n] = '\0';
	return pclose(out) == 0;
}

static long long counter(const struct net *net, unsigned port, const char *name)
{
	char answer[16384];
	json_t *root, *entry;
	long long value;

	ck_assert(tell(net, "stats", answer, sizeof(answer)));
	root = json_loads(answer, 0, NULL);
	ck_assert_msg(root != NULL, "not JSON: %s", answer);
	entry = json_array_get(json_object_get(root, "ports"), port - 1);
	ck_assert(json_is_integer(json_object_get(entry, name)));
	value = json_integer_value(json_object_get(entry, name));
	json_decref(root);
	return value;
}

/* Waits (at most a minute: a hang, not a measure) until a counter of the wire gets there. */
static void await(const struct net *net, unsigned port, const char *name, long long value)
{
	const struct timespec pause = {.tv_nsec = 20000000};

	for (unsigned i = 0; i < 3000; i++) {
		if (counter(net, port, name) >= value)
			return;
		nanosleep(&pause, NULL);
	}
	ck_abort_msg("port %u: %s stays below %lld", port, name, value);
}

START_TEST(every_host_reaches_every_other_in_real_segments)
{
	struct net net;
	int fd[4];

	start_net(&net, "3", _i ? "loss 0%" : NULL, "1");
	for (unsigned i = 1; i <= 3; i++)
		fd[i] = open_socket(&net, i);
	for (unsigned src = 1; src <= 3; src++)
		for (unsigned dst = 1; dst <= 3; dst++) {
			if (src == dst)
				continue;
			send_segments(fd[src], dst, 100 * src, BURST);
			for (unsigned i = 0; i < BURST; i++)
				ck_assert_int_eq(receive(fd[dst], 10000), 100 * src + i);
		}
	for (unsigned i = 1; i <= 3; i++)
		close(fd[i]);
	stop_net(&net);
}
END_TEST

/* Packets that host number `host` has sent so far. */
static unsigned long long packets_sent(const struct net *net, unsigned host)
{
	unsigned long long sent = 0;
	char line[512];
	FILE *out;

	snprintf(line, sizeof(line), "ip -n %s-%u -s -o link show dev eth0", net->tag, host);
	out = popen(line, "r");
	ck_assert_ptr_nonnull(out);
	while (fgets(line, sizeof(line), out)) {
		const char *tx = strstr(line, "TX:");

		/* "TX: names... \\    bytes packets ..." */
		if (tx && (tx = strrchr(line, '\\')) != NULL)
			sscanf(tx + 1, "%*u %llu", &sent);
	}
	ck_assert_int_eq(pclose(out), 0);
	return sent;
}

START_TEST(the_bridge_cuts_and_merges_as_network_cards_do)
{
	static unsigned char data[65536];
	unsigned long long before;
	unsigned received = 0, calls = 0;
	struct net net;
	int a, b, on = 1;

	start_net(&net, "2", NULL, "1");
	a = open_socket(&net, 1);
	b = open_socket(&net, 2);
	ck_assert_int_eq(setsockopt(b, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)), 0);
	before = packets_sent(&net, 1);
	for (unsigned i = 0; i < 20; i++)
		send_segments(a, 2, i * BURST, BURST);
	while (received < 20 * BURST) {
		ssize_t n = recv(b, data, sizeof(data), 0);

		ck_assert_int_gt(n, 0);
		ck_assert_int_eq(n % SEGMENT, 0);
		received += (unsigned)(n / SEGMENT);
		calls++;
	}
	ck_assert_uint_ge(packets_sent(&net, 1) - before, 20 * BURST);
	ck_assert_uint_lt(calls, received);
	close(a);
	close(b);
	stop_net(&net);
}
END_TEST

/* How often each of the frames arrived. */
static void impaired_run(const char *seed, unsigned char *count)
{
	struct net net;
	long long due;
	int a, b;

	memset(count, 0, FRAMES);
	start_net(&net, "2", "loss 1% duplicate 1% reorder 5% delay 1ms", seed);
	a = open_socket(&net, 1);
	b = open_socket(&net, 2);
	for (uint32_t i = 0; i < FRAMES; i += BURST) {
		send_segments(a, 2, i, BURST);
		if (i % BLOCK == 0)
			await(&net, 1, "in", i + BURST);
	}
	await(&net, 1, "in", FRAMES);
	due = counter(&net, 1, "in") - counter(&net, 1, "lost") + counter(&net, 1, "duplicated");
	await(&net, 2, "forwarded", due);
	ck_assert_int_eq(counter(&net, 1, "overflow"), 0);
	ck_assert_int_gt(counter(&net, 1, "lost"), 0);
	ck_assert_int_gt(counter(&net, 1, "reordered"), 0);
	for (int64_t number, total = 0, last = -1, back = 0;;) {
		number = receive(b, 500);
		if (number < 0) {
			/* Exactly what the wire says it forwarded, out of order where it says so.
			 */
			ck_assert_int_eq(total + counter(&net, 1, "lost") -
						 counter(&net, 1, "duplicated"),
					 FRAMES);
			ck_assert_int_gt(back, 0);
			break;
		}
		total++;
		back += number < last;
		last = number;
		ck_assert_int_lt(number, FRAMES);
		count[number]++;
	}
	close(a);
	close(b);
	stop_net(&net);
}

START_TEST(the_wire_does_what_it_counts_and_the_same_for_the_same_seed)
{
	static unsigned char first[FRAMES], again[FRAMES], other[FRAMES];

	impaired_run("5", first);
	impaired_run("5", again);
	impaired_run("6", other);
	ck_assert_mem_eq(first, again, FRAMES);
	ck_assert_mem_ne(first, other, FRAMES);
}
END_TEST

START_TEST(a_partition_begins_and_heals_while_the_wire_runs)
{
	char answer[1024];
	struct net net;
	int a, b, c;

	start_net(&net, "3", "loss 0%", "1");
	a = open_socket(&net, 1);
	b = open_socket(&net, 2);
	c = open_socket(&net, 3);
	send_segments(a, 2, 1, 1);
	ck_assert_int_eq(receive(b, 10000), 1);
	ck_assert(tell(&net, "partition 1|2,3", answer, sizeof(answer)));
	send_segments(a, 2, 2, 1);
	send_segments(c, 2, 3, 1);
	ck_assert_int_eq(receive(b, 10000), 3);
	await(&net, 1, "blocked", 1);
	ck_assert(tell(&net, "heal", answer, sizeof(answer)));
	send_segments(a, 2, 4, 1);
	ck_assert_int_eq(receive(b, 10000), 4);
	ck_assert(!tell(&net, "loss 200%", answer, sizeof(answer)));
	ck_assert_ptr_nonnull(strstr(answer, "loss 200%"));
	close(a);
	close(b);
	close(c);
	stop_net(&net);
}
END_TEST

START_TEST(what_a_killed_run_leaves_is_removed_by_the_next)
{
	struct net dead, net;
	char first[128];

	start_net(&dead, "2", _i ? "loss 0%" : NULL, "1");
	kill(dead.pid, SIGKILL);
	waitpid(dead.pid, NULL, 0);
	close(dead.in);
	close(dead.out);
	snprintf(first, sizeof(first), "%s-1", dead.tag);
	ck_assert(exists("/run/netns/%s", first));
	start_net(&net, "2", NULL, "1");
	ck_assert(!exists("/run/netns/%s", first));
	ck_assert(!exists("%s", dead.dir));
	stop_net(&net);
}
END_TEST

START_TEST(an_interrupted_run_cleans_up)
{
	struct net net;
	char first[128];
	int status;

	start_net(&net, "2", "loss 0%", "1");
	kill(net.pid, _i ? SIGTERM : SIGINT);
	ck_assert_int_eq(waitpid(net.pid, &status, 0), net.pid);
	snprintf(first, sizeof(first), "%s-1", net.tag);
	ck_assert(!exists("/run/netns/%s", first));
	ck_assert(!exists("%s", net.dir));
	close(net.in);
	close(net.out);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("net");
	TCase *t = tcase_create("net");

	tcase_set_timeout(t, 180);
	tcase_add_loop_test(t, every_host_reaches_every_other_in_real_segments, 0, 2);
	tcase_add_test(t, the_bridge_cuts_and_merges_as_network_cards_do);
	tcase_add_test(t, the_wire_does_what_it_counts_and_the_same_for_the_same_seed);
	tcase_add_test(t, a_partition_begins_and_heals_while_the_wire_runs);
	tcase_add_loop_test(t, what_a_killed_run_leaves_is_removed_by_the_next, 0, 2);
	tcase_add_loop_test(t, an_interrupted_run_cleans_up, 0, 2);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *sr;
	ssize_t n = readlink("/proc/self/exe", bin_dir, sizeof(bin_dir) - 16);
	int failed;

	if (geteuid() != 0) {
		printf("SKIP check_net: network namespaces need root\n");
		return EXIT_SUCCESS;
	}
	/* build/check/roles/check_net -> build/bin */
	bin_dir[n > 0 ? n : 0] = '\0';
	for (unsigned i = 0; i < 3; i++)
		*strrchr(bin_dir, '/') = '\0';
	strcat(bin_dir, "/bin");
	sr = srunner_create(suite());
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

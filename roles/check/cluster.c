#include "roles/check/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READY_MS 30000u /* a hang, not a measure */
#define END_MS   20000u

/* Below those of the guests' tests (qemu-accel/check), which may run at the same time. */
#define PORT_FIRST 10000u
#define PORT_COUNT 8000u

static char bin_dir[4096], base_dir[64];
static int guard_fd = -1;
static pid_t guard_pid;
static unsigned clusters_made;

void cluster_sleep_ms(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

uint64_t cluster_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

const char *cluster_bin(void)
{
	return bin_dir;
}

const char *cluster_dir(void)
{
	return base_dir;
}

/* ---- the test program ------------------------------------------------------------------ */

/* A shell in a session of its own: its input ends when the last of our processes does. */
static bool start_guardian(void)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return false;
	guard_pid = fork();
	if (!guard_pid) {
		setsid();
		dup2(fds[0], 0);
		execl("/bin/sh", "sh", "-c", "read -r _; rm -rf -- \"$0\"", base_dir, NULL);
		_exit(127);
	}
	close(fds[0]);
	guard_fd = fds[1];
	return guard_pid > 0;
}

static void end_guardian(void)
{
	close(guard_fd);
	waitpid(guard_pid, NULL, 0);
}

static void die_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

TCase *cluster_tcase(Suite *s, const char *name, int timeout_s)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, die_with_parent, NULL);
	tcase_set_timeout(t, timeout_s);
	suite_add_tcase(s, t);
	return t;
}

static void show_logs(void)
{
	static char text[CLUSTER_OUT_BYTES];
	char pattern[128];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/*/log.*", base_dir);
	if (glob(pattern, 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		cluster_read(found.gl_pathv[i], text, sizeof(text));
		fprintf(stderr, "--- %s\n%s", found.gl_pathv[i], text);
	}
	globfree(&found);
}

/* Test programs lie in build/check/FOLDER, a few in build/bin themselves. */
static void find_bin(char *self)
{
	char *dir = dirname(self);
	const char *name = strrchr(dir, '/');

	snprintf(bin_dir, sizeof(bin_dir) - 32, "%s",
		 name && !strcmp(name, "/bin") ? dirname(dir) : dirname(dirname(dir)));
	strcat(bin_dir, "/bin");
}

int cluster_main(char **argv, Suite *(*const make[])(void), unsigned count)
{
	static char self[4096];
	SRunner *runner;
	int failed;

	if (geteuid() != 0) {
		printf("SKIPPED: %s: needs root, for userfaultfd and network namespaces\n",
		       argv[0]);
		return 0;
	}
	if (!realpath("/proc/self/exe", self))
		return 1;
	find_bin(self);
	snprintf(base_dir, sizeof(base_dir), "/dev/shm/wvm-system-%d", (int)getpid());
	if ((mkdir(base_dir, 0755) && errno != EEXIST) || !start_guardian())
		return 1;
	runner = srunner_create(make[0]());
	for (unsigned i = 1; i < count; i++)
		srunner_add_suite(runner, make[i]());
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	if (failed)
		show_logs();
	end_guardian();
	return failed ? 1 : 0;
}

void cluster_read(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	while (fd >= 0 && len + 1 < size && (n = read(fd, out + len, size - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = 0;
	if (fd >= 0)
		close(fd);
}

/* ---- libraries to preload -------------------------------------------------------------- */

void cluster_preload(char *path, size_t size, const char *name)
{
	static struct cluster_result r;
	const char *cc = getenv("CC");
	char source[96];

	snprintf(path, size, "%s/%s.so", base_dir, name);
	snprintf(source, sizeof(source), "roles/check/preload/%s.c", name);
	cluster_run(&r,
		    (const char *const[]){"/usr/bin/env", cc && *cc ? cc : "cc", "-shared", "-fPIC",
					  "-O2", "-D_GNU_SOURCE", "-o", path, source, NULL},
		    NULL, NULL);
	ck_assert_msg(r.status == 0, "%s", r.err);
}

/* ---- networks -------------------------------------------------------------------------- */

static bool port_is_free(const char *ip, uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool is;

	inet_pton(AF_INET, ip, &sin.sin_addr);
	is = !bind(fd, (struct sockaddr *)&sin, sizeof(sin));
	close(fd);
	return is;
}

/*
 * A UDP port that is free on this address now, and stays so: below the range
 * that the kernel deals from (ip_local_port_range), each one once.
 */
uint16_t cluster_free_port(const char *ip)
{
	static unsigned next;
	struct sockaddr_in sin = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, ip, &sin.sin_addr);
	if (!next)
		next = (unsigned)getpid() * 61;
	do
		sin.sin_port = htons((uint16_t)(PORT_FIRST + next++ % PORT_COUNT));
	while (bind(fd, (struct sockaddr *)&sin, sizeof(sin)));
	close(fd);
	return ntohs(sin.sin_port);
}

/* net.sh in a session of its own, so that it can clean up when we are killed. */
static void start_net(struct cluster *c)
{
	int to[2], from[2];
	char line[256], count[8];
	FILE *in;

	ck_assert_int_eq(pipe2(to, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(from, O_CLOEXEC), 0);
	snprintf(count, sizeof(count), "%u", c->nodes);
	c->net_pid = fork();
	ck_assert_int_ge(c->net_pid, 0);
	if (!c->net_pid) {
		setsid();
		dup2(to[0], 0);
		dup2(from[1], 1);
		setenv("WVM_BIN", bin_dir, 1);
		unsetenv("CHAOS");
		unsetenv("NET_WIRE");
		if (c->opts.net == CLUSTER_WIRE) {
			setenv("NET_WIRE", "1", 1);
			setenv("CHAOS", c->opts.chaos ? c->opts.chaos : "", 1);
		}
		execlp("bash", "bash", "-c",
		       ". roles/check/net.sh; net_up $0 || exit 1; echo $NET_TAG $NET_DIR; read -r _",
		       count, NULL);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	c->net_in = to[1];
	in = fdopen(from[0], "r");
	ck_assert_msg(fgets(line, sizeof(line), in) != NULL, "net.sh did not come up");
	ck_assert_int_eq(sscanf(line, "%63s %95s", c->net_tag, c->net_dir), 2);
	fclose(in);
}

static void stop_net(struct cluster *c)
{
	int status;

	if (c->net_pid <= 0)
		return;
	close(c->net_in);
	ck_assert_int_eq(waitpid(c->net_pid, &status, 0), c->net_pid);
	c->net_pid = 0;
}

void cluster_enter_net(const char *path)
{
	int fd;

	if (!path || !*path)
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		_exit(126);
	}
	close(fd);
}

/* ---- masters --------------------------------------------------------------------------- */

static void name_node(struct cluster *c, unsigned i)
{
	struct cluster_node *n = &c->node[i];

	snprintf(n->ring, sizeof(n->ring), "%s/ring.%u", c->dir, i);
	snprintf(n->shm, sizeof(n->shm), "%s/shm.%u", c->dir, i);
	snprintf(n->state, sizeof(n->state), "%s/state.%u", c->dir, i);
	snprintf(n->log, sizeof(n->log), "%s/log.%u", c->dir, i);
	if (c->opts.net == CLUSTER_LOOPBACK) {
		snprintf(n->ip, sizeof(n->ip), "127.0.77.%u", i + 1);
		n->port = cluster_free_port(n->ip);
		do
			n->ctrl_port = cluster_free_port("127.0.0.1"); /* for wvm_ctl */
		while (!port_is_free(n->ip, n->ctrl_port));            /* and for other nodes */
		n->slave_port = cluster_free_port("127.0.0.1");
	} else {
		snprintf(n->ip, sizeof(n->ip), "10.77.0.%u", i + 1);
		snprintf(n->netns, sizeof(n->netns), "/run/netns/%s-%u", c->net_tag, i + 1);
		n->port = 9000;
		n->ctrl_port = 9001;
		n->slave_port = 9005;
	}
}

void cluster_prepare(struct cluster *c, const struct cluster_opts *opts)
{
	FILE *f;

	memset(c, 0, sizeof(*c));
	if (opts)
		c->opts = *opts;
	c->nodes = c->opts.nodes ? c->opts.nodes : 3;
	ck_assert_uint_le(c->nodes, CLUSTER_NODES_MAX);
	snprintf(c->dir, sizeof(c->dir), "%s/%d.%u", base_dir, (int)getpid(), clusters_made++);
	ck_assert_int_eq(mkdir(c->dir, 0755), 0);
	snprintf(c->topology, sizeof(c->topology), "%s/topology", c->dir);
	if (c->opts.net != CLUSTER_LOOPBACK)
		start_net(c);
	f = fopen(c->topology, "we");
	ck_assert_ptr_nonnull(f);
	for (unsigned i = 0; i < c->nodes; i++) {
		unsigned cores = !(c->opts.memory_only >> i & 1);

		name_node(c, i);
		if (c->opts.sidecars)
			fprintf(f, "NODE %u 127.0.0.1 8000 %u 4\n", i, cores);
		else
			fprintf(f, "NODE %u %s %u %u 4 %u\n", i, c->node[i].ip, c->node[i].port,
				cores, c->node[i].ctrl_port);
	}
	fputs(c->opts.place ? c->opts.place : "", f);
	ck_assert_int_eq(fclose(f), 0);
}

void cluster_node_args(const struct cluster *c, unsigned i, const char *const more[],
		       const char *args[])
{
	static char master[4128], port[8], ctrl[8], slave[8], id[8];
	const struct cluster_node *n = &c->node[i];
	unsigned count = 0;

	snprintf(master, sizeof(master), "%s/%s", bin_dir,
		 c->opts.master ? c->opts.master : "wavevm_node_master");
	snprintf(port, sizeof(port), "%u", n->port);
	snprintf(ctrl, sizeof(ctrl), "%u", n->ctrl_port);
	snprintf(slave, sizeof(slave), "%u", n->slave_port);
	snprintf(id, sizeof(id), "%u", i);
	const char *const fixed[] = {master,
				     c->opts.ram_mb && !i ? c->opts.ram_mb : "4096",
				     port,
				     c->topology,
				     id,
				     ctrl,
				     slave,
				     "--vm",
				     c->opts.vm ? c->opts.vm : "1:3G",
				     "--ring-path",
				     n->ring,
				     "--shm-file",
				     n->shm,
				     "--state-dir",
				     n->state};

	for (; count < sizeof(fixed) / sizeof(fixed[0]); count++)
		args[count] = fixed[count];
	if (!c->opts.shards || *c->opts.shards) {
		args[count++] = "--shards";
		args[count++] = c->opts.shards ? c->opts.shards : "1";
	}
	for (; more && *more; more++)
		args[count++] = *more;
	ck_assert_uint_lt(count, CLUSTER_ARGS_MAX);
	args[count] = NULL;
}

void cluster_node_start(struct cluster *c, unsigned i, const char *const more[])
{
	struct cluster_node *n = &c->node[i];
	const char *args[CLUSTER_ARGS_MAX];

	cluster_node_args(c, i, more, args);
	ck_assert_int_eq(n->pid, 0);
	fflush(NULL);
	unlink(n->log);
	n->pid = fork();
	ck_assert_int_ge(n->pid, 0);
	if (!n->pid) {
		int log = open(n->log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);

		die_with_parent();
		/* A session is a unit of the scheduler (sched_autogroup): a daemon's share of the
		   processor is not to be that of programs that spin. */
		setsid();
		dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
		dup2(log, 1);
		dup2(log, 2);
		cluster_enter_net(n->netns);
		if (c->opts.preload) {
			setenv("LD_PRELOAD", c->opts.preload, 1);
			/* A sanitizer wants to come first. */
			setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
		}
		execv(args[0], (char *const *)args);
		fprintf(stderr, "%s: %s\n", args[0], strerror(errno));
		_exit(127);
	}
}

void cluster_node_await(const struct cluster *c, unsigned i)
{
	static char text[CLUSTER_OUT_BYTES];
	uint64_t end = cluster_now_ms() + READY_MS;
	siginfo_t info = {0};

	do {
		cluster_read(c->node[i].log, text, sizeof(text));
		if (strstr(text, ": ready"))
			return;
		if (!waitid(P_PID, (id_t)c->node[i].pid, &info, WEXITED | WNOHANG | WNOWAIT) &&
		    info.si_pid)
			break;
		cluster_sleep_ms(10);
	} while (cluster_now_ms() < end);
	ck_abort_msg("node %u did not become ready: %s", i, text);
}

void cluster_start(struct cluster *c, const struct cluster_opts *opts)
{
	cluster_prepare(c, opts);
	for (unsigned i = 0; i < c->nodes; i++)
		cluster_node_start(c, i, NULL);
	for (unsigned i = 0; i < c->nodes; i++)
		cluster_node_await(c, i);
}

/* The status of a child that is to end by itself, or -1 when it had to be killed. */
static int await_end(pid_t pid)
{
	uint64_t end = cluster_now_ms() + END_MS;
	int status;

	do {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		cluster_sleep_ms(5);
	} while (cluster_now_ms() < end);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

int cluster_node_end(struct cluster *c, unsigned i, int signal)
{
	struct cluster_node *n = &c->node[i];
	int status;

	ck_assert_int_gt(n->pid, 0);
	if (signal)
		ck_assert_int_eq(kill(n->pid, signal), 0);
	status = await_end(n->pid);
	n->pid = 0;
	return status;
}

void cluster_stop(struct cluster *c)
{
	for (unsigned i = 0; i < c->nodes; i++)
		if (c->node[i].pid)
			kill(c->node[i].pid, SIGTERM);
	for (unsigned i = 0; i < c->nodes; i++) {
		if (!c->node[i].pid)
			continue;
		ck_assert_msg(cluster_node_end(c, i, 0) == 0, "node %u did not end cleanly", i);
	}
	stop_net(c);
}

void cluster_kill(struct cluster *c)
{
	for (unsigned i = 0; i < c->nodes; i++)
		if (c->node[i].pid)
			cluster_node_end(c, i, SIGKILL);
	stop_net(c);
}

unsigned cluster_node_files(const struct cluster *c, unsigned i)
{
	char pattern[192];
	unsigned count = !access(c->node[i].ring, F_OK);
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s.*", c->node[i].shm);
	if (!glob(pattern, GLOB_NOSORT, NULL, &found)) {
		count += (unsigned)found.gl_pathc;
		globfree(&found);
	}
	return count;
}

/* ---- programs that are run to their end ------------------------------------------------ */

static bool collect(int fd, char *out, size_t *len)
{
	ssize_t n = read(fd, out + *len, CLUSTER_OUT_BYTES - 1 - *len);

	if (n <= 0)
		return false;
	*len += (size_t)n;
	out[*len] = 0;
	return true;
}

void cluster_run(struct cluster_result *r, const char *const args[], const char *netns,
		 void (*before)(void))
{
	uint64_t end = cluster_now_ms() + END_MS;
	size_t out_len = 0, err_len = 0;
	int out[2], err[2];
	pid_t pid;

	r->out[0] = r->err[0] = 0;
	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(err, O_CLOEXEC), 0);
	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		die_with_parent();
		dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		cluster_enter_net(netns);
		if (before)
			before();
		execv(args[0], (char *const *)args);
		_exit(127);
	}
	close(out[1]);
	close(err[1]);
	struct pollfd p[2] = {{.fd = out[0], .events = POLLIN}, {.fd = err[0], .events = POLLIN}};

	while ((p[0].fd >= 0 || p[1].fd >= 0) && cluster_now_ms() < end) {
		poll(p, 2, 100);
		if (p[0].revents && !collect(out[0], r->out, &out_len))
			p[0].fd = -1;
		if (p[1].revents && !collect(err[0], r->err, &err_len))
			p[1].fd = -1;
	}
	r->status = await_end(pid);
	close(out[0]);
	close(err[0]);
}

void cluster_ctl(const struct cluster *c, unsigned i, struct cluster_result *r,
		 const char *const args[])
{
	char tool[4128], port[8];
	const char *all[16] = {tool, "--port", port};
	unsigned count = 3;

	snprintf(tool, sizeof(tool), "%s/wvm_ctl", bin_dir);
	snprintf(port, sizeof(port), "%u", c->node[i].ctrl_port);
	while (*args && count < 15)
		all[count++] = *args++;
	all[count] = NULL;
	cluster_run(r, all, c->node[i].netns, NULL);
}

/* wvm_ctl gives up after seconds, which is short for a master on a machine that is busy with tests.
 */
#define JSON_TRIES 3u

json_t *cluster_json(const struct cluster *c, unsigned i, const char *command)
{
	static struct cluster_result r;
	json_error_t why;
	json_t *o;

	for (unsigned tries = 0; tries < JSON_TRIES; tries++) {
		cluster_ctl(c, i, &r, (const char *const[]){"--json", command, NULL});
		if (!r.status || !strstr(r.err, strerror(ETIMEDOUT)))
			break;
	}
	ck_assert_msg(r.status == 0, "wvm_ctl %s on node %u: %s", command, i, r.err);
	o = json_loads(r.out, 0, &why);
	ck_assert_msg(o != NULL, "wvm_ctl %s: %s: %s", command, why.text, r.out);
	return o;
}

static uint64_t integer(const json_t *o, const char *name)
{
	const json_t *value = json_object_get(o, name);

	ck_assert_msg(json_is_integer(value), "no figure '%s'", name);
	return (uint64_t)json_integer_value(value);
}

uint64_t cluster_stat(const struct cluster *c, unsigned i, const char *section, const char *name)
{
	json_t *o = cluster_json(c, i, "stats");
	uint64_t value = integer(json_object_get(o, section), name);

	json_decref(o);
	return value;
}

uint64_t cluster_status(const struct cluster *c, unsigned i, const char *name)
{
	json_t *o = cluster_json(c, i, "status");
	uint64_t value = integer(o, name);

	json_decref(o);
	return value;
}

/* How a master starts, refuses, ends and answers its operator. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/harm.h"

#define GPA MIB

static struct cluster cluster;
static const struct cluster_opts alone = {.nodes = 1, .vm = "1:64M"};
static const char *const fresh[] = {"--fresh", NULL};

/* ---- refusals -------------------------------------------------------------------------- */

/* Lines of a start that are no errors. */
static bool tells(const char *line)
{
	return (strstr(line, "_master: shard ") && strstr(line, ", NUMA node ")) ||
	       strstr(line, "_master: io_uring and") ||
	       (strstr(line, " cores are asked for, ") && strstr(line, ": shards share them"));
}

/* Exit status 1, nothing on stdout, and one line of error with `text` in it. */
static void expect_refusal(struct cluster_result *r, const char *text)
{
	char copy[CLUSTER_OUT_BYTES], *rest = copy, *line;
	unsigned errors = 0;

	memcpy(copy, r->err, sizeof(copy));
	ck_assert_msg(WIFEXITED(r->status) && WEXITSTATUS(r->status) == 1, "status %x: %s",
		      r->status, r->err);
	ck_assert_str_eq(r->out, "");
	while ((line = strsep(&rest, "\n")) && *line)
		if (!tells(line)) {
			errors++;
			ck_assert_msg(strncmp(line, "wavevm_node_master: ", 20) == 0, "%s", line);
			ck_assert_msg(strstr(line, text) != NULL, "'%s' is not in: %s", text, line);
		}
	ck_assert_msg(errors == 1, "%u lines of error: %s", errors, r->err);
	ck_assert_msg(!rest || !*rest, "an empty line: %s", r->err);
}

/* Runs master i with further arguments; it is to refuse. */
static void refused(unsigned i, const char *const more[], void (*before)(void), const char *text)
{
	static struct cluster_result r;
	const char *args[CLUSTER_ARGS_MAX];

	cluster_node_args(&cluster, i, more, args);
	cluster_run(&r, args, NULL, before);
	expect_refusal(&r, text);
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

START_TEST(a_bad_topology_is_one_line_that_names_file_and_line)
{
	static const struct {
		const char *topology, *text;
	} cases[] = {
		{"NODE 0 127.0.77.1 9000 1\n", "topology:1"},
		{"# nodes\nNODE 0 127.0.77.300 9000 1 4\n", "topology:2"},
		{"NODE 0 127.0.77.1 9000 1 4\nNODE 0 127.0.77.2 9000 1 4\n", "topology:2"},
		{"NODE 0 127.0.77.1 9000 1 lots\n", "topology:1"},
		{"NODES\n", "topology:1"},
		{"NODE 0 127.0.0.1 8000 1 4\nNODE 1 127.0.77.2 9000 1 4\n", "(line 2)"},
		{"", "topology"},
	};

	cluster_prepare(&cluster, &alone);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		write_file(cluster.topology, cases[i].topology);
		refused(0, NULL, NULL, cases[i].text);
	}
	unlink(cluster.topology);
	refused(0, NULL, NULL, "topology: No such file");
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
}
END_TEST

START_TEST(a_node_that_is_not_in_the_topology_or_has_another_port_there_is_refused)
{
	char text[64];

	cluster_prepare(&cluster, &(struct cluster_opts){.nodes = 2});
	write_file(cluster.topology, "NODE 0 127.0.77.1 9999 1 4\n");
	snprintf(text, sizeof(text), "has port 9999, but the command line says %u",
		 cluster.node[0].port);
	refused(0, NULL, NULL, text);
	refused(1, NULL, NULL, "no NODE line has phys_id 1");
	ck_assert_uint_eq(cluster_node_files(&cluster, 0) + cluster_node_files(&cluster, 1), 0);
}
END_TEST

START_TEST(a_command_line_that_makes_no_sense_is_refused)
{
	static const struct {
		const char *more[3], *text;
	} cases[] = {
		{{"--shards", "0"}, "--shards '0'"},
		{{"--shards", "17"}, "--shards '17'"},
		{{"--shards", "two"}, "--shards 'two'"},
		{{"--cores", "0"}, "--cores '0'"},
		{{"--cores", "autos"}, "--cores 'autos'"},
		{{"--mtu", "500"}, "--mtu '500'"},
		{{"--read-ahead", "65"}, "--read-ahead '65'"},
		{{"--read-ahead", "-1"}, "--read-ahead '-1'"},
		{{"--vm", "1:1G"}, "--vm 1 is given twice"},
		{{"--vm", "2:3"}, "multiple of 2M"},
		{{"--vm", "2"}, "not ID:SIZE"},
		{{"--vm", "70000:1G"}, "70000"},
		{{"--cpus", "9999"}, "9999"},
	};

	cluster_prepare(&cluster, &alone);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refused(0, cases[i].more, NULL, cases[i].text);
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
}
END_TEST

static int take_port(const char *ip, uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, ip, &sin.sin_addr);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

START_TEST(a_port_that_another_program_has_is_refused_by_name)
{
	char text[64];
	int fd;

	cluster_prepare(&cluster, &alone);
	fd = take_port(cluster.node[0].ip, cluster.node[0].port);
	snprintf(text, sizeof(text), "%s:%u", cluster.node[0].ip, cluster.node[0].port);
	refused(0, NULL, NULL, text);
	close(fd);
	fd = take_port("127.0.0.1", cluster.node[0].ctrl_port);
	snprintf(text, sizeof(text), "127.0.0.1:%u", cluster.node[0].ctrl_port);
	refused(0, NULL, NULL, text);
	close(fd);
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
}
END_TEST

START_TEST(files_that_cannot_be_what_they_should_are_refused_and_left_alone)
{
	char path[256], boot[256], out[64];
	struct stat st;
	int fd;

	cluster_prepare(&cluster, &alone);
	refused(0, (const char *const[]){"--shm-file", "/var/tmp/wvm-system", NULL}, NULL,
		"not on a tmpfs");
	ck_assert_int_ne(access("/var/tmp/wvm-system.state", F_OK), 0);
	snprintf(path, sizeof(path), "%s.1", cluster.node[0].shm);
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(ftruncate(fd, 32 * MIB), 0);
	close(fd);
	refused(0, NULL, NULL, "has 33554432 bytes but the VM has 67108864");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, 32 * MIB);
	unlink(path);
	write_file(cluster.node[0].ring, "a file of somebody else");
	refused(0, NULL, NULL, cluster.node[0].ring);
	cluster_read(cluster.node[0].ring, out, sizeof(out));
	ck_assert_str_eq(out, "a file of somebody else");
	unlink(cluster.node[0].ring);
	refused(0, (const char *const[]){"--ring-path", "/nowhere/ring", NULL}, NULL,
		"/nowhere/ring");
	refused(0, (const char *const[]){"--state-dir", "/proc/wavevm", NULL}, NULL, "--state-dir");
	snprintf(boot, sizeof(boot), "%s/boot.0", cluster.node[0].state);
	write_file(boot, "many\n");
	refused(0, NULL, NULL, "boot.0");
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
}
END_TEST

static void become_nobody(void)
{
	if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
		_exit(125);
}

static void become_nobody_without_locked_memory(void)
{
	struct rlimit none = {0, 0};

	if (setrlimit(RLIMIT_MEMLOCK, &none))
		_exit(125);
	become_nobody();
}

START_TEST(a_user_without_userfaultfd_or_locked_memory_is_told_what_to_do)
{
	cluster_prepare(&cluster, &alone);
	ck_assert_int_eq(chmod(cluster.dir, 0777), 0);
	refused(0, NULL, become_nobody, "vm.unprivileged_userfaultfd");
	refused(0, NULL, become_nobody_without_locked_memory, "LimitMEMLOCK");
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
}
END_TEST

static void attach_as_nobody(struct program *p)
{
	const char *ring = p->cluster->node[0].ring;
	struct wvm *w;

	wvm_detach(p->wvm);
	NEED(p, !chmod(ring, 0666), "chmod");
	become_nobody();
	NEED(p, wvm_attach(&w, ring) == -EPERM, "%s", wvm_attach_error());
	NEED(p, strstr(wvm_attach_error(), "vm.unprivileged_userfaultfd"), "%s",
	     wvm_attach_error());
	_exit(0);
}

START_TEST(a_program_without_userfaultfd_is_told_what_to_do)
{
	struct arena *a = arena_new(0);

	cluster_start(&cluster, &alone);
	programs_run(&cluster, a, (const unsigned[]){0}, 1, attach_as_nobody, NULL);
	cluster_stop(&cluster);
}
END_TEST

/* ---- two masters ----------------------------------------------------------------------- */

static void use_and_tell(struct program *p)
{
	uint64_t *base = program_map(p, GPA, 8 * PAGE), round = 0;

	for (;; round++) {
		for (unsigned i = 0; i < 8; i++) {
			NEED(p, load(base + i * PAGE_WORDS) == round, "%lu in round %lu",
			     load(base + i * PAGE_WORDS), round);
			store(base + i * PAGE_WORDS, round + 1);
		}
		atomic_store(&p->arena->word[0], round);
		if (atomic_load(&p->arena->word[1]))
			return;
		wvm_detach(p->wvm);
		NEED(p, !wvm_attach(&p->wvm, p->cluster->node[p->node].ring), "%s",
		     wvm_attach_error());
		base = program_map(p, GPA, 8 * PAGE);
	}
}

/* A second master that shares one thing with the first is refused, whatever it says. */
START_TEST(a_second_master_is_refused_and_the_first_is_unharmed)
{
	struct arena *a = arena_new(0);
	struct program user = {.cluster = &cluster, .arena = a, .count = 1};
	char port[8], text[64];
	unsigned files;

	cluster_start(&cluster, NULL);
	program_start(&user, use_and_tell);
	files = cluster_node_files(&cluster, 0);
	cluster_node_end(&cluster, 2, SIGTERM); /* its address and port are free */
	const char *ring[] = {"--ring-path", cluster.node[0].ring, NULL, NULL};
	const char *shm[] = {"--shm-file", cluster.node[0].shm, NULL, NULL};

	for (unsigned i = 0; i < 2; i++) {
		refused(2, ring, NULL, cluster.node[0].ring);
		refused(2, shm, NULL, cluster.node[0].shm);
		ring[2] = shm[2] = "--fresh";
	}
	snprintf(text, sizeof(text), "%s:%u", cluster.node[0].ip, cluster.node[0].port);
	refused(0, fresh, NULL, text);
	snprintf(port, sizeof(port), "%u", cluster.node[2].ctrl_port);
	cluster.node[2].ctrl_port = cluster.node[0].ctrl_port;
	refused(2, NULL, NULL, "127.0.0.1:");
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), files);
	ck_assert_uint_eq(cluster_node_files(&cluster, 2), 0);
	a->word[1] = 1;
	programs_await((struct program *const[]){&user}, 1);
	cluster_stop(&cluster);
}
END_TEST

/* ---- ends ------------------------------------------------------------------------------ */

static void use_some(struct program *p)
{
	uint64_t *base = program_map(p, GPA, 64 * PAGE);

	for (unsigned i = 0; i < 64; i++)
		store(base + i * PAGE_WORDS, i + 1);
}

START_TEST(sigterm_and_sigint_end_it_cleanly_and_remove_its_files)
{
	static const int signals[] = {SIGTERM, SIGINT};
	struct arena *a = arena_new(0);

	for (unsigned k = 0; k < 2; k++) {
		cluster_start(&cluster, &alone);
		ck_assert_uint_ge(cluster_node_files(&cluster, 0), 6);
		programs_run(&cluster, a, (const unsigned[]){0, 0}, 2, use_some, NULL);
		ck_assert_int_eq(cluster_node_end(&cluster, 0, signals[k]), 0);
		ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
	}
}
END_TEST

static void wait_for_master_end(struct program *p)
{
	use_some(p);
	atomic_store(&p->arena->word[0], 1);
	program_await_word(p, 1, 1);
	for (unsigned i = 0; wvm_stats(p->wvm, &(struct wvm_stats){0}) != -ECONNREFUSED; i++)
		usleep(1000);
	NEED(p, wvm_where(p->wvm, CLUSTER_VM, 0) == -ECONNREFUSED, "where");
	NEED(p, !wvm_map(p->wvm, CLUSTER_VM, 0, PAGE, 0) && errno == ECONNREFUSED, "map");
}

START_TEST(a_master_that_ends_under_a_program_leaves_nothing_and_the_program_is_told)
{
	struct arena *a = arena_new(0);
	struct program user = {.cluster = &cluster, .arena = a, .count = 1};

	cluster_start(&cluster, &alone);
	program_start(&user, wait_for_master_end);
	while (!a->word[0] && !a->failed)
		cluster_sleep_ms(1);
	ck_assert_int_eq(cluster_node_end(&cluster, 0, SIGTERM), 0);
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
	a->word[1] = 1;
	programs_await((struct program *const[]){&user}, 1);
}
END_TEST

START_TEST(a_master_that_waits_for_the_others_ends_cleanly_too)
{
	cluster_prepare(&cluster, NULL);
	cluster_node_start(&cluster, 0, NULL);
	for (unsigned i = 0; i < 3000 && access(cluster.node[0].ring, F_OK); i++)
		cluster_sleep_ms(10);
	cluster_sleep_ms(50);
	ck_assert_int_eq(cluster_node_end(&cluster, 0, SIGTERM), 0);
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), 0);
}
END_TEST

static void expect_all_zero(struct program *p)
{
	uint64_t *base = program_map(p, GPA, 64 * PAGE);

	for (unsigned i = 0; i < 64; i++)
		NEED(p, !load(base + i * PAGE_WORDS), "page %u: %lu", i,
		     load(base + i * PAGE_WORDS));
}

static void expect_some(struct program *p)
{
	uint64_t *base = program_map(p, GPA, 64 * PAGE);

	for (unsigned i = 0; i < 64; i++)
		NEED(p, load(base + i * PAGE_WORDS) == i + 1, "page %u: %lu", i,
		     load(base + i * PAGE_WORDS));
}

static void start_three(const char *const more[])
{
	for (unsigned i = 0; i < 3; i++)
		cluster_node_start(&cluster, i, more);
	for (unsigned i = 0; i < 3; i++)
		cluster_node_await(&cluster, i);
}

START_TEST(what_a_killed_cluster_left_is_taken_over_also_when_its_programs_are_gone)
{
	struct arena *a = arena_new(0);

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, use_some, NULL);
	cluster_kill(&cluster);
	start_three(NULL);
	programs_run(&cluster, a, (const unsigned[]){2, 0, 1}, 3, expect_some, NULL);
	cluster_stop(&cluster);
}
END_TEST

/* A start that is refused says in what it differs, and leaves all as it is. */
START_TEST(what_a_killed_master_left_is_refused_to_one_of_another_shape)
{
	static const char *const two_shards[] = {"--shards", "2", NULL};
	static const char *const another_vm[] = {"--vm", "2:1G", NULL};
	struct arena *a = arena_new(0);
	unsigned files;

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, use_some, NULL);
	cluster_node_end(&cluster, 0, SIGKILL);
	files = cluster_node_files(&cluster, 0);
	refused(0, two_shards, NULL, "--shards");
	refused(0, another_vm, NULL, "--vm");
	ck_assert_uint_eq(cluster_node_files(&cluster, 0), files);
	cluster_node_start(&cluster, 0, NULL);
	cluster_node_await(&cluster, 0);
	programs_run(&cluster, a, (const unsigned[]){2, 0, 1}, 3, expect_some, NULL);
	cluster_stop(&cluster);
}
END_TEST

START_TEST(what_a_killed_cluster_left_is_discarded_by_fresh)
{
	struct arena *a = arena_new(0);

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, use_some, NULL);
	cluster_kill(&cluster);
	start_three(fresh);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, 3, expect_all_zero, NULL);
	cluster_stop(&cluster);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(cluster_node_files(&cluster, i), 0);
}
END_TEST

/* ---- what the operator sees ------------------------------------------------------------ */

START_TEST(help_and_version_are_on_stdout_with_status_0)
{
	static const char *const programs[] = {"wavevm_node_master", "wvm_ctl"};
	static const char *const options[] = {"--help", "--version", "--usage"};
	static struct cluster_result r;
	char path[4200];

	for (unsigned i = 0; i < 2; i++)
		for (unsigned k = 0; k < 3; k++) {
			snprintf(path, sizeof(path), "%s/%s", cluster_bin(), programs[i]);
			cluster_run(&r, (const char *const[]){path, options[k], NULL}, NULL, NULL);
			ck_assert_int_eq(r.status, 0);
			ck_assert_str_eq(r.err, "");
			ck_assert_ptr_nonnull(strstr(r.out, programs[i]));
		}
	cluster_run(&r, (const char *const[]){path, "--nonsense", NULL}, NULL, NULL);
	ck_assert_int_eq(WEXITSTATUS(r.status), 1);
}
END_TEST

static int notify_socket(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

static void expect_notification(int fd, const char *text)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char got[256] = "";

	ck_assert_int_eq(poll(&p, 1, 10000), 1);
	ck_assert_int_gt(recv(fd, got, sizeof(got) - 1, 0), 0);
	ck_assert_ptr_nonnull(strstr(got, text));
}

START_TEST(systemd_is_told_when_it_serves_and_when_it_stops)
{
	struct pollfd early;
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/notify", cluster_dir());
	fd = notify_socket(path);
	setenv("NOTIFY_SOCKET", path, 1);
	cluster_prepare(&cluster, &(struct cluster_opts){.nodes = 2});
	cluster_node_start(&cluster, 0, NULL);
	early = (struct pollfd){.fd = fd, .events = POLLIN};
	ck_assert_int_eq(poll(&early, 1, 300), 0); /* not before the other one is there */
	unsetenv("NOTIFY_SOCKET");
	cluster_node_start(&cluster, 1, NULL);
	expect_notification(fd, "READY=1");
	cluster_node_await(&cluster, 0);
	ck_assert_int_eq(cluster_node_end(&cluster, 0, SIGTERM), 0);
	expect_notification(fd, "STOPPING=1");
	cluster_stop(&cluster);
	unlink(path);
}
END_TEST

static const char *text_of(const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	ck_assert_msg(text != NULL, "no text '%s'", name);
	return text;
}

static uint64_t number_of(const json_t *o, const char *name)
{
	ck_assert_msg(json_is_integer(json_object_get(o, name)), "no number '%s'", name);
	return (uint64_t)json_integer_value(json_object_get(o, name));
}

static void ctl_text(const char *const args[], const char *const needles[])
{
	static struct cluster_result r;

	cluster_ctl(&cluster, 1, &r, args);
	ck_assert_msg(r.status == 0, "%s", r.err);
	ck_assert_str_eq(r.err, "");
	for (; *needles; needles++)
		ck_assert_msg(strstr(r.out, *needles) != NULL, "'%s' is not in: %s", *needles,
			      r.out);
}

START_TEST(status_says_who_the_node_is_and_what_it_holds)
{
	struct arena *a = arena_new(0);
	json_t *o, *members, *vm;

	cluster_start(&cluster, NULL);
	harm_touch_units(&cluster, a, 0, HARM_ANY);
	programs_run(&cluster, a, (const unsigned[]){1}, 1, use_some, NULL);
	o = cluster_json(&cluster, 1, "status");
	ck_assert_uint_eq(number_of(o, "node"), 1);
	ck_assert_str_eq(text_of(o, "state"), "serving");
	ck_assert_str_eq(text_of(o, "ring"), cluster.node[1].ring);
	ck_assert_uint_eq(number_of(o, "protocol"), 31);
	ck_assert_uint_eq(number_of(o, "mtu"), 1472);
	ck_assert_uint_eq(number_of(o, "boot"), 1);
	ck_assert_uint_eq(number_of(o, "pages_modified"), 64);
	ck_assert_uint_eq(number_of(o, "clients"), 0);
	members = json_object_get(o, "members");
	ck_assert_uint_eq(json_array_size(members), 3);
	for (unsigned i = 0, slices = 0; i < 3; i++) {
		const json_t *m = json_array_get(members, i);

		ck_assert_uint_eq(number_of(m, "node"), i);
		ck_assert_ptr_nonnull(strstr(text_of(m, "address"), cluster.node[i].ip));
		slices += (unsigned)number_of(m, "slices");
		ck_assert(i < 2 || slices == 4096);
		ck_assert(json_is_true(json_object_get(m, "answered")));
	}
	vm = json_array_get(json_object_get(o, "vms"), 0);
	ck_assert_uint_eq(number_of(vm, "id"), CLUSTER_VM);
	ck_assert_uint_eq(number_of(vm, "bytes"), 3 * GIB);
	json_decref(o);
	ctl_text((const char *const[]){"status", NULL},
		 (const char *const[]){"node 1  serving", cluster.node[1].ring, cluster.node[2].ip,
				       "held Modified 64", NULL});
	cluster_stop(&cluster);
}
END_TEST

START_TEST(stats_count_what_happened)
{
	struct arena *a = arena_new(0);
	uint64_t before;

	cluster_start(&cluster, NULL);
	harm_touch_units(&cluster, a, 0, HARM_ANY);
	before = cluster_stat(&cluster, 1, "core", "faults_write");
	programs_run(&cluster, a, (const unsigned[]){1}, 1, use_some, NULL);
	ck_assert_uint_eq(cluster_stat(&cluster, 1, "core", "faults_write") - before, 64);
	ck_assert_uint_eq(cluster_stat(&cluster, 1, "core", "grants_modified"), 64);
	ck_assert_uint_eq(cluster_stat(&cluster, 1, "core", "faults_failed"), 0);
	ck_assert_uint_eq(cluster_stat(&cluster, 1, "drops", "crc"), 0);
	ctl_text((const char *const[]){"stats", NULL},
		 (const char *const[]){"faults_write", "write faults, from fault to grant", " us",
				       "syscalls", "io_uring_enter", NULL});
	cluster_stop(&cluster);
}
END_TEST

/* What wvm_where() says, for the test to compare. */
static void ask_where(struct program *p)
{
	for (unsigned i = 0; i < 16; i++)
		p->arena->model[i] = (uint64_t)wvm_where(p->wvm, CLUSTER_VM,
							 i * 64 * MIB + i * PAGE);
	NEED(p, wvm_where(p->wvm, CLUSTER_VM, 3 * GIB) == -ERANGE, "beyond");
	NEED(p, wvm_where(p->wvm, 9, 0) == -ENXIO, "no such VM");
	use_some(p);
}

static json_t *where(unsigned node, uint64_t gpa)
{
	static struct cluster_result r;
	char text[32];
	json_t *o;

	snprintf(text, sizeof(text), "0x%lx", gpa);
	cluster_ctl(&cluster, node, &r,
		    (const char *const[]){"--vm", "1", "--json", "where", text, NULL});
	ck_assert_msg(r.status == 0, "%s", r.err);
	o = json_loads(r.out, 0, NULL);
	ck_assert_ptr_nonnull(o);
	return o;
}

static void where_refused(const char *vm, const char *gpa, const char *text)
{
	static struct cluster_result r;

	cluster_ctl(&cluster, 1, &r, (const char *const[]){"--vm", vm, "where", gpa, NULL});
	ck_assert_int_eq(WEXITSTATUS(r.status), 1);
	ck_assert_str_eq(r.out, "");
	ck_assert_msg(strstr(r.err, text) != NULL, "%s", r.err);
	ck_assert_ptr_eq(strchr(r.err, '\n'), r.err + strlen(r.err) - 1);
}

START_TEST(where_agrees_with_wvm_where_and_with_all_nodes)
{
	struct arena *a = arena_new(16);
	unsigned homes = 0, home;
	json_t *o;

	cluster_start(&cluster, NULL);
	programs_run(&cluster, a, (const unsigned[]){1}, 1, ask_where, NULL);
	for (unsigned i = 0; i < 16; i++)
		for (unsigned node = 0; node < 3; node++) {
			o = where(node, i * 64 * MIB + i * PAGE);
			ck_assert_uint_eq(number_of(o, "home_node"), a->model[i]);
			homes |= 1u << a->model[i];
			json_decref(o);
		}
	ck_assert_uint_eq(homes, 7);
	o = where(1, GPA);
	home = (unsigned)number_of(o, "home_node");
	ck_assert_str_eq(text_of(o, "held"), "Modified");
	json_decref(o);
	o = where(home, GPA);
	ck_assert_str_eq(text_of(o, "home_state"), "Modified");
	ck_assert_uint_eq(number_of(o, "owner_node"), 1);
	json_decref(o);
	ctl_text((const char *const[]){"--vm", "1", "where", "0x100000", NULL},
		 (const char *const[]){"gpa 0x100000", "holds it Modified", NULL});
	where_refused("9", "0", "no VM 9");
	where_refused("1", "0xc0000000", "beyond");
	where_refused("1", "5x", "GPA");
	cluster_stop(&cluster);
}
END_TEST

#define ASKERS 6u
#define ASKED  30u

/* Each answer is of several parts, which belong together. */
START_TEST(operators_who_ask_at_the_same_time_are_all_answered)
{
	pid_t pid[ASKERS];
	int status;

	cluster_start(&cluster, NULL);
	for (unsigned i = 0; i < ASKERS; i++) {
		pid[i] = fork();
		if (pid[i])
			continue;
		for (unsigned k = 0; k < ASKED; k++)
			json_decref(cluster_json(&cluster, 0, "stats"));
		_exit(0);
	}
	for (unsigned i = 0; i < ASKERS; i++) {
		ck_assert_int_eq(waitpid(pid[i], &status, 0), pid[i]);
		ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status), "asker %u: %x", i, status);
	}
	cluster_stop(&cluster);
}
END_TEST

START_TEST(a_control_port_without_a_master_is_one_line_and_status_1)
{
	static struct cluster_result r;

	cluster_prepare(&cluster, &alone);
	cluster_ctl(&cluster, 0, &r, (const char *const[]){"status", NULL});
	ck_assert_int_eq(WEXITSTATUS(r.status), 1);
	ck_assert_str_eq(r.out, "");
	ck_assert_ptr_nonnull(strstr(r.err, "no master answers"));
	ck_assert_ptr_eq(strchr(r.err, '\n'), r.err + strlen(r.err) - 1);
}
END_TEST

/* Meanwhile it has asked again, and gets the answers to all of that at once. */
START_TEST(a_master_that_was_late_is_understood)
{
	static struct cluster_result r;
	pid_t waker;

	cluster_start(&cluster, &alone);
	ck_assert_int_eq(kill(cluster.node[0].pid, SIGSTOP), 0);
	waker = fork();
	if (!waker) {
		usleep(1000000);
		_exit(kill(cluster.node[0].pid, SIGCONT));
	}
	cluster_ctl(&cluster, 0, &r, (const char *const[]){"--json", "stats", NULL});
	ck_assert_int_eq(waitpid(waker, NULL, 0), waker);
	ck_assert_msg(r.status == 0, "%s", r.err);
	ck_assert_ptr_nonnull(strstr(r.out, "latency_write"));
	cluster_stop(&cluster);
}
END_TEST

static Suite *masters_suite(void)
{
	Suite *s = suite_create("masters");
	TCase *t = cluster_tcase(s, "refusals", 60);

	tcase_add_test(t, a_bad_topology_is_one_line_that_names_file_and_line);
	tcase_add_test(t, a_node_that_is_not_in_the_topology_or_has_another_port_there_is_refused);
	tcase_add_test(t, a_command_line_that_makes_no_sense_is_refused);
	tcase_add_test(t, a_port_that_another_program_has_is_refused_by_name);
	tcase_add_test(t, files_that_cannot_be_what_they_should_are_refused_and_left_alone);
	tcase_add_test(t, a_user_without_userfaultfd_or_locked_memory_is_told_what_to_do);
	tcase_add_test(t, a_program_without_userfaultfd_is_told_what_to_do);
	tcase_add_test(t, a_second_master_is_refused_and_the_first_is_unharmed);
	t = cluster_tcase(s, "ends", 60);
	tcase_add_test(t, sigterm_and_sigint_end_it_cleanly_and_remove_its_files);
	tcase_add_test(t,
		       a_master_that_ends_under_a_program_leaves_nothing_and_the_program_is_told);
	tcase_add_test(t, a_master_that_waits_for_the_others_ends_cleanly_too);
	tcase_add_test(t, what_a_killed_cluster_left_is_taken_over_also_when_its_programs_are_gone);
	tcase_add_test(t, what_a_killed_master_left_is_refused_to_one_of_another_shape);
	tcase_add_test(t, what_a_killed_cluster_left_is_discarded_by_fresh);
	t = cluster_tcase(s, "operator", 60);
	tcase_add_test(t, help_and_version_are_on_stdout_with_status_0);
	tcase_add_test(t, systemd_is_told_when_it_serves_and_when_it_stops);
	tcase_add_test(t, status_says_who_the_node_is_and_what_it_holds);
	tcase_add_test(t, stats_count_what_happened);
	tcase_add_test(t, where_agrees_with_wvm_where_and_with_all_nodes);
	tcase_add_test(t, operators_who_ask_at_the_same_time_are_all_answered);
	tcase_add_test(t, a_control_port_without_a_master_is_one_line_and_status_1);
	tcase_add_test(t, a_master_that_was_late_is_understood);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {masters_suite};

	return cluster_main(argv, suites, 1);
}

/*
 * The slave daemon, with this program as its master, as the owner of its VMs and, started by it in
 * the place of QEMU, as its engine.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "roles/slave/slave.h"
#include "shared/engine.h"
#include "shared/wire.h"

#define LOG_NAME "WVM_CHECK_LOG" /* where the engine writes down what it executes */
#define VNODE    5u
#define OWNER    9u /* the vnode of a node of the owner's */
#define MTU      1472u
#define VM       3u

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the engine ------------------------------------------------------------------------ */

static struct wvm_engine *engine;
static int log_fd;

static void on_kick(void *opaque, unsigned vcpu)
{
	(void)opaque;
	(void)vcpu;
}

static bool asks(const struct wvm_vcpu_run *r, const char *what)
{
	return r->state_len >= strlen(what) && !memcmp(r->state, what, strlen(what));
}

static void *engine_vcpu(void *arg)
{
	unsigned vcpu = (unsigned)(uintptr_t)arg;
	static _Thread_local uint8_t in[WVM_RUN_MAX], out[WVM_RUN_MAX];
	struct wvm_vcpu_run r;
	uint64_t seq;
	int len;

	while ((len = wvm_engine_wait(engine, vcpu, in, sizeof(in), &seq)) >= 0) {
		struct wvm_vcpu_exit e = {.kind = WVM_VCPU_EXIT_KICKED,
					  .flags = WVM_VCPU_EXIT_STATE,
					  .at = (uint64_t)getpid()};

		dprintf(log_fd, "%u %llu\n", vcpu, (unsigned long long)seq);
		if (wvm_vcpu_run_decode(in, (size_t)len, &r))
			_exit(9);
		if (asks(&r, "die"))
			raise(SIGKILL);
		while (asks(&r, "deaf"))
			pause();
		if (asks(&r, "spin"))
			while (!wvm_engine_kicked(engine, vcpu))
				usleep(200);
		if (asks(&r, "base")) {
			wvm_engine_refuse(engine, vcpu, seq, WVM_RUN_BASE);
			continue;
		}
		if (asks(&r, "junk")) {
			wvm_engine_exit(engine, vcpu, seq, in, 7);
			continue;
		}
		e.state = r.state;
		e.state_len = r.state_len;
		wvm_engine_exit(engine, vcpu, seq, out, wvm_vcpu_exit_encode(out, sizeof(out), &e));
	}
	return NULL;
}

static int be_engine(int argc, char **argv)
{
	pthread_t thread[WVM_VCPU_MAX];
	char err[160] = "";

	if (argc < 3 || strcmp(argv[2], "wavevm-slave") || strcmp(getenv("WVM_ROLE"), "SLAVE") ||
	    atoi(getenv("WVM_VM_ID")) != VM)
		return 8;
	log_fd = open(getenv(LOG_NAME), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (wvm_engine_open(&engine, on_kick, NULL, err, sizeof(err))) {
		fprintf(stderr, "%s\n", err);
		return 7;
	}
	for (unsigned i = 0; i < wvm_engine_vcpus(engine); i++)
		pthread_create(&thread[i], NULL, engine_vcpu, (void *)(uintptr_t)i);
	for (unsigned i = 0; i < wvm_engine_vcpus(engine); i++)
		pthread_join(thread[i], NULL);
	return 0;
}

/* ---- the bed --------------------------------------------------------------------------- */

static struct {
	char dir[64], ring[96], log[96], program[1024], self[1024];
	int fd; /* the master's socket */
	uint16_t port;
	pid_t pid;
	uint64_t life;
	bool twice; /* every message is sent two times */
} bed;

static uint16_t port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	return ntohs(a.sin_port);
}

static int loopback_socket(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), bytes = 4 << 20;

	ck_assert_int_ge(fd, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void write_ring(void)
{
	static uint8_t page[WVM_RING_FILE_BYTES];
	struct wvm_ring_header h = {.layout = WVM_RING_LAYOUT,
				    .magic = WVM_RING_MAGIC,
				    .slot_count = WVM_CLIENTS_MAX,
				    .boot_id = 1,
				    .shard_count = 1,
				    .udp_ip = INADDR_LOOPBACK,
				    .udp_port = port_of(bed.fd),
				    .slave_port = bed.port,
				    .vnode = VNODE,
				    .segment = 512};
	int fd = open(bed.ring, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	memcpy(page, &h, sizeof(h));
	ck_assert_int_eq(write(fd, page, sizeof(page)), sizeof(page));
	close(fd);
}

static void start_slave(void)
{
	char port[8];

	snprintf(port, sizeof(port), "%u", bed.port);
	bed.pid = fork();
	ck_assert_int_ge(bed.pid, 0);
	if (!bed.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv(LOG_NAME, bed.log, 1);
		execl(bed.program, bed.program, port, "2", "1024", "0", "9", "--ring-path",
		      bed.ring, "--qemu", bed.self, NULL);
		_exit(127);
	}
}

static void send_raw(int fd, const struct wvm_msg *m, const void *payload)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons(bed.port)};
	uint8_t out[MTU];
	size_t len = wvm_wire_encode(out, sizeof(out), m, payload);

	ck_assert_uint_gt(len, 0);
	for (int i = 0; i <= bed.twice; i++)
		(void)sendto(fd, out, len, 0, (struct sockaddr *)&to, sizeof(to));
}

/* The next message of the slave. */
static bool receive(struct wvm_msg *m, uint8_t data[MTU], const uint8_t **payload,
		    uint64_t until_ns)
{
	for (uint64_t now; (now = now_ns()) < until_ns;) {
		struct pollfd p = {.fd = bed.fd, .events = POLLIN};
		size_t consumed;
		ssize_t n;

		if (poll(&p, 1, (int)((until_ns - now) / 1000000 + 1)) <= 0)
			continue;
		n = recv(bed.fd, data, MTU, MSG_DONTWAIT);
		if (n > 0 && !wvm_wire_decode(data, (size_t)n, m, payload, &consumed))
			return true;
	}
	return false;
}

/* Asks until it lives. */
static struct wvm_vcpu_hello hello(void)
{
	struct wvm_msg m = {.type = WVM_MSG_VCPU_HELLO,
			    .qos = WVM_QOS_CONTROL,
			    .vm_id = VM,
			    .src = OWNER,
			    .dst = VNODE,
			    .hops = 1,
			    .epoch = 1,
			    .request = 77},
		       in;
	struct wvm_vcpu_hello h;
	const uint8_t *payload;
	uint8_t data[MTU];

	for (unsigned i = 0; i < 300; i++) {
		send_raw(bed.fd, &m, NULL);
		if (receive(&in, data, &payload, now_ns() + 100000000) &&
		    in.type == WVM_MSG_VCPU_HELLO && in.request == 77 && in.dst == OWNER) {
			ck_assert_int_eq(wvm_vcpu_hello_decode(payload, in.payload_len, &h), 0);
			ck_assert_uint_ne(in.grant, 0);
			bed.life = in.grant;
			return h;
		}
	}
	ck_abort_msg("the slave says nothing");
	return h;
}

static void setup(void)
{
	ssize_t n = readlink("/proc/self/exe", bed.self, sizeof(bed.self) - 1);
	int fd;

	ck_assert_int_gt(n, 0);
	snprintf(bed.program, sizeof(bed.program), "%.*s/../../../bin/wavevm_node_slave",
		 (int)(strrchr(bed.self, '/') - bed.self), bed.self);
	snprintf(bed.dir, sizeof(bed.dir), "/dev/shm/wvm-check-slave-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(bed.dir));
	snprintf(bed.ring, sizeof(bed.ring), "%s/ring", bed.dir);
	snprintf(bed.log, sizeof(bed.log), "%s/log", bed.dir);
	bed.twice = false;
	bed.fd = loopback_socket();
	fd = loopback_socket();
	bed.port = port_of(fd);
	close(fd);
	write_ring();
	start_slave();
	hello();
}

/* It ends cleanly, whatever it is doing. */
static void end_slave(void)
{
	int status;

	kill(bed.pid, SIGTERM);
	ck_assert_int_eq(waitpid(bed.pid, &status, 0), bed.pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
}

static void teardown(void)
{
	end_slave();
	close(bed.fd);
	unlink(bed.ring);
	unlink(bed.log);
	rmdir(bed.dir);
}

/* ---- the owner ------------------------------------------------------------------------- */

struct owner {
	struct wvm_run_owner run;
	uint8_t in[WVM_RUN_MAX], out[WVM_RUN_MAX];
	struct wvm_vcpu_exit exit;
};

static void make_owner(struct owner *o, unsigned vcpu, uint64_t life)
{
	wvm_run_owner_init(&o->run, VM, (uint16_t)vcpu, OWNER, life, 1024, o->in);
}

static void begin(struct owner *o, const char *wish, bool with_setup)
{
	static const char text[] = "vcpus 2\ncpu qemu64\nmap 0 1000 0\n";
	static uint8_t state[3000];
	struct wvm_vcpu_run r = {.engine = WVM_VCPU_ENGINE_TCG,
				 .flags = WVM_VCPU_RUN_WHOLE,
				 .setup_version = 1,
				 .state = state,
				 .state_len = 8 + o->run.seq % 2900};

	memset(state, (int)o->run.seq, sizeof(state));
	memcpy(state, wish, strlen(wish));
	if (with_setup) {
		r.setup = (const uint8_t *)text;
		r.setup_len = sizeof(text) - 1;
	}
	wvm_run_begin(&o->run, VNODE, bed.life, o->out,
		      (uint32_t)wvm_vcpu_run_encode(o->out, sizeof(o->out), &r), now_ns());
}

static void send_all(struct owner *o)
{
	const uint8_t *payload;
	struct wvm_msg m;

	while (wvm_run_owner_next(&o->run, &m, &payload)) {
		m.epoch = 1;
		m.hops = 1;
		send_raw(bed.fd, &m, payload);
	}
}

/* Until something has come of it, or the time is over. */
static enum wvm_run_event await(struct owner *o, uint64_t ms)
{
	uint64_t end = now_ns() + ms * 1000000;
	enum wvm_run_event event = WVM_RUN_NOTHING;

	while (!event && now_ns() < end) {
		uint64_t due = wvm_run_owner_deadline(&o->run);
		const uint8_t *payload;
		uint8_t data[MTU];
		struct wvm_msg m;

		send_all(o);
		if (receive(&m, data, &payload, due < end ? due : end)) {
			if (m.type != WVM_MSG_VCPU_HELLO)
				event = wvm_run_owner_message(&o->run, &m, payload, now_ns());
		} else {
			event = wvm_run_owner_tick(&o->run, now_ns());
		}
	}
	send_all(o);
	if (event == WVM_RUN_ANSWERED)
		ck_assert_int_eq(wvm_vcpu_exit_decode(o->in, o->run.answer_len, &o->exit), 0);
	return event;
}

static void run(struct owner *o, const char *wish)
{
	begin(o, wish, o->run.seq == 0);
	ck_assert_int_eq(await(o, 10000), WVM_RUN_ANSWERED);
}

static void expect_refusal(struct owner *o, enum wvm_run_reason reason)
{
	ck_assert_int_eq(await(o, 10000), WVM_RUN_REFUSED);
	ck_assert_str_eq(wvm_run_reason_text(o->run.reason), wvm_run_reason_text(reason));
}

static bool is_gone(pid_t pid)
{
	for (unsigned i = 0; i < 500; i++) {
		if (kill(pid, 0) && errno == ESRCH)
			return true;
		usleep(10000);
	}
	return false;
}

/* ---- tests ----------------------------------------------------------------------------- */

static struct owner first, second;

START_TEST(it_says_what_it_is)
{
	struct wvm_vcpu_hello h = hello();

	ck_assert_uint_eq(h.cores, 2);
	ck_assert_uint_eq(h.running, 0);
	ck_assert(h.engines & 1u << WVM_VCPU_ENGINE_TCG);
	ck_assert_int_eq(!(h.engines & 1u << WVM_VCPU_ENGINE_KVM), !wvm_engine_kvm_usable());
}
END_TEST

#define RUNS 400u
START_TEST(each_run_is_executed_once_however_often_it_comes)
{
	unsigned executed[2][RUNS + 1] = {{0}}, vcpu;
	unsigned long long seq;
	FILE *f;

	bed.twice = true;
	make_owner(&first, 0, 10);
	make_owner(&second, 1, 10);
	for (unsigned i = 0; i < RUNS; i++) {
		static uint8_t again[WVM_RUN_MAX];
		struct wvm_msg m = {0};
		const uint8_t *payload;

		run(&first, "echo");
		ck_assert_uint_eq(first.exit.state_len, 8 + i % 2900);
		ck_assert(!memcmp(first.exit.state, "echo", 4));
		if (first.exit.state_len > 8)
			ck_assert_uint_eq(first.exit.state[first.exit.state_len - 1], i & 0xff);
		begin(&second, "echo", i == 0);
		memcpy(again, second.out, sizeof(again));
		ck_assert(wvm_run_owner_next(&second.run, &m, &payload));
		m.epoch = m.hops = 1;
		send_raw(bed.fd, &m, payload);
		ck_assert_int_eq(await(&second, 10000), WVM_RUN_ANSWERED);
		send_raw(bed.fd, &m, payload); /* long after its answer */
	}
	hello(); /* and so all is taken */
	f = fopen(bed.log, "r");
	ck_assert_ptr_nonnull(f);
	while (fscanf(f, "%u %llu", &vcpu, &seq) == 2) {
		ck_assert(vcpu < 2 && seq >= 1 && seq <= RUNS);
		executed[vcpu][seq]++;
	}
	fclose(f);
	for (unsigned i = 1; i <= RUNS; i++)
		ck_assert(executed[0][i] == 1 && executed[1][i] == 1);
}
END_TEST

START_TEST(a_slave_that_was_started_again_refuses_what_was_meant_for_the_life_before)
{
	uint64_t former = bed.life;
	pid_t pid;

	make_owner(&first, 0, 10);
	run(&first, "echo");
	pid = (pid_t)first.exit.at;
	kill(bed.pid, SIGKILL);
	waitpid(bed.pid, NULL, 0);
	ck_assert(is_gone(pid)); /* the engine goes with it */
	start_slave();
	hello();
	ck_assert_uint_gt(bed.life, former);
	bed.life = former;
	begin(&first, "echo", true);
	ck_assert_int_eq(await(&first, 10000), WVM_RUN_LOST);
	hello();
	begin(&first, "echo", true);
	ck_assert_int_eq(await(&first, 10000), WVM_RUN_ANSWERED);
}
END_TEST

START_TEST(what_an_engine_was_executing_when_it_died_is_an_error)
{
	char text[256];

	make_owner(&first, 0, 10);
	make_owner(&second, 1, 10);
	run(&second, "echo");
	run(&first, "die");
	ck_assert_int_eq(first.exit.kind, WVM_VCPU_EXIT_ERROR);
	snprintf(text, sizeof(text), "%.*s", (int)first.exit.data_len,
		 (const char *)first.exit.data);
	ck_assert_ptr_nonnull(strstr(text, "signal 9"));
	begin(&first, "echo", true);
	expect_refusal(&first, WVM_RUN_ENGINE);
	begin(&second, "echo", true);
	expect_refusal(&second, WVM_RUN_ENGINE);
	/* Until the owner begins anew. */
	make_owner(&first, 0, 11);
	run(&first, "echo");
	ck_assert_int_eq(first.exit.kind, WVM_VCPU_EXIT_KICKED);
	/* Its former life is refused from then on. */
	make_owner(&second, 1, 10);
	second.run.seq = 100;
	begin(&second, "echo", true);
	expect_refusal(&second, WVM_RUN_ENGINE);
}
END_TEST

START_TEST(an_engine_that_answers_nonsense_is_ended)
{
	pid_t pid;

	make_owner(&first, 0, 10);
	run(&first, "echo");
	pid = (pid_t)first.exit.at;
	run(&first, "junk");
	ck_assert_int_eq(first.exit.kind, WVM_VCPU_EXIT_ERROR);
	ck_assert(is_gone(pid));
	begin(&first, "echo", true);
	expect_refusal(&first, WVM_RUN_ENGINE);
}
END_TEST

START_TEST(a_refusal_of_the_engine_reaches_the_owner)
{
	make_owner(&first, 0, 10);
	run(&first, "echo");
	begin(&first, "base", false);
	expect_refusal(&first, WVM_RUN_BASE);
	run(&first, "echo");
}
END_TEST

START_TEST(a_machine_that_is_not_known_or_makes_no_sense_is_refused)
{
	make_owner(&first, 0, 10);
	begin(&first, "echo", false);
	expect_refusal(&first, WVM_RUN_SETUP);
	make_owner(&second, 2, 10); /* it has two */
	begin(&second, "echo", true);
	expect_refusal(&second, WVM_RUN_MALFORMED);
	wvm_run_begin(&first.run, VNODE, bed.life, "nonsense", 8, now_ns());
	expect_refusal(&first, WVM_RUN_MALFORMED);
	begin(&first, "echo", true);
	ck_assert_int_eq(await(&first, 10000), WVM_RUN_ANSWERED);
}
END_TEST

START_TEST(a_kick_ends_the_run_that_it_names)
{
	make_owner(&first, 0, 10);
	run(&first, "echo");
	begin(&first, "spin", false);
	ck_assert_int_eq(await(&first, 300), WVM_RUN_NOTHING);
	ck_assert_uint_eq(hello().running, 1);
	wvm_run_owner_kick(&first.run, now_ns());
	ck_assert_int_eq(await(&first, 1000), WVM_RUN_ANSWERED);
	/* Before the run, which ends at its beginning. */
	begin(&first, "spin", false);
	wvm_run_owner_kick(&first.run, now_ns());
	ck_assert_int_eq(await(&first, 1000), WVM_RUN_ANSWERED);
	ck_assert_uint_eq(hello().running, 0);
}
END_TEST

START_TEST(a_later_life_of_the_owner_ends_what_the_former_runs)
{
	pid_t pid;

	make_owner(&first, 0, 10);
	make_owner(&second, 1, 10);
	run(&second, "echo");
	pid = (pid_t)second.exit.at;
	begin(&first, "spin", false);
	ck_assert_int_eq(await(&first, 50), WVM_RUN_NOTHING);
	make_owner(&second, 1, 11);
	begin(&second, "echo", true); /* of another processor than the one that runs */
	expect_refusal(&second, WVM_RUN_BUSY);
	usleep(100000);
	begin(&second, "echo", true);
	ck_assert_int_eq(await(&second, 5000), WVM_RUN_ANSWERED);
	ck_assert_int_ne((pid_t)second.exit.at, pid);
	ck_assert(is_gone(pid));
}
END_TEST

START_TEST(what_an_owner_has_left_does_not_run_for_ever)
{
	make_owner(&first, 0, 10);
	begin(&first, "spin", true);
	ck_assert_int_eq(await(&first, 500), WVM_RUN_NOTHING);
	usleep(9000000);
	ck_assert_uint_eq(hello().running, 1);
	usleep(1500000);
	ck_assert_uint_eq(hello().running, 0);
	/* The owner has given up by now, too. */
	ck_assert_int_eq(await(&first, 5000), WVM_RUN_SILENT);
	make_owner(&first, 0, 11);
	run(&first, "echo");
}
END_TEST

START_TEST(an_engine_that_heeds_no_kick_is_ended_for_a_later_life)
{
	uint64_t began = now_ns();

	make_owner(&first, 0, 10);
	begin(&first, "deaf", true);
	ck_assert_int_eq(await(&first, 100), WVM_RUN_NOTHING);
	make_owner(&second, 0, 11);
	do {
		begin(&second, "echo", true);
		usleep(50000);
	} while (await(&second, 5000) == WVM_RUN_REFUSED && second.run.reason == WVM_RUN_BUSY &&
		 now_ns() - began < UINT64_C(8000000000));
	ck_assert_uint_gt(second.exit.at, 0);
}
END_TEST

START_TEST(there_is_room_for_so_many_processors_and_no_more)
{
	for (unsigned i = 0; i < WVM_SLAVE_VCPUS_MAX; i++) {
		make_owner(&first, i, 10);
		begin(&first, "echo", false);
		expect_refusal(&first, WVM_RUN_SETUP);
	}
	wvm_run_owner_init(&first.run, VM + 1, 0, OWNER, 10, 1024, first.in);
	begin(&first, "echo", true);
	expect_refusal(&first, WVM_RUN_FULL);
	make_owner(&second, 1, 11); /* one that it knows */
	begin(&second, "echo", true);
	ck_assert_int_eq(await(&second, 10000), WVM_RUN_ANSWERED);
}
END_TEST

START_TEST(nobody_but_the_master_is_heard)
{
	struct wvm_msg m;
	const uint8_t *payload;
	int other = loopback_socket();

	make_owner(&first, 0, 10);
	begin(&first, "echo", true);
	while (wvm_run_owner_next(&first.run, &m, &payload)) {
		m.epoch = m.hops = 1;
		send_raw(other, &m, payload);
	}
	hello();
	ck_assert_int_ne(access(bed.log, F_OK), 0);
	close(other);
	/* A master that was started again elsewhere is found by what it sends. */
	close(bed.fd);
	bed.fd = loopback_socket();
	write_ring();
	hello();
	make_owner(&first, 0, 11);
	run(&first, "echo");
}
END_TEST

START_TEST(engines_end_with_the_slave)
{
	pid_t pid;

	make_owner(&first, 0, 10);
	run(&first, "echo");
	pid = (pid_t)first.exit.at;
	begin(&first, "deaf", false);
	ck_assert_int_eq(await(&first, 50), WVM_RUN_NOTHING);
	end_slave();
	ck_assert(kill(pid, 0) && errno == ESRCH);
	start_slave();
	hello();
}
END_TEST

static int status_of(const char *const args[])
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		dup2(open("/dev/null", O_WRONLY), 2);
		execv(bed.program, (char *const *)args);
		_exit(127);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

START_TEST(a_command_line_that_makes_no_sense_is_refused)
{
	static const char *const lines[][9] = {
		{"slave", NULL},
		{"slave", "1", "2", "3", "4", NULL},
		{"slave", "0", "2", "3", "4", "5", NULL},
		{"slave", "70000", "2", "3", "4", "5", NULL},
		{"slave", "9000", "x", "3", "4", "5", NULL},
		{"slave", "9000", "2", "3", "4", "5", "6", NULL},
		{"slave", "9000", "2", "3", "4", "5", "-vfio", "f", NULL},
		{"slave", "9000", "2", "3", "4", "5", "--qemu", "/nonexistent", NULL},
	};

	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		ck_assert_int_eq(status_of(lines[i]), 1);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("slave");
	TCase *t = tcase_create("slave");
	SRunner *runner;
	int failed;

	if (getenv(WVM_ENGINE_ENV))
		return be_engine(argc, argv);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, it_says_what_it_is);
	tcase_add_test(t, each_run_is_executed_once_however_often_it_comes);
	tcase_add_test(t,
		       a_slave_that_was_started_again_refuses_what_was_meant_for_the_life_before);
	tcase_add_test(t, what_an_engine_was_executing_when_it_died_is_an_error);
	tcase_add_test(t, an_engine_that_answers_nonsense_is_ended);
	tcase_add_test(t, a_refusal_of_the_engine_reaches_the_owner);
	tcase_add_test(t, a_machine_that_is_not_known_or_makes_no_sense_is_refused);
	tcase_add_test(t, a_kick_ends_the_run_that_it_names);
	tcase_add_test(t, a_later_life_of_the_owner_ends_what_the_former_runs);
	tcase_add_test(t, what_an_owner_has_left_does_not_run_for_ever);
	tcase_add_test(t, an_engine_that_heeds_no_kick_is_ended_for_a_later_life);
	tcase_add_test(t, there_is_room_for_so_many_processors_and_no_more);
	tcase_add_test(t, nobody_but_the_master_is_heard);
	tcase_add_test(t, engines_end_with_the_slave);
	tcase_add_test(t, a_command_line_that_makes_no_sense_is_refused);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

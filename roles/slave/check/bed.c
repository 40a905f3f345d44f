#include "roles/slave/check/bed.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/client_ring.h"
#include "shared/wire.h"

#define MTU 1472u

struct bed bed;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the daemon ------------------------------------------------------------------------ */

static int open_socket(uint16_t *port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), bytes = 4 << 20;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	*port = ntohs(at.sin_port);
	return fd;
}

static void write_ring(uint16_t master_port)
{
	struct wvm_ring_header h = {.magic = WVM_RING_MAGIC,
				    .layout = WVM_RING_LAYOUT,
				    .slot_count = WVM_CLIENTS_MAX,
				    .boot_id = 1,
				    .shard_count = 1,
				    .node_id = 0,
				    .udp_ip = INADDR_LOOPBACK,
				    .udp_port = master_port,
				    .slave_port = bed.port,
				    .vnode = BED_SELF,
				    .segment = wvm_wire_segment(MTU)};
	int fd = open(bed.ring, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, &h, sizeof(h)), sizeof(h));
	ck_assert_int_eq(ftruncate(fd, WVM_RING_FILE_BYTES), 0);
	close(fd);
}

void bed_setup(void)
{
	uint16_t master_port;
	int other;

	memset(&bed, 0, sizeof(bed));
	bed.copies = 1;
	snprintf(bed.ring, sizeof(bed.ring), "/dev/shm/wvm-check-slave-%d.ring", (int)getpid());
	snprintf(bed.counts_path, sizeof(bed.counts_path), "/dev/shm/wvm-check-slave-%d.counts",
		 (int)getpid());
	bed.fd = open_socket(&master_port);
	other = open_socket(&bed.port); /* a number that nobody has */
	close(other);
	write_ring(master_port);
	bed.counts = fake_counts(bed.counts_path);
	ck_assert_ptr_nonnull(bed.counts);
	setenv(FAKE_COUNTS_ENV, bed.counts_path, 1);
}

void bed_teardown(void)
{
	if (bed.slave)
		bed_kill();
	close(bed.fd);
	munmap(bed.counts, sizeof(*bed.counts));
	unlink(bed.ring);
	unlink(bed.counts_path);
}

static void become_slave(const char *option)
{
	const char *build = getenv("BUILD");
	char program[256], self[256] = "", port[16];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *argv[] = {program,  port, "2",           "64",     "0",    "9001",
			      "--qemu", self, "--ring-path", bed.ring, option, NULL};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (len <= 0)
		_exit(127);
	snprintf(program, sizeof(program), "%s/bin/wavevm_node_slave", build ? build : "build");
	snprintf(port, sizeof(port), "%u", bed.port);
	execv(program, (char *const *)argv);
	fprintf(stderr, "%s: %s\n", program, strerror(errno));
	_exit(127);
}

void bed_start(const char *option)
{
	uint64_t end = now_ns() + 10000000000u;
	bool answers = false;

	bed.slave = fork();
	if (!bed.slave)
		become_slave(option);
	while (!answers && now_ns() < end && waitpid(bed.slave, NULL, WNOHANG) == 0)
		answers = bed_hello(50);
	ck_assert_msg(answers, "the slave does not come up");
}

static int wait_status(void)
{
	int status;

	ck_assert_int_eq(waitpid(bed.slave, &status, 0), bed.slave);
	bed.slave = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int bed_stop(void)
{
	kill(bed.slave, SIGTERM);
	return wait_status();
}

void bed_kill(void)
{
	kill(bed.slave, SIGKILL);
	wait_status();
}

/* ---- datagrams ------------------------------------------------------------------------- */

void bed_send(const void *data, size_t len)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons(bed.port)};

	(void)sendto(bed.fd, data, len, 0, (struct sockaddr *)&to, sizeof(to));
}

void bed_emit(const struct wvm_msg *m, const uint8_t *payload)
{
	struct wvm_msg msg = *m;
	uint8_t out[MTU];
	size_t len;

	msg.src = BED_OWNER;
	msg.epoch = 1;
	len = wvm_wire_encode(out, sizeof(out), &msg, payload);
	ck_assert_uint_gt(len, 0);
	if (m->type == WVM_MSG_VCPU_RUN && bed.kept < 64) {
		memcpy(bed.keep[bed.kept], out, len);
		bed.keep_len[bed.kept++] = (uint32_t)len;
	}
	for (unsigned i = 0; i < bed.copies; i++)
		bed_send(out, len);
}

void bed_replay(void)
{
	for (unsigned i = 0; i < bed.kept; i++)
		bed_send(bed.keep[i], bed.keep_len[i]);
}

bool bed_take(struct wvm_msg *m, const uint8_t **payload, int wait_ms)
{
	static uint8_t data[65536];
	struct pollfd p = {.fd = bed.fd, .events = POLLIN};
	size_t consumed;
	ssize_t n;

	if (poll(&p, 1, wait_ms) <= 0)
		return false;
	n = recv(bed.fd, data, sizeof(data), 0);
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(wvm_wire_decode(data, (size_t)n, m, payload, &consumed), WVM_DROP_NONE);
	ck_assert_uint_eq(m->src, BED_SELF);
	return true;
}

bool bed_hello(int wait_ms)
{
	uint64_t nonce = now_ns() | 1, end = now_ns() + (uint64_t)wait_ms * 1000000u;
	struct wvm_msg m = {.type = WVM_MSG_VCPU_HELLO,
			    .hops = WVM_HOPS_MAX,
			    .dst = BED_SELF,
			    .request = nonce};
	const uint8_t *payload;

	bed_emit(&m, NULL);
	while (now_ns() < end) {
		if (!bed_take(&m, &payload, wait_ms) || m.type != WVM_MSG_VCPU_HELLO ||
		    m.request != nonce)
			continue;
		ck_assert_uint_eq(m.flags, WVM_MSG_ANSWER);
		ck_assert_int_eq(wvm_vcpu_hello_decode(payload, m.payload_len, &bed.hello), 0);
		bed.life = m.grant;
		return true;
	}
	return false;
}

/* ---- the owner ------------------------------------------------------------------------- */

void bed_vcpu(struct bed_vcpu *v, uint16_t vm_id, unsigned vcpu, uint64_t life)
{
	memset(v, 0, sizeof(*v));
	wvm_run_owner_init(&v->run, vm_id, (uint16_t)vcpu, BED_OWNER, life, wvm_wire_segment(MTU),
			   v->answer);
}

static void flush(struct bed_vcpu *v)
{
	const uint8_t *payload;
	struct wvm_msg m;

	while (wvm_run_owner_next(&v->run, &m, &payload))
		bed_emit(&m, payload);
}

void bed_begin_bytes(struct bed_vcpu *v, size_t len)
{
	bed.kept = 0;
	wvm_run_begin(&v->run, BED_SELF, bed.life, v->out, (uint32_t)len, now_ns());
	flush(v);
}

void bed_begin_run(struct bed_vcpu *v, const struct wvm_vcpu_run *r)
{
	size_t len = wvm_vcpu_run_encode(v->out, sizeof(v->out), r);

	ck_assert_uint_gt(len, 0);
	bed_begin_bytes(v, len);
}

void bed_begin(struct bed_vcpu *v, enum fake_wish wish, uint32_t len)
{
	static const char setup[] = "vcpus 4\ncpu fake\nmap 0 100000 0\n";
	static uint8_t state[WVM_RUN_MAX];
	struct wvm_vcpu_run r = {.engine = WVM_VCPU_ENGINE_TCG,
				 .flags = WVM_VCPU_RUN_WHOLE,
				 .setup_version = 1,
				 .setup = (const uint8_t *)setup,
				 .setup_len = sizeof(setup) - 1,
				 .state = state,
				 .state_len = len};

	for (uint32_t i = 0; i < len; i++)
		state[i] = (uint8_t)(i * 3 + v->run.seq);
	state[0] = (uint8_t)wish;
	bed_begin_run(v, &r);
}

static enum wvm_run_event ended(struct bed_vcpu *v, enum wvm_run_event event)
{
	if (event == WVM_RUN_ANSWERED)
		ck_assert_int_eq(wvm_vcpu_exit_decode(v->answer, v->run.answer_len, &v->exit), 0);
	return event;
}

enum wvm_run_event bed_await(struct bed_vcpu *v, int wait_ms)
{
	uint64_t end = now_ns() + (uint64_t)wait_ms * 1000000u;
	enum wvm_run_event event = WVM_RUN_NOTHING;

	while (event == WVM_RUN_NOTHING && now_ns() < end) {
		uint64_t due = wvm_run_owner_deadline(&v->run), now = now_ns();
		int wait = due <= now ? 0 : due - now > 5000000 ? 5 : 1;
		const uint8_t *payload;
		struct wvm_msg m;

		if (bed_take(&m, &payload, wait) && m.vm_id == v->run.vm_id &&
		    wvm_run_vcpu(&m) == v->run.vcpu && m.type != WVM_MSG_VCPU_HELLO)
			event = wvm_run_owner_message(&v->run, &m, payload, now_ns());
		if (event == WVM_RUN_NOTHING)
			event = wvm_run_owner_tick(&v->run, now_ns());
		flush(v);
	}
	return ended(v, event);
}

enum wvm_run_event bed_run(struct bed_vcpu *v, enum fake_wish wish)
{
	bed_begin(v, wish, 40);
	return bed_await(v, BED_WAIT_MS);
}

void bed_kick(struct bed_vcpu *v)
{
	wvm_run_owner_kick(&v->run, now_ns());
	flush(v);
}

uint32_t bed_executed(unsigned vcpu, uint64_t seq)
{
	return __atomic_load_n(&bed.counts->executed[vcpu][seq], __ATOMIC_SEQ_CST);
}

const char *bed_error(const struct bed_vcpu *v)
{
	static char text[256];

	ck_assert_int_eq(v->exit.kind, WVM_VCPU_EXIT_ERROR);
	snprintf(text, sizeof(text), "%.*s", (int)v->exit.data_len, (const char *)v->exit.data);
	return text;
}
